//! Random definitions in the Amazon States Language: all types of states, in
//! both query languages, nested.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A field that is not there; `null` means something in ASL.
const ABSENT: &str = "absent";

/// A resource that passes its token on, which tests bind.
pub(super) const CALLED: &str = "arn:aws:states:::sqs:sendMessage.waitForTaskToken";

/// The resource of item readers, which tests bind.
pub(super) const READER: &str = "arn:aws:states:::s3:getObject";

fn one_of(values: Value) -> BoxedStrategy<Value> {
    let Value::Array(values) = values else {
        panic!("not a list");
    };
    prop::sample::select(values).boxed()
}

/// An object of fields, those that are absent left out.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            let entries = names.iter().zip(values);
            let given = entries.filter(|(_, value)| *value != ABSENT);
            let entries: Map<_, _> = given.map(|(k, v)| ((*k).to_owned(), v)).collect();
            Value::Object(entries)
        })
        .boxed()
}

fn fixed(value: Value) -> BoxedStrategy<Value> {
    Just(value).boxed()
}

fn part() -> BoxedStrategy<Value> {
    one_of(json!([ABSENT, ABSENT, "$", "$.a", null]))
}

fn result_path() -> BoxedStrategy<Value> {
    one_of(json!([ABSENT, "$", "$.a", "$.b.c", null]))
}

fn payload() -> BoxedStrategy<Value> {
    one_of(json!([
        ABSENT,
        ABSENT,
        {"k": 1},
        {"x.$": "$.a"},
        {"a": 2, "items": [[1], {}, null]},
        {"items.$": "$.items", "a": 2},
        {"a": 1, "items.$": "States.ArrayRange(1, 3, 1)"},
        {"u.$": "States.UUID()", "r.$": "States.MathRandom(1, 100)"},
        {"c.$": "$$.State.EnteredTime", "r.$": "$$.State.RetryCount"},
        {"v.$": "$v"},
    ]))
}

/// Values in JSONata; `of` is what a state has beside its input.
fn query(of: &[&str]) -> BoxedStrategy<Value> {
    let mut values = vec![
        json!(ABSENT),
        json!({"a": 1, "items": [1, 2]}),
        json!("{% $states.input %}"),
        json!({"a": "{% $states.input.a + 1 %}", "items": "{% [1..3] %}"}),
        json!({"a": 1, "u": "{% $uuid() %}", "r": "{% $random() %}", "t": "{% $now() %}"}),
        json!("{% $states.context.State.Name & $string($v) %}"),
    ];
    values.extend(of.iter().map(|text| json!(text)));
    prop::sample::select(values).boxed()
}

fn assign(is_query: bool) -> BoxedStrategy<Value> {
    if is_query {
        one_of(json!([ABSENT, {"v": 1}, {"v": "{% $states.input %}"}]))
    } else {
        one_of(json!([ABSENT, {"v": 1}, {"v.$": "$"}, {"w.$": "$"}]))
    }
}

fn retry() -> BoxedStrategy<Value> {
    one_of(json!([
        ABSENT,
        [{"ErrorEquals": ["NetworkError"], "IntervalSeconds": 1, "MaxAttempts": 2, "JitterStrategy": "FULL"}],
        [{"ErrorEquals": ["States.Timeout"], "BackoffRate": 1.5},
         {"ErrorEquals": ["States.TaskFailed"], "MaxAttempts": 0}],
        [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1, "MaxDelaySeconds": 2}],
    ]))
}

