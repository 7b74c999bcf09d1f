//! What comes from outside: signals and answers.

use cascade_cdl::limits::MAX_SIGNALS;

use super::*;

fn paid(payload: serde_json::Value, key: Option<&str>) -> Signal {
    Signal {
        name: "paid".into(),
        payload: payload.into(),
        idempotency_key: key.map(str::to_owned),
    }
}

impl Bench {
    async fn signal(&self, id: ExecutionId, signal: Signal) -> Result<(), ControlError> {
        self.engine.signal(&tenant(), id, signal).await
    }

    async fn starts(&self, workflow: &str) -> ExecutionId {
        let started = self.engine.start(start(workflow, None)).await;
        started.expect("starts").id
    }

    async fn version(&self, id: ExecutionId) -> u64 {
        let row = self.store.summary(&tenant(), id).await.expect("reads");
        row.expect("is there").version
    }
}

#[tokio::test]
async fn a_signal_is_acknowledged_by_its_commit_and_moves_its_execution_on() {
    let bench = Bench::new().await;
    let id = bench.starts("paid").await;
    bench.store.hold_commits();
    let engine = bench.engine.clone();
    let signalling =
        tokio::spawn(async move { engine.signal(&tenant(), id, paid(json!(7), None)).await });
    bench.store.held(1).await;
    assert!(!signalling.is_finished(), "it was told before the commit");
    assert_eq!(bench.queue.depth(), 0, "the effect left before its commit");
    bench.store.release();
    signalling.await.expect("no panic").expect("delivered");
    let held = bench.task().await;
    assert_eq!(held.task.task.input.to_value(), json!(7));
    bench.complete(&held.task, json!("ok")).await;
    let output = json!({"payment": 7, "shipped": "ok"});
    assert_eq!(bench.output(id).await, output);
}

#[tokio::test]
async fn a_signal_that_comes_first_waits_also_across_a_crash() {
    let bench = Bench::new().await;
    let id = bench.starts("paid_later").await;
    let delivered = bench.signal(id, paid(json!("early"), None)).await;
    delivered.expect("is kept");
    let bench = bench.crash().await;
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    let output = json!({"payment": "early", "shipped": "ok"});
    assert_eq!(bench.output(id).await, output);
}

#[tokio::test]
async fn a_key_delivers_once_whether_or_not_the_answer_came() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    let id = bench.starts("paid_twice").await;
    // Written, but nobody was told: the same signal again is no other one.
    bench.store.fail_next(Fault::Written);
    let lost = bench.signal(id, paid(json!(1), Some("a"))).await;
    assert!(matches!(lost, Err(ControlError::Interrupted)), "{lost:?}");
    bench
        .signal(id, paid(json!(1), Some("a")))
        .await
        .expect("was delivered");
    assert_eq!(bench.version(id).await, 2, "the start, and one signal");
    let other = bench.signal(id, paid(json!(2), Some("a"))).await;
    assert!(matches!(other, Err(ControlError::KeyReused)), "{other:?}");
    // Not written: the second try delivers it.
    bench.store.fail_next(Fault::Lost);
    let lost = bench.signal(id, paid(json!(2), Some("b"))).await;
    assert!(matches!(lost, Err(ControlError::Interrupted)), "{lost:?}");
    bench
        .signal(id, paid(json!(2), Some("b")))
        .await
        .expect("is delivered");
    assert_eq!(bench.output(id).await, json!({"first": 1, "second": 2}));
    // Its sender may ask after the end, and after a crash.
    let bench = bench.crash().await;
    bench
        .signal(id, paid(json!(2), Some("b")))
        .await
        .expect("was delivered");
    let late = bench.signal(id, paid(json!(3), Some("c"))).await;
    assert!(matches!(late, Err(ControlError::AlreadyClosed)), "{late:?}");
    assert_eq!(bench.version(id).await, 3);
}

#[tokio::test]
async fn a_signal_for_nobody_is_refused_and_leaves_no_trace() {
    let bench = Bench::new().await;
    let id = bench.starts("paid_later").await;
    let unknown = Signal {
        name: "cancelled".into(),
        ..paid(json!(1), None)
    };
    let refused = bench.signal(id, unknown).await;
    assert!(
        matches!(&refused, Err(ControlError::UnknownSignal(name)) if name == "cancelled"),
        "{refused:?}"
    );
    let nobody = ExecutionId(uuid::Uuid::now_v7());
    let refused = bench.signal(nobody, paid(json!(1), None)).await;
    assert!(
        matches!(refused, Err(ControlError::NotFound)),
        "{refused:?}"
    );
    let rival: TenantId = "rival".parse().expect("valid");
    let foreign = bench.engine.signal(&rival, id, paid(json!(1), None)).await;
    assert!(
        matches!(foreign, Err(ControlError::NotFound)),
        "{foreign:?}"
    );
    let large = bench.signal(id, paid(json!("x".repeat(99)), None)).await;
    // 99 characters and two quotes.
    assert!(
        matches!(
            large,
            Err(ControlError::PayloadTooLarge {
                size: 101,
                limit: 100
            })
        ),
        "{large:?}"
    );
    assert_eq!(bench.version(id).await, 1);
}

