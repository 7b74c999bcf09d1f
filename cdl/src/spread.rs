//! What a distributed Map asks of the shell, and what it is told.
//!
//! A Map over more than one history should hold is *spread*: its items are cut into
//! chunks, and each chunk is run by an execution of its own, a child of the one that
//! has the Map. To the machine all of that is attempts ([`Work`]), asked for by the same
//! command as activities and answered by the same events:
//!
//! - [`Work::Read`] ([`ReadTask`] → [`Found`]) cuts an object into chunks;
//! - [`Work::Chunk`] ([`ChunkTask`] → [`ChunkOutput`]) reads one, runs it as a child whose
//!   start carries the items, and writes its results if there is a place for them;
//! - [`Work::Write`] ([`WriteTask`] → any JSON) writes the manifest.
//!
//! Everything here is stored in histories: fields are only ever added, with defaults.

use serde::{Deserialize, Serialize};

use crate::Json;

/// Separates the name of a workflow from the path of the Map state whose chunks a
/// program runs. No workflow has it in its name.
pub const SEPARATOR: char = '#';

/// Most chunks of one Map. Each is an event of the parent, whose history takes some
/// 25,000, and a retry may run all of them again.
pub const MAX_CHUNKS: usize = 10_000;

/// Items of a chunk, unless batches ask for more. A child has an event or a few for each,
/// so this keeps its history near a hundredth of what one may have.
pub const CHUNK_ITEMS: u32 = 250;

/// A chunk that has this many bytes of items is closed: its child starts with them, and
/// keeps them in its snapshots.
pub const CHUNK_BYTES: u64 = 256 << 10;

/// Most bytes of one item, or of a batch: they start an execution, and have to have room
/// in its context.
pub const ITEM_BYTES: u64 = 1 << 20;

/// Most bytes of the context, or of an ASL state's input and variables, that go with each
/// chunk: as much as an ASL state may have.
pub const SHARED_BYTES: u64 = 256 << 10;

/// Most chunks at a time.
pub const MAX_LIVE: u32 = 64;

/// Iterations at a time in a chunk, if there are enough for several chunks: so there is a
/// next chunk under way while the last items of one are.
const SIDE_BY_SIDE: u32 = 8;

/// Most iterations of a distributed Map at a time, over all chunks.
pub const MAX_CONCURRENCY: u32 = 10_000;

/// Divides the iterations that may run at a time: how many chunks, and how many in each.
/// Never more together than were given.
pub fn divide(max_concurrency: u32) -> (u32, u32) {
    let chunks = (max_concurrency / SIDE_BY_SIDE).clamp(1, MAX_LIVE);
    let each = (max_concurrency / chunks).clamp(1, crate::limits::MAX_CONCURRENCY);
    (chunks, each)
}

/// What a Map asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// To find out what items there are.
    Read,
    /// To run some of them.
    Chunk,
    /// To write the manifest of the results.
    Write,
}

/// How the content of an object is made items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON list.
    Json,
    /// A JSON value a line.
    Ndjson,
    /// RFC 4180: each row an object of texts by the names of the columns.
    Csv {
        /// The names; those of the first row if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        headers: Option<Vec<String>>,
        /// One ASCII character.
        delimiter: char,
    },
    /// Not a content: the objects whose keys begin so are the items.
    Listing,
}

/// An object with items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its bucket.
    pub bucket: String,
    /// Its key there; of a listing, the beginning of keys.
    pub key: String,
    /// What is in it.
    pub format: Format,
    /// Items beyond are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<u64>,
}

/// The input of [`Work::Read`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTask {
    /// Where the items are.
    pub source: Source,
    /// Whether they are to be given as they are, for one execution to run.
    pub whole: bool,
    /// How many of them belong together: a chunk has a multiple.
    pub batch: u32,
}

/// The answer to [`Work::Read`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The items, a JSON list.
    Whole(Json),
    /// Where they are.
    Cut {
        /// SHA-256 of the content, in hexadecimal: chunks are read of this one and no other.
        digest: String,
        /// The names of the columns, of CSV.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        headers: Option<Vec<String>>,
        /// The chunks, in order.
        chunks: Vec<Span>,
    },
}

