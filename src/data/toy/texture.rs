//! Procedural surface texture, parameterized in meters so that it looks the same at any image size.

use super::dice::lattice;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Plain,
    /// Fine grain.
    Speckle,
    /// Large stains.
    Mottle,
    /// Square slabs with dark joints.
    Tiles,
    Bricks,
    /// A grid of windows.
    Windows,
    /// Clumps of light and dark foliage.
    Leaves,
    /// Upright blades of grass.
    Grass,
    /// Vertical seams.
    Panels,
    Clouds,
}

/// A pattern with its period in meters and its strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weave {
    pub pattern: Pattern,
    pub scale: f32,
    pub depth: f32,
}

/// One or two superimposed weaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Texture {
    weaves: [Weave; 2],
}

/// Effect of a texture on an ink: the ink is multiplied by `gain` and then blended by `accent`
/// towards a second color (window glass, cloud white).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detail {
    pub gain: f32,
    pub accent: f32,
}

impl Texture {
    /// Interpolates from `source` to `target` by `gap` (0 to 1). A weave of zero weight is not
    /// evaluated.
    pub fn blend(source: Weave, target: Weave, gap: f32) -> Texture {
        let same = source.pattern == target.pattern;
        let mut weaves = [source, target];
        if same {
            // Interpolate the parameters, which gives one grid of windows rather than two that
            // overlap.
            let lerp = |a: f32, b: f32| a + gap * (b - a);
            weaves[0].scale = lerp(source.scale, target.scale);
            weaves[0].depth = lerp(source.depth, target.depth);
            weaves[1].depth = 0.0;
        } else {
            weaves[0].depth *= 1.0 - gap;
            weaves[1].depth *= gap;
        }
        Texture { weaves }
    }

    /// Returns the detail at `(u, v)` in meters. `footprint` is the size of a pixel there: finer
    /// structure fades to its mean, as in a photograph.
    pub fn detail(&self, u: f32, v: f32, footprint: f32, salt: u32) -> Detail {
        let mut detail = Detail { gain: 1.0, accent: 0.0 };
        for weave in &self.weaves {
            let depth = weave.depth * fade(weave.scale, footprint);
            if depth > 0.0 {
                let d = weave.pattern.at(u / weave.scale, v / weave.scale, depth, salt);
                detail.gain *= d.gain;
                detail.accent = detail.accent.max(d.accent);
            }
        }
        detail
    }
}

/// Returns 1 where the period spans many pixels, and 0 below about two pixels.
fn fade(scale: f32, footprint: f32) -> f32 {
    (scale / footprint.max(1e-6) * 0.5 - 0.6).clamp(0.0, 1.0)
}

/// Returns value noise in `0..1` with period 1.
fn noise(x: f32, y: f32, salt: u32) -> f32 {
    let (xf, yf) = (x.floor(), y.floor());
    let (xi, yi) = (xf as i32, yf as i32);
    let (tx, ty) = (smooth(x - xf), smooth(y - yf));
    let row = |j: i32| {
        let (a, b) = (lattice(xi, j, salt), lattice(xi.wrapping_add(1), j, salt));
        a + (b - a) * tx
    };
    let (a, b) = (row(yi), row(yi.wrapping_add(1)));
    a + (b - a) * ty
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

fn frac(x: f32) -> f32 {
    x - x.floor()
}

impl Pattern {
    /// Returns the detail at (`x`, `y`), measured in periods of the pattern.
    fn at(self, x: f32, y: f32, depth: f32, salt: u32) -> Detail {
        let gain = |amount: f32| Detail { gain: 1.0 + depth * amount, accent: 0.0 };
        match self {
            Pattern::Plain => gain(0.0),
            Pattern::Speckle => gain(2.0 * lattice(x.floor() as i32, y.floor() as i32, salt) - 1.0),
            Pattern::Mottle => {
                let n = 0.65 * noise(x, y, salt) + 0.35 * noise(x * 2.7, y * 2.7, salt ^ 7);
                gain(2.0 * n - 1.0)
            }
            Pattern::Tiles => {
                let joint = frac(x) < 0.10 || frac(y) < 0.10;
                let tone = lattice(x.floor() as i32, y.floor() as i32, salt) - 0.5;
                gain(if joint { -1.0 } else { 0.2 + 0.5 * tone })
            }
            Pattern::Bricks => {
                let row = (y * 2.0).floor();
                let shifted = x + 0.5 * frac(row * 0.5) * 2.0;
                let joint = frac(shifted) < 0.10 || frac(y * 2.0) < 0.18;
                let tone = lattice(shifted.floor() as i32, row as i32, salt) - 0.5;
                gain(if joint { -1.0 } else { 0.2 + 0.8 * tone })
            }
            Pattern::Windows => {
                let (fx, fy) = (frac(x), frac(y));
                let frame = (0.22..0.78).contains(&fx) && (0.25..0.80).contains(&fy);
                let pane = (0.26..0.74).contains(&fx)
                    && (0.29..0.76).contains(&fy)
                    && (fx - 0.5).abs() > 0.02;
                let tone = lattice(x.floor() as i32, y.floor() as i32, salt);
                if pane {
                    Detail { gain: 1.0, accent: depth * (0.6 + 0.4 * tone) }
                } else if frame {
                    gain(0.25)
                } else {
                    gain(0.06 * (2.0 * noise(x * 3.0, y * 3.0, salt) - 1.0))
                }
            }
            Pattern::Leaves => {
                let n = 0.55 * noise(x, y, salt) + 0.45 * noise(x * 2.3, y * 2.3, salt ^ 3);
                gain(if n > 0.5 { 0.9 * n - 0.1 } else { 1.6 * n - 1.1 })
            }
            Pattern::Grass => {
                gain(2.0 * (0.6 * noise(x * 2.0, y * 0.7, salt) + 0.4 * noise(x, y, salt)) - 1.0)
            }
            Pattern::Panels => {
                let tone = lattice(x.floor() as i32, 0, salt) - 0.5;
                gain(if frac(x) < 0.12 { -1.0 } else { 0.25 * tone })
            }
            Pattern::Clouds => {
                let n = 0.6 * noise(x, y * 2.6, salt)
                    + 0.28 * noise(x * 2.1, y * 5.2, salt ^ 1)
                    + 0.12 * noise(x * 4.7, y * 11.0, salt ^ 2);
                Detail { gain: 1.0, accent: depth * ((n - 0.5) * 5.0).clamp(0.0, 1.0) }
            }
        }
    }
}
