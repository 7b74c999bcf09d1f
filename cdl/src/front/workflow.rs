//! A workflow: its scopes, and the transitions between its states.
//!
//! The names of a scope are declared before any of its states is compiled, so
//! transitions resolve at once; those that do not are kept until all scopes are
//! known, because then it can be said whether the state exists elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::document::{Named, named_items, named_mapping};
use super::fields::{Context, Fields, Shape};
use super::report::{Finding, quote, suggest};
use super::text::Span;
use super::yaml::Node;
use super::{collisions, lints, policies, rates, schemas, states};
use crate::diagnostic::Code;
use crate::expression::{Path, Template};
use crate::placing;
use crate::program::{
    EventTask, HumanTask, Next, Program, Scope, ScopeId, State, StateId, StateKind,
};
use crate::schema::Schema;
use crate::tags::{self, MAX_ATTRIBUTES, MAX_TAG_VALUE_BYTES};

pub(super) const WORKFLOW: Shape = Shape {
    what: "a workflow",
    known: &[
        "name",
        "description",
        "start",
        "input",
        "timeout",
        "output",
        "shard_key",
        "attributes",
        "priority",
        "start_rate_limit",
        "states",
    ],
    later: &["cache", "on_timeout", "version"],
};

pub(super) const INPUT: Shape = Shape {
    what: "`input`",
    known: &["schema"],
    later: &[],
};

/// What is known of a state beside its compiled form; the lints ask for it.
pub(super) struct Facts {
    /// Where its name stands.
    pub(super) name: Span,
    /// Where it writes, and where the file says so.
    pub(super) writes: Vec<(Path, Span)>,
}

/// A transition whose target is not in its scope.
struct Unresolved {
    scope: ScopeId,
    target: String,
    span: Span,
}

/// A workflow that is being compiled.
pub(super) struct Builder<'c, 'a> {
    pub(super) context: &'c mut Context<'a>,
    pub(super) scopes: Vec<Scope>,
    /// Those of them that are iterators of Map states.
    pub(super) iterators: BTreeSet<usize>,
    states: Vec<Option<State>>,
    facts: Vec<Facts>,
    /// The states of each scope by name.
    names: Vec<BTreeMap<String, StateId>>,
    unresolved: Vec<Unresolved>,
}

/// What the lints look at.
pub(super) struct Draft<'b> {
    pub(super) scopes: &'b [Scope],
    pub(super) states: &'b [Option<State>],
    pub(super) facts: &'b [Facts],
    pub(super) timeout_ms: Option<u64>,
    /// Whether the workflow has no errors.
    pub(super) is_clean: bool,
}

/// Compiles one workflow. `span` is where its name stands.
pub(super) fn compile(
    context: &mut Context<'_>,
    node: &Node,
    name: &str,
    span: Span,
) -> Option<Program> {
    let errors = context.reporter.errors();
    let fields = context.fields(node, &WORKFLOW)?;
    if let Some(node) = fields.get("name")
        && let Some(given) = context.name(node, "workflow name")
        && given != name
    {
        let message = format!("the workflow {} calls itself {}", quote(name), quote(given));
        context
            .report(Finding::new(Code::Conflict, node.span, message).help("leave `name` out here"));
    }
    if let Some(node) = fields.get("description") {
        context.text(node, "`description`");
    }
    let input = fields.get("input").and_then(|node| input(context, node));
    let timeout = fields.get("timeout");
    let timeout_ms = timeout.and_then(|node| context.duration(node, "`timeout`"));
    let output = fields.get("output").map(|node| context.template(node));
    let shard_key = fields.get("shard_key");
    let shard_key = shard_key.and_then(|node| shard_key_of(context, node));
    let attributes = fields.get("attributes");
    let attributes = attributes.map(|node| attributes_of(context, node));
    let priority = fields.get("priority");
    let priority = priority.and_then(|node| policies::priority(context, node));
    let start_rate_limit = fields.get("start_rate_limit");
    let start_rate_limit = start_rate_limit.and_then(|node| rates::of_starts(context, node));
    let states = context.required(&fields, "states")?;
    let mut builder = Builder {
        context,
        scopes: Vec::new(),
        iterators: BTreeSet::new(),
        states: Vec::new(),
        facts: Vec::new(),
        names: Vec::new(),
        unresolved: Vec::new(),
    };
    builder.list_scope(name, span, None, states, &fields);
    builder.report_unresolved();
    let Builder {
        context,
        scopes,
        states,
        facts,
        ..
    } = builder;
    let draft = Draft {
        scopes: &scopes,
        states: &states,
        facts: &facts,
        timeout_ms,
        is_clean: context.reporter.errors() == errors && !context.is_damaged,
    };
    collisions::check(context, &draft);
    lints::check(context, &draft);
    if context.reporter.errors() > errors {
        return None;
    }
    Some(Program {
        name: name.to_owned(),
        scopes,
        states: states.into_iter().collect::<Option<Vec<_>>>()?,
        timeout_ms,
        input,
        shard_key,
        attributes: attributes.unwrap_or_default(),
        priority,
        start_rate_limit,
        output: output.flatten(),
        chunk: None,
        whole: false,
    })
}

