//! The time that a GPU is expected to take, from what a call executes and moves and from the GPU's
//! rates. Beside it stands the floor: bytes and FLOPs at the rates of the data sheet.

mod counts;
mod expected;
mod expression;
mod machine;

pub use counts::{Coefficients, Counts, Entry, KernelCounts, Table, term_values};
pub use expected::{Expected, Limit, Model};
pub use expression::Expression;
pub use machine::Machine;
