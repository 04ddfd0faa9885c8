//! Image decoding: PNG row by row, only as far down as a crop needs; JPEG as a whole.

use std::{
    io::Cursor,
    ops::Range,
    path::{Component, Path, PathBuf},
};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};
use png::{ColorType, Decoder, DecodingError, Transformations};

use crate::{
    data::{
        layouts::paths::files,
        resize::{Rows, Size},
    },
    error::{Error, Result},
    file,
    memory::require,
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

/// Lists files and, in place of a folder or a glob, its PNG and JPEG files, sorted by name. Names
/// that begin with a dot are no images. A glob is what a shell has left as it is; `*`, `?`, `[…]`
/// and `**` have their usual meaning.
///
/// # Errors
/// [`Error::Data`] if a folder or a glob has no images; [`Error::Io`].
pub fn listed(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            match path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists()) {
                Some(pattern) => all.append(&mut matching(path, pattern)?),
                None => all.push(path.clone()),
            }
            continue;
        }
        let mut images = files(path, 1, is_image)?;
        if images.is_empty() {
            let problem = "this folder has no .png, .jpg or .jpeg files";
            return Err(Error::data(path, problem));
        }
        all.append(&mut images);
    }
    Ok(all)
}

/// Lists the images that match a glob, sorted by name.
fn matching(path: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let wrong = |e: glob::PatternError| Error::data(path, format!("is no valid glob: {e}"));
    let parts: Vec<Component> = path.components().collect();
    // Without doubled slashes, which no listed path has.
    let plain: PathBuf = parts.iter().collect();
    let glob = glob::Pattern::new(plain.to_str().unwrap_or(pattern)).map_err(wrong)?;
    let wild =
        |part: &Component| part.as_os_str().as_encoded_bytes().iter().any(|b| b"*?[".contains(b));
    let fixed = parts.iter().position(wild).unwrap_or(0);
    let start: PathBuf = parts[..fixed].iter().collect();
    let start = if fixed == 0 { Path::new(".") } else { &start };
    // A glob without folders matches names without them.
    let named = |file: &Path| match fixed {
        0 => file.strip_prefix(".").unwrap_or(file).to_path_buf(),
        _ => file.to_path_buf(),
    };
    let depth = if pattern.contains("**") { usize::MAX } else { parts.len() - fixed };
    let options =
        glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let wanted = |file: &Path| is_image(file) && glob.matches_path_with(&named(file), options);
    let found = if start.is_dir() { files(start, depth, wanted)? } else { Vec::new() };
    let images: Vec<PathBuf> = found.iter().map(|file| named(file)).collect();
    if images.is_empty() {
        return Err(Error::data(path, "no .png, .jpg or .jpeg file matches this glob"));
    }
    Ok(images)
}

fn is_image(file: &Path) -> bool {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let known = ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known));
    known && file.is_file()
}

/// Reads the size of an image from its header, as it is seen: the EXIF orientation of a JPEG is
/// applied.
pub fn size(path: &Path) -> Result<Size> {
    let file = file::open(path).map_err(|e| Error::io(path, "open", e))?;
    let reader = image::ImageReader::new(std::io::BufReader::new(file));
    let reader = reader.with_guessed_format().map_err(|e| Error::io(path, "read", e))?;
    let mut decoder = reader.into_decoder().map_err(|e| unreadable(path, e))?;
    let orientation = decoder.orientation().map_err(|e| unreadable(path, e))?;
    let (width, height) = decoder.dimensions();
    check_pixels(path, Size::new(width as usize, height as usize))?;
    let (width, height) = match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => (height, width),
        _ => (width, height),
    };
    Ok(Size::new(width as usize, height as usize))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    file::read(path, MAX_BYTES).map_err(|e| Error::io(path, "read", e))
}

pub(super) fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

/// Creates a decoder that leaves compressed notes and color profiles as they are: they can be larger
/// than the image.
pub(super) fn png_decoder(bytes: &[u8]) -> Decoder<Cursor<&[u8]>> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
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
pub const MAX_PIXELS: usize = 1 << 28;
/// Maximum size of an image's file in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Maximum expansion factor of Deflate: 1032 output bytes per input byte.
const DEFLATE: usize = 1032;

