//! What a file says, by place: its keys, its values, its states and who leads to them.
//!
//! Walks the tree by the table of keys that the JSON Schema is made from, so that a new key
//! or mapping of the language is known here without a line of code. Definitions in the
//! States Language have a walk of their own, by the few fields that name states.

use std::collections::BTreeSet;

use super::{Language, sketch};
use crate::front::json_schema::{self, Kind};
use crate::front::report::Reporter;
use crate::front::scalar::Scalar;
use crate::front::states;
use crate::front::text::{Span, Text};
use crate::front::yaml::{Entry, Node, Yaml};
use crate::front::{asl, document, json, yaml};

/// The shape of a state whose type is not known.
pub(super) const ANY_STATE: &str = "state";

/// The shape of what a file begins with, before it is known what it declares.
pub(super) const ROOT: &str = "root";

/// A key of a mapping whose shape is known.
pub(super) struct KeyAt<'t> {
    pub(super) shape: &'static str,
    pub(super) text: &'t str,
    pub(super) span: Span,
    /// Keys of one mapping share this.
    pub(super) mapping: usize,
}

/// A scalar whose meaning is known.
pub(super) struct ValueAt<'t> {
    pub(super) shape: &'static str,
    pub(super) key: &'t str,
    pub(super) meaning: Meaning,
    pub(super) text: &'t str,
    pub(super) span: Span,
}

/// What a scalar is for.
#[derive(Clone, Copy)]
pub(super) enum Meaning {
    /// The type of a state.
    Type,
    /// Leads to a state of a scope, from a state or, as `start`, from the scope itself.
    Target {
        scope: usize,
        from: Option<usize>,
    },
    Resource,
    Workflow,
    Other(Kind),
}

/// A workflow, or a branch or iterator in it.
pub(super) struct Scope<'t> {
    pub(super) name: Option<(&'t str, Span)>,
    pub(super) what: What,
    pub(super) span: Span,
    /// The state that it is in.
    pub(super) owner: Option<usize>,
    /// Whether it is a state by itself, whose name is that of its branch.
    pub(super) single: bool,
    pub(super) has_start: bool,
    /// Its states, in the order of the file.
    pub(super) states: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Workflow,
    Branch,
    Iterator,
}

pub(super) struct StateAt<'t> {
    pub(super) scope: usize,
    pub(super) name: &'t str,
    pub(super) span: Span,
    /// All of it.
    pub(super) whole: Span,
    pub(super) kind: &'t str,
    pub(super) resource: Option<&'t str>,
    pub(super) description: Option<&'t str>,
    /// The branches or the iterator in it.
    pub(super) scopes: Vec<usize>,
}

/// What a file says.
#[derive(Default)]
pub(super) struct Model<'t> {
    pub(super) keys: Vec<KeyAt<'t>>,
    pub(super) values: Vec<ValueAt<'t>>,
    pub(super) scopes: Vec<Scope<'t>>,
    pub(super) states: Vec<StateAt<'t>>,
    pub(super) schemas: Vec<&'t str>,
    mappings: usize,
}

/// The tree of a file, and how it was come by.
pub(super) struct Tree {
    pub(super) root: Node,
    /// Whether the parser reads it; if not, this is what could be made out.
    pub(super) is_exact: bool,
}

/// Reads a file, whatever is wrong with it. `None` if there is nothing in it.
pub(super) fn tree(source: &str) -> Option<Tree> {
    let text = Text::new(source);
    let mut reporter = Reporter::default();
    let found = match json::read(&text, &mut reporter) {
        json::Json::Root(root) => Some(root),
        json::Json::Refused => None,
        json::Json::Other => yaml::read(&text, &mut reporter),
    };
    // The parser looks behind a byte order mark only if it is taken away.
    let is_exact = reporter.errors() == 0 && !source.starts_with('\u{feff}');
    match found.filter(|_| is_exact) {
        Some(root) => Some(Tree { root, is_exact }),
        None => sketch::read(source).map(|root| Tree {
            root,
            is_exact: false,
        }),
    }
}

pub(super) fn entries(node: &Node) -> &[Entry] {
    match &node.yaml {
        Yaml::Mapping(entries) => entries,
        _ => &[],
    }
}

pub(super) fn get<'t>(entries: &'t [Entry], key: &str) -> Option<&'t Node> {
    let entry = entries.iter().find(|entry| &*entry.key.text == key);
    entry.map(|entry| &entry.value)
}

pub(super) fn scalar(node: &Node) -> Option<&str> {
    match &node.yaml {
        Yaml::Scalar(scalar) => Some(Scalar::text(scalar)),
        _ => None,
    }
}

