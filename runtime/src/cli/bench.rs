//! `cascade bench`: how many executions a server completes, how fast, and what
//! they cost.

mod load;
mod process;
mod search;
mod sleep;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cascade_cdl::asl::Bindings;
use cascade_cdl::{Json, TenantId};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use super::client::Client;
use super::context::Context;
use super::error::Error;
use super::output::{Output, size};
use super::source::Found;
use super::validate::Checked;
use super::{Session, apply, chain, push, serve};
use crate::catalog::Manifest;
use crate::config::{Config, KeyConfig, Policy, TenantConfig};
use crate::engine::Start;
use crate::sandbox::Capability;
use crate::server::{self, Running};
use crate::telemetry;
use crate::tenancy::{Digest, Role, key};
use load::{Load, Outcome, Target};
use search::Search;
use sleep::Sleep;

/// Whose executions they are, and the application's name.
const NAME: &str = "bench";

/// A pure activity, and one with a capability.
const PURE: &str = include_str!("bench/pure.wat");
const EFFECTS: &str = include_str!("bench/effects.wat");

/// How long a request waits for its execution: longer than any that is worth
/// measuring.
const WAIT: &str = "50s";

/// Measure
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Completed executions per second, latency, CPU, memory and commits
    Workflow(Workflow),
    /// Memory of executions that sleep, and how late they wake all at once
    Sleep(Sleep),
    /// How long the first page of a list takes where there are many executions
    Search(Search),
}

/// Completed executions per second, latency, CPU, memory and commits
///
/// A closed loop: each client starts an execution, waits for its end, and
/// starts the next. Against an engine in this process; with --spawn against a
/// server in a process of its own, over HTTP; with --url against a server that
/// is up.
#[derive(Debug, Args)]
pub(crate) struct Workflow {
    /// Task states of the workflow, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: u32,
    /// Clients that start executions, each one at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long to run before measuring
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warm_up: u64,
    /// Activities that compute only (the default)
    #[arg(long, conflicts_with = "effects")]
    pure: bool,
    /// Activities with a capability, each of which waits for the commit of its cause
    #[arg(long)]
    effects: bool,
    /// Start a server in a process of its own and talk to it over HTTP
    #[arg(long)]
    spawn: bool,
    /// Folder for the data; a temporary one by default. On a file system in
    /// memory a sync costs nothing, and the figures mean little
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A database in place of a file in that folder: `postgres://USER@HOST/DATABASE`.
    /// What the bench writes stays there
    #[arg(long, value_name = "URL", conflicts_with = "url")]
    database: Option<String>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    target: &'static str,
    activity: &'static str,
    steps: u32,
    clients: u32,
    seconds: f64,
    completed: u64,
    completions_per_second: f64,
    /// Requests that were refused because the server was busy, and sent again.
    busy: u64,
    latency_ms: Latency,
    server: Usage,
    /// Of this process, where it is not the server as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cpu_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Usage {
    cpu_seconds: f64,
    cpu_seconds_per_1000: f64,
    /// Most memory that was resident at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    /// How much more was resident after than before.
    memory_growth_per_1000_bytes: f64,
    commits: f64,
    /// Each commit is synced to disk once.
    commits_per_completion: f64,
    events_per_completion: f64,
}

/// The server's counters at one time.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    cpu_seconds: f64,
    memory: f64,
    commits: f64,
    events: f64,
}

impl Bench {
    pub(crate) fn run(self, session: &Session) -> Result<(), Error> {
        let workflow = match self {
            Self::Workflow(workflow) => workflow,
            Self::Sleep(sleep) => return super::all_threads(sleep.run(session)),
            Self::Search(search) => return super::all_threads(search.run(session)),
        };
        // The flag only: a variable that is left over must not send load to a
        // server that somebody else uses.
        if session.given.url.is_some() || workflow.spawn {
            super::one_thread(workflow.run(session))
        } else {
            super::all_threads(workflow.run(session))
        }
    }
}

