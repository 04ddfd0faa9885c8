//! Matmuls through cuBLASLt, with an epilogue that adds a bias or sums for a bias's gradient. A
//! plan (descriptors, and the algorithms that the library proposes) is made once for every shape
//! and kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::rc::Rc;

use cudarc::cublaslt::sys;
use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t as Attribute;

use super::faults;
use super::gpu::Gpu;
use crate::device::cuda::driver::Algorithm;
use crate::device::library_op::{LibraryOp, Matmul, Matrix};
use crate::device::precision::Precision;
use crate::dtype::DType;
use crate::{Error, Result};

/// Largest workspace of an algorithm in bytes: what NVIDIA recommends for Hopper.
const MAX_WORKSPACE: usize = 32 << 20;
/// Largest number of algorithms offered.
const MAX_ALGORITHMS: usize = 8;

pub(super) struct Matmuls {
    precision: Precision,
    deterministic: bool,
    handle: sys::cublasLtHandle_t,
    plans: RefCell<HashMap<Key, Rc<Plan>>>,
}

/// Everything that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    a: Stored,
    b: Stored,
    out: Stored,
    depth: usize,
    /// Types of the operands (`operands`) and of `out` (`result`).
    operands: DType,
    result: DType,
    epilogue: Epilogue,
    /// Alignment in bytes of the addresses of a, b and out, at most 16.
    alignment: [u32; 3],
    /// The same for the bias or the sums; 0 if there are none.
    vector_alignment: u32,
}

/// The epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Epilogue {
    None,
    /// Adds a number to every row of `out` as the library sees it.
    Bias,
    /// Sums the columns of `b` as the library sees it.
    ColumnSums,
}

/// A matrix as the library sees it, in column-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    rows: usize,
    cols: usize,
    /// Elements from one column to the next (the leading dimension).
    pitch: usize,
    transposed: bool,
}

struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    /// Layouts of a, b and out.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    /// Empty if the library does not support the matmul.
    algorithms: Vec<(Algorithm, sys::cublasLtMatmulAlgo_t)>,
}

fn library_type(dtype: DType) -> Result<sys::cudaDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        DType::Bf16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        other => Err(Error::device(format!("the GPU has no matmul of {other:?}"))),
    }
}

fn check(status: sys::cublasStatus_t, call: &str) -> Result<()> {
    match status {
        sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        sys::cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED => {
            Err(Error::device(format!("{call}: {status:?}{}", faults::possible())))
        }
        other => Err(Error::device(format!("{call}: {other:?}"))),
    }
}

/// Arranges a matmul for the library: `outᵀ = bᵀ·aᵀ` in column-major order, so that the library's
/// first operand is `b`. If the output itself is column-major, the library computes `out = a·b`.
fn arranged(product: &Matmul) -> Result<(Key, [u64; 3])> {
    let by_rows = |m: &Matrix| m.col_stride == 1 || m.cols == 1;
    let (out, first, second) = match by_rows(&product.out) {
        true => (product.out, product.b, product.a),
        false => (product.out.t(), product.a.t(), product.b.t()),
    };
    // Bias and sums belong to `outᵀ`: one number for each column of `out`, or row of `a`.
    let epilogue = match (product.bias, product.row_sums) {
        (None, None) => Epilogue::None,
        (Some(_), None) if by_rows(&product.out) => Epilogue::Bias,
        (None, Some(_)) if by_rows(&product.out) => Epilogue::ColumnSums,
        _ => return Err(Error::shape("product", format!("cannot add to {product:?}"))),
    };
    // How `m` is stored; the library's operand is its transpose.
    let stored = |m: &Matrix| -> Result<Stored> {
        let wrong = || {
            Error::shape(
                "product",
                format!("the library does not support a matrix of layout {m:?}"),
            )
        };
        let transposed = !by_rows(m);
        let m = if transposed { m.t() } else { *m };
        if !by_rows(&m) {
            return Err(wrong());
        }
        let pitch = if m.rows == 1 { m.cols as isize } else { m.row_stride };
        let pitch = usize::try_from(pitch).ok().filter(|&pitch| pitch >= m.cols);
        Ok(Stored { rows: m.cols, cols: m.rows, pitch: pitch.ok_or_else(wrong)?, transposed })
    };
    let out_stored = stored(&out)?;
    if out_stored.transposed {
        return Err(Error::shape("product", format!("cannot write {out:?}")));
    }
    let addresses = [first.address, second.address, out.address];
    let alignment = |address: u64| 1 << address.trailing_zeros().min(4);
    let key = Key {
        a: stored(&first)?,
        b: stored(&second)?,
        out: out_stored,
        depth: first.rows,
        operands: product.a.dtype,
        result: product.out.dtype,
        epilogue,
        alignment: addresses.map(alignment),
        vector_alignment: product.bias.or(product.row_sums).map_or(0, alignment),
    };
    Ok((key, addresses))
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: the handles belong to this plan; what cannot be destroyed lasts until the process
        // ends.
        unsafe {
            let _ = call!(CUBLASLT, sys::cublasLtMatmulDescDestroy(self.operation));
            for layout in self.layouts {
                let _ = call!(CUBLASLT, sys::cublasLtMatrixLayoutDestroy(layout));
            }
        }
    }
}

