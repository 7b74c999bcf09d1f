//! The task that keeps the states of all schedules.
//!
//! A state moves in memory at once and is made durable before anything is done for it:
//! [`Keeper::carry_out`] looks at committed states only. It finds what is to be done by the
//! state alone, so that there is nothing to lose or to do twice.

use std::collections::hash_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cascade_cdl::schedule::{Cause, Key, Outcome, Record, Schedule, Skip, State, Waiting};
use cascade_cdl::{ExecutionId, TenantId, Timestamp};
use futures::future::{AbortHandle, BoxFuture, FutureExt, abortable};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::work::{Done, Tools};
use super::{Board, Error, InForce, Reply, Request, Shown, Triggered};
use crate::engine::{Engine, KEEPER_BUCKET};
use crate::store::{self, CommitError, Lease, ScheduleRow};
use crate::telemetry;

/// What is taken in between two commits: with what it sets off, some milliseconds.
const TURN: usize = 256;

/// States of one commit, so that others can write in between.
const COMMIT: usize = 256;

/// Executions of one tenant that the engine is asked to start at a time. Each may wait for
/// a shard, so a tenant whose shards are busy holds up nobody else.
const STARTS: usize = 32;

/// Starts of one schedule that are under way at a time. Those that come too soon for a rate
/// pause and ask again, and few of many that pause are enough to use it up.
const OWN_STARTS: usize = STARTS / 4;

/// Pause before a commit that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

type Work = BoxFuture<'static, Done>;

/// What is told once a state is durable.
type Told = Box<dyn FnOnce() + Send>;

/// One schedule.
struct Entry {
    schedule: Arc<Schedule>,
    state: State,
    timer: Option<Timestamp>,
    told: Vec<Told>,
    /// What is being started, with what is queued for that.
    starting: BTreeSet<ExecutionId>,
    watched: HashMap<ExecutionId, AbortHandle>,
    cancelled: BTreeSet<ExecutionId>,
}

/// The starts of a schedule.
#[derive(Default)]
struct Starts {
    /// At most [`OWN_STARTS`], with those that pause.
    running: usize,
    queued: VecDeque<Waiting>,
}

pub(super) struct Keeper {
    tools: Tools,
    /// By which its states are written.
    lease: Lease,
    /// Somebody else keeps them by now.
    lost: bool,
    board: Arc<Board>,
    entries: BTreeMap<Key, Entry>,
    versions: HashMap<(TenantId, Arc<str>), u32>,
    timers: BTreeSet<(Timestamp, Key)>,
    /// States that the store does not have yet.
    dirty: BTreeSet<Key>,
    /// Schedules that the store should forget.
    gone: BTreeSet<Key>,
    starts: HashMap<Key, Starts>,
    /// For the starts of each tenant that has had one: there are only so many tenants.
    places: HashMap<TenantId, Arc<Semaphore>>,
    work: FuturesUnordered<Work>,
    /// When the store is asked again.
    again: Option<Duration>,
}

/// What the keeper waits for.
enum Input {
    Requests(Vec<Request>),
    Due,
    Done(Done),
    Again,
    /// The bucket of the schedules has another owner, or another lease.
    Moved,
    Stop,
}

impl Keeper {
    pub(super) fn new(tools: Tools, board: Arc<Board>, lease: Lease) -> Self {
        Self {
            tools,
            lease,
            lost: false,
            board,
            entries: BTreeMap::new(),
            versions: HashMap::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            gone: BTreeSet::new(),
            starts: HashMap::new(),
            places: HashMap::new(),
            work: FuturesUnordered::new(),
            again: None,
        }
    }

