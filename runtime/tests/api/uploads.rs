//! Uploads of activities.

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::attacks::raw;
use crate::support::{Answer, Server, answer, key};

/// A WASI command that does nothing; the number makes it another module.
fn command(number: u32) -> Vec<u8> {
    let text = format!(
        "(module
           (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
           (memory (export \"memory\") 1)
           (func (export \"_start\") (call $exit (i32.const {number}))))"
    );
    wat::parse_str(text).unwrap()
}

impl Server {
    async fn upload(&self, path: &str, manifest: &str, wasm: Vec<u8>) -> Answer {
        let method = if path.ends_with("/versions") {
            Method::POST
        } else {
            Method::PUT
        };
        let request = self
            .request("author", method, path)
            .header("Cascade-Manifest", manifest);
        answer(request.body(wasm)).await
    }
}

#[tokio::test]
async fn a_module_becomes_a_version_once() {
    let server = Server::start().await;
    let path = "/v1/activities/greeter/versions";
    let first = server.upload(path, "{}", command(1)).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let told = first.json();
    assert_eq!(told["version"], "v1");
    assert_eq!(told["resource"], "urn:cascade:activity:greeter:v1");
    assert_eq!((&told["pure"], &told["powers"]), (&json!(true), &json!([])));
    assert_eq!(told["kind"], "command");
    let again = server.upload(path, "{}", command(1)).await;
    assert_eq!(
        (again.status, again.json()["version"].clone()),
        (StatusCode::OK, json!("v1"))
    );
    // Another module, another manifest: each is a new version.
    let manifest = r#"{"limits": {"memory_bytes": "1MiB"}}"#;
    assert_eq!(
        server.upload(path, "{}", command(2)).await.json()["version"],
        "v2"
    );
    let third = server.upload(path, manifest, command(2)).await.json();
    assert_eq!(third["version"], "v3");
    assert_eq!(third["limits"]["memory_bytes"], 1 << 20);
    assert_eq!(
        (
            &third["diff"]["predecessor"],
            &third["diff"]["module_changed"]
        ),
        (&json!("v2"), &json!(false))
    );
    let shown = server.get("viewer", "/v1/activities/greeter").await.json();
    assert_eq!(shown["version"], "v3");
    assert_eq!(shown["versions"].as_array().unwrap().len(), 3);
    assert_eq!(
        server.get("viewer", "/v1/activities").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// Each is told to go on once it has a place, and then holds it until it is
/// given up.
#[tokio::test]
async fn a_tenant_that_dawdles_with_its_uploads_leaves_places_to_others() {
    let server = Server::start().await;
    let head = format!(
        "POST /v1/activities/slow/versions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        key("author")
    );
    let answers = join_all((0..4).map(|_| raw(&server, head.as_bytes()))).await;
    let (went_on, refused): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| answer.starts_with("HTTP/1.1 100"));
    assert!(!went_on.is_empty() && !refused.is_empty(), "{answers:?}");
    for answer in refused {
        assert!(answer.contains("\"busy\""), "{answer}");
    }
}

#[tokio::test]
async fn a_named_version_does_not_change() {
    let server = Server::start().await;
    let path = "/v1/activities/greeter/versions/1.4.0";
    assert_eq!(
        server.upload(path, "{}", command(1)).await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        server.upload(path, "{}", command(1)).await.status,
        StatusCode::OK
    );
    assert_eq!(
        server.upload(path, "{}", command(2)).await.code(),
        "conflict"
    );
    assert_eq!(server.get("viewer", path).await.json()["version"], "1.4.0");
    let counted = server
        .upload("/v1/activities/greeter/versions/v7", "{}", command(2))
        .await;
    assert_eq!(counted.code(), "invalid_request");
}

#[tokio::test]
async fn an_upload_that_becomes_no_version_leaves_nothing_on_disk() {
    let server = Server::start().await;
    let path = "/v1/activities/greeter/versions/1.4.0";
    let folder = server.data.path().join("artifacts/acme");
    let artifacts = || std::fs::read_dir(&folder).unwrap().count();
    let created = server.upload(path, "{}", command(1)).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    for number in 2..5 {
        let refused = server.upload(path, "{}", command(number)).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
        assert_eq!(artifacts(), 1);
    }
    // A module that another activity has stays, whatever else it is refused for.
    let other = "/v1/activities/other/versions/1.0.0";
    server.upload(other, "{}", command(2)).await;
    let refused = server.upload(path, "{}", command(2)).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    assert_eq!(artifacts(), 2);
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_the_reason() {
    let server = Server::start().await;
    let path = "/v1/activities/greeter/versions";
    let truncated = command(1)[..20].to_vec();
    let imports =
        wat::parse_str("(module (import \"env\" \"system\" (func)) (func (export \"_start\")))")
            .unwrap();
    for (wasm, code) in [
        (Vec::new(), "invalid_module"),
        (b"#!/bin/sh\n".to_vec(), "invalid_module"),
        (b"\x7fELF\x02\x01\x01\0".to_vec(), "invalid_module"),
        (truncated, "invalid_module"),
        (imports, "invalid_module"),
        (vec![0; (1 << 20) + 1], "too_large"),
    ] {
        let refused = server.upload(path, "{}", wasm).await;
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    for manifest in [
        "",
        "{",
        "{\"capabilities\":[\"root\"]}",
        "{\"x\":1}",
        "{\"http\":{\"hosts\":[\"a.example\"]}}",
    ] {
        let refused = server.upload(path, manifest, command(1)).await;
        assert_eq!(
            refused.code(),
            "invalid_settings",
            "{manifest}: {refused:?}"
        );
    }
    let long = format!("{{\"description\":\"{}\"}}", "a".repeat(9_000));
    assert_eq!(
        server.upload(path, &long, command(1)).await.code(),
        "too_large"
    );
    assert_eq!(
        server
            .get("viewer", path.trim_end_matches("/versions"))
            .await
            .code(),
        "not_found"
    );
}
