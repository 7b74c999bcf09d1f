//! What hostile or careless clients send. Each gets its answer, and the server goes on.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Server, answer, key};

/// Sends bytes as they are, and reads until the server closes.
pub(crate) async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.base.trim_start_matches("http://"))
        .await
        .unwrap();
    // The server may refuse before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_another_tenants_looks_as_if_it_were_not_there() {
    let server = Server::start().await;
    server.apply().await;
    let theirs = server.run("greet").await;
    let nobodys = "01890000-0000-7000-8000-000000000000";
    let strip = |text: &str| {
        let mut body: serde_json::Value = serde_json::from_str(text).unwrap();
        body.as_object_mut().unwrap().remove("request_id");
        body
    };
    for (method, rest) in [
        (Method::GET, ""),
        (Method::GET, "/history"),
        (Method::GET, "/history?records=true"),
        (Method::GET, "/events"),
        (Method::POST, "/cancel"),
        (Method::POST, "/retry"),
    ] {
        let ask = |id: &str| {
            let path = format!("/v1/executions/{id}{rest}");
            answer(
                server
                    .request("other", method.clone(), &path)
                    .json(&json!({})),
            )
        };
        let (there, absent) = (ask(&theirs).await, ask(nobodys).await);
        assert_eq!(there.status, StatusCode::NOT_FOUND, "{method} {rest}");
        assert_eq!(strip(&there.text), strip(&absent.text), "{method} {rest}");
    }
    assert_eq!(
        server.get("other", "/v1/applications/app").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        server.get("other", "/v1/executions").await.json()["items"],
        json!([])
    );
    // Nor can the id be taken: it is another execution under another tenant.
    let body = json!({ "application": "app", "workflow": "greet", "id": theirs });
    assert_eq!(
        server.post("other", "/v1/executions", &body).await.code(),
        "unknown_workflow"
    );
    let named = server
        .request("other", Method::GET, "/v1/executions")
        .header("Cascade-Tenant", "acme");
    assert_eq!(answer(named).await.code(), "forbidden");
}

