//! Map states: what they iterate over, and what each iteration starts with.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::ApplyError;
use super::super::data::Output;
use super::super::limits::{MAX_CONCURRENCY, MAX_DEPTH, MAX_ITEMS};
use super::super::spread::{Entered, folder};
use super::super::walk::{Machine, Work};
use super::{flow, map_item, share, whole, wrong_type};
use crate::asl::fault::{Fault, names};
use crate::asl::program::{
    Amount, Batcher, Data, Flow, Format, Items, Kind, Map as MapState, Native, Reader, State,
    Template,
};
use crate::asl::scope::{Scope, quote};
use crate::execution::{Mapping, Terms};
use crate::machine::OBJECTS;
use crate::program::{StateKind, Tolerance};
use crate::spread::{self, Batches, Source};
use crate::{Failure, FrameId, Json, Step, errors};

/// Iterations at a time of an inline Map that does not say: AWS's limit.
const INLINE_CONCURRENCY: u64 = 40;

impl<'a> Machine<'a> {
    pub(super) fn run_map(
        &mut self,
        id: FrameId,
        state: &'a State,
        map: &'a MapState,
    ) -> Result<(), Failure> {
        if self.ancestors(id).count() >= MAX_DEPTH {
            let message = format!("branches and iterations nest at most {MAX_DEPTH} deep");
            return Err(Failure::new(errors::FRAME_LIMIT, message));
        }
        if let Some(reader) = &map.reader {
            let scope = self.scope(id, state);
            let mut steps = 0;
            let input = reader_input(state, reader.parameters.as_ref(), &scope, &mut steps);
            let input = self.settled(id, &scope, steps, input)?;
            return match (&reader.bound, reader.native) {
                (Some(bound), _) => self.attempt(id, bound, &input),
                (None, Some(native)) if self.execution.machine >= OBJECTS => {
                    self.read_object(id, state, map, reader, native, &input)
                }
                (None, _) => Err(self.unbound(id, &reader.resource)),
            };
        }
        let scope = self.scope(id, state);
        let mut steps = 0;
        let items = items(state, map, &scope, &mut steps);
        let items = self.settled(id, &scope, steps, items)?;
        self.begin_map(id, state, map, items)
    }

    /// Has the items of an object found.
    fn read_object(
        &mut self,
        id: FrameId,
        state: &'a State,
        map: &'a MapState,
        reader: &Reader,
        native: Native,
        input: &Value,
    ) -> Result<(), Failure> {
        let text = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
        let (bucket, key) = match native {
            Native::Object => (text("Bucket"), text("Key")),
            Native::Listing => (text("Bucket"), text("Prefix")),
        };
        if bucket.is_empty() || (key.is_empty() && native == Native::Object) {
            let reason = "The parameters of the ItemReader have no Bucket and Key";
            return Err(self.failure_of(id, &Fault::new(names::ITEM_READER, reason)));
        }
        let max_items = match &reader.max_items {
            Some(most) => {
                let scope = self.scope(id, state);
                let mut steps = 0;
                let most = whole(most, &scope, &scope.input, &mut steps);
                Some(self.settled(id, &scope, steps, most)?).filter(|most| *most > 0)
            }
            None => None,
        };
        let source = Source {
            bucket,
            key,
            format: match (native, &reader.format) {
                (Native::Listing, _) => spread::Format::Listing,
                (_, Format::Json) => spread::Format::Json,
                (_, Format::JsonLines) => spread::Format::Ndjson,
                (_, Format::Csv { headers, delimiter }) => spread::Format::Csv {
                    headers: headers.clone(),
                    delimiter: *delimiter,
                },
            },
            max_items,
        };
        let whole = self.program.whole || !map.distributed;
        let entered = self.entered(id, state, map)?;
        self.ask_read(id, source, whole, entered)
    }

