//! The queue in process: fair between tenants by the fuel they use.
//!
//! Each tenant has a lane. Lanes are served by virtual time (start-time fair
//! queuing): a lane's time advances by the fuel that its attempts used divided
//! by its weight, and the lane that lags most goes next. Fuel is known only
//! afterwards, so a lane is charged what its attempts used lately and settled
//! when the attempt ends. Two hard limits stand beside the share: attempts at
//! a time, and fuel per second (a token bucket that may go into debt).
//!
//! Within a lane the more urgent go first (`line.rs`); what a lane gets of the workers is
//! not changed by that.
//!
//! An attempt of a state with a rate lines up in its lane when the rate allows it (`gate.rs`).
//!
//! Fuel does not tell what an attempt costs beside the guest: the events that
//! the engine applies and the store writes, one tenant's after the other's. A
//! tenant whose attempts end within microseconds would keep both busy, so
//! while others are there it begins so many a second and no more; fewer if they
//! fail, since what fails at once is of no use to anybody.

mod gate;
mod line;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cascade_cdl::TenantId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AttemptKey, HeldTask, QueuedTask, Spent, TaskQueue};
use gate::Gates;
use line::Line;

/// A lane with fewer places is not tidied up: walking it costs nothing.
const TIDY_FROM: usize = 64;

/// Charged for the first attempt of a lane, of which nothing is known: about
/// what a small activity uses.
const FIRST_ESTIMATE: u64 = 10_000;

/// Weight of the newest attempt in a lane's estimate is 1 in 8: follows a
/// change of habit within a few attempts, and forgives a single outlier.
const ESTIMATE_SHIFT: u32 = 3;

/// A batch takes no further task at this much fuel, by what its lanes used
/// lately: about a millisecond. What waits behind a batch waits no longer.
const BATCH_FUEL: u64 = 1_000_000;

/// How long a tenant counts as being there after it has asked for something.
const THERE: Duration = Duration::from_secs(1);

/// How far a tenant may run ahead of its pace: longer than a timer is late, and
/// what is begun at once then takes the engine some milliseconds.
const AHEAD: Duration = Duration::from_millis(10);

/// An attempt that failed takes the place of so many in its tenant's pace.
const FAILED: u32 = 4;

/// Nor does the next begin before so many times as it cost: a quarter of a core for what
/// is of no use.
const FAILED_COST: u32 = 4;

/// So much of that cost counts. What runs for longer goes on apart from what is short, and
/// where it is one of many that the tenant runs, it is not to hold up those.
const FAILED_COST_MOST: u64 = 1_000_000;

/// What the workers of a queue can do.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Attempts that they run at a time. However much a tenant may run, it takes
    /// at most half of the places that others leave, so that whoever comes next
    /// finds some.
    pub places: u32,
    /// Attempts that one tenant begins in a second while others are there.
    pub crowded_pace: u32,
}

/// What a tenant may use of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Share relative to other tenants, at least 1.
    pub weight: u32,
    /// Attempts at a time.
    pub concurrent_attempts: u32,
    /// Refill of the fuel bucket; its size is one second's worth.
    pub fuel_per_second: u64,
}

/// How long a lane goes by the share that it was told: a change of limits
/// reaches a tenant with a standing backlog, and asking stays cheap.
const SHARE_LIFETIME: Duration = Duration::from_secs(1);

/// Tells the share of a tenant.
pub type Shares = Arc<dyn Fn(&TenantId) -> Share + Send + Sync>;

/// A [`TaskQueue`] in memory.
pub struct LocalQueue {
    lanes: Mutex<Lanes>,
    filled: Notify,
    shares: Shares,
}

