//! Progress reporting for long-running work.

/// Receives the progress of long-running work. The library prints nothing itself; the caller
/// decides what to show and where.
///
/// `()` implements the trait and ignores all reports.
pub trait Observer: Sync {
    /// Called at the start: the work has `total` steps, of which `done` are already complete, as
    /// when a run is resumed.
    fn begin(&self, done: usize, total: usize);

    /// Called when `done` of `total` steps are complete. `detail` describes the last step and may
    /// be empty. Calls may come from any thread and out of order.
    fn advance(&self, done: usize, total: usize, detail: &str);

    /// Called with a message for the user, one or a few lines long.
    fn message(&self, text: &str);
}

impl Observer for () {
    fn begin(&self, _: usize, _: usize) {}

    fn advance(&self, _: usize, _: usize, _: &str) {}

    fn message(&self, _: &str) {}
}
