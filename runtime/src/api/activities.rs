//! `/v1/activities`: modules, and what they can do.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use cascade_cdl::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Author, Caller, Path, Viewer, header, read_body};
use super::{ApiState, json};
use crate::catalog::{Activity, Manifest, PowerDiff};
use crate::sandbox::{Capability, Limits, ModuleInfo};

/// Carries the manifest, as JSON, beside the module in the body.
const MANIFEST_HEADER: &str = "cascade-manifest";

/// Longest manifest, in bytes: headers are held in memory before anything is known of the sender.
const MAX_MANIFEST: usize = 8 << 10;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(upload))
        .routes(routes!(show_version, upload_version))
}

/// One version of an activity.
#[derive(Serialize, ToSchema)]
struct ActivityView {
    name: String,
    /// `v1`, `v2`, ... or the name that the author gave.
    version: String,
    /// How workflows name it.
    resource: String,
    /// SHA-256 of the module.
    digest: String,
    /// Size of the module, in bytes.
    size: u64,
    /// `handler` or `command`.
    #[schema(value_type = String)]
    kind: crate::sandbox::ModuleKind,
    /// Whether the same input gives the same output and no effect.
    pure: bool,
    /// Capabilities that the module imports.
    #[schema(value_type = Vec<String>)]
    powers: Vec<Capability>,
    /// Those of them that policy and manifest both name.
    #[schema(value_type = Vec<String>)]
    granted: Vec<Capability>,
    /// Those of them that it does not get; using one fails.
    #[schema(value_type = Vec<String>)]
    denied: Vec<Capability>,
    imports: Vec<String>,
    exports: Vec<String>,
    #[schema(value_type = Object)]
    manifest: Manifest,
    /// What an attempt may use: the tenant's limits, lowered by the manifest.
    #[schema(value_type = Object)]
    limits: Limits,
    #[schema(value_type = u64)]
    created_at: Timestamp,
}

/// An activity with its versions.
#[derive(Serialize, ToSchema)]
struct ActivityDetail {
    /// The newest version.
    #[serde(flatten)]
    newest: ActivityView,
    /// All versions, oldest first.
    versions: Vec<VersionView>,
}

#[derive(Serialize, ToSchema)]
struct VersionView {
    version: String,
    digest: String,
    #[schema(value_type = u64)]
    created_at: Timestamp,
    /// What it can do more and less than the version before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    diff: Option<PowerDiff>,
}

#[derive(Serialize, ToSchema)]
struct ActivityList {
    /// The newest version of each, by name.
    items: Vec<ActivityView>,
}

/// What became of an upload.
#[derive(Serialize, ToSchema)]
struct UploadedView {
    #[serde(flatten)]
    activity: ActivityView,
    /// Whether this is a new version; the same module and manifest twice is one.
    created: bool,
    /// What it can do more and less than the version before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    diff: Option<PowerDiff>,
}

/// List activities
#[utoipa::path(
    get, path = "/v1/activities", tag = "activities",
    responses((status = 200, body = ActivityList))
)]
async fn list(State(state): State<ApiState>, caller: Caller<Viewer>) -> Result<Response, Problem> {
    let activities = state.catalog.activities(&caller.tenant.id);
    let items = activities.iter().map(|activity| view(activity)).collect();
    Ok(json(StatusCode::OK, &ActivityList { items }))
}

