//! One shard: the actor that owns the executions of a range of buckets.
//!
//! It takes what arrives (requests, reports, due timers), moves executions on
//! through [`cascade_cdl::apply`], and hands their events to the store. While
//! one commit is in flight the next batch gathers; effects leave when the
//! commit of their cause returns, pure activities at once.
//!
//! An execution is committed when somebody needs it: an effect to release, a
//! caller to answer, an end, or a long rest. A chain of pure activities that
//! nobody waits on step by step therefore reaches the store as one commit.
//!
//! After a failed commit, a lost lease or a broken invariant the shard drops
//! its memory and starts again from the store, as after a crash.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cascade_cdl::program::Program;
use cascade_cdl::{
    ActivityFailure, ActivityTask, Command, EventKind, Execution, ExecutionId, SEMANTICS, Status,
    TenantId, Timestamp, limits,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::live::{Effect, Frozen, Key, Live, restore};
use super::{Closed, Context, ControlError, Report, Start, StartError, Started, View, buckets};
use crate::dispatch::{AttemptKey, QueuedTask};
use crate::store::{self, Commit, CommitError, Lease, ShardId, StatusName, Summary};
use crate::telemetry;

/// Requests handled between two looks at the other inputs: a few milliseconds.
const TURN: usize = 256;

/// Executions in one commit; beyond it they wait for the next, which keeps the
/// time of one commit, and so the latency, bounded.
const COMMIT_EXECUTIONS: usize = 1_024;

/// How long events that nobody waits for may stay uncommitted: longer than a
/// chain of pure activities usually takes, shorter than a person notices.
const DEFER: u64 = 100;

/// Events of one execution that may stay uncommitted.
const DEFER_EVENTS: usize = 64;

/// An execution that sleeps at least so long leaves the live set.
const SHORT_NAP: u64 = 1_000;

/// Memory for sleeping executions; more of them are read from the store when
/// they wake. Room for about 200,000.
const FROZEN_BYTES: usize = 256 * 1024 * 1024;

/// Executions of which recovery reads so many rows at a time.
const RECOVERY_PAGE: u32 = 1_000;

/// Loads at a time during recovery and when sleepers wake.
const LOADS: usize = 16;

/// Failures of missing activities taken in between two looks at the other inputs.
const FOLLOW_UPS: usize = 32;

/// Pause before an execution that could not be read is woken again.
const LOAD_AGAIN: u64 = 1_000;

/// Pause before a shard that failed starts again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What callers ask of a shard.
pub(super) enum Request {
    Start(Box<StartRequest>),
    Reports(Vec<Report>),
    Cancel {
        tenant: TenantId,
        id: ExecutionId,
        reason: String,
        reply: oneshot::Sender<Result<(), ControlError>>,
    },
    Retry {
        tenant: TenantId,
        id: ExecutionId,
        reply: oneshot::Sender<Result<(), ControlError>>,
    },
}

/// A start, resolved.
pub(super) struct StartRequest {
    pub(super) id: ExecutionId,
    pub(super) start: Start,
    pub(super) program: (u32, Arc<Program>),
    pub(super) started: oneshot::Sender<Result<Started, StartError>>,
    pub(super) closed: Option<oneshot::Sender<Closed>>,
}

/// What is done to one execution.
enum Touch {
    Start(Box<StartRequest>),
    Report(Report),
    Cancel(String, oneshot::Sender<Result<(), ControlError>>),
    Retry(oneshot::Sender<Result<(), ControlError>>),
    Wake,
}

/// An execution as the shard remembers it.
enum Slot {
    Live(Box<Live>),
    Frozen(Box<Frozen>),
    /// Being read from the store; what arrives meanwhile waits here.
    Loading(Vec<Touch>),
}

/// What a shard waits for.
enum Input {
    Requests(Vec<Request>),
    Committed(Result<(), CommitError>),
    Loaded(Key, LoadResult),
    TimerDue,
    FollowUps,
    Stop,
}

/// Why a shard drops its memory.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("commit: {0}")]
    Commit(#[from] CommitError),
    #[error("the shard panicked")]
    Panic,
}

/// An execution and the size of its tail, if it is there.
type LoadResult = Result<Option<Box<(View, usize)>>, store::Error>;

type Load = BoxFuture<'static, (Key, LoadResult)>;

pub(super) struct Shard {
    context: Arc<Context>,
    lease: Lease,
    slots: HashMap<Key, Slot>,
    frozen_bytes: usize,
    timers: BTreeSet<(Timestamp, Key)>,
    /// Executions to commit next.
    urgent: Vec<Key>,
    /// Executions to commit at the latest then, in order of time.
    deferred: VecDeque<(Timestamp, Key)>,
    in_flight: Option<InFlight>,
    /// Tasks whose cause is durable, or that are pure.
    ready: Vec<QueuedTask>,
    /// Failures of activities that are not there, to be taken in like reports.
    follow_ups: VecDeque<Report>,
    loads: FuturesUnordered<Load>,
    waiting_loads: VecDeque<Key>,
    /// This shard's part of the open executions that the engine counts.
    open: HashMap<TenantId, u64>,
    stopping: bool,
}

struct InFlight {
    keys: Vec<Key>,
    done: BoxFuture<'static, Result<(), CommitError>>,
}

impl Shard {
    /// Takes the shard over and reads what is open.
    pub(super) async fn open(id: ShardId, context: Arc<Context>) -> Result<Self, store::Error> {
        let lease = context.store.acquire(id).await?;
        let mut shard = Self {
            context,
            lease,
            slots: HashMap::new(),
            frozen_bytes: 0,
            timers: BTreeSet::new(),
            urgent: Vec::new(),
            deferred: VecDeque::new(),
            in_flight: None,
            ready: Vec::new(),
            follow_ups: VecDeque::new(),
            loads: FuturesUnordered::new(),
            waiting_loads: VecDeque::new(),
            open: HashMap::new(),
            stopping: false,
        };
        shard.recover().await?;
        Ok(shard)
    }

    /// Serves until it is told to stop; after a fault, from the store again.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        loop {
            let served = AssertUnwindSafe(self.serve(&mut inbox)).catch_unwind();
            let fault = match served.await {
                Ok(Ok(())) => return,
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Panic,
            };
            let id = self.lease.shard;
            if let Fault::Commit(CommitError::LeaseLost { .. }) = fault {
                // Somebody else moves these executions on now.
                tracing::error!(shard.id = id.0, %fault, "shard stops");
                return;
            }
            tracing::error!(shard.id = id.0, %fault, "shard starts again from the store");
            // Callers learn at once that their answer is lost. The old count of
            // open executions goes only with the old shard, so that it is never
            // too low meanwhile.
            self.slots.clear();
            let context = self.context.clone();
            self = tokio::select! {
                fresh = reopen(id, &context) => fresh,
                () = context.stopping.cancelled() => return,
            };
        }
    }

    /// One more open execution of a tenant.
    fn count(&mut self, tenant: &TenantId) {
        *self.open.entry(tenant.clone()).or_default() += 1;
        self.context.open.of(tenant).fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    fn discount(&mut self, tenant: &TenantId) {
        if let Some(open) = self.open.get_mut(tenant).filter(|open| **open > 0) {
            *open -= 1;
            self.context.open.of(tenant).fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Request>) -> Result<(), Fault> {
        loop {
            self.release_ready();
            self.begin_commit();
            if self.stopping && self.in_flight.is_none() {
                return Ok(());
            }
            match self.next(inbox).await {
                Input::Requests(requests) => {
                    for request in requests {
                        self.request(request);
                    }
                }
                Input::Committed(result) => self.committed(result)?,
                Input::Loaded(key, result) => self.loaded(&key, result),
                Input::TimerDue => self.timers_due(),
                Input::FollowUps => self.follow_up(),
                Input::Stop => self.stop(),
            }
        }
    }

    async fn next(&mut self, inbox: &mut mpsc::Receiver<Request>) -> Input {
        let due = self.next_due();
        let Self {
            context,
            in_flight,
            loads,
            follow_ups,
            stopping,
            ..
        } = self;
        let clock = &context.clock;
        let mut requests = Vec::new();
        tokio::select! {
            result = async { (&mut in_flight.as_mut().expect("checked").done).await },
                if in_flight.is_some() => Input::Committed(result),
            count = inbox.recv_many(&mut requests, TURN), if !*stopping => {
                if count == 0 { Input::Stop } else { Input::Requests(requests) }
            }
            () = std::future::ready(()), if !follow_ups.is_empty() && !*stopping => {
                Input::FollowUps
            }
            () = context.stopping.cancelled(), if !*stopping => Input::Stop,
            Some((key, result)) = loads.next(), if !loads.is_empty() => {
                Input::Loaded(key, result)
            }
            () = async { clock.sleep_until(due.expect("checked")).await }, if due.is_some() => {
                Input::TimerDue
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        if self.stopping {
            return None;
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let deferred = self.deferred.front().map(|(at, _)| *at);
        match (timer, deferred) {
            (Some(timer), Some(deferred)) => Some(timer.min(deferred)),
            (timer, deferred) => timer.or(deferred),
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Start(start) => {
                let key = (start.start.tenant.clone(), start.id);
                let named = start.start.id.is_some() || start.start.idempotency_key.is_some();
                if named || self.slots.contains_key(&key) {
                    self.touch(key, Touch::Start(start));
                } else {
                    // A fresh time-ordered id: the store cannot know it.
                    self.create(*start);
                }
            }
            Request::Reports(reports) => {
                for report in reports {
                    self.report(report);
                }
            }
            Request::Cancel {
                tenant,
                id,
                reason,
                reply,
            } => self.touch((tenant, id), Touch::Cancel(reason, reply)),
            Request::Retry { tenant, id, reply } => self.touch((tenant, id), Touch::Retry(reply)),
        }
    }

    fn report(&mut self, report: Report) {
        let key = (report.attempt.tenant.clone(), report.attempt.execution);
        // An execution that waits for a report is in memory; elsewhere nobody
        // waits for this one.
        if self.slots.contains_key(&key) {
            self.touch(key, Touch::Report(report));
        }
    }

    /// Takes some failures of missing activities in. Not all at once: a
    /// workflow may catch each of them and ask for the next.
    fn follow_up(&mut self) {
        for _ in 0..FOLLOW_UPS {
            let Some(report) = self.follow_ups.pop_front() else {
                return;
            };
            self.report(report);
        }
    }

    /// Commits what is known, then ends.
    fn stop(&mut self) {
        self.stopping = true;
        let dirty = self.slots.iter_mut().filter_map(|(key, slot)| match slot {
            Slot::Live(live) if live.is_dirty() && !live.listed => {
                live.listed = true;
                Some(key.clone())
            }
            _ => None,
        });
        self.urgent.extend(dirty);
    }

    /// Does something to an execution, reading it from the store if need be.
    fn touch(&mut self, key: Key, touch: Touch) {
        match self.slots.remove(&key) {
            Some(Slot::Live(live)) => self.handle(live, touch),
            Some(Slot::Frozen(frozen)) => {
                self.frozen_bytes -= frozen.size();
                match frozen.thaw() {
                    Ok(live) => self.handle(Box::new(live), touch),
                    // Cannot be, but the store has it too.
                    Err(error) => {
                        tracing::error!(execution.id = %key.1, %error, "snapshot does not read");
                        self.load(key, touch);
                    }
                }
            }
            Some(Slot::Loading(mut touches)) => {
                touches.push(touch);
                self.slots.insert(key, Slot::Loading(touches));
            }
            None => self.load(key, touch),
        }
    }

    fn load(&mut self, key: Key, touch: Touch) {
        self.slots.insert(key.clone(), Slot::Loading(vec![touch]));
        self.waiting_loads.push_back(key);
        self.begin_loads();
    }

    fn begin_loads(&mut self) {
        while self.loads.len() < LOADS {
            let Some(key) = self.waiting_loads.pop_front() else {
                return;
            };
            let context = self.context.clone();
            self.loads.push(Box::pin(async move {
                let result = read(&context, &key).await;
                (key, result)
            }));
        }
    }

    fn loaded(&mut self, key: &Key, result: LoadResult) {
        self.begin_loads();
        let Some(Slot::Loading(touches)) = self.slots.remove(key) else {
            return;
        };
        match result {
            Ok(Some(found)) => {
                let (view, tail_bytes) = *found;
                let live = Live::restored(view, tail_bytes);
                self.settle(Box::new(live), true);
                for touch in touches {
                    self.touch(key.clone(), touch);
                }
                self.release_closed(key);
            }
            Ok(None) => {
                for touch in touches {
                    match touch {
                        Touch::Start(start) if !self.slots.contains_key(key) => {
                            self.create(*start);
                        }
                        touch if self.slots.contains_key(key) => self.touch(key.clone(), touch),
                        touch => refuse(touch, None),
                    }
                }
            }
            Err(error) => {
                tracing::error!(execution.id = %key.1, %error, "execution not loaded");
                let sleeps = touches.iter().any(|touch| matches!(touch, Touch::Wake));
                if sleeps && !matches!(error, store::Error::Damaged(_)) {
                    let again = self.context.clock.now().plus(LOAD_AGAIN);
                    self.timers.insert((again, key.clone()));
                }
                for touch in touches {
                    refuse(touch, Some(&error));
                }
            }
        }
    }

    fn create(&mut self, request: StartRequest) {
        let StartRequest {
            id,
            start,
            program: (application_version, program),
            started,
            closed,
        } = request;
        let limit = self
            .context
            .definitions
            .admission(&start.tenant)
            .open_executions;
        let open = self.context.open.of(&start.tenant).load(Ordering::Relaxed);
        if open >= limit {
            let _ = started.send(Err(StartError::TooManyOpen { open, limit }));
            return;
        }
        let summary = Summary {
            tenant: start.tenant,
            id,
            bucket: id.bucket(),
            application: start.application,
            application_version,
            workflow: start.workflow,
            status: StatusName::Running,
            error: None,
            started_at: self.context.clock.now(),
            closed_at: None,
            wake_at: None,
            idle: false,
            version: 0,
        };
        let mut live = Box::new(Live::new(summary, program, start.input.clone()));
        self.count(&live.summary.tenant);
        self.context.started.fetch_add(1, Ordering::Relaxed);
        // Who waits for the end is told of the start when it comes.
        live.urgent = closed.is_none();
        let reply = live.started(true);
        live.held.push(Effect::Started(started, reply));
        live.closers.extend(closed);
        let kind = EventKind::ExecutionStarted {
            input: start.input,
            shards: self.context.settings.filter_shards,
            machine: SEMANTICS,
        };
        self.advance(live, kind);
    }

    fn handle(&mut self, mut live: Box<Live>, touch: Touch) {
        match touch {
            Touch::Start(request) => self.start_again(live, *request),
            Touch::Report(report) => {
                if live.hears(&report.attempt) {
                    self.advance(live, ended(report));
                } else {
                    self.settle(live, false);
                }
            }
            Touch::Cancel(reason, reply) => {
                if live.summary.closed_at.is_some() {
                    live.refuse(|| drop(reply.send(Err(ControlError::AlreadyClosed))));
                    return self.settle(live, false);
                }
                live.urgent = true;
                live.held.push(Effect::Controlled(reply));
                self.advance(live, EventKind::CancelRequested { reason });
            }
            Touch::Retry(reply) => {
                if !can_retry(live.execution()) {
                    live.refuse(|| drop(reply.send(Err(ControlError::NotRetryable))));
                    return self.settle(live, false);
                }
                live.urgent = true;
                live.held.push(Effect::Controlled(reply));
                self.advance(live, EventKind::RetryRequested {});
            }
            Touch::Wake => self.wake(live),
        }
    }

    /// A start of an execution that exists.
    fn start_again(&mut self, mut live: Box<Live>, request: StartRequest) {
        let StartRequest {
            id,
            start,
            started,
            closed,
            ..
        } = request;
        let same = live.summary.application == start.application
            && live.summary.workflow == start.workflow
            && live.has_input(&start.input);
        if !same {
            live.refuse(move || drop(started.send(Err(StartError::KeyReused(id)))));
            return self.settle(live, false);
        }
        let reply = live.started(false);
        if live.summary.version > 0 && live.is_durable() {
            let _ = started.send(Ok(reply));
        } else {
            live.urgent |= live.is_dirty();
            live.held.push(Effect::Started(started, reply));
        }
        // Who asked before may have given up.
        live.closers.retain(|closer| !closer.is_closed());
        live.closers.extend(closed);
        self.settle(live, false);
    }

    fn wake(&mut self, mut live: Box<Live>) {
        let now = self.context.clock.now();
        // Set again by `settle`: further timers that are due wake it at once.
        self.drop_timer(&mut live);
        match live.execution().due_timers(now).first() {
            Some(timer) => {
                let timer = *timer;
                self.advance(live, EventKind::TimerFired { timer });
            }
            None => self.settle(live, false),
        }
    }

    /// Applies an event, and does or holds back what the machine commands.
    fn advance(&mut self, mut live: Box<Live>, kind: EventKind) {
        let was_open = live.summary.version > 0 && live.summary.closed_at.is_none();
        let was_new = live.summary.version == 0;
        let at = self.context.clock.now();
        let commands = match live.apply(at, kind) {
            Ok(commands) => commands,
            Err(error) => {
                // A bug or damage, never a failing workflow. What was
                // committed stays; a restart of the process tries again.
                tracing::error!(
                    tenant.id = %live.summary.tenant,
                    execution.id = %live.summary.id,
                    %error,
                    "an event does not apply; the execution is set aside"
                );
                return self.drop_timer(&mut live);
            }
        };
        for command in commands {
            match command {
                Command::ScheduleActivity(task) => self.schedule(&mut live, task),
                Command::CancelActivity { task, attempt } => live.take_back(task, attempt),
            }
        }
        let counted = was_open || was_new;
        match live.summary.closed_at {
            Some(closed_at) => {
                if counted {
                    self.discount(&live.summary.tenant);
                }
                self.context.closed.fetch_add(1, Ordering::Relaxed);
                let lasted = Duration::from_millis(closed_at.since(live.summary.started_at));
                telemetry::workflow_closed(live.summary.status, lasted);
            }
            None if !counted => self.count(&live.summary.tenant),
            None => {}
        }
        self.settle(live, false);
    }

    /// Sends a pure activity on its way, holds another until its cause is
    /// durable, and fails one that nobody has uploaded.
    fn schedule(&mut self, live: &mut Live, task: ActivityTask) {
        let tenant = &live.summary.tenant;
        let attempt = AttemptKey {
            tenant: tenant.clone(),
            execution: live.summary.id,
            task: task.task,
            attempt: task.attempt,
            scheduled_at: task.scheduled_at,
        };
        let Some(activity) = self.context.definitions.activity(tenant, &task.resource) else {
            self.follow_ups.push_back(Report {
                attempt: attempt.clone(),
                result: Err(activity_not_found(&task)),
                receipt: None,
            });
            return live.ask(attempt);
        };
        let pure = activity.pure;
        let queued = QueuedTask {
            tenant: tenant.clone(),
            execution: live.summary.id,
            application: live.summary.application.clone(),
            workflow: live.summary.workflow.clone(),
            task,
            activity,
        };
        live.ask(attempt);
        if pure {
            self.ready.push(queued);
        } else {
            live.urgent = true;
            live.held.push(Effect::Dispatch(Box::new(queued)));
        }
    }

    /// Decides what becomes of an execution after it was touched. `keep` holds
    /// on to one that has ended, for touches that wait for it.
    fn settle(&mut self, mut live: Box<Live>, keep: bool) {
        self.set_timer(&mut live);
        let closed = live.summary.closed_at.is_some();
        if live.is_dirty() {
            let rests = closed || live.summary.idle || live.uncommitted() >= DEFER_EVENTS;
            if (live.urgent || rests) && !live.listed {
                live.listed = true;
                self.urgent.push(live.key());
            } else if !live.listed && !live.deferred {
                live.deferred = true;
                let at = self.context.clock.now().plus(DEFER);
                self.deferred.push_back((at, live.key()));
            }
        } else if live.is_durable() {
            if closed && !keep {
                return answer_closers(&mut live);
            }
            if !keep && !closed && live.summary.idle && self.freeze(&mut live) {
                return;
            }
        }
        self.slots.insert(live.key(), Slot::Live(live));
    }

    /// Lets go of an execution that has ended and that nothing holds.
    fn release_closed(&mut self, key: &Key) {
        match self.slots.remove(key) {
            Some(Slot::Live(live)) => self.settle(live, false),
            // A touch has put it away already, or reads it once more.
            Some(other) => drop(self.slots.insert(key.clone(), other)),
            None => {}
        }
    }

    /// Puts a sleeping execution away; says whether it did.
    fn freeze(&mut self, live: &mut Live) -> bool {
        let now = self.context.clock.now();
        let naps = live.wake.is_some_and(|at| at.since(now) < SHORT_NAP);
        if naps {
            return false;
        }
        if self.frozen_bytes >= FROZEN_BYTES {
            // The timer stays; the store has the rest, but not who waits.
            live.closers.retain(|closer| !closer.is_closed());
            return live.closers.is_empty();
        }
        match Frozen::freeze(live) {
            Ok(frozen) => {
                self.frozen_bytes += frozen.size();
                self.slots
                    .insert(live.key(), Slot::Frozen(Box::new(frozen)));
                true
            }
            Err(error) => {
                tracing::error!(execution.id = %live.summary.id, %error, "not frozen");
                false
            }
        }
    }

    fn set_timer(&mut self, live: &mut Live) {
        let wake = live
            .summary
            .wake_at
            .filter(|_| live.summary.closed_at.is_none());
        if live.wake != wake {
            self.drop_timer(live);
            if let Some(at) = wake {
                self.timers.insert((at, live.key()));
                live.wake = wake;
            }
        }
    }

    fn drop_timer(&mut self, live: &mut Live) {
        if let Some(at) = live.wake.take() {
            self.timers.remove(&(at, live.key()));
        }
    }

    /// Wakes what is due, and commits what has been deferred long enough.
    fn timers_due(&mut self) {
        let now = self.context.clock.now();
        for _ in 0..TURN {
            let due = self.timers.first().is_some_and(|(at, _)| *at <= now);
            let Some((_, key)) = due.then(|| self.timers.pop_first()).flatten() else {
                break;
            };
            self.touch(key, Touch::Wake);
        }
        while self.deferred.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.deferred.pop_front() else {
                break;
            };
            if let Some(Slot::Live(live)) = self.slots.get_mut(&key) {
                live.deferred = false;
                if live.is_dirty() && !live.listed {
                    live.listed = true;
                    self.urgent.push(key);
                }
            }
        }
    }

    fn release_ready(&mut self) {
        if !self.ready.is_empty() {
            self.context.queue.push(std::mem::take(&mut self.ready));
        }
    }

    fn begin_commit(&mut self) {
        while self.in_flight.is_none() && !self.urgent.is_empty() {
            self.begin_next_commit();
        }
    }

    fn begin_next_commit(&mut self) {
        let rest = self
            .urgent
            .split_off(self.urgent.len().min(COMMIT_EXECUTIONS));
        let keys = std::mem::replace(&mut self.urgent, rest);
        let mut batch: Vec<Commit> = Vec::with_capacity(keys.len());
        for key in &keys {
            if let Some(Slot::Live(live)) = self.slots.get_mut(key) {
                live.listed = false;
                if live.is_dirty() {
                    batch.push(live.take_commit());
                }
            }
        }
        if batch.is_empty() {
            return;
        }
        let store = self.context.store.clone();
        let lease = self.lease.clone();
        self.in_flight = Some(InFlight {
            keys,
            done: Box::pin(async move { store.commit(&lease, batch).await }),
        });
    }

    fn committed(&mut self, result: Result<(), CommitError>) -> Result<(), Fault> {
        let Some(InFlight { keys, .. }) = self.in_flight.take() else {
            return Ok(());
        };
        result?;
        for key in keys {
            match self.slots.remove(&key) {
                Some(Slot::Live(mut live)) => {
                    let effects = live.committed();
                    self.context
                        .watch
                        .committed(&key.0, key.1, live.summary.version);
                    for effect in effects {
                        self.release(effect);
                    }
                    self.settle(live, false);
                }
                Some(other) => {
                    self.slots.insert(key, other);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Lets an effect leave: its cause is durable.
    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Dispatch(task) => self.ready.push(*task),
            Effect::Cancel(attempt) => self.context.queue.cancel(&attempt),
            // Callers may have given up waiting.
            Effect::Started(reply, started) => drop(reply.send(Ok(started))),
            Effect::Controlled(reply) => drop(reply.send(Ok(()))),
            Effect::Refused(answer) => answer(),
        }
    }

    /// Reads what is open, sets the timers, and asks again for every attempt
    /// whose end is not known.
    async fn recover(&mut self) -> Result<(), store::Error> {
        let buckets = buckets(self.lease.shard.0, self.context.settings.shards);
        let (mut open, mut after) = (0_u64, None);
        loop {
            let page = self
                .context
                .store
                .open_executions(buckets.clone(), after, RECOVERY_PAGE)
                .await?;
            open += page.items.len() as u64;
            let mut restless = Vec::new();
            for summary in page.items {
                let key = (summary.tenant, summary.id);
                self.count(&key.0);
                match summary.wake_at {
                    Some(at) if summary.idle => drop(self.timers.insert((at, key))),
                    _ => restless.push(key),
                }
            }
            self.resume(restless).await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if open > 0 {
            tracing::info!(shard.id = self.lease.shard.0, open, "shard recovered");
        }
        Ok(())
    }

    async fn resume(&mut self, keys: Vec<Key>) -> Result<(), store::Error> {
        let context = self.context.clone();
        let mut reads = futures::stream::iter(keys)
            .map(|key| {
                let context = context.clone();
                async move {
                    let result = read(&context, &key).await;
                    (key, result)
                }
            })
            .buffer_unordered(LOADS);
        while let Some((key, result)) = reads.next().await {
            match result {
                Ok(Some(found)) => {
                    let (view, tail_bytes) = *found;
                    let mut live = Box::new(Live::restored(view, tail_bytes));
                    for task in live.execution().pending_tasks(&live.program) {
                        self.schedule(&mut live, task);
                    }
                    // What is asked again has its cause in the store already.
                    for effect in std::mem::take(&mut live.held) {
                        self.release(effect);
                    }
                    live.urgent = false;
                    self.settle(live, false);
                }
                Ok(None) => {}
                Err(store::Error::Damaged(what)) => {
                    tracing::error!(execution.id = %key.1, what, "execution set aside");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The count of open executions is of what a shard holds.
impl Drop for Shard {
    fn drop(&mut self) {
        for (tenant, open) in self.open.drain() {
            self.context
                .open
                .of(&tenant)
                .fetch_sub(open, Ordering::Relaxed);
        }
    }
}

/// Opens a shard again, however often it takes.
async fn reopen(id: ShardId, context: &Arc<Context>) -> Shard {
    loop {
        tokio::time::sleep(RESTART_PAUSE).await;
        let opened = AssertUnwindSafe(Shard::open(id, context.clone())).catch_unwind();
        match opened.await {
            Ok(Ok(shard)) => return shard,
            Ok(Err(error)) => tracing::error!(shard.id = id.0, %error, "shard not recovered"),
            Err(_) => tracing::error!(shard.id = id.0, "shard panicked while it recovered"),
        }
    }
}

/// Whether a retry would go on with something: the machine keeps the frames of
/// what failed or timed out, unless it failed before it had any.
fn can_retry(execution: &Execution) -> bool {
    let failed = matches!(
        execution.status,
        Status::Failed { .. } | Status::TimedOut { .. }
    );
    failed && !execution.frames.is_empty() && execution.version < limits::MAX_EVENTS
}

fn ended(report: Report) -> EventKind {
    let AttemptKey { task, attempt, .. } = report.attempt;
    match report.result {
        Ok(output) => EventKind::ActivityCompleted {
            task,
            attempt,
            output,
            receipt: report.receipt.unwrap_or_default(),
        },
        Err(failure) => EventKind::ActivityFailed {
            task,
            attempt,
            failure,
            receipt: report.receipt,
        },
    }
}

async fn read(context: &Context, key: &Key) -> LoadResult {
    let Some(stored) = context.store.load(&key.0, key.1).await? else {
        return Ok(None);
    };
    let tail_bytes = stored.tail_bytes;
    let view = restore(context, stored).await?;
    Ok(Some(Box::new((view, tail_bytes))))
}

fn answer_closers(live: &mut Live) {
    if let Some(closed) = live.closed() {
        for closer in live.closers.drain(..) {
            // The caller may have given up waiting.
            let _ = closer.send(closed.clone());
        }
    }
}

/// Answers a touch of an execution that is not there, or cannot be read.
fn refuse(touch: Touch, error: Option<&store::Error>) {
    let control = || {
        error.map_or(ControlError::NotFound, |error| {
            ControlError::Store(error.clone())
        })
    };
    match touch {
        Touch::Start(start) => {
            if let Some(error) = error {
                let _ = start.started.send(Err(StartError::Store(error.clone())));
            }
        }
        Touch::Cancel(_, reply) | Touch::Retry(reply) => drop(reply.send(Err(control()))),
        Touch::Report(_) | Touch::Wake => {}
    }
}

fn activity_not_found(task: &ActivityTask) -> ActivityFailure {
    ActivityFailure {
        error: "ActivityNotFound".to_owned(),
        message: format!(
            "no activity `{}` has been uploaded; push it with `cascade activity push`",
            task.resource
        ),
        retryable: None,
        details: None,
    }
}
