//! Arithmetic on the lengths of axes.

use super::graph::Graph;
use super::value::{Dim, Value};

/// An operator on integers: its name, and what it computes.
type Operator = (&'static str, fn(i64, i64) -> i64);

impl Graph {
    /// Returns `a + b`.
    pub fn dim_add(&mut self, a: &Dim, b: &Dim) -> Dim {
        self.calculate(("Add", |a, b| a + b), a, b)
    }

    /// Returns `a − b`.
    pub fn dim_sub(&mut self, a: &Dim, b: &Dim) -> Dim {
        self.calculate(("Sub", |a, b| a - b), a, b)
    }

    /// Returns `a · b`.
    pub fn dim_mul(&mut self, a: &Dim, b: &Dim) -> Dim {
        self.calculate(("Mul", |a, b| a * b), a, b)
    }

    /// Returns `⌊a / b⌋` of numbers that are not negative.
    pub fn dim_div(&mut self, a: &Dim, b: &Dim) -> Dim {
        self.calculate(("Div", |a, b| a / b), a, b)
    }

    /// Returns the smaller length.
    pub fn dim_min(&mut self, a: &Dim, b: &Dim) -> Dim {
        self.calculate(("Min", i64::min), a, b)
    }

    fn calculate(&mut self, (op, number): Operator, a: &Dim, b: &Dim) -> Dim {
        if let (Dim::Known(a), Dim::Known(b)) = (a, b) {
            return Dim::Known(number(*a, *b));
        }
        let [a, b] = [a, b].map(|dim| self.dims(std::slice::from_ref(dim)));
        Dim::Computed(self.node(op, &[&a, &b], vec![], vec![Some(1)]))
    }

    /// Returns the length of an axis of a value.
    pub fn dim(&mut self, x: &Value, axis: usize) -> Dim {
        match x.shape[axis] {
            Some(length) => Dim::Known(length),
            None => Dim::Computed(self.length(x, axis)),
        }
    }

    /// Returns the lengths as one int64 tensor.
    pub fn dims(&mut self, dims: &[Dim]) -> Value {
        let known: Option<Vec<i64>> =
            dims.iter().map(|dim| if let Dim::Known(n) = dim { Some(*n) } else { None }).collect();
        if let Some(numbers) = known {
            return self.integers(&numbers);
        }
        let parts: Vec<Value> = (dims.iter())
            .map(|dim| match dim {
                Dim::Known(number) => self.integers(&[*number]),
                Dim::Computed(value) => value.clone(),
            })
            .collect();
        match &parts[..] {
            [one] => one.clone(),
            _ => self.concat(&parts, 0),
        }
    }
}
