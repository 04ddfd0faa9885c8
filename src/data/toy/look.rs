//! Look of a domain: colors and textures of every material, and lighting.

use super::texture::{Pattern, Texture, Weave};

/// Material of a surface. Both domains share the materials; only their look differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    Sky,
    Road,
    Marking,
    Kerb,
    Sidewalk,
    Grass,
    Facade,
    Roof,
    Shop,
    Wall,
    Coping,
    Fence,
    Metal,
    LightBox,
    LampRed,
    LampAmber,
    LampGreen,
    SignRim,
    SignFace,
    Leaves,
    Trunk,
    Skin,
    Hair,
    Shirt,
    Trousers,
    RiderSuit,
    RiderLegs,
    Helmet,
    CarBody,
    Glass,
    Tyre,
    Hub,
    TailLamp,
    HeadLamp,
    Chassis,
    TruckBox,
    TruckCab,
    BusBody,
    BusTrim,
    TrainBody,
    TrainStripe,
    MotorBody,
    MotorMetal,
    BikeFrame,
    Bin,
    Hood,
}

type Ink = [u8; 3];

/// Inks of the source and of the far end (one per variant), and the weaves of both.
struct Entry(&'static [Ink], &'static [Ink], Weave, Weave);

const fn weave(pattern: Pattern, scale: f32, depth: f32) -> Weave {
    Weave { pattern, scale, depth }
}

const PLAIN: Weave = weave(Pattern::Plain, 1.0, 0.0);
const GRIME: Weave = weave(Pattern::Mottle, 0.5, 0.22);

