//! `/v1/tasks` and `/v1/executions/{id}/tasks`: what people are asked, and their answers.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use cascade_cdl::{ExecutionId, Json, TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::executions::{self, ExecutionView};
use super::onward::Held;
use super::position::Reads;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Caller, Operator, Path, Query, Viewer, execution_id, parse_json};
use super::{ApiState, json, list, signals};
use crate::engine::{Answer, View, path};
use crate::store::{HumanTask, TaskFilter};

/// A list's page, if the client does not say.
const DEFAULT_PAGE: u32 = 50;

/// The longest page of a list.
const MAX_PAGE: u32 = 1_000;

/// What a request may have beside the answer.
const ANSWER_OVERHEAD: u64 = 4 << 10;

/// Longest name of who answers, in bytes: it goes into the history.
const MAX_BY: usize = 200;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_all))
        .routes(routes!(list_one))
        .routes(routes!(complete))
}

/// What a person is asked.
#[derive(Serialize, ToSchema)]
struct HumanTaskView {
    /// Its number within the execution.
    #[schema(value_type = u64)]
    task: TaskId,
    /// The Parallel and Map states around it; empty at the top.
    path: String,
    state: String,
    /// Who is asked now.
    assignee: String,
    /// What they are shown.
    #[schema(value_type = Object)]
    input: Json,
    /// The JSON Schema that the answer has to fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    #[schema(value_type = u64)]
    opened_at: Timestamp,
    /// When its `timeout` is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    deadline: Option<Timestamp>,
    /// When somebody else is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    escalates_at: Option<Timestamp>,
    /// How often somebody else was asked.
    escalated: u32,
}

/// All that people are asked by one execution.
#[derive(Serialize, ToSchema)]
struct HumanTasks {
    items: Vec<HumanTaskView>,
}

/// What a person is asked, as the list over all executions has it.
#[derive(Serialize, ToSchema)]
struct OpenTask {
    #[schema(value_type = String)]
    execution: ExecutionId,
    /// Its number within the execution.
    #[schema(value_type = u64)]
    task: TaskId,
    application: String,
    workflow: String,
    /// The Parallel and Map states around it; empty at the top.
    path: String,
    state: String,
    /// Who is asked now.
    assignee: String,
    #[schema(value_type = u64)]
    opened_at: Timestamp,
    /// When its `timeout` is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    deadline: Option<Timestamp>,
    /// How often somebody else was asked.
    escalated: u32,
}

/// A page of what people are asked.
#[derive(Serialize, ToSchema)]
struct OpenTaskPage {
    items: Vec<OpenTask>,
    /// The cursor of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TasksQuery {
    /// Who is asked now.
    assignee: Option<String>,
    application: Option<String>,
    workflow: Option<String>,
    /// Name of the `HumanTask` state.
    state: Option<String>,
    /// At most so many, up to 1000; 50 if absent.
    limit: Option<u32>,
    /// `next` of the page before; the filters must be the same.
    cursor: Option<String>,
}

/// An answer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AnswerBody {
    /// Any JSON that fits the schema, the output of the state; `null` if absent.
    #[schema(value_type = Option<Object>)]
    output: Option<Json>,
    /// Who answers, if it is not the key's owner. Goes into the history, with the key's id.
    by: Option<String>,
}

/// List what people are asked, by all executions, the oldest question first
#[utoipa::path(
    get, path = "/v1/tasks", tag = "executions",
    params(TasksQuery),
    responses(
        (status = 200, body = OpenTaskPage),
        (status = 400, description = "`invalid_cursor`, `invalid_request`", body = ProblemDocument),
    )
)]
async fn list_all(
    caller: Caller<Viewer>,
    reads: Reads,
    Query(query): Query<TasksQuery>,
) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    let filter = TaskFilter {
        assignee: query.assignee,
        application: query.application,
        workflow: query.workflow,
        state: query.state,
    };
    let limit = list::limit(query.limit, DEFAULT_PAGE, MAX_PAGE)?;
    let after = match &query.cursor {
        Some(cursor) => Some(list::read_cursor(cursor, tenant, &filter)?),
        None => None,
    };
    let page = reads.human_tasks(tenant, &filter, after, limit);
    let page = page.await?;
    let next = page
        .next
        .map(|next| list::write_cursor(next, tenant, &filter));
    let items = page.items.into_iter().map(OpenTask::from).collect();
    Ok(reads.mark(json(StatusCode::OK, &OpenTaskPage { items, next })))
}

