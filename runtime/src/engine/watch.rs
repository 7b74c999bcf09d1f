//! Tells who watches an execution of its commits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cascade_cdl::{ExecutionId, TenantId};
use tokio::sync::watch;

/// The watchers of all executions. Nothing of it is durable: who watches
/// reads the history from the store and is only told when to look again.
#[derive(Default)]
pub struct Watch {
    /// Number of entries, so that a commit nobody watches takes no lock.
    count: AtomicUsize,
    senders: Mutex<HashMap<(TenantId, ExecutionId), watch::Sender<u64>>>,
}

impl Watch {
    /// A receiver of the committed versions of an execution, which need not exist yet.
    pub fn subscribe(&self, tenant: &TenantId, id: ExecutionId) -> watch::Receiver<u64> {
        let mut senders = self.senders();
        senders.retain(|_, sender| sender.receiver_count() > 0);
        let receiver = senders
            .entry((tenant.clone(), id))
            .or_insert_with(|| watch::channel(0).0)
            .subscribe();
        self.count.store(senders.len(), Ordering::Release);
        receiver
    }

    /// Tells of a commit.
    pub fn committed(&self, tenant: &TenantId, id: ExecutionId, version: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(sender) = self.senders().get(&(tenant.clone(), id)) {
            sender.send_replace(version);
        }
    }

    /// Has all who watch look again: somebody else may tell of commits by now.
    pub fn look(&self) {
        for sender in self.senders().values() {
            sender.send_modify(|_| ());
        }
    }

    fn senders(&self) -> MutexGuard<'_, HashMap<(TenantId, ExecutionId), watch::Sender<u64>>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
