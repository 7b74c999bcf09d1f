//! Nodes and their shards as they are meant. Time passes when a test says so.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use cascade_cdl::Timestamp;

use super::super::cluster::{REMEMBERED, layout};
use super::super::{Epoch, Hold, Node, NodeId, NodeRow, ShardId, ShardRow, View};

#[derive(Default)]
pub(super) struct Cluster {
    pub(super) now: Duration,
    pub(super) nodes: BTreeMap<NodeId, Known>,
    shards: BTreeMap<ShardId, Shard>,
}

pub(super) struct Known {
    node: Node,
    started: Duration,
    seen: Duration,
    until: Duration,
}

struct Shard {
    buckets: Range<u32>,
    holder: Option<NodeId>,
    /// When the lease ends, or ended.
    until: Duration,
}

impl Cluster {
    /// Says whether there were no shards before.
    pub(super) fn lay_out(&mut self, count: u32) -> bool {
        let is_first = self.shards.is_empty();
        if is_first {
            let free = |buckets| Shard {
                buckets,
                holder: None,
                until: self.now,
            };
            let shards = layout(count).into_iter();
            self.shards = shards.map(|(id, buckets)| (id, free(buckets))).collect();
        }
        is_first
    }

    pub(super) fn heartbeat(&mut self, node: &Node, ttl: Duration) {
        let now = self.now;
        let started = self.nodes.get(&node.id).map_or(now, |known| known.started);
        let known = Known {
            node: node.clone(),
            started,
            seen: now,
            until: now + ttl,
        };
        self.nodes.insert(node.id, known);
        self.nodes.retain(|_, known| known.until + REMEMBERED > now);
        for shard in self.shards.values_mut() {
            if shard.holder == Some(node.id) && shard.until > now {
                shard.until = now + ttl;
            }
        }
    }

    /// Who holds a shard now.
    pub(super) fn holder(&self, shard: ShardId) -> Option<NodeId> {
        let shard = self.shards.get(&shard)?;
        shard.holder.filter(|_| shard.until > self.now)
    }

    pub(super) fn claim(&mut self, node: NodeId, shard: ShardId, ttl: Duration) -> bool {
        let is_free = self.holder(shard).is_none();
        let until = self.now + ttl;
        match self.shards.get_mut(&shard) {
            Some(shard) if is_free => {
                (shard.holder, shard.until) = (Some(node), until);
                true
            }
            _ => false,
        }
    }

    pub(super) fn release(&mut self, node: NodeId, which: impl Fn(ShardId) -> bool) {
        for (id, shard) in &mut self.shards {
            if shard.holder == Some(node) && which(*id) {
                (shard.holder, shard.until) = (None, self.now);
            }
        }
    }

    pub(super) fn view(&self, epoch: impl Fn(ShardId) -> Epoch) -> View {
        let at = |time: Duration| Timestamp(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let nodes = self.nodes.values().map(|known| NodeRow {
            node: known.node.clone(),
            started_at: at(known.started),
            seen_at: at(known.seen),
            is_live: known.until > self.now,
        });
        let shards = self.shards.iter().map(|(id, shard)| ShardRow {
            shard: *id,
            buckets: shard.buckets.clone(),
            epoch: epoch(*id),
            hold: match self.holder(*id) {
                Some(by) => Hold::Held {
                    by,
                    left: shard.until.saturating_sub(self.now),
                },
                None => Hold::Free {
                    since: self.now.saturating_sub(shard.until),
                },
            },
        });
        View {
            nodes: nodes.collect(),
            shards: shards.collect(),
        }
    }
}
