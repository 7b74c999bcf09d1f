//! What a snapshot is: all that there is of an execution, and nothing else.

use cascade_cdl::{Execution, Step};
use serde_json::json as value;

use crate::compile::compile;
use crate::transcript::{Run, json};

/// Most executions have no signals and nothing to undo; a million snapshots do not
/// say so a million times.
#[test]
fn what_there_is_not_is_left_out() {
    let mut run = Run::new(compile(
        r"
        states:
          - name: P
            type: Parallel
            branches: [{ name: b, states: [{ name: A, type: Task, parameters: 1 }] }]
        ",
    ));
    run.start(json("null"));
    let snapshot = serde_json::to_value(&run.execution).expect("JSON");
    for absent in ["saga", "inbox", "paused", "origin", "parent"] {
        assert_eq!(snapshot.get(absent), None, "{absent}");
    }
    let joining = &snapshot["frames"]["0"]["step"]["Joining"];
    assert_eq!(joining, &value!({"open": 1}));
    let read: Execution = serde_json::from_value(snapshot).expect("it reads back");
    assert_eq!(read, run.execution);
    let steps: Vec<_> = read.frames.values().map(|frame| &frame.step).collect();
    assert!(matches!(
        steps[..],
        [Step::Joining { .. }, Step::Activity { .. }]
    ));
}
