//! Executions that are paused and resumed.

use super::*;

impl Bench {
    async fn begins(&self, workflow: &str) -> ExecutionId {
        let started = self.engine.start(start(workflow, None)).await;
        started.expect("starts").id
    }

    async fn pauses(&self, id: ExecutionId) {
        let paused = self.engine.pause(&tenant(), id, "the bank".into()).await;
        paused.expect("pauses");
    }

    async fn resumes(&self, id: ExecutionId) {
        let resumed = self.engine.resume(&tenant(), id).await;
        resumed.expect("resumes");
    }

    /// Pauses a workflow, or resumes it.
    fn closes(&self, workflow: &str, closed: bool) {
        let mut names = self.paused.names.lock().expect("no test panics with it");
        names.retain(|name| name != workflow);
        if closed {
            names.push(workflow.to_owned());
        }
    }

    /// The row, once the execution has so many events.
    async fn row_at(&self, id: ExecutionId, version: u64) -> Summary {
        let mut versions = self.engine.watch(&tenant(), id);
        loop {
            let row = self.store.summary(&tenant(), id).await.expect("reads");
            match row.filter(|row| row.version >= version) {
                Some(row) => return row,
                None => versions.changed().await.expect("engine lives"),
            }
        }
    }

    /// Lets time pass, and shows that the engine has looked at its timers since.
    async fn passes(&self, millis: u64) {
        self.advance(millis);
        let other = self.begins("effect").await;
        let held = self.task().await;
        self.complete(&held.task, json!("other")).await;
        self.row_at(other, 2).await;
    }
}

#[tokio::test]
async fn what_runs_ends_and_the_next_state_waits_also_across_a_crash() {
    let bench = Bench::new().await;
    let id = bench.begins("twice").await;
    let first = bench.task().await;
    bench.pauses(id).await;
    bench.pauses(id).await;
    bench.complete(&first.task, json!(1)).await;
    let row = bench.row_at(id, 3).await;
    assert_eq!(row.version, 3, "the start, one pause, the outcome");
    assert_eq!(
        (row.status, row.idle, row.wake_at),
        (StatusName::Paused, true, None)
    );

    let bench = bench.crash().await;
    bench.passes(10_000).await;
    assert_eq!(bench.queue.depth(), 0);
    let view = bench.engine.show(&tenant(), id).await;
    let view = view.expect("reads").expect("is there");
    let paused = view.execution.paused.expect("it is paused");
    assert_eq!(paused.reason, "the bank");
    assert_eq!(view.summary.version, 3);

    bench.resumes(id).await;
    bench.resumes(id).await;
    let second = bench.task().await;
    assert_eq!(&*second.task.task.state, "Second");
    bench.complete(&second.task, json!(2)).await;
    assert_eq!(bench.output(id).await, json!({"first": 1, "second": 2}));
    // Those, one resumption, the entry of what was held, the outcome.
    assert_eq!(bench.row_at(id, 6).await.version, 6);
}

#[tokio::test]
async fn an_attempt_that_no_worker_has_begun_waits_until_it_is_resumed() {
    let bench = Bench::new().await;
    let id = bench.begins("effect").await;
    while bench.queue.depth() == 0 {
        tokio::task::yield_now().await;
    }
    bench.pauses(id).await;
    assert_eq!(bench.queue.depth(), 0, "it can be begun");
    let bench = bench.crash().await;
    bench.passes(1_000).await;
    assert_eq!(bench.queue.depth(), 0, "a crash lets it begin");
    bench.resumes(id).await;
    let held = bench.task().await;
    assert_eq!(held.task.task.attempt, 1);
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(id).await, json!({"paid": "ok"}));
}

#[tokio::test]
async fn an_attempt_whose_effect_has_not_left_waits_too() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    bench.store.hold_commits();
    let id = ExecutionId(uuid::Uuid::now_v7());
    let begun = Start {
        id: Some(id),
        ..start("effect", None)
    };
    let engine = bench.engine.clone();
    let starting = tokio::spawn(async move { engine.start(begun).await });
    bench.store.held(1).await;
    let engine = bench.engine.clone();
    let pausing = tokio::spawn(async move { engine.pause(&tenant(), id, String::new()).await });
    // It shares the mailbox with this, which is answered at once.
    let nobody = ExecutionId(uuid::Uuid::now_v7());
    let refused = bench.engine.resume(&tenant(), nobody).await;
    assert!(
        matches!(refused, Err(ControlError::NotFound)),
        "{refused:?}"
    );
    bench.store.release();
    starting.await.expect("no panic").expect("starts");
    pausing.await.expect("no panic").expect("pauses");
    bench.passes(1_000).await;
    assert_eq!(bench.queue.depth(), 0, "it left while it was paused");
    bench.resumes(id).await;
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(id).await, json!({"paid": "ok"}));
}

#[tokio::test]
async fn an_attempt_that_a_crash_cut_off_runs_again_when_it_is_resumed() {
    let bench = Bench::new().await;
    let id = bench.begins("effect").await;
    let lost = bench.task().await;
    bench.pauses(id).await;
    let bench = bench.crash().await;
    bench.passes(1_000).await;
    assert_eq!(bench.queue.depth(), 0);
    bench.resumes(id).await;
    let again = bench.task().await;
    assert_eq!(again.task.key(), lost.task.key());
    bench.complete(&again.task, json!("ok")).await;
    assert_eq!(bench.output(id).await, json!({"paid": "ok"}));
}

#[tokio::test]
async fn a_wait_that_ended_meanwhile_goes_on_at_once() {
    let bench = Bench::new().await;
    let id = bench.begins("nap").await;
    bench.pauses(id).await;
    bench.passes(2 * 3_600_000).await;
    assert_eq!(bench.row_at(id, 2).await.version, 2, "it woke");
    bench.resumes(id).await;
    assert_eq!(bench.output(id).await, json!({"state": "up"}));
}

