//! Starts executions, moves them on, and tells how they stand.
//!
//! An [`Engine`] is a cheap handle to a set of shards. Each shard is an actor
//! that owns the executions of a range of buckets and is the only one to write
//! them (`engine/shard.rs`). After a crash, [`Engine::open`] takes the shards
//! over again and goes on from what the store holds.

mod asked;
mod children;
mod live;
mod moves;
mod pacing;
mod placing;
mod replay;
mod shard;
mod size;
mod spread;
mod standing;
mod usage;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cascade_cdl::program::{Priority, Program, Rate, Resource};
use cascade_cdl::schedule::Scheduled;
use cascade_cdl::schema::Unfit;
use cascade_cdl::spread::SEPARATOR;
use cascade_cdl::{
    ActivityFailure, ActivityTask, BUCKETS, Callback, Execution, ExecutionId, Json, NoShardKey,
    Parent, Receipt, Status, TaskId, TaskToken, TenantId, Timestamp, bucket_of,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::Activity;
use crate::clock::Clock;
use crate::dispatch::{AttemptKey, TaskQueue};
use crate::objects::Objects;
use crate::places::Places;
use crate::store::{self, PausedWorkflow, ShardId, Store, Summary};
pub use asked::path;
pub use moves::{Judged, MAPPING_BYTES, Mapping, Moved, Outcome, Target, open_of};
pub use replay::Traced;
use shard::{Control, ControlRequest, Request, Shard, StartRequest};
pub use standing::Standing;
use usage::{Place, Usage, Usages};
pub use watch::Watch;

/// How long a shutdown waits for a shard's last commit. A commit takes some
/// milliseconds; one that takes this long will not come.
const LAST_COMMIT: Duration = Duration::from_secs(10);

/// What a refused client is told to wait: a mailbox is worked off in less.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Part of a mailbox that one tenant may fill. Half, because a server with one
/// tenant should not refuse what it has room for.
const TENANT_PART: u64 = 2;

/// Reports that wait in front of a shard, in bytes, beyond which the workers
/// wait: the outputs of a few dozen attempts at the default limit.
const REPORT_BYTES: usize = 32 << 20;

/// Reports with less output than this do not count, so that most take no permit.
const SMALL_REPORT: usize = 64 << 10;

/// Who knows what workflows and activities there are. The engine does not mind
/// where from: the catalog of a server, or the one file of `cascade run`.
#[async_trait]
pub trait Definitions: Send + Sync + 'static {
    /// The workflow as a new execution runs it, with its application's version.
    fn workflow(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<(u32, Arc<Program>)>;

    /// The workflow as an old execution runs it.
    async fn workflow_at(
        &self,
        tenant: &TenantId,
        application: &str,
        version: u32,
        workflow: &str,
    ) -> Result<Option<Arc<Program>>, store::Error>;

    /// Since when and why nothing new of a workflow is started, if that is so.
    fn paused(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<Arc<PausedWorkflow>>;

    /// What a resource stands for now.
    fn activity(&self, tenant: &TenantId, resource: &Resource) -> Option<Arc<Activity>>;

    /// Limits on what a tenant may start.
    fn admission(&self, tenant: &TenantId) -> Admission;
}

/// Limits on what a tenant may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Largest input of a workflow, in bytes.
    pub input_bytes: u64,
    /// Executions open at a time, sleeping ones included.
    pub open_executions: u64,
    /// Memory for open executions, in bytes.
    pub open_bytes: u64,
}

/// Why a tenant may have nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{open} executions are open, the limit is {limit} (tenants[].limits.open_executions)")]
    Executions { open: u64, limit: u64 },
    #[error(
        "open executions fill the memory that they may take, {limit} bytes \
         (tenants[].limits.open_bytes); come again when some have ended, or raise the limit"
    )]
    Bytes { limit: u64 },
}

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of shards in this process.
    pub shards: u32,
    /// Requests that wait in front of a shard; beyond it a start is refused
    /// with [`StartError::Busy`].
    pub mailbox: usize,
    /// Number of shards that the `shard` filter counts modulo.
    pub filter_shards: u32,
    /// Memory of a shard for sleeping executions; more of them are read from
    /// the store when they wake.
    pub frozen_bytes: usize,
    /// Memory of executions that wait for a commit of a shard, beyond which it
    /// takes nothing more in until the commit has ended.
    pub unsettled_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // One actor moves far more executions than SQLite's one writer
            // commits, and its batches are larger than those of two.
            shards: 1,
            // A tenth of a second of work at 30,000 requests/s and more.
            mailbox: 4_096,
            filter_shards: 10,
            // Room for about 200,000.
            frozen_bytes: 256 << 20,
            // That of some commits in a row.
            unsettled_bytes: 256 << 20,
        }
    }
}

