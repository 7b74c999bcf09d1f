//! Executions that others start as their children.
//!
//! One task for all shards starts them, waits for their ends, and reports these
//! like the outcomes of attempts. It promises nothing across a crash: a parent
//! that goes on asks for its children again. A start is idempotent by the child's
//! id, which derives from the attempt; if the child has ended, its end comes at
//! once. The parent's policy goes with the child: a child that is read from the
//! store asks whether it is still waited for, and recovery reads every open one.
//! A child may be of a bucket that another process has: that one starts it, tells when it has
//! ended, and the end itself is read from the store.
//! So a crash between the commit of a parent that gives a child up and the child's
//! end leaves none behind.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cascade_cdl::program::ParentClose;
use cascade_cdl::spread::Work;
use cascade_cdl::{
    ActivityFailure, Execution, ExecutionId, Json, Parent, TenantId, errors, outcome_of_child,
};
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::live::{self, Key};
use super::spread::{Answer, Extent, Trouble};
use super::wanted::{Wanted, look};
use super::{Context, ControlError, Engine, Inner, RETRY_AFTER, Report, Start, StartError, View};
use crate::dispatch::AttemptKey;
use crate::places::Place as Room;

/// Why a child was cancelled that nobody waits for any more.
const REASON: &str = "its parent gave it up";

/// Longest time between two tries to start a child of a paused workflow, which begin at
/// [`RETRY_AFTER`]. Pauses last hours, and thousands of parents may wait; so long after the end
/// of it the last of them goes on.
const PAUSED_AGAIN: Duration = Duration::from_secs(30);

/// How the pause grows of a chunk that its tenant's limits keep from beginning, until it
/// fails: after a quarter of an hour.
const FULL_FOR_LONG: Duration = Duration::from_hours(1);

/// How often the store is asked whether a child has ended that another process moves on:
/// its end is told of at once, but a process may die in between.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Checks at a time: each replays a child and its parent.
const CHECKS: usize = 8;

/// What shards ask for. Each child is a frame of an open execution, and these
/// are bounded; so the channel needs no bound of its own.
pub(super) type Asks = mpsc::UnboundedSender<Ask>;

/// What a shard asks for, once its cause is durable.
pub(super) enum Ask {
    /// To start a child.
    Start(Box<ChildStart>),
    /// To look for an activity that is not known here.
    Look(Box<Wanted>),
    /// Nobody waits for the outcome of this attempt any more.
    GiveUp(AttemptKey),
    /// The same of what may be a child that an earlier life of a shard started.
    Orphan(TenantId, ExecutionId),
    /// An open execution was read that goes with its parent: is that so still?
    Check(TenantId, ExecutionId),
    /// Another process serves the parents in these buckets now.
    Left(Range<u32>),
}

/// A child that is served.
struct Served {
    /// The bucket of its parent.
    bucket: u32,
    given_up: CancellationToken,
    task: AbortHandle,
}

/// A child to start.
pub(super) struct ChildStart {
    pub(super) attempt: AttemptKey,
    pub(super) start: Start,
    pub(super) waits: bool,
    pub(super) on_close: ParentClose,
    /// What a distributed Map asks for; absent if a Task starts a workflow.
    pub(super) work: Option<Work>,
}

