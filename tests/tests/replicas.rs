//! Reads from real streaming replicas: what goes there, that nobody is shown less than they
//! know, and that a replica that dies, stalls or lags costs nobody a request.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cascade_tests::cluster::{list, until};
use cascade_tests::replicas::Replicated;
use cascade_tests::{Answer, Server};
use serde_json::{Value, json};

const WORKFLOW: &str = "
workflows:
  - name: short
    states: [{ name: Say, type: Pass, parameters: '{{ workflow.input.n }}', result: $.said, end: true }]
  - name: long
    states: [{ name: Wait, type: EventTask, event: go, end: true }]
";

/// A server that reads replicas which are all in service.
fn serve(replicated: &Replicated, more: &str) -> Server {
    // Longer than any stall of a machine that runs other tests at the same time.
    let patient = "cluster: { lease_ttl: 1m }";
    let settings = format!("{}\n{patient}", replicated.settings(more));
    let server = Server::with_tenant(&settings);
    all_in_service(&server);
    server.apply("app", WORKFLOW);
    server
}

fn all_in_service(server: &Server) {
    until("all replicas are in service", || {
        let all = list(server, "/v1/replicas");
        all.iter()
            .all(|one| one["status"] == "in_service")
            .then_some(())
    });
}

/// What the first replica has been asked for, by outcome.
fn asked(server: &Server, outcome: &str) -> u64 {
    list(server, "/v1/replicas")[0][outcome]
        .as_u64()
        .expect("a number")
}

fn get(server: &Server, path: &str, position: Option<&str>) -> Answer {
    let headers: Vec<_> = position
        .map(|of| ("Cascade-Position", of))
        .into_iter()
        .collect();
    let answer = server.request("GET", path, &headers, "").expect("answers");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer
}

fn position(answer: &Answer) -> String {
    answer
        .header("cascade-position")
        .expect("a position")
        .to_owned()
}

/// Starts a workflow and waits for its end, if it has one; its id, and the position of the answer.
fn start(server: &Server, workflow: &str) -> (String, String) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let body = json!({ "application": "app", "workflow": workflow, "input": { "n": 1 } });
    let path = if workflow == "short" {
        "/v1/executions?wait=40s"
    } else {
        "/v1/executions"
    };
    let key = format!("key-{}", COUNT.fetch_add(1, Ordering::SeqCst));
    let headers = [("Idempotency-Key", key.as_str())];
    let began = Instant::now();
    loop {
        let answer = server.request("POST", path, &headers, &body.to_string());
        let answer = answer.expect("answers");
        // On a machine that has too much to do, a lease may end: then it is asked for again.
        if matches!(answer.status, 429 | 503) && began.elapsed() < Duration::from_mins(1) {
            continue;
        }
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text);
        let id = answer.body["id"].as_str().expect("an id").to_owned();
        return (id, position(&answer));
    }
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a list");
    let id = |item: &Value| item["id"].as_str().expect("an id").to_owned();
    items.iter().map(id).collect()
}

/// Executions that a client is shown which knows what there was at a position.
fn listed(server: &Server, position: Option<&str>) -> Vec<String> {
    ids(&get(server, "/v1/executions", position).body)
}

/// Returns when the replica answers a client that knows so much.
fn caught_up(server: &Server, position: &str) {
    until("the replica has come as far as its client", || {
        let before = asked(server, "answered");
        listed(server, Some(position));
        (asked(server, "answered") > before).then_some(())
    });
}

