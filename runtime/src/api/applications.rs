//! `/v1/validate` and `/v1/applications`: CDL files.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cascade_cdl::diagnostic::Diagnostic;
use cascade_cdl::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Author, Caller, Path, Query, Viewer, header, read_body};
use super::workflows::PauseView;
use super::{Api, ApiState, json};
use crate::catalog::{self, ApplicationEntry, Precondition};
use crate::change::to_its_end;

/// Longest file name in diagnostics, in bytes.
const MAX_FILE_NAME: usize = 255;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(validate))
        .routes(routes!(list))
        .routes(routes!(show, apply))
        .routes(routes!(source))
}

/// What is wrong or doubtful in a file.
#[derive(Serialize, ToSchema)]
struct Validation {
    /// Whether it could be applied.
    valid: bool,
    #[schema(value_type = Vec<Object>)]
    diagnostics: Vec<Diagnostic>,
    /// How many more diagnostics there would be.
    omitted: usize,
    /// Resources that it names and nobody has uploaded.
    missing_activities: Vec<String>,
}

/// What became of an application.
#[derive(Serialize, ToSchema)]
struct AppliedView {
    name: String,
    version: u32,
    etag: String,
    /// Whether this is a new version; the same source twice is one.
    created: bool,
    /// Warnings.
    #[schema(value_type = Vec<Object>)]
    diagnostics: Vec<Diagnostic>,
    /// Resources that it names and nobody has uploaded.
    missing_activities: Vec<String>,
}

/// An application in force.
#[derive(Serialize, ToSchema)]
struct ApplicationView {
    name: String,
    namespace: String,
    version: u32,
    etag: String,
    /// Name of the file that it came from.
    file: String,
    #[schema(value_type = u64)]
    created_at: Timestamp,
    labels: std::collections::BTreeMap<String, String>,
    annotations: std::collections::BTreeMap<String, String>,
    workflows: Vec<WorkflowView>,
}

#[derive(Serialize, ToSchema)]
struct WorkflowView {
    name: String,
    /// Its states, those of branches included, in order.
    states: Vec<String>,
    /// There if nothing new of it is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PauseView>,
}

#[derive(Serialize, ToSchema)]
struct ApplicationList {
    items: Vec<ApplicationView>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FileQuery {
    /// The file's name, for diagnostics.
    file: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SourceQuery {
    /// Which version; the newest if absent.
    version: Option<u32>,
}

/// Check a CDL file
#[utoipa::path(
    post, path = "/v1/validate", tag = "applications",
    params(FileQuery),
    request_body(content = String, content_type = "application/yaml"),
    responses(
        (status = 200, description = "The diagnostics, whether or not it is valid", body = Validation),
        (status = 429, description = "`busy`: too many files are being compiled", body = ProblemDocument),
    )
)]
async fn validate(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Query(query): Query<FileQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let file = file_name(query.file, "application")?;
    let source = read_body(&state, request, cascade_cdl::MAX_FILE_BYTES as u64).await?;
    let tenant = &caller.tenant.id;
    let parsed = state.catalog.parse(tenant, &file, source).await?;
    let application = parsed.application.as_ref();
    let missing =
        application.map(|application| state.catalog.missing_activities(tenant, application));
    let validation = Validation {
        valid: parsed.application.is_some(),
        diagnostics: parsed.diagnostics,
        omitted: parsed.omitted,
        missing_activities: texts(&missing.unwrap_or_default()),
    };
    Ok(json(StatusCode::OK, &validation))
}

/// Put an application in force
///
/// The body is the CDL file. Executions that run go on with the version that
/// they run, until they are moved (`migrate`). The same source twice is one version.
#[utoipa::path(
    put, path = "/v1/applications/{name}", tag = "applications",
    params(("name" = String, Path, description = "The application's name"), FileQuery,
        ("If-Match" = Option<String>, Header, description = "Only if one of these etags is that of the newest version"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    request_body(content = String, content_type = "application/yaml"),
    responses(
        (status = 200, description = "It was in force already", body = AppliedView),
        (status = 201, description = "A new version", body = AppliedView),
        (status = 412, description = "`precondition_failed`", body = ProblemDocument),
        (status = 422, description = "`invalid_application`, with the diagnostics in `errors`", body = ProblemDocument),
        (status = 429, description = "`limit_reached`, or `busy`: too many files are being compiled", body = ProblemDocument),
    )
)]
async fn apply(
    State(state): State<ApiState>,
    caller: Caller<Author>,
    Path(name): Path<String>,
    Query(query): Query<FileQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let precondition = precondition(request.headers())?;
    let file = file_name(query.file, &name)?;
    let source = read_body(&state, request, cascade_cdl::MAX_FILE_BYTES as u64).await?;
    let tenant = &caller.tenant.id;
    let now = state.clock.now();
    let applied = to_its_end({
        let (state, tenant) = (state.clone(), tenant.clone());
        async move {
            let catalog = &state.catalog;
            let applied = catalog.apply(&tenant, &name, &file, source, &precondition, now);
            let applied = applied.await?;
            // What is in force now, which may be newer.
            if let Some(entry) = catalog.application(&tenant, &applied.name) {
                state.schedules.applied(entry.schedules(&tenant)).await;
            }
            Ok::<_, catalog::Error>(applied)
        }
    })
    .await?;
    let status = if applied.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let view = AppliedView {
        name: applied.name,
        version: applied.version,
        etag: applied.etag.clone(),
        created: applied.created,
        diagnostics: applied.diagnostics,
        missing_activities: texts(&applied.missing_activities),
    };
    Ok(with_etag(json(status, &view), &applied.etag))
}

