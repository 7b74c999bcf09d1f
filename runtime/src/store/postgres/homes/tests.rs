//! Schemas of tenants, on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use cascade_cdl::TenantId;
use futures::future::join_all;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::super::connect::Connector;
use super::super::isolation::{assert_refused, cases, insert, number, run};
use super::super::schema::{MIGRATIONS, migrate};
use super::super::scope::Scope;
use super::super::scratch::Scratch;
use super::super::{Filter, ListCursor, PostgresStore, Store};
use super::moving::BATCH;
use super::*;
use crate::store::contract::{ROOM, commit, id, lease, row, tenant, with_snapshot};
use crate::store::{Error, StatusName};

/// A login that sees all, and the schemas with what is asked.
struct Look {
    raw: PgConnection,
    own: String,
}

impl Look {
    async fn new(scratch: &Scratch) -> Self {
        let raw = scratch.master().await;
        let own = scratch.schema.clone();
        Self { raw, own }
    }

    /// Rows of a tenant in a table of a schema.
    async fn rows(&mut self, schema: &str, table: &str, of: &str) -> i64 {
        self.count(schema, table, of, "true").await
    }

    /// Executions that have not ended.
    async fn open(&mut self, schema: &str, of: &str) -> i64 {
        self.count(schema, "executions", of, "status = 0").await
    }

    async fn count(&mut self, schema: &str, table: &str, of: &str, rows: &str) -> i64 {
        // Whoever looks may be bound by policies.
        let sql = format!(
            "SET cascade.tenant = '{of}'; \
             SELECT count(*) FROM {schema}.{table} WHERE tenant = '{of}' AND {rows}"
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut self.raw)
            .await;
        let rows = rows.unwrap_or_else(|error| panic!("{schema}.{table}: {error}"));
        sqlx::Row::get(&rows[0], 0)
    }

    /// The tables that move.
    async fn tables(&mut self) -> Vec<String> {
        let path = format!("SET search_path = {}", self.own);
        let set = sqlx::raw_sql(AssertSqlSafe(path))
            .execute(&mut self.raw)
            .await;
        set.expect("sets");
        let tables = schema::tables(&mut self.raw)
            .await
            .expect("reads the catalog");
        tables.into_iter().map(|table| table.name).collect()
    }

    async fn has_schema(&mut self, name: &str) -> bool {
        let found: Option<(i32,)> = sqlx::query_as("SELECT 1 FROM pg_namespace WHERE nspname = $1")
            .bind(name)
            .fetch_optional(&mut self.raw)
            .await
            .expect("reads the catalog");
        found.is_some()
    }
}

fn name(home: &Home) -> &str {
    match home {
        Home::Schema { schema } => schema.as_str(),
        Home::Shared => panic!("no schema"),
    }
}

