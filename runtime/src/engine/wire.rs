//! What processes ask each other, so that what follows from an execution finds the owner of
//! another: starts of children and of schedules, cancellations, moves, and that something
//! has ended.
//!
//! All of it may be asked twice: a start names its execution, a cancellation of what has
//! ended does nothing, and so on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cascade_cdl::plan::Verdict;
use cascade_cdl::{ExecutionId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use super::moves::Outcome;
use super::owners::{OWNER_PATIENCE, Peer, Whereabouts};
use super::{Control, ControlError, Engine, Full, RETRY_AFTER, Start, StartError, Started};
use crate::store::{self, PausedWorkflow};

/// What one process asks another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Start(Box<Start>),
    Cancel {
        tenant: TenantId,
        id: ExecutionId,
        reason: String,
    },
    /// Move an execution to the version of its application that is in force.
    Migrate {
        tenant: TenantId,
        id: ExecutionId,
        /// Of its workflow: the new paths of states by the old ones.
        mapping: BTreeMap<String, BTreeMap<String, String>>,
    },
    /// These have ended, at these versions: whoever waits for that looks at the store.
    Ended(Vec<(TenantId, ExecutionId, u64)>),
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Started {
        id: ExecutionId,
        created: bool,
        application_version: u32,
        started_at: Timestamp,
    },
    NotStarted(Refusal),
    /// It is done, or there is nothing to do.
    Done,
    NotDone(Refusal),
    Moved(Option<MoveOutcome>),
}

/// What became of an execution that was to be moved.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveOutcome {
    Moved(u32),
    Unmapped(Vec<String>),
    Stuck(Vec<String>),
    Later(String),
}

/// Why something was not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Ask somebody else.
    Elsewhere,
    /// Come again after so many milliseconds.
    Later(u64),
    Unknown,
    Unavailable(String),
    TooLarge {
        size: u64,
        limit: u64,
    },
    Paused {
        reason: String,
        at: Timestamp,
    },
    Invalid(String),
    Full(Full),
    KeyReused(ExecutionId),
}

impl Engine {
    /// Does what another process asks for.
    pub async fn answer_peer(&self, ask: Ask) -> Told {
        match ask {
            Ask::Start(start) => match self.start(*start).await {
                Ok(started) => Told::Started {
                    id: started.id,
                    created: started.created,
                    application_version: started.application_version,
                    started_at: started.started_at,
                },
                Err(error) => Told::NotStarted(refusal(error)),
            },
            Ask::Cancel { tenant, id, reason } => match self.cancel(&tenant, id, reason).await {
                Err(ControlError::Elsewhere { .. }) => Told::NotDone(Refusal::Elsewhere),
                Err(ControlError::Busy { retry_after }) => Told::NotDone(later(retry_after)),
                Err(ControlError::Interrupted) => Told::NotDone(later(RETRY_AFTER)),
                Err(ControlError::Store(error)) => {
                    Told::NotDone(Refusal::Unavailable(error.to_string()))
                }
                _ => Told::Done,
            },
            Ask::Migrate {
                tenant,
                id,
                mapping,
            } => match self.migrate_here(&tenant, id, &mapping).await {
                Ok(outcome) => Told::Moved(outcome.map(MoveOutcome::from)),
                Err(error) => Told::NotDone(Refusal::Unavailable(error.to_string())),
            },
            Ask::Ended(list) => {
                for (tenant, id, version) in list {
                    self.inner.context.watch.committed(&tenant, id, version);
                }
                Told::Done
            }
        }
    }

    /// Starts an execution, wherever it belongs; returns when that is durable.
    pub async fn start_anywhere(&self, start: Start) -> Result<Started, StartError> {
        match self.start(start.clone()).await {
            Err(StartError::Elsewhere { bucket }) => self.start_elsewhere(bucket, start).await,
            other => other,
        }
    }

    /// Has the owner of a bucket start an execution.
    pub(super) async fn start_elsewhere(
        &self,
        bucket: u32,
        start: Start,
    ) -> Result<Started, StartError> {
        let (application, workflow) = (start.application.clone(), start.workflow.clone());
        match self.ask(bucket, &Ask::Start(Box::new(start))).await {
            Some(Told::Started {
                id,
                created,
                application_version,
                started_at,
            }) => Ok(Started {
                id,
                created,
                application_version,
                started_at,
            }),
            Some(Told::NotStarted(refusal)) => Err(refusal.of_start(application, workflow)),
            _ => Err(StartError::Interrupted),
        }
    }

