//! What lies in a project's folder: CDL files, their tests, and activities as `.wasm`
//! files or as crates that build to one.
//!
//! A `.wasm` file may have a manifest beside it, `NAME.manifest.yaml`; that of a
//! crate stands in its `Cargo.toml` under `[package.metadata.cascade]`.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::input;
use crate::catalog::Manifest;
use crate::sandbox::MAX_MODULE_BYTES;

/// How deep folders are looked into: `activities/group/name` needs three, and a
/// link that leads upwards ends somewhere.
const MAX_DEPTH: usize = 6;

/// Files and folders that are looked at. A project has hundreds; more means
/// that somebody pointed at the wrong folder.
const MAX_ENTRIES: usize = 20_000;

/// Folders that never hold sources of a project.
const SKIPPED: [&str; 3] = ["target", "node_modules", "inputs"];

/// Files of the operator and of `cascade sim`, which are YAML and not CDL.
const NOT_CDL: [&str; 6] = [
    "cascade.yaml",
    "cascade.yml",
    "bindings.yaml",
    "bindings.yml",
    "invariants.yaml",
    "invariants.yml",
];

/// What definitions in the States Language are called.
const DEFINITION_SUFFIX: &str = ".asl.json";

/// End the names of files of tests, which `cascade test` runs.
pub(crate) const TEST_SUFFIXES: [&str; 2] = [".test.yaml", ".test.yml"];

/// Ends the name of a manifest beside a `.wasm` file.
pub(crate) const MANIFEST_SUFFIX: &str = ".manifest.yaml";

/// What a folder holds, in the order of names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    pub cdl: Vec<PathBuf>,
    /// Files of tests of workflows.
    pub tests: Vec<PathBuf>,
    pub modules: Vec<PathBuf>,
    /// Folders of crates that are activities.
    pub crates: Vec<PathBuf>,
    /// All folders that were looked at: where a change concerns the project.
    pub folders: Vec<PathBuf>,
}

/// An activity that is ready to be pushed or run.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub name: String,
    pub wasm: PathBuf,
    pub manifest: Manifest,
}

/// Where a walk through folders stands.
struct Walk {
    entries: usize,
    in_crate: bool,
}

impl Project {
    /// Looks through `root`: a folder, or a single file.
    pub(crate) fn scan(root: &Path) -> Result<Self, Error> {
        let mut project = Self::default();
        let metadata = fs::metadata(root).map_err(|source| Error::file("read", root, &source))?;
        if metadata.is_file() {
            project.file(root.to_owned());
            return Ok(project);
        }
        let mut walk = Walk {
            entries: 0,
            in_crate: false,
        };
        project.folder(root, MAX_DEPTH, &mut walk)?;
        Ok(project)
    }

    /// Whether it has nothing that could be loaded.
    pub(crate) fn is_empty(&self) -> bool {
        self.cdl.is_empty() && self.modules.is_empty() && self.crates.is_empty()
    }

    fn folder(&mut self, folder: &Path, depth: usize, walk: &mut Walk) -> Result<(), Error> {
        self.folders.push(folder.to_owned());
        // What lies inside of a crate is the crate's business, but for what stands right
        // in the folder that was pointed at: a workflow beside the one activity it uses.
        let pointed_at = depth == MAX_DEPTH;
        let enters_crate = !walk.in_crate && is_activity_crate(folder);
        if enters_crate {
            self.crates.push(folder.to_owned());
            walk.in_crate = true;
        }
        let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut listed: Vec<PathBuf> = listed
            .map_err(|source| Error::file("read", folder, &source))?
            .into_iter()
            .map(|entry| entry.path())
            .collect();
        listed.sort();
        for path in listed {
            walk.entries += 1;
            if walk.entries > MAX_ENTRIES {
                return Err(Error::usage(format!(
                    "{} holds more than {MAX_ENTRIES} files",
                    folder.display()
                ))
                .hint("point at the folder of one project"));
            }
            let name = file_name(&path);
            if name.starts_with('.') || SKIPPED.contains(&name) {
                continue;
            }
            if path.is_dir() {
                if depth > 0 {
                    self.folder(&path, depth - 1, walk)?;
                }
            } else if pointed_at || !walk.in_crate {
                self.file(path);
            }
        }
        walk.in_crate &= !enters_crate;
        Ok(())
    }

    fn file(&mut self, path: PathBuf) {
        let name = file_name(&path);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") if is_test(&path) => self.tests.push(path),
            Some("yaml" | "yml")
                if !NOT_CDL.contains(&name) && !name.ends_with(MANIFEST_SUFFIX) =>
            {
                self.cdl.push(path);
            }
            // Other JSON is data.
            Some("json") if name.ends_with(DEFINITION_SUFFIX) => self.cdl.push(path),
            Some("wasm") => self.modules.push(path),
            _ => {}
        }
    }
}

