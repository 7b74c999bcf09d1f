//! What the user says must hold at the end of every run: expressions of CDL over what
//! the run was.

use std::path::Path;

use cascade_cdl::expression::{Env, EvalError, SyntaxError, Template};
use serde_json::Value;

use super::super::error::Error;
use super::super::input;
use super::super::run::SHARDS;
use super::world::execution_id;

/// One condition. `premise => conclusion` says something only of the runs in which
/// the premise holds.
#[derive(Debug)]
pub(super) struct Invariant {
    /// What it is called: its text, unless a file names it.
    pub(super) name: String,
    premise: Option<Template>,
    conclusion: Template,
}

/// What an invariant says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    /// Its premise does not hold, so it says nothing.
    SaysNothing,
    Broken,
}

impl Invariant {
    /// Reads an expression, with or without `{{ }}`.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let inner = text.strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
        let text = inner.unwrap_or(text).trim();
        let compile = |text: &str| {
            let wrong = |error: SyntaxError| {
                let error = Error::usage(format!("the invariant `{name}`: {error} in `{text}`"));
                error.hint("docs/simulation.md says what an invariant can see")
            };
            Template::parse_expression(text).map_err(wrong)
        };
        let (premise, conclusion) = match implication(text) {
            Some(at) => (Some(compile(text[..at].trim())?), text[at + 2..].trim()),
            None => (None, text),
        };
        Ok(Self {
            name: name.to_owned(),
            premise,
            conclusion: compile(conclusion)?,
        })
    }

    /// What it says of a run, `root` being what `$` is.
    pub(super) fn judge(&self, root: &Value, seed: u64) -> Result<Verdict, Error> {
        let told = |why: &str| {
            Error::usage(format!("the invariant `{}`, at seed {seed}: {why}", self.name)).hint(
                "what a run may lack needs a default: `($.context.payment | default: null) != null`",
            )
        };
        let holds = |template: &Template| match eval(template, root) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(told(&format!("it gives {other}, and not true or false"))),
            Err(error) => Err(told(&error.to_string())),
        };
        if let Some(premise) = &self.premise
            && !holds(premise)?
        {
            return Ok(Verdict::SaysNothing);
        }
        Ok(if holds(&self.conclusion)? {
            Verdict::Holds
        } else {
            Verdict::Broken
        })
    }
}

fn eval(template: &Template, root: &Value) -> Result<Value, EvalError> {
    template.eval(&Env {
        context: root,
        overlays: &[],
        locals: &[],
        now: cascade_cdl::Timestamp::default(),
        shards: SHARDS,
        id: execution_id(),
        seq: 0,
    })
}

/// Where `=>` stands, outside of texts and parentheses.
fn implication(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_i32, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) => quote = quote.filter(|_| c != open),
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, '=') if depth == 0 && text[at..].starts_with("=>") => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// The invariants of the command line and of a file: names and expressions, or a list of
/// expressions.
pub(super) fn read(given: &[String], file: Option<&Path>) -> Result<Vec<Invariant>, Error> {
    let mut invariants: Vec<_> = given
        .iter()
        .map(|text| Invariant::parse(text.trim(), text))
        .collect::<Result<_, _>>()?;
    let Some(path) = file else {
        return Ok(invariants);
    };
    let wrong = |what: &str| {
        Error::usage(format!("{}: {what}", path.display()))
            .hint("write `invariants:`, and under it a name and an expression a line")
    };
    let text = input::read_file(path)?;
    let value: Value = serde_yaml::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let expression = |value: &Value| {
        let text = value.as_str().map(str::to_owned);
        // `true` is an expression, too.
        text.or_else(|| value.as_bool().map(|value| value.to_string()))
            .ok_or_else(|| wrong(&format!("{value} is no expression")))
    };
    match value.get("invariants") {
        Some(Value::Object(named)) => {
            for (name, value) in named {
                invariants.push(Invariant::parse(name, &expression(value)?)?);
            }
        }
        Some(Value::Array(list)) => {
            for value in list {
                let text = expression(value)?;
                invariants.push(Invariant::parse(text.trim(), &text)?);
            }
        }
        _ => return Err(wrong("there are no `invariants`")),
    }
    Ok(invariants)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: Option<Verdict>) {
        let root = json!({ "status": "completed", "calls": { "pay": 2 }, "output": { "a": "=>" } });
        let invariant = Invariant::parse(text, text).expect("an expression");
        let verdict = invariant.judge(&root, 1).ok();
        assert_eq!(verdict, expected, "{text}");
    }

    #[test]
    fn an_invariant_holds_is_broken_or_says_nothing() {
        check("$.calls.pay <= 2", Some(Verdict::Holds));
        check("{{ $.calls.pay <= 1 }}", Some(Verdict::Broken));
        check("$.status == 'failed' => false", Some(Verdict::SaysNothing));
        check(
            "$.status == 'completed' => $.calls.pay == 1",
            Some(Verdict::Broken),
        );
        check("$.output.a == '=>'", Some(Verdict::Holds));
        check("$.calls.pay >= 2", Some(Verdict::Holds));
    }

    #[test]
    fn what_is_no_condition_is_an_error() {
        check("$.calls.pay", None);
        check("$.calls.ship <= 1", None);
        check("$.nothing == 1 => true", None);
        for text in ["$.calls.pay <=", "=> true", ""] {
            assert!(Invariant::parse(text, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_names_its_invariants_or_lists_them() {
        let read_from = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(text.as_bytes()).expect("written");
            let all = read(&["true".to_owned()], Some(file.path())).ok()?;
            Some(all.into_iter().map(|one| one.name).collect::<Vec<_>>())
        };
        let check = |text: &str, mut expected: Vec<&str>| {
            let mut found = read_from(text).expect("invariants");
            // The order in a map of YAML says nothing.
            found.sort();
            expected.sort_unstable();
            assert_eq!(found, expected, "{text}");
        };
        check(
            "invariants:\n  paid once: $.calls.pay <= 1\n  fine: true\n",
            vec!["true", "paid once", "fine"],
        );
        check(
            "invariants: [$.calls.pay <= 1]\n",
            vec!["true", "$.calls.pay <= 1"],
        );
        for bad in ["", "- true", "invariants: 7", "invariants: [7]"] {
            assert_eq!(read_from(bad), None, "{bad}");
        }
    }
}
