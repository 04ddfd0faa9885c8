//! What the tests share: the fill formula, the stored cases, and the comparison with them.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod cases;
pub mod compare;
pub mod families;
pub mod formula;
pub mod report;
pub mod uda;
