//! `cascade test`: what it runs, what it tells, and how it ends.

use std::fs;
use std::path::Path;
use std::process::Command;

use cascade_tests::{Run, binary, guests, root};
use serde_json::{Value, json};

/// A workflow that waits for time, for people and for an activity that may fail.
const ORDER: &str = r#"
states:
  - name: Charge
    type: Task
    resource: urn:cascade:activity:charge
    parameters: { n: "{{ workflow.input.n }}" }
    result: $.charge
    timeout: 30s
    retries: { max_attempts: 2, backoff: { initial_interval: 1s, jitter: none } }
    catch: [{ error: Declined, next: Sorry }]
    next: Approve
  - { name: Approve, type: HumanTask, assignee: ann, ui: { schema: { type: boolean } }, timeout: 7d, on_timeout: Sorry, result: $.approved, next: Parcel }
  - { name: Parcel, type: EventTask, event: parcel, result: $.parcel, next: Rest }
  - { name: Rest, type: Wait, duration: 30d, end: true }
  - { name: Sorry, type: Fail, error: Sorry }
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

/// Runs `cascade test` in a folder.
fn test(folder: &Path, options: &[&str]) -> Run {
    let mut args = vec!["test"];
    args.extend(options);
    // A tool that is asked for would be missing.
    let output = Command::new(binary())
        .args(&args)
        .current_dir(folder)
        .env("PATH", "")
        .output();
    Run::of(&args, output.expect("the binary runs"))
}

/// Runs one test, and gives what is wrong with it as `what: line`.
#[track_caller]
fn judge(test_of: &str) -> Vec<String> {
    let indented = test_of.replace('\n', "\n    ");
    let text = format!("tests:\n  - name: one\n    {}\n", indented.trim());
    let folder = folder(&[("order.yaml", ORDER), ("order.test.yaml", &text)]);
    let run = test(folder.path(), &["--output", "json"]);
    let report = run.json();
    assert_eq!(report["unread"], json!([]), "{run:#?}");
    let failures = report["tests"][0]["failures"].as_array();
    let lines = failures.into_iter().flatten().flat_map(|found| {
        let lines = found["lines"].as_array().expect("lines").iter();
        let what = found["what"].as_str().expect("what");
        lines.map(move |line| format!("{what}: {}", line.as_str().expect("a text")))
    });
    let lines: Vec<_> = lines.collect();
    assert_eq!(run.exit, Some(i32::from(!lines.is_empty())), "{run:#?}");
    lines
}

#[test]
fn time_is_virtual_and_everybody_answers_when_they_are_said_to() {
    let wrong = judge(
        "
at: 2026-05-01T00:00:00Z
input: { n: 3 }
mocks: { charge: [{ fails: ServiceUnavailable, after: 2s }, { returns: paid }] }
answers: { Approve: { returns: true, after: 2d } }
signals: [{ name: parcel, payload: { id: 7 }, after: 3d }]
expect:
  path: [Charge, Approve, Parcel, Rest]
  output: { charge: paid, approved: true, parcel: { id: 7 } }
  calls: { charge: [{ n: 3 }, { n: 3 }], Charge: 2 }
  took: 33d",
    );
    assert_eq!(wrong, [] as [&str; 0]);
}

#[test]
fn what_hangs_meets_the_timeout_of_its_state() {
    let wrong = judge(
        "
input: { n: 1 }
mocks: { charge: { hangs: true } }
expect: { error: { name: TimeoutError, message: 30000 ms, state: Charge }, took: 61s }",
    );
    assert_eq!(wrong, [] as [&str; 0]);
    let wrong = judge(
        "
input: { n: 1 }
mocks: { charge: { returns: 1 } }
expect: { error: Sorry, path: [Charge, Approve, Sorry], took: 7d }",
    );
    assert_eq!(wrong, [] as [&str; 0]);
}

#[test]
fn what_hangs_without_a_timeout_is_told() {
    let flow = "states: [{ name: A, type: Task, resource: 'urn:cascade:activity:a', end: true }]\n";
    let tests = "mocks: { a: { hangs: true } }\ntests: [{ name: one }]\n";
    let folder = folder(&[("flow.yaml", flow), ("flow.test.yaml", tests)]);
    let run = test(folder.path(), &[]).exits(1);
    let told = "expected completed, got waiting: state `A` waits for `a`, which hangs";
    assert!(run.stdout.contains(told), "{run:#?}");
}

