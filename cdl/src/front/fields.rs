//! Typed access to the nodes of a file. Whatever has the wrong type, an unknown
//! key or no value is reported here, so that the callers read like the language.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::duration;
use super::report::{Finding, Reporter, quote, suggest};
use super::scalar::{NoValue, Scalar};
use super::text::{Span, Text};
use super::yaml::{Entry, Key, Node, Yaml};
use crate::Timestamp;
use crate::diagnostic::Code;
use crate::expression::SyntaxError;
use crate::schema::Schema;

/// The file and what is wrong with it: what every part of the front end shares.
pub(super) struct Context<'a> {
    pub(super) text: &'a Text<'a>,
    pub(super) reporter: Reporter,
    /// Whether parts of the file could not be read.
    pub(super) is_damaged: bool,
    /// How many iterators of Map states are around what is read.
    pub(super) iterators: usize,
    /// Whether what is read may name secrets.
    pub(super) may_name_secrets: bool,
    /// The schemas of the file that have a name; `None` if it could not be read.
    pub(super) schemas: BTreeMap<String, Option<Arc<Schema>>>,
    /// The workflows of this file that others run, and where they say so.
    pub(super) children: Vec<(String, Span)>,
    /// How many regular expressions the schemas of the file have.
    pub(super) patterns: usize,
    /// Whether what is read is the input of a schedule, which has no execution around it.
    pub(super) in_schedule: bool,
}

/// Which keys a mapping may have.
pub(super) struct Shape {
    /// With its article: `a Task state`.
    pub(super) what: &'static str,
    /// The keys.
    pub(super) known: &'static [&'static str],
    /// Keys of the language that this version does not have.
    pub(super) later: &'static [&'static str],
}

/// A mapping whose keys were checked.
pub(super) struct Fields<'t> {
    what: &'static str,
    /// Where to point at for a key that is missing.
    head: Span,
    entries: &'t [Entry],
}

impl<'t> Fields<'t> {
    pub(super) fn get(&self, key: &str) -> Option<&'t Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn key(&self, key: &str) -> Option<&'t Key> {
        self.entry(key).map(|entry| &entry.key)
    }

    /// All keys, in the order of the file.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'t Key> + use<'t> {
        self.entries.iter().map(|entry| &entry.key)
    }

    /// Where to point at for a key that is missing.
    pub(super) fn head(&self) -> Span {
        self.head
    }

    fn entry(&self, key: &str) -> Option<&'t Entry> {
        self.entries.iter().find(|entry| &*entry.key.text == key)
    }
}

