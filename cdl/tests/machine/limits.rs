//! Bounds, and events that cannot be.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::limits::{
    self, MAX_BRANCHES, MAX_CONTEXT_BYTES, MAX_DEPTH, MAX_EVENTS, MAX_FRAMES, MAX_HELD_BYTES,
    MAX_STEPS, STEP_BYTES,
};
use cascade_cdl::program::StateKind;
use cascade_cdl::{ApplyError, Event, EventKind, Execution, SEMANTICS, Status, apply};
use serde_json::{Value, json};

use crate::compile::{compile, compile_value};
use crate::transcript::{Run, START, completed, failed, id, json as text, tenant};

/// The error that a run ended by.
fn error(run: &Run) -> &str {
    match &run.execution.status {
        Status::Failed { failure } => &failure.error,
        other => panic!("not failed but {other:?}"),
    }
}

fn started(workflow: &Value, input: &Value) -> Run {
    let mut run = Run::new(compile_value(workflow));
    run.start(input.clone().into());
    run
}

#[test]
fn a_loop_that_never_waits_is_ended_past_every_catch() {
    let workflow = json!({"states": [
        {"name": "P", "type": "Parallel", "catch": [{"error": "*", "next": "P"}], "branches": [
            {"name": "b", "states": [
                {"name": "A", "type": "Pass", "next": "B"},
                {"name": "B", "type": "Pass", "next": "A"},
            ]},
        ]},
    ]});
    let mut run = started(&workflow, &Value::Null);
    assert_eq!(error(&run), "StepLimitExceeded");
    run.apply(EventKind::RetryRequested {});
    assert_eq!(error(&run), "StepLimitExceeded");
    run.check_replay();
}

#[test]
fn expressions_that_take_long_count_as_many_steps() {
    let workflow = json!({"states": [
        {"name": "A", "type": "Pass", "parameters": "{{ $.workflow.input | upper | length }}", "result": "$.n", "next": "A"},
    ]});
    let mut evaluations = 0;
    for size in [10, 3_000_000] {
        let mut run = Run::new(compile_value(&workflow));
        let lines = run.start(json!("x".repeat(size)).into());
        assert_eq!(error(&run), "StepLimitExceeded");
        let exits = lines.iter().filter(|line| line.starts_with("exit")).count();
        // A step of an expression reads 64 bytes, 64 of them make one of the
        // machine: 3 MB take about 700.
        assert!(
            evaluations == 0 || exits < evaluations / 100,
            "{exits} of {evaluations}"
        );
        evaluations = exits;
    }
}

/// An evaluation in ASL counts a sixteenth of its steps, so that it ends neither the
/// first time nor as late as one that costs nothing.
#[test]
fn evaluations_in_asl_count_as_well() {
    let rounds = |expression: &str| {
        let definition = json!({"StartAt": "A", "QueryLanguage": "JSONata", "States": {
            "A": {"Type": "Pass", "Output": expression, "Next": "A"}}});
        let mut run = Run::new(compile(&definition.to_string()));
        let lines = run.start(text("1"));
        assert_eq!(error(&run), "StepLimitExceeded");
        lines.iter().filter(|line| line.starts_with("exit")).count()
    };
    let cheap = rounds("{% 1 %}");
    let dear = rounds("{% $sum($map([1..5000], function($v) { $v + 1 })) %}");
    assert!(cheap > 2_000, "{cheap}");
    assert!((10..1_000).contains(&dear), "{dear}");
}

/// A history that ran into one has to run into it again: other values ask for a new
/// `SEMANTICS`. Expected values: those that histories have met.
#[test]
fn the_bounds_are_what_histories_have_met() {
    assert_eq!((limits::MAX_STEPS, limits::STEP_BYTES), (4_096, 4_096));
    assert_eq!(limits::EXPRESSION_STEPS, 64);
    assert_eq!(limits::MAX_CONTEXT_BYTES, 4_194_304);
    assert_eq!(limits::MAX_HELD_BYTES, 33_554_432);
    assert_eq!(limits::SMALL_BYTES, 32_768);
    assert_eq!((limits::MAX_FRAMES, limits::MAP_FRAMES), (1_024, 512));
    assert_eq!(limits::MAX_INBOX_BYTES, 4_194_304);
    assert_eq!(limits::MAX_WAIT_MS, 315_360_000_000, "ten years");
    assert_eq!(
        (limits::MAX_EVENTS, limits::COMPENSATION_EVENTS),
        (25_000, 25_000)
    );
    assert_eq!(
        (limits::MAX_ITEMS, limits::MAX_COMPENSATIONS),
        (10_000, 10_000)
    );
}

