//! Executions in the memory of a shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_cdl::plan::Plan;
use cascade_cdl::program::Program;
use cascade_cdl::{
    ActivityTask, ApplyError, Callback, Event, EventKind, Execution, ExecutionId, Json, Status,
    TaskId, TenantId, Timestamp, Transition, apply, migrate,
};
use tokio::sync::oneshot;

use super::asked::{Asked, asked, changes};
use super::children::ChildStart;
use super::moves::{self, Versions};
use super::placing::Turn;
use super::size::{self, Walked};
use super::usage::{Charge, Holding};
use super::{Closed, Context, ControlError, StartError, Started, View};
use crate::dispatch::{AttemptKey, QueuedTask};
use crate::store::{self, Commit, PAGE_BYTES, StatusName, Stored, Summary};

/// The history in an execution's row moves out into a chunk, and a snapshot is
/// taken, beyond this size. An update rewrites the row, so the row must stay
/// small; a snapshot costs a few KiB, so it must stay rare.
const SNAPSHOT_TAIL_BYTES: usize = 16 * 1024;

/// The same by number of events: what recovery may have to replay.
const SNAPSHOT_TAIL_EVENTS: u64 = 100;

/// What an event's envelope takes beside its payload, in bytes, roughly.
const EVENT_OVERHEAD: usize = 120;

/// What is kept of an execution that is not in memory but whose attempts wait,
/// in bytes, roughly.
const AWAY_BYTES: u64 = 512;

/// A replay for the engine gives way to what else its thread has to do this often.
const REPLAY_TURN: Duration = Duration::from_millis(1);

/// Which execution: ids are chosen by clients, so they name one only together
/// with the tenant.
pub(super) type Key = (TenantId, ExecutionId);

/// What must not leave before the events that caused it are durable.
pub(super) enum Effect {
    /// An activity with capabilities.
    Dispatch(Box<QueuedTask>),
    /// A child to start.
    Child(Box<ChildStart>),
    /// Nobody waits for an attempt any more.
    Cancel(AttemptKey),
    /// The same, of what an earlier life of the shard may have started as a child.
    Orphan(TenantId, ExecutionId),
    /// The answer to a start that is being waited for, and its turn.
    Started(
        oneshot::Sender<Result<Started, StartError>>,
        Started,
        Option<Turn>,
    ),
    /// The answer to what was done to it.
    Controlled(oneshot::Sender<Result<(), ControlError>>),
    /// An answer that rests on what the execution is by now.
    Tell(Box<dyn FnOnce() + Send>),
}

/// An execution that moves.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of one list of the shard whether it is in it; all combinations occur"
)]
pub(super) struct Live {
    /// The row as of the last event.
    pub(super) summary: Summary,
    pub(super) program: Arc<Program>,
    input: Json,
    /// `None` only while an event is applied.
    execution: Option<Execution>,
    /// Events that no commit has taken yet.
    events: Vec<Event>,
    /// Size of what they carry, and of what the commit in flight does.
    event_bytes: usize,
    flight_bytes: usize,
    /// What it asks people, as of the last commit that was taken.
    asked_then: Asked,
    /// Whether it is found otherwise than as of that commit.
    retagged: bool,
    /// Version that is durable.
    committed: u64,
    /// Version that the commit in flight makes durable.
    in_flight: Option<u64>,
    tail_bytes: usize,
    tail_events: u64,
    /// Effects of `events`.
    pub(super) held: Vec<Effect>,
    /// Effects of the commit in flight.
    releasing: Vec<Effect>,
    /// Who wants to be told when it ends.
    pub(super) closers: Vec<oneshot::Sender<Closed>>,
    /// Attempts that have been asked for and not been heard of.
    asked: Vec<AttemptKey>,
    /// It waits for attempts that are yet to be asked for: see `shard/park.rs`.
    pub(super) parked: bool,
    /// Somebody waits for `events` to become durable.
    pub(super) urgent: bool,
    /// Listed for a commit, or for one a little later.
    pub(super) listed: bool,
    pub(super) deferred: bool,
    /// What the shard's timers hold for it.
    pub(super) wake: Option<Timestamp>,
    walked: Walked,
    /// The memory that it takes.
    charge: Charge,
    /// How much of it the shard counts as waiting for a commit.
    pub(super) unsettled: u64,
}

/// An execution that was read.
pub(super) struct Restored {
    view: View,
    tail_bytes: usize,
    tail_events: u64,
}

