//! Workflows that a Task runs as children.

use std::collections::BTreeSet;
use std::sync::Arc;

use cascade_cdl::limits::MAX_NESTING;
use cascade_cdl::program::{ParentClose, Program};
use cascade_cdl::{Command, EventKind, ExecutionId, Failure, Status, TaskId, outcome_of_child};

use crate::compile::compile;
use crate::transcript::{Run, check, completed, failed, id, json};

const SHIP: &str = r"
states:
  - { name: Ship, type: SubWorkflow, workflow: shipping/ship, parameters: { order: 7 }, result: $.shipment }
";

fn child() -> ExecutionId {
    ExecutionId::of_child(id(), TaskId(2), 1)
}

#[test]
fn a_child_is_given_its_input_and_its_output_is_the_result() {
    check(
        SHIP,
        r#"
        start null
          enter Ship
          schedule Ship#1 {"order":7}
        complete Ship#1 {"parcel":"p1"}
          exit Ship {"parcel":"p1"}
          completed {"shipment":{"parcel":"p1"}}
        complete Ship#1 {"parcel":"p1"}
          ignored: the outcome of this attempt is not awaited
        "#,
    );
}

#[test]
fn a_command_and_a_recovery_name_the_workflow_and_how_it_is_run() {
    let mut run = Run::new(compile(SHIP));
    run.start(json("null"));
    let task = run.only_task();
    assert_eq!(
        task.resource.to_string(),
        "urn:cascade:workflow:shipping/ship"
    );
    let how = task.resource.child.clone().expect("a child");
    assert_eq!(how.application.as_deref(), Some("shipping"));
    assert_eq!((how.waits, how.on_close), (true, ParentClose::Cancel));
    assert_eq!(run.execution.pending_tasks(&run.program), [task]);
}

#[test]
fn a_task_with_the_resource_of_a_workflow_is_the_same() {
    let resources = |program: Arc<Program>| {
        assert_eq!(program.resources().count(), 0, "a child is no activity");
        program.children().cloned().collect::<Vec<_>>()
    };
    let state = resources(compile(
        "states: [{ name: A, type: SubWorkflow, workflow: test }]",
    ));
    let task = resources(compile(
        "states: [{ name: A, type: Task, resource: 'urn:cascade:workflow:test' }]",
    ));
    assert_eq!(state, task);
    assert_eq!(state.len(), 1);
    let loose = resources(compile(
        "states: [{ name: A, type: SubWorkflow, workflow: test, wait: false }]",
    ));
    let how = loose[0].child.clone().expect("a child");
    assert_eq!((how.waits, how.on_close), (false, ParentClose::Abandon));
}

/// Each level would multiply what runs: retries have to be asked for.
#[test]
fn a_failed_child_is_not_started_again_unasked_but_caught_by_its_error() {
    check(
        r"
        states:
          - name: Ship
            type: SubWorkflow
            workflow: test
            parameters: 1
            catch: [{ error: OutOfStock, next: Wait }]
          - { name: Wait, type: Succeed }
        ",
        r"
        start null
          enter Ship
          schedule Ship#1 1
        fail Ship#1 OutOfStock
          caught Ship OutOfStock, on to Wait
          enter Wait
          exit Wait null
          completed {}
        ",
    );
}

#[test]
fn each_try_is_a_child_of_its_own() {
    let mut run = Run::new(compile(
        "states: [{ name: A, type: SubWorkflow, workflow: test, retries: { max_attempts: 3, backoff: { initial_interval: 1ms } } }]",
    ));
    run.start(json("null"));
    let mut children = BTreeSet::new();
    for attempt in 1..=3 {
        let task = run.only_task();
        assert_eq!(task.attempt, attempt);
        children.insert(ExecutionId::of_child(id(), task.task, task.attempt));
        run.apply(failed(task.task, attempt, "Declined", None));
        run.pass_time(1_000);
        run.fire_due_timers();
    }
    assert_eq!(children.len(), 3);
    assert!(matches!(run.execution.status, Status::Failed { .. }));
}

#[test]
fn a_child_that_takes_too_long_is_given_up() {
    check(
        r"
        states:
          - name: Ship
            type: SubWorkflow
            workflow: test
            parameters: 1
            timeout: 10m
            catch: [{ error: TimeoutError, next: Late }]
          - { name: Late, type: Succeed }
        ",
        r"
        start null
          enter Ship
          schedule Ship#1 1
          timeout at 600000
        at 600000
          cancel Ship#1
          caught Ship TimeoutError, on to Late
          enter Late
          exit Late null
          completed {}
        complete Ship#1 2
          ignored: the outcome of this attempt is not awaited
        ",
    );
}

