//! What waits for a group commit, whatever the database.
//!
//! One task of a store, its writer, owns the order of commits. It takes what
//! the channels hold, writes it in one transaction with one sync to disk,
//! answers, and takes what has gathered meanwhile: the slower the disk, the
//! larger the groups. There is no timer. A crash loses only what was not answered.
//!
//! Writes of the key-value capability share the groups and their sync. They wait
//! in a channel of their own and have a bounded part of each group, and of the
//! writer's time, so that a tenant who floods them holds up no commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cascade_cdl::{ExecutionId, TenantId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::key_value::{Change, OnlyIf, Outcome, Write};
use super::search::TagRow;
use super::{
    Commit, CommitError, Counters, Error, KV_KEY_BYTES, KV_VALUE_BYTES, KvQuota, Lease, Summary,
    TaskChanges, bounded, codec,
};

/// Batches that may wait for the writer. Shards send one batch at a time, so
/// this is more than any server has of them; beyond it, `commit` waits.
const BATCHES_WAITING: usize = 256;

/// Key-value writes that may wait for the writer: those of a few groups. Beyond
/// it the attempts wait that make them, each with one write at a time.
const WRITES_WAITING: usize = 256;

/// A group takes nothing more at this many rows: a few milliseconds of work,
/// so that the sync is well shared but nobody waits long for it.
const GROUP_ROWS: usize = 1024;

/// Nor at this many bytes, so that large payloads cannot pile up in one transaction.
const GROUP_BYTES: usize = 8 << 20;

/// Key-value writes of a group: so many share a sync, and a commit beside them is
/// written half a millisecond later.
pub(super) const GROUP_WRITES: usize = 32;

/// Bytes of the key-value writes of a group: a quarter of it, so that large values
/// leave room for batches.
const GROUP_WRITE_BYTES: usize = GROUP_BYTES / 4;

/// Groups with key-value writes may take one part in so many of a writer's time: what
/// they add to each is more than a commit beside them takes itself.
const WRITES_SHARE: u32 = 4;

/// How much of that time may be used at once, after a rest: some twenty writes one
/// after the other, so that only who floods them waits.
const WRITES_BURST: Duration = Duration::from_millis(20);

/// So much of a group counts: a disk or a database that stalls is not their doing, and they
/// are not to wait several times as long for it.
const WRITES_MOST: Duration = Duration::from_millis(100);

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
    pub(super) tasks: TaskChanges,
    /// What it is found by, if that has changed.
    pub(super) tags: Option<TagRow>,
}

impl Row {
    /// Encodes a commit; runs on the caller's task, so that shards encode in parallel.
    pub(super) fn new(commit: Commit) -> Self {
        commit.check();
        Self {
            tags: TagRow::new(&commit),
            summary: commit.summary,
            expected: commit.expected,
            history: codec::encode_events(&commit.events).into(),
            snapshot: commit
                .snapshot
                .as_deref()
                .map(|execution| codec::encode_snapshot(execution).into()),
            tasks: commit.tasks,
        }
    }

    /// Whether it is an execution's first.
    pub(super) fn is_new(&self) -> bool {
        self.expected == 0
    }

    pub(super) fn key(&self) -> (&TenantId, ExecutionId) {
        (&self.summary.tenant, self.summary.id)
    }

    /// Whether it changes nothing but the execution and its history.
    pub(super) fn is_plain(&self) -> bool {
        self.tasks.is_empty() && self.tags.is_none()
    }

    fn bytes(&self) -> usize {
        let snapshot = self.snapshot.as_ref().map_or(0, |text| text.len());
        let asked = self.tasks.asked.iter();
        let texts = asked.map(|task| task.path.len() + task.assignee.len());
        let tasks = self.tasks.asked.len() + self.tasks.gone.len();
        let (tags, tag_bytes) = self
            .tags
            .as_ref()
            .map_or((0, 0), |tags| (tags.entries.len(), tags.bytes()));
        ROW_BYTES * (1 + tasks + tags)
            + self.history.len()
            + snapshot
            + texts.sum::<usize>()
            + tag_bytes
    }
}

/// A batch that waits for its commit.
pub(super) struct Batch {
    pub(super) lease: Lease,
    pub(super) rows: Vec<Row>,
    pub(super) done: oneshot::Sender<Result<(), CommitError>>,
}

/// What the writer is asked for.
pub(super) enum Request {
    Batch(Batch),
    Write(Write),
}