impl Restored {
    /// How it stands.
    pub(super) fn view(&self) -> &View {
        &self.view
    }
}

impl Live {
    /// An execution before its first event.
    pub(super) fn new(
        summary: Summary,
        program: Arc<Program>,
        input: Json,
        charge: Charge,
    ) -> Self {
        let execution = Execution::new(summary.id, summary.tenant.clone());
        Self::with(summary, program, input, execution, charge)
    }

    /// An execution as it was committed.
    pub(super) fn restored(restored: Restored, charge: Charge) -> Self {
        let Restored {
            view,
            tail_bytes,
            tail_events,
        } = restored;
        let View {
            summary,
            input,
            execution,
            program,
        } = view;
        let mut live = Self::with(summary, program, input, execution, charge);
        live.tail_bytes = tail_bytes;
        live.tail_events = tail_events;
        live.measure();
        live
    }

    fn with(
        summary: Summary,
        program: Arc<Program>,
        input: Json,
        execution: Execution,
        charge: Charge,
    ) -> Self {
        Self {
            input,
            asked_then: asked(&summary, &execution, &program),
            retagged: false,
            committed: execution.version,
            execution: Some(execution),
            summary,
            program,
            walked: Walked::default(),
            charge,
            unsettled: 0,
            parked: false,
            event_bytes: 0,
            flight_bytes: 0,
            events: Vec::new(),
            in_flight: None,
            tail_bytes: 0,
            tail_events: 0,
            held: Vec::new(),
            releasing: Vec::new(),
            closers: Vec::new(),
            asked: Vec::new(),
            urgent: false,
            listed: false,
            deferred: false,
            wake: None,
        }
    }

    /// The execution as of the last event.
    pub(super) fn execution(&self) -> &Execution {
        self.execution
            .as_ref()
            .expect("only `apply` takes it, and gives it back or drops the whole")
    }

    /// Which execution this is.
    pub(super) fn key(&self) -> Key {
        (self.summary.tenant.clone(), self.summary.id)
    }

    /// Applies what happened; gives back what the machine commands.
    pub(super) fn apply(
        &mut self,
        at: Timestamp,
        kind: EventKind,
    ) -> Result<Vec<cascade_cdl::Command>, ApplyError> {
        let (execution, event) = self.next(at, kind);
        if matches!(event.kind, EventKind::RetryRequested {}) {
            // Set again if it ends at once.
            self.summary.closed_at = None;
        }
        let transition = apply(&self.program, execution, &event)?;
        Ok(self.applied(event, transition))
    }

    /// Goes on under another version of its application, as `plan` says.
    pub(super) fn migrate(
        &mut self,
        at: Timestamp,
        version: u32,
        plan: &Plan,
    ) -> Result<Vec<cascade_cdl::Command>, ApplyError> {
        let kind = EventKind::ExecutionMigrated {
            from: self.summary.application_version,
            to: version,
            states: plan.renamed().clone(),
        };
        let (execution, event) = self.next(at, kind);
        let transition = migrate(plan, execution, &event, &mut |_| ())?;
        self.program = Arc::clone(plan.program());
        self.summary.application_version = version;
        Ok(self.applied(event, transition))
    }

    /// The execution as it stands, and the event that comes next.
    fn next(&mut self, at: Timestamp, kind: EventKind) -> (Execution, Event) {
        let execution = self.execution.take().expect("see `execution`");
        let seq = execution.version + 1;
        (execution, Event { seq, at, kind })
    }

    fn applied(&mut self, event: Event, transition: Transition) -> Vec<cascade_cdl::Command> {
        let at = event.at;
        let bytes = event_len(&event);
        self.tail_bytes += bytes;
        self.tail_events += 1;
        self.event_bytes += bytes;
        self.execution = Some(transition.execution);
        self.events.push(event);
        self.summarise(at);
        self.measure();
        transition.commands
    }

    /// Counts the memory that it takes now.
    fn measure(&mut self) {
        let execution = self.execution.as_ref().expect("put back by the caller");
        let memory = self.walked.measure(execution) + self.input.len() as u64;
        let events = (self.event_bytes + self.flight_bytes) as u64;
        self.charge.set(memory + events);
    }

