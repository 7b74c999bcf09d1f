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

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cascade_cdl::{ExecutionId, TenantId};
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use super::super::{Commit, CommitError, Counters, Epoch, Error, Lease, ShardId, Summary, codec};
use super::checkpoint::Log;
use super::lock::FileLock;
use super::statements::{SPILL_HISTORY, SPILL_SNAPSHOT, Statements, chunks};
use super::{read, unavailable};

/// Batches that may wait for the writer. Shards send one batch at a time, so
/// this is more than any server has of them; beyond it, `commit` waits.
pub(super) const WAITING: usize = 256;

/// A group takes no further batch at this many rows: a few milliseconds of
/// work, so that the sync is well shared but nobody waits long for it.
const GROUP_ROWS: usize = 1024;

/// Nor at this many bytes, so that large payloads cannot pile up in one transaction.
const GROUP_BYTES: usize = 8 << 20;

/// What a row takes in pages beyond its history: columns and index entries.
const ROW_BYTES: usize = 512;

/// One execution of a batch, encoded.
pub(super) struct Row {
    pub(super) summary: Summary,
    pub(super) expected: u64,
    /// The new events.
    pub(super) history: Arc<str>,
    snapshot: Option<Arc<str>>,
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
        }
    }

    fn key(&self) -> (&TenantId, ExecutionId) {
        (&self.summary.tenant, self.summary.id)
    }

    fn bytes(&self) -> usize {
        ROW_BYTES + self.history.len() + self.snapshot.as_ref().map_or(0, |text| text.len())
    }
}

/// A batch that waits for its commit.
pub(super) struct Request {
    pub(super) lease: Lease,
    pub(super) rows: Vec<Row>,
    pub(super) done: oneshot::Sender<Result<(), CommitError>>,
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

    fn add(&self, requests: &[Request]) {
        let rows = || requests.iter().flat_map(|request| &request.rows);
        let executions: u64 = rows().map(|_| 1).sum();
        if executions == 0 {
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
    pub(super) requests: mpsc::Receiver<Request>,
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
                first = self.requests.recv() => first,
                () = &mut closed, if open => {
                    open = false;
                    self.requests.close(); // what was accepted is still received
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

    fn gather(&mut self, first: Request) -> Vec<Request> {
        let size = |request: &Request| {
            let bytes: usize = request.rows.iter().map(Row::bytes).sum();
            (request.rows.len(), bytes)
        };
        let (mut rows, mut bytes) = size(&first);
        let mut group = vec![first];
        while rows < GROUP_ROWS && bytes < GROUP_BYTES {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            let (more_rows, more_bytes) = size(&request);
            rows += more_rows;
            bytes += more_bytes;
            group.push(request);
        }
        self.log.wrote(bytes);
        group
    }

    async fn commit(&self, connection: &mut Connection, group: Vec<Request>) {
        let Ok(mut group) = fence(connection, group).await else {
            return; // answered already
        };
        let mut written = self.write(&mut connection.sqlite, &group).await;
        if let Ok(Written::Conflict) = written {
            let Ok(rest) = refuse_conflicts(&mut connection.sqlite, group).await else {
                return;
            };
            group = rest;
            written = self.write(&mut connection.sqlite, &group).await;
        }
        match written {
            Ok(Written::All) => {
                self.tally.add(&group);
                for request in group {
                    answer(request, Ok(()));
                }
            }
            Ok(Written::Conflict) => {
                let error = codec::damaged("the same versions conflict and do not");
                fail(group, &error);
            }
            Err(error) => fail(group, &unavailable(&error)),
        }
    }

    /// Writes a group in one transaction: all, or nothing.
    async fn write(
        &self,
        sqlite: &mut SqliteConnection,
        group: &[Request],
    ) -> Result<Written, sqlx::Error> {
        let rounds = rounds(group);
        if rounds.is_empty() {
            return Ok(Written::All); // all were fenced off, or asked for nothing else
        }
        let result = if let Some(rows) = only_insert(&rounds) {
            let (sql, arguments) = self.statements.insert_only(rows);
            sqlx::query_with(sql, arguments)
                .execute(&mut *sqlite)
                .await
                .map(|_| Written::All)
        } else {
            self.write_rounds(sqlite, &rounds).await
        };
        let result = match result {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Ok(Written::Conflict)
            }
            other => other,
        };
        if !matches!(result, Ok(Written::All)) {
            // Fails if the error has ended the transaction already.
            let _ = sqlx::query("ROLLBACK").execute(sqlite).await;
        }
        result
    }

    async fn write_rounds(
        &self,
        sqlite: &mut SqliteConnection,
        rounds: &[Round<'_>],
    ) -> Result<Written, sqlx::Error> {
        sqlx::query("BEGIN").execute(&mut *sqlite).await?;
        for round in rounds {
            for rows in chunks(&round.inserts) {
                let (sql, arguments) = self.statements.insert(rows);
                sqlx::query_with(sql, arguments)
                    .execute(&mut *sqlite)
                    .await?;
            }
            for rows in chunks(&round.updates) {
                let (sql, arguments) = self.statements.update(rows);
                let done = sqlx::query_with(sql, arguments)
                    .execute(&mut *sqlite)
                    .await?;
                if done.rows_affected() != rows.len() as u64 {
                    return Ok(Written::Conflict);
                }
            }
            for (row, snapshot) in &round.spills {
                spill(sqlite, row, snapshot).await?;
            }
        }
        sqlx::query("COMMIT").execute(sqlite).await?;
        Ok(Written::All)
    }
}

enum Written {
    All,
    /// Some row was not at the version that was expected; nothing was written.
    Conflict,
}

/// Rows of different executions, which may be written in any order.
#[derive(Default)]
struct Round<'r> {
    inserts: Vec<&'r Row>,
    updates: Vec<&'r Row>,
    spills: Vec<(&'r Row, &'r Arc<str>)>,
}

/// Orders a group: the n-th commit of an execution goes to the n-th round.
fn rounds(group: &[Request]) -> Vec<Round<'_>> {
    let mut rounds = Vec::<Round>::with_capacity(1);
    let mut seen = HashMap::<_, usize>::new();
    for row in group.iter().flat_map(|request| &request.rows) {
        let count = seen.entry(row.key()).or_default();
        if rounds.len() == *count {
            rounds.push(Round::default());
        }
        let round = &mut rounds[*count];
        *count += 1;
        if row.expected == 0 {
            round.inserts.push(row);
        } else {
            round.updates.push(row);
        }
        if let Some(snapshot) = &row.snapshot {
            round.spills.push((row, snapshot));
        }
    }
    rounds
}

/// The rows of a group that one statement can write: the usual case under
/// light load, where a message to the connection's thread is worth saving.
fn only_insert<'a, 'r>(rounds: &'a [Round<'r>]) -> Option<&'a [&'r Row]> {
    let [round] = rounds else { return None };
    let mut chunks = chunks(&round.inserts);
    let rows = chunks.next()?;
    let only = chunks.next().is_none() && round.updates.is_empty() && round.spills.is_empty();
    only.then_some(rows)
}

