//! Paused executions stay paused when the process ends, and go on when they are told to.

use cascade_tests::Server;
use serde_json::{Value, json};

const ORDER: &str = "
workflows:
  - name: order
    states:
      - { name: Paid, type: EventTask, event: paid, result: $.payment, next: Book }
      - { name: Book, type: Task, resource: urn:cascade:activity:echo, parameters: '{{ $.payment }}', result: $.booked, next: Rest }
      - { name: Rest, type: Wait, duration: 10ms, next: Ship }
      - { name: Ship, type: Task, resource: urn:cascade:activity:echo, parameters: shipped, result: $.shipped, end: true }
";

fn start(server: &Server, n: u32) -> String {
    let answer = server.start_execution("order", "order", &json!({}), &format!("order-{n}"));
    let answer = answer.expect("the server answers");
    answer.body["id"].as_str().expect("an id").to_owned()
}

fn show(server: &Server, id: &str) -> Value {
    let shown = server.cli(&["process", "show", id, "--output", "json"]);
    shown.succeeds().json()
}

fn listed(server: &Server, status: &str) -> usize {
    let list = ["process", "list", "--status", status, "--output", "json"];
    let page = server.cli(&list).succeeds().json();
    page["items"].as_array().expect("a list").len()
}

#[test]
fn a_killed_server_lets_nothing_begin_that_was_paused() {
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("order", ORDER);
    let ids: Vec<String> = (0..3).map(|n| start(&server, n)).collect();
    for id in &ids {
        let pause = ["process", "pause", id, "--reason", "the bank is down"];
        server.cli(&pause).succeeds();
        let pay = ["process", "signal", id, "paid", "--payload", "7"];
        server.cli(&pay).succeeds();
    }
    server.kill();
    server.restart();
    assert_eq!(
        (listed(&server, "paused"), listed(&server, "running")),
        (3, 0)
    );
    for id in &ids {
        let view = show(&server, id);
        assert_eq!(view["status"], "paused", "{view}");
        assert_eq!(view["paused"]["reason"], "the bank is down", "{view}");
        let open = &view["open_states"][0];
        assert_eq!(
            (&open["state"], &open["step"]),
            (&json!("Book"), &json!("held"))
        );
        // The start, the pause, the signal.
        assert_eq!(view["events"], 3, "{view}");
        let shown = server.cli(&["process", "show", id]).succeeds();
        assert!(shown.stdout.contains("the bank is down"), "{shown:?}");
        server.cli(&["replay", id]).succeeds();
    }
    // The second stays paused, and the third is given up.
    server
        .cli(&["process", "resume", &ids[0], "--wait"])
        .succeeds();
    server.cli(&["process", "cancel", &ids[2]]).succeeds();
    server.kill();
    server.restart();
    let expected = json!({ "payment": 7, "booked": 7, "shipped": "shipped" });
    assert_eq!(show(&server, &ids[0])["output"], expected);
    assert_eq!(show(&server, &ids[1])["status"], "paused");
    server.cli(&["process", "resume", &ids[1]]).succeeds();
    let view = server.wait(&ids[1]);
    assert_eq!(view["output"], expected, "{view}");
    assert!(view["paused"].is_null(), "{view}");
    let history = server.cli(&["process", "history", &ids[1]]).succeeds();
    assert!(history.stdout.contains("ExecutionPaused"), "{history:?}");
    assert!(history.stdout.contains("ExecutionResumed"), "{history:?}");
    server.cli(&["replay", &ids[1]]).succeeds();
    server.cli(&["process", "pause", &ids[0]]).exits(5);
    assert_eq!(show(&server, &ids[2])["status"], "cancelled");
}

#[test]
fn a_killed_server_refuses_to_start_what_was_paused() {
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("order", ORDER);
    let before = start(&server, 0);
    let pause = ["workflow", "pause", "order", "--reason", "the bank is down"];
    server.cli(&pause).succeeds();
    server.kill();
    server.restart();
    let refused = server.cli(&["process", "start", "order/order"]).exits(5);
    assert!(refused.stderr.contains("the bank is down"), "{refused:?}");
    let listed = server.cli(&["workflow", "list"]).succeeds();
    assert!(listed.stdout.contains("the bank is down"), "{listed:?}");
    // What runs goes on, and who asks once more for it is answered.
    assert_eq!(start(&server, 0), before);
    let pay = ["process", "signal", &before, "paid", "--payload", "7"];
    server.cli(&pay).succeeds();
    assert_eq!(server.wait(&before)["status"], "completed");
    server
        .cli(&["workflow", "resume", "order/order"])
        .succeeds();
    server.kill();
    server.restart();
    server.cli(&["process", "start", "order"]).succeeds();
    server.cli(&["workflow", "pause", "nothing"]).exits(4);
}
