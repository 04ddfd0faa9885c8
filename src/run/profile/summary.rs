//! Aggregates profiled calls into table rows.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::rates::Rates;
use crate::device::profile::{Call, Profile};

/// The key by which calls are aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The part of the iteration (source, teacher, mixing, …), forward and backward separately.
    Pass,
    /// The part of the network: a stage of the backbone or a part of the decoder.
    Stage,
    /// The kernel.
    Kernel,
    /// The kernel and its size.
    Shape,
    /// The layer, by its name in checkpoints.
    Layer,
}

impl Group {
    /// All groups, in the order in which they are shown.
    pub const ALL: [Group; 5] =
        [Group::Pass, Group::Stage, Group::Kernel, Group::Shape, Group::Layer];

    /// The group's name in tables and JSON keys.
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

/// The name for calls outside of any layer: mixing, losses, resizing between parts, the update.
const NO_LAYER: &str = "no layer";

/// The total cost of the calls that share a key.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The key that the calls share.
    pub name: String,
    /// Number of calls.
    pub calls: usize,
    /// Total time.
    pub seconds: f64,
    /// Share of the time of all calls, from 0 to 1.
    pub share: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Lower bound of the time on this device, in seconds.
    pub bound: f64,
    /// Total idle time before these calls, in seconds.
    pub gap: f64,
}

impl Row {
    /// Returns the row as a JSON object.
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

/// Aggregates a profile by `group`: slowest first, except passes, which stay in execution order.
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

/// Returns the part of the network that a layer belongs to: a stage of the backbone (the second
/// part of the name of its patch embedding, blocks and norm ends in the stage's number), or
/// otherwise the first two parts of the layer's name.
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
