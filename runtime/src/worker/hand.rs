//! What a worker thread has in hand.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cascade_cdl::TenantId;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use super::COMPUTES;
use super::compute::Computing;
use crate::engine::{Engine, Report};

/// An attempt that runs.
pub(super) type Attempt = BoxFuture<'static, Report>;

/// Attempts that wait for something, and what comes of them.
pub(super) struct Hand {
    waiting: FuturesUnordered<Waiting>,
    /// Attempts that have used up their time, to be driven elsewhere.
    pub(super) computing: Vec<Computing>,
    pub(super) ended: Vec<Report>,
}

/// Why an attempt does not wait any more, and for how long it ran.
pub(super) enum Paused {
    Ended(Report, Duration),
    Computes(Computing),
}

impl Hand {
    pub(super) fn new() -> Self {
        Self {
            waiting: FuturesUnordered::new(),
            computing: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Whether no attempt waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next attempt that does not wait any more.
    pub(super) async fn next(&mut self) -> Option<Paused> {
        self.waiting.next().await
    }

    /// Runs an attempt, and keeps what comes of it.
    pub(super) fn begin(&mut self, tenant: TenantId, mut attempt: Attempt) {
        // Nobody is to be woken: if it waits, it is polled again at once where
        // it waits. Most attempts end here, and cost nothing of that.
        let (polled, spent) = poll(&mut attempt, &mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(report) => self.ended.push(report),
            Poll::Pending if spent >= COMPUTES => {
                self.computing
                    .push(Computing::after(tenant, attempt, spent));
            }
            Poll::Pending => self.waiting.push(Waiting(Some((tenant, attempt)))),
        }
    }

    pub(super) fn take(&mut self, paused: Paused) {
        match paused {
            Paused::Ended(report, _) => self.ended.push(report),
            Paused::Computes(computing) => self.computing.push(computing),
        }
    }
}

/// Polls an attempt, and tells for how long it ran.
fn poll(attempt: &mut Attempt, cx: &mut Context<'_>) -> (Poll<Report>, Duration) {
    let began = Instant::now();
    let polled = attempt.as_mut().poll(cx);
    (polled, began.elapsed())
}

/// An attempt that waits for something, until it ends or computes.
struct Waiting(Option<(TenantId, Attempt)>);

impl Future for Waiting {
    type Output = Paused;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Paused> {
        let (_, attempt) = self.0.as_mut().expect("not polled after it was ready");
        let (polled, spent) = poll(attempt, cx);
        if polled.is_pending() && spent < COMPUTES {
            return Poll::Pending;
        }
        let (tenant, attempt) = self.0.take().expect("it was just there");
        Poll::Ready(match polled {
            Poll::Ready(report) => Paused::Ended(report, spent),
            Poll::Pending => Paused::Computes(Computing::after(tenant, attempt, spent)),
        })
    }
}

/// Hands reports to the engine. While a busy shard makes them wait, what runs
/// goes on.
pub(super) struct Reporting<'a> {
    engine: &'a Engine,
    busy: Option<BoxFuture<'a, ()>>,
}

impl<'a> Reporting<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self { engine, busy: None }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// Waits until the engine has taken what it was given.
    pub(super) async fn done(&mut self) {
        if let Some(busy) = &mut self.busy {
            busy.await;
            self.busy = None;
        }
    }

    /// Reports what has ended, if there is nothing before it.
    pub(super) fn report(&mut self, ended: &mut Vec<Report>) {
        if self.busy.is_some() || ended.is_empty() {
            return;
        }
        let mut report = self.engine.report(std::mem::take(ended)).boxed();
        // Mostly there is room, and nothing to wait for.
        if (&mut report).now_or_never().is_none() {
            self.busy = Some(report);
        }
    }
}
