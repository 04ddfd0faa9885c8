//! The camera, and the list of shapes from which a scene is painted back to front.

use super::look::{Look, Material};
use super::texture::Texture;

/// Focal length, relative to the image height.
const FOCAL: f32 = 1.1;
/// Near plane in meters.
const NEAR: f32 = 0.8;

/// A level pinhole camera. Screen coordinates are relative to the image height: x from 0 to
/// `aspect`, y down from 0 to 1. World coordinates are in meters: x right from the middle of the
/// road, y up, z ahead.
#[derive(Clone, Copy, Debug)]
pub struct Camera {
    pub aspect: f32,
    pub center: f32,
    pub horizon: f32,
    pub x: f32,
    pub height: f32,
}

impl Camera {
    pub fn project(&self, [x, y, z]: [f32; 3]) -> [f32; 2] {
        let s = FOCAL / z.max(NEAR);
        [self.center + (x - self.x) * s, self.horizon + (self.height - y) * s]
    }

    /// Returns the smallest depth at which a point `x` at the roadside is inside the image by
    /// `margin` meters.
    pub fn visible_from(&self, x: f32, margin: f32) -> f32 {
        let room = if x > self.x { self.aspect - self.center } else { self.center };
        FOCAL * ((x - self.x).abs() + margin) / room
    }

    /// Projects a screen point onto a surface. Returns two surface coordinates in meters (screen
    /// coordinates for the sky) and the depth.
    pub fn unproject(&self, surface: Surface, x: f32, y: f32) -> [f32; 3] {
        match surface {
            Surface::Sky => [x, y, 1e4],
            Surface::Ground => {
                let z = FOCAL * self.height / (y - self.horizon).max(1e-3);
                [(x - self.center) * z / FOCAL + self.x, z, z]
            }
            Surface::Side { x: plane } => {
                let along = (x - self.center).abs().max(1e-3);
                let z = FOCAL * (plane - self.x).abs() / along;
                [z, self.height - (y - self.horizon) * z / FOCAL, z]
            }
            Surface::Front { x: origin, z } => {
                let u = (x - self.center) * z / FOCAL + self.x - origin;
                [u, self.height - (y - self.horizon) * z / FOCAL, z]
            }
        }
    }

    /// Returns the extent in meters of a pixel on a surface at depth `z`, in the direction of the
    /// largest extent.
    pub fn footprint(&self, surface: Surface, z: f32, rows: f32) -> f32 {
        let facing = z / (FOCAL * rows);
        match surface {
            Surface::Sky => 1.0 / rows,
            Surface::Ground => facing * (0.5 * z / self.height).max(1.0),
            Surface::Side { x } => facing * (0.5 * z / (x - self.x).abs().max(0.1)).max(1.0),
            Surface::Front { .. } => facing,
        }
    }
}

/// The plane that contains a shape. It determines the texture coordinates and the depth for haze.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Surface {
    Sky,
    Ground,
    /// Parallel to the road.
    Side {
        x: f32,
    },
    /// Facing the camera; the texture starts at `x`.
    Front {
        x: f32,
        z: f32,
    },
}

/// An outline on the screen, relative to the image height.
#[derive(Clone, Debug)]
pub enum Shape {
    Polygon(Vec<[f32; 2]>),
    /// Center, outer radius, and radius of the hole (0 for a disk).
    Ring([f32; 2], f32, f32),
}

/// Effect of a shape on the image and on the label map.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    /// Paint and label.
    Solid(Paint, u8),
    /// Label only: pixels visible through a fence or a wheel are labeled as the fence or the wheel.
    Label(u8),
    /// Darkens everything painted so far.
    Shadow,
}

#[derive(Clone, Copy, Debug)]
pub struct Paint {
    pub ink: [f32; 3],
    /// Second color of the texture: window glass, or the color of the sky at the horizon.
    pub accent: [f32; 3],
    pub texture: Texture,
    pub surface: Surface,
    pub salt: u32,
}

#[derive(Clone, Debug)]
pub struct Prim {
    pub shape: Shape,
    pub mark: Mark,
}

/// Collects the shapes of a scene.
pub struct Stage<'a> {
    pub look: &'a Look,
    pub camera: Camera,
    /// Direction of the sun: -1 left, 1 right.
    pub sun: f32,
    pub prims: Vec<Prim>,
}

