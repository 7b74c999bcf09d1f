//! Translations of definitions that the suite has not: each with inputs of all
//! shapes, and definitions put together by chance.

use cascade_cdl::asl::Envelope;
use cascade_cdl::asl::conformance::{Case, read_cases};
use cascade_cdl::{Source, import_asl, parse_with};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use super::{check, differences, import, run_translated};
use crate::run;

/// Inputs of every type, with keys that the definitions look at.
fn inputs() -> Vec<Value> {
    vec![
        json!({}),
        json!(null),
        json!("text"),
        json!(5),
        json!([1, {"a": 2}]),
        json!({"a": null}),
        json!({"a": {"b": null}, "at": "2026-01-31T09:31:00Z", "n": 2}),
        json!({"a": {"b": {"c": 1}}, "x": "b", "at": "2026-01-31 09:31:00Z", "n": "2"}),
        json!({"a": [3, 4], "b": {"c": 1}, "items": [1, "two", {"a": 3}], "n": 2.0}),
        json!({"a": 5, "x": 5.0, "items": [], "text": " [1] ", "at": "2026-01-31T09:31Z"}),
        json!({"a": "a", "x": "x", "items": {"k": 1}, "text": "{", "n": -1}),
        json!({"a": true, "x": false, "y": "", "text": "", "at": "2026-01-31T09:31:00+01:00"}),
        json!({"a": "a*b", "x": "a*b", "text": "\"x\""}),
    ]
}

fn cases(id: &str, definition: &Value) -> Vec<Case> {
    let cases: Vec<_> = inputs()
        .into_iter()
        .map(|input| json!({"id": format!("{id} with {input}"), "input": input}))
        .collect();
    let scenario = json!({"definition": definition, "activities": activities(), "cases": cases});
    read_cases(&scenario.to_string()).expect("a scenario")
}

const ECHO: &str = "arn:aws:lambda:us-east-1:1:function:echo";
const OBJECT: &str = "arn:aws:lambda:us-east-1:1:function:object";
const DECLINES: &str = "arn:aws:lambda:us-east-1:1:function:declines";
const SILENT: &str = "arn:aws:lambda:us-east-1:1:function:silent";
const SLOW: &str = "arn:aws:lambda:us-east-1:1:function:slow";

fn activities() -> Value {
    json!({
        ECHO: {"behavior": "echo"},
        OBJECT: {"behavior": "constant", "output": {"a": {"n": 1}, "items": [1, 2]}},
        DECLINES: {"behavior": "fail", "error": "Declined", "cause": "no \"money\" {{ here }}"},
        SILENT: {"behavior": "fail", "error": "Gone", "cause": ""},
        SLOW: {"behavior": "sleep", "seconds": 60, "then": "echo"},
    })
}

/// A machine of these states, each leading to the next one.
fn machine(states: &[Value]) -> Value {
    scope("S", states)
}

/// Names the states that ways lead to by another letter.
fn rename(value: &mut Value, prefix: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, prefix)),
        Value::Object(map) => {
            for (key, item) in map {
                match item.as_str() {
                    Some(name) if key == "Next" || key == "Default" => {
                        *item = json!(name.replacen('S', prefix, 1));
                    }
                    _ => rename(item, prefix),
                }
            }
        }
        _ => {}
    }
}

/// As [`machine`], the names of the states beginning with `prefix`.
fn scope(prefix: &str, states: &[Value]) -> Value {
    let mut named = Map::new();
    for (at, state) in states.iter().enumerate() {
        let mut state = state.clone();
        for key in ["Choices", "Catch"] {
            if let Some(ways) = state.get_mut(key) {
                rename(ways, prefix);
            }
        }
        if let Some(next) = state.get("Default").and_then(Value::as_str) {
            state["Default"] = json!(next.replacen('S', prefix, 1));
        }
        if state.get("Next").is_none()
            && !["Fail", "Choice", "Succeed"]
                .iter()
                .any(|kind| state["Type"] == *kind)
        {
            if at + 1 == states.len() {
                state["End"] = json!(true);
            } else {
                state["Next"] = json!(format!("{prefix}{}", at + 1));
            }
        }
        named.insert(format!("{prefix}{at}"), state);
    }
    json!({"StartAt": format!("{prefix}0"), "States": named})
}

/// Checks a definition that has to be translated whole.
#[track_caller]
fn check_whole(states: &[Value]) {
    let definition = machine(states);
    for case in cases(&definition.to_string(), &definition) {
        let imported = import(&case);
        assert!(
            imported.cdl.is_some(),
            "{definition}: {:?}",
            imported.diagnostics
        );
        let findings = &imported.findings;
        assert!(findings.is_empty(), "{definition}: {findings:?}");
        check(&case, &imported).unwrap_or_else(|wrong| panic!("{definition}\n{wrong}"));
    }
}