/// A request to start an execution.
#[derive(Debug, Clone)]
pub struct Start {
    pub tenant: TenantId,
    pub application: Arc<str>,
    pub workflow: Arc<str>,
    pub input: Json,
    /// The execution's id, if the client chose it.
    pub id: Option<ExecutionId>,
    /// Names the execution if `id` does not: the same key, the same execution.
    pub idempotency_key: Option<String>,
    /// Whose child it is; only the engine says so.
    pub parent: Option<Parent>,
    /// Which schedule starts it.
    pub schedule: Option<Scheduled>,
    /// How urgent it is; as the workflow says if absent. Of a child, as its workflow
    /// says, and this where that says nothing.
    pub priority: Option<Priority>,
    /// What it is found by.
    pub labels: BTreeMap<String, String>,
    /// The version of the application, if it is not the one in force: chunks of a Map run
    /// what the Map does.
    pub version: Option<u32>,
}

/// An execution that has been started, now or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub id: ExecutionId,
    /// False if an earlier request had started it.
    pub created: bool,
    /// The application version that it runs.
    pub application_version: u32,
    pub started_at: Timestamp,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("application `{application}` has no workflow `{workflow}`")]
    UnknownWorkflow {
        application: Arc<str>,
        workflow: Arc<str>,
    },
    #[error("the input has {size} bytes, the limit is {limit} (tenants[].limits.input_bytes)")]
    InputTooLarge { size: u64, limit: u64 },
    /// Somebody paused the workflow.
    #[error(
        "workflow `{app}/{name}` is paused since {at}{why}; resume it with \
         `cascade workflow resume {app}/{name}`",
        app = .0.application, name = .0.workflow, at = .0.paused_at, why = because(&.0.reason)
    )]
    Paused(Arc<PausedWorkflow>),
    /// The input is not as the workflow's schema says.
    #[error("the input of the workflow: {0}")]
    Unfit(Unfit),
    /// The input does not say where the execution belongs.
    #[error("the input of the workflow: {0}")]
    NoShardKey(#[from] NoShardKey),
    /// Too many are started in too short a time.
    #[error(
        "workflow `{application}/{workflow}` starts at most {rate} (start_rate_limit); come again \
         in {} s", retry_after.as_secs()
    )]
    TooFast {
        application: Arc<str>,
        workflow: Arc<str>,
        rate: Rate,
        /// In whole seconds, rounded up.
        retry_after: Duration,
    },
    #[error(transparent)]
    Full(#[from] Full),
    #[error("execution {0} was started by another request with this key or id")]
    KeyReused(ExecutionId),
    #[error("the engine is busy")]
    Busy { retry_after: Duration },
    /// The engine stops, or restarts from the store.
    #[error("the engine stopped before it could tell; ask again with the same idempotency key")]
    Interrupted,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A reason as it ends a sentence; none if nobody gave one.
fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

/// A signal for an execution.
#[derive(Debug, Clone)]
pub struct Signal {
    pub name: String,
    pub payload: Json,
    /// The same key, the same signal: it is delivered once.
    pub idempotency_key: Option<String>,
}

/// An answer to a `HumanTask`.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The state entry that asks for it.
    pub task: TaskId,
    pub output: Json,
    /// Who gives it.
    pub by: String,
}

