//! Conditions of Choice states as expressions of CDL.
//!
//! A comparison of the States Language is false for data of another type, one of
//! CDL is an error: so types are looked at first. A path that leads nowhere is an
//! error in both.

use serde_json::Value;

use super::expression::{Expr, Faults, Lost, View, literal};
use crate::asl::choice::{Compared, Comparison, Condition, Operand, Test, Type};
use crate::asl::path::{Path, Step};

/// Numbers up to here are the same as integers and as floats: 2^53.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// What comes before it in the order of UTF-16 comes before it in the order of code
/// points, too.
const FIRST_SURROGATE: char = '\u{d7ff}';

/// A condition of CDL.
pub(super) struct Translated {
    /// All of them have to hold, looked at in this order.
    terms: Vec<String>,
    pub(super) faults: Faults,
}

impl Translated {
    fn one(term: String, faults: Faults) -> Self {
        let terms = vec![term];
        Self { terms, faults }
    }

    pub(super) fn text(&self) -> String {
        self.terms.join(" && ")
    }

    /// As an operand of `!`.
    fn operand(&self) -> String {
        format!("({})", self.text())
    }
}

impl View<'_> {
    pub(super) fn condition(&self, condition: &Condition) -> Result<Translated, Lost> {
        match condition {
            Condition::All(parts) => {
                let mut all = Translated {
                    terms: Vec::new(),
                    faults: Faults::NONE,
                };
                for part in parts {
                    let part = self.condition(part)?;
                    all.faults = all.faults.and(part.faults);
                    for term in part.terms {
                        // What holds already need not be asked again.
                        if !all.terms.contains(&term) {
                            all.terms.push(term);
                        }
                    }
                }
                Ok(all)
            }
            Condition::Any(parts) => {
                let parts: Result<Vec<_>, _> =
                    parts.iter().map(|part| self.condition(part)).collect();
                let parts = parts?;
                let faults = parts.iter().map(|part| part.faults);
                let faults = faults.fold(Faults::NONE, Faults::and);
                if let [_] = parts[..] {
                    return Ok(parts
                        .into_iter()
                        .next()
                        .unwrap_or(Translated::one("false".to_owned(), faults)));
                }
                let texts: Vec<_> = parts.iter().map(Translated::text).collect();
                Ok(Translated::one(format!("({})", texts.join(" || ")), faults))
            }
            Condition::Not(part) => {
                let part = self.condition(part)?;
                Ok(Translated::one(format!("!{}", part.operand()), part.faults))
            }
            Condition::Compare {
                variable,
                how,
                with,
            } => self.compare(variable, *how, with),
            Condition::Is {
                variable,
                what,
                expected,
            } => self.is(variable, *what, *expected),
            Condition::Query(query) => match query {
                crate::asl::jsonata::Query::Literal(Value::Bool(holds)) => {
                    Ok(Translated::one(holds.to_string(), Faults::NONE))
                }
                _ => Err(jsonata()),
            },
        }
    }

    fn is(&self, variable: &Path, what: Type, expected: bool) -> Result<Translated, Lost> {
        let path = self.path(variable)?;
        let x = path.operand();
        if what == Type::Present {
            let is_function = |step: &Step| matches!(step, Step::Function(_));
            if variable.steps().iter().any(is_function) {
                let what = format!("`{variable}` is there for some types of data only");
                return Err(Lost::new(what, "ask for the value that it looks at"));
            }
            // A default stands in for null as well, but not for a list with null in it.
            let operator = if expected { "!=" } else { "==" };
            let term = format!("([{}] | default: []) {operator} []", path.argument());
            return Ok(Translated::one(term, Faults::NONE));
        }
        let term = match what {
            Type::Null => format!("{x} == null"),
            Type::String => is_text(&x),
            Type::Number => is_number(&x),
            Type::Boolean => format!("{x} in [true, false]"),
            Type::Timestamp => return Err(no_timestamps()),
            Type::Present => "true".to_owned(),
        };
        let term = if expected { term } else { format!("!({term})") };
        Ok(Translated::one(term, path.faults))
    }

    fn compare(
        &self,
        variable: &Path,
        how: Comparison,
        with: &Operand,
    ) -> Result<Translated, Lost> {
        let path = self.path(variable)?;
        if how.kind == Compared::Timestamp {
            return Err(no_timestamps());
        }
        match with {
            Operand::Value(value) => compare_value(&path, how, value),
            Operand::Path(with) => compare_paths(how, &path, &self.path(with)?),
        }
    }
}

