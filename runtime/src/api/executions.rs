//! `/v1/executions`: start, show, cancel, retry, pause, resume. Lists are in `search`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use cascade_cdl::program::{Priority, Program, StateKind};
use cascade_cdl::schedule::Scheduled;
use cascade_cdl::tags::check_labels;
use cascade_cdl::{
    Execution, ExecutionId, Failure, Frame, Json, Paused, Status, Step, TaskId, TaskToken,
    TenantId, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::onward::{self, Held};
use super::position::Reads;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{
    Caller, Operator, Path, Query, Viewer, execution_id, idempotency_key, parse_json, read_body,
    wait,
};
use super::{Api, ApiState, json};
use crate::engine::{Closed, Standing, Start, Started, View, path};
use crate::sandbox;
use crate::store::{StatusName, Summary};

/// What a request to start may have beside its input.
const START_OVERHEAD: u64 = 64 << 10;

/// Longest reason for a cancellation or a pause, in bytes: it goes into the history.
const MAX_REASON: usize = 1_000;

/// Bodies of requests with a reason.
const MAX_REASON_BODY: u64 = 16 << 10;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(show))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// What to start.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StartBody {
    application: String,
    workflow: String,
    /// Any JSON; `{}` if absent.
    #[schema(value_type = Option<Object>)]
    input: Option<Json>,
    /// The execution's id, a UUID, if the client chooses it.
    #[schema(value_type = Option<String>)]
    id: Option<ExecutionId>,
    /// How urgent it is among the tenant's own: 1, the most, to 5; as the workflow says if absent.
    #[schema(value_type = Option<u8>, minimum = 1, maximum = 5)]
    priority: Option<Priority>,
    /// What it is found by: at most 16 names of up to 63 characters, with texts of up to 256 bytes.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// How an execution stands.
#[derive(Serialize, ToSchema)]
pub(super) struct ExecutionView {
    #[schema(value_type = String)]
    id: ExecutionId,
    application: String,
    /// The version that it runs.
    application_version: u32,
    /// The version that it was started with, if it has been moved to another since.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_version: Option<u32>,
    workflow: String,
    /// What it is placed by, if not by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_key: Option<String>,
    #[schema(value_type = String, example = "completed")]
    status: StatusName,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    input: Option<Json>,
    /// Of a completed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    output: Option<Json>,
    /// Of one that ended otherwise: `{error, message, state?, details?}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    error: Option<Failure>,
    #[schema(value_type = u64)]
    started_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    closed_at: Option<Timestamp>,
    /// Since when and why nothing new begins, if it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    paused: Option<Paused>,
    /// When it must next be woken, if it waits for time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    wake_at: Option<Timestamp>,
    /// The execution whose child it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    parent: Option<ExecutionId>,
    /// The schedule that started it, and the time that it is about: `{name, at}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    schedule: Option<Scheduled>,
    /// How urgent it is, 1 the most, if anybody said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u8>)]
    priority: Option<Priority>,
    /// As given at its start.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// What its workflow says of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    attributes: BTreeMap<String, Value>,
    /// Length of its history.
    events: u64,
    /// The states that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_states: Option<Vec<OpenState>>,
    /// Its context, if asked for and while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    context: Option<Value>,
}

/// A state that an execution is in.
#[derive(Serialize, ToSchema)]
struct OpenState {
    /// The Parallel states and branches around it, as in `Checks/us`; empty at the top.
    path: String,
    state: String,
    /// `activity`, `backing_off`, `waiting`, `listening`, `asking`, `calling`, `joining`,
    /// `held` (to be entered when the execution is resumed) or `stopped`.
    step: &'static str,
    /// The signal that it listens for.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    /// Who is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    assignee: Option<String>,
    /// The token with which the outcome is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// The rate of the state, as in `10/s`, if the attempt waits until that allows another.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for_rate: Option<String>,
    /// When the attempt was scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    scheduled_at: Option<Timestamp>,
    /// When the pause or the wait ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    until: Option<Timestamp>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StartQuery {
    /// Wait so long for the end: `30s`. The header `Prefer: wait=30` does the same.
    wait: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowQuery {
    /// Wait so long for the end: `30s`. The header `Prefer: wait=30` does the same.
    wait: Option<String>,
    /// Show the context, too, while it runs.
    #[serde(default)]
    context: bool,
}

/// Why to cancel, or to pause.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonBody {
    /// At most 1000 bytes; of an execution it goes into the history.
    #[serde(default)]
    reason: String,
}