#[test]
fn data_goes_in_and_out_as_it_did() {
    let pass = |fields: Value| {
        let mut state = fields;
        state["Type"] = json!("Pass");
        state
    };
    for fields in [
        json!({}),
        json!({"InputPath": "$.a"}),
        json!({"InputPath": null}),
        json!({"InputPath": "$.a", "ResultPath": "$.r"}),
        json!({"OutputPath": "$.a.b"}),
        json!({"OutputPath": null}),
        json!({"Result": {"k": [1, "{{ $.x }}", null]}, "ResultPath": "$.a.b"}),
        json!({"Result": null}),
        json!({"Result": "{{"}),
        json!({"Result": [], "ResultPath": null}),
        json!({"Parameters": {"k.$": "$.a", "all.$": "$", "s": "it's {{"}, "ResultPath": "$.r"}),
        json!({"Parameters": {"fixed": 1}, "InputPath": "$.a"}),
        json!({"Parameters": {"k.$": "$.b"}, "InputPath": "$.a", "OutputPath": "$.k"}),
        json!({"Parameters": {"k.$": "$.missing"}, "ResultPath": null}),
        json!({"Parameters": {"i.$": "$$.Execution.Input", "s.$": "$$.State.Name"}}),
        json!({"Parameters": {"n.$": "$.a.length()"}}),
        json!({"Parameters": {"first.$": "$.a[0]", "last.$": "$.a[-1]"}}),
        json!({"Assign": {"v.$": "$", "w": 1}, "Parameters": {"k.$": "$.a"}, "OutputPath": "$.k"}),
    ] {
        check_whole(&[pass(fields.clone())]);
        let again = pass(json!({"Result": 1, "ResultPath": "$.z"}));
        check_whole(&[pass(fields), again]);
    }
    let set = json!({"Type": "Pass", "Assign": {"v": {"a": 1}}});
    let swap = json!({"Type": "Pass", "Assign": {"v": 2, "w.$": "$v.a"}, "ResultPath": "$.r", "OutputPath": "$v"});
    let read = json!({"Type": "Pass", "Parameters": {"v.$": "$v", "w.$": "$w"}});
    check_whole(&[set, swap, read]);
}

#[test]
fn functions_compute_as_they_did() {
    for call in [
        "States.Array($.a, $.x, 'it\\'s', 1)",
        "States.JsonToString($)",
        "States.StringToJson($.text)",
        "States.ArrayContains($.items, $.n)",
        "States.ArrayContains($.a, 3)",
        "States.ArrayLength($.a)",
        "States.ArrayLength($.items)",
        "States.ArrayGetItem($.a, 1)",
        "States.JsonMerge($.b, $, false)",
        "States.MathAdd($.a, -2)",
        "States.MathAdd($.a, $.x)",
        "States.MathAdd($.n, 1)",
        "States.Hash($.a, 'SHA-256')",
        "States.Format('{} \\{\\} {}', States.JsonToString($.a), 5)",
    ] {
        check_whole(&[json!({"Type": "Pass", "Parameters": {"r.$": call}})]);
    }
}

