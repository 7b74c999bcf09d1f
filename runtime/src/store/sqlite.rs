//! The embedded store: SQLite in WAL mode, each commit synced to disk.
//!
//! One connection writes ([`writer`]: group commit), a few read, one copies
//! the log into the data file ([`checkpoint`]). Only one process may have the
//! file open ([`lock`]). After a crash SQLite replays its log, and everything
//! that was acknowledged is there; what was not may be.

mod catalog;
mod checkpoint;
mod cluster;
mod key_value;
mod lock;
mod objects;
mod read;
mod schedules;
mod statements;
mod tags;
mod tasks;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::{Event, ExecutionId, TenantId};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqlStr};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, Notify, watch};
use tokio::task::JoinHandle;

use self::checkpoint::Log;
use self::lock::FileLock;
use self::statements::Statements;
use self::writer::{Connection, Writer};
use super::group::{self, Requests, Tally};
use super::key_value::OnlyIf;
use super::{
    ActivityVersion, ApiKey, ApplicationVersion, Commit, CommitError, Counters, Counts, Cursor,
    Error, Excerpt, Filter, HumanTask, KvQuota, Lease, ListCursor, MODULE_BYTES, Node, NodeId,
    Object, ObjectKey, Page, PausedWorkflow, Replaced, ScheduleRow, ShardId, Store, Stored,
    Summary, TaskFilter, TenantRow, View, bounded, codec,
};

/// The schema, in order. Only ever appended to: a data file remembers the
/// checksum of each one that it has seen.
const MIGRATIONS: [(i64, &str, &str); 9] = [
    (
        1,
        "initial",
        include_str!("../../migrations/sqlite/0001_initial.sql"),
    ),
    (
        2,
        "key_value_usage",
        include_str!("../../migrations/sqlite/0002_key_value_usage.sql"),
    ),
    (
        3,
        "paused_workflows",
        include_str!("../../migrations/sqlite/0003_paused_workflows.sql"),
    ),
    (
        4,
        "schedules",
        include_str!("../../migrations/sqlite/0004_schedules.sql"),
    ),
    (
        5,
        "shard_keys",
        include_str!("../../migrations/sqlite/0005_shard_keys.sql"),
    ),
    (
        6,
        "human_tasks",
        include_str!("../../migrations/sqlite/0006_human_tasks.sql"),
    ),
    (
        7,
        "objects",
        include_str!("../../migrations/sqlite/0007_objects.sql"),
    ),
    (
        8,
        "cluster",
        include_str!("../../migrations/sqlite/0008_cluster.sql"),
    ),
    (
        9,
        "search",
        include_str!("../../migrations/sqlite/0009_search.sql"),
    ),
];

/// Readers: lists and loads are short, and the machine's cores have other work.
const READERS: u32 = 4;

/// A reader waits this long for a free connection before the caller gets an error.
const READER_WAIT: Duration = Duration::from_secs(10);

/// Nobody else locks the file for long; a checkpoint or a backup tool may for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Page cache of the writer, in KiB: the upper levels of the indexes and the
/// leaves being filled. More saves nothing while keys are time-ordered.
const WRITER_CACHE_KIB: i64 = 8 << 10;

/// Page cache of each other connection, in KiB; the system caches the file.
const READER_CACHE_KIB: i64 = 1 << 10;

/// The store in one file.
pub struct SqliteStore {
    requests: Requests,
    connection: Arc<Mutex<Option<Connection>>>,
    readers: SqlitePool,
    tally: Arc<Tally>,
    log: Arc<Log>,
    closing: Arc<Notify>,
    /// Counts changes of who holds what.
    changes: watch::Sender<u64>,
    /// The writer and the checkpoints, until they are joined.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in `path`; makes the file, or brings it up to date, if need be.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if another process has it open.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let lock = FileLock::take(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", "0") // checkpoint.rs does it
            .pragma("temp_store", "memory")
            .disable_statement_logging();
        let cached = |kib: i64| options.clone().pragma("cache_size", format!("-{kib}"));

        let mut sqlite = cached(WRITER_CACHE_KIB)
            .connect()
            .await
            .map_err(|error| unavailable(&error))?;
        migrations().run(&mut sqlite).await.map_err(unusable)?;
        let mut own = cached(READER_CACHE_KIB)
            .connect()
            .await
            .map_err(|error| unavailable(&error))?;
        checkpoint::catch_up(&mut own).await;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(READER_WAIT)
            .test_before_acquire(false) // a connection to a file does not go away
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(cached(READER_CACHE_KIB).read_only(true));

