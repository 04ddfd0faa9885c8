//! Tests exported ONNX files: of every backbone and head, at one scale and at HRDA's two, of fixed
//! and of free size.
//!
//! With `UDASS_ONNX_PYTHON`, the Python of an environment that holds onnx, onnxruntime and numpy,
//! tests/onnx/compare.py runs ONNX's own checker over each file, and compares the logits that ONNX
//! Runtime computes with ours. Without it, the files are only written.

use std::path::Path;
use std::process::Command;

use udass_raw::checkpoint::writer::write_numbers;
use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::nn::onnx::{InputSize, model};
use udass_raw::params::{ParamSpec, Weights};
use udass_raw::rng::{Draw, Purpose};
use udass_raw::run::eval::inference::Predictor;

struct Case {
    name: &'static str,
    settings: &'static [&'static str],
    size: InputSize,
    /// Batch, height and width of the images that are compared.
    images: &'static [[usize; 3]],
}

const MIT: [&str; 2] = ["network.backbone=mit_b0", "network.channels=32"];
const SMALL_HRDA: [&str; 4] = [
    "network.hrda.enabled=true",
    "network.hrda.detail_crop=64",
    "data.crop=128",
    "network.classes=19",
];

const fn fixed(name: &'static str, settings: &'static [&'static str]) -> Case {
    Case { name, settings, size: InputSize::Fixed([1, 64, 96]), images: &[[1, 64, 96]] }
}

fn cases() -> Vec<Case> {
    vec![
        fixed("mit_daformer", &["network.head=daformer"]),
        fixed("mit_segformer", &["network.head=segformer"]),
        Case {
            size: InputSize::Fixed([2, 160, 128]),
            images: &[[2, 160, 128]],
            ..fixed("mit_daformer_hrda", &["network.head=daformer", "hrda"])
        },
        Case {
            // The second is smaller than a detail window in one direction, and both overlap in the
            // other.
            size: InputSize::Dynamic,
            images: &[[1, 160, 192], [2, 64, 160]],
            ..fixed("mit_daformer_hrda_dynamic", &["network.head=daformer", "hrda"])
        },
        Case {
            size: InputSize::Dynamic,
            images: &[[1, 75, 110], [2, 96, 64]],
            ..fixed("mit_segformer_dynamic", &["network.head=segformer"])
        },
        fixed("resnet_dlv2", &["network.head=dlv2", "resnet"]),
        Case {
            size: InputSize::Dynamic,
            images: &[[1, 70, 65]],
            ..fixed("resnet_daformer_dynamic", &["network.head=daformer", "resnet"])
        },
        Case {
            size: InputSize::Fixed([1, 128, 96]),
            images: &[[1, 128, 96]],
            ..fixed(
                "resnet_dlv2_hrda",
                &["network.head=dlv2", "resnet", "hrda", "network.hrda.overlap=false"],
            )
        },
        Case {
            size: InputSize::Dynamic,
            images: &[[1, 96, 128]],
            ..fixed(
                "mit_daformer_hrda_average",
                &["network.head=daformer", "hrda", "network.hrda.attention=average"],
            )
        },
    ]
}

fn config(case: &Case) -> Config {
    let mut settings = vec!["network.hrda.enabled=false", "eval.window=0", "device.threads=2"];
    let resnet = case.settings.contains(&"resnet");
    match resnet {
        true => settings.extend(["network.backbone=resnet50_v1c", "network.channels=32"]),
        false => settings.extend(MIT),
    }
    for setting in case.settings {
        match *setting {
            "hrda" => settings.extend(SMALL_HRDA),
            "resnet" => {}
            other => settings.push(other),
        }
    }
    let settings: Vec<String> = settings.into_iter().map(Into::into).collect();
    Config::load("gta_vit", &settings).unwrap()
}

/// Draws weights, and statistics of batch norms, with which every layer changes its input, and the
/// logits are of the order of 1.
fn values(param: &ParamSpec, draw: &mut Draw) -> Vec<f32> {
    let mut between = |low: f64, high: f64| (low + draw.uniform() * (high - low)) as f32;
    let fan_in: usize = param.shape[1.min(param.shape.len())..].iter().product();
    let bound = (3.0 / fan_in.max(1) as f64).sqrt();
    let name = param.name.as_str();
    (0..param.len())
        .map(|_| match name {
            _ if name.ends_with("num_batches_tracked") => 1.0,
            _ if name.ends_with("running_var") => between(0.5, 1.5),
            _ if name.ends_with("running_mean") || name.ends_with("bias") => between(-0.3, 0.3),
            // Otherwise the sum of a ResNet's branches grows with every block.
            _ if name.ends_with("bn3.weight") => between(0.1, 0.3),
            _ if param.shape.len() == 1 => between(0.7, 1.3),
            _ => between(-bound, bound),
        })
        .collect()
}

fn export(case: &Case, folder: &Path) {
    let config = config(case);
    let device = Device::host(2).unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    let mut draw = Draw::new(7, 0, Purpose::Init, 1, 0);
    weights.load(&device, |param| Ok(Some(values(param, &mut draw)))).unwrap();
    let metadata = vec![("classes".into(), "[]".into())];
    let file = model(&network, &device, &weights, case.size, metadata).unwrap();
    file.write(&folder.join(format!("{}.onnx", case.name))).unwrap();

    let predictor = Predictor::new(&device, &network, &weights, &config.eval).unwrap();
    for (number, &[batch, height, width]) in case.images.iter().enumerate() {
        let (mut images, mut logits) = (Vec::new(), Vec::new());
        for _ in 0..batch {
            // Blocks with noise: neither flat nor white.
            let blocks: Vec<f64> = (0..64 * 3).map(|_| draw.uniform()).collect();
            let rgb: Vec<u8> = (0..height * width * 3)
                .map(|i| {
                    let (y, x, c) = (i / 3 / width, i / 3 % width, i % 3);
                    let block = (y * 8 / height * 8 + x * 8 / width) * 3 + c;
                    (170.0 * blocks[block] + 80.0 * draw.uniform()) as u8
                })
                .collect();
            let ours = predictor.logits(&rgb, width, height).unwrap();
            logits.extend(device.read_f32(&ours).unwrap());
            images.extend(rgb.into_iter().map(f32::from));
        }
        let stored = |what: &str, channels: usize, numbers: Vec<f32>| {
            let path = folder.join(format!("{}.{number}.{what}.safetensors", case.name));
            write_numbers(&path, what, vec![batch, height, width, channels], numbers).unwrap();
        };
        stored("image", 3, images);
        stored("logits", network.classes(), logits);
    }
}

#[test]
fn onnx_runtime_computes_our_logits() {
    let folder = tempfile::tempdir().unwrap();
    let python = std::env::var_os("UDASS_ONNX_PYTHON");
    if python.is_none() {
        println!("UDASS_ONNX_PYTHON is not set, so no other program reads the files");
    }
    for case in cases() {
        export(&case, folder.path());
        if let Some(python) = &python {
            let file = folder.path().join(format!("{}.onnx", case.name));
            let mut command = Command::new(python);
            let output = command.arg("tests/onnx/compare.py").arg(&file).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (out, errors) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{}:\n{out}{errors}", case.name);
            println!("{}", out.trim_end());
        }
        // Those of a ResNet take 100 MB each.
        for file in std::fs::read_dir(folder.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}
