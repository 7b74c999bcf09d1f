//! What is particular to a server: connections that break, others who write, its schema.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::future::join_all;
use futures::join;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::connect::Connector;
use super::schema::{MIGRATIONS, migrate};
use super::scratch::Scratch;
use super::*;
use crate::store::contract::search::{fill, long_scans_stop_and_go_on, planned};
use crate::store::contract::{ROOM, commit, id, lease, numbers, row, tenant, with_snapshot};
use crate::store::{PAGE_BYTES, StatusName};

/// What the proxy does to one message, counted from when it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server never gets what the client sends.
    Request,
    /// The client never gets what the server answers.
    Answer,
}

/// Stands between a store and the server, and cuts a connection when told to.
struct Proxy {
    address: SocketAddr,
    /// Messages to let pass before the cut; negative if there is none to come.
    requests: Arc<AtomicI64>,
    answers: Arc<AtomicI64>,
}

impl Proxy {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let [requests, answers] = [(); 2].map(|()| Arc::new(AtomicI64::new(-1)));
        let counters = (requests.clone(), answers.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server)
                    .await
                    .expect("the server listens");
                tokio::spawn(carry(client, server, counters.clone()));
            }
        });
        Self {
            address,
            requests,
            answers,
        }
    }

    /// Cuts the connection of the message that comes after `passing` others.
    fn cut(&self, what: Cut, passing: i64) {
        self.counter(what).store(passing, Ordering::SeqCst);
    }

    /// Forgets about the cut; says whether it was made.
    fn has_cut(&self, what: Cut) -> bool {
        self.counter(what).swap(-1, Ordering::SeqCst) < 0
    }

    /// How many messages have passed since the cut that was told to come after so many.
    fn passed(&self, what: Cut, of: i64) -> i64 {
        of - self.counter(what).load(Ordering::SeqCst)
    }

    fn counter(&self, what: Cut) -> &AtomicI64 {
        match what {
            Cut::Request => &self.requests,
            Cut::Answer => &self.answers,
        }
    }
}

/// Carries messages between two ends, until one of them goes or a cut is due.
async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    (requests, answers): (Arc<AtomicI64>, Arc<AtomicI64>),
) {
    let (mut request, mut answer) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let (read, cut) = tokio::select! {
            read = client.read(&mut request) => (read, (&requests, true)),
            read = server.read(&mut answer) => (read, (&answers, false)),
        };
        let (counter, is_request) = cut;
        let Ok(length @ 1..) = read else { return };
        if counter.load(Ordering::SeqCst) >= 0 && counter.fetch_sub(1, Ordering::SeqCst) == 0 {
            return; // both ends are dropped, and the message with them
        }
        let written = if is_request {
            server.write_all(&request[..length]).await
        } else {
            client.write_all(&answer[..length]).await
        };
        if written.is_err() {
            return;
        }
    }
}

/// Whichever message of a commit is lost, on its way there or back: it is written, once,
/// and its callers are told.
#[tokio::test]
async fn a_commit_whose_connection_is_cut_happens_once() {
    let scratch = Scratch::new().await;
    let proxy = Proxy::start(scratch.address()).await;
    let store = PostgresStore::open(&scratch.settings(Some(proxy.address))).await;
    let store = store.expect("opens");
    let lease = lease(&store).await;
    let acme = tenant("acme");
    let mut number = 0;
    let mut cuts = 0;
    // The first round prepares the statements, which takes more messages than the second.
    for round in 0..2 {
        for what in [Cut::Request, Cut::Answer] {
            for passing in 0..9 {
                number += 1;
                let [short, long, other] = [0, 1, 2].map(|part| number * 10 + part);
                proxy.cut(what, passing);
                // A start; then what grows, what moves out, and what has two layers.
                let start = vec![commit(row("acme", short, 2), 0)];
                store.commit(&lease, start).await.expect("starts");
                let first = vec![
                    commit(row("acme", long, 1), 0),
                    with_snapshot(commit(row("acme", long, 2), 1)),
                ];
                store.commit(&lease, first).await.expect("grows");
                let key = format!("k{number}");
                let batch = vec![commit(row("acme", other, 1), 0)];
                let value = Bytes::from_static(b"v");
                let (batch, swapped) = join!(
                    store.commit(&lease, batch),
                    store.kv_compare_and_set(&acme, &key, None, value, ROOM),
                );
                batch.expect("starts");
                assert!(swapped.expect("swaps"), "round {round}, {what:?} {passing}");
                cuts += usize::from(proxy.has_cut(what));

                for (execution, events) in [(short, 2), (long, 2), (other, 1)] {
                    let history = store
                        .history(&acme, id(execution), 0, 100, PAGE_BYTES)
                        .await;
                    let expected: Vec<_> = (1..=events).collect();
                    assert_eq!(numbers(&history.expect("reads")), expected);
                }
            }
        }
    }
    assert!(cuts >= 30, "only {cuts} cuts were made");
    let listed = store.list(&acme, &Filter::default(), None, 1_000).await;
    let listed = listed.expect("lists").items;
    assert_eq!(listed.len(), usize::try_from(number * 3).expect("few"));
}

