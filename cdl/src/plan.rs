//! What changes from one version of a workflow to the next, and which of its
//! executions can go on under the new one.
//!
//! States of two programs are the same if their names and those of all that is
//! around them are; a mapping says which were renamed. An execution is
//!
//! - *safe* if every state that it stands in, or may have to undo, is there, is
//!   unchanged in what is under way, and finds ahead of it what it needs: nothing
//!   ahead reads a result that only states behind it would have given;
//! - in need of a mapping if a state that it stands in, or may have to undo, is
//!   gone, and nothing else is in the way;
//! - stuck otherwise, for the reasons that are told.
//!
//! What is ahead may change: that is what a new version is for. An ASL definition
//! is the exception. Its data goes from state to state, so that whatever is
//! reached from where an execution stands has to be as it was.
//!
//! Pure, like the machine: whoever moves executions decides by this, records
//! it as an event, and lets the machine carry each over ([`migrate`](crate::migrate)).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::program::{Program, ScopeId, StateId, StateKind};

mod ahead;
mod fields;
mod judge;

/// Two versions of a workflow, side by side.
#[derive(Debug)]
pub struct Plan {
    old: Arc<Program>,
    new: Arc<Program>,
    /// The new path of states by the old one, as it was given.
    renamed: BTreeMap<String, String>,
    /// For each state of the old program the one of the new.
    states: Vec<Option<StateId>>,
    /// The same the other way round.
    origins: BTreeMap<StateId, StateId>,
    /// The same of scopes.
    scopes: Vec<Option<ScopeId>>,
    diff: Diff,
}

/// What differs between two versions of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The workflow's name.
    pub workflow: String,
    /// What of the workflow itself has changed: `start`, `timeout`, `output`, `shard_key`, `attributes`, `priority`,
    /// `start_rate_limit`, `language`.
    pub fields: Vec<&'static str>,
    /// What of its states has, in the order of their paths.
    pub states: Vec<Change>,
}

/// What became of one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its path: the states and branches around it, and its name, as in
    /// `Checks/us/Check`; of one that was renamed the new path.
    pub state: String,
    /// What became of it.
    #[serde(flatten)]
    pub what: What,
}

/// What became of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It does something else.
    Changed {
        /// Which of its fields differ.
        fields: Vec<&'static str>,
    },
}

/// Whether an execution can go on under the new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It can.
    Safe,
    /// It could, if somebody said what has become of these states.
    NeedsMapping {
        /// Their paths in the old version.
        states: Vec<String>,
    },
    /// It cannot.
    Stuck {
        /// Why, for people.
        reasons: Vec<String>,
    },
}

impl Plan {
    /// Compares two versions. `renamed` gives the new path of states by the old one.
    pub fn new(old: &Arc<Program>, new: &Arc<Program>, renamed: &BTreeMap<String, String>) -> Self {
        let names = Names::of(new);
        let follow = Follow {
            old,
            names: &names,
            renamed,
        };
        let states: Vec<_> = ids(&old.states)
            .map(|at| follow.state(StateId(at)))
            .collect();
        let mut origins = BTreeMap::new();
        for (at, new) in (0..).map(StateId).zip(&states) {
            if let Some(new) = new {
                origins.entry(*new).or_insert(at);
            }
        }
        let scopes = ids(&old.scopes).map(|at| follow.scope(ScopeId(at)));
        let mut plan = Self {
            old: Arc::clone(old),
            new: Arc::clone(new),
            renamed: renamed.clone(),
            states,
            origins,
            scopes: scopes.collect(),
            diff: Diff {
                workflow: new.name.clone(),
                fields: Vec::new(),
                states: Vec::new(),
            },
        };
        plan.diff.fields = plan.workflow_fields();
        plan.diff.states = plan.changes();
        plan
    }

    /// The version that executions are moved to.
    pub fn program(&self) -> &Arc<Program> {
        &self.new
    }

    /// The new path of states by the old one, as it was given.
    pub fn renamed(&self) -> &BTreeMap<String, String> {
        &self.renamed
    }

    /// What differs.
    pub fn diff(&self) -> &Diff {
        &self.diff
    }

    fn counterpart(&self, id: StateId) -> Option<StateId> {
        self.states.get(id.0 as usize).copied().flatten()
    }

    /// The old state that became this one.
    fn origin(&self, id: StateId) -> Option<StateId> {
        self.origins.get(&id).copied()
    }

