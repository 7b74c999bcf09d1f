//! On virtual time, with a crash where it hurts.

use cascade_cdl::Source;
use cascade_cdl::schedule::{Cause, Outcome, Skip, State, Waiting};
use serde_json::json;

use super::*;
use crate::engine::Signal;
use crate::engine::tests::world::{Bench, tenant};
use crate::store::{Fault, Filter, ScheduleRow, StatusName, Summary};

/// Schedules on the bench of the engine, whose clock stands at 1000 s.
struct World {
    bench: Bench,
    schedules: Schedules,
}

/// The schedules of a file, in force since the clock began.
fn in_force(version: u32, schedules: &[&str]) -> InForce {
    let list: Vec<String> = schedules
        .iter()
        .map(|text| format!("\n  - {{{text}}}"))
        .collect();
    let list = list.concat();
    let states = "{states: [{name: A, type: Pass, end: true}]}";
    let text = format!(
        "workflows: {{effect: {states}, paid: {states}, strict: {states}, paced: {states}}}\n\
         schedules:{list}\n"
    );
    let text = if schedules.is_empty() {
        text.replace("schedules:\n", "")
    } else {
        text
    };
    let parsed = cascade_cdl::parse(&Source {
        name: "app.yaml",
        bytes: text.as_bytes(),
    });
    let application = parsed.application;
    let application = application.unwrap_or_else(|| panic!("{text}: {:?}", parsed.diagnostics));
    InForce::of(&tenant(), &application, version, Timestamp(1_000_000))
}

fn key(name: &str) -> Key {
    Key {
        tenant: tenant(),
        application: "app".into(),
        name: name.into(),
    }
}

/// Seconds of the clock.
fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000)
}

impl World {
    async fn new(schedules: &[&str]) -> Self {
        Self::on(Bench::new().await, schedules).await
    }

    async fn on(bench: Bench, schedules: &[&str]) -> Self {
        let all = in_force(1, schedules);
        let opened = Schedules::open(
            bench.engine.clone(),
            bench.store.clone(),
            bench.clock.clone(),
            Arc::new(move || vec![all.clone()]),
        );
        let schedules = opened.await.expect("the model opens");
        Self { bench, schedules }
    }

    /// The process dies here, and another one takes over.
    async fn crash(self, schedules: &[&str]) -> Self {
        self.schedules.shutdown().await;
        Self::on(self.bench.crash().await, schedules).await
    }

    /// Returns when what is due has been decided, and that is durable.
    async fn decided(&self, name: &str) -> Arc<Shown> {
        let none = (Timestamp(1), Timestamp(1));
        let filled = self.schedules.backfill(key(name), none, None).await;
        assert_eq!(filled.expect("is there"), 0);
        self.schedules.show(&key(name)).expect("is there")
    }

    async fn passes(&self, name: &str, millis: u64) -> Arc<Shown> {
        self.bench.advance(millis);
        self.decided(name).await
    }

