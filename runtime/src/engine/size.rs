//! How much memory an execution takes, roughly.
//!
//! A context takes far more as values than as text: `[0,0]` about ten times,
//! `[{},{"a":0}]` up to a hundred. So values are counted, but not anew after
//! every event: a context is walked when its text has grown by a part of what
//! it was, which makes the walks of an execution a small multiple of its texts.

use cascade_cdl::asl::Data;
use cascade_cdl::{Execution, Frame, Iteration, Spreading, Step};
use serde_json::Value;

/// A shard's own bookkeeping for an execution in memory, with its row.
const LIVE_BYTES: u64 = 1024;

/// The context is walked again when it has grown by one part in so many.
const WALK_AT: u64 = 8;

/// What a byte of text that has not been walked is taken for: what a list of
/// small numbers takes.
const BYTES_PER_BYTE: u64 = 16;

/// A node of a map, with room for 11 entries.
const NODE_BYTES: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 32;

/// Entries in a node, on average of a map that was filled in any order.
const NODE_ENTRIES: usize = 7;

/// What an iteration has besides its item and what it has written: its frame,
/// and two objects of a few entries.
const ITERATION_BYTES: usize = 512;

/// What an item or an output of a Map state takes besides its text: its place
/// in a map, and the counts of a shared text.
const ENTRY_BYTES: usize = 64;

/// What a chunk of a distributed Map takes besides its texts: its place in a map, its
/// number, where it is.
const CHUNK_ENTRY_BYTES: usize = 192;

/// What a completed step that may have to be compensated takes besides its texts.
const STEP_BYTES: usize = 96;

/// What a `HumanTask` takes besides its texts.
const ASKING_BYTES: usize = 128;

/// What a signal in the inbox takes besides its payload.
const SIGNAL_BYTES: usize = 128;

/// What is kept of a signal or an answer that was taken, at most.
const SEEN_BYTES: usize = 320;

/// A context's size when it was walked last.
#[derive(Default)]
pub(super) struct Walked {
    text: u64,
    memory: u64,
}

impl Walked {
    /// Memory that an open execution takes, without what it was started with.
    pub(super) fn measure(&mut self, execution: &Execution) -> u64 {
        let text = execution.context_bytes;
        if text.abs_diff(self.text) > self.text / WALK_AT {
            self.text = text;
            let written = iterations(execution).map(|own| value(&own.context));
            self.memory = (value(&execution.context) + written.sum::<usize>()) as u64;
        }
        let grown = text.saturating_sub(self.text) * BYTES_PER_BYTE;
        let frames = execution
            .frames
            .values()
            .map(|frame| held(&frame.step) + own(frame));
        let items = iterations(execution).map(|own| value(&own.map) + ITERATION_BYTES);
        let own = frames.sum::<usize>() + items.sum::<usize>() + kept(execution);
        LIVE_BYTES + self.memory + grown + own as u64
    }
}

/// Size of a snapshot, roughly, in bytes.
pub(super) fn text(execution: &Execution) -> usize {
    let frames = execution.frames.values().map(|frame| {
        let data = frame.data.as_ref().map_or(0, |data| data.bytes());
        held(&frame.step) + usize::try_from(data).unwrap_or(usize::MAX)
    });
    usize::try_from(execution.context_bytes).unwrap_or(usize::MAX)
        + frames.sum::<usize>()
        + kept(execution)
}

/// Inputs of the attempts that an execution waits for, in bytes.
pub(super) fn inputs(execution: &Execution) -> u64 {
    let inputs = execution.frames.values().map(|frame| match &frame.step {
        Step::Activity { input, .. } => input.len() as u64,
        Step::Spreading(spreading) => {
            let asked = spreading.asked.values();
            asked.map(|asked| asked.input.len() as u64).sum()
        }
        _ => 0,
    });
    inputs.sum()
}

fn held(step: &Step) -> usize {
    match step {
        Step::Activity { input: text, .. }
        | Step::BackingOff { input: text, .. }
        | Step::Done { output: text }
        | Step::Failed { error: text } => text.len(),
        Step::Mapping(mapping) => {
            let entries = mapping.waiting.len() + mapping.done.len() + 2 * mapping.failed.len();
            usize::try_from(mapping.bytes).unwrap_or(usize::MAX) + entries * ENTRY_BYTES
        }
        Step::Spreading(spreading) => {
            let Spreading {
                asked,
                waiting,
                done,
                bytes,
                ..
            } = &**spreading;
            let inputs: usize = asked.values().map(|asked| asked.input.len()).sum();
            let entries = asked.len() + waiting.len() + done.len();
            let texts = usize::try_from(*bytes).unwrap_or(usize::MAX);
            texts.saturating_add(inputs + entries * CHUNK_ENTRY_BYTES)
        }
        Step::Asking(asking) => asking.input.len() + asking.assignee.len() + ASKING_BYTES,
        Step::Waiting { .. }
        | Step::Listening { .. }
        | Step::Joining { .. }
        | Step::Retrying { .. }
        | Step::Held { .. }
        | Step::Calling { .. }
        | Step::Stopped {} => 0,
    }
}

/// What a frame of an ASL definition has of its own. Branches share their input until
/// they change it; each counts it, since each may.
fn own(frame: &Frame) -> usize {
    let Some(data) = &frame.data else { return 0 };
    let values = data.values().map(|held| value(held) + ENTRY_BYTES);
    size_of::<Data>() + values.sum::<usize>()
}

