//! Tests the initial values of every layer of every network against the distributions of the
//! reference: its backbones, mmcv 1.3.7's `ConvModule`, and PyTorch's defaults.

use std::rc::Rc;

use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::nn::Segmentor;
use udass_raw::params::{ParamSpec, Weights};

/// The distribution of a parameter in the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Constant(f64),
    Normal(f64),
    Uniform(f64),
}

/// Fan-out with the gain of a ReLU.
fn kaiming(outputs: usize, taps: usize) -> Expected {
    Expected::Normal((2.0 / (outputs * taps) as f64).sqrt())
}

/// `nn.Linear` and a 1×1 `nn.Conv2d` without further initialization, weights and biases.
fn torch_default(inputs: usize) -> Expected {
    Expected::Uniform(1.0 / (inputs as f64).sqrt())
}

fn expected(param: &ParamSpec, all: &[ParamSpec]) -> Expected {
    use Expected::{Constant, Normal};
    let name = param.name.as_str();
    let is_bias = name.ends_with(".bias");
    let taps = param.shape[2.min(param.shape.len())..].iter().product::<usize>();
    let outputs = param.shape[0];
    // The reference leaves these to PyTorch; biases need the shape of the weights.
    if ["embed_layers.", "linear_c.", "linear_pred."].iter().any(|part| name.contains(part)) {
        let weight = name.replace(".bias", ".weight");
        let weight = all.iter().find(|other| other.name == weight).unwrap();
        return torch_default(weight.shape[1]);
    }
    if is_bias {
        return Constant(0.0);
    }
    if param.shape.len() == 1 {
        // A block of a ResNet starts as the identity.
        return Constant(if name.contains(".bn3.") { 0.0 } else { 1.0 });
    }
    match name {
        _ if name.contains("conv_seg") => Normal(0.01),
        // DeepLabV2's branches are convolutions without a norm.
        _ if name.contains("aspp_modules")
            && all.iter().all(|p| !p.name.contains("fuse_layer")) =>
        {
            Normal(0.01)
        }
        // timm's truncation at ±2 leaves a deviation of 0.02 alone.
        _ if param.shape.len() == 2 => Normal(0.02),
        // The MiT divides the fan-out by the groups, mmcv does not.
        _ if name.contains("dwconv") => kaiming(1, taps),
        _ => kaiming(outputs, taps),
    }
}

fn check(name: &str, values: &[f32], expected: Expected) {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| x as f64).sum::<f64>() / n;
    let moment =
        |power: i32| values.iter().map(|&x| (x as f64 - mean).powi(power)).sum::<f64>() / n;
    let deviation = moment(2).sqrt();
    let largest = values.iter().fold(0.0f64, |most, &x| most.max(x.abs() as f64));
    // Six standard errors: a wrong layer is off by far more, and none of the hundreds fails by
    // chance. The variance's relative error is √((kurtosis − 1) / n).
    let (wanted, kurtosis) = match expected {
        Expected::Constant(value) => {
            assert!(values.iter().all(|&x| x as f64 == value), "{name} is not {value}");
            return;
        }
        Expected::Normal(deviation) => (deviation, 3.0),
        Expected::Uniform(bound) => {
            assert!(largest <= bound, "{name}: {largest} is beyond {bound}");
            (bound / 3f64.sqrt(), 1.8)
        }
    };
    let close = 6.0 / n.sqrt();
    assert!(mean.abs() <= close * wanted, "{name}: the mean is {mean}");
    let off = (deviation / wanted).powi(2) - 1.0;
    let allowed = close * (kurtosis - 1.0f64).sqrt();
    assert!(off.abs() <= allowed, "{name}: the deviation is {deviation}, not {wanted}");
    if n >= 2000.0 {
        // Normal or uniform, and not truncated at two deviations: that has a kurtosis of 2.37.
        let got = moment(4) / moment(2).powi(2);
        let allowed = 6.0 * (24.0 / n).sqrt();
        assert!((got - kurtosis).abs() <= allowed, "{name}: the kurtosis is {got}, not {kurtosis}");
    }
}

#[test]
fn every_layer_starts_as_in_the_reference() {
    let device = Device::host(1).unwrap();
    for (backbone, head, hrda) in [
        ("mit_b0", "daformer", false),
        ("mit_b1", "daformer", true),
        ("mit_b0", "segformer", false),
        ("resnet50_v1c", "dlv2", false),
        ("resnet50_v1c", "dlv2", true),
        ("resnet50_v1c", "segformer", false),
    ] {
        let mut config = Config::load("gta_vit", &[]).unwrap().network;
        (config.backbone, config.head) = (backbone.into(), head.into());
        (config.hrda.enabled, config.channels) = (hrda, 128);
        let network = Segmentor::new(&config).unwrap();
        let spec: Rc<_> = network.spec().clone();
        let mut weights = Weights::new(&device, &spec, false).unwrap();
        weights.initialize(&device, 7).unwrap();
        for (index, param) in spec.params().iter().enumerate() {
            let values = weights.export(&device, &weights.values, index).unwrap();
            let name = format!("{backbone} {head}: {}", param.name);
            check(&name, &values, expected(param, spec.params()));
        }
    }
}

/// The figures that a reading of the reference gives for one layer, as a check of the rules above.
#[test]
fn the_rules_give_the_known_figures() {
    assert_eq!(kaiming(1024, 9), Expected::Normal((2.0f64 / 9216.0).sqrt()));
    let Expected::Normal(aspp) = kaiming(1024, 9) else { panic!() };
    assert!((aspp - 0.0147).abs() < 5e-5, "{aspp}");
}
