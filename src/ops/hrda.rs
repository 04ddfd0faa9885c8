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
    let [batch, height, width, channels] = context.bhwc(OP)?;
    let [details, detail_height, detail_width, classes] = detail.bhwc(OP)?;
    let (fused_height, fused_width) = (2 * height, 2 * width);
    let fits = match place {
        Some(_) => detail_height <= fused_height && detail_width <= fused_width,
        None => (detail_height, detail_width) == (fused_height, fused_width),
    };
    if attention.shape() != context.shape() || (details, classes) != (batch, channels) || !fits {
        let problem = format!("context {context:?}, detail {detail:?}, attention {attention:?}");
        return Err(Error::shape(OP, problem));
    }
    if let Some(place) = place.filter(|place| place.pixels.len() != 4 || place.stride == 0) {
        return Err(Error::shape(OP, format!("box {:?}, stride {}", place.pixels, place.stride)));
    }
    let stride = place.map_or(1, |place| place.stride);
    let pixels = place.map(|place| place.pixels.clone());
    // The size ratio; also the inverse of the scale factor.
    let ratio = 0.5;

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
        stride: 2 * stride,
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
