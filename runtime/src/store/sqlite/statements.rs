//! SQL of the commit path: multi-row statements in a few fixed sizes.
//!
//! Under sqlx the number of statements decides what a commit costs, and a
//! statement that was seen before costs no parse. So rows go in chunks of
//! powers of two. Measured, 256 rows of 600 bytes: 7 µs CPU a row with
//! placeholders, 20 µs with one JSON text and `json_each`.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, SqlSafeStr, SqlStr, Sqlite, Type};

use super::super::codec;
use super::super::group::{GROUP_WRITES, Row};

/// Rows of the largest statement: 4,096 parameters of SQLite's 32,766, and
/// more rows are not faster.
const LARGEST: usize = 256;

/// Number of sizes: 1, 2, 4, ... [`LARGEST`].
const SIZES: usize = LARGEST.ilog2() as usize + 1;

/// `OR FAIL` because the transaction is rolled back as a whole anyway: it
/// spares SQLite the journal that undoes a single statement.
const INSERT: &str = "INSERT OR FAIL INTO executions (tenant, id, bucket, application, \
     application_version, workflow, status, error, started_at, closed_at, wake_at, idle, \
     version, history, shard_key, tags) VALUES ";
const INSERT_COLUMNS: usize = 16;

/// The `+` keeps the planner from an index made on the spot over `new`, for
/// which it would read the whole table: it guesses that many rows are updated.
const UPDATE: &str = "WITH new (tenant, id, expected, application_version, status, error, \
     closed_at, wake_at, idle, version, history) AS (VALUES ";
const UPDATE_COLUMNS: usize = 11;
const UPDATE_END: &str = ") UPDATE executions AS old SET \
     application_version = new.application_version, status = new.status, error = new.error, \
     closed_at = new.closed_at, wake_at = new.wake_at, idle = new.idle, version = new.version, \
     history = old.history || new.history FROM new \
     WHERE old.tenant = +new.tenant AND old.id = +new.id AND old.version = +new.expected";

/// Moves the history of rows, with what is new, into chunks of their own. `CROSS`
/// makes the planner look the rows up one by one, as [`UPDATE`] does.
const SPILL: &str = "WITH new (tenant, id, expected, version, history) AS (VALUES ";
const SPILL_COLUMNS: usize = 5;
const SPILL_END: &str = ") INSERT OR FAIL INTO history_chunks (tenant, id, last_seq, events) \
     SELECT old.tenant, old.id, new.version, old.history || new.history \
     FROM new CROSS JOIN executions AS old \
     WHERE old.tenant = +new.tenant AND old.id = +new.id AND old.version = +new.expected";

/// Second half of [`SPILL`]: recovery starts from the snapshot.
const CUT: &str = "WITH new (tenant, id, expected, application_version, status, error, \
     closed_at, wake_at, idle, version, snapshot) AS (VALUES ";
const CUT_COLUMNS: usize = UPDATE_COLUMNS;
const CUT_END: &str = ") UPDATE executions AS old SET \
     application_version = new.application_version, status = new.status, error = new.error, \
     closed_at = new.closed_at, wake_at = new.wake_at, idle = new.idle, version = new.version, \
     history = '', tail_first = new.version + 1, snapshot = new.snapshot FROM new \
     WHERE old.tenant = +new.tenant AND old.id = +new.id AND old.version = +new.expected";

/// What the key-value writes of a group find. Rows that only fill the statement up
/// to its size have no tenant, here and below. The joins are looked up row by row.
const FIND: &str = "WITH asked (number, tenant, key, expected) AS (VALUES ";
const FIND_COLUMNS: usize = 4;
/// A large value is read only if one of its size is expected.
const FIND_END: &str = ") SELECT asked.number, length(kv.value) AS length, \
     CASE WHEN length(kv.value) = length(asked.expected) THEN kv.value = asked.expected END \
     AS holds, kv_usage.keys, kv_usage.bytes \
     FROM asked LEFT JOIN kv ON kv.tenant = +asked.tenant AND kv.key = +asked.key \
     LEFT JOIN kv_usage ON kv_usage.tenant = +asked.tenant WHERE asked.tenant IS NOT NULL";

