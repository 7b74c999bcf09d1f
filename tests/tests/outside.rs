//! Signals and answers survive the end of the process, and are taken once.

use cascade_tests::Server;
use serde_json::{Value, json};

const ORDER: &str = "
schemas:
  decision: { type: object, required: [approved], properties: { approved: { type: boolean } } }
workflows:
  - name: order
    states:
      - { name: Paid, type: EventTask, event: paid, result: $.payment, next: Book }
      - { name: Book, type: Task, resource: urn:cascade:activity:echo, parameters: '{{ $.payment }}', result: $.booked, next: Approve }
      - { name: Approve, type: HumanTask, assignee: boss, parameters: '{{ $.booked }}', ui: { schema: 'urn:cascade:schema:decision' }, result: $.decision, next: Posted }
      - { name: Posted, type: EventTask, event: posted, result: $.posted, end: true }
";

/// Its activity gives back what it got, which is the token.
const CALLED: &str = "
bindings: { 'arn:aws:states:::sqs:*': { activity: 'urn:cascade:activity:echo' } }
definition:
  StartAt: Send
  States:
    Send:
      Type: Task
      Resource: arn:aws:states:::sqs:sendMessage.waitForTaskToken
      Parameters: { MessageBody.$: $$.Task.Token }
      HeartbeatSeconds: 3600
      Catch: [{ ErrorEquals: [OutOfStock], ResultPath: $.error, Next: Refunded }]
      Next: Shipped
    Shipped: { Type: Succeed }
    Refunded: { Type: Succeed }
";

fn start(server: &Server, n: u32) -> String {
    let answer = server.start_execution("order", "order", &json!({}), &format!("order-{n}"));
    let answer = answer.expect("the server answers");
    answer.body["id"].as_str().expect("an id").to_owned()
}

/// Sends a signal under a key, and gives the number of events afterwards.
fn signal(server: &Server, id: &str, name: &str, payload: &Value, key: &str) -> Value {
    let path = format!("/v1/executions/{id}/signals");
    let body = json!({ "name": name, "payload": payload }).to_string();
    let sent = server.request("POST", &path, &[("Idempotency-Key", key)], &body);
    let sent = sent.expect("the server answers");
    assert_eq!(sent.status, 200, "{}", sent.body);
    sent.body["events"].clone()
}

/// The task that is open, once there is one: what is before it runs by itself.
fn task(server: &Server, id: &str) -> Value {
    loop {
        let tasks = server.cli(&["process", "tasks", id, "--output", "json"]);
        let tasks = tasks.succeeds().json();
        if let Some(task) = tasks["items"].get(0) {
            return task.clone();
        }
    }
}

#[test]
fn a_killed_server_lists_what_people_are_asked() {
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("order", ORDER);
    let ids: Vec<String> = (0..3).map(|n| start(&server, n)).collect();
    for id in &ids {
        signal(&server, id, "paid", &json!({ "amount": 7 }), "pay");
        task(&server, id);
    }
    let listed = |server: &Server, filters: &[&str]| {
        let list = [&["task", "list", "--output", "json"][..], filters].concat();
        let list = server.cli(&list).succeeds().json();
        let items = list["items"].as_array().expect("a list").clone();
        let execution = |task: &Value| task["execution"].as_str().expect("an id").to_owned();
        items.iter().map(execution).collect::<Vec<_>>()
    };
    assert_eq!(listed(&server, &[]), ids, "the oldest first");
    server.kill();
    server.restart();
    assert_eq!(listed(&server, &["--assignee", "boss"]), ids);
    assert_eq!(
        listed(&server, &["--workflow", "order", "--state", "Approve"]),
        ids
    );
    assert!(listed(&server, &["--assignee", "nobody"]).is_empty());
    let answer = ["process", "answer", &ids[0], "Approve", "--input"];
    server
        .cli(&[&answer[..], &["{\"approved\": true}"]].concat())
        .succeeds();
    server.cli(&["process", "cancel", &ids[1]]).succeeds();
    assert_eq!(listed(&server, &[]), ids[2..]);
    let other = server.request("GET", "/v1/tasks?cursor=x", &[], "");
    assert_eq!(
        other.expect("the server answers").body["code"],
        "invalid_cursor"
    );
}

