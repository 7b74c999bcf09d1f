//! The store in PostgreSQL: durable on another machine, and shared by many.
//!
//! One connection commits ([`writer`]: group commit, each group one statement where
//! it can be), two are for what makes this process one of several ([`cluster`]), a bounded
//! pool does everything else ([`connect`]), but for what clients read of its replicas
//! ([`replicas`]). Nothing here rests on being
//! the only server: a commit is fenced by the epochs of its leases inside its own
//! transaction, and what is read before it is written is locked. When the server
//! goes away, connections are made again, and what was asked for is asked again where
//! that is safe; a commit in doubt is settled ([`writer`]).

mod ahead;
mod catalog;
mod changes;
mod cluster;
mod commit;
mod connect;
mod contents;
mod homes;
#[cfg(test)]
mod isolation;
mod key_value;
mod nodelay;
mod objects;
mod read;
mod replicas;
mod schedules;
mod schema;
mod scope;
#[cfg(test)]
pub(super) mod scratch;
mod tags;
mod tasks;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::{Event, ExecutionId, TenantId};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use self::changes::Follower;
use self::cluster::Membership;
use self::connect::{Connections, Connector};
use self::scope::{Bound, Scope};
use self::writer::Writer;
use super::contents::{ContentId, Contents, KeptContent};
use super::feed::Feed;
use super::group::{self, Requests, Tally};
use super::home::{Home, Moved};
use super::key_value::OnlyIf;
use super::{
    ActivityVersion, ApiKey, ApplicationVersion, Commit, CommitError, Counters, Counts, Cursor,
    Epoch, Error, Excerpt, Filter, HumanTask, KvQuota, Lease, ListCursor, MODULE_BYTES, Node,
    NodeId, Object, ObjectKey, Page, PausedWorkflow, Replaced, Replicas, ScheduleRow, ShardId,
    Store, Stored, Summary, TagTest, TaskFilter, TenantRow, View, bounded, codec,
};

pub use self::connect::{PostgresSettings, ReplicaSettings};

/// The store in a database.
pub struct PostgresStore {
    requests: Requests,
    connector: Connector,
    connections: Arc<Connections>,
    replicas: Option<Arc<replicas::Pool>>,
    membership: Membership,
    bound: Bound,
    tally: Arc<Tally>,
    closing: Arc<Notify>,
    /// The writer, until it is joined.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// What tells of changes: one task for each that follows them.
    followers: Mutex<JoinSet<()>>,
}

