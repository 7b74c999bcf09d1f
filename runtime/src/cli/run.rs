//! `cascade run`: one execution, in memory, without a server.
//!
//! The same machine and the same sandbox as the server's, and nothing else: no
//! store, so nothing survives the command.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::program::{Application, Program};
use cascade_cdl::{
    ActivityTask, Command, Event, EventKind, Execution, ExecutionId, Json, Receipt, SEMANTICS,
    Status, TaskId, TimerId, apply_traced,
};
use clap::Args;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::json;

use super::error::{Error, Exit};
use super::local::{self, Caller, Local};
use super::output::{Output, paint};
use super::outside::{Outside, awaited};
use super::source::{self, Found, Project};
use super::validate;
use super::{Session, activity, events, input};
use crate::clock::{Clock, SystemClock};
use crate::sandbox::{Cancel, Outcome};

/// What the `shard` filter counts modulo, as on a server without configuration.
pub(super) const SHARDS: u32 = 10;

/// Run a workflow once, in memory, without a server
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The CDL file, or a definition in the States Language
    file: PathBuf,
    #[command(flatten)]
    bind: validate::Bind,
    /// Which workflow; needed if the file has several
    #[arg(long, short)]
    workflow: Option<String>,
    /// JSON, or @FILE, or - for standard input; {} by default
    #[arg(long, short, value_name = "JSON")]
    input: Option<String>,
    /// Folder of activities (.wasm files or crates); the CDL file's by default
    #[arg(long, value_name = "DIR")]
    activities: Option<PathBuf>,
    /// A signal, sent at the start; it waits until an `EventTask` takes it
    #[arg(long = "signal", value_name = "NAME=JSON")]
    signals: Vec<String>,
    /// The answer to a `HumanTask`, or the result of a `.waitForTaskToken`, given when it waits
    #[arg(long = "answer", value_name = "STATE=JSON")]
    answers: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let output = session.output;
        let bindings = self.bind.read(output)?;
        let checked = validate::check(&self.file, &bindings)?;
        checked.show(output);
        let Some(application) = checked.parsed.application else {
            return Err(Error::failed(format!(
                "{} cannot be run",
                self.file.display()
            )));
        };
        let program = choose(&application, self.workflow.as_deref())?;
        let input = Json::from_value(&input::read(self.input.as_deref())?);
        let outside = Outside::read(&self.signals, &self.answers)?;
        let folder = folder(&self.file, self.activities.as_deref());
        let found = gather(&folder, output).await?;
        let spinner = output.spinner("compiling activities");
        let local = Local::open(found).await?;
        spinner.finish_and_clear();
        let runner = Runner {
            local: &local,
            application: &application.name,
            program: &program,
            output,
        };
        let execution = runner.run(input, outside).await?;
        conclude(output, &execution)
    }
}

/// Where the activities of a file are, unless it is said: beside it.
pub(super) fn folder(file: &Path, given: Option<&Path>) -> PathBuf {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    given.or(parent).unwrap_or(Path::new(".")).to_owned()
}

/// The activities in a folder; crates are built.
pub(super) async fn gather(folder: &Path, output: Output) -> Result<Vec<Found>, Error> {
    let project = Project::scan(folder)?;
    let mut found = Vec::new();
    for path in &project.modules {
        found.push(source::module(path)?);
    }
    for dir in &project.crates {
        found.push(activity::build(dir, true, output).await?);
    }
    Ok(found)
}

/// The workflow that is named, or the only one.
pub(super) fn choose(application: &Application, name: Option<&str>) -> Result<Arc<Program>, Error> {
    let names = || -> String {
        let names: Vec<&str> = application.workflows.keys().map(String::as_str).collect();
        names.join(", ")
    };
    let chosen = match name {
        Some(name) => application.workflows.get(name),
        None if application.workflows.len() == 1 => application.workflows.values().next(),
        None => {
            return Err(Error::usage("the file has several workflows")
                .hint(format!("choose with --workflow: {}", names())));
        }
    };
    chosen.cloned().ok_or_else(|| {
        Error::usage("there is no such workflow").hint(format!("there are: {}", names()))
    })
}

struct Runner<'a> {
    local: &'a Local,
    application: &'a str,
    program: &'a Program,
    output: Output,
}

/// What a running execution waits for.
enum Input {
    Ended(ActivityTask, Box<Outcome>),
    Due(TimerId),
}

