//! The memory that one event makes, whatever the program and its input; alone
//! in its process, so that what is counted is its own.
//!
//! Bytes are counted, not time: an event that makes no more than it was charged
//! for keeps nobody waiting for long, on any machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use cascade_cdl::limits::{MAX_STEPS, STEP_BYTES};
use cascade_cdl::program::Program;
use cascade_cdl::{
    ActivityFailure, Event, EventKind, Execution, Json, Receipt, SEMANTICS, Source, Status,
    Timestamp, apply, parse,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Memory that an event may make, in bytes, for each byte that it may count.
/// A text grows by doubling and is kept in a copy of the right size; a list
/// of small numbers is several times its text.
const MADE_PER_BYTE: u64 = 8;

/// The same for each byte that it brings, which is read once: a small object
/// takes a node of a map with room for eleven entries.
const MADE_PER_BYTE_READ: u64 = 96;

thread_local! {
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread asks for.
struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MADE.set(MADE.get() + layout.size() as u64);
        // SAFETY: the caller keeps to what `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to what `dealloc` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        MADE.set(MADE.get() + size as u64);
        // SAFETY: the caller keeps to what `realloc` asks for.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn compile(states: &Value) -> Program {
    let bytes = json!({"workflows": {"test": {"states": states}}}).to_string();
    let parsed = parse(&Source {
        name: "test.yaml",
        bytes: bytes.as_bytes(),
    });
    let problems = parsed.diagnostics;
    let application = parsed.application;
    let application = application.unwrap_or_else(|| panic!("{problems:#?}"));
    application.workflows["test"].as_ref().clone()
}

/// Applies the next event, which brings `brought` bytes, and checks what it made.
#[track_caller]
fn step(program: &Program, execution: Execution, kind: EventKind, brought: usize) -> Execution {
    let event = Event {
        seq: execution.version + 1,
        at: Timestamp(1_769_851_800_000),
        kind,
    };
    let before = MADE.get();
    let after = apply(program, execution, &event).expect("the event can follow");
    let made = MADE.get() - before;
    let allowed = MADE_PER_BYTE * MAX_STEPS * STEP_BYTES + MADE_PER_BYTE_READ * brought as u64;
    assert!(
        made <= allowed,
        "one event made {made} bytes, allowed are {allowed}"
    );
    after.execution
}

#[track_caller]
fn start(program: &Program, input: &Json) -> Execution {
    let execution = Execution::new(
        "0190163d-8694-739b-aea5-966c26f8ad91"
            .parse()
            .expect("a UUID"),
        "acme".parse().expect("a tenant"),
    );
    let started = EventKind::ExecutionStarted {
        input: input.clone(),
        shards: 10,
        machine: SEMANTICS,
        parent: None,
        schedule: None,
        shard_key: None,
        priority: None,
        labels: BTreeMap::new(),
    };
    step(program, execution, started, input.len())
}

/// Lets `states`, which never wait, run over `input`.
#[track_caller]
fn check(states: &Value, input: &Json) {
    let ended = start(&compile(states), input);
    let Status::Failed { failure } = ended.status else {
        panic!("not failed");
    };
    // Some fill the context before.
    let bounds = ["StepLimitExceeded", "ContextTooLarge"];
    assert!(bounds.contains(&failure.error.as_str()), "{failure:?}");
}

/// A list with this many bytes of text.
fn list(item: &str, bytes: usize) -> Json {
    let items = vec![item; bytes / (item.len() + 1)];
    Json::parse(format!("[{}]", items.join(","))).expect("JSON")
}

/// What takes most for its length: small numbers, objects, strings and lists,
/// numbers that are written longer than they were read, and text.
fn inputs(bytes: usize) -> [Json; 5] {
    [
        list("0", bytes),
        list(r#"{"a":0}"#, bytes),
        list(r#"["",[]]"#, bytes),
        list("1e15", bytes),
        Json::from_value(&json!("x".repeat(bytes))),
    ]
}

const INPUT: &str = "{{ $.workflow.input }}";

fn pass(parameters: &Value) -> Value {
    json!([{"name": "A", "type": "Pass", "parameters": parameters, "next": "A"}])
}

/// Runs `branch`, whatever comes of it, again and again.
fn again(branch: &Value) -> Value {
    json!([{
        "name": "A", "type": "Parallel", "branches": [branch], "result": "$.out", "next": "A",
        "catch": [{"error": "*", "result": "$.out", "next": "A"}],
    }])
}

/// As [`again`], where nothing looks at what the branch gives.
fn again_unseen(branch: &Value) -> Value {
    json!([{
        "name": "A", "type": "Parallel", "branches": [branch], "next": "A",
        "catch": [{"error": "*", "next": "A"}],
    }])
}

#[test]
fn copying_over_and_over_is_charged() {
    let mut kept = pass(&json!(INPUT));
    kept[0]["result"] = json!("$.copy");
    let pass_end = json!({"name": "b", "type": "Pass", "parameters": INPUT, "end": true});
    let succeed = json!({"name": "b", "type": "Succeed", "output": INPUT});
    let fail = json!({"name": "b", "type": "Fail", "error": "E", "message": INPUT});
    let named = json!({"name": "b", "type": "Fail", "error": INPUT});
    let mut programs = vec![pass(&json!(INPUT)), kept];
    for branch in [pass_end, succeed, fail, named] {
        programs.extend([again(&branch), again_unseen(&branch)]);
    }
    for states in &programs {
        for input in &inputs(1 << 18) {
            check(states, input);
        }
    }
}

#[test]
fn what_the_program_itself_holds_is_charged() {
    let long = |n| format!("{}{n}", "k".repeat(50_000));
    let keys: Map<_, _> = (0..8).map(|n| (long(n), json!("{{ 1 }}"))).collect();
    for parameters in [
        json!(vec![json!({"a": 0}); 30_000]),
        json!(format!("{{{{ 1 }}}}{}", "x".repeat(60_000))),
        Value::Object(keys),
    ] {
        check(&pass(&parameters), &Json::from_value(&json!(1)));
    }
}

#[test]
fn a_conversion_of_what_is_converted_already_copies_nothing() {
    let text = Json::from_value(&json!("x".repeat(1 << 20)));
    let strings = " | string".repeat(400);
    check(
        &pass(&json!(format!(
            "{{{{ $.workflow.input | upper{strings} }}}}"
        ))),
        &text,
    );
}

/// Each branch changes the context, and then gives all of it to a task.
#[test]
fn writing_out_the_context_for_each_branch_is_charged() {
    let branch = |n| {
        json!({"name": format!("b{n}"), "states": [
            {"name": "P", "type": "Pass", "parameters": 1, "result": format!("$.r{n}"), "next": "T"},
            {"name": "T", "type": "Task", "resource": "urn:cascade:activity:test", "end": true},
        ]})
    };
    let branches: Vec<_> = (0..256).map(branch).collect();
    let states = json!([{"name": "A", "type": "Parallel", "branches": branches, "end": true}]);
    for input in inputs(1 << 20) {
        check(&states, &input);
    }
}

/// What many events brought is joined by the last one, level by level.
#[test]
fn joining_what_branches_hold_is_charged() {
    let branch = |n| {
        json!({
            "name": format!("b{n}"), "type": "Task", "parameters": 1, "end": true,
            "resource": "urn:cascade:activity:test",
        })
    };
    let parallel = |branches: Value| json!({"name": "P", "type": "Parallel", "branches": branches, "end": true});
    let branches = (0..30).map(branch).collect();
    let states = (0..14).fold(parallel(branches), |inner, _| parallel(json!([inner])));
    let program = compile(&json!([states]));
    let output = Json::from_value(&json!("x".repeat(1 << 20)));
    let mut execution = start(&program, &Json::from_value(&json!(1)));
    while let Some(task) = execution.pending_tasks(&program).pop() {
        let completed = EventKind::ActivityCompleted {
            task: task.task,
            attempt: task.attempt,
            output: output.clone(),
            receipt: Receipt::default(),
        };
        execution = step(&program, execution, completed, output.len());
    }
    let Status::Failed { failure } = execution.status else {
        panic!("not failed");
    };
    assert_eq!(failure.error, "StepLimitExceeded");
}

fn each(items: &str, states: &Value) -> Value {
    json!([{
        "name": "A", "type": "Map", "items": items, "max_concurrency": 256, "next": "A",
        "iterator": {"states": states}, "result": "$.out", "tolerated_failure_percentage": 100,
    }])
}

/// Items are written out, read again, given to tasks and put together.
#[test]
fn iterations_over_large_lists_are_charged() {
    let pass = json!([{"name": "b", "type": "Pass", "parameters": "{{ map.item }}", "end": true}]);
    let fail = json!([{"name": "b", "type": "Fail", "error": "E", "message": "{{ map.item }}"}]);
    let nested = json!([{
        "name": "B", "type": "Pass", "parameters": 1, "result": "$.workflow_input.x", "next": "C",
    }, {
        "name": "C", "type": "Pass", "parameters": "{{ $ }}", "end": true,
    }]);
    for states in [&pass, &fail, &nested] {
        for input in &inputs(1 << 18) {
            // One item of all, and one for each of its own where it is a list.
            check(&each("{{ [$.workflow.input] }}", states), input);
        }
        check(&each(INPUT, states), &list("0", 1 << 13));
        check(&each(INPUT, states), &list(r#"{"a":0}"#, 1 << 15));
    }
}

/// Each iteration copies the object that it writes into.
#[test]
fn what_iterations_copy_from_outside_is_charged() {
    let write =
        json!([{"name": "W", "type": "Pass", "parameters": 1, "result": "$.large.x", "end": true}]);
    let mut states = each("{{ $.workflow.input.items }}", &write);
    let first = json!({
        "name": "First", "type": "Pass", "parameters": "{{ $.workflow.input }}",
        "result": "$.large", "next": "A",
    });
    states.as_array_mut().expect("a list").insert(0, first);
    let items: Vec<_> = (0..2_000).collect();
    check(&states, &json!({"items": items}).into());
}

/// Each branch fails with what an event brought, and all are put together.
#[test]
fn joining_what_branches_failed_with_is_charged() {
    let task = |n| {
        json!({
            "name": format!("b{n}"), "type": "Task", "parameters": 1, "end": true,
            "resource": "urn:cascade:activity:test", "retries": {"max_attempts": 1},
        })
    };
    let branches: Vec<_> = (0..30).map(task).collect();
    let settled = |branches: Value| {
        json!({
            "name": "P", "type": "Parallel", "branches": branches, "end": true,
            "completion_strategy": "ALL_SETTLED",
        })
    };
    let states = (0..14).fold(settled(json!(branches)), |inner, _| settled(json!([inner])));
    let program = compile(&json!([states]));
    let mut execution = start(&program, &Json::from_value(&json!(1)));
    while let Some(task) = execution.pending_tasks(&program).pop() {
        let failed = EventKind::ActivityFailed {
            task: task.task,
            attempt: task.attempt,
            failure: ActivityFailure {
                error: "E".to_owned(),
                message: "x".repeat(1 << 20),
                retryable: Some(false),
                details: None,
            },
            receipt: None,
        };
        execution = step(&program, execution, failed, 1 << 20);
    }
    let Status::Failed { failure } = execution.status else {
        panic!("not failed");
    };
    assert_eq!(failure.error, "StepLimitExceeded");
}

/// A value of any shape, as text.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\]{0,40}".prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,20}", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Expressions that make something of what is in the context.
const EXPRESSIONS: [&str; 12] = [
    "{{ $.workflow.input }}",
    "{{ $ }}",
    "{{ $.x | default: $.workflow.input }}",
    "{{ [$.workflow.input, 1] }}",
    "{{ $.workflow.input | json }}",
    "{{ $.workflow.input | json | from_json }}",
    "{{ $.workflow.input | values }}",
    "{{ $.workflow.input | unique }}",
    "{{ $.workflow.input | reverse }}",
    "{{ $.workflow.input == $.x }}",
    "{{ $.none }}",
    "text {{ $.workflow.input }}",
];

fn state() -> impl Strategy<Value = Value> {
    let expression = || prop::sample::select(EXPRESSIONS.to_vec());
    let result = || prop::sample::select(vec!["$.x", "$.y"]);
    prop_oneof![
        (expression(), result()).prop_map(
            |(made, result)| json!({"type": "Pass", "parameters": made, "result": result})
        ),
        expression().prop_map(|made| json!({"type": "Pass", "parameters": made})),
        (expression(), result()).prop_map(|(made, result)| json!({
            "type": "Map", "items": made, "max_concurrency": 8, "result": result,
            "iterator": {"states": [
                {"name": "W", "type": "Pass", "parameters": "{{ map.item }}", "result": "$.x.y", "next": "S"},
                {"name": "S", "type": "Succeed", "output": "{{ $.x }}"},
            ]},
        })),
        (expression(), result()).prop_map(|(made, result)| json!({
            "type": "Parallel", "result": result,
            "branches": [{"name": "b", "type": "Succeed", "output": made}],
        })),
        (expression(), result()).prop_map(|(made, result)| json!({
            "type": "Parallel", "result": result,
            "branches": [{"name": "b", "type": "Fail", "error": "E", "message": made}],
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_loop_of_any_states_makes_no_more_than_it_may(
        states in prop::collection::vec(state(), 1..5),
        item in value(),
        size in 1_usize..200_000,
    ) {
        let count = states.len();
        let states: Vec<_> = states
            .into_iter()
            .enumerate()
            .map(|(at, mut state)| {
                let next = format!("S{}", (at + 1) % count);
                if state["type"] == "Parallel" || state["type"] == "Map" {
                    state["catch"] = json!([{"error": "*", "result": "$.x", "next": next}]);
                }
                state["name"] = json!(format!("S{at}"));
                state["next"] = json!(next);
                state
            })
            .collect();
        start(&compile(&json!(states)), &list(&item.to_string(), size));
    }
}
