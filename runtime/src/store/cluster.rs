//! Who of several processes holds which shards.
//!
//! A *node* is a process that shares the database with others. It holds shards by leases,
//! which end by the database's clock unless they are renewed; who takes a shard raises its
//! epoch, and commits of its former holder fail. So a lease says who should move executions
//! on, and the epoch sees to it that nobody else does.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use cascade_cdl::{BUCKETS, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Epoch, ShardId};

/// How long a node that is gone is still listed: as long as somebody may ask what became of it.
pub(super) const REMEMBERED: Duration = Duration::from_hours(1);

/// A process, from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Uuid);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// URL where the others reach its API.
    pub address: String,
    /// Of the program.
    pub version: String,
    /// JSON: what it has to do. The store does not look inside.
    pub load: String,
    /// It hands over all that it holds, and takes nothing.
    pub leaving: bool,
}

/// A node as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    pub node: Node,
    /// By the database's clock, as is all of this.
    pub started_at: Timestamp,
    pub seen_at: Timestamp,
    /// Whether it was heard of lately.
    pub is_live: bool,
}

/// Who holds a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// A node, for so long unless it renews.
    Held { by: NodeId, left: Duration },
    /// Nobody, since so long.
    Free { since: Duration },
}

/// A shard as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRow {
    pub shard: ShardId,
    pub buckets: Range<u32>,
    pub epoch: Epoch,
    pub hold: Hold,
}

impl ShardRow {
    /// The node that holds it, if one does.
    pub fn holder(&self) -> Option<NodeId> {
        match self.hold {
            Hold::Held { by, .. } => Some(by),
            Hold::Free { .. } => None,
        }
    }
}

/// What nodes and shards there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// By id.
    pub nodes: Vec<NodeRow>,
    /// By number.
    pub shards: Vec<ShardRow>,
}

/// The even ranges of `count` shards.
pub(super) fn layout(count: u32) -> Vec<(ShardId, Range<u32>)> {
    let count = count.clamp(1, BUCKETS);
    let first = |index: u32| (index * BUCKETS).div_ceil(count);
    let range = |index| (ShardId(index), first(index)..first(index + 1));
    (0..count).map(range).collect()
}

/// A lease as kept: until when, as milliseconds from now, may be over.
pub(super) fn hold(holder: Option<NodeId>, left_ms: i64) -> Hold {
    let span = Duration::from_millis(left_ms.unsigned_abs());
    match holder {
        Some(by) if left_ms > 0 => Hold::Held { by, left: span },
        // One that was never held since the clock was set back is free since now.
        _ if left_ms > 0 => Hold::Free {
            since: Duration::ZERO,
        },
        _ => Hold::Free { since: span },
    }
}

/// A span as databases count it.
pub(super) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
