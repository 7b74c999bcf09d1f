//! Branches side by side: how a Parallel state opens them, and what it makes
//! of how they end.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::ApplyError;
use super::data::Output;
use super::limits::{MAX_BRANCHES, MAX_DEPTH, MAX_FRAMES};
use super::record::Record;
use super::walk::{Machine, Work};
use crate::asl::program as asl;
use crate::program::{ScopeId, StateKind, Strategy};
use crate::{Failure, FrameId, Json, Step, errors};

/// What the failure of a branch is to the state that it belongs to.
pub(super) enum Fate {
    /// The state bears it and goes on.
    Borne,
    /// It is the state's own failure.
    Spreads,
    /// The state fails, by another name.
    Becomes(Failure),
}

/// How a branch ended, for those who look at all of them.
#[derive(Serialize)]
pub(super) struct Settled<'j> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'j Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'j Json>,
}

impl<'j> Settled<'j> {
    fn completed(output: &'j Json) -> Self {
        Self {
            status: "completed",
            output: Some(output),
            error: None,
        }
    }

    pub(super) fn failed(error: &'j Json) -> Self {
        Self {
            status: "failed",
            output: None,
            error: Some(error),
        }
    }
}

/// Text of a [`Settled`] besides what it holds, in bytes, and more.
pub(super) const SETTLED_BYTES: usize = 64;

impl<'a> Machine<'a> {
    pub(super) fn enter_parallel(
        &mut self,
        id: FrameId,
        branches: &'a [ScopeId],
        strategy: Strategy,
    ) -> Result<(), Failure> {
        let frames = self.execution.frames.len() + branches.len();
        let exceeded = if branches.len() > MAX_BRANCHES {
            Some(format!(
                "a Parallel state has at most {MAX_BRANCHES} branches"
            ))
        } else if frames > MAX_FRAMES {
            Some(format!(
                "an execution runs at most {MAX_FRAMES} branches at a time"
            ))
        } else if self.ancestors(id).count() >= MAX_DEPTH {
            Some(format!("branches nest at most {MAX_DEPTH} deep"))
        } else {
            None
        };
        if let Some(message) = exceeded {
            return Err(Failure::new(errors::FRAME_LIMIT, message));
        }
        let Ok(open @ 1..) = u32::try_from(branches.len()) else {
            let output = self.joined(id, strategy)?;
            self.work.push(Work::Leave(id, output));
            return Ok(());
        };
        self.budget.frames(branches.len())?;
        self.frame_mut(id).step = Step::Joining { open, failed: 0 };
        let first = self.work.len();
        for scope in branches {
            let branch = FrameId(self.fresh());
            self.open_frame(branch, Some(id), *scope);
            self.work.push(Work::Enter(branch));
        }
        // The first branch on top of the stack.
        self.work[first..].reverse();
        Ok(())
    }

    pub(super) fn end_branch(
        &mut self,
        id: FrameId,
        parent: FrameId,
        output: Json,
    ) -> Result<(), ApplyError> {
        self.frame_mut(id).step = Step::Done { output };
        let Step::Joining { open, .. } = &mut self.frame_mut(parent).step else {
            return Err(self.mismatch(parent));
        };
        *open = open.saturating_sub(1);
        let open = *open;
        self.tell(|machine| Record::BranchEnded {
            place: machine.place(parent),
            branch: machine.branch_name(id).to_owned(),
            open,
        });
        self.join(parent)
    }

    /// A branch or iteration failed. A state that bears it keeps what the branch has written
    /// and drops what it does.
    pub(super) fn branch_failed(
        &mut self,
        parent: FrameId,
        id: FrameId,
        failure: &Failure,
    ) -> Result<Fate, ApplyError> {
        if let Step::Mapping(_) = self.frame_mut(parent).step {
            return self.iteration_failed(parent, id, failure);
        }
        let (branches, strategy) = self.parallel_of(parent)?;
        let &Step::Joining { open, failed } = &self.frame_mut(parent).step else {
            return Err(self.mismatch(parent));
        };
        let required = match strategy {
            Strategy::All => return Ok(Fate::Spreads),
            Strategy::AtLeast(required) => required,
            Strategy::Settled => 0,
        };
        let error = match self.caught(failure) {
            Ok(error) => error,
            Err(own) => return Ok(Fate::Becomes(own)),
        };
        if branches.saturating_sub(failed + 1) < required {
            let failure = self.too_few(parent, id, &error, required);
            self.reopen(parent);
            return Ok(Fate::Becomes(failure));
        }
        if let Err(own) = self.check_held(&error) {
            return Ok(Fate::Becomes(own));
        }
        self.drop_branches(id);
        self.frame_mut(id).step = Step::Failed { error };
        let open = open.saturating_sub(1);
        let failed = failed + 1;
        self.frame_mut(parent).step = Step::Joining { open, failed };
        self.tell(|machine| Record::BranchFailed {
            place: machine.place(parent),
            branch: machine.branch_name(id).to_owned(),
            error: failure.error.clone(),
            open,
        });
        self.join(parent)?;
        Ok(Fate::Borne)
    }

