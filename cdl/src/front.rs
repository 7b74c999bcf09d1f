//! The front end of CDL: from a file to an [`Application`].
//!
//! Works in three steps, each of which reports all that it finds: [`yaml`]
//! reads the file into a tree of nodes that know their place, [`document`] finds the
//! workflows in it, [`workflow`] and [`states`] compile them. Lints look at
//! what came out. Files are written by tenants, so every step is bounded and
//! none panics.
//!
//! The second front end, [`asl`], shares the tree and the reporting, and produces
//! the same [`crate::program::Program`]: a file with `StartAt` or `States` at its root
//! is a definition in the Amazon States Language. JSON has a reader of its own.

use std::collections::BTreeMap;

use crate::asl::Bindings;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::program::Application;

mod asl;
mod bindings;
mod child;
mod collisions;
mod document;
pub(crate) mod duration;
pub mod editor;
mod fields;
mod guard;
mod json;
mod json_schema;
mod lints;
mod map;
mod policies;
mod rates;
mod report;
mod scalar;
mod schedules;
mod schemas;
mod states;
mod text;
mod urn;
mod values;
mod waiting;
mod workflow;
mod yaml;

pub use asl::AslOptions;
pub(crate) use duration::show as show_duration;
use fields::Context;
pub use json_schema::json_schema;
use report::{Finding, Reporter};
use text::{Span, Text};
use yaml::Node;

/// Largest file, in bytes: a hundred times the largest that people write, and
/// what a machine writes beyond it belongs into several files.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// UTF-8's byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A file to read.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its path, as diagnostics show it; a shorthand takes its name from it.
    pub name: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// What came of a file.
#[derive(Debug)]
pub struct Parsed {
    /// What it declares; `None` if there is any error.
    pub application: Option<Application>,
    /// What is wrong or doubtful, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more diagnostics there would be.
    pub omitted: usize,
}

impl Parsed {
    /// Number of reported errors.
    pub fn errors(&self) -> usize {
        let errors = self.diagnostics.iter();
        errors.filter(|d| d.severity == Severity::Error).count()
    }
}

/// Reads a CDL file.
///
/// Never panics and never takes long, whatever is in it: a file of unknown
/// origin is safe to read.
pub fn parse(source: &Source<'_>) -> Parsed {
    parse_with(source, &AslOptions::default())
}

/// What came of a file of bindings.
#[derive(Debug)]
pub struct ParsedBindings {
    /// What it says; `None` if there is any error.
    pub bindings: Option<Bindings>,
    /// What is wrong, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more diagnostics there would be.
    pub omitted: usize,
}

/// Reads a file that says which activities stand behind the resources of a
/// definition in the States Language: a mapping, in YAML or JSON, from ARNs, in
/// which `*` stands for anything, to URNs of activities, or to `{activity, envelope}`.
///
/// As safe to use as [`parse`].
pub fn parse_bindings(source: &Source<'_>) -> ParsedBindings {
    let read = |context: &mut Context<'_>| {
        let root = tree(context)?;
        bindings::read(context, &root)
    };
    let (bindings, diagnostics, omitted) = with_context(source, read);
    ParsedBindings {
        bindings,
        diagnostics,
        omitted,
    }
}

/// [`parse`], saying what stands behind the resources of an ASL definition.
pub fn parse_with(source: &Source<'_>, options: &AslOptions) -> Parsed {
    let compile = |context: &mut Context<'_>| compile(source, context, options);
    let (application, diagnostics, omitted) = with_context(source, compile);
    Parsed {
        application,
        diagnostics,
        omitted,
    }
}

/// What a definition in the States Language says to people, and fields that say
/// nothing to the machine; by state, their names being unique in a definition.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// `Comment` of the definition.
    pub(crate) comment: Option<String>,
    /// `Comment` of states.
    pub(crate) comments: BTreeMap<String, String>,
    /// Fields of states without an effect here, but with one on AWS.
    pub(crate) idle: BTreeMap<String, Vec<&'static str>>,
}

