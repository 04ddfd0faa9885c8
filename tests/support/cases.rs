//! Stored cases: `cases.json` next to one safetensors file per case.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::compare::Tolerance;

/// A failed check or a malformed fixture, described in one line.
pub type Outcome<T = ()> = Result<T, String>;

/// Statistics of a whole tensor, of which only a part may be stored.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Stats {
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
    pub l2: f64,
    pub sum_abs: f64,
    pub max_abs: f64,
}

/// Which elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    Whole,
    /// Stored element j is element `j * stride` of the flat tensor.
    Strided {
        stride: usize,
    },
    StatsOnly,
}

/// One stored tensor: its metadata and how close a result must come.
#[derive(Clone, Debug)]
pub struct Entry {
    /// In the reference's layout.
    pub shape: Vec<usize>,
    pub dtype: String,
    pub storage: Storage,
    pub stats: Option<Stats>,
    pub tolerance: Tolerance,
}

impl Entry {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of elements in the file.
    pub fn stored_len(&self) -> usize {
        match self.storage {
            Storage::Whole => self.len(),
            Storage::Strided { stride } => self.len().div_ceil(stride),
            Storage::StatsOnly => 0,
        }
    }

    fn parse(value: &Value) -> Outcome<Entry> {
        #[derive(Deserialize)]
        struct Raw {
            shape: Vec<usize>,
            dtype: String,
            storage: String,
            stride: Option<usize>,
            count: Option<usize>,
            stats: Option<Stats>,
            #[serde(default)]
            tol: Value,
            note: Option<String>,
        }
        let raw = Raw::deserialize(value).map_err(|e| e.to_string())?;
        let storage = match (raw.storage.as_str(), raw.stride) {
            ("whole", _) => Storage::Whole,
            ("strided", Some(stride)) if stride > 0 => Storage::Strided { stride },
            ("stats_only", _) => Storage::StatsOnly,
            (other, _) => return Err(format!("storage {other:?} is not understood")),
        };
        let tolerance = Tolerance::parse(&raw.tol, raw.note.as_deref())?;
        let Raw { shape, dtype, stats, .. } = raw;
        let entry = Entry { shape, dtype, storage, stats, tolerance };
        if storage != Storage::Whole && stats.is_none() {
            return Err("a tensor that is not stored whole lacks its stats".into());
        }
        match raw.count {
            Some(count) if count != entry.stored_len() => {
                Err(format!("count {count}, but shape and stride give {}", entry.stored_len()))
            }
            _ => Ok(entry),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct Scalar {
    pub value: f64,
    /// Absent for a remark that is not an expectation.
    pub tol_rel: Option<f64>,
    /// The reference's value in double precision, where it is known.
    pub f64: Option<f64>,
}

impl Scalar {
    /// Returns twice the reference's own error relative to double precision; 0 where it is not known.
    pub fn twice_its_error(&self) -> f64 {
        let off = self.f64.map_or(0.0, |wide| (self.value - wide).abs());
        if off > 0.0 { 2.0 * off / self.value.abs() } else { 0.0 }
    }
}

/// One case: what was run, and the resulting tensors and scalars.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub what: String,
    pub config: Value,
    /// All other fields of the case.
    pub extra: Map<String, Value>,
    /// In the order of `cases.json`.
    pub tensors: Vec<(String, Entry)>,
    pub scalars: Vec<(String, Scalar)>,
    pub file: Option<PathBuf>,
}

/// Reads all cases of a folder.
pub fn read_folder(dir: &Path) -> Outcome<Vec<Case>> {
    let path = dir.join("cases.json");
    let text = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let list: Vec<Map<String, Value>> =
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if list.is_empty() {
        return Err(format!("{}: lists no case", path.display()));
    }
    list.into_iter().map(|case| Case::parse(dir, case)).collect()
}

/// Returns the folder that `UDASS_GOLDEN` names, or this repository's own.
pub fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::env::var_os("UDASS_GOLDEN").map_or_else(own, PathBuf::from)
}

impl Case {
    fn parse(dir: &Path, mut raw: Map<String, Value>) -> Outcome<Case> {
        let mut text = |key: &str| match raw.shift_remove(key) {
            Some(Value::String(s)) => Ok(Some(s)),
            None | Some(Value::Null) => Ok(None),
            Some(other) => Err(format!("{key} is {other}, not text")),
        };
        let name = text("name")?.ok_or("a case has no name")?;
        let what = text("what")?.unwrap_or_default();
        let file = text("file")?.map(|f| dir.join(f));
        let config = raw.shift_remove("config").unwrap_or(Value::Null);
        let mut entries = |key: &str| match raw.shift_remove(key) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let (tensors, scalars) = (entries("tensors"), entries("scalars"));
        let at = |key: &str, e: String| format!("{name}: {key}: {e}");
        let tensors = tensors
            .into_iter()
            .map(|(key, v)| Entry::parse(&v).map_err(|e| at(&key, e)).map(|entry| (key, entry)))
            .collect::<Outcome<_>>()?;
        let scalars = scalars
            .into_iter()
            .map(|(key, v)| match Scalar::deserialize(v) {
                Ok(scalar) => Ok((key, scalar)),
                Err(e) => Err(at(&key, e.to_string())),
            })
            .collect::<Outcome<_>>()?;
        Ok(Case { name, what, config, extra: raw, tensors, scalars, file })
    }

