//! The task that makes this process a member: tells that it is there, renews its leases, opens
//! what it takes and closes what it gives.
//!
//! A lease is counted from before its renewal was sent, by this machine's monotonic clock. If
//! that runs out without an answer, all shards are let go of at once: somebody else may have
//! them. A process that stood still and does not know it finds its commits refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::plan::plan;
use crate::engine::{Engine, Peer};
use crate::store::{self, Hold, Node, NodeId, ShardId, Store, View};
use crate::telemetry;

/// A lease is renewed so often before it ends: three renewals in a row may be lost before
/// another node may take it.
const RENEWALS: u32 = 4;

/// How long after a lease of another node has ended it is looked at: so that it has, by the
/// database's clock, whatever the network does to the time in between.
const AFTER_THE_END: Duration = Duration::from_millis(20);

/// Shortest time between two looks: several changes are often told of together.
const LOOKS: Duration = Duration::from_millis(5);

/// How long a node that leaves waits for its shards to be closed: longer than that of the last
/// commit of one.
const LEAVE: Duration = Duration::from_secs(15);

/// How this process is a member.
#[derive(Debug, Clone)]
pub struct Settings {
    /// URL where the others reach its API.
    pub address: String,
    /// How long a lease lasts without being renewed.
    pub ttl: Duration,
}

/// A handle to this process's membership. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    id: NodeId,
    leaving: AtomicBool,
    /// It holds nothing any more and has said so, or nobody waits for that any longer.
    left: CancellationToken,
    /// Other nodes that are there, as seen last.
    others: AtomicUsize,
    wake: Notify,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Cluster {
    /// Joins, and returns when the shards that were free for it are open. Others follow.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn join(
        id: NodeId,
        settings: Settings,
        engine: Engine,
        store: Arc<dyn Store>,
    ) -> Result<Self, store::Error> {
        let shared = Arc::new(Shared {
            id,
            leaving: AtomicBool::new(false),
            left: CancellationToken::new(),
            others: AtomicUsize::new(0),
            wake: Notify::new(),
            task: std::sync::Mutex::new(None),
        });
        let mut member = Member {
            changes: store.changes(),
            shared: shared.clone(),
            settings,
            engine,
            store,
            deadline: None,
            looked: Instant::now(),
            soonest: None,
            opening: BTreeSet::new(),
            closing: BTreeSet::new(),
            work: JoinSet::new(),
        };
        member.look().await?;
        // What this node finds free is open when it is said to be ready.
        while let Some(done) = member.work.join_next().await {
            member.ended(done);
        }
        member.look().await?;
        let task = tokio::spawn(member.run());
        *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(Self(shared))
    }

    /// Whose membership it is.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// Whether no other node was there when this one looked last.
    pub fn is_alone(&self) -> bool {
        self.0.others.load(Ordering::Acquire) == 0
    }

    /// Hands over all that this node holds, and leaves. Until [`Cluster::end`] it hears who
    /// has what: requests that are still here are passed on.
    pub async fn leave(&self) {
        self.0.leaving.store(true, Ordering::Release);
        self.0.wake.notify_one();
        if timeout(LEAVE, self.0.left.cancelled()).await.is_err() {
            tracing::warn!("shards are not handed over in time; their leases will end");
            // Who calls again has waited for it.
            self.0.left.cancel();
        }
    }

    /// Ends the membership, in whatever state it is.
    pub async fn end(&self) {
        let task = self.0.task.lock();
        let task = task.unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return };
        task.abort();
        match task.await {
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "the membership ended badly");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

struct Member {
    shared: Arc<Shared>,
    settings: Settings,
    engine: Engine,
    store: Arc<dyn Store>,
    changes: watch::Receiver<u64>,
    /// When the leases end that this node holds; absent if it holds none.
    deadline: Option<Instant>,
    /// When it looked last.
    looked: Instant,
    /// When the first lease of another node ends that is not renewed.
    soonest: Option<Instant>,
    /// Shards that are being taken and opened.
    opening: BTreeSet<ShardId>,
    /// Shards that are being closed and given back.
    closing: BTreeSet<ShardId>,
    work: JoinSet<ShardId>,
}

