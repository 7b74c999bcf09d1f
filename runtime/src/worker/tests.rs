//! Whose turn it is on a worker thread that always has something new to begin.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::dispatch::QueuedTask;
use crate::engine::tests::world::{Bench, start};

/// Batches of new attempts: far more than anybody should have to wait for.
const BATCHES: u32 = 20_000;

/// The attempt that is not done at once.
const SLOW: u32 = 1;

/// Has new attempts whenever it is asked, until it has given [`BATCHES`].
struct Stream {
    task: QueuedTask,
    /// What the slow one is expected to take.
    expected: Duration,
    given: AtomicU32,
    attempts: AtomicU32,
}

#[async_trait]
impl TaskQueue for Stream {
    async fn pull(&self, max: usize) -> Vec<HeldTask> {
        if self.given.fetch_add(1, Ordering::Relaxed) >= BATCHES {
            return Vec::new();
        }
        let fresh = |_| {
            let mut task = self.task.clone();
            task.task.attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
            let slow = task.task.attempt == SLOW;
            let expected = if slow { self.expected } else { Duration::ZERO };
            HeldTask {
                task,
                cancelled: CancellationToken::new(),
                expected: u64::try_from(expected.as_nanos()).expect("it is short"),
            }
        };
        (0..max).map(fresh).collect()
    }

    fn push(&self, _: Vec<QueuedTask>) {}

    fn settle(&self, _: &AttemptKey, _: Spent) {}

    fn cancel(&self, _: &AttemptKey) {}

    fn withdraw(&self, _: &AttemptKey) -> bool {
        false
    }

    fn waits_for_rate(&self, _: &AttemptKey) -> bool {
        false
    }

    fn depth(&self) -> usize {
        0
    }

    fn close(&self) {}

    fn abandon(&self) {}
}

/// What the first attempt does each time that it is polled; the others are
/// done at once.
struct Runner {
    stream: Arc<Stream>,
    polls: u32,
    each: fn(),
    /// Batches that had been given when it was done.
    waited: AtomicU32,
}

#[async_trait]
impl ActivityRunner for Runner {
    async fn run(&self, held: HeldTask) -> (Report, u64) {
        if held.task.task.attempt == SLOW {
            for _ in 0..self.polls {
                (self.each)();
                tokio::task::yield_now().await;
            }
            let given = self.stream.given.load(Ordering::Relaxed);
            self.waited.store(given, Ordering::Relaxed);
        }
        let report = Report {
            attempt: held.task.key(),
            result: Ok(serde_json::Value::Null.into()),
            receipt: None,
        };
        (report, 0)
    }
}

/// What the worker does while one attempt gives its thread back so many times,
/// and how many are handed over. The batches are those begun before its end.
struct Course {
    handed: usize,
    batches: u32,
}

async fn course(expected: Duration, polls: u32, each: fn()) -> Course {
    let bench = Bench::new().await;
    let started = bench.engine.start(start("one", None));
    started.await.expect("starts");
    let HeldTask { task, .. } = bench.task().await;
    let stream = Arc::new(Stream {
        task,
        expected,
        given: AtomicU32::new(0),
        attempts: AtomicU32::new(0),
    });
    let runner = Arc::new(Runner {
        stream: stream.clone(),
        polls,
        each,
        waited: AtomicU32::new(0),
    });
    let worker = Arc::new(Worker {
        queue: stream,
        runner: runner.clone(),
        engine: bench.engine.clone(),
    });
    let (over, handed) = mpsc::unbounded_channel();
    worker.work(over).await;
    let count = handed.len();
    compute(&bench.engine, handed).await;
    Course {
        handed: count,
        batches: runner.waited.load(Ordering::Relaxed),
    }
}

#[tokio::test]
async fn what_waited_goes_on_before_what_is_new() {
    let Course { handed, batches } = course(Duration::ZERO, 3, || {}).await;
    assert_eq!(handed, 0);
    assert!((1..=8).contains(&batches), "{batches} batches of new ones");
}

#[tokio::test]
async fn what_computes_goes_on_elsewhere_to_its_end() {
    let compute = || {
        let began = Instant::now();
        while began.elapsed() < COMPUTES {
            std::hint::spin_loop();
        }
    };
    let Course { handed, batches } = course(Duration::ZERO, 3, compute).await;
    assert_eq!(handed, 1);
    assert!(batches > BATCHES, "it has ended, after {batches} batches");
}

#[tokio::test]
async fn what_will_compute_does_not_even_begin_among_what_is_short() {
    let Course { handed, batches } = course(COMPUTES, 1, || {}).await;
    assert_eq!(handed, 1);
    assert!(batches > BATCHES, "it has ended, after {batches} batches");
}
