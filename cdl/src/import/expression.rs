//! Paths, payload templates and intrinsic functions as expressions of CDL.
//!
//! What is given back computes the same value, and fails where the original
//! fails. Where that cannot be said, there is a [`Lost`] instead.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::yaml::Y;
use crate::asl::intrinsic::{Argument, Call, Function as Intrinsic};
use crate::asl::path::{Function, Path, Root, Step};
use crate::asl::payload::{Payload, Source};
use crate::expression::key_text;

/// Something that CDL cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) what: String,
    pub(super) help: String,
}

impl Lost {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        let (what, help) = (what.into(), help.into());
        Self { what, help }
    }
}

/// How an evaluation may fail. CDL calls it `ExpressionError` either way; in the
/// States Language nothing catches the one, and `States.ALL` the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// `States.Runtime`: a path leads nowhere.
    pub(super) runtime: bool,
    /// The errors of functions and of `ResultPath`.
    pub(super) other: bool,
}

impl Faults {
    pub(super) const NONE: Self = Self {
        runtime: false,
        other: false,
    };
    pub(super) const RUNTIME: Self = Self {
        runtime: true,
        other: false,
    };
    pub(super) const OTHER: Self = Self {
        runtime: false,
        other: true,
    };

    pub(super) fn and(self, more: Self) -> Self {
        Self {
            runtime: self.runtime || more.runtime,
            other: self.other || more.other,
        }
    }

    pub(super) fn any(self) -> bool {
        self.runtime || self.other
    }
}

/// What an expression has to be put in parentheses for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binds {
    /// A path or a literal: nothing.
    Tight,
    /// Operators: to be an operand.
    Operators,
    /// Filters: to be an operand or an argument.
    Filters,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expr {
    pub(super) text: String,
    binds: Binds,
    pub(super) faults: Faults,
}

impl Expr {
    fn new(text: impl Into<String>, binds: Binds, faults: Faults) -> Self {
        let text = text.into();
        Self {
            text,
            binds,
            faults,
        }
    }

    pub(super) fn tight(text: impl Into<String>, faults: Faults) -> Self {
        Self::new(text, Binds::Tight, faults)
    }

    pub(super) fn operators(text: impl Into<String>, faults: Faults) -> Self {
        Self::new(text, Binds::Operators, faults)
    }

    pub(super) fn filters(text: impl Into<String>, faults: Faults) -> Self {
        Self::new(text, Binds::Filters, faults)
    }

    /// As an operand of an operator, or the input of a filter.
    pub(super) fn operand(&self) -> String {
        match self.binds {
            Binds::Tight => self.text.clone(),
            _ => format!("({})", self.text),
        }
    }

    /// As an element of a list, or the argument of a filter.
    pub(super) fn argument(&self) -> String {
        match self.binds {
            Binds::Filters => format!("({})", self.text),
            _ => self.text.clone(),
        }
    }

    /// As the input of a filter, which may be filtered already.
    fn piped(&self) -> String {
        match self.binds {
            Binds::Operators => format!("({})", self.text),
            _ => self.text.clone(),
        }
    }

    /// Its text, if steps can follow it.
    pub(super) fn only_path(self) -> Result<String, Lost> {
        match self.binds {
            Binds::Tight => Ok(self.text),
            _ => Err(Lost::new(
                "a computed input is not looked into",
                "compute it in a Pass state before",
            )),
        }
    }

    pub(super) fn in_braces(&self) -> Y {
        Y::text(format!("{{{{ {} }}}}", self.text))
    }
}

/// What `$` means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    /// What stands at a path of the context.
    At(String),
    /// What `lambda:invoke` makes of what stands there.
    Envelope(String),
    /// An object with nothing in it.
    Empty,
}

/// What the paths of a state see.
#[derive(Debug, Clone)]
pub(super) struct View<'v> {
    pub(super) data: Data,
    /// The state's name.
    pub(super) state: &'v str,
    /// Whether there is an iteration around it.
    pub(super) in_map: bool,
    /// Where each variable is; none of those that may be in two places.
    pub(super) variables: &'v BTreeMap<String, Option<String>>,
}

/// A template of CDL, and how its evaluation may fail.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    pub(super) y: Y,
    pub(super) faults: Faults,
}

