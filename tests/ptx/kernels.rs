//! A test for each kernel and precision, which reads what the process with the cases recorded.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use udass_raw::device::kernels::ALL;

use crate::nvcc;
use crate::records::{self, RECORDS, Verdict};

/// What running the cases gave.
struct Run {
    verdicts: BTreeMap<(String, String), Verdict>,
    output: Output,
}

/// Runs the cases once, in a process of their own; `None` if nvcc is not found.
fn run() -> Option<&'static Run> {
    static RUN: OnceLock<Option<Run>> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        if nvcc::find().is_none() {
            let required = std::env::var_os("UDASS_REQUIRE_NVCC").is_some();
            assert!(!required, "UDASS_REQUIRE_NVCC is set, but nvcc was not found");
            return None;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let list = tempfile::NamedTempFile::new_in(folder).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .arg("cases::")
            .env(RECORDS, list.path())
            .output()
            .unwrap();
        let verdicts = records::read(&std::fs::read_to_string(list.path()).unwrap());
        let counts = folder.join("ptx-statistics.json");
        std::fs::write(counts, records::json(&verdicts)).unwrap();
        Some(Run { verdicts, output })
    });
    run.as_ref()
}

/// Tells which test is skipped. Written past the harness, which shows no output of tests that pass.
pub fn skip(what: &str) {
    let _ = writeln!(std::io::stderr(), "skipped {what}: nvcc was not found");
}

fn check(kernel: &str, types: &str) {
    let Some(run) = run() else { return skip(&format!("{kernel} in {types}")) };
    let Some(verdict) = run.verdicts.get(&(kernel.into(), types.into())) else {
        panic!("{kernel} was never launched in {types}");
    };
    let (launches, failed) = (verdict.launches, verdict.problems.len());
    if let Some(first) = verdict.problems.first() {
        panic!("{failed} of {launches} launches failed, the first one:\n{first}");
    }
}

#[test]
fn every_case_passes() {
    let Some(run) = run() else { return skip("the cases") };
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stdout));
}

/// The lists of tests below must name what the build compiles.
#[test]
fn every_kernel_has_its_tests() {
    let all: Vec<&str> = ALL.iter().map(|kernel| kernel.name).collect();
    assert_eq!(all, NAMES, "the list in tests/ptx/kernels.rs must be that of the kernels");
}

macro_rules! tests {
    ($($kernel:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($kernel)),*];

        mod f32 {
            $(#[test]
            fn $kernel() {
                super::check(stringify!($kernel), "F32");
            })*
        }

        mod bf16 {
            $(#[test]
            fn $kernel() {
                super::check(stringify!($kernel), "BF16");
            })*
        }
    };
}

tests! {
    attention_pack attention_forward attention_backward attention_keys_gradient
    attention_mma_forward attention_mma_queries attention_mma_keys color_jitter blur_weights
    blur_rows blur_columns batchnorm_partial batchnorm_statistics batchnorm_inverse
    batchnorm_forward batchnorm_gradient_partial batchnorm_gradient_final batchnorm_backward
    count_in_boxes score_boxes choose_box move_channels channel_mask scale_channels class_sums
    class_counts class_means merge_class_statistics push_class_means bank_centers confusion_partial
    confusion_final contrast_regularizer contrast_rows contrast_bank_rows contrast_final
    cross_entropy_rows cross_entropy_final cross_entropy_gather cross_entropy_backward depthwise
    depthwise_gelu depthwise_filter depthwise_gelu_filter fill add_scaled downcast upcast add
    relu_backward fill_rows column_sums_partial column_sums_final feature_distance_rows
    feature_distance_final feature_distance_backward not_finite_partial not_finite_final
    hrda_attention hrda_fuse hrda_backward_detail hrda_backward_context normalize block_mask
    l2_normalize l2_normalize_backward downscale_labels ignore_unweighted layernorm_forward layernorm_backward layernorm_weights count_values
    value_presence choose_half choose_two mix adamw commit_real commit_bytes commit_counts patches_gather
    patches_scatter max_pool max_pool_backward classify_rows pseudo_share pseudo_weight
    resize_forward resize_forward_wide resize_backward crop_reals crop_bytes window_crops
    window_average
}
