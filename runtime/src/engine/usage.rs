//! What each tenant has of the engine, counted where it is refused more.
//!
//! The counts of a tenant are shared by all shards and by the handles that
//! requests come through. What is counted gives itself back when it is
//! dropped, so that no way out of a shard can forget it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cascade_cdl::TenantId;

use super::owners::Vitals;
use super::{Admission, Full};

/// Bytes of a start's input that take about as long to read as the rest of it.
const WEIGHT_BYTES: u64 = 4 * 1024;

/// What one tenant has of all shards.
#[derive(Default)]
pub(super) struct Usage {
    /// Executions that are open, sleeping ones included.
    open: AtomicU64,
    /// Memory of those that a shard holds, see [`Charge`].
    bytes: AtomicU64,
    /// Weight of the requests that no shard has answered or begun to, see [`Place`].
    waiting: AtomicU64,
}

impl Usage {
    /// Checks that one more execution may be open.
    pub(super) fn admit(&self, admission: &Admission) -> Result<(), Full> {
        let open = self.open.load(Ordering::Relaxed);
        if open >= admission.open_executions {
            return Err(Full::Executions {
                open,
                limit: admission.open_executions,
            });
        }
        if self.bytes.load(Ordering::Relaxed) >= admission.open_bytes {
            return Err(Full::Bytes {
                limit: admission.open_bytes,
            });
        }
        Ok(())
    }
}

/// The usage of all tenants.
#[derive(Default)]
pub(super) struct Usages {
    by_tenant: RwLock<HashMap<TenantId, Arc<Usage>>>,
}

impl Usages {
    pub(super) fn of(&self, tenant: &TenantId) -> Arc<Usage> {
        let known = self
            .by_tenant
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(tenant)
            .cloned();
        known.unwrap_or_else(|| {
            let mut usages = self
                .by_tenant
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            usages.entry(tenant.clone()).or_default().clone()
        })
    }

    /// Executions of all tenants that are open, and the memory that they take.
    pub(super) fn total(&self) -> (u64, u64) {
        let usages = self
            .by_tenant
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        usages.values().fold((0, 0), |(open, bytes), usage| {
            (
                open + usage.open.load(Ordering::Relaxed),
                bytes + usage.bytes.load(Ordering::Relaxed),
            )
        })
    }
}

/// A request's place before a shard, from when it is sent until the shard has
/// what it needs to handle it.
pub(super) struct Place {
    usage: Arc<Usage>,
    weight: u64,
}

impl Place {
    /// A place for a request that carries so many bytes; `None` if the tenant
    /// has `most` already. One that is alone always has a place.
    pub(super) fn take(usage: Arc<Usage>, bytes: usize, most: u64) -> Option<Self> {
        let weight = 1 + bytes as u64 / WEIGHT_BYTES;
        let before = usage.waiting.fetch_add(weight, Ordering::Relaxed);
        // Gives back what it took if there was no room.
        let place = Self { usage, weight };
        (before == 0 || before + weight <= most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.usage.waiting.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

/// What one tenant has of one shard.
pub(super) struct Holding {
    usage: Arc<Usage>,
    open: AtomicU64,
    bytes: AtomicU64,
    /// How many bytes it may have before executions leave memory.
    share: AtomicU64,
    /// Where the shard's open executions are counted.
    vitals: Arc<Vitals>,
}

impl Holding {
    pub(super) fn new(usage: Arc<Usage>, share: u64, vitals: Arc<Vitals>) -> Self {
        Self {
            usage,
            vitals,
            open: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            share: AtomicU64::new(share),
        }
    }

    /// The same tenant in all shards.
    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// One more open execution.
    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.usage.open.fetch_add(1, Ordering::Relaxed);
        self.vitals.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(super) fn closed(&self) {
        // Only the shard itself counts here, so nobody comes in between.
        if self.open.load(Ordering::Relaxed) > 0 {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.usage.open.fetch_sub(1, Ordering::Relaxed);
            self.vitals.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn share(&self) -> u64 {
        self.share.load(Ordering::Relaxed)
    }

    pub(super) fn set_share(&self, share: u64) {
        self.share.store(share, Ordering::Relaxed);
    }

    /// Whether nothing more should come into memory.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.share()
    }
}

/// The count of open executions is of what a shard holds.
impl Drop for Holding {
    fn drop(&mut self) {
        let open = self.open.load(Ordering::Relaxed);
        self.usage.open.fetch_sub(open, Ordering::Relaxed);
        self.vitals.open.fetch_sub(open, Ordering::Relaxed);
    }
}

/// Memory that an execution takes, counted for as long as this lives.
pub(super) struct Charge {
    holding: Arc<Holding>,
    bytes: u64,
}

impl Charge {
    /// Nothing yet.
    pub(super) fn new(holding: Arc<Holding>) -> Self {
        Self { holding, bytes: 0 }
    }

    pub(super) fn holding(&self) -> &Holding {
        &self.holding
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts `bytes` instead of what it counted.
    pub(super) fn set(&mut self, bytes: u64) {
        let count = |counter: &AtomicU64| {
            if bytes >= self.bytes {
                counter.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            } else {
                counter.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            }
        };
        count(&self.holding.bytes);
        count(&self.holding.usage.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_refused_beyond_the_bound_and_given_back_when_dropped() {
        let usage = Arc::new(Usage::default());
        let take = |bytes| Place::take(usage.clone(), bytes, 3);
        let first = take(0).expect("there is room");
        assert!(take(8 * 1024).is_none(), "1 and 3 are beyond 3");
        let second = take(4 * 1024).expect("1 and 2 are not");
        assert!(take(0).is_none());
        drop((first, second));
        let alone = take(1 << 20);
        assert!(
            alone.is_some(),
            "what is alone has a place whatever it weighs"
        );
        drop(alone);
        assert_eq!(usage.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_dropped_is_not_counted_any_more() {
        let usage = Arc::new(Usage::default());
        let holding = Arc::new(Holding::new(usage.clone(), 100, Arc::default()));
        let mut charge = Charge::new(holding.clone());
        charge.set(150);
        assert!(holding.is_full());
        charge.set(60);
        assert!(!holding.is_full());
        assert_eq!(usage.bytes.load(Ordering::Relaxed), 60);
        holding.opened();
        drop(charge);
        drop(holding);
        let left = [&usage.bytes, &usage.open].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(left, [0, 0]);
    }
}
