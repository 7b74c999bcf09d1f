//! The front end of ASL: from a definition in JSON or YAML to a [`Program`].
//!
//! Refuses what AWS refuses when a state machine is created: unknown fields,
//! fields of the other query language, paths, calls and expressions that do not
//! parse, transitions that lead nowhere, states that nothing leads to,
//! resources that there are not. Everything that is found is reported together.
//!
//! Source: the specification at <https://states-language.net>, and the Step
//! Functions Developer Guide.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::Notes;
use super::fields::{Context, Fields, Shape};
use super::report::{Finding, quote, suggest};
use super::text::Span;
use super::yaml::{Node, Yaml};
use crate::asl::{self, Bindings, MachineType};
use crate::diagnostic::Code;
use crate::program::{Next, Program, Scope, ScopeId, State, StateId, StateKind};

mod choice;
mod errors;
mod map;
mod resource;
mod states;
mod values;

/// Longest name of a state, in characters (AWS's limit).
const MAX_NAME_CHARS: usize = 80;

/// Longest `TimeoutSeconds`, in seconds (AWS's limit).
pub(super) const MAX_SECONDS: u32 = 99_999_999;

/// The field that says nothing to the machine, and may stand everywhere.
const COMMENT: &str = "Comment";

const MACHINE: &[&str] = &[
    "StartAt",
    "States",
    "Version",
    "TimeoutSeconds",
    "QueryLanguage",
];
const BRANCH: &[&str] = &["StartAt", "States"];
const PROCESSOR: &[&str] = &["StartAt", "States", "ProcessorConfig"];

/// What a definition is read with.
#[derive(Debug, Clone, Default)]
pub struct AslOptions {
    /// The activities behind its resources.
    pub bindings: Bindings,
    /// What AWS would run it as.
    pub machine_type: MachineType,
}

/// `QueryLanguage`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Path,
    Query,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Path => "JSONPath",
            Self::Query => "JSONata",
        }
    }
}

/// Whether a file is a definition in ASL, judging by the keys of its root.
pub(super) fn is_definition(root: &Node) -> bool {
    let Yaml::Mapping(entries) = &root.yaml else {
        return false;
    };
    let has = |key: &str| entries.iter().any(|entry| &*entry.key.text == key);
    has("StartAt") || has("States")
}

/// A file that holds a definition and what its resources are bound to.
pub(super) const BOUND: Shape = Shape {
    what: "a definition with its bindings",
    known: &["definition", "bindings"],
    later: &[],
};

/// A definition and its bindings, in one file.
pub(super) struct BoundDefinition<'t> {
    pub(super) definition: &'t Node,
    pub(super) bindings: Option<&'t Node>,
}

/// Whether a file is a definition with its bindings.
pub(super) fn bound_definition(root: &Node) -> Option<BoundDefinition<'_>> {
    let Yaml::Mapping(entries) = &root.yaml else {
        return None;
    };
    let get = |key: &str| {
        let entry = entries.iter().find(|entry| &*entry.key.text == key);
        entry.map(|entry| &entry.value)
    };
    let definition = get("definition")?;
    Some(BoundDefinition {
        definition,
        bindings: get("bindings"),
    })
}

/// Fields that AWS acts upon and Cascade does not.
const IDLE: [&str; 3] = ["Credentials", "ResultWriter", "Label"];

/// What a definition says to people.
pub(super) fn notes(definition: &Node) -> Notes {
    let mut notes = Notes {
        comment: field(definition, COMMENT).and_then(text),
        ..Notes::default()
    };
    gather(definition, &mut notes);
    notes
}

/// The notes of the states of a scope, and of those in them. Recurses as deep as
/// the file is nested, which is bounded.
fn gather(scope: &Node, notes: &mut Notes) {
    let Some(Yaml::Mapping(states)) = field(scope, "States").map(|states| &states.yaml) else {
        return;
    };
    for entry in states {
        let (name, state) = (entry.key.text.to_string(), &entry.value);
        if let Some(comment) = field(state, COMMENT).and_then(text) {
            notes.comments.insert(name.clone(), comment);
        }
        let idle = IDLE.into_iter().filter(|key| field(state, key).is_some());
        let idle: Vec<_> = idle.collect();
        if !idle.is_empty() {
            notes.idle.insert(name, idle);
        }
        for key in ["ItemProcessor", "Iterator"] {
            if let Some(scope) = field(state, key) {
                gather(scope, notes);
            }
        }
        if let Some(Yaml::Sequence(branches)) = field(state, "Branches").map(|list| &list.yaml) {
            for branch in branches {
                gather(branch, notes);
            }
        }
    }
}

