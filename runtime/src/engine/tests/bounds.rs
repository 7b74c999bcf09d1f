//! What one tenant, or too much at once, cannot do to a shard.

use futures::future::join_all;

use super::*;

/// About two open executions of these tests.
const FEW: u64 = 6_000;

/// One shard with these settings.
async fn bench(settings: Settings) -> Bench {
    let limits = Admission {
        input_bytes: 2 << 20,
        open_executions: 3_000,
        open_bytes: 1 << 30,
    };
    let settings = Settings {
        shards: 1,
        ..settings
    };
    let limits = Arc::new(Mutex::new(limits));
    Bench::open(
        settings,
        limits,
        Arc::new(ModelStore::new()),
        HandClock::new(),
    )
    .await
}

impl Bench {
    fn limit(&self, change: impl FnOnce(&mut Admission)) {
        change(&mut self.limits.lock().expect("no test panics with it"));
    }

    async fn begin(&self, workflow: &str) -> ExecutionId {
        let started = self.engine.start(start(workflow, None)).await;
        started.expect("starts").id
    }

    /// Returns once the execution has so many durable events.
    async fn reach(&self, id: ExecutionId, version: u64) {
        let mut versions = self.engine.watch(&tenant(), id);
        loop {
            let row = self.store.summary(&tenant(), id).await.expect("reads");
            if row.is_some_and(|row| row.version >= version) {
                return;
            }
            versions.changed().await.expect("engine lives");
        }
    }

    /// Lets everything run that can.
    async fn idle(&self) {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }
}

fn of_another() -> Start {
    Start {
        tenant: "other".parse().expect("valid"),
        ..start("effect", None)
    }
}

#[tokio::test]
async fn starts_are_refused_while_open_executions_fill_their_memory() {
    let bench = bench(Settings::default()).await;
    bench.limit(|limits| limits.open_bytes = FEW);
    let mut ids = Vec::new();
    let refused = loop {
        match bench.engine.start(start("effect", None)).await {
            Ok(started) => ids.push(started.id),
            Err(refused) => break refused,
        }
    };
    let limit = Full::Bytes { limit: FEW };
    assert!(
        matches!(&refused, StartError::Full(full) if *full == limit),
        "{refused:?}"
    );
    assert!(ids.len() > 1, "{} fit", ids.len());
    let other = bench.engine.start(of_another()).await;
    other.expect("has memory of its own");
    for _ in 0..=ids.len() {
        let held = bench.task().await;
        bench.complete(&held.task, json!("ok")).await;
    }
    for id in ids {
        bench.output(id).await;
    }
    let again = bench.engine.start(start("effect", None)).await;
    again.expect("there is room again");
}

#[tokio::test]
async fn what_an_execution_takes_is_given_back_when_it_ends_or_sleeps() {
    let bench = bench(Settings::default()).await;
    let id = bench.begin("effect").await;
    assert!(bench.engine.stats().open_bytes > 1_000);
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    bench.output(id).await;
    bench.begin("nap").await;
    bench.idle().await;
    assert_eq!(bench.engine.stats().open_bytes, 0);
}

#[tokio::test]
async fn outputs_beyond_a_tenants_memory_make_its_executions_wait_their_turn() {
    let bench = bench(Settings::default()).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(bench.begin("twice").await);
    }
    bench.limit(|limits| limits.open_bytes = 1);
    // Starts bring the new limit along.
    let refused = bench.engine.start(start("nap", Some("k"))).await;
    assert!(matches!(refused, Err(StartError::Full(_))), "{refused:?}");
    for _ in 0..3 {
        let first = bench.task().await;
        bench.complete(&first.task, json!(1)).await;
    }
    for id in &ids {
        bench.reach(*id, 2).await;
    }
    bench.idle().await;
    for _ in 0..3 {
        assert_eq!(bench.queue.depth(), 1, "one at a time has memory");
        let second = bench.task().await;
        assert_eq!(&*second.task.task.state, "Second");
        bench.complete(&second.task, json!(2)).await;
        bench.output(second.task.execution).await;
        bench.idle().await;
    }
    for id in ids {
        assert_eq!(bench.output(id).await, json!({"first": 1, "second": 2}));
    }
    let stats = bench.engine.stats();
    assert_eq!((stats.open, stats.open_bytes), (0, 0));
}

