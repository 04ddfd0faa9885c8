//! How large the tensors of a launch must be, from the shapes in the kernel's signature: what does not
//! fit is an error before the kernel runs, and never another tensor's memory.

use super::launch::{Arg, Grid, Kernel};
use crate::{Error, Result};

/// A parameter of a kernel, as its signature has it.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: ParameterKind,
}

#[derive(Debug)]
pub enum ParameterKind {
    Tensor(Shape),
    Size,
    Switch,
    Number,
}

/// The elements that a tensor must hold: the product of its dimensions.
#[derive(Debug)]
pub struct Shape {
    /// It may hold more.
    pub at_least: bool,
    pub dims: &'static [Dim],
}

/// A dimension: an expression over the sizes of a launch.
#[derive(Debug)]
pub enum Dim {
    Number(u64),
    /// The argument at this position.
    Size(usize),
    /// Blocks of the launch.
    Blocks,
    Sum(&'static Dim, &'static Dim),
    Difference(&'static Dim, &'static Dim),
    Product(&'static Dim, &'static Dim),
    /// Must come out even.
    Quotient(&'static Dim, &'static Dim),
    Floor(&'static Dim, &'static Dim),
    Ceil(&'static Dim, &'static Dim),
}

impl Dim {
    /// None where it is negative, too large or no whole number.
    fn value(&self, args: &[Arg], blocks: u64) -> Option<u64> {
        let two = |a: &Dim, b: &Dim| Some((a.value(args, blocks)?, b.value(args, blocks)?));
        match *self {
            Dim::Number(n) => Some(n),
            Dim::Size(position) => match args.get(position)? {
                Arg::I64(size) => u64::try_from(*size).ok(),
                _ => None,
            },
            Dim::Blocks => Some(blocks),
            Dim::Sum(a, b) => two(a, b).and_then(|(a, b)| a.checked_add(b)),
            Dim::Difference(a, b) => two(a, b).and_then(|(a, b)| a.checked_sub(b)),
            Dim::Product(a, b) => two(a, b).and_then(|(a, b)| a.checked_mul(b)),
            Dim::Quotient(a, b) => {
                two(a, b).filter(|&(a, b)| a.checked_rem(b) == Some(0)).map(|(a, b)| a / b)
            }
            Dim::Floor(a, b) => two(a, b).and_then(|(a, b)| a.checked_div(b)),
            Dim::Ceil(a, b) => two(a, b).filter(|&(_, b)| b > 0).map(|(a, b)| a.div_ceil(b)),
        }
    }
}

impl Shape {
    /// Elements, and the dimensions that they are the product of; none where that is no number.
    fn elements(&self, args: &[Arg], grid: Grid) -> Option<(u64, Vec<u64>)> {
        let blocks = u64::try_from(grid.blocks).ok()?;
        let dims: Option<Vec<u64>> = self.dims.iter().map(|d| d.value(args, blocks)).collect();
        let dims = dims?;
        let elements = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
        Some((elements, dims))
    }
}

/// A size as a kernel takes it.
pub(super) fn size(kernel: &'static Kernel, name: &'static str, size: usize) -> Result<i64> {
    size.try_into().map_err(|_| Error::shape(kernel.name, format!("`{name}` is {size}")))
}

