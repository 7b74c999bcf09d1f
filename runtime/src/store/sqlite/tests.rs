//! What is particular to the file: its groups, its lock, its damage, its growth,
//! its age, its death.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::task::Poll;

use cascade_cdl::{TaskId, Timestamp};
use futures::future::join_all;
use futures::{join, poll};
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use tokio::task::{unconstrained, yield_now};

use super::*;
use crate::store::contract::search::{fill, long_scans_stop_and_go_on, planned};
use crate::store::contract::{ROOM, commit, id, lease, row, tenant};
use crate::store::{HumanTask, KV_VALUE_BYTES, PAGE_BYTES, TaskFilter};

/// Tells the child of the kill test where its data file is.
const CHILD: &str = "CASCADE_STORE_TEST_FILE";

#[tokio::test]
async fn a_file_is_open_once_and_says_by_whom() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let store = SqliteStore::open(&path).await.expect("opens");
    let refused = SqliteStore::open(&path).await.map(|_| ());
    let holder = std::process::id().to_string();
    assert!(
        matches!(&refused, Err(Error::InUse { holder: by, .. }) if *by == holder),
        "{refused:?}"
    );
    store.close().await;
    SqliteStore::open(&path).await.expect("is free again");
}

#[tokio::test]
async fn batches_that_wait_share_a_transaction() {
    let folder = TempDir::new().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("cascade.db")).await;
    let store = store.expect("opens");
    let lease = lease(&store).await;
    let batches =
        (0..100).map(|number| store.commit(&lease, vec![commit(row("acme", number, 1), 0)]));
    for result in join_all(batches).await {
        result.expect("commits");
    }
    let counters = store.counters();
    assert_eq!(counters.executions, 100);
    // All are sent before the writer's task runs; one may have been taken alone.
    assert!(counters.commits <= 2, "{} commits", counters.commits);
}

#[tokio::test]
async fn key_value_writes_share_a_transaction_with_batches() {
    let folder = TempDir::new().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("cascade.db")).await;
    let store = store.expect("opens");
    let (acme, lease) = (tenant("acme"), lease(&store).await);
    let batches =
        (0..30).map(|number| store.commit(&lease, vec![commit(row("acme", number, 1), 0)]));
    let keys: Vec<_> = (0..8).map(|number| format!("k{number}")).collect();
    let writes = keys
        .iter()
        .map(|key| store.kv_set(&acme, key, Bytes::new(), ROOM));
    let both = async { join!(join_all(batches), join_all(writes)) };
    let (batches, writes) = together(&store, both).await;
    for batch in batches {
        batch.expect("commits");
    }
    for write in writes {
        write.expect("sets");
    }
    let counters = store.counters();
    assert_eq!((counters.commits, counters.executions), (1, 30));
}

/// However many wait before it: a commit is in the next transaction.
#[tokio::test]
async fn a_flood_of_key_value_writes_does_not_hold_up_a_commit() {
    // Number and size of the writes, and of the groups that they need.
    for (count, bytes, groups) in [(256, 0, 8), (8, KV_VALUE_BYTES, 4)] {
        let folder = TempDir::new().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("cascade.db")).await;
        let store = store.expect("opens");
        let (acme, lease) = (tenant("acme"), lease(&store).await);
        let value = Bytes::from(vec![7; bytes]);
        let writes = (0..count).map(|_| store.kv_set(&acme, "k", value.clone(), ROOM));
        let mut writes = pin!(join_all(writes));
        let batch = async {
            assert!(poll!(writes.as_mut()).is_pending(), "they wait before it");
            let batch = vec![commit(row("acme", 1, 1), 0)];
            store.commit(&lease, batch).await
        };
        {
            // The writer has the connection for one transaction: its lock is fair.
            let mut batch = pin!(unconstrained(batch));
            let held = store.connection().await.expect("is open");
            assert!(poll!(batch.as_mut()).is_pending());
            yield_now().await; // the writer asks for the connection
            let mut back = pin!(store.connection());
            assert!(poll!(back.as_mut()).is_pending());
            drop(held);
            let held = back.await.expect("is open");
            assert_eq!(store.counters().commits, 1, "{bytes} bytes");
            assert!(matches!(poll!(batch.as_mut()), Poll::Ready(Ok(()))));
            drop(held);
        }
        for write in writes.await {
            write.expect("sets");
        }
        assert_eq!(store.counters().commits, groups, "{bytes} bytes");
    }
}

