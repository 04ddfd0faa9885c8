//! Opening a model, and what it says about itself.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::Arc;

use super::status::{Failure, UdassStatus, guarded, value};
use super::values::*;
use super::versioned::{Versioned, path, read, slice};
use crate::model::{Cache, DeviceKind, Model, Network, Options, Precision};

/// A trained network on its device. Any thread may use it; calls run one after another.
pub struct UdassModel {
    pub(super) model: Model,
    names: Vec<CString>,
    device: CString,
}

/// Receives a message for the user and `log_data`. It may be called from any thread.
pub type UdassLog = Option<unsafe extern "C" fn(data: *mut c_void, message: *const c_char)>;

/// How a model is opened. All fields 0 but the size are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UdassOptions {
    /// `sizeof(udass_options)`.
    pub struct_size: u32,
    /// One of `UDASS_DEVICE_…`.
    pub device: u32,
    /// Index of the GPU for `UDASS_DEVICE_CUDA`.
    pub device_index: u32,
    /// One of `UDASS_PRECISION_…`.
    pub precision: u32,
    /// Threads on the CPU; 0 means one per core.
    pub threads: u32,
    /// One of `UDASS_NETWORK_…`.
    pub network: u32,
    /// The most bytes that tensors may take on the device; 0 means no limit.
    pub memory_limit: u64,
    /// One of `UDASS_CACHE_…`.
    pub cache: u32,
    /// Windows per forward pass; 0 means as the file says.
    pub batch: u32,
    /// The folder for `UDASS_CACHE_FOLDER`.
    pub cache_folder: *const c_char,
    /// Side of the sliding windows in pixels: 0 as the file says, -1 for the whole image at once.
    pub window: i64,
    /// Step of the sliding windows in pixels.
    pub window_step: i64,
    /// A `CUcontext` and a `CUstream` of the program's that outlive the model, or null.
    pub cuda_context: *mut c_void,
    /// See `cuda_context`. Null is the default stream.
    pub cuda_stream: *mut c_void,
    /// Receives messages, or null.
    pub log: UdassLog,
    /// The first argument of `log`.
    pub log_data: *mut c_void,
}

// SAFETY: it is `repr(C)`, begins with its size, and has numbers, pointers and an optional function
// pointer, which C calls a pointer too.
unsafe impl Versioned for UdassOptions {}

/// The program's `log` and its argument.
struct Log(unsafe extern "C" fn(*mut c_void, *const c_char), *mut c_void);

// SAFETY: the header says that the callback may be called from any thread.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl Log {
    fn tell(&self, text: &str) {
        let text: Vec<u8> = text.bytes().filter(|&byte| byte != 0).collect();
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: the program gave a function of this type, and the text ends in 0.
        unsafe { (self.0)(self.1, text.as_ptr()) }
    }
}

fn unknown(what: &str, value: u32) -> Failure {
    Failure::argument(format!("options: {value} is no {what}"))
}

