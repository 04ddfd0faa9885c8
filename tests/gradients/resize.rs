use crate::check::{Case, check, numbers};
use udass_raw::device::Device;
use udass_raw::device::group::Slots;
use udass_raw::ops;
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

/// Input B,H,W,C, output Ho,Wo, factor.
type Shape = ([usize; 4], (usize, usize), Option<(f64, f64)>);

const SHAPES: [Shape; 9] = [
    ([3, 3, 4, 5], (6, 8), Some((2.0, 2.0))),
    ([1, 2, 3, 3], (16, 24), Some((8.0, 8.0))),
    ([1, 8, 12, 3], (4, 6), Some((0.5, 0.5))),
    ([1, 16, 8, 2], (2, 1), Some((0.125, 0.125))),
    ([2, 7, 9, 3], (20, 31), None),
    ([1, 13, 9, 19], (5, 23), None),
    ([1, 1, 1, 3], (4, 3), None),
    // An output size that truncates the scaled one, and one that samples beyond the last pixel.
    ([1, 5, 7, 2], (7, 10), Some((1.5, 1.5))),
    ([1, 4, 4, 2], (9, 9), Some((2.0, 2.0))),
];

#[test]
fn resize_gradients() {
    for (x, size, factor) in SHAPES {
        let case = Case { inputs: &[&x], ..Default::default() };
        check(&case, |tape, x, _| Ok(vec![ops::resize(tape, &x[0], size, factor)?]));
    }
}

#[test]
fn resize_adds_to_a_gradient_already_there() {
    let case = Case { inputs: &[&[1, 3, 4, 2]], ..Default::default() };
    check(&case, |tape, x, _| {
        let one = ops::resize(tape, &x[0], (5, 7), None)?;
        let other = ops::resize(tape, &x[0], (2, 3), None)?;
        Ok(vec![one, other])
    });
}

#[test]
fn resize_concat_gradients() {
    let inputs: [&[usize]; 4] = [&[3, 6, 5, 3], &[3, 3, 3, 5], &[3, 1, 1, 2], &[3, 6, 5, 1]];
    let case = Case { inputs: &inputs, ..Default::default() };
    check(&case, |tape, x, _| Ok(vec![ops::resize_concat(tape, x, (6, 5))?]));
}

const LEVELS: [&[usize]; 4] = [&[3, 6, 5, 3], &[3, 3, 3, 5], &[3, 1, 1, 2], &[3, 6, 5, 1]];

#[test]
fn gradients_of_a_linear_layer_of_resized_maps() {
    let case = Case { inputs: &LEVELS, params: &[&[4, 1, 1, 11]], ..Default::default() };
    check(&case, |tape, x, w| Ok(vec![ops::linear_of_resized(tape, x, (6, 5), &w[0])?]));
    // None of the maps has the wanted size, and there is one.
    let case = Case { inputs: &LEVELS[1..2], params: &[&[4, 5]], ..Default::default() };
    check(&case, |tape, x, w| Ok(vec![ops::linear_of_resized(tape, x, (4, 7), &w[0])?]));
}

/// Products before or after the resize, and folded into one, are the same up to rounding.
#[test]
fn a_linear_layer_of_resized_maps_is_its_definition() {
    let device = Device::host_f64().unwrap();
    let tape = Tape::inference(&device);
    let upload = |seed: u64, shape: &[usize]| {
        device.upload(shape, &numbers(seed, shape.iter().product())).unwrap()
    };
    let param = |seed: u64, shape: &[usize]| Param::new(upload(seed, shape), None);
    let xs: Vec<Tensor> = (0..4).map(|i| upload(i as u64, LEVELS[i])).collect();
    let inner: Vec<(Param, Option<Param>)> = (0..4)
        .map(|i| {
            let seed = i as u64;
            (param(10 + seed, &[2, LEVELS[i][3]]), (i != 2).then(|| param(20 + seed, &[2])))
        })
        .collect();
    let w = param(30, &[4, 1, 1, 8]);
    for size in [(6, 5), (11, 3)] {
        let layer = |(x, (w, b)): (&Tensor, &(Param, Option<Param>))| {
            ops::linear(&tape, x, w, b.as_ref()).unwrap()
        };
        let ys: Vec<Tensor> = xs.iter().zip(&inner).map(layer).collect();
        let joined = ops::resize_concat(&tape, &ys, size).unwrap();
        let wanted = ops::linear(&tape, &joined, &w, None).unwrap();
        let before = ops::linear_of_resized(&tape, &ys, size, &w).unwrap();
        let folded = ops::folded_linear_of_resized(&device, &xs, size, &inner, &w).unwrap();
        let wanted = device.read::<f64>(&wanted).unwrap();
        for got in [before, folded] {
            let got = device.read::<f64>(&got).unwrap();
            assert_eq!(got.len(), wanted.len());
            for (got, wanted) in got.iter().zip(&wanted) {
                assert!((got - wanted).abs() < 1e-12, "{got} {wanted}");
            }
        }
    }
}

