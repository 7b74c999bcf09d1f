//! What was acknowledged survives the end of the process, however it ends.

use cascade_tests::Server;
use serde_json::{Value, json};

/// Pure steps around a pause, so that there is something to be killed in.
const PAUSING: &str = "
workflows:
  - name: pausing
    states:
      - { name: Before, type: Task, resource: urn:cascade:activity:echo, parameters: { n: '{{ workflow.input.n }}' }, result: $.before, next: Pause }
      - { name: Pause, type: Wait, duration: 1s, next: After }
      - { name: After, type: Task, resource: urn:cascade:activity:echo, parameters: { n: '{{ $.before.n + 1 }}' }, result: $.after, end: true }
";

fn serve() -> Server {
    let server = Server::start();
    server.push("echo", None);
    server.apply("pausing", PAUSING);
    server
}

/// Starts an execution, and gives its id.
fn start(server: &Server, n: u32) -> String {
    let key = format!("key-{n}");
    let answer = server.start_execution("pausing", "pausing", &json!({ "n": n }), &key);
    let answer = answer.expect("the server answers");
    assert!(matches!(answer.status, 200 | 202), "{}", answer.body);
    answer.body["id"].as_str().expect("an id").to_owned()
}

fn check(server: &Server, id: &str, n: u32) {
    let view: Value = server.wait(id);
    assert_eq!(view["status"], "completed", "{view}");
    assert_eq!(view["output"]["after"], json!({ "n": n + 1 }), "{view}");
    server.cli(&["replay", id]).succeeds();
}

#[test]
fn a_killed_server_goes_on_where_it_was() {
    let mut server = serve();
    let ids: Vec<String> = (0..20).map(|n| start(&server, n)).collect();
    server.kill();
    server.restart();
    for (n, id) in (0..).zip(&ids) {
        // The same key is still the same execution.
        assert_eq!(start(&server, n), *id);
        check(&server, id, n);
    }
}

/// Waits for a signal, so that there is something to be killed in.
const KEYED: &str = "
workflows:
  - name: keyed
    shard_key: '{{ $.workflow.input.customer }}'
    states:
      - { name: Paid, type: EventTask, event: paid, result: $.paid, next: Done }
      - { name: Done, type: Task, resource: urn:cascade:activity:echo, parameters: { key: '{{ workflow.shard_key }}' }, result: $.done, end: true }
";

#[test]
fn a_killed_server_with_shards_finds_what_shard_keys_have_placed() {
    let mut server = Server::start();
    server.configure("engine: { shards: 4 }");
    server.kill();
    server.restart();
    server.push("echo", None);
    server.apply("keyed", KEYED);
    let start = |server: &Server, n: u32| {
        let input = json!({ "customer": format!("c-{}", n % 3) });
        let answer = server.start_execution("keyed", "keyed", &input, &format!("key-{n}"));
        let answer = answer.expect("the server answers");
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body["id"].as_str().expect("an id").to_owned()
    };
    let ids: Vec<String> = (0..9).map(|n| start(&server, n)).collect();
    server.kill();
    server.restart();
    for (n, id) in (0..).zip(&ids) {
        assert_eq!(start(&server, n), *id, "the same key is the same execution");
        let signal = ["process", "signal", id, "paid", "--payload", "1"];
        server.cli(&signal).succeeds();
        let view = server.wait(id);
        let key = format!("c-{}", n % 3);
        assert_eq!(view["output"]["done"], json!({ "key": key }), "{view}");
        server.cli(&["replay", id]).succeeds();
    }
    let list = ["process", "list", "--shard-key", "c-1", "--output", "json"];
    let list = server.cli(&list).succeeds().json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3), "{list}");
    assert_eq!(list["items"][0]["shard_key"], "c-1");
    // Another input under the same key is refused, though it leads to another shard.
    let other = server.start_execution("keyed", "keyed", &json!({ "customer": "x" }), "key-0");
    assert_eq!(
        other.expect("the server answers").body["code"],
        "key_reused"
    );
    let none = server.start_execution("keyed", "keyed", &json!({}), "key-none");
    assert_eq!(
        none.expect("the server answers").body["code"],
        "invalid_input"
    );
}

#[test]
fn a_server_that_is_told_to_stop_ends_well_and_goes_on_later() {
    let mut server = serve();
    let id = start(&server, 1);
    assert!(server.stop(), "it ended with a failure");
    server.restart();
    check(&server, &id, 1);
}
