//! Moves a tenant's rows between the store's schema and one of its own, while it is served.
//!
//! 1. What will not change any more is copied ahead and compared, a batch at a time, while all goes
//!    on: executions that are completed with their histories, modules, blocks of contents.
//! 2. With `tenant_homes` locked, so that nobody writes for a moment, the rest is copied and
//!    compared, the tenant's row there is changed, and what could be found where it was
//!    is removed. All in one transaction: after a crash the tenant lives where it lived, or
//!    where it is to live.
//! 3. What is left where it was is cleared away. If that does not come to its end, the next move
//!    to the same place takes it up.
//!
//! A copy that was broken off is thrown away by the next: nobody has looked at it.

use std::time::Duration;

use cascade_cdl::TenantId;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::Instant;

use super::super::super::home::{Home, Moved, MovedTable};
use super::super::super::{Error, codec};
use super::super::connect::{Connector, Failure, Kind, Pauses};
use super::super::scope::{self, Bound};
use super::schema::{self, Table};

/// Executions that are copied, or removed, at a time: some tens of milliseconds.
pub(super) const BATCH: i64 = 2_000;

/// Rounds of copying ahead: each copies what came during the one before, a fraction of it.
const ROUNDS: u32 = 4;

/// How long the lock may be waited for at a time: so long everybody waits behind it.
const LOCK_WAIT: &str = "200ms";

/// How long it is tried: longer than the longest statement of the store's may take.
const LOCK_PATIENCE: Duration = Duration::from_mins(1);

/// For a session that copies: its statements may take long, and go by indexes where rows
/// are many.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = warning; \
    SET jit = off; SET application_name = 'cascade move'; CREATE TEMPORARY TABLE unfinished (id uuid PRIMARY KEY)";

/// One move at a time, in all servers; who comes later asks again: if it waited within a
/// statement, the index of the other would wait for it. The lock ends with the session.
const ALONE: &str = "SELECT pg_try_advisory_lock(\
    hashtextextended('cascade moves in ' || current_schema(), 0))";

/// How often it is asked whether nobody else moves: soon enough for an administrator.
const ALONE_PAUSE: Duration = Duration::from_millis(100);

/// An index for the time of a move: executions of the tenant in the order of their numbers.
const BY_NUMBER: &str = "executions_moving";

/// The store's own schema, and what numbers executions.
const OWN: &str = "SELECT quote_ident(current_schema()), \
    pg_get_serial_sequence(quote_ident(current_schema()) || '.executions', 'seq')";

const HOME: &str = "SELECT schema FROM tenant_homes WHERE tenant = $1";

/// Tables whose rows come and go, but never change, with what tells the rows of a tenant apart.
const KEYED: [(&str, &[&str]); 2] = [
    ("modules", &["digest"]),
    ("content_blocks", &["content", "number"]),
];

/// Tables whose rows belong to executions, and do not change any more when these are completed.
const FOLLOWERS: [&str; 2] = ["history_chunks", "execution_tags"];

fn is_history(table: &str) -> bool {
    table == "executions" || FOLLOWERS.contains(&table)
}

/// Whether the most of a table is copied ahead.
fn is_large(table: &str) -> bool {
    is_history(table) || KEYED.iter().any(|(name, _)| *name == table)
}

/// Moves a tenant's rows; gives back where they are, and what was moved.
///
/// # Errors
///
/// [`Error::Refused`] if the schema is somebody else's, or what was copied is not the same; it
/// lives where it lived then.
pub(in super::super) async fn move_to(
    connector: &Connector,
    bound: &Bound,
    tenant: &TenantId,
    to: &Home,
) -> Result<Moved, Failure> {
    let mut connection = connector.bare().await?;
    let moving = async {
        let this = Mover::start(&mut connection, bound, tenant, to).await?;
        this.run(&mut connection).await
    };
    let moved = moving.await;
    // After a failure all locks go with the session.
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the session of a move was not closed cleanly");
    }
    moved
}

/// One end of a move.
struct End {
    home: Home,
    /// The schema, as SQL names it.
    schema: String,
}

struct Mover {
    tenant: TenantId,
    /// As SQL says it.
    literal: String,
    /// The store's own schema, as SQL names it.
    own: String,
    /// What numbers executions.
    numbers: String,
    from: End,
    to: End,
    bound: Bound,
    tables: Vec<CopiedTable>,
}

/// A table, and what was copied of it.
struct CopiedTable {
    name: String,
    columns: String,
    rows: u64,
    checksum: i128,
    /// How many of them were removed where they were.
    removed: u64,
}

