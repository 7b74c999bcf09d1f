//! Items out of contents: where to cut, and what is in a part.
//!
//! One pass finds every record, checks that it can be read, and notes where chunks begin
//! and end; each chunk is read by itself later. No more than one record is in memory.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use cascade_cdl::csv::{READ_AHEAD, ends_quoted, rows};
use cascade_cdl::limits::{MAX_CONTEXT_BYTES, MAX_ITEMS};
use cascade_cdl::spread::{CHUNK_BYTES, CHUNK_ITEMS, Format, ITEM_BYTES, MAX_CHUNKS, Span};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// What is read at a time.
const BLOCK: usize = 64 << 10;

/// Most JSON text of the items of a chunk: with what goes along with them it has to have
/// room in a context. Rows of CSV have the names of their columns there.
const CHUNK_TEXT: usize = 3 << 20;

/// What a byte may become in a JSON text: `\u0000`.
const ESCAPED: usize = 6;

/// Most columns that a header row names: each row is an object with all of them, however
/// short it is.
const MAX_COLUMNS: usize = 1_024;

/// A mark at the beginning of some UTF-8 files.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a content is not made items.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A record cannot be read.
    #[error("line {line}, offset {offset}: {reason}")]
    Record {
        line: u64,
        offset: u64,
        reason: String,
    },
    /// There is more than can be run.
    #[error("{0}")]
    TooMuch(String),
    /// The file cannot be read: come again.
    #[error("cannot read the content: {0}")]
    Io(#[from] io::Error),
}

/// Where to cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Names of the columns, of CSV.
    pub headers: Option<Vec<String>>,
    pub chunks: Vec<Span>,
}

/// How large chunks are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Items after which one is closed.
    pub items: u32,
    /// Bytes after which one is closed.
    pub bytes: u64,
    /// Items that belong together.
    pub batch: u32,
    /// Most bytes of an item, or of so many.
    pub most: u64,
}

impl Sizes {
    /// Those that chunks have, for batches of so many items.
    pub fn of(batch: u32) -> Self {
        Self {
            items: CHUNK_ITEMS,
            bytes: CHUNK_BYTES,
            batch: batch.max(1),
            most: ITEM_BYTES,
        }
    }
}

/// Chunks as they come about.
struct Chunks {
    sizes: Sizes,
    done: Vec<Span>,
    /// The one that is open: where it begins and ends, and how many items it has.
    open: Option<Span>,
    /// Where the batch that is open begins.
    batch_from: u64,
    left: u64,
}

impl Chunks {
    fn new(sizes: Sizes, max_items: Option<u64>) -> Self {
        Self {
            sizes,
            done: Vec::new(),
            open: None,
            batch_from: 0,
            left: max_items.unwrap_or(u64::MAX),
        }
    }

    fn wants_more(&self) -> bool {
        self.left > 0
    }

