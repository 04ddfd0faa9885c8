//! Fusion of HRDA's two scales.

use crate::device::kernels;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Where the detail crop was taken.
#[derive(Clone)]
pub struct DetailBox {
    /// i32 y1,y2,x1,x2, in pixels of the picture.
    pub pixels: Tensor,
    /// Pixels of the picture per cell of the fused logits: 4 (DAFormer) or 8 (DeepLabV2).
    pub stride: usize,
}

/// What [`hrda_fuse`] returns. Only `logits` has a gradient.
pub struct Fused {
    /// B,H,W,C, the size of the detail scale.
    pub logits: Tensor,
    /// B,h,w,C: the context times 1 − attention.
    pub context: Tensor,
    /// B,h,w,C: after the sigmoid, 0 outside the detail box.
    pub attention: Tensor,
}

/// `up(a)·detail + up((1 − a)·context)`, `a` the sigmoid of `attention`, up bilinear by 2.
/// context, attention: B,h,w,C. In training `detail` B,hc,wc,C comes from a crop: it is pasted into
/// zeros at its box, and `a` is 0 in the context's cells outside. Without a box it must cover the
/// whole grid, B,2h,2w,C.
pub fn hrda_fuse(
    tape: &Tape,
    context: &Tensor,
    detail: &Tensor,
    attention: &Tensor,
    place: Option<&DetailBox>,
) -> Result<Fused> {
    const OP: &str = "hrda_fuse";
    let device = tape.device();
    let [batch, h, w, channels] = context.bhwc(OP)?;
    let [details, hc, wc, classes] = detail.bhwc(OP)?;
    let (height, width) = (2 * h, 2 * w);
    let fits =
        if place.is_some() { hc <= height && wc <= width } else { (hc, wc) == (height, width) };
    if attention.shape() != context.shape() || (details, classes) != (batch, channels) || !fits {
        let problem = format!("context {context:?}, detail {detail:?}, attention {attention:?}");
        return Err(Error::shape(OP, problem));
    }
    if let Some(place) = place.filter(|place| place.pixels.len() != 4 || place.stride == 0) {
        return Err(Error::shape(OP, format!("box {:?}, stride {}", place.pixels, place.stride)));
    }
    let stride = place.map_or(1, |place| place.stride) as i64;
    let pixels = place.map(|place| place.pixels.clone());
    let [b, hi, wi, c, hci, wci, hf, wf] =
        [batch, h, w, channels, hc, wc, height, width].map(|n| n as i64);
    // The size ratio; also the inverse of the scale factor.
    let ratio = 0.5;

    let mut masked = device.empty_like(context)?;
    let mut scaled = device.empty_like(context)?;
    kernels::hrda_attention(
        device,
        device.rows(batch * h, w * channels),
        attention,
        context,
        pixels.as_ref(),
        &mut masked,
        &mut scaled,
        b,
        hi,
        wi,
        c,
        2 * stride,
    )?;
    let mut fused = device.empty(&[batch, height, width, channels])?;
    kernels::hrda_fuse(
        device,
        device.rows(batch * height * width, channels),
        &masked,
        &scaled,
        detail,
        pixels.as_ref(),
        &mut fused,
        b,
        hi,
        wi,
        c,
        hci,
        wci,
        hf,
        wf,
        ratio,
        ratio,
        stride,
    )?;

    let (saved, context, detail) = (masked.clone(), context.clone(), detail.clone());
    let slot = attention.slot.clone();
    let logits = tape.record(fused, move |gradients, dfused| {
        let device = gradients.device().clone();
        gradients.write(&detail.slot, |ddetail, accumulate| {
            kernels::hrda_backward_detail(
                &device,
                device.rows(batch * hc * wc, channels),
                &dfused,
                &saved,
                pixels.as_ref(),
                ddetail,
                accumulate as i32,
                b,
                hi,
                wi,
                c,
                hci,
                wci,
                hf,
                wf,
                ratio,
                ratio,
                stride,
            )
        })?;
        if context.slot.is_none() && slot.is_none() {
            return Ok(());
        }
        let mut dcontext = device.empty_like(&context)?;
        let mut dlogits = device.empty_like(&context)?;
        kernels::hrda_backward_context(
            &device,
            device.rows(batch * h * w, channels),
            &dfused,
            &saved,
            &context,
            &detail,
            pixels.as_ref(),
            &mut dcontext,
            &mut dlogits,
            b,
            hi,
            wi,
            c,
            hci,
            wci,
            hf,
            wf,
            ratio,
            ratio,
            stride,
        )?;
        gradients.give(&context.slot, dcontext)?;
        gradients.give(&slot, dlogits)
    });
    Ok(Fused { logits, context: scaled, attention: masked })
}
