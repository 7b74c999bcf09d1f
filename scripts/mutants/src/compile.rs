//! Builds the tree, and finds the mutants that the compiler refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::instrument::{Branches, SWITCH, instrument};
use crate::tree::Tree;
use crate::{Genre, Mutant, Position};

/// Each round finds what the compiler looks for in one of its passes.
const MAX_ROUNDS: usize = 12;

/// A line of what Cargo says.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Said {
    CompilerMessage {
        message: Message,
    },
    CompilerArtifact {
        executable: Option<PathBuf>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    rendered: Option<String>,
    spans: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    file_name: PathBuf,
    is_primary: bool,
    line_start: usize,
    column_start: usize,
    line_end: usize,
    column_end: usize,
}

/// What became of the mutants that can be built together.
pub(crate) struct Built {
    /// Those that have a switch.
    pub(crate) switched: BTreeSet<usize>,
    /// Those that do not compile.
    pub(crate) refused: BTreeSet<usize>,
    /// Those that do not beside the original.
    pub(crate) alone: BTreeSet<usize>,
}

/// Puts all mutants that compile behind switches. Those in `refused` and `alone` are known not to.
pub(crate) fn all_at_once(
    tree: &Tree,
    mutants: &[Mutant],
    mut refused: BTreeSet<usize>,
    mut alone: BTreeSet<usize>,
) -> Result<Built> {
    let mut files: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
    for (id, mutant) in mutants.iter().enumerate() {
        files.entry(&mutant.file).or_default().push(id);
    }
    let library = tree.package().join("src/lib.rs");
    let library = library.strip_prefix(&tree.path)?;
    ensure!(
        !files.contains_key(library),
        "the switches are in src/lib.rs"
    );
    tree.write(library, &(tree.original(library)? + SWITCH))?;

    for _ in 0..MAX_ROUNDS {
        let mut switched = BTreeSet::new();
        let mut branches = BTreeMap::new();
        for (file, ids) in &files {
            let wanted = ids
                .iter()
                .filter(|id| !refused.contains(*id) && !alone.contains(*id));
            let wanted = wanted.map(|id| (*id, &mutants[*id]));
            let made = instrument(&tree.original(file)?, wanted)
                .with_context(|| format!("changing {}", file.display()))?;
            tree.write(file, &made.code)?;
            branches.insert(*file, Branches::of(&made.code)?);
            switched.extend(made.placed);
            refused.extend(made.refused);
        }
        let errors = errors_of(tree)?;
        println!("{} switched, {} errors", switched.len(), errors.len());
        if errors.is_empty() {
            return Ok(Built {
                switched,
                refused,
                alone,
            });
        }
        let found: Vec<_> = errors
            .iter()
            .filter_map(|error| {
                find(error, &branches, |branches, start, end| {
                    branches.around(start, end)
                })
            })
            .collect();
        if found.is_empty() {
            // Then it is one that does not fit the original.
            let beside: BTreeSet<_> = errors
                .iter()
                .filter_map(|error| {
                    find(error, &branches, |branches, start, end| {
                        branches.beside(start, end)
                    })
                })
                .flatten()
                .collect();
            if beside.is_empty() {
                bail!("no mutant is to blame for:\n{}", rendered(&errors));
            }
            alone.extend(beside);
        }
        // Asking the rest for a field takes what the original needs; without the original it may
        // well compile.
        let (fields, found): (Vec<_>, Vec<_>) =
            (found.into_iter()).partition(|id| mutants[*id].genre == Genre::StructField);
        alone.extend(fields);
        refused.extend(found);
    }
    bail!("there are errors after {MAX_ROUNDS} rounds")
}

/// What `look` finds first at the places of an error.
fn find<T>(
    error: &Message,
    branches: &BTreeMap<&Path, Branches>,
    look: impl Fn(&Branches, Position, Position) -> Option<T>,
) -> Option<T> {
    let mut places: Vec<_> = error.spans.iter().collect();
    places.sort_by_key(|place| !place.is_primary);
    places.iter().find_map(|place| {
        let at = |line, column| Position { line, column };
        let start = at(place.line_start, place.column_start);
        let end = at(place.line_end, place.column_end);
        look(branches.get(&*place.file_name)?, start, end)
    })
}

fn rendered(errors: &[Message]) -> String {
    errors
        .iter()
        .filter_map(|error| error.rendered.clone())
        .collect()
}

fn errors_of(tree: &Tree) -> Result<Vec<Message>> {
    let said = cargo(tree, &["check", "--lib"])?;
    let messages = said.into_iter().filter_map(|said| match said {
        Said::CompilerMessage { message } => Some(message),
        _ => None,
    });
    // "aborting due to" so many errors is one without a place.
    Ok(messages
        .filter(|message| message.level == "error" && !message.spans.is_empty())
        .collect())
}

/// Builds the tests; gives their binaries.
pub(crate) fn tests(tree: &Tree) -> Result<Vec<PathBuf>> {
    let said = cargo(tree, &["test", "--no-run", "--lib", "--tests"])?;
    let mut executables = Vec::new();
    let mut errors = Vec::new();
    for said in said {
        match said {
            Said::CompilerArtifact {
                executable: Some(executable),
            } => executables.push(executable),
            Said::CompilerMessage { message } if message.level == "error" => errors.push(message),
            _ => {}
        }
    }
    if !errors.is_empty() || executables.is_empty() {
        bail!("the tests do not build:\n{}", rendered(&errors));
    }
    Ok(executables)
}

fn cargo(tree: &Tree, arguments: &[&str]) -> Result<Vec<Said>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(arguments)
        .args(["--locked", "--message-format=json"])
        // A mutant that always overflows is refused by a lint; its tests should see it.
        .env("RUSTFLAGS", "--cap-lints=allow")
        .arg("--manifest-path")
        .arg(tree.package().join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", tree.path.with_file_name("build"))
        // The tests run a thousand times as often as they are built.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .current_dir(&tree.path)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    let lines = out
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).context("reading what cargo says"))
        .collect()
}
