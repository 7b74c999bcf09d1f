//! Cron expressions, and what they mean where clocks are put forward and back.
//!
//! `croner` knows which dates and minutes of a calendar an expression means. It also
//! knows time zones, but holds `30 2,14 * * *` for one that repeats and leaves 02:30 out
//! on the day that has none, which a crontab would not; so it is asked about plain
//! calendars only, and the zones are dealt with here, as the cron of Unix does:
//!
//! - An expression that fixes hours and minutes is about tasks of a day. In the hour that is
//!   skipped it is due when that hour would have begun; in the one that comes twice, once.
//! - One with `*` in hours or minutes is about a rhythm, and keeps to what clocks show:
//!   not at all in the hour that is skipped, and twice in the one that comes twice.

use std::fmt;

use croner::parser::{CronParser, Seconds, Year};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::expression::SyntaxError;

/// Longest expression, in bytes: each minute of an hour by its number has 169.
pub const MAX_CRON_LEN: usize = 256;

/// The fields, and which words may stand in them.
const FIELDS: [(&str, &[&str], &str); 5] = [
    ("minutes", &[], "0-59"),
    ("hours", &[], "0-23"),
    ("days of the month", &["L", "W", "LW"], "1-31, `L` or `15W`"),
    ("months", &MONTHS, "1-12 or JAN-DEC"),
    (
        "days of the week",
        &DAYS,
        "0-7, SUN-SAT, `FRI#2` or `FRI#L`",
    ),
];

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];

const DAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"];

/// Names for frequent expressions.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Years in which an expression has to be due once: the calendar's rarest day, a 29
/// February on some day of the week, comes within 40 of them.
const YEARS: &str = "2000-2050";

/// Two clocks of the world differ by less.
const FARTHEST: SignedDuration = SignedDuration::from_hours(48);

/// Times of the calendar that are looked at for one due time. Each minute of a day that
/// comes twice is fewer.
const MAX_LOOKS: usize = 2_000;

/// A cron expression of five fields.
#[derive(Clone)]
pub struct Cron {
    text: Box<str>,
    pattern: croner::Cron,
    /// Whether hours and minutes are fixed.
    fixed: bool,
}

impl Cron {
    /// Reads `minute hour day month weekday`, or a nickname such as `@daily`.
    ///
    /// # Errors
    ///
    /// Where and why it cannot be read, or that it is never due.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > MAX_CRON_LEN {
            let message = format!("a cron expression has at most {MAX_CRON_LEN} bytes");
            return Err(fault(0, text.len(), message));
        }
        let expanded = match text.trim() {
            name if name.starts_with('@') => nickname(text, name)?,
            _ => text,
        };
        let fields = fields(expanded)?;
        for (at, field) in fields.iter().enumerate() {
            check(at, *field)?;
        }
        let texts = fields.map(|field| field.text);
        let pattern = parser(Seconds::Disallowed, Year::Disallowed).parse(&texts.join(" "));
        let pattern = pattern.map_err(|error| whole(text, reason(&error)))?;
        Ok(Self {
            text: text.trim().into(),
            fixed: !texts[..2].iter().any(|text| text.contains('*')),
            pattern,
        })
    }

    /// Whether there is a day on which it is due.
    pub(crate) fn comes(&self) -> bool {
        let years = format!("0 {} {YEARS}", self.pattern.pattern.as_str());
        let bounded = parser(Seconds::Required, Year::Required).parse(&years);
        let start = jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0);
        bounded.is_ok_and(|bounded| bounded.find_next_occurrence(&start, true).is_ok())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// When it is due next, after a time.
    pub(super) fn next(&self, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        if self.fixed {
            self.next_fixed(zone, after)
        } else {
            self.next_rhythm(zone, after)
        }
    }

    /// Each date that it means is due once, so it is asked for dates.
    fn next_fixed(&self, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut from = zone.to_datetime(after);
        for _ in 0..MAX_LOOKS {
            from = self.pattern.find_next_occurrence(&from, false).ok()?;
            let at = once(zone, from)?;
            // Not so in an hour that comes a second time.
            if at > after {
                return Some(at);
            }
        }
        None
    }

    /// It is asked for what clocks show, from one change of them to the next.
    fn next_rhythm(&self, zone: &TimeZone, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        for _ in 0..MAX_LOOKS {
            let offset = zone.to_offset(from);
            let shown = offset.to_datetime(from);
            let found = self.pattern.find_next_occurrence(&shown, inclusive).ok()?;
            let at = offset.to_timestamp(found).ok()?;
            let change = zone.following(from).next().map(|change| change.timestamp());
            match change.filter(|change| at >= *change) {
                None => return Some(at),
                // What clocks show then does not come again, nor anything before `found`.
                Some(change) => from = change.max(at.checked_sub(FARTHEST).ok()?),
            }
            inclusive = true;
        }
        None
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

/// When a date of a calendar is, the first time that clocks show it; if they never do,
/// when they are put forward.
fn once(zone: &TimeZone, date: DateTime) -> Option<jiff::Timestamp> {
    match zone.to_ambiguous_timestamp(date).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(date).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(date).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            let behind = before.to_timestamp(date).ok()?;
            let behind = behind.checked_add(SignedDuration::from_secs(1)).ok()?;
            zone.preceding(behind)
                .next()
                .map(|change| change.timestamp())
        }
    }
}

