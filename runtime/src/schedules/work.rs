//! What takes a while: starting, waiting for an end, cancelling.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cascade_cdl::schedule::{Key, Refusal, Schedule, Scheduled, Waiting};
use cascade_cdl::{ExecutionId, Timestamp};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::engine::{ControlError, Engine, Start, StartError};
use crate::store::Store;

/// Pause before what did not go through is tried again, unless somebody knows better: the
/// store or a shard is back in less, or not at all.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the store is asked whether an execution has ended that another process may have.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why an execution is cancelled.
const REASON: &str = "the next time of its schedule has come";

/// What all of it needs.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) engine: Engine,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What became of a piece of work.
pub(super) enum Done {
    Started(Key, ExecutionId, Timestamp),
    Refused(Key, ExecutionId, Refusal),
    Ended(Key, ExecutionId),
    /// Nothing that anybody has to know.
    Nothing,
}

impl Tools {
    async fn pause(&self, duration: Duration) {
        let until = self.clock.passed() + duration;
        self.clock.sleep_until_passed(until).await;
    }

    /// Starts an execution, however often it takes. While it pauses it holds no place, so
    /// that what waits for the rate of one workflow keeps no other from being started.
    pub(super) async fn start(
        self,
        key: Key,
        schedule: Arc<Schedule>,
        waiting: Waiting,
        places: Arc<Semaphore>,
    ) -> Done {
        let id = waiting.execution(&key);
        let input = match schedule.input(waiting.at, id) {
            Ok(input) => input,
            Err(error) => {
                let (code, reason) = ("expression_error", format!("`input`: {error}"));
                return Done::Refused(key, id, Refusal { code, reason });
            }
        };
        let start = Start {
            tenant: key.tenant.clone(),
            application: key.application.clone(),
            workflow: schedule.workflow.clone(),
            input,
            id: Some(id),
            idempotency_key: None,
            parent: None,
            version: None,
            priority: None,
            labels: BTreeMap::new(),
            schedule: Some(Scheduled {
                name: key.name.clone(),
                at: waiting.at,
            }),
        };
        loop {
            let place = places.acquire().await;
            let started = self.engine.start_anywhere(start.clone()).await;
            drop(place);
            let error = match started {
                Ok(started) => return Done::Started(key, id, started.started_at),
                Err(error) => error,
            };
            let code = match &error {
                StartError::Busy { retry_after } | StartError::TooFast { retry_after, .. } => {
                    self.pause(*retry_after).await;
                    continue;
                }
                StartError::Interrupted | StartError::Elsewhere { .. } | StartError::Store(_) => {
                    self.pause(AGAIN).await;
                    continue;
                }
                // The ids are the schedules' own: an earlier version of it has started this.
                StartError::KeyReused(_) => {
                    let now = self.clock.now();
                    return Done::Started(key, id, now);
                }
                StartError::UnknownWorkflow { .. } => "unknown_workflow",
                StartError::InputTooLarge { .. } => "too_large",
                StartError::Paused(_) => "workflow_paused",
                StartError::Unfit(_) | StartError::NoShardKey(_) | StartError::Invalid(_) => {
                    "invalid_input"
                }
                StartError::Full(_) => "limit_reached",
            };
            let reason = error.to_string();
            return Done::Refused(key, id, Refusal { code, reason });
        }
    }

    /// Waits for the end of an execution.
    pub(super) async fn watch(self, key: Key, id: ExecutionId) -> Done {
        // First, so that no commit comes in between.
        let mut versions = self.engine.watch(&key.tenant, id);
        loop {
            match self.store.summary(&key.tenant, id).await {
                Ok(Some(summary)) if summary.status.is_open() => {
                    let changed = async {
                        if versions.changed().await.is_err() {
                            versions = self.engine.watch(&key.tenant, id);
                        }
                    };
                    if self.engine.is_whole() {
                        changed.await;
                    } else {
                        // Another process tells of it, and may die before it does.
                        tokio::select! {
                            () = changed => {}
                            () = self.pause(LOOK_AGAIN) => {}
                        }
                    }
                }
                Ok(_) => return Done::Ended(key, id),
                Err(_) => self.pause(AGAIN).await,
            }
        }
    }

    /// Cancels an execution, however often it takes.
    pub(super) async fn cancel(self, key: Key, id: ExecutionId) -> Done {
        loop {
            match self.engine.cancel_anywhere(&key.tenant, id, REASON).await {
                Err(ControlError::Busy { retry_after }) => self.pause(retry_after).await,
                Err(
                    ControlError::Interrupted
                    | ControlError::Elsewhere { .. }
                    | ControlError::Store(_),
                ) => self.pause(AGAIN).await,
                // Or it has ended by itself.
                _ => return Done::Nothing, // its end is watched for
            }
        }
    }
}
