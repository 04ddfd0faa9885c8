//! Label maps from PNG files: one class id per pixel.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use png::{BitDepth, ColorType, Transformations};

use crate::{
    config::{FilesConfig, LabelValue},
    data::{
        classes::{self, CITYSCAPES, IGNORE},
        decode::{check_claim, is_png, load_rgb, png_decoder, png_error, read},
        resize::{Rows, Size},
    },
    error::{Error, Result},
    memory::require,
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

/// Maps the values of a label file to train ids. Values outside the list are unlabeled, as for the
/// released tools, or refused.
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
    others: Others,
}

/// What the values outside an [`IdMap`]'s list mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// The file is not what it should be.
    Refused,
    /// Unlabeled pixels, which are counted.
    Counted,
    /// Unlabeled pixels, as configured.
    Ignored,
}

/// Marks a value that is not in the list; no train id is this large.
const OUTSIDE: u8 = 254;

/// Pixels of label files whose values are not in the list, by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside(BTreeMap<u32, u64>);

impl Outside {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds the pixels of another label.
    pub fn add(&mut self, other: Outside) {
        for (value, pixels) in other.0 {
            *self.0.entry(value).or_default() += pixels;
        }
    }

    /// Returns the values, the most frequent first; of many, only the first few.
    fn values(&self) -> String {
        let mut values: Vec<(u32, u64)> = self.0.iter().map(|(&value, &n)| (value, n)).collect();
        values.sort_by_key(|&(value, n)| (std::cmp::Reverse(n), value));
        let shown: Vec<String> = values.iter().take(LISTED).map(|v| v.0.to_string()).collect();
        let more = if values.len() > LISTED { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    }
}

/// Number of values outside the list that a message names.
const LISTED: usize = 5;
/// A label of which less than this share is in the list is of another kind.
const LEAST_SHARE: f64 = 0.1;

/// Identity map of the train ids in files that preparation writes.
pub static TRAIN_IDS: LazyLock<Arc<IdMap>> = LazyLock::new(|| {
    let ids = (0..CITYSCAPES.len() as u8).chain([IGNORE]).map(|id| (id.into(), id));
    let expected = "0 to 18, or 255 for unlabeled";
    Arc::new(IdMap::new("train id", expected, Storage::Bytes, Others::Refused, ids))
});

/// Label ids of Cityscapes, which GTA shares: 0 to 34, and 255.
pub static CITYSCAPES_IDS: LazyLock<Arc<IdMap>> = LazyLock::new(|| {
    let unlabeled = (0..=34).chain([255]).map(|id| (id, IGNORE));
    let ids = (0..).zip(&CITYSCAPES).map(|(train_id, c)| (c.label_id.into(), train_id));
    let ids = unlabeled.chain(ids);
    Arc::new(IdMap::new("label id", "0 to 34, or 255", Storage::Bytes, Others::Counted, ids))
});

/// Label ids of SYNTHIA-RAND-CITYSCAPES: 0 to 22.
pub static SYNTHIA_IDS: LazyLock<Arc<IdMap>> = LazyLock::new(|| {
    let unlabeled = (0..=22).map(|id| (id, IGNORE));
    let ids = (0..).zip(classes::SYNTHIA_IDS).map(|(train_id, id)| (id.into(), train_id));
    let ids = unlabeled.chain(ids);
    let (name, storage) = ("SYNTHIA label id", Storage::FirstChannel);
    Arc::new(IdMap::new(name, "0 to 22", storage, Others::Counted, ids))
});

impl IdMap {
    /// Creates a map from pairs of value and train id; the last pair of a value wins.
    fn new(
        name: &'static str,
        expected: impl Into<String>,
        storage: Storage,
        others: Others,
        ids: impl Iterator<Item = (u32, u8)>,
    ) -> Self {
        let (mut bytes, mut more) = ([OUTSIDE; 256], HashMap::new());
        for (value, train_id) in ids {
            match bytes.get_mut(value as usize) {
                Some(place) => *place = train_id,
                None => drop(more.insert(value, train_id)),
            }
        }
        IdMap { name, expected: expected.into(), storage, bytes, more, others }
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
        let others = if files.ignore_others { Others::Ignored } else { Others::Refused };
        IdMap::new(name, expected, storage, others, ignored.chain(own))
    }