/// Whether a folder holds a crate that builds to an activity: it says so in its
/// `Cargo.toml`, or depends on the SDK.
pub(crate) fn is_activity_crate(folder: &Path) -> bool {
    let manifest = folder.join("Cargo.toml");
    fs::read_to_string(manifest).is_ok_and(|text| {
        let mut lines = text.lines().map(str::trim);
        text.contains("[package.metadata.cascade")
            // A workspace may name the SDK for its members, and the SDK names itself.
            || (lines.any(|line| line == "[package]")
                && text.contains("cascade-sdk")
                && !text.contains("name = \"cascade-sdk"))
    })
}

/// The activity in a `.wasm` file.
pub(crate) fn module(path: &Path) -> Result<Found, Error> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let name = stem.ok_or_else(|| {
        Error::usage(format!(
            "{} has no name to call the activity by",
            path.display()
        ))
    })?;
    let beside = path.with_file_name(format!("{name}{MANIFEST_SUFFIX}"));
    let manifest = if beside.is_file() {
        manifest(&beside)?
    } else {
        Manifest::default()
    };
    Ok(Found {
        name: name.to_owned(),
        wasm: path.to_owned(),
        manifest,
    })
}

/// A manifest in a file of its own, YAML or JSON.
pub(crate) fn manifest(path: &Path) -> Result<Manifest, Error> {
    let text = input::read_file(path)?;
    let manifest: Manifest = serde_yaml::from_str(&text)
        .map_err(|source| Error::usage(format!("{}: {source}", path.display())))?;
    manifest
        .check()
        .map_err(|problem| Error::usage(format!("{}: {problem}", path.display())))?;
    Ok(manifest)
}

/// The bytes of a module that is not larger than one may be.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, Error> {
    let wasm = input::read_bytes(path)?;
    if wasm.len() > MAX_MODULE_BYTES {
        return Err(Error::usage(format!(
            "{} has {} bytes, a module has at most {MAX_MODULE_BYTES}",
            path.display(),
            wasm.len()
        )));
    }
    Ok(wasm)
}

/// Whether a file is one of tests, by its name.
pub(crate) fn is_test(path: &Path) -> bool {
    let name = file_name(path);
    TEST_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            fs::write(path, text).expect("written");
        }
    }

    #[test]
    fn a_project_is_its_workflows_modules_and_crates() {
        let root = tempfile::tempdir().expect("a folder");
        touch(
            root.path(),
            &[
                ("orders.yaml", ""),
                ("flows/refund.yml", ""),
                ("flows/refund.test.yml", ""),
                ("orders.test.yaml", ""),
                ("cascade.yaml", ""),
                ("README.md", ""),
                ("activities/echo.wasm", ""),
                ("activities/echo.manifest.yaml", ""),
                ("activities/charge/Cargo.toml", "[package.metadata.cascade]"),
                ("activities/charge/fixtures/not-a-flow.yaml", ""),
                ("target/wasm/old.wasm", ""),
                (".cascade/x.yaml", ""),
                (
                    "Cargo.toml",
                    "[workspace.dependencies]\ncascade-sdk = { path = \"sdk\" }",
                ),
                ("sdk/Cargo.toml", "[package]\nname = \"cascade-sdk\""),
                ("inputs/order.yaml", ""),
                ("flows/machine.asl.json", ""),
                ("flows/data.json", ""),
                ("bindings.yaml", ""),
            ],
        );
        let project = Project::scan(root.path()).expect("scanned");
        let under = |paths: &[&str]| -> Vec<PathBuf> {
            paths.iter().map(|path| root.path().join(path)).collect()
        };
        assert_eq!(
            project.cdl,
            under(&["flows/machine.asl.json", "flows/refund.yml", "orders.yaml"])
        );
        assert_eq!(
            project.tests,
            under(&["flows/refund.test.yml", "orders.test.yaml"])
        );
        assert_eq!(project.modules, under(&["activities/echo.wasm"]));
        assert_eq!(project.crates, under(&["activities/charge"]));
    }

    #[test]
    fn a_workflow_may_stand_beside_the_one_activity_it_uses() {
        let root = tempfile::tempdir().expect("a folder");
        touch(
            root.path(),
            &[
                (
                    "Cargo.toml",
                    "[package]\n[dependencies]\ncascade-sdk = \"1\"",
                ),
                ("hello.yaml", ""),
                ("fixtures/not-a-flow.yaml", ""),
            ],
        );
        let project = Project::scan(root.path()).expect("scanned");
        assert_eq!(project.crates, [root.path()]);
        assert_eq!(project.cdl, [root.path().join("hello.yaml")]);
    }

    #[test]
    fn a_module_has_its_manifest_beside_it() {
        let root = tempfile::tempdir().expect("a folder");
        touch(
            root.path(),
            &[
                ("a.wasm", ""),
                ("a.manifest.yaml", "description: adds"),
                ("b.wasm", ""),
                ("c.wasm", ""),
                ("c.manifest.yaml", "descripton: typo"),
            ],
        );
        let find = |name: &str| module(&root.path().join(name));
        assert_eq!(find("a.wasm").expect("found").manifest.description, "adds");
        assert_eq!(find("b.wasm").expect("found").manifest, Manifest::default());
        assert!(find("c.wasm").is_err(), "an unknown key is a typo");
    }
}
