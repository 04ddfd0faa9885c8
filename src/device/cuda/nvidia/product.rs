//! Matrix products through cuBLASLt, with a bias added or sums for a bias's gradient taken along the
//! way. A plan (descriptors and the algorithm that the library proposes first) is made once for every
//! shape and kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::null_mut;

use cudarc::cublaslt::sys;
use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t as Attribute;

use super::Gpu;
use crate::device::Precision;
use crate::device::backend::{Matrix, Product};
use crate::tensor::DType;
use crate::{Error, Result};

/// Bytes that an algorithm may use beside its operands: what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

pub(super) struct Products {
    pub precision: Precision,
    deterministic: bool,
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    /// None: the library has none.
    plans: RefCell<HashMap<Key, Option<Plan>>>,
}

/// What a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    a: Stored,
    b: Stored,
    out: Stored,
    depth: usize,
    /// Types of the operands and of `out`.
    operands: DType,
    result: DType,
    epilogue: Epilogue,
    /// What the addresses of a, b and out are multiples of, at most 16.
    alignment: [u32; 3],
}

/// What is done along the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Epilogue {
    None,
    /// Every row of `out` as the library sees it has a number added.
    Bias,
    /// The columns of `b` as the library sees it are summed.
    ColumnSums,
}

/// A matrix as the library sees it, column by column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    rows: usize,
    cols: usize,
    /// Elements from one column to the next.
    pitch: usize,
    transposed: bool,
}

struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    /// Of a, b and out.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

fn library_type(dtype: DType) -> Result<sys::cudaDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        DType::Bf16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        other => Err(Error::device(format!("no product of {other:?} on the GPU"))),
    }
}

fn check(status: sys::cublasStatus_t, call: &str) -> Result<()> {
    match status {
        sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        other => Err(Error::device(format!("{call}: {other:?}"))),
    }
}

