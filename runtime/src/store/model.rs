//! The store as it is meant, in memory: what the databases are compared with,
//! what engine tests run on, and what `cascade run` uses for its one shot.
//!
//! Nothing survives a crash. Tests can stop it between a cause and its effect
//! ([`ModelStore::hold_commits`]) and make commits fail ([`ModelStore::fail_next`]).

mod changes;
mod cluster;
mod list;
mod state;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::{Event, Execution, ExecutionId, TenantId};
use tokio::sync::watch;

use self::changes::Changes;
use self::cluster::Cluster;
use self::list::{page, shows};
use super::feed::{Feed, Subject};
use super::{
    ActivityVersion, ApiKey, ApplicationVersion, Commit, CommitError, Counters, Counts, Cursor,
    Epoch, Error, Excerpt, Filter, HumanTask, KV_KEY_BYTES, KV_VALUE_BYTES, KvQuota, Lease,
    ListCursor, MODULE_BYTES, Node, NodeId, OBJECT_BYTES, Object, ObjectKey, Page, PausedWorkflow,
    Replaced, ScheduleRow, ShardId, Store, Stored, Summary, TaskChanges, TaskFilter, TenantRow,
    VERSION_BYTES, View, bounded, codec, next_activity, page_size, search,
};

/// What [`ModelStore::fail_next`] does to a commit. The caller sees the same
/// error either way, and must find out by reloading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Lost,
    /// All is written; only the answer is lost.
    Written,
}

/// The model.
pub struct ModelStore {
    state: Mutex<State>,
    /// Whether commits may pass.
    gate: watch::Sender<bool>,
    /// How many commits stand before the gate.
    held: watch::Sender<usize>,
    /// Whether executions may be loaded.
    loads: watch::Sender<bool>,
    changes: Changes,
    /// Whether nodes may tell that they are there.
    heartbeats: watch::Sender<bool>,
    moves: watch::Sender<u64>,
    secret: [u8; 32],
}

#[derive(Default)]
struct State {
    closed: bool,
    fault: Option<Fault>,
    counters: Counters,
    leases: BTreeMap<ShardId, Epoch>,
    cluster: Cluster,
    executions: BTreeMap<(TenantId, ExecutionId), Row>,
    /// Executions in the order of creation; the first has the number 1.
    order: Vec<(TenantId, ExecutionId)>,
    /// What people are asked, by the order of asking.
    tasks: BTreeMap<u64, HumanTask>,
    last_task: u64,
    modules: BTreeMap<(TenantId, String), Bytes>,
    activities: BTreeMap<(TenantId, String), Vec<ActivityVersion>>,
    applications: BTreeMap<(TenantId, String), Vec<ApplicationVersion>>,
    /// By application and workflow.
    paused: BTreeMap<(TenantId, String, String), PausedWorkflow>,
    /// By application and name.
    schedules: BTreeMap<(TenantId, String, String), ScheduleRow>,
    tenants: BTreeMap<TenantId, TenantRow>,
    keys: BTreeMap<String, ApiKey>,
    kv: BTreeMap<(TenantId, String), Bytes>,
    objects: BTreeMap<(TenantId, ObjectKey), Object>,
}

impl State {
    /// A content, if no object of a tenant has it any more.
    fn orphan(&self, tenant: &TenantId, digest: String) -> Option<String> {
        let mut own = self.objects.iter().filter(|((of, _), _)| of == tenant);
        let held = own.any(|(_, object)| object.digest == digest);
        (!held).then_some(digest)
    }
}

struct Row {
    seq: u64,
    summary: Summary,
    events: Vec<Event>,
    snapshot: Option<Execution>,
    /// How many events the snapshot covers.
    covered: usize,
    tail_bytes: usize,
}

impl Default for ModelStore {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            gate: watch::Sender::new(true),
            held: watch::Sender::new(0),
            loads: watch::Sender::new(true),
            changes: Changes::default(),
            heartbeats: watch::Sender::new(true),
            moves: watch::Sender::new(0),
            secret: [7; 32], // nobody else sees this memory
        }
    }
}

