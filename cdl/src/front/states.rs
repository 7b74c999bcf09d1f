//! The state types, one function each.
//!
//! A new type is an entry in [`TYPES`] with its keys and its function.

use std::sync::Arc;

use super::child;
use super::document::{Named, named_items};
use super::fields::{Context, Fields, Shape, is_name};
use super::map::map;
use super::policies;
use super::rates;
use super::report::{Finding, quote, suggest};
use super::text::Span;
use super::urn::{self, Parsed};
use super::waiting;
use super::workflow::Builder;
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::expression::{Path, Secrets, Template};
use crate::machine::limits::MAX_BRANCHES;
use crate::program::{
    Compensation, Resource, ScopeId, StateId, StateKind, Strategy, Task, Until, Way,
};

/// Most choices of a Choice state: they are looked at one by one, in one transition.
pub(super) const MAX_CHOICES: usize = 1_000;

/// Where a state stands.
pub(super) struct Place<'p> {
    pub(super) id: StateId,
    pub(super) scope: ScopeId,
    /// The name of the state behind it in the file.
    pub(super) following: Option<&'p str>,
    /// Whether it is a branch by itself, so that nothing needs to follow.
    pub(super) single: bool,
}

type Compile = fn(&mut Builder<'_, '_>, &Place<'_>, &State<'_>) -> Option<StateKind>;

struct Type {
    name: &'static str,
    shape: Shape,
    compile: Compile,
}

impl Type {
    /// The type that a Task is by its resource, if that is no activity.
    fn alias(&self, node: &Node) -> Option<&'static Type> {
        let Yaml::Mapping(entries) = &node.yaml else {
            return None;
        };
        let entry = entries
            .iter()
            .find(|entry| &*entry.key.text == "resource")?;
        let Yaml::Scalar(resource) = &entry.value.yaml else {
            return None;
        };
        let text = resource.text();
        let alias = ALIASES.iter().find(|(_, urn)| *urn == text);
        let name = match alias {
            Some((name, _)) => *name,
            None if text.starts_with(WORKFLOW) => "SubWorkflow",
            None => return None,
        };
        let mut types = TYPES.iter().filter(|_| self.name == "Task");
        types.find(|found| found.name == name)
    }
}

/// A state of the file.
pub(super) struct State<'t> {
    pub(super) name: &'t str,
    pub(super) span: Span,
    pub(super) fields: Fields<'t>,
}

/// The resource of a Task that is an `EventTask` by another name.
const WAIT_FOR_EVENT: &str = "urn:cascade:waitFor:event";

/// The resource of a Task that is a `HumanTask` by another name.
const WAIT_FOR_HUMAN: &str = "urn:cascade:waitFor:human";

/// How the resource of a Task begins that is a `SubWorkflow` by another name.
pub(super) const WORKFLOW: &str = "urn:cascade:workflow:";

/// The types that a Task is by its resource, each with that.
pub(super) const ALIASES: &[(&str, &str)] =
    &[("EventTask", WAIT_FOR_EVENT), ("HumanTask", WAIT_FOR_HUMAN)];

/// Keys of a Map state, by either of its names.
const MAP_KEYS: &[&str] = &[
    "name",
    "type",
    "description",
    "items",
    "mode",
    "iterator",
    "max_concurrency",
    "batch",
    "results",
    "tolerated_failure_count",
    "tolerated_failure_percentage",
    "result",
    "resultPath",
    "catch",
    "next",
    "end",
];

/// Keys that Map states will have.
const MAP_KEYS_LATER: &[&str] = &["timeout", "compensate"];