const SET: &str = "WITH new (tenant, key, value) AS (VALUES ";
const SET_COLUMNS: usize = 3;
const SET_END: &str = ") INSERT INTO kv (tenant, key, value) \
     SELECT tenant, key, value FROM new WHERE tenant IS NOT NULL \
     ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value";

const DELETE: &str = "DELETE FROM kv WHERE (tenant, key) IN (VALUES ";
const DELETE_COLUMNS: usize = 2;

const SET_USAGE: &str = "WITH new (tenant, keys, bytes) AS (VALUES ";
const SET_USAGE_COLUMNS: usize = 3;
const SET_USAGE_END: &str = ") INSERT INTO kv_usage (tenant, keys, bytes) \
     SELECT tenant, keys, bytes FROM new WHERE tenant IS NOT NULL \
     ON CONFLICT (tenant) DO UPDATE SET keys = excluded.keys, bytes = excluded.bytes";

/// Sizes of the statements for key-value writes: 1, 2, 4, ... [`KeyValues::MOST`].
const KV_SIZES: usize = KeyValues::MOST.ilog2() as usize + 1;

/// The texts for key-value writes, built once. Each takes as many rows as it is
/// asked for: what is not bound is NULL, and left out.
pub(super) struct KeyValues {
    find: [SqlStr; KV_SIZES],
    set: [SqlStr; KV_SIZES],
    delete: [SqlStr; KV_SIZES],
    set_usage: [SqlStr; KV_SIZES],
}

impl KeyValues {
    /// Most rows of a statement.
    pub(super) const MOST: usize = GROUP_WRITES;

    pub(super) fn new() -> Self {
        let texts =
            |head, columns, tail| std::array::from_fn(|size| text("", head, columns, size, tail));
        Self {
            find: texts(FIND, FIND_COLUMNS, FIND_END),
            set: texts(SET, SET_COLUMNS, SET_END),
            delete: texts(DELETE, DELETE_COLUMNS, ")"),
            set_usage: texts(SET_USAGE, SET_USAGE_COLUMNS, SET_USAGE_END),
        }
    }

    pub(super) fn find(&self, rows: usize) -> SqlStr {
        self.find[padded(rows)].clone()
    }

    pub(super) fn set(&self, rows: usize) -> SqlStr {
        self.set[padded(rows)].clone()
    }

    pub(super) fn delete(&self, rows: usize) -> SqlStr {
        self.delete[padded(rows)].clone()
    }

    pub(super) fn set_usage(&self, rows: usize) -> SqlStr {
        self.set_usage[padded(rows)].clone()
    }
}

/// Index of the smallest statement that has room for so many rows.
fn padded(rows: usize) -> usize {
    rows.next_power_of_two().ilog2() as usize
}

/// The texts, built once.
pub(super) struct Statements {
    pub(super) key_values: KeyValues,
    insert: [SqlStr; SIZES],
    /// The whole transaction in one message to the connection's thread.
    insert_only: [SqlStr; SIZES],
    update: [SqlStr; SIZES],
    spill: [SqlStr; SIZES],
    cut: [SqlStr; SIZES],
}

impl Statements {
    pub(super) fn new() -> Self {
        Self {
            key_values: KeyValues::new(),
            insert: std::array::from_fn(|size| text("", INSERT, INSERT_COLUMNS, size, "")),
            insert_only: std::array::from_fn(|size| {
                text("BEGIN; ", INSERT, INSERT_COLUMNS, size, "; COMMIT")
            }),
            update: std::array::from_fn(|size| text("", UPDATE, UPDATE_COLUMNS, size, UPDATE_END)),
            spill: std::array::from_fn(|size| text("", SPILL, SPILL_COLUMNS, size, SPILL_END)),
            cut: std::array::from_fn(|size| text("", CUT, CUT_COLUMNS, size, CUT_END)),
        }
    }