        let (requests, inbox) = group::channel();
        let connection = Arc::new(Mutex::new(Some(Connection::new(sqlite, lock))));
        let tally = Arc::<Tally>::default();
        let log = Arc::<Log>::default();
        let closing = Arc::new(Notify::new());
        let writer = Writer {
            inbox,
            connection: Arc::clone(&connection),
            statements: Statements::new(),
            tally: Arc::clone(&tally),
            log: Arc::clone(&log),
            closing: Arc::clone(&closing),
        };
        let checkpoints = checkpoint::run(Arc::clone(&log), own, Arc::clone(&connection));
        Ok(Self {
            requests,
            connection,
            readers,
            tally,
            log,
            closing,
            changes: watch::Sender::new(0),
            tasks: Mutex::new(vec![tokio::spawn(writer.run()), tokio::spawn(checkpoints)]),
        })
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The writing connection, in turn with the commits.
    async fn connection(&self) -> Result<MappedMutexGuard<'_, Connection>, Error> {
        MutexGuard::try_map(self.connection.lock().await, Option::as_mut).map_err(|_| Error::Closed)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer ends by itself: nobody can send to it any more.
        self.log.close();
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn acquire(&self, shard: ShardId) -> Result<Lease, Error> {
        let epoch = self.connection().await?.acquire(shard).await;
        let epoch = epoch.map_err(|error| unavailable(&error))?;
        Ok(Lease { shard, epoch })
    }

