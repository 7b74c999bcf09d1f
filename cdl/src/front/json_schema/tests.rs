use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::schema::{Schema, Unfit};
use crate::{Code, Severity, Source, parse};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fits(text: &str) -> Result<(), Unfit> {
    let value: Value = serde_yaml::from_str(text).expect("YAML");
    Schema::new(json_schema()).expect("a schema").check(&value)
}

fn is_accepted(text: &str) -> bool {
    let bytes = text.as_bytes();
    let name = "file.yaml";
    parse(&Source { name, bytes }).application.is_some()
}

#[test]
fn the_schema_has_the_keys_of_the_parser_and_no_other() {
    let schema = json_schema();
    for (name, shape) in shapes() {
        let def = &schema["$defs"][name];
        let properties = def["properties"].as_object().expect(name);
        let there: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(there, shape.known.iter().copied().collect(), "{name}");
        assert_eq!(def["additionalProperties"], false, "{name}");
        for key in shape.later {
            assert!(!there.contains(key), "{name} has no {key} yet");
        }
        for (key, property) in properties {
            let about = property["description"].as_str().unwrap_or("");
            assert!(
                about.ends_with('.') && about.len() < 100,
                "{name}.{key} needs a line"
            );
        }
        for key in def["required"].as_array().into_iter().flatten() {
            assert!(
                there.contains(key.as_str().expect("a key")),
                "{name} requires {key}"
            );
        }
    }
}

#[test]
fn every_row_is_of_a_key_that_there_is() {
    for (of, key, ..) in KEYS {
        let has = |(name, shape): (&str, &Shape)| {
            (*of == "*" || *of == name) && shape.known.contains(key)
        };
        assert!(shapes().any(has), "{of}.{key}");
    }
}

/// A shape that somebody adds to the parser has to come here, too.
#[test]
fn no_shape_of_the_parser_is_forgotten() {
    let mut declared = 0;
    for file in [
        "document",
        "map",
        "policies",
        "rates",
        "schedules",
        "schemas",
        "states",
        "waiting",
        "workflow",
    ] {
        let text = read(&root().join(format!("cdl/src/front/{file}.rs")));
        declared += text.matches(": Shape = Shape {").count();
    }
    assert_eq!(declared, SHAPES.len());
}

#[test]
fn the_file_in_docs_is_the_schema_of_the_code() {
    let path = root().join("docs/cdl.schema.json");
    let file: Value = serde_json::from_str(&read(&path)).expect("JSON");
    assert!(
        file == json_schema(),
        "docs/cdl.schema.json is old: cascade schema > docs/cdl.schema.json"
    );
}

/// The files below a folder.
fn below(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            below(&path, end, found);
        } else if path.extension().is_some_and(|is| is == end) {
            found.push(path);
        }
    }
}

/// Whether the parser takes a text, but for states that it leads to and does not have:
/// documentation shows parts of files.
fn is_accepted_in_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let name = "file.yaml";
    let parsed = parse(&Source { name, bytes });
    let mut errors = parsed.diagnostics.iter();
    errors.all(|d| d.severity == Severity::Warning || d.code == Code::UnknownTarget)
}

/// Every sample, example, file in a test and piece of documentation that the parser takes.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut paths = Vec::new();
    for folder in ["cdl/tests/samples", "examples"] {
        below(&root().join(folder), "yaml", &mut paths);
    }
    below(&root().join("cdl/tests"), "rs", &mut paths);
    below(&root().join("docs"), "md", &mut paths);
    paths.push(root().join("README.md"));
    for path in paths {
        let (name, text) = (path.display().to_string(), read(&path));
        let end = path.extension().and_then(|end| end.to_str());
        // Fences of Markdown, and strings of Rust.
        let pieces: Vec<&str> = match end {
            Some("md") => text.split("```").collect(),
            Some("rs") => {
                let raw = text.split("r#\"").flat_map(|rest| rest.split("\"#"));
                raw.chain(text.split('"')).collect()
            }
            _ => vec![&text],
        };
        for piece in pieces {
            let piece = piece.strip_prefix("yaml\n").unwrap_or(piece);
            files.push((name.clone(), piece.to_owned()));
            // States by themselves.
            files.push((name.clone(), format!("states:\n{piece}")));
        }
    }
    files.retain(|(_, text)| {
        let value: Option<Value> = serde_yaml::from_str(text).ok();
        let is_cdl = |value: Value| {
            value.is_object()
                && ["StartAt", "definition"]
                    .iter()
                    .all(|key| value.get(key).is_none())
        };
        value.is_some_and(is_cdl) && is_accepted_in_part(text)
    });
    files
}

#[test]
fn whatever_the_parser_takes_of_samples_examples_and_docs_fits() {
    let files = files();
    // So that a change of how they are found does not leave none.
    for (place, least) in [
        ("samples", 2),
        ("examples", 2),
        ("README", 1),
        ("cdl.md", 3),
        (".rs", 5),
    ] {
        let count = files
            .iter()
            .filter(|(name, _)| name.contains(place))
            .count();
        assert!(count >= least, "only {count} of {place}");
    }
    for (name, text) in files {
        assert_eq!(fits(&text), Ok(()), "{name}\n{text}");
    }
}