    /// Inserts all rows of a chunk from [`chunks`].
    pub(super) fn insert(&self, rows: &[&Row]) -> (SqlStr, SqliteArguments) {
        (self.insert[size(rows)].clone(), inserted(rows))
    }

    /// The same in a transaction of its own.
    pub(super) fn insert_only(&self, rows: &[&Row]) -> (SqlStr, SqliteArguments) {
        (self.insert_only[size(rows)].clone(), inserted(rows))
    }

    /// Updates those rows of a chunk that are at the expected version.
    pub(super) fn update(&self, rows: &[&Row]) -> (SqlStr, SqliteArguments) {
        let history = |row: &Row| Arc::clone(&row.history);
        let arguments = updated(rows, |row| row.expected, history);
        (self.update[size(rows)].clone(), arguments)
    }

    /// Writes the chunks of those rows that are at the version that they then have.
    pub(super) fn spill(&self, rows: &[&Row]) -> (SqlStr, SqliteArguments) {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(rows.len() * SPILL_COLUMNS, 0);
        for row in rows {
            let summary = &row.summary;
            add(&mut arguments, summary.tenant.to_shared());
            add(&mut arguments, summary.id.0.as_bytes().to_vec());
            add(&mut arguments, codec::to_i64(found(row)));
            add(&mut arguments, codec::to_i64(summary.version));
            add(&mut arguments, Arc::clone(&row.history));
        }
        (self.spill[size(rows)].clone(), arguments)
    }

    /// Updates the same rows, which then hold a snapshot and no history.
    pub(super) fn cut(&self, rows: &[&Row]) -> (SqlStr, SqliteArguments) {
        let arguments = updated(rows, found, |row| row.snapshot.clone());
        (self.cut[size(rows)].clone(), arguments)
    }
}

/// The version of a row that spills before it does: a new one was inserted as it
/// is, but for its history.
fn found(row: &Row) -> u64 {
    if row.is_new() {
        row.summary.version
    } else {
        row.expected
    }
}

/// Splits rows into pieces that have a statement, largest first.
pub(super) fn chunks<'a, 'r>(mut rows: &'a [&'r Row]) -> impl Iterator<Item = &'a [&'r Row]> {
    std::iter::from_fn(move || {
        let length = 1 << rows.len().min(LARGEST).checked_ilog2()?;
        let (chunk, rest) = rows.split_at(length);
        rows = rest;
        Some(chunk)
    })
}

/// Index of the statement for a chunk.
fn size(rows: &[&Row]) -> usize {
    debug_assert!(rows.len().is_power_of_two() && rows.len() <= LARGEST);
    rows.len().ilog2() as usize
}

fn text(before: &str, head: &str, columns: usize, size: usize, tail: &str) -> SqlStr {
    let row = format!("({})", vec!["?"; columns].join(","));
    let rows = vec![row; 1 << size].join(",");
    let mut sql = String::with_capacity(before.len() + head.len() + rows.len() + tail.len());
    write!(sql, "{before}{head}{rows}{tail}").expect("writing to a string does not fail");
    // Safe: made of the constants above only.
    AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
}

fn inserted(rows: &[&Row]) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(rows.len() * INSERT_COLUMNS, 0);
    for row in rows {
        let summary = &row.summary;
        add(&mut arguments, summary.tenant.to_shared());
        add(&mut arguments, summary.id.0.as_bytes().to_vec());
        add(&mut arguments, i64::from(summary.bucket));
        add(&mut arguments, Arc::clone(&summary.application));
        add(&mut arguments, i64::from(summary.application_version));
        add(&mut arguments, Arc::clone(&summary.workflow));
        add(&mut arguments, codec::status_code(summary.status));
        add(&mut arguments, summary.error.clone());
        add(&mut arguments, codec::to_i64(summary.started_at.0));
        add(
            &mut arguments,
            summary.closed_at.map(|at| codec::to_i64(at.0)),
        );
        add(
            &mut arguments,
            summary.wake_at.map(|at| codec::to_i64(at.0)),
        );
        add(
            &mut arguments,
            codec::rest_code(summary.status, summary.idle),
        );
        add(&mut arguments, codec::to_i64(summary.version));
        let history = match row.snapshot {
            None => Arc::clone(&row.history),
            Some(_) => Arc::default(), // it spills
        };
        add(&mut arguments, history);
        add(&mut arguments, summary.shard_key.clone());
        let tags = row.tags.as_ref().map(|tags| Arc::clone(&tags.whole));
        add(&mut arguments, tags);
    }
    arguments
}