/// A part of an object: where it begins, how long it is, and how many items it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span(pub u64, pub u64, pub u32);

/// Some items of a Map that wait, or run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portion {
    /// The number of the first among all items.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// Where they are in the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The items themselves, a JSON list, if they are of no object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Json>,
}

/// An object as it was when it was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which object, with the names of the columns of CSV.
    pub source: Source,
    /// SHA-256 of the content.
    pub digest: String,
}

/// The input of [`Work::Chunk`], and of the execution that runs it, which is given the
/// items in place of where they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkTask {
    /// Which chunk, from 0.
    pub number: u32,
    /// Its items.
    pub portion: Portion,
    /// The object that they are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Iterations at a time.
    pub concurrency: u32,
    /// Whether failed iterations are told rather than failing the chunk.
    pub bears: bool,
    /// How items become those of iterations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<Batches>,
    /// What iterations see besides.
    pub shared: Json,
    /// Where results are written; absent, they are in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// How items are put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    /// Most items of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// Most bytes of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether a batch is ASL's object of `Items` and `BatchInput`, not a list.
    #[serde(default)]
    pub wrapped: bool,
    /// That `BatchInput`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
}

/// What a chunk's execution gives: its iterations, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkOutput {
    /// How each ended; empty if that was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
    /// What was written instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

/// How an iteration ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With this output.
    Succeeded(Json),
    /// With an error, as a `catch` gives it; so many items had a part in it.
    Failed(u32, Json),
}

/// The results of a chunk that were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Items that did not fail.
    pub succeeded: u64,
    /// Those that did.
    pub failed: u64,
    /// Sizes of the objects of those that succeeded and of those that failed; 0 is none.
    pub bytes: (u64, u64),
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Json>,
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which bucket.
    pub bucket: String,
    /// What their keys begin with: ends with `/`, unless it is empty.
    pub prefix: String,
    /// Which run of the Map: the folder under the prefix.
    pub run: String,
    /// What is in them.
    pub style: Style,
    /// Whether it is a JSON value a line, not one list.
    pub lines: bool,
}

/// What is written of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// CDL's: `{index, input, output}` or `{index, input, error}`.
    Plain,
    /// What Step Functions writes of a child: input and output as texts.
    Detailed,
    /// The output.
    Compact,
    /// The output; of a list, its items.
    Flat,
}

/// Which of the files of a Map run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// Those that succeeded in a chunk.
    Succeeded(u32),
    /// Those that failed in a chunk.
    Failed(u32),
    /// What there is.
    Manifest,
}

impl Place {
    /// The key of a file.
    pub fn key(&self, file: File) -> String {
        let Self { prefix, run, .. } = self;
        let kind = if self.lines { "jsonl" } else { "json" };
        match file {
            File::Succeeded(number) => format!("{prefix}{run}/SUCCEEDED_{number}.{kind}"),
            File::Failed(number) => format!("{prefix}{run}/FAILED_{number}.{kind}"),
            File::Manifest => format!("{prefix}{run}/manifest.json"),
        }
    }
}

/// The input of [`Work::Write`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteTask {
    /// Where the results are.
    pub place: Place,
    /// Items that did not fail.
    pub succeeded: u64,
    /// Those that did.
    pub failed: u64,
    /// The objects of each chunk, by number, with their sizes.
    pub chunks: Vec<(u32, u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_divided_among_chunks_and_are_never_more() {
        for (given, expected) in [
            (1, (1, 1)),
            (7, (1, 7)),
            (16, (2, 8)),
            (40, (5, 8)),
            (1_000, (64, 15)),
            (MAX_CONCURRENCY, (64, 156)),
        ] {
            assert_eq!(divide(given), expected, "{given}");
        }
        for given in 1..=MAX_CONCURRENCY {
            let (chunks, each) = divide(given);
            assert!(
                chunks * each <= given && chunks >= 1 && each >= 1,
                "{given}"
            );
        }
    }
}
