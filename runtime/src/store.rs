//! What is durable, and the promises made about it.
//!
//! The store keeps promises and decides nothing: what an execution means is
//! `cascade_cdl`'s business. Every method takes the tenant; no query crosses
//! tenants, but for those that rebuild a shard ([`Store::open_executions`]) or
//! administer tenants. After a crash, what a method acknowledged is there.

mod cluster;
mod codec;
mod contents;
#[cfg(test)]
mod contract;
mod feed;
mod group;
pub mod home;
mod key_value;
pub mod model;
mod postgres;
mod replicas;
mod search;
mod sqlite;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::{Event, Execution, ExecutionId, Tags, TaskId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use cluster::{Hold, Node, NodeId, NodeRow, ShardRow, View};
pub(crate) use codec::{decode_events, encode_events};
pub use contents::{BLOCK_BYTES, ContentId, Contents, KeptContent, READ_GRACE};
pub use feed::{Change, Feed, News, Subject};
pub use home::{BadSchemaName, Home, Moved, MovedTable, SchemaName};
pub use model::{Fault, ModelStore};
#[cfg(test)]
pub(crate) use postgres::scratch::Scratch;
pub use postgres::{PostgresSettings, PostgresStore, ReplicaSettings};
pub use replicas::{Asked, Position, Reader, Replicas, Since, Standing, Whole};
pub use search::{
    COUNT_ROWS, CountGroup, Counts, Filter, ListCursor, MAX_TAG_TESTS, Operator, TagTest,
};
pub use sqlite::SqliteStore;

/// Longest page of a list: what one answer should carry. More is cut to it.
pub const PAGE_ITEMS: u32 = 1_000;

/// What a page of a history may hold, in bytes as stored: an answer, and what
/// is made of it on the way, must not take a server's memory.
pub const PAGE_BYTES: usize = 4 << 20;

/// Largest module, in bytes. Components of scripting languages are near 20 MB.
pub const MODULE_BYTES: usize = 64 << 20;

/// What a version of an activity or an application counts beside its content,
/// in bytes: its row, and its part in indexes.
pub const VERSION_BYTES: u64 = 1 << 10;

/// Longest key of the key-value capability, in bytes: it is part of an index.
pub const KV_KEY_BYTES: usize = 512;

/// Largest value of the key-value capability, in bytes: each write of one
/// occupies the only writer.
pub const KV_VALUE_BYTES: usize = 1 << 20;

/// What an object counts beside its content, in bytes: its row, and its part in indexes.
pub const OBJECT_BYTES: u64 = 1 << 10;

/// What names an object among those of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub bucket: String,
    pub key: String,
}

/// An object: a name for a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub name: ObjectKey,
    /// SHA-256 of the content, in hexadecimal.
    pub digest: String,
    /// Length of the content, in bytes.
    pub size: u64,
    pub created_at: Timestamp,
}

/// What becomes of the content of an object that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Its digest, if no other object of the tenant has it.
    pub orphan: Option<String>,
}

/// What one tenant may keep with the key-value capability. The caller knows
/// the tenant's limits; the store holds a write to those that come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvQuota {
    /// Number of keys.
    pub keys: u64,
    /// Bytes of keys and values together.
    pub bytes: u64,
}

/// What one tenant keeps, counted as [`KvQuota`] bounds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KvUsage {
    keys: u64,
    bytes: u64,
}

/// A range of buckets that one engine owns at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

/// How often a shard has changed hands; every commit is fenced by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The right to write a shard, until somebody else acquires it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Of which shard.
    pub shard: ShardId,
    /// Since which change of hands.
    pub epoch: Epoch,
}

/// Where an execution stands, as lists and filters see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusName {
    /// Not ended.
    Running,
    /// Ended well.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended on request.
    Cancelled,
    /// Ended by the workflow's timeout.
    TimedOut,
    /// Not ended, and nothing new begins until somebody resumes it.
    Paused,
}

