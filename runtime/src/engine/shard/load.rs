//! How a shard gets executions out of the store: one at a time when somebody
//! touches them, all that are open when it starts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::stream::StreamExt;

use super::{LOAD_AGAIN, LOADS, LoadResult, RECOVERY_PAGE, RESTART_PAUSE, Shard, Slot, Touch};
use crate::engine::children::{Ask, goes_with_parent};
use crate::engine::live::{Away, Key, Live, read};
use crate::engine::owners::Seat;
use crate::engine::{Context, ControlError, StartError};
use crate::store::{self, StatusName};

impl Shard {
    /// Reads an execution to do something to it; `away` is what the shard has kept of it.
    pub(super) fn load(&mut self, key: Key, touch: Touch, away: Option<Box<Away>>) {
        self.slots
            .insert(key.clone(), Slot::Loading(vec![touch], away));
        self.waiting_loads.push_back(key);
        self.begin_loads();
    }

    pub(super) fn begin_loads(&mut self) {
        while self.loads.len() < LOADS && !self.is_choked() {
            let Some(key) = self.waiting_loads.pop_front() else {
                return;
            };
            let context = self.context.clone();
            self.loads.push(Box::pin(read_apart(context, key)));
        }
    }

    pub(super) fn loaded(&mut self, key: &Key, result: LoadResult) {
        let Some(Slot::Loading(touches, away)) = self.slots.remove(key) else {
            return;
        };
        match result {
            Ok(Some(found)) => {
                let live = match away {
                    Some(away) => away.back(*found),
                    None => Live::restored(*found, self.charge(&key.0)),
                };
                let mut live = Box::new(live);
                if goes_with_parent(live.execution()).is_some() {
                    let check = Ask::Check(key.0.clone(), key.1);
                    drop(self.context.children.send(check));
                }
                if !live.unasked().is_empty() {
                    self.park(&mut live);
                }
                self.settle(live, true);
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
                if matches!(error, store::Error::Damaged(_)) {
                    self.unpark(&key.0, key.1);
                } else {
                    self.load_again(key, &touches, away);
                }
                for touch in touches {
                    refuse(touch, Some(&error));
                }
            }
        }
    }

    /// Wakes an execution that could not be read a little later, if nobody else would.
    fn load_again(&mut self, key: &Key, touches: &[Touch], away: Option<Box<Away>>) {
        let ours = |touch: &Touch| matches!(touch, Touch::Wake | Touch::Resume);
        if touches.iter().any(ours) {
            let again = self.context.clock.now().plus(LOAD_AGAIN);
            self.timers.insert((again, key.clone()));
        }
        if let Some(mut away) = away {
            away.reserve(0);
            self.slots.insert(key.clone(), Slot::Away(away));
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
    /// whose end is not known; where there is no memory for more, later.
    pub(super) async fn recover(&mut self) -> Result<(), store::Error> {
        let buckets = self.seat.buckets.clone();
        let (mut open, mut after) = (0_u64, None);
        loop {
            let page = self
                .context
                .store
                .open_executions(buckets.clone(), after, RECOVERY_PAGE)
                .await?;
            open += page.items.len() as u64;
            for summary in page.items {
                let key = (summary.tenant, summary.id);
                self.holding(&key.0).opened();
                if let Some(at) = summary.wake_at {
                    self.timers.insert((at, key.clone()));
                }
                // What waits for time, signals or people is read when they come, and
                // what is paused when it is resumed; but a child may have lost its
                // parent: see `engine/children.rs`.
                let rests = summary.idle || summary.status == StatusName::Paused;
                if !rests || key.1.may_be_child() {
                    self.park_unread(key);
                }
            }
            self.read_parked().await?;
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

    /// Reads parked executions for as long as there is memory.
    async fn read_parked(&mut self) -> Result<(), store::Error> {
        loop {
            self.resume_parked();
            let Some((key, result)) = self.loads.next().await else {
                return Ok(());
            };
            match result {
                Err(error) if !matches!(error, store::Error::Damaged(_)) => return Err(error),
                result => self.loaded(&key, result),
            }
            self.begin_loads();
        }
    }
}

/// Opens a shard again, however often it takes; `None` if somebody else has it by now.
pub(super) async fn reopen(seat: &Seat, context: &Arc<Context>) -> Option<Shard> {
    let id = seat.shard;
    loop {
        tokio::time::sleep(RESTART_PAUSE).await;
        let opened = async {
            let Some(lease) = seat.acquire(context).await? else {
                return Ok(None);
            };
            let opened = Shard::open(seat.clone(), lease, context.clone());
            opened.await.map(Some)
        };
        let opened: Result<Result<_, store::Error>, _> =
            AssertUnwindSafe(opened).catch_unwind().await;
        match opened {
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
        Touch::Control(request) => drop(request.reply.send(Err(control()))),
        Touch::Report(..) | Touch::Wake | Touch::Resume => {}
    }
}
