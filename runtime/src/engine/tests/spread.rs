//! Distributed Maps: each item once, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::*;
use crate::dispatch::QueuedTask;
use crate::objects;

const ITEMS: usize = 700;

async fn upload(bench: &Bench, key: &str, content: &str) {
    let name = objects::name("in", key).expect("valid");
    let acme = tenant();
    let put = bench
        .objects
        .put(&acme, name, content.as_bytes(), Timestamp(1));
    put.await.expect("fits");
}

fn numbers(count: usize) -> String {
    let lines: Vec<_> = (0..count).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    lines.concat()
}

async fn begin(bench: &Bench, workflow: &str) -> ExecutionId {
    let started = bench.engine.start(start(workflow, None)).await;
    started.expect("starts").id
}

/// The number that an attempt is about.
fn number(task: &QueuedTask) -> u64 {
    let input = task.task.input.to_value();
    input["n"].as_u64().expect("a number")
}

/// Answers attempts until the execution has ended; gives its status. How often each
/// number was seen is counted.
async fn work(bench: &Bench, id: ExecutionId, seen: &mut BTreeMap<u64, u32>) -> Status {
    let mut versions = bench.engine.watch(&tenant(), id);
    loop {
        let view = bench.engine.show(&tenant(), id).await.expect("reads");
        let status = view.map(|view| view.execution.status);
        if let Some(status) = status.filter(|status| *status != Status::Running) {
            return status;
        }
        tokio::select! {
            held = bench.task() => {
                let n = number(&held.task);
                *seen.entry(n).or_default() += 1;
                bench.complete(&held.task, json!(n * 2)).await;
            }
            changed = versions.changed() => changed.expect("the engine lives"),
        }
    }
}

async fn content(bench: &Bench, key: &str) -> String {
    use std::io::Read;
    let name = objects::name("out", key).expect("valid");
    let object = bench.objects.get(&tenant(), &name).await.expect("reads");
    let object = object.unwrap_or_else(|| panic!("there is no {key}"));
    let file = bench.objects.content(&tenant(), &object.digest).await;
    let mut text = String::new();
    let mut file = file.expect("reads").expect("is there");
    file.read_to_string(&mut text).expect("text");
    text
}

/// All lines of the results of a run, in order.
async fn results(bench: &Bench, status: &Status) -> Vec<Value> {
    let Status::Completed { output } = status else {
        panic!("{status:?}");
    };
    let run = &output.to_value()["run"];
    assert_eq!(run["items"], ITEMS, "{run}");
    let manifest = run["manifest"].as_str().expect("a name");
    let key = manifest.strip_prefix("out/").expect("the bucket");
    let manifest: Value = serde_json::from_str(&content(bench, key).await).expect("JSON");
    let mut lines = Vec::new();
    for file in manifest["ResultFiles"]["SUCCEEDED"]
        .as_array()
        .expect("a list")
    {
        let text = content(bench, file["Key"].as_str().expect("a key")).await;
        assert_eq!(file["Size"], text.len());
        lines.extend(
            text.lines()
                .map(|line| serde_json::from_str(line).expect("JSON")),
        );
    }
    lines
}

fn expected() -> Vec<Value> {
    let entry = |n: usize| json!({"index": n, "input": {"n": n}, "output": n * 2});
    (0..ITEMS).map(entry).collect()
}

#[tokio::test]
async fn each_item_of_an_object_is_run_once_and_its_result_written() {
    let bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "written").await;
    let mut seen = BTreeMap::new();
    let status = work(&bench, id, &mut seen).await;
    assert_eq!(results(&bench, &status).await, expected());
    assert_eq!(seen.len(), ITEMS);
    assert!(seen.values().all(|count| *count == 1));
    let view = bench.engine.show(&tenant(), id).await.expect("reads");
    // The start, what was read, three chunks, the manifest.
    assert_eq!(view.expect("is there").summary.version, 6);
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn a_crash_in_the_middle_neither_loses_nor_repeats_a_result() {
    let mut bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "written").await;
    for answered in [0, 1, 260, 300] {
        for _ in 0..answered {
            let held = bench.task().await;
            let n = number(&held.task);
            bench.complete(&held.task, json!(n * 2)).await;
        }
        bench = bench.crash().await;
    }
    let status = work(&bench, id, &mut BTreeMap::new()).await;
    assert_eq!(results(&bench, &status).await, expected());
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn without_a_place_the_results_are_the_output_in_order() {
    let bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "listed").await;
    let status = work(&bench, id, &mut BTreeMap::new()).await;
    let Status::Completed { output } = status else {
        panic!("{status:?}");
    };
    let doubled: Vec<usize> = (0..ITEMS).map(|n| n * 2).collect();
    assert_eq!(output.to_value(), json!({ "all": doubled }));
}

