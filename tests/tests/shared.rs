//! Two servers on one PostgreSQL: what one of them has acknowledged, the other knows.
//!
//! The second has the shards, so it is the one that runs executions. What is changed here,
//! each of them may change.

use cascade_tests::Server;
use cascade_tests::postgres::Postgres;
use serde_json::{Value, json};

const WORKFLOW: &str = "
workflows:
  - name: greet
    states:
      - { name: Echo, type: Task, resource: urn:cascade:activity:echo, parameters: { n: 1 }, result: $.echo, end: true }
";

fn settings(postgres: &Postgres) -> String {
    format!("database: {{ primary: '{}' }}", postgres.url())
}

/// Asks until the answer is this: what is told takes some milliseconds.
fn until(server: &Server, path: &str, wanted: impl Fn(u16, &Value) -> bool) {
    loop {
        let answer = server.request("GET", path, &[], "");
        let answer = answer.expect("the server answers");
        if wanted(answer.status, &answer.body) {
            return;
        }
    }
}

/// Applies a file, though the database is just coming back.
fn insist(server: &Server, cdl: &str) {
    loop {
        let answer = server.request("PUT", "/v1/applications/greet", &[], cdl);
        let answer = answer.expect("the server answers");
        match answer.status {
            200 | 201 => return,
            503 => {}
            _ => panic!("{}", answer.body),
        }
    }
}

#[test]
fn what_one_server_has_acknowledged_the_other_knows() {
    let postgres = Postgres::start();
    let first = Server::with_tenant(&settings(&postgres));
    let second = Server::with_tenant(&settings(&postgres));

    // At once, without waiting for anything to be told.
    first.push("echo", None);
    first.apply("greet", WORKFLOW);
    let started = second.start_execution("greet", "greet", &json!({}), "k1");
    let started = started.expect("the server answers");
    assert_eq!(started.status, 202, "{}", started.body);
    let view = second.wait(started.body["id"].as_str().expect("an id"));
    assert_eq!(view["output"]["echo"], json!({ "n": 1 }), "{view}");

    // A key that one has made is good for both, and revoked by one for both.
    let key = first.cli(&["key", "create", "--role", "viewer", "--output", "json"]);
    let key = key.succeeds().json();
    let text = key["key"].as_str().expect("a key");
    let list = |server: &Server| {
        let answer = server.request_with(text, "GET", "/v1/applications");
        answer.expect("the server answers").status
    };
    assert_eq!((list(&first), list(&second)), (200, 200));
    let id = key["id"].as_str().expect("an id");
    first.cli(&["key", "revoke", id]).succeeds();
    assert_eq!(list(&first), 401);
    while list(&second) != 401 {}

    // A new version and a pause are told.
    first.apply("greet", &WORKFLOW.replace("n: 1", "n: 2"));
    until(&second, "/v1/applications/greet", |status, body| {
        status == 200 && body["version"] == 2
    });
    let paused = first.request(
        "POST",
        "/v1/applications/greet/workflows/greet/pause",
        &[],
        "{}",
    );
    let paused = paused.expect("the server answers");
    assert!(paused.status < 300, "{}", paused.body);
    until(&second, "/v1/applications/greet", |_, body| {
        !body["workflows"][0]["paused"].is_null()
    });
    let refused = second.start_execution("greet", "greet", &json!({}), "k2");
    assert_eq!(refused.expect("answers").body["code"], "workflow_paused");

    // An object is there for both, and gone for both.
    let path = "/v1/objects/in/a.txt";
    let put = first.request("PUT", path, &[], "shared").expect("answers");
    assert_eq!(put.status, 200, "{}", put.body);
    let digest = put.body["digest"].clone();
    let read = second.cli(&["object", "get", "in/a.txt"]).succeeds();
    assert_eq!(read.stdout, "shared", "{digest}");
    let gone = second.request("DELETE", path, &[], "").expect("answers");
    assert_eq!(gone.status, 204);
    let gone = first.request("GET", path, &[], "").expect("answers");
    assert_eq!(gone.status, 404);
}

#[test]
fn a_server_that_was_cut_off_knows_what_was_changed_meanwhile() {
    let postgres = Postgres::start();
    let first = Server::with_tenant(&settings(&postgres));
    let second = Server::with_tenant(&settings(&postgres));
    first.apply("greet", WORKFLOW);
    let version =
        |version: u32| move |status: u16, body: &Value| status == 200 && body["version"] == version;
    until(&second, "/v1/applications/greet", version(1));
    for (n, crash) in [(2, false), (3, true), (4, false)] {
        if crash {
            postgres.crash();
            postgres.restart();
        } else {
            postgres.end_sessions();
        }
        insist(&first, &WORKFLOW.replace("n: 1", &format!("n: {n}")));
        until(&second, "/v1/applications/greet", version(n));
    }
    until(&second, "/ready", |status, _| status == 200);
    let metrics = second.request("GET", "/metrics", &[], "").expect("answers");
    let told = "cascade_changes_heard 1";
    assert!(metrics.text.contains(told), "{}", metrics.text);
}
