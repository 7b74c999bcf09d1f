//! CDL as text: lists of states, written the way that a person would.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::program::StateId;

/// Longest line that a list or mapping is written on, in characters: what a
/// person reads without scrolling.
const MAX_LINE: usize = 110;

/// Longest state that is written on one line, in characters.
const MAX_ONE_LINER: usize = 80;

/// A value of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Y {
    /// A text, quoted where YAML wants it.
    Text(String),
    /// A number, a boolean, null.
    Bare(String),
    List(Vec<Y>),
    Map(Vec<(String, Y)>),
    /// The states of a branch or an iterator.
    States(Vec<Cdl>),
    /// The state that another state of the definition begins with.
    Target(StateId),
}

/// What follows a state.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum After {
    /// The type of the state says so.
    Unsaid,
    End,
    Name(String),
    Target(StateId),
}

/// A state of CDL.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cdl {
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// Lines above it.
    pub(super) comments: Vec<String>,
    pub(super) fields: Vec<(&'static str, Y)>,
    pub(super) after: After,
}

impl Y {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn map<const N: usize>(entries: [(&str, Y); N]) -> Self {
        let entries = entries.into_iter();
        Self::Map(
            entries
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }
}

/// The names of the states that the definition's states begin with.
pub(super) type Entries = BTreeMap<StateId, String>;

/// Writes states as the list of a key that stands at `indent`.
pub(super) fn states(out: &mut String, indent: usize, states: &[Cdl], entries: &Entries) {
    Writer { out, entries }.states(indent, states);
}

/// `key: value` on a line of its own, or several.
pub(super) fn entry(out: &mut String, key: &str, value: &Y) {
    let entries = &Entries::new();
    Writer { out, entries }.entry(0, key, value);
}

/// A comment: each line of `text` behind a `#`, broken between words where it is long.
pub(super) fn comment(out: &mut String, indent: usize, text: &str) {
    for line in text.lines() {
        let line: String = line
            .chars()
            .map(|c| if is_odd(c) { ' ' } else { c })
            .collect();
        let (mut written, mut length) = (format!("{:indent$}#", ""), indent + 1);
        for word in line.split(' ') {
            let more = word.chars().count() + 1;
            if length + more > MAX_LINE && length > indent + 2 {
                let _ = writeln!(out, "{}", written.trim_end()); // writing to a String cannot fail
                (written, length) = (format!("{:indent$}#", ""), indent + 1);
            }
            written.push(' ');
            written.push_str(word);
            length += more;
        }
        let _ = writeln!(out, "{}", written.trim_end());
    }
}

struct Writer<'w> {
    out: &'w mut String,
    entries: &'w Entries,
}

impl Writer<'_> {
    fn states(&mut self, indent: usize, states: &[Cdl]) {
        for state in states {
            for text in &state.comments {
                comment(self.out, indent, text);
            }
            let fields = fields(state);
            let line = flow(&Y::Map(fields.clone()), self.entries);
            match line.filter(|line| line.chars().count() <= MAX_ONE_LINER) {
                Some(line) => self.line(indent, &format!("- {line}")),
                None => self.mapping(indent, "- ", &fields),
            }
        }
    }

    fn line(&mut self, indent: usize, text: &str) {
        let _ = writeln!(self.out, "{:indent$}{text}", ""); // writing to a String cannot fail
    }

    /// The entries of a mapping, the first one behind `lead`.
    fn mapping(&mut self, indent: usize, lead: &str, entries: &[(String, Y)]) {
        for (at, (key, value)) in entries.iter().enumerate() {
            if at == 0 {
                let _ = write!(self.out, "{:indent$}{lead}", "");
                self.entry_here(indent + lead.len(), key, value);
            } else {
                self.entry(indent + lead.len(), key, value);
            }
        }
    }

    fn entry(&mut self, indent: usize, key: &str, value: &Y) {
        let _ = write!(self.out, "{:indent$}", "");
        self.entry_here(indent, key, value);
    }

    /// An entry of a mapping at `indent`, at the end of a line that is begun.
    fn entry_here(&mut self, indent: usize, key: &str, value: &Y) {
        let key = scalar(key);
        let room = MAX_LINE.saturating_sub(indent + key.chars().count() + 2);
        match (flow(value, self.entries), value) {
            (Some(line), Y::List(_) | Y::Map(_)) if line.chars().count() > room => {
                let _ = writeln!(self.out, "{key}:");
                self.nested(indent + 2, value);
            }
            (Some(line), _) => {
                let _ = writeln!(self.out, "{key}: {line}");
            }
            (None, _) => {
                let _ = writeln!(self.out, "{key}:");
                self.nested(indent + 2, value);
            }
        }
    }

    /// A value that begins on a line of its own.
    fn nested(&mut self, indent: usize, value: &Y) {
        match value {
            Y::Map(entries) => self.mapping(indent, "", entries),
            Y::List(items) => {
                for item in items {
                    let line = flow(item, self.entries);
                    let short = line.filter(|line| {
                        line.chars().count() + indent + 2 <= MAX_LINE || !is_nested(item)
                    });
                    match (short, item) {
                        (Some(line), _) => self.line(indent, &format!("- {line}")),
                        (None, Y::Map(entries)) => self.mapping(indent, "- ", entries),
                        (None, item) => {
                            self.line(indent, "-");
                            self.nested(indent + 2, item);
                        }
                    }
                }
            }
            Y::States(states) => self.states(indent, states),
            scalar => {
                let line = flow(scalar, self.entries).unwrap_or_default();
                self.line(indent, &line);
            }
        }
    }
}