impl View<'_> {
    /// All that `$` stands for.
    pub(super) fn all(&self) -> Expr {
        match &self.data {
            Data::At(at) => Expr::tight(at, Faults::NONE),
            Data::Envelope(at) => {
                let text =
                    format!("{{ExecutedVersion: '$LATEST', Payload: {at}, StatusCode: 200}}");
                Expr::tight(text, Faults::NONE)
            }
            Data::Empty => Expr::tight("{}", Faults::NONE),
        }
    }

    pub(super) fn path(&self, path: &Path) -> Result<Expr, Lost> {
        let steps = path.steps();
        match &path.root {
            Root::Input => match (&self.data, steps) {
                (_, []) => Ok(self.all()),
                (Data::At(at), steps) => follow(at, steps, path),
                (Data::Envelope(at), [Step::Name(name), rest @ ..]) if **name == *"Payload" => {
                    match rest {
                        [] => Ok(Expr::tight(at, Faults::NONE)),
                        rest => follow(at, rest, path),
                    }
                }
                (Data::Envelope(_) | Data::Empty, steps) => {
                    follow(&format!("({})", self.all().text), steps, path)
                }
            },
            Root::Context => self.context(path, steps),
            Root::Variable(name) => match self.variables.get(&**name) {
                Some(Some(at)) => follow_from(at, steps, path, Faults::RUNTIME),
                Some(None) => Err(Lost::new(
                    format!("the variable `${name}` is assigned in here and further out"),
                    "give the two different names",
                )),
                None => Err(Lost::new(
                    format!("no state that this one can see assigns the variable `${name}`"),
                    "take it from where its value is",
                )),
            },
        }
    }

    /// A path into the context object.
    fn context(&self, path: &Path, steps: &[Step]) -> Result<Expr, Lost> {
        let names: Vec<&str> = steps
            .iter()
            .map_while(|step| match step {
                Step::Name(name) => Some(&**name),
                _ => None,
            })
            .collect();
        match names[..] {
            ["Execution", "Input", ..] => {
                follow_from("workflow.input", &steps[2..], path, Faults::NONE)
            }
            ["Execution", "Name"] => Ok(Expr::tight("workflow.execution_id", Faults::NONE)),
            ["Execution", "StartTime"] => Ok(Expr::tight("workflow.started_at", Faults::NONE)),
            ["State", "Name"] => Ok(Expr::tight(literal(&self.state.into()), Faults::NONE)),
            ["Map", "Item", "Index"] if self.in_map => Ok(Expr::tight("map.index", Faults::NONE)),
            ["Map", "Item", "Value", ..] if self.in_map => {
                follow_from("map.item", &steps[3..], path, Faults::NONE)
            }
            ["Task", "Token"] => Err(Lost::new(
                "there are no tokens of tasks",
                "wait for a signal in an EventTask, or for a person in a HumanTask",
            )),
            _ => Err(Lost::new(
                format!("`{path}` is not in the context"),
                "`workflow` has `execution_id`, `input`, `started_at` and `tenant`",
            )),
        }
    }

    /// A payload template. What cannot be said is given to `tell` by its field,
    /// and a text stands in its place.
    pub(super) fn template(
        &self,
        payload: &Payload,
        field: &str,
        tell: &mut dyn FnMut(&str, Lost),
    ) -> Template {
        let mut faults = Faults::NONE;
        let y = match payload {
            Payload::Literal(value) => literal_y(value),
            Payload::List(items) => Y::List(
                items
                    .iter()
                    .map(|item| {
                        let item = self.template(item, field, tell);
                        faults = faults.and(item.faults);
                        item.y
                    })
                    .collect(),
            ),
            Payload::Object(fields) => {
                let mut entries: Vec<(String, Y)> = Vec::new();
                for (name, item) in fields {
                    let field = format!("{field}.{name}");
                    let item = self.template(item, &field, tell);
                    faults = faults.and(item.faults);
                    if entries.iter().any(|(key, _)| **key == **name) {
                        let what = format!("the field `{name}` is given twice");
                        tell(&field, Lost::new(what, "keep the one that is meant"));
                    } else {
                        entries.push((name.to_string(), item.y));
                    }
                }
                Y::Map(entries)
            }
            Payload::Computed { source, .. } => match self.source(source) {
                Ok(expr) => {
                    faults = expr.faults;
                    expr.in_braces()
                }
                Err(lost) => {
                    let text = format!("not expressed: {}", source_text(source));
                    tell(field, lost);
                    Y::Text(escaped(&text))
                }
            },
        };
        Template { y, faults }
    }

    /// A payload template as one expression.
    pub(super) fn expression(&self, payload: &Payload) -> Result<Expr, Lost> {
        match payload {
            Payload::Literal(value) => Ok(Expr::tight(literal(value), Faults::NONE)),
            Payload::List(items) => {
                let items: Result<Vec<_>, _> =
                    items.iter().map(|item| self.expression(item)).collect();
                Ok(listed(&items?))
            }
            Payload::Object(fields) => {
                let mut faults = Faults::NONE;
                let mut entries = Vec::new();
                for (name, item) in fields {
                    let item = self.expression(item)?;
                    faults = faults.and(item.faults);
                    entries.push(format!("{}: {}", key(name), item.argument()));
                }
                Ok(Expr::tight(format!("{{{}}}", entries.join(", ")), faults))
            }
            Payload::Computed { source, .. } => self.source(source),
        }
    }

    pub(super) fn source(&self, source: &Source) -> Result<Expr, Lost> {
        match source {
            Source::Path(path) => self.path(path),
            Source::Call(call) => self.call(call),
        }
    }

    fn argument(&self, argument: &Argument) -> Result<Expr, Lost> {
        match argument {
            Argument::Text { value, .. } | Argument::Literal(value) => {
                Ok(Expr::tight(literal(value), Faults::NONE))
            }
            Argument::Path(path) => self.path(path),
            Argument::Call(call) => self.call(call),
        }
    }

    fn call(&self, call: &Call) -> Result<Expr, Lost> {
        let arguments: Result<Vec<_>, _> = call
            .arguments
            .iter()
            .map(|argument| self.argument(argument))
            .collect();
        let arguments = arguments?;
        let faults = arguments.iter().map(|argument| argument.faults);
        let faults = faults.fold(Faults::NONE, Faults::and);
        let fails = faults.and(Faults::OTHER);
        let unknown = || {
            let what = format!("there is no filter that computes `{}`", call.text());
            Err(Lost::new(what, "compute it in an activity"))
        };
        Ok(match (call.function, &arguments[..]) {
            (Intrinsic::Format, _) => return format_call(call, &arguments, faults),
            (Intrinsic::Array, items) => listed(items),
            (Intrinsic::Uuid, _) => Expr::tight("uuid", faults),
            (Intrinsic::JsonToString, [value]) => {
                Expr::filters(format!("{} | json", value.piped()), faults)
            }
            (Intrinsic::StringToJson, [text]) => {
                // Blank text is null.
                let text = text.operand();
                let text = format!("({text} | trim) == '' ? null : ({text} | from_json)");
                Expr::operators(text, fails)
            }
            (Intrinsic::ArrayContains, [list, item]) => {
                // `in` looks into texts and objects, too; `unique` takes lists only.
                let text = format!("{} in ({} | unique)", item.operand(), list.piped());
                Expr::operators(text, fails)
            }
            (Intrinsic::ArrayLength, [list]) => {
                // As above: `length` is that of texts and objects, too.
                let list = list.piped();
                Expr::tight(format!("[({list} | unique), ({list} | length)][1]"), fails)
            }
            (Intrinsic::ArrayGetItem, [list, index]) if is_index(&call.arguments[1]) => {
                Expr::tight(format!("{}[{}]", list.operand(), index.text), fails)
            }
            (Intrinsic::JsonMerge, [first, second, _]) if is_false(&call.arguments[2]) => {
                let text = format!("{} | merge: {}", first.piped(), second.argument());
                Expr::filters(text, fails)
            }
            (Intrinsic::MathAdd, [a, b]) => {
                let whole = |at: usize, term: &Expr| match &call.arguments[at] {
                    Argument::Literal(value) if value.is_i64() => term.operand(),
                    _ => format!("({} | round)", term.piped()),
                };
                Expr::operators(format!("{} + {}", whole(0, a), whole(1, b)), fails)
            }
            (Intrinsic::Hash, [data, _]) if is_text(&call.arguments[1], "SHA-256") => {
                Expr::filters(format!("{} | hash", data.piped()), fails)
            }
            _ => return unknown(),
        })
    }
}

