//! Profiling: records every call of a device between two timing marks of its backend.

use super::handle::{Device, Inner};
use super::profile::{Call, Place, Profile, Recorded, Request};
use crate::Result;

impl Device {
    /// Runs `f` and times every call that it submits. In nested profiles, the inner one records its
    /// calls and the outer one does not see them.
    ///
    /// # Errors
    /// Fails if the device cannot read its timing marks.
    pub fn profile<R>(&self, f: impl FnOnce() -> R) -> Result<(R, Profile)> {
        let inner = &self.0;
        inner.backend.synchronize()?;
        let outer = inner.profile.replace(Some(Recorded::default()));
        let result = f();
        let seen = inner.profile.replace(outer).unwrap_or_default();
        inner.backend.synchronize()?;
        let mut calls = Vec::with_capacity(seen.len());
        let mut first = None;
        for (call, [begin, end]) in seen {
            let (begin, end) = (inner.backend.seconds(begin)?, inner.backend.seconds(end)?);
            let zero = *first.get_or_insert(begin);
            calls.push(Call { start: begin - zero, seconds: end - begin, ..call });
        }
        inner.backend.forget_marks();
        let seconds = calls.last().map_or(0.0, |call| call.start + call.seconds);
        Ok((result, Profile { seconds, calls }))
    }

    /// Runs one call, between two marks if a profile is active. `describe` is called only then.
    pub(super) fn timed(
        &self,
        describe: impl FnOnce() -> Request,
        run: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Inner { profile, backend, tag, layer, .. } = &*self.0;
        if profile.borrow().is_none() {
            return run();
        }
        let Request { work, bytes, flops } = describe();
        let (layer, backward) = layer.borrow().clone();
        let place = Place { scope: tag.get(), layer, backward };
        let call = Call { work, place, start: 0.0, seconds: 0.0, bytes, flops };
        let begin = backend.mark()?;
        run()?;
        let end = backend.mark()?;
        if let Some(recorded) = profile.borrow_mut().as_mut() {
            recorded.push((call, [begin, end]));
        }
        Ok(())
    }
}
