//! Random programs in CDL: all types of states and all strategies, nested.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Stands for the last state of a list until the list is there.
const LAST: &str = "the last";

/// How a Task runs a workflow instead of an activity, if it does.
const CHILDREN: [Option<(bool, &str)>; 4] =
    [None, None, Some((true, "cancel")), Some((false, "abandon"))];

/// A list of states, each with a way to the next; nested up to `depth`.
fn states(depth: u32) -> BoxedStrategy<Vec<Value>> {
    prop::collection::vec(state(depth), 1..4)
        .prop_map(|mut states| {
            let count = states.len();
            for (at, state) in states.iter_mut().enumerate() {
                state["name"] = json!(format!("S{at}"));
                let next = format!("S{}", (at + 1).min(count - 1));
                if at + 1 < count && state["type"] != "Choice" && state["type"] != "Fail" {
                    state["next"] = json!(next);
                }
                if let Some(choices) = state.get_mut("choices").filter(|c| c.is_array()) {
                    choices[0]["next"] = json!(next);
                    state["default"] = json!(format!("S{}", count - 1));
                }
                if let Some(catch) = state.get_mut("catch").filter(|c| c.is_array()) {
                    catch[0]["next"] = json!(format!("S{}", count - 1));
                }
                if state["on_timeout"] == LAST {
                    state["on_timeout"] = json!(format!("S{}", count - 1));
                }
            }
            // A Choice or a catch at the end would lead to itself, for ever.
            let last = states.last_mut().expect("at least one");
            last["catch"] = Value::Null;
            last["on_timeout"] = Value::Null;
            if last["type"] == "Choice" {
                *last = json!({"type": "Succeed", "name": last["name"]});
            }
            states
        })
        .boxed()
}

