//! What the times of acknowledgements and steps say of a pause. Pure.

use std::time::Duration;

use cascade_cdl::{Event, EventKind};
use serde_json::{Value, json};

/// A start that was acknowledged, by the clock of the measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    /// Which of a shard's clients sent it.
    pub(super) client: usize,
    /// When it was first sent, whoever refused it before it was acknowledged.
    pub(super) sent: Duration,
    pub(super) acked: Duration,
}

/// The time between which something is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// The longest that a shard acknowledged nothing, of times that reach into the span; `acks`
/// are in order of being acknowledged.
pub(super) fn longest_silence(acks: &[Ack], span: Span) -> Duration {
    let mut last = None;
    let mut longest = Duration::ZERO;
    for ack in acks {
        if ack.acked > span.from {
            let since = last.unwrap_or(span.from);
            longest = longest.max(ack.acked.min(span.until).saturating_sub(since));
        }
        if ack.acked >= span.until {
            return longest;
        }
        last = Some(ack.acked);
    }
    // Nothing came any more.
    longest.max(span.until.saturating_sub(last.unwrap_or(span.from)))
}

/// The longest that a start took which was under way in the span.
pub(super) fn slowest(acks: &[Ack], span: Span) -> Duration {
    let under_way = acks
        .iter()
        .filter(|ack| ack.acked > span.from && ack.sent < span.until);
    let took = under_way.map(|ack| ack.acked.saturating_sub(ack.sent));
    took.max().unwrap_or_default()
}

/// The latest that a step of an execution came after it was due, of those from `from_ms` on;
/// `None` if there was none. What follows a timer is due at once, a timer after `pause`.
pub(super) fn latest_step(events: &[Event], from_ms: u64, pause: Duration) -> Option<Duration> {
    let steps = events.windows(2).filter_map(|pair| {
        let [before, step] = pair else { return None };
        let wait = match step.kind {
            EventKind::TimerFired { .. } => pause,
            EventKind::ActivityCompleted { .. } => Duration::ZERO,
            _ => return None, // the end of the measurement
        };
        let took = Duration::from_millis(step.at.0.saturating_sub(before.at.0));
        (step.at.0 >= from_ms).then(|| took.saturating_sub(wait))
    });
    steps.max()
}

/// What is told of many times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    pub count: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Figures {
    /// `None` of nothing.
    pub(super) fn of(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        // The smallest that is not exceeded by more than the rest of a hundred.
        let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).checked_sub(1)?);
        Some(Self {
            count: times.len(),
            p50: *at(50)?,
            p99: *at(99)?,
            max: *times.last()?,
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "count": self.count,
            "p50": millis(self.p50),
            "p99": millis(self.p99),
            "max": millis(self.max),
        })
    }
}

/// As figures are told, with three digits after the point.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use cascade_cdl::{TimerId, Timestamp};

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn acks(times: &[(u64, u64)]) -> Vec<Ack> {
        let ack = |&(sent, acked)| Ack {
            client: 0,
            sent: ms(sent),
            acked: ms(acked),
        };
        times.iter().map(ack).collect()
    }

    fn span(from: u64, until: u64) -> Span {
        Span {
            from: ms(from),
            until: ms(until),
        }
    }

    #[test]
    fn a_silence_counts_from_the_last_answer_before_the_kill_to_the_first_after_it() {
        let acks = acks(&[(0, 5), (20, 25), (40, 1_900), (1_920, 1_925)]);
        assert_eq!(longest_silence(&acks, span(30, 2_000)), ms(1_875));
        assert_eq!(slowest(&acks, span(30, 2_000)), ms(1_860));
        assert_eq!(longest_silence(&acks, span(1_900, 1_930)), ms(25));
        assert_eq!(slowest(&acks, span(1_900, 1_930)), ms(5));
    }

    #[test]
    fn a_shard_that_never_answers_again_is_silent_until_the_end() {
        let answered = acks(&[(0, 5), (20, 25)]);
        assert_eq!(longest_silence(&answered, span(30, 500)), ms(475));
        assert_eq!(longest_silence(&[], span(30, 500)), ms(470));
        let late = acks(&[(0, 5), (20, 900)]);
        assert_eq!(longest_silence(&late, span(30, 500)), ms(495));
    }

    #[test]
    fn a_step_is_late_by_what_it_took_beyond_its_pause() {
        let timer = |at| Event {
            seq: 0,
            at: Timestamp(at),
            kind: EventKind::TimerFired { timer: TimerId(1) },
        };
        let events = [timer(100), timer(121), timer(300), timer(320)];
        let late = |from| latest_step(&events, from, ms(20));
        assert_eq!(late(0), Some(ms(159)));
        assert_eq!(late(301), Some(ms(0)));
        assert_eq!(late(321), None);
    }

    #[test]
    fn of_a_hundred_times_p99_leaves_one_out() {
        let figures = Figures::of((1..=100).map(ms)).expect("some");
        assert_eq!(
            (figures.p50, figures.p99, figures.max),
            (ms(50), ms(99), ms(100))
        );
        let few = Figures::of([ms(7), ms(3)]).expect("some");
        assert_eq!((few.p50, few.p99, few.count), (ms(3), ms(7), 2));
        assert_eq!(Figures::of([]), None);
    }
}
