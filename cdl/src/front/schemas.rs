//! JSON Schemas: those of the file that have a name, and those of states.

use std::sync::Arc;

use serde_json::Value;

use super::document::named_mapping;
use super::fields::Context;
use super::report::{Finding, quote, suggest};
use super::states::Reported;
use super::yaml::{Node, Yaml};
use crate::diagnostic::Code;
use crate::schema::{MAX_PATTERNS, Schema};

/// What the URN of a schema begins with; its name in the file follows.
const URN: &str = "urn:cascade:schema:";

/// Most regular expressions of all schemas of a file: each takes up to a
/// millisecond to read.
const MAX_FILE_PATTERNS: usize = 16 * MAX_PATTERNS;

/// Reads `schemas`, so that states can name them.
pub(super) fn declare(context: &mut Context<'_>, node: &Node) {
    let Some(named) = named_mapping(context, node, "`schemas`", "schema name") else {
        return;
    };
    for item in named {
        let schema = inline(context, item.node).ok();
        context.schemas.insert(item.name.to_owned(), schema);
    }
}

/// The schema that a state or a workflow gives, or names.
pub(super) fn read(context: &mut Context<'_>, node: &Node) -> Result<Arc<Schema>, Reported> {
    let Yaml::Scalar(_) = &node.yaml else {
        return inline(context, node);
    };
    let text = context.text(node, "`schema`").ok_or(Reported)?;
    let Some(name) = text.strip_prefix(URN) else {
        let message = "`schema` is neither a JSON Schema nor the URN of one";
        context.report(
            Finding::new(Code::InvalidValue, node.head(), message).help(format!(
                "write the schema as a mapping, or `{URN}NAME` for one that stands under `schemas:`"
            )),
        );
        return Err(Reported);
    };
    if let Some(schema) = context.schemas.get(name) {
        return schema.clone().ok_or(Reported);
    }
    let names: Vec<&str> = context.schemas.keys().map(String::as_str).collect();
    let help = suggest(name, "the schemas of this file are", &names)
        .unwrap_or_else(|| format!("add `schemas: {{ {name}: ... }}` beside `workflows:`"));
    let message = format!("the file has no schema {}", quote(name));
    context.report(Finding::new(Code::InvalidValue, node.span, message).help(help));
    Err(Reported)
}

fn inline(context: &mut Context<'_>, node: &Node) -> Result<Arc<Schema>, Reported> {
    let template = context.template(node).ok_or(Reported)?;
    let refused = match template.as_literal() {
        Some(source @ Value::Object(_)) => match Schema::new(source.clone()) {
            Ok(schema) if context.patterns + schema.patterns() > MAX_FILE_PATTERNS => {
                format!(
                    "the schemas of a file have at most {MAX_FILE_PATTERNS} regular expressions"
                )
            }
            Ok(schema) => {
                context.patterns += schema.patterns();
                return Ok(Arc::new(schema));
            }
            Err(error) => error.to_string(),
        },
        _ => "a schema is a mapping without expressions".to_owned(),
    };
    context.report(
        Finding::new(Code::InvalidValue, node.head(), refused)
            .help("docs/cdl.md lists the keywords of JSON Schema that there are"),
    );
    Err(Reported)
}
