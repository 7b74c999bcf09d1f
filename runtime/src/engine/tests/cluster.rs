//! Several engines on one store, each with some of the shards.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::cluster::{Cluster, Settings as Member};
use crate::store::NodeId;

const SHARDS: u32 = 4;

/// How long leases are taken for: the model's clock stands.
const TTL: Duration = Duration::from_secs(1);

/// Engines that reach each other without a network.
#[derive(Clone, Default)]
struct Near(Arc<Mutex<Vec<(NodeId, Engine)>>>);

#[async_trait]
impl Peers for Near {
    async fn ask(&self, peer: &Peer, ask: &Ask) -> Result<Told, String> {
        let engine = {
            let engines = self.0.lock().expect("no test panics with it");
            let found = engines.iter().find(|(node, _)| *node == peer.node);
            found.expect("it is there").1.clone()
        };
        Ok(engine.answer_peer(ask.clone()).await)
    }
}

/// One of them.
struct Node {
    id: NodeId,
    bench: Bench,
}

impl Node {
    async fn new(number: u128, store: &Arc<ModelStore>, near: &Near) -> Self {
        let settings = Settings {
            shards: SHARDS,
            clustered: true,
            ..Settings::default()
        };
        let limits = Admission {
            input_bytes: 100,
            open_executions: 3_000,
            open_bytes: 1 << 30,
        };
        let limits = Arc::new(Mutex::new(limits));
        let bench = Bench::open(settings, limits, store.clone(), HandClock::new()).await;
        let id = NodeId(uuid::Uuid::from_u128(number));
        bench.engine.connect(Arc::new(near.clone()));
        let mut engines = near.0.lock().expect("no test panics with it");
        engines.push((id, bench.engine.clone()));
        drop(engines);
        Self { id, bench }
    }

    async fn takes(&self, shard: u32) {
        let store = &self.bench.store;
        let claimed = store.claim(self.id, ShardId(shard), TTL).await;
        let lease = claimed.expect("claims").expect("nobody has it");
        let opened = self
            .bench
            .engine
            .open_shard(self.id, lease, buckets(shard, SHARDS));
        opened.await.expect("the model opens");
    }

    async fn gives(&self, shard: u32) {
        self.bench.engine.hand_over(ShardId(shard)).await;
        let released = self.bench.store.give_back(self.id, &[ShardId(shard)]).await;
        released.expect("the model releases");
    }

    /// Knows who has the shards that are not here.
    fn knows(&self, shards: &[(u32, &Self)]) {
        let there = shards.iter().map(|(shard, node)| {
            let (node, address) = (node.id, "near".into());
            (buckets(*shard, SHARDS), Peer { node, address })
        });
        self.bench.engine.set_peers(there.collect());
    }
}

/// Two engines, with the first and the second half of the shards.
async fn pair() -> (Node, Node) {
    let store = Arc::new(ModelStore::new());
    store.lay_out(SHARDS).await.expect("lays out");
    let near = Near::default();
    let one = Node::new(1, &store, &near).await;
    let other = Node::new(2, &store, &near).await;
    for (shard, node) in [(0, &one), (1, &one), (2, &other), (3, &other)] {
        node.takes(shard).await;
    }
    one.knows(&[(2, &other), (3, &other)]);
    other.knows(&[(0, &one), (1, &one)]);
    (one, other)
}

/// An id in a shard.
fn id_in(shard: u32) -> ExecutionId {
    let ids = std::iter::repeat_with(|| ExecutionId(uuid::Uuid::now_v7()));
    let mut own = ids.filter(|id| buckets(shard, SHARDS).contains(&id.bucket()));
    own.next().expect("there is no end of them")
}

fn named(workflow: &str, id: ExecutionId) -> Start {
    Start {
        id: Some(id),
        ..start(workflow, None)
    }
}

