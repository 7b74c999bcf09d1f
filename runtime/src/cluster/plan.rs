//! Who takes and who gives which shards.
//!
//! Each node aims at its part: all shards by the number of nodes that are there, rounded down
//! for some and up for the others, such that as few as possible move. Nodes see the same rows
//! and come to the same, each by itself; where they do not, for a moment, the store lets one
//! of them have a shard and the others look again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::{Hold, NodeId, ShardId, View};

/// What a node does about its shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Those of nobody that it should take.
    pub take: Vec<ShardId>,
    /// Its own that it should hand over.
    pub give: Vec<ShardId>,
}

/// What `me` does. A shard that nobody has taken for `overdue` is anybody's: whose turn it was
/// cannot.
pub fn plan(me: NodeId, view: &View, overdue: Duration) -> Plan {
    let members = members(view);
    let own: Vec<ShardId> = held(view, me);
    let Some(part) = parts(view, &members).remove(&me) else {
        // It leaves, or is taken for dead: nothing is its own any more.
        return Plan {
            take: Vec::new(),
            give: own,
        };
    };
    let free = view.shards.iter().filter_map(|row| match row.hold {
        Hold::Free { since } => Some((row.shard, since)),
        Hold::Held { .. } => None,
    });
    let mut turns = turns(view, &members);
    let take = free.filter_map(|(shard, since)| {
        let mine = turns.next() == Some(me);
        (mine || since >= overdue).then_some(shard)
    });
    Plan {
        take: take.collect(),
        // The first of all has more to it than its executions, and moves last.
        give: own.into_iter().skip(part).collect(),
    }
}

/// The nodes that shards are for.
fn members(view: &View) -> Vec<NodeId> {
    let there = view
        .nodes
        .iter()
        .filter(|row| row.is_live && !row.node.leaving);
    let mut members: Vec<_> = there.map(|row| row.node.id).collect();
    members.sort();
    members
}

fn held(view: &View, node: NodeId) -> Vec<ShardId> {
    let own = view.shards.iter().filter(|row| row.holder() == Some(node));
    let mut own: Vec<_> = own.map(|row| row.shard).collect();
    own.sort();
    own
}

/// How many shards each node should have. Who has most is rounded up first, so that nothing
/// moves only to be even.
fn parts(view: &View, members: &[NodeId]) -> BTreeMap<NodeId, usize> {
    if members.is_empty() {
        return BTreeMap::new();
    }
    let mut by_load: Vec<_> = members
        .iter()
        .map(|node| (held(view, *node).len(), *node))
        .collect();
    by_load.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let (least, more) = (
        view.shards.len() / members.len(),
        view.shards.len() % members.len(),
    );
    let parts = by_load.into_iter().enumerate();
    parts
        .map(|(rank, (_, node))| (node, least + usize::from(rank < more)))
        .collect()
}

