//! `/v1/tenants` and `/v1/keys`: who may use the server.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cascade_cdl::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Problem, ProblemDocument};
use super::request::{Admin, Caller, Path, ServerCaller, Viewer, parse_json, read_body};
use super::{ApiState, json};
use crate::config::{Policy, TenantLimits, Weight};
use crate::store::{ApiKey, Home, Moved};
use crate::tenancy::{Role, Settings, Tenant};

/// Bodies with settings or the wish for a key: thousands of hosts fit.
const MAX_BODY: u64 = 256 << 10;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(own))
        .routes(routes!(list))
        .routes(routes!(show, put))
        .routes(routes!(move_to))
        .routes(routes!(keys, make_key))
        .routes(routes!(revoke))
}

/// A tenant.
#[derive(Serialize, ToSchema)]
struct TenantView {
    id: String,
    #[schema(value_type = Object)]
    limits: TenantLimits,
    #[schema(value_type = u32)]
    weight: Weight,
    #[schema(value_type = Object)]
    policy: Policy,
    /// Whether it stands in cascade.yaml, and can be changed there only.
    configured: bool,
    /// Where its rows are; absent in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<Home>,
}

#[derive(Serialize, ToSchema)]
struct TenantList {
    items: Vec<TenantView>,
}

/// A key; its text is shown when it is made, and never again.
#[derive(Serialize, ToSchema)]
struct KeyView {
    id: String,
    tenant: String,
    role: String,
    label: String,
    #[schema(value_type = u64)]
    created_at: Timestamp,
    /// The key itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct KeyList {
    items: Vec<KeyView>,
}

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    role: Role,
    /// For people.
    #[serde(default)]
    label: String,
}

/// Show the tenant that the key belongs to
#[utoipa::path(
    get, path = "/v1/tenant", tag = "tenants",
    responses((status = 200, body = TenantView))
)]
async fn own(caller: Caller<Viewer>) -> Response {
    json(StatusCode::OK, &view(&caller.tenant))
}

/// List tenants (key of the server)
#[utoipa::path(
    get, path = "/v1/tenants", tag = "tenants",
    responses((status = 200, body = TenantList))
)]
async fn list(State(state): State<ApiState>, _: ServerCaller) -> Response {
    let tenants = state.tenancy.tenants();
    let items = tenants.iter().map(|tenant| view(tenant)).collect();
    json(StatusCode::OK, &TenantList { items })
}

/// Show a tenant (key of the server)
#[utoipa::path(
    get, path = "/v1/tenants/{id}", tag = "tenants",
    params(("id" = String, Path, description = "The tenant's id")),
    responses(
        (status = 200, body = TenantView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn show(
    State(state): State<ApiState>,
    _: ServerCaller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("tenant");
    let id: TenantId = id.parse().map_err(|_| missing())?;
    let tenant = state.tenancy.look_for(&id).await?.ok_or_else(missing)?;
    let home = state.tenancy.home(&id).await?;
    let view = TenantView {
        home: Some(home),
        ..view(&tenant)
    };
    Ok(json(StatusCode::OK, &view))
}

/// Move a tenant's rows, while it is served (key of the server)
///
/// Into a schema of its own, which is made, or back into the shared tables. Answers when all is
/// moved, and goes on if nobody waits; asked for again, it takes up what was broken off.
#[utoipa::path(
    put, path = "/v1/tenants/{id}/home", tag = "tenants",
    params(("id" = String, Path, description = "The tenant's id")),
    request_body(content = Home, description = "Where its rows are to be"),
    responses(
        (status = 200, description = "They are there; what was moved", body = Moved),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (
            status = 409, body = ProblemDocument,
            description = "`conflict`: cascade.yaml names another schema, the schema is somebody \
                else's, or the store has no schemas",
        ),
    )
)]
async fn move_to(
    State(state): State<ApiState>,
    _: ServerCaller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id: TenantId = id.parse().map_err(|_| Problem::not_found("tenant"))?;
    let body = read_body(&state, request, MAX_BODY).await?;
    let to: Home = parse_json(&body)?;
    let moved = state.tenancy.move_to(id, to).await?;
    Ok(json(StatusCode::OK, &moved))
}

/// Make a tenant, or change one (key of the server)
///
/// What is left out takes its default. Takes effect at once, also for activities that are there.
#[utoipa::path(
    put, path = "/v1/tenants/{id}", tag = "tenants",
    params(("id" = String, Path, description = "The tenant's id")),
    request_body(content = Object, description = "`{limits?, weight?, policy?}` as in cascade.yaml"),
    responses(
        (status = 200, body = TenantView),
        (status = 409, description = "`conflict`: it stands in cascade.yaml", body = ProblemDocument),
        (status = 422, description = "`invalid_settings`", body = ProblemDocument),
    )
)]
async fn put(
    State(state): State<ApiState>,
    _: ServerCaller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id: TenantId = id.parse().map_err(Problem::from)?;
    let body = read_body(&state, request, MAX_BODY).await?;
    let settings: Settings = parse_json(&body)?;
    let tenant = state.tenancy.put(id, settings, state.clock.now()).await?;
    Ok(json(StatusCode::OK, &view(&tenant)))
}

/// List the tenant's keys that were made over HTTP
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys",
    responses((status = 200, body = KeyList))
)]
async fn keys(State(state): State<ApiState>, caller: Caller<Admin>) -> Result<Response, Problem> {
    let keys = state.tenancy.keys(&caller.tenant.id).await?;
    let items = keys.into_iter().map(|key| key_view(key, None)).collect();
    Ok(json(StatusCode::OK, &KeyList { items }))
}

/// Make a key for the tenant
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys",
    request_body = KeyBody,
    responses(
        (status = 201, description = "The key; it is not shown again", body = KeyView),
        (status = 422, description = "`invalid_settings`", body = ProblemDocument),
    )
)]
async fn make_key(
    State(state): State<ApiState>,
    caller: Caller<Admin>,
    request: Request,
) -> Result<Response, Problem> {
    let body = read_body(&state, request, MAX_BODY).await?;
    let KeyBody { role, label } = parse_json(&body)?;
    let made = state
        .tenancy
        .make_key(&caller.tenant.id, role, label, state.clock.now())
        .await?;
    Ok(json(
        StatusCode::CREATED,
        &key_view(made.key, Some(made.text)),
    ))
}

/// Revoke a key, at once
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys",
    params(("id" = String, Path, description = "The key's id")),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn revoke(
    State(state): State<ApiState>,
    caller: Caller<Admin>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    if state.tenancy.revoke(&caller.tenant.id, &id).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(Problem::not_found("key"))
    }
}

fn view(tenant: &Tenant) -> TenantView {
    TenantView {
        id: tenant.id.to_string(),
        limits: tenant.limits,
        weight: tenant.weight,
        policy: tenant.policy.clone(),
        configured: tenant.configured,
        home: None,
    }
}

fn key_view(key: ApiKey, text: Option<String>) -> KeyView {
    KeyView {
        id: key.id,
        tenant: key.tenant.to_string(),
        role: key.role,
        label: key.label,
        created_at: key.created_at,
        key: text,
    }
}
