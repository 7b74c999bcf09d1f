//! Programs for the tests, from CDL without what does not matter to the machine,
//! and from ASL.

use std::sync::Arc;

use cascade_cdl::program::Program;
use cascade_cdl::{AslOptions, Source, parse, parse_with};
use serde_json::{Value, json};

/// A workflow in YAML: `timeout`, `output`, `states`; a Task needs no `resource`,
/// and what has no `next` ends.
pub(crate) fn compile(text: &str) -> Arc<Program> {
    let workflow: Value = serde_yaml::from_str(text).expect("the test's YAML is well-formed");
    if workflow.get("StartAt").is_some() {
        return compile_asl(text, &AslOptions::default());
    }
    compile_value(&workflow)
}

/// A definition in the Amazon States Language, as it is.
pub(crate) fn compile_asl(text: &str, options: &AslOptions) -> Arc<Program> {
    let source = Source {
        name: "test.yaml",
        bytes: text.as_bytes(),
    };
    let parsed = parse_with(&source, options);
    let problems = parsed.diagnostics;
    let application = parsed
        .application
        .unwrap_or_else(|| panic!("{problems:#?}"));
    application.workflows["test"].clone()
}

/// The same as a value; keys that are `null` count as absent.
pub(crate) fn compile_value(workflow: &Value) -> Arc<Program> {
    let file = json!({"workflows": {"test": complete(workflow)}}).to_string();
    let parsed = parse(&Source {
        name: "test.yaml",
        bytes: file.as_bytes(),
    });
    let problems = parsed.diagnostics;
    let application = parsed
        .application
        .unwrap_or_else(|| panic!("{problems:#?}"));
    application.workflows["test"].clone()
}

fn complete(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let given = entries.iter().filter(|(_, value)| !value.is_null());
            let mut entries: serde_json::Map<_, _> = given
                .map(|(key, value)| (key.clone(), complete(value)))
                .collect();
            let kind = entries
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let goes_on = [
                "Task",
                "Pass",
                "Wait",
                "Parallel",
                "Map",
                "ForEach",
                "EventTask",
                "HumanTask",
                "SubWorkflow",
            ]
            .contains(&kind);
            if kind == "Task" {
                let activity = json!("urn:cascade:activity:test");
                entries.entry("resource").or_insert(activity);
            }
            if goes_on && !entries.contains_key("next") {
                entries.insert("end".to_owned(), json!(true));
            }
            Value::Object(entries)
        }
        Value::Array(items) => items.iter().map(complete).collect(),
        other => other.clone(),
    }
}
