//! Ctrl-C and SIGTERM: the first asks the run to end after its iteration, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// What the shell expects of a program that Ctrl-C ended: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

/// Whether the run was asked to end. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Stop {
    /// A request that only [`Stop::ask`] makes.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Listens for Ctrl-C and SIGTERM, from now to the end of the process. The first is remembered,
    /// the second exits with [`EXIT_CODE`]. `heard` is called at the first, to tell the user so.
    ///
    /// # Errors
    /// [`Error::Device`] when the process listens already.
    pub fn install(heard: impl Fn() + Send + 'static) -> Result<Self> {
        static LISTENING: AtomicBool = AtomicBool::new(false);
        let problem = |e: &dyn std::fmt::Display| {
            Error::device(format!("cannot listen for Ctrl-C and SIGTERM: {e}"))
        };
        if LISTENING.swap(true, Ordering::SeqCst) {
            return Err(problem(&"this process listens already"));
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

    /// Asks the run to end after its iteration.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Whether to end after this iteration.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether it was SIGTERM that asked, as a scheduler does: having saved is then success.
    pub fn terminated(&self) -> bool {
        self.terminated.load(Ordering::SeqCst)
    }
}
