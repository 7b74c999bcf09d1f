//! What distributed Maps ask for: objects cut into chunks, chunks read, results written.
//!
//! All of it happens after the commit of what asked for it, and may happen again after a
//! crash: an object is cut by its content, a chunk is read of the content that was cut,
//! and results are objects whose names derive from the Map's run and the chunk's number.
//! So the second time gives what the first did, or names what is in the way.
//!
//! Texts of chunks are at hand only with [`Room`] for them: from when items are read until a
//! shard has the start with them and counts them itself, and from when a chunk has ended
//! until its Map is told. In between, the execution that runs the chunk has its items.

use cascade_cdl::spread::{
    ChunkOutput, ChunkTask, File as Name, Format, Found, Origin, Outcome, Place, ReadTask, Source,
    Span, Style, WriteTask, Written,
};
use cascade_cdl::{ActivityFailure, ExecutionId, Json, TenantId, Timestamp, errors, limits};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::objects::cut::{self, Cut, Fault, Sizes};
use crate::objects::{self, Content, Objects};
use crate::places::{Place as Room, Places};
use crate::store;

/// Objects that are read or written for Maps at a time: each holds a thread, and up to
/// some megabytes.
const READS: usize = 8;

/// How often a text of a chunk is in memory at a time, at the most: as it was read, as
/// items or results, and as the text that is made of them.
const COPIES: usize = 3;

/// What serves Maps.
pub(super) struct Spreads {
    objects: Objects,
    places: Places,
    /// Bytes for texts of chunks. Taken before [`Self::places`], never the other way round,
    /// and never by who has some.
    pub(super) room: Places,
}

/// How large a chunk may be, told by what is asked for.
pub(super) struct Extent {
    /// Its items, if they are to be read.
    read: Option<usize>,
    /// What is asked for, with the items if they are there.
    input: usize,
    /// Whether its results are written.
    pub(super) is_written: bool,
}

impl Extent {
    pub(super) fn of(input: &Json) -> Answer<Self> {
        let task: ChunkTask = parse(input)?;
        Ok(Self {
            read: place_of(&task).map(|(origin, span)| cut::most_text(&origin.source.format, span)),
            input: input.len(),
            is_written: task.place.is_some(),
        })
    }

    /// Whether results are written together with items that were read.
    pub(super) fn needs_items(&self) -> bool {
        self.is_written && self.read.is_some()
    }

    /// Room for the start: none if the items are there, since they are shared.
    pub(super) fn at_start(&self) -> usize {
        let text = self.read.map(|items| items + self.input);
        COPIES.saturating_mul(text.unwrap_or(0))
    }

    /// Room for what the chunk gave, with its items if these are written with it.
    pub(super) fn at_end(&self, output: usize) -> usize {
        if !self.is_written {
            return output;
        }
        COPIES.saturating_mul(self.read.unwrap_or(0) + self.input + output)
    }
}

/// Why something was not done.
pub(super) enum Trouble {
    /// It will not be.
    Fails(ActivityFailure),
    /// Come again.
    Later(String),
}

impl From<ActivityFailure> for Trouble {
    fn from(failure: ActivityFailure) -> Self {
        Self::Fails(failure)
    }
}

pub(super) type Answer<T> = Result<T, Trouble>;

impl Spreads {
    pub(super) fn new(objects: Objects, chunk_bytes: usize) -> Self {
        Self {
            objects,
            places: Places::new(READS),
            room: Places::new(chunk_bytes),
        }
    }

    /// Finds the items of an object.
    pub(super) async fn read(&self, tenant: &TenantId, input: &Json) -> Answer<Json> {
        let task: ReadTask = parse(input)?;
        let _place = self.places.take(tenant).await;
        if task.source.format == Format::Listing {
            return self.listing(tenant, &task.source).await;
        }
        let Source {
            bucket,
            key,
            format,
            max_items,
        } = task.source;
        let shown = format!("{bucket}/{key}");
        let name = objects::name(&bucket, &key).map_err(|error| unread(&shown, &error))?;
        let found = self.objects.find(tenant, &name).await;
        let found = found.map_err(|error| of_objects(&error))?;
        let (object, content) = found.ok_or_else(|| unread(&shown, &"there is no such object"))?;
        let digest = object.digest;
        let mut content = content.ok_or_else(|| gone(&shown, &digest))?;
        let found = blocking(move || {
            if task.whole {
                return cut::whole(&mut content, &format, max_items).map(|list| (Some(list), None));
            }
            let cut = cut::cut(&mut content, &format, max_items, Sizes::of(task.batch))?;
            Ok((None, Some(cut)))
        });
        let found = match found.await.map_err(|fault| of_fault(&shown, fault))? {
            (Some(list), _) => Found::Whole(json_of(list)?),
            (None, Some(Cut { headers, chunks })) => Found::Cut {
                digest,
                headers,
                chunks,
            },
            (None, None) => return Err(Trouble::Later("nothing was read".to_owned())),
        };
        Ok(text(&found))
    }

