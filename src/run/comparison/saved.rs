//! Reads a run's last evaluation from disk and matches it with a published row.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::published::{CITIES, IMAGES, Network, Row, SIZE, Table};
use super::run::{Run, Setting};
use crate::checkpoint::files;
use crate::config::{Config, Stages, with_current_keys};
use crate::data::classes;
use crate::error::{Error, Result};
use crate::file::{self, MAX_TEXT};
use crate::run::eval::report::Validated;
use crate::run::train::log;

/// A run's last evaluation and the configuration of its training.
pub(super) struct Saved {
    evaluation: Evaluation,
    facts: Facts,
    /// The whole configuration, as JSON.
    config: Value,
}

/// The keys read from an evaluation's line in the log, or from a file of `eval --json`.
#[derive(Deserialize)]
struct Evaluation {
    #[serde(rename = "IoU", default)]
    iou: Vec<Option<f64>>,
    /// Only in files of `eval --json`, which list the IoU with the class names.
    #[serde(default)]
    classes: Vec<ClassIou>,
    images: u64,
    iteration: Option<u64>,
    /// Absent from files of the program's first versions.
    data: Option<Validated>,
}

#[derive(Deserialize)]
struct ClassIou {
    #[serde(rename = "IoU")]
    iou: Option<f64>,
}

/// The configuration keys that identify a run. Other keys are ignored, so that configurations of
/// other versions stay readable.
#[derive(Deserialize)]
struct Facts {
    source: Domain,
    target: Domain,
    data: Data,
    rare_class_sampling: Switch,
    network: Net,
    teacher: Switch,
    mask: Switch,
    quadmix: Switch,
}

#[derive(Deserialize)]
struct Domain {
    layout: String,
    root: PathBuf,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    toy: PathBuf,
}

#[derive(Deserialize)]
struct Switch {
    enabled: bool,
}

#[derive(Deserialize)]
struct Net {
    backbone: String,
    hrda: Switch,
}

impl Saved {
    /// Reads a run's folder or a file of `eval --json`.
    pub fn read(path: &Path) -> Result<Saved> {
        let path = &files::find(path);
        if path.is_dir() { Saved::of_folder(path) } else { Saved::of_file(path) }
    }

    fn of_folder(folder: &Path) -> Result<Saved> {
        let path = folder.join("log.jsonl");
        let lines = log::read(&path)?;
        let last =
            |event: &str, lines: &[Value]| lines.iter().rposition(|line| line["event"] == event);
        let Some(evaluation) = last("evaluation", &lines) else {
            let problem = "contains no evaluation: write one with `udass-raw eval … --json FILE` \
                           and report that file";
            return Err(Error::data(&path, problem));
        };
        // The configuration of the last start or resume before the evaluation.
        let Some(start) = last("start", &lines[..evaluation]) else {
            return Err(Error::data(&path, "has no `start` line before its last evaluation"));
        };
        Saved::new(&path, lines[evaluation].clone(), lines[start]["config"].clone())
    }

    fn of_file(path: &Path) -> Result<Saved> {
        let text = file::read_text(path, MAX_TEXT).map_err(|e| Error::io(path, "read", e))?;
        let mut json: Value = serde_json::from_str(&text)
            .map_err(|e| Error::data(path, format!("not the output of `eval --json`: {e}")))?;
        let mut evaluated = json.get_mut("configuration").map(Value::take).unwrap_or_default();
        if evaluated.is_null() {
            let problem = "has no `configuration`: not the output of `eval --json`, or of an \
                           older version: evaluate again";
            return Err(Error::data(path, problem));
        }
        // Training settings come from the checkpoint, data and evaluation settings from the
        // evaluation.
        let mut config = json.get_mut("training").map(Value::take).unwrap_or_default();
        if config.is_null() {
            config = evaluated;
        } else {
            for section in ["target", "eval"] {
                config[section] = evaluated[section].take();
            }
        }
        Saved::new(path, json, config)
    }

    fn new(path: &Path, evaluation: Value, config: Value) -> Result<Saved> {
        let wrong = |what: &str, e: serde_json::Error| Error::data(path, format!("{what}: {e}"));
        let mut evaluation: Evaluation =
            serde_json::from_value(evaluation).map_err(|e| wrong("the evaluation", e))?;
        let config = with_current_keys(config)
            .map_err(|e| Error::data(path, format!("the configuration: {e}")))?;
        let facts = Facts::deserialize(&config).map_err(|e| wrong("the configuration", e))?;
        evaluation.iou.extend(evaluation.classes.iter().map(|class| class.iou));
        let (count, known) = (evaluation.iou.len(), classes::CITYSCAPES.len());
        if count != known {
            let problem = format!(
                "`IoU` has {count} classes; published results have the {known} of Cityscapes"
            );
            return Err(Error::data(path, problem));
        }
        Ok(Saved { evaluation, facts, config })
    }