/// Start an execution
///
/// Returns when the start is durable; with `wait`, when the execution has
/// ended or the time is up. The same `Idempotency-Key`, or the same `id`, never starts two.
#[utoipa::path(
    post, path = "/v1/executions", tag = "executions",
    params(StartQuery, ("Idempotency-Key" = Option<String>, Header, description = "Names the execution: the same key starts one only. At most 255 visible characters")),
    request_body = StartBody,
    responses(
        (status = 200, description = "It has ended", body = ExecutionView),
        (status = 202, description = "It runs", body = ExecutionView),
        (status = 409, description = "`key_reused`: the key or id was used for another request; `workflow_paused`: nothing new of the workflow is started", body = ProblemDocument),
        (status = 413, description = "`too_large`", body = ProblemDocument),
        (status = 422, description = "`unknown_workflow`; `invalid_input`: it does not fit the workflow's schema, and `errors` say where", body = ProblemDocument),
        (status = 429, description = "`busy`, `limit_reached` or `rate_limited`", body = ProblemDocument),
    )
)]
async fn start(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Query(query): Query<StartQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let patience = wait(&state, query.wait.as_deref(), request.headers())?;
    let idempotency_key = idempotency_key(request.headers())?;
    let limit = caller
        .tenant
        .limits
        .input_bytes
        .saturating_add(START_OVERHEAD);
    let held = Held::read(&state, request, limit).await?;
    let start = start_of(&held.body, caller.tenant.id.clone(), idempotency_key)?;
    let serve = |_| begin(&state, start.clone(), patience);
    held.serve(&state, serve).await
}

/// The start that a body asks for.
fn start_of(
    body: &[u8],
    tenant: TenantId,
    idempotency_key: Option<String>,
) -> Result<Start, Problem> {
    let body: StartBody = parse_json(body)?;
    check_labels(&body.labels)
        .map_err(|why| Problem::new(Code::InvalidRequest, format!("`labels`: {why}")))?;
    let input = match body.input {
        Some(input) => {
            sandbox::check_json(input.as_str())
                .map_err(|why| Problem::new(Code::InvalidRequest, format!("the input {why}")))?;
            input
        }
        None => Json::from_value(&Value::Object(serde_json::Map::new())),
    };
    Ok(Start {
        tenant,
        application: body.application.into(),
        workflow: body.workflow.into(),
        input,
        id: body.id,
        idempotency_key,
        parent: None,
        schedule: None,
        priority: body.priority,
        labels: body.labels,
        version: None,
    })
}

