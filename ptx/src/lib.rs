//! Executes PTX.

#![warn(missing_docs)]

mod class;
mod compile;
mod decode;
mod error;
mod fault;
mod float;
mod integer;
mod lanes;
mod lexer;
mod machine;
mod memory;
mod op;
mod parse;
mod program;
mod shadow;
mod statistics;
mod syntax;

pub use class::Class;
pub use compile::{Compiler, Target};
pub use decode::decode;
pub use error::{Error, SyntaxError};
pub use fault::{Access, Fault, Problem};
pub use float::Approximation;
pub use machine::{Launch, Options, run};
pub use memory::{Memory, Tensor};
pub use program::Program;
pub use statistics::{Executed, GlobalTraffic, SharedTraffic, Statistics};