/// Why nothing was done to an execution.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no such execution")]
    NotFound,
    #[error("the execution has already ended")]
    AlreadyClosed,
    #[error("only an execution that failed or timed out can be retried")]
    NotRetryable,
    #[error("the workflow has no EventTask for a signal `{0}`")]
    UnknownSignal(String),
    #[error("another signal was sent to this execution with this key")]
    KeyReused,
    #[error(
        "nobody waits for signal `{0}` yet, and the inbox of the execution is full; send it again \
         when those before it have been taken"
    )]
    InboxFull(String),
    #[error("the payload has {size} bytes, the limit is {limit} (tenants[].limits.input_bytes)")]
    PayloadTooLarge { size: u64, limit: u64 },
    #[error("the execution went on while it was looked at")]
    MovedOn,
    #[error("nobody is asked for this: it was answered, its time was up, or it never was")]
    NotAsked,
    #[error("nobody waits for this: it was told before, its time was up, or it never was")]
    NotAwaited,
    #[error("the answer cannot be taken: {0}")]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the engine is busy")]
    Busy { retry_after: Duration },
    /// The engine stops, or restarts from the store.
    #[error("the engine stopped before it could tell; look again and repeat if needed")]
    Interrupted,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// How an attempt ended, as a worker tells it.
#[derive(Debug, Clone)]
pub struct Report {
    pub attempt: AttemptKey,
    pub result: Result<Json, ActivityFailure>,
    /// Absent if nothing ran.
    pub receipt: Option<Receipt>,
}

/// An execution as it was committed last.
#[derive(Debug, Clone)]
pub struct View {
    pub summary: Summary,
    pub input: Json,
    pub execution: Execution,
    pub program: Arc<Program>,
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub struct Closed {
    pub status: Status,
    pub at: Timestamp,
    /// Number of events.
    pub version: u64,
}

/// What the engine is doing, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Executions that are open, sleeping ones included.
    pub open: u64,
    /// Memory of those that shards hold, as it is counted against `open_bytes`.
    pub open_bytes: u64,
    /// Activity tasks that wait for a worker.
    pub queued: u64,
    /// Executions started since the process started.
    pub started: u64,
    /// Executions that ended since the process started.
    pub closed: u64,
}

/// A handle to the shards of this process.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<ShardHandle>,
    /// The task that brings children to their ends.
    children: std::sync::Mutex<Option<JoinHandle<()>>>,
    context: Arc<Context>,
}

struct ShardHandle {
    requests: mpsc::Sender<Request>,
    /// Permits for bytes of reports on their way.
    report_bytes: Arc<Semaphore>,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What all shards share.
struct Context {
    store: Arc<dyn Store>,
    queue: Arc<dyn TaskQueue>,
    clock: Arc<dyn Clock>,
    definitions: Arc<dyn Definitions>,
    settings: Settings,
    watch: Watch,
    /// At replaying histories for those who look at them.
    turns: Places,
    usages: Usages,
    started: AtomicU64,
    closed: AtomicU64,
    stopping: CancellationToken,
    children: children::Asks,
    placements: Arc<placing::Placements>,
    paces: pacing::Paces,
    spreads: spread::Spreads,
}

impl Engine {
    /// Takes the shards over, reads what is open, and starts moving it on.
    pub async fn open(
        settings: Settings,
        store: Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        clock: Arc<dyn Clock>,
        definitions: Arc<dyn Definitions>,
        objects: Objects,
    ) -> Result<Self, store::Error> {
        let count = settings.shards.clamp(1, BUCKETS);
        let mailbox = settings.mailbox.max(1);
        let (children, asks) = mpsc::unbounded_channel();
        let context = Arc::new(Context {
            children,
            placements: Arc::default(),
            paces: pacing::Paces::default(),
            spreads: spread::Spreads::new(objects),
            store,
            queue,
            clock,
            definitions,
            settings: Settings {
                shards: count,
                ..settings
            },
            watch: Watch::default(),
            turns: replay::turns(),
            usages: Usages::default(),
            started: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            stopping: CancellationToken::new(),
        });
        let mut shards = Vec::new();
        for index in 0..count {
            let shard = Shard::open(ShardId(index), context.clone()).await?;
            let (requests, inbox) = mpsc::channel(mailbox);
            let task = std::sync::Mutex::new(Some(tokio::spawn(shard.run(inbox))));
            shards.push(ShardHandle {
                requests,
                report_bytes: Arc::new(Semaphore::new(REPORT_BYTES)),
                task,
            });
        }
        let stopping = context.stopping.clone();
        let inner = Arc::new(Inner {
            shards,
            children: std::sync::Mutex::new(None),
            context,
        });
        let engine = Self { inner };
        let weak = Arc::downgrade(&engine.inner);
        let task = tokio::spawn(children::run(weak, asks, stopping));
        let slot = engine.inner.children.lock();
        *slot.unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(engine)
    }

