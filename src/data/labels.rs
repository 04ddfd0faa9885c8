//! Label maps from PNG files: one class id per pixel.

use std::{
    collections::HashMap,
    io::Cursor,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use png::{BitDepth, ColorType, Decoder, Transformations};

use crate::{
    config::{FilesConfig, LabelValue},
    data::{
        classes::{self, CITYSCAPES, IGNORE},
        decode::{check_claim, is_png, load_rgb, png_error, read},
        resize::{Rows, Size},
    },
    error::{Error, Result},
};

/// A map of one byte per pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Width and height.
    pub size: Size,
    /// H·W values.
    pub data: Vec<u8>,
}

impl Plane {
    /// Returns a view of the map for the resizers.
    pub fn rows(&self) -> Rows<'_> {
        Rows::whole(self.size, 1, &self.data)
    }
}

/// Encoding of the ids in a label file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Palette indices or gray values of at most 8 bits.
    Bytes,
    /// Like [`Storage::Bytes`], or the first channel of a 16-bit PNG.
    FirstChannel,
    /// RGB colors of 8 bits per channel.
    Colors,
}

/// Maps the values of a label file to train ids, and rejects values that the file must not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    name: &'static str,
    /// Description of the accepted values for error messages.
    expected: String,
    storage: Storage,
    /// Train ids of the values below 256, which nearly all values are.
    bytes: [u8; 256],
    /// Train ids of larger known values.
    more: HashMap<u32, u8>,
    /// Train id of all remaining values; `INVALID` rejects them.
    others: u8,
}

/// Marks a value that has no train id; no train id is this large.
const INVALID: u8 = 254;

/// Identity map of the train ids in files that preparation writes.
pub static TRAIN_IDS: LazyLock<Arc<IdMap>> = LazyLock::new(|| {
    let ids = (0..CITYSCAPES.len() as u8).chain([IGNORE]).map(|id| (id.into(), id));
    let expected = "0 to 18, or 255 for unlabeled";
    Arc::new(IdMap::new("train id", expected, Storage::Bytes, ids))
});

/// Label ids of Cityscapes, which GTA shares: 0 to 34, and 255.
pub static CITYSCAPES_IDS: LazyLock<Arc<IdMap>> = LazyLock::new(|| {
    let unlabeled = (0..=34).chain([255]).map(|id| (id, IGNORE));
    let ids = (0..).zip(&CITYSCAPES).map(|(train_id, c)| (c.label_id.into(), train_id));
    let ids = unlabeled.chain(ids);
    Arc::new(IdMap::new("label id", "0 to 34, or 255", Storage::Bytes, ids))
});

/// Label ids of SYNTHIA-RAND-CITYSCAPES: 0 to 22.
pub static SYNTHIA_IDS: LazyLock<Arc<IdMap>> = LazyLock::new(|| {
    let unlabeled = (0..=22).map(|id| (id, IGNORE));
    let ids = (0..).zip(classes::SYNTHIA_IDS).map(|(train_id, id)| (id.into(), train_id));
    let ids = unlabeled.chain(ids);
    Arc::new(IdMap::new("SYNTHIA label id", "0 to 22", Storage::FirstChannel, ids))
});

impl IdMap {
    /// Creates a map from pairs of value and train id; the last pair of a value wins.
    fn new(
        name: &'static str,
        expected: impl Into<String>,
        storage: Storage,
        ids: impl Iterator<Item = (u32, u8)>,
    ) -> Self {
        let (mut bytes, mut more) = ([INVALID; 256], HashMap::new());
        for (value, train_id) in ids {
            match bytes.get_mut(value as usize) {
                Some(place) => *place = train_id,
                None => drop(more.insert(value, train_id)),
            }
        }
        IdMap { name, expected: expected.into(), storage, bytes, more, others: INVALID }
    }

    /// Creates the map of a dataset that `[files]` describes.
    pub fn of_files(files: &FilesConfig, classes: usize) -> Self {
        let number = |value: &LabelValue| match *value {
            LabelValue::Id(id) => id.into(),
            LabelValue::Color(rgb) => color_number(rgb),
        };
        let colors = files.ids.iter().flatten().any(|v| matches!(v, LabelValue::Color(_)));
        let (name, storage) = match colors {
            true => ("color", Storage::Colors),
            false => ("id", Storage::FirstChannel),
        };
        let own: Vec<(u32, u8)> = match files.ids.is_empty() {
            true => (0..classes as u8).map(|class| (class.into(), class)).collect(),
            false => (0..)
                .zip(&files.ids)
                .flat_map(|(class, values)| values.iter().map(move |v| (number(v), class)))
                .collect(),
        };
        let ignored = files.ignore.iter().map(|value| (number(value), IGNORE));
        let expected = match files.ids.is_empty() {
            true => {
                format!("0 to {} (files.ids is empty) or a value of files.ignore", classes - 1)
            }
            false => "a value of files.ids or files.ignore".into(),
        };
        let mut map = IdMap::new(name, expected, storage, ignored.chain(own));
        if files.ignore_others {
            map.others = IGNORE;
            map.bytes.iter_mut().filter(|t| **t == INVALID).for_each(|t| *t = IGNORE);
        }
        map
    }

    /// Returns the train id of a value, or None if no label may contain it.
    pub fn get(&self, value: u32) -> Option<u8> {
        let found = self.bytes.get(value as usize).or_else(|| self.more.get(&value));
        Some(*found.unwrap_or(&self.others)).filter(|&train_id| train_id != INVALID)
    }

