//! `cascade process`: starts executions and says how they stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cascade_cdl::program::Program;
use cascade_cdl::tags::is_label_name;
use cascade_cdl::{Event, ExecutionId, TenantId};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Follow};
use super::deliver::{self, Answer, Callback, Signal};
use super::error::{Error, Exit};
use super::output::{Output, Tone, paint, plain};
use super::replay;
use super::search::{Count, List};
use super::wire::{
    ApplicationView, CLOSED_EVENT, ExecutionView, HISTORY_EVENT, HistoryPage, Items, TenantView,
};
use super::{Session, events, input};
use crate::store::StatusName;

/// How long one request waits for an execution to end. The server may answer
/// earlier; then the command asks again.
const WAIT: Duration = Duration::from_secs(30);

/// Events that one request fetches.
const HISTORY_PAGE: u32 = 1_000;

/// Start and watch executions
#[derive(Debug, Subcommand)]
pub(crate) enum Process {
    /// Start an execution
    Start(Start),
    /// List executions, newest first
    List(List),
    /// Count executions
    Count(Count),
    /// Show how an execution stands
    Show {
        /// The execution's id
        id: String,
    },
    /// Show an execution's history, and what followed from each event
    History {
        /// The execution's id
        id: String,
    },
    /// Follow an execution until it ends
    Watch {
        /// The execution's id
        id: String,
    },
    /// End an execution
    Cancel {
        /// The execution's id
        id: String,
        /// Why; it goes into the history
        #[arg(long, default_value = "cancelled from the command line")]
        reason: String,
    },
    /// Let nothing new begin in an execution; what runs is let run
    Pause {
        /// The execution's id
        id: String,
        /// Why; it goes into the history
        #[arg(long, default_value = "paused from the command line")]
        reason: String,
    },
    /// Let a paused execution go on
    Resume {
        /// The execution's id
        id: String,
        /// Wait until it ends
        #[arg(long)]
        wait: bool,
    },
    /// Let a failed execution go on from the state that failed
    Retry {
        /// The execution's id
        id: String,
        /// Wait until it ends
        #[arg(long)]
        wait: bool,
    },
    /// Send a signal to an execution
    Signal(Signal),
    /// List what an execution asks people
    Tasks {
        /// The execution's id
        id: String,
    },
    /// Answer what an execution asks a person
    Answer(Answer),
    /// Tell how a task went, by its token
    Callback(Callback),
}

/// Start an execution
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The workflow; its application may be left out where only one has such a workflow
    #[arg(value_name = "[APP/]WORKFLOW", required_unless_present = "workflow")]
    target: Option<String>,
    /// The application
    #[arg(long, short, requires = "workflow", conflicts_with = "target")]
    app: Option<String>,
    /// The workflow
    #[arg(long, short, conflicts_with = "target")]
    workflow: Option<String>,
    /// JSON, or @FILE, or - for standard input; {} by default
    #[arg(long, short, value_name = "JSON")]
    input: Option<String>,
    /// Starts with the same key are the same execution
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How urgent it is among your own executions, 1 the most, 5 the least; as the workflow says if not given
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    priority: Option<u8>,
    /// What it is found by, NAME=VALUE; may be given several times
    #[arg(long = "label", short = 'l', value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Wait until it ends; exit code 1 unless it completed
    #[arg(long)]
    wait: bool,
}