impl StatusName {
    /// Whether it has not ended.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// One execution as a row: what lists show and what a shard needs to know
/// before it loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub tenant: TenantId,
    pub id: ExecutionId,
    pub bucket: u32,
    /// What it is placed by, if not by its id.
    pub shard_key: Option<Arc<str>>,
    pub application: Arc<str>,
    /// The application version that it runs: that of its start, unless it was moved.
    pub application_version: u32,
    pub workflow: Arc<str>,
    pub status: StatusName,
    /// Error name, if it failed.
    pub error: Option<String>,
    pub started_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    /// When it must next be woken, if it waits for time.
    pub wake_at: Option<Timestamp>,
    /// Waits for time only: recovery need not load it.
    pub idle: bool,
    /// Number of events.
    pub version: u64,
    /// What it is found by.
    pub tags: Option<Arc<Tags>>,
}

/// New events of one execution.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The row after the commit.
    pub summary: Summary,
    /// `summary.version` before it; 0 creates the execution.
    pub expected: u64,
    /// The events from `expected + 1` to `summary.version`.
    pub events: Vec<Event>,
    /// Given now and then: the execution after the events. The history so far
    /// moves out of the row into a chunk, and recovery starts from here.
    pub snapshot: Option<Box<Execution>>,
    /// What changes of the list of what people are asked.
    pub tasks: TaskChanges,
    /// Whether `summary.tags` are others than before the commit.
    pub retag: bool,
}

/// What a person is asked by an execution, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HumanTask {
    pub tenant: TenantId,
    pub execution: ExecutionId,
    /// Its number within the execution.
    pub task: TaskId,
    pub application: Arc<str>,
    pub workflow: Arc<str>,
    /// The states and branches around it.
    pub path: String,
    pub state: Arc<str>,
    /// Who is asked now.
    pub assignee: String,
    pub opened_at: Timestamp,
    /// When its `timeout` is over.
    pub deadline: Option<Timestamp>,
    /// How often somebody else was asked.
    pub escalated: u32,
}

/// What has changed of what an execution asks people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskChanges {
    /// What is asked anew, or otherwise than before.
    pub asked: Vec<HumanTask>,
    /// What is not asked any more.
    pub gone: Vec<TaskId>,
}

impl TaskChanges {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.gone.is_empty()
    }
}

/// Which of the questions a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    pub assignee: Option<String>,
    pub application: Option<String>,
    pub workflow: Option<String>,
    pub state: Option<String>,
}

/// An execution as it was committed last.
#[derive(Debug, Clone)]
pub struct Stored {
    pub summary: Summary,
    /// The last snapshot, if there is one.
    pub snapshot: Option<Execution>,
    /// The events after it; all events without one.
    pub tail: Vec<Event>,
    /// Size of the tail as stored, in bytes.
    pub tail_bytes: usize,
}

/// Where a list goes on that has one order; executions have a [`ListCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T, C = Cursor> {
    pub items: Vec<T>,
    /// Present if there may be more.
    pub next: Option<C>,
}

/// One version of an activity. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityVersion {
    pub name: String,
    /// `v1`, `v2`, ... as counted, or the name that the author gave.
    pub version: String,
    /// Position among the versions of the name, from 1; the highest is the newest.
    pub number: u32,
    /// SHA-256 of the module, in hexadecimal.
    pub digest: String,
    /// JSON: manifest, and what inspection found. The store does not look inside.
    pub description: String,
    pub created_at: Timestamp,
}

/// One version of an application. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationVersion {
    pub name: String,
    /// Counted from 1.
    pub version: u32,
    /// Name of the file, for diagnostics.
    pub file: String,
    pub source: String,
    pub created_at: Timestamp,
}

/// That nothing new of a workflow is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedWorkflow {
    pub application: String,
    pub workflow: String,
    /// Why, in the words of who asked for it.
    pub reason: String,
    pub paused_at: Timestamp,
}

/// How far a schedule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    pub tenant: TenantId,
    pub application: String,
    pub name: String,
    /// JSON. The store does not look inside.
    pub state: String,
}

/// An API key; the secret itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Public part, unique.
    pub id: String,
    pub tenant: TenantId,
    /// SHA-256 of the secret, in hexadecimal.
    pub hash: String,
    /// `viewer`, `operator`, `author` or `admin`.
    pub role: String,
    pub label: String,
    pub created_at: Timestamp,
}

