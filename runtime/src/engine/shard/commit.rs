//! Commits of a shard, and the effects that wait for them.

use std::collections::HashMap;

use cascade_cdl::TenantId;
use futures::future::BoxFuture;

use super::{
    COMMIT_BYTES, COMMIT_EXECUTIONS, COMMIT_TENANT_BYTES, Fault, InFlight, SPAWN_BYTES, Shard, Slot,
};
use crate::engine::children::Ask;
use crate::engine::live::{Effect, Key};
use crate::engine::notices;
use crate::store::{self, Commit, CommitError};

/// What goes into a commit.
#[derive(Default)]
struct Taking {
    keys: Vec<Key>,
    batch: Vec<Commit>,
    bytes: usize,
    by_tenant: HashMap<TenantId, usize>,
}

impl Taking {
    fn is_full(&self) -> bool {
        self.keys.len() >= COMMIT_EXECUTIONS || self.bytes >= COMMIT_BYTES
    }

    fn of(&self, tenant: &TenantId) -> usize {
        self.by_tenant.get(tenant).copied().unwrap_or(0)
    }
}

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
        let mut taking = Taking::default();
        let mut later = Vec::new();
        for key in std::mem::take(&mut self.urgent) {
            if taking.is_full() || taking.of(&key.0) >= COMMIT_TENANT_BYTES {
                later.push(key);
            } else {
                self.take(key, &mut taking);
            }
        }
        // Room that no other tenant has a use for.
        let mut later = later.into_iter();
        while !taking.is_full()
            && let Some(key) = later.next()
        {
            self.take(key, &mut taking);
        }
        self.urgent.extend(later);
        let Taking {
            keys, batch, bytes, ..
        } = taking;
        if !batch.is_empty() {
            let done = self.write(batch, bytes);
            let since = self.context.clock.passed();
            self.in_flight = Some(InFlight { since, keys, done });
        }
    }

    fn take(&mut self, key: Key, taking: &mut Taking) {
        if let Some(Slot::Live(live)) = self.slots.get_mut(&key) {
            live.listed = false;
            if live.is_dirty() {
                let bytes = live.commit_bytes();
                taking.bytes += bytes;
                match taking.by_tenant.get_mut(&key.0) {
                    Some(taken) => *taken += bytes,
                    None => drop(taking.by_tenant.insert(key.0.clone(), bytes)),
                }
                taking.batch.push(live.take_commit());
            }
        }
        taking.keys.push(key);
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
        let Some(InFlight { keys, since, .. }) = self.in_flight.take() else {
            return Ok(());
        };
        result?;
        let took = self.context.clock.passed().saturating_sub(since);
        self.seat.vitals.committed_in(took);
        for key in keys {
            match self.slots.remove(&key) {
                Some(Slot::Live(mut live)) => {
                    let effects = live.committed();
                    self.context
                        .watch
                        .committed(&key.0, key.1, live.summary.version);
                    if self.seat.node.is_some()
                        && let Some(notice) = notices::notice(&live)
                    {
                        // If there are too many, who waits looks by itself.
                        let _ = self.context.notices.try_send(notice);
                    }
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
            // Nobody takes it when the engine stops; recovery asks again.
            Effect::Child(child) => drop(self.context.children.send(Ask::Start(child))),
            Effect::Cancel(attempt) => {
                self.context.queue.cancel(&attempt);
                drop(self.context.children.send(Ask::GiveUp(attempt)));
            }
            Effect::Orphan(tenant, child) => {
                drop(self.context.children.send(Ask::Orphan(tenant, child)));
            }
            // Callers may have given up waiting.
            Effect::Started(reply, started, turn) => {
                drop(turn);
                drop(reply.send(Ok(started)));
            }
            Effect::Controlled(reply) => drop(reply.send(Ok(()))),
            Effect::Tell(answer) => answer(),
        }
    }
}