#[test]
fn choices_choose_as_they_did() {
    let mut conditions = Vec::new();
    for variable in ["$.a", "$.x", "$.a.b", "$"] {
        for value in ["a", "", "a\\*b", "a*", "*b", "*a*", "a*b", "*", "é"] {
            conditions.push(json!({"Variable": variable, "StringMatches": value}));
        }
        for operator in [
            "Equals",
            "LessThan",
            "GreaterThan",
            "LessThanEquals",
            "GreaterThanEquals",
        ] {
            conditions.extend([
                json!({"Variable": variable, format!("String{operator}"): "a"}),
                json!({"Variable": variable, format!("Numeric{operator}"): 5}),
                json!({"Variable": variable, format!("Numeric{operator}Path"): "$.x"}),
            ]);
        }
        for is in ["IsPresent", "IsNull", "IsString", "IsNumeric", "IsBoolean"] {
            conditions.push(json!({"Variable": variable, is: true}));
            conditions.push(json!({"Variable": variable, is: false}));
        }
        conditions.extend([
            json!({"Variable": variable, "BooleanEquals": true}),
            json!({"Variable": variable, "BooleanEqualsPath": "$.x"}),
            json!({"Variable": variable, "StringEqualsPath": "$.x"}),
        ]);
    }
    let (a, b) = (
        conditions[0].clone(),
        json!({"Variable": "$.n", "IsNumeric": true}),
    );
    conditions.extend([
        json!({"And": [b, a, {"Variable": "$.n", "NumericGreaterThan": 1}]}),
        json!({"Or": [{"Variable": "$.a", "IsPresent": false}, {"Not": a}, b]}),
        json!({"Not": {"And": [{"Variable": "$.n", "IsPresent": true}, {"Or": [a, b]}]}}),
    ]);
    for condition in conditions {
        let mut rule = condition;
        rule["Next"] = json!("S1");
        let choice = json!({"Type": "Choice", "Choices": [rule], "Default": "S2"});
        check_whole(&[
            choice,
            json!({"Type": "Pass", "Result": 1}),
            json!({"Type": "Succeed"}),
        ]);
    }
    let rule = json!({"Variable": "$.b", "IsPresent": true, "Next": "S1", "Assign": {"v.$": "$"}});
    let choice =
        json!({"Type": "Choice", "InputPath": "$.a", "OutputPath": "$.b", "Choices": [rule]});
    check_whole(&[
        choice,
        json!({"Type": "Pass", "Parameters": {"v.$": "$v", "d.$": "$"}}),
    ]);
}

#[test]
fn tasks_succeed_fail_and_are_caught_as_they_were() {
    let shapes = [
        json!({}),
        json!({"ResultPath": "$.r"}),
        json!({"ResultPath": null, "OutputPath": "$.a"}),
        json!({"ResultSelector": {"r.$": "$", "k": 1}}),
        json!({"ResultSelector": {"r.$": "$.a"}, "ResultPath": "$.r"}),
        json!({"InputPath": "$.a", "Parameters": {"b.$": "$.b"}}),
        json!({"Parameters": {"k.$": "$.missing"}}),
        json!({"Assign": {"v.$": "$"}, "ResultPath": "$.a"}),
    ];
    let catches = [
        json!([]),
        json!([{"ErrorEquals": ["States.ALL"], "Next": "S2"}]),
        json!([{"ErrorEquals": ["States.ALL"], "ResultPath": null, "Next": "S2"}]),
        json!([{"ErrorEquals": ["Declined", "Gone"], "ResultPath": "$.e", "Next": "S2"}]),
        json!([{"ErrorEquals": ["States.TaskFailed"], "Next": "S2"}]),
        json!([{"ErrorEquals": ["States.Timeout"], "Next": "S2"}]),
        json!([{"ErrorEquals": ["States.Runtime"], "Next": "S2"}]),
        json!([
            {"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.failed", "Next": "S2"},
            {"ErrorEquals": ["States.ALL"], "ResultPath": "$.other", "Next": "S2"},
        ]),
    ];
    // Data that is an object for sure, and data of any type.
    let known = json!({"Type": "Pass", "Parameters": {"a.$": "$", "x": 1}});
    let unknown = json!({"Type": "Pass"});
    let end = json!({"Type": "Pass", "Parameters": {"end.$": "$"}});
    for resource in [ECHO, OBJECT, DECLINES, SILENT, SLOW] {
        for shape in &shapes {
            for catch in &catches {
                let mut task = shape.clone();
                task["Type"] = json!("Task");
                task["Resource"] = json!(resource);
                task["TimeoutSeconds"] = json!(5);
                task["Catch"] = catch.clone();
                check_whole(&[known.clone(), task.clone(), end.clone()]);
                check_whole(&[unknown.clone(), task, end.clone()]);
            }
        }
    }
}