/// All that a state says, in the order that people are used to.
fn fields(state: &Cdl) -> Vec<(String, Y)> {
    let mut fields = vec![
        ("name".to_owned(), Y::text(&*state.name)),
        ("type".to_owned(), Y::text(state.kind)),
    ];
    let own = state.fields.iter();
    fields.extend(own.map(|(key, value)| ((*key).to_owned(), value.clone())));
    let next = match &state.after {
        After::Unsaid => return fields,
        After::End => {
            fields.push(("end".to_owned(), Y::Bare("true".to_owned())));
            return fields;
        }
        After::Name(name) => Y::text(&**name),
        After::Target(id) => Y::Target(*id),
    };
    fields.push(("next".to_owned(), next));
    fields
}

fn is_nested(value: &Y) -> bool {
    match value {
        Y::List(items) => !items.is_empty(),
        Y::Map(entries) => !entries.is_empty(),
        Y::States(_) => true,
        Y::Text(_) | Y::Bare(_) | Y::Target(_) => false,
    }
}

/// A value on one line; none of what holds states.
fn flow(value: &Y, entries: &Entries) -> Option<String> {
    Some(match value {
        Y::Text(text) => scalar(text),
        Y::Bare(text) => text.clone(),
        Y::Target(id) => scalar(entries.get(id).map_or("?", String::as_str)),
        Y::List(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| flow(item, entries)).collect();
            format!("[{}]", items?.join(", "))
        }
        Y::Map(items) if items.is_empty() => "{}".to_owned(),
        Y::Map(items) => {
            let items = items.iter();
            let items: Option<Vec<_>> = items
                .map(|(key, value)| Some(format!("{}: {}", scalar(key), flow(value, entries)?)))
                .collect();
            format!("{{ {} }}", items?.join(", "))
        }
        Y::States(_) => return None,
    })
}

/// Characters that are told by their number: what cannot be seen, and what YAML
/// does not allow.
fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// A text as YAML reads it again, in quotes where it needs them.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if is_odd(c) => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Words that some reader of YAML takes for something other than text.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// Whether a text is a duration of one unit.
fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < text.len() && matches!(unit, "ms" | "s" | "m" | "h" | "d")
}

/// Whether a text needs no quotes, wherever it stands.
fn is_plain(text: &str) -> bool {
    if is_duration(text) {
        return true;
    }
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$');
    // A colon is one of a mapping only before a space, but reads badly in brackets.
    let fits =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '-' | '/' | ' ');
    let urn = text.starts_with("urn:cascade:activity:");
    starts
        && text
            .chars()
            .all(|c| fits(c) || (urn && matches!(c, ':' | '@')))
        && !text.ends_with([' ', ':'])
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_yaml_would_take_them_for_something_else() {
        for (text, expected) in [
            ("Charge card", "Charge card"),
            ("$.data.a", "$.data.a"),
            (
                "urn:cascade:activity:a:v1@eu",
                "urn:cascade:activity:a:v1@eu",
            ),
            ("{{ $.a }}", "\"{{ $.a }}\""),
            ("Yes", "\"Yes\""),
            ("12", "\"12\""),
            ("12s", "12s"),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a ", "\"a \""),
            ("a\n\u{7}\"\\", "\"a\\n\\u0007\\\"\\\\\""),
        ] {
            assert_eq!(scalar(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_short_stands_on_one_line_and_what_is_long_on_several() {
        let state = |name: &str, value: Y| Cdl {
            name: name.to_owned(),
            kind: "Pass",
            comments: vec!["why\nso".to_owned()],
            fields: vec![("parameters", value)],
            after: After::End,
        };
        let mut out = String::new();
        let long = Y::map([("a", Y::text("x".repeat(100))), ("b", Y::List(vec![]))]);
        let all = [state("A", Y::Bare("1".to_owned())), state("B", long)];
        states(&mut out, 2, &all, &Entries::new());
        let expected = format!(
            "  # why\n  # so\n  - {{ name: A, type: Pass, parameters: 1, end: true }}\n\
             \x20 # why\n  # so\n  - name: B\n    type: Pass\n    parameters:\n      a: {}\n      b: []\n    end: true\n",
            "x".repeat(100)
        );
        assert_eq!(out, expected);
    }
}
