//! Segments one image with a trained network and prints how much of it each class covers.
//!
//! `cargo run --release --example segment_image -- IMAGE CONFIG CHECKPOINT`, where CONFIG is a preset
//! or a file and CHECKPOINT a run's folder, a .safetensors or a .pth. Without arguments it segments a
//! generated image with random weights, to show the calls.

use std::path::Path;

use udass_raw::checkpoint::files;
use udass_raw::checkpoint::weights::Network;
use udass_raw::config::Config;
use udass_raw::data::classes::Classes;
use udass_raw::data::decode::load_rgb;
use udass_raw::data::toy::{Domain, Split, ToyWorld};
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::Weights;
use udass_raw::run::build;
use udass_raw::run::eval::inference::Predictor;

fn main() -> udass_raw::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (config, device, network, weights, rgb, size) = match arguments.as_slice() {
        [image, config, checkpoint] => {
            let config = Config::load(config, &[])?;
            let device = build::device(&config)?;
            let file = files::open(Path::new(checkpoint))?;
            let (network, weights) = build::trained(&config, &device, &file, Network::Student)?;
            let image = load_rgb(Path::new(image))?;
            (config, device, network, weights, image.rgb, (image.size.width, image.size.height))
        }
        _ => {
            let config = Config::load("toy_vit", &[])?;
            let device = Device::host(0)?;
            let network = Segmentor::new(&config.network)?;
            let mut weights = Weights::new(&device, network.spec(), false)?;
            weights.initialize(&device, 1)?;
            let world = ToyWorld::default();
            let (rgb, _) = world.draw(Domain::Target, Split::Val, 0);
            (config, device, network, weights, rgb, world.target_size)
        }
    };
    let (width, height) = size;
    let predictor = Predictor::new(&device, &network, &weights, &config.eval)?;
    // H,W,classes before any softmax, on the device.
    let logits = predictor.logits(&rgb, width, height)?;
    let ids: Vec<u8> = device.read(&predictor.classes(&logits, (height, width))?)?;

    let classes = Classes::new(&config.dataset);
    for class in 0..classes.len() {
        let pixels = ids.iter().filter(|&&id| usize::from(id) == class).count();
        if pixels > 0 {
            println!(
                "{:>5.1} %  {}",
                100.0 * pixels as f64 / ids.len() as f64,
                classes.name(class)
            );
        }
    }
    Ok(())
}
