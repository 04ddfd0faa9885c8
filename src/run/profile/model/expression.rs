//! Arithmetic over the sizes of a launch, as the data file writes it.

use std::iter::Peekable;
use std::str::CharIndices;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A constant.
    Number(f64),
    /// A size of the launch.
    Name(String),
    /// An operator between two expressions.
    Binary(char, Box<[Expression; 2]>),
    /// A function of one or two arguments.
    Call(Function, Vec<Expression>),
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Rounds up.
    Ceil,
    /// Rounds down.
    Floor,
    /// The smaller one.
    Min,
    /// The larger one.
    Max,
}

impl Expression {
    /// Parses sums, differences, products and quotients of numbers and names, with `ceil`, `floor`,
    /// `min` and `max`. The error says what was expected.
    pub fn parse(text: &str) -> Result<Expression, String> {
        let mut parser = Parser { text, rest: text.char_indices().peekable() };
        let all = parser.sum()?;
        match parser.next() {
            None => Ok(all),
            Some((at, _)) => Err(parser.expected("an operator", Some(at))),
        }
    }

    /// Evaluates the expression; `None` if `value` does not know a name.
    pub fn value(&self, value: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
        Some(match self {
            Expression::Number(x) => *x,
            Expression::Name(name) => value(name)?,
            Expression::Binary(operator, operands) => {
                let [a, b] = &**operands;
                let (a, b) = (a.value(value)?, b.value(value)?);
                match operator {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    _ => a / b,
                }
            }
            Expression::Call(function, arguments) => {
                let values: Option<Vec<f64>> = arguments.iter().map(|a| a.value(value)).collect();
                let values = values?;
                let first = values.first().copied()?;
                match function {
                    Function::Ceil => first.ceil(),
                    Function::Floor => first.floor(),
                    Function::Min => values.into_iter().fold(first, f64::min),
                    Function::Max => values.into_iter().fold(first, f64::max),
                }
            }
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl Parser<'_> {
    /// Returns the next character that is not a space, and stays there.
    fn next(&mut self) -> Option<(usize, char)> {
        while self.rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        self.rest.peek().copied()
    }

    /// Passes one of the given characters, if it is next.
    fn take(&mut self, any: &[char]) -> Option<char> {
        let (_, c) = self.next().filter(|(_, c)| any.contains(c))?;
        self.rest.next();
        Some(c)
    }

    fn expected(&self, what: &str, at: Option<usize>) -> String {
        let found = at.map_or("the end", |at| &self.text[at..]);
        format!("`{}`: expected {what}, not `{found}`", self.text)
    }

    fn sum(&mut self) -> Result<Expression, String> {
        let mut all = self.product()?;
        while let Some(operator) = self.take(&['+', '-']) {
            all = Expression::Binary(operator, Box::new([all, self.product()?]));
        }
        Ok(all)
    }

    fn product(&mut self) -> Result<Expression, String> {
        let mut all = self.one()?;
        while let Some(operator) = self.take(&['*', '/']) {
            all = Expression::Binary(operator, Box::new([all, self.one()?]));
        }
        Ok(all)
    }

    fn one(&mut self) -> Result<Expression, String> {
        if self.take(&['(']).is_some() {
            let inner = self.sum()?;
            return self.close().map(|()| inner);
        }
        let start = self.next().map(|(at, _)| at);
        let word = self.word();
        if let Ok(number) = word.parse() {
            return Ok(Expression::Number(number));
        }
        if word.is_empty() {
            return Err(self.expected("a number or a name", start));
        }
        if self.take(&['(']).is_none() {
            return Ok(Expression::Name(word));
        }
        let (function, most) = match word.as_str() {
            "ceil" => (Function::Ceil, 1),
            "floor" => (Function::Floor, 1),
            "min" => (Function::Min, 2),
            "max" => (Function::Max, 2),
            _ => return Err(self.expected("ceil, floor, min or max", start)),
        };
        let mut arguments = vec![self.sum()?];
        while arguments.len() < most && self.take(&[',']).is_some() {
            arguments.push(self.sum()?);
        }
        self.close().map(|()| Expression::Call(function, arguments))
    }

    fn close(&mut self) -> Result<(), String> {
        let at = self.next().map(|(at, _)| at);
        self.take(&[')']).map(|_| ()).ok_or_else(|| self.expected("`)`", at))
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some((_, c)) =
            self.rest.next_if(|(_, c)| c.is_ascii_alphanumeric() || *c == '_' || *c == '.')
        {
            word.push(c);
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        let sizes = |name: &str| {
            [("rows", 100.0), ("channels", 33.0)]
                .into_iter()
                .find(|(known, _)| *known == name)
                .map(|(_, size)| size)
        };
        Expression::parse(text).unwrap().value(&sizes)
    }

    #[test]
    fn expressions_have_the_usual_meaning() {
        assert_eq!(value("rows * ceil(channels / 32) + 1"), Some(201.0));
        assert_eq!(value("2 - 1 - 1"), Some(0.0));
        assert_eq!(value("min(rows, 7) * (floor(1.5) + max(2, 3))"), Some(28.0));
        assert_eq!(value("rows / channels * columns"), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("rows *", "expected a number or a name, not `the end`"),
            ("(rows", "expected `)`, not `the end`"),
            ("rows channels", "expected an operator, not `channels`"),
            ("log(rows)", "expected ceil, floor, min or max"),
        ] {
            let problem = Expression::parse(text).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