fn text_of<'t>(entries: &'t [Entry], key: &str) -> Option<&'t str> {
    get(entries, key).and_then(scalar)
}

/// What language a tree is in, judging by the keys of its root.
pub(super) fn language(root: &Node) -> Option<Language> {
    let entries = entries(root);
    let has = |key: &str| get(entries, key).is_some();
    if asl::is_definition(root) {
        return Some(Language::Asl);
    }
    if let Some(bound) = asl::bound_definition(root) {
        return asl::is_definition(bound.definition).then_some(Language::Asl);
    }
    match text_of(entries, "apiVersion") {
        Some(version) => version.starts_with("cascade.io/").then_some(Language::Cdl),
        None => (has("workflows") || has("states")).then_some(Language::Cdl),
    }
}

/// Looks through a tree.
pub(super) fn model(root: &Node) -> Model<'_> {
    let mut model = Model::default();
    match language(root) {
        Some(Language::Asl) => {
            let bound = asl::bound_definition(root).filter(|_| !asl::is_definition(root));
            let root = bound.map_or(root, |bound| bound.definition);
            model.machine(root, None, What::Workflow, None);
        }
        Some(Language::Cdl) => {
            let entries = entries(root);
            let has = |key: &str| get(entries, key).is_some();
            if document::ENVELOPE.known.iter().any(|key| has(key)) {
                model.mapping(root, "envelope", Around::default());
            } else if has("states") && !has("workflows") {
                let name = get(entries, "name").and_then(|node| Some((scalar(node)?, node.span)));
                model.scope(root, "workflow", name, Around::default());
            } else {
                model.mapping(root, "only-workflows", Around::default());
            }
        }
        None => model.mapping(root, ROOT, Around::default()),
    }
    model
}

/// Where in the file the walk is.
#[derive(Debug, Clone, Copy, Default)]
struct Around {
    /// The scope that `next` leads into.
    scope: Option<usize>,
    /// The scope that a workflow, branch or iterator has, for its `start` and `states`.
    own: Option<usize>,
    state: Option<usize>,
}

impl Around {
    fn into(scope: usize, state: Option<usize>) -> Self {
        Self {
            scope: Some(scope),
            own: None,
            state,
        }
    }
}

fn is_shape(name: &str) -> Option<&'static str> {
    let found = json_schema::shapes().find(|(of, _)| *of == name);
    found.map(|(of, _)| of)
}

/// The shape of a state, by its type and, if it is a Task, its resource.
fn shape_of_state(entries: &[Entry]) -> &'static str {
    let resource = text_of(entries, "resource");
    let given = text_of(entries, "type");
    let kind = match (given, resource) {
        (None | Some(""), Some(_)) => "Task",
        (Some(kind), _) => kind,
        (None, None) => return ANY_STATE,
    };
    let alias = states::ALIASES
        .iter()
        .find(|(_, urn)| Some(*urn) == resource);
    let is_child = resource.is_some_and(|urn| urn.starts_with(states::WORKFLOW));
    let kind = match alias {
        Some((name, _)) if kind == "Task" => name,
        None if kind == "Task" && is_child => "SubWorkflow",
        _ => kind,
    };
    let shape = states::shapes().find(|(name, _)| *name == kind);
    shape.map_or(ANY_STATE, |(name, _)| name)
}

impl<'t> Model<'t> {
    /// A mapping whose keys are known.
    fn mapping(&mut self, node: &'t Node, shape: &'static str, around: Around) {
        let mapping = self.mappings;
        self.mappings += 1;
        for Entry { key, value } in entries(node) {
            self.keys.push(KeyAt {
                shape,
                text: &key.text,
                span: key.span,
                mapping,
            });
            self.entry(shape, &key.text, value, around);
        }
    }

