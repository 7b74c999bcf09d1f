//! Whether an execution can go on under the new version.

use std::collections::BTreeSet;

use super::{Plan, Verdict, ahead, path};
use crate::program::{ScopeId, StateId};
use crate::{Execution, Frame, Step};

/// What stands in the way of an execution.
#[derive(Default)]
struct Obstacles {
    /// Paths of states that are gone.
    missing: BTreeSet<String>,
    reasons: BTreeSet<String>,
}

impl Plan {
    /// Whether an execution of the old program can go on under the new one.
    pub fn judge(&self, execution: &Execution) -> Verdict {
        let mut found = Obstacles::default();
        if self.old.is_asl() != self.new.is_asl() {
            let reason = "the new version is in another language";
            found.reasons.insert(reason.to_owned());
        }
        for step in &execution.saga.completed {
            self.judge_undoing(step.state, &mut found);
        }
        // While what was done is undone, there is nothing else under way.
        if !execution.is_compensating() {
            for frame in execution.frames.values() {
                self.judge_frame(frame, &mut found);
            }
            if found.missing.is_empty() && found.reasons.is_empty() {
                self.judge_ahead(execution, &mut found);
            }
        }
        let Obstacles { missing, reasons } = found;
        if !reasons.is_empty() {
            let reasons = reasons.into_iter().collect();
            return Verdict::Stuck { reasons };
        }
        if !missing.is_empty() {
            let states = missing.into_iter().collect();
            return Verdict::NeedsMapping { states };
        }
        Verdict::Safe
    }

    /// A step that was done may have to be undone, in the way that its Task said.
    fn judge_undoing(&self, id: StateId, found: &mut Obstacles) {
        let Some(new) = self.counterpart(id) else {
            found.missing.insert(path(&self.old, id));
            return;
        };
        let differing = self.differences(id, new);
        if differing
            .iter()
            .any(|field| ["type", "compensate"].contains(field))
        {
            let state = path(&self.new, new);
            let reason = format!("`{state}` was done, and what undoes it has changed");
            found.reasons.insert(reason);
        }
    }

    /// What a frame does has to mean the same.
    fn judge_frame(&self, frame: &Frame, found: &mut Obstacles) {
        let Some(new) = self.counterpart(frame.state) else {
            found.missing.insert(path(&self.old, frame.state));
            return;
        };
        let state = path(&self.new, new);
        if self.scope_of(frame.scope) != Some(self.new.state(new).scope) {
            let reason = format!("`{state}` is not where the execution stands");
            found.reasons.insert(reason);
            return;
        }
        let matters: &[&str] = match &frame.step {
            // Its chunks are known by its path.
            Step::Spreading(_) if path(&self.old, frame.state) != state => {
                let reason = format!("`{state}` is under way, and had another path");
                found.reasons.insert(reason);
                return;
            }
            Step::Activity { .. } | Step::BackingOff { .. } => &["type", "resource", "wait"],
            Step::Waiting { .. }
            | Step::Retrying { .. }
            | Step::Calling { .. }
            | Step::Spreading(_) => &["type"],
            Step::Listening { .. } => &["type", "event", "timeout"],
            Step::Asking(_) => &["type", "ui", "timeout", "escalate"],
            Step::Joining { .. } => &["type", "branches", "completion_strategy"],
            Step::Mapping(_) => &["type", "batch", "tolerated_failures"],
            Step::Held { .. } | Step::Done { .. } | Step::Failed { .. } | Step::Stopped {} => &[],
        };
        let differing = self.differences(frame.state, new);
        // Of ASL all matters: see `judge_ahead`.
        let differing = differing
            .into_iter()
            .filter(|field| self.new.is_asl() || matters.contains(field));
        let differing: Vec<_> = differing.map(|field| format!("`{field}`")).collect();
        if !differing.is_empty() {
            let fields = differing.join(", ");
            let reason = format!("`{state}` is under way, and its {fields} changed");
            found.reasons.insert(reason);
        }
    }

    /// What is ahead has to find what it needs.
    fn judge_ahead(&self, execution: &Execution, found: &mut Obstacles) {
        let Some(moved) = self.renumbered(execution.clone()) else {
            let reason = "a scope that the execution is in is gone";
            found.reasons.insert(reason.to_owned());
            return;
        };
        if self.new.is_asl() {
            for id in ahead::reached(&self.new, &moved) {
                let origin = self.origin(id);
                if origin.is_none_or(|old| !self.differences(old, id).is_empty()) {
                    let state = path(&self.new, id);
                    let reason = format!("`{state}` is ahead, and is not what it was");
                    found.reasons.insert(reason);
                }
            }
            return;
        }
        // What was missing before is no fault of the new version.
        let before: BTreeSet<_> = ahead::unmet(&self.old, execution)
            .into_iter()
            .filter_map(|(reader, key)| match reader {
                Some(id) => self.counterpart(id).map(|id| (Some(id), key)),
                None => Some((None, key)),
            })
            .collect();
        let writers = ahead::writers(&self.new);
        for unmet in ahead::unmet(&self.new, &moved) {
            let (reader, key) = &unmet;
            if before.contains(&unmet) {
                continue;
            }
            let reader = match reader {
                Some(id) => format!("`{}`", path(&self.new, *id)),
                None => "the workflow's output".to_owned(),
            };
            let giver = match writers.get(key.as_str()) {
                Some(id) => format!("which `{}` gives: that is behind", path(&self.new, *id)),
                None => "which nothing gives".to_owned(),
            };
            let reason = format!("{reader} needs `$.{key}`, {giver}");
            found.reasons.insert(reason);
        }
    }

    /// An execution with the numbers that states and scopes have in the new program.
    pub(crate) fn renumbered(&self, mut execution: Execution) -> Option<Execution> {
        for frame in execution.frames.values_mut() {
            frame.state = self.counterpart(frame.state)?;
            frame.scope = self.scope_of(frame.scope)?;
        }
        for step in &mut execution.saga.completed {
            step.state = self.counterpart(step.state)?;
        }
        Some(execution)
    }

    fn scope_of(&self, id: ScopeId) -> Option<ScopeId> {
        self.scopes.get(id.0 as usize).copied().flatten()
    }
}
