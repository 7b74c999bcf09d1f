//! What the routes do.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{CDL, Server, answer, key};

#[tokio::test]
async fn a_workflow_that_is_waited_for_is_answered_with_its_result() {
    let server = Server::start().await;
    server.apply().await;
    let body = json!({ "application": "app", "workflow": "greet", "input": { "name": "Ada" } });
    let request = server.request("operator", Method::POST, "/v1/executions");
    let started = answer(
        request
            .header("Prefer", "respond-async, wait=5")
            .json(&body),
    )
    .await;
    assert_eq!(started.status, StatusCode::OK, "{started:?}");
    let view = started.json();
    assert_eq!(view["status"], "completed");
    assert_eq!(view["output"], json!({ "greeting": "Ada" }));
    assert_eq!(view["application_version"], 1);
    let place = started.header("location");
    assert_eq!(
        place,
        format!("/v1/executions/{}", view["id"].as_str().unwrap())
    );
    // The same, with what only the stored execution tells.
    let mut shown = server
        .get("viewer", &format!("{place}?context=true"))
        .await
        .json();
    assert_eq!(shown["input"], json!({ "name": "Ada" }));
    assert_eq!(shown["open_states"], json!([]));
    for only_shown in ["input", "open_states"] {
        shown.as_object_mut().unwrap().remove(only_shown);
    }
    assert_eq!(shown, view);
}

#[tokio::test]
async fn a_failed_workflow_tells_its_error() {
    let server = Server::start().await;
    server.apply().await;
    let id = server.run("break").await;
    let view = server
        .get("viewer", &format!("/v1/executions/{id}"))
        .await
        .json();
    assert_eq!(view["status"], "failed");
    assert_eq!(view["error"]["error"], "Snapped");
    assert_eq!(view["error"]["state"], "Snap");
    let listed = server
        .get("viewer", "/v1/executions?status=failed")
        .await
        .json();
    assert_eq!(listed["items"][0]["error"]["error"], "Snapped");
}

#[tokio::test]
async fn a_sleeping_execution_shows_where_it_is_until_it_is_cancelled() {
    let server = Server::start().await;
    server.apply().await;
    let id = server.nap().await;
    let path = format!("/v1/executions/{id}");
    let view = server
        .get("viewer", &format!("{path}?context=true"))
        .await
        .json();
    assert_eq!(view["status"], "running");
    assert_eq!(view["context"]["workflow"]["execution_id"], id);
    let state = &view["open_states"][0];
    assert_eq!(
        (&state["state"], &state["step"]),
        (&json!("Sleep"), &json!("waiting"))
    );
    assert_eq!(state["until"], view["wake_at"]);
    // Who waits for the end is told of it.
    let waiting_path = format!("{path}?wait=5s");
    let waiting = server.get("viewer", &waiting_path);
    let body = json!({ "reason": "enough" });
    let cancel_path = format!("{path}/cancel");
    let cancelling = server.post("operator", &cancel_path, &body);
    let (waited, cancelled) = tokio::join!(waiting, cancelling);
    assert_eq!(cancelled.json()["status"], "cancelled", "{cancelled:?}");
    assert_eq!(waited.json()["error"]["message"], "enough");
    let again = server.post("operator", &cancel_path, &body).await;
    assert_eq!(
        (again.status, again.code().as_str()),
        (StatusCode::CONFLICT, "already_closed")
    );
}

#[tokio::test]
async fn only_what_failed_can_be_retried() {
    let server = Server::start().await;
    server.apply().await;
    let failed = server.run("break").await;
    let retried = server
        .post(
            "operator",
            &format!("/v1/executions/{failed}/retry"),
            &json!({}),
        )
        .await;
    assert_eq!(retried.status, StatusCode::OK, "{retried:?}");
    let completed = server.run("greet").await;
    let refused = server
        .post(
            "operator",
            &format!("/v1/executions/{completed}/retry"),
            &json!({}),
        )
        .await;
    assert_eq!(refused.code(), "not_retryable");
}