    /// Returns when nothing is being started any more.
    async fn settled(&self, name: &str) -> Arc<Shown> {
        loop {
            let shown = self.decided(name).await;
            if shown.state.starting.is_empty() && shown.state.waiting.is_empty() {
                return shown;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The row of an execution, once it is so.
    async fn row(&self, id: ExecutionId, is: impl Fn(&Summary) -> bool) -> Summary {
        let mut versions = self.bench.engine.watch(&tenant(), id);
        loop {
            let row = self
                .bench
                .store
                .summary(&tenant(), id)
                .await
                .expect("reads");
            match row.filter(|row| is(row)) {
                Some(row) => return row,
                None => versions.changed().await.expect("engine lives"),
            }
        }
    }

    async fn starts(&self, name: &str, seconds: u64) -> ExecutionId {
        let id = key(name).execution(at(seconds));
        self.row(id, |_| true).await.id
    }

    async fn pays(&self, id: ExecutionId) {
        let signal = Signal {
            name: "paid".into(),
            payload: json!(7).into(),
            idempotency_key: None,
        };
        let paid = self.bench.engine.signal(&tenant(), id, signal).await;
        paid.expect("it waits for that");
        let held = self.bench.task().await;
        self.bench.complete(&held.task, json!("ok")).await;
    }

    /// How many executions there are.
    async fn count(&self) -> usize {
        let (tenant, all) = (tenant(), Filter::default());
        let listed = self.bench.store.list(&tenant, &all, None, 1_000);
        listed.await.expect("reads").items.len()
    }
}

#[tokio::test]
async fn an_execution_knows_which_schedule_started_it_and_for_what_time() {
    let input = "input: {day: '{{ schedule.at }}'}";
    let text = format!("name: s, workflow: paid, interval: 10s, {input}");
    let world = World::new(&[&text]).await;
    world.passes("s", 9_999).await;
    assert_eq!(world.count().await, 0);
    world.passes("s", 5_000).await;
    let id = world.starts("s", 1_010).await;
    let view = world.bench.engine.show(&tenant(), id).await;
    let view = view.expect("reads").expect("is there");
    let about = json!({"name": "s", "at": "1970-01-01T00:16:50.000Z"});
    assert_eq!(view.execution.context["workflow"]["schedule"], about);
    assert_eq!(view.input.to_value(), json!({"day": about["at"]}));
    let known = view.execution.schedule.expect("a schedule");
    assert_eq!((&*known.name, known.at), ("s", at(1_010)));
    assert_eq!(world.count().await, 1);
}

#[tokio::test]
async fn a_crash_between_decision_and_start_neither_loses_a_time_nor_starts_it_twice() {
    let schedules = ["name: s, workflow: effect, interval: 10s, overlap: allow"];
    let world = World::new(&schedules).await;
    world.decided("s").await;
    // The decision does not reach the store.
    world.bench.store.hold_commits();
    world.bench.advance(10_000);
    world.bench.store.held(1).await;
    let world = world.crash(&schedules).await;
    world.bench.store.release();
    world.starts("s", 1_010).await;
    // It does, but nothing is done for it.
    let shown = world.passes("s", 10_000).await;
    world.starts("s", 1_020).await;
    let mut state = shown.state.clone();
    state.open.clear();
    state.recent.clear();
    state.position = at(1_030);
    state.starting = [1_020, 1_030]
        .map(|seconds| Waiting {
            at: at(seconds),
            cause: Cause::Time,
            id: None,
            cancels: false,
        })
        .to_vec();
    world.schedules.shutdown().await;
    let row = ScheduleRow {
        tenant: tenant(),
        application: "app".to_owned(),
        name: "s".to_owned(),
        state: serde_json::to_string(&state).expect("plain"),
    };
    let lease = world.bench.engine.lease_of(0).expect("it is here");
    world
        .bench
        .store
        .put_schedules(&lease, &[row])
        .await
        .expect("puts");
    let mut world = world;
    for _ in 0..3 {
        world = world.crash(&schedules).await;
        world.starts("s", 1_030).await;
        assert_eq!(world.count().await, 3, "one for each time");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_asked_again_and_nothing_starts_before() {
    for fault in [Fault::Lost, Fault::Written] {
        let world = World::new(&["name: s, workflow: effect, interval: 9000s"]).await;
        world.decided("s").await;
        world.bench.store.fail_next(fault);
        world.bench.advance(8_000_000);
        // Who asks meanwhile is answered when the store has been asked again.
        let mut asks = Box::pin(world.schedules.pause(key("s"), "later".to_owned()));
        loop {
            tokio::select! {
                biased;
                paused = &mut asks => break paused.expect("pauses"),
                () = tokio::task::yield_now() => world.bench.advance(1_000),
            }
        }
        world.starts("s", 9_000).await;
        assert_eq!(world.count().await, 1);
    }
}

#[tokio::test]
async fn a_server_that_was_down_catches_up_as_the_policy_says() {
    for (catch_up, times, missed) in [
        ("none", &[][..], 7),
        ("last", &[1_060], 5),
        ("{window: 30s}", &[1_040, 1_050, 1_060], 3),
        (
            "{policy: all, window: 1h}",
            &[1_010, 1_020, 1_030, 1_040, 1_050, 1_060],
            0,
        ),
    ] {
        let text = format!(
            "name: s, workflow: effect, interval: 10s, overlap: allow, catch_up: {catch_up}"
        );
        // It comes up 10 s and a bit after the last time.
        let text = if catch_up == "none" {
            text.replace("10s,", "12s,")
        } else {
            text
        };
        let schedules = [text.as_str()];
        let world = World::new(&schedules).await;
        world.decided("s").await;
        world.schedules.shutdown().await;
        world
            .bench
            .advance(if catch_up == "none" { 91_000 } else { 69_900 });
        let world = world.crash(&schedules).await;
        let shown = world.decided("s").await;
        for time in times {
            world.starts("s", *time).await;
        }
        assert_eq!(world.count().await, times.len(), "{catch_up}");
        let skipped = shown
            .state
            .recent
            .iter()
            .find_map(|record| match record.outcome {
                Outcome::Skipped {
                    why: Skip::Late,
                    count,
                    ..
                } => Some(count),
                _ => None,
            });
        assert_eq!(skipped.unwrap_or(0), missed, "{catch_up}");
    }
}

#[tokio::test]
async fn what_is_refused_is_recorded_and_the_next_time_starts() {
    let world = World::new(&["name: s, workflow: effect, interval: 10s, overlap: allow"]).await;
    let paused = &world.bench.paused;
    let mut refused = paused.refused.subscribe();
    paused
        .names
        .lock()
        .expect("no panic")
        .push("effect".to_owned());
    for _ in 0..2 {
        refused.mark_unchanged();
        world.passes("s", 10_000).await;
        refused.changed().await.expect("it lives");
    }
    paused.names.lock().expect("no panic").clear();
    world.passes("s", 10_000).await;
    world.starts("s", 1_030).await;
    let shown = world.settled("s").await;
    let Outcome::Refused {
        code,
        reason,
        until,
        count,
    } = &shown.state.recent[0].outcome
    else {
        panic!("{:?}", shown.state);
    };
    assert_eq!(
        (code.as_str(), *until, *count),
        ("workflow_paused", at(1_020), 2)
    );
    assert!(reason.contains("for a test"), "{reason}");
    assert_eq!(world.count().await, 1);
}

#[tokio::test]
async fn an_input_that_the_workflow_refuses_is_recorded() {
    // The engine's workflow is another than that of the file, and stricter.
    let world = World::new(&["name: s, workflow: strict, interval: 10s, input: {x: one}"]).await;
    world.passes("s", 10_000).await;
    let other = key("s").triggered("k");
    let triggered = world
        .schedules
        .trigger(key("s"), "k", Some(Overlap::BufferAll))
        .await;
    assert_eq!(triggered.expect("waits").id, other);
    // Both are refused one after the other, and then nothing is left.
    let shown = world.settled("s").await;
    let codes: Vec<&str> = shown
        .state
        .recent
        .iter()
        .map(|record| match &record.outcome {
            Outcome::Refused { code, .. } => code.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, ["invalid_input", "invalid_input"]);
    assert_eq!(world.count().await, 0);
}

#[tokio::test]
async fn a_time_that_waits_starts_when_the_running_execution_has_ended_also_after_a_crash() {
    let schedules = ["name: s, workflow: paid, interval: 10s, overlap: buffer_one"];
    let world = World::new(&schedules).await;
    world.passes("s", 10_000).await;
    let first = world.starts("s", 1_010).await;
    world.passes("s", 10_000).await;
    let shown = world.passes("s", 10_000).await;
    assert_eq!(shown.state.waiting.len(), 1, "of two only one waits");
    assert_eq!(world.count().await, 1);
    let world = world.crash(&schedules).await;
    assert_eq!(world.decided("s").await.state.waiting.len(), 1);
    world.pays(first).await;
    world.starts("s", 1_020).await;
    assert_eq!(world.count().await, 2);
}

#[tokio::test]
async fn a_time_cancels_the_execution_that_runs_and_follows_it() {
    let world =
        World::new(&["name: s, workflow: paid, interval: 10s, overlap: cancel_other"]).await;
    world.passes("s", 10_000).await;
    let first = world.starts("s", 1_010).await;
    world.passes("s", 10_000).await;
    let row = world.row(first, |row| !row.status.is_open()).await;
    assert_eq!(row.status, StatusName::Cancelled);
    world.starts("s", 1_020).await;
    assert_eq!(world.count().await, 2);
}

#[tokio::test]
async fn a_paused_schedule_starts_by_hand_only_also_after_a_crash() {
    let schedules = ["name: s, workflow: effect, interval: 10s, overlap: allow"];
    let world = World::new(&schedules).await;
    let paused = world.schedules.pause(key("s"), "the bank".to_owned()).await;
    paused.expect("pauses");
    world.passes("s", 30_000).await;
    let world = world.crash(&schedules).await;
    world.passes("s", 30_000).await;
    assert_eq!(world.count().await, 0);
    for _ in 0..2 {
        let triggered = world.schedules.trigger(key("s"), "once", None).await;
        world.row(triggered.expect("starts").id, |_| true).await;
        assert_eq!(
            world.count().await,
            1,
            "the same words are the same execution"
        );
    }
    let range = (at(1_010), at(1_020));
    let filled = world.schedules.backfill(key("s"), range, None).await;
    assert_eq!(filled.expect("fills"), 2);
    // These wait for what was started by hand; by the policy the next time does not.
    world.schedules.resume(key("s")).await.expect("resumes");
    world.passes("s", 10_000).await;
    world.starts("s", 1_070).await;
    let nothing = world.schedules.pause(key("t"), String::new()).await;
    assert!(matches!(nothing, Err(Error::NotFound)), "{nothing:?}");
}

#[tokio::test]
async fn another_version_changes_and_removes_schedules() {
    let world = World::new(&[
        "name: kept, workflow: effect, interval: 10s, overlap: allow",
        "name: gone, workflow: effect, interval: 10s, overlap: allow",
    ])
    .await;
    world.passes("gone", 10_000).await;
    world.passes("kept", 0).await;
    world.starts("gone", 1_010).await;
    world.starts("kept", 1_010).await;
    let mut second = in_force(
        2,
        &["name: kept, workflow: effect, interval: 60s, overlap: allow"],
    );
    second.since = at(1_012);
    world.schedules.applied(second).await;
    // What comes late of an older one changes nothing.
    let late = in_force(1, &["name: gone, workflow: effect, interval: 1s"]);
    world.schedules.applied(late).await;
    assert_eq!(world.schedules.list(&tenant()).len(), 1);
    world.passes("kept", 60_000).await;
    world.starts("kept", 1_020).await;
    assert_eq!(world.count().await, 3);
    let rows = world.bench.store.schedules(&tenant()).await.expect("reads");
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["kept"]);
    let state: State = serde_json::from_str(&rows[0].state).expect("reads");
    assert_eq!(state.timing, "every 1m");
}

#[tokio::test]
async fn schedules_that_wait_for_a_rate_hold_up_no_other_of_their_tenant() {
    let often =
        "workflow: paced, interval: 1s, overlap: allow, catch_up: {policy: all, window: 1h}";
    // Each has more to start than there are places, and all of them many times as much.
    let limited = (0..5).map(|n| format!("name: limited{n}, {often}"));
    let mut schedules: Vec<String> = limited.collect();
    schedules.push("name: other, workflow: effect, interval: 90s".to_owned());
    let schedules: Vec<&str> = schedules.iter().map(String::as_str).collect();
    let world = World::new(&schedules).await;
    world.passes("other", 100_000).await;
    world.starts("other", 1_080).await;
    assert!(world.count().await <= 3, "the rate lets two start");
    // And those that wait do begin when they may.
    while world.count().await < 10 {
        world.bench.advance(1_000);
        tokio::task::yield_now().await;
    }
}
