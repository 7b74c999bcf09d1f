//! Rules that hold for every route.

use cascade_runtime::api::openapi;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Server, answer};

/// Every route with the least role that may use it; `server` takes a key of the
/// server, `none` no key.
const ROUTES: &[(&str, &str, &str)] = &[
    ("POST", "/v1/executions", "operator"),
    ("GET", "/v1/executions", "viewer"),
    ("GET", "/v1/executions/count", "viewer"),
    ("GET", "/v1/executions/{id}", "viewer"),
    ("GET", "/v1/executions/{id}/history", "viewer"),
    ("GET", "/v1/executions/{id}/events", "viewer"),
    ("POST", "/v1/executions/{id}/cancel", "operator"),
    ("POST", "/v1/executions/{id}/retry", "operator"),
    ("POST", "/v1/executions/{id}/pause", "operator"),
    ("POST", "/v1/executions/{id}/resume", "operator"),
    ("POST", "/v1/executions/{id}/signals", "operator"),
    ("GET", "/v1/executions/{id}/tasks", "viewer"),
    ("POST", "/v1/executions/{id}/tasks/{task}", "operator"),
    ("GET", "/v1/tasks", "viewer"),
    ("POST", "/v1/tasks/{token}/succeed", "operator"),
    ("POST", "/v1/tasks/{token}/fail", "operator"),
    ("POST", "/v1/tasks/{token}/heartbeat", "operator"),
    ("POST", "/v1/validate", "viewer"),
    ("GET", "/v1/applications", "viewer"),
    ("GET", "/v1/applications/{name}", "viewer"),
    ("PUT", "/v1/applications/{name}", "author"),
    ("POST", "/v1/applications/{name}/plan", "viewer"),
    ("POST", "/v1/applications/{name}/migrate", "author"),
    ("GET", "/v1/applications/{name}/source", "viewer"),
    (
        "POST",
        "/v1/applications/{name}/workflows/{workflow}/pause",
        "operator",
    ),
    (
        "POST",
        "/v1/applications/{name}/workflows/{workflow}/resume",
        "operator",
    ),
    ("GET", "/v1/schedules", "viewer"),
    (
        "GET",
        "/v1/applications/{name}/schedules/{schedule}",
        "viewer",
    ),
    (
        "POST",
        "/v1/applications/{name}/schedules/{schedule}/pause",
        "operator",
    ),
    (
        "POST",
        "/v1/applications/{name}/schedules/{schedule}/resume",
        "operator",
    ),
    (
        "POST",
        "/v1/applications/{name}/schedules/{schedule}/trigger",
        "operator",
    ),
    (
        "POST",
        "/v1/applications/{name}/schedules/{schedule}/backfill",
        "operator",
    ),
    ("GET", "/v1/activities", "viewer"),
    ("GET", "/v1/activities/{name}", "viewer"),
    ("POST", "/v1/activities/{name}/versions", "author"),
    ("GET", "/v1/activities/{name}/versions/{version}", "viewer"),
    ("PUT", "/v1/activities/{name}/versions/{version}", "author"),
    ("GET", "/v1/objects/{bucket}", "viewer"),
    ("GET", "/v1/objects/{bucket}/{*key}", "viewer"),
    ("PUT", "/v1/objects/{bucket}/{*key}", "author"),
    ("DELETE", "/v1/objects/{bucket}/{*key}", "author"),
    ("GET", "/v1/tenant", "viewer"),
    ("GET", "/v1/tenants", "server"),
    ("GET", "/v1/tenants/{id}", "server"),
    ("PUT", "/v1/tenants/{id}", "server"),
    ("PUT", "/v1/tenants/{id}/home", "server"),
    ("GET", "/v1/nodes", "server"),
    ("GET", "/v1/shards", "server"),
    ("GET", "/v1/replicas", "server"),
    ("GET", "/v1/keys", "admin"),
    ("POST", "/v1/keys", "admin"),
    ("DELETE", "/v1/keys/{id}", "admin"),
    ("GET", "/health", "none"),
    ("GET", "/ready", "none"),
    ("GET", "/metrics", "none"),
    ("GET", "/v1/openapi.json", "none"),
];

