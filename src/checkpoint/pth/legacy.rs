//! Reads PyTorch's format before 1.6: five pickles (magic number, version, the writer's system
//! info, the content, the storage keys), then each storage as its length (8 bytes) and its
//! elements.

use std::collections::HashMap;
use std::ops::Range;

use super::contents::Contents;
use super::pickle::{self, Pickle};
use super::value::{Outcome, Value};
use super::walk::walk;
use crate::checkpoint::content::Content;

/// The magic number 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// Returns whether a file begins like a pickle and not like a safetensors file, which begins with a
/// length of 8 bytes and a brace.
pub fn is_pickle(bytes: &[u8]) -> bool {
    let binary = bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|&v| v <= 5);
    // A text pickle (protocol 0) begins with a class, a mark or an empty container.
    let text = bytes.iter().take(64).any(|&b| b == b'\n')
        && matches!(bytes.first(), Some(b'c' | b'(' | b'}' | b']'));
    (binary || text) && bytes.get(8) != Some(&b'{')
}

/// Reads a file in this format, except the elements of the tensors.
pub fn read(file: &Content) -> Outcome<Contents> {
    let mut at = 0;
    let start = file.bytes(0..file.len().min(pickle::MAX_BYTES))?;
    let mut next = || -> Outcome<Pickle> {
        let pickle = pickle::read(start.get(at..).unwrap_or_default())?;
        at += pickle.length;
        Ok(pickle)
    };
    let magic = next()?;
    match magic.value(magic.root) {
        Value::BigInt(number) if **number == MAGIC => {}
        Value::Foreign(foreign) => {
            let class = magic.name(foreign.global);
            return Err(format!(
                "is a pickle of `{class}`, which was not executed; PyTorch's checkpoints start \
                 differently"
            ));
        }
        _ => return Err("is a pickle, but not one that PyTorch writes".into()),
    }
    let version = next()?;
    if !matches!(version.value(version.root), Value::Int(VERSION)) {
        return Err(format!("uses a version of PyTorch's format other than {VERSION}"));
    }
    let system = next()?;
    check_order(&system)?;
    let content = next()?;
    let keys = next()?;
    let Value::List(list) = keys.value(keys.root) else {
        return Err("does not list its storages".into());
    };
    // The list has no element types; they are given where the storages are used.
    let mut sizes = HashMap::new();
    for value in &content.values {
        if let Value::Storage(storage) = value {
            sizes.insert(storage.key.as_ref(), storage.dtype.bitsize() / 8);
        }
    }
    let mut places: HashMap<&str, Range<usize>> = HashMap::new();
    for &key in list {
        let Value::Text(key) = keys.value(key) else {
            return Err("does not list its storages".into());
        };
        // The element size of an unreferenced storage is unknown, so the storages after it cannot
        // be located.
        let Some(size) = sizes.get(key.as_ref()) else { break };
        let ends = || format!("ends in the middle of its storage {key}");
        let rest = file.len().checked_sub(at + 8).ok_or_else(ends)?;
        let length = file.bytes(at..at + 8)?.try_into().map_err(|_| ends())?;
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| ends())?;
        let length = length.checked_mul(*size).filter(|&n| n <= rest).ok_or_else(ends)?;
        at += 8;
        places.insert(key, at..at + length);
        at += length;
    }
    walk(&content, file.len(), |storage| {
        let place = places.get(storage.key.as_ref());
        place.cloned().ok_or_else(|| format!("has no storage {}", storage.key))
    })
}

fn check_order(system: &Pickle) -> Outcome<()> {
    let Value::Dict(system_info) = system.value(system.root) else {
        return Err("does not state the byte order of the machine that wrote it".into());
    };
    for (key, value) in &system_info.items {
        if let (Value::Text(key), Value::Bool(little)) = (system.value(*key), system.value(*value))
            && key.as_ref() == "little_endian"
            && !little
        {
            return Err("was written on a big-endian machine".into());
        }
    }
    Ok(())
}
