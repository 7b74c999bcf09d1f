//! Logs and metrics.
//!
//! Every metric has its name and unit here. Labels are few and closed sets:
//! no tenant, no id, no name that a tenant chose. Payloads and secrets are
//! never logged.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use cascade_cdl::schedule::Skip;
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::engine::Stats;
use crate::store::{Counters, Standing, StatusName};

/// Time from an execution's start to its end, by `status`.
pub const WORKFLOW_DURATION: &str = "cascade_workflow_duration_seconds";
/// Executions that ended, by `status`.
pub const WORKFLOW_EXECUTIONS: &str = "cascade_workflow_executions_total";
/// Executions that ended otherwise than well, by `status`.
pub const WORKFLOW_ERRORS: &str = "cascade_workflow_errors_total";
/// Executions that are open.
pub const WORKFLOW_ACTIVE: &str = "cascade_workflow_active";
/// Memory of open executions that do not sleep.
pub const WORKFLOW_BYTES: &str = "cascade_workflow_memory_bytes";
/// Executions that were started.
pub const WORKFLOW_STARTED: &str = "cascade_workflow_started_total";
/// Time that an attempt ran.
pub const ACTIVITY_DURATION: &str = "cascade_activity_duration_seconds";
/// Attempts that ran.
pub const ACTIVITY_EXECUTIONS: &str = "cascade_activity_executions_total";
/// Attempts that failed.
pub const ACTIVITY_ERRORS: &str = "cascade_activity_errors_total";
/// Fuel that attempts used.
pub const ACTIVITY_FUEL: &str = "cascade_activity_fuel_total";
/// Activity tasks that wait for a worker.
pub const QUEUE_DEPTH: &str = "cascade_queue_depth";
/// Executions that schedules started.
pub const SCHEDULE_STARTED: &str = "cascade_schedule_started_total";
/// Starts of schedules that were refused, by `reason`.
pub const SCHEDULE_REFUSED: &str = "cascade_schedule_refused_total";
/// Times that schedules passed over, by `reason`.
pub const SCHEDULE_SKIPPED: &str = "cascade_schedule_skipped_total";
/// Time from when a schedule is due to the start of its execution.
pub const SCHEDULE_LAG: &str = "cascade_schedule_lag_seconds";
/// Transactions of the store, each synced once.
pub const STORE_COMMITS: &str = "cascade_store_commits_total";
/// Events that the store took.
pub const STORE_EVENTS: &str = "cascade_store_events_total";
/// Whether a replica answers reads: 1 or 0, by `replica`, its number in the settings from 1.
pub const REPLICA_IN_SERVICE: &str = "cascade_replica_in_service";
/// How long a replica has lacked something that the primary has, by `replica`.
pub const REPLICA_LAG: &str = "cascade_replica_lag_seconds";
/// Reads that a replica was asked for, by `replica` and `outcome`.
pub const REPLICA_READS: &str = "cascade_replica_reads_total";
/// Whether the store tells this server what others change: 1 or 0.
pub const CHANGES_HEARD: &str = "cascade_changes_heard";
/// Time in which a change that the store told was taken in.
pub const CHANGES_DURATION: &str = "cascade_changes_duration_seconds";
/// Time from a request's arrival to its answer, by `method`, `route` and `status`.
pub const HTTP_DURATION: &str = "cascade_http_request_duration_seconds";
/// Shards that this node holds.
pub const LEASES_HELD: &str = "cascade_leases_held";
/// Shards that this node took, at its start too.
pub const LEASES_TAKEN: &str = "cascade_leases_taken_total";
/// Shards that this node lost to another one, or whose lease it could not renew.
pub const LEASES_LOST: &str = "cascade_leases_lost_total";
/// Requests that were passed on to another node, by `outcome`.
pub const REQUESTS_PASSED_ON: &str = "cascade_requests_passed_on_total";
/// Memory that is resident.
pub const PROCESS_MEMORY: &str = "process_resident_memory_bytes";
/// Processor time used.
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";

