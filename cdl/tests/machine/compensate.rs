//! Compensation of what was done.

use cascade_cdl::limits::{
    COMPENSATION_EVENTS, MAX_COMPENSATIONS, MAX_EVENTS, MAX_HELD_BYTES, MAX_NAMED_FAILURES,
};
use cascade_cdl::{EventKind, Execution, Failure, Status};
use serde_json::{Value, json};

use crate::compile::{compile, compile_value};
use crate::transcript::{Long, Run, check, completed, failed, json as text};

const TRIP: &str = r#"
    states:
      - name: Flight
        type: Task
        parameters: { to: "{{ workflow.input }}" }
        result: $.flight
        compensate: { resource: "urn:cascade:activity:cancel_flight" }
        next: Hotel
      - name: Hotel
        type: Task
        parameters: 2
        result: $.hotel
        compensate:
          resource: urn:cascade:activity:cancel_hotel
          parameters: { booking: "{{ $.hotel.id }}" }
          timeout: 5s
          retries: { max_attempts: 2 }
        next: Car
      - name: Car
        type: Task
        parameters: 3
        retries: { max_attempts: 1 }
        compensate: { resource: "urn:cascade:activity:cancel_car" }
        catch: [{ error: NoCars, next: Walk }]
      - { name: Walk, type: Succeed, output: "on foot" }
"#;

/// Hotel and flight are booked, the car is being.
const BOOKED: &str = r#"
        start "Rome"
          enter Flight
          schedule Flight#1 {"to":"Rome"}
        complete Flight#1 {"id":"F"}
          exit Flight {"id":"F"}
          enter Hotel
          schedule Hotel#1 2
        complete Hotel#1 {"id":"H"}
          exit Hotel {"id":"H"}
          enter Car
          schedule Car#1 3
"#;

#[track_caller]
fn check_booked(expected: &str) {
    check(TRIP, &format!("{BOOKED}{expected}"));
}

#[test]
fn what_completed_is_undone_in_reverse_and_the_failure_stays_the_outcome() {
    check_booked(
        r#"
        fail Car#1 Broken
          compensating 2 after Broken
          schedule Hotel#1 {"booking":"H"}
          timeout at 5000
        complete Hotel#1 "undone"
          compensated Hotel "undone"
          schedule Flight#1 {"input":{"to":"Rome"},"output":{"id":"F"}}
        complete Flight#1 null
          compensated Flight null
          failed Broken at Car: told
        retry
          ignored: what the execution had done was compensated
        cancel late
          ignored: the execution has ended
        "#,
    );
}

#[test]
fn a_compensation_is_tried_again_and_times_out_as_a_task_does() {
    check_booked(
        r#"
        fail Car#1 Broken
          compensating 2 after Broken
          schedule Hotel#1 {"booking":"H"}
          timeout at 5000
        at 5000
          cancel Hotel#1
          retry Hotel#2 at 6000 after TimeoutError
          timer at 6000
        at 6000
          schedule Hotel#2 {"booking":"H"}
          timeout at 11000
        complete Hotel#2 null
          compensated Hotel null
          schedule Flight#1 {"input":{"to":"Rome"},"output":{"id":"F"}}
        complete Flight#1 null
          compensated Flight null
          failed Broken at Car: told
        at 11000
        "#,
    );
}

#[test]
fn a_caught_error_and_a_success_compensate_nothing() {
    check_booked(
        r#"
        fail Car#1 NoCars
          caught Car NoCars, on to Walk
          enter Walk
          exit Walk "on foot"
          completed "on foot"
        "#,
    );
}

#[test]
fn a_cancelled_execution_compensates_and_cannot_be_cancelled_twice() {
    check_booked(
        r#"
        cancel changed my mind
          cancel Car#1
          compensating 2 after cancelled
          schedule Hotel#1 {"booking":"H"}
          timeout at 5000
        cancel again
          ignored: the execution is ending, and compensates what was done
        retry
          ignored: the execution neither failed nor timed out
        complete Car#1 "too late"
          ignored: the outcome of this attempt is not awaited
        complete Hotel#1 null
          compensated Hotel null
          schedule Flight#1 {"input":{"to":"Rome"},"output":{"id":"F"}}
        complete Flight#1 null
          compensated Flight null
          cancelled: changed my mind
        "#,
    );
}

