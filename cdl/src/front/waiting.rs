//! The states that wait for the outside: `EventTask` and `HumanTask`.

use std::sync::Arc;

use super::fields::{Context, Fields, Shape};
use super::policies;
use super::report::Finding;
use super::schemas;
use super::states::{Place, Reported, State, optional_template, result};
use super::workflow::Builder;
use super::yaml::Node;
use crate::diagnostic::Code;
use crate::program::{Escalation, EventTask, HumanTask, StateKind, Timeout};
use crate::schema::Schema;

/// Most escalations of a `HumanTask`: more people than that have no boss.
pub(super) const MAX_ESCALATIONS: usize = 16;

pub(super) const UI: Shape = Shape {
    what: "`ui`",
    known: &["schema"],
    later: &["title", "form"],
};
pub(super) const ESCALATION: Shape = Shape {
    what: "an escalation",
    known: &["after", "assignee"],
    later: &[],
};

/// Waits for a named signal.
pub(super) fn event(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    state: &State<'_>,
) -> Option<StateKind> {
    let fields = &state.fields;
    let event = b.context.required(fields, "event");
    let event = event.and_then(|node| b.context.name(node, "event name"));
    let timeout = timeout(b, place, fields);
    let result = result(b, place, fields);
    let catch = policies::catch(b, place, fields.get("catch"));
    let next = b.next(place, state.name, fields);
    Some(StateKind::Event(EventTask {
        event: event?.into(),
        timeout: timeout.ok()?,
        result: result.ok()?,
        catch: catch?,
        next: next?,
    }))
}

/// Waits for a person.
pub(super) fn human(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    state: &State<'_>,
) -> Option<StateKind> {
    let fields = &state.fields;
    let assignee = b.context.required(fields, "assignee");
    let assignee = assignee.and_then(|node| b.context.text_template(node, "`assignee`"));
    let parameters = optional_template(b.context, fields, "parameters");
    let schema = match fields.get("ui") {
        Some(node) => ui(b.context, node),
        None => Ok(None),
    };
    let timeout = timeout(b, place, fields);
    let limit = timeout.as_ref().ok().copied().flatten();
    let escalate = escalations(b.context, fields, limit.map(|timeout| timeout.ms));
    let result = result(b, place, fields);
    let catch = policies::catch(b, place, fields.get("catch"));
    let next = b.next(place, state.name, fields);
    Some(StateKind::Human(HumanTask {
        assignee: assignee?,
        parameters: parameters.ok()?,
        schema: schema.ok()?,
        timeout: timeout.ok()?,
        escalate: escalate?,
        result: result.ok()?,
        catch: catch?,
        next: next?,
    }))
}

/// `timeout`, and `on_timeout`, which says where it leads.
fn timeout(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    fields: &Fields<'_>,
) -> Result<Option<Timeout>, Reported> {
    let next = match fields.get("on_timeout") {
        Some(node) => b.target(place.scope, node, "on_timeout").map(Some),
        None => Some(None),
    };
    let Some(node) = fields.get("timeout") else {
        if let Some(key) = fields.key("on_timeout") {
            b.context.report(
                Finding::new(Code::MissingKey, key.span, "`on_timeout` needs a `timeout`")
                    .help("add `timeout:`, or leave `on_timeout` out"),
            );
            return Err(Reported);
        }
        return Ok(None);
    };
    let ms = b.context.duration(node, "`timeout`").ok_or(Reported)?;
    let next = next.ok_or(Reported)?;
    Ok(Some(Timeout { ms, next }))
}

/// What the answer has to look like.
fn ui(context: &mut Context<'_>, node: &Node) -> Result<Option<Arc<Schema>>, Reported> {
    let fields = context.fields(node, &UI).ok_or(Reported)?;
    let Some(node) = fields.get("schema") else {
        return Ok(None);
    };
    schemas::read(context, node).map(Some)
}

/// Who is asked, and when, if nobody answers.
fn escalations(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
    timeout_ms: Option<u64>,
) -> Option<Vec<Escalation>> {
    let Some(node) = fields.get("escalate") else {
        return Some(Vec::new());
    };
    let items = context.sequence(node, "`escalate`")?;
    if items.len() > MAX_ESCALATIONS {
        let count = items.len();
        let message = format!("a HumanTask escalates at most {MAX_ESCALATIONS} times, not {count}");
        context.report(Finding::new(Code::InvalidValue, node.head(), message));
        return None;
    }
    let mut escalations: Vec<Escalation> = Vec::with_capacity(items.len());
    for item in items {
        let Some(fields) = context.fields(item, &ESCALATION) else {
            continue;
        };
        let assignee = context.required(&fields, "assignee");
        let assignee = assignee.and_then(|node| context.text_template(node, "`assignee`"));
        let Some(node) = context.required(&fields, "after") else {
            continue;
        };
        let after_ms = context.duration(node, "`after`");
        let (Some(after_ms), Some(assignee)) = (after_ms, assignee) else {
            continue;
        };
        let is_late = timeout_ms.is_some_and(|limit| after_ms >= limit);
        if is_late
            || escalations
                .last()
                .is_some_and(|last| last.after_ms >= after_ms)
        {
            let finding = Finding::new(
                Code::InvalidValue,
                node.span,
                "this escalation comes too late, or before the one above",
            );
            context.report(finding.help(
                "`after` counts from the start of the state: each is longer than the one above, \
                 and shorter than `timeout`",
            ));
            continue;
        }
        escalations.push(Escalation { after_ms, assignee });
    }
    (escalations.len() == items.len()).then_some(escalations)
}