#[tokio::test]
async fn the_same_key_starts_one_execution() {
    let server = Server::start().await;
    server.apply().await;
    let start = |name: &str| {
        let body = json!({ "application": "app", "workflow": "greet", "input": { "name": name } });
        let request = server.request("operator", Method::POST, "/v1/executions?wait=5s");
        answer(request.header("Idempotency-Key", "order-7").json(&body))
    };
    let (first, second) = (start("Ada").await, start("Ada").await);
    assert_eq!(first.json(), second.json());
    let other = start("Bob").await;
    assert_eq!(
        (other.status, other.code().as_str()),
        (StatusCode::CONFLICT, "key_reused")
    );
    let listed = server.get("viewer", "/v1/executions").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_list_is_paged_and_filtered() {
    let server = Server::start().await;
    server.apply().await;
    let mut ids = Vec::new();
    for workflow in ["greet", "greet", "break", "greet"] {
        ids.push(server.run(workflow).await);
    }
    ids.reverse(); // newest first
    let seen = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = server.get("viewer", "/v1/executions?limit=3").await.json();
    assert_eq!(seen(&first), ids[..3]);
    let cursor = first["next"].as_str().unwrap();
    let second = server
        .get("viewer", &format!("/v1/executions?limit=3&cursor={cursor}"))
        .await
        .json();
    assert_eq!(seen(&second), ids[3..]);
    let failed = server
        .get("viewer", "/v1/executions?status=failed")
        .await
        .json();
    assert_eq!(seen(&failed), ids[1..2]);
    let none = server
        .get("viewer", "/v1/executions?started_before=1")
        .await
        .json();
    assert_eq!(seen(&none), Vec::<String>::new());
}

#[tokio::test]
async fn a_history_tells_what_happened_and_what_followed() {
    let server = Server::start().await;
    server.apply().await;
    let id = server.run("greet").await;
    let path = format!("/v1/executions/{id}/history");
    let plain = server.get("viewer", &path).await.json();
    let events = plain["events"].as_array().unwrap();
    assert!(events[0]["kind"]["ExecutionStarted"].is_object(), "{plain}");
    assert!(events[0].get("records").is_none());
    assert!(plain.get("next").is_none(), "all of it is there");
    let told = server
        .get("viewer", &format!("{path}?records=true"))
        .await
        .json();
    let records = told["events"][0]["records"].to_string();
    for part in ["StateEntered", "Hello", "ExecutionCompleted"] {
        assert!(records.contains(part), "{records}");
    }
    let after = server
        .get("viewer", &format!("{path}?after=1000&records=true"))
        .await
        .json();
    assert_eq!(after["events"], json!([]));
}

#[tokio::test]
async fn a_live_history_goes_on_where_it_broke_and_ends_with_the_execution() {
    let server = Server::start().await;
    server.apply().await;
    let id = server.nap().await;
    let path = format!("/v1/executions/{id}/events");
    let live = answer(server.request("viewer", Method::GET, &path));
    let later = async {
        let request = server.request("viewer", Method::GET, &path);
        answer(request.header("Last-Event-ID", "1")).await
    };
    let cancel_path = format!("/v1/executions/{id}/cancel");
    let body = json!({});
    let (live, later, _) = tokio::join!(live, later, server.post("operator", &cancel_path, &body));
    assert_eq!(live.header("content-type"), "text/event-stream");
    for (stream, whole) in [(&live, true), (&later, false)] {
        assert_eq!(
            stream.text.contains("ExecutionStarted"),
            whole,
            "{stream:?}"
        );
        assert!(stream.text.contains("id: 2\n"), "{stream:?}");
        assert!(stream.text.contains("CancelRequested"), "{stream:?}");
        let last = stream.text.trim_end().rsplit("\n\n").next().unwrap();
        assert_eq!(last, "event: closed\ndata: {\"status\":\"cancelled\"}");
    }
}

#[tokio::test]
async fn an_application_is_replaced_only_by_who_has_seen_it() {
    let server = Server::start().await;
    let put = |source: String, condition: Option<(&'static str, String)>| {
        let mut request = server.request("author", Method::PUT, "/v1/applications/app");
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        answer(request.body(source))
    };
    let first = server.apply().await;
    assert_eq!(
        (first.status, first.json()["version"].clone()),
        (StatusCode::CREATED, json!(1))
    );
    let etag = first.header("etag").to_owned();
    let same = put(CDL.to_owned(), None).await;
    assert_eq!(
        (same.status, same.header("etag")),
        (StatusCode::OK, etag.as_str())
    );
    let changed = format!("{CDL}# more\n");
    let stale = Some(("If-Match", "\"v0-0\"".to_owned()));
    for condition in [Some(("If-None-Match", "*".to_owned())), stale] {
        let refused = put(changed.clone(), condition).await;
        assert_eq!(refused.code(), "precondition_failed", "{refused:?}");
    }
    let second = put(
        changed.clone(),
        Some(("If-Match", format!("\"x\", {etag}"))),
    )
    .await;
    assert_eq!(
        (second.status, second.json()["version"].clone()),
        (StatusCode::CREATED, json!(2))
    );
    let shown = server.get("viewer", "/v1/applications/app").await;
    assert_eq!(shown.header("etag"), second.header("etag"));
    assert_eq!(shown.json()["workflows"][1]["states"], json!(["Hello"]));
    let old = server
        .get("viewer", "/v1/applications/app/source?version=1")
        .await;
    assert_eq!(
        (old.text.as_str(), old.header("etag")),
        (CDL, etag.as_str())
    );
    assert_eq!(
        server
            .get("viewer", "/v1/applications/app/source")
            .await
            .text,
        changed
    );
}

#[tokio::test]
async fn an_invalid_application_is_refused_with_all_its_diagnostics() {
    let server = Server::start().await;
    let bad = "workflows: {w: {states: [{name: A, type: Pas, end: true}, {name: B, type: Pass, next: C}]}}";
    let request = server.request("author", Method::PUT, "/v1/applications/app?file=bad.yaml");
    let refused = answer(request.body(bad)).await;
    assert_eq!(refused.code(), "invalid_application");
    let errors = refused.json()["errors"].as_array().unwrap().clone();
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors.iter().all(|error| error["file"] == "bad.yaml"));
    let request = server.request("viewer", Method::POST, "/v1/validate?file=bad.yaml");
    let validated = answer(request.body(bad)).await.json();
    assert_eq!(validated["valid"], false);
    assert_eq!(validated["diagnostics"], json!(errors));
    // Its own name must be the one in the path.
    let named = format!(
        "apiVersion: cascade.io/v1\nkind: Application\nmetadata: {{name: other}}\nspec:{}",
        CDL.replace('\n', "\n  ")
    );
    let request = server.request("author", Method::PUT, "/v1/applications/app");
    assert_eq!(
        answer(request.body(named)).await.code(),
        "invalid_application"
    );
}

