//! How far the primary is, and was.
//!
//! One session asks it: for those who want to know, who share a question as batches share a
//! commit, and four times a second for whoever compares. What it said is remembered for some
//! minutes, so that it can be told since when a replica lacks something by the clock of this
//! process alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::super::connect::{Connector, FIRST_PAUSE, Failure, LONGEST_PAUSE};
use super::{LOOK_EVERY, LOOK_PATIENCE};
use crate::store::Position;

/// Questions that wait for the one that is on its way: more requests than these are rarely
/// answered at a time, and those beyond wait a moment longer.
const QUESTIONS: usize = 1_024;

/// Positions that are remembered, and the least between two: together some seven minutes,
/// longer than any `max_lag`.
const MOST_MARKS: usize = 4_096;
const MARK_EVERY: Duration = Duration::from_millis(100);

/// Which server it is.
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";

/// How far it is. What is acknowledged is flushed, and no replica is sent anything before.
const POSITION: &str = "SELECT pg_walfile_name(lsn), (lsn - '0/0'::pg_lsn)::bigint \
    FROM pg_current_wal_flush_lsn() AS lsn";

/// What is known of the primary.
#[derive(Debug, Default)]
pub(super) struct Primary {
    /// The identifier of its data, which replicas have, too.
    pub(super) system: Option<i64>,
    pub(super) position: Option<Position>,
    /// How far it was at some times, oldest first.
    marks: VecDeque<(Instant, u64)>,
}

impl Primary {
    /// Notes how far it is.
    pub(super) fn mark(&mut self, position: Position, now: Instant) {
        if self
            .position
            .is_some_and(|before| before.timeline != position.timeline)
        {
            self.marks.clear(); // those were of another history
        }
        self.position = Some(position);
        let is_new = match self.marks.back() {
            Some((at, lsn)) => position.lsn > *lsn && now - *at >= MARK_EVERY,
            None => true,
        };
        if is_new {
            if self.marks.len() >= MOST_MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back((now, position.lsn));
        }
    }

    /// How long something has been there that is not before `lsn`, as far as is remembered.
    pub(super) fn lag(&self, lsn: u64, now: Instant) -> Duration {
        let index = self.marks.partition_point(|(_, mark)| *mark <= lsn);
        let missing = self.marks.get(index);
        missing.map_or(Duration::ZERO, |(since, _)| {
            now.saturating_duration_since(*since)
        })
    }
}

/// What is known, shared with who compares.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<Primary>>);

impl Known {
    pub(super) fn lock(&self) -> MutexGuard<'_, Primary> {
        // What is there is whole: nothing is done in between that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Question = oneshot::Sender<Position>;

/// Asks how far the primary is.
#[derive(Debug, Clone)]
pub(super) struct Head {
    questions: mpsc::Sender<Question>,
}

impl Head {
    pub(super) fn new(connector: Connector, known: Known) -> (Self, impl Future<Output = ()>) {
        let (questions, inbox) = mpsc::channel(QUESTIONS);
        let asker = Asker {
            connector,
            known,
            inbox,
        };
        (Self { questions }, asker.run())
    }

