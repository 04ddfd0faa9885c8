//! A builder of graphs. Maps are B,C,H,W, as ONNX's convolutions want them.

use std::collections::HashMap;
use std::ops::Range;

use super::schema::{
    Attribute, AttributeType, Dimension, DimensionValue, ElementType, GraphProto, Model, Node,
    OperatorSetId, StringStringEntry, TensorProto, TensorShape, TensorType, TypeProto, ValueInfo,
};
use super::value::{Dim, Value};

/// The operator set, the first with LayerNormalization, and the version of the format that it
/// appeared with.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// A convolution's geometry.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Side of the filter.
    pub kernel: usize,
    /// Distance between outputs.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Groups of channels.
    pub groups: usize,
}

/// A graph that grows node by node. Nodes are named after the layer that is current when they are
/// added.
#[derive(Default)]
pub struct Graph {
    proto: GraphProto,
    layer: String,
    /// The number of times that each node name was used.
    used: HashMap<String, usize>,
    /// Values that are made once: by what they are.
    made: HashMap<String, Value>,
}

impl Graph {
    /// Names the following nodes after a layer.
    pub fn within(&mut self, layer: &str) {
        layer.clone_into(&mut self.layer);
    }

    /// Adds an input of f32 numbers; axes without a length are free and have the given names.
    pub fn input(&mut self, name: &str, axes: &[(&str, Option<usize>)], about: &str) -> Value {
        self.proto.input.push(info(name, axes, about));
        let shape = axes.iter().map(|(_, length)| length.map(|n| n as i64)).collect();
        Value { name: name.into(), shape }
    }

    /// Makes `x` an output of this name, with axes as in [`input`](Self::input).
    pub fn output(&mut self, x: &Value, name: &str, axes: &[(&str, Option<usize>)], about: &str) {
        self.proto.output.push(info(name, axes, about));
        let node = Node {
            input: vec![x.name.clone()],
            output: vec![name.into()],
            name: Some(format!("{name}.Identity")),
            op_type: Some("Identity".into()),
            attribute: vec![],
        };
        self.proto.node.push(node);
    }