/// The tables come from the catalog, so one that is added is looked at, too.
#[tokio::test]
async fn a_tenant_moves_with_its_rows_of_every_table_and_back() {
    for case in cases().await {
        let store = PostgresStore::open(&case.settings).await.expect("opens");
        let mut raw = case.scratch.raw().await;
        let mut look = Look::new(&case.scratch).await;
        let acme = tenant("acme");
        let tables = look.tables().await;
        assert!(tables.len() >= 14, "{tables:?}");
        for table in &tables {
            for of in ["acme", "rival"] {
                let sql = insert(&mut raw, table, of).await;
                let done = run(&store, Scope::Of(&tenant(of)), &sql).await;
                assert_eq!(done.expect("inserts"), 1, "{table}");
            }
        }
        // What is completed goes another way than what is open.
        let closed = "INSERT INTO executions (version, started_at, application_version, bucket, \
                status, idle, id, tenant, application, workflow, history) \
            SELECT 1, 1, 1, 1, 1 + n % 2, 0, md5(n::text)::uuid, 'acme', 'a', 'w', 'h' \
            FROM generate_series(1, $rows) AS n; \
            INSERT INTO history_chunks (last_seq, id, tenant, events) \
            SELECT 1, id, tenant, 'c' FROM executions WHERE tenant = 'acme'"
            .replace("$rows", &(2 * BATCH + 3).to_string());
        let fill = format!("SET cascade.tenant = 'acme'; {closed}");
        let filled = sqlx::raw_sql(AssertSqlSafe(fill))
            .execute(&mut look.raw)
            .await;
        filled.expect("fills");

        let home = case.scratch.home("acme");
        let own = look.own.clone();
        let mut before = Vec::new();
        for table in &tables {
            before.push(look.rows(&own, table, "acme").await);
        }
        for (from, to) in [
            (&Home::Shared, &home),
            (&home, &case.scratch.home("second")),
            (&case.scratch.home("second"), &Home::Shared),
        ] {
            let moved = store.move_home(&acme, to).await.expect("moves");
            assert_eq!((&moved.from, &moved.to), (from, to), "{}", case.who);
            assert_eq!(store.home(&acme).await.expect("reads"), *to);
            let of = |end: &Home| match end {
                Home::Shared => own.clone(),
                Home::Schema { schema } => schema.to_string(),
            };
            for (table, before) in tables.iter().zip(&before) {
                let what = format!("{} {table} {from} to {to}", case.who);
                assert_eq!(look.rows(&of(to), table, "acme").await, *before, "{what}");
                let told = moved.tables.iter().find(|told| told.table == *table);
                let told = told.unwrap_or_else(|| panic!("{what} is not told"));
                assert_eq!(i64::try_from(told.rows), Ok(*before), "{what}");
                assert_eq!(look.rows(&own, table, "rival").await, 1, "{what}");
                if *from == Home::Shared {
                    assert_eq!(look.rows(&own, table, "acme").await, 0, "{what}");
                }
            }
            if let Home::Schema { schema } = from {
                assert!(!look.has_schema(schema.as_str()).await, "{from} is left");
            }
        }
        store.close().await;
    }
}

#[tokio::test]
async fn nobody_else_sees_or_writes_what_is_in_a_schema() {
    for case in cases().await {
        let store = PostgresStore::open(&case.settings).await.expect("opens");
        let mut raw = case.scratch.raw().await;
        let (acme, rival) = (tenant("acme"), tenant("rival"));
        let home = case.scratch.home("acme");
        store.move_home(&acme, &home).await.expect("moves");
        let homes = "SELECT count(*) FROM tenant_homes";
        for (scope, seen) in [
            (Scope::Of(&acme), 1),
            (Scope::Of(&rival), 0),
            (Scope::Nobody, 0),
        ] {
            assert_eq!(number(&store, scope, homes).await, seen, "{scope:?}");
        }
        let elsewhere = "INSERT INTO tenant_homes (tenant, schema) VALUES ('third', 'public')";
        assert_refused(run(&store, Scope::Of(&rival), elsewhere).await, case.who);
        let tables = Look::new(&case.scratch).await.tables().await;
        for table in &tables {
            let what = format!("{} {table}", case.who);
            let ours = insert(&mut raw, table, "acme").await;
            let done = run(&store, Scope::Of(&acme), &ours).await;
            assert_eq!(done.expect("inserts"), 1, "{what}");
            let there = format!("\"{}\".{table}", name(&home));
            let count = format!("SELECT count(*) FROM {there}");
            for (scope, seen) in [
                (Scope::Of(&acme), 1),
                (Scope::Of(&rival), 0),
                (Scope::Nobody, 0),
            ] {
                let found = number(&store, scope, &count).await;
                assert_eq!(found, seen, "{what} as {scope:?}");
            }
            let theirs = insert(&mut raw, table, "rival").await;
            let foist = theirs.replace(&format!("INTO {table}"), &format!("INTO {there}"));
            let refused = run(&store, Scope::Of(&rival), &foist).await;
            assert!(refused.is_err(), "{what} takes what is not its tenant's");
            assert_refused(run(&store, Scope::Of(&rival), &ours).await, &what);
            let delete = format!("DELETE FROM {there}");
            let done = run(&store, Scope::Of(&rival), &delete).await;
            assert_eq!(done.expect("deletes nothing"), 0, "{what}");
        }
        store.close().await;
    }
}