impl Runner<'_> {
    /// Runs to the end, printing each event with what follows from it.
    async fn run(&self, input: Json, mut outside: Outside) -> Result<Execution, Error> {
        let id = ExecutionId(uuid::Uuid::now_v7());
        let mut execution = Execution::new(id, local::tenant());
        let caller = Caller {
            application: self.application,
            workflow: &self.program.name,
            execution: id,
        };
        let mut attempts = FuturesUnordered::new();
        // What was said to be waited for.
        let mut told = Vec::new();
        let mut cancels: HashMap<(TaskId, u32), Cancel> = HashMap::new();
        let mut next = EventKind::ExecutionStarted {
            input,
            shards: SHARDS,
            machine: SEMANTICS,
            parent: None,
        };
        loop {
            let (moved, commands) = self.step(execution, next)?;
            execution = moved;
            for command in commands {
                match command {
                    Command::ScheduleActivity(task) => {
                        let cancel = Cancel::default();
                        cancels.insert((task.task, task.attempt), cancel.clone());
                        let caller = &caller;
                        attempts.push(async move {
                            let outcome = self.local.run(caller, &task, cancel).await;
                            Input::Ended(task, Box::new(outcome))
                        });
                    }
                    Command::CancelActivity { task, attempt } => {
                        if let Some(cancel) = cancels.remove(&(task, attempt)) {
                            cancel.cancel();
                        }
                    }
                }
            }
            if execution.is_closed() {
                return Ok(execution);
            }
            if let Some(arrival) = outside.arrival(self.program, &execution)? {
                next = arrival;
                continue;
            }
            let awaited = awaited(self.program, &execution);
            if awaited != told {
                for what in &awaited {
                    self.output
                        .note(format!("{what}; nobody else can send it here"));
                }
                told.clone_from(&awaited);
            }
            let due = execution.timers.iter().min_by_key(|(_, timer)| timer.at);
            let due = due.map(|(id, timer)| (*id, timer.at));
            let input = tokio::select! {
                Some(ended) = attempts.next(), if !attempts.is_empty() => ended,
                timer = async {
                    match due {
                        Some((id, at)) => {
                            SystemClock.sleep_until(at).await;
                            Input::Due(id)
                        }
                        None => std::future::pending().await,
                    }
                }, if due.is_some() => timer,
                else => return Err(stuck(&awaited)),
            };
            next = match input {
                Input::Due(timer) => EventKind::TimerFired { timer },
                Input::Ended(task, outcome) => {
                    cancels.remove(&(task.task, task.attempt));
                    ended(&task, *outcome)
                }
            };
        }
    }

    fn step(
        &self,
        execution: Execution,
        kind: EventKind,
    ) -> Result<(Execution, Vec<Command>), Error> {
        let event = Event {
            seq: execution.version + 1,
            at: SystemClock.now(),
            kind,
        };
        let start = if event.seq == 1 {
            event.at
        } else {
            execution.started_at
        };
        let mut records = Vec::new();
        let mut observe = |record| records.push(record);
        let transition =
            apply_traced(self.program, execution, &event, &mut observe).map_err(|error| {
                Error::failed(format!("the machine refused its own event: {error}"))
            })?;
        self.output.note(events::step_text(&event, &records, start));
        Ok((transition.execution, transition.commands))
    }
}

/// Why an execution cannot go on.
fn stuck(awaited: &[String]) -> Error {
    if awaited.is_empty() {
        return Error::failed("the execution waits for nothing");
    }
    Error::failed("the execution waits for what nobody can send here").hint(awaited.join("; "))
}

fn ended(task: &ActivityTask, outcome: Outcome) -> EventKind {
    match outcome.result {
        Ok(output) => EventKind::ActivityCompleted {
            task: task.task,
            attempt: task.attempt,
            output,
            receipt: outcome.receipt,
        },
        Err(failure) => EventKind::ActivityFailed {
            task: task.task,
            attempt: task.attempt,
            failure,
            receipt: Some(outcome.receipt).filter(|receipt| *receipt != Receipt::default()),
        },
    }
}

/// The output goes to stdout; anything but completion is exit code 1.
fn conclude(output: Output, execution: &Execution) -> Result<(), Error> {
    let (tone, text) = events::status_text(&execution.status);
    match &execution.status {
        Status::Completed { output: value } => {
            output.result(&json!({ "status": "completed", "output": value }), || {
                value.as_str().to_owned()
            });
            Ok(())
        }
        other => {
            if output.is_json() {
                output.result(&json!({ "status": other }), String::new);
            }
            output.note(paint(tone, text));
            Err(Error::told(Exit::Failed))
        }
    }
}
