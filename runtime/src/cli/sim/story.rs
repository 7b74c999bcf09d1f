//! What happened in a run, in lines that a person reads.

use std::fmt::Write as _;

use cascade_cdl::program::{Program, StateKind};
use cascade_cdl::{Place, Record, Timestamp};

use super::super::output::{brief, plain};
use super::faults::{Injected, Point};

/// Lines of a story, at most; more are left out in the middle, as how it began and how it
/// ended is what matters.
const MAX_LINES: usize = 40;

/// How much of a JSON value or a message a line shows.
const SHOWN: usize = 80;

/// A story while it is written. Without an audience nothing is.
pub(super) struct Story {
    start: Timestamp,
    lines: Option<Vec<String>>,
}

impl Story {
    pub(super) fn new(start: Timestamp, told: bool) -> Self {
        Self {
            start,
            lines: told.then(Vec::new),
        }
    }

    pub(super) fn is_told(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds a line; it is made only if somebody reads it.
    pub(super) fn tell(&mut self, at: Timestamp, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let since = seconds(at.since(self.start));
            lines.push(format!("+{since} {}", plain(&line())));
        }
    }

    /// Adds what followed from an event, as far as it tells the story.
    pub(super) fn record(&mut self, at: Timestamp, record: &Record) {
        if let Some(line) = consequence(at, record) {
            self.tell(at, || line);
        }
    }

    /// The lines, less those in the middle if there are too many.
    pub(super) fn finish(self) -> Vec<String> {
        let mut lines = self.lines.unwrap_or_default();
        if lines.len() > MAX_LINES {
            let half = MAX_LINES / 2;
            let tail = lines.split_off(lines.len() - half);
            let left_out = lines.len() - half;
            lines.truncate(half);
            lines.push(format!("... {left_out} lines are left out"));
            lines.extend(tail);
        }
        lines
    }
}

/// Milliseconds as people read them: `1.250s`, `7d2m0.000s`.
pub(super) fn seconds(ms: u64) -> String {
    let parts = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m")];
    let (mut text, mut left) = (String::new(), ms);
    for (part, unit) in parts {
        if left >= part {
            // Writing to a string does not fail.
            let _ = write!(text, "{}{unit}", left / part);
            left %= part;
        }
    }
    let _ = write!(text, "{}.{:03}s", left / 1_000, left % 1_000);
    text
}

/// A value or a message, shortened.
pub(super) fn short(text: &str) -> String {
    brief(text, SHOWN)
}

/// A fault and where it is, on one line.
pub(super) fn fault_text(injected: &Injected, program: &Program) -> String {
    let fault = &injected.fault;
    match &injected.at {
        Point::Commit { number } => format!("commit {number}: {fault}"),
        Point::Attempt {
            state,
            entry,
            attempt,
            dispatch,
        } => {
            let mut times = String::new();
            if *entry > 1 {
                times = format!(", the {entry}. time it is entered");
            }
            if *dispatch > 1 {
                times.push_str(", run again after a crash");
            }
            let what = match resource_of(state, program) {
                Some(name) => format!("{state} ({name})"),
                None => state.to_string(),
            };
            format!("attempt {attempt} of {what}{times}: {fault}")
        }
    }
}

fn resource_of<'p>(state: &str, program: &'p Program) -> Option<&'p str> {
    let mut states = program.states.iter();
    let found = states.find(|found| *found.name == *state)?;
    match &found.kind {
        StateKind::Task(task) => Some(&task.resource.name),
        StateKind::Asl(asl) => asl.activity().map(|resource| &*resource.name),
        _ => None,
    }
}

fn consequence(now: Timestamp, record: &Record) -> Option<String> {
    Some(match record {
        Record::StateEntered { place } => format!("{} entered", at(place)),
        Record::RetryScheduled {
            place,
            attempt,
            at: next,
            error,
            ..
        } => format!(
            "attempt {attempt} of {} follows in {}, after {error}",
            at(place),
            seconds(next.since(now))
        ),
        Record::Caught { place, error, next } => {
            format!("{} catches {error}, next is {next}", at(place))
        }
        Record::SignalReceived { name, buffered } => {
            let waits = if *buffered { ", and waits" } else { "" };
            format!("signal {name} comes{waits}")
        }
        Record::PersonAsked {
            place, assignee, ..
        } => format!("{} asks {assignee}", at(place)),
        Record::PersonAnswered { place, by, .. } => format!("{by} answers {}", at(place)),
        Record::CallbackAwaited { place, .. } => {
            format!("{} waits to be told its outcome", at(place))
        }
        Record::CallbackTaken { place, .. } => format!("{} is told its outcome", at(place)),
        Record::BranchFailed { branch, error, .. } => {
            format!("branch {branch} fails with {error}; the others go on")
        }
        Record::CompensationStarted { steps, cause } => {
            format!("{cause}: {steps} completed steps are compensated")
        }
        Record::StepCompensated { place, .. } => format!("{} is compensated", at(place)),
        Record::CompensationFailed { place, error, .. } => {
            format!("{} could not be compensated: {error}", at(place))
        }
        Record::ExecutionCompleted { output } => {
            format!("the execution completes with {}", short(output.as_str()))
        }
        Record::ExecutionFailed { failure } => format!(
            "the execution fails with {}: {}",
            failure.error,
            short(&failure.message)
        ),
        Record::ExecutionCancelled { reason } => {
            format!("the execution is cancelled: {}", short(reason))
        }
        Record::ExecutionTimedOut { timeout_ms } => {
            format!("the execution times out after {}", seconds(*timeout_ms))
        }
        Record::StateExited { .. }
        | Record::ActivityScheduled { .. }
        | Record::ActivityCancelled { .. }
        | Record::TimerSet { .. }
        | Record::BranchEnded { .. }
        | Record::EventIgnored { .. }
        | Record::ExecutionRetried {}
        // Nobody does any of these in a simulation.
        | Record::ExecutionPaused { .. }
        | Record::ExecutionResumed {}
        | Record::ExecutionMigrated { .. } => return None,
    })
}

fn at(place: &Place) -> String {
    if place.path.is_empty() {
        place.state.to_string()
    } else {
        format!("{}/{}", place.path, place.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_story_keeps_its_beginning_and_its_end() {
        let mut story = Story::new(Timestamp(1_000), true);
        for number in 0..200_u64 {
            story.tell(Timestamp(1_000 + number), || format!("line {number}"));
        }
        let lines = story.finish();
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines[0], "+0.000s line 0");
        // 200 lines less 20 at each end.
        assert_eq!(lines[20], "... 160 lines are left out");
        assert_eq!(lines[40], "+0.199s line 199");
    }

    #[test]
    fn times_are_as_people_read_them() {
        for (ms, text) in [
            (0, "0.000s"),
            (59_999, "59.999s"),
            (60_000, "1m0.000s"),
            (3_601_250, "1h1.250s"),
            (7 * 86_400_000 + 120_000, "7d2m0.000s"),
        ] {
            assert_eq!(seconds(ms), text);
        }
    }

    #[test]
    fn nothing_is_written_for_nobody() {
        let mut story = Story::new(Timestamp(0), false);
        story.tell(Timestamp(1), || unreachable!("nobody reads it"));
        assert!(story.finish().is_empty());
    }
}
