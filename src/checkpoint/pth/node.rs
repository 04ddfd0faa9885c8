//! The tree in a torch file around the elements of its tensors: nested dictionaries, lists and
//! scalars.
//!
//! A safetensors file converted from a torch file keeps this tree as JSON, so that converting back
//! is exact.

use serde_json::{Value as Json, json};

use super::value::Outcome;

/// Maximum depth of a tree, which holds for reading and writing alike. As JSON, each level takes up
/// to three, and the reader of JSON goes 127 deep.
pub const MAX_DEPTH: usize = 41;

/// Describes a file whose tree exceeds [`MAX_DEPTH`].
pub(super) fn too_deep() -> String {
    format!("is nested more than {MAX_DEPTH} deep")
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Python's `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A tuple.
    Tuple(Vec<Node>),
    /// A dictionary, as key-value pairs in order.
    Dict(Vec<(Node, Node)>),
    /// An `OrderedDict`, the type of state dicts.
    Ordered(Vec<(Node, Node)>),
    /// The tensor with this name.
    Tensor(String),
    /// Metadata of the unknown class with this name; written as `None`.
    Skipped(String),
}

impl Node {
    /// Returns the value of a key if this is a dictionary.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let (Node::Dict(items) | Node::Ordered(items)) = self else { return None };
        let found = items.iter().find(|(k, _)| matches!(k, Node::Text(k) if k == key));
        found.map(|(_, value)| value)
    }

    /// Returns the first value if this is a dictionary.
    pub fn first(&self) -> Option<&Node> {
        let (Node::Dict(items) | Node::Ordered(items)) = self else { return None };
        items.first().map(|(_, value)| value)
    }

    /// Returns whether the tree has values below `levels` levels of containers.
    pub(super) fn is_deeper_than(&self, levels: usize) -> bool {
        let below = |node: &Node| levels == 0 || node.is_deeper_than(levels - 1);
        match self {
            Node::List(items) | Node::Tuple(items) => items.iter().any(below),
            Node::Dict(items) | Node::Ordered(items) => {
                items.iter().any(|(key, value)| below(key) || below(value))
            }
            _ => false,
        }
    }

    /// Calls `see` with the name of each tensor of the tree.
    pub(super) fn each_tensor<'a>(&'a self, see: &mut impl FnMut(&'a str)) {
        match self {
            Node::Tensor(name) => see(name),
            Node::List(items) | Node::Tuple(items) => {
                items.iter().for_each(|item| item.each_tensor(see));
            }
            Node::Dict(items) | Node::Ordered(items) => {
                items.iter().for_each(|(_, value)| value.each_tensor(see));
            }
            _ => {}
        }
    }

    /// Creates a text node.
    pub fn text(text: impl Into<String>) -> Node {
        Node::Text(text.into())
    }

    /// Creates a dictionary with text keys.
    pub fn dict<const N: usize>(items: [(&str, Node); N]) -> Node {
        Node::Dict(items.into_iter().map(|(key, value)| (Node::text(key), value)).collect())
    }

    /// Returns the tree as JSON that [`from_json`](Self::from_json) reads back exactly.
    pub fn to_json(&self) -> Json {
        let list = |items: &[Node]| items.iter().map(Node::to_json).collect::<Vec<_>>();
        let pairs = |items: &[(Node, Node)]| {
            items.iter().map(|(k, v)| json!([k.to_json(), v.to_json()])).collect::<Vec<_>>()
        };
        match self {
            Node::None => Json::Null,
            Node::Bool(value) => json!(value),
            Node::Int(value) => json!(value),
            // Stored as bits, because JSON has no NaN and does not distinguish 1.0 from 1.
            Node::Float(value) => json!({"float": value.to_bits()}),
            Node::Text(text) => json!(text),
            Node::List(items) => json!(list(items)),
            Node::Tuple(items) => json!({"tuple": list(items)}),
            Node::Dict(items) => json!({"dict": pairs(items)}),
            Node::Ordered(items) => json!({"ordered": pairs(items)}),
            Node::Tensor(name) => json!({"tensor": name}),
            Node::Skipped(class) => json!({"skipped": class}),
        }
    }

    /// Reads a tree from the JSON that [`to_json`](Self::to_json) returned.
    ///
    /// # Errors
    /// A message, if the JSON is no such tree or too deep.
    pub fn from_json(json: &Json) -> Outcome<Node> {
        let tree = Node::of_json(json)?;
        if tree.is_deeper_than(MAX_DEPTH) { Err(too_deep()) } else { Ok(tree) }
    }

    fn of_json(json: &Json) -> Outcome<Node> {
        let problem = || "this is not the tree of a PyTorch file".to_owned();
        let list = |json: &Json| {
            json.as_array().ok_or_else(problem)?.iter().map(Node::of_json).collect::<Outcome<_>>()
        };
        let pairs = |json: &Json| {
            let pair = |json: &Json| match json.as_array().map(Vec::as_slice) {
                Some([key, value]) => Ok((Node::of_json(key)?, Node::of_json(value)?)),
                _ => Err(problem()),
            };
            json.as_array().ok_or_else(problem)?.iter().map(pair).collect::<Outcome<_>>()
        };
        let text = |json: &Json| json.as_str().map(String::from).ok_or_else(problem);
        Ok(match json {
            Json::Null => Node::None,
            Json::Bool(value) => Node::Bool(*value),
            Json::Number(number) => Node::Int(number.as_i64().ok_or_else(problem)?),
            Json::String(text) => Node::text(text),
            Json::Array(_) => Node::List(list(json)?),
            Json::Object(object) => match object.iter().next().map(|(k, v)| (k.as_str(), v)) {
                Some(("float", bits)) => {
                    Node::Float(f64::from_bits(bits.as_u64().ok_or_else(problem)?))
                }
                Some(("tuple", items)) => Node::Tuple(list(items)?),
                Some(("dict", items)) => Node::Dict(pairs(items)?),
                Some(("ordered", items)) => Node::Ordered(pairs(items)?),
                Some(("tensor", name)) => Node::Tensor(text(name)?),
                Some(("skipped", class)) => Node::Skipped(text(class)?),
                _ => return Err(problem()),
            },
        })
    }
}
