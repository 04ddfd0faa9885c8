//! Byte-exact ports of the two image resizers that the reference uses, for any window of the
//! result.
//!
//! Training images are scaled like OpenCV ([`cv_bilinear`], [`cv_nearest`]) and long-tail images
//! like Pillow ([`pil_bilinear`], antialiased when shrinking, and [`pil_nearest`]). A crop needs
//! only a fraction of the scaled image, so every function computes just a [`Window`] of it. The
//! bytes equal those of scaling the whole image and then cropping.

use std::ops::Range;

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Size {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

impl Size {
    /// Creates a size.
    pub const fn new(width: usize, height: usize) -> Self {
        Size { width, height }
    }

    /// Returns the number of pixels.
    pub const fn pixels(self) -> usize {
        self.width * self.height
    }

    /// Returns the size of the image after scaling it to fit `fit`, keeping its aspect ratio. The
    /// orientation of `fit` does not matter: the longer side is fitted to the longer, the shorter
    /// to the shorter. A side becomes `int(side · scale + 0.5)`.
    pub fn fitted(self, fit: [usize; 2]) -> Size {
        let (long, short) = (fit[0].max(fit[1]), fit[0].min(fit[1]));
        let (width, height) = (self.width as f64, self.height as f64);
        let scale = (long as f64 / width.max(height)).min(short as f64 / width.min(height));
        let side = |n: f64| ((n * scale + 0.5) as usize).max(1);
        Size { width: side(width), height: side(height) }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A rectangle of a scaled image, in pixels of the scaled image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Width of the window.
    pub width: usize,
    /// Height of the window.
    pub height: usize,
}

impl Window {
    /// Returns the window that covers the whole image.
    pub const fn whole(size: Size) -> Self {
        Window { x: 0, y: 0, width: size.width, height: size.height }
    }

    fn columns(self) -> Range<usize> {
        self.x..self.x + self.width
    }

    fn rows(self) -> Range<usize> {
        self.y..self.y + self.height
    }
}

/// A range of rows of an image with interleaved 8-bit channels: `data` starts at row `top` of
/// `size.height`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Size of the whole image.
    pub size: Size,
    /// Number of channels.
    pub channels: usize,
    /// First row in `data`.
    pub top: usize,
    /// Pixels of the rows.
    pub data: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Creates a view of all rows of an image.
    pub fn whole(size: Size, channels: usize, data: &'a [u8]) -> Self {
        assert_eq!(data.len(), size.pixels() * channels, "an image of {size} x {channels}");
        Rows { size, channels, top: 0, data }
    }

    fn row(&self, y: usize) -> &'a [u8] {
        let stride = self.size.width * self.channels;
        let start = (y - self.top) * stride;
        &self.data[start..start + stride]
    }
}

// ---------------------------------------------------------------------------------- OpenCV

/// Interpolation of one output coordinate: the two adjacent source coordinates and their weights in
/// units of 1/2048.
#[derive(Clone, Copy)]
struct Tap {
    lo: usize,
    hi: usize,
    a: i32,
    b: i32,
}

/// Returns the coefficients of OpenCV for the output coordinates `range`: half-pixel centers,
/// single precision, 11-bit weights. Beyond the border, the *x* axis puts all weight on the last
/// pixel, whereas the *y* axis keeps both weights and reads the last row twice, which rounds
/// differently.
fn cv_taps(from: usize, to: usize, range: Range<usize>, clamp_weights: bool) -> Vec<Tap> {
    let scale = 1.0 / (to as f64 / from as f64);
    let last = from as isize - 1;
    range
        .map(|i| {
            let position = ((i as f64 + 0.5) * scale - 0.5) as f32;
            let mut base = position.floor() as isize;
            let mut fraction = position - base as f32;
            if clamp_weights && (base < 0 || base >= last) {
                base = base.clamp(0, last);
                fraction = 0.0;
            }
            let weight = |f: f32| (f * 2048.0).round_ties_even() as i32;
            Tap {
                lo: base.clamp(0, last) as usize,
                hi: (base + 1).clamp(0, last) as usize,
                a: weight(1.0 - fraction),
                b: weight(fraction),
            }
        })
        .collect()
}

/// Returns the source rows that [`cv_bilinear`] reads for `window` of an image scaled to `to`.
pub fn cv_bilinear_rows(from: Size, to: Size, window: Window) -> Range<usize> {
    if from == to {
        return window.rows();
    }
    let taps = cv_taps(from.height, to.height, window.rows(), false);
    taps.first().map_or(0, |t| t.lo)..taps.last().map_or(0, |t| t.hi + 1)
}

