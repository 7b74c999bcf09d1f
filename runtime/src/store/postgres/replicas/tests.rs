//! A store on a real streaming replica, as `scripts/replica.sh` makes one: whose rows it shows,
//! how many sessions it takes, and what comes of positions that are not there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::*;
use crate::store::contract::{commit, id, lease, row, tenant};
use crate::store::postgres::{PostgresStore, ReplicaSettings};
use crate::store::{PAGE_BYTES, Store as _};

/// Longest that something is waited for.
const DEADLINE: Duration = Duration::from_mins(1);

/// A primary with one replica. Ended when dropped.
struct Servers {
    folder: TempDir,
    primary: String,
    replica: String,
}

impl Servers {
    fn start() -> Self {
        // First, so that what has been started is ended if the rest fails.
        let mut servers = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            primary: String::new(),
            replica: String::new(),
        };
        let output = script("start", servers.folder.path()).output();
        let output = output.expect("runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let mut urls = said.lines().filter_map(|line| line.split_once(' '));
        for url in [&mut servers.primary, &mut servers.replica] {
            urls.next().expect("two servers").1.clone_into(url);
        }
        servers
    }

    /// As the owner of the database, or as the superuser.
    fn settings(&self, user: &str) -> PostgresSettings {
        let of = |url: &str| url.replacen("//workflows@", &format!("//{user}@"), 1);
        PostgresSettings {
            url: of(&self.primary),
            password: None,
            connections: 6,
            replicas: ReplicaSettings {
                urls: vec![of(&self.replica)],
                connections: 4,
                max_lag: Duration::from_mins(5),
            },
        }
    }

    async fn raw(&self, url: &str) -> PgConnection {
        let url = url.replacen("//workflows@", "//postgres@", 1);
        PgConnection::connect(&url).await.expect("connects")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = script("stop", self.folder.path()).output();
    }
}

fn script(verb: &str, folder: &Path) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/replica.sh");
    let mut command = Command::new(script);
    command.arg(verb).arg(folder);
    command
}

fn pool(store: &PostgresStore) -> &Arc<Pool> {
    store.replicas.as_ref().expect("it has replicas")
}

/// Returns when the replica has all that there is.
async fn caught_up(store: &PostgresStore) -> Since {
    let began = Instant::now();
    let acme = tenant("acme");
    let now = pool(store).position().await.expect("the primary says so");
    loop {
        let reader = pool(store).reader(Since::At(now));
        reader.summary(&acme, id(1)).await.expect("reads");
        if reader.seen().is_some() {
            return Since::At(now);
        }
        assert!(began.elapsed() < DEADLINE, "{:?}", pool(store).standings());
    }
}

/// One number out of the replica.
async fn number(store: &PostgresStore, scope: Scope<'_>, sql: &str) -> i64 {
    let ask = |mut tx: Tx| {
        let sql = AssertSqlSafe(sql.to_owned());
        async move {
            let (count,): (i64,) = sqlx::query_as(sql).fetch_one(&mut *tx).await?;
            Ok(count)
        }
    };
    match pool(store).list[0].read(scope, Since::Anything, &ask).await {
        Answer::Read(count, _) => count,
        Answer::Behind | Answer::Failed => panic!("{:?}", pool(store).standings()),
    }
}