#[tokio::test]
async fn recovery_reads_no_more_than_there_is_memory_for() {
    let bench = bench(Settings::default()).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(bench.begin("effect").await);
    }
    bench.limit(|limits| limits.open_bytes = FEW);
    let bench = bench.crash().await;
    bench.idle().await;
    assert_eq!(bench.engine.stats().open, 20);
    let asked = bench.queue.depth();
    assert!((1..20).contains(&asked), "{asked}");
    for _ in 0..20 {
        let held = bench.task().await;
        bench.complete(&held.task, json!("ok")).await;
    }
    for id in ids {
        assert_eq!(bench.output(id).await, json!({"paid": "ok"}));
    }
}

#[tokio::test]
async fn an_execution_that_waits_for_memory_is_cancelled_like_any_other() {
    let bench = bench(Settings::default()).await;
    let ids = [bench.begin("effect").await, bench.begin("effect").await];
    bench.limit(|limits| limits.open_bytes = 1);
    let bench = bench.crash().await;
    bench.idle().await;
    assert_eq!(bench.queue.depth(), 1);
    for id in ids {
        let cancelled = bench.engine.cancel(&tenant(), id, "enough".into()).await;
        cancelled.expect("cancels");
    }
    bench.idle().await;
    let stats = bench.engine.stats();
    assert_eq!((stats.open, stats.open_bytes, stats.queued), (0, 0, 0));
}

/// An id that fits, by its bucket: recovery goes by these.
fn id_where(fits: impl Fn(ExecutionId) -> bool) -> ExecutionId {
    let ids = std::iter::repeat_with(|| ExecutionId(uuid::Uuid::now_v7()));
    let mut ids = ids.take(1_000_000);
    ids.find(|id| fits(*id)).expect("buckets are even")
}

#[tokio::test]
async fn a_child_is_cancelled_though_its_parent_never_had_the_memory_to_ask_for_it_again() {
    let bench = bench(Settings::default()).await;
    let child_of = |parent| ExecutionId::of_child(parent, TaskId(2), 1);
    // Recovery reads the child, then what takes all the memory, and not the parent.
    let parent = id_where(|id| child_of(id).bucket() + 1 < id.bucket());
    let child = child_of(parent);
    let greedy = id_where(|id| (child.bucket() + 1..parent.bucket()).contains(&id.bucket()));
    for (id, workflow) in [(parent, "idle_child"), (greedy, "effect")] {
        let id = Some(id);
        let start = Start {
            id,
            ..start(workflow, None)
        };
        bench.engine.start(start).await.expect("starts");
    }
    bench.reach(child, 1).await;
    bench.limit(|limits| limits.open_bytes = 1);
    let bench = bench.crash().await;
    bench.idle().await;
    let cancelled = bench
        .engine
        .cancel(&tenant(), parent, "enough".into())
        .await;
    cancelled.expect("cancels");
    bench.reach(child, 2).await;
    let child = bench.store.summary(&tenant(), child).await.expect("reads");
    assert_eq!(child.expect("is there").status, StatusName::Cancelled);
}

#[tokio::test]
async fn a_report_counts_though_its_shard_restarted_and_has_not_read_the_execution() {
    let bench = bench(Settings::default()).await;
    let ids = [bench.begin("effect").await, bench.begin("effect").await];
    let held = [bench.task().await, bench.task().await];
    bench.store.fail_next(Fault::Lost);
    let refused = bench.engine.start(start("nap", None)).await;
    assert!(
        matches!(refused, Err(StartError::Interrupted)),
        "{refused:?}"
    );
    // The shard recovers with memory for one of them.
    bench.limit(|limits| limits.open_bytes = 1);
    for held in &held {
        bench.complete(&held.task, json!("ok")).await;
    }
    for id in ids {
        assert_eq!(bench.output(id).await, json!({"paid": "ok"}));
    }
}

