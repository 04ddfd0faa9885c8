//! Segments one image with a trained network and prints how much of it each class covers.
//!
//! `cargo run --release --example segment_image -- MODEL IMAGE`, where MODEL is a file with a network: a
//! run's checkpoint or folder, a .safetensors or a .pth. Without arguments it exports a network with
//! random weights and segments a generated image, to show the calls.

use std::path::{Path, PathBuf};

use udass_raw::checkpoint::state::{self, Position};
use udass_raw::config::Config;
use udass_raw::data::decode::load_rgb;
use udass_raw::data::toy::{Domain, Split, ToyWorld};
use udass_raw::device::Device;
use udass_raw::model::{FilePrecision, Image, Model, Network, Options, PixelFormat, export};
use udass_raw::run::train::initial_state;

fn main() -> udass_raw::Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (model, rgb, (width, height)) = match arguments.as_slice() {
        [model, image] => {
            let model = Model::open(model, &Options::default())?;
            let image = load_rgb(image)?;
            (model, image.rgb, (image.size.width, image.size.height))
        }
        _ => {
            let folder = std::env::temp_dir().join(format!("segment_image_{}", std::process::id()));
            let model = random(&folder);
            // The model is in memory by now.
            let _ = std::fs::remove_dir_all(&folder);
            let world = ToyWorld::default();
            (model?, world.draw(Domain::Target, Split::Val, 0).0, world.target_size)
        }
    };
    println!("on {}", model.device());
    let labels = model.labels(&Image::new(&rgb, PixelFormat::Rgb, width, height)?)?;
    for (index, class) in model.classes().iter().enumerate() {
        let pixels = labels.iter().filter(|&&label| usize::from(label) == index).count();
        if pixels > 0 {
            println!("{:>5.1} %  {}", 100.0 * pixels as f64 / labels.len() as f64, class.name);
        }
    }
    Ok(())
}

/// Writes a checkpoint with random weights, exports its network, and opens that.
fn random(folder: &Path) -> udass_raw::Result<Model> {
    let create = |e| udass_raw::Error::io(folder, "create", e);
    std::fs::create_dir_all(folder).map_err(create)?;
    let [checkpoint, model] = ["checkpoint", "model"].map(|name| folder.join(name));
    let config = Config::preset("toy_vit")?;
    let mut training = initial_state::build(&config, &Device::host(0)?, None)?;
    state::save(&checkpoint, &mut training, &Position::default(), None)?;
    export(&checkpoint, Network::Student, FilePrecision::Bf16, &model)?;
    Model::open(&model, &Options::default())
}
