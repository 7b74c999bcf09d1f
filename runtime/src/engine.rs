//! Starts executions, moves them on, and tells how they stand.
//!
//! An [`Engine`] is a cheap handle to a set of shards. Each shard is an actor
//! that owns the executions of a range of buckets and is the only one to write
//! them (`engine/shard.rs`). After a crash, [`Engine::open`] takes the shards
//! over again and goes on from what the store holds.

mod asked;
mod children;
mod definitions;
mod live;
mod moves;
mod notices;
mod owners;
mod pacing;
mod placing;
mod replay;
mod shard;
mod size;
mod spread;
mod standing;
mod usage;
mod wanted;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cascade_cdl::program::{Priority, Program, Rate};
use cascade_cdl::schedule::Scheduled;
use cascade_cdl::schema::Unfit;
use cascade_cdl::spread::SEPARATOR;
use cascade_cdl::{
    ActivityFailure, ActivityTask, BUCKETS, Callback, Execution, ExecutionId, Json, NoShardKey,
    Parent, Receipt, Status, TaskId, TaskToken, TenantId, Timestamp, bucket_of,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::dispatch::{AttemptKey, TaskQueue};
use crate::objects::Objects;
use crate::places::{self, Places};
use crate::store::{self, PausedWorkflow, ShardId, Store, Summary};
pub use asked::path;
pub use definitions::{Admission, Definitions};
pub use moves::{Judged, MAPPING_BYTES, Mapping, Moved, Outcome, Target, open_of};
pub use owners::{OWNER_PATIENCE, OpenShard, Peer, Peers, Whereabouts};
use owners::{Owners, Seat, ShardHandle};
pub use replay::Traced;
use serde::{Deserialize, Serialize};
use shard::{Control, ControlRequest, Request, Shard, StartRequest};
pub use standing::Standing;
use usage::{Place, Usage, Usages};
pub use watch::Watch;
pub use wire::{Ask, Told};

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

/// The bucket whose owner keeps the schedules.
pub const KEEPER_BUCKET: u32 = 0;

/// How often an id is drawn until it is of a bucket that is here: with a tenth of all
/// buckets it is found in all cases but one of a thousand, and that one is started elsewhere.
const FRESH_IDS: usize = 64;

/// Why a tenant may have nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Number of shards, here and elsewhere.
    pub shards: u32,
    /// Whether other processes have shards, too: then none is open at first, and
    /// [`Engine::open_shard`] opens them.
    pub clustered: bool,
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
    /// Memory for texts of chunks of distributed Maps that no shard counts: items on their
    /// way to a start, results on their way to objects. A tenant may have a quarter, and
    /// waits for that.
    pub chunk_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // One actor moves far more executions than SQLite's one writer
            // commits, and its batches are larger than those of two.
            shards: 1,
            clustered: false,
            // A tenth of a second of work at 30,000 requests/s and more.
            mailbox: 4_096,
            filter_shards: 10,
            // Room for about 200,000.
            frozen_bytes: 256 << 20,
            // That of some commits in a row.
            unsettled_bytes: 256 << 20,
            // A quarter is the largest chunk of one tenant, or dozens of common ones: what
            // reading and writing them keeps busy, a processor, has enough.
            chunk_bytes: 128 << 20,
        }
    }
}

