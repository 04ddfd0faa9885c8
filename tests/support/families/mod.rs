//! Which family a case belongs to, and what runs it.

mod optimizer;

use super::cases::Outcome;
use super::report::Report;

/// What a runner did with its case.
pub enum Ran {
    /// All of it: every stored number must have been compared.
    Whole,
    /// Nothing, for a network or an operation that the case needs is not built yet.
    Skipped(String),
}

pub type Runner = fn(&mut Report) -> Outcome<Ran>;

pub struct Family {
    /// Stands in the names of its cases.
    marker: &'static str,
    pub what: &'static str,
    /// None until it is built.
    pub runner: Option<Runner>,
}

const fn built(marker: &'static str, what: &'static str, runner: Runner) -> Family {
    Family { marker, what, runner: Some(runner) }
}

const fn missing(marker: &'static str, what: &'static str) -> Family {
    Family { marker, what, runner: None }
}

/// The first whose marker stands in a name is its family: longer markers precede what they
/// contain.
const FAMILIES: &[Family] = &[
    missing("_piece_block_mask", "the block mask"),
    missing("_piece_ce", "cross-entropy"),
    missing("_piece_class_masks", "class masks"),
    missing("_piece_color_jitter", "colour jitter"),
    missing("_piece_downscale_label", "label down-scaling"),
    built("_piece_ema", "the mean teacher", optimizer::ema),
    missing("_piece_feat_dist", "the feature distance"),
    missing("_piece_gaussian_blur", "Gaussian blur"),
    missing("_piece_imresize", "picture scaling"),
    built("_piece_lr", "the learning-rate schedule", optimizer::schedule),
    missing("_piece_metrics", "metrics"),
    missing("_piece_one_mix", "mixing"),
    missing("_piece_pseudo_label", "pseudo-labels"),
    missing("_piece_rare_paste", "the rare-class paste"),
    missing("_piece_rcs", "rare-class sampling"),
    missing("_piece_resize", "bilinear resize"),
    missing("_piece_valid_mask", "the mask of valid pixels"),
    missing("_hrda_eval", "HRDA inference"),
    missing("_hrda_slide", "sliding inference"),
    missing("_backbone", "backbones"),
    missing("_head", "heads"),
    missing("_train", "HRDA training"),
    missing("_plain", "single-scale networks"),
    missing("_uda_chain", "chained iterations"),
    missing("_uda", "whole iterations"),
    built("_adamw", "AdamW", optimizer::adamw),
    missing("_pth", "reading .pth files"),
];

pub fn family_of(case: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| case.contains(family.marker))
}
