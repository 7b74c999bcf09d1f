//! What one tenant, or too much at once, cannot do to a shard.

use super::*;

/// One shard with these settings.
async fn bench(settings: Settings) -> Bench {
    let limits = Admission {
        input_bytes: 2 << 20,
        open_executions: 3_000,
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

fn large(bytes: usize) -> Start {
    Start {
        input: json!("x".repeat(bytes)).into(),
        ..start("effect", None)
    }
}

#[tokio::test]
async fn a_commit_takes_so_many_bytes_and_no_more() {
    let bench = bench(Settings::default()).await;
    bench.store.hold_commits();
    let starts: Vec<_> = (0..20)
        .map(|_| {
            let engine = bench.engine.clone();
            tokio::spawn(async move {
                let mut answer = engine.start(large(1 << 20)).await;
                while let Err(StartError::Busy { .. }) = answer {
                    tokio::task::yield_now().await;
                    answer = engine.start(large(1 << 20)).await;
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
    // The first, and the others eight by eight.
    assert!(bench.store.counters().commits >= 3);
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
