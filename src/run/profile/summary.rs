//! Calls added up.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::rates::Rates;
use crate::device::profile::{Call, Profile};

/// What calls are added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Source, teacher, mixing, … with what is forward and what is backward.
    Pass,
    /// Of the network: a backbone's stages, its decoder's parts.
    Stage,
    Kernel,
    /// Kernel and size.
    Shape,
    /// By the name in checkpoints.
    Layer,
}

impl Group {
    pub const ALL: [Group; 5] =
        [Group::Pass, Group::Stage, Group::Kernel, Group::Shape, Group::Layer];

    pub fn name(self) -> &'static str {
        match self {
            Group::Pass => "pass",
            Group::Stage => "stage",
            Group::Kernel => "kernel",
            Group::Shape => "shape",
            Group::Layer => "layer",
        }
    }

    fn key(self, call: &Call) -> String {
        let place = &call.place;
        match self {
            Group::Pass => place.pass(),
            Group::Stage => stage(&place.layer),
            Group::Kernel => call.work.name(),
            Group::Shape => call.work.to_string(),
            Group::Layer if place.layer.is_empty() => NO_LAYER.into(),
            Group::Layer => place.layer.to_string(),
        }
    }
}

/// What belongs to no layer: mixing, losses, resizing between parts, the update.
const NO_LAYER: &str = "no layer";

/// What several calls cost.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub name: String,
    pub calls: usize,
    pub seconds: f64,
    pub share: f64,
    pub bytes: f64,
    pub flops: f64,
    /// Seconds that the device needs for them at least.
    pub bound: f64,
    /// Seconds between each call and the one before it.
    pub gap: f64,
}

impl Row {
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "calls": self.calls,
            "seconds": self.seconds,
            "share": self.share,
            "bytes": self.bytes,
            "flops": self.flops,
            "bound_seconds": self.bound,
            "gap_seconds": self.gap,
        })
    }
}

/// The slowest first; passes in their order.
pub fn rows(profile: &Profile, rates: &Rates, group: Group) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut previous = 0.0;
    for call in &profile.calls {
        let key = group.key(call);
        let place = *places.entry(key.clone()).or_insert_with(|| {
            rows.push(Row { name: key, ..Row::default() });
            rows.len() - 1
        });
        let row = &mut rows[place];
        row.calls += 1;
        row.seconds += call.seconds;
        row.bytes += call.bytes;
        row.flops += call.flops;
        row.bound += rates.bound(call.bytes, call.flops);
        row.gap += call.start - previous;
        previous = call.start + call.seconds;
    }
    let all: f64 = rows.iter().map(|row| row.seconds).sum();
    rows.iter_mut().for_each(|row| row.share = row.seconds / all.max(f64::MIN_POSITIVE));
    if group != Group::Pass {
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.name.cmp(&b.name)));
    }
    rows
}

/// The part of a network that a layer belongs to: a backbone's stage, whose patch embedding, blocks
/// and norm end in its number, or the first two parts of the layer's name.
pub fn stage(layer: &str) -> String {
    if layer.is_empty() {
        return NO_LAYER.into();
    }
    let mut parts = layer.split('.');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let number = second.chars().last().and_then(|c| c.to_digit(10));
    let residual = ["conv", "bn", "stem"].iter().any(|name| second.starts_with(name));
    match number {
        Some(number) if first == "backbone" && !residual => format!("{first} stage {number}"),
        _ if first == "backbone" => format!("{first} stem"),
        _ => format!("{first}.{second}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_belong_to_stages() {
        let stages = [
            ("backbone.patch_embed1.proj", "backbone stage 1"),
            ("backbone.block3.12.mlp.fc1", "backbone stage 3"),
            ("backbone.norm4", "backbone stage 4"),
            ("backbone.layer2.0.conv1", "backbone stage 2"),
            ("backbone.stem.0", "backbone stem"),
            ("decode_head.head.fuse_layer.bottleneck.conv", "decode_head.head"),
            ("decode_head.conv_seg", "decode_head.conv_seg"),
            ("", "no layer"),
        ];
        for (layer, expected) in stages {
            assert_eq!(stage(layer), expected);
        }
    }
}
