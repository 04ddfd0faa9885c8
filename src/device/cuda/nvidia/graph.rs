//! cuDNN's graph API: descriptors and their attributes, each of the type that NVIDIA's manual gives it.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::cudnn::sys;
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendAttributeType_t as Type;
use sys::cudnnBackendDescriptorType_t as Kind;

use crate::{Error, Result};

/// What an attribute can be set to, or read as.
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

/// A `cudnnBackendNumericalNote_t`; a newer library may know more of them than are named here.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Note(pub i32);

/// A `cudnnBackendKnobType_t`, likewise.
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
        other => Err(Error::device(format!("{call}: {other:?}"))),
    }
}

/// A descriptor of the library's.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given up once; a failure leaves it to the process's end.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

impl Descriptor {
    pub fn new(kind: Kind) -> Result<Descriptor> {
        let mut descriptor = null_mut();
        // SAFETY: an out-pointer to a local.
        let status = unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut descriptor) };
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
        // SAFETY: as many values of the type lie there, and the library copies them.
        let status =
            unsafe { sys::cudnnBackendSetAttribute(self.0, name, of, count as i64, values) };
        check(status, &format!("{name:?}"))
    }

    /// No attribute is set after it. An error says that the library has nothing of this kind.
    pub fn finalize(&self, what: &str) -> Result<()> {
        // SAFETY: a live descriptor.
        check(unsafe { sys::cudnnBackendFinalize(self.0) }, what)
    }

    /// At most `most` values.
    pub fn get<V: Value + Default>(&self, name: Name, most: usize) -> Result<Vec<V>> {
        let mut values = vec![V::default(); most];
        let count = self.get_raw(name, V::TYPE, most, values.as_mut_ptr().cast())?;
        values.truncate(count);
        Ok(values)
    }

    /// At most `most` descriptors: they must be there, for the library to fill in.
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
        // SAFETY: there is room for as many values of the type.
        let status = unsafe {
            sys::cudnnBackendGetAttribute(self.0, name, of, most as i64, &mut count, values)
        };
        check(status, &format!("{name:?}"))?;
        // It may tell of more than there was room for.
        Ok(most.min(count as usize))
    }

    /// Runs a plan, with the addresses and the workspace of a variant pack.
    pub fn execute(&self, handle: sys::cudnnHandle_t, pack: &Descriptor) -> Result<()> {
        // SAFETY: both are final; the addresses are the caller's.
        check(unsafe { sys::cudnnBackendExecute(handle, self.0, pack.0) }, "cudnnBackendExecute")
    }
}
