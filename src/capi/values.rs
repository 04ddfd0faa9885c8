//! The values of fields that choose between a few things. 0 is the default of each.

/// The first GPU if there is one, and otherwise the CPU.
pub const UDASS_DEVICE_AUTO: u32 = 0;
/// The CPU.
pub const UDASS_DEVICE_HOST: u32 = 1;
/// The GPU of index `device_index`.
pub const UDASS_DEVICE_CUDA: u32 = 2;

/// The precision of the file's configuration.
pub const UDASS_PRECISION_OF_FILE: u32 = 0;
/// Single precision.
pub const UDASS_PRECISION_F32: u32 = 1;
/// Single precision with operands of matmuls rounded to TF32.
pub const UDASS_PRECISION_TF32: u32 = 2;
/// Operands of matmuls, convolutions and attention in bfloat16.
pub const UDASS_PRECISION_BF16: u32 = 3;

/// The trained network of a checkpoint.
pub const UDASS_NETWORK_STUDENT: u32 = 0;
/// The moving average of the student.
pub const UDASS_NETWORK_TEACHER: u32 = 1;

/// Compiled kernels are kept in the user's cache.
pub const UDASS_CACHE_USUAL: u32 = 0;
/// Nothing is kept.
pub const UDASS_CACHE_NONE: u32 = 1;
/// Compiled kernels are kept in `cache_folder`.
pub const UDASS_CACHE_FOLDER: u32 = 2;

/// Red, green, blue; 8 bits each.
pub const UDASS_FORMAT_RGB: u32 = 0;
/// Blue, green, red; 8 bits each.
pub const UDASS_FORMAT_BGR: u32 = 1;
/// Red, green, blue, alpha; 8 bits each.
pub const UDASS_FORMAT_RGBA: u32 = 2;
/// Blue, green, red, alpha; 8 bits each.
pub const UDASS_FORMAT_BGRA: u32 = 3;
/// One byte for all colors.
pub const UDASS_FORMAT_GRAY: u32 = 4;
/// Planes of red, green and blue; floats from 0 to 255.
pub const UDASS_FORMAT_PLANES: u32 = 5;

/// The memory of the process.
pub const UDASS_MEMORY_HOST: u32 = 0;
/// The memory of the model's device.
pub const UDASS_MEMORY_DEVICE: u32 = 1;

/// The index of each pixel's class, `uint8_t`, H,W.
pub const UDASS_OUTPUT_LABELS: u32 = 0;
/// The probability of each class, `float`, H,W,classes.
pub const UDASS_OUTPUT_PROBABILITIES: u32 = 1;
/// The network's number for each class, `float`, H,W,classes.
pub const UDASS_OUTPUT_LOGITS: u32 = 2;