const TYPES: &[Type] = &[
    Type {
        name: "Task",
        shape: Shape {
            what: "a Task state",
            known: &[
                "name",
                "type",
                "description",
                "resource",
                "parameters",
                "result",
                "resultPath",
                "timeout",
                "heartbeat",
                "priority",
                "rate_limit",
                "retries",
                "catch",
                "compensate",
                "next",
                "end",
            ],
            later: &["cache"],
        },
        compile: task,
    },
    Type {
        name: "Choice",
        shape: Shape {
            what: "a Choice state",
            known: &["name", "type", "description", "choices", "default"],
            later: &[],
        },
        compile: choice,
    },
    Type {
        name: "Parallel",
        shape: Shape {
            what: "a Parallel state",
            known: &[
                "name",
                "type",
                "description",
                "branches",
                "completion_strategy",
                "required",
                "result",
                "resultPath",
                "catch",
                "next",
                "end",
            ],
            later: &["timeout", "compensate"],
        },
        compile: parallel,
    },
    Type {
        name: "Map",
        shape: Shape {
            what: "a Map state",
            known: MAP_KEYS,
            later: MAP_KEYS_LATER,
        },
        compile: map,
    },
    Type {
        name: "ForEach",
        shape: Shape {
            what: "a ForEach state",
            known: MAP_KEYS,
            later: MAP_KEYS_LATER,
        },
        compile: map,
    },
    Type {
        name: "EventTask",
        shape: Shape {
            what: "an EventTask state",
            known: &[
                "name",
                "type",
                "description",
                "event",
                "timeout",
                "on_timeout",
                "result",
                "resultPath",
                "catch",
                "next",
                "end",
            ],
            later: &["compensate"],
        },
        compile: waiting::event,
    },
    Type {
        name: "HumanTask",
        shape: Shape {
            what: "a HumanTask state",
            known: &[
                "name",
                "type",
                "description",
                "assignee",
                "parameters",
                "ui",
                "timeout",
                "on_timeout",
                "escalate",
                "result",
                "resultPath",
                "catch",
                "next",
                "end",
            ],
            later: &["compensate"],
        },
        compile: waiting::human,
    },
    Type {
        name: "SubWorkflow",
        shape: Shape {
            what: "a SubWorkflow state",
            known: &[
                "name",
                "type",
                "description",
                "workflow",
                "parameters",
                "wait",
                "parent_close_policy",
                "result",
                "resultPath",
                "timeout",
                "priority",
                "retries",
                "catch",
                "compensate",
                "next",
                "end",
            ],
            later: &[],
        },
        compile: child::child,
    },
    Type {
        name: "Wait",
        shape: Shape {
            what: "a Wait state",
            known: &[
                "name",
                "type",
                "description",
                "duration",
                "until",
                "next",
                "end",
            ],
            later: &[],
        },
        compile: wait,
    },
    Type {
        name: "Pass",
        shape: Shape {
            what: "a Pass state",
            known: &[
                "name",
                "type",
                "description",
                "parameters",
                "result",
                "resultPath",
                "next",
                "end",
            ],
            later: &[],
        },
        compile: pass,
    },
    Type {
        name: "Succeed",
        shape: Shape {
            what: "a Succeed state",
            known: &["name", "type", "description", "output", "end"],
            later: &[],
        },
        compile: succeed,
    },
    Type {
        name: "Fail",
        shape: Shape {
            what: "a Fail state",
            known: &[
                "name",
                "type",
                "description",
                "error",
                "message",
                "cause",
                "end",
            ],
            later: &[],
        },
        compile: fail,
    },
];

pub(super) const COMPENSATION: Shape = Shape {
    what: "`compensate`",
    known: &["resource", "parameters", "timeout", "retries"],
    later: &["heartbeat"],
};
pub(super) const WAY: Shape = Shape {
    what: "a choice",
    known: &["condition", "next"],
    later: &[],
};
pub(super) const BRANCH: Shape = Shape {
    what: "a branch",
    known: &["name", "description", "start", "states"],
    later: &["output", "timeout"],
};

/// When a Parallel state ends.
pub(super) const STRATEGIES: &[&str] = &["ALL", "ANY", "N_OF_M", "ALL_SETTLED"];