/// Keeps the writer from its connection until all requests wait.
async fn together<F: Future>(store: &SqliteStore, requests: F) -> F::Output {
    let connection = store.connection().await.expect("is open");
    // Or the runtime would have them take turns with the writer.
    let mut requests = pin!(unconstrained(requests));
    assert!(poll!(requests.as_mut()).is_pending());
    drop(connection);
    requests.await
}

#[tokio::test]
async fn a_filtered_list_goes_on_where_a_long_scan_stopped() {
    let folder = TempDir::new().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("cascade.db")).await;
    long_scans_stop_and_go_on(&store.expect("opens")).await;
}

/// Each in the order of its index, and only as far as the page goes.
#[tokio::test]
async fn lists_go_by_their_indexes() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let store = SqliteStore::open(&path).await.expect("opens");
    fill(&store).await;
    let options = SqliteConnectOptions::new().filename(&path).read_only(true);
    let mut sqlite = options.connect().await.expect("opens");
    let acme = tenant("acme");
    for (filter, before, index) in planned() {
        let search = read::search(&acme, &filter, before);
        let page = search.page("e.history", Some(ListCursor { at: 9, seq: 9 }), 50);
        let floors = search.floors(50).into_iter().flatten();
        for statement in floors.chain([page, search.count()]) {
            let sql = statement.sql.as_str().to_owned();
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut sqlite);
            let plan = plan.await.unwrap_or_else(|error| panic!("{error}: {sql}"));
            let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
            let chosen = |step: &String| step.contains(&format!("INDEX {index} (tenant=?"));
            let in_order = |step: &String| step.contains("_at,") || step.contains("_at<");
            let first = plan.iter().find(|step| chosen(step));
            assert!(first.is_some_and(in_order), "{sql}\n{plan:#?}");
            let bad = |step: &String| {
                step.contains("FOR ORDER BY") || (step.starts_with("SCAN") && step != "SCAN newest")
            };
            assert!(!plan.iter().any(bad), "{sql}\n{plan:#?}");
        }
    }
    store.close().await;
}

#[tokio::test]
async fn tags_are_written_by_the_place_of_their_execution() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let store = SqliteStore::open(&path).await.expect("opens");
    let mut connection = store.connection().await.expect("is open");
    for sql in tags::PLANNED {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan = sqlx::query(explain).fetch_all(&mut connection.sqlite).await;
        let plan: Vec<String> = plan
            .expect("explains")
            .iter()
            .map(|row| row.get(3))
            .collect();
        let scans = |step: &&String| step.starts_with("SCAN") && !step.contains("VIRTUAL TABLE");
        assert_eq!(plan.iter().find(scans), None, "{sql}\n{plan:#?}");
    }
}

#[tokio::test]
async fn the_log_starts_over_under_load() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let store = SqliteStore::open(&path).await.expect("opens");
    let value = Bytes::from(vec![7; KV_VALUE_BYTES]);
    for _ in 0..256 {
        store
            .kv_set(&tenant("acme"), "k", value.clone(), ROOM)
            .await
            .expect("sets");
    }
    let log = path
        .with_extension("db-wal")
        .metadata()
        .expect("is there")
        .len();
    // 256 MiB were written. The bound leaves a checkpoint time to come round.
    assert!(log < 128 << 20, "the log has {log} bytes");
}

/// Each of these writes a few pages for some hundred bytes.
#[tokio::test]
async fn the_log_starts_over_under_small_commits() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let store = SqliteStore::open(&path).await.expect("opens");
    let lease = lease(&store).await;
    let mut most = 0;
    for number in 0..12_000 {
        let batch = vec![commit(row("acme", number, 1), 0)];
        store.commit(&lease, batch).await.expect("commits");
        most = most.max(log_bytes(&path));
    }
    // The bound, and as much again for what comes while it is copied.
    assert!(most < 128 << 20, "the log had {most} bytes");
}