/// That policies are told for whom a commit is costs no message.
#[tokio::test]
async fn a_commit_of_several_tenants_is_one_message() {
    const MANY: i64 = 1 << 20;
    let scratch = Scratch::new().await;
    let proxy = Proxy::start(scratch.address()).await;
    let store = PostgresStore::open(&scratch.settings(Some(proxy.address))).await;
    let store = store.expect("opens");
    let lease = lease(&store).await;
    for version in 1..=4 {
        proxy.cut(Cut::Request, MANY);
        let batch = ["acme", "rival", "third"];
        let batch = batch.map(|of| commit(row(of, 1, version), version - 1));
        store.commit(&lease, batch.into()).await.expect("commits");
        // The first prepares the statement.
        let passed = proxy.passed(Cut::Request, MANY);
        assert!(version == 1 || passed == 1, "{passed} at {version}");
    }
}

/// Alone in its group, a value has no execution to tell whether it was written.
#[tokio::test]
async fn a_value_whose_connection_is_cut_is_swapped_once() {
    let scratch = Scratch::new().await;
    let proxy = Proxy::start(scratch.address()).await;
    let store = PostgresStore::open(&scratch.settings(Some(proxy.address))).await;
    let store = store.expect("opens");
    let acme = tenant("acme");
    let mut holds = None;
    let mut cuts = 0;
    for what in [Cut::Request, Cut::Answer] {
        for passing in 0..12_u8 {
            proxy.cut(what, passing.into());
            let new = Bytes::from(vec![passing; 3]);
            let swap = store.kv_compare_and_set(&acme, "k", holds.clone(), new.clone(), ROOM);
            assert!(swap.await.expect("answers"), "{what:?} {passing}");
            holds = Some(new);
            cuts += usize::from(proxy.has_cut(what));
            assert_eq!(store.kv_get(&acme, "k").await.expect("reads"), holds);
        }
    }
    assert!(cuts >= 10, "only {cuts} cuts were made");
}

#[tokio::test]
async fn sessions_that_an_administrator_ends_lose_and_repeat_nothing() {
    const EXECUTIONS: u128 = 16;
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let mut master = scratch.master().await;
    let (acme, held) = (tenant("acme"), lease(&store).await);
    for version in 1..=30 {
        let commits = (0..EXECUTIONS).map(|number| {
            let batch = vec![commit(row("acme", number, version), version - 1)];
            store.commit(&held, batch)
        });
        let reads = (0..EXECUTIONS).map(|number| store.summary(&acme, id(number)));
        let keys = (0..4).map(|key| {
            let value =
                |length: u64| Bytes::from("x".repeat(usize::try_from(length).expect("few")));
            let expected = (version > 1).then(|| value(version - 1));
            let new = value(version);
            let (store, acme) = (&store, &acme);
            async move {
                let key = key.to_string();
                store
                    .kv_compare_and_set(acme, &key, expected, new, ROOM)
                    .await
            }
        });
        let (commits, reads, swaps, ()) = join!(
            join_all(commits),
            join_all(reads),
            join_all(keys),
            end_sessions(&mut master, &scratch.schema)
        );
        for done in commits {
            done.unwrap_or_else(|error| panic!("version {version}: {error}"));
        }
        for read in reads {
            let seen = read.expect("reads").map_or(0, |row| row.version);
            assert!(
                seen == version || seen == version - 1,
                "{seen} at {version}"
            );
        }
        for swapped in swaps {
            assert!(swapped.expect("swaps"), "version {version}");
        }
    }
    for number in 0..EXECUTIONS {
        let history = store.history(&acme, id(number), 0, 100, PAGE_BYTES).await;
        let all: Vec<_> = (1..=30).collect();
        assert_eq!(numbers(&history.expect("reads")), all);
    }
}

async fn end_sessions(master: &mut PgConnection, name: &str) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
    )
    .bind(name)
    .execute(master)
    .await
    .expect("ends sessions");
}

