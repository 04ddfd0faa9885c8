//! Tensors for a launch.

use half::bf16;

use crate::Result;
use crate::device::profile::{Argument, Launch};
use crate::device::{Arg, ArgElement, Device, Kernel};
use crate::tensor::{DType, Tensor};

/// The tensors of one launch.
pub(super) struct Set {
    tensors: Vec<Option<Tensor>>,
}

impl Set {
    /// Allocates tensors with the shapes and types of the launch. Floating-point tensors hold values
    /// in [0, 1); integer tensors (labels, indices, flags) are all 0, which is valid for every
    /// kernel.
    pub fn new(device: &Device, launch: &Launch) -> Result<Set> {
        let one = |argument: &Argument| match argument {
            Argument::Tensor { shape, dtype, .. } => {
                let mut tensor = device.zeros(shape, *dtype)?;
                let some = |i: usize| (i % 251) as f32 / 251.0;
                if *dtype == device.real() {
                    let some: Vec<f32> = (0..tensor.len()).map(some).collect();
                    device.write_real(&mut tensor, &some)?;
                } else if *dtype == DType::Bf16 {
                    let some: Vec<_> = (0..tensor.len()).map(|i| bf16::from_f32(some(i))).collect();
                    device.write(&mut tensor, &some)?;
                }
                Ok(Some(tensor))
            }
            _ => Ok(None),
        };
        let tensors = launch.arguments.iter().map(one).collect::<Result<_>>()?;
        Ok(Set { tensors })
    }

    /// Runs a version of the launch's kernel on the tensors.
    pub fn run(&self, device: &Device, launch: &Launch, kernel: &'static Kernel) -> Result<()> {
        let args: Vec<Arg> = (launch.arguments.iter().zip(&self.tensors))
            .map(|(argument, tensor)| arg(argument, tensor.as_ref()))
            .collect();
        device.launch(kernel, launch.grid, &args)
    }

    /// Returns the tensors that the kernel writes, with their names.
    pub fn written<'a>(
        &'a self,
        launch: &'a Launch,
    ) -> impl Iterator<Item = (&'static str, &'a Tensor)> {
        launch.arguments.iter().zip(&self.tensors).filter_map(|(argument, tensor)| match argument {
            Argument::Tensor { name, written: true, .. } => Some((*name, tensor.as_ref()?)),
            _ => None,
        })
    }
}

fn arg<'a>(argument: &Argument, tensor: Option<&'a Tensor>) -> Arg<'a> {
    match *argument {
        Argument::Tensor { name, element, written, .. } => {
            Arg::Pointer { name, element, written, tensor: tensor.map(Tensor::view) }
        }
        Argument::Absent => {
            Arg::Pointer { name: "", element: ArgElement::Real, written: false, tensor: None }
        }
        Argument::I64(x) => Arg::I64(x),
        Argument::I32(x) => Arg::I32(x),
        Argument::U64(x) => Arg::U64(x),
        Argument::Real(x) => Arg::Real(x),
    }
}
