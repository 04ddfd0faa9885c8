//! Reads PyTorch's checkpoints (`.pth`) in the zip format and the legacy format, and writes the zip
//! format, without PyTorch.
//!
//! No code in a file is run: the pickle is read as data (pickle.rs), and only the functions that
//! construct tensors and NumPy's scalars are known, by name. Any other call is skipped if it is metadata and listed in
//! [`Contents::skipped`]; it is an error if it has tensors as arguments or is among tensors.
//! Opening a file reads only the pickle; tensors are ranges of the file.
//!
//! Existing crates either lack the legacy format (candle-core), or read through buffers, lose the
//! order of a state dict, and silently accept unknown functions (pytorch-reader 0.22).

mod contents;
mod legacy;
mod node;
mod numpy;
mod pickle;
mod read;
mod value;
mod walk;
mod write;
mod zip_format;

pub use contents::{Contents, PthTensor};
pub use node::{MAX_DEPTH, Node};
pub use read::{is_torch, read};
pub use write::write;
