//! What ONNX files say beside the graph, and which sizes they can have.

use serde_json::json;

use crate::checkpoint::identity;
use crate::checkpoint::tensor_file::TensorFile;
use crate::config::Config;
use crate::data::classes::Classes;
use crate::device::{Device, Precision};
use crate::nn::onnx::InputSize;
use crate::nn::{BatchNormMode, Pass, Segmentor};
use crate::params::Weights;
use crate::run::eval::inference::{DIVISOR, SMALLEST};
use crate::tape::Tape;
use crate::{Error, Result};

/// Returns the texts that tell a program what the network's classes are and where it comes from.
pub(super) fn metadata(config: &Config, file: &TensorFile) -> Result<Vec<(String, String)>> {
    let classes = Classes::new(&config.dataset);
    let names: Vec<String> = (0..classes.len()).map(|class| classes.name(class)).collect();
    let colors: Vec<_> = (0..=u8::MAX).map_while(|class| classes.color(class)).collect();
    let mut metadata = vec![
        ("classes".into(), json!(names).to_string()),
        ("colors".into(), json!(colors).to_string()),
        ("config".into(), config.to_toml()?),
    ];
    if let Some(iteration) = identity::iteration(file)? {
        metadata.push(("iteration".into(), iteration.to_string()));
    }
    Ok(metadata)
}

/// Checks that the network can process images of a size.
pub(super) fn check(config: &Config, size: InputSize) -> Result<()> {
    let InputSize::Fixed([batch, height, width]) = size else { return Ok(()) };
    let hrda = config.network.hrda.enabled;
    let fits = |side: usize| side >= SMALLEST && (!hrda || side.is_multiple_of(DIVISOR));
    if !fits(height) || !fits(width) {
        let multiple = format!(" and a multiple of {DIVISOR}, as HRDA needs it");
        return Err(Error::config(format!(
            "an input of {width}x{height}: each side must be at least {SMALLEST} pixels{}",
            if hrda { &multiple } else { "" }
        )));
    }
    // The network's own checks, without computing anything.
    let device = Device::dry(Precision::F32);
    let network = Segmentor::new(&config.network)?;
    let weights = Weights::new(&device, network.spec(), false)?;
    let tape = Tape::inference(&device);
    let batch_norm = BatchNormMode::Eval;
    let pass = Pass { tape: &tape, weights: &weights, batch_norm, dropout_rng: None };
    let image = device.empty(&[batch, height, width, 3])?;
    network.logits(&pass, &image).map(drop)
}