#[test]
fn an_execution_can_be_cancelled_or_be_left_waiting() {
    let wrong = judge(
        "
input: { n: 1 }
mocks: { Charge: { returns: 1 } }
cancel: { after: 1h, reason: changed my mind }
expect: { status: cancelled, took: 1h }",
    );
    assert_eq!(wrong, [] as [&str; 0]);
    let wrong = judge(
        "
input: { n: 1 }
mocks: { Charge: { returns: 1 } }
answers: { Approve: { returns: true } }
expect: { status: waiting, path: [..., Parcel] }",
    );
    assert_eq!(wrong, [] as [&str; 0]);
}

#[test]
fn what_is_not_as_expected_is_told_by_its_place() {
    let wrong = judge(
        "
input: { n: 3 }
mocks: { charge: { returns: { id: 1, by: [ann] } } }
answers: { Approve: { returns: true } }
signals: [{ name: parcel }]
expect:
  path: [Charge, Parcel, Sorry]
  output: { charge: { id: 2, by: [ann, bob] }, approved: true, parcel: null, more: 1 }
  calls: { charge: [{ n: 4 }, { n: 5 }] }
  took: 1s",
    );
    let expected = [
        "path:   Charge",
        "path: + Approve",
        "path:   Parcel",
        "path: - Sorry",
        "path: + Rest",
        "output: ~ $.charge.id: expected 2, got 1",
        "output: - $.charge.by[1]: \"bob\" is missing",
        "output: - $.more: 1 is missing",
        "calls: charge: expected 2, got 1",
        "calls: charge, call 1: ~ $.n: expected 4, got 3",
        "took: expected 1s, took 30d",
    ];
    let mut sorted = (wrong.clone(), expected.map(str::to_owned).to_vec());
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.0, sorted.1, "{wrong:#?}");

    let wrong = judge("input: { n: 3 }\nmocks: { charge: { fails: Declined } }");
    assert_eq!(
        wrong,
        ["status: expected completed, got failed: Sorry (in Sorry)"]
    );
    let wrong = judge(
        "
input: { n: 3 }
mocks: { charge: { fails: { error: Broken, message: no luck, retryable: false } } }
expect: { error: { name: Broken, message: much luck, state: Sorry } }",
    );
    assert_eq!(
        wrong,
        [
            "error: expected a message with \"much luck\", got \"no luck\"",
            "error: expected it in Sorry, got it in Charge",
        ]
    );
    let wrong = judge(
        "input: { n: 3 }\nmocks: { charge: { returns: 1 } }\nexpect: { status: waiting }\nanswers: { Approve: { returns: no } }",
    );
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("the answer to `Approve`"), "{wrong:?}");
}

#[test]
fn a_call_that_nothing_answers_fails_the_test() {
    // Not even an `expect` of failure makes up for it.
    let wrong = judge("input: { n: 1 }\nexpect: { status: failed }");
    assert_eq!(
        wrong,
        ["test: the activity `charge` is not mocked, and not in ."]
    );
    let wrong = judge(
        "
input: { n: 1 }
mocks: { charge: { when: { n: 2 }, returns: 1 } }
expect: { status: failed }",
    );
    assert_eq!(
        wrong,
        ["test: no reply of the mock `charge` is for this input: {\"n\":1}"]
    );
}

#[test]
fn people_are_told_in_lines_and_continuous_integration_in_xml() {
    let tests = "
mocks: { charge: { fails: Declined } }
tests:
  - { name: is declined, input: { n: 1 }, expect: { error: Sorry, path: [Charge, Sorry] } }
  - { name: is <not> declined, input: { n: 1 }, expect: { error: Broken } }
";
    let folder = folder(&[("order.yaml", ORDER), ("order.test.yaml", tests)]);
    let run = test(folder.path(), &["--junit", "out.xml", "--trace"]).exits(1);
    let start = "\
order.test.yaml order/order
  ✓ is declined
  ✗ is <not> declined
      error
        expected Broken, got Sorry (in Sorry)
";
    assert!(run.stdout.starts_with(start), "{}", run.stdout);
    // Charge, Approve and Parcel have one that follows, and the first two Sorry besides.
    let end = "
WORKFLOW     STATES  TRANSITIONS
order/order  2 of 5  1 of 5
not covered of order/order:
  state Approve
  state Parcel
  state Rest
  Charge → Approve
  Approve → Parcel
  Approve → Sorry (caught)
  Parcel → Rest

1 passed, 1 failed
";
    assert!(run.stdout.ends_with(end), "{}", run.stdout);
    assert!(run.stdout.contains("ActivityFailed"), "{}", run.stdout);
    assert!(!run.stdout.contains('\u{1b}'), "no colours in a pipe");
    let xml = fs::read_to_string(folder.path().join("out.xml")).expect("a report");
    let head = "<testsuite name=\"order.test.yaml\" tests=\"2\" failures=\"1\" errors=\"0\">";
    assert!(xml.contains(head), "{xml}");
    assert!(xml.contains("is &lt;not&gt; declined"), "{xml}");
    let run = test(folder.path(), &["order.yaml", "--filter", "is declined"]).succeeds();
    assert!(run.stdout.ends_with("\n1 passed, 1 left out\n"), "{run:?}");
    test(folder.path(), &["--filter", "nothing"]).exits(2);
}

