//! How the server itself is: health, readiness, metrics, the `OpenAPI` document.
//!
//! These need no key. Metrics tell of no tenant: ids are never labels.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Code, Problem, ProblemDocument};
use super::{ApiState, json};
use crate::store::Replicas;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .routes(routes!(document))
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/health", tag = "system", security(()),
    responses((status = 200, description = "It does"))
)]
async fn health() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

/// Whether the server takes requests
#[utoipa::path(
    get, path = "/ready", tag = "system", security(()),
    responses(
        (status = 200, description = "It does"),
        (status = 503, description = "It stops, its store does not answer, or does not tell what other servers change", body = ProblemDocument),
    )
)]
async fn ready(State(state): State<ApiState>) -> Result<Response, Problem> {
    if state.stopping.is_cancelled() {
        return Err(Problem::new(Code::Unavailable, "the server stops"));
    }
    state.store.ping().await?;
    if state.tenancy.doubts_keys() {
        let detail = "what other servers change does not get here";
        return Err(Problem::new(Code::Unavailable, detail));
    }
    Ok(json(
        StatusCode::OK,
        &serde_json::json!({ "status": "ready" }),
    ))
}

/// Metrics, in Prometheus' text format
#[utoipa::path(
    get, path = "/metrics", tag = "system", security(()),
    responses((status = 200, description = "The metrics", content_type = "text/plain", body = String))
)]
async fn metrics(State(state): State<ApiState>) -> Response {
    let replicas = state.store.replicas();
    let replicas = replicas.map(Replicas::standings);
    let text = state.telemetry.render(
        state.engine.stats(),
        state.store.counters(),
        &replicas.unwrap_or_default(),
    );
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// This document
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "system", security(()),
    responses((status = 200, description = "The OpenAPI document", body = Object))
)]
async fn document() -> Response {
    json(StatusCode::OK, &super::openapi())
}