impl ModelStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps commits waiting, unwritten, until [`ModelStore::release`]. Changes of
    /// tenants, keys and applications wait, too, but are written.
    pub fn hold_commits(&self) {
        self.gate.send_replace(false);
    }

    /// Keeps loads of executions waiting until [`ModelStore::release`].
    pub fn hold_loads(&self) {
        self.loads.send_replace(false);
    }

    /// Keeps what nodes tell of themselves waiting until [`ModelStore::release`].
    pub fn hold_heartbeats(&self) {
        self.heartbeats.send_replace(false);
    }

    /// Lets commits, loads and heartbeats pass again, those that wait first.
    pub fn release(&self) {
        self.gate.send_replace(true);
        self.loads.send_replace(true);
        self.heartbeats.send_replace(true);
    }

    /// Lets time pass for leases: the model's clock stands otherwise.
    pub fn pass(&self, time: Duration) {
        self.lock().cluster.now += time;
        self.changed();
    }

    async fn pass_heartbeats(&self) {
        let mut heartbeats = self.heartbeats.subscribe();
        // Fails only if the sender is gone, and it is borrowed.
        let _ = heartbeats.wait_for(|open| *open).await;
    }

    fn changed(&self) {
        self.moves.send_modify(|moves| *moves += 1);
    }

    /// Keeps from who follows it what changes, as a network does that breaks, or lets it
    /// know again.
    pub fn tell_changes(&self, tells: bool) {
        self.changes.tell(tells);
    }

    /// Returns once `count` commits wait to be released.
    pub async fn held(&self, count: usize) {
        let mut held = self.held.subscribe();
        // Fails only if the sender is gone, and it is borrowed.
        let _ = held.wait_for(|held| *held >= count).await;
    }

    /// Makes the next commit fail that is neither fenced nor in conflict.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// The state; a panic of another thread in here left it consistent enough for tests.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        Ok(state)
    }

    async fn pass_gate(&self) {
        if *self.gate.borrow() {
            return;
        }
        let mut gate = self.gate.subscribe();
        self.held.send_modify(|held| *held += 1);
        let _leaves = Leaves(&self.held); // also if the caller goes away
        let _ = gate.wait_for(|open| *open).await;
    }
}

/// Counts a commit out when it no longer waits.
struct Leaves<'a>(&'a watch::Sender<usize>);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

impl Row {
    fn new(seq: u64, summary: &Summary) -> Self {
        Self {
            seq,
            summary: summary.clone(),
            events: Vec::new(),
            snapshot: None,
            covered: 0,
            tail_bytes: 0,
        }
    }

    fn append(&mut self, commit: Commit) {
        let new = commit.summary;
        // What an execution is never changes; how it stands, and what it runs, does.
        self.summary.application_version = new.application_version;
        self.summary.status = new.status;
        self.summary.error = new.error;
        self.summary.closed_at = new.closed_at;
        self.summary.wake_at = new.wake_at;
        self.summary.idle = new.idle;
        self.summary.version = new.version;
        if commit.retag {
            self.summary.tags = new.tags;
        }
        self.tail_bytes += codec::encode_events(&commit.events).len();
        self.events.extend(commit.events);
        if let Some(snapshot) = commit.snapshot {
            self.snapshot = Some(*snapshot);
            self.covered = self.events.len();
            self.tail_bytes = 0;
        }
    }
}

#[async_trait]
impl Store for ModelStore {
    async fn acquire(&self, shard: ShardId) -> Result<Lease, Error> {
        Ok(self.open()?.raise(shard))
    }

    async fn lay_out(&self, count: u32) -> Result<(), Error> {
        self.open()?.lay_out(count);
        Ok(())
    }

    async fn heartbeat(&self, node: &Node, ttl: Duration) -> Result<View, Error> {
        self.pass_heartbeats().await;
        let mut state = self.open()?;
        state.cluster.heartbeat(node, ttl);
        Ok(state.view())
    }

    async fn cluster(&self) -> Result<View, Error> {
        Ok(self.open()?.view())
    }

