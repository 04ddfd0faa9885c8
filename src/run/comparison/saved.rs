//! Reads a run's last evaluation from disk and matches it with a published row.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::history::{Evaluated, History, evaluated};
use super::published::{CITIES, IMAGES, Network, Row, SIZE, Table};
use super::run::{Member, Run};
use super::settings::{differences, nearest, without_free};
use crate::checkpoint::files;
use crate::config::{DatasetConfig, Stages, with_current_keys};
use crate::data::classes::Classes;
use crate::error::{Error, Result};
use crate::file::{self, MAX_TEXT};
use crate::run::eval::report::Validated;
use crate::run::train::log;

/// A run's evaluations and the configuration of its training.
pub(super) struct Saved {
    /// `None` for a file of an evaluation.
    folder: Option<PathBuf>,
    /// The last one; `None` for a run that was not evaluated yet.
    evaluation: Option<Evaluation>,
    iou: Vec<f64>,
    history: History,
    facts: Facts,
    /// The whole configuration, as JSON.
    config: Value,
}

/// The keys read from an evaluation's line in the log, or from a file of `eval --json`.
#[derive(Deserialize)]
struct Evaluation {
    images: u64,
    iteration: Option<u64>,
    /// Absent from files of the program's first versions.
    data: Option<Validated>,
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
    /// Earlier versions had none.
    #[serde(default)]
    contrast: Switch,
    seed: u64,
    #[serde(default = "cityscapes")]
    dataset: DatasetConfig,
}

fn cityscapes() -> DatasetConfig {
    DatasetConfig { names: Vec::new(), colors: Vec::new() }
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

#[derive(Default, Deserialize)]
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
        let evaluation = last("evaluation", &lines);
        let Some(end) = evaluation.or_else(|| last("iteration", &lines)) else {
            let problem = "contains neither an iteration nor an evaluation: write one with \
                           `udass-raw eval … --json FILE` and report that file";
            return Err(Error::data(&path, problem));
        };
        // The configuration of the last start or resume before the evaluation.
        let Some(start) = last("start", &lines[..end]) else {
            return Err(Error::data(&path, "has no `start` line before its last evaluation"));
        };
        let evaluation = evaluation.map(|line| lines[line].clone());
        let saved = Saved::new(&path, evaluation, lines[start]["config"].clone())?;
        Ok(Saved { folder: Some(folder.into()), history: History::of(&lines), ..saved })
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
        // The file lists the IoU with the class names.
        let classes = json["classes"].as_array();
        json["IoU"] = classes.into_iter().flatten().map(|class| class["IoU"].clone()).collect();
        let mut saved = Saved::new(path, Some(json), config)?;
        let iteration = saved.evaluation.as_ref().and_then(|evaluation| evaluation.iteration);
        let evaluated = iteration.map(|iteration| Evaluated { iteration, iou: saved.iou.clone() });
        saved.history.evaluations.extend(evaluated);
        Ok(saved)
    }

    /// `path` is the file that is at fault if something is missing.
    fn new(path: &Path, evaluation: Option<Value>, config: Value) -> Result<Saved> {
        let wrong = |what: &str, e: serde_json::Error| Error::data(path, format!("{what}: {e}"));
        let iou = evaluation.as_ref().and_then(|line| evaluated(0, line));
        let iou = iou.map_or_else(Vec::new, |evaluated| evaluated.iou);
        let evaluation: Option<Evaluation> = (evaluation.map(serde_json::from_value).transpose())
            .map_err(|e| wrong("the evaluation", e))?;
        let config = with_current_keys(config)
            .map_err(|e| Error::data(path, format!("the configuration: {e}")))?;
        let facts = Facts::deserialize(&config).map_err(|e| wrong("the configuration", e))?;
        let (count, known) = (iou.len(), Classes::new(&facts.dataset).len());
        if evaluation.is_some() && count != known {
            let problem = format!("`IoU` has {count} classes, and the configuration {known}");
            return Err(Error::data(path, problem));
        }
        let history = History::default();
        Ok(Saved { folder: None, evaluation, iou, history, facts, config })
    }

    /// Returns the classes of the run.
    pub fn classes(&self) -> Classes {
        Classes::new(&self.facts.dataset)
    }

    /// Returns whether two runs differ only in their seed.
    pub fn differs_in_seed(&self, other: &Saved) -> bool {
        self.facts.seed != other.facts.seed
            && self.folder.is_some() == other.folder.is_some()
            && without_free(&self.config) == without_free(&other.config)
    }

    /// Returns the numbers of iterations after which the run was evaluated.
    pub fn evaluations(&self) -> impl Iterator<Item = u64> {
        self.history.evaluations.iter().map(|evaluated| evaluated.iteration)
    }

    /// Returns the iterations trained before the last evaluation, if known.
    pub fn iteration(&self) -> Option<u64> {
        self.evaluation.as_ref().and_then(|evaluation| evaluation.iteration)
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.facts.seed
    }

    /// Returns what a run of one of several seeds has measured, by the evaluation after `iteration`
    /// iterations if that is given, and otherwise by the last one.
    pub fn member(self, name: String, path: &Path, iteration: Option<u64>) -> Member {
        let at = |evaluated: &&Evaluated| Some(evaluated.iteration) == iteration;
        let chosen = self.history.evaluations.iter().rfind(at);
        let iou = chosen.map_or(self.iou, |evaluated| evaluated.iou.clone());
        Member { name, path: path.into(), folder: self.folder, iou, history: self.history }
    }

    /// Returns the published results for this run's task.
    pub fn table<'a>(&self, tables: &'a [Table]) -> Option<&'a Table> {
        let (source, target) = (&self.facts.source.layout, &self.facts.target.layout);
        let tables = if self.classes().are_cityscapes() { tables } else { &[] };
        tables.iter().find(|table| table.source == *source && table.target == *target)
    }

    /// Matches the run with its row of `table` and lists how its settings and data differ. The run
    /// has no members yet.
    pub fn judge(&self, name: String, table: Option<&Table>) -> Result<Run> {
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
        let (preset, changed) = nearest(&self.config)?;
        Ok(Run {
            name,
            color: 0,
            members: Vec::new(),
            iteration: self.iteration(),
            what: format!("{method} on {}", self.facts.network.backbone),
            row,
            no_row,
            foreign: self.foreign(),
            settings,
            preset: preset.into(),
            changed,
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
        let Some(evaluation) = &self.evaluation else { return found };
        let images = evaluation.images;
        if images != IMAGES {
            found.push(format!("{images} validation images, not {IMAGES}"));
        }
        let Some(Validated { sizes, folders }) = &evaluation.data else {
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
            contrast: self.contrast.enabled,
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
