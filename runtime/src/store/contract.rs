//! What every store must do, run on the model and on each database.
//!
//! A new backend adds a variant to [`Subject`] and a line to [`on_each!`].

mod catalog;
mod cluster;
mod contents;
mod executions;
mod feed;
mod key_values;
mod objects;
mod random;
mod schedules;
pub(crate) mod search;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cascade_cdl::{Event, EventKind, Execution, ExecutionId, Json, TenantId, Timestamp, bucket_of};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    Commit, KvQuota, Lease, ModelStore, PAGE_BYTES, PostgresStore, ShardId, SqliteStore,
    StatusName, Store, Summary, TaskChanges,
};
use crate::store::postgres::scratch::Scratch;

/// A quota that no test comes near.
pub(crate) const ROOM: KvQuota = KvQuota {
    keys: 1 << 40,
    bytes: 1 << 40,
};

/// Runs each of a module's functions as a test on every backend.
macro_rules! on_each {
    ($($test:ident),+ $(,)?) => {
        mod model {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::contract::Subject::model()).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::contract::Subject::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::contract::Subject::postgres().await).await;
            })+
        }
        mod postgres_schemas {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::contract::Subject::postgres_schemas().await).await;
            })+
        }
    };
}
pub(crate) use on_each;

/// A store under test, which can be stopped and started.
pub(crate) enum Subject {
    Model(Box<ModelStore>),
    Sqlite {
        store: SqliteStore,
        folder: TempDir,
    },
    Postgres {
        store: Box<PostgresStore>,
        scratch: Scratch,
    },
}

impl Subject {
    pub(crate) fn model() -> Self {
        Self::Model(Box::new(ModelStore::new()))
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = open(folder.path()).await;
        Self::Sqlite { store, folder }
    }

    pub(crate) async fn postgres() -> Self {
        let scratch = Scratch::new().await;
        let store = Box::new(scratch.open().await);
        Self::Postgres { store, scratch }
    }

    /// With a tenant that has a schema of its own, beside others that have none.
    pub(crate) async fn postgres_schemas() -> Self {
        let scratch = Scratch::new().await;
        let store = Box::new(scratch.open().await);
        let home = scratch.home("acme");
        let moved = store.move_home(&tenant("acme"), &home).await;
        assert_eq!(moved.expect("moves").to, home);
        Self::Postgres { store, scratch }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        match self {
            Self::Model(store) => &**store,
            Self::Sqlite { store, .. } => store,
            Self::Postgres { store, .. } => &**store,
        }
    }

    /// Lets all leases end that were taken for [`cluster::SHORT`].
    pub(crate) fn pass_leases(&self) {
        match self {
            Self::Model(store) => store.pass(cluster::SHORT),
            // They were taken for less than the database tells apart.
            Self::Sqlite { .. } | Self::Postgres { .. } => {}
        }
    }

    /// Stops in good order and starts again. The model cannot.
    pub(crate) async fn reopen(self) -> Self {
        match self {
            Self::Model(_) => self,
            Self::Sqlite { store, folder } => {
                store.close().await;
                let store = open(folder.path()).await;
                Self::Sqlite { store, folder }
            }
            Self::Postgres { store, scratch } => {
                store.close().await;
                let store = Box::new(scratch.open().await);
                Self::Postgres { store, scratch }
            }
        }
    }

    /// Goes on with what is stored now, as a crash would leave it.
    pub(crate) async fn crash(self) -> Self {
        match self {
            Self::Model(_) => self,
            Self::Sqlite { store, folder } => {
                let found = TempDir::new().expect("a folder");
                for file in ["cascade.db", "cascade.db-wal"] {
                    std::fs::copy(folder.path().join(file), found.path().join(file))
                        .expect("both exist while the store is open");
                }
                drop(store);
                let store = open(found.path()).await;
                Self::Sqlite {
                    store,
                    folder: found,
                }
            }
            Self::Postgres { store, scratch } => {
                drop(store);
                let store = Box::new(scratch.open().await);
                Self::Postgres { store, scratch }
            }
        }
    }
}

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("cascade.db"))
        .await
        .expect("opens")
}

pub(crate) fn tenant(name: &str) -> TenantId {
    name.parse().expect("a valid tenant")
}

/// The execution with a number; its bucket differs from its neighbours'.
pub(crate) fn id(number: u128) -> ExecutionId {
    ExecutionId(Uuid::from_u128(number))
}

pub(crate) async fn lease(store: &dyn Store) -> Lease {
    store.acquire(ShardId(7)).await.expect("acquires")
}

/// A row of an execution that runs.
pub(crate) fn row(of: &str, number: u128, version: u64) -> Summary {
    Summary {
        tenant: tenant(of),
        id: id(number),
        bucket: bucket_of(&number.to_be_bytes()),
        shard_key: None,
        application: Arc::from("orders"),
        application_version: 3,
        workflow: Arc::from("process"),
        status: StatusName::Running,
        error: None,
        started_at: Timestamp(1_000),
        closed_at: None,
        wake_at: Some(Timestamp(9_000)),
        idle: true,
        version,
        tags: None,
    }
}

/// A commit of the events from `expected + 1` to the row's version.
pub(crate) fn commit(summary: Summary, expected: u64) -> Commit {
    let events = (expected + 1..=summary.version).map(event).collect();
    Commit {
        summary,
        expected,
        events,
        snapshot: None,
        tasks: TaskChanges::default(),
        retag: false,
    }
}

/// The same with the snapshot that belongs to it.
pub(crate) fn with_snapshot(mut commit: Commit) -> Commit {
    let summary = &commit.summary;
    commit.snapshot = Some(Box::new(Execution {
        version: summary.version,
        context: json!({ "seen": summary.version }),
        ..Execution::new(summary.id, summary.tenant.clone())
    }));
    commit
}

/// The event with a number. Its payload has what a careless format trips over.
pub(crate) fn event(seq: u64) -> Event {
    let text = format!("{{ \"number\": {seq},\n \"text\": \"1\\n'\\u0000 ümlaut\" }}");
    Event {
        seq,
        at: Timestamp(1_000 + seq),
        kind: EventKind::ExecutionStarted {
            input: Json::parse(text).expect("JSON"),
            shards: 10,
            machine: 1,
            parent: None,
            schedule: None,
            shard_key: None,
            priority: None,
            labels: BTreeMap::new(),
        },
    }
}

/// The numbers of events.
pub(crate) fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}
