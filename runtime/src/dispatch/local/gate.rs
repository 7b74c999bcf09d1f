//! Attempts that wait until the rate of their state allows another.
//!
//! A gate stands in front of a lane's line, one for each state with a rate, and lets one
//! attempt of it into the line at a time, when the next may begin. What it counts is the
//! attempt that a worker takes: one that waits for a worker afterwards holds the gate, so
//! that those behind it cannot come in a heap. Nobody else waits for a gate.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cascade_cdl::TenantId;
use cascade_cdl::program::Rate;

use super::super::{AttemptKey, QueuedTask};
use super::line::Line;
use crate::rate::Meter;

/// How much of a rate may come at once in any case: workers take what is there in
/// batches, and a rate of thousands must not wait for each of them.
const BATCH: Duration = Duration::from_millis(10);

/// What a rate counts for: tenant, application, workflow and state. States of one
/// name in one workflow count together.
pub(super) type Name = (TenantId, Arc<str>, Arc<str>, Arc<str>);

/// All gates.
#[derive(Default)]
pub(super) struct Gates {
    by_name: HashMap<Name, Gate>,
    /// When gates are to be looked at next.
    due: BTreeSet<(Duration, Name)>,
}

struct Gate {
    rate: Rate,
    meter: Meter,
    line: Line,
    /// Whether one of it is in the line of the lane.
    offered: bool,
    /// Its entry in `due`.
    at: Option<Duration>,
}

/// The gate that a task has to pass.
pub(super) fn name(task: &QueuedTask) -> Name {
    (
        task.tenant.clone(),
        Arc::clone(&task.application),
        Arc::clone(&task.workflow),
        Arc::clone(&task.task.state),
    )
}

impl Gates {
    /// Has an attempt wait. The newest rate holds: that of the newest version.
    pub(super) fn push(&mut self, task: &QueuedTask, rate: Rate, number: u64, now: Duration) {
        let name = name(task);
        let gate = self.by_name.entry(name.clone()).or_insert_with(|| Gate {
            rate,
            meter: Meter::default(),
            line: Line::default(),
            offered: false,
            at: None,
        });
        gate.rate = rate;
        gate.meter.keep_to(&rate, now);
        gate.line.push(task.task.priority, number, task.key());
        self.schedule(&name, now);
    }

    /// The next attempt that a gate lets pass now, if there is one. `waits` says whether
    /// anybody waits in a place.
    pub(super) fn pass(
        &mut self,
        now: Duration,
        mut waits: impl FnMut(u64, &AttemptKey) -> bool,
    ) -> Option<AttemptKey> {
        while let Some((at, name)) = self.due.first().cloned() {
            if at > now {
                return None;
            }
            self.due.remove(&(at, name.clone()));
            let Some(gate) = self.by_name.get_mut(&name) else {
                continue;
            };
            gate.at = None;
            if gate.offered {
                continue;
            }
            while let Some((number, key)) = gate.line.pop() {
                if waits(number, &key) {
                    gate.offered = true;
                    return Some(key);
                }
            }
            if gate.meter.is_idle(now) {
                self.by_name.remove(&name);
            } else {
                self.schedule(&name, now);
            }
        }
        None
    }

    /// The attempt that passed left the line: a worker took it, or nobody waits for it.
    pub(super) fn passed(&mut self, name: &Name, taken: bool, now: Duration) {
        if let Some(gate) = self.by_name.get_mut(name) {
            gate.offered = false;
            if taken {
                gate.meter.count(&gate.rate, now);
            }
            self.schedule(name, now);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.due.is_empty()
    }

    /// When the next gate opens.
    pub(super) fn opens(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Drops the places in which nobody waits.
    pub(super) fn retain(&mut self, waits: impl Fn(u64, &AttemptKey) -> bool) {
        for gate in self.by_name.values_mut() {
            gate.line.retain(&waits);
        }
    }

    fn schedule(&mut self, name: &Name, now: Duration) {
        let Some(gate) = self.by_name.get_mut(name) else {
            return;
        };
        if gate.offered {
            return; // it comes back when that one has gone
        }
        let at = if gate.line.is_empty() {
            // To be forgotten.
            gate.meter.forgets_at()
        } else {
            gate.meter.earliest(&gate.rate, gate.burst()).max(now)
        };
        if let Some(before) = gate.at.replace(at) {
            self.due.remove(&(before, name.clone()));
        }
        self.due.insert((at, name.clone()));
    }
}

impl Gate {
    fn burst(&self) -> u32 {
        let batch = BATCH.as_nanos() / self.rate.interval().as_nanos().max(1);
        self.rate
            .burst
            .max(u32::try_from(batch).unwrap_or(u32::MAX))
    }
}
