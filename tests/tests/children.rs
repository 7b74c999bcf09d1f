//! Executions that others start: whoever waits for them goes on after a crash, and none is started twice.

use std::fs;

use cascade_tests::{Run, Server, binary};
use serde_json::{Value, json};

/// A parent with a child that it waits for and one that it leaves behind, and one
/// whose child goes with it.
const SHOP: &str = "
workflows:
  order:
    states:
      - { name: Ship, type: SubWorkflow, workflow: ship, parameters: { id: 7 }, result: $.shipment, next: Notify }
      - { name: Notify, type: SubWorkflow, workflow: notify, wait: false, result: $.notice, next: Elsewhere }
      - { name: Elsewhere, type: Task, resource: 'urn:cascade:workflow:stock/refill', result: $.stock, end: true }
  ship:
    states:
      - { name: Packed, type: EventTask, event: packed, result: $.packed, next: Send }
      - { name: Send, type: Task, resource: urn:cascade:activity:echo, parameters: '{{ workflow.input.id }}', result: $.sent, end: true }
  notify:
    states:
      - { name: Read, type: EventTask, event: read, result: $.read, end: true }
";

const STOCK: &str = "
workflows:
  refill:
    states:
      - { name: Fail, type: Fail, error: OutOfStock, message: none is left }
";

fn start(server: &Server, workflow: &str, key: &str) -> String {
    let answer = server.start_execution("shop", workflow, &json!({}), key);
    let answer = answer.expect("the server answers");
    answer.body["id"].as_str().expect("an id").to_owned()
}

/// All executions of a workflow, once there are so many.
fn all(server: &Server, workflow: &str, count: usize) -> Vec<Value> {
    loop {
        let list = [
            "process",
            "list",
            "--workflow",
            workflow,
            "--output",
            "json",
        ];
        let list = server.cli(&list).succeeds().json();
        let items = list["items"].as_array().expect("a list").clone();
        assert!(items.len() <= count, "{list}");
        if items.len() == count {
            return items;
        }
    }
}

fn id(view: &Value) -> &str {
    view["id"].as_str().expect("an id")
}

#[test]
fn a_killed_server_neither_loses_nor_repeats_a_child() {
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("shop", SHOP);
    server.apply("stock", STOCK);
    let parents: Vec<String> = (0..3)
        .map(|n| start(&server, "order", &format!("order-{n}")))
        .collect();
    let children = all(&server, "ship", parents.len());
    server.kill();
    server.restart();
    for child in &children {
        let signal = ["process", "signal", id(child), "packed", "--payload", "1"];
        server.cli(&signal).succeeds();
    }
    server.kill();
    server.restart();
    for parent in &parents {
        let view = server.wait(parent);
        assert_eq!(view["status"], "failed", "{view}");
        assert_eq!(view["error"]["error"], "OutOfStock", "{view}");
        assert_eq!(view["error"]["state"], "Elsewhere", "{view}");
        server.cli(&["replay", parent]).succeeds();
    }
    for child in all(&server, "ship", parents.len()) {
        assert_eq!(child["status"], "completed", "{child}");
        let view = server.wait(id(&child));
        assert_eq!(view["output"], json!({ "packed": 1, "sent": 7 }), "{view}");
        server.cli(&["replay", id(&child)]).succeeds();
    }
    // What nobody waits for outlives who started it.
    for left in all(&server, "notify", parents.len()) {
        assert_eq!(left["status"], "running", "{left}");
        server
            .cli(&["process", "signal", id(&left), "read"])
            .succeeds();
        assert_eq!(server.wait(id(&left))["status"], "completed");
    }
    all(&server, "refill", parents.len());
}

#[test]
fn a_child_that_is_waited_for_is_cancelled_with_its_parent() {
    let mut server = Server::start();
    server.apply("shop", SHOP);
    let parent = start(&server, "order", "order");
    let children = all(&server, "ship", 1);
    server.cli(&["process", "cancel", &parent]).succeeds();
    server.kill();
    server.restart();
    let child = server.wait(id(&children[0]));
    assert_eq!(child["status"], "cancelled", "{child}");
    all(&server, "notify", 0);
}

