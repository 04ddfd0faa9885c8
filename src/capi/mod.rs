//! The C interface, of which `include/udass_raw.h` is the header.
//!
//! Every function catches panics, checks its pointers for null, and keeps its error for the calling
//! thread ([`status::udass_last_error`]). Structs that programs fill begin with their size, as it was
//! when the program was compiled: fields that it does not have take their defaults.

mod images;
mod model;
mod segment;
mod status;
pub mod values;
mod versioned;

pub use images::{UdassPixels, udass_image_read, udass_pixels_free, udass_png_write_gray};
pub use model::{
    UdassLog, UdassModel, UdassOptions, udass_model_class_color, udass_model_class_count,
    udass_model_class_name, udass_model_device, udass_model_free, udass_model_image_size,
    udass_model_memory, udass_model_open, udass_model_open_bytes,
};
pub use segment::{UdassImage, UdassOutput, UdassStop, udass_segment};
pub use status::{UdassStatus, udass_last_error, udass_version};
