//! Which family a case belongs to, and what runs it.

mod host;
mod iteration;
mod layout;
mod networks;
mod optimizer;
mod pieces;
mod torch;
mod training;

use udass_raw::device::Device;

use super::cases::Outcome;
use super::report::Report;

/// What a runner did with its case.
pub enum Ran {
    /// All of it: every stored number must have been compared.
    Whole,
    /// Nothing, for a network or an operation that the case needs is not built yet.
    Skipped(String),
}

fn said(error: udass_raw::Error) -> String {
    error.to_string()
}

pub type Runner = fn(&mut Report, &Device) -> Outcome<Ran>;

pub struct Family {
    /// Stands in the names of its cases.
    marker: &'static str,
    pub what: &'static str,
    pub runner: Runner,
}

const fn built(marker: &'static str, what: &'static str, runner: Runner) -> Family {
    Family { marker, what, runner }
}

/// The first whose marker stands in a name is its family: longer markers precede what they
/// contain.
const FAMILIES: &[Family] = &[
    built("_piece_block_mask", "the block mask", pieces::block_mask),
    built("_piece_ce", "cross-entropy", pieces::cross_entropy),
    built("_piece_class_masks", "class masks", pieces::class_masks),
    built("_piece_color_jitter", "colour jitter", pieces::color_jitter),
    built("_piece_downscale_label", "label down-scaling", pieces::downscale_label),
    built("_piece_ema", "the mean teacher", optimizer::ema),
    built("_piece_feat_dist", "the feature distance", pieces::feature_distance),
    built("_piece_gaussian_blur", "Gaussian blur", pieces::gaussian_blur),
    built("_piece_imresize", "picture scaling", host::imresize),
    built("_piece_lr", "the learning-rate schedule", optimizer::schedule),
    built("_piece_metrics", "metrics", host::metrics),
    built("_piece_one_mix", "mixing", pieces::one_mix),
    built("_piece_pseudo_label", "pseudo-labels", pieces::pseudo_label),
    built("_piece_rare_paste", "the rare-class paste", pieces::rare_paste),
    built("_piece_rcs", "rare-class sampling", host::rare_class_sampling),
    built("_piece_resize", "bilinear resize", pieces::resize),
    built("_piece_valid_mask", "the mask of valid pixels", host::valid_mask),
    built("_hrda_eval", "HRDA inference", networks::hrda_eval),
    built("_hrda_slide", "sliding inference", networks::hrda_slide),
    built("_backbone", "backbones", networks::backbone),
    built("_head", "heads", networks::head),
    built("_train", "HRDA training", training::train),
    built("_plain", "single-scale networks", training::plain),
    built("_uda_chain", "chained iterations", iteration::chain),
    built("_uda", "whole iterations", iteration::single),
    built("_adamw", "AdamW", optimizer::adamw),
    built("_pth", "reading .pth files", torch::files),
];

pub fn family_of(case: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| case.contains(family.marker))
}
