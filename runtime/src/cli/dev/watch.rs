//! Notices what changes in a project's folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::super::error::Error;
use super::super::source::Project;

/// Changes that wait to be looked at. An editor makes a handful, a checkout of
/// another branch thousands; then everything is looked at again.
const PENDING: usize = 1_024;

/// How long it must be quiet before changes are looked at: editors write a file
/// in several steps.
const QUIET: Duration = Duration::from_millis(150);

/// How long changes wait at most, however busy the folder is.
const LONGEST: Duration = Duration::from_secs(2);

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// These files or folders.
    Paths(BTreeSet<PathBuf>),
    /// More than is worth telling apart.
    Everything,
}

/// Watches the folders of one project.
pub(crate) struct Watch {
    watcher: RecommendedWatcher,
    changes: mpsc::Receiver<PathBuf>,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches the folders that `project` consists of. Not recursively: what
    /// compilers write into `target` is nobody's change.
    pub(crate) fn new(project: &Project) -> Result<Self, Error> {
        let (sender, changes) = mpsc::channel(PENDING);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if event.kind.is_access() {
                return;
            }
            for path in event.paths {
                // A full channel says enough: see `Watch::next`.
                let _ = sender.try_send(path);
            }
        });
        let watcher = watcher.map_err(|error| Error::failed(format!("cannot watch: {error}")))?;
        let mut watch = Self {
            watcher,
            changes,
            watched: BTreeSet::new(),
        };
        watch.follow(project);
        Ok(watch)
    }

    /// Takes up folders that are new. Those that have gone drop out by themselves.
    pub(crate) fn follow(&mut self, project: &Project) {
        for folder in &project.folders {
            if self.watched.contains(folder) {
                continue;
            }
            // A folder that vanished in between, or one too many for the
            // system, is not worth ending for: `cascade apply` is still there.
            if self
                .watcher
                .watch(folder, RecursiveMode::NonRecursive)
                .is_ok()
            {
                self.watched.insert(folder.clone());
            }
        }
        self.watched.retain(|folder| folder.is_dir());
    }

    /// Waits for a change, and for it to be over.
    pub(crate) async fn next(&mut self) -> Option<Change> {
        let first = self.changes.recv().await?;
        let latest = Instant::now() + LONGEST;
        let mut paths = BTreeSet::from([first]);
        let mut everything = false;
        loop {
            everything |= self.changes.len() >= PENDING / 2;
            let quiet = (Instant::now() + QUIET).min(latest);
            match timeout_at(quiet, self.changes.recv()).await {
                Ok(Some(path)) if Instant::now() < latest => {
                    paths.insert(path);
                }
                _ => break,
            }
        }
        everything |= paths.len() >= PENDING / 2;
        Some(if everything {
            Change::Everything
        } else {
            Change::Paths(paths)
        })
    }
}

impl Change {
    /// Whether it concerns a file, a manifest beside it, or anything in a folder.
    pub(crate) fn concerns(&self, item: &Path) -> bool {
        let Self::Paths(paths) = self else {
            return true;
        };
        // Changes are told with absolute paths, whatever is watched.
        let item = absolute(item);
        let stem = item.with_extension("");
        paths.iter().any(|path| {
            let path = absolute(path);
            path.starts_with(&item) || path.with_extension("").with_extension("") == stem
        })
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changed: &str, item: &str, concerned: bool) {
        let change = Change::Paths(BTreeSet::from([PathBuf::from(changed)]));
        assert_eq!(
            change.concerns(Path::new(item)),
            concerned,
            "{changed} and {item}"
        );
    }

    #[test]
    fn a_change_concerns_the_file_and_its_manifest_and_the_crate_around_it() {
        check("p/a.yaml", "p/a.yaml", true);
        check("p/b.yaml", "p/a.yaml", false);
        check("p/a.manifest.yaml", "p/a.wasm", true);
        check("p/ab.manifest.yaml", "p/a.wasm", false);
        check("p/charge/src/lib.rs", "p/charge", true);
        check("p/charge2/src/lib.rs", "p/charge", false);
    }

    #[test]
    fn relative_and_absolute_paths_are_the_same_file() {
        let folder = std::env::current_dir().expect("a folder");
        let absolute = folder.join("p/a.yaml");
        let absolute = absolute.to_str().expect("the workspace's path is UTF-8");
        check(absolute, "p/a.yaml", true);
        check(absolute, "./p/a.yaml", true);
        check(absolute, "./p/b.yaml", false);
    }

    #[tokio::test]
    async fn a_written_file_is_noticed() {
        let root = tempfile::tempdir().expect("a folder");
        let project = Project::scan(root.path()).expect("scanned");
        let mut watch = Watch::new(&project).expect("watching");
        let path = root.path().join("a.yaml");
        std::fs::write(&path, "x").expect("written");
        let change = watch.next().await.expect("a change");
        assert!(change.concerns(&path), "{change:?}");
    }
}
