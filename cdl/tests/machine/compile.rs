//! Compiles the CDL that these tests use, without a front end, so that a test
//! of the machine fails for the machine's reasons only.

use std::sync::Arc;

use cascade_cdl::duration::parse_ms;
use cascade_cdl::expression::{Path, Template};
use cascade_cdl::program::{
    Catch, Jitter, Next, Program, Resource, RetryPolicy, Scope, ScopeId, State, StateId, StateKind,
    Task, Until, Way,
};
use serde_json::Value;

/// A workflow in YAML: `timeout`, `output`, `states`.
pub(crate) fn compile(text: &str) -> Program {
    let workflow: Value = serde_yaml::from_str(text).expect("the test's YAML is well-formed");
    compile_value(&workflow)
}

/// The same as a value.
pub(crate) fn compile_value(workflow: &Value) -> Program {
    let mut program = Program {
        name: "test".to_owned(),
        scopes: Vec::new(),
        states: Vec::new(),
        timeout_ms: millis(&workflow["timeout"]),
        output: template(&workflow["output"]),
    };
    add_scope(&mut program, "test", None, &workflow["states"]);
    program
}

fn add_scope(program: &mut Program, name: &str, owner: Option<StateId>, states: &Value) -> ScopeId {
    let states = states.as_array().expect("a scope has states");
    let index = |at: usize| u32::try_from(at).expect("a test is small");
    let scope = ScopeId(index(program.scopes.len()));
    let first = index(program.states.len());
    program.scopes.push(Scope {
        name: name.to_owned(),
        start: StateId(first),
        owner,
    });
    for state in states {
        program.states.push(State {
            name: text(&state["name"]).into(),
            scope,
            kind: StateKind::Succeed { output: None },
        });
    }
    let named = |name: &Value| {
        let at = states.iter().position(|state| state["name"] == *name);
        StateId(first + index(at.unwrap_or_else(|| panic!("no state {name}"))))
    };
    for (at, state) in states.iter().enumerate() {
        let id = StateId(first + index(at));
        let kind = kind(program, id, state, &named);
        program.states[id.0 as usize].kind = kind;
    }
    scope
}

fn kind(
    program: &mut Program,
    id: StateId,
    state: &Value,
    named: &dyn Fn(&Value) -> StateId,
) -> StateKind {
    let next = match &state["next"] {
        Value::Null => Next::End,
        name => Next::State(named(name)),
    };
    let result = state["result"].as_str().map(path);
    let catch = list(&state["catch"]).iter().map(|entry| Catch {
        errors: match &entry["error"] {
            Value::String(name) => vec![name.clone()],
            names => list(names).iter().map(text).collect(),
        },
        result: entry["result"].as_str().map(path),
        next: named(&entry["next"]),
    });
    let catch = catch.collect();
    match state["type"].as_str().expect("a state has a type") {
        "Task" => StateKind::Task(Task {
            resource: Resource {
                name: state["name"].as_str().map(Arc::from).expect("a name"),
                version: None,
                region: None,
            },
            parameters: template(&state["parameters"]),
            result,
            timeout_ms: millis(&state["timeout"]),
            heartbeat_ms: millis(&state["heartbeat"]),
            retries: retries(&state["retries"]),
            catch,
            next,
        }),
        "Pass" => StateKind::Pass {
            parameters: template(&state["parameters"]),
            result,
            next,
        },
        "Choice" => StateKind::Choice {
            choices: list(&state["choices"])
                .iter()
                .map(|way| Way {
                    condition: template(&way["condition"]).expect("a condition"),
                    next: named(&way["next"]),
                })
                .collect(),
            default: Some(&state["default"])
                .filter(|name| !name.is_null())
                .map(named),
        },
        "Parallel" => StateKind::Parallel {
            branches: list(&state["branches"])
                .iter()
                .map(|branch| {
                    let single = Value::Array(vec![branch.clone()]);
                    let states = branch.get("states").unwrap_or(&single);
                    add_scope(program, &text(&branch["name"]), Some(id), states)
                })
                .collect(),
            result,
            catch,
            next,
        },
        "Wait" => StateKind::Wait {
            until: match template(&state["duration"]) {
                Some(duration) => Until::Duration(duration),
                None => Until::Timestamp(template(&state["until"]).expect("a time")),
            },
            next,
        },
        "Succeed" => StateKind::Succeed {
            output: template(&state["output"]),
        },
        "Fail" => StateKind::Fail {
            error: template(&state["error"]).expect("an error"),
            message: template(&state["message"]),
        },
        other => panic!("no state type {other}"),
    }
}

fn retries(value: &Value) -> RetryPolicy {
    let policy = RetryPolicy::default();
    let attempts = value["max_attempts"].as_u64();
    RetryPolicy {
        max_attempts: attempts.map_or(policy.max_attempts, |n| u32::try_from(n).expect("small")),
        initial_interval_ms: millis(&value["initial_interval"])
            .unwrap_or(policy.initial_interval_ms),
        max_interval_ms: millis(&value["max_interval"]).unwrap_or(policy.max_interval_ms),
        multiplier: value["multiplier"].as_f64().unwrap_or(policy.multiplier),
        jitter: match value["jitter"].as_str() {
            None => Jitter::None,
            Some("full") => Jitter::Full,
            Some(other) => panic!("no jitter {other}"),
        },
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn millis(value: &Value) -> Option<u64> {
    value
        .as_str()
        .map(|text| parse_ms(text).expect("a duration"))
}

fn path(text: &str) -> Path {
    Path::parse(text).expect("a path")
}

/// None for an absent key.
fn template(value: &Value) -> Option<Template> {
    (!value.is_null()).then(|| Template::from_value(value).expect("a template"))
}
