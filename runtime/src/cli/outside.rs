//! What `cascade run` is given of the outside: signals, and answers of people.
//!
//! Nobody can send anything to an execution in memory, so all of it stands on
//! the command line. Signals are sent at the start, in their order, and wait in the inbox;
//! an answer is given when its state asks, or waits for what becomes of a token.

use std::collections::VecDeque;

use cascade_cdl::program::{Program, StateKind};
use cascade_cdl::schema::Unfit;
use cascade_cdl::{Callback, EventKind, Execution, Json, Step};

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

    /// What arrives at an execution that is as far as it comes by itself.
    pub(crate) fn arrival(
        &mut self,
        program: &Program,
        execution: &Execution,
    ) -> Result<Option<EventKind>, Error> {
        if let Some((name, payload)) = self.signals.pop_front() {
            let taken = execution.accepts_signal(program, &name, &payload, None);
            taken.map_err(|refused| Error::usage(format!("signal `{name}`: {refused}")))?;
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
                fits.map_err(|unfit| misfits(&state, &unfit))?;
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

fn misfits(state: &str, unfit: &Unfit) -> Error {
    let error = Error::usage(format!("the answer to `{state}`: {unfit}"));
    match unfit {
        Unfit::TooMuch => error,
        Unfit::Misfits(misfits) => {
            let told = misfits.iter().map(|m| format!("`{}`: {}", m.at, m.message));
            error.hint(told.collect::<Vec<_>>().join("; "))
        }
    }
}

/// What an execution waits for that only somebody outside can send.
pub(crate) fn awaited(program: &Program, execution: &Execution) -> Vec<String> {
    let frames = execution.frames.values();
    let awaited = frames.filter_map(|frame| {
        let state = program.state(frame.state);
        match (&frame.step, &state.kind) {
            (Step::Listening { .. }, StateKind::Event(kind)) => Some(format!(
                "state `{}` waits for signal `{}` (--signal '{}=JSON')",
                state.name, kind.event, kind.event
            )),
            (Step::Asking(asking), _) => Some(format!(
                "state `{}` waits for an answer of {} (--answer '{}=JSON')",
                state.name, asking.assignee, state.name
            )),
            (Step::Calling { .. }, _) => Some(format!(
                "state `{}` waits to be told its outcome (--answer '{}=JSON')",
                state.name, state.name
            )),
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