    /// The objects whose keys begin so, as items.
    async fn listing(&self, tenant: &TenantId, source: &Source) -> Answer<Json> {
        let shown = format!("{}/{}", source.bucket, source.key);
        objects::check_bucket(&source.bucket).map_err(|error| unread(&shown, &error))?;
        let most = source.max_items.unwrap_or(u64::MAX);
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.objects.list(
                tenant,
                &source.bucket,
                &source.key,
                &after,
                store::PAGE_ITEMS,
            );
            let page = page.await.map_err(|error| of_objects(&error))?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name.key);
            for object in page {
                if items.len() as u64 >= most {
                    return Ok(text(&Found::Whole(Json::from_value(&items.into()))));
                }
                if items.len() >= limits::MAX_ITEMS as usize {
                    let most = limits::MAX_ITEMS;
                    let reason = format!("more than {most} objects begin so");
                    return Err(unread(&shown, &reason));
                }
                items.push(json!({
                    "Key": object.name.key,
                    "Size": object.size,
                    "Etag": format!("\"{}\"", object.digest),
                    // Seconds, as AWS has it.
                    "LastModified": object.created_at.0 / 1_000,
                }));
            }
        }
        Ok(text(&Found::Whole(Json::from_value(&items.into()))))
    }

    /// What the execution that runs a chunk is started with, the items in place of where
    /// they are; with room for it, if it was read.
    pub(super) async fn start_of(
        &self,
        tenant: &TenantId,
        input: &Json,
    ) -> Answer<(Json, Option<Room>)> {
        let extent = Extent::of(input)?;
        if extent.read.is_none() {
            return Ok((input.clone(), None));
        }
        let room = self.room.take_many(tenant, extent.at_start()).await;
        let mut task: ChunkTask = parse(input)?;
        if let Some((origin, span)) = place_of(&task) {
            let shown = format!("{}/{}", origin.source.bucket, origin.source.key);
            let _place = self.places.take(tenant).await;
            let mut content = self.content(tenant, &origin.digest, &shown).await?;
            let format = origin.source.format.clone();
            let list = blocking(move || cut::items(&mut content, &format, span));
            let list = list.await.map_err(|fault| of_fault(&shown, fault))?;
            (task.origin, task.portion.span) = (None, None);
            task.portion.items = Some(json_of(list)?);
        }
        Ok((text(&task), Some(room)))
    }

    async fn content(&self, tenant: &TenantId, digest: &str, shown: &str) -> Answer<Content> {
        let content = self.objects.content(tenant, digest).await;
        let content = content.map_err(|error| of_objects(&error))?;
        content.ok_or_else(|| gone(shown, digest))
    }

    /// Writes the results of a chunk to its place, out of what its execution was started
    /// with and what it gave; what the Map is told.
    pub(super) async fn write_chunk(
        &self,
        tenant: &TenantId,
        child: ExecutionId,
        started_with: Json,
        output: Json,
        now: Timestamp,
    ) -> Answer<Json> {
        let task: ChunkTask = parse(&started_with)?;
        let Some(place) = &task.place else {
            return Ok(output);
        };
        drop(started_with);
        let _place = self.places.take(tenant).await;
        let Files {
            succeeded,
            failed,
            mut written,
        } = files(place, child, &task, &parse(&output)?)?;
        drop(output);
        let number = task.number;
        for (name, content, size) in [
            (Name::Succeeded(number), succeeded, &mut written.bytes.0),
            (Name::Failed(number), failed, &mut written.bytes.1),
        ] {
            match content {
                Some(content) => {
                    *size = content.len() as u64;
                    let content = content.as_bytes();
                    self.put(tenant, place, name, content, now).await?;
                }
                None => self.remove(tenant, place, name).await?,
            }
        }
        let told = ChunkOutput {
            outcomes: Vec::new(),
            written: Some(written),
        };
        Ok(text(&told))
    }

    /// Writes what there is of a Map run, and tells where.
    pub(super) async fn write_manifest(
        &self,
        tenant: &TenantId,
        map: ExecutionId,
        input: &Json,
        now: Timestamp,
    ) -> Answer<Json> {
        let WriteTask {
            place,
            succeeded,
            failed,
            chunks,
        } = parse(input)?;
        let list = |name: fn(u32) -> Name, size: fn(&(u32, u64, u64)) -> u64| -> Vec<Value> {
            let there = chunks.iter().filter(|chunk| size(chunk) > 0);
            there
                .map(|chunk| json!({"Key": place.key(name(chunk.0)), "Size": size(chunk)}))
                .collect()
        };
        let run = format!("arn:cascade:states::{tenant}:mapRun:{map}:{}", place.run);
        let manifest = json!({
            "DestinationBucket": place.bucket,
            "MapRunArn": run,
            "ResultFiles": {
                "FAILED": list(Name::Failed, |chunk| chunk.2),
                "PENDING": [],
                "SUCCEEDED": list(Name::Succeeded, |chunk| chunk.1),
            },
        });
        let content = manifest.to_string();
        self.put(tenant, &place, Name::Manifest, content.as_bytes(), now)
            .await?;
        let key = place.key(Name::Manifest);
        let told = match place.style {
            Style::Plain => json!({
                "run": place.run,
                "manifest": format!("{}/{key}", place.bucket),
                "items": succeeded + failed,
                "succeeded": succeeded,
                "failed": failed,
            }),
            _ => json!({
                "MapRunArn": run,
                "ResultWriterDetails": {"Bucket": place.bucket, "Key": key},
            }),
        };
        Ok(told.into())
    }

    async fn put(
        &self,
        tenant: &TenantId,
        place: &Place,
        name: Name,
        content: &[u8],
        now: Timestamp,
    ) -> Answer<()> {
        let key = place.key(name);
        let shown = format!("{}/{key}", place.bucket);
        let name = objects::name(&place.bucket, &key);
        let name = name.map_err(|error| unwritten(&shown, &error))?;
        match self.objects.put(tenant, name, content, now).await {
            Ok(_) => Ok(()),
            Err(
                error @ (objects::Error::TooLarge(_)
                | objects::Error::Store(store::Error::ObjectQuota { .. })),
            ) => Err(unwritten(&shown, &error)),
            Err(error) => Err(of_objects(&error)),
        }
    }

    /// Removes what an earlier try of a chunk wrote and this one does not: a chunk is tried
    /// again when its Map is, under the same name.
    async fn remove(&self, tenant: &TenantId, place: &Place, name: Name) -> Answer<()> {
        let key = place.key(name);
        let shown = format!("{}/{key}", place.bucket);
        let name = objects::name(&place.bucket, &key);
        let name = name.map_err(|error| unwritten(&shown, &error))?;
        let found = self.objects.get(tenant, &name).await;
        // Seldom is there one, and to look is cheaper than to delete.
        if found.map_err(|error| of_objects(&error))?.is_some() {
            let deleted = self.objects.delete(tenant, &name).await;
            deleted.map_err(|error| of_objects(&error))?;
        }
        Ok(())
    }
}

