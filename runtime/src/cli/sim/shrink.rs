//! Fewer and plainer faults for the same failure.

use super::Simulation;
use super::faults::{Faults, Injected, Point};
use super::judge::Check;

/// Runs that shrinking may take. Eight faults need fewer than a hundred.
const MAX_TRIES: u32 = 200;

/// Looks for the least that goes wrong so that `check` fails as it did.
pub(super) async fn shrink(
    simulation: &mut Simulation,
    seed: u64,
    check: &Check,
    faults: Vec<Injected>,
) -> Vec<Injected> {
    let mut search = Search {
        simulation,
        seed,
        check,
        tries: 0,
    };
    // Often nothing has to go wrong at all, or one thing.
    if let Some(found) = search.fails(&[]).await {
        return found;
    }
    for fault in &faults {
        if let Some(found) = search.fails(std::slice::from_ref(fault)).await {
            return search.simplify(found).await;
        }
    }
    let fewer = search.fewer(faults).await;
    search.simplify(fewer).await
}

struct Search<'s> {
    simulation: &'s mut Simulation,
    seed: u64,
    check: &'s Check,
    tries: u32,
}

impl Search<'_> {
    /// Plays with these faults; gives those that took place if the failure is the same.
    async fn fails(&mut self, faults: &[Injected]) -> Option<Vec<Injected>> {
        if self.tries >= MAX_TRIES {
            return None;
        }
        self.tries += 1;
        let played = self
            .simulation
            .play(self.seed, Faults::Given(faults), false);
        // An invariant that cannot be evaluated is another problem than the one looked at.
        let Ok((run, judgement)) = played.await else {
            return None;
        };
        let same = judgement.broken.is_some_and(|it| it.check == *self.check);
        same.then_some(run.injected)
    }

    /// Leaves out one after the other until none can be.
    async fn fewer(&mut self, mut faults: Vec<Injected>) -> Vec<Injected> {
        // From the end: what comes later may only be what the failure led to.
        let mut at = faults.len();
        while at > 0 {
            at = at.min(faults.len()).saturating_sub(1);
            let mut without = faults.clone();
            if at < without.len() {
                without.remove(at);
            }
            if let Some(found) = self.fails(&without).await {
                faults = found;
            }
        }
        faults
    }

    /// Makes each of them plainer, and has it earlier, where that changes nothing.
    async fn simplify(&mut self, mut faults: Vec<Injected>) -> Vec<Injected> {
        let mut at = 0;
        while at < faults.len() {
            let candidates = earlier(&faults[at]).into_iter().chain(plainer(&faults[at]));
            let mut better = None;
            for candidate in candidates {
                let mut changed = faults.clone();
                changed[at] = candidate;
                if let Some(found) = self.fails(&changed).await
                    && found.len() <= faults.len()
                {
                    better = Some(found);
                    break;
                }
            }
            match better {
                // The same place again: it may get plainer still.
                Some(found) if found != faults => faults = found,
                _ => at += 1,
            }
        }
        faults
    }
}

fn plainer(injected: &Injected) -> Vec<Injected> {
    let plainer = injected.fault.plainer().into_iter();
    let there = |fault| Injected {
        at: injected.at.clone(),
        fault,
    };
    plainer.map(there).collect()
}

/// The same fault as early as it can be.
fn earlier(injected: &Injected) -> Option<Injected> {
    let first = match &injected.at {
        Point::Attempt { state, .. } => Point::Attempt {
            state: state.clone(),
            entry: 1,
            attempt: 1,
            dispatch: 1,
        },
        Point::Commit { number } => Point::Commit {
            number: number.saturating_sub(1).max(1),
        },
    };
    (first != injected.at).then(|| Injected {
        at: first,
        fault: injected.fault.clone(),
    })
}