/// Lets a state run over `input` until it is ended. Each time it looks at `bytes`
/// of data, of which none need be copied.
#[track_caller]
fn looks_at(state: &Value, input: &Value, bytes: usize) {
    let mut state = state.clone();
    state["name"] = json!("A");
    if state["type"] != "Choice" {
        state["next"] = json!("A");
    }
    let mut run = Run::new(compile_value(&json!({"states": [state]})));
    let lines = run.start(input.clone().into());
    assert_eq!(error(&run), "StepLimitExceeded");
    let rounds = lines.iter().filter(|line| line.starts_with("exit")).count();
    let looked = rounds as u64 * bytes as u64;
    // The last round is told before it fails, and the first may be for nothing.
    let most = 2 * MAX_STEPS * STEP_BYTES;
    assert!(
        looked <= most,
        "{rounds} times {bytes} bytes of at most {most}"
    );
}

#[test]
fn data_that_is_only_looked_at_counts() {
    let pass = |parameters: &str| json!({"type": "Pass", "parameters": parameters});
    // Keys that differ only at their end.
    let key = |n: usize| format!("{}{n}", "k".repeat(20_000));
    let object: Value = (0..9)
        .map(|n| (key(n), json!(n)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let keys = 9 * 20_000;
    let input = json!({"a": object, "b": object, "list": [object], "key": key(8)});
    for (expression, bytes) in [
        ("$.workflow.input.a == $.workflow.input.b", keys),
        ("$.workflow.input.a[$.workflow.input.key]", 20_000),
        ("$.workflow.input.key in $.workflow.input.a", 20_000),
        ("$.workflow.input.list | map: $.workflow.input.key", 20_000),
        ("$.workflow.input.list | sum: $.workflow.input.key", 20_000),
        (
            "$.workflow.input.list | where: $.workflow.input.key, 1",
            20_000,
        ),
        ("$.workflow.input.a | values", keys),
        (
            "$.workflow.input.a | merge: $.workflow.input.b | length",
            keys,
        ),
    ] {
        looks_at(&pass(&format!("{{{{ {expression} }}}}")), &input, bytes);
    }
    let mut far = pass("{{ 1 }}");
    far["result"] = json!(format!("$['{}']", key(1)));
    looks_at(&far, &Value::Null, 20_000);
    // The room that is left holds the text once more, not twice, so that the
    // context is measured each time.
    let mut full = pass(&"x".repeat(200));
    full["result"] = json!("$.x");
    let size = usize::try_from(MAX_CONTEXT_BYTES).expect("small") - 700;
    looks_at(&full, &json!("x".repeat(size)), size);
}

#[test]
fn conditions_that_do_not_hold_count() {
    let never = json!({"condition": "{{ false }}", "next": "A"});
    let state = json!({"type": "Choice", "choices": vec![never; 1_000], "default": "A"});
    // Each is a value of 16 bytes.
    looks_at(&state, &Value::Null, 16_000);
}

#[test]
fn names_that_do_not_match_count() {
    let names: Vec<_> = (0..8_000).map(|n| format!("E{n}")).collect();
    let branch = json!({"name": "b", "type": "Fail", "error": "Other"});
    let mut run = started(
        &json!({"states": [{
            "name": "A", "type": "Parallel", "branches": [branch],
            "catch": [{"error": names, "next": "A"}, {"error": "*", "next": "A"}],
        }]}),
        &Value::Null,
    );
    assert_eq!(error(&run), "StepLimitExceeded");
    // A frame, an evaluation and an event's worth of numbers each.
    assert!(run.execution.next_id < 1_000, "{}", run.execution.next_id);
    run.apply(EventKind::RetryRequested {});
    assert_eq!(error(&run), "StepLimitExceeded");
}

#[test]
fn an_output_that_does_not_fit_its_event_is_given_after_a_retry() {
    let mut run = started(
        &json!({"states": [
            {"name": "Large", "type": "Pass", "parameters": "{{ $.workflow.input }}", "result": "$.large", "next": "Zero"},
            {"name": "Zero", "type": "Pass", "parameters": 0, "result": "$.n", "next": "Task"},
            {"name": "Task", "type": "Task", "parameters": 1, "next": "Count"},
            {"name": "Count", "type": "Pass", "parameters": "{{ $.n + 1 }}", "result": "$.n", "next": "More"},
            {"name": "More", "type": "Choice", "default": "End", "choices": [
                {"condition": "{{ $.n < 1800 }}", "next": "Count"},
            ]},
            {"name": "End", "type": "Pass"},
        ]}),
        &json!("x".repeat(1 << 20)),
    );
    let task = run.only_task();
    run.apply(completed(task.task, 1, text("null")));
    assert_eq!(error(&run), "StepLimitExceeded");
    run.apply(EventKind::RetryRequested {});
    let Status::Completed { output } = &run.execution.status else {
        panic!("not completed: {:?}", run.execution.status);
    };
    assert_eq!(
        output.to_value(),
        json!({"n": 1_800, "large": "x".repeat(1 << 20)})
    );
    run.check_replay();
}

#[test]
fn a_history_ends_at_its_limit() {
    let program = compile("states: [{ name: A, type: Task, parameters: 1, next: A }]");
    let mut execution = Execution::new(id(), tenant());
    let mut kind = EventKind::ExecutionStarted {
        input: text("null"),
        shards: 10,
        machine: SEMANTICS,
        parent: None,
        schedule: None,
        shard_key: None,
        priority: None,
        labels: BTreeMap::new(),
    };
    while !execution.is_closed() {
        let seq = execution.version + 1;
        let event = Event {
            seq,
            at: START,
            kind,
        };
        execution = apply(&program, execution, &event)
            .expect("it follows")
            .execution;
        let Some(task) = execution.pending_tasks(&program).pop() else {
            break;
        };
        kind = completed(task.task, task.attempt, text("null"));
    }
    assert_eq!(execution.version, MAX_EVENTS);
    let Status::Failed { failure } = &execution.status else {
        panic!("not failed: {:?}", execution.status);
    };
    assert_eq!(failure.error, "HistoryLimitExceeded");
    let retry = Event {
        seq: execution.version + 1,
        at: START,
        kind: EventKind::RetryRequested {},
    };
    let after = apply(&program, execution.clone(), &retry).expect("it follows");
    assert_eq!(
        (after.execution.status, after.commands),
        (execution.status, vec![])
    );
}

#[test]
fn a_context_grows_to_its_limit_and_what_was_overwritten_does_not_count() {
    let task = |name: &str, path: &str, next: &str| {
        json!({
            "name": name, "type": "Task", "parameters": 1, "result": path, "next": next,
            "catch": [{"error": "ContextTooLarge", "next": "Caught"}],
        })
    };
    let states = |path: &str| {
        json!({"states": [
            task("A", path, "B"), task("B", "$.b", "C"), task("C", "$.b", "Fits"),
            {"name": "Fits", "type": "Succeed", "output": "fits"},
            {"name": "Caught", "type": "Succeed", "output": "caught"},
        ]})
    };
    // Two of these fit, three do not.
    let size = usize::try_from(MAX_CONTEXT_BYTES * 2 / 5).expect("small");
    let large = text(&format!("\"{}\"", "x".repeat(size)));
    for (path, expected) in [("$.a", "\"caught\""), ("$.b", "\"fits\"")] {
        let mut run = started(&states(path), &Value::Null);
        while !run.execution.is_closed() {
            let task = run.only_task();
            run.apply(completed(task.task, task.attempt, large.clone()));
        }
        let Status::Completed { output } = &run.execution.status else {
            panic!("not completed: {:?}", run.execution.status);
        };
        assert_eq!(output.as_str(), expected, "{path}");
    }
}

#[test]
fn an_input_that_cannot_be_held_fails_the_execution_for_good() {
    let deep = format!("{}{}", "[".repeat(99), "]".repeat(99));
    let bottomless = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let large = format!(
        "\"{}\"",
        "x".repeat(usize::try_from(MAX_CONTEXT_BYTES).expect("small"))
    );
    for input in [&deep, &bottomless, &large, "1e999"] {
        let mut run = Run::new(compile("states: [{ name: A, type: Task }]"));
        run.start(text(input));
        assert_eq!(error(&run), "InvalidInput");
        run.apply(EventKind::RetryRequested {});
        assert_eq!(error(&run), "InvalidInput");
    }
}

#[test]
fn a_context_is_filled_to_its_last_byte() {
    let workflow = json!({"states": [{"name": "A", "type": "Task", "parameters": 1, "result": "$.a", "next": "B"},
        {"name": "B", "type": "Task", "parameters": 1}]});
    for (more, fits) in [(0, true), (1, false)] {
        let mut run = started(&workflow, &Value::Null);
        let room = MAX_CONTEXT_BYTES - run.execution.context_bytes + more;
        let output = "x".repeat(usize::try_from(room).expect("small") - 2);
        let task = run.only_task();
        run.apply(completed(task.task, 1, json!(output).into()));
        if fits {
            assert_eq!(run.execution.status, Status::Running);
            assert_eq!(run.execution.context_bytes, MAX_CONTEXT_BYTES);
        } else {
            assert_eq!(error(&run), "ContextTooLarge");
        }
    }
}

#[test]
fn an_input_may_be_as_large_and_as_deep_as_the_context_holds() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let size = usize::try_from(MAX_CONTEXT_BYTES).expect("small");
    let large = format!("\"{}\"", "x".repeat(size - 2));
    // Values have 100 levels, and it stands two levels deep.
    for input in [&deep(98), &large] {
        let mut run = Run::new(compile("states: [{ name: A, type: Task, parameters: 1 }]"));
        run.start(text(input));
        assert_eq!(run.execution.status, Status::Running);
    }
    let mut run = Run::new(compile("states: [{ name: A, type: Task }]"));
    run.start(text(&deep(99)));
    let Status::Failed { failure } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    let message = "the input is nested deeper than 98 levels";
    assert_eq!(failure.message, message);
}

#[test]
fn an_output_that_cannot_be_read_fails_only_where_it_is_put() {
    let bottomless = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let workflow = json!({"states": [
        {"name": "A", "type": "Task", "parameters": 1, "next": "B"},
        {"name": "B", "type": "Task", "parameters": 1, "result": "$.b"},
    ]});
    for output in [&bottomless, "[1e999]"] {
        let mut run = started(&workflow, &Value::Null);
        let task = run.only_task();
        run.apply(completed(task.task, 1, text(output)));
        let task = run.only_task();
        run.apply(completed(task.task, 1, text(output)));
        assert_eq!(error(&run), "ExpressionError");
        run.check_replay();
    }
}

#[test]
fn what_frames_hold_is_bounded() {
    // Each branch of 1 MiB context; the bound is eight contexts of 4 MiB.
    let size = usize::try_from(MAX_CONTEXT_BYTES / 4).expect("small");
    let branches = |count: u64| -> Value {
        let branch = |n| json!({"name": format!("b{n}"), "type": "Task"});
        json!({"states": [{
            "name": "P", "type": "Parallel", "branches": (0..count).map(branch).collect::<Vec<_>>(),
        }]})
    };
    let input = json!("x".repeat(size));
    let fitting = MAX_HELD_BYTES / (MAX_CONTEXT_BYTES / 4) - 1;
    let run = started(&branches(fitting), &input);
    assert_eq!(run.execution.status, Status::Running);
    let run = started(&branches(fitting + 1), &input);
    assert_eq!(error(&run), "ContextTooLarge");
}

#[test]
fn frames_are_bounded_in_number_and_depth() {
    let task = |name: String| json!({"name": name, "type": "Task", "parameters": 1});
    let parallel = |name: &str, branches: Vec<Value>| json!({"name": name, "type": "Parallel", "branches": branches});
    let wide = |name: &str, count: usize| {
        let branches = (0..count).map(|n| task(format!("t{n}"))).collect();
        parallel(name, branches)
    };
    let many = |count: usize| {
        let branches = (0..count)
            .map(|n| wide(&format!("P{n}"), MAX_BRANCHES - 1))
            .collect();
        parallel("Many", branches)
    };
    let four = |last: usize| {
        let mut branches: Vec<_> = (1..4)
            .map(|n| wide(&format!("P{n}"), MAX_BRANCHES))
            .collect();
        branches.push(wide("P4", last));
        parallel("Four", branches)
    };
    let nested =
        |depth: usize| (0..depth).fold(task("t".to_owned()), |inner, _| parallel("N", vec![inner]));
    for (state, fits) in [
        (wide("P", MAX_BRANCHES), true),
        (many(MAX_FRAMES / MAX_BRANCHES - 1), true),
        (many(MAX_FRAMES / MAX_BRANCHES + 1), false),
        // The root, four branches, and theirs: 1,024 and one more.
        (four(251), true),
        (four(252), false),
        (nested(MAX_DEPTH), true),
        (nested(MAX_DEPTH + 1), false),
    ] {
        let run = started(&json!({"states": [state]}), &Value::Null);
        if fits {
            assert_eq!(run.execution.status, Status::Running);
        } else {
            assert_eq!(error(&run), "FrameLimitExceeded");
        }
    }
}

/// The front end refuses such a program; the machine does not rely on it.
#[test]
fn branches_are_bounded() {
    let branch = |n| json!({"name": format!("t{n}"), "type": "Task", "parameters": 1});
    let branches: Vec<_> = (0..MAX_BRANCHES).map(branch).collect();
    let workflow = json!({"states": [{"name": "P", "type": "Parallel", "branches": branches}]});
    let mut program = Arc::unwrap_or_clone(compile_value(&workflow));
    for state in &mut program.states {
        if let StateKind::Parallel { branches, .. } = &mut state.kind {
            branches.push(branches[0]);
        }
    }
    let mut run = Run::new(program.into());
    run.start(text("null"));
    assert_eq!(error(&run), "FrameLimitExceeded");
}

#[test]
fn events_that_cannot_follow_are_refused() {
    let program = compile("states: [{ name: A, type: Task, parameters: 1 }]");
    let start = |machine| EventKind::ExecutionStarted {
        input: text("null"),
        shards: 10,
        machine,
        parent: None,
        schedule: None,
        shard_key: None,
        priority: None,
        labels: BTreeMap::new(),
    };
    let event = |seq, kind| Event {
        seq,
        at: START,
        kind,
    };
    let new = || Execution::new(id(), tenant());
    let running = apply(&program, new(), &event(1, start(SEMANTICS)))
        .expect("the first event")
        .execution;

    let refused = |execution: Execution, event: Event| {
        apply(&program, execution, &event).expect_err("it cannot follow")
    };
    let cancel = || EventKind::CancelRequested {
        reason: String::new(),
    };
    let execution = id();
    assert_eq!(
        refused(running.clone(), event(3, cancel())),
        ApplyError::OutOfOrder {
            execution,
            expected: 2,
            seq: 3
        }
    );
    assert_eq!(
        refused(running.clone(), event(2, start(SEMANTICS))),
        ApplyError::Start { execution, seq: 2 }
    );
    assert_eq!(
        refused(new(), event(1, cancel())),
        ApplyError::Start { execution, seq: 1 }
    );
    assert_eq!(
        refused(new(), event(1, start(SEMANTICS + 1))),
        ApplyError::NewerMachine {
            execution,
            recorded: SEMANTICS + 1
        }
    );

    // An execution that meets another program says so instead of guessing.
    let task = running.pending_tasks(&program).pop().expect("one task");
    let outcome = |kind| event(2, kind);
    let other = compile("states: [{ name: A, type: Fail, error: E }]");
    for kind in [
        completed(task.task, 1, text("null")),
        failed(task.task, 1, "E", None),
    ] {
        let refused = apply(&other, running.clone(), &outcome(kind)).expect_err("another program");
        assert!(matches!(refused, ApplyError::Mismatch { .. }), "{refused}");
    }
}

#[test]
fn time_never_runs_backwards() {
    let program = compile(
        r"
        states:
          - { name: A, type: Task, parameters: 1, next: W }
          - { name: W, type: Wait, duration: 1s }
        ",
    );
    let mut run = Run::new(program);
    run.pass_time(10_000);
    run.start(text("null"));
    let task = run.only_task();
    let early = Event {
        seq: 2,
        at: START,
        kind: completed(task.task, 1, text("null")),
    };
    let after = apply(&run.program, run.execution.clone(), &early).expect("it follows");
    assert_eq!(after.execution.wake_at(), Some(START.plus(11_000)));
}
