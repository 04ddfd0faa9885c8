//! Image decoding: PNG row by row, only as far down as a crop needs; JPEG as a whole.

use std::{io::Cursor, ops::Range, path::Path};

use image::{DynamicImage, ImageDecoder};
use png::{ColorType, Decoder, DecodingError, Transformations};

use crate::{
    data::resize::{Rows, Size},
    error::{Error, Result},
};

/// Rows of an RGB image: `rgb` starts at row `top` of `size.height`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Size of the whole image.
    pub size: Size,
    /// First row that `rgb` holds.
    pub top: usize,
    /// Pixels of the rows, 8-bit RGB, interleaved.
    pub rgb: Vec<u8>,
}

impl RgbImage {
    /// Returns a view of the rows for the resizers.
    pub fn rows(&self) -> Rows<'_> {
        Rows { size: self.size, channels: 3, top: self.top, data: &self.rgb }
    }
}

/// Loads a whole image as RGB. The format (PNG or JPEG) is detected from the content. Gray is
/// repeated in all channels, alpha is dropped, 16 bits are cut to 8, and the EXIF orientation of a
/// JPEG is applied.
pub fn load_rgb(path: &Path) -> Result<RgbImage> {
    load_rows(path, |size| Ok(0..size.height))
}

/// Loads the rows of an image that `rows` selects from its size. For PNG, decoding stops after the
/// last selected row, so damage further down in the file goes unnoticed.
pub fn load_rows(path: &Path, rows: impl FnOnce(Size) -> Result<Range<usize>>) -> Result<RgbImage> {
    let bytes = read(path)?;
    if is_png(&bytes) { png_rows(path, &bytes, rows) } else { other_rows(path, &bytes, rows) }
}

/// Reads the size of an image from its header.
pub fn size(path: &Path) -> Result<Size> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let reader = image::ImageReader::new(std::io::BufReader::new(file));
    let reader = reader.with_guessed_format().map_err(|e| Error::io(path, "read", e))?;
    let (width, height) = reader.into_dimensions().map_err(|e| unreadable(path, e))?;
    Ok(Size::new(width as usize, height as usize))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, "read", e))
}

pub(super) fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

/// Converts an error of the PNG decoder to a message that tells the user what to do with the file.
pub(super) fn png_error(path: &Path, error: DecodingError) -> Error {
    match error {
        DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::data(path, "the PNG file is truncated: copy or download it again")
        }
        DecodingError::IoError(e) => Error::io(path, "read", e),
        DecodingError::LimitsExceeded => Error::data(path, "the image is too large"),
        e => Error::data(path, format!("damaged PNG file ({e}): copy or download it again")),
    }
}

/// Pixel count of the largest accepted image: 16384 × 16384.
const MAX_PIXELS: usize = 1 << 28;
/// Maximum expansion factor of Deflate: 1032 output bytes per input byte.
const DEFLATE: usize = 1032;

/// Rejects a PNG file whose header claims more data than the file can hold, before anything is
/// allocated for it. `row` is the size of an uncompressed row in bytes.
pub(super) fn check_claim(path: &Path, size: Size, row: usize, file_len: usize) -> Result<()> {
    let pixels = size.width.checked_mul(size.height);
    if pixels.is_none_or(|pixels| pixels > MAX_PIXELS) {
        return Err(Error::data(path, format!("an image of {size} is too large")));
    }
    let held = file_len.saturating_mul(DEFLATE);
    if row.checked_mul(size.height).is_none_or(|bytes| bytes > held) {
        let problem = format!(
            "the PNG file is truncated: it is too short for an image of {size}; copy or download \
             it again"
        );
        return Err(Error::data(path, problem));
    }
    Ok(())
}

fn unreadable(path: &Path, error: image::ImageError) -> Error {
    let problem = match error {
        image::ImageError::Unsupported(_) => "not a PNG or JPEG image".to_owned(),
        e => format!("damaged image ({e}): copy or download it again"),
    };
    Error::data(path, problem)
}

fn png_rows(
    path: &Path,
    bytes: &[u8],
    rows: impl FnOnce(Size) -> Result<Range<usize>>,
) -> Result<RgbImage> {
    let fail = |e| png_error(path, e);
    let mut decoder = Decoder::new(Cursor::new(bytes));
    // Palettes are expanded to colors, and all bit depths are converted to 8.
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(fail)?;
    let size = Size::new(reader.info().width as usize, reader.info().height as usize);
    check_claim(path, size, reader.info().raw_row_length().saturating_sub(1), bytes.len())?;
    let rows = rows(size)?;
    let color = reader.output_color_type().0;
    let stride = size.width * 3;
    let mut rgb = vec![0; stride * rows.len()];

    if reader.info().interlaced {
        // Interlaced rows arrive in seven passes over the image, so it is decoded as a whole.
        let too_large = || Error::data(path, format!("an image of {size} is too large"));
        let mut whole = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
        let line = reader.next_frame(&mut whole).map_err(fail)?.line_size;
        let wanted = whole.chunks_exact(line).skip(rows.start);
        for (row, out) in wanted.zip(rgb.chunks_exact_mut(stride)) {
            to_rgb(color, row, out);
        }
        return Ok(RgbImage { size, top: rows.start, rgb });
    }
    // The rows above must be decoded too, because PNG filters predict each row from the one before.
    for _ in 0..rows.start {
        reader.next_row().map_err(fail)?;
    }
    for out in rgb.chunks_exact_mut(stride) {
        if color == ColorType::Rgb {
            reader.read_row(out).map_err(fail)?;
        } else if let Some(row) = reader.next_row().map_err(fail)? {
            to_rgb(color, row.data(), out);
        }
    }
    if rows.end == size.height {
        // The checksum follows the last row, so only a complete read can verify it.
        reader.finish().map_err(fail)?;
    }
    Ok(RgbImage { size, top: rows.start, rgb })
}

fn to_rgb(color: ColorType, row: &[u8], out: &mut [u8]) {
    let out = out.as_chunks_mut::<3>().0;
    match color {
        ColorType::Rgba => {
            let pixels = row.as_chunks::<4>().0;
            out.iter_mut().zip(pixels).for_each(|(o, p)| o.copy_from_slice(&p[..3]));
        }
        ColorType::GrayscaleAlpha => {
            let pixels = row.as_chunks::<2>().0;
            out.iter_mut().zip(pixels).for_each(|(o, p)| *o = [p[0]; 3]);
        }
        ColorType::Grayscale => out.iter_mut().zip(row).for_each(|(o, &p)| *o = [p; 3]),
        ColorType::Rgb | ColorType::Indexed => out.as_flattened_mut().copy_from_slice(row),
    }
}

fn other_rows(
    path: &Path,
    bytes: &[u8],
    rows: impl FnOnce(Size) -> Result<Range<usize>>,
) -> Result<RgbImage> {
    let reader = image::ImageReader::new(Cursor::new(bytes));
    let reader = reader.with_guessed_format().map_err(|e| Error::io(path, "read", e))?;
    let mut decoder = reader.into_decoder().map_err(|e| unreadable(path, e))?;
    let orientation = decoder.orientation().map_err(|e| unreadable(path, e))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| unreadable(path, e))?;
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let size = Size::new(image.width() as usize, image.height() as usize);
    let rows = rows(size)?;
    let stride = size.width * 3;
    let rgb = image.as_raw()[rows.start * stride..rows.end * stride].to_vec();
    Ok(RgbImage { size, top: rows.start, rgb })
}