impl Context<'_> {
    pub(super) fn report(&mut self, finding: Finding) {
        self.reporter.report(finding);
    }

    /// A mapping with the keys of `shape`.
    pub(super) fn fields<'t>(&mut self, node: &'t Node, shape: &Shape) -> Option<Fields<'t>> {
        self.fields_with(node, shape, None)
    }

    /// As [`Self::fields`], with one key more.
    pub(super) fn fields_with<'t>(
        &mut self,
        node: &'t Node,
        shape: &Shape,
        also: Option<&str>,
    ) -> Option<Fields<'t>> {
        let entries = self.mapping(node, shape.what)?;
        for Entry { key, .. } in entries {
            if !shape.known.contains(&&*key.text) && Some(&*key.text) != also {
                self.report(unknown_key(key, shape));
            }
        }
        Some(Fields {
            what: shape.what,
            head: node.head(),
            entries,
        })
    }

    /// A mapping whose keys the caller checks.
    pub(super) fn any_fields<'t>(
        &mut self,
        node: &'t Node,
        what: &'static str,
    ) -> Option<Fields<'t>> {
        let entries = self.mapping(node, what)?;
        Some(Fields {
            what,
            head: node.head(),
            entries,
        })
    }

    /// The entries of a mapping.
    pub(super) fn mapping<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t [Entry]> {
        match &node.yaml {
            Yaml::Mapping(entries) => Some(entries),
            _ => self.wrong_type(node, &format!("{what} is a mapping")),
        }
    }

    /// The items of a list.
    pub(super) fn sequence<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t [Node]> {
        match &node.yaml {
            Yaml::Sequence(items) => Some(items),
            _ => self.wrong_type(node, &format!("{what} is a list")),
        }
    }

    /// A key that has to be there.
    pub(super) fn required<'t>(&mut self, fields: &Fields<'t>, key: &str) -> Option<&'t Node> {
        let node = fields.get(key);
        if node.is_none() {
            self.report(
                Finding::new(
                    Code::MissingKey,
                    fields.head,
                    format!("{} needs the key `{key}`", fields.what),
                )
                .label(format!("`{key}` is missing here")),
            );
        }
        node
    }

    /// Two names for one key: the value of the one that is there.
    pub(super) fn either<'t>(
        &mut self,
        fields: &Fields<'t>,
        key: &str,
        alias: &str,
    ) -> Option<&'t Node> {
        self.exclusive(
            fields,
            key,
            alias,
            &format!("`{alias}` is another name for `{key}`"),
        );
        fields.get(key).or_else(|| fields.get(alias))
    }

    /// Reports two keys that exclude each other.
    pub(super) fn exclusive(&mut self, fields: &Fields<'_>, a: &str, b: &str, why: &str) {
        if let (Some(first), Some(second)) = (fields.key(a), fields.key(b)) {
            let later = if first.span < second.span {
                second
            } else {
                first
            };
            self.report(
                Finding::new(
                    Code::Conflict,
                    later.span,
                    format!("`{a}` and `{b}` exclude each other"),
                )
                .label(why)
                .help("remove one of the two"),
            );
        }
    }

    /// Text that is not empty.
    pub(super) fn text<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t str> {
        let text = self.scalar(node, &format!("{what} is text"))?;
        let Some(text) = text.as_text() else {
            return self.wrong_type(node, &format!("{what} is text"));
        };
        if text.trim().is_empty() {
            self.report(Finding::new(
                Code::InvalidValue,
                node.span,
                format!("{what} is empty"),
            ));
            return None;
        }
        Some(text)
    }

    /// A whole number between `min` and `max`.
    pub(super) fn integer(&mut self, node: &Node, what: &str, min: u32, max: u32) -> Option<u32> {
        let expected = format!("{what} is a whole number");
        let value = self.scalar(node, &expected)?.value();
        let Ok(Value::Number(number)) = value else {
            return self.wrong_type(node, &expected);
        };
        let fits = number
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| (min..=max).contains(n));
        if fits.is_none() {
            self.out_of_range(node, what, &format!("{min} to {max}"));
        }
        fits
    }

    /// A number between `min` and `max`.
    pub(super) fn number(&mut self, node: &Node, what: &str, min: f64, max: f64) -> Option<f64> {
        let expected = format!("{what} is a number");
        let value = self.scalar(node, &expected)?.value();
        let Ok(Value::Number(number)) = value else {
            return self.wrong_type(node, &expected);
        };
        let fits = number.as_f64().filter(|n| (min..=max).contains(n));
        if fits.is_none() {
            self.out_of_range(node, what, &format!("{min} to {max}"));
        }
        fits
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let expected = format!("{what} is `true` or `false`");
        match self.scalar(node, &expected)?.value() {
            Ok(Value::Bool(value)) => Some(value),
            _ => self.wrong_type(node, &expected),
        }
    }

    /// A duration longer than nothing, in milliseconds.
    pub(super) fn duration(&mut self, node: &Node, what: &str) -> Option<u64> {
        let expected = format!("{what} is a duration");
        // A number without unit is a duration that lacks something, not another type.
        let scalar = self.scalar(node, &expected)?;
        match duration::parse(scalar.text()) {
            Ok(0) => {
                self.report(
                    Finding::new(
                        Code::InvalidDuration,
                        node.span,
                        format!("{what} has to be longer than nothing"),
                    )
                    .help("leave the key out to have no limit"),
                );
                None
            }
            Ok(ms) => Some(ms),
            Err(error) => {
                self.syntax(Code::InvalidDuration, node, scalar, &error);
                None
            }
        }
    }

    /// A point in time.
    pub(super) fn timestamp(&mut self, node: &Node, what: &str) -> Option<Timestamp> {
        let text = self.text(node, what)?;
        let parsed = text.parse::<jiff::Timestamp>().ok();
        let millis = parsed.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        if millis.is_none() {
            let message = match parsed {
                None => format!("{} is not a timestamp", quote(text)),
                Some(_) => format!("{} is before 1970", quote(text)),
            };
            self.report(
                Finding::new(Code::InvalidTimestamp, node.span, message)
                    .help("write it as RFC 3339 with its offset: `2030-01-31T09:00:00Z`"),
            );
        }
        millis.map(Timestamp)
    }

    /// One of a few words.
    pub(super) fn word<'w>(
        &mut self,
        node: &Node,
        what: &str,
        words: &[&'w str],
    ) -> Option<&'w str> {
        let text = self.text(node, what)?;
        let found = words.iter().copied().find(|word| *word == text);
        if found.is_none() {
            self.report(
                Finding::new(
                    Code::InvalidValue,
                    node.span,
                    format!("{what} cannot be {}", quote(text)),
                )
                .maybe_help(suggest(text, "it can be", words)),
            );
        }
        found
    }

    /// A name that becomes part of addresses, metrics and logs.
    pub(super) fn name<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t str> {
        let text = self.text(node, what)?;
        self.check_name(text, node.span, what).then_some(text)
    }

    /// Reports a name that breaks the rules for names.
    pub(super) fn check_name(&mut self, name: &str, span: Span, what: &str) -> bool {
        let fits = is_name(name);
        if !fits {
            self.report(
                Finding::new(
                    Code::InvalidName,
                    span,
                    format!("{} is not a valid {what}", quote(name)),
                )
                .help(NAME_RULE),
            );
        }
        fits
    }

    /// A problem inside of a scalar, at its own place.
    pub(super) fn syntax(&mut self, code: Code, node: &Node, scalar: &Scalar, error: &SyntaxError) {
        let span = scalar.locate(self.text, node.span, error.offset, error.len);
        self.report(Finding::new(code, span, error.message.clone()).maybe_help(error.help.clone()));
    }

    /// A scalar.
    pub(super) fn scalar<'t>(&mut self, node: &'t Node, expected: &str) -> Option<&'t Scalar> {
        match &node.yaml {
            Yaml::Scalar(scalar) => Some(scalar),
            _ => self.wrong_type(node, expected),
        }
    }

    /// The JSON value of a scalar.
    pub(super) fn value(&mut self, node: &Node, scalar: &Scalar) -> Option<Value> {
        let why = match scalar.value() {
            Ok(value) => return Some(value),
            Err(NoValue::TooLarge) => "has no exact JSON number",
            Err(NoValue::NotFinite) => "is no JSON value",
        };
        self.report(
            Finding::new(
                Code::InvalidValue,
                node.span,
                format!("{} {why}", quote(scalar.text())),
            )
            .help("quote it to make it text"),
        );
        None
    }

    fn out_of_range(&mut self, node: &Node, what: &str, range: &str) {
        let given = quote(self.text.slice(node.span));
        self.report(Finding::new(
            Code::InvalidValue,
            node.span,
            format!("{what} cannot be {given}; it is a number from {range}"),
        ));
    }

    pub(super) fn wrong_type<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        let (found, help) = match &node.yaml {
            // Reported before.
            Yaml::Invalid => return None,
            Yaml::Mapping(_) => ("a mapping", None),
            Yaml::Sequence(_) => ("a list", None),
            Yaml::Scalar(scalar) => match scalar.value() {
                Ok(Value::Null) => ("nothing", None),
                Ok(Value::Bool(_)) => ("a boolean", Some("quote it to make it text")),
                Ok(Value::String(_)) => ("text", None),
                _ => ("a number", Some("quote it to make it text")),
            },
        };
        let help = help.filter(|_| expected.ends_with("is text"));
        self.report(
            Finding::new(
                Code::WrongType,
                node.head(),
                format!("{expected}, but this is {found}"),
            )
            .maybe_help(help.map(Into::into)),
        );
        None
    }
}

/// What [`is_name`] asks for.
const NAME_RULE: &str = "1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit";

/// Whether `name` can name an application, a namespace, a workflow or a branch.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn unknown_key(key: &Key, shape: &Shape) -> Finding {
    if shape.later.contains(&&*key.text) {
        return Finding::new(
            Code::NotSupported,
            key.span,
            format!("`{}` is not supported by this version", key.text),
        )
        .help("it is part of the language, and will come with a later version");
    }
    Finding::new(
        Code::UnknownKey,
        key.span,
        format!("{} has no key {}", shape.what, quote(&key.text)),
    )
    .maybe_help(suggest(&key.text, "its keys are", shape.known))
}