#[tokio::test]
async fn a_retry_opens_no_more_executions_than_a_start() {
    let bench = bench(Settings::default()).await;
    let doomed = bench
        .engine
        .start_and_wait(start("doomed", None), LONG)
        .await;
    let (doomed, _) = doomed.expect("starts");
    bench.begin("effect").await;
    bench.limit(|limits| limits.open_executions = 1);
    let refused = bench.engine.retry(&tenant(), doomed.id).await;
    let full = Full::Executions { open: 1, limit: 1 };
    assert!(
        matches!(&refused, Err(ControlError::Full(why)) if *why == full),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_sleeper_that_somebody_waits_for_leaves_memory_all_the_same() {
    let bench = bench(Settings {
        frozen_bytes: 0,
        ..Settings::default()
    })
    .await;
    let engine = bench.engine.clone();
    let waiting =
        tokio::spawn(async move { engine.start_and_wait(start("nap", None), LONG).await });
    while bench.store.counters().commits < 1 {
        tokio::task::yield_now().await;
    }
    bench.idle().await;
    assert_eq!(bench.engine.stats().open_bytes, 0);
    bench.advance(60 * 60_000);
    let (_, closed) = waiting.await.expect("no panic").expect("starts");
    let status = closed.expect("ended").status;
    assert!(matches!(status, Status::Completed { .. }), "{status:?}");
}

#[tokio::test]
async fn a_commit_takes_so_many_bytes_and_no_more() {
    let bench = bench(Settings::default()).await;
    bench.store.hold_commits();
    let large = Start {
        input: json!("x".repeat(1 << 20)).into(),
        ..start("effect", None)
    };
    let starts: Vec<_> = (0..20)
        .map(|_| {
            let (engine, large) = (bench.engine.clone(), large.clone());
            tokio::spawn(async move {
                let mut answer = engine.start(large.clone()).await;
                // Only some of them may wait at a time.
                while let Err(StartError::Busy { .. }) = answer {
                    tokio::task::yield_now().await;
                    answer = engine.start(large.clone()).await;
                }
                answer
            })
        })
        .collect();
    while bench.engine.stats().started < 20 {
        tokio::task::yield_now().await;
    }
    bench.store.release();
    for start in starts {
        start.await.expect("no panic").expect("starts");
    }
    // Each is more than a commit takes with others.
    assert_eq!(bench.store.counters().commits, 20);
}

#[tokio::test]
async fn what_one_tenant_has_to_write_leaves_room_for_others() {
    let bench = bench(Settings::default()).await;
    bench.store.hold_commits();
    let answered = Arc::new(std::sync::Mutex::new(Vec::new()));
    let begin = |owner: &'static str, bytes: usize| {
        let (engine, answered) = (bench.engine.clone(), answered.clone());
        let start = Start {
            tenant: owner.parse().expect("valid"),
            input: json!("x".repeat(bytes)).into(),
            ..start("effect", None)
        };
        tokio::spawn(async move {
            engine.start(start).await.expect("starts");
            answered.lock().expect("nobody panics").push(owner);
        })
    };
    let mut starts = vec![begin("acme", 10)];
    bench.store.held(1).await;
    starts.extend((0..6).map(|_| begin("acme", 200_000)));
    starts.push(begin("rival", 10));
    while bench.engine.stats().started < 8 {
        tokio::task::yield_now().await;
    }
    bench.store.release();
    for start in starts {
        start.await.expect("no panic");
    }
    // The first commit was on its way; the second holds some of acme's six.
    let answered = answered.lock().expect("nobody panics").clone();
    let place = answered.iter().position(|owner| *owner == "rival");
    assert!(place.expect("answered") <= 4, "{answered:?}");
}

#[tokio::test]
async fn a_pure_step_waits_for_the_commit_of_much_data() {
    let bench = bench(Settings::default()).await;
    bench.store.hold_commits();
    let engine = bench.engine.clone();
    let waiting =
        tokio::spawn(async move { engine.start_and_wait(start("ten", None), LONG).await });
    let held = bench.task().await;
    bench.complete(&held.task, json!("x".repeat(1 << 20))).await;
    bench.store.held(1).await;
    assert_eq!(bench.queue.depth(), 0, "the next step ran ahead");
    bench.store.release();
    for _ in 0..3 {
        let held = bench.task().await;
        bench.complete(&held.task, json!(1)).await;
    }
    waiting.await.expect("no panic").expect("starts");
}

#[tokio::test]
async fn nothing_is_taken_in_while_too_much_waits_for_a_commit() {
    let bench = bench(Settings {
        unsettled_bytes: 1,
        ..Settings::default()
    })
    .await;
    bench.store.hold_commits();
    let first = bench.engine.start(start("effect", None));
    let more = async {
        bench.store.held(1).await;
        tokio::join!(
            bench.engine.start(start("effect", None)),
            // Nobody waits for its first commit.
            bench
                .engine
                .start_and_wait(start("effect", None), Duration::ZERO),
            async {
                bench.idle().await;
                assert_eq!(bench.engine.stats().started, 1);
                bench.store.release();
            }
        )
    };
    let (first, (second, third, ())) = tokio::join!(first, more);
    first.expect("starts");
    second.expect("starts");
    third.expect("starts");
}

#[tokio::test]
async fn one_tenant_cannot_fill_the_mailbox() {
    let bench = bench(Settings {
        mailbox: 8,
        ..Settings::default()
    })
    .await;
    let mine = (0..8).map(|_| bench.engine.start(start("effect", None)));
    let theirs = bench.engine.start(of_another());
    // All are sent before the shard looks at the first.
    let (mine, theirs) = tokio::join!(join_all(mine), theirs);
    let busy = mine
        .iter()
        .filter(|answer| matches!(answer, Err(StartError::Busy { .. })));
    assert_eq!(busy.count(), 4);
    theirs.expect("starts");
    bench.begin("effect").await;
}

#[tokio::test]
async fn a_start_beyond_the_limit_never_reaches_the_mailbox() {
    let bench = bench(Settings {
        mailbox: 1,
        ..Settings::default()
    })
    .await;
    let named = bench.engine.start(start("effect", Some("k"))).await;
    let id = named.expect("starts").id;
    bench.limit(|limits| limits.open_executions = 1);
    let mine = (0..8).map(|_| bench.engine.start(start("effect", None)));
    let (mine, other) = tokio::join!(join_all(mine), bench.engine.start(of_another()));
    for answer in mine {
        assert!(matches!(answer, Err(StartError::Full(_))), "{answer:?}");
    }
    other.expect("the mailbox is empty");
    let again = bench.engine.start(start("effect", Some("k"))).await;
    assert_eq!(again.expect("is there").id, id);
}

#[tokio::test]
async fn a_shard_takes_no_requests_while_many_executions_wait_to_be_read() {
    let bench = bench(Settings {
        mailbox: 64,
        ..Settings::default()
    })
    .await;
    bench.store.hold_loads();
    let mut starts = tokio::task::JoinSet::new();
    for number in 0..2_000 {
        let start = Start {
            tenant: format!("tenant-{}", number / 20).parse().expect("valid"),
            ..start("effect", Some(&number.to_string()))
        };
        let engine = bench.engine.clone();
        starts.spawn(async move { engine.start(start).await });
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    bench.store.release();
    let answers = starts.join_all().await;
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Err(StartError::Busy { .. })));
    let started = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(busy.count(), 2_000 - started);
    assert!((1_024..1_500).contains(&started), "{started}");
}
