//! The JSON Schema of a CDL file, for editors.
//!
//! Made from the [`Shape`]s that the parser checks keys with, so that the two cannot
//! differ in what keys there are; [`KEYS`] says of each key what it is. A schema
//! cannot tell all that is wrong with a file: what it refuses the parser refuses
//! too, and `cascade validate` has the last word.
//!
//! A new state type is rows in [`KEYS`] for the keys that no other type has, and one in
//! [`REQUIRED`] if it cannot do without some.

use serde_json::{Map, Value, json};

use super::fields::Shape;
use super::{child, document, map, policies, rates, schedules, states, waiting, workflow};
use crate::machine::limits::{MAX_BRANCHES, MAX_ITEMS};
use crate::schedule::{CatchUp, MAX_CRONS, Overlap};
use crate::spread;

/// What the value of a key is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Flag,
    /// Anything, with expressions in it.
    Template,
    /// A list, or an expression that gives one.
    Items,
    Integer(u32, u32),
    Number(f64, f64),
    Word(&'static [&'static str]),
    /// What stands under `$defs`.
    Def(&'static str),
    /// A list of at most so many, at least one.
    List(&'static str, usize),
    /// A list that may be empty.
    Any(&'static str, usize),
    /// Things by name.
    Named(&'static str),
    /// A list of things with names, or a mapping from names to them.
    Things(&'static str),
    /// Branches, which are things with a limit.
    Branches,
    /// An error name, or several.
    Errors,
    /// A rate, or a mapping with one.
    Rate,
}

use Kind::{Any, Def, Errors, Flag, Integer, Items, List, Named, Number, Template, Things, Word};

/// A key: of which shape (`*` if of all that have no row of their own), its name, what its
/// value is, and what it is for.
pub(super) type Row = (&'static str, &'static str, Kind, &'static str);

/// [`MAX_BRANCHES`] as numbers of a file are held.
#[expect(clippy::cast_possible_truncation, reason = "it is small")]
const BRANCHES: u32 = MAX_BRANCHES as u32;

const TEXT: Kind = Def("text");
const NAME: Kind = Def("name");
const STATE_NAME: Kind = Def("state-name");
const DURATION: Kind = Def("duration");

const KEYS: &[Row] = &[
    (
        "*",
        "apiVersion",
        Word(&[document::API_VERSION]),
        "The version of the language.",
    ),
    (
        "*",
        "kind",
        Word(&[document::KIND]),
        "What the file declares.",
    ),
    (
        "*",
        "metadata",
        Def("metadata"),
        "What the application is called.",
    ),
    (
        "*",
        "spec",
        Def("spec"),
        "What the application consists of.",
    ),
    ("metadata", "name", NAME, "Name of the application."),
    (
        "*",
        "namespace",
        NAME,
        "Namespace of the application; `default` if not given.",
    ),
    (
        "*",
        "labels",
        Named("text"),
        "Text by name, to find the application by.",
    ),
    (
        "*",
        "annotations",
        Named("text"),
        "Text by name, for people and tools.",
    ),
    (
        "*",
        "workflows",
        Things("workflow"),
        "Workflows: a list with `name`, or a mapping from names.",
    ),
    (
        "*",
        "schemas",
        Named("schema"),
        "JSON Schemas by name, for inputs and HumanTask states.",
    ),
    (
        "*",
        "schedules",
        Things("schedule"),
        "What starts workflows by the time: a list with `name`, or a mapping from names.",
    ),
    ("schedule", "name", NAME, "Name of the schedule."),
    (
        "schedule",
        "workflow",
        NAME,
        "The workflow to start, one of this application.",
    ),
    (
        "*",
        "cron",
        Def("cron"),
        "When, as `minute hour day month weekday`: `0 9 * * MON-FRI`, or a list of such.",
    ),
    (
        "*",
        "timezone",
        TEXT,
        "Whose clocks `cron` is about, as in `Europe/Berlin`; `UTC` if not given.",
    ),
    (
        "*",
        "interval",
        DURATION,
        "From one time to the next, as in `15m`, counted from 1970 on.",
    ),
    (
        "*",
        "offset",
        DURATION,
        "By how much all times of an interval are later, as in `5m`.",
    ),
    (
        "*",
        "start_at",
        TEXT,
        "The first time that counts, as in `2030-01-31T09:00:00Z`.",
    ),
    (
        "*",
        "end_at",
        TEXT,
        "The last time that counts, as in `2030-12-31T09:00:00Z`.",
    ),
    (
        "schedule",
        "jitter",
        DURATION,
        "By how much starts are spread at most, as in `30s`.",
    ),
    (
        "schedule",
        "input",
        Template,
        "Input of the execution, a template over `schedule.name` and `schedule.at`.",
    ),
    (
        "*",
        "catch_up",
        Def("catch-up-or-word"),
        "What happens to times that were missed: `none`, `last`, or `{ policy: all, window: 1h }`.",
    ),
    (
        "*",
        "policy",
        Word(CatchUp::WORDS),
        "Which missed times are made up for: none, the last, or all.",
    ),
    (
        "*",
        "window",
        DURATION,
        "How old a missed time may be, as in `1h`.",
    ),
    (
        "*",
        "overlap",
        Word(Overlap::WORDS),
        "What happens while an earlier execution runs; `skip` if not given.",
    ),
    (
        "*",
        "paused",
        Flag,
        "`true` if it starts nothing until somebody resumes it.",
    ),
    ("workflow", "name", NAME, "Name of the workflow."),
    (
        "branch",
        "name",
        NAME,
        "Name of the branch; its output stands under it.",
    ),
    (
        "*",
        "name",
        STATE_NAME,
        "Name of the state, unique in its scope.",
    ),
    ("*", "description", TEXT, "What it is for, for people."),
    (
        "*",
        "start",
        STATE_NAME,
        "The state that runs first; the first of the file if not given.",
    ),
    (
        "*",
        "states",
        Things("state"),
        "States: a list with `name`, or a mapping from names.",
    ),
    (
        "workflow",
        "timeout",
        DURATION,
        "How long an execution may take, as in `1h30m`.",
    ),
    ("*", "input", Def("input"), "What the input looks like."),
    (
        "workflow",
        "output",
        Template,
        "Output of the execution, a template; the context if not given.",
    ),
    (
        "workflow",
        "priority",
        Integer(1, 5),
        "How urgent executions are, 1 the most; 3 if not given. A start can say otherwise.",
    ),
    (
        "*",
        "priority",
        Integer(1, 5),
        "How urgent attempts are among those of the tenant, 1 the most; as the execution if not given.",
    ),
    (
        "*",
        "rate_limit",
        Kind::Rate,
        "How often attempts of this state may begin, those of all executions together, as in `10/s`.",
    ),
    (
        "*",
        "start_rate_limit",
        Kind::Rate,
        "How often executions may be started, as in `100/m`; beyond it starts are refused.",
    ),
    (
        "*",
        "rate",
        Def("rate"),
        "How often: `10/s`, `300/m`, `1000/h`.",
    ),
    (
        "*",
        "burst",
        Integer(1, rates::MAX_COUNT),
        "How many may come at once after a pause.",
    ),
    (
        "workflow",
        "shard_key",
        Def("key-template"),
        "What executions are placed by, as in `{{ $.workflow.input.customer_id }}`; their ids if not given.",
    ),
    (
        "*",
        "output",
        Template,
        "Output of the workflow or branch, a template.",
    ),
    (
        "*",
        "resource",
        Def("resource"),
        "The activity: `urn:cascade:activity:NAME[:VERSION][@REGION]`.",
    ),
    (
        "Pass",
        "parameters",
        Template,
        "The value to compute, a template.",
    ),
    (
        "HumanTask",
        "parameters",
        Template,
        "What the person is shown, a template.",
    ),
    (
        "*",
        "parameters",
        Template,
        "Input of the activity, a template.",
    ),
    (
        "SubWorkflow",
        "parameters",
        Template,
        "Input of the child, a template; the whole context if not given.",
    ),
    (
        "*",
        "workflow",
        Def("workflow-name"),
        "The workflow to run, as in `ship_order` or `shipping/ship_order`.",
    ),
    (
        "*",
        "wait",
        Flag,
        "`false` if the state ends once the child has started.",
    ),
    (
        "*",
        "parent_close_policy",
        Word(child::ON_CLOSE),
        "What becomes of the child if this execution ends before it.",
    ),
    (
        "SubWorkflow",
        "retries",
        Def("retries"),
        "How failed children are repeated; one attempt if not given.",
    ),
    (
        "*",
        "result",
        Def("path"),
        "Where in the context the output goes, as in `$.payment`.",
    ),
    ("*", "resultPath", Def("path"), "Another name for `result`."),
    (
        "EventTask",
        "timeout",
        DURATION,
        "How long to wait from when the state is entered, as in `1d`.",
    ),
    (
        "HumanTask",
        "timeout",
        DURATION,
        "How long to wait from when the state is entered, as in `1d`.",
    ),
    (
        "*",
        "timeout",
        DURATION,
        "Limit of one attempt, as in `30s`.",
    ),
    (
        "*",
        "heartbeat",
        DURATION,
        "Longest silence of a running attempt, as in `10s`; shorter than `timeout`.",
    ),
    (
        "*",
        "retries",
        Def("retries"),
        "How failed attempts are repeated; three attempts if not given.",
    ),
    (
        "*",
        "max_attempts",
        Integer(1, policies::MAX_ATTEMPTS),
        "Most attempts, the first included.",
    ),
    (
        "*",
        "backoff",
        Def("backoff"),
        "The pauses between attempts.",
    ),
    (
        "*",
        "initial_interval",
        DURATION,
        "Pause before the second attempt, as in `1s`.",
    ),
    ("*", "max_interval", DURATION, "Longest pause, as in `60s`."),
    (
        "*",
        "multiplier",
        Number(1.0, policies::MAX_MULTIPLIER),
        "Factor from one pause to the next.",
    ),
    (
        "*",
        "jitter",
        Word(policies::JITTERS),
        "How chance shortens pauses: not, to 0 at least, to half at least.",
    ),
    (
        "*",
        "catch",
        Any("catch", usize::MAX),
        "Where errors lead when no attempt is left, tried in order.",
    ),
    (
        "catch",
        "error",
        Errors,
        "The error, a list of errors, or `*` for any.",
    ),
    (
        "catch",
        "result",
        Def("path"),
        "Where in the context the error goes, as in `$.error`.",
    ),
    ("*", "error", TEXT, "Name of the error, a text or template."),
    (
        "*",
        "compensate",
        Def("compensate"),
        "What undoes the Task if the execution fails later.",
    ),
    ("*", "next", STATE_NAME, "The state that follows."),
    ("*", "end", Flag, "`true` if nothing follows."),
    (
        "*",
        "choices",
        List("choice", states::MAX_CHOICES),
        "The ways; the first whose condition is true is gone.",
    ),
    (
        "*",
        "condition",
        Def("condition"),
        "One expression, as in `{{ $.total > 100 }}`.",
    ),
    (
        "*",
        "default",
        STATE_NAME,
        "The state that follows if no condition is true.",
    ),
    (
        "*",
        "branches",
        Kind::Branches,
        "What runs side by side: single states, or lists of states.",
    ),
    (
        "*",
        "completion_strategy",
        Word(states::STRATEGIES),
        "When the state ends; `ALL` if not given.",
    ),
    (
        "*",
        "required",
        Integer(1, BRANCHES),
        "Of `N_OF_M`: how many branches have to succeed.",
    ),
    (
        "*",
        "items",
        Items,
        "The list to go through, a template, or an object with the items.",
    ),
    (
        "*",
        "object",
        TEXT,
        "Bucket and key of an object, or the beginning of keys, a text or template.",
    ),
    (
        "*",
        "format",
        Word(map::FORMATS),
        "How the items are written: a JSON value a line, CSV, or one JSON list.",
    ),
    (
        "*",
        "headers",
        Any("text", usize::MAX),
        "Names of the columns of CSV; those of the first row if not given.",
    ),
    (
        "*",
        "delimiter",
        TEXT,
        "What stands between the cells of CSV, one ASCII character; a comma if not given.",
    ),
    (
        "*",
        "max_items",
        Integer(1, u32::MAX),
        "Items of the object beyond are left out.",
    ),
    (
        "*",
        "mode",
        Word(map::MODES),
        "Where iterations run: in this execution, or in executions of their own, a chunk each.",
    ),
    (
        "*",
        "results",
        Def("results"),
        "Where the results of a distributed Map are written.",
    ),
    ("*", "iterator", Def("iterator"), "What runs for each item."),
    (
        "*",
        "max_concurrency",
        Integer(1, spread::MAX_CONCURRENCY),
        "Most iterations at a time; 16 if not given.",
    ),
    (
        "*",
        "batch",
        Def("batch"),
        "Has iterations take several items at once.",
    ),
    (
        "*",
        "size",
        Integer(1, MAX_ITEMS),
        "Most items of an iteration.",
    ),
    (
        "*",
        "tolerated_failure_count",
        Integer(0, MAX_ITEMS),
        "How many items may fail.",
    ),
    (
        "*",
        "tolerated_failure_percentage",
        Number(0.0, 100.0),
        "How many of 100 items may fail.",
    ),
    ("*", "event", NAME, "Name of the signal to wait for."),
    (
        "*",
        "on_timeout",
        STATE_NAME,
        "The state that follows when `timeout` is over.",
    ),
    ("*", "assignee", TEXT, "Who is asked, a text or template."),
    ("*", "ui", Def("ui"), "What the answer looks like."),
    (
        "*",
        "schema",
        Def("schema-or-urn"),
        "JSON Schema of the input or answer, or `urn:cascade:schema:NAME`.",
    ),
    (
        "*",
        "escalate",
        Any("escalation", waiting::MAX_ESCALATIONS),
        "Who is asked next, if nobody answers, in ascending order.",
    ),
    (
        "*",
        "after",
        DURATION,
        "From when the state is entered, as in `1d`; shorter than `timeout`.",
    ),
    (
        "*",
        "duration",
        Def("wait-duration"),
        "How long to wait, as in `5m`, or a template.",
    ),
    (
        "*",
        "until",
        TEXT,
        "When to go on: an RFC 3339 timestamp, or a template.",
    ),
    (
        "*",
        "message",
        TEXT,
        "What went wrong, for people; a text or template.",
    ),
    ("*", "cause", TEXT, "Another name for `message`."),
];

/// Keys that have to be there.
const REQUIRED: &[(&str, &[&str])] = &[
    ("envelope", &["apiVersion", "kind", "metadata", "spec"]),
    ("metadata", &["name"]),
    ("spec", &["workflows"]),
    ("only-workflows", &["workflows"]),
    ("workflow", &["states"]),
    ("schedule", &["workflow"]),
    ("branch", &["states"]),
    ("iterator", &["states"]),
    ("batch", &["size"]),
    ("items", &["object", "format"]),
    ("results", &["object"]),
    ("input", &["schema"]),
    ("rate-limit", &["rate"]),
    ("catch", &["error", "next"]),
    ("compensate", &["resource"]),
    ("choice", &["condition", "next"]),
    ("escalation", &["after", "assignee"]),
    ("Choice", &["choices"]),
    ("Parallel", &["branches"]),
    ("Map", &["items", "iterator"]),
    ("ForEach", &["items", "iterator"]),
    ("EventTask", &["event"]),
    ("HumanTask", &["assignee"]),
    ("SubWorkflow", &["workflow"]),
    ("Fail", &["error"]),
];

/// Keys that exclude each other.
const EXCLUSIVE: &[(&str, &str)] = &[
    ("result", "resultPath"),
    ("message", "cause"),
    ("duration", "until"),
    ("cron", "interval"),
    ("cron", "offset"),
    ("interval", "timezone"),
];

/// A key that needs another beside it.
const NEEDS: &[(&str, &str, &str)] = &[
    ("EventTask", "on_timeout", "timeout"),
    ("HumanTask", "on_timeout", "timeout"),
    ("Task", "compensate", "resource"),
];

/// Every mapping of the language but states, by its name under `$defs`.
const SHAPES: &[(&str, &Shape)] = &[
    ("envelope", &document::ENVELOPE),
    ("metadata", &document::METADATA),
    ("spec", &document::SPEC),
    ("only-workflows", &document::ONLY_WORKFLOWS),
    ("workflow", &workflow::WORKFLOW),
    ("retries", &policies::RETRIES),
    ("backoff", &policies::BACKOFF),
    ("catch", &policies::HANDLER),
    ("compensate", &states::COMPENSATION),
    ("choice", &states::WAY),
    ("schedule", &schedules::SCHEDULE),
    ("catch-up", &schedules::CATCH_UP),
    ("branch", &states::BRANCH),
    ("iterator", &map::ITERATOR),
    ("batch", &map::BATCH),
    ("items", &map::OBJECT),
    ("results", &map::RESULTS),
    ("input", &workflow::INPUT),
    ("ui", &waiting::UI),
    ("rate-limit", &rates::RATE),
    ("escalation", &waiting::ESCALATION),
];

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
