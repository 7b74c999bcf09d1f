//! Retries, catches, timeouts, cancellation, going on after a failure.

use std::sync::Arc;

use cascade_cdl::program::StateKind;
use cascade_cdl::{ActivityFailure, EventKind, Status};

use crate::compile::compile;
use crate::transcript::{Run, check, failed, json};

#[test]
fn a_retry_waits_for_the_backoff_then_schedules_again_until_attempts_run_out() {
    check(
        "states: [{ name: Fetch, type: Task, parameters: 1 }]",
        r"
        start null
          enter Fetch
          schedule Fetch#1 1
        fail Fetch#1 ServiceUnavailable
          retry Fetch#2 at 1000 after ServiceUnavailable
          timer at 1000
        at 999
        complete Fetch#1 null
          ignored: the outcome of this attempt is not awaited
        at 1500
          schedule Fetch#2 1
        fail Fetch#2 SomethingNew
          retry Fetch#3 at 3500 after SomethingNew
          timer at 3500
        at 3500
          schedule Fetch#3 1
        fail Fetch#3 SomethingNew
          failed SomethingNew at Fetch: told
        ",
    );
}

#[test]
fn an_error_that_is_never_retried_goes_straight_to_the_catch() {
    for error in [
        "ValidationError",
        "AuthorizedError",
        "AuthorizationError",
        "NotFoundError",
        "InvalidInput",
        "PaymentDeclined final",
    ] {
        let name = error.split(' ').next().expect("a name");
        check(
            "
            states:
              - { name: A, type: Task, parameters: 1, catch: [{ error: '*', next: B }] }
              - { name: B, type: Succeed }
            ",
            &format!(
                "
                start null
                  enter A
                  schedule A#1 1
                fail A#1 {error}
                  caught A {name}, on to B
                  enter B
                  exit B null
                  completed {{}}
                "
            ),
        );
    }
}

#[test]
fn catch_entries_are_asked_in_order_and_aliases_are_one_name() {
    check(
        r"
        states:
          - name: A
            type: Task
            parameters: 1
            catch:
              - { error: [Other, AuthorizedError], result: $.why, next: Mine }
              - { error: '*', next: Any }
          - { name: Mine, type: Succeed }
          - { name: Any, type: Succeed }
        ",
        r#"
        start null
          enter A
          schedule A#1 1
        fail A#1 AuthorizationError
          caught A AuthorizationError, on to Mine
          enter Mine
          exit Mine null
          completed {"why":{"details":null,"error":"AuthorizationError","message":"told","state":"A"}}
        "#,
    );
}

#[test]
fn an_activity_may_insist_on_another_try_but_not_on_more_than_there_are() {
    check(
        "states: [{ name: A, type: Task, parameters: 1, retries: { max_attempts: 2 } }]",
        r"
        start null
          enter A
          schedule A#1 1
        fail A#1 ValidationError retryable
          retry A#2 at 1000 after ValidationError
          timer at 1000
        at 1000
          schedule A#2 1
        fail A#2 ValidationError retryable
          failed ValidationError at A: told
        ",
    );
}

#[test]
fn a_pause_of_nothing_needs_no_timer() {
    let program = compile("states: [{ name: A, type: Task, parameters: 1 }]");
    let mut program = Arc::unwrap_or_clone(program);
    for state in &mut program.states {
        if let StateKind::Task(task) = &mut state.kind {
            task.retries.initial_interval_ms = 0;
        }
    }
    let mut run = Run::new(program.into());
    run.start(json("null"));
    let task = run.only_task();
    let told = run.apply(failed(task.task, 1, "NetworkError", None));
    assert_eq!(
        told,
        ["retry A#2 at 0 after NetworkError", "schedule A#2 1"]
    );
}

#[test]
fn jitter_is_the_same_in_every_replay() {
    check(
        "states: [{ name: A, type: Task, parameters: 1, retries: { backoff: { jitter: full } } }]",
        // 0 to 1000 ms by SHA-256 of execution, task 2 and attempt 1: a change
        // of this figure breaks the replay of recorded histories.
        r"
        start null
          enter A
          schedule A#1 1
        fail A#1 NetworkError
          retry A#2 at 463 after NetworkError
          timer at 463
        ",
    );
}

#[test]
fn an_attempt_beyond_its_timeout_is_cancelled_and_tried_again() {
    check(
        "states: [{ name: A, type: Task, parameters: 1, timeout: 5s, retries: { max_attempts: 2 } }]",
        r"
        start null
          enter A
          schedule A#1 1
          timeout at 5000
        at 5000
          cancel A#1
          retry A#2 at 6000 after TimeoutError
          timer at 6000
        complete A#1 null
          ignored: the outcome of this attempt is not awaited
        at 6000
          schedule A#2 1
          timeout at 11000
        at 11000
          cancel A#2
          failed TimeoutError at A: no outcome within the state's timeout of 5000 ms
        ",
    );
}

#[test]
fn an_outcome_in_time_drops_the_timeout() {
    check(
        r"
        states:
          - { name: A, type: Task, parameters: 1, timeout: 5s, next: B }
          - { name: B, type: Task, parameters: 2 }
        ",
        r"
        start null
          enter A
          schedule A#1 1
          timeout at 5000
        complete A#1 null
          exit A null
          enter B
          schedule B#1 2
        at 5000
        complete B#1 null
          exit B null
          completed {}
        ",
    );
}

