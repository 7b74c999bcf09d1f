//! The outermost level of a file: the envelope, and its shorthands.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fields::{Context, Shape, is_name};
use super::report::{Finding, quote, suggest};
use super::schedules::{self, Schedules};
use super::text::Span;
use super::yaml::{Key, Node, Yaml};
use super::{asl, child, schemas, workflow};
use crate::diagnostic::Code;
use crate::program::{Application, Program};

pub(super) const API_VERSION: &str = "cascade.io/v1";
pub(super) const KIND: &str = "Application";

/// Longest label or annotation, in bytes, so that an application's description stays a description.
const MAX_LABEL_BYTES: usize = 4 * 1024;

pub(super) const ENVELOPE: Shape = Shape {
    what: "an application",
    known: &["apiVersion", "kind", "metadata", "spec"],
    later: &[],
};
pub(super) const METADATA: Shape = Shape {
    what: "`metadata`",
    known: &["name", "namespace", "labels", "annotations"],
    later: &[],
};
pub(super) const SPEC: Shape = Shape {
    what: "`spec`",
    known: &["workflows", "schedules", "schemas"],
    later: &["cache", "activities", "messaging"],
};
pub(super) const ONLY_WORKFLOWS: Shape = Shape {
    what: "a file of workflows",
    known: &["workflows", "schedules", "schemas"],
    later: &["cache", "activities", "messaging"],
};

/// Whether there is nothing in the file.
pub(super) fn is_empty(root: &Node) -> bool {
    matches!(&root.yaml, Yaml::Scalar(scalar) if scalar.value() == Ok(serde_json::Value::Null))
}

/// Reads the file's root.
pub(super) fn application(
    context: &mut Context<'_>,
    root: &Node,
    file: &str,
) -> Option<Application> {
    let entries = context.mapping(root, "a file")?;
    let has = |key: &str| entries.iter().any(|entry| &*entry.key.text == key);
    if ENVELOPE.known.iter().any(|key| has(key)) {
        return envelope(context, root);
    }
    let name = name_of_file(file);
    let (workflows, schedules) = if has("states") && !has("workflows") {
        (only_states(context, root, &name)?, Schedules::new())
    } else {
        let fields = context.fields(root, &ONLY_WORKFLOWS)?;
        if let Some(node) = fields.get("schemas") {
            schemas::declare(context, node);
        }
        let Some(node) = fields.get("workflows") else {
            context.report(
                Finding::new(
                    Code::NothingToRun,
                    root.head(),
                    "the file declares nothing to run",
                )
                .help("start it with `apiVersion: cascade.io/v1`, `workflows:` or `states:`"),
            );
            return None;
        };
        declared(context, node, fields.get("schedules"))?
    };
    Some(Application {
        name,
        namespace: "default".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        workflows,
        schedules,
    })
}

/// Reads a definition in ASL: an application of one workflow, both named after
/// the file.
pub(super) fn definition(
    context: &mut Context<'_>,
    root: &Node,
    file: &str,
    options: &asl::AslOptions,
) -> Option<Application> {
    let name = name_of_file(file);
    let program = asl::program(context, root, &name, options)?;
    Some(Application {
        workflows: BTreeMap::from([(name.clone(), Arc::new(program))]),
        name,
        namespace: "default".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        schedules: Schedules::new(),
    })
}

fn envelope(context: &mut Context<'_>, root: &Node) -> Option<Application> {
    let fields = context.fields(root, &ENVELOPE)?;
    for (key, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        if let Some(node) = context.required(&fields, key) {
            expect_word(context, node, key, expected);
        }
    }
    let metadata = context.required(&fields, "metadata");
    let metadata = metadata.and_then(|node| context.fields(node, &METADATA));
    let mut name = None;
    let mut namespace = Some("default");
    let mut labels = BTreeMap::new();
    let mut annotations = BTreeMap::new();
    if let Some(fields) = metadata {
        name = context.required(&fields, "name");
        if let Some(node) = fields.get("namespace") {
            namespace = context.name(node, "namespace");
        }
        if let Some(node) = fields.get("labels") {
            labels = texts(context, node, "`labels`");
        }
        if let Some(node) = fields.get("annotations") {
            annotations = texts(context, node, "`annotations`");
        }
    }
    let name = name.and_then(|node| context.name(node, "application name"));
    let spec = context.required(&fields, "spec");
    let spec = spec.and_then(|node| context.fields(node, &SPEC));
    if let Some(node) = spec.as_ref().and_then(|fields| fields.get("schemas")) {
        schemas::declare(context, node);
    }
    let spec = spec?;
    let node = context.required(&spec, "workflows")?;
    let (workflows, schedules) = declared(context, node, spec.get("schedules"))?;
    Some(Application {
        name: name?.to_owned(),
        namespace: namespace?.to_owned(),
        labels,
        annotations,
        workflows,
        schedules,
    })
}

