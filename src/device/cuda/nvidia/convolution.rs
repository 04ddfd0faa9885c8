//! Convolutions through cuDNN's graph API, with tensors in B,H,W,C and filters in K,R,S,C order.
//! Each engine configuration that the library proposes for a shape is one algorithm, and its plan
//! is made once and kept. (The legacy calls reach only some of these engines.) The output has the
//! type of the inputs: the library has no engine that writes single precision from bf16 operands.
//!
//! Algorithms are deterministic unless others are allowed. In f32 none of them rounds operands
//! (tensor cores take single precision as TF32) or transforms them (Winograd and FFT compute other
//! sums).

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::null_mut;

use cudarc::cudnn::sys;
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendDescriptorType_t as Kind;
use sys::cudnnBackendNumericalNote_t as Numerical;

use super::gpu::Gpu;
use super::graph::{Address, Descriptor, Knob, Note, check};
use crate::device::cuda::driver::Algorithm;
use crate::device::library_op::{Convolution, ConvolutionPass, LibraryOp};
use crate::device::precision::Precision;
use crate::dtype::DType;
use crate::{Error, Result};

/// Largest workspace of an algorithm, in bytes.
const MAX_WORKSPACE: i64 = 512 << 20;
/// Largest number of algorithms offered, and of proposals examined for them.
const MAX_ALGORITHMS: usize = 8;
const MAX_PROPOSALS: usize = 64;
/// More notes and knobs than an engine has.
const MAX_NOTES: usize = 16;
const MAX_KNOBS: usize = 32;
/// Ids of x, w and y in the graph.
const TENSORS: [i64; 3] = [1, 2, 3];

pub(super) struct Convolutions {
    precision: Precision,
    deterministic: bool,
    gpu: Known,
    /// Plans by shape.
    plans: RefCell<HashMap<Convolution, Vec<Plan>>>,
}

/// The GPU that plans are made for.
enum Known {
    Handle(sys::cudnnHandle_t),
    /// A GPU known by its properties only: plans can be made, but not run.
    #[cfg(test)]
    Described(Descriptor),
}

struct Plan {
    algorithm: Algorithm,
    descriptor: Descriptor,
    /// The configuration that the plan was made from.
    _configuration: Descriptor,
}

impl Convolutions {
    pub fn new(gpu: &Gpu, precision: Precision, deterministic: bool) -> Result<Convolutions> {
        let _entered = gpu.enter()?;
        let mut handle = null_mut();
        // SAFETY: the out-pointer refers to a local.
        check(unsafe { call!(CUDNN, sys::cudnnCreate(&mut handle)) }, "cudnnCreate")?;
        Ok(Self::on(Known::Handle(handle), precision, deterministic))
    }

    fn on(gpu: Known, precision: Precision, deterministic: bool) -> Convolutions {
        Convolutions { precision, deterministic, gpu, plans: RefCell::default() }
    }

    pub fn algorithms(&self, c: &Convolution) -> Result<Vec<Algorithm>> {
        self.with_plans(c, |plans| Ok(plans.iter().map(|plan| plan.algorithm.clone()).collect()))
    }

