//! Several servers on one PostgreSQL, when one of them dies, stalls, leaves or comes.

use std::sync::atomic::{AtomicBool, Ordering};

use cascade_tests::cluster::{SHARDS, balanced, list, until};
use cascade_tests::postgres::Postgres;
use cascade_tests::{Server, binary};
use serde_json::{Value, json};

const WORKFLOWS: &str = "
workflows:
  - name: pausing
    states:
      - { name: Before, type: Task, resource: urn:cascade:activity:echo, parameters: { n: '{{ workflow.input.n }}' }, result: $.before, next: Pause }
      - { name: Pause, type: Wait, duration: 300ms, next: After }
      - { name: After, type: Task, resource: urn:cascade:activity:echo, parameters: { n: '{{ $.before.n + 1 }}' }, result: $.after, end: true }
  - name: keyed
    shard_key: '{{ $.workflow.input.customer }}'
    states:
      - { name: Paid, type: EventTask, event: paid, result: $.paid, next: Done }
      - { name: Done, type: Task, resource: urn:cascade:activity:echo, parameters: { key: '{{ workflow.shard_key }}' }, result: $.done, end: true }
  - name: family
    states:
      - name: Children
        type: Map
        items: '{{ workflow.input.children }}'
        iterator: { states: [{ name: Child, type: SubWorkflow, workflow: pausing, parameters: { n: '{{ map.item }}' }, end: true }] }
        result: $.children
        end: true
  - name: tick
    states:
      - { name: Note, type: Pass, parameters: '{{ workflow.schedule.at }}', result: $.at, end: true }
schedules:
  - name: every
    workflow: tick
    interval: 1s
    overlap: allow
    catch_up: { policy: all, window: 1h }
";

/// A server that has what all need, before others come: what it has stands in the database.
fn first(postgres: &Postgres) -> Server {
    let server = join(postgres);
    server.push("echo", None);
    server.apply("shop", WORKFLOWS);
    server
}

fn join(postgres: &Postgres) -> Server {
    cascade_tests::cluster::join(binary(), postgres, "cascade", "")
}

/// Starts an execution and insists until it is acknowledged.
fn start(server: &Server, workflow: &str, input: &Value, key: &str) -> String {
    until("an execution starts", || {
        let answer = server.start_execution("shop", workflow, input, key).ok()?;
        match answer.status {
            200 | 202 => Some(answer.body["id"].as_str().expect("an id").to_owned()),
            429 | 503 => None,
            _ => panic!("{}", answer.body),
        }
    })
}

fn start_pausing(server: &Server, n: usize) -> String {
    start(server, "pausing", &json!({ "n": n }), &format!("key-{n}"))
}

/// Waits for the end of an execution, also while its owner changes.
fn ended(server: &Server, id: &str) -> Value {
    until("an execution ends", || {
        let path = format!("/v1/executions/{id}?wait=20s");
        let answer = server.request("GET", &path, &[], "").ok()?;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text);
        let closed = answer.status == 200 && !answer.body["closed_at"].is_null();
        closed.then_some(answer.body)
    })
}

fn check(server: &Server, id: &str, n: usize) {
    let view = ended(server, id);
    assert_eq!(view["status"], "completed", "{view}");
    assert_eq!(view["output"]["after"], json!({ "n": n + 1 }), "{view}");
    server.cli(&["replay", id]).succeeds();
}

/// Each execution is there once, has ended well, and has no event twice.
fn check_all(postgres: &Postgres, workflow: &str, count: usize) {
    let counts = postgres.sql(
        "workflows",
        &format!(
            "SELECT count(*), count(DISTINCT id), min(version), max(version), \
             count(*) FILTER (WHERE status <> 1) FROM executions WHERE workflow = '{workflow}'"
        ),
    );
    assert_eq!(counts.trim(), format!("{count}|{count}|4|4|0"));
}