/// List applications
#[utoipa::path(
    get, path = "/v1/applications", tag = "applications",
    responses((status = 200, body = ApplicationList))
)]
async fn list(State(state): State<ApiState>, caller: Caller<Viewer>) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    let entries = state.catalog.applications(tenant);
    let items = entries.iter().map(|entry| view(&state, tenant, entry));
    let items = items.collect();
    Ok(json(StatusCode::OK, &ApplicationList { items }))
}

/// Show an application
#[utoipa::path(
    get, path = "/v1/applications/{name}", tag = "applications",
    params(("name" = String, Path, description = "The application's name")),
    responses(
        (status = 200, body = ApplicationView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn show(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    let entry = state.catalog.find_application(tenant, &name).await?;
    let entry = entry.ok_or_else(|| Problem::not_found("application"))?;
    let shown = view(&state, tenant, &entry);
    Ok(with_etag(json(StatusCode::OK, &shown), &entry.etag))
}

/// Show an application's source
#[utoipa::path(
    get, path = "/v1/applications/{name}/source", tag = "applications",
    params(("name" = String, Path, description = "The application's name"), SourceQuery),
    responses(
        (status = 200, description = "The CDL file", content_type = "application/yaml", body = String),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn source(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path(name): Path<String>,
    Query(query): Query<SourceQuery>,
) -> Result<Response, Problem> {
    let found = state
        .store
        .application(&caller.tenant.id, &name, query.version)
        .await?;
    let found = found.ok_or_else(|| Problem::not_found("application"))?;
    let etag = catalog::etag(found.version, &found.source);
    let kind = HeaderValue::from_static("application/yaml");
    let response = ([(header::CONTENT_TYPE, kind)], found.source).into_response();
    Ok(with_etag(response, &etag))
}

fn view(state: &Api, tenant: &TenantId, entry: &ApplicationEntry) -> ApplicationView {
    let application = &entry.compiled;
    let workflows = application.workflows.values().map(|program| WorkflowView {
        name: program.name.clone(),
        states: program
            .states
            .iter()
            .map(|state| state.name.to_string())
            .collect(),
        paused: state
            .catalog
            .paused(tenant, &application.name, &program.name)
            .map(|paused| PauseView::of(&paused)),
    });
    ApplicationView {
        name: application.name.clone(),
        namespace: application.namespace.clone(),
        version: entry.version,
        etag: entry.etag.clone(),
        file: entry.file.to_string(),
        created_at: entry.created_at,
        labels: application.labels.clone(),
        annotations: application.annotations.clone(),
        workflows: workflows.collect(),
    }
}

/// The name under which diagnostics show a file; a shorthand is named after it.
pub(super) fn file_name(given: Option<String>, name: &str) -> Result<String, Problem> {
    let file = given.unwrap_or_else(|| format!("{name}.yaml"));
    if file.is_empty() || file.len() > MAX_FILE_NAME || file.chars().any(char::is_control) {
        let detail =
            format!("`file` must have 1 to {MAX_FILE_NAME} bytes and no control characters");
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    Ok(file)
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let invalid = |detail: &str| Problem::new(Code::InvalidRequest, detail);
    match (
        header(headers, "if-match")?,
        header(headers, "if-none-match")?,
    ) {
        (None, None) => Ok(Precondition::None),
        (Some(text), None) if text.trim() == "*" => Ok(Precondition::Matches(Vec::new())),
        (Some(text), None) => {
            let etags: Vec<String> = text.split(',').map(|etag| etag.trim().to_owned()).collect();
            // A weak etag never matches here (RFC 9110, 13.1.1).
            if etags.iter().any(|etag| etag.is_empty() || etag == "*") {
                return Err(invalid("`If-Match` must be `*` or a list of etags"));
            }
            Ok(Precondition::Matches(etags))
        }
        (None, Some(text)) if text.trim() == "*" => Ok(Precondition::Absent),
        (None, Some(_)) => Err(invalid("`If-None-Match` must be `*` here")),
        (Some(_), Some(_)) => Err(invalid("`If-Match` and `If-None-Match` exclude each other")),
    }
}

fn with_etag(mut response: Response, etag: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

fn texts(resources: &[cascade_cdl::program::Resource]) -> Vec<String> {
    resources.iter().map(ToString::to_string).collect()
}