    /// Starts an execution; returns when that is durable.
    pub async fn start(&self, start: Start) -> Result<Started, StartError> {
        let (started, answer) = oneshot::channel();
        self.submit(start, started, None).await?;
        answer.await.map_err(|_| StartError::Interrupted)?
    }

    /// Starts an execution and waits for its end, or for `patience`; the start
    /// is durable in either case.
    ///
    /// Since nobody is told of the start alone, a chain of pure activities may
    /// reach its end before the first commit, and then needs only that one.
    pub async fn start_and_wait(
        &self,
        start: Start,
        patience: Duration,
    ) -> Result<(Started, Option<Closed>), StartError> {
        let enough = tokio::time::sleep(patience);
        self.start_and_wait_until(start, enough).await
    }

    /// The same, but for as long as the caller has not had `enough`.
    pub async fn start_and_wait_until(
        &self,
        start: Start,
        enough: impl Future<Output = ()> + Send,
    ) -> Result<(Started, Option<Closed>), StartError> {
        let mut enough = std::pin::pin!(enough);
        let (reply, answer) = oneshot::channel();
        let (closed_reply, closed) = oneshot::channel();
        self.submit(start, reply, Some(closed_reply)).await?;
        let started = answer.await.map_err(|_| StartError::Interrupted)??;
        let closed = tokio::select! {
            biased;
            closed = closed => Some(closed.map_err(|_| StartError::Interrupted)?),
            () = &mut enough => None,
        };
        Ok((started, closed))
    }

