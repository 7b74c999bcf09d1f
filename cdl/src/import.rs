//! Definitions in other languages as CDL, and what of them CDL cannot say.
//!
//! The translation works on the compiled definition, so it starts from what the
//! machine would run. What it gives without a finding ends the same way: status,
//! output, error; errors that the machine itself raises have the names that CDL has for
//! them, and its own words for causes. It is better to tell too much than to be
//! wrong in silence: whatever is not known to be the same is a finding.
//!
//! `states`, `choice` and `nested` go through the states of a scope, `flow` moves data into them and out
//! of them, `recover` is `Retry` and `Catch`, `expression` and `condition` say what is
//! computed, `shape` knows where the data is an object for sure, and `yaml` writes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::front::{AslOptions, Notes, Parsed, Source, asl_notes, parse, parse_with};
use crate::program::{Program, ScopeId, StateId, StateKind};
use crate::{Diagnostic, Severity, asl};

mod choice;
mod condition;
mod expression;
mod flow;
mod nested;
mod recover;
mod shape;
mod states;
mod yaml;

use expression::Lost;
use yaml::{Entries, Y};

/// What came of an import.
#[derive(Debug)]
pub struct Imported {
    /// The workflow as a file in CDL; `None` if the definition has an error.
    pub cdl: Option<String>,
    /// What is not, or not exactly, expressed in it.
    pub findings: Vec<Unexpressed>,
    /// What is wrong or doubtful in the definition.
    pub diagnostics: Vec<Diagnostic>,
}

/// Something that the translation does not say, or not exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unexpressed {
    /// The state; none if it is about the whole definition.
    pub state: Option<String>,
    /// The field.
    pub field: String,
    /// What is not expressed, or differs.
    pub what: String,
    /// What to do by hand.
    pub help: String,
}

/// Errors that the machine raises itself: their names in the States Language, and in CDL.
pub const RENAMED_ERRORS: [(&str, &str); 7] = [
    (asl::names::RUNTIME, crate::errors::EXPRESSION),
    (asl::names::INTRINSIC_FAILURE, crate::errors::EXPRESSION),
    (asl::names::RESULT_PATH_MATCH, crate::errors::EXPRESSION),
    (asl::names::QUERY_EVALUATION, crate::errors::EXPRESSION),
    (asl::names::TIMEOUT, crate::errors::TIMEOUT),
    (asl::names::HEARTBEAT_TIMEOUT, crate::errors::TIMEOUT),
    (
        asl::names::NO_CHOICE_MATCHED,
        crate::errors::NO_CHOICE_MATCHED,
    ),
];

/// Translates a definition in the Amazon States Language to CDL.
///
/// Pure, and never panics, whatever is in the file.
pub fn import_asl(source: &Source<'_>, options: &AslOptions) -> Imported {
    let Parsed {
        application,
        diagnostics,
        ..
    } = parse_with(source, options);
    let program = application.and_then(|application| application.workflows.into_values().next());
    let Some(program) = program.filter(|program| program.is_asl()) else {
        return Imported {
            cdl: None,
            findings: Vec::new(),
            diagnostics,
        };
    };
    let notes = asl_notes(source);
    let importer = Importer::new(&program, &notes);
    let (cdl, mut findings) = importer.run();
    check(&cdl, &mut findings);
    Imported {
        cdl: Some(cdl),
        findings,
        diagnostics,
    }
}

/// That the translation compiles. It should; a definition may still be larger than
/// CDL allows.
fn check(cdl: &str, findings: &mut Vec<Unexpressed>) {
    let parsed = parse(&Source {
        name: "imported.yaml",
        bytes: cdl.as_bytes(),
    });
    let errors = parsed.diagnostics.iter();
    for error in errors.filter(|found| found.severity == Severity::Error) {
        findings.push(Unexpressed {
            state: None,
            field: format!("line {} of the CDL file", error.line),
            what: error.message.clone(),
            help: error.help.clone().unwrap_or_else(|| error.url.clone()),
        });
    }
}

/// A definition that is being translated.
struct Importer<'p> {
    program: &'p Program,
    notes: &'p Notes,
    /// Names that states have, or get.
    names: BTreeSet<String>,
    /// Keys of the context that are taken.
    keys: BTreeSet<String>,
    /// The CDL state that each state begins with.
    entries: Entries,
    /// The variables that each scope assigns.
    assigned: Vec<BTreeSet<String>>,
    findings: Vec<Unexpressed>,
}

impl<'p> Importer<'p> {
    fn new(program: &'p Program, notes: &'p Notes) -> Self {
        let states = program.states.iter();
        let names = states.map(|state| state.name.to_string()).collect();
        let taken = [
            "workflow", "data", "input", "result", "caught", "vars", "branches",
        ];
        Self {
            program,
            notes,
            names,
            keys: taken.into_iter().map(ToOwned::to_owned).collect(),
            entries: BTreeMap::new(),
            assigned: states::assigned(program),
            findings: Vec::new(),
        }
    }

