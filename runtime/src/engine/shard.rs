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

mod advance;
mod commit;
mod control;
mod load;
mod park;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cascade_cdl::plan::Plan;
use cascade_cdl::program::Program;
use cascade_cdl::{Callback, ExecutionId, TaskToken, TenantId, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::asked::list_old;
use super::children::Ask;
use super::live::{Away, Frozen, Key, Live, Restored};
use super::owners::Seat;
use super::placing::Turn;
use super::usage::{Charge, Holding, Place};
use super::{
    Admission, Answer, Closed, Context, ControlError, Report, Signal, Start, StartError, Started,
};
use crate::dispatch::QueuedTask;
use crate::places::Place as Room;
use crate::store::{self, CommitError, Lease};
use crate::telemetry;

/// Requests handled between two looks at the other inputs: a few milliseconds.
const TURN: usize = 256;

/// Executions in one commit; beyond it they wait for the next, which keeps the
/// time of one commit, and so the latency, bounded.
const COMMIT_EXECUTIONS: usize = 1_024;

/// A commit takes no further execution at this many bytes, for the same reason:
/// SQLite writes them in some milliseconds.
const COMMIT_BYTES: usize = 512 << 10;

/// Bytes of one tenant in a commit while executions of others wait: however much
/// one has to write, what others have goes with the next commit.
const COMMIT_TENANT_BYTES: usize = COMMIT_BYTES / 4;

/// A commit from this size on is encoded on another thread: below it, handing
/// it over costs as much as encoding it.
const SPAWN_BYTES: usize = 256 << 10;

/// How long events that nobody waits for may stay uncommitted: longer than a
/// chain of pure activities usually takes, shorter than a person notices.
const DEFER: Duration = Duration::from_millis(100);

/// Events of one execution that may stay uncommitted.
const DEFER_EVENTS: usize = 64;

/// The same in bytes, beyond which pure activities wait for the commit as well.
const DEFER_BYTES: usize = 1 << 20;

/// Executions that may wait for a commit before no more requests are taken in:
/// as many as some commits write.
const URGENT: usize = 8 * COMMIT_EXECUTIONS;

/// An execution that sleeps at least so long leaves the live set.
const SHORT_NAP: u64 = 1_000;

/// Executions of which recovery reads so many rows at a time.
const RECOVERY_PAGE: u32 = 1_000;

/// Loads at a time during recovery and when sleepers wake.
const LOADS: usize = 16;

/// Executions that may wait to be loaded before no more requests are taken in
/// and no more sleepers woken: some tens of milliseconds.
const WAITING_LOADS: usize = 1_024;

/// Failures of missing activities taken in between two looks at the other inputs.
const FOLLOW_UPS: usize = 32;

/// Pause before an execution that could not be read is woken again.
const LOAD_AGAIN: u64 = 1_000;

/// Pause before a shard that failed starts again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What callers ask of a shard.
pub(super) enum Request {
    Start(Box<StartRequest>),
    Reports(Vec<Report>, ReportPermit),
    Control(Box<ControlRequest>),
}

/// What somebody wants done to an execution.
pub(super) struct ControlRequest {
    pub(super) tenant: TenantId,
    pub(super) id: ExecutionId,
    pub(super) control: Control,
    pub(super) place: Place,
    pub(super) reply: oneshot::Sender<Result<(), ControlError>>,
}

/// The kinds of it.
pub(super) enum Control {
    Cancel(String),
    Retry,
    Pause(String),
    Resume,
    Signal(Signal),
    Migrate(Move),
    Answer {
        answer: Answer,
        /// Whether it was held against the schema of the state that asks.
        is_checked: bool,
    },
    Callback {
        token: TaskToken,
        callback: Callback,
    },
}

/// A move to another version of the application that was found safe.
pub(super) struct Move {
    pub(super) version: u32,
    pub(super) plan: Arc<Plan>,
    /// Number of events of the execution that was judged.
    pub(super) judged: u64,
}

/// Stands for the bytes of some reports, if they are many, until all of these
/// have been taken in.
pub(super) type ReportPermit = Option<Arc<OwnedSemaphorePermit>>;

/// A start, resolved.
pub(super) struct StartRequest {
    pub(super) id: ExecutionId,
    pub(super) start: Start,
    pub(super) program: (u32, Arc<Program>),
    /// Why nothing new may be started.
    pub(super) refusal: Option<StartError>,
    /// What it is placed by; its bucket is one of this shard if it is started anew.
    pub(super) shard_key: Option<Arc<str>>,
    pub(super) admission: Admission,
    pub(super) place: Place,
    /// What the input takes until it is counted with the execution.
    pub(super) room: Option<Arc<Room>>,
    /// Keeps other starts of it away until this one is durable or refused.
    pub(super) turn: Option<Turn>,
    pub(super) started: oneshot::Sender<Result<Started, StartError>>,
    pub(super) closed: Option<oneshot::Sender<Closed>>,
}

/// What is done to one execution.
enum Touch {
    Start(Box<StartRequest>),
    Report(Report, ReportPermit),
    Control(Box<ControlRequest>),
    Wake,
    /// There is memory for it: what it waits for can be asked for.
    Resume,
}

/// An execution as the shard remembers it.
enum Slot {
    Live(Box<Live>),
    Frozen(Box<Frozen>),
    /// In the store only.
    Away(Box<Away>),
    /// Being read from the store; what arrives meanwhile waits here.
    Loading(Vec<Touch>, Option<Box<Away>>),
}

/// What a shard waits for.
enum Input {
    Requests(Vec<Request>),
    Committed(Result<(), CommitError>),
    Loaded(Key, LoadResult),
    TimerDue,
    DeferralOver,
    FollowUps,
    Stop,
}

/// Why a shard drops its memory.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("commit: {0}")]
    Commit(#[from] CommitError),
    #[error("its lease has ended")]
    Expired,
    #[error("the shard panicked")]
    Panic,
}

/// An execution, if it is there.
type LoadResult = Result<Option<Box<Restored>>, store::Error>;

type Load = BoxFuture<'static, (Key, LoadResult)>;

pub(super) struct Shard {
    context: Arc<Context>,
    seat: Seat,
    lease: Lease,
    slots: HashMap<Key, Slot>,
    frozen_bytes: usize,
    timers: BTreeSet<(Timestamp, Key)>,
    /// Executions to commit next.
    urgent: Vec<Key>,
    /// Executions to commit at the latest then, in order of time.
    deferred: VecDeque<(Duration, Key)>,
    /// Memory of executions that wait for a commit.
    unsettled: u64,
    in_flight: Option<InFlight>,
    /// Tasks whose cause is durable, or that are pure.
    ready: Vec<QueuedTask>,
    /// Failures of activities that are not there, to be taken in like reports.
    follow_ups: VecDeque<Report>,
    loads: FuturesUnordered<Load>,
    waiting_loads: VecDeque<Key>,
    /// Executions with attempts that are asked for when there is memory.
    parked: BTreeMap<TenantId, BTreeSet<ExecutionId>>,
    /// How often parked executions were looked at.
    resumed: usize,
    /// What each tenant has of this shard.
    holdings: HashMap<TenantId, Arc<Holding>>,
    stopping: bool,
}

struct InFlight {
    since: Duration,
    keys: Vec<Key>,
    done: BoxFuture<'static, Result<(), CommitError>>,
}

impl Shard {
    /// Reads what is open of a shard that has been taken.
    pub(super) async fn open(
        seat: Seat,
        lease: Lease,
        context: Arc<Context>,
    ) -> Result<Self, store::Error> {
        list_old(&context, &seat.buckets).await?;
        let mut shard = Self {
            context,
            seat,
            lease,
            slots: HashMap::new(),
            frozen_bytes: 0,
            timers: BTreeSet::new(),
            urgent: Vec::new(),
            deferred: VecDeque::new(),
            unsettled: 0,
            in_flight: None,
            ready: Vec::new(),
            follow_ups: VecDeque::new(),
            loads: FuturesUnordered::new(),
            waiting_loads: VecDeque::new(),
            parked: BTreeMap::new(),
            resumed: 0,
            holdings: HashMap::new(),
            stopping: false,
        };
        shard.recover().await?;
        Ok(shard)
    }

    /// Serves until it is told to stop; after a fault, from the store again.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let seat = self.seat.clone();
        loop {
            let fault = tokio::select! {
                served = AssertUnwindSafe(self.serve(&mut inbox)).catch_unwind() => match served {
                    Ok(Ok(())) => break,
                    Ok(Err(fault)) => fault,
                    Err(_) => Fault::Panic,
                },
                () = seat.lost.cancelled() => Fault::Expired,
            };
            let id = seat.shard;
            if let Fault::Commit(CommitError::LeaseLost { .. }) | Fault::Expired = fault {
                // Somebody else moves these executions on now.
                tracing::warn!(shard.id = id.0, %fault, "shard stops");
                telemetry::lease_lost();
                break;
            }
            tracing::error!(shard.id = id.0, %fault, "shard starts again from the store");
            // Callers learn at once that their answer is lost. The old count of
            // open executions goes only with the old shard, so that it is never
            // too low meanwhile.
            self.slots.clear();
            let context = self.context.clone();
            let fresh = tokio::select! {
                fresh = load::reopen(&seat, &context) => fresh,
                () = seat.closing.cancelled() => None,
                () = seat.lost.cancelled() => None,
            };
            match fresh {
                Some(fresh) => self = fresh,
                None => break,
            }
        }
        self.leave_to_others(inbox);
    }

    /// What waits is for whoever has the shard next.
    fn leave_to_others(mut self, mut inbox: mpsc::Receiver<Request>) {
        let Seat { buckets, node, .. } = &self.seat;
        if node.is_none() {
            return; // nobody else is there
        }
        let bucket = buckets.start;
        drop(self.context.children.send(Ask::Left(buckets.clone())));
        inbox.close();
        while let Ok(request) = inbox.try_recv() {
            match request {
                Request::Start(start) => turn_away(Touch::Start(start), bucket),
                Request::Control(control) => turn_away(Touch::Control(control), bucket),
                Request::Reports(..) => {}
            }
        }
        for (_, slot) in self.slots.drain() {
            match slot {
                Slot::Loading(touches, _) => {
                    for touch in touches {
                        turn_away(touch, bucket);
                    }
                }
                // They are asked for again. What runs is let run: if it were cancelled, and
                // the shard came back meanwhile, it would count as having failed.
                Slot::Live(live) => {
                    for attempt in live.asked() {
                        self.context.queue.withdraw(attempt);
                    }
                }
                Slot::Away(away) => {
                    for attempt in away.asked() {
                        self.context.queue.withdraw(attempt);
                    }
                }
                Slot::Frozen(_) => {}
            }
        }
    }

    /// What a tenant has of this shard.
    fn holding(&mut self, tenant: &TenantId) -> &Arc<Holding> {
        if !self.holdings.contains_key(tenant) {
            let usage = self.context.usages.of(tenant);
            let admission = self.context.definitions.admission(tenant);
            let open = self.seat.vitals.clone();
            let holding = Holding::new(usage, self.share(&admission), open);
            self.holdings.insert(tenant.clone(), Arc::new(holding));
        }
        &self.holdings[tenant]
    }

    fn charge(&mut self, tenant: &TenantId) -> Charge {
        Charge::new(self.holding(tenant).clone())
    }

    /// This shard's share of a tenant's memory: ids are spread evenly.
    fn share(&self, admission: &Admission) -> u64 {
        let shards = u64::from(self.context.settings.shards);
        (admission.open_bytes / shards).max(1)
    }

    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Request>) -> Result<(), Fault> {
        loop {
            self.resume_parked();
            self.release_ready();
            self.begin_commit();
            self.begin_loads();
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
                Input::DeferralOver => self.commit_deferred(),
                Input::FollowUps => self.follow_up(),
                Input::Stop => self.stop(),
            }
        }
    }

    async fn next(&mut self, inbox: &mut mpsc::Receiver<Request>) -> Input {
        let open = self.takes_more();
        let due = self.timers.first().map(|(at, _)| *at);
        let over = self.deferred.front().map(|(at, _)| *at);
        let Self {
            context,
            seat,
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
            count = inbox.recv_many(&mut requests, TURN), if open => {
                if count == 0 { Input::Stop } else { Input::Requests(requests) }
            }
            () = std::future::ready(()), if open && !follow_ups.is_empty() => Input::FollowUps,
            () = seat.closing.cancelled(), if !*stopping => Input::Stop,
            Some((key, result)) = loads.next(), if !loads.is_empty() => {
                Input::Loaded(key, result)
            }
            () = async { clock.sleep_until(due.expect("checked")).await },
                if open && due.is_some() => Input::TimerDue,
            () = async { clock.sleep_until_passed(over.expect("checked")).await },
                if !*stopping && over.is_some() => Input::DeferralOver,
        }
    }

    /// Whether requests, reports and timers are taken in. If not, a commit is in
    /// flight or something loads, and the end of that lets more come in.
    fn takes_more(&self) -> bool {
        !self.stopping
            && !self.is_choked()
            && self.urgent.len() < URGENT
            && self.waiting_loads.len() < WAITING_LOADS
    }

    /// Whether too much waits for a commit.
    fn is_choked(&self) -> bool {
        self.unsettled >= self.context.settings.unsettled_bytes
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
            Request::Reports(reports, permit) => {
                for report in reports {
                    self.report(report, permit.clone());
                }
            }
            Request::Control(request) => {
                self.touch(
                    (request.tenant.clone(), request.id),
                    Touch::Control(request),
                );
            }
        }
    }

    fn report(&mut self, report: Report, permit: ReportPermit) {
        let key = (report.attempt.tenant.clone(), report.attempt.execution);
        // A shard knows the executions that wait for a report; no other waits
        // for this one.
        if self.slots.contains_key(&key) {
            self.touch(key, Touch::Report(report, permit));
        }
    }

    /// Takes some failures of missing activities in. Not all at once: a
    /// workflow may catch each of them and ask for the next.
    fn follow_up(&mut self) {
        for _ in 0..FOLLOW_UPS {
            let Some(report) = self.follow_ups.pop_front() else {
                return;
            };
            self.report(report, None);
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
                let charge = self.charge(&key.0);
                match frozen.thaw(charge) {
                    Ok(live) => self.handle(Box::new(live), touch),
                    // Cannot be, but the store has it too.
                    Err(error) => {
                        tracing::error!(execution.id = %key.1, %error, "snapshot does not read");
                        self.load(key, touch, None);
                    }
                }
            }
            Some(Slot::Away(away)) => self.load(key, touch, Some(away)),
            Some(Slot::Loading(mut touches, away)) => {
                touches.push(touch);
                self.slots.insert(key, Slot::Loading(touches, away));
            }
            None => self.load(key, touch, None),
        }
    }

    /// Decides what becomes of an execution after it was touched. `keep` holds
    /// on to one that has ended, for touches that wait for it.
    fn settle(&mut self, mut live: Box<Live>, keep: bool) {
        self.set_timer(&mut live);
        self.count_unsettled(&mut live);
        let closed = live.summary.closed_at.is_some();
        if live.is_dirty() {
            let rests = closed
                || live.summary.idle
                || live.parked
                || live.uncommitted() >= DEFER_EVENTS
                || live.uncommitted_bytes() >= DEFER_BYTES;
            if (live.urgent || rests) && !live.listed {
                live.listed = true;
                self.urgent.push(live.key());
            } else if !live.listed && !live.deferred {
                live.deferred = true;
                let at = self.context.clock.passed() + DEFER;
                self.deferred.push_back((at, live.key()));
            }
        } else if live.is_durable() && !keep {
            if closed {
                return answer_closers(&mut live);
            }
            match self.leave(live) {
                Some(stays) => live = stays,
                None => return,
            }
        }
        self.slots.insert(live.key(), Slot::Live(live));
    }

    /// Counts what waits for a commit.
    fn count_unsettled(&mut self, live: &mut Live) {
        let unsettled = if live.is_durable() { 0 } else { live.memory() };
        self.unsettled = self.unsettled + unsettled - live.unsettled;
        live.unsettled = unsettled;
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

    /// Wakes what is due.
    fn timers_due(&mut self) {
        let now = self.context.clock.now();
        for _ in 0..TURN {
            let due = self.timers.first().is_some_and(|(at, _)| *at <= now);
            let Some((_, key)) = due.then(|| self.timers.pop_first()).flatten() else {
                break;
            };
            self.touch(key, Touch::Wake);
        }
    }

    /// Commits what has been deferred long enough; all of it if too much waits.
    fn commit_deferred(&mut self) {
        let now = self.context.clock.passed();
        let all = self.is_choked();
        while self
            .deferred
            .front()
            .is_some_and(|(at, _)| all || *at <= now)
        {
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
}

/// Tells who asks for something that another process has the shard, or will have it soon.
fn turn_away(touch: Touch, bucket: u32) {
    match touch {
        Touch::Start(start) => drop(start.started.send(Err(StartError::Elsewhere { bucket }))),
        Touch::Control(request) => {
            drop(request.reply.send(Err(ControlError::Elsewhere { bucket })));
        }
        Touch::Report(..) | Touch::Wake | Touch::Resume => {}
    }
}

fn answer_closers(live: &mut Live) {
    if let Some(closed) = live.closed() {
        for closer in live.closers.drain(..) {
            // The caller may have given up waiting.
            let _ = closer.send(closed.clone());
        }
    }
}