    pub fn run(
        &self,
        stream: cudarc::driver::sys::CUstream,
        c: &Convolution,
        algorithm: usize,
        workspace: u64,
    ) -> Result<()> {
        #[cfg_attr(not(test), allow(irrefutable_let_patterns))]
        let Known::Handle(handle) = self.gpu else {
            return Err(Error::device("a described GPU cannot run anything"));
        };
        self.with_plans(c, |plans| {
            let Plan { algorithm, descriptor, .. } =
                plans.get(algorithm).ok_or_else(|| LibraryOp::Convolution(*c).refused())?;
            let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
            pack.set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &TENSORS)?;
            let addresses = [c.x, c.w, c.y].map(Address);
            pack.set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &addresses)?;
            pack.set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[Address(workspace)])?;
            pack.finalize("a convolution's addresses")?;
            // SAFETY: both handles are live.
            let set = unsafe { call!(CUDNN, sys::cudnnSetStream(handle, stream.cast())) };
            check(set, "cudnnSetStream")?;
            let ran = descriptor.execute(handle, &pack);
            ran.map_err(|e| Error::device(format!("{c}, engine {}: {e}", algorithm.name)))
        })
    }

    fn with_plans<R>(&self, c: &Convolution, f: impl FnOnce(&[Plan]) -> Result<R>) -> Result<R> {
        let mut known = self.plans.borrow_mut();
        let plans = match known.get(&c.shape()) {
            Some(plans) => plans,
            None => {
                let plans = self.find_plans(c.shape())?;
                &*known.entry(c.shape()).or_insert(plans)
            }
        };
        f(plans)
    }

    /// Makes plans of the library's proposals and its fallbacks, as far as they may be used. There
    /// may be none.
    fn find_plans(&self, shape: Convolution) -> Result<Vec<Plan>> {
        use sys::cudnnBackendHeurMode_t as Mode;
        let graph = self.operation_graph(shape)?;
        let mut plans: Vec<Plan> = Vec::new();
        for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
            for configuration in self.proposals(&graph, mode)? {
                if plans.len() == MAX_ALGORITHMS {
                    break;
                }
                let plan = self.plan(configuration)?;
                plans.extend(
                    plan.filter(|plan| {
                        plans.iter().all(|p| p.algorithm.name != plan.algorithm.name)
                    }),
                );
            }
        }
        Ok(plans)
    }

    fn operation_graph(&self, c: Convolution) -> Result<Descriptor> {
        let sizes = [
            [c.batch, c.channels, c.height, c.width],
            [c.filters, c.channels, c.kernel, c.kernel],
            [c.batch, c.filters, c.height, c.width],
        ];
        let alignments = [c.x, c.w, c.y];
        let tensors = [0, 1, 2].map(|i| tensor(TENSORS[i], sizes[i], c.dtype, alignments[i]));
        let [x, w, y] = tensors;
        let (x, w, y) = (x?, w?, y?);
        let taps = taps(&c)?;
        let (kind, [alpha, beta, of_taps, of_x, of_w, of_y]) = attributes(c.pass);
        let operation = Descriptor::new(kind)?;
        operation.set(alpha, &[1f32])?;
        operation.set(beta, &[c.accumulates() as u32 as f32])?;
        for (name, part) in [(of_taps, &taps), (of_x, &x), (of_w, &w), (of_y, &y)] {
            operation.set_descriptors(name, &[part])?;
        }
        operation.finalize(&format!("{c}"))?;
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        graph.set_descriptors(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?;
        self.tell_gpu(&graph, Some(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE), None)?;
        graph.finalize(&format!("{c}"))?;
        Ok(graph)
    }

    /// Sets the GPU in a descriptor, which takes a handle, a description or either, each as an
    /// attribute of its own.
    fn tell_gpu(
        &self,
        to: &Descriptor,
        handle: Option<Name>,
        _description: Option<Name>,
    ) -> Result<()> {
        match &self.gpu {
            Known::Handle(gpu) => handle.map_or(Ok(()), |name| to.set(name, &[*gpu])),
            #[cfg(test)]
            Known::Described(gpu) => {
                _description.map_or(Ok(()), |name| to.set_descriptors(name, &[gpu]))
            }
        }
    }

    /// Returns the engine configurations that the library proposes.
    fn proposals(
        &self,
        graph: &Descriptor,
        mode: sys::cudnnBackendHeurMode_t,
    ) -> Result<Vec<Descriptor>> {
        let proposals = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
        proposals.set_descriptors(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[graph])?;
        proposals.set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, &[mode])?;
        self.tell_gpu(&proposals, None, Some(Name::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP))?;
        proposals.finalize("cuDNN's proposals")?;
        let kind = Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
        proposals.get_descriptors(Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, kind, MAX_PROPOSALS)
    }

    /// Makes a plan of a proposal. Returns None if it is not allowed or does not work.
    fn plan(&self, configuration: Descriptor) -> Result<Option<Plan>> {
        let kind = Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR;
        let engines = configuration.get_descriptors(Name::CUDNN_ATTR_ENGINECFG_ENGINE, kind, 1)?;
        let Some(engine) = engines.first() else { return Ok(None) };
        let notes: Vec<Note> = engine.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, MAX_NOTES)?;
        if !self.allows(&notes) {
            return Ok(None);
        }
        let descriptor = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        let place = Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG;
        descriptor.set_descriptors(place, &[&configuration])?;
        let (handle, description) =
            (Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Name::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
        self.tell_gpu(&descriptor, Some(handle), Some(description))?;
        if descriptor.finalize("a plan").is_err() {
            return Ok(None);
        }
        let place = Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE;
        let workspace: i64 = descriptor.get(place, 1)?.first().copied().unwrap_or(0);
        if workspace > MAX_WORKSPACE {
            return Ok(None);
        }
        let algorithm =
            Algorithm { name: name_of(engine, &configuration)?, workspace: workspace as usize };
        Ok(Some(Plan { algorithm, descriptor, _configuration: configuration }))
    }

    fn allows(&self, notes: &[Note]) -> bool {
        let has = |any: &[Numerical]| any.iter().any(|&n| notes.contains(&Note(n as i32)));
        let other_sums = [
            Numerical::CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
            Numerical::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
            Numerical::CUDNN_NUMERICAL_NOTE_WINOGRAD,
            Numerical::CUDNN_NUMERICAL_NOTE_FFT,
        ];
        let rounded_sums = [Numerical::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION];
        let by_chance = [Numerical::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC];
        let as_defined = self.precision != Precision::F32 || !has(&other_sums);
        let repeats = !self.deterministic || !has(&by_chance);
        as_defined && repeats && !has(&rounded_sums)
    }

    /// Frees everything; what cannot be freed lasts until the process ends.
    pub fn free(&mut self) {
        self.plans.get_mut().clear();
        #[cfg_attr(not(test), allow(irrefutable_let_patterns))]
        if let Known::Handle(handle) = self.gpu {
            // SAFETY: the handle was created by `new` and is no longer used.
            let _ = unsafe { call!(CUDNN, sys::cudnnDestroy(handle)) };
        }
    }
}

