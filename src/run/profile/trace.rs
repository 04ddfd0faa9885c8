//! Exports a profile in Chrome's trace event format (JSON object form, complete events).

use serde_json::{Value, json};

use super::measured::Measured;
use crate::device::profile::Call;

/// A track of the trace: its name, and the function that labels a call. Consecutive calls with
/// equal labels become one event.
type Line = (&'static str, fn(&Call) -> String);

const LINES: [Line; 2] =
    [("pass", |call| call.place.pass()), ("layer", |call| call.place.layer.to_string())];

impl Measured {
    /// Returns a trace that chrome://tracing and ui.perfetto.dev open.
    pub fn trace(&self) -> Value {
        let calls = &self.profile.calls;
        let mut events = Vec::new();
        for (thread, (name, of)) in LINES.into_iter().enumerate() {
            events.push(named(thread, name));
            let mut at = 0;
            while at < calls.len() {
                let label = of(&calls[at]);
                let alike = calls[at..].iter().take_while(|call| of(call) == label).count();
                let (first, last) = (&calls[at], &calls[at + alike - 1]);
                if !label.is_empty() {
                    let end = last.start + last.seconds;
                    events.push(complete(thread, name, &label, first.start, end, json!({})));
                }
                at += alike;
            }
        }
        let thread = LINES.len();
        events.push(named(thread, "kernels"));
        for call in calls {
            let seconds = call.seconds.max(f64::MIN_POSITIVE);
            let about = json!({
                "shape": call.work.shape(),
                "layer": &*call.place.layer,
                "bytes": call.bytes,
                "flops": call.flops,
                "GB/s": call.bytes * 1e-9 / seconds,
                "TFLOP/s": call.flops * 1e-12 / seconds,
                "of bound": self.rates.bound(call.bytes, call.flops) / seconds,
            });
            let (name, end) = (call.work.name(), call.start + call.seconds);
            events.push(complete(thread, "kernel", &name, call.start, end, about));
        }
        let about =
            json!({"config": self.config, "device": self.device, "predicted": self.predicted});
        json!({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})
    }
}

fn named(thread: usize, name: &str) -> Value {
    json!({"name": "thread_name", "ph": "M", "pid": 0, "tid": thread, "args": {"name": name}})
}

/// A complete event (`ph: "X"`). `start` and `end` are in seconds; the format wants microseconds.
fn complete(thread: usize, kind: &str, name: &str, start: f64, end: f64, about: Value) -> Value {
    json!({
        "name": name, "cat": kind, "ph": "X", "pid": 0, "tid": thread,
        "ts": start * 1e6, "dur": (end - start) * 1e6, "args": about,
    })
}
