//! What may stand at a place.

use std::collections::BTreeSet;

use super::cursor::{self, Cursor, Slot};
use super::hover::{self, about_key, about_type};
use super::model::{self, KeyAt, Meaning, Model, ROOT, ValueAt};
use super::{Activity, Language, bytes, is_plain, quoted};
use crate::diagnostic::ByteSpan;
use crate::expression;
use crate::front::json_schema::{self, Kind};
use crate::front::text::Span;
use crate::front::{document, states, workflow};

/// How the resource of a Task begins.
pub(super) const ACTIVITY: &str = "urn:cascade:activity:";

/// How a schema of the file is named.
const SCHEMA: &str = "urn:cascade:schema:";

/// Stands for what is being typed while the file is looked at. No file has it: it is
/// reserved for private use.
const MARK: &str = "\u{f8ff}";

/// Something that may stand at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// What it is called; what is typed is compared with this.
    pub label: String,
    /// What it is.
    pub kind: CompletionKind,
    /// A word or two beside the label; may be empty.
    pub detail: String,
    /// More about it, in Markdown; may be empty.
    pub documentation: String,
    /// What to put in the place of `replace`.
    pub text: String,
    /// On the line of the cursor, and around it.
    pub replace: ByteSpan,
}

/// What a [`Completion`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionKind {
    /// A key of a mapping.
    Key,
    /// A state of the scope.
    State,
    /// A word of the language.
    Word,
    /// What a resource names.
    Resource,
    /// A filter of an expression.
    Filter,
}

/// What may stand at a place, the likeliest first. What has been typed of it is not
/// looked at: the editor picks those that fit.
pub fn complete_at(text: &str, at: usize, activities: &[Activity]) -> Vec<Completion> {
    let at = super::floor(text, at);
    if let Some((start, end)) = cursor::filter_at(text, at) {
        return filters(text, Span::new(start, end));
    }
    if cursor::is_in_expression(text, at) {
        return Vec::new();
    }
    let Some(cursor) = cursor::at(text, at) else {
        return Vec::new();
    };
    let marked = mark(text, &cursor);
    let Some(tree) = model::tree(&marked) else {
        return Vec::new();
    };
    let model = model::model(&tree.root);
    let language = model::language(&tree.root);
    match cursor.slot {
        Slot::Key => {
            let key = model.keys.iter().find(|key| key.text.contains(MARK));
            key.map_or_else(Vec::new, |key| keys(&model, key, &cursor))
        }
        Slot::Value => {
            let value = model.values.iter().find(|value| value.text.contains(MARK));
            let is_asl = language == Some(Language::Asl);
            value.map_or_else(Vec::new, |value| {
                values(&model, value, &cursor, activities, is_asl)
            })
        }
    }
}

/// The text with the mark in the place of what is being typed, made whole as
/// far as the line goes.
fn mark(text: &str, cursor: &Cursor) -> String {
    let mut marked = String::with_capacity(text.len() + 8);
    marked.push_str(&text[..cursor.start]);
    if cursor.is_glued {
        marked.push(' ');
    }
    marked.push_str(MARK);
    if let Some(quote) = cursor.quote.filter(|_| !cursor.is_closed) {
        marked.push(quote);
    }
    if cursor.slot == Slot::Key && !cursor.has_colon && cursor.quote.is_none() {
        marked.push_str(": ");
    }
    marked.push_str(&text[cursor.end..]);
    marked
}

/// The names of filters, in an expression.
fn filters(text: &str, replace: Span) -> Vec<Completion> {
    if super::language(text) != Some(Language::Cdl) {
        return Vec::new();
    }
    let names = expression::filter_names();
    names
        .map(|name| Completion {
            label: name.to_owned(),
            kind: CompletionKind::Filter,
            detail: String::new(),
            documentation: hover::about_filter(name).unwrap_or_default(),
            text: name.to_owned(),
            replace: bytes(replace),
        })
        .collect()
}

/// The keys that the mapping has not got yet.
fn keys(model: &Model<'_>, typed: &KeyAt<'_>, cursor: &Cursor) -> Vec<Completion> {
    let siblings = model.keys.iter().filter(|key| key.mapping == typed.mapping);
    let there: BTreeSet<&str> = siblings.map(|key| key.text).collect();
    if typed.shape == ROOT && there.len() > 1 {
        // Somebody else's file.
        return Vec::new();
    }
    let known = known_keys(typed.shape);
    let missing = known.iter().filter(|(_, key)| !there.contains(key));
    missing
        .map(|(of, key)| {
            let ending = match (cursor.has_colon, cursor.quote) {
                (true, _) | (_, Some(_)) => "",
                _ if is_nested(of, key) => ":",
                _ => ": ",
            };
            let is_required = json_schema::required(of).contains(key) || *key == "type";
            Completion {
                label: (*key).to_owned(),
                kind: CompletionKind::Key,
                detail: if is_required { "required" } else { "" }.to_owned(),
                documentation: about_key(of, key).unwrap_or_default(),
                text: format!("{key}{ending}"),
                replace: bytes(Span::new(cursor.start, cursor.end)),
            }
        })
        .collect()
}

