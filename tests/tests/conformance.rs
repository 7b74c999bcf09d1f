//! `cascade conformance`: the suite of the States Language through the binary, its
//! sandbox included, and what the command says of suites that are not whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use cascade_tests::{Run, binary, root};
use serde_json::{Value, json};

/// What has been reached may not be lost again. The one execution that is wrong is
/// wrong in the suite: it expects a text that its own mock does not give.
const EXECUTIONS_FLOOR: usize = 454;
const ENTERED_FLOOR: usize = 163;
const VERDICTS_FLOOR: usize = 17;

fn conformance(dir: &Path, options: &[&str]) -> Run {
    let dir = dir.to_str().expect("a path in UTF-8");
    let mut args = vec!["conformance", dir];
    args.extend(options);
    let output = Command::new(binary()).args(&args).output();
    Run::of(&args, output.expect("the binary runs"))
}

/// The right and the total of each row of the table.
fn table(run: &Run) -> BTreeMap<&str, (usize, usize)> {
    let rows = run.stdout.lines().filter_map(|line| {
        let mut cells = line.split_whitespace();
        let name = cells.next()?;
        let [right, total] = [cells.next()?, cells.next()?].map(|cell| cell.parse().ok());
        Some((name, (right?, total?)))
    });
    rows.collect()
}

#[test]
fn the_suite_recorded_on_aws_keeps_its_floor() {
    for options in [&[] as &[&str], &["--yaml"]] {
        let run = conformance(&root().join("tests/conformance/asl"), options);
        println!("{}\n{}", run.stderr, run.stdout);
        let table = table(&run);
        let (right, total) = table["executions"];
        assert_eq!(total, 455, "the README counts the executions");
        assert!(right >= EXECUTIONS_FLOOR, "{right} executions are right");
        assert!(table["entered"].0 >= ENTERED_FLOOR, "{table:?}");
        assert!(table["definitions"].0 >= VERDICTS_FLOOR, "{table:?}");
    }
}

/// A suite of one scenario, of definitions, and of a file that is broken.
fn small(folder: &Path) {
    let waits = json!({
        "StartAt": "W",
        "States": {
            "W": { "Type": "Wait", "Seconds": 86_400, "Next": "T" },
            "T": {
                "Type": "Task", "Resource": "arn:aws:lambda:us-east-1:1:function:f",
                "TimeoutSeconds": 3_600, "End": true,
                "Retry": [{ "ErrorEquals": ["Again"], "MaxAttempts": 1, "IntervalSeconds": 60 }],
            },
        },
    });
    let arn = "arn:aws:lambda:us-east-1:1:function:f";
    let behaves = |behavior: Value| json!({ arn: behavior });
    let scenario = json!({
        "machine_type": "STANDARD", "features": ["wait"], "definition": waits,
        "cases": [
            { "id": "echoes", "input": { "a": 1 }, "activities": behaves(json!({ "behavior": "echo" })),
              "expected": { "status": "SUCCEEDED", "output": { "a": 1.0 }, "entered": { "W": 1, "T": 1 } } },
            { "id": "wrong", "input": 5, "activities": behaves(json!({ "behavior": "echo" })),
              "expected": { "status": "SUCCEEDED", "output": 6, "entered": { "W": 1, "T": 1 } } },
            { "id": "fails", "input": null,
              "activities": behaves(json!({ "behavior": "fail", "error": "Again", "cause": "no luck" })) },
            { "id": "late", "input": null,
              "activities": behaves(json!({ "behavior": "sleep", "seconds": 3_601, "then": "echo" })) },
            { "id": "refused", "input": null, "definition": { "StartAt": "X", "States": {} } },
        ],
    });
    fs::write(folder.join("a.json"), scenario.to_string()).expect("a file");
    fs::write(folder.join("b.json"), "{\"cases\":\n  [7]}").expect("a file");
    fs::write(folder.join("README.md"), "not a case").expect("a file");
    fs::create_dir(folder.join("definitions")).expect("a folder");
    let fine = json!({ "StartAt": "A", "States": { "A": { "Type": "Succeed" } } }).to_string();
    let definitions = json!([
        { "text": fine, "machine_type": "STANDARD", "verdict": "valid", "answer": {} },
        { "text": "{}", "machine_type": "EXPRESS" },
    ]);
    fs::write(folder.join("definitions/d.json"), definitions.to_string()).expect("a file");
}

#[test]
fn each_case_is_one_line_of_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    small(folder.path());
    let run = conformance(folder.path(), &["--json"]).exits(1);
    let lines: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let line = |id: &str| {
        let found = lines.iter().find(|line| line["id"] == id);
        found.unwrap_or_else(|| panic!("no line of {id}: {lines:?}"))
    };
    assert_eq!(lines.len(), 7);
    let entered = json!({ "W": 1, "T": 1 });
    assert_eq!(
        line("echoes"),
        &json!({
            "id": "echoes", "status": "SUCCEEDED", "output": { "a": 1 }, "error": null,
            "cause": null, "entered": entered, "right": true,
        })
    );
    assert_eq!(line("wrong")["right"], false);
    assert_eq!(line("wrong")["reasons"], json!(["output 5, not 6"]));
    // Nothing is expected of these: they only answer.
    assert_eq!(
        line("fails"),
        &json!({
            "id": "fails", "status": "FAILED", "output": null, "error": "Again",
            "cause": "no luck", "entered": entered,
        })
    );
    // One second too late, on a clock that nobody waits for.
    assert_eq!(line("late")["status"], "FAILED");
    assert_eq!(line("late")["error"], "States.Timeout");
    assert_eq!(line("refused")["status"], "INVALID");
    assert_eq!(line("definitions/d/0")["status"], "VALID");
    assert_eq!(line("definitions/d/1")["status"], "INVALID");
    // What cannot be read is told, with its place, and keeps nothing from running.
    assert!(
        run.stderr.contains("b.json") && run.stderr.contains("line 2"),
        "{run:?}"
    );
}

#[test]
fn a_folder_without_cases_is_a_mistake() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    conformance(folder.path(), &[]).exits(2);
    conformance(&folder.path().join("nowhere"), &[]).exits(2);
}
