//! `cascade test`: unit tests of workflows, which stand beside them.
//!
//! A test runs one execution on the server's own machine, in memory and under virtual time ([`play`]).
//! Activities that it does not mock run in the sandbox, as in `cascade run`; if all
//! are mocked, nothing is built and no sandbox is opened. [`load`] reads the files, [`judge`] compares what
//! was with what was expected, [`report`] tells.

mod compare;
mod file;
mod judge;
mod load;
mod mocks;
mod play;
mod report;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::program::StateId;
use clap::Args;

use super::error::{Error, Exit};
use super::local::{Local, Memory};
use super::object_files::{self, ObjectFiles};
use super::output::Output;
use super::source::{self, Found, Project};
use super::{Session, activity, toolchain};
use load::Suite;
use mocks::Mocks;
use report::Report;

/// Run the tests of workflows
///
/// Tests stand in NAME.test.yaml: an input, activities that are mocked, and what is
/// expected. Time is virtual. docs/testing.md says more.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Files of tests, workflows that have one beside, or folders
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// Run only tests whose name, or whose file's, has this in it
    #[arg(long, short, value_name = "TEXT")]
    filter: Option<String>,
    /// Fail if less of the states or of the transitions is covered
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    min_coverage: Option<u8>,
    /// Write the results to a file, as `JUnit` XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Show the histories of tests that fail
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    objects: object_files::Given,
}

impl Test {
    pub(crate) async fn run(mut self, session: &Session) -> Result<(), Error> {
        let output = session.output;
        let objects = std::mem::take(&mut self.objects).read()?;
        let files = files(&self.paths)?;
        let mut report = Report::default();
        for file in &files {
            match Suite::read(file) {
                Ok(suite) => {
                    if let Err(error) = self.run_suite(&suite, &objects, &mut report, output).await
                    {
                        report.unready(&suite, &error, output);
                    }
                }
                Err(broken) => report.broken(&broken, output),
            }
        }
        if let Some(filter) = &self.filter
            && report.is_empty()
        {
            return Err(Error::usage(format!("no test has `{filter}` in its name")));
        }
        let well = report.conclude(self.min_coverage, output);
        if let Some(path) = &self.junit {
            report::write(path, &report.junit())?;
        }
        if well {
            Ok(())
        } else {
            Err(Error::told(Exit::Failed))
        }
    }

    /// Runs the tests of a file, one after the other: what real activities keep is
    /// forgotten between them.
    async fn run_suite(
        &self,
        suite: &Suite,
        objects: &ObjectFiles,
        report: &mut Report,
        output: Output,
    ) -> Result<(), Error> {
        let all = &suite.content.tests;
        let chosen: Vec<_> = all
            .iter()
            .filter(|test| self.chooses(suite, &test.name))
            .collect();
        report.leave_out(all.len() - chosen.len());
        if chosen.is_empty() {
            return Ok(());
        }
        let needed = needed(suite, &chosen);
        let key_value = Arc::new(Memory::default());
        let local = open(suite, &needed, key_value.clone(), output).await?;
        for test in chosen {
            // One test knows nothing of another.
            key_value.forget();
            let played = play::play(suite, test, local.as_ref(), objects, self.trace).await;
            let failures = judge::judge(suite, test, &played);
            report.ran(suite, &test.name, &played, failures, output);
        }
        Ok(())
    }

    fn chooses(&self, suite: &Suite, name: &str) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        name.contains(filter) || suite.file.contains(filter)
    }
}

/// The files of tests that the paths stand for, each once.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = Project::scan(path)?.tests;
            // As a person would write it.
            let plain = |file: PathBuf| file.strip_prefix(".").map(PathBuf::from).unwrap_or(file);
            files.extend(found.into_iter().map(plain));
        } else if source::is_test(path) {
            files.push(path.clone());
        } else {
            files.push(tests_beside(path)?);
        }
    }
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    if files.is_empty() {
        return Err(Error::usage("there are no tests (*.test.yaml) in there")
            .hint("docs/testing.md shows what a file of tests looks like"));
    }
    Ok(files)
}

/// The file of tests of a workflow's file.
fn tests_beside(path: &Path) -> Result<PathBuf, Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    let stem = name
        .and_then(|name| name.split_once('.'))
        .map(|(stem, _)| stem);
    let mut beside = source::TEST_SUFFIXES
        .iter()
        .map(|suffix| path.with_file_name(format!("{}{suffix}", stem.unwrap_or_default())));
    beside.find(|beside| beside.is_file()).ok_or_else(|| {
        Error::usage(format!("{} has no tests beside it", path.display()))
            .hint("tests of order.yaml stand in order.test.yaml")
    })
}

/// The activities that some of the tests may run, because they do not mock them.
fn needed<'s>(suite: &'s Suite, tests: &[&file::Test]) -> BTreeSet<&'s str> {
    let mut needed = BTreeSet::new();
    for test in tests {
        let mocks = Mocks::new(vec![&test.mocks, &suite.content.mocks]);
        for (id, state) in (0..).map(StateId).zip(&suite.program.states) {
            let (run, undo) = state.resources();
            let both = [(run, false), (undo, true)];
            for (resource, undoes) in both.into_iter().filter_map(|(r, u)| Some((r?, u))) {
                let names = play::names(suite, id, &resource.name, undoes);
                if resource.child.is_none() && !mocks.has(&names) {
                    needed.insert(&*resource.name);
                }
            }
        }
    }
    needed
}

/// A sandbox with those of the activities that are there; none if there is nothing to run.
async fn open(
    suite: &Suite,
    needed: &BTreeSet<&str>,
    key_value: Arc<Memory>,
    output: Output,
) -> Result<Option<Local>, Error> {
    if needed.is_empty() {
        return Ok(None);
    }
    let found = gather(&suite.activities, needed, output).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let spinner = output.spinner("compiling activities");
    let local = Local::over(found, key_value).await;
    spinner.finish_and_clear();
    local.map(Some)
}

/// The needed activities in a folder; crates are built, unless a `.wasm` file is there.
async fn gather(
    folder: &Path,
    needed: &BTreeSet<&str>,
    output: Output,
) -> Result<Vec<Found>, Error> {
    let project = Project::scan(folder)?;
    let mut found = Vec::new();
    for path in &project.modules {
        let module = source::module(path)?;
        if needed.contains(&*module.name) {
            found.push(module);
        }
    }
    for dir in project.crates {
        let has = |name: &str| found.iter().any(|found: &Found| found.name == name);
        if needed.iter().all(|name| has(name)) {
            break;
        }
        // What it is called is known before it is built.
        let folder = dir.clone();
        let manifest = tokio::task::spawn_blocking(move || toolchain::manifest(&folder)).await;
        let manifest = manifest
            .map_err(|error| Error::failed(format!("{}: {error}", dir.display())))?
            .map_err(|error| Error::failed(super::chain(&error)))?;
        if needed.contains(&*manifest.name) && !has(&manifest.name) {
            found.push(activity::build(&dir, true, output).await?);
        }
    }
    Ok(found)
}