    fn summarise(&mut self, at: Timestamp) {
        let execution = self.execution.as_ref().expect("put back by the caller");
        let summary = &mut self.summary;
        summary.version = execution.version;
        summary.started_at = execution.started_at;
        summary.wake_at = execution.wake_at();
        summary.idle = execution.is_idle();
        let tags = summary.tags.as_deref();
        if tags.map_or(!execution.tags.is_empty(), |tags| *tags != execution.tags) {
            let tags = Some(&execution.tags).filter(|tags| !tags.is_empty());
            summary.tags = tags.cloned().map(Arc::new);
            self.retagged = true;
        }
        let (status, error) = name(execution);
        summary.status = status;
        summary.error = error.map(str::to_owned);
        if !execution.is_closed() {
            summary.closed_at = None;
        } else if summary.closed_at.is_none() {
            summary.closed_at = Some(at);
        }
    }

    /// Notes an attempt that is asked for.
    pub(super) fn ask(&mut self, attempt: AttemptKey) {
        self.asked.push(attempt);
    }

    /// Attempts that have been asked for and not been heard of.
    pub(super) fn asked(&self) -> &[AttemptKey] {
        &self.asked
    }

    /// Whether nothing new begins.
    pub(super) fn is_paused(&self) -> bool {
        self.execution().paused.is_some()
    }

    /// Whether it is paused and nothing of it runs: it needs no memory until it is resumed.
    pub(super) fn rests(&self) -> bool {
        self.is_paused() && self.asked.is_empty()
    }

    /// The attempts that it waits for and that have not been asked for; none while
    /// it is paused, so that what a crash or a full queue kept from running waits.
    pub(super) fn unasked(&self) -> Vec<ActivityTask> {
        if self.is_paused() {
            return Vec::new();
        }
        let mut pending = self.execution().pending_tasks(&self.program);
        let asked = |task: &ActivityTask| {
            let is = |key: &AttemptKey| key.task == task.task && key.attempt == task.attempt;
            self.asked.iter().any(is)
        };
        pending.retain(|task| !asked(task));
        pending
    }

    /// Whether this report is of an attempt that the execution waits for; it
    /// does not wait for it any more then. Whether it has been asked for does
    /// not matter: an earlier life of the shard may have.
    pub(super) fn hears(&mut self, attempt: &AttemptKey) -> bool {
        if let Some(index) = self.asked.iter().position(|asked| asked == attempt) {
            self.asked.swap_remove(index);
        }
        let AttemptKey {
            task,
            attempt,
            scheduled_at,
            ..
        } = *attempt;
        self.execution().awaits_since(task, attempt, scheduled_at)
    }

    /// Takes an attempt back: the effect that has not left is dropped, one that
    /// has is followed by its cancellation. One that this life of the shard has
    /// not sent off may be a child that an earlier one has.
    pub(super) fn take_back(&mut self, task: TaskId, attempt: u32) {
        let is = |key: &AttemptKey| key.task == task && key.attempt == attempt;
        let (mut left, mut orphan) = (true, false);
        self.held.retain(|effect| {
            let (stays, child) = match effect {
                Effect::Dispatch(queued) => (!is(&queued.key()), false),
                Effect::Child(child) => (!is(&child.attempt), true),
                _ => (true, false),
            };
            left &= stays;
            orphan |= child && !stays;
            stays
        });
        match self.asked.iter().position(is) {
            Some(index) => {
                let key = self.asked.swap_remove(index);
                if left {
                    self.held.push(Effect::Cancel(key));
                }
            }
            None => orphan = true,
        }
        if orphan {
            let child = ExecutionId::of_child(self.summary.id, task, attempt);
            let tenant = self.summary.tenant.clone();
            self.held.push(Effect::Orphan(tenant, child));
        }
    }

    /// Takes back what no worker has begun, to be asked for when it is resumed.
    /// `withdraw` says whether an attempt that has left was taken back.
    pub(super) fn withdraw(&mut self, mut withdraw: impl FnMut(&AttemptKey) -> bool) {
        let mut stayed = Vec::new();
        for effects in [&mut self.held, &mut self.releasing] {
            effects.retain(|effect| match effect {
                Effect::Dispatch(queued) => {
                    stayed.push(queued.key());
                    false
                }
                Effect::Child(child) => {
                    stayed.push(child.attempt.clone());
                    false
                }
                _ => true,
            });
        }
        self.asked
            .retain(|key| !stayed.contains(key) && !withdraw(key));
    }

    /// Answers what changes nothing, once that on which the answer rests is durable.
    pub(super) fn tell(&mut self, answer: impl FnOnce() + Send + 'static) {
        if self.is_durable() {
            answer();
        } else {
            self.urgent |= self.is_dirty();
            self.held.push(Effect::Tell(Box::new(answer)));
        }
    }