/// A tenant made through the API (those of `cascade.yaml` are not stored).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    pub id: TenantId,
    /// JSON: limits and policy. The store does not look inside.
    pub settings: String,
    pub created_at: Timestamp,
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else owns the shard; nothing was written.
    #[error("shard {} is held by epoch {}, not {}", shard.0, held.0, presented.0)]
    LeaseLost {
        shard: ShardId,
        held: Epoch,
        presented: Epoch,
    },
    /// The execution is not at the version that the commit expected; nothing was written.
    #[error("execution {execution} is at version {actual}, expected {expected}")]
    Conflict {
        execution: ExecutionId,
        expected: u64,
        actual: u64,
    },
    /// Whether it was written is unknown: reload.
    #[error(transparent)]
    Store(#[from] Error),
}

/// An operational error of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database did not answer or refused.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// What is stored does not read as what was written.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// Another process has the data open.
    #[error("data file {} is in use by process {holder}", path.display())]
    InUse { path: PathBuf, holder: String },
    /// A value is larger than the store takes.
    #[error("{what} of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        what: &'static str,
        bytes: usize,
        limit: usize,
    },
    /// A write would take a tenant beyond its quota; nothing was written.
    #[error(
        "the key-value store would hold {needed} {what}, the limit is {limit}; raise \
         `tenants[].limits.key_value_{what}` in cascade.yaml, or delete keys"
    )]
    OverQuota {
        /// `keys` or `bytes`.
        what: &'static str,
        needed: u64,
        limit: u64,
    },
    /// An object would take its tenant beyond its quota; nothing was written.
    #[error(
        "the objects would take {needed} bytes, the limit is {limit}; raise \
         `tenants[].limits.object_bytes` in cascade.yaml, or delete objects"
    )]
    ObjectQuota { needed: u64, limit: u64 },
    /// What must be unique is there already.
    #[error("{0} exists already")]
    Exists(String),
    /// What was asked for cannot be; the text says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl Commit {
    /// Checks that the events continue the execution.
    ///
    /// # Panics
    ///
    /// If they do not: the caller has lost track of the execution.
    fn check(&self) {
        let Self {
            summary, expected, ..
        } = self;
        let follows = self
            .events
            .iter()
            .map(|event| event.seq)
            .eq(expected + 1..=summary.version);
        assert!(
            follows && !self.events.is_empty(),
            "events of {} must lead from version {expected} to {}",
            summary.id,
            summary.version
        );
    }
}

impl KvQuota {
    /// Refuses what would go beyond the quota. What keeps no more than before
    /// passes, or a tenant whose quota was lowered could not make room.
    fn check(self, before: KvUsage, after: KvUsage) -> Result<(), Error> {
        for (what, before, needed, limit) in [
            ("keys", before.keys, after.keys, self.keys),
            ("bytes", before.bytes, after.bytes, self.bytes),
        ] {
            if needed > limit && needed > before {
                return Err(Error::OverQuota {
                    what,
                    needed,
                    limit,
                });
            }
        }
        Ok(())
    }
}

/// Refuses an object that would take a tenant beyond its quota. What takes no more than
/// what it replaces passes, or a tenant whose quota was lowered could not make room.
fn check_objects(kept: u64, replaced: u64, size: u64, limit: u64) -> Result<(), Error> {
    let added = size.saturating_add(OBJECT_BYTES);
    let needed = kept.saturating_sub(replaced).saturating_add(added);
    if needed > limit && added > replaced {
        return Err(Error::ObjectQuota { needed, limit });
    }
    Ok(())
}

/// The page that is served when `limit` is asked for.
fn page_size(limit: u32) -> u32 {
    limit.clamp(1, PAGE_ITEMS)
}

/// A page of rows as a database gives them: each with its number, by which `cursor` says
/// where the list goes on. A full page may be followed by another.
fn summaries<C>(
    rows: impl Iterator<Item = Result<(u64, Summary), Error>>,
    limit: u32,
    cursor: impl Fn(u64, &Summary) -> C,
) -> Result<Page<Summary, C>, Error> {
    let (mut items, mut next) = (Vec::new(), None);
    for row in rows {
        let (seq, summary) = row?;
        next = Some(cursor(seq, &summary));
        items.push(summary);
    }
    let full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Page {
        items,
        next: next.filter(|_| full),
    })
}

/// A part of a history, as far as there is room.
struct Excerpt {
    events: Vec<Event>,
    /// How many more events, and of how many bytes.
    left: (usize, usize),
}

impl Excerpt {
    fn new(limit: u32, bytes: usize) -> Self {
        Self {
            events: Vec::new(),
            left: (usize::try_from(limit).unwrap_or(usize::MAX), bytes),
        }
    }

