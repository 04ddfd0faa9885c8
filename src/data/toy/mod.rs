//! The toy world: procedurally generated street scenes with all 19 Cityscapes classes, as two
//! domains with a real domain gap, in the formats of GTA, SYNTHIA and Cityscapes. It replaces
//! datasets that require registration, and uses the same code as real data.
//!
//! Both domains share geometry, layout and the frequency of classes. They differ in palette,
//! texture, light, haze and sensor. Every image is a pure function of the seed of the world, the
//! domain, the split and the image number, and no two images share a scene.

mod cast;
mod dice;
mod files;
mod id;
mod look;
mod make;
mod render;
mod sensor;
mod stage;
mod street;
mod texture;
mod vehicles;
mod world;

pub use make::{is_missing, make, make_missing};
pub use world::{Domain, Split, ToyWorld};