    /// Leaves a Parallel state whose branches have done what was asked of them.
    fn join(&mut self, id: FrameId) -> Result<(), ApplyError> {
        let (branches, strategy) = self.parallel_of(id)?;
        let &Step::Joining { open, failed } = &self.frame_mut(id).step else {
            return Err(self.mismatch(id));
        };
        let is_joined = match strategy {
            Strategy::All | Strategy::Settled => open == 0,
            Strategy::AtLeast(required) => branches.saturating_sub(open + failed) >= required,
        };
        if !is_joined {
            return Ok(());
        }
        let output = self.joined(id, strategy);
        self.drop_branches(id);
        self.frame_mut(id).step = Step::Stopped {};
        match output {
            Ok(output) => self.work.push(Work::Leave(id, output)),
            Err(failure) => self.fail(id, failure)?,
        }
        Ok(())
    }

    /// `{branch name: output}` of the branches beneath a frame that are done, or
    /// how each of them ended. As text: it is often not looked into.
    fn joined(&mut self, parent: FrameId, strategy: Strategy) -> Result<Output, Failure> {
        self.budget.scan(self.execution.frames.len())?;
        if self.program.is_asl() {
            return self.joined_list(parent);
        }
        let (mut outputs, mut settled) = (BTreeMap::new(), BTreeMap::new());
        let mut bytes = 0;
        for (id, frame) in &self.execution.frames {
            if frame.parent != Some(parent) {
                continue;
            }
            let name = self.branch_name(*id);
            match &frame.step {
                Step::Done { output } if strategy == Strategy::Settled => {
                    bytes += SETTLED_BYTES + name.len() + output.len();
                    settled.insert(name, Settled::completed(output));
                }
                Step::Failed { error } if strategy == Strategy::Settled => {
                    bytes += SETTLED_BYTES + name.len() + error.len();
                    settled.insert(name, Settled::failed(error));
                }
                Step::Done { output } => {
                    bytes += name.len() + output.len();
                    outputs.insert(name, output);
                }
                _ => {}
            }
        }
        if !settled.is_empty() {
            self.budget.join(bytes)?;
            return Ok(Output::Text(Json::from_entries(&settled)));
        }
        if outputs.is_empty() {
            return Ok(Output::Value(Value::Object(Map::new())));
        }
        self.budget.join(bytes)?;
        Ok(Output::Text(Json::from_entries(&outputs)))
    }

    /// The outputs of the branches beneath a frame of an ASL definition, in their
    /// order: a later branch has a greater id.
    fn joined_list(&mut self, parent: FrameId) -> Result<Output, Failure> {
        let frames = self.execution.frames.values();
        let outputs: Vec<&Json> = frames
            .filter_map(|frame| match &frame.step {
                Step::Done { output } if frame.parent == Some(parent) => Some(output),
                _ => None,
            })
            .collect();
        let bytes = outputs.iter().map(|output| output.len()).sum();
        self.budget.join(bytes)?;
        Ok(Output::Text(Json::from_entries(&outputs)))
    }

    /// That the branches which are left are fewer than have to succeed; `id` is
    /// the last that failed.
    fn too_few(&mut self, parent: FrameId, id: FrameId, error: &Json, required: u32) -> Failure {
        let mut errors = BTreeMap::from([(self.branch_name(id), error)]);
        for (id, frame) in &self.execution.frames {
            if let (Step::Failed { error }, true) = (&frame.step, frame.parent == Some(parent)) {
                errors.insert(self.branch_name(*id), error);
            }
        }
        let bytes = errors.iter().map(|(name, error)| name.len() + error.len());
        let (frames, bytes) = (self.execution.frames.len(), bytes.sum());
        let counted = self.budget.scan(frames);
        if let Err(own) = counted.and_then(|()| self.budget.join(bytes)) {
            return own;
        }
        let names: Vec<_> = errors.keys().copied().collect();
        let message = format!(
            "{} failed ({}), so that {required} can no longer succeed",
            match names.len() {
                1 => "a branch".to_owned(),
                count => format!("{count} branches"),
            },
            names.join(", ")
        );
        Failure {
            details: Some(Json::from_entries(&errors)),
            ..Failure::new(errors::BRANCHES_FAILED, message)
        }
    }

    /// Lets the branches whose failure was borne run again, should the execution
    /// be retried.
    fn reopen(&mut self, parent: FrameId) {
        let (mut open, frames) = (0, &mut self.execution.frames);
        for frame in frames.values_mut().filter(|f| f.parent == Some(parent)) {
            if let Step::Failed { .. } = frame.step {
                frame.step = Step::Stopped {};
            }
            open += u32::from(!matches!(frame.step, Step::Done { .. }));
        }
        self.frame_mut(parent).step = Step::Joining { open, failed: 0 };
    }

    /// The number of branches and the strategy of the Parallel state that a
    /// frame is in.
    fn parallel_of(&self, id: FrameId) -> Result<(u32, Strategy), ApplyError> {
        match &self.state_of(id)?.kind {
            StateKind::Parallel {
                branches, strategy, ..
            } => {
                let count = u32::try_from(branches.len()).unwrap_or(u32::MAX);
                Ok((count, *strategy))
            }
            StateKind::Asl(state) => match &state.kind {
                asl::Kind::Parallel { branches } => {
                    let count = u32::try_from(branches.len()).unwrap_or(u32::MAX);
                    Ok((count, Strategy::All))
                }
                _ => Err(self.mismatch(id)),
            },
            _ => Err(self.mismatch(id)),
        }
    }
}
