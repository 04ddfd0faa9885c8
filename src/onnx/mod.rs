//! The ONNX format: messages of its files, and a builder of graphs.

mod graph;
mod schema;
mod shape;
mod value;

pub use graph::{Graph, Window};
pub use schema::Model;
pub use value::{Dim, Value};
