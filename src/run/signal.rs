//! Ctrl-C: the first asks the run to end after its iteration, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// What the shell expects of a program that Ctrl-C ended: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

/// Whether the run was asked to end. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// A request that only [`Stop::ask`] makes.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Listens for Ctrl-C, from now to the end of the process. The first is remembered, the second
    /// exits with [`EXIT_CODE`]; `message` tells the user so at the first.
    ///
    /// # Errors
    /// [`Error::Device`] when the process listens already.
    pub fn install(message: &'static str) -> Result<Self> {
        let stop = Stop::new();
        let heard = stop.clone();
        ctrlc::set_handler(move || {
            if heard.asked.swap(true, Ordering::SeqCst) {
                std::process::exit(EXIT_CODE.into());
            }
            // The terminal stands behind its "^C"; it may be gone, which is no reason to fail.
            let _ =
                std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("\n{message}\n"));
        })
        .map_err(|e| Error::device(format!("cannot listen for Ctrl-C: {e}")))?;
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
}