fn entry(material: Material) -> Entry {
    use Material as M;
    use Pattern as P;
    match material {
        M::Sky => Entry(
            &[[70, 140, 235], [170, 212, 250]],
            &[[176, 186, 196], [214, 212, 206]],
            weave(P::Clouds, 0.35, 0.9),
            weave(P::Clouds, 0.6, 0.35),
        ),
        M::Road => Entry(
            &[[74, 76, 86], [82, 82, 90], [68, 72, 80]],
            &[[118, 108, 98], [128, 116, 106], [108, 102, 96]],
            weave(P::Speckle, 0.10, 0.12),
            weave(P::Mottle, 0.9, 0.24),
        ),
        M::Marking => Entry(&[[240, 240, 235]], &[[196, 186, 166]], PLAIN, GRIME),
        M::Kerb => Entry(&[[222, 214, 206]], &[[178, 168, 158]], PLAIN, GRIME),
        M::Sidewalk => Entry(
            &[[196, 170, 160], [204, 182, 164], [186, 166, 166]],
            &[[158, 142, 138], [166, 150, 140], [150, 138, 140]],
            weave(P::Tiles, 0.9, 0.22),
            weave(P::Mottle, 0.6, 0.24),
        ),
        M::Grass => Entry(
            &[[168, 176, 58], [182, 170, 66], [156, 178, 70]],
            &[[150, 132, 70], [160, 138, 80], [138, 130, 70]],
            weave(P::Grass, 0.28, 0.30),
            weave(P::Mottle, 0.5, 0.34),
        ),
        M::Facade => Entry(
            &[[206, 124, 82], [228, 202, 150], [176, 92, 80], [214, 168, 120]],
            &[[164, 138, 120], [184, 174, 160], [138, 108, 104], [170, 152, 136]],
            weave(P::Windows, 2.7, 0.95),
            weave(P::Windows, 3.3, 0.75),
        ),
        M::Roof => Entry(
            &[[120, 62, 52], [96, 80, 84]],
            &[[104, 88, 84], [92, 88, 90]],
            weave(P::Tiles, 0.6, 0.2),
            GRIME,
        ),
        M::Shop => Entry(
            &[[70, 52, 70], [84, 60, 44]],
            &[[86, 76, 80], [96, 84, 74]],
            weave(P::Panels, 3.0, 0.6),
            weave(P::Panels, 4.0, 0.45),
        ),
        M::Wall => Entry(
            &[[136, 132, 172], [150, 142, 176]],
            &[[140, 134, 150], [152, 142, 150]],
            weave(P::Bricks, 0.55, 0.34),
            weave(P::Bricks, 0.8, 0.26),
        ),
        M::Coping => Entry(&[[196, 192, 216]], &[[176, 170, 176]], PLAIN, GRIME),
        M::Fence => Entry(
            &[[36, 150, 146], [48, 162, 132]],
            &[[78, 118, 116], [88, 128, 112]],
            PLAIN,
            GRIME,
        ),
        M::Metal => Entry(
            &[[146, 148, 150], [128, 134, 142]],
            &[[112, 112, 110], [98, 102, 106]],
            PLAIN,
            GRIME,
        ),
        M::LightBox => Entry(&[[28, 30, 26]], &[[50, 48, 42]], PLAIN, PLAIN),
        M::LampRed => Entry(&[[255, 40, 30]], &[[226, 84, 62]], PLAIN, PLAIN),
        M::LampAmber => Entry(&[[255, 190, 30]], &[[224, 178, 80]], PLAIN, PLAIN),
        M::LampGreen => Entry(&[[40, 255, 130]], &[[96, 210, 150]], PLAIN, PLAIN),
        M::SignRim => Entry(
            &[[226, 20, 40], [250, 250, 250], [226, 20, 40]],
            &[[184, 64, 70], [206, 204, 198], [184, 64, 70]],
            PLAIN,
            PLAIN,
        ),
        M::SignFace => Entry(
            &[[250, 250, 250], [16, 80, 226], [252, 226, 60]],
            &[[208, 206, 198], [56, 92, 168], [208, 188, 104]],
            PLAIN,
            PLAIN,
        ),
        M::Leaves => Entry(
            &[[34, 128, 42], [48, 146, 40], [26, 110, 50]],
            &[[92, 116, 56], [108, 120, 58], [80, 102, 60]],
            weave(P::Leaves, 0.45, 0.50),
            weave(P::Leaves, 0.75, 0.40),
        ),
        M::Trunk => Entry(&[[98, 66, 40]], &[[84, 72, 60]], PLAIN, GRIME),
        M::Skin => Entry(
            &[[240, 190, 150], [150, 98, 66], [216, 160, 120]],
            &[[206, 172, 150], [132, 100, 82], [188, 152, 130]],
            PLAIN,
            PLAIN,
        ),
        M::Hair => {
            Entry(&[[50, 34, 26], [110, 70, 30]], &[[58, 48, 44], [100, 80, 60]], PLAIN, PLAIN)
        }
        M::Shirt => Entry(
            &[[220, 60, 150], [190, 60, 200], [240, 110, 170], [160, 70, 180]],
            &[[170, 84, 120], [148, 84, 150], [184, 122, 140], [128, 82, 136]],
            PLAIN,
            weave(P::Mottle, 0.25, 0.2),
        ),
        M::Trousers => Entry(
            &[[52, 44, 110], [40, 40, 70], [84, 60, 110]],
            &[[64, 60, 92], [58, 58, 72], [84, 72, 96]],
            PLAIN,
            GRIME,
        ),
        M::RiderSuit => Entry(
            &[[255, 128, 10], [255, 150, 30]],
            &[[206, 130, 70], [212, 146, 84]],
            PLAIN,
            weave(P::Mottle, 0.25, 0.2),
        ),
        M::RiderLegs => {
            Entry(&[[120, 60, 10], [104, 60, 30]], &[[104, 76, 50], [96, 76, 60]], PLAIN, GRIME)
        }
        M::Helmet => Entry(
            &[[255, 240, 70], [250, 250, 240]],
            &[[212, 200, 110], [204, 204, 196]],
            PLAIN,
            PLAIN,
        ),
        M::CarBody => Entry(
            &[
                [206, 30, 36],
                [30, 60, 200],
                [236, 236, 238],
                [44, 46, 60],
                [24, 96, 170],
                [170, 20, 60],
            ],
            &[
                [158, 56, 54],
                [62, 80, 140],
                [192, 188, 182],
                [62, 62, 70],
                [64, 98, 134],
                [132, 52, 66],
            ],
            PLAIN,
            weave(P::Mottle, 0.8, 0.16),
        ),
        M::Glass => Entry(&[[30, 44, 66]], &[[66, 74, 82]], PLAIN, weave(P::Mottle, 0.7, 0.3)),
        M::Tyre => Entry(&[[22, 22, 24]], &[[46, 44, 42]], PLAIN, PLAIN),
        M::Hub => Entry(&[[190, 194, 200]], &[[140, 138, 136]], PLAIN, PLAIN),
        M::TailLamp => Entry(&[[255, 30, 30]], &[[196, 60, 54]], PLAIN, PLAIN),
        M::HeadLamp => Entry(&[[255, 252, 210]], &[[222, 214, 186]], PLAIN, PLAIN),
        M::Chassis => Entry(&[[40, 40, 44]], &[[58, 56, 54]], PLAIN, GRIME),
        M::TruckBox => Entry(
            &[[232, 240, 244], [206, 226, 238]],
            &[[190, 190, 186], [172, 182, 186]],
            weave(P::Panels, 0.9, 0.22),
            weave(P::Panels, 1.3, 0.20),
        ),
        M::TruckCab => {
            Entry(&[[20, 150, 90], [20, 120, 200]], &[[66, 124, 100], [66, 110, 148]], PLAIN, GRIME)
        }
        M::BusBody => Entry(
            &[[252, 200, 30], [248, 184, 20]],
            &[[208, 168, 84], [204, 156, 76]],
            PLAIN,
            weave(P::Mottle, 0.9, 0.16),
        ),
        M::BusTrim => Entry(&[[190, 110, 10]], &[[160, 110, 60]], PLAIN, PLAIN),
        M::TrainBody => Entry(
            &[[150, 226, 214], [130, 216, 220]],
            &[[142, 182, 172], [132, 172, 172]],
            PLAIN,
            weave(P::Mottle, 0.9, 0.16),
        ),
        M::TrainStripe => Entry(&[[130, 20, 140]], &[[112, 58, 112]], PLAIN, PLAIN),
        M::MotorBody => {
            Entry(&[[120, 250, 20], [90, 230, 40]], &[[130, 192, 74], [112, 178, 84]], PLAIN, PLAIN)
        }
        M::MotorMetal => Entry(&[[70, 72, 80]], &[[78, 76, 78]], PLAIN, GRIME),
        M::BikeFrame => Entry(
            &[[20, 226, 250], [60, 240, 240]],
            &[[84, 176, 190], [100, 184, 184]],
            PLAIN,
            PLAIN,
        ),
        M::Bin => Entry(&[[60, 60, 66]], &[[72, 70, 66]], weave(P::Panels, 0.3, 0.4), GRIME),
        M::Hood => Entry(&[[20, 20, 24]], &[[40, 40, 42]], PLAIN, weave(P::Mottle, 0.2, 0.2)),
    }
}

