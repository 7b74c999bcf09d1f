//! The store as it is meant, in memory: what the databases are compared with,
//! what engine tests run on, and what `cascade run` uses for its one shot.
//!
//! Nothing survives a crash. Tests can stop it between a cause and its effect
//! ([`ModelStore::hold_commits`]) and make commits fail ([`ModelStore::fail_next`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::{Event, Execution, ExecutionId, Tags, TenantId};
use tokio::sync::watch;

use super::{
    ActivityVersion, ApiKey, ApplicationVersion, Commit, CommitError, Counters, Counts, Cursor,
    Epoch, Error, Excerpt, Filter, HumanTask, KV_KEY_BYTES, KV_VALUE_BYTES, KvQuota, KvUsage,
    Lease, MODULE_BYTES, OBJECT_BYTES, Object, ObjectKey, Page, PausedWorkflow, Position, Replaced,
    ScheduleRow, ShardId, Store, Stored, Summary, TaskChanges, TaskFilter, TenantRow,
    VERSION_BYTES, bounded, codec, next_activity, page_size, search,
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
}

#[derive(Default)]
struct State {
    closed: bool,
    fault: Option<Fault>,
    counters: Counters,
    leases: BTreeMap<ShardId, Epoch>,
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

    /// Lets commits and loads pass again, those that wait first.
    pub fn release(&self) {
        self.gate.send_replace(true);
        self.loads.send_replace(true);
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

impl State {
    /// Finds what forbids a batch, before anything is written.
    fn check(&self, lease: &Lease, batch: &[Commit]) -> Result<(), CommitError> {
        let held = self.leases.get(&lease.shard).copied().unwrap_or(Epoch(0));
        if held != lease.epoch {
            return Err(CommitError::LeaseLost {
                shard: lease.shard,
                held,
                presented: lease.epoch,
            });
        }
        let mut moved = BTreeMap::new();
        for commit in batch {
            let key = (commit.summary.tenant.clone(), commit.summary.id);
            let stored = self
                .executions
                .get(&key)
                .map_or(0, |row| row.summary.version);
            let actual = moved.get(&key).copied().unwrap_or(stored);
            if actual != commit.expected {
                return Err(CommitError::Conflict {
                    execution: commit.summary.id,
                    expected: commit.expected,
                    actual,
                });
            }
            moved.insert(key, commit.summary.version);
        }
        Ok(())
    }

    fn write(&mut self, batch: Vec<Commit>) {
        if batch.is_empty() {
            return;
        }
        self.counters.commits += 1;
        for commit in batch {
            self.counters.executions += 1;
            self.counters.events += commit.events.len() as u64;
            let key = (commit.summary.tenant.clone(), commit.summary.id);
            self.change_tasks(&key, &commit.tasks);
            let row = match self.executions.entry(key) {
                Entry::Occupied(row) => row.into_mut(),
                Entry::Vacant(vacant) => {
                    self.order.push(vacant.key().clone());
                    vacant.insert(Row::new(self.order.len() as u64, &commit.summary))
                }
            };
            row.append(commit);
        }
    }

    fn change_tasks(&mut self, of: &(TenantId, ExecutionId), changes: &TaskChanges) {
        let is = |task: &HumanTask, number| {
            (&task.tenant, task.execution, task.task) == (&of.0, of.1, number)
        };
        self.tasks
            .retain(|_, task| !changes.gone.iter().any(|gone| is(task, *gone)));
        for asked in &changes.asked {
            let mut there = self.tasks.values_mut();
            if let Some(task) = there.find(|task| is(task, asked.task)) {
                *task = asked.clone();
            } else {
                self.last_task += 1;
                self.tasks.insert(self.last_task, asked.clone());
            }
        }
    }

    fn put_value(
        &mut self,
        key: (TenantId, String),
        value: Bytes,
        quota: KvQuota,
    ) -> Result<(), Error> {
        let before = self.kv_usage(&key.0);
        let old = self.kv.insert(key.clone(), value);
        let kept = quota.check(before, self.kv_usage(&key.0));
        match (&kept, old) {
            (Ok(()), _) => self.counters.commits += 1,
            (Err(_), Some(old)) => drop(self.kv.insert(key, old)),
            (Err(_), None) => drop(self.kv.remove(&key)),
        }
        kept
    }

    /// Counted anew each time: it cannot be out of step with what is there.
    fn kv_usage(&self, tenant: &TenantId) -> KvUsage {
        let own = self.kv.iter().filter(|((of, _), _)| of == tenant);
        own.fold(KvUsage::default(), |usage, ((_, key), value)| KvUsage {
            keys: usage.keys + 1,
            bytes: usage.bytes + (key.len() + value.len()) as u64,
        })
    }

    fn put_application(
        &mut self,
        tenant: &TenantId,
        mut application: ApplicationVersion,
        expected: Option<u32>,
    ) -> Result<ApplicationVersion, u32> {
        let key = (tenant.clone(), application.name.clone());
        let versions = self.applications.get(&key);
        let newest = versions
            .and_then(|versions| versions.last())
            .map_or(0, |newest| newest.version);
        if expected.is_some_and(|expected| expected != newest) {
            return Err(newest);
        }
        application.version = newest + 1;
        let versions = self.applications.entry(key).or_default();
        versions.push(application.clone());
        Ok(application)
    }

    fn delete_key(&mut self, tenant: &TenantId, id: &str) -> bool {
        let own = self.keys.get(id).is_some_and(|key| key.tenant == *tenant);
        own && self.keys.remove(id).is_some()
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

/// Whether a list with this filter shows an execution.
fn shows(filter: &Filter, summary: &Summary) -> bool {
    let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|it| it == name);
    let none = Tags::default();
    let tags = summary.tags.as_deref().unwrap_or(&none);
    is(&filter.application, &summary.application)
        && is(&filter.workflow, &summary.workflow)
        && filter
            .shard_key
            .as_deref()
            .is_none_or(|key| summary.shard_key.as_deref() == Some(key))
        && filter.status.is_none_or(|status| status == summary.status)
        && (!filter.open || summary.status.is_open())
        && filter
            .started_after
            .is_none_or(|at| summary.started_at > at)
        && filter
            .started_before
            .is_none_or(|at| summary.started_at < at)
        && filter
            .closed_after
            .is_none_or(|at| summary.closed_at.is_some_and(|closed| closed > at))
        && filter
            .closed_before
            .is_none_or(|at| summary.closed_at.is_some_and(|closed| closed < at))
        && filter.tags.iter().all(|test| search::fits(test, tags))
}

/// One page of rows that come with the cursor after them.
fn page<'a, C: Copy>(rows: impl Iterator<Item = (C, &'a Summary)>, limit: u32) -> Page<Summary, C> {
    let limit = usize::try_from(page_size(limit)).unwrap_or(usize::MAX);
    let rows: Vec<_> = rows.take(limit).collect();
    let next = rows.last().map(|(cursor, _)| *cursor);
    Page {
        next: next.filter(|_| rows.len() == limit),
        items: rows.into_iter().map(|(_, row)| row.clone()).collect(),
    }
}

#[async_trait]
impl Store for ModelStore {
    async fn acquire(&self, shard: ShardId) -> Result<Lease, Error> {
        let mut state = self.open()?;
        let epoch = state.leases.entry(shard).or_insert(Epoch(0));
        epoch.0 += 1;
        Ok(Lease {
            shard,
            epoch: *epoch,
        })
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
        before: Option<Position>,
        limit: u32,
    ) -> Result<Page<Summary, Position>, Error> {
        let state = self.open()?;
        let own = state
            .executions
            .iter()
            .filter(|((of, _), row)| of == tenant && shows(filter, &row.summary));
        let placed = own.map(|(_, row)| {
            let at = search::position(filter, row.seq, &row.summary);
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
                Ok(new)
            }
            Err(existing) => Ok(existing),
        }
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
        self.pass_gate().await;
        Ok(())
    }

    async fn paused_workflows(&self, tenant: &TenantId) -> Result<Vec<PausedWorkflow>, Error> {
        let state = self.open()?;
        let own = state.paused.iter().filter(|((of, ..), _)| of == tenant);
        Ok(own.map(|(_, paused)| paused.clone()).collect())
    }

    async fn put_schedules(&self, rows: &[ScheduleRow]) -> Result<(), Error> {
        self.pass_gate().await;
        let mut state = self.open()?;
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
            Some(_) => Err(Error::Unavailable("a test made it fail".to_owned())),
        }
    }

    async fn delete_schedule(
        &self,
        tenant: &TenantId,
        application: &str,
        name: &str,
    ) -> Result<(), Error> {
        let key = (tenant.clone(), application.to_owned(), name.to_owned());
        self.open()?.schedules.remove(&key);
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
        self.open()?.tenants.insert(tenant.id.clone(), tenant);
        self.pass_gate().await;
        Ok(())
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

    async fn ping(&self) -> Result<(), Error> {
        self.open().map(drop)
    }

    fn counters(&self) -> Counters {
        self.lock().counters
    }

    async fn close(&self) {
        self.lock().closed = true;
    }
}
