//! Shows progress: a progress bar on a terminal, and otherwise a plain line every few seconds.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use udass_raw::observer::Observer;

use super::output::{is_quiet, tell};

/// Seconds between two plain lines.
const PLAIN_EVERY: f64 = 10.0;

/// Shows the progress of work on standard error, in steps named `unit` (plural).
#[derive(Debug)]
pub struct Progress {
    unit: &'static str,
    /// A prefix of each line. Work without one is shown alone, and may have a bar.
    label: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: usize,
    /// `None` until the first report of progress.
    bar: Option<Bar>,
}

impl Progress {
    /// Creates a progress display that shows nothing until the work begins.
    pub fn new(unit: &'static str) -> Self {
        Progress { unit, label: String::new(), state: Mutex::default() }
    }

    /// Creates a display for one of several works that go on at the same time: plain lines, each
    /// after a label.
    pub fn labeled(label: &str, unit: &'static str) -> Self {
        Progress { label: format!("{label}: "), ..Progress::new(unit) }
    }

    fn bar(&self, total: usize, done: usize) -> Bar {
        Bar::new(self.unit, self.label.clone(), total, done)
    }

    /// Returns the number of steps done so far.
    pub fn done(&self) -> usize {
        self.lock().done
    }

    /// Removes the progress bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.lock().bar {
            bar.line.finish_and_clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // If another thread panicked while it held the lock, the count is still valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Progress {
    fn begin(&self, done: usize, total: usize) {
        *self.lock() = State { done, bar: Some(self.bar(total, done)) };
    }

    fn advance(&self, done: usize, total: usize, detail: &str) {
        let mut state = self.lock();
        // Threads may report out of order.
        let done = done.max(state.done);
        state.done = done;
        state.bar.get_or_insert_with(|| self.bar(total, 0)).step(done, detail);
    }

    fn message(&self, text: &str) {
        match &self.lock().bar {
            Some(bar) => bar.say(text),
            None => tell(&format!("{}{text}", self.label)),
        }
    }
}

/// A progress bar on a terminal; otherwise a plain line every few seconds.
#[derive(Debug)]
struct Bar {
    line: ProgressBar,
    unit: &'static str,
    label: String,
    total: usize,
    /// Steps done before this process began.
    first: usize,
    begun: Instant,
    /// When the last plain line was written; `None` on a terminal.
    plain: Option<Option<Instant>>,
}

impl Bar {
    fn new(unit: &'static str, label: String, total: usize, first: usize) -> Self {
        let terminal = label.is_empty() && std::io::stderr().is_terminal();
        let bar = terminal && !is_quiet();
        let line = if bar { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
        if bar {
            line.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        let style = ProgressStyle::with_template("{bar:10} {pos}/{len}  {wide_msg}");
        line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        line.set_position(first as u64);
        let plain = (!terminal).then_some(None);
        Bar { line, unit, label, total, first, begun: Instant::now(), plain }
    }

    /// Shows that `done` steps are done, with `message` next to them.
    fn step(&mut self, done: usize, message: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let left = remaining(self.first, done, self.total, seconds);
        let message = match left {
            Some(left) if message.is_empty() => format!("eta {}", duration(left)),
            Some(left) => format!("{message}  eta {}", duration(left)),
            None => message.to_owned(),
        };
        self.line.set_position(done as u64);
        self.line.set_message(message.clone());
        if let Some(last) = &mut self.plain {
            let due = last.is_none_or(|at| at.elapsed().as_secs_f64() >= PLAIN_EVERY);
            if due || done == self.total {
                *last = Some(Instant::now());
                let (label, unit, total) = (&self.label, self.unit, self.total);
                tell(&format!("{label}{unit} {done}/{total}  {message}"));
            }
        }
    }

    /// Writes a line that stays, above the progress bar.
    fn say(&self, message: &str) {
        match self.plain {
            Some(_) => tell(&format!("{}{message}", self.label)),
            None => self.line.suspend(|| tell(message)),
        }
    }
}

/// Estimates the remaining time from the pace since this process began.
fn remaining(first: usize, done: usize, total: usize, seconds: f64) -> Option<Duration> {
    let paced = done.checked_sub(first).filter(|&steps| steps > 0)?;
    let left = total.saturating_sub(done) as f64 * seconds / paced as f64;
    Duration::try_from_secs_f64(left).ok()
}

/// Formats a duration as `2:03`, `4:05:06` or `3 d 04 h`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{:02}", seconds % 60),
        (0, _) => format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_told_at_the_pace_of_this_process() {
        // 10 steps took 20 s and 90 are left; the 100 steps before the resume took no time here.
        assert_eq!(remaining(100, 110, 200, 20.0), Some(Duration::from_secs(180)));
        assert_eq!(remaining(100, 100, 200, 20.0), None);
        assert_eq!(remaining(0, 200, 200, 20.0), Some(Duration::ZERO));
    }

    #[test]
    fn durations_read_like_a_clock() {
        let message = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(message(7), "0:07");
        assert_eq!(message(3599), "59:59");
        assert_eq!(message(3600 * 4 + 306), "4:05:06");
        assert_eq!(message(86_400 * 3 + 3600 * 4), "3d04h");
    }
}
