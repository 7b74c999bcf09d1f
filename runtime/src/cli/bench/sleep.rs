//! `cascade bench sleep`: what executions that only wait for time cost, and how
//! late they wake when the time of all of them is the same.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_cdl::asl::Bindings;
use cascade_cdl::{Json, Timestamp};
use clap::Args;
use futures::stream::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;

use super::super::error::Error;
use super::super::output::{Output, size};
use super::super::validate::Checked;
use super::super::{Session, apply, chain};
use super::{NAME, config, context, process, rate, tenant};
use crate::cli::client::Client;
use crate::config::TenantLimits;
use crate::engine::{Engine, Start, StartError};
use crate::server::{self, Running};
use crate::tenancy::key;

/// Starts at a time.
const CLIENTS: usize = 256;

/// How long after the time of all of them is waited for the last: what is later
/// is no figure but a fault.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks at how many are still open: what the last one's lateness is
/// told by, and far below what it is.
const LOOK: Duration = Duration::from_millis(5);

/// Pause of a start that was refused as busy.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

const CDL: &str = "
workflows:
  - name: bench
    states:
      - { name: Sleep, type: Wait, until: '{{ workflow.input.until }}', end: true }
";

/// Memory of executions that sleep, and how late they wake all at once
///
/// Starts the executions in an engine in this process, each of which sleeps
/// until the same time, and tells how long after it the last one has ended.
#[derive(Debug, Args)]
pub(crate) struct Sleep {
    /// Executions that sleep
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    executions: u32,
    /// How long from the first start to the time when all of them wake; all
    /// starts must be done before it
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    executions: u32,
    starts_per_second: f64,
    /// How much more is resident with all of them asleep than with none.
    memory_per_execution_bytes: f64,
    /// Processor time of this process from the first of them waking to the last ended.
    wake_cpu_seconds: f64,
    /// Milliseconds from the time when all were to wake until half and all had ended.
    half_ended_ms: f64,
    all_ended_ms: f64,
    peak_memory_bytes: Option<u64>,
}

impl Sleep {
    pub(super) async fn run(self, session: &Session) -> Result<(), Error> {
        let folder = tempfile::tempdir()
            .map_err(|source| Error::failed(format!("no temporary folder: {source}")))?;
        let (_, text) = key::generate();
        let mut config = config(&folder.path().join("data"), &text)?;
        for tenant in &mut config.tenants {
            tenant.limits = TenantLimits {
                open_executions: u64::from(self.executions) + 1,
                ..TenantLimits::default()
            };
        }
        let running = server::start(config, server::Options::default())
            .await
            .map_err(|error| Error::failed(chain(&error)))?;
        let client = Client::new(&context(&running.url, &text))?;
        let file = Checked::new(
            "bench.yaml".to_owned(),
            CDL.as_bytes().to_vec(),
            &Bindings::default(),
        );
        apply::apply(&client, &file).await?;
        let measured = self.measure(&running, session.output).await;
        running.shutdown().await;
        let report = measured?;
        session.output.result(&report, || report.describe());
        Ok(())
    }

    async fn measure(&self, running: &Running, output: Output) -> Result<Report, Error> {
        let engine = &running.engine;
        let memory = resident()?;
        let began = now();
        let until = began.plus(self.seconds * 1000);
        let spinner = output.spinner(format!("starting {} executions", self.executions));
        futures::stream::iter(0..self.executions)
            .map(|_| start(engine, until))
            .buffer_unordered(CLIENTS)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        let started = now();
        if started >= until {
            return Err(Error::failed("the starts took longer than `--seconds`")
                .hint("give it more, or start fewer"));
        }
        spinner.set_message("waiting until it is time");
        tokio::time::sleep(Duration::from_millis(until.since(started)) / 2).await;
        let asleep = resident()?;
        let cpu = process::cpu_seconds(std::process::id());
        tokio::time::sleep(Duration::from_millis(until.since(now()))).await;
        let half = ended(engine, u64::from(self.executions) / 2, until).await?;
        let all = ended(engine, 0, until).await?;
        let cpu = cpu.zip(process::cpu_seconds(std::process::id()));
        spinner.finish_and_clear();
        Ok(Report {
            executions: self.executions,
            starts_per_second: rate(u64::from(self.executions) * 1000, 1.0)
                / rate(started.since(began).max(1), 1.0),
            memory_per_execution_bytes: rate(asleep.saturating_sub(memory), 1.0)
                / f64::from(self.executions),
            wake_cpu_seconds: cpu.map_or(0.0, |(before, after)| after - before),
            half_ended_ms: rate(half, 1.0),
            all_ended_ms: rate(all, 1.0),
            peak_memory_bytes: process::peak_memory(std::process::id()),
        })
    }
}

async fn start(engine: &Engine, until: Timestamp) -> Result<(), Error> {
    loop {
        let start = Start {
            tenant: tenant(),
            application: NAME.into(),
            workflow: NAME.into(),
            input: Json::from_value(&json!({ "until": until.to_string() })),
            id: None,
            idempotency_key: None,
            parent: None,
            schedule: None,
            priority: None,
            labels: BTreeMap::new(),
            version: None,
        };
        match engine.start(start).await {
            Ok(_) => return Ok(()),
            Err(StartError::Busy { .. }) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(Error::failed(chain(&error))),
        }
    }
}

/// Milliseconds past `until` when no more than so many are open.
async fn ended(engine: &Engine, open: u64, until: Timestamp) -> Result<u64, Error> {
    loop {
        let late = now().since(until);
        let still = engine.stats().open;
        if still <= open {
            return Ok(late);
        }
        if u128::from(late) > PATIENCE.as_millis() {
            return Err(Error::failed(format!("{still} still sleep {late} ms late")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn resident() -> Result<u64, Error> {
    process::memory(std::process::id())
        .ok_or_else(|| Error::failed("the kernel does not tell what this process uses"))
}

fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = passed.map_or(0, |passed| passed.as_millis());
    Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl Report {
    fn describe(&self) -> String {
        let peak = self.peak_memory_bytes.map_or("unknown".to_owned(), size);
        [
            format!(
                "{} executions asleep, started {:.0}/s",
                self.executions, self.starts_per_second
            ),
            format!(
                "memory           {:.0} bytes each, {peak} at most",
                self.memory_per_execution_bytes
            ),
            format!(
                "woke             half within {:.0} ms, all within {:.0} ms; CPU {:.2} s",
                self.half_ended_ms, self.all_ended_ms, self.wake_cpu_seconds
            ),
        ]
        .join("\n")
    }
}
