use crate::check::{Case, check, numbers};
use udass_raw::device::Device;
use udass_raw::ops;
use udass_raw::tape::Tape;

const SHAPES: [[usize; 4]; 5] =
    [[2, 6, 8, 3], [1, 7, 5, 2], [3, 1, 4, 1], [1, 2, 1, 5], [1, 1, 1, 2]];

#[test]
fn max_pool_gradients() {
    for shape in SHAPES {
        let case = Case { inputs: &[&shape], ..Default::default() };
        check(&case, |tape, x, _| Ok(vec![ops::max_pool(tape, &x[0])?]));
        // The gradient is accumulated onto an existing one.
        check(&case, |tape, x, _| {
            Ok(vec![ops::max_pool(tape, &x[0])?, ops::max_pool(tape, &x[0])?])
        });
    }
}

/// Checks the maxima, and the gradient of Σ weight·maximum, which goes to the first of equal taps.
#[test]
fn max_pool_is_its_definition_and_the_first_of_equals_wins() {
    for shape in SHAPES {
        let [batch, height, width, channels] = shape;
        let device = Device::host_f64().unwrap();
        // Few distinct values, so that ties are common, as zeros are after a ReLU.
        let x: Vec<f64> =
            numbers(7, shape.iter().product()).iter().map(|x| (2.0 * x).floor().max(0.0)).collect();
        let tape = Tape::recording(&device);
        let leaf = tape.leaf(&device.upload(&shape, &x).unwrap());
        let y = ops::max_pool(&tape, &leaf).unwrap();
        assert_eq!(y.shape(), [batch, height.div_ceil(2), width.div_ceil(2), channels]);
        let weights = numbers(8, y.len());
        let mut maxima = Vec::new();
        let mut gradient = vec![0.0; x.len()];
        let at =
            |b: usize, h: usize, w: usize, c: usize| ((b * height + h) * width + w) * channels + c;
        for b in 0..batch {
            for ho in 0..height.div_ceil(2) {
                for wo in 0..width.div_ceil(2) {
                    for c in 0..channels {
                        let mut best: Option<usize> = None;
                        for h in (2 * ho).saturating_sub(1)..(2 * ho + 2).min(height) {
                            for w in (2 * wo).saturating_sub(1)..(2 * wo + 2).min(width) {
                                let here = at(b, h, w, c);
                                if best.is_none_or(|best| x[here] > x[best]) {
                                    best = Some(here);
                                }
                            }
                        }
                        let best = best.unwrap();
                        gradient[best] += weights[maxima.len()];
                        maxima.push(x[best]);
                    }
                }
            }
        }
        assert_eq!(device.read::<f64>(&y).unwrap(), maxima, "{shape:?}");
        let seed = device.upload(y.shape(), &weights).unwrap();
        let mut gradients = tape.backward(vec![(&y, seed)]).unwrap();
        let got: Vec<f64> = device.read(&gradients.of(&leaf).unwrap()).unwrap();
        for (got, wanted) in got.iter().zip(&gradient) {
            assert!((got - wanted).abs() < 1e-12, "{shape:?}: {got} instead of {wanted}");
        }
    }
}

#[test]
fn max_pool_hands_on_what_is_no_number() {
    let device = Device::host(1).unwrap();
    for recorded in [false, true] {
        for place in 0..9 {
            let mut x = vec![1.0f32; 9];
            x[place] = f32::NAN;
            let tape = if recorded { Tape::recording(&device) } else { Tape::inference(&device) };
            let x = tape.leaf(&device.upload(&[1, 3, 3, 1], &x).unwrap());
            let y = ops::max_pool(&tape, &x).unwrap();
            let there = device.read_f32(&y).unwrap().iter().filter(|y| y.is_nan()).count();
            // Rows and columns in the middle are shared by two windows.
            let windows = [1, 2, 1][place / 3] * [1, 2, 1][place % 3];
            assert_eq!(there, windows, "place {place}");
        }
    }
}