impl Member {
    async fn run(mut self) {
        // Nobody waits in vain if this ends otherwise.
        let left = self.shared.left.clone().drop_guard();
        loop {
            self.wait().await;
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the leases of this node cannot be renewed");
                self.soonest = None;
            }
            let leaving = self.shared.leaving.load(Ordering::Acquire);
            if leaving && self.engine.shards().is_empty() && self.work.is_empty() {
                break;
            }
        }
        if let Err(error) = self.store.leave(self.shared.id).await {
            tracing::warn!(%error, "this node leaves without a word; its leases will end");
        }
        drop(left);
        self.follow().await;
    }

    /// Tells the engine who has what, for requests that are still here.
    async fn follow(mut self) {
        loop {
            self.changes.mark_unchanged();
            match self.store.cluster().await {
                Ok(view) => self.engine.set_peers(peers(&view, self.shared.id)),
                Err(error) => tracing::debug!(%error, "who has what is not known"),
            }
            let interval = self.settings.ttl / RENEWALS;
            if let Ok(Err(_)) = timeout(interval, self.changes.changed()).await {
                return; // the store is closed
            }
        }
    }

    /// Waits until it is time to look again.
    async fn wait(&mut self) {
        let interval = self.settings.ttl / RENEWALS;
        let mut next = self.looked + interval;
        if let Some(soonest) = self.soonest {
            next = next.min(soonest.max(self.looked + LOOKS));
        }
        let shared = self.shared.clone();
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.wake.notified() => {}
            Ok(()) = self.changes.changed() => sleep_until(self.looked + LOOKS).await,
            Some(done) = self.work.join_next(), if !self.work.is_empty() => self.ended(done),
        }
        while let Some(done) = self.work.try_join_next() {
            self.ended(done);
        }
    }

    fn ended(&mut self, done: Result<ShardId, tokio::task::JoinError>) {
        match done {
            Ok(shard) => {
                self.opening.remove(&shard);
                self.closing.remove(&shard);
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                // Which it was is found out by the next look: it is held, and not open.
                tracing::error!(%error, "a shard could not be opened or closed");
                self.work.abort_all();
                self.opening.clear();
                self.closing.clear();
            }
        }
    }

    /// Tells that this node is there, renews its leases, and acts on what there is.
    async fn look(&mut self) -> Result<(), store::Error> {
        self.changes.mark_unchanged();
        let sent = Instant::now();
        self.looked = sent;
        let node = self.node();
        let (store, ttl) = (self.store.clone(), self.settings.ttl);
        let mut asked = std::pin::pin!(store.heartbeat(&node, ttl));
        let view = loop {
            let deadline = self.deadline;
            tokio::select! {
                biased;
                view = &mut asked => break view?,
                () = async { sleep_until(deadline.expect("checked")).await },
                    if deadline.is_some() => self.expire(),
            }
        };
        if sent.elapsed() >= ttl {
            self.expire(); // what was renewed has ended since
        } else {
            self.deadline = Some(sent + ttl);
        }
        self.act(&view);
        Ok(())
    }

    fn node(&self) -> Node {
        let shards: BTreeMap<String, serde_json::Value> = self
            .engine
            .shards()
            .into_iter()
            .map(|shard| {
                let commit = u64::try_from(shard.commit.as_micros()).unwrap_or(u64::MAX);
                let load = json!({
                    "open": shard.open, "waiting": shard.waiting, "commit_micros": commit,
                });
                (shard.lease.shard.0.to_string(), load)
            })
            .collect();
        let load = json!({ "queued": self.engine.stats().queued, "shards": shards });
        Node {
            id: self.shared.id,
            address: self.settings.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            load: load.to_string(),
            leaving: self.shared.leaving.load(Ordering::Acquire),
        }
    }

    /// Lets go of everything: the leases have ended, as far as this node can know.
    fn expire(&mut self) {
        self.deadline = None;
        self.work.abort_all();
        self.opening.clear();
        self.closing.clear();
        for shard in self.engine.shards() {
            tracing::warn!(
                shard.id = shard.lease.shard.0,
                "its lease could not be renewed"
            );
            self.engine.abandon(shard.lease.shard);
        }
        telemetry::leases_held(0);
    }

    /// Brings this node to what the store says, and to its part of the shards.
    fn act(&mut self, view: &View) {
        let me = self.shared.id;
        let others = view
            .nodes
            .iter()
            .filter(|row| row.is_live && !row.node.leaving && row.node.id != me);
        self.shared.others.store(others.count(), Ordering::Release);
        self.soonest = soonest(view, me, self.looked);
        let held: BTreeSet<ShardId> = view
            .shards
            .iter()
            .filter(|row| row.holder() == Some(me))
            .map(|row| row.shard)
            .collect();
        let open: BTreeSet<ShardId> = self
            .engine
            .shards()
            .iter()
            .map(|shard| shard.lease.shard)
            .collect();
        telemetry::leases_held(held.len());
        for shard in open.difference(&held) {
            // One that is being opened was taken after this was read.
            if !self.opening.contains(shard) {
                self.engine.abandon(*shard);
            }
        }
        self.engine.set_peers(peers(view, me));
        let orphans = held.difference(&open);
        for shard in orphans.copied().collect::<Vec<_>>() {
            if !self.opening.contains(&shard) {
                // It ended by itself, or was taken by an answer that nobody heard.
                self.close(shard);
            }
        }
        let plan = plan(me, view, self.settings.ttl);
        for shard in plan.give {
            if open.contains(&shard) {
                self.close(shard);
            }
        }
        for row in &view.shards {
            if plan.take.contains(&row.shard) {
                self.open(row.shard, row.buckets.clone());
            }
        }
    }

    /// Takes a shard and opens it.
    fn open(&mut self, shard: ShardId, buckets: Range<u32>) {
        if self.closing.contains(&shard) || !self.opening.insert(shard) {
            return;
        }
        let (engine, store) = (self.engine.clone(), self.store.clone());
        let (me, ttl) = (self.shared.id, self.settings.ttl);
        self.work.spawn(async move {
            let opened = async {
                let Some(lease) = store.claim(me, shard, ttl).await? else {
                    return Ok(false); // somebody else was first
                };
                engine.open_shard(me, lease, buckets).await?;
                Ok::<_, store::Error>(true)
            };
            match opened.await {
                Ok(true) => {
                    telemetry::lease_taken();
                    tracing::info!(shard.id = shard.0, "shard taken");
                }
                Ok(false) => {}
                // If it is held, the next look finds that it is not open, and gives it back.
                Err(error) => tracing::error!(shard.id = shard.0, %error, "shard not opened"),
            }
            shard
        });
    }

    /// Closes a shard and gives it back.
    fn close(&mut self, shard: ShardId) {
        if !self.closing.insert(shard) {
            return;
        }
        let (engine, store, me) = (self.engine.clone(), self.store.clone(), self.shared.id);
        self.work.spawn(async move {
            engine.hand_over(shard).await;
            match store.give_back(me, &[shard]).await {
                Ok(()) => tracing::info!(shard.id = shard.0, "shard handed over"),
                // It is held and not open: the next look gives it back.
                Err(error) => tracing::warn!(shard.id = shard.0, %error, "shard not given back"),
            }
            shard
        });
    }
}

/// When the first lease of another node ends, unless it is renewed.
fn soonest(view: &View, me: NodeId, now: Instant) -> Option<Instant> {
    let lefts = view.shards.iter().filter_map(|row| match row.hold {
        Hold::Held { by, left } if by != me => Some(left),
        _ => None,
    });
    lefts.min().map(|left| now + left + AFTER_THE_END)
}

/// Who has the buckets that other nodes hold.
fn peers(view: &View, me: NodeId) -> Vec<(Range<u32>, Peer)> {
    let nodes: BTreeMap<NodeId, Arc<str>> = view
        .nodes
        .iter()
        .map(|row| (row.node.id, Arc::from(row.node.address.as_str())))
        .collect();
    let held = view.shards.iter().filter_map(|row| {
        let node = row.holder().filter(|node| *node != me)?;
        let address = nodes.get(&node)?.clone();
        Some((row.buckets.clone(), Peer { node, address }))
    });
    held.collect()
}
