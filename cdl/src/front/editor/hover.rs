//! What there is to say about what stands at a place.

use super::model::{self, Meaning, Model, ROOT, StateAt, ValueAt};
use super::{Activity, Language, activity_of, bytes, cursor, inner};
use crate::diagnostic::ByteSpan;
use crate::expression;
use crate::front::json_schema::{self, Kind};
use crate::front::text::Span;

/// Most states that are listed of those that lead somewhere: more is no hover.
const MAX_LISTED: usize = 12;

/// What each state type does, as `docs/cdl.md` says.
const TYPES: &[(&str, &str)] = &[
    (
        "Task",
        "Runs an activity. Without `resource` it passes through.",
    ),
    ("Choice", "Goes the first way whose condition is true."),
    ("Parallel", "Runs branches side by side."),
    (
        "Map",
        "Runs its `iterator` once for each item of a list, some at a time.",
    ),
    (
        "ForEach",
        "Another name for Map: runs its `iterator` once for each item of a list.",
    ),
    (
        "EventTask",
        "Waits for a signal, by its name. The payload is the output.",
    ),
    ("HumanTask", "Asks a person, and waits for the answer."),
    (
        "SubWorkflow",
        "Runs a workflow as a child, an execution of its own.",
    ),
    (
        "Wait",
        "Lets time pass: for a `duration`, or `until` a point in time.",
    ),
    (
        "Pass",
        "Computes `parameters` and puts the value at `result`.",
    ),
    ("Succeed", "Ends the workflow, or the branch, well."),
    (
        "Fail",
        "Ends the execution with an `error`, which an enclosing Parallel or Map may catch.",
    ),
];

/// What there is to say about a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hover {
    /// What it is about.
    pub span: ByteSpan,
    /// What there is to say.
    pub markdown: String,
}

/// What is known of what stands at a place: a key, a state, a state type, an activity, a
/// filter.
pub fn hover_at(text: &str, at: usize, activities: &[Activity]) -> Option<Hover> {
    let at = super::floor(text, at);
    let tree = model::tree(text)?;
    let language = model::language(&tree.root)?;
    if language == Language::Cdl
        && let Some((start, end)) = cursor::filter_at(text, at)
    {
        let markdown = about_filter(&text[start..end])?;
        return Some(hover(Span::new(start, end), markdown));
    }
    let model = model::model(&tree.root);
    if let Some((id, span)) = model.state_at(at) {
        return Some(hover(inner(text, span), about_state(&model, id)));
    }
    let touches = |span: Span| span.start <= at && at <= span.end;
    if let Some(key) = model.keys.iter().find(|key| touches(key.span)) {
        let markdown = about_key(key.shape, key.text)?;
        return Some(hover(inner(text, key.span), markdown));
    }
    let value = model.values.iter().find(|value| touches(value.span))?;
    let markdown = match value.meaning {
        Meaning::Type => about_type(value.text),
        Meaning::Resource => about_resource(value.text, activities)?,
        _ => return None,
    };
    let is_known = !markdown.is_empty();
    is_known.then(|| hover(inner(text, value.span), markdown))
}

fn hover(span: Span, markdown: String) -> Hover {
    Hover {
        span: bytes(span),
        markdown,
    }
}

/// What a key is for and what its value is; `None` if there is no such key.
pub(super) fn about_key(shape: &str, key: &str) -> Option<String> {
    let shapes = || json_schema::shapes();
    let known = shapes().find(|(name, _)| *name == shape);
    if known.is_some_and(|(_, shape)| !shape.known.contains(&key)) {
        return None;
    }
    if key == "type" {
        let types: Vec<String> = crate::front::states::shapes()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        return Some(format!("What the state does: {}.", types.join(", ")));
    }
    let (_, _, kind, about) = json_schema::row(shape, key)?;
    let form = form(*kind);
    let mut text = (*about).to_owned();
    if !form.is_empty() {
        text.push_str("\n\n");
        text.push_str(&form);
    }
    if shape != ROOT && json_schema::required(shape).contains(&key) {
        text.push_str("\n\nRequired.");
    }
    Some(text)
}