    fn has_room(&self) -> bool {
        self.left.0 > 0 && (self.events.is_empty() || self.left.1 > 0)
    }

    /// Takes an event that has so many bytes as it is stored; says whether it
    /// had room. The first always has, or nobody would ever get past it.
    fn take(&mut self, event: Event, bytes: usize) -> bool {
        let fits = self.left.0 > 0 && (self.events.is_empty() || bytes <= self.left.1);
        if fits {
            self.left = (self.left.0 - 1, self.left.1.saturating_sub(bytes));
            self.events.push(event);
        }
        fits
    }
}

/// The version that `activity` becomes among the versions of its name, or the
/// one that has its version name already.
fn next_activity(
    versions: &[ActivityVersion],
    mut activity: ActivityVersion,
) -> Result<ActivityVersion, ActivityVersion> {
    let named = |name: &str| versions.iter().find(|version| version.version == name);
    let newest = versions.iter().map(|version| version.number).max();
    activity.number = newest.unwrap_or(0) + 1;
    if activity.version.is_empty() {
        // An author may have taken `v{number}` as a name of their own.
        while named(&format!("v{}", activity.number)).is_some() {
            activity.number += 1;
        }
        activity.version = format!("v{}", activity.number);
    } else if let Some(existing) = named(&activity.version) {
        return Err(existing.clone());
    }
    Ok(activity)
}

/// Refuses what is larger than its bound.
fn bounded(what: &'static str, bytes: usize, limit: usize) -> Result<(), Error> {
    if bytes > limit {
        return Err(Error::TooLarge { what, bytes, limit });
    }
    Ok(())
}

