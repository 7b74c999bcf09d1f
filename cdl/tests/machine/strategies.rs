//! Parallel states that do not need all of their branches.

use cascade_cdl::{ActivityFailure, EventKind, Status};
use serde_json::json as value;

use crate::compile::{compile, compile_value};
use crate::transcript::{Run, check, completed, json};

const ANY: &str = r"
    states:
      - name: Any
        type: Parallel
        completion_strategy: ANY
        branches:
          - { name: eu, type: Task, parameters: 1, timeout: 1m, retries: { max_attempts: 1 } }
          - name: us
            states:
              - { name: First, type: Task, parameters: 2, retries: { max_attempts: 1 }, next: Second }
              - { name: Second, type: Wait, duration: 5s }
          - { name: asia, type: Task, parameters: 3, retries: { max_attempts: 1 } }
        result: $.won
";

#[test]
fn the_first_success_of_any_cancels_the_others_and_drops_their_timers() {
    check(
        ANY,
        r#"
        start null
          enter Any
          enter Any/eu/eu
          schedule Any/eu/eu#1 1
          timeout at 60000
          enter Any/us/First
          schedule Any/us/First#1 2
          enter Any/asia/asia
          schedule Any/asia/asia#1 3
        fail asia#1 Down final
          branch Any/asia failed Down, 2 open
        complete First#1 "f"
          exit Any/us/First "f"
          enter Any/us/Second
          timer at 5000
        at 5000
          exit Any/us/Second null
          branch Any/us done, 1 open
          cancel eu#1
          exit Any {"us":null}
          completed {"won":{"us":null}}
        fail eu#1 Late
          ignored: the outcome of this attempt is not awaited
        at 60000
        "#,
    );
}

#[test]
fn any_fails_when_all_have_failed_and_a_retry_runs_them_all_again() {
    check(
        ANY,
        r#"
        start null
          enter Any
          enter Any/eu/eu
          schedule Any/eu/eu#1 1
          timeout at 60000
          enter Any/us/First
          schedule Any/us/First#1 2
          enter Any/asia/asia
          schedule Any/asia/asia#1 3
        fail asia#1 Down final
          branch Any/asia failed Down, 2 open
        fail eu#1 Down final
          branch Any/eu failed Down, 1 open
        fail First#1 Down final
          failed BranchesFailed at Any: 3 branches failed (asia, eu, us), so that 1 can no longer succeed
        retry
          goes on
          enter Any/eu/eu
          schedule Any/eu/eu#1 1
          timeout at 60000
          enter Any/us/First
          schedule Any/us/First#1 2
          enter Any/asia/asia
          schedule Any/asia/asia#1 3
        complete asia#1 "now"
          exit Any/asia/asia "now"
          branch Any/asia done, 2 open
          cancel eu#1
          cancel First#1
          exit Any {"asia":"now"}
          completed {"won":{"asia":"now"}}
        "#,
    );
}

#[test]
fn a_branch_that_wins_at_once_keeps_the_others_from_being_entered() {
    check(
        r"
        states:
          - name: P
            type: Parallel
            completion_strategy: ANY
            branches:
              - { name: task, type: Task, parameters: 1 }
              - { name: wins, type: Succeed, output: 7 }
              - { name: never, type: Task, parameters: 2 }
        ",
        r#"
        start null
          enter P
          enter P/task/task
          schedule P/task/task#1 1
          enter P/wins/wins
          exit P/wins/wins 7
          branch P/wins done, 2 open
          cancel task#1
          exit P {"wins":7}
          completed {}
        "#,
    );
}

const TWO_OF_THREE: &str = r"
    states:
      - name: Two
        type: Parallel
        completion_strategy: N_OF_M
        required: 2
        branches:
          - { name: a, type: Task, parameters: 1, retries: { max_attempts: 1 } }
          - { name: b, type: Task, parameters: 2, retries: { max_attempts: 1 } }
          - { name: c, type: Task, parameters: 3, retries: { max_attempts: 1 } }
        catch: [{ error: BranchesFailed, result: $.error, next: After }]
        result: $.two
      - { name: After, type: Succeed }
";

#[test]
fn n_of_m_ends_with_the_nth_success() {
    check(
        TWO_OF_THREE,
        r#"
        start null
          enter Two
          enter Two/a/a
          schedule Two/a/a#1 1
          enter Two/b/b
          schedule Two/b/b#1 2
          enter Two/c/c
          schedule Two/c/c#1 3
        complete c#1 30
          exit Two/c/c 30
          branch Two/c done, 2 open
        complete a#1 10
          exit Two/a/a 10
          branch Two/a done, 1 open
          cancel b#1
          exit Two {"a":10,"c":30}
          completed {"two":{"a":10,"c":30}}
        "#,
    );
}

#[test]
fn n_of_m_fails_as_soon_as_too_few_are_left() {
    check(
        TWO_OF_THREE,
        r#"
        start null
          enter Two
          enter Two/a/a
          schedule Two/a/a#1 1
          enter Two/b/b
          schedule Two/b/b#1 2
          enter Two/c/c
          schedule Two/c/c#1 3
        fail b#1 Down final
          branch Two/b failed Down, 2 open
        fail a#1 Gone final
          cancel c#1
          caught Two BranchesFailed, on to After
          enter After
          exit After null
          completed {"error":{"details":{"a":{"details":null,"error":"Gone","message":"told","state":"a"},"b":{"details":null,"error":"Down","message":"told","state":"b"}},"error":"BranchesFailed","message":"2 branches failed (a, b), so that 2 can no longer succeed","state":"Two"}}
        "#,
    );
}

