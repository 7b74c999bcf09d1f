//! What came out, and whether each survivor is explained.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{Mutant, Verdict};

/// A table of the survivors with reasons; its rows begin with their names.
const EXPLAINED: &str = "docs/mutants.md";

/// The verdicts of the last time.
pub(crate) fn read(out: &Path) -> Result<BTreeMap<String, Verdict>> {
    match fs::read(out.join("verdicts.json")) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(_) => Ok(BTreeMap::new()),
    }
}

pub(crate) fn write(out: &Path, verdicts: &BTreeMap<String, Verdict>) -> Result<()> {
    let text = serde_json::to_vec_pretty(verdicts)?;
    Ok(fs::write(out.join("verdicts.json"), text)?)
}

pub(crate) fn print(
    root: &Path,
    mutants: &[Mutant],
    verdicts: &BTreeMap<String, Verdict>,
) -> Result<ExitCode> {
    let page = fs::read_to_string(root.join(EXPLAINED)).context(EXPLAINED)?;
    // In a cell of a table.
    let page = page.replace(r"\|", "|");
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        if let Some((name, _)) = row.split_once('`') {
            *explained.entry(name).or_default() += 1;
        }
    }

    let count = |is: fn(&Verdict) -> bool| {
        let verdicts = mutants
            .iter()
            .filter_map(|mutant| verdicts.get(&mutant.name));
        verdicts.filter(|verdict| is(verdict)).count()
    };
    let caught = count(|v| matches!(v, Verdict::Caught(_)));
    let timed_out = count(|v| *v == Verdict::TimedOut);
    let missed = count(|v| *v == Verdict::Missed);
    let unviable = count(|v| *v == Verdict::Unviable);
    let viable = caught + timed_out + missed;
    println!(
        "{} mutants: {unviable} do not compile, {} were not judged; of {viable} viable ones {caught} \
         are caught by a test, {timed_out} do not end, {missed} are missed ({:.1} % caught)",
        mutants.len(),
        mutants.len() - viable - unviable,
        share(caught + timed_out, viable),
    );

    let mut unexplained = 0;
    for mutant in mutants {
        if verdicts.get(&mutant.name) != Some(&Verdict::Missed) {
            continue;
        }
        if let Some(left @ 1..) = explained.get_mut(short(mutant).as_str()) {
            *left -= 1;
        } else {
            unexplained += 1;
            println!("missed, and not in {EXPLAINED}: {}", mutant.name);
        }
    }
    Ok(if unexplained == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `FILE: CHANGE`, which stays when lines move.
fn short(mutant: &Mutant) -> String {
    let file = mutant.file.display();
    let change = mutant.name.splitn(4, ':').nth(3).unwrap_or_default();
    format!("{file}:{change}")
}

#[expect(clippy::cast_precision_loss, reason = "thousands at most")]
fn share(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
