//! The real binary on a real PostgreSQL, when either of them dies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use cascade_tests::postgres::Postgres;
use cascade_tests::{Server, TENANT};
use serde_json::{Value, json};

/// Steps with a pause between them, so that there is something to be killed in, and an
/// effect, so that the first step's commit is waited for.
const WORKFLOW: &str = "
workflows:
  - name: pausing
    states:
      - { name: Before, type: Task, resource: urn:cascade:activity:echo, parameters: { n: '{{ workflow.input.n }}' }, result: $.before, next: Pause }
      - { name: Pause, type: Wait, duration: 300ms, next: After }
      - { name: After, type: Task, resource: urn:cascade:activity:echo, parameters: { n: '{{ $.before.n + 1 }}' }, result: $.after, end: true }
";

/// Clients that start executions at the same time.
const CLIENTS: u32 = 8;

fn serve(postgres: &Postgres) -> Server {
    let settings = format!("database: {{ primary: '{}' }}", postgres.url());
    let server = Server::with_tenant(&settings);
    server.push("echo", None);
    server.apply("pausing", WORKFLOW);
    server
}

/// Starts an execution and insists until it is acknowledged.
fn start(server: &Server, n: u32) -> String {
    loop {
        let key = format!("key-{n}");
        let answer = server.start_execution("pausing", "pausing", &json!({ "n": n }), &key);
        let Ok(answer) = answer else { continue };
        match answer.status {
            200 | 202 => return answer.body["id"].as_str().expect("an id").to_owned(),
            429 | 503 => {}
            _ => panic!("{}", answer.body),
        }
    }
}

fn check(server: &Server, id: &str, n: u32) {
    let view: Value = server.wait(id);
    assert_eq!(view["status"], "completed", "{view}");
    assert_eq!(view["output"]["after"], json!({ "n": n + 1 }), "{view}");
    server.cli(&["replay", id]).succeeds();
}

#[test]
fn a_killed_server_goes_on_where_postgresql_has_it() {
    let postgres = Postgres::start();
    let mut server = serve(&postgres);
    let ids: Vec<String> = (0..20).map(|n| start(&server, n)).collect();
    server.kill();
    server.restart();
    for (n, id) in (0..).zip(&ids) {
        // The same key is still the same execution.
        assert_eq!(start(&server, n), *id);
        check(&server, id, n);
    }
    assert!(server.stop(), "it ended with a failure");
}

#[test]
fn nothing_is_lost_or_done_twice_when_postgresql_drops_its_sessions_or_crashes() {
    let postgres = Postgres::start();
    let server = serve(&postgres);
    let (next, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let (acknowledged, progress) = channel();
    let started: BTreeMap<u32, String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let acknowledged = acknowledged.clone();
                let (server, next, over) = (&server, &next, &over);
                scope.spawn(move || load(server, next, over, &acknowledged))
            })
            .collect();
        torment(&postgres, &progress);
        over.store(true, Ordering::SeqCst);
        let started = clients
            .into_iter()
            .flat_map(|client| client.join().expect("no panic"));
        started.collect()
    });
    assert!(started.len() > 200, "only {} were started", started.len());
    for (n, id) in &started {
        // Nobody was told of an end yet; the last of these take the longest.
        let view = server.wait(id);
        assert_eq!(view["status"], "completed", "{view}");
        assert_eq!(view["output"]["after"], json!({ "n": n + 1 }), "{view}");
    }
    let (n, id) = started.last_key_value().expect("there are many");
    check(&server, id, *n);
    // A start that was sent again is not another execution, and no history has a step twice.
    let counts = postgres.sql(
        "workflows",
        "SELECT count(*), count(DISTINCT id), min(version), max(version), \
             count(*) FILTER (WHERE status <> 1) FROM executions",
    );
    let expected = started.len();
    let steps = "4";
    assert_eq!(
        counts.trim(),
        format!("{expected}|{expected}|{steps}|{steps}|0")
    );
}

