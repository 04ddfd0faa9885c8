//! The part of a model that is used by one thread at a time.

use super::described::config_of;
use super::image::Prepared;
use super::options::{DeviceKind, Options};
use super::output::{Kind, Output, softmax};
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::Network;
use crate::config::{Config, EvalConfig};
use crate::device::{Device, MemoryReport};
use crate::observer::Observer;
use crate::run::build;
use crate::run::eval::inference::Pixels;
use crate::run::eval::trained::Trained;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// A device with a network, and nothing else on it.
pub(super) struct Session {
    trained: Trained,
    config: EvalConfig,
}

// SAFETY: what is not `Send` here are reference counts and cells of the device, its tensors and the
// network. All that refer to them are inside this value: it is made from nothing but a file and
// options, no function gives a device or a tensor out, and those that a call makes are gone when it
// returns. So they move together. Nothing is kept in thread-local storage but scratch memory and
// names for messages, and CUDA's context is made current anew in every call.
unsafe impl Send for Session {}

/// Passes messages on to the program's log.
struct Logging<'a>(&'a Options);

impl Observer for Logging<'_> {
    fn begin(&self, _: usize, _: usize) {}

    fn advance(&self, _: usize, _: usize, _: &str) {}

    fn message(&self, text: &str) {
        if let Some(log) = &self.0.log {
            log(text);
        }
    }
}

impl Session {
    /// Opens the device and loads the network, and returns the configuration too.
    pub fn open(file: &TensorFile, options: &Options) -> Result<(Session, Config)> {
        let mut config = config_of(file)?;
        if let Some([side, step]) = options.windows {
            if side > 0 && !(1..=side).contains(&step) {
                let problem = format!("windows of {side} pixels in steps of {step}");
                return Err(Error::config(problem));
            }
            (config.eval.window, config.eval.stride) = (side, step);
        }
        config.eval.batch = options.batch.unwrap_or(config.eval.batch);
        let log = Logging(options);
        let device = device(&config, options)?;
        log.message(&device.describe());
        let network = options.network.unwrap_or(Network::Student);
        let trained = Trained::load_on(device, &config, file, network, &log)?;
        Ok((Session { trained, config: config.eval.clone() }, config))
    }

    pub fn describe(&self) -> String {
        self.trained.device().describe()
    }

    pub fn memory(&self) -> MemoryReport {
        self.trained.device().memory()
    }

    /// Segments images of one size, whose result `output` has room for.
    pub fn segment(
        &mut self,
        images: &[Prepared],
        size: [usize; 2],
        output: &mut Output,
        stop: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Result<()> {
        let device = self.trained.device().clone();
        // One handoff to the device's threads, instead of one for each launch.
        device.install(move || self.segment_here(images, size, output, stop))?
    }

    fn segment_here(
        &mut self,
        images: &[Prepared],
        [width, height]: [usize; 2],
        output: &mut Output,
        stop: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Result<()> {
        let device = self.trained.device();
        let tensors = images
            .iter()
            .map(|image| match image {
                Prepared::OnDevice(address) => {
                    let shape = [height, width, 3];
                    // SAFETY: whoever made the image promised that the bytes are readable until
                    // this call returns (`Image::on_device`), and it waits for what reads them.
                    unsafe { device.memory_at(*address, &shape, DType::U8) }.map(Some)
                }
                _ => Ok(None),
            })
            .collect::<Result<Vec<Option<Tensor>>>>()?;
        let pixels: Vec<Pixels> = (images.iter().zip(&tensors))
            .filter_map(|(image, tensor)| match image {
                Prepared::Bytes(bytes) => Some(Pixels::Bytes(bytes)),
                Prepared::Reals(reals) => Some(Pixels::Reals(reals)),
                Prepared::OnDevice(_) => tensor.as_ref().map(Pixels::OnDevice),
            })
            .collect();
        let predictor = self.trained.predictor(&self.config);
        let stop = stop.map(|stop| move || stop());
        let predictor = match &stop {
            Some(stop) => predictor.until(stop),
            None => predictor,
        };
        let logits = predictor.batch_logits(&pixels, width, height)?;
        let result = match output.kind() {
            Kind::Labels => predictor.classes(&logits, (height, width))?,
            Kind::Probabilities | Kind::Logits => logits,
        };
        let classes = self.trained.classes();
        match output {
            Output::Labels(buffer) => device.read_into(&result, buffer),
            Output::Logits(buffer) => device.read_into(&result, buffer),
            Output::Probabilities(buffer) => {
                device.read_into(&result, buffer)?;
                softmax(buffer, classes);
                Ok(())
            }
            Output::OnDevice(wanted) => {
                // SAFETY: whoever made the output promised that the buffer holds as many elements
                // and that nobody else accesses it (`DeviceOutput::new`).
                let mut place =
                    unsafe { device.memory_at(wanted.address, result.shape(), result.dtype())? };
                if wanted.kind == Kind::Probabilities {
                    let mut shares = device.read::<f32>(&result)?;
                    softmax(&mut shares, classes);
                    return device.write(&mut place, &shares);
                }
                device.copy(&result, &mut place)
            }
        }
    }
}

/// Opens the device that the options name.
fn device(config: &Config, options: &Options) -> Result<Device> {
    let precision = match options.precision {
        Some(precision) => precision,
        None => build::precision(config)?,
    };
    let (deterministic, cache) = (config.device.deterministic, &options.cache);
    let gpu = match options.device {
        DeviceKind::Auto => Device::cuda_is_present()?.then_some(0),
        DeviceKind::Host => None,
        DeviceKind::Cuda(index) => Some(index),
    };
    let device = match (&options.context, gpu) {
        (Some(own), _) => {
            let (context, stream) = (own.context, own.stream);
            // SAFETY: whoever set the handles promised that they are live and outlive the model
            // (`Options::set_cuda_context`).
            unsafe { Device::cuda_in_caching(context, stream, precision, deterministic, cache)? }
        }
        (None, Some(index)) => Device::cuda_caching(index, precision, deterministic, cache)?,
        (None, None) => Device::host_in(options.threads, precision)?,
    };
    device.set_memory_limit(options.memory_limit);
    Ok(device)
}
