//! Activities that this server does not know, and another may have taken.
//!
//! Where others write to the store, it is asked before a task fails for want of its
//! activity. That happens once the task is durable, beside the shard; a parent of nothing, it
//! is given up like a child.

use std::panic::AssertUnwindSafe;
use std::sync::Weak;

use cascade_cdl::{ActivityFailure, ActivityTask};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::children::{panicked, surely, tell};
use super::{Engine, Inner, RETRY_AFTER, Report};
use crate::dispatch::{AttemptKey, QueuedTask};
use crate::store::Summary;

/// A task whose activity is wanted.
pub(super) struct Wanted {
    pub(super) attempt: AttemptKey,
    pub(super) task: ActivityTask,
    pub(super) summary: Summary,
}

/// Looks for the activity: the task goes to the workers, or fails, after a panic as well.
pub(super) async fn look(
    engine: Weak<Inner>,
    wanted: Wanted,
    given_up: CancellationToken,
) -> AttemptKey {
    let attempt = wanted.attempt.clone();
    let found = AssertUnwindSafe(find(&engine, wanted)).catch_unwind();
    let found = tokio::select! {
        found = found => found,
        () = given_up.cancelled() => Ok(()),
    };
    if found.is_err() {
        tracing::error!(
            tenant.id = %attempt.tenant,
            execution.id = %attempt.execution,
            "what looks for an activity panicked"
        );
        let failure = panicked("looked for this activity");
        surely(&attempt, tell(&engine, attempt.clone(), Err(failure))).await;
    }
    attempt
}

async fn find(engine: &Weak<Inner>, wanted: Wanted) {
    let Wanted {
        attempt,
        task,
        summary,
    } = wanted;
    loop {
        let Some(inner) = engine.upgrade() else {
            return; // recovery asks again
        };
        let definitions = &inner.context.definitions;
        let looked = definitions.look_for_activity(&summary.tenant, &task.resource);
        if let Err(error) = looked.await {
            tracing::warn!(
                tenant.id = %summary.tenant, execution.id = %summary.id, %error,
                "a task waits until its activity can be looked for"
            );
            drop(inner);
            tokio::time::sleep(RETRY_AFTER).await;
            continue;
        }
        let Some(activity) = definitions.activity(&summary.tenant, &task.resource) else {
            let report = Report {
                attempt,
                result: Err(not_found(&task)),
                receipt: None,
            };
            return Engine { inner }.report(vec![report]).await;
        };
        let queued = QueuedTask {
            tenant: summary.tenant,
            execution: summary.id,
            bucket: summary.bucket,
            application: summary.application,
            workflow: summary.workflow,
            task,
            activity,
        };
        return inner.context.queue.push(vec![queued]);
    }
}

/// What becomes of a task without an activity.
pub(super) fn not_found(task: &ActivityTask) -> ActivityFailure {
    ActivityFailure {
        error: "ActivityNotFound".to_owned(),
        message: format!(
            "no activity `{}` has been uploaded; push it with `cascade activity push`",
            task.resource
        ),
        retryable: None,
        details: None,
    }
}
