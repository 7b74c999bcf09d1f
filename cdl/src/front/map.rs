//! The Map state.

use super::fields::{Context, Fields, Shape};
use super::policies;
use super::report::Finding;
use super::states::{Place, Reported, State, result};
use super::workflow::Builder;
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::expression::Template;
use crate::machine::limits::{DEFAULT_CONCURRENCY, MAX_CONCURRENCY, MAX_ITEMS};
use crate::program::{Map, ScopeId, Spread, StateKind, Tolerance};
use crate::spread::{self, Format};

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

pub(super) const OBJECT: Shape = Shape {
    what: "`items`",
    known: &["object", "format", "headers", "delimiter", "max_items"],
    later: &[],
};
pub(super) const RESULTS: Shape = Shape {
    what: "`results`",
    known: &["object"],
    later: &[],
};

/// How the items of an object are written.
pub(super) const FORMATS: &[&str] = &["ndjson", "csv", "json"];

/// Where the iterations of a Map run.
pub(super) const MODES: &[&str] = &["inline", "distributed"];

/// What is said of an object with items.
struct Object {
    format: Format,
    max_items: Option<u32>,
}

/// Runs its iterator for each item.
pub(super) fn map(
    b: &mut Builder<'_, '_>,
    place: &Place<'_>,
    state: &State<'_>,
) -> Option<StateKind> {
    let fields = &state.fields;
    let items = b.context.required(fields, "items");
    let items = items.and_then(|node| match &node.yaml {
        Yaml::Mapping(_) => object(b.context, node),
        _ => list(b.context, node).map(|list| (list, None)),
    });
    let spread = match &items {
        Some((_, object)) => spread(b.context, fields, object.as_ref()),
        None => Err(Reported),
    };
    let most = match &spread {
        Ok(Some(spread)) if !spread.whole => spread::MAX_CONCURRENCY,
        _ => MAX_CONCURRENCY,
    };
    let iterator = b.context.required(fields, "iterator");
    let iterator = iterator.and_then(|node| self::iterator(b, place, state, node));
    let max_concurrency = if let Some(node) = fields.get("max_concurrency") {
        let what = "`max_concurrency`";
        b.context.integer(node, what, 1, most)
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
        items: items?.0,
        spread: spread.ok()?.map(Box::new),
        iterator: iterator?,
        max_concurrency: max_concurrency?,
        batch: batch?,
        tolerance: tolerance.ok()?,
        result: result.ok()?,
        catch: catch?,
        next: next?,
    }))
}

/// The name of an object, its form, and how many of its items are taken.
fn object(context: &mut Context<'_>, node: &Node) -> Option<(Template, Option<Object>)> {
    let fields = context.fields(node, &OBJECT)?;
    let name = context.required(&fields, "object");
    let name = name.and_then(|node| named(context, node));
    let max_items = match fields.get("max_items") {
        Some(node) => context.integer(node, "`max_items`", 1, u32::MAX).map(Some),
        None => Some(None),
    };
    let format = context.required(&fields, "format");
    let format = format.and_then(|node| context.word(node, "`format`", FORMATS));
    if let Some(word) = format
        && word != "csv"
    {
        for key in ["headers", "delimiter"] {
            if let Some(key) = fields.key(key) {
                context.report(
                    Finding::new(
                        Code::Conflict,
                        key.span,
                        format!("`{}` is of CSV, and the format is {word}", key.text),
                    )
                    .help("leave it out, or write `format: csv`"),
                );
            }
        }
    }
    let format = match format? {
        "csv" => csv(context, &fields)?,
        "json" => Format::Json,
        _ => Format::Ndjson,
    };
    let object = Object {
        format,
        max_items: max_items?,
    };
    Some((name?, Some(object)))
}

fn csv(context: &mut Context<'_>, fields: &Fields<'_>) -> Option<Format> {
    let headers = match fields.get("headers") {
        Some(node) => {
            let names = context.sequence(node, "`headers`")?;
            let names = names.iter().map(|name| {
                let name = context.text(name, "the name of a column");
                name.map(ToOwned::to_owned)
            });
            Some(names.collect::<Option<Vec<_>>>()?)
        }
        None => None,
    };
    let delimiter = match fields.get("delimiter") {
        Some(node) => {
            let text = context.text(node, "`delimiter`")?;
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(delimiter), None)
                    if delimiter.is_ascii() && !matches!(delimiter, '"' | '\r' | '\n') =>
                {
                    delimiter
                }
                _ => {
                    let message = "`delimiter` is no single ASCII character";
                    context.report(
                        Finding::new(Code::InvalidValue, node.span, message)
                            .help("such as \",\", \";\" or \"\\t\""),
                    );
                    return None;
                }
            }
        }
        None => ',',
    };
    Some(Format::Csv { headers, delimiter })
}

/// The name of an object, or the beginning of names.
fn named(context: &mut Context<'_>, node: &Node) -> Option<Template> {
    let template = context.template(node)?;
    let names = |value: &serde_json::Value| {
        let name = value.as_str().and_then(|name| name.split_once('/'));
        name.is_some_and(|(bucket, _)| !bucket.is_empty())
    };
    if template.as_literal().is_some_and(|value| !names(value)) {
        context.report(
            Finding::new(Code::InvalidValue, node.head(), "this names no object")
                .help("give the bucket and the key: `orders/2026-11.ndjson`"),
        );
        return None;
    }
    Some(template)
}

/// What makes a Map one over more than a history holds.
fn spread(
    context: &mut Context<'_>,
    fields: &Fields<'_>,
    object: Option<&Object>,
) -> Result<Option<Spread>, Reported> {
    let mode = match fields.get("mode") {
        Some(node) => Some(context.word(node, "`mode`", MODES).ok_or(Reported)?),
        None => None,
    };
    let results = match fields.get("results") {
        Some(node) => {
            let found = context.fields(node, &RESULTS).ok_or(Reported)?;
            let name = context.required(&found, "object").ok_or(Reported)?;
            Some(named(context, name).ok_or(Reported)?)
        }
        None => None,
    };
    if let (Some("inline"), Some(key)) = (mode, fields.key("results")) {
        context.report(
            Finding::new(
                Code::Conflict,
                key.span,
                "only a distributed Map writes its results",
            )
            .help("leave `results` out, or `mode: inline`"),
        );
        return Err(Reported);
    }
    if object.is_none() && results.is_none() && mode != Some("distributed") {
        return Ok(None);
    }
    Ok(Some(Spread {
        format: object.map(|object| object.format.clone()),
        max_items: object.and_then(|object| object.max_items),
        whole: mode == Some("inline"),
        results,
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
