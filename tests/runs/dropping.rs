//! Tests drop-path and dropout: which samples and channels they drop, how many, and that backward
//! drops the same.

use udass_raw::config::Config;
use udass_raw::device::Device;
use udass_raw::device::group::Slots;
use udass_raw::nn::{BatchNormMode, DropoutRng, Pass, Segmentor};
use udass_raw::ops::{self, DropPath, Norm};
use udass_raw::params::{Param, Weights};
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

fn upload(device: &Device, shape: &[usize], data: &[f32]) -> Tensor {
    device.upload_real(shape, data).unwrap()
}

/// Numbers that are never 0.
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 + 0.25).collect()
}

const BATCH: usize = 96;
const PIXELS: usize = 5;
const CHANNELS: usize = 7;

/// Returns the factor of each sample's branch, and checks that forward and backward agree.
fn path_factors(rate: f64, key: u64, stream: usize) -> Vec<f32> {
    let device = Device::host(2).unwrap();
    let shape = [BATCH, PIXELS, CHANNELS];
    let n = BATCH * PIXELS * CHANNELS;
    let tape = Tape::recording(&device);
    let x = tape.leaf(&upload(&device, &shape, &vec![0.0; n]));
    let branch = numbers(n);
    let leaf = tape.leaf(&upload(&device, &shape, &branch));
    let param = |value| Param::new(upload(&device, &[CHANNELS], &[value; CHANNELS]), None);
    let norm = Norm { weight: param(1.0), bias: param(0.0), eps: 1e-6 };
    let drop = DropPath {
        rate,
        key: device.upload(&[1], &[key]).unwrap(),
        stream,
        slots: Slots::whole(BATCH),
    };
    let (sum, _) = ops::add_layernorm(&tape, &x, &leaf, Some(drop), &norm).unwrap();
    let forward: Vec<f32> =
        device.read::<f32>(&sum).unwrap().iter().zip(&branch).map(|(s, b)| s / b).collect();
    let ones = upload(&device, &shape, &vec![1.0; n]);
    let mut gradients = tape.backward(vec![(&sum, ones)]).unwrap();
    let of = |leaf: &Tensor, gradients: &mut udass_raw::tape::Gradients| {
        device.read::<f32>(&gradients.of(leaf).unwrap()).unwrap()
    };
    let backward = of(&leaf, &mut gradients);
    assert!(of(&x, &mut gradients).iter().all(|&d| d == 1.0), "the stream is never dropped");
    let sample = PIXELS * CHANNELS;
    let factors: Vec<f32> = backward.iter().step_by(sample).copied().collect();
    for (i, (there, back)) in forward.iter().zip(&backward).enumerate() {
        assert!((there - back).abs() < 1e-5, "element {i}: {there} forward, {back} backward");
        assert_eq!(*back, factors[i / sample], "a sample is dropped as a whole");
    }
    factors
}

#[test]
fn drop_path_drops_samples_and_scales_the_rest() {
    let factors = path_factors(0.25, 5, 3);
    let kept = 1.0 / (1.0 - 0.25);
    assert!(factors.iter().all(|&f| f == 0.0 || (f - kept).abs() < 1e-6), "{factors:?}");
    // 24 expected, standard deviation 4.2.
    let dropped = factors.iter().filter(|&&f| f == 0.0).count();
    assert!((8..=40).contains(&dropped), "{dropped} of {BATCH}");
    assert_eq!(factors, path_factors(0.25, 5, 3));
    assert_ne!(factors, path_factors(0.25, 6, 3), "another step");
    assert_ne!(factors, path_factors(0.25, 5, 4), "another branch or pass");
    assert!(path_factors(0.0, 5, 3).iter().all(|&f| f == 1.0));
}

