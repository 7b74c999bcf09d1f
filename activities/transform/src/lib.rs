//! `urn:cascade:activity:transform` reshapes JSON by rules, one after the other. Pure.
//!
//! ```yaml
//! parameters:
//!   input: "{{ $.customer }}"
//!   rules:
//!     - pick: [id, name.first, orders]          # only these, where they were
//!     - remove: [name.middle]                   # all but these
//!     - rename: { name.first: first_name }      # from: to
//!     - copy: { id: meta.source_id }            # from: to
//!     - set: { meta.version: 2 }                # path: value
//!     - default: { tier: standard }             # path: value, where there is none or null
//!     - each: { at: orders, rules: [ { pick: [id] } ] } # rules for every element of a list
//! ```
//!
//! A path is made of keys and list indexes, joined by dots; `""` is the whole, and
//! a dot in a key is written `\.`. A path that leads nowhere is no error for `pick`, `remove`,
//! `rename` and `copy`: that part of the rule does nothing. `set`, `default` and the targets of `rename` and `copy` make the objects
//! on their way, but never turn a value that is there into another kind: that
//! fails with `TransformError`.

mod path;

use cascade_sdk::{Error, Value, json};
use path::Path;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How deep `each` may stand in `each`; more is a mistake, and would cost stack.
const MAX_NESTING: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    input: Value,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Rule {
    Pick(Vec<Path>),
    Remove(Vec<Path>),
    Rename(BTreeMap<Path, Path>),
    Copy(BTreeMap<Path, Path>),
    Set(BTreeMap<Path, Value>),
    Default(BTreeMap<Path, Value>),
    Each(Each),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Each {
    at: Path,
    rules: Vec<Rule>,
}

#[cascade_sdk::activity]
fn handle(input: Input) -> Result<Value, Error> {
    let mut value = input.input;
    apply(&mut value, &input.rules, 0)?;
    Ok(value)
}

fn apply(value: &mut Value, rules: &[Rule], nesting: usize) -> Result<(), Error> {
    for rule in rules {
        match rule {
            Rule::Pick(paths) => pick(value, paths)?,
            Rule::Remove(paths) => {
                for path in paths {
                    path.take(value);
                }
            }
            Rule::Rename(pairs) => {
                // All are taken before any is put, so that two can change places.
                let taken: Vec<_> = pairs
                    .iter()
                    .filter_map(|(from, to)| Some((to, from.take(value)?)))
                    .collect();
                put_all(value, taken)?;
            }
            Rule::Copy(pairs) => {
                let found: Vec<_> = pairs
                    .iter()
                    .filter_map(|(from, to)| Some((to, from.find(value)?.clone())))
                    .collect();
                put_all(value, found)?;
            }
            Rule::Set(pairs) => {
                put_all(
                    value,
                    pairs.iter().map(|(path, value)| (path, value.clone())),
                )?;
            }
            Rule::Default(pairs) => {
                for (path, default) in pairs {
                    if path.find(value).is_none_or(Value::is_null) {
                        put(value, path, default.clone())?;
                    }
                }
            }
            Rule::Each(each) => apply_each(value, each, nesting)?,
        }
    }
    Ok(())
}

/// A new value with these parts only; elements of lists keep their order, not
/// their indexes.
fn pick(value: &mut Value, paths: &[Path]) -> Result<(), Error> {
    let mut picked = json!({});
    for path in paths {
        if let Some(found) = path.find(value) {
            put(&mut picked, path, found.clone())?;
        }
    }
    *value = picked;
    Ok(())
}

fn apply_each(value: &mut Value, each: &Each, nesting: usize) -> Result<(), Error> {
    if nesting == MAX_NESTING {
        return Err(failed(format!(
            "`each` stands in `each` more than {MAX_NESTING} times"
        )));
    }
    match each.at.find_mut(value) {
        None => Ok(()),
        Some(Value::Array(elements)) => elements
            .iter_mut()
            .try_for_each(|element| apply(element, &each.rules, nesting + 1)),
        Some(_) => Err(failed(format!("`{}` is not a list", each.at))),
    }
}

fn put_all<'a>(
    value: &mut Value,
    pairs: impl IntoIterator<Item = (&'a Path, Value)>,
) -> Result<(), Error> {
    pairs
        .into_iter()
        .try_for_each(|(path, part)| put(value, path, part))
}

fn put(value: &mut Value, path: &Path, part: Value) -> Result<(), Error> {
    path.put(value, part)
        .map_err(|place| failed(format!("`{path}` cannot be set: {place}")))
}

/// The same input fails the same way, so it is not tried again.
fn failed(message: String) -> Error {
    Error::new("TransformError", message).retryable(false)
}

#[cfg(test)]
mod tests {
    use cascade_sdk::testing::Harness;

    use super::*;

    fn run(input: &Value, rules: &Value) -> Result<Value, Error> {
        Harness::new().run(handle, json!({ "input": input, "rules": rules }))
    }

    fn check(input: &Value, rules: &Value, expected: &Value) {
        assert_eq!(run(input, rules).as_ref(), Ok(expected), "{rules}");
    }

    #[test]
    fn every_rule_does_what_its_name_says() {
        let input = json!({ "a": { "b": 1, "c": null }, "l": [1, 2], "x.y": 3 });
        for (rule, expected) in [
            (
                json!({ "pick": ["a.b", "l.1", "z"] }),
                json!({ "a": { "b": 1 }, "l": { "1": 2 } }),
            ),
            (json!({ "pick": [""] }), input.clone()),
            (
                json!({ "remove": ["a", "l.0", "z"] }),
                json!({ "l": [2], "x.y": 3 }),
            ),
            (
                json!({ "rename": { "x\\.y": "n", "z": "q" } }),
                json!({ "a": { "b": 1, "c": null }, "l": [1, 2], "n": 3 }),
            ),
            (
                json!({ "copy": { "l": "a.l" } }),
                json!({ "a": { "b": 1, "c": null, "l": [1, 2] }, "l": [1, 2], "x.y": 3 }),
            ),
            (
                json!({ "set": { "l.0": 9, "m.n": {} } }),
                json!({ "a": { "b": 1, "c": null }, "l": [9, 2], "m": { "n": {} }, "x.y": 3 }),
            ),
            (
                json!({ "default": { "a.b": 7, "a.c": 8, "d": 9 } }),
                json!({ "a": { "b": 1, "c": 8 }, "d": 9, "l": [1, 2], "x.y": 3 }),
            ),
        ] {
            check(&input, &json!([rule]), &expected);
        }
    }

    #[test]
    fn rules_follow_one_another_and_reach_into_lists() {
        let input = json!({ "orders": [{ "id": 1, "note": "a" }, { "id": 2 }] });
        let rules = json!([
            { "each": { "at": "orders", "rules": [{ "pick": ["id"] }, { "rename": { "id": "order" } }] } },
            { "rename": { "orders": "" } },
        ]);
        check(&input, &rules, &json!([{ "order": 1 }, { "order": 2 }]));
    }

    #[test]
    fn renaming_can_exchange() {
        let rules = json!([{ "rename": { "a": "b", "b": "a" } }]);
        check(
            &json!({ "a": 1, "b": 2 }),
            &rules,
            &json!({ "a": 2, "b": 1 }),
        );
    }

    #[test]
    fn what_cannot_be_done_fails_for_good_and_says_where() {
        let mut nested = json!([]);
        for _ in 0..=MAX_NESTING {
            nested = json!([{ "each": { "at": "", "rules": nested } }]);
        }
        let mut lists = json!(0);
        for _ in 0..=MAX_NESTING {
            lists = json!([lists]);
        }
        for (input, rules, name, part) in [
            (
                json!({ "a": 1 }),
                json!([{ "set": { "a.b": 1 } }]),
                "TransformError",
                "`a` is a number",
            ),
            (
                json!([1]),
                json!([{ "set": { "3": 1 } }]),
                "TransformError",
                "has 1 elements",
            ),
            (
                json!({ "a": 1 }),
                json!([{ "each": { "at": "a", "rules": [] } }]),
                "TransformError",
                "not a list",
            ),
            (lists, nested, "TransformError", "more than 16 times"),
            (
                json!({}),
                json!([{ "drop": [] }]),
                "InvalidInput",
                "unknown variant `drop`",
            ),
        ] {
            let error = run(&input, &rules).expect_err("cannot be done");
            assert_eq!((error.name(), error.is_retryable()), (name, Some(false)));
            assert!(error.message().contains(part), "{error}");
        }
    }
}
