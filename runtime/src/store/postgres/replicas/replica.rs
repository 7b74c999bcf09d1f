//! One replica: whether it is in service, and what it answers.
//!
//! A session of its own watches it, four times a second; so no request waits to find out
//! that it is dead, but those that were asking it. Whether it has come far enough for a client
//! is not taken from there: it is asked right before each read, so that it is true whatever has
//! happened since.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::super::connect::{Connector, FIRST_PAUSE, Failure, Kind, LONGEST_PAUSE, Tx, begin_in};
use super::super::scope::Scope;
use super::LOOK_EVERY;
use super::head::{Known, Primary, in_time};
use crate::store::{Asked, Position, Since, Standing};

/// How long a read may take before the primary is asked in its place: far longer than what is
/// read here takes, and short enough for whoever waits.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection is waited for, if all are in use.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);

/// How long a replica that has not answered a read stays out, whatever its watcher finds: or
/// one that is well enough to be watched only would cost a read in each second.
const OUT_FOR: Duration = Duration::from_secs(5);

/// What its sessions set beside what all set: the server gives up when nobody waits any more.
const SESSION: &str = "; SET statement_timeout = '2s'";

/// One snapshot for all that is read, so that one position is true of all of it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// What any snapshot that is taken from now on holds. To be asked before one is taken, in a
/// transaction of its own: a statement takes its snapshot before it calls what it selects, and
/// more may be replayed in between.
const LEAST: &str = "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint";

/// What the snapshot holds at most. The record that is replayed just now may be seen before it
/// is counted, but none that has not been received.
const SNAPSHOT: &str = "SELECT pg_is_in_recovery(), \
    (greatest(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()) - '0/0'::pg_lsn)::bigint";

/// What its watcher asks. The timeline is that of its last restart point, or of what it has
/// written since: it may be late, and then the replica waits for it.
const LOOK: &str = "SELECT pg_is_in_recovery(), \
    coalesce((pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint, 0), \
    (SELECT system_identifier FROM pg_control_system()), \
    greatest((SELECT timeline_id FROM pg_control_checkpoint()), \
        (SELECT min_recovery_end_timeline FROM pg_control_recovery()))";

/// What came of a read.
pub(super) enum Answer<T> {
    /// With the position that all of it was before.
    Read(T, Position),
    /// It has not come as far as the client.
    Behind,
    /// It did not answer, or refused.
    Failed,
}

/// What a watcher has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    recovers: bool,
    lsn: u64,
    system: i64,
    timeline: u32,
}

/// What is known of a replica.
#[derive(Debug)]
struct State {
    /// Where it was when it was looked at last.
    position: Option<Position>,
    /// Why it is out, if it is.
    out: Option<String>,
    /// It stays out until then.
    until: Option<Instant>,
    /// Whether anything was told of it yet.
    told: bool,
}

pub(super) struct Replica {
    name: String,
    connector: Connector,
    /// How many connections read.
    readers: u32,
    max_lag: Duration,
    known: Known,
    state: Mutex<State>,
    /// Made anew when it goes out of service: those that wait for an answer must not keep
    /// others from asking when it is back.
    pool: Mutex<PgPool>,
    answered: AtomicU64,
    behind: AtomicU64,
    failed: AtomicU64,
}

