//! `cascade replay`: runs a history through the machine again and compares what
//! comes out with what was recorded. Needs only what the history holds, so a
//! saved one replays anywhere, years later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::program::Program;
use cascade_cdl::{Event, EventKind, Execution, Json, Source, TenantId};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Client;
use super::error::{Error, Exit};
use super::output::{Output, Tone, paint};
use super::process;
use super::wire::ExecutionView;
use super::{Session, events, input};
use crate::engine::Standing;

/// Run a history through the machine again, and compare
#[derive(Debug, Args)]
pub(crate) struct Replay {
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
    tenant: TenantId,
    execution: ExecutionView,
    /// Name of the CDL file, for diagnostics.
    file: String,
    /// Of the version that the execution was started with.
    source: String,
    /// Of those that it was moved to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<u32, String>,
    events: Vec<Event>,
}

impl Replay {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
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
        let program = bundle.program(&bundle.source)?;
        let mut live = process::live(program, &bundle.execution, bundle.tenant.clone())?;
        for (version, source) in &bundle.versions {
            live.learn(*version, bundle.program(source)?);
        }
        for event in &bundle.events {
            let records = live.feed(event)?;
            if self.trace {
                let start = bundle.execution.started_at;
                session
                    .output
                    .note(events::step_text(event, &records, start));
            }
        }
        let execution = live
            .execution()
            .ok_or_else(|| Error::failed("it does not replay"))?;
        judge(session.output, &bundle, execution)
    }
}

/// Compares what came out with what was recorded.
fn judge(output: Output, bundle: &Bundle, execution: &Execution) -> Result<(), Error> {
    let recorded = &bundle.execution;
    let replayed = Standing::of(execution);
    // An execution that is open moves on between the two requests.
    let open = recorded.status.is_open();
    let value = |output: &Option<Json>| output.as_ref().map(Json::to_value);
    let same = open
        || (replayed.status == recorded.status
            && value(&replayed.output) == value(&recorded.output)
            && replayed.error == recorded.error);
    let (tone, text) = events::status_text(&execution.status);
    let events = bundle.events.len();
    output.result(
        &json!({
            "execution": recorded.id,
            "events": events,
            "matches": same,
            "replayed": replayed,
            "recorded": recorded,
        }),
        || {
            let verdict = match (same, open) {
                (true, true) => paint(Tone::Good, "replays, and is still open"),
                (true, false) => paint(Tone::Good, "replays to its recorded result"),
                (false, _) => paint(Tone::Bad, "DIFFERS from its recorded result"),
            };
            format!(
                "{} {verdict} ({events} events): {}",
                recorded.id,
                paint(tone, text)
            )
        },
    );
    if same {
        Ok(())
    } else {
        Err(Error::told(Exit::Failed))
    }
}

fn read(path: &Path) -> Result<Bundle, Error> {
    let text = input::read_file(path)?;
    serde_json::from_str(&text)
        .map_err(|source| Error::usage(format!("{}: {source}", path.display())))
}

async fn fetch(client: &Client, id: &str) -> Result<Bundle, Error> {
    let execution = process::load(client, id).await?;
    let first = execution.first_version();
    let (file, source) = process::load_source(client, &execution, first).await?;
    let events = process::load_history(client, id).await?;
    let mut versions = BTreeMap::new();
    for event in &events {
        if let EventKind::ExecutionMigrated { to, .. } = &event.kind {
            let (_, source) = process::load_source(client, &execution, *to).await?;
            versions.insert(*to, source);
        }
    }
    Ok(Bundle {
        tenant: process::load_tenant(client).await?,
        execution,
        file,
        source,
        versions,
        events,
    })
}

impl Bundle {
    fn program(&self, source: &str) -> Result<Arc<Program>, Error> {
        compile(&self.file, source, &self.execution.workflow)
    }
}

/// The workflow in a CDL source that the server once accepted.
pub(crate) fn compile(file: &str, source: &str, workflow: &str) -> Result<Arc<Program>, Error> {
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
    let program = application.program(workflow);
    program.ok_or_else(|| Error::failed(format!("{file} has no workflow `{workflow}`")))
}