/// From a fast pure workflow to one that runs a minute; longer ones are told
/// apart by their history.
const SECONDS: [f64; 16] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines to standard error. `RUST_LOG` wins over `default`, which is
/// a filter such as `info` or `cascade_runtime=debug`.
///
/// # Errors
///
/// If the filter does not read, or something takes log lines already.
pub fn log(format: LogFormat, default: &str, colour: bool) -> Result<(), String> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter),
        _ => EnvFilter::try_new(default),
    };
    let filter = filter.map_err(|error| format!("the log filter does not read: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Whoever reads the log may go away. To complain of that on the same
        // broken pipe would panic, and fail each attempt that logs a line.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(colour).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| error.to_string())
}

/// Where metrics are read. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry(PrometheusHandle);

impl Telemetry {
    /// Collects the metrics of this process; the second call gives the first one's handle.
    pub fn install() -> Self {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = HANDLE.get_or_init(|| {
            let suffix = Matcher::Suffix("_seconds".to_owned());
            let handle = PrometheusBuilder::new()
                .set_buckets_for_metric(suffix, &SECONDS)
                .expect("there are buckets")
                .install_recorder()
                .expect("nothing else in this crate records metrics");
            describe();
            handle
        });
        Self(handle.clone())
    }

    /// The metrics as text, with those that are read rather than counted.
    pub fn render(&self, engine: Stats, store: Counters, replicas: &[Standing]) -> String {
        gauge!(WORKFLOW_ACTIVE).set(number(engine.open));
        gauge!(WORKFLOW_BYTES).set(number(engine.open_bytes));
        gauge!(QUEUE_DEPTH).set(number(engine.queued));
        counter!(WORKFLOW_STARTED).absolute(engine.started);
        counter!(STORE_COMMITS).absolute(store.commits);
        counter!(STORE_EVENTS).absolute(store.events);
        for (number, standing) in (1_u32..).zip(replicas) {
            replica(number, standing);
        }
        if let Some(process) = process() {
            gauge!(PROCESS_MEMORY).set(number(process.resident_bytes));
            gauge!(PROCESS_CPU).set(process.cpu.as_secs_f64());
        }
        self.0.render()
    }

    /// Keeps memory bounded between two readings; to be called now and then.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Notes how a replica stands. Its number is its name here: who reads metrics needs no key,
/// and need not know what machines there are.
fn replica(number: u32, standing: &Standing) {
    let number = number.to_string();
    let in_service = if standing.out.is_none() { 1.0 } else { 0.0 };
    gauge!(REPLICA_IN_SERVICE, "replica" => number.clone()).set(in_service);
    if let Some(lag) = standing.lag {
        gauge!(REPLICA_LAG, "replica" => number.clone()).set(lag.as_secs_f64());
    }
    let reads = standing.reads;
    for (outcome, count) in [
        ("answered", reads.answered),
        ("behind", reads.behind),
        ("failed", reads.failed),
    ] {
        counter!(REPLICA_READS, "replica" => number.clone(), "outcome" => outcome).absolute(count);
    }
}

/// Counts an execution that ended.
pub fn workflow_closed(status: StatusName, duration: Duration) {
    let status = match status {
        StatusName::Running | StatusName::Paused => return,
        StatusName::Completed => "completed",
        StatusName::Failed => "failed",
        StatusName::Cancelled => "cancelled",
        StatusName::TimedOut => "timed_out",
    };
    counter!(WORKFLOW_EXECUTIONS, "status" => status).increment(1);
    histogram!(WORKFLOW_DURATION, "status" => status).record(duration.as_secs_f64());
    if status != "completed" {
        counter!(WORKFLOW_ERRORS, "status" => status).increment(1);
    }
}

/// Counters of attempts of one kind. Looked up once: to find them by name and
/// labels at every attempt takes longer than to count it.
struct Attempts {
    executions: Counter,
    errors: Counter,
    fuel: Counter,
    duration: Histogram,
}

impl Attempts {
    fn of(kind: &'static str) -> Self {
        Self {
            executions: counter!(ACTIVITY_EXECUTIONS, "kind" => kind),
            errors: counter!(ACTIVITY_ERRORS, "kind" => kind),
            fuel: counter!(ACTIVITY_FUEL, "kind" => kind),
            duration: histogram!(ACTIVITY_DURATION, "kind" => kind),
        }
    }
}

/// Counts an attempt that ran. [`Telemetry::install`] comes first, where anybody reads.
pub fn attempt_ended(failed: bool, pure: bool, fuel: u64, duration: Duration) {
    static PURE: LazyLock<Attempts> = LazyLock::new(|| Attempts::of("pure"));
    static CAPABLE: LazyLock<Attempts> = LazyLock::new(|| Attempts::of("capable"));
    let attempts = if pure { &PURE } else { &CAPABLE };
    attempts.executions.increment(1);
    attempts.fuel.increment(fuel);
    attempts.duration.record(duration.as_secs_f64());
    if failed {
        attempts.errors.increment(1);
    }
}

/// Notes whether the store tells what other servers change.
pub fn changes_heard(heard: bool) {
    gauge!(CHANGES_HEARD).set(if heard { 1.0 } else { 0.0 });
}

/// Counts a change that was taken in.
pub fn change_taken_in(duration: Duration) {
    histogram!(CHANGES_DURATION).record(duration.as_secs_f64());
}

/// Counts an execution that a schedule started; how long after it was due, if it was by
/// the time.
pub fn schedule_started(lag: Option<Duration>) {
    counter!(SCHEDULE_STARTED).increment(1);
    if let Some(lag) = lag {
        histogram!(SCHEDULE_LAG).record(lag.as_secs_f64());
    }
}

/// Counts a start of a schedule that was refused.
pub fn schedule_refused(reason: &'static str) {
    counter!(SCHEDULE_REFUSED, "reason" => reason).increment(1);
}

/// Counts times that a schedule passed over.
pub fn schedule_skipped(why: Skip, count: u32) {
    let reason = match why {
        Skip::Late => "late",
        Skip::Overlap => "overlap",
        Skip::Full => "full",
        Skip::Superseded => "superseded",
        Skip::Paused => "paused",
    };
    counter!(SCHEDULE_SKIPPED, "reason" => reason).increment(count.into());
}

/// Counts a request. `route` is the template of the path, so that ids stay out.
pub fn request(method: &Method, route: &str, status: StatusCode, duration: Duration) {
    // What clients make up must not become a label.
    let method = match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "OTHER",
    };
    let status = match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    histogram!(HTTP_DURATION, "method" => method, "route" => route.to_owned(), "status" => status)
        .record(duration.as_secs_f64());
}

/// Notes how many shards this node holds.
pub fn leases_held(count: usize) {
    gauge!(LEASES_HELD).set(number(count as u64));
}

/// Counts a shard that this node took.
pub fn lease_taken() {
    counter!(LEASES_TAKEN).increment(1);
}

/// Counts a shard that this node lost.
pub fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

/// Counts a request that belongs to another node: `answered` by it, `lost` on the way, without
/// a `no_owner`, or in a `circle`.
pub fn passed_on(outcome: &'static str) {
    counter!(REQUESTS_PASSED_ON, "outcome" => outcome).increment(1);
}

/// What the operating system says of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Memory that is resident.
    pub resident_bytes: u64,
    /// Processor time used, in user and kernel mode.
    pub cpu: Duration,
}