#[tokio::test]
async fn a_forged_cursor_is_refused() {
    let server = Server::start().await;
    server.apply().await;
    for _ in 0..2 {
        server.run("greet").await;
    }
    let page = server.get("viewer", "/v1/executions?limit=1").await.json();
    let cursor = page["next"].as_str().unwrap().to_owned();
    let flipped = if cursor.ends_with('0') { "1" } else { "0" };
    for (key_id, query) in [
        ("other", format!("cursor={cursor}")),
        ("viewer", format!("cursor={cursor}&status=failed")),
        (
            "viewer",
            format!("cursor={}{flipped}", &cursor[..cursor.len() - 1]),
        ),
        ("viewer", "cursor=".to_owned()),
        ("viewer", format!("cursor={}", "f".repeat(3000))),
        ("viewer", "cursor=%00%ff".to_owned()),
        ("viewer", "cursor=' OR 1=1 --".to_owned()),
    ] {
        let refused = server
            .get(key_id, &format!("/v1/executions?limit=1&{query}"))
            .await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{query}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_query_that_does_not_read_is_refused() {
    let server = Server::start().await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "status=Running",
        "foo=1",
        "started_after=yesterday",
        "limit=1&limit=2",
        &format!("application={}", "a".repeat(5000)),
    ] {
        let refused = server
            .get("viewer", &format!("/v1/executions?{query}"))
            .await;
        assert_eq!(refused.code(), "invalid_request", "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn a_path_leads_nowhere_but_to_its_route() {
    let server = Server::start().await;
    server.apply().await;
    for path in [
        "/v1/executions/..%2f..%2fmetrics",
        "/v1/executions/%2e%2e%2f",
        "/v1/executions/not-a-uuid",
        "/v1/executions/%00",
        "/v1/executions/%ff%fe",
        "/v1/applications/..%2fapp",
        "/v1/applications/app%00/source",
        "/v1/applications/app%2fsource",
        "/v1/activities/..%5c..%5cx",
        "/v1/activities/x/versions/%2e%2e",
        "//v1/executions",
    ] {
        let refused = server.get("viewer", path).await;
        assert!(refused.status.is_client_error(), "{path}: {refused:?}");
        assert!(
            !refused.code().is_empty(),
            "{path} is a problem document: {refused:?}"
        );
    }
    for name in [
        "..%2fx",
        "%00",
        "a%20b",
        "%2e%2e",
        &"a".repeat(65),
        "%C3%A4",
    ] {
        let path = format!("/v1/applications/{name}");
        let refused = answer(
            server
                .request("author", Method::PUT, &path)
                .body("states: []"),
        )
        .await;
        assert!(refused.status.is_client_error(), "{name}: {refused:?}");
        let path = format!("/v1/activities/{name}/versions");
        let refused = answer(server.request("author", Method::POST, &path).body("x")).await;
        // `..` is resolved by the client, and then is no route.
        assert!(refused.status.is_client_error(), "{name}: {refused:?}");
        assert!(!refused.code().is_empty(), "{name}: {refused:?}");
    }
    for id in ["..%2facme", "ACME", "%00", &"a".repeat(64)] {
        let path = format!("/v1/tenants/{id}");
        let refused = answer(
            server
                .request("server", Method::PUT, &path)
                .json(&json!({})),
        )
        .await;
        assert_eq!(refused.code(), "invalid_request", "{id}: {refused:?}");
        assert_eq!(
            server.get("server", &path).await.code(),
            "not_found",
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_refused() {
    let server = Server::start().await;
    server.apply().await;
    let start = |input: String| {
        format!("{{\"application\":\"app\",\"workflow\":\"greet\",\"input\":{input}}}")
    };
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for (body, code) in [
        (b"".to_vec(), "invalid_request"),
        (b"null".to_vec(), "invalid_request"),
        (b"{".to_vec(), "invalid_request"),
        (b"{\"application\":\"app\"}".to_vec(), "invalid_request"),
        (
            b"{\"application\":\"app\",\"workflow\":\"greet\",\"x\":1}".to_vec(),
            "invalid_request",
        ),
        (
            b"{\"application\":\"app\",\"workflow\":\"greet\",\"application\":\"b\"}".to_vec(),
            "invalid_request",
        ),
        (
            b"{\"application\":\"app\",\"workflow\":\"\xff\"}".to_vec(),
            "invalid_request",
        ),
        (start("\"\\ud800\"".into()).into_bytes(), "invalid_request"),
        (start("1e999".into()).into_bytes(), "invalid_request"),
        (start("[1,]".into()).into_bytes(), "invalid_request"),
        (start(deep[..].into()).into_bytes(), "too_large"),
        (
            start(format!("{}{}", "[".repeat(200), "]".repeat(200))).into_bytes(),
            "invalid_request",
        ),
        (
            start(format!("\"{}\"", "a".repeat(2_000))).into_bytes(),
            "too_large",
        ),
        (
            start(format!("\"{}\"", "a".repeat(1 << 20))).into_bytes(),
            "too_large",
        ),
        (
            b"{\"application\":\"app\",\"workflow\":\"none\"}".to_vec(),
            "unknown_workflow",
        ),
        (
            b"{\"application\":\"app\",\"workflow\":\"greet\",\"id\":\"1\"}".to_vec(),
            "invalid_request",
        ),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let refused = answer(
            server
                .request("operator", Method::POST, "/v1/executions")
                .body(body),
        )
        .await;
        assert_eq!(refused.code(), code, "{shown}: {refused:?}");
    }
    assert_eq!(
        server.get("viewer", "/v1/executions").await.json()["items"],
        json!([])
    );
}

#[tokio::test]
async fn odd_headers_are_refused_or_ignored() {
    let server = Server::start().await;
    server.apply().await;
    let body = json!({ "application": "app", "workflow": "greet" });
    for (name, value, code) in [
        ("Idempotency-Key", vec![b'a'; 256], "invalid_request"),
        ("Idempotency-Key", b"\xff\xfe".to_vec(), "invalid_request"),
        ("Idempotency-Key", Vec::new(), "invalid_request"),
        ("Prefer", b"wait=forever".to_vec(), ""),
        ("Prefer", b"\xff".to_vec(), ""),
        ("Cascade-Tenant", b"\xff".to_vec(), "forbidden"),
    ] {
        let request = server.request("operator", Method::POST, "/v1/executions");
        let value = reqwest::header::HeaderValue::from_bytes(&value).unwrap();
        let answered = answer(request.header(name, value).json(&body)).await;
        assert_eq!(answered.code(), code, "{name}: {answered:?}");
    }
    let zeros = "0".repeat(40);
    for authorization in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer ck_".to_owned(),
        format!("Basic ck_viewer_{zeros}"),
        format!("Bearer ck_viewer_{zeros}1"),
        format!("Bearer ck_viewer_1{}", &zeros[1..]),
        format!("Bearer ck_nobody_{zeros}"),
        format!("Bearer ck_VIEWER_{zeros}"),
        format!("Bearer {}", "a".repeat(10_000)),
        format!("Bearer ck_' OR 1=1_{zeros}"),
    ] {
        let request = server.client.get(format!("{}/v1/executions", server.base));
        let refused = answer(request.header("Authorization", &authorization)).await;
        assert_eq!(refused.code(), "unauthenticated", "{authorization}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_or_no_http_ends_the_connection_only() {
    let server = Server::start().await;
    let huge = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(1 << 20)
    );
    let many = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X: y\r\n".repeat(500)
    );
    for bytes in [
        huge.as_bytes(),
        many.as_bytes(),
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"\0\0\0\0",
    ] {
        let answer = raw(&server, bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    // Two lengths, or a length beside chunks, are how requests are smuggled.
    for lengths in [
        "Content-Length: 3\r\nContent-Length: 5\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
    ] {
        let head = format!("POST /v1/validate HTTP/1.1\r\nHost: x\r\n{lengths}\r\nabcde");
        assert!(
            raw(&server, head.as_bytes())
                .await
                .starts_with("HTTP/1.1 400"),
            "{lengths}"
        );
    }
    assert_eq!(server.get("viewer", "/health").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_dawdles_is_given_up() {
    let server = Server::start().await;
    let head = "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow:";
    let body = format!(
        "POST /v1/validate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 9\r\n\r\nstat",
        key("viewer")
    );
    let (head, body) = tokio::join!(raw(&server, head.as_bytes()), raw(&server, body.as_bytes()));
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408"),
        "{head}"
    );
    assert!(
        body.starts_with("HTTP/1.1 408") && body.contains("request_timeout"),
        "{body}"
    );
}

/// None of these ever asks for anything; each holds a place until it is closed.
#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
    let server = Server::start().await;
    let (silent, begun, quiet) = tokio::join!(
        raw(&server, b""),
        raw(&server, &PREFACE[..8]),
        raw(&server, &settings)
    );
    // The last one speaks HTTP/2, and is told goodbye.
    assert_eq!((silent.as_str(), begun.as_str()), ("", ""));
    assert!(!quiet.starts_with("HTTP/1.1"), "{quiet}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.base.trim_start_matches("http://"))
        .await
        .unwrap();
    let ask = b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    while stream.write_all(ask).await.is_ok() {}
    assert_eq!(server.get("viewer", "/health").await.status, StatusCode::OK);
}
