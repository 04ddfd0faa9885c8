//! Handles the signals that ask a run to stop: the first one ends it after the current iteration. A
//! second Ctrl-C or SIGTERM ends the process immediately.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// Exit code of a program ended by Ctrl-C, by the shell's convention: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

/// Signals that announce an end: of the terminal, of a job's time as schedulers send it in advance,
/// and of the processor time. The system repeats the last one, and schedulers send SIGTERM after
/// theirs, so none of them ends the process by coming second.
const NOTICES: [i32; 4] = [SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU];

/// A request to stop the run, shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Stop {
    /// Creates a request that only [`Stop::ask`] sets; no signal handler is installed.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Handles Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU until the process ends. The
    /// first signal sets the request and calls `heard`, which can inform the user; the second
    /// Ctrl-C or SIGTERM exits with [`EXIT_CODE`]. A hangup that the process ignores, as under
    /// `nohup`, stays ignored.
    ///
    /// # Errors
    /// [`Error::Device`] if handlers are already installed or the system refuses them.
    pub fn install(heard: impl Fn() + Send + 'static) -> Result<Self> {
        static LISTENING: AtomicBool = AtomicBool::new(false);
        let problem =
            |e: &dyn std::fmt::Display| Error::device(format!("cannot listen for signals: {e}"));
        if LISTENING.swap(true, Ordering::SeqCst) {
            return Err(problem(&"this process has already installed a handler"));
        }
        let ends = [SIGINT, SIGTERM].into_iter().chain(NOTICES);
        let mut signals =
            Signals::new(ends.filter(|&signal| signal != SIGHUP || !is_ignored(signal)))
                .map_err(|e| problem(&e))?;
        let stop = Stop::new();
        let request = stop.clone();
        let listen = move || {
            let mut urgent = false;
            for signal in signals.forever() {
                let notice = NOTICES.contains(&signal);
                if !notice && std::mem::replace(&mut urgent, true) {
                    std::process::exit(EXIT_CODE.into());
                }
                if !request.asked.swap(true, Ordering::SeqCst) {
                    request.terminated.store(signal != SIGINT, Ordering::SeqCst);
                    heard();
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(listen).map_err(|e| problem(&e))?;
        Ok(stop)
    }

    /// Requests that the run stop after the current iteration.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Returns whether the run should stop after the current iteration.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Returns whether the request came from SIGTERM or another signal that job schedulers and the
    /// system send. A run that then saved its state counts as successful.
    pub fn terminated(&self) -> bool {
        self.terminated.load(Ordering::SeqCst)
    }
}

/// Returns whether the process was started to ignore a signal.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: the action is plain data, which the call fills in if it succeeds, and zeros are valid.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let known = libc::sigaction(signal, std::ptr::null(), &mut action) == 0;
        known && action.sa_sigaction == libc::SIG_IGN
    }
}
