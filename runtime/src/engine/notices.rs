//! Tells other processes that executions have ended which somebody there waits for: a
//! parent, or the keeper of schedules.
//!
//! A notice may be lost: who waits looks at the store now and then, too. So nothing is kept,
//! nothing is tried again, and the channel is bounded.

use std::collections::HashMap;
use std::sync::Weak;

use cascade_cdl::{ExecutionId, TenantId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::owners::{Peer, Whereabouts};
use super::wire::{Ask, ask_peer};
use super::{Engine, Inner, KEEPER_BUCKET};

/// Notices that wait: those of some large commits.
const WAITING: usize = 8_192;

/// Notices of one message.
const MESSAGE: usize = 1_024;

/// Who waits for an end.
enum Waits {
    Parent(ExecutionId),
    Keeper,
}

/// An end that somebody waits for.
pub(super) struct Notice {
    tenant: TenantId,
    id: ExecutionId,
    version: u64,
    waits: Waits,
}

pub(super) type Notices = mpsc::Sender<Notice>;

pub(super) fn channel() -> (Notices, mpsc::Receiver<Notice>) {
    mpsc::channel(WAITING)
}

/// The end of an execution, if somebody waits for it.
pub(super) fn notice(live: &Live) -> Option<Notice> {
    live.summary.closed_at?;
    let execution = live.execution();
    let waits = match (&execution.parent, &execution.schedule) {
        (Some(parent), _) => Waits::Parent(parent.execution),
        (None, Some(_)) => Waits::Keeper,
        (None, None) => return None,
    };
    Some(Notice {
        tenant: live.summary.tenant.clone(),
        id: live.summary.id,
        version: live.summary.version,
        waits,
    })
}

/// Serves until the engine stops.
pub(super) async fn run(
    engine: Weak<Inner>,
    mut notices: mpsc::Receiver<Notice>,
    stopping: CancellationToken,
) {
    let mut some = Vec::new();
    loop {
        let count = tokio::select! {
            () = stopping.cancelled() => return,
            count = notices.recv_many(&mut some, MESSAGE) => count,
        };
        let Some(inner) = engine.upgrade().filter(|_| count > 0) else {
            return;
        };
        tell(&Engine { inner }, some.drain(..)).await;
    }
}

async fn tell(engine: &Engine, notices: impl Iterator<Item = Notice>) {
    let context = &engine.inner.context;
    let Some(peers) = context.owners.peers() else {
        return;
    };
    let mut by_node: HashMap<_, (Peer, Vec<_>)> = HashMap::new();
    for notice in notices {
        let bucket = match notice.waits {
            Waits::Keeper => KEEPER_BUCKET,
            Waits::Parent(parent) => match context.find(&notice.tenant, parent).await {
                Ok(bucket) => bucket,
                Err(_) => continue,
            },
        };
        if let Whereabouts::There(peer) = context.owners.whereabouts(bucket) {
            let (_, list) = by_node.entry(peer.node).or_insert((peer, Vec::new()));
            list.push((notice.tenant, notice.id, notice.version));
        }
    }
    for (peer, list) in by_node.into_values() {
        ask_peer(&*peers, &peer, &Ask::Ended(list)).await;
    }
}
