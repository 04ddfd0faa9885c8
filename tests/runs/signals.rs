//! Signals of schedulers, terminals and the system: a run saves what it has.

use std::process::{Child, Command, Stdio};

use crate::support::*;
use udass_raw::checkpoint::files as checkpoints;

fn send(child: &Child, signal: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
}

#[test]
fn every_signal_that_announces_an_end_saves_and_a_second_one_does_no_harm() {
    for signal in ["TERM", "HUP", "USR1", "USR2", "XCPU"] {
        let folder = folder();
        let out = folder.path().join("run");
        let mut child = command("train", &["--max-iters", "200", "--out", text(&out)])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&mut child, || !events(&out, "iteration").is_empty());
        send(&child, signal);
        if signal != "TERM" {
            // Schedulers send their own signal and then SIGTERM; the system repeats SIGXCPU.
            send(&child, signal);
            send(&child, "TERM");
        }
        let output = child.wait_with_output().unwrap();
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{signal}: {told}");
        assert_eq!(told.matches("stopping after this iteration").count(), 1, "{signal}: {told}");
        let done = events(&out, "iteration").len() as u64;
        assert_eq!(checkpoints::resolve(&out).unwrap(), checkpoint(&out, done), "{signal}");
    }
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let folder = folder();
    let out = folder.path().join("run");
    let plain = command("train", &["--max-iters", "8", "--out", text(&out)]);
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(plain.get_current_dir().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, || !events(&out, "iteration").is_empty());
    send(&child, "HUP");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(events(&out, "iteration").len() as u64, ITERATIONS);
}