#[test]
fn a_child_is_given_up_with_its_branch_and_with_its_parent() {
    let race = r"
        states:
          - name: Race
            type: Parallel
            completion_strategy: ANY
            branches:
              - { name: Child, type: SubWorkflow, workflow: test, parameters: 1 }
              - { name: Task, type: Task, parameters: 2 }
        ";
    let mut run = Run::new(compile(race));
    run.start(json("null"));
    let mut cancelled = run.clone();
    let find = |run: &Run, child: bool| {
        let mut tasks = run.outstanding.values();
        let task = tasks.find(|task| task.resource.child.is_some() == child);
        task.expect("both run").task
    };
    let (task, lost) = (find(&run, false), find(&run, true));
    // The harness asserts that what is cancelled was outstanding.
    run.apply(completed(task, 1, json("3")));
    assert!(matches!(run.execution.status, Status::Completed { .. }));
    assert!(!run.execution.awaits(lost, 1));
    cancelled.apply(EventKind::CancelRequested {
        reason: "enough".to_owned(),
    });
    assert!(cancelled.outstanding.is_empty());
}

#[test]
fn a_child_that_was_done_is_compensated_like_any_task() {
    check(
        r"
        states:
          - name: Ship
            type: SubWorkflow
            workflow: test
            parameters: 1
            compensate: { resource: 'urn:cascade:activity:call_back' }
            next: Bill
          - { name: Bill, type: Fail, error: Declined }
        ",
        r#"
        start null
          enter Ship
          schedule Ship#1 1
        complete Ship#1 2
          exit Ship 2
          enter Bill
          compensating 1 after Declined
          schedule Ship#1 {"input":1,"output":2}
        complete Ship#1 3
          compensated Ship 3
          failed Declined at Bill: 
        "#,
    );
}

#[test]
fn children_nest_only_so_deep() {
    for (depth, runs) in [(1, true), (MAX_NESTING - 1, true), (MAX_NESTING, false)] {
        let mut run = Run::new(compile(
            "states: [{ name: A, type: SubWorkflow, workflow: test, wait: false }]",
        ));
        run.start_as_child(json("null"), depth);
        assert_eq!(run.outstanding.len(), usize::from(runs), "{depth}");
        match &run.execution.status {
            Status::Failed { failure } => assert_eq!(failure.error, "NestingLimitExceeded"),
            status => assert!(runs, "{status:?}"),
        }
        run.check_replay();
    }
}

#[test]
fn the_end_of_a_child_is_the_outcome_of_the_attempt() {
    let failure = |error: &str| Failure {
        error: error.to_owned(),
        message: "why".to_owned(),
        state: Some("Pack".to_owned()),
        details: Some(json("[1]")),
    };
    let outcome = |status: Status| outcome_of_child(child(), &status);
    assert_eq!(outcome(Status::Running), None);
    let undoing = Status::Compensating {
        outcome: Box::new(Status::Running),
    };
    assert_eq!(outcome(undoing), None);
    let output = json("7");
    let done = Status::Completed {
        output: output.clone(),
    };
    assert_eq!(outcome(done), Some(Ok(output)));
    for (error, told, retryable) in [
        ("OutOfStock", "OutOfStock", None),
        ("NestingLimitExceeded", "NestingLimitExceeded", Some(false)),
        ("WorkflowNotFound", "WorkflowNotFound", Some(false)),
        // What is past every catch of the child must not be past its parent's.
        ("StepLimitExceeded", "ChildFailed", None),
        ("HistoryLimitExceeded", "ChildFailed", None),
    ] {
        let ended = outcome(Status::Failed {
            failure: failure(error),
        });
        let ended = ended.expect("it ended").expect_err("it failed");
        assert_eq!((&*ended.error, &*ended.message), (told, "why"));
        assert_eq!(ended.retryable, retryable, "{error}");
        let details = ended.details.expect("details").to_value();
        assert_eq!(details["execution_id"], child().to_string());
        assert_eq!(details["state"], "Pack");
        assert_eq!(details["details"][0], 1);
    }
    let cancelled = outcome(Status::Cancelled {
        reason: "enough".to_owned(),
    });
    let cancelled = cancelled.expect("it ended").expect_err("not well");
    assert_eq!(cancelled.error, "ChildCancelled");
    assert_eq!(cancelled.retryable, Some(false));
    let late = outcome(Status::TimedOut { timeout_ms: 5 });
    assert_eq!(
        late.expect("it ended").expect_err("not well").error,
        "TimeoutError"
    );
}

#[test]
fn a_start_that_the_same_event_gives_up_is_never_asked_for() {
    let mut run = Run::new(compile(
        r"
        states:
          - name: Race
            type: Parallel
            branches:
              - { name: Child, type: SubWorkflow, workflow: test, parameters: 1 }
              - { name: Fails, type: Fail, error: Declined }
        ",
    ));
    run.start(json("null"));
    let (_, commands) = cascade_cdl::replay(
        &run.program,
        id(),
        crate::transcript::tenant(),
        &run.history,
    )
    .expect("it replays");
    let starts = |command: &Command| matches!(command, Command::ScheduleActivity(_));
    assert!(run.outstanding.is_empty() && !commands.iter().any(starts));
}