fn field<'t>(node: &'t Node, key: &str) -> Option<&'t Node> {
    let Yaml::Mapping(entries) = &node.yaml else {
        return None;
    };
    let entry = entries.iter().find(|entry| &*entry.key.text == key);
    entry.map(|entry| &entry.value)
}

fn text(node: &Node) -> Option<String> {
    match &node.yaml {
        Yaml::Scalar(scalar) => Some(scalar.text().to_owned()),
        _ => None,
    }
}

/// Compiles a definition.
pub(super) fn program(
    context: &mut Context<'_>,
    root: &Node,
    name: &str,
    options: &AslOptions,
) -> Option<Program> {
    let errors = context.reporter.errors();
    let fields = known(context, root, "a state machine", MACHINE)?;
    if let Some(node) = fields.get("Version") {
        context.word(node, "`Version`", &["1.0"]);
    }
    let language = match fields.get("QueryLanguage") {
        Some(node) => language(context, node)?,
        None => Language::Path,
    };
    let timeout = fields.get("TimeoutSeconds");
    let timeout =
        timeout.and_then(|node| context.integer(node, "`TimeoutSeconds`", 1, MAX_SECONDS));
    let mut builder = Builder {
        context,
        options,
        machine: language,
        scopes: Vec::new(),
        states: Vec::new(),
        names: Vec::new(),
        seen: BTreeMap::new(),
        spans: Vec::new(),
        uses_context: false,
    };
    builder.scope(&fields, name, None, language);
    builder.check_reachable();
    let Builder {
        context,
        scopes,
        states,
        ..
    } = builder;
    if context.reporter.errors() > errors {
        return None;
    }
    Some(Program {
        input: None,
        shard_key: None,
        attributes: BTreeMap::new(),
        priority: None,
        start_rate_limit: None,
        name: name.to_owned(),
        scopes,
        states: states.into_iter().collect::<Option<Vec<_>>>()?,
        timeout_ms: timeout.map(|seconds| u64::from(seconds) * 1_000),
        output: None,
        chunk: None,
        whole: false,
    })
}

/// A mapping with no other keys than `keys`.
fn known<'t>(
    context: &mut Context<'_>,
    node: &'t Node,
    what: &'static str,
    keys: &[&str],
) -> Option<Fields<'t>> {
    let fields = context.any_fields(node, what)?;
    for key in fields.keys() {
        if !keys.contains(&&*key.text) && &*key.text != COMMENT {
            context.report(
                Finding::new(
                    Code::UnknownKey,
                    key.span,
                    format!("{what} has no field {}", quote(&key.text)),
                )
                .maybe_help(suggest(&key.text, "its fields are", keys)),
            );
        }
    }
    Some(fields)
}

fn language(context: &mut Context<'_>, node: &Node) -> Option<Language> {
    match context.word(node, "`QueryLanguage`", &["JSONPath", "JSONata"])? {
        "JSONata" => Some(Language::Query),
        _ => Some(Language::Path),
    }
}

/// A definition that is being compiled.
struct Builder<'c, 'a, 'o> {
    context: &'c mut Context<'a>,
    options: &'o AslOptions,
    /// The language of states that do not say.
    machine: Language,
    scopes: Vec<Scope>,
    states: Vec<Option<State>>,
    /// The states of each scope by name.
    names: Vec<BTreeMap<String, StateId>>,
    /// All names, and where they stand: they are unique in the whole definition.
    seen: BTreeMap<String, Span>,
    /// Where the name of each state stands.
    spans: Vec<Span>,
    /// Whether the state that is being compiled looks into the context object.
    uses_context: bool,
}

/// Where a state is.
struct Place<'n> {
    id: StateId,
    scope: ScopeId,
    name: &'n str,
    span: Span,
}