/// Serves until the engine stops.
pub(super) async fn run(
    engine: Weak<Inner>,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    stopping: CancellationToken,
) {
    let mut served: HashMap<Key, Served> = HashMap::new();
    // Each is an open execution, so they are bounded, too.
    let mut to_check: VecDeque<Key> = VecDeque::new();
    // Each is a task: what one of a tenant waits for keeps no other from going on.
    let mut started = JoinSet::new();
    let mut checks = FuturesUnordered::new();
    loop {
        while checks.len() < CHECKS
            && let Some((tenant, id)) = to_check.pop_front()
        {
            checks.push(check(engine.clone(), tenant, id));
        }
        tokio::select! {
            () = stopping.cancelled() => break,
            ask = asks.recv() => match ask {
                // No shard is left.
                None => break,
                Some(Ask::Start(child)) => {
                    // A shard that starts again asks again, and is served already.
                    let key = key(&child.attempt);
                    if served.contains_key(&key) {
                        continue;
                    }
                    let (bucket, given_up) = (child.attempt.bucket, CancellationToken::new());
                    let task = started.spawn(guarded(engine.clone(), *child, given_up.clone()));
                    served.insert(key, Served { bucket, given_up, task });
                }
                Some(Ask::Look(wanted)) => {
                    let key = key(&wanted.attempt);
                    if served.contains_key(&key) {
                        continue;
                    }
                    let (bucket, given_up) = (wanted.attempt.bucket, CancellationToken::new());
                    let task = started.spawn(look(engine.clone(), *wanted, given_up.clone()));
                    served.insert(key, Served { bucket, given_up, task });
                }
                Some(Ask::GiveUp(attempt)) => {
                    if let Some(child) = served.remove(&key(&attempt)) {
                        child.given_up.cancel();
                    }
                }
                Some(Ask::Orphan(tenant, id)) => {
                    let key = (tenant, id);
                    match served.remove(&key) {
                        Some(child) => child.given_up.cancel(),
                        None => to_check.push_back(key),
                    }
                }
                Some(Ask::Left(buckets)) => served.retain(|_, child| {
                    let stays = !buckets.contains(&child.bucket);
                    if !stays {
                        child.task.abort();
                    }
                    stays
                }),
                Some(Ask::Check(tenant, id)) => to_check.push_back((tenant, id)),
            },
            Some(ended) = started.join_next_with_id(), if !started.is_empty() => match ended {
                Ok((task, attempt)) => {
                    // It may have been asked for once more since.
                    if let Entry::Occupied(child) = served.entry(key(&attempt))
                        && child.get().task.id() == task
                    {
                        child.remove();
                    }
                }
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "a child is not served any more"),
            },
            Some(()) = checks.next(), if !checks.is_empty() => {}
        }
    }
    // None goes on when the engine has stopped.
    started.shutdown().await;
}

/// Which execution an attempt starts.
fn key(attempt: &AttemptKey) -> Key {
    let AttemptKey {
        tenant,
        execution,
        task,
        attempt,
        ..
    } = attempt;
    let child = ExecutionId::of_child(*execution, *task, *attempt);
    (tenant.clone(), child)
}

/// Whose child an open execution is, if it is to end with its parent.
pub(super) fn goes_with_parent(execution: &Execution) -> Option<Parent> {
    let goes = |parent: &Parent| parent.on_close == ParentClose::Cancel;
    execution
        .parent
        .filter(|parent| goes(parent) && !execution.is_closed())
}

/// Serves a child, and says of which attempt it was, even after a panic: its parent is told
/// of that, and all others go on.
async fn guarded(
    engine: Weak<Inner>,
    child: ChildStart,
    given_up: CancellationToken,
) -> AttemptKey {
    let attempt = child.attempt.clone();
    let (start, on_close) = (child.start.id, child.on_close);
    let served = AssertUnwindSafe(serve(&engine, child, given_up)).catch_unwind();
    if served.await.is_err() {
        tracing::error!(
            tenant.id = %attempt.tenant,
            execution.id = %attempt.execution,
            "what serves a child panicked"
        );
        // Nobody waits for the child any more.
        surely(&attempt, async {
            let failure = panicked("served this child");
            tell(&engine, attempt.clone(), Err(failure)).await;
            if let (ParentClose::Cancel, Some(child)) = (on_close, start) {
                cancel(&engine, &attempt.tenant, child).await;
            }
        })
        .await;
    }
    attempt
}

/// Tells an execution what became of an attempt, and says so if even that panics.
pub(super) async fn surely(attempt: &AttemptKey, told: impl Future<Output = ()>) {
    if AssertUnwindSafe(told).catch_unwind().await.is_err() {
        tracing::error!(
            tenant.id = %attempt.tenant,
            execution.id = %attempt.execution,
            "it cannot be told, and waits until a restart"
        );
    }
}

/// How an attempt failed that the engine itself has failed.
pub(super) fn panicked(while_it: &str) -> ActivityFailure {
    ActivityFailure {
        error: "HostPanic".to_owned(),
        message: format!("the engine failed while it {while_it}; see its log"),
        retryable: None,
        details: None,
    }
}

/// Brings one child to its end, or gives it up.
async fn serve(engine: &Weak<Inner>, child: ChildStart, given_up: CancellationToken) {
    let result = tokio::select! {
        result = brought(engine, &child) => result,
        () = given_up.cancelled() => {
            if let (ParentClose::Cancel, Some(id)) = (child.on_close, child.start.id) {
                cancel(engine, &child.start.tenant, id).await;
            }
            return;
        }
    };
    // The room is given back when a shard has taken what it is for.
    let (result, _room) = match result {
        Ok(Answered { output, room }) => (Ok(output), room),
        Err(failure) => (Err(failure), None),
    };
    tell(engine, child.attempt, result).await;
}