impl Mover {
    async fn start(
        connection: &mut PgConnection,
        bound: &Bound,
        tenant: &TenantId,
        to: &Home,
    ) -> Result<Self, Failure> {
        let literal = scope::literal(tenant.as_str());
        // For the login too, if policies bind it.
        let session = format!("{SESSION}; SET cascade.tenant = {literal}");
        run(connection, &session).await?;
        loop {
            let (alone,): (bool,) = sqlx::query_as(ALONE).fetch_one(&mut *connection).await?;
            if alone {
                break;
            }
            tokio::time::sleep(ALONE_PAUSE).await;
        }
        let (own, numbers): (String, String) =
            sqlx::query_as(OWN).fetch_one(&mut *connection).await?;
        let found: Option<(String,)> = sqlx::query_as(HOME)
            .bind(tenant.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        let from = match found {
            None => Home::Shared,
            Some((name,)) => Home::Schema {
                schema: name.parse().map_err(codec::damaged)?,
            },
        };
        let end = |home: Home| End {
            schema: match &home {
                Home::Shared => own.clone(),
                Home::Schema { schema } => format!("\"{schema}\""),
            },
            home,
        };
        if matches!(to, Home::Schema { schema } if own.trim_matches('"') == schema.as_str()) {
            return Err(Error::Refused(format!("schema {own} is the store's own")).into());
        }
        let mut tables = Vec::new();
        for Table { name, .. } in schema::tables(connection).await? {
            let columns = columns(connection, &own, &name).await?;
            tables.push(CopiedTable {
                name,
                columns,
                rows: 0,
                checksum: 0,
                removed: 0,
            });
        }
        Ok(Self {
            tenant: tenant.clone(),
            from: end(from),
            to: end(to.clone()),
            literal,
            own,
            numbers,
            bound: bound.clone(),
            tables,
        })
    }

    async fn run(mut self, connection: &mut PgConnection) -> Result<Moved, Failure> {
        if self.from.home != self.to.home {
            self.prepare(connection).await?;
            self.make_index(connection).await?;
            let copied = self.copy_ahead(connection).await?;
            self.switch(connection, copied).await?;
            self.see_that_all_was_copied(connection).await?;
            self.clear(connection, &self.from).await?;
            self.drop_index(connection).await?;
        } else if self.to.home != Home::Shared {
            // What an earlier move may have left behind.
            self.drop_index(connection).await?;
            let shared = End {
                home: Home::Shared,
                schema: self.own.clone(),
            };
            self.clear(connection, &shared).await?;
        }
        let tables = self.tables.into_iter().filter(|table| table.rows > 0);
        Ok(Moved {
            from: self.from.home,
            to: self.to.home,
            tables: tables
                .map(|table| MovedTable {
                    table: table.name,
                    rows: table.rows,
                    checksum: table.checksum.to_string(),
                })
                .collect(),
        })
    }

    /// Makes the index that a move goes by, while others write.
    async fn make_index(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let sql = format!(
            "CREATE INDEX CONCURRENTLY {BY_NUMBER} ON {}.executions (seq) WHERE tenant = {}",
            self.from.schema, self.literal
        );
        // It waits for every transaction that had begun.
        run(connection, "SET lock_timeout = '60s'").await?;
        run(connection, &sql).await?;
        run(connection, "SET lock_timeout = '10s'").await
    }

    /// Drops it from the store's schema; another goes with its schema.
    async fn drop_index(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let own = &self.own;
        run(
            connection,
            &format!("DROP INDEX CONCURRENTLY IF EXISTS {own}.{BY_NUMBER}"),
        )
        .await
    }

    /// Makes the place where nothing of the tenant is yet.
    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        // One of a move that was broken off would be copied with its table.
        self.drop_index(connection).await?;
        match &self.to.home {
            Home::Shared => self.clear(connection, &self.to).await,
            Home::Schema { schema } => {
                let (tenant, bound) = (&self.tenant, &self.bound);
                schema::make(connection, &self.own, tenant, schema.as_str(), bound).await
            }
        }
    }

