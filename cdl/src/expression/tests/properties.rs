//! What holds for all expressions and values.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{Env, MAX_STEPS, MAX_VALUE_DEPTH, Path, SyntaxError, Template, fits_depth};
use crate::{ExecutionId, Timestamp};

fn env<'a>(context: &'a Value, locals: &'a [(&'a str, &'a Value)]) -> Env<'a> {
    Env {
        context,
        overlays: &[],
        locals,
        now: Timestamp(1_769_851_800_000),
        shards: 10,
        id: ExecutionId(uuid::Uuid::from_u128(1)),
        seq: 1,
    }
}

/// Any JSON, with the keys that generated expressions ask for among its keys.
fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        (i64::MAX as u64..).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-4_i32..5).prop_map(|n| Value::from(f64::from(n) / 2.0)),
        any::<String>().prop_map(Value::from),
        "[a-c,]{0,4}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map("[a-c]|\\PC{0,3}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |n| n.is_finite().then(|| Value::from(n))),
        // Close neighbours beyond the integers that a float can hold.
        (0_u64..4, any::<bool>()).prop_map(|(n, float)| {
            let text = if float { ".0" } else { "" };
            let number = format!("{}{text}", 9_007_199_254_740_991 + n);
            serde_json::from_str(&number).expect("a number")
        }),
    ]
}

/// Words of the language in any order: far likelier to compile in part than
/// any characters.
fn soup() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "$", ".a", ".b", "['c']", "[0]", "[-1]", "[", "]", "(", ")", "{", "}", "a:", ",", ":",
            "?", "|", "+", "-", "*", "/", "%", "==", "<", ">=", "&&", "||", "!", " in ", "1",
            "2.5", "'x'", "\"y\"", "true", "null", "workflow", "map.item", "now", "uuid", "{{",
            "}}", "\\", "'",
        ])
        .prop_map(str::to_owned),
        "\\PC{1,2}",
    ];
    vec(word, 0..30).prop_map(|words| words.join(" "))
}

/// What a generated expression gives, so that most evaluate to their end.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Any,
    Boolean,
    Number,
    Text,
    List,
}

/// Rules of the form `A op B`, by what they give: `N` is a number, `T` a text
/// and so on; the letters are replaced by expressions of that kind.
const RULES: [(Kind, &[&str]); 5] = [
    (
        Kind::Any,
        &[
            "B",
            "N",
            "T",
            "L",
            "B ? A : A",
            "L | first | default: A",
            "L | last | default: A",
            "L[N % 2 | floor] | default: A",
            "{a: A, b: A}",
            "{a: A} | merge: {b: A}",
            "T | from_json",
            "A | json | from_json",
            "L | map: 'a'",
        ],
    ),
    (
        Kind::Boolean,
        &[
            "true",
            "false",
            "A == A",
            "A != A",
            "N < N",
            "T >= T",
            "B && B",
            "B || B",
            "!B",
            "A in L",
            "T in T",
            "T in {a: 1, b: 2}",
            "L | contains: A",
            "T | contains: T",
        ],
    ),
    (
        Kind::Number,
        &[
            "0",
            "1",
            "-2",
            "2.5",
            "9223372036854775807",
            "1e300",
            "N + N",
            "N - N",
            "N * N",
            "N / N",
            "N % N",
            "-N",
            "T | length",
            "L | length",
            "[N, N] | sum",
            "[N, N] | min",
            "[N, N] | max",
            "N | round",
            "N | round: 2",
            "N | floor",
            "N | ceil",
            "N | abs",
            "N | string | number",
            "[{a: N}, {a: N}] | sum: 'a'",
        ],
    ),
    (
        Kind::Text,
        &[
            "''",
            "','",
            "'a,b'",
            "'\u{e9}\\ud83d\\ude00'",
            "now",
            "uuid",
            "T + T",
            "T | upper",
            "T | lower",
            "T | trim",
            "T | replace: ',', T",
            "T | slice: 1",
            "T | slice: 0, -1",
            "T | reverse",
            "T | hash",
            "T | shard",
            "T | uuid",
            "now | date: '%F %T'",
            "L | join: T",
            "A | json",
            "A | string",
            "[T, T] | max",
            "N | string",
        ],
    ),
    (
        Kind::List,
        &[
            "[]",
            "[A]",
            "[A, A, A]",
            "T | split: ','",
            "L | reverse",
            "L | slice: -2",
            "L | unique",
            "L | flatten",
            "[N, N, N] | sort",
            "[T, T] | sort",
            "{a: A, b: A} | keys",
            "{b: A, a: A} | values",
            "[{a: N}, {a: N}] | sort: 'a'",
            "[{a: A}, A] | where: 'a', A",
            "[{a: A}, {a: A}] | unique: 'a'",
            "[{a: A}] | map: 'a'",
        ],
    ),
];

