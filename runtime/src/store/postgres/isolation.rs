//! That policies hold: for every table that there is, whoever the login is, and whatever
//! has happened on a connection before.

use std::collections::BTreeSet;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::connect::{Connector, Failure, Kind};
use super::scope::{self, Bound};
use super::scratch::Scratch;
use super::*;
use crate::store::contract::{commit, id, lease, row, tenant};

/// Tables that hold nothing of tenants.
const SHARED: [&str; 7] = [
    "cascade_migrations",
    "change_counter",
    "cluster_secret",
    "compatibility",
    "leases",
    "nodes",
    "shards",
];

/// What looks across tenants: all that there is.
const ACROSS: [(&str, &str); 6] = [
    ("api_keys", "authentication"),
    ("changes", "feed"),
    ("contents", "sweep"),
    ("executions", "recovery"),
    ("tenant_homes", "across"),
    ("tenants", "administration"),
];

/// A schema, and the store in it as somebody's.
pub(super) struct Case {
    pub(super) settings: PostgresSettings,
    pub(super) scratch: Scratch,
    pub(super) who: &'static str,
}

/// As the owner of the tables, whom forced policies bind; and as a superuser, who stands above
/// them, if the server lets us be one.
pub(super) async fn cases() -> Vec<Case> {
    let scratch = Scratch::new().await;
    let mut cases = vec![Case {
        settings: scratch.settings(None),
        scratch,
        who: "the owner",
    }];
    let scratch = Scratch::new().await;
    if let Some(settings) = scratch.as_superuser() {
        cases.push(Case {
            settings,
            scratch,
            who: "a superuser",
        });
    }
    cases
}

/// Runs a statement through the store's pool; says how many rows it touched.
pub(super) async fn run(
    store: &PostgresStore,
    scope: Scope<'_>,
    sql: &str,
) -> Result<u64, Failure> {
    let sql = sql.to_owned();
    let failure = Arc::new(std::sync::Mutex::new(None));
    let ask = |mut tx: connect::Tx| {
        let (sql, failure) = (sql.clone(), Arc::clone(&failure));
        async move {
            match sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await {
                Ok(done) => Ok((tx, done.rows_affected())),
                Err(error) => {
                    let failed = Failure::from(error);
                    let copy = Failure {
                        kind: failed.kind,
                        error: failed.error.clone(),
                    };
                    *failure.lock().expect("unbroken") = Some(copy);
                    Err(failed)
                }
            }
        }
    };
    let done = store.connections.write(scope, ask).await;
    done.map_err(|error| {
        let failure = failure.lock().expect("unbroken").take();
        failure.unwrap_or_else(|| error.into())
    })
}

/// One number through the store's pool.
pub(super) async fn number(store: &PostgresStore, scope: Scope<'_>, sql: &str) -> i64 {
    let sql = sql.to_owned();
    let ask = |mut tx: connect::Tx| {
        let sql = sql.clone();
        async move {
            let (count,): (i64,) = sqlx::query_as(AssertSqlSafe(sql))
                .fetch_one(&mut *tx)
                .await?;
            Ok(count)
        }
    };
    store.connections.read(scope, ask).await.expect("reads")
}

/// A row of it says where all others of its tenant are; `homes/tests.rs` looks at it.
const HOMES: &str = "tenant_homes";

/// The tables of a schema but [`HOMES`].
async fn tables(raw: &mut PgConnection) -> Vec<String> {
    let found: Vec<(String,)> = sqlx::query_as(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') \
         AND relnamespace = current_schema()::regnamespace ORDER BY 1",
    )
    .fetch_all(raw)
    .await
    .expect("reads the catalog");
    let tables = found.into_iter().map(|(name,)| name);
    tables
        .filter(|name| !SHARED.contains(&name.as_str()) && name != HOMES)
        .collect()
}

/// A statement that puts some row of a tenant into a table, as its columns ask.
pub(super) async fn insert(raw: &mut PgConnection, table: &str, of: &str) -> String {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT quote_ident(attname), format_type(atttypid, NULL) FROM pg_attribute \
         WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped \
         AND attnotnull AND NOT atthasdef AND attidentity = '' ORDER BY attnum",
    )
    .bind(table)
    .fetch_all(raw)
    .await
    .expect("reads the catalog");
    let value = |(name, kind): &(String, String)| match (name.as_str(), kind.as_str()) {
        ("tenant", _) => format!("'{of}'"),
        (_, "text") => format!("'{of} x'"),
        (_, "bytea") => format!("'{of} x'::bytea"),
        (_, "uuid") => format!("md5('{of}')::uuid"),
        (_, "bigint" | "integer" | "smallint") => "0".to_owned(),
        (_, "boolean") => "false".to_owned(),
        (_, "jsonb") => "'{}'".to_owned(),
        (_, kind) if kind.starts_with("timestamp") => "now()".to_owned(),
        (_, kind) if kind.ends_with("[]") => "'{}'".to_owned(),
        (name, kind) => panic!("teach this test a value for {table}.{name} {kind}"),
    };
    let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let values: Vec<_> = columns.iter().map(value).collect();
    format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        names.join(", "),
        values.join(", ")
    )
}