/// Translates a program's options; null stands for the defaults.
///
/// # Safety
/// `options` is null or points to options whose pointers are valid.
unsafe fn translate(options: *const UdassOptions) -> Result<Options, Failure> {
    let mut translated = Options::default();
    if options.is_null() {
        return Ok(translated);
    }
    // SAFETY: the caller guarantees that the options are readable.
    let given = unsafe { read(options, "options")? };
    translated.device = match given.device {
        UDASS_DEVICE_AUTO => DeviceKind::Auto,
        UDASS_DEVICE_HOST => DeviceKind::Host,
        UDASS_DEVICE_CUDA => DeviceKind::Cuda(given.device_index as usize),
        other => return Err(unknown("device", other)),
    };
    translated.precision = match given.precision {
        UDASS_PRECISION_OF_FILE => None,
        UDASS_PRECISION_F32 => Some(Precision::F32),
        UDASS_PRECISION_TF32 => Some(Precision::Tf32),
        UDASS_PRECISION_BF16 => Some(Precision::Bf16),
        other => return Err(unknown("precision", other)),
    };
    translated.network = match given.network {
        UDASS_NETWORK_STUDENT => Some(Network::Student),
        UDASS_NETWORK_TEACHER => Some(Network::Teacher),
        other => return Err(unknown("network", other)),
    };
    translated.cache = match given.cache {
        UDASS_CACHE_USUAL => Cache::Usual,
        UDASS_CACHE_NONE => Cache::None,
        UDASS_CACHE_FOLDER => {
            // SAFETY: the caller guarantees that the string ends.
            Cache::Folder(unsafe { path(given.cache_folder, "options: cache_folder")? })
        }
        other => return Err(unknown("cache", other)),
    };
    translated.windows = match (given.window, given.window_step) {
        (0, _) => None,
        (-1, _) => Some([0, 0]),
        (side, step) => match (usize::try_from(side), usize::try_from(step)) {
            (Ok(side), Ok(step)) => Some([side, step]),
            _ => return Err(Failure::argument("options: window or window_step is negative")),
        },
    };
    translated.threads = given.threads as usize;
    translated.batch = (given.batch > 0).then_some(given.batch as usize);
    let limit = usize::try_from(given.memory_limit).unwrap_or(usize::MAX);
    translated.memory_limit = (limit > 0).then_some(limit);
    if let Some(function) = given.log {
        let log = Log(function, given.log_data);
        translated.log = Some(Arc::new(move |text: &str| log.tell(text)));
    }
    if !given.cuda_context.is_null() {
        // SAFETY: the header demands live handles that outlive the model.
        unsafe { translated.set_cuda_context(given.cuda_context, given.cuda_stream) };
    }
    Ok(translated)
}

/// Hands a model out.
///
/// # Safety
/// `out` is null or can be written.
unsafe fn give(
    out: *mut *mut UdassModel,
    open: impl FnOnce() -> Result<Model, Failure>,
) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::argument("out is null"));
    }
    // SAFETY: the caller guarantees that `out` can be written.
    unsafe { out.write(std::ptr::null_mut()) };
    let model = open()?;
    let text = |text: &str| {
        let bytes: Vec<u8> = text.bytes().filter(|&byte| byte != 0).collect();
        CString::new(bytes).unwrap_or_default()
    };
    let names = model.classes().iter().map(|class| text(&class.name)).collect();
    let device = text(model.device());
    let handle = Box::into_raw(Box::new(UdassModel { model, names, device }));
    // SAFETY: as above.
    unsafe { out.write(handle) };
    Ok(())
}

/// Opens a file with a network: one that `udass-raw export` wrote, or a checkpoint. On failure,
/// `*out` is null.
///
/// # Safety
/// `path` is a string; `options` is null or points to options; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_open(
    path: *const c_char,
    options: *const UdassOptions,
    out: *mut *mut UdassModel,
) -> UdassStatus {
    // SAFETY: the caller guarantees what these functions ask for.
    guarded(|| unsafe {
        give(out, || {
            let file: PathBuf = super::versioned::path(path, "path")?;
            Ok(Model::open(file, &translate(options)?)?)
        })
    })
}

/// Opens a file with a network that is in memory, which is not needed afterwards. On failure,
/// `*out` is null.
///
/// # Safety
/// `data` points to `length` bytes; `options` is null or points to options; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_open_bytes(
    data: *const c_void,
    length: usize,
    options: *const UdassOptions,
    out: *mut *mut UdassModel,
) -> UdassStatus {
    // SAFETY: the caller guarantees what these functions ask for.
    guarded(|| unsafe {
        give(out, || {
            let bytes = slice(data.cast::<u8>(), length, "data")?;
            Ok(Model::from_bytes(bytes.to_vec(), &translate(options)?)?)
        })
    })
}

/// Frees a model, and ends its threads. Null is ignored.
///
/// # Safety
/// `model` is null, or comes from `udass_model_open` or `udass_model_open_bytes`, and no other call
/// uses it now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_free(model: *mut UdassModel) {
    if !model.is_null() {
        // SAFETY: the caller guarantees that the handle is live and used for the last time.
        value((), || drop(unsafe { Box::from_raw(model) }));
    }
}

