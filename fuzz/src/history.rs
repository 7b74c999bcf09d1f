//! What the store reads back: histories and snapshots, whatever became of them.
//!
//! The codec is the runtime's as it is, without the runtime: that has the sandbox
//! in it, which takes minutes to build for a fuzzer. It sees a few small types of
//! its parent; at the end of this file are some that stand in for them.

use cascade_cdl::Event;

use codec::{decode_after, decode_events, decode_snapshot, encode_events, encode_snapshot};

#[path = "../../runtime/src/store/codec.rs"]
#[expect(dead_code, reason = "the store uses what histories do not need")]
mod codec;

/// Events of a blob, a page of them, and a snapshot. What is damaged is told; what
/// reads is written so that it reads the same.
pub(crate) fn run(data: &[u8]) {
    // Without a last event that fits, no history is whole: take it from the blob.
    let last = last_of(data);
    for first in [None, Some(1)] {
        let events = match decode_events(data, first, last) {
            Ok(events) => events,
            Err(Error::Damaged(how)) => {
                assert!(!how.is_empty(), "damaged, and nobody knows how");
                continue;
            }
        };
        let numbers = events.iter().map(|event| event.seq);
        let from = events.first().map_or(0, |event| event.seq);
        assert!(numbers.eq(from..from + events.len() as u64), "a gap");
        let written = encode_events(&events);
        let again = decode_events(written.as_bytes(), first, last);
        assert_eq!(again.ok().as_ref(), Some(&events), "written otherwise");
        check_page(data, first, last, &events);
    }
    if let Ok(execution) = decode_snapshot(data) {
        let written = encode_snapshot(&execution);
        let again = decode_snapshot(written.as_bytes());
        assert_eq!(again.ok(), Some(execution), "written otherwise");
    }
}

/// A page is what stands in the whole history.
fn check_page(data: &[u8], first: Option<u64>, last: u64, events: &[Event]) {
    let after = events.first().map_or(0, |event| event.seq);
    let mut page = Excerpt::new(2, 1 << 10);
    let whole = decode_after(data, first, last, after, &mut page).expect("it was read before");
    let rest: Vec<_> = events.iter().filter(|event| event.seq > after).collect();
    assert!(
        page.events
            .iter()
            .eq(rest.iter().copied().take(page.events.len()))
    );
    assert!(
        page.events.len() == rest.len() || !whole,
        "a page with a gap"
    );
}

/// The number of the last event, judging by the text.
fn last_of(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let number = text.rsplit("\"seq\":").next().unwrap_or_default();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

struct Excerpt {
    events: Vec<Event>,
    left: (usize, usize),
}

impl Excerpt {
    fn new(limit: u32, bytes: usize) -> Self {
        Self {
            events: Vec::new(),
            left: (usize::try_from(limit).unwrap_or(usize::MAX), bytes),
        }
    }

    fn take(&mut self, event: Event, bytes: usize) -> bool {
        let fits = self.left.0 > 0 && (self.events.is_empty() || bytes <= self.left.1);
        if fits {
            self.left = (self.left.0 - 1, self.left.1.saturating_sub(bytes));
            self.events.push(event);
        }
        fits
    }
}

#[derive(Debug)]
enum Error {
    Damaged(String),
}

struct Cursor(u64);

#[derive(Debug, Clone, Copy, PartialEq)]
enum StatusName {
    Running,
    Completed,
    Failed,
    Cancelled,
    TimedOut,
    Paused,
}
