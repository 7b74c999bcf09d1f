//! What all runs together come to.
//!
//! Nothing of the machine that it ran on: the same seeds give the same document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::output::{Table, Tone, paint, plain};
use super::Simulation;
use super::faults::{Injected, Kind};
use super::invariants::Verdict;
use super::judge::{Broken, Check, Ending, Judgement};
use super::story::seconds;
use super::world::{End, Run};

/// Counts over the runs so far.
pub(super) struct Tally {
    workflow: String,
    first_seed: u64,
    pub(super) runs: u64,
    pub(super) failed_runs: u64,
    endings: BTreeMap<Ending, u64>,
    errors: BTreeMap<String, u64>,
    faults: BTreeMap<Kind, u64>,
    entered: BTreeSet<String>,
    states: BTreeSet<String>,
    slowest: Option<(u64, u64)>,
    invariants: Vec<Held>,
    waiting: Option<(u64, Vec<String>)>,
    pub(super) failures: Vec<Failure>,
}

/// How often an invariant held.
#[derive(Serialize)]
struct Held {
    name: String,
    holds: u64,
    /// Runs of which it says nothing.
    says_nothing: u64,
    broken: u64,
}

/// A failure, as short as it gets.
#[derive(Serialize)]
pub(super) struct Failure {
    pub(super) seed: u64,
    #[serde(flatten)]
    pub(super) broken: Broken,
    /// How many faults the run had before it was shrunk.
    #[serde(rename = "faults_before")]
    pub(super) first: usize,
    pub(super) faults: Vec<Injected>,
    #[serde(skip)]
    pub(super) texts: Vec<String>,
    pub(super) story: Vec<String>,
    pub(super) command: String,
}

impl Tally {
    pub(super) fn new(simulation: &Simulation, first_seed: u64) -> Self {
        let program = &simulation.scene.program;
        let invariants = simulation.invariants.iter().map(|invariant| Held {
            name: invariant.name.clone(),
            holds: 0,
            says_nothing: 0,
            broken: 0,
        });
        Self {
            workflow: program.name.clone(),
            first_seed,
            runs: 0,
            failed_runs: 0,
            endings: BTreeMap::new(),
            errors: BTreeMap::new(),
            faults: BTreeMap::new(),
            entered: BTreeSet::new(),
            states: program.states.iter().map(|s| s.name.to_string()).collect(),
            slowest: None,
            invariants: invariants.collect(),
            waiting: None,
            failures: Vec::new(),
        }
    }

    pub(super) fn count(&mut self, seed: u64, run: &Run, judgement: &Judgement) {
        self.runs += 1;
        self.failed_runs += u64::from(judgement.broken.is_some());
        *self.endings.entry(judgement.ending).or_default() += 1;
        if let Some(error) = &judgement.error {
            *self.errors.entry(error.clone()).or_default() += 1;
        }
        for injected in &run.injected {
            *self.faults.entry(injected.fault.kind()).or_default() += 1;
        }
        self.entered.extend(judgement.states.iter().cloned());
        if self.slowest.is_none_or(|(ms, _)| run.lasted_ms > ms) {
            self.slowest = Some((run.lasted_ms, seed));
        }
        for (held, verdict) in self.invariants.iter_mut().zip(&judgement.verdicts) {
            match verdict {
                Verdict::Holds => held.holds += 1,
                Verdict::SaysNothing => held.says_nothing += 1,
                Verdict::Broken => held.broken += 1,
            }
        }
        if let (None, End::Waiting(awaited)) = (&self.waiting, &run.end) {
            self.waiting = Some((seed, awaited.clone()));
        }
    }

    /// Whether no failure of this check has been told yet.
    pub(super) fn is_new(&self, check: &Check) -> bool {
        self.failures.iter().all(|told| told.broken.check != *check)
    }

    /// For programs.
    pub(super) fn document(&self) -> Value {
        let counts = |counts: &mut dyn Iterator<Item = (&str, u64)>| -> Value {
            let counts = counts.map(|(name, count)| (name.to_owned(), count.into()));
            Value::Object(counts.collect())
        };
        let endings = &mut self.endings.iter().map(|(it, count)| (it.name(), *count));
        let faults = &mut self.faults.iter().map(|(it, count)| (it.name(), *count));
        json!({
            "workflow": self.workflow,
            "first_seed": self.first_seed,
            "runs": self.runs,
            "failed_runs": self.failed_runs,
            "endings": counts(endings),
            "errors": self.errors,
            "faults": counts(faults),
            "states": { "entered": self.entered, "never": self.never() },
            "slowest": self.slowest.map(|(ms, seed)| json!({ "ms": ms, "seed": seed })),
            "waiting": self.waiting.as_ref().map(|(seed, what)| json!({ "seed": seed, "awaited": what })),
            "invariants": self.invariants,
            "failures": self.failures,
        })
    }