/// A label, as in `customer=acme`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` has no `=`; write it as NAME=VALUE"))?;
    if !is_label_name(name) {
        return Err(format!("`{name}` is no name of a label"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl Process {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.client()?;
        let output = session.output;
        match self {
            Self::Start(start) => start.run(&client, output).await,
            Self::List(list) => list.run(&client, output).await,
            Self::Count(count) => count.run(&client, output).await,
            Self::Show { id } => {
                let view = load(&client, &id).await?;
                output.result(&view, || describe(&view));
                Ok(())
            }
            Self::History { id } => print_history(&client, output, &id).await,
            Self::Watch { id } => {
                let view = watch(&client, output, &id).await?;
                verdict(output, &view)
            }
            Self::Cancel { id, reason } => {
                let body = json!({ "reason": reason });
                control(&client, output, &id, "cancel", &body, false).await
            }
            Self::Pause { id, reason } => {
                let body = json!({ "reason": reason });
                control(&client, output, &id, "pause", &body, false).await
            }
            Self::Resume { id, wait } => {
                control(&client, output, &id, "resume", &json!({}), wait).await
            }
            Self::Retry { id, wait } => {
                control(&client, output, &id, "retry", &json!({}), wait).await
            }
            Self::Signal(signal) => signal.run(&client, output).await,
            Self::Tasks { id } => deliver::print_tasks(&client, output, &id).await,
            Self::Answer(answer) => answer.run(&client, output).await,
            Self::Callback(callback) => callback.run(&client, output).await,
        }
    }
}

/// Does something to an execution and shows how it stands then, or how it ends.
async fn control(
    client: &Client,
    output: Output,
    id: &str,
    verb: &str,
    body: &Value,
    wait: bool,
) -> Result<(), Error> {
    let view: ExecutionView = client.post(&["v1", "executions", id, verb], body).await?;
    if wait {
        return until_closed(client, output, view).await;
    }
    output.result(&view, || describe(&view));
    Ok(())
}

impl Start {
    async fn run(self, client: &Client, output: Output) -> Result<(), Error> {
        let input = input::read(self.input.as_deref())?;
        let key = self.idempotency_key.as_deref();
        let (app, workflow) = match (self.app, self.target.or(self.workflow)) {
            (Some(app), Some(workflow)) => (app, workflow),
            (_, workflow) => address(client, &workflow.unwrap_or_default()).await?,
        };
        let mut body = body(&app, &workflow, &input);
        if let Some(priority) = self.priority {
            body["priority"] = priority.into();
        }
        if !self.labels.is_empty() {
            body["labels"] = json!(self.labels.into_iter().collect::<BTreeMap<_, _>>());
        }
        let view = begin(client, &body, key).await?;
        if self.wait {
            return until_closed(client, output, view).await;
        }
        output.result(&view, || {
            format!(
                "started {}\nfollow it with: cascade process watch {}",
                paint(Tone::Strong, &view.id),
                view.id
            )
        });
        Ok(())
    }
}

/// The application and the workflow that `[APP/]WORKFLOW` means.
pub(crate) async fn address(client: &Client, text: &str) -> Result<(String, String), Error> {
    if let Some((application, workflow)) = text.split_once('/') {
        return Ok((application.to_owned(), workflow.to_owned()));
    }
    let list: Items<ApplicationView> = client.get(&["v1", "applications"], &[]).await?;
    let mut all = Vec::new();
    for application in &list.items {
        for workflow in &application.workflows {
            all.push((application.name.as_str(), workflow.name.as_str()));
        }
    }
    let named = |(_, workflow): &&(&str, &str)| *workflow == text;
    let owners: Vec<_> = all.iter().filter(named).collect();
    match owners[..] {
        [(application, workflow)] => Ok(((*application).to_owned(), (*workflow).to_owned())),
        [] => Err(Error::new(
            Exit::NotFoundOrDenied,
            format!("no application here has a workflow `{text}`"),
        )
        .hint(offer(&all))),
        _ => {
            let owners: Vec<_> = owners.into_iter().copied().collect();
            let message = format!("several applications have a workflow `{text}`");
            Err(Error::usage(message).hint(offer(&owners)))
        }
    }
}

/// Workflows to choose from, as many as fit a line or two.
fn offer(workflows: &[(&str, &str)]) -> String {
    const SHOWN: usize = 20;
    if workflows.is_empty() {
        return "there is none yet; `cascade apply FILE` brings one".to_owned();
    }
    let names: Vec<String> = workflows
        .iter()
        .take(SHOWN)
        .map(|(application, workflow)| format!("{application}/{workflow}"))
        .collect();
    let more = if workflows.len() > SHOWN { ", ..." } else { "" };
    format!("choose one of: {}{more}", names.join(", "))
}

/// Starts an execution. Without a key it gets one of its own, so that a request
/// that is sent twice on the way does not start two.
pub(crate) async fn start(
    client: &Client,
    application: &str,
    workflow: &str,
    input: &Value,
    key: Option<&str>,
) -> Result<ExecutionView, Error> {
    begin(client, &body(application, workflow, input), key).await
}

fn body(application: &str, workflow: &str, input: &Value) -> Value {
    json!({
        "application": application,
        "workflow": workflow,
        "input": input,
    })
}

async fn begin(client: &Client, body: &Value, key: Option<&str>) -> Result<ExecutionView, Error> {
    let key = key_or_new(key.map(str::to_owned));
    let request = client
        .request(Method::POST, &["v1", "executions"], &[])
        .header("Idempotency-Key", key);
    client.json(request.json(body)).await
}

/// The key of a request, or one of its own.
pub(crate) fn key_or_new(key: Option<String>) -> String {
    key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
}

/// Waits for the end of an execution.
pub(crate) async fn wait(client: &Client, mut view: ExecutionView) -> Result<ExecutionView, Error> {
    while view.status.is_open() {
        let query = [("wait", format!("{}s", WAIT.as_secs()))];
        view = client.get(&["v1", "executions", &view.id], &query).await?;
    }
    Ok(view)
}

/// The execution as it stands.
pub(crate) async fn load(client: &Client, id: &str) -> Result<ExecutionView, Error> {
    client.get(&["v1", "executions", id], &[]).await
}

/// The tenant that the client acts for; what a replay derives depends on it.
pub(crate) async fn load_tenant(client: &Client) -> Result<TenantId, Error> {
    let tenant: TenantView = client.get(&["v1", "tenant"], &[]).await?;
    tenant.id.parse().map_err(|_| {
        Error::new(
            Exit::Server,
            format!("`{}` is not a tenant's id", tenant.id),
        )
    })
}

/// The whole history.
pub(crate) async fn load_history(
    client: &Client,
    id: &str,
) -> Result<Vec<cascade_cdl::Event>, Error> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let query = [
            ("after", after.to_string()),
            ("limit", HISTORY_PAGE.to_string()),
        ];
        let page: HistoryPage = client
            .get(&["v1", "executions", id, "history"], &query)
            .await?;
        all.extend(page.events);
        match page.next {
            Some(next) if next > after => after = next,
            _ => return Ok(all),
        }
    }
}