/// Sets an attribute of a matmul. `V` must be the type that NVIDIA's manual gives it.
fn set<V>(operation: sys::cublasLtMatmulDesc_t, attribute: Attribute, value: &V) -> Result<()> {
    // SAFETY: the descriptor is live, and the library copies the value.
    let status = unsafe {
        let value = (value as *const V).cast();
        call!(
            CUBLASLT,
            sys::cublasLtMatmulDescSetAttribute(operation, attribute, value, size_of::<V>())
        )
    };
    check(status, "cublasLtMatmulDescSetAttribute")
}

/// Names an algorithm and its settings: `66 1=20 2=1 3=0`. The name is the same in every process
/// with this library.
fn name_of(config: &sys::cublasLtMatmulAlgo_t) -> String {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Setting;
    let settings = [
        (Setting::CUBLASLT_ALGO_CONFIG_ID, 4),
        (Setting::CUBLASLT_ALGO_CONFIG_TILE_ID, 4),
        (Setting::CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4),
        (Setting::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4),
        (Setting::CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4),
        (Setting::CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4),
        (Setting::CUBLASLT_ALGO_CONFIG_STAGES_ID, 4),
        (Setting::CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2),
        (Setting::CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2),
    ];
    let told = settings.into_iter().filter_map(|(setting, bytes)| {
        let (mut value, mut written) = (0u32, 0);
        let to = (&raw mut value).cast();
        // SAFETY: `bytes` is the attribute's size according to NVIDIA's manual and at most that of
        // the local, whose low bytes come first.
        let status = unsafe {
            call!(
                CUBLASLT,
                sys::cublasLtMatmulAlgoConfigGetAttribute(config, setting, to, bytes, &mut written)
            )
        };
        // An older library has fewer settings.
        check(status, "cublasLtMatmulAlgoConfigGetAttribute").ok()?;
        Some(match setting {
            Setting::CUBLASLT_ALGO_CONFIG_ID => format!("{value}"),
            _ => format!("{}={value}", setting as u32),
        })
    });
    told.collect::<Vec<_>>().join(" ")
}

impl Matmuls {
    pub fn new(gpu: &Gpu, precision: Precision, deterministic: bool) -> Result<Matmuls> {
        let _entered = gpu.enter()?;
        let mut handle = null_mut();
        // SAFETY: the out-pointer refers to a local.
        check(unsafe { call!(CUBLASLT, sys::cublasLtCreate(&mut handle)) }, "cublasLtCreate")?;
        Ok(Matmuls { precision, deterministic, handle, plans: RefCell::default() })
    }

