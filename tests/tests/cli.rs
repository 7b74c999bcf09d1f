//! What commands print and how they end, as docs/cli.md says.

use std::fs;
use std::process::Command;

use cascade_tests::{Run, Server, binary, root};

/// Runs the command line in an empty folder, with no server anywhere.
fn alone(args: &[&str]) -> Run {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(binary())
        .args(args)
        .current_dir(folder.path())
        .env_remove("CASCADE_URL")
        .env_remove("CASCADE_API_KEY")
        .output();
    Run::of(args, output.expect("the binary runs"))
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let bad = root().join("Cargo.toml");
    let bad = bad.to_str().expect("the workspace's path is UTF-8");
    alone(&["validate", bad]).exits(1);
    alone(&["no-such-command"]).exits(2);
    let nowhere = alone(&["process", "list"]).exits(2);
    assert!(nowhere.stderr.contains("cascade dev"), "{nowhere:?}");
    // Nothing listens on port 1.
    alone(&["process", "list", "--url", "http://127.0.0.1:1"]).exits(3);

    let server = Server::start();
    let unknown = "00000000-0000-7000-8000-000000000000";
    server.cli(&["process", "show", unknown]).exits(4);
    server.cli(&["tenant", "list"]).exits(4);
    server.admin_cli(&["tenant", "list"]).succeeds();
}

#[test]
fn errors_are_json_where_results_are() {
    let run = alone(&["process", "list", "--output", "json"]).exits(2);
    let error: serde_json::Value = serde_json::from_str(&run.stderr).expect("JSON on stderr");
    assert_eq!(error["error"]["exit"], 2);
    assert_eq!(run.stdout, "", "results only");
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    let example = root().join("examples/order-processing");
    let example = example.to_str().expect("the workspace's path is UTF-8");
    let run = alone(&["validate", example]).succeeds();
    assert!(
        !run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'),
        "{run:?}"
    );
    assert!(run.stdout.contains("process_order"), "{run:?}");
}

#[test]
fn a_workflow_runs_without_a_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wasm = cascade_tests::guests().join("echo.wasm");
    fs::copy(wasm, folder.path().join("echo.wasm")).expect("copied");
    let file = folder.path().join("flow.yaml");
    let cdl = "states:\n  - { name: A, type: Task, resource: urn:cascade:activity:echo, \
               parameters: { n: '{{ workflow.input.n * 2 }}' }, result: $.a, end: true }\n";
    fs::write(&file, cdl).expect("a file");
    let file = file.to_str().expect("a temporary path is UTF-8");
    let run = alone(&["run", file, "--input", "{\"n\": 21}"]).succeeds();
    assert_eq!(run.stdout.trim(), "{\"a\":{\"n\":42}}");
    // What does not compute fails, and says so by its exit code.
    alone(&["run", file, "--input", "{}"]).exits(1);
}

#[test]
fn a_run_without_a_server_is_given_its_signals_and_answers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("flow.yaml");
    let cdl = "states:\n  - { name: A, type: EventTask, event: go, result: $.a, next: B }\n  \
               - { name: B, type: HumanTask, assignee: ann, ui: { schema: { type: number } }, result: $.b, end: true }\n";
    fs::write(&file, cdl).expect("a file");
    let file = file.to_str().expect("a temporary path is UTF-8");
    let run = alone(&["run", file, "--signal", "go=1", "--answer", "B=2"]).succeeds();
    assert_eq!(run.stdout.trim(), "{\"a\":1,\"b\":2}");
    let stuck = alone(&["run", file, "--signal", "go=1"]).exits(1);
    assert!(stuck.stderr.contains("--answer 'B=JSON'"), "{stuck:?}");
    let stuck = alone(&["run", file]).exits(1);
    assert!(stuck.stderr.contains("--signal 'go=JSON'"), "{stuck:?}");
    alone(&["run", file, "--signal", "stop=1"]).exits(2);
    alone(&["run", file, "--signal", "go=1", "--answer", "B=no"]).exits(2);
    alone(&["run", file, "--signal", "go=1", "--answer", "B=\"text\""]).exits(2);
}

#[test]
fn keys_are_made_used_and_revoked() {
    let server = Server::start();
    let made = server.cli(&["key", "create", "--role", "viewer", "--output", "json"]);
    let made = made.succeeds().json();
    let key = made["key"].as_str().expect("the key's text");
    let id = made["id"].as_str().expect("the key's id");
    server.cli(&["--key", key, "process", "list"]).succeeds();
    // A viewer makes no keys.
    server.cli(&["--key", key, "key", "list"]).exits(4);
    server.cli(&["key", "revoke", id]).succeeds();
    server.cli(&["--key", key, "process", "list"]).exits(4);
}
