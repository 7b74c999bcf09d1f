//! Group commit of 256 finished short executions, synced to disk: through the
//! store, and the same rows into the same tables by SQLite itself.
//!
//! The store's time includes encoding the events, the fence, the versions and
//! the way to the writer's task and back; the raw ones get encoded rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_cdl::{Event, EventKind, ExecutionId, Json, Receipt, TaskId, TenantId, Timestamp};
use cascade_runtime::store::{
    Commit, ShardId, SqliteStore, StatusName, Store, Summary, TaskChanges,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use uuid::Uuid;

const ROWS: usize = 256;

const SCHEMA: &str = include_str!("../migrations/sqlite/0001_initial.sql");

const INSERT: &str = "INSERT INTO executions (tenant, id, bucket, application, \
     application_version, workflow, status, started_at, closed_at, idle, version, history) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

criterion_group!(benches, group_commit);
criterion_main!(benches);

fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_commit_256");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.sample_size(20);
    group.measurement_time(Duration::from_secs(8));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = TempDir::new().expect("a folder");
    let store = runtime.block_on(async {
        let store = SqliteStore::open(&folder.path().join("store.db")).await;
        store.expect("opens")
    });
    let lease = runtime
        .block_on(store.acquire(ShardId(0)))
        .expect("acquires");
    group.bench_function("store", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(iterations, |rows| {
                runtime
                    .block_on(store.commit(&lease, rows))
                    .expect("commits");
            })
        });
    });
    runtime.block_on(store.close());

    let mut raw = open_raw(&folder.path().join("raw.db"));
    group.bench_function("sqlite_prepared", |bencher| {
        bencher.iter_custom(|iterations| timed(iterations, |rows| insert_raw(&mut raw, &rows)));
    });
    group.finish();
}

/// Time that `write` takes for that many batches, without making them.
fn timed(batches: u64, mut write: impl FnMut(Vec<Commit>)) -> Duration {
    (0..batches)
        .map(|_| {
            let rows = (0..ROWS).map(|_| execution()).collect();
            let start = Instant::now();
            write(rows);
            start.elapsed()
        })
        .sum()
}

/// The best that SQLite offers from one thread: one transaction, one prepared statement.
fn insert_raw(raw: &mut rusqlite::Connection, rows: &[Commit]) {
    let transaction = raw.transaction().expect("begins");
    {
        let mut insert = transaction.prepare_cached(INSERT).expect("prepares");
        for row in rows {
            let summary = &row.summary;
            let history = serde_json::to_string(&row.events).expect("encodes");
            insert
                .execute(rusqlite::params![
                    summary.tenant.as_str(),
                    &summary.id.0.as_bytes()[..],
                    summary.bucket,
                    &*summary.application,
                    summary.application_version,
                    &*summary.workflow,
                    1,
                    summary.started_at.0.cast_signed(),
                    summary.closed_at.map(|at| at.0.cast_signed()),
                    summary.idle,
                    summary.version.cast_signed(),
                    history,
                ])
                .expect("inserts");
        }
    }
    transaction.commit().expect("commits");
}

fn open_raw(path: &Path) -> rusqlite::Connection {
    let raw = rusqlite::Connection::open(path).expect("opens");
    raw.pragma_update(None, "journal_mode", "wal")
        .expect("is known");
    raw.pragma_update(None, "synchronous", "full")
        .expect("is known");
    raw.execute_batch(SCHEMA).expect("is valid");
    raw
}

/// A one-step execution from start to end, with a history of some 500 bytes.
fn execution() -> Commit {
    let tenant: TenantId = "default".parse().expect("valid");
    let id = ExecutionId(Uuid::now_v7());
    let now = Timestamp(1_700_000_000_000);
    let json = Json::parse(r#"{"order_id":"customer-123","total":120,"tier":"gold"}"#.to_owned());
    let json = json.expect("JSON");
    let receipt = Receipt {
        digest: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
        pure: true,
        fuel: 123_456,
        fuel_limit: 1_000_000,
        memory_limit: 64 << 20,
        duration_us: 12,
    };
    let kinds = [
        EventKind::ExecutionStarted {
            input: json.clone(),
            shards: 10,
            machine: 1,
            parent: None,
            schedule: None,
            shard_key: None,
            priority: None,
            labels: BTreeMap::new(),
        },
        EventKind::ActivityCompleted {
            task: TaskId(1),
            attempt: 1,
            output: json,
            receipt,
        },
    ];
    Commit {
        summary: Summary {
            tenant,
            id,
            bucket: id.bucket(),
            shard_key: None,
            application: Arc::from("orders"),
            application_version: 1,
            workflow: Arc::from("process"),
            status: StatusName::Completed,
            error: None,
            started_at: now,
            closed_at: Some(now),
            wake_at: None,
            idle: false,
            version: 2,
            tags: None,
        },
        expected: 0,
        events: (1..)
            .zip(kinds)
            .map(|(seq, kind)| Event { seq, at: now, kind })
            .collect(),
        snapshot: None,
        tasks: TaskChanges::default(),
        retag: false,
    }
}
