//! A new version of an application reaches executions that are open.

use std::fs;

use cascade_tests::Server;
use serde_json::{Value, json};

const ORDER: &str = "
workflows:
  - name: order
    states:
      - { name: Paid, type: EventTask, event: paid, result: $.payment, next: Ship }
      - { name: Ship, type: Pass, parameters: shipped, result: $.shipped, end: true }
";

/// A step is new, and one has another name.
const NEXT: &str = "
workflows:
  - name: order
    states:
      - { name: Money, type: EventTask, event: paid, result: $.payment, next: Book }
      - { name: Book, type: Task, resource: urn:cascade:activity:echo, parameters: '{{ $.payment }}', result: $.booked, next: Ship }
      - { name: Ship, type: Pass, parameters: shipped, result: $.shipped, end: true }
";

fn start(server: &Server, n: u32) -> String {
    let answer = server.start_execution("order", "order", &json!({}), &format!("order-{n}"));
    let answer = answer.expect("the server answers");
    answer.body["id"].as_str().expect("an id").to_owned()
}

fn version(server: &Server, id: &str) -> Value {
    let shown = server.cli(&["process", "show", id, "--output", "json"]);
    shown.succeeds().json()["application_version"].clone()
}

#[test]
fn a_plan_says_what_would_change_and_apply_moves_what_is_safe() {
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("order", ORDER);
    let ids: Vec<String> = (0..3).map(|n| start(&server, n)).collect();

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("order.yaml");
    let mapping = folder.path().join("mapping.yaml");
    fs::write(&file, NEXT).expect("a file");
    fs::write(&mapping, "order: { Paid: Money }").expect("a file");
    let file = file.to_str().expect("UTF-8");
    let mapping = mapping.to_str().expect("UTF-8");

    // Without a mapping nothing can be moved, and that is the answer.
    let plan = server
        .cli(&["plan", file, "--output", "json"])
        .exits(1)
        .json();
    assert_eq!(plan[0]["version"], 1, "{plan}");
    assert_eq!(plan[0]["changed"], true, "{plan}");
    let states = json!([
        { "state": "Book", "change": "added" },
        { "state": "Money", "change": "added" },
        { "state": "Paid", "change": "removed" },
    ]);
    assert_eq!(plan[0]["workflows"][0]["states"], states, "{plan}");
    let tally = &plan[0]["executions"];
    assert_eq!(tally["counts"], json!({ "needs_mapping": 3 }), "{plan}");
    assert_eq!(tally["obstructed"][0]["states"], json!(["Paid"]), "{plan}");
    let shown = server.cli(&["plan", file, "--mapping", mapping]).succeeds();
    assert!(shown.stdout.contains("+ Book"), "{shown:?}");
    assert!(shown.stdout.contains("executions: 3 safe"), "{shown:?}");
    assert_eq!(version(&server, &ids[0]), 1, "nothing was applied");

    let applied = server.cli(&["apply", file, "--migrate", "--output", "json"]);
    let applied = applied.succeeds().json();
    let counts = &applied[0]["executions"]["counts"];
    assert_eq!(*counts, json!({ "needs_mapping": 3 }), "{applied}");
    assert_eq!(version(&server, &ids[0]), 1, "it stays where it is");
    let apply = ["apply", file, "--migrate", "--mapping", mapping];
    let applied = server.cli(&apply).succeeds();
    assert!(
        applied.stdout.contains("executions: 3 moved"),
        "{applied:?}"
    );

    server.kill();
    server.restart();
    let again = server.cli(&apply).succeeds();
    assert!(again.stdout.contains("executions: none"), "{again:?}");
    for id in &ids {
        assert_eq!(version(&server, id), 2);
        server
            .cli(&[
                "process",
                "signal",
                id,
                "paid",
                "--payload",
                "{\"amount\": 7}",
            ])
            .succeeds();
        let view = server.wait(id);
        let expected =
            json!({ "payment": { "amount": 7 }, "booked": { "amount": 7 }, "shipped": "shipped" });
        assert_eq!(view["output"], expected, "{view}");
        server.cli(&["replay", id]).succeeds();
        let history = server.cli(&["process", "history", id]).succeeds();
        assert!(history.stdout.contains("ExecutionMigrated"), "{history:?}");
        assert!(history.stdout.contains("Book"), "{history:?}");
        server.cli(&["process", "watch", id]).succeeds();
        let path = format!("/v1/executions/{id}/history?records=true");
        let records = server.request("GET", &path, &[], "").expect("an answer");
        assert_eq!(records.status, 200, "{}", records.body);
    }
}

#[test]
fn a_mapping_that_names_what_is_not_there_is_refused() {
    let server = Server::start();
    server.apply("order", ORDER);
    let body = json!({ "mapping": { "order": { "Paid": "Nowhere" } } }).to_string();
    let path = "/v1/applications/order/migrate";
    let refused = server.request("POST", path, &[], &body).expect("an answer");
    assert_eq!(refused.status, 400, "{}", refused.body);
    let detail = refused.body["detail"].to_string();
    assert!(detail.contains("has no state `Nowhere`"), "{detail}");
    let none = server.request("POST", "/v1/applications/none/migrate", &[], "");
    assert_eq!(none.expect("an answer").status, 404);
}