/// Rejects a PNG file whose header claims more data than the file can hold, before anything is
/// allocated for it. `row` is the size of an uncompressed row in bytes.
pub(super) fn check_claim(path: &Path, size: Size, row: usize, file_len: usize) -> Result<()> {
    check_pixels(path, size)?;
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

/// Rejects an image of more than [`MAX_PIXELS`].
fn check_pixels(path: &Path, size: Size) -> Result<()> {
    match size.width.checked_mul(size.height) {
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => {
            let problem = format!(
                "an image of {size} is too large: at most {} million pixels are read",
                MAX_PIXELS / 1_000_000
            );
            Err(Error::data(path, problem))
        }
    }
}

/// Maximum number of pixels for which a JPEG file needs only one byte: the shortest code, of one
/// bit, for every block of 8 × 8 pixels.
const JPEG: usize = 8 * 64;
/// Bytes for each pixel while a JPEG is decoded: a progressive one keeps three coefficients of two
/// bytes, and there are the pixels twice while they are turned.
const JPEG_BYTES: usize = 12;

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
    let mut decoder = png_decoder(bytes);
    // Palettes are expanded to colors, and all bit depths are converted to 8.
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(fail)?;
    let size = Size::new(reader.info().width as usize, reader.info().height as usize);
    check_claim(path, size, reader.info().raw_row_length().saturating_sub(1), bytes.len())?;
    let rows = rows(size)?;
    let color = reader.output_color_type().0;
    let stride = size.width * 3;
    let whole = if reader.info().interlaced { reader.output_buffer_size().unwrap_or(0) } else { 0 };
    require(stride * rows.len() + whole, || format!("{}: the image", path.display()))?;
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
    if bytes.starts_with(&[0xFF, 0xD8]) && !jpeg_is_whole(bytes) {
        let problem = "the JPEG file is truncated: copy or download it again";
        return Err(Error::data(path, problem));
    }
    let reader = image::ImageReader::new(Cursor::new(bytes));
    let reader = reader.with_guessed_format().map_err(|e| Error::io(path, "read", e))?;
    let mut decoder = reader.into_decoder().map_err(|e| unreadable(path, e))?;
    let (width, height) = decoder.dimensions();
    let claimed = Size::new(width as usize, height as usize);
    check_pixels(path, claimed)?;
    // The decoder allocates what the header claims, and fills in what the file lacks.
    if claimed.pixels() > bytes.len().saturating_mul(JPEG) {
        let problem = format!(
            "the JPEG file is truncated: it is too short for an image of {claimed}; copy or \
             download it again"
        );
        return Err(Error::data(path, problem));
    }
    require(claimed.pixels() * JPEG_BYTES, || format!("{}: the image", path.display()))?;
    let orientation = decoder.orientation().map_err(|e| unreadable(path, e))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| unreadable(path, e))?;
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let size = Size::new(image.width() as usize, image.height() as usize);
    let rows = rows(size)?;
    let stride = size.width * 3;
    let mut rgb = image.into_raw();
    // Only the rows stay, without another copy of the image.
    rgb.truncate(rows.end * stride);
    rgb.drain(..rows.start * stride);
    rgb.shrink_to_fit();
    Ok(RgbImage { size, top: rows.start, rgb })
}

/// Returns whether a JPEG file goes on to its end marker. The decoder fills in what is missing
/// without an error.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Between segments, and after the coded data of a scan, there is a marker.
        let Some(&[0xFF, marker]) = bytes.get(at..at + 2) else { return false };
        match marker {
            0xD9 => return true,
            // A fill byte, and markers without a segment.
            0xFF => at += 1,
            0x01 | 0xD0..=0xD8 => at += 2,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
                if marker == 0xDA {
                    // In coded data, 0xFF is followed by 0, or belongs to a restart marker.
                    let coded = bytes.get(at..).unwrap_or_default();
                    let end = coded.windows(2).position(|pair| {
                        pair[0] == 0xFF && !matches!(pair[1], 0 | 0xD0..=0xD7 | 0xFF)
                    });
                    let Some(end) = end else { return false };
                    at += end;
                }
            }
        }
    }
}
