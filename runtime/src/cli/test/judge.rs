//! Holds how an execution went against what a test expects.

use cascade_cdl::{Failure, Status};
use serde::Serialize;

use super::super::output::{Tone, brief};
use super::compare::{self, Line};
use super::file::{Calls, Ending, ExpectedError, File, Test};
use super::load::Suite;
use super::play::{Call, Played, Visit};
use crate::config::units::format_duration;

/// Stands for any states in a path.
pub(super) const ANY: &str = "...";

/// Lines of one mismatch that are shown: a path of hundreds of states would push
/// everything else off the screen.
const MAX_LINES: usize = 100;

/// How much of a message a line shows, in characters.
const SHOWN: usize = 400;

/// Something that is not as expected.
#[derive(Debug, Serialize)]
pub(super) struct Mismatch {
    /// The key under `expect`, or `test`.
    pub what: String,
    #[serde(serialize_with = "texts")]
    pub lines: Vec<Line>,
}

fn texts<S: serde::Serializer>(lines: &[Line], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(|(_, text)| text))
}

/// All that is not as the test expects; nothing if it passes. What is wrong with the
/// test itself goes before: all else follows from it.
pub(super) fn judge(suite: &Suite, test: &Test, played: &Played) -> Vec<Mismatch> {
    if !played.faults.is_empty() {
        return vec![Mismatch {
            what: "test".to_owned(),
            lines: played.faults.iter().cloned().map(bad).collect(),
        }];
    }
    let mut found = Vec::new();
    let mut add = |what: &str, mut lines: Vec<Line>| {
        if lines.is_empty() {
            return;
        }
        let more = lines.len().saturating_sub(MAX_LINES);
        if more > 0 {
            lines.truncate(MAX_LINES);
            lines.push((Tone::Faint, format!("and {more} more lines")));
        }
        found.push(Mismatch {
            what: what.to_owned(),
            lines,
        });
    };
    let expect = &test.expect;
    add("status", status(File::ending(expect), played));
    if let Some(path) = &expect.path {
        let fits = |entry: &str, visit: &Visit| is_at(suite, entry, visit);
        let name = |visit: &Visit| visit.place.clone();
        let lines = compare::diff_path(path, &played.visits, ANY, fits, name);
        add("path", lines);
    }
    match &played.status {
        Status::Completed { output } => {
            let expected = expect.output.as_ref().map(|value| (value, false));
            let part = expect.contains.as_ref().map(|value| (value, true));
            if let Some((value, part)) = expected.or(part) {
                add(
                    "output",
                    compare::differences(value, &output.to_value(), part),
                );
            }
        }
        Status::Failed { failure } => {
            if let Some(expected) = &expect.error {
                add("error", error(expected, failure));
            }
        }
        _ => {}
    }
    for (name, calls) in &expect.calls {
        add("calls", made(suite, name, calls, &played.calls));
    }
    if let Some(took) = expect.took
        && took != played.took
    {
        let (expected, actual) = (format_duration(took), format_duration(played.took));
        add(
            "took",
            vec![bad(format!("expected {expected}, took {actual}"))],
        );
    }
    found
}

fn bad(text: String) -> Line {
    (Tone::Bad, text)
}

/// Whether an entry of a path names this state: by its name, its path, or that with
/// the indexes of iterations.
fn is_at(suite: &Suite, entry: &str, visit: &Visit) -> bool {
    let state = suite.program.state(visit.state);
    entry == &*state.name || entry == suite.state(visit.state) || entry == visit.place
}

fn status(expected: Ending, played: &Played) -> Vec<Line> {
    let (actual, detail) = match &played.status {
        Status::Completed { output } => (Ending::Completed, output.as_str().to_owned()),
        Status::Failed { failure } => (Ending::Failed, told(failure)),
        Status::TimedOut { timeout_ms } => (Ending::TimedOut, format!("after {timeout_ms} ms")),
        Status::Cancelled { reason } => (Ending::Cancelled, reason.clone()),
        Status::Running | Status::Compensating { .. } => {
            (Ending::Waiting, played.awaited.join("; "))
        }
    };
    if actual == expected {
        return Vec::new();
    }
    let detail = brief(&detail, SHOWN);
    let text = format!("expected {expected}, got {actual}: {detail}");
    vec![bad(text.trim_end_matches([':', ' ']).to_owned())]
}

fn told(failure: &Failure) -> String {
    let state = failure.state.as_deref().unwrap_or("the workflow");
    let message = Some(&failure.message).filter(|message| !message.is_empty());
    let message = message.map_or_else(String::new, |message| format!(": {message}"));
    format!("{}{message} (in {state})", failure.error)
}

fn error(expected: &ExpectedError, failure: &Failure) -> Vec<Line> {
    let mut lines = Vec::new();
    if failure.error != expected.name {
        let text = format!("expected {}, got {}", expected.name, told(failure));
        lines.push(bad(brief(&text, SHOWN)));
        return lines;
    }
    if let Some(part) = &expected.message
        && !failure.message.contains(part.as_str())
    {
        let message = brief(&failure.message, SHOWN);
        lines.push(bad(format!(
            "expected a message with {part:?}, got {message:?}"
        )));
    }
    // A failure has the name of its state only, without those around it.
    let is_in = |state: &str| {
        let actual = failure.state.as_deref();
        actual.is_some_and(|actual| state == actual || state.ends_with(&format!("/{actual}")))
    };
    if let Some(state) = &expected.state
        && !is_in(state)
    {
        let actual = failure.state.as_deref().unwrap_or("the workflow");
        lines.push(bad(format!("expected it in {state}, got it in {actual}")));
    }
    lines
}

/// What is wrong with the calls of an activity, or of the state of this name.
fn made(suite: &Suite, name: &str, expected: &Calls, calls: &[Call]) -> Vec<Line> {
    let of_name = |call: &&Call| {
        let state = call
            .state
            .is_some_and(|id| suite.state(id) == name || *suite.program.state(id).name == *name);
        state || *call.activity == *name
    };
    let calls: Vec<&Call> = calls.iter().filter(of_name).collect();
    let wanted = match expected {
        Calls::Times(times) => *times,
        Calls::Inputs(inputs) => inputs.len() as u64,
    };
    let mut lines = Vec::new();
    if calls.len() as u64 != wanted {
        lines.push(bad(format!(
            "{name}: expected {wanted}, got {}",
            calls.len()
        )));
    }
    if let Calls::Inputs(inputs) = expected {
        for (index, (input, call)) in inputs.iter().zip(&calls).enumerate() {
            let differing = compare::differences(input, &call.input.to_value(), true);
            let named = |(tone, text)| (tone, format!("{name}, call {}: {text}", index + 1));
            lines.extend(differing.into_iter().map(named));
        }
    }
    lines
}
