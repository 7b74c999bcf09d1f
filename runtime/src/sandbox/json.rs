//! Checking the JSON that an activity returns.

use cascade_cdl::Json;

/// Deepest nesting of an output. JSON libraries stop at 128, and an output is
/// put into a context that nests it further.
pub(super) const MAX_DEPTH: usize = 100;

/// Longest digits of a number that cannot be out of a double's range.
const PLAIN_NUMBER: usize = 300;

/// Checks that `text` is JSON that everyone further on can read: well-formed,
/// not nested too deeply, its numbers within range.
pub(super) fn check(text: String) -> Result<Json, String> {
    check_json(&text).map_err(|why| format!("the output {why}"))?;
    Json::parse(text).map_err(|error| format!("the output is not JSON: {error}"))
}

/// Checks what well-formed JSON may still have that others could not read:
/// nesting beyond 100 levels, numbers that no double holds, escapes that
/// are no character. The error begins
/// with a verb: `is nested ...`.
pub fn check_json(text: &str) -> Result<(), String> {
    let shape = Shape::of(text.as_bytes());
    if shape.depth > MAX_DEPTH {
        return Err(format!(
            "is nested {} levels deep, the limit is {MAX_DEPTH}",
            shape.depth
        ));
    }
    // Half a surrogate pair is well-formed as text, and stands for no character.
    let surrogates = text.contains("\\ud") || text.contains("\\uD");
    if shape.large_numbers || surrogates {
        // Slow, but rare: only reading them tells whether they fit.
        serde_json::from_str::<serde_json::Value>(text)
            .map_err(|error| format!("is not JSON: {error}"))?;
    }
    Ok(())
}

/// What one look over a text says, whether or not it is JSON.
struct Shape {
    depth: usize,
    /// Whether there are numbers with exponents, or very long ones.
    large_numbers: bool,
}

impl Shape {
    fn of(text: &[u8]) -> Self {
        let mut shape = Self {
            depth: 0,
            large_numbers: false,
        };
        let (mut depth, mut digits, mut at) = (0_usize, 0_usize, 0);
        while let Some(byte) = text.get(at) {
            at += 1;
            if byte.is_ascii_digit() {
                digits += 1;
                shape.large_numbers |= digits > PLAIN_NUMBER;
                continue;
            }
            match byte {
                b'e' | b'E' if digits > 0 => shape.large_numbers = true,
                b'[' | b'{' => {
                    depth += 1;
                    shape.depth = shape.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b'"' => at += string_end(&text[at..]),
                _ => {}
            }
            digits = 0;
        }
        shape
    }
}

/// Length of the rest of a string, its closing quote included.
fn string_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_others_could_not_read_are_refused() {
        let deep = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        for (text, fits) in [
            ("null".to_owned(), true),
            (r#"{"a":[1,2.5,-3e10,"x\"[[[\\"]}"#.to_owned(), true),
            (deep(MAX_DEPTH), true),
            (deep(MAX_DEPTH + 1), false),
            (format!("[{}]", "[],".repeat(200) + "[]"), true), // wide is not deep
            ("1e400".to_owned(), false),                       // no double holds it
            (format!("[{}]", "9".repeat(400)), false),
            (format!("\"{}\"", "9".repeat(400)), true), // digits in a string are text
            (r#""\ud83d\ude00""#.to_owned(), true),     // a whole pair
            (r#""\uD83D""#.to_owned(), false),          // half a pair is no character
            (String::new(), false),
            ("{".to_owned(), false),
            ("nul".to_owned(), false),
            ("1 2".to_owned(), false),
            ("\"\\".to_owned(), false),
        ] {
            assert_eq!(check(text.clone()).is_ok(), fits, "{text}");
        }
    }
}
