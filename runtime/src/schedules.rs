//! Starts workflows by the time, as the schedules of applications say.
//!
//! What is due, and what becomes of it, is [`cascade_cdl::schedule`]'s business. One task
//! (`schedules/keeper.rs`) keeps the states of all schedules: it takes in what happens,
//! makes the new states durable, many in one transaction, and then does what they say. It
//! sleeps until the next time that is due; nothing is polled.
//!
//! Of several processes one keeps them all: the owner of the shard with [`KEEPER_BUCKET`],
//! whose lease fences what it writes. When that changes hands, the next owner takes them up
//! from the store.
//!
//! A crash loses nothing: what was decided is in the store, and is done again after the
//! next start, by the same ids; what was not decided is still after the position.

mod keeper;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cascade_cdl::program::Application;
use cascade_cdl::schedule::{BackfillError, Key, Overlap, Schedule, State, TriggerError};
use cascade_cdl::{ExecutionId, TenantId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::{Engine, KEEPER_BUCKET};
use crate::store::{self, Store};
use keeper::Keeper;
use work::Tools;

/// Requests that may wait: people and scripts ask, not machines; beyond it they wait
/// themselves.
const WAITING: usize = 256;

/// An application's schedules, as they are in force.
#[derive(Debug, Clone)]
pub struct InForce {
    pub tenant: TenantId,
    pub application: Arc<str>,
    /// Counted from 1; what comes late of an older version is passed over.
    pub version: u32,
    /// Since when it is in force.
    pub since: Timestamp,
    pub schedules: Vec<Arc<Schedule>>,
}

impl InForce {
    /// Those of a version of an application.
    pub fn of(
        tenant: &TenantId,
        application: &Application,
        version: u32,
        since: Timestamp,
    ) -> Self {
        Self {
            tenant: tenant.clone(),
            application: application.name.as_str().into(),
            version,
            since,
            schedules: application.schedules.values().cloned().collect(),
        }
    }
}

/// A schedule, and how far it is.
#[derive(Debug)]
pub struct Shown {
    pub key: Key,
    pub schedule: Arc<Schedule>,
    pub state: State,
}

/// What was asked for by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triggered {
    pub id: ExecutionId,
    /// The time that it is about.
    pub at: Timestamp,
    /// Whether it waits for others to end.
    pub waits: bool,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such schedule")]
    NotFound,
    #[error(transparent)]
    Trigger(#[from] TriggerError),
    #[error(transparent)]
    Backfill(#[from] BackfillError),
    /// The server stops.
    #[error("the server stops; ask again")]
    Interrupted,
    #[error(transparent)]
    Store(#[from] store::Error),
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the keeper is asked for.
enum Request {
    Applied(InForce, oneshot::Sender<()>),
    Trigger {
        key: Key,
        id: ExecutionId,
        overlap: Option<Overlap>,
        reply: Reply<Triggered>,
    },
    Backfill {
        key: Key,
        range: (Timestamp, Timestamp),
        overlap: Option<Overlap>,
        reply: Reply<usize>,
    },
    Pause {
        key: Key,
        reason: String,
        reply: Reply<()>,
    },
    Resume {
        key: Key,
        reply: Reply<()>,
    },
}

/// The schedules of all applications as they are in force, whenever somebody asks.
pub type AllInForce = Arc<dyn Fn() -> Vec<InForce> + Send + Sync>;

/// Pause before schedules that could not be taken up are taken up again.
const TAKE_UP_AGAIN: Duration = Duration::from_secs(1);

type Board = RwLock<BTreeMap<Key, Arc<Shown>>>;

/// A handle to all schedules of this process. Cheap to clone.
#[derive(Clone)]
pub struct Schedules(Arc<Inner>);

struct Inner {
    requests: mpsc::Sender<Request>,
    board: Arc<Board>,
    /// Whether the schedules are kept here, so that the board shows them.
    kept: watch::Receiver<bool>,
    stopping: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Schedules {
    /// Takes up what the store knows of the schedules in force, and keeps them for as long as
    /// their bucket is here.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn open(
        engine: Engine,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        in_force: AllInForce,
    ) -> Result<Self, store::Error> {
        let board = Arc::new(Board::default());
        let mut keeping = Keeping {
            tools: Tools {
                engine,
                store,
                clock,
            },
            board: board.clone(),
            in_force,
        };
        let first = keeping.take_up().await?;
        let (kept, is_kept) = watch::channel(first.is_some());
        let (requests, inbox) = mpsc::channel(WAITING);
        let stopping = CancellationToken::new();
        let task = tokio::spawn(keeping.run(first, kept, inbox, stopping.clone()));
        Ok(Self(Arc::new(Inner {
            requests,
            board,
            kept: is_kept,
            stopping,
            task: tokio::sync::Mutex::new(Some(task)),
        })))
    }

    /// An application has another version now. Returns when its schedules are shown; they
    /// are kept even if the store does not answer at the moment.
    pub async fn applied(&self, in_force: InForce) {
        let (reply, done) = oneshot::channel();
        let request = Request::Applied(in_force, reply);
        if self.0.requests.send(request).await.is_ok() {
            // If the server stops, the next start finds the version in the catalog.
            let _ = done.await;
        }
    }

    /// Whether the schedules are kept here, or soon will be.
    pub async fn are_kept(&self, patience: Duration) -> bool {
        let mut kept = self.0.kept.clone();
        let soon = tokio::time::timeout(patience, kept.wait_for(|kept| *kept));
        matches!(soon.await, Ok(Ok(_)))
    }

    /// The schedules of a tenant, by application and name.
    pub fn list(&self, tenant: &TenantId) -> Vec<Arc<Shown>> {
        let board = self.0.board.read().unwrap_or_else(PoisonError::into_inner);
        let first = Key {
            tenant: tenant.clone(),
            application: "".into(),
            name: "".into(),
        };
        let own = board
            .range(first..)
            .take_while(|(key, _)| key.tenant == *tenant);
        own.map(|(_, shown)| shown.clone()).collect()
    }

    /// A schedule.
    pub fn show(&self, key: &Key) -> Option<Arc<Shown>> {
        let board = self.0.board.read().unwrap_or_else(PoisonError::into_inner);
        board.get(key).cloned()
    }

    /// Starts an execution of a schedule now; returns when it is durable that it will be
    /// started. The same words are the same execution.
    pub async fn trigger(
        &self,
        key: Key,
        words: &str,
        overlap: Option<Overlap>,
    ) -> Result<Triggered, Error> {
        let id = key.triggered(words);
        self.ask(|reply| Request::Trigger {
            key,
            id,
            overlap,
            reply,
        })
        .await
    }

    /// Starts what was left out between two times, both included; says how many times that
    /// is. What a time has started before is not started again.
    pub async fn backfill(
        &self,
        key: Key,
        range: (Timestamp, Timestamp),
        overlap: Option<Overlap>,
    ) -> Result<usize, Error> {
        self.ask(|reply| Request::Backfill {
            key,
            range,
            overlap,
            reply,
        })
        .await
    }

    /// Lets a schedule start nothing by the time. One that is paused stays so.
    pub async fn pause(&self, key: Key, reason: String) -> Result<(), Error> {
        self.ask(|reply| Request::Pause { key, reason, reply })
            .await
    }

    /// Lets a paused schedule go on.
    pub async fn resume(&self, key: Key) -> Result<(), Error> {
        self.ask(|reply| Request::Resume { key, reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.requests.send(request(reply)).await;
        sent.map_err(|_| Error::Interrupted)?;
        answer.await.map_err(|_| Error::Interrupted)?
    }

    /// Starts nothing any more. What was decided is started after the next start.
    pub async fn shutdown(&self) {
        self.0.stopping.cancel();
        if let Some(task) = self.0.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the keeper of the schedules ended badly");
        }
    }
}

/// Keeps the schedules whenever they are to be kept here.
struct Keeping {
    tools: Tools,
    board: Arc<Board>,
    in_force: AllInForce,
}

impl Keeping {
    /// Takes the schedules up, if they are to be kept here.
    async fn take_up(&mut self) -> Result<Option<Keeper>, store::Error> {
        let Some(lease) = self.tools.engine.lease_of(KEEPER_BUCKET) else {
            return Ok(None);
        };
        let mut keeper = Keeper::new(self.tools.clone(), self.board.clone(), lease);
        keeper.load((self.in_force)()).await?;
        Ok(Some(keeper))
    }

    /// Serves until it is told to stop.
    async fn run(
        mut self,
        first: Option<Keeper>,
        kept: watch::Sender<bool>,
        mut inbox: mpsc::Receiver<Request>,
        stopping: CancellationToken,
    ) {
        let mut next = first;
        loop {
            let keeper = match next.take() {
                Some(keeper) => keeper,
                None => match self.turn(&mut inbox, &stopping).await {
                    Some(keeper) => keeper,
                    None => return,
                },
            };
            kept.send_replace(true);
            keeper.run(&mut inbox, &stopping).await;
            kept.send_replace(false);
            let board = self.board.write();
            board.unwrap_or_else(PoisonError::into_inner).clear();
            if stopping.is_cancelled() {
                return;
            }
        }
    }

    /// Waits until the schedules are to be kept here; `None` when the server stops.
    async fn turn(
        &mut self,
        inbox: &mut mpsc::Receiver<Request>,
        stopping: &CancellationToken,
    ) -> Option<Keeper> {
        let mut moves = self.tools.engine.moves();
        loop {
            moves.mark_unchanged();
            match self.take_up().await {
                Ok(Some(keeper)) => return Some(keeper),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "the schedules cannot be taken up; they are again");
                    tokio::select! {
                        () = tokio::time::sleep(TAKE_UP_AGAIN) => continue,
                        () = stopping.cancelled() => return None,
                    }
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return None,
                request = inbox.recv() => refuse(request?),
                changed = moves.changed() => changed.ok()?,
            }
        }
    }
}

/// Answers what somebody else has to be asked for.
fn refuse(request: Request) {
    match request {
        // Who keeps them takes up what is in force by then.
        Request::Applied(_, reply) => drop(reply.send(())),
        Request::Trigger { reply, .. } => drop(reply.send(Err(Error::Interrupted))),
        Request::Backfill { reply, .. } => drop(reply.send(Err(Error::Interrupted))),
        Request::Pause { reply, .. } | Request::Resume { reply, .. } => {
            drop(reply.send(Err(Error::Interrupted)));
        }
    }
}