    /// Adds the record from one offset to another.
    fn add(&mut self, from: u64, to: u64, line: u64) -> Result<(), Fault> {
        let Sizes {
            items,
            bytes,
            batch,
            most,
        } = self.sizes;
        // What stands between two items may be of any length, and is read with them. So no
        // batch begins further from the beginning of its chunk than a chunk without it has
        // bytes: then none ends further from it than `read` takes.
        if let Some(open) = self.open
            && open.2.is_multiple_of(batch)
            && from - open.0 > bytes
        {
            self.close(open)?;
        }
        let Span(start, _, count) = self.open.unwrap_or(Span(from, 0, 0));
        if count.is_multiple_of(batch) {
            self.batch_from = from;
        }
        if to - self.batch_from > most {
            let what = if batch == 1 { "an item" } else { "a batch" };
            return Err(Fault::Record {
                line,
                offset: self.batch_from,
                reason: format!("{what} has at most {most} bytes"),
            });
        }
        let open = Span(start, to - start, count + 1);
        self.left -= 1;
        let is_edge = open.2.is_multiple_of(batch);
        if is_edge && (open.2 >= items || open.1 >= bytes) {
            self.close(open)?;
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    fn close(&mut self, chunk: Span) -> Result<(), Fault> {
        self.done.push(chunk);
        self.open = None;
        if self.done.len() > MAX_CHUNKS {
            let most = MAX_CHUNKS;
            return Err(Fault::TooMuch(format!(
                "the items make more than {most} chunks; take fewer with `max_items`, more \
                 together with `batch`, or cut the object"
            )));
        }
        Ok(())
    }

    fn finish(mut self, headers: Option<Vec<String>>) -> Cut {
        self.done.extend(self.open);
        Cut {
            headers,
            chunks: self.done,
        }
    }
}

/// Finds where to cut a content, of the beginning of which a reader is.
pub fn cut(
    content: impl Read + Seek,
    format: &Format,
    max_items: Option<u64>,
    sizes: Sizes,
) -> Result<Cut, Fault> {
    let chunks = Chunks::new(sizes, max_items);
    match format {
        Format::Ndjson => cut_lines(content, chunks),
        Format::Csv { headers, delimiter } => {
            cut_rows(content, headers.clone(), *delimiter, chunks)
        }
        Format::Json => cut_list(content, chunks),
        Format::Listing => Ok(Cut::default()),
    }
}

fn cut_lines(content: impl Read, mut chunks: Chunks) -> Result<Cut, Fault> {
    let most = chunks.sizes.most;
    let mut content = BufReader::with_capacity(BLOCK, content);
    let (mut offset, mut line, mut text) = (0, 0, Vec::new());
    while chunks.wants_more() {
        text.clear();
        line += 1;
        // One more than it may have, and its end.
        let mut limited = content.by_ref().take(most + 2);
        let read = limited.read_until(b'\n', &mut text)? as u64;
        if read == 0 {
            break;
        }
        let from = offset;
        offset += read;
        let record = text.strip_prefix(BYTE_ORDER_MARK).filter(|_| from == 0);
        let record = record.unwrap_or(&text);
        let skipped = (text.len() - record.len()) as u64;
        if record.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let at = from + skipped;
        if read > most + 1 {
            let reason = format!("an item has at most {most} bytes");
            return Err(fault(line, at, reason));
        }
        check_json(record).map_err(|reason| fault(line, at, reason))?;
        chunks.add(at, offset, line)?;
    }
    Ok(chunks.finish(None))
}

/// Lets a reader have so much, and no more until it is told.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left.get().checked_sub(buffer.len() as u64) else {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long"));
        };
        self.left.set(left);
        self.inner.read(buffer)
    }
}

fn cut_rows(
    mut content: impl Read + Seek,
    mut headers: Option<Vec<String>>,
    delimiter: char,
    mut chunks: Chunks,
) -> Result<Cut, Fault> {
    let start = after_mark(&mut content)?;
    let most = chunks.sizes.most;
    // What a row may take, and what is read ahead.
    let room = most + 2 * READ_AHEAD as u64;
    let left = Rc::new(Cell::new(room));
    let metered = Metered {
        inner: &mut content,
        left: Rc::clone(&left),
    };
    let mut rows = rows(metered, delimiter);
    let mut row = csv::ByteRecord::new();
    let mut last = None;
    while chunks.wants_more() {
        left.set(room);
        let line = rows.position().line();
        let read = rows.read_byte_record(&mut row);
        let from = start + row.position().map_or(0, csv::Position::byte);
        match read {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(csv_fault(error, line, from, most)),
        }
        let line = row.position().map_or(line, csv::Position::line);
        let to = start + rows.position().byte();
        last = Some((line, from, to));
        if std::str::from_utf8(row.as_slice()).is_err() {
            return Err(fault(line, from, "the row is not UTF-8".to_owned()));
        }
        if row.iter().all(<[u8]>::is_empty) {
            continue;
        }
        if headers.is_none() {
            let columns = row.len();
            if columns > MAX_COLUMNS {
                let reason =
                    format!("the header row has {columns} columns, and at most {MAX_COLUMNS} fit");
                return Err(fault(line, from, reason));
            }
            let name = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
            headers = Some(row.iter().map(name).collect());
            continue;
        }
        chunks.add(from, to, line)?;
    }
    drop(rows);
    if let Some((line, from, to)) = last {
        // The library takes a cell that is not closed for one that goes to the end.
        let mut raw = vec![0; usize::try_from(to - from).unwrap_or(0)];
        content.seek(SeekFrom::Start(from))?;
        content.read_exact(&mut raw)?;
        if ends_quoted(&raw, delimiter) {
            return Err(fault(line, from, "a quoted cell is not closed".to_owned()));
        }
    }
    Ok(chunks.finish(headers))
}

