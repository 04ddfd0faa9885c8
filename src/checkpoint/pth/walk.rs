//! Converts the values of a pickle to named tensors and the tree around them.

use std::collections::HashSet;
use std::ops::Range;

use super::contents::{Contents, PthTensor};
use super::node::{MAX_DEPTH, Node, too_deep};
use super::pickle::{MAX_TENSORS, MAX_VALUES, Pickle};
use super::value::{Foreign, Id, Outcome, Storage, Tensor, Value};

/// Maximum size of all names and copied texts together, in bytes.
const MAX_NAMES: usize = 32 << 20;
const MAX_KEY: usize = 1024;
/// How many times the size of the file its tensors may have together. Tied weights are stored once
/// and listed a few times; a file that lists one storage thousands of times would fill the disk
/// that it is converted to.
const MAX_SHARING: usize = 8;
/// Keys of a checkpoint's state dict, which are not part of its tensors' names.
const STATE_DICTS: [&str; 2] = ["state_dict", "model"];

struct Walk<'a, F> {
    pickle: &'a Pickle,
    file_len: usize,
    /// Returns the byte range of a storage in the file.
    place: F,
    contents: Contents,
    names: HashSet<String>,
    name_bytes: usize,
    /// Size of all tensors together in bytes, with shared elements counted for each.
    tensor_bytes: usize,
    /// Number of values visited, counting repeated visits, so that sharing cannot multiply the
    /// work.
    met: usize,
    /// The key of the state dict in the root, unless the root is the state dict itself.
    state_dict: Option<&'static str>,
}

/// Converts a pickle. `place` returns the byte range of a storage in the file.
pub fn walk(
    pickle: &Pickle,
    file_len: usize,
    place: impl Fn(&Storage) -> Outcome<Range<usize>>,
) -> Outcome<Contents> {
    let contents = Contents {
        tensors: Vec::new(),
        tree: Node::None,
        skipped: Vec::new(),
        checksums: Vec::new(),
    };
    let mut walk = Walk {
        pickle,
        file_len,
        place,
        contents,
        names: HashSet::new(),
        name_bytes: 0,
        tensor_bytes: 0,
        met: 0,
        state_dict: state_dict(pickle),
    };
    for &dropped in &pickle.dropped {
        walk.refuse_tensors(dropped, "attributes of an object", 0)?;
    }
    if let Value::Foreign(foreign) = pickle.value(pickle.root) {
        let class = pickle.name(foreign.global);
        let hint = "save its state_dict() instead";
        return Err(format!("is an object of `{class}`, which was not executed: {hint}"));
    }
    walk.contents.tree = walk.node(pickle.root, &mut Vec::new())?;
    if walk.contents.tensors.is_empty() {
        return Err(match walk.contents.skipped.first() {
            None => "holds no tensors".into(),
            Some((at, class)) => {
                format!("holds no tensors: at {at} is a `{class}`, which was not executed")
            }
        });
    }
    Ok(walk.contents)
}

