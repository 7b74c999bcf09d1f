//! What holds for all expressions and values.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Env, MAX_VALUE_DEPTH, Path, SyntaxError, Template, filter_names, fits_depth};
use crate::{ExecutionId, Timestamp};

fn env<'a>(context: &'a Value, locals: &'a [(&'a str, &'a Value)]) -> Env<'a> {
    Env {
        context,
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

/// Expressions that compile, over every operator and filter.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "$",
            "$.a",
            "$.b",
            "$.a.b",
            "$.c[0]",
            "$['b'][-1]",
            "map.item",
            "now",
            "uuid",
            "workflow.a",
            "0",
            "1",
            "-2",
            "2.5",
            "9223372036854775807",
            "'a'",
            "','",
            "''",
            "'%Y'",
            "true",
            "false",
            "null",
            "[]",
            "[1, 'a']",
            "{a: 1, b: [2]}",
        ])
        .prop_map(str::to_owned),
        values().prop_map(|value| value.to_string()),
    ];
    let operators = vec![
        "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", " in ", "&&", "||",
    ];
    let filters: Vec<&str> = filter_names().collect();
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let operator = prop::sample::select(operators.clone());
        let filter = prop::sample::select(filters.clone());
        let args = vec(inner.clone(), 0..3);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), filter, args).prop_map(|(a, filter, args)| {
                let colon = if args.is_empty() { "" } else { ":" };
                format!("({a} | {filter}{colon} {})", args.join(", "))
            }),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            inner.clone().prop_map(|a| format!("!{a}")),
            inner.prop_map(|a| format!("[{a}]")),
        ]
    })
}

/// Evaluates `text` twice: no panic, one outcome, and never too deep.
fn survives(text: &str, context: &Value) {
    let Ok(template) = Template::parse(text) else {
        return;
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
    fn evaluation_never_panics_and_repeats(soup in soup(), text in expressions(), context in values()) {
        survives(&format!("{{{{ {soup} }}}}"), &context);
        survives(&format!("{{{{ {text} }}}}"), &context);
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
        let text: String = keys
            .iter()
            .map(|key| format!("[{}]", Value::from(key.as_str())))
            .collect();
        let path = Path::parse(&format!("${text}")).expect("a path");
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
}