#[test]
fn coverage_is_counted_over_all_files_and_can_be_asked_for() {
    let flow = "states:\n  - { name: A, type: Choice, choices: [{ condition: '{{ workflow.input.a }}', next: B }], default: C }\n  \
                - { name: B, type: Pass, end: true }\n  - { name: C, type: Pass, end: true }\n";
    let of =
        |a: bool| format!("workflow: flow.yaml\ntests: [{{ name: one, input: {{ a: {a} }} }}]\n");
    let folder = folder(&[
        ("flow.yaml", flow),
        ("one.test.yaml", &of(true)),
        ("two.test.yaml", &of(false)),
    ]);
    test(folder.path(), &["--min-coverage", "100"]).succeeds();
    // Of two transitions one is half.
    let half = ["one.test.yaml", "--min-coverage"];
    test(folder.path(), &[half[0], half[1], "50"]).succeeds();
    let run = test(folder.path(), &[half[0], half[1], "51", "--output", "json"]).exits(1);
    let report = run.json();
    assert_eq!(report["ok"], false);
    let expected = json!({
        "states": { "covered": 2, "total": 3 },
        "transitions": { "covered": 1, "total": 2 },
        "workflows": [{
            "workflow": "flow/flow",
            "file": "flow.yaml",
            "states": { "covered": 2, "total": 3, "missed": ["C"] },
            "transitions": {
                "covered": 1, "total": 2,
                "missed": [{ "from": "A", "to": "C", "cause": "next" }],
            },
        }],
    });
    assert_eq!(report["coverage"], expected);
}

/// Each mistake, and where it is found: `line:column`, and a part of what is said.
#[test]
fn mistakes_are_told_all_at_once_with_their_places() {
    let tests = r#"mocks:
  chrage: { returns: 1 }
  charge: { returns: 1, fails: X }
  Parcel: { returns: 1 }
tests:
  - name: one
    inptu: {}
    input: "@missing.json"
    answers: { Approve: { after: soon }, Charge: { returns: 1 } }
    signals: [{ name: parcle }]
    expect:
      status: complete
      path: [Charge, Sory, ...]
      output: 1
      contains: 1
      calls: { charge: -1 }
  - name: one
    expect: { error: X, output: 1 }
  - expect: { error: { nam: X } }
"#;
    let folder = folder(&[("order.yaml", ORDER), ("order.test.yaml", tests)]);
    let run = test(folder.path(), &["--output", "json"]).exits(1);
    let report = run.json();
    let problems = report["unread"][0]["problems"]
        .as_array()
        .expect("problems");
    let told: Vec<_> = problems
        .iter()
        .map(|problem| {
            let message = problem["message"].as_str().expect("a message");
            (
                format!("{}:{}", problem["line"], problem["column"]),
                message,
            )
        })
        .collect();
    let expected = [
        ("2:3", "did you mean `charge`?"),
        ("3:3", "only one of"),
        ("4:3", "state that runs one"),
        ("7:5", "did you mean `input`?"),
        ("8:5", "missing.json"),
        ("9:27", "a duration"),
        ("9:42", "there are: Approve"),
        ("10:17", "did you mean `parcel`?"),
        ("12:7", "did you mean `completed`?"),
        ("13:22", "did you mean `Sorry`?"),
        ("15:7", "says all of it"),
        ("16:16", "a number of calls"),
        ("17:5", "the same name"),
        ("18:25", "unless the execution is completed"),
        ("19:5", "`name` is missing"),
        ("19:24", "did you mean `name`?"),
    ];
    for (place, part) in expected {
        let found = told
            .iter()
            .any(|(at, message)| at == place && message.contains(part));
        assert!(found, "no {part:?} at {place}: {told:#?}");
    }

    let run = test(folder.path(), &[]).exits(1);
    let caret = "\
 --> order.test.yaml:7:5
  |
7 |     inptu: {}
  |     ^^^^^
";
    assert!(run.stderr.contains(caret), "{}", run.stderr);
}