/// Prints an execution and its history.
pub(crate) async fn print_history(client: &Client, output: Output, id: &str) -> Result<(), Error> {
    let view = load(client, id).await?;
    let history = load_history(client, id).await?;
    if output.is_json() {
        output.result(&history, String::new);
        return Ok(());
    }
    let program = program_at(client, &view, view.first_version()).await?;
    let mut live = live(program, &view, load_tenant(client).await?)?;
    let mut lines = vec![describe(&view), String::new()];
    for event in &history {
        if let Some(version) = live.lacks(event) {
            live.learn(version, program_at(client, &view, version).await?);
        }
        let records = live.feed(event)?;
        lines.push(events::step_text(event, &records, view.started_at));
    }
    output.result(&(), || lines.join("\n"));
    Ok(())
}

/// Prints what happens until the execution ends, and returns how it ended.
async fn watch(client: &Client, output: Output, id: &str) -> Result<ExecutionView, Error> {
    let view = load(client, id).await?;
    let tenant = load_tenant(client).await?;
    let first = program_at(client, &view, view.first_version()).await?;
    let (mut versions, mut shown) = (BTreeMap::new(), 0);
    // Once, and again from the start for each version that it is moved to meanwhile.
    while let Some(version) = follow(
        client, output, &view, &tenant, &first, &versions, &mut shown,
    )
    .await?
    {
        versions.insert(version, program_at(client, &view, version).await?);
    }
    load(client, id).await
}

/// Prints the events after the `shown` ones, as they come, until the end or a move
/// to a version that is not among `versions`, which it then gives back.
async fn follow(
    client: &Client,
    output: Output,
    view: &ExecutionView,
    tenant: &TenantId,
    first: &Arc<Program>,
    versions: &BTreeMap<u32, Arc<Program>>,
    shown: &mut u64,
) -> Result<Option<u32>, Error> {
    let mut live = live(Arc::clone(first), view, tenant.clone())?;
    for (version, program) in versions {
        live.learn(*version, Arc::clone(program));
    }
    let mut lacking = None;
    let path = ["v1", "executions", &view.id, "events"];
    let follow = client.follow(&path, |message| {
        match message.event.as_str() {
            HISTORY_EVENT => {}
            CLOSED_EVENT => return Ok(Follow::Enough),
            // The server may tell more than this version understands.
            _ => return Ok(Follow::More),
        }
        let event: Event = serde_json::from_str(&message.data).map_err(|error| {
            Error::new(Exit::Server, format!("an event does not read: {error}"))
        })?;
        lacking = live.lacks(&event);
        if lacking.is_some() {
            return Ok(Follow::Enough);
        }
        let records = live.feed(&event)?;
        if event.seq > *shown {
            *shown = event.seq;
            output.item(&event, || {
                events::step_text(&event, &records, view.started_at)
            });
        }
        Ok(Follow::More)
    });
    follow.await?;
    Ok(lacking)
}

/// Waits for the end, and lets the exit code tell how it went.
async fn until_closed(client: &Client, output: Output, view: ExecutionView) -> Result<(), Error> {
    let spinner = output.spinner(format!("execution {}", view.id));
    let view = wait(client, view).await;
    spinner.finish_and_clear();
    verdict(output, &view?)
}

/// Prints how an execution ended; anything but completion is exit code 1.
fn verdict(output: Output, view: &ExecutionView) -> Result<(), Error> {
    output.item(view, || describe(view));
    if view.status == StatusName::Completed {
        Ok(())
    } else {
        Err(Error::told(Exit::Failed))
    }
}