pub(super) fn assert_refused(done: Result<u64, Failure>, what: &str) {
    match done {
        Err(Failure { kind, error }) => {
            assert_eq!(kind, Kind::Fault, "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains("row-level security"), "{what}: {text}");
        }
        Ok(rows) => panic!("{what}: wrote {rows} rows"),
    }
}

/// The tables come from the catalog, so one that is added is looked at, too.
#[tokio::test]
async fn a_tenant_reads_and_writes_nothing_of_anothers_in_any_table() {
    for case in cases().await {
        let store = PostgresStore::open(&case.settings).await.expect("opens");
        let mut raw = case.scratch.raw().await;
        let (acme, rival) = (tenant("acme"), tenant("rival"));
        let tables = tables(&mut raw).await;
        assert!(tables.len() >= 14, "{tables:?}");
        for table in &tables {
            let what = |doing| format!("{} {doing} {table}", case.who);
            let theirs = insert(&mut raw, table, "rival").await;
            let ours = insert(&mut raw, table, "acme").await;
            for (of, sql) in [(&rival, &theirs), (&acme, &ours)] {
                let done = run(&store, Scope::Of(of), sql).await;
                assert_eq!(done.expect("inserts"), 1, "{}", what("fills"));
            }
            let count = format!("SELECT count(*) FROM {table}");
            let mine = Scope::Of(&acme);
            assert_eq!(number(&store, mine, &count).await, 1, "{}", what("reads"));
            let all = format!("UPDATE {table} SET tenant = tenant");
            let done = run(&store, mine, &all).await.expect("updates");
            assert_eq!(done, 1, "{}", what("updates all of"));
            let of_rival = format!("UPDATE {table} SET tenant = tenant WHERE tenant = 'rival'");
            let done = run(&store, mine, &of_rival).await.expect("updates");
            assert_eq!(done, 0, "{}", what("updates"));
            let give = format!("UPDATE {table} SET tenant = 'other'");
            assert_refused(run(&store, mine, &give).await, &what("gives away a row of"));
            let foist = insert(&mut raw, table, "other").await;
            assert_refused(run(&store, mine, &foist).await, &what("inserts into"));
            let delete = format!("DELETE FROM {table} WHERE tenant = 'rival'");
            let done = run(&store, mine, &delete).await.expect("deletes");
            assert_eq!(done, 0, "{}", what("deletes from"));
            let delete = format!("DELETE FROM {table}");
            let done = run(&store, mine, &delete).await.expect("deletes");
            assert_eq!(done, 1, "{}", what("deletes all of"));
            let left = number(&store, Scope::Of(&rival), &count).await;
            assert_eq!(left, 1, "{}", what("left"));
        }
        store.close().await;
    }
}

/// Through the connections of the store's own, those that read and the one that commits.
#[tokio::test]
async fn a_statement_that_forgot_its_tenant_finds_nothing_in_any_table() {
    for case in cases().await {
        let store = PostgresStore::open(&case.settings).await.expect("opens");
        let mut raw = case.scratch.raw().await;
        let acme = tenant("acme");
        let connector = Connector::new(&case.settings).expect("a URL");
        let mut bare = connector.bare().await.expect("connects");
        let bound = scope::bind(&mut bare).await.expect("binds");
        let mut writer = connector.bound(bound).writer().await.expect("connects");
        let both = BTreeSet::from([&acme]);
        for table in tables(&mut raw).await {
            let what = format!("{} in {table}", case.who);
            let row = insert(&mut raw, &table, "acme").await;
            let done = run(&store, Scope::Of(&acme), &row).await;
            assert_eq!(done.expect("inserts"), 1, "{what}");
            let count = format!("SELECT count(*) FROM {table}");
            assert_eq!(number(&store, Scope::Nobody, &count).await, 0, "{what}");
            assert_eq!(
                number(&store, Scope::Among(&both), &count).await,
                1,
                "{what}"
            );
            let (seen,): (i64,) = sqlx::query_as(AssertSqlSafe(count))
                .fetch_one(&mut writer)
                .await
                .expect("counts");
            assert_eq!(seen, 0, "{what}");
            for sql in [
                format!("UPDATE {table} SET tenant = tenant"),
                format!("DELETE FROM {table}"),
            ] {
                let done = run(&store, Scope::Nobody, &sql).await.expect("runs");
                assert_eq!(done, 0, "{what}: {sql}");
            }
            let more = insert(&mut raw, &table, "more").await;
            assert_refused(run(&store, Scope::Nobody, &more).await, &what);
        }
        store.close().await;
    }
}

/// What looks across tenants sees what it is for, and can change none of it.
#[tokio::test]
async fn what_looks_across_tenants_sees_no_more_than_it_needs() {
    for case in cases().await {
        let store = PostgresStore::open(&case.settings).await.expect("opens");
        let mut raw = case.scratch.raw().await;
        let tables = tables(&mut raw).await;
        for of in ["acme", "rival"] {
            for table in &tables {
                let row = insert(&mut raw, table, of).await;
                let done = run(&store, Scope::Of(&tenant(of)), &row).await;
                done.expect("inserts");
            }
        }
        let key = Scope::Key("acme x");
        for (scope, its, rows) in [
            (Scope::Recovery, "executions", 2),
            (Scope::Tenants, "tenants", 2),
            (Scope::Sweep, "contents", 2),
            (key, "api_keys", 1),
            (Scope::Key("' OR true --"), "", 0),
            (Scope::Key("\\' OR true --"), "", 0),
            (Scope::Key(""), "", 0),
        ] {
            for table in &tables {
                let what = format!("{}: {scope:?} in {table}", case.who);
                let count = format!("SELECT count(*) FROM {table}");
                let expected = if table == its { rows } else { 0 };
                assert_eq!(number(&store, scope, &count).await, expected, "{what}");
                for sql in [
                    format!("UPDATE {table} SET tenant = tenant"),
                    format!("DELETE FROM {table}"),
                ] {
                    let done = run(&store, scope, &sql).await.expect("runs");
                    assert_eq!(done, 0, "{what}: {sql}");
                }
            }
        }
        let closed = "UPDATE executions SET status = 1";
        let done = run(&store, Scope::Of(&tenant("rival")), closed).await;
        assert_eq!(done.expect("closes"), 1);
        let count = "SELECT count(*) FROM executions";
        assert_eq!(number(&store, Scope::Recovery, count).await, 1);
        store.close().await;
    }
}

/// So that nobody adds a table without a policy, or a policy that lets more be seen.
#[tokio::test]
async fn every_table_has_the_one_policy_and_nothing_beside_it() {
    let scratch = Scratch::new().await;
    scratch.open().await.close().await;
    let mut raw = scratch.raw().await;
    let tables = tables(&mut raw).await.into_iter();
    for table in tables.chain([HOMES.to_owned()]) {
        let (is_held,): (bool,) = sqlx::query_as(
            "SELECT relrowsecurity AND relforcerowsecurity AND EXISTS ( \
                SELECT 1 FROM pg_policy AS p WHERE p.polrelid = c.oid \
                AND p.polname = 'tenant_scope' AND p.polcmd = '*' AND p.polwithcheck IS NULL \
                AND p.polroles = '{0}' AND pg_get_expr(p.polqual, p.polrelid) = ( \
                    SELECT pg_get_expr(e.polqual, e.polrelid) FROM pg_policy AS e \
                    WHERE e.polrelid = 'executions'::regclass AND e.polname = 'tenant_scope')) \
             FROM pg_class AS c WHERE c.oid = $1::text::regclass",
        )
        .bind(&table)
        .fetch_one(&mut raw)
        .await
        .expect("reads the catalog");
        assert!(
            is_held,
            "{table} has no policy `tenant_scope` as the other tables have: see \
             migrations/postgres/README.md"
        );
    }
    let others: Vec<(String, String)> = sqlx::query_as(
        "SELECT tablename::text, policyname::text FROM pg_policies \
         WHERE schemaname = current_schema() AND policyname <> 'tenant_scope' ORDER BY 1, 2",
    )
    .fetch_all(&mut raw)
    .await
    .expect("reads the catalog");
    let known = ACROSS.map(|(table, policy)| (table.to_owned(), policy.to_owned()));
    assert_eq!(others, known);
}

/// One connection, so that whoever comes next has the one that was misused.
#[tokio::test]
async fn a_connection_leaks_no_tenant_to_its_next_user() {
    const SEEN: &str = "SELECT count(*) FROM executions";
    const NAMED: &str = "SELECT length(coalesce(current_setting('cascade.tenant', true), '') \
            || coalesce(current_setting('cascade.scope', true), '') \
            || coalesce(current_setting('cascade.key', true), '') \
            || replace(current_setting('search_path'), \
                current_setting('cascade.search_path'), ''))::bigint";
    for case in cases().await {
        let settings = PostgresSettings {
            connections: 2,
            ..case.settings.clone()
        };
        let store = PostgresStore::open(&settings).await.expect("opens");
        let held = lease(&store).await;
        let acme = tenant("acme");
        let batch = vec![commit(row("acme", 1, 1), 0)];
        store.commit(&held, batch).await.expect("commits");
        let none_named = async |what: &str| {
            let named = number(&store, Scope::Nobody, NAMED).await;
            let seen = number(&store, Scope::Nobody, SEEN).await;
            assert_eq!((named, seen), (0, 0), "{}, after {what}", case.who);
        };
        store.load(&acme, id(1)).await.expect("loads");
        none_named("an answer").await;
        store.tenants().await.expect("lists");
        none_named("administration").await;
        store.key_by_hash("x").await.expect("looks");
        none_named("a key").await;
        let wrong = run(&store, Scope::Of(&acme), "SELECT 1 / 0").await;
        assert!(wrong.is_err());
        none_named("an error").await;
        let wrong = run(&store, Scope::Of(&acme), "SELECT nonsense").await;
        assert!(wrong.is_err());
        none_named("another error").await;
        // Dropped earlier and later on its way.
        let mut cut = 0;
        for patience in 0..400 {
            let count = "SELECT count(*) FROM executions";
            let asked = number(&store, Scope::Of(&acme), count);
            tokio::select! {
                biased;
                count = asked => assert_eq!(count, 1),
                () = yields(patience) => cut += 1,
            }
            none_named("a question that nobody waits for").await;
        }
        assert!(cut > 2, "{cut} were dropped");
        store.close().await;
    }
}

/// Lets others go on for a while.
async fn yields(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_superuser_becomes_a_role_that_policies_bind() {
    let scratch = Scratch::new().await;
    let Some(settings) = scratch.as_superuser() else {
        return; // the server lets us be none, which the other tests live with, too
    };
    let store = PostgresStore::open(&settings).await.expect("opens");
    let bound = "SELECT count(*) FROM pg_roles \
        WHERE rolname = current_user AND NOT rolsuper AND NOT rolbypassrls AND NOT rolcanlogin";
    assert_eq!(number(&store, Scope::Nobody, bound).await, 1);
    let turn_off = "ALTER TABLE executions DISABLE ROW LEVEL SECURITY";
    let refused = run(&store, Scope::Nobody, turn_off).await;
    assert!(refused.is_err(), "the role owns nothing");
    // What is there already is granted to it, and what comes later, too.
    let again = PostgresStore::open(&settings).await.expect("opens again");
    again.close().await;
    store.close().await;
}

/// A login that bypasses policies, and may not make the role or become it.
#[tokio::test]
async fn a_login_that_cannot_be_bound_is_refused() {
    let scratch = Scratch::new().await;
    scratch.open().await.close().await;
    if scratch.as_superuser().is_none() {
        return; // nobody here can make such a login
    }
    let mut master = scratch.master().await;
    let role = format!("{}_above", scratch.schema);
    let make = format!(
        "CREATE ROLE {role} BYPASSRLS; GRANT cascade_test TO {role}; \
         GRANT USAGE, CREATE ON SCHEMA {} TO {role}",
        scratch.schema
    );
    let created = sqlx::raw_sql(AssertSqlSafe(make))
        .execute(&mut master)
        .await;
    created.expect("makes a role");
    let opened = PostgresStore::open(&scratch.as_role(&role)).await;
    let opened = opened.map(drop);
    let gone = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    let gone = sqlx::raw_sql(AssertSqlSafe(gone))
        .execute(&mut master)
        .await;
    gone.expect("removes the role");
    assert!(
        matches!(&opened, Err(Error::Unavailable(text)) if text.contains("row-level security")),
        "{opened:?}"
    );
}

/// The owner of tables needs no other role.
#[tokio::test]
async fn a_login_that_policies_bind_stays_as_it_is() {
    let scratch = Scratch::new().await;
    scratch.open().await.close().await;
    let mut raw = scratch.raw().await;
    let bound = scope::bind(&mut raw).await.expect("binds");
    assert_eq!(bound, Bound::default());
}