/// A server that dies again and again before its log is full must not leave
/// an ever longer one.
#[tokio::test]
async fn the_log_of_a_crash_counts() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    SqliteStore::open(&path).await.expect("opens").close().await;
    let mut raw = SqliteConnectOptions::new()
        .filename(&path)
        .pragma("wal_autocheckpoint", "0")
        .connect()
        .await
        .expect("opens");
    for sql in [
        "CREATE TABLE filler (bytes BLOB)",
        "INSERT INTO filler VALUES (zeroblob(80 << 20))",
    ] {
        sqlx::query(sql).execute(&mut raw).await.expect("writes");
    }
    // As a crash would leave them: closing the connection would copy the log.
    let crashed = TempDir::new().expect("a folder");
    for name in ["cascade.db", "cascade.db-wal"] {
        std::fs::copy(folder.path().join(name), crashed.path().join(name)).expect("copies");
    }
    let path = crashed.path().join("cascade.db");
    let left = log_bytes(&path);
    assert!(left > 80 << 20, "the log has {left} bytes");

    let store = SqliteStore::open(&path).await.expect("opens");
    for _ in 0..8 {
        let value = Bytes::from(vec![7; KV_VALUE_BYTES]);
        store
            .kv_set(&tenant("acme"), "k", value, ROOM)
            .await
            .expect("sets");
    }
    assert_eq!(log_bytes(&path), left, "the log did not start over");
}

fn log_bytes(path: &Path) -> u64 {
    let log = path.with_extension("db-wal");
    log.metadata().expect("is there").len()
}