/// A replay of an execution, before its first event.
pub(crate) fn live(
    program: Arc<Program>,
    view: &ExecutionView,
    tenant: TenantId,
) -> Result<events::Live, Error> {
    let id: ExecutionId = view.id.parse().map_err(|_| {
        Error::new(
            Exit::Server,
            format!("`{}` is not an execution's id", view.id),
        )
    })?;
    Ok(events::Live::new(program, id, tenant))
}

/// File name and source of a version of the application that an execution runs.
pub(crate) async fn load_source(
    client: &Client,
    view: &ExecutionView,
    version: u32,
) -> Result<(String, String), Error> {
    let query = [("version", version.to_string())];
    let path = ["v1", "applications", &view.application, "source"];
    let source = client
        .text(client.request(Method::GET, &path, &query))
        .await?;
    // A shorthand is named after its file, so this is a name that fits.
    Ok((format!("{}.yaml", view.application), source))
}

async fn program_at(
    client: &Client,
    view: &ExecutionView,
    version: u32,
) -> Result<Arc<Program>, Error> {
    let (file, source) = load_source(client, view, version).await?;
    replay::compile(&file, &source, &view.workflow)
}

pub(crate) fn describe(view: &ExecutionView) -> String {
    let (tone, status) = status(view.status);
    let mut lines = vec![
        format!("{}  {}", paint(Tone::Strong, &view.id), paint(tone, status)),
        format!(
            "workflow  {}/{} (version {})",
            view.application, view.workflow, view.application_version
        ),
        format!("started   {}", view.started_at),
    ];
    if let Some(closed) = view.closed_at {
        let took = closed.since(view.started_at);
        lines.push(format!(
            "ended     {closed}, after {}.{:03} s",
            took / 1000,
            took % 1000
        ));
    }
    if let Some(paused) = &view.paused {
        let reason = plain(&paused.reason);
        let why = if reason.is_empty() { "" } else { ": " };
        lines.push(format!("paused    {}{why}{reason}", paused.at));
    }
    if let Some(schedule) = &view.schedule {
        lines.push(format!(
            "schedule  {} of {}",
            plain(&schedule.name),
            schedule.at
        ));
    }
    if let Some(key) = &view.shard_key {
        lines.push(format!("shard key {}", plain(key)));
    }
    if let Some(priority) = view.priority {
        lines.push(format!("priority  {priority}"));
    }
    for (name, value) in &view.labels {
        lines.push(format!("label     {}={}", plain(name), plain(value)));
    }
    for (name, value) in &view.attributes {
        lines.push(format!(
            "attribute {}={}",
            plain(name),
            plain(&value.to_string())
        ));
    }
    lines.push(format!("events    {}", view.events));
    for open in view.open_states.iter().flatten() {
        let until = open.until.map(|until| format!(" until {until}"));
        let attempt = open.attempt.map(|attempt| format!(", attempt {attempt}"));
        let rate = open.waits_for_rate.as_deref();
        let rate = rate.map(|rate| format!(", waits for its rate of {rate}"));
        let attempt = attempt.unwrap_or_default() + &rate.unwrap_or_default();
        let until = until.unwrap_or_default();
        let place = if open.path.is_empty() {
            open.state.clone()
        } else {
            format!("{}/{}", open.path, open.state)
        };
        let whom = open.signal.as_deref().map(|name| format!(" for {name}"));
        let whom = whom.or_else(|| {
            open.assignee
                .as_deref()
                .map(|who| format!(" {}", plain(who)))
        });
        let token = open
            .token
            .as_deref()
            .map(|token| format!(", token {token}"));
        let whom = whom.or(token).unwrap_or_default();
        lines.push(format!(
            "in        {place} ({}{whom}{attempt}{until})",
            open.step
        ));
    }
    if let Some(error) = &view.error {
        let place = error.state.as_deref().map(|state| format!(" in {state}"));
        let place = place.unwrap_or_default();
        lines.push(format!(
            "error     {}{place}: {}",
            error.error,
            plain(&error.message)
        ));
    }
    if let Some(result) = &view.output {
        lines.push(format!("output    {}", plain(result.as_str())));
    }
    lines.join("\n")
}

pub(crate) fn status(status: StatusName) -> (Tone, &'static str) {
    match status {
        StatusName::Running => (Tone::Busy, "running"),
        StatusName::Paused => (Tone::Busy, "paused"),
        StatusName::Completed => (Tone::Good, "completed"),
        StatusName::Failed => (Tone::Bad, "failed"),
        StatusName::Cancelled => (Tone::Bad, "cancelled"),
        StatusName::TimedOut => (Tone::Bad, "timed out"),
    }
}