    /// Copies what will not change any more; says up to which number of an execution.
    async fn copy_ahead(&mut self, connection: &mut PgConnection) -> Result<i64, Failure> {
        let mut copied = 0;
        for _ in 0..ROUNDS {
            let end = self.barrier(connection).await?;
            let mut rows = 0;
            while let Some((last, count)) = self.batch_end(connection, copied, end).await? {
                self.copy_batch(connection, copied, last).await?;
                (copied, rows) = (last, rows + count);
            }
            copied = end;
            if rows <= BATCH {
                break;
            }
        }
        // In one snapshot: what comes and goes meanwhile is seen to at the end.
        run(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        for (table, key) in KEYED {
            self.copy_missing(connection, table, key).await?;
            self.compare(connection, table, "true").await?;
        }
        run(connection, "COMMIT; ANALYZE pg_temp.unfinished").await?;
        Ok(copied)
    }

    /// The last number that an execution may have which is written, or ever will be: who takes
    /// a number later takes a higher one.
    async fn barrier(&self, connection: &mut PgConnection) -> Result<i64, Failure> {
        self.lock(connection).await?;
        let sql = AssertSqlSafe(format!("SELECT last_value FROM {}", self.numbers));
        let (last,): (i64,) = sqlx::query_as(sql).fetch_one(&mut *connection).await?;
        run(connection, "COMMIT").await?;
        Ok(last)
    }

    /// Begins a transaction beside which nobody has one that reads or writes rows of tenants.
    async fn lock(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let mut pauses = Pauses::until(Instant::now() + LOCK_PATIENCE);
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '{LOCK_WAIT}'; \
             LOCK TABLE {}.tenant_homes IN ACCESS EXCLUSIVE MODE",
            self.own
        );
        loop {
            let Err(failure) = run(connection, &sql).await else {
                return Ok(());
            };
            if failure.kind != Kind::Busy || !pauses.pause().await {
                return Err(failure);
            }
            run(connection, "ROLLBACK").await?;
        }
    }

    /// Where the next batch ends, and how many executions it has.
    async fn batch_end(
        &self,
        connection: &mut PgConnection,
        after: i64,
        end: i64,
    ) -> Result<Option<(i64, i64)>, Failure> {
        let sql = format!(
            "SELECT max(seq), count(*) FROM (SELECT seq FROM {}.executions \
             WHERE tenant = {} AND seq > {after} AND seq <= {end} ORDER BY seq LIMIT {BATCH}) AS batch",
            self.from.schema, self.literal
        );
        let (last, count): (Option<i64>, i64) = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(connection)
            .await?;
        Ok(last.map(|last| (last, count)))
    }

    /// Copies those of a batch that are completed, and notes the others.
    async fn copy_batch(
        &mut self,
        connection: &mut PgConnection,
        after: i64,
        last: i64,
    ) -> Result<(), Failure> {
        let batch = format!("seq > {after} AND seq <= {last}");
        let note = format!(
            "INSERT INTO pg_temp.unfinished SELECT id FROM {}.executions \
             WHERE tenant = {} AND {batch} AND status <> 1",
            self.from.schema, self.literal
        );
        run(connection, &note).await?;
        // Those that are completed in between are noted, and copied later.
        let done = format!(
            "{batch} AND status = 1 AND NOT EXISTS \
             (SELECT 1 FROM pg_temp.unfinished WHERE unfinished.id = executions.id)"
        );
        self.copy(connection, "executions", &done).await?;
        let of_them = self.rows_of(&done);
        self.compare(connection, "executions", &done).await?;
        for table in FOLLOWERS {
            self.copy(connection, table, &of_them).await?;
            self.compare(connection, table, &of_them).await?;
        }
        Ok(())
    }

    /// The rest, and the change, while nobody writes.
    async fn switch(&mut self, connection: &mut PgConnection, ahead: i64) -> Result<(), Failure> {
        self.lock(connection).await?;
        let since = format!("seq > {ahead}");
        let unfinished = format!("seq <= {ahead} AND id IN (SELECT id FROM pg_temp.unfinished)");
        for rest in [since, unfinished] {
            self.copy(connection, "executions", &rest).await?;
            self.compare(connection, "executions", &rest).await?;
            let of_them = self.rows_of(&rest);
            for table in FOLLOWERS {
                self.copy(connection, table, &of_them).await?;
                self.compare(connection, table, &of_them).await?;
            }
        }
        for (table, key) in KEYED {
            self.copy_missing(connection, table, key).await?;
            self.remove_gone(connection, table, key).await?;
            let (there, copies) = self.count(connection, table).await?;
            if there != copies {
                return Err(self.differs(table, &format!("{there} and {copies}")));
            }
            self.table_mut(table).rows = there;
        }
        let small: Vec<_> = self.tables.iter().map(|table| table.name.clone()).collect();
        let small = small.iter().filter(|table| !is_large(table));
        for table in small.clone() {
            self.copy(connection, table, "true").await?;
            self.compare(connection, table, "true").await?;
        }
        run(connection, &self.change()).await?;
        if self.from.home == Home::Shared {
            // What looks across tenants would find it here, too.
            let of_them = self.rows_of("status <> 1");
            let of_them = FOLLOWERS.map(|table| (table, &*of_them));
            for (table, rows) in of_them.into_iter().chain([("executions", "status <> 1")]) {
                let removed = self.remove(connection, table, rows).await?;
                self.table_mut(table).removed = removed;
            }
            for table in small {
                let removed = self.remove(connection, table, "true").await?;
                self.table_mut(table).removed = removed;
            }
        }
        run(connection, "COMMIT").await
    }