    /// What a Map whose chunks are executions is made of.
    fn entered(
        &mut self,
        id: FrameId,
        state: &'a State,
        map: &'a MapState,
    ) -> Result<Entered, Failure> {
        let scope = self.scope(id, state);
        let mut steps = 0;
        let terms = terms(state, map, &scope, &mut steps);
        let terms = self.settled(id, &scope, steps, terms)?;
        let batches = match &map.batcher {
            Some(batcher) => {
                let mut steps = 0;
                let limits = batch_limits(state, batcher, &scope, &mut steps);
                let (items, bytes, input) = self.settled(id, &scope, steps, limits)?;
                Some(Batches {
                    items,
                    bytes,
                    wrapped: true,
                    input: input.as_ref().map(Json::from_value),
                })
            }
            None => None,
        };
        let place = match &map.writer {
            Some(writer) if map.distributed => {
                let mut steps = 0;
                let to = reader_input(state, writer.parameters.as_ref(), &scope, &mut steps);
                let to = self.settled(id, &scope, steps, to)?;
                let text = |name: &str| to[name].as_str().unwrap_or_default();
                if text("Bucket").is_empty() {
                    let reason = "The parameters of the ResultWriter have no Bucket";
                    return Err(self.failure_of(id, &Fault::new(names::RESULT_WRITER, reason)));
                }
                let (bucket, prefix) = (text("Bucket").to_owned(), text("Prefix"));
                let run = self.run_name();
                Some(folder(bucket, prefix, run, writer.style, writer.lines))
            }
            _ => None,
        };
        let variables = self.visible(id);
        let shared = json!({
            "workflow": {"input": self.execution.context["workflow"]["input"]},
            "state": {"input": scope.input, "variables": variables},
        });
        Ok(Entered {
            terms,
            batches,
            place,
            shared: self.budget.write(&shared)?,
        })
    }

    /// Gives the root frame of an execution that runs a chunk what the Map state's has.
    pub(in crate::machine) fn adopt_data(&mut self, mut state: Value) -> Result<(), Failure> {
        let input = state["input"].take();
        let bytes = self.budget.measure(&state)? + self.budget.measure(&input)?;
        let mut data = Data::new(Arc::new(input), bytes);
        if let Value::Object(variables) = state["variables"].take() {
            let variables = variables.into_iter();
            data.variables = variables
                .map(|(name, value)| (name, Arc::new(value)))
                .collect();
        }
        data.entered_at = self.now;
        data.entered_seq = self.execution.version;
        self.frame_mut(FrameId::ROOT).data = Some(Box::new(data));
        Ok(())
    }

    /// Whether a frame waits for the reader of its Map state, not for a Task.
    pub(in crate::machine) fn is_reading(&self, id: FrameId) -> bool {
        match self.state_of(id).map(|state| &state.kind) {
            Ok(StateKind::Asl(state)) => matches!(state.kind, Kind::Map(_)),
            _ => false,
        }
    }

    /// Goes through what a reader gave.
    pub(in crate::machine) fn iterate_over(
        &mut self,
        id: FrameId,
        text: &Json,
    ) -> Result<(), ApplyError> {
        let state = self.asl_of(id)?;
        let Kind::Map(map) = &state.kind else {
            return Err(self.mismatch(id));
        };
        match self.read_items(id, state, map, text) {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(id, failure),
        }
    }

    fn read_items(
        &mut self,
        id: FrameId,
        state: &'a State,
        map: &'a MapState,
        text: &Json,
    ) -> Result<(), Failure> {
        let Some(reader) = &map.reader else {
            return Ok(());
        };
        let value = self.parse(id, text)?;
        let mut items = match read(&reader.format, &value) {
            Ok(items) => items,
            Err(reason) => return Err(self.failure_of(id, &Fault::new(names::ITEM_READER, reason))),
        };
        if let Some(most) = &reader.max_items {
            let scope = self.scope(id, state);
            let mut steps = 0;
            let most = whole(most, &scope, &scope.input, &mut steps);
            match self.settled(id, &scope, steps, most)? {
                0 => {}
                most => items.truncate(usize::try_from(most).unwrap_or(usize::MAX)),
            }
        }
        self.begin_map(id, state, map, items)
    }

