//! What an editor asks about a file while somebody works on it: what is in it, what may
//! stand at a place, what stands there, and where else it is meant.
//!
//! As pure as the parser, and as safe with any text. Whoever speaks a protocol with an
//! editor calls these with the text of a file and a place in it, in bytes.
//!
//! A file that somebody types into is broken most of the time. Two things help: what is
//! at the cursor is replaced by something that can be read before anything is
//! looked at ([`complete_at`]); and if the parser gives nothing all the same, a reader that goes
//! by lines and indentation makes out what it can, so that one open quote does not
//! leave an editor without names. Only renaming insists on a file that the parser reads,
//! because it must miss no place.

mod complete;
mod cursor;
mod hover;
mod model;
mod sketch;

use super::states;
use super::text::Span;
use super::workflow::is_state_name;
use crate::diagnostic::ByteSpan;

pub use complete::{Completion, CompletionKind, complete_at};
pub use hover::{Hover, hover_at};
use model::{Meaning, Model, Tree, What};

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Cascade's own.
    Cdl,
    /// The Amazon States Language.
    Asl,
}

/// An activity that is known beside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// As a resource names it.
    pub name: String,
    /// What is known of it, in Markdown; may be empty.
    pub about: String,
}

/// Something in a file that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// The type of a state; empty otherwise.
    pub detail: String,
    /// What it is.
    pub kind: SymbolKind,
    /// All of it.
    pub span: ByteSpan,
    /// Its name, in `span`.
    pub selection: ByteSpan,
    /// What is in it.
    pub children: Vec<Symbol>,
}

/// What a [`Symbol`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolKind {
    /// A workflow.
    Workflow,
    /// A state.
    State,
    /// A branch of a Parallel state, or the iterator of a Map.
    Scope,
}

/// Where something is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// In the same file.
    Here(ByteSpan),
    /// It is an activity of this name.
    Activity(String),
}

/// A text to put in the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What to replace.
    pub span: ByteSpan,
    /// By what.
    pub text: String,
}

/// Why a state is not renamed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenameError {
    /// There is no name of a state at the place.
    #[error("only states can be renamed, and there is none here")]
    NotAState,
    /// Some of the places may not be known.
    #[error("the file is not valid YAML; mend it first, so that no place is missed")]
    Broken,
    /// The state is a branch by itself.
    #[error("the state is a branch, and its name a key of the output of its Parallel")]
    Branch,
    /// Two states have the name.
    #[error("two states are called `{0}`; it is not known which of them is meant")]
    Ambiguous(String),
    /// Another state has the new name.
    #[error("there is a state `{0}` already")]
    Taken(String),
    /// No state can be called so.
    #[error("a name of a state has 1 to 80 printable characters, without a space at either end")]
    Invalid,
}

/// What language a file is written in, if it is one of ours, whatever is wrong with it.
pub fn language(text: &str) -> Option<Language> {
    model::tree(text).and_then(|tree| model::language(&tree.root))
}

/// The workflows of a file, their states, and what is in those.
pub fn outline(text: &str) -> Vec<Symbol> {
    let Some(tree) = model::tree(text) else {
        return Vec::new();
    };
    let model = model::model(&tree.root);
    let outermost = model.scopes.iter().enumerate();
    outermost
        .filter(|(_, scope)| scope.owner.is_none())
        .flat_map(|(id, _)| scope_symbol(text, &model, id))
        .collect()
}

/// A scope; only its states if it has no name of its own.
fn scope_symbol(text: &str, model: &Model<'_>, id: usize) -> Vec<Symbol> {
    let scope = &model.scopes[id];
    let states = scope.states.iter();
    let states: Vec<Symbol> = states.map(|id| state_symbol(text, model, *id)).collect();
    let (kind, unnamed) = match scope.what {
        What::Workflow => (SymbolKind::Workflow, None),
        What::Branch => (SymbolKind::Scope, Some("branch")),
        What::Iterator => (SymbolKind::Scope, Some("iterator")),
    };
    let (name, selection) = match (scope.name, unnamed) {
        (Some((name, span)), _) if !name.is_empty() => (name, inner(text, span)),
        (_, Some(unnamed)) => (unnamed, Span::new(scope.span.start, scope.span.start)),
        (_, None) => return states,
    };
    if scope.single {
        return states;
    }
    let whole = trimmed(text, around(scope.span, selection));
    vec![Symbol {
        name: name.to_owned(),
        detail: String::new(),
        kind,
        span: bytes(whole),
        selection: bytes(selection),
        children: states,
    }]
}

fn state_symbol(text: &str, model: &Model<'_>, id: usize) -> Symbol {
    let state = &model.states[id];
    let selection = inner(text, state.span);
    let name = if state.name.is_empty() {
        "(without a name)"
    } else {
        state.name
    };
    Symbol {
        name: name.to_owned(),
        detail: state.kind.to_owned(),
        kind: SymbolKind::State,
        span: bytes(trimmed(text, around(state.whole, selection))),
        selection: bytes(selection),
        children: state
            .scopes
            .iter()
            .flat_map(|id| scope_symbol(text, model, *id))
            .collect(),
    }
}

