//! Turns of the attempts that compute, on one worker thread.
//!
//! The sandbox interrupts a guest that computes after about a millisecond. If
//! it then went on at once, an attempt that comes in would wait behind one
//! slice of every other: with sixty loops of a hostile tenant, behind sixty.
//! So of all attempts that have used up a slice, one at a time gets the next,
//! the one whose tenant has used least.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use cascade_cdl::TenantId;

/// Attempts that have used up a slice, in the order in which they go on.
pub(super) struct Turns<A> {
    /// By the time that their tenants had used, then by arrival.
    waiting: BTreeMap<(Duration, u64), (TenantId, A)>,
    tenants: HashMap<TenantId, Usage>,
    arrivals: u64,
    /// Time used by whoever had the last turn: where a tenant that comes anew
    /// starts, so that it does not have to be made up for.
    now: Duration,
}

/// What the attempts of one tenant that wait here have computed.
struct Usage {
    used: Duration,
    waiting: usize,
}

impl<A> Turns<A> {
    pub(super) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            tenants: HashMap::new(),
            arrivals: 0,
            now: Duration::ZERO,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lines up an attempt that has just computed for `spent`.
    pub(super) fn line_up(&mut self, tenant: TenantId, spent: Duration, attempt: A) {
        let usage = self.tenants.entry(tenant.clone()).or_insert(Usage {
            used: self.now,
            waiting: 0,
        });
        usage.used += spent;
        usage.waiting += 1;
        self.arrivals += 1;
        let ticket = (usage.used, self.arrivals);
        self.waiting.insert(ticket, (tenant, attempt));
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<(TenantId, A)> {
        let ((used, _), (tenant, attempt)) = self.waiting.pop_first()?;
        self.now = self.now.max(used);
        // Tenants are kept for as long as one of their attempts waits, or was
        // the last to go: else the one attempt of a tenant would start anew
        // at each of its turns, level with those that used more.
        self.tenants
            .retain(|known, usage| usage.waiting > 0 || *known == tenant);
        if let Some(usage) = self.tenants.get_mut(&tenant) {
            usage.waiting -= 1;
        }
        Some((tenant, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(1);

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("valid")
    }

    /// Gives each attempt its slices; an attempt is its name and how many it
    /// takes. The names in the order of the slices, those of the first turn
    /// not included.
    fn order(attempts: &[(&str, char, u32)]) -> String {
        let mut turns = Turns::new();
        for (owner, name, slices) in attempts {
            turns.line_up(tenant(owner), SLICE, (*name, slices - 1));
        }
        let mut order = String::new();
        while let Some((owner, (name, left))) = turns.next() {
            order.push(name);
            if left > 1 {
                turns.line_up(owner, SLICE, (name, left - 1));
            }
        }
        assert!(turns.is_empty(), "nobody waits");
        order
    }

    #[test]
    fn everything_that_computes_comes_to_its_end() {
        let order = order(&[("a", 'x', 5), ("a", 'y', 3), ("b", 'z', 4)]);
        let count = |name| order.chars().filter(|c| *c == name).count();
        assert_eq!([count('x'), count('y'), count('z')], [4, 2, 3], "{order}");
    }

    #[test]
    fn attempts_of_one_tenant_alternate() {
        assert_eq!(order(&[("a", 'x', 4), ("a", 'y', 4)]), "xyxyxy");
    }

    #[test]
    fn a_tenant_with_one_attempt_gets_as_much_as_one_with_ten() {
        let mut attempts = vec![("b", 'b', 6)];
        attempts.extend([("a", 'a', 6); 10]);
        let order = order(&attempts);
        // As long as `b` is there, it has every second turn at least.
        let last = order.rfind('b').expect("it ran");
        let others = order[..last].chars().filter(|c| *c == 'a').count();
        assert!(others <= 5, "{order}");
    }

    #[test]
    fn a_tenant_that_comes_anew_does_not_catch_up() {
        let mut turns = Turns::new();
        turns.line_up(tenant("a"), SLICE, 'a');
        for _ in 0..100 {
            let (owner, name) = turns.next().expect("it waits");
            turns.line_up(owner, SLICE, name);
        }
        turns.line_up(tenant("b"), SLICE, 'b');
        let mut order = String::new();
        for _ in 0..10 {
            let (owner, name) = turns.next().expect("they wait");
            order.push(name);
            turns.line_up(owner, SLICE, name);
        }
        let count = order.chars().filter(|c| *c == 'a').count();
        assert!((4..=6).contains(&count), "{order}");
    }

    #[test]
    fn tenants_that_have_gone_are_forgotten() {
        let mut turns = Turns::new();
        for n in 0..100 {
            turns.line_up(tenant(&format!("t{n}")), SLICE, n);
            turns.next();
        }
        assert!(turns.tenants.len() <= 1, "{}", turns.tenants.len());
    }
}
