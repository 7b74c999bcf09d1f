//! How events, snapshots and statuses are written down, on every database.
//!
//! A blob is a run of JSON texts, one a line. A bare number among them is a
//! *mark*: the schema version of what follows. Every write starts with one, so
//! blobs are appended to by plain concatenation, whatever versions they mix.
//! `Json` payloads stand in the text as they came, line breaks included, so a
//! reader goes by JSON, not by lines. Versions are only ever added here: a
//! blob written by any release reads in every later one.
//!
//! What does not read is [`Error::Damaged`], never a panic.

use std::ops::ControlFlow;
use std::sync::Arc;

use cascade_cdl::{Event, Execution, Tags, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Deserializer;

use super::{Cursor, Error, Excerpt, StatusName};

/// The schema that is written.
const VERSION: u64 = 1;

/// What precedes the events of one write.
const MARK: &str = "1\n";

/// Room for an event without its payload; a guess that saves reallocations.
const EVENT_BYTES: usize = 256;

/// The events of one write.
pub(crate) fn encode_events(events: &[Event]) -> String {
    let mut out = Vec::with_capacity(MARK.len() + events.len() * EVENT_BYTES);
    out.extend_from_slice(MARK.as_bytes());
    for event in events {
        serde_json::to_writer(&mut out, event).expect("events have string keys and no floats");
        out.push(b'\n');
    }
    String::from_utf8(out).expect("serde_json writes UTF-8")
}

/// The events of a blob, numbered without a gap from `first`, if that is
/// known, to `last`.
pub(crate) fn decode_events(
    blob: &[u8],
    first: Option<u64>,
    last: u64,
) -> Result<Vec<Event>, Error> {
    let mut all = Excerpt::new(u32::MAX, usize::MAX);
    decode_after(blob, first, last, 0, &mut all)?;
    Ok(all.events)
}

/// Adds those events of a blob that come after `after`, as far as there is
/// room; says whether all had it. What has none is not read.
pub(super) fn decode_after(
    blob: &[u8],
    first: Option<u64>,
    last: u64,
    after: u64,
    excerpt: &mut Excerpt,
) -> Result<bool, Error> {
    let mut next = first;
    let whole = each(blob, |event: Event, bytes| {
        // Events count from 1.
        let expected = next.unwrap_or(event.seq.max(1));
        if event.seq != expected {
            return Err(damaged(format_args!(
                "event {} stands where {expected} belongs",
                event.seq
            )));
        }
        next = Some(expected.saturating_add(1));
        if event.seq > after && !excerpt.take(event, bytes) {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !whole {
        return Ok(false);
    }
    // `next` is one past the end; a tail without events begins one past `last`.
    if next != Some(last.saturating_add(1)) {
        return Err(damaged(format_args!(
            "history goes on at {next:?} after event {last}"
        )));
    }
    Ok(true)
}

/// What an event takes in a blob, in bytes.
pub(super) fn event_bytes(event: &Event) -> usize {
    let text = serde_json::to_vec(event);
    text.expect("events have string keys and no floats").len()
}

/// A snapshot.
pub(super) fn encode_snapshot(execution: &Execution) -> String {
    let mut out = Vec::from(MARK.as_bytes());
    serde_json::to_writer(&mut out, execution).expect("an execution has string or integer keys");
    String::from_utf8(out).expect("serde_json writes UTF-8")
}

/// The execution of a snapshot.
pub(super) fn decode_snapshot(blob: &[u8]) -> Result<Execution, Error> {
    let mut found = None;
    each(blob, |execution: Execution, _| {
        found = Some(execution);
        Ok(ControlFlow::Continue(()))
    })?;
    found.ok_or_else(|| damaged("empty snapshot"))
}

/// What an execution is found by, as its row has it.
pub(super) fn encode_tags(tags: &Tags) -> String {
    serde_json::to_string(tags).expect("tags have string keys, and their numbers are finite")
}

/// The same read again; `None` if there is nothing.
pub(super) fn decode_tags(text: Option<&[u8]>) -> Result<Option<Arc<Tags>>, Error> {
    let tags: Option<Tags> = text
        .map(serde_json::from_slice)
        .transpose()
        .map_err(damaged)?;
    Ok(tags.filter(|tags| !tags.is_empty()).map(Arc::new))
}

/// The number that stands for a status in tables; the same for ever.
pub(super) const fn status_code(status: StatusName) -> i64 {
    match status {
        // A paused execution is open, and recovered like any other: see `rest_code`.
        StatusName::Running | StatusName::Paused => 0,
        StatusName::Completed => 1,
        StatusName::Failed => 2,
        StatusName::Cancelled => 3,
        StatusName::TimedOut => 4,
    }
}

/// The status of a number.
pub(super) fn status_name(code: i64) -> Result<StatusName, Error> {
    [
        StatusName::Running,
        StatusName::Completed,
        StatusName::Failed,
        StatusName::Cancelled,
        StatusName::TimedOut,
    ]
    .into_iter()
    .find(|status| status_code(*status) == code)
    .ok_or_else(|| damaged(format_args!("status {code}")))
}

/// Bit of [`rest_code`]: it waits for time, signals and people only.
const IDLE: i64 = 1;

/// Bit of [`rest_code`]: it is paused.
pub(super) const PAUSED: i64 = 2;

/// One more than the largest [`rest_code`].
pub(super) const RESTS: i64 = 4;

/// What an execution does beside being open or not: the column `idle`, which was
/// 0 or 1 before executions could be paused.
pub(super) const fn rest_code(status: StatusName, idle: bool) -> i64 {
    let paused = if matches!(status, StatusName::Paused) {
        PAUSED
    } else {
        0
    };
    if idle { paused | IDLE } else { paused }
}

/// What the two numbers of a row say: its status, and whether it is idle.
pub(super) fn status_and_rest(code: i64, rest: i64) -> Result<(StatusName, bool), Error> {
    if !(0..RESTS).contains(&rest) {
        return Err(damaged(format_args!("idle {rest}")));
    }
    let status = match status_name(code)? {
        StatusName::Running if rest & PAUSED != 0 => StatusName::Paused,
        status => status,
    };
    Ok((status, rest & IDLE != 0))
}

/// A number for a database that has no unsigned ones. No real time or count
/// comes near the bound.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count that a database returned.
pub(super) fn to_u64(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| damaged(format_args!("negative number {number}")))
}

/// A small count that a database returned.
pub(super) fn to_u32(number: i64) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| damaged(format_args!("number {number} out of range")))
}

/// A time that a database returned.
pub(super) fn to_time(number: i64) -> Result<Timestamp, Error> {
    to_u64(number).map(Timestamp)
}

/// Bits of a cursor of open executions that hold the order of creation; the
/// bucket is above.
const SEQ_BITS: u32 = 52;

/// The cursor after an open execution: by bucket, then by age.
pub(super) fn bucket_cursor(bucket: u32, seq: u64) -> Cursor {
    Cursor(u64::from(bucket) << SEQ_BITS | seq)
}

/// Bucket and order of creation of a cursor.
pub(super) fn bucket_and_seq(Cursor(cursor): Cursor) -> (u32, u64) {
    let bucket = u32::try_from(cursor >> SEQ_BITS).expect("twelve bits are left");
    (bucket, cursor & ((1 << SEQ_BITS) - 1))
}

/// The error for what does not read.
pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::Damaged(what.to_string())
}