fn csv_fault(error: csv::Error, line: u64, offset: u64, most: u64) -> Fault {
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            fault(line, offset, format!("an item has at most {most} bytes"))
        }
        csv::ErrorKind::Io(error) => error.into(),
        other => fault(line, offset, format!("{other:?}")),
    }
}

/// Skips a byte order mark; says where the content begins.
fn after_mark(content: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut mark = Vec::new();
    let wanted = BYTE_ORDER_MARK.len() as u64;
    content.by_ref().take(wanted).read_to_end(&mut mark)?;
    let start = if mark == BYTE_ORDER_MARK { wanted } else { 0 };
    content.seek(SeekFrom::Start(start))?;
    Ok(start)
}

/// The elements of a list, whose brackets and commas are looked for and nothing else: what
/// is between them is checked when it is whole.
fn cut_list(mut content: impl Read + Seek, mut chunks: Chunks) -> Result<Cut, Fault> {
    let start = after_mark(&mut content)?;
    if !chunks.wants_more() {
        return Ok(chunks.finish(None));
    }
    let most = chunks.sizes.most;
    let content = BufReader::with_capacity(BLOCK, content);
    let (mut depth, mut quoted, mut escaped) = (0_u64, false, false);
    let (mut line, mut element, mut from) = (1, Vec::new(), 0);
    let (mut elements, mut after_comma, mut ended) = (0_u64, false, false);
    for (offset, byte) in (start..).zip(content.bytes()) {
        let byte = byte?;
        if byte == b'\n' {
            line += 1;
        }
        let at = line;
        let wrong = |reason: &str| Err(fault(at, offset, reason.to_owned()));
        if !quoted && depth <= 1 && element.is_empty() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ if ended => return wrong("there is something after the list"),
                b'[' if depth == 0 => {
                    depth = 1;
                    continue;
                }
                _ if depth == 0 => return wrong("the content is no JSON list"),
                b']' if !after_comma => {
                    ended = true;
                    depth = 0;
                    continue;
                }
                b',' | b']' => return wrong("an element is missing"),
                _ => from = offset,
            }
        }
        let ends = !quoted && depth == 1 && matches!(byte, b',' | b']');
        if ends {
            check_json(&element).map_err(|reason| fault(line, from, reason))?;
            elements += 1;
            chunks.add(from, offset, line)?;
            element.clear();
            after_comma = byte == b',';
            if byte == b']' {
                (depth, ended) = (0, true);
            }
            if !chunks.wants_more() {
                return Ok(chunks.finish(None));
            }
            continue;
        }
        element.push(byte);
        if element.len() as u64 > most {
            let reason =
                format!("element {elements} has more than {most} bytes, the most of an item");
            return Err(fault(line, from, reason));
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    if !ended {
        let end = chunks.open.map_or(start, |open| open.0 + open.1);
        return Err(fault(line, end, "the list is not closed".to_owned()));
    }
    Ok(chunks.finish(None))
}

fn fault(line: u64, offset: u64, reason: String) -> Fault {
    Fault::Record {
        line,
        offset,
        reason,
    }
}

fn check_json(text: &[u8]) -> Result<(), String> {
    let checked: Result<IgnoredAny, _> = serde_json::from_slice(text);
    checked
        .map(drop)
        .map_err(|error| format!("not JSON: {error}"))
}

/// The items of a chunk, as the text of a JSON list.
pub fn items(
    content: &mut (impl Read + Seek),
    format: &Format,
    span: Span,
) -> Result<String, Fault> {
    let Span(offset, bytes, _) = span;
    let text = read(content, offset, bytes)?;
    let list = match format {
        Format::Json => format!("[{text}]"),
        Format::Ndjson => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            format!("[{}]", lines.collect::<Vec<_>>().join(","))
        }
        Format::Csv { headers, delimiter } => {
            objects(&text, headers.as_deref().unwrap_or_default(), *delimiter)
                .map_err(|reason| fault(0, offset, reason))?
        }
        Format::Listing => "[]".to_owned(),
    };
    if list.len() > CHUNK_TEXT {
        let reason = format!("the items of a chunk have more than {CHUNK_TEXT} bytes as JSON");
        return Err(fault(0, offset, reason));
    }
    Ok(list)
}

