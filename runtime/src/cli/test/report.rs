//! Tells how tests went: to people as they end, to programs as one document or as
//! `JUnit` XML.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cascade_cdl::coverage::{Cause, Coverage, Edge, Trace};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::diagnostics;
use super::super::error::Error;
use super::super::output::{Output, Table, Tone, paint, plain, stdout};
use super::judge::Mismatch;
use super::load::{Broken, Suite, about};
use super::play::Played;

/// A test that was run.
#[derive(Serialize)]
struct Ran {
    file: String,
    workflow: String,
    name: String,
    passed: bool,
    /// The states that it entered.
    path: Vec<String>,
    /// In virtual time.
    took_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<Mismatch>,
}

/// A file that could not be run.
#[derive(Serialize)]
struct Unread {
    file: String,
    problems: Vec<Value>,
}

/// What the tests of one workflow went through.
struct Covered {
    /// The application's name and the workflow's.
    workflow: String,
    file: PathBuf,
    /// Paths of its states, by their numbers.
    states: Vec<String>,
    coverage: Coverage,
}

/// How much of something is covered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Share {
    covered: usize,
    total: usize,
}

impl Share {
    fn of(all: impl Iterator<Item = bool>) -> Self {
        all.fold(Self::default(), |share, covered| Self {
            covered: share.covered + usize::from(covered),
            total: share.total + 1,
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            covered: self.covered + other.covered,
            total: self.total + other.total,
        }
    }

    /// Whether it is at least so many of a hundred.
    fn reaches(self, percent: u8) -> bool {
        self.covered * 100 >= usize::from(percent) * self.total
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.covered, self.total)
    }
}

/// All that is to be told.
#[derive(Default)]
pub(super) struct Report {
    ran: Vec<Ran>,
    unread: Vec<Unread>,
    /// By file and workflow.
    covered: BTreeMap<(PathBuf, String), Covered>,
    /// Tests that were not chosen.
    left_out: usize,
    /// The file that was told of last.
    heading: String,
}

impl Report {
    /// Tells of a file that cannot be run.
    pub(super) fn broken(&mut self, broken: &Broken, output: Output) {
        if let Some(checked) = &broken.definition {
            checked.show(output);
        }
        let mut problems = Vec::new();
        for problem in &broken.problems {
            let message = about(problem);
            let place = problem.place;
            let text =
                diagnostics::render_problem(&broken.file, &broken.text, place, &message, true);
            output.note(format!("{text}\n"));
            problems.push(json!({
                "line": place.map(|place| place.0),
                "column": place.map(|place| place.1),
                "path": problem.path.to_string(),
                "message": problem.message,
            }));
        }
        self.unread.push(Unread {
            file: broken.file.clone(),
            problems,
        });
    }

    /// Tells of a file whose activities are not to be had.
    pub(super) fn unready(&mut self, suite: &Suite, error: &Error, output: Output) {
        output.error(error);
        self.unread.push(Unread {
            file: suite.file.clone(),
            problems: vec![json!({ "message": error.to_string() })],
        });
    }

    /// Takes in that so many tests were not chosen.
    pub(super) fn leave_out(&mut self, tests: usize) {
        self.left_out += tests;
    }

    /// Whether there was nothing to run.
    pub(super) fn is_empty(&self) -> bool {
        self.ran.is_empty() && self.unread.is_empty()
    }

    fn covered_by(&mut self, suite: &Suite) -> &mut Covered {
        let file = &suite.definition;
        let whole = std::fs::canonicalize(file).unwrap_or_else(|_| file.clone());
        let key = (whole, suite.program.name.clone());
        self.covered.entry(key).or_insert_with(|| Covered {
            workflow: suite.workflow(),
            file: file.clone(),
            states: suite.states.clone(),
            coverage: Coverage::new(&suite.program),
        })
    }

    /// Tells of a test.
    pub(super) fn ran(
        &mut self,
        suite: &Suite,
        name: &str,
        played: &Played,
        failures: Vec<Mismatch>,
        output: Output,
    ) {
        self.cover(suite, &played.trace);
        if !output.is_json() {
            if self.heading != suite.file {
                self.heading.clone_from(&suite.file);
                let workflow = paint(Tone::Faint, suite.workflow());
                stdout(&format!("{} {workflow}", paint(Tone::Strong, &suite.file)));
            }
            stdout(&told(name, played, &failures));
        }
        self.ran.push(Ran {
            file: suite.file.clone(),
            workflow: suite.workflow(),
            name: name.to_owned(),
            passed: failures.is_empty(),
            path: played
                .visits
                .iter()
                .map(|visit| visit.place.clone())
                .collect(),
            took_ms: u64::try_from(played.took.as_millis()).unwrap_or(u64::MAX),
            failures,
        });
    }

