//! Shard keys, priorities, rates and the list of tasks over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Server, answer};

const CDL: &str = "
workflows:
  paced:
    shard_key: '{{ $.workflow.input.customer }}'
    priority: 2
    start_rate_limit: 1/h
    states:
      - {name: Ask, type: HumanTask, assignee: '{{ $.workflow.input.customer }}', timeout: 1h, end: true}
  asks:
    states:
      - {name: Ask, type: HumanTask, assignee: ann, end: true}
";

impl Server {
    async fn desk(&self) {
        let request = self.request("author", Method::PUT, "/v1/applications/desk");
        let applied = answer(request.body(CDL)).await;
        assert!(applied.status.is_success(), "{applied:?}");
    }

    async fn begin(&self, workflow: &str, more: Value) -> Answer {
        let mut body = json!({ "application": "desk", "workflow": workflow });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.post("operator", "/v1/executions", &body).await
    }
}

#[tokio::test]
async fn a_start_beyond_the_rate_is_told_when_to_come_again() {
    let server = Server::start().await;
    server.desk().await;
    let input = json!({ "input": { "customer": "c-1" } });
    // An input without a key starts nothing, and does not count.
    let none = server.begin("paced", json!({ "input": {} })).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY, "{none:?}");
    assert_eq!(none.code(), "invalid_input");
    let first = server.begin("paced", input.clone()).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    let second = server.begin("paced", input).await;
    assert_eq!(second.status, StatusCode::TOO_MANY_REQUESTS, "{second:?}");
    assert_eq!(second.code(), "rate_limited");
    let after: u64 = second.header("retry-after").parse().unwrap();
    assert!((3_590..=3_600).contains(&after), "{after}");

    let id = first.json()["id"].as_str().unwrap().to_owned();
    let view = server.get("viewer", &format!("/v1/executions/{id}")).await;
    let view = view.json();
    assert_eq!(view["shard_key"], "c-1", "{view}");
    assert_eq!(view["priority"], 2, "{view}");
    for (key, count) in [("c-1", 1), ("c-2", 0)] {
        let list = format!("/v1/executions?shard_key={key}");
        let page = server.get("viewer", &list).await.json();
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{page}");
    }
}

#[tokio::test]
async fn a_priority_is_one_to_five() {
    let server = Server::start().await;
    server.desk().await;
    for bad in [json!(0), json!(6), json!("high"), json!(1.5)] {
        let refused = server.begin("asks", json!({ "priority": bad })).await;
        assert_eq!(refused.code(), "invalid_request", "{refused:?}");
    }
    let started = server.begin("asks", json!({ "priority": 1 })).await;
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let view = server.get("viewer", &format!("/v1/executions/{id}")).await;
    assert_eq!(view.json()["priority"], 1);
}

#[tokio::test]
async fn tasks_are_listed_over_all_executions_of_a_tenant() {
    let server = Server::start().await;
    server.desk().await;
    for _ in 0..3 {
        let started = server.begin("asks", json!({})).await;
        assert_eq!(started.status, StatusCode::ACCEPTED, "{started:?}");
    }
    let input = json!({ "input": { "customer": "bob" } });
    server.begin("paced", input).await;
    let list = async |query: &str| server.get("viewer", &format!("/v1/tasks{query}")).await;
    for (query, count) in [
        ("", 4),
        ("?assignee=ann", 3),
        ("?assignee=bob&state=Ask", 1),
        ("?workflow=paced", 1),
        ("?application=other", 0),
    ] {
        let page = list(query).await.json();
        assert_eq!(
            page["items"].as_array().unwrap().len(),
            count,
            "{query}: {page}"
        );
        assert!(page.get("next").is_none(), "{page}");
    }
    let bob = list("?assignee=bob").await.json();
    let bob = &bob["items"][0];
    assert_eq!(
        (&bob["state"], &bob["workflow"]),
        (&json!("Ask"), &json!("paced"))
    );
    assert!(bob["deadline"].is_u64(), "{bob}");
    let first = list("?limit=3").await.json();
    let next = first["next"].as_str().unwrap();
    let rest = list(&format!("?limit=3&cursor={next}")).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1, "{rest}");
    // A cursor of another list, or of nothing.
    for query in [format!("?assignee=ann&cursor={next}"), "?cursor=1".into()] {
        assert_eq!(list(&query).await.code(), "invalid_cursor", "{query}");
    }
    assert_eq!(list("?limit=0").await.code(), "invalid_request");
}