#[test]
fn a_client_is_never_shown_less_than_it_has_written_or_seen() {
    let replicated = Replicated::start(1);
    let server = serve(&replicated, ", max_lag: 5m");
    let (first, known) = start(&server, "short");
    caught_up(&server, &known);
    replicated.pause("replica-1");
    let (second, written) = start(&server, "short");
    let both = vec![second.clone(), first.clone()];
    // Who does not mind is shown what only a replica can show: the list as it was.
    let old = get(&server, "/v1/executions", Some("any"));
    assert_eq!(ids(&old.body), std::slice::from_ref(&first));
    // Who has written, who has seen, and who might know anything, is shown all.
    assert_eq!(listed(&server, Some(&written)), both);
    let seen = get(&server, "/v1/executions", None);
    assert_eq!(ids(&seen.body), both);
    assert_eq!(listed(&server, Some(&position(&seen))), both);
    let history = format!("/v1/executions/{second}/history");
    for path in [
        &history,
        &format!("{history}?records=true"),
        &format!("/v1/executions/{second}"),
    ] {
        for client in [Some("any"), Some(written.as_str()), None] {
            let answer = get(&server, path, client);
            let is_whole = answer.body["events"]
                .as_array()
                .map_or(answer.body["status"] == "completed", |events| {
                    events.len() == 1
                });
            assert!(is_whole, "{path}: {}", answer.text);
        }
    }
    // What was read there was there: the same again may be.
    let before = asked(&server, "answered");
    let again = get(&server, &format!("/v1/executions/{first}"), Some(&known));
    assert_eq!(again.body["output"]["said"], 1, "{}", again.text);
    assert_eq!(asked(&server, "answered"), before + 1);

    replicated.resume("replica-1");
    caught_up(&server, &written);
    let read = get(&server, "/v1/executions", Some(&written));
    assert_eq!(ids(&read.body), both);
    assert!(
        position(&read) >= written,
        "{} after {written}",
        position(&read)
    );
}

/// Replay is paused and goes on, now at one replica and now at the other, while clients write, read,
/// and read again.
#[test]
fn under_load_everybody_sees_what_they_did_and_saw() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 40;
    let replicated = Replicated::start(2);
    let server = serve(&replicated, ", max_lag: 5m");
    let busy = AtomicU32::new(u32::try_from(CLIENTS).expect("few"));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let _done = Done(&busy);
                let mut newest: Option<String> = None;
                for _ in 0..ROUNDS {
                    let (id, mut known) = start(&server, "short");
                    for _ in 0..4 {
                        let read = get(&server, "/v1/executions?limit=200", Some(&known));
                        let shown = ids(&read.body);
                        assert!(shown.contains(&id), "{id} was written");
                        if let Some(newest) = &newest {
                            assert!(shown.contains(newest), "{newest} was seen");
                        }
                        newest = shown.into_iter().next();
                        known = position(&read);
                    }
                }
            });
        }
        while busy.load(Ordering::SeqCst) > 0 {
            for replica in ["replica-1", "replica-2"] {
                replicated.pause(replica);
                replicated.resume(replica);
            }
        }
    });
    let all = list(&server, "/v1/replicas");
    let sum = |outcome: &str| {
        all.iter()
            .filter_map(|one| one[outcome].as_u64())
            .sum::<u64>()
    };
    assert!(sum("answered") > 20 && sum("behind") > 20, "{all:?}");
    assert_eq!(sum("failed"), 0, "{all:?}");
}

/// Counts down when a client ends, however it does.
struct Done<'a>(&'a AtomicU32);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn what_is_open_and_what_is_waited_for_is_told_as_it_is() {
    let replicated = Replicated::start(1);
    let server = serve(&replicated, ", max_lag: 5m");
    let (id, known) = start(&server, "long");
    caught_up(&server, &known);
    replicated.pause("replica-1");
    let path = format!("/v1/executions/{id}");
    // The replica knows it as running; that it has ended since is told all the same.
    let signal = json!({ "name": "go" }).to_string();
    let sent = server.request("POST", &format!("{path}/signals"), &[], &signal);
    let sent = sent.expect("answers");
    assert!(matches!(sent.status, 200 | 202), "{}", sent.text);
    server.wait(&id);
    assert_eq!(get(&server, &path, Some("any")).body["status"], "completed");
    let list = get(&server, "/v1/executions", Some("any"));
    assert_eq!(list.body["items"][0]["status"], "running", "{}", list.text);
    // A live history has told of more than what was there when it began.
    let live = get(&server, &format!("{path}/events"), Some("any"));
    assert!(live.text.contains("event: closed"), "{}", live.text);
    assert!(
        position(&live).starts_with(&"f".repeat(24)),
        "the primary's, whatever is to come"
    );
    let list = get(&server, "/v1/executions", Some(&position(&live)));
    assert_eq!(
        list.body["items"][0]["status"], "completed",
        "{}",
        list.text
    );
}