    /// Returns the published results for this run's task.
    pub fn table<'a>(&self, tables: &'a [Table]) -> Option<&'a Table> {
        let (source, target) = (&self.facts.source.layout, &self.facts.target.layout);
        tables.iter().find(|table| table.source == *source && table.target == *target)
    }

    /// Matches the run with its row of `table` and lists how its settings and data differ.
    pub fn judge(self, name: String, path: &Path, table: Option<&Table>) -> Result<Run> {
        let (method, network) = (self.facts.method(), Network::of(&self.facts.network.backbone));
        let row = table.and_then(|table| {
            let same = |row: &Row| row.network == network && row.method.as_deref() == Some(method);
            table.rows.iter().position(same)
        });
        let preset = match (table, row) {
            (Some(table), Some(row)) => table.rows[row].preset.as_ref(),
            _ => None,
        };
        let settings = match preset {
            Some(preset) => differences(&self.config, preset)?,
            None => Vec::new(),
        };
        let no_row = match table {
            Some(_) => {
                format!("no published result of {method} with a {} is on record", network.name())
            }
            None => {
                let (source, target) = (&self.facts.source.layout, &self.facts.target.layout);
                format!("no published results of {source} → {target} are on record")
            }
        };
        let percent = |share: &Option<f64>| share.map_or(f64::NAN, |share| 100.0 * share);
        Ok(Run {
            name,
            path: path.into(),
            iou: self.evaluation.iou.iter().map(percent).collect(),
            iteration: self.evaluation.iteration,
            what: format!("{method} on {}", self.facts.network.backbone),
            row,
            no_row,
            foreign: self.foreign(),
            settings,
        })
    }

    /// Lists the ways in which the data is not the published benchmark's.
    fn foreign(&self) -> Vec<String> {
        let Facts { source, target, data, .. } = &self.facts;
        let mut found = Vec::new();
        let mut worlds: Vec<PathBuf> = Vec::new();
        if !data.toy.as_os_str().is_empty() {
            worlds.push(data.toy.clone());
        }
        // `udass-raw toy` writes toy.json next to the folders of the two domains.
        let above = [source, target].into_iter().filter_map(|domain| domain.root.parent());
        worlds.extend(
            above.filter(|folder| folder.join("toy.json").is_file()).map(Path::to_path_buf),
        );
        if let Some(world) = worlds.first() {
            found.push(format!("toy data, the generated world in {}", world.display()));
        }
        if target.layout != "cityscapes" {
            found.push(format!("the target is {}, not Cityscapes", target.layout));
        }
        let images = self.evaluation.images;
        if images != IMAGES {
            found.push(format!("{images} validation images, not {IMAGES}"));
        }
        let Some(Validated { sizes, folders }) = &self.evaluation.data else {
            found.push("the sizes of the validation images were not recorded".into());
            return found;
        };
        let other: Vec<String> = (sizes.iter().filter(|size| **size != SIZE))
            .map(|[width, height]| format!("{width}x{height}"))
            .collect();
        if !other.is_empty() {
            let (shown, [width, height]) = (few(&other), SIZE);
            found.push(format!("validation images of {shown}, not {width}x{height}"));
        }
        let unknown: Vec<&String> =
            folders.iter().filter(|city| !CITIES.contains(&city.as_str())).collect();
        if !unknown.is_empty() {
            let (shown, cities) = (few(&unknown), CITIES.join(", "));
            found.push(format!("validation images of {shown}, not of {cities}"));
        }
        found
    }
}

impl Facts {
    /// Returns the name of the preset whose switches these are.
    fn method(&self) -> &'static str {
        let stages = Stages {
            teacher: self.teacher.enabled,
            mask: self.mask.enabled,
            quadmix: self.quadmix.enabled,
            rare_class_sampling: self.rare_class_sampling.enabled,
            hrda: self.network.hrda.enabled,
        };
        stages.method()
    }
}

/// Lists the first few items and the number of the others.
fn few<T: std::fmt::Display>(all: &[T]) -> String {
    const MAX: usize = 3;
    let mut message: Vec<String> = all.iter().take(MAX).map(ToString::to_string).collect();
    if all.len() > MAX {
        message.push(format!("{} more", all.len() - MAX));
    }
    message.join(", ")
}

/// Keys that are not compared: those that do not affect results, paths, and the random seed.
const FREE: [&str; 18] = [
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
    "run.keep",
    "run.out",
];

/// The key of the initial weights.
const WEIGHTS: &str = "weights.init";

/// Sections listed first, the most informative one at the front.
const FIRST: [&str; 5] = ["network", "source", "target", "data", "run"];

/// Lists the keys whose values differ from the preset's. Keys that only one side has are skipped,
/// since they belong to another version.
fn differences(config: &Value, preset: &str) -> Result<Vec<Setting>> {
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
        found.push(Setting { key: key.into(), run, published });
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