/// Tells a parent what has become of an attempt.
pub(super) async fn tell(
    engine: &Weak<Inner>,
    attempt: AttemptKey,
    result: Result<Json, ActivityFailure>,
) {
    let report = Report {
        attempt,
        result,
        receipt: None,
    };
    if let Some(inner) = engine.upgrade() {
        Engine { inner }.report(vec![report]).await;
    }
}

/// What was asked for, and the room that it takes.
struct Answered {
    output: Json,
    room: Option<Room>,
}

impl From<Json> for Answered {
    fn from(output: Json) -> Self {
        Self { output, room: None }
    }
}

/// What was asked for, however often it takes.
async fn brought(engine: &Weak<Inner>, child: &ChildStart) -> Result<Answered, ActivityFailure> {
    loop {
        match answer(engine, child).await {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Fails(failure)) => return Err(failure),
            Err(Trouble::Later(reason)) => {
                tracing::warn!(
                    tenant.id = %child.start.tenant,
                    execution.id = %child.attempt.execution,
                    reason,
                    "a Map waits for its objects"
                );
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn answer(engine: &Weak<Inner>, child: &ChildStart) -> Answer<Answered> {
    let Some(work) = child.work else {
        return Ok(outcome(engine, child).await?.into());
    };
    let context = context(engine)?;
    let (tenant, input) = (&child.start.tenant, &child.start.input);
    let spreads = &context.spreads;
    match work {
        Work::Read => Ok(spreads.read(tenant, input).await?.into()),
        Work::Write => {
            let (map, now) = (child.attempt.execution, context.clock.now());
            let told = spreads.write_manifest(tenant, map, input, now).await?;
            Ok(told.into())
        }
        Work::Chunk => {
            let output = outcome(engine, child).await?;
            chunk_answer(engine, &context, child, output).await
        }
    }
}

/// What a Map is told of a chunk that has ended, once its results are written.
async fn chunk_answer(
    engine: &Weak<Inner>,
    context: &Context,
    child: &ChildStart,
    output: Json,
) -> Answer<Answered> {
    let (tenant, asked) = (&child.start.tenant, &child.start.input);
    let (_, id) = key(&child.attempt);
    let spreads = &context.spreads;
    let extent = Extent::of(asked)?;
    let bytes = extent.at_end(output.len());
    let (room, started_with, output) = match spreads.room.try_take_many(tenant, bytes) {
        Some(room) if extent.needs_items() => {
            let input = live::input(context, tenant, id).await;
            let input = input.map_err(|error| Trouble::Later(error.to_string()))?;
            (room, input.ok_or_else(gone)?, output)
        }
        Some(room) => (room, asked.clone(), output),
        None => {
            // It is in the store, too, and takes no memory while it waits.
            drop(output);
            let room = spreads.room.take_many(tenant, bytes).await;
            let view = show(engine, tenant, id).await?;
            let outcome = outcome_of_child(id, &view.execution.status).ok_or_else(gone)?;
            (room, view.input, outcome?)
        }
    };
    let output = if extent.is_written {
        let now = context.clock.now();
        spreads
            .write_chunk(tenant, id, started_with, output, now)
            .await?
    } else {
        output
    };
    Ok(Answered {
        output,
        room: Some(room),
    })
}

/// An execution that has ended and is not there any more: it is run again.
fn gone() -> Trouble {
    Trouble::Later("the execution that ran a chunk is not in the store".to_owned())
}

async fn show(engine: &Weak<Inner>, tenant: &TenantId, id: ExecutionId) -> Answer<View> {
    let inner = engine.upgrade().ok_or_else(stopped)?;
    let view = Engine { inner }.show(tenant, id).await;
    let view = view.map_err(|error| Trouble::Later(error.to_string()))?;
    view.ok_or_else(gone)
}

fn context(engine: &Weak<Inner>) -> Answer<Arc<Context>> {
    let inner = engine.upgrade().ok_or_else(stopped)?;
    Ok(Arc::clone(&inner.context))
}

fn stopped() -> Trouble {
    Trouble::Later("the engine stops".to_owned())
}

/// Starts a child, however often it takes; its outcome, if that is waited for.
async fn outcome(engine: &Weak<Inner>, child: &ChildStart) -> Answer<Json> {
    let (mut while_paused, mut while_full) = (RETRY_AFTER, RETRY_AFTER);
    await_moment(engine, &child.start).await;
    loop {
        // What is read for a start goes with it, and is read again for the next one.
        let (start, room) = start_of(engine, child).await?;
        match attempt(engine, child.waits, start, room).await {
            Ok(Some(outcome)) => return Ok(outcome?),
            Err(StartError::Paused(_)) => {
                tokio::time::sleep(while_paused).await;
                while_paused = (2 * while_paused).min(PAUSED_AGAIN);
            }
            // Chunks begin as fast as their tenant's limits let them. Not for ever: if those
            // that wait for chunks are what fills the limit, they would wait for each other.
            Err(StartError::Full(_)) if child.work.is_some() && while_full < FULL_FOR_LONG => {
                while_full = until_admitted(engine, &child.start.tenant, while_full).await?;
            }
            Ok(None) => tokio::time::sleep(RETRY_AFTER).await,
            Err(error) => tokio::time::sleep(refused(&error)?).await,
        }
    }
}

/// What starts a child: of a chunk with its items, as soon as there is room for them.
async fn start_of(engine: &Weak<Inner>, child: &ChildStart) -> Answer<(Start, Option<Room>)> {
    let start = child.start.clone();
    if child.work.is_none() {
        return Ok((start, None));
    }
    let context = context(engine)?;
    let (tenant, asked) = (&start.tenant, &start.input);
    let spreads = &context.spreads;
    let (input, room) = match spreads.start_of(tenant, asked).await {
        // What has begun goes on, whatever has become of the object since.
        Err(Trouble::Fails(failure)) => {
            let bytes = Extent::of(asked)?.at_start();
            let room = spreads.room.take_many(tenant, bytes).await;
            let input = live::input(&context, tenant, key(&child.attempt).1).await;
            let input = input.map_err(|error| Trouble::Later(error.to_string()))?;
            (input.ok_or(failure)?, Some(room))
        }
        read => read?,
    };
    Ok((Start { input, ..start }, room))
}

/// Waits until a tenant may have one more execution, or for too long; gives the next
/// pause. A start that was refused is of nothing that exists, so none that exists is kept
/// from being answered.
async fn until_admitted(
    engine: &Weak<Inner>,
    tenant: &TenantId,
    mut pause: Duration,
) -> Answer<Duration> {
    let context = context(engine)?;
    let clock = &context.clock;
    loop {
        let until = clock.passed() + pause.min(PAUSED_AGAIN);
        clock.sleep_until_passed(until).await;
        pause = pause * 5 / 4;
        let admission = context.definitions.admission(tenant);
        let admitted = context.usages.of(tenant).admit(&admission);
        if admitted.is_ok() || pause >= FULL_FOR_LONG {
            return Ok(pause);
        }
    }
}

/// Waits until the rate of its workflow lets a child start.
async fn await_moment(engine: &Weak<Inner>, start: &Start) {
    loop {
        let Some(inner) = engine.upgrade() else {
            return;
        };
        let clock = Arc::clone(&inner.context.clock);
        let moment = inner.context.moment(start).await;
        drop(inner);
        match moment {
            Ok(None) => return,
            Ok(Some(at)) => return clock.sleep_until_passed(at).await,
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

/// Starts a child once. Nothing holds the engine while its end is waited for.
async fn attempt(
    engine: &Weak<Inner>,
    waits: bool,
    start: Start,
    room: Option<Room>,
) -> Result<Option<Result<Json, ActivityFailure>>, StartError> {
    let room = room.map(Arc::new);
    let (reply, started) = oneshot::channel();
    let (closed_reply, closed) = oneshot::channel();
    let submitted = {
        let inner = engine.upgrade().ok_or(StartError::Interrupted)?;
        let closed_reply = waits.then_some(closed_reply);
        Engine { inner }
            .submit(start.clone(), room.clone(), reply, closed_reply)
            .await
    };
    if let Err(StartError::Elsewhere { bucket }) = submitted {
        return attempt_elsewhere(engine, waits, start, room, bucket).await;
    }
    drop(room); // the shard has it
    submitted?;
    let started = started.await.map_err(|_| StartError::Interrupted)??;
    if !waits {
        let output = json!({ "execution_id": started.id.to_string() });
        return Ok(Some(Ok(output.into())));
    }
    let closed = closed.await.map_err(|_| StartError::Interrupted)?;
    Ok(outcome_of_child(started.id, &closed.status))
}

/// The same where another process has the child's bucket.
async fn attempt_elsewhere(
    engine: &Weak<Inner>,
    waits: bool,
    start: Start,
    room: Option<Arc<Room>>,
    bucket: u32,
) -> Result<Option<Result<Json, ActivityFailure>>, StartError> {
    let tenant = start.tenant.clone();
    let started = {
        let inner = engine.upgrade().ok_or(StartError::Interrupted)?;
        let asked = Engine { inner };
        asked.start_elsewhere(bucket, start).await?
    };
    drop(room); // the text is the other's now
    if !waits {
        let output = json!({ "execution_id": started.id.to_string() });
        return Ok(Some(Ok(output.into())));
    }
    let tenant = &tenant;
    loop {
        let inner = engine.upgrade().ok_or(StartError::Interrupted)?;
        let engine = Engine { inner };
        // First, so that no notice comes in between.
        let mut versions = engine.watch(tenant, started.id);
        let row = engine
            .inner
            .context
            .store
            .summary(tenant, started.id)
            .await?;
        if row.is_some_and(|row| row.closed_at.is_some())
            && let Some(view) = engine.show(tenant, started.id).await?
        {
            return Ok(outcome_of_child(started.id, &view.execution.status));
        }
        drop(engine); // nothing holds it while its end is waited for
        // Notices may be lost.
        let _ = tokio::time::timeout(LOOK_AGAIN, versions.changed()).await;
    }
}

/// When to try again, unless the refusal is the outcome.
fn refused(error: &StartError) -> Result<Duration, ActivityFailure> {
    let (name, retryable) = match error {
        StartError::Busy { retry_after } | StartError::TooFast { retry_after, .. } => {
            return Ok(*retry_after);
        }
        StartError::Paused(_)
        | StartError::Interrupted
        | StartError::Elsewhere { .. }
        | StartError::Store(_) => return Ok(RETRY_AFTER),
        StartError::UnknownWorkflow { .. } => (errors::WORKFLOW_NOT_FOUND, Some(false)),
        StartError::InputTooLarge { .. }
        | StartError::Unfit(_)
        | StartError::NoShardKey(_)
        | StartError::Invalid(_) => (errors::INVALID_INPUT, Some(false)),
        StartError::Full(_) => ("ExecutionLimitExceeded", None),
        // Somebody took the id; another try has another one.
        StartError::KeyReused(_) => ("ChildConflict", Some(true)),
    };
    Err(ActivityFailure {
        error: name.to_owned(),
        message: error.to_string(),
        retryable,
        details: None,
    })
}

/// Cancels a child, however often it takes.
async fn cancel(engine: &Weak<Inner>, tenant: &TenantId, id: ExecutionId) {
    loop {
        let Some(inner) = engine.upgrade() else {
            return;
        };
        let cancelled = (Engine { inner }).cancel_anywhere(tenant, id, REASON).await;
        match cancelled {
            Err(
                ControlError::Busy { .. }
                | ControlError::Interrupted
                | ControlError::Elsewhere { .. }
                | ControlError::Store(_),
            ) => tokio::time::sleep(RETRY_AFTER).await,
            // It has ended, or never began.
            _ => return,
        }
    }
}

/// Cancels a child whose parent does not wait for it any more.
///
/// A start follows from what its parent has committed, so what the store says
/// of the parent is no older than the child.
async fn check(engine: Weak<Inner>, tenant: TenantId, id: ExecutionId) {
    let Some(Some(child)) = read(&engine, &tenant, id).await else {
        return;
    };
    let Some(parent) = goes_with_parent(&child) else {
        return;
    };
    drop(child);
    let awaited = match read(&engine, &tenant, parent.execution).await {
        Some(Some(execution)) => execution.awaits(parent.task, parent.attempt),
        Some(None) => false,
        None => return,
    };
    if !awaited {
        cancel(&engine, &tenant, id).await;
    }
}

/// Reads an execution, however often it takes; `None` if it is damaged, or the
/// engine ends.
async fn read(
    engine: &Weak<Inner>,
    tenant: &TenantId,
    id: ExecutionId,
) -> Option<Option<Execution>> {
    loop {
        let inner = engine.upgrade()?;
        match (Engine { inner }).show(tenant, id).await {
            Ok(view) => return Some(view.map(|view| view.execution)),
            Err(crate::store::Error::Damaged(_)) => return None,
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}
