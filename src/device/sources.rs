//! The sources of the kernels as embedded by the build, and the flags of their serial CPU builds.

use super::launch::Level;
use super::precision::Types;

/// How a serial CPU build is compiled.
pub struct SerialBuild {
    /// Storage and compute types.
    pub types: Types,
    /// Instruction set.
    pub level: Level,
    /// Suffix of the kernels' symbols.
    pub suffix: &'static str,
    /// The compiler's flags.
    pub flags: &'static [&'static str],
}

include!(concat!(env!("OUT_DIR"), "/sources.rs"));