/// Most bytes that [`items`] gives of a chunk, without reading it. Rows of CSV may take as
/// much as one row more, which is dropped at once.
pub fn most_text(format: &Format, span: Span) -> usize {
    let Span(_, bytes, count) = span;
    let (bytes, count) = (usize::try_from(bytes).unwrap_or(usize::MAX), count as usize);
    let text = match format {
        // What is between two items becomes a comma, or stays.
        Format::Json | Format::Ndjson => bytes,
        Format::Csv { headers, .. } => {
            let names = headers.as_deref().unwrap_or_default().iter();
            // Quoted twice, with a colon and a comma.
            let row: usize = names.map(|name| name.len() * ESCAPED + 6).sum();
            let rows = row.saturating_add(3).saturating_mul(count);
            bytes.saturating_mul(ESCAPED).saturating_add(rows)
        }
        Format::Listing => 0,
    };
    text.saturating_add(2).min(CHUNK_TEXT)
}

fn read(from: &mut (impl Read + Seek), offset: u64, bytes: u64) -> Result<String, Fault> {
    let most = ITEM_BYTES + CHUNK_BYTES;
    if bytes > most {
        return Err(Fault::TooMuch(format!("a chunk has at most {most} bytes")));
    }
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    from.seek(SeekFrom::Start(offset))?;
    from.read_exact(&mut content)?;
    String::from_utf8(content).map_err(|_| fault(0, offset, "not UTF-8".to_owned()))
}

/// The rows as the text of a JSON list; of more than a chunk may have, only the beginning,
/// which is too long, too.
fn objects(text: &str, headers: &[String], delimiter: char) -> Result<String, String> {
    let mut list = "[".to_owned();
    for row in rows(text.as_bytes(), delimiter).records() {
        let row = row.map_err(|error| error.to_string())?;
        if row.iter().all(str::is_empty) {
            continue;
        }
        let mut cells = row.iter();
        let fields = headers.iter().map(|name| {
            let cell = cells.next().unwrap_or_default();
            (name.clone(), Value::from(cell))
        });
        if list.len() > 1 {
            list.push(',');
        }
        list.push_str(&Value::Object(fields.collect::<Map<_, _>>()).to_string());
        // Short rows with the names of many columns could take all memory.
        if list.len() > CHUNK_TEXT {
            break;
        }
    }
    list.push(']');
    Ok(list)
}

/// All items of a content, as the text of a JSON list, if one execution can have them.
pub fn whole(
    content: &mut (impl Read + Seek),
    format: &Format,
    max_items: Option<u64>,
) -> Result<String, Fault> {
    let Cut { headers, chunks } = cut(&mut *content, format, max_items, Sizes::of(1))?;
    let count: u64 = chunks.iter().map(|chunk| u64::from(chunk.2)).sum();
    let bytes: u64 = chunks.iter().map(|chunk| chunk.1).sum();
    if count > u64::from(MAX_ITEMS) || bytes > MAX_CONTEXT_BYTES {
        return Err(Fault::TooMuch(format!(
            "one execution runs at most {MAX_ITEMS} items of {MAX_CONTEXT_BYTES} bytes together, \
             and there are {count} of {bytes}; let the Map be distributed, or take fewer with \
             `max_items`"
        )));
    }
    let format = match format {
        Format::Csv { delimiter, .. } => Format::Csv {
            headers,
            delimiter: *delimiter,
        },
        other => other.clone(),
    };
    let mut parts = Vec::new();
    for chunk in chunks {
        let list = items(content, &format, chunk)?;
        parts.push(list[1..list.len() - 1].to_owned());
    }
    Ok(format!("[{}]", parts.join(",")))
}

#[cfg(test)]
mod tests;