/// Describes a tensor stored with its channels last. `sizes` are in the library's order, channels
/// second.
fn tensor(id: i64, sizes: [usize; 4], dtype: DType, alignment: u64) -> Result<Descriptor> {
    let real = match dtype {
        DType::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        DType::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        other => return Err(Error::device(format!("the GPU has no convolution of {other:?}"))),
    };
    let [n, c, h, w] = sizes.map(|size| size as i64);
    let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[real])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, c, h, w])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_STRIDES, &[h * w * c, 1, w * c, c])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[alignment as i64])?;
    tensor.finalize(&format!("a tensor of {sizes:?} {dtype:?}"))?;
    Ok(tensor)
}

/// Describes how the filter moves over the image: stride, padding and dilation.
fn taps(c: &Convolution) -> Result<Descriptor> {
    let (padding, dilation) = ((c.kernel / 2 * c.dilation) as i64, c.dilation as i64);
    let (sums, mode) = (
        sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
    );
    let taps = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    taps.set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[sums])?;
    taps.set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[mode])?;
    taps.set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2i64])?;
    taps.set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[dilation; 2])?;
    taps.set(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &[1i64; 2])?;
    taps.set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[padding; 2])?;
    taps.set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[padding; 2])?;
    taps.finalize("a convolution's filter size")?;
    Ok(taps)
}

/// Returns the operation of a pass, and its attributes: alpha, beta, taps, x, w, y.
fn attributes(pass: ConvolutionPass) -> (Kind, [Name; 6]) {
    match pass {
        ConvolutionPass::Forward { .. } => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            ],
        ),
        ConvolutionPass::Data { .. } => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            ],
        ),
        ConvolutionPass::Filter { .. } => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
            ],
        ),
    }
}

