//! What is due between two moments, given how late a time may be.

use super::{CatchUp, MAX_CATCH_UP, MAX_COUNTED, ON_TIME_MS, Schedule, Timing};
use crate::Timestamp;

/// What becomes of the times after a position, up to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Those to act upon, in order.
    pub times: Vec<Timestamp>,
    /// Those that are too late, if there are any. All of them are before `times`.
    pub missed: Option<Missed>,
    /// All times up to this one have been decided with that.
    pub position: Timestamp,
}

/// Times that are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// The first.
    pub first: Timestamp,
    /// None of them is later.
    pub until: Timestamp,
    /// How many, up to [`MAX_COUNTED`].
    pub count: u32,
    /// Whether there are more.
    pub more: bool,
}

impl Schedule {
    /// What becomes of the times after `position`, at `now`. Each of them is in
    /// `times`, or counts as missed, or is after the new position: none is lost, and
    /// none comes twice.
    pub fn due(&self, seed: &str, position: Timestamp, now: Timestamp) -> Due {
        let timing = &self.timing;
        let oldest = Timestamp(now.0.saturating_sub(self.catch_up.window()));
        let floor = too_late(timing, seed, position, oldest);
        let (mut times, floor) = latest(timing, seed, floor, now);
        if let CatchUp::Last(_) = self.catch_up {
            let late = |at: &Timestamp| now.since(timing.acts_at(seed, *at)) > ON_TIME_MS;
            let first = times.iter().position(|at| !late(at));
            let keep = first.unwrap_or(times.len().saturating_sub(1));
            times.drain(..keep);
        }
        let passed = times
            .first()
            .map_or(floor, |first| Timestamp(first.0.saturating_sub(1)));
        Due {
            missed: count(timing, position, passed),
            position: times.last().copied().unwrap_or(floor),
            times,
        }
    }
}

/// The moment up to which all times after `position` were to be acted upon before `oldest`.
fn too_late(timing: &Timing, seed: &str, position: Timestamp, oldest: Timestamp) -> Timestamp {
    // What jitter has moved into the window is not further away than the jitter; and what is
    // exactly as old as the window is in it.
    let first = oldest.0.saturating_sub(timing.jitter_ms.saturating_add(1));
    let mut floor = position.max(Timestamp(first));
    while let Some(next) = timing.next(floor).filter(|next| *next < oldest) {
        if timing.acts_at(seed, next) >= oldest {
            break;
        }
        floor = next;
    }
    floor
}

/// The times after `floor` that are acted upon by now, at most [`MAX_CATCH_UP`] of
/// the latest, and after which moment these are all.
fn latest(
    timing: &Timing,
    seed: &str,
    floor: Timestamp,
    now: Timestamp,
) -> (Vec<Timestamp>, Timestamp) {
    let mut floor = floor;
    loop {
        let mut times = Vec::new();
        let mut at = floor;
        while let Some(next) = timing
            .next(at)
            .filter(|next| timing.acts_at(seed, *next) <= now)
        {
            at = next;
            times.push(next);
            if times.len() > MAX_CATCH_UP {
                break;
            }
        }
        if times.len() <= MAX_CATCH_UP {
            return (times, floor);
        }
        // Half of what is left, some dozen times at the most. Times lie a second
        // apart, so that many of them span more than a moment.
        floor = Timestamp(floor.0 + now.since(floor).div_ceil(2));
    }
}

/// The times after `from`, up to and with `until`.
pub(super) fn count(timing: &Timing, from: Timestamp, until: Timestamp) -> Option<Missed> {
    let first = timing.next(from).filter(|first| *first <= until)?;
    let (mut at, mut count) = (first, 1);
    let mut more = false;
    while let Some(next) = timing.next(at).filter(|next| *next <= until) {
        more = count == MAX_COUNTED;
        if more {
            break;
        }
        (at, count) = (next, count + 1);
    }
    Some(Missed {
        first,
        until: if more { until } else { at },
        count,
        more,
    })
}
