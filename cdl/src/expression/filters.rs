//! The filters: what stands behind `|`.
//!
//! | filter | takes | gives | example |
//! |---|---|---|---|
//! | `default: x` | anything | `x` for what is missing or null | `$.tier \| default: 'free'` |
//! | `shard` | scalar | `shard-N` by FNV-1a of the text, modulo the shards | `'a' \| shard` → `'shard-0'` (of 10) |
//! | `hash` | anything | SHA-256 of the text, or of the JSON of other values, in hexadecimal | `$.card \| hash` |
//! | `uuid` | anything | UUID of execution, state entry, occurrence and text; the same in a replay | `'line' \| uuid` |
//! | `json` | anything | compact JSON text | `[1, 2] \| json` → `'[1,2]'` |
//! | `from_json` | string | the value that the text stands for | `'[1]' \| from_json` → `[1]` |
//! | `string` | anything | itself, or its JSON text | `12 \| string` → `'12'` |
//! | `number` | string, number | the number that the text stands for | `'1.5' \| number` → `1.5` |
//! | `date: format?` | RFC 3339 text, ms | UTC time by a `strftime` format; RFC 3339 without one | `0 \| date: '%Y'` → `'1970'` |
//! | `upper`, `lower`, `trim` | string | string | `' a ' \| trim \| upper` → `'A'` |
//! | `replace: from, to` | string | every `from` replaced | `'a-b' \| replace: '-', '_'` → `'a_b'` |
//! | `split: separator` | string | list of strings | `'a,b' \| split: ','` → `['a', 'b']` |
//! | `join: separator?` | list | its elements' texts, `,` between them | `[1, 2] \| join: '-'` → `'1-2'` |
//! | `length` | string, list, object | characters, elements, keys | `'né' \| length` → `2` |
//! | `contains: x` | string, list, object | `x in` it | `[1] \| contains: 1` → `true` |
//! | `slice: from, to?` | string, list | part from index to before index; negative from the end | `'abcd' \| slice: 1, -1` → `'bc'` |
//! | `reverse` | string, list | backwards | `[1, 2] \| reverse` → `[2, 1]` |
//! | `first`, `last` | list | that element; of an empty list it is missing | `[1, 2] \| last` → `2` |
//! | `sum: key?` | list | sum of numbers, 0 if empty | `$.lines \| sum: 'price'` |
//! | `min`, `max` | list | the least, the greatest; of an empty list it is missing | `[2, 1] \| min` → `1` |
//! | `sort: key?` | list | ascending, equal ones in order; all numbers or all strings | `[2, 1] \| sort` → `[1, 2]` |
//! | `unique: key?` | list | the first of equal elements | `[1, 1.0, 2] \| unique` → `[1, 2]` |
//! | `flatten` | list | lists in it opened, one level | `[[1], 2] \| flatten` → `[1, 2]` |
//! | `map: key` | list of objects | that value of each | `$.lines \| map: 'sku'` |
//! | `where: key, x?` | list of objects | those whose `key` equals `x`, or is true | `$.lines \| where: 'gift'` |
//! | `keys`, `values` | object | list, by key | `{b: 1, a: 2} \| keys` → `['a', 'b']` |
//! | `merge: object` | object | both; the argument wins | `{a: 1} \| merge: {b: 2}` |
//! | `round: digits?` | number | nearest, halves away from zero | `2.5 \| round` → `3` |
//! | `floor`, `ceil`, `abs` | number | number | `1.2 \| ceil` → `2` |

use std::fmt;

use serde_json::Value;

use super::eval::{Evaluator, Val};
use super::fault::{Fault, Result, other};
use super::type_name;

mod list;
mod scalar;
mod text;

pub(super) use scalar::uuid;

/// One filter.
pub(super) struct Filter {
    pub(super) name: &'static str,
    /// Least and greatest number of arguments.
    pub(super) args: (usize, usize),
    /// How it is written, for help.
    pub(super) example: &'static str,
    action: Action,
}

enum Action {
    /// Handles faults, so the evaluator does it.
    Default,
    Apply(Apply),
}

type Apply = for<'x> fn(&mut Evaluator<'x>, &Val<'x>, &[Val<'x>]) -> Result<'x, Val<'x>>;

const fn filter(
    name: &'static str,
    args: (usize, usize),
    example: &'static str,
    apply: Apply,
) -> Filter {
    let action = Action::Apply(apply);
    Filter {
        name,
        args,
        example,
        action,
    }
}

