//! Pausing and resuming executions.

use std::collections::BTreeMap;

use cascade_cdl::plan::{Plan, Verdict};
use cascade_cdl::{EventKind, Status, Step};

use crate::compile::compile;
use crate::transcript::{Run, START, check, completed, json as text};

const TWO: &str = r"
    states:
      - { name: A, type: Task, parameters: 1, result: $.a, next: B }
      - { name: B, type: Task, parameters: 2 }
";

#[test]
fn what_runs_ends_and_what_follows_begins_when_it_is_resumed() {
    check(
        TWO,
        r#"
        start null
          enter A
          schedule A#1 1
        pause the bank is down
          paused: the bank is down
        pause again
          ignored: the execution is paused already
        at 1000
        complete A#1 "done"
          exit A "done"
          timer at 1000
        again
          ignored: the outcome of this attempt is not awaited
        at 5000
        resume
          resumed
        resume
          ignored: the execution is not paused
        at 5000
          enter B
          schedule B#1 2
        complete B#1 null
          exit B null
          completed {"a":"done"}
        pause too late
          ignored: the execution has ended
        resume
          ignored: the execution is not paused
        "#,
    );
}

#[test]
fn what_runs_last_ends_a_paused_execution() {
    check(
        r"
        states: [{ name: A, type: Task, parameters: 1, retries: { max_attempts: 1 } }]
        ",
        r"
        start null
          enter A
          schedule A#1 1
        pause
          paused: 
        fail A#1 Declined
          failed Declined at A: told
        retry
          goes on
          enter A
          schedule A#1 1
        pause
          paused: 
        complete A#1 null
          exit A null
          completed {}
        ",
    );
}

#[test]
fn a_wait_that_ends_meanwhile_goes_on_at_once() {
    check(
        r"
        states:
          - { name: Rest, type: Wait, duration: 10s, next: More }
          - { name: More, type: Wait, duration: 10s, next: Done }
          - { name: Done, type: Succeed }
        ",
        r"
        start null
          enter Rest
          timer at 10000
        at 4000
        pause
          paused: 
        at 15000
        resume
          resumed
        at 15000
          exit Rest null
          enter More
          timer at 25000
        pause
          paused: 
        at 20000
        resume
          resumed
        at 24999
        at 25000
          exit More null
          enter Done
          exit Done null
          completed {}
        ",
    );
}

#[test]
fn attempts_keep_their_timeouts_and_the_next_one_waits() {
    check(
        r"
        states:
          - name: A
            type: Task
            parameters: 1
            timeout: 5s
            retries: { max_attempts: 3, backoff: { jitter: none } }
        ",
        r"
        start null
          enter A
          schedule A#1 1
          timeout at 5000
        pause
          paused: 
        at 5000
          cancel A#1
          retry A#2 at 6000 after TimeoutError
          timer at 6000
        at 9000
        resume
          resumed
        at 9000
          schedule A#2 1
          timeout at 14000
        fail A#2 Declined
          retry A#3 at 11000 after Declined
          timer at 11000
        at 11000
          schedule A#3 1
          timeout at 16000
        complete A#3 null
          exit A null
          completed {}
        ",
    );
}

#[test]
fn a_caught_failure_waits_before_the_state_that_handles_it() {
    check(
        r"
        states:
          - name: A
            type: Task
            parameters: 1
            retries: { max_attempts: 1 }
            catch: [{ error: Declined, result: $.why, next: Undo }]
          - { name: Undo, type: Pass, parameters: '{{ $.why.error }}', result: $.undone }
        ",
        r#"
        start null
          enter A
          schedule A#1 1
        pause
          paused: 
        fail A#1 Declined
          caught A Declined, on to Undo
          timer at 0
        resume
          resumed
        at 0
          enter Undo
          exit Undo "Declined"
          completed {"undone":"Declined","why":{"details":null,"error":"Declined","message":"told","state":"A"}}
        "#,
    );
}