    /// Ends an execution, wherever it is; returns when that is durable.
    pub async fn cancel_anywhere(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        reason: &str,
    ) -> Result<(), ControlError> {
        let control = Control::Cancel(reason.to_owned());
        let bucket = match self.control(tenant, id, reason.len(), control).await {
            Err(ControlError::Elsewhere { bucket }) => bucket,
            other => return other,
        };
        let ask = Ask::Cancel {
            tenant: tenant.clone(),
            id,
            reason: reason.to_owned(),
        };
        match self.ask(bucket, &ask).await {
            Some(Told::Done) => Ok(()),
            Some(Told::NotDone(Refusal::Later(millis))) => Err(ControlError::Busy {
                retry_after: Duration::from_millis(millis),
            }),
            _ => Err(ControlError::Interrupted),
        }
    }

    /// Asks the owner of a bucket; `None` if nobody knows what came of it.
    pub(super) async fn ask(&self, bucket: u32, ask: &Ask) -> Option<Told> {
        let owners = &self.inner.context.owners;
        let peers = owners.peers()?;
        match owners.settled(bucket, OWNER_PATIENCE).await {
            // Who asks finds it here next time.
            Whereabouts::Here | Whereabouts::Nobody => None,
            Whereabouts::There(peer) => ask_peer(&*peers, &peer, ask).await,
        }
    }
}

/// Asks a process; `None` if nobody knows what came of it.
pub(super) async fn ask_peer(
    peers: &dyn super::owners::Peers,
    peer: &Peer,
    ask: &Ask,
) -> Option<Told> {
    let told = peers.ask(peer, ask).await;
    told.inspect_err(|error| {
        tracing::debug!(node = %peer.node, address = &*peer.address, error, "a node does not answer");
    })
    .ok()
}

impl Refusal {
    fn of_start(self, application: Arc<str>, workflow: Arc<str>) -> StartError {
        match self {
            Self::Elsewhere => StartError::Interrupted,
            Self::Later(millis) => StartError::Busy {
                retry_after: Duration::from_millis(millis),
            },
            Self::Unknown => StartError::UnknownWorkflow {
                application,
                workflow,
            },
            Self::Unavailable(what) => StartError::Store(store::Error::Unavailable(what)),
            Self::TooLarge { size, limit } => StartError::InputTooLarge { size, limit },
            Self::Paused { reason, at } => StartError::Paused(Arc::new(PausedWorkflow {
                application: application.to_string(),
                workflow: workflow.to_string(),
                reason,
                paused_at: at,
            })),
            Self::Invalid(what) => StartError::Invalid(what),
            Self::Full(full) => StartError::Full(full),
            Self::KeyReused(id) => StartError::KeyReused(id),
        }
    }
}

/// A refusal of a start, for whoever asked for it.
fn refusal(error: StartError) -> Refusal {
    match error {
        StartError::Elsewhere { .. } => Refusal::Elsewhere,
        StartError::Busy { retry_after } | StartError::TooFast { retry_after, .. } => {
            later(retry_after)
        }
        StartError::Interrupted => later(RETRY_AFTER),
        StartError::UnknownWorkflow { .. } => Refusal::Unknown,
        StartError::InputTooLarge { size, limit } => Refusal::TooLarge { size, limit },
        StartError::Paused(paused) => Refusal::Paused {
            reason: paused.reason.clone(),
            at: paused.paused_at,
        },
        StartError::Unfit(_) | StartError::NoShardKey(_) | StartError::Invalid(_) => {
            Refusal::Invalid(error.to_string())
        }
        StartError::Full(full) => Refusal::Full(full),
        StartError::KeyReused(id) => Refusal::KeyReused(id),
        StartError::Store(error) => Refusal::Unavailable(error.to_string()),
    }
}

fn later(after: Duration) -> Refusal {
    Refusal::Later(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
}

impl From<Outcome> for MoveOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Moved(version) => Self::Moved(version),
            Outcome::Left(Verdict::NeedsMapping { states }) => Self::Unmapped(states),
            Outcome::Left(Verdict::Stuck { reasons }) => Self::Stuck(reasons),
            // What is safe is moved.
            Outcome::Left(Verdict::Safe) => Self::Later(ControlError::MovedOn.to_string()),
            Outcome::Later(why) => Self::Later(why),
        }
    }
}

impl From<MoveOutcome> for Outcome {
    fn from(outcome: MoveOutcome) -> Self {
        match outcome {
            MoveOutcome::Moved(version) => Self::Moved(version),
            MoveOutcome::Unmapped(states) => Self::Left(Verdict::NeedsMapping { states }),
            MoveOutcome::Stuck(reasons) => Self::Left(Verdict::Stuck { reasons }),
            MoveOutcome::Later(why) => Self::Later(why),
        }
    }
}
