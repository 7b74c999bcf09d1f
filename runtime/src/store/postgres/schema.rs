//! The schema: made and brought up to date when a store opens.
//!
//! One server at a time migrates; others wait for it. The release before may
//! go on running meanwhile, and start again afterwards: `migrations/postgres/README.md`
//! says what that asks of a migration.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, SqlStr};

use super::super::Error;
use super::ahead;
use super::connect::{Connector, Failure};
use super::scope::{self, Bound};

/// The schema, in order. Only ever appended to.
pub(super) const MIGRATIONS: [(i64, &str, &str); 11] = [
    (
        1,
        "initial",
        include_str!("../../../migrations/postgres/0001_initial.sql"),
    ),
    (
        2,
        "schedules",
        include_str!("../../../migrations/postgres/0002_schedules.sql"),
    ),
    (
        3,
        "shard_keys",
        include_str!("../../../migrations/postgres/0003_shard_keys.sql"),
    ),
    (
        4,
        "human_tasks",
        include_str!("../../../migrations/postgres/0004_human_tasks.sql"),
    ),
    (
        5,
        "objects",
        include_str!("../../../migrations/postgres/0005_objects.sql"),
    ),
    (
        6,
        "changes",
        include_str!("../../../migrations/postgres/0006_changes.sql"),
    ),
    (
        7,
        "contents",
        include_str!("../../../migrations/postgres/0007_contents.sql"),
    ),
    (
        8,
        "cluster",
        include_str!("../../../migrations/postgres/0008_cluster.sql"),
    ),
    (
        9,
        "tenant_scopes",
        include_str!("../../../migrations/postgres/0009_tenant_scopes.sql"),
    ),
    (
        10,
        "search",
        include_str!("../../../migrations/postgres/0010_search.sql"),
    ),
    (
        11,
        "tenant_homes",
        include_str!("../../../migrations/postgres/0011_tenant_homes.sql"),
    ),
];

/// Oldest server that is supported: the oldest that its makers support.
const OLDEST_SERVER: u32 = 140_000;

/// Of this name, since the database may hold tables of somebody else's migrations.
pub(super) const TABLE: &str = "cascade_migrations";

/// For a migration, in place of what other sessions set: one that waits for a table
/// longer than this would hold up everybody who waits behind it. How long it
/// takes once it has the table is its author's business.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = 0; SET client_min_messages = warning";

/// Only one migrates this schema. Others ask again: if they waited within a statement,
/// indexes that are made ahead would wait for them.
const LOCK: &str = "SELECT pg_try_advisory_lock(\
    hashtextextended('cascade migrations of ' || current_schema(), 0))";
/// The same, until the transaction ends: for what makes tables as the schema has them.
pub(super) const LOCK_FOR_NOW: &str = "SELECT pg_try_advisory_xact_lock(\
    hashtextextended('cascade migrations of ' || current_schema(), 0))";
const UNLOCK: &str = "SELECT pg_advisory_unlock(\
    hashtextextended('cascade migrations of ' || current_schema(), 0))";

/// The schemas of tenants, and where the store's tables are.
const HOMES: &str = "SELECT quote_ident(schema), current_setting('search_path') FROM tenant_homes";
/// How often it is asked whether nobody else migrates: unnoticed at the start of a server.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What the server is, as far as it matters.
const SERVER: &str = "SELECT current_setting('server_encoding'), current_schema() IS NOT NULL, \
    current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'";

/// Checks the server and brings the schema up to date; says what binds sessions to policies.
pub(super) async fn prepare(connector: &Connector) -> Result<Bound, Error> {
    let mut connection = connector.patient().await?;
    check(&mut connection).await?;
    let migrated = migrate(&mut connection, &MIGRATIONS).await;
    // After a failure the lock goes with the session.
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the session for migrations was not closed cleanly");
    }
    migrated
}

async fn check(connection: &mut PgConnection) -> Result<(), Error> {
    let version = connection.server_version_num().unwrap_or(0);
    if version < OLDEST_SERVER {
        return Err(Error::Unavailable(format!(
            "PostgreSQL {} is too old; use {} or later",
            version / 10_000,
            OLDEST_SERVER / 10_000
        )));
    }
    let found: (String, bool, bool) = sqlx::query_as(SERVER)
        .fetch_one(connection)
        .await
        .map_err(Failure::from)?;
    let (encoding, has_schema, is_durable) = found;
    if encoding != "UTF8" {
        return Err(Error::Unavailable(format!(
            "the database has the encoding {encoding}; make one with ENCODING 'UTF8'"
        )));
    }
    if !has_schema {
        let text = "the search path leads to no schema; make it first, by CREATE SCHEMA";
        return Err(Error::Unavailable(text.to_owned()));
    }
    if !is_durable {
        tracing::warn!("the server runs without fsync: a crash of its machine loses data");
    }
    Ok(())
}