#[test]
fn commands_see_what_earlier_ones_did() {
    let replicated = Replicated::start(1);
    let server = serve(&replicated, ", max_lag: 5m");
    let (_, known) = start(&server, "short");
    caught_up(&server, &known);
    replicated.pause("replica-1");
    let started = server.cli(&["process", "start", "app/long", "--output", "json"]);
    let id = started.succeeds().json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let shown = server.cli(&["process", "show", &id, "--output", "json"]);
    assert_eq!(shown.succeeds().json()["status"], "running");
    let signal = ["process", "signal", &id, "go"];
    server.cli(&signal).succeeds();
    server.cli(&["process", "watch", &id]).succeeds();
    let listed = server.cli(&["process", "list", "--output", "json"]);
    let listed = listed.succeeds().json();
    assert_eq!(listed["items"][0]["id"], id.as_str(), "{listed}");
    assert_eq!(listed["items"][0]["status"], "completed", "{listed}");

    // They read the replica when it has come as far.
    replicated.resume("replica-1");
    until("a command reads the replica", || {
        let before = asked(&server, "answered");
        server.cli(&["process", "list"]).succeeds();
        (asked(&server, "answered") > before).then_some(())
    });
    // Another database at the same address knows nothing of what it has not given out.
    let file = server.state().join("cascade/positions.json");
    let kept = std::fs::read_to_string(&file).expect("it is kept");
    let mut kept: Value = serde_json::from_str(&kept).expect("JSON");
    kept[server.url()]["token"] = json!("0".repeat(56));
    std::fs::write(&file, kept.to_string()).expect("writes");
    server.cli(&["process", "list"]).succeeds();
    let operators = server.admin_cli(&["replicas"]).succeeds();
    assert!(operators.stdout.contains("in_service"), "{operators:#?}");
}

#[test]
fn what_is_no_position_is_told_so() {
    let replicated = Replicated::start(1);
    let server = serve(&replicated, "");
    let (_, known) = start(&server, "short");
    let mut forged = known.clone();
    let digit = if forged.starts_with('0') { "1" } else { "0" };
    forged.replace_range(..1, digit);
    for token in [
        "",
        "0/16B3748",
        "'; SELECT pg_sleep(60); --",
        &known[1..],
        &forged,
    ] {
        for (method, path) in [("GET", "/v1/executions"), ("GET", "/v1/applications")] {
            let headers = [("Cascade-Position", token)];
            let answer = server.request(method, path, &headers, "").expect("answers");
            assert_eq!(answer.status, 400, "{token}: {}", answer.text);
            assert_eq!(answer.body["code"], "invalid_position", "{}", answer.text);
        }
    }
    // Every answer to somebody with a key tells, and none to others.
    let missing = server
        .request("GET", "/v1/executions/x", &[], "")
        .expect("answers");
    assert_eq!(missing.status, 404);
    position(&missing);
    for (key, path) in [("ck_x_0", "/v1/executions"), (server.key(), "/health")] {
        let answer = server.request_with(key, "GET", path).expect("answers");
        assert_eq!(answer.header("cascade-position"), None, "{path}");
    }
}