#[tokio::test]
async fn damage_is_an_error_of_what_it_touches() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    for damage in [
        "UPDATE executions SET history = 'x' WHERE id = ?",
        "UPDATE executions SET history = CAST(x'31ff' AS TEXT) WHERE id = ?",
        "UPDATE executions SET version = 9 WHERE id = ?",
        "UPDATE executions SET snapshot = '1' WHERE id = ?",
        "UPDATE executions SET status = 77 WHERE id = ?",
        "UPDATE executions SET bucket = -1 WHERE id = ?",
        "UPDATE executions SET tenant = 'NOT VALID' WHERE id = ?",
    ] {
        let store = SqliteStore::open(&path).await.expect("opens");
        let held = lease(&store).await;
        let (hit, spared) = (
            id(held.epoch.0.into()),
            id(1_000 + u128::from(held.epoch.0)),
        );
        let batch = [hit, spared].map(|id| commit(row("acme", id.0.as_u128(), 1), 0));
        store.commit(&held, batch.into()).await.expect("commits");
        store.close().await;
        let mut raw = SqliteConnectOptions::new()
            .filename(&path)
            .connect()
            .await
            .expect("opens");
        sqlx::query(damage)
            .bind(hit.0.as_bytes().to_vec())
            .execute(&mut raw)
            .await
            .expect("damages");
        raw.close().await.expect("closes");

        let store = SqliteStore::open(&path).await.expect("opens");
        let load = store.load(&tenant("acme"), hit).await;
        let gone = damage.contains("tenant") && matches!(load, Ok(None));
        assert!(
            gone || matches!(load, Err(Error::Damaged(_))),
            "{damage}: {load:?}"
        );
        let load = store.load(&tenant("acme"), spared).await;
        assert!(matches!(load, Ok(Some(_))), "{damage}: {load:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_damaged_count_of_values_harms_nobody_else() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let store = SqliteStore::open(&path).await.expect("opens");
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    let value = Bytes::from_static(b"12");
    let set = store.kv_set(&acme, "k", value.clone(), ROOM).await;
    set.expect("sets");
    store.close().await;
    // And whether the others can still write values.
    for (number, damage, others) in [
        (1, "UPDATE kv_usage SET bytes = 1", true),
        (2, "UPDATE kv_usage SET keys = 0", true),
        (
            3,
            "UPDATE kv_usage SET keys = -1 WHERE tenant = 'acme'",
            true,
        ),
        (4, "DROP TABLE kv_usage", false),
    ] {
        change(&path, damage).await;
        let store = SqliteStore::open(&path).await.expect("opens");
        let lease = lease(&store).await;
        let (own, other, batch) = together(&store, async {
            let batch = vec![commit(row("acme", number, 1), 0)];
            let new = format!("k{number}");
            join!(
                store.kv_set(&acme, "k", Bytes::new(), ROOM),
                store.kv_set(&rival, &new, Bytes::new(), ROOM),
                store.commit(&lease, batch),
            )
        })
        .await;
        assert!(own.is_err(), "{damage}");
        assert_eq!(other.is_ok(), others, "{damage}: {other:?}");
        batch.expect("commits, whatever the values do");
        let found = store.summary(&acme, id(number)).await;
        assert!(matches!(found, Ok(Some(_))), "{damage}: {found:?}");
        let kept = store.kv_get(&acme, "k").await;
        assert_eq!(kept.expect("reads"), Some(value.clone()), "{damage}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_of_before_there_were_quotas_counts_what_it_holds() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let mut raw = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .connect()
        .await
        .expect("opens");
    let old = migrator(&MIGRATIONS[..1]).run(&mut raw).await;
    old.expect("migrates");
    for (of, key, value) in [
        ("acme", "ü", "1234"),
        ("acme", "a\0b", ""), // three bytes, whatever is in them
        ("rival", "k", "12"),
    ] {
        let insert = sqlx::query("INSERT INTO kv (tenant, key, value) VALUES (?, ?, ?)")
            .bind(of)
            .bind(key)
            .bind(value.as_bytes().to_vec())
            .execute(&mut raw);
        insert.await.expect("inserts");
    }
    raw.close().await.expect("closes");

    let store = SqliteStore::open(&path).await.expect("opens");
    for (of, key, quota, fits) in [
        ("acme", "c", (2, 100), false),
        ("acme", "c", (3, 9), false), // of nine bytes, one more is too many
        ("acme", "c", (3, 10), true),
        ("rival", "c", (1, 100), false),
        ("rival", "c", (2, 4), true),
    ] {
        let (keys, bytes) = quota;
        let quota = KvQuota { keys, bytes };
        let set = store.kv_set(&tenant(of), key, Bytes::new(), quota).await;
        assert_eq!(set.is_ok(), fits, "{of} {quota:?}: {set:?}");
    }
    store.close().await;
    assert_counted(&path).await;
}

/// Checks that what tenants keep is what is counted of it.
async fn assert_counted(path: &Path) {
    let mut raw = SqliteConnectOptions::new().filename(path).connect().await;
    let raw = raw.as_mut().expect("opens");
    let wrong: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT tenant, keys, bytes FROM kv_usage EXCEPT \
         SELECT tenant, count(*), sum(length(CAST(key AS BLOB)) + length(value)) FROM kv \
         GROUP BY tenant",
    )
    .fetch_all(raw)
    .await
    .expect("reads");
    assert_eq!(wrong, []);
}

/// Changes a file that no store has open.
async fn change(path: &Path, sql: &'static str) {
    let raw = SqliteConnectOptions::new().filename(path).connect().await;
    let mut raw = raw.expect("opens");
    sqlx::query(sql).execute(&mut raw).await.expect("changes");
    raw.close().await.expect("closes");
}

#[tokio::test]
async fn what_an_older_release_has_open_is_listed_when_its_shard_starts() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    let mut raw = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .connect()
        .await
        .expect("opens");
    let old = migrator(&MIGRATIONS[..4]).run(&mut raw).await;
    old.expect("migrates");
    for (number, status) in [(1_u128, 0), (2, 1), (3, 0)] {
        let insert = sqlx::query(
            "INSERT INTO executions (tenant, id, bucket, application, application_version, \
             workflow, status, started_at, idle, version, history) \
             VALUES ('acme', ?, ?, 'a', 1, 'w', ?, 1, 1, 1, '')",
        );
        let insert = insert
            .bind(id(number).0.as_bytes().to_vec())
            .bind(i64::try_from(number).expect("small") * 1_000)
            .bind(status)
            .execute(&mut raw);
        insert.await.expect("inserts");
    }
    raw.close().await.expect("closes");

    let store = SqliteStore::open(&path).await.expect("opens");
    let unlisted = async |buckets| store.unlisted(buckets).await.expect("reads");
    assert_eq!(unlisted(0..2_000).await, [(tenant("acme"), id(1))]);
    assert_eq!(
        unlisted(0..4_096).await.len(),
        2,
        "what has ended asks nobody"
    );
    let asked = HumanTask {
        tenant: tenant("acme"),
        execution: id(1),
        task: TaskId(2),
        application: "a".into(),
        workflow: "w".into(),
        path: String::new(),
        state: "Ask".into(),
        assignee: "ann".to_owned(),
        opened_at: Timestamp(1),
        deadline: None,
        escalated: 0,
    };
    let acme = tenant("acme");
    let listed = store.list_tasks(&acme, id(1), vec![asked.clone()]).await;
    listed.expect("lists");
    let listed = store.list_tasks(&tenant("acme"), id(3), Vec::new()).await;
    listed.expect("lists");
    assert!(unlisted(0..4_096).await.is_empty());
    let filter = TaskFilter::default();
    let page = store.human_tasks(&tenant("acme"), &filter, None, 10).await;
    assert_eq!(page.expect("lists").items, [asked]);
    store.close().await;
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    std::fs::write(&path, "text, and long enough to be looked at ".repeat(200)).expect("writes");
    let refused = SqliteStore::open(&path).await.map(|_| ());
    assert!(matches!(refused, Err(Error::Damaged(_))), "{refused:?}");
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    SqliteStore::open(&path).await.expect("opens").close().await;
    let mut raw = SqliteConnectOptions::new()
        .filename(&path)
        .connect()
        .await
        .expect("opens");
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, x'00', 0)",
    )
    .execute(&mut raw)
    .await
    .expect("inserts");
    raw.close().await.expect("closes");
    let refused = SqliteStore::open(&path).await.map(|_| ());
    assert!(
        matches!(&refused, Err(Error::Unavailable(text)) if text.contains("9999")),
        "{refused:?}"
    );
}