    fn run(mut self) -> (String, Vec<Unexpressed>) {
        let states = self.root();
        let mut body = String::new();
        yaml::states(&mut body, 2, &states, &self.entries);
        let mut text = String::new();
        yaml::comment(
            &mut text,
            0,
            "Translated from the Amazon States Language by `cascade import asl`.\n\
             The document that goes from state to state there is `$.data` here.",
        );
        if let Some(comment) = &self.notes.comment {
            yaml::comment(&mut text, 0, "");
            yaml::comment(&mut text, 0, comment);
        }
        if !self.findings.is_empty() {
            let line = match self.findings.len() {
                1 => "\nOne thing is not expressed, or not exactly: see the comment.".to_owned(),
                count => {
                    format!("\n{count} things are not expressed, or not exactly: see the comments.")
                }
            };
            yaml::comment(&mut text, 0, &line);
        }
        text.push('\n');
        if let Some(timeout) = self.program.timeout_ms {
            yaml::entry(&mut text, "timeout", &Y::text(flow::duration(timeout)));
        }
        yaml::entry(&mut text, "output", &Y::text("{{ $.data }}"));
        text.push_str("states:\n");
        text.push_str(&body);
        (text, self.findings)
    }

    /// The state with this index, as the States Language has it.
    fn asl(&self, id: StateId) -> Option<&'p asl::State> {
        match &self.program.state(id).kind {
            StateKind::Asl(state) => Some(state),
            _ => None,
        }
    }

    fn name(&self, id: StateId) -> &'p str {
        &self.program.state(id).name
    }

    /// Notes something that is lost; gives the comment that says so.
    fn lose(&mut self, id: StateId, field: &str, lost: Lost) -> String {
        let Lost { what, help } = lost;
        let comment = format!("not expressed: {field}: {what}; {help}");
        self.findings.push(Unexpressed {
            state: Some(self.name(id).to_owned()),
            field: field.to_owned(),
            what,
            help,
        });
        comment
    }

    /// A name that no state has yet, as near to `wanted` as there is room for.
    fn fresh_name(&mut self, wanted: &str) -> String {
        let clean: String = wanted
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let clean = if clean.trim().is_empty() {
            "State"
        } else {
            clean.trim()
        };
        let taken = |name: &str| self.names.contains(name);
        let name = free(taken, clean, states::MAX_NAME_CHARS, " ");
        self.names.insert(name.clone());
        name
    }

    /// A key of the context for the data of a scope, by the name of its first state.
    fn fresh_key(&mut self, scope: ScopeId) -> String {
        let start = self.program.scope(scope).start;
        let mut key = String::new();
        for c in self.name(start).chars() {
            let word = c.is_ascii_alphanumeric();
            let starts = c.is_ascii_uppercase()
                && key.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit());
            if (starts || !word) && !key.is_empty() && !key.ends_with('_') {
                key.push('_');
            }
            if word {
                key.push(c.to_ascii_lowercase());
            }
        }
        let key = key.trim_end_matches('_');
        let key = match key.chars().next() {
            Some(first) if first.is_ascii_alphabetic() => key.to_owned(),
            _ => format!("branch_{key}"),
        };
        // Whatever the scope keeps has the key in front of its own.
        let own = |key: &str| OWN_KEYS.map(|suffix| format!("{key}{suffix}"));
        let taken = |key: &str| own(key).iter().any(|own| self.keys.contains(own));
        let key = free(taken, &key, MAX_KEY_CHARS, "_");
        self.keys.extend(own(&key));
        key
    }
}

/// Longest key that is made of a state's name, in characters; as a branch's name
/// it may have 64.
const MAX_KEY_CHARS: usize = 40;

/// What the keys of a scope end in: that of its document, and those of what it keeps.
const OWN_KEYS: [&str; 6] = ["", "_input", "_result", "_caught", "_vars", "_branches"];

/// `wanted`, cut to so many characters and counted up until it is not `taken`.
fn free(taken: impl Fn(&str) -> bool, wanted: &str, most: usize, gap: &str) -> String {
    let cut = |room: usize| wanted.chars().take(room).collect::<String>();
    let first = cut(most).trim_end().to_owned();
    if !first.is_empty() && !taken(&first) {
        return first;
    }
    let mut names = (2..).map(|n: u64| {
        let suffix = format!("{gap}{n}");
        let room = most.saturating_sub(suffix.chars().count());
        format!("{}{suffix}", cut(room).trim_end())
    });
    names
        .find(|name| !taken(name))
        .expect("fewer names are taken than there are numbers")
}
