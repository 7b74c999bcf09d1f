//! `cascade validate`: checks CDL files, without a server.

use std::path::{Path, PathBuf};

use cascade_cdl::asl::Bindings;
use cascade_cdl::{
    AslOptions, Diagnostic, Parsed, ParsedBindings, Source, parse_bindings, parse_with,
};
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
    #[command(flatten)]
    bind: Bind,
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

/// What stands behind the resources of definitions in the States Language.
#[derive(Debug, Default, Args)]
pub(crate) struct Bind {
    /// File that binds ARNs to activities, for definitions in the States Language
    #[arg(long, value_name = "FILE")]
    bind: Option<PathBuf>,
}

impl Bind {
    /// What the file says; nothing without one.
    pub(crate) fn read(&self, output: Output) -> Result<Bindings, Error> {
        let Some(path) = &self.bind else {
            return Ok(Bindings::default());
        };
        let (text, parsed) = read_bindings(path)?;
        parsed.bindings.ok_or_else(|| {
            let shown = String::from_utf8_lossy(&text);
            output.note(diagnostics::render(&parsed.diagnostics, &shown, true).trim_end());
            Error::failed(format!("{} is invalid", path.display()))
                .hint("docs/asl.md#resources shows what a file of bindings looks like")
        })
    }
}

/// Reads and parses a file of bindings.
pub(crate) fn read_bindings(path: &Path) -> Result<(Vec<u8>, ParsedBindings), Error> {
    let text = input::read_bytes(path)?;
    let parsed = parse_bindings(&Source {
        name: &path.display().to_string(),
        bytes: &text,
    });
    Ok((text, parsed))
}

/// One file, read and parsed.
pub(crate) struct Checked {
    pub name: String,
    pub text: Vec<u8>,
    pub parsed: Parsed,
}

impl Validate {
    pub(crate) fn run(self, session: &Session) -> Result<(), Error> {
        let bindings = self.bind.read(session.output)?;
        let checked = check_all(&self.paths, &bindings)?;
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
pub(crate) fn check_all(paths: &[PathBuf], bindings: &Bindings) -> Result<Vec<Checked>, Error> {
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
            "there is no CDL file (*.yaml, *.yml, *.asl.json) in there",
        ));
    }
    files.iter().map(|path| check(path, bindings)).collect()
}

/// Reads and parses one file.
pub(crate) fn check(path: &Path, bindings: &Bindings) -> Result<Checked, Error> {
    let text = input::read_bytes(path)?;
    let name = path.display().to_string();
    Ok(Checked::new(name, text, bindings))
}

impl Checked {
    /// Parses a text.
    pub(crate) fn new(name: String, text: Vec<u8>, bindings: &Bindings) -> Self {
        let source = Source {
            name: &name,
            bytes: &text,
        };
        let options = AslOptions {
            bindings: bindings.clone(),
            ..AslOptions::default()
        };
        let parsed = parse_with(&source, &options);
        Self { name, text, parsed }
    }

    /// Name of the application in it.
    pub(crate) fn application(&self) -> Result<String, Error> {
        let application = self.parsed.application.as_ref();
        let name = application.map(|application| application.name.clone());
        name.ok_or_else(|| Error::failed(format!("{} is invalid", self.name)))
    }

    /// Its name as a query tells the server, for diagnostics.
    pub(crate) fn query(&self) -> Option<(&'static str, String)> {
        let name = Path::new(&self.name).file_name();
        name.map(|name| ("file", name.to_string_lossy().into_owned()))
    }

    /// Puts what its resources are bound to into the text of a definition in the
    /// States Language: the server keeps one with the other.
    pub(crate) fn bring(&mut self, bindings: &Bindings) -> Result<(), Error> {
        if bindings.entries.is_empty() {
            return Ok(());
        }
        let fail = |error: &dyn std::fmt::Display| Error::failed(format!("{}: {error}", self.name));
        let value: Value = serde_yaml::from_slice(&self.text).map_err(|error| fail(&error))?;
        let is_definition = ["StartAt", "States"]
            .iter()
            .any(|key| value.get(key).is_some());
        if is_definition {
            let bindings = bindings.to_json();
            self.text =
                format!("{{\"bindings\":{bindings},\n\"definition\":{value:#}}}\n").into_bytes();
        }
        Ok(())
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