    /// Starts on the items, or leaves the state if there are none.
    fn begin_map(
        &mut self,
        id: FrameId,
        state: &'a State,
        map: &'a MapState,
        items: Vec<Value>,
    ) -> Result<(), Failure> {
        if map.writer.is_some() && map.distributed && !self.program.whole {
            let entered = self.entered(id, state, map)?;
            return self.spread_list(id, items, entered);
        }
        let scope = self.scope(id, state);
        let mut steps = 0;
        let terms = terms(state, map, &scope, &mut steps);
        let terms = self.settled(id, &scope, steps, terms)?;
        let Some(count) = u32::try_from(items.len()).ok().filter(|n| *n <= MAX_ITEMS) else {
            let count = items.len();
            let message = format!("there are {count} items, a Map state takes {MAX_ITEMS}");
            return Err(Failure::new(errors::ITEM_LIMIT, message));
        };
        let items = match &map.batcher {
            Some(batcher) => {
                let mut steps = 0;
                let made = batches(state, batcher, &scope, items, &mut steps);
                self.settled(id, &scope, steps, made)?
            }
            None => items,
        };
        if items.is_empty() {
            self.work.push(Work::Leave(id, Output::Value(json!([]))));
            return Ok(());
        }
        self.budget.frames(items.len())?;
        let texts = items.iter().map(|item| self.budget.write(item));
        let texts = texts.collect::<Result<Vec<Json>, _>>()?;
        let mapping = Mapping {
            items: count,
            bytes: texts.iter().map(|text| text.len() as u64).sum(),
            waiting: (0..).zip(texts).collect(),
            terms: Some(terms),
            ..Mapping::default()
        };
        self.check_room(mapping.bytes, 0)?;
        self.frame_mut(id).step = Step::Mapping(Box::new(mapping));
        self.work.push(Work::Open(id));
        Ok(())
    }

    /// What an iteration over `item` starts with; nothing if the Map is CDL's.
    pub(in crate::machine) fn iteration_data(
        &mut self,
        id: FrameId,
        index: u32,
        item: &Value,
    ) -> Result<Option<Box<Data>>, Failure> {
        let Ok(StateKind::Asl(state)) = self.state_of(id).map(|state| &state.kind) else {
            return Ok(None);
        };
        let Kind::Map(map) = &state.kind else {
            return Ok(None);
        };
        let input = match &map.selector {
            None => Arc::new(item.clone()),
            Some(selector) => {
                let mut scope = self.scope(id, state);
                if state.uses_context {
                    scope.context["Map"] = map_item(index, item);
                }
                let mut steps = 0;
                let input = select(state, selector, &scope, &mut steps);
                Arc::new(self.settled(id, &scope, steps, input)?)
            }
        };
        let bytes = self.check_size(id, &input)?;
        self.check_room(bytes, 0)?;
        Ok(Some(Box::new(Data::new(input, bytes))))
    }
}

fn template(
    template: &Template,
    scope: &Scope,
    data: &Value,
    steps: &mut u64,
) -> Result<Value, Fault> {
    match template {
        Template::Payload(payload) => payload.evaluate(scope, data),
        Template::Query(query) => query.evaluate(scope, steps),
    }
}

fn select(
    state: &State,
    selector: &Template,
    scope: &Scope,
    steps: &mut u64,
) -> Result<Value, Fault> {
    let data = flow::input(&state.flow, scope)?;
    template(selector, scope, &data, steps)
}

fn reader_input(
    state: &State,
    parameters: Option<&Template>,
    scope: &Scope,
    steps: &mut u64,
) -> Result<Value, Fault> {
    match parameters {
        Some(parameters) => select(state, parameters, scope, steps),
        None => Ok(json!({})),
    }
}

/// The items of a Map state without a reader.
fn items(
    state: &State,
    map: &MapState,
    scope: &Scope,
    steps: &mut u64,
) -> Result<Vec<Value>, Fault> {
    let is_query = matches!(state.flow, Flow::Query { .. });
    let data = flow::input(&state.flow, scope)?;
    let value = match &map.items {
        Items::Input => data.as_ref().clone(),
        Items::Path(path) => scope.resolve(path, &data, "ItemsPath")?.into_owned(),
        Items::Query(query) => match query.evaluate(scope, steps)? {
            Value::Array(items) => return Ok(items),
            other => return Err(wrong_type(query, "array", &other)),
        },
    };
    match value {
        Value::Array(items) => Ok(items),
        // Each entry is an item of its own.
        Value::Object(map_value) if map.distributed => Ok(map_value
            .into_iter()
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect()),
        other if is_query => Err(Fault::query(format!(
            "Map state input must be an array but was: {}",
            quote(&other)
        ))),
        other => {
            let from = match &map.items {
                Items::Path(path) => format!("Reference path \"{path}\" must point to array."),
                _ => format!(
                    "Map state input must be an array but was: {}",
                    quote(&other)
                ),
            };
            Err(Fault::runtime(from))
        }
    }
}

