//! Suites that say what a runtime of the States Language must answer.
//!
//! A suite is a folder of scenarios, one a JSON file, and of `definitions/`, lists
//! of definitions with the verdict on each; `tests/conformance/asl/README.md`
//! describes both. This is their reading and their judging, which are pure; who
//! runs the cases is the caller.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::MachineType;

/// Keys that AWS adds; left out of every comparison.
const LEFT_OUT: [&str; 5] = [
    "SdkHttpMetadata",
    "SdkResponseMetadata",
    "LogResult",
    "RedriveCount",
    "RedriveStatus",
];

/// Characters of a value in a reason.
const CLIP: usize = 300;

/// What AWS answered.
#[derive(Debug, Clone, Deserialize)]
pub struct Expected {
    /// `SUCCEEDED`, `FAILED`, `TIMED_OUT` or `ABORTED`.
    pub status: String,
    /// Only of what succeeded.
    #[serde(default)]
    pub output: Option<Value>,
    /// None means that there is none.
    #[serde(default)]
    pub error: Option<String>,
    /// AWS's wording.
    #[serde(default)]
    pub cause: Option<String>,
    /// Whether the cause comes from the definition or the activity.
    #[serde(default)]
    pub cause_strict: bool,
    /// JSON pointers to text that AWS made up.
    #[serde(default)]
    pub holes: Vec<String>,
    /// How often each state was entered.
    #[serde(default)]
    pub entered: Option<BTreeMap<String, u64>>,
    /// Whether there is one, whose states are not counted.
    #[serde(default)]
    pub distributed_map: bool,
}

/// One execution.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What kind of machine it is of.
    pub machine_type: MachineType,
    /// What its definition uses.
    pub features: Vec<String>,
    /// The definition: an object, or a text.
    pub definition: Value,
    /// What stands behind each Task's resource.
    pub activities: BTreeMap<String, Value>,
    /// What it starts with.
    pub input: Value,
    /// What AWS answered, if that is told.
    pub expected: Option<Expected>,
}

/// How an execution ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// As [`Expected::status`]; or `INVALID`, if the definition is refused.
    pub status: String,
    /// Only of what succeeded.
    pub output: Option<Value>,
    /// Only of what did not.
    pub error: Option<String>,
    /// Why it did not, in words.
    pub cause: Option<String>,
    /// How often each state was entered.
    pub entered: BTreeMap<String, u64>,
}

/// A definition that AWS accepted or refused.
#[derive(Debug, Clone, Deserialize)]
pub struct Asked {
    /// The definition.
    pub text: String,
    /// What kind of machine it is of.
    #[serde(default, deserialize_with = "machine_type")]
    pub machine_type: MachineType,
    /// AWS's verdict, if that is told.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// In AWS's words.
    #[serde(default)]
    pub answer: Value,
}

/// Whether a definition is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Valid,
    /// It is refused.
    Invalid,
}

#[derive(Deserialize)]
struct Scenario {
    #[serde(default, deserialize_with = "machine_type")]
    machine_type: MachineType,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    definition: Option<Value>,
    #[serde(default)]
    activities: Option<BTreeMap<String, Value>>,
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
struct RawCase {
    id: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    expected: Option<Expected>,
    #[serde(default)]
    definition: Option<Value>,
    #[serde(default)]
    activities: Option<BTreeMap<String, Value>>,
}

fn machine_type<'de, D: serde::Deserializer<'de>>(from: D) -> Result<MachineType, D::Error> {
    let name = Option::<String>::deserialize(from)?;
    match name.as_deref() {
        None | Some("STANDARD") => Ok(MachineType::Standard),
        Some("EXPRESS") => Ok(MachineType::Express),
        Some(other) => Err(D::Error::unknown_variant(other, &["STANDARD", "EXPRESS"])),
    }
}

/// The cases of a scenario's file.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn read_cases(text: &str) -> Result<Vec<Case>, serde_json::Error> {
    let scenario: Scenario = serde_json::from_str(text)?;
    let cases = scenario.cases.into_iter().map(|case| {
        let Some(definition) = case.definition.or_else(|| scenario.definition.clone()) else {
            let id = case.id;
            let missing = format!("case `{id}` has no definition");
            return Err(serde_json::Error::custom(missing));
        };
        let activities = case.activities.or_else(|| scenario.activities.clone());
        Ok(Case {
            id: case.id,
            machine_type: scenario.machine_type,
            features: scenario.features.clone(),
            definition,
            activities: activities.unwrap_or_default(),
            input: case.input,
            expected: case.expected,
        })
    });
    cases.collect()
}

