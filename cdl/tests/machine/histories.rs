//! Recorded histories replay for ever, to the execution that was recorded with
//! them, whatever the machine has learnt since.
//!
//! `tests/histories` has a workflow and its recording for each. A recording is
//! never edited; when this test fails, the machine has changed what old
//! histories mean, and needs a new `SEMANTICS` beside the old one.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cascade_cdl::program::Program;
use cascade_cdl::{Event, EventKind, Execution, SEMANTICS, Source, Status, parse, replay};
use serde::{Deserialize, Serialize};

/// What happened to one execution, and what came of it.
#[derive(Serialize, Deserialize)]
struct Recording {
    workflow: String,
    events: Vec<Event>,
    execution: Execution,
    /// Number of attempts whose outcome is awaited.
    pending: usize,
}

#[track_caller]
fn recorded(name: &str) -> (Arc<Program>, Recording) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let file = |extension| {
        let path = directory.join(name).with_extension(extension);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let recording: Recording = serde_json::from_str(&file("json")).expect("a recording");
    let parsed = parse(&Source {
        name,
        bytes: file("yaml").as_bytes(),
    });
    let application = parsed.application.expect("the workflow compiles");
    (
        application.workflows[&recording.workflow].clone(),
        recording,
    )
}

#[track_caller]
fn check(name: &str) {
    let (program, recording) = recorded(name);
    let (id, tenant) = (recording.execution.id, recording.execution.tenant.clone());
    let (execution, pending) =
        replay(&program, id, tenant, &recording.events).expect("the history replays");
    assert_eq!(execution, recording.execution);
    assert_eq!(pending.len(), recording.pending);
}

#[test]
fn a_completed_order_replays() {
    check("order");
}

#[test]
fn a_running_validation_replays() {
    check("regions");
}

#[test]
fn what_is_held_while_it_is_paused_replays() {
    check("paused");
}

#[test]
fn a_thousand_copies_that_the_first_machine_did_not_count_replay() {
    check("copies");
}

#[test]
fn an_endless_loop_of_the_first_machine_replays_to_its_words() {
    check("endless");
}

/// The recording above is worth something only as long as this holds.
#[test]
fn what_is_started_today_counts_the_copies() {
    let (program, mut recording) = recorded("copies");
    let EventKind::ExecutionStarted { machine, .. } = &mut recording.events[0].kind else {
        panic!("not a start");
    };
    *machine = SEMANTICS;
    let Recording {
        events, execution, ..
    } = recording;
    let (execution, _) =
        replay(&program, execution.id, execution.tenant, &events).expect("the history replays");
    let Status::Failed { failure } = execution.status else {
        panic!("not failed: {:?}", execution.status);
    };
    assert_eq!(failure.error, "StepLimitExceeded");
}
