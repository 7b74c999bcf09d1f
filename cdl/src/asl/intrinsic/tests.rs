use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::ExecutionId;
use crate::asl::random::Random;

/// Calls over literals only.
fn call(text: &str) -> Result<Value, String> {
    fn apply(call: &Call, random: &Random) -> Result<Value, String> {
        let mut raw = None;
        let mut values = Vec::new();
        for (at, argument) in call.arguments.iter().enumerate() {
            values.push(match argument {
                Argument::Text { raw: text, value } => {
                    raw = raw.or((at == 0).then_some(&**text));
                    value.clone()
                }
                Argument::Literal(value) => value.clone(),
                Argument::Call(call) => apply(call, random)?,
                Argument::Path(path) => panic!("{path} in a test of literals"),
            });
        }
        call.function.apply(&values, raw, random)
    }
    let random = Random::new(ExecutionId(Uuid::nil()), 0);
    let call = Call::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    apply(&call, &random)
}

/// Expected values: the examples of the Step Functions guide, digests by coreutils.
#[test]
fn functions_of_lists_give_what_the_guide_says() {
    for (text, expected) in [
        (
            "States.Array('Foo', 2020, null)",
            json!(["Foo", 2020, null]),
        ),
        (
            "States.ArrayPartition(States.ArrayRange(1, 9, 1), 4)",
            json!([[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
        ),
        (
            "States.ArrayContains(States.Array(1, 2, 3), 3)",
            json!(true),
        ),
        (
            "States.ArrayContains(States.Array(1, 2, 3), '3')",
            json!(false),
        ),
        ("States.ArrayRange(1, 9, 2)", json!([1, 3, 5, 7, 9])),
        ("States.ArrayRange(3, 1, -1)", json!([3, 2, 1])),
        (
            "States.ArrayGetItem(States.ArrayRange(1, 9, 1), 5)",
            json!(6),
        ),
        ("States.ArrayLength(States.Array())", json!(0)),
        (
            "States.ArrayUnique(States.Array(1, 2, 1.0, 'a', 'a'))",
            json!([1, 2, "a"]),
        ),
        (
            "States.Base64Encode('Data to encode')",
            json!("RGF0YSB0byBlbmNvZGU="),
        ),
        (
            "States.Base64Decode('RGVjb2RlZCBkYXRh')",
            json!("Decoded data"),
        ),
    ] {
        assert_eq!(call(text), Ok(expected), "{text}");
    }
}

#[test]
fn functions_of_texts_and_numbers_give_what_the_guide_says() {
    for (text, expected) in [
        (
            "States.Hash('input data', 'SHA-1')",
            json!("aaff4a450a104cd177d28d18d74485e8cae074b7"),
        ),
        (
            "States.Hash('', 'MD5')",
            json!("d41d8cd98f00b204e9800998ecf8427e"),
        ),
        ("States.MathAdd(111, -1)", json!(110)),
        ("States.MathAdd(1.6, 1)", json!(3)),
        (
            "States.StringSplit('This.is+a,test=string', '.+,=')",
            json!(["This", "is", "a", "test", "string"]),
        ),
        ("States.Format('Hi {}, {}', 'Jo', 1)", json!("Hi Jo, 1")),
        (
            r"States.Format('\{\} {} \\ \'', null)",
            json!(r"{} null \ '"),
        ),
        (
            r#"States.StringToJson('{"number":20}')"#,
            json!({"number": 20}),
        ),
        ("States.StringToJson('')", json!(null)),
        (
            "States.JsonToString(States.Array('a', 1))",
            json!("[\"a\",1]"),
        ),
        (
            "States.JsonMerge(States.StringToJson('{\"a\":{\"x\":1},\"b\":2}'), \
             States.StringToJson('{\"a\":{\"y\":1}}'), false)",
            json!({"a": {"y": 1}, "b": 2}),
        ),
        (
            "States.Format('{}', States.StringToJson('{\"a\":1,\"b\":[\"x\",true]}'))",
            json!("{a=1, b=[x, true]}"),
        ),
    ] {
        assert_eq!(call(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_a_function_is_not_defined_for_fails() {
    for text in [
        "States.Format('{}')",
        "States.Format('', 1)",
        "States.StringToJson('{')",
        "States.ArrayPartition(States.Array(1), 0)",
        "States.ArrayRange(1, 9, 0)",
        "States.ArrayRange(1, 1001, 1)",
        "States.ArrayGetItem(States.Array(1), 1)",
        "States.ArrayGetItem(States.Array(1), -1)",
        "States.ArrayLength('a')",
        "States.Base64Decode('%')",
        "States.Hash('a', 'SHA-2')",
        "States.JsonMerge(States.StringToJson('{}'), States.StringToJson('{}'), true)",
        "States.MathAdd('1', 1)",
        "States.MathRandom(2, 2)",
    ] {
        assert!(call(text).is_err(), "{text}");
    }
}

#[test]
fn random_numbers_stay_in_their_range_and_seeds_repeat() {
    for last in [1, 2, 1_000_000] {
        let drawn = call(&format!("States.MathRandom(0, {last})")).expect("a number");
        assert!(
            drawn.as_i64().is_some_and(|n| (0..last).contains(&n)),
            "{drawn}"
        );
    }
    let seeded = call("States.MathRandom(1, 1000, 42)");
    assert_eq!(call("States.MathRandom(1, 1000, 42)"), seeded);
    assert_ne!(call("States.UUID()"), Ok(json!("")));
}

#[test]
fn what_is_not_a_call_is_refused() {
    for text in [
        "States.Nope()",
        "States.Array(",
        "States.Array(1,)",
        "States.Array(a)",
        "States.Array('a)",
        r#"States.StringToJson('{"text":"An \"escaped\" quote"}')"#,
        r"States.Format('\n')",
        "States.UUID(1)",
        "States.Array() x",
        "States.MathAdd(1)",
        "States.Array($.a b)",
        "Array()",
    ] {
        assert!(Call::parse(text).is_err(), "{text}");
    }
    let nested = |depth| format!("{}1{}", "States.Array(".repeat(depth), ")".repeat(depth));
    assert!(Call::parse(&nested(10)).is_ok());
    assert!(Call::parse(&nested(11)).is_err());
}

#[test]
fn paths_among_arguments_end_where_the_argument_ends() {
    let text = "States.Array($.a['x,)'], $$.Execution.Id, $.b[?(@.c == 1)], $v)";
    let call = Call::parse(text).expect("a call");
    let mut paths = Vec::new();
    call.paths(&mut paths);
    let texts: Vec<_> = paths.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["$.a['x,)']", "$$.Execution.Id", "$.b[?(@.c == 1)]", "$v"]
    );
}

/// Calls of all functions, with arguments of any kind.
fn calls() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "'a'",
        "'{}'",
        "''",
        "'a,b,,c'",
        "'{\"a\":[1,null]}'",
        "'e30='",
        "'MD5'",
        "'SHA-256'",
        "0",
        "1",
        "-3",
        "2.5",
        "1e300",
        "9223372036854775807",
        "true",
        "null",
        "'\\''",
        "'\u{e9}'",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 12, 3, |inner| {
        let name = proptest::sample::select(vec![
            "Format",
            "StringToJson",
            "JsonToString",
            "Array",
            "ArrayPartition",
            "ArrayContains",
            "ArrayRange",
            "ArrayGetItem",
            "ArrayLength",
            "ArrayUnique",
            "Base64Encode",
            "Base64Decode",
            "Hash",
            "JsonMerge",
            "MathRandom",
            "MathAdd",
            "StringSplit",
            "UUID",
        ]);
        let arguments = proptest::collection::vec(inner, 0..4);
        (name, arguments).prop_map(|(name, list)| format!("States.{name}({})", list.join(", ")))
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in r"States\.[A-Za-z]{0,6}[(),' \\{}$.a0-9\[\]]{0,24}") {
        let _ = Call::parse(&text);
    }

    #[test]
    fn no_call_panics_or_differs_between_two_runs(text in calls()) {
        // What has the wrong number of arguments is no call.
        if text.starts_with("States.") && Call::parse(&text).is_ok() {
            prop_assert_eq!(call(&text), call(&text));
        }
    }
}