/// What one transaction writes.
#[derive(Default)]
pub(super) struct Group {
    pub(super) batches: Vec<Batch>,
    pub(super) writes: Vec<Write>,
    rows: usize,
    pub(super) bytes: usize,
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

/// The callers' side of a writer.
pub(super) struct Requests {
    batches: mpsc::Sender<Batch>,
    key_values: mpsc::Sender<Write>,
}

/// The writer's side.
pub(super) struct Inbox {
    batches: mpsc::Receiver<Batch>,
    key_values: mpsc::Receiver<Write>,
    share: Share,
    /// When the group began that the writer has now, if it has key-value writes.
    began: Option<Instant>,
}

/// The writer's time that key-value writes have.
struct Share {
    /// When they have all of their burst again; beyond [`WRITES_BURST`] from now, none.
    whole_at: Instant,
}

impl Share {
    fn new(now: Instant) -> Self {
        Self { whole_at: now }
    }

    /// Takes off what a group has used.
    fn charge(&mut self, used: Duration, now: Instant) {
        self.whole_at = self.whole_at.max(now) + used.min(WRITES_MOST) * WRITES_SHARE;
    }

    /// How long they wait before there is time for some.
    fn rest(&self, now: Instant) -> Option<Duration> {
        let owed = self.whole_at.saturating_duration_since(now);
        owed.checked_sub(WRITES_BURST)
            .filter(|rest| !rest.is_zero())
    }
}

/// Both sides; the writer's has nothing more to come once the other is dropped.
pub(super) fn channel() -> (Requests, Inbox) {
    let (batches, waiting_batches) = mpsc::channel(BATCHES_WAITING);
    let (key_values, waiting_key_values) = mpsc::channel(WRITES_WAITING);
    let requests = Requests {
        batches,
        key_values,
    };
    let inbox = Inbox {
        batches: waiting_batches,
        key_values: waiting_key_values,
        share: Share::new(Instant::now()),
        began: None,
    };
    (requests, inbox)
}

impl Requests {
    /// As [`super::Store::commit`].
    pub(super) async fn commit(
        &self,
        lease: &Lease,
        batch: Vec<Commit>,
    ) -> Result<(), CommitError> {
        let (done, answer) = oneshot::channel();
        let batch = Batch {
            lease: lease.clone(),
            rows: batch.into_iter().map(Row::new).collect(),
            done,
        };
        let sent = self.batches.send(batch).await;
        sent.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Sets a key of the key-value capability; says whether it did.
    pub(super) async fn set(
        &self,
        tenant: &TenantId,
        key: &str,
        only_if: OnlyIf,
        value: Bytes,
        quota: KvQuota,
    ) -> Result<bool, Error> {
        bounded("key", key.len(), KV_KEY_BYTES)?;
        bounded("value", value.len(), KV_VALUE_BYTES)?;
        let set = Change::Set {
            only_if,
            value,
            quota,
        };
        self.write(tenant, key, set).await
    }

    /// Removes a key; says whether it was there.
    pub(super) async fn delete(&self, tenant: &TenantId, key: &str) -> Result<bool, Error> {
        self.write(tenant, key, Change::Delete).await
    }

    /// Makes a key-value write in a group commit; says whether it changed anything.
    async fn write(&self, tenant: &TenantId, key: &str, change: Change) -> Result<bool, Error> {
        let (done, answer) = oneshot::channel();
        let write = Write {
            tenant: tenant.clone(),
            key: key.to_owned(),
            change,
            done,
        };
        let sent = self.key_values.send(write).await;
        sent.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl Inbox {
    /// Takes nothing more in; what was accepted is still received.
    pub(super) fn close(&mut self) {
        self.batches.close();
        self.key_values.close();
    }

    /// What waits, or comes next; `None` if nothing can come any more. Whoever asks is done
    /// with the group before.
    pub(super) async fn next(&mut self) -> Option<Request> {
        if let Some(began) = self.began.take() {
            let now = Instant::now();
            self.share.charge(now - began, now);
        }
        loop {
            let rest = self.share.rest(Instant::now());
            tokio::select! {
                biased;
                Some(batch) = self.batches.recv() => return Some(Request::Batch(batch)),
                Some(write) = self.key_values.recv(), if rest.is_none() => {
                    return Some(Request::Write(write));
                }
                () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => {}
                else => return None,
            }
        }
    }

    /// Takes what waits, as much as a group may have. Key-value writes come first,
    /// so that batches without end leave them their part; it is too small to
    /// leave no room for a batch.
    pub(super) fn gather(&mut self, first: Request) -> Group {
        let mut group = Group::default();
        let mut write_bytes = match &first {
            Request::Batch(_) => 0,
            Request::Write(write) => write.bytes(),
        };
        group.add(first);
        let now = Instant::now();
        while self.share.rest(now).is_none()
            && group.writes.len() < GROUP_WRITES
            && write_bytes < GROUP_WRITE_BYTES
            && let Ok(write) = self.key_values.try_recv()
        {
            write_bytes += write.bytes();
            group.add(Request::Write(write));
        }
        self.began = (!group.writes.is_empty()).then_some(now);
        while group.rows < GROUP_ROWS
            && group.bytes < GROUP_BYTES
            && let Ok(batch) = self.batches.try_recv()
        {
            group.add(Request::Batch(batch));
        }
        group
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
    pub(super) fn add(&self, batches: &[Batch], outcomes: &[Outcome]) {
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

/// Orders batches: the n-th commit of an execution goes to the n-th layer. The rows
/// of a layer are of different executions, so their order matters to lists only.
pub(super) fn layers(batches: &[Batch]) -> Vec<Vec<&Row>> {
    let mut layers = Vec::<Vec<&Row>>::with_capacity(1);
    let mut seen = HashMap::<_, usize>::new();
    for row in batches.iter().flat_map(|batch| &batch.rows) {
        let count = seen.entry(row.key()).or_default();
        if layers.len() == *count {
            layers.push(Vec::new());
        }
        layers[*count].push(row);
        *count += 1;
    }
    layers
}

/// Moves the versions as the rows would; changes none if a row is in conflict.
pub(super) fn advance(
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

pub(super) fn fail(group: Group, error: &Error) {
    if !group.batches.is_empty() {
        tracing::error!(%error, batches = group.batches.len(), "commit failed");
    }
    for batch in group.batches {
        answer(batch, Err(CommitError::Store(error.clone())));
    }
    fail_writes(group.writes, error);
}

pub(super) fn fail_writes(writes: Vec<Write>, error: &Error) {
    if !writes.is_empty() {
        tracing::error!(%error, writes = writes.len(), "key-value writes failed");
    }
    for write in writes {
        answer_write(write, Err(error.clone()));
    }
}

pub(super) fn answer(batch: Batch, result: Result<(), CommitError>) {
    // A caller that went away has to reload in any case.
    let _ = batch.done.send(result);
}

pub(super) fn answer_write(write: Write, outcome: Outcome) {
    // The attempt may be over; its next one finds out what became of it.
    let _ = write.done.send(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(tenant: &str) -> (Write, oneshot::Receiver<Outcome>) {
        let (done, answer) = oneshot::channel();
        let write = Write {
            tenant: tenant.parse().expect("valid"),
            key: "k".to_owned(),
            change: Change::Delete,
            done,
        };
        (write, answer)
    }

    fn batch() -> (Batch, oneshot::Receiver<Result<(), CommitError>>) {
        let (done, answer) = oneshot::channel();
        let lease = Lease {
            shard: crate::store::ShardId(0),
            epoch: crate::store::Epoch(1),
        };
        let rows = Vec::new();
        (Batch { lease, rows, done }, answer)
    }

    const GROUP: Duration = Duration::from_millis(2);

    #[test]
    fn a_flood_of_key_value_writes_has_a_quarter_of_the_time() {
        let began = Instant::now();
        let (mut share, mut with_writes) = (Share::new(began), 0);
        // Groups without end, writes in each that may have some.
        for now in (0..1_000).map(|group| began + GROUP * group) {
            if share.rest(now).is_none() {
                share.charge(GROUP, now + GROUP);
                with_writes += 1;
            }
        }
        // And a burst in the beginning.
        assert!((250..=255).contains(&with_writes), "{with_writes}");
    }

    #[test]
    fn who_writes_now_and_then_never_waits() {
        let began = Instant::now();
        let mut share = Share::new(began);
        for now in (0..1_000).map(|write| began + 5 * GROUP * write) {
            assert_eq!(share.rest(now), None);
            share.charge(GROUP, now + GROUP);
        }
    }

    #[test]
    fn a_database_that_stalls_is_not_charged_to_who_waited_for_it() {
        let now = Instant::now();
        let mut share = Share::new(now);
        share.charge(Duration::from_secs(30), now);
        let rest = share.rest(now).expect("it has used much");
        assert!(rest < Duration::from_secs(1), "{rest:?}");
    }

    #[tokio::test]
    async fn what_has_used_up_its_share_waits_and_batches_do_not() {
        let (requests, mut inbox) = channel();
        let send = |of: &str| assert!(requests.key_values.try_send(write(of).0).is_ok());
        send("a");
        let first = inbox.next().await.expect("open");
        assert_eq!(inbox.gather(first).writes.len(), 1);
        // As if that had taken long: there is time for the next in a quarter of a second.
        inbox
            .share
            .charge(Duration::from_millis(100), Instant::now());
        for _ in 0..2 {
            send("a");
            assert!(
                requests.batches.try_send(batch().0).is_ok(),
                "there is room"
            );
            let first = inbox.next().await.expect("open");
            let group = inbox.gather(first);
            assert_eq!((group.batches.len(), group.writes.len()), (1, 0));
        }
        let first = inbox.next().await.expect("open");
        let group = inbox.gather(first);
        assert_eq!((group.batches.len(), group.writes.len()), (0, 2));
        assert_eq!(
            inbox.share.rest(Instant::now()),
            None,
            "it waited for its time"
        );
        drop(requests);
        assert!(inbox.next().await.is_none(), "nothing can come any more");
    }
}
