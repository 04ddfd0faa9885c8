//! Runs that `mpiexec` starts, with each MPI that `UDASS_MPI` names.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use udass_raw::device::Device;
use udass_raw::device::group::BatchNormOver;
use udass_raw::run::train::signal::Stop;
use udass_raw::run::train::trainer::{Start, train_on};

use crate::fabric::together;
use crate::runs::config;
use crate::support::{assert_same, checkpoint, events, folder, settings, text, wait_for};

/// A process that another one's end does not end by itself lives longer than this.
const SECONDS: Duration = Duration::from_secs(20);

/// Returns the folders of the MPI installations to test.
fn installations() -> Vec<PathBuf> {
    let all: Vec<PathBuf> =
        std::env::var_os("UDASS_MPI").iter().flat_map(std::env::split_paths).collect();
    if all.is_empty() {
        println!("UDASS_MPI names no MPI installation: nothing was started");
    }
    all
}

/// `mpiexec -n PROCESSES udass-raw train` with the settings of [`config`].
fn command(mpi: &Path, processes: usize, out: &Path, more: &[&str]) -> Command {
    let mut child = Command::new(mpi.join("bin/mpiexec"));
    // Open MPI refuses to run as root, and to run more processes than cores, unless told otherwise.
    child.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    child.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
    child.env("UDASS_MPI_LIBRARIES", mpi.join("lib"));
    child.args(["-n", &processes.to_string()]).arg(env!("CARGO_BIN_EXE_udass-raw"));
    child.args(["train", "toy_vit", "--method", "quadmix", "--device", "host", "--out", text(out)]);
    let own = ["data.batch=4", "data.workers=1", "device.threads=1", "quadmix.start=1"];
    let own =
        own.into_iter().chain(["run.checkpoint_interval=2", "run.keep=0", "mask.images=both"]);
    let sets = settings().into_iter().chain(own.map(String::from));
    for set in sets {
        child.args(["--set", &set]);
    }
    child.args(more).current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    child
}

#[track_caller]
fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}:\n{told}");
    told
}

/// Returns the processes of a group by their ranks, once all have started.
fn members(launcher: &Child, out: &Path, processes: usize) -> Vec<u32> {
    let begun = Instant::now();
    loop {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let is = line.contains("udass-raw train") && line.contains(text(out));
            if is && !line.contains("mpiexec") && process != launcher.id() {
                let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                let environ = String::from_utf8_lossy(&environ).into_owned();
                let rank = |name: &str| {
                    environ
                        .split('\0')
                        .find_map(|line| line.strip_prefix(name)?.parse::<u32>().ok())
                };
                let rank = rank("OMPI_COMM_WORLD_RANK=").or_else(|| rank("PMI_RANK="));
                found.extend(rank.map(|rank| (rank, process)));
            }
        }
        found.sort();
        if found.len() == processes {
            return found.into_iter().map(|(_, process)| process).collect();
        }
        assert!(begun.elapsed() < SECONDS, "{} of {processes} processes", found.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn send(process: u32, signal: i32) {
    // SAFETY: a signal to a process of this test's.
    assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0);
}

#[test]
fn every_mpi_computes_the_same_bits() {
    for processes in [2, 4] {
        let here = folder();
        together(
            processes,
            BatchNormOver::All,
            || Device::host(1).unwrap(),
            |device| {
                train_on(device, &config(here.path(), &[]), Start::Weights, &Stop::new(), &())
                    .unwrap();
            },
        );
        for mpi in installations() {
            let out = folder();
            let told = succeed(command(&mpi, processes, out.path(), &["--max-iters", "5"]));
            assert_same(&checkpoint(here.path(), 5), &checkpoint(out.path(), 5));
            assert_eq!(told.matches("QuadMix: ").count(), 1, "one process speaks:\n{told}");
        }
    }
}

#[test]
fn a_process_that_is_killed_ends_all_and_the_run_resumes_to_the_same_bits() {
    for mpi in installations() {
        let (whole, killed) = (folder(), folder());
        succeed(command(&mpi, 2, whole.path(), &["--max-iters", "6"]));
        for (attempt, rank) in [1, 0].into_iter().enumerate() {
            let args = ["--max-iters", "6", "--resume=auto"];
            let mut child =
                command(&mpi, 2, killed.path(), &args).stderr(Stdio::null()).spawn().unwrap();
            let done = 1 + 2 * attempt;
            wait_for(&mut child, || events(killed.path(), "iteration").len() > done);
            let members = members(&child, killed.path(), 2);
            send(members[rank], libc::SIGKILL);
            let begun = Instant::now();
            assert!(!child.wait().unwrap().success());
            assert!(begun.elapsed() < SECONDS);
            let alive = |process: &u32| Path::new(&format!("/proc/{process}/exe")).exists();
            while members.iter().any(alive) {
                assert!(begun.elapsed() < SECONDS, "a process is left");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        succeed(command(&mpi, 2, killed.path(), &["--max-iters", "6", "--resume=auto"]));
        assert_same(&checkpoint(whole.path(), 6), &checkpoint(killed.path(), 6));
    }
}

#[test]
fn sigterm_to_one_process_saves_once_and_succeeds() {
    for mpi in installations() {
        let (whole, stopped) = (folder(), folder());
        succeed(command(&mpi, 2, whole.path(), &["--max-iters", "60"]));
        let args = ["--max-iters", "60", "--set", "run.checkpoint_interval=1000"];
        let mut child =
            command(&mpi, 2, stopped.path(), &args).stderr(Stdio::null()).spawn().unwrap();
        wait_for(&mut child, || !events(stopped.path(), "iteration").is_empty());
        send(members(&child, stopped.path(), 2)[1], libc::SIGTERM);
        assert!(child.wait().unwrap().success());
        let done = events(stopped.path(), "iteration").len() as u64;
        assert!(done < 60 && checkpoint(stopped.path(), done).exists(), "{done}");
        succeed(command(&mpi, 2, stopped.path(), &[&args[..], &["--resume"]].concat()));
        assert_same(&checkpoint(whole.path(), 60), &checkpoint(stopped.path(), 60));
    }
}

#[test]
fn an_error_in_one_process_names_it_and_ends_all() {
    for mpi in installations() {
        let out = folder();
        let run = || command(&mpi, 3, out.path(), &[]);
        let output = run().output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(told.contains("data.batch = 4 cannot be split over 3 processes"), "{told}");
        // A process by itself, in the environment of one of several.
        let mut alone = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
        alone.env("UDASS_MPI_LIBRARIES", mpi.join("lib"));
        alone.envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")]);
        alone.args(["train", "toy_vit", "--device", "host", "--out", text(out.path())]);
        let output = alone.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("start them with `mpiexec -n N` instead of torchrun"), "{told}");
    }
}

#[test]
fn a_run_of_one_process_goes_on_in_several() {
    for mpi in installations() {
        let (alone, several) = (folder(), folder());
        succeed(command(&mpi, 1, alone.path(), &["--max-iters", "4"]));
        succeed(command(&mpi, 1, several.path(), &["--max-iters", "2"]));
        succeed(command(&mpi, 2, several.path(), &["--max-iters", "4", "--resume"]));
        // From the same state on, the next iteration differs by rounding.
        let losses = |out: &Path| events(out, "iteration")[2]["losses"].clone();
        let (alone, several) = (losses(alone.path()), losses(several.path()));
        for (name, value) in alone.as_object().unwrap() {
            let (a, b) = (value.as_f64().unwrap(), several[name].as_f64().unwrap());
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{name}: {a}, {b}");
        }
    }
}