impl Builder<'_, '_, '_> {
    fn report(&mut self, finding: Finding) {
        self.context.report(finding);
    }

    /// The states of a machine, a branch or a processor.
    fn scope(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        owner: Option<StateId>,
        language: Language,
    ) -> Option<ScopeId> {
        let scope = ScopeId(index(self.scopes.len()));
        self.scopes.push(Scope {
            name: name.to_owned(),
            start: StateId(0),
            owner,
        });
        self.names.push(BTreeMap::new());
        let start = self.context.required(fields, "StartAt");
        let states = self.context.required(fields, "States")?;
        let entries = self.context.mapping(states, "`States`")?;
        if entries.is_empty() {
            self.report(Finding::new(
                Code::NothingToRun,
                states.span,
                "there are no states",
            ));
        }
        let first = index(self.states.len());
        for entry in entries {
            self.declare(scope, &entry.key.text, entry.key.span);
        }
        if let Some(start) = start
            && let Some(target) = self.target(scope, start, "StartAt")
        {
            self.scopes[scope.0 as usize].start = target;
        }
        for (at, entry) in entries.iter().enumerate() {
            let place = Place {
                id: StateId(first + index(at)),
                scope,
                name: &entry.key.text,
                span: entry.key.span,
            };
            let outer = mem::take(&mut self.uses_context);
            let compiled = states::compile(self, &place, &entry.value, language);
            self.uses_context = outer;
            if let Some(state) = compiled {
                self.states[place.id.0 as usize] = Some(State {
                    name: place.name.into(),
                    scope,
                    kind: StateKind::Asl(Arc::new(state)),
                });
            }
        }
        Some(scope)
    }

    fn declare(&mut self, scope: ScopeId, name: &str, span: Span) {
        let id = StateId(index(self.states.len()));
        self.states.push(None);
        self.spans.push(span);
        self.names[scope.0 as usize].insert(name.to_owned(), id);
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
            self.report(
                Finding::new(
                    Code::InvalidName,
                    span,
                    format!("{} is not a valid state name", quote(name)),
                )
                .help(format!("a name has 1 to {MAX_NAME_CHARS} characters")),
            );
        }
        if let Some(first) = self.seen.insert(name.to_owned(), span)
            // Within one scope it was reported as a duplicate key.
            && self.names.iter().filter(|names| names.contains_key(name)).count() > 1
        {
            let line = self.context.text.position(first.start).line;
            self.report(
                Finding::new(
                    Code::DuplicateName,
                    span,
                    format!("the state name {} is taken", quote(name)),
                )
                .label(format!("first used in line {line}"))
                .related(first)
                .help("names are unique in the whole state machine; choose another one"),
            );
        }
    }

    /// The state that a field like `Next` names.
    fn target(&mut self, scope: ScopeId, node: &Node, field: &str) -> Option<StateId> {
        let text = self.context.text(node, &format!("`{field}`"))?;
        let names = &self.names[scope.0 as usize];
        if let Some(found) = names.get(text) {
            return Some(*found);
        }
        let candidates: Vec<&str> = names.keys().map(String::as_str).collect();
        let help = suggest(text, "the states here are", &candidates);
        self.report(
            Finding::new(
                Code::UnknownTarget,
                node.span,
                format!("`{field}` names no state of this list: {}", quote(text)),
            )
            .maybe_help(help),
        );
        None
    }

    /// `Next` or `End`.
    fn next(&mut self, place: &Place<'_>, fields: &Fields<'_>) -> Option<Next> {
        let ends = match fields.get("End") {
            Some(node) => self.context.boolean(node, "`End`")?,
            None => false,
        };
        match fields.get("Next") {
            Some(_) if ends => {
                let why = "`End` says that nothing follows";
                self.context.exclusive(fields, "Next", "End", why);
                None
            }
            Some(node) => self.target(place.scope, node, "Next").map(Next::State),
            None if ends => Some(Next::End),
            None => {
                self.report(
                    Finding::new(
                        Code::NoTransition,
                        place.span,
                        format!("nothing follows the state {}", quote(place.name)),
                    )
                    .help("add `Next`, or `End: true` if it is the last one"),
                );
                None
            }
        }
    }

    /// AWS refuses states that nothing leads to.
    fn check_reachable(&mut self) {
        // A state that did not compile leads nowhere that is known; and without
        // states there is none that a scope could start with.
        if self.states.is_empty() || self.states.iter().any(Option::is_none) {
            return;
        }
        let mut reached = vec![false; self.states.len()];
        let mut open: Vec<StateId> = self.scopes.iter().map(|scope| scope.start).collect();
        while let Some(id) = open.pop() {
            if mem::replace(&mut reached[id.0 as usize], true) {
                continue;
            }
            if let Some(State {
                kind: StateKind::Asl(state),
                ..
            }) = &self.states[id.0 as usize]
            {
                open.extend(targets(state));
            }
        }
        for (at, _) in reached.iter().enumerate().filter(|(_, reached)| !**reached) {
            let name = self.states[at].as_ref().map_or("", |state| &state.name);
            let message = format!("no state leads to {}", quote(name));
            let span = self.spans[at];
            self.report(Finding::new(Code::NotReachable, span, message));
        }
    }
}

/// Every state that may follow a state.
fn targets(state: &asl::State) -> Vec<StateId> {
    let mut targets: Vec<_> = state.catch.iter().map(|catch| catch.next).collect();
    if let Some(Next::State(next)) = state.next {
        targets.push(next);
    }
    if let asl::program::Kind::Choice { rules, default } = &state.kind {
        targets.extend(rules.iter().map(|rule| rule.next));
        targets.extend(default);
    }
    targets
}

fn index(len: usize) -> u32 {
    // The tree has at most 200,000 nodes.
    u32::try_from(len).unwrap_or(u32::MAX)
}
