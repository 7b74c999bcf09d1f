//! Durations as CDL writes them: `250ms`, `30s`, `5m`, `24h`, `7d`, `1h30m`.

/// Milliseconds per unit, the largest unit first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The milliseconds of a duration: whole numbers, each with a unit, from the
/// largest unit to the smallest, each unit at most once. `None` for any other text.
pub fn parse_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let len = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (_, millis) = units.find(|(unit, _)| *unit == &rest[..len])?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = &rest[len..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::parse_ms;

    /// The first six are the design's examples.
    #[test]
    fn durations_are_numbers_with_falling_units() {
        for (text, expected) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("24h", Some(86_400_000)),
            ("7d", Some(604_800_000)),
            ("1h30m", Some(5_400_000)),
            ("0s", Some(0)),
            ("1d2h3m4s5ms", Some(93_784_005)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("30m1h", None),
            ("1s1s", None),
            ("1 h", None),
            ("1w", None),
            ("5µs", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(parse_ms(text), expected, "{text}");
        }
    }
}
