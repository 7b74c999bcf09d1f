//! Which executions can go on under a new version of their workflow.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::plan::{Plan, Verdict};
use cascade_cdl::program::Program;
use cascade_cdl::{ApplyError, Event, EventKind, apply, migrate, replay};
use serde_json::json;

use crate::compile::compile;
use crate::transcript::{Run, completed, id, json as text, tenant};

const OLD: &str = r#"
states:
  - {name: Check, type: Task, result: $.check, next: Charge}
  - {name: Charge, type: Task, parameters: "{{ $.check.total }}", result: $.paid, compensate: {resource: "urn:cascade:activity:refund"}, next: Wait}
  - {name: Wait, type: Wait, duration: 1h, next: Approve}
  - {name: Approve, type: HumanTask, assignee: ann, timeout: 1d, result: $.approved, next: Ship}
  - {name: Ship, type: Task, parameters: "{{ $.paid.id }}", end: true}
"#;

/// The old version, changed by replacing texts.
fn changed(replacements: &[(&str, &str)]) -> Arc<Program> {
    let mut workflow = OLD.to_owned();
    for (from, to) in replacements {
        assert!(workflow.contains(from), "{from}");
        workflow = workflow.replace(from, to);
    }
    compile(&workflow)
}

/// An execution of the old version that stands in this state.
fn standing_in(state: &str) -> Run {
    let mut run = Run::new(compile(OLD));
    run.start(text("{}"));
    for _ in 0..4 {
        let at = run
            .execution
            .frames
            .values()
            .next()
            .expect("the root")
            .state;
        if *run.program.state(at).name == *state {
            return run;
        }
        if let Some(wake) = run.execution.wake_at().filter(|_| run.execution.is_idle()) {
            run.pass_until(wake);
            run.fire_due_timers();
        } else {
            let task = run.only_task();
            run.apply(completed(task.task, 1, text(r#"{"total":1,"id":2}"#)));
        }
    }
    panic!("it never stands in {state}");
}

#[track_caller]
fn check(state: &str, replacements: &[(&str, &str)], expected: &str) {
    let run = standing_in(state);
    let new = changed(replacements);
    let none = BTreeMap::new();
    let plan = Plan::new(&run.program, &new, &none);
    assert_eq!(plan.judge(&run.execution).to_string(), expected);
}

const INSERTED: (&str, &str) = (
    "result: $.check, next: Charge}",
    "result: $.check, next: Fraud}\n  - {name: Fraud, type: Task, result: $.fraud, next: Charge}",
);

#[test]
fn what_is_ahead_may_change() {
    check("Charge", &[("$.paid.id", "$.paid")], "safe");
    check("Check", &[INSERTED, ("$.paid.id", "$.fraud")], "safe");
    check(
        "Wait",
        &[("type: Wait, duration: 1h", "type: Wait, duration: 2h")],
        "safe",
    );
    check(
        "Charge",
        &[("parameters: \"{{ $.check.total }}\"", "parameters: 1")],
        "safe",
    );
}

#[test]
fn what_is_ahead_has_to_find_what_it_needs() {
    check(
        "Wait",
        &[INSERTED, ("$.paid.id", "$.fraud")],
        "stuck: `Ship` needs `$.fraud`, which `Fraud` gives: that is behind",
    );
    check(
        "Check",
        &[("$.paid.id", "$.nobody")],
        "stuck: `Ship` needs `$.nobody`, which nothing gives",
    );
    check(
        "Wait",
        &[INSERTED, ("$.paid.id", "$.fraud | default: 1")],
        "safe",
    );
}

#[test]
fn what_is_under_way_has_to_mean_the_same() {
    let other = (
        "name: Check, type: Task",
        "name: Check, type: Task, resource: \"urn:cascade:activity:other\"",
    );
    check(
        "Check",
        &[other],
        "stuck: `Check` is under way, and its `resource` changed",
    );
    check("Charge", &[other], "safe");
    check(
        "Approve",
        &[("timeout: 1d", "timeout: 2d")],
        "stuck: `Approve` is under way, and its `timeout` changed",
    );
    check("Approve", &[("assignee: ann", "assignee: bob")], "safe");
    check(
        "Wait",
        &[("type: Wait, duration: 1h", "type: Pass")],
        "stuck: `Wait` is under way, and its `type` changed",
    );
}

#[test]
fn what_was_done_has_to_be_undone_as_it_was_promised() {
    check(
        "Wait",
        &[("activity:refund", "activity:credit")],
        "stuck: `Charge` was done, and what undoes it has changed",
    );
    check("Check", &[("activity:refund", "activity:credit")], "safe");
}

#[test]
fn a_state_that_is_gone_needs_a_mapping_and_goes_on_with_one() {
    let renamed = [("Check", "Validate")];
    check("Check", &renamed, "needs a mapping: Check");
    check("Wait", &renamed, "safe");
    let run = standing_in("Check");
    let new = changed(&renamed);
    let mapping = BTreeMap::from([("Check".to_owned(), "Validate".to_owned())]);
    let plan = Plan::new(&run.program, &new, &mapping);
    assert_eq!(plan.judge(&run.execution), Verdict::Safe);
    assert!(plan.diff().states.is_empty(), "a new name is no change");

    let mut run = run;
    assert_eq!(
        run.migrate(Arc::clone(&new), mapping),
        ["moved from 1 to 2"]
    );
    assert_eq!(run.execution.origin, Some(1));
    let task = run.only_task();
    assert_eq!(&*task.state, "Validate");
    let told = run.apply(completed(task.task, 1, text(r#"{"total":1,"id":2}"#)));
    assert_eq!(told[0], r#"exit Validate {"total":1,"id":2}"#);
    run.check_replay();
}

#[test]
fn what_was_moved_goes_through_the_states_of_the_new_version_and_replays() {
    let mut run = standing_in("Wait");
    let added = changed(&[
        ("duration: 1h, next: Approve", "duration: 1h, next: Note"),
        (
            "  - {name: Approve",
            "  - {name: Note, type: Task, next: Approve}\n  - {name: Approve",
        ),
    ]);
    run.migrate(added, BTreeMap::new());
    let wake = run.execution.wake_at().expect("the timer runs on");
    run.pass_until(wake);
    let told = run.fire_due_timers();
    assert!(told.contains(&"enter Note".to_owned()), "{told:?}");
    let task = run.only_task();
    // Back again, and on from where it stands.
    run.migrate(
        changed(&[
            ("name: Ship", "name: Send"),
            ("next: Ship", "next: Note"),
            (
                "{name: Approve",
                "{name: Note, type: Task, next: Send}\n  - {name: Approve",
            ),
        ]),
        BTreeMap::new(),
    );
    let told = run.apply(completed(task.task, 1, text("1")));
    assert!(told.contains(&"enter Send".to_owned()), "{told:?}");
    assert_eq!(run.execution.origin, Some(1), "what it was started with");
    run.check_replay();
}

#[test]
fn a_timeout_of_the_workflow_runs_on_as_it_was_set() {
    let waiting = "states: [{name: W, type: Wait, duration: 10m, end: true}]";
    let mut run = Run::new(compile(&format!("timeout: 2m\n{waiting}")));
    run.start(text("{}"));
    run.pass_time(60_000);
    run.migrate(compile(waiting), BTreeMap::new());
    let wake = run.execution.wake_at().expect("it waits");
    assert_eq!(wake.since(run.execution.started_at), 120_000);
    run.pass_until(wake);
    // The new version has no limit that it could name.
    assert_eq!(run.fire_due_timers(), ["timed out after 120000"]);
    run.check_replay();
}

#[test]
fn a_move_without_its_programs_or_to_one_that_lacks_a_state_is_an_error() {
    let run = standing_in("Check");
    let event = |states| Event {
        seq: run.execution.version + 1,
        at: run.now(),
        kind: EventKind::ExecutionMigrated {
            from: 1,
            to: 2,
            states,
        },
    };
    let to_nowhere = |error: Option<ApplyError>| {
        assert!(
            matches!(error, Some(ApplyError::Move { to: 2, .. })),
            "{error:?}"
        );
    };
    let move_only = event(BTreeMap::new());
    to_nowhere(apply(&run.program, run.execution.clone(), &move_only).err());
    let new = changed(&[("Check", "Validate")]);
    let plan = Plan::new(&run.program, &new, &BTreeMap::new());
    let moved = migrate(&plan, run.execution.clone(), &move_only, &mut |_| ());
    to_nowhere(moved.err());
    // A plan for other names than those of the event, which would fit.
    let same = changed(&[]);
    let plan = Plan::new(&run.program, &same, &BTreeMap::new());
    let renames = event(BTreeMap::from([("Check".to_owned(), "Check".to_owned())]));
    let moved = migrate(&plan, run.execution.clone(), &renames, &mut |_| ());
    to_nowhere(moved.err());
    let mut history = run.history.clone();
    history.push(move_only);
    to_nowhere(replay(&run.program, id(), tenant(), &history).err());
}

#[test]
fn a_difference_is_told_as_text_and_as_data() {
    let new = changed(&[
        INSERTED,
        ("duration: 1h", "duration: 2h"),
        (
            "  - {name: Ship, type: Task, parameters: \"{{ $.paid.id }}\", end: true}\n",
            "",
        ),
        ("next: Ship", "end: true"),
    ]);
    let old = compile(OLD);
    let none = BTreeMap::new();
    let plan = Plan::new(&old, &new, &none);
    assert_eq!(
        plan.diff().to_string(),
        "workflow test\n  ~ Approve: next\n  ~ Check: next\n  + Fraud\n  - Ship\n  ~ Wait: duration\n"
    );
    assert_eq!(
        serde_json::to_value(plan.diff()).expect("data"),
        json!({
            "workflow": "test",
            "fields": [],
            "states": [
                {"state": "Approve", "change": "changed", "fields": ["next"]},
                {"state": "Check", "change": "changed", "fields": ["next"]},
                {"state": "Fraud", "change": "added"},
                {"state": "Ship", "change": "removed"},
                {"state": "Wait", "change": "changed", "fields": ["duration"]},
            ],
        })
    );
    let same = compile(OLD);
    let plan = Plan::new(&old, &same, &none);
    assert_eq!(plan.diff().to_string(), "workflow test\n  no change\n");
}

#[test]
fn nested_states_have_the_path_of_what_is_around_them() {
    let old = compile(
        r"
        states:
          - name: P
            type: Parallel
            branches:
              - {name: us, states: [{name: A, type: Wait, duration: 1h}]}
              - {name: eu, states: [{name: A, type: Wait, duration: 1h}]}
            next: M
          - name: M
            type: Map
            items: '{{ [1] }}'
            iterator: {states: [{name: A, type: Wait, duration: 1h}]}
        ",
    );
    let new = compile(
        r"
        states:
          - name: P
            type: Parallel
            branches:
              - {name: us, states: [{name: A, type: Wait, duration: 2h}]}
              - {name: uk, states: [{name: A, type: Wait, duration: 1h}]}
            next: M
          - name: M
            type: Map
            items: '{{ [1] }}'
            iterator: {states: [{name: B, type: Wait, duration: 1h}]}
        timeout: 1d
        ",
    );
    let none = BTreeMap::new();
    let plan = Plan::new(&old, &new, &none);
    assert_eq!(
        plan.diff().to_string(),
        "workflow test\n  ~ timeout\n  - M/A\n  + M/B\n  ~ P: branches\n  - P/eu/A\n  + P/uk/A\n  ~ P/us/A: duration\n"
    );
    let mut run = Run::new(Arc::clone(&old));
    run.start(text("{}"));
    assert_eq!(
        plan.judge(&run.execution).to_string(),
        "stuck: `P` is under way, and its `branches` changed"
    );
}

#[test]
fn of_asl_nothing_ahead_may_change() {
    let definition = |wait: u32, after: &str| {
        compile(&format!(
            r#"{{"StartAt": "A", "States": {{
                "A": {{"Type": "Pass", "Next": "W"}},
                "W": {{"Type": "Wait", "Seconds": {wait}, "Next": "B"}},
                "B": {{"Type": "Pass", "Result": {after}, "End": true}}}}}}"#
        ))
    };
    let old = definition(10, "1");
    let mut run = Run::new(Arc::clone(&old));
    run.start(text("{}"));
    let none = BTreeMap::new();
    for (new, expected) in [
        (definition(10, "1"), "safe"),
        (
            definition(10, "2"),
            "stuck: `B` is ahead, and is not what it was",
        ),
        (
            definition(20, "1"),
            "stuck: `W` is under way, and its `Seconds` changed",
        ),
        (
            compile(OLD),
            "stuck: the new version is in another language",
        ),
    ] {
        let plan = Plan::new(&old, &new, &none);
        assert_eq!(plan.judge(&run.execution).to_string(), expected);
    }
}

#[test]
fn a_child_that_runs_keeps_its_workflow_and_is_waited_for_or_not() {
    let child = |rest: &str| {
        let state = format!("states: [{{ name: Ship, type: SubWorkflow, workflow: {rest} }}]");
        compile(&state)
    };
    let old = child("test");
    let mut run = Run::new(Arc::clone(&old));
    run.start(text("{}"));
    let none = BTreeMap::new();
    for (new, changed) in [
        ("test", None),
        ("test, parent_close_policy: abandon", None),
        ("test, timeout: 1h", None),
        ("other/test", Some("`resource`")),
        ("test, wait: false", Some("`wait`")),
    ] {
        let new = child(new);
        match (Plan::new(&old, &new, &none).judge(&run.execution), changed) {
            (Verdict::Safe, None) => {}
            (Verdict::Stuck { reasons }, Some(field)) => {
                assert!(reasons.iter().any(|reason| reason.contains(field)));
            }
            (verdict, _) => panic!("{changed:?}: {verdict:?}"),
        }
    }
}