/// Compiles one state.
pub(super) fn compile(
    builder: &mut Builder<'_, '_>,
    place: &Place<'_>,
    item: Named<'_>,
) -> Option<StateKind> {
    let context = &mut *builder.context;
    let found = state_type(context, item)?;
    let alias = found.alias(item.node);
    let fields = match alias {
        // `resource` says what it is, as `type` does.
        Some(found) => context.fields_with(item.node, &found.shape, Some("resource"))?,
        None => context.fields(item.node, &found.shape)?,
    };
    let found = alias.unwrap_or(found);
    if let Some(node) = fields.get("description") {
        context.text(node, "`description`");
    }
    let state = State {
        name: item.name,
        span: item.span,
        fields,
    };
    (found.compile)(builder, place, &state)
}

fn state_type(context: &mut Context<'_>, item: Named<'_>) -> Option<&'static Type> {
    let entries = context.mapping(item.node, "a state")?;
    let Some(entry) = entries.iter().find(|entry| &*entry.key.text == "type") else {
        let keys: Vec<&str> = entries.iter().map(|entry| &*entry.key.text).collect();
        let misspelt = suggest("type", "", &keys).filter(|help| help.starts_with("did"));
        let help = match misspelt {
            Some(_) | None if keys.contains(&"resource") => "add `type: Task`".to_owned(),
            _ => format!("add `type:` with one of {}", type_names().join(", ")),
        };
        context.report(
            Finding::new(
                Code::MissingKey,
                item.span,
                format!("the state {} has no type", quote(item.name)),
            )
            .label("`type` is missing")
            .help(help),
        );
        return None;
    };
    let text = context.text(&entry.value, "`type`")?;
    if let Some(found) = TYPES.iter().find(|found| found.name == text) {
        return Some(found);
    }
    context.report(
        Finding::new(
            Code::UnknownStateType,
            entry.value.span,
            format!("there is no state type {}", quote(text)),
        )
        .maybe_help(suggest(text, "the types are", &type_names())),
    );
    None
}

/// Every type that files may have, and the keys of its states.
pub(super) fn shapes() -> impl Iterator<Item = (&'static str, &'static Shape)> {
    TYPES.iter().map(|found| (found.name, &found.shape))
}

fn type_names() -> Vec<&'static str> {
    TYPES.iter().map(|found| found.name).collect()
}

/// Runs an activity. Without a resource it passes through.
fn task(b: &mut Builder<'_, '_>, place: &Place<'_>, state: &State<'_>) -> Option<StateKind> {
    let fields = &state.fields;
    let Some(node) = fields.get("resource") else {
        if let Some(key) = fields.key("compensate") {
            b.context.report(
                Finding::new(
                    Code::Conflict,
                    key.span,
                    "a Task without `resource` does nothing that can be compensated",
                )
                .help("add `resource`, or leave `compensate` out"),
            );
        }
        return pass(b, place, state);
    };
    let resource = resource(b.context, node);
    let parameters = parameters_of(b.context, fields, resource.as_ref());
    let result = result(b, place, fields);
    let duration = |context: &mut Context<'_>, key: &str| {
        let node = fields.get(key)?;
        context.duration(node, &format!("`{key}`"))
    };
    let timeout_ms = duration(b.context, "timeout");
    let heartbeat_ms = duration(b.context, "heartbeat");
    if let (Some(timeout), Some(heartbeat)) = (timeout_ms, heartbeat_ms)
        && heartbeat > timeout
        && let Some(node) = fields.get("heartbeat")
    {
        b.context.report(
            Finding::new(
                Code::InvalidValue,
                node.span,
                "`heartbeat` is longer than `timeout`, so that it can never be missed",
            )
            .help("a heartbeat is the longest silence of an attempt; make it shorter"),
        );
    }
    let priority = policies::optional_priority(b.context, fields);
    let rate_limit = match fields.get("rate_limit") {
        Some(node) => rates::of_attempts(b.context, node).map(Some),
        None => Some(None),
    };
    let retries = match fields.get("retries") {
        Some(node) => policies::retries(b.context, node),
        None => Some(crate::program::RetryPolicy::default()),
    };
    let catch = policies::catch(b, place, fields.get("catch"));
    let compensate = match fields.get("compensate") {
        Some(node) => compensation(b.context, node).map(Some),
        None => Some(None),
    };
    let next = b.next(place, state.name, fields);
    let parameters = parameters.ok()?;
    let secrets = secrets_of(parameters.as_ref());
    let compensate = compensate?.map(|mut undo| {
        if undo.parameters.is_none() {
            // It is given `{input, output}` of the Task.
            let given = secrets.as_ref().map(|secrets| secrets.under("input"));
            undo.secrets = given.map(Arc::new);
        }
        undo
    });
    Some(StateKind::Task(Task {
        resource: resource?,
        parameters,
        secrets,
        result: result.ok()?,
        timeout_ms,
        heartbeat_ms,
        priority: priority.ok()?,
        rate_limit: rate_limit?,
        retries: retries?,
        catch: catch?,
        compensate,
        next: next?,
    }))
}

