//! cuDNN's graph API: descriptors and their attributes, each with the type that NVIDIA's manual
//! gives it.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::cudnn::sys;
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendAttributeType_t as Type;
use sys::cudnnBackendDescriptorType_t as Kind;

use super::faults;
use crate::{Error, Result};

/// A type that an attribute can be set to or read as.
pub(super) trait Value: Copy {
    const TYPE: Type;
}

macro_rules! values {
    ($($value:ty: $type:ident),* $(,)?) => {
        $(impl Value for $value {
            const TYPE: Type = Type::$type;
        })*
    };
}

/// A device address.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Address(pub u64);

/// A `cudnnBackendNumericalNote_t`, as an integer because a newer library may return values that
/// are not listed here.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Note(pub i32);

/// A `cudnnBackendKnobType_t`, an integer for the same reason.
#[repr(transparent)]
#[derive(Clone, Copy, Default)]
pub(super) struct Knob(pub i32);

values! {
    i64: CUDNN_TYPE_INT64,
    f32: CUDNN_TYPE_FLOAT,
    Address: CUDNN_TYPE_VOID_PTR,
    Note: CUDNN_TYPE_NUMERICAL_NOTE,
    Knob: CUDNN_TYPE_KNOB_TYPE,
    sys::cudnnHandle_t: CUDNN_TYPE_HANDLE,
    sys::cudnnDataType_t: CUDNN_TYPE_DATA_TYPE,
    sys::cudnnConvolutionMode_t: CUDNN_TYPE_CONVOLUTION_MODE,
    sys::cudnnBackendHeurMode_t: CUDNN_TYPE_HEUR_MODE,
}

pub(super) fn check(status: sys::cudnnStatus_t, call: &str) -> Result<()> {
    match status {
        sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS => Ok(()),
        sys::cudnnStatus_t::CUDNN_STATUS_EXECUTION_FAILED => {
            Err(Error::device(format!("{call}: {status:?}{}", faults::possible())))
        }
        other => Err(Error::device(format!("{call}: {other:?}"))),
    }
}

/// An owned cuDNN descriptor.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the descriptor was created by `new` and is destroyed once; if that fails, it
        // lasts until the process ends.
        let _ = unsafe { call!(CUDNN, sys::cudnnBackendDestroyDescriptor(self.0)) };
    }
}

impl Descriptor {
    pub fn new(kind: Kind) -> Result<Descriptor> {
        let mut descriptor = null_mut();
        // SAFETY: the out-pointer refers to a local.
        let status =
            unsafe { call!(CUDNN, sys::cudnnBackendCreateDescriptor(kind, &mut descriptor)) };
        check(status, &format!("a descriptor {kind:?}"))?;
        Ok(Descriptor(descriptor))
    }

    pub fn set<V: Value>(&self, name: Name, values: &[V]) -> Result<()> {
        self.set_raw(name, V::TYPE, values.len(), values.as_ptr().cast())
    }

    pub fn set_descriptors(&self, name: Name, descriptors: &[&Descriptor]) -> Result<()> {
        let raw: Vec<_> = descriptors.iter().map(|descriptor| descriptor.0).collect();
        self.set_raw(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, raw.len(), raw.as_ptr().cast())
    }

    fn set_raw(&self, name: Name, of: Type, count: usize, values: *const c_void) -> Result<()> {
        // SAFETY: `values` points to `count` values of this type, and the library copies them.
        let status = unsafe {
            call!(CUDNN, sys::cudnnBackendSetAttribute(self.0, name, of, count as i64, values))
        };
        check(status, &format!("{name:?}"))
    }

    /// Finalizes the descriptor, after which no attribute may be set.
    ///
    /// # Errors
    /// Fails if the library does not support what the attributes describe.
    pub fn finalize(&self, what: &str) -> Result<()> {
        // SAFETY: the descriptor is live.
        check(unsafe { call!(CUDNN, sys::cudnnBackendFinalize(self.0)) }, what)
    }

    /// Reads an attribute of at most `most` values.
    pub fn get<V: Value + Default>(&self, name: Name, most: usize) -> Result<Vec<V>> {
        let mut values = vec![V::default(); most];
        let count = self.get_raw(name, V::TYPE, most, values.as_mut_ptr().cast())?;
        values.truncate(count);
        Ok(values)
    }

    /// Reads an attribute of at most `most` descriptors. The library fills in descriptors that
    /// exist already, so they are created first.
    pub fn get_descriptors(&self, name: Name, kind: Kind, most: usize) -> Result<Vec<Descriptor>> {
        let mut found = (0..most).map(|_| Descriptor::new(kind)).collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<_> = found.iter().map(|descriptor| descriptor.0).collect();
        let of = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        let count = self.get_raw(name, of, most, raw.as_mut_ptr().cast())?;
        found.truncate(count);
        Ok(found)
    }

    fn get_raw(&self, name: Name, of: Type, most: usize, values: *mut c_void) -> Result<usize> {
        let mut count = 0;
        // SAFETY: `values` has room for `most` values of this type.
        let status = unsafe {
            call!(
                CUDNN,
                sys::cudnnBackendGetAttribute(self.0, name, of, most as i64, &mut count, values)
            )
        };
        check(status, &format!("{name:?}"))?;
        // The library may report more values than there was room for.
        Ok(most.min(count as usize))
    }

    /// Runs a plan with the addresses and the workspace of a variant pack.
    pub fn execute(&self, handle: sys::cudnnHandle_t, pack: &Descriptor) -> Result<()> {
        // SAFETY: both descriptors are finalized, and the caller provides live addresses.
        check(
            unsafe { call!(CUDNN, sys::cudnnBackendExecute(handle, self.0, pack.0)) },
            "cudnnBackendExecute",
        )
    }
}
