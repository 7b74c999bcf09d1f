//! Group commit: all that waits goes into one transaction.
//!
//! One task owns the order of commits. It takes what the channel holds, writes
//! it in one transaction with one sync to disk, answers, and takes what has
//! gathered meanwhile: the slower the disk, the larger the groups. There is no
//! timer. A crash loses only what was not answered.
//!
//! Batches of all shards meet in a group, so the fault of one (a lost lease, a
//! conflict) must not fail the others. The group is written as if there were no
//! conflict; if the database finds one, everything is rolled back, the guilty
//! are found by their versions, and the rest is written again. Nobody else
//! writes the file, so the second time cannot conflict.
//!
//! Writes of the key-value capability share the groups and their sync. They wait
//! in a channel of their own and have a bounded part of each group, so that a
//! tenant who floods them holds up no commit. If the database cannot make them,
//! they fail, and the rest of the group is written again without them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cascade_cdl::{ExecutionId, TenantId};
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use super::super::{Commit, CommitError, Counters, Epoch, Error, Lease, ShardId, Summary, codec};
use super::checkpoint::Log;
use super::key_value::{self, Outcome, Write};
use super::lock::FileLock;
use super::statements::{KeyValues, Statements, chunks};
use super::tasks::Changes;
use super::{read, unavailable};

/// Batches that may wait for the writer. Shards send one batch at a time, so
/// this is more than any server has of them; beyond it, `commit` waits.
pub(super) const BATCHES_WAITING: usize = 256;

/// Key-value writes that may wait for the writer: those of a few groups. Beyond
/// it the attempts wait that make them, each with one write at a time.
pub(super) const WRITES_WAITING: usize = 256;

/// A group takes nothing more at this many rows: a few milliseconds of work,
/// so that the sync is well shared but nobody waits long for it.
const GROUP_ROWS: usize = 1024;

/// Nor at this many bytes, so that large payloads cannot pile up in one transaction.
const GROUP_BYTES: usize = 8 << 20;

/// Key-value writes of a group: what one statement makes. So many share a sync, and a
/// commit beside them is written half a millisecond later.
const GROUP_WRITES: usize = KeyValues::MOST;

/// Bytes of the key-value writes of a group: a quarter of it, so that large values
/// leave room for batches.
const GROUP_WRITE_BYTES: usize = GROUP_BYTES / 4;

/// What a row takes in pages beyond its history: columns and index entries.
const ROW_BYTES: usize = 512;

/// One execution of a batch, encoded.
pub(super) struct Row {
    pub(super) summary: Summary,
    pub(super) expected: u64,
    /// The new events.
    pub(super) history: Arc<str>,
    /// If its history moves out of its row.
    pub(super) snapshot: Option<Arc<str>>,
    /// What changes of what people are asked.
    tasks: Option<Changes>,
}

impl Row {
    /// Encodes a commit; runs on the caller's task, so that shards encode in parallel.
    pub(super) fn new(commit: Commit) -> Self {
        commit.check();
        Self {
            summary: commit.summary,
            expected: commit.expected,
            history: codec::encode_events(&commit.events).into(),
            snapshot: commit
                .snapshot
                .as_deref()
                .map(|execution| codec::encode_snapshot(execution).into()),
            tasks: Changes::new(&commit.tasks),
        }
    }

    /// Whether it is an execution's first.
    pub(super) fn is_new(&self) -> bool {
        self.expected == 0
    }

    fn key(&self) -> (&TenantId, ExecutionId) {
        (&self.summary.tenant, self.summary.id)
    }

    fn bytes(&self) -> usize {
        let snapshot = self.snapshot.as_ref().map_or(0, |text| text.len());
        let tasks = self.tasks.as_ref().map_or(0, Changes::bytes);
        ROW_BYTES + self.history.len() + snapshot + tasks
    }
}

/// A batch that waits for its commit.
pub(super) struct Batch {
    pub(super) lease: Lease,
    pub(super) rows: Vec<Row>,
    pub(super) done: oneshot::Sender<Result<(), CommitError>>,
}

/// What the writer is asked for.
enum Request {
    Batch(Batch),
    Write(Write),
}

/// What one transaction writes.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    writes: Vec<Write>,
    rows: usize,
    bytes: usize,
}

impl Group {
    fn add(&mut self, request: Request) {
        match request {
            Request::Batch(batch) => {
                self.rows += batch.rows.len();
                self.bytes += batch.rows.iter().map(Row::bytes).sum::<usize>();
                self.batches.push(batch);
            }
            Request::Write(write) => {
                self.rows += 1;
                self.bytes += write.bytes();
                self.writes.push(write);
            }
        }
    }
}

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

/// What has been committed, for [`Counters`].
#[derive(Default)]
pub(super) struct Tally {
    commits: AtomicU64,
    executions: AtomicU64,
    events: AtomicU64,
}

impl Tally {
    pub(super) fn read(&self) -> Counters {
        Counters {
            commits: self.commits.load(Ordering::Relaxed),
            executions: self.executions.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
        }
    }

