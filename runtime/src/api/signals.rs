//! `/v1/executions/{id}/signals`: what programs tell an execution that waits for it.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use cascade_cdl::Json;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::executions::{self, ExecutionView};
use super::onward::Held;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Caller, Operator, Path, execution_id, idempotency_key, parse_json};
use crate::engine::Signal;
use crate::sandbox;

/// What a request may have beside the payload: a name of any length that one can have.
const SIGNAL_OVERHEAD: u64 = 4 << 10;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(signal))
}

/// A signal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignalBody {
    /// The `event` of the `EventTask` that waits for it.
    name: String,
    /// Any JSON, the output of the `EventTask`; `null` if absent.
    #[schema(value_type = Option<Object>)]
    payload: Option<Json>,
}

/// Send a signal to an execution
///
/// Returns when it is durable. One that comes before an `EventTask` waits for it
/// is kept until then. With the same `Idempotency-Key` it is delivered once.
#[utoipa::path(
    post, path = "/v1/executions/{id}/signals", tag = "executions",
    params(("id" = String, Path, description = "The execution's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the signal among the last hundred of this execution. At most 255 visible characters")),
    request_body = SignalBody,
    responses(
        (status = 200, description = "It was delivered, now or before: how the execution stands", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`already_closed`, or `key_reused`: the key was used for another signal", body = ProblemDocument),
        (status = 413, description = "`too_large`", body = ProblemDocument),
        (status = 422, description = "`unknown_signal`: no `EventTask` of the workflow has this name", body = ProblemDocument),
        (status = 429, description = "`inbox_full`: nobody waits for it, and too many wait already; or `busy`", body = ProblemDocument),
    )
)]
async fn signal(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let idempotency_key = idempotency_key(request.headers())?;
    let limit = caller.tenant.limits.input_bytes;
    let (state, tenant) = (&state, &caller.tenant.id);
    let held = Held::read(state, request, limit.saturating_add(SIGNAL_OVERHEAD)).await?;
    let serve = async |body: Bytes| {
        let body: SignalBody = parse_json(&body)?;
        let signal = Signal {
            name: body.name,
            payload: payload("payload", body.payload)?,
            idempotency_key: idempotency_key.clone(),
        };
        state.engine.signal(tenant, id, signal).await?;
        executions::stand(state, tenant, id).await
    };
    held.serve(state, serve).await
}

/// What goes into an execution from outside; `null` if absent.
pub(super) fn payload(what: &str, given: Option<Json>) -> Result<Json, Problem> {
    let Some(given) = given else {
        return Ok(Json::from_value(&serde_json::Value::Null));
    };
    sandbox::check_json(given.as_str())
        .map_err(|why| Problem::new(Code::InvalidRequest, format!("`{what}` {why}")))?;
    Ok(given)
}