/// An activity that is the function behind `lambda:invoke`, not the service.
#[test]
fn envelopes_are_made_as_they_were() {
    let invoke = "arn:aws:states:::lambda:invoke";
    for fields in [
        json!({}),
        json!({"Parameters": {"FunctionName": "f", "Payload.$": "$.a"}}),
        json!({"Parameters": {"FunctionName": "f", "Payload": {"k.$": "$"}}, "OutputPath": "$.Payload"}),
        json!({"Parameters": {"FunctionName": "f"}, "ResultSelector": {"s.$": "$.StatusCode", "p.$": "$.Payload"}}),
        json!({"Parameters": {"Payload": [1]}, "ResultSelector": {"p.$": "$.Payload[0]"}, "ResultPath": "$.r"}),
        json!({"InputPath": "$.a", "ResultPath": "$.r"}),
        json!({"ResultSelector": {"no.$": "$.Missing"}}),
    ] {
        let mut task = fields;
        task["Type"] = json!("Task");
        task["Resource"] = json!(invoke);
        let definition = machine(&[task, json!({"Type": "Pass", "Parameters": {"end.$": "$"}})]);
        for mut case in cases(&definition.to_string(), &definition) {
            case.activities = [(invoke.to_owned(), json!({"behavior": "echo"}))].into();
            let mut options = run::options(case.machine_type, &run::names(&case));
            for entry in &mut options.bindings.entries {
                entry.envelope = Envelope::LambdaInvoke;
            }
            let text = definition.to_string();
            let source = Source {
                name: "machine.asl.json",
                bytes: text.as_bytes(),
            };
            let imported = import_asl(&source, &options);
            assert!(
                imported.findings.is_empty(),
                "{definition}: {:?}",
                imported.findings
            );
            let cdl = imported.cdl.expect("a valid definition");
            let application = parse_with(&source, &options).application;
            let mut programs = application
                .expect("a valid definition")
                .workflows
                .into_values();
            let original = run::run_program(&case, programs.next().expect("one workflow"));
            let translated = run_translated(&case, &cdl);
            let wrong = differences(&case, &original.outcome, translated.outcome);
            assert!(wrong.is_empty(), "{}: {wrong:?}\n{cdl}", case.id);
        }
    }
}

#[test]
fn waits_and_fails_end_as_they_did() {
    for state in [
        json!({"Type": "Wait", "Seconds": 5}),
        json!({"Type": "Wait", "SecondsPath": "$.n"}),
        json!({"Type": "Wait", "TimestampPath": "$.at"}),
        json!({"Type": "Wait", "Timestamp": "2026-02-01T00:00:00+02:00"}),
        json!({"Type": "Wait", "InputPath": "$.a", "SecondsPath": "$.n"}),
        json!({"Type": "Fail", "Error": "E", "Cause": "{{ why }}"}),
        json!({"Type": "Fail"}),
        json!({"Type": "Fail", "ErrorPath": "$.a", "CausePath": "$.x"}),
        json!({"Type": "Succeed", "InputPath": "$.a", "OutputPath": "$.b"}),
    ] {
        check_whole(&[state]);
    }
}

#[test]
fn branches_and_iterations_end_as_they_did() {
    let fail = json!({"Type": "Fail", "Error": "Inner", "Cause": "why"});
    let no_way =
        json!({"Type": "Choice", "Choices": [{"Variable": "$", "IsNull": true, "Next": "S1"}]});
    let pass = json!({"Type": "Pass", "Parameters": {"k.$": "$"}});
    let set = json!({"Type": "Pass", "Assign": {"v.$": "$"}, "ResultPath": null});
    let read = json!({"Type": "Pass", "Parameters": {"v.$": "$v", "o.$": "$outer"}});
    let task = json!({"Type": "Task", "Resource": DECLINES});
    let scopes: [Vec<Value>; 7] = [
        vec![pass.clone()],
        vec![json!({"Type": "Pass"}), json!({"Type": "Succeed"})],
        vec![set, read],
        vec![fail],
        vec![no_way, pass.clone()],
        vec![json!({"Type": "Pass", "InputPath": "$.missing"})],
        vec![task],
    ];
    let begin = json!({"Type": "Pass", "Assign": {"outer": 1}, "Next": "S1"});
    let end = json!({"Type": "Pass", "Parameters": {"end.$": "$"}});
    let catches = [
        json!([]),
        json!([{"ErrorEquals": ["States.ALL"], "Next": "S2"}]),
        json!([{"ErrorEquals": ["States.TaskFailed"], "Next": "S2"}]),
        json!([{"ErrorEquals": ["States.NoChoiceMatched", "Inner"], "Next": "S2"}]),
    ];
    for states in &scopes {
        for catch in &catches {
            let branches = json!([scope("A", states), scope("B", std::slice::from_ref(&pass))]);
            let mut parallel = json!({"Type": "Parallel", "Branches": branches, "Catch": catch});
            check_whole(&[begin.clone(), parallel.clone(), end.clone()]);
            parallel["Parameters"] = json!({"p.$": "$"});
            parallel["ResultSelector"] = json!({"first.$": "$[0]", "all.$": "$"});
            parallel["ResultPath"] = json!(null);
            check_whole(&[begin.clone(), parallel, end.clone()]);
            let mut map = json!({
                "Type": "Map", "ItemsPath": "$.items", "ItemProcessor": scope("I", states), "Catch": catch,
            });
            check_whole(&[begin.clone(), map.clone(), end.clone()]);
            map["ItemSelector"] =
                json!({"v.$": "$$.Map.Item.Value", "i.$": "$$.Map.Item.Index", "all.$": "$.items"});
            map["MaxConcurrency"] = json!(1);
            check_whole(&[begin.clone(), map, end.clone()]);
        }
    }
}

