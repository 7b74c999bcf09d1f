//! What holds for every program and every order of events.
//!
//! `Run::apply` checks after each event that snapshots and observers change
//! nothing, that pending tasks are what was commanded, that what runs waits
//! for something, and that what has ended stays quiet.

use cascade_cdl::{EventKind, Status, Step};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::compile::compile_value;
use crate::transcript::{Run, completed, failed, json as text, signal};

/// Errors that activities of the tests return: retried, not retried, caught or not.
const ERRORS: [&str; 4] = [
    "NetworkError",
    "ValidationError",
    "Declined",
    "AuthorizedError",
];

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
            }
            // A Choice or a catch at the end would lead to itself, for ever.
            let last = states.last_mut().expect("at least one");
            last["catch"] = Value::Null;
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
        json!("{{ $.a }}"),
    ]);
    let undo = |parameters: Value| json!({"resource": "urn:cascade:activity:undo", "parameters": parameters});
    let compensate = prop::sample::select(vec![
        json!(null),
        undo(json!(null)),
        undo(json!("{{ null | uuid }}")),
        undo(json!("{{ $.a }}")),
    ]);
    let task = (
        result.clone(),
        catch.clone(),
        timeout,
        jitter,
        parameters.clone(),
        compensate,
        1..4_u32,
    )
        .prop_map(
            |(result, catch, timeout, jitter, parameters, compensate, attempts)| {
                json!({
                    "type": "Task", "result": result, "catch": catch, "timeout": timeout,
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
        "{{ $.a == 1 }}",
        "{{ $.a }}",
    ]);
    let choice = condition
        .prop_map(|condition| json!({"type": "Choice", "choices": [{"condition": condition}]}));
    let wait = prop::sample::select(vec!["{{ 0 }}", "2s", "1m"])
        .prop_map(|duration| json!({"type": "Wait", "duration": duration}));
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

/// A state that waits for a signal or an answer.
fn outside(
    result: impl Strategy<Value = Value> + Clone + 'static,
    catch: impl Strategy<Value = Value> + Clone + 'static,
) -> impl Strategy<Value = Value> {
    let event = (prop::sample::select(vec!["a", "b"]), result.clone(), catch.clone()).prop_map(
        |(event, result, catch)| json!({"type": "EventTask", "event": event, "timeout": "4s", "result": result, "catch": catch}),
    );
    let escalate = prop::sample::select(vec![
        json!(null),
        json!([{"after": "1s", "assignee": "boss"}, {"after": "2s", "assignee": "{{ $.a }}"}]),
    ]);
    let human = (escalate, result, catch).prop_map(|(escalate, result, catch)| {
        json!({
            "type": "HumanTask", "assignee": "ann", "timeout": "5s", "escalate": escalate,
            "result": result, "catch": catch,
        })
    });
    prop_oneof![event, human]
}

/// A Map over what may not be a list, with iterations that see their items.
fn map(depth: u32) -> impl Strategy<Value = Value> {
    let items = prop::sample::select(vec!["{{ [1, 2, 3] }}", "{{ [] }}", "{{ $.a }}"]);
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

fn workflow() -> impl Strategy<Value = Value> {
    let timeout = prop::sample::select(vec![json!(null), json!("10s")]);
    let output = prop::sample::select(vec![json!(null), json!("{{ $.a }}")]);
    (states(2), timeout, output).prop_map(
        |(states, timeout, output)| json!({"states": states, "timeout": timeout, "output": output}),
    )
}

/// What the world does next; numbers choose among what is possible.
#[derive(Debug, Clone)]
enum Move {
    Complete(usize),
    Fail(usize, usize),
    Pass(u64),
    Signal(bool, Option<u8>),
    Answer(usize),
    Repeat(usize),
    Cancel,
    Retry,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        8 => any::<usize>().prop_map(Move::Complete),
        4 => (any::<usize>(), 0..ERRORS.len()).prop_map(|(at, error)| Move::Fail(at, error)),
        4 => (0..20_000_u64).prop_map(Move::Pass),
        3 => (any::<bool>(), prop::option::of(0..4_u8)).prop_map(|(a, id)| Move::Signal(a, id)),
        2 => any::<usize>().prop_map(Move::Answer),
        2 => any::<usize>().prop_map(Move::Repeat),
        1 => Just(Move::Retry),
    ];
    let end = prop_oneof![4 => Just(None), 1 => Just(Some(Move::Cancel))];
    (prop::collection::vec(one, 0..40), end).prop_map(|(mut moves, end)| {
        moves.extend(end);
        moves
    })
}

fn make(run: &mut Run, next: &Move) {
    let chosen = |run: &Run, at: usize| {
        let count = run.outstanding.len();
        (count > 0).then(|| {
            run.outstanding
                .keys()
                .nth(at % count)
                .copied()
                .expect("one of them")
        })
    };
    match next {
        Move::Complete(at) => {
            if let Some((task, attempt)) = chosen(run, *at) {
                run.apply(completed(task, attempt, text("{\"n\":1}")));
            }
        }
        Move::Fail(at, error) => {
            if let Some((task, attempt)) = chosen(run, *at) {
                run.apply(failed(task, attempt, ERRORS[*error], None));
            }
        }
        Move::Pass(millis) => {
            run.pass_time(*millis);
            run.fire_due_timers();
        }
        Move::Signal(a, id) => {
            let id = id.map(|id| id.to_string());
            let name = if *a { "a" } else { "b" };
            let taken = run
                .execution
                .accepts_signal(&run.program, name, &text("1"), id.as_deref());
            let told = run.apply(signal(name, text("1"), id.as_deref()));
            assert_eq!(taken.is_ok(), !told[0].starts_with("ignored"), "{told:?}");
        }
        Move::Answer(at) => answer(run, *at),
        Move::Repeat(at) => repeat(run, *at),
        Move::Cancel => {
            run.apply(EventKind::CancelRequested {
                reason: "enough".to_owned(),
            });
        }
        Move::Retry => {
            run.apply(EventKind::RetryRequested {});
        }
    }
}

/// Somebody does one of the things that are asked for.
fn answer(run: &mut Run, at: usize) {
    let frames = run.execution.frames.values();
    let asked: Vec<_> = frames
        .filter_map(|frame| match &frame.step {
            Step::Asking(asking) => Some(asking.task),
            _ => None,
        })
        .collect();
    if !asked.is_empty() {
        run.apply(EventKind::HumanTaskCompleted {
            task: asked[at % asked.len()],
            output: text("{\"n\":2}"),
            by: "ann".to_owned(),
        });
    }
}

/// An earlier outcome or timer arrives again: nothing but the version changes.
fn repeat(run: &mut Run, at: usize) {
    let event = run.history[at % run.history.len()].kind.clone();
    let repeats = match &event {
        EventKind::ExecutionStarted { .. } | EventKind::RetryRequested {} => false,
        // Without an id it is another one, and what was refused may be taken now.
        EventKind::SignalReceived { id, .. } => {
            let seen = &run.execution.inbox.seen;
            id.as_ref()
                .is_some_and(|id| seen.iter().any(|seen| seen.id == *id))
        }
        _ => true,
    };
    if !repeats {
        return;
    }
    let before = run.execution.clone();
    let told = run.apply(event);
    assert!(
        told.len() == 1 && told[0].starts_with("ignored"),
        "{told:?}"
    );
    let mut after = run.execution.clone();
    after.version = before.version;
    after.updated_at = before.updated_at;
    assert_eq!(before, after, "a repeated event changes something");
}

/// Delivers all that is awaited, well. Each round ends an attempt or a pause
/// of each frame, so what does not loop ends soon.
fn drain(run: &mut Run) {
    for _ in 0..200 {
        if run.execution.is_closed() {
            return;
        }
        let awaited: Vec<_> = run.outstanding.keys().copied().collect();
        for (task, attempt) in awaited {
            if run.execution.awaits(task, attempt) {
                run.apply(completed(task, attempt, text("1")));
            }
        }
        if let Some(at) = run.execution.wake_at().filter(|_| run.execution.is_idle()) {
            run.pass_until(at);
            run.fire_due_timers();
        }
    }
    panic!("it does not end: {:?}", run.execution);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_execution_keeps_its_promises_and_ends(workflow in workflow(), moves in moves()) {
        let mut run = Run::new(compile_value(&workflow));
        run.start(text("{}"));
        for next in &moves {
            make(&mut run, next);
        }
        drain(&mut run);
        prop_assert!(run.execution.is_closed());
        run.check_replay();
        if let Status::Failed { .. } | Status::TimedOut { .. } = run.execution.status {
            run.apply(EventKind::RetryRequested {});
            drain(&mut run);
        }
        run.apply(EventKind::CancelRequested { reason: "late".to_owned() });
        drain(&mut run);
        run.check_replay();
    }
}
