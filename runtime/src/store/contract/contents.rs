//! Contents of objects, where stores keep them.

use uuid::Uuid;

use super::super::{BLOCK_BYTES, ContentId, Error, Object, ObjectKey};
use super::*;

on_each!(
    a_content_is_found_when_its_object_is_written_and_gone_with_the_last,
    what_is_given_up_is_never_found,
    a_quota_refuses_the_object_and_its_content,
    contents_are_apart_between_tenants,
);

const D1: &str = "d1";

fn draft(number: u128) -> ContentId {
    ContentId(Uuid::from_u128(number))
}

fn object(key: &str, digest: &str, size: u64) -> Object {
    Object {
        name: ObjectKey {
            bucket: "in".to_owned(),
            key: key.to_owned(),
        },
        digest: digest.to_owned(),
        size,
        created_at: Timestamp(7),
    }
}

/// Writes a content of two blocks, and names it.
async fn write(store: &dyn Store, of: &str, number: u128, key: &str, digest: &str) -> bool {
    let contents = store.contents().expect("kept here");
    let (of, id) = (tenant(of), draft(number));
    contents.begin_content(&of, id).await.expect("begins");
    let blocks = [vec![1; BLOCK_BYTES], vec![2; 3]];
    for (number, block) in (0..).zip(&blocks) {
        let added = contents.add_block(&of, id, number, block);
        added.await.expect("adds");
    }
    let size = BLOCK_BYTES as u64 + 3;
    match contents
        .put_content(&of, id, object(key, digest, size), 1 << 20)
        .await
    {
        Ok(_) => true,
        Err(Error::ObjectQuota { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn a_content_is_found_when_its_object_is_written_and_gone_with_the_last(subject: Subject) {
    let acme = tenant("acme");
    if subject.store().contents().is_none() {
        return;
    }
    assert!(write(subject.store(), "acme", 1, "a", D1).await);
    // The same content once more is kept once.
    assert!(write(subject.store(), "acme", 2, "b", D1).await);
    let subject = subject.crash().await;
    let store = subject.store();
    let contents = store.contents().expect("kept here");
    let found = contents.content(&acme, D1).await.expect("reads");
    let found = found.expect("is there");
    assert_eq!((found.id, found.size), (draft(1), BLOCK_BYTES as u64 + 3));
    for (number, length) in [(0, Some(BLOCK_BYTES)), (1, Some(3)), (2, None)] {
        let block = contents.block(&acme, found.id, number).await;
        let block = block.expect("reads");
        assert_eq!(block.map(|block| block.len()), length, "{number}");
    }
    for (key, is_there) in [("a", true), ("b", false)] {
        let name = object(key, D1, 0).name;
        let gone = store.delete_object(&acme, &name).await.expect("deletes");
        assert!(gone.is_some());
        let found = contents.content(&acme, D1).await.expect("reads");
        assert_eq!(found.is_some(), is_there, "{key}");
    }
    // Who has begun to read it reads on, and what is swept meanwhile is not this.
    while contents.sweep_contents().await.expect("sweeps") {}
    let block = contents.block(&acme, draft(1), 1).await.expect("reads");
    assert!(block.is_some());
    let same = contents.block(&acme, draft(2), 1).await.expect("reads");
    assert!(same.is_none(), "nobody could read the second");
}

async fn what_is_given_up_is_never_found(subject: Subject) {
    let (acme, store) = (tenant("acme"), subject.store());
    let Some(contents) = store.contents() else {
        return;
    };
    let id = draft(1);
    contents.begin_content(&acme, id).await.expect("begins");
    contents.add_block(&acme, id, 0, b"x").await.expect("adds");
    contents.drop_content(&acme, id).await.expect("drops");
    let late = contents.add_block(&acme, id, 1, b"y").await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    let late = contents.put_content(&acme, id, object("a", D1, 1), 1 << 20);
    assert!(matches!(late.await, Err(Error::Unavailable(_))));
    let named = store.object(&acme, &object("a", D1, 1).name).await;
    assert_eq!(named.expect("reads"), None, "neither is there");
    while contents.sweep_contents().await.expect("sweeps") {}
    let block = contents.block(&acme, id, 0).await.expect("reads");
    assert!(block.is_none());
    // One that is kept cannot be given up any more.
    assert!(write(store, "acme", 2, "a", D1).await);
    let kept = draft(2);
    contents.drop_content(&acme, kept).await.expect("answers");
    while contents.sweep_contents().await.expect("sweeps") {}
    let found = contents.content(&acme, D1).await.expect("reads");
    assert_eq!(found.map(|found| found.id), Some(kept));
}

async fn a_quota_refuses_the_object_and_its_content(subject: Subject) {
    let (acme, store) = (tenant("acme"), subject.store());
    let Some(contents) = store.contents() else {
        return;
    };
    for (number, key, fits) in [
        (1, "a", true),
        (2, "b", true),
        (3, "c", true),
        (4, "d", false),
    ] {
        let digest = format!("d{key}");
        assert_eq!(write(store, "acme", number, key, &digest).await, fits);
        let found = contents.content(&acme, &digest).await.expect("reads");
        assert_eq!(found.is_some(), fits, "{key}");
    }
}

async fn contents_are_apart_between_tenants(subject: Subject) {
    let (acme, rival, store) = (tenant("acme"), tenant("rival"), subject.store());
    let Some(contents) = store.contents() else {
        return;
    };
    assert!(write(store, "acme", 1, "a", D1).await);
    let found = contents.content(&rival, D1).await.expect("reads");
    assert_eq!(found, None);
    let block = contents.block(&rival, draft(1), 0).await.expect("reads");
    assert_eq!(block, None);
    contents
        .drop_content(&rival, draft(1))
        .await
        .expect("answers");
    let theirs = contents.adopt_content(&rival, draft(1), D1).await;
    assert!(!theirs.expect("answers"), "no object of theirs has it");
    // The same content is the rival's own.
    assert!(write(store, "rival", 1, "a", D1).await);
    let name = object("a", D1, 0).name;
    let gone = store.delete_object(&rival, &name).await.expect("deletes");
    assert!(gone.is_some());
    let found = contents.content(&acme, D1).await.expect("reads");
    assert!(found.is_some());
}