#[test]
fn concat_gradients() {
    let inputs: [&[usize]; 3] = [&[1, 3, 4, 3], &[1, 3, 4, 7], &[1, 3, 4, 1]];
    let case = Case { inputs: &inputs, ..Default::default() };
    check(&case, |tape, x, _| {
        let all = ops::concat(tape, x)?;
        let again = ops::concat(tape, &[x[1].clone(), x[1].clone()])?;
        Ok(vec![all, again])
    });
}

#[test]
fn resize_concat_puts_resized_inputs_side_by_side() {
    let device = Device::host(1).unwrap();
    let tape = Tape::inference(&device);
    let upload = |seed: u64, shape: &[usize]| {
        let n = shape.iter().product();
        let data: Vec<f32> = numbers(seed, n).into_iter().map(|x| x as f32).collect();
        device.upload_real(shape, &data).unwrap()
    };
    let inputs = [upload(1, &[2, 6, 5, 3]), upload(2, &[2, 3, 2, 19])];
    let y = ops::resize_concat(&tape, &inputs, (6, 5)).unwrap();
    let small = ops::resize(&tape, &inputs[1], (6, 5), None).unwrap();
    let parts = ops::concat(&tape, &[inputs[0].clone(), small.clone()]).unwrap();
    let read = |t| device.read::<f32>(t).unwrap();
    let (y, left, right) = (read(&y), read(&inputs[0]), read(&small));
    for (pixel, row) in y.chunks(22).enumerate() {
        assert_eq!(row[..3], left[pixel * 3..][..3]);
        assert_eq!(row[3..], right[pixel * 19..][..19]);
    }
    assert_eq!(y, read(&parts));
}

#[test]
fn resize_is_its_definition() {
    for (shape, (ho, wo), factor) in SHAPES {
        let [batch, height, width, channels] = shape;
        let device = Device::host_f64().unwrap();
        let x = numbers(3, shape.iter().product());
        let input = device.upload(&shape, &x).unwrap();
        let y = ops::resize(&Tape::inference(&device), &input, (ho, wo), factor).unwrap();
        assert_eq!(y.shape(), [batch, ho, wo, channels]);
        let y = device.read::<f64>(&y).unwrap();
        // Two pairs of input index and weight.
        let sources = |i: usize, inputs: usize, outputs: usize, factor: Option<f64>| {
            let scale = factor.map_or(inputs as f64 / outputs as f64, |f| 1.0 / f);
            let at = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, (inputs - 1) as f64);
            let low = at.floor() as usize;
            [(low, 1.0 - at.fract()), ((low + 1).min(inputs - 1), at.fract())]
        };
        for (index, got) in y.iter().enumerate() {
            let (c, pixel) = (index % channels, index / channels);
            let (j, i, b) = (pixel % wo, pixel / wo % ho, pixel / wo / ho);
            let mut wanted = 0.0;
            for (h, weight_h) in sources(i, height, ho, factor.map(|f| f.0)) {
                for (w, weight_w) in sources(j, width, wo, factor.map(|f| f.1)) {
                    let value = x[((b * height + h) * width + w) * channels + c];
                    wanted += weight_h * weight_w * value;
                }
            }
            assert!((got - wanted).abs() <= 1e-13, "{shape:?}, {index}: {got} for {wanted}");
        }
    }
}

