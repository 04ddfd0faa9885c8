//! Segmentation.

use std::ffi::{c_int, c_void};

use super::model::UdassModel;
use super::status::{Failure, UdassStatus, guarded};
use super::values::*;
use super::versioned::{Versioned, read, size_of_given, slice, slice_mut};
use crate::model::{DeviceOutput, Image, Kind, Output, PixelFormat};

/// An image to segment.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UdassImage {
    /// `sizeof(udass_image)`.
    pub struct_size: u32,
    /// One of `UDASS_FORMAT_…`.
    pub format: u32,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Distance between the beginnings of rows, in bytes (for planes: in floats); 0: no gaps.
    pub stride: usize,
    /// The pixels, or the planes of red, green and blue.
    pub data: [*const c_void; 3],
    /// One of `UDASS_MEMORY_…`.
    pub memory: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: it is `repr(C)`, begins with its size, and has numbers and pointers.
unsafe impl Versioned for UdassImage {}

/// A result to compute, and the buffer for it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UdassOutput {
    /// `sizeof(udass_output)`.
    pub struct_size: u32,
    /// One of `UDASS_OUTPUT_…`.
    pub kind: u32,
    /// The buffer: `uint8_t` for labels, `float` otherwise.
    pub data: *mut c_void,
    /// Elements of the buffer.
    pub length: usize,
    /// One of `UDASS_MEMORY_…`.
    pub memory: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: it is `repr(C)`, begins with its size, and has numbers and pointers.
unsafe impl Versioned for UdassOutput {}

/// Returns whether to stop, from `stop_data`. It is called on a thread of the model's.
pub type UdassStop = Option<unsafe extern "C" fn(data: *mut c_void) -> c_int>;

/// The program's `stop` and its argument.
struct Stop(unsafe extern "C" fn(*mut c_void) -> c_int, *mut c_void);

// SAFETY: the header says that the callback is called on another thread, while the call waits.
unsafe impl Sync for Stop {}

impl Stop {
    fn asked(&self) -> bool {
        // SAFETY: the program gave a function of this type.
        unsafe { (self.0)(self.1) != 0 }
    }
}

/// Segments `count` images of one size, and writes the results, one after another, to `output`.
///
/// # Safety
/// `model` is live, `images` points to `count` images whose pixels are readable, and `output` to an
/// output whose buffer holds its length and is accessed by nobody else during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_segment(
    model: *const UdassModel,
    images: *const UdassImage,
    count: usize,
    output: *const UdassOutput,
    stop: UdassStop,
    stop_data: *mut c_void,
) -> UdassStatus {
    guarded(|| {
        // SAFETY: the caller guarantees that the handle is null or live.
        let model = unsafe { model.as_ref() }.ok_or_else(|| Failure::argument("model is null"))?;
        if count == 0 {
            return Err(Failure::argument("there are no images"));
        }
        // SAFETY: the caller guarantees that the first image is readable.
        let size = unsafe { size_of_given(images, "images")? };
        let mut all = Vec::new();
        for index in 0..count {
            let offset = index.checked_mul(size).filter(|&offset| offset <= isize::MAX as usize);
            let offset = offset.ok_or_else(|| Failure::argument("there are too many images"))?;
            // SAFETY: the caller guarantees `count` images, each as large as the first says.
            all.push(unsafe { image(images.byte_add(offset))? });
        }
        // SAFETY: the caller guarantees that the output is readable and its buffer writable.
        let output = unsafe { buffer(output)? };
        let stop = stop.map(|function| Stop(function, stop_data));
        let asked = stop.as_ref().map(|stop| move || stop.asked());
        let asked = asked.as_ref().map(|asked| asked as &(dyn Fn() -> bool + Sync));
        Ok(model.model.segment(&all, output, asked)?)
    })
}

