//! A profiled iteration and its export as JSON.

use serde_json::{Value, json};

use super::rates::Rates;
use super::summary::{self, Group, Row};
use crate::device::MemoryReport;
use crate::device::profile::Profile;

/// A profiled iteration.
pub struct Measured {
    /// Name of the configuration, as given by the user.
    pub config: String,
    /// Description of the device.
    pub device: String,
    /// Whether the times are computed from bytes and FLOPs rather than measured.
    pub predicted: bool,
    /// Peak rates of the device.
    pub rates: Rates,
    /// Wall-clock seconds of whole iterations that ran without the profiler.
    pub samples: Vec<f64>,
    /// Memory use of the device, with its peak.
    pub memory: MemoryReport,
    /// The calls of the profiled iteration.
    pub profile: Profile,
}

impl Measured {
    /// Returns the whole profile as JSON, including every call.
    pub fn to_json(&self) -> Value {
        let mut previous = 0.0;
        let calls: Vec<Value> = (self.profile.calls.iter())
            .map(|call| {
                let gap = call.start - previous;
                previous = call.start + call.seconds;
                json!({
                    "kernel": call.work.name(),
                    "shape": call.work.shape(),
                    "pass": call.place.scope,
                    "layer": &*call.place.layer,
                    "stage": summary::stage(&call.place.layer),
                    "backward": call.place.backward,
                    "start_seconds": call.start,
                    "seconds": call.seconds,
                    "gap_seconds": gap,
                    "bytes": call.bytes,
                    "flops": call.flops,
                    "bound_seconds": self.rates.bound(call.bytes, call.flops),
                })
            })
            .collect();
        let groups: serde_json::Map<String, Value> = (Group::ALL.iter())
            .map(|group| {
                let rows = self.rows(*group);
                (format!("by_{}", group.name()), rows.iter().map(Row::to_json).collect())
            })
            .collect();
        let tags = self.memory.peak_tags.iter();
        let tags: Vec<Value> =
            tags.map(|(name, bytes)| json!({"tag": name, "bytes": bytes})).collect();
        let mut all = json!({
            "program": concat!("udass-raw ", env!("CARGO_PKG_VERSION")),
            "config": self.config,
            "device": self.device,
            "predicted": self.predicted,
            "memory_bytes_per_second": self.rates.memory,
            "matrix_flops_per_second": self.rates.matrix,
            "iteration_seconds": self.samples,
            "profiled_seconds": self.profile.seconds,
            "peak_bytes": self.memory.peak,
            "peak_tags": tags,
        });
        if let Value::Object(all) = &mut all {
            all.extend(groups);
            all.insert("calls".into(), calls.into());
        }
        all
    }

    /// Returns the calls aggregated by `group`.
    pub fn rows(&self, group: Group) -> Vec<Row> {
        summary::rows(&self.profile, &self.rates, group)
    }

    /// Total seconds spent inside calls, without the gaps between them.
    pub fn inside(&self) -> f64 {
        self.profile.calls.iter().map(|call| call.seconds).sum()
    }
}
