//! Converts between the reference's layout (B,C,H,W) and the one here (B,H,W,C).

use udass_raw::device::Device;
use udass_raw::tensor::Tensor;

use super::said;
use crate::support::cases::Outcome;
use crate::support::report::Report;

/// Uploads B,C,H,W as B,H,W,C.
pub fn upload_image(device: &Device, shape: [usize; 4], values: &[f32]) -> Outcome<Tensor> {
    let [b, c, h, w] = shape;
    if values.len() != b * c * h * w {
        return Err(format!("{} numbers are not {shape:?}", values.len()));
    }
    let mut last = Vec::with_capacity(values.len());
    for image in values.chunks_exact(c * h * w) {
        for place in 0..h * w {
            last.extend((0..c).map(|channel| image[channel * h * w + place]));
        }
    }
    device.upload_real(&[b, h, w, c], &last).map_err(said)
}

/// Returns shape and values of a map B,H,W,C as B,C,H,W.
pub fn to_reference(device: &Device, map: &Tensor) -> Outcome<([usize; 4], Vec<f32>)> {
    let [b, h, w, c] = map.bhwc("to_reference").map_err(said)?;
    let values = device.read_f32(map).map_err(said)?;
    let mut first = Vec::with_capacity(values.len());
    for image in values.chunks_exact((h * w * c).max(1)) {
        for channel in 0..c {
            first.extend(image.iter().skip(channel).step_by(c));
        }
    }
    Ok(([b, c, h, w], first))
}

/// Compares a map B,H,W,C with a stored one.
pub fn compare_map(report: &mut Report, key: &str, device: &Device, map: &Tensor) -> Outcome {
    let (shape, values) = to_reference(device, map)?;
    report.compare(key, &shape, &values);
    Ok(())
}

/// Computes the softmax over the channels of B,C,H,W in double precision.
pub fn softmax([_, c, h, w]: &[usize; 4], logits: &[f32]) -> Vec<f64> {
    let (places, mut out) = (h * w, Vec::with_capacity(logits.len()));
    for image in logits.chunks_exact(c * places) {
        let sums: Vec<f64> = (0..places)
            .map(|p| image.iter().skip(p).step_by(places).map(|&x| f64::from(x).exp()).sum())
            .collect();
        out.extend(image.iter().enumerate().map(|(i, &x)| f64::from(x).exp() / sums[i % places]));
    }
    out
}
