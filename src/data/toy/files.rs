//! PNG files in the formats of the datasets.

use std::io::Write;
use std::path::Path;

use crate::data::classes;
use crate::data::labels::CITYSCAPES_IDS;
use crate::error::Result;
use crate::file::atomic::replace;

/// Cityscapes colors of label ids without a class. Ids that are not listed are black.
const VOID: [(usize, [u8; 3]); 10] = [
    (5, [111, 74, 0]),
    (6, [81, 0, 81]),
    (9, [250, 170, 160]),
    (10, [230, 150, 140]),
    (14, [180, 165, 180]),
    (15, [150, 100, 100]),
    (16, [150, 120, 90]),
    (18, [153, 153, 153]),
    (29, [0, 0, 90]),
    (30, [0, 0, 110]),
];

/// Returns the colors of the raw label ids, as in the palettes of GTA labels.
fn palette() -> [[u8; 3]; 34] {
    let mut palette = [[0; 3]; 34];
    for (id, color) in VOID {
        palette[id] = color;
    }
    for class in &classes::CITYSCAPES {
        palette[usize::from(class.label_id)] = class.color;
    }
    palette
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    Rgb,
    Gray,
    /// Palette indices are label ids; the palette is for viewing only.
    Palette,
    /// Format of SYNTHIA: 16 bits per channel, with the class in the first channel and an instance
    /// in the second (here 0).
    Synthia,
}

/// Returns the SYNTHIA class for a Cityscapes label id. Classes that SYNTHIA lacks become void.
fn synthia_id(label_id: u8) -> u8 {
    let train_id = CITYSCAPES_IDS.get(label_id.into()).map(usize::from);
    let known = train_id.filter(|id| classes::SYNTHIA_16.contains(id));
    known.map_or(0, |id| classes::SYNTHIA_IDS[id])
}

/// Writes a PNG to a temporary file and renames it, so that the file is either complete or absent.
pub fn write_png(path: &Path, size: (usize, usize), pixels: Pixels, data: &[u8]) -> Result<()> {
    replace(path, |file| {
        encode(file, size, pixels, data).map_err(|e| match e {
            png::EncodingError::IoError(e) => e,
            other => std::io::Error::other(other),
        })
    })
}

fn encode(
    sink: impl Write,
    size: (usize, usize),
    pixels: Pixels,
    data: &[u8],
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(sink, size.0 as u32, size.1 as u32);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    match pixels {
        Pixels::Rgb => encoder.set_color(png::ColorType::Rgb),
        Pixels::Gray => encoder.set_color(png::ColorType::Grayscale),
        Pixels::Synthia => {
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Sixteen);
        }
        Pixels::Palette => {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette().as_flattened().to_vec());
        }
    }
    if pixels != Pixels::Rgb {
        // Labels consist of flat areas in which neighboring rows repeat, so filtering does not
        // compress better.
        encoder.set_filter(png::Filter::NoFilter);
    }
    let mut writer = encoder.write_header()?;
    let wide: Vec<u8>;
    let data = match pixels {
        Pixels::Synthia => {
            wide = data.iter().flat_map(|&id| [0, synthia_id(id), 0, 0, 0, 0]).collect();
            &wide
        }
        _ => data,
    };
    writer.write_image_data(data)?;
    writer.finish()
}
