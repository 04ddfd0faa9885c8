//! Constants that kernels and their launches share, by the kernels' files.

include!(concat!(env!("OUT_DIR"), "/constants.rs"));
