//! `cascade process list` and `count`: which executions there are.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::error::Error;
use super::output::{Output, Table, Tone};
use super::process::status;
use super::wire::ExecutionPage;
use crate::store::StatusName;

/// Pages that one list asks for until it is full: a page that finds little comes back
/// short. Together they look at some 100,000 executions at least, in a second or two.
const PAGES: u32 = 50;

/// Which executions.
#[derive(Debug, Args)]
struct Which {
    /// Only of this application
    #[arg(long, short)]
    app: Option<String>,
    /// Only of this workflow
    #[arg(long, short)]
    workflow: Option<String>,
    /// Only what is placed by this shard key
    #[arg(long, value_name = "KEY")]
    shard_key: Option<String>,
    /// Only in this status
    #[arg(long, value_enum)]
    status: Option<StatusArg>,
    /// Only with this label: NAME=VALUE, or NAME if any value will do; may be given several times
    #[arg(long = "label", short = 'l', value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
    /// Only with an attribute that is so: `amount>=100`, `tier!=gold`, or its name alone; may be
    /// given several times
    #[arg(long = "attribute", value_name = "NAME[OPERATOR VALUE]")]
    attributes: Vec<String>,
    /// Only what was started after this time: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = time)]
    started_after: Option<u64>,
    /// Only what was started before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    started_before: Option<u64>,
    /// Only what ended after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    closed_after: Option<u64>,
    /// Only what ended before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    closed_before: Option<u64>,
}

/// List executions, newest first
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where the last page ended
    #[arg(long)]
    cursor: Option<String>,
}

/// Count executions
///
/// Exact up to a bound, `at least` so many beyond it.
#[derive(Debug, Args)]
pub(crate) struct Count {
    #[command(flatten)]
    which: Which,
    /// Count apart
    #[arg(long, value_enum)]
    by: Option<GroupArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum StatusArg {
    Running,
    Paused,
    Completed,
    Failed,
    Cancelled,
    TimedOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GroupArg {
    Status,
    Workflow,
}

/// What a count says.
#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    count: u64,
    at_least: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Group>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Group {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<StatusName>,
    count: u64,
}

fn time(text: &str) -> Result<u64, String> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    let at = text.parse::<jiff::Timestamp>();
    let at = at
        .ok()
        .and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.ok_or_else(|| format!("`{text}` is no time as in 2026-01-31T09:30:00Z"))
}

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no variant is skipped");
    value.get_name().to_owned()
}

impl Which {
    fn query(self) -> Vec<(&'static str, String)> {
        let number = |at: Option<u64>| at.map(|at| at.to_string());
        let filters = [
            ("application", self.app),
            ("workflow", self.workflow),
            ("shard_key", self.shard_key),
            ("status", self.status.as_ref().map(name)),
            ("started_after", number(self.started_after)),
            ("started_before", number(self.started_before)),
            ("closed_after", number(self.closed_after)),
            ("closed_before", number(self.closed_before)),
        ];
        let filters = filters.into_iter();
        let given = filters.filter_map(|(name, value)| value.map(|value| (name, value)));
        let labels = self.labels.into_iter().map(|label| ("label", label));
        let attributes = self.attributes.into_iter();
        let attributes = attributes.map(|attribute| ("attribute", attribute));
        given.chain(labels).chain(attributes).collect()
    }
}

impl List {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), Error> {
        let (limit, filter) = (self.limit, self.which.query());
        let mut query = filter.clone();
        query.push(("limit", limit.to_string()));
        query.extend(self.cursor.map(|cursor| ("cursor", cursor)));
        let mut page: ExecutionPage = client.get(&["v1", "executions"], &query).await?;
        for _ in 1..PAGES {
            let left = usize::try_from(limit).unwrap_or(usize::MAX) - page.items.len();
            let Some(cursor) = page.next.take_if(|_| left > 0) else {
                break;
            };
            let mut query = filter.clone();
            query.push(("limit", left.to_string()));
            query.push(("cursor", cursor));
            let more: ExecutionPage = client.get(&["v1", "executions"], &query).await?;
            page.items.extend(more.items);
            page.next = more.next;
        }
        output.result(&page, || table(&page));
        Ok(())
    }
}

impl Count {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), Error> {
        let mut query = self.which.query();
        query.extend(self.by.map(|by| ("group", name(&by))));
        let counted: Counted = client.get(&["v1", "executions", "count"], &query).await?;
        output.result(&counted, || counted.describe());
        Ok(())
    }
}

impl Counted {
    fn describe(&self) -> String {
        let at_least = if self.at_least { "at least " } else { "" };
        let total = format!("{at_least}{}", self.count);
        if self.groups.is_empty() {
            return total;
        }
        let mut table = Table::new(&["what", "executions"]);
        for group in &self.groups {
            let what = match (&group.status, &group.application, &group.workflow) {
                (Some(it), _, _) => {
                    let (tone, text) = status(*it);
                    (text.to_owned(), tone)
                }
                (None, Some(application), Some(workflow)) => {
                    (format!("{application}/{workflow}"), Tone::Plain)
                }
                // Of a server that counts by what this client does not know.
                _ => ("other".to_owned(), Tone::Plain),
            };
            table.row([what, (group.count.to_string(), Tone::Plain)]);
        }
        table.row([("all".to_owned(), Tone::Strong), (total, Tone::Strong)]);
        table.render()
    }
}

fn table(page: &ExecutionPage) -> String {
    let mut table = Table::new(&["id", "workflow", "status", "started", "events"]);
    for view in &page.items {
        let (tone, status) = status(view.status);
        table.row([
            (view.id.clone(), Tone::Plain),
            (
                format!("{}/{}", view.application, view.workflow),
                Tone::Plain,
            ),
            (status.to_owned(), tone),
            (view.started_at.to_string(), Tone::Faint),
            (view.events.to_string(), Tone::Plain),
        ]);
    }
    let mut text = table.render();
    if let Some(next) = &page.next {
        text = format!("{text}\nmore: --cursor {next}");
    }
    text
}
