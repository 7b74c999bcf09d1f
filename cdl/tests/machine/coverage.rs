//! Which states and transitions an execution went through.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use cascade_cdl::coverage::{Cause, Coverage, Edge, Trace, edges};
use cascade_cdl::plan::path;
use cascade_cdl::program::Program;
use cascade_cdl::{
    ActivityFailure, Command, Event, EventKind, Execution, Json, Receipt, SEMANTICS, apply_traced,
};

use crate::compile::compile;
use crate::transcript::{START, id, tenant};

/// As `A → B`, `A ⇒ B` for what is caught, and `A ↳ B` for what is inside.
fn named(program: &Program, edge: Edge) -> String {
    let arrow = match edge.cause {
        Cause::Next => "→",
        Cause::Caught => "⇒",
        Cause::Inside => "↳",
    };
    let (from, to) = (path(program, edge.from), path(program, edge.to));
    format!("{from} {arrow} {to}")
}

/// Runs an execution whose attempts end with `outcomes`, in the order in which
/// they are asked for: JSON, or `!` and the name of an error. Checks what was entered and what
/// of all transitions was not taken.
#[track_caller]
fn check(workflow: &str, outcomes: &[&str], entered: &[&str], missed: &[&str]) {
    let program = compile(workflow);
    let mut execution = Execution::new(id(), tenant());
    let mut trace = Trace::default();
    let mut outcomes = outcomes.iter();
    let mut events = VecDeque::from([EventKind::ExecutionStarted {
        input: Json::parse("{}".to_owned()).expect("JSON"),
        shards: 10,
        machine: SEMANTICS,
        parent: None,
        schedule: None,
        shard_key: None,
        priority: None,
        labels: BTreeMap::new(),
    }]);
    while let Some(kind) = events.pop_front() {
        let seq = execution.version + 1;
        let event = Event {
            seq,
            at: START,
            kind,
        };
        let mut observe = |record| trace.observe(&program, &record);
        let transition = apply_traced(&program, execution, &event, &mut observe);
        let transition = transition.expect("the next event");
        execution = transition.execution;
        for command in transition.commands {
            let Command::ScheduleActivity(asked) = command else {
                continue;
            };
            let (task, attempt) = (asked.task, asked.attempt);
            let outcome = outcomes.next().expect("an outcome for each attempt");
            events.push_back(match outcome.strip_prefix('!') {
                None => EventKind::ActivityCompleted {
                    task,
                    attempt,
                    output: Json::parse((*outcome).to_owned()).expect("JSON"),
                    receipt: Receipt::default(),
                },
                Some(error) => EventKind::ActivityFailed {
                    task,
                    attempt,
                    failure: ActivityFailure {
                        error: error.to_owned(),
                        message: String::new(),
                        retryable: Some(false),
                        details: None,
                    },
                    receipt: None,
                },
            });
        }
    }
    assert!(execution.is_closed(), "{:?}", execution.status);
    let went: Vec<_> = trace
        .entered()
        .iter()
        .map(|id| path(&program, *id))
        .collect();
    assert_eq!(went, entered);
    let mut coverage = Coverage::new(&program);
    coverage.add(&trace);
    let left = coverage.edges().filter(|(_, taken)| !taken);
    let left: Vec<_> = left.map(|(edge, _)| named(&program, edge)).collect();
    assert_eq!(left, missed);
    for (id, covered) in coverage.states() {
        assert_eq!(covered, trace.entered().contains(&id));
    }
}

const ORDER: &str = r#"
states:
  - {name: Check, type: Task, result: $.n, catch: [{error: Bad, next: Sorry}, {error: Worse, next: Sorry}], next: Which}
  - name: Which
    type: Choice
    choices: [{condition: "{{ $.n > 1 }}", next: Many}, {condition: "{{ $.n > 9 }}", next: Many}]
    default: Sorry
  - {name: Many, type: Pass, end: true}
  - {name: Sorry, type: Fail, error: Sorry}
"#;

#[test]
fn ways_to_the_same_state_are_one_transition() {
    let all = compile(ORDER);
    let all: Vec<_> = edges(&all)
        .into_iter()
        .map(|edge| named(&all, edge))
        .collect();
    let expected = [
        "Check → Which",
        "Check ⇒ Sorry",
        "Which → Many",
        "Which → Sorry",
    ];
    assert_eq!(all, expected);
}

#[test]
fn what_is_caught_is_another_transition_than_what_follows() {
    check(
        ORDER,
        &["2"],
        &["Check", "Which", "Many"],
        &["Check ⇒ Sorry", "Which → Sorry"],
    );
    check(
        ORDER,
        &["!Worse"],
        &["Check", "Sorry"],
        &["Check → Which", "Which → Many", "Which → Sorry"],
    );
    // Nobody catches it: no transition at all.
    check(
        ORDER,
        &["!Other"],
        &["Check"],
        &[
            "Check → Which",
            "Check ⇒ Sorry",
            "Which → Many",
            "Which → Sorry",
        ],
    );
}

/// The result of `A` does not fit there, which `A` itself catches.
#[test]
fn a_state_that_was_left_in_vain_takes_its_catch() {
    check(
        r#"
states:
  - {name: N, type: Pass, parameters: 1, result: $.n, next: A}
  - {name: A, type: Task, result: $.n.inner, catch: [{error: "*", next: B}], next: C}
  - {name: B, type: Pass, end: true}
  - {name: C, type: Pass, end: true}
"#,
        &["1"],
        &["N", "A", "B"],
        &["A → C"],
    );
}

#[test]
fn branches_and_iterations_have_transitions_of_their_own() {
    check(
        r#"
states:
  - name: Both
    type: Parallel
    branches:
      - name: left
        states:
          - {name: L1, type: Pass, next: L2}
          - {name: L2, type: Pass, end: true}
      - {name: R, type: Pass}
    next: Each
  - name: Each
    type: Map
    items: "{{ [1, 2] }}"
    max_concurrency: 1
    iterator:
      states:
        - {name: I, type: Choice, choices: [{condition: "{{ map.item == 1 }}", next: One}], default: Other}
        - {name: One, type: Pass, end: true}
        - {name: Other, type: Pass, end: true}
    next: None
  - {name: None, type: Map, items: "{{ [] }}", max_concurrency: 1, iterator: {states: [{name: N, type: Pass, end: true}]}, end: true}
"#,
        &[],
        &[
            "Both",
            "Both/left/L1",
            "Both/left/L2",
            "Both/R/R",
            "Each",
            "Each/I",
            "Each/One",
            "Each/I",
            "Each/Other",
            "None",
        ],
        &["None ↳ None/N"],
    );
}

#[test]
fn a_definition_in_asl_is_covered_alike() {
    check(
        r#"
StartAt: A
States:
  A:
    Type: Task
    Resource: "urn:cascade:activity:a"
    Catch: [{ErrorEquals: [X], Next: C}]
    Next: B
  B:
    Type: Choice
    Choices: [{Variable: $.n, NumericEquals: 1, Next: C}]
    Default: D
  C: {Type: Succeed}
  D: {Type: Parallel, Branches: [{StartAt: E, States: {E: {Type: Pass, End: true}}}], End: true}
"#,
        &["{\"n\":2}"],
        &["A", "B", "D", "D/0/E"],
        &["A ⇒ C", "B → C"],
    );
}