impl Workflow {
    async fn run(self, session: &Session) -> Result<(), Error> {
        let output = session.output;
        let temporary = tempfile::tempdir()
            .map_err(|source| Error::failed(format!("no temporary folder: {source}")))?;
        let data = self
            .data
            .clone()
            .unwrap_or_else(|| temporary.path().join("data"));
        if session.given.url.is_some() {
            let context = session.context()?;
            return self.measure(&context, "url", None, None, output).await;
        }
        let (_, text) = key::generate();
        let mut config = config(&data, &text)?;
        if self.spawn {
            let server = Spawned::start(&config, temporary.path(), self.database.as_deref())?;
            let context = context(&server.url, &text);
            let pid = Some(server.child.id());
            return self
                .measure(&context, "spawned server", pid, None, output)
                .await;
        }
        if let Some(url) = &self.database {
            config.database = serve::given(url.clone())?;
        }
        let running = server::start(config, server::Options::default())
            .await
            .map_err(|error| Error::failed(chain(&error)))?;
        let context = context(&running.url, &text);
        let pid = Some(std::process::id());
        let measured = self
            .measure(&context, "embedded engine", pid, Some(&running), output)
            .await;
        running.shutdown().await;
        measured
    }

    async fn measure(
        &self,
        context: &Context,
        target: &'static str,
        pid: Option<u32>,
        embedded: Option<&Running>,
        output: Output,
    ) -> Result<(), Error> {
        let client = Client::new(context)?;
        let workflow = self.prepare(&client, output).await?;
        let load = Load {
            target: match embedded {
                Some(running) => engine_target(running, &workflow),
                None => http_target(&client, context, &workflow).await?,
            },
            clients: self.clients as usize,
            warm_up: Duration::from_secs(self.warm_up),
            duration: Duration::from_secs(self.seconds),
        };
        let spinner = output.spinner(format!("{} clients, {} s", self.clients, self.seconds));
        let mut before = Ok(Counters::default());
        let mut own_before = None;
        let outcome = load.run(async {
            before = counters(&client).await;
            own_before = process::cpu_seconds(std::process::id());
        });
        let outcome = outcome
            .await
            .map_err(|error| Error::failed(chain(&error)))?;
        let after = counters(&client).await?;
        let own_after = process::cpu_seconds(std::process::id());
        spinner.finish_and_clear();
        let own = own_before
            .zip(own_after)
            .map(|(before, after)| after - before);
        let report = Report {
            target,
            activity: if self.effects { "effects" } else { "pure" },
            steps: self.steps,
            clients: self.clients,
            seconds: outcome.elapsed.as_secs_f64(),
            completed: outcome.completed,
            completions_per_second: rate(outcome.completed, outcome.elapsed.as_secs_f64()),
            busy: outcome.busy,
            latency_ms: latency(&outcome),
            server: usage(before?, after, pid, outcome.completed),
            client_cpu_seconds: own.filter(|_| embedded.is_none()),
        };
        output.result(&report, || report.describe());
        Ok(())
    }

    /// Brings the activity and the workflow, and gives the workflow's name.
    async fn prepare(&self, client: &Client, output: Output) -> Result<String, Error> {
        let (activity, source, capabilities) = if self.effects {
            ("bench_effects", EFFECTS, vec![Capability::KeyValue])
        } else {
            ("bench_pure", PURE, Vec::new())
        };
        let wasm = wat::parse_str(source)
            .map_err(|error| Error::failed(format!("the bench's own activity: {error}")))?;
        let file = tempfile::Builder::new()
            .suffix(".wasm")
            .tempfile()
            .and_then(|file| std::fs::write(file.path(), &wasm).map(|()| file))
            .map_err(|source| Error::failed(format!("no temporary file: {source}")))?;
        let found = Found {
            name: activity.to_owned(),
            wasm: file.path().to_owned(),
            manifest: Manifest {
                capabilities: capabilities.into_iter().collect(),
                ..Manifest::default()
            },
        };
        push::push(client, &found, None, output).await?;
        let workflow = format!("{activity}_{}", self.steps);
        let text = cdl(&workflow, activity, self.steps);
        apply::apply(
            client,
            &Checked::new(
                "bench.yaml".to_owned(),
                text.into_bytes(),
                &Bindings::default(),
            ),
        )
        .await?;
        Ok(workflow)
    }
}

