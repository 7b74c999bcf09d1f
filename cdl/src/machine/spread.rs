//! Distributed Maps: what is asked of the shell for them, and what comes of it.
//!
//! The frame of such a Map holds where the items are, and no more of them than the
//! chunks that run: see [`crate::spread`]. A chunk is an attempt that is asked for once.
//! What is given up (a failure, a retry of the execution) puts its items back, so that
//! whoever goes on runs them again, and not those that are done.
//!
//! An execution that runs a chunk is one whose root frame stands in the Map state, with the
//! items that it was started with: from there on it is a Map like any other.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::ApplyError;
use super::asl::{batch_lengths, in_batches};
use super::budget::text_len;
use super::data::{Output, type_name};
use super::join::Settled;
use super::limits::{MAX_CONTEXT_BYTES, MAX_ITEMS, MAX_NESTING};
use super::record::Record;
use super::walk::{Machine, Work};
use crate::asl::names;
use crate::execution::{Asked, Done, Mapping, Spreading, Terms};
use crate::program::{Map, Priority, ScopeId, Spread, StateId, Tolerance};
use crate::spread::{
    self, Batches, CHUNK_BYTES, CHUNK_ITEMS, ChunkOutput, ChunkTask, Found, MAX_CHUNKS, Origin,
    Outcome, Place, Portion, ReadTask, SHARED_BYTES, Source, Style, WriteTask,
};
use crate::{
    ActivityFailure, ActivityTask, Command, ExecutionId, Failure, FrameId, Json, Status, Step,
    TaskId, errors,
};

/// Most bytes of the name of an object, the bucket included: more than the store takes.
const MAX_NAME_BYTES: usize = 1_024;

/// What a Map that is entered is made of, in either language.
pub(super) struct Entered {
    pub(super) terms: Terms,
    pub(super) batches: Option<Batches>,
    pub(super) place: Option<Place>,
    pub(super) shared: Json,
}

