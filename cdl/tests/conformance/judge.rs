//! Compares an outcome with what AWS answered, as the suite's README says.

use serde_json::Value;

use crate::run::Outcome;
use crate::suite::Expected;

/// Keys that AWS adds; left out of every comparison.
const LEFT_OUT: [&str; 5] = [
    "SdkHttpMetadata",
    "SdkResponseMetadata",
    "LogResult",
    "RedriveCount",
    "RedriveStatus",
];

/// Why an outcome is wrong; empty if it is right.
pub(crate) fn reasons(expected: &Expected, outcome: &Outcome) -> Vec<String> {
    let mut reasons = Vec::new();
    if expected.status != outcome.status {
        let Outcome { status, cause, .. } = outcome;
        reasons.push(format!("{status} ({cause:?}), not {}", expected.status));
        return reasons;
    }
    if let Some(output) = &expected.output {
        let actual = outcome.output.as_ref().unwrap_or(&Value::Null);
        if !fits(output, actual, "/output", &expected.holes) {
            reasons.push(format!("output {}, not {}", clip(actual), clip(output)));
        }
    }
    if expected.error != outcome.error {
        let cause = &outcome.cause;
        reasons.push(format!(
            "error {:?} ({cause:?}), not {:?}",
            outcome.error, expected.error
        ));
    }
    if expected.cause_strict {
        let [expected, actual] = [&expected.cause, &outcome.cause]
            .map(|cause| cause.clone().map_or(Value::Null, Value::String));
        if !fits(&expected, &actual, "/cause", &[]) {
            reasons.push(format!("cause {actual}, not {expected}"));
        }
    }
    reasons
}

/// Whether the states were entered as often; none where that is not fixed.
pub(crate) fn entered(expected: &Expected, outcome: &Outcome) -> Option<bool> {
    let counts = expected.entered.as_ref()?;
    let fixed = expected.status == "SUCCEEDED" && !expected.distributed_map;
    fixed.then(|| *counts == outcome.entered)
}

fn clip(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
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
