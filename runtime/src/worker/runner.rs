//! Attempts in the sandbox of this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cascade_cdl::Timestamp;

use super::ActivityRunner;
use crate::clock::Clock;
use crate::dispatch::{HeldTask, QueuedTask};
use crate::engine::Report;
use crate::sandbox::{Cancel, Invocation, LogLevel, LogSink, Sandbox, TaskContext};

/// Runs attempts in a sandbox.
pub struct SandboxRunner {
    /// Where they run.
    pub sandbox: Sandbox,
    /// What their deadlines are measured by.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl ActivityRunner for SandboxRunner {
    async fn run(&self, held: HeldTask) -> (Report, u64) {
        let HeldTask {
            task, cancelled, ..
        } = held;
        let cancel = Cancel::default();
        let invocation = self.invocation(&task, cancel.clone());
        let mut running = std::pin::pin!(self.sandbox.run(invocation));
        let outcome = tokio::select! {
            // Most attempts end at the first poll.
            biased;
            outcome = &mut running => outcome,
            () = cancelled.cancelled() => {
                cancel.cancel();
                running.await
            }
        };
        let cost = outcome.cost();
        let report = Report {
            attempt: task.key(),
            result: outcome.result,
            receipt: Some(outcome.receipt),
        };
        (report, cost)
    }
}

impl SandboxRunner {
    fn invocation(&self, queued: &QueuedTask, cancel: Cancel) -> Invocation {
        let task = &queued.task;
        let log = AttemptLog {
            tenant: queued.tenant.clone(),
            execution: queued.execution,
            activity: queued.activity.name.clone(),
            attempt: task.attempt,
        };
        Invocation {
            tenant: queued.tenant.clone(),
            digest: queued.activity.digest.clone(),
            context: TaskContext {
                application: queued.application.clone(),
                workflow: queued.workflow.clone(),
                execution: queued.execution,
                state: task.state.clone(),
                attempt: task.attempt,
                idempotency_key: format!("{}/{}", queued.execution, task.task.0),
                scheduled_at: task.scheduled_at,
            },
            input: task.input.clone(),
            limits: queued.activity.limits,
            grants: queued.activity.grants.clone(),
            log: Arc::new(log),
            heartbeat: None,
            heartbeat_timeout: task.heartbeat_ms.map(Duration::from_millis),
            deadline: task
                .timeout_ms
                .map(|timeout| self.deadline(task.scheduled_at.plus(timeout))),
            cancel: Some(cancel),
        }
    }

    /// A point of the engine's clock as one of the monotonic clock.
    fn deadline(&self, at: Timestamp) -> Instant {
        let now = Instant::now();
        let left = Duration::from_millis(at.since(self.clock.now()));
        now.checked_add(left).unwrap_or(now)
    }
}

/// Lines of an attempt in the server's log.
struct AttemptLog {
    tenant: cascade_cdl::TenantId,
    execution: cascade_cdl::ExecutionId,
    activity: Arc<str>,
    attempt: u32,
}

impl LogSink for AttemptLog {
    fn line(&self, level: LogLevel, message: &str) {
        let (tenant, execution) = (&self.tenant, &self.execution);
        let (activity, attempt) = (&*self.activity, self.attempt);
        // `tracing` wants the level as a constant.
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    target: "activity",
                    $level,
                    tenant.id = %tenant,
                    execution.id = %execution,
                    activity.name = activity,
                    attempt,
                    "{message}"
                )
            };
        }
        match level {
            LogLevel::Trace => event!(tracing::Level::TRACE),
            LogLevel::Debug => event!(tracing::Level::DEBUG),
            LogLevel::Info => event!(tracing::Level::INFO),
            LogLevel::Warn => event!(tracing::Level::WARN),
            LogLevel::Error => event!(tracing::Level::ERROR),
        }
    }
}
