//! Executions that go on under another version of their application.

use std::collections::BTreeMap;

use cascade_cdl::plan::Verdict;

use super::*;

/// A step more after the signal of `paid`.
const ADDED: (&str, &str) = (
    "{name: Paid, type: EventTask, event: paid, result: $.payment, next: Ship}",
    "{name: Paid, type: EventTask, event: paid, result: $.payment, next: Note}
      - {name: Note, type: Task, resource: urn:cascade:activity:pure_note, parameters: '{{ $.payment }}', result: $.note, next: Ship}",
);

/// The state that waits for it, under another name.
const RENAMED: (&str, &str) = (
    "{name: Paid, type: EventTask, event: paid, result: $.payment, next: Ship}",
    "{name: Money, type: EventTask, event: paid, result: $.payment, next: Ship}",
);

/// It waits for another signal.
const OTHER: (&str, &str) = (
    "{name: Paid, type: EventTask, event: paid, result: $.payment, next: Ship}",
    "{name: Paid, type: EventTask, event: billed, result: $.payment, next: Ship}",
);

impl Bench {
    async fn opens(&self, workflow: &str) -> ExecutionId {
        let started = self.engine.start(start(workflow, None)).await;
        started.expect("starts").id
    }

    /// What became of each, the newest first.
    async fn moved(&self, mapping: &Mapping) -> Vec<(ExecutionId, Outcome)> {
        let page = self.engine.migrate(&tenant(), "app", mapping, None).await;
        let items = page.expect("the model answers").items.into_iter();
        items.map(|it| (it.summary.id, it.outcome)).collect()
    }

    async fn view(&self, id: ExecutionId) -> View {
        let view = self.engine.show(&tenant(), id).await;
        view.expect("reads").expect("is there")
    }

    async fn pay(&self, id: ExecutionId) {
        let signal = Signal {
            name: "paid".into(),
            payload: json!(7).into(),
            idempotency_key: None,
        };
        let delivered = self.engine.signal(&tenant(), id, signal).await;
        delivered.expect("is delivered");
    }

    /// Does `Note` and `Ship` of the new version.
    async fn ends_by_the_new_way(&self, id: ExecutionId) {
        for output in ["noted", "shipped"] {
            let held = self.task().await;
            self.complete(&held.task, json!(output)).await;
        }
        let output = json!({"payment": 7, "note": "noted", "shipped": "shipped"});
        assert_eq!(self.output(id).await, output);
    }
}

#[tokio::test]
async fn what_waits_goes_on_under_the_new_version_and_survives_crashes() {
    let bench = Bench::new().await;
    let id = bench.opens("paid").await;
    bench.apply(ADDED.0, ADDED.1);
    let moved = bench.moved(&Mapping::new()).await;
    assert!(
        matches!(moved[..], [(it, Outcome::Moved(2))] if it == id),
        "{moved:?}"
    );
    let view = bench.view(id).await;
    assert_eq!(view.summary.application_version, 2);
    assert_eq!(view.summary.version, 2, "the start, and the move");
    assert_eq!(view.execution.origin, Some(1));
    // Again: there is nothing left to do.
    assert!(bench.moved(&Mapping::new()).await.is_empty());

    let bench = bench.crash().await;
    bench.pay(id).await;
    let bench = bench.crash().await;
    bench.ends_by_the_new_way(id).await;
    // The page with records begins under the first version.
    let summary = bench.view(id).await.summary;
    let whole = Whole(bench.store.clone());
    let traced = bench.engine.trace(&whole, &summary, 0, 100).await;
    let traced = traced.expect("replays");
    assert_eq!(traced.len() as u64, summary.version);
}

#[tokio::test]
async fn a_snapshot_before_the_move_does_not_hide_what_it_was_started_with() {
    let bench = Bench::new().await;
    let id = bench.opens("nap").await;
    for version in 2..160 {
        bench.apply("parameters: up", &format!("parameters: up{version}"));
        let moved = bench.moved(&Mapping::new()).await;
        assert!(
            matches!(moved[..], [(_, Outcome::Moved(to))] if to == version),
            "{moved:?}"
        );
    }
    // So many events do not stay in the row: recovery starts from a snapshot.
    let stored = bench.store.load(&tenant(), id).await.expect("reads");
    assert!(stored.expect("is there").snapshot.is_some());
    let bench = bench.crash().await;
    bench.advance(3_600_000);
    assert_eq!(bench.output(id).await, json!({"state": "up159"}));
    let summary = bench.view(id).await.summary;
    let traced = bench
        .engine
        .trace(&Whole(bench.store.clone()), &summary, 0, 1_000)
        .await
        .expect("replays");
    assert_eq!(traced.len() as u64, summary.version);
}

