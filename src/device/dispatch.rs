//! Kernel launches on a device: the grid that suits it, and the check of every argument's type.

use super::handle::Device;
use super::launch::{Arg, Element, Grid, Kernel};
use super::profile::Request;
use super::shapes;
use crate::dtype::DType;
use crate::{Error, Result};

impl Device {
    /// Blocks for a GRID_LOOP over `n` elements.
    pub fn elements(&self, n: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_for(n))
    }

    /// Blocks for a loop over `rows`, each costing about as much as `width` elements.
    pub fn rows(&self, rows: usize, width: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_of_rows(rows, width))
    }

    /// Blocks for a TEAM_ROWS loop over `rows`, each costing about as much as `width` elements.
    pub fn team_rows(&self, rows: usize, width: usize) -> Grid {
        Grid::blocks(self.0.backend.blocks_of_teams(rows, width))
    }

    /// Blocks for a TEAM_ROWS loop that sums over `rows`, one part a block: the shape alone decides in
    /// which order a device adds.
    pub fn team_parts(&self, rows: usize) -> Grid {
        Grid::blocks(self.0.backend.parts_of_teams(rows))
    }

    pub(crate) fn launch(&self, kernel: &'static Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        for arg in args {
            if let Arg::Pointer { name, element, tensor: Some(tensor), .. } = arg {
                let wanted = self.dtype_of(*element);
                if tensor.dtype != wanted {
                    let problem = format!("`{name}` must be {wanted:?}, is {tensor:?}");
                    return Err(Error::shape(kernel.name, problem));
                }
            }
        }
        shapes::check(kernel, grid, args)?;
        let request = || Request::launch(kernel, grid, args);
        self.timed(request, || self.0.backend.launch(kernel, self.0.types, grid, args))
    }

    /// The type that a kernel's parameter has on this device.
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
