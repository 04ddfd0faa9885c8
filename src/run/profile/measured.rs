//! A profiled iteration and its export as JSON.

use serde_json::{Value, json};

use super::model::Expected;
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
    /// Whether the times are computed rather than measured.
    pub predicted: bool,
    /// The times that a GPU is expected to take, if a model of one computed them.
    pub modeled: Option<Modeled>,
    /// Peak rates of the device.
    pub rates: Rates,
    /// Wall-clock seconds of whole iterations that ran without the profiler.
    pub samples: Vec<f64>,
    /// Memory use of the device, with its peak.
    pub memory: MemoryReport,
    /// The calls of the profiled iteration.
    pub profile: Profile,
}

/// The times that a GPU is expected to take.
pub struct Modeled {
    /// Name of the GPU.
    pub machine: String,
    /// The time of each call.
    pub calls: Vec<Expected>,
}

impl Modeled {
    /// Total seconds, with what runs beside other calls counted once.
    pub fn seconds(&self) -> f64 {
        let sum = |overlaps: bool| -> f64 {
            let calls = self.calls.iter().filter(|call| call.overlaps == overlaps);
            calls.map(|call| call.seconds).sum()
        };
        sum(false).max(sum(true))
    }

    /// Total seconds of all calls.
    pub fn sum(&self) -> f64 {
        self.calls.iter().map(|call| call.seconds).sum()
    }
}

impl Measured {
    /// Returns the whole profile as JSON, including every call.
    pub fn to_json(&self) -> Value {
        let mut previous = 0.0;
        let calls: Vec<Value> = (self.profile.calls.iter().enumerate())
            .map(|(index, call)| {
                let gap = call.start - previous;
                previous = call.start + call.seconds;
                let mut all = json!({
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
                });
                if let Some(expected) = self.modeled.as_ref().and_then(|m| m.calls.get(index)) {
                    all["expected_seconds"] = expected.seconds.into();
                    all["limit"] = expected.limit.name().into();
                    all["overlaps"] = expected.overlaps.into();
                }
                all
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
            "bound_seconds": self.bound(),
            "peak_bytes": self.memory.peak,
            "peak_tags": tags,
        });
        if let Some(modeled) = &self.modeled {
            all["device_model"] = modeled.machine.clone().into();
            all["expected_seconds"] = modeled.seconds().into();
            all["expected_sum_seconds"] = modeled.sum().into();
        }
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

    /// Lower bound of the time of all calls, in seconds.
    pub fn bound(&self) -> f64 {
        self.profile.calls.iter().map(|call| self.rates.bound(call.bytes, call.flops)).sum()
    }

    /// Total seconds spent inside calls, without the gaps between them.
    pub fn inside(&self) -> f64 {
        self.profile.calls.iter().map(|call| call.seconds).sum()
    }
}
