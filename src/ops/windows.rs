//! Crops of images: at boxes drawn on the device, and sliding windows over the whole image.

use crate::device::{Device, kernels};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// Crops `size` (h, w) positions of `x` at a box. x: u8 or compute type, B,H,W or B,H,W,C; box: i32
/// y1,y2,x1,x2 in image pixels, of which a position of `x` covers `stride`, or a box for each image,
/// B,4. A crop that would exceed the edge is moved inside. There is no gradient.
///
/// # Errors
/// Returns a shape error if the crop is larger than `x`, there is neither one box nor one for each
/// image, or the stride is 0.
pub fn crop(
    device: &Device,
    x: &Tensor,
    place: &Tensor,
    size: (usize, usize),
    stride: usize,
) -> Result<Tensor> {
    let wrong = |problem: String| Err(Error::shape("crop", problem));
    let (batch, height, width, channels) = match *x.shape() {
        [batch, height, width] => (batch, height, width, 1),
        [batch, height, width, channels] => (batch, height, width, channels),
        _ => return wrong(format!("expected B,H,W or B,H,W,C, got {x:?}")),
    };
    let places = place.len() / 4;
    let placed = place.len().is_multiple_of(4) && (places == 1 || places == batch);
    if size.0 > height || size.1 > width || !placed || stride == 0 {
        return wrong(format!("{size:?} out of {x:?} at {place:?}, stride {stride}"));
    }
    let mut shape = x.shape().to_vec();
    (shape[1], shape[2]) = size;
    let mut y = device.alloc(&shape, x.dtype())?;
    let grid = device.rows(batch * size.0, size.1 * channels);
    let (crop_height, crop_width) = size;
    match x.dtype() {
        DType::U8 => kernels::CropBytes {
            x,
            place,
            y: &mut y,
            batch,
            places,
            height,
            width,
            channels,
            crop_height,
            crop_width,
            stride,
        }
        .launch(device, grid)?,
        _ => kernels::CropReals {
            x,
            place,
            y: &mut y,
            batch,
            places,
            height,
            width,
            channels,
            crop_height,
            crop_width,
            stride,
        }
        .launch(device, grid)?,
    }
    Ok(y)
}

/// Most windows over one image; their positions are held by the host.
const MAX_WINDOWS: usize = 1 << 20;

/// Windows of one size that cover an image, row by row. The last window of a row or column is moved
/// back to the edge. Along a side shorter than a window, windows are as long as the side.
pub struct Windows {
    boxes: Vec<[usize; 4]>,
    on_device: Tensor,
    size: (usize, usize),
    image: (usize, usize),
}

impl Windows {
    /// Places the windows; all sizes are (height, width) in pixels.
    ///
    /// # Errors
    /// Returns a shape error if a size is 0, or a step is larger than the window; an out-of-memory
    /// error if there are too many windows.
    pub fn new(
        device: &Device,
        image: (usize, usize),
        window: (usize, usize),
        step: (usize, usize),
    ) -> Result<Windows> {
        if [image.0, image.1, window.0, window.1, step.0, step.1].contains(&0)
            || step.0 > window.0
            || step.1 > window.1
        {
            let problem = format!("windows {window:?} over {image:?} in steps of {step:?}");
            return Err(Error::shape("windows", problem));
        }
        let spans = |length: usize, window: usize, step: usize| {
            let window = window.min(length);
            let count = (length - window).div_ceil(step) + 1;
            (0..count).map(move |i| {
                let end = (i * step + window).min(length);
                (end - window, end)
            })
        };
        let count = spans(image.0, window.0, step.0).len() * spans(image.1, window.1, step.1).len();
        if count > MAX_WINDOWS {
            return Err(Error::OutOfMemory(format!(
                "{count} windows of {}x{} in steps of {}x{} over an image of {}x{} are too many",
                window.1, window.0, step.1, step.0, image.1, image.0
            )));
        }
        let boxes: Vec<[usize; 4]> = spans(image.0, window.0, step.0)
            .flat_map(|(y1, y2)| {
                spans(image.1, window.1, step.1).map(move |(x1, x2)| [y1, y2, x1, x2])
            })
            .collect();
        let flat: Vec<i32> = boxes.iter().flatten().map(|&edge| edge as i32).collect();
        let on_device = device.upload(&[boxes.len(), 4], &flat)?;
        let size = (window.0.min(image.0), window.1.min(image.1));
        Ok(Windows { boxes, on_device, size, image })
    }

    /// Returns y1, y2, x1, x2 of each window in pixels.
    pub fn boxes(&self) -> &[[usize; 4]] {
        &self.boxes
    }

    /// Returns the height and width of a window.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Cuts the windows out of images B,H,W,C (compute type). The result is n·B,h,w,C,
    /// window-major: window 0 of every image, then window 1 of every image, …. There is no
    /// gradient.
    ///
    /// # Errors
    /// Returns a shape error if the images do not have the size that the windows cover.
    pub fn crops(&self, device: &Device, x: &Tensor) -> Result<Tensor> {
        let [batch, height, width, channels] = x.bhwc("window crops")?;
        if (height, width) != self.image {
            let problem = format!("{x:?}, but the windows cover {:?}", self.image);
            return Err(Error::shape("window crops", problem));
        }
        let (windows, (crop_height, crop_width)) = (self.boxes.len(), self.size);
        let mut y = device.empty(&[windows * batch, crop_height, crop_width, channels])?;
        kernels::WindowCrops {
            x,
            boxes: &self.on_device,
            y: &mut y,
            windows,
            batch,
            height,
            width,
            channels,
            crop_height,
            crop_width,
        }
        .launch(device, device.rows(windows * batch * crop_height, crop_width * channels))?;
        Ok(y)
    }

    /// Averages windows n·B,hc,wc,C (compute type, window-major) on a grid with a position for
    /// every `stride` pixels, B,H/stride,W/stride,C: each position gets the mean of the windows
    /// that cover it. Windows with a coarser grid of their own are each upsampled bilinearly, as if
    /// before the mean. There is no gradient.
    ///
    /// # Errors
    /// Returns a shape error if `x` does not hold a whole number of images, or the boxes are not
    /// multiples of the stride.
    pub fn average(&self, device: &Device, x: &Tensor, stride: usize) -> Result<Tensor> {
        const OP: &str = "window average";
        let [crops, crop_height, crop_width, channels] = x.bhwc(OP)?;
        let windows = self.boxes.len();
        let stride = stride.max(1);
        let whole = self.boxes.iter().flatten().all(|edge| edge % stride == 0);
        if crops % windows != 0 || x.is_empty() || !whole {
            let problem =
                format!("{x:?} as {windows} windows of {:?} at stride {stride}", self.size);
            return Err(Error::shape(OP, problem));
        }
        let batch = crops / windows;
        let (height, width) = (self.image.0 / stride, self.image.1 / stride);
        let on_grid = (self.size.0 / stride, self.size.1 / stride);
        let mut y = device.empty(&[batch, height, width, channels])?;
        kernels::WindowAverage {
            x,
            boxes: &self.on_device,
            y: &mut y,
            windows,
            batch,
            height,
            width,
            channels,
            crop_height,
            crop_width,
            stride,
            ratio_y: crop_height as f64 / on_grid.0 as f64,
            ratio_x: crop_width as f64 / on_grid.1 as f64,
        }
        .launch(device, device.rows(batch * height * width, channels))?;
        Ok(y)
    }
}