    /// Returns the train ids that a label can contain, in ascending order.
    pub fn classes(&self) -> Vec<u8> {
        let mut classes: Vec<u8> = self.bytes.iter().chain(self.more.values()).copied().collect();
        classes.retain(|&id| id < OUTSIDE);
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Returns the train id of a value, or None if it is not in the list.
    pub fn get(&self, value: u32) -> Option<u8> {
        match self.listed(value) {
            OUTSIDE if self.others == Others::Ignored => Some(IGNORE),
            OUTSIDE => None,
            train_id => Some(train_id),
        }
    }

    fn listed(&self, value: u32) -> u8 {
        let found = self.bytes.get(value as usize).or_else(|| self.more.get(&value));
        found.copied().unwrap_or(OUTSIDE)
    }

    /// Replaces every value by its train id, and counts those that are not in the list.
    ///
    /// # Errors
    /// A value is out of range; the error names `path` and the position.
    fn apply(&self, path: &Path, values: &Values) -> Result<(Plane, Outside)> {
        let mut data: Vec<u8> = match &values.data {
            Data::Bytes(data) => data.iter().map(|&id| self.bytes[id as usize]).collect(),
            Data::Words(data) => {
                let runs = data.chunk_by(|a, b| a == b);
                runs.flat_map(|run| std::iter::repeat_n(self.listed(run[0]), run.len())).collect()
            }
        };
        let size = values.size;
        let mut outside = Outside::default();
        if let Some(first) = data.iter().position(|&id| id == OUTSIDE) {
            if self.others == Others::Refused {
                return Err(self.out_of_range(path, values, first));
            }
            for (at, id) in data.iter_mut().enumerate().filter(|(_, id)| **id == OUTSIDE) {
                *id = IGNORE;
                if self.others == Others::Counted {
                    *outside.0.entry(values.data.get(at)).or_default() += 1;
                }
            }
        }
        Ok((Plane { size, data }, outside))
    }

    fn out_of_range(&self, path: &Path, values: &Values, at: usize) -> Error {
        let (x, y) = (at % values.size.width, at / values.size.width);
        let (name, expected, value) = (self.name, &self.expected, values.data.get(at));
        let value = match self.storage {
            Storage::Colors => {
                let [_, r, g, b] = value.to_be_bytes();
                LabelValue::Color([r, g, b]).to_string()
            }
            _ => value.to_string(),
        };
        let problem =
            format!("{name} {value} at x {x}, y {y} is out of range: expected {expected}");
        Error::data(path, problem)
    }

    /// Describes values outside the list, as in "label id 35 (expected 0 to 34, or 255)".
    pub fn describe(&self, outside: &Outside) -> String {
        format!("{} {} (expected {})", self.name, outside.values(), self.expected)
    }

    /// Checks that not nearly all of `pixels` pixels are outside the list.
    ///
    /// # Errors
    /// They are, so the labels at `path` are of another kind.
    pub fn check_share(&self, path: &Path, outside: &Outside, pixels: u64) -> Result<()> {
        let share = outside.pixels() as f64 / pixels.max(1) as f64;
        if share <= 1.0 - LEAST_SHARE {
            return Ok(());
        }
        let problem = format!(
            "{:.1} % of the pixels have {}: these are not labels of the configured layout",
            100.0 * share,
            self.describe(outside)
        );
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
    /// The file is missing, truncated or not a label, or contains an id that is out of range, or
    /// hardly any that is in range.
    pub fn load(&self) -> Result<Plane> {
        let (plane, outside) = self.load_counted()?;
        self.ids.check_share(&self.path, &outside, plane.data.len() as u64)?;
        Ok(plane)
    }

    /// Loads the label as train ids, and counts the pixels whose values are not in the list.
    ///
    /// # Errors
    /// The file is missing, truncated or not a label, or contains an id that is out of range.
    pub fn load_counted(&self) -> Result<(Plane, Outside)> {
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

impl Data {
    fn get(&self, at: usize) -> u32 {
        match self {
            Data::Bytes(data) => data[at].into(),
            Data::Words(data) => data[at],
        }
    }
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
    let mut decoder = png_decoder(&bytes);
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
    let buffer = reader.output_buffer_size().ok_or_else(too_large)?;
    // The values of 16 bits are kept as words.
    require(buffer + 4 * size.pixels(), || format!("{}: the label", path.display()))?;
    let mut data = vec![0; buffer];
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
