//! Structs that grow from version to version, and other things behind a program's pointers.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use super::status::Failure;

/// A struct whose first field is its size in bytes, and for which all bytes 0 are the defaults.
///
/// # Safety
/// The type is `repr(C)`, begins with a `u32`, and every pattern of bytes is a value of it.
pub(super) unsafe trait Versioned: Copy {}

/// Returns the size that a program has given a struct of this type.
///
/// # Safety
/// `from` is null or points to a readable `u32`.
pub(super) unsafe fn size_of_given<T: Versioned>(
    from: *const T,
    name: &str,
) -> Result<usize, Failure> {
    if from.is_null() {
        return Err(Failure::argument(format!("{name} is null")));
    }
    // SAFETY: the type begins with its size, which the caller guarantees to be readable.
    let size = unsafe { from.cast::<u32>().read_unaligned() } as usize;
    // No struct has fewer than its size and one more field.
    if size < 8 || size > 64 * size_of::<T>() {
        let problem = format!("{name}: its first field, struct_size, is {size}: set it to sizeof");
        return Err(Failure::argument(problem));
    }
    Ok(size)
}

/// Copies a struct of a program that may have been compiled with another version of the header.
///
/// # Safety
/// `from` is null, or points to as many readable bytes as its first field says.
pub(super) unsafe fn read<T: Versioned>(from: *const T, name: &str) -> Result<T, Failure> {
    // SAFETY: the caller guarantees that the size can be read.
    let size = unsafe { size_of_given(from, name)? };
    let known = size.min(size_of::<T>());
    // SAFETY: the caller guarantees `size` readable bytes; nobody writes them during the call.
    let given = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size) };
    if given[known..].iter().any(|&byte| byte != 0) {
        let problem = format!("{name} uses fields that this version of the library does not have");
        return Err(Failure::argument(problem));
    }
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes fit in both, and every pattern of bytes is a value of the type.
    Ok(unsafe {
        std::ptr::copy_nonoverlapping(given.as_ptr(), value.as_mut_ptr().cast::<u8>(), known);
        value.assume_init()
    })
}

/// Returns a program's path.
///
/// # Safety
/// `path` is null or points to a string that ends in 0.
pub(super) unsafe fn path(path: *const c_char, name: &str) -> Result<PathBuf, Failure> {
    if path.is_null() {
        return Err(Failure::argument(format!("{name} is null")));
    }
    // SAFETY: the caller guarantees that the string ends.
    let text = unsafe { CStr::from_ptr(path) };
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(text.to_bytes()).into())
}

/// Returns `length` elements of a program's.
///
/// # Safety
/// `data` is null, or points to that many elements, which nobody writes during `'a`.
pub(super) unsafe fn slice<'a, T>(
    data: *const T,
    length: usize,
    name: &str,
) -> Result<&'a [T], Failure> {
    check(data, length, name)?;
    // SAFETY: the pointer was checked, and the caller guarantees the rest.
    Ok(unsafe { std::slice::from_raw_parts(data, length) })
}

/// Returns `length` elements of a program's to write to.
///
/// # Safety
/// `data` is null, or points to that many elements, which nobody else accesses during `'a`.
pub(super) unsafe fn slice_mut<'a, T>(
    data: *mut T,
    length: usize,
    name: &str,
) -> Result<&'a mut [T], Failure> {
    check(data, length, name)?;
    // SAFETY: the pointer was checked, and the caller guarantees the rest.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, length) })
}

fn check<T>(data: *const T, length: usize, name: &str) -> Result<(), Failure> {
    if data.is_null() || !data.is_aligned() {
        return Err(Failure::argument(format!("{name} is null or misaligned")));
    }
    match length.checked_mul(size_of::<T>()) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(Failure::argument(format!("{name} has {length} elements"))),
    }
}