struct Lanes {
    by_tenant: HashMap<TenantId, Lane>,
    /// Lanes with waiting tasks, by virtual time.
    order: BTreeSet<(u64, TenantId)>,
    /// Virtual time of the lane served last: where a lane that was empty starts,
    /// so that idleness earns no credit.
    now: u64,
    /// Every attempt that waits or runs.
    known: HashMap<AttemptKey, Place>,
    /// Attempts that wait for a worker.
    waiting: usize,
    /// Attempts that wait for the rate of their state.
    gates: Gates,
    gated: usize,
    /// How many places at gates nobody waits in any more.
    gated_left: usize,
    /// When the time of gates began.
    began: Instant,
    capacity: Capacity,
    /// Attempts that run.
    running: u32,
    /// Who asked for something last, and until when more than one tenant is there.
    latest: Option<TenantId>,
    crowded_until: Option<Instant>,
    /// Number of the next place in a lane.
    next_place: u64,
    closed: bool,
}

struct Lane {
    share: Share,
    /// The order of those that wait, and of `left`. The tasks are in `known`.
    places: Line,
    /// How many of `places` nobody waits in any more: their task was cancelled.
    left: usize,
    virtual_time: u64,
    running: u32,
    estimate: u64,
    /// Fuel that may still be used now; negative is debt.
    tokens: i64,
    refilled_at: Instant,
    share_at: Instant,
    /// When its next attempt begins if it keeps its pace.
    due: Instant,
}

/// Where an attempt is.
enum Place {
    /// In the place of its lane with this number.
    Waiting(u64, QueuedTask),
    /// In the place of its gate with this number.
    Gated(u64, QueuedTask),
    Running(Running),
}

struct Running {
    cancelled: CancellationToken,
    charge: Charge,
}

/// What a lane was charged beforehand.
#[derive(Clone, Copy)]
struct Charge {
    fuel: u64,
    virtual_time: u64,
}

