//! `cascade task`: what people are asked, by all executions.

use clap::{Args, Subcommand};

use super::Session;
use super::error::Error;
use super::output::{Table, Tone, plain};
use super::wire::OpenTaskPage;

/// List what people are asked
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List what people are asked by all executions, the oldest question first
    List(List),
}

/// List what people are asked by all executions, the oldest question first
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only what this person is asked now
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Only of this application
    #[arg(long, short)]
    app: Option<String>,
    /// Only of this workflow
    #[arg(long, short)]
    workflow: Option<String>,
    /// Only of this state
    #[arg(long)]
    state: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where the last page ended
    #[arg(long)]
    cursor: Option<String>,
}

impl Task {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let Self::List(list) = self;
        let mut query = vec![("limit", list.limit.to_string())];
        let filters = [
            ("assignee", list.assignee),
            ("application", list.app),
            ("workflow", list.workflow),
            ("state", list.state),
            ("cursor", list.cursor),
        ];
        let given = filters.into_iter();
        query.extend(given.filter_map(|(name, value)| value.map(|value| (name, value))));
        let client = session.client()?;
        let page: OpenTaskPage = client.get(&["v1", "tasks"], &query).await?;
        session.output.result(&page, || table(&page));
        Ok(())
    }
}

fn table(page: &OpenTaskPage) -> String {
    let mut table = Table::new(&[
        "execution",
        "task",
        "workflow",
        "state",
        "assignee",
        "asked",
        "deadline",
    ]);
    for task in &page.items {
        let deadline = task.deadline.map(|at| at.to_string());
        let place = if task.path.is_empty() {
            task.state.clone()
        } else {
            format!("{}/{}", task.path, task.state)
        };
        table.row([
            (task.execution.clone(), Tone::Plain),
            (task.task.to_string(), Tone::Strong),
            (
                format!("{}/{}", task.application, task.workflow),
                Tone::Plain,
            ),
            (plain(&place), Tone::Plain),
            (plain(&task.assignee), Tone::Plain),
            (task.opened_at.to_string(), Tone::Faint),
            (deadline.unwrap_or_default(), Tone::Faint),
        ]);
    }
    let mut text = table.render();
    if let Some(next) = &page.next {
        text = format!("{text}\nmore: --cursor {next}");
    }
    text
}
