//! NVTX ranges for external profilers such as Nsight Systems.
//!
//! `NVTX_INJECTION64_PATH` names the tool's library. The library is given tables of slots, one for
//! each NVTX function, and puts its own functions into the slots that it wants to receive. Numbers
//! and layouts follow NVTX version 3 (`nvtxTypes.h` and `nvtxImpl.h` in github.com/NVIDIA/NVTX).

use std::env;
use std::error::Error;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::mem::{forget, size_of, transmute};
use std::ptr::{from_ref, null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::Library;

const VARIABLE: &str = "NVTX_INJECTION64_PATH";

/// Length of each table, by the table's number minus one (core, CUDA, OpenCL, CUDA runtime, core 2,
/// sync). Functions are counted from 1. All tables exist, as in NVIDIA's headers, but only
/// functions of core are called.
const LENGTHS: [usize; 6] = [16, 9, 15, 7, 16, 7];
const CORE: usize = 0;
const RANGE_PUSH: usize = 9;
const RANGE_POP: usize = 11;

type Slot = AtomicPtr<c_void>;

static SLOTS: [[Slot; 16]; 6] = [const { [const { Slot::new(null_mut()) }; 16] }; 6];
/// Pointers to the slots; each table ends in a null pointer.
static TABLES: [[AtomicPtr<Slot>; 17]; 6] =
    [const { [const { AtomicPtr::new(null_mut()) }; 17] }; 6];

#[repr(C)]
struct Callbacks {
    size: usize,
    table: extern "system" fn(c_uint, *mut *const c_void, *mut c_uint) -> c_int,
}

#[repr(C)]
struct Version {
    size: usize,
    version: u32,
    reserved: u32,
    tell_injection: extern "system" fn(u32),
}

static CALLBACKS: Callbacks = Callbacks { size: size_of::<Callbacks>(), table };
static VERSION: Version =
    Version { size: size_of::<Version>(), version: 3, reserved: 0, tell_injection };

/// Returns the export table that a tool requests by number.
extern "system" fn export(id: u32) -> *const c_void {
    match id {
        1 => from_ref(&CALLBACKS).cast(),
        3 => from_ref(&VERSION).cast(),
        _ => null(),
    }
}

extern "system" fn table(module: c_uint, out: *mut *const c_void, length: *mut c_uint) -> c_int {
    let place = (module as usize).wrapping_sub(1);
    let Some(&functions) = LENGTHS.get(place) else { return 0 };
    // SAFETY: a tool passes either a valid address to write to, or null.
    unsafe {
        if let Some(out) = out.as_mut() {
            *out = TABLES[place].as_ptr().cast();
        }
        if let Some(length) = length.as_mut() {
            *length = functions as c_uint;
        }
    }
    1
}

extern "system" fn tell_injection(_version: u32) {}

/// Loads the tool's library, once. If that fails, the error says why and nothing is reported to a
/// tool.
pub(super) fn attach() -> &'static Result<(), String> {
    static ATTACHED: OnceLock<Result<(), String>> = OnceLock::new();
    ATTACHED.get_or_init(|| {
        let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
            return Ok(());
        };
        for (place, length) in LENGTHS.into_iter().enumerate() {
            for (entry, slot) in TABLES[place].iter().zip(&SLOTS[place]).take(length).skip(1) {
                entry.store(from_ref(slot).cast_mut(), Ordering::Release);
            }
        }
        let problem = |what: &str| {
            let path = path.display();
            Err(format!(
                "{VARIABLE} names {path}, which {what}; ranges are not reported to any tool"
            ))
        };
        // SAFETY: whoever sets the variable wants that library's initializers to run.
        let library = match unsafe { Library::new(&path) } {
            Ok(library) => library,
            Err(e) => {
                let cause = e.source().map_or(e.to_string(), ToString::to_string);
                return problem(&format!("cannot be loaded ({cause})"));
            }
        };
        type Initialize = extern "system" fn(extern "system" fn(u32) -> *const c_void) -> c_int;
        // SAFETY: NVTX defines this signature for a function of this name.
        let begun = match unsafe { library.get::<Initialize>(b"InitializeInjectionNvtx2") } {
            Ok(initialize) => initialize(export) != 0,
            Err(_) => return problem("has no InitializeInjectionNvtx2"),
        };
        if !begun {
            // Slots that it may have filled would point into a library that is about to be
            // unloaded.
            SLOTS.iter().flatten().for_each(|slot| slot.store(null_mut(), Ordering::Relaxed));
            return problem("failed to initialize");
        }
        // Never unload the library: the slots point into it from now on.
        forget(library);
        Ok(())
    })
}

/// Returns why the tool library named by `NVTX_INJECTION64_PATH` cannot be used, in which case no
/// tool is attached.
pub fn tool_problem() -> Option<&'static str> {
    attach().as_ref().err().map(String::as_str)
}

/// Returns whether a tool receives ranges.
pub(super) fn is_watched() -> bool {
    !SLOTS[CORE][RANGE_PUSH].load(Ordering::Relaxed).is_null()
}

/// A range on this thread that ends when dropped.
pub(super) struct Range {
    told: bool,
}

/// Begins a range. `name` is called only if a tool receives it.
pub(super) fn range(name: impl FnOnce() -> String) -> Range {
    let push = SLOTS[CORE][RANGE_PUSH].load(Ordering::Acquire);
    if push.is_null() {
        return Range { told: false };
    }
    let name = CString::new(name()).unwrap_or_default();
    // SAFETY: a tool fills the slots with functions of NVTX's signatures.
    let push: extern "system" fn(*const c_char) -> c_int = unsafe { transmute(push) };
    push(name.as_ptr());
    Range { told: true }
}

impl Drop for Range {
    fn drop(&mut self) {
        let pop = SLOTS[CORE][RANGE_POP].load(Ordering::Acquire);
        if self.told && !pop.is_null() {
            // SAFETY: as in `range`, the slot holds a function of NVTX's signature.
            let pop: extern "system" fn() -> c_int = unsafe { transmute(pop) };
            pop();
        }
    }
}
