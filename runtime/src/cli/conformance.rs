//! `cascade conformance`: judges Cascade by a suite of the States Language.
//!
//! Each case takes the way of `cascade run`: the same front end, the same machine,
//! the same sandbox. All resources are bound to one WebAssembly activity, which
//! behaves as the case says ([`stand_in`]), and time is virtual ([`run`]). What a
//! suite is and how it is judged: `cascade_cdl::asl::conformance`.

mod run;
mod stand_in;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::asl::conformance::{
    Asked, Case, Expected, Outcome, Verdict, read_cases, read_definitions,
};
use clap::Args;
use futures::stream::{self, StreamExt};
use serde::Serialize;
use tokio::task::JoinError;

use super::Session;
use super::error::{Error, Exit};
use super::output::{Format, Output, Table, Tone, paint};
use run::{Form, parse};
use stand_in::StandIn;

/// Most files of a suite: one of four hundred has two hundred scenarios.
const MAX_FILES: usize = 100_000;

/// Largest file of a suite. That of definitions is the largest, some 100 KB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Run a conformance suite of the Amazon States Language
///
/// DIR has scenarios (*.json), and perhaps definitions with a verdict on each
/// (definitions/*.json), in the format of tests/conformance/asl/README.md of
/// Cascade's repository. The exit code is 0 if all that could be judged is right.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// Folder of the suite
    dir: PathBuf,
    /// One JSON object a line; the same as `--output json`
    #[arg(long)]
    json: bool,
    /// Turn each definition into YAML first
    #[arg(long)]
    yaml: bool,
}

impl Conformance {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let output = if self.json {
            Output::new(Format::Json)
        } else {
            session.output
        };
        let form = if self.yaml { Form::Yaml } else { Form::Json };
        let suite = Suite::read(&self.dir)?;
        let spinner = output.spinner("compiling the activity");
        let stand_in = Arc::new(StandIn::open().await?);
        spinner.set_message("running cases");
        let mut report = Report::default();
        for broken in &suite.broken {
            report.broken(broken, output);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut answers = stream::iter(suite.cases)
            .map(|case| answer(Arc::clone(&stand_in), case, form))
            .buffered(2 * cores);
        while let Some((case, outcome)) = answers.next().await {
            report.case(&case, &outcome, output);
        }
        for (id, asked) in &suite.definitions {
            report.definition(id, asked, form, output);
        }
        spinner.finish_and_clear();
        report.conclude(output)
    }
}

/// What the folder holds.
struct Suite {
    cases: Vec<Case>,
    /// With the names they are told by.
    definitions: Vec<(String, Asked)>,
    /// What could not be read.
    broken: Vec<String>,
}

impl Suite {
    /// Reads all files; one that is broken does not keep the others from it.
    fn read(dir: &Path) -> Result<Self, Error> {
        let mut suite = Self {
            cases: Vec::new(),
            definitions: Vec::new(),
            broken: Vec::new(),
        };
        for path in files(dir)? {
            match read(&path, read_cases) {
                Ok(cases) => suite.cases.extend(cases),
                Err(broken) => suite.broken.push(broken),
            }
        }
        let definitions = dir.join("definitions");
        if definitions.is_dir() {
            for path in files(&definitions)? {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                match read(&path, read_definitions) {
                    Ok(asked) => {
                        let named = |(at, asked)| (format!("definitions/{name}/{at}"), asked);
                        suite
                            .definitions
                            .extend(asked.into_iter().enumerate().map(named));
                    }
                    Err(broken) => suite.broken.push(broken),
                }
            }
        }
        if suite.cases.is_empty() && suite.definitions.is_empty() && suite.broken.is_empty() {
            return Err(
                Error::usage(format!("{} holds no case (*.json)", dir.display()))
                    .hint("tests/conformance/asl/README.md says what a suite looks like"),
            );
        }
        Ok(suite)
    }
}

/// The JSON files of a folder, by name.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |source| Error::file("read", dir, &source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|kind| kind == "json") && path.is_file() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(Error::usage(format!(
                "{} holds more than {MAX_FILES} files",
                dir.display()
            )));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a file, or says what is wrong with it and where.
