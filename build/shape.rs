//! Parses the shape after a pointer in a kernel's signature: dimensions separated by commas, each
//! an expression over the kernel's sizes, exported constants and whole numbers.
//!
//! ```text
//! batch,height,width,3        the tensor must hold the product of the dimensions
//! rows,2*channels             + - * / and parentheses; a division must have no remainder …
//! floor(height/scale)         … unless it is rounded explicitly
//! ceil(keys/KEYS)
//! blocks,channels             `blocks` is the number of blocks of the launch
//! >= rows                     at least as many elements
//! ```

/// Resolves the names that a shape may use: the kernel's sizes and exported constants.
pub struct Names<'a> {
    /// Returns the position of a size among the kernel's parameters.
    pub size: &'a dyn Fn(&str) -> Option<usize>,
    pub constant: &'a dyn Fn(&str) -> Option<u64>,
}

#[derive(Debug, PartialEq)]
pub struct Shape {
    /// The tensor may hold more elements than the shape says.
    pub at_least: bool,
    pub dims: Vec<Dim>,
}

#[derive(Debug, PartialEq)]
pub enum Dim {
    Number(u64),
    /// The kernel's parameter at this position.
    Size(usize),
    Blocks,
    Two(Operation, Box<[Dim; 2]>),
}

/// These are variants of `Dim` in src/device/shapes.rs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Sum,
    Difference,
    Product,
    Quotient,
    Floor,
    Ceil,
}

/// Name of the launch's number of blocks.
pub const BLOCKS: &str = "blocks";

impl Shape {
    pub fn read(text: &str, names: &Names) -> Result<Shape, String> {
        let (at_least, rest) = match text.trim().strip_prefix(">=") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let wrong = |problem: String| format!("shape `{text}`: {problem}");
        let tokens = tokens(rest).map_err(wrong)?;
        let mut reader = Reader { tokens: &tokens, names };
        let mut dims = vec![reader.sum().map_err(wrong)?];
        while reader.take(",") {
            dims.push(reader.sum().map_err(wrong)?);
        }
        match reader.tokens.first() {
            Some(token) => Err(wrong(format!("`{token}` is not expected there"))),
            None => Ok(Shape { at_least, dims }),
        }
    }

    /// Generates the Rust expression for a `Shape` of src/device/shapes.rs.
    pub fn rust(&self) -> String {
        let dims: Vec<String> = self.dims.iter().map(Dim::rust).collect();
        format!("Shape {{ at_least: {}, dims: &[{}] }}", self.at_least, dims.join(", "))
    }
}

impl Dim {
    fn rust(&self) -> String {
        match self {
            Dim::Number(n) => format!("Dim::Number({n})"),
            Dim::Size(position) => format!("Dim::Size({position})"),
            Dim::Blocks => "Dim::Blocks".into(),
            Dim::Two(operation, two) => {
                format!("Dim::{operation:?}(&{}, &{})", two[0].rust(), two[1].rust())
            }
        }
    }
}

/// Splits a shape into names, numbers and operators.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut inside_word = false;
    for c in text.chars() {
        let word = c.is_ascii_alphanumeric() || c == '_';
        match (word, tokens.last_mut()) {
            (true, Some(last)) if inside_word => last.push(c),
            (true, _) => tokens.push(c.into()),
            _ if ",+-*/()".contains(c) => tokens.push(c.into()),
            _ if c == ' ' => (),
            _ => return Err(format!("`{c}` is not expected")),
        }
        inside_word = word;
    }
    Ok(tokens)
}

struct Reader<'a> {
    tokens: &'a [String],
    names: &'a Names<'a>,
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        let found = self.tokens.first().is_some_and(|first| first == token);
        self.tokens = &self.tokens[usize::from(found)..];
        found
    }

    fn sum(&mut self) -> Result<Dim, String> {
        let mut left = self.product()?;
        loop {
            let operation = match () {
                () if self.take("+") => Operation::Sum,
                () if self.take("-") => Operation::Difference,
                () => return Ok(left),
            };
            left = Dim::Two(operation, Box::new([left, self.product()?]));
        }
    }

    fn product(&mut self) -> Result<Dim, String> {
        let mut left = self.factor()?;
        loop {
            let operation = match () {
                () if self.take("*") => Operation::Product,
                () if self.take("/") => Operation::Quotient,
                () => return Ok(left),
            };
            left = Dim::Two(operation, Box::new([left, self.factor()?]));
        }
    }

    fn factor(&mut self) -> Result<Dim, String> {
        let Some((token, rest)) = self.tokens.split_first() else {
            return Err("it ends unexpectedly".into());
        };
        self.tokens = rest;
        if token == "(" {
            return self.closed();
        }
        if let Some(rounded) = [("floor", Operation::Floor), ("ceil", Operation::Ceil)]
            .into_iter()
            .find_map(|(name, operation)| (name == token).then_some(operation))
            && self.take("(")
        {
            return match self.closed()? {
                Dim::Two(Operation::Quotient, two) => Ok(Dim::Two(rounded, two)),
                _ => Err(format!("`{token}` is part of a division")),
            };
        }
        if let Ok(number) = token.parse() {
            return Ok(Dim::Number(number));
        }
        if token == BLOCKS {
            return Ok(Dim::Blocks);
        }
        if let Some(position) = (self.names.size)(token) {
            return Ok(Dim::Size(position));
        }
        match (self.names.constant)(token) {
            Some(number) => Ok(Dim::Number(number)),
            None => Err(format!(
                "`{token}` is neither an int64_t of the kernel nor an exported constant"
            )),
        }
    }

    fn closed(&mut self) -> Result<Dim, String> {
        let inner = self.sum()?;
        if self.take(")") { Ok(inner) } else { Err("a parenthesis is not closed".into()) }
    }
}