#[tokio::test]
async fn what_is_elsewhere_is_not_done_here() {
    let (one, other) = pair().await;
    let id = id_in(2);
    let refused = one.bench.engine.start(named("paid", id)).await;
    let bucket = id.bucket();
    assert!(
        matches!(refused, Err(StartError::Elsewhere { bucket: at }) if at == bucket),
        "{refused:?}"
    );
    assert_eq!(
        one.bench.store.summary(&tenant(), id).await.expect("reads"),
        None
    );
    other
        .bench
        .engine
        .start(named("paid", id))
        .await
        .expect("is here");
    let refused = one.bench.engine.cancel(&tenant(), id, String::new()).await;
    assert!(
        matches!(refused, Err(ControlError::Elsewhere { .. })),
        "{refused:?}"
    );
    let tenant = tenant();
    let anywhere = one.bench.engine.cancel_anywhere(&tenant, id, "why");
    anywhere.await.expect("is cancelled there");
    // What nobody has named begins where it is asked for.
    for _ in 0..20 {
        let started = one.bench.engine.start(start("paid", None)).await;
        let id = started.expect("is here").id;
        assert!(id.bucket() < BUCKETS / 2, "{id}");
    }
}

#[tokio::test]
async fn a_shard_that_is_handed_over_goes_on_where_it_was() {
    let (one, other) = pair().await;
    let (runs, waits) = (id_in(1), id_in(1));
    for id in [runs, waits] {
        one.bench
            .engine
            .start(named("effect", id))
            .await
            .expect("is here");
    }
    let held = one.bench.task().await;
    one.gives(1).await;
    assert_eq!(
        one.bench.queue.depth(),
        0,
        "what no worker has begun is taken back"
    );
    assert_eq!(
        one.bench.engine.whereabouts(runs.bucket()),
        Whereabouts::Nobody
    );
    other.takes(1).await;
    // Whoever ran it here reports to nobody.
    one.bench.complete(&held.task, json!("late")).await;
    for _ in 0..2 {
        let held = other.bench.task().await;
        other
            .bench
            .complete(&held.task, json!(held.task.execution.to_string()))
            .await;
    }
    for id in [runs, waits] {
        let output = other.bench.output(id).await;
        assert_eq!(output["paid"], json!(id.to_string()));
    }
}

#[tokio::test]
async fn what_waits_for_a_shard_that_is_handed_over_is_told_to_ask_elsewhere() {
    let (one, _other) = pair().await;
    let id = id_in(1);
    one.bench
        .engine
        .start(named("paid", id))
        .await
        .expect("is here");
    one.bench.store.hold_commits();
    let first = {
        let engine = one.bench.engine.clone();
        tokio::spawn(async move { engine.cancel(&tenant(), id, "first".to_owned()).await })
    };
    one.bench.store.held(1).await;
    let ended = {
        let engine = one.bench.engine.clone();
        tokio::spawn(async move { engine.hand_over(ShardId(1)).await })
    };
    let mut moves = one.bench.engine.moves();
    while one.bench.engine.whereabouts(id.bucket()) == Whereabouts::Here {
        moves.changed().await.expect("the engine lives");
    }
    let late = one
        .bench
        .engine
        .cancel(&tenant(), id, "late".to_owned())
        .await;
    assert!(
        matches!(late, Err(ControlError::Elsewhere { .. })),
        "{late:?}"
    );
    one.bench.store.release();
    first
        .await
        .expect("no panic")
        .expect("its commit was under way");
    ended.await.expect("no panic");
    let row = one.bench.store.summary(&tenant(), id).await.expect("reads");
    assert_eq!(row.expect("is there").status, StatusName::Cancelled);
}

#[tokio::test]
async fn children_elsewhere_are_started_once_and_their_ends_come_back() {
    let (one, other) = pair().await;
    // The same ids each time, and so the same children, of which some belong to the others.
    let ids = (1..).map(|number| ExecutionId(uuid::Uuid::from_u128(number)));
    let parents: Vec<_> = ids.filter(|id| id.bucket() < BUCKETS / 2).take(8).collect();
    for id in &parents {
        let started = one.bench.engine.start(named("parent", *id)).await;
        started.expect("is here");
    }
    let mut elsewhere = 0;
    for _ in &parents {
        let (node, held) = tokio::select! {
            held = one.bench.task() => (&one, held),
            held = other.bench.task() => (&other, held),
        };
        let bucket = held.task.execution.bucket();
        elsewhere += usize::from(bucket >= BUCKETS / 2);
        assert_eq!(node.id == other.id, bucket >= BUCKETS / 2);
        node.bench.complete(&held.task, json!("done")).await;
    }
    assert!(elsewhere > 0, "all children are here");
    for id in parents {
        let output = one.bench.output(id).await;
        assert_eq!(output["child"]["paid"], json!("done"), "{output}");
    }
}

