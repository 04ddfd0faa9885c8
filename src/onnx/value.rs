//! Tensors of a graph, and the lengths of their axes: numbers where they are known, and otherwise
//! values that the graph computes.

/// A tensor of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its name in the graph.
    pub name: String,
    /// The lengths of its axes, as far as they are known.
    pub shape: Vec<Option<i64>>,
}

/// The length of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Dim {
    /// A number.
    Known(i64),
    /// An int64 tensor of one element.
    Computed(Value),
}
