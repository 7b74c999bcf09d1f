//! Nodes, and who holds which shards.

use std::time::Duration;

use uuid::Uuid;

use super::{Subject, commit, on_each, row};
use crate::store::{CommitError, Epoch, Hold, Lease, Node, NodeId, ShardId, ShardRow, Store, View};

on_each!(
    shards_are_laid_out_once_and_cover_all_buckets,
    a_layout_fences_off_who_held_shards_before,
    a_shard_has_one_holder_until_it_is_given_back,
    who_takes_a_shard_fences_off_who_had_it,
    a_lease_that_has_ended_is_anybodys_and_is_not_renewed,
    a_heartbeat_renews_what_a_node_holds_and_nothing_else,
    an_epoch_is_raised_by_the_holder_only,
    a_node_that_leaves_is_forgotten_with_all_it_holds,
    nodes_and_leases_outlive_a_crash,
    changes_are_told_of,
    the_secret_is_the_same_for_all,
);

const LONG: Duration = Duration::from_mins(1);

/// So short that it has ended when it is asked for.
pub(super) const SHORT: Duration = Duration::ZERO;

fn id(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

fn node(number: u128) -> Node {
    Node {
        id: id(number),
        address: format!("http://node-{number}:7420/\0ü"),
        version: "1.2.3".to_owned(),
        load: "{}".to_owned(),
        leaving: false,
    }
}

fn shard(view: &View, number: u32) -> &ShardRow {
    let mut rows = view.shards.iter();
    rows.find(|row| row.shard == ShardId(number))
        .expect("is there")
}

async fn claim(store: &dyn Store, node: u128, shard: u32, ttl: Duration) -> Option<Lease> {
    let claimed = store.claim(id(node), ShardId(shard), ttl).await;
    claimed.expect("claims")
}

async fn view(store: &dyn Store) -> View {
    store.cluster().await.expect("reads")
}

async fn writes(store: &dyn Store, lease: &Lease, number: u128) -> Result<(), CommitError> {
    store
        .commit(lease, vec![commit(row("acme", number, 1), 0)])
        .await
}

async fn shards_are_laid_out_once_and_cover_all_buckets(subject: Subject) {
    let store = subject.store();
    assert_eq!(view(store).await, View::default());
    assert_eq!(claim(store, 1, 0, LONG).await, None, "there is none yet");
    store.lay_out(5).await.expect("lays out");
    let first = view(store).await;
    assert_eq!(first.shards.len(), 5);
    let end = first.shards.iter().fold(0, |end, row| {
        assert_eq!(row.buckets.start, end);
        assert!(matches!(row.hold, Hold::Free { .. }));
        row.buckets.end
    });
    assert_eq!(end, 4_096);
    store.lay_out(9).await.expect("is laid out already");
    assert_eq!(view(store).await.shards.len(), 5);
}

async fn a_layout_fences_off_who_held_shards_before(subject: Subject) {
    let store = subject.store();
    let old = store.acquire(ShardId(0)).await.expect("acquires");
    writes(store, &old, 1).await.expect("holds it");
    store.lay_out(2).await.expect("lays out");
    let lost = writes(store, &old, 2).await.expect_err("is fenced");
    assert!(matches!(lost, CommitError::LeaseLost { .. }), "{lost}");
}

async fn a_shard_has_one_holder_until_it_is_given_back(subject: Subject) {
    let store = subject.store();
    store.lay_out(2).await.expect("lays out");
    let first = claim(store, 1, 0, LONG).await.expect("nobody has it");
    assert_eq!(claim(store, 2, 0, LONG).await, None);
    assert_eq!(claim(store, 1, 0, LONG).await, None, "not even its holder");
    assert_eq!(shard(&view(store).await, 0).holder(), Some(id(1)));
    store
        .give_back(id(2), &[ShardId(0)])
        .await
        .expect("is not theirs");
    assert_eq!(claim(store, 2, 0, LONG).await, None);
    store
        .give_back(id(1), &[ShardId(0), ShardId(1)])
        .await
        .expect("gives back");
    let second = claim(store, 2, 0, LONG).await.expect("is free");
    assert!(second.epoch > first.epoch);
    writes(store, &second, 1).await.expect("holds it");
}

async fn who_takes_a_shard_fences_off_who_had_it(subject: Subject) {
    let store = subject.store();
    store.lay_out(2).await.expect("lays out");
    let stale = claim(store, 1, 0, SHORT).await.expect("nobody has it");
    subject.pass_leases();
    // Nobody has taken it yet: nothing is written twice.
    writes(store, &stale, 1)
        .await
        .expect("is fenced by the epoch only");
    let other = claim(store, 1, 1, LONG).await.expect("nobody has it");
    let fresh = claim(store, 2, 0, LONG).await.expect("has ended");
    let lost = writes(store, &stale, 2).await.expect_err("is fenced");
    let CommitError::LeaseLost {
        held, presented, ..
    } = lost
    else {
        panic!("{lost}");
    };
    assert_eq!((held, presented), (fresh.epoch, stale.epoch));
    writes(store, &other, 3).await.expect("holds that one");
    writes(store, &fresh, 4).await.expect("holds it");
}

async fn a_lease_that_has_ended_is_anybodys_and_is_not_renewed(subject: Subject) {
    let store = subject.store();
    store.lay_out(1).await.expect("lays out");
    let first = claim(store, 1, 0, SHORT).await.expect("nobody has it");
    subject.pass_leases();
    let seen = store.heartbeat(&node(1), LONG).await.expect("is there");
    assert!(
        matches!(shard(&seen, 0).hold, Hold::Free { .. }),
        "{seen:?}"
    );
    assert_eq!(store.raise(id(1), ShardId(0)).await.expect("reads"), None);
    let again = claim(store, 1, 0, LONG).await.expect("has ended");
    assert!(again.epoch > first.epoch);
}

async fn a_heartbeat_renews_what_a_node_holds_and_nothing_else(subject: Subject) {
    let store = subject.store();
    store.lay_out(3).await.expect("lays out");
    for (number, shard) in [(1, 0), (2, 1)] {
        claim(store, number, shard, LONG)
            .await
            .expect("nobody has it");
    }
    let seen = store.heartbeat(&node(1), 2 * LONG).await.expect("is there");
    let left = |number| match shard(&seen, number).hold {
        Hold::Held { left, .. } => left,
        Hold::Free { .. } => Duration::ZERO,
    };
    assert!(left(0) > LONG, "{seen:?}");
    assert!(left(1) > Duration::ZERO && left(1) <= LONG, "{seen:?}");
    assert_eq!(left(2), Duration::ZERO);
    let mut told = node(1);
    told.leaving = true;
    told.load = "{\"queued\":\"ü\"}".to_owned();
    let seen = store.heartbeat(&told, SHORT).await.expect("is there");
    assert_eq!(seen.nodes.len(), 1);
    assert_eq!(seen.nodes[0].node, told);
    assert!(seen.nodes[0].started_at <= seen.nodes[0].seen_at);
    subject.pass_leases();
    let seen = store.heartbeat(&node(2), LONG).await.expect("is there");
    let live: Vec<_> = seen
        .nodes
        .iter()
        .map(|row| (row.node.id, row.is_live))
        .collect();
    assert_eq!(live, [(id(1), false), (id(2), true)]);
}

async fn an_epoch_is_raised_by_the_holder_only(subject: Subject) {
    let store = subject.store();
    store.lay_out(1).await.expect("lays out");
    let first = claim(store, 1, 0, LONG).await.expect("nobody has it");
    assert_eq!(store.raise(id(2), ShardId(0)).await.expect("reads"), None);
    assert_eq!(store.raise(id(1), ShardId(9)).await.expect("reads"), None);
    let raised = store.raise(id(1), ShardId(0)).await.expect("reads");
    let raised = raised.expect("holds it");
    assert_eq!(raised.epoch, Epoch(first.epoch.0 + 1));
    let lost = writes(store, &first, 1).await.expect_err("is fenced");
    assert!(matches!(lost, CommitError::LeaseLost { .. }), "{lost}");
    writes(store, &raised, 1).await.expect("holds it");
    assert_eq!(shard(&view(store).await, 0).epoch, raised.epoch);
}

async fn a_node_that_leaves_is_forgotten_with_all_it_holds(subject: Subject) {
    let store = subject.store();
    store.lay_out(3).await.expect("lays out");
    for number in [1, 2] {
        store
            .heartbeat(&node(number), LONG)
            .await
            .expect("is there");
    }
    for (number, shard) in [(1, 0), (2, 1), (1, 2)] {
        claim(store, number, shard, LONG)
            .await
            .expect("nobody has it");
    }
    for _ in 0..2 {
        store
            .leave(id(1))
            .await
            .expect("the same twice is no error");
    }
    let seen = view(store).await;
    let holders: Vec<_> = seen.shards.iter().map(ShardRow::holder).collect();
    assert_eq!(holders, [None, Some(id(2)), None]);
    assert_eq!(seen.nodes.len(), 1);
}

async fn nodes_and_leases_outlive_a_crash(subject: Subject) {
    let store = subject.store();
    store.lay_out(2).await.expect("lays out");
    store.heartbeat(&node(1), LONG).await.expect("is there");
    let lease = claim(store, 1, 1, LONG).await.expect("nobody has it");
    let subject = subject.crash().await;
    let store = subject.store();
    let seen = view(store).await;
    assert_eq!(seen.nodes[0].node, node(1));
    assert_eq!(shard(&seen, 1).holder(), Some(id(1)));
    assert_eq!(shard(&seen, 1).epoch, lease.epoch);
    writes(store, &lease, 1).await.expect("holds it");
}

async fn changes_are_told_of(subject: Subject) {
    let store = subject.store();
    store.lay_out(1).await.expect("lays out");
    let mut changes = store.changes();
    // A database first has to be told that somebody listens, and says when it was.
    if let Subject::Postgres { .. } = subject {
        changes.wait_for(|count| *count > 0).await.expect("listens");
    }
    changes.mark_unchanged();
    claim(store, 1, 0, LONG).await.expect("nobody has it");
    changes.changed().await.expect("is told");
    changes.mark_unchanged();
    store
        .give_back(id(1), &[ShardId(0)])
        .await
        .expect("gives back");
    changes.changed().await.expect("is told");
}

async fn the_secret_is_the_same_for_all(subject: Subject) {
    let secret = subject.store().cluster_secret().await.expect("reads");
    assert!(secret.len() >= 32);
    let subject = subject.reopen().await;
    let again = subject.store().cluster_secret().await.expect("reads");
    assert_eq!(secret, again);
}
