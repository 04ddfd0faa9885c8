//! Rasterizes a list of shapes: colors are antialiased over four samples per pixel, and labels are
//! decided by majority.

use super::look::Look;
use super::stage::{Camera, Mark, Paint, Prim, Shape, Surface};

/// Image and label map of one scene, before the sensor model.
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    /// `height · width` RGB colors, each channel in `0..1`.
    pub rgb: Vec<[f32; 3]>,
    /// `height · width` raw label ids.
    pub label: Vec<u8>,
}

/// Number of samples along the side of a pixel.
const GRID: usize = 2;
/// Number of rows that are rasterized together, so that the sample buffers stay in cache.
const BAND: usize = 16;

/// One sample: the paint on top, its label, and whether it is in a shadow.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sample {
    paint: u16,
    label: u8,
    shadow: bool,
}

/// Haze between the camera and the scene.
#[derive(Clone, Copy)]
pub struct Air {
    pub color: [f32; 3],
    pub density: f32,
}

pub fn render(
    prims: &[Prim],
    camera: &Camera,
    look: &Look,
    air: Air,
    (width, height): (usize, usize),
) -> Canvas {
    let paints: Vec<&Paint> = prims
        .iter()
        .filter_map(|prim| match &prim.mark {
            Mark::Solid(paint, _) => Some(paint),
            _ => None,
        })
        .collect();
    let view = View { camera, paints, rows: height as f32, shadow: look.shadow(), air };
    let mut canvas = Canvas {
        width,
        height,
        rgb: Vec::with_capacity(width * height),
        label: Vec::with_capacity(width * height),
    };
    let columns = width * GRID;
    let mut samples = vec![Sample::default(); columns * BAND * GRID];
    for top in (0..height).step_by(BAND) {
        let rows = BAND.min(height - top);
        cover(prims, &mut samples, columns, top * GRID, rows * GRID, (height * GRID) as f32);
        for y in 0..rows {
            for x in 0..width {
                let at = y * GRID * columns + x * GRID;
                let quad = [
                    samples[at],
                    samples[at + 1],
                    samples[at + columns],
                    samples[at + columns + 1],
                ];
                canvas.rgb.push(view.pixel(&quad, x, top + y));
                canvas.label.push(majority(&quad));
            }
        }
    }
    canvas
}

/// Rasterizes all shapes into the sample rows `top..top + rows`, out of `scale` sample rows in the
/// image.
fn cover(
    prims: &[Prim],
    samples: &mut [Sample],
    columns: usize,
    top: usize,
    rows: usize,
    scale: f32,
) {
    samples.fill(Sample::default());
    let mut paint = 0u16;
    let mut crossings = Vec::new();
    for prim in prims {
        let lay = |span: &mut [Sample]| match prim.mark {
            Mark::Solid(_, label) => span.fill(Sample { paint, label, shadow: false }),
            Mark::Label(label) => span.iter_mut().for_each(|s| s.label = label),
            Mark::Shadow => span.iter_mut().for_each(|s| s.shadow = true),
        };
        let [low, high] = extent(&prim.shape);
        let first = ((low * scale - 0.5).ceil().max(0.0) as usize).max(top);
        let last = ((high * scale - 0.5).ceil().max(0.0) as usize).min(top + rows);
        for row in first..last {
            crossings.clear();
            spans(&prim.shape, (row as f32 + 0.5) / scale, &mut crossings);
            let line = &mut samples[(row - top) * columns..(row - top + 1) * columns];
            for pair in crossings.chunks_exact(2) {
                let [a, b] = [pair[0], pair[1]].map(|x| (x * scale - 0.5).ceil().max(0.0) as usize);
                if a < b.min(columns) {
                    lay(&mut line[a..b.min(columns)]);
                }
            }
        }
        paint += u16::from(matches!(prim.mark, Mark::Solid(..)));
    }
}

