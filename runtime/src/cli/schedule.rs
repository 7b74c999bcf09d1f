//! `cascade schedule`: what starts workflows by the time.

use cascade_cdl::Timestamp;
use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::Session;
use super::client::Client;
use super::error::{Error, Exit};
use super::output::{Output, Table, Tone, brief, paint, plain};
use super::wire::{Backfilled, Items, RunView, ScheduleView, Triggered};

/// Columns that a reason has in a table.
const REASON: usize = 60;

/// Show schedules, pause them, and start what they start
#[derive(Debug, Subcommand)]
pub(crate) enum Schedule {
    /// List the schedules in force
    List {
        /// Of this application only
        #[arg(long)]
        app: Option<String>,
    },
    /// Show a schedule, its next times, and what became of the last ones
    Show {
        /// The schedule; its application may be left out where only one has such a schedule
        #[arg(value_name = "[APP/]SCHEDULE")]
        target: String,
    },
    /// Show the next times of a schedule
    Next {
        /// The schedule; its application may be left out where only one has such a schedule
        #[arg(value_name = "[APP/]SCHEDULE")]
        target: String,
        /// How many
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        count: u32,
    },
    /// Let a schedule start nothing by the time; what it has started goes on
    Pause {
        /// The schedule; its application may be left out where only one has such a schedule
        #[arg(value_name = "[APP/]SCHEDULE")]
        target: String,
        /// Why
        #[arg(long, default_value = "paused from the command line")]
        reason: String,
    },
    /// Let a paused schedule go on with what is due from now on
    Resume {
        /// The schedule; its application may be left out where only one has such a schedule
        #[arg(value_name = "[APP/]SCHEDULE")]
        target: String,
    },
    /// Start an execution of a schedule now, also if it is paused
    Trigger {
        /// The schedule; its application may be left out where only one has such a schedule
        #[arg(value_name = "[APP/]SCHEDULE")]
        target: String,
        /// What to do if an earlier execution runs; the schedule's policy if not given
        #[arg(long)]
        overlap: Option<Overlap>,
        /// Makes the request one of a kind: the same key, the same execution
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Start what a schedule left out in the past; what it has started is not started again
    Backfill {
        /// The schedule; its application may be left out where only one has such a schedule
        #[arg(value_name = "[APP/]SCHEDULE")]
        target: String,
        /// The first time, as in 2026-11-01T00:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Timestamp,
        /// The last time
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Timestamp,
        /// What to do while others run; one after the other if not given
        #[arg(long)]
        overlap: Option<Overlap>,
    },
}

/// What happens while an earlier execution runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Overlap {
    Skip,
    BufferOne,
    BufferAll,
    CancelOther,
    Allow,
}

impl Overlap {
    fn word(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A point in time, in RFC 3339.
fn time(text: &str) -> Result<Timestamp, String> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    let millis = parsed
        .ok()
        .and_then(|at| u64::try_from(at.as_millisecond()).ok());
    millis.map(Timestamp).ok_or_else(|| {
        "write it as RFC 3339 with its offset, as in 2026-11-01T00:00:00Z".to_owned()
    })
}

impl Schedule {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.client()?;
        let output = session.output;
        match self {
            Self::List { app } => {
                let query: Vec<_> = app.into_iter().map(|app| ("application", app)).collect();
                let list: Items<ScheduleView> = client.get(&["v1", "schedules"], &query).await?;
                output.result(&list, || table(&list));
            }
            Self::Show { target } => {
                let view = load(&client, &target, 5).await?;
                output.result(&view, || describe(&view));
            }
            Self::Next { target, count } => {
                let view = load(&client, &target, count).await?;
                output.result(&view.next, || next(&view));
            }
            Self::Pause { target, reason } => {
                let body = json!({ "reason": reason });
                change(&client, output, &target, "pause", &body).await?;
            }
            Self::Resume { target } => {
                change(&client, output, &target, "resume", &json!({})).await?;
            }
            Self::Trigger {
                target,
                overlap,
                idempotency_key,
            } => {
                let body = json!({ "overlap": overlap.map(Overlap::word) });
                trigger(&client, output, &target, &body, idempotency_key).await?;
            }
            Self::Backfill {
                target,
                from,
                until,
                overlap,
            } => {
                let overlap = overlap.map(Overlap::word);
                let body = json!({ "from": from, "until": until, "overlap": overlap });
                let owner = address(&client, &target).await?;
                let filled: Backfilled = client.post(&path(&owner, "backfill"), &body).await?;
                output.result(&filled, || match filled.times {
                    1 => "1 time is started, unless it was before".to_owned(),
                    times => format!("{times} times are started, but for those that were before"),
                });
            }
        }
        Ok(())
    }
}

async fn load(client: &Client, target: &str, next: u32) -> Result<ScheduleView, Error> {
    let owner = address(client, target).await?;
    let path = path(&owner, "");
    client
        .get(&path[..path.len() - 1], &[("next", next.to_string())])
        .await
}

async fn change(
    client: &Client,
    output: Output,
    target: &str,
    verb: &str,
    body: &Value,
) -> Result<(), Error> {
    let owner = address(client, target).await?;
    let view: ScheduleView = client.post(&path(&owner, verb), body).await?;
    output.result(&view, || {
        let name = paint(Tone::Strong, format!("{}/{}", view.application, view.name));
        match (&view.paused, view.next.first()) {
            (Some(paused), _) if paused.reason.is_empty() => {
                format!("{name} is paused since {}", paused.at)
            }
            (Some(paused), _) => {
                format!(
                    "{name} is paused since {}: {}",
                    paused.at,
                    plain(&paused.reason)
                )
            }
            (None, Some(next)) => format!("{name} is due next at {}", plain(&next.local)),
            (None, None) => format!("{name} is not due any more"),
        }
    });
    Ok(())
}