    /// Whether there are events that no commit has taken.
    pub(super) fn is_dirty(&self) -> bool {
        !self.events.is_empty()
    }

    /// Number of events that no commit has taken.
    pub(super) fn uncommitted(&self) -> usize {
        self.events.len()
    }

    /// Size of what they carry.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.event_bytes
    }

    /// Memory that it is counted with.
    pub(super) fn memory(&self) -> u64 {
        self.charge.bytes()
    }

    /// What its tenant has of the shard.
    pub(super) fn holding(&self) -> &Holding {
        self.charge.holding()
    }

    /// Whether all that happened is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.committed == self.summary.version
    }

    /// Takes the events for a commit.
    pub(super) fn take_commit(&mut self) -> Commit {
        let expected = self.in_flight.unwrap_or(self.committed);
        self.in_flight = Some(self.summary.version);
        self.flight_bytes = std::mem::take(&mut self.event_bytes);
        self.releasing.append(&mut self.held);
        self.urgent = false;
        let snapshot = self.spills().then(|| {
            self.tail_bytes = 0;
            self.tail_events = 0;
            Box::new(self.execution().clone())
        });
        let asks = asked(&self.summary, self.execution(), &self.program);
        let tasks = changes(&self.asked_then, &asks);
        self.asked_then = asks;
        Commit {
            summary: self.summary.clone(),
            expected,
            events: std::mem::take(&mut self.events),
            snapshot,
            tasks,
            retag: std::mem::take(&mut self.retagged),
        }
    }

    /// Whether the next commit takes a snapshot along. What has ended for good
    /// is not read again to go on with it, so it needs none.
    fn spills(&self) -> bool {
        let long = self.tail_bytes > SNAPSHOT_TAIL_BYTES || self.tail_events > SNAPSHOT_TAIL_EVENTS;
        let goes_on = match self.summary.status {
            StatusName::Running | StatusName::Paused => true,
            StatusName::Failed | StatusName::TimedOut => !self.execution().frames.is_empty(),
            StatusName::Completed | StatusName::Cancelled => false,
        };
        long && goes_on
    }

    /// Size of the next commit, roughly, in bytes.
    pub(super) fn commit_bytes(&self) -> usize {
        let snapshot = if self.spills() {
            size::text(self.execution())
        } else {
            0
        };
        self.event_bytes + snapshot
    }

    /// The commit in flight is durable: gives back the effects that may leave.
    pub(super) fn committed(&mut self) -> Vec<Effect> {
        if let Some(version) = self.in_flight.take() {
            self.committed = version;
        }
        self.flight_bytes = 0;
        if self.summary.closed_at.is_none() {
            self.measure();
        }
        let mut effects = std::mem::take(&mut self.releasing);
        if self.events.is_empty() {
            // Held meanwhile, but not by any new event.
            effects.append(&mut self.held);
        }
        effects
    }

    /// The answer to who starts it.
    pub(super) fn started(&self, created: bool) -> Started {
        Started {
            id: self.summary.id,
            created,
            application_version: self.summary.application_version,
            started_at: self.summary.started_at,
        }
    }

    /// How it ended, if it has.
    pub(super) fn closed(&self) -> Option<Closed> {
        let at = self.summary.closed_at?;
        let status = self.execution().status.clone();
        let version = self.summary.version;
        Some(Closed {
            status,
            at,
            version,
        })
    }

    /// Whether the execution was started with this input.
    pub(super) fn has_input(&self, input: &Json) -> bool {
        self.input == *input || self.input.to_value() == input.to_value()
    }
}

/// An execution that sleeps: its snapshot as bytes, a quarter of the size.
pub(super) struct Frozen {
    summary: Summary,
    program: Arc<Program>,
    input: Json,
    snapshot: Box<[u8]>,
    tail_bytes: usize,
    tail_events: u64,
    wake: Option<Timestamp>,
    closers: Vec<oneshot::Sender<Closed>>,
}

impl Frozen {
    /// Freezes an execution whose events are all durable.
    pub(super) fn freeze(live: &mut Live) -> Result<Self, serde_json::Error> {
        debug_assert!(live.is_durable(), "what is frozen has nothing to commit");
        Ok(Self {
            snapshot: serde_json::to_vec(live.execution())?.into(),
            summary: live.summary.clone(),
            program: live.program.clone(),
            input: live.input.clone(),
            tail_bytes: live.tail_bytes,
            tail_events: live.tail_events,
            wake: live.wake,
            closers: std::mem::take(&mut live.closers),
        })
    }

