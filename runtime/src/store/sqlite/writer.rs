//! Group commit into the file: see [`super::super::group`].
//!
//! Batches of all shards meet in a group, so the fault of one (a lost lease, a
//! conflict) must not fail the others. The group is written as if there were no
//! conflict; if the database finds one, everything is rolled back, the guilty
//! are found by their versions, and the rest is written again. Nobody else
//! writes the file, so the second time cannot conflict. If the database cannot make
//! the key-value writes, they fail, and the rest of the group is written again
//! without them.

use std::collections::HashMap;
use std::sync::Arc;

use cascade_cdl::{ExecutionId, TenantId};
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Mutex, Notify};

use super::super::group::{
    Batch, Group, Inbox, Row, Tally, advance, answer, answer_write, fail, fail_writes, layers,
};
use super::super::key_value::{Outcome, Write};
use super::super::{CommitError, Epoch, Error, Lease, ShardId, codec};
use super::checkpoint::Log;
use super::key_value;
use super::lock::FileLock;
use super::statements::{Statements, chunks};
use super::tasks::Changes;
use super::{read, tags, unavailable};

/// The one connection that writes, with what it knows about the file.
pub(super) struct Connection {
    pub(super) sqlite: SqliteConnection,
    /// Leases as stored. Missing means not read yet.
    epochs: HashMap<ShardId, Epoch>,
    /// Held for as long as `sqlite` may write.
    pub(super) lock: FileLock,
}

impl Connection {
    pub(super) fn new(sqlite: SqliteConnection, lock: FileLock) -> Self {
        Self {
            sqlite,
            lock,
            epochs: HashMap::new(),
        }
    }

    /// Raises the epoch of a shard.
    pub(super) async fn acquire(&mut self, shard: ShardId) -> Result<Epoch, sqlx::Error> {
        // Forget first: if the caller goes away before the answer, the epoch is read again.
        self.epochs.remove(&shard);
        let (epoch,): (i64,) = sqlx::query_as(
            "INSERT INTO leases (shard, epoch) VALUES (?, 1) \
             ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
        )
        .bind(i64::from(shard.0))
        .fetch_one(&mut self.sqlite)
        .await?;
        let epoch = Epoch(epoch.cast_unsigned());
        self.epochs.insert(shard, epoch);
        Ok(epoch)
    }

    /// All epochs were changed.
    pub(super) fn forget_epochs(&mut self) {
        self.epochs.clear();
    }

    /// Refuses who does not hold a shard any more.
    pub(super) async fn fence(&mut self, lease: &Lease) -> Result<(), CommitError> {
        let held = self.epoch(lease.shard).await;
        let held = held.map_err(|error| unavailable(&error))?;
        if held == lease.epoch {
            return Ok(());
        }
        Err(CommitError::LeaseLost {
            shard: lease.shard,
            held,
            presented: lease.epoch,
        })
    }

    /// Who holds a shard. No other process writes the file, so what was read
    /// or written once stays true, and the fence costs no statement.
    async fn epoch(&mut self, shard: ShardId) -> Result<Epoch, sqlx::Error> {
        if let Some(epoch) = self.epochs.get(&shard) {
            return Ok(*epoch);
        }
        let found: Option<(i64,)> = sqlx::query_as("SELECT epoch FROM leases WHERE shard = ?")
            .bind(i64::from(shard.0))
            .fetch_optional(&mut self.sqlite)
            .await?;
        let epoch = Epoch(found.map_or(0, |(epoch,)| epoch.cast_unsigned()));
        self.epochs.insert(shard, epoch);
        Ok(epoch)
    }
}

/// The task.
pub(super) struct Writer {
    pub(super) inbox: Inbox,
    pub(super) connection: Arc<Mutex<Option<Connection>>>,
    pub(super) statements: Statements,
    pub(super) tally: Arc<Tally>,
    pub(super) log: Arc<Log>,
    pub(super) closing: Arc<Notify>,
}

