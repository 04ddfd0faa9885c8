//! The number of elements that each tensor of a launch must hold, from the shapes in the kernel's
//! signature.

/// A parameter in a kernel's signature.
#[derive(Debug)]
pub struct Parameter {
    /// The name in the signature.
    pub name: &'static str,
    /// Kind of argument that the parameter takes.
    pub kind: ParameterKind,
}

/// The kind of a kernel parameter.
#[derive(Debug)]
pub enum ParameterKind {
    /// A pointer to a tensor of this shape.
    Tensor(Shape),
    /// An `int64_t`, which shapes may refer to.
    Size,
    /// A `bool`.
    Switch,
    /// A `real`.
    Number,
}

/// The number of elements that a tensor must hold: the product of its dimensions.
#[derive(Debug)]
pub struct Shape {
    /// Whether the tensor may hold more.
    pub at_least: bool,
    /// The dimensions.
    pub dims: &'static [Dim],
}

/// A dimension: an expression over the sizes of a launch.
#[derive(Debug)]
pub enum Dim {
    /// A constant.
    Number(u64),
    /// The value of the argument at this position.
    Size(usize),
    /// The number of blocks of the launch.
    Blocks,
    /// The sum of two dimensions.
    Sum(&'static Dim, &'static Dim),
    /// The first dimension minus the second, which must not be larger.
    Difference(&'static Dim, &'static Dim),
    /// The product of two dimensions.
    Product(&'static Dim, &'static Dim),
    /// The first dimension divided by the second, without a remainder.
    Quotient(&'static Dim, &'static Dim),
    /// The quotient, rounded down.
    Floor(&'static Dim, &'static Dim),
    /// The quotient, rounded up.
    Ceil(&'static Dim, &'static Dim),
}

/// The values that the shapes of a launch refer to.
pub struct Sizes<'a> {
    /// Returns the value of the argument at a position; None if it is not a size.
    pub argument: &'a dyn Fn(usize) -> Option<u64>,
    /// Number of blocks.
    pub blocks: u64,
}

impl Dim {
    /// Evaluates the dimension. Returns None if it is negative, too large or not a whole number.
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
    /// Compares a tensor's number of elements with the shape. The error says what is wrong.
    pub fn check(&self, held: usize, sizes: &Sizes) -> Result<(), String> {
        let Some(elements) = self.elements(sizes) else {
            return Err("has no size: the launch's sizes contradict each other".into());
        };
        let held = held as u64;
        if held == elements || (held > elements && self.at_least) {
            return Ok(());
        }
        let dims = self.dims.iter().filter_map(|dim| dim.value(sizes));
        let dims: Vec<String> = dims.map(|dim| dim.to_string()).collect();
        let wanted = match dims.len() {
            1 => elements.to_string(),
            _ => format!("{}={elements}", dims.join("x")),
        };
        let relation = if self.at_least { "fewer than" } else { "not" };
        Err(format!("holds {held} elements, {relation} {wanted}"))
    }

    /// Returns the number of elements; None if a dimension has no value or the product is too large.
    pub fn elements(&self, sizes: &Sizes) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |product, dim| product.checked_mul(dim.value(sizes)?))
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
