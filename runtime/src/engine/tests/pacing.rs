//! Starts and attempts that come too fast, and what is urgent.

use cascade_cdl::program::Priority;

use super::*;

fn seconds(refused: Result<Started, StartError>) -> u64 {
    match refused {
        Err(StartError::TooFast { retry_after, .. }) => retry_after.as_secs(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn starts_beyond_the_rate_are_refused_and_told_when_to_come_again() {
    let bench = Bench::new().await;
    for key in ["a", "b"] {
        let started = bench.engine.start(start("paced", Some(key))).await;
        assert!(started.expect("there is room").created);
    }
    assert_eq!(
        seconds(bench.engine.start(start("paced", Some("c"))).await),
        1
    );
    assert_eq!(seconds(bench.engine.start(start("paced", None)).await), 1);
    // What was started is answered, and others are not concerned.
    let again = bench.engine.start(start("paced", Some("a"))).await;
    assert!(!again.expect("is answered").created);
    let other = Start {
        tenant: "rival".parse().expect("valid"),
        ..start("paced", None)
    };
    bench.engine.start(other).await.expect("another tenant");
    bench
        .engine
        .start(start("effect", None))
        .await
        .expect("another workflow");
    bench.advance(500);
    bench
        .engine
        .start(start("paced", Some("c")))
        .await
        .expect("its time has come");
    assert_eq!(seconds(bench.engine.start(start("paced", None)).await), 1);
    assert_eq!(
        bench.engine.stats().started,
        5,
        "the refused ones left nothing"
    );
}

#[tokio::test]
async fn children_wait_for_their_moment_one_after_the_other() {
    let bench = Bench::new().await;
    let mut parents = Vec::new();
    for _ in 0..4 {
        let started = bench.engine.start(start("paced_parent", None)).await;
        parents.push(started.expect("a parent has no rate").id);
    }
    let mut done = 0;
    for _ in 0..2 {
        let held = bench.task().await;
        bench.complete(&held.task, json!("ok")).await;
        done += 1;
    }
    assert_eq!(bench.queue.depth(), 0, "the others have not begun");
    for _ in 0..2 {
        bench.advance(500);
        let held = bench.task().await;
        bench.complete(&held.task, json!("ok")).await;
        done += 1;
        assert_eq!(bench.queue.depth(), 0, "one at a time");
    }
    assert_eq!(done, parents.len());
    for id in parents {
        assert_eq!(bench.output(id).await, json!({"child": {"paid": "ok"}}));
    }
}

#[tokio::test]
async fn an_attempt_that_waits_for_its_rate_is_shown_and_can_be_cancelled() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            bench
                .engine
                .start(start("slow", None))
                .await
                .expect("starts")
                .id,
        );
    }
    let first = bench.task().await.task.execution;
    let mut held = Vec::new();
    for id in &ids {
        let view = bench.engine.show(&tenant(), *id).await.expect("reads");
        let view = view.expect("is there");
        held.push((*id, bench.engine.held_by_rate(&view).len()));
    }
    let expected: Vec<_> = ids
        .iter()
        .map(|id| (*id, usize::from(*id != first)))
        .collect();
    assert_eq!(held, expected);
    // Something without a rate goes at once.
    bench
        .engine
        .start(start("effect", None))
        .await
        .expect("starts");
    assert_eq!(bench.task().await.task.workflow.as_ref(), "effect");
    for id in ids.iter().filter(|id| **id != first) {
        let cancelled = bench.engine.cancel(&tenant(), *id, "enough".into()).await;
        cancelled.expect("cancels");
    }
    // After a crash the count begins anew: what had begun is asked for again at once.
    let bench = bench.crash().await;
    let mut again = [bench.task().await, bench.task().await].map(|held| held.task.execution);
    again.sort_unstable();
    assert!(again.contains(&first), "{again:?}");
}

#[tokio::test]
async fn a_priority_outlives_a_crash_and_goes_down_to_children() {
    // One shard, so that all is asked for at once.
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    let priority = |number: u8| Some(Priority::try_from(number).expect("valid"));
    let of = |workflow, number| Start {
        priority: priority(number),
        ..start(workflow, None)
    };
    let last = bench
        .engine
        .start(of("effect", 5))
        .await
        .expect("starts")
        .id;
    let middle = bench
        .engine
        .start(start("effect", None))
        .await
        .expect("starts")
        .id;
    let parent = bench
        .engine
        .start(of("parent", 1))
        .await
        .expect("starts")
        .id;
    let child = ExecutionId::of_child(parent, TaskId(2), 1);
    let mut commits = bench.engine.watch(&tenant(), child);
    while bench
        .store
        .summary(&tenant(), child)
        .await
        .expect("reads")
        .is_none()
    {
        commits.changed().await.expect("the engine lives");
    }
    let bench = bench.crash().await;
    let mut order = Vec::new();
    for _ in 0..3 {
        let held = bench.task().await;
        order.push((held.task.execution, u8::from(held.task.task.priority)));
        bench.complete(&held.task, json!("ok")).await;
    }
    assert_eq!(order, [(child, 1), (middle, 3), (last, 5)]);
}
