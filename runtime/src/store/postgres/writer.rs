//! Group commit into PostgreSQL: see [`super::super::group`].
//!
//! A group is written as if nothing were wrong with it, fenced by the epochs of its
//! leases. If the server refuses, nothing was written: the guilty are found by leases
//! and versions and get their answers, and the rest is written again. Other servers
//! write the same database, so this may happen more than once.
//!
//! **A lost connection.** Whether a commit happened whose answer did not come is not
//! known (it is *in doubt*), and is found out on the next connection before anything
//! is written again: only the holder of the epoch moves an execution on, so one that
//! stands where the group would have brought it was brought there by the group, if
//! the epoch is still the group's. If the server is still busy with the lost one, the
//! second attempt waits for its locks, is refused by its versions, and looks again. A
//! group without executions asks by the number of its transaction. So nothing is
//! written twice, and what the caller is told is true; after [`PATIENCE`], or if the
//! shard has been taken over meanwhile, it is told that nobody knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::group::{
    Group, Inbox, Row, Tally, advance, answer, answer_write, fail, fail_writes, layers,
};
use super::super::key_value::{Outcome, Write};
use super::super::{CommitError, Error};
use super::commit::{self, epochs, versions};
use super::connect::{Connector, Failure, Kind, Pauses, answered};
use super::homes::{Homes, Part};
use super::key_value::{self, Xid, XidStatus};
use super::{scope, tags, tasks};

/// How long a group is tried: longer than a server takes to restart or to fail over
/// within its machine, shorter than clients wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// The task.
pub(super) struct Writer {
    pub(super) inbox: Inbox,
    pub(super) connector: Connector,
    pub(super) connection: Option<PgConnection>,
    /// Where tenants live, as it was read on this connection.
    pub(super) homes: Option<Homes>,
    pub(super) tally: Arc<Tally>,
    pub(super) closing: Arc<Notify>,
}

/// A commit that was sent, of which it is not known whether it happened.
struct Doubt {
    /// What became of its key-value writes, if it did.
    outcomes: Vec<Outcome>,
    /// Known where it wrote values.
    xid: Option<Xid>,
}

enum Written {
    /// With what became of the key-value writes, in their order.
    All(Vec<Outcome>),
    /// A lease is lost, or some row was not at the version that was expected.
    Refused,
    /// The database cannot make the key-value writes.
    Unwritable(Error),
}

impl Writer {
    /// Commits until the store is closed or dropped and nothing waits.
    pub(super) async fn run(mut self) {
        let closing = Arc::clone(&self.closing);
        let closed = closing.notified();
        tokio::pin!(closed);
        let mut open = true;
        loop {
            let first = tokio::select! {
                biased;
                first = self.inbox.next() => first,
                () = &mut closed, if open => {
                    open = false;
                    self.inbox.close();
                    continue;
                }
            };
            let Some(first) = first else { break };
            let group = self.inbox.gather(first);
            self.commit(group).await;
        }
        if let Some(connection) = self.connection
            && let Err(error) = sqlx::Connection::close(connection).await
        {
            tracing::debug!(%error, "the writer's session was not closed cleanly");
        }
    }

    async fn commit(&mut self, mut group: Group) {
        let mut pauses = Pauses::until(Instant::now() + PATIENCE);
        let mut doubt = None;
        loop {
            let failure = match self.attempt(&mut group, &mut doubt).await {
                Ok(Some(outcomes)) => return self.done(group, outcomes),
                // Those that were at fault have their answers.
                Ok(None) => continue,
                Err(failure) => failure,
            };
            if failure.kind == Kind::Lost {
                self.connection = None;
                self.homes = None;
            }
            let may_pass = matches!(failure.kind, Kind::Lost | Kind::Busy);
            if !may_pass || !pauses.pause().await {
                return fail(group, &failure.error);
            }
            tracing::warn!(error = %failure.error, "commit is tried again");
        }
    }