    /// Takes up what is in force, as far as the store knows it.
    pub(super) async fn load(&mut self, in_force: Vec<InForce>) -> Result<(), store::Error> {
        let tenants: BTreeSet<TenantId> = in_force.iter().map(|of| of.tenant.clone()).collect();
        let mut states = HashMap::new();
        for tenant in tenants {
            for row in self.tools.store.schedules(&tenant).await? {
                let key = Key {
                    tenant: row.tenant,
                    application: row.application.into(),
                    name: row.name.into(),
                };
                match serde_json::from_str::<State>(&row.state) {
                    Ok(state) => drop(states.insert(key, state)),
                    // One schedule's trouble must not keep the server down; it begins anew.
                    Err(error) => tracing::error!(
                        tenant.id = %key.tenant, schedule = &*key.name, %error,
                        "the state of a schedule does not read"
                    ),
                }
            }
        }
        for of in in_force {
            // Of an application that is not in force here nothing is forgotten.
            let own = |key: &Key| key.tenant == of.tenant && key.application == of.application;
            let declared = |key: &Key| of.schedules.iter().any(|known| known.name == key.name);
            let gone = states.keys().filter(|key| own(key) && !declared(key));
            self.gone.extend(gone.cloned());
            for schedule in &of.schedules {
                let key = key_of(&of, schedule);
                let state = states.remove(&key);
                self.put(&key, schedule.clone(), state, of.since);
            }
            self.versions
                .insert((of.tenant, of.application), of.version);
        }
        self.commit().await;
        let all: Vec<Key> = self.entries.keys().cloned().collect();
        for key in all {
            self.publish(&key);
            if !self.dirty.contains(&key) {
                self.carry_out(&key);
            }
        }
        Ok(())
    }

    /// Serves until it is told to stop, or somebody else keeps the schedules.
    pub(super) async fn run(
        mut self,
        inbox: &mut mpsc::Receiver<Request>,
        stopping: &CancellationToken,
    ) {
        let engine = self.tools.engine.clone();
        loop {
            if self.again.is_none() {
                tokio::select! {
                    biased;
                    () = self.commit() => {}
                    // A store that does not answer holds up no shutdown.
                    () = stopping.cancelled() => return,
                }
            }
            if self.lost {
                return;
            }
            match self.next(inbox, stopping, &engine).await {
                Input::Requests(requests) => {
                    for request in requests {
                        self.request(request);
                    }
                }
                Input::Due => self.due(),
                Input::Done(done) => {
                    self.done(done);
                    for _ in 1..TURN {
                        let Some(Some(done)) = self.work.next().now_or_never() else {
                            break;
                        };
                        self.done(done);
                    }
                }
                Input::Again => self.again = None,
                Input::Moved | Input::Stop => return,
            }
        }
    }

    async fn next(
        &mut self,
        inbox: &mut mpsc::Receiver<Request>,
        stopping: &CancellationToken,
        engine: &Engine,
    ) -> Input {
        let due = self.timers.first().map(|(at, _)| *at);
        let again = self.again;
        let Self {
            tools, work, lease, ..
        } = self;
        let clock = &tools.clock;
        let mut requests = Vec::new();
        tokio::select! {
            () = stopping.cancelled() => Input::Stop,
            () = moved(engine, lease) => Input::Moved,
            count = inbox.recv_many(&mut requests, TURN) => {
                if count == 0 { Input::Stop } else { Input::Requests(requests) }
            }
            Some(done) = work.next(), if !work.is_empty() => Input::Done(done),
            () = async { clock.sleep_until(due.expect("checked")).await }, if due.is_some() => {
                Input::Due
            }
            () = async { clock.sleep_until_passed(again.expect("checked")).await },
                if again.is_some() => Input::Again,
        }
    }

    /// Makes all states durable, and does what they say.
    async fn commit(&mut self) {
        while let Some(key) = self.gone.first().cloned() {
            let Key {
                tenant,
                application,
                name,
            } = &key;
            let store = &self.tools.store;
            let deleted = store.delete_schedule(&self.lease, tenant, application, name);
            if let Err(error) = deleted.await {
                return self.fail(&error);
            }
            self.gone.remove(&key);
        }
        while !self.dirty.is_empty() {
            let batch: Vec<Key> = self.dirty.iter().take(COMMIT).cloned().collect();
            let rows: Vec<ScheduleRow> = batch.iter().map(|key| self.row(key)).collect();
            if let Err(error) = self.tools.store.put_schedules(&self.lease, &rows).await {
                return self.fail(&error);
            }
            for key in batch {
                self.dirty.remove(&key);
                self.publish(&key);
                self.carry_out(&key);
                let told = self
                    .entries
                    .get_mut(&key)
                    .map(|entry| std::mem::take(&mut entry.told));
                told.into_iter().flatten().for_each(|tell| tell());
            }
        }
    }