#[test]
fn the_shorthands_fit() {
    for text in [
        "workflows: { a: { states: [{ name: A, type: Succeed }] } }",
        "workflows: [{ name: a, states: { A: { type: Succeed } } }]",
        "states: [{ name: A, type: Wait, duration: '{{ $.long }}', end: true }]",
        "states: [{ name: A, type: Task, resource: 'urn:cascade:waitFor:event', event: e, end: true }]",
        "workflows: { a: { states: [{ name: A, type: SubWorkflow, workflow: a, wait: false, end: true }] } }",
        "workflows: { a: { states: [{ name: A, type: Task, resource: 'urn:cascade:workflow:b/a', timeout: 5m, end: true }] } }",
        "{ workflows: { a: { states: [{ name: A, type: Succeed }] } }, schedules: { s: { workflow: a, cron: ['@daily', 0 9 * * MON], catch_up: last } } }",
        "{ workflows: { a: { states: [{ name: A, type: Succeed }] } }, schedules: [{ name: s, workflow: a, interval: 15m, offset: 5m, catch_up: { window: 1h } }] }",
        "states: { P: { type: Parallel, branches: { a: { states: [{ name: A, type: Succeed }] }, b: { type: Pass } }, end: true } }",
    ] {
        assert!(is_accepted(text), "{text}");
        assert_eq!(fits(text), Ok(()), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_seen_by_both() {
    let state = |keys: &str| format!("states: [{{ name: A, {keys} }}]");
    let schedule = |keys: &str| {
        format!(
            "{{ workflows: {{ a: {{ states: [{{ name: A, type: Succeed }}] }} }}, schedules: [{{ name: s, {keys} }}] }}"
        )
    };
    for text in [
        schedule("interval: 1h"),
        schedule("workflow: a"),
        schedule("workflow: a, cron: '@daily', interval: 1h"),
        schedule("workflow: a, interval: 1h, timezone: UTC"),
        schedule("workflow: a, interval: 1h, overlap: sometimes"),
        schedule("workflow: a, interval: 1h, catch_up: { policy: some, window: 1h }"),
        "{}".to_owned(),
        "steps: []".to_owned(),
        "states: []".to_owned(),
        "states: [{ type: Succeed }]".to_owned(),
        "{ apiVersion: cascade.io/v2, kind: Application, metadata: { name: a }, spec: { workflows: { a: { states: [{ name: A, type: Succeed }] } } } }".to_owned(),
        "{ apiVersion: cascade.io/v1, kind: Application, spec: { workflows: { a: { states: [{ name: A, type: Succeed }] } } } }".to_owned(),
        state("type: Sukzeed"),
        state("output: 1"),
        state("type: Succeed, outputs: 1"),
        state("type: Succeed, next: A"),
        state("type: Task, resource: 5, end: true"),
        state("type: Task, resource: 'urn:cascade:workflow:', end: true"),
        state("type: Task, resource: 'urn:cascade:workflow:test', workflow: test, end: true"),
        state("type: SubWorkflow, end: true"),
        state("type: SubWorkflow, workflow: a/b/c, end: true"),
        state("type: SubWorkflow, workflow: test, heartbeat: 5s, end: true"),
        state("type: SubWorkflow, workflow: test, parent_close_policy: leave, end: true"),
        state("type: Task, resource: 'urn:cascade:activity:x', cache: 5, end: true"),
        state("type: Task, compensate: { resource: 'urn:cascade:activity:x' }, end: true"),
        state("type: Task, resource: 'urn:cascade:activity:x', compensate: {}, end: true"),
        state("type: Task, resource: 'urn:cascade:activity:x', timeout: 30, end: true"),
        state("type: Task, resource: 'urn:cascade:activity:x', timeout: 1m1h, end: true"),
        state("type: Task, resource: 'urn:cascade:activity:x', retries: { backoff: { jitter: some } }, end: true"),
        state("type: Task, resource: 'urn:cascade:activity:x', retries: { max_attempts: 0 }, end: true"),
        state("type: Task, resource: 'urn:cascade:waitFor:event', end: true"),
        state("type: Pass, result: $.a, resultPath: $.b, end: true"),
        state("type: Pass, result: a, end: true"),
        state("type: Wait, end: true"),
        state("type: Wait, duration: 1s, until: '2030-01-31T09:00:00Z', end: true"),
        state("type: Choice, choices: []"),
        state("type: EventTask, event: e, on_timeout: A, end: true"),
        state("type: Parallel, completion_strategy: SOME, branches: [{ name: a, type: Pass }], end: true"),
        state("type: Parallel, completion_strategy: N_OF_M, branches: [{ name: a, type: Pass }], end: true"),
        state("type: Map, items: 5, iterator: { states: [{ name: B, type: Succeed }] }, end: true"),
    ] {
        assert!(!is_accepted(&text), "the parser takes {text}");
        assert!(matches!(fits(&text), Err(Unfit::Misfits(_))), "fits: {text}");
    }
}
