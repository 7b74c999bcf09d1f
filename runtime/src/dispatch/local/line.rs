//! A line in which attempts of one tenant wait, the more urgent first.
//!
//! Nine of ten go by priority, and by arrival within one. The tenth is whoever has
//! waited longest, whatever its priority: however much that is more urgent comes, an
//! attempt with `n` others before it by arrival is taken within `10 (n + 1)`. So nothing
//! starves, and what is urgent has nine tenths of the tenant's share at once.

use std::collections::VecDeque;

use cascade_cdl::program::Priority;

use super::super::AttemptKey;

/// Every so many takings go to whoever has waited longest.
const LONGEST_WAITING: u32 = 10;

/// Places, in the order of their numbers within each priority.
#[derive(Default)]
pub(super) struct Line {
    places: [VecDeque<(u64, AttemptKey)>; Priority::COUNT as usize],
    taken: u32,
}

impl Line {
    /// Takes a place at the end of those of the same priority. Numbers only ever grow.
    pub(super) fn push(&mut self, priority: Priority, number: u64, key: AttemptKey) {
        self.places[priority.index()].push_back((number, key));
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(u64, AttemptKey)> {
        let some = |places: &&mut VecDeque<_>| !places.is_empty();
        if self.taken + 1 < LONGEST_WAITING {
            let next = self.places.iter_mut().find(some)?.pop_front();
            self.taken += 1;
            return next;
        }
        let number = |places: &&mut VecDeque<(u64, _)>| places.front().map(|(number, _)| *number);
        let next = self.places.iter_mut().filter(some).min_by_key(number)?;
        self.taken = 0;
        next.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.places.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(VecDeque::is_empty)
    }

    /// Drops the places in which nobody waits.
    pub(super) fn retain(&mut self, waits: impl Fn(u64, &AttemptKey) -> bool) {
        for places in &mut self.places {
            places.retain(|(number, key)| waits(*number, key));
        }
    }
}
