//! Mutation testing of the machine: `scripts/mutants.sh`.
//!
//! `cargo mutants` says which mutants there are. It would build the crate once for each;
//! here all of them are built at once, each behind a switch (`instrument`), in a copy of
//! the tree (`tree`). Those that the compiler refuses are not viable (`compile`). Then each
//! is judged by the tests that reach it, the fast ones first, until one fails
//! (`campaign`). Those that no test notices have to be explained (`report`).
//!
//! What cannot be switched at run time, the value of a constant, is built and judged by
//! itself.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

mod campaign;
mod compile;
mod instrument;
mod report;
mod tree;

/// One entry of `cargo mutants --list --json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mutant {
    /// `FILE:LINE:COLUMN: CHANGE`.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) span: Span,
    pub(crate) replacement: String,
    pub(crate) genre: Genre,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Span {
    pub(crate) start: Position,
    pub(crate) end: Position,
}

/// From 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<proc_macro2::LineColumn> for Position {
    fn from(at: proc_macro2::LineColumn) -> Self {
        Self {
            line: at.line,
            column: at.column + 1,
        }
    }
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// By this test.
    Caught(String),
    /// The tests did not end in ten times their time: caught as well.
    TimedOut,
    Missed,
    /// It does not compile.
    Unviable,
    /// None yet: it has to be built by itself.
    Alone,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [list, out, rest @ ..] = arguments.as_slice() else {
        bail!("usage: mutants LIST OUT [--missed] [NAME-PART..]");
    };
    let root = env::current_dir()?;
    let out = root.join(out);
    let listed = std::fs::read(list).with_context(|| format!("reading {list}"))?;
    let mutants: Vec<Mutant> = serde_json::from_slice(&listed)?;

    let (flags, words): (Vec<_>, Vec<_>) = rest.iter().partition(|word| *word == "--missed");
    let mut verdicts = Verdicts {
        out: out.clone(),
        of: if flags.is_empty() && words.is_empty() {
            BTreeMap::new()
        } else {
            report::read(&out)?
        },
    };
    let is_chosen = |mutant: &Mutant| {
        let named = words.is_empty() || words.iter().any(|word| mutant.name.contains(*word));
        let before = verdicts.of.get(&mutant.name);
        named
            && (flags.is_empty()
                || before.is_none_or(|v| [Verdict::Missed, Verdict::Alone].contains(v)))
    };
    let chosen: Vec<_> = (0..mutants.len())
        .filter(|at| is_chosen(&mutants[*at]))
        .collect();

    judge(&root, &mutants, &chosen, &mut verdicts)?;
    report::print(&root, &mutants, &verdicts.of)
}

/// What is known of each mutant, by its name; kept as it comes in, so that a campaign that was
/// ended goes on with `--missed`.
struct Verdicts {
    out: PathBuf,
    of: BTreeMap<String, Verdict>,
}

impl Verdicts {
    fn note(&mut self, mutant: &Mutant, verdict: Verdict) -> Result<()> {
        println!("{verdict:?}  {}", mutant.name);
        self.of.insert(mutant.name.clone(), verdict);
        report::write(&self.out, &self.of)
    }
}

fn judge(root: &Path, mutants: &[Mutant], chosen: &[usize], verdicts: &mut Verdicts) -> Result<()> {
    let tree = tree::Tree::new(root, &verdicts.out.join("tree"), "cdl", mutants)?;
    let known = |verdict: Verdict| {
        let is = |at: &usize| verdicts.of.get(&mutants[*at].name) == Some(&verdict);
        (0..mutants.len()).filter(is).collect()
    };
    let (refused, alone) = (known(Verdict::Unviable), known(Verdict::Alone));
    let built = compile::all_at_once(&tree, mutants, refused, alone)?;
    for (ids, verdict) in [
        (&built.refused, Verdict::Unviable),
        (&built.alone, Verdict::Alone),
    ] {
        for at in ids {
            verdicts.note(&mutants[*at], verdict.clone())?;
        }
    }

    let suite = campaign::Suite::new(&tree, compile::tests(&tree)?)?;
    for at in chosen.iter().filter(|at| built.switched.contains(at)) {
        verdicts.note(&mutants[*at], suite.judge(Some(*at))?)?;
    }

    // Those that have to be built: constants, and what the compiler infers otherwise when it
    // stands beside the original.
    for at in chosen {
        if built.switched.contains(at) || built.refused.contains(at) {
            continue;
        }
        tree.restore(mutants)?;
        tree.apply(&mutants[*at])?;
        let verdict = match compile::tests(&tree) {
            Ok(tests) => suite.rebuilt(tests).judge(None)?,
            Err(_) => Verdict::Unviable,
        };
        verdicts.note(&mutants[*at], verdict)?;
    }
    Ok(())
}