    /// Replaces every value by its train id.
    ///
    /// # Errors
    /// A value is out of range; the error names `path` and the position.
    fn apply(&self, path: &Path, values: &Values) -> Result<Plane> {
        let data: Vec<u8> = match &values.data {
            Data::Bytes(data) => data.iter().map(|&id| self.bytes[id as usize]).collect(),
            Data::Words(data) => {
                let train_id = |run: &[u32]| self.get(run[0]).unwrap_or(INVALID);
                let runs = data.chunk_by(|a, b| a == b);
                runs.flat_map(|run| std::iter::repeat_n(train_id(run), run.len())).collect()
            }
        };
        let size = values.size;
        let Some(at) = data.iter().position(|&id| id == INVALID) else {
            return Ok(Plane { size, data });
        };
        let (x, y) = (at % size.width, at / size.width);
        let (name, expected) = (self.name, &self.expected);
        let value = match &values.data {
            Data::Bytes(data) => data[at].to_string(),
            Data::Words(data) if self.storage == Storage::Colors => {
                let [_, r, g, b] = data[at].to_be_bytes();
                LabelValue::Color([r, g, b]).to_string()
            }
            Data::Words(data) => data[at].to_string(),
        };
        let problem =
            format!("{name} {value} at x {x}, y {y} is out of range: expected {expected}");
        Err(Error::data(path, problem))
    }
}

/// Encodes a color as a label value that is larger than any id.
fn color_number([r, g, b]: [u8; 3]) -> u32 {
    u32::from_be_bytes([1, r, g, b])
}

/// A label file, and the map that decodes its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Map from values to train ids.
    pub ids: Arc<IdMap>,
}

impl LabelFile {
    /// Loads the label as train ids.
    ///
    /// # Errors
    /// The file is missing, truncated or not a label, or contains an id that is out of range.
    pub fn load(&self) -> Result<Plane> {
        self.ids.apply(&self.path, &read_values(&self.path, self.ids.storage)?)
    }
}

/// Checks that a label has the size of its image.
///
/// # Errors
/// The sizes differ.
pub fn check_size(image: &Path, image_size: Size, label: &Path, label_size: Size) -> Result<()> {
    if image_size == label_size {
        return Ok(());
    }
    let image = image.display();
    let problem = format!(
        "this label is {label_size}, but its image {image} is {image_size}: remove the pair or \
         replace the wrong file"
    );
    Err(Error::data(label, problem))
}

/// Values of a label file, row by row.
struct Values {
    size: Size,
    data: Data,
}

enum Data {
    Bytes(Vec<u8>),
    Words(Vec<u32>),
}

/// Reads the values of a label PNG as `storage` says: palette *indices* (the colors of the palette
/// are for viewing only), gray values, the first of several channels, or colors.
fn read_values(path: &Path, storage: Storage) -> Result<Values> {
    let bytes = read(path)?;
    if !is_png(&bytes) {
        return Err(Error::data(path, "not a PNG file; labels must be PNG files"));
    }
    if storage == Storage::Colors {
        let picture = load_rgb(path)?;
        let colors = picture.rgb.as_chunks::<3>().0.iter().map(|&rgb| color_number(rgb));
        return Ok(Values { size: picture.size, data: Data::Words(colors.collect()) });
    }
    let fail = |e| png_error(path, e);
    let mut decoder = Decoder::new(Cursor::new(&bytes[..]));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(fail)?;
    let info = reader.info();
    let size = Size::new(info.width as usize, info.height as usize);
    let (color, depth) = (info.color_type, info.bit_depth);
    let channels = color.samples();
    let good = match storage {
        _ if depth != BitDepth::Sixteen => channels == 1,
        Storage::Bytes => false,
        Storage::FirstChannel | Storage::Colors => true,
    };
    if !good {
        let bits = depth as u8;
        let wide = match storage {
            Storage::Bytes => "",
            _ => ", or a 16-bit PNG whose first channel holds the ids",
        };
        let problem = format!(
            "stores {color:?} pixels of {bits} bits; a label is a palette or grayscale PNG of at \
             most 8 bits{wide} (is this a color visualization of the label?)"
        );
        return Err(Error::data(path, problem));
    }
    check_claim(path, size, reader.info().raw_row_length().saturating_sub(1), bytes.len())?;
    let too_large = || Error::data(path, format!("a label of {size} is too large"));
    let mut data = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
    let stride = reader.next_frame(&mut data).map_err(fail)?.line_size;
    reader.finish().map_err(fail)?;
    let data = match depth {
        BitDepth::Eight => Data::Bytes(data),
        BitDepth::Sixteen => {
            let first = |pixel: &[u8]| u32::from(u16::from_be_bytes([pixel[0], pixel[1]]));
            Data::Words(data.chunks_exact(2 * channels).map(first).collect())
        }
        _ => Data::Bytes(unpack(&data, stride, size, depth as usize)),
    };
    Ok(Values { size, data })
}

/// Unpacks pixels of 1, 2 or 4 bits to bytes. The first pixel is in the highest bits.
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

/// Encodes a plane as an 8-bit grayscale PNG.
pub fn encode(plane: &Plane) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder =
        png::Encoder::new(&mut bytes, plane.size.width as u32, plane.size.height as u32);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::NoFilter);
    let written = encoder.write_header().and_then(|mut w| w.write_image_data(&plane.data));
    // Encoding to memory with a size that came from a PNG cannot fail.
    debug_assert!(written.is_ok());
    bytes
}
