//! `/v1/tasks/{token}`: how a task went whose activity passed its token on, as
//! `SendTaskSuccess`, `SendTaskFailure` and `SendTaskHeartbeat` tell it.

use axum::extract::{Request, State};
use axum::response::Response;
use cascade_cdl::{Callback, Json, TaskToken};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::executions::{self, ExecutionView};
use super::onward::Held;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Caller, Operator, Path, parse_json};
use super::{ApiState, signals};

/// What a request may have beside the output.
const CALLBACK_OVERHEAD: u64 = 4 << 10;

/// Longest `error` and `cause`, in characters: the limits of
/// [`SendTaskFailure`](https://docs.aws.amazon.com/step-functions/latest/apireference/API_SendTaskFailure.html).
const MAX_ERROR: usize = 256;
const MAX_CAUSE: usize = 32_768;

/// What matches every error of a task: who gives none means any.
const ANY_ERROR: &str = "States.TaskFailed";

/// A cause of that length, each character escaped.
const MAX_FAILURE_BYTES: u64 = 256 << 10;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(succeed))
        .routes(routes!(fail))
        .routes(routes!(heartbeat))
}

/// That a task is done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SuccessBody {
    /// Any JSON, the result of the state; `null` if absent.
    #[schema(value_type = Option<Object>)]
    output: Option<Json>,
}

/// That a task failed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FailureBody {
    /// The error's name, as `Retry` and `Catch` match it; `States.TaskFailed` if absent.
    /// At most 256 characters.
    error: Option<String>,
    /// For people. At most 32,768 characters.
    cause: Option<String>,
}

/// Tell that a task is done
///
/// Returns when that is durable. The same again is the same; anything else comes too late.
#[utoipa::path(
    post, path = "/v1/tasks/{token}/succeed", tag = "executions",
    params(("token" = String, Path, description = "The token, `$$.Task.Token`")),
    request_body = SuccessBody,
    responses(
        (status = 200, description = "It was taken, now or before: how the execution stands", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`not_asked`: told otherwise before, or its time was up", body = ProblemDocument),
        (status = 413, description = "`too_large`", body = ProblemDocument),
        (status = 429, description = "`busy`", body = ProblemDocument),
    )
)]
async fn succeed(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let token = parse(&token)?;
    let limit = caller.tenant.limits.input_bytes;
    let held = Held::read(&state, request, limit.saturating_add(CALLBACK_OVERHEAD)).await?;
    let body: SuccessBody = parse_json(&held.body)?;
    let output = signals::payload("output", body.output)?;
    tell(&state, &caller, held, token, Callback::Succeeded { output }).await
}

/// Tell that a task failed
///
/// Returns when that is durable. The same again is the same; anything else comes too late.
#[utoipa::path(
    post, path = "/v1/tasks/{token}/fail", tag = "executions",
    params(("token" = String, Path, description = "The token, `$$.Task.Token`")),
    request_body = FailureBody,
    responses(
        (status = 200, description = "It was taken, now or before: how the execution stands", body = ExecutionView),
        (status = 400, description = "`invalid_request`: `error` or `cause` is too long", body = ProblemDocument),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`not_asked`: told otherwise before, or its time was up", body = ProblemDocument),
        (status = 429, description = "`busy`", body = ProblemDocument),
    )
)]
async fn fail(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let token = parse(&token)?;
    let held = Held::read(&state, request, MAX_FAILURE_BYTES).await?;
    let body: FailureBody = parse_json(&held.body)?;
    let error = bounded("error", body.error, MAX_ERROR)?;
    let error = error.unwrap_or_else(|| ANY_ERROR.to_owned());
    let cause = bounded("cause", body.cause, MAX_CAUSE)?.unwrap_or_default();
    let callback = Callback::Failed { error, cause };
    tell(&state, &caller, held, token, callback).await
}

/// Tell that a task goes on
///
/// Moves the end of `HeartbeatSeconds`. Does nothing where the state has none.
#[utoipa::path(
    post, path = "/v1/tasks/{token}/heartbeat", tag = "executions",
    params(("token" = String, Path, description = "The token, `$$.Task.Token`")),
    responses(
        (status = 200, description = "It was taken: how the execution stands", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`not_asked`: nobody waits for this task any more", body = ProblemDocument),
        (status = 429, description = "`busy`", body = ProblemDocument),
    )
)]
async fn heartbeat(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (token, held) = (parse(&token)?, Held::bare(&state, &request));
    tell(&state, &caller, held, token, Callback::Heartbeat {}).await
}

async fn tell(
    state: &ApiState,
    caller: &Caller<Operator>,
    held: Held,
    token: TaskToken,
    callback: Callback,
) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    let serve = async |_| {
        let told = state.engine.callback(tenant, token, callback.clone());
        told.await?;
        executions::stand(state, tenant, token.execution).await
    };
    held.serve(state, serve).await
}

/// What is no token gets the answer of one of an execution that is not there.
fn parse(text: &str) -> Result<TaskToken, Problem> {
    text.parse().map_err(|_| Problem::not_found("task"))
}

fn bounded(what: &str, text: Option<String>, most: usize) -> Result<Option<String>, Problem> {
    if text
        .as_ref()
        .is_some_and(|text| text.chars().count() > most)
    {
        let detail = format!("`{what}` must have at most {most} characters");
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    Ok(text)
}