#[tokio::test]
async fn what_cannot_be_read_names_object_line_and_offset() {
    let bench = Bench::new().await;
    for (content, expected) in [
        (None, "there is no such object"),
        (Some("{\"n\":1}\n{\"n\":\n"), "line 2, offset 8: not JSON"),
    ] {
        if let Some(content) = content {
            upload(&bench, "numbers", content).await;
        }
        let id = begin(&bench, "listed").await;
        match work(&bench, id, &mut BTreeMap::new()).await {
            Status::Failed { failure } => {
                assert_eq!(failure.error, "ItemReadFailed");
                assert!(failure.message.contains("`in/numbers`"), "{failure:?}");
                assert!(failure.message.contains(expected), "{failure:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn failures_are_counted_over_all_chunks() {
    let bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "tolerant").await;
    let fails = || ActivityFailure {
        error: "Odd".to_owned(),
        message: "odd".to_owned(),
        retryable: Some(false),
        details: None,
    };
    let mut versions = bench.engine.watch(&tenant(), id);
    let failure = loop {
        let view = bench.engine.show(&tenant(), id).await.expect("reads");
        match view.map(|view| view.execution.status) {
            Some(Status::Failed { failure }) => break failure,
            Some(Status::Running) => {}
            other => panic!("{other:?}"),
        }
        tokio::select! {
            held = bench.task() => match number(&held.task) {
                // One in the first chunk, two in the second.
                10 | 260 | 270 => bench.report(&held.task, Err(fails())).await,
                n => bench.complete(&held.task, json!(n * 2)).await,
            },
            changed = versions.changed() => changed.expect("the engine lives"),
        }
    };
    assert_eq!(failure.error, "FailureToleranceExceeded", "{failure:?}");
    // Only chunks in which something failed, or that were not done, run again.
    bench.engine.retry(&tenant(), id).await.expect("goes on");
    let mut seen = BTreeMap::new();
    let status = work(&bench, id, &mut seen).await;
    assert_eq!(results(&bench, &status).await, expected());
    assert!([10, 260, 270].iter().all(|n| seen.contains_key(n)));
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn chunks_are_cancelled_with_the_execution_that_has_the_map() {
    let bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "written").await;
    let chunk = bench.task().await.task.execution;
    assert_ne!(chunk, id);
    let cancelled = bench.engine.cancel(&tenant(), id, "enough".into()).await;
    cancelled.expect("cancels");
    let mut versions = bench.engine.watch(&tenant(), chunk);
    loop {
        let view = bench.engine.show(&tenant(), chunk).await.expect("reads");
        match view.map(|view| view.execution.status) {
            Some(Status::Cancelled { .. }) => break,
            Some(Status::Running) => versions.changed().await.expect("the engine lives"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_object_that_is_deleted_meanwhile_fails_the_map_by_name() {
    let bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "one_by_one").await;
    let held = bench.task().await;
    let name = objects::name("in", "numbers").expect("valid");
    bench
        .objects
        .delete(&tenant(), &name)
        .await
        .expect("deletes");
    let n = number(&held.task);
    bench.complete(&held.task, json!(n)).await;
    match work(&bench, id, &mut BTreeMap::new()).await {
        Status::Failed { failure } => {
            assert_eq!(failure.error, "ItemReadFailed", "{failure:?}");
            assert!(
                failure.message.contains("deleted or replaced"),
                "{failure:?}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn chunks_that_have_begun_go_on_after_a_crash_without_the_object() {
    let bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "written").await;
    let mut chunks = BTreeSet::new();
    while chunks.len() < 3 {
        let held = bench.task().await;
        chunks.insert(held.task.execution);
    }
    for chunk in chunks {
        let mut versions = bench.engine.watch(&tenant(), chunk);
        while summary(&bench, chunk).await.is_none() {
            // A start that nobody waits for is durable a little later.
            bench.advance(1_000);
            versions.changed().await.expect("the engine lives");
        }
    }
    let name = objects::name("in", "numbers").expect("valid");
    let deleted = bench.objects.delete(&tenant(), &name).await;
    assert!(deleted.expect("deletes"));
    let bench = bench.crash().await;
    let status = work(&bench, id, &mut BTreeMap::new()).await;
    assert_eq!(results(&bench, &status).await, expected());
}

#[tokio::test]
async fn nobody_but_a_map_starts_its_chunks() {
    let bench = Bench::new().await;
    let refused = bench.engine.start(start("written#Double", None)).await;
    assert!(
        matches!(refused, Err(StartError::UnknownWorkflow { .. })),
        "{refused:?}"
    );
}

/// Room for items of two chunks of [`numbers`], and not of three.
const TWO_CHUNKS: usize = 20_000;

/// So many chunks of a Map are asked for at a time.
const ASKED: usize = 8;

/// A bench on which a tenant has room for two chunks, and a Map of twelve.
async fn narrow(workflow: &str) -> (Bench, ExecutionId) {
    let settings = Settings {
        shards: 1,
        // A tenant may have a quarter.
        chunk_bytes: 4 * TWO_CHUNKS,
        ..Settings::default()
    };
    let limits = Admission {
        input_bytes: 100,
        open_executions: 3_000,
        open_bytes: 1 << 30,
    };
    let limits = Arc::new(Mutex::new(limits));
    let store = Arc::new(ModelStore::new());
    let bench = Bench::open(settings, limits, store, HandClock::new()).await;
    upload(&bench, "numbers", &numbers(3_000)).await;
    // Nothing is read before the test lets it.
    let all = bench.room().take_many(&tenant(), usize::MAX).await;
    let id = begin(&bench, workflow).await;
    let mut versions = bench.engine.watch(&tenant(), id);
    let asks = |row: &store::Summary| row.version >= 2;
    while !summary(&bench, id).await.as_ref().is_some_and(asks) {
        versions.changed().await.expect("the engine lives");
    }
    bench.store.hold_loads();
    bench.by_version.store(0, Ordering::Relaxed);
    drop(all);
    (bench, id)
}

async fn summary(bench: &Bench, id: ExecutionId) -> Option<store::Summary> {
    let row = bench.store.summary(&tenant(), id).await;
    row.expect("reads")
}

impl Bench {
    fn room(&self) -> &Places {
        &self.engine.inner.context.spreads.room
    }

    /// Lets everything run that can.
    async fn settles(&self) {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when so many chunks have been read and sent to a shard.
    async fn read(&self, chunks: usize) {
        while self.chunks_read() < chunks {
            tokio::task::yield_now().await;
        }
    }

    fn chunks_read(&self) -> usize {
        self.by_version.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn items_of_so_many_chunks_are_at_hand_until_a_shard_counts_them_and_no_more() {
    let (bench, id) = narrow("listed").await;
    bench.read(2).await;
    bench.settles().await;
    assert_eq!(bench.chunks_read(), 2, "the shard has taken none yet");
    assert!(bench.room().left(&tenant()) < TWO_CHUNKS / 3);
    bench.store.release();
    let status = work(&bench, id, &mut BTreeMap::new()).await;
    assert!(matches!(status, Status::Completed { .. }), "{status:?}");
    assert_eq!(bench.room().left(&tenant()), TWO_CHUNKS, "all came back");
}

#[tokio::test]
async fn a_chunk_that_is_refused_gives_its_room_back_and_is_read_again_when_it_may_begin() {
    let (bench, id) = narrow("listed").await;
    let limit = |count| bench.limits.lock().expect("no panic").open_executions = count;
    limit(1); // the Map itself
    bench.store.release();
    bench.read(ASKED).await;
    // All have been, two at a time; now they wait, without anything.
    for _ in 0..10 {
        bench.settles().await;
        bench.advance(30_000);
    }
    bench.settles().await;
    assert_eq!(bench.chunks_read(), ASKED);
    assert_eq!(bench.room().left(&tenant()), TWO_CHUNKS);
    assert_eq!(bench.engine.stats().started, 1);
    limit(3_000);
    bench.advance(30_000);
    let mut seen = BTreeMap::new();
    let status = work(&bench, id, &mut seen).await;
    assert!(matches!(status, Status::Completed { .. }), "{status:?}");
    assert_eq!(seen.len(), 3_000);
    assert!(seen.values().all(|count| *count == 1));
}

#[tokio::test]
async fn what_a_chunk_gave_waits_in_the_store_until_there_is_room_for_it() {
    let bench = Bench::new().await;
    upload(&bench, "numbers", &numbers(ITEMS)).await;
    let id = begin(&bench, "written").await;
    while bench.engine.stats().started < 4 {
        tokio::task::yield_now().await;
    }
    // The chunks run, and have no room but in their executions.
    let all = bench.room().take_many(&tenant(), usize::MAX).await;
    for _ in 0..ITEMS {
        let held = bench.task().await;
        let n = number(&held.task);
        bench.complete(&held.task, json!(n * 2)).await;
    }
    while bench.engine.stats().closed < 3 {
        tokio::task::yield_now().await;
    }
    bench.settles().await;
    let written = bench.objects.list(&tenant(), "out", "", "", 10).await;
    assert_eq!(written.expect("reads"), []);
    // Nor is what they were cut of needed any more.
    let name = objects::name("in", "numbers").expect("valid");
    let deleted = bench.objects.delete(&tenant(), &name).await;
    assert!(deleted.expect("deletes"));
    drop(all);
    let status = work(&bench, id, &mut BTreeMap::new()).await;
    assert_eq!(results(&bench, &status).await, expected());
}
