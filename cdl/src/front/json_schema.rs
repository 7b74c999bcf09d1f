//! The JSON Schema of a CDL file, for editors.
//!
//! Made from the [`Shape`]s that the parser checks keys with, so that the two cannot
//! differ in what keys there are; [`KEYS`] says of each key what it is. A schema
//! cannot tell all that is wrong with a file: what it refuses the parser refuses
//! too, and `cascade validate` has the last word.
//!
//! A new state type is rows in [`KEYS`] for the keys that no other type has, and one in
//! [`REQUIRED`] if it cannot do without some.

mod rows;

use serde_json::{Map, Value, json};

use super::fields::Shape;
use super::{document, states, workflow};
use crate::machine::limits::MAX_BRANCHES;
use crate::schedule::{CatchUp, MAX_CRONS};
pub(super) use rows::Kind;
use rows::Kind::{
    Any, Def, Errors, Flag, Integer, Items, List, Named, Number, Template, Things, Word,
};
use rows::{EXCLUSIVE, KEYS, NEEDS, REQUIRED, Row, SHAPES};

/// Every mapping of the language, by its name.
pub(super) fn shapes() -> impl Iterator<Item = (&'static str, &'static Shape)> {
    SHAPES.iter().copied().chain(states::shapes())
}

/// The keys that a mapping cannot do without.
pub(super) fn required(of: &str) -> &'static [&'static str] {
    let found = REQUIRED.iter().find(|(name, _)| *name == of);
    found.map_or(&[], |(_, keys)| keys)
}

/// The JSON Schema, of draft 2020-12, of a CDL file.
///
/// What it refuses [`crate::parse`] refuses too, but not the other way round: it
/// knows keys and values, not whether states exist or expressions make sense.
pub fn json_schema() -> Value {
    let mut defs = values();
    for (name, shape) in SHAPES {
        defs.insert((*name).to_owned(), object(name, shape));
    }
    for (name, shape) in states::shapes() {
        let mut of_type = object(name, shape);
        of_type["properties"]["type"] = kind_of_state(&json!({ "const": name }));
        defs.insert(name.to_owned(), of_type);
    }
    for (name, resource) in states::ALIASES {
        let mut alias = defs.get(*name).cloned().unwrap_or_default();
        alias["properties"]["type"] = kind_of_state(&json!({ "const": "Task" }));
        alias["properties"]["resource"] =
            json!({ "const": resource, "description": format!("Makes it a {name} state.") });
        defs.insert(format!("Task-{name}"), alias);
    }
    defs.insert("Task-SubWorkflow".into(), task_of_workflow());
    defs.insert("state".into(), state());
    defs.insert("branch-or-state".into(), branch_or_state());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cascade Definition Language",
        "description": "Workflows as state machines: an application, `workflows:` only, or the `states:` of one workflow.",
        "type": "object",
        "properties": hints(),
        "if": { "anyOf": any_key(document::ENVELOPE.known) },
        "then": reference("envelope"),
        "else": {
            "if": { "required": ["states"], "not": { "required": ["workflows"] } },
            "then": reference("workflow"),
            "else": reference("only-workflows"),
        },
        "$defs": defs,
    })
}

/// What may stand at the root of any file, so that an editor can offer it in an empty one.
fn hints() -> Map<String, Value> {
    let shapes = [
        ("envelope", &document::ENVELOPE),
        ("only-workflows", &document::ONLY_WORKFLOWS),
        ("workflow", &workflow::WORKFLOW),
    ];
    let keys = shapes
        .iter()
        .flat_map(|(of, shape)| shape.known.iter().map(|key| (*of, *key)));
    keys.map(|(of, key)| {
        let about = row(of, key).map_or("", |(.., about)| about);
        (key.to_owned(), json!({ "description": about }))
    })
    .collect()
}