/// Whose turn it is to take a free shard, one after the other: those who have too few.
fn turns(view: &View, members: &[NodeId]) -> impl Iterator<Item = NodeId> {
    let lacks = parts(view, members).into_iter().flat_map(|(node, part)| {
        let lacks = part.saturating_sub(held(view, node).len());
        std::iter::repeat_n(node, lacks)
    });
    lacks.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use cascade_cdl::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::store::{Epoch, Node, NodeRow, ShardRow};

    const OVERDUE: Duration = Duration::from_secs(2);

    fn id(number: usize) -> NodeId {
        NodeId(Uuid::from_u128(number as u128 + 1))
    }

    /// Nodes that are there and those that are leaving, and who holds each shard, if anybody.
    fn view(nodes: &[(bool, bool)], holders: &[Option<usize>]) -> View {
        let nodes = nodes
            .iter()
            .enumerate()
            .map(|(number, (is_live, leaving))| NodeRow {
                node: Node {
                    id: id(number),
                    address: String::new(),
                    version: String::new(),
                    load: String::new(),
                    leaving: *leaving,
                },
                started_at: Timestamp(0),
                seen_at: Timestamp(0),
                is_live: *is_live,
            });
        let shards = (0..).zip(holders).map(|(number, holder)| ShardRow {
            shard: ShardId(number),
            buckets: number..number + 1,
            epoch: Epoch(1),
            hold: match holder {
                Some(holder) => Hold::Held {
                    by: id(*holder),
                    left: OVERDUE,
                },
                None => Hold::Free {
                    since: Duration::ZERO,
                },
            },
        });
        View {
            nodes: nodes.collect(),
            shards: shards.collect(),
        }
    }

    /// All do what they plan, by one view.
    fn step(nodes: &[(bool, bool)], holders: &mut [Option<usize>]) -> bool {
        let seen = view(nodes, holders);
        let mut moved = false;
        for (number, (is_live, _)) in nodes.iter().enumerate() {
            if !is_live {
                continue;
            }
            let plan = plan(id(number), &seen, OVERDUE);
            for shard in plan.take {
                let holder = &mut holders[shard.0 as usize];
                assert!(
                    holder.is_none(),
                    "{shard:?} is taken twice, or was not free"
                );
                *holder = Some(number);
                moved = true;
            }
            for shard in plan.give {
                assert_eq!(seen.shards[shard.0 as usize].holder(), Some(id(number)));
                holders[shard.0 as usize] = None;
                moved = true;
            }
        }
        moved
    }

    fn cases() -> impl Strategy<Value = (Vec<(bool, bool)>, Vec<Option<usize>>)> {
        (1_usize..8).prop_flat_map(|nodes| {
            let live = prop::collection::vec((any::<bool>(), any::<bool>()), nodes);
            let holders = prop::collection::vec(prop::option::of(0..nodes), 0..40);
            (live, holders)
        })
    }

    proptest! {
        #[test]
        fn nodes_come_to_even_parts_in_two_steps_and_then_rest((nodes, mut holders) in cases()) {
            // The leases of those that are dead have ended.
            for holder in &mut holders {
                *holder = holder.filter(|holder| nodes[*holder].0);
            }
            step(&nodes, &mut holders);
            step(&nodes, &mut holders);
            prop_assert!(!step(&nodes, &mut holders), "{holders:?}");
            let members: Vec<_> = (0..nodes.len()).filter(|n| nodes[*n] == (true, false)).collect();
            let count = |node: &usize| holders.iter().filter(|holder| **holder == Some(*node)).count();
            let counts: Vec<_> = members.iter().map(count).collect();
            if let (Some(most), Some(least)) = (counts.iter().max(), counts.iter().min()) {
                prop_assert!(most - least <= 1, "{counts:?}");
                prop_assert!(holders.iter().all(Option::is_some), "{holders:?}");
            }
        }

        #[test]
        fn no_more_moves_than_must((nodes, holders) in cases()) {
            let seen = view(&nodes, &holders);
            let members: Vec<_> = (0..nodes.len()).filter(|n| nodes[*n] == (true, false)).collect();
            for node in &members {
                let own = holders.iter().filter(|holder| **holder == Some(*node)).count();
                let plan = plan(id(*node), &seen, OVERDUE);
                let after = own + plan.take.len() - plan.give.len();
                prop_assert!(plan.take.is_empty() || plan.give.is_empty());
                let (least, most) = (
                    holders.len() / members.len(),
                    holders.len().div_ceil(members.len()),
                );
                prop_assert!(plan.give.is_empty() || (least..=most).contains(&after));
                prop_assert!(after <= most);
            }
        }
    }

    #[test]
    fn what_nobody_takes_in_time_is_anybodys() {
        let mut seen = view(&[(true, false), (true, false)], &[Some(0), None]);
        assert_eq!(plan(id(0), &seen, OVERDUE), Plan::default());
        seen.shards[1].hold = Hold::Free { since: OVERDUE };
        assert_eq!(plan(id(0), &seen, OVERDUE).take, [ShardId(1)]);
    }
}