    /// Counts a transaction, if it has written anything: the others need no sync.
    fn add(&self, batches: &[Batch], outcomes: &[Outcome]) {
        let rows = || batches.iter().flat_map(|batch| &batch.rows);
        let executions: u64 = rows().map(|_| 1).sum();
        let writes = outcomes.iter().any(|outcome| matches!(outcome, Ok(true)));
        if executions == 0 && !writes {
            return;
        }
        let events: u64 = rows().map(|row| row.summary.version - row.expected).sum();
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.executions.fetch_add(executions, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
    }
}

/// The task.
pub(super) struct Writer {
    pub(super) batches: mpsc::Receiver<Batch>,
    pub(super) key_values: mpsc::Receiver<Write>,
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
                first = self.next() => first,
                () = &mut closed, if open => {
                    open = false;
                    // What was accepted is still received.
                    self.batches.close();
                    self.key_values.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            // Gather after the wait for the connection: it may have taken a while.
            let mut connection = connection.lock().await;
            let group = self.gather(first);
            match connection.as_mut() {
                Some(connection) => self.commit(connection, group).await,
                None => fail(group, &Error::Closed),
            }
        }
    }

    /// What waits, or comes next; `None` if nothing can come any more.
    async fn next(&mut self) -> Option<Request> {
        tokio::select! {
            biased;
            Some(batch) = self.batches.recv() => Some(Request::Batch(batch)),
            Some(write) = self.key_values.recv() => Some(Request::Write(write)),
            else => None,
        }
    }

    /// Takes what waits, as much as a group may have. Key-value writes come first,
    /// so that batches without end leave them their part; it is too small to
    /// leave no room for a batch.
    fn gather(&mut self, first: Request) -> Group {
        let mut group = Group::default();
        let mut write_bytes = match &first {
            Request::Batch(_) => 0,
            Request::Write(write) => write.bytes(),
        };
        group.add(first);
        while group.writes.len() < GROUP_WRITES
            && write_bytes < GROUP_WRITE_BYTES
            && let Ok(write) = self.key_values.try_recv()
        {
            write_bytes += write.bytes();
            group.add(Request::Write(write));
        }
        while group.rows < GROUP_ROWS
            && group.bytes < GROUP_BYTES
            && let Ok(batch) = self.batches.try_recv()
        {
            group.add(Request::Batch(batch));
        }
        self.log.wrote(group.bytes);
        group
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
            if let Some(tasks) = &row.tasks {
                let (tenant, id) = row.key();
                tasks.write(sqlite, tenant, id).await?;
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

/// Orders batches: the n-th commit of an execution goes to the n-th round.
fn rounds(batches: &[Batch]) -> Vec<Round<'_>> {
    let mut rounds = Vec::<Round>::with_capacity(1);
    let mut seen = HashMap::<_, usize>::new();
    for row in batches.iter().flat_map(|batch| &batch.rows) {
        let count = seen.entry(row.key()).or_default();
        if rounds.len() == *count {
            rounds.push(Round::default());
        }
        let round = &mut rounds[*count];
        *count += 1;
        if row.is_new() {
            round.inserts.push(row);
        }
        if row.snapshot.is_some() {
            round.spills.push(row);
        } else if !row.is_new() {
            round.updates.push(row);
        }
    }
    rounds
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
        && rows.iter().all(|row| row.tasks.is_none());
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

/// Moves the versions as the rows would; changes none if a row is in conflict.
fn advance(
    versions: &mut HashMap<(TenantId, ExecutionId), u64>,
    rows: &[Row],
) -> Result<(), CommitError> {
    let mut moved = HashMap::with_capacity(rows.len());
    for row in rows {
        let key = (row.summary.tenant.clone(), row.summary.id);
        let stored = versions.get(&key).copied().unwrap_or(0);
        let actual = moved.get(&key).copied().unwrap_or(stored);
        if actual != row.expected {
            return Err(CommitError::Conflict {
                execution: row.summary.id,
                expected: row.expected,
                actual,
            });
        }
        moved.insert(key, row.summary.version);
    }
    versions.extend(moved);
    Ok(())
}

fn fail(group: Group, error: &Error) {
    if !group.batches.is_empty() {
        tracing::error!(%error, batches = group.batches.len(), "commit failed");
    }
    for batch in group.batches {
        answer(batch, Err(CommitError::Store(error.clone())));
    }
    fail_writes(group.writes, error);
}

fn fail_writes(writes: Vec<Write>, error: &Error) {
    if !writes.is_empty() {
        tracing::error!(%error, writes = writes.len(), "key-value writes failed");
    }
    for write in writes {
        answer_write(write, Err(error.clone()));
    }
}

fn answer(batch: Batch, result: Result<(), CommitError>) {
    // A caller that went away has to reload in any case.
    let _ = batch.done.send(result);
}

fn answer_write(write: Write, outcome: Outcome) {
    // The attempt may be over; its next one finds out what became of it.
    let _ = write.done.send(outcome);
}
