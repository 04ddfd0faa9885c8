//! How many elements the tensors of a launch must hold, from the shapes in the kernel's signature.

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

/// The numbers that a launch's shapes are made of.
pub struct Sizes<'a> {
    /// The argument at a position; None where it is no size.
    pub argument: &'a dyn Fn(usize) -> Option<u64>,
    pub blocks: u64,
}

impl Dim {
    /// None where it is negative, too large or no whole number.
    fn value(&self, sizes: &Sizes) -> Option<u64> {
        let two = |a: &Dim, b: &Dim| Some((a.value(sizes)?, b.value(sizes)?));
        match *self {
            Dim::Number(n) => Some(n),
            Dim::Size(position) => (sizes.argument)(position),
            Dim::Blocks => Some(sizes.blocks),
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
    /// Compares the elements that a tensor holds with the shape, and says what is wrong.
    pub fn check(&self, held: usize, sizes: &Sizes) -> Result<(), String> {
        let Some((elements, dims)) = self.elements(sizes) else {
            return Err("has no size: the launch's own sizes do not fit each other".into());
        };
        let held = held as u64;
        if held == elements || (held > elements && self.at_least) {
            return Ok(());
        }
        let product: Vec<String> = dims.iter().map(u64::to_string).collect();
        let wanted = match product.len() {
            1 => elements.to_string(),
            _ => format!("{}={elements}", product.join("x")),
        };
        let relation = if self.at_least { "fewer than" } else { "not" };
        Err(format!("holds {held} elements, {relation} {wanted}"))
    }

    /// Elements, and the dimensions that they are the product of; None where that is no number.
    pub fn elements(&self, sizes: &Sizes) -> Option<(u64, Vec<u64>)> {
        let dims: Vec<u64> = self.dims.iter().map(|d| d.value(sizes)).collect::<Option<_>>()?;
        let elements = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
        Some((elements, dims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_that_are_no_number_are_refused() {
        static FOUR: Dim = Dim::Number(4);
        static SIZE: Dim = Dim::Size(0);
        let value = |dim: Dim, size: u64| {
            dim.value(&Sizes { argument: &|position| (position == 0).then_some(size), blocks: 6 })
        };
        assert_eq!(value(Dim::Quotient(&SIZE, &FOUR), 8), Some(2));
        assert_eq!(value(Dim::Quotient(&SIZE, &FOUR), 9), None);
        assert_eq!(value(Dim::Quotient(&FOUR, &SIZE), 0), None);
        assert_eq!(value(Dim::Floor(&SIZE, &FOUR), 9), Some(2));
        assert_eq!(value(Dim::Floor(&FOUR, &SIZE), 0), None);
        assert_eq!(value(Dim::Ceil(&SIZE, &FOUR), 9), Some(3));
        assert_eq!(value(Dim::Ceil(&FOUR, &SIZE), 0), None);
        assert_eq!(value(Dim::Difference(&FOUR, &SIZE), 3), Some(1));
        assert_eq!(value(Dim::Difference(&FOUR, &SIZE), 5), None);
        assert_eq!(value(Dim::Product(&SIZE, &FOUR), u64::MAX / 2), None);
        assert_eq!(value(Dim::Sum(&SIZE, &FOUR), u64::MAX), None);
        assert_eq!(value(Dim::Sum(&SIZE, &Dim::Blocks), 1), Some(7));
        assert_eq!(value(Dim::Size(1), 3), None);
    }

    #[test]
    fn a_tensor_may_hold_more_where_its_shape_says_so() {
        static QUARTERS: [Dim; 1] = [Dim::Ceil(&Dim::Size(0), &Dim::Number(4))];
        let sizes = Sizes { argument: &|_| Some(9), blocks: 1 };
        let shape = |at_least| Shape { at_least, dims: &QUARTERS };
        shape(true).check(3, &sizes).unwrap();
        shape(true).check(4, &sizes).unwrap();
        assert_eq!(shape(true).check(2, &sizes).unwrap_err(), "holds 2 elements, fewer than 3");
        shape(false).check(3, &sizes).unwrap();
        assert_eq!(shape(false).check(4, &sizes).unwrap_err(), "holds 4 elements, not 3");
    }
}
