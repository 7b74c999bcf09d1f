//! Reads a file of tests and the workflow that it is about, and holds the one
//! against the other: a name that the workflow does not have is a mistake, not a
//! test that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::asl::Bindings;
use cascade_cdl::plan;
use cascade_cdl::program::{Application, Program, StateId, StateKind};
use serde_json::Value;

use super::super::validate::{self, Checked};
use super::super::{input, object_files, source};
use super::file::{Ending, Expect, File, Replies, Test};
use crate::config::reader::{self, Path as Place, Problem, Problems, Reader, Segment};

/// Most tests of a file: a person writes dozens, and what makes more by a program
/// makes files.
const MAX_TESTS: usize = 1_000;

/// Names that are told of those that there are; a large workflow has hundreds.
const MAX_NAMES: usize = 20;

/// What a file of definitions may be called, for a file of tests that names none.
const BESIDE: [&str; 3] = ["yaml", "yml", "asl.json"];

/// Tests of one workflow, ready to run.
pub(super) struct Suite {
    /// The file of tests, as it was named.
    pub file: String,
    pub application: String,
    pub program: Arc<Program>,
    /// The file of the workflow.
    pub definition: PathBuf,
    /// Each state's path, by its number.
    pub states: Vec<String>,
    pub activities: PathBuf,
    pub content: File,
}

/// A file of tests that cannot be run.
pub(super) struct Broken {
    pub file: String,
    pub text: String,
    pub problems: Vec<Problem>,
    /// The workflow's file, if that is what is wrong.
    pub definition: Option<Checked>,
}

impl Suite {
    /// Reads a file of tests.
    pub(super) fn read(path: &Path) -> Result<Self, Box<Broken>> {
        let file = path.display().to_string();
        let text = input::read_file(path).map_err(|error| {
            let problem = Problem {
                place: None,
                path: Place::default(),
                message: error.to_string(),
            };
            broken(&file, "", vec![problem], None)
        })?;
        let mut definition = None;
        let read = read(path, &file, &text, &mut definition);
        read.map_err(|problems| broken(&file, &text, problems.list, definition))
    }

    /// What a state is called, by its path.
    pub(super) fn state(&self, id: StateId) -> &str {
        &self.states[id.0 as usize]
    }

    /// The application's name and the workflow's, as on the command line.
    pub(super) fn workflow(&self) -> String {
        format!("{}/{}", self.application, self.program.name)
    }
}

fn broken(
    file: &str,
    text: &str,
    problems: Vec<Problem>,
    definition: Option<Checked>,
) -> Box<Broken> {
    Box::new(Broken {
        file: file.to_owned(),
        text: text.to_owned(),
        problems,
        definition,
    })
}