/// A workflow of so many steps.
fn cdl(workflow: &str, activity: &str, steps: u32) -> String {
    let states: Vec<_> = (1..=steps)
        .map(|step| {
            let mut state = json!({
                "name": format!("Step{step}"),
                "type": "Task",
                "resource": format!("urn:cascade:activity:{activity}"),
                "parameters": { "n": "{{ workflow.input.n }}" },
            });
            let (key, value) = if step == steps {
                ("end", json!(true))
            } else {
                ("next", json!(format!("Step{}", step + 1)))
            };
            state[key] = value;
            state
        })
        .collect();
    let application = json!({
        "apiVersion": "cascade.io/v1",
        "kind": "Application",
        // One application a workflow, so that benches do not replace each other's.
        "metadata": { "name": workflow },
        "spec": { "workflows": [{ "name": workflow, "states": states }] },
    });
    serde_yaml::to_string(&application).expect("plain values with text keys")
}

/// A server for one tenant that may use the key-value store.
fn config(data: &Path, key_text: &str) -> Result<Config, Error> {
    let id = key::parse(key_text).ok_or_else(|| Error::failed("the key made is none"))?;
    let tenant = TenantConfig {
        id: Some(tenant()),
        policy: Policy {
            capabilities: [Capability::KeyValue].into_iter().collect(),
            ..Policy::default()
        },
        keys: vec![KeyConfig {
            id: id.to_owned(),
            role: Some(Role::Admin),
            hash: Some(Digest::of(key_text)),
            digest: Some(Digest::of(key_text)),
            ..KeyConfig::default()
        }],
        ..TenantConfig::default()
    };
    let mut config = Config {
        data_dir: data.to_owned(),
        tenants: vec![tenant],
        ..Config::default()
    };
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(config)
}

fn tenant() -> TenantId {
    NAME.parse().expect("it is short and plain")
}

fn context(url: &str, key: &str) -> Context {
    Context {
        url: url.to_owned(),
        key: Some(key.to_owned()),
        server_key: None,
        tenant: None,
    }
}

fn engine_target(running: &Running, workflow: &str) -> Target {
    Target::Engine {
        engine: running.engine.clone(),
        start: Start {
            tenant: tenant(),
            application: workflow.into(),
            workflow: workflow.into(),
            input: Json::from_value(&json!({ "n": 1 })),
            id: None,
            idempotency_key: None,
            parent: None,
            schedule: None,
            priority: None,
            labels: BTreeMap::new(),
            version: None,
        },
    }
}

async fn http_target(client: &Client, context: &Context, workflow: &str) -> Result<Target, Error> {
    let body = json!({ "application": workflow, "workflow": workflow, "input": { "n": 1 } });
    let url = reqwest::Url::parse(client.base())
        .map_err(|source| Error::usage(format!("`{}`: {source}", client.base())))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    if url.scheme() != "http" {
        return Err(Error::usage("the bench talks plain HTTP only")
            .hint("run it on the server's machine, past whatever ends TLS"));
    }
    let mut addresses = tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(|source| Error::failed(format!("{host}: {source}")))?;
    let address = addresses
        .next()
        .ok_or_else(|| Error::failed(format!("{host} has no address")))?;
    let prefix = url.path().trim_end_matches('/');
    Ok(Target::Http {
        address,
        key: context.key.clone().unwrap_or_default(),
        path: format!("{prefix}/v1/executions?wait={WAIT}"),
        body: Bytes::from(body.to_string()),
    })
}

/// What the server says of itself.
async fn counters(client: &Client) -> Result<Counters, Error> {
    let text = client
        .text(client.request(Method::GET, &["metrics"], &[]))
        .await?;
    let value = |name: &str| -> f64 {
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest
                .strip_prefix(' ')
                .or_else(|| Some(rest.split_once("} ")?.1))?;
            value.trim().parse::<f64>().ok()
        });
        values.sum()
    };
    Ok(Counters {
        cpu_seconds: value(telemetry::PROCESS_CPU),
        memory: value(telemetry::PROCESS_MEMORY),
        commits: value(telemetry::STORE_COMMITS),
        events: value(telemetry::STORE_EVENTS),
    })
}