    fn fail(&mut self, error: &CommitError) {
        if let CommitError::LeaseLost { .. } = error {
            tracing::warn!(%error, "the schedules are kept elsewhere by now");
            self.lost = true;
            return;
        }
        tracing::error!(%error, "the states of schedules cannot be written; they are again");
        self.again = Some(self.tools.clock.passed() + AGAIN);
    }

    fn row(&self, key: &Key) -> ScheduleRow {
        let state = &self.entries[key].state;
        ScheduleRow {
            tenant: key.tenant.clone(),
            application: key.application.to_string(),
            name: key.name.to_string(),
            state: serde_json::to_string(state).expect("plain values with text keys"),
        }
    }

    /// Shows a schedule as it is.
    fn publish(&self, key: &Key) {
        let entry = &self.entries[key];
        let shown = Arc::new(Shown {
            key: key.clone(),
            schedule: entry.schedule.clone(),
            state: entry.state.clone(),
        });
        let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
        board.insert(key.clone(), shown);
    }

    /// Does what a state that is durable says, as far as it is not being done.
    fn carry_out(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        for waiting in &entry.state.starting {
            if entry.starting.insert(waiting.execution(key)) {
                let starts = self.starts.entry(key.clone()).or_default();
                starts.queued.push_back(*waiting);
            }
        }
        let cancels = entry.state.cancels();
        for open in &entry.state.open {
            if let Vacant(place) = entry.watched.entry(open.id) {
                let watch = self.tools.clone().watch(key.clone(), open.id);
                let (watch, handle) = abortable(watch);
                place.insert(handle);
                let watch = watch.map(|done| done.unwrap_or(Done::Nothing));
                self.work.push(watch.boxed());
            }
            if cancels && entry.cancelled.insert(open.id) {
                self.work
                    .push(self.tools.clone().cancel(key.clone(), open.id).boxed());
            }
        }
        let open = &entry.state.open;
        // Of one that is no longer looked after, nobody would say that it has ended.
        entry
            .cancelled
            .retain(|id| open.iter().any(|open| open.id == *id));
        entry.watched.retain(|id, handle| {
            let keep = open.iter().any(|open| open.id == *id);
            if !keep {
                handle.abort();
            }
            keep
        });
        self.begin_starts(key);
        self.set_timer(key);
    }

    fn begin_starts(&mut self, key: &Key) {
        let Some(starts) = self.starts.get_mut(key) else {
            return;
        };
        match self.entries.get(key) {
            Some(entry) => {
                let places = self.places.entry(key.tenant.clone());
                let places = places.or_insert_with(|| Arc::new(Semaphore::new(STARTS)));
                while starts.running < OWN_STARTS
                    && let Some(waiting) = starts.queued.pop_front()
                {
                    starts.running += 1;
                    let (tools, schedule) = (self.tools.clone(), entry.schedule.clone());
                    let start = tools.start(key.clone(), schedule, waiting, places.clone());
                    self.work.push(start.boxed());
                }
            }
            // One that is gone starts nothing more.
            None => starts.queued.clear(),
        }
        if starts.running == 0 {
            self.starts.remove(key);
        }
    }

    fn set_timer(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let timer = entry.state.wake_at(key, &entry.schedule);
        if timer == entry.timer {
            return;
        }
        if let Some(old) = entry.timer {
            self.timers.remove(&(old, key.clone()));
        }
        entry.timer = timer;
        self.timers.extend(timer.map(|at| (at, key.clone())));
    }

