//! What holds for every program and every order of events.
//!
//! `Run::apply` checks after each event that snapshots and observers change
//! nothing, that pending tasks are what was commanded, that what runs waits
//! for something, and that what has ended stays quiet. [`Story`] adds what can be
//! told from outside: which steps were done, and which were undone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cascade_cdl::asl::{Binding, Bindings, Envelope};
use cascade_cdl::plan::{Plan, Verdict};
use cascade_cdl::program::{Program, Resource, StateKind};
use cascade_cdl::{
    AslOptions, Callback, EventKind, Execution, SEMANTICS, Status, Step, TaskId, TaskToken,
    TimerId, limits,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::compile::{compile_asl, compile_value};
use crate::transcript::{Run, called_back, completed, failed, json as text, signal};

mod asl;
mod cdl;

/// Errors that activities of the tests return: retried, not retried, caught or not.
const ERRORS: [&str; 4] = [
    "NetworkError",
    "ValidationError",
    "Declined",
    "AuthorizedError",
];

/// What activities of the tests return: most often something in which the
/// expressions of the programs find their way.
const OUTPUTS: [&str; 4] = [
    r#"{"a":1,"items":[1,2,3],"n":1}"#,
    r#"{"a":2,"items":[],"n":null}"#,
    "[1,2,3]",
    "\"[4, 5]\"",
];

/// What the world does next; numbers choose among what is possible.
#[derive(Debug, Clone)]
enum Move {
    Complete(usize, usize),
    Fail(usize, usize),
    Pass(u64),
    /// One due timer fires before the others.
    Fire(u64, usize),
    /// The clock of another server is behind.
    TurnBack(u64),
    Signal(bool, Option<u8>),
    Answer(usize),
    Repeat(usize),
    /// Something comes for what there is not, or not yet.
    Stray(u64),
    Cancel,
    Retry,
    Pause,
    Resume,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let outputs = prop_oneof![3 => Just(0), 1 => 1..OUTPUTS.len()];
    let one = prop_oneof![
        16 => (any::<usize>(), outputs).prop_map(|(at, output)| Move::Complete(at, output)),
        8 => (any::<usize>(), 0..ERRORS.len()).prop_map(|(at, error)| Move::Fail(at, error)),
        6 => (0..20_000_u64).prop_map(Move::Pass),
        4 => (0..20_000_u64, any::<usize>()).prop_map(|(millis, at)| Move::Fire(millis, at)),
        1 => (0..20_000_u64).prop_map(Move::TurnBack),
        6 => (any::<bool>(), prop::option::of(0..4_u8)).prop_map(|(a, id)| Move::Signal(a, id)),
        4 => any::<usize>().prop_map(Move::Answer),
        4 => any::<usize>().prop_map(Move::Repeat),
        2 => (0..40_u64).prop_map(Move::Stray),
        2 => Just(Move::Retry),
        2 => Just(Move::Pause),
        2 => Just(Move::Resume),
        1 => Just(Move::Cancel),
    ];
    prop::collection::vec(one, 0..40)
}

/// A run, and what an onlooker knows of it who sees activities only.
#[derive(Clone)]
struct Story {
    run: Run,
    /// Numbers of the steps that were done and have something which undoes them.
    done: Vec<String>,
    /// Of those that were begun to be undone.
    undone: Vec<String>,
    /// Events that came for nothing, by their numbers. What they were for may
    /// have come about since.
    strays: BTreeSet<u64>,
}

impl Story {
    fn begin(program: Arc<Program>, input: &str, machine: u32) -> Self {
        let mut run = Run::new(program);
        run.start_as(text(input), machine);
        Self {
            run,
            done: Vec::new(),
            undone: Vec::new(),
            strays: BTreeSet::new(),
        }
    }

    fn apply(&mut self, kind: EventKind) -> Vec<String> {
        if let EventKind::ActivityCompleted { task, attempt, .. } = &kind
            && let Some(task) = self.run.outstanding.get(&(*task, *attempt))
            && let Some(step) = task.resource.name.strip_prefix("do_")
            && has_compensation(&self.run.program, &task.resource)
        {
            self.done.push(step.to_owned());
        }
        let before: BTreeSet<_> = self.run.outstanding.keys().copied().collect();
        let told = self.run.apply(kind);
        let asked = self.run.outstanding.iter();
        let fresh = asked
            .filter(|((task, attempt), _)| *attempt == 1 && !before.contains(&(*task, *attempt)));
        let steps = fresh.filter_map(|(_, task)| task.resource.name.strip_prefix("undo_"));
        self.undone.extend(steps.map(str::to_owned));
        told
    }

    fn check_end(&self) {
        self.check_undone();
        self.run.check_replay();
    }

    /// What must hold at the end: without success, all that was done has been
    /// undone, the last first; else nothing.
    fn check_undone(&self) {
        let run = &self.run;
        assert!(run.execution.is_closed());
        assert!(run.outstanding.is_empty());
        assert!(run.execution.timers.is_empty());
        if let Status::Completed { .. } = run.execution.status {
            assert_eq!(self.undone, [""; 0], "undone in spite of success");
        } else {
            let mut done = self.done.clone();
            done.reverse();
            assert_eq!(self.undone, done, "each step once, the last first");
        }
    }

    /// Goes on under another version of the program.
    fn move_to(&mut self, program: &Arc<Program>) {
        let told = self.run.migrate(Arc::clone(program), BTreeMap::new());
        assert!(told[0].starts_with("moved"), "{told:?}");
    }

    fn make(&mut self, next: &Move) {
        match next {
            Move::Complete(at, output) => {
                if let Some((task, attempt)) = self.chosen(*at) {
                    self.apply(completed(task, attempt, text(OUTPUTS[*output])));
                }
            }
            Move::Fail(at, error) => {
                if let Some((task, attempt)) = self.chosen(*at) {
                    self.apply(failed(task, attempt, ERRORS[*error], None));
                }
            }
            Move::Pass(millis) => {
                self.run.pass_time(*millis);
                self.fire_due_timers();
            }
            Move::Fire(millis, at) => {
                self.run.pass_time(*millis);
                let due = self.run.execution.due_timers(self.run.now());
                if !due.is_empty() {
                    let timer = due[at % due.len()];
                    self.apply(EventKind::TimerFired { timer });
                }
            }
            Move::TurnBack(millis) => self.run.turn_back(*millis),
            Move::Signal(a, id) => {
                let id = id.map(|id| id.to_string());
                let name = if *a { "a" } else { "b" };
                let run = &self.run;
                let taken =
                    run.execution
                        .accepts_signal(&run.program, name, &text("1"), id.as_deref());
                let told = self.apply(signal(name, text("1"), id.as_deref()));
                assert_eq!(taken.is_ok(), !told[0].starts_with("ignored"), "{told:?}");
            }
            Move::Answer(at) => {
                self.answer(*at);
                self.call_back(*at);
            }
            Move::Repeat(at) => self.repeat(*at),
            Move::Stray(number) => self.stray(*number),
            Move::Cancel => {
                self.apply(cancelled());
            }
            Move::Retry => {
                self.apply(EventKind::RetryRequested {});
            }
            Move::Pause => {
                self.apply(paused());
            }
            Move::Resume => {
                self.apply(EventKind::ExecutionResumed {});
            }
        }
    }

    /// One of the attempts that are outstanding.
    fn chosen(&self, at: usize) -> Option<(TaskId, u32)> {
        let outstanding = &self.run.outstanding;
        let count = outstanding.len().max(1);
        outstanding.keys().nth(at % count).copied()
    }

    fn fire_due_timers(&mut self) {
        for timer in self.run.execution.due_timers(self.run.now()) {
            self.apply(EventKind::TimerFired { timer });
        }
    }

    /// Somebody does one of the things that are asked for.
    fn answer(&mut self, at: usize) {
        let frames = self.run.execution.frames.values();
        let asked: Vec<_> = frames
            .filter_map(|frame| match &frame.step {
                Step::Asking(asking) => Some(asking.task),
                _ => None,
            })
            .collect();
        if !asked.is_empty() {
            self.apply(EventKind::HumanTaskCompleted {
                task: asked[at % asked.len()],
                output: text("{\"n\":2}"),
                by: "ann".to_owned(),
            });
        }
    }

    /// Whoever has a token tells something; before the activity has returned, too.
    fn call_back(&mut self, at: usize) {
        let run = &self.run;
        let mut tokens: Vec<_> = run.execution.called().map(|(_, token)| token).collect();
        tokens.extend(run.outstanding.keys().map(|&(task, attempt)| TaskToken {
            execution: run.execution.id,
            task,
            attempt,
        }));
        let Some(token) = tokens.get(at % tokens.len().max(1)).copied() else {
            return;
        };
        let callback = match at % 3 {
            0 => Callback::Succeeded {
                output: text(OUTPUTS[0]),
            },
            1 => Callback::Failed {
                error: ERRORS[at % ERRORS.len()].to_owned(),
                cause: "told".to_owned(),
            },
            _ => Callback::Heartbeat {},
        };
        let TaskToken { task, attempt, .. } = token;
        let (execution, program) = (&run.execution, &run.program);
        let accepted = execution.accepts_callback(program, task, attempt, &callback, run.now());
        // A heartbeat that is not worth an event changes something all the same.
        let is_beat = callback == Callback::Heartbeat {};
        let told = self.apply(called_back(task, attempt, callback));
        if !is_beat {
            assert_eq!(
                accepted.is_ok(),
                !told[0].starts_with("ignored"),
                "{told:?}"
            );
        }
    }

    /// An earlier outcome or timer arrives again.
    fn repeat(&mut self, at: usize) {
        let event = &self.run.history[at % self.run.history.len()];
        if self.strays.contains(&event.seq) {
            return;
        }
        let event = event.kind.clone();
        let repeats = match &event {
            EventKind::ExecutionStarted { .. }
            | EventKind::RetryRequested {}
            | EventKind::ExecutionMigrated { .. }
            // Each moves the end of the longest silence.
            | EventKind::CallbackReceived {
                callback: Callback::Heartbeat {},
                ..
            } => false,
            // It may go on after a retry.
            EventKind::CancelRequested { .. } => self.run.execution.status != Status::Running,
            EventKind::ExecutionPaused { .. } => {
                self.run.execution.is_closed() || self.run.execution.paused.is_some()
            }
            EventKind::ExecutionResumed {} => self.run.execution.paused.is_none(),
            // Without an id it is another one, and what was refused may be taken now.
            EventKind::SignalReceived { id, .. } => {
                let seen = &self.run.execution.inbox.seen;
                id.as_ref()
                    .is_some_and(|id| seen.iter().any(|seen| seen.id == *id))
            }
            _ => true,
        };
        if repeats {
            self.is_ignored(event);
        }
    }

    /// An outcome, answer or timer comes for a number that nobody waits for.
    fn stray(&mut self, number: u64) {
        let execution = &self.run.execution;
        let task = TaskId(number / 2);
        let attempt = u32::try_from(number % 4).expect("a small number");
        let timer = TimerId(number);
        // As the machine counts it, whose time never runs backwards.
        let now = self.run.now().max(execution.updated_at);
        let is_due = execution.due_timers(now).contains(&timer);
        let awaits = execution.awaits(task, attempt);
        let is_asked = execution.frames.values().any(|frame| match &frame.step {
            Step::Asking(asking) => asking.task == task,
            _ => false,
        });
        let first = self.run.history.len() as u64 + 1;
        if !is_due {
            self.is_ignored(EventKind::TimerFired { timer });
        }
        if !awaits {
            self.is_ignored(completed(task, attempt, text("1")));
            self.is_ignored(failed(task, attempt, "Declined", None));
        }
        if !awaits && !execution_calls(&self.run.execution, task, attempt) {
            let output = text("1");
            self.is_ignored(called_back(task, attempt, Callback::Succeeded { output }));
        }
        if !is_asked {
            self.is_ignored(EventKind::HumanTaskCompleted {
                task,
                output: text("1"),
                by: "eve".to_owned(),
            });
        }
        self.strays.extend(first..=self.run.history.len() as u64);
    }

    /// Nothing but the version and the clock change.
    fn is_ignored(&mut self, event: EventKind) {
        let before = self.run.execution.clone();
        let told = self.apply(event);
        // A history that is full ends.
        assert!(
            told.len() == 1 && told[0].starts_with("ignored"),
            "{told:?}"
        );
        let mut after = self.run.execution.clone();
        after.version = before.version;
        after.updated_at = before.updated_at;
        assert_eq!(before, after, "what nobody waits for changes something");
    }

    fn drain(&mut self) {
        assert!(self.drains(), "it does not end: {:?}", self.run.execution);
    }

    /// Delivers all that is awaited, well. Each round ends an attempt or a pause
    /// of each frame, so what does not loop ends soon.
    fn drains(&mut self) -> bool {
        for _ in 0..200 {
            if self.run.execution.is_closed() {
                return true;
            }
            if self.run.execution.paused.is_some() {
                self.apply(EventKind::ExecutionResumed {});
            }
            let awaited: Vec<_> = self.run.outstanding.keys().copied().collect();
            for (task, attempt) in awaited {
                if self.run.execution.awaits(task, attempt) {
                    self.apply(completed(task, attempt, text(OUTPUTS[0])));
                }
            }
            let called: Vec<_> = self.run.execution.called().collect();
            for (_, TaskToken { task, attempt, .. }) in called {
                let output = text(OUTPUTS[0]);
                self.apply(called_back(task, attempt, Callback::Succeeded { output }));
            }
            let execution = &self.run.execution;
            if let Some(at) = execution.wake_at().filter(|_| execution.is_idle()) {
                self.run.pass_until(at);
                self.fire_due_timers();
            }
        }
        self.run.execution.is_closed()
    }
}

fn execution_calls(execution: &Execution, task: TaskId, attempt: u32) -> bool {
    let mut called = execution.called();
    called.any(|(_, token)| (token.task, token.attempt) == (task, attempt))
}

fn cancelled() -> EventKind {
    EventKind::CancelRequested {
        reason: "enough".to_owned(),
    }
}

fn paused() -> EventKind {
    EventKind::ExecutionPaused {
        reason: "wait".to_owned(),
    }
}

/// Whether the program has something that undoes the Task which runs `resource`.
fn has_compensation(program: &Program, resource: &Resource) -> bool {
    program.states.iter().any(|state| match &state.kind {
        StateKind::Task(task) => task.resource == *resource && task.compensate.is_some(),
        _ => false,
    })
}

/// A definition with activities for its Lambda functions and item readers.
fn compile_definition(definition: &Value) -> Arc<Program> {
    let binding = |pattern: &str, name: &str| Binding {
        pattern: pattern.to_owned(),
        activity: Resource {
            name: name.into(),
            version: None,
            region: None,
            child: None,
        },
        envelope: Envelope::None,
    };
    let options = AslOptions {
        bindings: Bindings {
            entries: vec![
                binding("arn:aws:lambda:*", "function"),
                binding(asl::READER, "reader"),
                binding(asl::CALLED, "sender"),
            ],
        },
        ..AslOptions::default()
    };
    compile_asl(&definition.to_string(), &options)
}

/// Cancels a copy, lets `moves` happen to what is left, and checks that nothing
/// but what undoes is ever scheduled again.
fn check_cancelled(story: &Story, moves: &[Move]) {
    let mut story = story.clone();
    let was_running = story.run.execution.status == Status::Running;
    story.apply(cancelled());
    let only_undoes = |story: &Story| {
        let outstanding = story.run.outstanding.values();
        outstanding
            .filter(|task| !task.resource.name.starts_with("undo_"))
            .count()
            == 0
    };
    if was_running {
        assert!(only_undoes(&story), "a Task is left after a cancellation");
        for next in moves.iter().filter(|next| !matches!(next, Move::Retry)) {
            story.make(next);
            assert!(only_undoes(&story), "a Task begins after a cancellation");
        }
    }
    story.drain();
    if was_running {
        assert!(
            matches!(&story.run.execution.status, Status::Cancelled { reason } if reason == "enough"),
            "{:?}",
            story.run.execution.status
        );
        assert!(story.run.execution.frames.is_empty());
    }
    story.check_end();
}

/// A version is no obstacle to its own executions, and carries them over as they are.
fn check_own_plan(story: &Story) {
    let (program, execution) = (&story.run.program, &story.run.execution);
    let none = BTreeMap::new();
    let plan = Plan::new(program, program, &none);
    assert!(plan.diff().fields.is_empty() && plan.diff().states.is_empty());
    assert_eq!(plan.judge(execution), Verdict::Safe);
    let mut moved = story.clone();
    moved.move_to(program);
    let mut after = moved.run.execution;
    (after.version, after.origin) = (execution.version, None);
    after.updated_at = execution.updated_at;
    if execution.version + 1 < limits::MAX_EVENTS {
        assert_eq!(after, *execution);
    }
}

/// Lets `moves` happen, and all the rest then; cancels a copy before one of them.
fn check(program: Arc<Program>, input: &str, machine: u32, moves: &[Move], cut: usize) {
    let mut story = Story::begin(program, input, machine);
    let cut = cut % (moves.len() + 1);
    for next in &moves[..cut] {
        story.make(next);
    }
    check_own_plan(&story);
    check_cancelled(&story, &moves[cut..]);
    for next in &moves[cut..] {
        story.make(next);
    }
    story.drain();
    story.check_end();
    if let Status::Failed { .. } | Status::TimedOut { .. } = story.run.execution.status {
        story.apply(EventKind::RetryRequested {});
        story.drain();
        story.check_end();
    }
    story.is_ignored(cancelled());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_execution_keeps_its_promises_and_ends(
        workflow in cdl::workflow(true), moves in moves(), cut in any::<usize>(), machine in 0..=SEMANTICS,
    ) {
        check(compile_value(&workflow), "{}", machine, &moves, cut);
    }

    /// Whatever the new version changes: what is safe goes on, ends, and undoes what
    /// was done under the old one.
    #[test]
    fn what_is_safe_goes_on_under_a_new_version(
        workflow in cdl::workflow(true), edits in cdl::edits(), before in moves(), cut in 0..8_usize, after in moves(),
    ) {
        let old = compile_value(&workflow);
        let new = compile_value(&cdl::edited(workflow, &edits));
        let mut story = Story::begin(Arc::clone(&old), "{}", SEMANTICS);
        for next in before.iter().take(cut) {
            story.make(next);
        }
        let none = BTreeMap::new();
        let plan = Plan::new(&old, &new, &none);
        if plan.judge(&story.run.execution) == Verdict::Safe {
            story.move_to(&new);
            for next in &after {
                story.make(next);
            }
            // An edit may make a loop, which ends when it is told to.
            if !story.drains() {
                story.apply(cancelled());
                story.drain();
            }
            story.check_end();
        }
    }

    /// What a new version adds where nobody comes along, if only new numbers for all
    /// states, makes no difference to what was begun under the old one.
    #[test]
    fn an_execution_that_was_moved_ends_as_it_would_have(
        workflow in cdl::workflow(true), before in moves(), cut in 0..8_usize, after in moves(),
    ) {
        let old = compile_value(&workflow);
        let new = compile_value(&cdl::with_more_states(workflow));
        let mut stays = Story::begin(Arc::clone(&old), "{}", SEMANTICS);
        for next in before.iter().take(cut) {
            stays.make(next);
        }
        let none = BTreeMap::new();
        let plan = Plan::new(&old, &new, &none);
        prop_assert_eq!(plan.judge(&stays.run.execution), Verdict::Safe);
        let mut moves = stays.clone();
        moves.move_to(&new);
        // What is repeated is chosen by the length of the history, which differs; and
        // time does not run back behind the move.
        let same = |next: &&Move| !matches!(next, Move::Repeat(_) | Move::TurnBack(_));
        for next in after.iter().filter(same) {
            stays.make(next);
            moves.make(next);
        }
        stays.drain();
        moves.drain();
        moves.check_end();
        let (stays, moves) = (stays.run.execution, moves.run.execution);
        match (&stays.status, &moves.status) {
            // How long it took, and not the limit, is told of what was moved.
            (Status::TimedOut { .. }, Status::TimedOut { .. }) => {}
            (stays, moves) => prop_assert_eq!(stays, moves),
        }
        prop_assert_eq!(stays.context, moves.context);
        prop_assert_eq!(stays.next_id, moves.next_id);
        prop_assert_eq!(stays.version + 1, moves.version);
    }

    /// One that does not end by itself does when it is cancelled.
    #[test]
    fn a_loop_keeps_its_promises_until_it_is_cancelled(workflow in cdl::workflow(false), moves in moves()) {
        let mut story = Story::begin(compile_value(&workflow), "{}", SEMANTICS);
        for next in &moves {
            story.make(next);
        }
        check_cancelled(&story, &[]);
    }

    #[test]
    fn every_definition_in_asl_keeps_its_promises_and_ends(
        definition in asl::definition(), moves in moves(), cut in any::<usize>(),
    ) {
        check(compile_definition(&definition), r#"{"a":1,"items":[1,2,3]}"#, SEMANTICS, &moves, cut);
    }
}
