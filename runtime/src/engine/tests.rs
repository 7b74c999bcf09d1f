//! The engine on the model store, with the test as worker and a clock of its own.

use std::sync::Mutex;

use cascade_cdl::ActivityFailure;
use serde_json::json;

use self::world::{Bench, HandClock, start, tenant};
use super::*;
use crate::store::{Fault, Filter, ModelStore, StatusName, Whole};

const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_start_is_answered_with_the_time_that_its_history_tells() {
    let bench = Bench::on(Arc::new(ModelStore::new()), HandClock::stepping(1)).await;
    let started = bench
        .engine
        .start(start("ten", None))
        .await
        .expect("starts");
    let view = bench
        .engine
        .show(&tenant(), started.id)
        .await
        .expect("reads");
    let stored = view.expect("stored").execution.started_at;
    assert_eq!(started.started_at, stored);
}

#[tokio::test]
async fn a_chain_of_pure_steps_takes_one_commit() {
    let bench = Bench::new().await;
    let work = async {
        for n in 0..4 {
            let held = bench.task().await;
            assert_eq!(held.task.task.input.to_value(), json!({"n": n}));
            bench.complete(&held.task, json!(n)).await;
        }
    };
    let (answer, ()) = tokio::join!(bench.engine.start_and_wait(start("ten", None), LONG), work);
    let (started, closed) = answer.expect("starts");
    assert!(started.created);
    let Status::Completed { output } = closed.expect("it ended").status else {
        panic!("not completed");
    };
    assert_eq!(output.to_value(), json!({"s": 3}));
    // 1 start, 4 completions, 1 transaction.
    let counters = bench.store.counters();
    assert_eq!((counters.commits, counters.events), (1, 5));
}

#[tokio::test]
async fn an_effect_waits_for_its_commit_and_a_pure_activity_does_not() {
    let bench = Bench::new().await;
    bench.store.hold_commits();
    let engine = bench.engine.clone();
    let starting = tokio::spawn(async move { engine.start(start("sides", None)).await });
    // Both branches were scheduled by one event; the pure one is here already.
    let pure = bench.task().await;
    assert_eq!(&*pure.task.task.state, "Right");
    bench.store.held(1).await;
    assert_eq!(bench.queue.depth(), 0, "the effect left before its commit");
    assert!(
        !starting.is_finished(),
        "the client was told before the commit"
    );
    bench.store.release();
    let effect = bench.task().await;
    assert_eq!(&*effect.task.task.state, "Left");
    assert!(starting.await.expect("no panic").expect("starts").created);
}

#[tokio::test]
async fn an_effect_that_is_cancelled_before_its_commit_never_leaves() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    bench.store.hold_commits();
    let engine = bench.engine.clone();
    let first = tokio::spawn(async move { engine.start(start("nap", None)).await });
    bench.store.held(1).await;
    // Both wait for the commit in flight, and share the next one.
    let id = ExecutionId(uuid::Uuid::now_v7());
    let second = Start {
        id: Some(id),
        ..start("effect", None)
    };
    let engine = bench.engine.clone();
    let starting = async { engine.start(second).await.expect("starts") };
    let cancelling = async {
        let cancelled = engine.cancel(&tenant(), id, "no".into()).await;
        cancelled.expect("cancels");
    };
    let releasing = async {
        while bench.engine.stats().open > 1 || bench.engine.stats().started < 2 {
            tokio::task::yield_now().await;
        }
        bench.store.release();
    };
    tokio::join!(starting, cancelling, releasing);
    first.await.expect("no panic").expect("starts");
    assert_eq!(
        bench.queue.depth(),
        0,
        "the activity of a cancelled execution left"
    );
}

#[tokio::test]
async fn an_attempt_is_not_asked_for_twice_by_a_shard_that_starts_again() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    let started = bench
        .engine
        .start(start("effect", None))
        .await
        .expect("starts");
    let held = bench.task().await;
    bench.store.fail_next(Fault::Lost);
    let refused = bench.engine.start(start("nap", None)).await;
    assert!(
        matches!(refused, Err(StartError::Interrupted)),
        "{refused:?}"
    );
    // Served after the recovery, which asked for the attempt again.
    bench
        .engine
        .start(start("nap", None))
        .await
        .expect("starts");
    assert_eq!(
        bench.queue.depth(),
        0,
        "the attempt that runs is waiting once more"
    );
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(started.id).await, json!({"paid": "ok"}));
}

