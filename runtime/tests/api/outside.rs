//! Signals and answers over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Server, answer};

const CDL: &str = "
schemas:
  decision: {type: object, required: [approved], properties: {approved: {type: boolean}}}
workflows:
  order:
    states:
      - {name: Paid, type: EventTask, event: paid, result: $.payment, next: Approve}
      - name: Approve
        type: HumanTask
        assignee: '{{ $.payment.clerk }}'
        parameters: '{{ $.payment.amount }}'
        ui: {schema: 'urn:cascade:schema:decision'}
        timeout: 1h
        result: $.decision
        end: true
";

impl Server {
    /// Starts an order, and gives the path of the execution.
    async fn order(&self) -> String {
        let request = self.request("author", Method::PUT, "/v1/applications/shop");
        let applied = answer(request.body(CDL)).await;
        assert!(applied.status.is_success(), "{applied:?}");
        let body = json!({ "application": "shop", "workflow": "order" });
        let started = self.post("operator", "/v1/executions", &body).await;
        assert_eq!(started.status, StatusCode::ACCEPTED, "{started:?}");
        let id = started.json()["id"].clone();
        format!("/v1/executions/{}", id.as_str().unwrap())
    }

    /// The same, paid, so that somebody is asked; gives the path of the task, too.
    async fn asking(&self) -> (String, String) {
        let path = self.order().await;
        let signal = json!({ "name": "paid", "payload": { "clerk": "bob", "amount": 7 } });
        let paid = self
            .post("operator", &format!("{path}/signals"), &signal)
            .await;
        assert_eq!(paid.status, StatusCode::OK, "{paid:?}");
        let tasks = self.get("viewer", &format!("{path}/tasks")).await.json();
        let task = &tasks["items"][0];
        (path.clone(), format!("{path}/tasks/{}", task["task"]))
    }
}

#[tokio::test]
async fn a_signal_is_delivered_once_by_its_key() {
    let server = Server::start().await;
    let path = format!("{}/signals", server.order().await);
    let pay = |payload: Value| {
        let request = server.request("operator", Method::POST, &path);
        let request = request.header("Idempotency-Key", "payment-1");
        answer(request.json(&json!({ "name": "paid", "payload": payload })))
    };
    let payment = json!({ "clerk": "bob", "amount": 7 });
    for _ in 0..2 {
        let sent = pay(payment.clone()).await;
        assert_eq!(sent.status, StatusCode::OK, "{sent:?}");
        assert_eq!(sent.json()["events"], 2, "{sent:?}");
    }
    let other = pay(json!(8)).await;
    let told = (other.status, other.code());
    assert_eq!(told, (StatusCode::CONFLICT, "key_reused".to_owned()));
}

#[tokio::test]
async fn a_signal_that_cannot_be_delivered_says_why() {
    let server = Server::start().await;
    let path = server.order().await;
    let unknown = "/v1/executions/00000000-0000-7000-8000-000000000000/signals";
    let signals = format!("{path}/signals");
    let large = json!({ "name": "paid", "payload": "x".repeat(1_999) });
    let huge = json!({ "name": "paid", "payload": "x".repeat(100_000) });
    for (key, path, body, code) in [
        (
            "operator",
            &*signals,
            json!({ "name": "unpaid" }),
            "unknown_signal",
        ),
        (
            "operator",
            &*signals,
            json!({ "payload": 1 }),
            "invalid_request",
        ),
        ("operator", &*signals, large, "too_large"),
        ("operator", &*signals, huge, "too_large"),
        ("operator", unknown, json!({ "name": "paid" }), "not_found"),
        // Another tenant's is none.
        ("other", &*signals, json!({ "name": "paid" }), "not_found"),
    ] {
        let refused = server.post(key, path, &body).await;
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let cancelled = server
        .post("operator", &format!("{path}/cancel"), &json!({}))
        .await;
    assert_eq!(cancelled.status, StatusCode::OK, "{cancelled:?}");
    let late = server
        .post("operator", &signals, &json!({ "name": "paid" }))
        .await;
    assert_eq!(late.code(), "already_closed", "{late:?}");
}

#[tokio::test]
async fn a_person_is_told_what_is_asked_and_answers() {
    let server = Server::start().await;
    let (path, task) = server.asking().await;
    let tasks = server.get("viewer", &format!("{path}/tasks")).await.json();
    let shown = &tasks["items"][0];
    let told = (&shown["state"], &shown["assignee"], &shown["input"]);
    assert_eq!(told, (&json!("Approve"), &json!("bob"), &json!(7)));
    assert_eq!(shown["schema"]["required"], json!(["approved"]));
    let opened = shown["opened_at"].as_u64().unwrap();
    assert_eq!(shown["deadline"].as_u64().unwrap() - opened, 3_600_000);
    // What does not fit is refused with its place, and asks on.
    let body = json!({ "output": { "approved": "yes" } });
    let refused = server.post("operator", &task, &body).await;
    let told = (refused.status, refused.code());
    let unfit = (
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid_answer".to_owned(),
    );
    assert_eq!(told, unfit);
    assert_eq!(refused.json()["errors"][0]["at"], "/approved");
    // The same answer twice is one.
    let body = json!({ "output": { "approved": true }, "by": "ann" });
    for _ in 0..2 {
        let answered = server.post("operator", &task, &body).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        assert_eq!(answered.json()["status"], "completed");
    }
    let view = server.get("viewer", &path).await.json();
    assert_eq!(view["output"]["decision"], json!({ "approved": true }));
    let history = server
        .get("viewer", &format!("{path}/history"))
        .await
        .json();
    let by = &history["events"][2]["kind"]["HumanTaskCompleted"]["by"];
    assert_eq!(by, "ann (key operator)");
    // Another one is late.
    let body = json!({ "output": { "approved": false } });
    let late = server.post("operator", &task, &body).await;
    let told = (late.status, late.code());
    assert_eq!(told, (StatusCode::CONFLICT, "not_asked".to_owned()));
}

#[tokio::test]
async fn what_people_are_asked_is_their_tenants() {
    let server = Server::start().await;
    let (path, task) = server.asking().await;
    let body = json!({ "output": { "approved": true } });
    for refused in [
        server.get("other", &format!("{path}/tasks")).await,
        server.post("other", &task, &body).await,
        server
            .post("operator", &format!("{path}/tasks/x"), &body)
            .await,
    ] {
        assert_eq!(refused.code(), "not_found", "{refused:?}");
    }
    let none = server
        .post("operator", &format!("{path}/tasks/77"), &body)
        .await;
    assert_eq!(none.code(), "not_asked", "{none:?}");
    let refused = server.post("viewer", &task, &body).await;
    assert_eq!(refused.code(), "forbidden", "{refused:?}");
}
