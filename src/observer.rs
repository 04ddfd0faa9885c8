//! What work that takes long tells its caller while it runs.

/// Watches work that takes long. The library prints nothing itself: whoever calls it decides what is
/// shown, and where.
///
/// `()` is the observer that watches nothing.
pub trait Observer: Sync {
    /// The work has `total` steps, of which `done` were done before, as when a run is resumed.
    fn begin(&self, done: usize, total: usize);

    /// `done` of `total` steps are done; `detail` describes the last one, and may be empty. Calls may
    /// come from any thread, and out of order.
    fn advance(&self, done: usize, total: usize, detail: &str);

    /// Something that the user should read, in a line or a few.
    fn message(&self, text: &str);
}

impl Observer for () {
    fn begin(&self, _: usize, _: usize) {}

    fn advance(&self, _: usize, _: usize, _: &str) {}

    fn message(&self, _: &str) {}
}