/// Where a chunk's items are, if they are not with it.
fn place_of(task: &ChunkTask) -> Option<(&Origin, Span)> {
    task.origin.as_ref().zip(task.portion.span)
}

/// What is written of a chunk.
struct Files {
    succeeded: Option<String>,
    failed: Option<String>,
    written: Written,
}

/// A file of results as it comes about.
struct Entries {
    text: String,
    lines: bool,
}

impl Entries {
    fn new(place: &Place) -> Self {
        Self {
            text: String::new(),
            lines: place.lines,
        }
    }

    fn push(&mut self, entry: &str) {
        if !self.lines {
            self.text.push(if self.text.is_empty() { '[' } else { ',' });
        }
        self.text.push_str(entry);
        if self.lines {
            self.text.push('\n');
        }
    }

    /// The whole, if there is any entry.
    fn finish(mut self) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        if !self.lines {
            self.text.push(']');
        }
        Some(self.text)
    }
}

/// The files of a chunk, the same however often they are made.
fn files(
    place: &Place,
    child: ExecutionId,
    task: &ChunkTask,
    results: &ChunkOutput,
) -> Answer<Files> {
    let list = task.portion.items.as_ref().map_or("[]", Json::as_str);
    let items: Vec<&RawValue> = serde_json::from_str(list).map_err(|error| unusable(&error))?;
    // What each iteration had: an item, or as many as its batch.
    let sizes = match &task.batches {
        Some(batches) => {
            // One at a time: a value takes many times what its text does.
            let sizes = items.iter().map(|item| plain_len(item));
            batches.lengths(sizes.collect::<Answer<Vec<usize>>>()?)
        }
        None => vec![1; items.len()],
    };
    let (mut succeeded, mut failed) = (Entries::new(place), Entries::new(place));
    let mut written = Written {
        succeeded: 0,
        failed: 0,
        bytes: (0, 0),
        error: None,
    };
    let (mut rest, mut index) = (items.as_slice(), task.portion.first);
    for (outcome, size) in results.outcomes.iter().zip(sizes) {
        let (own, others) = rest.split_at(size.min(rest.len()));
        rest = others;
        let input = match (own, &task.batches) {
            ([only], None) => only.get().to_owned(),
            _ => text(&own).as_str().to_owned(),
        };
        match outcome {
            Outcome::Succeeded(output) => {
                written.succeeded += size as u64;
                success(place.style, child, index, &input, output, &mut succeeded);
            }
            Outcome::Failed(items, error) => {
                written.failed += u64::from(*items);
                written.error = Some(error.clone());
                failed.push(&failure(place.style, child, index, &input, error));
            }
        }
        index += size as u64;
    }
    Ok(Files {
        succeeded: succeeded.finish(),
        failed: failed.finish(),
        written,
    })
}