    /// The execution as it was.
    pub(super) fn thaw(self, charge: Charge) -> Result<Live, serde_json::Error> {
        let execution = serde_json::from_slice(&self.snapshot)?;
        let mut live = Live::with(self.summary, self.program, self.input, execution, charge);
        live.measure();
        live.tail_bytes = self.tail_bytes;
        live.tail_events = self.tail_events;
        live.wake = self.wake;
        live.closers = self.closers;
        Ok(live)
    }

    /// Memory that it takes, in bytes, roughly.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.snapshot.len() + self.input.len()
    }
}

/// What a shard keeps of an execution that only the store has.
pub(super) struct Away {
    /// Attempts that have been asked for and not been heard of.
    asked: Vec<AttemptKey>,
    closers: Vec<oneshot::Sender<Closed>>,
    charge: Charge,
}

impl Away {
    /// An execution that this shard has not read yet.
    pub(super) fn unread(charge: Charge) -> Self {
        Self {
            asked: Vec::new(),
            closers: Vec::new(),
            charge,
        }
    }

    /// Lets go of an execution whose events are all durable. What it has asked
    /// for waits in the queue with its input, which therefore still counts.
    pub(super) fn leave(mut live: Live) -> Self {
        debug_assert!(live.is_durable(), "what leaves has nothing to commit");
        let inputs = if live.asked.is_empty() {
            0
        } else {
            AWAY_BYTES + size::inputs(live.execution())
        };
        live.charge.set(inputs);
        live.closers.retain(|closer| !closer.is_closed());
        Self {
            asked: live.asked,
            closers: live.closers,
            charge: live.charge,
        }
    }

    /// Attempts that have been asked for and not been heard of.
    pub(super) fn asked(&self) -> &[AttemptKey] {
        &self.asked
    }

    /// Whether anything is lost without it.
    pub(super) fn is_needed(&self) -> bool {
        !self.asked.is_empty() || !self.closers.is_empty()
    }

    /// Counts what is about to be read, which nobody knows yet.
    pub(super) fn reserve(&mut self, bytes: u64) {
        self.charge.set(bytes);
    }

    /// The execution, now that it was read.
    pub(super) fn back(self, restored: Restored) -> Live {
        let mut live = Live::restored(restored, self.charge);
        live.asked = self.asked;
        live.closers = self.closers;
        live
    }
}

/// Reads an execution.
pub(super) async fn read(context: &Context, key: &Key) -> Result<Option<Restored>, store::Error> {
    let Some(stored) = context.store.load(&key.0, key.1).await? else {
        return Ok(None);
    };
    let (tail_bytes, tail_events) = (stored.tail_bytes, stored.tail.len() as u64);
    let view = restore(context, stored).await?;
    Ok(Some(Restored {
        view,
        tail_bytes,
        tail_events,
    }))
}

/// Rebuilds an execution from what is stored.
pub(super) async fn restore(context: &Context, stored: Stored) -> Result<View, store::Error> {
    let mut restoring = begin_restore(context, stored).await?;
    while !restoring.go_on(Instant::now() + REPLAY_TURN)? {
        tokio::task::yield_now().await;
    }
    restoring.end()
}

/// An execution as it was stored, on its way to how it stands.
pub(super) struct Restoring {
    summary: Summary,
    versions: Versions,
    input: Json,
    /// `None` only while an event is applied.
    execution: Option<Execution>,
    tail: std::vec::IntoIter<Event>,
}

/// Gathers what it takes to rebuild an execution.
pub(super) async fn begin_restore(
    context: &Context,
    stored: Stored,
) -> Result<Restoring, store::Error> {
    let first = moves::version_before(&stored);
    let Stored {
        summary,
        snapshot,
        tail,
        ..
    } = stored;
    let mut versions = Versions::begin(context, &summary, first).await?;
    versions.fetch(context, &summary, &tail).await?;
    let input = match tail.first() {
        Some(first) if first.seq == 1 => input_of(first),
        // The beginning of a long history is in a chunk.
        _ => input(context, &summary.tenant, summary.id).await?,
    };
    let input =
        input.ok_or_else(|| damaged(&summary, &"the history does not begin with a start"))?;
    let execution = snapshot.unwrap_or_else(|| Execution::new(summary.id, summary.tenant.clone()));
    Ok(Restoring {
        summary,
        versions,
        input,
        execution: Some(execution),
        tail: tail.into_iter(),
    })
}