/// `States.Format`: exact for what is text or a number for sure, since
/// lists and objects are printed as Java prints them.
fn format_call(call: &Call, arguments: &[Expr], faults: Faults) -> Result<Expr, Lost> {
    let fails = |what: &str| Err(Lost::new(what, "write a text with `{{ }}` in it"));
    let Some(Argument::Text { raw, .. }) = call.arguments.first() else {
        return fails("the template of `States.Format` is computed");
    };
    let pieces = pieces(raw);
    if pieces.len() != arguments.len() {
        return fails("`States.Format` always fails: it has not as many `{}` as arguments");
    }
    let mut terms = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        if !piece.is_empty() {
            terms.push(literal(&piece.as_str().into()));
        }
        let Some(argument) = call.arguments.get(at + 1) else {
            continue;
        };
        if !is_scalar(argument) {
            return fails(
                "`States.Format` prints lists and objects as Java does, a text of CDL prints JSON",
            );
        }
        terms.push(format!("({} | string)", arguments[at + 1].piped()));
    }
    Ok(match &terms[..] {
        [] => Expr::tight("''", faults),
        terms => Expr::operators(terms.join(" + "), faults),
    })
}

/// Whether an argument gives text, a number or a boolean whatever the data is.
fn is_scalar(argument: &Argument) -> bool {
    match argument {
        Argument::Text { .. } => true,
        Argument::Literal(value) => !value.is_array() && !value.is_object(),
        Argument::Path(path) => {
            let names = path.steps().iter().map_while(|step| match step {
                Step::Name(name) => Some(&**name),
                _ => None,
            });
            let names: Vec<&str> = names.collect();
            path.root == Root::Context
                && matches!(
                    names[..],
                    ["Execution", "Name" | "StartTime"]
                        | ["State", "Name"]
                        | ["Map", "Item", "Index"]
                )
        }
        Argument::Call(call) => matches!(
            call.function,
            Intrinsic::Format
                | Intrinsic::JsonToString
                | Intrinsic::Uuid
                | Intrinsic::Hash
                | Intrinsic::MathAdd
                | Intrinsic::ArrayLength
                | Intrinsic::ArrayContains
        ),
    }
}