/// Expressions by the rules, nested up to `levels` deep.
fn expressions(kind: Kind, levels: u32) -> BoxedStrategy<String> {
    let leaves: &[&str] = match kind {
        Kind::Any => &[
            "$",
            "$.a",
            "$.b",
            "$.a.b",
            "$.c[0]",
            "$['b'][-1]",
            "map.item",
            "null",
        ],
        Kind::Boolean => &["true", "$ == $.a", "($.b | default: 1) == 1"],
        Kind::Number => &["0", "-1", "2.5", "($.a | json | length)"],
        Kind::Text => &["'a'", "','", "($.a | string)", "($ | json)"],
        Kind::List => &["[]", "[$, $.a]", "[1, 'a', null]"],
    };
    let leaf = prop::sample::select(leaves).prop_map(str::to_owned);
    if levels == 0 {
        return leaf.boxed();
    }
    let rules = RULES.iter().find(|(of, _)| *of as u8 == kind as u8);
    let rules = rules.map_or(&[] as &[&str], |(_, rules)| rules);
    let node = prop::sample::select(rules).prop_flat_map(move |rule| {
        let parts: Vec<_> = rule
            .split_inclusive(['A', 'B', 'N', 'T', 'L'])
            .map(|part| {
                let kind = match part.chars().next_back() {
                    Some('A') => Kind::Any,
                    Some('B') => Kind::Boolean,
                    Some('N') => Kind::Number,
                    Some('T') if !part.ends_with("%T") => Kind::Text,
                    Some('L') => Kind::List,
                    _ => return Just(part.to_owned()).boxed(),
                };
                let text = part[..part.len() - 1].to_owned();
                expressions(kind, levels - 1)
                    .prop_map(move |inner| format!("{text}({inner})"))
                    .boxed()
            })
            .collect();
        parts.prop_map(|parts| parts.concat())
    });
    prop_oneof![1 => leaf, 4 => node].boxed()
}

/// Evaluates `text` twice: no panic, one outcome, never too deep, and in no more steps
/// than it may take. Whether it compiles.
fn survives(text: &str, context: &Value) -> bool {
    let Ok(template) = Template::parse(text) else {
        return false;
    };
    template.references();
    let item = json!({"item": context});
    let locals = [("map", &item)];
    let env = env(context, &locals);
    let first = template.eval(&env);
    assert_eq!(first, template.eval(&env), "{text}");
    if let Ok(value) = first {
        assert!(fits_depth(&value, MAX_VALUE_DEPTH), "{text}");
    }
    keeps_to_its_steps(text, &template, &env);
    true
}

/// With as many steps as an evaluation takes its outcome is the same, with fewer
/// it is an error; nothing, such as `default`, hides that.
fn keeps_to_its_steps(text: &str, template: &Template, env: &Env<'_>) {
    let (value, steps) = template.eval_within(env, MAX_STEPS);
    assert!(steps <= MAX_STEPS, "{text}");
    let (same, taken) = template.eval_within(env, steps);
    if steps < MAX_STEPS {
        assert_eq!((&same, taken), (&value, steps), "{text}");
    }
    for fewer in [0, 1, steps / 2, steps.saturating_sub(1)] {
        let (value, taken) = template.eval_within(env, fewer);
        assert!(taken <= fewer, "{text}: {taken} steps, {fewer} are allowed");
        assert!(fewer >= steps || value.is_err(), "{text}: {value:?}");
    }
}

/// That an error points into the text, at whole characters.
fn points_into(text: &str, error: &SyntaxError) {
    let end = error.offset + error.len;
    assert!(text.get(error.offset..end).is_some(), "{text:?}: {error:?}");
}

fn eval_with(text: &str, context: &Value) -> Option<Value> {
    let template = Template::parse(text).expect("compiles");
    template.eval(&env(context, &[])).ok()
}