/// What an execution was started with, as the store has it.
pub(super) async fn input(
    context: &Context,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Option<Json>, store::Error> {
    let first = context.store.history(tenant, id, 0, 1, PAGE_BYTES).await?;
    Ok(first.first().and_then(input_of))
}

impl Restoring {
    /// Replays until then, or a little longer; says whether nothing is left.
    pub(super) fn go_on(&mut self, until: Instant) -> Result<bool, store::Error> {
        while let Some(event) = self.tail.next() {
            let execution = self.execution.take().expect("put back, or it is the end");
            let applied = self.versions.apply(execution, &event, None);
            let applied = applied.map_err(|error| damaged(&self.summary, &error))?;
            self.execution = Some(applied.execution);
            if Instant::now() >= until {
                return Ok(self.tail.len() == 0);
            }
        }
        Ok(true)
    }

    /// How it stands, once nothing is left to replay.
    pub(super) fn end(self) -> Result<View, store::Error> {
        let Self {
            summary,
            versions,
            input,
            execution,
            ..
        } = self;
        let program = versions.current();
        let execution = execution.expect("put back, or it is the end");
        if execution.version != summary.version {
            let (end, row) = (execution.version, summary.version);
            let what = format!("the history ends at {end}, the row at {row}");
            return Err(damaged(&summary, &what));
        }
        Ok(View {
            summary,
            input,
            execution,
            program,
        })
    }
}

/// The program that an execution runs in a version of its application.
pub(super) async fn program(
    context: &Context,
    summary: &Summary,
    version: u32,
) -> Result<Arc<Program>, store::Error> {
    let application = &summary.application;
    let program = super::program_at(
        &*context.definitions,
        &summary.tenant,
        application,
        version,
        &summary.workflow,
    )
    .await?;
    program.ok_or_else(|| {
        let workflow = &summary.workflow;
        let what = format!(
            "application `{application}` has no version {version} with workflow `{workflow}`"
        );
        damaged(summary, &what)
    })
}

fn damaged(summary: &Summary, what: &dyn std::fmt::Display) -> store::Error {
    store::Error::Damaged(format!(
        "execution {} of {}: {what}",
        summary.id, summary.tenant
    ))
}

fn input_of(event: &Event) -> Option<Json> {
    match &event.kind {
        EventKind::ExecutionStarted { input, .. } => Some(input.clone()),
        _ => None,
    }
}

/// How lists name a status, and its error.
fn name(execution: &Execution) -> (StatusName, Option<&str>) {
    if execution.paused.is_some() {
        return (StatusName::Paused, None);
    }
    match &execution.status {
        Status::Running | Status::Compensating { .. } => (StatusName::Running, None),
        Status::Completed { .. } => (StatusName::Completed, None),
        Status::Failed { failure } => (StatusName::Failed, Some(&failure.error)),
        Status::Cancelled { .. } => (StatusName::Cancelled, None),
        Status::TimedOut { .. } => (StatusName::TimedOut, None),
    }
}

/// Size of an event, in bytes, roughly.
pub(super) fn event_len(event: &Event) -> usize {
    payload_len(&event.kind) + EVENT_OVERHEAD
}

/// Size of what an event carries, in bytes.
fn payload_len(kind: &EventKind) -> usize {
    match kind {
        EventKind::ExecutionStarted { input, .. } => input.len(),
        EventKind::ActivityCompleted { output, .. } => output.len(),
        EventKind::ActivityFailed { failure, .. } => failure.message.len(),
        EventKind::SignalReceived { name, payload, .. } => name.len() + payload.len(),
        EventKind::HumanTaskCompleted { output, by, .. } => output.len() + by.len(),
        EventKind::CallbackReceived { callback, .. } => match callback {
            Callback::Succeeded { output } => output.len(),
            Callback::Failed { error, cause } => error.len() + cause.len(),
            Callback::Heartbeat {} => 0,
        },
        EventKind::CancelRequested { reason } | EventKind::ExecutionPaused { reason } => {
            reason.len()
        }
        EventKind::ExecutionMigrated { states, .. } => {
            states.iter().map(|(old, new)| old.len() + new.len()).sum()
        }
        EventKind::TimerFired { .. }
        | EventKind::RetryRequested {}
        | EventKind::ExecutionResumed {} => 0,
    }
}