/// The input of what a resource names: an activity may be given secrets. A child
/// may not: its input is in its history.
fn parameters_of(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
    resource: Option<&Resource>,
) -> Result<Option<Template>, Reported> {
    context.may_name_secrets = resource.is_none_or(|resource| resource.child.is_none());
    let parameters = optional_template(context, fields, "parameters");
    context.may_name_secrets = false;
    parameters
}

fn secrets_of(parameters: Option<&Template>) -> Option<Arc<Secrets>> {
    let secrets = parameters?.secrets();
    (!secrets.is_empty()).then(|| Arc::new(secrets))
}

/// What undoes a Task.
pub(super) fn compensation(context: &mut Context<'_>, node: &Node) -> Option<Compensation> {
    let errors = context.reporter.errors();
    let fields = context.fields(node, &COMPENSATION)?;
    let resource = context.required(&fields, "resource");
    let resource = resource.and_then(|node| self::resource(context, node));
    let parameters = parameters_of(context, &fields, resource.as_ref());
    let timeout = fields.get("timeout");
    let timeout_ms = timeout.and_then(|node| context.duration(node, "`timeout`"));
    let retries = match fields.get("retries") {
        Some(node) => policies::retries(context, node)?,
        None => crate::program::RetryPolicy::default(),
    };
    if context.reporter.errors() > errors {
        return None;
    }
    let parameters = parameters.ok()?;
    Some(Compensation {
        resource: resource?,
        secrets: secrets_of(parameters.as_ref()),
        parameters,
        timeout_ms,
        retries,
    })
}

fn resource(context: &mut Context<'_>, node: &Node) -> Option<Resource> {
    let text = context.text(node, "`resource`")?;
    match urn::parse(text) {
        Ok(Parsed::Activity(resource)) => Some(resource),
        Ok(Parsed::Workflow { .. }) => {
            let message = "child workflows are not supported here by this version";
            context.report(
                Finding::new(Code::NotSupported, node.span, message)
                    .help("this version runs `urn:cascade:activity:NAME`"),
            );
            None
        }
        Err(error) => {
            let scalar = context.scalar(node, "`resource` is text")?;
            context.syntax(Code::InvalidResource, node, scalar, &error);
            None
        }
    }
}

/// Computes a value, or nothing.
fn pass(b: &mut Builder<'_, '_>, place: &Place<'_>, state: &State<'_>) -> Option<StateKind> {
    let parameters = optional_template(b.context, &state.fields, "parameters");
    let result = result(b, place, &state.fields);
    let next = b.next(place, state.name, &state.fields);
    Some(StateKind::Pass {
        parameters: parameters.ok()?,
        result: result.ok()?,
        next: next?,
    })
}

