//! `/v1/applications/{name}/workflows/{workflow}`: pause and resume a workflow.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::executions::{ReasonBody, read_reason};
use super::problem::{Problem, ProblemDocument};
use super::request::{Caller, Operator, Path};
use super::{ApiState, json};
use crate::store::PausedWorkflow;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// Since when and why nothing new of a workflow is started.
#[derive(Serialize, ToSchema)]
pub(super) struct PauseView {
    at: u64,
    reason: String,
}

impl PauseView {
    pub(super) fn of(paused: &PausedWorkflow) -> Self {
        Self {
            at: paused.paused_at.0,
            reason: paused.reason.clone(),
        }
    }
}

/// Whether a workflow can be started.
#[derive(Serialize, ToSchema)]
struct WorkflowState {
    application: String,
    workflow: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PauseView>,
}

/// Let nothing new of a workflow be started
///
/// Starts are refused with `workflow_paused`; executions that run go on, and a Task
/// that runs the workflow as a child waits. It holds for versions to come. One that
/// is paused stays so.
#[utoipa::path(
    post, path = "/v1/applications/{name}/workflows/{workflow}/pause", tag = "applications",
    params(("name" = String, Path, description = "The application's name"),
        ("workflow" = String, Path, description = "The workflow's name")),
    request_body = ReasonBody,
    responses(
        (status = 200, description = "It is paused, now or before", body = WorkflowState),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 429, description = "`limit_reached`: too many are paused", body = ProblemDocument),
    )
)]
async fn pause(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path((name, workflow)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let reason = read_reason(&state, request).await?;
    let pause = PausedWorkflow {
        application: name.clone(),
        workflow: workflow.clone(),
        reason,
        paused_at: state.clock.now(),
    };
    let paused = state.catalog.pause(&caller.tenant.id, pause).await?;
    let view = WorkflowState {
        application: name,
        workflow,
        paused: Some(PauseView::of(&paused)),
    };
    Ok(json(StatusCode::OK, &view))
}

/// Let a paused workflow be started again
#[utoipa::path(
    post, path = "/v1/applications/{name}/workflows/{workflow}/resume", tag = "applications",
    params(("name" = String, Path, description = "The application's name"),
        ("workflow" = String, Path, description = "The workflow's name")),
    responses(
        (status = 200, description = "It can be started, now or before", body = WorkflowState),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn resume(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path((name, workflow)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    state.catalog.resume(tenant, &name, &workflow).await?;
    let view = WorkflowState {
        application: name,
        workflow,
        paused: None,
    };
    Ok(json(StatusCode::OK, &view))
}