/// Two servers write for a tenant, one of which does not know that it moves.
#[tokio::test]
async fn what_is_acknowledged_while_a_tenant_moves_is_there_afterwards() {
    const WRITERS: u64 = 8;
    let scratch = Scratch::new().await;
    let third = scratch.open().await;
    let stores = [scratch.open().await, scratch.open().await].map(Arc::new);
    let over = Arc::new(AtomicBool::new(false));
    let total = Arc::new(AtomicU64::new(0));
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&stores[usize::from(writer % 2 == 1)]);
        let (over, total) = (Arc::clone(&over), Arc::clone(&total));
        tokio::spawn(async move {
            let lease = store.acquire(crate::store::ShardId(
                100 + u32::try_from(writer).expect("few"),
            ));
            let lease = lease.await.expect("acquires");
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let this = u128::from(writer * 1_000_000 + number);
                let rival = u128::from(writer * 1_000_000 + 500_000 + number);
                // A tenant that moves and one that stays, in one batch.
                let start = vec![
                    commit(row("acme", this, 1), 0),
                    commit(row("rival", rival, 1), 0),
                ];
                store.commit(&lease, start).await.expect("starts");
                let mut ended = row("acme", this, 2);
                if number % 3 > 0 {
                    ended.status = StatusName::Completed;
                }
                let end = vec![with_snapshot(commit(ended, 1))];
                store.commit(&lease, end).await.expect("ends");
                let value = Bytes::from(number.to_string());
                let key = format!("k{writer}");
                store
                    .kv_set(&tenant("acme"), &key, value, ROOM)
                    .await
                    .expect("sets");
                total.fetch_add(1, Ordering::Relaxed);
            }
            number
        })
    });
    let writers: Vec<_> = writers.collect();
    let acme = tenant("acme");
    let homes = [
        scratch.home("one"),
        Home::Shared,
        scratch.home("two"),
        scratch.home("three"),
    ];
    for home in homes.iter().cycle().take(5) {
        // Each move meets some that were written in the place before.
        let goal = total.load(Ordering::Relaxed) + 40;
        while total.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
        let moved = third.move_home(&acme, home).await.expect("moves");
        assert_eq!(moved.to, *home);
    }
    over.store(true, Ordering::Relaxed);
    let numbers = join_all(writers).await;
    let mut expected = 0;
    for (writer, last) in (0..WRITERS).zip(numbers) {
        let last = last.expect("a writer never panics");
        expected += last;
        for number in 1..=last {
            let this = u128::from(writer * 1_000_000 + number);
            let found = stores[0].summary(&acme, id(this)).await.expect("reads");
            assert_eq!(found.expect("is there").version, 2, "{writer} {number}");
            let history = stores[1].history(&acme, id(this), 0, 9, 1 << 20).await;
            assert_eq!(history.expect("reads").len(), 2, "{writer} {number}");
            let rival = u128::from(writer * 1_000_000 + 500_000 + number);
            let found = stores[0]
                .summary(&tenant("rival"), id(rival))
                .await
                .expect("reads");
            assert_eq!(found.expect("is there").version, 1, "{writer} {number}");
        }
        let value = stores[0]
            .kv_get(&acme, &format!("k{writer}"))
            .await
            .expect("reads");
        assert_eq!(value, Some(Bytes::from(last.to_string())));
    }
    let mut look = Look::new(&scratch).await;
    let home = store_home(&third, &acme).await;
    let rows = look.rows(name(&home), "executions", "acme").await;
    assert_eq!(u64::try_from(rows), Ok(expected));
    assert_eq!(look.rows(&scratch.schema, "executions", "acme").await, 0);
    // Recovery finds what is open wherever it is, once.
    let open = found_open(&third).await;
    let mut still = 0;
    for (schema, of) in [(name(&home), "acme"), (&scratch.schema, "rival")] {
        still += look.open(schema, of).await;
    }
    assert_eq!(open, usize::try_from(still).expect("a count"));
    for store in &stores {
        store.close().await;
    }
    third.close().await;
}

/// How many executions recovery finds.
async fn found_open(store: &PostgresStore) -> usize {
    let (mut open, mut after) = (0, None);
    loop {
        let page = store
            .open_executions(0..cascade_cdl::BUCKETS, after, 7)
            .await;
        let page = page.expect("reads");
        open += page.items.len();
        after = page.next;
        if after.is_none() {
            return open;
        }
    }
}

