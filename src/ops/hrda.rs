//! Fusion of HRDA's two scales.

use crate::device::kernels;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The position of the detail crop.
#[derive(Clone)]
pub struct DetailBox {
    /// The box y1,y2,x1,x2 in image pixels, i32.
    pub pixels: Tensor,
    /// Image pixels per position of the fused logits along a side: 4 (DAFormer) or 8 (DeepLabV2).
    pub stride: usize,
}

/// The result of [`hrda_fuse`]. Only `logits` has a gradient.
pub struct Fused {
    /// The fused logits B,H,W,C, of the size of the detail scale.
    pub logits: Tensor,
    /// The context logits multiplied by 1 − attention, B,h,w,C.
    pub context: Tensor,
    /// The attention after the sigmoid, B,h,w,C; it is 0 outside the detail box.
    pub attention: Tensor,
}

/// Returns `up(a)·detail + up((1 − a)·context)`, where `a` is the sigmoid of `attention` and `up`
/// is bilinear upsampling by `factor`. context, attention: B,h,w,C.
///
/// In training, `detail` B,hc,wc,C comes from a crop: it is pasted into zeros at its box, and `a`
/// is 0 at the context's positions outside the box. Without a box it must cover the whole grid,
/// B,factor·h,factor·w,C.
///
/// # Errors
/// Returns a shape error if the shapes do not match, or the box is invalid.
pub fn hrda_fuse(
    tape: &Tape,
    context: &Tensor,
    detail: &Tensor,
    attention: &Tensor,
    factor: usize,
    place: Option<&DetailBox>,
) -> Result<Fused> {
    const OP: &str = "hrda_fuse";
    let device = tape.device();
    let [batch, height, width, channels] = context.bhwc(OP)?;
    let [details, detail_height, detail_width, classes] = detail.bhwc(OP)?;
    let (fused_height, fused_width) = (factor * height, factor * width);
    let fits = match place {
        Some(_) => detail_height <= fused_height && detail_width <= fused_width,
        None => (detail_height, detail_width) == (fused_height, fused_width),
    };
    let fits = fits && factor > 0;
    if attention.shape() != context.shape() || (details, classes) != (batch, channels) || !fits {
        let problem = format!("context {context:?}, detail {detail:?}, attention {attention:?}");
        return Err(Error::shape(OP, problem));
    }
    if let Some(place) = place.filter(|place| place.pixels.len() != 4 || place.stride == 0) {
        return Err(Error::shape(OP, format!("box {:?}, stride {}", place.pixels, place.stride)));
    }
    let stride = place.map_or(1, |place| place.stride);
    let pixels = place.map(|place| place.pixels.clone());
    let ratio = 1.0 / factor as f64;

    let mut masked = device.empty_like(context)?;
    let mut scaled = device.empty_like(context)?;
    kernels::HrdaAttention {
        logits: attention,
        context,
        place: pixels.as_ref(),
        attention: &mut masked,
        scaled: &mut scaled,
        batch,
        height,
        width,
        channels,
        stride: factor * stride,
    }
    .launch(device, device.rows(batch * height, width * channels))?;
    let mut fused = device.empty(&[batch, fused_height, fused_width, channels])?;
    kernels::HrdaFuse {
        attention: &masked,
        scaled: &scaled,
        detail,
        place: pixels.as_ref(),
        fused: &mut fused,
        batch,
        height,
        width,
        channels,
        detail_height,
        detail_width,
        fused_height,
        fused_width,
        ratio_y: ratio,
        ratio_x: ratio,
        stride,
    }
    .launch(device, device.rows(batch * fused_height * fused_width, channels))?;

    let (saved, context, detail) = (masked.clone(), context.clone(), detail.clone());
    let slot = attention.slot.clone();
    let logits = tape.record(fused, move |gradients, dfused| {
        let device = gradients.device().clone();
        gradients.write(&detail.slot, |ddetail, accumulate| {
            kernels::HrdaBackwardDetail {
                dfused: &dfused,
                attention: &saved,
                place: pixels.as_ref(),
                ddetail,
                accumulate,
                batch,
                height,
                width,
                channels,
                detail_height,
                detail_width,
                fused_height,
                fused_width,
                ratio_y: ratio,
                ratio_x: ratio,
                stride,
            }
            .launch(&device, device.rows(batch * detail_height * detail_width, channels))
        })?;
        if context.slot.is_none() && slot.is_none() {
            return Ok(());
        }
        let mut dcontext = device.empty_like(&context)?;
        let mut dlogits = device.empty_like(&context)?;
        kernels::HrdaBackwardContext {
            dfused: &dfused,
            attention: &saved,
            context: &context,
            detail: &detail,
            place: pixels.as_ref(),
            dcontext: &mut dcontext,
            dlogits: &mut dlogits,
            batch,
            height,
            width,
            channels,
            detail_height,
            detail_width,
            fused_height,
            fused_width,
            ratio_y: ratio,
            ratio_x: ratio,
            stride,
        }
        .launch(&device, device.rows(batch * height * width, channels))?;
        gradients.give(&context.slot, dcontext)?;
        gradients.give(&slot, dlogits)
    });
    Ok(Fused { logits, context: scaled, attention: masked })
}