impl Writer {
    /// Commits until the store is closed or dropped and nothing waits.
    pub(super) async fn run(mut self) {
        let connection = Arc::clone(&self.connection);
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
            let Some(first) = first else { return };
            // Gather after the wait for the connection: it may have taken a while.
            let mut connection = connection.lock().await;
            let group = self.inbox.gather(first);
            self.log.wrote(group.bytes);
            match connection.as_mut() {
                Some(connection) => self.commit(connection, group).await,
                None => fail(group, &Error::Closed),
            }
        }
    }

    async fn commit(&self, connection: &mut Connection, group: Group) {
        let Ok(mut group) = fence(connection, group).await else {
            return; // answered already
        };
        let sqlite = &mut connection.sqlite;
        let mut written = self.write(sqlite, &group).await;
        if let Written::Conflict = written {
            let Ok(rest) = refuse_conflicts(sqlite, group).await else {
                return;
            };
            group = rest;
            written = self.write(sqlite, &group).await;
        }
        if let Written::Unwritable(error) = &written {
            fail_writes(std::mem::take(&mut group.writes), &unavailable(error));
            written = self.write(sqlite, &group).await;
        }
        match written {
            Written::All(outcomes) => {
                self.tally.add(&group.batches, &outcomes);
                for batch in group.batches {
                    answer(batch, Ok(()));
                }
                for (write, outcome) in group.writes.into_iter().zip(outcomes) {
                    answer_write(write, outcome);
                }
            }
            Written::Conflict => {
                let error = codec::damaged("the same versions conflict and do not");
                fail(group, &error);
            }
            Written::Unwritable(error) | Written::Unknown(error) => {
                fail(group, &unavailable(&error));
            }
        }
    }

    /// Writes a group in one transaction: all, or nothing.
    async fn write(&self, sqlite: &mut SqliteConnection, group: &Group) -> Written {
        let rounds = rounds(&group.batches);
        if rounds.is_empty() && group.writes.is_empty() {
            return Written::All(Vec::new()); // all were refused, or asked for nothing else
        }
        let written = if let Some(rows) = only_insert(&rounds)
            && group.writes.is_empty()
        {
            let (sql, arguments) = self.statements.insert_only(rows);
            sqlx::query_with(sql, arguments)
                .execute(&mut *sqlite)
                .await
                .map(|_| Written::All(Vec::new()))
        } else {
            self.write_parts(sqlite, &rounds, &group.writes).await
        };
        let written = match written {
            Ok(written) => written,
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Written::Conflict,
            Err(error) => Written::Unknown(error),
        };
        if !matches!(written, Written::All(_)) {
            // Fails if the error has ended the transaction already.
            let _ = sqlx::query("ROLLBACK").execute(sqlite).await;
        }
        written
    }

    async fn write_parts(
        &self,
        sqlite: &mut SqliteConnection,
        rounds: &[Round<'_>],
        writes: &[Write],
    ) -> Result<Written, sqlx::Error> {
        sqlx::query("BEGIN").execute(&mut *sqlite).await?;
        for round in rounds {
            if !self.write_round(sqlite, round).await? {
                return Ok(Written::Conflict);
            }
        }
        // After the batches: what is rolled back by a conflict was not yet done.
        let outcomes = match key_value::apply(sqlite, &self.statements.key_values, writes).await {
            Ok(outcomes) => outcomes,
            Err(error) => return Ok(Written::Unwritable(error)),
        };
        sqlx::query("COMMIT").execute(sqlite).await?;
        Ok(Written::All(outcomes))
    }

    /// Says whether all rows were at the versions that were expected.
    async fn write_round(
        &self,
        sqlite: &mut SqliteConnection,
        round: &Round<'_>,
    ) -> Result<bool, sqlx::Error> {
        for rows in chunks(&round.inserts) {
            let (sql, arguments) = self.statements.insert(rows);
            sqlx::query_with(sql, arguments)
                .execute(&mut *sqlite)
                .await?;
        }
        let statements = &self.statements;
        let updates = chunks(&round.updates).map(|rows| (rows.len(), statements.update(rows)));
        let spills = chunks(&round.spills).flat_map(|rows| {
            [statements.spill(rows), statements.cut(rows)].map(|statement| (rows.len(), statement))
        });
        for (rows, (sql, arguments)) in updates.chain(spills) {
            let done = sqlx::query_with(sql, arguments)
                .execute(&mut *sqlite)
                .await?;
            if done.rows_affected() != rows as u64 {
                return Ok(false);
            }
        }
        for row in round.all() {
            if let Some(tasks) = Changes::new(&row.tasks) {
                let (tenant, id) = row.key();
                tasks.write(sqlite, tenant, id).await?;
            }
            if let Some(tags) = &row.tags {
                tags::write(sqlite, row, tags).await?;
            }
        }
        Ok(true)
    }
}

