//! Timestamps as the Amazon States Language has them.

use crate::Timestamp;

/// The time that an RFC 3339 text stands for, if it is one by the language's
/// rules: `T` and `Z` are capitals, and a zone has to be given. Nanoseconds are
/// cut to milliseconds; times before 1970 are over, whichever they are.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // `2016-03-14T01:59:00` and a zone
    if !text.is_ascii() || bytes.len() < 20 || bytes.get(10) != Some(&b'T') {
        return None;
    }
    let digits = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18];
    if !digits.iter().all(|at| bytes[*at].is_ascii_digit()) {
        return None;
    }
    let fraction = text[19..].strip_prefix('.').map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        (end, &rest[end..])
    });
    let zone = match fraction {
        Some((0, _)) => return None,
        Some((_, zone)) => zone,
        None => &text[19..],
    };
    let offset = |zone: &str| {
        let zone = zone.as_bytes();
        matches!(zone, [b'+' | b'-', a, b, b':', c, d]
            if [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()))
    };
    if zone != "Z" && !offset(zone) {
        return None;
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_need_capitals_and_a_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T00:00:01.5Z", Some(1_500)),
            ("1970-01-01T01:00:00.000000001+01:00", Some(0)),
            ("1960-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:01", None),
            ("1970-01-01t00:00:01Z", None),
            ("1970-01-01T00:00:01z", None),
            ("1970-01-01 00:00:01Z", None),
            ("1970-13-01T00:00:01Z", None),
            ("1970-01-01T25:00:01Z", None),
            ("1970-01-01T00:00:01.Z", None),
            ("01-01-1970T00:00:01Z", None),
            ("1970-01-01T00:00:01[Europe/Berlin]", None),
        ] {
            assert_eq!(parse_timestamp(text), expected.map(Timestamp), "{text}");
        }
    }
}
