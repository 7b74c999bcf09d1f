//! Objects over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Server, answer};

const PATH: &str = "/v1/objects/orders/2026/11.ndjson";

impl Server {
    async fn put_object(&self, path: &str, content: &str) -> crate::support::Answer {
        let request = self.request("author", Method::PUT, path);
        answer(request.body(content.to_owned())).await
    }
}

#[tokio::test]
async fn an_object_is_written_read_listed_and_deleted() {
    let server = Server::start().await;
    let content = "{\"n\":1}\n".repeat(10_000);
    let written = server.put_object(PATH, &content).await;
    assert_eq!(written.status, StatusCode::OK, "{written:?}");
    let view = written.json();
    assert_eq!(view["key"], "2026/11.ndjson", "{view}");
    assert_eq!(view["size"], 80_000, "{view}");
    let etag = format!("\"{}\"", view["digest"].as_str().unwrap());

    let read = server.request("viewer", Method::GET, PATH).send().await;
    let read = read.unwrap();
    assert_eq!(read.headers()["etag"], etag.as_str());
    assert_eq!(read.text().await.unwrap(), content);
    let head = server.request("viewer", Method::HEAD, PATH).send().await;
    let head = head.unwrap();
    assert_eq!(head.headers()["content-length"], "80000");
    assert_eq!(head.text().await.unwrap(), "");
    let same = server.request("viewer", Method::GET, PATH);
    let same = same.header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);

    let other = "/v1/objects/orders/a";
    server.put_object(other, "").await;
    let list = "/v1/objects/orders";
    let page = server
        .get("viewer", &format!("{list}?limit=1"))
        .await
        .json();
    assert_eq!(page["items"][0]["key"], "2026/11.ndjson", "{page}");
    let next = format!("{list}?after={}", page["next"].as_str().unwrap());
    let page = server.get("viewer", &next).await.json();
    assert_eq!(page["items"][0]["key"], "a", "{page}");
    assert_eq!(page["next"], json!(null));

    for expected in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND] {
        let gone = answer(server.request("author", Method::DELETE, PATH)).await;
        assert_eq!(gone.status, expected, "{gone:?}");
    }
    let gone = server.get("viewer", PATH).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
}

#[tokio::test]
async fn names_that_are_none_and_contents_without_room_are_refused() {
    let server = Server::start().await;
    for path in [
        "/v1/objects/UP/a",
        "/v1/objects/..%2F..%2Fa/b",
        "/v1/objects/a/b%0Ac",
    ] {
        let refused = server.put_object(path, "x").await;
        assert_eq!(refused.code(), "invalid_request", "{path}: {refused:?}");
    }
    // The tenant has 100,000 bytes.
    let large = server.put_object(PATH, &"x".repeat(100_001)).await;
    assert_eq!(large.code(), "too_large", "{large:?}");
    let first = server.put_object(PATH, &"x".repeat(60_000)).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    let over = server
        .put_object("/v1/objects/orders/b", &"y".repeat(60_000))
        .await;
    assert_eq!(over.code(), "limit_reached", "{over:?}");
    let gone = server.get("viewer", "/v1/objects/orders/b").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
}

#[tokio::test]
async fn another_tenant_sees_nothing_of_an_object() {
    let server = Server::start().await;
    server.put_object(PATH, "secret").await;
    let read = server.get("other", PATH).await;
    assert_eq!(read.status, StatusCode::NOT_FOUND, "{read:?}");
    let gone = answer(server.request("other", Method::DELETE, PATH)).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
    let list = server.get("other", "/v1/objects/orders").await.json();
    assert_eq!(list["items"], json!([]), "{list}");
    let read = server.request("viewer", Method::GET, PATH).send().await;
    assert_eq!(read.unwrap().text().await.unwrap(), "secret");
}