/// A request to start an execution.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    #[serde(default)]
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
    /// Another process has the bucket, or will have it soon. Nothing was done.
    #[error("the execution belongs to another node; ask again")]
    Elsewhere { bucket: u32 },
    /// What another process said of the input.
    #[error("{0}")]
    Invalid(String),
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
    /// Another process has the bucket, or will have it soon. Nothing was done.
    #[error("the execution belongs to another node; ask again")]
    Elsewhere { bucket: u32 },
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
    /// The tasks that bring children to their ends, and tell other processes of ends.
    helpers: std::sync::Mutex<Vec<JoinHandle<()>>>,
    context: Arc<Context>,
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
    owners: Owners,
    children: children::Asks,
    notices: notices::Notices,
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
        let (children, asks) = mpsc::unbounded_channel();
        let (notices, ends) = notices::channel();
        let context = Arc::new(Context {
            owners: Owners::default(),
            children,
            notices,
            placements: Arc::default(),
            paces: pacing::Paces::default(),
            spreads: spread::Spreads::new(objects, settings.chunk_bytes),
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
        let stopping = context.stopping.clone();
        let inner = Arc::new(Inner {
            helpers: std::sync::Mutex::default(),
            context: context.clone(),
        });
        let engine = Self { inner };
        let alone = if settings.clustered { 0 } else { count };
        for index in 0..alone {
            let seat = Seat::new(&context, ShardId(index), buckets(index, count), None);
            let Some(lease) = seat.acquire(&context).await? else {
                continue; // whoever is alone gets it
            };
            let shard = Shard::open(seat.clone(), lease, context.clone()).await?;
            engine.serve(seat, shard);
        }
        let weak = Arc::downgrade(&engine.inner);
        let helpers = [
            tokio::spawn(children::run(weak.clone(), asks, stopping.clone())),
            tokio::spawn(notices::run(weak, ends, stopping)),
        ];
        let slot = engine.inner.helpers.lock();
        slot.unwrap_or_else(PoisonError::into_inner).extend(helpers);
        Ok(engine)
    }

    /// Starts an execution; returns when that is durable.
    pub async fn start(&self, start: Start) -> Result<Started, StartError> {
        let (started, answer) = oneshot::channel();
        self.submit(start, None, started, None).await?;
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
        self.submit(start, None, reply, Some(closed_reply)).await?;
        let started = answer.await.map_err(|_| StartError::Interrupted)??;
        let closed = tokio::select! {
            biased;
            closed = closed => match closed {
                // Its shard has gone to another process, and the start stays.
                Err(_) if self.may_move() => None,
                closed => Some(closed.map_err(|_| StartError::Interrupted)?),
            },
            () = &mut enough => None,
        };
        Ok((started, closed))
    }

    /// What an execution is to be called, and whether that was said with its start.
    fn name(
        &self,
        start: &Start,
        usage: &Usage,
        admission: &Admission,
    ) -> Result<(ExecutionId, bool), StartError> {
        Ok(match (start.id, &start.idempotency_key) {
            (Some(id), _) => (id, true),
            (None, Some(key)) => (ExecutionId::from_key(&start.tenant, key), true),
            (None, None) => {
                // A start by name may be of what is open already, and is
                // answered at the limit too.
                usage.admit(admission)?;
                (self.fresh_id(), false)
            }
        })
    }

    /// What is wrong with the input of a start, by the schema of its workflow.
    async fn misfit(
        &self,
        program: &Program,
        start: &Start,
    ) -> Result<Option<StartError>, StartError> {
        let Some(schema) = &program.input else {
            return Ok(None);
        };
        let (schema, input) = (schema.clone(), start.input.clone());
        let fits = self.fit(&start.tenant, schema, input).await?;
        Ok(fits.err().map(StartError::Unfit))
    }

    async fn submit(
        &self,
        mut start: Start,
        room: Option<Arc<places::Place>>,
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
        let (id, is_named) = self.name(&start, &usage, &admission)?;
        let busy = || StartError::Busy {
            retry_after: RETRY_AFTER,
        };
        let place = self.place(usage, start.input.len()).ok_or_else(busy)?;
        let mut refusal = self.misfit(&program.1, &start).await?;
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
        let shard = context.owners.shard(bucket);
        let shard = shard.ok_or(StartError::Elsewhere { bucket })?;
        let slot = shard.requests.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => busy(),
            mpsc::error::TrySendError::Closed(()) => StartError::Elsewhere { bucket },
        })?;
        if let Some(turn) = &turn {
            turn.went_to(bucket);
        }
        slot.send(Request::Start(Box::new(StartRequest {
            id,
            start,
            program,
            refusal,
            shard_key,
            admission,
            place,
            room,
            turn,
            started,
            closed,
        })));
        Ok(())
    }

    /// An id that nobody has used, of a bucket that is here if any is: then nobody else
    /// needs to be asked.
    fn fresh_id(&self) -> ExecutionId {
        let owners = &self.inner.context.owners;
        let fresh = || ExecutionId(uuid::Uuid::now_v7());
        if owners.is_whole() {
            return fresh();
        }
        let mut ids = (0..FRESH_IDS).map(|_| fresh());
        let here = ids.find(|id| owners.shard(id.bucket()).is_some());
        here.unwrap_or_else(fresh)
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
            None => {
                let workflow = &start.workflow;
                let known = definitions.workflow(tenant, application, workflow);
                if known.is_some() {
                    return Ok(known);
                }
                let looked = definitions.look_for_workflow(tenant, application).await;
                looked.map_err(StartError::Store)?;
                Ok(definitions.workflow(tenant, application, workflow))
            }
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
        let shard = self.inner.context.owners.shard(bucket);
        shard
            .ok_or(ControlError::Elsewhere { bucket })?
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
                mpsc::error::TrySendError::Closed(_) => ControlError::Elsewhere { bucket },
            })?;
        answer.await.map_err(|_| ControlError::Interrupted)?
    }

    /// Takes the results of attempts. Waits while a shard is busy, which slows
    /// the workers down to its pace.
    pub async fn report(&self, reports: Vec<Report>) {
        let mut by_shard: Vec<(Arc<ShardHandle>, Vec<Report>)> = Vec::new();
        for report in reports {
            let bucket = report.attempt.bucket;
            let known = by_shard.iter_mut().find(|(shard, _)| shard.has(bucket));
            if let Some((_, reports)) = known {
                reports.push(report);
            } else if let Some(shard) = self.inner.context.owners.shard(bucket) {
                by_shard.push((shard, vec![report]));
            }
            // Else its shard has gone to another process, which has asked for it again.
        }
        for (shard, reports) in by_shard {
            shard.report(reports).await;
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
        let helpers = self.inner.helpers.lock();
        let helpers = std::mem::take(&mut *helpers.unwrap_or_else(PoisonError::into_inner));
        for task in helpers {
            if let Err(error) = task.await {
                tracing::error!(%error, "a helper of the engine ended badly");
            }
        }
        self.join_shards().await;
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