/// How many iterations at a time, and how many may fail.
fn terms(state: &State, map: &MapState, scope: &Scope, steps: &mut u64) -> Result<Terms, Fault> {
    let data = flow::input(&state.flow, scope)?;
    let asked = match &map.concurrency {
        Some(amount) => whole(amount, scope, &data, steps)?,
        None => 0,
    };
    let most = u64::from(MAX_CONCURRENCY);
    let limit = match asked {
        0 if map.distributed => most,
        0 => INLINE_CONCURRENCY,
        asked => asked.min(most),
    };
    let count = match &map.tolerated_count {
        Some(amount) => {
            let count = whole(amount, scope, &data, steps)?;
            Some(u32::try_from(count).unwrap_or(u32::MAX))
        }
        None => None,
    };
    let percentage = match &map.tolerated_percentage {
        Some(amount) => Some(share(amount, scope, &data, steps)?),
        None => None,
    };
    let tolerance = match (count, percentage) {
        (None, None) if map.distributed => Some(Tolerance {
            count: Some(0),
            percentage: None,
        }),
        (None, None) => None,
        (count, percentage) => Some(Tolerance { count, percentage }),
    };
    Ok(Terms {
        max_concurrency: u32::try_from(limit).unwrap_or(MAX_CONCURRENCY),
        tolerance,
    })
}

/// Most items and most bytes of a batch, and what is the same in each.
type Limits = (Option<u64>, Option<u64>, Option<Value>);

/// What an `ItemBatcher` asks for.
fn batch_limits(
    state: &State,
    batcher: &Batcher,
    scope: &Scope,
    steps: &mut u64,
) -> Result<Limits, Fault> {
    let data = flow::input(&state.flow, scope)?;
    let mut limit = |amount: &Option<Amount>| match amount {
        Some(amount) => {
            whole(amount, scope, &data, steps).map(|most| Some(most).filter(|n| *n > 0))
        }
        None => Ok(None),
    };
    let (max_items, max_bytes) = (limit(&batcher.max_items)?, limit(&batcher.max_bytes)?);
    let shared = match &batcher.input {
        Some(input) => Some(template(input, scope, &data, steps)?),
        None => None,
    };
    Ok((max_items, max_bytes, shared))
}

/// `{BatchInput, Items}`, each with as many items as it may have.
fn batches(
    state: &State,
    batcher: &Batcher,
    scope: &Scope,
    items: Vec<Value>,
    steps: &mut u64,
) -> Result<Vec<Value>, Fault> {
    let (max_items, max_bytes, shared) = batch_limits(state, batcher, scope, steps)?;
    let limit = |limit: Option<u64>| {
        limit.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        })
    };
    let (max_items, max_bytes) = (limit(max_items), limit(max_bytes));
    let batch = |items: Vec<Value>| {
        let mut batch = Map::new();
        if let Some(shared) = &shared {
            batch.insert("BatchInput".to_owned(), shared.clone());
        }
        batch.insert("Items".to_owned(), Value::Array(items));
        Value::Object(batch)
    };
    Ok(in_batches(items, max_items, max_bytes, batch))
}

/// Items together, as many as may be; one at least.
pub(in crate::machine) fn in_batches(
    items: Vec<Value>,
    max_items: usize,
    max_bytes: usize,
    batch: impl Fn(Vec<Value>) -> Value,
) -> Vec<Value> {
    let empty = batch(Vec::new()).to_string().len();
    let sizes = items.iter().map(|item| item.to_string().len());
    let lengths = batch_lengths(sizes, max_items, max_bytes, empty);
    let mut items = items.into_iter();
    lengths
        .into_iter()
        .map(|length| batch(items.by_ref().take(length).collect()))
        .collect()
}

/// How many items of these sizes each batch has, one without items being `empty` bytes.
pub(in crate::machine) fn batch_lengths(
    sizes: impl IntoIterator<Item = usize>,
    max_items: usize,
    max_bytes: usize,
    empty: usize,
) -> Vec<usize> {
    let (mut lengths, mut length, mut bytes) = (Vec::new(), 0, empty);
    for size in sizes {
        let size = size + 1; // a comma
        let full = length >= max_items || bytes.saturating_add(size) > max_bytes;
        if length > 0 && full {
            lengths.push(length);
            (length, bytes) = (0, empty);
        }
        bytes += size;
        length += 1;
    }
    if length > 0 {
        lengths.push(length);
    }
    lengths
}