#[tokio::test]
async fn a_signal_is_taken_and_moves_it_on_when_it_is_resumed() {
    let bench = Bench::new().await;
    let id = bench.begins("paid").await;
    bench.pauses(id).await;
    let signal = Signal {
        name: "paid".into(),
        payload: json!(7).into(),
        idempotency_key: None,
    };
    let delivered = bench.engine.signal(&tenant(), id, signal).await;
    delivered.expect("is taken");
    bench.passes(1_000).await;
    assert_eq!(bench.queue.depth(), 0);
    bench.resumes(id).await;
    let held = bench.task().await;
    assert_eq!(held.task.task.input.to_value(), json!(7));
}

#[tokio::test]
async fn what_is_paused_can_be_cancelled_and_what_has_ended_cannot_be_paused() {
    let bench = Bench::new().await;
    let id = bench.begins("paid").await;
    bench.pauses(id).await;
    let cancelled = bench.engine.cancel(&tenant(), id, "enough".into()).await;
    cancelled.expect("cancels");
    assert_eq!(bench.row_at(id, 3).await.status, StatusName::Cancelled);
    let paused = bench.engine.pause(&tenant(), id, String::new()).await;
    assert!(
        matches!(paused, Err(ControlError::AlreadyClosed)),
        "{paused:?}"
    );
    let resumed = bench.engine.resume(&tenant(), id).await;
    assert!(
        matches!(resumed, Err(ControlError::AlreadyClosed)),
        "{resumed:?}"
    );
}

#[tokio::test]
async fn who_cancels_what_waits_to_be_undone_has_it_undone() {
    let bench = Bench::new().await;
    let id = bench.begins("undone").await;
    let book = bench.task().await;
    bench.complete(&book.task, json!("booked")).await;
    let pay = bench.task().await;
    bench.pauses(id).await;
    let no = ActivityFailure {
        error: "Declined".to_owned(),
        message: String::new(),
        retryable: Some(false),
        details: None,
    };
    bench.report(&pay.task, Err(no)).await;
    assert_eq!(bench.row_at(id, 4).await.status, StatusName::Paused);
    let cancelled = bench.engine.cancel(&tenant(), id, "enough".into()).await;
    cancelled.expect("ends the pause");
    let undo = bench.task().await;
    assert_eq!(undo.task.task.input.to_value(), json!("undo"));
    bench.complete(&undo.task, json!(null)).await;
    assert_eq!(bench.row_at(id, 6).await.status, StatusName::Failed);
}

#[tokio::test]
async fn what_is_paused_and_does_not_run_takes_no_memory() {
    let bench = Bench::new().await;
    let id = bench.begins("effect").await;
    bench.pauses(id).await;
    assert_eq!(bench.engine.stats().open_bytes, 0);
    let bench = bench.crash().await;
    let stats = bench.engine.stats();
    assert_eq!((stats.open, stats.open_bytes), (1, 0));
    bench.resumes(id).await;
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(id).await, json!({"paid": "ok"}));
}

#[tokio::test]
async fn what_is_paused_moves_to_another_version_and_stays_paused() {
    let bench = Bench::new().await;
    let id = bench.begins("twice").await;
    let first = bench.task().await;
    bench.pauses(id).await;
    bench.complete(&first.task, json!(1)).await;
    bench.row_at(id, 3).await;
    bench.apply(
        "parameters: 2, result: $.second",
        "parameters: 9, result: $.second",
    );
    let none = Mapping::new();
    let page = bench.engine.migrate(&tenant(), "app", &none, None).await;
    let page = page.expect("the model answers");
    assert!(
        matches!(page.items[0].outcome, Outcome::Moved(2)),
        "{page:?}"
    );
    assert_eq!(bench.row_at(id, 4).await.status, StatusName::Paused);
    bench.resumes(id).await;
    let second = bench.task().await;
    assert_eq!(second.task.task.input.to_value(), json!(9));
}

#[tokio::test]
async fn nothing_new_of_a_paused_workflow_is_started_and_what_runs_goes_on() {
    let bench = Bench::new().await;
    let before = bench.engine.start(start("effect", Some("before"))).await;
    let before = before.expect("starts");
    bench.closes("effect", true);
    for key in [None, Some("after")] {
        let refused = bench.engine.start(start("effect", key)).await;
        assert!(
            matches!(&refused, Err(StartError::Paused(paused)) if paused.workflow == "effect"),
            "{refused:?}"
        );
    }
    bench.begins("paid").await;
    // The answer to who was not told is the same as before.
    let again = bench.engine.start(start("effect", Some("before"))).await;
    let again = again.expect("was started");
    assert_eq!((again.id, again.created), (before.id, false));
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    assert_eq!(bench.output(before.id).await, json!({"paid": "ok"}));
    bench.closes("effect", false);
    let after = bench.engine.start(start("effect", Some("after"))).await;
    assert!(after.expect("starts").created);
}

#[tokio::test]
async fn a_child_of_a_paused_workflow_waits_until_it_is_resumed() {
    let bench = Bench::new().await;
    bench.closes("effect", true);
    let parent = bench.begins("parent").await;
    let mut refused = bench.paused.refused.subscribe();
    let refused = refused.wait_for(|refused| *refused > 0).await;
    drop(refused.expect("the sender lives"));
    assert_eq!(bench.row_at(parent, 1).await.version, 1, "it was told");
    bench.closes("effect", false);
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    let output = json!({"child": {"paid": "ok"}});
    assert_eq!(bench.output(parent).await, output);
}
