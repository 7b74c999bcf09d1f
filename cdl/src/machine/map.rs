//! Iterations: how a Map state opens them, a few at a time, and what it makes
//! of how they end.
//!
//! An iteration is a frame with an [`Iteration`] of its own: its item, and an
//! overlay over the context that takes what it writes. The overlay is dropped
//! with the frame, so that iterations side by side cannot touch each other, and
//! only their outputs remain. Items that wait and outputs that are there are
//! texts in the step of the Map's frame: what has no frame costs no more.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::ApplyError;
use super::data::{Output, type_name};
use super::join::{Fate, SETTLED_BYTES, Settled};
use super::limits::{MAP_FRAMES, MAX_DEPTH, MAX_FRAMES, MAX_ITEMS};
use super::record::Record;
use super::walk::{Machine, Work};
use crate::asl::{names, program as asl};
use crate::execution::{Borne, Iteration, Mapping, Terms};
use crate::program::{Map, ScopeId, StateKind, Tolerance};
use crate::{Failure, FrameId, Json, Step, errors};

/// What an iteration gave: its output, or how it failed.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'j> {
    Output(&'j Json),
    Failed(Settled<'j>),
}

/// What a Map state asks for, in either language.
struct Plan {
    iterator: ScopeId,
    max_concurrency: u32,
    tolerance: Option<Tolerance>,
    /// Whether an item is a list of so many items.
    is_batch: bool,
}

impl<'a> Machine<'a> {
    pub(super) fn enter_map(&mut self, id: FrameId, map: &'a Map) -> Result<(), Failure> {
        if self.ancestors(id).count() >= MAX_DEPTH {
            let message = format!("branches and iterations nest at most {MAX_DEPTH} deep");
            return Err(Failure::new(errors::FRAME_LIMIT, message));
        }
        if let Some(spread) = &map.spread
            && (spread.format.is_some() || !(spread.whole || self.program.whole))
        {
            return self.enter_spread(id, map, spread);
        }
        let mapping = self.items(id, map)?;
        if mapping.waiting.is_empty() {
            let output = Output::Value(Value::Array(Vec::new()));
            self.work.push(Work::Leave(id, output));
            return Ok(());
        }
        self.check_room(mapping.bytes, 0)?;
        self.frame_mut(id).step = Step::Mapping(Box::new(mapping));
        self.work.push(Work::Open(id));
        Ok(())
    }

    /// The items of a Map state that is entered, or batches of them, as texts.
    fn items(&mut self, id: FrameId, map: &Map) -> Result<Mapping, Failure> {
        self.eval_with(id, &map.items, |budget, value| {
            let Value::Array(items) = value.as_ref() else {
                let message = format!("`items` is {}, not a list", type_name(&value));
                return Err(Failure::new(errors::EXPRESSION, message));
            };
            let Some(count) = u32::try_from(items.len()).ok().filter(|n| *n <= MAX_ITEMS) else {
                let count = items.len();
                let message = format!("there are {count} items, a Map state takes {MAX_ITEMS}");
                return Err(Failure::new(errors::ITEM_LIMIT, message));
            };
            // Each gets a frame sooner or later.
            budget.frames(items.len())?;
            let texts: Vec<_> = match map.batch {
                None => items.iter().map(|item| budget.write(item)).collect(),
                Some(size) => {
                    let batches = items.chunks(usize::try_from(size.max(1)).unwrap_or(usize::MAX));
                    batches.map(|batch| budget.write(batch)).collect()
                }
            };
            let texts = texts.into_iter().collect::<Result<Vec<Json>, _>>()?;
            Ok(Mapping {
                items: count,
                bytes: texts.iter().map(|text| text.len() as u64).sum(),
                waiting: (0..).zip(texts).collect(),
                ..Mapping::default()
            })
        })
    }

    /// Opens the next iteration of a Map state, if one waits and there is room.
    ///
    /// One at a time: it is carried as far as it goes before the next.
    pub(super) fn open_iteration(&mut self, id: FrameId) -> Result<(), ApplyError> {
        // The frame may have ended since, or have left the state.
        let frame = self.execution.frames.get(&id);
        if !frame.is_some_and(|frame| matches!(frame.step, Step::Mapping(_))) {
            return Ok(());
        }
        let plan = self.plan_of(id)?;
        let Some(Step::Mapping(mapping)) = self.execution.frames.get(&id).map(|f| &f.step) else {
            return Ok(());
        };
        let frames = self.execution.frames.len();
        let Some((&index, item)) = mapping.waiting.first_key_value() else {
            return Ok(());
        };
        let (open, item) = (mapping.open, item.clone());
        if open >= plan.max_concurrency || (frames >= MAP_FRAMES && open > 0) {
            return Ok(());
        }
        if frames >= MAX_FRAMES {
            let message = format!("an execution runs at most {MAX_FRAMES} iterations at a time");
            return self.fail(id, Failure::new(errors::FRAME_LIMIT, message));
        }
        let value = match self.item(&item) {
            Ok(value) => value,
            Err(failure) => return self.fail(id, failure),
        };
        let data = match self.iteration_data(id, index, &value) {
            Ok(data) => data,
            Err(failure) => return self.fail(id, failure),
        };
        let mapping = self.mapping(id)?;
        mapping.waiting.remove(&index);
        mapping.open += 1;
        let iteration = FrameId(self.fresh());
        self.open_frame(iteration, Some(id), plan.iterator);
        self.frame_mut(iteration).data = data;
        self.frame_mut(iteration).iteration = Some(Box::new(Iteration {
            index,
            bytes: item.len() as u64,
            map: json!({"index": index, "item": value}),
            context: json!({}),
        }));
        self.work.push(Work::Open(id));
        self.work.push(Work::Enter(iteration));
        Ok(())
    }

    fn item(&mut self, text: &Json) -> Result<Value, Failure> {
        self.budget.read(text)?;
        serde_json::from_str(text.as_str()).map_err(|error| {
            Failure::new(
                errors::EXPRESSION,
                format!("the item cannot be read: {error}"),
            )
        })
    }

    /// An iteration reached its end.
    pub(super) fn end_iteration(
        &mut self,
        id: FrameId,
        parent: FrameId,
        output: Json,
    ) -> Result<(), ApplyError> {
        let iteration = self.take_iteration(id)?;
        let mapping = self.mapping(parent)?;
        mapping.open = mapping.open.saturating_sub(1);
        mapping.bytes = mapping.bytes.saturating_sub(iteration.bytes) + output.len() as u64;
        mapping.done.insert(iteration.index, output);
        let open = mapping.left();
        self.tell(|machine| Record::BranchEnded {
            place: machine.place(parent),
            branch: iteration.index.to_string(),
            open,
        });
        self.join_map(parent)
    }

    /// An iteration failed. A state that bears it keeps the item, in case that
    /// more failures follow than it bears and the execution is retried.
    pub(super) fn iteration_failed(
        &mut self,
        parent: FrameId,
        id: FrameId,
        failure: &Failure,
    ) -> Result<Fate, ApplyError> {
        let plan = self.plan_of(parent)?;
        let Some(tolerance) = &plan.tolerance else {
            return Ok(Fate::Spreads);
        };
        let borne = match self.borne(id, plan.is_batch, failure) {
            Ok(borne) => borne,
            Err(own) => return Ok(Fate::Becomes(own)),
        };
        let mapping = self.mapping(parent)?;
        let failed = mapping.failed.values().map(|borne| borne.items);
        let failed = failed.sum::<u32>().saturating_add(borne.items);
        if !tolerance.bears(failed, mapping.items) {
            let message = format!(
                "{failed} of {} items failed, more than are tolerated; the last with {}: {}",
                mapping.items, failure.error, failure.message
            );
            // Should the execution be retried, they run again.
            for (index, borne) in std::mem::take(&mut mapping.failed) {
                mapping.bytes = mapping.bytes.saturating_sub(borne.error.len() as u64);
                mapping.waiting.insert(index, borne.item);
            }
            let failure = if self.program.is_asl() {
                let message = "The specified tolerated failure threshold was exceeded";
                Failure::new(names::TOLERATED_FAILURES, message)
            } else {
                Failure::new(errors::TOLERANCE_EXCEEDED, message)
            };
            return Ok(Fate::Becomes(Failure {
                details: Some(borne.error),
                ..failure
            }));
        }
        let (added, held) = (borne.error.len() as u64, mapping.bytes);
        if let Err(own) = self.check_room(added, held) {
            return Ok(Fate::Becomes(own));
        }
        self.drop_branches(id);
        let iteration = self.take_iteration(id)?;
        let mapping = self.mapping(parent)?;
        mapping.open = mapping.open.saturating_sub(1);
        mapping.bytes += added;
        mapping.failed.insert(iteration.index, borne);
        let open = mapping.left();
        self.tell(|machine| Record::BranchFailed {
            place: machine.place(parent),
            branch: iteration.index.to_string(),
            error: failure.error.clone(),
            open,
        });
        self.join_map(parent)?;
        Ok(Fate::Borne)
    }

    /// What a Map state keeps of an iteration whose failure it bears.
    fn borne(&mut self, id: FrameId, is_batch: bool, failure: &Failure) -> Result<Borne, Failure> {
        let error = self.caught(failure)?;
        let iteration = self.execution.frames.get(&id);
        let iteration = iteration.and_then(|frame| frame.iteration.as_ref());
        let item = iteration.map_or(&Value::Null, |iteration| iteration.item());
        let items = match (is_batch, item) {
            (true, Value::Array(batch)) => u32::try_from(batch.len()).unwrap_or(u32::MAX),
            _ => 1,
        };
        let item = self.budget.write(item)?;
        Ok(Borne { item, error, items })
    }

    /// Opens the next iteration, or leaves a Map state whose last has ended.
    fn join_map(&mut self, id: FrameId) -> Result<(), ApplyError> {
        if self.mapping(id)?.left() > 0 {
            self.work.push(Work::Open(id));
            return Ok(());
        }
        if self.runs_chunk(id) {
            return match self.chunk_output(id) {
                Ok(output) => {
                    let done = Output::Null.to_json();
                    self.frame_mut(id).step = Step::Done { output: done };
                    self.work.push(Work::Complete(Some(output)));
                    Ok(())
                }
                Err(failure) => self.fail(id, failure),
            };
        }
        let output = self.mapped(id);
        self.frame_mut(id).step = Step::Stopped {};
        match output {
            Ok(output) => self.work.push(Work::Leave(id, output)),
            Err(failure) => self.fail(id, failure)?,
        }
        Ok(())
    }

    /// What the iterations gave, in the order of the items. As text: it is often
    /// not looked into.
    fn mapped(&mut self, id: FrameId) -> Result<Output, Failure> {
        let Step::Mapping(mapping) = &self.execution.frames[&id].step else {
            return Ok(Output::Null);
        };
        let outputs = mapping.done.iter();
        let mut entries: BTreeMap<u32, Entry<'_>> = outputs
            .map(|(index, output)| (*index, Entry::Output(output)))
            .collect();
        // AWS leaves out those that failed.
        let failed = mapping.failed.iter().filter(|_| !self.program.is_asl());
        for (index, Borne { error, .. }) in failed {
            entries.insert(*index, Entry::Failed(Settled::failed(error)));
        }
        let bytes = usize::try_from(mapping.bytes).unwrap_or(usize::MAX);
        self.budget.scan(entries.len())?;
        self.budget
            .join(bytes.saturating_add(SETTLED_BYTES * mapping.failed.len()))?;
        let entries: Vec<_> = entries.into_values().collect();
        Ok(Output::Text(Json::from_entries(&entries)))
    }

    /// Removes the frame of an iteration.
    fn take_iteration(&mut self, id: FrameId) -> Result<Iteration, ApplyError> {
        let frame = self.execution.frames.get_mut(&id);
        let Some(iteration) = frame.and_then(|frame| frame.iteration.take()) else {
            return Err(self.mismatch(id));
        };
        self.execution.frames.remove(&id);
        Ok(*iteration)
    }

    /// What the Map state that a frame is in has done.
    fn mapping(&mut self, id: FrameId) -> Result<&mut Mapping, ApplyError> {
        let mismatch = self.mismatch(id);
        match &mut self.frame_mut(id).step {
            Step::Mapping(mapping) => Ok(mapping),
            _ => Err(mismatch),
        }
    }

    /// What the Map state that a frame is in asks for.
    fn plan_of(&mut self, id: FrameId) -> Result<Plan, ApplyError> {
        match &self.state_of(id)?.kind {
            StateKind::Map(map) => {
                // Those of a chunk, or of the items of an object.
                let terms = self.mapping(id)?.terms.unwrap_or(Terms {
                    max_concurrency: map.max_concurrency,
                    tolerance: map.tolerance,
                });
                Ok(Plan {
                    iterator: map.iterator,
                    max_concurrency: terms.max_concurrency,
                    tolerance: terms.tolerance,
                    is_batch: map.batch.is_some(),
                })
            }
            StateKind::Asl(state) => {
                let mismatch = self.mismatch(id);
                match (&state.kind, self.mapping(id)?.terms) {
                    (asl::Kind::Map(map), Some(terms)) => Ok(Plan {
                        iterator: map.processor,
                        max_concurrency: terms.max_concurrency,
                        tolerance: terms.tolerance,
                        is_batch: false,
                    }),
                    _ => Err(mismatch),
                }
            }
            _ => Err(self.mismatch(id)),
        }
    }

    /// The input of a Task without `parameters`: the item inside of an
    /// iteration, else the whole context.
    pub(super) fn default_input(&mut self, id: FrameId) -> Result<Json, Failure> {
        let iteration = self.execution.iterations(id).next();
        match iteration {
            Some(iteration) => self.budget.write(iteration.item()),
            None => self.context_text(),
        }
    }

    /// Copies what stands at a path's first key into the overlay that is about
    /// to be written at this path, so that its neighbours are not hidden.
    pub(super) fn uncover(&mut self, owner: FrameId, key: &str) -> Result<(), Failure> {
        let (bytes, copy) = {
            let mut around = self.execution.iterations(owner).map(|i| &i.context);
            if around.next().is_some_and(|own| own.get(key).is_some()) {
                return Ok(());
            }
            let outer = around.find_map(|context| context.get(key));
            let Some(hidden) = outer.or_else(|| self.execution.context.get(key)) else {
                return Ok(());
            };
            let bytes = self.budget.measure(hidden)?;
            (bytes, self.budget.own(Cow::Borrowed(hidden))?)
        };
        self.make_room(bytes)?;
        let frame = self.frame_mut(owner);
        if let Some(iteration) = &mut frame.iteration {
            iteration.context[key] = copy;
        }
        Ok(())
    }
}
