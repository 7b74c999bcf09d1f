//! Scalars: what they mean, and which place of the file a part of one came from.

use saphyr_parser::ScalarStyle;
use serde_json::{Number, Value};

use super::text::{Span, Text};

/// A scalar of the file.
#[derive(Debug)]
pub(super) struct Scalar {
    text: Box<str>,
    style: ScalarStyle,
}

/// Why a scalar has no JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoValue {
    /// An integer beyond 64 bits.
    TooLarge,
    /// `.inf` or `.nan`.
    NotFinite,
}

impl Scalar {
    pub(super) fn new(text: &str, style: ScalarStyle) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }

    /// Its characters, escapes resolved.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn into_text(self) -> Box<str> {
        self.text
    }

    /// What it means under the core schema of YAML 1.2: plain `true` is a
    /// boolean and `yes` is text, whatever is quoted is text.
    pub(super) fn value(&self) -> Result<Value, NoValue> {
        if self.style == ScalarStyle::Plain {
            resolve(&self.text)
        } else {
            Ok(Value::String(self.text.to_string()))
        }
    }

    /// The text, if it is text.
    pub(super) fn as_text(&self) -> Option<&str> {
        matches!(self.value(), Ok(Value::String(_))).then_some(&self.text)
    }

    /// The place in the file that the bytes `offset..offset + len` of the text came from.
    ///
    /// Exact for scalars without escaped white space. Line breaks and
    /// indentation differ between text and file, so places are matched by counting the other
    /// characters.
    pub(super) fn locate(&self, file: &Text, span: Span, offset: usize, len: usize) -> Span {
        let visible = |until: usize| {
            self.text
                .char_indices()
                .take_while(|(at, _)| *at < until)
                .filter(|(_, c)| !c.is_whitespace())
                .count()
        };
        let start = self.place(file, span, visible(offset));
        // White space at the place itself is not counted; step over it.
        let lead: usize = self.text[floor(&self.text, offset)..]
            .chars()
            .take_while(|c| c.is_whitespace())
            .map(char::len_utf8)
            .sum();
        let at_space = lead > 0 && len <= lead;
        let start = if at_space {
            start.saturating_sub(lead).max(span.start)
        } else {
            start
        };
        let end = if len == 0 {
            start
        } else {
            self.place_after(file, span, visible(offset + len))
        };
        Span::new(start, end.max(start))
    }

    /// Where the visible character number `count` starts, or the text ends.
    fn place(&self, file: &Text, span: Span, count: usize) -> usize {
        let mut units = Units::new(file, span, self.style).filter(|unit| unit.visible);
        match units.nth(count) {
            Some(unit) => unit.at,
            None => self.place_after(file, span, count),
        }
    }

    /// Where the visible character before number `count` ends.
    fn place_after(&self, file: &Text, span: Span, count: usize) -> usize {
        let mut units = Units::new(file, span, self.style).filter(|unit| unit.visible);
        let last = match count {
            0 => None,
            _ => units.nth(count - 1),
        };
        last.map_or(span.start, |unit| unit.at + unit.len)
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// The end of the quoted scalar that `span` starts with.
pub(super) fn end_of_quoted(text: &str, span: Span) -> usize {
    let body = &text[span.start..span.end];
    let double = body.starts_with('"');
    let mut chars = body.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if double => {
                chars.next();
            }
            '"' if double => return span.start + at + 1,
            '\'' if !double => {
                if chars.peek().is_some_and(|(_, next)| *next == '\'') {
                    chars.next();
                } else {
                    return span.start + at + 1;
                }
            }
            _ => {}
        }
    }
    span.end
}

/// One character of a scalar's text, as the file spells it.
struct Unit {
    /// Its first byte in the file.
    at: usize,
    /// Its bytes in the file.
    len: usize,
    /// Whether it is something other than white space.
    visible: bool,
}

/// The characters of a scalar in the file.
struct Units<'a> {
    rest: &'a str,
    at: usize,
    style: ScalarStyle,
}

