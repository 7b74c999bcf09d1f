//! Pausing and resuming over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Server, answer};

const CDL: &str = "
workflows:
  order:
    states:
      - {name: Paid, type: EventTask, event: paid, result: $.payment, next: Ship}
      - {name: Ship, type: Pass, parameters: shipped, result: $.shipped, end: true}
";

impl Server {
    async fn shop(&self) {
        let request = self.request("author", Method::PUT, "/v1/applications/shop");
        let applied = answer(request.body(CDL)).await;
        assert!(applied.status.is_success(), "{applied:?}");
    }
}

#[tokio::test]
async fn an_execution_is_paused_and_resumed_once_and_shows_it() {
    let server = Server::start().await;
    server.shop().await;
    let body = json!({ "application": "shop", "workflow": "order" });
    let started = server.post("operator", "/v1/executions", &body).await;
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/executions/{id}");
    let pause = format!("{path}/pause");
    let long = json!({ "reason": "x".repeat(1_001) });
    let refused = server.post("operator", &pause, &long).await;
    assert_eq!(refused.code(), "invalid_request", "{refused:?}");
    for _ in 0..2 {
        let reason = json!({ "reason": "the bank" });
        let paused = server.post("operator", &pause, &reason).await;
        assert_eq!(paused.status, StatusCode::OK, "{paused:?}");
        let view = paused.json();
        assert_eq!(view["status"], "paused", "{view}");
        assert_eq!(view["paused"]["reason"], "the bank", "{view}");
        assert_eq!(view["events"], 2, "{view}");
    }
    for (status, count) in [("paused", 1), ("running", 0), ("completed", 0)] {
        let list = format!("/v1/executions?status={status}");
        let page = server.get("viewer", &list).await.json();
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{page}");
    }
    let signal = json!({ "name": "paid", "payload": 7 });
    let paid = server
        .post("operator", &format!("{path}/signals"), &signal)
        .await;
    assert_eq!(paid.status, StatusCode::OK, "{paid:?}");
    let view = server.get("viewer", &path).await.json();
    let open = &view["open_states"][0];
    assert_eq!(
        (&open["state"], &open["step"]),
        (&json!("Ship"), &json!("held"))
    );
    let resume = format!("{path}/resume");
    let resumed = server.post("operator", &resume, &json!({})).await;
    assert_eq!(resumed.status, StatusCode::OK, "{resumed:?}");
    let view = server
        .get("viewer", &format!("{path}?wait=30s"))
        .await
        .json();
    assert_eq!(view["status"], "completed", "{view}");
    assert_eq!(
        view["output"],
        json!({ "payment": 7, "shipped": "shipped" })
    );
    for path in [&pause, &resume] {
        let late = server.post("operator", path, &json!({})).await;
        assert_eq!(late.code(), "already_closed", "{late:?}");
    }
}

#[tokio::test]
async fn a_paused_workflow_refuses_starts_and_says_how_to_resume_it() {
    let server = Server::start().await;
    server.shop().await;
    let workflow = "/v1/applications/shop/workflows/order";
    let order = json!({ "application": "shop", "workflow": "order" });
    let start = || server.post("operator", "/v1/executions", &order);
    let before = start().await;
    assert_eq!(before.status, StatusCode::ACCEPTED, "{before:?}");
    for reason in ["the bank", "something else"] {
        let body = json!({ "reason": reason });
        let paused = server
            .post("operator", &format!("{workflow}/pause"), &body)
            .await;
        assert_eq!(paused.status, StatusCode::OK, "{paused:?}");
        assert_eq!(paused.json()["paused"]["reason"], "the bank", "{paused:?}");
    }
    let refused = start().await;
    assert_eq!(refused.code(), "workflow_paused", "{refused:?}");
    let detail = refused.json()["detail"].to_string();
    assert!(detail.contains("the bank"), "{detail}");
    assert!(
        detail.contains("cascade workflow resume shop/order"),
        "{detail}"
    );
    let shown = server.get("viewer", "/v1/applications/shop").await.json();
    let paused = &shown["workflows"][0]["paused"];
    assert_eq!(paused["reason"], "the bank", "{shown}");
    // What runs goes on, and a new version changes nothing.
    let id = before.json()["id"].as_str().unwrap().to_owned();
    let signal = json!({ "name": "paid", "payload": 7 });
    let path = format!("/v1/executions/{id}/signals");
    let paid = server.post("operator", &path, &signal).await;
    assert_eq!(paid.status, StatusCode::OK, "{paid:?}");
    let request = server.request("author", Method::PUT, "/v1/applications/shop");
    let applied = answer(request.body(CDL.replace("shipped", "sent"))).await;
    assert_eq!(applied.status, StatusCode::CREATED, "{applied:?}");
    assert_eq!(start().await.code(), "workflow_paused");
    for _ in 0..2 {
        let resume = format!("{workflow}/resume");
        let resumed = server.post("operator", &resume, &json!({})).await;
        assert_eq!(resumed.status, StatusCode::OK, "{resumed:?}");
    }
    assert_eq!(start().await.status, StatusCode::ACCEPTED);
    // Nobody has to say why.
    let silent = server
        .post("operator", &format!("{workflow}/pause"), &json!({}))
        .await;
    assert_eq!(silent.json()["paused"]["reason"], "", "{silent:?}");
    let detail = start().await.json()["detail"].to_string();
    assert!(!detail.contains("()"), "{detail}");
    for verb in ["pause", "resume"] {
        let nowhere = format!("/v1/applications/shop/workflows/nothing/{verb}");
        let unknown = server.post("operator", &nowhere, &json!({})).await;
        assert_eq!(unknown.code(), "not_found", "{unknown:?}");
    }
}