/// Runs a workflow of `SHOP` without a server.
fn run(workflow: &str, signals: &[&str]) -> Run {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("shop.yaml"), SHOP).expect("can write");
    let mut args = vec!["run", "shop.yaml", "--workflow", workflow];
    for signal in signals {
        args.extend(["--signal", signal]);
    }
    let output = std::process::Command::new(binary())
        .args(&args)
        .current_dir(folder.path())
        .output();
    Run::of(&args, output.expect("the binary runs"))
}

#[test]
fn children_run_without_a_server_too() {
    // There is no activity, and no other application.
    let lost = run("order", &["packed=1"]).exits(1);
    assert!(lost.stderr.contains("ActivityNotFound"), "{lost:?}");
    let stuck = run("order", &[]).exits(1);
    assert!(stuck.stderr.contains("--signal 'packed=JSON'"), "{stuck:?}");
    let read = run("notify", &["read=1"]).succeeds();
    assert_eq!(read.stdout.trim(), "{\"read\":1}");
}

#[test]
fn children_share_the_signals_of_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "
workflows:
  main:
    states:
      - name: Each
        type: Map
        items: [1, 2]
        max_concurrency: 2
        iterator: { states: [{ name: Child, type: SubWorkflow, workflow: waits, end: true }] }
        result: $.each
        end: true
  waits:
    states: [{ name: Wait, type: EventTask, event: go, result: $.go, end: true }]
";
    fs::write(folder.path().join("main.yaml"), text).expect("can write");
    let run = |signals: &[&str]| {
        let args = ["run", "main.yaml", "--workflow", "main"];
        let args: Vec<&str> = args.iter().chain(signals).copied().collect();
        let output = std::process::Command::new(binary())
            .args(&args)
            .current_dir(folder.path())
            .output();
        Run::of(&args, output.expect("the binary runs"))
    };
    let go = ["--signal", "go=1", "--signal", "go=2", "--signal", "go=3"];
    let shared = run(&go).succeeds();
    let output: Value = serde_json::from_str(&shared.stdout).expect("JSON on stdout");
    assert_eq!(output, json!({ "each": [{ "go": 1 }, { "go": 2 }] }));
    assert!(
        shared.stderr.contains("`go` was not waited for"),
        "{shared:?}"
    );
    let unknown = run(&["--signal", "gone=1"]).exits(2);
    assert!(unknown.stderr.contains("signal `gone`"), "{unknown:?}");
}

#[test]
fn what_a_run_leaves_behind_does_not_make_it_fail() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "
workflows:
  main:
    states:
      - { name: Loose, type: SubWorkflow, workflow: waits, wait: false, next: Each }
      - name: Each
        type: Map
        items: [1, 2]
        max_concurrency: 2
        iterator: { states: [{ name: Child, type: SubWorkflow, workflow: double, end: true }] }
        result: $.each
        next: Race
      - name: Race
        type: Parallel
        completion_strategy: ANY
        branches:
          - { name: Slow, type: SubWorkflow, workflow: waits }
          - { name: Fast, type: SubWorkflow, workflow: double, parameters: 4 }
        result: $.race
        end: true
  waits:
    states: [{ name: Wait, type: EventTask, event: never, end: true }]
  double:
    output: '{{ 2 * workflow.input }}'
    states: [{ name: Double, type: Pass, end: true }]
";
    fs::write(folder.path().join("main.yaml"), text).expect("can write");
    let args = ["run", "main.yaml", "--workflow", "main"];
    let output = std::process::Command::new(binary())
        .args(args)
        .current_dir(folder.path())
        .output();
    let run = Run::of(&args, output.expect("the binary runs")).succeeds();
    let output: Value = serde_json::from_str(&run.stdout).expect("JSON on stdout");
    assert_eq!(output, json!({ "each": [2, 4], "race": { "Fast": 8 } }));
    assert!(run.stderr.contains("its parent gave it up"), "{run:?}");
}
