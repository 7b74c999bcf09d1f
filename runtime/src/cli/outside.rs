//! What `cascade run` is given of the outside: signals, and answers of people.
//!
//! Nobody can send anything to an execution in memory, so all of it stands on
//! the command line. A signal is sent when its state waits for it, in a simulation at the start;
//! an answer is given when its state asks, or waits for what becomes of a token. Both are for
//! whichever execution, the one that was asked for or a child of it, has a state that waits for them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use cascade_cdl::program::{Application, Program, StateKind};
use cascade_cdl::schema::{Schema, Unfit};
use cascade_cdl::{Callback, EventKind, Execution, Json, SignalRefused, Step};

use super::error::Error;
use super::input;

/// Who answers.
const BY: &str = "the command line";

/// What is left of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outside {
    signals: VecDeque<(String, Json)>,
    answers: VecDeque<(String, Json)>,
}

impl Outside {
    /// Reads `NAME=JSON` and `STATE=JSON`.
    pub(crate) fn read(signals: &[String], answers: &[String]) -> Result<Self, Error> {
        Ok(Self {
            signals: pairs(signals)?,
            answers: pairs(answers)?,
        })
    }

    /// That each signal is for some workflow.
    pub(crate) fn check_signals(&self, application: &Application) -> Result<(), Error> {
        let listens = |name: &str| {
            let mut workflows = application.workflows.values();
            workflows.any(|program| listens(program, name))
        };
        match self.signals.iter().find(|(name, _)| !listens(name)) {
            Some((name, _)) => Err(refused(name, SignalRefused::Unknown)),
            None => Ok(()),
        }
    }

    /// The signals that nobody has taken.
    pub(crate) fn left(&self) -> impl Iterator<Item = &str> {
        self.signals.iter().map(|(name, _)| name.as_str())
    }

    /// What arrives at an execution that is as far as it comes by itself: `at_once` the
    /// next signal, whether or not it is waited for, or only one that is. So several
    /// executions share the signals that there are.
    pub(crate) fn arrival(
        &mut self,
        program: &Program,
        execution: &Execution,
        at_once: bool,
    ) -> Result<Option<EventKind>, Error> {
        let is_next = |(name, _): &(String, Json)| at_once || is_awaited(program, execution, name);
        let at = self.signals.iter().position(is_next);
        if let Some((name, payload)) = at.and_then(|at| self.signals.remove(at)) {
            let taken = execution.accepts_signal(program, &name, &payload, None);
            taken.map_err(|why| refused(&name, why))?;
            let id = None;
            return Ok(Some(EventKind::SignalReceived { name, payload, id }));
        }
        for (frame, token) in execution.called() {
            let state = execution.frames.get(&frame).map(|frame| frame.state);
            let name = state.map(|state| &*program.state(state).name);
            let mut given = self.answers.iter();
            if let Some(at) = given.position(|(state, _)| Some(&**state) == name)
                && let Some((_, output)) = self.answers.remove(at)
            {
                return Ok(Some(EventKind::CallbackReceived {
                    task: token.task,
                    attempt: token.attempt,
                    callback: Callback::Succeeded { output },
                }));
            }
        }
        for (frame, asking, human) in execution.asked(program) {
            let state = execution.frames.get(&frame).map(|frame| frame.state);
            let name = state.map(|state| &*program.state(state).name);
            let given = self.answers.iter();
            let Some(at) = given
                .map(|(state, _)| &**state)
                .position(|s| Some(s) == name)
            else {
                continue;
            };
            let Some((state, output)) = self.answers.remove(at) else {
                continue;
            };
            if let Some(schema) = &human.schema {
                let fits = schema.check(&output.to_value());
                fits.map_err(|unfit| misfits(&format!("the answer to `{state}`"), &unfit))?;
            }
            return Ok(Some(EventKind::HumanTaskCompleted {
                task: asking.task,
                output,
                by: BY.to_owned(),
            }));
        }
        Ok(None)
    }
}

fn refused(name: &str, why: SignalRefused) -> Error {
    Error::usage(format!("signal `{name}`: {why}"))
}

/// Whether a state waits for a signal of this name now.
fn is_awaited(program: &Program, execution: &Execution, name: &str) -> bool {
    let mut frames = execution.frames.values();
    frames.any(|frame| {
        let kind = &program.state(frame.state).kind;
        let listens = matches!(frame.step, Step::Listening { .. });
        listens && matches!(kind, StateKind::Event(kind) if *kind.event == *name)
    })
}

/// Whether a workflow has a state that waits for a signal of this name.
fn listens(program: &Program, name: &str) -> bool {
    let waits = |kind: &StateKind| matches!(kind, StateKind::Event(kind) if *kind.event == *name);
    program.states.iter().any(|state| waits(&state.kind))
}

/// Checks an input, if its workflow says what it looks like.
pub(crate) fn check_input(program: &Program, input: &Json) -> Result<(), Error> {
    let fits = |schema: &Arc<Schema>| schema.check(&input.to_value());
    let fits = program.input.as_ref().map_or(Ok(()), fits);
    fits.map_err(|unfit| misfits(&format!("the input of `{}`", program.name), &unfit))
}

fn misfits(what: &str, unfit: &Unfit) -> Error {
    let error = Error::usage(format!("{what}: {unfit}"));
    match unfit {
        Unfit::TooMuch => error,
        Unfit::Misfits(misfits) => {
            let told = misfits.iter().map(|m| format!("`{}`: {}", m.at, m.message));
            error.hint(told.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Something that an execution waits for and only somebody outside can send.
pub(crate) enum Awaited {
    /// A signal.
    Signal { state: String, signal: String },
    /// The answer of a person.
    Answer { state: String, assignee: String },
    /// What becomes of a token.
    Outcome { state: String },
}

/// As the command line gives it.
impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal { state, signal } => write!(
                f,
                "state `{state}` waits for signal `{signal}` (--signal '{signal}=JSON')"
            ),
            Self::Answer { state, assignee } => write!(
                f,
                "state `{state}` waits for an answer of {assignee} (--answer '{state}=JSON')"
            ),
            Self::Outcome { state } => write!(
                f,
                "state `{state}` waits to be told its outcome (--answer '{state}=JSON')"
            ),
        }
    }
}

/// What an execution waits for that only somebody outside can send.
pub(crate) fn awaited(program: &Program, execution: &Execution) -> Vec<Awaited> {
    let frames = execution.frames.values();
    let awaited = frames.filter_map(|frame| {
        let kind = &program.state(frame.state).kind;
        let state = program.state(frame.state).name.to_string();
        match (&frame.step, kind) {
            (Step::Listening { .. }, StateKind::Event(kind)) => Some(Awaited::Signal {
                state,
                signal: kind.event.to_string(),
            }),
            (Step::Asking(asking), _) => Some(Awaited::Answer {
                state,
                assignee: asking.assignee.clone(),
            }),
            (Step::Calling { .. }, _) => Some(Awaited::Outcome { state }),
            _ => None,
        }
    });
    awaited.collect()
}

fn pairs(texts: &[String]) -> Result<VecDeque<(String, Json)>, Error> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => {
            let value = Json::from_value(&input::read(Some(value))?);
            Ok((name.to_owned(), value))
        }
        None => Err(Error::usage(format!("`{text}` is not NAME=JSON"))),
    };
    texts.iter().map(pair).collect()
}
