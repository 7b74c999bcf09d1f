//! The conformance suite of the Amazon States Language, in `tests/conformance/asl`.
//!
//! Runs every case through the machine under virtual time, the activities being
//! what the suite's README says of them, and once more with each definition as
//! YAML. Prints a table by feature and fails below the recorded floor. No case
//! is known here by its name.

mod activities;
mod import;
mod run;
mod suite;

use std::collections::BTreeMap;

use cascade_cdl::asl::conformance::{Case, Verdict};
use run::Ended;
use suite::{Definition, load};

/// Executions, and counts of entered states, that are right: what
/// has been reached may not be lost again.
const EXECUTIONS_FLOOR: usize = 454;
const ENTERED_FLOOR: usize = 163;

#[derive(Default)]
struct Score {
    right: usize,
    total: usize,
}

impl Score {
    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }
}

struct Report {
    executions: Score,
    entered: Score,
    features: BTreeMap<String, Score>,
    wrong: Vec<String>,
}

fn judge_all(form: Definition) -> Report {
    let mut report = Report {
        executions: Score::default(),
        entered: Score::default(),
        features: BTreeMap::new(),
        wrong: Vec::new(),
    };
    for case in load() {
        let Ended { outcome, .. } = run::run(&case, form);
        let expected = case.expected.expect("the suite tells what is right");
        let reasons = expected.reasons(&outcome);
        report.executions.add(reasons.is_empty());
        for feature in &case.features {
            let score = report.features.entry(feature.clone()).or_default();
            score.add(reasons.is_empty());
        }
        if !reasons.is_empty() {
            report
                .wrong
                .push(format!("{}: {}", case.id, reasons.join("; ")));
        }
        if let Some(right) = expected.entered_right(&outcome) {
            report.entered.add(right);
            if !right {
                let entered = &outcome.entered;
                report
                    .wrong
                    .push(format!("{}: entered {entered:?}", case.id));
            }
        }
    }
    report
}

fn print(title: &str, report: &Report) {
    println!("{title}");
    let rows = report
        .features
        .iter()
        .map(|(name, score)| (name.as_str(), score));
    let totals = [
        ("executions", &report.executions),
        ("entered", &report.entered),
    ];
    for (name, score) in rows.chain(totals) {
        let Score { right, total } = score;
        println!("  {name:<14} {right:>4} of {total:>4}");
    }
    for line in &report.wrong {
        println!("  wrong: {line}");
    }
}

#[track_caller]
fn check(title: &str, form: Definition) {
    let report = judge_all(form);
    print(title, &report);
    assert!(
        report.executions.right >= EXECUTIONS_FLOOR,
        "{} executions are right, {EXECUTIONS_FLOOR} were",
        report.executions.right
    );
    assert!(
        report.entered.right >= ENTERED_FLOOR,
        "{} counts of entered states are right, {ENTERED_FLOOR} were",
        report.entered.right
    );
}

#[test]
fn executions_end_as_they_did_on_aws() {
    check("definitions in JSON", Definition::Json);
}

#[test]
fn executions_end_the_same_with_definitions_in_yaml() {
    check("definitions in YAML", Definition::Yaml);
}

/// All verdicts, each by its diagnostics.
#[test]
fn definitions_are_refused_as_aws_refuses_them() {
    let mut wrong = Vec::new();
    for asked in suite::verdicts() {
        let parsed = run::parse(&asked.text, asked.machine_type, &BTreeMap::new());
        let is_valid = parsed.application.is_some();
        if is_valid != (asked.verdict == Some(Verdict::Valid)) {
            wrong.push(format!(
                "{}\n{:?}\n{}",
                asked.text, parsed.diagnostics, asked.answer
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

/// What the machine promises of every program.
#[test]
fn a_replay_of_every_case_gives_the_same_execution() {
    for case in load() {
        let Ended { replayed, .. } = run::run(&case, Definition::Json);
        assert!(replayed, "{} differs in its replay", case.id);
    }
}

/// A case is not lost by a suite that cannot be read.
#[test]
fn the_suite_is_whole() {
    let cases: Vec<Case> = load();
    assert_eq!(cases.len(), 455, "the README counts the executions");
}
