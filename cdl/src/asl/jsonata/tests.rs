use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::asl::random::Random;
use crate::{ExecutionId, Timestamp};

fn scope(input: Value) -> Scope {
    let id = ExecutionId(Uuid::from_u128(7));
    let mut variables = std::collections::BTreeMap::new();
    variables.insert("v".to_owned(), Arc::new(json!([1, 2, 3])));
    Scope::new(
        Arc::new(input),
        json!({"State": {"Name": "S"}}),
        variables,
        Timestamp(1_457_920_740_000),
        Random::new(id, 1),
    )
}

fn evaluate(text: &str, input: Value) -> Result<Value, String> {
    evaluate_counted(text, input).0
}

/// What it gives, and the steps that it takes.
fn evaluate_counted(text: &str, input: Value) -> (Result<Value, String>, u64) {
    let expression = match Expression::parse(text, "Output") {
        Ok(expression) => expression,
        Err(error) => return (Err(error), 0),
    };
    let query = Query::Expression(expression);
    let mut steps = 0;
    let value = query.evaluate(&scope(input), &mut steps);
    (value.map_err(|fault| fault.cause), steps)
}

/// Expected values: jsonata.org, the Step Functions guide, and the conformance suite for
/// the range of a single number.
#[test]
fn expressions_give_what_jsonata_and_the_guide_say() {
    let input = json!({"a": [{"b": 1}, {"b": 2}], "s": "x"});
    for (text, expected) in [
        ("$states.input.a.b", json!([1, 2])),
        ("$states.input.a[b=2].b", json!(2)),
        ("$sum($v)", json!(6)),
        ("$v[$ > 1]", json!([2, 3])),
        ("$states.context.State.Name", json!("S")),
        ("[1..3]", json!([1, 2, 3])),
        ("[1..3, 7]", json!([1, 2, 3, 7])),
        ("[[1, 2], [3]]", json!([[1, 2], [3]])),
        ("[$v, 4]", json!([1, 2, 3, 4])),
        ("[$states.input.s]", json!(["x"])),
        ("$map($v, function($x) { $x * 2 })", json!([2, 4, 6])),
        ("$map($v, $string)", json!(["1", "2", "3"])),
        (
            "($f := function($n) { $n <= 1 ? 1 : $n * $f($n - 1) }; $f(5))",
            json!(120),
        ),
        ("$reduce($v, function($i, $j) { $i + $j }, 10)", json!(16)),
        ("$states.input.a.{'c': b}", json!([{"c": 1}, {"c": 2}])),
        ("$v.($ + 1)", json!([2, 3, 4])),
        ("$states.input.a^(>b).b", json!([2, 1])),
        ("$states.input.a{s: b}", json!({})),
        ("$v ~> $sum", json!(6)),
        (
            "($add := function($a, $b) { $a + $b }; $inc := $add(?, 1); $inc(2))",
            json!(3),
        ),
        (
            "$states.input ~> |$|{'s': 'y'}|",
            json!({"a": [{"b": 1}, {"b": 2}], "s": "y"}),
        ),
        ("'a' & 1 & true", json!("a1true")),
        ("1 in $v", json!(true)),
        ("$now()", json!("2016-03-14T01:59:00.000Z")),
        ("$now('[Y]')", json!("2016")),
        ("$millis()", json!(1_457_920_740_000_u64)),
        ("$range(0, 9, 3)", json!([0, 3, 6, 9])),
        ("$range(1, 9, 9)", json!(1)),
        ("$partition([1..5], 2)", json!([[1, 2], [3, 4], [5]])),
        (
            "$hash('', 'MD5')",
            json!("d41d8cd98f00b204e9800998ecf8427e"),
        ),
        ("$parse('{\"a\": [1.5, -0]}')", json!({"a": [1.5, 0]})),
        ("$pad('a', -3, '#')", json!("##a")),
        ("$pad('a', 3)", json!("a  ")),
        ("$contains('hello$world', /^hello\\$/)", json!(true)),
        ("$variable := 1", json!(1)),
        ("-0", json!(0)),
    ] {
        assert_eq!(evaluate(text, input.clone()), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    for (text, cause) in [
        ("$none", "returned nothing (undefined)."),
        (
            "function($x) { $x }",
            "returned an unsupported result type.",
        ),
        ("$sum", "returned an unsupported result type."),
        (
            "$randomSeeded(1)",
            "threw an error during evaluation. T1006",
        ),
        ("$eval('1')", "$eval is not supported"),
        ("$error('no')", "no"),
    ] {
        let error = evaluate(text, json!({})).expect_err(text);
        assert!(error.contains(cause), "{text}: {error}");
    }
    for text in [
        "1 +",
        "$__tick(1)",
        "$__pass(1)",
        "function($__pass) { 1 }",
        "(",
        "\"a",
    ] {
        assert!(Expression::parse(text, "Output").is_err(), "{text}");
    }
}

#[test]
fn random_values_differ_in_one_evaluation_and_repeat_in_the_next() {
    let draw = || evaluate("[$uuid(), $uuid(), $random(), $random()]", json!({}));
    let drawn = draw().expect("a list");
    assert_eq!(draw(), Ok(drawn.clone()));
    assert_ne!(drawn[0], drawn[1]);
    assert_ne!(drawn[2], drawn[3]);
    assert_eq!(
        evaluate("$random(7)", json!({})),
        evaluate("$random(7)", json!({}))
    );
}

/// Each of these would run for ever, or fill the memory.
#[test]
fn what_does_not_end_is_ended() {
    for text in [
        "($f := function() { $f() }; $f())",
        "($f := function($x) { 1 + $f($x) }; $f(1))",
        "($f := function($x) { $f($x & $x) }; $f('aaaaaaaa'))",
        "($f := function($x) { $f([$x, $x]) }; $f([1]))",
        "($f := function($x) { $f({'a': $x, 'b': $x}) }; $f(1))",
        "($f := function($x) { $f([[$x]]) }; $f(1))",
        "$reduce([1..1000], function($a, $b) { $append($a, $a) }, [1])",
        "$reduce([1..1000], function($a, $b) { $zip($a, $a) }, [1])",
        "$map([1..90000], function($i) { $count([1..90000]) })",
        "$map([1..90000], function($i) { [1..90000][0] })",
        "$map([1..90000], function($i) { ([1..300].([1..300]))[0] })",
        "[1..1000000000]",
        "$pad('', 1000000000)",
        "[1..3000].([1..3000]).([1..3000])",
        "[1..90000][$count([1..90000]) = $]",
    ] {
        let error = evaluate(text, json!({})).expect_err(text);
        assert!(error.contains("threw an error"), "{text}: {error}");
    }
}

/// What expressions begin with.
const LEAVES: &[&str] = &[
    "$states.input",
    "$states.input.a",
    "$states.input.a.b",
    "$states.input.s",
    "$v",
    "$x",
    "$",
    "1",
    "-2.5",
    "'x'",
    "null",
    "true",
    "[]",
    "[1..4]",
    "$states.context.State.Name",
    "$uuid()",
    "$random()",
    "$now()",
    "$millis()",
];

/// What is made of expressions, which stand where an `A` is.
const RULES: &[&str] = &[
    "A + A",
    "A - A",
    "A * A",
    "A / A",
    "A % A",
    "A & A",
    "A = A",
    "A < A",
    "A in A",
    "A and A",
    "A.A",
    "A[A]",
    "A[0]",
    "[A, A]",
    "{'k': A, 's': A}",
    "A{$string(A): A}",
    "A ? A : A",
    "A ^ (>$)",
    "A.{'k': A}",
    "(A; A)",
    "($x := A; A)",
    "A ~> $count",
    "A.*",
    "A.**",
    "A.%",
    "A@$i.A",
    "A#$i[A]",
    "$sum(A)",
    "$count(A)",
    "$max(A)",
    "$average(A)",
    "$string(A)",
    "$number(A)",
    "$length(A)",
    "$substring(A, A)",
    "$split(A, 'x')",
    "$join(A, ',')",
    "$contains(A, 'x')",
    "$replace(A, 'x', A)",
    "$match(A, /x/)",
    "$merge(A)",
    "$keys(A)",
    "$lookup(A, 's')",
    "$spread(A)",
    "$append(A, A)",
    "$reverse(A)",
    "$sort(A)",
    "$zip(A, A)",
    "$distinct(A)",
    "$exists(A)",
    "$type(A)",
    "$not(A)",
    "$boolean(A)",
    "$abs(A)",
    "$floor(A)",
    "$round(A, 1)",
    "$power(A, 2)",
    "$sqrt(A)",
    "$formatNumber(A, '#.00')",
    "$formatBase(A, 2)",
    "$toMillis(A)",
    "$fromMillis(A)",
    "$base64encode(A)",
    "$encodeUrl(A)",
    "$eval(A)",
    "$map(A, function($x) { A })",
    "$filter(A, function($x) { A })",
    "$reduce(A, function($x, $i) { A })",
    "$each(A, function($x) { A })",
    "$single(A)",
    "$sift(A, function($x) { A })",
    "$partition(A, 2)",
    "$range(1, 5, A)",
    "$hash(A, 'MD5')",
    "$parse(A)",
    "|A|{'k': A}|",
    "function($x) { A }(A)",
    "$pad(A, A)",
    "$assert(A, 'no')",
];

/// Expressions by these rules, most of which compile and many of which give something.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(LEAVES).prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let rule = proptest::sample::select(RULES);
        (rule, inner.clone(), inner.clone(), inner).prop_map(|(rule, a, b, c)| {
            let mut parts = [a, b, c].into_iter().cycle();
            let pieces = rule.split('A').map(str::to_owned);
            let whole = pieces.reduce(|text, piece| {
                let part = parts.next().expect("a cycle");
                format!("{text}({part}){piece}")
            });
            whole.expect("split gives one piece at least")
        })
    })
}

fn survives(text: &str) -> Result<(), TestCaseError> {
    let input = json!({"a": [{"b": 1}, {"c": [1, "x"]}], "b": {"a": null}, "s": "axb"});
    let once = evaluate_counted(text, input.clone());
    prop_assert!(once.1 <= MAX_STEPS);
    prop_assert_eq!(once, evaluate_counted(text, input));
    Ok(())
}

proptest! {
    #[test]
    fn no_expression_panics_or_differs_between_two_runs(
        text in r"(\$[a-z]{0,3}|[a-c]|[0-9]|'[a-z]'|\.|\[|\]|\(|\)|\{|\}|,|:|:=|\+|-|\*|%|&|=|<|\?|;| |function\(\$x\)|\$map|\$sum|~>|\^|@\$i|#\$j){1,14}",
        made in expressions(),
    ) {
        survives(&text)?;
        survives(&made)?;
    }
}
