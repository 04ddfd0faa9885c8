//! The toy world: procedural street scenes in all 19 Cityscapes classes, as two domains with a
//! real gap, in the formats of GTA, SYNTHIA and Cityscapes. It stands in for data sets that one has to ask
//! for: everything after it is the code that real data takes.
//!
//! Both domains share geometry, layout and the mixture of classes; they differ in palette,
//! texture, light, air and sensor. Every picture is a pure function of the world's seed, the
//! domain, the split and the picture's number, and no two share a scene.

mod cast;
mod dice;
mod files;
mod id;
mod look;
mod render;
mod sensor;
mod stage;
mod street;
mod texture;
mod vehicles;
mod world;

pub use world::{Domain, Split, ToyWorld};
