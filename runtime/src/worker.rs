//! Runs activity tasks.
//!
//! Workers are threads apart from the I/O runtime, one a core: guests compute,
//! and computing on the I/O threads would make every request wait. Each thread
//! drives many attempts at a time, since a guest may wait for an answer over
//! HTTP, and the sandbox slices the time of those that only compute. A crash
//! loses the attempts in progress; recovery asks for them again.

mod runner;
mod turns;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use cascade_cdl::ActivityFailure;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::dispatch::{HeldTask, TaskQueue};
use crate::engine::{Engine, Report};
use crate::telemetry;
pub use runner::SandboxRunner;
use turns::Turns;

/// Attempts that one thread drives at a time. Most of them wait for the
/// network; each holds a stack and an instance of the sandbox's pool.
pub const ATTEMPTS_PER_THREAD: usize = 64;

/// Tasks taken at a time: amortises the queue's lock and the report, and is
/// small enough that tenants alternate.
const PULL: usize = 32;

/// Runs one attempt; the seam between worker and sandbox.
#[async_trait]
pub trait ActivityRunner: Send + Sync + 'static {
    /// Runs it to its end, whatever that is.
    async fn run(&self, held: HeldTask) -> Report;
}

/// The worker threads of this process.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` threads, which end when the queue is closed and what
    /// they hold has ended.
    pub fn start(
        threads: usize,
        queue: &Arc<dyn TaskQueue>,
        runner: &Arc<dyn ActivityRunner>,
        engine: &Engine,
    ) -> io::Result<Self> {
        let threads = (0..threads.max(1))
            .map(|index| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let worker = Worker {
                    queue: queue.clone(),
                    runner: runner.clone(),
                    engine: engine.clone(),
                };
                std::thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(move || runtime.block_on(worker.work()))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { threads })
    }

    /// Waits for the threads; call it after [`TaskQueue::close`].
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

struct Worker {
    queue: Arc<dyn TaskQueue>,
    runner: Arc<dyn ActivityRunner>,
    engine: Engine,
}

impl Worker {
    async fn work(self) {
        let turns = Turns::default();
        let mut running = FuturesUnordered::new();
        let mut ended = Vec::new();
        // While a busy shard makes a report wait, what runs goes on.
        let mut reporting: Option<BoxFuture<'_, ()>> = None;
        let mut open = true;
        while open || !running.is_empty() || reporting.is_some() {
            let room = PULL.min(ATTEMPTS_PER_THREAD - running.len());
            tokio::select! {
                held = self.queue.pull(room), if open && room > 0 && reporting.is_none() => {
                    open = !held.is_empty();
                    running.extend(held.into_iter().map(|held| {
                        turns.pace(held.task.tenant.clone(), self.attempt(held))
                    }));
                }
                Some(report) = running.next(), if !running.is_empty() => {
                    ended.push(report);
                    while let Some(Some(report)) = running.next().now_or_never() {
                        ended.push(report);
                    }
                }
                () = async { reporting.as_mut().expect("checked").await }, if reporting.is_some() => {
                    reporting = None;
                }
            }
            if reporting.is_none() && !ended.is_empty() {
                let mut report = self.engine.report(std::mem::take(&mut ended)).boxed();
                // Mostly there is room, and nothing to wait for.
                if (&mut report).now_or_never().is_none() {
                    reporting = Some(report);
                }
            }
        }
    }

    async fn attempt(&self, held: HeldTask) -> Report {
        let key = held.task.key();
        let report = AssertUnwindSafe(self.runner.run(held)).catch_unwind().await;
        let report = report.unwrap_or_else(|_| Report {
            attempt: key.clone(),
            result: Err(ActivityFailure {
                error: "HostPanic".to_owned(),
                message: "the worker failed while it ran this attempt; see its log".to_owned(),
                retryable: None,
                details: None,
            }),
            receipt: None,
        });
        let fuel = report.receipt.as_ref().map_or(0, |receipt| receipt.fuel);
        self.queue.settle(&key, fuel);
        if let Some(receipt) = &report.receipt {
            let lasted = Duration::from_micros(receipt.duration_us);
            telemetry::attempt_ended(report.result.is_err(), receipt.pure, fuel, lasted);
        }
        report
    }
}