    fn entry(&mut self, shape: &'static str, key: &'t str, value: &'t Node, around: Around) {
        let is_state = shape == ANY_STATE || states::shapes().any(|(name, _)| name == shape);
        let meaning = match (key, json_schema::row(shape, key)) {
            ("type", _) if is_state => Meaning::Type,
            ("workflow", _) if is_state || shape == "schedule" => Meaning::Workflow,
            // Names what it stands in.
            ("name", _) | (_, None) => return,
            ("start", _) => match around.own {
                Some(scope) => Meaning::Target { scope, from: None },
                None => return,
            },
            (_, Some((_, _, Kind::Def("state-name"), _))) => match around.scope {
                Some(scope) => {
                    let from = around.state;
                    Meaning::Target { scope, from }
                }
                None => return,
            },
            (_, Some((_, _, Kind::Def("resource"), _))) => Meaning::Resource,
            (_, Some((_, _, kind, _))) => Meaning::Other(*kind),
        };
        if let Some(text) = scalar(value) {
            self.values.push(ValueAt {
                shape,
                key,
                meaning,
                text,
                span: value.span,
            });
            return;
        }
        let Meaning::Other(kind) = meaning else {
            return;
        };
        match kind {
            Kind::Def("iterator") => self.scope(value, "iterator", None, around),
            // A word has no keys.
            Kind::Def("catch-up-or-word") => self.mapping(value, "catch-up", around),
            // Of a Map over an object.
            Kind::Items => {
                if let (Some(shape), Yaml::Mapping(_)) = (is_shape("items"), &value.yaml) {
                    self.mapping(value, shape, around);
                }
            }
            Kind::Def(name) => {
                if let Some(shape) = is_shape(name) {
                    self.mapping(value, shape, around);
                }
            }
            Kind::List(name, _) | Kind::Any(name, _) => {
                if let (Some(shape), Yaml::Sequence(items)) = (is_shape(name), &value.yaml) {
                    for item in items {
                        self.mapping(item, shape, around);
                    }
                }
            }
            Kind::Named("schema") => {
                let names = entries(value).iter().map(|entry| &*entry.key.text);
                self.schemas.extend(names);
            }
            Kind::Things(what) => self.things(value, what, around),
            Kind::Branches => self.things(value, "branch-or-state", around),
            Kind::Rate => self.mapping(value, "rate-limit", around),
            _ => {}
        }
    }

    /// A list of things with names, or a mapping from names to things.
    fn things(&mut self, node: &'t Node, what: &'static str, around: Around) {
        match &node.yaml {
            Yaml::Mapping(entries) => {
                for Entry { key, value } in entries {
                    let whole = Span::new(key.span.start, value.span.end.max(key.span.end));
                    self.thing(value, what, (&key.text, key.span), whole, around);
                }
            }
            Yaml::Sequence(items) => {
                for item in items {
                    let name = get(entries(item), "name");
                    let name = name.and_then(|node| Some((scalar(node)?, node.span)));
                    let name = name.unwrap_or(("", item.head()));
                    self.thing(item, what, name, item.span, around);
                }
            }
            _ => {}
        }
    }