fn read(
    path: &Path,
    file: &str,
    text: &str,
    definition: &mut Option<Checked>,
) -> Result<Suite, Problems> {
    let mut reader = Reader::new(file, text)?;
    let Some(mut content) = reader.read::<File>() else {
        reader.finish()?;
        unreachable!("what cannot be read has a problem");
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let found = locate(path, folder, &content, &mut reader, definition);
    let mut check = Check {
        reader: &mut reader,
        folder,
        known: found.as_ref().map(|found| Known::of(&found.program)),
    };
    check.file(&mut content);
    reader.finish()?;
    let Some(found) = found else {
        unreachable!("a workflow that is not found is a problem");
    };
    let activities = match &content.activities {
        Some(given) => folder.join(given),
        None => parent(&found.definition),
    };
    let states = (0..).map(StateId).zip(&found.program.states);
    Ok(Suite {
        file: file.to_owned(),
        states: states
            .map(|(id, _)| plan::path(&found.program, id))
            .collect(),
        application: found.application,
        program: found.program,
        definition: found.definition,
        activities,
        content,
    })
}

fn parent(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// The workflow of a file of tests.
struct Located {
    application: String,
    program: Arc<Program>,
    definition: PathBuf,
}

/// Finds the workflow that a file of tests is about; reports why there is none.
fn locate(
    path: &Path,
    folder: &Path,
    content: &File,
    reader: &mut Reader,
    definition: &mut Option<Checked>,
) -> Option<Located> {
    let at = Place::default().join("workflow");
    let given = content.workflow.as_deref().unwrap_or_default();
    let (file, name) = match given.rsplit_once('#') {
        Some((file, name)) => (file, Some(name)),
        None => (given, None),
    };
    let file = if file.is_empty() {
        let Some(beside) = beside(path) else {
            let message = "there is no workflow's file of the same name beside; \
                           say which one is tested with `workflow: FILE`";
            reader.problem(&at, message.to_owned());
            return None;
        };
        beside
    } else {
        folder.join(file)
    };
    let bindings = bindings(folder, content, reader)?;
    let checked = match validate::check(&file, &bindings) {
        Ok(checked) => checked,
        Err(error) => {
            reader.problem(&at, error.to_string());
            return None;
        }
    };
    let Some(application) = &checked.parsed.application else {
        reader.problem(&at, format!("{} is invalid", checked.name));
        *definition = Some(checked);
        return None;
    };
    match choose(application, name) {
        Ok(program) => Some(Located {
            application: application.name.clone(),
            program: object_files::in_one(&program),
            definition: file,
        }),
        Err(message) => {
            reader.problem(&at, message);
            None
        }
    }
}

/// The file of the same name less `.test`.
fn beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = source::TEST_SUFFIXES
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))?;
    let mut candidates = BESIDE
        .iter()
        .map(|kind| path.with_file_name(format!("{stem}.{kind}")));
    candidates.find(|candidate| candidate.is_file())
}

fn bindings(folder: &Path, content: &File, reader: &mut Reader) -> Option<Bindings> {
    let Some(given) = &content.bindings else {
        return Some(Bindings::default());
    };
    let why = match validate::read_bindings(&folder.join(given)) {
        Ok((_, parsed)) => match (parsed.bindings, parsed.diagnostics.first()) {
            (Some(bindings), _) => return Some(bindings),
            (None, first) => first.map(ToString::to_string).unwrap_or_default(),
        },
        Err(error) => error.to_string(),
    };
    reader.problem(&Place::default().join("bindings"), why);
    None
}

fn choose(application: &Application, name: Option<&str>) -> Result<Arc<Program>, String> {
    let workflows = &application.workflows;
    let names = || workflows.keys().map(String::as_str);
    match name {
        None if workflows.len() == 1 => {
            let only = workflows.values().next();
            Ok(Arc::clone(only.expect("there is one")))
        }
        None => Err(format!(
            "the file has several workflows; name one as in `FILE#{}`; there are: {}",
            names().next().unwrap_or_default(),
            names().collect::<Vec<_>>().join(", ")
        )),
        Some(name) => workflows
            .get(name)
            .cloned()
            .ok_or_else(|| unknown("workflow", name, names())),
    }
}

/// Says that there is no such thing, and what may be meant.
fn unknown<'n>(what: &str, given: &str, names: impl Iterator<Item = &'n str> + Clone) -> String {
    if let Some(name) = reader::nearest(given, names.clone()) {
        return format!("there is no {what} `{given}`; did you mean `{name}`?");
    }
    let mut shown: Vec<_> = names.clone().take(MAX_NAMES).collect();
    if names.count() > shown.len() {
        shown.push("...");
    }
    if shown.is_empty() {
        return format!("there is no {what} `{given}`; there are none");
    }
    format!(
        "there is no {what} `{given}`; there are: {}",
        shown.join(", ")
    )
}

/// The names that a workflow has.
struct Known {
    /// States, by path and by name.
    states: BTreeSet<String>,
    /// What can be mocked: activities, children, and the states that run them.
    mocked: BTreeSet<String>,
    /// States that somebody answers, and whether they can be told an error.
    answered: BTreeMap<String, bool>,
    signals: BTreeSet<String>,
}

