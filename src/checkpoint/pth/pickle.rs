//! Reads Python's pickle format as data: builds the values that the instructions describe, without
//! calling any function.
//!
//! Values are stored in one arena, so that depth and sharing cost no more than the pickle's own
//! length. Everything that grows has a limit: even a hostile pickle takes at most 512 MiB while it
//! is read. Only the functions that tensors need are known ([`call`](Machine::call)); any other
//! class or function becomes [`Value::Foreign`], which stores its name and arguments.

use std::collections::HashMap;

use super::numpy;
use super::value::{Dict, Foreign, Id, Outcome, Storage, Tensor, Value, dtype};

/// Maximum length of a pickle in bytes; that of a UDASS checkpoint has one or two million.
pub const MAX_BYTES: usize = 32 << 20;
/// Maximum number of values in a pickle, and also on its stack and in its memo. A UDASS checkpoint
/// has 200 000.
pub const MAX_VALUES: usize = 2 << 20;
/// Maximum number of tensors in a pickle.
pub const MAX_TENSORS: usize = 1 << 18;
/// Maximum number of axes of a tensor.
const MAX_AXES: usize = 16;
/// Maximum number of open marks; PyTorch nests about a dozen.
const MAX_MARKS: usize = 1 << 16;
/// Maximum length of the name of a class or storage, in bytes.
const MAX_NAME: usize = 512;

/// The content of one pickle.
pub struct Pickle {
    /// The arena of all values.
    pub values: Vec<Value>,
    /// The value that the pickle describes.
    pub root: Id,
    /// Values that no kept value refers to, such as the attributes of dictionaries and tensors.
    pub dropped: Vec<Id>,
    /// Length in bytes, including the final instruction.
    pub length: usize,
}

impl Pickle {
    /// Returns the value with this id.
    pub fn value(&self, id: Id) -> &Value {
        // The machine only creates ids of values that it has pushed.
        &self.values[id as usize]
    }

    /// Returns the name of a class or function.
    pub fn name(&self, global: Option<Id>) -> &str {
        match global.map(|id| self.value(id)) {
            Some(Value::Global(name)) => name,
            _ => "an unnamed function",
        }
    }
}