impl LocalQueue {
    /// A queue for these workers, with these shares.
    pub fn new(capacity: Capacity, shares: Shares) -> Self {
        Self {
            lanes: Mutex::new(Lanes {
                by_tenant: HashMap::new(),
                order: BTreeSet::new(),
                now: 0,
                known: HashMap::new(),
                waiting: 0,
                gates: Gates::default(),
                gated: 0,
                gated_left: 0,
                began: Instant::now(),
                capacity,
                running: 0,
                latest: None,
                crowded_until: None,
                next_place: 0,
                closed: false,
            }),
            filled: Notify::new(),
            shares,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // No code of tenants runs under the lock, and each change is complete
        // before anything can panic: the data of a poisoned lock is sound.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TaskQueue for LocalQueue {
    fn push(&self, tasks: Vec<QueuedTask>) {
        let count = tasks.len();
        {
            let mut lanes = self.lanes();
            let now = Instant::now();
            for task in tasks {
                lanes.push(task, now, &self.shares);
            }
        }
        // A waiting worker takes a batch; one call wakes one of them, and
        // whoever leaves tasks behind wakes the next (see `pull`).
        if count > 0 {
            self.filled.notify_one();
        }
    }

    async fn pull(&self, max: usize) -> Vec<HeldTask> {
        loop {
            let (taken, refill) = {
                let mut lanes = self.lanes();
                if lanes.closed {
                    // Pass the news on: one call of `close` wakes one puller.
                    self.filled.notify_one();
                    return Vec::new();
                }
                let now = Instant::now();
                lanes.open_gates(now, &self.shares);
                let taken = lanes.take(max, now, &self.shares);
                let refill = lanes.next_refill(now);
                if !taken.is_empty() && lanes.waiting > 0 {
                    self.filled.notify_one();
                }
                (taken, refill)
            };
            if !taken.is_empty() {
                return taken;
            }
            match refill {
                None => self.filled.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = self.filled.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    fn settle(&self, attempt: &AttemptKey, spent: Spent) {
        let freed = {
            let mut lanes = self.lanes();
            lanes.settle(attempt, spent, Instant::now());
            lanes.waiting > 0
        };
        if freed {
            self.filled.notify_one();
        }
    }

    fn cancel(&self, attempt: &AttemptKey) {
        let opened = self.lanes().cancel(attempt, Instant::now(), &self.shares);
        if opened {
            self.filled.notify_one();
        }
    }

    fn withdraw(&self, attempt: &AttemptKey) -> bool {
        let mut lanes = self.lanes();
        let waits = matches!(
            lanes.known.get(attempt),
            Some(Place::Waiting(..) | Place::Gated(..))
        );
        if waits && lanes.cancel(attempt, Instant::now(), &self.shares) {
            self.filled.notify_one();
        }
        waits
    }

    fn waits_for_rate(&self, attempt: &AttemptKey) -> bool {
        matches!(self.lanes().known.get(attempt), Some(Place::Gated(..)))
    }

    fn depth(&self) -> usize {
        self.lanes().waiting
    }

    fn close(&self) {
        self.lanes().closed = true;
        self.filled.notify_one();
    }

    fn abandon(&self) {
        for place in self.lanes().known.values() {
            if let Place::Running(running) = place {
                running.cancelled.cancel();
            }
        }
    }
}

impl Lanes {
    fn push(&mut self, task: QueuedTask, at: Instant, shares: &Shares) {
        if self.known.contains_key(&task.key()) {
            return;
        }
        if self.latest.as_ref() != Some(&task.tenant) {
            if self.latest.is_some() {
                self.crowded_until = at.checked_add(THERE);
            }
            self.latest = Some(task.tenant.clone());
        }
        let Some(rate) = task.task.rate_limit else {
            return self.line_up(task, at, shares);
        };
        let (number, passed) = (self.next_place, self.passed(at));
        self.gates.push(&task, rate, number, passed);
        self.known.insert(task.key(), Place::Gated(number, task));
        self.next_place += 1;
        self.gated += 1;
        self.open_gates(at, shares);
    }

    /// Time as gates count it.
    fn passed(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }

    /// Lets those line up whose rates allow it now; says whether there were any.
    fn open_gates(&mut self, at: Instant, shares: &Shares) -> bool {
        let (mut any, passed) = (false, self.passed(at));
        loop {
            let (known, left) = (&self.known, &mut self.gated_left);
            let next = self.gates.pass(passed, |number, key| {
                let waits = matches!(known.get(key), Some(Place::Gated(at, _)) if *at == number);
                *left -= usize::from(!waits);
                waits
            });
            let Some(key) = next else { return any };
            if let Some(Place::Gated(_, task)) = self.known.remove(&key) {
                self.gated -= 1;
                self.line_up(task, at, shares);
                any = true;
            }
        }
    }

    /// Lets a task wait for a worker.
    fn line_up(&mut self, task: QueuedTask, at: Instant, shares: &Shares) {
        let now = self.now;
        let lane = self
            .by_tenant
            .entry(task.tenant.clone())
            .or_insert_with(|| Lane::new(shares(&task.tenant), at));
        if lane.places.is_empty() {
            lane.virtual_time = lane.virtual_time.max(now);
            self.order.insert((lane.virtual_time, task.tenant.clone()));
        }
        let (key, priority) = (task.key(), task.task.priority);
        lane.places.push(priority, self.next_place, key.clone());
        self.known
            .insert(key, Place::Waiting(self.next_place, task));
        self.next_place += 1;
        self.waiting += 1;
    }

    fn take(&mut self, max: usize, now: Instant, shares: &Shares) -> Vec<HeldTask> {
        let (mut taken, mut fuel) = (Vec::new(), 0_u64);
        let pace = self.pace(now);
        while taken.len() < max && fuel < BATCH_FUEL {
            let Some(entry) = self.next_lane(now, shares) else {
                break;
            };
            self.order.remove(&entry);
            let (time, tenant) = entry;
            let lane = self
                .by_tenant
                .get_mut(&tenant)
                .expect("a lane in the order exists");
            let (number, key) = lane.places.pop().expect("a lane in the order has places");
            let mut rated = None;
            if waits_in(&self.known, number, &key) {
                self.now = self.now.max(time);
                self.waiting -= 1;
                self.running += 1;
                let cancelled = CancellationToken::new();
                let charge = lane.charge();
                lane.due = lane.due.max(now) + pace;
                fuel = fuel.saturating_add(charge.fuel);
                let running = Place::Running(Running {
                    cancelled: cancelled.clone(),
                    charge,
                });
                if let Some(Place::Waiting(_, task)) = self.known.insert(key, running) {
                    rated = task.task.rate_limit.map(|_| gate::name(&task));
                    taken.push(HeldTask {
                        task,
                        cancelled,
                        expected: charge.fuel,
                    });
                }
            } else {
                lane.left -= 1;
            }
            if !lane.places.is_empty() {
                self.order.insert((lane.virtual_time, tenant));
            }
            if let Some(name) = rated {
                self.gates.passed(&name, true, self.passed(now));
                self.open_gates(now, shares);
            }
        }
        taken
    }

    /// The lane that lags most among those that may run something now.
    fn next_lane(&mut self, now: Instant, shares: &Shares) -> Option<(u64, TenantId)> {
        let (free, ahead) = (self.free(), now + AHEAD);
        for entry in &self.order {
            let lane = self
                .by_tenant
                .get_mut(&entry.1)
                .expect("a lane in the order exists");
            if now.saturating_duration_since(lane.share_at) > SHARE_LIFETIME {
                lane.set_share(shares(&entry.1), now);
            }
            lane.refill(now);
            if lane.tokens > 0 && lane.due <= ahead && lane.has_place(free) {
                return Some(entry.clone());
            }
        }
        None
    }

    fn free(&self) -> u32 {
        self.capacity.places.saturating_sub(self.running)
    }

    /// How long after an attempt a lane's next one begins.
    fn pace(&self, now: Instant) -> Duration {
        if self.is_crowded(now) {
            Duration::from_secs(1) / self.capacity.crowded_pace.max(1)
        } else {
            Duration::ZERO
        }
    }

    /// Whether more than one tenant is there.
    fn is_crowded(&self, now: Instant) -> bool {
        self.crowded_until.is_some_and(|until| now < until)
    }

    /// When the first lane that waits for fuel, or for its pace, may go on.
    fn next_refill(&self, now: Instant) -> Option<Instant> {
        let free = self.free();
        let gate = self.gates.opens().and_then(|at| self.began.checked_add(at));
        self.order
            .iter()
            .filter_map(|(_, tenant)| self.by_tenant.get(tenant))
            .filter(|lane| lane.has_place(free))
            .filter_map(|lane| lane.refilled().max(lane.is_due(now)))
            .chain(gate)
            .min()
    }

    fn settle(&mut self, attempt: &AttemptKey, spent: Spent, now: Instant) {
        let (crowded, pace) = (self.is_crowded(now), self.pace(now));
        let Some(Place::Running(running)) = self.known.remove(attempt) else {
            return;
        };
        self.running -= 1;
        let Some(lane) = self.by_tenant.get_mut(&attempt.tenant) else {
            return;
        };
        let waits = !lane.places.is_empty();
        if waits {
            self.order
                .remove(&(lane.virtual_time, attempt.tenant.clone()));
        }
        lane.settle(running.charge, spent.cost);
        if spent.failed && crowded {
            let cost = Duration::from_nanos(spent.cost.min(FAILED_COST_MOST)) * FAILED_COST;
            lane.due = lane.due.max(now) + cost.max(pace * (FAILED - 1));
        }
        if waits {
            self.order
                .insert((lane.virtual_time, attempt.tenant.clone()));
        }
    }

    /// Stops an attempt that runs. One that waits is dropped at once, with its
    /// input; its place is left until it would be taken, or is tidied up. Says whether
    /// others line up in its stead.
    fn cancel(&mut self, attempt: &AttemptKey, at: Instant, shares: &Shares) -> bool {
        if let Some(Place::Running(running)) = self.known.get(attempt) {
            running.cancelled.cancel();
            return false;
        }
        match self.known.remove(attempt) {
            Some(Place::Waiting(_, task)) => {
                self.leave_lane(attempt);
                if task.task.rate_limit.is_none() {
                    return false;
                }
                let passed = self.passed(at);
                self.gates.passed(&gate::name(&task), false, passed);
                self.open_gates(at, shares)
            }
            Some(Place::Gated(..)) => {
                self.leave_gate();
                false
            }
            Some(Place::Running(_)) | None => false,
        }
    }

    /// One less waits at a gate.
    fn leave_gate(&mut self) {
        self.gated -= 1;
        self.gated_left += 1;
        if self.gated_left >= TIDY_FROM && self.gated_left > self.gated {
            let known = &self.known;
            self.gates.retain(
                |number, key| matches!(known.get(key), Some(Place::Gated(at, _)) if *at == number),
            );
            self.gated_left = 0;
        }
    }

    /// One less waits in a lane.
    fn leave_lane(&mut self, attempt: &AttemptKey) {
        self.waiting -= 1;
        let lane = self
            .by_tenant
            .get_mut(&attempt.tenant)
            .expect("what waits has a lane");
        lane.left += 1;
        if lane.places.len() >= TIDY_FROM && lane.left > lane.places.len() / 2 {
            let known = &self.known;
            lane.places
                .retain(|number, key| waits_in(known, number, key));
            lane.left = 0;
            if lane.places.is_empty() {
                self.order
                    .remove(&(lane.virtual_time, attempt.tenant.clone()));
            }
        }
    }
}

/// Whether an attempt waits in this place, and not in another since.
fn waits_in(known: &HashMap<AttemptKey, Place>, number: u64, key: &AttemptKey) -> bool {
    matches!(known.get(key), Some(Place::Waiting(at, _)) if *at == number)
}

impl Lane {
    fn new(share: Share, now: Instant) -> Self {
        Self {
            share,
            places: Line::default(),
            left: 0,
            virtual_time: 0,
            running: 0,
            estimate: FIRST_ESTIMATE,
            tokens: bucket(share),
            refilled_at: now,
            share_at: now,
            due: now,
        }
    }

    fn set_share(&mut self, share: Share, now: Instant) {
        self.share = share;
        self.share_at = now;
        self.tokens = self.tokens.min(bucket(share));
    }

    /// Whether it may run one more attempt where `free` places are left.
    fn has_place(&self, free: u32) -> bool {
        self.running < self.share.concurrent_attempts.min(free)
    }

    fn charge(&mut self) -> Charge {
        let charge = Charge {
            fuel: self.estimate,
            virtual_time: self.weighted(self.estimate),
        };
        self.running += 1;
        self.tokens = self.tokens.saturating_sub_unsigned(charge.fuel);
        self.virtual_time = self.virtual_time.saturating_add(charge.virtual_time);
        charge
    }

    fn settle(&mut self, charge: Charge, used: u64) {
        self.running = self.running.saturating_sub(1);
        self.tokens = self
            .tokens
            .saturating_add_unsigned(charge.fuel)
            .saturating_sub_unsigned(used);
        self.virtual_time = self
            .virtual_time
            .saturating_sub(charge.virtual_time)
            .saturating_add(self.weighted(used));
        self.estimate =
            self.estimate - (self.estimate >> ESTIMATE_SHIFT) + (used >> ESTIMATE_SHIFT);
    }

    /// Virtual time of so much fuel; at least 1, so that every task counts.
    fn weighted(&self, fuel: u64) -> u64 {
        (fuel / u64::from(self.share.weight.max(1))).max(1)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled_at);
        let earned = u128::from(self.share.fuel_per_second) * passed.as_nanos() / 1_000_000_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(bucket(self.share));
            self.refilled_at = now;
        }
    }

    /// When a lane that has run ahead of its pace may go on; `None` if it may now.
    fn is_due(&self, now: Instant) -> Option<Instant> {
        let at = self.due.checked_sub(AHEAD)?;
        (at > now).then_some(at)
    }

    /// When a lane in debt has fuel again; `None` if it has some.
    fn refilled(&self) -> Option<Instant> {
        if self.tokens > 0 {
            return None;
        }
        let debt = self.tokens.unsigned_abs() + 1;
        let nanos =
            u128::from(debt) * 1_000_000_000 / u128::from(self.share.fuel_per_second.max(1));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // A millisecond more spares a second look when the clock is coarse.
        self.refilled_at
            .checked_add(wait + Duration::from_millis(1))
    }
}

/// Size of a share's fuel bucket: what it earns in a second.
fn bucket(share: Share) -> i64 {
    i64::try_from(share.fuel_per_second).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