async fn store_home(store: &PostgresStore, of: &TenantId) -> Home {
    store.home(of).await.expect("reads")
}

/// The server ends the session of a move, somewhere.
#[tokio::test]
async fn a_move_that_is_broken_off_is_none_and_can_be_made_again() {
    let scratch = Scratch::new().await;
    let store = Arc::new(scratch.open().await);
    let acme = tenant("acme");
    let held = lease(&*store).await;
    for number in 0..300 {
        let mut ended = row("acme", number, 2);
        ended.status = StatusName::Completed;
        let batch = vec![
            commit(row("acme", number, 1), 0),
            with_snapshot(commit(ended, 1)),
        ];
        store.commit(&held, batch).await.expect("commits");
    }
    let mut look = Look::new(&scratch).await;
    let home = scratch.home("acme");
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = 'cascade move' AND query LIKE '%{}%'",
        name(&home)
    );
    let (mut broken, mut done) = (0, 0);
    for _ in 0..400 {
        let to = if store_home(&store, &acme).await == Home::Shared {
            home.clone()
        } else {
            Home::Shared
        };
        let (its, of, goal) = (Arc::clone(&store), acme.clone(), to.clone());
        let moving = tokio::spawn(async move { its.move_home(&of, &goal).await });
        while !moving.is_finished() {
            let ended = sqlx::raw_sql(AssertSqlSafe(end.clone()))
                .execute(&mut look.raw)
                .await;
            ended.expect("ends sessions");
            if done % 3 == 2 {
                break; // one that comes to its end
            }
        }
        match moving.await.expect("no panic") {
            Ok(moved) => {
                assert_eq!(moved.to, to);
                done += 1;
            }
            Err(_) => broken += 1,
        }
        // Wherever it lives: all of it.
        assert_eq!(listed(&store, &acme, None).await.len(), 300);
        if broken >= 5 && done >= 2 {
            break;
        }
    }
    assert!(broken >= 5, "{broken} moves were broken off");
    store.move_home(&acme, &Home::Shared).await.expect("moves");
    assert!(!look.has_schema(name(&home)).await);
    assert_eq!(
        look.rows(&scratch.schema, "history_chunks", "acme").await,
        300
    );
    store.close().await;
}

/// The numbers of a tenant's executions, newest first, from a cursor on.
async fn listed(store: &PostgresStore, of: &TenantId, before: Option<ListCursor>) -> Vec<u128> {
    let mut numbers = Vec::new();
    let mut before = before;
    loop {
        let page = store.list(of, &Filter::default(), before, 100).await;
        let page = page.expect("lists");
        numbers.extend(page.items.iter().map(|summary| summary.id.0.as_u128()));
        before = page.next;
        if before.is_none() {
            return numbers;
        }
    }
}

#[tokio::test]
async fn a_list_goes_on_where_it_was_when_its_tenant_has_moved() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let acme = tenant("acme");
    let held = lease(&store).await;
    for number in 0..6 {
        for of in ["acme", "rival"] {
            let batch = vec![commit(row(of, number, 1), 0)];
            store.commit(&held, batch).await.expect("commits");
        }
    }
    let first = store
        .list(&acme, &Filter::default(), None, 2)
        .await
        .expect("lists");
    store
        .move_home(&acme, &scratch.home("acme"))
        .await
        .expect("moves");
    assert_eq!(listed(&store, &acme, first.next).await, [3, 2, 1, 0]);
    // What comes afterwards, in either place, comes before it in a list.
    store
        .commit(&held, vec![commit(row("rival", 6, 1), 0)])
        .await
        .expect("commits");
    store
        .commit(&held, vec![commit(row("acme", 6, 1), 0)])
        .await
        .expect("commits");
    store
        .move_home(&acme, &Home::Shared)
        .await
        .expect("moves back");
    store
        .commit(&held, vec![commit(row("acme", 7, 1), 0)])
        .await
        .expect("commits");
    assert_eq!(listed(&store, &acme, None).await, [7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(listed(&store, &acme, first.next).await, [3, 2, 1, 0]);
    store.close().await;
}

#[tokio::test]
async fn a_schema_that_is_not_the_tenants_is_not_touched() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    let home = scratch.home("acme");
    store.move_home(&acme, &home).await.expect("moves");
    // Again, which changes nothing; another tenant's; the store's own; somebody else's.
    let again = store.move_home(&acme, &home).await.expect("is there");
    assert_eq!((again.from, again.tables), (home.clone(), Vec::new()));
    let own = Home::Schema {
        schema: scratch.schema.parse().expect("a name"),
    };
    let foreign = scratch.home("foreign");
    let mut look = Look::new(&scratch).await;
    let make = AssertSqlSafe(format!("CREATE SCHEMA {}", name(&foreign)));
    sqlx::raw_sql(make)
        .execute(&mut look.raw)
        .await
        .expect("makes");
    for (to, why) in [
        (&home, "not this tenant's"),
        (&own, "the store's own"),
        (&foreign, "not this tenant's"),
    ] {
        let refused = store.move_home(&rival, to).await.expect_err("is refused");
        assert!(
            matches!(&refused, Error::Refused(text) if text.contains(why)),
            "{refused}"
        );
        assert_eq!(store_home(&store, &rival).await, Home::Shared);
    }
    assert!(look.has_schema(name(&foreign)).await);
    store.close().await;
}

