//! Attempts that compute, on threads of their own.
//!
//! The sandbox interrupts a guest that computes after about a millisecond; one
//! at a time then gets the next slice ([`Turns`]).

use std::time::Duration;

use cascade_cdl::TenantId;
use tokio::sync::mpsc;

use super::COMPUTES;
use super::hand::{Attempt, Hand, Paused, Reporting};
use super::turns::Turns;
use crate::engine::Engine;

/// An attempt that computes, or that will.
pub(super) struct Computing {
    tenant: TenantId,
    attempt: Attempt,
    /// What it has just used.
    spent: Duration,
}

impl Computing {
    /// One that has not begun.
    pub(super) fn new(tenant: TenantId, attempt: Attempt) -> Self {
        Self::after(tenant, attempt, Duration::ZERO)
    }

    /// One that has just run for so long.
    pub(super) fn after(tenant: TenantId, attempt: Attempt, spent: Duration) -> Self {
        Self {
            tenant,
            attempt,
            spent,
        }
    }
}

/// Drives what is handed over until nothing more can come. What is handed over
/// has a place of the queue, which bounds it.
pub(super) async fn compute(engine: &Engine, mut handed: mpsc::UnboundedReceiver<Computing>) {
    let mut hand = Hand::new();
    let mut turns = Turns::new();
    let mut reporting = Reporting::new(engine);
    // Time that attempts which waited have had since the last slice of one that
    // computes: they get as much in turn.
    let mut owed = Duration::ZERO;
    let mut open = true;
    while open || !hand.is_empty() || !turns.is_empty() || reporting.is_busy() {
        let due = owed >= COMPUTES && !turns.is_empty();
        tokio::select! {
            biased;
            () = reporting.done(), if reporting.is_busy() => {}
            Some(paused) = hand.next(), if !hand.is_empty() && !due => {
                let (Paused::Ended(_, spent) | Paused::Computes(Computing { spent, .. })) = &paused;
                owed += *spent;
                hand.take(paused);
            }
            computing = handed.recv(), if open => match computing {
                Some(computing) => line_up(&mut turns, computing),
                None => open = false,
            },
            () = std::future::ready(()), if !turns.is_empty() => {
                owed = Duration::ZERO;
                slice(&mut turns, &mut hand);
                // The thread's timers and sockets have their say.
                tokio::task::yield_now().await;
                // And whoever else waits for the core. The system would ask by itself at its
                // next tick but one, four to eight milliseconds later, and until then not even
                // let in the thread of its own that passes on what a commit writes to the disk.
                std::thread::yield_now();
            }
        }
        for computing in hand.computing.drain(..) {
            line_up(&mut turns, computing);
        }
        reporting.report(&mut hand.ended);
    }
}

fn line_up(turns: &mut Turns<Attempt>, computing: Computing) {
    turns.line_up(computing.tenant, computing.spent, computing.attempt);
}

/// Gives the attempt whose turn it is one slice.
fn slice(turns: &mut Turns<Attempt>, hand: &mut Hand) {
    if let Some((tenant, attempt)) = turns.next() {
        hand.begin(tenant, attempt);
    }
}
