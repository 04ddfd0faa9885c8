//! Convolutions through cuDNN, B,H,W,C and K,R,S,C, of single precision or bf16 throughout. A plan (descriptors and the first algorithm
//! proposed that is deterministic and small enough) is made once for every shape and kept.
//!
//! These are the legacy calls. Of the graph API cudarc binds the entry points (`cudnnBackend…`) and no
//! more; which of its engines are deterministic, write single precision of bf16 operands and are the
//! faster ones has to be seen on a GPU, and this has not run on one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::ptr::null_mut;

use cudarc::cudnn::sys;

use super::Gpu;
use crate::device::Precision;
use crate::device::backend::{Convolution, ConvolutionPass};
use crate::tensor::DType;
use crate::{Error, Result};

/// Bytes that an algorithm may use beside its operands.
const MOST_WORKSPACE: usize = 512 << 20;
/// How many proposals are looked at: more than there are algorithms.
const PROPOSALS: usize = 16;

pub(super) struct Convolutions {
    precision: Precision,
    handle: sys::cudnnHandle_t,
    /// Address and bytes; the last is the largest. Recorded work may still use the others.
    workspaces: RefCell<Vec<(u64, usize)>>,
    plans: RefCell<HashMap<Key, Plan>>,
}

/// What a plan depends on: pass, type, B,H,W,C, filters, side and dilation.
type Key = (Algorithms, DType, [c_int; 7]);

/// Which of the library's three lists of algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Algorithms {
    Forward,
    Data,
    Filter,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Data(sys::cudnnConvolutionBwdDataAlgo_t),
    Filter(sys::cudnnConvolutionBwdFilterAlgo_t),
}

struct Plan {
    descriptors: Descriptors,
    algorithm: Algorithm,
    workspace: usize,
}

struct Descriptors {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

fn check(status: sys::cudnnStatus_t, call: &str) -> Result<()> {
    match status {
        sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS => Ok(()),
        other => Err(Error::device(format!("{call}: {other:?}"))),
    }
}

impl Convolutions {
    pub fn new(gpu: &Gpu, precision: Precision) -> Result<Convolutions> {
        gpu.enter()?;
        let mut handle = null_mut();
        // SAFETY: an out-pointer to a local; the stream is live.
        unsafe {
            check(sys::cudnnCreate(&mut handle), "cudnnCreate")?;
            check(sys::cudnnSetStream(handle, gpu.stream.cast()), "cudnnSetStream")?;
        }
        let (workspaces, plans) = (RefCell::default(), RefCell::default());
        Ok(Convolutions { precision, handle, workspaces, plans })
    }

    pub fn run(
        &self,
        gpu: &Gpu,
        stream: cudarc::driver::sys::CUstream,
        c: &Convolution,
    ) -> Result<()> {
        let (algorithms, accumulate) = match c.pass {
            ConvolutionPass::Forward { accumulate } => (Algorithms::Forward, accumulate),
            ConvolutionPass::Data { accumulate } => (Algorithms::Data, accumulate),
            ConvolutionPass::Filter { accumulate } => (Algorithms::Filter, accumulate),
        };
        let sizes = [c.batch, c.height, c.width, c.channels, c.filters, c.kernel, c.dilation];
        let key = (algorithms, c.dtype, sizes.map(|n| n as c_int));
        let mut plans = self.plans.borrow_mut();
        let plan = match plans.get(&key) {
            Some(plan) => plan,
            None => {
                let plan = self.plan(key)?;
                &*plans.entry(key).or_insert(plan)
            }
        };
        let (space, bytes) = self.workspace(gpu, plan.workspace)?;
        let (alpha, beta) = (1f32, accumulate as u32 as f32);
        let (alpha, beta) = ((&raw const alpha).cast(), (&raw const beta).cast());
        let Descriptors { x, w, y, convolution } = plan.descriptors;
        let [at_x, at_w, at_y] = [c.x, c.w, c.y].map(|address| address as *mut c_void);
        // SAFETY: descriptors are of these tensors' shapes, which are live; scalars are read now.
        let status = unsafe {
            check(sys::cudnnSetStream(self.handle, stream.cast()), "cudnnSetStream")?;
            match plan.algorithm {
                Algorithm::Forward(algorithm) => sys::cudnnConvolutionForward(
                    self.handle,
                    alpha,
                    x,
                    at_x,
                    w,
                    at_w,
                    convolution,
                    algorithm,
                    space,
                    bytes,
                    beta,
                    y,
                    at_y,
                ),
                Algorithm::Data(algorithm) => sys::cudnnConvolutionBackwardData(
                    self.handle,
                    alpha,
                    w,
                    at_w,
                    y,
                    at_y,
                    convolution,
                    algorithm,
                    space,
                    bytes,
                    beta,
                    x,
                    at_x,
                ),
                Algorithm::Filter(algorithm) => sys::cudnnConvolutionBackwardFilter(
                    self.handle,
                    alpha,
                    x,
                    at_x,
                    y,
                    at_y,
                    convolution,
                    algorithm,
                    space,
                    bytes,
                    beta,
                    w,
                    at_w,
                ),
            }
        };
        check(status, &format!("cuDNN's convolution of {key:?}"))
    }

    fn workspace(&self, gpu: &Gpu, bytes: usize) -> Result<(*mut c_void, usize)> {
        let mut spaces = self.workspaces.borrow_mut();
        if spaces.last().is_none_or(|&(_, size)| size < bytes) && bytes > 0 {
            spaces.push((gpu.allocate(bytes)?, bytes));
        }
        Ok(spaces.last().map_or((null_mut(), 0), |&(address, size)| (address as *mut c_void, size)))
    }