    /// Returns the graph as a file with the given metadata.
    pub fn finish(self, name: &str, about: &str, metadata: Vec<(String, String)>) -> Model {
        let entry = |(key, value)| StringStringEntry { key: Some(key), value: Some(value) };
        Model {
            ir_version: Some(IR_VERSION),
            producer_name: Some(env!("CARGO_PKG_NAME").into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            doc_string: Some(about.into()),
            graph: Some(GraphProto { name: Some(name.into()), ..self.proto }),
            opset_import: vec![OperatorSetId { domain: Some(String::new()), version: Some(OPSET) }],
            metadata_props: metadata.into_iter().map(entry).collect(),
        }
    }

    /// Adds a constant of this name, unless there is one, and returns it.
    pub fn constant(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> Value {
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let dims = shape.iter().map(|&n| n as i64).collect();
        self.initializer(name, dims, ElementType::Float, bytes)
    }

    /// Returns a constant with one int64 axis.
    pub fn integers(&mut self, numbers: &[i64]) -> Value {
        let name = match numbers {
            [] | [_] | [_, _] | [_, _, _] | [_, _, _, _] => format!("integers{numbers:?}"),
            // Long lists are named by their position.
            _ => format!("integers.{}", self.proto.initializer.len()),
        };
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.initializer(&name, vec![numbers.len() as i64], ElementType::Int64, bytes)
    }

    fn initializer(
        &mut self,
        name: &str,
        dims: Vec<i64>,
        element: ElementType,
        bytes: Vec<u8>,
    ) -> Value {
        let shape = dims.iter().map(|&n| Some(n)).collect();
        let value = Value { name: name.into(), shape };
        if self.made.insert(format!("constant {name}"), value.clone()).is_none() {
            self.proto.initializer.push(TensorProto {
                dims,
                data_type: Some(element as i32),
                name: Some(name.into()),
                raw_data: Some(bytes),
            });
        }
        value
    }

    /// Adds a node with one output.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attribute: Vec<Attribute>,
        shape: Vec<Option<i64>>,
    ) -> Value {
        let name = match self.layer.as_str() {
            "" => op.to_owned(),
            layer => format!("{layer}.{op}"),
        };
        let used = self.used.entry(name.clone()).or_default();
        *used += 1;
        let name = if *used == 1 { name } else { format!("{name}.{used}") };
        self.proto.node.push(Node {
            input: inputs.iter().map(|value| value.name.clone()).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(op.into()),
            attribute,
        });
        Value { name, shape }
    }

    /// Applies an operator without attributes element by element.
    pub fn unary(&mut self, op: &str, x: &Value) -> Value {
        self.node(op, &[x], vec![], x.shape.clone())
    }

    /// Applies an operator to the elements of two tensors, where axes of length 1, and missing ones
    /// in front, are repeated.
    pub fn binary(&mut self, op: &str, a: &Value, b: &Value) -> Value {
        let axes = a.shape.len().max(b.shape.len());
        let length = |x: &Value, axis: usize| match (axis + x.shape.len()).checked_sub(axes) {
            Some(own) => x.shape[own],
            None => Some(1),
        };
        let shape = (0..axes).map(|axis| match (length(a, axis), length(b, axis)) {
            (Some(1), other) | (other, Some(1)) => other,
            (Some(n), _) | (_, Some(n)) => Some(n),
            (None, None) => None,
        });
        let shape = shape.collect();
        self.node(op, &[a, b], vec![], shape)
    }

    /// Convolves a map with filters K,C/groups,R,S.
    pub fn conv(&mut self, x: &Value, filter: &Value, bias: Option<&Value>, w: Window) -> Value {
        let mut inputs = vec![x, filter];
        inputs.extend(bias);
        let side = w.padding as i64;
        let attributes = vec![
            ints("kernel_shape", &[w.kernel as i64; 2]),
            ints("strides", &[w.stride as i64; 2]),
            ints("pads", &[side; 4]),
            ints("dilations", &[w.dilation as i64; 2]),
            int("group", w.groups as i64),
        ];
        let shape = windowed(x, filter.shape[0], w);
        self.node("Conv", &inputs, attributes, shape)
    }

    /// Returns the maximum of each window.
    pub fn max_pool(&mut self, x: &Value, w: Window) -> Value {
        let attributes = vec![
            ints("kernel_shape", &[w.kernel as i64; 2]),
            ints("strides", &[w.stride as i64; 2]),
            ints("pads", &[w.padding as i64; 4]),
        ];
        let shape = windowed(x, x.shape[1], w);
        self.node("MaxPool", &[x], attributes, shape)
    }

    /// Normalizes the channels of a map by constants: scale, bias, mean and variance.
    pub fn batch_norm(&mut self, x: &Value, constants: &[Value; 4], eps: f64) -> Value {
        let inputs: Vec<&Value> = std::iter::once(x).chain(constants).collect();
        self.node("BatchNormalization", &inputs, vec![float("epsilon", eps)], x.shape.clone())
    }

    /// Normalizes the last axis.
    pub fn layer_norm(&mut self, x: &Value, scale: &Value, bias: &Value, eps: f64) -> Value {
        let attributes = vec![int("axis", -1), float("epsilon", eps)];
        self.node("LayerNormalization", &[x, scale, bias], attributes, x.shape.clone())
    }

    /// Multiplies the matrices in the last two axes.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        let longer = if a.shape.len() >= b.shape.len() { &a.shape } else { &b.shape };
        let mut shape = longer.clone();
        let axes = shape.len();
        shape[axes - 2] = a.shape[a.shape.len() - 2];
        shape[axes - 1] = b.shape[b.shape.len() - 1];
        self.node("MatMul", &[a, b], vec![], shape)
    }

    /// Returns the softmax along the last axis.
    pub fn softmax(&mut self, x: &Value) -> Value {
        self.node("Softmax", &[x], vec![int("axis", -1)], x.shape.clone())
    }