/// What stands between the `{}` of a template that has its escapes still.
fn pieces(raw: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let push = |c: Option<char>, pieces: &mut Vec<String>| match (c, pieces.last_mut()) {
        (Some(c), Some(piece)) => piece.push(c),
        _ => pieces.push(String::new()),
    };
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next_if(|next| "'{}\\".contains(*next));
                push(Some(escaped.unwrap_or('\\')), &mut pieces);
            }
            '{' if chars.next_if_eq(&'}').is_some() => push(None, &mut pieces),
            c => push(Some(c), &mut pieces),
        }
    }
    pieces
}

fn is_index(argument: &Argument) -> bool {
    matches!(argument, Argument::Literal(value) if value.as_u64().is_some_and(|at| at < 1 << 31))
}

fn is_false(argument: &Argument) -> bool {
    matches!(argument, Argument::Literal(Value::Bool(false)))
}

fn is_text(argument: &Argument, expected: &str) -> bool {
    matches!(argument, Argument::Text { value, .. } if value == expected)
}

fn listed(items: &[Expr]) -> Expr {
    let faults = items.iter().map(|item| item.faults);
    let faults = faults.fold(Faults::NONE, Faults::and);
    let items: Vec<_> = items.iter().map(Expr::argument).collect();
    Expr::tight(format!("[{}]", items.join(", ")), faults)
}

/// As [`follow`], from a value that is there, or that may fail as `faults` say.
fn follow_from(base: &str, steps: &[Step], path: &Path, faults: Faults) -> Result<Expr, Lost> {
    if steps.is_empty() {
        return Ok(Expr::tight(base, faults));
    }
    follow(base, steps, path)
}

/// The steps of a path as those of CDL's.
fn follow(base: &str, steps: &[Step], path: &Path) -> Result<Expr, Lost> {
    let mut text = base.to_owned();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Name(name) => text.push_str(&key_text(name)),
            Step::Index(index) => {
                let _ = write!(text, "[{index}]"); // writing to a String cannot fail
            }
            Step::Function(Function::Length) if at + 1 == steps.len() => {
                return Ok(Expr::filters(format!("{text} | length"), Faults::RUNTIME));
            }
            Step::Function(Function::Keys) if at + 1 == steps.len() => {
                return Ok(Expr::filters(format!("{text} | keys"), Faults::RUNTIME));
            }
            _ => {
                return Err(Lost::new(
                    format!("`{path}` may lead to several values"),
                    "use the filters `map`, `where`, `slice` and `flatten`, or an activity",
                ));
            }
        }
    }
    Ok(Expr::tight(text, Faults::RUNTIME))
}

fn source_text(source: &Source) -> String {
    match source {
        Source::Path(path) => path.to_string(),
        Source::Call(call) => call.text().to_owned(),
    }
}

/// A text in which nothing is evaluated.
pub(super) fn escaped(text: &str) -> String {
    if text.trim_end_matches(['\n', '\r']) == "{{" {
        // Line breaks behind an expression that stands alone are not text.
        return format!("{{{{ {} }}}}", literal(&text.into()));
    }
    text.replace("{{", "{{ '{{' }}")
}