#[test]
fn every_route_is_documented() {
    let document = serde_json::to_value(openapi()).unwrap();
    let page = include_str!("../../../docs/http.md");
    let mut documented = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            assert!(
                operation["summary"].is_string(),
                "{method} {path} has a summary"
            );
            assert!(
                page.contains(&format!("`{method} {path}`")),
                "docs/http.md lacks {method} {path}"
            );
            let known = ROUTES
                .iter()
                .any(|route| (route.0, route.1) == (method.as_str(), path));
            assert!(known, "the table of this test lacks {method} {path}");
            documented += 1;
        }
    }
    assert_eq!(
        documented,
        ROUTES.len(),
        "each route of the table is in the document"
    );
    assert_eq!(
        document["components"]["securitySchemes"]["key"]["scheme"],
        "bearer"
    );
}

#[tokio::test]
async fn a_key_does_what_its_role_allows_and_no_more() {
    let roles = ["viewer", "operator", "author", "admin"];
    let server = Server::start().await;
    for (method, path, least) in ROUTES {
        let path = path
            .replace("{id}", "none")
            .replace("{name}", "none")
            .replace("{version}", "none")
            .replace("{bucket}", "none")
            // It could be written.
            .replace("{*key}", "none%00");
        let method: Method = method.parse().unwrap();
        // Nothing of what is asked for is there, so what is allowed does no harm.
        let ask = |key_id: &'static str| {
            answer(
                server
                    .request(key_id, method.clone(), &path)
                    .json(&json!({})),
            )
        };
        let anonymous = server
            .client
            .request(method.clone(), format!("{}{path}", server.base));
        let anonymous = answer(anonymous).await;
        if *least == "none" {
            assert_eq!(anonymous.status, StatusCode::OK, "{method} {path}");
            continue;
        }
        assert_eq!(anonymous.code(), "unauthenticated", "{method} {path}");
        for (rank, role) in roles.into_iter().enumerate() {
            let allowed = roles
                .iter()
                .position(|known| known == least)
                .is_some_and(|least| rank >= least);
            let code = ask(role).await.code();
            assert_eq!(
                code != "forbidden",
                allowed,
                "{method} {path} as {role}: {code}"
            );
        }
        let code = ask("server").await.code();
        assert!(
            code != "forbidden" && code != "unauthenticated",
            "{method} {path}: {code}"
        );
        if *least != "server" {
            assert_eq!(
                code, "invalid_request",
                "{method} {path}: the tenant must be named"
            );
        }
    }
}

#[tokio::test]
async fn a_problem_has_the_request_id_of_its_answer() {
    let server = Server::start().await;
    let path = "/v1/executions/none";
    for (given, kept) in [
        (None, false),
        (Some("trace-1.a_B".to_owned()), true),
        (Some("a b".to_owned()), false),
        (Some("<script>".to_owned()), false),
        (Some(String::new()), false),
        (Some("a".repeat(65)), false),
    ] {
        let mut request = server.request("viewer", Method::GET, path);
        if let Some(given) = &given {
            request = request.header("X-Request-Id", given);
        }
        let refused = answer(request).await;
        let id = refused.header("x-request-id").to_owned();
        assert_eq!(refused.json()["request_id"], json!(id));
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert_eq!(given.as_ref() == Some(&id), kept, "{given:?} became {id}");
        assert!(!id.is_empty());
    }
}

#[tokio::test]
async fn metrics_tell_routes_and_no_ids() {
    let server = Server::start().await;
    server.apply().await;
    let id = server.run("greet").await;
    server.get("viewer", &format!("/v1/executions/{id}")).await;
    let text = server.get("viewer", "/metrics").await.text;
    assert!(text.contains("route=\"/v1/executions/{id}\""), "{text}");
    let closed = "cascade_workflow_executions_total{status=\"completed\"}";
    assert!(text.contains(closed), "{text}");
    for name in [
        "cascade_workflow_active",
        "cascade_queue_depth",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(&format!("\n{name} ")), "{name}");
    }
    for secret in [id.as_str(), "acme", "greet"] {
        assert!(!text.contains(secret), "{secret} is no label");
    }
}

#[tokio::test]
async fn what_no_route_takes_is_a_problem_too() {
    let server = Server::start().await;
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", StatusCode::NOT_FOUND, "not_found"),
        (
            Method::DELETE,
            "/v1/executions",
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
        ),
        (
            Method::GET,
            "/v1/executions/",
            StatusCode::NOT_FOUND,
            "not_found",
        ),
    ] {
        let refused = answer(server.request("viewer", method, path)).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (status, code),
            "{path}"
        );
    }
    let body: Value = server.get("viewer", "/v1/openapi.json").await.json();
    assert_eq!(body["info"]["title"], "Cascade");
}
