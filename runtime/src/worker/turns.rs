//! Turns of the attempts that compute, on one worker thread.
//!
//! The sandbox interrupts a guest that computes after about a millisecond. If
//! it then went on at once, an attempt that comes in would wait behind one
//! slice of every other: with sixty loops of a hostile tenant, behind sixty.
//! So of all attempts that have used up a slice, one at a time gets the next,
//! the one whose tenant has used least; an attempt that has not is never held up.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cascade_cdl::TenantId;

/// An attempt that ran so long without waiting for anything computes. Half the
/// sandbox's slice, so that a slice cut short by the tick counts.
const COMPUTES: Duration = Duration::from_micros(500);

/// Who waits for a turn on this thread.
#[derive(Default)]
pub(super) struct Turns(RefCell<State>);

#[derive(Default)]
struct State {
    /// By the time that their tenants had used, then by arrival.
    waiting: BTreeMap<Ticket, Option<Waker>>,
    /// Whose turn it is.
    turn: Option<Ticket>,
    tenants: HashMap<TenantId, Usage>,
    arrivals: u64,
    /// Time used by whoever had the last turn: where a tenant that comes anew
    /// starts, so that it does not have to be made up for.
    now: Duration,
}

/// What the attempts of one tenant that are here have computed.
struct Usage {
    used: Duration,
    attempts: usize,
}

type Ticket = (Duration, u64);

/// An attempt that takes turns.
pub(super) struct Paced<'a, F> {
    attempt: Pin<Box<F>>,
    tenant: TenantId,
    turns: &'a Turns,
    /// Present while it waits for a turn, or has one.
    ticket: Option<Ticket>,
}

impl Turns {
    /// Lets `attempt` take turns with the others.
    pub(super) fn pace<F: Future>(&self, tenant: TenantId, attempt: F) -> Paced<'_, F> {
        let mut state = self.0.borrow_mut();
        let now = state.now;
        let usage = state.tenants.entry(tenant.clone()).or_insert(Usage {
            used: now,
            attempts: 0,
        });
        usage.attempts += 1;
        Paced {
            attempt: Box::pin(attempt),
            tenant,
            turns: self,
            ticket: None,
        }
    }
}

impl State {
    /// Whether it is the turn of `ticket`; else `waker` is called when it is.
    fn is_turn(&mut self, ticket: Ticket, waker: &Waker) -> bool {
        if self.turn == Some(ticket) {
            return true;
        }
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            *waiting = Some(waker.clone());
        }
        false
    }

    /// Counts a slice; who used it up waits for the next turn.
    fn line_up(&mut self, tenant: &TenantId, spent: Duration, waker: &Waker) -> Ticket {
        let used = self.tenants.get_mut(tenant).map_or(self.now, |usage| {
            usage.used += spent;
            usage.used
        });
        self.arrivals += 1;
        let ticket = (used, self.arrivals);
        self.waiting.insert(ticket, Some(waker.clone()));
        ticket
    }

    /// Gives a turn back, if `ticket` has it, and to whoever is next.
    fn pass_on(&mut self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.waiting.remove(&ticket);
            if self.turn == Some(ticket) {
                self.turn = None;
            }
        }
        if self.turn.is_none()
            && let Some((ticket, waker)) = self.waiting.pop_first()
        {
            self.turn = Some(ticket);
            self.now = self.now.max(ticket.0);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<F: Future> Future for Paced<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if let Some(ticket) = this.ticket
            && !this.turns.0.borrow_mut().is_turn(ticket, cx.waker())
        {
            return Poll::Pending;
        }
        let began = Instant::now();
        let polled = this.attempt.as_mut().poll(cx);
        let spent = began.elapsed();
        let mut state = this.turns.0.borrow_mut();
        let had = this.ticket.take();
        if polled.is_pending() && spent >= COMPUTES {
            this.ticket = Some(state.line_up(&this.tenant, spent, cx.waker()));
        }
        if had.is_some() || this.ticket.is_some() {
            state.pass_on(had);
        }
        polled
    }
}