/// Two servers, one shard: what a commit has written, whoever takes the shard over
/// sees; and who has lost it writes nothing.
#[tokio::test]
async fn a_shard_changes_hands_before_a_commit_or_after_it() {
    let scratch = Scratch::new().await;
    let (one, two) = (scratch.open().await, scratch.open().await);
    let acme = tenant("acme");
    let (mut written, mut refused) = (0, 0);
    for number in 0..40 {
        let held = lease(&one).await;
        let batch = vec![commit(row("acme", number, 1), 0)];
        // Who is first differs, as it does in life.
        let (committed, seen) = if number % 2 == 0 {
            let take = async {
                lease(&two).await;
                two.summary(&acme, id(number)).await
            };
            join!(one.commit(&held, batch), take)
        } else {
            lease(&two).await;
            let committed = one.commit(&held, batch).await;
            (committed, two.summary(&acme, id(number)).await)
        };
        let seen = seen.expect("reads").is_some();
        match committed {
            Ok(()) => {
                assert!(seen, "execution {number} was not seen by the new holder");
                written += 1;
            }
            Err(CommitError::LeaseLost { held, .. }) => {
                let late = one.summary(&acme, id(number)).await.expect("reads");
                assert_eq!((seen, late), (false, None), "epoch {held:?}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused >= 20, "{written} written, {refused} refused");
}

#[tokio::test]
async fn servers_that_write_for_one_tenant_keep_its_quota() {
    let scratch = Scratch::new().await;
    let (one, two) = (scratch.open().await, scratch.open().await);
    let acme = tenant("acme");
    let quota = KvQuota { keys: 5, bytes: 99 };
    let writes = (0..20).map(|number| {
        let store = if number % 2 == 0 { &one } else { &two };
        let acme = &acme;
        async move {
            let key = format!("k{number}");
            store
                .kv_set(acme, &key, Bytes::from_static(b"1"), quota)
                .await
        }
    });
    let results = join_all(writes).await;
    let set = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(set, 5, "{results:?}");
    let puts = (0..8).map(|number| {
        let store = if number % 2 == 0 { &one } else { &two };
        let version = ActivityVersion {
            name: "a".to_owned(),
            version: String::new(),
            number: 0,
            digest: "d".to_owned(),
            description: String::new(),
            created_at: cascade_cdl::Timestamp(1),
        };
        store.put_activity(&acme, version)
    });
    let numbers: BTreeSet<_> = join_all(puts)
        .await
        .into_iter()
        .map(|version| version.expect("puts").number)
        .collect();
    assert_eq!(numbers, (1..=8).collect());
}

#[tokio::test]
async fn text_may_hold_what_postgresql_takes_for_its_end() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let (acme, lease) = (tenant("acme"), lease(&store).await);
    let mut failed = row("acme", 1, 1);
    failed.status = StatusName::Failed;
    failed.error = Some("E\0ü".to_owned());
    store
        .commit(&lease, vec![commit(failed.clone(), 0)])
        .await
        .expect("commits");
    let found = store.summary(&acme, id(1)).await.expect("reads");
    assert_eq!(found, Some(failed));
    let filter = Filter {
        workflow: Some("a\0b".to_owned()),
        ..Filter::default()
    };
    let listed = store.list(&acme, &filter, None, 10).await.expect("lists");
    assert!(listed.items.is_empty());
    let value = Bytes::from_static(b"\0");
    let set = store.kv_set(&acme, "a\0b", value.clone(), ROOM).await;
    set.expect("sets");
    let found = store.kv_get(&acme, "a\0b").await.expect("reads");
    assert_eq!(found, Some(value));
    let found = store.application(&acme, "a\0b", None).await.expect("reads");
    assert_eq!(found, None);
    assert!(!store.delete_key(&acme, "\0").await.expect("answers"));
}

#[tokio::test]
async fn a_filtered_list_goes_on_where_a_long_scan_stopped() {
    let scratch = Scratch::new().await;
    long_scans_stop_and_go_on(&scratch.open().await).await;
}

/// Runs as the role that owns the tables, which forced policies bind as well.
#[tokio::test]
async fn a_query_that_forgot_its_tenant_finds_nothing() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let lease = lease(&store).await;
    let batch = ["acme", "rival"].map(|of| commit(row(of, 1, 1), 0)).into();
    store.commit(&lease, batch).await.expect("commits");
    let mut raw = scratch.raw().await;
    for (scope, seen) in [
        ("RESET cascade.tenant", 0),
        ("SET cascade.tenant = ''", 0),
        ("SET cascade.tenant = 'nobody'", 0),
        ("SET cascade.tenant = 'acme'", 1),
        ("SET cascade.tenant = '*'", 0),
        ("SET cascade.tenant = 'acme,rival'", 2),
        ("SET cascade.tenant = 'ac'", 0),
        ("SET cascade.tenant = 'me,riv'", 0),
    ] {
        sqlx::raw_sql(scope).execute(&mut raw).await.expect("sets");
        let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM executions")
            .fetch_one(&mut raw)
            .await
            .expect("counts");
        assert_eq!(count, seen, "{scope}");
    }
    let theft = "SET cascade.tenant = 'acme'; UPDATE executions SET tenant = 'rival'";
    let refused = sqlx::raw_sql(theft).execute(&mut raw).await;
    let text = refused.expect_err("is refused").to_string();
    assert!(text.contains("row-level security"), "{text}");
}

/// The plan is made once, maybe while the table is empty, and used when it is not.
#[tokio::test]
async fn statements_on_executions_go_by_an_index() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let connector = Connector::new(&scratch.settings(None)).expect("a URL");
    let mut writer = connector.writer().await.expect("connects");
    let by_id = commit::PLANNED.iter().chain(&read::PLANNED);
    let by_id = by_id.map(|sql| ((*sql).to_owned(), "executions_pkey"));
    let open = read::OPEN.map(|(sql, order)| {
        let sql = homes::everywhere(sql, order, "executions", &[]);
        (sql, "executions_open")
    });
    for (sql, index) in by_id.chain(open) {
        let plan = generic_plan(&mut writer, &sql).await;
        let on_executions = |step: &&String| step.contains(" on executions");
        let scans = plan.iter().filter(on_executions);
        let scans: Vec<_> = scans.filter(|step| step.contains("Scan")).collect();
        assert!(!scans.is_empty(), "{sql}\n{plan:#?}");
        for scan in scans {
            assert!(
                scan.contains(&format!("using {index} on")),
                "{sql}\n{plan:#?}"
            );
        }
        assert!(
            !plan.iter().any(|step| step.contains("Seq Scan")),
            "{plan:#?}"
        );
    }
    for sql in tags::PLANNED {
        let plan = generic_plan(&mut writer, sql).await;
        let scans = |step: &String| step.contains("Seq Scan");
        assert!(!plan.iter().any(scans), "{sql}\n{plan:#?}");
    }
    store.close().await;
}

async fn generic_plan(connection: &mut PgConnection, sql: &str) -> Vec<String> {
    let parameters = (1..99)
        .take_while(|n| sql.contains(&format!("${n}")))
        .count();
    let prepare = AssertSqlSafe(format!("PREPARE planned AS {sql}"));
    let prepared = sqlx::raw_sql(prepare).execute(&mut *connection).await;
    prepared.unwrap_or_else(|error| panic!("{error}: {sql}"));
    let given = match vec!["NULL"; parameters].join(", ") {
        none if none.is_empty() => none,
        nulls => format!("({nulls})"),
    };
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE planned{given}"));
    let plan = sqlx::raw_sql(explain).fetch_all(&mut *connection).await;
    let plan = plan
        .expect("explains")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let forget = sqlx::raw_sql("DEALLOCATE planned")
        .execute(connection)
        .await;
    forget.expect("forgets");
    plan
}

/// Each in the order of its index, and only as far as the page goes; whether the plan is
/// made before there is anything, or later.
#[tokio::test]
async fn lists_go_by_their_indexes() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let connector = Connector::new(&scratch.settings(None)).expect("a URL");
    let mut connection = connector.writer().await.expect("connects");
    lists_are_planned(&mut connection).await;
    fill(&store).await;
    let analyse = "ANALYZE executions, execution_tags";
    let analysed = sqlx::raw_sql(analyse).execute(&mut connection).await;
    analysed.expect("analyses");
    lists_are_planned(&mut connection).await;
    store.close().await;
}