impl Known {
    fn of(program: &Program) -> Self {
        let mut known = Self {
            states: BTreeSet::new(),
            mocked: BTreeSet::new(),
            answered: BTreeMap::new(),
            signals: BTreeSet::new(),
        };
        for (id, state) in (0..).map(StateId).zip(&program.states) {
            let names = [state.name.to_string(), plan::path(program, id)];
            let (run, undo) = state.resources();
            let resources = run.into_iter().chain(undo);
            known
                .mocked
                .extend(resources.map(|resource| resource.name.to_string()));
            if run.is_some() {
                known.mocked.extend(names.clone());
            }
            if state.is_answered() {
                let fails = !matches!(state.kind, StateKind::Human(_));
                let both = names.clone().map(|name| (name, fails));
                known.answered.extend(both);
            }
            if let StateKind::Event(event) = &state.kind {
                known.signals.insert(event.event.to_string());
            }
            known.states.extend(names);
        }
        known
    }
}

/// Looks through what was read.
struct Check<'c> {
    reader: &'c mut Reader,
    folder: &'c Path,
    /// Unless the workflow is not to be had.
    known: Option<Known>,
}

impl Check<'_> {
    fn file(&mut self, content: &mut File) {
        let root = Place::default();
        self.mocks(&root.join("mocks"), &mut content.mocks);
        let tests = root.join("tests");
        if content.tests.is_empty() {
            self.reader.missing(&root, &["tests"]);
        }
        if content.tests.len() > MAX_TESTS {
            let message = format!("a file has at most {MAX_TESTS} tests");
            self.reader.problem(&tests, message);
        }
        let mut names = BTreeSet::new();
        for (index, test) in content.tests.iter_mut().enumerate() {
            let at = tests.join(index);
            if test.name.is_empty() {
                self.reader.missing(&at, &["name"]);
            } else if !names.insert(test.name.clone()) {
                let message = "an earlier test has the same name".to_owned();
                self.reader.problem(&at.join("name"), message);
            }
            self.test(&at, test);
        }
    }

    fn test(&mut self, at: &Place, test: &mut Test) {
        self.given(&at.join("input"), &mut test.input);
        self.mocks(&at.join("mocks"), &mut test.mocks);
        for (index, signal) in test.signals.iter_mut().enumerate() {
            let at = at.join("signals").join(index);
            self.given(&at.join("payload"), &mut signal.payload);
            if signal.name.is_empty() {
                self.reader.missing(&at, &["name"]);
            } else if let Some(known) = &self.known
                && !known.signals.contains(&signal.name)
            {
                let names = known.signals.iter().map(String::as_str);
                let message = unknown("EventTask that waits for", &signal.name, names);
                self.reader.problem(&at.join("name"), message);
            }
        }
        for (state, replies) in &mut test.answers {
            let at = at.join("answers").join(state.as_str());
            self.answer(&at, state, replies);
        }
        self.expect(&at.join("expect"), &mut test.expect);
    }

    fn mocks(&mut self, at: &Place, mocks: &mut BTreeMap<String, Replies>) {
        for (name, replies) in mocks {
            let at = at.join(name.as_str());
            let what = "activity, or state that runs one,";
            self.name(&at, name, what, |known| &known.mocked);
            self.replies(&at, replies);
        }
    }

    fn answer(&mut self, at: &Place, state: &str, replies: &mut Replies) {
        if let Some(known) = &self.known {
            let names = known.answered.keys().map(String::as_str);
            match known.answered.get(state) {
                None => {
                    let message = unknown("HumanTask or `.waitForTaskToken`", state, names);
                    self.reader.problem(at, message);
                }
                Some(false) if replies.list().iter().any(|reply| reply.fails.is_some()) => {
                    let message = "a person answers a HumanTask, and cannot fail it".to_owned();
                    self.reader.problem(at, message);
                }
                Some(_) => {}
            }
        }
        if let Replies::Real = replies {
            let message = "nobody is there to answer: give a reply".to_owned();
            self.reader.problem(at, message);
        }
        self.replies(at, replies);
    }

    fn replies(&mut self, at: &Place, replies: &mut Replies) {
        match replies {
            Replies::Real => {}
            Replies::One(reply) => self.reply(at, reply),
            Replies::Many(replies) if replies.is_empty() => {
                self.reader.problem(at, "there is no reply".to_owned());
            }
            Replies::Many(replies) => {
                for (index, reply) in replies.iter_mut().enumerate() {
                    self.reply(&at.join(index), reply);
                }
            }
        }
    }

    fn reply(&mut self, at: &Place, reply: &mut super::file::Reply) {
        self.given(&at.join("returns"), &mut reply.returns);
        let given = [reply.returns.is_some(), reply.fails.is_some(), reply.hangs];
        match given.iter().filter(|given| **given).count() {
            0 => self.reader.missing(at, &["returns", "fails", "hangs"]),
            1 => {}
            _ => {
                let message = "only one of `returns`, `fails` and `hangs` can be there".to_owned();
                self.reader.problem(at, message);
            }
        }
        if reply.hangs && reply.after.is_some() {
            let message = "what hangs takes for ever".to_owned();
            self.reader.problem(&at.join("after"), message);
        }
        if reply.times == Some(0) {
            let message = "a reply is for one call at least".to_owned();
            self.reader.problem(&at.join("times"), message);
        }
    }

    fn expect(&mut self, at: &Place, expect: &mut Expect) {
        self.given(&at.join("output"), &mut expect.output);
        self.given(&at.join("contains"), &mut expect.contains);
        let path = expect.path.iter().flatten().enumerate();
        for (index, state) in path.filter(|(_, state)| *state != super::judge::ANY) {
            if !self.is_iterated(state) {
                let place = at.join("path").join(index);
                self.name(&place, state, "state", |known| &known.states);
            }
        }
        for name in expect.calls.keys() {
            let what = "activity, or state that runs one,";
            let place = at.join("calls").join(name.as_str());
            self.name(&place, name, what, |known| &known.mocked);
        }
        if let Some(state) = expect.error.as_ref().and_then(|error| error.state.clone()) {
            let place = at.join("error").join("state");
            self.name(&place, &state, "state", |known| &known.states);
        }
        let ending = File::ending(expect);
        let mut only = |key: &str, given: bool, right: bool, when: &str| {
            if given && !right {
                let message = format!("there is none unless the execution is {when}");
                self.reader.problem(&at.join(key), message);
            }
        };
        let completed = ending == Ending::Completed;
        only("output", expect.output.is_some(), completed, "completed");
        only(
            "contains",
            expect.contains.is_some(),
            completed,
            "completed",
        );
        let failed = ending == Ending::Failed;
        only("error", expect.error.is_some(), failed, "failed");
        if expect.output.is_some() && expect.contains.is_some() {
            let message = "`output` says all of it already".to_owned();
            self.reader.problem(&at.join("contains"), message);
        }
    }

    /// Whether it is a state in a certain iteration of a Map, as in `Orders/3/Ship`.
    fn is_iterated(&self, name: &str) -> bool {
        let mut states = self.known.iter().flat_map(|known| &known.states);
        states.any(|state| is_within(name, state))
    }

    /// Reports a name that the workflow does not have.
    fn name(&mut self, at: &Place, name: &str, what: &str, names: fn(&Known) -> &BTreeSet<String>) {
        if let Some(known) = &self.known
            && !names(known).contains(name)
        {
            let message = unknown(what, name, names(known).iter().map(String::as_str));
            self.reader.problem(at, message);
        }
    }

    /// Puts the content of a file where `@FILE` stands for it. A text that begins
    /// with `@` is written with two.
    fn given(&mut self, at: &Place, value: &mut Option<Value>) {
        let Some(Value::String(text)) = value else {
            return;
        };
        let Some(named) = text.strip_prefix('@') else {
            return;
        };
        if named.starts_with('@') {
            *value = Some(named.into());
            return;
        }
        match read_value(&self.folder.join(named)) {
            Ok(read) => *value = Some(read),
            Err(message) => self.reader.problem(at, message),
        }
    }
}

