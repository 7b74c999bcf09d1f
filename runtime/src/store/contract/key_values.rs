//! The key-value capability: what is set, in which order, and who has room for it.

use bytes::Bytes;
use futures::future::join_all;
use futures::join;

use super::*;
use crate::store::{Error, KV_KEY_BYTES, KV_VALUE_BYTES, KvQuota};

on_each!(
    values_are_set_compared_and_deleted,
    keys_and_values_that_are_too_large_are_refused,
    values_outlive_a_crash,
    writes_of_one_key_apply_in_the_order_of_arrival,
    a_quota_counts_keys_and_bytes,
    overwriting_and_deleting_give_room_back,
    compare_and_set_counts,
    a_refused_write_changes_nothing,
    whoever_is_over_a_lowered_quota_may_keep_less_but_not_more,
    tenants_have_quotas_of_their_own,
    what_is_kept_is_counted_on_after_a_crash,
    a_refused_write_leaves_those_beside_it_alone,
    a_conflict_of_executions_leaves_values_alone,
    only_transactions_that_wrote_are_counted,
);

/// One call. A value is told by its length, as quotas do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Set(&'static str, usize),
    /// Sets a key that holds a value of this length, or none.
    Swap(&'static str, Option<usize>, usize),
    Delete(&'static str),
}
use Call::{Delete, Set, Swap};

const SMALL: KvQuota = KvQuota { keys: 2, bytes: 10 };

fn value(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

/// Makes one call; `yes` or `no` tells whether it was done.
pub(super) async fn make(store: &dyn Store, of: &str, quota: KvQuota, call: Call) -> String {
    let of = tenant(of);
    let done = match call {
        Set(key, new) => store
            .kv_set(&of, key, value(new), quota)
            .await
            .map(|()| true),
        Swap(key, old, new) => {
            let swap = store.kv_compare_and_set(&of, key, old.map(value), value(new), quota);
            swap.await
        }
        Delete(key) => store.kv_delete(&of, key).await.map(|()| true),
    };
    match done {
        Ok(true) => "yes".to_owned(),
        Ok(false) => "no".to_owned(),
        Err(Error::OverQuota {
            what,
            needed,
            limit,
        }) => format!("{needed} {what}, not {limit}"),
        Err(error) => error.to_string(),
    }
}

async fn check(store: &dyn Store, quota: KvQuota, calls: &[(Call, &str)]) {
    for (number, (call, expected)) in calls.iter().enumerate() {
        let outcome = make(store, "acme", quota, *call).await;
        assert_eq!(outcome, *expected, "call {number}: {call:?}");
    }
}

/// The lengths of values.
async fn held<const N: usize>(store: &dyn Store, of: &str, keys: [&str; N]) -> [Option<usize>; N] {
    let of = tenant(of);
    let found = join_all(keys.map(|key| store.kv_get(&of, key))).await;
    let lengths = found
        .into_iter()
        .map(|it| it.expect("reads").map(|it| it.len()));
    let lengths: Vec<_> = lengths.collect();
    lengths.try_into().expect("one for each")
}

async fn values_are_set_compared_and_deleted(subject: Subject) {
    let store = subject.store();
    let acme = tenant("acme");
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    // (expected, new, whether it is set), from an absent key on
    for (expected, new, set) in [
        (Some(text("")), "x", false), // absent is not empty
        (None, "", true),
        (None, "x", false),
        (Some(text("y")), "x", false),
        (Some(text("")), "x", true),
        (Some(text("y")), "z", false), // of the same size
    ] {
        let done = store.kv_compare_and_set(&acme, "k", expected, text(new), ROOM);
        assert_eq!(done.await.expect("answers"), set);
    }
    let found = store.kv_get(&acme, "k").await;
    assert_eq!(found.expect("reads"), Some(text("x")));
    let set = store.kv_set(&acme, "k", text("z"), ROOM).await;
    set.expect("sets");
    let found = store.kv_get(&acme, "k").await;
    assert_eq!(found.expect("reads"), Some(text("z")));

    let rival = tenant("rival");
    assert_eq!(store.kv_get(&rival, "k").await.expect("reads"), None);
    store.kv_delete(&rival, "k").await.expect("deletes nothing");
    let found = store.kv_get(&acme, "k").await;
    assert_eq!(found.expect("reads"), Some(text("z")));
    store.kv_delete(&acme, "k").await.expect("deletes");
    assert_eq!(store.kv_get(&acme, "k").await.expect("reads"), None);
}

async fn keys_and_values_that_are_too_large_are_refused(subject: Subject) {
    let store = subject.store();
    let acme = tenant("acme");
    let longest = "k".repeat(KV_KEY_BYTES);
    let largest = store.kv_set(&acme, &longest, value(KV_VALUE_BYTES), ROOM);
    largest.await.expect("the limits themselves are in");

    let too_long = longest.clone() + "k";
    let too_large = value(KV_VALUE_BYTES + 1);
    for refused in [
        store.kv_set(&acme, &too_long, value(0), ROOM).await,
        store.kv_set(&acme, "k", too_large.clone(), ROOM).await,
        store
            .kv_compare_and_set(&acme, &too_long, None, value(0), ROOM)
            .await
            .map(drop),
        store
            .kv_compare_and_set(&acme, "k", None, too_large, ROOM)
            .await
            .map(drop),
    ] {
        assert!(
            matches!(refused, Err(Error::TooLarge { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(held(store, "acme", ["k"]).await, [None]);
}

async fn values_outlive_a_crash(subject: Subject) {
    let calls = [(Set("a", 1), "yes"), (Set("b", 2), "yes")];
    check(subject.store(), ROOM, &calls).await;
    check(subject.store(), ROOM, &[(Delete("a"), "yes")]).await;
    let subject = subject.crash().await;
    let found = held(subject.store(), "acme", ["a", "b"]).await;
    assert_eq!(found, [None, Some(2)]);
}

/// They arrive together, so on a database they share a transaction.
async fn writes_of_one_key_apply_in_the_order_of_arrival(subject: Subject) {
    let store = subject.store();
    let calls = [
        (Swap("k", None, 1), "yes"),
        (Swap("k", None, 2), "no"),
        (Set("k", 3), "yes"),
        (Swap("k", Some(1), 4), "no"),
        (Swap("k", Some(3), 5), "yes"),
        (Delete("k"), "yes"),
        (Swap("k", Some(5), 6), "no"),
        (Swap("k", None, 7), "yes"),
        (Set("l", 1), "yes"),
        (Set("m", 1), "3 keys, not 2"), // the key was counted once
        (Set("k", 2), "yes"),
    ];
    let together = calls.map(|(call, _)| make(store, "acme", SMALL, call));
    let outcomes = join_all(together).await;
    assert_eq!(outcomes, calls.map(|(_, expected)| expected));
    let found = held(store, "acme", ["k", "l", "m"]).await;
    assert_eq!(found, [Some(2), Some(1), None]);
}

async fn a_quota_counts_keys_and_bytes(subject: Subject) {
    let calls = [
        (Set("a", 3), "yes"),
        (Set("ü", 4), "yes"), // two bytes of key: all ten are used
        (Set("c", 0), "3 keys, not 2"),
        (Set("a", 4), "11 bytes, not 10"),
        (Set("a", 3), "yes"), // nothing more
    ];
    check(subject.store(), SMALL, &calls).await;
}

async fn overwriting_and_deleting_give_room_back(subject: Subject) {
    let calls = [
        (Set("a", 9), "yes"),
        (Set("b", 0), "11 bytes, not 10"),
        (Set("a", 4), "yes"),
        (Set("b", 4), "yes"),
        (Set("c", 4), "3 keys, not 2"),
        (Delete("a"), "yes"),
        (Set("c", 5), "11 bytes, not 10"),
        (Set("c", 4), "yes"),
        (Delete("a"), "yes"), // gone already: that gives nothing
        (Set("d", 0), "3 keys, not 2"),
        (Delete("b"), "yes"),
        (Delete("c"), "yes"),
        (Set("d", 9), "yes"),
    ];
    check(subject.store(), SMALL, &calls).await;
}

async fn compare_and_set_counts(subject: Subject) {
    let calls = [
        (Swap("a", None, 9), "yes"),
        (Swap("b", None, 0), "11 bytes, not 10"),
        (Swap("a", Some(9), 10), "11 bytes, not 10"),
        (Swap("a", Some(9), 3), "yes"),
        (Swap("b", None, 5), "yes"),
        (Swap("c", None, 0), "3 keys, not 2"),
        // Where nothing is set, there is no quota to exceed.
        (Swap("c", Some(1), 100), "no"),
        (Swap("b", None, 100), "no"),
    ];
    check(subject.store(), SMALL, &calls).await;
}

async fn a_refused_write_changes_nothing(subject: Subject) {
    let calls = [
        (Set("a", 3), "yes"),
        (Set("b", 3), "yes"),
        (Set("c", 0), "3 keys, not 2"),
        (Set("a", 6), "11 bytes, not 10"),
        (Swap("b", Some(3), 6), "11 bytes, not 10"),
    ];
    check(subject.store(), SMALL, &calls).await;
    let subject = subject.crash().await;
    let store = subject.store();
    let found = held(store, "acme", ["a", "b", "c"]).await;
    assert_eq!(found, [Some(3), Some(3), None]);
    check(store, SMALL, &[(Set("a", 5), "yes")]).await; // to the last byte
}

async fn whoever_is_over_a_lowered_quota_may_keep_less_but_not_more(subject: Subject) {
    let store = subject.store();
    check(store, ROOM, &[(Set("a", 9), "yes"), (Set("b", 9), "yes")]).await;
    let lowered = KvQuota { keys: 1, bytes: 5 };
    let calls = [
        (Set("c", 0), "3 keys, not 1"),
        (Set("a", 10), "21 bytes, not 5"),
        (Set("a", 9), "yes"), // as much as before
        (Swap("a", Some(9), 8), "yes"),
        (Delete("b"), "yes"),
        (Set("a", 9), "10 bytes, not 5"),
        (Set("a", 0), "yes"),
        (Set("a", 4), "yes"),
    ];
    check(store, lowered, &calls).await;
}

async fn tenants_have_quotas_of_their_own(subject: Subject) {
    let store = subject.store();
    check(store, SMALL, &[(Set("a", 9), "yes")]).await;
    for (of, quota, call, expected) in [
        ("rival", SMALL, Set("a", 9), "yes"),
        ("rival", SMALL, Set("a", 10), "11 bytes, not 10"),
        ("rival", ROOM, Set("a", 10), "yes"), // another quota, at the same time
        ("acme", SMALL, Set("a", 10), "11 bytes, not 10"),
        ("rival", SMALL, Delete("a"), "yes"),
        ("acme", SMALL, Set("b", 0), "11 bytes, not 10"),
    ] {
        assert_eq!(make(store, of, quota, call).await, expected, "{call:?}");
    }
}

async fn what_is_kept_is_counted_on_after_a_crash(subject: Subject) {
    check(subject.store(), SMALL, &[(Set("a", 4), "yes")]).await;
    let subject = subject.crash().await;
    let calls = [(Set("b", 5), "11 bytes, not 10"), (Set("b", 4), "yes")];
    check(subject.store(), SMALL, &calls).await;
    let subject = subject.reopen().await;
    let calls = [(Set("c", 0), "3 keys, not 2"), (Delete("a"), "yes")];
    check(subject.store(), SMALL, &calls).await;
    let subject = subject.crash().await;
    let calls = [(Set("c", 5), "11 bytes, not 10"), (Set("c", 4), "yes")];
    check(subject.store(), SMALL, &calls).await;
}

/// They arrive together, so on a database they share a transaction.
async fn a_refused_write_leaves_those_beside_it_alone(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let calls = [
        ("acme", Set("a", 9), "yes"),
        ("acme", Set("b", 0), "11 bytes, not 10"),
        ("rival", Set("a", 9), "yes"),
        ("acme", Delete("a"), "yes"),
        ("acme", Set("b", 9), "yes"),
    ];
    let calls_made = join_all(calls.map(|(of, call, _)| make(store, of, SMALL, call)));
    let batch = store.commit(&lease, vec![commit(row("acme", 1, 1), 0)]);
    let (outcomes, committed) = join!(calls_made, batch);
    assert_eq!(outcomes, calls.map(|(_, _, expected)| expected));
    committed.expect("commits");
    let found = store.summary(&tenant("acme"), id(1)).await;
    assert_eq!(found.expect("reads"), Some(row("acme", 1, 1)));
    let found = held(store, "acme", ["a", "b"]).await;
    assert_eq!(found, [None, Some(9)]);
}

/// A conflict has the group written twice; values must seem to be written once.
async fn a_conflict_of_executions_leaves_values_alone(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let first = store.commit(&lease, vec![commit(row("acme", 1, 2), 0)]);
    first.await.expect("commits");
    check(store, SMALL, &[(Set("a", 1), "yes")]).await;

    let stale = Lease {
        epoch: crate::store::Epoch(99),
        ..lease.clone()
    };
    let batches = [
        (&lease, commit(row("acme", 2, 1), 0)),
        (&lease, commit(row("acme", 1, 2), 1)), // conflict
        (&stale, commit(row("acme", 3, 1), 0)), // fenced
        (&lease, commit(row("acme", 1, 3), 2)),
    ];
    let batches = batches.map(|(lease, one)| store.commit(lease, vec![one]));
    let calls = [
        (Swap("a", Some(1), 2), "yes"),
        (Swap("a", Some(1), 3), "no"),
        (Swap("b", None, 3), "yes"),
        (Swap("b", None, 4), "no"),
        (Set("a", 6), "11 bytes, not 10"),
    ];
    let calls_made = join_all(calls.map(|(call, _)| make(store, "acme", SMALL, call)));
    let (committed, outcomes) = join!(join_all(batches), calls_made);
    let committed: Vec<_> = committed.iter().map(Result::is_ok).collect();
    assert_eq!(committed, [true, false, false, true]);
    assert_eq!(outcomes, calls.map(|(_, expected)| expected));
    let found = held(store, "acme", ["a", "b"]).await;
    assert_eq!(found, [Some(2), Some(3)]);
    // Counted once as well: there is room to the last byte.
    check(store, SMALL, &[(Set("a", 5), "yes")]).await;
}

async fn only_transactions_that_wrote_are_counted(subject: Subject) {
    let store = subject.store();
    for (call, outcome, commits) in [
        (Set("a", 9), "yes", 1),
        (Set("a", 9), "yes", 2), // the same again is written again
        (Set("b", 0), "11 bytes, not 10", 2),
        (Swap("a", None, 1), "no", 2),
        (Delete("b"), "yes", 2),
        (Delete("a"), "yes", 3),
        (Swap("a", None, 1), "yes", 4),
    ] {
        assert_eq!(make(store, "acme", SMALL, call).await, outcome, "{call:?}");
        let counters = store.counters();
        assert_eq!(counters.commits, commits, "{call:?}");
        assert_eq!((counters.executions, counters.events), (0, 0));
    }
}