fn any_of(values: Value) -> impl Strategy<Value = Value> {
    let Value::Array(values) = values else {
        panic!("a list of values");
    };
    prop::sample::select(values)
}

/// A state of those that most definitions consist of, with fields by chance.
fn state() -> impl Strategy<Value = Value> {
    let kinds = json!([
        {"Type": "Pass"},
        {"Type": "Pass", "Result": {"a": {"b": 1}}},
        {"Type": "Pass", "Parameters": {"a.$": "$", "x.$": "$.a"}},
        {"Type": "Pass", "Parameters": {"a.$": "States.Array($.a)", "v.$": "$v"}},
        {"Type": "Task", "Resource": ECHO, "Parameters": {"a.$": "$.a"}},
        {"Type": "Task", "Resource": OBJECT},
        {"Type": "Task", "Resource": DECLINES},
        {"Type": "Task", "Resource": SLOW, "TimeoutSeconds": 1},
        {"Type": "Wait", "SecondsPath": "$.n"},
        {"Type": "Choice", "Choices": [{"Variable": "$.a", "IsPresent": true}]},
    ]);
    (
        any_of(kinds),
        any_of(json!([0, 0, "$.a", null, "$v"])),
        any_of(json!([0, 0, "$.a", null, "$v"])),
        any_of(json!([0, 0, "$.r", "$.a.b", null])),
        any_of(json!([0, 0, {"v.$": "$"}, {"v.$": "$v", "w": 1}])),
        any_of(json!([
            [],
            [{"ErrorEquals": ["States.ALL"]}],
            [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.e"}],
            [{"ErrorEquals": ["Declined"], "ResultPath": null, "Assign": {"v.$": "$.Error"}}],
            [{"ErrorEquals": ["States.Timeout"]}],
        ])),
    )
        .prop_map(|(mut state, input, output, result, assign, catch)| {
            let kind = state["Type"].clone();
            let mut set = |key: &str, value: Value, fits: bool| {
                if fits && value != 0 {
                    state[key] = value;
                }
            };
            set("InputPath", input, true);
            set("OutputPath", output, true);
            set("ResultPath", result, kind == "Pass" || kind == "Task");
            set("Assign", assign, true);
            set("Catch", catch, kind == "Task");
            state
        })
}

/// Puts states in a row, with errors and choices leading to the last one.
fn definition(states: Vec<Value>) -> Value {
    let last = format!("S{}", states.len() + 1);
    let mut row = vec![json!({"Type": "Pass", "Assign": {"v": {"a": 1}}})];
    let count = states.len();
    for (at, mut state) in states.into_iter().enumerate() {
        let entries =
            ["Catch", "Choices"].map(|key| state.get(key).and_then(Value::as_array).cloned());
        for (key, entries) in ["Catch", "Choices"].into_iter().zip(entries) {
            let Some(mut entries) = entries else { continue };
            for entry in &mut entries {
                entry["Next"] = json!(last);
            }
            state[key] = Value::Array(entries);
        }
        if state["Type"] == "Choice" && at + 1 < count {
            state["Default"] = json!(format!("S{}", at + 2));
        }
        row.push(state);
    }
    row.push(json!({"Type": "Pass", "Parameters": {"end.$": "$", "v.$": "$v"}}));
    machine(&row)
}

/// Whatever is translated without a finding, by chance or not, ends the same.
#[test]
fn definitions_by_chance_end_as_they_did() {
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(state(), 1..5).prop_map(definition);
    let (mut whole, mut total) = (0, 0);
    for _ in 0..400 {
        let tree = strategy.new_tree(&mut runner).expect("a definition");
        let definition = proptest::strategy::ValueTree::current(&tree);
        let all = cases(&definition.to_string(), &definition);
        let imported = import(&all[0]);
        assert!(
            imported.cdl.is_some(),
            "{definition}: {:?}",
            imported.diagnostics
        );
        total += 1;
        if !imported.findings.is_empty() {
            continue;
        }
        whole += 1;
        for case in all {
            check(&case, &imported).unwrap_or_else(|wrong| panic!("{definition}\n{wrong}"));
        }
    }
    println!("by chance, translated whole: {whole} of {total}");
    assert!(whole * 4 > total, "only {whole} of {total} say anything");
}