#[test]
fn a_workflow_that_is_not_to_be_had_is_a_mistake_of_the_tests() {
    let two = "workflows:\n  a: { states: [{ name: A, type: Pass, end: true }] }\n  \
               b: { states: [{ name: B, type: Pass, end: true }] }\n";
    let tests = |workflow: &str| format!("{workflow}\ntests: [{{ name: one }}]\n");
    for (workflow, part) in [
        ("workflow: two.yaml", "several workflows"),
        ("workflow: two.yaml#other", "there are: a, b"),
        ("workflow: none.yaml", "cannot read none.yaml"),
        ("workflow: bad.yaml", "bad.yaml is invalid"),
        ("", "say which one is tested"),
        ("bindings: none.yaml\nworkflow: two.yaml#a", "none.yaml"),
    ] {
        let text = tests(workflow);
        let folder = folder(&[
            ("two.yaml", two),
            ("bad.yaml", "states: [{ name: A, type: Taks }]"),
            ("it.test.yaml", &text),
        ]);
        let run = test(folder.path(), &[]).exits(1);
        assert!(run.stderr.contains(part), "{workflow}: {run:#?}");
    }
    let text = tests("workflow: two.yaml#b");
    let folder = folder(&[("two.yaml", two), ("it.test.yaml", &text)]);
    test(folder.path(), &[]).succeeds();
    test(folder.path(), &["two.yaml"]).exits(2);
    let empty = tempfile::tempdir().expect("a temporary folder");
    test(empty.path(), &[]).exits(2);
}

/// An ARN that is bound, a token that somebody has, and errors as AWS names them.
#[test]
fn a_definition_in_the_states_language_is_tested_alike() {
    let arn = "arn:aws:states:::lambda:invoke.waitForTaskToken";
    let definition = json!({
        "StartAt": "Ask",
        "States": {
            "Ask": {
                "Type": "Task", "Resource": arn, "TimeoutSeconds": 60,
                "Parameters": { "FunctionName": "ask", "Payload": { "token.$": "$$.Task.Token" } },
                "Catch": [{ "ErrorEquals": ["States.Timeout"], "Next": "Late" }],
                "End": true,
            },
            "Late": { "Type": "Fail", "Error": "Late" },
        },
    });
    let bindings = format!("\"{arn}\": urn:cascade:activity:ask\n");
    let tests = "
bindings: bindings.yaml
mocks: { ask: { returns: null } }
tests:
  - { name: is answered, answers: { Ask: { returns: { a: 1 }, after: 59s } }, expect: { output: { a: 1 }, took: 59s } }
  - { name: is refused, answers: { Ask: { fails: { error: No, message: never } } }, expect: { error: { name: No, message: never } } }
  - { name: is not answered, expect: { error: Late, took: 1m } }
";
    let folder = folder(&[
        ("ask.asl.json", &definition.to_string()),
        ("bindings.yaml", &bindings),
        ("ask.test.yaml", tests),
    ]);
    test(folder.path(), &["--min-coverage", "100"]).succeeds();
}

#[test]
fn what_is_not_mocked_runs_in_the_sandbox() {
    let flow = "states:\n  - { name: A, type: Task, resource: urn:cascade:activity:echo, parameters: { n: 1 }, result: $.a, end: true }\n";
    let tests = "
tests:
  - { name: real, expect: { output: { a: { n: 1 } }, calls: { echo: 1 }, took: 0s } }
  - { name: mocked, mocks: { A: { returns: 2 } }, expect: { output: { a: 2 } } }
";
    let folder = folder(&[("flow.yaml", flow), ("flow.test.yaml", tests)]);
    let wasm = guests().join("echo.wasm");
    fs::copy(wasm, folder.path().join("echo.wasm")).expect("copied");
    test(folder.path(), &[]).succeeds();
}

/// The examples' own tests, as their README says; they leave nothing out.
#[test]
fn the_tests_of_the_examples_pass_and_cover_all_of_them() {
    let run = test(
        root(),
        &["examples", "--min-coverage", "100", "--output", "json"],
    );
    let report = run.succeeds().json();
    let workflows = report["coverage"]["workflows"].as_array();
    let names: Vec<_> = workflows
        .into_iter()
        .flatten()
        .map(|covered| covered["workflow"].as_str().unwrap_or_default())
        .collect();
    let expected = [
        "order-processing/process_order",
        "regional-validation/validate_customer",
    ];
    assert_eq!(names, expected);
    assert_eq!(report["unread"], Value::Array(Vec::new()));
}