#[tokio::test]
async fn a_replica_shows_each_tenant_its_own_whoever_the_login_is() {
    const COUNT: &str = "SELECT count(*) FROM executions";
    let servers = Servers::start();
    for (round, user) in [(0, "workflows"), (1, "postgres")] {
        let store = PostgresStore::open(&servers.settings(user)).await;
        let store = store.expect("opens");
        let held = lease(&store).await;
        let batch = [("acme", 1), ("acme", 2), ("rival", 3)];
        let batch = batch.map(|(of, number)| commit(row(of, round * 10 + number, 1), 0));
        store.commit(&held, batch.into()).await.expect("commits");
        let since = caught_up(&store).await;
        let reader = pool(&store).reader(since);
        let (acme, rival) = (tenant("acme"), tenant("rival"));
        let all = Filter::default();
        for (of, own) in [(&acme, 2), (&rival, 1)] {
            let listed = reader.list(of, &all, None, 100).await.expect("lists");
            let expected = own * (usize::try_from(round).expect("few") + 1);
            assert_eq!(listed.items.len(), expected, "{user} for {of}");
            assert!(listed.items.iter().all(|item| item.tenant == *of));
        }
        let foreign = id(round * 10 + 3);
        assert_eq!(reader.summary(&acme, foreign).await.expect("reads"), None);
        let events = reader.history(&acme, foreign, 0, 10, PAGE_BYTES).await;
        assert!(events.expect("reads").is_empty());
        assert!(reader.seen().is_some(), "all of it was read there");
        // Queries name their tenant; the server holds them to it as well.
        let ours = i64::try_from(round + 1).expect("few");
        assert_eq!(
            number(&store, Scope::Of(&rival), COUNT).await,
            ours,
            "{user}"
        );
        assert_eq!(number(&store, Scope::Nobody, COUNT).await, 0, "{user}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_replica_gets_no_more_sessions_than_it_is_granted() {
    let servers = Servers::start();
    let store = PostgresStore::open(&servers.settings("workflows")).await;
    let store = store.expect("opens");
    let since = caught_up(&store).await;
    let acme = tenant("acme");
    let reads = (0..60).map(|number| {
        let reader = pool(&store).reader(since);
        let acme = &acme;
        async move { reader.summary(acme, id(number)).await.expect("reads") }
    });
    join_all(reads).await;
    let (primary, replica) = (servers.primary.clone(), servers.replica.clone());
    for (url, most) in [(primary, 6), (replica, 4)] {
        let mut raw = servers.raw(&url).await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cascade'";
        let (sessions,): (i64,) = sqlx::query_as(sql)
            .fetch_one(&mut raw)
            .await
            .expect("counts");
        assert!(
            (1..=most).contains(&sessions),
            "{sessions} of {most} at {url}"
        );
    }
    store.close().await;
}

#[tokio::test]
async fn a_position_that_is_not_there_is_bounded_and_one_that_is_promoted_is_out() {
    let servers = Servers::start();
    let store = PostgresStore::open(&servers.settings("workflows")).await;
    let store = store.expect("opens");
    let Since::At(now) = caught_up(&store).await else {
        panic!("it is at a position");
    };
    let acme = tenant("acme");
    let far = Position {
        lsn: u64::MAX - 1,
        ..now
    };
    let later = Position {
        timeline: now.timeline + 1,
        ..now
    };
    for since in [Since::At(far), Since::At(later), Since::Now] {
        let reader = pool(&store).reader(since);
        let began = Instant::now();
        let read = timeout(DEADLINE, reader.summary(&acme, id(1))).await;
        assert_eq!(read.expect("it does not hang").expect("reads"), None);
        assert!(began.elapsed() < Duration::from_secs(1), "{since:?}");
        assert_eq!(reader.seen(), None, "the primary was read for {since:?}");
    }
    // A client that went on with what the primary said is where the primary is.
    let position = pool(&store).position().await.expect("the primary says so");
    assert!(position.covers(now) && !position.covers(far));

    let mut raw = servers.raw(&servers.replica).await;
    sqlx::query("SELECT pg_promote()")
        .execute(&mut raw)
        .await
        .expect("promotes");
    let began = Instant::now();
    loop {
        // Also before that is noticed, nothing that it has may be taken for the primary's.
        let reader = pool(&store).reader(Since::Anything);
        reader.summary(&acme, id(1)).await.expect("reads");
        assert_eq!(reader.seen(), None);
        let standing = pool(&store).standings().swap_remove(0);
        if standing
            .out
            .as_ref()
            .is_some_and(|why| why.contains("takes writes"))
        {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{standing:?}");
    }
    store.close().await;
}

fn at(lsn: u64) -> Position {
    let timeline = 2;
    Position { timeline, lsn }
}

#[test]
fn reads_go_round_among_replicas_that_are_far_enough() {
    let positions = [Some(at(5)), None, Some(at(9)), Some(at(9))];
    let chosen = |since| [0, 1, 2, 3, 4].map(|turn| choose(&positions, turn, since));
    assert_eq!(chosen(Since::Anything), [0, 2, 2, 3, 0].map(Some));
    assert_eq!(chosen(Since::At(at(5))), [0, 2, 2, 3, 0].map(Some));
    assert_eq!(chosen(Since::At(at(6))), [2, 2, 2, 3, 2].map(Some));
    // None is known to be: one is asked whether it is by now.
    assert_eq!(chosen(Since::At(at(10))), [0, 2, 2, 3, 0].map(Some));
    assert_eq!(chosen(Since::Now), [None; 5]);
    let later = Position {
        timeline: 3,
        lsn: 1,
    };
    assert_eq!(chosen(Since::At(later)), [None; 5]);
    assert_eq!(choose(&[None, None], 7, Since::Anything), None);
    assert_eq!(choose(&[], usize::MAX, Since::Anything), None);
}