async fn lists_are_planned(connection: &mut PgConnection) {
    let acme = tenant("acme");
    for (filter, before, index) in planned() {
        let search = read::search(&acme, &filter, before);
        let page = search.page("e.history", Some(ListCursor { at: 9, seq: 9 }), 50);
        let floors = search.floors(50).into_iter().flatten();
        for statement in floors.chain([page, search.count()]) {
            let sql = statement.sql.as_str();
            let plan = generic_plan(connection, sql).await;
            // What is looked up for each row goes by its id.
            let allowed = [index, "executions_pkey", "execution_tags_pkey"];
            let by = |step: &String, index: &str| step.contains(&format!("using {index} on"));
            let used = plan.iter().any(|step| by(step, index));
            assert!(used, "{sql}\n{plan:#?}");
            let scans = |step: &&String| {
                let of = ["Index", "Bitmap", "Seq Scan"];
                step.contains("Scan") && of.iter().any(|kind| step.contains(kind))
            };
            for step in plan.iter().filter(scans) {
                let other = !allowed.iter().any(|index| by(step, index));
                assert!(!other, "{step}: {sql}\n{plan:#?}");
            }
            // Only to group what is counted.
            let sorts = plan.iter().filter(|step| step.contains("Sort Key"));
            for sort in sorts {
                assert!(!sort.contains("_at"), "{sql}\n{plan:#?}");
            }
        }
    }
}

