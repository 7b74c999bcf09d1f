//! `cascade run`: one execution and its children, in memory, without a server.
//!
//! The same machine and the same sandbox as the server's, and nothing else: no
//! store, so nothing survives the command.

mod runner;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::program::{Application, Program};
use cascade_cdl::{Execution, Json};
use clap::Args;
use serde_json::json;

use super::error::{Error, Exit};
use super::local::Local;
use super::output::{Output, paint};
use super::outside::{Outside, check_input};
use super::source::{self, Found, Project};
use super::validate;
use super::{Session, activity, events, input, object_files};
use crate::engine::Standing;
use runner::{Here, Runner};

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
    /// A signal, sent to whichever execution has an `EventTask` that waits for it
    #[arg(long = "signal", value_name = "NAME=JSON")]
    signals: Vec<String>,
    /// The answer to a `HumanTask`, or the result of a `.waitForTaskToken`, given when it waits
    #[arg(long = "answer", value_name = "STATE=JSON")]
    answers: Vec<String>,
    /// A secret that parameters name: the variable of the environment with its name, or another
    #[arg(long = "secret", value_name = "NAME[=VARIABLE]")]
    secrets: Vec<String>,
    #[command(flatten)]
    objects: object_files::Given,
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
        let application = object_files::all_in_one(application);
        let program = choose(&application, self.workflow.as_deref())?;
        let objects = self.objects.read()?;
        let input = Json::from_value(&input::read(self.input.as_deref())?);
        check_input(&program, &input)?;
        let outside = Outside::read(&self.signals, &self.answers)?;
        outside.check_signals(&application)?;
        let secrets = read_secrets(&self.secrets)?;
        let folder = folder(&self.file, self.activities.as_deref());
        let found = gather(&folder, output).await?;
        let spinner = output.spinner("compiling activities");
        let mut local = Local::open(found).await?;
        local.give(secrets);
        spinner.finish_and_clear();
        let here = Here {
            local: &local,
            application: &application,
            objects: &objects,
        };
        let execution = Runner::run(here, outside, output, program, input).await?;
        conclude(output, &execution)
    }
}

/// Secrets are not written on a command line, where others see them.
fn read_secrets(given: &[String]) -> Result<BTreeMap<String, Arc<str>>, Error> {
    let mut secrets = BTreeMap::new();
    for given in given {
        let (name, variable) = given.split_once('=').unwrap_or((given, given));
        let value = std::env::var(variable).map_err(|_| {
            Error::usage(format!("the environment has no variable `{variable}`"))
                .hint("`--secret NAME=VARIABLE` says which variable holds the secret")
        })?;
        secrets.insert(name.to_owned(), value.into());
    }
    Ok(secrets)
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

/// The output goes to stdout; anything but completion is exit code 1.
fn conclude(output: Output, execution: &Execution) -> Result<(), Error> {
    let (tone, text) = events::status_text(&execution.status);
    let standing = Standing::of(execution);
    if let Some(value) = &standing.output {
        output.result(&json!(standing), || value.as_str().to_owned());
        return Ok(());
    }
    if output.is_json() {
        output.result(&json!(standing), String::new);
    }
    output.note(paint(tone, text));
    Err(Error::told(Exit::Failed))
}