    fn cover(&mut self, suite: &Suite, trace: &Trace) {
        self.covered_by(suite).coverage.add(trace);
    }

    /// Tells of all of them together; says whether all is well.
    pub(super) fn conclude(&self, min_coverage: Option<u8>, output: Output) -> bool {
        let failed = self.ran.iter().filter(|ran| !ran.passed).count();
        let (states, edges) = self.shares();
        let covers =
            min_coverage.is_none_or(|percent| states.reaches(percent) && edges.reaches(percent));
        let well = failed == 0 && self.unread.is_empty() && covers;
        output.result(&self.document(failed, well), || self.summary(failed));
        if !covers {
            let wanted = min_coverage.unwrap_or_default();
            let text = format!(
                "covered are {states} states and {edges} transitions, less than {wanted} %"
            );
            output.note(paint(Tone::Bad, text));
        }
        well
    }

    /// States and transitions of all workflows.
    fn shares(&self) -> (Share, Share) {
        let none = (Share::default(), Share::default());
        self.covered
            .values()
            .fold(none, |(states, edges), covered| {
                (states.plus(covered.states()), edges.plus(covered.edges()))
            })
    }

    fn summary(&self, failed: usize) -> String {
        let mut text = String::new();
        if !self.covered.is_empty() {
            text.push('\n');
            text.push_str(&self.coverage_text());
            text.push('\n');
        }
        let passed = self.ran.len() - failed;
        let mut parts = vec![(Tone::Good, passed, "passed")];
        parts.push((Tone::Bad, failed, "failed"));
        parts.push((Tone::Bad, self.unread.len(), "not read"));
        parts.push((Tone::Faint, self.left_out, "left out"));
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(_, count, what)| *count > 0 || *what == "passed")
            .map(|(tone, count, what)| {
                let tone = if count == 0 { Tone::Plain } else { tone };
                paint(tone, format!("{count} {what}"))
            })
            .collect();
        format!("{text}\n{}", parts.join(", "))
    }

    fn coverage_text(&self) -> String {
        let mut table = Table::new(&["workflow", "states", "transitions"]);
        let mut missed = Vec::new();
        for covered in self.covered.values() {
            let (states, edges) = (covered.states(), covered.edges());
            let tone = |share: Share| {
                if share.covered == share.total {
                    Tone::Good
                } else {
                    Tone::Busy
                }
            };
            table.row([
                (covered.workflow.clone(), Tone::Plain),
                (states.to_string(), tone(states)),
                (edges.to_string(), tone(edges)),
            ]);
            let missing: Vec<_> = covered.missing().collect();
            if !missing.is_empty() {
                missed.push(format!("not covered of {}:", covered.workflow));
                missed.extend(missing.iter().map(|what| format!("  {what}")));
            }
        }
        let mut text = table.render();
        for line in missed {
            write!(text, "\n{}", plain(&line)).expect("writing to a string does not fail");
        }
        text
    }

    fn document(&self, failed: usize, well: bool) -> Value {
        let coverage: Vec<_> = self.covered.values().map(Covered::document).collect();
        let (states, edges) = self.shares();
        json!({
            "passed": self.ran.len() - failed,
            "failed": failed,
            "left_out": self.left_out,
            "ok": well,
            "tests": self.ran,
            "unread": self.unread,
            "coverage": { "states": states, "transitions": edges, "workflows": coverage },
        })
    }

    /// All tests as `JUnit` XML, which continuous integration reads.
    pub(super) fn junit(&self) -> String {
        let mut files: BTreeMap<&str, Vec<&Ran>> = BTreeMap::new();
        for ran in &self.ran {
            files.entry(&ran.file).or_default().push(ran);
        }
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for (file, tests) in files {
            let failed = tests.iter().filter(|ran| !ran.passed).count();
            let head = format!(
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\">\n",
                escape(file),
                tests.len()
            );
            xml.push_str(&head);
            for ran in tests {
                xml.push_str(&ran.junit());
            }
            xml.push_str("  </testsuite>\n");
        }
        for unread in &self.unread {
            let file = escape(&unread.file);
            let messages = unread.problems.iter().filter_map(|p| p["message"].as_str());
            let messages = escape(&messages.collect::<Vec<_>>().join("\n"));
            let text = format!(
                "  <testsuite name=\"{file}\" tests=\"1\" failures=\"0\" errors=\"1\">\n    \
                 <testcase classname=\"{file}\" name=\"reads\"><error message=\"{messages}\"/></testcase>\n  \
                 </testsuite>\n"
            );
            xml.push_str(&text);
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

impl Ran {
    fn junit(&self) -> String {
        let head = format!(
            "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\"",
            escape(&self.workflow),
            escape(&self.name),
            escape(&self.file)
        );
        if self.passed {
            return format!("{head}/>\n");
        }
        let what: Vec<_> = self
            .failures
            .iter()
            .map(|found| found.what.as_str())
            .collect();
        let mut text = String::new();
        for found in &self.failures {
            for (_, line) in &found.lines {
                writeln!(text, "{}: {line}", found.what)
                    .expect("writing to a string does not fail");
            }
        }
        let (what, text) = (escape(&what.join(", ")), escape(&text));
        format!("{head}><failure message=\"{what}\">{text}</failure></testcase>\n")
    }
}

impl Covered {
    fn states(&self) -> Share {
        Share::of(self.coverage.states().map(|(_, covered)| covered))
    }

    fn edges(&self) -> Share {
        Share::of(self.coverage.edges().map(|(_, covered)| covered))
    }

    fn name(&self, edge: Edge) -> (&str, &str) {
        let name = |at: u32| self.states[at as usize].as_str();
        (name(edge.from.0), name(edge.to.0))
    }

    fn missed_states(&self) -> impl Iterator<Item = &str> {
        let missed = self.coverage.states().filter(|(_, covered)| !covered);
        missed.map(|(id, _)| self.states[id.0 as usize].as_str())
    }

    fn missed_edges(&self) -> impl Iterator<Item = Edge> {
        let missed = self.coverage.edges().filter(|(_, covered)| !covered);
        missed.map(|(edge, _)| edge)
    }

    /// What no test went through, for people.
    fn missing(&self) -> impl Iterator<Item = String> {
        let states = self.missed_states().map(|name| format!("state {name}"));
        let edges = self.missed_edges().map(|edge| {
            let (from, to) = self.name(edge);
            let cause = match edge.cause {
                Cause::Next => "",
                Cause::Caught => " (caught)",
                Cause::Inside => " (inside)",
            };
            format!("{from} → {to}{cause}")
        });
        states.chain(edges)
    }

    fn document(&self) -> Value {
        let missed_edges: Vec<_> = self
            .missed_edges()
            .map(|edge| {
                let (from, to) = self.name(edge);
                json!({ "from": from, "to": to, "cause": edge.cause })
            })
            .collect();
        let (states, edges) = (self.states(), self.edges());
        let missed_states: Vec<_> = self.missed_states().collect();
        json!({
            "workflow": self.workflow,
            "file": self.file,
            "states": { "covered": states.covered, "total": states.total, "missed": missed_states },
            "transitions": { "covered": edges.covered, "total": edges.total, "missed": missed_edges },
        })
    }
}

/// A test and what is wrong with it, for people.
fn told(name: &str, played: &Played, failures: &[Mismatch]) -> String {
    let name = plain(name);
    let mut lines = Vec::new();
    if failures.is_empty() {
        lines.push(format!("  {} {name}", paint(Tone::Good, "✓")));
    } else {
        lines.push(format!("  {} {name}", paint(Tone::Bad, "✗")));
        for found in failures {
            lines.push(format!("      {}", paint(Tone::Strong, &found.what)));
            for (tone, text) in &found.lines {
                lines.push(format!("        {}", paint(*tone, plain(text))));
            }
        }
        if !played.log.is_empty() {
            lines.push(format!("      {}", paint(Tone::Strong, "log")));
            let log = played.log.iter();
            lines.extend(log.map(|line| format!("        {}", paint(Tone::Faint, line))));
        }
        // They have their colours, and no control characters of others.
        let history = played.history.iter().flat_map(|step| step.lines());
        lines.extend(history.map(|line| format!("      {line}")));
    }
    lines.join("\n")
}

/// Text as XML holds it: it has no way at all to say most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Writes a report in a file.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let written = std::fs::write(path, text);
    written.map_err(|source| Error::file("write", path, &source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_takes_any_text() {
        assert_eq!(
            escape("<a b=\"c\">&\n\u{1b}[31m"),
            "&lt;a b=&quot;c&quot;&gt;&amp;&#10;\u{fffd}[31m"
        );
    }

    #[test]
    fn a_share_reaches_what_it_is_not_below() {
        let share = Share {
            covered: 2,
            total: 3,
        };
        assert!(share.reaches(66) && !share.reaches(67));
        assert!(Share::default().reaches(100), "there is nothing to cover");
    }
}
