//! Commits of a shard, and the effects that wait for them.

use super::{COMMIT_EXECUTIONS, Fault, InFlight, Shard, Slot};
use crate::engine::live::Effect;
use crate::store::{Commit, CommitError};

impl Shard {
    pub(super) fn release_ready(&mut self) {
        if !self.ready.is_empty() {
            self.context.queue.push(std::mem::take(&mut self.ready));
        }
    }

    pub(super) fn begin_commit(&mut self) {
        while self.in_flight.is_none() && !self.urgent.is_empty() {
            self.begin_next_commit();
        }
    }

    pub(super) fn begin_next_commit(&mut self) {
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

    pub(super) fn committed(&mut self, result: Result<(), CommitError>) -> Result<(), Fault> {
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
    pub(super) fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Dispatch(task) => self.ready.push(*task),
            Effect::Cancel(attempt) => self.context.queue.cancel(&attempt),
            // Callers may have given up waiting.
            Effect::Started(reply, started) => drop(reply.send(Ok(started))),
            Effect::Controlled(reply) => drop(reply.send(Ok(()))),
            Effect::Refused(answer) => answer(),
        }
    }
}