    pub fn algorithms(&self, product: &Matmul) -> Result<Vec<Algorithm>> {
        // The caller computes in another way what cannot be arranged.
        let Ok((key, _)) = arranged(product) else { return Ok(Vec::new()) };
        Ok(self
            .plan(key, product)?
            .algorithms
            .iter()
            .map(|(algorithm, _)| algorithm.clone())
            .collect())
    }

    pub fn run(
        &self,
        stream: cudarc::driver::sys::CUstream,
        product: &Matmul,
        algorithm: usize,
        workspace: u64,
    ) -> Result<()> {
        let (key, [a, b, out]) = arranged(product)?;
        let plan = self.plan(key, product)?;
        let found = plan.algorithms.get(algorithm);
        let (algorithm, config) = found.ok_or_else(|| LibraryOp::Matmul(*product).refused())?;
        if let Some(vector) = product.bias.or(product.row_sums) {
            let attribute = Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            set(plan.operation, attribute, &vector)?;
        }
        let (alpha, beta) = (1f32, product.accumulate as u32 as f32);
        let [a_layout, b_layout, layout] = plan.layouts;
        // SAFETY: the descriptors belong to the plan and match the operands' shapes; the operands
        // are views of live tensors, the workspace is as large as the algorithm needs, and scalars
        // are read during the call.
        let status = unsafe {
            call!(
                CUBLASLT,
                sys::cublasLtMatmul(
                    self.handle,
                    plan.operation,
                    (&raw const alpha).cast(),
                    a as *const c_void,
                    a_layout,
                    b as *const c_void,
                    b_layout,
                    (&raw const beta).cast(),
                    out as *const c_void,
                    layout,
                    out as *mut c_void,
                    layout,
                    config,
                    workspace as *mut c_void,
                    algorithm.workspace,
                    stream.cast(),
                )
            )
        };
        check(status, "cublasLtMatmul")
    }