impl<'a> Units<'a> {
    fn new(file: &Text<'a>, span: Span, style: ScalarStyle) -> Self {
        let text = file.slice(span);
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let inner = if quoted && text.len() >= 2 {
            &text[1..text.len() - 1]
        } else {
            text
        };
        Self {
            rest: inner,
            at: span.start + usize::from(inner.len() < text.len()),
            style,
        }
    }
}

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let c = self.rest.chars().next()?;
        let (len, visible) = match (self.style, c) {
            (ScalarStyle::SingleQuoted, '\'') => (2, true),
            (ScalarStyle::DoubleQuoted, '\\') => escape(self.rest),
            _ => (c.len_utf8(), !c.is_whitespace()),
        };
        let len = len.min(self.rest.len());
        let unit = Unit {
            at: self.at,
            len,
            visible,
        };
        self.rest = self.rest.get(len..).unwrap_or("");
        self.at += len;
        Some(unit)
    }
}

/// Length of the escape that `rest` starts with, and whether it stands for
/// something visible.
fn escape(rest: &str) -> (usize, bool) {
    let Some(kind) = rest[1..].chars().next() else {
        return (1, false);
    };
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => 0,
    };
    let len = 1 + kind.len_utf8() + digits;
    let visible = match kind {
        't' | '\t' | 'n' | 'v' | 'f' | 'r' | ' ' | '_' | 'N' | 'L' | 'P' => false,
        'x' | 'u' | 'U' => rest
            .get(2..len)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .and_then(char::from_u32)
            .is_none_or(|c| !c.is_whitespace()),
        c => !c.is_whitespace(),
    };
    (len, visible)
}

/// The core schema of YAML 1.2.
fn resolve(text: &str) -> Result<Value, NoValue> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Err(NoValue::NotFinite),
        ".nan" | ".NaN" | ".NAN" if unsigned == text => return Err(NoValue::NotFinite),
        _ => {}
    }
    if let Some(number) = integer(text, unsigned) {
        return number.map(Value::Number);
    }
    if is_float(unsigned) {
        // Rust reads what the core schema allows, but for a leading `+`.
        let number = text.trim_start_matches('+').parse().ok();
        return number
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or(NoValue::TooLarge);
    }
    Ok(Value::String(text.to_owned()))
}

fn integer(text: &str, unsigned: &str) -> Option<Result<Number, NoValue>> {
    let parsed: Result<i128, _> = if let Some(hex) = text.strip_prefix("0x") {
        let fits = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| i128::from_str_radix(hex, 16))?
    } else if let Some(octal) = text.strip_prefix("0o") {
        let fits = !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
        fits.then(|| i128::from_str_radix(octal, 8))?
    } else {
        let fits = !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| text.parse())?
    };
    let parsed = parsed.ok();
    let signed = parsed.and_then(|n| i64::try_from(n).ok()).map(Number::from);
    let number = signed.or_else(|| parsed.and_then(|n| u64::try_from(n).ok()).map(Number::from));
    Some(number.ok_or(NoValue::TooLarge))
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let some_digits = !whole.is_empty() || !fraction.is_empty();
    exponent_fits && some_digits && digits(whole) && digits(fraction)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Expected values: chapter 10.3.2 of the YAML 1.2.2 specification.
    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("NULL", json!(null)),
            ("nULL", json!("nULL")),
            ("true", json!(true)),
            ("False", json!(false)),
            ("yes", json!("yes")),
            ("off", json!("off")),
            ("12", json!(12)),
            ("-3", json!(-3)),
            ("+7", json!(7)),
            ("012", json!(12)),
            ("0o14", json!(12)),
            ("0xC", json!(12)),
            ("0xG", json!("0xG")),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("5.", json!(5.0)),
            ("+1e3", json!(1000.0)),
            ("1e", json!("1e")),
            (".", json!(".")),
            ("-", json!("-")),
            ("1_000", json!("1_000")),
            ("2001-01-01", json!("2001-01-01")),
            ("1.2.3", json!("1.2.3")),
        ] {
            let scalar = Scalar::new(text, ScalarStyle::Plain);
            assert_eq!(scalar.value(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        for (text, expected) in [
            (".inf", NoValue::NotFinite),
            ("-.Inf", NoValue::NotFinite),
            (".nan", NoValue::NotFinite),
            ("18446744073709551616", NoValue::TooLarge),
            ("1e999", NoValue::TooLarge),
        ] {
            let scalar = Scalar::new(text, ScalarStyle::Plain);
            assert_eq!(scalar.value(), Err(expected), "{text}");
        }
    }
}
