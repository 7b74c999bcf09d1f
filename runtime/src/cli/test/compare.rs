//! Compares what is with what is expected: values by their parts, paths by their
//! states.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::super::output::{Tone, brief};

/// Differences of a value that are told. More say that it is another one.
const MAX_DIFFERENCES: usize = 20;

/// How much of a value a line shows, in characters.
const SHOWN: usize = 120;

/// Places of the table that aligns two paths: a thousand states against as many
/// thrice over. Longer ones are only told apart at their first difference.
const MAX_ALIGNMENT: usize = 4_000_000;

/// A line about a difference, and how it is coloured.
pub(super) type Line = (Tone, String);

/// Whether `value` has all that is in `part`: of an object the same keys and perhaps more,
/// of a list as many items.
pub(super) fn has(value: &Value, part: &Value) -> bool {
    let mut found = Found::default();
    found.compare(part, value, true, "$");
    found.count == 0
}

/// How `actual` differs from `expected`, or does not have what is in it if that is only a part.
pub(super) fn differences(expected: &Value, actual: &Value, part: bool) -> Vec<Line> {
    let mut found = Found::default();
    found.compare(expected, actual, part, "$");
    let more = found.count.saturating_sub(MAX_DIFFERENCES);
    if more > 0 {
        found.lines.push((Tone::Faint, format!("and {more} more")));
    }
    found.lines
}

#[derive(Default)]
struct Found {
    count: usize,
    lines: Vec<Line>,
}

impl Found {
    fn tell(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.count <= MAX_DIFFERENCES {
            self.lines.push((Tone::Bad, text()));
        }
    }

    // As deep as JSON that was parsed: its reader bounds that.
    fn compare(&mut self, expected: &Value, actual: &Value, part: bool, at: &str) {
        match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => {
                self.compare_objects(expected, actual, part, at);
            }
            (Value::Array(expected), Value::Array(actual)) => {
                for (index, pair) in expected.iter().zip(actual).enumerate() {
                    self.compare(pair.0, pair.1, part, &format!("{at}[{index}]"));
                }
                let (wanted, given) = (expected.len(), actual.len());
                for (index, item) in expected.iter().enumerate().skip(given) {
                    self.tell(|| format!("- {at}[{index}]: {} is missing", shown(item)));
                }
                for (index, item) in actual.iter().enumerate().skip(wanted) {
                    self.tell(|| format!("+ {at}[{index}]: {} is not expected", shown(item)));
                }
            }
            (Value::Number(expected), Value::Number(actual)) if same(expected, actual) => {}
            _ if expected == actual => {}
            _ => self.tell(|| {
                format!(
                    "~ {at}: expected {}, got {}",
                    shown(expected),
                    shown(actual)
                )
            }),
        }
    }

    fn compare_objects(
        &mut self,
        expected: &Map<String, Value>,
        actual: &Map<String, Value>,
        part: bool,
        at: &str,
    ) {
        for (key, value) in expected {
            match actual.get(key) {
                Some(actual) => self.compare(value, actual, part, &member(at, key)),
                None => {
                    self.tell(|| format!("- {}: {} is missing", member(at, key), shown(value)));
                }
            }
        }
        let others = actual
            .iter()
            .filter(|(key, _)| !expected.contains_key(*key));
        for (key, value) in others.filter(|_| !part) {
            self.tell(|| format!("+ {}: {} is not expected", member(at, key), shown(value)));
        }
    }
}