    pub fn entry(&self, key: &str) -> Outcome<&Entry> {
        let found = self.tensors.iter().find(|(k, _)| k == key);
        found.map(|(_, entry)| entry).ok_or_else(|| format!("the case stores no {key}"))
    }

    pub fn has(&self, key: &str) -> bool {
        self.tensors.iter().any(|(k, _)| k == key)
    }

    /// Looks up a config value by its path; the error says what is missing.
    pub fn get(&self, path: &[&str]) -> Outcome<&Value> {
        path.iter().try_fold(&self.config, |value, key| match value.get(key) {
            Some(inner) => Ok(inner),
            None => Err(format!("config has no {}", path.join("."))),
        })
    }

    /// Reads a typed value of the config.
    pub fn read<T: for<'a> Deserialize<'a>>(&self, path: &[&str]) -> Outcome<T> {
        T::deserialize(self.get(path)?).map_err(|e| format!("config {}: {e}", path.join(".")))
    }

    /// Returns the name from which the formula generates an input of this case. A config may state
    /// the prefix (`input/…/`); by default, and for a literal `<case>`, it is the case's name.
    pub fn input(&self, what: &str) -> String {
        fn spelled(value: &Value) -> Option<&str> {
            match value {
                Value::String(s) => {
                    let rest = &s[s.find("input/")? + 6..];
                    rest.split_once('/').map(|(case, _)| case).filter(|case| *case != "<case>")
                }
                Value::Array(list) => list.iter().find_map(spelled),
                Value::Object(map) => map.values().find_map(spelled),
                _ => None,
            }
        }
        format!("input/{}/{what}", spelled(&self.config).unwrap_or(&self.name))
    }

    /// Returns `weight_scale` of the config: factors by substring of the key.
    pub fn weight_scale(&self) -> Outcome<Vec<(String, f32)>> {
        match self.config.get("weight_scale") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(value) => HashMap::<String, f32>::deserialize(value)
                .map(|map| map.into_iter().collect())
                .map_err(|e| format!("config weight_scale: {e}")),
        }
    }

    /// Loads the case's file and checks it against the case's metadata.
    pub fn load(&self) -> Outcome<HashMap<String, Vec<f64>>> {
        let wanted = self.tensors.iter().filter(|(_, e)| e.storage != Storage::StatsOnly);
        let Some(path) = &self.file else {
            return match wanted.count() {
                0 => Ok(HashMap::new()),
                n => Err(format!("{n} tensors but no file")),
            };
        };
        if !path.exists() && self.tensors.is_empty() {
            return Ok(HashMap::new());
        }
        let at = |e: String| format!("{}: {e}", path.display());
        let bytes = fs::read(path).map_err(|e| at(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| at(e.to_string()))?;
        let mut stored = HashMap::new();
        for (key, entry) in wanted {
            let view = file.tensor(key).map_err(|e| at(e.to_string()))?;
            let values = numbers(view.dtype(), view.data()).map_err(&at)?;
            if values.len() != entry.stored_len() {
                let (have, want) = (values.len(), entry.stored_len());
                return Err(at(format!("{key} holds {have} numbers, not {want}")));
            }
            stored.insert(key.clone(), values);
        }
        Ok(stored)
    }
}

pub fn numbers(dtype: Dtype, data: &[u8]) -> Outcome<Vec<f64>> {
    fn all<const N: usize>(data: &[u8], one: fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|&bytes| one(bytes)).collect()
    }
    Ok(match dtype {
        Dtype::F32 => all(data, |b| f32::from_le_bytes(b).into()),
        Dtype::F64 => all(data, f64::from_le_bytes),
        Dtype::F16 => all(data, |b| half::f16::from_le_bytes(b).into()),
        Dtype::U8 | Dtype::BOOL => all(data, |[b]| b.into()),
        Dtype::I32 => all(data, |b| i32::from_le_bytes(b).into()),
        Dtype::I64 => all(data, |b| i64::from_le_bytes(b) as f64),
        other => return Err(format!("numbers of type {other:?} are not understood")),
    })
}