/// Material, variant, label and illumination of a shape.
#[derive(Clone, Copy, Debug)]
pub struct Stuff {
    pub material: Material,
    pub variant: usize,
    pub label: u8,
    pub light: f32,
}

impl Stuff {
    pub fn new(material: Material, variant: usize, label: u8) -> Self {
        Stuff { material, variant, label, light: 1.0 }
    }

    pub fn lit(self, light: f32) -> Self {
        Stuff { light: self.light * light, ..self }
    }
}

impl<'a> Stage<'a> {
    pub fn put(&mut self, shape: Shape, surface: Surface, stuff: Stuff) {
        let Stuff { material, variant, label, light } = stuff;
        let accent = match material {
            Material::Sky => self.look.ink(material, variant + 1),
            _ => self.look.ink(Material::Glass, 0),
        };
        let ink = self.look.ink(material, variant).map(|c| (c * light).min(1.0));
        let paint = Paint {
            ink,
            accent,
            texture: self.look.texture(material),
            surface,
            salt: (material as u32) << 8 ^ variant as u32,
        };
        self.prims.push(Prim { shape, mark: Mark::Solid(paint, label) });
    }

    /// Returns the light on a side face whose normal points left (-1) or right (1).
    pub fn side_light(&self, normal: f32) -> f32 {
        if normal * self.sun > 0.0 { 1.0 } else { self.look.dark_side() }
    }

    pub fn front_light(&self) -> f32 {
        0.5 + 0.5 * self.look.dark_side()
    }

    fn polygon(&self, points: impl IntoIterator<Item = [f32; 3]>) -> Shape {
        Shape::Polygon(points.into_iter().map(|p| self.camera.project(p)).collect())
    }

    /// Adds a rectangle on the ground.
    pub fn ground(&mut self, x: [f32; 2], z: [f32; 2], stuff: Stuff) {
        let shape = self.ground_shape(x, z);
        self.put(shape, Surface::Ground, stuff);
    }

    pub fn ground_shadow(&mut self, x: [f32; 2], z: [f32; 2]) {
        let shape = self.ground_shape(x, z);
        self.prims.push(Prim { shape, mark: Mark::Shadow });
    }

    /// Adds the shadow of an object `width` wide and `height` tall, pointing away from the sun.
    pub fn cast_shadow(&mut self, x: f32, z: f32, width: f32, depth: f32, height: f32) {
        let (h, throw) = (0.5 * width, -self.sun * height * 0.75);
        let outline = [
            [x - h, z],
            [x + h, z],
            [x + h + throw, z + 0.35 * height],
            [x + h + throw, z + 0.35 * height + depth],
            [x - h + throw, z + 0.35 * height + depth],
            [x - h, z + depth],
        ];
        let shape = self.polygon(outline.map(|[x, z]| [x, 0.0, z]));
        self.prims.push(Prim { shape, mark: Mark::Shadow });
    }

    fn ground_shape(&self, x: [f32; 2], z: [f32; 2]) -> Shape {
        let corners = [[x[0], z[0]], [x[1], z[0]], [x[1], z[1]], [x[0], z[1]]];
        self.polygon(corners.map(|[x, z]| [x, 0.0, z]))
    }

    /// Adds an outline in the plane `x`, parallel to the road, given as (z, y) corners.
    pub fn side(&mut self, x: f32, corners: &[[f32; 2]], stuff: Stuff) {
        let shape = self.polygon(corners.iter().map(|&[z, y]| [x, y, z]));
        self.put(shape, Surface::Side { x }, stuff);
    }

    pub fn side_rect(&mut self, x: f32, z: [f32; 2], y: [f32; 2], stuff: Stuff) {
        self.side(x, &rectangle(z, y), stuff);
    }

    /// Adds only the label of a rectangle in the plane `x`.
    pub fn side_label(&mut self, x: f32, z: [f32; 2], y: [f32; 2], label: u8) {
        let shape = self.polygon(rectangle(z, y).map(|[z, y]| [x, y, z]));
        self.prims.push(Prim { shape, mark: Mark::Label(label) });
    }