/// Reads the pickle at the start of `bytes`.
pub fn read(bytes: &[u8]) -> Outcome<Pickle> {
    let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        dropped: Vec::new(),
        tensors: 0,
        copied: 0,
    };
    let root = machine.run().map_err(|e| format!("at byte {} of a pickle: {e}", machine.at))?;
    Ok(Pickle { values: machine.values, root, dropped: machine.dropped, length: machine.at })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    dropped: Vec<Id>,
    tensors: usize,
    /// Number of items copied from one value to another.
    copied: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Outcome<Id> {
        loop {
            let op = self.byte()?;
            if op == b'.' {
                return self.pop();
            }
            self.step(op)?;
        }
    }

    fn step(&mut self, op: u8) -> Outcome<()> {
        match op {
            // PROTO and FRAME need no action.
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.pop()?;
                self.again(top)?;
                self.again(top)?;
            }
            b'(' if self.marks.len() < MAX_MARKS => self.marks.push(self.stack.len()),
            b'(' => return Err(format!("more than {MAX_MARKS} open brackets")),
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'I' | b'L' => self.decimal()?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))?;
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'F' => {
                let number =
                    self.line()?.trim().parse().map_err(|_| "text that is not a number")?;
                self.push(Value::Float(number))?;
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(number))?;
            }
            b'S' | b'V' => {
                let text = self.line()?;
                let text = if op == b'S' { text.trim_matches(['\'', '"']) } else { text };
                let text = text.into();
                self.push(Value::Text(text))?;
            }
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.blob(1)?,
            b'B' => self.blob(4)?,
            0x8e | 0x96 => self.blob(8)?,
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b'}' => self.push(Value::Dict(Box::default()))?,
            b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Value::List(items))?;
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(op - 0x84));
                let items = self.stack.split_off(self.above_mark(start)?);
                self.push(Value::Tuple(items))?;
            }
            b'd' => {
                let items = pairs(self.since_mark()?)?;
                self.push(Value::Dict(Box::new(Dict { ordered: false, items })))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let items = pairs(self.since_mark()?)?;
                self.set(items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) =
                    (self.value(module).clone(), self.value(name).clone())
                else {
                    return Err("a class without a name".into());
                };
                self.global(&module, &name)?;
            }
            b'R' | 0x81 => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.call(callable, args)?;
            }
            0x92 => {
                let (named, args, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.foreign(callable, vec![args, named])?;
            }
            b'i' => {
                let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                let given = self.since_mark()?;
                self.global(&module, &name)?;
                let callable = self.pop()?;
                self.foreign(callable, given)?;
            }
            b'o' => {
                let mut given = self.since_mark()?;
                if given.is_empty() {
                    return Err("an object without a class".into());
                }
                let callable = given.remove(0);
                self.foreign(callable, given)?;
            }
            b'b' => {
                let (state, object) = (self.pop()?, self.top()?);
                match &mut self.values[object as usize] {
                    Value::Foreign(foreign) => foreign.given.push(state),
                    // Attributes of a dictionary (`_metadata` of a state dict) or of a tensor.
                    _ => self.dropped.push(state),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(Box::new(storage)))?;
            }
            b'g' => {
                let key = self.line()?.parse().map_err(|_| "a memo without a number")?;
                self.get(key)?;
            }
            b'h' => {
                let key = self.byte()?.into();
                self.get(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.get(key)?;
            }
            b'p' => {
                let key = self.line()?.parse().map_err(|_| "a memo without a number")?;
                self.put(key)?;
            }
            b'q' => {
                let key = self.byte()?.into();
                self.put(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.put(key)?;
            }
            0x94 => self.put(self.memo.len() as u32)?,
            other => {
                return Err(format!("instruction {other:#04x} does not occur in PyTorch files"));
            }
        }
        Ok(())
    }

    // ---- bytes

    fn take(&mut self, count: usize) -> Outcome<&[u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("ends too early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| "ends too early".into())
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn line(&mut self) -> Outcome<&str> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(1 << 16)];
        let length = rest.iter().position(|&b| b == b'\n').ok_or("a line without an end")?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| "a name that is not UTF-8".into())
    }

    /// Reads a count of `width` bytes, then that many bytes.
    fn counted(&mut self, width: usize) -> Outcome<&[u8]> {
        let mut count = [0; 8];
        count[..width].copy_from_slice(self.take(width)?);
        let count = usize::try_from(u64::from_le_bytes(count)).map_err(|_| "ends too early")?;
        self.take(count)
    }

    fn text(&mut self, width: usize) -> Outcome<()> {
        let text = String::from_utf8_lossy(self.counted(width)?).into();
        self.push(Value::Text(text))
    }

    fn blob(&mut self, width: usize) -> Outcome<()> {
        let bytes = self.counted(width)?;
        let kept = if bytes.len() > numpy::MAX_BYTES { &[] } else { bytes };
        let kept = Value::Bytes(kept.into());
        self.push(kept)
    }

    fn long(&mut self, width: usize) -> Outcome<()> {
        let bytes = self.counted(width)?;
        let value = if bytes.len() <= 8 {
            let negative = bytes.last().is_some_and(|&b| b >= 0x80);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::BigInt(bytes.into())
        };
        self.push(value)
    }

    fn decimal(&mut self) -> Outcome<()> {
        let value = match self.line()?.trim().trim_end_matches('L') {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            text => Value::Int(text.parse().map_err(|_| "text that is not a number")?),
        };
        self.push(value)
    }

    // ---- stack and memo

    fn push(&mut self, value: Value) -> Outcome<()> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        self.again(self.values.len() as Id - 1)
    }

    /// Pushes an existing value on the stack.
    fn again(&mut self, id: Id) -> Outcome<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Outcome<()> {
        if module.len() + name.len() > MAX_NAME {
            return Err(format!("a class name of more than {MAX_NAME} characters"));
        }
        self.push(Value::Global(format!("{module}.{name}").into()))
    }

    fn above_mark(&self, start: Option<usize>) -> Outcome<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        start.filter(|&start| start >= floor).ok_or_else(|| "pops from an empty stack".into())
    }

    fn pop(&mut self) -> Outcome<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Outcome<Id> {
        Ok(self.stack[self.above_mark(self.stack.len().checked_sub(1))?])
    }

    fn since_mark(&mut self) -> Outcome<Vec<Id>> {
        let mark = self.marks.pop().ok_or("pops from an empty stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn get(&mut self, key: u32) -> Outcome<()> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("memo {key} was never stored"))?;
        self.again(id)
    }

    fn put(&mut self, key: u32) -> Outcome<()> {
        let top = self.top()?;
        if self.memo.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    fn append(&mut self, items: Vec<Id>) -> Outcome<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            Value::Foreign(foreign) => foreign.given.extend(items),
            _ => return Err("appends to something that is not a list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<(Id, Id)>) -> Outcome<()> {
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => dict.items.extend(items),
            Value::Foreign(foreign) => foreign.given.extend(items.into_iter().map(|item| item.1)),
            _ => return Err("sets a key of something that is not a dictionary".into()),
        }
        Ok(())
    }

    // ---- the few functions that tensors need

    fn call(&mut self, callable: Id, args: Id) -> Outcome<()> {
        let (Value::Global(name), Value::Tuple(given)) = (self.value(callable), self.value(args))
        else {
            return self.foreign(callable, vec![args]);
        };
        match (name.as_ref(), given.as_slice()) {
            ("collections.OrderedDict", []) => {
                self.push(Value::Dict(Box::new(Dict { ordered: true, items: Vec::new() })))
            }
            ("collections.OrderedDict", &[list]) => {
                let items = self.pairs_of(list)?;
                self.push(Value::Dict(Box::new(Dict { ordered: true, items })))
            }
            ("collections.defaultdict", [_] | []) => self.push(Value::Dict(Box::default())),
            ("torch.Size", &[tuple]) => self.again(tuple),
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                &[storage, offset, shape, strides, ..],
            ) => {
                let tensor = self.tensor(storage, offset, shape, strides)?;
                self.tensors += 1;
                if self.tensors > MAX_TENSORS {
                    return Err(format!("more than {MAX_TENSORS} tensors"));
                }
                self.push(Value::Tensor(Box::new(tensor)))
            }
            ("torch._utils._rebuild_parameter", &[data, ..]) => self.again(data),
            ("_codecs.encode", &[text, _]) => match self.bytes_of(text) {
                Some(bytes) => self.push(Value::Bytes(bytes.into())),
                None => self.foreign(callable, vec![args]),
            },
            (function, &[dtype, data]) if numpy::is_scalar(function) => {
                match self.scalar(dtype, data) {
                    Some(value) => self.push(value),
                    None => self.foreign(callable, vec![args]),
                }
            }
            _ => self.foreign(callable, vec![args]),
        }
    }

    fn bytes_of(&self, text: Id) -> Option<Vec<u8>> {
        let Value::Text(text) = self.value(text) else { return None };
        numpy::latin1(text).filter(|bytes| bytes.len() <= numpy::MAX_BYTES)
    }

    /// Returns the value of a NumPy scalar. Its dtype is an object made of the type's code.
    fn scalar(&self, dtype: Id, data: Id) -> Option<Value> {
        let (Value::Foreign(dtype), Value::Bytes(bytes)) = (self.value(dtype), self.value(data))
        else {
            return None;
        };
        let is_dtype =
            matches!(self.value(dtype.global?), Value::Global(n) if n.as_ref() == "numpy.dtype");
        let Value::Tuple(args) = self.value(*dtype.given.first()?) else { return None };
        match self.value(*args.first()?) {
            Value::Text(code) if is_dtype => numpy::scalar(code, bytes),
            _ => None,
        }
    }

    fn foreign(&mut self, callable: Id, mut given: Vec<Id>) -> Outcome<()> {
        let named = matches!(self.value(callable), Value::Global(_));
        if !named {
            given.push(callable);
        }
        let global = named.then_some(callable);
        self.push(Value::Foreign(Box::new(Foreign { global, given })))
    }

    fn pairs_of(&mut self, list: Id) -> Outcome<Vec<(Id, Id)>> {
        let (Value::List(list) | Value::Tuple(list)) = &self.values[list as usize] else {
            return Err("a dictionary whose items are not pairs".into());
        };
        self.copied += list.len();
        if self.copied > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        let pair = |&id: &Id| match self.value(id) {
            Value::List(pair) | Value::Tuple(pair) => match pair.as_slice() {
                &[key, value] => Ok((key, value)),
                _ => Err("a dictionary whose items are not pairs".to_owned()),
            },
            _ => Err("a dictionary whose items are not pairs".to_owned()),
        };
        list.iter().map(pair).collect()
    }

    fn size(&self, id: Id, what: &str) -> Outcome<usize> {
        match self.value(id) {
            Value::Int(n) => usize::try_from(*n).map_err(|_| format!("a tensor's {what} is {n}")),
            _ => Err(format!("a tensor's {what} is not a number")),
        }
    }

    fn sizes(&self, id: Id, what: &str) -> Outcome<Vec<usize>> {
        match self.value(id) {
            Value::Tuple(list) | Value::List(list) if list.len() <= MAX_AXES => {
                list.iter().map(|&id| self.size(id, what)).collect()
            }
            _ => Err(format!("a tensor's {what} is not a list of at most {MAX_AXES} numbers")),
        }
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Outcome<Tensor> {
        let Value::Storage(storage) = self.value(storage) else {
            return Err("a tensor without a storage".into());
        };
        let (shape, strides) = (self.sizes(shape, "shape")?, self.sizes(strides, "stride")?);
        if shape.len() != strides.len() {
            return Err("a tensor whose strides and sizes differ in number".into());
        }
        let offset = self.size(offset, "offset")?;
        Ok(Tensor { storage: (**storage).clone(), offset, shape, strides })
    }

    /// Parses PyTorch's reference to a storage: `("storage", type, key, device, elements)`,
    /// followed in the legacy format by a view `(key, first element, elements)` or `None`.
    fn storage(&self, id: Id) -> Outcome<Storage> {
        let Value::Tuple(list) = self.value(id) else {
            return Err("refers to something that is not a storage".into());
        };
        let &[kind, class, key, _, elements, ref view @ ..] = list.as_slice() else {
            return Err("refers to something that is not a storage".into());
        };
        let (Value::Text(kind), Value::Global(class)) = (self.value(kind), self.value(class))
        else {
            return Err("refers to something that is not a storage".into());
        };
        if kind.as_ref() != "storage" {
            return Err("refers to something that is not a storage".into());
        }
        let key = match self.value(key) {
            Value::Text(key) if key.len() <= MAX_NAME => key,
            _ => return Err("a storage without a key".into()),
        };
        let dtype =
            dtype(class).ok_or_else(|| format!("`{class}` is not a supported storage type"))?;
        let mut storage =
            Storage { key: key.clone(), dtype, elements: self.size(elements, "size")?, first: 0 };
        match view.first().map(|&view| self.value(view)) {
            None | Some(Value::None) => {}
            Some(Value::Tuple(view)) if view.len() == 3 => {
                storage.first = self.size(view[1], "offset")?;
                storage.elements = self.size(view[2], "size")?;
            }
            Some(_) => return Err("a view of a storage without its range".into()),
        }
        Ok(storage)
    }
}

fn pairs(items: Vec<Id>) -> Outcome<Vec<(Id, Id)>> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key without a value".into()),
    }
}