/// What a value looks like, if that is not clear from what it is for.
fn form(kind: Kind) -> String {
    match kind {
        Kind::Flag => "`true` or `false`.".into(),
        Kind::Integer(min, max) => format!("A whole number, {min} to {max}."),
        Kind::Number(min, max) => format!("A number, {min} to {max}."),
        Kind::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            format!(
                "{}{}.",
                if words.len() > 1 { "One of " } else { "" },
                words.join(", ")
            )
        }
        Kind::Def("duration") => "A duration: `250ms`, `30s`, `5m`, `24h`, `7d`, `1h30m`.".into(),
        Kind::Rate | Kind::Def("rate") => "A rate: `10/s`, `300/m`, `1000/h`.".into(),
        Kind::Def("state-name") => "The name of a state of the same scope.".into(),
        Kind::List(_, most) if most < usize::MAX => format!("A list of 1 to {most}."),
        Kind::Any(_, most) if most < usize::MAX => format!("A list of at most {most}."),
        _ => String::new(),
    }
}

/// What a state type does; empty if there is none of that name.
pub(super) fn about_type(name: &str) -> String {
    let found = TYPES.iter().find(|(of, _)| *of == name);
    found.map_or(String::new(), |(_, about)| (*about).to_owned())
}

/// How a filter is used.
pub(super) fn about_filter(name: &str) -> Option<String> {
    let example = expression::filter_example(name)?;
    Some(format!("The filter `{name}`, as in `{{{{ {example} }}}}`."))
}

fn about_resource(urn: &str, activities: &[Activity]) -> Option<String> {
    let aliases = crate::front::states::ALIASES;
    if let Some((name, _)) = aliases.iter().find(|(_, alias)| *alias == urn) {
        return Some(format!("The same as `type: {name}`. {}", about_type(name)));
    }
    let name = activity_of(urn)?;
    let found = activities.iter().find(|activity| activity.name == name);
    Some(match found {
        Some(found) if found.about.is_empty() => format!("The activity `{name}`."),
        Some(found) => format!("The activity `{name}`.\n\n{}", found.about),
        None => format!("The activity `{name}`, which is not in this folder."),
    })
}

/// What a state is, where it leads to, and where it is reached from.
fn about_state(model: &Model<'_>, id: usize) -> String {
    let state = &model.states[id];
    let mut text = format!("**{}**", escaped(state.name));
    if !state.kind.is_empty() {
        text.push_str(": ");
        text.push_str(&escaped(state.kind));
    }
    if let Some(resource) = state.resource {
        text.push_str(", ");
        text.push_str(&code(resource));
    }
    if let Some(description) = state.description {
        text.push_str("\n\n");
        text.push_str(&escaped(description));
    }
    let onwards = model.leading_from(id);
    let onwards = onwards.map(|value| format!("{} ({})", escaped(value.text), way(value)));
    push_list(&mut text, "Leads to", onwards.collect());
    let sources = model.leading_to(id).map(|value| match value.meaning {
        Meaning::Target {
            from: Some(from), ..
        } => {
            format!("{} ({})", escaped(model.states[from].name), way(value))
        }
        _ => format!("the start (`{}`)", value.key),
    });
    let mut sources: Vec<String> = sources.collect();
    if is_first(model, state, id) {
        sources.insert(0, "the start".to_owned());
    }
    push_list(&mut text, "Reached from", sources);
    text
}

/// Whether a scope starts with a state because it says nothing else.
fn is_first(model: &Model<'_>, state: &StateAt<'_>, id: usize) -> bool {
    let scope = &model.scopes[state.scope];
    !scope.has_start && scope.states.first() == Some(&id)
}

/// By what a transition is made: `next`, `catch`.
fn way(value: &ValueAt<'_>) -> String {
    let way = match value.shape {
        "catch" => "catch",
        "choice" => "choices",
        "Choices" | "Catch" => value.shape,
        _ => value.key,
    };
    code(way)
}

fn push_list(text: &mut String, what: &str, mut items: Vec<String>) {
    if items.is_empty() {
        return;
    }
    let omitted = items.len().saturating_sub(MAX_LISTED);
    items.truncate(MAX_LISTED);
    if omitted > 0 {
        items.push(format!("{omitted} more"));
    }
    text.extend(["\n\n", what, ": ", &items.join(", ")]);
}

/// A text as code, which has no backquotes in it.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', ""))
}

/// A text of the file in Markdown, so that it is shown as it stands there.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(
            c,
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '#' | '!' | '|'
        ) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