#[tokio::test]
async fn an_inbox_that_is_full_refuses_until_a_signal_is_taken() {
    let bench = Bench::new().await;
    let id = bench.starts("paid_later").await;
    for n in 0..MAX_SIGNALS {
        let kept = bench.signal(id, paid(json!(n), None)).await;
        kept.expect("has room");
    }
    let full = bench.signal(id, paid(json!("more"), Some("k"))).await;
    assert!(matches!(full, Err(ControlError::InboxFull(_))), "{full:?}");
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(id).await["payment"], json!(0));
}

#[tokio::test]
async fn what_waits_for_a_signal_takes_no_memory_after_a_restart() {
    let bench = Bench::new().await;
    let id = bench.starts("paid").await;
    let bench = bench.crash().await;
    let stats = bench.engine.stats();
    assert_eq!((stats.open, stats.open_bytes), (1, 0));
    let delivered = bench.signal(id, paid(json!(1), None)).await;
    delivered.expect("is found");
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    bench.output(id).await;
}

fn answer(task: TaskId, output: serde_json::Value) -> Answer {
    let (output, by) = (output.into(), "ann".to_owned());
    Answer { task, output, by }
}

impl Bench {
    async fn answer(&self, id: ExecutionId, answer: Answer) -> Result<(), ControlError> {
        self.engine.answer(&tenant(), id, answer).await
    }

    /// Starts what asks a person, and gives the task.
    async fn asks(&self) -> (ExecutionId, TaskId) {
        let id = self.starts("approve").await;
        let view = self.engine.show(&tenant(), id).await.expect("reads");
        let view = view.expect("is there");
        let asked = view.execution.asked(&view.program).next();
        (id, asked.expect("asks").1.task)
    }
}

#[tokio::test]
async fn an_answer_is_taken_once_whether_or_not_its_giver_was_told() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    let (id, task) = bench.asks().await;
    bench.store.fail_next(Fault::Written);
    let lost = bench.answer(id, answer(task, json!({"ok": true}))).await;
    assert!(matches!(lost, Err(ControlError::Interrupted)), "{lost:?}");
    let bench = bench.crash().await;
    for _ in 0..2 {
        let again = bench.answer(id, answer(task, json!({"ok": true}))).await;
        again.expect("was taken");
    }
    assert_eq!(bench.version(id).await, 2, "the start, and one answer");
    let other = bench.answer(id, answer(task, json!({"ok": false}))).await;
    assert!(matches!(other, Err(ControlError::NotAsked)), "{other:?}");
    assert_eq!(bench.output(id).await, json!({"decision": {"ok": true}}));
}

#[tokio::test]
async fn an_answer_has_to_fit_the_schema_and_be_asked_for() {
    let bench = Bench::new().await;
    let (id, task) = bench.asks().await;
    let unfit = bench.answer(id, answer(task, json!({"ok": 1}))).await;
    assert!(
        matches!(&unfit, Err(ControlError::Unfit(Unfit::Misfits(misfits))) if misfits[0].at == "/ok"),
        "{unfit:?}"
    );
    let other = TaskId(task.0 + 1);
    let refused = bench.answer(id, answer(other, json!({"ok": true}))).await;
    assert!(
        matches!(refused, Err(ControlError::NotAsked)),
        "{refused:?}"
    );
    let rival: TenantId = "rival".parse().expect("valid");
    let yes = answer(task, json!({"ok": true}));
    let foreign = bench.engine.answer(&rival, id, yes.clone()).await;
    assert!(
        matches!(foreign, Err(ControlError::NotFound)),
        "{foreign:?}"
    );
    // Its time is up.
    bench.advance(3_600_000);
    let mut versions = bench.engine.watch(&tenant(), id);
    let ended = versions.wait_for(|version| *version == 2).await;
    ended.expect("engine lives");
    let late = bench.answer(id, yes).await;
    assert!(matches!(late, Err(ControlError::NotAsked)), "{late:?}");
}
