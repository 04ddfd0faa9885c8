//! Maps each case to its family, and runs it.

mod contrast;
mod host;
mod iteration;
mod layout;
mod networks;
mod optimizer;
mod pieces;
mod sepico;
mod steps;
mod torch;
mod training;

use udass_raw::device::Device;

use super::cases::Outcome;
use super::report::Report;

fn said(error: udass_raw::Error) -> String {
    error.to_string()
}

/// Compares every stored number of its case.
pub type Runner = fn(&mut Report, &Device) -> Outcome;

pub struct Family {
    /// Part of the names of its cases.
    marker: &'static str,
    pub runner: Runner,
}

const fn of(marker: &'static str, runner: Runner) -> Family {
    Family { marker, runner }
}

/// The first family whose marker is in a case's name applies: longer markers precede those they
/// contain.
const FAMILIES: &[Family] = &[
    of("_piece_block_mask", pieces::block_mask),
    of("_piece_ce", pieces::cross_entropy),
    of("_piece_class_masks", pieces::class_masks),
    of("_piece_color_jitter", pieces::color_jitter),
    of("_piece_downscale_label", pieces::downscale_label),
    of("_piece_ema", optimizer::ema),
    of("_piece_feat_dist", pieces::feature_distance),
    of("_piece_gaussian_blur", pieces::gaussian_blur),
    of("_piece_imresize", host::imresize),
    of("_piece_lr", optimizer::schedule),
    of("_piece_metrics", host::metrics),
    of("_piece_one_mix", pieces::one_mix),
    of("_piece_pseudo_label", pieces::pseudo_label),
    of("_piece_rare_paste", pieces::rare_paste),
    of("_piece_rcs", host::rare_class_sampling),
    of("_piece_resize", pieces::resize),
    of("_piece_valid_mask", host::valid_mask),
    of("_sepico_proj_", contrast::projection),
    of("_sepico_estimator", contrast::statistics),
    of("_sepico_protocl", contrast::losses),
    of("_sepico_bankcl", contrast::losses),
    of("_sepico_distcl", contrast::losses),
    of("_sepico_chain", contrast::chain),
    of("_sepico_cbc", contrast::class_balanced_crop),
    of("_hrda_eval", networks::hrda_eval),
    of("_hrda_slide", networks::hrda_slide),
    of("_backbone", networks::backbone),
    of("_head", networks::head),
    of("_train", training::train),
    of("_plain", training::plain),
    of("_sepico_uda", sepico::iterations),
    of("_uda_chain", iteration::chain),
    of("_uda", iteration::single),
    of("_adamw", optimizer::adamw),
    of("_pth", torch::files),
];

pub fn family_of(case: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| case.contains(family.marker))
}
