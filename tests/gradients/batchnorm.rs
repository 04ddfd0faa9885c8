use crate::check::{Case, check, numbers};
use udass_raw::device::Device;
use udass_raw::ops::{self, BatchNorm, Mode};
use udass_raw::params::Param;
use udass_raw::tape::Tape;
use udass_raw::tensor::Tensor;

const TRAIN: Mode = Mode::Train { momentum: 0.1 };

fn layer<'a>(device: &Device, p: &'a [Param]) -> BatchNorm<'a> {
    let channels = p[0].value.len();
    let upload = |seed, offset: f64| {
        let data: Vec<f32> = numbers(seed, channels).iter().map(|x| (offset + x) as f32).collect();
        device.upload_real(&[channels], &data).unwrap()
    };
    BatchNorm {
        weight: &p[0],
        bias: &p[1],
        running_mean: upload(70, 0.0),
        running_var: upload(71, 1.5),
        tracked: None,
    }
}

#[test]
fn batchnorm_gradients() {
    // The last two shapes are split into more than one part.
    let shapes: [[usize; 4]; 4] = [[3, 3, 5, 7], [1, 2, 1, 3], [1, 1, 131, 5], [2, 41, 7, 1]];
    for shape in shapes {
        for mode in [TRAIN, Mode::Eval] {
            for relu in [false, true] {
                let c = shape[3];
                let case =
                    Case { inputs: &[&shape], params: &[&[c], &[c]], map: |x| 2.0 * x + 0.3 };
                // A large epsilon: with only two rows, a small one makes the function nearly a
                // step.
                check(&case, |tape, x, p| {
                    let norm = layer(tape.device(), p);
                    Ok(vec![ops::batchnorm(tape, &x[0], norm, 0.1, mode, relu)?])
                });
            }
        }
    }
}

struct Run {
    y: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
    tracked: Vec<f64>,
}

/// Runs one training pass in single precision over `rows` rows of values around `center`.
fn run(rows: usize, channels: usize, center: f64, spread: f64) -> (Vec<f64>, Run) {
    let device = Device::host(2).unwrap();
    let x: Vec<f32> =
        numbers(5, rows * channels).iter().map(|x| (center + spread * x) as f32).collect();
    let wide: Vec<f64> = x.iter().map(|&x| x as f64).collect();
    let constant = |n: usize, value: f32| device.upload(&[n], &vec![value; n]).unwrap();
    let read = |t: &Tensor| -> Vec<f64> {
        device.read_f32(t).unwrap().into_iter().map(f64::from).collect()
    };
    let param = |value: f32| Param::new(constant(channels, value), None);
    let (weight, bias) = (param(1.5), param(0.25));
    let norm = BatchNorm {
        weight: &weight,
        bias: &bias,
        running_mean: constant(channels, 0.5),
        running_var: constant(channels, 2.0),
        tracked: Some(constant(1, 41.0)),
    };
    let buffers = [norm.running_mean.clone(), norm.running_var.clone()];
    let tracked = norm.tracked.clone().unwrap();
    let tape = Tape::inference(&device);
    let input = device.upload(&[1, 1, rows, channels], &x).unwrap();
    let y = ops::batchnorm(&tape, &input, norm, 1e-5, TRAIN, false).unwrap();
    let [mean, var] = buffers.map(|b| read(&b));
    (wide, Run { y: read(&y), mean, var, tracked: read(&tracked) })
}

#[test]
fn batchnorm_is_its_definition_and_moves_the_running_statistics() {
    // The second case has a mean of a thousand times its spread; the third has several parts of
    // unequal size.
    for (rows, channels, center, spread) in
        [(7, 5, 0.2, 1.0), (20_011, 3, 1000.0, 1.0), (1001, 130, -3.0, 0.5)]
    {
        let (x, got) = run(rows, channels, center, spread);
        assert_eq!(got.tracked, [42.0]);
        for c in 0..channels {
            let column: Vec<f64> = x.iter().skip(c).step_by(channels).copied().collect();
            let n = rows as f64;
            let mean = column.iter().sum::<f64>() / n;
            let sum: f64 = column.iter().map(|x| (x - mean) * (x - mean)).sum();
            let close = |got: f64, wanted: f64, allowed: f64| {
                let fits = (got - wanted).abs() <= allowed;
                assert!(fits, "{rows}x{channels}, channel {c}: {got} instead of {wanted}");
            };
            close(got.mean[c], 0.9 * 0.5 + 0.1 * mean, 1e-6 * (1.0 + center.abs()));
            close(got.var[c], 0.9 * 2.0 + 0.1 * sum / (n - 1.0), 1e-5);
            let inv_std = 1.0 / (sum / n + 1e-5).sqrt();
            for (r, x) in column.iter().enumerate() {
                let wanted = (x - mean) * inv_std * 1.5 + 0.25;
                // The mean is accurate to half an ulp, an error that is divided by the standard
                // deviation.
                close(got.y[r * channels + c], wanted, 4e-6 + 4e-7 * center.abs() * inv_std);
            }
        }
    }
}

#[test]
fn batchnorm_of_one_value_per_channel_is_an_error_in_training_only() {
    let device = Device::host_f64().unwrap();
    let tape = Tape::inference(&device);
    let ones = device.upload(&[3], &[1.0f64; 3]).unwrap();
    let p = vec![Param::new(ones, None); 2];
    let x = device.upload(&[1, 1, 1, 3], &[1.0f64; 3]).unwrap();
    let run = |mode| ops::batchnorm(&tape, &x, layer(&device, &p), 1e-5, mode, true);
    assert!(run(TRAIN).unwrap_err().to_string().contains("a single value per channel"));
    assert!(run(Mode::Eval).is_ok());
}