/// Returns what `body` makes of a model, or `otherwise` for null.
///
/// # Safety
/// `model` is null or live.
unsafe fn of<'a, T>(
    model: *const UdassModel,
    otherwise: T,
    body: impl FnOnce(&'a UdassModel) -> Option<T>,
) -> T
where
    T: Copy,
{
    // SAFETY: the caller guarantees that the handle is null or live.
    let model = unsafe { model.as_ref() };
    value(otherwise, || model.and_then(body).unwrap_or(otherwise))
}

/// Returns the number of classes; 0 for null.
///
/// # Safety
/// `model` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_class_count(model: *const UdassModel) -> usize {
    // SAFETY: the caller guarantees that the handle is null or live.
    unsafe { of(model, 0, |model| Some(model.names.len())) }
}

/// Returns the name of a class, which is valid as long as the model; null if there is no such class.
///
/// # Safety
/// `model` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_class_name(
    model: *const UdassModel,
    index: usize,
) -> *const c_char {
    let name = |model: &UdassModel| model.names.get(index).map(|name| name.as_ptr());
    // SAFETY: the caller guarantees that the handle is null or live.
    unsafe { of(model, std::ptr::null(), name) }
}

/// Writes the color of a class: red, green, blue.
///
/// # Safety
/// `model` is null or live; three bytes at `rgb` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_class_color(
    model: *const UdassModel,
    index: usize,
    rgb: *mut u8,
) -> UdassStatus {
    guarded(|| {
        // SAFETY: the caller guarantees that the handle is null or live.
        let model = unsafe { model.as_ref() }.ok_or_else(|| Failure::argument("model is null"))?;
        let class = model.model.classes().get(index);
        let class = class.ok_or_else(|| Failure::argument(format!("there is no class {index}")))?;
        // SAFETY: the caller guarantees that three bytes can be written.
        unsafe { super::versioned::slice_mut(rgb, 3, "rgb")? }.copy_from_slice(&class.color);
        Ok(())
    })
}

/// Writes the width and height that images were fitted into for the evaluation of the network.
///
/// # Safety
/// `model` is null or live; `width` and `height` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_image_size(
    model: *const UdassModel,
    width: *mut usize,
    height: *mut usize,
) -> UdassStatus {
    guarded(|| {
        // SAFETY: the caller guarantees that the handle is null or live.
        let model = unsafe { model.as_ref() }.ok_or_else(|| Failure::argument("model is null"))?;
        for (to, side) in [width, height].into_iter().zip(model.model.image_size()) {
            // SAFETY: the caller guarantees that both can be written.
            let to = unsafe { super::versioned::slice_mut(to, 1, "width or height")? };
            to.fill(side);
        }
        Ok(())
    })
}

/// Returns one line about the device, which is valid as long as the model; empty for null.
///
/// # Safety
/// `model` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_device(model: *const UdassModel) -> *const c_char {
    const NONE: &CStr = c"";
    // SAFETY: the caller guarantees that the handle is null or live.
    unsafe { of(model, NONE.as_ptr(), |model| Some(model.device.as_ptr())) }
}

/// Writes the bytes of tensors in use now and at most, and those reserved from the device. Each may
/// be null.
///
/// # Safety
/// `model` is null or live; the others are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn udass_model_memory(
    model: *const UdassModel,
    used: *mut u64,
    peak: *mut u64,
    reserved: *mut u64,
) -> UdassStatus {
    guarded(|| {
        // SAFETY: the caller guarantees that the handle is null or live.
        let model = unsafe { model.as_ref() }.ok_or_else(|| Failure::argument("model is null"))?;
        let report = model.model.memory()?;
        let numbers = [report.used, report.peak, report.reserved];
        for (to, number) in [used, peak, reserved].into_iter().zip(numbers) {
            if !to.is_null() {
                // SAFETY: the caller guarantees that it can be written.
                unsafe { to.write(number as u64) };
            }
        }
        Ok(())
    })
}
