//! Runs activity tasks.
//!
//! Workers are threads apart from the I/O runtime, two a core: guests compute,
//! and computing on the I/O threads would make every request wait. One of the
//! two takes attempts from the queue and drives many at a time, since most end
//! within microseconds and a guest may wait for an answer over HTTP. An attempt
//! that computes for longer goes on on the other, which stands further back, so
//! that whatever tenants compute, what is short does not wait for it. A crash
//! loses the attempts in progress; recovery asks for them again.

mod compute;
mod hand;
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
use tokio::sync::{mpsc, oneshot};

use crate::dispatch::{AttemptKey, HeldTask, Spent, TaskQueue};
use crate::engine::{Engine, Report};
use crate::telemetry;
use crate::threads;
use compute::{Computing, compute};
use hand::{Hand, Reporting};
pub use runner::{SandboxRunner, SecretSource};

/// Attempts that one core drives at a time. Most of them wait for the network;
/// each holds a stack and an instance of the sandbox's pool.
pub const ATTEMPTS_PER_THREAD: u32 = 64;

/// Attempts that one tenant begins in a second, for each core, while others are
/// there. With its events an attempt that ends at once takes some 35 µs of a core,
/// of the worker, the engine and the store together: a sixth of all there is, and
/// half of the one-step workflows that a core carries. At twice that, the commits of
/// others wait for one of this tenant's each time.
pub const CROWDED_PACE: u32 = 5_000;

/// Tasks taken at a time: amortises the queue's lock and the report, and is
/// small enough that tenants alternate.
const PULL: usize = 32;

/// An attempt that ran so long without waiting for anything computes. Half the
/// sandbox's slice, so that a slice cut short by the tick counts.
const COMPUTES: Duration = Duration::from_micros(500);

/// How far the threads that take attempts stand back behind those that serve
/// requests and commit (`nice`). A request, which needs a core for microseconds,
/// must not wait for guests at each step of its way. Not so far that a server
/// that is busy with requests forgets its guests.
const NICE: i32 = 5;

/// The same of the threads where attempts compute. They may fill all cores, and
/// still have a tenth of one that is busy with all else.
const NICE_COMPUTING: i32 = 10;

/// Runs one attempt; the seam between worker and sandbox.
#[async_trait]
pub trait ActivityRunner: Send + Sync + 'static {
    /// Runs it to its end, whatever that is. Beside the report, what it cost its
    /// tenant: fuel, or nanoseconds of a processor if those are more.
    async fn run(&self, held: HeldTask) -> (Report, u64);
}

/// The worker threads of this process.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads for so many cores, which end when the queue is closed
    /// and what they hold has ended.
    pub fn start(
        cores: usize,
        queue: &Arc<dyn TaskQueue>,
        runner: &Arc<dyn ActivityRunner>,
        engine: &Engine,
    ) -> io::Result<Self> {
        let worker = Arc::new(Worker {
            queue: queue.clone(),
            runner: runner.clone(),
            engine: engine.clone(),
        });
        let mut threads = Vec::with_capacity(2 * cores.max(1));
        for index in 0..cores.max(1) {
            let (over, handed) = mpsc::unbounded_channel();
            let (done, ended) = oneshot::channel();
            let engine = engine.clone();
            threads.push(thread(
                format!("compute-{index}"),
                NICE_COMPUTING,
                async move {
                    compute(&engine, handed).await;
                    let _ = done.send(()); // it may have died
                },
            )?);
            let worker = worker.clone();
            threads.push(thread(format!("worker-{index}"), NICE, async move {
                worker.work(over).await;
                // What an attempt waits for belongs to the thread where it began.
                let _ = ended.await;
            })?);
        }
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

/// A thread with timers and sockets of its own.
fn thread(
    name: String,
    nice: i32,
    work: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new().name(name).spawn(move || {
        if let Err(error) = threads::stand_back(nice) {
            tracing::warn!(%error, "a worker thread keeps its priority");
        }
        runtime.block_on(work);
    })
}

struct Worker {
    queue: Arc<dyn TaskQueue>,
    runner: Arc<dyn ActivityRunner>,
    engine: Engine,
}

impl Worker {
    /// Takes attempts and drives them for as long as they do not compute.
    async fn work(self: Arc<Self>, over: mpsc::UnboundedSender<Computing>) {
        let mut hand = Hand::new();
        let mut reporting = Reporting::new(&self.engine);
        let mut open = true;
        while open || !hand.is_empty() || reporting.is_busy() {
            tokio::select! {
                // What can go on goes before what is new, or a stream of new
                // attempts would hold it up.
                biased;
                () = reporting.done(), if reporting.is_busy() => {}
                Some(paused) = hand.next(), if !hand.is_empty() => hand.take(paused),
                held = self.queue.pull(PULL), if open && !reporting.is_busy() => {
                    open = !held.is_empty();
                    for held in held {
                        let expected = Duration::from_nanos(held.expected);
                        let tenant = held.task.tenant.clone();
                        let attempt = self.clone().attempt(held).boxed();
                        if expected >= COMPUTES {
                            hand.computing.push(Computing::new(tenant, attempt));
                        } else {
                            hand.begin(tenant, attempt);
                        }
                    }
                    if !hand.is_empty() {
                        // The thread's timers and sockets have their say even if
                        // there is always something new.
                        tokio::task::yield_now().await;
                    }
                }
            }
            for computing in hand.computing.drain(..) {
                // It lives for as long as this end does; if it has panicked, its
                // attempts are lost with it.
                let _ = over.send(computing);
            }
            reporting.report(&mut hand.ended);
        }
    }

    async fn attempt(self: Arc<Self>, held: HeldTask) -> Report {
        let key = held.task.key();
        let ended = AssertUnwindSafe(self.runner.run(held)).catch_unwind().await;
        let (report, cost) = ended.unwrap_or_else(|_| (panicked(key.clone()), 0));
        let failed = report.result.is_err();
        self.queue.settle(&key, Spent { cost, failed });
        if let Some(receipt) = &report.receipt {
            let lasted = Duration::from_micros(receipt.duration_us);
            telemetry::attempt_ended(failed, receipt.pure, receipt.fuel, lasted);
        }
        report
    }
}

fn panicked(attempt: AttemptKey) -> Report {
    Report {
        attempt,
        result: Err(ActivityFailure {
            error: "HostPanic".to_owned(),
            message: "the worker failed while it ran this attempt; see its log".to_owned(),
            retryable: None,
            details: None,
        }),
        receipt: None,
    }
}

#[cfg(test)]
mod tests;
