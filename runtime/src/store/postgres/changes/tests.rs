use std::collections::BTreeSet;

use sqlx::AssertSqlSafe;

use super::super::PostgresStore;
use super::super::scratch::Scratch;
use super::*;
use crate::store::contract::tenant;
use crate::store::{PausedWorkflow, Store, TenantRow};

async fn put(store: &PostgresStore, of: &str) {
    let row = TenantRow {
        id: tenant(of),
        settings: "{}".to_owned(),
        created_at: cascade_cdl::Timestamp(1),
    };
    store.put_tenant(row).await.expect("puts");
}

async fn pause(store: &PostgresStore, of: &str) {
    let paused = PausedWorkflow {
        application: "app".to_owned(),
        workflow: "pay".to_owned(),
        reason: String::new(),
        paused_at: cascade_cdl::Timestamp(1),
    };
    let paused = store.pause_workflow(&tenant(of), paused).await;
    paused.expect("pauses");
}

/// Ends the sessions of all stores.
async fn cut(scratch: &Scratch) {
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
        scratch.schema
    );
    let mut master = scratch.master().await;
    let ended = sqlx::raw_sql(AssertSqlSafe(end)).execute(&mut master).await;
    ended.expect("ends them");
}

/// What is told until a change of this tenant's is.
async fn until(feed: &mut Feed, last: &str) -> (BTreeSet<String>, usize) {
    let (mut told, mut cuts) = (BTreeSet::new(), 0);
    while !told.contains(last) {
        match feed.next().await.expect("it goes on") {
            News::Changed(changes) => {
                told.extend(changes.into_iter().map(|change| change.tenant.to_string()));
            }
            News::Lost => cuts += 1,
            News::Found => {}
        }
    }
    (told, cuts)
}

#[tokio::test]
async fn whoever_was_cut_off_is_told_what_was_missed() {
    let scratch = Scratch::new().await;
    let (here, there) = (scratch.open().await, scratch.open().await);
    let mut feed = here.follow().await.expect("follows").expect("shared");
    let mut all: BTreeSet<String> = BTreeSet::new();
    for round in 0..3 {
        cut(&scratch).await;
        assert_eq!(feed.next().await, Some(News::Lost));
        for number in 0..5 {
            let of = format!("t{round}{number}");
            put(&there, &of).await;
            all.insert(of);
        }
        // What comes before it is told again is what was missed.
        let (mut told, mut found) = (BTreeSet::new(), false);
        while !found || told.len() < 5 {
            match feed.next().await.expect("it goes on") {
                News::Changed(changes) => {
                    told.extend(changes.into_iter().map(|change| change.tenant.to_string()));
                }
                News::Found => found = true,
                News::Lost => panic!("nobody has cut it again"),
            }
        }
        let round = format!("t{round}");
        assert!(told.iter().all(|of| of.starts_with(&round)), "{told:?}");
    }
    let stored = here.tenants().await.expect("reads");
    assert_eq!(stored.len(), all.len());
}

#[tokio::test]
async fn all_is_told_once_more_by_a_database_that_is_behind() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await;
    put(&store, "acme").await;
    put(&store, "rival").await;
    let mut feed = store.follow().await.expect("follows").expect("shared");
    // As a replica is that had not got the last changes.
    let mut raw = scratch.raw().await;
    let back = "SET cascade.tenant = 'acme,rival'; UPDATE change_counter SET last = 1; \
        UPDATE changes SET number = 1";
    let set = sqlx::raw_sql(back).execute(&mut raw).await;
    set.expect("goes back");
    cut(&scratch).await;
    assert_eq!(feed.next().await, Some(News::Lost));
    let (told, _) = until(&mut feed, "rival").await;
    assert!(told.contains("acme"), "{told:?}");
    // And what is new is not passed over for having a small number.
    pause(&store, "third").await;
    let (told, cuts) = until(&mut feed, "third").await;
    assert_eq!((told.len(), cuts), (1, 0), "{told:?}");
}

#[tokio::test]
async fn changes_of_many_servers_at_a_time_are_all_told() {
    let scratch = Scratch::new().await;
    let (one, two) = (scratch.open().await, scratch.open().await);
    let mut feed = one.follow().await.expect("follows").expect("shared");
    let names: BTreeSet<String> = (0..40).map(|number| format!("t{number}")).collect();
    let writes = names.iter().enumerate().map(|(number, of)| {
        let store = if number % 2 == 0 { &one } else { &two };
        put(store, of)
    });
    futures::future::join_all(writes).await;
    let mut told = BTreeSet::new();
    while told.len() < names.len() {
        let Some(News::Changed(changes)) = feed.next().await else {
            panic!("nothing has cut it");
        };
        told.extend(changes.into_iter().map(|change| change.tenant.to_string()));
    }
    assert_eq!(told, names);
}

#[tokio::test]
async fn who_shares_a_database_and_not_a_schema_hears_nothing() {
    let (scratch, other) = (Scratch::new().await, Scratch::new().await);
    let (store, neighbour) = (scratch.open().await, other.open().await);
    let mut feed = store.follow().await.expect("follows").expect("shared");
    put(&neighbour, "theirs").await;
    put(&store, "ours").await;
    let (told, _) = until(&mut feed, "ours").await;
    assert_eq!(told.len(), 1, "{told:?}");
}