#[test]
fn a_replica_that_dies_or_stalls_costs_no_request() {
    let replicated = Replicated::start(2);
    let server = serve(&replicated, "");
    let (id, known) = start(&server, "short");
    caught_up(&server, &known);
    let (over, read) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for client in [None, Some("any"), Some(known.as_str())] {
            let (server, id, over, read) = (&server, &id, &over, &read);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    assert!(listed(server, client).contains(id));
                    get(server, &format!("/v1/executions/{id}/history"), client);
                    read.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Ended even if this fails, or the clients would go on for ever.
        let over = Over(&over);
        let first = |status: &str| {
            until(&format!("the replica is {status}"), || {
                let one = list(&server, "/v1/replicas").swap_remove(0);
                (one["status"] == status).then_some(one)
            })
        };
        let answered = |more: u32| {
            let goal = read.load(Ordering::SeqCst) + more;
            until("clients have read more", || {
                (read.load(Ordering::SeqCst) >= goal).then_some(())
            });
        };
        answered(20);
        let in_turn = list(&server, "/v1/replicas");
        assert!(
            in_turn.iter().all(|one| one["answered"].as_u64() > Some(0)),
            "{in_turn:?}"
        );
        replicated.kill("replica-1");
        assert!(first("out")["reason"].is_string());
        answered(20);
        replicated.run("replica-1");
        first("in_service");
        answered(20);
        replicated.stall("replica-1");
        let began = Instant::now();
        first("out");
        answered(20);
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
        replicated.go_on("replica-1");
        first("in_service");
        let before = asked(&server, "answered");
        until("it answers again", || {
            (asked(&server, "answered") > before).then_some(())
        });
        drop(over);
    });
}

/// Ends what goes on beside a test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_replica_that_is_too_far_behind_answers_nothing() {
    let replicated = Replicated::start(1);
    let server = serve(&replicated, ", max_lag: 1s");
    let (_, known) = start(&server, "short");
    caught_up(&server, &known);
    replicated.pause("replica-1");
    let (late, _) = start(&server, "short");
    let one = until("it is too far behind", || {
        let one = list(&server, "/v1/replicas").swap_remove(0);
        (one["status"] == "out").then_some(one)
    });
    let reason = one["reason"].as_str().expect("a reason");
    assert!(reason.contains("`max_lag`"), "{one}");
    assert!(one["lag_ms"].as_u64() >= Some(1_000), "{one}");
    assert!(one["behind_bytes"].as_u64() > Some(0), "{one}");
    assert!(listed(&server, Some("any")).contains(&late));
    let metrics = server
        .request("GET", "/metrics", &[], "")
        .expect("answers")
        .text;
    assert!(
        metrics.contains("cascade_replica_in_service{replica=\"1\"} 0"),
        "{metrics}"
    );
    replicated.resume("replica-1");
    all_in_service(&server);
}

#[test]
fn a_server_on_a_file_gives_no_positions_and_ignores_them() {
    let server = Server::start();
    let answer = get(&server, "/v1/executions", Some("of another server"));
    assert_eq!(answer.header("cascade-position"), None);
    server.cli(&["process", "list"]).succeeds();
    assert!(!server.state().exists(), "there is nothing to keep");
    let operators = server.admin_cli(&["replicas"]).succeeds();
    assert!(
        operators.stderr.contains("database.replicas"),
        "{operators:#?}"
    );
}

/// Two servers, of which only one reads replicas: what was done at the other is known.
#[test]
fn what_a_server_without_replicas_answers_counts_at_one_with_replicas() {
    let replicated = Replicated::start(1);
    let server = serve(&replicated, ", max_lag: 5m");
    let primary = replicated.url("primary");
    let other = Server::with_tenant(&format!("database: {{ primary: '{primary}' }}"));
    let (_, known) = start(&server, "short");
    caught_up(&server, &known);
    replicated.pause("replica-1");
    let (id, there) = start(&other, "short");
    assert!(
        !listed(&server, Some(&known)).contains(&id),
        "the replica has not got it"
    );
    assert!(listed(&server, Some(&there)).contains(&id));
    assert!(list(&other, "/v1/replicas").is_empty());
}
