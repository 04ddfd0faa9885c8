//! On whose behalf a device works: scopes and layers are charged for memory and calls, and tools
//! that watch (NVTX) are told of them as ranges.

use std::rc::Rc;

use super::handle::Device;
use super::nvtx;
use super::profile::pass_name;

impl Device {
    /// What `f` allocates and runs is charged to `holder` in memory reports and profiles. A tool
    /// that watches is told of a range of that name, unless it is within one already.
    pub fn scope<R>(&self, holder: &'static str, f: impl FnOnce() -> R) -> R {
        let before = self.0.holder.replace(holder);
        let _range = (before != holder).then(|| nvtx::range(|| holder.into()));
        let result = f();
        self.0.holder.set(before);
        result
    }

    /// What `f` asks for is charged to a layer, which is a range too. `name` is the layer's name in
    /// checkpoints; it is called only while somebody watches.
    pub fn layer<R>(&self, name: impl FnOnce() -> Rc<str>, f: impl FnOnce() -> R) -> R {
        if !self.is_watched() {
            return f();
        }
        let backward = self.0.layer.borrow().1;
        self.charging((name(), backward), f)
    }

    /// The layer that is charged now, for its backward to be charged later; none while nobody
    /// watches.
    pub(crate) fn current_layer(&self) -> Option<Rc<str>> {
        self.is_watched().then(|| self.0.layer.borrow().0.clone())
    }

    fn is_watched(&self) -> bool {
        nvtx::is_watched() || self.0.profile.borrow().is_some()
    }

    /// `f` is the backward pass of the innermost scope. This is a range and no more, because its
    /// calls are charged by layer.
    pub(crate) fn way_back<R>(&self, f: impl FnOnce() -> R) -> R {
        let _range = nvtx::range(|| pass_name(self.0.holder.get(), true));
        f()
    }

    /// What `f` asks for is charged to the backward of a layer that
    /// [`current_layer`](Self::current_layer) gave.
    pub(crate) fn backward_of<R>(&self, layer: &Option<Rc<str>>, f: impl FnOnce() -> R) -> R {
        match layer {
            Some(layer) => self.charging((layer.clone(), true), f),
            None => f(),
        }
    }

    fn charging<R>(&self, layer: (Rc<str>, bool), f: impl FnOnce() -> R) -> R {
        let (name, backward) = &layer;
        let _range = (!name.is_empty()).then(|| nvtx::range(|| pass_name(name, *backward)));
        let before = self.0.layer.replace(layer);
        let result = f();
        self.0.layer.replace(before);
        result
    }
}