#[test]
fn what_two_servers_started_ends_once_when_one_is_killed() {
    let postgres = Postgres::start();
    let mut dies = first(&postgres);
    let stays = join(&postgres);
    let nodes = balanced(&stays, 2);
    let ids: Vec<String> = (0..60)
        .map(|n| start_pausing(if n % 2 == 0 { &dies } else { &stays }, n))
        .collect();
    dies.kill();
    let alone = balanced(&stays, 1);
    assert!(
        nodes.contains_key(alone.keys().next().expect("one")),
        "{alone:?}"
    );
    for (n, id) in ids.iter().enumerate() {
        // The same key is still the same execution.
        assert_eq!(start_pausing(&stays, n), *id);
        check(&stays, id, n);
    }
    check_all(&postgres, "pausing", ids.len());
    // Who comes back is a new node, and gets its part again.
    dies.restart();
    let again = balanced(&stays, 2);
    assert_ne!(nodes, again);
    let id = start_pausing(&dies, 1_000);
    check(&stays, &id, 1_000);
}

#[test]
fn a_server_that_stood_still_writes_nothing_stale_and_is_a_member_again() {
    let postgres = Postgres::start();
    let stalls = first(&postgres);
    let goes_on = join(&postgres);
    let nodes = balanced(&goes_on, 2);
    let ids: Vec<String> = (0..60)
        .map(|n| start_pausing(if n % 2 == 0 { &stalls } else { &goes_on }, n))
        .collect();
    stalls.freeze();
    balanced(&goes_on, 1);
    for (n, id) in ids.iter().enumerate() {
        check(&goes_on, id, n);
    }
    stalls.thaw();
    assert_eq!(
        balanced(&stalls, 2).keys().collect::<Vec<_>>(),
        nodes.keys().collect::<Vec<_>>()
    );
    for n in 60..80 {
        let id = start_pausing(&stalls, n);
        check(&goes_on, &id, n);
    }
    check_all(&postgres, "pausing", 80);
}

#[test]
fn a_server_that_is_told_to_stop_hands_over_under_load() {
    let postgres = Postgres::start();
    let mut leaves = first(&postgres);
    let stays = join(&postgres);
    balanced(&stays, 2);
    let over = AtomicBool::new(false);
    let started: Vec<(usize, String)> = std::thread::scope(|scope| {
        let (stays, over) = (&stays, &over);
        let clients: Vec<_> = (0..4)
            .map(|client| {
                scope.spawn(move || {
                    let mut started = Vec::new();
                    for n in (client..).step_by(4) {
                        if over.load(Ordering::SeqCst) && started.len() > 20 {
                            break;
                        }
                        started.push((n, start_pausing(stays, n)));
                    }
                    started
                })
            })
            .collect();
        assert!(leaves.stop(), "it ended with a failure");
        let nodes = list(stays, "/v1/nodes");
        assert_eq!(nodes.len(), 1, "it has said good-bye: {nodes:?}");
        balanced(stays, 1);
        over.store(true, Ordering::SeqCst);
        let all = clients
            .into_iter()
            .flat_map(|client| client.join().expect("no panic"));
        all.collect()
    });
    for (_, id) in &started {
        ended(&stays, id);
    }
    check_all(&postgres, "pausing", started.len());
    let (n, id) = started.last().expect("there are many");
    check(&stays, id, *n);
}

