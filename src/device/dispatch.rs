//! Kernel launches: a grid that suits the device, and checks of every tensor's type and size.

use super::handle::Device;
use super::launch::{Arg, Element, Grid, Kernel};
use super::profile::Request;
use crate::dtype::DType;
use crate::{Error, Result};

impl Device {
    /// Returns the grid of a GRID_LOOP over `n` elements.
    pub fn elements(&self, n: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_for(n))
    }

    /// Returns the grid of a loop over `rows`, each costing about as much as `width` elements.
    pub fn rows(&self, rows: usize, width: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_of_rows(rows, width))
    }

    /// Returns the grid of a GROUP_ROWS loop over `rows`, each costing about as much as `width`
    /// elements.
    pub fn group_rows(&self, rows: usize, width: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_of_groups(rows, width))
    }

    /// Returns the grid of a GROUP_ROWS loop that sums over `rows`, one partial sum per block. It
    /// depends only on the number of rows, so a device always adds in the same order.
    pub fn group_parts(&self, rows: usize) -> Grid {
        Grid::blocks(self.0.backend.parts_of_groups(rows))
    }

    pub(crate) fn launch(&self, kernel: &'static Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        grid.check().map_err(|problem| Error::shape(kernel.name, problem))?;
        for arg in args {
            if let Arg::Pointer { name, element, tensor: Some(tensor), .. } = arg {
                self.require_own(kernel.name, *tensor)?;
                let wanted = self.dtype_of(*element);
                if tensor.dtype != wanted {
                    let problem = format!("`{name}` must be {wanted:?}, is {tensor:?}");
                    return Err(Error::shape(kernel.name, problem));
                }
            }
        }
        kernel.check_sizes(grid, args)?;
        let request = || Request::launch(kernel, grid, args);
        self.timed(request, || self.0.backend.launch(kernel, self.0.types, grid, args))
    }

    /// Returns the type that a kernel's parameter has on this device.
    fn dtype_of(&self, element: Element) -> DType {
        match element {
            Element::Operand => self.operand(),
            Element::Real => self.real(),
            Element::U8 => DType::U8,
            Element::I32 => DType::I32,
            Element::I64 => DType::I64,
            Element::U64 => DType::U64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Precision;
    use crate::device::kernels::ALL;
    use crate::device::shapes::{Parameter, ParameterKind, Sizes};
    use crate::tensor::Tensor;

    /// Sizes of a launch, all different.
    const PRIMES: [i64; 12] = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41];

    /// Returns the number of elements that each tensor of a launch must hold; None if the launch's
    /// sizes do not fit each other.
    fn lengths(kernel: &'static Kernel, args: &[Arg], grid: Grid) -> Option<Vec<Option<u64>>> {
        let argument = |position: usize| match args[position] {
            Arg::I64(size) => size.try_into().ok(),
            _ => None,
        };
        let sizes = Sizes { argument: &argument, blocks: grid.blocks as u64 };
        let length = |parameter: &Parameter| match &parameter.kind {
            ParameterKind::Tensor(shape) => shape.elements(&sizes).map(Some),
            _ => Some(None),
        };
        kernel.parameters.iter().map(length).collect()
    }

    /// Launches a kernel on tensors of the given lengths.
    fn launch(
        kernel: &'static Kernel,
        scalars: &[Arg],
        grid: Grid,
        lengths: &[Option<u64>],
    ) -> Result<()> {
        let device = Device::dry(Precision::F32);
        let tensors: Vec<Option<Tensor>> = (lengths.iter())
            .map(|n| n.map(|n| device.empty(&[n as usize])).transpose())
            .collect::<Result<_>>()?;
        let args: Vec<Arg> = (kernel.parameters.iter().zip(&tensors).zip(scalars))
            .map(|((parameter, tensor), scalar)| match (tensor, scalar) {
                (Some(_), _) => Arg::Pointer {
                    name: parameter.name,
                    element: Element::Real,
                    written: false,
                    tensor: tensor.as_ref().map(Tensor::view),
                },
                (None, &Arg::I64(n)) => Arg::I64(n),
                (None, _) => Arg::I32(0),
            })
            .collect();
        device.launch(kernel, grid, &args)
    }

    #[test]
    fn every_tensor_of_every_kernel_has_one_size() {
        let mut tensors = 0;
        for &kernel in ALL {
            let mut primes = PRIMES.into_iter();
            let mut scalar = |parameter: &Parameter| match parameter.kind {
                ParameterKind::Size => Arg::I64(primes.next().unwrap()),
                _ => Arg::I32(0),
            };
            let scalars: Vec<Arg> = kernel.parameters.iter().map(&mut scalar).collect();
            // Some sizes count parts that the blocks are divided into, so not every number of
            // blocks fits.
            let (grid, lengths) = (1..100_000)
                .map(Grid::blocks)
                .find_map(|grid| Some((grid, lengths(kernel, &scalars, grid)?)))
                .unwrap_or_else(|| panic!("{}: no kernel matches", kernel.name));
            launch(kernel, &scalars, grid, &lengths).unwrap();
            for (position, parameter) in kernel.parameters.iter().enumerate() {
                let Some(right) = lengths[position] else { continue };
                tensors += 1;
                for wrong in right.checked_sub(1).into_iter().chain([right + 1]) {
                    let mut lengths = lengths.clone();
                    lengths[position] = Some(wrong);
                    let told = launch(kernel, &scalars, grid, &lengths).unwrap_err().to_string();
                    let named = format!("{}: `{}` holds {wrong} ", kernel.name, parameter.name);
                    assert!(told.starts_with(&named), "{told}");
                }
            }
        }
        assert!(tensors > 300, "only {tensors} tensors");
    }
}
