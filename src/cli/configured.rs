//! The arguments of every command that reads a configuration.

use std::path::Path;

use clap::ValueEnum;
use udass_raw::checkpoint::weights::Network;
use udass_raw::config::{Config, METHODS, is_device};

use super::output::tell;

#[derive(Debug, clap::Args)]
pub struct Configured {
    /// A preset (gta_vit, toy_cnn, daformer, …), a name in configs/, or the path of a .toml file.
    #[arg(value_name = "CONFIG")]
    pub config: String,

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
        let mut words = vec![self.config.clone()];
        words.extend(self.method.iter().flat_map(|m| ["--method".into(), m.clone()]));
        words.extend(self.set.iter().flat_map(|set| ["--set".into(), set.clone()]));
        words.extend(self.device.iter().flat_map(|d| ["--device".into(), d.clone()]));
        words
    }

    /// Loads the configuration and applies the method preset, `--set`, `--device` and the command's
    /// own overrides, in this order.
    pub fn load(&self, own: impl IntoIterator<Item = String>) -> udass_raw::Result<Config> {
        Ok(shown(self.read(own)?))
    }

    /// Loads the configuration of a run that ends at iteration `max_iters`, if that is given. An
    /// earlier end leaves the learning rate's schedule as it is, so that the run can go on later.
    pub fn load_until(
        &self,
        max_iters: Option<u64>,
        own: impl IntoIterator<Item = String>,
    ) -> udass_raw::Result<Config> {
        let mut own: Vec<String> = own.into_iter().collect();
        let mut config = self.read(own.clone())?;
        match max_iters {
            Some(n) if (1..=config.schedule.end).contains(&n) => config.run.max_iters = n,
            Some(n) => {
                own.push(format!("run.max_iters={n}"));
                config = self.read(own)?;
            }
            None => {}
        }
        Ok(shown(config))
    }

    fn read(&self, own: impl IntoIterator<Item = String>) -> udass_raw::Result<Config> {
        let mut overrides = self.set.clone();
        overrides.extend(self.device.iter().map(|kind| format!("device.kind={kind}")));
        overrides.extend(own);
        Config::load_with(&self.config, self.method.as_deref(), &overrides)
    }
}

/// Prints a configuration's warnings and notes.
fn shown(mut config: Config) -> Config {
    config.notes.take().iter().for_each(|note| tell(note));
    config
}

/// Returns the override `key=path`. The configuration reads a path as a string, whatever it looks
/// like.
pub fn path_override(key: &str, path: &Path) -> String {
    format!("{key}={}", path.display())
}