/// Reads what [`Notes`] holds of a file without errors.
pub(crate) fn asl_notes(source: &Source<'_>) -> Notes {
    let read = |context: &mut Context<'_>| {
        let root = tree(context)?;
        let bound = asl::bound_definition(&root);
        Some(asl::notes(bound.map_or(&root, |bound| bound.definition)))
    };
    let (notes, ..) = with_context(source, read);
    notes.unwrap_or_default()
}

/// Has a file read, if it is text; what comes of it only if nothing is wrong.
fn with_context<T>(
    source: &Source<'_>,
    read: impl FnOnce(&mut Context<'_>) -> Option<T>,
) -> (Option<T>, Vec<Diagnostic>, usize) {
    let bytes = source.bytes.strip_prefix(BOM).unwrap_or(source.bytes);
    let base = source.bytes.len() - bytes.len();
    let (text, refusal) = decode(bytes);
    let text = Text::new(text);
    let mut context = Context {
        text: &text,
        reporter: Reporter::default(),
        is_damaged: false,
        iterators: 0,
        may_name_secrets: false,
        schemas: BTreeMap::new(),
        children: Vec::new(),
        patterns: 0,
        in_schedule: false,
    };
    let found = match refusal {
        Some(refusal) => {
            context.report(refusal);
            None
        }
        None => read(&mut context),
    };
    let found = found.filter(|_| context.reporter.errors() == 0);
    let (diagnostics, omitted) = context.reporter.finish(source.name, &text, base);
    (found, diagnostics, omitted)
}

fn compile(
    source: &Source<'_>,
    context: &mut Context<'_>,
    options: &AslOptions,
) -> Option<Application> {
    let root = tree(context)?;
    if asl::is_definition(&root) {
        document::definition(context, &root, source.name, options)
    } else if let Some(bound) = asl::bound_definition(&root) {
        let bindings = match bound.bindings {
            Some(node) => bindings::read(context, node)?,
            None => Bindings::default(),
        };
        let own = AslOptions {
            // Those of the caller come after those of the file.
            bindings: bindings.or(&options.bindings),
            machine_type: options.machine_type,
        };
        context.fields(&root, &asl::BOUND)?;
        document::definition(context, bound.definition, source.name, &own)
    } else {
        document::application(context, &root, source.name)
    }
}

/// The tree of a file in YAML or JSON, unless there is nothing in it.
fn tree(context: &mut Context<'_>) -> Option<Node> {
    let root = match json::read(context.text, &mut context.reporter) {
        json::Json::Root(root) => Some(root),
        json::Json::Refused => None,
        json::Json::Other => yaml::read(context.text, &mut context.reporter),
    };
    context.is_damaged = context.reporter.errors() > 0;
    let root = root.filter(|root| asl::is_definition(root) || !document::is_empty(root));
    if root.is_none() && context.reporter.errors() == 0 {
        context.report(
            Finding::new(Code::EmptyFile, Span::new(0, 0), "the file is empty")
                .help("declare an application, or a list of `states:`"),
        );
    }
    root
}

/// The text of the file, or as much of it as can be shown beside the reason
/// why it is not read.
fn decode(bytes: &[u8]) -> (&str, Option<Finding>) {
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!(
            "the file has {} bytes; {MAX_FILE_BYTES} are allowed",
            bytes.len()
        );
        let finding = Finding::new(Code::FileTooLarge, Span::new(0, 0), message)
            .help("split it into several applications");
        return ("", Some(finding));
    }
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return (text, None),
        Err(error) => error,
    };
    let valid = error.valid_up_to();
    let text = std::str::from_utf8(&bytes[..valid]).unwrap_or("");
    let help = if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        "it looks like UTF-16; save it as UTF-8"
    } else {
        "save it as UTF-8"
    };
    let message = format!("byte {valid} is not UTF-8");
    let finding = Finding::new(Code::NotUtf8, Span::new(valid, valid), message).help(help);
    (text, Some(finding))
}