#[test]
fn an_execution_beyond_its_timeout_compensates() {
    check(
        r"
        timeout: 1m
        states:
          - { name: A, type: Task, parameters: 1, compensate: { resource: 'urn:cascade:activity:undo' }, next: B }
          - { name: B, type: Wait, duration: 1h }
        ",
        r#"
        start null
          workflow timeout at 60000
          enter A
          schedule A#1 1
        complete A#1 10
          exit A 10
          enter B
          timer at 3600000
        at 60000
          compensating 1 after timed out
          schedule A#1 {"input":1,"output":10}
        at 3600000
        complete A#1 null
          compensated A null
          timed out after 60000
        retry
          ignored: what the execution had done was compensated
        "#,
    );
}

#[test]
fn what_is_undone_is_another_activity_with_the_limits_of_its_own() {
    let mut run = Run::new(compile(TRIP));
    run.start(text("\"Rome\""));
    for _ in 0..2 {
        let task = run.only_task();
        run.apply(completed(task.task, 1, text(r#"{"id":"X"}"#)));
    }
    let car = run.only_task();
    run.apply(failed(car.task, 1, "Broken", None));
    let undo = run.only_task();
    assert_eq!(
        undo.resource.to_string(),
        "urn:cascade:activity:cancel_hotel"
    );
    assert_eq!(undo.timeout_ms, Some(5_000));
    let names: Vec<_> = run.program.resources().map(ToString::to_string).collect();
    assert!(names.contains(&"urn:cascade:activity:cancel_car".to_owned()));
}

/// The failure of an execution that has failed.
#[track_caller]
fn failure(execution: &Execution) -> Failure {
    match &execution.status {
        Status::Failed { failure } => failure.clone(),
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn a_compensation_that_fails_is_named_and_the_others_go_on() {
    let mut run = Run::new(compile(TRIP));
    run.start(text("\"Rome\""));
    for _ in 0..2 {
        let task = run.only_task();
        run.apply(completed(task.task, 1, text(r#"{"id":"X"}"#)));
    }
    let car = run.only_task();
    run.apply(failed(car.task, 1, "Broken", None));
    let hotel = run.only_task();
    let told = run.apply(failed(hotel.task, 1, "Closed", Some(false)));
    assert_eq!(told[0], "not compensated Hotel: Closed");
    let flight = run.only_task();
    run.apply(completed(flight.task, 1, text("null")));
    run.check_replay();
    let failure = failure(&run.execution);
    assert_eq!(failure.error, "Broken");
    let details = failure.details.expect("what failed").to_value();
    let expected = json!({"compensation": {
        "failed": 1, "steps": [{"state": "Hotel", "error": "Closed", "message": "told"}],
    }});
    assert_eq!(details, expected);
    assert_eq!(run.execution.saga.compensated, 1);
}

#[test]
fn steps_of_branches_and_iterations_are_undone_in_the_order_of_their_completion() {
    check(
        r#"
        states:
          - name: P
            type: Parallel
            completion_strategy: ALL_SETTLED
            branches:
              - { name: a, type: Task, parameters: 1, compensate: { resource: "urn:cascade:activity:undo", parameters: a } }
              - name: each
                type: Map
                items: [x, y]
                max_concurrency: 2
                iterator:
                  states:
                    - name: Do
                      type: Task
                      compensate: { resource: "urn:cascade:activity:undo", parameters: "{{ [map.index, map.item, $.own] }}" }
                      result: $.own
            next: Bad
          - { name: Bad, type: Fail, error: Bad, message: at once }
        "#,
        r#"
        start null
          enter P
          enter P/a/a
          schedule P/a/a#1 1
          enter P/each/each
          enter P/each/each/0/Do
          schedule P/each/each/0/Do#1 "x"
          enter P/each/each/1/Do
          schedule P/each/each/1/Do#1 "y"
        complete Do#1 "Y"
          exit P/each/each/1/Do "Y"
          branch P/each/each/1 done, 1 open
        complete a#1 "A"
          exit P/a/a "A"
          branch P/a done, 1 open
        cancel enough
          cancel Do#1
          compensating 2 after cancelled
          schedule P/a/a#1 "a"
        complete a#1 null
          compensated P/a/a null
          schedule P/each/each/1/Do#1 [1,"y","Y"]
        complete Do#1 null
          compensated P/each/each/1/Do null
          cancelled: enough
        "#,
    );
}

#[test]
fn each_round_of_a_loop_is_undone_once() {
    let mut run = Run::new(compile(
        r#"
        states:
          - name: A
            type: Task
            parameters: 1
            result: $.n
            compensate: { resource: "urn:cascade:activity:undo", parameters: "{{ $.n }}" }
            next: Again
          - name: Again
            type: Choice
            choices: [{ condition: "{{ $.n < 3 }}", next: A }]
            default: Bad
          - { name: Bad, type: Fail, error: Bad }
        "#,
    ));
    run.start(text("null"));
    for n in 1..=3 {
        let task = run.only_task();
        run.apply(completed(task.task, 1, json!(n).into()));
    }
    for n in [3, 2, 1] {
        let task = run.only_task();
        assert_eq!(task.input.to_value(), json!(n));
        run.apply(completed(task.task, 1, text("null")));
    }
    assert_eq!(failure(&run.execution).error, "Bad");
    run.check_replay();
}

/// The step has been done, so it is undone whatever went wrong after it; its
/// compensation is given what it would be given without `parameters`.
#[test]
fn a_state_that_fails_after_its_activity_returned_is_undone_too() {
    for problem in [
        "parameters: 1, compensate: { resource: 'urn:cascade:activity:undo', parameters: '{{ $.no }}' }",
        "parameters: 1, compensate: { resource: 'urn:cascade:activity:undo' }, result: $.in.way",
    ] {
        let mut run = Run::new(compile(&format!(
            "states:
               - {{ name: Before, type: Pass, parameters: 5, result: $.in, next: A }}
               - {{ name: A, type: Task, {problem} }}"
        )));
        run.start(text("null"));
        let task = run.only_task();
        run.apply(completed(task.task, 1, text("10")));
        let undo = run.only_task();
        assert_eq!(undo.input.to_value(), json!({"input": 1, "output": 10}));
        run.apply(completed(undo.task, 1, text("null")));
        assert_eq!(
            failure(&run.execution).error,
            "ExpressionError",
            "{problem}"
        );
        run.check_replay();
    }
}

fn looping(attempts: u32) -> Value {
    json!({"states": [{
        "name": "A", "type": "Task", "parameters": 1, "next": "A",
        "compensate": {
            "resource": "urn:cascade:activity:undo",
            "retries": {"max_attempts": attempts, "backoff": {"initial_interval": "1ms", "max_interval": "1ms"}},
        },
    }]})
}

#[test]
fn steps_that_may_have_to_be_compensated_are_bounded() {
    let mut long = Long::new(compile_value(&looping(1)));
    for at in 0..MAX_COMPENSATIONS {
        assert_eq!(long.execution.status, Status::Running, "{at}");
        long.go_on(|task, attempt| completed(task, attempt, text("null")));
    }
    // The next one is not begun, and what was done is undone.
    let Status::Compensating { outcome } = &long.execution.status else {
        panic!("not compensating: {:?}", long.execution.status);
    };
    let Status::Failed { failure: cause } = &**outcome else {
        panic!("not failed: {outcome:?}");
    };
    assert_eq!(cause.error, "CompensationLimitExceeded");
    for _ in 0..MAX_COMPENSATIONS {
        assert!(long.execution.is_compensating());
        long.go_on(|task, attempt| failed(task, attempt, "Stuck", Some(false)));
    }
    let details = failure(&long.execution)
        .details
        .expect("what failed")
        .to_value();
    assert_eq!(details["compensation"]["failed"], json!(MAX_COMPENSATIONS));
    let named = details["compensation"]["steps"].as_array().expect("a list");
    assert_eq!(named.len(), MAX_NAMED_FAILURES);
}

/// What is remembered is what compensations are given; all of it together is bounded as what
/// frames hold is.
#[test]
fn what_is_remembered_is_bounded_in_bytes() {
    let mut workflow = looping(1);
    workflow["states"][0]["parameters"] = json!("x".repeat(10_000));
    let mut long = Long::new(compile_value(&workflow));
    let output = text(&format!("\"{}\"", "y".repeat(1_000_000)));
    // `{"input":"…","output":"…"}`
    let each = 20 + 10_002 + 1_000_002;
    for at in 0..MAX_HELD_BYTES / each {
        assert_eq!(long.execution.status, Status::Running, "{at}");
        assert_eq!(long.execution.saga.bytes, at * each);
        long.go_on(|task, attempt| completed(task, attempt, output.clone()));
    }
    // The next one has been done, so it is undone: without what there is no room for.
    long.go_on(|task, attempt| completed(task, attempt, output.clone()));
    let Status::Compensating { outcome } = &long.execution.status else {
        panic!("not compensating: {:?}", long.execution.status);
    };
    let Status::Failed { failure: cause } = &**outcome else {
        panic!("not failed: {outcome:?}");
    };
    assert_eq!(cause.error, "ContextTooLarge");
    let last = long.execution.saga.completed.last().expect("what was done");
    assert_eq!(last.input.as_str(), "null");
}

#[test]
fn compensations_end_with_the_room_of_the_history() {
    let mut long = Long::new(compile_value(&looping(1_000)));
    for _ in 0..30 {
        long.go_on(|task, attempt| completed(task, attempt, text("null")));
    }
    long.apply(EventKind::CancelRequested {
        reason: "enough".to_owned(),
    });
    while !long.execution.is_closed() {
        long.go_on(|task, attempt| failed(task, attempt, "Stuck", Some(true)));
    }
    assert_eq!(long.execution.version, MAX_EVENTS + COMPENSATION_EVENTS);
    // A thousand attempts take 1,999 events with their pauses, of 49,968 left.
    let saga = &long.execution.saga;
    assert_eq!(saga.failures, 30);
    assert_eq!(saga.failed[23].error, "Stuck");
    assert_eq!(saga.failed[24].error, "HistoryLimitExceeded");
    let message = "the history has reached its limit of 50000 events";
    assert_eq!(saga.failed[24].message, message);
    assert!(matches!(long.execution.status, Status::Cancelled { .. }));
}

#[test]
fn secrets_are_named_to_whoever_runs_an_attempt_and_known_to_nobody_else() {
    let program = compile(
        r#"
        states:
          - name: Charge
            type: Task
            parameters: { auth: "Bearer {{ secrets.TOKEN }}", amount: "{{ workflow.input }}" }
            retries: { max_attempts: 1 }
            compensate: { resource: "urn:cascade:activity:refund" }
            next: Ship
          - name: Ship
            type: Task
            parameters: 1
            retries: { max_attempts: 1 }
        "#,
    );
    let secret = |name: &str| (name == "TOKEN").then(|| "s3cr3t".into());
    let hostile = "{{ secrets.TOKEN }}";
    let mut run = Run::new(program);
    run.start(json!(hostile).into());
    let charge = run.only_task();
    let named = json!({ "auth": "Bearer {{ secrets.TOKEN }}", "amount": hostile });
    assert_eq!(charge.input.to_value(), named, "what the history knows");
    let secrets = charge.secrets.as_ref().expect("one is named");
    let filled = secrets.fill(&charge.input, secret).expect("it is known");
    let known = json!({ "auth": "Bearer s3cr3t", "amount": hostile });
    assert_eq!(filled.to_value(), known);

    run.apply(completed(charge.task, 1, text(r#""charged""#)));
    let ship = run.only_task();
    assert_eq!(ship.secrets, None);
    run.apply(failed(ship.task, 1, "Lost", None));
    // Without parameters of its own it is given what the Task was.
    let refund = run.only_task();
    let given = json!({ "input": named, "output": "charged" });
    assert_eq!(refund.input.to_value(), given);
    let secrets = refund.secrets.as_ref().expect("the Task named one");
    let filled = secrets.fill(&refund.input, secret).expect("it is known");
    assert_eq!(filled.to_value()["input"], known);
}