#[test]
fn a_killed_server_takes_signals_and_answers_once() {
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("order", ORDER);
    let ids: Vec<String> = (0..5).map(|n| start(&server, n)).collect();
    for id in &ids {
        // One that comes early, and the one that is waited for.
        signal(&server, id, "posted", &json!("early"), "post");
        signal(&server, id, "paid", &json!({ "amount": 7 }), "pay");
    }
    server.kill();
    server.restart();
    for id in &ids {
        // As a client does that was not told.
        signal(&server, id, "paid", &json!({ "amount": 7 }), "pay");
        let task = task(&server, id);
        assert_eq!(task["input"], json!({ "amount": 7 }), "{task}");
        assert_eq!(task["schema"]["required"], json!(["approved"]), "{task}");
        let answer = ["process", "answer", id, "Approve", "--input"];
        server
            .cli(&[&answer[..], &["{\"approved\": 1}"]].concat())
            .exits(1);
        let yes = [&answer[..], &["{\"approved\": true}"]].concat();
        server.cli(&yes).succeeds();
        // By its state it cannot be found any more, by its number it is known.
        server.cli(&yes).exits(4);
        let number = task["task"].to_string();
        let again = [
            "process",
            "answer",
            id,
            &number,
            "--input",
            "{\"approved\": true}",
        ];
        server.cli(&again).succeeds();
    }
    server.kill();
    server.restart();
    for id in &ids {
        let view = server.wait(id);
        assert_eq!(view["status"], "completed", "{view}");
        let expected = json!({ "payment": { "amount": 7 }, "booked": { "amount": 7 },
            "decision": { "approved": true }, "posted": "early" });
        assert_eq!(view["output"], expected, "{view}");
        // Start, two signals, one attempt, one answer.
        assert_eq!(view["events"], 5, "{view}");
        assert_eq!(signal(&server, id, "posted", &json!("early"), "post"), 5);
        server.cli(&["replay", id]).succeeds();
    }
}

#[test]
fn a_signal_is_sent_from_the_command_line() {
    let server = Server::start();
    server.apply("order", ORDER);
    let id = start(&server, 0);
    let shown = server.cli(&["process", "show", &id]).succeeds();
    assert!(shown.stdout.contains("listening for paid"), "{shown:?}");
    server.cli(&["process", "signal", &id, "refunded"]).exits(1);
    let payload = [
        "process",
        "signal",
        &id,
        "posted",
        "--payload",
        "{\"n\": 1}",
    ];
    server.cli(&payload).succeeds();
    server.cli(&["process", "cancel", &id]).succeeds();
    server.cli(&payload).exits(5);
}

/// The token that an execution waits for, once it does.
fn token(server: &Server, id: &str) -> String {
    loop {
        let view = server.cli(&["process", "show", id, "--output", "json"]);
        let view = view.succeeds().json();
        if let Some(token) = view["open_states"][0]["token"].as_str() {
            return token.to_owned();
        }
    }
}

#[test]
fn a_killed_server_is_told_the_outcome_of_a_task_once() {
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("called", CALLED);
    let ids = ["shipped", "refunded"].map(|key| {
        let started = server.start_execution("called", "called", &json!({}), key);
        let body = started.expect("the server answers").body;
        body["id"].as_str().expect("an id").to_owned()
    });
    let tokens = ids.each_ref().map(|id| token(&server, id));
    server.kill();
    server.restart();
    let [shipped, refunded] = &tokens;
    let beat = ["process", "callback", shipped, "--heartbeat"];
    server.cli(&beat).succeeds();
    let done = ["process", "callback", shipped, "--result", "{\"n\": 1}"];
    let failed = [
        "process",
        "callback",
        refunded,
        "--error",
        "OutOfStock",
        "--cause",
        "none",
    ];
    server.cli(&done).succeeds();
    server.cli(&failed).succeeds();
    server.kill();
    server.restart();
    // As one does that was not told; another outcome comes too late.
    server.cli(&done).succeeds();
    server
        .cli(&[&beat[..3], &["--result", "2"]].concat())
        .exits(5);
    server
        .cli(&["process", "callback", "x:1:1", "--heartbeat"])
        .exits(4);
    let expected = [
        json!({ "n": 1 }),
        json!({ "error": { "Error": "OutOfStock", "Cause": "none" } }),
    ];
    for (id, expected) in ids.iter().zip(expected) {
        let view = server.wait(id);
        assert_eq!(view["output"], expected, "{view}");
        // Start, the activity, the outcome; the heartbeat was not worth an event.
        assert_eq!(view["events"], 3, "{view}");
        server.cli(&["replay", id]).succeeds();
    }
}
