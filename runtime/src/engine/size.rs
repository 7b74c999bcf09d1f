//! How large an execution is, roughly.

use cascade_cdl::{Execution, Step};

/// Size of a snapshot, roughly, in bytes.
pub(super) fn text(execution: &Execution) -> usize {
    let frames = execution.frames.values().map(|frame| held(&frame.step));
    usize::try_from(execution.context_bytes).unwrap_or(usize::MAX) + frames.sum::<usize>()
}

fn held(step: &Step) -> usize {
    match step {
        Step::Activity { input: text, .. }
        | Step::BackingOff { input: text, .. }
        | Step::Done { output: text } => text.len(),
        Step::Waiting { .. } | Step::Joining { .. } | Step::Stopped {} => 0,
    }
}
