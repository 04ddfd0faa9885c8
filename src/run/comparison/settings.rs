//! The settings in which a run differs from a preset.

use serde_json::Value;

use crate::config::{Config, preset_names};
use crate::error::{Error, Result};

/// A configuration key whose value differs from a preset's.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key, as in `section.key`.
    pub key: String,
    /// The run's value.
    pub run: String,
    /// The preset's value.
    pub preset: String,
}

impl Setting {
    /// Lists settings, at most so many, with the preset's values in parentheses.
    pub fn list(settings: &[Setting], most: usize) -> String {
        let shown = settings.iter().take(most);
        let mut shown: Vec<String> =
            shown.map(|s| format!("{} {} ({})", s.key, s.run, s.preset)).collect();
        if settings.len() > most {
            shown.push(format!("{} more", settings.len() - most));
        }
        shown.join(", ")
    }
}

/// Returns the preset that has the fewest differing settings, and these; of equally near ones the
/// first.
///
/// # Errors
/// [`Error::Config`] if a preset cannot be read, which is a bug in this program.
pub fn nearest(config: &Value) -> Result<(&'static str, Vec<Setting>)> {
    let mut best: Option<(&str, Vec<Setting>)> = None;
    for preset in preset_names() {
        let found = differences(config, preset)?;
        if best.as_ref().is_none_or(|(_, least)| found.len() < least.len()) {
            best = Some((preset, found));
        }
    }
    best.ok_or_else(|| Error::config("there are no presets"))
}

/// Removes the keys that are not compared, such as the seed, and paths.
pub fn without_free(config: &Value) -> Value {
    fn strip(prefix: &str, value: &Value) -> Value {
        let Value::Object(fields) = value else { return value.clone() };
        let path =
            |name: &str| if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") };
        let kept = fields.iter().filter(|(name, _)| !FREE.contains(&path(name).as_str()));
        kept.map(|(name, value)| (name.clone(), strip(&path(name), value))).collect()
    }
    strip("", config)
}

/// Keys that are not compared: those that do not affect results, paths, and the random seed.
const FREE: [&str; 21] = [
    "seed",
    "device.kind",
    "device.deterministic",
    "device.cuda_graph",
    "device.memory_limit",
    "network.activation_checkpointing",
    "network.batch_student_passes",
    "device.threads",
    "source.root",
    "target.root",
    "data.toy",
    "data.workers",
    "data.prefetch",
    "eval.batch",
    "run.checkpoint_interval",
    "run.eval_interval",
    "run.image_interval",
    "run.keep",
    "run.keep_best",
    "run.out",
    "run.tensorboard",
];

/// The key of the initial weights.
const WEIGHTS: &str = "weights.init";

/// Sections listed first, the most informative one at the front.
const FIRST: [&str; 5] = ["network", "source", "target", "data", "run"];

/// Lists the keys whose values differ from the preset's. Keys that only one side has are skipped,
/// since they belong to another version.
///
/// # Errors
/// [`Error::Config`] if there is no such preset.
pub fn differences(config: &Value, preset: &str) -> Result<Vec<Setting>> {
    let published = serde_json::to_value(Config::preset(preset)?)
        .map_err(|e| Error::config(format!("preset {preset}: {e}")))?;
    let mut found = Vec::new();
    compare("", config, &published, &mut found);
    found.sort_by_key(|setting| {
        let section = setting.key.split('.').next();
        FIRST.iter().position(|first| Some(*first) == section).unwrap_or(FIRST.len())
    });
    Ok(found)
}

fn compare(key: &str, run: &Value, published: &Value, found: &mut Vec<Setting>) {
    if let (Value::Object(run), Value::Object(published)) = (run, published) {
        for (name, value) in published {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            if let Some(run) = run.get(name).filter(|_| !FREE.contains(&key.as_str())) {
                compare(&key, run, value, found);
            }
        }
        return;
    }
    let (mut run, mut published) = (shown(run), shown(published));
    if key == WEIGHTS {
        // The name of the weight file does not matter.
        for init in [&mut run, &mut published].into_iter().filter(|init| *init != "random") {
            *init = "ImageNet".into();
        }
    }
    if run != published {
        found.push(Setting { key: key.into(), run, preset: published });
    }
}

/// Formats a value as in a configuration file. Numbers are rounded to single precision, the type
/// that most of them are stored in.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) if n.is_f64() => {
            n.as_f64().map_or(String::new(), |x| (x as f32).to_string())
        }
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let message = fields.iter().map(|(key, value)| format!("{key} = {}", shown(value)));
            let mut message: Vec<String> = message.collect();
            // Their order says nothing, and is another one in checkpoints than in logs.
            message.sort();
            format!("{{{}}}", message.join(", "))
        }
        other => other.to_string(),
    }
}
