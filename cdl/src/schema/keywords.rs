//! The keywords of JSON Schema, and what their values have to be.

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

use super::{MAX_PATTERN_BYTES, PATTERN_BYTES};

/// What stands behind a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    /// Says something to people or tools, and asks for nothing.
    Note,
    Schema,
    Schemas,
    /// Schemas by name.
    Named,
    /// Schemas by regular expression.
    Matching,
    Pattern,
    Reference,
    Types,
    /// Any value.
    Constant,
    List,
    Names,
    /// Lists of names by name.
    NamesOf,
    Count,
    Number,
    /// A number above 0.
    Step,
    Flag,
}

impl Keyword {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "$schema" | "$id" | "$comment" | "title" | "description" | "default" | "examples"
            | "deprecated" | "readOnly" | "writeOnly" | "format" | "contentEncoding"
            | "contentMediaType" => Self::Note,
            "items"
            | "contains"
            | "additionalProperties"
            | "propertyNames"
            | "not"
            | "if"
            | "then"
            | "else" => Self::Schema,
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => Self::Schemas,
            "properties" | "$defs" | "definitions" | "dependentSchemas" => Self::Named,
            "patternProperties" => Self::Matching,
            "pattern" => Self::Pattern,
            "$ref" => Self::Reference,
            "type" => Self::Types,
            "const" => Self::Constant,
            "enum" => Self::List,
            "required" => Self::Names,
            "dependentRequired" => Self::NamesOf,
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minContains" | "maxContains"
            | "minProperties" | "maxProperties" => Self::Count,
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => Self::Number,
            "multipleOf" => Self::Step,
            "uniqueItems" => Self::Flag,
            _ => return None,
        })
    }

    /// What its value has to be, in words.
    pub(super) fn expects(self) -> &'static str {
        match self {
            Self::Note | Self::Constant => "anything",
            Self::Schema => "a schema",
            Self::Schemas => "a list of schemas, at least one",
            Self::Named => "a mapping from names to schemas",
            Self::Matching => "a mapping from regular expressions to schemas",
            Self::Pattern => "a regular expression",
            Self::Reference => "a reference, as in `#/$defs/name`",
            Self::Types => {
                "a type or a list of them: `null`, `boolean`, `object`, `array`, `number`, \
                 `integer`, `string`"
            }
            Self::List => "a list",
            Self::Names => "a list of names",
            Self::NamesOf => "a mapping from names to lists of names",
            Self::Count => "a whole number, 0 or more",
            Self::Number => "a number",
            Self::Step => "a number above 0",
            Self::Flag => "`true` or `false`",
        }
    }
}

pub(super) fn is_type(name: &str) -> bool {
    matches!(
        name,
        "null" | "boolean" | "object" | "array" | "number" | "integer" | "string"
    )
}

/// A number as a count: `3`, and `3.0`, which is the same number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is whole and in range"
)]
pub(super) fn count(number: &Number) -> Option<u64> {
    let whole = |value: f64| value.fract() == 0.0 && (0.0..9e15).contains(&value);
    number
        .as_u64()
        .or_else(|| Some(number.as_f64().filter(|value| whole(*value))? as u64))
}

/// Where a reference leads.
pub(super) fn target<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}

/// A regular expression as JSON Schema means it: found anywhere in a text, and
/// `\d` and `\w` are of ASCII.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "a regular expression has at most {MAX_PATTERN_BYTES} bytes"
        ));
    }
    RegexBuilder::new(&ascii_classes(text))
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the regular expression `{text}` is too large")
            }
            _ => format!("`{text}` is no regular expression that can be used here"),
        })
}

fn ascii_classes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => plain.push_str("[0-9]"),
            Some('D') => plain.push_str("[^0-9]"),
            Some('w') => plain.push_str("[0-9A-Za-z_]"),
            Some('W') => plain.push_str("[^0-9A-Za-z_]"),
            // Others mean the same, and a lone backslash at the end is an error.
            other => {
                plain.push('\\');
                plain.extend(other);
            }
        }
    }
    plain
}
