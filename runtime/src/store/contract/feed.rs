//! What servers that share a store tell each other; a store that nobody shares says so.

use super::super::contract;
use super::*;
use crate::store::{
    ActivityVersion, ApiKey, ApplicationVersion, Change, Feed, News, PausedWorkflow, Subject,
    TenantRow,
};

on_each!(
    what_changes_is_told_in_order_to_all_who_follow,
    what_was_changed_before_is_not_told,
    what_changes_nothing_is_not_told,
);

/// Follows, if anybody can.
async fn follow(store: &dyn Store) -> Option<Feed> {
    let feed = store.follow().await.expect("answers");
    assert_eq!(feed.is_some(), store.is_shared());
    feed
}

/// The next changes, so many.
async fn changes(feed: &mut Feed, count: usize) -> Vec<(String, Subject)> {
    let mut all = Vec::new();
    while all.len() < count {
        match feed.next().await {
            Some(News::Changed(changes)) => all.extend(changes),
            other => panic!("{other:?} after {all:?}"),
        }
    }
    let plain = |change: Change| (change.tenant.to_string(), change.subject);
    all.into_iter().map(plain).collect()
}

async fn apply(store: &dyn Store, of: &str, name: &str, expected: Option<u32>) -> bool {
    let version = ApplicationVersion {
        name: name.to_owned(),
        version: 0,
        file: "app.yaml".to_owned(),
        source: "states: []".to_owned(),
        created_at: Timestamp(1),
    };
    let put = store.put_application(&tenant(of), version, expected).await;
    put.expect("answers").is_ok()
}

async fn upload(store: &dyn Store, of: &str, name: &str, version: &str) {
    let version = ActivityVersion {
        name: name.to_owned(),
        version: version.to_owned(),
        number: 0,
        digest: "d".to_owned(),
        description: "{}".to_owned(),
        created_at: Timestamp(1),
    };
    let put = store.put_activity(&tenant(of), version).await;
    put.expect("puts");
}

async fn pause(store: &dyn Store, of: &str) {
    let paused = PausedWorkflow {
        application: "app".to_owned(),
        workflow: "pay".to_owned(),
        reason: "why".to_owned(),
        paused_at: Timestamp(1),
    };
    let paused = store.pause_workflow(&tenant(of), paused).await;
    paused.expect("pauses");
}

async fn make_key(store: &dyn Store, of: &str, id: &str) {
    let key = ApiKey {
        id: id.to_owned(),
        tenant: tenant(of),
        hash: format!("hash of {id}"),
        role: "viewer".to_owned(),
        label: String::new(),
        created_at: Timestamp(1),
    };
    store.put_key(key).await.expect("puts");
}

async fn what_changes_is_told_in_order_to_all_who_follow(subject: contract::Subject) {
    let store = subject.store();
    let (Some(mut one), Some(mut two)) = (follow(store).await, follow(store).await) else {
        return;
    };
    let row = TenantRow {
        id: tenant("acme"),
        settings: "{}".to_owned(),
        created_at: Timestamp(1),
    };
    store.put_tenant(row).await.expect("puts");
    assert!(apply(store, "acme", "app", None).await);
    upload(store, "rival", "pay", "").await;
    pause(store, "acme").await;
    let resumed = store.resume_workflow(&tenant("rival"), "app", "pay").await;
    resumed.expect("resumes");
    make_key(store, "acme", "k").await;
    assert!(
        store
            .delete_key(&tenant("acme"), "k")
            .await
            .expect("deletes")
    );
    let expected = [
        ("acme", Subject::Tenant),
        ("acme", Subject::Application("app".to_owned())),
        ("rival", Subject::Activity("pay".to_owned())),
        ("acme", Subject::Pauses),
        ("rival", Subject::Pauses),
        ("acme", Subject::Keys),
    ];
    let expected = expected.map(|(of, subject)| (of.to_owned(), subject));
    for feed in [&mut one, &mut two] {
        assert_eq!(changes(feed, expected.len()).await, expected);
    }
    // Its end is told, too.
    store.close().await;
    assert_eq!(one.next().await, None);
}

async fn what_was_changed_before_is_not_told(subject: contract::Subject) {
    assert!(apply(subject.store(), "acme", "old", None).await);
    let subject = subject.crash().await;
    let store = subject.store();
    let Some(mut feed) = follow(store).await else {
        return;
    };
    assert!(apply(store, "acme", "new", None).await);
    let new = ("acme".to_owned(), Subject::Application("new".to_owned()));
    assert_eq!(changes(&mut feed, 1).await, [new]);
}

async fn what_changes_nothing_is_not_told(subject: contract::Subject) {
    let store = subject.store();
    upload(store, "acme", "pay", "stable").await;
    make_key(store, "acme", "k").await;
    let Some(mut feed) = follow(store).await else {
        return;
    };
    assert!(!apply(store, "acme", "app", Some(7)).await, "there is no 7");
    upload(store, "acme", "pay", "stable").await;
    let theirs = store.delete_key(&tenant("rival"), "k").await;
    assert!(!theirs.expect("answers"), "it is not theirs");
    assert!(apply(store, "acme", "app", None).await);
    let only = ("acme".to_owned(), Subject::Application("app".to_owned()));
    assert_eq!(changes(&mut feed, 1).await, [only]);
}