#[test]
fn what_had_succeeded_stays_so_when_n_of_m_is_retried() {
    check(
        &TWO_OF_THREE.replace("BranchesFailed", "Other"),
        r#"
        start null
          enter Two
          enter Two/a/a
          schedule Two/a/a#1 1
          enter Two/b/b
          schedule Two/b/b#1 2
          enter Two/c/c
          schedule Two/c/c#1 3
        complete a#1 10
          exit Two/a/a 10
          branch Two/a done, 2 open
        fail b#1 Down final
          branch Two/b failed Down, 1 open
        fail c#1 Down final
          failed BranchesFailed at Two: 2 branches failed (b, c), so that 2 can no longer succeed
        retry
          goes on
          enter Two/b/b
          schedule Two/b/b#1 2
          enter Two/c/c
          schedule Two/c/c#1 3
        complete c#1 30
          exit Two/c/c 30
          branch Two/c done, 1 open
          cancel b#1
          exit Two {"a":10,"c":30}
          completed {"two":{"a":10,"c":30}}
        "#,
    );
}

#[test]
fn all_settled_waits_for_each_branch_and_says_how_it_ended() {
    check(
        r"
        states:
          - name: All
            type: Parallel
            completion_strategy: ALL_SETTLED
            branches:
              - { name: good, type: Task, parameters: 1 }
              - name: bad
                states:
                  - name: Inner
                    type: Parallel
                    branches:
                      - { name: x, type: Task, parameters: 2 }
                      - { name: y, type: Wait, duration: 1m }
            result: $.all
        ",
        r#"
        start null
          enter All
          enter All/good/good
          schedule All/good/good#1 1
          enter All/bad/Inner
          enter All/bad/Inner/x/x
          schedule All/bad/Inner/x/x#1 2
          enter All/bad/Inner/y/y
          timer at 60000
        fail x#1 Declined final
          branch All/bad failed Declined, 1 open
        at 60000
        complete good#1 {"ok":true}
          exit All/good/good {"ok":true}
          branch All/good done, 0 open
          exit All {"bad":{"status":"failed","error":{"details":null,"error":"Declined","message":"told","state":"x"}},"good":{"status":"completed","output":{"ok":true}}}
          completed {"all":{"bad":{"error":{"details":null,"error":"Declined","message":"told","state":"x"},"status":"failed"},"good":{"output":{"ok":true},"status":"completed"}}}
        "#,
    );
}

#[test]
fn all_settled_may_end_with_a_failure() {
    check(
        r"
        states:
          - name: All
            type: Parallel
            completion_strategy: ALL_SETTLED
            branches:
              - { name: bad, type: Fail, error: Bad, message: at once }
        ",
        r#"
        start null
          enter All
          enter All/bad/bad
          branch All/bad failed Bad, 0 open
          exit All {"bad":{"status":"failed","error":{"details":null,"error":"Bad","message":"at once","state":"bad"}}}
          completed {}
        "#,
    );
}

#[test]
fn an_endless_loop_ends_the_execution_past_a_state_that_bears_failures() {
    let file = r"
        states:
          - name: P
            type: Parallel
            completion_strategy: ALL_SETTLED
            branches:
              - { name: waits, type: Task, parameters: 1 }
              - { name: loops, states: [{ name: A, type: Pass, next: A }] }
        ";
    let mut run = Run::new(compile(file));
    run.start(json("null"));
    let Status::Failed { failure } = &run.execution.status else {
        panic!("not failed: {:?}", run.execution.status);
    };
    assert_eq!(failure.error, "StepLimitExceeded");
}

/// What is put together counts as what it is, so that what a state may return has room.
#[test]
fn large_outputs_and_errors_of_branches_with_long_names_are_put_together() {
    let name = "b".repeat(70);
    let large = "x".repeat(1_000_000);
    for (strategy, succeeds, expected) in [
        ("ALL", true, None),
        ("ALL_SETTLED", true, None),
        ("ALL_SETTLED", false, None),
        ("ANY", false, Some("BranchesFailed")),
    ] {
        let mut run = Run::new(compile_value(&value!({"states": [{
            "name": "P", "type": "Parallel", "completion_strategy": strategy,
            "branches": [{"name": name, "type": "Task", "parameters": 1}],
        }]})));
        run.start(json("null"));
        let task = run.only_task().task;
        run.apply(if succeeds {
            completed(task, 1, value!(large).into())
        } else {
            EventKind::ActivityFailed {
                task,
                attempt: 1,
                failure: ActivityFailure {
                    error: "Large".to_owned(),
                    message: large.clone(),
                    retryable: Some(false),
                    details: None,
                },
                receipt: None,
            }
        });
        match &run.execution.status {
            Status::Completed { .. } => assert_eq!(expected, None),
            Status::Failed { failure } => {
                assert_eq!(Some(failure.error.as_str()), expected, "{strategy}");
                let details = failure.details.as_ref().expect("what failed").to_value();
                assert_eq!(details[&name]["error"], value!("Large"));
            }
            other => panic!("{strategy}: {other:?}"),
        }
    }
}
