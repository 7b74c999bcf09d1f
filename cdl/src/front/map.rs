//! The Map state.

use super::fields::{Context, Fields, Shape};
use super::policies;
use super::report::Finding;
use super::states::{Place, Reported, State, result};
use super::workflow::Builder;
use super::yaml::Node;
use crate::diagnostic::Code;
use crate::expression::Template;
use crate::machine::limits::{DEFAULT_CONCURRENCY, MAX_CONCURRENCY, MAX_ITEMS};
use crate::program::{Map, ScopeId, StateKind, Tolerance};

pub(super) const ITERATOR: Shape = Shape {
    what: "an `iterator`",
    known: &["description", "start", "states"],
    later: &[],
};
pub(super) const BATCH: Shape = Shape {
    what: "`batch`",
    known: &["size"],
    later: &["max_bytes", "input"],
};

/// Runs its iterator for each item.
pub(super) fn map(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    state: &State<'_>,
) -> Option<StateKind> {
    let fields = &state.fields;
    let items = b.context.required(fields, "items");
    let items = items.and_then(|node| list(b.context, node));
    let iterator = b.context.required(fields, "iterator");
    let iterator = iterator.and_then(|node| self::iterator(b, place, state, node));
    let max_concurrency = if let Some(node) = fields.get("max_concurrency") {
        let what = "`max_concurrency`";
        b.context.integer(node, what, 1, MAX_CONCURRENCY)
    } else {
        unbounded(b.context, state);
        Some(DEFAULT_CONCURRENCY)
    };
    let batch = match fields.get("batch") {
        Some(node) => batch(b.context, node).map(Some),
        None => Some(None),
    };
    let tolerance = tolerance(b.context, fields);
    let result = result(b, place, fields);
    let catch = policies::catch(b, place, fields.get("catch"));
    let next = b.next(place, state.name, fields);
    Some(StateKind::Map(Map {
        items: items?,
        iterator: iterator?,
        max_concurrency: max_concurrency?,
        batch: batch?,
        tolerance: tolerance.ok()?,
        result: result.ok()?,
        catch: catch?,
        next: next?,
    }))
}

/// A list, or an expression that may give one.
fn list(context: &mut Context<'_>, node: &Node) -> Option<Template> {
    let template = context.template(node)?;
    if template.as_literal().is_some_and(|value| !value.is_array()) {
        context.report(
            Finding::new(Code::InvalidValue, node.head(), "`items` is not a list")
                .help("give a list, or an expression: \"{{ $.orders }}\""),
        );
        return None;
    }
    Some(template)
}

fn iterator(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    state: &State<'_>,
    node: &Node,
) -> Option<ScopeId> {
    let fields = b.context.fields(node, &ITERATOR)?;
    if let Some(node) = fields.get("description") {
        b.context.text(node, "`description`");
    }
    let states = b.context.required(&fields, "states")?;
    b.context.iterators += 1;
    let scope = b.list_scope(state.name, state.span, Some(place.id), states, &fields);
    b.context.iterators -= 1;
    b.iterators.extend(scope.map(|scope| scope.0 as usize));
    scope
}

fn unbounded(context: &mut Context<'_>, state: &State<'_>) {
    context.report(
        Finding::new(
            Code::UnboundedMap,
            state.span,
            "this Map does not say how many iterations run at a time",
        )
        .label(format!(
            "up to {DEFAULT_CONCURRENCY}, whatever they call can bear"
        ))
        .help("add `max_concurrency:`"),
    );
}

fn batch(context: &mut Context<'_>, node: &Node) -> Option<u32> {
    let fields = context.fields(node, &BATCH)?;
    let node = context.required(&fields, "size")?;
    context.integer(node, "`size`", 1, MAX_ITEMS)
}

fn tolerance(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
) -> Result<Option<Tolerance>, Reported> {
    let errors = context.reporter.errors();
    let count = fields.get("tolerated_failure_count");
    let percentage = fields.get("tolerated_failure_percentage");
    if count.is_none() && percentage.is_none() {
        return Ok(None);
    }
    let tolerance = Tolerance {
        count: count.and_then(|node| {
            let what = "`tolerated_failure_count`";
            context.integer(node, what, 0, MAX_ITEMS)
        }),
        percentage: percentage.and_then(|node| {
            let what = "`tolerated_failure_percentage`";
            context.number(node, what, 0.0, 100.0)
        }),
    };
    if context.reporter.errors() > errors {
        return Err(Reported);
    }
    Ok(Some(tolerance))
}
