//! The files of the suite; its README describes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cascade_cdl::asl::conformance::{Asked, Case, read_cases, read_definitions};
use serde::Deserialize;
use serde_json::Value;

/// Whether a definition is given as it is, or turned into YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Definition {
    Json,
    Yaml,
}

/// What stands behind the resource of a Task.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Activity {
    pub(crate) behavior: String,
    #[serde(flatten)]
    pub(crate) fields: BTreeMap<String, Value>,
}

/// By resource.
pub(crate) type Activities = BTreeMap<String, Activity>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/asl")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every case, in the order of the files.
pub(crate) fn load() -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .expect("the suite is in the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    let cases = files.iter().flat_map(|file| {
        read_cases(&read(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    });
    cases.collect()
}

/// The activities of a case.
pub(crate) fn activities(case: &Case) -> Activities {
    let activities = case.activities.iter().map(|(resource, activity)| {
        let activity = serde_json::from_value(activity.clone());
        (resource.clone(), activity.expect("a behaviour"))
    });
    activities.collect()
}

/// The definitions that AWS was asked about.
pub(crate) fn verdicts() -> Vec<Asked> {
    read_definitions(&read(&folder().join("definitions/aws.json"))).expect("a list of definitions")
}