fn usage(before: Counters, after: Counters, pid: Option<u32>, completed: u64) -> Usage {
    let thousands = rate(completed, 1000.0);
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    let commits = after.commits - before.commits;
    Usage {
        cpu_seconds,
        cpu_seconds_per_1000: ratio(cpu_seconds, thousands),
        peak_memory_bytes: pid.and_then(process::peak_memory),
        memory_growth_per_1000_bytes: ratio(after.memory - before.memory, thousands),
        commits,
        commits_per_completion: ratio(commits, thousands * 1000.0),
        events_per_completion: ratio(after.events - before.events, thousands * 1000.0),
    }
}

fn latency(outcome: &Outcome) -> Latency {
    let at = |quantile| millis(outcome.latency.value_at_quantile(quantile));
    Latency {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: millis(outcome.latency.max()),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^52"
)]
fn rate(count: u64, per: f64) -> f64 {
    ratio(count as f64, per)
}

fn millis(micros: u64) -> f64 {
    rate(micros, 1000.0)
}

/// 0 where there is nothing to divide by: a bench without a completion.
fn ratio(value: f64, by: f64) -> f64 {
    if by > 0.0 { value / by } else { 0.0 }
}

impl Report {
    fn describe(&self) -> String {
        let (server, latency) = (&self.server, &self.latency_ms);
        let peak = server.peak_memory_bytes.map_or("unknown".to_owned(), size);
        let mut lines = vec![
            format!(
                "{} {} steps, {} clients, {} s, {}",
                self.steps, self.activity, self.clients, self.seconds, self.target
            ),
            format!(
                "completed        {} ({:.0}/s), {} refused as busy",
                self.completed, self.completions_per_second, self.busy
            ),
            format!(
                "latency          p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms",
                latency.p50, latency.p99, latency.p999, latency.max
            ),
            format!(
                "CPU              {:.3} s per 1,000 ({:.2} s)",
                server.cpu_seconds_per_1000, server.cpu_seconds
            ),
            format!(
                "memory           {peak} at most, {:+.0} bytes per 1,000",
                server.memory_growth_per_1000_bytes
            ),
            format!(
                "commits          {:.0}, {:.3} per completion, each synced once; {:.1} events each",
                server.commits, server.commits_per_completion, server.events_per_completion
            ),
        ];
        if let Some(own) = self.client_cpu_seconds {
            lines.push(format!("clients' own CPU {own:.2} s"));
        }
        lines.join("\n")
    }
}

/// A server in a process of its own, which ends with this value.
struct Spawned {
    child: Child,
    url: String,
}

impl Spawned {
    fn start(config: &Config, folder: &Path, database: Option<&str>) -> Result<Self, Error> {
        let file = folder.join("cascade.yaml");
        std::fs::write(&file, config.effective())
            .map_err(|source| Error::file("write", &file, &source))?;
        let program = std::env::current_exe()
            .map_err(|source| Error::failed(format!("cannot find this program: {source}")))?;
        let mut command = Command::new(program);
        command.args(["server", "--output", "json", "--config"]);
        command.arg(&file).stdout(Stdio::piped());
        // The variable may be set for other servers.
        match database {
            Some(url) => command.env("CASCADE_DATABASE", url),
            None => command.env_remove("CASCADE_DATABASE"),
        };
        let mut child = command
            .spawn()
            .map_err(|source| Error::failed(format!("cannot start a server: {source}")))?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut server = Self {
            child,
            url: String::new(),
        };
        let read = BufReader::new(stdout).read_line(&mut line);
        let said: Option<serde_json::Value> =
            read.ok().and_then(|_| serde_json::from_str(&line).ok());
        let url = said.as_ref().and_then(|said| said["url"].as_str());
        let url = url.ok_or_else(|| Error::failed("the server did not come up"))?;
        url.clone_into(&mut server.url);
        Ok(server)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Its data is temporary, so there is nothing to end well for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benchs_own_files_are_valid() {
        for source in [PURE, EFFECTS] {
            wat::parse_str(source).expect("a module");
        }
        for steps in [1, 10] {
            let checked = Checked::new(
                "bench.yaml".to_owned(),
                cdl("w", "a", steps).into_bytes(),
                &Bindings::default(),
            );
            let application = checked.parsed.application.expect("valid");
            let states = application.workflows["w"].states.len();
            assert_eq!(states, steps as usize);
        }
    }
}