/// Show an activity and its versions
#[utoipa::path(
    get, path = "/v1/activities/{name}", tag = "activities",
    params(("name" = String, Path, description = "The activity's name")),
    responses(
        (status = 200, body = ActivityDetail),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn show(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (tenant, catalog) = (&caller.tenant.id, &state.catalog);
    let versions = catalog.find_versions(tenant, &name, None).await?;
    let newest = versions
        .last()
        .ok_or_else(|| Problem::not_found("activity"))?;
    let mut before: Option<&Arc<Activity>> = None;
    let list = versions.iter().map(|activity| VersionView {
        version: activity.version.to_string(),
        digest: activity.digest.to_string(),
        created_at: activity.created_at,
        diff: before
            .replace(activity)
            .map(|before| PowerDiff::between(before, activity)),
    });
    let detail = ActivityDetail {
        newest: view(newest),
        versions: list.collect(),
    };
    Ok(json(StatusCode::OK, &detail))
}

/// Show one version of an activity
#[utoipa::path(
    get, path = "/v1/activities/{name}/versions/{version}", tag = "activities",
    params(("name" = String, Path, description = "The activity's name"),
        ("version" = String, Path, description = "The version's name")),
    responses(
        (status = 200, body = ActivityView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn show_version(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (tenant, wanted) = (&caller.tenant.id, Some(version.as_str()));
    let versions = state.catalog.find_versions(tenant, &name, wanted).await?;
    let found = versions
        .iter()
        .find(|activity| *activity.version == *version);
    let found = found.ok_or_else(|| Problem::not_found("activity"))?;
    Ok(json(StatusCode::OK, &view(found)))
}

/// Upload a module as the next version of an activity
///
/// The body is the module itself, a component or a core module; the header
/// `Cascade-Manifest` carries the manifest as JSON. What is not ASCII in it is
/// written as `\uXXXX`. The same module and manifest as the newest version is no new one.
#[utoipa::path(
    post, path = "/v1/activities/{name}/versions", tag = "activities",
    params(("name" = String, Path, description = "The activity's name"),
        ("Cascade-Manifest" = Option<String>, Header, description = "The manifest, as JSON")),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 200, description = "It was there already", body = UploadedView),
        (status = 201, description = "A new version", body = UploadedView),
        (status = 413, description = "`too_large`", body = ProblemDocument),
        (status = 422, description = "`invalid_module` or `invalid_settings`", body = ProblemDocument),
        (status = 429, description = "`limit_reached`, or `busy`: too many uploads at a time", body = ProblemDocument),
    )
)]
async fn upload(
    State(state): State<ApiState>,
    caller: Caller<Author>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    take_in(&state, &caller, &name, None, request).await
}

/// Upload a module as a version with a name of its own
#[utoipa::path(
    put, path = "/v1/activities/{name}/versions/{version}", tag = "activities",
    params(("name" = String, Path, description = "The activity's name"),
        ("version" = String, Path, description = "The version's name; `v1`, `v2`, ... are given by the server"),
        ("Cascade-Manifest" = Option<String>, Header, description = "The manifest, as JSON")),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 200, description = "It was there already", body = UploadedView),
        (status = 201, description = "A new version", body = UploadedView),
        (status = 409, description = "`conflict`: the version is there, with another module or manifest", body = ProblemDocument),
        (status = 413, description = "`too_large`", body = ProblemDocument),
        (status = 422, description = "`invalid_module` or `invalid_settings`", body = ProblemDocument),
        (status = 429, description = "`limit_reached`, or `busy`: too many uploads at a time", body = ProblemDocument),
    )
)]
async fn upload_version(
    State(state): State<ApiState>,
    caller: Caller<Author>,
    Path((name, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    take_in(&state, &caller, &name, Some(&version), request).await
}

async fn take_in(
    state: &ApiState,
    caller: &Caller<Author>,
    name: &str,
    version: Option<&str>,
    request: Request,
) -> Result<Response, Problem> {
    let manifest = manifest(request.headers())?;
    // Before the body is read, since that is what takes the memory.
    let tenant = &caller.tenant.id;
    let patience = state.config.server.request_timeout;
    let place = state.uploads.take_within(tenant, patience).await;
    let _place =
        place.ok_or_else(|| Problem::new(Code::Busy, "too many modules are being uploaded"))?;
    let wasm = read_body(state, request, state.config.server.module_bytes).await?;
    let now = state.clock.now();
    let uploaded = state
        .catalog
        .upload(tenant, name, version, manifest, wasm, now)
        .await?;
    let status = if uploaded.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let answer = UploadedView {
        activity: view(&uploaded.activity),
        created: uploaded.created,
        diff: uploaded.diff,
    };
    Ok(json(status, &answer))
}

fn manifest(headers: &HeaderMap) -> Result<Manifest, Problem> {
    let Some(text) = header(headers, MANIFEST_HEADER)? else {
        return Ok(Manifest::default());
    };
    if text.len() > MAX_MANIFEST {
        let detail = format!("the manifest may have at most {MAX_MANIFEST} bytes");
        return Err(Problem::new(Code::TooLarge, detail));
    }
    serde_json::from_str(text)
        .map_err(|error| Problem::new(Code::InvalidSettings, format!("the manifest: {error}")))
}

fn view(activity: &Activity) -> ActivityView {
    let info: &ModuleInfo = &activity.info;
    ActivityView {
        name: activity.name.to_string(),
        version: activity.version.to_string(),
        resource: format!(
            "urn:cascade:activity:{}:{}",
            activity.name, activity.version
        ),
        digest: activity.digest.to_string(),
        size: info.size,
        kind: info.kind,
        pure: activity.pure,
        powers: info.powers.iter().copied().collect(),
        granted: activity.grants.capabilities.iter().copied().collect(),
        denied: activity.denied(),
        imports: info.imports.clone(),
        exports: info.exports.clone(),
        manifest: Manifest::clone(&activity.manifest),
        limits: activity.limits,
        created_at: activity.created_at,
    }
}