/// The definitions of a file of `definitions/`.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn read_definitions(text: &str) -> Result<Vec<Asked>, serde_json::Error> {
    serde_json::from_str(text)
}

impl Expected {
    /// Why an outcome is wrong; empty if it is right.
    pub fn reasons(&self, outcome: &Outcome) -> Vec<String> {
        if self.status != outcome.status {
            let Outcome { status, cause, .. } = outcome;
            return vec![format!("{status} ({cause:?}), not {}", self.status)];
        }
        let mut reasons = Vec::new();
        if let Some(output) = &self.output {
            let actual = outcome.output.as_ref().unwrap_or(&Value::Null);
            if !fits(output, actual, "/output", &self.holes) {
                reasons.push(format!("output {}, not {}", clip(actual), clip(output)));
            }
        }
        if self.error != outcome.error {
            reasons.push(format!(
                "error {:?} ({:?}), not {:?}",
                outcome.error, outcome.cause, self.error
            ));
        }
        if self.cause_strict {
            let [expected, actual] = [&self.cause, &outcome.cause]
                .map(|cause| cause.clone().map_or(Value::Null, Value::String));
            if !fits(&expected, &actual, "/cause", &self.holes) {
                reasons.push(format!("cause {actual}, not {expected}"));
            }
        }
        reasons
    }

    /// Whether the states were entered as often; none where that is not fixed.
    pub fn entered_right(&self, outcome: &Outcome) -> Option<bool> {
        let counts = self.entered.as_ref()?;
        let fixed = self.status == "SUCCEEDED" && !self.distributed_map;
        fixed.then(|| *counts == outcome.entered)
    }
}

fn clip(value: &Value) -> String {
    value.to_string().chars().take(CLIP).collect()
}

fn fits(expected: &Value, actual: &Value, at: &str, holes: &[String]) -> bool {
    // Text that AWS made up, identifiers and times: ours are our own.
    if holes.iter().any(|hole| hole == at) {
        return actual.is_string();
    }
    match (expected, actual) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            let mut pairs = a.iter().zip(b).enumerate();
            a.len() == b.len() && pairs.all(|(i, (a, b))| fits(a, b, &format!("{at}/{i}"), holes))
        }
        (Value::Object(a), Value::Object(b)) => {
            let kept = |key: &&String| !LEFT_OUT.contains(&key.as_str());
            a.keys().filter(kept).count() == b.keys().filter(kept).count()
                && a.iter().filter(|(key, _)| kept(key)).all(|(key, a)| {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    b.get(key).is_some_and(|b| fits(a, b, &at, holes))
                })
        }
        (Value::String(a), Value::String(b)) => {
            a == b
                || match (nested(a), nested(b)) {
                    (Some(a), Some(b)) => fits(&a, &b, at, holes),
                    _ => false,
                }
        }
        _ => expected == actual,
    }
}