enum Written {
    /// With what became of the key-value writes, in their order.
    All(Vec<Outcome>),
    /// Some row was not at the version that was expected; nothing was written.
    Conflict,
    /// The database cannot make the key-value writes; nothing was written.
    Unwritable(sqlx::Error),
    /// Whether anything was written is unknown.
    Unknown(sqlx::Error),
}

/// Rows of different executions, which may be written in any order.
#[derive(Default)]
struct Round<'r> {
    inserts: Vec<&'r Row>,
    /// Those that stay in their rows.
    updates: Vec<&'r Row>,
    /// Those whose histories move out; what is new has been inserted before.
    spills: Vec<&'r Row>,
}

impl<'r> Round<'r> {
    /// Its rows; one that is new and spills comes twice.
    fn all(&self) -> impl Iterator<Item = &'r Row> {
        let rows = self.inserts.iter().chain(&self.updates).chain(&self.spills);
        rows.copied()
    }
}

/// A round for each layer of the batches.
fn rounds(batches: &[Batch]) -> Vec<Round<'_>> {
    let layers = layers(batches).into_iter();
    layers
        .map(|rows| rows.into_iter().fold(Round::default(), Round::with))
        .collect()
}

impl<'r> Round<'r> {
    fn with(mut self, row: &'r Row) -> Self {
        if row.is_new() {
            self.inserts.push(row);
        }
        if row.snapshot.is_some() {
            self.spills.push(row);
        } else if !row.is_new() {
            self.updates.push(row);
        }
        self
    }
}

/// The rows of batches that one statement can write: the usual case under
/// light load, where a message to the connection's thread is worth saving.
fn only_insert<'a, 'r>(rounds: &'a [Round<'r>]) -> Option<&'a [&'r Row]> {
    let [round] = rounds else { return None };
    let mut chunks = chunks(&round.inserts);
    let rows = chunks.next()?;
    let only = chunks.next().is_none()
        && round.updates.is_empty()
        && round.spills.is_empty()
        && rows.iter().all(|row| row.is_plain());
    only.then_some(rows)
}

/// Answers those whose lease is lost and keeps the others. `Err`: all are answered.
async fn fence(connection: &mut Connection, mut group: Group) -> Result<Group, ()> {
    let mut batches = std::mem::take(&mut group.batches).into_iter();
    while let Some(batch) = batches.next() {
        let Lease { shard, epoch } = batch.lease;
        match connection.epoch(shard).await {
            Ok(held) if held == epoch => group.batches.push(batch),
            Ok(held) => answer(
                batch,
                Err(CommitError::LeaseLost {
                    shard,
                    held,
                    presented: epoch,
                }),
            ),
            Err(error) => {
                group.batches.push(batch);
                group.batches.extend(batches);
                fail(group, &unavailable(&error));
                return Err(());
            }
        }
    }
    Ok(group)
}

/// Answers those that expected another version and keeps the others. `Err`: all are answered.
async fn refuse_conflicts(sqlite: &mut SqliteConnection, mut group: Group) -> Result<Group, ()> {
    let mut versions = HashMap::<(TenantId, ExecutionId), u64>::new();
    for row in group.batches.iter().flat_map(|batch| &batch.rows) {
        let (tenant, id) = row.key();
        match read::version(&mut *sqlite, tenant, id).await {
            Ok(version) => versions.insert((tenant.clone(), id), version),
            Err(error) => {
                fail(group, &error);
                return Err(());
            }
        };
    }
    for batch in std::mem::take(&mut group.batches) {
        match advance(&mut versions, &batch.rows) {
            Ok(()) => group.batches.push(batch),
            Err(conflict) => answer(batch, Err(conflict)),
        }
    }
    Ok(group)
}
