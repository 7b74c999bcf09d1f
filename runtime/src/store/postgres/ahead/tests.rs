use futures::future::join_all;

use super::super::connect::Connector;
use super::super::schema::{MIGRATIONS, migrate};
use super::super::scratch::Scratch;
use super::super::*;
use super::AHEAD;
use crate::store::contract::tenant;

/// Before the indexes of [`AHEAD`].
const BEFORE: i64 = 9;

const START: &str = "INSERT INTO executions (tenant, id, version, started_at, bucket, status, \
    idle, application, application_version, workflow, history) \
    SELECT 'acme', md5(n::text)::uuid, 0, n, 0, 0, 0, 'app', 1, 'flow', '' \
    FROM generate_series(1, 100) AS n";

const VALID: &str = "SELECT bool_and(indisvalid), count(*) FROM pg_index \
    WHERE indexrelid::regclass::text = ANY ($1::text[])";

async fn run(connection: &mut sqlx::postgres::PgConnection, sql: &'static str) {
    let done = sqlx::raw_sql(sql).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// A schema as the version before has it, with executions.
async fn filled() -> (Scratch, sqlx::postgres::PgConnection) {
    let scratch = Scratch::new().await;
    let mut raw = scratch.raw().await;
    let before = MIGRATIONS.iter().filter(|(version, ..)| *version <= BEFORE);
    let before: Vec<_> = before.copied().collect();
    migrate(&mut raw, &before).await.expect("migrates");
    run(&mut raw, "SET cascade.tenant = 'acme'").await;
    run(&mut raw, START).await;
    (scratch, raw)
}

async fn all_are_valid(raw: &mut sqlx::postgres::PgConnection) {
    let names: Vec<_> = AHEAD.iter().map(|index| index.name).collect();
    let (valid, count): (bool, i64) = sqlx::query_as(VALID)
        .bind(&names)
        .fetch_one(raw)
        .await
        .expect("looks");
    assert!(valid);
    assert_eq!(count, i64::try_from(names.len()).expect("few"));
}

/// Those that wait their turn must not be waited for.
#[tokio::test]
async fn servers_that_start_together_on_what_the_version_before_wrote_make_indexes_once() {
    let (scratch, mut raw) = filled().await;
    let opened = join_all((0..4).map(|_| scratch.open())).await;
    let (acme, all) = (tenant("acme"), Filter::default());
    for store in &opened {
        let listed = store.list(&acme, &all, None, 10);
        let starts = listed.await.expect("lists").items;
        assert_eq!(starts[0].started_at.0, 100);
    }
    all_are_valid(&mut raw).await;
}

/// What was left by a crash is made again, and others write while it is.
#[tokio::test]
async fn a_large_table_is_written_while_its_indexes_are_made() {
    let (scratch, mut raw) = filled().await;
    let failed = "CREATE UNIQUE INDEX CONCURRENTLY executions_long_by_end ON executions (tenant)";
    let failed = sqlx::raw_sql(failed).execute(&mut raw).await;
    failed.expect_err("is not unique, and leaves an index that is of no use");

    // Indexes wait for whoever has written and not committed.
    run(&mut raw, "BEGIN; UPDATE executions SET version = 1").await;
    let settings = scratch.settings(None);
    let opening = tokio::spawn(async move { PostgresStore::open(&settings).await.map(drop) });
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' \
         AND query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'",
        scratch.schema
    );
    let mut master = scratch.master().await;
    let waiting = async {
        loop {
            let (count,): (i64,) = sqlx::query_as(sqlx::AssertSqlSafe(waits.as_str()))
                .fetch_one(&mut master)
                .await
                .expect("looks");
            if count > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let waiting = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waiting.expect("indexes are waited for");
    let mut other = scratch.raw().await;
    let write = "SET lock_timeout = '2s'; SET cascade.tenant = 'acme'; \
        INSERT INTO executions (tenant, id, version, started_at, bucket, status, idle, \
            application, application_version, workflow, history) \
        VALUES ('acme', md5('more')::uuid, 0, 101, 0, 0, 0, 'app', 1, 'flow', '')";
    run(&mut other, write).await;
    run(&mut raw, "COMMIT").await;
    opening.await.expect("no panic").expect("opens");
    all_are_valid(&mut raw).await;
}

/// They stand twice, here and in their migrations, and are the same.
#[tokio::test]
async fn indexes_made_ahead_are_those_of_new_databases() {
    const DEFINED: &str = "SELECT indexname::text, regexp_replace(indexdef, ' ON \\S+', '') \
        FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'executions' \
        ORDER BY 1";
    let (scratch, mut raw) = filled().await;
    scratch.open().await.close().await;
    let new = Scratch::new().await;
    new.open().await.close().await;
    let ahead: Vec<(String, String)> = sqlx::query_as(DEFINED)
        .fetch_all(&mut raw)
        .await
        .expect("reads");
    let connector = Connector::new(&new.settings(None)).expect("a URL");
    let mut other = connector.bare().await.expect("connects");
    let defined: Vec<(String, String)> = sqlx::query_as(DEFINED)
        .fetch_all(&mut other)
        .await
        .expect("reads");
    assert_eq!(ahead, defined);
    for index in &AHEAD {
        assert!(
            ahead.iter().any(|(name, _)| name == index.name),
            "{}",
            index.name
        );
    }
}