/// Borrows an image's pixels.
///
/// # Safety
/// `from` points to an image whose pixels are readable during `'a`.
unsafe fn image<'a>(from: *const UdassImage) -> Result<Image<'a>, Failure> {
    // SAFETY: the caller guarantees that the image is readable.
    let given = unsafe { read(from, "image")? };
    let (width, height) = (given.width, given.height);
    let format = match given.format {
        UDASS_FORMAT_RGB => PixelFormat::Rgb,
        UDASS_FORMAT_BGR => PixelFormat::Bgr,
        UDASS_FORMAT_RGBA => PixelFormat::Rgba,
        UDASS_FORMAT_BGRA => PixelFormat::Bgra,
        UDASS_FORMAT_GRAY => PixelFormat::Gray,
        UDASS_FORMAT_PLANES if given.memory == UDASS_MEMORY_HOST => {
            // SAFETY: the caller guarantees that the planes are readable.
            return unsafe { planes(&given) };
        }
        UDASS_FORMAT_PLANES => {
            return Err(Failure::argument("image: planes are in the program's memory"));
        }
        other => return Err(Failure::argument(format!("image: {other} is no format"))),
    };
    let row = width.checked_mul(format.bytes());
    let row = row.ok_or_else(|| Failure::argument(format!("image: {width} pixels wide")))?;
    let stride = if given.stride == 0 { row } else { given.stride };
    match given.memory {
        UDASS_MEMORY_HOST => {
            let length = length(height, row, stride)?;
            // SAFETY: the caller guarantees that the pixels are readable.
            let data = unsafe { slice(given.data[0].cast::<u8>(), length, "image: data")? };
            Ok(Image::with_stride(data, format, width, height, stride)?)
        }
        UDASS_MEMORY_DEVICE if format == PixelFormat::Rgb && stride == row => {
            let address = given.data[0].expose_provenance() as u64;
            // SAFETY: the caller guarantees that the pixels are readable on the device.
            Ok(unsafe { Image::on_device(address, width, height)? })
        }
        UDASS_MEMORY_DEVICE => {
            Err(Failure::argument("image: on the device, pixels are RGB without gaps"))
        }
        other => Err(Failure::argument(format!("image: {other} is no memory"))),
    }
}

/// Borrows planes of floats.
///
/// # Safety
/// The planes are readable during `'a`.
unsafe fn planes<'a>(given: &UdassImage) -> Result<Image<'a>, Failure> {
    let (width, height) = (given.width, given.height);
    let stride = if given.stride == 0 { width } else { given.stride };
    let length = length(height, width, stride)?;
    // SAFETY: the caller guarantees that the planes are readable.
    let plane = |at: usize| unsafe { slice(given.data[at].cast::<f32>(), length, "image: data") };
    Ok(Image::planes([plane(0)?, plane(1)?, plane(2)?], width, height, stride)?)
}

/// Returns the elements from the first to the last of an image's rows.
fn length(rows: usize, row: usize, stride: usize) -> Result<usize, Failure> {
    let gaps = rows.checked_sub(1).and_then(|rows| rows.checked_mul(stride));
    let length = gaps.and_then(|gaps| gaps.checked_add(row)).filter(|_| stride >= row && row > 0);
    length.ok_or_else(|| {
        Failure::argument(format!("image: {rows} rows of {row} elements, {stride} apart"))
    })
}

/// Borrows an output's buffer.
///
/// # Safety
/// `from` is null or points to an output whose buffer nobody else accesses during `'a`.
unsafe fn buffer<'a>(from: *const UdassOutput) -> Result<Output<'a>, Failure> {
    // SAFETY: the caller guarantees that the output is readable.
    let given = unsafe { read(from, "output")? };
    let kind = match given.kind {
        UDASS_OUTPUT_LABELS => Kind::Labels,
        UDASS_OUTPUT_PROBABILITIES => Kind::Probabilities,
        UDASS_OUTPUT_LOGITS => Kind::Logits,
        other => return Err(Failure::argument(format!("output: {other} is no kind"))),
    };
    let (data, length) = (given.data, given.length);
    match given.memory {
        UDASS_MEMORY_HOST => {}
        UDASS_MEMORY_DEVICE => {
            let address = data.expose_provenance() as u64;
            // SAFETY: the caller guarantees that the buffer holds its length on the device.
            let output = unsafe { DeviceOutput::new(kind, address, length)? };
            return Ok(Output::OnDevice(output));
        }
        other => return Err(Failure::argument(format!("output: {other} is no memory"))),
    }
    // SAFETY: the caller guarantees that the buffer holds its length and nobody else accesses it.
    let numbers = || unsafe { slice_mut(data.cast::<f32>(), length, "output: data") };
    Ok(match kind {
        // SAFETY: as above.
        Kind::Labels => {
            Output::Labels(unsafe { slice_mut(data.cast::<u8>(), length, "output: data")? })
        }
        Kind::Probabilities => Output::Probabilities(numbers()?),
        Kind::Logits => Output::Logits(numbers()?),
    })
}