/// Returns the minimum and maximum y of a shape.
fn extent(shape: &Shape) -> [f32; 2] {
    match shape {
        Shape::Polygon(points) => points
            .iter()
            .fold([f32::MAX, f32::MIN], |[low, high], p| [low.min(p[1]), high.max(p[1])]),
        Shape::Ring(center, r, _) => [center[1] - r, center[1] + r],
    }
}

/// Appends the x coordinates where the line `y` enters and leaves a shape, in ascending order.
fn spans(shape: &Shape, y: f32, out: &mut Vec<f32>) {
    match shape {
        Shape::Polygon(points) => {
            let mut before = match points.last() {
                Some(&p) => p,
                None => return,
            };
            for &p in points {
                if (before[1] <= y) != (p[1] <= y) {
                    out.push(before[0] + (y - before[1]) / (p[1] - before[1]) * (p[0] - before[0]));
                }
                before = p;
            }
            out.sort_unstable_by(f32::total_cmp);
        }
        Shape::Ring(center, r, hole) => {
            let d = y - center[1];
            let half = |r: f32| (r * r - d * d).max(0.0).sqrt();
            let (outer, inner) = (half(*r), half(*hole));
            out.push(center[0] - outer);
            if inner > 0.0 {
                out.extend([center[0] - inner, center[0] + inner]);
            }
            out.push(center[0] + outer);
        }
    }
}

/// Returns the most frequent label of the samples; ties go to the first.
fn majority(quad: &[Sample; 4]) -> u8 {
    let votes = |label: u8| quad.iter().filter(|s| s.label == label).count();
    let mut best = quad[0].label;
    for s in &quad[1..] {
        if votes(s.label) > votes(best) {
            best = s.label;
        }
    }
    best
}

struct View<'a> {
    camera: &'a Camera,
    paints: Vec<&'a Paint>,
    rows: f32,
    shadow: f32,
    air: Air,
}

impl View<'_> {
    /// Returns the mean color of the samples of a pixel. The texture is evaluated at the center of
    /// the pixel, and only once for samples that match the first.
    fn pixel(&self, quad: &[Sample; 4], x: usize, y: usize) -> [f32; 3] {
        let (sx, sy) = ((x as f32 + 0.5) / self.rows, (y as f32 + 0.5) / self.rows);
        let first = self.shade(quad[0], sx, sy);
        let mut sum = first;
        for (i, &s) in quad.iter().enumerate().skip(1) {
            let color =
                match quad[..i].iter().position(|t| t.paint == s.paint && t.shadow == s.shadow) {
                    Some(0) => first,
                    _ => self.shade(s, sx, sy),
                };
            for c in 0..3 {
                sum[c] += color[c];
            }
        }
        sum.map(|c| 0.25 * c)
    }

    fn shade(&self, sample: Sample, x: f32, y: f32) -> [f32; 3] {
        let Some(paint) = self.paints.get(sample.paint as usize) else { return [0.0; 3] };
        let [u, v, z] = self.camera.unproject(paint.surface, x, y);
        let footprint = self.camera.footprint(paint.surface, z, self.rows);
        let detail = paint.texture.detail(u, v, footprint, paint.salt);
        if paint.surface == Surface::Sky {
            let t = (y / self.camera.horizon).clamp(0.0, 1.0);
            return std::array::from_fn(|c| {
                let base = paint.ink[c] + t * (paint.accent[c] - paint.ink[c]);
                let cloud = 0.35 * paint.accent[c] + 0.65;
                base + detail.accent * (cloud - base)
            });
        }
        let light = detail.gain * if sample.shadow { self.shadow } else { 1.0 };
        let haze = self.air.density * z / (z + 40.0);
        std::array::from_fn(|c| {
            let base = paint.ink[c] * light;
            let seen = base + detail.accent * (paint.accent[c] - base);
            seen + haze * (self.air.color[c] - seen)
        })
    }
}
