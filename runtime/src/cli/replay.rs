//! `cascade replay`: runs a history through the machine again and compares what
//! comes out with what was recorded. Needs only what the history holds, so a
//! saved one replays anywhere, years later.

use std::path::{Path, PathBuf};

use cascade_cdl::program::Program;
use cascade_cdl::{Event, Source, Status};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

use super::client::Client;
use super::error::{Error, Exit};
use super::output::{Output, Tone, paint};
use super::process;
use super::wire::ExecutionView;
use super::{Session, events, input};
use crate::store::StatusName;

/// Run a history through the machine again, and compare
#[derive(Debug, Args)]
pub struct Replay {
    /// An execution's id, or a file that --save wrote
    what: String,
    /// Keep all that the replay needs in a file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print the history with what followed from each event
    #[arg(long)]
    trace: bool,
}

/// All that a replay needs.
#[derive(Debug, Serialize, Deserialize)]
struct Bundle {
    execution: ExecutionView,
    /// Name of the CDL file, for diagnostics.
    file: String,
    source: String,
    events: Vec<Event>,
}

impl Replay {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let path = Path::new(&self.what);
        let bundle = if path.is_file() {
            read(path)?
        } else {
            fetch(&session.client()?, &self.what).await?
        };
        if let Some(path) = &self.save {
            let text = serde_json::to_string(&bundle).expect("plain values with text keys");
            std::fs::write(path, text).map_err(|source| Error::file("write", path, &source))?;
        }
        let program = bundle.program()?;
        let trace = events::trace(&program, &bundle.execution, bundle.events)?;
        if self.trace {
            session.output.note(trace.render());
        }
        judge(session.output, &bundle.execution, &trace)
    }
}

fn read(path: &Path) -> Result<Bundle, Error> {
    let text = input::read_file(path)?;
    serde_json::from_str(&text)
        .map_err(|source| Error::usage(format!("{}: {source}", path.display())))
}

async fn fetch(client: &Client, id: &str) -> Result<Bundle, Error> {
    let execution = process::load(client, id).await?;
    let (file, source) = process::load_source(client, &execution).await?;
    let events = process::load_history(client, id).await?;
    Ok(Bundle {
        execution,
        file,
        source,
        events,
    })
}

impl Bundle {
    fn program(&self) -> Result<Arc<Program>, Error> {
        compile(&self.file, &self.source, &self.execution.workflow)
    }
}

/// The workflow in a CDL source that the server once accepted.
pub fn compile(file: &str, source: &str, workflow: &str) -> Result<Arc<Program>, Error> {
    let parsed = cascade_cdl::parse(&Source {
        name: file,
        bytes: source.as_bytes(),
    });
    let Some(application) = parsed.application else {
        let first = parsed.diagnostics.first().map(ToString::to_string);
        let first = first.unwrap_or_default();
        return Err(Error::failed(format!(
            "this version cannot read the application's source: {first}"
        )));
    };
    let program = application.workflows.get(workflow).cloned();
    program.ok_or_else(|| Error::failed(format!("{file} has no workflow `{workflow}`")))
}
