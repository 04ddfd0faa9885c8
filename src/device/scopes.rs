//! Attribution: memory and calls are attributed to scopes and layers, which profilers see as NVTX
//! ranges.

use std::rc::Rc;

use super::handle::Device;
use super::nvtx;
use super::profile::pass_name;

impl Device {
    /// Attributes what `f` allocates and runs to `tag`, in memory reports and profiles. A
    /// profiler sees an NVTX range of that name, unless the innermost scope already has it.
    pub fn scope<R>(&self, tag: &'static str, f: impl FnOnce() -> R) -> R {
        let before = self.0.tag.replace(tag);
        let _range = (before != tag).then(|| nvtx::range(|| tag.into()));
        let result = f();
        self.0.tag.set(before);
        result
    }

    /// Attributes the calls of `f` to a layer, which is an NVTX range too. `name` returns the
    /// layer's checkpoint name and is called only while a profile or a profiler is active.
    pub fn layer<R>(&self, name: impl FnOnce() -> Rc<str>, f: impl FnOnce() -> R) -> R {
        if !self.is_watched() {
            return f();
        }
        let backward = self.0.layer.borrow().1;
        self.charging((name(), backward), f)
    }

    /// Returns the current layer, so that its backward can be attributed to it later; None while
    /// nothing profiles.
    pub(crate) fn current_layer(&self) -> Option<Rc<str>> {
        self.is_watched().then(|| self.0.layer.borrow().0.clone())
    }

    fn is_watched(&self) -> bool {
        nvtx::is_watched() || self.0.profile.borrow().is_some()
    }

    /// Runs `f` as the backward of the innermost scope. It only opens an NVTX range, because the
    /// backward's calls are attributed by layer.
    pub(crate) fn backward_range<R>(&self, f: impl FnOnce() -> R) -> R {
        let _range = nvtx::range(|| pass_name(self.0.tag.get(), true));
        f()
    }

    /// Attributes the calls of `f` to the backward of a layer returned by
    /// [`current_layer`](Self::current_layer).
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