impl<F> Drop for Paced<'_, F> {
    fn drop(&mut self) {
        let mut state = self.turns.0.borrow_mut();
        if self.ticket.is_some() {
            state.pass_on(self.ticket);
        }
        if let Some(usage) = state.tenants.get_mut(&self.tenant) {
            usage.attempts -= 1;
            if usage.attempts == 0 {
                state.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures::StreamExt;
    use futures::stream::FuturesUnordered;

    use super::*;

    /// Computes for some slices, giving way after each as the sandbox does.
    async fn compute(slices: u32, log: Rc<RefCell<Vec<char>>>, name: char) {
        for _ in 0..slices {
            let began = Instant::now();
            while began.elapsed() < 2 * COMPUTES {
                std::hint::spin_loop();
            }
            log.borrow_mut().push(name);
            tokio::task::yield_now().await;
        }
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("valid")
    }

    /// Runs attempts to their end; each is a tenant's and computes some slices.
    async fn order(attempts: &[(&str, char, u32)]) -> String {
        let turns = Turns::default();
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut running = FuturesUnordered::new();
        for (owner, name, slices) in attempts {
            running.push(turns.pace(tenant(owner), compute(*slices, log.clone(), *name)));
        }
        while running.next().await.is_some() {}
        assert!(
            turns.0.borrow().tenants.is_empty(),
            "nothing is left behind"
        );
        assert!(turns.0.borrow().waiting.is_empty(), "nobody waits");
        log.take().into_iter().collect()
    }

    #[tokio::test]
    async fn everything_that_computes_comes_to_its_end() {
        let order = order(&[("a", 'x', 5), ("a", 'y', 3), ("b", 'z', 4)]).await;
        let count = |name| order.chars().filter(|c| *c == name).count();
        assert_eq!([count('x'), count('y'), count('z')], [5, 3, 4], "{order}");
    }

    #[tokio::test]
    async fn a_tenant_with_one_attempt_gets_as_much_as_one_with_ten() {
        let mut attempts = vec![("b", 'b', 6)];
        attempts.extend([("a", 'a', 6); 10]);
        let order = order(&attempts).await;
        // First everybody has a slice; from then on the two tenants alternate, but
        // for what `a` used more at first, until `b` is through.
        let last = order.rfind('b').expect("it ran");
        let between = order[11..=last].chars().filter(|c| *c == 'a').count();
        assert!(between <= 5, "{order}");
    }

    #[tokio::test]
    async fn one_that_comes_in_waits_for_a_slice_or_two_and_not_for_all() {
        let (turns, done) = (Turns::default(), Cell::new(false));
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut running = FuturesUnordered::new();
        for _ in 0..30 {
            let attempt = compute(1_000, log.clone(), 'a');
            running.push(futures::future::Either::Left(
                turns.pace(tenant("a"), attempt),
            ));
        }
        // All of them are known to compute once each has had a slice.
        while log.borrow().len() < 40 {
            let _ = futures::poll!(running.next());
        }
        let quick = turns.pace(tenant("b"), async { done.set(true) });
        running.push(futures::future::Either::Right(quick));
        let before = log.borrow().len();
        while !done.get() {
            let _ = futures::poll!(running.next());
        }
        let waited = log.borrow().len() - before;
        assert!(waited <= 3, "{waited} slices of others");
    }

    #[tokio::test]
    async fn one_that_is_dropped_in_its_turn_passes_it_on() {
        let turns = Turns::default();
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut first = turns.pace(tenant("a"), compute(1_000, log.clone(), 'a'));
        let mut second = turns.pace(tenant("a"), compute(2, log.clone(), 'b'));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await;
        assert_eq!(log.take().iter().filter(|c| **c == 'b').count(), 2);
    }
}