fn any_key(keys: &[&str]) -> Vec<Value> {
    let each = keys.iter();
    each.map(|key| json!({ "required": [key] })).collect()
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The values that have a form of their own. A regular expression stands here once, however many keys have it.
fn values() -> Map<String, Value> {
    const UNITS: &str = "([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?";
    let all = json!({
        "text": { "type": "string", "minLength": 1 },
        "name": { "type": "string", "pattern": "^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$" },
        "state-name": { "type": "string", "minLength": 1, "maxLength": 80 },
        "duration": { "type": "string", "minLength": 2, "pattern": format!("^{UNITS}$") },
        "wait-duration": { "type": "string", "minLength": 2, "pattern": format!("\\{{\\{{|^{UNITS}$") },
        "resource": { "type": "string", "pattern": "^urn:cascade:activity:." },
        "workflow-resource": { "type": "string", "pattern": format!("^{}.", states::WORKFLOW) },
        "workflow-name": { "type": "string", "pattern": "^([0-9A-Za-z][0-9A-Za-z._-]{0,63}/)?[0-9A-Za-z][0-9A-Za-z._-]{0,63}$" },
        "cron": {
            "type": ["string", "array"],
            "minLength": 1,
            "items": { "type": "string", "minLength": 1 },
            "minItems": 1,
            "maxItems": MAX_CRONS,
        },
        "catch-up-or-word": {
            "if": { "type": "object" },
            "then": reference("catch-up"),
            "else": { "enum": CatchUp::WORDS },
        },
        "path": { "type": "string", "pattern": "^\\$" },
        "condition": { "type": ["string", "boolean"] },
        "rate": { "type": "string", "minLength": 3 },
        "key-template": { "type": ["string", "number"] },
        "attribute": { "type": ["string", "number", "boolean"] },
        "schema": { "type": "object" },
        "schema-or-urn": { "type": ["object", "string"], "pattern": "^urn:cascade:schema:." },
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// The row of a key.
pub(super) fn row(of: &str, key: &str) -> Option<&'static Row> {
    let find = |of: &str| KEYS.iter().find(|row| row.0 == of && row.1 == key);
    find(of).or_else(|| find("*"))
}

/// A mapping with the keys of `shape` and no other.
fn object(name: &str, shape: &Shape) -> Value {
    let mut properties = Map::new();
    for key in shape.known {
        // `type` of a state is put in with its value; a test finds a key without a row.
        let Some((_, _, kind, about)) = row(name, key) else {
            properties.insert((*key).to_owned(), json!({}));
            continue;
        };
        let mut schema = value(*kind);
        schema["description"] = (*about).into();
        properties.insert((*key).to_owned(), schema);
    }
    let mut object = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    let keys = required(name);
    if !keys.is_empty() {
        object["required"] = json!(keys);
    }
    let both = |a: &str, b: &str| shape.known.contains(&a) && shape.known.contains(&b);
    let mut rules: Vec<Value> = EXCLUSIVE
        .iter()
        .filter(|(a, b)| both(a, b))
        .map(|(a, b)| json!({ "not": { "required": [a, b] } }))
        .collect();
    if name == "Wait" {
        rules.push(json!({ "anyOf": any_key(&["duration", "until"]) }));
    }
    if name == "schedule" {
        rules.push(json!({ "anyOf": any_key(&["cron", "interval"]) }));
    }
    if name == "Parallel" {
        rules.push(json!({
            "if": {
                "properties": { "completion_strategy": { "const": "N_OF_M" } },
                "required": ["completion_strategy"],
            },
            "then": { "required": ["required"] },
            "else": { "not": { "required": ["required"] } },
        }));
    }
    if !rules.is_empty() {
        object["allOf"] = rules.into();
    }
    for (_, key, other) in NEEDS.iter().filter(|(of, ..)| *of == name) {
        object["dependentRequired"][*key] = json!([other]);
    }
    object
}

fn value(kind: Kind) -> Value {
    match kind {
        Flag => json!({ "type": "boolean" }),
        Template => json!({}),
        Items => json!({ "anyOf": [{ "type": ["array", "string"] }, reference("items")] }),
        Integer(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Word(words) => json!({ "type": "string", "enum": words }),
        Def(name) => reference(name),
        List(name, most) => {
            json!({ "type": "array", "items": reference(name), "minItems": 1, "maxItems": most })
        }
        Any(name, usize::MAX) => json!({ "type": "array", "items": reference(name) }),
        Any(name, most) => json!({ "type": "array", "items": reference(name), "maxItems": most }),
        Named(name) => json!({
            "type": "object",
            "additionalProperties": reference(name),
        }),
        Things(name) => things(name),
        Kind::Branches => {
            let mut branches = things("branch-or-state");
            branches["maxItems"] = MAX_BRANCHES.into();
            branches["maxProperties"] = MAX_BRANCHES.into();
            branches
        }
        Kind::Rate => json!({
            "if": { "type": "object" },
            "then": reference("rate-limit"),
            "else": reference("rate"),
        }),
        Errors => json!({
            "type": ["string", "array"],
            "minLength": 1,
            "items": reference("text"),
            "minItems": 1,
        }),
    }
}

/// A list of things with `name`, or a mapping from names to them.
fn things(name: &str) -> Value {
    json!({
        "type": ["array", "object"],
        "items": { "allOf": [reference(name)], "required": ["name"] },
        "minItems": 1,
        "additionalProperties": reference(name),
        "minProperties": 1,
    })
}

fn kind_of_state(rule: &Value) -> Value {
    let mut schema = rule.clone();
    schema["description"] = "What the state does.".into();
    schema
}

/// A Task that is a `SubWorkflow` by its resource.
fn task_of_workflow() -> Value {
    let shapes = states::shapes().find(|(name, _)| *name == "SubWorkflow");
    let Some((name, shape)) = shapes else {
        return Value::Null; // the types have it, and a test finds this one
    };
    let mut task = object(name, shape);
    task["properties"]["type"] = kind_of_state(&json!({ "const": "Task" }));
    let mut resource = reference("workflow-resource");
    resource["description"] =
        "The workflow to run: `urn:cascade:workflow:[APPLICATION/]NAME`.".into();
    task["properties"]["resource"] = resource;
    task["required"] = json!(["resource"]);
    if let Some(properties) = task["properties"].as_object_mut() {
        properties.remove("workflow");
    }
    task
}

/// A state, judged by its type, so that an editor offers the keys of that type.
fn state() -> Value {
    let aliases: Vec<&str> = states::ALIASES.iter().map(|(_, urn)| *urn).collect();
    let is =
        |name: &str| json!({ "properties": { "type": { "const": name } }, "required": ["type"] });
    let mut rules = Vec::new();
    for (name, _) in states::shapes() {
        let mut condition = is(name);
        if name == "Task" {
            let alias = json!({ "anyOf": [{ "enum": aliases }, reference("workflow-resource")] });
            condition["not"] =
                json!({ "properties": { "resource": alias }, "required": ["resource"] });
        }
        rules.push(json!({ "if": condition, "then": reference(name) }));
    }
    for (name, urn) in states::ALIASES {
        let mut condition = is("Task");
        condition["properties"]["resource"] = json!({ "const": urn });
        condition["required"] = json!(["type", "resource"]);
        rules.push(json!({ "if": condition, "then": reference(&format!("Task-{name}")) }));
    }
    let mut condition = is("Task");
    condition["properties"]["resource"] = reference("workflow-resource");
    condition["required"] = json!(["type", "resource"]);
    rules.push(json!({ "if": condition, "then": reference("Task-SubWorkflow") }));
    let names: Vec<&str> = states::shapes().map(|(name, _)| name).collect();
    json!({
        "type": "object",
        "properties": {
            "name": { "description": "Name of the state, unique in its scope." },
            "type": kind_of_state(&json!({ "enum": names })),
        },
        "required": ["type"],
        "allOf": rules,
    })
}

/// A branch is a list of states, or one state.
fn branch_or_state() -> Value {
    json!({
        "type": "object",
        "if": { "required": ["states"], "not": { "required": ["type"] } },
        "then": reference("branch"),
        "else": reference("state"),
    })
}

#[cfg(test)]
#[path = "json_schema/tests.rs"]
mod tests;