/// Starts executions until it is over.
fn load(
    server: &Server,
    next: &AtomicU32,
    over: &AtomicBool,
    acknowledged: &Sender<()>,
) -> Vec<(u32, String)> {
    let mut started = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let n = next.fetch_add(1, Ordering::SeqCst);
        started.push((n, start(server, n)));
        acknowledged.send(()).expect("somebody listens");
    }
    started
}

/// Ends sessions and crashes the database, each after so many acknowledged starts.
fn torment(postgres: &Postgres, progress: &Receiver<()>) {
    let some = |count| {
        for _ in 0..count {
            progress.recv().expect("clients go on");
        }
    };
    let mut ended = 0;
    for round in 0..8 {
        some(40);
        if round % 4 == 3 {
            postgres.crash();
            postgres.restart();
        } else {
            ended += postgres.end_sessions();
        }
    }
    some(40);
    assert!(ended > 6, "the server had only {ended} sessions");
}

/// By hand, by the file, and with a server that is killed in the middle.
#[test]
fn a_tenant_moves_to_a_schema_of_its_own_while_its_executions_go_on() {
    let postgres = Postgres::start();
    let mut server = serve(&postgres);
    let (next, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let (acknowledged, progress) = channel();
    let started: Vec<(u32, String)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let acknowledged = acknowledged.clone();
                let (server, next, over) = (&server, &next, &over);
                scope.spawn(move || load(server, next, over, &acknowledged))
            })
            .collect();
        for to in [
            &["--schema", "acme"][..],
            &["--shared"],
            &["--schema", "acme"],
        ] {
            for _ in 0..60 {
                progress.recv().expect("clients go on");
            }
            let mut args = vec!["tenant", "move", TENANT];
            args.extend(to);
            let moved = server.admin_cli(&args).succeeds();
            assert!(moved.stdout.contains("executions"), "{}", moved.stdout);
        }
        over.store(true, Ordering::SeqCst);
        let started = clients.into_iter();
        started
            .flat_map(|client| client.join().expect("no panic"))
            .collect()
    });
    server.kill();
    server.restart();
    for (n, id) in &started {
        let view = server.wait(id);
        assert_eq!(view["status"], "completed", "{view}");
        assert_eq!(view["output"]["after"], json!({ "n": n + 1 }), "{view}");
    }
    let (n, id) = started.last().expect("there are many");
    check(&server, id, *n);
    let counts = |postgres: &Postgres| {
        let counts = "SELECT (SELECT count(*) FROM executions), \
            (SELECT count(*) FROM acme.executions), (SELECT min(version) FROM acme.executions), \
            (SELECT max(version) FROM acme.executions)";
        postgres.sql("workflows", counts).trim().to_owned()
    };
    assert_eq!(counts(&postgres), format!("0|{}|4|4", started.len()));
    // It is told, and not moved twice.
    let shown = server.admin_cli(&["tenant", "show", TENANT]).succeeds();
    assert!(shown.stdout.contains("schema: acme"), "{}", shown.stdout);
    let again = server.admin_cli(&["tenant", "move", TENANT, "--schema", "acme"]);
    assert!(again.succeeds().stdout.contains("already"));
    assert!(server.stop(), "it ended with a failure");
    // What the file says is so when the server has started, and stays so.
    let settings = format!(
        "    schema: second\ndatabase: {{ primary: '{}' }}",
        postgres.url()
    );
    let mut server = Server::with_tenant(&settings);
    check(&server, id, *n);
    let gone = postgres.sql(
        "workflows",
        "SELECT count(*) FROM pg_namespace WHERE nspname = 'acme'",
    );
    assert_eq!(gone.trim(), "0");
    let refused = server
        .admin_cli(&["tenant", "move", TENANT, "--shared"])
        .exits(5);
    assert!(
        refused.stderr.contains("cascade.yaml"),
        "{}",
        refused.stderr
    );
    assert!(server.stop(), "it ended with a failure");
}