/// The object or list that a text holds.
fn nested(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value.is_object() || value.is_array()).then_some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected(value: Value) -> Expected {
        serde_json::from_value(value).expect("an expectation")
    }

    fn succeeded(output: Value) -> Outcome {
        Outcome {
            status: "SUCCEEDED".to_owned(),
            output: Some(output),
            ..Outcome::default()
        }
    }

    #[test]
    fn outputs_are_compared_as_json() {
        let right = json!({
            "n": 1, "at": "<time>", "text": "{\"b\": [1.0]}", "SdkHttpMetadata": { "x": 1 },
        });
        let expected = expected(json!({
            "status": "SUCCEEDED", "output": right, "holes": ["/output/at"],
        }));
        let is_right = |output| expected.reasons(&succeeded(output)).is_empty();
        assert!(is_right(
            json!({ "n": 1.0, "at": "now", "text": "{\"b\":[1]}" })
        ));
        assert!(!is_right(
            json!({ "n": 2, "at": "now", "text": "{\"b\":[1]}" })
        ));
        assert!(!is_right(json!({ "n": 1, "at": 5, "text": "{\"b\":[1]}" })));
        assert!(!is_right(
            json!({ "n": 1, "at": "now", "text": "{\"b\":[2]}" })
        ));
        assert!(!is_right(
            json!({ "n": 1, "at": "now", "text": "{\"b\":[1]}", "more": 1 })
        ));
        assert!(!is_right(json!({ "n": 1, "at": "now" })));
    }

    #[test]
    fn a_cause_counts_where_it_is_strict() {
        let outcome = Outcome {
            status: "FAILED".to_owned(),
            error: Some("E".to_owned()),
            cause: Some("ours".to_owned()),
            ..Outcome::default()
        };
        for (strict, error, cause, right) in [
            (false, Some("E"), "theirs", true),
            (true, Some("E"), "theirs", false),
            (true, Some("E"), "ours", true),
            (false, Some("F"), "ours", false),
            (false, None, "ours", false),
        ] {
            let expected = expected(json!({
                "status": "FAILED", "error": error, "cause": cause, "cause_strict": strict,
            }));
            assert_eq!(expected.reasons(&outcome).is_empty(), right, "{expected:?}");
        }
    }

    #[test]
    fn entered_counts_are_fixed_only_for_what_succeeded_without_a_distributed_map() {
        let outcome = succeeded(json!(null));
        for (status, distributed_map, counts, right) in [
            ("SUCCEEDED", false, json!({}), Some(true)),
            ("SUCCEEDED", false, json!({ "A": 1 }), Some(false)),
            ("SUCCEEDED", true, json!({ "A": 1 }), None),
            ("FAILED", false, json!({ "A": 1 }), None),
            ("SUCCEEDED", false, json!(null), None),
        ] {
            let expected = expected(json!({
                "status": status, "distributed_map": distributed_map, "entered": counts,
            }));
            assert_eq!(expected.entered_right(&outcome), right, "{expected:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let error = |text| read_cases(text).expect_err("refused").to_string();
        assert!(error("{\"cases\":\n[{]}").contains("line 2 column 3"));
        assert_eq!(
            error(r#"{"cases":[{"id":"a"}]}"#),
            "case `a` has no definition"
        );
        let unknown = error(r#"{"machine_type":"FAST","cases":[]}"#);
        assert!(
            unknown.contains("`FAST`, expected `STANDARD` or `EXPRESS`"),
            "{unknown}"
        );
    }

    #[test]
    fn a_case_has_what_its_scenario_has() {
        let text = r#"{"definition":{"a":1},"machine_type":"EXPRESS","cases":[
            {"id":"own","definition":"text","activities":{"arn":{"behavior":"echo"}}},
            {"id":"shared","input":5}]}"#;
        let cases = read_cases(text).expect("reads");
        assert_eq!(cases[0].definition, json!("text"));
        assert_eq!(cases[0].activities.len(), 1);
        assert_eq!(cases[1].definition, json!({ "a": 1 }));
        assert_eq!(cases[1].input, json!(5));
        assert!(
            cases
                .iter()
                .all(|case| case.machine_type == MachineType::Express)
        );
        assert!(cases[1].expected.is_none());
    }
}
