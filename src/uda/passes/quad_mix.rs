//! QuadMix: classes from the templates of both domains (the images of the previous iteration) are
//! pasted over the source and over the target, and long-tail classes on top.

use crate::ops::mix::{self, Labeled, Layer, Mix};
use crate::uda::batch::DeviceBatch;
use crate::uda::inputs::PassKind;
use crate::uda::state::TrainingState;
use crate::uda::trace::Trace;
use crate::{Error, Result};

use super::mixed::{candidates, mixed};
use super::student::StudentPass;

pub(in crate::uda) fn quad_mix(
    state: &TrainingState,
    batch: &DeviceBatch,
    target: &Labeled,
    trace: &mut Trace,
) -> Result<[StudentPass; 2]> {
    let TrainingState { device, inputs, templates, normalizer, crop_normalization, config, .. } =
        state;
    let Some([rare_on_source, rare_on_target]) = &batch.rare else {
        return Err(Error::config("QuadMix needs a batch with long-tail crops"));
    };
    let candidates = candidates(state);
    let (source_table, chosen) = mix::choose_two(
        device,
        &templates.source.label,
        &inputs.template_source,
        candidates,
        None,
        config.quadmix.released_exclusion,
    )?;
    let (target_table, _) = mix::choose_two(
        device,
        &templates.target.label,
        &inputs.template_target,
        candidates,
        Some(&chosen),
        false,
    )?;
    trace.tensor("quad/table", &target_table)?;
    let lower = Layer { of: &templates.source, table: &source_table, confident: None };
    let upper = Layer {
        of: &templates.target,
        table: &target_table,
        confident: Some(&templates.confident),
    };
    if trace.is_complete() {
        for (name, under) in [("tss", &batch.source), ("tst", target)] {
            let background = Mix { under, layers: [Some(lower), None], rare: None };
            let background = mix::mix(device, normalizer, background, None)?;
            trace.labeled(&format!("quad/{name}/background_"), &background)?;
        }
    }
    let layers = [Some(lower), Some(upper)];
    let over_source =
        Mix { under: &batch.source, layers, rare: Some((rare_on_source, crop_normalization)) };
    let over_target =
        Mix { under: target, layers, rare: Some((rare_on_target, crop_normalization)) };
    Ok([
        StudentPass {
            kind: PassKind::Mixed,
            prefix: "mix_tss.",
            input: mixed(state, over_source, PassKind::Mixed)?,
            loss_weights: Some([0.5; 2]),
            contrasted: false,
        },
        StudentPass {
            kind: PassKind::MixedTarget,
            prefix: "mix_tst.",
            input: mixed(state, over_target, PassKind::MixedTarget)?,
            loss_weights: Some([0.5; 2]),
            contrasted: false,
        },
    ])
}