/// Numbers are the same by what they say: `1` is `1.0`.
fn same(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

fn member(at: &str, key: &str) -> String {
    let plain = key
        .chars()
        .all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let mut path = at.to_owned();
    let written = if plain && !key.is_empty() {
        write!(path, ".{key}")
    } else {
        write!(path, "[{}]", Value::from(key))
    };
    written.expect("writing to a string does not fail");
    path
}

/// A value on one line.
pub(super) fn shown(value: &Value) -> String {
    brief(&value.to_string(), SHOWN)
}

/// How the states that were entered differ from those that were expected, as lines
/// of a diff; none if they do not. `fits` says whether an entry names a state; `any` is the entry that
/// stands for any states.
pub(super) fn diff_path<T>(
    expected: &[String],
    actual: &[T],
    any: &str,
    fits: impl Fn(&str, &T) -> bool,
    name: impl Fn(&T) -> String,
) -> Vec<Line> {
    let table = (expected.len() + 1).saturating_mul(actual.len() + 1);
    if table > MAX_ALIGNMENT {
        return first_difference(expected, actual, any, fits, name);
    }
    let width = actual.len() + 1;
    // The fewest differences of what follows each pair of places.
    let mut costs = vec![0_u32; table];
    for e in (0..=expected.len()).rev() {
        for a in (0..=actual.len()).rev() {
            let at = |e: usize, a: usize| costs[e * width + a];
            costs[e * width + a] = match (expected.get(e), actual.get(a)) {
                (None, None) => 0,
                (Some(entry), None) => at(e + 1, a) + u32::from(entry != any),
                (None, Some(_)) => at(e, a + 1) + 1,
                (Some(entry), Some(_)) if entry == any => at(e + 1, a).min(at(e, a + 1)),
                (Some(entry), Some(state)) if fits(entry, state) => at(e + 1, a + 1),
                (Some(_), Some(_)) => 1 + at(e + 1, a).min(at(e, a + 1)),
            };
        }
    }
    if costs[0] == 0 {
        return Vec::new();
    }
    let at = |e: usize, a: usize| costs[e * width + a];
    let mut lines = Vec::new();
    let (mut e, mut a) = (0, 0);
    loop {
        match (expected.get(e), actual.get(a)) {
            (None, None) => return lines,
            (Some(entry), state) if entry == any => match state {
                Some(state) if at(e, a + 1) < at(e + 1, a) => {
                    lines.push((Tone::Faint, format!("  {}", name(state))));
                    a += 1;
                }
                _ => e += 1,
            },
            (Some(entry), Some(state)) if fits(entry, state) => {
                lines.push((Tone::Faint, format!("  {}", name(state))));
                (e, a) = (e + 1, a + 1);
            }
            (Some(entry), state) if state.is_none() || at(e + 1, a) <= at(e, a + 1) => {
                lines.push((Tone::Bad, format!("- {entry}")));
                e += 1;
            }
            (_, Some(state)) => {
                lines.push((Tone::Good, format!("+ {}", name(state))));
                a += 1;
            }
            (Some(_), None) => unreachable!("an entry without a state is told above"),
        }
    }
}

/// Where two long paths part, for which `any` stands for itself.
fn first_difference<T>(
    expected: &[String],
    actual: &[T],
    any: &str,
    fits: impl Fn(&str, &T) -> bool,
    name: impl Fn(&T) -> String,
) -> Vec<Line> {
    if expected.iter().any(|entry| entry == any) {
        let text = format!("{} states are too many for `{any}`", actual.len());
        return vec![(Tone::Bad, text)];
    }
    let differing = |at: &usize| match (expected.get(*at), actual.get(*at)) {
        (Some(entry), Some(state)) => !fits(entry, state),
        _ => true,
    };
    let longest = expected.len().max(actual.len());
    let Some(at) = (0..longest).find(differing) else {
        return Vec::new();
    };
    let wanted = expected.get(at).map_or("the end", String::as_str);
    let given = actual.get(at).map_or("the end".to_owned(), name);
    vec![(
        Tone::Bad,
        format!("state {}: expected {wanted}, got {given}", at + 1),
    )]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn differ(expected: &Value, actual: &Value, part: bool, lines: &[&str]) {
        let found = differences(expected, actual, part);
        let texts: Vec<_> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, lines);
    }

    #[test]
    fn values_differ_by_their_parts() {
        let actual = json!({"a": {"b": [1, 2]}, "c d": "x", "e": null});
        differ(&actual.clone(), &actual, false, &[]);
        differ(
            &json!({"a": {"b": [1.0, 2]}, "c d": "x", "e": null}),
            &actual,
            false,
            &[],
        );
        differ(
            &json!({"a": {"b": [1, 3, 4]}, "c d": "y", "f": 0}),
            &actual,
            false,
            &[
                "~ $.a.b[1]: expected 3, got 2",
                "- $.a.b[2]: 4 is missing",
                "~ $[\"c d\"]: expected \"y\", got \"x\"",
                "- $.f: 0 is missing",
                "+ $.e: null is not expected",
            ],
        );
    }

    #[test]
    fn a_part_leaves_keys_open_and_no_items() {
        let actual = json!({"a": [{"b": 1, "c": 2}], "d": 3});
        differ(&json!({"a": [{"b": 1}]}), &actual, true, &[]);
        differ(
            &json!({"a": []}),
            &actual,
            true,
            &["+ $.a[0]: {\"b\":1,\"c\":2} is not expected"],
        );
        assert!(has(&actual, &json!({})) && !has(&actual, &json!({"d": 4})));
    }

    #[test]
    fn large_numbers_are_not_the_same_by_rounding() {
        let (a, b) = (
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_740_992_u64),
        );
        assert_eq!(differences(&a, &b, false).len(), 1);
    }

    #[test]
    fn what_differs_everywhere_is_cut_short() {
        let wrong = json!(vec![1; 50]);
        let lines = differences(&json!(vec![0; 50]), &wrong, false);
        assert_eq!(lines.len(), MAX_DIFFERENCES + 1);
        assert_eq!(
            lines.last().map(|(_, text)| text.as_str()),
            Some("and 30 more")
        );
    }

    #[track_caller]
    fn path(expected: &str, actual: &str, lines: &[&str]) {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (expected, actual) = (words(expected), words(actual));
        let found = diff_path(&expected, &actual, "...", |a, b| a == b, Clone::clone);
        let texts: Vec<_> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, lines, "{expected:?} {actual:?}");
    }

    #[test]
    fn paths_are_aligned() {
        path("A B C", "A B C", &[]);
        path("A B C", "A C D", &["  A", "- B", "  C", "+ D"]);
        path("", "A", &["+ A"]);
        path("A", "", &["- A"]);
    }

    #[test]
    fn three_dots_stand_for_any_states() {
        path("...", "", &[]);
        path("... C", "A B C", &[]);
        path("A ... A", "A B A A", &[]);
        path("A ... D", "A B C", &["  A", "  B", "  C", "- D"]);
        path("A ...", "B C", &["- A", "  B", "  C"]);
    }
}