    async fn submit(
        &self,
        mut start: Start,
        started: oneshot::Sender<Result<Started, StartError>>,
        closed: Option<oneshot::Sender<Closed>>,
    ) -> Result<(), StartError> {
        let context = &self.inner.context;
        let Some(program) = self.program_of(&start).await? else {
            return Err(StartError::UnknownWorkflow {
                application: start.application,
                workflow: start.workflow,
            });
        };
        start.priority = match start.parent {
            None => start.priority.or(program.1.priority),
            Some(_) => program.1.priority.or(start.priority),
        };
        let admission = context.definitions.admission(&start.tenant);
        let size = start.input.len() as u64;
        // Those of chunks have bounds of their own.
        if size > admission.input_bytes && start.version.is_none() {
            return Err(StartError::InputTooLarge {
                size,
                limit: admission.input_bytes,
            });
        }
        let usage = context.usages.of(&start.tenant);
        let (id, is_named) = match (start.id, &start.idempotency_key) {
            (Some(id), _) => (id, true),
            (None, Some(key)) => (ExecutionId::from_key(&start.tenant, key), true),
            (None, None) => {
                // A start by name may be of what is open already, and is
                // answered at the limit too.
                usage.admit(&admission)?;
                (ExecutionId(uuid::Uuid::now_v7()), false)
            }
        };
        let busy = || StartError::Busy {
            retry_after: RETRY_AFTER,
        };
        let place = self.place(usage, start.input.len()).ok_or_else(busy)?;
        let mut refusal = match &program.1.input {
            Some(schema) => {
                let (schema, input) = (schema.clone(), start.input.clone());
                let fits = self.fit(&start.tenant, schema, input).await?;
                fits.err().map(StartError::Unfit)
            }
            None => None,
        };
        let shard_key = context.shard_key(&program.1, &start, id);
        let shard_key = shard_key.unwrap_or_else(|no_key| {
            refusal.get_or_insert(no_key);
            None
        });
        let wanted = bucket(id, shard_key.as_deref());
        let (turn, bucket) = if is_named {
            context.place((start.tenant.clone(), id), wanted).await?
        } else {
            (None, wanted)
        };
        let shard = self.shard(bucket);
        let room = shard.requests.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => busy(),
            mpsc::error::TrySendError::Closed(()) => StartError::Interrupted,
        })?;
        if let Some(turn) = &turn {
            turn.went_to(bucket);
        }
        room.send(Request::Start(Box::new(StartRequest {
            id,
            start,
            program,
            refusal,
            shard_key,
            admission,
            place,
            turn,
            started,
            closed,
        })));
        Ok(())
    }

    /// What a start runs, with the version of its application.
    async fn program_of(&self, start: &Start) -> Result<Option<(u32, Arc<Program>)>, StartError> {
        let definitions = &self.inner.context.definitions;
        let (tenant, application) = (&start.tenant, &start.application);
        match start.version {
            Some(version) => {
                let workflow = &start.workflow;
                let found =
                    program_at(&**definitions, tenant, application, version, workflow).await?;
                Ok(found.map(|program| (version, program)))
            }
            // Nobody but a Map starts its chunks.
            None if start.workflow.contains(SEPARATOR) => Ok(None),
            None => Ok(definitions.workflow(tenant, application, &start.workflow)),
        }
    }

    /// A place for one more request of a tenant, if it has not got its part.
    fn place(&self, usage: Arc<Usage>, bytes: usize) -> Option<Place> {
        let mailbox = self.inner.context.settings.mailbox as u64;
        Place::take(usage, bytes, mailbox.div_ceil(TENANT_PART))
    }

    /// Ends an execution; returns when that is durable.
    pub async fn cancel(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        reason: String,
    ) -> Result<(), ControlError> {
        self.control(tenant, id, reason.len(), Control::Cancel(reason))
            .await
    }

    /// Lets a failed execution go on from where it failed; returns when that
    /// is durable.
    pub async fn retry(&self, tenant: &TenantId, id: ExecutionId) -> Result<(), ControlError> {
        self.control(tenant, id, 0, Control::Retry).await
    }

    /// Lets nothing new begin in an execution; returns when that is durable. What
    /// runs is let run. One that is paused stays so.
    pub async fn pause(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        reason: String,
    ) -> Result<(), ControlError> {
        self.control(tenant, id, reason.len(), Control::Pause(reason))
            .await
    }

    /// Lets a paused execution go on; returns when that is durable.
    pub async fn resume(&self, tenant: &TenantId, id: ExecutionId) -> Result<(), ControlError> {
        self.control(tenant, id, 0, Control::Resume).await
    }

    /// Brings a signal to an execution; returns when that is durable. One that
    /// comes before it is waited for is kept until then.
    pub async fn signal(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        signal: Signal,
    ) -> Result<(), ControlError> {
        self.check_payload(tenant, &signal.payload)?;
        let bytes = signal.payload.len();
        self.control(tenant, id, bytes, Control::Signal(signal))
            .await
    }

    /// Brings a person's answer to an execution, if it fits the schema of the
    /// state that asks; returns when that is durable.
    pub async fn answer(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        answer: Answer,
    ) -> Result<(), ControlError> {
        self.check_payload(tenant, &answer.output)?;
        let view = self.show(tenant, id).await?;
        let view = view.ok_or(ControlError::NotFound)?;
        let mut asked = view.execution.asked(&view.program);
        let asked = asked.find(|(_, asking, _)| asking.task == answer.task);
        let is_checked = asked.is_some();
        if let Some(schema) = asked.and_then(|(_, _, human)| human.schema.clone()) {
            self.fit(tenant, schema, answer.output.clone()).await??;
        }
        let bytes = answer.output.len() + answer.by.len();
        let control = Control::Answer { answer, is_checked };
        self.control(tenant, id, bytes, control).await
    }

    /// Tells an execution what became of one of its tasks; returns when that is durable.
    pub async fn callback(
        &self,
        tenant: &TenantId,
        token: TaskToken,
        callback: Callback,
    ) -> Result<(), ControlError> {
        let bytes = match &callback {
            Callback::Succeeded { output } => {
                self.check_payload(tenant, output)?;
                output.len()
            }
            Callback::Failed { error, cause } => error.len() + cause.len(),
            Callback::Heartbeat {} => 0,
        };
        let control = Control::Callback { token, callback };
        self.control(tenant, token.execution, bytes, control).await
    }

    fn check_payload(&self, tenant: &TenantId, payload: &Json) -> Result<(), ControlError> {
        let admission = self.inner.context.definitions.admission(tenant);
        let (size, limit) = (payload.len() as u64, admission.input_bytes);
        if size > limit {
            return Err(ControlError::PayloadTooLarge { size, limit });
        }
        Ok(())
    }

    async fn control(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        bytes: usize,
        control: Control,
    ) -> Result<(), ControlError> {
        let busy = || ControlError::Busy {
            retry_after: RETRY_AFTER,
        };
        let usage = self.inner.context.usages.of(tenant);
        let place = self.place(usage, bytes).ok_or_else(busy)?;
        let (reply, answer) = oneshot::channel();
        let bucket = self.inner.context.find(tenant, id).await?;
        self.shard(bucket)
            .requests
            .try_send(Request::Control(Box::new(ControlRequest {
                tenant: tenant.clone(),
                id,
                control,
                place,
                reply,
            })))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => busy(),
                mpsc::error::TrySendError::Closed(_) => ControlError::Interrupted,
            })?;
        answer.await.map_err(|_| ControlError::Interrupted)?
    }

    /// Takes the results of attempts. Waits while a shard is busy, which slows
    /// the workers down to its pace.
    pub async fn report(&self, reports: Vec<Report>) {
        if let [only] = self.inner.shards.as_slice() {
            return only.report(reports).await;
        }
        let mut by_shard: HashMap<usize, Vec<Report>> = HashMap::new();
        for report in reports {
            let index = self.index(report.attempt.bucket);
            by_shard.entry(index).or_default().push(report);
        }
        for (index, reports) in by_shard {
            self.inner.shards[index].report(reports).await;
        }
    }

    /// Tells of each commit of an execution by its new version.
    pub fn watch(&self, tenant: &TenantId, id: ExecutionId) -> tokio::sync::watch::Receiver<u64> {
        self.inner.context.watch.subscribe(tenant, id)
    }

    /// Those of the attempts that an execution waits for which wait until the rate of
    /// their state allows another.
    pub fn held_by_rate(&self, view: &View) -> Vec<TaskId> {
        let tasks = view.execution.pending_tasks(&view.program);
        let rated = tasks.into_iter().filter(|task| task.rate_limit.is_some());
        let waits = |task: &ActivityTask| {
            self.inner.context.queue.waits_for_rate(&AttemptKey {
                tenant: view.summary.tenant.clone(),
                execution: view.summary.id,
                bucket: view.summary.bucket,
                task: task.task,
                attempt: task.attempt,
                scheduled_at: task.scheduled_at,
            })
        };
        rated.filter(waits).map(|task| task.task).collect()
    }

    /// What the engine is doing.
    pub fn stats(&self) -> Stats {
        let context = &self.inner.context;
        let (open, open_bytes) = context.usages.total();
        Stats {
            open,
            open_bytes,
            queued: context.queue.depth() as u64,
            started: context.started.load(Ordering::Relaxed),
            closed: context.closed.load(Ordering::Relaxed),
        }
    }

    /// Stops taking requests, commits what is known, and lets the shards end.
    pub async fn shutdown(&self) {
        self.inner.context.stopping.cancel();
        let children = self.inner.children.lock();
        let children = children.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = children
            && let Err(error) = task.await
        {
            tracing::error!(%error, "what serves children ended badly");
        }
        for shard in &self.inner.shards {
            let task = shard
                .task
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let Some(task) = task else { continue };
            match tokio::time::timeout(LAST_COMMIT, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a shard ended badly"),
                Err(_) => tracing::error!("a shard's last commit takes too long; it is left"),
            }
        }
    }

    fn shard(&self, bucket: u32) -> &ShardHandle {
        &self.inner.shards[self.index(bucket)]
    }

    fn index(&self, bucket: u32) -> usize {
        shard_of(bucket, self.inner.context.settings.shards) as usize
    }
}

