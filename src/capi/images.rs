//! Image files, for programs that have no library for them.

use std::ffi::c_char;
use std::io::Write;

use super::status::{Failure, UdassStatus, guarded, value};
use super::versioned::slice;
use crate::data::decode::load_rgb;
use crate::file::atomic::write_atomic;
use crate::run::eval::images::gray_png;

/// Pixels of an image file: RGB, without gaps.
#[repr(C)]
pub struct UdassPixels {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `3·width·height` bytes.
    pub rgb: *mut u8,
}

/// Reads a PNG or JPEG, upright as its EXIF orientation says. `udass_pixels_free` frees the pixels.
/// On failure, there are none.
///
/// # Safety
/// `path` is a string; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_image_read(
    path: *const c_char,
    out: *mut UdassPixels,
) -> UdassStatus {
    guarded(|| {
        if out.is_null() {
            return Err(Failure::argument("out is null"));
        }
        let none = UdassPixels { width: 0, height: 0, rgb: std::ptr::null_mut() };
        // SAFETY: the caller guarantees that `out` can be written.
        unsafe { out.write(none) };
        // SAFETY: the caller guarantees that the string ends.
        let file = unsafe { super::versioned::path(path, "path")? };
        let image = load_rgb(&file)?;
        let (width, height) = (image.size.width, image.size.height);
        let rgb = Box::into_raw(image.rgb.into_boxed_slice()).cast();
        // SAFETY: as above.
        unsafe { out.write(UdassPixels { width, height, rgb }) };
        Ok(())
    })
}

/// Frees pixels, of which none are left then. Null is ignored.
///
/// # Safety
/// `pixels` is null or comes from `udass_image_read`, unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_pixels_free(pixels: *mut UdassPixels) {
    // SAFETY: the caller guarantees that the pointer is null or valid.
    let Some(pixels) = (unsafe { pixels.as_mut() }) else { return };
    let rgb = std::mem::replace(&mut pixels.rgb, std::ptr::null_mut());
    if !rgb.is_null() {
        let bytes = std::ptr::slice_from_raw_parts_mut(rgb, 3 * pixels.width * pixels.height);
        // SAFETY: `udass_image_read` took it from a box of this length.
        value((), || drop(unsafe { Box::from_raw(bytes) }));
    }
}

/// Writes a map of class indices as an 8-bit grayscale PNG, in place of any file of that name.
///
/// # Safety
/// `path` is a string; `labels` points to `width·height` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_png_write_gray(
    path: *const c_char,
    labels: *const u8,
    width: usize,
    height: usize,
) -> UdassStatus {
    guarded(|| {
        // SAFETY: the caller guarantees that the string ends.
        let file = unsafe { super::versioned::path(path, "path")? };
        let length = width.checked_mul(height).filter(|&length| length > 0);
        let length = length.ok_or_else(|| Failure::argument(format!("{width}x{height} pixels")))?;
        // SAFETY: the caller guarantees that the labels are readable.
        let png = gray_png(width, height, unsafe { slice(labels, length, "labels")? })?;
        Ok(write_atomic(&file, |to| to.write_all(&png))?)
    })
}