    async fn lay_out(&self, count: u32) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        if cluster::lay_out(&mut connection.sqlite, count).await? {
            connection.forget_epochs();
        }
        Ok(())
    }

    async fn heartbeat(&self, node: &Node, ttl: Duration) -> Result<View, Error> {
        {
            let mut connection = self.connection().await?;
            cluster::heartbeat(&mut connection.sqlite, node, ttl).await?;
        }
        self.cluster().await
    }

    async fn cluster(&self) -> Result<View, Error> {
        cluster::view(&self.readers).await
    }

    async fn claim(
        &self,
        node: NodeId,
        shard: ShardId,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error> {
        let mut connection = self.connection().await?;
        if !cluster::claim(&mut connection.sqlite, node, shard, ttl).await? {
            return Ok(None);
        }
        let epoch = connection.acquire(shard).await;
        let epoch = epoch.map_err(|error| unavailable(&error))?;
        self.changed();
        Ok(Some(Lease { shard, epoch }))
    }

    async fn raise(&self, node: NodeId, shard: ShardId) -> Result<Option<Lease>, Error> {
        let mut connection = self.connection().await?;
        if !cluster::holds(&mut connection.sqlite, node, shard).await? {
            return Ok(None);
        }
        let epoch = connection.acquire(shard).await;
        let epoch = epoch.map_err(|error| unavailable(&error))?;
        Ok(Some(Lease { shard, epoch }))
    }

    async fn give_back(&self, node: NodeId, shards: &[ShardId]) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        cluster::give_back(&mut connection.sqlite, node, shards).await?;
        self.changed();
        Ok(())
    }

    async fn leave(&self, node: NodeId) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        cluster::leave(&mut connection.sqlite, node).await?;
        self.changed();
        Ok(())
    }

    async fn cluster_secret(&self) -> Result<Vec<u8>, Error> {
        cluster::secret(&self.readers).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn commit(&self, lease: &Lease, batch: Vec<Commit>) -> Result<(), CommitError> {
        self.requests.commit(lease, batch).await
    }

    async fn load(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Stored>, Error> {
        read::load(&self.readers, tenant, id).await
    }

    async fn summary(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Summary>, Error> {
        read::summary(&self.readers, tenant, id).await
    }

    async fn open_executions(
        &self,
        buckets: Range<u32>,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Summary>, Error> {
        read::open_executions(&self.readers, buckets, after, limit).await
    }

    async fn history(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: u64,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<Event>, Error> {
        let excerpt = Excerpt::new(limit, bytes);
        read::history(&self.readers, tenant, id, after, excerpt).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        before: Option<ListCursor>,
        limit: u32,
    ) -> Result<Page<Summary, ListCursor>, Error> {
        read::list(&self.readers, tenant, filter, before, limit).await
    }

    async fn count(&self, tenant: &TenantId, filter: &Filter) -> Result<Counts, Error> {
        read::count(&self.readers, tenant, filter).await
    }

    async fn human_tasks(
        &self,
        tenant: &TenantId,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<HumanTask>, Error> {
        tasks::list(&self.readers, tenant, filter, after, limit).await
    }

    async fn unlisted(&self, buckets: Range<u32>) -> Result<Vec<(TenantId, ExecutionId)>, Error> {
        tasks::unlisted(&self.readers, buckets).await
    }

    async fn list_tasks(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        asked: Vec<HumanTask>,
    ) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        tasks::add(&mut connection.sqlite, tenant, id, asked).await
    }

    async fn put_module(&self, tenant: &TenantId, digest: &str, wasm: Bytes) -> Result<(), Error> {
        bounded("module", wasm.len(), MODULE_BYTES)?;
        let mut connection = self.connection().await?;
        catalog::put_module(&mut connection.sqlite, tenant, digest, &wasm).await?;
        self.log.wrote(wasm.len());
        Ok(())
    }

    async fn module(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, Error> {
        catalog::module(&self.readers, tenant, digest).await
    }

    async fn put_activity(
        &self,
        tenant: &TenantId,
        activity: ActivityVersion,
    ) -> Result<ActivityVersion, Error> {
        let mut connection = self.connection().await?;
        catalog::put_activity(&mut connection.sqlite, tenant, activity).await
    }

    async fn activities(&self, tenant: &TenantId) -> Result<Vec<ActivityVersion>, Error> {
        catalog::activities(&self.readers, tenant, None).await
    }

    async fn activity_versions(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Vec<ActivityVersion>, Error> {
        catalog::activities(&self.readers, tenant, Some(name)).await
    }

    async fn put_application(
        &self,
        tenant: &TenantId,
        application: ApplicationVersion,
        expected: Option<u32>,
    ) -> Result<Result<ApplicationVersion, u32>, Error> {
        let mut connection = self.connection().await?;
        catalog::put_application(&mut connection.sqlite, tenant, application, expected).await
    }

    async fn applications(&self, tenant: &TenantId) -> Result<Vec<ApplicationVersion>, Error> {
        catalog::applications(&self.readers, tenant).await
    }

    async fn application(
        &self,
        tenant: &TenantId,
        name: &str,
        version: Option<u32>,
    ) -> Result<Option<ApplicationVersion>, Error> {
        catalog::application(&self.readers, tenant, name, version).await
    }

    async fn pause_workflow(&self, tenant: &TenantId, paused: PausedWorkflow) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        catalog::pause_workflow(&mut connection.sqlite, tenant, &paused).await
    }

    async fn resume_workflow(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        catalog::resume_workflow(&mut connection.sqlite, tenant, application, workflow).await
    }

    async fn paused_workflows(&self, tenant: &TenantId) -> Result<Vec<PausedWorkflow>, Error> {
        catalog::paused_workflows(&self.readers, tenant).await
    }

    async fn put_schedules(&self, lease: &Lease, rows: &[ScheduleRow]) -> Result<(), CommitError> {
        let mut connection = self.connection().await?;
        connection.fence(lease).await?;
        Ok(schedules::put(&mut connection.sqlite, rows).await?)
    }

    async fn delete_schedule(
        &self,
        lease: &Lease,
        tenant: &TenantId,
        application: &str,
        name: &str,
    ) -> Result<(), CommitError> {
        let mut connection = self.connection().await?;
        connection.fence(lease).await?;
        Ok(schedules::delete(&mut connection.sqlite, tenant, application, name).await?)
    }

    async fn schedules(&self, tenant: &TenantId) -> Result<Vec<ScheduleRow>, Error> {
        schedules::of(&self.readers, tenant).await
    }

    async fn uploaded_bytes(&self, tenant: &TenantId) -> Result<u64, Error> {
        catalog::uploaded_bytes(&self.readers, tenant).await
    }

    async fn put_object(
        &self,
        tenant: &TenantId,
        object: Object,
        quota: u64,
    ) -> Result<Replaced, Error> {
        let mut connection = self.connection().await?;
        objects::put(&mut connection.sqlite, tenant, &object, quota).await
    }

    async fn object(&self, tenant: &TenantId, name: &ObjectKey) -> Result<Option<Object>, Error> {
        objects::get(&self.readers, tenant, name).await
    }

    async fn objects(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error> {
        let limit = super::page_size(limit);
        objects::list(&self.readers, tenant, bucket, prefix, after, limit).await
    }

    async fn delete_object(
        &self,
        tenant: &TenantId,
        name: &ObjectKey,
    ) -> Result<Option<Replaced>, Error> {
        let mut connection = self.connection().await?;
        objects::delete(&mut connection.sqlite, tenant, name).await
    }

    async fn put_tenant(&self, tenant: TenantRow) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        catalog::put_tenant(&mut connection.sqlite, &tenant).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, Error> {
        catalog::tenant(&self.readers, id).await
    }

    async fn tenants(&self) -> Result<Vec<TenantRow>, Error> {
        catalog::tenants(&self.readers).await
    }

    async fn put_key(&self, key: ApiKey) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        catalog::put_key(&mut connection.sqlite, &key).await
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<ApiKey>, Error> {
        catalog::keys(&self.readers, tenant).await
    }

    async fn key_by_hash(&self, hash: &str) -> Result<Option<ApiKey>, Error> {
        catalog::key_by_hash(&self.readers, hash).await
    }

    async fn delete_key(&self, tenant: &TenantId, id: &str) -> Result<bool, Error> {
        let mut connection = self.connection().await?;
        catalog::delete_key(&mut connection.sqlite, tenant, id).await
    }

    async fn kv_get(&self, tenant: &TenantId, key: &str) -> Result<Option<Bytes>, Error> {
        key_value::get(&self.readers, tenant, key).await
    }

    async fn kv_set(
        &self,
        tenant: &TenantId,
        key: &str,
        value: Bytes,
        quota: KvQuota,
    ) -> Result<(), Error> {
        let set = self
            .requests
            .set(tenant, key, OnlyIf::Anything, value, quota);
        set.await.map(drop)
    }

    async fn kv_compare_and_set(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<Bytes>,
        value: Bytes,
        quota: KvQuota,
    ) -> Result<bool, Error> {
        let only_if = expected.map_or(OnlyIf::Absent, OnlyIf::Holds);
        self.requests.set(tenant, key, only_if, value, quota).await
    }

    async fn kv_delete(&self, tenant: &TenantId, key: &str) -> Result<(), Error> {
        self.requests.delete(tenant, key).await.map(drop)
    }

    async fn ping(&self) -> Result<(), Error> {
        read::ping(&self.readers).await
    }

    fn counters(&self) -> Counters {
        self.tally.read()
    }

    async fn close(&self) {
        self.closing.notify_one();
        self.log.close();
        for task in self.tasks.lock().await.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the store ended early");
            }
        }
        self.readers.close().await;
        let connection = self.connection.lock().await.take();
        if let Some(Connection { sqlite, lock, .. }) = connection {
            // The last connection to go copies the log into the data file.
            if let Err(error) = sqlite.close().await {
                tracing::warn!(%error, "the data file was not closed cleanly");
            }
            drop(lock);
        }
    }
}

fn migrations() -> Migrator {
    migrator(&MIGRATIONS)
}

fn migrator(list: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        let sql = SqlStr::from_static(sql);
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(list.iter().map(migration).collect())
}

/// Why a file could not be brought up to date.
fn unusable(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) => unavailable(&error),
        // A file of a newer release, or one that something else has changed.
        other => Error::Unavailable(format!("the data file has another schema: {other}")),
    }
}

/// What a failure of the database means to the caller.
fn unavailable(error: &sqlx::Error) -> Error {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => codec::damaged(error),
        sqlx::Error::PoolClosed => Error::Closed,
        sqlx::Error::Database(refusal) if is_damage(refusal.code().as_deref()) => {
            codec::damaged(error)
        }
        _ => Error::Unavailable(error.to_string()),
    }
}

/// Whether a result code of SQLite says that the file is damaged.
fn is_damage(code: Option<&str>) -> bool {
    const CORRUPT: i32 = 11;
    const NOT_A_DATABASE: i32 = 26;
    // The low byte is the kind, the others give detail.
    let kind = code
        .and_then(|code| code.parse::<i32>().ok())
        .map(|code| code & 0xff);
    matches!(kind, Some(CORRUPT | NOT_A_DATABASE))
}

/// One column of a row.
fn column<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, Error>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(codec::damaged)
}