fn catch(is_query: bool) -> BoxedStrategy<Value> {
    if is_query {
        return one_of(json!([
            ABSENT,
            [{"ErrorEquals": ["Declined"], "Output": "{% $states.errorOutput %}"}],
            [{"ErrorEquals": ["States.ALL"], "Assign": {"v": "{% $states.errorOutput.Error %}"}}],
        ]));
    }
    one_of(json!([
        ABSENT,
        [{"ErrorEquals": ["Declined"]}],
        [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.b.c"}],
        [{"ErrorEquals": ["States.ALL"], "ResultPath": null, "Assign": {"v.$": "$.Error"}}],
    ]))
}

/// Fields of states that give a result.
fn results(is_query: bool) -> Vec<(&'static str, BoxedStrategy<Value>)> {
    let mut fields = vec![
        ("Assign", assign(is_query)),
        ("Retry", retry()),
        ("Catch", catch(is_query)),
    ];
    if is_query {
        let of = ["{% $states.result %}", "{% {'a': $states.result.n} %}"];
        fields.push(("Output", query(&of)));
    } else {
        let selector = one_of(json!([ABSENT, ABSENT, {"a": 1, "items.$": "$"}, {"a.$": "$.n"}]));
        fields.extend([
            ("InputPath", part()),
            ("OutputPath", part()),
            ("ResultPath", result_path()),
            ("ResultSelector", selector),
        ]);
    }
    fields
}

fn task(is_query: bool) -> BoxedStrategy<Value> {
    let mut fields = results(is_query);
    fields.extend([
        ("Type", fixed(json!("Task"))),
        (
            "Resource",
            one_of(json!([
                "urn:cascade:activity:do",
                "arn:aws:lambda:x:1:function:f",
                CALLED
            ])),
        ),
    ]);
    fields.extend(if is_query {
        [
            ("Arguments", query(&[])),
            (
                "TimeoutSeconds",
                one_of(json!([ABSENT, 3, "{% $states.input.a %}"])),
            ),
            ("HeartbeatSeconds", one_of(json!([ABSENT, 1]))),
        ]
    } else {
        [
            ("Parameters", payload()),
            ("TimeoutSeconds", one_of(json!([ABSENT, 3]))),
            ("HeartbeatSeconds", one_of(json!([ABSENT, 1]))),
        ]
    });
    object(fields)
}

/// States that only compute, wait or end.
fn simple(is_query: bool) -> BoxedStrategy<Value> {
    if is_query {
        let output = || query(&[]);
        let seconds = one_of(json!([0, 2, 60, "{% $states.input.a %}"]));
        let condition = one_of(json!([
            "{% true %}",
            "{% $states.input.a = 1 %}",
            "{% $states.input.a %}"
        ]));
        let choice = (condition, assign(true)).prop_map(|(condition, assign)| {
            let mut rule = json!({"Condition": condition});
            if assign != ABSENT {
                rule["Assign"] = assign;
            }
            json!({"Type": "Choice", "Choices": [rule]})
        });
        return prop_oneof![
            object(vec![
                ("Type", fixed(json!("Pass"))),
                ("Output", output()),
                ("Assign", assign(true))
            ]),
            object(vec![
                ("Type", fixed(json!("Wait"))),
                ("Seconds", seconds),
                ("Output", output())
            ]),
            choice,
            object(vec![
                ("Type", fixed(json!("Fail"))),
                ("Error", one_of(json!(["Declined", "{% $v %}"])))
            ]),
        ]
        .boxed();
    }
    let pass = object(vec![
        ("Type", fixed(json!("Pass"))),
        ("InputPath", part()),
        ("Parameters", payload()),
        ("ResultPath", result_path()),
        ("Assign", assign(false)),
    ]);
    let given = object(vec![
        ("Type", fixed(json!("Pass"))),
        (
            "Result",
            one_of(json!([{"a": 1, "items": [1, 2, 3]}, [1, 2], null])),
        ),
        ("ResultPath", result_path()),
    ]);
    let wait = prop_oneof![
        one_of(json!([0, 2, 60])).prop_map(|seconds| json!({"Type": "Wait", "Seconds": seconds})),
        fixed(json!({"Type": "Wait", "SecondsPath": "$.a"})),
    ];
    let choice = one_of(json!([
        {"Variable": "$.a", "NumericEquals": 1},
        {"Variable": "$.a", "IsPresent": true},
        {"Not": {"Variable": "$.items", "IsPresent": true}},
        {"Variable": "$.a.b", "BooleanEquals": true},
    ]))
    .prop_map(|rule| json!({"Type": "Choice", "Choices": [rule]}));
    let fail =
        fixed(json!({"Type": "Fail", "Error": "Declined", "CausePath": "States.Format('{}', $)"}));
    prop_oneof![2 => pass, 1 => given, 1 => wait, 1 => choice, 1 => fail].boxed()
}

/// A Parallel or Map state over lists of states.
fn nested(is_query: bool, depth: u32) -> BoxedStrategy<Value> {
    let mut fields = results(is_query);
    fields.extend([
        ("Type", fixed(json!("Parallel"))),
        (
            "Branches",
            prop::collection::vec(states(depth - 1), 1..4)
                .prop_map(Value::from)
                .boxed(),
        ),
        if is_query {
            ("Arguments", query(&[]))
        } else {
            ("Parameters", payload())
        },
    ]);
    let parallel = object(fields);
    let map = |distributed: bool| {
        let mut fields = results(is_query);
        fields.extend([
            ("Type", fixed(json!("Map"))),
            (
                "ItemProcessor",
                states(depth - 1).prop_map(Value::from).boxed(),
            ),
            ("MaxConcurrency", one_of(json!([ABSENT, 1, 2]))),
            ("ToleratedFailureCount", one_of(json!([ABSENT, 1]))),
            ("ToleratedFailurePercentage", one_of(json!([ABSENT, 34]))),
        ]);
        let selector = if is_query {
            query(&["{% $states.context.Map.Item.Value %}"])
        } else {
            one_of(json!([
                ABSENT,
                {"a.$": "$$.Map.Item.Index", "i.$": "$$.Map.Item.Value"},
            ]))
        };
        fields.push(("ItemSelector", selector));
        fields.push(match (distributed, is_query) {
            (true, _) => (
                "ItemReader",
                one_of(json!([ABSENT, {
                    "Resource": READER, "ReaderConfig": {"InputType": "JSON", "MaxItems": 2},
                }])),
            ),
            (false, true) => (
                "Items",
                one_of(json!([ABSENT, [1, 2, 3], "{% $states.input.items %}", []])),
            ),
            (false, false) => (
                "ItemsPath",
                one_of(json!([ABSENT, "$.items", "$.items[0:2]", "$.a"])),
            ),
        });
        if distributed {
            fields.push((
                "ItemBatcher",
                one_of(json!([ABSENT, {"MaxItemsPerBatch": 2}])),
            ));
        }
        object(fields).prop_map(move |mut state| {
            state["mode"] = json!(if distributed { "DISTRIBUTED" } else { "INLINE" });
            state
        })
    };
    prop_oneof![2 => parallel, 2 => map(false), 1 => map(true)].boxed()
}

fn state(depth: u32) -> BoxedStrategy<Value> {
    let of = move |is_query: bool| -> BoxedStrategy<Value> {
        if depth == 0 {
            prop_oneof![2 => task(is_query), 2 => simple(is_query)].boxed()
        } else {
            prop_oneof![2 => task(is_query), 2 => simple(is_query), 2 => nested(is_query, depth)]
                .boxed()
        }
    };
    // A nested scope has the language of the state around it, unless told.
    any::<bool>()
        .prop_flat_map(move |is_query| {
            of(is_query).prop_map(move |mut state| {
                let language = if is_query { "JSONata" } else { "JSONPath" };
                state["QueryLanguage"] = json!(language);
                state
            })
        })
        .boxed()
}

/// A list of states, as a list yet.
fn states(depth: u32) -> BoxedStrategy<Vec<Value>> {
    prop::collection::vec(state(depth), 1..4).boxed()
}

/// A scope of the states: names that no other state has, each leading to the
/// next and, for errors and rules, to the last, which succeeds.
fn scope(states: Vec<Value>, prefix: &str) -> Value {
    // Nothing would lead to what comes after a Fail state.
    let end = states.iter().position(|state| state["Type"] == "Fail");
    let count = end.map_or(states.len(), |at| at + 1);
    let last = format!("{prefix}Z");
    let mut named = Map::new();
    let mut needs_last = false;
    for (at, mut state) in states.into_iter().take(count).enumerate() {
        let name = format!("{prefix}{at}");
        let next = if at + 1 < count {
            format!("{prefix}{}", at + 1)
        } else {
            last.clone()
        };
        for entry in ["Catch", "Choices"] {
            for entry in state
                .get_mut(entry)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                entry["Next"] = json!(last);
                needs_last = true;
            }
        }
        match state["Type"].as_str() {
            Some("Choice") => state["Default"] = json!(next),
            Some("Fail") => {}
            _ => {
                state["Next"] = json!(next);
                needs_last |= next == last;
            }
        }
        if let Some(Value::Array(branches)) = state.get_mut("Branches").map(Value::take) {
            let scopes = branches.into_iter().enumerate();
            let branch =
                |(branch, states)| scope(list(states), &format!("{name}{}", letter(branch)));
            state["Branches"] = scopes.map(branch).collect();
        }
        if let Some(Value::Array(inner)) = state.get_mut("ItemProcessor").map(Value::take) {
            let mut processor = scope(inner, &format!("{name}i"));
            processor["ProcessorConfig"] = if state["mode"] == "INLINE" {
                json!({"Mode": "INLINE"})
            } else {
                json!({"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"})
            };
            state["ItemProcessor"] = processor;
        }
        let entries = state.as_object_mut().expect("a state is an object");
        entries.remove("mode");
        named.insert(name, state);
    }
    if needs_last {
        named.insert(last, json!({"Type": "Succeed"}));
    }
    json!({"StartAt": format!("{prefix}0"), "States": named})
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn letter(branch: usize) -> char {
    ['a', 'b', 'c', 'd'][branch % 4]
}

/// A definition that ends. Its first state gives the variable that others ask for.
pub(super) fn definition() -> impl Strategy<Value = Value> {
    (states(2), one_of(json!([ABSENT, 10]))).prop_map(|(mut states, timeout)| {
        states.insert(0, json!({"Type": "Pass", "Assign": {"v": 1}}));
        let mut definition = scope(states, "S");
        if timeout != ABSENT {
            definition["TimeoutSeconds"] = timeout;
        }
        definition
    })
}