    /// How far it is: all that was acknowledged before this call is before it. `None` if it does
    /// not say so in time.
    pub(super) async fn position(&self) -> Option<Position> {
        let (question, answer) = oneshot::channel();
        let asked = async {
            self.questions.send(question).await.ok()?;
            answer.await.ok()
        };
        timeout(LOOK_PATIENCE, asked).await.ok().flatten()
    }
}

struct Asker {
    connector: Connector,
    known: Known,
    inbox: mpsc::Receiver<Question>,
}

impl Asker {
    /// Until nobody can ask any more.
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.inbox.is_closed() {
            let error = match self.connect().await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    match self.ask(connection).await {
                        Ok(()) => return,
                        Err(failure) => failure.error,
                    }
                }
                Err(failure) => failure.error,
            };
            if pause == FIRST_PAUSE {
                tracing::warn!(%error, "the primary does not say how far it is");
            }
            let over = tokio::time::sleep(pause);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => break,
                    // Who asks meanwhile is told at once that it is not known.
                    question = self.inbox.recv() => if question.is_none() { return },
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        let mut connection = self.connector.bare().await?;
        let asked = sqlx::query_as(SYSTEM).fetch_one(&mut connection);
        let (system,): (i64,) = in_time(async { Ok(asked.await?) }).await?;
        self.known.lock().system = Some(system);
        Ok(connection)
    }

    /// Asks whenever somebody wants to know, and now and then; ends well if nobody is left.
    async fn ask(&mut self, mut connection: PgConnection) -> Result<(), Failure> {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                question = self.inbox.recv() => match question {
                    Some(question) => waiting.push(question),
                    None => return Ok(()),
                },
                _ = ticks.tick() => {}
            }
            // Those that come after the question is sent wait for the next.
            while waiting.len() < QUESTIONS
                && let Ok(question) = self.inbox.try_recv()
            {
                waiting.push(question);
            }
            let asked = sqlx::query_as(POSITION).fetch_one(&mut connection);
            let (file, lsn): (String, i64) = in_time(async { Ok(asked.await?) }).await?;
            let position = Position {
                timeline: timeline_of(&file).ok_or_else(|| {
                    Failure::lost(format!("`{file}` is no name of a file of the log"))
                })?,
                lsn: lsn.cast_unsigned(),
            };
            self.known.lock().mark(position, Instant::now());
            for question in waiting.drain(..) {
                let _ = question.send(position); // who does not wait any more is not told
            }
        }
    }
}

/// The timeline that a file of the log is of: its name begins with it.
fn timeline_of(file: &str) -> Option<u32> {
    u32::from_str_radix(file.get(..8)?, 16).ok()
}

/// Waits for what takes no time, unless somebody does not answer.
pub(super) async fn in_time<T>(
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let answered = timeout(LOOK_PATIENCE, asked).await;
    answered.unwrap_or_else(|_| Err(Failure::lost("no answer within 1 s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(lsn: u64) -> Position {
        let timeline = 1;
        Position { timeline, lsn }
    }

    #[test]
    fn a_lag_begins_when_the_primary_had_what_is_missing() {
        let start = Instant::now();
        let mut primary = Primary::default();
        assert_eq!(primary.lag(0, start), Duration::ZERO, "nothing is known");
        primary.mark(at(100), start);
        primary.mark(at(100), start + 5 * SECOND);
        primary.mark(at(200), start + 6 * SECOND);
        // Too soon after the last to be remembered: what it lacks is told by the next.
        primary.mark(at(210), start + 6 * SECOND + MARK_EVERY / 2);
        primary.mark(at(300), start + 8 * SECOND);
        let now = start + 10 * SECOND;
        for (lsn, seconds) in [
            (50, 10),
            (99, 10),
            (100, 4),
            (199, 4),
            (200, 2),
            (299, 2),
            (300, 0),
        ] {
            assert_eq!(primary.lag(lsn, now), seconds * SECOND, "at {lsn}");
        }
        assert_eq!(primary.position, Some(at(300)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_of_one_timeline() {
        let start = Instant::now();
        let mut primary = Primary::default();
        for number in 0..5_000_u32 {
            primary.mark(at(number.into()), start + MARK_EVERY * number);
        }
        assert_eq!(primary.marks.len(), MOST_MARKS);
        let timeline = 2;
        let later = Position { timeline, lsn: 7 };
        primary.mark(later, start + MARK_EVERY * 5_000);
        assert_eq!(primary.marks.len(), 1, "the others were of another history");
    }

    #[test]
    fn a_file_of_the_log_names_its_timeline() {
        assert_eq!(timeline_of("0000000A0000000100000042"), Some(10));
        assert_eq!(timeline_of("0000"), None);
        assert_eq!(timeline_of("archived"), None);
    }
}
