//! `udass-raw train`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use udass_raw::checkpoint::files;
use udass_raw::config::Config;
use udass_raw::data::toy;
use udass_raw::device::group::Launched;
use udass_raw::run::build;
use udass_raw::run::train::check::{Finding, check};
use udass_raw::run::train::resume::ResumeOptions;
use udass_raw::run::train::signal::{self, Stop};
use udass_raw::run::train::trainer::{End, Start, train, train_on};

use super::configured::{Configured, path_override};
use super::output::{print, tell};
use super::processes;
use super::progress::Progress;
use super::seeds;

/// Train a network.
///
/// Writes log.jsonl, checkpoints and evaluations to the run's folder (run.out of the
/// configuration). Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU ends the run after the
/// current iteration, with a checkpoint (and, for all but Ctrl-C, exit status 0); --resume continues
/// from the newest checkpoint, with bit-identical results.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  udass-raw train toy_vit
  udass-raw train toy_vit --resume
  udass-raw train gta_vit --check
  udass-raw train gta_vit --resume=auto
  udass-raw train gta_vit --set device.precision=bf16 --out runs/bf16
  udass-raw train gta_vit --checkpoint mic_gta_4000.pth
  udass-raw train toy_vit --seeds 1,2,3
  udass-raw train toy_vit --processes 2 --set data.batch=4
  udass-raw train my.toml --device host --max-iters 10")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,

    /// End after this many iterations, including those before a resume. The learning-rate schedule
    /// stays as configured.
    #[arg(long, value_name = "N")]
    max_iters: Option<u64>,

    /// Continue the run in the run's folder from its newest checkpoint. With --resume=auto, start it
    /// if there is none yet, and pass over damaged ones, so that the same command serves after every
    /// interruption.
    #[arg(long, value_enum, value_name = "auto", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "always")]
    resume: Option<Resume>,

    /// With --resume, continue even though the data is not what the run was started with.
    #[arg(long, requires = "resume")]
    accept_changed_data: bool,

    /// Start from this file instead of the configured weights: a checkpoint of this program or of
    /// the reference (.pth or .safetensors), or weights with the reference's names.
    ///
    /// A checkpoint continues at its iteration, with its optimizer moments; the teacher starts as a
    /// copy of the student, as in the released code.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,

    /// The first iteration with --checkpoint; 0 takes only the weights.
    /// [default: the checkpoint's own; 0 for weights without one]
    #[arg(long, value_name = "N", requires = "checkpoint")]
    start_iteration: Option<u64>,

    /// Train nothing, but check what the whole run needs: device, folder, data, weights, memory, and
    /// free disk for its checkpoints. All problems are listed at once; the exit status is 1 if there
    /// are any.
    #[arg(long, conflicts_with = "seeds")]
    check: bool,

    /// The run's folder, instead of run.out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Train a run for each of these seeds, in the run's folder with _seed1, _seed2, … behind its
    /// name: one after another, or side by side if there are several GPUs.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    seeds: Vec<u64>,

    /// Train in this many processes of this machine, which share the images of each iteration and the
    /// cores. The same as to start the command with `mpiexec -n N`.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "check"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1024))]
    processes: Option<u64>,
}

/// When to continue a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Resume {
    /// There must be a run.
    #[value(hide = true)]
    Always,
    /// If there is a run.
    Auto,
}

impl Args {
    /// Returns where training starts.
    fn start(&self, out: &Path) -> anyhow::Result<Start> {
        anyhow::ensure!(
            self.resume != Some(Resume::Always) || self.checkpoint.is_none(),
            "--resume continues with the run's own checkpoint: leave out --checkpoint, or use \
             --resume=auto to start from it if there is no run yet"
        );
        let options = ResumeOptions {
            skip_damaged_checkpoints: self.resume == Some(Resume::Auto),
            accept_changed_data: self.accept_changed_data,
        };
        Ok(match (&self.resume, &self.checkpoint) {
            (Some(Resume::Always), _) => Start::Resume(options),
            (Some(Resume::Auto), _) if !files::list(out).is_empty() => Start::Resume(options),
            (_, Some(file)) => {
                Start::Checkpoint { path: file.clone(), iteration: self.start_iteration }
            }
            (_, None) => Start::Weights,
        })
    }

    /// Says how to go on after a request to stop, and returns the exit status.
    fn stopped(&self, stop: &Stop) -> ExitCode {
        tell(&format!("stopped; continue with `{}`", self.resuming()));
        // In a group, another process may be the one that was asked.
        let interrupted = stop.asked() && !stop.terminated();
        ExitCode::from(if interrupted { signal::EXIT_CODE } else { 0 })
    }

