//! What leads from a state to others.

use super::{Catch, Next, Resource, ScopeId, State, StateId, StateKind};
use crate::asl::program as asl;

impl State {
    /// The states that follow when it ends well, in the order of the file; one that
    /// several ways lead to is there as often.
    pub(crate) fn following(&self) -> Vec<StateId> {
        let next = match &self.kind {
            StateKind::Task(kind) => Some(kind.next),
            StateKind::Pass { next, .. }
            | StateKind::Parallel { next, .. }
            | StateKind::Wait { next, .. } => Some(*next),
            StateKind::Map(kind) => Some(kind.next),
            StateKind::Event(kind) => Some(kind.next),
            StateKind::Human(kind) => Some(kind.next),
            StateKind::Asl(kind) => kind.next,
            StateKind::Choice { .. } | StateKind::Succeed { .. } | StateKind::Fail { .. } => None,
        };
        let mut found = Vec::new();
        if let Some(Next::State(id)) = next {
            found.push(id);
        }
        match &self.kind {
            StateKind::Choice { choices, default } => {
                found.extend(choices.iter().map(|way| way.next));
                found.extend(default);
            }
            StateKind::Asl(kind) => {
                if let asl::Kind::Choice { rules, default } = &kind.kind {
                    found.extend(rules.iter().map(|rule| rule.next));
                    found.extend(default);
                }
            }
            _ => {}
        }
        found
    }

    /// The states that take over when it fails, or when nobody answers it in time.
    pub(crate) fn handling(&self) -> Vec<StateId> {
        let timeout = match &self.kind {
            StateKind::Event(kind) => kind.timeout,
            StateKind::Human(kind) => kind.timeout,
            _ => None,
        };
        let late = timeout.and_then(|timeout| timeout.next);
        let caught = self.catches().iter().map(|catch| catch.next);
        let mut found: Vec<_> = late.into_iter().chain(caught).collect();
        if let StateKind::Asl(kind) = &self.kind {
            found.extend(kind.catch.iter().map(|catch| catch.next));
        }
        found
    }

    /// The scopes in it.
    pub(crate) fn nested(&self) -> Vec<ScopeId> {
        match &self.kind {
            StateKind::Parallel { branches, .. } => branches.clone(),
            StateKind::Map(map) => vec![map.iterator],
            StateKind::Asl(state) => match &state.kind {
                asl::Kind::Parallel { branches } => branches.clone(),
                asl::Kind::Map(map) => vec![map.processor],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Its handlers of errors; an ASL state has those of its own kind.
    pub fn catches(&self) -> &[Catch] {
        match &self.kind {
            StateKind::Task(kind) => &kind.catch,
            StateKind::Parallel { catch, .. } => catch,
            StateKind::Map(kind) => &kind.catch,
            StateKind::Event(kind) => &kind.catch,
            StateKind::Human(kind) => &kind.catch,
            _ => &[],
        }
    }

    /// What it runs, and what undoes that.
    pub fn resources(&self) -> (Option<&Resource>, Option<&Resource>) {
        match &self.kind {
            StateKind::Task(task) => {
                let undo = task.compensate.as_ref().map(|undo| &undo.resource);
                (Some(&task.resource), undo)
            }
            StateKind::Asl(state) => (state.activity(), None),
            _ => (None, None),
        }
    }

    /// Whether somebody outside tells how it ends: a person, or whoever has the
    /// token of its task.
    pub fn is_answered(&self) -> bool {
        match &self.kind {
            StateKind::Human(_) => true,
            StateKind::Asl(state) => {
                matches!(&state.kind, asl::Kind::Task(task) if task.waits_for_callback())
            }
            _ => false,
        }
    }
}