/// Returns the factor of every channel of every sample.
fn channel_factors(p: f64, key: u64, stream: usize) -> Vec<f32> {
    let device = Device::host(2).unwrap();
    let (b, h, w, c) = (13, 3, 5, 17);
    let tape = Tape::recording(&device);
    let x = numbers(b * h * w * c);
    let leaf = tape.leaf(&upload(&device, &[b, h, w, c], &x));
    let key = device.upload(&[1], &[key]).unwrap();
    let y = ops::dropout2d(&tape, &leaf, p, &key, stream, Slots::whole(b)).unwrap();
    let values = device.read::<f32>(&y).unwrap();
    let ones = upload(&device, &[b, h, w, c], &vec![1.0; x.len()]);
    let mut gradients = tape.backward(vec![(&y, ones)]).unwrap();
    let mask = device.read::<f32>(&gradients.of(&leaf).unwrap()).unwrap();
    let mut factors = Vec::new();
    for (sample, mask) in mask.chunks(h * w * c).enumerate() {
        let first = &mask[..c];
        assert!(mask.chunks(c).all(|pixel| pixel == first), "channels are dropped as a whole");
        for (i, m) in mask.iter().enumerate() {
            let at = sample * h * w * c + i;
            assert_eq!(values[at], x[at] * m, "backward is forward's");
        }
        factors.extend(first);
    }
    factors
}

#[test]
fn dropout_drops_channels_of_samples_and_scales_the_rest() {
    let factors = channel_factors(0.25, 5, 3);
    let kept = 1.0 / (1.0 - 0.25);
    assert!(factors.iter().all(|&f| f == 0.0 || (f - kept).abs() < 1e-6), "{factors:?}");
    // 55 of 221 expected, standard deviation 6.4.
    let dropped = factors.iter().filter(|&&f| f == 0.0).count();
    assert!((30..=80).contains(&dropped), "{dropped}");
    assert!(factors.chunks(17).any(|sample| sample != &factors[..17]), "samples share channels");
    assert_eq!(factors, channel_factors(0.25, 5, 3));
    assert_ne!(factors, channel_factors(0.25, 6, 3));
    assert_ne!(factors, channel_factors(0.25, 5, 4));
}

/// Returns the logits of a small network for two equal images.
fn logits(rates: [&str; 2], key: Option<(u64, usize)>) -> Vec<f32> {
    let [path, channel] = rates;
    let sets = [
        format!("network.drop_path={path}"),
        format!("network.dropout={channel}"),
        "network.channels=16".into(),
        "network.hrda.detail_crop=32".into(),
    ];
    let config = Config::load("toy_vit", &sets).unwrap();
    let device = Device::host(2).unwrap();
    let network = Segmentor::new(&config.network).unwrap();
    let mut weights = Weights::new(&device, network.spec(), false).unwrap();
    weights.initialize(&device, 1).unwrap();
    let image: Vec<f32> = numbers(64 * 64 * 3).repeat(2);
    let image = upload(&device, &[2, 64, 64, 3], &image);
    let tape = Tape::inference(&device);
    let dropout_rng = key.map(|(key, pass)| DropoutRng {
        key: device.upload(&[1], &[key]).unwrap(),
        pass,
        slots: Slots::whole(2),
    });
    let pass =
        Pass { tape: &tape, weights: &weights, batch_norm: BatchNormMode::Eval, dropout_rng };
    device.read::<f32>(&network.logits(&pass, &image).unwrap()).unwrap()
}

#[test]
fn a_network_drops_only_where_it_is_told_to() {
    let plain = logits(["0.0", "0.0"], Some((5, 0)));
    // Teacher and evaluation run without dropout, whatever the rates.
    assert!(logits(["0.3", "0.3"], None) == plain);
    let both =
        |logits: &[f32]| logits.split_at(logits.len() / 2).0 == logits.split_at(logits.len() / 2).1;
    assert!(both(&plain), "equal images, equal logits");
    for rates in [["0.3", "0.0"], ["0.0", "0.3"]] {
        let dropped = logits(rates, Some((5, 0)));
        assert!(dropped != plain && !both(&dropped), "{rates:?}: samples are dropped on their own");
        assert!(dropped == logits(rates, Some((5, 0))));
        assert!(dropped != logits(rates, Some((6, 0))), "{rates:?}: another step, the same mask");
        assert!(dropped != logits(rates, Some((5, 1))), "{rates:?}: another pass, the same mask");
    }
}
