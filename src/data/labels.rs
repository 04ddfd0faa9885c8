//! Label maps from PNG files: one class id a pixel, never a colour.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use png::{BitDepth, ColorType, Decoder, Transformations};

use crate::{
    data::{
        picture::{check_claim, is_png, png_error, read},
        resize::{Rows, Size},
    },
    error::{Error, Result},
};

/// Classes that training and evaluation know: Cityscapes' train ids 0 to 18.
pub const CLASSES: usize = 19;
/// The train id of a pixel that belongs to no class.
pub const IGNORE: u8 = 255;

/// One byte a pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    pub size: Size,
    pub data: Vec<u8>,
}

impl Plane {
    pub fn rows(&self) -> Rows<'_> {
        Rows::whole(self.size, 1, &self.data)
    }
}

/// Train id of each id that a file may hold; ids that it must not hold have none.
#[derive(Debug, PartialEq, Eq)]
pub struct IdMap {
    name: &'static str,
    /// What a reader is told to expect.
    expected: &'static str,
    table: [u8; 256],
}

/// Stands in a table for "no such id"; no train id is that high.
const INVALID: u8 = 254;

/// Train ids as preparation writes them.
pub static TRAIN_IDS: IdMap = {
    let mut table = [INVALID; 256];
    let mut id = 0;
    while id < CLASSES {
        table[id] = id as u8;
        id += 1;
    }
    table[IGNORE as usize] = IGNORE;
    IdMap { name: "train id", expected: "0 to 18, or 255 for unlabelled", table }
};

/// Label ids of Cityscapes, which GTA shares: 0 to 34, and 255.
pub static CITYSCAPES_IDS: IdMap = {
    let mut table = [INVALID; 256];
    let mut id = 0;
    while id <= 34 {
        table[id] = IGNORE;
        id += 1;
    }
    table[255] = IGNORE;
    // The train id is the position.
    let ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
    let mut train_id = 0;
    while train_id < ids.len() {
        table[ids[train_id]] = train_id as u8;
        train_id += 1;
    }
    IdMap { name: "label id", expected: "0 to 34, or 255", table }
};

impl IdMap {
    /// The train id of an id, or None if no label may hold it.
    pub fn get(&self, id: u8) -> Option<u8> {
        Some(self.table[id as usize]).filter(|&t| t != INVALID)
    }

    /// Replaces every id by its train id. `path` is named if one is out of range.
    pub fn apply(&self, path: &Path, plane: Plane) -> Result<Plane> {
        let data: Vec<u8> = plane.data.iter().map(|&id| self.table[id as usize]).collect();
        let Some(at) = data.iter().position(|&id| id == INVALID) else {
            return Ok(Plane { data, ..plane });
        };
        let (x, y) = (at % plane.size.width, at / plane.size.width);
        let (name, id, expected) = (self.name, plane.data[at], self.expected);
        let problem = format!("{name} {id} at x {x}, y {y} is out of range: expected {expected}");
        Err(Error::data(path, problem))
    }
}

/// Where an image's label is and what its numbers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFile {
    pub path: PathBuf,
    pub ids: &'static IdMap,
}

impl LabelFile {
    /// The label as train ids.
    ///
    /// # Errors
    /// The file is missing, truncated or not a label, or holds an id out of range.
    pub fn load(&self) -> Result<Plane> {
        self.ids.apply(&self.path, read_ids(&self.path)?)
    }
}

/// Complains about a label whose size is not that of its image.
pub fn check_size(image: &Path, image_size: Size, label: &Path, label_size: Size) -> Result<()> {
    if image_size == label_size {
        return Ok(());
    }
    let image = image.display();
    let problem = format!(
        "this label is {label_size}, but its image {image} is {image_size}: remove the pair, or \
         replace the wrong one"
    );
    Err(Error::data(label, problem))
}

/// The numbers stored in a label PNG: palette *indices* (the colours are for the eye only) or grey
/// values.
///
/// # Errors
/// The file is missing, truncated, damaged, or stores colours or 16 bits.
pub fn read_ids(path: &Path) -> Result<Plane> {
    let bytes = read(path)?;
    if !is_png(&bytes) {
        return Err(Error::data(path, "not a PNG file: labels are palette or grey PNGs"));
    }
    let fail = |e| png_error(path, e);
    let mut decoder = Decoder::new(Cursor::new(&bytes[..]));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(fail)?;
    let info = reader.info();
    let size = Size::new(info.width as usize, info.height as usize);
    let (color, depth) = (info.color_type, info.bit_depth);
    if !matches!(color, ColorType::Indexed | ColorType::Grayscale) || depth == BitDepth::Sixteen {
        let bits = depth as u8;
        let problem = format!(
            "stores {color:?} pixels of {bits} bits: a label is a palette or grey PNG of at most 8 \
             (is this a coloured picture of the label?)"
        );
        return Err(Error::data(path, problem));
    }
    check_claim(path, size, reader.info().raw_row_length().saturating_sub(1), bytes.len())?;
    let too_large = || Error::data(path, format!("a label of {size} is too large"));
    let mut data = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
    let stride = reader.next_frame(&mut data).map_err(fail)?.line_size;
    reader.finish().map_err(fail)?;
    if depth != BitDepth::Eight {
        data = unpack(&data, stride, size, depth as usize);
    }
    Ok(Plane { size, data })
}

/// Spreads pixels of 1, 2 or 4 bits, the first in the highest bits, to bytes.
fn unpack(packed: &[u8], stride: usize, size: Size, bits: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(size.pixels());
    for row in packed.chunks_exact(stride) {
        data.extend((0..size.width).map(|x| {
            let shift = 8 - bits - x * bits % 8;
            row[x * bits / 8] >> shift & ((1 << bits) - 1)
        }));
    }
    data
}

/// Writes a plane as a grey 8-bit PNG in memory.
pub fn encode(plane: &Plane) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder =
        png::Encoder::new(&mut bytes, plane.size.width as u32, plane.size.height as u32);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::NoFilter);
    let written = encoder.write_header().and_then(|mut w| w.write_image_data(&plane.data));
    // Into memory, with a size that was read from a PNG: nothing can refuse it.
    debug_assert!(written.is_ok());
    bytes
}