impl Replica {
    pub(super) fn new(
        connector: Connector,
        connections: u32,
        max_lag: Duration,
        known: Known,
    ) -> Self {
        let readers = connections.saturating_sub(1).max(1); // one watches
        Self {
            name: connector.place(),
            pool: Mutex::new(connector.pool_with(readers, CONNECTION_WAIT, SESSION)),
            connector,
            readers,
            max_lag,
            known,
            state: Mutex::new(State {
                position: None,
                out: Some("it has not been reached yet".to_owned()),
                until: None,
                told: false,
            }),
            answered: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Where it was when it was looked at last, if it is in service.
    pub(super) fn in_service(&self) -> Option<Position> {
        let state = self.state();
        match state.out {
            Some(_) => None,
            None => state.position,
        }
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        let (position, out) = {
            let state = self.state();
            (state.position, state.out.clone())
        };
        let primary = self.known.lock();
        let lsn = primary.position.map(|primary| primary.lsn);
        Standing {
            name: self.name.clone(),
            out,
            lag: position.map(|at| primary.lag(at.lsn, Instant::now())),
            behind: position
                .zip(lsn)
                .map(|(at, lsn)| lsn.saturating_sub(at.lsn)),
            reads: Asked {
                answered: self.answered.load(Ordering::Relaxed),
                behind: self.behind.load(Ordering::Relaxed),
                failed: self.failed.load(Ordering::Relaxed),
            },
        }
    }

    /// Reads something for somebody who knows what was there at `since`.
    pub(super) async fn read<T, F>(
        &self,
        scope: Scope<'_>,
        since: Since,
        ask: &(impl Fn(Tx) -> F + Send + Sync),
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let Some(known) = self.in_service() else {
            return Answer::Failed;
        };
        let read = self.snapshot(scope, since, known.timeline, ask);
        let failure = match timeout(READ_PATIENCE, read).await {
            Ok(Ok(Some((value, position)))) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                return Answer::Read(value, position);
            }
            Ok(Ok(None)) => {
                self.behind.fetch_add(1, Ordering::Relaxed);
                return Answer::Behind;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::lost("no answer within 2 s"),
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(replica = self.name, error = %failure.error, "the primary is asked instead");
        // What it refuses, as it does when replaying is in the way, says nothing of the next.
        if failure.kind == Kind::Lost {
            self.take_out(failure.error.to_string(), Some(Instant::now() + OUT_FOR));
        }
        Answer::Failed
    }

    async fn snapshot<T, F>(
        &self,
        scope: Scope<'_>,
        since: Since,
        timeline: u32,
        ask: &(impl Fn(Tx) -> F + Send + Sync),
    ) -> Result<Option<(T, Position)>, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let pool = self.pool().clone();
        let at = |lsn: i64| Position {
            timeline,
            lsn: lsn.cast_unsigned(),
        };
        let is_far_enough = match since {
            Since::Anything => true,
            Since::At(position) => {
                let (least,): (Option<i64>,) = sqlx::query_as(LEAST).fetch_one(&pool).await?;
                least.is_some_and(|least| at(least).covers(position))
            }
            Since::Now => false,
        };
        if !is_far_enough {
            return Ok(None);
        }
        let mut tx = begin_in(&pool, scope, BEGIN).await?;
        let (recovers, most): (bool, Option<i64>) =
            sqlx::query_as(SNAPSHOT).fetch_one(&mut *tx).await?;
        let (true, Some(most)) = (recovers, most) else {
            return Err(Failure::lost("it is not a replica any more"));
        };
        let value = ask(tx).await?;
        Ok(Some((value, at(most))))
    }

    /// Watches it for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.connector.bare().await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    self.look(connection).await
                }
                Err(failure) => failure,
            };
            self.take_out(failure.error.to_string(), None);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Looks at it until it does not answer.
    async fn look(&self, mut connection: PgConnection) -> Failure {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let asked = sqlx::query_as(LOOK).fetch_one(&mut connection);
            let found: Result<(bool, i64, i64, i32), _> = in_time(async { Ok(asked.await?) }).await;
            match found {
                Ok((recovers, lsn, system, timeline)) => self.found(Found {
                    recovers,
                    lsn: lsn.cast_unsigned(),
                    system,
                    timeline: timeline.cast_unsigned(),
                }),
                Err(failure) => return failure,
            }
        }
    }

    /// Takes it into service, or out of it, as it was found.
    fn found(&self, found: Found) {
        let now = Instant::now();
        let out = {
            let primary = self.known.lock();
            if primary.position.is_none() {
                return; // there is nothing to compare with yet
            }
            unfit(found, &primary, self.max_lag, now)
        };
        {
            let mut state = self.state();
            state.position = Some(Position {
                timeline: found.timeline,
                lsn: found.lsn,
            });
            let stays = state.until.is_some_and(|until| now < until);
            if out.is_none() && !stays {
                (state.until, state.told) = (None, true);
                if state.out.take().is_some() {
                    tracing::info!(replica = self.name, "a replica is in service");
                }
            }
        }
        if let Some(why) = out {
            self.take_out(why, None);
        }
    }

    /// Takes it out of service, until then at the least.
    fn take_out(&self, why: String, until: Option<Instant>) {
        {
            let mut state = self.state();
            state.until = until.or(state.until);
            let told = std::mem::replace(&mut state.told, true);
            if state.out.is_none() || !told {
                tracing::warn!(replica = self.name, why, "a replica is out of service");
            }
            if state.out.replace(why).is_some() {
                return;
            }
        }
        let fresh = self
            .connector
            .pool_with(self.readers, CONNECTION_WAIT, SESSION);
        // What is asked there still is answered, or not; nobody else gets those connections.
        *self.pool() = fresh;
    }

    /// Ends its sessions, those that still answer.
    pub(super) async fn close(&self) {
        let pool = self.pool().clone();
        if timeout(CONNECTION_WAIT, pool.close()).await.is_err() {
            tracing::debug!(replica = self.name, "its sessions did not end");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is there is whole: nothing is done in between that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, PgPool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a replica that was found so must not answer, if so.
fn unfit(found: Found, primary: &Primary, max_lag: Duration, now: Instant) -> Option<String> {
    if !found.recovers {
        return Some("it is no replica, but takes writes itself".to_owned());
    }
    let (Some(system), Some(position)) = (primary.system, primary.position) else {
        return Some("the primary has not been reached yet".to_owned());
    };
    if found.system != system {
        return Some("it is a replica of another server than the primary".to_owned());
    }
    if found.timeline != position.timeline {
        return Some(format!(
            "it is on timeline {} as of its last restart point, and the primary on {}",
            found.timeline, position.timeline
        ));
    }
    let lag = primary.lag(found.lsn, now);
    (lag > max_lag).then(|| {
        let (lag, most) = (lag.as_secs_f64(), max_lag.as_secs_f64());
        format!("it is {lag:.1} s behind, more than {most} s (`max_lag`)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_the_primary_closely_is_fit() {
        let now = Instant::now();
        let (long_ago, max_lag) = (now, Duration::from_secs(3));
        let now = now + Duration::from_secs(10);
        let good = Found {
            recovers: true,
            lsn: 200,
            system: 7,
            timeline: 2,
        };
        let mut primary = Primary::default();
        let why = |found, primary: &Primary| unfit(found, primary, max_lag, now);
        let unknown = why(good, &primary).expect("nothing to compare with");
        assert!(
            unknown.contains("primary has not been reached"),
            "{unknown}"
        );
        primary.system = Some(7);
        for (lsn, at) in [(100, long_ago), (200, now - max_lag), (300, now)] {
            primary.mark(Position { timeline: 2, lsn }, at);
        }
        assert_eq!(why(good, &primary), None);
        // It lacks what the primary had just `max_lag` ago.
        assert_eq!(why(Found { lsn: 199, ..good }, &primary), None);
        for (found, says) in [
            (
                Found {
                    recovers: false,
                    ..good
                },
                "takes writes",
            ),
            (Found { system: 8, ..good }, "another server"),
            (
                Found {
                    timeline: 1,
                    ..good
                },
                "timeline 1",
            ),
            (
                Found {
                    timeline: 3,
                    ..good
                },
                "timeline 3",
            ),
            (Found { lsn: 99, ..good }, "10.0 s behind, more than 3 s"),
        ] {
            let why = why(found, &primary).expect("unfit");
            assert!(why.contains(says), "{why}");
        }
    }
}
