//! Status codes and error messages.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Error;

/// The outcome of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdassStatus {
    /// It did what it should.
    Ok = 0,
    /// An argument is null where it must not be, of a wrong size, or not one of the known values.
    InvalidArgument = 1,
    /// A file cannot be read or written.
    Io = 2,
    /// A file is damaged, or not what is expected there.
    Data = 3,
    /// The configuration in a file, or an option, is invalid.
    Config = 4,
    /// The device is not available, or has failed.
    Device = 5,
    /// There is too little memory.
    OutOfMemory = 6,
    /// The network's numbers are not finite.
    NotFinite = 7,
    /// The program's callback asked to stop.
    Cancelled = 8,
    /// A fault of the library. The model must be opened again.
    Internal = 9,
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// A failed call: its status, and a message for the user.
pub(super) struct Failure {
    pub status: UdassStatus,
    pub message: String,
}

impl Failure {
    pub fn argument(message: impl Into<String>) -> Failure {
        Failure { status: UdassStatus::InvalidArgument, message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match &error {
            Error::Io { .. } => UdassStatus::Io,
            Error::Data { .. } | Error::Weights { .. } => UdassStatus::Data,
            Error::Config(_) => UdassStatus::Config,
            Error::Shape { .. } => UdassStatus::InvalidArgument,
            Error::Device(_) => UdassStatus::Device,
            Error::OutOfMemory(_) => UdassStatus::OutOfMemory,
            Error::NotFinite(_) => UdassStatus::NotFinite,
            Error::Cancelled => UdassStatus::Cancelled,
            Error::Training(_) | Error::Several(_) => UdassStatus::Internal,
        };
        Failure { status, message: error.to_string() }
    }
}

/// Runs the body of a C function: an error or a panic becomes a status and this thread's message.
pub(super) fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> UdassStatus {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        let message = format!("a fault of the library, please report it: {text}");
        Err(Failure { status: UdassStatus::Internal, message })
    });
    let Failure { status, message } = match outcome {
        Ok(()) => return UdassStatus::Ok,
        Err(failure) => failure,
    };
    let message: Vec<u8> = message.into_bytes().into_iter().filter(|&byte| byte != 0).collect();
    LAST.with_borrow_mut(|last| *last = CString::new(message).unwrap_or_default());
    status
}

/// Runs the body of a C function that returns a value, or `otherwise` after a panic.
pub(super) fn value<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// Returns the message of the last call on this thread that failed; empty if none has. It is valid
/// until the next call on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn udass_last_error() -> *const c_char {
    const NONE: &CStr = c"";
    value(NONE.as_ptr(), || LAST.with_borrow(|last| last.as_ptr()))
}

/// Returns the version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn udass_version() -> *const c_char {
    const VERSION: &[u8] = concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes();
    VERSION.as_ptr().cast()
}