fn expect_word(context: &mut Context<'_>, node: &Node, key: &str, expected: &str) {
    let Some(text) = context.text(node, &format!("`{key}`")) else {
        return;
    };
    if text != expected {
        context.report(
            Finding::new(
                Code::UnknownVersion,
                node.span,
                format!("unknown `{key}` {}", quote(text)),
            )
            .help(format!("this version reads `{key}: {expected}`")),
        );
    }
}

/// A mapping of text to text.
fn texts(context: &mut Context<'_>, node: &Node, what: &str) -> BTreeMap<String, String> {
    let entries = context.mapping(node, what).unwrap_or_default();
    let mut texts = BTreeMap::new();
    for entry in entries {
        let what = format!("the value of {}", quote(&entry.key.text));
        let Some(text) = context.text(&entry.value, &what) else {
            continue;
        };
        if text.len() > MAX_LABEL_BYTES {
            context.report(Finding::new(
                Code::TooBig,
                entry.value.span,
                format!("{what} is longer than {MAX_LABEL_BYTES} bytes"),
            ));
        }
        texts.insert(entry.key.text.to_string(), text.to_owned());
    }
    texts
}

pub(super) type Workflows = BTreeMap<String, Arc<Program>>;

/// A file that is one workflow, named after the file unless it has a name.
fn only_states(context: &mut Context<'_>, root: &Node, file: &str) -> Option<Workflows> {
    let entries = context.mapping(root, "a file")?;
    let given = entries.iter().find(|entry| &*entry.key.text == "name");
    let (name, span) = match given.map(|entry| (&entry.value, entry.value.span)) {
        Some((node, span)) => (context.name(node, "workflow name")?, span),
        None => (file, root.head()),
    };
    let program = workflow::compile(context, root, name, span);
    child::check(context, &[name]);
    program.map(|program| BTreeMap::from([(program.name.clone(), Arc::new(program))]))
}

/// The workflows that a file declares.
pub(super) struct Declared<'t> {
    /// Their names; none if they cannot be told.
    pub(super) names: Vec<&'t str>,
    /// All of them, if nothing is wrong with any.
    pub(super) programs: Option<Workflows>,
}

/// The workflows and what starts them.
fn declared(
    context: &mut Context<'_>,
    node: &Node,
    schedules: Option<&Node>,
) -> Option<(Workflows, Schedules)> {
    let workflows = workflows(context, node);
    let schedules = match schedules {
        Some(node) => schedules::read(context, node, &workflows),
        None => Some(Schedules::new()),
    };
    Some((workflows.programs?, schedules?))
}

fn workflows<'t>(context: &mut Context<'_>, node: &'t Node) -> Declared<'t> {
    let items = named_items(context, node, "`workflows`", "workflow name", is_name);
    if items.as_ref().is_some_and(Vec::is_empty) {
        context.report(
            Finding::new(Code::NothingToRun, node.span, "there are no workflows")
                .help("add one with a list of `states:`"),
        );
    }
    let items = items.unwrap_or_default();
    let names: Vec<_> = items.iter().map(|item| item.name).collect();
    let mut programs = Workflows::new();
    let mut complete = !items.is_empty();
    for item in items {
        match workflow::compile(context, item.node, item.name, item.span) {
            Some(program) => {
                programs.insert(item.name.to_owned(), Arc::new(program));
            }
            None => complete = false,
        }
    }
    child::check(context, &names);
    let programs = complete.then_some(programs);
    Declared { names, programs }
}

/// An item of a list of named things, or of a mapping from names to things.
#[derive(Clone, Copy)]
pub(super) struct Named<'t> {
    pub(super) name: &'t str,
    /// Where the name stands.
    pub(super) span: Span,
    pub(super) node: &'t Node,
}

/// The entries of a mapping from names to things.
pub(super) fn named_mapping<'t>(
    context: &mut Context<'_>,
    node: &'t Node,
    what: &str,
    kind: &str,
) -> Option<Vec<Named<'t>>> {
    context.mapping(node, what)?;
    named_items(context, node, what, kind, is_name)
}