/// The keys of a shape, each with the shape that it is described under.
fn known_keys(shape: &'static str) -> Vec<(&'static str, &'static str)> {
    let of = |name: &'static str, keys: &'static [&'static str]| {
        keys.iter().map(move |key| (name, *key))
    };
    if shape == ROOT {
        return of("envelope", document::ENVELOPE.known)
            .chain(of("only-workflows", document::ONLY_WORKFLOWS.known))
            .chain(of("workflow", workflow::WORKFLOW.known))
            .collect();
    }
    let found = json_schema::shapes().find(|(name, _)| *name == shape);
    match found {
        Some((name, shape)) => of(name, shape.known).collect(),
        None => of(shape, &["name", "type", "description"]).collect(),
    }
}

/// Whether the value of a key starts on a line of its own.
fn is_nested(of: &str, key: &str) -> bool {
    let Some((_, _, kind, _)) = json_schema::row(of, key) else {
        return false;
    };
    match kind {
        Kind::Def(name) => json_schema::shapes().any(|(shape, _)| shape == *name),
        Kind::List(..) | Kind::Any(..) | Kind::Named(_) | Kind::Things(_) | Kind::Branches => true,
        _ => false,
    }
}

fn values(
    model: &Model<'_>,
    typed: &ValueAt<'_>,
    cursor: &Cursor,
    activities: &[Activity],
    is_asl: bool,
) -> Vec<Completion> {
    let choice = |label: &str, kind, detail: &str, documentation: String| Completion {
        label: label.to_owned(),
        kind,
        detail: detail.to_owned(),
        documentation,
        text: written(label, cursor, is_asl),
        replace: bytes(Span::new(cursor.start, cursor.end)),
    };
    let word = |label: &str| choice(label, CompletionKind::Word, "", String::new());
    match typed.meaning {
        Meaning::Target { scope, from } => {
            let own = from.map(|id| model.states[id].name);
            let mut states = model.names_of(scope);
            // A state that leads to itself is rare: last.
            states.sort_by_key(|state| Some(state.name) == own);
            let states = states.iter().filter(|state| !state.name.contains(MARK));
            states
                .map(|state| {
                    let about = state.description.unwrap_or("").to_owned();
                    choice(state.name, CompletionKind::State, state.kind, about)
                })
                .collect()
        }
        Meaning::Type => states::shapes()
            .map(|(name, _)| choice(name, CompletionKind::Word, "", about_type(name)))
            .collect(),
        Meaning::Resource => resources(model, typed, activities)
            .into_iter()
            .map(|(urn, about)| choice(&urn, CompletionKind::Resource, "", about))
            .collect(),
        Meaning::Workflow => workflows(model).map(word).collect(),
        Meaning::Other(Kind::Flag) => ["true", "false"].map(word).into(),
        // Not quoted: `true` is meant.
        Meaning::Other(Kind::Word(words)) => words.iter().map(|label| word(label)).collect(),
        Meaning::Other(Kind::Def("schema-or-urn")) => {
            let names = model.schemas.iter();
            names.map(|name| word(&format!("{SCHEMA}{name}"))).collect()
        }
        Meaning::Other(_) => Vec::new(),
    }
}

/// A value as it has to be written at the cursor.
fn written(value: &str, cursor: &Cursor, is_asl: bool) -> String {
    let is_safe = is_plain(value) || matches!(value, "true" | "false") || is_urn(value);
    let text = match cursor.quote {
        Some('"') => {
            let escaped = quoted(value);
            escaped[1..escaped.len() - 1].to_owned()
        }
        Some(_) => value.replace('\'', "''"),
        // JSON takes no text without quotes; a State Language file may be YAML, and YAML takes both.
        None if is_asl || !is_safe => quoted(value),
        None => value.to_owned(),
    };
    if cursor.is_glued {
        format!(" {text}")
    } else {
        text
    }
}

/// Whether a text is a resource name, whose colons need no quotes.
fn is_urn(text: &str) -> bool {
    let part =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '@' | '/');
    text.starts_with("urn:") && text.chars().all(part) && !text.ends_with(':')
}

/// The resources that a Task or a compensation may have, each with what is known of it.
fn resources(
    model: &Model<'_>,
    typed: &ValueAt<'_>,
    activities: &[Activity],
) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = activities
        .iter()
        .map(|activity| {
            (
                format!("{ACTIVITY}{}", activity.name),
                activity.about.clone(),
            )
        })
        .collect();
    let used = model.values.iter();
    let used = used.filter(|value| matches!(value.meaning, Meaning::Resource));
    let used: BTreeSet<&str> = used
        .map(|value| value.text)
        .filter(|text| is_urn(text) && text.starts_with(ACTIVITY))
        .collect();
    for urn in used {
        if !found[..activities.len()]
            .iter()
            .any(|(there, _)| there == urn)
        {
            found.push((urn.to_owned(), String::new()));
        }
    }
    if typed.shape != "compensate" {
        if states::shapes().any(|(name, _)| name == "SubWorkflow") {
            let names = workflows(model);
            found.extend(names.map(|name| (format!("{}{name}", states::WORKFLOW), String::new())));
        }
        for (name, urn) in states::ALIASES {
            found.push(((*urn).to_owned(), about_type(name)));
        }
    }
    found
}

/// The workflows of the file.
fn workflows<'m>(model: &'m Model<'_>) -> impl Iterator<Item = &'m str> {
    let outermost = model.scopes.iter().filter(|scope| scope.owner.is_none());
    outermost.filter_map(|scope| scope.name.map(|(name, _)| name))
}