fn parser(seconds: Seconds, year: Year) -> CronParser {
    CronParser::builder().seconds(seconds).year(year).build()
}

/// A field, and where it stands.
#[derive(Clone, Copy)]
struct Field<'t> {
    text: &'t str,
    offset: usize,
}

/// The five fields of an expression.
fn fields(text: &str) -> Result<[Field<'_>; 5], SyntaxError> {
    let found: Vec<Field<'_>> = text
        .split_ascii_whitespace()
        .map(|field| Field {
            text: field,
            offset: field.as_ptr() as usize - text.as_ptr() as usize,
        })
        .collect();
    let count = found.len();
    <[Field<'_>; 5]>::try_from(found).map_err(|_| {
        let help = if count == 6 || count == 7 {
            "seconds and years are not part of it; for seconds, write `interval: 30s`"
        } else {
            "write `minute hour day month weekday`, as in `0 9 * * MON-FRI`"
        };
        let message = format!("a cron expression has 5 fields, this has {count}");
        helped(whole(text, message), help)
    })
}

fn nickname<'t>(text: &'t str, name: &str) -> Result<&'t str, SyntaxError> {
    let found = NICKNAMES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
        let message = format!("`{}` is no name of a cron expression", clip(name));
        let help = format!("the names are {}", names.join(", "));
        helped(whole(text, message), help)
    })
}

/// Whether a field can be read by itself, with the words that have a meaning in it.
fn check(at: usize, field: Field<'_>) -> Result<(), SyntaxError> {
    let (what, words, range) = FIELDS[at];
    let none = |text: &str| {
        let message = format!("`{}` is none of the {what}", clip(text));
        let help = format!("{what} are {range}; with `*`, lists `1,2`, ranges `1-5`, steps `*/15`");
        Err(helped(fault(field.offset, field.text.len(), message), help))
    };
    let is_letter = |c: char| c.is_alphabetic();
    for word in field
        .text
        .split(|c| !is_letter(c))
        .filter(|word| !word.is_empty())
    {
        if !words.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            return none(word);
        }
    }
    if field.text.contains(['?', '+']) {
        return none(field.text);
    }
    let mut alone = ["*"; 5];
    alone[at] = field.text;
    match parser(Seconds::Disallowed, Year::Disallowed).parse(&alone.join(" ")) {
        Ok(_) => Ok(()),
        Err(_) => none(field.text),
    }
}

fn whole(text: &str, message: String) -> SyntaxError {
    fault(0, text.len(), message)
}

fn fault(offset: usize, len: usize, message: String) -> SyntaxError {
    SyntaxError {
        offset,
        len,
        message,
        help: None,
    }
}

fn helped(mut error: SyntaxError, help: impl Into<String>) -> SyntaxError {
    error.help = Some(help.into());
    error
}

fn reason(error: &croner::errors::CronError) -> String {
    format!("this is no cron expression: {error}")
}

/// As much of a text as a message should repeat.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