    fn never(&self) -> Vec<&String> {
        self.states.difference(&self.entered).collect()
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            text.push_str(&failure.text());
            text.push('\n');
        }
        let last = self.first_seed.wrapping_add(self.runs.saturating_sub(1));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{}",
            paint(
                Tone::Strong,
                format!(
                    "{} runs of {}, seeds {} to {last}",
                    self.runs, self.workflow, self.first_seed
                )
            )
        );
        text.push_str(&self.table().render());
        if self.failed_runs > 0 {
            let failed = match self.failed_runs {
                1 => "1 run failed".to_owned(),
                count => format!("{count} runs failed"),
            };
            let count = paint(Tone::Bad, failed);
            let _ = write!(text, "\n{count}");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["", "runs", ""]);
        for (ending, count) in &self.endings {
            let (tone, detail) = match ending {
                Ending::Completed => (Tone::Good, String::new()),
                Ending::Failed => (Tone::Busy, list(self.errors.iter())),
                Ending::Waiting => (Tone::Busy, self.waiting_text()),
                Ending::TimedOut | Ending::Cancelled => (Tone::Busy, String::new()),
                Ending::Endless => (Tone::Bad, String::new()),
            };
            table.row([
                (ending.name().replace('_', " "), tone),
                (count.to_string(), Tone::Plain),
                (detail, Tone::Faint),
            ]);
        }
        let faults: u64 = self.faults.values().sum();
        let kinds = self.faults.iter().map(|(kind, count)| (kind.name(), count));
        table.row([
            ("faults".into(), Tone::Plain),
            (faults.to_string(), Tone::Plain),
            (list(kinds), Tone::Faint),
        ]);
        let never = self.never();
        let never_text = match never.as_slice() {
            [] => String::new(),
            names => {
                let names: Vec<_> = names.iter().map(|name| plain(name)).collect();
                format!("never entered: {}", names.join(", "))
            }
        };
        let of = format!("{}/{}", self.states.len() - never.len(), self.states.len());
        table.row([
            ("states".into(), Tone::Plain),
            (of, Tone::Plain),
            (never_text, Tone::Busy),
        ]);
        if let Some((ms, seed)) = self.slowest {
            table.row([
                ("slowest".into(), Tone::Plain),
                (seconds(ms), Tone::Plain),
                (format!("of virtual time, at seed {seed}"), Tone::Faint),
            ]);
        }
        for held in &self.invariants {
            let (tone, word) = match (held.broken, held.holds) {
                (0, 0) => (Tone::Busy, "untested"),
                (0, _) => (Tone::Good, "holds"),
                _ => (Tone::Bad, "broken"),
            };
            let count = if held.broken > 0 {
                held.broken
            } else {
                held.holds
            };
            table.row([
                (word.into(), tone),
                (count.to_string(), Tone::Plain),
                (plain(&held.name), Tone::Plain),
            ]);
        }
        table
    }

    fn waiting_text(&self) -> String {
        let Some((seed, awaited)) = &self.waiting else {
            return String::new();
        };
        format!("seed {seed}: {}", plain(&awaited.join("; ")))
    }
}

impl Failure {
    fn text(&self) -> String {
        let head = paint(Tone::Bad, plain(&self.broken.message));
        let count = match self.faults.len() {
            0 => "no fault needed".to_owned(),
            1 => "1 fault".to_owned(),
            count => format!("{count} faults"),
        };
        let mut text = format!("{head}\nseed {}, {count}", self.seed);
        if self.first > self.faults.len() {
            let _ = write!(text, " (of {})", self.first);
        }
        text.push('\n');
        for fault in &self.texts {
            let _ = writeln!(text, "  {}", plain(fault));
        }
        text.push('\n');
        for line in &self.story {
            let tone = if line.contains(": fault: ") {
                Tone::Busy
            } else {
                Tone::Plain
            };
            let _ = writeln!(text, "  {}", paint(tone, line));
        }
        let _ = writeln!(text, "\nagain: {}", self.command);
        text
    }
}

fn list<'a, N: std::fmt::Display>(counts: impl Iterator<Item = (N, &'a u64)>) -> String {
    let counts = counts.map(|(name, count)| format!("{} {count}", plain(&name.to_string())));
    counts.collect::<Vec<_>>().join(", ")
}

/// The command line for one seed: this one, with other runs.
pub(super) fn command(args: impl Iterator<Item = String>, seed: u64) -> String {
    let mut words = vec!["cascade".to_owned()];
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" | "--runs" => drop(args.next()),
            "--keep-going" => {}
            other if other.starts_with("--seed=") || other.starts_with("--runs=") => {}
            other => words.push(quoted(other)),
        }
    }
    words.push(format!("--seed {seed} --runs 1"));
    words.join(" ")
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_a_seed_is_the_same_but_for_its_runs() {
        let given = [
            "sim",
            "a b.yaml",
            "--runs",
            "50",
            "--seed=3",
            "--keep-going",
            "--invariant",
            "$.status != 'failed'",
            "--faults",
            "errors,slow",
        ];
        let told = command(given.into_iter().map(str::to_owned), 17);
        assert_eq!(
            told,
            "cascade sim 'a b.yaml' --invariant '$.status != '\\''failed'\\''' \
             --faults errors,slow --seed 17 --runs 1"
        );
    }
}
