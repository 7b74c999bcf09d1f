//! Executions that others start.

use super::*;

/// How an execution ends, well or not.
async fn end(bench: &Bench, id: ExecutionId) -> Status {
    let mut versions = bench.engine.watch(&tenant(), id);
    loop {
        let view = bench.engine.show(&tenant(), id).await.expect("reads");
        match view.map(|view| view.execution.status) {
            Some(status) if status != Status::Running => return status,
            _ => versions.changed().await.expect("the engine lives"),
        }
    }
}

async fn begin(bench: &Bench, workflow: &str) -> ExecutionId {
    let started = bench.engine.start(start(workflow, None)).await;
    started.expect("starts").id
}

#[tokio::test]
async fn a_child_is_an_execution_whose_end_moves_its_parent_on() {
    let bench = Bench::new().await;
    let id = begin(&bench, "parent").await;
    let held = bench.task().await;
    let child = held.task.execution;
    assert_ne!(child, id, "the Task of the child");
    let view = bench.engine.show(&tenant(), child).await.expect("reads");
    let parent = view.expect("is durable").execution.parent;
    assert_eq!(
        parent.map(|parent| (parent.execution, parent.depth)),
        Some((id, 1))
    );
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(id).await, json!({"child": {"paid": "ok"}}));
}

#[tokio::test]
async fn a_crash_between_start_and_end_of_a_child_starts_no_other() {
    let bench = Bench::new().await;
    let id = begin(&bench, "parent").await;
    let child = bench.task().await.task.execution;
    let bench = bench.crash().await;
    let held = bench.task().await;
    assert_eq!(held.task.execution, child);
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(id).await, json!({"child": {"paid": "ok"}}));
    let bench = bench.crash().await;
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn who_does_not_wait_is_told_which_child_it_is() {
    let bench = Bench::new().await;
    let id = begin(&bench, "loose").await;
    let child = bench.task().await.task.execution;
    let output = json!({"child": {"execution_id": child.to_string()}});
    assert_eq!(bench.output(id).await, output);
}

#[tokio::test]
async fn a_child_is_cancelled_with_its_parent() {
    let bench = Bench::new().await;
    let id = begin(&bench, "parent").await;
    let child = bench.task().await.task.execution;
    let cancelled = bench.engine.cancel(&tenant(), id, "enough".into()).await;
    cancelled.expect("cancels");
    assert!(matches!(end(&bench, child).await, Status::Cancelled { .. }));
}

#[tokio::test]
async fn a_workflow_that_starts_itself_without_end_fails() {
    let bench = Bench::new().await;
    let id = begin(&bench, "endless").await;
    match end(&bench, id).await {
        Status::Failed { failure } => assert_eq!(failure.error, "NestingLimitExceeded"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn an_unknown_workflow_is_not_tried_again() {
    let bench = Bench::new().await;
    let id = begin(&bench, "lost").await;
    match end(&bench, id).await {
        Status::Failed { failure } => assert_eq!(failure.error, "WorkflowNotFound"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_not_tried_again() {
    let bench = Bench::new().await;
    let id = begin(&bench, "careless").await;
    match end(&bench, id).await {
        Status::Failed { failure } => assert_eq!(failure.error, "InvalidInput"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.engine.stats().started, 1, "no child");
}

/// The child that a parent waits for, once it is durable.
async fn child_of(bench: &Bench, id: ExecutionId) -> ExecutionId {
    let view = bench.engine.show(&tenant(), id).await.expect("reads");
    let view = view.expect("is durable");
    let pending = view.execution.pending_tasks(&view.program);
    let [attempt] = pending.as_slice() else {
        panic!("it waits for one child");
    };
    let child = ExecutionId::of_child(id, attempt.task, attempt.attempt);
    let mut versions = bench.engine.watch(&tenant(), child);
    while bench
        .engine
        .show(&tenant(), child)
        .await
        .expect("reads")
        .is_none()
    {
        versions.changed().await.expect("the engine lives");
    }
    child
}

#[tokio::test]
async fn a_sleeping_child_whose_parent_gave_it_up_before_a_crash_is_cancelled_after_it() {
    let bench = Bench::new().await;
    let id = begin(&bench, "idle_child").await;
    let child = child_of(&bench, id).await;
    // From here on nobody serves children: the process dies between the two.
    let helpers = &bench.engine.inner.helpers;
    let helpers = std::mem::take(&mut *helpers.lock().expect("is whole"));
    helpers.iter().for_each(tokio::task::JoinHandle::abort);
    let cancelled = bench.engine.cancel(&tenant(), id, "enough".into()).await;
    cancelled.expect("cancels");
    let bench = bench.crash().await;
    assert!(matches!(end(&bench, child).await, Status::Cancelled { .. }));
}

#[tokio::test]
async fn a_sleeping_child_that_is_awaited_survives_a_crash() {
    let bench = Bench::new().await;
    let id = begin(&bench, "idle_child").await;
    let child = child_of(&bench, id).await;
    let bench = bench.crash().await;
    let signal = Signal {
        name: "paid".into(),
        payload: json!(7).into(),
        idempotency_key: None,
    };
    let signalled = bench.engine.signal(&tenant(), child, signal).await;
    signalled.expect("delivered");
    let held = bench.task().await;
    assert_eq!(held.task.execution, child);
    bench.complete(&held.task, json!("ok")).await;
    let output = json!({"child": {"payment": 7, "shipped": "ok"}});
    assert_eq!(bench.output(id).await, output);
}

#[tokio::test]
async fn a_parent_is_told_of_a_panic_of_what_serves_its_child() {
    let bench = Bench::new().await;
    let id = begin(&bench, "unlucky").await;
    match end(&bench, id).await {
        Status::Failed { failure } => assert_eq!(failure.error, "HostPanic"),
        other => panic!("{other:?}"),
    }
    // And others are served.
    let other = begin(&bench, "parent").await;
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(other).await, json!({"child": {"paid": "ok"}}));
}