#[tokio::test]
async fn retries_that_fail_at_once_are_not_counted_as_open() {
    let bench = Bench::new().await;
    let (started, closed) = bench
        .engine
        .start_and_wait(start("doomed", None), LONG)
        .await
        .expect("starts");
    assert!(matches!(
        closed.expect("ended").status,
        Status::Failed { .. }
    ));
    for _ in 0..5 {
        bench
            .engine
            .retry(&tenant(), started.id)
            .await
            .expect("retries");
    }
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn an_effect_whose_commit_fails_never_leaves() {
    let bench = Bench::new().await;
    bench.store.fail_next(Fault::Lost);
    let refused = bench.engine.start(start("effect", Some("k"))).await;
    assert!(
        matches!(refused, Err(StartError::Interrupted)),
        "{refused:?}"
    );
    assert_eq!(bench.queue.depth(), 0);
    // The shard starts again from the store, where there is nothing.
    let again = bench
        .engine
        .start(start("effect", Some("k")))
        .await
        .expect("starts");
    assert!(again.created);
    let task = bench.task().await;
    assert_eq!(task.task.task.attempt, 1);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_by_reloading() {
    let bench = Bench::new().await;
    bench.store.fail_next(Fault::Written);
    let refused = bench.engine.start(start("effect", Some("k"))).await;
    assert!(
        matches!(refused, Err(StartError::Interrupted)),
        "{refused:?}"
    );
    // Recovery finds the execution and runs its effect.
    let task = bench.task().await;
    bench.complete(&task.task, json!("ok")).await;
    let again = bench
        .engine
        .start(start("effect", Some("k")))
        .await
        .expect("is there");
    assert!(!again.created);
    assert_eq!(bench.output(again.id).await, json!({"paid": "ok"}));
}

#[tokio::test]
async fn a_key_starts_one_execution_also_across_a_crash() {
    let bench = Bench::new().await;
    let first = bench
        .engine
        .start(start("effect", Some("k")))
        .await
        .expect("starts");
    let second = bench
        .engine
        .start(start("effect", Some("k")))
        .await
        .expect("is there");
    assert_eq!((first.created, second.created), (true, false));
    assert_eq!(first.id, second.id);
    let other = Start {
        input: json!({"x": 2}).into(),
        ..start("effect", Some("k"))
    };
    let reused = bench.engine.start(other.clone()).await;
    assert!(matches!(reused, Err(StartError::KeyReused(id)) if id == first.id));
    let bench = bench.crash().await;
    let third = bench
        .engine
        .start(start("effect", Some("k")))
        .await
        .expect("is there");
    assert_eq!((third.id, third.created), (first.id, false));
    let reused = bench.engine.start(other).await;
    assert!(
        matches!(reused, Err(StartError::KeyReused(_))),
        "{reused:?}"
    );
}

#[tokio::test]
async fn a_start_of_what_has_ended_tells_its_end() {
    let bench = Bench::new().await;
    let work = async {
        let held = bench.task().await;
        bench.complete(&held.task, json!(1)).await;
    };
    let (first, ()) = tokio::join!(
        bench.engine.start_and_wait(start("one", Some("k")), LONG),
        work
    );
    let (first, _) = first.expect("starts");
    let (again, closed) = bench
        .engine
        .start_and_wait(start("one", Some("k")), LONG)
        .await
        .expect("is there");
    assert_eq!((again.id, again.created), (first.id, false));
    assert!(matches!(
        closed.expect("ended").status,
        Status::Completed { .. }
    ));
}

#[tokio::test]
async fn an_attempt_whose_end_is_unknown_runs_again_after_a_crash() {
    let bench = Bench::new().await;
    let started = bench
        .engine
        .start(start("effect", None))
        .await
        .expect("starts");
    let lost = bench.task().await;
    let bench = bench.crash().await;
    let again = bench.task().await;
    assert_eq!(
        again.task.key(),
        lost.task.key(),
        "the same attempt, so the same idempotency key"
    );
    assert_eq!(again.task.task, lost.task.task);
    bench.complete(&again.task, json!("ok")).await;
    // The first one was alive after all: its report changes nothing.
    bench.complete(&lost.task, json!("late")).await;
    assert_eq!(bench.output(started.id).await, json!({"paid": "ok"}));
}

#[tokio::test]
async fn an_old_owner_of_a_shard_writes_nothing() {
    let old = Bench::new().await;
    old.store.hold_commits();
    let engine = old.engine.clone();
    let starting = tokio::spawn(async move { engine.start(start("effect", Some("k"))).await });
    old.store.held(1).await;
    let new = Bench::on(old.store.clone(), old.clock.clone()).await;
    old.store.release();
    let refused = starting.await.expect("no panic");
    assert!(
        matches!(refused, Err(StartError::Interrupted)),
        "{refused:?}"
    );
    assert_eq!(old.queue.depth(), 0);
    let started = new
        .engine
        .start(start("effect", Some("k")))
        .await
        .expect("starts");
    assert!(started.created, "the old owner's commit was refused");
}

#[tokio::test]
async fn sleepers_wake_on_time_also_after_a_crash() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        ids.push(
            bench
                .engine
                .start(start("nap", None))
                .await
                .expect("starts")
                .id,
        );
    }
    bench.advance(59 * 60_000);
    let asleep = bench
        .engine
        .show(&tenant(), ids[0])
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(asleep.execution.status, Status::Running);
    let bench = bench.crash().await;
    assert_eq!(bench.engine.stats().open, 1_000);
    for _ in 0..10 {
        ids.push(
            bench
                .engine
                .start(start("nap", None))
                .await
                .expect("starts")
                .id,
        );
    }
    bench.advance(60 * 60_000);
    for id in ids {
        assert_eq!(bench.output(id).await, json!({"state": "up"}));
    }
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn a_cancelled_execution_ends_and_its_attempt_is_told() {
    let bench = Bench::new().await;
    let started = bench
        .engine
        .start(start("effect", None))
        .await
        .expect("starts");
    let held = bench.task().await;
    bench
        .engine
        .cancel(&tenant(), started.id, "enough".into())
        .await
        .expect("cancels");
    held.cancelled.cancelled().await;
    let view = bench
        .engine
        .show(&tenant(), started.id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        view.execution.status,
        Status::Cancelled {
            reason: "enough".into()
        }
    );
    let again = bench
        .engine
        .cancel(&tenant(), started.id, "more".into())
        .await;
    assert!(
        matches!(again, Err(ControlError::AlreadyClosed)),
        "{again:?}"
    );
    let other: TenantId = "other".parse().expect("valid");
    let foreign = bench.engine.cancel(&other, started.id, "mine".into()).await;
    assert!(
        matches!(foreign, Err(ControlError::NotFound)),
        "{foreign:?}"
    );
}

#[tokio::test]
async fn a_failed_execution_goes_on_when_it_is_retried() {
    let bench = Bench::new().await;
    let started = bench
        .engine
        .start(start("effect", None))
        .await
        .expect("starts");
    let held = bench.task().await;
    let failure = ActivityFailure {
        error: "PaymentDeclined".into(),
        message: "no".into(),
        retryable: Some(false),
        details: None,
    };
    let mut versions = bench.engine.watch(&tenant(), started.id);
    bench.report(&held.task, Err(failure)).await;
    versions.changed().await.expect("engine lives");
    let failed = bench
        .engine
        .show(&tenant(), started.id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(failed.summary.error.as_deref(), Some("PaymentDeclined"));
    bench
        .engine
        .retry(&tenant(), started.id)
        .await
        .expect("goes on");
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(started.id).await, json!({"paid": "ok"}));
    let again = bench.engine.retry(&tenant(), started.id).await;
    assert!(
        matches!(again, Err(ControlError::NotRetryable)),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_missing_activity_is_an_error_that_can_be_caught() {
    let bench = Bench::new().await;
    let (_, closed) = bench
        .engine
        .start_and_wait(start("missing", None), LONG)
        .await
        .expect("starts");
    let Status::Completed { output } = closed.expect("ended").status else {
        panic!("not completed");
    };
    assert_eq!(
        output.to_value()["error"]["error"],
        json!("ActivityNotFound")
    );
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_with_its_value() {
    let bench = Bench::new().await;
    let big = Start {
        input: json!("x".repeat(99)).into(),
        ..start("one", None)
    };
    let refused = bench.engine.start(big).await;
    // 99 characters and two quotes.
    assert!(
        matches!(
            refused,
            Err(StartError::InputTooLarge {
                size: 101,
                limit: 100
            })
        ),
        "{refused:?}"
    );
    let unknown = bench.engine.start(start("nothing", None)).await;
    assert!(
        matches!(unknown, Err(StartError::UnknownWorkflow { .. })),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_shutdown_commits_what_nobody_waits_for() {
    let bench = Bench::new().await;
    // Waits for its end only, so its start alone is not urgent.
    let engine = bench.engine.clone();
    let waiting =
        tokio::spawn(async move { engine.start_and_wait(start("ten", None), LONG).await });
    let held = bench.task().await;
    bench.complete(&held.task, json!(0)).await;
    let second = bench.task().await;
    bench.engine.shutdown().await;
    let answer = waiting.await.expect("no panic");
    assert!(matches!(answer, Err(StartError::Interrupted)), "{answer:?}");
    let page = bench
        .store
        .list(&tenant(), &Filter::default(), None, 10)
        .await
        .expect("lists");
    let rows: Vec<_> = page
        .items
        .iter()
        .map(|row| (row.status, row.version))
        .collect();
    assert_eq!(rows, [(StatusName::Running, 2)]);
    let bench = bench.crash().await;
    assert_eq!(bench.task().await.task.key(), second.task.key());
}

#[tokio::test]
async fn open_executions_are_counted_once_through_a_restart_of_a_shard() {
    // One shard, so that the last start waits for its recovery.
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    bench
        .engine
        .start(start("nap", None))
        .await
        .expect("starts");
    bench.store.fail_next(Fault::Lost);
    let refused = bench.engine.start(start("nap", None)).await;
    assert!(
        matches!(refused, Err(StartError::Interrupted)),
        "{refused:?}"
    );
    // Served after the restart.
    while bench
        .engine
        .start(start("nap", Some("again")))
        .await
        .is_err()
    {}
    assert_eq!(bench.engine.stats().open, 2);
}

#[tokio::test]
async fn who_looks_at_an_execution_waits_for_a_turn_to_replay_it() {
    let bench = Bench::new().await;
    let started = bench.engine.start(start("nap", None)).await;
    let id = started.expect("starts").id;
    let turns = &bench.engine.inner.context.turns;
    let mut held = Vec::new();
    while let Some(turn) = turns.try_take(&tenant()) {
        held.push(turn);
    }
    let acme = tenant();
    let mut shown = std::pin::pin!(bench.engine.show(&acme, id));
    assert!(
        futures::poll!(shown.as_mut()).is_pending(),
        "its tenant has no turn left"
    );
    // What is waited for is not in the way of the shard, nor of other tenants.
    assert!(turns.try_take(&"rival".parse().expect("valid")).is_some());
    bench
        .engine
        .start(start("nap", None))
        .await
        .expect("starts");
    held.clear();
    let view = shown.await.expect("reads").expect("is there");
    assert_eq!(view.execution.status, Status::Running);
}

#[tokio::test]
async fn a_page_with_records_is_bounded_in_bytes_and_goes_on() {
    let bench = Bench::new().await;
    let started = bench.engine.start(start("loud", None)).await;
    let id = started.expect("starts").id;
    let large = json!("x".repeat(1_000_000));
    for _ in 0..2 {
        let task = bench.task().await;
        bench.complete(&task.task, large.clone()).await;
    }
    bench.output(id).await;
    let summary = bench.store.summary(&tenant(), id).await.expect("reads");
    let summary = summary.expect("is there");
    let (mut pages, mut after) = (Vec::new(), 0);
    loop {
        let page = bench
            .engine
            .trace(&Whole(bench.store.clone()), &summary, after, 1_000)
            .await;
        let page = page.expect("replays");
        let Some(last) = page.last() else { break };
        after = last.event.seq;
        let told = |traced: &Traced| (traced.event.seq, traced.records.len(), traced.omitted);
        pages.push(page.iter().map(told).collect::<Vec<_>>());
    }
    // Five outputs are more than a page holds; what follows them is left out.
    assert_eq!(
        pages,
        [vec![(1, 2, 0), (2, 9, 2)], vec![(3, 9, 1)]],
        "by event: its number, its records, and those that are left out"
    );
}

#[tokio::test]
async fn an_execution_that_fails_again_and_again_leaves_a_snapshot() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    let (doomed, _) = bench
        .engine
        .start_and_wait(start("doomed", None), LONG)
        .await
        .expect("starts");
    for _ in 0..150 {
        let retried = bench.engine.retry(&tenant(), doomed.id).await;
        retried.expect("retries");
    }
    let stored = bench.store.load(&tenant(), doomed.id).await.expect("reads");
    let stored = stored.expect("is there");
    assert_eq!(stored.summary.version, 151);
    assert!(stored.tail.len() <= 101, "{} to replay", stored.tail.len());
}

#[tokio::test]
async fn a_clock_that_is_set_back_holds_no_commit_up() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    let wait = |key: &'static str| {
        let engine = bench.engine.clone();
        tokio::spawn(async move { engine.start_and_wait(start("one", Some(key)), LONG).await })
    };
    // Nobody waits for the first commit of either.
    let before = wait("before");
    let _held = bench.task().await;
    bench.clock.now.send_modify(|now| now.0 -= 500_000);
    let after = wait("after");
    let _held = bench.task().await;
    assert_eq!(bench.store.counters().commits, 0);
    let passed = Duration::from_millis(100);
    bench.clock.passed.send_modify(|before| *before += passed);
    while bench.store.counters().executions < 2 {
        tokio::task::yield_now().await;
    }
    before.abort();
    after.abort();
}

mod bounds;
mod children;
mod cluster;
mod elsewhere;
mod moves;
mod outside;
mod pacing;
mod pause;
mod shard_keys;
mod spread;
mod tasks;
pub(crate) mod world;

#[tokio::test]
async fn an_input_has_to_fit_unless_its_execution_is_there_already() {
    let bench = Bench::new().await;
    let with = |input: serde_json::Value, key: &str| Start {
        input: input.into(),
        ..start("strict", Some(key))
    };
    let refused = bench.engine.start(with(json!({"x": "one"}), "a")).await;
    assert!(
        matches!(&refused, Err(StartError::Unfit(Unfit::Misfits(misfits))) if misfits[0].at == "/x"),
        "{refused:?}"
    );
    assert_eq!(bench.engine.stats().open, 0);
    let first = bench.engine.start(with(json!({"x": 1}), "a")).await;
    let first = first.expect("it fits").id;
    // A client that was not told asks again, and meanwhile there is a stricter version.
    bench.apply("required: [x], ", "required: [x, y], ");
    let again = bench.engine.start(with(json!({"x": 1}), "a")).await;
    assert_eq!(again.expect("it is there").id, first);
    let refused = bench.engine.start(with(json!({"x": 1}), "b")).await;
    assert!(matches!(refused, Err(StartError::Unfit(_))), "{refused:?}");
}

#[test]
fn every_bucket_belongs_to_the_shard_that_its_range_says() {
    for count in [1, 2, 3, 7, 4_096] {
        for index in 0..count {
            for bucket in buckets(index, count) {
                assert_eq!(shard_of(bucket, count), index, "{bucket} of {count}");
            }
        }
        assert_eq!(buckets(count - 1, count).end, BUCKETS);
    }
}