/// Scales like `INTER_LINEAR` of OpenCV on 8-bit data (no antialiasing) and returns `window` of
/// `src` scaled to `to`. `src` must hold the rows that [`cv_bilinear_rows`] returns.
pub fn cv_bilinear(src: Rows, to: Size, window: Window) -> Vec<u8> {
    if src.size == to {
        return crop(src, window);
    }
    match src.channels {
        1 => cv_bilinear_n::<1>(src, to, window),
        3 => cv_bilinear_n::<3>(src, to, window),
        n => panic!("cv_bilinear resizes images of 1 or 3 channels, not {n}"),
    }
}

fn cv_bilinear_n<const C: usize>(src: Rows, to: Size, window: Window) -> Vec<u8> {
    let columns = cv_taps(src.size.width, to.width, window.columns(), true);
    let rows = cv_taps(src.size.height, to.height, window.rows(), false);
    let stride = window.width * C;
    let mut out = vec![0; stride * window.height];

    // Output rows are in ascending order, so the two source rows of one output row can serve the
    // next rows too. They are stored without their 4 lowest bits, as the vertical pass expects.
    let mut cache = [vec![0i16; stride], vec![0i16; stride]];
    let mut cached = [usize::MAX; 2];
    for (tap, line) in rows.iter().zip(out.chunks_exact_mut(stride.max(1))) {
        for (slot, y) in [(tap.lo % 2, tap.lo), (tap.hi % 2, tap.hi)] {
            if cached[slot] != y {
                cv_horizontal::<C>(src.row(y), &columns, &mut cache[slot]);
                cached[slot] = y;
            }
        }
        let (upper, lower) = (&cache[tap.lo % 2], &cache[tap.hi % 2]);
        for ((out, &u), &l) in line.iter_mut().zip(upper).zip(lower) {
            let sum = ((tap.a * u as i32) >> 16) + ((tap.b * l as i32) >> 16);
            *out = ((sum + 2) >> 2) as u8;
        }
    }
    out
}

fn cv_horizontal<const C: usize>(row: &[u8], columns: &[Tap], out: &mut [i16]) {
    let (pixels, _) = row.as_chunks::<C>();
    let (out, _) = out.as_chunks_mut::<C>();
    for (tap, out) in columns.iter().zip(out) {
        let (left, right) = (&pixels[tap.lo], &pixels[tap.hi]);
        for c in 0..C {
            out[c] = ((left[c] as i32 * tap.a + right[c] as i32 * tap.b) >> 4) as i16;
        }
    }
}

/// Returns the source coordinate that `INTER_NEAREST` of OpenCV reads for each output coordinate of
/// `range`.
pub fn cv_nearest_map(from: usize, to: usize, range: Range<usize>) -> Vec<usize> {
    let scale = 1.0 / (to as f64 / from as f64);
    range.map(|i| ((i as f64 * scale).floor() as usize).min(from - 1)).collect()
}

/// Scales like `INTER_NEAREST` of OpenCV and returns `window` of `src` scaled to `to`.
pub fn cv_nearest(src: Rows, to: Size, window: Window) -> Vec<u8> {
    let columns = cv_nearest_map(src.size.width, to.width, window.columns());
    gather(src, &columns, &cv_nearest_map(src.size.height, to.height, window.rows()))
}

// ---------------------------------------------------------------------------------- Pillow

/// Returns the source coordinate that `NEAREST` of Pillow reads for each output coordinate of
/// `range`. The position is accumulated because the rounding of the running sum affects the result.
pub fn pil_nearest_map(from: usize, to: usize, range: Range<usize>) -> Vec<usize> {
    let scale = from as f64 / to as f64;
    let mut position = scale * 0.5;
    let mut map = Vec::with_capacity(range.len());
    for i in 0..range.end {
        if i >= range.start {
            map.push((position as usize).min(from - 1));
        }
        position += scale;
    }
    map
}

/// Scales like `NEAREST` of Pillow and returns `window` of `src` scaled to `to`.
pub fn pil_nearest(src: Rows, to: Size, window: Window) -> Vec<u8> {
    let columns = pil_nearest_map(src.size.width, to.width, window.columns());
    gather(src, &columns, &pil_nearest_map(src.size.height, to.height, window.rows()))
}

/// Number of fractional bits in the fixed-point coefficients of Pillow.
const PIL_BITS: u32 = 32 - 8 - 2;