impl ShardHandle {
    async fn report(&self, reports: Vec<Report>) {
        let bytes: usize = reports
            .iter()
            .map(|report| match &report.result {
                Ok(output) => output.len(),
                Err(failure) => failure.details.as_ref().map_or(0, Json::len),
            })
            .sum();
        let permit = if bytes < SMALL_REPORT {
            None
        } else {
            let permits = u32::try_from(bytes.min(REPORT_BYTES)).unwrap_or(u32::MAX);
            let bytes = self.report_bytes.clone();
            // The semaphore is never closed.
            bytes.acquire_many_owned(permits).await.ok().map(Arc::new)
        };
        // A closed shard has stopped caring: recovery runs the task again.
        let _ = self.requests.send(Request::Reports(reports, permit)).await;
    }
}

/// The bucket of an execution: that of its shard key, if it has one.
fn bucket(id: ExecutionId, shard_key: Option<&str>) -> u32 {
    shard_key.map_or_else(|| id.bucket(), |key| bucket_of(key.as_bytes()))
}

/// Which of `count` shards has a bucket.
pub fn shard_of(bucket: u32, count: u32) -> u32 {
    bucket * count.clamp(1, BUCKETS) / BUCKETS
}

/// The program that a name stands for in a version of an application: that of a workflow,
/// or the one that runs chunks of one of its Maps.
async fn program_at(
    definitions: &dyn Definitions,
    tenant: &TenantId,
    application: &str,
    version: u32,
    name: &str,
) -> Result<Option<Arc<Program>>, store::Error> {
    let (workflow, map) = match name.split_once(SEPARATOR) {
        Some((workflow, map)) => (workflow, Some(map)),
        None => (name, None),
    };
    let found = definitions.workflow_at(tenant, application, version, workflow);
    let found = found.await?;
    Ok(match map {
        Some(map) => found.and_then(|program| program.chunk(map)).map(Arc::new),
        None => found,
    })
}

/// The buckets of the shard with this index out of `count`.
fn buckets(index: u32, count: u32) -> Range<u32> {
    // The inverse of `shard_of`, rounding up.
    let first = |index: u32| (index * BUCKETS).div_ceil(count);
    first(index)..first(index + 1)
}

#[cfg(test)]
pub(crate) mod tests;

#[cfg(test)]
mod range_tests {
    use super::*;

    #[test]
    fn every_bucket_belongs_to_the_shard_that_its_range_says() {
        for count in [1, 2, 3, 7, 4_096] {
            for index in 0..count {
                for bucket in buckets(index, count) {
                    assert_eq!(shard_of(bucket, count), index, "{bucket} of {count}");
                }
            }
            assert_eq!(buckets(count - 1, count).end, BUCKETS);
        }
    }
}