/// `text` is what the last column takes.
fn updated<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(
    rows: &[&Row],
    expected: impl Fn(&Row) -> u64,
    text: impl Fn(&Row) -> T,
) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(rows.len() * UPDATE_COLUMNS, 0);
    for row in rows {
        let summary = &row.summary;
        add(&mut arguments, summary.tenant.to_shared());
        add(&mut arguments, summary.id.0.as_bytes().to_vec());
        add(&mut arguments, codec::to_i64(expected(row)));
        add(&mut arguments, i64::from(summary.application_version));
        add(&mut arguments, codec::status_code(summary.status));
        add(&mut arguments, summary.error.clone());
        add(
            &mut arguments,
            summary.closed_at.map(|at| codec::to_i64(at.0)),
        );
        add(
            &mut arguments,
            summary.wake_at.map(|at| codec::to_i64(at.0)),
        );
        add(
            &mut arguments,
            codec::rest_code(summary.status, summary.idle),
        );
        add(&mut arguments, codec::to_i64(summary.version));
        add(&mut arguments, text(row));
    }
    arguments
}

pub(super) fn add<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(
    arguments: &mut SqliteArguments,
    value: T,
) {
    arguments
        .add(value)
        .expect("texts, blobs and integers always encode");
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions as _, Row as _};

    use super::super::migrations;
    use super::*;

    async fn plan(sqlite: &mut sqlx::SqliteConnection, statement: SqlStr) -> Vec<String> {
        let explain = format!("EXPLAIN QUERY PLAN {}", statement.as_str());
        let plan = sqlx::query(AssertSqlSafe(explain)).fetch_all(sqlite).await;
        let plan = plan.unwrap_or_else(|error| panic!("{error}: {}", statement.as_str()));
        plan.iter().map(|row| row.get(3)).collect()
    }

    async fn migrated() -> sqlx::SqliteConnection {
        let memory = SqliteConnectOptions::new().in_memory(true);
        let mut sqlite = memory.connect().await.expect("opens");
        migrations().run(&mut sqlite).await.expect("migrates");
        sqlite
    }

    /// The planner's choice depends on the number of rows: with 256 it once read
    /// the whole table, 300 µs a row where 10 are right.
    #[tokio::test]
    async fn updates_of_every_size_go_by_the_index() {
        let mut sqlite = migrated().await;
        let Statements {
            update, spill, cut, ..
        } = Statements::new();
        for statement in update.into_iter().chain(spill).chain(cut) {
            let plan = plan(&mut sqlite, statement).await;
            assert!(
                plan.iter()
                    .any(|step| step.starts_with("SEARCH old USING INDEX executions_by_id")),
                "{plan:?}"
            );
        }
    }

    #[tokio::test]
    async fn key_values_of_every_size_are_found_by_their_keys() {
        let mut sqlite = migrated().await;
        let KeyValues { find, delete, .. } = KeyValues::new();
        for statement in find.into_iter().chain(delete) {
            let plan = plan(&mut sqlite, statement).await;
            assert!(
                plan.iter().any(|step| {
                    step.starts_with("SEARCH kv USING ") && step.contains("(tenant=? AND key=?)")
                }),
                "{plan:?}"
            );
            assert!(
                !plan.iter().any(|step| step.starts_with("SCAN kv")),
                "{plan:?}"
            );
        }
    }
}