impl PostgresStore {
    /// Opens the store; makes its tables, or brings them up to date, if need be.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the server does not answer, or has what this release
    /// cannot work with; the text says what to do.
    pub async fn open(settings: &PostgresSettings) -> Result<Self, Error> {
        let connector = Connector::new(settings)?;
        let bound = schema::prepare(&connector).await?;
        let connector = connector.bound(bound.clone());
        // One is the writer's, one tells of this node, one hears of the others; beside
        // replicas one asks how far the database is.
        let own = if settings.replicas.urls.is_empty() {
            3
        } else {
            4
        };
        let most = settings.connections.saturating_sub(own).max(1);
        let connections = Arc::new(Connections::new(&connector, most));
        let replicas =
            replicas::Pool::start(settings, &connector, &bound, Arc::clone(&connections))?;
        let (requests, inbox) = group::channel();
        let tally = Arc::<Tally>::default();
        let closing = Arc::new(Notify::new());
        let writer = Writer {
            inbox,
            connection: Some(connector.writer().await?),
            homes: None,
            connector: connector.clone(),
            tally: Arc::clone(&tally),
            closing: Arc::clone(&closing),
        };
        Ok(Self {
            requests,
            connections,
            replicas,
            membership: Membership::new(&connector),
            connector,
            bound,
            tally,
            closing,
            writer: Mutex::new(Some(tokio::spawn(writer.run()))),
            followers: Mutex::default(),
        })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn acquire(&self, shard: ShardId) -> Result<Lease, Error> {
        // If the answer is lost, the epoch was raised for nobody, which harms nobody.
        let acquire = self.connections.write(Scope::Nobody, |mut tx| async move {
            let (epoch,): (i64,) = sqlx::query_as(commit::ACQUIRE)
                .bind(commit::shard_code(shard))
                .fetch_one(&mut *tx)
                .await?;
            Ok((tx, Epoch(epoch.cast_unsigned())))
        });
        let epoch = acquire.await?;
        Ok(Lease { shard, epoch })
    }

    async fn lay_out(&self, count: u32) -> Result<(), Error> {
        let write = |tx| cluster::lay_out(tx, count);
        self.connections.write(Scope::Nobody, write).await
    }

    async fn heartbeat(&self, node: &Node, ttl: Duration) -> Result<View, Error> {
        self.membership.heartbeat(node, ttl).await
    }

    async fn cluster(&self) -> Result<View, Error> {
        self.connections.read(Scope::Nobody, cluster::read).await
    }

    async fn claim(
        &self,
        node: NodeId,
        shard: ShardId,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error> {
        self.membership.claim(node, shard, ttl).await
    }

    async fn raise(&self, node: NodeId, shard: ShardId) -> Result<Option<Lease>, Error> {
        self.membership.raise(node, shard).await
    }

    async fn give_back(&self, node: NodeId, shards: &[ShardId]) -> Result<(), Error> {
        self.membership.give_back(node, Some(shards)).await
    }

    async fn leave(&self, node: NodeId) -> Result<(), Error> {
        self.membership.leave(node).await
    }

    async fn cluster_secret(&self) -> Result<Vec<u8>, Error> {
        self.connections.read(Scope::Nobody, cluster::secret).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.membership.changes(self.connections.listener())
    }

    async fn commit(&self, lease: &Lease, batch: Vec<Commit>) -> Result<(), CommitError> {
        self.requests.commit(lease, batch).await
    }

    async fn load(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Stored>, Error> {
        let read = |tx| read::load(tx, tenant, id);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn summary(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Summary>, Error> {
        let read = |tx| read::summary(tx, tenant, id);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn open_executions(
        &self,
        buckets: Range<u32>,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Summary>, Error> {
        let read = |tx| read::open_executions(tx, buckets.clone(), after, limit);
        self.connections.read(Scope::Recovery, read).await
    }

    async fn history(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: u64,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<Event>, Error> {
        let read = |tx| read::history(tx, tenant, id, after, Excerpt::new(limit, bytes));
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        before: Option<ListCursor>,
        limit: u32,
    ) -> Result<Page<Summary, ListCursor>, Error> {
        if !may_be_found(filter) {
            return Ok(Page::default());
        }
        let read = |tx| read::list(tx, tenant, filter, before, limit);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn count(&self, tenant: &TenantId, filter: &Filter) -> Result<Counts, Error> {
        if !may_be_found(filter) {
            return Ok(Counts::default());
        }
        let read = |tx| read::count(tx, tenant, filter);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn human_tasks(
        &self,
        tenant: &TenantId,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<HumanTask>, Error> {
        if !may_be_names(&[&filter.application, &filter.workflow]) {
            return Ok(Page::default());
        }
        let read = |tx| tasks::list(tx, tenant, filter, after, limit);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn unlisted(&self, _: Range<u32>) -> Result<Vec<(TenantId, ExecutionId)>, Error> {
        Ok(Vec::new()) // the list is as old as this store
    }

    async fn list_tasks(
        &self,
        tenant: &TenantId,
        _: ExecutionId,
        asked: Vec<HumanTask>,
    ) -> Result<(), Error> {
        let write = |tx| tasks::add(tx, &asked);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn put_module(&self, tenant: &TenantId, digest: &str, wasm: Bytes) -> Result<(), Error> {
        bounded("module", wasm.len(), MODULE_BYTES)?;
        let write = |tx| catalog::put_module(tx, tenant, digest, &wasm);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn module(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, Error> {
        if !may_be_text(digest) {
            return Ok(None);
        }
        let read = |tx| catalog::module(tx, tenant, digest);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn put_activity(
        &self,
        tenant: &TenantId,
        activity: ActivityVersion,
    ) -> Result<ActivityVersion, Error> {
        let write = |tx| catalog::put_activity(tx, tenant, activity.clone());
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn activities(&self, tenant: &TenantId) -> Result<Vec<ActivityVersion>, Error> {
        let read = |tx| catalog::activities(tx, tenant, None);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn activity_versions(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Vec<ActivityVersion>, Error> {
        if !may_be_text(name) {
            return Ok(Vec::new());
        }
        let read = |tx| catalog::activities(tx, tenant, Some(name));
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn put_application(
        &self,
        tenant: &TenantId,
        application: ApplicationVersion,
        expected: Option<u32>,
    ) -> Result<Result<ApplicationVersion, u32>, Error> {
        let write = |tx| catalog::put_application(tx, tenant, application.clone(), expected);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn applications(&self, tenant: &TenantId) -> Result<Vec<ApplicationVersion>, Error> {
        let read = |tx| catalog::applications(tx, tenant);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn application(
        &self,
        tenant: &TenantId,
        name: &str,
        version: Option<u32>,
    ) -> Result<Option<ApplicationVersion>, Error> {
        if !may_be_text(name) {
            return Ok(None);
        }
        let read = |tx| catalog::application(tx, tenant, name, version);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn pause_workflow(&self, tenant: &TenantId, paused: PausedWorkflow) -> Result<(), Error> {
        let write = |tx| catalog::pause_workflow(tx, tenant, &paused);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn resume_workflow(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Result<(), Error> {
        if !may_be_text(application) || !may_be_text(workflow) {
            return Ok(());
        }
        let write = |tx| catalog::resume_workflow(tx, tenant, application, workflow);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn paused_workflows(&self, tenant: &TenantId) -> Result<Vec<PausedWorkflow>, Error> {
        let read = |tx| catalog::paused_workflows(tx, tenant);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn uploaded_bytes(&self, tenant: &TenantId) -> Result<u64, Error> {
        let read = |tx| catalog::uploaded_bytes(tx, tenant);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn put_schedules(&self, lease: &Lease, rows: &[ScheduleRow]) -> Result<(), CommitError> {
        // Of many tenants: those that are due together are written together.
        let tenants = rows.iter().map(|row| &row.tenant).collect();
        let write = |tx| schedules::put(tx, lease, rows);
        self.connections
            .write(Scope::Among(&tenants), write)
            .await?
    }

    async fn delete_schedule(
        &self,
        lease: &Lease,
        tenant: &TenantId,
        application: &str,
        name: &str,
    ) -> Result<(), CommitError> {
        if !may_be_text(application) || !may_be_text(name) {
            return Ok(());
        }
        let write = |tx| schedules::delete(tx, lease, tenant, application, name);
        self.connections.write(Scope::Of(tenant), write).await?
    }

    async fn schedules(&self, tenant: &TenantId) -> Result<Vec<ScheduleRow>, Error> {
        let read = |tx| schedules::of(tx, tenant);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn put_object(
        &self,
        tenant: &TenantId,
        object: Object,
        quota: u64,
    ) -> Result<Replaced, Error> {
        let write = |tx| objects::put(tx, tenant, &object, None, quota);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn object(&self, tenant: &TenantId, name: &ObjectKey) -> Result<Option<Object>, Error> {
        if !may_be_text(&name.bucket) {
            return Ok(None);
        }
        let read = |tx| objects::get(tx, tenant, name);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn objects(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error> {
        if !may_be_text(bucket) {
            return Ok(Vec::new());
        }
        let limit = super::page_size(limit);
        let read = |tx| objects::list(tx, tenant, bucket, prefix, after, limit);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn delete_object(
        &self,
        tenant: &TenantId,
        name: &ObjectKey,
    ) -> Result<Option<Replaced>, Error> {
        if !may_be_text(&name.bucket) {
            return Ok(None);
        }
        let write = |tx| objects::delete(tx, tenant, name);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn put_tenant(&self, tenant: TenantRow) -> Result<(), Error> {
        let write = |tx| catalog::put_tenant(tx, &tenant);
        self.connections.write(Scope::Of(&tenant.id), write).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, Error> {
        let read = |tx| catalog::tenant(tx, id);
        self.connections.read(Scope::Of(id), read).await
    }

    async fn tenants(&self) -> Result<Vec<TenantRow>, Error> {
        self.connections
            .read(Scope::Tenants, catalog::tenants)
            .await
    }

    async fn home(&self, tenant: &TenantId) -> Result<Home, Error> {
        let read = |tx| homes::of(tx, tenant);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn move_home(&self, tenant: &TenantId, to: &Home) -> Result<Moved, Error> {
        let moved = homes::move_to(&self.connector, &self.bound, tenant, to);
        Ok(moved.await?)
    }

    async fn put_key(&self, key: ApiKey) -> Result<(), Error> {
        // An id that another tenant has is taken, and told as such, without being seen.
        let write = |tx| catalog::put_key(tx, &key);
        self.connections.write(Scope::Of(&key.tenant), write).await
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<ApiKey>, Error> {
        let read = |tx| catalog::keys(tx, tenant);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn key_by_hash(&self, hash: &str) -> Result<Option<ApiKey>, Error> {
        if !may_be_text(hash) {
            return Ok(None);
        }
        let read = |tx| catalog::key_by_hash(tx, hash);
        self.connections.read(Scope::Key(hash), read).await
    }

    async fn delete_key(&self, tenant: &TenantId, id: &str) -> Result<bool, Error> {
        if !may_be_text(id) {
            return Ok(false);
        }
        let write = |tx| catalog::delete_key(tx, tenant, id);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn kv_get(&self, tenant: &TenantId, key: &str) -> Result<Option<Bytes>, Error> {
        let read = |tx| key_value::get(tx, tenant, key);
        self.connections.read(Scope::Of(tenant), read).await
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

    fn is_shared(&self) -> bool {
        true
    }

    async fn follow(&self) -> Result<Option<Feed>, Error> {
        let (follower, feed) = Follower::start(&self.connector).await?;
        let mut followers = self.followers.lock().await;
        while followers.try_join_next().is_some() {} // those that nobody listens to any more
        followers.spawn(follower.run());
        Ok(Some(feed))
    }

    fn contents(&self) -> Option<&dyn Contents> {
        Some(self)
    }

    fn replicas(&self) -> Option<&dyn Replicas> {
        let replicas = self.replicas.as_ref()?;
        Some(replicas)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.connections.read(Scope::Nobody, read::ping).await
    }

    fn counters(&self) -> Counters {
        self.tally.read()
    }

    async fn close(&self) {
        self.followers.lock().await.shutdown().await;
        self.closing.notify_one();
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of the store ended early");
        }
        self.membership.close().await;
        if let Some(replicas) = &self.replicas {
            replicas.close().await;
        }
        self.connections.close().await;
    }
}

#[async_trait]
impl Contents for PostgresStore {
    async fn begin_content(&self, tenant: &TenantId, id: ContentId) -> Result<(), Error> {
        let write = |tx| contents::begin(tx, tenant, id);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn add_block(
        &self,
        tenant: &TenantId,
        id: ContentId,
        number: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let write = |tx| contents::add(tx, tenant, id, number, bytes);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn put_content(
        &self,
        tenant: &TenantId,
        id: ContentId,
        object: Object,
        quota: u64,
    ) -> Result<Replaced, Error> {
        let write = |tx| objects::put(tx, tenant, &object, Some(id), quota);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn adopt_content(
        &self,
        tenant: &TenantId,
        id: ContentId,
        digest: &str,
    ) -> Result<bool, Error> {
        let write = |tx| contents::adopt(tx, tenant, id, digest);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn drop_content(&self, tenant: &TenantId, id: ContentId) -> Result<(), Error> {
        let write = |tx| contents::give_up(tx, tenant, id);
        self.connections.write(Scope::Of(tenant), write).await
    }

    async fn content(&self, tenant: &TenantId, digest: &str) -> Result<Option<KeptContent>, Error> {
        let read = |tx| contents::content(tx, tenant, digest);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn block(
        &self,
        tenant: &TenantId,
        id: ContentId,
        number: u64,
    ) -> Result<Option<Bytes>, Error> {
        let read = |tx| contents::block(tx, tenant, id, number);
        self.connections.read(Scope::Of(tenant), read).await
    }

    async fn sweep_contents(&self) -> Result<bool, Error> {
        let Some(tenant) = self.connections.read(Scope::Sweep, contents::due).await? else {
            return Ok(false);
        };
        let sweep = |tx| contents::sweep(tx, &tenant);
        self.connections.write(Scope::Of(&tenant), sweep).await
    }
}

/// Whether PostgreSQL can hold a text at all: it has no character 0. What
/// cannot be there is not looked for.
fn may_be_text(text: &str) -> bool {
    !text.contains('\0')
}

/// The same of names that a filter asks for.
fn may_be_names(names: &[&Option<String>]) -> bool {
    let mut given = names.iter().filter_map(|name| name.as_deref());
    given.all(may_be_text)
}

/// Whether what a filter names can be there.
fn may_be_found(filter: &Filter) -> bool {
    let mut tags = filter.tags.iter().map(|test| match test {
        TagTest::Label { name, .. } | TagTest::Attribute { name, .. } => name,
    });
    may_be_names(&[&filter.application, &filter.workflow]) && tags.all(|name| may_be_text(name))
}

/// One column of a row.
fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<T, Error>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(codec::damaged)
}

/// A text that may have any character, and is therefore kept as bytes.
fn text(row: &PgRow, index: usize) -> Result<String, Error> {
    let bytes: Vec<u8> = column(row, index)?;
    String::from_utf8(bytes).map_err(codec::damaged)
}