#[tokio::test]
async fn servers_that_start_together_migrate_once() {
    let scratch = Scratch::new().await;
    let opened = join_all((0..6).map(|_| scratch.open())).await;
    for store in &opened {
        store.ping().await.expect("answers");
    }
    let mut raw = scratch.raw().await;
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM cascade_migrations")
        .fetch_one(&mut raw)
        .await
        .expect("counts");
    assert_eq!(count, i64::try_from(MIGRATIONS.len()).expect("few"));
}

/// A later release has been here: this one, its predecessor, goes on and may start
/// again, unless the later one says that it must not.
#[tokio::test]
async fn a_schema_of_a_later_release_is_used_as_long_as_it_may_be() {
    const LATER: (i64, &str, &str) = (
        9_998,
        "later",
        "ALTER TABLE executions ADD COLUMN later TEXT",
    );
    const BREAKING: (i64, &str, &str) =
        (9_999, "breaking", "UPDATE compatibility SET oldest = 9999");
    let scratch = Scratch::new().await;
    let running = scratch.open().await;
    let held = lease(&running).await;
    let start = |number| vec![commit(row("acme", number, 1), 0)];
    running.commit(&held, start(1)).await.expect("commits");

    let mut raw = scratch.raw().await;
    let mut list = MIGRATIONS.to_vec();
    list.push(LATER);
    migrate(&mut raw, &list).await.expect("migrates");
    running.commit(&held, start(2)).await.expect("goes on");
    let again = scratch.open().await;
    let found = again.load(&tenant("acme"), id(2)).await;
    assert!(found.expect("reads").is_some());

    list.push(BREAKING);
    migrate(&mut raw, &list).await.expect("migrates");
    let refused = PostgresStore::open(&scratch.settings(None)).await.map(drop);
    assert!(
        matches!(&refused, Err(Error::Unavailable(text)) if text.contains("later release")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_migration_that_somebody_has_changed_is_told() {
    let scratch = Scratch::new().await;
    scratch.open().await.close().await;
    let mut raw = scratch.raw().await;
    let changed = [(1, "initial", "SELECT 1")];
    let refused = migrate(&mut raw, &changed).await;
    assert!(
        matches!(&refused, Err(Error::Unavailable(text)) if text.contains("another schema")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn damage_is_an_error_of_what_it_touches() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    let (acme, held) = (tenant("acme"), lease(&store).await);
    let mut raw = scratch.raw().await;
    let all = sqlx::raw_sql("SET cascade.tenant = 'acme'")
        .execute(&mut raw)
        .await;
    all.expect("sets");
    let mut number = 0;
    for damage in [
        "UPDATE executions SET history = 'x' WHERE id = $1",
        "UPDATE executions SET history = '\\x31ff' WHERE id = $1",
        "UPDATE executions SET version = 9 WHERE id = $1",
        "UPDATE executions SET snapshot = '1' WHERE id = $1",
        "UPDATE executions SET status = 77 WHERE id = $1",
        "UPDATE executions SET bucket = -1 WHERE id = $1",
        "UPDATE executions SET error = '\\xff' WHERE id = $1",
    ] {
        number += 2;
        let batch = [number, number + 1].map(|number| commit(row("acme", number, 1), 0));
        store.commit(&held, batch.into()).await.expect("commits");
        let damaged = sqlx::query(damage)
            .bind(id(number).0)
            .execute(&mut raw)
            .await;
        damaged.expect("damages");
        let load = store.load(&acme, id(number)).await;
        assert!(matches!(load, Err(Error::Damaged(_))), "{damage}: {load:?}");
        let load = store.load(&acme, id(number + 1)).await;
        assert!(matches!(load, Ok(Some(_))), "{damage}: {load:?}");
    }
}
