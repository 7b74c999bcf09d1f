//! Sizes and durations as people write them: `64MiB`, `30s`, `1h30m`.
//!
//! Plain numbers are accepted too: bytes for a size, seconds for a duration.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serializer};

/// Longest duration that is accepted: ten years. Longer is a slip, and sums of
/// a few such still fit every integer that holds milliseconds.
const MAX_DURATION: Duration = Duration::from_hours(10 * 366 * 24);

/// Reads `64MiB`, `1.5GiB`, `10kB` or `4096`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Four digits are more than any size needs, and keep the product exact.
    if fraction.len() > 4 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let part = if fraction.is_empty() {
        0
    } else {
        let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        fraction.parse::<u64>().ok()?.checked_mul(factor)? / scale
    };
    whole.checked_add(part)
}

/// Reads `250ms`, `30s`, `5m`, `24h`, `7d`, sums as in `1h30m`, or seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    if rest.bytes().all(|c| c.is_ascii_digit()) {
        let seconds = Duration::from_secs(rest.parse().ok()?);
        return (seconds <= MAX_DURATION).then_some(seconds);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let millis = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
    }
    (total <= MAX_DURATION).then_some(total)
}

/// Writes a duration so that [`parse_duration`] reads it back (to the millisecond).
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// `#[serde(with = "bytes")]`: a size in bytes.
pub mod bytes {
    use super::{Deserializer, SizeVisitor};

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
        input.deserialize_any(SizeVisitor)
    }

    pub fn serialize<S: super::Serializer>(bytes: &u64, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_u64(*bytes)
    }
}

/// `#[serde(with = "duration")]`: a [`Duration`].
pub mod duration {
    use super::{Deserializer, Duration, DurationVisitor};

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        input.deserialize_any(DurationVisitor)
    }

    pub fn serialize<S: super::Serializer>(
        duration: &Duration,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        output.serialize_str(&super::format_duration(*duration))
    }
}

/// `#[serde(with = "optional_bytes", default)]`: a size that may be absent.
pub mod optional_bytes {
    use super::{Deserializer, SizeVisitor};

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
        input.deserialize_any(SizeVisitor).map(Some)
    }

    pub fn serialize<S: super::Serializer>(
        bytes: &Option<u64>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => output.serialize_u64(*bytes),
            None => output.serialize_none(),
        }
    }
}

/// `#[serde(with = "optional_duration", default)]`: a [`Duration`] that may be absent.
pub mod optional_duration {
    use super::{Deserializer, Duration, DurationVisitor};

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        input.deserialize_any(DurationVisitor).map(Some)
    }

    pub fn serialize<S: super::Serializer>(
        duration: &Option<Duration>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, output),
            None => output.serialize_none(),
        }
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as `64MiB`, or a number of bytes")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_bytes(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a duration of at most ten years such as `30s` or `1h30m`, or a number of seconds",
        )
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Duration, E> {
        let duration = Duration::from_secs(seconds);
        if duration <= MAX_DURATION {
            Ok(duration)
        } else {
            Err(E::invalid_value(Unexpected::Unsigned(seconds), &self))
        }
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Duration, E> {
        match u64::try_from(seconds) {
            Ok(seconds) => self.visit_u64(seconds),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(seconds), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("64MiB", Some(64 << 20)),
            ("64 mib", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("10kB", Some(10_000)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.MiB", None),
            ("1.2.3k", None),
            ("64 parsecs", None),
            ("99999999999999TiB", None), // beyond 64 bits
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("30", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("7d", Some(604_800_000)),
            ("", None),
            ("s", None),
            ("30 s", None),
            ("1h30", None), // a number without its unit
            ("-5s", None),
            ("5y", None),
            ("4000d", None), // beyond ten years
            ("99999999999999999999s", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_written_duration_reads_back() {
        for millis in [0, 1, 999, 1_000, 61_000, 90_000, 3_600_000, 172_800_000] {
            let duration = Duration::from_millis(millis);
            let text = format_duration(duration);
            assert_eq!(parse_duration(&text), Some(duration), "{text}");
        }
    }
}
