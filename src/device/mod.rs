//! Devices: memory, kernel launches and library ops (matmuls and convolutions). Code above this
//! module does not know which backend runs.

mod allocation;
mod arena;
mod backend;
mod collectives;
pub mod constants;
pub mod cuda;
#[cfg(feature = "cust")]
mod cust;
mod dispatch;
mod dry;
mod foreign;
mod graph_cache;
pub mod group;
mod handle;
mod host;
pub mod kernels;
mod launch;
mod library_op;
mod library_ops;
mod matrix_view;
mod memory;
mod nvtx;
mod overlapped;
mod pools;
mod precision;
mod prepare;
pub mod profile;
mod scopes;
mod shapes;
mod sources;
mod timing;
mod transfers;
mod view;

pub use arena::{ALIGNMENT, MemoryReport};
pub use graph_cache::GraphCache;
pub use handle::Device;
pub(crate) use host::map;
pub use host::{Arithmetic, join_workers, processor};
pub use launch::{Arg, Element as ArgElement, Grid, Kernel, Launcher, Level, Serial, SerialBody};
pub use library_op::{Convolution, ConvolutionPass, LibraryOp, Matmul, Matrix};
pub use matrix_view::MatrixView;
pub use memory::Block;
pub use nvtx::tool_problem;
pub use overlapped::{Readback, StagingBuffers};
pub use precision::{Precision, Types};
pub use prepare::Prepared;
pub use shapes::{Dim, Parameter, ParameterKind, Shape};
pub(crate) use view::DeviceId;
pub use view::TensorView;
