//! Where activity tasks wait for a worker.
//!
//! The engine pushes, workers pull. A queue promises nothing across a crash:
//! what was pushed and not reported is pushed again by recovery, so a task
//! runs at least once and its completion is deduplicated by the machine.

pub mod local;

use std::sync::Arc;

use async_trait::async_trait;
use cascade_cdl::{ActivityTask, ExecutionId, TaskId, TenantId, Timestamp};

use crate::catalog::Activity;

/// One attempt, ready to run: the task with all that a worker needs for it.
#[derive(Debug, Clone)]
pub struct QueuedTask {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which execution asks.
    pub execution: ExecutionId,
    /// Which bucket it is in.
    pub bucket: u32,
    /// The application that the workflow belongs to.
    pub application: Arc<str>,
    /// The workflow.
    pub workflow: Arc<str>,
    /// What is asked.
    pub task: ActivityTask,
    /// What its resource resolved to when it was pushed.
    pub activity: Arc<Activity>,
}

/// What an attempt took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Its fuel, or nanoseconds of a processor if it kept one busy for longer
    /// than its fuel shows.
    pub cost: u64,
    /// Whether it gave no output.
    pub failed: bool,
}

/// Names one attempt. A shard that starts again from the store asks for
/// attempts again; by this a queue knows those that it has, and a shard those
/// that are not of the execution as it now is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AttemptKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which execution asks.
    pub execution: ExecutionId,
    /// Which bucket it is in, so that the report finds its way.
    pub bucket: u32,
    /// The state entry.
    pub task: TaskId,
    /// Which try.
    pub attempt: u32,
    /// When it was scheduled: the same after recovery, another if the start
    /// was never durable and the execution was made anew.
    pub scheduled_at: Timestamp,
}

impl QueuedTask {
    /// The attempt that this task is.
    pub fn key(&self) -> AttemptKey {
        AttemptKey {
            tenant: self.tenant.clone(),
            execution: self.execution,
            bucket: self.bucket,
            task: self.task.task,
            attempt: self.task.attempt,
            scheduled_at: self.task.scheduled_at,
        }
    }
}

/// A task that a worker holds, with the means to stop it.
#[derive(Debug)]
pub struct HeldTask {
    /// What to run.
    pub task: QueuedTask,
    /// Becomes true when nobody waits for the attempt any more.
    pub cancelled: tokio_util::sync::CancellationToken,
    /// What attempts of its tenant cost lately, as in [`Spent::cost`].
    pub expected: u64,
}

/// The seam between engine and workers.
#[async_trait]
pub trait TaskQueue: Send + Sync + 'static {
    /// Offers tasks; one that waits or runs already is not taken twice. Never
    /// blocks, since shards call it from their loop: what waits is bounded by
    /// the open executions and by the memory that shards let a tenant's take,
    /// and what is cancelled does not stay.
    fn push(&self, tasks: Vec<QueuedTask>);

    /// Waits until there is something to do, then takes up to `max` tasks.
    /// Empty once the queue is closed.
    async fn pull(&self, max: usize) -> Vec<HeldTask>;

    /// A pulled attempt ended.
    fn settle(&self, attempt: &AttemptKey, spent: Spent);

    /// Nobody waits for this attempt any more.
    fn cancel(&self, attempt: &AttemptKey);

    /// Takes a task back that no worker has taken; says whether there was one.
    fn withdraw(&self, attempt: &AttemptKey) -> bool;

    /// Whether an attempt waits until the rate of its state allows another.
    fn waits_for_rate(&self, attempt: &AttemptKey) -> bool;

    /// Number of tasks that wait for a worker.
    fn depth(&self) -> usize;

    /// Lets pullers go; what waits stays for recovery.
    fn close(&self);

    /// Cancels what still runs. Call it once nobody takes reports any more, so
    /// that the attempts do not count as failed and recovery runs them again.
    fn abandon(&self);
}
