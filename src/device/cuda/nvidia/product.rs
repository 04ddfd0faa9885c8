//! Matrix products through cuBLASLt. A plan (descriptors and the algorithm that the library
//! proposes first) is made once for every shape and kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::null_mut;

use cudarc::cublaslt::sys;

use super::Gpu;
use crate::device::Precision;
use crate::device::backend::{Matrix, Product};
use crate::tensor::DType;
use crate::{Error, Result};

/// Bytes that an algorithm may use beside its operands: what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

pub(super) struct Products {
    pub precision: Precision,
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    plans: RefCell<HashMap<Key, Plan>>,
}

/// What a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    a: Stored,
    b: Stored,
    out: Stored,
    depth: usize,
    /// What the addresses of a, b and out are multiples of, at most 16.
    alignment: [u32; 3],
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
        alignment: addresses.map(|address| 1 << address.trailing_zeros().min(4)),
    };
    Ok((key, addresses))
}

impl Products {
    pub fn new(gpu: &Gpu, precision: Precision) -> Result<Products> {
        gpu.enter()?;
        let mut handle = null_mut();
        // SAFETY: an out-pointer to a local.
        check(unsafe { sys::cublasLtCreate(&mut handle) }, "cublasLtCreate")?;
        let workspace = gpu.allocate(WORKSPACE)?;
        Ok(Products { precision, handle, workspace, plans: RefCell::default() })
    }

    pub fn run(&self, stream: cudarc::driver::sys::CUstream, product: &Product) -> Result<()> {
        let (key, [a, b, out]) = arranged(product)?;
        if product.out.dtype != DType::F32 {
            let problem = format!("no product of {:?} on the GPU", product.out.dtype);
            return Err(Error::device(problem));
        }
        let mut plans = self.plans.borrow_mut();
        let plan = match plans.get(&key) {
            Some(plan) => plan,
            None => {
                let plan = self.plan(&key)?;
                &*plans.entry(key).or_insert(plan)
            }
        };
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

    fn plan(&self, key: &Key) -> Result<Plan> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let compute = match self.precision {
            Precision::F32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            Precision::Tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        };
        let real = sys::cudaDataType_t::CUDA_R_32F;
        // cublasOperation_t: CUBLAS_OP_N is 0, CUBLAS_OP_T is 1.
        let transposition = |m: Stored| m.transposed as i32;
        let bytes = WORKSPACE;
        // Partial sums in their full type, added in a fixed order.
        let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        // SAFETY: out-pointers to locals; attributes are of the types that NVIDIA's manual gives.
        unsafe {
            let mut operation = null_mut();
            let made = sys::cublasLtMatmulDescCreate(&mut operation, compute, real);
            check(made, "cublasLtMatmulDescCreate")?;
            for (attribute, value) in [
                (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, transposition(key.a)),
                (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, transposition(key.b)),
            ] {
                let value = (&raw const value).cast();
                let set = sys::cublasLtMatmulDescSetAttribute(operation, attribute, value, 4);
                check(set, "cublasLtMatmulDescSetAttribute")?;
            }
            let mut layouts = [null_mut(); 3];
            for (layout, m) in layouts.iter_mut().zip([key.a, key.b, key.out]) {
                let (rows, cols, pitch) = (m.rows as u64, m.cols as u64, m.pitch as i64);
                let made = sys::cublasLtMatrixLayoutCreate(layout, real, rows, cols, pitch);
                check(made, "cublasLtMatrixLayoutCreate")?;
            }
            let mut preference = null_mut();
            let made = sys::cublasLtMatmulPreferenceCreate(&mut preference);
            check(made, "cublasLtMatmulPreferenceCreate")?;
            let set = |attribute, value: *const c_void, bytes| {
                let set =
                    sys::cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes);
                check(set, "cublasLtMatmulPreferenceSetAttribute")
            };
            let most = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            set(most, (&raw const bytes).cast(), size_of::<usize>())?;
            let scheme = Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
            set(scheme, (&raw const schemes).cast(), 4)?;
            let [a, b, out] = &key.alignment;
            for (attribute, multiple) in [
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
                (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
            ] {
                set(attribute, (multiple as *const u32).cast(), 4)?;
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
            check(asked, &format!("cuBLASLt has no product for {key:?}"))?;
            if count == 0 {
                return Err(Error::device(format!("cuBLASLt has no product for {key:?}")));
            }
            Ok(Plan { operation, layouts, algorithm: best.algo })
        }
    }

    /// Gives everything back; a failure leaves it to the process's end.
    pub fn free(&mut self, gpu: &Gpu) {
        // SAFETY: made by this, and no longer used.
        unsafe {
            for (_, plan) in self.plans.get_mut().drain() {
                let _ = sys::cublasLtMatmulDescDestroy(plan.operation);
                for layout in plan.layouts {
                    let _ = sys::cublasLtMatrixLayoutDestroy(layout);
                }
            }
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
        let (key, addresses) = arranged(&Product { out, a, b, accumulate }).unwrap();
        perform(&key, addresses, accumulate);
        assert_eq!(out_data, expected, "{m},{n},{k}, orders {orders:b}, gap {gap}: {key:?}");
    }
}