/// Starts an execution and waits for its end, if somebody asks for that.
async fn begin(state: &Api, start: Start, patience: Option<Duration>) -> Result<Response, Problem> {
    let tenant = start.tenant.clone();
    let (application, workflow) = (start.application.clone(), start.workflow.clone());
    let (started, closed) = match patience {
        Some(patience) => {
            let enough = until_late(state, patience);
            state.engine.start_and_wait_until(start, enough).await?
        }
        None => (state.engine.start(start).await?, None),
    };
    let view = if started.created || closed.is_some() {
        ExecutionView::of_start(&application, &workflow, started, closed)
    } else {
        let summary = state.store.summary(&tenant, started.id).await?;
        ExecutionView::of_summary(summary.ok_or_else(|| Problem::not_found("execution"))?)
    };
    let status = if view.closed_at.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mut response = json(status, &view);
    if let Ok(place) = HeaderValue::try_from(format!("/v1/executions/{}", started.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Show how an execution stands
#[utoipa::path(
    get, path = "/v1/executions/{id}", tag = "executions",
    params(("id" = String, Path, description = "The execution's id"), ShowQuery),
    responses(
        (status = 200, body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn show(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    reads: Reads,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant.id);
    let patience = wait(state, query.wait.as_deref(), request.headers())?;
    let serve = async |_| {
        if let Some(patience) = patience {
            until_closed(state, tenant, id, patience).await?;
            reads.leave();
        }
        let stored = reads.load_settled(tenant, id).await?;
        let stored = stored.ok_or_else(|| Problem::not_found("execution"))?;
        let view = state.engine.show_stored(stored).await?;
        let view = view_of(state, view, query.context);
        Ok(reads.mark(json(StatusCode::OK, &view)))
    };
    Held::bare(state, &request).serve(state, serve).await
}

/// Cancel an execution
#[utoipa::path(
    post, path = "/v1/executions/{id}/cancel", tag = "executions",
    params(("id" = String, Path, description = "The execution's id")),
    request_body = ReasonBody,
    responses(
        (status = 200, description = "How it stands afterwards", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`already_closed`", body = ProblemDocument),
        (status = 429, description = "`busy`", body = ProblemDocument),
    )
)]
async fn cancel(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant.id);
    let held = Held::read(state, request, MAX_REASON_BODY).await?;
    let serve = async |body: Bytes| {
        state.engine.cancel(tenant, id, reason(&body)?).await?;
        afterwards(state, tenant, id).await
    };
    held.serve(state, serve).await
}

/// Let a failed execution go on from the state that failed
#[utoipa::path(
    post, path = "/v1/executions/{id}/retry", tag = "executions",
    params(("id" = String, Path, description = "The execution's id")),
    responses(
        (status = 200, description = "How it stands afterwards", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`not_retryable`", body = ProblemDocument),
        (status = 429, description = "`busy` or `limit_reached`", body = ProblemDocument),
    )
)]
async fn retry(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant.id);
    let serve = async |_| {
        state.engine.retry(tenant, id).await?;
        afterwards(state, tenant, id).await
    };
    Held::bare(state, &request).serve(state, serve).await
}

/// Let nothing new begin in an execution
///
/// Attempts that run are let run, and what they give is recorded; signals and answers
/// are taken. No state is entered and no attempt begins until it is resumed. The
/// workflow's timeout and those of running attempts hold on. One that is paused stays so.
#[utoipa::path(
    post, path = "/v1/executions/{id}/pause", tag = "executions",
    params(("id" = String, Path, description = "The execution's id")),
    request_body = ReasonBody,
    responses(
        (status = 200, description = "How it stands afterwards", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`already_closed`", body = ProblemDocument),
        (status = 429, description = "`busy`", body = ProblemDocument),
    )
)]
async fn pause(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant.id);
    let held = Held::read(state, request, MAX_REASON_BODY).await?;
    let serve = async |body: Bytes| {
        state.engine.pause(tenant, id, reason(&body)?).await?;
        afterwards(state, tenant, id).await
    };
    held.serve(state, serve).await
}

/// Let a paused execution go on
///
/// What came due meanwhile is done now. One that is not paused goes on as it does.
#[utoipa::path(
    post, path = "/v1/executions/{id}/resume", tag = "executions",
    params(("id" = String, Path, description = "The execution's id")),
    responses(
        (status = 200, description = "How it stands afterwards", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`already_closed`", body = ProblemDocument),
        (status = 429, description = "`busy`", body = ProblemDocument),
    )
)]
async fn resume(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let (state, tenant) = (&state, &caller.tenant.id);
    let serve = async |_| {
        state.engine.resume(tenant, id).await?;
        afterwards(state, tenant, id).await
    };
    Held::bare(state, &request).serve(state, serve).await
}

