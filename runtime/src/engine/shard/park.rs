//! Executions that leave memory, and come back.
//!
//! What sleeps is frozen, or only in the store. What waits for attempts stays,
//! as long as its tenant has memory left (`open_bytes`). Beyond that, an
//! execution *parks*: what it would ask for next waits until there is memory,
//! and the execution waits in the store, as do those whose attempts are on
//! their way. So outputs that accumulate, and recovery of more than fits, cost
//! time and not memory. Each parked execution is read once there is room for
//! it, one at least at a time, so that every tenant gets on.

use cascade_cdl::{ExecutionId, TenantId};

use super::{LOADS, SHORT_NAP, Shard, Slot, Touch};
use crate::engine::live::{Away, Frozen, Key, Live};
use crate::engine::{Admission, Full};

impl Shard {
    /// Checks that a tenant may have one more open execution. Those that are
    /// parked come first.
    pub(super) fn admit(&mut self, tenant: &TenantId, admission: &Admission) -> Result<(), Full> {
        let share = self.share(admission);
        let holding = self.holding(tenant);
        holding.set_share(share);
        holding.usage().admit(admission)?;
        if self.parked.contains_key(tenant) {
            return Err(Full::Bytes {
                limit: admission.open_bytes,
            });
        }
        Ok(())
    }

    /// Whether the execution's tenant has no memory left.
    pub(super) fn is_full(&self, live: &Live) -> bool {
        let holding = live.holding();
        if !holding.is_full() {
            return false;
        }
        // Starts tell of a new limit, and may come no more; so it is looked up
        // where it matters.
        let admission = self.context.definitions.admission(&live.summary.tenant);
        holding.set_share(self.share(&admission));
        holding.is_full()
    }

    /// Has an execution wait for memory before it asks for more.
    pub(super) fn park(&mut self, live: &mut Live) {
        live.parked = true;
        let waiting = self.parked.entry(live.summary.tenant.clone()).or_default();
        waiting.insert(live.summary.id);
    }

    /// The same for one that has not been read yet.
    pub(super) fn park_unread(&mut self, key: Key) {
        let away = Away::unread(self.charge(&key.0));
        self.parked.entry(key.0.clone()).or_default().insert(key.1);
        self.slots.insert(key, Slot::Away(Box::new(away)));
    }

    pub(super) fn unpark(&mut self, tenant: &TenantId, id: ExecutionId) {
        if let Some(waiting) = self.parked.get_mut(tenant) {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.parked.remove(tenant);
            }
        }
    }

    /// Lets parked executions go on where there is memory, tenant by tenant.
    pub(super) fn resume_parked(&mut self) {
        if self.parked.is_empty() || self.stopping {
            return;
        }
        let mut tenants: Vec<_> = self.parked.keys().cloned().collect();
        // So that not always the same come first.
        let first = self.resumed % tenants.len();
        tenants.rotate_left(first);
        self.resumed = self.resumed.wrapping_add(1);
        while !tenants.is_empty() && self.loads.len() + self.waiting_loads.len() < LOADS {
            tenants.retain(|tenant| self.resume_one(tenant));
        }
    }

    /// Lets one parked execution of a tenant go on; says whether there was one,
    /// and room for it.
    fn resume_one(&mut self, tenant: &TenantId) -> bool {
        let admission = self.context.definitions.admission(tenant);
        let share = self.share(&admission);
        let holding = self.holding(tenant);
        holding.set_share(share);
        if holding.is_full() {
            return false;
        }
        // By id, which mostly is by age: what began first ends first.
        let Some(id) = self.parked.get(tenant).and_then(|ids| ids.first().copied()) else {
            return false;
        };
        self.unpark(tenant, id);
        let key = (tenant.clone(), id);
        if let Some(Slot::Away(away)) = self.slots.get_mut(&key) {
            // Counted as a part of the share until its size is known, so that a
            // tenant with little room does not read many at once.
            away.reserve((share / LOADS as u64).max(1));
        }
        self.touch(key, Touch::Resume);
        true
    }

    /// Asks for all that an execution waits for.
    pub(super) fn resume(&mut self, mut live: Box<Live>) {
        self.unpark(&live.summary.tenant, live.summary.id);
        live.parked = false;
        for task in live.unasked() {
            self.schedule(&mut live, task);
        }
        if live.is_durable() {
            // The cause of what is asked for is in the store already.
            for effect in std::mem::take(&mut live.held) {
                self.release(effect);
            }
            live.urgent = false;
        }
        self.settle(live, false);
    }

    /// Puts away an execution that is durable and open, unless it should stay.
    pub(super) fn leave(&mut self, live: Box<Live>) -> Option<Box<Live>> {
        if live.summary.idle {
            let now = self.context.clock.now();
            if live.wake.is_some_and(|at| at.since(now) < SHORT_NAP) {
                return Some(live);
            }
            if self.frozen_bytes < self.context.settings.frozen_bytes {
                return self.freeze(live);
            }
        } else if !self.is_full(&live) && !live.rests() {
            return Some(live);
        }
        // Its timer stays, and the store has the rest, but not who waits.
        let (key, parked) = (live.key(), live.parked);
        let away = Away::leave(*live);
        if parked || away.is_needed() {
            self.slots.insert(key, Slot::Away(Box::new(away)));
        }
        None
    }

    /// Keeps a sleeping execution as bytes.
    fn freeze(&mut self, mut live: Box<Live>) -> Option<Box<Live>> {
        match Frozen::freeze(&mut live) {
            Ok(frozen) => {
                self.frozen_bytes += frozen.size();
                self.slots
                    .insert(live.key(), Slot::Frozen(Box::new(frozen)));
                None
            }
            Err(error) => {
                tracing::error!(execution.id = %live.summary.id, %error, "not frozen");
                Some(live)
            }
        }
    }
}