/// A product as the library takes it: `outᵀ = bᵀ·aᵀ`, column by column, so that its first operand
/// is our second. Where the output itself is stored by columns, `out = a·b` is.
fn arranged(product: &Product) -> Result<(Key, [u64; 3])> {
    let by_rows = |m: &Matrix| m.col_stride == 1 || m.cols == 1;
    let (out, first, second) = match by_rows(&product.out) {
        true => (product.out, product.b, product.a),
        false => (product.out.t(), product.a.t(), product.b.t()),
    };
    // Bias and sums are those of `outᵀ`: a number for each column of `out`, or row of `a`.
    let epilogue = match (product.bias, product.row_sums) {
        (None, None) => Epilogue::None,
        (Some(_), None) if by_rows(&product.out) => Epilogue::Bias,
        (None, Some(_)) if by_rows(&product.out) => Epilogue::ColumnSums,
        _ => return Err(Error::shape("product", format!("cannot add to {product:?}"))),
    };
    // Of `m`, whose transpose is an operand.
    let stored = |m: &Matrix| -> Result<Stored> {
        let wrong = || Error::shape("product", format!("no library takes a matrix like {m:?}"));
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
    let key = Key {
        a: stored(&first)?,
        b: stored(&second)?,
        out: out_stored,
        depth: first.rows,
        operands: product.a.dtype,
        result: product.out.dtype,
        epilogue,
        alignment: addresses.map(|address| 1 << address.trailing_zeros().min(4)),
    };
    Ok((key, addresses))
}

impl Plan {
    /// Gives the descriptors back.
    fn free(&self) {
        // SAFETY: they are this plan's, which is used no more.
        unsafe {
            let _ = sys::cublasLtMatmulDescDestroy(self.operation);
            for layout in self.layouts {
                let _ = sys::cublasLtMatrixLayoutDestroy(layout);
            }
        }
    }
}

/// Sets an attribute of a product, of the type that NVIDIA's manual gives it.
fn set<V>(operation: sys::cublasLtMatmulDesc_t, attribute: Attribute, value: &V) -> Result<()> {
    // SAFETY: the descriptor is live, and the library copies the value.
    let status = unsafe {
        let value = (value as *const V).cast();
        sys::cublasLtMatmulDescSetAttribute(operation, attribute, value, size_of::<V>())
    };
    check(status, "cublasLtMatmulDescSetAttribute")
}

fn none_of(key: &Key) -> Error {
    Error::device(format!("cuBLASLt has no product for {key:?}"))
}

impl Products {
    pub fn new(gpu: &Gpu, precision: Precision, deterministic: bool) -> Result<Products> {
        gpu.enter()?;
        let mut handle = null_mut();
        // SAFETY: an out-pointer to a local.
        check(unsafe { sys::cublasLtCreate(&mut handle) }, "cublasLtCreate")?;
        let workspace = gpu.allocate(WORKSPACE)?;
        Ok(Products { precision, deterministic, handle, workspace, plans: RefCell::default() })
    }

    pub fn run(&self, stream: cudarc::driver::sys::CUstream, product: &Product) -> Result<()> {
        let (key, [a, b, out]) = arranged(product)?;
        let mut plans = self.plans.borrow_mut();
        let plan = match plans.entry(key) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(new) => new.insert(self.plan(&key)?),
        };
        let plan = plan.as_ref().ok_or_else(|| none_of(&key))?;
        if let Some(vector) = product.bias.or(product.row_sums) {
            let attribute = Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            set(plan.operation, attribute, &vector)?;
        }
        let (alpha, beta) = (1f32, product.accumulate as u32 as f32);
        let [a_layout, b_layout, layout] = plan.layouts;
        // SAFETY: descriptors are the plan's and of these operands' shapes; the operands are views
        // of live tensors; scalars are read now.
        let status = unsafe {
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
                &plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        };
        check(status, "cublasLtMatmul")
    }

    /// Whether the library has a product that sums a's rows along the way.
    pub fn sums_rows(&self, product: &Product) -> bool {
        let Ok((key, _)) = arranged(product) else { return false };
        let mut plans = self.plans.borrow_mut();
        match plans.entry(key) {
            Entry::Occupied(found) => found.get().is_some(),
            Entry::Vacant(new) => match self.plan(&key) {
                Ok(plan) => new.insert(plan).is_some(),
                Err(_) => false,
            },
        }
    }

    /// None where the library has no such product.
    fn plan(&self, key: &Key) -> Result<Option<Plan>> {
        // Sums of single numbers: versions of the library have been wrong there.
        if key.epilogue == Epilogue::ColumnSums && key.depth == 1 {
            return Ok(None);
        }
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let compute = match (key.operands, self.precision) {
            (DType::F32, Precision::Tf32) => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (scale, operands) = (sys::cudaDataType_t::CUDA_R_32F, library_type(key.operands)?);
        let types = [operands, operands, library_type(key.result)?];
        // cublasOperation_t: CUBLAS_OP_N is 0, CUBLAS_OP_T is 1.
        let transposition = |m: Stored| m.transposed as i32;
        let bytes = WORKSPACE;
        // Partial sums in their full type, added in a fixed order, or in place, as they come.
        use sys::cublasLtReductionScheme_t as Scheme;
        let mut schemes = Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        if !self.deterministic {
            schemes |= Scheme::CUBLASLT_REDUCTION_SCHEME_INPLACE as u32;
        }
        // SAFETY: out-pointers to locals; attributes are of the types that NVIDIA's manual gives.
        unsafe {
            let mut operation = null_mut();
            let made = sys::cublasLtMatmulDescCreate(&mut operation, compute, scale);
            check(made, "cublasLtMatmulDescCreate")?;
            set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transposition(key.a))?;
            set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &transposition(key.b))?;
            if key.epilogue != Epilogue::None {
                let epilogue = match key.epilogue {
                    Epilogue::Bias => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
                    _ => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BGRADB,
                };
                set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &(epilogue as u32))?;
                let vector = Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE;
                set(operation, vector, &(types[2] as u32))?;
            }
            let mut layouts = [null_mut(); 3];
            for ((layout, m), real) in layouts.iter_mut().zip([key.a, key.b, key.out]).zip(types) {
                let (rows, cols, pitch) = (m.rows as u64, m.cols as u64, m.pitch as i64);
                let made = sys::cublasLtMatrixLayoutCreate(layout, real, rows, cols, pitch);
                check(made, "cublasLtMatrixLayoutCreate")?;
            }
            let mut preference = null_mut();
            let made = sys::cublasLtMatmulPreferenceCreate(&mut preference);
            check(made, "cublasLtMatmulPreferenceCreate")?;
            let prefer = |attribute, value: *const c_void, bytes| {
                let set =
                    sys::cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes);
                check(set, "cublasLtMatmulPreferenceSetAttribute")
            };
            let most = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            prefer(most, (&raw const bytes).cast(), size_of::<usize>())?;
            let scheme = Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
            prefer(scheme, (&raw const schemes).cast(), 4)?;
            let [a, b, out] = &key.alignment;
            for (attribute, multiple) in [
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
            ] {
                prefer(attribute, (multiple as *const u32).cast(), 4)?;
            }
            let (mut best, mut count) = (zeroed::<sys::cublasLtMatmulHeuristicResult_t>(), 0);
            let asked = sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                operation,
                layouts[0],
                layouts[1],
                layouts[2],
                layouts[2],
                preference,
                1,
                &mut best,
                &mut count,
            );
            let _ = sys::cublasLtMatmulPreferenceDestroy(preference);
            let plan = Plan { operation, layouts, algorithm: best.algo };
            let success = sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
            let found = asked == success && count > 0 && best.state == success;
            if !found {
                plan.free();
                return Ok(None);
            }
            Ok(Some(plan))
        }
    }

    /// Gives everything back; a failure leaves it to the process's end.
    pub fn free(&mut self, gpu: &Gpu) {
        // SAFETY: made by this, and no longer used.
        unsafe {
            self.plans.get_mut().drain().filter_map(|(_, plan)| plan).for_each(|plan| plan.free());
            let _ = sys::cublasLtDestroy(self.handle);
        }
        let _ = gpu.free(self.workspace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library would do with the arrangement, by its own definition.
    fn perform(key: &Key, [a, b, out]: [u64; 3], accumulate: bool) {
        let at = |address: u64, m: Stored, row: usize, col: usize| {
            let (row, col) = if m.transposed { (col, row) } else { (row, col) };
            assert!(row < m.rows && col < m.cols, "{row},{col} of {m:?}");
            (address as *mut f32).wrapping_add(col * m.pitch + row)
        };
        for row in 0..key.out.rows {
            for col in 0..key.out.cols {
                // SAFETY: inside the matrices, as asserted.
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
        let (key, addresses) = arranged(&Product::plain(out, a, b, accumulate)).unwrap();
        perform(&key, addresses, accumulate);
        assert_eq!(out_data, expected, "{m},{n},{k}, orders {orders:b}, gap {gap}: {key:?}");
    }
}