    fn plan(&self, key: Key) -> Result<Plan> {
        let descriptors = self.descriptors(key.1, key.2)?;
        let (algorithm, workspace, math) = self.choose(key, &descriptors)?;
        // SAFETY: the descriptor was just made.
        let set = unsafe { sys::cudnnSetConvolutionMathType(descriptors.convolution, math) };
        check(set, "cudnnSetConvolutionMathType")?;
        Ok(Plan { descriptors, algorithm, workspace })
    }

    fn descriptors(&self, dtype: DType, sizes: [c_int; 7]) -> Result<Descriptors> {
        let [batch, height, width, channels, filters, side, dilation] = sizes;
        let real = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let stored = match dtype {
            DType::F32 => real,
            DType::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            other => return Err(Error::device(format!("no convolution of {other:?} on the GPU"))),
        };
        let layout = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let padding = side / 2 * dilation;
        let math = match self.precision {
            Precision::F32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        let (mut x, mut y, mut w, mut convolution) =
            (null_mut(), null_mut(), null_mut(), null_mut());
        // SAFETY: out-pointers to locals.
        unsafe {
            for (tensor, depth) in [(&mut x, channels), (&mut y, filters)] {
                check(sys::cudnnCreateTensorDescriptor(tensor), "cudnnCreateTensorDescriptor")?;
                let set = sys::cudnnSetTensor4dDescriptor(
                    *tensor, layout, stored, batch, depth, height, width,
                );
                check(set, "cudnnSetTensor4dDescriptor")?;
            }
            check(sys::cudnnCreateFilterDescriptor(&mut w), "cudnnCreateFilterDescriptor")?;
            let set =
                sys::cudnnSetFilter4dDescriptor(w, stored, layout, filters, channels, side, side);
            check(set, "cudnnSetFilter4dDescriptor")?;
            let made = sys::cudnnCreateConvolutionDescriptor(&mut convolution);
            check(made, "cudnnCreateConvolutionDescriptor")?;
            let set = sys::cudnnSetConvolution2dDescriptor(
                convolution,
                padding,
                padding,
                1,
                1,
                dilation,
                dilation,
                mode,
                real,
            );
            check(set, "cudnnSetConvolution2dDescriptor")?;
            let set = sys::cudnnSetConvolutionMathType(convolution, math);
            check(set, "cudnnSetConvolutionMathType")?;
        }
        Ok(Descriptors { x, w, y, convolution })
    }

    /// The first proposal that may be used, its workspace and its kind of arithmetic.
    fn choose(
        &self,
        key: Key,
        descriptors: &Descriptors,
    ) -> Result<(Algorithm, usize, sys::cudnnMathType_t)> {
        let &Descriptors { x, w, y, convolution } = descriptors;
        let (handle, most, mut count) = (self.handle, PROPOSALS as c_int, 0);
        // The three lists differ in nothing but their types.
        macro_rules! first_of {
            ($ask:ident($($descriptor:expr),*), $proposal:ty, $algorithm:path) => {{
                // SAFETY: all zero is a value of it; the library fills in as many as it counts.
                let (proposals, status) = unsafe {
                    let mut proposals: [$proposal; PROPOSALS] = zeroed();
                    let at = proposals.as_mut_ptr();
                    let status = sys::$ask(handle, $($descriptor),*, most, &mut count, at);
                    (proposals, status)
                };
                check(status, stringify!($ask))?;
                let good = proposals.iter().take(count as usize).find(|proposal| {
                    proposal.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                        && proposal.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
                        && proposal.memory <= MOST_WORKSPACE
                        && (self.precision != Precision::F32
                            || proposal.mathType == sys::cudnnMathType_t::CUDNN_FMA_MATH)
                });
                good.map(|good| ($algorithm(good.algo), good.memory, good.mathType))
            }};
        }
        let chosen = match key.0 {
            Algorithms::Forward => first_of!(
                cudnnGetConvolutionForwardAlgorithm_v7(x, w, convolution, y),
                sys::cudnnConvolutionFwdAlgoPerf_t,
                Algorithm::Forward
            ),
            Algorithms::Data => first_of!(
                cudnnGetConvolutionBackwardDataAlgorithm_v7(w, y, convolution, x),
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                Algorithm::Data
            ),
            Algorithms::Filter => first_of!(
                cudnnGetConvolutionBackwardFilterAlgorithm_v7(x, y, convolution, w),
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                Algorithm::Filter
            ),
        };
        chosen.ok_or_else(|| {
            Error::device(format!(
                "cuDNN has no deterministic algorithm for a convolution of {key:?}"
            ))
        })
    }

    /// Gives everything back; a failure leaves it to the process's end.
    pub fn free(&mut self, gpu: &Gpu) {
        // SAFETY: made by this, and no longer used.
        unsafe {
            for (_, Plan { descriptors, .. }) in self.plans.get_mut().drain() {
                let _ = sys::cudnnDestroyTensorDescriptor(descriptors.x);
                let _ = sys::cudnnDestroyTensorDescriptor(descriptors.y);
                let _ = sys::cudnnDestroyFilterDescriptor(descriptors.w);
                let _ = sys::cudnnDestroyConvolutionDescriptor(descriptors.convolution);
            }
            let _ = sys::cudnnDestroy(self.handle);
        }
        for (address, _) in self.workspaces.get_mut().drain(..) {
            let _ = gpu.free(address);
        }
    }
}
