//! The files of the suite; its README describes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cascade_cdl::asl::MachineType;
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

#[derive(Deserialize)]
struct Scenario {
    machine_type: String,
    features: Vec<String>,
    #[serde(default)]
    definition: Option<Value>,
    #[serde(default)]
    activities: Option<Activities>,
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
struct RawCase {
    id: String,
    input: Value,
    expected: Expected,
    #[serde(default)]
    definition: Option<Value>,
    #[serde(default)]
    activities: Option<Activities>,
}

/// What AWS answered.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Expected {
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) output: Option<Value>,
    #[serde(default)]
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) cause: Option<String>,
    #[serde(default)]
    pub(crate) cause_strict: bool,
    #[serde(default)]
    pub(crate) holes: Vec<String>,
    #[serde(default)]
    pub(crate) entered: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    pub(crate) distributed_map: bool,
}

/// One execution.
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) machine_type: MachineType,
    pub(crate) features: Vec<String>,
    pub(crate) definition: Value,
    pub(crate) activities: Activities,
    pub(crate) input: Value,
    pub(crate) expected: Expected,
}

/// An answer to a definition.
#[derive(Deserialize)]
pub(crate) struct Asked {
    pub(crate) text: String,
    #[serde(deserialize_with = "machine_type")]
    pub(crate) machine_type: MachineType,
    #[serde(rename = "verdict", deserialize_with = "is_valid")]
    pub(crate) is_valid: bool,
    pub(crate) answer: Value,
}

fn machine_type<'de, D: serde::Deserializer<'de>>(from: D) -> Result<MachineType, D::Error> {
    String::deserialize(from).map(|name| machine_type_named(&name))
}

fn is_valid<'de, D: serde::Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    String::deserialize(from).map(|verdict| verdict == "valid")
}

fn machine_type_named(name: &str) -> MachineType {
    match name {
        "EXPRESS" => MachineType::Express,
        _ => MachineType::Standard,
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/asl")
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every case, in the order of the files.
pub(crate) fn load() -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .expect("the suite is in the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let scenario: Scenario = read(&file);
        for case in scenario.cases {
            let definition = case.definition.or_else(|| scenario.definition.clone());
            let activities = case.activities.or_else(|| scenario.activities.clone());
            cases.push(Case {
                id: case.id,
                machine_type: machine_type_named(&scenario.machine_type),
                features: scenario.features.clone(),
                definition: definition.expect("each case has a definition"),
                activities: activities.unwrap_or_default(),
                input: case.input,
                expected: case.expected,
            });
        }
    }
    cases
}

/// The definitions that AWS was asked about.
pub(crate) fn verdicts() -> Vec<Asked> {
    read(&folder().join("definitions/aws.json"))
}