#[tokio::test]
async fn an_application_tells_which_activities_are_missing() {
    let server = Server::start().await;
    let source =
        "states: [{name: A, type: Task, resource: 'urn:cascade:activity:nobody:v2', end: true}]";
    for (path, method) in [
        ("/v1/validate", Method::POST),
        ("/v1/applications/app", Method::PUT),
    ] {
        let request = server.request("author", method, path);
        let told = answer(request.body(source)).await.json();
        assert_eq!(
            told["missing_activities"],
            json!(["urn:cascade:activity:nobody:v2"]),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_tenant_made_over_http_works_at_once_and_its_keys_end_at_once() {
    let server = Server::start().await;
    let put = |id: &str, body: Value| {
        let path = format!("/v1/tenants/{id}");
        answer(server.request("server", Method::PUT, &path).json(&body))
    };
    let limits = json!({ "memory_bytes": "1MiB", "key_value_bytes": "2MiB", "key_value_keys": 0 });
    let made = put("fresh", json!({ "limits": limits })).await;
    assert_eq!(made.status, StatusCode::OK, "{made:?}");
    let limits = &made.json()["limits"];
    assert_eq!(limits["memory_bytes"], 1 << 20);
    assert_eq!(limits["key_value_bytes"], 2 << 20);
    assert_eq!(limits["key_value_keys"], 0, "nothing may be kept");
    assert_eq!(
        put("acme", json!({})).await.code(),
        "conflict",
        "it stands in the file"
    );
    assert_eq!(
        put("fresh", json!({ "limits": { "memory_bytes": 0 } }))
            .await
            .code(),
        "invalid_settings"
    );
    assert_eq!(
        put("fresh", json!({ "limit": {} })).await.code(),
        "invalid_request"
    );
    // The server's key makes the tenant's first one.
    let request = server
        .request("server", Method::POST, "/v1/keys")
        .header("Cascade-Tenant", "fresh");
    let made = answer(request.json(&json!({ "role": "admin", "label": "first" }))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let (id, text) = (made.json()["id"].clone(), made.json()["key"].clone());
    let with = |method, path: String| {
        let request = server
            .client
            .request(method, format!("{}{path}", server.base));
        answer(request.bearer_auth(text.as_str().unwrap()))
    };
    assert_eq!(
        with(Method::GET, "/v1/tenant".into()).await.json()["id"],
        "fresh"
    );
    let listed = with(Method::GET, "/v1/keys".into()).await.json();
    assert_eq!(listed["items"][0]["id"], id);
    assert!(
        listed["items"][0].get("key").is_none(),
        "it is not shown again"
    );
    // Another tenant's admin cannot revoke it; its own can, and then it is gone.
    let path = format!("/v1/keys/{}", id.as_str().unwrap());
    let foreign = answer(server.request("other", Method::DELETE, &path)).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    assert_eq!(
        with(Method::DELETE, path).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        with(Method::GET, "/v1/tenant".into()).await.code(),
        "unauthenticated"
    );
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_ends() {
    let server = Server::start().await;
    server.apply().await;
    let id = server.nap().await;
    assert_eq!(server.get("viewer", "/ready").await.status, StatusCode::OK);
    // A live history is open while it stops.
    let request = server.request(
        "viewer",
        Method::GET,
        &format!("/v1/executions/{id}/events"),
    );
    let mut events = request.send().await.unwrap();
    let first = events.chunk().await.unwrap().unwrap();
    server.stopping.cancel();
    let rest = events.text().await.unwrap();
    assert!(first.starts_with(b"event: history"), "{first:?}");
    assert!(
        !rest.contains("event: closed"),
        "the execution has not ended"
    );
    server.serving.await.unwrap();
    let refused = server
        .client
        .get(format!("{}/health", server.base))
        .bearer_auth(key("viewer"));
    assert!(refused.send().await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn who_waits_for_a_start_is_answered_when_the_server_stops() {
    let server = Server::start().await;
    server.apply().await;
    let body = json!({ "application": "app", "workflow": "nap" });
    let waiting = server.post("operator", "/v1/executions?wait=1h", &body);
    let stop = async {
        // Once it has begun.
        loop {
            let listed = server.get("viewer", "/v1/executions").await.json();
            if listed["items"][0].is_object() {
                break server.stopping.cancel();
            }
        }
    };
    let (answer, ()) = tokio::join!(waiting, stop);
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(answer.json()["status"], "running");
}