/// Filter of one output coordinate: the first source coordinate under the filter, and the weights
/// from there on.
struct Filter {
    first: usize,
    weights: Vec<i32>,
}

/// Returns the triangle filters of Pillow, which are stretched by the scale factor when shrinking.
fn pil_filters(from: usize, to: usize, range: Range<usize>) -> Vec<Filter> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    range
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = ((center - stretch + 0.5) as isize).max(0) as usize;
            let end = ((center + stretch + 0.5) as usize).min(from);
            let triangle = |k: usize| {
                let distance = ((k as f64 - center + 0.5) * (1.0 / stretch)).abs();
                if distance < 1.0 { 1.0 - distance } else { 0.0 }
            };
            let weights: Vec<f64> = (first..end).map(triangle).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |w: f64| (0.5 + w / sum * (1u32 << PIL_BITS) as f64) as i32;
            Filter { first, weights: weights.into_iter().map(fixed).collect() }
        })
        .collect()
}

/// Returns the source coordinates that the filters of one axis reach, or `range` if the axis is not
/// scaled.
fn pil_reach(from: usize, to: usize, range: Range<usize>) -> Range<usize> {
    if from == to || range.is_empty() {
        return range;
    }
    let ends = |i: usize| pil_filters(from, to, i..i + 1).pop();
    let first = ends(range.start).map_or(0, |f| f.first);
    let end = ends(range.end - 1).map_or(0, |f| f.first + f.weights.len());
    first..end
}

/// Returns the source rows that [`pil_bilinear`] reads for `window` of an image scaled to `to`.
pub fn pil_bilinear_rows(from: Size, to: Size, window: Window) -> Range<usize> {
    pil_reach(from.height, to.height, window.rows())
}

/// The axis that Pillow scales first. Each pass rounds to 8 bits, so the order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPass {
    /// Along rows: the versions before 13, among them those that the reference pins (8.3.1, 9.5.0).
    Horizontal,
    /// Along columns.
    Vertical,
}

impl FirstPass {
    /// Returns the choice of Pillow 13 and later, which saves work. A value changes by at most one.
    pub fn since_13(from: Size, to: Size) -> FirstPass {
        let lost = |from: usize, to: usize| from as isize - to as isize;
        let rows_lost = lost(from.height, to.height);
        match rows_lost > 0 && rows_lost > 2 * lost(from.width, to.width) {
            true => FirstPass::Vertical,
            false => FirstPass::Horizontal,
        }
    }
}

/// Scales like `BILINEAR` of the reference's Pillow, antialiased when shrinking, and returns
/// `window` of `src` scaled to `to`, whatever its aspect ratio. `src` must hold the rows that
/// [`pil_bilinear_rows`] returns.
pub fn pil_bilinear(src: Rows, to: Size, window: Window) -> Vec<u8> {
    pil_bilinear_by(src, to, window, FirstPass::Horizontal)
}

/// Scales like [`pil_bilinear`], but with a given order of the passes.
pub fn pil_bilinear_by(src: Rows, to: Size, window: Window, first: FirstPass) -> Vec<u8> {
    assert!(matches!(src.channels, 1 | 3), "pil_bilinear resizes images of 1 or 3 channels");
    let rows = pil_bilinear_rows(src.size, to, window);
    let columns = pil_reach(src.size.width, to.width, window.columns());
    // Crop the part of the source that the window needs, and remember its position.
    let part = Window { x: columns.start, y: rows.start, width: columns.len(), height: rows.len() };
    let part = Part { channels: src.channels, window: part, data: crop(src, part) };
    let horizontally = |p| pil_horizontal(p, src.size.width, to.width, window.columns());
    let vertically = |p| pil_vertical(p, src.size.height, to.height, window.rows());
    match first {
        FirstPass::Horizontal => vertically(horizontally(part)).data,
        FirstPass::Vertical => horizontally(vertically(part)).data,
    }
}

/// A rectangle of an image that may be scaled along one axis.
struct Part {
    channels: usize,
    window: Window,
    data: Vec<u8>,
}

const PIL_HALF: i32 = 1 << (PIL_BITS - 1);

fn pil_horizontal(part: Part, from: usize, to: usize, range: Range<usize>) -> Part {
    match part.channels {
        _ if from == to => part,
        1 => pil_horizontal_n::<1>(part, from, to, range),
        _ => pil_horizontal_n::<3>(part, from, to, range),
    }
}

