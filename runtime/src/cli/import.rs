//! `cascade import`: workflows written for others as CDL, without a server.

use std::fs;
use std::path::PathBuf;

use cascade_cdl::{AslOptions, Imported, Source, Unexpressed, import_asl};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::error::{Error, Exit};
use super::output::{Output, Tone, paint};
use super::validate::Bind;
use super::{Session, diagnostics, input};

/// Translate workflows that are written for others to CDL
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// A definition in the Amazon States Language, JSON or YAML
    Asl(Asl),
}

/// Writes equivalent CDL, and says what it cannot express
#[derive(Debug, Args)]
pub(crate) struct Asl {
    /// The definition
    file: PathBuf,
    #[command(flatten)]
    bind: Bind,
    /// Where the CDL goes; to stdout without it
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

/// What a program is told.
#[derive(Serialize)]
struct Document<'i> {
    cdl: &'i str,
    findings: &'i [Unexpressed],
}

impl Import {
    pub(crate) fn run(self, session: &Session) -> Result<(), Error> {
        match self {
            Self::Asl(asl) => asl.run(session.output),
        }
    }
}

impl Asl {
    fn run(self, output: Output) -> Result<(), Error> {
        let bindings = self.bind.read(output)?;
        let text = input::read_bytes(&self.file)?;
        let name = self.file.display().to_string();
        let source = Source {
            name: &name,
            bytes: &text,
        };
        let options = AslOptions {
            bindings,
            ..AslOptions::default()
        };
        let Imported {
            cdl,
            findings,
            diagnostics,
        } = import_asl(&source, &options);
        let Some(cdl) = cdl else {
            if !diagnostics.is_empty() {
                let shown = String::from_utf8_lossy(&text);
                output.note(diagnostics::render(&diagnostics, &shown, true).trim_end());
            }
            let message = format!("{name} is no valid definition in the States Language");
            return Err(Error::usage(message));
        };
        if let Some(path) = &self.output_file {
            fs::write(path, &cdl).map_err(|source| Error::file("write", path, &source))?;
        }
        let document = Document {
            cdl: &cdl,
            findings: &findings,
        };
        if output.is_json() || self.output_file.is_none() {
            output.result(&document, || cdl.trim_end().to_owned());
        }
        tell(output, &findings);
        if findings.is_empty() {
            Ok(())
        } else {
            Err(Error::told(Exit::Failed))
        }
    }
}

/// Says to a person what has to be done by hand.
fn tell(output: Output, findings: &[Unexpressed]) {
    for finding in findings {
        let Unexpressed {
            state,
            field,
            what,
            help,
        } = finding;
        let place = match state {
            Some(state) => format!("{state}, {field}"),
            None => field.clone(),
        };
        let title = paint(Tone::Busy, "not expressed:");
        let help_title = paint(Tone::Faint, "help:");
        output.note(format!("{title} {place}: {what}\n  {help_title} {help}"));
    }
    match findings.len() {
        0 => output.note("all is expressed"),
        1 => output.note("1 thing is not expressed, or not exactly"),
        count => output.note(format!("{count} things are not expressed, or not exactly")),
    }
}