    /// Adds a rectangle that faces the camera.
    pub fn front_rect(&mut self, z: f32, x: [f32; 2], y: [f32; 2], stuff: Stuff) {
        let shape = self.polygon(rectangle(x, y).map(|[x, y]| [x, y, z]));
        self.put(shape, Surface::Front { x: x[0], z }, stuff);
    }

    /// Returns a board for drawing a flat object at `(x, z)` that faces the camera, mirrored if
    /// `flip` is -1.
    pub fn board(&mut self, x: f32, z: f32, flip: f32, size: f32, label: u8) -> Board<'_, 'a> {
        let light = self.front_light();
        Board { stage: self, x, z, flip, size, label, light }
    }
}

/// Returns the corners of the rectangle `u` × `v`.
fn rectangle(u: [f32; 2], v: [f32; 2]) -> [[f32; 2]; 4] {
    [[u[0], v[0]], [u[1], v[0]], [u[1], v[1]], [u[0], v[1]]]
}

/// Draws in local coordinates, in meters: u to the right (to the left if flipped), v up from the
/// ground.
pub struct Board<'s, 'a> {
    stage: &'s mut Stage<'a>,
    x: f32,
    z: f32,
    flip: f32,
    size: f32,
    pub label: u8,
    pub light: f32,
}

impl Board<'_, '_> {
    fn point(&self, u: f32, v: f32) -> [f32; 2] {
        let [u, v] = [u * self.size * self.flip, v * self.size];
        self.stage.camera.project([self.x + u, v, self.z])
    }

    fn put(&mut self, shape: Shape, material: Material, variant: usize) {
        let surface = Surface::Front { x: self.x, z: self.z };
        let stuff = Stuff { material, variant, label: self.label, light: self.light };
        self.stage.put(shape, surface, stuff);
    }

    pub fn poly(&mut self, corners: &[[f32; 2]], material: Material, variant: usize) {
        let shape = Shape::Polygon(corners.iter().map(|&[u, v]| self.point(u, v)).collect());
        self.put(shape, material, variant);
    }

    pub fn rect(&mut self, u: [f32; 2], v: [f32; 2], material: Material, variant: usize) {
        self.poly(&rectangle(u, v), material, variant);
    }

    /// Draws a thick line.
    pub fn limb(&mut self, a: [f32; 2], b: [f32; 2], width: f32, material: Material, v: usize) {
        let (du, dv) = (b[0] - a[0], b[1] - a[1]);
        let scale = 0.5 * width / (du * du + dv * dv).sqrt().max(1e-6);
        let n = [-dv * scale, du * scale];
        let outline = [
            [a[0] + n[0], a[1] + n[1]],
            [b[0] + n[0], b[1] + n[1]],
            [b[0] - n[0], b[1] - n[1]],
            [a[0] - n[0], a[1] - n[1]],
        ];
        self.poly(&outline, material, v);
    }

    fn radius(&self, r: f32) -> f32 {
        r * self.size * FOCAL / self.z.max(NEAR)
    }

    pub fn disk(&mut self, center: [f32; 2], r: f32, material: Material, variant: usize) {
        let shape = Shape::Ring(self.point(center[0], center[1]), self.radius(r), 0.0);
        self.put(shape, material, variant);
    }

    /// Draws a hoop. Pixels visible through it are labeled as the hoop.
    pub fn hoop(&mut self, center: [f32; 2], r: f32, hole: f32, material: Material) {
        let (center, r, hole) =
            (self.point(center[0], center[1]), self.radius(r), self.radius(hole));
        let mark = Mark::Label(self.label);
        self.stage.prims.push(Prim { shape: Shape::Ring(center, r, 0.0), mark });
        self.put(Shape::Ring(center, r, hole), material, 0);
    }
}

/// Returns an octagon around `(u, v)`, used as a wheel in a side plane.
pub fn octagon(u: f32, v: f32, r: f32) -> [[f32; 2]; 8] {
    let d = r * std::f32::consts::FRAC_1_SQRT_2;
    [[r, 0.0], [d, d], [0.0, r], [-d, d], [-r, 0.0], [-d, -d], [0.0, -r], [d, -d]]
        .map(|[a, b]| [u + a, v + b])
}