fn pil_horizontal_n<const C: usize>(
    part: Part,
    from: usize,
    to: usize,
    range: Range<usize>,
) -> Part {
    let window = Window { x: range.start, width: range.len(), ..part.window };
    let filters = pil_filters(from, to, range);
    let mut data = vec![0; window.width * window.height * C];
    let lines = data.chunks_exact_mut((window.width * C).max(1));
    for (row, line) in part.data.chunks_exact((part.window.width * C).max(1)).zip(lines) {
        let (pixels, _) = row.as_chunks::<C>();
        let (line, _) = line.as_chunks_mut::<C>();
        for (filter, out) in filters.iter().zip(line) {
            let mut sum = [PIL_HALF; C];
            for (pixel, &weight) in
                pixels[filter.first - part.window.x..].iter().zip(&filter.weights)
            {
                for c in 0..C {
                    sum[c] += pixel[c] as i32 * weight;
                }
            }
            *out = sum.map(|s| (s >> PIL_BITS).clamp(0, 255) as u8);
        }
    }
    Part { channels: C, window, data }
}

fn pil_vertical(part: Part, from: usize, to: usize, range: Range<usize>) -> Part {
    if from == to {
        return part;
    }
    let window = Window { y: range.start, height: range.len(), ..part.window };
    let stride = window.width * part.channels;
    let mut data = vec![0; stride * window.height];
    let mut sums = vec![0i32; stride];
    let filters = pil_filters(from, to, range);
    for (filter, line) in filters.iter().zip(data.chunks_exact_mut(stride.max(1))) {
        sums.fill(PIL_HALF);
        let first = (filter.first - part.window.y) * stride;
        let rows = part.data[first..].chunks_exact(stride.max(1));
        for (row, &weight) in rows.zip(&filter.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += value as i32 * weight;
            }
        }
        for (out, &sum) in line.iter_mut().zip(&sums) {
            *out = (sum >> PIL_BITS).clamp(0, 255) as u8;
        }
    }
    Part { channels: part.channels, window, data }
}

// ---------------------------------------------------------------------------------- shared

fn crop(src: Rows, window: Window) -> Vec<u8> {
    let columns = window.x * src.channels..(window.x + window.width) * src.channels;
    let mut out = Vec::with_capacity(columns.len() * window.height);
    for y in window.rows() {
        out.extend_from_slice(&src.row(y)[columns.clone()]);
    }
    out
}

fn gather(src: Rows, columns: &[usize], rows: &[usize]) -> Vec<u8> {
    let stride = columns.len() * src.channels;
    let mut out: Vec<u8> = Vec::with_capacity(stride * rows.len());
    for (i, &y) in rows.iter().enumerate() {
        if i > 0 && rows[i - 1] == y {
            out.extend_from_within(out.len() - stride..);
            continue;
        }
        let row = src.row(y);
        if src.channels == 1 {
            out.extend(columns.iter().map(|&x| row[x]));
        } else {
            for &x in columns {
                out.extend_from_slice(&row[x * src.channels..(x + 1) * src.channels]);
            }
        }
    }
    out
}

/// Mirrors every row of an image that is `width` pixels wide.
pub fn flip_horizontally(data: &mut [u8], width: usize, channels: usize) {
    if width == 0 {
        return;
    }
    for row in data.chunks_exact_mut(width * channels) {
        match channels {
            1 => row.reverse(),
            3 => row.as_chunks_mut::<3>().0.reverse(),
            _ => {
                row.reverse();
                row.chunks_exact_mut(channels).for_each(|pixel| pixel.reverse());
            }
        }
    }
}

/// Returns a mask of the pixels whose pseudo-labels count: 0 in the `margins` `[top, bottom, left,
/// right]` of an image of size `full`, 1 elsewhere. The mask is scaled to `to` like a label (see
/// [`cv_nearest`]) and cropped to `window`.
pub fn valid_mask(margins: [usize; 4], full: Size, to: Size, window: Window) -> Vec<u8> {
    let [top, bottom, left, right] = margins;
    let inside = |map: Vec<usize>, length: usize, before: usize, after: usize| -> Vec<u8> {
        map.into_iter().map(|i| (i >= before && i + after < length) as u8).collect()
    };
    let columns = cv_nearest_map(full.width, to.width, window.columns());
    let columns = inside(columns, full.width, left, right);
    let rows = cv_nearest_map(full.height, to.height, window.rows());
    let rows = inside(rows, full.height, top, bottom);
    let mut out = Vec::with_capacity(columns.len() * rows.len());
    for row in rows {
        out.extend(columns.iter().map(|&column| column * row));
    }
    out
}