/// Makes those of the migrations that are not there yet, and sees to it that policies hold.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    list: &[(i64, &'static str, &'static str)],
) -> Result<Bound, Error> {
    lock(connection).await?;
    let newest = list.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    ahead::make(connection, newest).await?;
    let set = sqlx::raw_sql(SESSION).execute(&mut *connection).await;
    set.map_err(Failure::from)?;
    let migrated = migrator(list).run_direct(None, connection, false).await;
    migrated.map_err(unusable)?;
    let (oldest,): (i64,) = sqlx::query_as("SELECT max(oldest) FROM compatibility")
        .fetch_one(&mut *connection)
        .await
        .map_err(Failure::from)?;
    let bound = scope::bind(connection).await?;
    migrate_homes(connection, list, &bound).await?;
    let unlocked = sqlx::raw_sql(UNLOCK).execute(connection).await;
    unlocked.map_err(Failure::from)?;
    if oldest > newest {
        return Err(Error::Unavailable(format!(
            "the database is of a later release, which needs migration {oldest}; this one knows \
             up to {newest}: run the later release"
        )));
    }
    Ok(bound)
}

/// Makes those that change tables of tenants in the schemas of tenants, too.
async fn migrate_homes(
    connection: &mut PgConnection,
    list: &[(i64, &'static str, &'static str)],
    bound: &Bound,
) -> Result<(), Error> {
    let list: Vec<_> = list.iter().copied().filter(is_of_tenants).collect();
    if list.is_empty() {
        return Ok(());
    }
    run(connection, "SET cascade.scope = 'tenants'").await?;
    let schemas: Vec<(String, String)> = sqlx::query_as(HOMES)
        .fetch_all(&mut *connection)
        .await
        .map_err(Failure::from)?;
    for (schema, path) in &schemas {
        run(connection, &format!("SET search_path = {schema}, {path}")).await?;
        let migrated = migrator(&list).run_direct(None, connection, false).await;
        migrated.map_err(unusable)?;
        let back = format!("SET search_path = {path}; {}", bound.grants(schema));
        run(connection, &back).await?;
    }
    run(connection, "SET cascade.scope = ''").await
}

/// Runs statements. Names in them are quoted.
async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), Error> {
    let sql = AssertSqlSafe(sql.to_owned());
    let done = sqlx::raw_sql(sql).execute(connection).await;
    done.map_err(Failure::from)?;
    Ok(())
}

/// Whether a migration says of itself that it changes tables of tenants.
fn is_of_tenants((_, _, sql): &(i64, &'static str, &'static str)) -> bool {
    sql.lines().take(2).any(|line| line == "-- tenants")
}

/// Waits for whoever else migrates, which may take long.
async fn lock(connection: &mut PgConnection) -> Result<(), Failure> {
    loop {
        let (is_ours,): (bool,) = sqlx::query_as(LOCK).fetch_one(&mut *connection).await?;
        if is_ours {
            return Ok(());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

fn migrator(list: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        let no_transaction = sql.starts_with("-- no-transaction");
        let sql = SqlStr::from_static(sql);
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql,
            no_transaction,
        )
    };
    let mut migrator = Migrator::with_migrations(list.iter().map(migration).collect());
    migrator.dangerous_set_table_name(TABLE);
    // The lock is our own: it is for the schema, not for the whole database.
    migrator.set_locking(false);
    // A later release may have been here: `compatibility` says whether it matters.
    migrator.set_ignore_missing(true);
    migrator
}

/// Why the schema could not be brought up to date.
fn unusable(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) => Failure::from(error).into(),
        MigrateError::ExecuteMigration(error, version) => Error::Unavailable(format!(
            "migration {version} failed and was undone: {error}; what it needs may be locked, or \
             not granted to the role"
        )),
        other => Error::Unavailable(format!("the database has another schema: {other}")),
    }
}