    /// Decides what is due.
    fn due(&mut self) {
        let now = self.tools.clock.now();
        for _ in 0..TURN {
            let Some((_, key)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() else {
                return;
            };
            self.change(&key, |entry| entry.state.pass(&key, &entry.schedule, now));
            // Not when the state is durable: it has been looked at.
            self.set_timer(&key);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Started(key, id, on) => {
                self.has_started(&key, id);
                self.change(&key, |entry| {
                    count_started(&entry.state, &key, id, on);
                    entry.state.started(&key, id, on);
                });
            }
            Done::Refused(key, id, refusal) => {
                self.has_started(&key, id);
                telemetry::schedule_refused(refusal.code);
                self.change(&key, |entry| entry.state.refused(&key, id, refusal));
            }
            Done::Ended(key, id) => {
                self.change(&key, |entry| {
                    entry.watched.remove(&id);
                    entry.cancelled.remove(&id);
                    entry.state.ended(id);
                });
            }
            Done::Nothing => {}
        }
    }

    /// A start has ended, one way or the other, and makes room for another.
    fn has_started(&mut self, key: &Key, id: ExecutionId) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.starting.remove(&id);
        }
        if let Some(starts) = self.starts.get_mut(key) {
            starts.running = starts.running.saturating_sub(1);
        }
        self.begin_starts(key);
    }

    /// Changes a schedule, if it is still there; its state is written next.
    fn change<T>(&mut self, key: &Key, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.entries.get_mut(key)?;
        let before = skips(&entry.state);
        let changed = change(entry);
        count_skipped(&before, &entry.state);
        self.dirty.insert(key.clone());
        Some(changed)
    }

    fn request(&mut self, request: Request) {
        let now = self.tools.clock.now();
        match request {
            Request::Applied(of, reply) => {
                self.applied(&of);
                let _ = reply.send(());
            }
            Request::Trigger {
                key,
                id,
                overlap,
                reply,
            } => self.answer(&key, reply, |entry| {
                entry
                    .state
                    .trigger(&key, &entry.schedule, now, id, overlap)?;
                let mut waiting = entry.state.waiting.iter();
                let waits = waiting.any(|waiting| waiting.execution(&key) == id);
                Ok(Triggered { id, at: now, waits })
            }),
            Request::Backfill {
                key,
                range,
                overlap,
                reply,
            } => self.answer(&key, reply, |entry| {
                let state = &mut entry.state;
                Ok(state.backfill(&key, &entry.schedule, now, range, overlap)?)
            }),
            Request::Pause { key, reason, reply } => self.answer(&key, reply, |entry| {
                entry.state.pause(now, reason);
                Ok(())
            }),
            Request::Resume { key, reply } => self.answer(&key, reply, |entry| {
                entry.state.resume(&entry.schedule, now);
                Ok(())
            }),
        }
    }

    /// Changes a schedule on request; who asks is told when that is durable.
    fn answer<T: Send + 'static>(
        &mut self,
        key: &Key,
        reply: Reply<T>,
        change: impl FnOnce(&mut Entry) -> Result<T, Error>,
    ) {
        let now = self.tools.clock.now();
        let changed = self.change(key, |entry| {
            // What has been due until now comes first.
            entry.state.pass(key, &entry.schedule, now);
            change(entry)
        });
        match changed {
            None => drop(reply.send(Err(Error::NotFound))),
            Some(result) => {
                let told: Told = Box::new(move || drop(reply.send(result)));
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.told.push(told);
                }
            }
        }
    }

    /// Another version of an application is in force.
    fn applied(&mut self, of: &InForce) {
        let version = self
            .versions
            .entry((of.tenant.clone(), of.application.clone()))
            .or_default();
        if of.version <= *version {
            return; // a newer one was told of first, or this was
        }
        *version = of.version;
        let own = |key: &Key| key.tenant == of.tenant && key.application == of.application;
        let declared = |key: &Key| of.schedules.iter().any(|known| known.name == key.name);
        let gone = self.entries.keys().filter(|key| own(key) && !declared(key));
        for key in gone.cloned().collect::<Vec<Key>>() {
            self.remove(&key);
        }
        for schedule in &of.schedules {
            let key = key_of(of, schedule);
            let known = self.change(&key, |entry| {
                // What was due before is due by what was in force then.
                entry.state.pass(&key, &entry.schedule, of.since);
                entry.state.clone()
            });
            self.put(&key, schedule.clone(), known, of.since);
        }
        // A crash before the next commit costs nothing: the states of new schedules follow
        // from the version, which is durable.
        for schedule in &of.schedules {
            self.publish(&key_of(of, schedule));
        }
    }

    /// Puts a schedule in force, new or with its state.
    fn put(&mut self, key: &Key, schedule: Arc<Schedule>, state: Option<State>, since: Timestamp) {
        let mut changed = true;
        let state = if let Some(mut state) = state {
            let before = state.clone();
            state.replace(&schedule, since);
            changed = state != before;
            state
        } else {
            State::new(&schedule, since)
        };
        self.gone.remove(key);
        if let Some(entry) = self.entries.get_mut(key) {
            (entry.schedule, entry.state) = (schedule, state);
            // What was due before may not be durable yet.
            changed = true;
        } else {
            let entry = Entry {
                schedule,
                state,
                timer: None,
                told: Vec::new(),
                starting: BTreeSet::new(),
                watched: HashMap::new(),
                cancelled: BTreeSet::new(),
            };
            self.entries.insert(key.clone(), entry);
        }
        if changed {
            self.dirty.insert(key.clone());
        }
        self.set_timer(key);
    }

    /// Takes a schedule out of force. What it has started goes on.
    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, key.clone()));
        }
        entry.watched.values().for_each(AbortHandle::abort);
        self.dirty.remove(key);
        self.gone.insert(key.clone());
        let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
        board.remove(key);
    }
}