/// Where what is named at a place is defined: the state that a transition leads to, the
/// activity or workflow of a resource.
pub fn definition_at(text: &str, at: usize) -> Option<Definition> {
    let tree = model::tree(text)?;
    let model = model::model(&tree.root);
    if let Some((id, _)) = model.state_at(at) {
        let span = inner(text, model.states[id].span);
        return Some(Definition::Here(bytes(span)));
    }
    let touches = |span: Span| span.start <= at && at <= span.end;
    let value = model.values.iter().find(|value| touches(value.span))?;
    let workflow = match value.meaning {
        Meaning::Resource => match value.text.strip_prefix(states::WORKFLOW) {
            Some(name) => name,
            None => return activity_of(value.text).map(|name| Definition::Activity(name.into())),
        },
        Meaning::Workflow => value.text,
        _ => return None,
    };
    let mut named = model.scopes.iter().filter_map(|scope| {
        let is_workflow = scope.what == What::Workflow;
        scope
            .name
            .filter(|(name, _)| is_workflow && *name == workflow)
    });
    let (_, span) = named.next()?;
    Some(Definition::Here(bytes(inner(text, span))))
}

/// The name of the activity that a resource asks for.
fn activity_of(resource: &str) -> Option<&str> {
    let rest = resource.strip_prefix(complete::ACTIVITY)?;
    rest.split([':', '@'])
        .next()
        .filter(|name| !name.is_empty())
}

/// All places that name the state at a place: its declaration, then what leads to it.
pub fn references_at(text: &str, at: usize) -> Vec<ByteSpan> {
    let Some(tree) = model::tree(text) else {
        return Vec::new();
    };
    let model = model::model(&tree.root);
    let Some((id, _)) = model.state_at(at) else {
        return Vec::new();
    };
    let uses = model.leading_to(id).map(|value| value.span);
    let all = std::iter::once(model.states[id].span).chain(uses);
    all.map(|span| bytes(inner(text, span))).collect()
}

/// What would be renamed at a place.
///
/// # Errors
///
/// [`RenameError`] if nothing there can be.
pub fn renamable_at(text: &str, at: usize) -> Result<ByteSpan, RenameError> {
    let tree = model::tree(text).ok_or(RenameError::NotAState)?;
    let model = model::model(&tree.root);
    renamable(&tree, &model, at).map(|(_, span)| bytes(inner(text, span)))
}

fn renamable(tree: &Tree, model: &Model<'_>, at: usize) -> Result<(usize, Span), RenameError> {
    let (id, span) = model.state_at(at).ok_or(RenameError::NotAState)?;
    if !tree.is_exact {
        return Err(RenameError::Broken);
    }
    let state = &model.states[id];
    let scope = &model.scopes[state.scope];
    if scope.single {
        return Err(RenameError::Branch);
    }
    let states = scope.states.iter().map(|id| model.states[*id].name);
    if states.filter(|name| *name == state.name).count() > 1 {
        return Err(RenameError::Ambiguous(state.name.to_owned()));
    }
    Ok((id, span))
}

/// The edits that give the state at a place another name, wherever it is named.
///
/// # Errors
///
/// [`RenameError`] if it cannot be renamed, or not to that.
pub fn rename_at(text: &str, at: usize, name: &str) -> Result<Vec<Edit>, RenameError> {
    let tree = model::tree(text).ok_or(RenameError::NotAState)?;
    let model = model::model(&tree.root);
    let (id, _) = renamable(&tree, &model, at)?;
    if name.is_empty() || !is_state_name(name) {
        return Err(RenameError::Invalid);
    }
    let state = &model.states[id];
    let taken = model
        .find(state.scope, name)
        .is_some_and(|other| other != id);
    if taken {
        return Err(RenameError::Taken(name.to_owned()));
    }
    let uses = model.leading_to(id).map(|value| value.span);
    let all = std::iter::once(state.span).chain(uses);
    Ok(all.map(|span| named(text, span, name)).collect())
}

/// Puts a name in the place of another, quoted if it has to be.
fn named(text: &str, span: Span, name: &str) -> Edit {
    let inside = inner(text, span);
    if is_plain(name) {
        return Edit {
            span: bytes(inside),
            text: name.to_owned(),
        };
    }
    Edit {
        span: bytes(span),
        text: quoted(name),
    }
}

/// Whether a text can stand in YAML without quotes, in brackets too, and is text then.
fn is_plain(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let rest = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    // `y` and `no` are text in YAML 1.2, but not to every editor.
    let word = name.to_ascii_lowercase();
    let is_other = matches!(
        &*word,
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    first && name.chars().all(rest) && !name.ends_with(' ') && !is_other
}

/// A text in double quotes, as JSON and YAML have them.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A scalar less its quotes.
fn inner(text: &str, span: Span) -> Span {
    let slice = text.get(span.start..span.end).unwrap_or("").trim_end();
    let is_quoted = slice.len() > 1
        && slice.starts_with(['"', '\''])
        && slice.ends_with(slice.chars().next().unwrap_or(' '));
    if is_quoted {
        Span::new(span.start + 1, span.start + slice.len() - 1)
    } else {
        Span::new(span.start, span.start + slice.len())
    }
}

/// A span less the white space at its end.
fn trimmed(text: &str, span: Span) -> Span {
    let slice = text.get(span.start..span.end).unwrap_or("");
    Span::new(span.start, span.start + slice.trim_end().len())
}

/// The nearest start of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// What holds both spans.
fn around(a: Span, b: Span) -> Span {
    Span::new(a.start.min(b.start), a.end.max(b.end))
}

fn bytes(span: Span) -> ByteSpan {
    ByteSpan {
        start: span.start,
        end: span.end,
    }
}

#[cfg(test)]
mod tests;
