//! What somebody sees who watches: one line that moves on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::train::log::Iteration;

/// Seconds between two lines where there is no terminal.
const PLAIN_EVERY: f64 = 10.0;

/// Progress of a known number of steps, shown on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    unit: &'static str,
    total: u64,
    /// Steps done before this process began.
    first: u64,
    begun: Instant,
    /// Last plain line; `None` on a terminal.
    plain: Option<Option<Instant>>,
}

impl Progress {
    /// Shows `total` steps called `unit` (plural), of which `first` were done before.
    pub fn new(unit: &'static str, total: u64, first: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        if terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(first);
        let plain = (!terminal).then_some(None);
        Progress { bar, unit, total, first, begun: Instant::now(), plain }
    }

    /// After a training iteration.
    pub fn iteration(&mut self, it: &Iteration) {
        self.step(it.iteration + 1, &line(it));
    }

    /// After any step: `done` of the total, `message` beside it.
    pub fn step(&mut self, done: u64, message: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let left = remaining(self.first, done, self.total, seconds);
        let message = match left {
            Some(left) if message.is_empty() => format!("{} left", duration(left)),
            Some(left) => format!("{message}  {} left", duration(left)),
            None => message.to_owned(),
        };
        self.bar.set_position(done);
        self.bar.set_message(message.clone());
        if let Some(last) = &mut self.plain {
            let due = last.is_none_or(|at| at.elapsed().as_secs_f64() >= PLAIN_EVERY);
            if due || done == self.total {
                *last = Some(Instant::now());
                say(&format!("{} {done}/{}  {message}", self.unit, self.total));
            }
        }
    }

    /// A line that stays, above the moving one.
    pub fn say(&self, message: &str) {
        if self.plain.is_some() { say(message) } else { self.bar.suspend(|| say(message)) }
    }

    /// Takes the moving line away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Progress whose total is learned from whoever does the work, on any thread.
#[derive(Debug)]
pub struct Counter {
    unit: &'static str,
    state: Mutex<(usize, Option<Progress>)>,
}

impl Counter {
    /// Nothing is shown before the first step.
    pub fn new(unit: &'static str) -> Self {
        Counter { unit, state: Mutex::new((0, None)) }
    }

    /// What to hand to the worker: called with steps done and steps in all.
    pub fn advance(&self) -> impl Fn(usize, usize) + Sync + '_ {
        |done, total| {
            let mut state = self.lock();
            // Threads may report out of order.
            let done = done.max(state.0);
            state.0 = done;
            let progress = state.1.get_or_insert_with(|| Progress::new(self.unit, total as u64, 0));
            progress.step(done as u64, "");
        }
    }

    /// Steps done so far.
    pub fn done(&self) -> usize {
        self.lock().0
    }

    /// Takes the moving line away.
    pub fn finish(&self) {
        if let Some(progress) = &self.lock().1 {
            progress.finish();
        }
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Option<Progress>)> {
        // A panic elsewhere leaves a count that is still good to show.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody may be listening any more (`2>&1 | head`): no reason for a run to fail.
fn say(message: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{message}\n"));
}

/// An iteration in one line: losses, rate, speed.
fn line(it: &Iteration) -> String {
    let mut parts: Vec<String> =
        it.losses.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    parts.extend(it.pseudo_label_weight.map(|weight| format!("confident {:.0}%", 100.0 * weight)));
    parts.push(format!("lr {:.1e}", it.lr));
    parts.push(format!("{:.2} images/s", it.images_per_second));
    parts.join("  ")
}

/// Time that the rest takes at the pace so far.
fn remaining(first: u64, done: u64, total: u64, seconds: f64) -> Option<Duration> {
    let paced = done.checked_sub(first).filter(|&steps| steps > 0)?;
    let left = total.saturating_sub(done) as f64 * seconds / paced as f64;
    Duration::try_from_secs_f64(left).ok()
}

/// `2:03`, `4:05:06`, `3 d 04 h`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{:02}", seconds % 60),
        (0, _) => format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60),
        _ => format!("{days} d {:02} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_told_at_the_pace_of_this_process() {
        // 10 steps took 20 s, 90 are left; the 100 before a resume took no time here.
        assert_eq!(remaining(100, 110, 200, 20.0), Some(Duration::from_secs(180)));
        assert_eq!(remaining(100, 100, 200, 20.0), None);
        assert_eq!(remaining(0, 200, 200, 20.0), Some(Duration::ZERO));
    }

    #[test]
    fn durations_read_like_a_clock() {
        let told = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(told(7), "0:07");
        assert_eq!(told(3599), "59:59");
        assert_eq!(told(3600 * 4 + 306), "4:05:06");
        assert_eq!(told(86_400 * 3 + 3600 * 4), "3 d 04 h");
    }

    #[test]
    fn an_iteration_is_one_line() {
        let it = Iteration {
            losses: vec![("decode.loss_seg".into(), 1.23456), ("mix.decode.loss_seg".into(), 0.5)],
            lr: 6e-5,
            images_per_second: 1.5,
            pseudo_label_weight: Some(0.256),
            ..Iteration::default()
        };
        assert_eq!(
            line(&it),
            "decode.loss_seg 1.235  mix.decode.loss_seg 0.500  confident 26%  lr 6.0e-5  1.50 images/s"
        );
    }
}
