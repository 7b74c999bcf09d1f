//! Moves what the write-ahead log holds into the data file, off the commit path.
//!
//! SQLite would do this inside a commit, which then takes tens of
//! milliseconds. Here a task of its own copies the bulk while commits go on,
//! then takes the writer's turn for the little that came meanwhile, so that
//! the log starts over instead of growing without end. A crash at any point
//! costs nothing: the log is replayed when the file is opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Mutex, Notify};

use super::writer::Connection;

/// Bytes after which the log is worth a checkpoint. Pages that changed more
/// than once are copied once, so larger is cheaper; and the rarer the writer's turn is
/// taken, which is some ten milliseconds with the sync of the data file, the fewer wait
/// for it: at some thousand small commits a second one in two hundred. After a crash it
/// is read whole, in some thirty milliseconds, and copied in a hundred, so not much larger.
const LOG_BYTES: u64 = 64 << 20;

/// What the writer's turn may have to copy: some milliseconds, in which nobody
/// commits. Under load each pass leaves what was written during it, a fraction
/// of what it copied, so a few passes get there.
const LITTLE_BYTES: u64 = 1 << 20;
const PASSES: u32 = 4;

/// Size of a page, and so of a frame of the log: SQLite's default.
const PAGE_BYTES: u64 = 4096;

/// Bytes written between two looks at the length of the log. A look is a
/// statement that reads one line of shared memory: a hundred a second cost nothing.
const LOOK_BYTES: usize = 1 << 20;

/// What a write counts beside its payload: it fills a few pages, however small
/// it is. Only how often one looks depends on it.
const WRITE_BYTES: usize = 16 << 10;

/// How much has been written since the last look at the log.
#[derive(Default)]
pub(super) struct Log {
    bytes: AtomicUsize,
    closed: AtomicBool,
    /// Worth a look, or closed.
    changed: Notify,
}

impl Log {
    /// Counts a write, roughly.
    pub(super) fn wrote(&self, bytes: usize) {
        let bytes = bytes + WRITE_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes >= LOOK_BYTES {
            self.changed.notify_one();
        }
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// Runs until the log is closed.
pub(super) async fn run(
    log: Arc<Log>,
    mut own: SqliteConnection,
    writer: Arc<Mutex<Option<Connection>>>,
) {
    loop {
        log.changed.notified().await;
        if log.closed.load(Ordering::Relaxed) {
            break;
        }
        if log.bytes.swap(0, Ordering::Relaxed) < LOOK_BYTES {
            continue; // a wake-up left from before the last look
        }
        if !is_long(&mut own).await {
            continue;
        }
        for _ in 0..PASSES {
            passive(&mut own).await;
            if left(&mut own).await < LITTLE_BYTES {
                break;
            }
        }
        if let Some(connection) = writer.lock().await.as_mut() {
            passive(&mut connection.sqlite).await;
        }
    }
    if let Err(error) = own.close().await {
        tracing::warn!(%error, "the connection for checkpoints was not closed cleanly");
    }
}

/// Copies what a crash left, if it is much: or a server that dies early again
/// and again would read an ever longer log at each start.
pub(super) async fn catch_up(own: &mut SqliteConnection) {
    if is_long(own).await {
        passive(own).await;
    }
}

/// Whether the log holds enough that is not in the data file yet.
async fn is_long(sqlite: &mut SqliteConnection) -> bool {
    left(sqlite).await >= LOG_BYTES
}

/// Bytes of the log that are not in the data file yet; very many if nobody knows.
async fn left(sqlite: &mut SqliteConnection) -> u64 {
    // Busy, frames in the log, frames of these that are copied.
    let looked: Result<(i64, i64, i64), _> = sqlx::query_as("PRAGMA wal_checkpoint(NOOP)")
        .fetch_one(sqlite)
        .await;
    match looked {
        Ok((_, frames, copied)) => {
            let left = u64::try_from(frames.saturating_sub(copied)).unwrap_or(0);
            left.saturating_mul(PAGE_BYTES)
        }
        Err(error) => {
            tracing::warn!(%error, "the length of the log is not known");
            u64::MAX
        }
    }
}

/// Copies what no reader still needs in the log; waits for nobody.
async fn passive(sqlite: &mut SqliteConnection) {
    let done = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(sqlite)
        .await;
    if let Err(error) = done {
        // Nothing is lost: the log keeps what was not copied, and the next one tries again.
        tracing::warn!(%error, "checkpoint failed");
    }
}