fn state(depth: u32) -> BoxedStrategy<Value> {
    let result = prop::sample::select(vec![
        json!(null),
        json!("$.a"),
        json!("$.b.c"),
        json!("$.a.d"),
    ]);
    let errors = prop::sample::select(vec![
        json!(null),
        json!("*"),
        json!(["Declined", "AuthorizationError"]),
    ]);
    let catch = (errors, result.clone()).prop_map(|(errors, result)| match errors {
        Value::Null => Value::Null,
        errors => json!([{"error": errors, "result": result}]),
    });
    let timeout = prop::sample::select(vec![json!(null), json!("3s")]);
    let jitter = prop::sample::select(vec![json!(null), json!("full")]);
    let parameters = prop::sample::select(vec![
        json!(null),
        json!(1),
        json!("{{ null | uuid }}"),
        json!("{{ $.a | default: [1, 2] }}"),
        json!("{{ $.a }}"),
    ]);
    let task = (
        result.clone(),
        catch.clone(),
        timeout,
        jitter,
        parameters.clone(),
        compensation(),
        1..4_u32,
        prop::sample::select(CHILDREN.to_vec()),
    )
        .prop_map(
            |(result, catch, timeout, jitter, parameters, compensate, attempts, child)| {
                json!({
                    "type": "Task", "child": child, "result": result, "catch": catch, "timeout": timeout,
                    "parameters": parameters, "compensate": compensate,
                    "retries": {"max_attempts": attempts, "backoff": {"jitter": jitter}},
                })
            },
        );
    let pass = (result.clone(), parameters).prop_map(
        |(result, parameters)| json!({"type": "Pass", "result": result, "parameters": parameters}),
    );
    let condition = prop::sample::select(vec![
        "{{ true }}",
        "{{ false }}",
        "{{ ($.a | default: 1) == 1 }}",
        "{{ $.a }}",
    ]);
    let choice = condition
        .prop_map(|condition| json!({"type": "Choice", "choices": [{"condition": condition}]}));
    let wait = prop::sample::select(vec![
        json!({"type": "Wait", "duration": "{{ 0 }}"}),
        json!({"type": "Wait", "duration": "2s"}),
        json!({"type": "Wait", "duration": "1m"}),
        json!({"type": "Wait", "until": "2026-01-31T09:30:04Z"}),
        json!({"type": "Wait", "until": "{{ $.a }}"}),
    ]);
    let fail = Just(json!({"type": "Fail", "error": "Declined"}));
    let leaf = prop_oneof![
        6 => task, 2 => pass, 1 => choice, 2 => wait, 1 => fail, 2 => outside(result.clone(), catch.clone()),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let branches = prop::collection::vec(states(depth - 1), 1..4);
    let strategy = prop::sample::select(vec![
        json!(null),
        json!("ANY"),
        json!("N_OF_M"),
        json!("ALL_SETTLED"),
    ]);
    let parallel =
        (branches, strategy, result, catch).prop_map(|(branches, strategy, result, catch)| {
            let branch = |(at, states): (usize, Vec<Value>)| {
                let states: Vec<_> = states.into_iter().map(|state| own(state, at)).collect();
                json!({"name": format!("b{at}"), "states": states})
            };
            let branches: Vec<_> = branches.into_iter().enumerate().map(branch).collect();
            let required = (strategy == "N_OF_M").then(|| branches.len().div_ceil(2));
            json!({
                "type": "Parallel", "branches": branches, "result": result, "catch": catch,
                "completion_strategy": strategy, "required": required,
            })
        });
    prop_oneof![3 => leaf, 2 => parallel, 2 => map(depth)].boxed()
}

/// What undoes a Task, if anything does.
fn compensation() -> impl Strategy<Value = Value> {
    let parameters = prop::sample::select(vec![
        json!(null),
        json!("{{ null | uuid }}"),
        json!("{{ $.a | default: [1, 2] }}"),
        json!("{{ $.a }}"),
    ]);
    let timeout = prop::sample::select(vec![json!(null), json!("3s")]);
    let undo = (parameters, timeout, 1..3_u32).prop_map(|(parameters, timeout, attempts)| {
        json!({
            "resource": "urn:cascade:activity:undo", "parameters": parameters,
            "timeout": timeout, "retries": {"max_attempts": attempts},
        })
    });
    prop_oneof![1 => Just(Value::Null), 3 => undo]
}

/// A state that waits for a signal or an answer.
fn outside(
    result: impl Strategy<Value = Value> + Clone + 'static,
    catch: impl Strategy<Value = Value> + Clone + 'static,
) -> impl Strategy<Value = Value> {
    let on_timeout = prop::sample::select(vec![json!(null), json!(LAST)]);
    let name = prop::sample::select(vec!["a", "b"]);
    let event = (name, result.clone(), catch.clone(), on_timeout.clone()).prop_map(
        |(event, result, catch, on_timeout)| {
            json!({
                "type": "EventTask", "event": event, "timeout": "4s", "on_timeout": on_timeout,
                "result": result, "catch": catch,
            })
        },
    );
    let escalate = prop::sample::select(vec![
        json!(null),
        json!([{"after": "1s", "assignee": "boss"}, {"after": "2s", "assignee": "{{ $.a }}"}]),
    ]);
    let human =
        (escalate, result, catch, on_timeout).prop_map(|(escalate, result, catch, on_timeout)| {
            json!({
                "type": "HumanTask", "assignee": "ann", "timeout": "5s", "escalate": escalate,
                "on_timeout": on_timeout, "result": result, "catch": catch,
            })
        });
    prop_oneof![event, human]
}

/// A Map over what may not be a list, with iterations that see their items.
fn map(depth: u32) -> impl Strategy<Value = Value> {
    let items = prop::sample::select(vec![
        "{{ [1, 2, 3] }}",
        "{{ [1, 2] }}",
        "{{ [] }}",
        "{{ $.a | default: [[1], 2] }}",
    ]);
    let concurrency = prop::sample::select(vec![1, 2, 256]);
    let batch = prop::sample::select(vec![json!(null), json!({"size": 2})]);
    let tolerance = prop::sample::select(vec![json!(null), json!(0), json!(1), json!(34)]);
    let result = prop::sample::select(vec![json!(null), json!("$.a"), json!("$.b.c")]);
    let errors = prop::sample::select(vec![json!(null), json!("*"), json!("Declined")]);
    let states = states(depth - 1);
    (items, concurrency, batch, tolerance, result, errors, states).prop_map(
        |(items, concurrency, batch, tolerance, result, errors, mut states)| {
            if let Some(task) = states.iter_mut().find(|state| state["type"] == "Task") {
                task["parameters"] = json!("{{ [map.item, map.index] }}");
            }
            let catch = match errors {
                Value::Null => Value::Null,
                errors => json!([{"error": errors, "result": "$.b.c"}]),
            };
            json!({
                "type": "Map", "items": items, "iterator": {"states": states},
                "max_concurrency": concurrency, "batch": batch, "result": result, "catch": catch,
                "tolerated_failure_percentage": tolerance,
            })
        },
    )
}

/// Gives the branch with this number result paths of its own.
fn own(value: Value, branch: usize) -> Value {
    match value {
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| match value.as_str() {
                Some(path) if key == "result" => {
                    (key, json!(path.replacen("$.", &format!("$.b{branch}"), 1)))
                }
                _ => (key, own(value, branch)),
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| own(item, branch)).collect(),
        other => other,
    }
}

/// Gives each Task, and what undoes it, an activity of its own: `do_N` and `undo_N`.
fn number(value: &mut Value, count: &mut usize) {
    if let Some(items) = value.as_array_mut() {
        for item in items {
            number(item, count);
        }
    }
    if let Some(entries) = value.as_object_mut() {
        if entries.get("type").is_some_and(|kind| kind == "Task") {
            *count += 1;
            let child = entries.remove("child").unwrap_or_default();
            let resource = if child.is_null() {
                format!("urn:cascade:activity:do_{count}")
            } else {
                entries.insert("wait".to_owned(), child[0].clone());
                entries.insert("parent_close_policy".to_owned(), child[1].clone());
                format!("urn:cascade:workflow:other/do_{count}")
            };
            entries.insert("resource".to_owned(), json!(resource));
            if let Some(undo) = entries.get_mut("compensate").filter(|undo| !undo.is_null()) {
                undo["resource"] = json!(format!("urn:cascade:activity:undo_{count}"));
            }
        }
        for entry in entries.values_mut() {
            number(entry, count);
        }
    }
}

/// A workflow that ends, or one whose last state leads to its first.
pub(super) fn workflow(ends: bool) -> impl Strategy<Value = Value> {
    let timeout = prop::sample::select(vec![json!(null), json!("10s")]);
    let output = prop::sample::select(vec![
        json!(null),
        json!("{{ $.a | default: 1 }}"),
        json!("{{ $.a }}"),
    ]);
    (states(2), timeout, output).prop_map(move |(mut states, timeout, output)| {
        let last = states.last_mut().expect("at least one");
        if !ends && last["type"] != "Fail" && last["type"] != "Succeed" {
            last["next"] = json!("S0");
        }
        let mut workflow = json!({"states": states, "timeout": timeout, "output": output});
        number(&mut workflow, &mut 0);
        workflow
    })
}

/// A workflow with states that nothing leads to before those that it has, in
/// every list of them.
pub(super) fn with_more_states(mut workflow: Value) -> Value {
    if workflow["start"].is_null() {
        workflow["start"] = json!("S0");
    }
    let unused = json!({"name": "Unused", "type": "Pass"});
    let states = workflow["states"].as_array_mut().expect("a list");
    states.insert(0, unused);
    workflow
}

/// A change of a workflow: what, and of which of its states.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    Set(&'static str, &'static str, usize),
    /// A Pass state that gives a result before one of the workflow's own.
    Insert(usize),
    Rename(usize),
    /// It only passes on.
    Empty(usize),
}