    fn plan(&self, key: Key, product: &Matmul) -> Result<Rc<Plan>> {
        let vector = product.bias.or(product.row_sums);
        Ok(match self.plans.borrow_mut().entry(key) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => new.insert(Rc::new(self.new_plan(&key, vector)?)).clone(),
        })
    }

    /// Makes a plan. The library derives the alignment of the bias or the sums from their address,
    /// so it must be set before the library is asked for algorithms; each run sets its own.
    fn new_plan(&self, key: &Key, vector: Option<u64>) -> Result<Plan> {
        let compute = match (key.operands, self.precision) {
            (DType::F32, Precision::Tf32) => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (scale, operands) = (sys::cudaDataType_t::CUDA_R_32F, library_type(key.operands)?);
        let types = [operands, operands, library_type(key.result)?];
        // In cublasOperation_t, CUBLAS_OP_N is 0 and CUBLAS_OP_T is 1.
        let transposition = |m: Stored| m.transposed as i32;
        let mut operation = null_mut();
        // SAFETY: the out-pointer refers to a local.
        let made = unsafe {
            call!(CUBLASLT, sys::cublasLtMatmulDescCreate(&mut operation, compute, scale))
        };
        check(made, "cublasLtMatmulDescCreate")?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transposition(key.a))?;
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &transposition(key.b))?;
        if key.epilogue != Epilogue::None {
            let epilogue = match key.epilogue {
                Epilogue::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
                _ => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BGRADB,
            };
            set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &(epilogue as u32))?;
            let vector_type = Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE;
            set(operation, vector_type, &(types[2] as u32))?;
            set(operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector.unwrap_or(0))?;
        }
        let mut layouts = [null_mut(); 3];
        for ((layout, m), real) in layouts.iter_mut().zip([key.a, key.b, key.out]).zip(types) {
            let (rows, cols, pitch) = (m.rows as u64, m.cols as u64, m.pitch as i64);
            // SAFETY: the out-pointer refers to a local.
            let made = unsafe {
                call!(CUBLASLT, sys::cublasLtMatrixLayoutCreate(layout, real, rows, cols, pitch))
            };
            check(made, "cublasLtMatrixLayoutCreate")?;
        }
        let mut plan = Plan { operation, layouts, algorithms: Vec::new() };
        // With a depth of 1, the sums are over single elements; some versions of the library get
        // them wrong.
        if key.epilogue != Epilogue::ColumnSums || key.depth > 1 {
            plan.algorithms = self.proposals(&plan, key)?;
        }
        Ok(plan)
    }

    /// Returns the algorithms that the library proposes, its first choice first. There may be none.
    fn proposals(
        &self,
        plan: &Plan,
        key: &Key,
    ) -> Result<Vec<(Algorithm, sys::cublasLtMatmulAlgo_t)>> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let bytes = MAX_WORKSPACE;
        // Split-K sums are combined in the compute type and in a fixed order or, if results may
        // vary, also in place in order of arrival.
        use sys::cublasLtReductionScheme_t as Scheme;
        let mut schemes = Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        if !self.deterministic {
            schemes |= Scheme::CUBLASLT_REDUCTION_SCHEME_INPLACE as u32;
        }
        let [a, b, out] = plan.layouts;
        // SAFETY: the descriptors belong to the plan, out-pointers refer to locals, attributes have
        // the types that NVIDIA's manual gives them, and a result may be all zeros.
        let (asked, found) = unsafe {
            let mut preference = null_mut();
            let made = call!(CUBLASLT, sys::cublasLtMatmulPreferenceCreate(&mut preference));
            check(made, "cublasLtMatmulPreferenceCreate")?;
            let prefer = |attribute, value: *const c_void, bytes| {
                let set = call!(
                    CUBLASLT,
                    sys::cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes)
                );
                check(set, "cublasLtMatmulPreferenceSetAttribute")
            };
            let most = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            prefer(most, (&raw const bytes).cast(), size_of::<usize>())?;
            let scheme = Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
            prefer(scheme, (&raw const schemes).cast(), 4)?;
            for (attribute, multiple) in [
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &key.alignment[0]),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &key.alignment[1]),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &key.alignment[2]),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &key.alignment[2]),
            ] {
                prefer(attribute, (multiple as *const u32).cast(), 4)?;
            }
            let mut found = [zeroed::<sys::cublasLtMatmulHeuristicResult_t>(); MAX_ALGORITHMS];
            let mut count = 0;
            let asked = call!(
                CUBLASLT,
                sys::cublasLtMatmulAlgoGetHeuristic(
                    self.handle,
                    plan.operation,
                    a,
                    b,
                    out,
                    out,
                    preference,
                    MAX_ALGORITHMS as i32,
                    found.as_mut_ptr(),
                    &mut count,
                )
            );
            let _ = call!(CUBLASLT, sys::cublasLtMatmulPreferenceDestroy(preference));
            (asked, found.into_iter().take(count as usize))
        };
        let mut algorithms: Vec<(Algorithm, _)> = Vec::new();
        if check(asked, "cublasLtMatmulAlgoGetHeuristic").is_ok() {
            for result in found.filter(|result| check(result.state, "an algorithm").is_ok()) {
                let algorithm =
                    Algorithm { name: name_of(&result.algo), workspace: result.workspaceSize };
                if algorithms.iter().all(|(known, _)| known.name != algorithm.name) {
                    algorithms.push((algorithm, result.algo));
                }
            }
        }
        Ok(algorithms)
    }

    /// Frees everything; what cannot be freed lasts until the process ends.
    pub fn free(&mut self) {
        self.plans.get_mut().clear();
        // SAFETY: the handle was created by `new` and is no longer used.
        let _ = unsafe { call!(CUBLASLT, sys::cublasLtDestroy(self.handle)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::nvidia::libraries;
    use std::collections::BTreeSet;

    /// Computes the arrangement as the library defines it.
    fn perform(key: &Key, [a, b, out]: [u64; 3], accumulate: bool) {
        let at = |address: u64, m: Stored, row: usize, col: usize| {
            let (row, col) = if m.transposed { (col, row) } else { (row, col) };
            assert!(row < m.rows && col < m.cols, "{row},{col} of {m:?}");
            (address as *mut f32).wrapping_add(col * m.pitch + row)
        };
        for row in 0..key.out.rows {
            for col in 0..key.out.cols {
                // SAFETY: the elements are inside the matrices, as asserted.
                unsafe {
                    let mut sum = if accumulate { *at(out, key.out, row, col) } else { 0.0 };
                    for k in 0..key.depth {
                        sum += *at(a, key.a, row, k) * *at(b, key.b, k, col);
                    }
                    *at(out, key.out, row, col) = sum;
                }
            }
        }
    }

    /// The library returns an algorithm's settings without a GPU. Skipped if the library is absent
    /// (its folder in UDASS_CUDA_LIBRARIES).
    #[test]
    fn every_setting_of_an_algorithm_is_in_its_name() {
        if let Err(absent) = libraries::CUBLASLT.check() {
            println!("skipped: {absent}");
            return;
        }
        let of = |data: [u64; 8]| name_of(&sys::cublasLtMatmulAlgo_t { data });
        let plain = of([0; 8]);
        assert_eq!(plain, "0 1=0 2=0 3=0 4=0 5=0 6=0 7=0 8=0");
        let bits = (0..512).map(|bit| {
            let mut data = [0; 8];
            data[bit / 64] = 1 << (bit % 64);
            of(data)
        });
        let others: BTreeSet<_> = bits.filter(|name| *name != plain).collect();
        assert_eq!(others.len(), 7 * 32 + 2 * 16);
    }

    #[test]
    fn every_order_of_storage_is_arranged() {
        for (m, n, k) in [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (1, 4, 1)] {
            for orders in 0..8 {
                for accumulate in [false, true] {
                    for gap in [0, 2] {
                        one(m, n, k, orders, accumulate, gap);
                    }
                }
            }
        }
    }

    fn one(m: usize, n: usize, k: usize, orders: usize, accumulate: bool, gap: usize) {
        let numbers =
            |seed: usize| -> Vec<f32> { (0..100).map(|i| ((i * 7 + seed) % 11) as f32).collect() };
        let (a_data, b_data, mut out_data) = (numbers(1), numbers(2), numbers(3));
        let view = |address: u64, rows: usize, cols: usize, by_cols: bool| {
            let by_rows = |rows: usize, cols: usize| Matrix {
                address,
                dtype: DType::F32,
                rows,
                cols,
                row_stride: (cols + gap) as isize,
                col_stride: 1,
            };
            if by_cols { by_rows(cols, rows).t() } else { by_rows(rows, cols) }
        };
        let a = view(a_data.as_ptr() as u64, m, k, orders & 1 != 0);
        let b = view(b_data.as_ptr() as u64, k, n, orders & 2 != 0);
        let out = view(out_data.as_mut_ptr() as u64, m, n, orders & 4 != 0);
        let mut expected = out_data.clone();
        for row in 0..m {
            for col in 0..n {
                let at = |m: &Matrix, row: usize, col: usize| {
                    (row as isize * m.row_stride + col as isize * m.col_stride) as usize
                };
                let products = (0..k).map(|i| a_data[at(&a, row, i)] * b_data[at(&b, i, col)]);
                let to = &mut expected[at(&out, row, col)];
                *to = products.sum::<f32>() + if accumulate { *to } else { 0.0 };
            }
        }
        let (key, addresses) = arranged(&Matmul::plain(out, a, b, accumulate)).unwrap();
        perform(&key, addresses, accumulate);
        assert_eq!(out_data, expected, "{m},{n},{k}, orders {orders:b}, gap {gap}: {key:?}");
    }
}