/// A value in which nothing is evaluated.
pub(super) fn literal_y(value: &Value) -> Y {
    match value {
        Value::String(text) => Y::Text(escaped(text)),
        Value::Array(items) => Y::List(items.iter().map(literal_y).collect()),
        Value::Object(map) => {
            let entries = map.iter();
            Y::Map(
                entries
                    .map(|(key, item)| (key.clone(), literal_y(item)))
                    .collect(),
            )
        }
        scalar => Y::Bare(scalar.to_string()),
    }
}

/// A value as an expression.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let mut quoted = String::from("'");
            for c in text.chars() {
                match c {
                    '\'' => quoted.push_str("\\'"),
                    '\\' => quoted.push_str("\\\\"),
                    '\n' => quoted.push_str("\\n"),
                    c if c.is_control() => {
                        // Writing to a String cannot fail.
                        let _ = write!(quoted, "\\u{:04x}", u32::from(c));
                    }
                    c => quoted.push(c),
                }
            }
            quoted.push('\'');
            quoted
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let entries = map.iter();
            let entries: Vec<_> = entries
                .map(|(name, item)| format!("{}: {}", key(name), literal(item)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// A key of an object literal.
pub(super) fn key(name: &str) -> String {
    let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_word {
        name.to_owned()
    } else {
        literal(&name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(variables: &BTreeMap<String, Option<String>>) -> View<'_> {
        View {
            data: Data::At("$.data".to_owned()),
            state: "Here",
            in_map: true,
            variables,
        }
    }

    /// Expected values: what each means in the specification.
    #[test]
    fn sources_are_said_as_expressions_or_not_at_all() {
        let variables = BTreeMap::from([("x".to_owned(), Some("$.vars.x".to_owned()))]);
        let view = view(&variables);
        for (text, expected) in [
            ("$", Some("$.data")),
            ("$.a['b c'][0]", Some("$.data.a['b c'][0]")),
            ("$.a.length()", Some("$.data.a | length")),
            ("$.a[*]", None),
            ("$.a[0:1]", None),
            ("$..a", None),
            ("$x.y", Some("$.vars.x.y")),
            ("$other", None),
            ("$$.Execution.Input.a", Some("workflow.input.a")),
            ("$$.Execution.Name", Some("workflow.execution_id")),
            ("$$.Execution.Id", None),
            ("$$.State.Name", Some("'Here'")),
            ("$$.Map.Item.Value.a", Some("map.item.a")),
            ("$$.Task.Token", None),
            (
                "States.Array($.a, 'it\\'s', 1)",
                Some("[$.data.a, 'it\\'s', 1]"),
            ),
            ("States.JsonToString($.a)", Some("$.data.a | json")),
            (
                "States.ArrayContains($.a, 1)",
                Some("1 in ($.data.a | unique)"),
            ),
            ("States.ArrayGetItem($.a, 2)", Some("$.data.a[2]")),
            ("States.ArrayGetItem($.a, $.i)", None),
            ("States.MathAdd($.a, 1)", Some("($.data.a | round) + 1")),
            (
                "States.JsonMerge($.a, $.b, false)",
                Some("$.data.a | merge: $.data.b"),
            ),
            (
                "States.Format('a {} b', States.UUID())",
                Some("'a ' + (uuid | string) + ' b'"),
            ),
            ("States.Format('{}', $.a)", None),
            ("States.Format('a \\{\\} b')", Some("'a {} b'")),
            ("States.Base64Encode($.a)", None),
        ] {
            let source = if Call::is_call(text) {
                Source::Call(Call::parse(text).expect("a call"))
            } else {
                Source::Path(Path::parse(text).expect("a path"))
            };
            let expr = view.source(&source);
            assert_eq!(
                expr.ok().map(|expr| expr.text).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn literals_are_read_as_they_were() {
        let value = json!({"a b": ["it's \\ \n \u{1}", -1, 1.5, null, true], "c": "{{ x }}"});
        let env = crate::expression::Env {
            context: &json!({}),
            overlays: &[],
            locals: &[],
            now: crate::Timestamp(0),
            shards: 1,
            id: "0190163d-8694-739b-aea5-966c26f8ad91"
                .parse()
                .expect("a UUID"),
            seq: 1,
        };
        let expression = crate::expression::Template::parse_expression(&literal(&value));
        assert_eq!(expression.expect("parses").eval(&env), Ok(value.clone()));
        for text in ["a {{ b }} {{{", "{{", "{{\n", "{{ a }}\n"] {
            let template = crate::expression::Template::parse(&escaped(text));
            assert_eq!(template.expect("parses").eval(&env), Ok(json!(text)));
        }
    }
}