pub(super) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let fields = prop::sample::select(vec![
        ("resource", r#""urn:cascade:activity:do_0""#),
        ("timeout", r#""7s""#),
        ("parameters", r#""{{ $.new }}""#),
        ("parameters", "2"),
        ("compensate", "null"),
        ("compensate", r#"{"resource":null,"parameters":7}"#),
        ("completion_strategy", r#""ALL_SETTLED""#),
        ("batch", r#"{"size":3}"#),
        ("max_concurrency", "1"),
        ("tolerated_failure_percentage", "50"),
        ("escalate", "null"),
        ("on_timeout", "null"),
        ("event", r#""b""#),
        ("duration", r#""3s""#),
        ("catch", "null"),
        ("parent_close_policy", r#""abandon""#),
    ]);
    let edit = prop_oneof![
        4 => (fields, any::<usize>()).prop_map(|((key, value), at)| Edit::Set(key, value, at)),
        1 => any::<usize>().prop_map(Edit::Insert),
        1 => any::<usize>().prop_map(Edit::Rename),
        1 => any::<usize>().prop_map(Edit::Empty),
    ];
    prop::collection::vec(edit, 1..3)
}

/// A workflow after edits; those that fit none of its states change nothing.
pub(super) fn edited(mut workflow: Value, edits: &[Edit]) -> Value {
    for edit in edits {
        match edit {
            Edit::Set(key, value, at) => {
                let mut value: Value = serde_json::from_str(value).expect("JSON");
                // `required` goes with N_OF_M only, and `undo_N` with `do_N`.
                let fits = |state: &Value| {
                    let keeps = *key == "resource" && !state["compensate"].is_null();
                    let is_bound = state["completion_strategy"] == "N_OF_M";
                    state.get(*key).is_some() && !keeps && !is_bound
                };
                if let Some(state) = pick(&mut workflow, *at, &fits) {
                    // Whatever undoes `do_N` is `undo_N`.
                    if let (Some(undo), Some(name)) =
                        (value.get_mut("resource"), state["resource"].as_str())
                    {
                        let name = name.replace("workflow:other/do_", "activity:do_");
                        *undo = json!(name.replace(":do_", ":undo_"));
                    }
                    let runs_child = !state["parent_close_policy"].is_null();
                    if *key == "resource" && runs_child {
                        value = json!("urn:cascade:workflow:other/do_0");
                    }
                    state[*key] = value;
                }
            }
            Edit::Insert(at) => {
                let states = workflow["states"].as_array_mut().expect("a list");
                let at = at % states.len();
                let mut next = states[at]["name"].clone();
                if at > 0 && states[at - 1]["next"] == next {
                    states[at - 1]["next"] = json!("New");
                } else if at > 0 {
                    next = states[0]["name"].clone();
                }
                let new = json!({
                    "name": "New", "type": "Pass", "parameters": 1, "result": "$.new", "next": next,
                });
                // One at a time: the name is taken then.
                if !states.iter().any(|state| state["name"] == "New") {
                    states.insert(at, new);
                }
            }
            Edit::Rename(at) => {
                let text = workflow.to_string();
                let name = format!("\"S{}\"", at % 3);
                let text = text.replace(&name, &format!("\"R{}\"", at % 3));
                workflow = serde_json::from_str(&text).expect("JSON");
            }
            Edit::Empty(at) => {
                if let Some(state) = pick(&mut workflow, *at, &|state| state["type"] != "Choice") {
                    *state = json!({"name": state["name"], "type": "Pass", "next": state["next"]});
                }
            }
        }
    }
    workflow
}

/// One of the states that fit.
fn pick<'v>(
    value: &'v mut Value,
    at: usize,
    fits: &dyn Fn(&Value) -> bool,
) -> Option<&'v mut Value> {
    fn all<'v>(
        value: &'v mut Value,
        fits: &dyn Fn(&Value) -> bool,
        found: &mut Vec<&'v mut Value>,
    ) {
        let is_state = value.get("type").is_some_and(Value::is_string) && fits(value);
        // Of a state that fits nothing inside is taken, so that none is borrowed twice.
        if is_state {
            found.push(value);
            return;
        }
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| all(item, fits, found)),
            Value::Object(map) => map.values_mut().for_each(|item| all(item, fits, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    all(value, fits, &mut found);
    let count = found.len();
    (count > 0).then(|| found.swap_remove(at % count))
}
