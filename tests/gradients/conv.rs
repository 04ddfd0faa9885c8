use crate::check::{Case, check, numbers};
use udass_raw::device::Device;
use udass_raw::ops::{self, Conv};
use udass_raw::params::Param;
use udass_raw::tape::Tape;

/// Image (B,H,W,C), filters (K,R,S) and the convolution's geometry.
type Shape = ([usize; 4], [usize; 3], Conv);

const SHAPES: [Shape; 13] = [
    // Outputs of the input's size, from images with more rows than taps to fewer columns than the
    // filter spans.
    ([3, 5, 7, 4], [5, 3, 3], Conv { stride: 1, padding: 1, dilation: 1 }),
    ([1, 1, 9, 2], [3, 3, 3], Conv { stride: 1, padding: 1, dilation: 1 }),
    ([2, 6, 1, 3], [2, 3, 3], Conv { stride: 1, padding: 1, dilation: 1 }),
    ([1, 11, 5, 3], [19, 3, 3], Conv { stride: 1, padding: 2, dilation: 2 }),
    ([1, 5, 4, 3], [2, 3, 3], Conv { stride: 1, padding: 6, dilation: 6 }),
    ([1, 7, 6, 2], [3, 5, 5], Conv { stride: 1, padding: 2, dilation: 1 }),
    ([3, 3, 5, 7], [4, 1, 1], Conv { stride: 1, padding: 0, dilation: 1 }),
    // Patch embeddings, spatial reduction, a strided shortcut, and one with every parameter
    // unusual.
    ([3, 9, 13, 3], [4, 7, 7], Conv { stride: 4, padding: 3, dilation: 1 }),
    ([1, 8, 7, 5], [3, 3, 3], Conv { stride: 2, padding: 1, dilation: 1 }),
    ([1, 8, 17, 3], [5, 8, 8], Conv { stride: 8, padding: 0, dilation: 1 }),
    ([3, 5, 7, 3], [4, 1, 1], Conv { stride: 2, padding: 0, dilation: 1 }),
    ([1, 9, 11, 3], [2, 2, 3], Conv { stride: 3, padding: 2, dilation: 2 }),
    ([1, 5, 4, 2], [2, 3, 3], Conv { stride: 1, padding: 0, dilation: 1 }),
];

#[test]
fn conv_gradients() {
    for (x, [k, r, s], geometry) in SHAPES {
        for bias in [false, true] {
            let filters = [k, r, s, x[3]];
            let params: &[&[usize]] = if bias { &[&filters, &[k]] } else { &[&filters] };
            let case = Case { inputs: &[&x], params, ..Default::default() };
            check(&case, |tape, x, p| Ok(vec![ops::conv(tape, &x[0], &p[0], p.get(1), geometry)?]));
        }
    }
}

#[test]
fn conv_adds_to_a_gradient_already_there() {
    for (x, [k, r, s], geometry) in [SHAPES[0], SHAPES[8], SHAPES[9]] {
        let filters = [k, r, s, x[3]];
        let case = Case { inputs: &[&x], params: &[&filters, &filters], ..Default::default() };
        check(&case, |tape, x, p| {
            let one = ops::conv(tape, &x[0], &p[0], None, geometry)?;
            let other = ops::conv(tape, &x[0], &p[1], None, geometry)?;
            Ok(vec![one, other])
        });
    }
}