/// Runs this very test binary as a child that commits and says so, and kills
/// it in the middle.
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("cascade.db");
    for acknowledged in [1, 20, 150] {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([
                "--exact",
                "--nocapture",
                "store::sqlite::tests::child_that_commits",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut acks = output.lines().map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("ack ")
                .and_then(|ack| ack.parse::<u128>().ok())
        });
        let mut seen: Vec<_> = acks.by_ref().take(acknowledged).collect();
        child.kill().expect("was running");
        seen.extend(acks); // said before it died, not yet read
        child.wait().expect("is a child");
        assert!(seen.len() >= acknowledged, "the child said {seen:?}");

        let store = SqliteStore::open(&path).await.expect("opens");
        for number in seen {
            let history = store
                .history(&tenant("acme"), id(number), 0, 10, PAGE_BYTES)
                .await;
            assert_eq!(history.expect("reads").len(), 2, "execution {number}");
            let value = store.kv_get(&tenant("acme"), &number.to_string()).await;
            assert!(value.expect("reads").is_some(), "value {number}");
        }
        store.close().await;
        assert_counted(&path).await;
    }
}

/// The child of the test above; as a test of its own it does nothing.
#[tokio::test]
async fn child_that_commits() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let store = SqliteStore::open(Path::new(&path)).await.expect("opens");
    let lease = lease(&store).await;
    let first = u128::from(lease.epoch.0) << 64; // no two children start the same
    for number in first.. {
        for expected in [0, 1] {
            let batch = vec![commit(row("acme", number, expected + 1), expected)];
            store.commit(&lease, batch).await.expect("commits");
        }
        let (of, key) = (tenant("acme"), number.to_string());
        let value = store.kv_set(&of, &key, Bytes::from_static(b"v"), ROOM);
        value.await.expect("sets");
        println!("ack {number}");
    }
}