/// The seam to the database.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes `shard` over: raises its epoch, so that commits of earlier holders fail. For
    /// whoever is the only one to use the store.
    async fn acquire(&self, shard: ShardId) -> Result<Lease, Error>;

    /// Makes the shards that nodes share, if there are none yet: `count` even ranges of
    /// buckets, held by nobody. Who has acquired shards before loses them by that.
    async fn lay_out(&self, count: u32) -> Result<(), Error>;

    /// Tells of a node, or that it is still there, for `ttl`; renews those of its leases that
    /// have not ended. What there is afterwards.
    async fn heartbeat(&self, node: &Node, ttl: Duration) -> Result<View, Error>;

    /// What nodes and shards there are.
    async fn cluster(&self) -> Result<View, Error>;

    /// Takes a shard that nobody holds, and raises its epoch; `None` if somebody does.
    async fn claim(
        &self,
        node: NodeId,
        shard: ShardId,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error>;

    /// Raises the epoch of a shard that a node holds, so that what it has sent before is
    /// fenced off; `None` if it does not hold it any more.
    async fn raise(&self, node: NodeId, shard: ShardId) -> Result<Option<Lease>, Error>;

    /// Gives back those of these shards that a node holds: others may take them at once.
    async fn give_back(&self, node: NodeId, shards: &[ShardId]) -> Result<(), Error>;

    /// Forgets a node and gives back all that it holds.
    async fn leave(&self, node: NodeId) -> Result<(), Error>;

    /// By which nodes know each other's requests: the same for all, and of nobody else.
    async fn cluster_secret(&self) -> Result<Vec<u8>, Error>;

    /// Counts changes of who holds what, as far as they are heard of: one may be missed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Makes a batch of one shard durable, all or nothing. Batches that
    /// arrive while a commit is in flight share the next one (group commit).
    ///
    /// If this returns `Ok`, a crash at any later point loses nothing. If it
    /// returns `Err`, the caller must reload; the commit may have happened.
    async fn commit(&self, lease: &Lease, batch: Vec<Commit>) -> Result<(), CommitError>;

    /// One execution with what is needed to go on with it.
    async fn load(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Stored>, Error>;

    /// The row of one execution.
    async fn summary(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Summary>, Error>;

    /// Open executions of a range of buckets, in a stable order, for recovery;
    /// go on with the cursor of the page before.
    async fn open_executions(
        &self,
        buckets: Range<u32>,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Summary>, Error>;

    /// Events with `seq > after`, in order: at most `limit`, and no more than
    /// have room in `bytes` as they are stored, but one if there is any.
    async fn history(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: u64,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<Event>, Error>;

    /// Executions of a tenant, those started last first; with `closed_after`, those that were
    /// started more than a minute before that last, in the order of ends. A page may be short,
    /// or empty, and have a next.
    async fn list(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        before: Option<ListCursor>,
        limit: u32,
    ) -> Result<Page<Summary, ListCursor>, Error>;

    /// How many executions of a tenant a list would show, of the newest [`COUNT_ROWS`] that
    /// have to be looked at.
    async fn count(&self, tenant: &TenantId, filter: &Filter) -> Result<Counts, Error>;

    /// What people are asked by the executions of a tenant, the oldest first.
    async fn human_tasks(
        &self,
        tenant: &TenantId,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<HumanTask>, Error>;

    /// Some executions of a range of buckets that an older release wrote, and that ask
    /// people what is not listed yet; empty in the end.
    async fn unlisted(&self, buckets: Range<u32>) -> Result<Vec<(TenantId, ExecutionId)>, Error>;

    /// Lists what such an execution asks.
    async fn list_tasks(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        asked: Vec<HumanTask>,
    ) -> Result<(), Error>;

    /// Keeps a module; the same digest twice is the same module.
    async fn put_module(&self, tenant: &TenantId, digest: &str, wasm: Bytes) -> Result<(), Error>;
    /// A module's bytes.
    async fn module(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, Error>;

    /// Adds a version of an activity, numbered by the store; `version` empty
    /// means `v{number}`. A version name that exists is returned as it stands.
    async fn put_activity(
        &self,
        tenant: &TenantId,
        activity: ActivityVersion,
    ) -> Result<ActivityVersion, Error>;
    /// All versions of all activities of a tenant, by name and number.
    async fn activities(&self, tenant: &TenantId) -> Result<Vec<ActivityVersion>, Error>;
    /// All versions of one activity, by number.
    async fn activity_versions(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Vec<ActivityVersion>, Error>;

    /// Adds a version of an application if `expected` is its newest version
    /// (0: there is none; `None`: whatever it is). `Err(version)` inside tells the newest.
    async fn put_application(
        &self,
        tenant: &TenantId,
        application: ApplicationVersion,
        expected: Option<u32>,
    ) -> Result<Result<ApplicationVersion, u32>, Error>;
    /// The newest version of each application of a tenant, by name.
    async fn applications(&self, tenant: &TenantId) -> Result<Vec<ApplicationVersion>, Error>;
    /// One version of an application; the newest without `version`.
    async fn application(
        &self,
        tenant: &TenantId,
        name: &str,
        version: Option<u32>,
    ) -> Result<Option<ApplicationVersion>, Error>;

    /// Notes that a workflow is paused; one that is stays as it was noted.
    async fn pause_workflow(&self, tenant: &TenantId, paused: PausedWorkflow) -> Result<(), Error>;
    /// Forgets that a workflow is paused.
    async fn resume_workflow(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Result<(), Error>;
    /// The workflows of a tenant that are paused, by application and name.
    async fn paused_workflows(&self, tenant: &TenantId) -> Result<Vec<PausedWorkflow>, Error>;

    /// Makes or replaces how far some schedules are, all or none. Fenced as a commit is: who
    /// keeps them holds a shard.
    async fn put_schedules(&self, lease: &Lease, rows: &[ScheduleRow]) -> Result<(), CommitError>;
    /// Forgets a schedule, fenced likewise.
    async fn delete_schedule(
        &self,
        lease: &Lease,
        tenant: &TenantId,
        application: &str,
        name: &str,
    ) -> Result<(), CommitError>;
    /// The schedules of a tenant, by application and name.
    async fn schedules(&self, tenant: &TenantId) -> Result<Vec<ScheduleRow>, Error>;

    /// What a tenant has uploaded, in bytes: modules, descriptions and sources
    /// of all versions, and [`VERSION_BYTES`] for each.
    async fn uploaded_bytes(&self, tenant: &TenantId) -> Result<u64, Error>;

    /// Makes or replaces an object, if the tenant then keeps no more than `quota` bytes,
    /// [`OBJECT_BYTES`] for each included.
    async fn put_object(
        &self,
        tenant: &TenantId,
        object: Object,
        quota: u64,
    ) -> Result<Replaced, Error>;
    /// The object with a name.
    async fn object(&self, tenant: &TenantId, name: &ObjectKey) -> Result<Option<Object>, Error>;
    /// Objects of a bucket in the order of their keys: those that begin with `prefix` and
    /// come after `after`.
    async fn objects(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error>;
    /// Removes an object; `None` if it was not there.
    async fn delete_object(
        &self,
        tenant: &TenantId,
        name: &ObjectKey,
    ) -> Result<Option<Replaced>, Error>;

    /// Makes or replaces a tenant.
    async fn put_tenant(&self, tenant: TenantRow) -> Result<(), Error>;
    /// A tenant that is stored.
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, Error>;
    /// All tenants that are stored.
    async fn tenants(&self) -> Result<Vec<TenantRow>, Error>;

    /// Where the rows of a tenant are.
    async fn home(&self, _: &TenantId) -> Result<Home, Error> {
        Ok(Home::Shared)
    }
    /// Moves the rows of a tenant, while it is served. If it is not there yet, where it is to
    /// live is made. [`Error::Refused`] if that cannot be; it lives where it lived then.
    async fn move_home(&self, tenant: &TenantId, to: &Home) -> Result<Moved, Error> {
        if *to == Home::Shared {
            return Ok(Moved {
                from: Home::Shared,
                to: Home::Shared,
                tables: Vec::new(),
            });
        }
        Err(Error::Refused(format!(
            "tenant {tenant} cannot have a schema of its own: only PostgreSQL has schemas; set \
             `database.url`"
        )))
    }

    /// Adds a key.
    async fn put_key(&self, key: ApiKey) -> Result<(), Error>;
    /// Keys of a tenant.
    async fn keys(&self, tenant: &TenantId) -> Result<Vec<ApiKey>, Error>;
    /// The key with this hash, whoever's it is: this is how a request gets its tenant.
    async fn key_by_hash(&self, hash: &str) -> Result<Option<ApiKey>, Error>;
    /// Removes a key; says whether it was there.
    async fn delete_key(&self, tenant: &TenantId, id: &str) -> Result<bool, Error>;

    /// Value of a key of the key-value capability.
    async fn kv_get(&self, tenant: &TenantId, key: &str) -> Result<Option<Bytes>, Error>;
    /// Sets a key, if the tenant then keeps no more than `quota`. Writes that
    /// arrive while a commit is in flight share the next one with the batches
    /// of [`Store::commit`]; those of one key apply in the order of arrival.
    async fn kv_set(
        &self,
        tenant: &TenantId,
        key: &str,
        value: Bytes,
        quota: KvQuota,
    ) -> Result<(), Error>;
    /// Sets a key likewise if it holds `expected`; says whether it did. What it
    /// holds comes first: where nothing is set, there is no quota to exceed.
    async fn kv_compare_and_set(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<Bytes>,
        value: Bytes,
        quota: KvQuota,
    ) -> Result<bool, Error>;
    /// Removes a key.
    async fn kv_delete(&self, tenant: &TenantId, key: &str) -> Result<(), Error>;

    /// Whether other servers may write to it: what is not in memory may be here, and what
    /// is may be old, until [`Store::follow`] tells.
    fn is_shared(&self) -> bool {
        false
    }

    /// What others change of what servers keep in memory, from now on: whoever reads it
    /// after this call misses nothing. `None` if there are no others.
    async fn follow(&self) -> Result<Option<Feed>, Error> {
        Ok(None)
    }

    /// Where contents of objects are kept, if they are kept here and not in files.
    fn contents(&self) -> Option<&dyn Contents> {
        None
    }

    /// Copies that may answer reads in its place, if there are any.
    fn replicas(&self) -> Option<&dyn Replicas> {
        None
    }

    /// Whether the database answers: the cheapest question there is.
    async fn ping(&self) -> Result<(), Error>;

    /// Commits and syncs so far, for metrics and `cascade bench`.
    fn counters(&self) -> Counters;

    /// Waits for what was accepted, then closes.
    async fn close(&self);
}

/// A page of nothing.
impl<T, C> Default for Page<T, C> {
    fn default() -> Self {
        let (items, next) = (Vec::new(), None);
        Self { items, next }
    }
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Transactions that wrote executions, values of the key-value capability,
    /// or both, each synced to disk once.
    pub commits: u64,
    /// Executions written by them.
    pub executions: u64,
    /// Events written by them.
    pub events: u64,
}