#[test]
fn conv_is_its_definition() {
    for (shape, [k, r, s], geometry) in SHAPES {
        let [_, height, width, channels] = shape;
        let device = Device::host_f64().unwrap();
        let x = numbers(1, shape.iter().product());
        let w = numbers(2, k * r * s * channels);
        let bias = numbers(3, k);
        let param = |shape: &[usize], data: &[f64]| {
            let value = device.upload(shape, data).unwrap();
            Param::new(value, None)
        };
        let tape = Tape::inference(&device);
        let input = device.upload(&shape, &x).unwrap();
        let filters = param(&[k, r, s, channels], &w);
        let y = ops::conv(&tape, &input, &filters, Some(&param(&[k], &bias)), geometry).unwrap();
        let [_, ho, wo, _] = y.bhwc("test").unwrap();
        let out = |size: usize, taps: usize| {
            let span = geometry.dilation * (taps - 1) + 1;
            (size + 2 * geometry.padding - span) / geometry.stride + 1
        };
        assert_eq!([ho, wo], [out(height, r), out(width, s)], "{shape:?} {geometry:?}");
        let got = device.read::<f64>(&y).unwrap();
        let source = |o: usize, tap: usize, size: usize| {
            (o * geometry.stride + tap * geometry.dilation)
                .checked_sub(geometry.padding)
                .filter(|&i| i < size)
        };
        for (index, got) in got.iter().enumerate() {
            let (filter, pixel) = (index % k, index / k);
            let (j, i, b) = (pixel % wo, pixel / wo % ho, pixel / wo / ho);
            let mut wanted = bias[filter];
            for tap in 0..r * s {
                let rows = source(i, tap / s, height);
                let Some((h, v)) = rows.zip(source(j, tap % s, width)) else { continue };
                for c in 0..channels {
                    wanted += w[(filter * r * s + tap) * channels + c]
                        * x[((b * height + h) * width + v) * channels + c];
                }
            }
            let close = (got - wanted).abs() <= 1e-12;
            assert!(close, "{shape:?} {geometry:?} element {index}: {got} instead of {wanted}");
        }
    }
}

/// Returns the bits of the output and of the gradients of input, filters and bias.
fn bits(threads: usize, shape: [usize; 4], filters: [usize; 4], geometry: Conv) -> Vec<Vec<u32>> {
    let device = Device::host(threads).unwrap();
    let upload = |seed: u64, shape: &[usize]| {
        let n = shape.iter().product();
        let data: Vec<f32> = numbers(seed, n).into_iter().map(|x| x as f32).collect();
        device.upload_real(shape, &data).unwrap()
    };
    let param = |seed: u64, shape: &[usize]| {
        let grad = device.zeros(shape, device.real()).unwrap();
        Param::new(upload(seed, shape), Some(grad))
    };
    let tape = Tape::recording(&device);
    let x = tape.leaf(&upload(1, &shape));
    let (w, b) = (param(2, &filters), param(3, &filters[..1]));
    let y = ops::conv(&tape, &x, &w, Some(&b), geometry).unwrap();
    let mut tensors = vec![y.detach(), w.grad.clone().unwrap(), b.grad.clone().unwrap()];
    let dy = upload(4, y.shape());
    tensors.push(tape.backward(vec![(&y, dy)]).unwrap().of(&x).unwrap());
    let read = |t| device.read::<f32>(t).unwrap().into_iter().map(f32::to_bits).collect();
    tensors.iter().map(read).collect()
}

#[test]
fn conv_has_the_same_bits_on_any_number_of_threads() {
    let cases = [
        ([2, 33, 40, 200], [72, 3, 3, 200], Conv::same(3, 1)),
        ([1, 20, 31, 96], [19, 3, 3, 96], Conv::same(3, 6)),
        ([2, 31, 40, 64], [96, 3, 3, 64], Conv::strided(2, 1)),
    ];
    for (shape, filters, geometry) in cases {
        let one = bits(1, shape, filters, geometry);
        for threads in [2, 3] {
            assert!(one == bits(threads, shape, filters, geometry), "{shape:?}, {threads} threads");
        }
    }
}

#[test]
fn conv_rejects_what_does_not_fit() {
    let device = Device::host_f64().unwrap();
    let tape = Tape::inference(&device);
    let zeros = |shape: &[usize]| device.zeros(shape, device.real()).unwrap();
    let run = |x: &[usize], w: &[usize], geometry: Conv| {
        let w = Param::new(zeros(w), None);
        ops::conv(&tape, &zeros(x), &w, None, geometry).map(|_| ()).unwrap_err().to_string()
    };
    assert!(
        run(&[1, 4, 4, 3], &[2, 3, 3, 5], Conv::same(3, 1))
            .contains("differ in their number of channels")
    );
    assert!(run(&[1, 4, 4, 3], &[2, 7, 7, 3], Conv::strided(1, 0)).contains("larger than"));
    assert!(run(&[1, 4, 4, 3], &[2, 3, 3, 3], Conv::strided(0, 1)).contains("must be at least 1"));
    assert!(run(&[4, 4, 3], &[2, 3, 3, 3], Conv::same(3, 1)).contains("B,H,W,C"));
}