    fn thing(
        &mut self,
        node: &'t Node,
        what: &'static str,
        name: (&'t str, Span),
        whole: Span,
        around: Around,
    ) {
        let has = |key: &str| get(entries(node), key).is_some();
        match what {
            "workflow" => self.scope(node, "workflow", Some(name), Around::default()),
            "schedule" => self.mapping(node, "schedule", Around::default()),
            "branch-or-state" if has("states") && !has("type") => {
                self.scope(node, "branch", Some(name), around);
            }
            "branch-or-state" => {
                let scope = self.open(What::Branch, Some(name), whole, around.state);
                self.scopes[scope].single = true;
                self.state(node, name, whole, scope);
            }
            _ => {
                if let Some(scope) = around.own {
                    self.state(node, name, whole, scope);
                }
            }
        }
    }

    fn open(
        &mut self,
        what: What,
        name: Option<(&'t str, Span)>,
        span: Span,
        owner: Option<usize>,
    ) -> usize {
        self.scopes.push(Scope {
            name,
            what,
            span,
            owner,
            single: false,
            has_start: false,
            states: Vec::new(),
        });
        let id = self.scopes.len() - 1;
        if let Some(owner) = owner {
            self.states[owner].scopes.push(id);
        }
        id
    }

    /// A mapping that has states.
    fn scope(
        &mut self,
        node: &'t Node,
        shape: &'static str,
        name: Option<(&'t str, Span)>,
        around: Around,
    ) {
        let what = match shape {
            "branch" => What::Branch,
            "iterator" => What::Iterator,
            _ => What::Workflow,
        };
        let own = self.open(what, name, node.span, around.state);
        self.scopes[own].has_start = get(entries(node), "start").is_some();
        let around = Around {
            scope: Some(own),
            own: Some(own),
            state: None,
        };
        self.mapping(node, shape, around);
    }

    fn state(&mut self, node: &'t Node, name: (&'t str, Span), whole: Span, scope: usize) {
        let entries = entries(node);
        let shape = shape_of_state(entries);
        let id = self.declare(entries, name, whole, scope);
        let state = &mut self.states[id];
        state.kind = text_of(entries, "type").unwrap_or("");
        state.resource = text_of(entries, "resource");
        state.description = text_of(entries, "description");
        self.mapping(node, shape, Around::into(scope, Some(id)));
    }

    fn declare(
        &mut self,
        entries: &'t [Entry],
        (name, span): (&'t str, Span),
        whole: Span,
        scope: usize,
    ) -> usize {
        let id = self.states.len();
        self.scopes[scope].states.push(id);
        self.states.push(StateAt {
            scope,
            name,
            span,
            whole,
            kind: text_of(entries, "Type").unwrap_or(""),
            resource: text_of(entries, "Resource"),
            description: text_of(entries, "Comment"),
            scopes: Vec::new(),
        });
        id
    }

    /// A state machine of the States Language, or a part of one.
    fn machine(
        &mut self,
        node: &'t Node,
        name: Option<(&'t str, Span)>,
        what: What,
        owner: Option<usize>,
    ) {
        let found = entries(node);
        let scope = self.open(what, name, node.span, owner);
        self.scopes[scope].has_start = get(found, "StartAt").is_some();
        self.target(found, "StartAt", "", Around::into(scope, None));
        let states = get(found, "States").map_or(&[][..], entries);
        for Entry { key, value } in states {
            let whole = Span::new(key.span.start, value.span.end.max(key.span.end));
            let fields = entries(value);
            let id = self.declare(fields, (&key.text, key.span), whole, scope);
            let around = Around::into(scope, Some(id));
            self.target(fields, "Next", "", around);
            self.target(fields, "Default", "", around);
            for list in ["Choices", "Catch"] {
                if let Some(Yaml::Sequence(items)) = get(fields, list).map(|node| &node.yaml) {
                    for item in items {
                        self.target(entries(item), "Next", list, around);
                    }
                }
            }
            if let Some(Yaml::Sequence(branches)) = get(fields, "Branches").map(|node| &node.yaml) {
                for branch in branches {
                    self.machine(branch, None, What::Branch, Some(id));
                }
            }
            for iterator in ["ItemProcessor", "Iterator"] {
                if let Some(node) = get(fields, iterator) {
                    self.machine(node, None, What::Iterator, Some(id));
                }
            }
        }
    }

    fn target(&mut self, entries: &'t [Entry], key: &str, shape: &'static str, around: Around) {
        let entry = entries.iter().find(|entry| &*entry.key.text == key);
        let (Some(entry), Some(scope)) = (entry, around.scope) else {
            return;
        };
        if let Some(text) = scalar(&entry.value) {
            self.values.push(ValueAt {
                shape,
                key: &entry.key.text,
                meaning: Meaning::Target {
                    scope,
                    from: around.state,
                },
                text,
                span: entry.value.span,
            });
        }
    }

    /// The state of a scope that has a name, the first if there are several.
    pub(super) fn find(&self, scope: usize, name: &str) -> Option<usize> {
        let mut states = self.scopes[scope].states.iter().copied();
        states.find(|id| self.states[*id].name == name && !name.is_empty())
    }

    /// All that leads to a state.
    pub(super) fn leading_to(&self, state: usize) -> impl Iterator<Item = &ValueAt<'t>> {
        let StateAt { scope, name, .. } = self.states[state];
        self.values.iter().filter(move |value| {
            matches!(value.meaning, Meaning::Target { scope: into, .. } if into == scope)
                && value.text == name
        })
    }

    /// All that leads on from a state, in the order of the file.
    pub(super) fn leading_from(&self, state: usize) -> impl Iterator<Item = &ValueAt<'t>> {
        self.values.iter().filter(
            move |value| matches!(value.meaning, Meaning::Target { from, .. } if from == Some(state)),
        )
    }

    /// The state that is named at a place: where it is declared, or led to.
    pub(super) fn state_at(&self, at: usize) -> Option<(usize, Span)> {
        let touches = |span: Span| span.start <= at && at <= span.end;
        let declared = self.states.iter().position(|state| touches(state.span));
        if let Some(id) = declared.filter(|id| !self.states[*id].name.is_empty()) {
            return Some((id, self.states[id].span));
        }
        let value = self.values.iter().find(|value| touches(value.span))?;
        match value.meaning {
            Meaning::Target { scope, .. } => Some((self.find(scope, value.text)?, value.span)),
            _ => None,
        }
    }

    /// Names that states of a scope have, in the order of the file.
    pub(super) fn names_of(&self, scope: usize) -> Vec<&StateAt<'t>> {
        let mut seen = BTreeSet::new();
        let states = self.scopes[scope].states.iter().map(|id| &self.states[*id]);
        states
            .filter(|state| !state.name.is_empty() && seen.insert(state.name))
            .collect()
    }
}
