//! Schedules over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Server, answer};

const CDL: &str = "
workflows:
  greet:
    states:
      - {name: Hello, type: Pass, parameters: '{{ workflow.schedule }}', result: $.by, end: true}
  wait:
    states:
      - {name: Paid, type: EventTask, event: paid, end: true}
schedules:
  - {name: weekly, workflow: greet, cron: '0 9 * * MON', timezone: Europe/Berlin, input: {at: '{{ schedule.at }}'}}
  - {name: one, workflow: wait, interval: 7d}
";

const WEEKLY: &str = "/v1/applications/shop/schedules/weekly";
const ONE: &str = "/v1/applications/shop/schedules/one";

impl Server {
    async fn scheduled(&self, cdl: &'static str) {
        let request = self.request("author", Method::PUT, "/v1/applications/shop");
        let applied = answer(request.body(cdl)).await;
        assert!(applied.status.is_success(), "{applied:?}");
    }
}

#[tokio::test]
async fn schedules_are_in_force_when_their_application_is() {
    let server = Server::start().await;
    server.scheduled(CDL).await;
    let list = server.get("viewer", "/v1/schedules").await.json();
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["one", "weekly"]);
    let others = server
        .get("viewer", "/v1/schedules?application=other")
        .await
        .json();
    assert_eq!(others["items"], json!([]));
    let rivals = server.get("other", "/v1/schedules").await.json();
    assert_eq!(rivals["items"], json!([]), "a tenant sees its own");
    let rival = server.get("other", WEEKLY).await;
    assert_eq!(rival.code(), "not_found", "{rival:?}");

    let shown = server
        .get("viewer", &format!("{WEEKLY}?next=3"))
        .await
        .json();
    assert_eq!(shown["timing"], "0 9 * * MON (Europe/Berlin)", "{shown}");
    assert_eq!(shown["overlap"], "skip", "{shown}");
    let next = shown["next"].as_array().unwrap();
    assert_eq!(next.len(), 3, "{shown}");
    for time in next {
        assert!(
            time["local"].as_str().unwrap().contains("T09:00:00+0"),
            "{shown}"
        );
    }
    server
        .scheduled(&CDL[..CDL.find("schedules:").unwrap()])
        .await;
    let gone = server.get("viewer", WEEKLY).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
}

#[tokio::test]
async fn a_schedule_is_paused_and_resumed_and_shows_it() {
    let server = Server::start().await;
    server.scheduled(CDL).await;
    for reason in ["the bank", "another"] {
        let body = json!({ "reason": reason });
        let paused = server
            .post("operator", &format!("{WEEKLY}/pause"), &body)
            .await;
        assert_eq!(paused.status, StatusCode::OK, "{paused:?}");
        assert_eq!(
            paused.json()["paused"]["reason"],
            "the bank",
            "it stays as it was"
        );
        assert_eq!(paused.json()["next"], json!([]));
    }
    for _ in 0..2 {
        let resumed = server
            .post("operator", &format!("{WEEKLY}/resume"), &json!({}))
            .await;
        assert_eq!(resumed.status, StatusCode::OK, "{resumed:?}");
        assert!(resumed.json()["paused"].is_null(), "{resumed:?}");
        assert_eq!(resumed.json()["next"].as_array().unwrap().len(), 5);
    }
}

#[tokio::test]
async fn an_execution_is_started_by_hand_once_for_a_key() {
    let server = Server::start().await;
    server.scheduled(CDL).await;
    let mut started = Vec::new();
    for _ in 0..2 {
        let request = server.request("operator", Method::POST, &format!("{WEEKLY}/trigger"));
        let triggered = answer(request.header("Idempotency-Key", "k")).await;
        assert_eq!(triggered.status, StatusCode::ACCEPTED, "{triggered:?}");
        started.push(triggered.json()["execution"].as_str().unwrap().to_owned());
    }
    assert_eq!(started[0], started[1]);
    let view = server.ended(&started[0]).await;
    assert_eq!(view["status"], "completed", "{view}");
    assert_eq!(view["schedule"]["name"], "weekly", "{view}");
    assert_eq!(view["output"]["by"]["name"], "weekly", "{view}");
    assert_eq!(view["input"]["at"], view["output"]["by"]["at"], "{view}");

    // Of the other one an execution runs, and a second is not wanted.
    let path = format!("{ONE}/trigger");
    let first = server.post("operator", &path, &json!({})).await;
    assert_eq!(first.json()["waits"], false, "{first:?}");
    let second = server.post("operator", &path, &json!({})).await;
    assert_eq!(second.code(), "schedule_busy", "{second:?}");
    let waits = server
        .post("operator", &path, &json!({ "overlap": "buffer_one" }))
        .await;
    assert_eq!(waits.json()["waits"], true, "{waits:?}");
    let odd = server
        .post("operator", &path, &json!({ "overlap": "sometimes" }))
        .await;
    assert_eq!(odd.code(), "invalid_request", "{odd:?}");
}

#[tokio::test]
async fn what_was_left_out_is_backfilled_within_bounds() {
    let server = Server::start().await;
    server.scheduled(CDL).await;
    let path = format!("{WEEKLY}/backfill");
    // The Mondays of January 2026 at 09:00 in Berlin.
    let range = json!({ "from": 1_767_225_600_000_u64, "until": 1_769_904_000_000_u64 });
    let filled = server.post("operator", &path, &range).await;
    assert_eq!(filled.status, StatusCode::ACCEPTED, "{filled:?}");
    assert_eq!(filled.json(), json!({ "times": 4 }));
    for (range, code) in [
        (json!({ "from": 2, "until": 1 }), "invalid_request"),
        (
            json!({ "from": 1, "until": 99_999_999_999_999_u64 }),
            "invalid_request",
        ),
        (
            json!({ "from": 1, "until": 1_769_904_000_000_u64 }),
            "limit_reached",
        ),
        (json!({ "from": 1 }), "invalid_request"),
    ] {
        let refused = server.post("operator", &path, &range).await;
        assert_eq!(refused.code(), code, "{refused:?}");
    }
}

impl Server {
    /// An execution that a schedule starts, once it has ended.
    async fn ended(&self, id: &str) -> Value {
        loop {
            let shown = self
                .get("viewer", &format!("/v1/executions/{id}?wait=30s"))
                .await;
            // Until the keeper of the schedules has come to start it.
            if shown.status == StatusCode::OK {
                return shown.json();
            }
            tokio::task::yield_now().await;
        }
    }
}