/// All filters, in the order of the table above.
pub(super) static FILTERS: [Filter; 36] = [
    Filter {
        name: "default",
        args: (1, 1),
        example: "$.tier | default: 'free'",
        action: Action::Default,
    },
    filter("shard", (0, 0), "$.customer | shard", scalar::shard),
    filter("hash", (0, 0), "$.card | hash", scalar::hash),
    filter("uuid", (0, 0), "'line' | uuid", scalar::uuid_of),
    filter("json", (0, 0), "$.order | json", scalar::json),
    filter("from_json", (0, 0), "$.body | from_json", scalar::from_json),
    filter("string", (0, 0), "$.total | string", scalar::string),
    filter("number", (0, 0), "$.total | number", scalar::number),
    filter("date", (0, 1), "now | date: '%Y-%m-%d'", scalar::date),
    filter("upper", (0, 0), "$.name | upper", text::upper),
    filter("lower", (0, 0), "$.name | lower", text::lower),
    filter("trim", (0, 0), "$.name | trim", text::trim),
    filter(
        "replace",
        (2, 2),
        "$.name | replace: '-', '_'",
        text::replace,
    ),
    filter("split", (1, 1), "$.tags | split: ','", text::split),
    filter("join", (0, 1), "$.tags | join: ', '", text::join),
    filter("length", (0, 0), "$.lines | length", text::length),
    filter(
        "contains",
        (1, 1),
        "$.tags | contains: 'new'",
        list::contains,
    ),
    filter("slice", (1, 2), "$.lines | slice: 0, 10", list::slice),
    filter("reverse", (0, 0), "$.lines | reverse", list::reverse),
    filter("first", (0, 0), "$.lines | first", list::first),
    filter("last", (0, 0), "$.lines | last", list::last),
    filter("sum", (0, 1), "$.lines | sum: 'price'", list::sum),
    filter("min", (0, 0), "$.prices | min", list::min),
    filter("max", (0, 0), "$.prices | max", list::max),
    filter("sort", (0, 1), "$.lines | sort: 'price'", list::sort),
    filter("unique", (0, 1), "$.lines | unique: 'sku'", list::unique),
    filter("flatten", (0, 0), "$.pages | flatten", list::flatten),
    filter("map", (1, 1), "$.lines | map: 'sku'", list::map),
    filter(
        "where",
        (1, 2),
        "$.lines | where: 'sku', 'A1'",
        list::filter_where,
    ),
    filter("keys", (0, 0), "$.totals | keys", list::keys),
    filter("values", (0, 0), "$.totals | values", list::values),
    filter("merge", (1, 1), "$.defaults | merge: $.given", list::merge),
    filter("round", (0, 1), "$.total | round: 2", scalar::round),
    filter("floor", (0, 0), "$.total | floor", scalar::floor),
    filter("ceil", (0, 0), "$.total | ceil", scalar::ceil),
    filter("abs", (0, 0), "$.total | abs", scalar::abs),
];

/// The filter with this name.
pub(super) fn find(name: &str) -> Option<&'static Filter> {
    FILTERS.iter().find(|filter| filter.name == name)
}

impl Filter {
    /// Whether this gives `value` back as it is, so that it need not be copied.
    pub(super) fn keeps(&self, value: &Value) -> bool {
        match self.name {
            "default" => !value.is_null(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            _ => false,
        }
    }

    /// Whether this is `default`, which takes what is missing.
    pub(super) fn is_default(&self) -> bool {
        matches!(self.action, Action::Default)
    }

    pub(super) fn apply<'x>(
        &self,
        evaluator: &mut Evaluator<'x>,
        input: &Val<'x>,
        args: &[Val<'x>],
    ) -> Result<'x, Val<'x>> {
        match self.action {
            Action::Apply(apply) => apply(evaluator, input, args),
            Action::Default => Ok(input.clone()),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn wrong<'x>(filter: &str, wanted: &str, value: &Value) -> Fault<'x> {
    other(format!(
        "`{filter}` needs {wanted}, not {}",
        type_name(value)
    ))
}

/// The string that `filter` works on.
fn string_of<'x, 'v>(filter: &str, value: &'v Value) -> Result<'x, &'v str> {
    value
        .as_str()
        .ok_or_else(|| wrong(filter, "a string", value))
}

/// The list that `filter` works on.
fn list_of<'x, 'v>(filter: &str, value: &'v Value) -> Result<'x, &'v [Value]> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(wrong(filter, "a list", value)),
    }
}

/// The integer that `filter` takes as an argument.
fn integer_of<'x>(filter: &str, value: &Value) -> Result<'x, i64> {
    value.as_i64().ok_or_else(|| match value {
        Value::Number(_) => other(format!("`{filter}` needs an integer")),
        _ => wrong(filter, "an integer", value),
    })
}
