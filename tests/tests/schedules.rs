//! Schedules on a server that is killed around the times that are due.

use cascade_cdl::Timestamp;
use cascade_cdl::schedule::Key;
use cascade_tests::{Server, TENANT};
use serde_json::{Value, json};

const TICKS: &str = "
workflows:
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

const ALARM: &str = "
workflows:
  - name: alarm
    states:
      - { name: Wait, type: Wait, duration: '{{ workflow.input }}', end: true }
";

const REPORTS: &str = "
workflows:
  - name: report
    states:
      - { name: Write, type: Pass, parameters: '{{ workflow.input.day }}', result: $.day, end: true }
schedules:
  nightly:
    workflow: report
    cron: 30 2 * * *
    timezone: Europe/Berlin
    input: { day: \"{{ schedule.at | date: '%Y-%m-%d' }}\" }
";

/// Another server, which tells when so much time has passed.
struct Clock(Server);

impl Clock {
    fn start() -> Self {
        let server = Server::start();
        server.apply("alarm", ALARM);
        Self(server)
    }

    fn pass(&self, duration: &str, key: &str) {
        let started = self
            .0
            .start_execution("alarm", "alarm", &json!(duration), key);
        let started = started.expect("the server answers");
        self.0.wait(started.body["id"].as_str().expect("an id"));
    }
}

fn get(server: &Server, path: &str) -> Value {
    let answer = server.request("GET", path, &[], "");
    let answer = answer.expect("the server answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[test]
fn a_killed_server_starts_each_time_of_a_schedule_once() {
    let clock = Clock::start();
    let mut server = Server::start();
    server.apply("ticks", TICKS);
    for round in 0..6 {
        // At another moment of the second each time.
        clock.pass(&format!("{}ms", 640 + 230 * round), &format!("up-{round}"));
        server.kill();
        if round % 2 == 1 {
            clock.pass("1400ms", &format!("down-{round}"));
        }
        server.restart();
    }
    let paused = server.cli(&["schedule", "pause", "every", "--output", "json"]);
    let paused = paused.succeeds().json()["paused"]["at"]
        .as_u64()
        .expect("a time");
    let path = "/v1/applications/ticks/schedules/every";
    let mut look = 0;
    while get(&server, path)["waiting"] != 0 {
        look += 1;
        assert!(look < 1_000, "what is due is not started");
        clock.pass("10ms", &format!("look-{look}"));
    }

    let application = get(&server, "/v1/applications/ticks");
    let applied = application["created_at"].as_u64().expect("a time");
    let key = Key {
        tenant: TENANT.parse().expect("valid"),
        application: "ticks".into(),
        name: "every".into(),
    };
    let times: Vec<u64> = (applied / 1_000 + 1..=paused / 1_000)
        .map(|second| second * 1_000)
        .collect();
    assert!(times.len() > 6, "{times:?}");
    for time in &times {
        let at = Timestamp(*time);
        let view = server.wait(&key.execution(at).to_string());
        assert_eq!(view["status"], "completed", "{view}");
        assert_eq!(
            view["schedule"],
            json!({ "name": "every", "at": time }),
            "{view}"
        );
        assert_eq!(view["output"]["at"], at.to_string(), "{view}");
    }
    let all = get(&server, "/v1/executions?application=ticks&limit=1000");
    let all = all["items"].as_array().expect("a list").len();
    assert_eq!(
        all,
        times.len(),
        "one execution for each time, and no other"
    );
}

#[test]
fn the_command_line_shows_pauses_and_starts_schedules() {
    let mut server = Server::start();
    server.apply("reports", REPORTS);
    let listed = server.cli(&["schedule", "list"]).succeeds();
    assert!(listed.stdout.contains("reports/nightly"), "{listed:?}");
    let next = server
        .cli(&["schedule", "next", "nightly", "--count", "3"])
        .succeeds();
    let lines: Vec<&str> = next.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{next:?}");
    assert!(
        lines
            .iter()
            .all(|line| line.contains("T02:30:00+") || line.contains("T03:00:00+")),
        "{next:?}"
    );

    let pause = [
        "schedule",
        "pause",
        "reports/nightly",
        "--reason",
        "the bank",
    ];
    server.cli(&pause).succeeds();
    server.kill();
    server.restart();
    let shown = server.cli(&["schedule", "show", "nightly"]).succeeds();
    assert!(shown.stdout.contains("the bank"), "{shown:?}");
    // What is in force again says nothing new, so it stays paused.
    server.apply("reports", &REPORTS.replace("30 2", "45 2"));
    let shown = server.cli(&["schedule", "show", "nightly", "--output", "json"]);
    let shown = shown.succeeds().json();
    assert_eq!(shown["paused"]["reason"], "the bank", "{shown}");
    assert_eq!(shown["timing"], "45 2 * * * (Europe/Berlin)", "{shown}");

    let backfill = [
        "schedule",
        "backfill",
        "nightly",
        "--from",
        "2026-10-24T00:00:00Z",
        "--until",
        "2026-10-26T12:00:00Z",
        "--output",
        "json",
    ];
    for _ in 0..2 {
        let filled = server.cli(&backfill).succeeds().json();
        // Once on the day on which 02:45 comes twice.
        assert_eq!(filled["times"], 3, "{filled}");
    }
    let trigger = [
        "schedule",
        "trigger",
        "nightly",
        "--overlap",
        "buffer_all",
        "--output",
        "json",
    ];
    let triggered = server.cli(&trigger).succeeds().json();
    // It starts after those, and so they have ended when it has.
    let id = triggered["execution"].as_str().expect("an id").to_owned();
    let clock = Clock::start();
    let path = "/v1/applications/reports/schedules/nightly";
    let mut look = 0;
    while get(&server, path)["waiting"] != 0 {
        look += 1;
        assert!(look < 1_000, "nothing starts");
        clock.pass("10ms", &format!("look-{look}"));
    }
    server.wait(&id);
    let list = get(&server, "/v1/executions?application=reports");
    let list = list["items"].as_array().expect("a list");
    assert_eq!(list.len(), 4, "{list:?}");
    let shown = server.cli(&["process", "show", &id]).succeeds();
    assert!(shown.stdout.contains("schedule  nightly of "), "{shown:?}");
    let shown = server.cli(&["schedule", "show", "nightly"]).succeeds();
    assert!(shown.stdout.contains("backfill"), "{shown:?}");

    server.cli(&["schedule", "resume", "nightly"]).succeeds();
    let refused = server.cli(&["schedule", "resume", "nothing"]).exits(4);
    assert!(refused.stderr.contains("schedule list"), "{refused:?}");
}
