//! Which shard has an execution.
//!
//! An execution is in the bucket of its shard key, if its workflow has one, else in
//! that of its id. Its row says which; so whoever has only an id asks the store, by
//! the index that loads it, and nobody has to ask where one shard has all buckets.
//!
//! Two starts of one id may ask for two buckets: their inputs differ, or the workflow
//! has another key by now. Starts that are named (by id, by idempotency key, as a
//! child) therefore take turns: each looks where the execution is, and keeps its turn
//! until its own start is durable or refused. The turns are in memory only. Where two
//! servers share a store, and while a shard starts again, the store has the last word:
//! an execution is created once, and whoever comes second starts again from the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cascade_cdl::{Beginning, ExecutionId, TenantId};
use tokio::sync::oneshot;

use super::live::Key;
use super::{Context, Start, StartError};
use crate::store;

/// Starts that are on their way, by what they start. Each has a place of its tenant,
/// and those are bounded.
#[derive(Default)]
pub(super) struct Placements {
    entries: Mutex<HashMap<Key, Entry>>,
}

#[derive(Default)]
struct Entry {
    /// Where the start went whose turn it is.
    bucket: Option<u32>,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to start an execution, if it is not there; passed on when it is dropped.
pub(super) struct Turn {
    placements: Arc<Placements>,
    /// `None` once it was passed on.
    key: Option<Key>,
}

impl Placements {
    /// Waits for the turn to start an execution.
    pub(super) async fn take(self: &Arc<Self>, key: Key) -> Turn {
        let waits = {
            let mut entries = self.lock();
            if let Some(entry) = entries.get_mut(&key) {
                let (passed_on, turn) = oneshot::channel();
                entry.waiting.push_back(passed_on);
                turn
            } else {
                entries.insert(key.clone(), Entry::default());
                return Turn {
                    placements: Arc::clone(self),
                    key: Some(key),
                };
            }
        };
        waits.await.expect("a turn is passed on, never lost")
    }

    /// Where a start is that is on its way.
    fn bucket(&self, key: &Key) -> Option<u32> {
        self.lock().get(key)?.bucket
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        // Each change is complete before anything can panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Notes where the start has gone: what is done to it by its id follows it there.
    pub(super) fn went_to(&self, bucket: u32) {
        let mut entries = self.placements.lock();
        if let Some(entry) = self.key.as_ref().and_then(|key| entries.get_mut(key)) {
            entry.bucket = Some(bucket);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut entries = self.placements.lock();
        let Some(entry) = entries.get_mut(&key) else {
            return;
        };
        entry.bucket = None;
        let mut turn = Self {
            placements: Arc::clone(&self.placements),
            key: Some(key),
        };
        while let Some(next) = entry.waiting.pop_front() {
            match next.send(turn) {
                Ok(()) => return,
                // Who waited has gone.
                Err(back) => turn = back,
            }
        }
        if let Some(key) = turn.key.take() {
            entries.remove(&key);
        }
    }
}

impl Context {
    /// The shard key of a start, if its input gives one.
    pub(super) fn shard_key(
        &self,
        program: &cascade_cdl::program::Program,
        start: &Start,
        id: ExecutionId,
    ) -> Result<Option<Arc<str>>, StartError> {
        let key = program.shard_key_of(&Beginning {
            id,
            tenant: &start.tenant,
            input: &start.input,
            now: self.clock.now(),
            shards: self.settings.filter_shards,
        });
        Ok(key?)
    }

    /// Which bucket an execution is in; that of its id if it is nowhere.
    pub(super) async fn find(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
    ) -> Result<u32, store::Error> {
        if self.settings.shards == 1 {
            return Ok(id.bucket()); // all buckets lead to the one shard
        }
        let key = (tenant.clone(), id);
        if let Some(bucket) = self.placements.bucket(&key) {
            return Ok(bucket);
        }
        let row = self.store.summary(tenant, id).await?;
        Ok(row.map_or_else(|| id.bucket(), |row| row.bucket))
    }

    /// Whose turn it is to start a named execution, and in which bucket it is, or is to
    /// be started.
    pub(super) async fn place(
        &self,
        key: Key,
        wanted: u32,
    ) -> Result<(Option<Turn>, u32), store::Error> {
        if self.settings.shards == 1 {
            return Ok((None, wanted)); // the shard itself lets one follow the other
        }
        let turn = self.placements.take(key.clone()).await;
        let row = self.store.summary(&key.0, key.1).await?;
        Ok((Some(turn), row.map_or(wanted, |row| row.bucket)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key(number: u128) -> Key {
        let tenant = "acme".parse().expect("valid");
        (tenant, ExecutionId(uuid::Uuid::from_u128(number)))
    }

    #[tokio::test]
    async fn starts_of_one_execution_take_turns_in_order() {
        let placements = Arc::new(Placements::default());
        let first = placements.take(key(1)).await;
        first.went_to(7);
        assert_eq!(placements.bucket(&key(1)), Some(7));
        assert_eq!(placements.bucket(&key(2)), None);
        let mut second = Box::pin(placements.take(key(1)));
        let mut third = Box::pin(placements.take(key(1)));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        assert!(placements.take(key(2)).now_or_never().is_some(), "another");
        drop(first);
        assert!(
            (&mut third).now_or_never().is_none(),
            "not before the second"
        );
        let second = second.now_or_never().expect("its turn");
        assert_eq!(placements.bucket(&key(1)), None, "it has gone nowhere yet");
        drop(second);
        drop(third.now_or_never().expect("its turn"));
        assert!(placements.lock().is_empty(), "nothing is left");
    }

    #[tokio::test]
    async fn a_turn_passes_those_who_have_gone() {
        let placements = Arc::new(Placements::default());
        let first = placements.take(key(1)).await;
        let mut goes = Box::pin(placements.take(key(1)));
        let mut goes_late = Box::pin(placements.take(key(1)));
        let mut stays = Box::pin(placements.take(key(1)));
        for waits in [&mut goes, &mut goes_late, &mut stays] {
            assert!(waits.now_or_never().is_none());
        }
        drop(goes);
        drop(first);
        // It was passed the turn, and never took it.
        drop(goes_late);
        drop(stays.now_or_never().expect("its turn"));
        assert!(placements.lock().is_empty(), "nothing is left");
    }
}