/// It reaches the schemas that are there when it is made, and those that are made later.
#[tokio::test]
async fn a_migration_of_tenants_tables_reaches_their_schemas() {
    const LATER: (i64, &str, &str) = (
        9_998,
        "later",
        "-- tenants\nALTER TABLE kv ADD COLUMN later BIGINT NOT NULL DEFAULT 7",
    );
    for case in cases().await {
        let store = PostgresStore::open(&case.settings).await.expect("opens");
        let home = case.scratch.home("acme");
        store
            .move_home(&tenant("acme"), &home)
            .await
            .expect("moves");
        store.close().await;
        let connector = Connector::new(&case.settings).expect("a URL");
        let mut login = connector.bare().await.expect("connects");
        let mut list = MIGRATIONS.to_vec();
        list.push(LATER);
        for _ in 0..2 {
            migrate(&mut login, &list).await.expect("migrates");
        }
        let store = PostgresStore::open(&case.settings).await.expect("opens");
        let later = case.scratch.home("rival");
        store
            .move_home(&tenant("rival"), &later)
            .await
            .expect("moves");
        migrate(&mut login, &list).await.expect("has nothing to do");
        for of in ["acme", "rival"] {
            let of = tenant(of);
            let set = store.kv_set(&of, "k", Bytes::from_static(b"v"), ROOM).await;
            set.expect("sets");
            let found = number(&store, Scope::Of(&of), "SELECT later FROM kv").await;
            assert_eq!(found, 7, "{} {of}", case.who);
        }
        store.close().await;
    }
}

/// Who takes a tenant's schema away by hand takes this tenant's rows, and nobody else's; none are
/// written elsewhere.
#[tokio::test]
async fn a_tenant_whose_schema_is_gone_writes_nowhere_else() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    let home = scratch.home("acme");
    store.move_home(&acme, &home).await.expect("moves");
    let mut look = Look::new(&scratch).await;
    let gone = AssertSqlSafe(format!("DROP SCHEMA {} CASCADE", name(&home)));
    sqlx::raw_sql(gone)
        .execute(&mut look.raw)
        .await
        .expect("drops");
    let held = lease(&store).await;
    let refused = store
        .commit(&held, vec![commit(row("acme", 1, 1), 0)])
        .await;
    assert!(refused.is_err());
    assert!(store.load(&acme, id(1)).await.is_err());
    assert!(
        store
            .kv_set(&acme, "k", Bytes::from_static(b"v"), ROOM)
            .await
            .is_err()
    );
    store
        .commit(&held, vec![commit(row("rival", 1, 1), 0)])
        .await
        .expect("commits");
    assert_eq!(listed(&store, &rival, None).await, [1]);
    for table in ["executions", "kv"] {
        assert_eq!(
            look.rows(&scratch.schema, table, "acme").await,
            0,
            "{table}"
        );
    }
    store.close().await;
}