#[test]
fn dropout2d_drops_whole_channels_of_a_sample_and_scales_the_rest() {
    let device = Device::host(2).unwrap();
    let (batch, pixels, channels, p) = (3usize, 10usize, 700usize, 0.1);
    let shape = [batch, 2, 5, channels];
    let x: Vec<f32> = numbers(4, batch * pixels * channels).iter().map(|&x| x as f32).collect();
    let run = |key: u64, stream: usize| {
        let tape = Tape::recording(&device);
        let input = tape.leaf(&device.upload(&shape, &x).unwrap());
        let key = device.upload(&[1], &[key]).unwrap();
        let y = ops::dropout2d(&tape, &input, p, &key, stream, Slots::whole(1)).unwrap();
        let ones = device.upload(&shape, &vec![1.0f32; x.len()]).unwrap();
        let values = device.read::<f32>(&y).unwrap();
        let gradient = tape.backward(vec![(&y, ones)]).unwrap().of(&input).unwrap();
        (values, device.read::<f32>(&gradient).unwrap())
    };
    let (y, factor) = run(7, 1);
    let scale = (1.0 / (1.0 - p)) as f32;
    let mut dropped = Vec::new();
    for b in 0..batch {
        for c in 0..channels {
            let at = |pixel: usize| (b * pixels + pixel) * channels + c;
            let mask = factor[at(0)];
            assert!(mask == 0.0 || (mask - scale).abs() <= 1e-6, "a factor of {mask}");
            for pixel in 0..pixels {
                assert_eq!(factor[at(pixel)], mask, "a channel is dropped in part");
                assert_eq!(y[at(pixel)], x[at(pixel)] * mask, "forward and backward differ");
            }
            dropped.push(mask == 0.0);
        }
    }
    // The mean is 210 of 2100 draws; six standard deviations are 82.
    let count = dropped.iter().filter(|&&d| d).count();
    assert!((128..=292).contains(&count), "{count} of 2100 were dropped");
    assert_ne!(dropped[..channels], dropped[channels..2 * channels], "samples share a mask");
    assert!(run(7, 1) == (y, factor.clone()), "the same key draws another mask");
    assert!(run(8, 1).1 != factor && run(7, 2).1 != factor, "key or stream is ignored");
}

#[test]
fn dropout2d_gradients() {
    let case = Case { inputs: &[&[3, 2, 3, 5]], ..Default::default() };
    check(&case, |tape, x, _| {
        let key = tape.device().upload(&[1], &[3u64])?;
        let one = ops::dropout2d(tape, &x[0], 0.4, &key, 0, Slots::whole(1))?;
        let other = ops::dropout2d(tape, &x[0], 0.4, &key, 1, Slots::whole(1))?;
        Ok(vec![one, other])
    });
}

#[test]
fn dropout2d_without_a_chance_is_the_identity_and_rejects_no_probability() {
    let device = Device::host_f64().unwrap();
    let tape = Tape::inference(&device);
    let x = device.upload(&[1, 1, 1, 2], &[1.0f64, 2.0]).unwrap();
    let key = device.upload(&[1], &[3u64]).unwrap();
    let y = ops::dropout2d(&tape, &x, 0.0, &key, 0, Slots::whole(1)).unwrap();
    assert_eq!(device.read::<f64>(&y).unwrap(), [1.0, 2.0]);
    assert!(ops::dropout2d(&tape, &x, 1.0, &key, 0, Slots::whole(1)).is_err());
    assert!(ops::dropout2d(&tape, &x, f64::NAN, &key, 0, Slots::whole(1)).is_err());
}

#[test]
fn layers_that_do_not_match_the_maps_are_errors() {
    let device = Device::host(1).unwrap();
    let zeros = |shape: &[usize]| device.zeros(shape, device.real()).unwrap();
    let param = |shape: &[usize]| Param::new(zeros(shape), None);
    let xs = [zeros(&[1, 4, 4, 3]), zeros(&[1, 2, 2, 3])];
    let inner = |count: usize| vec![(param(&[2, 3]), None); count];
    let folded = |xs: &[Tensor], inner: &[_], columns: usize| {
        ops::folded_linear_of_resized(&device, xs, (4, 4), inner, &param(&[5, columns]))
    };
    assert!(folded(&xs, &inner(2), 4).is_ok());
    for (xs, layers, columns) in [(&xs[..], 1, 2), (&xs[..1], 2, 4), (&[], 1, 2), (&[], 0, 0)] {
        let told = folded(xs, &inner(layers), columns).unwrap_err().to_string();
        assert!(told.contains("linear_of_resized"), "{told}");
    }
    assert!(folded(&xs, &inner(2), 5).is_err());
    let tape = Tape::inference(&device);
    let other = [zeros(&[1, 4, 4, 3]), zeros(&[2, 2, 2, 3])];
    assert!(ops::linear_of_resized(&tape, &other, (4, 4), &param(&[5, 6])).is_err());
    assert!(ops::linear_of_resized(&tape, &[], (4, 4), &param(&[5, 6])).is_err());
}