#[test]
fn signals_and_answers_are_taken_and_lead_on_later() {
    check(
        r"
        states:
          - { name: Paid, type: EventTask, event: paid, timeout: 10s, result: $.a, next: More }
          - { name: More, type: EventTask, event: paid, result: $.b, next: Ask }
          - { name: Ask, type: HumanTask, assignee: ann, timeout: 10s, result: $.c }
        ",
        r#"
        start null
          enter Paid
          wait timeout at 10000
        pause
          paused: 
        at 11000
        signal paid 1
          signal paid
          exit Paid 1
          timer at 11000
        signal paid 2
          signal paid waits
        resume
          resumed
        at 12000
          enter More
          exit More 2
          enter Ask
          wait timeout at 22000
          ask ann for Ask
        pause
          paused: 
        at 30000
        answer Ask "yes"
          ann answered Ask
          exit Ask "yes"
          completed {"a":1,"b":2,"c":"yes"}
        "#,
    );
}

#[test]
fn a_timeout_of_a_wait_that_nothing_ended_passes_on_resuming() {
    check(
        r"
        states:
          - { name: Ask, type: HumanTask, assignee: ann, timeout: 10s, on_timeout: Late, next: Late, escalate: [{ after: 5s, assignee: bob }] }
          - { name: Late, type: Succeed, output: late }
        ",
        r#"
        start null
          enter Ask
          wait timeout at 10000
          ask ann for Ask
          escalation at 5000
        pause
          paused: 
        at 20000
        resume
          resumed
        at 20000
          ask bob for Ask
          caught Ask TimeoutError, on to Late
          enter Late
          exit Late "late"
          completed "late"
        "#,
    );
}

#[test]
fn iterations_that_end_make_room_for_others_when_it_is_resumed() {
    check(
        r#"
        states:
          - name: Each
            type: Map
            items: "{{ workflow.input }}"
            max_concurrency: 2
            result: $.all
            iterator: { states: [{ name: Do, type: Task }] }
        "#,
        r#"
        start [1,2,3]
          enter Each
          enter Each/0/Do
          schedule Each/0/Do#1 1
          enter Each/1/Do
          schedule Each/1/Do#1 2
        pause
          paused: 
        complete Do#1 "two"
          exit Each/1/Do "two"
          branch Each/1 done, 2 open
        resume
          resumed
          enter Each/2/Do
          schedule Each/2/Do#1 3
        pause
          paused: 
        complete Do#1 "three"
          exit Each/2/Do "three"
          branch Each/2 done, 1 open
        "#,
    );
}

#[test]
fn branches_join_and_the_state_after_them_waits() {
    check(
        r"
        states:
          - name: Both
            type: Parallel
            result: $.all
            branches:
              - { name: L, type: Task, parameters: 1 }
              - { name: R, type: Task, parameters: 2 }
            next: Done
          - { name: Done, type: Succeed }
        ",
        r#"
        start null
          enter Both
          enter Both/L/L
          schedule Both/L/L#1 1
          enter Both/R/R
          schedule Both/R/R#1 2
        pause
          paused: 
        complete L#1 "l"
          exit Both/L/L "l"
          branch Both/L done, 1 open
        complete R#1 "r"
          exit Both/R/R "r"
          branch Both/R done, 0 open
          exit Both {"L":"l","R":"r"}
          timer at 0
        resume
          resumed
        at 0
          enter Done
          exit Done null
          completed {"all":{"L":"l","R":"r"}}
        "#,
    );
}

const UNDONE: &str = r#"
    timeout: 1m
    states:
      - { name: A, type: Task, parameters: 1, compensate: { resource: "urn:cascade:activity:undo_a" }, next: B }
      - { name: B, type: Task, parameters: 2, compensate: { resource: "urn:cascade:activity:undo_b" }, next: C }
      - { name: C, type: Task, parameters: 3, retries: { max_attempts: 1 } }