/// What is kept of steps that may have to be compensated, of signals, and of why it
/// is paused.
fn kept(execution: &Execution) -> usize {
    let Execution { saga, inbox, .. } = execution;
    let reason = execution.paused.as_ref().map_or(0, |why| why.reason.len());
    let texts = usize::try_from(saga.bytes + inbox.bytes).unwrap_or(usize::MAX);
    // With its row, and what it is compared with.
    let tags = 2 * execution.tags.bytes();
    let texts = texts.saturating_add(reason + tags);
    let steps = saga.completed.len() * STEP_BYTES;
    let signals =
        inbox.signals.len() * SIGNAL_BYTES + (inbox.seen.len() + inbox.answered.len()) * SEEN_BYTES;
    texts.saturating_add(steps + signals)
}

/// What the iterations of an execution have of their own.
fn iterations(execution: &Execution) -> impl Iterator<Item = &Iteration> {
    let frames = execution.frames.values();
    frames.filter_map(|frame| frame.iteration.as_deref())
}

/// What a value holds on the heap. Recursion is bounded: values of a context
/// are nested at most a hundred levels deep.
fn value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => {
            items.len() * size_of::<Value>() + items.iter().map(self::value).sum::<usize>()
        }
        Value::Object(entries) if entries.is_empty() => 0,
        Value::Object(entries) => {
            let nodes = entries.len().div_ceil(NODE_ENTRIES) * NODE_BYTES;
            let held = entries
                .iter()
                .map(|(key, entry)| key.len() + self::value(entry));
            nodes + held.sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use cascade_cdl::program::{ScopeId, StateId};
    use cascade_cdl::{Completed, ExecutionId, Frame, FrameId, Json, Mapping, TenantId};
    use serde_json::json;

    use super::*;

    fn execution(context: Value) -> Execution {
        let tenant: TenantId = "acme".parse().expect("valid");
        let mut execution = Execution::new(ExecutionId(uuid::Uuid::nil()), tenant);
        execution.context_bytes = context.to_string().len() as u64;
        execution.context = context;
        execution
    }

    fn measure(context: Value) -> u64 {
        Walked::default().measure(&execution(context)) - LIVE_BYTES
    }

    #[test]
    fn values_count_by_what_they_take_and_not_by_their_text() {
        let text = "x".repeat(10_000);
        assert!(measure(json!(text)) <= 10_100);
        assert!(measure(json!(vec![0; 5_000])) >= 100_000);
        assert!(measure(json!(vec![json!({"a": 0}); 1_000])) >= 500_000);
    }

    #[test]
    fn what_iterations_have_counts_as_values_and_what_waits_as_texts() {
        let frame = |step, iteration| Frame {
            parent: None,
            scope: ScopeId::ROOT,
            state: StateId(0),
            step,
            iteration,
            data: None,
        };
        let mut execution = execution(json!({}));
        let empty = Walked::default().measure(&execution);
        let waiting = Json::from_value(&json!(vec![0; 5_000]));
        let mapping = Mapping {
            bytes: waiting.len() as u64,
            waiting: [(1, waiting)].into(),
            ..Mapping::default()
        };
        let step = Step::Mapping(Box::new(mapping));
        execution.frames.insert(FrameId::ROOT, frame(step, None));
        let texts = Walked::default().measure(&execution);
        // Two bytes a number, and some for the entry.
        assert!(
            (10_000..11_000).contains(&(texts - empty)),
            "{}",
            texts - empty
        );

        let own = Iteration {
            index: 0,
            bytes: 10_001,
            map: json!({"index": 0, "item": vec![0; 5_000]}),
            context: json!({"copy": vec![0; 5_000]}),
        };
        let iteration = frame(Step::Stopped {}, Some(Box::new(own)));
        execution.frames.insert(FrameId(1), iteration);
        execution.context_bytes += 10_000;
        let values = Walked::default().measure(&execution) - texts;
        assert!(values >= 200_000, "{values}");
    }

    #[test]
    fn what_may_have_to_be_compensated_counts() {
        let mut execution = execution(json!({}));
        let empty = Walked::default().measure(&execution);
        let before = text(&execution);
        let input = Json::from_value(&json!("x".repeat(10_000)));
        execution.saga.bytes = input.len() as u64;
        execution.saga.completed.push(Completed {
            state: StateId(0),
            path: String::new(),
            input,
        });
        assert!(Walked::default().measure(&execution) >= empty + 10_002);
        assert!(text(&execution) >= before + 10_002);
    }

    #[test]
    fn signals_that_wait_count() {
        let mut execution = execution(json!({}));
        let empty = Walked::default().measure(&execution);
        execution.inbox.bytes = 10_000;
        assert_eq!(Walked::default().measure(&execution), empty + 10_000);
    }

    #[test]
    fn a_context_is_walked_again_when_it_has_grown_by_a_part() {
        let mut walked = Walked::default();
        let mut execution = execution(json!("x".repeat(8_000)));
        let first = walked.measure(&execution);
        execution.context_bytes += 500;
        assert_eq!(walked.measure(&execution), first + 500 * BYTES_PER_BYTE);
        execution.context = json!("x".repeat(10_000));
        execution.context_bytes = 10_002;
        assert_eq!(walked.measure(&execution), first + 2_000);
    }
}
