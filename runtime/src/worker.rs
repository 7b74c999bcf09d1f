//! Runs activity tasks.
//!
//! Workers are threads apart from the I/O runtime, one a core: guests compute,
//! and computing on the I/O threads would make every request wait. Each thread
//! drives many attempts at a time, since a guest may wait for an answer over
//! HTTP, and the sandbox slices the time of those that only compute. A crash
//! loses the attempts in progress; recovery asks for them again.

mod runner;
mod turns;

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cascade_cdl::{ActivityFailure, TenantId};
use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};

use crate::dispatch::{AttemptKey, HeldTask, TaskQueue};
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

/// An attempt that ran so long without waiting for anything computes. Half the
/// sandbox's slice, so that a slice cut short by the tick counts.
const COMPUTES: Duration = Duration::from_micros(500);

/// How far the threads that run guests stand back behind those that serve
/// requests and commit (`nice`). Guests may fill all cores; a request, which
/// needs a core for microseconds, must not wait for them at each step of its
/// way. Not so far that a server that is busy with requests forgets its guests.
const NICE: i32 = 5;

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
                    .spawn(move || {
                        stand_back();
                        runtime.block_on(worker.work());
                    })
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

/// Lowers the priority of this thread: on Linux a thread has its own.
fn stand_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "a worker thread keeps its priority");
    }
}

struct Worker {
    queue: Arc<dyn TaskQueue>,
    runner: Arc<dyn ActivityRunner>,
    engine: Engine,
}

/// What a worker thread has in hand.
struct Hand<'a> {
    /// Attempts that wait for something.
    waiting: FuturesUnordered<Waiting<'a>>,
    /// Attempts that compute, one slice at a time.
    computing: Turns<LocalBoxFuture<'a, Report>>,
    /// Time that attempts which do not compute have had since the last slice
    /// of one that does: they get as much in turn.
    owed: Duration,
    ended: Vec<Report>,
}

impl Worker {
    async fn work(self) {
        let mut hand = Hand::new();
        // While a busy shard makes a report wait, what runs goes on.
        let mut reporting: Option<BoxFuture<'_, ()>> = None;
        let mut open = true;
        while open || !hand.is_empty() || reporting.is_some() {
            let room = PULL.min(ATTEMPTS_PER_THREAD - hand.len());
            let due = hand.owed >= COMPUTES && !hand.computing.is_empty();
            tokio::select! {
                // What can go on goes before what is new, or a stream of new
                // attempts would hold it up; then new ones, of which most are
                // done within microseconds; then what computes.
                biased;
                () = async { reporting.as_mut().expect("checked").await }, if reporting.is_some() => {
                    reporting = None;
                }
                Some(paused) = hand.waiting.next(), if !hand.waiting.is_empty() && !due => {
                    hand.take(paused);
                }
                held = self.queue.pull(room), if open && room > 0 && reporting.is_none() && !due => {
                    open = !held.is_empty();
                    for held in held {
                        let tenant = held.task.tenant.clone();
                        hand.begin(tenant, self.attempt(held).boxed_local());
                    }
                    if !hand.waiting.is_empty() {
                        // The thread's timers and sockets have their say even if
                        // there is always something new.
                        tokio::task::yield_now().await;
                    }
                }
                () = std::future::ready(()), if !hand.computing.is_empty() => {
                    hand.slice();
                    tokio::task::yield_now().await; // likewise
                }
            }
            if reporting.is_none() && !hand.ended.is_empty() {
                let mut report = self.engine.report(std::mem::take(&mut hand.ended)).boxed();
                // Mostly there is room, and nothing to wait for.
                if (&mut report).now_or_never().is_none() {
                    reporting = Some(report);
                }
            }
        }
    }

    async fn attempt(&self, held: HeldTask) -> Report {
        let key = held.task.key();
        let ended = AssertUnwindSafe(self.runner.run(held)).catch_unwind().await;
        let (report, cost) = ended.unwrap_or_else(|_| (panicked(key.clone()), 0));
        self.queue.settle(&key, cost);
        if let Some(receipt) = &report.receipt {
            let lasted = Duration::from_micros(receipt.duration_us);
            let failed = report.result.is_err();
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

impl<'a> Hand<'a> {
    fn new() -> Self {
        Self {
            waiting: FuturesUnordered::new(),
            computing: Turns::new(),
            owed: Duration::ZERO,
            ended: Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.computing.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs an attempt for the first time.
    fn begin(&mut self, tenant: TenantId, mut attempt: LocalBoxFuture<'a, Report>) {
        // Nobody is to be woken: if it waits, it is polled again at once where
        // it waits. Most attempts end here, and cost nothing of that.
        let (polled, spent) = poll(&mut attempt, &mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(report) => self.take(Paused::Ended(report, spent)),
            Poll::Pending if spent >= COMPUTES => {
                self.take(Paused::Computes(tenant, attempt, spent));
            }
            Poll::Pending => self.waiting.push(Waiting(Some((tenant, attempt)))),
        }
    }

    fn take(&mut self, paused: Paused<'a>) {
        let (Paused::Ended(_, spent) | Paused::Computes(_, _, spent)) = paused;
        self.owed += spent;
        match paused {
            Paused::Ended(report, _) => self.ended.push(report),
            Paused::Computes(tenant, attempt, spent) => {
                self.computing.line_up(tenant, spent, attempt);
            }
        }
    }

    /// Gives the attempt whose turn it is one slice.
    fn slice(&mut self) {
        let Some((tenant, mut attempt)) = self.computing.next() else {
            return;
        };
        self.owed = Duration::ZERO;
        let (polled, spent) = poll(&mut attempt, &mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(report) => self.ended.push(report),
            Poll::Pending if spent >= COMPUTES => self.computing.line_up(tenant, spent, attempt),
            Poll::Pending => self.waiting.push(Waiting(Some((tenant, attempt)))),
        }
    }
}

/// Polls an attempt, and tells for how long it ran.
fn poll(
    attempt: &mut LocalBoxFuture<'_, Report>,
    cx: &mut Context<'_>,
) -> (Poll<Report>, Duration) {
    let began = Instant::now();
    let polled = attempt.as_mut().poll(cx);
    (polled, began.elapsed())
}

/// An attempt that waits for something, until it ends or computes.
struct Waiting<'a>(Option<(TenantId, LocalBoxFuture<'a, Report>)>);

/// Why an attempt does not wait any more, and for how long it ran.
enum Paused<'a> {
    Ended(Report, Duration),
    Computes(TenantId, LocalBoxFuture<'a, Report>, Duration),
}

impl<'a> Future for Waiting<'a> {
    type Output = Paused<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Paused<'a>> {
        let (_, attempt) = self.0.as_mut().expect("not polled after it was ready");
        let (polled, spent) = poll(attempt, cx);
        if polled.is_pending() && spent < COMPUTES {
            return Poll::Pending;
        }
        let (tenant, attempt) = self.0.take().expect("it was just there");
        Poll::Ready(match polled {
            Poll::Ready(report) => Paused::Ended(report, spent),
            Poll::Pending => Paused::Computes(tenant, attempt, spent),
        })
    }
}
