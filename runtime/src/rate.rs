//! How often something may happen: the generic cell rate algorithm.
//!
//! A meter keeps one moment, when the next would be due if all came evenly spaced. So it
//! takes no memory for what has happened, and nothing runs in between. Time comes from
//! outside, as the time that has passed since some moment. It is in memory only: after a
//! restart a meter begins anew, and so much more may happen once as bursts may have.
//!
//! (`governor` has this too, but takes its time from clocks of its own kind, counts with
//! atomics for threads that do not wait for each other, and cannot say who is next. Here
//! the one who holds the lock asks.)

use std::time::Duration;

use cascade_cdl::program::Rate;

/// When something may happen again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meter {
    /// When the next is due by the rate alone.
    due: Duration,
    /// The rate that it was counted by last.
    of: Option<Rate>,
}

impl Meter {
    /// Has it count by this rate from now on. What was counted by another is owed by this
    /// one as a burst at most: the hours of a slow rate mean nothing to a fast one.
    pub(crate) fn keep_to(&mut self, rate: &Rate, now: Duration) {
        if self.of.is_some_and(|of| of != *rate) {
            let burst = rate.interval().saturating_mul(rate.burst);
            self.due = self.due.min(now.saturating_add(burst));
        }
        self.of = Some(*rate);
    }

    /// When the next may happen, if `burst` may at once.
    pub(crate) fn earliest(&self, rate: &Rate, burst: u32) -> Duration {
        let ahead = rate.interval().saturating_mul(burst.saturating_sub(1));
        self.due.saturating_sub(ahead)
    }

    /// Counts one that happens at `now`.
    pub(crate) fn count(&mut self, rate: &Rate, now: Duration) {
        self.due = self.due.max(now).saturating_add(rate.interval());
    }

    /// When it remembers nothing any more, if nothing happens until then.
    pub(crate) fn forgets_at(&self) -> Duration {
        self.due
    }

    /// Whether it remembers nothing any more.
    pub(crate) fn is_idle(&self, now: Duration) -> bool {
        self.due <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(count: u32, per_ms: u32) -> Rate {
        Rate {
            count,
            per_ms,
            burst: 1,
        }
    }

    #[test]
    fn what_a_slow_rate_has_counted_does_not_hold_up_a_fast_one() {
        let (mut meter, now) = (Meter::default(), Duration::from_secs(5));
        let slow = Rate {
            burst: 1_000,
            ..rate(1_000, 3_600_000)
        };
        meter.keep_to(&slow, now);
        for _ in 0..1_000 {
            meter.count(&slow, now);
        }
        meter.keep_to(&slow, now);
        assert_eq!(meter.earliest(&slow, 1), now + Duration::from_hours(1));
        let fast = Rate {
            burst: 100,
            ..rate(100, 1_000)
        };
        meter.keep_to(&fast, now);
        let next = now + Duration::from_millis(10);
        assert_eq!(meter.earliest(&fast, fast.burst), next, "a burst is owed");
    }

    #[test]
    fn what_comes_at_once_goes_evenly_spaced() {
        let (mut meter, ten) = (Meter::default(), rate(10, 1_000));
        let mut at = Duration::from_secs(5);
        for n in 0..20 {
            at = at.max(meter.earliest(&ten, 1));
            assert_eq!(at, Duration::from_millis(5_000 + 100 * n));
            meter.count(&ten, at);
        }
    }

    #[test]
    fn a_burst_may_come_at_once_and_no_more() {
        let (mut meter, ten) = (Meter::default(), rate(10, 1_000));
        let now = Duration::from_secs(5);
        for _ in 0..4 {
            assert!(meter.earliest(&ten, 4) <= now);
            meter.count(&ten, now);
        }
        assert_eq!(meter.earliest(&ten, 4), Duration::from_millis(5_100));
        assert!(!meter.is_idle(now));
        assert!(meter.is_idle(now + Duration::from_millis(400)));
    }

    proptest! {
        /// However things come, in no stretch of time do more happen than the rate has
        /// room for, and the burst.
        #[test]
        fn no_stretch_of_time_has_too_many(
            count in 1..50_u32,
            burst in 1..10_u32,
            gaps in prop::collection::vec(0..200_u64, 1..200),
        ) {
            let (mut meter, rate) = (Meter::default(), rate(count, 1_000));
            let (mut comes, mut happened) = (Duration::ZERO, Vec::new());
            for gap in gaps {
                comes += Duration::from_millis(gap);
                let at = comes.max(meter.earliest(&rate, burst));
                meter.count(&rate, at);
                happened.push(at);
            }
            for (first, from) in happened.iter().enumerate() {
                for (last, to) in happened.iter().enumerate().skip(first) {
                    let room = to.saturating_sub(*from).as_nanos() / rate.interval().as_nanos();
                    let many = (last - first + 1) as u128;
                    prop_assert!(many <= room + u128::from(burst), "{many} in {:?}", to.saturating_sub(*from));
                }
            }
        }
    }
}
