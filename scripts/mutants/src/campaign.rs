//! Judges mutants by the tests that reach them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Verdict;
use crate::tree::Tree;

/// Tests that take no longer run in one process; it is started for them once.
const FAST: Duration = Duration::from_millis(200);

/// A loop without end may fill memory, in KiB; no test needs a quarter of it.
const MEMORY_KIB: u64 = 4 * 1024 * 1024;

/// Properties are tried with as many cases as find what is wrong, or not by ten times as many;
/// always the same ones, and the first that fails is enough.
const PROPERTIES: [(&str, &str); 3] = [
    ("PROPTEST_CASES", "64"),
    ("PROPTEST_RNG_SEED", "20260131"),
    ("PROPTEST_MAX_SHRINK_ITERS", "0"),
];

struct Test {
    name: String,
    /// Which binary it is in.
    binary: usize,
    takes: Duration,
    reached: BTreeSet<usize>,
}

pub(crate) struct Suite {
    package: PathBuf,
    binaries: Vec<PathBuf>,
    /// The fastest first. One that looks at constants alone reaches no switch.
    tests: Vec<Test>,
}

impl Suite {
    /// Runs every test by itself, to see how long it takes and what it reaches.
    pub(crate) fn new(tree: &Tree, binaries: Vec<PathBuf>) -> Result<Self> {
        let mut suite = Self {
            package: tree.package(),
            binaries,
            tests: Vec::new(),
        };
        let trace = tree.path.with_file_name("reached");
        for binary in 0..suite.binaries.len() {
            for name in suite.names(binary)? {
                fs::write(&trace, "")?;
                let mut command = suite.command(binary, &[&name]);
                command.env("CASCADE_MUTANT_TRACE", &trace);
                let began = Instant::now();
                if let Some(verdict) = run(command, Duration::from_mins(10))? {
                    bail!("{name} does not pass as it is: {verdict:?}");
                }
                let takes = began.elapsed();
                let reached = fs::read_to_string(&trace)?;
                let reached = reached
                    .lines()
                    .map(str::parse)
                    .collect::<Result<BTreeSet<_>, _>>()?;
                suite.tests.push(Test {
                    name,
                    binary,
                    takes,
                    reached,
                });
            }
        }
        suite.tests.sort_by_key(|test| test.takes);
        let takes: Duration = suite.tests.iter().map(|test| test.takes).sum();
        println!("{} tests, {takes:?} in all", suite.tests.len());
        Ok(suite)
    }

    /// The same tests, of binaries that were built again.
    pub(crate) fn rebuilt(&self, binaries: Vec<PathBuf>) -> Suite {
        let named = |path: &PathBuf| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            name.rsplit_once('-').map(|(name, _)| name.to_owned())
        };
        let places: BTreeMap<_, _> = self.binaries.iter().map(named).zip(0..).collect();
        let mut binaries = binaries;
        binaries.sort_by_key(|path| places.get(&named(path)).copied());
        let tests = self.tests.iter().map(|test| Test {
            name: test.name.clone(),
            binary: test.binary,
            takes: test.takes,
            reached: BTreeSet::new(),
        });
        Suite {
            package: self.package.clone(),
            binaries,
            tests: tests.collect(),
        }
    }

    /// Runs what reaches a mutant, all if it is built in, until a test fails.
    pub(crate) fn judge(&self, mutant: Option<usize>) -> Result<Verdict> {
        let reaches = |test: &&Test| mutant.is_none_or(|mutant| test.reached.contains(&mutant));
        let (fast, slow): (Vec<_>, Vec<_>) = self
            .tests
            .iter()
            .filter(reaches)
            .partition(|test| test.takes <= FAST);
        let mut waves: Vec<Vec<&Test>> = Vec::new();
        for binary in 0..self.binaries.len() {
            let wave: Vec<_> = fast
                .iter()
                .copied()
                .filter(|test| test.binary == binary)
                .collect();
            waves.extend((!wave.is_empty()).then_some(wave));
        }
        // Where most tests reach it, one is most likely to notice.
        waves.sort_by_key(|wave| std::cmp::Reverse(wave.len()));
        waves.extend(slow.into_iter().map(|test| vec![test]));
        for wave in waves {
            let names: Vec<_> = wave.iter().map(|test| test.name.as_str()).collect();
            let mut command = self.command(wave[0].binary, &names);
            if let Some(mutant) = mutant {
                command.env("CASCADE_MUTANT", mutant.to_string());
            }
            let takes: Duration = wave.iter().map(|test| test.takes).sum();
            if let Some(verdict) = run(command, Duration::from_secs(5) + takes * 10)? {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Missed)
    }

    fn command(&self, binary: usize, tests: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$@\""), "sh"])
            .arg(&self.binaries[binary])
            .args(["--test-threads=1", "--exact"])
            .args(tests)
            .envs(PROPERTIES)
            .current_dir(&self.package);
        command
    }

    fn names(&self, binary: usize) -> Result<Vec<String>> {
        let path = &self.binaries[binary];
        let out = Command::new(path)
            .args(["--list", "--format", "terse"])
            .output()
            .with_context(|| format!("running {}", path.display()))?;
        let out = String::from_utf8(out.stdout)?;
        let tests = out.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(tests.map(ToOwned::to_owned).collect())
    }
}

/// Runs tests until one fails; `None` if all pass.
fn run(mut command: Command, limit: Duration) -> Result<Option<Verdict>> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting tests")?;
    let stdout = child.stdout.take().context("it is piped")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let verdict = watch(&mut child, &lines, limit);
    child.kill().ok();
    child.wait()?;
    drop(lines);
    reader.join().ok();
    verdict
}

fn watch(
    child: &mut Child,
    lines: &mpsc::Receiver<String>,
    limit: Duration,
) -> Result<Option<Verdict>> {
    let end = Instant::now() + limit;
    let mut last = String::new();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(name) = line.strip_prefix("test ")
                    && let Some(name) = name.strip_suffix(" ... FAILED")
                {
                    return Ok(Some(Verdict::Caught(name.to_owned())));
                }
                last = line;
            }
            Err(RecvTimeoutError::Timeout) => return Ok(Some(Verdict::TimedOut)),
            // It has ended, well or by a signal.
            Err(RecvTimeoutError::Disconnected) => {
                let passed = child.wait()?.success();
                return Ok((!passed).then(|| Verdict::Caught(format!("a crash after `{last}`"))));
            }
        }
    }
}