/// The items of a list in which each has a `name`, or of a mapping whose keys
/// are the names. Items without a usable name or with that of an earlier one are reported
/// and, with a name that cannot be mistaken for one, still looked at.
pub(super) fn named_items<'t>(
    context: &mut Context<'_>,
    node: &'t Node,
    what: &str,
    kind: &str,
    is_valid: fn(&str) -> bool,
) -> Option<Vec<Named<'t>>> {
    let mut items = Vec::new();
    match &node.yaml {
        Yaml::Mapping(entries) => {
            for entry in entries {
                let Key { text, span } = &entry.key;
                items.push(Named {
                    name: text,
                    span: *span,
                    node: &entry.value,
                });
            }
        }
        Yaml::Sequence(nodes) => {
            for node in nodes {
                items.extend(named_by_itself(context, node, kind));
            }
            if items.is_empty() && !nodes.is_empty() {
                // Whatever is there was reported.
                return None;
            }
        }
        _ => return context.wrong_type(node, &format!("{what} is a list or a mapping")),
    }
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    for item in &items {
        // Reported before.
        if item.name.is_empty() {
            continue;
        }
        if !is_valid(item.name) {
            context.report(
                Finding::new(
                    Code::InvalidName,
                    item.span,
                    format!("{} is not a valid {kind}", quote(item.name)),
                )
                .help(name_help(kind)),
            );
        }
        match seen.get(item.name) {
            Some(first) => {
                let line = context.text.position(first.start).line;
                context.report(
                    Finding::new(
                        Code::DuplicateName,
                        item.span,
                        format!("the {kind} {} is taken", quote(item.name)),
                    )
                    .label(format!("first used in line {line}"))
                    .related(*first)
                    .help("names are unique among their neighbours; choose another one"),
                );
            }
            None => {
                seen.insert(item.name, item.span);
            }
        }
    }
    Some(items)
}

fn name_help(kind: &str) -> &'static str {
    if kind == "state name" {
        "1 to 80 printable characters, without a space at either end"
    } else {
        "1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit"
    }
}

fn named_by_itself<'t>(context: &mut Context<'_>, node: &'t Node, kind: &str) -> Option<Named<'t>> {
    let entries = context.mapping(node, "an item of this list")?;
    let entry = entries.iter().find(|entry| &*entry.key.text == "name");
    let Some(entry) = entry else {
        let keys: Vec<&str> = entries.iter().map(|entry| &*entry.key.text).collect();
        let finding = Finding::new(
            Code::MissingKey,
            node.head(),
            format!("the {kind} is missing"),
        )
        .label("`name` is missing here");
        // `- Charge: {type: Task}` reads like a name.
        let finding = match keys.as_slice() {
            [only] => finding.help(format!("write `name: {only}` and the other keys below it")),
            _ => finding.maybe_help(
                suggest("name", "its keys are", &keys).filter(|help| help.starts_with("did")),
            ),
        };
        context.report(finding);
        return Some(Named {
            name: "",
            span: node.head(),
            node,
        });
    };
    let name = context
        .text(&entry.value, &format!("the {kind}"))
        .unwrap_or("");
    Some(Named {
        name,
        span: entry.value.span,
        node,
    })
}

/// A valid name made from that of the file: `examples/Order processing.cdl.yaml`
/// gives `Order-processing`.
fn name_of_file(file: &str) -> String {
    let base = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let mut stem = base;
    for suffix in [".yaml", ".yml", ".json", ".cdl", ".asl"] {
        stem = stem.strip_suffix(suffix).unwrap_or(stem);
    }
    let name: String = stem
        .chars()
        .map(|c| {
            let fits = c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if fits { c } else { '-' }
        })
        .collect();
    let name = name
        .trim_start_matches(['-', '_', '.'])
        .trim_end_matches('-');
    let name: String = name.chars().take(64).collect();
    if name.is_empty() {
        "application".into()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_without_a_name_is_named_after_its_file() {
        for (file, expected) in [
            ("orders.yaml", "orders"),
            ("a/b/Order processing.cdl.yml", "Order-processing"),
            (r"c:\flows\x.json", "x"),
            ("-", "application"),
            ("", "application"),
            ("日本.yaml", "application"),
            (".hidden.yaml", "hidden"),
        ] {
            assert_eq!(name_of_file(file), expected, "{file}");
            assert!(is_name(&name_of_file(file)));
        }
    }
}
