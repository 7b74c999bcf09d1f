//! What a state does about errors: retries and handlers.

use super::fields::{Context, Fields, Shape};
use super::report::{Finding, quote};
use super::states::{Place, Reported, result};
use super::workflow::Builder;
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::errors;
use crate::program::{Catch, Jitter, Priority, RetryPolicy};

/// Most attempts: each is an event of the history.
pub(super) const MAX_ATTEMPTS: u32 = 1_000;

/// Greatest factor between two pauses; the second pause is beyond any use then.
pub(super) const MAX_MULTIPLIER: f64 = 1_000.0;

/// How chance shortens pauses.
pub(super) const JITTERS: &[&str] = &["none", "full", "equal"];

/// Longest error name, in bytes.
const MAX_ERROR_NAME_LEN: usize = 128;

pub(super) const RETRIES: Shape = Shape {
    what: "`retries`",
    known: &["max_attempts", "backoff"],
    later: &["errors", "non_retryable"],
};
pub(super) const BACKOFF: Shape = Shape {
    what: "`backoff`",
    known: &["initial_interval", "max_interval", "multiplier", "jitter"],
    later: &[],
};
pub(super) const HANDLER: Shape = Shape {
    what: "a `catch` entry",
    known: &["error", "result", "resultPath", "next"],
    later: &[],
};

/// Reads `retries`; what is not given is as in the default policy.
pub(super) fn retries(context: &mut Context<'_>, node: &Node) -> Option<RetryPolicy> {
    let errors = context.reporter.errors();
    let mut policy = RetryPolicy::default();
    let fields = context.fields(node, &RETRIES)?;
    if let Some(node) = fields.get("max_attempts") {
        policy.max_attempts = context
            .integer(node, "`max_attempts`", 1, MAX_ATTEMPTS)
            .unwrap_or_default();
    }
    let backoff = fields.get("backoff");
    if let Some(fields) = backoff.and_then(|node| context.fields(node, &BACKOFF)) {
        let mut longest = None;
        if let Some(node) = fields.get("initial_interval") {
            let initial = context.duration(node, "`initial_interval`");
            policy.initial_interval_ms = initial.unwrap_or_default();
            // An explicit first pause lifts the longest one where that is not given.
            policy.max_interval_ms = policy.max_interval_ms.max(policy.initial_interval_ms);
        }
        if let Some(node) = fields.get("max_interval") {
            longest = context.duration(node, "`max_interval`");
            policy.max_interval_ms = longest.unwrap_or_default();
        }
        if let Some(node) = fields.get("multiplier") {
            let multiplier = context.number(node, "`multiplier`", 1.0, MAX_MULTIPLIER);
            policy.multiplier = multiplier.unwrap_or(1.0);
        }
        if let Some(node) = fields.get("jitter") {
            policy.jitter = match context.word(node, "`jitter`", JITTERS) {
                Some("full") => Jitter::Full,
                Some("equal") => Jitter::Equal,
                _ => Jitter::None,
            };
        }
        if let Some(node) = fields.get("max_interval")
            && longest.is_some_and(|longest| longest < policy.initial_interval_ms)
        {
            context.report(
                Finding::new(
                    Code::InvalidValue,
                    node.span,
                    "`max_interval` is shorter than `initial_interval`",
                )
                .help("the first pause is `initial_interval`, the longest `max_interval`"),
            );
        }
    }
    (context.reporter.errors() == errors).then_some(policy)
}

/// Reads `priority`.
pub(super) fn priority(context: &mut Context<'_>, node: &Node) -> Option<Priority> {
    let most = u32::from(Priority::COUNT);
    let number = context.integer(node, "`priority`", 1, most)?;
    Priority::try_from(u8::try_from(number).ok()?).ok()
}

/// Reads `priority`, if it is there.
pub(super) fn optional_priority(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
) -> Result<Option<Priority>, Reported> {
    match fields.get("priority") {
        Some(node) => priority(context, node).map(Some).ok_or(Reported),
        None => Ok(None),
    }
}

/// Reads `catch`: a list of handlers.
pub(super) fn catch(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    node: Option<&Node>,
) -> Option<Vec<Catch>> {
    let Some(node) = node else {
        return Some(Vec::new());
    };
    let items = b.context.sequence(node, "`catch`")?;
    let mut handlers = Vec::with_capacity(items.len());
    let mut before = Before::default();
    for item in items {
        let Some(fields) = b.context.fields(item, &HANDLER) else {
            continue;
        };
        let error = b.context.required(&fields, "error");
        let errors = error.and_then(|node| error_names(b.context, node, &mut before));
        let result = result(b, place, &fields);
        let next = b.context.required(&fields, "next");
        let next = next.and_then(|node| b.target(place.scope, node, "next"));
        if let (Some(errors), Ok(result), Some(next)) = (errors, result, next) {
            handlers.push(Catch {
                errors,
                result,
                next,
            });
        }
    }
    (handlers.len() == items.len()).then_some(handlers)
}

/// What earlier entries of a `catch` handle.
#[derive(Default)]
struct Before {
    names: Vec<String>,
}

impl Before {
    fn handles_all(&self) -> bool {
        self.handles("*")
    }

    fn handles(&self, name: &str) -> bool {
        self.names
            .iter()
            .any(|before| errors::handles(before, name))
    }
}

/// A name, a list of names, or `*`.
fn error_names(context: &mut Context<'_>, node: &Node, before: &mut Before) -> Option<Vec<String>> {
    let nodes = match &node.yaml {
        Yaml::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if nodes.is_empty() {
        context.report(
            Finding::new(Code::InvalidValue, node.span, "`error` names no error")
                .help("name an error, or `\"*\"` for any"),
        );
        return None;
    }
    let mut names = Vec::new();
    let mut complete = true;
    for node in nodes {
        let Some(name) = error_name(context, node) else {
            complete = false;
            continue;
        };
        names.push(name.to_owned());
    }
    if complete && names.iter().all(|name| before.handles(name)) {
        let why = if before.handles_all() {
            "an earlier entry catches `*`"
        } else {
            "earlier entries catch these errors"
        };
        context.report(
            Finding::new(
                Code::CatchNeverMatches,
                node.head(),
                "this entry can never match",
            )
            .label(why)
            .help("entries are tried in order: put the more specific ones first"),
        );
    }
    before.names.extend(names.iter().cloned());
    complete.then_some(names)
}

fn error_name<'t>(context: &mut Context<'_>, node: &'t Node) -> Option<&'t str> {
    let name = context.text(node, "an error name")?;
    let fits = name.len() <= MAX_ERROR_NAME_LEN
        && !name.contains("{{")
        && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if !fits {
        context.report(
            Finding::new(
                Code::InvalidName,
                node.span,
                format!("{} is not an error name", quote(name)),
            )
            .help("error names are single words, as in `PaymentDeclined`; `\"*\"` is any"),
        );
    }
    fits.then_some(name)
}