    /// Writes the group, or what is left of it after those at fault were answered
    /// (`None`).
    async fn attempt(
        &mut self,
        group: &mut Group,
        doubt: &mut Option<Doubt>,
    ) -> Result<Option<Vec<Outcome>>, Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.connector.writer().await?),
        };
        let homes = &mut self.homes;
        let attempt = async {
            let homes = match homes {
                Some(homes) => homes,
                none => none.insert(Homes::read(connection).await?),
            };
            if let Some(outcomes) = settle(connection, homes, group, doubt).await? {
                return Ok(Some(outcomes));
            }
            match write(connection, homes, group, doubt).await? {
                Written::All(outcomes) => Ok(Some(outcomes)),
                Written::Refused => {
                    let found = Homes::read(connection).await?;
                    if found != *homes {
                        *homes = found;
                        return Ok(None); // perhaps for nothing else
                    }
                    let settled = settle(connection, homes, group, doubt).await?;
                    if settled.is_none() {
                        refuse(connection, homes, group).await?;
                    }
                    Ok(settled)
                }
                Written::Unwritable(error) => {
                    fail_writes(std::mem::take(&mut group.writes), &error);
                    Ok(None)
                }
            }
        };
        answered(attempt).await
    }

    fn done(&self, group: Group, outcomes: Vec<Outcome>) {
        self.tally.add(&group.batches, &outcomes);
        for batch in group.batches {
            answer(batch, Ok(()));
        }
        for (write, outcome) in group.writes.into_iter().zip(outcomes) {
            answer_write(write, outcome);
        }
    }
}

/// Finds out whether a commit in doubt happened; gives its outcomes if it did.
async fn settle(
    connection: &mut PgConnection,
    homes: &Homes,
    group: &Group,
    doubt: &mut Option<Doubt>,
) -> Result<Option<Vec<Outcome>>, Failure> {
    let Some(Doubt { outcomes, xid }) = doubt else {
        return Ok(None);
    };
    // Where each execution would be.
    let rows = group.batches.iter().flat_map(|batch| &batch.rows);
    let goals: HashMap<_, _> = rows
        .map(|row| {
            let (tenant, id) = row.key();
            ((tenant.clone(), id), row.summary.version)
        })
        .collect();
    if !goals.is_empty() {
        // All or none: a transaction has no halves.
        if versions(connection, homes, &group.batches).await? != goals {
            return Ok(None);
        }
        // Read afterwards: who takes a shard over raises its epoch before it writes, so
        // if the epochs are still those of the group, nobody else wrote these versions.
        let held = epochs(connection, &group.batches).await?;
        let mut leases = group.batches.iter().map(|batch| &batch.lease);
        if leases.any(|lease| held[&lease.shard] != lease.epoch) {
            // Asking again would not help: the other server may have come as far by itself.
            let text = "a shard was taken over; it is not known who wrote what is there";
            return Err(Failure {
                kind: Kind::Fault,
                error: Error::Unavailable(text.to_owned()),
            });
        }
        return Ok(Some(std::mem::take(outcomes)));
    }
    let Some(xid) = xid else {
        return Ok(None); // it wrote nothing
    };
    match key_value::status(connection, xid).await? {
        XidStatus::Committed => Ok(Some(std::mem::take(outcomes))),
        XidStatus::Aborted => {
            *doubt = None;
            Ok(None)
        }
        XidStatus::InProgress => Err(Failure::busy("it is not known yet whether it was written")),
    }
}

/// Writes a group in one transaction: all, or nothing, wherever its tenants live.
async fn write(
    connection: &mut PgConnection,
    homes: &Homes,
    group: &Group,
    doubt: &mut Option<Doubt>,
) -> Result<Written, Failure> {
    let layers = layers(&group.batches);
    if group.batches.is_empty() && group.writes.is_empty() {
        return Ok(Written::All(Vec::new())); // all were refused
    }
    let tenants = scope::of_group(group);
    let parts = homes.split(&tenants);
    let plain = layers.iter().flatten().all(|row| row.is_plain());
    if let [part] = &parts[..]
        && part.is_shared()
        && layers.len() <= 1
        && group.writes.is_empty()
        && plain
    {
        // The statement is a transaction of its own.
        let rows = layers.first().map_or(&[][..], Vec::as_slice);
        let before = doubt.replace(Doubt {
            outcomes: Vec::new(),
            xid: None,
        });
        let written = commit::write(connection, &group.batches, rows, part).await;
        return surely(written, doubt, before).map(|written| match written {
            Some(()) => Written::All(Vec::new()),
            None => Written::Refused,
        });
    }
    let written = write_parts(connection, group, &layers, &parts, doubt).await;
    let over = match &written {
        Ok(Written::All(_)) => true,
        Ok(_) => false,
        Err(failure) => failure.kind == Kind::Lost,
    };
    if !over {
        sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    }
    written
}

