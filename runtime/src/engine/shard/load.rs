//! How a shard gets executions out of the store: one at a time when somebody
//! touches them, all that are open when it starts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::stream::StreamExt;

use super::{LOAD_AGAIN, LOADS, LoadResult, RECOVERY_PAGE, RESTART_PAUSE, Shard, Slot, Touch};
use crate::engine::live::{Key, Live, read};
use crate::engine::{Context, ControlError, StartError, buckets};
use crate::store::{self, ShardId};

impl Shard {
    pub(super) fn load(&mut self, key: Key, touch: Touch) {
        self.slots.insert(key.clone(), Slot::Loading(vec![touch]));
        self.waiting_loads.push_back(key);
        self.begin_loads();
    }

    pub(super) fn begin_loads(&mut self) {
        while self.loads.len() < LOADS {
            let Some(key) = self.waiting_loads.pop_front() else {
                return;
            };
            let context = self.context.clone();
            self.loads.push(Box::pin(read_apart(context, key)));
        }
    }

    pub(super) fn loaded(&mut self, key: &Key, result: LoadResult) {
        self.begin_loads();
        let Some(Slot::Loading(touches)) = self.slots.remove(key) else {
            return;
        };
        match result {
            Ok(Some(found)) => {
                self.settle(Box::new(Live::restored(*found)), true);
                for touch in touches {
                    self.touch(key.clone(), touch);
                }
                self.release_closed(key);
            }
            Ok(None) => {
                for touch in touches {
                    match touch {
                        Touch::Start(start) if !self.slots.contains_key(key) => {
                            self.create(*start);
                        }
                        touch if self.slots.contains_key(key) => self.touch(key.clone(), touch),
                        touch => refuse(touch, None),
                    }
                }
            }
            Err(error) => {
                tracing::error!(execution.id = %key.1, %error, "execution not loaded");
                let sleeps = touches.iter().any(|touch| matches!(touch, Touch::Wake));
                if sleeps && !matches!(error, store::Error::Damaged(_)) {
                    let again = self.context.clock.now().plus(LOAD_AGAIN);
                    self.timers.insert((again, key.clone()));
                }
                for touch in touches {
                    refuse(touch, Some(&error));
                }
            }
        }
    }

    /// Lets go of an execution that has ended and that nothing holds.
    pub(super) fn release_closed(&mut self, key: &Key) {
        match self.slots.remove(key) {
            Some(Slot::Live(live)) => self.settle(live, false),
            // A touch has put it away already, or reads it once more.
            Some(other) => drop(self.slots.insert(key.clone(), other)),
            None => {}
        }
    }

    /// Reads what is open, sets the timers, and asks again for every attempt
    /// whose end is not known.
    pub(super) async fn recover(&mut self) -> Result<(), store::Error> {
        let buckets = buckets(self.lease.shard.0, self.context.settings.shards);
        let (mut open, mut after) = (0_u64, None);
        loop {
            let page = self
                .context
                .store
                .open_executions(buckets.clone(), after, RECOVERY_PAGE)
                .await?;
            open += page.items.len() as u64;
            let mut restless = Vec::new();
            for summary in page.items {
                let key = (summary.tenant, summary.id);
                self.count(&key.0);
                match summary.wake_at {
                    Some(at) if summary.idle => drop(self.timers.insert((at, key))),
                    _ => restless.push(key),
                }
            }
            self.resume(restless).await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if open > 0 {
            tracing::info!(shard.id = self.lease.shard.0, open, "shard recovered");
        }
        Ok(())
    }

    pub(super) async fn resume(&mut self, keys: Vec<Key>) -> Result<(), store::Error> {
        let context = self.context.clone();
        let mut reads = futures::stream::iter(keys)
            .map(|key| read_apart(context.clone(), key))
            .buffer_unordered(LOADS);
        while let Some((key, result)) = reads.next().await {
            match result {
                Ok(Some(found)) => {
                    let mut live = Box::new(Live::restored(*found));
                    for task in live.execution().pending_tasks(&live.program) {
                        self.schedule(&mut live, task);
                    }
                    // What is asked again has its cause in the store already.
                    for effect in std::mem::take(&mut live.held) {
                        self.release(effect);
                    }
                    live.urgent = false;
                    self.settle(live, false);
                }
                Ok(None) => {}
                Err(store::Error::Damaged(what)) => {
                    tracing::error!(execution.id = %key.1, what, "execution set aside");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens a shard again, however often it takes.
pub(super) async fn reopen(id: ShardId, context: &Arc<Context>) -> Shard {
    loop {
        tokio::time::sleep(RESTART_PAUSE).await;
        let opened = AssertUnwindSafe(Shard::open(id, context.clone())).catch_unwind();
        match opened.await {
            Ok(Ok(shard)) => return shard,
            Ok(Err(error)) => tracing::error!(shard.id = id.0, %error, "shard not recovered"),
            Err(_) => tracing::error!(shard.id = id.0, "shard panicked while it recovered"),
        }
    }
}

/// Reads an execution on a task of its own: replaying a long history takes a while.
async fn read_apart(context: Arc<Context>, key: Key) -> (Key, LoadResult) {
    let wanted = key.clone();
    let read = tokio::spawn(async move { read(&context, &wanted).await });
    let result = match read.await {
        Ok(result) => result.map(|found| found.map(Box::new)),
        // The next reader would fare no better.
        Err(error) => Err(store::Error::Damaged(format!("while it was read: {error}"))),
    };
    (key, result)
}

/// Answers a touch of an execution that is not there, or cannot be read.
fn refuse(touch: Touch, error: Option<&store::Error>) {
    let control = || {
        error.map_or(ControlError::NotFound, |error| {
            ControlError::Store(error.clone())
        })
    };
    match touch {
        Touch::Start(start) => {
            if let Some(error) = error {
                let _ = start.started.send(Err(StartError::Store(error.clone())));
            }
        }
        Touch::Cancel(_, reply) | Touch::Retry(reply) => drop(reply.send(Err(control()))),
        Touch::Report(_) | Touch::Wake => {}
    }
}
