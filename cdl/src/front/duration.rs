//! Durations as CDL writes them: `250ms`, `30s`, `5m`, `24h`, `7d`, `1h30m`.

use crate::expression::SyntaxError;

/// Longest duration, in milliseconds: ten years. Longer is a slip, and timers
/// stay far from the end of time.
const MAX_MS: u64 = crate::machine::limits::MAX_WAIT_MS;

/// The units from the largest to the smallest.
const UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1_000),
    ("h", 60 * 60 * 1_000),
    ("m", 60 * 1_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration, in milliseconds.
///
/// Whole numbers with units, from the largest unit to the smallest, each unit
/// at most once and nothing in between.
pub(crate) fn parse(text: &str) -> Result<u64, SyntaxError> {
    let mut total: u64 = 0;
    let mut at = 0;
    let mut smallest = None;
    if text.is_empty() {
        return Err(fault(0, 0, "a duration is empty"));
    }
    while at < text.len() {
        let rest = &text[at..];
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        if digits == 0 {
            return Err(no_number(text, at));
        }
        let after = &rest[digits..];
        let letters = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let (number, unit) = (&rest[..digits], &after[..letters]);
        let Some(index) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(unknown_unit(text, at + digits, unit, number));
        };
        if smallest.is_some_and(|smallest| index <= smallest) {
            let message = format!("`{unit}` stands behind an equal or smaller unit");
            return Err(fault(at, digits + letters, message));
        }
        smallest = Some(index);
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(UNITS[index].1))
            .and_then(|ms| ms.checked_add(total))
            .filter(|total| *total <= MAX_MS)
            .ok_or_else(|| fault(0, text.len(), "a duration is longer than 3650d"))?;
        at += digits + letters;
    }
    Ok(total)
}

/// A duration for people.
pub(crate) fn show(ms: u64) -> String {
    let mut rest = ms;
    let mut shown = String::new();
    for (name, size) in UNITS {
        if rest >= size {
            shown.push_str(&(rest / size).to_string());
            shown.push_str(name);
            rest %= size;
        }
    }
    if shown.is_empty() {
        shown.push_str("0s");
    }
    shown
}

fn no_number(text: &str, at: usize) -> SyntaxError {
    let rest = &text[at..];
    let len = rest.chars().next().map_or(0, char::len_utf8);
    match rest.chars().next() {
        Some('-') => fault(at, len, "a duration cannot be negative"),
        Some('.' | ',') => fault(at, len, "a duration has whole numbers only")
            .with_help("use a smaller unit: `1h30m` for one and a half hours"),
        Some(c) if c.is_whitespace() => fault(at, len, "a duration has no spaces"),
        _ => fault(at, rest.len(), "expected a number with a unit"),
    }
}

fn unknown_unit(text: &str, at: usize, unit: &str, number: &str) -> SyntaxError {
    if unit.is_empty() {
        let next = text[at..].chars().next();
        if matches!(next, Some('.' | ',')) || next.is_some_and(char::is_whitespace) {
            return no_number(text, at);
        }
        return fault(at - number.len(), number.len(), "a duration needs a unit")
            .with_help(format!("write `{number}s` for seconds"));
    }
    let meant = match unit.to_lowercase().as_str() {
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        _ => "",
    };
    let error = fault(at, unit.len(), format!("unknown unit `{unit}`"));
    match (meant, unit.to_lowercase().as_str()) {
        ("", "w" | "week" | "weeks") => error.with_help("write weeks as days: `7d`"),
        ("", _) => error,
        (meant, _) => error.with_help(format!("did you mean `{meant}`?")),
    }
}

fn fault(offset: usize, len: usize, message: impl Into<String>) -> SyntaxError {
    SyntaxError {
        offset,
        len,
        message: message.into(),
        help: Some("durations look like `250ms`, `30s`, `5m`, `24h`, `7d`, `1h30m`".into()),
    }
}

trait WithHelp {
    fn with_help(self, help: impl Into<String>) -> Self;
}

impl WithHelp for SyntaxError {
    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_units() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("90m", 5_400_000),
            ("3650d", MAX_MS),
        ] {
            assert_eq!(parse(text).as_ref().ok(), Some(&ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_where_and_why() {
        for (text, offset, len, fragment) in [
            ("", 0, 0, "empty"),
            ("30", 0, 2, "needs a unit"),
            ("s", 0, 1, "expected a number"),
            ("5min", 1, 3, "unknown unit `min`"),
            ("2w", 1, 1, "unknown unit `w`"),
            ("5 m", 1, 1, "no spaces"),
            ("1.5h", 1, 1, "whole numbers"),
            ("-5s", 0, 1, "negative"),
            ("30m1h", 3, 2, "smaller unit"),
            ("1s1s", 2, 2, "smaller unit"),
            ("3651d", 0, 5, "longer than"),
            ("99999999999999999999s", 0, 21, "longer than"),
            ("1h30", 2, 2, "needs a unit"),
            ("5é", 1, 2, "unknown unit"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.offset, error.len), (offset, len), "{text}: {error}");
            assert!(error.message.contains(fragment), "{text}: {error}");
        }
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for ms in [1, 250, 60_000, 93_784_005, MAX_MS] {
            assert_eq!(parse(&show(ms)).ok(), Some(ms), "{}", show(ms));
        }
    }
}