    /// Reorders the axes.
    pub fn transpose(&mut self, x: &Value, order: &[usize]) -> Value {
        let shape = order.iter().map(|&axis| x.shape[axis]).collect();
        let order: Vec<i64> = order.iter().map(|&axis| axis as i64).collect();
        self.node("Transpose", &[x], vec![ints("perm", &order)], shape)
    }

    /// Changes the shape. A length of 0 stays the input's, and one of −1 follows from the others.
    pub fn reshape(&mut self, x: &Value, dims: &[Dim]) -> Value {
        let mut shape: Vec<Option<i64>> = (dims.iter().enumerate())
            .map(|(axis, dim)| match dim {
                Dim::Known(0) => x.shape[axis],
                Dim::Known(n) => Some(*n),
                Dim::Computed(_) => None,
            })
            .collect();
        if let Some(rest) = shape.iter().position(|&length| length == Some(-1)) {
            let all = x.shape.iter().copied().product::<Option<i64>>();
            let others = (shape.iter().enumerate())
                .map(|(axis, &length)| if axis == rest { Some(1) } else { length })
                .product::<Option<i64>>();
            shape[rest] = all.zip(others).map(|(all, others)| all / others.max(1));
        }
        let dims = self.dims(dims);
        self.node("Reshape", &[x, &dims], vec![], shape)
    }

    /// Concatenates along an axis.
    pub fn concat(&mut self, parts: &[Value], axis: usize) -> Value {
        let mut shape = parts[0].shape.clone();
        shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
        let inputs: Vec<&Value> = parts.iter().collect();
        self.node("Concat", &inputs, vec![int("axis", axis as i64)], shape)
    }

    /// Takes the elements at the indices, a tensor with one axis, along an axis.
    pub fn gather(&mut self, x: &Value, indices: &Value, axis: usize) -> Value {
        let mut shape = x.shape.clone();
        shape[axis] = indices.shape[0];
        self.node("Gather", &[x, indices], vec![int("axis", axis as i64)], shape)
    }

    /// Takes a range of an axis.
    pub fn slice(&mut self, x: &Value, axis: usize, range: Range<i64>) -> Value {
        let mut shape = x.shape.clone();
        shape[axis] = Some(range.end - range.start);
        let [start, end, axis] = [range.start, range.end, axis as i64].map(|n| self.integers(&[n]));
        self.node("Slice", &[x, &start, &end, &axis], vec![], shape)
    }

    /// Resizes a map bilinearly, with half-pixel centers. Returns `x` if it is known to have the
    /// size.
    pub fn resize(&mut self, x: &Value, size: [Dim; 2]) -> Value {
        let own = [2, 3].map(|axis| x.shape[axis].map(Dim::Known));
        if own == size.clone().map(Some) {
            return x.clone();
        }
        let known = |dim: &Dim| if let Dim::Known(n) = dim { Some(*n) } else { None };
        let mut shape = x.shape.clone();
        (shape[2], shape[3]) = (known(&size[0]), known(&size[1]));
        let [height, width] = size;
        let sizes = [self.dim(x, 0), self.dim(x, 1), height, width];
        let sizes = self.dims(&sizes);
        self.bilinear(x, None, Some(&sizes), shape)
    }

    /// Resizes a map bilinearly by a factor, with half-pixel centers.
    pub fn scale(&mut self, x: &Value, factor: f32) -> Value {
        if factor == 1.0 {
            return x.clone();
        }
        let mut shape = x.shape.clone();
        for length in &mut shape[2..] {
            *length = length.map(|n| (n as f32 * factor) as i64);
        }
        let name = format!("scales.{factor}");
        let scales = self.constant(&name, &[4], &[1.0, 1.0, factor, factor]);
        self.bilinear(x, Some(&scales), None, shape)
    }