/// Returns when the bucket of the schedules has another owner, or another lease.
async fn moved(engine: &Engine, lease: &Lease) {
    let mut moves = engine.moves();
    loop {
        moves.mark_unchanged();
        let held = engine.lease_of(KEEPER_BUCKET);
        if held.as_ref() != Some(lease) || moves.changed().await.is_err() {
            return;
        }
    }
}

fn key_of(of: &InForce, schedule: &Schedule) -> Key {
    Key {
        tenant: of.tenant.clone(),
        application: of.application.clone(),
        name: schedule.name.clone(),
    }
}

/// Counts a start that a state is about to be told of.
fn count_started(state: &State, key: &Key, id: ExecutionId, on: Timestamp) {
    let mut starting = state.starting.iter();
    let Some(waiting) = starting.find(|waiting| waiting.execution(key) == id) else {
        return; // it knows already
    };
    let lag = Duration::from_millis(on.0.saturating_sub(waiting.at.0));
    telemetry::schedule_started((waiting.cause == Cause::Time).then_some(lag));
}

/// What is passed over, and how often: since when, and why.
type Skipped = ((Timestamp, Cause, Skip), u32);

/// Times that were passed over, as far as a state remembers.
fn skips(state: &State) -> Vec<Skipped> {
    let skipped = |record: &Record| match record.outcome {
        Outcome::Skipped { why, count, .. } => Some(((record.at, record.cause, why), count)),
        Outcome::Started { .. } | Outcome::Refused { .. } => None,
    };
    state.recent.iter().filter_map(skipped).collect()
}

/// Counts what a state has passed over since. A record is added or grows; old ones go.
fn count_skipped(before: &[Skipped], state: &State) {
    for (which, count) in skips(state) {
        let known = before.iter().find(|(known, _)| *known == which);
        let more = count.saturating_sub(known.map_or(0, |(_, count)| *count));
        if more > 0 {
            telemetry::schedule_skipped(which.2, more);
        }
    }
}
