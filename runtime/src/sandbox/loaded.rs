//! Modules that stay loaded, within bounds.
//!
//! Whoever holds most makes room: a tenant whose modules are run in turn cannot
//! push out those of others.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cascade_cdl::TenantId;
use rustix::process::{Resource, getrlimit};

/// Whose module, and which.
pub(super) type Key = (TenantId, Arc<str>);

/// Most modules that stay loaded: as many as slots stay warm.
const MAX_MODULES: u64 = 1_000;
/// Most bytes of native code that stay loaded. A small activity has 200 KB, a
/// Python one 60 MB.
const MAX_BYTES: u64 = 512 << 20;
/// Most memory images of the modules that stay loaded, each a descriptor: two a
/// module.
const MAX_IMAGES: u64 = 2 * MAX_MODULES;
/// Where the process may have few descriptors, half of them are left to
/// connections and files.
const DESCRIPTORS_PER_IMAGE: u64 = 2;

/// What a loaded module takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Native code.
    pub(super) bytes: u64,
    /// Memory images, at most.
    pub(super) images: u64,
}

/// What a module has of one of the things that are bounded.
type Weigh = fn(&Footprint) -> u64;

/// All modules that are loaded.
pub(super) struct Loaded<M> {
    modules: RwLock<HashMap<Key, Entry<M>>>,
    /// Counts uses.
    clock: AtomicU64,
    most: Footprint,
}

struct Entry<M> {
    module: Arc<M>,
    footprint: Footprint,
    last_used: AtomicU64,
}

impl<M> Default for Loaded<M> {
    fn default() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::with(Footprint {
            bytes: MAX_BYTES,
            images: MAX_IMAGES.min(descriptors / DESCRIPTORS_PER_IMAGE),
        })
    }
}

impl<M> Loaded<M> {
    fn with(most: Footprint) -> Self {
        Self {
            modules: RwLock::default(),
            clock: AtomicU64::new(0),
            most,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<M>> {
        let modules = self.modules.read().unwrap_or_else(PoisonError::into_inner);
        let entry = modules.get(key)?;
        entry.last_used.store(self.tick(), Ordering::Relaxed);
        Some(Arc::clone(&entry.module))
    }

    pub(super) fn remove(&self, key: &Key) {
        let mut modules = self.modules.write().unwrap_or_else(PoisonError::into_inner);
        modules.remove(key);
    }

    /// Keeps a module, and lets go of others beyond the bounds.
    pub(super) fn insert(&self, key: &Key, module: Arc<M>, footprint: Footprint) {
        let mut modules = self.modules.write().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            module,
            footprint,
            last_used: AtomicU64::new(self.tick()),
        };
        modules.insert(key.clone(), entry);
        while let Some(weigh) = self.exceeded(&modules) {
            let mut held: HashMap<&TenantId, u64> = HashMap::new();
            for (key, entry) in modules.iter() {
                *held.entry(&key.0).or_default() += weigh(&entry.footprint);
            }
            // Not the one that is about to run.
            let others = modules.iter().filter(|(other, _)| *other != key);
            let victim = others.max_by_key(|(key, entry)| {
                (
                    held[&key.0],
                    Reverse(entry.last_used.load(Ordering::Relaxed)),
                )
            });
            let Some(victim) = victim.map(|(victim, _)| victim.clone()) else {
                return; // one alone may be beyond the bounds
            };
            modules.remove(&victim);
        }
    }

    /// How to weigh modules in what there is too much of, if there is.
    fn exceeded(&self, modules: &HashMap<Key, Entry<M>>) -> Option<Weigh> {
        let bounds: [(Weigh, u64); 3] = [
            (|_| 1, MAX_MODULES),
            (|footprint| footprint.bytes, self.most.bytes),
            (|footprint| footprint.images, self.most.images),
        ];
        let over = bounds.into_iter().find(|(weigh, most)| {
            modules
                .values()
                .map(|entry| weigh(&entry.footprint))
                .sum::<u64>()
                > *most
        });
        over.map(|(weigh, _)| weigh)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, name: &str) -> Key {
        (tenant.parse().expect("valid"), name.into())
    }

    fn loaded(modules: &[(&str, &str, u64, u64)]) -> Loaded<()> {
        let loaded = Loaded::with(Footprint {
            bytes: 100,
            images: 10,
        });
        for (tenant, name, bytes, images) in modules {
            let footprint = Footprint {
                bytes: *bytes,
                images: *images,
            };
            loaded.insert(&key(tenant, name), Arc::new(()), footprint);
        }
        loaded
    }

    fn has(loaded: &Loaded<()>, tenant: &str, name: &str) -> bool {
        loaded.get(&key(tenant, name)).is_some()
    }

    #[test]
    fn who_holds_most_makes_room_with_what_was_used_longest_ago() {
        let loaded = loaded(&[
            ("b", "old", 20, 1),
            ("a", "1", 30, 1),
            ("a", "2", 30, 1),
            ("a", "3", 30, 1), // too much: `a` has 90 of 110
        ]);
        assert!(has(&loaded, "b", "old"));
        assert!(!has(&loaded, "a", "1"));
        assert!(has(&loaded, "a", "2") && has(&loaded, "a", "3"));
        assert!(has(&loaded, "a", "2"), "used last");
        let footprint = Footprint {
            bytes: 30,
            images: 1,
        };
        loaded.insert(&key("b", "new"), Arc::new(()), footprint);
        assert!(!has(&loaded, "a", "3"), "`a` still holds most");
        assert!(has(&loaded, "a", "2") && has(&loaded, "b", "old"));
    }

    #[test]
    fn memory_images_are_bounded_and_the_newest_stays_whatever_it_takes() {
        let loaded = loaded(&[("a", "1", 1, 6), ("b", "1", 1, 5)]);
        assert!(!has(&loaded, "a", "1") && has(&loaded, "b", "1"));
        let footprint = Footprint {
            bytes: 500,
            images: 1,
        };
        loaded.insert(&key("c", "1"), Arc::new(()), footprint);
        assert!(has(&loaded, "c", "1") && !has(&loaded, "b", "1"));
    }
}