    /// Finds out whether all that is where the tenant lived was copied: nobody writes there any
    /// more.
    async fn see_that_all_was_copied(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        for table in &self.tables {
            let (there, _) = self.count(connection, &table.name).await?;
            if there + table.removed != table.rows {
                let text = format!(
                    "tenant {} has moved, but {} of its rows in {} were copied, and {there} are \
                     left in {}, which was not cleared",
                    self.tenant, table.rows, table.name, self.from.home
                );
                return Err(Error::Refused(text).into());
            }
        }
        Ok(())
    }

    /// The statement that says where the tenant lives.
    fn change(&self) -> String {
        match &self.to.home {
            Home::Shared => format!(
                "DELETE FROM {}.tenant_homes WHERE tenant = {}",
                self.own, self.literal
            ),
            Home::Schema { schema } => format!(
                "INSERT INTO {}.tenant_homes (tenant, schema) VALUES ({}, {}) \
                 ON CONFLICT (tenant) DO UPDATE SET schema = excluded.schema",
                self.own,
                self.literal,
                scope::literal(schema.as_str())
            ),
        }
    }

    /// Removes what is left of a tenant where it does not live.
    async fn clear(&self, connection: &mut PgConnection, end: &End) -> Result<(), Failure> {
        if let Home::Schema { schema } = &end.home {
            return schema::remove(connection, &self.own, &self.tenant, schema.as_str()).await;
        }
        let (own, tenant) = (&self.own, &self.literal);
        // What belongs to executions is found by them only.
        let gone: Vec<_> = FOLLOWERS
            .iter()
            .map(|name| {
                format!(
                    "{name}_gone AS (DELETE FROM {own}.{name} AS one USING batch \
                     WHERE one.id = batch.id AND one.tenant = {tenant})"
                )
            })
            .collect();
        let executions = format!(
            "WITH batch AS MATERIALIZED (SELECT id FROM {own}.executions WHERE tenant = {tenant} \
                 LIMIT {BATCH}), {} \
             DELETE FROM {own}.executions AS one USING batch \
             WHERE one.id = batch.id AND one.tenant = {tenant}",
            gone.join(", ")
        );
        until_none(connection, executions).await?;
        let others = self.tables.iter().map(|table| &table.name);
        for name in others.filter(|name| !is_history(name)) {
            // By place of the row, so that any table can be cleared a batch at a time.
            let sql = format!(
                "DELETE FROM {own}.{name} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {own}.{name} \
                 WHERE tenant = {tenant} LIMIT {BATCH}))"
            );
            until_none(connection, sql).await?;
        }
        Ok(())
    }

