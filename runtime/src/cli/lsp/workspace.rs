//! The activities in the folders that an editor works in.
//!
//! Read from files alone: nothing is built or run because somebody looks at a folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cascade_cdl::editor::Activity;

use crate::cli::source::{self, Project};

/// How long what was found is believed: an editor asks at every key, and a new
/// activity may be a moment late.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Most folders of a workspace that are looked into.
const MAX_FOLDERS: usize = 16;

/// Longest `Cargo.toml` that is read.
const MAX_MANIFEST_BYTES: u64 = 256 * 1024;

/// An activity and the file that somebody who asks for it wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) activity: Activity,
    pub(super) file: PathBuf,
}

/// The folders, and what was found in them.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    folders: Vec<PathBuf>,
    found: Vec<Found>,
    looked: Option<Instant>,
}

impl Workspace {
    pub(super) fn add(&mut self, folder: PathBuf) {
        if self.folders.len() < MAX_FOLDERS && !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
        self.forget();
    }

    pub(super) fn remove(&mut self, folder: &Path) {
        self.folders.retain(|there| there != folder);
        self.forget();
    }

    /// Has the folders looked through again when next asked.
    pub(super) fn forget(&mut self) {
        self.looked = None;
    }

    /// The activities, in the order of their names.
    pub(super) fn activities(&mut self) -> &[Found] {
        let is_fresh = self.looked.is_some_and(|at| at.elapsed() < FRESH_FOR);
        if !is_fresh {
            self.found = self
                .folders
                .iter()
                .flat_map(|folder| look(folder))
                .collect();
            self.found
                .sort_by(|a, b| a.activity.name.cmp(&b.activity.name));
            self.found
                .dedup_by(|a, b| a.activity.name == b.activity.name);
            self.looked = Some(Instant::now());
        }
        &self.found
    }
}

/// What is in a folder. One that cannot be looked through has nothing: an editor may be
/// opened anywhere.
fn look(folder: &Path) -> Vec<Found> {
    let Ok(project) = Project::scan(folder) else {
        return Vec::new();
    };
    let crates = project.crates.iter().filter_map(|path| of_crate(path));
    let modules = project.modules.iter().filter_map(|path| of_module(path));
    // Where there is the source of an activity and its module, the source tells more.
    crates.chain(modules).collect()
}

/// The activity in a `.wasm` file.
fn of_module(path: &Path) -> Option<Found> {
    let name = path.file_stem()?.to_str()?.to_owned();
    let beside = path.with_file_name(format!("{name}{}", source::MANIFEST_SUFFIX));
    let mut about = Vec::new();
    match source::module(path) {
        Ok(found) => {
            let manifest = found.manifest;
            about.push(manifest.description.clone());
            let names: Vec<&str> = manifest.capabilities.iter().map(|one| one.name()).collect();
            about.push(list("Capabilities", &names));
        }
        Err(error) => about.push(format!("Its manifest is wrong: {error}")),
    }
    about.push(format!("Module: `{}`", path.display()));
    let file = if beside.is_file() {
        beside
    } else {
        path.to_owned()
    };
    Some(Found {
        activity: Activity {
            name,
            about: paragraphs(&about),
        },
        file,
    })
}

/// The activity of a crate.
fn of_crate(folder: &Path) -> Option<Found> {
    let manifest = folder.join("Cargo.toml");
    let mut text = String::new();
    let opened = File::open(&manifest).ok()?;
    opened
        .take(MAX_MANIFEST_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    let get = |table: &str, key: &str| toml_value(&text, table, key);
    let cascade = "package.metadata.cascade";
    let name = get(cascade, "name").or_else(|| Some(get("package", "name")?.replace('-', "_")))?;
    let capabilities = get(cascade, "capabilities").unwrap_or_default();
    let capabilities: Vec<&str> = capabilities
        .split(',')
        .map(|part| part.trim().trim_matches('"'))
        .collect();
    let about = [
        get("package", "description").unwrap_or_default(),
        list("Capabilities", &capabilities),
        format!("Crate: `{}`", folder.display()),
    ];
    let source = folder.join("src/lib.rs");
    Some(Found {
        activity: Activity {
            name,
            about: paragraphs(&about),
        },
        file: if source.is_file() { source } else { manifest },
    })
}

fn list(what: &str, names: &[&str]) -> String {
    let names: Vec<String> = names
        .iter()
        .filter(|name| !name.is_empty())
        .map(|name| format!("`{name}`"))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("{what}: {}", names.join(", "))
    }
}

fn paragraphs(parts: &[String]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("\n\n")
}

/// The value of a key of a table in a `Cargo.toml`, if it is a text, or the inside of a list.
/// What cargo would make of it takes a process; for a glance, lines will do.
fn toml_value(text: &str, table: &str, key: &str) -> Option<String> {
    let mut current = "";
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(header) = line.strip_prefix('[') {
            current = header.split(']').next().unwrap_or("").trim();
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        if current != table || name.trim() != key {
            continue;
        }
        let value = value.trim();
        if let Some(text) = value.strip_prefix('"') {
            return text.split('"').next().map(str::to_owned);
        }
        let mut list = value.strip_prefix('[')?.to_owned();
        while !list.contains(']') {
            list.push_str(lines.next()?);
        }
        return list.split(']').next().map(str::to_owned);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn activities_are_modules_and_crates_with_what_their_manifests_say() {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("a.wasm", ""),
            (
                "a.manifest.yaml",
                "description: Adds.\ncapabilities: [clock]",
            ),
            ("b.wasm", ""),
            ("c.wasm", ""),
            ("c.manifest.yaml", "descripton: typo"),
            (
                "charge/Cargo.toml",
                "[package]\nname = \"charge-card\"\ndescription = \"Charges.\"\n[package.metadata.cascade]\ncapabilities = [\n  \"http\",\n  \"key-value\",\n]\n",
            ),
            ("charge/src/lib.rs", ""),
            (
                "named/Cargo.toml",
                "[package]\nname = \"x\"\n[package.metadata.cascade]\nname = \"b\"\n",
            ),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("a folder");
            fs::write(path, text).expect("written");
        }
        let mut workspace = Workspace::default();
        assert!(workspace.activities().is_empty());
        workspace.add(root.path().to_owned());
        let found = workspace.activities();
        let names: Vec<&str> = found.iter().map(|found| &*found.activity.name).collect();
        assert_eq!(names, ["a", "b", "c", "charge_card"]);
        for (at, about, file) in [
            (
                0,
                "Adds.\n\nCapabilities: `clock`\n\nModule: `",
                "a.manifest.yaml",
            ),
            (1, "Crate: `", "named/Cargo.toml"),
            (2, "Its manifest is wrong: ", "c.manifest.yaml"),
            (
                3,
                "Charges.\n\nCapabilities: `http`, `key-value`\n\nCrate: `",
                "charge/src/lib.rs",
            ),
        ] {
            let Found {
                activity,
                file: given,
            } = &found[at];
            assert!(activity.about.starts_with(about), "{activity:?}");
            assert_eq!(given, &root.path().join(file));
        }
        workspace.remove(root.path());
        assert!(workspace.activities().is_empty());
    }
}
