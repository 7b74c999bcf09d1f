//! `cascade workflow`: which workflows there are, and whether they can be started.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Session;
use super::client::Client;
use super::error::Error;
use super::output::{Output, Table, Tone, paint, plain};
use super::process::address;
use super::wire::{ApplicationView, Items, WorkflowState};

/// Pause workflows, and resume them
#[derive(Debug, Subcommand)]
pub(crate) enum Workflow {
    /// List the workflows in force
    List,
    /// Let nothing new of a workflow be started; executions that run go on
    Pause {
        /// The workflow; its application may be left out where only one has such a workflow
        #[arg(value_name = "[APP/]WORKFLOW")]
        target: String,
        /// Why; who starts it is told
        #[arg(long, default_value = "paused from the command line")]
        reason: String,
    },
    /// Let a paused workflow be started again
    Resume {
        /// The workflow; its application may be left out where only one has such a workflow
        #[arg(value_name = "[APP/]WORKFLOW")]
        target: String,
    },
}

impl Workflow {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.client()?;
        let output = session.output;
        match self {
            Self::List => {
                let list: Items<ApplicationView> = client.get(&["v1", "applications"], &[]).await?;
                output.result(&list, || table(&list));
                Ok(())
            }
            Self::Pause { target, reason } => {
                let body = json!({ "reason": reason });
                change(&client, output, &target, "pause", &body).await
            }
            Self::Resume { target } => change(&client, output, &target, "resume", &json!({})).await,
        }
    }
}

async fn change(
    client: &Client,
    output: Output,
    target: &str,
    verb: &str,
    body: &Value,
) -> Result<(), Error> {
    let (application, workflow) = address(client, target).await?;
    let path = [
        "v1",
        "applications",
        &application,
        "workflows",
        &workflow,
        verb,
    ];
    let state: WorkflowState = client.post(&path, body).await?;
    output.result(&state, || {
        let name = format!("{}/{}", state.application, state.workflow);
        let name = paint(Tone::Strong, &name);
        match &state.paused {
            Some(paused) if paused.reason.is_empty() => {
                format!("{name} is paused since {}", paused.at)
            }
            Some(paused) => format!(
                "{name} is paused since {}: {}",
                paused.at,
                plain(&paused.reason)
            ),
            None => format!("{name} can be started"),
        }
    });
    Ok(())
}

fn table(list: &Items<ApplicationView>) -> String {
    let mut table = Table::new(&["workflow", "version", "paused"]);
    for application in &list.items {
        for workflow in &application.workflows {
            let paused = workflow.paused.as_ref();
            let paused = paused.map(|why| format!("{} {}", why.at, plain(&why.reason)));
            table.row([
                (
                    format!("{}/{}", application.name, workflow.name),
                    Tone::Plain,
                ),
                (application.version.to_string(), Tone::Faint),
                (paused.unwrap_or_default(), Tone::Busy),
            ]);
        }
    }
    table.render()
}
