//! The feed of changes: see [`super::super::feed`].
//!
//! A change is noted as the last thing that its transaction does, since from then on nobody
//! else can note one. `NOTIFY` only wakes: what has changed is read from the table, by
//! whoever follows, after the number that it has seen last. Following takes a session of its
//! own, outside of the pool; when that is lost, another is made, and what was noted
//! meanwhile is read first.

use std::time::Duration;

use cascade_cdl::TenantId;
use sqlx::postgres::PgListener;
use tokio::time::{sleep, timeout};

use super::super::feed::{Change, Feed, News, Subject, Teller};
use super::super::{PAGE_ITEMS, codec};
use super::connect::{Connector, FIRST_PAUSE, Failure, LONGEST_PAUSE, Tx};

/// Where changes are announced. All schemas of a database share it: who is woken for
/// another's finds nothing new, which is rare and cheap.
const CHANNEL: &str = "cascade_changes";

/// After so long a silence it is asked whether there is anything new: a network that
/// swallows packets would be silent, too.
const PULSE: Duration = Duration::from_secs(5);

/// How long an answer may take. Two of these and a pulse are the longest that a lost session
/// goes unnoticed.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

const NOTE: &str = "WITH counted AS (UPDATE change_counter SET last = last + 1 RETURNING last), \
    noted AS (INSERT INTO changes (number, tenant, kind, name) \
        SELECT last, $1, $2, $3 FROM counted \
        ON CONFLICT (tenant, kind, name) DO UPDATE SET number = excluded.number \
        RETURNING number) \
    SELECT pg_notify($4, '') FROM noted";

const NEWEST: &str = "SELECT last FROM change_counter";
const AFTER: &str = "SELECT number, tenant, kind, name FROM changes \
    WHERE number > $1 ORDER BY number LIMIT $2";

/// Notes a change; nothing may follow it in the transaction.
pub(super) async fn note(tx: &mut Tx, tenant: &TenantId, subject: &Subject) -> Result<(), Failure> {
    let (kind, name) = subject.parts();
    sqlx::query(NOTE)
        .bind(tenant.as_str())
        .bind(kind)
        .bind(name)
        .bind(CHANNEL)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Follows the changes.
pub(super) struct Follower {
    connector: Connector,
    listener: PgListener,
    /// The last number that was told.
    seen: i64,
    teller: Teller,
}

impl Follower {
    /// One that tells what changes from now on.
    pub(super) async fn start(connector: &Connector) -> Result<(Self, Feed), Failure> {
        let mut listener = connector.listener(CHANNEL).await?;
        let seen = newest(&mut listener).await?;
        let (teller, feed) = Feed::new();
        let follower = Self {
            connector: connector.clone(),
            listener,
            seen,
            teller,
        };
        Ok((follower, feed))
    }

    /// Tells until nobody listens.
    pub(super) async fn run(mut self) {
        let teller = self.teller.clone();
        tokio::select! {
            () = teller.unheard() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            let failure = match self.listen().await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            tracing::warn!(
                error = %failure.error,
                "the session that tells what other servers change is lost; it is made again"
            );
            if !self.teller.tell(News::Lost).await {
                return;
            }
            self.connect_again().await;
            tracing::info!("it is told again what other servers change");
            if !self.teller.tell(News::Found).await {
                return;
            }
        }
    }

    /// Tells what is new whenever there is something; `Ok` when nobody listens any more.
    async fn listen(&mut self) -> Result<(), Failure> {
        loop {
            if !self.catch_up().await? {
                return Ok(());
            }
            // Silence is as good as news: it is asked in any case.
            if let Ok(heard) = timeout(PULSE, self.listener.try_recv()).await
                && heard?.is_none()
            {
                return Err(Failure::lost("the session has ended"));
            }
        }
    }

    /// Makes the session anew and tells what was missed.
    async fn connect_again(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_again().await {
                Ok(()) => return,
                Err(failure) => {
                    tracing::debug!(error = %failure.error, "no session for changes yet");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_again(&mut self) -> Result<(), Failure> {
        self.listener = self.connector.listener(CHANNEL).await?;
        // A replica that was behind may be the primary now: then all that is there is told.
        if newest(&mut self.listener).await? < self.seen {
            self.seen = 0;
        }
        self.catch_up().await.map(drop)
    }

    /// Tells what came after what was told; says whether anybody listens.
    async fn catch_up(&mut self) -> Result<bool, Failure> {
        loop {
            while self.listener.next_buffered().is_some() {} // one answer for all of them
            let rows = sqlx::query_as::<_, (i64, String, String, String)>(AFTER)
                .bind(self.seen)
                .bind(i64::from(PAGE_ITEMS))
                .fetch_all(&mut self.listener);
            let rows = soon(rows).await?;
            let Some((last, ..)) = rows.last() else {
                return Ok(true);
            };
            let (last, is_full) = (*last, rows.len() >= PAGE_ITEMS as usize);
            let mut changes = Vec::with_capacity(rows.len());
            for (_, tenant, kind, name) in rows {
                let tenant: TenantId = tenant.parse().map_err(codec::damaged)?;
                let subject = Subject::of_parts(&kind, name);
                changes.extend(subject.map(|subject| Change { tenant, subject }));
            }
            if !changes.is_empty() && !self.teller.tell(News::Changed(changes)).await {
                return Ok(false);
            }
            self.seen = last;
            if !is_full {
                return Ok(true);
            }
        }
    }
}

async fn newest(listener: &mut PgListener) -> Result<i64, Failure> {
    let (newest,): (i64,) = soon(sqlx::query_as(NEWEST).fetch_one(listener)).await?;
    Ok(newest)
}

/// Waits for an answer, and no longer than somebody may be left in the dark.
async fn soon<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failure> {
    match timeout(ANSWER_WAIT, asked).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(Failure::lost("no answer within 5 s")),
    }
}

#[cfg(test)]
mod tests;