fn compare_value(path: &Expr, how: Comparison, value: &Value) -> Result<Translated, Lost> {
    let x = path.operand();
    let compared = |operator: &str| format!("{x} {operator} {}", literal(value));
    let terms = match (how.test, value) {
        (Test::Matches, Value::String(pattern)) => matches(&x, pattern)?,
        (_, Value::Number(number)) if number.as_f64().is_none_or(|n| n.abs() > MAX_EXACT) => {
            return Err(Lost::new(
                format!("numbers like {number} are compared as floats"),
                "compare texts, or smaller numbers",
            ));
        }
        (Test::Equals, _) => vec![compared("==")],
        (test, Value::String(other)) => {
            if other.chars().any(|c| c > FIRST_SURROGATE) {
                return Err(code_units());
            }
            vec![is_text(&x), compared(operator(test))]
        }
        (test, _) => vec![is_number(&x), compared(operator(test))],
    };
    let faults = path.faults;
    Ok(Translated { terms, faults })
}

fn compare_paths(how: Comparison, a: &Expr, b: &Expr) -> Result<Translated, Lost> {
    let faults = a.faults.and(b.faults);
    let (x, y) = (a.operand(), b.operand());
    // Both are looked at, whatever the first is: either may lead nowhere.
    let terms = match (how.kind, how.test) {
        (kind, Test::Equals) => {
            let typed = match kind {
                Compared::String => is_text(&x),
                Compared::Number => is_number(&x),
                _ => format!("{x} in [true, false]"),
            };
            vec![format!("{x} == {y}"), typed]
        }
        (Compared::Number, test) => {
            let typed = format!("[{}, {}] == [true, true]", is_number(&x), is_number(&y));
            vec![typed, format!("{x} {} {y}", operator(test))]
        }
        _ => return Err(code_units()),
    };
    Ok(Translated { terms, faults })
}

fn operator(test: Test) -> &'static str {
    match test {
        Test::Equals | Test::Matches => "==",
        Test::Less => "<",
        Test::Greater => ">",
        Test::LessOrEqual => "<=",
        Test::GreaterOrEqual => ">=",
    }
}

/// Only a text is its own text.
fn is_text(x: &str) -> String {
    format!("({x} | string) == {x}")
}

/// The JSON of a number starts like one.
fn is_number(x: &str) -> String {
    format!("({x} | json | slice: 0, 1) in '-0123456789'")
}

/// `StringMatches`, for stars at one or both ends, or one in the middle.
fn matches(x: &str, pattern: &str) -> Result<Vec<String>, Lost> {
    let parts = parts(pattern);
    let text = |part: &str| literal(&part.into());
    let count = |part: &str| part.chars().count();
    let starts = |part: &str| format!("({x} | slice: 0, {}) == {}", count(part), text(part));
    let ends = |part: &str| format!("({x} | slice: -{}) == {}", count(part), text(part));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(match parts[..] {
        [whole] => vec![format!("{x} == {}", text(whole))],
        ["", ""] => vec![is_text(x)],
        [start, ""] => vec![is_text(x), starts(start)],
        ["", end] => vec![is_text(x), ends(end)],
        ["", middle, ""] => vec![is_text(x), format!("{} in {x}", text(middle))],
        [start, end] => {
            let least = count(start) + count(end);
            let long = format!("({x} | length) >= {least}");
            vec![is_text(x), long, starts(start), ends(end)]
        }
        _ => {
            return Err(Lost::new(
                format!("no filter finds the pattern `{pattern}`"),
                "compare parts of the text with `in`, `slice` and `split`",
            ));
        }
    })
}

/// What stands between the stars of a pattern.
fn parts(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '*' => {
                parts.push(String::new());
                continue;
            }
            '\\' => chars.next().unwrap_or('\\'),
            c => c,
        };
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

pub(super) fn jsonata() -> Lost {
    Lost::new(
        "JSONata is not translated",
        "write the expression in CDL's own language, or compute it in an activity",
    )
}

fn no_timestamps() -> Lost {
    Lost::new(
        "CDL has no test whether a text is a timestamp",
        "compare `$.at | date: '%s'` if it always is one",
    )
}

fn code_units() -> Lost {
    Lost::new(
        "texts are compared by code points, not by UTF-16",
        "write `a < b` if the texts have no characters beyond U+FFFF",
    )
}
