//! Chooses crops from the label alone: class histograms of crop windows, computed before any image
//! is decoded.

use crate::{
    data::{
        classes::IGNORE,
        labels::Plane,
        resize::{Size, Window},
    },
    rng::Draw,
};

/// Pixel count of each label id.
pub type Histogram = [u32; 256];

/// Draws a crop window of at most `side` × `side`, at a uniform position. An axis of the image that
/// is shorter than `side` is taken whole.
pub fn random_window(of: Size, side: usize, draw: &mut Draw) -> Window {
    // The reference draws the row first.
    let y = draw.below(of.height.saturating_sub(side) + 1);
    let x = draw.below(of.width.saturating_sub(side) + 1);
    Window { x, y, width: side.min(of.width), height: side.min(of.height) }
}

/// Counts the ids in windows of a label that is scaled by nearest neighbor, without scaling it:
/// each source pixel counts as many times as the scaled window reads it.
pub struct Counter<'a> {
    label: &'a Plane,
    columns: Vec<usize>,
    rows: Vec<usize>,
}

impl<'a> Counter<'a> {
    /// Creates a counter for a scaled label. `columns` and `rows` hold, in ascending order, the
    /// source coordinate that each coordinate of the scaled label reads.
    pub fn new(label: &'a Plane, columns: Vec<usize>, rows: Vec<usize>) -> Self {
        Counter { label, columns, rows }
    }

    /// Returns the source coordinates that a window reads. A window that exceeds the label reads
    /// only what is there.
    fn inside(&self, window: Window) -> [&[usize]; 2] {
        fn part(all: &[usize], from: usize, length: usize) -> &[usize] {
            &all[from.min(all.len())..(from + length).min(all.len())]
        }
        [part(&self.columns, window.x, window.width), part(&self.rows, window.y, window.height)]
    }

    /// Returns the histogram of the scaled label in a window.
    pub fn count(&self, window: Window) -> Histogram {
        let mut total = [0; 256];
        let [columns, rows] = self.inside(window);
        let columns = repeats(columns);
        for (y, times) in repeats(rows) {
            let row = &self.label.data[y * self.label.size.width..][..self.label.size.width];
            // Neighboring pixels mostly share an id, so runs are summed before the histogram is
            // touched.
            let (mut id, mut run) = (IGNORE, 0);
            for &(x, repeat) in &columns {
                if row[x] != id {
                    total[id as usize] += run * times;
                    (id, run) = (row[x], 0);
                }
                run += repeat;
            }
            total[id as usize] += run * times;
        }
        total
    }

    /// Returns the scaled label in a window, row by row, and the width of the rows. It is smaller
    /// than the window where that exceeds the label.
    pub fn crop(&self, window: Window) -> (Vec<u8>, usize) {
        let [columns, rows] = self.inside(window);
        let mut out = Vec::with_capacity(columns.len() * rows.len());
        for &y in rows {
            let row = &self.label.data[y * self.label.size.width..][..self.label.size.width];
            out.extend(columns.iter().map(|&x| row[x]));
        }
        (out, columns.len())
    }
}

/// Run-length encodes ascending values.
fn repeats(ascending: &[usize]) -> Vec<(usize, u32)> {
    let runs = ascending.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0], run.len() as u32)).collect()
}

/// Returns whether a crop is varied enough: it holds at least two classes, and none covers
/// `max_share` or more of its labeled pixels.
pub fn is_varied(histogram: &Histogram, max_share: f32) -> bool {
    let labeled = &histogram[..IGNORE as usize];
    let sum: u32 = labeled.iter().sum();
    let max = labeled.iter().copied().max().unwrap_or(0);
    let classes = labeled.iter().filter(|&&n| n > 0).count();
    classes > 1 && max as f64 / (sum as f64) < max_share as f64
}

/// Draws crop windows until one is varied enough (see [`is_varied`]). After `redraws` rejections
/// the next window is accepted without a check. A `max_share` of 1 or more accepts the first
/// window.
pub fn varied_window(
    counter: &Counter,
    of: Size,
    side: usize,
    max_share: f32,
    redraws: usize,
    draw: &mut Draw,
) -> (Window, Histogram) {
    let mut window = random_window(of, side, draw);
    let mut histogram = counter.count(window);
    if max_share < 1.0 {
        for _ in 0..redraws {
            if is_varied(&histogram, max_share) {
                break;
            }
            window = random_window(of, side, draw);
            histogram = counter.count(window);
        }
    }
    (window, histogram)
}

/// Copies rows of `width` pixels to the upper left of a picture of size `to` and fills the rest with
/// `fill`.
pub fn pad<const C: usize>(data: Vec<u8>, width: usize, to: Size, fill: [u8; C]) -> Vec<u8> {
    if data.len() == to.width * to.height * C {
        return data;
    }
    let mut out = fill.repeat(to.width * to.height);
    let rows = data.chunks_exact((width * C).max(1));
    for (row, out) in rows.zip(out.chunks_exact_mut(to.width * C)) {
        out[..row.len()].copy_from_slice(row);
    }
    out
}