    /// Copies rows of a table that are not there yet.
    async fn copy(
        &self,
        connection: &mut PgConnection,
        table: &str,
        rows: &str,
    ) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {to}.{table} ({columns}) OVERRIDING SYSTEM VALUE \
             SELECT {columns} FROM {from}.{table} WHERE tenant = {tenant} AND {rows} \
             ON CONFLICT DO NOTHING",
            to = self.to.schema,
            from = self.from.schema,
            columns = self.table(table).columns,
            tenant = self.literal,
            rows = rows.replace("{from}", &self.from.schema),
        );
        run(connection, &sql).await
    }

    /// Rows of the followers of some executions.
    fn rows_of(&self, executions: &str) -> String {
        format!(
            "id IN (SELECT id FROM {{from}}.executions WHERE tenant = {} AND {executions})",
            self.literal
        )
    }

    /// Copies rows whose key is not there yet, without reading the others.
    async fn copy_missing(
        &self,
        connection: &mut PgConnection,
        table: &str,
        key: &[&str],
    ) -> Result<(), Failure> {
        let missing = format!(
            "NOT EXISTS (SELECT 1 FROM {}.{table} AS copy WHERE copy.tenant = {} AND {})",
            self.to.schema,
            self.literal,
            same(key, table)
        );
        self.copy(connection, table, &missing).await
    }

    /// Counts and sums rows at both ends.
    async fn compare(
        &mut self,
        connection: &mut PgConnection,
        table: &str,
        rows: &str,
    ) -> Result<(), Failure> {
        let rows = rows.replace("{from}", &self.from.schema);
        let mut sums = Vec::with_capacity(2);
        for end in [&self.from, &self.to] {
            let sql = format!(
                "SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0)::text \
                 FROM {schema}.{table} WHERE tenant = {tenant} AND {rows}",
                columns = self.table(table).columns,
                schema = end.schema,
                tenant = self.literal,
            );
            let sum: (i64, String) = sqlx::query_as(AssertSqlSafe(sql))
                .fetch_one(&mut *connection)
                .await?;
            sums.push(sum);
        }
        if sums[0] != sums[1] {
            return Err(self.differs(table, &format!("{sums:?}")));
        }
        let (count, sum) = sums.swap_remove(0);
        let sum: i128 = sum.parse().map_err(codec::damaged)?;
        let copied = self.table_mut(table);
        copied.rows += codec::to_u64(count)?;
        copied.checksum += sum;
        Ok(())
    }

    /// Counts all rows of a table at both ends.
    async fn count(
        &self,
        connection: &mut PgConnection,
        table: &str,
    ) -> Result<(u64, u64), Failure> {
        let count = |schema: &str| {
            let rows = if FOLLOWERS.contains(&table) {
                self.rows_of("true").replace("{from}", schema)
            } else {
                "true".to_owned()
            };
            format!(
                "(SELECT count(*) FROM {schema}.{table} WHERE tenant = {} AND {rows})",
                self.literal
            )
        };
        let sql = format!(
            "SELECT {}, {}",
            count(&self.from.schema),
            count(&self.to.schema)
        );
        let (there, copies): (i64, i64) = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(connection)
            .await?;
        Ok((codec::to_u64(there)?, codec::to_u64(copies)?))
    }

    /// Removes copies of what is not there any more.
    async fn remove_gone(
        &self,
        connection: &mut PgConnection,
        table: &str,
        key: &[&str],
    ) -> Result<(), Failure> {
        let sql = format!(
            "DELETE FROM {to}.{table} AS copy WHERE tenant = {tenant} AND NOT EXISTS \
             (SELECT 1 FROM {from}.{table} AS one WHERE one.tenant = {tenant} AND {same})",
            to = self.to.schema,
            from = self.from.schema,
            tenant = self.literal,
            same = same(key, "one"),
        );
        run(connection, &sql).await
    }

    /// Removes rows from where they were; says how many.
    async fn remove(
        &self,
        connection: &mut PgConnection,
        table: &str,
        rows: &str,
    ) -> Result<u64, Failure> {
        let sql = format!(
            "DELETE FROM {from}.{table} WHERE tenant = {tenant} AND {rows}",
            from = self.from.schema,
            tenant = self.literal,
            rows = rows.replace("{from}", &self.from.schema),
        );
        let done = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }

    fn differs(&self, table: &str, sums: &str) -> Failure {
        let text = format!(
            "tenant {} was not moved: its rows in {table} differ from their copies: {sums}",
            self.tenant
        );
        Error::Refused(text).into()
    }

    fn table_mut(&mut self, name: &str) -> &mut CopiedTable {
        let found = self.tables.iter_mut().find(|table| table.name == name);
        found.expect("a table of the store's")
    }

    fn table(&self, name: &str) -> &CopiedTable {
        let found = self.tables.iter().find(|table| table.name == name);
        found.expect("a table of the store's")
    }
}

/// That a row and its copy are the same.
fn same(key: &[&str], table: &str) -> String {
    let same = key
        .iter()
        .map(|column| format!("copy.{column} = {table}.{column}"));
    same.collect::<Vec<_>>().join(" AND ")
}

/// The columns that a row is given, as SQL lists them.
async fn columns(connection: &mut PgConnection, own: &str, table: &str) -> Result<String, Failure> {
    let (columns,): (String,) = sqlx::query_as(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
         WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
    )
    .bind(format!("{own}.{table}"))
    .fetch_one(connection)
    .await?;
    Ok(columns)
}

/// Runs a statement until it touches no row.
async fn until_none(connection: &mut PgConnection, sql: String) -> Result<(), Failure> {
    loop {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.clone()));
        if sql.execute(&mut *connection).await?.rows_affected() == 0 {
            return Ok(());
        }
    }
}

/// Runs statements. Names in them are quoted, texts are literals.
async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), Failure> {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}
