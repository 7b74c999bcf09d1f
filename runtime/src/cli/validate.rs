//! `cascade validate`: checks CDL files, without a server.

use std::path::{Path, PathBuf};

use cascade_cdl::{Diagnostic, Parsed, Source};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::error::{Error, Exit};
use super::output::{self, Output, Tone, paint};
use super::source::Project;
use super::{Session, diagnostics, input};

/// Check CDL files
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// CDL files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// How diagnostics are printed; `--output json` implies json
    #[arg(long, value_enum)]
    format: Option<Report>,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Report {
    /// For people
    Human,
    /// For editors and continuous integration
    Json,
    /// For code review (SARIF 2.1.0)
    Sarif,
}

/// One file, read and parsed.
pub(crate) struct Checked {
    pub name: String,
    pub text: Vec<u8>,
    pub parsed: Parsed,
}

impl Validate {
    pub(crate) fn run(self, session: &Session) -> Result<(), Error> {
        let checked = check_all(&self.paths)?;
        let format = self.format.unwrap_or(if session.output.is_json() {
            Report::Json
        } else {
            Report::Human
        });
        let errors: usize = checked.iter().map(|file| file.parsed.errors()).sum();
        let all: Vec<Diagnostic> = checked
            .iter()
            .flat_map(|file| file.parsed.diagnostics.iter().cloned())
            .collect();
        match format {
            Report::Human => human(session.output, &checked),
            Report::Json => document(&diagnostics::to_json(&all)),
            Report::Sarif => document(&diagnostics::to_sarif(&all)),
        }
        if errors > 0 || (self.strict && !all.is_empty()) {
            return Err(Error::told(Exit::Failed));
        }
        Ok(())
    }
}

/// Reads and parses the CDL files among `paths`.
pub(crate) fn check_all(paths: &[PathBuf]) -> Result<Vec<Checked>, Error> {
    let mut files = Vec::new();
    for path in paths {
        // A file that is named outright is CDL, whatever its name.
        if path.is_dir() {
            files.extend(Project::scan(path)?.cdl);
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        return Err(Error::usage(
            "there is no CDL file (*.yaml, *.yml) in there",
        ));
    }
    files.iter().map(|path| check(path)).collect()
}

/// Reads and parses one file.
pub(crate) fn check(path: &Path) -> Result<Checked, Error> {
    let text = input::read_bytes(path)?;
    let name = path.display().to_string();
    Ok(Checked::new(name, text))
}

impl Checked {
    /// Parses a text.
    pub(crate) fn new(name: String, text: Vec<u8>) -> Self {
        let parsed = cascade_cdl::parse(&Source {
            name: &name,
            bytes: &text,
        });
        Self { name, text, parsed }
    }

    /// Prints what is wrong with it; says whether it can be used.
    pub(crate) fn show(&self, output: Output) -> bool {
        let found = &self.parsed.diagnostics;
        if !found.is_empty() {
            let text = String::from_utf8_lossy(&self.text);
            output.note(diagnostics::render(found, &text, true).trim_end());
        }
        self.parsed.application.is_some()
    }
}

fn document(document: &Value) {
    output::stdout(&format!("{document:#}"));
}

fn human(output: Output, checked: &[Checked]) {
    for file in checked {
        file.show(output);
        let verdict = match &file.parsed.application {
            Some(application) => {
                let workflows: Vec<&str> =
                    application.workflows.keys().map(String::as_str).collect();
                let names = workflows.join(", ");
                format!("{} {}: {names}", paint(Tone::Good, "valid"), file.name)
            }
            None => format!("{} {}", paint(Tone::Bad, "invalid"), file.name),
        };
        output::stdout(&verdict);
    }
}