/// Whether a place is one of this state, indexes of iterations in it or not.
fn is_within(place: &str, state: &str) -> bool {
    let mut state = state.split('/').peekable();
    let parts = place.split('/').all(|part| {
        state.next_if_eq(&part).is_some()
            || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    parts && state.next().is_none()
}

/// A value in a file of its own, JSON or YAML.
fn read_value(path: &Path) -> Result<Value, String> {
    let text = input::read_file(path)
        .map_err(|error| format!("{error}; a text that begins with `@` is written `@@...`"))?;
    // JSON is YAML too, but its own reader takes larger numbers and has better messages.
    let is_yaml = path
        .extension()
        .is_some_and(|kind| kind == "yaml" || kind == "yml");
    let read = if is_yaml {
        serde_yaml::from_str(&text).map_err(|error| error.to_string())
    } else {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    };
    read.map_err(|error| format!("{}: {error}", path.display()))
}

/// Where a problem stands, for people.
pub(super) fn about(problem: &Problem) -> String {
    if problem.path.0.is_empty() {
        return problem.message.clone();
    }
    // The workflow's own names say enough.
    let keys = problem.path.0.iter();
    let named = keys.rev().find_map(|segment| match segment {
        Segment::Key(key) => Some(key.as_str()),
        Segment::Index(_) => None,
    });
    match named {
        Some(key) if problem.message.contains(&format!("`{key}`")) => problem.message.clone(),
        _ => format!("{}: {}", problem.path, problem.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_in_an_iteration_is_named_with_its_index() {
        for (place, state, within) in [
            ("Orders/3/Ship", "Orders/Ship", true),
            ("Orders/Ship", "Orders/Ship", true),
            ("Both/0/E", "Both/0/E", true),
            ("Both/0/Each/17/E", "Both/0/Each/E", true),
            ("Orders/3", "Orders/Ship", false),
            ("Orders/x/Ship", "Orders/Ship", false),
            ("Orders/3/Ship/Late", "Orders/Ship", false),
        ] {
            assert_eq!(is_within(place, state), within, "{place} {state}");
        }
    }

    #[test]
    fn tests_are_about_the_file_beside_of_the_same_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["a.yml", "b.yaml", "b.asl.json", "c.asl.json"] {
            std::fs::write(at(name), "").expect("a file");
        }
        let found = |name: &str| beside(&at(name));
        assert_eq!(found("a.test.yaml"), Some(at("a.yml")));
        assert_eq!(found("b.test.yml"), Some(at("b.yaml")));
        assert_eq!(found("c.test.yaml"), Some(at("c.asl.json")));
        assert_eq!(found("d.test.yaml"), None);
        assert_eq!(found("a.yml"), None, "it names the file outright");
    }

    #[test]
    fn what_there_is_too_much_of_is_not_all_told() {
        let names: Vec<_> = (0..30).map(|n| format!("state-{n}")).collect();
        let told = unknown("state", "something else", names.iter().map(String::as_str));
        assert!(told.ends_with("state-19, ..."), "{told}");
        let told = unknown("state", "state-77", names.iter().map(String::as_str));
        assert!(told.contains("did you mean"), "{told}");
        let told = unknown("signal", "x", std::iter::empty());
        assert!(told.ends_with("there are none"), "{told}");
    }
}
