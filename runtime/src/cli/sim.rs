//! `cascade sim`: a workflow and its activities, a thousand times, under virtual time
//! and with seeded faults.
//!
//! Each run is one seed: the same seed gives the same run, to the byte. `world` plays a
//! run, `faults` says what goes wrong in it, `activities` what attempts give, `judge`
//! whether it was as it must be; of one that was not, `shrink` makes the shortest that fails alike,
//! and `story` tells it. Nothing here touches a server or a disk, but for the compiled
//! modules of `cascade run`.

mod activities;
mod faults;
mod invariants;
mod judge;
mod report;
mod shrink;
mod story;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use cascade_cdl::{ExecutionId, Json, Timestamp};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use self::activities::{Activities, Mocks};
use self::faults::{Faults, Kind};
use self::invariants::Invariant;
use self::judge::{Broken, Judgement, judge};
use self::report::{Failure, Tally};
use self::world::{Run, Scene};
use super::error::{Error, Exit};
use super::object_files::{self, ObjectFiles};
use super::outside::{Outside, check_input};
use super::virtual_time::started;
use super::{Session, input, run, validate};

/// Runs of one command, at most: more than a night has time for.
const MAX_RUNS: u64 = 10_000_000;

/// Failures that are told with `--keep-going`; the others are counted.
const MAX_STORIES: usize = 10;

/// Run a workflow a thousand times under virtual time, with faults, and check what holds
///
/// Each run is a seed: activities fail, do not answer, answer late or twice, and the
/// server crashes between commits. Every run must end, replay to what it was, and keep
/// the invariants. A run that does not is shrunk to as few faults as fail alike.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// The CDL file, or a definition in the States Language
    file: PathBuf,
    #[command(flatten)]
    bind: validate::Bind,
    /// Which workflow; needed if the file has several
    #[arg(long, short)]
    workflow: Option<String>,
    /// JSON, or @FILE, or - for standard input; {} by default. Of several, each run takes one
    #[arg(long = "input", short, value_name = "JSON")]
    inputs: Vec<String>,
    /// How many runs
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MAX_RUNS))]
    runs: u64,
    /// The seed of the first run; each has the next one
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What may go wrong
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    faults: Vec<Choice>,
    /// What must hold at the end of each run: an expression, or `premise => conclusion`
    #[arg(long = "invariant", value_name = "EXPR")]
    invariants: Vec<String>,
    /// A YAML file of `invariants:`, each with a name
    #[arg(long = "invariants", value_name = "FILE")]
    invariants_file: Option<PathBuf>,
    /// Folder of activities (.wasm files or crates); the CDL file's by default
    #[arg(long, value_name = "DIR")]
    activities: Option<PathBuf>,
    /// The output of an activity or a child workflow, in place of running it; expressions in it see the input as `$`
    #[arg(long = "mock", value_name = "NAME=JSON")]
    mocks: Vec<String>,
    /// Let activities with the capabilities http, clock and random reach out: in each run
    #[arg(long)]
    real: bool,
    /// A signal, sent at the start; it waits until an `EventTask` takes it
    #[arg(long = "signal", value_name = "NAME=JSON")]
    signals: Vec<String>,
    /// The answer to a `HumanTask`, or the result of a `.waitForTaskToken`, given when it waits
    #[arg(long = "answer", value_name = "STATE=JSON")]
    answers: Vec<String>,
    #[command(flatten)]
    objects: object_files::Given,
    /// Go on after a run that fails
    #[arg(long)]
    keep_going: bool,
}

/// A kind of fault, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Kind(Kind),
    None,
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Choice; 6] = [
            Choice::Kind(Kind::Errors),
            Choice::Kind(Kind::Timeouts),
            Choice::Kind(Kind::Crashes),
            Choice::Kind(Kind::Slow),
            Choice::Kind(Kind::Duplicates),
            Choice::None,
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Kind(kind) => kind.to_possible_value(),
            Self::None => Some(PossibleValue::new("none").help("Nothing goes wrong")),
        }
    }
}

impl Sim {
    pub(crate) async fn run(mut self, session: &Session) -> Result<(), Error> {
        let output = session.output;
        let kinds = kinds(&self.faults)?;
        let invariants = invariants::read(&self.invariants, self.invariants_file.as_deref())?;
        let objects = std::mem::take(&mut self.objects).read()?;
        let mut simulation = self.prepare(session, invariants, objects).await?;
        let began = Instant::now();
        let spinner = output.spinner("simulating");
        let mut tally = Tally::new(&simulation, self.seed);
        let seeds = (0..self.runs).map(|run| self.seed.wrapping_add(run));
        for seed in seeds {
            let (run, judgement) = simulation.play(seed, Faults::Drawn(&kinds), false).await?;
            tally.count(seed, &run, &judgement);
            let Some(broken) = judgement.broken else {
                continue;
            };
            if tally.failures.len() < MAX_STORIES && tally.is_new(&broken.check) {
                let failure = simulation.tell(seed, broken, run).await?;
                tally.failures.push(failure);
            }
            if !self.keep_going {
                break;
            }
        }
        spinner.finish_and_clear();
        let took = began.elapsed();
        output.note(format!(
            "{} runs in {:.1} s",
            tally.runs,
            took.as_secs_f64()
        ));
        output.result(&tally.document(), || tally.text());
        if tally.failed_runs > 0 {
            return Err(Error::told(Exit::Failed));
        }
        Ok(())
    }