/// What executions are placed by: it is computed before they begin.
fn shard_key_of(context: &mut Context<'_>, node: &Node) -> Option<Template> {
    let template = context.start_template(node, "`shard_key`")?;
    if let Some(literal) = template.as_literal()
        && let Err(error) = placing::is_key(literal)
    {
        context.report(
            Finding::new(Code::InvalidValue, node.span, error.to_string())
                .help("write an expression over the input: \"{{ $.workflow.input.customer_id }}\""),
        );
        return None;
    }
    Some(template)
}

/// What executions are found by.
fn attributes_of(context: &mut Context<'_>, node: &Node) -> BTreeMap<String, Template> {
    let mut attributes = BTreeMap::new();
    let what = "`attributes`";
    let named = named_mapping(context, node, what, "attribute name").unwrap_or_default();
    if named.len() > MAX_ATTRIBUTES {
        let count = named.len();
        let message = format!("a workflow has at most {MAX_ATTRIBUTES} attributes, not {count}");
        let help = "give what executions are searched by; all else is in their contexts";
        context.report(Finding::new(Code::InvalidValue, node.head(), message).help(help));
    }
    for item in named {
        if !tags::is_attribute_name(item.name) {
            let message = format!("{} is not a valid attribute name", quote(item.name));
            let help = "a letter, and then letters, digits and `_`: it stands before an operator";
            context.report(Finding::new(Code::InvalidName, item.span, message).help(help));
            continue;
        }
        let expected = "an attribute is text, a number, a boolean, or an expression";
        if context.scalar(item.node, expected).is_none() {
            continue;
        }
        let Some(template) = context.template(item.node) else {
            continue;
        };
        if template
            .as_literal()
            .is_some_and(|it| !tags::is_attribute(it))
        {
            let name = quote(item.name);
            let message = format!(
                "the attribute {name} is not text of at most {MAX_TAG_VALUE_BYTES} bytes, a number or a boolean"
            );
            context.report(
                Finding::new(Code::InvalidValue, item.node.span, message)
                    .help("write an expression over the context: \"{{ $.order.total }}\""),
            );
            continue;
        }
        attributes.insert(item.name.to_owned(), template);
    }
    attributes
}

/// What the input has to look like.
fn input(context: &mut Context<'_>, node: &Node) -> Option<Arc<Schema>> {
    let fields = context.fields(node, &INPUT)?;
    let node = context.required(&fields, "schema")?;
    schemas::read(context, node).ok()
}

impl Builder<'_, '_> {
    /// A scope that is a list of states.
    pub(super) fn list_scope(
        &mut self,
        name: &str,
        span: Span,
        owner: Option<StateId>,
        states: &Node,
        fields: &Fields<'_>,
    ) -> Option<ScopeId> {
        let items = named_items(
            self.context,
            states,
            "`states`",
            "state name",
            is_state_name,
        )?;
        if items.is_empty() {
            let head = if states.span.start == 0 {
                span
            } else {
                states.span
            };
            self.context.report(
                Finding::new(Code::NothingToRun, head, "there are no states")
                    .help("a list of states needs at least one"),
            );
            return None;
        }
        let (scope, first) = self.declare(name, owner, &items);
        if let Some(start) = fields.get("start") {
            self.start(scope, start);
        }
        for (at, item) in items.iter().enumerate() {
            let place = states::Place {
                id: StateId(first + index(at)),
                scope,
                following: items.get(at + 1).map(|next| next.name),
                single: false,
            };
            self.state(&place, *item);
        }
        Some(scope)
    }

