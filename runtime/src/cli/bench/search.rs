//! `cascade bench search`: how long the first page of a list takes where there are many
//! executions, for filters that find much, little and nothing.
//!
//! The rows are written as the engine would have, by the store's own commits. Of each
//! hundred executions one has failed, ten have a label and two attributes; a tenth of a
//! tenth is of a workflow of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cascade_cdl::tags::Scalar;
use cascade_cdl::{Event, EventKind, ExecutionId, Json, Tags, TenantId, Timestamp};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::error::Error;
use super::super::output::{Output, Table, Tone};
use super::super::{Session, chain, serve};
use super::{config, millis, rate, tenant};
use crate::server;
use crate::store::{
    Commit, Filter, Operator, ShardId, StatusName, Store, Summary, TagTest, TaskChanges,
};
use crate::tenancy::key;

/// Rows of a commit: those of the largest statement, a few times.
const BATCH: u64 = 1_024;

/// Rows of a page, as a list has them if nothing else is said.
const PAGE: u32 = 50;

/// Executions are started so many milliseconds after each other.
const APART: u64 = 100;

/// A shard that no server has, so that none is disturbed.
const SHARD: ShardId = ShardId(u32::MAX);

/// First pages of lists of many closed executions
///
/// Writes the executions first, unless there are as many in the store already that an
/// earlier run has written; then asks for the first page of typical lists, one after the
/// other.
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// Closed executions
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    executions: u64,
    /// How often each page is asked for
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Folder for the data; a temporary one by default
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A database in place of a file in that folder: `postgres://USER@HOST/DATABASE`.
    /// What the bench writes stays there
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    executions: u64,
    /// None if they were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_per_second: Option<f64>,
    pages: Vec<Timed>,
}

/// How long something took.
#[derive(Debug, Serialize)]
struct Timed {
    filter: &'static str,
    /// Rows of the page, or what was counted.
    found: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Search {
    pub(super) async fn run(self, session: &Session) -> Result<(), Error> {
        let output = session.output;
        let temporary = tempfile::tempdir()
            .map_err(|source| Error::failed(format!("no temporary folder: {source}")))?;
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| temporary.path().join("data"));
        let (_, text) = key::generate();
        let mut config = config(&data, &text)?;
        if let Some(url) = &self.database {
            config.database = serve::given(url.clone())?;
        }
        let store = server::open_store(&config).await;
        let store = store.map_err(|error| Error::failed(chain(&error)))?;
        let measured = self.measure(&*store, output).await;
        let measured = measured.map_err(|error| Error::failed(chain(&*error)));
        store.close().await;
        let report = measured?;
        output.result(&report, || report.describe());
        Ok(())
    }

