//! A copy of the repository in which one crate may be changed; all else are links.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Mutant;

pub(crate) struct Tree {
    original: PathBuf,
    pub(crate) path: PathBuf,
    package: String,
}

impl Tree {
    /// Links what is in `original`, and copies its folder `package` but for what is going to be
    /// written for these mutants.
    pub(crate) fn new(
        original: &Path,
        path: &Path,
        package: &str,
        mutants: &[Mutant],
    ) -> Result<Self> {
        fs::create_dir_all(path)?;
        for entry in fs::read_dir(original)? {
            let name = entry?.file_name();
            let link = path.join(&name);
            if name == package || name == "target" || name == ".git" || link.is_symlink() {
                continue;
            }
            symlink(original.join(&name), &link)
                .with_context(|| format!("linking {}", link.display()))?;
        }
        let tree = Self {
            original: original.to_owned(),
            path: path.to_owned(),
            package: package.to_owned(),
        };
        let changing = tree.changing(mutants).map(|file| path.join(file)).collect();
        copy(&original.join(package), &path.join(package), &changing)?;
        Ok(tree)
    }

    /// The files that are changed for mutants.
    fn changing<'m>(&self, mutants: &'m [Mutant]) -> impl Iterator<Item = PathBuf> + use<'m> {
        let library = Path::new(&self.package).join("src/lib.rs");
        let files: BTreeSet<_> = mutants.iter().map(|mutant| mutant.file.clone()).collect();
        files.into_iter().chain([library])
    }

    pub(crate) fn package(&self) -> PathBuf {
        self.path.join(&self.package)
    }

    /// The text of a file as it is in the repository.
    pub(crate) fn original(&self, file: &Path) -> Result<String> {
        let file = self.original.join(file);
        fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    pub(crate) fn write(&self, file: &Path, text: &str) -> Result<()> {
        write_if_other(&self.path.join(file), text.as_bytes())
    }

    /// Undoes what was changed in the files of `mutants`.
    pub(crate) fn restore(&self, mutants: &[Mutant]) -> Result<()> {
        for file in self.changing(mutants) {
            self.write(&file, &self.original(&file)?)?;
        }
        Ok(())
    }

    /// Makes one mutant, as `cargo mutants` does.
    pub(crate) fn apply(&self, mutant: &Mutant) -> Result<()> {
        let text = self.original(&mutant.file)?;
        let offset = |at: crate::Position| {
            let before: usize = text
                .split_inclusive('\n')
                .take(at.line - 1)
                .map(str::len)
                .sum();
            let line = text[before..].chars().take(at.column - 1);
            before + line.map(char::len_utf8).sum::<usize>()
        };
        let (start, end) = (offset(mutant.span.start), offset(mutant.span.end));
        let changed = format!("{}{}{}", &text[..start], mutant.replacement, &text[end..]);
        self.write(&mutant.file, &changed)
    }
}

fn copy(from: &Path, to: &Path, but: &BTreeSet<PathBuf>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to, but)?;
        } else if !but.contains(&to) {
            write_if_other(&to, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// What is as it was keeps its time, so that it is not built again.
fn write_if_other(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
}
