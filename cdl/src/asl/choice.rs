//! Conditions of Choice states.
//!
//! Source: the Amazon States Language, "Choice State": a comparison with data of
//! another type is false; a path that leads nowhere is an error, unless the
//! test is `IsPresent`.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::fault::Fault;
use super::jsonata::Query;
use super::path::{Fuel, Miss, Path};
use super::scope::{Scope, too_much};
use super::time::parse_timestamp;

/// A compiled condition.
#[derive(Debug, PartialEq)]
pub(crate) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare {
        variable: Path,
        how: Comparison,
        with: Operand,
    },
    /// `IsNull` and its like, and what it has to give.
    Is {
        variable: Path,
        what: Type,
        expected: bool,
    },
    Query(Query),
}

/// What a comparison compares with.
#[derive(Debug, PartialEq)]
pub(crate) enum Operand {
    Value(Value),
    /// Of the operators that end in `Path`.
    Path(Path),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) kind: Compared,
    pub(crate) test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    String,
    Number,
    Boolean,
    Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Equals,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    /// `StringMatches`
    Matches,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Present,
    Null,
    String,
    Number,
    Boolean,
    Timestamp,
}

impl Condition {
    /// Whether it holds, `data` being what `$` means.
    pub(crate) fn holds(
        &self,
        scope: &Scope,
        data: &Value,
        steps: &mut u64,
    ) -> Result<bool, Fault> {
        match self {
            Self::All(parts) => {
                for part in parts {
                    if !part.holds(scope, data, steps)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(parts) => {
                for part in parts {
                    if part.holds(scope, data, steps)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(part) => part.holds(scope, data, steps).map(|holds| !holds),
            Self::Compare {
                variable,
                how,
                with,
            } => {
                let value = operand(scope, variable, data)?;
                let with = match with {
                    Operand::Value(with) => Cow::Borrowed(with),
                    Operand::Path(path) => operand(scope, path, data)?,
                };
                let mut fuel = scope.fuel.borrow_mut();
                how.holds(&value, &with, &mut fuel)
                    .map_err(|_| too_much(variable))
            }
            Self::Is {
                variable,
                what,
                expected,
            } => match (scope.select(variable, data), what) {
                (Ok(value), what) => Ok(what.fits(&value) == *expected),
                (Err(Miss::TooMuch), _) => Err(too_much(variable)),
                (Err(_), Type::Present) => Ok(!expected),
                (Err(_), _) => Err(invalid(variable)),
            },
            Self::Query(query) => match query.evaluate(scope, steps)? {
                Value::Bool(holds) => Ok(holds),
                other => Err(match query.as_expression() {
                    Some(expression) => expression.wrong_type("boolean", &other),
                    None => Fault::query("The condition is not a boolean"),
                }),
            },
        }
    }
}

fn operand<'s>(scope: &'s Scope, path: &Path, data: &'s Value) -> Result<Cow<'s, Value>, Fault> {
    scope.select(path, data).map_err(|miss| match miss {
        Miss::TooMuch => too_much(path),
        Miss::NotFound | Miss::BadOperand => invalid(path),
    })
}

fn invalid(path: &Path) -> Fault {
    Fault::runtime(format!(
        "Invalid path '{path}': The choice state's condition path references an invalid value."
    ))
}

impl Comparison {
    fn holds(self, value: &Value, with: &Value, fuel: &mut Fuel) -> Result<bool, Miss> {
        Ok(match (self.kind, value, with) {
            (Compared::String, Value::String(a), Value::String(b)) => {
                if self.test == Test::Matches {
                    matches_pattern(b, a, fuel)?
                } else {
                    // AWS compares as Java does: by UTF-16 units.
                    self.test.fits(a.encode_utf16().cmp(b.encode_utf16()))
                }
            }
            (Compared::Number, Value::Number(a), Value::Number(b)) => {
                let order = match (a.as_i64(), b.as_i64()) {
                    (Some(a), Some(b)) => Some(a.cmp(&b)),
                    _ => a
                        .as_f64()
                        .zip(b.as_f64())
                        .and_then(|(a, b)| a.partial_cmp(&b)),
                };
                order.is_some_and(|order| self.test.fits(order))
            }
            (Compared::Boolean, Value::Bool(a), Value::Bool(b)) => a == b,
            (Compared::Timestamp, Value::String(a), Value::String(b)) => {
                match (parse_timestamp(a), parse_timestamp(b)) {
                    (Some(a), Some(b)) => self.test.fits(a.cmp(&b)),
                    _ => false,
                }
            }
            _ => false,
        })
    }
}

impl Test {
    fn fits(self, order: Ordering) -> bool {
        match self {
            Self::Equals | Self::Matches => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::Greater => order.is_gt(),
            Self::LessOrEqual => order.is_le(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Type {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Present => true,
            Self::Null => value.is_null(),
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Timestamp => value.as_str().and_then(parse_timestamp).is_some(),
        }
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters, `\*`
/// for a star and `\\` for a backslash. Takes time by the product of the
/// lengths at worst, which is counted.
pub(crate) fn matches_pattern(pattern: &str, text: &str, fuel: &mut Fuel) -> Result<bool, Miss> {
    let mut parts: Vec<Option<char>> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => None,
            '\\' => chars.next().or(Some('\\')),
            c => Some(c),
        });
    }
    let (mut at, mut rest) = (0, text.chars());
    // Where to go on if what follows the latest star does not fit.
    let mut retry = None;
    loop {
        fuel.take(1)?;
        match (parts.get(at), rest.clone().next()) {
            (Some(None), _) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            (Some(Some(part)), Some(c)) if *part == c => {
                at += 1;
                rest.next();
                continue;
            }
            (None, None) => return Ok(true),
            _ => {}
        }
        let Some((star, tail)) = &mut retry else {
            return Ok(false);
        };
        if tail.next().is_none() {
            return Ok(false);
        }
        (at, rest) = (*star, tail.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: the examples of the specification.
    #[test]
    fn stars_stand_for_anything_unless_escaped() {
        for (pattern, text, expected) in [
            ("log-*.txt", "log-1.txt", true),
            ("log-*.txt", "log-.txt", true),
            ("log-*.txt", "log-1.tx", false),
            ("*.*", "a.b.c", true),
            ("*b*c", "abbcbc", true),
            ("*b*c", "abbcb", false),
            ("", "", true),
            ("*", "", true),
            ("a", "ab", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"a\\*", r"a\b", true),
        ] {
            let fits = matches_pattern(pattern, text, &mut Fuel(1_000));
            assert_eq!(fits, Ok(expected), "{pattern} {text}");
        }
    }

    #[test]
    fn data_of_another_type_never_compares() {
        let string = Comparison {
            kind: Compared::String,
            test: Test::Equals,
        };
        let number = Comparison {
            kind: Compared::Number,
            test: Test::LessOrEqual,
        };
        let time = Comparison {
            kind: Compared::Timestamp,
            test: Test::Less,
        };
        let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        for (how, a, b, expected) in [
            (string, r#""a""#, r#""a""#, true),
            (string, "1", r#""1""#, false),
            (number, "1", "1.0", true),
            (number, "9007199254740993", "9007199254740992", false),
            (number, r#""1""#, "1", false),
            (
                time,
                r#""2016-03-14T01:59:00Z""#,
                r#""2016-03-14T01:00:00-02:00""#,
                true,
            ),
            (time, r#""2016-03-14""#, r#""2017-03-14T01:00:00Z""#, false),
        ] {
            let holds = how.holds(&value(a), &value(b), &mut Fuel(1_000));
            assert_eq!(holds, Ok(expected), "{a} {b}");
        }
    }

    #[test]
    fn a_pattern_that_is_tried_too_often_ends_with_an_error() {
        let (pattern, text) = (format!("*{}b", "a".repeat(1_000)), "a".repeat(10_000));
        let fits = matches_pattern(&pattern, &text, &mut Fuel(1_000_000));
        assert_eq!(fits, Err(Miss::TooMuch));
    }
}
