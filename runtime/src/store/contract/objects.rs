//! Objects: by name, in order, within a quota, and apart between tenants.

use super::super::{Error, OBJECT_BYTES, Object, ObjectKey};
use super::*;

on_each!(
    an_object_is_replaced_and_its_content_let_go_when_no_other_has_it,
    objects_are_listed_in_the_order_of_keys,
    objects_of_other_tenants_are_neither_seen_nor_touched,
    objects_are_held_to_a_quota_that_counts_what_is_replaced,
);

fn name(bucket: &str, key: &str) -> ObjectKey {
    ObjectKey {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    }
}

fn object(bucket: &str, key: &str, digest: &str, size: u64) -> Object {
    Object {
        name: name(bucket, key),
        digest: digest.to_owned(),
        size,
        created_at: Timestamp(7),
    }
}

async fn an_object_is_replaced_and_its_content_let_go_when_no_other_has_it(subject: Subject) {
    let acme = tenant("acme");
    let store = subject.store();
    for (key, digest, orphan) in [
        ("a", "d1", None),
        ("b", "d1", None),
        ("a", "d2", None),
        ("a", "d2", None),
        ("b", "d2", Some("d1")),
    ] {
        let put = store.put_object(&acme, object("in", key, digest, 3), 1 << 30);
        let put = put.await.expect("fits");
        assert_eq!(put.orphan.as_deref(), orphan, "{key} {digest}");
    }
    let subject = subject.crash().await;
    let store = subject.store();
    let found = store.object(&acme, &name("in", "a")).await.expect("reads");
    assert_eq!(found, Some(object("in", "a", "d2", 3)));
    for (key, expected) in [("a", Some(None)), ("b", Some(Some("d2"))), ("b", None)] {
        let gone = store.delete_object(&acme, &name("in", key)).await;
        let gone = gone.expect("deletes").map(|replaced| replaced.orphan);
        assert_eq!(gone, expected.map(|orphan| orphan.map(str::to_owned)));
    }
    let found = store.object(&acme, &name("in", "a")).await.expect("reads");
    assert_eq!(found, None);
}

async fn objects_are_listed_in_the_order_of_keys(subject: Subject) {
    let (acme, store) = (tenant("acme"), subject.store());
    for key in ["b/2", "a", "b/1", "b/10", "c", "b"] {
        let put = store.put_object(&acme, object("in", key, "d", 1), 1 << 30);
        put.await.expect("fits");
    }
    let other = store.put_object(&acme, object("out", "b/3", "d", 1), 1 << 30);
    other.await.expect("fits");
    for (prefix, after, limit, expected) in [
        ("", "", 10, vec!["a", "b", "b/1", "b/10", "b/2", "c"]),
        ("b/", "", 10, vec!["b/1", "b/10", "b/2"]),
        ("b/", "b/1", 1, vec!["b/10"]),
        ("b/", "b/2", 10, vec![]),
        ("x", "", 10, vec![]),
    ] {
        let list = store.objects(&acme, "in", prefix, after, limit).await;
        let keys: Vec<_> = list
            .expect("reads")
            .into_iter()
            .map(|o| o.name.key)
            .collect();
        assert_eq!(keys, expected, "{prefix} {after}");
    }
}

async fn objects_of_other_tenants_are_neither_seen_nor_touched(subject: Subject) {
    let (acme, rival, store) = (tenant("acme"), tenant("rival"), subject.store());
    let put = store.put_object(&acme, object("in", "a", "d1", 1), 1 << 30);
    put.await.expect("fits");
    let here = name("in", "a");
    assert_eq!(store.object(&rival, &here).await.expect("reads"), None);
    let list = store.objects(&rival, "in", "", "", 10).await;
    assert_eq!(list.expect("reads"), []);
    let gone = store.delete_object(&rival, &here).await.expect("answers");
    assert!(gone.is_none());
    // The same content is the rival's own.
    let put = store.put_object(&rival, object("in", "a", "d1", 1), 1 << 30);
    put.await.expect("fits");
    let gone = store.delete_object(&rival, &here).await.expect("deletes");
    let orphan = gone.expect("was there").orphan;
    assert_eq!(orphan.as_deref(), Some("d1"));
    let found = store.object(&acme, &here).await.expect("reads");
    assert!(found.is_some());
}

async fn objects_are_held_to_a_quota_that_counts_what_is_replaced(subject: Subject) {
    let (acme, store) = (tenant("acme"), subject.store());
    let quota = 2 * OBJECT_BYTES + 100;
    for (key, size, fits) in [
        ("a", 60, true),
        ("b", 41, false),
        ("b", 40, true),
        ("a", 61, false),
        ("a", 59, true),
        ("c", 0, false),
    ] {
        let put = store
            .put_object(&acme, object("in", key, key, size), quota)
            .await;
        match put {
            Ok(_) => assert!(fits, "{key} {size}"),
            Err(Error::ObjectQuota { .. }) => assert!(!fits, "{key} {size}"),
            Err(other) => panic!("{other}"),
        }
    }
    // Who is over a quota that was lowered may make room.
    let lower = store.put_object(&acme, object("in", "a", "a", 10), 5).await;
    lower.expect("it is less than before");
}