#[test]
fn the_workflow_timeout_cancels_everything_and_a_retry_gets_the_whole_time_again() {
    check(
        r"
        timeout: 1m
        states:
          - name: P
            type: Parallel
            branches:
              - { name: task, type: Task, parameters: 1 }
              - { name: wait, type: Wait, duration: 1h }
              - { name: off, type: Task, parameters: 2, retries: { backoff: { initial_interval: 10m, max_interval: 10m } } }
        ",
        r"
        start null
          workflow timeout at 60000
          enter P
          enter P/task/task
          schedule P/task/task#1 1
          enter P/wait/wait
          timer at 3600000
          enter P/off/off
          schedule P/off/off#1 2
        fail off#1 NetworkError
          retry P/off/off#2 at 600000 after NetworkError
          timer at 600000
        at 60000
          cancel task#1
          timed out after 60000
        complete task#1 null
          ignored: the outcome of this attempt is not awaited
        at 100000
        retry
          goes on
          workflow timeout at 160000
          enter P/task/task
          schedule P/task/task#1 1
          enter P/wait/wait
          timer at 3700000
          enter P/off/off
          schedule P/off/off#1 2
        cancel enough
          cancel task#1
          cancel off#1
          cancelled: enough
        retry
          ignored: the execution neither failed nor timed out
        cancel twice
          ignored: the execution has ended
        ",
    );
}

#[test]
fn a_retry_of_a_running_execution_changes_nothing() {
    check(
        "states: [{ name: A, type: Task, parameters: 1 }]",
        r"
        start null
          enter A
          schedule A#1 1
        retry
          ignored: the execution neither failed nor timed out
        complete A#1 null
          exit A null
          completed {}
        ",
    );
}

#[test]
fn a_retry_evaluates_parameters_anew_and_counts_attempts_from_one() {
    check(
        r#"
        states:
          - { name: A, type: Pass, parameters: 1, result: $.n, next: B }
          - { name: B, type: Task, parameters: "{{ $.n }}", retries: { max_attempts: 2 } }
        "#,
        r#"
        start null
          enter A
          exit A 1
          enter B
          schedule B#1 1
        fail B#1 E
          retry B#2 at 1000 after E
          timer at 1000
        at 1000
          schedule B#2 1
        fail B#2 E
          failed E at B: told
        retry
          goes on
          enter B
          schedule B#1 1
        fail B#1 E
          retry B#2 at 2000 after E
          timer at 2000
        at 2000
          schedule B#2 1
        complete B#2 null
          exit B null
          completed {"n":1}
        "#,
    );
}

#[test]
fn states_that_cannot_go_on_fail_by_name() {
    for (state, error, message) in [
        (
            "type: Choice, choices: [{ condition: '{{ false }}', next: X }]",
            "NoChoiceMatched",
            "no condition holds, and there is no default",
        ),
        (
            "type: Choice, choices: [{ condition: '{{ workflow.input.n }}', next: X }], default: X",
            "ExpressionError",
            "condition 1 is a number, not true or false",
        ),
        (
            "type: Fail, error: Mine, message: 'n is {{ workflow.input.n }}'",
            "Mine",
            "n is 1",
        ),
        ("type: Fail, error: 'E{{ 1 }}'", "E1", ""),
    ] {
        check(
            &format!("states: [{{ name: X, {state} }}]"),
            &format!("start {{\"n\":1}}\n  enter X\n  failed {error} at X: {message}"),
        );
    }
}

#[test]
fn a_result_that_cannot_be_put_away_is_an_error_that_can_be_caught() {
    check(
        r"
        states:
          - { name: A, type: Pass, parameters: 1, result: $.a, next: B }
          - { name: B, type: Task, parameters: 1, result: $.a.b, catch: [{ error: ExpressionError, next: C }] }
          - { name: C, type: Succeed }
        ",
        r#"
        start null
          enter A
          exit A 1
          enter B
          schedule B#1 1
        complete B#1 2
          exit B 2
          caught B ExpressionError, on to C
          enter C
          exit C null
          completed {"a":1}
        "#,
    );
}

/// It is as long as what it says, not more: there is room for it.
#[test]
fn a_long_error_is_caught_as_any_other() {
    let cdl = "states:
      - { name: A, type: Task, parameters: 1, catch: [{ error: '*', result: $.e, next: B }] }
      - { name: B, type: Succeed }";
    let asl = r#"{"StartAt": "A", "States": {
        "A": {"Type": "Task", "Resource": "urn:cascade:activity:a", "End": true,
              "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "B"}]},
        "B": {"Type": "Succeed"}}}"#;
    for file in [cdl, asl] {
        let mut run = Run::new(compile(file));
        run.start(json("{}"));
        run.apply(EventKind::ActivityFailed {
            task: run.only_task().task,
            attempt: 1,
            failure: ActivityFailure {
                error: "E".repeat(5_000),
                message: "m".repeat(5_000),
                retryable: Some(false),
                details: None,
            },
            receipt: None,
        });
        let status = &run.execution.status;
        assert!(matches!(status, Status::Completed { .. }), "{status:?}");
    }
}

#[test]
fn a_handler_that_fails_hands_its_own_failure_outwards() {
    check(
        r"
        states:
          - { name: A, type: Pass, parameters: 1, result: $.a, next: B }
          - { name: B, type: Task, parameters: 1, catch: [{ error: '*', result: $.a.b, next: B }] }
        ",
        r"
        start null
          enter A
          exit A 1
          enter B
          schedule B#1 1
        fail B#1 E final
          failed ExpressionError at B: cannot set `$.a.b`: `$.a` is a number
        ",
    );
}

#[test]
fn a_failing_output_fails_the_execution_and_a_retry_does_not_run_the_last_state_again() {
    check(
        r#"
        output: "{{ $.missing }}"
        states: [{ name: A, type: Task, parameters: 1 }]
        "#,
        r"
        start null
          enter A
          schedule A#1 1
        complete A#1 null
          exit A null
          failed ExpressionError at the end: `$.missing` is missing
        retry
          goes on
          failed ExpressionError at the end: `$.missing` is missing
        ",
    );
}