"#;

const DONE: &str = "
        start null
          workflow timeout at 60000
          enter A
          schedule A#1 1
        complete A#1 4
          exit A 4
          enter B
          schedule B#1 2
        complete B#1 5
          exit B 5
          enter C
          schedule C#1 3
        pause
          paused: 
";

#[test]
fn who_cancels_a_paused_execution_has_it_undone_at_once() {
    let then = r#"
        cancel enough
          cancel C#1
          compensating 2 after cancelled
          schedule B#1 {"input":2,"output":5}
        complete B#1 null
          compensated B null
          schedule A#1 {"input":1,"output":4}
        complete A#1 null
          compensated A null
          cancelled: enough
    "#;
    check(UNDONE, &format!("{DONE}{then}"));
}

#[test]
fn what_fails_while_it_is_paused_is_undone_when_it_is_resumed() {
    let then = r#"
        fail C#1 Declined
          compensating 2 after Declined
        at 1000
        cancel enough
          ignored: the execution is ending, and compensates what was done
        resume
          resumed
          schedule B#1 {"input":2,"output":5}
        pause
          paused: 
        complete B#1 null
          compensated B null
        resume
          resumed
          schedule A#1 {"input":1,"output":4}
        pause
          paused: 
        complete A#1 null
          compensated A null
          failed Declined at C: told
    "#;
    check(UNDONE, &format!("{DONE}{then}"));
}

#[test]
fn the_workflows_timeout_ends_a_paused_execution() {
    let then = r#"
        at 60000
          cancel C#1
          compensating 2 after timed out
        at 90000
        resume
          resumed
          schedule B#1 {"input":2,"output":5}
        complete B#1 null
          compensated B null
          schedule A#1 {"input":1,"output":4}
        complete A#1 null
          compensated A null
          timed out after 60000
    "#;
    check(UNDONE, &format!("{DONE}{then}"));
}

/// What an operator does about a mistake: pause, move to a version without it, resume.
#[test]
fn a_held_state_is_entered_as_the_version_has_it_that_it_was_moved_to() {
    let old = compile(TWO);
    let new = compile(
        r"
        states:
          - { name: A, type: Task, parameters: 1, result: $.a, next: B }
          - { name: B, type: Pass, parameters: '{{ $.a }}', result: $.b }
        ",
    );
    let mut run = Run::new(old.clone());
    run.start(text("null"));
    run.apply(EventKind::ExecutionPaused {
        reason: String::new(),
    });
    let task = run.only_task();
    run.apply(completed(task.task, 1, text("7")));
    let none = BTreeMap::new();
    let plan = Plan::new(&old, &new, &none);
    assert_eq!(plan.judge(&run.execution), Verdict::Safe);
    run.migrate(new, none);
    assert!(run.execution.paused.is_some());
    run.apply(EventKind::ExecutionResumed {});
    run.fire_due_timers();
    let output = text(r#"{"a":7,"b":7}"#);
    assert_eq!(run.execution.status, Status::Completed { output });
    run.check_replay();
}

#[test]
fn a_timer_that_is_held_neither_wakes_nor_fires() {
    let mut run = Run::new(compile(TWO));
    run.start(text("null"));
    run.apply(EventKind::ExecutionPaused {
        reason: "wait".to_owned(),
    });
    let task = run.only_task();
    run.apply(completed(task.task, 1, text("7")));
    let Step::Held { timer } = run.execution.frames.values().next().expect("one").step else {
        panic!("not held");
    };
    assert_eq!(run.execution.wake_at(), None);
    assert!(run.execution.due_timers(START.plus(1_000_000)).is_empty());
    assert!(run.execution.is_idle());
    let told = run.apply(EventKind::TimerFired { timer });
    assert_eq!(told, ["ignored: this timer is not set, or not yet due"]);
    run.apply(EventKind::ExecutionResumed {});
    assert_eq!(run.execution.wake_at(), Some(START));
}
