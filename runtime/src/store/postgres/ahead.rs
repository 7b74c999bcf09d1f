//! Indexes that are made ahead of their migrations, while others go on writing.
//!
//! `CREATE INDEX` keeps writers from the table until it is done, which takes half a second a
//! million rows, and more where they are not in memory. `CREATE INDEX CONCURRENTLY` does not, but is no part of a transaction,
//! and leaves an index that is of no use if it fails. So the migration says `CREATE INDEX IF
//! NOT EXISTS`, for new databases, and the same index stands in here: where there are rows
//! already, it is made before the migration begins. After a crash the next start makes again
//! what is of no use.

use std::collections::HashMap;

use sqlx::SqlStr;
use sqlx::postgres::PgConnection;

use super::connect::Failure;

/// One index.
struct Ahead {
    /// The migration that it belongs to.
    migration: i64,
    table: &'static str,
    name: &'static str,
    drop: &'static str,
    create: &'static str,
}

macro_rules! ahead {
    ($migration:literal, $table:literal, $name:literal, $of:literal) => {
        Ahead {
            migration: $migration,
            table: $table,
            name: $name,
            drop: concat!("DROP INDEX CONCURRENTLY IF EXISTS ", $name),
            create: concat!(
                "CREATE INDEX CONCURRENTLY ",
                $name,
                " ON ",
                $table,
                " ",
                $of
            ),
        }
    };
}

const AHEAD: [Ahead; 5] = [
    ahead!(
        10,
        "executions",
        "executions_by_start",
        "(tenant, started_at, seq)"
    ),
    ahead!(
        10,
        "executions",
        "executions_by_status_start",
        "(tenant, status, started_at, seq) WHERE status <> 1"
    ),
    ahead!(
        10,
        "executions",
        "executions_by_key",
        "(tenant, shard_key, started_at, seq) WHERE shard_key IS NOT NULL"
    ),
    ahead!(
        10,
        "executions",
        "executions_by_workflow",
        "(tenant, workflow, started_at, seq)"
    ),
    ahead!(
        10,
        "executions",
        "executions_long_by_end",
        "(tenant, closed_at, seq) WHERE closed_at - started_at >= 60000"
    ),
];

/// What there is: tables, whether they have pages, and indexes, whether they are of use.
const FOUND: &str = "SELECT c.relname::text, coalesce(i.indisvalid, pg_relation_size(c.oid) > 0) \
    FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid \
    WHERE c.relnamespace = current_schema()::regnamespace";

const NEWEST: &str = "SELECT coalesce(max(version), 0) FROM cascade_migrations";

/// They wait for transactions that go on, and keep nobody from anything meanwhile.
const PATIENTLY: &str = "SET statement_timeout = 0; SET lock_timeout = 0";

/// Makes what migrations up to `newest` are going to ask for, where that would take long. To be
/// called where nobody else migrates the schema.
pub(super) async fn make(connection: &mut PgConnection, newest: i64) -> Result<(), Failure> {
    let found: Vec<(String, bool)> = sqlx::query_as(FOUND).fetch_all(&mut *connection).await?;
    let found: HashMap<_, _> = found.into_iter().collect();
    if !found.contains_key("cascade_migrations") {
        return Ok(()); // it is new
    }
    let (made,): (i64,) = sqlx::query_as(NEWEST).fetch_one(&mut *connection).await?;
    let due = AHEAD.iter().filter(|index| {
        (made + 1..=newest).contains(&index.migration) && found.get(index.table) == Some(&true)
    });
    for index in due {
        let (name, table) = (index.name, index.table);
        let there = found.get(name);
        if there == Some(&true) {
            continue;
        }
        run(connection, PATIENTLY).await?;
        if there.is_some() {
            tracing::warn!(index = name, table, "an index was left unfinished");
            run(connection, index.drop).await?;
        }
        tracing::info!(
            index = name,
            table,
            "making an index, while others go on; on a large table this takes minutes"
        );
        run(connection, index.create).await?;
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, sql: &'static str) -> Result<(), Failure> {
    let sql = SqlStr::from_static(sql);
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
