//! The functions that a kernel in the block emulator calls, through `runtime.cpp`.

use std::ffi::{CStr, c_char, c_void};

use crate::block::{Block, Pause, running};
use crate::report::{Access, Problem};

/// Mirrors `Hooks` of `runtime.cpp`.
#[repr(C)]
pub struct Hooks {
    access: extern "C" fn(u64, usize, i32, u64),
    aligned: extern "C" fn(u64, usize, u64),
    beyond: extern "C" fn(u64, u64),
    barrier: extern "C" fn(u64),
    shared: extern "C" fn(*const c_void, *const c_char, usize, usize, u64) -> *mut c_void,
    dynamic_shared: extern "C" fn() -> *mut c_void,
    number: extern "C" fn(i32) -> i64,
    exchange: extern "C" fn(*const c_void, usize, u64) -> *const c_void,
    copy_async: extern "C" fn(u64, u64, usize, u64),
    commit_async: extern "C" fn(),
    wait_async: extern "C" fn(i64),
}

pub static HOOKS: Hooks = Hooks {
    access,
    aligned,
    beyond,
    barrier,
    shared,
    dynamic_shared,
    number,
    exchange,
    copy_async,
    commit_async,
    wait_async,
};

/// Returns the value, or records the problem and suspends this thread of the block forever.
fn checked<R>(result: Result<R, Problem>, from: u64) -> R {
    match result {
        Ok(value) => value,
        Err(problem) => {
            running().fail(problem, from);
            loop {
                Block::pause(Pause::Failed);
            }
        }
    }
}

extern "C" fn access(address: u64, bytes: usize, kind: i32, from: u64) {
    let access = match kind {
        0 => Access::Read,
        1 => Access::Write,
        _ => Access::Atomic,
    };
    checked(running().access(address, bytes, access), from);
}

extern "C" fn aligned(address: u64, bytes: usize, from: u64) {
    let fine = address.is_multiple_of(bytes as u64);
    checked(if fine { Ok(()) } else { Err(Problem::Misaligned { address, bytes }) }, from);
}

extern "C" fn beyond(index: u64, from: u64) {
    checked(Err(Problem::Beyond { index: index as i64 }), from)
}

extern "C" fn barrier(from: u64) {
    Block::pause(Pause::Barrier { from });
}

extern "C" fn shared(
    place: *const c_void,
    name: *const c_char,
    bytes: usize,
    element: usize,
    _from: u64,
) -> *mut c_void {
    // SAFETY: the SHARED macro passes a string literal, which is nul-terminated and never freed.
    let name = unsafe { CStr::from_ptr(name) };
    running().shared(place as usize, name, bytes, element)
}

extern "C" fn dynamic_shared() -> *mut c_void {
    running().dynamic_shared()
}

extern "C" fn number(which: i32) -> i64 {
    running().number(which)
}

extern "C" fn exchange(mine: *const c_void, bytes: usize, from: u64) -> *const c_void {
    let mine = match bytes {
        0 => &[],
        // SAFETY: the kernel passes the address of a local variable of this size.
        _ => unsafe { std::slice::from_raw_parts(mine.cast::<u8>(), bytes) },
    };
    running().deposit(mine);
    Block::pause(Pause::Exchange { from });
    running().deposits()
}

extern "C" fn copy_async(to: u64, source: u64, bytes: usize, from: u64) {
    checked(running().copy_async(to, source, bytes), from);
}

extern "C" fn commit_async() {
    running().commit_async();
}

extern "C" fn wait_async(pending: i64) {
    running().wait_async(pending.max(0) as usize);
}