/// Begins the transaction, and ends it if all is well.
async fn write_parts(
    connection: &mut PgConnection,
    group: &Group,
    layers: &[Vec<&Row>],
    parts: &[Part<'_, '_>],
    doubt: &mut Option<Doubt>,
) -> Result<Written, Failure> {
    let mut fence = &group.batches[..];
    let mut outcomes: Vec<_> = group.writes.iter().map(|_| None).collect();
    let mut xid = None;
    let mut begin = "BEGIN";
    for part in parts {
        // Safe: ids of tenants and names of schemas, and quoted all the same.
        let enter = AssertSqlSafe(format!("{begin}{}{}", part.enter(), part.check()));
        begin = "SELECT 1";
        if is_refused(sqlx::raw_sql(enter).execute(&mut *connection).await)? {
            return Ok(Written::Refused);
        }
        for layer in layers {
            let here = layer.iter().copied();
            let rows: Vec<_> = here.filter(|row| part.has(row.key().0)).collect();
            if rows.is_empty() {
                continue;
            }
            if is_refused(commit::write(connection, fence, &rows, part).await)? {
                return Ok(Written::Refused);
            }
            fence = &[];
            tasks::write(connection, &rows).await?;
            tags::write(connection, &rows).await?;
        }
        // After the batches: what is rolled back by a conflict was not yet done.
        let here = |(_, write): &(usize, &Write)| part.has(&write.tenant);
        let writes = group.writes.iter().enumerate().filter(here);
        let (places, writes): (Vec<_>, Vec<_>) = writes.unzip();
        let made = match key_value::apply(connection, &writes).await {
            Ok((made, by)) => {
                xid = by.or(xid);
                made
            }
            Err(failure) if matches!(failure.kind, Kind::Lost | Kind::Busy) => return Err(failure),
            Err(failure) => return Ok(Written::Unwritable(failure.error)),
        };
        for (place, outcome) in places.into_iter().zip(made) {
            outcomes[place] = Some(outcome);
        }
    }
    if layers.is_empty()
        && !fence.is_empty()
        && let [part, ..] = parts
        && is_refused(commit::write(connection, fence, &[], part).await)?
    {
        return Ok(Written::Refused);
    }
    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    let before = doubt.replace(Doubt {
        outcomes: outcomes.clone(),
        xid,
    });
    let committed = sqlx::raw_sql("COMMIT").execute(connection).await;
    let committed = committed.map(drop).map_err(Failure::from);
    surely(committed, doubt, before).map(|committed| match committed {
        Some(()) => Written::All(outcomes),
        None => Written::Refused,
    })
}

/// Whether the server refused something since what should be so is not.
fn is_refused<T>(done: Result<T, impl Into<Failure>>) -> Result<bool, Failure> {
    match done.map_err(Into::into) {
        Ok(_) => Ok(false),
        Err(failure) if failure.kind == Kind::Refused => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// What came of a commit that was sent: `None` if it was refused. Nothing is in doubt that was not
/// before, unless its answer was lost.
fn surely(
    sent: Result<(), Failure>,
    doubt: &mut Option<Doubt>,
    before: Option<Doubt>,
) -> Result<Option<()>, Failure> {
    match sent {
        Ok(()) => Ok(Some(())),
        Err(failure) if failure.kind == Kind::Lost => Err(failure),
        Err(failure) => {
            *doubt = before;
            if failure.kind == Kind::Refused {
                return Ok(None);
            }
            Err(failure)
        }
    }
}

/// Answers those whose lease is lost, or that expected another version, and keeps the others.
async fn refuse(
    connection: &mut PgConnection,
    homes: &Homes,
    group: &mut Group,
) -> Result<(), Failure> {
    let epochs = epochs(connection, &group.batches).await?;
    let mut versions = versions(connection, homes, &group.batches).await?;
    let before = group.batches.len();
    for batch in std::mem::take(&mut group.batches) {
        let (shard, presented) = (batch.lease.shard, batch.lease.epoch);
        let held = epochs[&shard];
        if held != presented {
            let lost = CommitError::LeaseLost {
                shard,
                held,
                presented,
            };
            answer(batch, Err(lost));
            continue;
        }
        match advance(&mut versions, &batch.rows) {
            Ok(()) => group.batches.push(batch),
            Err(conflict) => answer(batch, Err(conflict)),
        }
    }
    if group.batches.len() == before {
        // Another server was in between: a start of the same execution that it undid, say.
        return Err(Failure::busy("refused, and now nothing is wrong with it"));
    }
    Ok(())
}
