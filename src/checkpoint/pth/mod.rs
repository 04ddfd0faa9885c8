//! PyTorch's checkpoints (`.pth`), in the zip format and in the older one, read and written without
//! PyTorch.
//!
//! Nothing in a file is run: its pickle is read as data (pickle.rs), the functions that make tensors
//! are known by name, and whatever else it would call is skipped where it is metadata, listed in
//! [`Contents::skipped`], and refused by name where tensors are its arguments or it stands among
//! them. The pickle alone is read when a file is opened; tensors are ranges of the memory map.
//!
//! A reader of our own, because the crates that there are either lack the older format (candle-core),
//! or read through buffers, forget the order of a state dict and let unknown functions pass
//! without a word (pytorch-reader 0.22).

mod contents;
mod legacy;
mod node;
mod pickle;
mod read;
mod value;
mod walk;
mod write;
mod zip_format;

pub use contents::{Contents, PthTensor};
pub use node::Node;
pub use read::{is_torch, read};
pub use write::write;
