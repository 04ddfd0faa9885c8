//! The arguments of every command that reads a configuration.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use udass_raw::checkpoint::weights::Network;
use udass_raw::checkpoint::{files, identity};
use udass_raw::config::{Config, METHODS, is_device};
use udass_raw::device::join_workers;

use super::output::{detail, tell};

/// A configuration and changes to it.
#[derive(Debug, clap::Args)]
pub struct Configured {
    /// A preset (gta_vit, toy_cnn, daformer, …), a name in configs/, or the path of a .toml file.
    #[arg(value_name = "CONFIG")]
    pub config: String,

    #[command(flatten)]
    pub changes: Changes,
}

/// Changes to a configuration.
#[derive(Debug, clap::Args)]
pub struct Changes {
    /// Apply a method preset on top of CONFIG (--set still wins).
    #[arg(long, value_name = "METHOD", value_parser = METHODS)]
    pub method: Option<String>,

    /// Change one key of the configuration; may be repeated.
    ///
    /// KEY is section.key as in the file, VALUE is TOML: --set data.batch=1, --set
    /// device.precision=bf16, --set 'quadmix.classes=[6, 12, 17]'.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Where to compute: the GPU if there is one (auto), the CPU (host), or the GPU or fail (cuda,
    /// or cuda:1 for the second one). [default: device.kind of the configuration]
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<String>,
}

/// Selects one of a checkpoint's networks.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    /// The trained network, which published results evaluate.
    Student,
    /// The moving average of the student.
    Teacher,
}

impl Which {
    pub fn network(self) -> Network {
        match self {
            Which::Student => Network::Student,
            Which::Teacher => Network::Teacher,
        }
    }
}

/// Parses the argument of `--device`.
pub fn device(kind: &str) -> Result<String, String> {
    match is_device(kind) {
        true => Ok(kind.into()),
        false => Err("expected auto, host, cuda, or cuda:1 for the second GPU".into()),
    }
}

impl Configured {
    /// Returns these arguments as words of a command line.
    pub fn words(&self) -> Vec<String> {
        let Changes { method, set, device } = &self.changes;
        let mut words = vec![self.config.clone()];
        words.extend(method.iter().flat_map(|m| ["--method".into(), m.clone()]));
        words.extend(set.iter().flat_map(|set| ["--set".into(), set.clone()]));
        words.extend(device.iter().flat_map(|d| ["--device".into(), d.clone()]));
        words
    }

    /// Loads the configuration and applies the changes.
    pub fn load(&self) -> udass_raw::Result<Config> {
        Ok(shown(self.changes.over(&self.config, [])?))
    }

    /// Loads the configuration of a run that ends at iteration `max_iters`, if that is given, with
    /// the command's own overrides. An earlier end leaves the learning rate's schedule as it is, so
    /// that the run can go on later.
    pub fn load_until(
        &self,
        max_iters: Option<u64>,
        own: impl IntoIterator<Item = String>,
    ) -> udass_raw::Result<Config> {
        let mut own: Vec<String> = own.into_iter().collect();
        let configured = self.changes.over(&self.config, own.clone());
        let Some(n) = max_iters else { return Ok(shown(configured?)) };
        // Without the end given here, the configuration need not be valid.
        match configured {
            Ok(mut config) if (1..=config.schedule.end).contains(&n) => {
                config.run.max_iters = n;
                config.notes.set_origin("run.max_iters", format!("--max-iters {n}"));
                Ok(shown(config))
            }
            _ => {
                own.push(format!("run.max_iters={n}"));
                Ok(shown(self.changes.over(&self.config, own)?))
            }
        }
    }
}

impl Changes {
    /// Loads the configuration `name` or, without a name, the one that a checkpoint holds, and
    /// applies the changes. The checkpoint's says where its run computed; here, that is the GPU if
    /// there is one.
    pub fn load(&self, name: Option<&str>, checkpoint: &Path) -> anyhow::Result<Config> {
        if let Some(name) = name {
            return Ok(shown(self.over(name, [])?));
        }
        let file = files::open(checkpoint)?;
        let path = file.path().display();
        let text = identity::configuration(&file)?.with_context(|| {
            format!(
                "{path}: holds no configuration, so name one before the other arguments, such as \
                 gta_vit"
            )
        })?;
        let mut overrides = vec!["device.kind=auto".into()];
        overrides.extend(self.overrides([]));
        let origin = format!("configuration in {path}");
        let method = self.method.as_deref();
        Ok(shown(Config::from_toml_with(&text, &origin, method, &overrides)?))
    }

    fn over(&self, name: &str, own: impl IntoIterator<Item = String>) -> udass_raw::Result<Config> {
        Config::load_with(name, self.method.as_deref(), &self.overrides(own))
    }

    /// Returns `--set`, `--device` and the command's own overrides, in this order.
    fn overrides(&self, own: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut overrides = self.set.clone();
        overrides.extend(self.device.iter().map(|kind| format!("device.kind={kind}")));
        overrides.extend(own);
        overrides
    }
}

/// Prints a configuration's warnings and notes, and makes this thread one of its worker threads.
fn shown(mut config: Config) -> Config {
    config.notes.take().iter().for_each(|note| tell(note));
    let sources: Vec<&str> = config.notes.sources().into_iter().collect();
    detail(&format!("the configuration's values come from: {}", sources.join(", ")));
    if config.device.gpu().is_none() {
        // A device that this thread is no worker of starts its own.
        let _ = join_workers(config.device.threads);
    }
    config
}

/// Returns the override `key=path`. The configuration reads a path as a string, whatever it looks
/// like.
///
/// # Errors
/// Configurations are texts, so a path that is not UTF-8 has no place in them.
pub fn path_override(key: &str, path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| {
        format!(
            "{}: this path is not UTF-8, which {key} has to be: choose another name",
            path.display()
        )
    })?;
    Ok(format!("{key}={text}"))
}