    fn workflow_fields(&self) -> Vec<&'static str> {
        let (old, new) = (&*self.old, &*self.new);
        let start = |program: &Program| program.scope(ScopeId::ROOT).start;
        let output = |program: &Program| format!("{:?}", program.output);
        let shard_key = |program: &Program| format!("{:?}", program.shard_key);
        let attributes = |program: &Program| format!("{:?}", program.attributes);
        let differs = [
            ("language", old.is_asl() != new.is_asl()),
            ("start", self.counterpart(start(old)) != Some(start(new))),
            ("timeout", old.timeout_ms != new.timeout_ms),
            ("output", output(old) != output(new)),
            ("shard_key", shard_key(old) != shard_key(new)),
            ("attributes", attributes(old) != attributes(new)),
            ("priority", old.priority != new.priority),
            (
                "start_rate_limit",
                old.start_rate_limit != new.start_rate_limit,
            ),
        ];
        let differing = differs.into_iter().filter(|(_, differs)| *differs);
        differing.map(|(name, _)| name).collect()
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (at, counterpart) in (0..).map(StateId).zip(&self.states) {
            let (state, what) = match counterpart {
                None => (path(&self.old, at), What::Removed),
                Some(new) => match self.differences(at, *new) {
                    fields if fields.is_empty() => continue,
                    fields => (path(&self.new, *new), What::Changed { fields }),
                },
            };
            changes.push(Change { state, what });
        }
        for id in ids(&self.new.states).map(StateId) {
            if self.origin(id).is_none() {
                changes.push(Change {
                    state: path(&self.new, id),
                    what: What::Added,
                });
            }
        }
        changes.sort_by(|a, b| a.state.cmp(&b.state));
        changes
    }

    /// The fields in which a state differs from what it became.
    fn differences(&self, old: StateId, new: StateId) -> Vec<&'static str> {
        // By the names that it has now, so that a renamed target is no change.
        let old = fields::of(&self.old, old, &|id| match self.counterpart(id) {
            Some(new) => path(&self.new, new),
            None => format!("{} of before", path(&self.old, id)),
        });
        let new = fields::of(&self.new, new, &|id| path(&self.new, id));
        if old.kind != new.kind {
            return vec!["type"];
        }
        // The same kind has the same fields in the same order.
        let pairs = old.fields.iter().zip(&new.fields);
        let differing = pairs.filter(|((_, old), (_, new))| old != new);
        differing.map(|((name, _), _)| *name).collect()
    }
}

/// The paths of a program's states, by which a mapping names them.
pub fn paths(program: &Program) -> BTreeSet<String> {
    let states = ids(&program.states).map(StateId);
    states.map(|id| path(program, id)).collect()
}

/// The places of a list as ids have them. Programs are small.
fn ids<T>(list: &[T]) -> impl Iterator<Item = u32> + use<T> {
    0..u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// A state's path: the states and branches around it, and its name.
pub fn path(program: &Program, id: StateId) -> String {
    let state = program.state(id);
    format!("{}{}", scope_path(program, state.scope), state.name)
}

/// What stands before the names of a scope's states.
fn scope_path(program: &Program, id: ScopeId) -> String {
    let scope = program.scope(id);
    match scope.owner {
        None => String::new(),
        Some(owner) => format!("{}{}", path(program, owner), infix(program, id)),
    }
}

/// What stands between the path of a state and those in this scope of it.
fn infix(program: &Program, id: ScopeId) -> String {
    let scope = program.scope(id);
    let is_only = scope.owner.is_some_and(|owner| {
        let kind = &program.state(owner).kind;
        match kind {
            StateKind::Map(_) => true,
            StateKind::Asl(state) => state.is_map(),
            _ => false,
        }
    });
    if is_only {
        "/".to_owned()
    } else {
        format!("/{}/", scope.name)
    }
}

/// States and scopes by what they are found by.
struct Names {
    states: BTreeMap<String, StateId>,
    scopes: BTreeMap<String, ScopeId>,
}

impl Names {
    fn of(program: &Program) -> Self {
        let states = ids(&program.states).map(StateId);
        let scopes = ids(&program.scopes).map(ScopeId);
        Self {
            states: states.map(|id| (path(program, id), id)).collect(),
            scopes: scopes.map(|id| (scope_path(program, id), id)).collect(),
        }
    }
}

/// Finds what became of a state.
struct Follow<'f> {
    old: &'f Program,
    names: &'f Names,
    renamed: &'f BTreeMap<String, String>,
}

impl Follow<'_> {
    fn state(&self, id: StateId) -> Option<StateId> {
        self.names.states.get(&self.path(id)).copied()
    }

    fn scope(&self, id: ScopeId) -> Option<ScopeId> {
        self.names.scopes.get(&self.scope_path(id)).copied()
    }

    /// The path that a state should have now.
    fn path(&self, id: StateId) -> String {
        if let Some(path) = self.renamed.get(&path(self.old, id)) {
            return path.clone();
        }
        let state = self.old.state(id);
        format!("{}{}", self.scope_path(state.scope), state.name)
    }

    fn scope_path(&self, id: ScopeId) -> String {
        match self.old.scope(id).owner {
            None => String::new(),
            Some(owner) => format!("{}{}", self.path(owner), infix(self.old, id)),
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "workflow {}", self.workflow)?;
        if self.fields.is_empty() && self.states.is_empty() {
            return writeln!(f, "  no change");
        }
        for field in &self.fields {
            writeln!(f, "  ~ {field}")?;
        }
        for Change { state, what } in &self.states {
            match what {
                What::Added => writeln!(f, "  + {state}")?,
                What::Removed => writeln!(f, "  - {state}")?,
                What::Changed { fields } => writeln!(f, "  ~ {state}: {}", fields.join(", "))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safe => f.write_str("safe"),
            Self::NeedsMapping { states } => write!(f, "needs a mapping: {}", states.join(", ")),
            Self::Stuck { reasons } => write!(f, "stuck: {}", reasons.join("; ")),
        }
    }
}