impl<F: Fn(&Storage) -> Outcome<Range<usize>>> Walk<'_, F> {
    fn meet(&mut self, depth: usize) -> Outcome<()> {
        self.met += 1;
        if self.met > MAX_VALUES {
            return Err("refers to the same values over and over".into());
        }
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        Ok(())
    }

    fn node(&mut self, id: Id, path: &mut Vec<String>) -> Outcome<Node> {
        self.meet(path.len())?;
        let pickle = self.pickle;
        Ok(match pickle.value(id) {
            Value::None => Node::None,
            Value::Bool(value) => Node::Bool(*value),
            Value::Int(value) => Node::Int(*value),
            Value::Float(value) => Node::Float(*value),
            Value::Text(text) => self.text(text)?,
            Value::BigInt(_) => self.skip("a large number", path)?,
            Value::Bytes(_) => self.skip("bytes", path)?,
            Value::Global(name) => self.skip(name, path)?,
            Value::Storage(_) => {
                return Err(format!("there is a storage without a tensor at {}", at(path)));
            }
            Value::Foreign(foreign) => self.foreign(foreign, path)?,
            Value::Tensor(tensor) => Node::Tensor(self.tensor(tensor, path)?),
            Value::List(items) => Node::List(self.items(items, path)?),
            Value::Tuple(items) => Node::Tuple(self.items(items, path)?),
            Value::Dict(dict) => {
                self.refuse_foreign_among_tensors(&dict.items, path)?;
                let mut items = Vec::with_capacity(dict.items.len());
                for &(key, value) in &dict.items {
                    // A key is as deep as its value: a dictionary can be its own key.
                    path.push(String::new());
                    let inside = self.node(key, path);
                    path.pop();
                    let key = inside?;
                    path.push(match &key {
                        Node::Text(text) if text.len() > MAX_KEY => {
                            return Err(format!("has a key of more than {MAX_KEY} bytes"));
                        }
                        Node::Text(text) => text.clone(),
                        Node::Int(number) => number.to_string(),
                        _ => "?".into(),
                    });
                    let value = self.node(value, path);
                    path.pop();
                    items.push((key, value?));
                }
                if dict.ordered { Node::Ordered(items) } else { Node::Dict(items) }
            }
        })
    }

    fn items(&mut self, items: &[Id], path: &mut Vec<String>) -> Outcome<Vec<Node>> {
        let mut nodes = Vec::with_capacity(items.len());
        for (index, &item) in items.iter().enumerate() {
            path.push(index.to_string());
            let node = self.node(item, path);
            path.pop();
            nodes.push(node?);
        }
        Ok(nodes)
    }

    /// Copies a text. The size is limited, because a hostile file could refer to one text many
    /// times.
    fn text(&mut self, text: &str) -> Outcome<Node> {
        self.charge(text.len())?;
        Ok(Node::text(text))
    }

    fn charge(&mut self, bytes: usize) -> Outcome<()> {
        self.name_bytes += bytes;
        if self.name_bytes > MAX_NAMES {
            return Err(format!("its names take up more than {} MiB", MAX_NAMES >> 20));
        }
        Ok(())
    }

    /// Counts a tensor of so many bytes, and fails if shared storages multiply the file.
    fn share(&mut self, bytes: usize) -> Outcome<()> {
        self.tensor_bytes = self.tensor_bytes.saturating_add(bytes);
        if self.tensor_bytes > MAX_SHARING.saturating_mul(self.file_len) {
            return Err(format!(
                "its tensors share storages so often that they take up more than {MAX_SHARING} \
                 times the file: save clones of the tensors that are needed"
            ));
        }
        Ok(())
    }

    fn skip(&mut self, class: &str, path: &[String]) -> Outcome<Node> {
        let at = at(path);
        self.charge(2 * class.len() + at.len())?;
        self.contents.skipped.push((at, class.into()));
        Ok(Node::Skipped(class.into()))
    }

    fn foreign(&mut self, foreign: &Foreign, path: &[String]) -> Outcome<Node> {
        let class = self.pickle.name(foreign.global);
        for &given in &foreign.given {
            self.refuse_tensors(given, class, path.len())?;
        }
        self.skip(class, path)
    }

    /// Fails if the value contains tensors, which only the unknown `class` could interpret.
    fn refuse_tensors(&mut self, id: Id, class: &str, depth: usize) -> Outcome<()> {
        self.meet(depth)?;
        let pickle = self.pickle;
        let given = match pickle.value(id) {
            Value::Tensor(_) | Value::Storage(_) => {
                return Err(format!(
                    "has tensors inside `{class}`, which was not executed: save a state_dict() \
                     instead"
                ));
            }
            Value::List(items) | Value::Tuple(items) => items,
            Value::Foreign(foreign) => &foreign.given,
            Value::Dict(dict) => {
                for &(key, value) in &dict.items {
                    self.refuse_tensors(key, class, depth + 1)?;
                    self.refuse_tensors(value, class, depth + 1)?;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        for &item in given {
            self.refuse_tensors(item, class, depth + 1)?;
        }
        Ok(())
    }

    /// Fails if a dictionary with tensors also holds an object of an unknown class, since that was
    /// probably a tensor too.
    fn refuse_foreign_among_tensors(&self, items: &[(Id, Id)], path: &[String]) -> Outcome<()> {
        let value = |item: &(Id, Id)| self.pickle.value(item.1);
        if !items.iter().any(|item| matches!(value(item), Value::Tensor(_))) {
            return Ok(());
        }
        let foreign = items.iter().find_map(|item| match value(item) {
            Value::Foreign(foreign) => Some((item.0, self.pickle.name(foreign.global))),
            _ => None,
        });
        let Some((key, class)) = foreign else { return Ok(()) };
        let key = match self.pickle.value(key) {
            Value::Text(text) => text,
            _ => "?",
        };
        let at = if path.is_empty() { key.into() } else { format!("{}.{key}", at(path)) };
        Err(format!("its `{at}`, among tensors, is built by `{class}`, which was not executed"))
    }

    fn tensor(&mut self, tensor: &Tensor, path: &[String]) -> Outcome<String> {
        let path = match path.split_first() {
            Some((first, rest)) if !rest.is_empty() && Some(first.as_str()) == self.state_dict => {
                rest
            }
            _ => path,
        };
        let name = at(path);
        // The name is copied to the list of tensors, the set and the tree.
        self.charge(3 * name.len())?;
        let whole = (self.place)(&tensor.storage)?;
        let size = tensor.storage.dtype.bitsize() / 8;
        let place = checked(tensor, &whole, size, self.file_len)
            .map_err(|problem| format!("tensor `{name}` {problem}"))?;
        self.share(tensor.shape.iter().product::<usize>() * size)?;
        if !self.names.insert(name.clone()) {
            return Err(format!("holds two tensors named `{name}`"));
        }
        if self.contents.tensors.len() >= MAX_TENSORS {
            return Err(format!("holds more than {MAX_TENSORS} tensors"));
        }
        self.contents.tensors.push(PthTensor {
            name: name.clone(),
            dtype: tensor.storage.dtype,
            shape: tensor.shape.clone(),
            strides: tensor.strides.clone(),
            place,
        });
        Ok(name)
    }
}

fn state_dict(pickle: &Pickle) -> Option<&'static str> {
    let Value::Dict(root) = pickle.value(pickle.root) else { return None };
    STATE_DICTS.into_iter().find(|wanted| {
        root.items.iter().any(|(key, value)| {
            matches!(pickle.value(*key), Value::Text(key) if key.as_ref() == *wanted)
                && matches!(pickle.value(*value), Value::Dict(_))
        })
    })
}

fn at(path: &[String]) -> String {
    if path.is_empty() { "the top".into() } else { path.join(".") }
}

/// Checks that a tensor lies within its storage and returns the byte range from its first element
/// to the end of the storage.
fn checked(
    tensor: &Tensor,
    whole: &Range<usize>,
    size: usize,
    file_len: usize,
) -> Outcome<Range<usize>> {
    let Storage { elements, first, .. } = tensor.storage;
    let bytes = |elements: usize| elements.checked_mul(size);
    let storage = first.checked_add(elements).and_then(bytes);
    if storage.is_none_or(|end| end > whole.len()) {
        let (held, said) = (whole.len() / size, elements);
        return Err(format!("needs a storage of {said} numbers, but only {held} are present"));
    }
    let numbers = tensor.shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    let start = whole.start + first * size;
    if numbers == Some(0) {
        return Ok(start..start);
    }
    // A stride of 0 repeats an element, but a tensor may not be larger than the file.
    if numbers.and_then(bytes).is_none_or(|n| n > file_len) {
        return Err(format!("has shape {:?}, which is more than the file holds", tensor.shape));
    }
    let axes = tensor.shape.iter().zip(&tensor.strides);
    let last = axes.into_iter().try_fold(tensor.offset, |last, (&side, &stride)| {
        last.checked_add((side - 1).checked_mul(stride)?)
    });
    if last.is_none_or(|last| last >= elements) {
        return Err("extends beyond its storage".into());
    }
    Ok(start + tensor.offset * size..start + elements * size)
}