#[tokio::test]
async fn what_needs_a_mapping_stays_until_there_is_one_and_what_is_stuck_stays() {
    let bench = Bench::new().await;
    let id = bench.opens("paid").await;
    bench.apply(OTHER.0, OTHER.1);
    let moved = bench.moved(&Mapping::new()).await;
    assert!(
        matches!(&moved[..], [(_, Outcome::Left(Verdict::Stuck { reasons }))] if reasons.len() == 1),
        "{moved:?}"
    );
    bench.apply(RENAMED.0, RENAMED.1);
    let moved = bench.moved(&Mapping::new()).await;
    assert!(
        matches!(&moved[..], [(_, Outcome::Left(Verdict::NeedsMapping { states }))] if states[..] == ["Paid"]),
        "{moved:?}"
    );
    assert_eq!(bench.view(id).await.summary.version, 1, "nothing happened");
    let renamed = BTreeMap::from([("Paid".to_owned(), "Money".to_owned())]);
    let mapping = Mapping::from([("paid".to_owned(), renamed)]);
    let moved = bench.moved(&mapping).await;
    assert!(matches!(moved[..], [(_, Outcome::Moved(3))]), "{moved:?}");
    let bench = bench.crash().await;
    bench.pay(id).await;
    let held = bench.task().await;
    bench.complete(&held.task, json!("ok")).await;
    let output = json!({"payment": 7, "shipped": "ok"});
    assert_eq!(bench.output(id).await, output);
}

#[tokio::test]
async fn an_attempt_under_way_is_heard_after_the_move_and_one_more_is_not_asked_for() {
    let bench = Bench::new().await;
    let id = bench.opens("effect").await;
    let held = bench.task().await;
    bench.apply(
        "parameters: {n: 7}, result: $.paid, end: true}",
        "parameters: {n: 7}, result: $.paid, next: Thank}
      - {name: Thank, type: Pass, parameters: you, result: $.thanks, end: true}",
    );
    let moved = bench.moved(&Mapping::new()).await;
    assert!(matches!(moved[..], [(_, Outcome::Moved(2))]), "{moved:?}");
    assert_eq!(bench.queue.depth(), 0);
    bench.complete(&held.task, json!("ok")).await;
    let output = json!({"paid": "ok", "thanks": "you"});
    assert_eq!(bench.output(id).await, output);
}

#[tokio::test]
async fn a_move_is_told_when_it_is_durable_and_a_lost_one_is_made_again() {
    let bench = Bench::with_shards(1, Arc::new(ModelStore::new()), HandClock::new()).await;
    let id = bench.opens("paid").await;
    bench.apply(ADDED.0, ADDED.1);
    bench.store.fail_next(Fault::Lost);
    let moved = bench.moved(&Mapping::new()).await;
    assert!(matches!(&moved[..], [(_, Outcome::Later(_))]), "{moved:?}");
    assert_eq!(bench.view(id).await.summary.application_version, 1);
    let moved = bench.moved(&Mapping::new()).await;
    assert!(matches!(moved[..], [(_, Outcome::Moved(2))]), "{moved:?}");
}

#[tokio::test]
async fn judging_changes_nothing_and_tenants_are_apart() {
    let bench = Bench::new().await;
    let id = bench.opens("paid").await;
    let target = Target {
        application: bench.apply(ADDED.0, ADDED.1),
        mapping: Mapping::new(),
    };
    let judged = bench.engine.judge(&tenant(), &target, None).await;
    let judged = judged.expect("reads").items;
    assert_eq!(judged.len(), 1);
    assert_eq!(judged[0].verdict, Verdict::Safe);
    assert_eq!(bench.view(id).await.summary.version, 1);
    let rival = "rival".parse().expect("valid");
    let judged = bench.engine.judge(&rival, &target, None).await;
    assert!(judged.expect("reads").items.is_empty());
    let none = Mapping::new();
    let moved = bench.engine.migrate(&rival, "app", &none, None);
    assert!(moved.await.expect("reads").items.is_empty());
    assert_eq!(bench.view(id).await.summary.application_version, 1);
}
