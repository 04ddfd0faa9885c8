//! Crops decided on the label: how often a crop holds each class, before any picture is decoded.

use crate::{
    data::{
        classes::IGNORE,
        labels::Plane,
        resize::{Size, Window},
    },
    rng::Draw,
};

/// Pixels of each id.
pub type Histogram = [u32; 256];

/// A crop of at most `side` squared: the whole of a shorter axis, else a uniform position.
pub fn random_window(of: Size, side: usize, draw: &mut Draw) -> Window {
    // The row first, like the reference.
    let y = draw.below(of.height.saturating_sub(side) + 1);
    let x = draw.below(of.width.saturating_sub(side) + 1);
    Window { x, y, width: side.min(of.width), height: side.min(of.height) }
}

/// Counts the ids in windows of a label scaled by nearest neighbour, without scaling it: a source
/// pixel counts as often as it is read.
pub struct Counter<'a> {
    label: &'a Plane,
    columns: Vec<usize>,
    rows: Vec<usize>,
}

impl<'a> Counter<'a> {
    /// `columns` and `rows` are the source coordinates that each coordinate of the scaled label
    /// reads, ascending.
    pub fn new(label: &'a Plane, columns: Vec<usize>, rows: Vec<usize>) -> Self {
        Counter { label, columns, rows }
    }

    pub fn count(&self, window: Window) -> Histogram {
        let mut total = [0; 256];
        let columns = repeats(&self.columns[window.x..window.x + window.width]);
        for (y, times) in repeats(&self.rows[window.y..window.y + window.height]) {
            let row = &self.label.data[y * self.label.size.width..][..self.label.size.width];
            // Neighbours mostly share an id: sum up a run of them before touching memory.
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

    /// The scaled label in a window.
    pub fn crop(&self, window: Window) -> Vec<u8> {
        let columns = &self.columns[window.x..window.x + window.width];
        let mut out = Vec::with_capacity(window.width * window.height);
        for &y in &self.rows[window.y..window.y + window.height] {
            let row = &self.label.data[y * self.label.size.width..][..self.label.size.width];
            out.extend(columns.iter().map(|&x| row[x]));
        }
        out
    }
}

/// Ascending values with how often each occurs.
fn repeats(ascending: &[usize]) -> Vec<(usize, u32)> {
    let runs = ascending.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0], run.len() as u32)).collect()
}

/// Whether a crop is varied enough: it holds two classes, and none covers `max_share` or more of
/// its labelled pixels.
pub fn is_varied(histogram: &Histogram, max_share: f32) -> bool {
    let labelled = &histogram[..IGNORE as usize];
    let sum: u32 = labelled.iter().sum();
    let max = labelled.iter().copied().max().unwrap_or(0);
    let classes = labelled.iter().filter(|&&n| n > 0).count();
    classes > 1 && max as f64 / (sum as f64) < max_share as f64
}

/// The first crop that is varied enough, or the last of `1 + redraws`, unseen. A share of 1 or more
/// takes the first.
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

/// Puts rows of `width` pixels into the upper left of a square of `side`, the rest `fill`.
pub fn pad<const C: usize>(data: Vec<u8>, width: usize, side: usize, fill: [u8; C]) -> Vec<u8> {
    if data.len() == side * side * C {
        return data;
    }
    let mut out = fill.repeat(side * side);
    let rows = data.chunks_exact((width * C).max(1));
    for (row, out) in rows.zip(out.chunks_exact_mut(side * C)) {
        out[..row.len()].copy_from_slice(row);
    }
    out
}
