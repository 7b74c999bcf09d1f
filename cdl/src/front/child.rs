//! The `SubWorkflow` state: a Task that runs a workflow.

use std::sync::Arc;

use super::fields::{Context, Fields};
use super::policies;
use super::report::{Finding, quote, suggest};
use super::states::{Place, State, WORKFLOW, compensation, optional_template, result};
use super::urn::{self, Parsed};
use super::workflow::Builder;
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::program::{Child, ParentClose, Resource, RetryPolicy, StateKind, Task};

/// What may become of a child whose parent ends before it.
pub(super) const ON_CLOSE: &[&str] = &["cancel", "abandon"];

/// Runs a workflow as a child.
pub(super) fn child(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    state: &State<'_>,
) -> Option<StateKind> {
    let fields = &state.fields;
    let resource = resource(b.context, fields);
    let parameters = optional_template(b.context, fields, "parameters");
    let result = result(b, place, fields);
    let timeout = fields.get("timeout");
    let timeout_ms = timeout.and_then(|node| b.context.duration(node, "`timeout`"));
    let priority = policies::optional_priority(b.context, fields);
    let retries = match fields.get("retries") {
        Some(node) => policies::retries(b.context, node),
        // Its own Tasks have been tried again; each level would multiply that.
        None => Some(RetryPolicy::ONCE),
    };
    let catch = policies::catch(b, place, fields.get("catch"));
    let compensate = match fields.get("compensate") {
        Some(node) => compensation(b.context, node).map(Some),
        None => Some(None),
    };
    let next = b.next(place, state.name, fields);
    Some(StateKind::Task(Task {
        resource: resource?,
        parameters: parameters.ok()?,
        secrets: None,
        result: result.ok()?,
        timeout_ms,
        heartbeat_ms: None,
        priority: priority.ok()?,
        // How often children start is for their workflow to say: `start_rate_limit`.
        rate_limit: None,
        retries: retries?,
        catch: catch?,
        compensate: compensate?,
        next: next?,
    }))
}

/// Which workflow, and how it is run.
fn resource(context: &mut Context<'_>, fields: &Fields<'_>) -> Option<Resource> {
    let named = match (fields.get("resource"), fields.get("workflow")) {
        (Some(resource), Some(node)) => {
            let says = |text: &str| text.starts_with(WORKFLOW);
            // Any other resource is of a SubWorkflow, and was reported as a key too many.
            if matches!(&resource.yaml, Yaml::Scalar(scalar) if says(scalar.text())) {
                context.report(
                    Finding::new(
                        Code::Conflict,
                        node.span,
                        "`resource` says which workflow, and so does this",
                    )
                    .help("leave `workflow` out, or write `type: SubWorkflow` without `resource`"),
                );
            }
            None
        }
        (Some(node), None) => named(context, node, "`resource`", urn::parse),
        (None, _) => {
            let node = context.required(fields, "workflow");
            node.and_then(|node| {
                named(context, node, "`workflow`", |text| {
                    urn::workflow(text, 0, text)
                })
            })
        }
    };
    let waits = match fields.get("wait") {
        Some(node) => context.boolean(node, "`wait`"),
        None => Some(true),
    };
    let on_close = on_close(context, fields, waits.unwrap_or(true));
    let (application, name) = named?;
    Some(Resource {
        name: name.into(),
        version: None,
        region: None,
        child: Some(Arc::new(Child {
            application: application.map(Into::into),
            waits: waits?,
            on_close: on_close?,
            work: None,
        })),
    })
}

/// The application, if it is said, and the workflow that a node names.
fn named<'t>(
    context: &mut Context<'_>,
    node: &'t Node,
    what: &str,
    parse: fn(&'t str) -> Result<Parsed<'t>, crate::expression::SyntaxError>,
) -> Option<(Option<&'t str>, &'t str)> {
    let text = context.text(node, what)?;
    let Yaml::Scalar(scalar) = &node.yaml else {
        return None; // it has text
    };
    match parse(text) {
        Ok(Parsed::Workflow { application, name }) => {
            if application.is_none() {
                context.children.push((name.to_owned(), node.span));
            }
            Some((application, name))
        }
        // Nobody asks for a child by the name of an activity.
        Ok(Parsed::Activity(_)) => None,
        Err(error) => {
            context.syntax(Code::InvalidResource, node, scalar, &error);
            None
        }
    }
}

/// What becomes of the child if the parent ends before it.
fn on_close(context: &mut Context<'_>, fields: &Fields<'_>, waits: bool) -> Option<ParentClose> {
    let Some(node) = fields.get("parent_close_policy") else {
        return Some(if waits {
            ParentClose::Cancel
        } else {
            ParentClose::Abandon
        });
    };
    let word = context.word(node, "`parent_close_policy`", ON_CLOSE)?;
    match (word, waits) {
        ("cancel", false) => {
            context.report(
                Finding::new(
                    Code::Conflict,
                    node.span,
                    "a child that nobody waits for is not cancelled with its parent",
                )
                .help("leave `wait: false` out, or write `abandon`"),
            );
            None
        }
        ("cancel", true) => Some(ParentClose::Cancel),
        _ => Some(ParentClose::Abandon),
    }
}

/// Reports children that are no workflow of the file.
pub(super) fn check(context: &mut Context<'_>, workflows: &[&str]) {
    for (name, span) in std::mem::take(&mut context.children) {
        if workflows.contains(&&*name) {
            continue;
        }
        let finding = Finding::new(
            Code::UnknownWorkflow,
            span,
            format!("there is no workflow {} in this application", quote(&name)),
        );
        let help = suggest(&name, "the workflows are", workflows);
        context.report(finding.maybe_help(help));
    }
}