/// Reads the texts of a blob in order, each with its length in bytes; says
/// whether it came to the end.
fn each<T: DeserializeOwned>(
    blob: &[u8],
    mut take: impl FnMut(T, usize) -> Result<ControlFlow<()>, Error>,
) -> Result<bool, Error> {
    let text = std::str::from_utf8(blob).map_err(damaged)?;
    let mut rest = text.trim_ascii_start();
    let mut version = None;
    while let Some(head) = rest.bytes().next() {
        if head.is_ascii_digit() {
            version = Some(read::<u64>(&mut rest)?.0);
        } else {
            match version {
                Some(VERSION) => {
                    let (value, bytes) = read(&mut rest)?;
                    if take(value, bytes)?.is_break() {
                        return Ok(false);
                    }
                }
                Some(other) => return Err(damaged(format_args!("schema version {other}"))),
                None => return Err(damaged("no schema version")),
            }
        }
    }
    Ok(true)
}

/// Reads one text off the front; gives its length, too.
fn read<'a, T: Deserialize<'a>>(rest: &mut &'a str) -> Result<(T, usize), Error> {
    let mut texts = Deserializer::from_str(rest).into_iter();
    let value = texts
        .next()
        .ok_or_else(|| damaged("a text is missing"))?
        .map_err(damaged)?;
    let bytes = texts.byte_offset();
    *rest = rest[bytes..].trim_ascii_start();
    Ok((value, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blobs as version 1 wrote them, kept for ever. Appended twice, with a
    /// payload over several lines, as `history || excluded.history` leaves them.
    const EVENTS_V1: &str = concat!(
        "1\n",
        r#"{"seq":1,"at":1700000000000,"kind":{"ExecutionStarted":{"input":{"a": [1, 2],"#,
        "\n",
        r#" "b":"1\n2"},"shards":10,"machine":1}}}"#,
        "\n",
        r#"{"seq":2,"at":1700000000001,"kind":{"ActivityCompleted":{"task":1,"attempt":1,"output":null,"receipt":{"digest":"d","pure":true,"fuel":7,"fuel_limit":8,"memory_limit":9,"duration_us":10}}}}"#,
        "\n1\n",
        r#"{"seq":3,"at":1700000000002,"kind":{"ActivityFailed":{"task":2,"attempt":1,"failure":{"error":"E","message":"m"}}}}"#,
        "\n",
        r#"{"seq":4,"at":1700000000003,"kind":{"TimerFired":{"timer":1}}}"#,
        "\n",
        r#"{"seq":5,"at":1700000000004,"kind":{"CancelRequested":{"reason":"r"}}}"#,
        "\n",
        r#"{"seq":6,"at":1700000000005,"kind":{"RetryRequested":{}}}"#,
        "\n",
    );

    const SNAPSHOT_V1: &str = concat!(
        "1\n",
        r#"{"id":"01890000-0000-7000-8000-000000000001","tenant":"acme","version":6,"machine":1,"status":"Running","#,
        r#""started_at":1700000000000,"updated_at":1700000000005,"shards":10,"context":{"a":1},"context_bytes":7,"#,
        r#""frames":{"0":{"parent":null,"scope":0,"state":0,"step":{"Waiting":{"timer":1}}}},"#,
        r#""timers":{"1":{"at":1700000000009,"kind":{"Resume":0}}},"next_id":2}"#,
    );

    #[test]
    fn version_1_histories_read_for_ever() {
        let events = decode_events(EVENTS_V1.as_bytes(), Some(1), 6).expect("reads");
        assert_eq!(events.len(), 6);
        let written_again = encode_events(&events[..2]) + &encode_events(&events[2..]);
        assert_eq!(written_again, EVENTS_V1, "payloads stand as they came");
    }

    #[test]
    fn version_1_snapshots_read_for_ever() {
        let execution = decode_snapshot(SNAPSHOT_V1.as_bytes()).expect("reads");
        assert_eq!(execution.wake_at(), Some(Timestamp(1_700_000_000_009)));
        assert_eq!(encode_snapshot(&execution), SNAPSHOT_V1);
    }

    /// Each is the good blob with one fault; none may panic or pass.
    #[test]
    fn damaged_blobs_are_errors() {
        let cut = &EVENTS_V1.as_bytes()[..EVENTS_V1.len() - 40];
        let newer = EVENTS_V1.replacen("1\n", "999\n", 1);
        let gap = EVENTS_V1.replace("\"seq\":3", "\"seq\":4");
        let unmarked = &EVENTS_V1[2..];
        let mut not_text = EVENTS_V1.as_bytes().to_vec();
        not_text[60] = 0xff;
        for bad in [
            cut,
            newer.as_bytes(),
            gap.as_bytes(),
            unmarked.as_bytes(),
            &not_text,
            b"",
            b"1",
            b"-",
        ] {
            let read = decode_events(bad, Some(1), 6);
            assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
        }
        let zero = "1\n{\"seq\":0,\"at\":1,\"kind\":{\"RetryRequested\":{}}}\n";
        let read = decode_events(zero.as_bytes(), None, 0);
        assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
        for bad in ["", "1", "2\n{}", "1\n{}", "1\n{"] {
            assert!(decode_snapshot(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_status_keeps_its_number() {
        for (code, name) in [
            (0, StatusName::Running),
            (1, StatusName::Completed),
            (2, StatusName::Failed),
            (3, StatusName::Cancelled),
            (4, StatusName::TimedOut),
        ] {
            assert_eq!(status_name(code).expect("known"), name);
            assert_eq!(status_code(name), code);
        }
        assert!(status_name(5).is_err());
    }

    #[test]
    fn a_paused_execution_is_a_running_one_with_a_mark() {
        for (status, idle, numbers) in [
            (StatusName::Running, false, (0, 0)),
            (StatusName::Running, true, (0, 1)),
            (StatusName::Paused, false, (0, 2)),
            (StatusName::Paused, true, (0, 3)),
            (StatusName::Failed, false, (2, 0)),
        ] {
            assert_eq!((status_code(status), rest_code(status, idle)), numbers);
            let read = status_and_rest(numbers.0, numbers.1).expect("known");
            assert_eq!(read, (status, idle));
        }
        assert!(status_and_rest(0, 4).is_err());
        assert!(status_and_rest(0, -1).is_err());
    }
}
