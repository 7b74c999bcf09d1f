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
/// than once are copied once, so larger is cheaper; recovery reads it all, so
/// not much larger.
const LOG_BYTES: usize = 16 << 20;

/// How much has been written since the last checkpoint.
#[derive(Default)]
pub(super) struct Log {
    bytes: AtomicUsize,
    closed: AtomicBool,
    /// Full or closed.
    changed: Notify,
}

impl Log {
    /// Counts a write, roughly.
    pub(super) fn wrote(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes >= LOG_BYTES {
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
        if log.bytes.swap(0, Ordering::Relaxed) < LOG_BYTES {
            continue; // a wake-up left from before the last checkpoint
        }
        passive(&mut own).await;
        if let Some(connection) = writer.lock().await.as_mut() {
            passive(&mut connection.sqlite).await;
        }
    }
    if let Err(error) = own.close().await {
        tracing::warn!(%error, "the connection for checkpoints was not closed cleanly");
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