    async fn prepare(
        &self,
        session: &Session,
        invariants: Vec<Invariant>,
        objects: ObjectFiles,
    ) -> Result<Simulation, Error> {
        let output = session.output;
        let bindings = self.bind.read(output)?;
        let checked = validate::check(&self.file, &bindings)?;
        checked.show(output);
        let Some(application) = checked.parsed.application else {
            let file = self.file.display();
            return Err(Error::failed(format!("{file} cannot be run")));
        };
        let program = run::choose(&application, self.workflow.as_deref())?;
        let program = object_files::in_one(&program);
        let mut inputs = Vec::new();
        for given in &self.inputs {
            inputs.push(Json::from_value(&input::read(Some(given))?));
        }
        if inputs.is_empty() {
            inputs.push(Json::from_value(&input::read(None)?));
        }
        for input in &inputs {
            check_input(&program, input)?;
            let (id, now) = (ExecutionId(uuid::Uuid::now_v7()), Timestamp(0));
            let begins = started(&program, id, now, input.clone(), None);
            begins.map_err(|no_key| {
                Error::usage(format!("the input of `{}`: {no_key}", program.name))
            })?;
        }
        let outside = Outside::read(&self.signals, &self.answers)?;
        let mocks = Mocks::read(&self.mocks, self.real)?;
        let found = if mocks.cover(&program) {
            Vec::new()
        } else {
            run::gather(&run::folder(&self.file, self.activities.as_deref()), output).await?
        };
        let spinner = output.spinner("compiling activities");
        let activities = Activities::open(&program, found, mocks, objects).await?;
        spinner.finish_and_clear();
        Ok(Simulation {
            scene: Scene::new(application.name, program, inputs, outside),
            activities,
            invariants,
        })
    }
}

fn kinds(given: &[Choice]) -> Result<Vec<Kind>, Error> {
    if given.is_empty() {
        return Ok(Kind::ALL.to_vec());
    }
    if given.contains(&Choice::None) && given.len() > 1 {
        return Err(Error::usage("`--faults none` goes with no other kind"));
    }
    let kind = |choice: &Choice| match choice {
        Choice::Kind(kind) => Some(*kind),
        Choice::None => None,
    };
    // In one order, however they are given: the same seed gives the same run.
    let mut kinds: Vec<_> = given.iter().filter_map(kind).collect();
    kinds.sort();
    kinds.dedup();
    Ok(kinds)
}

/// All that a run needs but its seed.
struct Simulation {
    scene: Scene,
    activities: Activities,
    invariants: Vec<Invariant>,
}

impl Simulation {
    /// Plays one run, and judges it.
    async fn play(
        &mut self,
        seed: u64,
        faults: Faults<'_>,
        told: bool,
    ) -> Result<(Run, Judgement), Error> {
        let played = self.scene.play(&mut self.activities, seed, faults, told);
        let run = played.await?;
        let judgement = judge(&self.scene, &self.invariants, seed, &run)?;
        Ok((run, judgement))
    }

    /// Shrinks a failure, and tells it.
    async fn tell(&mut self, seed: u64, broken: Broken, run: Run) -> Result<Failure, Error> {
        let first = run.injected.len();
        let faults = shrink::shrink(self, seed, &broken.check, run.injected).await;
        let (run, judgement) = self.play(seed, Faults::Given(&faults), true).await?;
        // The message of the run that is told, which may count other things.
        let broken = judgement.broken.unwrap_or(broken);
        let now = run.now;
        let mut story = run.story;
        story.tell(now, || broken.message.clone());
        let texts = run.injected.iter();
        let texts = texts.map(|it| story::fault_text(it, &self.scene.program));
        Ok(Failure {
            seed,
            texts: texts.collect(),
            first,
            faults: run.injected,
            story: story.finish(),
            command: report::command(given(), seed),
            broken,
        })
    }
}

/// The command's own arguments. A file's name need not be UTF-8.
fn given() -> impl Iterator<Item = String> {
    let given = std::env::args_os().skip(1);
    given.map(|arg| arg.to_string_lossy().into_owned())
}