    async fn claim(
        &self,
        node: NodeId,
        shard: ShardId,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error> {
        let mut state = self.open()?;
        if !state.cluster.claim(node, shard, ttl) {
            return Ok(None);
        }
        self.changed();
        Ok(Some(state.raise(shard)))
    }

    async fn raise(&self, node: NodeId, shard: ShardId) -> Result<Option<Lease>, Error> {
        let mut state = self.open()?;
        let holds = state.cluster.holder(shard) == Some(node);
        Ok(holds.then(|| state.raise(shard)))
    }

    async fn give_back(&self, node: NodeId, shards: &[ShardId]) -> Result<(), Error> {
        self.open()?
            .cluster
            .release(node, |shard| shards.contains(&shard));
        self.changed();
        Ok(())
    }

    async fn leave(&self, node: NodeId) -> Result<(), Error> {
        let mut state = self.open()?;
        state.cluster.release(node, |_| true);
        state.cluster.nodes.remove(&node);
        self.changed();
        Ok(())
    }

    async fn cluster_secret(&self) -> Result<Vec<u8>, Error> {
        Ok(self.secret.to_vec())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    async fn commit(&self, lease: &Lease, batch: Vec<Commit>) -> Result<(), CommitError> {
        batch.iter().for_each(Commit::check);
        self.pass_gate().await;
        let mut state = self.open()?;
        state.check(lease, &batch)?;
        let fault = state.fault.take();
        if fault != Some(Fault::Lost) {
            state.write(batch);
        }
        match fault {
            None => Ok(()),
            Some(_) => Err(Error::Unavailable("a test made it fail".to_owned()).into()),
        }
    }

    async fn load(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Stored>, Error> {
        let mut loads = self.loads.subscribe();
        // Fails only if the sender is gone, and it is borrowed.
        let _ = loads.wait_for(|open| *open).await;
        let state = self.open()?;
        let row = state.executions.get(&(tenant.clone(), id));
        Ok(row.map(|row| Stored {
            summary: row.summary.clone(),
            snapshot: row.snapshot.clone(),
            tail: row.events[row.covered..].to_vec(),
            tail_bytes: row.tail_bytes,
        }))
    }

    async fn summary(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Summary>, Error> {
        let state = self.open()?;
        let row = state.executions.get(&(tenant.clone(), id));
        Ok(row.map(|row| row.summary.clone()))
    }

    async fn open_executions(
        &self,
        buckets: Range<u32>,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Summary>, Error> {
        let state = self.open()?;
        let open = state
            .executions
            .values()
            .filter(|row| row.summary.status.is_open() && buckets.contains(&row.summary.bucket));
        let ordered: BTreeMap<_, _> = open
            .map(|row| {
                (
                    codec::bucket_cursor(row.summary.bucket, row.seq).0,
                    &row.summary,
                )
            })
            .collect();
        let rest = ordered
            .into_iter()
            .filter(|(cursor, _)| after.is_none_or(|after| *cursor > after.0));
        Ok(page(rest.map(|(cursor, row)| (Cursor(cursor), row)), limit))
    }

    async fn history(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: u64,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<Event>, Error> {
        let state = self.open()?;
        let row = state.executions.get(&(tenant.clone(), id));
        let events = row.into_iter().flat_map(|row| &row.events);
        let later = events.filter(|event| event.seq > after);
        let mut excerpt = Excerpt::new(limit, bytes);
        for event in later {
            if !excerpt.take(event.clone(), codec::event_bytes(event)) {
                break;
            }
        }
        Ok(excerpt.events)
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        before: Option<ListCursor>,
        limit: u32,
    ) -> Result<Page<Summary, ListCursor>, Error> {
        let state = self.open()?;
        let own = state
            .executions
            .iter()
            .filter(|((of, _), row)| of == tenant && shows(filter, &row.summary));
        let placed = own.map(|(_, row)| {
            let at = search::cursor(filter, row.seq, &row.summary);
            (at, &row.summary)
        });
        let ordered: BTreeMap<_, _> = placed
            .filter(|(at, _)| before.is_none_or(|before| *at < before))
            .collect();
        Ok(page(ordered.into_iter().rev(), limit))
    }

    async fn count(&self, tenant: &TenantId, filter: &Filter) -> Result<Counts, Error> {
        let state = self.open()?;
        let own = state
            .executions
            .iter()
            .filter(|((of, _), row)| of == tenant && shows(filter, &row.summary));
        Ok(Counts::of(own.map(|(_, Row { summary, .. })| {
            let (application, workflow) = (&*summary.application, &*summary.workflow);
            (application.into(), workflow.into(), summary.status, 1, 1)
        })))
    }

    async fn human_tasks(
        &self,
        tenant: &TenantId,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<HumanTask>, Error> {
        let state = self.open()?;
        let is = |wanted: &Option<String>, it: &str| wanted.as_deref().is_none_or(|is| is == it);
        let shown = |task: &HumanTask| {
            task.tenant == *tenant
                && is(&filter.assignee, &task.assignee)
                && is(&filter.application, &task.application)
                && is(&filter.workflow, &task.workflow)
                && is(&filter.state, &task.state)
        };
        let from = after.map_or(0, |Cursor(number)| number.saturating_add(1));
        let tasks = state.tasks.range(from..).filter(|(_, task)| shown(task));
        let limit = usize::try_from(page_size(limit)).unwrap_or(usize::MAX);
        let tasks: Vec<_> = tasks.take(limit).collect();
        let next = tasks.last().map(|(number, _)| Cursor(**number));
        Ok(Page {
            next: next.filter(|_| tasks.len() == limit),
            items: tasks.into_iter().map(|(_, task)| task.clone()).collect(),
        })
    }

    async fn unlisted(&self, _: Range<u32>) -> Result<Vec<(TenantId, ExecutionId)>, Error> {
        self.open().map(|_| Vec::new()) // nothing survives a release
    }

    async fn list_tasks(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        asked: Vec<HumanTask>,
    ) -> Result<(), Error> {
        let gone = Vec::new();
        let changes = TaskChanges { asked, gone };
        self.open()?.change_tasks(&(tenant.clone(), id), &changes);
        Ok(())
    }

    async fn put_module(&self, tenant: &TenantId, digest: &str, wasm: Bytes) -> Result<(), Error> {
        bounded("module", wasm.len(), MODULE_BYTES)?;
        let key = (tenant.clone(), digest.to_owned());
        self.open()?.modules.entry(key).or_insert(wasm);
        Ok(())
    }

    async fn module(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, Error> {
        let key = (tenant.clone(), digest.to_owned());
        Ok(self.open()?.modules.get(&key).cloned())
    }

    async fn put_activity(
        &self,
        tenant: &TenantId,
        activity: ActivityVersion,
    ) -> Result<ActivityVersion, Error> {
        let mut state = self.open()?;
        let key = (tenant.clone(), activity.name.clone());
        let versions = state.activities.entry(key).or_default();
        match next_activity(versions, activity) {
            Ok(new) => {
                versions.push(new.clone());
                let subject = Subject::Activity(new.name.clone());
                self.changes.note(tenant, subject);
                Ok(new)
            }
            Err(existing) => Ok(existing),
        }
    }

    async fn activity_versions(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Vec<ActivityVersion>, Error> {
        let key = (tenant.clone(), name.to_owned());
        let found = self.open()?.activities.get(&key).cloned();
        Ok(found.unwrap_or_default())
    }

    async fn activities(&self, tenant: &TenantId) -> Result<Vec<ActivityVersion>, Error> {
        let state = self.open()?;
        let own = state.activities.iter().filter(|((of, _), _)| of == tenant);
        Ok(own.flat_map(|(_, versions)| versions).cloned().collect())
    }

    async fn put_application(
        &self,
        tenant: &TenantId,
        application: ApplicationVersion,
        expected: Option<u32>,
    ) -> Result<Result<ApplicationVersion, u32>, Error> {
        let put = self.open()?.put_application(tenant, application, expected);
        if let Ok(new) = &put {
            let subject = Subject::Application(new.name.clone());
            self.changes.note(tenant, subject);
        }
        self.pass_gate().await;
        Ok(put)
    }

    async fn applications(&self, tenant: &TenantId) -> Result<Vec<ApplicationVersion>, Error> {
        let state = self.open()?;
        let own = state
            .applications
            .iter()
            .filter(|((of, _), _)| of == tenant);
        Ok(own
            .filter_map(|(_, versions)| versions.last())
            .cloned()
            .collect())
    }

    async fn application(
        &self,
        tenant: &TenantId,
        name: &str,
        version: Option<u32>,
    ) -> Result<Option<ApplicationVersion>, Error> {
        let state = self.open()?;
        let versions = state.applications.get(&(tenant.clone(), name.to_owned()));
        let mut newest_first = versions.into_iter().flatten().rev();
        let wanted = newest_first.find(|found| version.is_none_or(|it| it == found.version));
        Ok(wanted.cloned())
    }

    async fn pause_workflow(&self, tenant: &TenantId, paused: PausedWorkflow) -> Result<(), Error> {
        let (application, workflow) = (paused.application.clone(), paused.workflow.clone());
        let key = (tenant.clone(), application, workflow);
        self.open()?.paused.entry(key).or_insert(paused);
        self.changes.note(tenant, Subject::Pauses);
        self.pass_gate().await;
        Ok(())
    }

    async fn resume_workflow(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Result<(), Error> {
        let key = (tenant.clone(), application.to_owned(), workflow.to_owned());
        self.open()?.paused.remove(&key);
        self.changes.note(tenant, Subject::Pauses);
        self.pass_gate().await;
        Ok(())
    }

    async fn paused_workflows(&self, tenant: &TenantId) -> Result<Vec<PausedWorkflow>, Error> {
        let state = self.open()?;
        let own = state.paused.iter().filter(|((of, ..), _)| of == tenant);
        Ok(own.map(|(_, paused)| paused.clone()).collect())
    }

    async fn put_schedules(&self, lease: &Lease, rows: &[ScheduleRow]) -> Result<(), CommitError> {
        self.pass_gate().await;
        let mut state = self.open()?;
        state.fence(lease)?;
        let fault = state.fault.take();
        if fault != Some(Fault::Lost) {
            for row in rows {
                let (application, name) = (row.application.clone(), row.name.clone());
                let key = (row.tenant.clone(), application, name);
                state.schedules.insert(key, row.clone());
            }
        }
        match fault {
            None => Ok(()),
            Some(_) => Err(Error::Unavailable("a test made it fail".to_owned()).into()),
        }
    }

    async fn delete_schedule(
        &self,
        lease: &Lease,
        tenant: &TenantId,
        application: &str,
        name: &str,
    ) -> Result<(), CommitError> {
        let key = (tenant.clone(), application.to_owned(), name.to_owned());
        let mut state = self.open()?;
        state.fence(lease)?;
        state.schedules.remove(&key);
        Ok(())
    }

    async fn schedules(&self, tenant: &TenantId) -> Result<Vec<ScheduleRow>, Error> {
        let state = self.open()?;
        let own = state.schedules.values().filter(|row| row.tenant == *tenant);
        Ok(own.cloned().collect())
    }

    async fn uploaded_bytes(&self, tenant: &TenantId) -> Result<u64, Error> {
        let state = self.open()?;
        let modules = state.modules.iter().filter(|((of, _), _)| of == tenant);
        let modules = modules.map(|(_, wasm)| wasm.len() as u64);
        let activities = state.activities.iter().filter(|((of, _), _)| of == tenant);
        let activities = activities
            .flat_map(|(_, versions)| versions)
            .map(|version| version.description.len() as u64 + VERSION_BYTES);
        let applications = state.applications.iter();
        let applications = applications
            .filter(|((of, _), _)| of == tenant)
            .flat_map(|(_, versions)| versions)
            .map(|version| version.source.len() as u64 + VERSION_BYTES);
        Ok(modules.chain(activities).chain(applications).sum())
    }

    async fn put_object(
        &self,
        tenant: &TenantId,
        object: Object,
        quota: u64,
    ) -> Result<Replaced, Error> {
        let mut state = self.open()?;
        let counted = |object: &Object| object.size + OBJECT_BYTES;
        let own = state.objects.iter().filter(|((of, _), _)| of == tenant);
        let kept: u64 = own.map(|(_, object)| counted(object)).sum();
        let key = (tenant.clone(), object.name.clone());
        let replaced = state.objects.get(&key).map_or(0, counted);
        super::check_objects(kept, replaced, object.size, quota)?;
        let before = state.objects.insert(key, object);
        Ok(Replaced {
            orphan: before.and_then(|before| state.orphan(tenant, before.digest)),
        })
    }

    async fn object(&self, tenant: &TenantId, name: &ObjectKey) -> Result<Option<Object>, Error> {
        let key = (tenant.clone(), name.clone());
        Ok(self.open()?.objects.get(&key).cloned())
    }

    async fn objects(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error> {
        let state = self.open()?;
        let own = state.objects.iter().filter(|((of, _), _)| of == tenant);
        let listed = own.map(|(_, object)| object).filter(|object| {
            let ObjectKey { bucket: of, key } = &object.name;
            of == bucket && key.starts_with(prefix) && key.as_str() > after
        });
        Ok(listed
            .take(super::page_size(limit) as usize)
            .cloned()
            .collect())
    }

    async fn delete_object(
        &self,
        tenant: &TenantId,
        name: &ObjectKey,
    ) -> Result<Option<Replaced>, Error> {
        let mut state = self.open()?;
        let before = state.objects.remove(&(tenant.clone(), name.clone()));
        Ok(before.map(|before| Replaced {
            orphan: state.orphan(tenant, before.digest),
        }))
    }

    async fn put_tenant(&self, tenant: TenantRow) -> Result<(), Error> {
        let id = tenant.id.clone();
        self.open()?.tenants.insert(id.clone(), tenant);
        self.changes.note(&id, Subject::Tenant);
        self.pass_gate().await;
        Ok(())
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, Error> {
        Ok(self.open()?.tenants.get(id).cloned())
    }

    async fn tenants(&self) -> Result<Vec<TenantRow>, Error> {
        Ok(self.open()?.tenants.values().cloned().collect())
    }

    async fn put_key(&self, key: ApiKey) -> Result<(), Error> {
        let mut state = self.open()?;
        if state
            .keys
            .values()
            .any(|other| other.id == key.id || other.hash == key.hash)
        {
            return Err(Error::Exists(format!("key {}", key.id)));
        }
        state.keys.insert(key.id.clone(), key);
        Ok(())
    }

    async fn keys(&self, tenant: &TenantId) -> Result<Vec<ApiKey>, Error> {
        let state = self.open()?;
        let own = state.keys.values().filter(|key| key.tenant == *tenant);
        Ok(own.cloned().collect())
    }

    async fn key_by_hash(&self, hash: &str) -> Result<Option<ApiKey>, Error> {
        let state = self.open()?;
        Ok(state.keys.values().find(|key| key.hash == hash).cloned())
    }

    async fn delete_key(&self, tenant: &TenantId, id: &str) -> Result<bool, Error> {
        let deleted = self.open()?.delete_key(tenant, id);
        if deleted {
            self.changes.note(tenant, Subject::Keys);
        }
        self.pass_gate().await;
        Ok(deleted)
    }

    async fn kv_get(&self, tenant: &TenantId, key: &str) -> Result<Option<Bytes>, Error> {
        let key = (tenant.clone(), key.to_owned());
        Ok(self.open()?.kv.get(&key).cloned())
    }

    async fn kv_set(
        &self,
        tenant: &TenantId,
        key: &str,
        value: Bytes,
        quota: KvQuota,
    ) -> Result<(), Error> {
        bounded("key", key.len(), KV_KEY_BYTES)?;
        bounded("value", value.len(), KV_VALUE_BYTES)?;
        let key = (tenant.clone(), key.to_owned());
        self.open()?.put_value(key, value, quota)
    }

    async fn kv_compare_and_set(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<Bytes>,
        value: Bytes,
        quota: KvQuota,
    ) -> Result<bool, Error> {
        bounded("key", key.len(), KV_KEY_BYTES)?;
        bounded("value", value.len(), KV_VALUE_BYTES)?;
        let mut state = self.open()?;
        let key = (tenant.clone(), key.to_owned());
        let holds = state.kv.get(&key) == expected.as_ref();
        if holds {
            state.put_value(key, value, quota)?;
        }
        Ok(holds)
    }

    async fn kv_delete(&self, tenant: &TenantId, key: &str) -> Result<(), Error> {
        let key = (tenant.clone(), key.to_owned());
        let mut state = self.open()?;
        let was_there = state.kv.remove(&key).is_some();
        state.counters.commits += u64::from(was_there);
        Ok(())
    }

    fn is_shared(&self) -> bool {
        true // by whoever has it in this process
    }

    async fn follow(&self) -> Result<Option<Feed>, Error> {
        drop(self.open()?);
        Ok(Some(self.changes.follow()))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.open().map(drop)
    }

    fn counters(&self) -> Counters {
        self.lock().counters
    }

    async fn close(&self) {
        self.lock().closed = true;
        self.changes.close();
    }
}
