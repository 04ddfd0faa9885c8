//! Handles Ctrl-C and SIGTERM: the first signal ends the run after the current iteration, the
//! second ends the process immediately.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// Exit code of a program ended by Ctrl-C, by the shell's convention: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

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

    /// Handles Ctrl-C and SIGTERM until the process ends. The first signal sets the request and
    /// calls `heard`, which can inform the user; the second exits with [`EXIT_CODE`].
    ///
    /// # Errors
    /// [`Error::Device`] if handlers are already installed or the system refuses them.
    pub fn install(heard: impl Fn() + Send + 'static) -> Result<Self> {
        static LISTENING: AtomicBool = AtomicBool::new(false);
        let problem = |e: &dyn std::fmt::Display| {
            Error::device(format!("cannot listen for Ctrl-C and SIGTERM: {e}"))
        };
        if LISTENING.swap(true, Ordering::SeqCst) {
            return Err(problem(&"this process has already installed a handler"));
        }
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|e| problem(&e))?;
        let stop = Stop::new();
        let request = stop.clone();
        let listen = move || {
            for signal in signals.forever() {
                if request.asked.swap(true, Ordering::SeqCst) {
                    std::process::exit(EXIT_CODE.into());
                }
                request.terminated.store(signal == SIGTERM, Ordering::SeqCst);
                heard();
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

    /// Returns whether the request came from SIGTERM, which job schedulers send. A run that then
    /// saved its state counts as successful.
    pub fn terminated(&self) -> bool {
        self.terminated.load(Ordering::SeqCst)
    }
}
