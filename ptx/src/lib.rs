//! Executes the PTX that nvcc writes, without a GPU, and watches what it does.
//!
//! PTX is decoded once into a dense form ([`decode`]). A launch ([`run`]) then executes it block by
//! block: the lanes of a warp together as long as they are at the same instruction, the warps of a
//! block in turn from barrier to barrier. Every access is checked against the bounds of its memory
//! and against earlier accesses that no barrier orders ([`Problem`] lists the rules), and what is
//! executed is counted ([`Statistics`]).
//!
//! ```
//! use ptx::{Launch, Memory, Options, Tensor};
//!
//! let text = "
//!     .version 9.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry twice(.param .u64 x)
//!     {
//!         .reg .b32 %r<3>;
//!         .reg .b64 %rd<4>;
//!         ld.param.u64 %rd1, [x];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd3, %rd1, %rd2;
//!         ld.global.u32 %r2, [%rd3];
//!         add.s32 %r2, %r2, %r2;
//!         st.global.u32 [%rd3], %r2;
//!         ret;
//!     }";
//! let programs = ptx::decode(text)?;
//! let mut memory = Memory::default();
//! let x = memory.add(Tensor {
//!     name: "x".into(),
//!     bytes: (0..32u32).flat_map(u32::to_le_bytes).collect(),
//!     element: 4,
//!     written: true,
//!     misalignment: 0,
//! });
//! let program = &programs[0];
//! let launch = Launch { program, arguments: &[x], blocks: 1, threads: 32, shared: 0 };
//! let statistics = ptx::run(&mut memory, &launch, Options::default())?;
//! assert_eq!(memory.contents(0)[4..8], 2u32.to_le_bytes());
//! assert_eq!(statistics.global_loads.sectors, 4);
//! # Ok::<(), ptx::Error>(())
//! ```
//!
//! A thread that breaks a rule stops the launch with a [`Fault`], which names the kernel, block,
//! thread and source lines.

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
