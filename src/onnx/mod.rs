//! The ONNX format: messages of its files, and a builder of graphs.

mod graph;
mod schema;
mod shape;

pub use graph::{Graph, Value, Window};
pub use schema::Model;
pub use shape::Dim;