    /// A scope that is a single state; nothing needs to follow it.
    pub(super) fn single_scope(&mut self, owner: StateId, item: Named<'_>) -> ScopeId {
        let (scope, first) = self.declare(item.name, Some(owner), &[item]);
        let place = states::Place {
            id: StateId(first),
            scope,
            following: None,
            single: true,
        };
        self.state(&place, item);
        scope
    }

    /// Adds a scope and its states, still empty, which get adjacent ids.
    fn declare(
        &mut self,
        name: &str,
        owner: Option<StateId>,
        items: &[Named<'_>],
    ) -> (ScopeId, u32) {
        let scope = ScopeId(index(self.scopes.len()));
        let first = index(self.states.len());
        let mut names = BTreeMap::new();
        for (id, item) in (first..).zip(items) {
            names.entry(item.name.to_owned()).or_insert(StateId(id));
            self.states.push(None);
            self.facts.push(Facts {
                name: item.span,
                writes: Vec::new(),
            });
        }
        self.scopes.push(Scope {
            name: name.to_owned(),
            start: StateId(first),
            owner,
        });
        self.names.push(names);
        (scope, first)
    }

    fn start(&mut self, scope: ScopeId, node: &Node) {
        let Some(text) = self.context.text(node, "`start`") else {
            return;
        };
        if let Some(state) = self.resolve(scope, text, node.span) {
            self.scopes[scope.0 as usize].start = state;
        }
    }

    fn state(&mut self, place: &states::Place<'_>, item: Named<'_>) {
        let id = place.id.0 as usize;
        if let Some(kind) = states::compile(self, place, item) {
            self.states[id] = Some(State {
                name: item.name.into(),
                scope: place.scope,
                kind,
            });
        }
    }

    /// The state that `target` names, if it is in the scope.
    pub(super) fn resolve(&mut self, scope: ScopeId, target: &str, span: Span) -> Option<StateId> {
        let found = self.names[scope.0 as usize].get(target).copied();
        if found.is_none() {
            self.unresolved.push(Unresolved {
                scope,
                target: target.to_owned(),
                span,
            });
        }
        found
    }

    /// The target of a key like `next`.
    pub(super) fn target(&mut self, scope: ScopeId, node: &Node, key: &str) -> Option<StateId> {
        let text = self.context.text(node, &format!("`{key}`"))?;
        self.resolve(scope, text, node.span)
    }

    /// What follows a state that something may follow.
    pub(super) fn next(
        &mut self,
        place: &states::Place<'_>,
        name: &str,
        fields: &Fields<'_>,
    ) -> Option<Next> {
        let end = fields.get("end");
        let ends = match end {
            Some(node) => self.context.boolean(node, "`end`")?,
            None => false,
        };
        let next = fields.get("next");
        if ends && next.is_some() {
            let why = "`end: true` says that nothing follows";
            self.context.exclusive(fields, "next", "end", why);
            return None;
        }
        if let Some(node) = next {
            return self.target(place.scope, node, "next").map(Next::State);
        }
        if ends || place.single {
            return Some(Next::End);
        }
        let help = match place.following {
            Some(following) if !following.is_empty() => {
                format!("add `next: {following}`, or `end: true` if it is the last one")
            }
            _ => {
                "add `end: true` if it is the last one, or `next:` with the name of a state".into()
            }
        };
        self.context.report(
            Finding::new(
                Code::NoTransition,
                self.facts[place.id.0 as usize].name,
                format!("nothing follows the state {}", quote(name)),
            )
            .label("needs `next` or `end: true`")
            .help(help),
        );
        None
    }

    /// Notes that a state writes to `path`.
    pub(super) fn writes(&mut self, state: StateId, path: &Path, span: Span) {
        self.facts[state.0 as usize]
            .writes
            .push((path.clone(), span));
    }

    fn report_unresolved(&mut self) {
        for Unresolved {
            scope,
            target,
            span,
        } in std::mem::take(&mut self.unresolved)
        {
            let elsewhere = self
                .names
                .iter()
                .position(|names| names.contains_key(&target));
            let names = &self.names[scope.0 as usize];
            let finding = if let Some(other) = elsewhere {
                out_of_scope(&self.scopes, &self.iterators, scope, other, &target, span)
            } else {
                let finding = Finding::new(
                    Code::UnknownTarget,
                    span,
                    format!("there is no state {}", quote(&target)),
                );
                if self.context.reporter.is_full() {
                    finding
                } else {
                    let names: Vec<&str> = names.keys().map(String::as_str).collect();
                    finding.maybe_help(suggest(&target, "the states here are", &names))
                }
            };
            self.context.report(finding);
        }
    }
}

fn out_of_scope(
    scopes: &[Scope],
    iterators: &BTreeSet<usize>,
    scope: ScopeId,
    other: usize,
    target: &str,
    span: Span,
) -> Finding {
    let target = quote(target);
    let name = |index: usize| quote(&scopes[index].name);
    let is_iterator = |index: usize| iterators.contains(&index);
    let describe = |index: usize| match scopes[index].owner {
        None => "the workflow itself".to_owned(),
        Some(_) if is_iterator(index) => format!("the iterator of {}", name(index)),
        Some(_) => format!("the branch {}", name(index)),
    };
    let finding = Finding::new(
        Code::TargetOutOfScope,
        span,
        format!("{target} is in {}", describe(other)),
    )
    .label(format!("this is {}", describe(scope.0 as usize)));
    if is_iterator(scope.0 as usize) {
        finding.help(
            "an iterator cannot jump out of itself: end it, and give the Map state the `next`; \
             to leave early, fail and let the Map state `catch`",
        )
    } else if scopes[scope.0 as usize].owner.is_some() {
        finding.help(
            "a branch cannot jump out of itself: end it, and give the Parallel state the \
             `next`; to leave early, fail and let the Parallel state `catch`",
        )
    } else {
        finding.help(if is_iterator(other) {
            "an iterator is entered at its start only; lead to the Map state instead"
        } else {
            "a branch is entered at its start only; lead to the Parallel state instead"
        })
    }
}

/// States may have any printable name, as in ASL.
pub(super) fn is_state_name(name: &str) -> bool {
    name.chars().count() <= 80 && name.trim() == name && !name.chars().any(char::is_control)
}

/// An index as ids hold it.
fn index(len: usize) -> u32 {
    u32::try_from(len).expect("a file has far fewer nodes than u32 holds")
}

/// The transitions that a state may take.
pub(super) fn successors(kind: &StateKind) -> Vec<Next> {
    let caught = |catch: &[crate::program::Catch]| -> Vec<Next> {
        catch.iter().map(|c| Next::State(c.next)).collect()
    };
    match kind {
        StateKind::Task(task) => {
            let mut all = caught(&task.catch);
            all.push(task.next);
            all
        }
        StateKind::Parallel { catch, next, .. } => {
            let mut all = caught(catch);
            all.push(*next);
            all
        }
        StateKind::Map(map) => {
            let mut all = caught(&map.catch);
            all.push(map.next);
            all
        }
        StateKind::Event(EventTask {
            catch,
            timeout,
            next,
            ..
        })
        | StateKind::Human(HumanTask {
            catch,
            timeout,
            next,
            ..
        }) => {
            let mut all = caught(catch);
            all.extend(timeout.and_then(|timeout| timeout.next).map(Next::State));
            all.push(*next);
            all
        }
        StateKind::Pass { next, .. } | StateKind::Wait { next, .. } => vec![*next],
        StateKind::Choice { choices, default } => choices
            .iter()
            .map(|way| way.next)
            .chain(*default)
            .map(Next::State)
            .collect(),
        StateKind::Succeed { .. } | StateKind::Fail { .. } => vec![Next::End],
        // The front end of ASL has its own checks.
        StateKind::Asl(_) => Vec::new(),
    }
}
