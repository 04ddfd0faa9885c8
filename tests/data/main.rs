//! Tests of datasets on disk, resizing, preparation, sampling and loading.

mod files;
mod folders;
mod loader;
mod prepare;
mod resize;
mod sampling;
mod support;
mod uneven;