    async fn measure(
        &self,
        store: &dyn Store,
        output: Output,
    ) -> Result<Report, Box<dyn std::error::Error>> {
        let tenant = tenant();
        let newest = store.list(&tenant, &Filter::default(), None, 1).await?;
        let there = newest.items.first().map_or(0, |newest| {
            // Its number is in its id: see `row`.
            u64::try_from(newest.id.0.as_u128() & u128::from(u64::MAX)).unwrap_or(0)
        });
        let start = Instant::now();
        if there < self.executions {
            self.fill(store, &tenant, there, output).await?;
        }
        let filled = self.executions.saturating_sub(there);
        let written = (filled > 0).then(|| rate(filled, start.elapsed().as_secs_f64()));
        let mut pages = Vec::new();
        for (name, filter) in filters(self.executions) {
            let spinner = output.spinner(name.to_owned());
            pages.push(self.time(store, &tenant, name, &filter).await?);
            spinner.finish_and_clear();
        }
        let start = Instant::now();
        let counts = store.count(&tenant, &Filter::default()).await?;
        let took = millis(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        pages.push(Timed {
            filter: "count of all",
            found: counts.groups.iter().map(|group| group.executions).sum(),
            p50_ms: took,
            p99_ms: took,
            max_ms: took,
        });
        Ok(Report {
            executions: self.executions,
            written_per_second: written,
            pages,
        })
    }

    async fn fill(
        &self,
        store: &dyn Store,
        tenant: &TenantId,
        there: u64,
        output: Output,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let spinner = output.spinner(format!("writing {} executions", self.executions - there));
        let lease = store.acquire(SHARD).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let first = now.saturating_sub(self.executions * APART);
        let mut next = there + 1;
        while next <= self.executions {
            let last = self.executions.min(next + BATCH - 1);
            let rows = (next..=last).map(|number| row(tenant, number, first + number * APART));
            store.commit(&lease, rows.collect()).await?;
            next = last + 1;
        }
        spinner.finish_and_clear();
        Ok(())
    }

    async fn time(
        &self,
        store: &dyn Store,
        tenant: &TenantId,
        name: &'static str,
        filter: &Filter,
    ) -> Result<Timed, Box<dyn std::error::Error>> {
        let mut took = Vec::with_capacity(self.rounds as usize);
        let mut found = 0;
        for _ in 0..self.rounds {
            let start = Instant::now();
            let page = store.list(tenant, filter, None, PAGE).await?;
            took.push(start.elapsed());
            found = page.items.len() as u64;
        }
        took.sort_unstable();
        let at = |of: usize| {
            let index = (took.len() * of / 100).min(took.len() - 1);
            let micros = took.get(index).map_or(0, Duration::as_micros);
            millis(u64::try_from(micros).unwrap_or(u64::MAX))
        };
        Ok(Timed {
            filter: name,
            found,
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        })
    }
}

/// What is asked for.
fn filters(executions: u64) -> Vec<(&'static str, Filter)> {
    let text = |text: &str| Some(text.to_owned());
    let label = |value: &str| TagTest::Label {
        name: "customer".to_owned(),
        value: text(value),
    };
    let amount = |operator, number: u64| TagTest::Attribute {
        name: "amount".to_owned(),
        is: Some((operator, Scalar::Number(number.into()))),
    };
    let all = Filter::default;
    let of = |tags: Vec<TagTest>| Filter { tags, ..all() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let middle = Timestamp(now.saturating_sub(executions * APART / 2));
    let workflow = |name: &str| Filter {
        workflow: text(name),
        ..all()
    };
    let failed = Some(StatusName::Failed);
    vec![
        ("all", all()),
        (
            "status=failed",
            Filter {
                status: failed,
                ..all()
            },
        ),
        ("workflow=rare", workflow("rare")),
        (
            "started_before half",
            Filter {
                started_before: Some(middle),
                ..all()
            },
        ),
        (
            "closed_after half",
            Filter {
                closed_after: Some(middle),
                ..all()
            },
        ),
        (
            "closed_before half",
            Filter {
                closed_before: Some(middle),
                ..all()
            },
        ),
        ("label customer=c-7", of(vec![label("c-7")])),
        ("attribute amount=70", of(vec![amount(Operator::Equal, 70)])),
        (
            "attribute amount>=9000",
            of(vec![amount(Operator::AtLeast, 9_000)]),
        ),
        (
            "label and amount<5000 and failed",
            Filter {
                status: failed,
                ..of(vec![label("c-7"), amount(Operator::Less, 5_000)])
            },
        ),
        ("nothing: workflow=none", workflow("none")),
        ("nothing: label customer=none", of(vec![label("none")])),
        (
            "nothing: attribute amount>10000",
            of(vec![amount(Operator::Greater, 10_000)]),
        ),
        (
            "nothing: application=none (a scan)",
            Filter {
                application: text("none"),
                ..all()
            },
        ),
    ]
}

/// A closed execution with a number.
fn row(tenant: &TenantId, number: u64, started_at: u64) -> Commit {
    let id = ExecutionId(Uuid::from_u128(u128::from(number)));
    let tagged = number.is_multiple_of(10);
    let labels = BTreeMap::from([("customer".to_owned(), format!("c-{}", number / 10 % 1_000))]);
    let labels = if tagged { labels } else { BTreeMap::new() };
    let attributes = BTreeMap::from([
        ("amount".to_owned(), json!(number / 10 % 10_000)),
        (
            "tier".to_owned(),
            Value::from(if number.is_multiple_of(20) {
                "gold"
            } else {
                "plain"
            }),
        ),
    ]);
    let attributes = if tagged { attributes } else { BTreeMap::new() };
    let tags = Tags {
        labels: labels.clone(),
        attributes,
    };
    let failed = number.is_multiple_of(100);
    let (status, error) = if failed {
        (StatusName::Failed, Some("PaymentDeclined".to_owned()))
    } else {
        (StatusName::Completed, None)
    };
    let started = Event {
        seq: 1,
        at: Timestamp(started_at),
        kind: EventKind::ExecutionStarted {
            input: Json::from_value(&json!({ "order": number, "customer": number % 1_000 })),
            shards: 10,
            machine: cascade_cdl::SEMANTICS,
            parent: None,
            schedule: None,
            shard_key: None,
            priority: None,
            labels,
        },
    };
    let workflow = if number.is_multiple_of(10_000) {
        "rare"
    } else {
        "process"
    };
    Commit {
        summary: Summary {
            tenant: tenant.clone(),
            id,
            bucket: id.bucket(),
            shard_key: None,
            application: Arc::from("orders"),
            application_version: 1,
            workflow: Arc::from(workflow),
            status,
            error,
            started_at: Timestamp(started_at),
            closed_at: Some(Timestamp(started_at + 20)),
            wake_at: None,
            idle: false,
            version: 1,
            tags: Some(Arc::new(tags)).filter(|_| tagged),
        },
        expected: 0,
        events: vec![started],
        snapshot: None,
        tasks: TaskChanges::default(),
        retag: tagged,
    }
}

impl Report {
    fn describe(&self) -> String {
        let written = self.written_per_second;
        let written = written.map(|rate| format!(", written at {rate:.0}/s"));
        let head = format!(
            "{} closed executions{}, pages of {PAGE}",
            self.executions,
            written.unwrap_or_default()
        );
        let mut table = Table::new(&["filter", "found", "p50 ms", "p99 ms", "max ms"]);
        for page in &self.pages {
            table.row([
                (page.filter.to_owned(), Tone::Plain),
                (page.found.to_string(), Tone::Plain),
                (format!("{:.2}", page.p50_ms), Tone::Plain),
                (format!("{:.2}", page.p99_ms), Tone::Strong),
                (format!("{:.2}", page.max_ms), Tone::Plain),
            ]);
        }
        format!("{head}\n{}", table.render())
    }
}