#[test]
fn whoever_is_asked_starts_signals_waits_and_tells_for_all() {
    let postgres = Postgres::start();
    let one = first(&postgres);
    let other = join(&postgres);
    balanced(&other, 2);
    let customers = 0..8;
    let ids: Vec<String> = customers
        .clone()
        .map(|n| {
            let input = json!({ "customer": format!("c-{n}") });
            let ids =
                [&one, &other].map(|server| start(server, "keyed", &input, &format!("k-{n}")));
            assert_eq!(ids[0], ids[1], "the same key is the same execution");
            ids[0].clone()
        })
        .collect();
    // Live histories, through whom has it and through whom has not.
    let told: Vec<String> = std::thread::scope(|scope| {
        let follow = |server, id: &String| {
            let path = format!("/v1/executions/{id}/events");
            scope.spawn(move || Server::request(server, "GET", &path, &[], "").expect("answers"))
        };
        let streams: Vec<_> = ids
            .iter()
            .flat_map(|id| [follow(&one, id), follow(&other, id)])
            .collect();
        for (n, id) in ids.iter().enumerate() {
            let server = if n % 2 == 0 { &one } else { &other };
            for _ in 0..2 {
                let path = format!("/v1/executions/{id}/signals");
                let headers = [("Idempotency-Key", "once")];
                let body = json!({ "name": "paid", "payload": n }).to_string();
                let answer = server.request("POST", &path, &headers, &body);
                let answer = answer.expect("answers");
                assert_eq!(answer.status, 200, "{}", answer.text);
            }
        }
        streams
            .into_iter()
            .map(|stream| stream.join().expect("no panic").text)
            .collect()
    });
    for text in told {
        assert!(
            text.contains("event: history") && text.contains("event: closed"),
            "{text}"
        );
    }
    for (n, id) in customers.zip(&ids) {
        for server in [&one, &other] {
            let view = ended(server, id);
            assert_eq!(
                view["output"]["done"],
                json!({ "key": format!("c-{n}") }),
                "{view}"
            );
            assert_eq!(view["output"]["paid"], json!(n), "{view}");
        }
    }
    // What the owner refuses, whoever was asked: the request's name stays the same.
    let gone = ids.iter().map(|id| {
        let path = format!("/v1/executions/{id}/cancel");
        let headers = [("X-Request-Id", "trace-7")];
        let answers = [&one, &other].map(|server| {
            server
                .request("POST", &path, &headers, "")
                .expect("answers")
        });
        answers.map(|answer| (answer.status, answer.body["request_id"].clone()))
    });
    for answers in gone {
        assert_eq!(answers, [(409, json!("trace-7")), (409, json!("trace-7"))]);
    }
    let shards = one
        .admin_cli(&["shards", "--output", "json"])
        .succeeds()
        .json();
    assert_eq!(
        shards["items"].as_array().map(Vec::len),
        Some(SHARDS),
        "{shards}"
    );
    let nodes = one
        .admin_cli(&["nodes", "--output", "json"])
        .succeeds()
        .json();
    let live = nodes["items"].as_array().expect("a list").iter();
    assert_eq!(
        live.filter(|node| node["status"] == "live").count(),
        2,
        "{nodes}"
    );
    // What nodes ask each other is not for clients.
    let stranger = one.admin_request("POST", "/internal/ask").expect("answers");
    assert_eq!(stranger.status, 401, "{}", stranger.text);
}

#[test]
fn children_and_schedules_go_on_wherever_their_shards_are() {
    let postgres = Postgres::start();
    let mut dies = first(&postgres);
    let mut stays = join(&postgres);
    balanced(&stays, 2);
    // Whoever has the first shard keeps the schedules: that one is to die.
    let addresses = list(&stays, "/v1/nodes");
    let keeper = list(&stays, "/v1/shards")[0]["node"].clone();
    let keeper = addresses
        .iter()
        .find(|node| node["id"] == keeper)
        .expect("is there");
    if keeper["address"] == stays.url() {
        std::mem::swap(&mut dies, &mut stays);
    }
    let families: Vec<String> = (0..8)
        .map(|n| {
            let input = json!({ "children": [n, n + 100, n + 200] });
            start(
                if n % 2 == 0 { &dies } else { &stays },
                "family",
                &input,
                &format!("family-{n}"),
            )
        })
        .collect();
    for (n, id) in families.iter().take(4).enumerate() {
        let view = ended(&stays, id);
        assert_eq!(view["status"], "completed", "{view}");
        let ends: Vec<_> = view["output"]["children"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|child| child["after"]["n"].clone())
            .collect();
        assert_eq!(ends, [n + 1, n + 101, n + 201]);
    }
    let ticks = |server: &Server| {
        let path = "/v1/executions?workflow=tick&limit=1000&status=completed";
        let answer = server.request("GET", path, &[], "").expect("answers");
        answer.body["items"].as_array().expect("a list").len()
    };
    let before = until("a schedule starts something", || {
        Some(ticks(&stays)).filter(|count| *count > 0)
    });
    dies.kill();
    balanced(&stays, 1);
    for id in &families {
        let view = ended(&stays, id);
        assert_eq!(view["status"], "completed", "{view}");
    }
    until("a schedule goes on", || {
        (ticks(&stays) > before + 2).then_some(())
    });
    let schedules = list_schedules(&stays);
    assert_eq!(schedules.len(), 1, "{schedules:?}");
    // No time has started two.
    let counts = postgres.sql(
        "workflows",
        "SELECT count(*) - count(DISTINCT id) FROM executions WHERE workflow = 'tick'",
    );
    assert_eq!(counts.trim(), "0");
}

fn list_schedules(server: &Server) -> Vec<Value> {
    let answer = server
        .request("GET", "/v1/schedules", &[], "")
        .expect("answers");
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body["items"].as_array().expect("a list").clone()
}