/// How an execution stands after something was done to it.
async fn afterwards(
    state: &ApiState,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Response, Problem> {
    let view = load(state, tenant, id, false).await?;
    Ok(json(StatusCode::OK, &view))
}

/// The reason that a request gives; a request without a body has none.
pub(super) async fn read_reason(state: &ApiState, request: Request) -> Result<String, Problem> {
    let body = read_body(state, request, MAX_REASON_BODY).await?;
    reason(&body)
}

/// The reason that a body gives.
pub(super) fn reason(body: &[u8]) -> Result<String, Problem> {
    if body.is_empty() {
        return Ok(String::new());
    }
    let reason = parse_json::<ReasonBody>(body)?.reason;
    if reason.len() > MAX_REASON {
        let detail = format!("`reason` may have at most {MAX_REASON} bytes");
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    Ok(reason)
}

/// Returns when the time is up, or the server stops: who waits comes again, to
/// whoever serves then.
async fn until_late(state: &Api, patience: Duration) {
    tokio::select! {
        () = tokio::time::sleep(patience) => {}
        () = state.stopping.cancelled() => {}
    }
}

/// Returns when the execution has ended, or it is late.
async fn until_closed(
    state: &Api,
    tenant: &TenantId,
    id: ExecutionId,
    patience: Duration,
) -> Result<(), Problem> {
    let mut late = std::pin::pin!(until_late(state, patience));
    // Watched before it is looked at, so that no commit in between is missed.
    let mut commits = state.engine.watch(tenant, id);
    loop {
        let summary = state.store.summary(tenant, id).await?;
        let summary = summary.ok_or_else(|| Problem::not_found("execution"))?;
        if summary.closed_at.is_some() {
            return Ok(());
        }
        // Who moves it on tells of its commits.
        onward::here(&state.engine, summary.bucket)?;
        tokio::select! {
            changed = commits.changed() => if changed.is_err() { return Ok(()) },
            () = &mut late => return Ok(()),
        }
    }
}

async fn load(
    state: &Api,
    tenant: &TenantId,
    id: ExecutionId,
    context: bool,
) -> Result<ExecutionView, Problem> {
    let view = state.engine.show(tenant, id).await?;
    let view = view.ok_or_else(|| Problem::not_found("execution"))?;
    Ok(view_of(state, view, context))
}

fn view_of(state: &Api, view: View, context: bool) -> ExecutionView {
    let held = state.engine.held_by_rate(&view);
    ExecutionView::of_view(view, &held, context)
}

/// How an execution stands, in short.
pub(super) async fn stand(
    state: &Api,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Response, Problem> {
    let summary = state.store.summary(tenant, id).await?;
    let summary = summary.ok_or_else(|| Problem::not_found("execution"))?;
    Ok(json(StatusCode::OK, &ExecutionView::of_summary(summary)))
}

impl ExecutionView {
    pub(super) fn of_summary(summary: Summary) -> Self {
        let tags = summary.tags.map(Arc::unwrap_or_clone).unwrap_or_default();
        Self {
            id: summary.id,
            application: summary.application.to_string(),
            application_version: summary.application_version,
            started_version: None,
            workflow: summary.workflow.to_string(),
            shard_key: summary.shard_key.map(|key| key.to_string()),
            status: summary.status,
            input: None,
            output: None,
            error: summary.error.map(|error| Failure {
                error,
                message: String::new(),
                state: None,
                details: None,
            }),
            started_at: summary.started_at,
            closed_at: summary.closed_at,
            paused: None,
            wake_at: summary.wake_at,
            parent: None,
            schedule: None,
            priority: None,
            labels: tags.labels,
            attributes: tags.attributes,
            events: summary.version,
            open_states: None,
            context: None,
        }
    }

    /// As of the start, or of the end if it has come.
    fn of_start(
        application: &str,
        workflow: &str,
        started: Started,
        closed: Option<Closed>,
    ) -> Self {
        let mut view = Self {
            id: started.id,
            application: application.to_owned(),
            application_version: started.application_version,
            started_version: None,
            workflow: workflow.to_owned(),
            // Only the row has it.
            shard_key: None,
            status: StatusName::Running,
            input: None,
            output: None,
            error: None,
            started_at: started.started_at,
            closed_at: None,
            paused: None,
            wake_at: None,
            parent: None,
            schedule: None,
            priority: None,
            labels: BTreeMap::new(),
            attributes: BTreeMap::new(),
            events: 1,
            open_states: None,
            context: None,
        };
        if let Some(closed) = closed {
            view.closed_at = Some(closed.at);
            view.events = closed.version;
            view.end(closed.status);
        }
        view
    }

    /// `held`: the tasks that wait for the rate of their state.
    fn of_view(view: View, held: &[TaskId], context: bool) -> Self {
        let View {
            summary,
            input,
            execution,
            program,
        } = view;
        let mut shown = Self::of_summary(summary);
        shown.error = None;
        shown.input = Some(input);
        shown.started_version = execution.origin;
        shown.parent = execution.parent.map(|parent| parent.execution);
        shown.priority = execution.priority;
        shown.open_states = Some(open_states(&execution, &program, held));
        shown.paused = execution.paused;
        shown.schedule = execution.schedule;
        // An execution that has ended has none any more.
        shown.context = (context && !execution.context.is_null()).then_some(execution.context);
        shown.end(execution.status);
        shown
    }

    fn end(&mut self, status: Status) {
        let standing = Standing::from(status);
        // While it is open it is as its row says: running, or paused.
        if !standing.status.is_open() {
            self.status = standing.status;
            self.output = standing.output;
            self.error = standing.error;
        }
    }
}

fn open_states(execution: &Execution, program: &Program, held: &[TaskId]) -> Vec<OpenState> {
    let frames = execution.frames.values();
    frames
        .filter_map(|frame| {
            let mut open = open_state(execution, program, frame)?;
            if let (Step::Activity { task, .. }, StateKind::Task(kind)) =
                (&frame.step, &program.state(frame.state).kind)
                && held.contains(task)
            {
                open.waits_for_rate = kind.rate_limit.map(|rate| rate.to_string());
            }
            Some(open)
        })
        .collect()
}

fn open_state(execution: &Execution, program: &Program, frame: &Frame) -> Option<OpenState> {
    let due = |timer| execution.timers.get(timer).map(|timer| timer.at);
    let (step, attempt, scheduled_at, until) = match &frame.step {
        Step::Activity {
            attempt,
            scheduled_at,
            ..
        } => ("activity", Some(*attempt), Some(*scheduled_at), None),
        Step::BackingOff { attempt, timer, .. } => {
            ("backing_off", Some(*attempt), None, due(timer))
        }
        Step::Waiting { timer } => ("waiting", None, None, due(timer)),
        Step::Retrying { timer } => ("backing_off", None, None, due(timer)),
        Step::Held { .. } => ("held", None, None, None),
        Step::Listening { timeout } => ("listening", None, None, timeout.as_ref().and_then(due)),
        Step::Asking(asking) => {
            let until = asking.timeout.as_ref().and_then(due);
            ("asking", None, Some(asking.opened_at), until)
        }
        Step::Calling {
            attempt, timeout, ..
        } => {
            let until = timeout.as_ref().and_then(due);
            ("calling", Some(*attempt), None, until)
        }
        Step::Joining { .. } | Step::Mapping(_) | Step::Spreading(_) => {
            ("joining", None, None, None)
        }
        Step::Stopped {} => ("stopped", None, None, None),
        Step::Done { .. } | Step::Failed { .. } => return None,
    };
    let state = program.state(frame.state);
    // What is undone is not where its frame is.
    let undone = execution.saga.completed.last();
    let undone = undone.filter(|_| execution.is_compensating());
    Some(OpenState {
        path: undone.map_or_else(|| path(execution, program, frame), |step| step.path.clone()),
        state: state.name.to_string(),
        step,
        signal: match (&frame.step, &state.kind) {
            (Step::Listening { .. }, StateKind::Event(kind)) => Some(kind.event.to_string()),
            _ => None,
        },
        token: match &frame.step {
            Step::Calling { task, attempt, .. } => {
                let (execution, task, attempt) = (execution.id, *task, *attempt);
                let token = TaskToken {
                    execution,
                    task,
                    attempt,
                };
                Some(token.to_string())
            }
            _ => None,
        },
        assignee: match &frame.step {
            Step::Asking(asking) => Some(asking.assignee.clone()),
            _ => None,
        },
        attempt,
        waits_for_rate: None,
        scheduled_at,
        until,
    })
}