async fn trigger(
    client: &Client,
    output: Output,
    target: &str,
    body: &Value,
    key: Option<String>,
) -> Result<(), Error> {
    let owner = address(client, target).await?;
    let mut request = client
        .request(Method::POST, &path(&owner, "trigger"), &[])
        .json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let triggered: Triggered = client.json(request).await?;
    output.result(&triggered, || {
        let id = paint(Tone::Strong, &triggered.execution);
        if triggered.waits {
            format!("{id} starts when what runs has ended")
        } else {
            format!("{id} is started")
        }
    });
    Ok(())
}

fn path<'a>(owner: &'a (String, String), verb: &'a str) -> [&'a str; 6] {
    let (application, schedule) = owner;
    [
        "v1",
        "applications",
        application,
        "schedules",
        schedule,
        verb,
    ]
}

/// The application and the schedule that `[APP/]SCHEDULE` means.
async fn address(client: &Client, text: &str) -> Result<(String, String), Error> {
    if let Some((application, schedule)) = text.split_once('/') {
        return Ok((application.to_owned(), schedule.to_owned()));
    }
    let list: Items<ScheduleView> = client.get(&["v1", "schedules"], &[]).await?;
    let owners: Vec<&ScheduleView> = list.items.iter().filter(|view| view.name == text).collect();
    match owners[..] {
        [only] => Ok((only.application.clone(), only.name.clone())),
        [] => Err(Error::new(
            Exit::NotFoundOrDenied,
            format!("no application here has a schedule `{text}`"),
        )
        .hint("`cascade schedule list` shows which there are")),
        _ => {
            let names = owners
                .iter()
                .map(|view| format!("{}/{}", view.application, view.name));
            let names: Vec<String> = names.take(20).collect();
            let message = format!("several applications have a schedule `{text}`");
            Err(Error::usage(message).hint(format!("choose one of: {}", names.join(", "))))
        }
    }
}

fn table(list: &Items<ScheduleView>) -> String {
    let mut table = Table::new(&["schedule", "workflow", "when", "next", "last"]);
    for view in &list.items {
        let (next, tone) = match (&view.paused, view.next.first()) {
            (Some(_), _) => ("paused".to_owned(), Tone::Busy),
            (None, Some(next)) => (plain(&next.local), Tone::Plain),
            (None, None) => ("never".to_owned(), Tone::Faint),
        };
        let (ended, ended_tone) = view
            .recent
            .first()
            .map_or((String::new(), Tone::Faint), outcome);
        table.row([
            (format!("{}/{}", view.application, view.name), Tone::Plain),
            (view.workflow.clone(), Tone::Plain),
            (plain(&view.timing), Tone::Faint),
            (next, tone),
            (ended, ended_tone),
        ]);
    }
    table.render()
}

fn describe(view: &ScheduleView) -> String {
    let name = paint(Tone::Strong, format!("{}/{}", view.application, view.name));
    let mut lines = vec![
        format!("{name} starts {}", plain(&view.workflow)),
        format!("when      {}", plain(&view.timing)),
        format!("overlap   {}", plain(&view.overlap)),
        format!("catch up  {}", plain(&view.catch_up)),
    ];
    if let Some(paused) = &view.paused {
        let since = format!("paused    since {} {}", paused.at, plain(&paused.reason));
        lines.push(paint(Tone::Busy, since));
    }
    for (number, time) in view.next.iter().enumerate() {
        let head = if number == 0 { "next" } else { "" };
        lines.push(format!("{head:<9} {}", plain(&time.local)));
    }
    let open = &view.open;
    if !open.is_empty() || view.waiting > 0 {
        lines.push(format!(
            "running   {}, {} waiting",
            open.len(),
            view.waiting
        ));
    }
    let mut text = lines.join("\n");
    if !view.recent.is_empty() {
        let mut table = Table::new(&["time", "cause", "outcome", "execution", "reason"]);
        for run in &view.recent {
            let (outcome, tone) = outcome(run);
            let reason = run.reason.as_deref().unwrap_or_default();
            table.row([
                (run.at.to_string(), Tone::Plain),
                (plain(&run.cause), Tone::Faint),
                (outcome, tone),
                (run.execution.clone().unwrap_or_default(), Tone::Plain),
                (brief(&plain(reason), REASON), Tone::Faint),
            ]);
        }
        text.push_str("\n\n");
        text.push_str(&table.render());
    }
    text
}

fn next(view: &ScheduleView) -> String {
    match &view.paused {
        Some(paused) => format!("it is paused since {}", paused.at),
        None if view.next.is_empty() => "it is not due any more".to_owned(),
        None => {
            let lines: Vec<String> = view.next.iter().map(|next| plain(&next.local)).collect();
            lines.join("\n")
        }
    }
}

/// What became of a time, in a word or two.
fn outcome(run: &RunView) -> (String, Tone) {
    let code = run.code.as_deref().unwrap_or_default();
    let times = match (run.count, run.more) {
        (1, false) => String::new(),
        (count, false) => format!(" ×{count}"),
        (count, true) => format!(" ×{count}+"),
    };
    match run.outcome.as_str() {
        "started" => {
            let status = run
                .status
                .map(|status| serde_json::to_value(status).unwrap_or_default());
            let status = status.as_ref().and_then(Value::as_str).unwrap_or("started");
            let tone = match status {
                "completed" => Tone::Good,
                "running" | "paused" | "started" => Tone::Busy,
                _ => Tone::Bad,
            };
            (status.to_owned(), tone)
        }
        "refused" => (format!("refused: {}{times}", plain(code)), Tone::Bad),
        other => (
            format!("{}: {}{times}", plain(other), plain(code)),
            Tone::Faint,
        ),
    }
}
