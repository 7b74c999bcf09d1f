//! Labels, attributes, and what is found by them, over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Server, answer};

const CDL: &str = "
workflows:
  sell:
    attributes:
      amount: '{{ $.order.total }}'
      due: '{{ $.workflow.input.due }}'
      tier: '{{ $.workflow.input.tier }}'
      never: '{{ $.nothing.like.it }}'
    states:
      - name: Price
        type: Pass
        parameters: { total: '{{ $.workflow.input.pieces * 10 }}' }
        result: $.order
        next: Ask
      - { name: Ask, type: HumanTask, assignee: ann, result: $.order, end: true }
  plain:
    states:
      - { name: A, type: Pass, end: true }
";

impl Server {
    async fn tagged_shop(&self) {
        let request = self.request("author", Method::PUT, "/v1/applications/shop");
        let applied = answer(request.body(CDL)).await;
        assert!(applied.status.is_success(), "{applied:?}");
    }

    async fn sell(&self, input: Value, labels: Value) -> Answer {
        let body = json!({
            "application": "shop", "workflow": "sell", "input": input, "labels": labels,
        });
        self.post("operator", "/v1/executions", &body).await
    }

    async fn sold(&self, input: Value, labels: Value) -> String {
        let answer = self.sell(input, labels).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// How many executions a list with these filters shows; the count has to agree.
    async fn found(&self, query: &str) -> usize {
        let list = self.get("viewer", &format!("/v1/executions?{query}")).await;
        assert_eq!(list.status, StatusCode::OK, "{query}: {list:?}");
        let list = list.json()["items"].as_array().unwrap().len();
        let count = format!("/v1/executions/count?{query}");
        let count = self.get("viewer", &count).await;
        assert_eq!(count.json()["count"], list, "{query}: {count:?}");
        assert_eq!(count.json()["at_least"], false);
        list
    }
}

#[tokio::test]
async fn executions_are_found_by_labels_and_by_what_their_workflow_says() {
    let server = Server::start().await;
    server.tagged_shop().await;
    let due = "2026-02-01T00:00:00Z";
    let input = json!({ "pieces": 3, "tier": "gold", "due": due });
    let gold = server
        .sold(input, json!({ "customer": "acme", "a/b": "x=y z" }))
        .await;
    server
        .sold(json!({ "pieces": 7 }), json!({ "customer": "rival" }))
        .await;
    let plain = json!({ "application": "shop", "workflow": "plain" });
    server
        .post("operator", "/v1/executions?wait=5s", &plain)
        .await;

    for (query, expected) in [
        ("", 3),
        ("label=customer=acme", 1),
        ("label=customer", 2),
        ("label=a/b=x%3Dy+z", 1),
        ("label=customer=acme&label=a/b", 1),
        ("label=customer=acme&label=customer=rival", 0),
        ("attribute=amount=30", 1),
        ("attribute=amount%3E%3D30", 2),
        ("attribute=amount>30&workflow=sell", 1),
        ("attribute=amount!=30", 1),
        ("attribute=amount=%2230%22", 0),
        ("attribute=tier=gold&label=customer=acme", 1),
        ("attribute=due<2026-02-01T00:00:00.001Z", 1),
        ("attribute=due<2026-02-01T00:00:00Z", 0),
        ("attribute=never", 0),
        ("closed_after=0", 1),
        ("closed_before=1", 0),
        ("status=completed&closed_after=0", 1),
        ("started_after=1&application=shop", 3),
    ] {
        assert_eq!(server.found(query).await, expected, "{query}");
    }
    let path = format!("/v1/executions/{gold}");
    let view = server.get("viewer", &path).await.json();
    assert_eq!(
        view["labels"],
        json!({ "customer": "acme", "a/b": "x=y z" })
    );
    let attributes = json!({ "amount": 30, "due": due, "tier": "gold" });
    assert_eq!(view["attributes"], attributes);

    // What the end brings stays, though the context is gone.
    let answer = json!({ "output": { "total": 99 } });
    let tasks = server.get("viewer", &format!("{path}/tasks")).await.json();
    let task = tasks["items"][0]["task"].as_u64().unwrap();
    let path = format!("{path}/tasks/{task}");
    let answered = server.post("operator", &path, &answer).await;
    assert!(answered.status.is_success(), "{answered:?}");
    assert_eq!(
        server.found("attribute=amount=99&status=completed").await,
        1
    );
    assert_eq!(server.found("attribute=amount=30").await, 0);
    let list = server
        .get("viewer", "/v1/executions?attribute=amount=99")
        .await
        .json();
    assert_eq!(list["items"][0]["attributes"]["amount"], 99, "{list}");

    let groups = server
        .get("viewer", "/v1/executions/count?group=status")
        .await
        .json();
    let expected = json!([
        { "status": "running", "count": 1 },
        { "status": "completed", "count": 2 },
    ]);
    let mut groups = groups["groups"].as_array().unwrap().clone();
    groups.sort_by_key(|group| group["count"].as_u64());
    assert_eq!(json!(groups), expected);
    let groups = server
        .get("viewer", "/v1/executions/count?group=workflow")
        .await
        .json();
    let expected = json!([
        { "application": "shop", "workflow": "plain", "count": 1 },
        { "application": "shop", "workflow": "sell", "count": 2 },
    ]);
    assert_eq!(groups["groups"], expected);
}

#[tokio::test]
async fn what_cannot_be_asked_or_given_is_refused_with_its_place() {
    let server = Server::start().await;
    server.tagged_shop().await;
    for (query, why) in [
        ("attribute=amount~5", "`attribute=amount~5`: at character 7"),
        (
            "attribute=>5",
            "at its start has to be the name of an attribute",
        ),
        ("attribute=a>true", "at character 3 is a boolean"),
        ("label=-x=y", "`label=-x=y`: before the `=`"),
        ("labels=x=y", "unknown field `labels`"),
        ("group=status", "`group` is of counts"),
        (
            "label=a&label=a&label=a&label=a&label=a&label=a&label=a&label=a&attribute=b",
            "at most 8",
        ),
    ] {
        let answer = server
            .get("viewer", &format!("/v1/executions?{query}"))
            .await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{query}: {answer:?}"
        );
        assert_eq!(answer.code(), "invalid_request");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(why), "{query}: {detail}");
    }
    let count = server.get("viewer", "/v1/executions/count?limit=5").await;
    assert_eq!(count.status, StatusCode::BAD_REQUEST, "{count:?}");
    let many: Value = (0..17).map(|n| (format!("l{n}"), json!(""))).collect();
    for (labels, why) in [
        (json!({ "a b": "c" }), "label name `a b`"),
        (json!({ "a": "x".repeat(257) }), "257 bytes"),
        (many, "at most 16 labels, not 17"),
    ] {
        let answer = server.sell(json!({}), labels).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(why), "{detail}");
    }
    assert_eq!(server.found("").await, 0);
}
