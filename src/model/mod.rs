//! Trained networks that segment images, for programs that embed the library.
//!
//! A [`Model`] is opened from one file, which says everything about it: its classes with their
//! names and colors, and the sizes of its windows. Threads may share it.
//!
//! ```no_run
//! use udass_raw::model::{Image, Model, Options, PixelFormat};
//!
//! # let (pixels, width, height) = (vec![0u8; 3], 1, 1);
//! let model = Model::open("model.safetensors", &Options::default())?;
//! let labels = model.labels(&Image::new(&pixels, PixelFormat::Bgr, width, height)?)?;
//! println!("the first pixel is {}", model.classes()[usize::from(labels[0])].name);
//! # Ok::<(), udass_raw::Error>(())
//! ```

mod described;
mod image;
mod options;
mod output;
mod session;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use crate::checkpoint::deployed::deploy;
use crate::checkpoint::files;
use crate::checkpoint::tensor_file::TensorFile;
use crate::device::MemoryReport;
use crate::{Error, Result};

pub use crate::checkpoint::deployed::FilePrecision;
pub use crate::checkpoint::weights::Network;
pub use crate::device::Precision;
pub use crate::device::cuda::Cache;
pub use described::Class;
pub use image::{Image, PixelFormat};
pub use options::{DeviceKind, Log, Options};
pub use output::{DeviceOutput, Kind, Output};

use output::model_error;
use session::Session;

/// A trained network on its device, which any thread may use. Calls from several threads run one
/// after another; each uses all of the device.
pub struct Model {
    session: Mutex<Session>,
    classes: Vec<Class>,
    device: String,
    image_size: [usize; 2],
}

impl Model {
    /// Opens a file that [`export`] (or the command `export`) wrote, or any other file with one of
    /// this library's networks: a run's checkpoint, or its folder for the newest one, and .pth or
    /// .safetensors of the reference implementations.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Weights`] if it is damaged or holds no
    /// network that is known; [`Error::Device`] if the device is not available;
    /// [`Error::OutOfMemory`].
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Model> {
        Self::from_file(&files::open_at(path.as_ref())?, options)
    }

    /// Opens a file that is in memory, like [`open`](Self::open). The bytes are not needed
    /// afterwards.
    ///
    /// # Errors
    /// The same as for [`open`](Self::open).
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, options: &Options) -> Result<Model> {
        Self::from_file(&TensorFile::from_bytes(bytes.into(), "model in memory")?, options)
    }

    fn from_file(file: &TensorFile, options: &Options) -> Result<Model> {
        let (session, config) = Session::open(file, options)?;
        let (classes, device) = (described::classes_of(&config), session.describe());
        Ok(Model { session: Mutex::new(session), classes, device, image_size: config.eval.resize })
    }

    /// Returns the classes, in the order of their indices.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Returns the width and height that images were fitted into for the evaluation of the network,
    /// keeping their aspect ratio. Images of any size can be segmented; objects are recognized best
    /// at the size at which they were seen.
    pub fn image_size(&self) -> [usize; 2] {
        self.image_size
    }

    /// Returns one line about the device, for logs.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Returns the memory that the model's tensors take on its device.
    ///
    /// # Errors
    /// [`Error::Device`] after a call that panicked.
    pub fn memory(&self) -> Result<MemoryReport> {
        Ok(self.session()?.memory())
    }

    /// Returns the class of every pixel of an image, H,W.
    ///
    /// # Errors
    /// The same as for [`segment`](Self::segment).
    pub fn labels(&self, image: &Image) -> Result<Vec<u8>> {
        let mut labels = vec![0; image.width() * image.height()];
        self.segment(&[*image], Output::Labels(&mut labels), None)?;
        Ok(labels)
    }

    /// Segments images of one size, and writes the result to `output`. If `stop` returns true, which
    /// it is asked before each forward pass, the call ends with [`Error::Cancelled`]. Without an
    /// error, the result is complete, except in a buffer on a GPU: there it is complete when the
    /// model's stream has done all work that the call submitted.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are no images, they differ in size, or the buffer does not have the
    /// result's size; [`Error::OutOfMemory`], with settings that need less; [`Error::NotFinite`] if
    /// the network's numbers are not finite; [`Error::Device`].
    pub fn segment(
        &self,
        images: &[Image],
        mut output: Output,
        stop: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Result<()> {
        let Some(first) = images.first() else {
            return Err(model_error("there are no images".into()));
        };
        let size = [first.width(), first.height()];
        if let Some(other) = images.iter().find(|image| [image.width(), image.height()] != size) {
            let problem =
                format!("{}x{} and {}x{}", size[0], size[1], other.width(), other.height());
            return Err(model_error(format!("images of different sizes in one call: {problem}")));
        }
        output.check(images.len(), size, self.classes.len())?;
        let prepared = images.iter().map(Image::prepare).collect::<Result<Vec<_>>>()?;
        let mut run = move || self.session()?.segment(&prepared, size, &mut output, stop);
        if rayon::current_thread_index().is_none() {
            return run();
        }
        // A thread of the program's pool that waits for the model's threads would take up other
        // tasks of the program meanwhile. One that calls this model again would wait for itself.
        std::thread::scope(|scope| {
            let call = std::thread::Builder::new().spawn_scoped(scope, run);
            let call = call.map_err(|e| Error::device(format!("cannot start a thread: {e}")))?;
            call.join().unwrap_or_else(|_| Err(panicked()))
        })
    }

    fn session(&self) -> Result<MutexGuard<'_, Session>> {
        self.session.lock().map_err(|_| panicked())
    }
}

/// Writes one network of a run's checkpoint, or of any other file that [`Model::open`] opens, as the
/// one file that a program needs: safetensors with the weights, the configuration, and with it the
/// classes and their colors. Every command opens it by itself, too.
///
/// # Errors
/// [`Error::Io`]; [`Error::Weights`] if the file holds no such network, a number has no finite value
/// of this precision, or `out` is `from` itself.
pub fn export(
    from: impl AsRef<Path>,
    network: Network,
    precision: FilePrecision,
    out: impl AsRef<Path>,
) -> Result<()> {
    let file = files::open_at(from.as_ref())?;
    deploy(&described::config_of(&file)?, &file, network, precision, out.as_ref())
}

fn panicked() -> Error {
    Error::device("an earlier call of this model has panicked: open it again")
}

// Threads may share a model, and move it.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Model>();
    shared::<Options>();
};