proptest! {
    #[test]
    fn no_text_panics_the_parsers(text in any::<String>(), soup in soup()) {
        for text in [&text, &soup, &format!("{{{{{text}}}}}"), &format!("{{{{ {soup} }}}}")] {
            if let Err(error) = Template::parse(text) {
                points_into(text, &error);
            }
            if let Err(error) = Path::parse(text) {
                points_into(text, &error);
            }
        }
    }

    #[test]
    fn evaluation_never_panics_and_repeats(soup in soup(), text in expressions(Kind::Any, 4), context in values()) {
        survives(&format!("{{{{ {soup} }}}}"), &context);
        prop_assert!(survives(&format!("{{{{ {text} }}}}"), &context), "{} must compile", text);
        survives(&format!("a {{{{ {text} }}}} b {soup}"), &context);
    }

    #[test]
    fn json_is_an_expression_for_itself(value in values()) {
        let text = format!("{{{{ {value} }}}}");
        prop_assert_eq!(eval_with(&text, &Value::Null), Some(value));
    }

    #[test]
    fn json_and_from_json_are_inverse(value in values()) {
        let back = eval_with("{{ $ | json | from_json }}", &value);
        prop_assert_eq!(back.as_ref(), Some(&value));
        prop_assert_eq!(eval_with("{{ $ == ($ | json | from_json) }}", &value), Some(json!(true)));
    }

    #[test]
    fn a_result_is_read_where_it_was_put(keys in vec("[a-c]|\\PC{1,4}", 1..6), value in values()) {
        prop_assume!(keys[0] != "workflow");
        let text = keys.iter().fold(String::from("$"), |path, key| {
            path + &format!("[{}]", Value::from(key.as_str()))
        });
        let path = Path::parse(&text).expect("a path");
        prop_assert_eq!(&Path::parse(&path.to_string()), &Ok(path.clone()), "{}", path);
        let mut root = json!({"kept": 1, "workflow": {}});
        path.set(&mut root, value.clone()).expect("nothing is in the way");
        prop_assert_eq!(eval_with(&format!("{{{{ {path} }}}}"), &root), Some(value));
        prop_assert!(root["workflow"].is_object());
    }

    #[test]
    fn numbers_have_one_order(a in numbers(), b in numbers(), c in numbers()) {
        let context = json!([a, b, c]);
        let sorted = eval_with("{{ $ | sort }}", &context).expect("sorted");
        let ascending = "{{ $[0] <= $[1] && $[1] <= $[2] && $[0] <= $[2] }}";
        prop_assert_eq!(eval_with(ascending, &sorted), Some(json!(true)), "{}", sorted);
        let law = "{{ ($[0] < $[1]) == !($[0] >= $[1]) && ($[0] == $[1]) == !($[0] != $[1]) }}";
        prop_assert_eq!(eval_with(law, &context), Some(json!(true)));
        let ends = "{{ ($ | min) == ($ | sort | first) && ($ | max) == ($ | sort | last) }}";
        prop_assert_eq!(eval_with(ends, &context), Some(json!(true)));
    }

    #[test]
    fn integers_are_exact_or_refused(a in any::<i64>(), b in any::<i64>()) {
        let fit = |exact: i128| {
            let signed = i64::try_from(exact).ok().map(Value::from);
            signed.or_else(|| u64::try_from(exact).ok().map(Value::from))
        };
        let (wide_a, wide_b) = (i128::from(a), i128::from(b));
        let context = json!({"a": a, "b": b});
        prop_assert_eq!(eval_with("{{ $.a + $.b }}", &context), fit(wide_a + wide_b));
        prop_assert_eq!(eval_with("{{ $.a - $.b }}", &context), fit(wide_a - wide_b));
        prop_assert_eq!(eval_with("{{ $.a * $.b }}", &context), fit(wide_a * wide_b));
        if b != 0 {
            prop_assert_eq!(eval_with("{{ $.a % $.b }}", &context), fit(wide_a % wide_b));
        }
    }

    #[test]
    fn split_and_join_are_inverse(text in "[a-c,é]{0,12}") {
        let back = eval_with("{{ $ | split: ',' | join: ',' }}", &json!(text));
        prop_assert_eq!(back, Some(json!(text)));
    }

    #[test]
    fn unique_keeps_one_of_each(items in vec(values(), 0..8)) {
        let context = json!({"twice": [items.clone(), items]});
        let once = eval_with("{{ $.twice[0] | unique }}", &context);
        prop_assert!(once.is_some());
        prop_assert_eq!(eval_with("{{ $.twice | flatten | unique }}", &context), once);
    }

    /// What overlays hide is as if it had been overwritten.
    #[test]
    fn an_overlay_is_a_context_with_other_values(
        text in expressions(Kind::Any, 4),
        context in btree_map("[a-d]", values(), 0..4),
        inner in btree_map("[a-d]", values(), 0..3),
        outer in btree_map("[a-d]", values(), 0..3),
    ) {
        let object = |map: &BTreeMap<String, Value>| -> Value {
            map.clone().into_iter().collect::<Map<_, _>>().into()
        };
        let mut merged = context.clone();
        merged.extend(outer.clone());
        merged.extend(inner.clone());
        let (context, inner, outer) = (object(&context), object(&inner), object(&outer));
        for text in [text.as_str(), "$", "$ | keys", "$['a']", "$['b'].a", "$[$.c | default: 'd']"] {
            let template = Template::parse(&format!("{{{{ {text} }}}}")).expect("compiles");
            let overlays = [&inner, &outer];
            let layered = Env { overlays: &overlays, ..env(&context, &[]) };
            let plain = object(&merged);
            let plain = template.eval(&env(&plain, &[]));
            prop_assert_eq!(template.eval(&layered).ok(), plain.ok(), "{}", text);
        }
    }
}