/// Moves the history of a row that was just written into a chunk.
async fn spill(
    sqlite: &mut SqliteConnection,
    row: &Row,
    snapshot: &Arc<str>,
) -> Result<(), sqlx::Error> {
    let (tenant, id) = (row.summary.tenant.to_shared(), row.summary.id.0.as_bytes());
    sqlx::query(SPILL_HISTORY)
        .bind(Arc::clone(&tenant))
        .bind(id.to_vec())
        .execute(&mut *sqlite)
        .await?;
    sqlx::query(SPILL_SNAPSHOT)
        .bind(Arc::clone(snapshot))
        .bind(tenant)
        .bind(id.to_vec())
        .execute(sqlite)
        .await?;
    Ok(())
}

/// Answers those whose lease is lost and keeps the others. `Err`: all are answered.
async fn fence(connection: &mut Connection, group: Vec<Request>) -> Result<Vec<Request>, ()> {
    let mut kept = Vec::with_capacity(group.len());
    let mut requests = group.into_iter();
    while let Some(request) = requests.next() {
        let Lease { shard, epoch } = request.lease;
        match connection.epoch(shard).await {
            Ok(held) if held == epoch => kept.push(request),
            Ok(held) => answer(
                request,
                Err(CommitError::LeaseLost {
                    shard,
                    held,
                    presented: epoch,
                }),
            ),
            Err(error) => {
                kept.push(request);
                kept.extend(requests);
                fail(kept, &unavailable(&error));
                return Err(());
            }
        }
    }
    Ok(kept)
}

/// Answers those that expected another version and keeps the others. `Err`: all are answered.
async fn refuse_conflicts(
    sqlite: &mut SqliteConnection,
    group: Vec<Request>,
) -> Result<Vec<Request>, ()> {
    let mut versions = HashMap::<(TenantId, ExecutionId), u64>::new();
    for row in group.iter().flat_map(|request| &request.rows) {
        let (tenant, id) = row.key();
        match read::version(&mut *sqlite, tenant, id).await {
            Ok(version) => versions.insert((tenant.clone(), id), version),
            Err(error) => {
                fail(group, &error);
                return Err(());
            }
        };
    }
    let mut kept = Vec::with_capacity(group.len());
    for request in group {
        match advance(&mut versions, &request.rows) {
            Ok(()) => kept.push(request),
            Err(conflict) => answer(request, Err(conflict)),
        }
    }
    Ok(kept)
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

fn fail(group: Vec<Request>, error: &Error) {
    tracing::error!(%error, batches = group.len(), "commit failed");
    for request in group {
        answer(request, Err(CommitError::Store(error.clone())));
    }
}

fn answer(request: Request, result: Result<(), CommitError>) {
    // A caller that went away has to reload in any case.
    let _ = request.done.send(result);
}