/// The items in what a reader gave: JSON as it is, or text in the reader's format.
fn read(format: &Format, value: &Value) -> Result<Vec<Value>, String> {
    let text = match (format, value) {
        (_, Value::Array(items)) => return Ok(items.clone()),
        (Format::Json, Value::String(text)) => {
            return match serde_json::from_str(text) {
                Ok(Value::Array(items)) => Ok(items),
                Ok(_) => Err("The JSON that was read is not a list".to_owned()),
                Err(error) => Err(format!("What was read is not JSON: {error}")),
            };
        }
        (Format::JsonLines | Format::Csv { .. }, Value::String(text)) => text,
        _ => return Err("The reader gave neither a list nor text".to_owned()),
    };
    match format {
        Format::Csv { headers, delimiter } => csv(text, headers.as_deref(), *delimiter),
        _ => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                serde_json::from_str(line).map_err(|error| format!("A line is not JSON: {error}"))
            })
            .collect(),
    }
}

/// Rows as objects by the names of their columns (RFC 4180).
fn csv(text: &str, headers: Option<&[String]>, delimiter: char) -> Result<Vec<Value>, String> {
    let mut rows = rows(text, delimiter)?.into_iter();
    let headers = match headers {
        Some(headers) => headers.to_vec(),
        None => rows.next().unwrap_or_default(),
    };
    let object = |row: Vec<String>| {
        let mut cells = row.into_iter();
        let fields = headers.iter().map(|name| {
            let cell = cells.next().unwrap_or_default();
            (name.clone(), Value::String(cell))
        });
        Value::Object(fields.collect())
    };
    Ok(rows.map(object).collect())
}

fn rows(text: &str, delimiter: char) -> Result<Vec<Vec<String>>, String> {
    let (mut rows, mut last) = (Vec::new(), 0);
    for row in crate::csv::rows(text.as_bytes(), delimiter).into_records() {
        let row = row.map_err(|error| format!("A row is no CSV: {error}"))?;
        last = row.position().map_or(last, csv::Position::byte);
        // Delimiters alone are no row either.
        if row.iter().any(|cell| !cell.is_empty()) {
            rows.push(row.iter().map(str::to_owned).collect());
        }
    }
    let last = usize::try_from(last).unwrap_or(0);
    if crate::csv::ends_quoted(&text.as_bytes()[last..], delimiter) {
        return Err("A quoted cell of the CSV is not closed".to_owned());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_by_its_format() {
        let csv = |headers: Option<Vec<String>>| Format::Csv {
            headers,
            delimiter: ',',
        };
        for (format, text, expected) in [
            (Format::Json, "[1, {}]", json!([1, {}])),
            (Format::JsonLines, "{\"a\": 1}\n\n2\n", json!([{"a": 1}, 2])),
            (
                csv(None),
                "a,b\r\n1,\"x, \"\"y\"\"\"\r\n2\r\n",
                json!([{"a": "1", "b": "x, \"y\""}, {"a": "2", "b": ""}]),
            ),
            // A quote inside of a cell is one of its characters, a return alone ends a row,
            // and the last line may end anywhere.
            (
                csv(None),
                "a,b\nx\"y,u\rv\n\n,\n1,",
                json!([{"a": "x\"y", "b": "u"}, {"a": "v", "b": ""}, {"a": "1", "b": ""}]),
            ),
            (
                csv(Some(vec!["n".to_owned()])),
                "1\n2",
                json!([{"n": "1"}, {"n": "2"}]),
            ),
        ] {
            let items = read(&format, &Value::String(text.to_owned())).map(Value::Array);
            assert_eq!(items, Ok(expected), "{text}");
        }
        for (format, text) in [
            (Format::Json, "{}"),
            (Format::Json, "["),
            (Format::JsonLines, "{"),
            (csv(None), "a\n\"x"),
        ] {
            assert!(
                read(&format, &Value::String(text.to_owned())).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn an_item_that_is_too_large_for_any_batch_has_one_of_its_own() {
        let lengths = |sizes: &[usize]| batch_lengths(sizes.iter().copied(), 5, 8, 2);
        assert_eq!(lengths(&[20, 1, 1, 20]), [1, 2, 1]);
        assert_eq!(lengths(&[]), [0_usize; 0]);
    }
}