/// One entry of the list of results.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'j> {
    Output(&'j Json),
    Failed(Settled<'j>),
}

impl<'a> Machine<'a> {
    /// Whether the Map that a frame is in asks the shell for attempts, and is not one that
    /// runs a chunk.
    pub(super) fn is_spreading(&self, id: FrameId) -> bool {
        let frame = self.execution.frames.get(&id);
        frame.is_some_and(|frame| matches!(frame.step, Step::Spreading(_)))
    }

    /// Enters a distributed Map of CDL.
    pub(super) fn enter_spread(
        &mut self,
        id: FrameId,
        map: &'a Map,
        spread: &'a Spread,
    ) -> Result<(), Failure> {
        let whole = spread.whole || self.program.whole;
        let place = match &spread.results {
            Some(results) => {
                let value = self.eval(id, results)?;
                let run = self.run_name();
                let (bucket, prefix) = object_name(&value, "results")?;
                Some(folder(bucket, &prefix, run, Style::Plain, true))
            }
            None => None,
        };
        let entered = Entered {
            terms: Terms {
                max_concurrency: map.max_concurrency,
                tolerance: map.tolerance,
            },
            batches: map.batch.map(|size| Batches {
                items: Some(size.into()),
                bytes: None,
                wrapped: false,
                input: None,
            }),
            place,
            shared: if whole {
                Json::from_value(&Value::Null)
            } else {
                self.shared_context(id)?
            },
        };
        let Some(format) = &spread.format else {
            let items = self.eval(id, &map.items)?;
            let Value::Array(items) = items else {
                let message = format!("`items` is {}, not a list", type_name(&items));
                return Err(Failure::new(errors::EXPRESSION, message));
            };
            return self.spread_list(id, items, entered);
        };
        let name = self.eval(id, &map.items)?;
        let (bucket, key) = object_name(&name, "items.object")?;
        let source = Source {
            bucket,
            key,
            format: format.clone(),
            max_items: spread.max_items.map(u64::from),
        };
        self.ask_read(id, source, whole, entered)
    }

    /// Has the items of an object found.
    pub(super) fn ask_read(
        &mut self,
        id: FrameId,
        source: Source,
        whole: bool,
        entered: Entered,
    ) -> Result<(), Failure> {
        self.check_chunks_nest()?;
        let batch = entered.batches.as_ref().and_then(|batches| batches.items);
        let read = ReadTask {
            source: source.clone(),
            whole,
            batch: u32::try_from(batch.unwrap_or(1)).unwrap_or(u32::MAX),
        };
        let origin = Origin {
            source,
            digest: String::new(),
        };
        self.begin_spreading(id, entered, Some(origin))?;
        self.ask(id, spread::Work::Read, &read)
    }

    /// Cuts a list that is there already.
    pub(super) fn spread_list(
        &mut self,
        id: FrameId,
        items: Vec<Value>,
        entered: Entered,
    ) -> Result<(), Failure> {
        self.check_chunks_nest()?;
        if items.len() > MAX_ITEMS as usize {
            let count = items.len();
            let message = format!(
                "there are {count} items, a list has at most {MAX_ITEMS}; keep more in an object"
            );
            return Err(Failure::new(errors::ITEM_LIMIT, message));
        }
        self.budget.frames(items.len())?;
        let portions = self.portions(items, entered.batches.as_ref())?;
        self.begin_spreading(id, entered, None)?;
        self.put_portions(id, portions)
    }

    fn put_portions(&mut self, id: FrameId, portions: Vec<Portion>) -> Result<(), Failure> {
        let spreading = self.spreading_mut(id);
        for (number, portion) in (0..).zip(portions) {
            spreading.items += u64::from(portion.count);
            spreading.bytes += portion.items.as_ref().map_or(0, |items| items.len() as u64);
            spreading.waiting.insert(number, portion);
        }
        let bytes = spreading.bytes;
        self.check_room(bytes, 0)?;
        self.work.push(Work::Open(id));
        Ok(())
    }

    /// The chunks of a list, whose batches stay together.
    fn portions(
        &mut self,
        items: Vec<Value>,
        batches: Option<&Batches>,
    ) -> Result<Vec<Portion>, Failure> {
        let together = batches
            .and_then(|batches| batches.items)
            .unwrap_or(1)
            .max(1);
        let mut portions: Vec<Portion> = Vec::new();
        let (mut open, mut bytes, mut first): (Vec<Json>, u64, u64) = (Vec::new(), 0, 0);
        let close = |open: &mut Vec<Json>, first: &mut u64| {
            let count = u32::try_from(open.len()).unwrap_or(u32::MAX);
            let items = Json::from_entries(open);
            open.clear();
            let portion = Portion {
                first: *first,
                count,
                span: None,
                items: Some(items),
            };
            *first += u64::from(count);
            portion
        };
        for item in items {
            let text = self.budget.write(&item)?;
            bytes += text.len() as u64;
            open.push(text);
            let is_edge = (open.len() as u64).is_multiple_of(together);
            if is_edge && (open.len() >= CHUNK_ITEMS as usize || bytes >= CHUNK_BYTES) {
                portions.push(close(&mut open, &mut first));
                bytes = 0;
            }
        }
        if !open.is_empty() {
            portions.push(close(&mut open, &mut first));
        }
        Ok(portions)
    }

    fn begin_spreading(
        &mut self,
        id: FrameId,
        entered: Entered,
        origin: Option<Origin>,
    ) -> Result<(), Failure> {
        let bytes = entered.shared.len() as u64;
        if bytes > SHARED_BYTES {
            let message = format!(
                "what iterations see besides their items has {bytes} bytes, and goes with each \
                 chunk of a distributed Map: at most {SHARED_BYTES}; keep less in the context"
            );
            return Err(Failure::new(errors::CONTEXT_TOO_LARGE, message));
        }
        self.check_room(bytes, 0)?;
        self.frame_mut(id).step = Step::Spreading(Box::new(Spreading {
            items: 0,
            succeeded: 0,
            failed: 0,
            bytes,
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            done: BTreeMap::new(),
            origin,
            terms: entered.terms,
            batches: entered.batches,
            place: entered.place,
            shared: entered.shared,
        }));
        Ok(())
    }

    /// A name for what a Map writes, which nothing else has.
    pub(super) fn run_name(&mut self) -> String {
        let task = TaskId(self.fresh());
        ExecutionId::of_child(self.execution.id, task, 0).to_string()
    }

    /// Chunks are children, which nest only so deep.
    fn check_chunks_nest(&self) -> Result<(), Failure> {
        let depth = self.execution.parent.map_or(0, |parent| parent.depth);
        if depth < MAX_NESTING {
            return Ok(());
        }
        let message =
            format!("executions nest at most {MAX_NESTING} deep, chunks of a Map included");
        Err(Failure::new(errors::NESTING_LIMIT, message))
    }

    /// The context as a frame sees it, for whoever runs its iterations.
    fn shared_context(&mut self, id: FrameId) -> Result<Json, Failure> {
        let written: Vec<_> = self.execution.iterations(id).map(|i| &i.context).collect();
        if written.is_empty() {
            return self.context_text();
        }
        let mut context = self.execution.context.clone();
        for overlay in written.into_iter().rev() {
            for (key, value) in overlay.as_object().into_iter().flatten() {
                context[key] = value.clone();
            }
        }
        self.budget.write(&context)
    }

    /// Asks the shell for something of a Map.
    fn ask(
        &mut self,
        id: FrameId,
        work: spread::Work,
        task: &impl Serialize,
    ) -> Result<(), Failure> {
        let input = self.budget.write(task)?;
        let own = TaskId(self.fresh());
        self.tell(|machine| Record::ActivityScheduled {
            place: machine.place(id),
            task: own,
            attempt: 1,
            input: input.clone(),
        });
        let asked = Asked {
            work,
            input,
            scheduled_at: self.now,
        };
        let state = self.execution.frames[&id].state;
        let priority = self.execution.priority;
        let command = activity_task(self.program, state, own, &asked, priority);
        self.commands.push(Command::ScheduleActivity(command));
        self.spreading_mut(id).asked.insert(own, asked);
        Ok(())
    }

    /// What the shell was asked for has ended.
    pub(super) fn spread_answered(
        &mut self,
        id: FrameId,
        task: TaskId,
        answer: Result<&Json, &ActivityFailure>,
    ) -> Result<(), ApplyError> {
        let Some(asked) = self.spreading_mut(id).asked.remove(&task) else {
            return Err(self.mismatch(id));
        };
        let done = match (asked.work, answer) {
            (spread::Work::Read, Ok(text)) => self.found(id, &asked, text),
            (spread::Work::Chunk, Ok(text)) => self.chunk_done(id, &asked, text),
            (spread::Work::Write, Ok(text)) => {
                self.frame_mut(id).step = Step::Stopped {};
                self.work.push(Work::Leave(id, Output::Text(text.clone())));
                Ok(())
            }
            (work, Err(failure)) => {
                self.put_back(id, &asked);
                Err(self.failed(work, failure))
            }
        };
        match done {
            Ok(()) => Ok(()),
            Err(failure) => self.fail_spread(id, failure),
        }
    }

    fn failed(&self, work: spread::Work, failure: &ActivityFailure) -> Failure {
        let error = match work {
            spread::Work::Read if self.program.is_asl() => names::ITEM_READER,
            spread::Work::Write if self.program.is_asl() => names::RESULT_WRITER,
            _ => &failure.error,
        };
        Failure {
            details: failure.details.clone(),
            ..Failure::new(error, failure.message.clone())
        }
    }

    /// The Map fails: what it has asked for is given up, so that nothing is under way
    /// whoever handles the failure.
    fn fail_spread(&mut self, id: FrameId, failure: Failure) -> Result<(), ApplyError> {
        self.withdraw_chunks(id);
        if matches!(&self.execution.frames[&id].step, Step::Spreading(s) if s.items == 0) {
            // It does not know its items: a retry finds out again.
            self.frame_mut(id).step = Step::Stopped {};
        }
        self.fail(id, failure)
    }

    /// Gives up what a Map has asked for; the items of chunks wait again.
    pub(super) fn withdraw_chunks(&mut self, id: FrameId) {
        let Step::Spreading(spreading) = &mut self.frame_mut(id).step else {
            return;
        };
        for (task, asked) in std::mem::take(&mut spreading.asked) {
            self.put_back(id, &asked);
            self.cancel_attempt(task, 1);
        }
    }

    fn put_back(&mut self, id: FrameId, asked: &Asked) {
        if let Some(chunk) = asked.chunk() {
            let waiting = &mut self.spreading_mut(id).waiting;
            waiting.insert(chunk.number, chunk.portion);
        }
    }

    /// It is known what items there are.
    fn found(&mut self, id: FrameId, asked: &Asked, text: &Json) -> Result<(), Failure> {
        self.budget.read(text)?;
        let found = serde_json::from_str(text.as_str());
        let (digest, headers, chunks) = match found.map_err(|error| unreadable(&error))? {
            Found::Whole(items) => {
                let read: Result<ReadTask, _> = serde_json::from_str(asked.input.as_str());
                let whole = read.is_ok_and(|read| read.whole);
                return self.found_list(id, &items, whole);
            }
            Found::Cut {
                digest,
                headers,
                chunks,
            } => (digest, headers, chunks),
        };
        if chunks.len() > MAX_CHUNKS {
            let message = format!(
                "the items make {} chunks, at most {MAX_CHUNKS}",
                chunks.len()
            );
            return Err(Failure::new(errors::ITEM_LIMIT, message));
        }
        let spreading = self.spreading_mut(id);
        if let Some(origin) = &mut spreading.origin {
            origin.digest = digest;
            if let spread::Format::Csv { headers: names, .. } = &mut origin.source.format {
                *names = headers.or_else(|| names.take());
            }
        }
        for (number, span) in (0..).zip(chunks) {
            let portion = Portion {
                first: spreading.items,
                count: span.2,
                span: Some(span),
                items: None,
            };
            spreading.items += u64::from(span.2);
            spreading.waiting.insert(number, portion);
        }
        self.work.push(Work::Open(id));
        Ok(())
    }

    /// The items are here: all are run in this execution, as by a Map that is not
    /// distributed, or they are cut.
    fn found_list(&mut self, id: FrameId, items: &Json, whole: bool) -> Result<(), Failure> {
        self.budget.read(items)?;
        let items: Vec<Value> =
            serde_json::from_str(items.as_str()).map_err(|error| unreadable(&error))?;
        let Step::Spreading(spreading) = &self.execution.frames[&id].step else {
            return Ok(());
        };
        let (terms, batches) = (spreading.terms, spreading.batches.clone());
        if !whole {
            self.spreading_mut(id).origin = None;
            let portions = self.portions(items, batches.as_ref())?;
            return self.put_portions(id, portions);
        }
        self.begin_mapping(id, 0, items, batches.as_ref(), terms)
    }

    /// Makes a frame go through items, itself.
    fn begin_mapping(
        &mut self,
        id: FrameId,
        first: u64,
        items: Vec<Value>,
        batches: Option<&Batches>,
        terms: Terms,
    ) -> Result<(), Failure> {
        let Some(count) = u32::try_from(items.len()).ok().filter(|n| *n <= MAX_ITEMS) else {
            let count = items.len();
            let message = format!(
                "there are {count} items, one execution takes {MAX_ITEMS}; let the Map be distributed"
            );
            return Err(Failure::new(errors::ITEM_LIMIT, message));
        };
        if count == 0 {
            self.frame_mut(id).step = Step::Stopped {};
            self.work.push(Work::Leave(id, Output::Value(json!([]))));
            return Ok(());
        }
        self.budget.frames(items.len())?;
        let first = match batches.and_then(|batches| batches.items) {
            Some(size) => first / size.max(1),
            None => first,
        };
        let items = match batches {
            Some(batches) => batched(items, batches),
            None => items,
        };
        let texts = items.iter().map(|item| self.budget.write(item));
        let texts = texts.collect::<Result<Vec<Json>, _>>()?;
        let first = u32::try_from(first).unwrap_or(u32::MAX - MAX_ITEMS);
        let mapping = Mapping {
            items: count,
            bytes: texts.iter().map(|text| text.len() as u64).sum(),
            waiting: (first..).zip(texts).collect(),
            terms: Some(terms),
            ..Mapping::default()
        };
        self.check_room(mapping.bytes, 0)?;
        self.frame_mut(id).step = Step::Mapping(Box::new(mapping));
        self.work.push(Work::Open(id));
        Ok(())
    }

    /// Asks for the next chunk, if one waits and there is room, or finishes.
    pub(super) fn open_chunk(&mut self, id: FrameId) -> Result<(), ApplyError> {
        match self.next_chunk(id) {
            Ok(()) => Ok(()),
            Err(failure) => self.fail_spread(id, failure),
        }
    }

    fn next_chunk(&mut self, id: FrameId) -> Result<(), Failure> {
        let spreading = self.spreading_mut(id);
        let (chunks, each) = spread::divide(spreading.terms.max_concurrency);
        let asked = spreading.asked.len();
        let Some((number, portion)) = spreading.waiting.pop_first() else {
            return match asked {
                0 => self.finish_spread(id),
                _ => Ok(()),
            };
        };
        if asked >= chunks as usize {
            spreading.waiting.insert(number, portion);
            return Ok(());
        }
        let task = ChunkTask {
            number,
            portion,
            origin: spreading.origin.clone(),
            concurrency: each,
            bears: spreading.terms.tolerance.is_some(),
            batches: spreading.batches.clone(),
            shared: spreading.shared.clone(),
            place: spreading.place.clone(),
        };
        self.ask(id, spread::Work::Chunk, &task)?;
        self.work.push(Work::Open(id));
        Ok(())
    }

    fn chunk_done(&mut self, id: FrameId, asked: &Asked, text: &Json) -> Result<(), Failure> {
        let Some(ChunkTask {
            number, portion, ..
        }) = asked.chunk()
        else {
            return Ok(());
        };
        let output = match self.read_chunk(text) {
            Ok(output) => output,
            Err(failure) => {
                self.put_back(id, asked);
                return Err(failure);
            }
        };
        let (failed, error) = failures(&output);
        let count = u64::from(portion.count);
        let bytes = text.len() as u64;
        let spreading = self.spreading_mut(id);
        spreading.failed = spreading.failed.saturating_add(failed);
        spreading.succeeded += count.saturating_sub(failed);
        spreading.bytes += bytes;
        let is_written = spreading.place.is_some();
        let done = Done {
            portion,
            failed,
            output: text.clone(),
        };
        spreading.done.insert(number, done);
        let (all_failed, items) = (spreading.failed, spreading.items);
        let tolerance = spreading.terms.tolerance;
        let open = spreading.left();
        if let Some(tolerance) = tolerance
            && !tolerance.bears(whole_number(all_failed), whole_number(items))
        {
            self.fail_again(id);
            return Err(self.not_borne(all_failed, items, error));
        }
        if !is_written && self.spreading_mut(id).bytes > MAX_CONTEXT_BYTES {
            let message = format!(
                "the results of the Map have more than {MAX_CONTEXT_BYTES} bytes together; write \
                 them to objects: `results: {{object: ...}}`"
            );
            return Err(Failure::new(errors::CONTEXT_TOO_LARGE, message));
        }
        self.tell(|machine| Record::BranchEnded {
            place: machine.place(id),
            branch: format!("chunk {number}"),
            open,
        });
        self.work.push(Work::Open(id));
        Ok(())
    }

    fn read_chunk(&mut self, text: &Json) -> Result<ChunkOutput, Failure> {
        self.budget.read(text)?;
        serde_json::from_str(text.as_str()).map_err(|error| unreadable(&error))
    }

    /// Has the chunks in which something failed run again, should the execution be retried.
    fn fail_again(&mut self, id: FrameId) {
        let spreading = self.spreading_mut(id);
        let done = std::mem::take(&mut spreading.done);
        for (number, done) in done {
            if done.failed == 0 {
                spreading.done.insert(number, done);
                continue;
            }
            let succeeded = u64::from(done.portion.count).saturating_sub(done.failed);
            spreading.failed = spreading.failed.saturating_sub(done.failed);
            spreading.succeeded = spreading.succeeded.saturating_sub(succeeded);
            spreading.bytes = spreading.bytes.saturating_sub(done.output.len() as u64);
            spreading.waiting.insert(number, done.portion);
        }
    }

    fn not_borne(&self, failed: u64, items: u64, error: Option<Json>) -> Failure {
        let failure = if self.program.is_asl() {
            let message = "The specified tolerated failure threshold was exceeded";
            Failure::new(names::TOLERATED_FAILURES, message)
        } else {
            let message = format!("{failed} of {items} items failed, more than are tolerated");
            Failure::new(errors::TOLERANCE_EXCEEDED, message)
        };
        Failure {
            details: error,
            ..failure
        }
    }

    /// All chunks are done: what the Map gives.
    fn finish_spread(&mut self, id: FrameId) -> Result<(), Failure> {
        let Step::Spreading(spreading) = &self.execution.frames[&id].step else {
            return Ok(());
        };
        if let Some(place) = spreading.place.clone() {
            let sizes = spreading.done.iter().filter_map(|(number, done)| {
                let output: ChunkOutput = serde_json::from_str(done.output.as_str()).ok()?;
                let (succeeded, failed) = output.written?.bytes;
                Some((*number, succeeded, failed))
            });
            let write = WriteTask {
                place,
                succeeded: spreading.succeeded,
                failed: spreading.failed,
                chunks: sizes.collect(),
            };
            return self.ask(id, spread::Work::Write, &write);
        }
        let bytes = usize::try_from(spreading.bytes).unwrap_or(usize::MAX);
        let parsed = spreading.done.values().map(|done| done.output.as_str());
        let parsed: Vec<ChunkOutput> = parsed
            .filter_map(|text| serde_json::from_str(text).ok())
            .collect();
        self.budget.join(bytes)?;
        let outcomes = parsed.iter().flat_map(|output| &output.outcomes);
        let entries: Vec<_> = outcomes
            .filter_map(|outcome| match outcome {
                Outcome::Succeeded(output) => Some(Entry::Output(output)),
                // AWS leaves out those that failed.
                Outcome::Failed(..) if self.program.is_asl() => None,
                Outcome::Failed(_, error) => Some(Entry::Failed(Settled::failed(error))),
            })
            .collect();
        let list = Json::from_entries(&entries);
        self.frame_mut(id).step = Step::Stopped {};
        self.work.push(Work::Leave(id, Output::Text(list)));
        Ok(())
    }

    /// Starts an execution that runs a chunk.
    pub(super) fn begin_chunk(&mut self, input: &Json) {
        if let Err(failure) = self.enter_chunk(input) {
            self.close(Status::Failed { failure });
        }
    }

    fn enter_chunk(&mut self, input: &Json) -> Result<(), Failure> {
        if input.len() as u64 > MAX_CONTEXT_BYTES {
            let message = format!("a chunk of {} bytes has no room in a context", input.len());
            return Err(Failure::new(errors::INVALID_INPUT, message));
        }
        self.budget.read(input)?;
        let chunk: ChunkTask =
            serde_json::from_str(input.as_str()).map_err(|error| unreadable(&error))?;
        let items = chunk.portion.items.as_ref().map(Json::as_str);
        let items: Vec<Value> =
            serde_json::from_str(items.unwrap_or("[]")).map_err(|error| unreadable(&error))?;
        let mut shared: Value =
            serde_json::from_str(chunk.shared.as_str()).map_err(|error| unreadable(&error))?;
        let execution = &mut self.execution;
        let data = shared.get_mut("state").map(Value::take);
        shared["workflow"]["execution_id"] = execution.id.to_string().into();
        shared["workflow"]["started_at"] = execution.started_at.to_string().into();
        shared["workflow"]["tenant"] = execution.tenant.as_str().into();
        if self.program.is_asl() {
            shared = json!({"workflow": shared["workflow"].take()});
        }
        self.execution.context_bytes = text_len(&shared);
        self.execution.context = shared;
        self.open_frame(FrameId::ROOT, None, ScopeId::ROOT);
        if self.program.is_asl() {
            self.adopt_data(data.unwrap_or(Value::Null))?;
        }
        let terms = Terms {
            max_concurrency: chunk.concurrency.max(1),
            // Both absent: whatever fails is borne.
            tolerance: chunk.bears.then_some(Tolerance {
                count: None,
                percentage: None,
            }),
        };
        self.tell(|machine| Record::StateEntered {
            place: machine.place(FrameId::ROOT),
        });
        let (first, batches) = (chunk.portion.first, chunk.batches);
        self.begin_mapping(FrameId::ROOT, first, items, batches.as_ref(), terms)
    }

    /// Whether a frame is the root of an execution that runs a chunk.
    pub(super) fn runs_chunk(&self, id: FrameId) -> bool {
        self.program.chunk.is_some() && id == FrameId::ROOT
    }

    /// What an execution that runs a chunk gives.
    pub(super) fn chunk_output(&mut self, id: FrameId) -> Result<Json, Failure> {
        let Step::Mapping(mapping) = &self.execution.frames[&id].step else {
            return Ok(Output::Null.to_json());
        };
        let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
        for (index, output) in &mapping.done {
            outcomes.insert(*index, Outcome::Succeeded(output.clone()));
        }
        for (index, borne) in &mapping.failed {
            let failed = Outcome::Failed(borne.items, borne.error.clone());
            outcomes.insert(*index, failed);
        }
        self.budget.scan(outcomes.len())?;
        let bytes = usize::try_from(mapping.bytes).unwrap_or(usize::MAX);
        self.budget.join(bytes)?;
        Ok(Json::from_entries(&ChunkOutput {
            outcomes: outcomes.into_values().collect(),
            written: None,
        }))
    }

    fn spreading_mut(&mut self, id: FrameId) -> &mut Spreading {
        match &mut self.frame_mut(id).step {
            Step::Spreading(spreading) => spreading,
            _ => panic!("the caller has seen that the Map is distributed"),
        }
    }
}

/// The request that something asked for stands for.
pub(crate) fn activity_task(
    program: &crate::program::Program,
    state: StateId,
    task: TaskId,
    asked: &Asked,
    priority: Option<Priority>,
) -> ActivityTask {
    ActivityTask {
        task,
        attempt: 1,
        resource: program.chunk_resource(state, asked.work),
        state: program.state(state).name.clone(),
        input: asked.input.clone(),
        secrets: None,
        scheduled_at: asked.scheduled_at,
        timeout_ms: None,
        heartbeat_ms: None,
        priority: priority.unwrap_or_default(),
        rate_limit: None,
    }
}

/// Items that failed, and the last error.
fn failures(output: &ChunkOutput) -> (u64, Option<Json>) {
    if let Some(written) = &output.written {
        return (written.failed, written.error.clone());
    }
    let mut failed = (0, None);
    for outcome in &output.outcomes {
        if let Outcome::Failed(items, error) = outcome {
            failed = (failed.0 + u64::from(*items), Some(error.clone()));
        }
    }
    failed
}

/// Items of iterations out of items.
fn batched(items: Vec<Value>, batches: &Batches) -> Vec<Value> {
    let (most, bytes) = batches.limits();
    let input = batches.input.as_ref().map(Json::to_value);
    in_batches(items, most, bytes, |items| {
        batches.batch(input.as_ref(), items)
    })
}

impl Batches {
    /// How many items each iteration of a chunk gets, in order, by the sizes that they have as
    /// text without spaces: whoever tells of the iterations has to know whose results they
    /// are.
    pub fn lengths(&self, sizes: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let (most, bytes) = self.limits();
        let input = self.input.as_ref().map(Json::to_value);
        let empty = self.batch(input.as_ref(), Vec::new()).to_string().len();
        batch_lengths(sizes, most, bytes, empty)
    }

    /// Most items and most bytes of one.
    fn limits(&self) -> (usize, usize) {
        let limit =
            |limit: Option<u64>| usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        (limit(self.items).max(1), limit(self.bytes))
    }

    /// One of them, with [`Self::input`] as a value.
    fn batch(&self, input: Option<&Value>, items: Vec<Value>) -> Value {
        if !self.wrapped {
            return Value::Array(items);
        }
        let mut batch = serde_json::Map::new();
        if let Some(input) = input {
            batch.insert("BatchInput".to_owned(), input.clone());
        }
        batch.insert("Items".to_owned(), Value::Array(items));
        Value::Object(batch)
    }
}

/// `bucket/key`, out of what an expression gave.
fn object_name(value: &Value, what: &str) -> Result<(String, String), Failure> {
    let name = value.as_str().filter(|name| name.len() <= MAX_NAME_BYTES);
    let parts = name.and_then(|name| name.split_once('/'));
    match parts {
        Some((bucket, key)) if !bucket.is_empty() => Ok((bucket.to_owned(), key.to_owned())),
        _ => {
            let message = format!(
                "`{what}` names no object: it is a text such as `orders/2026-11.ndjson`, the bucket first"
            );
            Err(Failure::new(errors::EXPRESSION, message))
        }
    }
}

/// Where results go, below a prefix.
pub(super) fn folder(
    bucket: String,
    prefix: &str,
    run: String,
    style: Style,
    lines: bool,
) -> Place {
    let slash = if prefix.is_empty() || prefix.ends_with('/') {
        ""
    } else {
        "/"
    };
    Place {
        bucket,
        prefix: format!("{prefix}{slash}"),
        run,
        style,
        lines,
    }
}

/// Tolerances count in 32 bits, which is far beyond what chunks hold.
fn whole_number(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn unreadable(error: &serde_json::Error) -> Failure {
    let message = format!("what was read for the Map cannot be used: {error}");
    Failure::new(errors::ITEM_READ, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_as_many_items_as_their_lengths_say() {
        let texts = [12, 12, 7, 7, 7, 6, 1, 1, 1, 1];
        let items = texts.iter().map(|length| Value::from("x".repeat(*length)));
        let items: Vec<Value> = items.collect();
        // Without items, a batch has 2 bytes as a list and 33 as an object.
        for (most, bytes, wrapped, expected) in [
            (Some(4), None, false, &[4_usize, 4, 2][..]),
            (None, Some(40), false, &[2, 3, 5]),
            (Some(4), Some(40), false, &[2, 3, 4, 1]),
            (None, Some(71), true, &[2, 3, 5]),
            (Some(4), Some(71), true, &[2, 3, 4, 1]),
            // What is too large is alone.
            (None, Some(1), false, &[1; 10]),
        ] {
            let batches = Batches {
                items: most,
                bytes,
                wrapped,
                input: wrapped.then(|| json!({"a": 1}).into()),
            };
            let made = batched(items.clone(), &batches);
            let made: Vec<usize> = made
                .iter()
                .map(|batch| if wrapped { &batch["Items"] } else { batch })
                .map(|batch| batch.as_array().map_or(0, Vec::len))
                .collect();
            assert_eq!(made, expected, "{batches:?}");
            let sizes = items.iter().map(|item| item.to_string().len());
            assert_eq!(batches.lengths(sizes), made, "{batches:?}");
        }
    }
}