/// List what an execution asks people
#[utoipa::path(
    get, path = "/v1/executions/{id}/tasks", tag = "executions",
    params(("id" = String, Path, description = "The execution's id")),
    responses(
        (status = 200, body = HumanTasks),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn list_one(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let view = state.engine.show(&caller.tenant.id, execution_id(&id)?);
    let view = view.await?.ok_or_else(|| Problem::not_found("execution"))?;
    let items = asked(&view);
    Ok(json(StatusCode::OK, &HumanTasks { items }))
}

/// Answer what a person is asked
///
/// Returns when the answer is durable. The same answer again is the same; another
/// one comes too late.
#[utoipa::path(
    post, path = "/v1/executions/{id}/tasks/{task}", tag = "executions",
    params(("id" = String, Path, description = "The execution's id"), ("task" = String, Path, description = "The task's number")),
    request_body = AnswerBody,
    responses(
        (status = 200, description = "It was taken, now or before: how the execution stands", body = ExecutionView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`not_asked`: answered otherwise, or its time was up", body = ProblemDocument),
        (status = 413, description = "`too_large`", body = ProblemDocument),
        (status = 422, description = "`invalid_answer`: `errors` say where it does not fit the schema", body = ProblemDocument),
        (status = 429, description = "`busy`", body = ProblemDocument),
    )
)]
async fn complete(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path((id, task)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let task = task.parse().map_err(|_| Problem::not_found("task"))?;
    let limit = caller.tenant.limits.input_bytes;
    let held = Held::read(&state, request, limit.saturating_add(ANSWER_OVERHEAD)).await?;
    let body: AnswerBody = parse_json(&held.body)?;
    let answer = Answer {
        task: TaskId(task),
        output: signals::payload("output", body.output)?,
        by: by(body.by, &caller.key)?,
    };
    let (state, tenant) = (&state, &caller.tenant.id);
    let serve = async |_| {
        state.engine.answer(tenant, id, answer.clone()).await?;
        executions::stand(state, tenant, id).await
    };
    held.serve(state, serve).await
}

/// Who answers, as the history has it.
fn by(given: Option<String>, key: &str) -> Result<String, Problem> {
    match given {
        None => Ok(format!("key {key}")),
        Some(name) if name.is_empty() || name.len() > MAX_BY => {
            let detail = format!("`by` must have 1 to {MAX_BY} bytes");
            Err(Problem::new(Code::InvalidRequest, detail))
        }
        Some(name) => Ok(format!("{name} (key {key})")),
    }
}

fn asked(view: &View) -> Vec<HumanTaskView> {
    let View {
        execution, program, ..
    } = view;
    let due = |timer| execution.timers.get(timer).map(|timer| timer.at);
    let asked = execution.asked(program);
    let shown = asked.filter_map(|(frame, asking, human)| {
        let frame = execution.frames.get(&frame)?;
        Some(HumanTaskView {
            task: asking.task,
            path: path(execution, program, frame),
            state: program.state(frame.state).name.to_string(),
            assignee: asking.assignee.clone(),
            input: asking.input.clone(),
            schema: human.schema.as_ref().map(|schema| schema.source().clone()),
            opened_at: asking.opened_at,
            deadline: asking.timeout.as_ref().and_then(due),
            escalates_at: asking.escalation.as_ref().and_then(due),
            escalated: asking.escalated,
        })
    });
    shown.collect()
}

impl From<HumanTask> for OpenTask {
    fn from(task: HumanTask) -> Self {
        Self {
            execution: task.execution,
            task: task.task,
            application: task.application.to_string(),
            workflow: task.workflow.to_string(),
            path: task.path,
            state: task.state.to_string(),
            assignee: task.assignee,
            opened_at: task.opened_at,
            deadline: task.deadline,
            escalated: task.escalated,
        }
    }
}