fn read<T>(
    path: &Path,
    reader: impl FnOnce(&str) -> Result<T, serde_json::Error>,
) -> Result<T, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let length = path.metadata().map_err(|error| told(&error))?.len();
    if length > MAX_FILE_BYTES {
        return Err(told(&format_args!(
            "{length} bytes, more than {MAX_FILE_BYTES}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
    reader(&text).map_err(|error| told(&error))
}

/// Runs a case on a task of its own. What panics there has an answer too.
async fn answer(stand_in: Arc<StandIn>, case: Case, form: Form) -> (Case, Outcome) {
    let case = Arc::new(case);
    let ran = tokio::spawn({
        let case = Arc::clone(&case);
        async move { run::run(&stand_in, &case, form).await }
    });
    let outcome = ran.await.unwrap_or_else(|error: JoinError| Outcome {
        status: "BROKEN".to_owned(),
        cause: Some(error.to_string()),
        ..Outcome::default()
    });
    (Arc::unwrap_or_clone(case), outcome)
}

#[derive(Debug, Default, Clone, Copy)]
struct Score {
    right: usize,
    total: usize,
}

impl Score {
    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }

    fn is_whole(self) -> bool {
        self.right == self.total
    }
}

/// What has been judged.
#[derive(Default)]
struct Report {
    features: BTreeMap<String, Score>,
    executions: Score,
    entered: Score,
    verdicts: Score,
    /// Cases that say nothing of what is right.
    unjudged: usize,
    broken: usize,
}

/// One line for programs.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
    /// Whether it is right, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    right: Option<bool>,
    /// Why it is not.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    reasons: &'a [String],
}

impl Report {
    fn broken(&mut self, what: &str, output: Output) {
        self.broken += 1;
        // Programs see it too: a case that is missing must not go unnoticed.
        output.error(&Error::failed(what));
    }

    fn case(&mut self, case: &Case, outcome: &Outcome, output: Output) {
        let mut reasons = Vec::new();
        if let Some(expected) = &case.expected {
            reasons = expected.reasons(outcome);
            self.executions.add(reasons.is_empty());
            for feature in &case.features {
                let score = self.features.entry(feature.clone()).or_default();
                score.add(reasons.is_empty());
            }
            reasons.extend(self.entered(expected, outcome));
        } else {
            self.unjudged += 1;
        }
        let right = case.expected.as_ref().map(|_| reasons.is_empty());
        tell(&case.id, outcome, right, &reasons, output);
    }

    /// What is wrong with the counts of the states that were entered.
    fn entered(&mut self, expected: &Expected, outcome: &Outcome) -> Option<String> {
        let right = expected.entered_right(outcome)?;
        self.entered.add(right);
        let counts = expected.entered.as_ref()?;
        (!right).then(|| format!("entered {:?}, not {counts:?}", outcome.entered))
    }

    fn definition(&mut self, id: &str, asked: &Asked, form: Form, output: Output) {
        let checked = parse(&asked.text.clone().into(), asked.machine_type, &[], form);
        let (verdict, cause) = match checked {
            Ok(_) => (Verdict::Valid, None),
            Err(reasons) => (Verdict::Invalid, Some(reasons)),
        };
        let outcome = Outcome {
            status: match verdict {
                Verdict::Valid => "VALID".to_owned(),
                Verdict::Invalid => "INVALID".to_owned(),
            },
            cause,
            ..Outcome::default()
        };
        let right = asked.verdict.map(|expected| expected == verdict);
        let mut reasons = Vec::new();
        match right {
            Some(right) => {
                self.verdicts.add(right);
                if !right {
                    let status = &outcome.status;
                    reasons.push(format!("{status}; AWS answered {}", asked.answer));
                }
            }
            None => self.unjudged += 1,
        }
        tell(id, &outcome, right, &reasons, output);
    }

    fn conclude(&self, output: Output) -> Result<(), Error> {
        let totals = [
            ("executions", self.executions),
            ("entered", self.entered),
            ("definitions", self.verdicts),
        ];
        if !output.is_json() {
            let mut table = Table::new(&["what", "right", "of"]);
            let features = self.features.iter().map(|(name, s)| (name.as_str(), *s));
            for (name, score) in features.chain(totals).filter(|(_, score)| score.total > 0) {
                let tone = if score.is_whole() {
                    Tone::Plain
                } else {
                    Tone::Bad
                };
                let count = |count: usize| (count.to_string(), tone);
                table.row([
                    (name.to_owned(), Tone::Plain),
                    count(score.right),
                    count(score.total),
                ]);
            }
            output.item(&(), || table.render());
            if self.unjudged > 0 {
                output.note(format!("{} answers were not judged", self.unjudged));
            }
        }
        let all_right = totals.iter().all(|(_, score)| score.is_whole());
        if all_right && self.broken == 0 {
            Ok(())
        } else {
            Err(Error::told(Exit::Failed))
        }
    }
}

/// Tells how a case ended, if that is worth a line.
fn tell(id: &str, outcome: &Outcome, right: Option<bool>, reasons: &[String], output: Output) {
    if output.is_json() {
        let line = Line {
            id,
            outcome,
            right,
            reasons,
        };
        output.item(&line, String::new);
        return;
    }
    match right {
        Some(true) => {}
        Some(false) => {
            let reasons = reasons.join("; ");
            output.note(format!("{} {id}: {reasons}", paint(Tone::Bad, "wrong")));
        }
        None => output.item(&(), || {
            let Outcome { status, error, .. } = outcome;
            let error = error.as_deref().unwrap_or_default();
            format!("{id}: {status} {error}").trim_end().to_owned()
        }),
    }
}