#[tokio::test]
async fn who_has_lost_a_shard_closes_that_one_only() {
    let (one, other) = pair().await;
    let (lost, kept) = (id_in(0), id_in(1));
    for id in [lost, kept] {
        one.bench
            .engine
            .start(named("paid", id))
            .await
            .expect("is here");
    }
    // The lease has ended, and this node does not know it yet.
    one.bench.store.pass(TTL);
    other.takes(0).await;
    let stale = one
        .bench
        .engine
        .cancel(&tenant(), lost, "stale".to_owned())
        .await;
    assert!(matches!(stale, Err(ControlError::Interrupted)), "{stale:?}");
    let mut moves = one.bench.engine.moves();
    while one.bench.engine.whereabouts(lost.bucket()) == Whereabouts::Here {
        moves.changed().await.expect("the engine lives");
    }
    let row = one
        .bench
        .store
        .summary(&tenant(), lost)
        .await
        .expect("reads");
    assert_eq!(
        row.expect("is there").version,
        1,
        "nothing stale was written"
    );
    let cancelled = one
        .bench
        .engine
        .cancel(&tenant(), kept, "kept".to_owned())
        .await;
    cancelled.expect("nobody has taken that one");
    let cancelled = other
        .bench
        .engine
        .cancel(&tenant(), lost, "fresh".to_owned())
        .await;
    cancelled.expect("is here now");
}

async fn member(node: &Node) -> Cluster {
    let settings = Member {
        address: "near".to_owned(),
        ttl: TTL,
    };
    let (engine, store) = (node.bench.engine.clone(), node.bench.store.clone());
    let joined = Cluster::join(node.id, settings, engine, store).await;
    joined.expect("the model answers")
}

/// Returns when a node has so many shards.
async fn has(node: &Node, count: usize) {
    let mut moves = node.bench.engine.moves();
    while node.bench.engine.shards().len() != count {
        moves.changed().await.expect("the engine lives");
    }
}

#[tokio::test]
async fn members_share_the_shards_and_hand_over_when_they_leave() {
    let store = Arc::new(ModelStore::new());
    store.lay_out(SHARDS).await.expect("lays out");
    let near = Near::default();
    let one = Node::new(1, &store, &near).await;
    let first = member(&one).await;
    assert!(one.bench.engine.is_whole(), "who is alone has all at once");
    let id = id_in(3);
    one.bench
        .engine
        .start(named("paid", id))
        .await
        .expect("is here");
    let other = Node::new(2, &store, &near).await;
    let second = member(&other).await;
    has(&one, 2).await;
    has(&other, 2).await;
    assert!(!second.is_alone());
    first.leave().await;
    has(&other, 4).await;
    // What still asks the one that has left is passed on.
    for shard in 0..SHARDS {
        let bucket = buckets(shard, SHARDS).start;
        let found = one.bench.engine.settled(bucket, OWNER_PATIENCE).await;
        assert!(
            matches!(&found, Whereabouts::There(peer) if peer.node == other.id),
            "{found:?}"
        );
    }
    first.end().await;
    let cancelled = other
        .bench
        .engine
        .cancel(&tenant(), id, String::new())
        .await;
    cancelled.expect("is here now");
    second.leave().await;
    let left = store.cluster().await.expect("reads");
    assert!(left.nodes.is_empty(), "{left:?}");
    assert!(
        left.shards.iter().all(|row| row.holder().is_none()),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_member_that_cannot_renew_lets_go_by_its_own_clock_and_comes_back() {
    let store = Arc::new(ModelStore::new());
    store.lay_out(SHARDS).await.expect("lays out");
    let node = Node::new(1, &store, &Near::default()).await;
    let cluster = member(&node).await;
    has(&node, 4).await;
    store.hold_heartbeats();
    // By the store's clock, which stands, the leases go on.
    has(&node, 0).await;
    let epochs = |view: crate::store::View| view.shards.iter().map(|row| row.epoch.0).sum::<u64>();
    let before = epochs(store.cluster().await.expect("reads"));
    store.pass(TTL);
    store.release();
    has(&node, 4).await;
    let after = epochs(store.cluster().await.expect("reads"));
    assert_eq!(after, before + 4, "what it had sent before is fenced off");
    cluster.leave().await;
}