/// Look of one domain at one strength of the domain gap.
#[derive(Clone, Debug)]
pub struct Look {
    /// Position between the source (0) and the far end of the tables (1). The target uses half of
    /// `ToyWorld::gap`: at the far end, a network trained on the source alone recognizes nothing,
    /// which leaves no pseudo-labels to start from.
    pub gap: f32,
}

impl Look {
    /// Returns the color of a variant of a material, each channel in `0..1`. Variant numbers wrap
    /// around.
    pub fn ink(&self, material: Material, variant: usize) -> [f32; 3] {
        let Entry(source, target, ..) = entry(material);
        let (s, t) = (source[variant % source.len()], target[variant % target.len()]);
        std::array::from_fn(|c| {
            let (s, t) = (f32::from(s[c]), f32::from(t[c]));
            ((s + self.gap * (t - s)) / 255.0).clamp(0.0, 1.0)
        })
    }

    pub fn texture(&self, material: Material) -> Texture {
        let Entry(_, _, source, target) = entry(material);
        Texture::blend(source, target, self.gap)
    }

    /// Returns the fraction of light in a cast shadow.
    pub fn shadow(&self) -> f32 {
        self.between(0.55, 0.84)
    }

    /// Returns the fraction of light on faces that point away from the sun.
    pub fn dark_side(&self) -> f32 {
        self.between(0.62, 0.86)
    }

    /// Interpolates from the value of the source to that of the far end.
    pub fn between(&self, source: f32, target: f32) -> f32 {
        source + self.gap * (target - source)
    }
}