/// Names an engine and its settings: `65 2=1 13=0`. The name is the same in every process with this
/// library.
fn name_of(engine: &Descriptor, configuration: &Descriptor) -> Result<String> {
    let index = engine.get::<i64>(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1)?;
    let mut name = index.first().map_or(String::new(), |index| format!("{index}"));
    let kind = Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
    let autotune = Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES;
    for choice in configuration.get_descriptors(autotune, kind, MAX_KNOBS)? {
        let knob = choice.get::<Knob>(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, 1)?;
        let value = choice.get::<i64>(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 1)?;
        for (Knob(knob), value) in knob.into_iter().zip(value) {
            name += &format!(" {knob}={value}");
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::nvidia::graph::Value;
    use crate::device::cuda::nvidia::libraries;

    /// An H100 as the library describes one, so that no GPU is needed. The library takes it from
    /// version 9.11 on.
    const H100: &str = r#"{"deviceName": "NVIDIA H100 80GB HBM3", "deviceVer": 900, "driverVer": 13000,
        "multiProcessorCount": 132, "warpSize": 32, "maxGridSize": [2147483647, 65535, 65535],
        "maxBlockSize": [1024, 1024, 64], "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048,
        "maxCtasPerSM": 32, "regsPerBlock": 65536, "maxRegistersPerSM": 65536,
        "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
        "reservedSharedMemoryPerBlock": 1024, "l2CacheSize": 52428800,
        "totalGlobalMem": 85017493504, "smClockRateKHz": 1980000, "memClockRateKHz": 2619000,
        "cudaDeviceId": 0, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1}"#;

    /// Returns None if the libraries are absent (their folders in UDASS_CUDA_LIBRARIES) or too old.
    fn described(precision: Precision, deterministic: bool) -> Option<Convolutions> {
        let properties = || {
            // cuDNN looks for cuBLASLt by name alone, and aborts the process if it finds none.
            libraries::CUBLASLT.check()?;
            libraries::CUDNN.check()?;
            let properties = Descriptor::new(Kind::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)?;
            let json: Vec<Character> = H100.bytes().map(Character).collect();
            properties.set(Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, &json)?;
            properties.finalize("a GPU's properties")?;
            Ok(properties)
        };
        match properties() {
            Ok(gpu) => Some(Convolutions::on(Known::Described(gpu), precision, deterministic)),
            Err::<_, Error>(absent) => {
                println!("skipped: {absent}");
                None
            }
        }
    }

    #[repr(transparent)]
    #[derive(Clone, Copy)]
    struct Character(#[allow(dead_code)] u8);

    impl Value for Character {
        const TYPE: sys::cudnnBackendAttributeType_t =
            sys::cudnnBackendAttributeType_t::CUDNN_TYPE_CHAR;
    }

    /// Batch, side, channels, filters and dilation: those of the decoder, of a ResNet's dilated
    /// layers and its stem, of DeepLab's classifier, and an odd one.
    const SHAPES: [[usize; 5]; 6] = [
        [4, 128, 1024, 256, 1],
        [2, 64, 512, 512, 4],
        [18, 64, 256, 256, 2],
        [2, 256, 32, 64, 1],
        [2, 64, 2048, 19, 6],
        [1, 5, 7, 3, 2],
    ];

    fn passes() -> [ConvolutionPass; 6] {
        [false, true]
            .map(|accumulate| {
                [
                    ConvolutionPass::Forward { accumulate },
                    ConvolutionPass::Data { accumulate },
                    ConvolutionPass::Filter { accumulate },
                ]
            })
            .concat()
            .try_into()
            .unwrap()
    }

    fn convolution(pass: ConvolutionPass, dtype: DType, shape: [usize; 5]) -> Convolution {
        let [batch, side, channels, filters, dilation] = shape;
        // With an odd number of channels, not all tensors are aligned to 16 bytes.
        let odd = channels % 2;
        let [x, w, y] = [(1 << 20) + (odd * dtype.bytes()) as u64; 3];
        let (height, width, kernel) = (side, side + odd, 3);
        Convolution {
            pass,
            dtype,
            x,
            w,
            y,
            batch,
            height,
            width,
            channels,
            filters,
            kernel,
            dilation,
        }
    }

    #[test]
    fn every_shape_has_ways_on_a_gpu_that_is_not_there() {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            let dtype = if precision == Precision::Bf16 { DType::Bf16 } else { DType::F32 };
            let Some(convolutions) = described(precision, true) else { return };
            for (shape, pass) in SHAPES.into_iter().flat_map(|s| passes().map(|pass| (s, pass))) {
                let c = convolution(pass, dtype, shape);
                let algorithms =
                    convolutions.algorithms(&c).unwrap_or_else(|e| panic!("{precision:?}: {e}"));
                println!("{precision:?} {c}: {} algorithms, {:?}", algorithms.len(), algorithms[0]);
                let apart: std::collections::BTreeSet<_> =
                    algorithms.iter().map(|w| &w.name).collect();
                assert_eq!(apart.len(), algorithms.len(), "{c}: {algorithms:?}");
                // Search again, as another process would.
                let again = convolutions.find_plans(c.shape()).unwrap();
                assert!(again.iter().map(|plan| &plan.algorithm).eq(&algorithms), "{c}");
            }
        }
    }

    #[test]
    fn tensor_cores_are_for_who_rounds_and_chance_for_who_allows_it() {
        use Numerical as N;
        let notes = |all: &[N]| all.iter().map(|&n| Note(n as i32)).collect::<Vec<_>>();
        let chance = notes(&[N::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC]);
        let cores = notes(&[N::CUDNN_NUMERICAL_NOTE_TENSOR_CORE]);
        for (precision, deterministic) in [(Precision::F32, true), (Precision::Tf32, false)] {
            let handle = Known::Handle(null_mut());
            let convolutions = Convolutions::on(handle, precision, deterministic);
            assert!(convolutions.allows(&[]));
            assert!(convolutions.allows(&notes(&[N::CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP])));
            assert_eq!(convolutions.allows(&chance), !deterministic);
            assert_eq!(convolutions.allows(&cores), precision != Precision::F32);
        }
    }
}
