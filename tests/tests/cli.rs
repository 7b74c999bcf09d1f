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

#[test]
fn a_definition_is_imported_and_what_is_lost_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| {
        let file = folder.path().join(name);
        file.to_str().expect("a temporary path is UTF-8").to_owned()
    };
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("a file");
        path(name)
    };
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:f";
    let definition = write(
        "order.asl.json",
        &format!(
            r#"{{"StartAt":"A","States":{{"A":{{"Type":"Task","Resource":"{arn}","End":true}}}}}}"#
        ),
    );
    let bindings = write(
        "bindings.yaml",
        "arn:aws:lambda:*:function:f: urn:cascade:activity:echo\n",
    );
    let out = path("order.yaml");

    let args = [
        "import",
        "asl",
        &definition,
        "--bind",
        &bindings,
        "--output-file",
        &out,
    ];
    let whole = alone(&args).succeeds();
    assert_eq!(whole.stdout, "");
    assert!(whole.stderr.contains("all is expressed"), "{whole:?}");
    alone(&["validate", &out]).succeeds();

    let unbound = alone(&["import", "asl", &definition]).exits(1);
    assert!(
        unbound.stdout.contains("# not expressed: Resource:"),
        "{unbound:?}"
    );
    assert!(
        unbound.stderr.contains("not expressed: A, Resource:"),
        "{unbound:?}"
    );
    let json = alone(&["import", "asl", &definition, "--output", "json"]).exits(1);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(document["findings"][0]["state"], "A");
    assert_eq!(
        document["cdl"].as_str().map(str::trim_end),
        Some(unbound.stdout.trim_end())
    );

    let invalid = write("invalid.asl.json", r#"{"StartAt":"A","States":{}}"#);
    let refused = alone(&["import", "asl", &invalid]).exits(2);
    assert_eq!(refused.stdout, "");
}

/// The server keeps the bindings with the definition: after a restart it compiles
/// both again.
#[test]
fn a_definition_runs_by_what_its_arns_are_bound_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("a file");
        file.to_str().expect("a temporary path is UTF-8").to_owned()
    };
    let bindings = write(
        "bindings.yaml",
        "arn:aws:lambda:*:function:f: urn:cascade:activity:echo\n",
    );
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:f";
    let json = format!(
        r#"{{"StartAt":"A","States":{{"A":{{"Type":"Task","Resource":"{arn}","End":true}}}}}}"#
    );
    let yaml = format!(
        "StartAt: A # first\nStates:\n  A: {{ Type: Task, Resource: '{arn}', End: true }}\n"
    );
    let files = [write("one.asl.json", &json), write("two.yaml", &yaml)];
    for file in &files {
        let unbound = alone(&["validate", file]).succeeds();
        assert!(unbound.stderr.contains("CDL0909"), "{unbound:?}");
        let bound = alone(&["validate", file, "--bind", &bindings, "--strict"]).succeeds();
        assert_eq!(bound.stderr, "");
    }
    let damaged = write("damaged.yaml", "arn: 'urn:cascade:activity:'\n");
    let refused = alone(&["validate", &files[0], "--bind", &damaged]).exits(1);
    assert!(
        refused.stderr.contains("the name is missing"),
        "{refused:?}"
    );

    let mut server = Server::start();
    server.push("echo", None);
    for file in &files {
        server.cli(&["apply", file, "--bind", &bindings]).succeeds();
    }
    server.kill();
    server.restart();
    for name in ["one", "two"] {
        let input = serde_json::json!({ "n": 7 });
        let started = server.start_execution(name, name, &input, name);
        let started = started.expect("the server answers");
        let id = started.body["id"].as_str().expect("an id").to_owned();
        let ended = server.wait(&id);
        assert_eq!(ended["status"], "completed", "{ended}");
        assert_eq!(ended["output"], input, "{ended}");
    }
}