/// Length of an item as text without spaces.
fn plain_len(item: &RawValue) -> Answer<usize> {
    let value: Value = serde_json::from_str(item.get()).map_err(|error| unusable(&error))?;
    Ok(value.to_string().len())
}

fn success(
    style: Style,
    child: ExecutionId,
    index: u64,
    input: &str,
    output: &Json,
    entries: &mut Entries,
) {
    match style {
        Style::Plain => {
            let output = output.as_str();
            entries.push(&format!(
                r#"{{"index":{index},"input":{input},"output":{output}}}"#
            ));
        }
        Style::Detailed => {
            let mut entry = detailed(child, index, input, "SUCCEEDED");
            entry["Output"] = output.as_str().into();
            entry["OutputDetails"] = json!({"Included": true});
            entries.push(&entry.to_string());
        }
        Style::Compact => entries.push(output.as_str()),
        Style::Flat => match serde_json::from_str::<Vec<&RawValue>>(output.as_str()) {
            Ok(items) => items.iter().for_each(|item| entries.push(item.get())),
            Err(_) => entries.push(output.as_str()),
        },
    }
}

fn failure(style: Style, child: ExecutionId, index: u64, input: &str, error: &Json) -> String {
    if style == Style::Plain {
        let error = error.as_str();
        return format!(r#"{{"index":{index},"input":{input},"error":{error}}}"#);
    }
    let error = error.to_value();
    let mut entry = detailed(child, index, input, "FAILED");
    entry["Error"] = error["error"].clone();
    entry["Cause"] = error["message"].clone();
    entry.to_string()
}

/// As Step Functions tells of a child, less the times, which would not be the same twice.
fn detailed(child: ExecutionId, index: u64, input: &str, status: &str) -> Value {
    json!({
        "ExecutionArn": format!("arn:cascade:states:::execution:{child}"),
        "Index": index,
        "Input": input,
        "InputDetails": {"Included": true},
        "Name": format!("{child}:{index}"),
        "Status": status,
    })
}

/// Runs what reads files.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error).into()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(input: &Json) -> Answer<T> {
    serde_json::from_str(input.as_str()).map_err(|error| unusable(&error))
}

fn text(value: &impl serde::Serialize) -> Json {
    let text = serde_json::to_string(value).expect("text for keys, and nothing that fails");
    Json::parse(text).expect("it was just written")
}

fn json_of(list: String) -> Answer<Json> {
    Json::parse(list).map_err(|error| unusable(&error))
}

fn unusable(error: &serde_json::Error) -> Trouble {
    fails(
        errors::ITEM_READ,
        format!("what was read cannot be used: {error}"),
    )
}

fn unread(object: &str, reason: &dyn std::fmt::Display) -> Trouble {
    fails(errors::ITEM_READ, format!("object `{object}`: {reason}"))
}

fn gone(object: &str, digest: &str) -> Trouble {
    let reason =
        format!("it was deleted or replaced while the Map read it; its content was {digest}");
    unread(object, &reason)
}

fn unwritten(object: &str, reason: &dyn std::fmt::Display) -> Trouble {
    fails(errors::RESULT_WRITE, format!("object `{object}`: {reason}"))
}

fn fails(error: &str, message: String) -> Trouble {
    Trouble::Fails(ActivityFailure {
        error: error.to_owned(),
        message,
        retryable: Some(false),
        details: None,
    })
}

fn of_fault(object: &str, fault: Fault) -> Trouble {
    match fault {
        Fault::Io(error) => Trouble::Later(format!("object `{object}`: {error}")),
        Fault::TooMuch(_) => fails(errors::ITEM_LIMIT, format!("object `{object}`: {fault}")),
        Fault::Record { .. } => unread(object, &fault),
    }
}

fn of_objects(error: &objects::Error) -> Trouble {
    Trouble::Later(error.to_string())
}