    /// Says how the run ended, and returns the exit status.
    fn ended(&self, config: &Config, end: End, stop: &Stop) -> anyhow::Result<ExitCode> {
        match end {
            End::Finished(report) => {
                if let Some(report) = report {
                    print(&report.table())?;
                    tell(&format!(
                        "predictions next to their labels: {}",
                        config.run.out.join("pictures").display()
                    ));
                }
                Ok(ExitCode::SUCCESS)
            }
            End::FinishedBefore => {
                tell(&format!(
                    "{}: the run has finished its {} iterations; use --max-iters N to train to \
                     iteration N",
                    config.run.out.display(),
                    config.run.max_iters
                ));
                Ok(ExitCode::SUCCESS)
            }
            End::Stopped => Ok(self.stopped(stop)),
        }
    }

    /// Returns the command line that resumes this run.
    fn resuming(&self) -> String {
        let mut words = vec!["udass-raw".to_owned(), "train".to_owned()];
        words.extend(self.configured.words());
        words.extend(self.max_iters.iter().flat_map(|n| ["--max-iters".into(), n.to_string()]));
        if let Some(out) = &self.out {
            words.extend(["--out".into(), out.display().to_string()]);
        }
        if self.seeds.is_empty() {
            words.push("--resume".into());
        } else {
            let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
            // Some of the runs may not have begun.
            words.extend(["--seeds".into(), seeds.join(","), "--resume=auto".into()]);
        }
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// Quotes a word for a shell, if necessary.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let out = args.out.as_ref().map(|dir| path_override("run.out", dir)).transpose()?;
    let config = args.configured.load_until(args.max_iters, out)?;
    if args.check {
        let start = args.start(&config.run.out)?;
        return told(check(&config, &start));
    }
    let launched = build::launched(&config)?;
    if let Some(processes) = args.processes {
        match processes::start(processes as usize, &launched)? {}
    }
    // The terminal has echoed "^C", so the message starts on a new line.
    let stop = Stop::install(|| {
        tell(
            "\nstopping after this iteration with a checkpoint; press Ctrl-C again to quit at \
             once without one",
        );
    })?;
    if launched.place.size > 1 {
        return in_group(args, &config, &launched, &stop);
    }
    make_toy(&config)?;
    if !args.seeds.is_empty() {
        let configs = seeds::configs(&config, &args.seeds)?;
        let starts: anyhow::Result<_> = configs.iter().map(|c| args.start(&c.run.out)).collect();
        return match seeds::train_all(&configs, starts?, &stop)? {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(args.stopped(&stop)),
        };
    }
    let start = args.start(&config.run.out)?;
    let progress = Progress::new("it");
    let end = train(&config, start, &stop, &progress)?;
    progress.finish();
    args.ended(&config, end, &stop)
}

/// Trains as one of several processes.
fn in_group(
    args: &Args,
    config: &Config,
    launched: &Launched,
    stop: &Stop,
) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.seeds.is_empty(), "--seeds: several processes train one run together");
    let device = build::joined(config, launched)?;
    let place = device.place();
    let trained = || {
        let start = args.start(&config.run.out)?;
        if place.leads() {
            make_toy(config)?;
        }
        // The others wait for the data.
        device.exchange(&[])?;
        let progress = Progress::new("it");
        let end = train_on(&device, config, start, stop, &progress)?;
        progress.finish();
        match place.leads() {
            true => args.ended(config, end, stop),
            false => Ok(ExitCode::SUCCESS),
        }
    };
    trained().inspect_err(|error: &anyhow::Error| {
        // The others wait for this process, so it ends them.
        tell(&format!("process {} of {}: {error:#}", place.rank, place.size));
        device.abort_group();
    })
}

/// Generates the toy world, if the configuration wants one and it is missing.
fn make_toy(config: &Config) -> anyhow::Result<()> {
    if !config.data.toy.as_os_str().is_empty() {
        let progress = Progress::new("images");
        toy::make_missing(&config.data.toy, &progress)?;
        progress.finish();
    }
    Ok(())
}

/// Prints what a check found, and fails with everything that is wrong.
fn told(findings: Vec<Finding>) -> anyhow::Result<ExitCode> {
    let mut problems = Vec::new();
    for Finding { what, result } in findings {
        match result {
            Ok(found) => print(&format!("{what:10}  {found}"))?,
            Err(error) => {
                print(&format!("{what:10}  PROBLEM, see below"))?;
                problems.push(error);
            }
        }
    }
    match problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(problems.remove(0).into()),
        _ => Err(udass_raw::Error::Several(problems).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("runs/a=1"), "runs/a=1");
        assert_eq!(quoted("classes=[6, 12]"), "'classes=[6, 12]'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