    fn bilinear(
        &mut self,
        x: &Value,
        scales: Option<&Value>,
        sizes: Option<&Value>,
        shape: Vec<Option<i64>>,
    ) -> Value {
        let none = Value { name: String::new(), shape: vec![] };
        let mut inputs = vec![x, &none, scales.unwrap_or(&none)];
        inputs.extend(sizes);
        let attributes =
            vec![text("mode", "linear"), text("coordinate_transformation_mode", "half_pixel")];
        self.node("Resize", &inputs, attributes, shape)
    }

    /// Adds axes of length 1 before the given axes of the result.
    pub fn unsqueeze(&mut self, x: &Value, axis: usize) -> Value {
        let mut shape = x.shape.clone();
        shape.insert(axis, Some(1));
        let axes = self.integers(&[axis as i64]);
        self.node("Unsqueeze", &[x, &axes], vec![], shape)
    }

    /// Returns the integers from 0 up to a length.
    pub fn range(&mut self, length: &Dim) -> Value {
        if let Dim::Known(n) = length {
            return self.integers(&(0..*n).collect::<Vec<_>>());
        }
        let end = self.dims(std::slice::from_ref(length));
        let axes = self.integers(&[0]);
        let end = self.node("Squeeze", &[&end, &axes], vec![], vec![]);
        let [start, step] = [0, 1].map(|number: i64| {
            let name = format!("integer {number}");
            self.initializer(&name, vec![], ElementType::Int64, number.to_le_bytes().into())
        });
        self.node("Range", &[&start, &end, &step], vec![], vec![None])
    }

    /// Converts to f32.
    pub fn float(&mut self, x: &Value) -> Value {
        let attributes = vec![int("to", ElementType::Float as i64)];
        self.node("Cast", &[x], attributes, x.shape.clone())
    }

    /// Returns the sums along an axis, which stays with length 1.
    pub fn sum(&mut self, x: &Value, axis: usize) -> Value {
        let mut shape = x.shape.clone();
        shape[axis] = Some(1);
        let axes = self.integers(&[axis as i64]);
        self.node("ReduceSum", &[x, &axes], vec![int("keepdims", 1)], shape)
    }

    /// Returns the length of an axis as computed by the graph.
    pub(super) fn length(&mut self, x: &Value, axis: usize) -> Value {
        let key = format!("length {} {axis}", x.name);
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let shape = self.node("Shape", &[x], vec![], vec![Some(x.shape.len() as i64)]);
        let index = self.integers(&[axis as i64]);
        let length = self.gather(&shape, &index, 0);
        self.made.insert(key, length.clone());
        length
    }
}

/// Returns the shape that a window makes of a map.
fn windowed(x: &Value, channels: Option<i64>, w: Window) -> Vec<Option<i64>> {
    let length = |n: i64| {
        let covered = w.dilation * (w.kernel - 1) + 1;
        (n + 2 * w.padding as i64 - covered as i64) / w.stride as i64 + 1
    };
    vec![x.shape[0], channels, x.shape[2].map(length), x.shape[3].map(length)]
}

fn info(name: &str, axes: &[(&str, Option<usize>)], about: &str) -> ValueInfo {
    let value = |&(name, length): &(&str, Option<usize>)| match length {
        Some(length) => DimensionValue::DimValue(length as i64),
        None => DimensionValue::DimParam(name.into()),
    };
    let dim = axes.iter().map(|axis| Dimension { value: Some(value(axis)) }).collect();
    let tensor =
        TensorType { elem_type: Some(ElementType::Float as i32), shape: Some(TensorShape { dim }) };
    ValueInfo {
        name: Some(name.into()),
        r#type: Some(TypeProto { tensor_type: Some(tensor) }),
        doc_string: Some(about.into()),
    }
}

fn attribute(name: &str, kind: AttributeType) -> Attribute {
    Attribute { name: Some(name.into()), r#type: Some(kind as i32), ..Attribute::default() }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { i: Some(value), ..attribute(name, AttributeType::Int) }
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn float(name: &str, value: f64) -> Attribute {
    Attribute { f: Some(value as f32), ..attribute(name, AttributeType::Float) }
}

fn text(name: &str, value: &str) -> Attribute {
    Attribute { s: Some(value.into()), ..attribute(name, AttributeType::String) }
}