fn choice(b: &mut Builder<'_, '_>, place: &Place<'_>, state: &State<'_>) -> Option<StateKind> {
    let fields = &state.fields;
    let default = match fields.get("default") {
        Some(node) => b.target(place.scope, node, "default").map(Some),
        None => Some(None),
    };
    let node = b.context.required(fields, "choices")?;
    let items = b.context.sequence(node, "`choices`")?;
    if items.is_empty() || items.len() > MAX_CHOICES {
        let message = format!(
            "a Choice has 1 to {MAX_CHOICES} choices, not {}",
            items.len()
        );
        b.context
            .report(Finding::new(Code::InvalidValue, node.head(), message));
        return None;
    }
    let mut choices = Vec::with_capacity(items.len());
    for item in items {
        let Some(way) = b.context.fields(item, &WAY) else {
            continue;
        };
        let condition = b.context.required(&way, "condition");
        let condition = condition.and_then(|node| b.context.condition(node));
        let next = b.context.required(&way, "next");
        let next = next.and_then(|node| b.target(place.scope, node, "next"));
        if let (Some(condition), Some(next)) = (condition, next) {
            choices.push(Way { condition, next });
        }
    }
    // Whatever was left out was reported.
    (choices.len() == items.len()).then_some(StateKind::Choice {
        choices,
        default: default?,
    })
}

fn parallel(b: &mut Builder<'_, '_>, place: &Place<'_>, state: &State<'_>) -> Option<StateKind> {
    let fields = &state.fields;
    let result = result(b, place, fields);
    let catch = policies::catch(b, place, fields.get("catch"));
    let next = b.next(place, state.name, fields);
    let node = b.context.required(fields, "branches")?;
    let items = named_items(b.context, node, "`branches`", "branch name", |_| true)?;
    if items.is_empty() || items.len() > MAX_BRANCHES {
        let message = format!(
            "a Parallel has 1 to {MAX_BRANCHES} branches, not {}",
            items.len()
        );
        b.context
            .report(Finding::new(Code::InvalidValue, node.head(), message));
        return None;
    }
    let branches: Vec<_> = items.iter().map(|item| branch(b, place, *item)).collect();
    let strategy = completion_strategy(b.context, fields, items.len());
    Some(StateKind::Parallel {
        branches: branches.into_iter().collect::<Option<Vec<_>>>()?,
        strategy: strategy?,
        result: result.ok()?,
        catch: catch?,
        next: next?,
    })
}

/// A branch is a list of states, or one state.
fn branch(b: &mut Builder<'_, '_>, place: &Place<'_>, item: Named<'_>) -> Option<ScopeId> {
    let entries = b.context.mapping(item.node, "a branch")?;
    let has = |key: &str| entries.iter().any(|entry| &*entry.key.text == key);
    if has("type") || !has("states") {
        return Some(b.single_scope(place.id, item));
    }
    if !item.name.is_empty() && !is_name(item.name) {
        b.context.check_name(item.name, item.span, "branch name");
    }
    let fields = b.context.fields(item.node, &BRANCH)?;
    let states = fields.get("states")?;
    b.list_scope(item.name, item.span, Some(place.id), states, &fields)
}

fn completion_strategy(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
    branches: usize,
) -> Option<Strategy> {
    let word = match fields.get("completion_strategy") {
        Some(node) => context.word(node, "`completion_strategy`", STRATEGIES)?,
        None => "ALL",
    };
    if word == "N_OF_M" {
        let node = context.required(fields, "required")?;
        let branches = u32::try_from(branches).unwrap_or(u32::MAX);
        let required = context.integer(node, "`required`", 1, branches)?;
        return Some(Strategy::AtLeast(required));
    }
    if let Some(key) = fields.key("required") {
        context.report(
            Finding::new(
                Code::Conflict,
                key.span,
                format!("the strategy {word} has no `required`"),
            )
            .help("write `completion_strategy: N_OF_M`, or leave `required` out"),
        );
        return None;
    }
    Some(match word {
        "ANY" => Strategy::AtLeast(1),
        "ALL_SETTLED" => Strategy::Settled,
        _ => Strategy::All,
    })
}