/// Compares the tensors of a launch with the shapes in the kernel's signature.
pub(super) fn check(kernel: &'static Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
    for (parameter, arg) in kernel.parameters.iter().zip(args) {
        let (ParameterKind::Tensor(shape), Arg::Pointer { tensor: Some(tensor), .. }) =
            (&parameter.kind, arg)
        else {
            continue;
        };
        let wrong = |problem: String| {
            Err(Error::shape(kernel.name, format!("`{}` {problem}", parameter.name)))
        };
        let Some((elements, dims)) = shape.elements(args, grid) else {
            return wrong("has no size: the launch's own sizes do not fit each other".into());
        };
        let held = tensor.shape.iter().product::<usize>() as u64;
        if held == elements || (held > elements && shape.at_least) {
            continue;
        }
        let product: Vec<String> = dims.iter().map(u64::to_string).collect();
        let wanted = match product.len() {
            1 => elements.to_string(),
            _ => format!("{}={elements}", product.join("x")),
        };
        let relation = if shape.at_least { "fewer than" } else { "not" };
        return wrong(format!("holds {held} elements, {relation} {wanted}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::kernels::ALL;
    use crate::device::{ArgElement, Device, Precision};
    use crate::tensor::Tensor;

    /// Sizes of a launch, all different.
    const PRIMES: [i64; 12] = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41];

    /// The elements that each tensor of a launch must hold.
    fn lengths(kernel: &'static Kernel, args: &[Arg], grid: Grid) -> Option<Vec<Option<u64>>> {
        let length = |parameter: &Parameter| match &parameter.kind {
            ParameterKind::Tensor(shape) => shape.elements(args, grid).map(|(n, _)| Some(n)),
            _ => Some(None),
        };
        kernel.parameters.iter().map(length).collect()
    }

    /// What a launch says whose tensors hold so many elements.
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
                    element: ArgElement::Real,
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
            // Some are numbers of parts that the blocks are cut into.
            let (grid, lengths) = (1..100_000)
                .map(Grid::blocks)
                .find_map(|grid| Some((grid, lengths(kernel, &scalars, grid)?)))
                .unwrap_or_else(|| panic!("{}: no launch fits", kernel.name));
            launch(kernel, &scalars, grid, &lengths).unwrap();
            for (position, parameter) in kernel.parameters.iter().enumerate() {
                let Some(right) = lengths[position] else { continue };
                tensors += 1;
                for wrong in [right - 1, right + 1] {
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

    static MORE: Kernel = Kernel {
        name: "more",
        file: "",
        line: 0,
        parameters: &[
            Parameter {
                name: "x",
                kind: ParameterKind::Tensor(Shape {
                    at_least: true,
                    dims: &[Dim::Ceil(&Dim::Size(1), &Dim::Number(4))],
                }),
            },
            Parameter { name: "n", kind: ParameterKind::Size },
        ],
        solo: &[],
    };

    #[test]
    fn a_tensor_may_hold_more_where_its_shape_says_so() {
        let with =
            |n, held| launch(&MORE, &[Arg::I32(0), Arg::I64(n)], Grid::blocks(1), &[held, None]);
        with(9, Some(3)).unwrap();
        with(9, Some(4)).unwrap();
        let told = with(9, Some(2)).unwrap_err().to_string();
        assert_eq!(told, "more: `x` holds 2 elements, fewer than 3");
        assert!(with(-1, Some(3)).unwrap_err().to_string().contains("`x` has no size"));
    }

    #[test]
    fn dimensions_that_are_no_number_are_refused() {
        static FOUR: Dim = Dim::Number(4);
        static SIZE: Dim = Dim::Size(0);
        let value = |dim: Dim, size| dim.value(&[Arg::I64(size)], 6);
        assert_eq!(value(Dim::Quotient(&SIZE, &FOUR), 8), Some(2));
        assert_eq!(value(Dim::Quotient(&SIZE, &FOUR), 9), None);
        assert_eq!(value(Dim::Quotient(&FOUR, &SIZE), 0), None);
        assert_eq!(value(Dim::Floor(&SIZE, &FOUR), 9), Some(2));
        assert_eq!(value(Dim::Floor(&FOUR, &SIZE), 0), None);
        assert_eq!(value(Dim::Ceil(&SIZE, &FOUR), 9), Some(3));
        assert_eq!(value(Dim::Ceil(&FOUR, &SIZE), 0), None);
        assert_eq!(value(Dim::Difference(&FOUR, &SIZE), 3), Some(1));
        assert_eq!(value(Dim::Difference(&FOUR, &SIZE), 5), None);
        assert_eq!(value(Dim::Product(&SIZE, &FOUR), i64::MAX), None);
        assert_eq!(value(Dim::Sum(&SIZE, &Dim::Blocks), 1), Some(7));
        assert_eq!(value(Dim::Size(0), -1), None);
    }
}