/// What the operating system says of this process; `None` where there is no `/proc`.
pub fn process() -> Option<Process> {
    // Both are constants of the kernel's interface on the systems we build for.
    const PAGE: u64 = 4096;
    const TICKS_PER_SECOND: u64 = 100;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Process {
        resident_bytes: pages * PAGE,
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are doubles; 53 bits are plenty"
)]
fn number(value: u64) -> f64 {
    value as f64
}

fn describe() {
    let seconds = Unit::Seconds;
    describe_histogram!(
        WORKFLOW_DURATION,
        seconds,
        "Time from an execution's start to its end"
    );
    describe_counter!(WORKFLOW_EXECUTIONS, Unit::Count, "Executions that ended");
    describe_counter!(
        WORKFLOW_ERRORS,
        Unit::Count,
        "Executions that ended otherwise than well"
    );
    describe_gauge!(WORKFLOW_ACTIVE, Unit::Count, "Executions that are open");
    describe_gauge!(
        WORKFLOW_BYTES,
        Unit::Bytes,
        "Memory of open executions that do not sleep"
    );
    describe_counter!(
        WORKFLOW_STARTED,
        Unit::Count,
        "Executions that were started"
    );
    describe_histogram!(ACTIVITY_DURATION, seconds, "Time that an attempt ran");
    describe_counter!(ACTIVITY_EXECUTIONS, Unit::Count, "Attempts that ran");
    describe_counter!(ACTIVITY_ERRORS, Unit::Count, "Attempts that failed");
    describe_counter!(ACTIVITY_FUEL, Unit::Count, "Fuel that attempts used");
    describe_gauge!(
        QUEUE_DEPTH,
        Unit::Count,
        "Activity tasks that wait for a worker"
    );
    describe_counter!(
        SCHEDULE_STARTED,
        Unit::Count,
        "Executions that schedules started"
    );
    describe_counter!(
        SCHEDULE_REFUSED,
        Unit::Count,
        "Starts of schedules that were refused"
    );
    describe_counter!(
        SCHEDULE_SKIPPED,
        Unit::Count,
        "Times that schedules passed over"
    );
    describe_histogram!(
        SCHEDULE_LAG,
        seconds,
        "Time from when a schedule is due to the start of its execution"
    );
    describe_counter!(STORE_COMMITS, Unit::Count, "Transactions, each synced once");
    describe_counter!(STORE_EVENTS, Unit::Count, "Events that the store took");
    describe_gauge!(
        REPLICA_IN_SERVICE,
        Unit::Count,
        "Whether a replica answers reads"
    );
    describe_gauge!(
        REPLICA_LAG,
        seconds,
        "How long a replica has lacked something that the primary has"
    );
    describe_counter!(
        REPLICA_READS,
        Unit::Count,
        "Reads that a replica was asked for"
    );
    describe_gauge!(
        CHANGES_HEARD,
        Unit::Count,
        "Whether the store tells what other servers change"
    );
    describe_histogram!(
        CHANGES_DURATION,
        seconds,
        "Time in which a change that the store told was taken in"
    );
    describe_histogram!(
        HTTP_DURATION,
        seconds,
        "Time from a request's arrival to its answer"
    );
    describe_gauge!(LEASES_HELD, Unit::Count, "Shards that this node holds");
    describe_counter!(LEASES_TAKEN, Unit::Count, "Shards that this node took");
    describe_counter!(LEASES_LOST, Unit::Count, "Shards that this node lost");
    describe_counter!(
        REQUESTS_PASSED_ON,
        Unit::Count,
        "Requests that were passed on to another node"
    );
    describe_gauge!(PROCESS_MEMORY, Unit::Bytes, "Memory that is resident");
    describe_gauge!(PROCESS_CPU, seconds, "Processor time used");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Asked;

    #[test]
    fn the_process_has_memory_and_time() {
        let process = process().expect("tests run where there is /proc");
        // A test binary takes more than a MiB, and less than all memory.
        assert!(
            (1 << 20..1 << 40).contains(&process.resident_bytes),
            "{process:?}"
        );
    }

    #[test]
    fn what_is_counted_is_rendered_under_its_name() {
        let telemetry = Telemetry::install();
        workflow_closed(StatusName::Failed, Duration::from_millis(3));
        attempt_ended(true, true, 42, Duration::from_millis(1));
        schedule_started(Some(Duration::from_millis(30)));
        schedule_started(None);
        schedule_refused("workflow_paused");
        schedule_skipped(Skip::Late, 7);
        request(
            &Method::from_bytes(b"BREW").expect("a token"),
            "/v1/x",
            StatusCode::OK,
            Duration::ZERO,
        );
        let standing = |out: Option<&str>, lag| Standing {
            name: "db-2.internal:5432".to_owned(),
            out: out.map(str::to_owned),
            lag,
            behind: None,
            reads: Asked {
                answered: 5,
                behind: 2,
                failed: 1,
            },
        };
        let replicas = [
            standing(None, Some(Duration::from_millis(1_500))),
            standing(Some("gone"), None),
        ];
        let text = telemetry.render(Stats::default(), Counters::default(), &replicas);
        assert!(!text.contains("internal"), "who may not know it reads it");
        for line in [
            "cascade_replica_in_service{replica=\"1\"} 1",
            "cascade_replica_in_service{replica=\"2\"} 0",
            "cascade_replica_lag_seconds{replica=\"1\"} 1.5",
            "cascade_replica_reads_total{replica=\"1\",outcome=\"answered\"} 5",
            "cascade_replica_reads_total{replica=\"2\",outcome=\"behind\"} 2",
            "cascade_workflow_errors_total{status=\"failed\"} 1",
            "cascade_workflow_duration_seconds_bucket{status=\"failed\",le=\"0.005\"} 1",
            "cascade_activity_errors_total{kind=\"pure\"} 1",
            "cascade_schedule_started_total ",
            "cascade_schedule_lag_seconds_bucket{le=\"0.05\"} ",
            "cascade_schedule_refused_total{reason=\"workflow_paused\"} ",
            "cascade_schedule_skipped_total{reason=\"late\"} ",
            "cascade_queue_depth 0",
            "method=\"OTHER\"",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
