//! Commits of a shard, and the effects that wait for them.

use futures::future::BoxFuture;

use super::{COMMIT_BYTES, COMMIT_EXECUTIONS, Fault, InFlight, SPAWN_BYTES, Shard, Slot};
use crate::engine::live::Effect;
use crate::store::{self, Commit, CommitError};

impl Shard {
    pub(super) fn release_ready(&mut self) {
        if !self.ready.is_empty() {
            self.context.queue.push(std::mem::take(&mut self.ready));
        }
    }

    pub(super) fn begin_commit(&mut self) {
        if self.is_choked() {
            // What is deferred must not keep the shard from going on.
            self.commit_deferred();
        }
        while self.in_flight.is_none() && !self.urgent.is_empty() {
            self.begin_next_commit();
        }
    }

    pub(super) fn begin_next_commit(&mut self) {
        let most = self.urgent.len().min(COMMIT_EXECUTIONS);
        let mut batch = Vec::with_capacity(most);
        let (mut bytes, mut taken) = (0, 0);
        for key in &self.urgent {
            if taken == most || bytes >= COMMIT_BYTES {
                break;
            }
            taken += 1;
            if let Some(Slot::Live(live)) = self.slots.get_mut(key) {
                live.listed = false;
                if live.is_dirty() {
                    bytes += live.commit_bytes();
                    batch.push(live.take_commit());
                }
            }
        }
        let rest = self.urgent.split_off(taken);
        let keys = std::mem::replace(&mut self.urgent, rest);
        if !batch.is_empty() {
            let done = self.write(batch, bytes);
            self.in_flight = Some(InFlight { keys, done });
        }
    }

    fn write(
        &self,
        batch: Vec<Commit>,
        bytes: usize,
    ) -> BoxFuture<'static, Result<(), CommitError>> {
        let store = self.context.store.clone();
        let lease = self.lease.clone();
        let write = async move { store.commit(&lease, batch).await };
        if bytes < SPAWN_BYTES {
            return Box::pin(write);
        }
        // If the shard starts again meanwhile, the commit goes on and is fenced
        // off by the epoch.
        let write = tokio::spawn(write);
        Box::pin(async move {
            match write.await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime ends.
                    Err(_) => Err(store::Error::Closed.into()),
                },
            }
        })
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