fn wait(b: &mut Builder<'_, '_>, place: &Place<'_>, state: &State<'_>) -> Option<StateKind> {
    let fields = &state.fields;
    let why = "a Wait state ends after a duration or at a point in time";
    b.context.exclusive(fields, "duration", "until", why);
    let until = match (fields.get("duration"), fields.get("until")) {
        (Some(node), _) => wait_duration(b.context, node),
        (None, Some(node)) => wait_until(b.context, node),
        (None, None) => {
            b.context.report(
                Finding::new(
                    Code::MissingKey,
                    state.span,
                    "a Wait state needs `duration` or `until`",
                )
                .label("for how long?")
                .help("add `duration: 5m`, or `until:` with a timestamp"),
            );
            None
        }
    };
    let next = b.next(place, state.name, fields);
    Some(StateKind::Wait {
        until: until?,
        next: next?,
    })
}

fn is_expression(node: &Node) -> bool {
    matches!(&node.yaml, Yaml::Scalar(scalar) if scalar.text().contains("{{"))
}

fn wait_duration(context: &mut Context<'_>, node: &Node) -> Option<Until> {
    if is_expression(node) {
        return context.template(node).map(Until::Duration);
    }
    let ms = context.duration(node, "`duration`")?;
    Some(Until::Duration(Template::literal(format!("{ms}ms").into())))
}

fn wait_until(context: &mut Context<'_>, node: &Node) -> Option<Until> {
    if is_expression(node) {
        return context.template(node).map(Until::Timestamp);
    }
    let text = context.text(node, "`until`")?;
    if text.parse::<jiff::Timestamp>().is_err() {
        context.report(
            Finding::new(
                Code::InvalidTimestamp,
                node.span,
                format!("{} is not a timestamp", quote(text)),
            )
            .help("write it as RFC 3339 with its offset: `2030-01-31T09:00:00Z`"),
        );
        return None;
    }
    Some(Until::Timestamp(Template::literal(text.into())))
}

fn succeed(b: &mut Builder<'_, '_>, _: &Place<'_>, state: &State<'_>) -> Option<StateKind> {
    ends(b.context, &state.fields);
    let output = optional_template(b.context, &state.fields, "output");
    Some(StateKind::Succeed {
        output: output.ok()?,
    })
}

fn fail(b: &mut Builder<'_, '_>, _: &Place<'_>, state: &State<'_>) -> Option<StateKind> {
    ends(b.context, &state.fields);
    let message = match b.context.either(&state.fields, "message", "cause") {
        Some(node) => b.context.text_template(node, "`message`").map(Some),
        None => Some(None),
    };
    let node = b.context.required(&state.fields, "error")?;
    let error = b.context.text_template(node, "`error`");
    Some(StateKind::Fail {
        error: error?,
        message: message?,
    })
}

/// `end: true` says what is so anyway; anything else is wrong.
fn ends(context: &mut Context<'_>, fields: &Fields<'_>) {
    if let Some(node) = fields.get("end")
        && context.boolean(node, "`end`") == Some(false)
    {
        context.report(Finding::new(
            Code::InvalidValue,
            node.span,
            "this state always ends its scope",
        ));
    }
}

/// What is there is wrong, and was reported.
pub(super) struct Reported;

/// A value that may be absent.
pub(super) fn optional_template(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
    key: &str,
) -> Result<Option<Template>, Reported> {
    match fields.get(key) {
        Some(node) => context.template(node).map(Some).ok_or(Reported),
        None => Ok(None),
    }
}

/// The path that a state writes to, under either of its names.
pub(super) fn result(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    fields: &Fields<'_>,
) -> Result<Option<Path>, Reported> {
    let Some(node) = b.context.either(fields, "result", "resultPath") else {
        return Ok(None);
    };
    let path = b.context.path(node, "`result`").ok_or(Reported)?;
    b.writes(place.id, &path, node.span);
    Ok(Some(path))
}
