//! Places for what the server does only so much of at a time: uploads, live
//! histories, replays.
//!
//! A tenant may hold a part of them, so that what one does, or leaves undone,
//! keeps nobody else from a place. Nothing here survives a crash, and nothing
//! has to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cascade_cdl::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one kind.
pub struct Places {
    all: Arc<Semaphore>,
    part: usize,
    /// Of those that have ever had one: there are only so many tenants.
    by_tenant: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

/// One of them, until it is dropped.
pub struct Place {
    _own: OwnedSemaphorePermit,
    _any: OwnedSemaphorePermit,
}

impl Places {
    /// So many, of which a tenant may hold a quarter, but one at least.
    pub fn new(all: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            part: (all / 4).max(1),
            by_tenant: Mutex::default(),
        }
    }

    /// A place, if one is free.
    pub fn try_take(&self, tenant: &TenantId) -> Option<Place> {
        self.try_take_many(tenant, 1)
    }

    /// So many places in one, if they are free; see [`Self::take_many`].
    pub fn try_take_many(&self, tenant: &TenantId, count: usize) -> Option<Place> {
        let count = self.clipped(count);
        let own = self.of(tenant).try_acquire_many_owned(count).ok()?;
        let any = Arc::clone(&self.all).try_acquire_many_owned(count).ok()?;
        Some(Place {
            _own: own,
            _any: any,
        })
    }

    /// A place, as soon as one is free. A tenant waits for its own part first,
    /// so those that wait for all are of many.
    pub async fn take(&self, tenant: &TenantId) -> Place {
        self.take_many(tenant, 1).await
    }

    /// So many places in one, as soon as they are free. What is larger than a tenant's
    /// part is given all of that, or it would wait for ever. Whoever holds places must not
    /// wait for more of the same kind: two could wait for each other.
    pub async fn take_many(&self, tenant: &TenantId, count: usize) -> Place {
        const OPEN: &str = "nobody closes it";
        let count = self.clipped(count);
        let own = self.of(tenant).acquire_many_owned(count).await;
        let any = Arc::clone(&self.all).acquire_many_owned(count).await;
        Place {
            _own: own.expect(OPEN),
            _any: any.expect(OPEN),
        }
    }

    /// The same, but not for longer than `patience`.
    pub async fn take_within(&self, tenant: &TenantId, patience: Duration) -> Option<Place> {
        tokio::time::timeout(patience, self.take(tenant)).await.ok()
    }

    fn clipped(&self, count: usize) -> u32 {
        u32::try_from(count.min(self.part)).unwrap_or(u32::MAX)
    }

    /// Places that a tenant may have yet, others aside.
    #[cfg(test)]
    pub(crate) fn left(&self, tenant: &TenantId) -> usize {
        self.of(tenant).available_permits()
    }

    fn of(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut parts = self
            .by_tenant
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get(tenant) {
            return Arc::clone(part);
        }
        let part = Arc::new(Semaphore::new(self.part));
        parts.insert(tenant.clone(), Arc::clone(&part));
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("valid")
    }

    #[test]
    fn a_tenant_holds_a_quarter_and_leaves_the_rest_to_others() {
        let places = Places::new(8);
        let (a, b) = (tenant("a"), tenant("b"));
        let held: Vec<_> = (0..8).filter_map(|_| places.try_take(&a)).collect();
        assert_eq!(held.len(), 2);
        let other = places.try_take(&b);
        assert!(other.is_some(), "there are more");
        drop(held);
        assert!(places.try_take(&a).is_some(), "they came back");
    }

    #[tokio::test]
    async fn one_that_is_larger_than_a_part_takes_all_of_it_and_waits_for_that() {
        let places = Places::new(40);
        let (a, b) = (tenant("a"), tenant("b"));
        let small = places.take_many(&a, 3).await;
        assert!(places.try_take_many(&a, 100).is_none());
        assert_eq!(places.left(&a), 7, "what was refused holds nothing");
        let (large, ()) = tokio::join!(places.take_many(&a, 100), async { drop(small) });
        assert_eq!((places.left(&a), places.left(&b)), (0, 10));
        drop(large);
        assert_eq!(places.left(&a), 10);
    }

    #[test]
    fn all_tenants_together_hold_no_more_than_there_are() {
        let places = Places::new(4);
        let tenants = ["a", "b", "c", "d", "e", "f"].map(tenant);
        let held: Vec<_> = tenants.iter().map(|id| places.try_take(id)).collect();
        assert_eq!(held.iter().flatten().count(), 4);
    }

    #[tokio::test]
    async fn who_is_patient_gets_the_place_that_comes_free() {
        let places = Places::new(1);
        let (a, b) = (tenant("a"), tenant("b"));
        let held = places.take(&a).await;
        assert!(places.take_within(&b, Duration::ZERO).await.is_none());
        let (_taken, ()) = tokio::join!(places.take(&b), async { drop(held) });
    }
}
