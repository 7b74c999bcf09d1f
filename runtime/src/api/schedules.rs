//! `/v1/schedules`, and `/v1/applications/{name}/schedules/{schedule}`.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use cascade_cdl::schedule::{Cause, Key, Opened, Outcome, Overlap, Record, Schedule, Skip, When};
use cascade_cdl::{ExecutionId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::executions::{ReasonBody, reason};
use super::onward::{Held, keeps_schedules};
use super::problem::{Problem, ProblemDocument};
use super::request::{Caller, Operator, Path, Query, Viewer, idempotency_key, parse_json};
use super::{Api, ApiState, json};
use crate::schedules::Shown;
use crate::store::{self, StatusName};

/// Next times that are shown without being asked for.
const NEXT: u32 = 5;

/// Most that are: each takes microseconds to find.
const MAX_NEXT: u32 = 100;

/// What the body of a request here has at most.
const MAX_BODY: u64 = 4 << 10;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(trigger))
        .routes(routes!(backfill))
}

/// A schedule, and how far it is.
#[derive(Serialize, ToSchema)]
struct ScheduleView {
    application: String,
    name: String,
    workflow: String,
    /// When it is due, for people.
    timing: String,
    #[schema(value_type = String, example = "skip")]
    overlap: Overlap,
    /// Which missed times are made up for, for people.
    catch_up: String,
    /// Since when and why nothing is started by the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PausedView>,
    /// The next times; none while it is paused.
    next: Vec<NextView>,
    /// Executions that run, as far as the schedule knows.
    open: Vec<OpenView>,
    /// How many wait for those to end, or are being started.
    waiting: usize,
    /// What became of the last times, the latest first; in a list only the latest.
    recent: Vec<RunView>,
}

#[derive(Serialize, ToSchema)]
struct PausedView {
    at: u64,
    reason: String,
}

/// A time that is due.
#[derive(Serialize, ToSchema)]
struct NextView {
    #[schema(value_type = u64)]
    at: Timestamp,
    /// What the clocks of the schedule's time zone show then.
    local: String,
}

#[derive(Serialize, ToSchema)]
struct OpenView {
    #[schema(value_type = String)]
    execution: ExecutionId,
    #[schema(value_type = u64)]
    at: Timestamp,
}

/// What became of a time, or of several in a row.
#[derive(Serialize, ToSchema)]
struct RunView {
    /// The time; the first of several.
    #[schema(value_type = u64)]
    at: Timestamp,
    /// `time`, `backfill` or `trigger`.
    #[schema(value_type = String)]
    cause: Cause,
    /// `started`, `refused` or `skipped`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    execution: Option<ExecutionId>,
    /// How the execution stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    status: Option<StatusName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    started_at: Option<Timestamp>,
    /// Why it was refused, as in a problem document, or passed over: `late`, `overlap`,
    /// `full`, `superseded` or `paused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Why it was refused, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The last time that this is about.
    #[schema(value_type = u64)]
    until: Timestamp,
    /// How many times this is about, at least if `more`.
    count: u32,
    /// Whether there were more than were counted.
    more: bool,
}

#[derive(Serialize, ToSchema)]
struct ScheduleList {
    items: Vec<ScheduleView>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Of this application only.
    application: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowQuery {
    /// How many of the next times; 5 if absent, at most 100.
    next: Option<u32>,
}

/// What to do if an earlier execution runs.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    /// A policy other than the schedule's.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    overlap: Option<Overlap>,
}

/// What is started by hand.
#[derive(Serialize, ToSchema)]
struct TriggeredView {
    #[schema(value_type = String)]
    execution: ExecutionId,
    #[schema(value_type = u64)]
    at: Timestamp,
    /// Whether it waits for others to end.
    waits: bool,
}

/// Which times to start.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BackfillBody {
    /// From this time on.
    #[schema(value_type = u64)]
    from: Timestamp,
    /// Up to this time, which has passed.
    #[schema(value_type = u64)]
    until: Timestamp,
    /// What to do while others run; `buffer_all`, one after the other, if absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    overlap: Option<Overlap>,
}

#[derive(Serialize, ToSchema)]
struct BackfilledView {
    /// How many times lie in the range.
    times: usize,
}

/// List schedules
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules",
    params(ListQuery),
    responses((status = 200, body = ScheduleList))
)]
async fn list(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Query(query): Query<ListQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let state = &state;
    let serve = async |_| {
        keeps_schedules(state).await?;
        let mut items = Vec::new();
        for shown in state.schedules.list(&caller.tenant.id) {
            let of = query.application.as_deref();
            if of.is_none_or(|of| *of == *shown.key.application) {
                items.push(view(state, &shown, 1, 1).await?);
            }
        }
        Ok(json(StatusCode::OK, &ScheduleList { items }))
    };
    Held::bare(state, &request).serve(state, serve).await
}

/// Show a schedule, its next times and what became of the last ones
#[utoipa::path(
    get, path = "/v1/applications/{name}/schedules/{schedule}", tag = "schedules",
    params(("name" = String, Path, description = "The application's name"),
        ("schedule" = String, Path, description = "The schedule's name"), ShowQuery),
    responses(
        (status = 200, body = ScheduleView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn show(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path(names): Path<(String, String)>,
    Query(query): Query<ShowQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let (state, key) = (&state, key(&caller.tenant.id, names));
    let serve = async |_| {
        keeps_schedules(state).await?;
        shown(state, &key, query.next.unwrap_or(NEXT).min(MAX_NEXT)).await
    };
    Held::bare(state, &request).serve(state, serve).await
}

/// Let a schedule start nothing by the time
///
/// What it has started goes on. Times that pass are not made up for; `trigger` and
/// `backfill` start as before. It holds for versions to come, until one of them says another
/// thing than the one before. One that is paused stays so.
#[utoipa::path(
    post, path = "/v1/applications/{name}/schedules/{schedule}/pause", tag = "schedules",
    params(("name" = String, Path, description = "The application's name"),
        ("schedule" = String, Path, description = "The schedule's name")),
    request_body = ReasonBody,
    responses(
        (status = 200, description = "It is paused, now or before", body = ScheduleView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn pause(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(names): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let held = Held::read(&state, request, MAX_BODY).await?;
    let (state, key) = (&state, key(&caller.tenant.id, names));
    let serve = async |body: Bytes| {
        keeps_schedules(state).await?;
        state.schedules.pause(key.clone(), reason(&body)?).await?;
        shown(state, &key, NEXT).await
    };
    held.serve(state, serve).await
}

/// Let a paused schedule go on
#[utoipa::path(
    post, path = "/v1/applications/{name}/schedules/{schedule}/resume", tag = "schedules",
    params(("name" = String, Path, description = "The application's name"),
        ("schedule" = String, Path, description = "The schedule's name")),
    responses(
        (status = 200, description = "It goes on with what is due from now on", body = ScheduleView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn resume(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(names): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (state, key) = (&state, key(&caller.tenant.id, names));
    let serve = async |_| {
        keeps_schedules(state).await?;
        state.schedules.resume(key.clone()).await?;
        shown(state, &key, NEXT).await
    };
    Held::bare(state, &request).serve(state, serve).await
}

/// Start an execution of a schedule now
///
/// Returns when it is durable that it will be started, also if the schedule is paused. The
/// same `Idempotency-Key` is the same execution.
#[utoipa::path(
    post, path = "/v1/applications/{name}/schedules/{schedule}/trigger", tag = "schedules",
    params(("name" = String, Path, description = "The application's name"),
        ("schedule" = String, Path, description = "The schedule's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request one of a kind")),
    request_body = TriggerBody,
    responses(
        (status = 202, description = "It is started, or waits for others to end", body = TriggeredView),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 409, description = "`schedule_busy`: an earlier execution runs, and the policy is to skip", body = ProblemDocument),
        (status = 429, description = "`limit_reached`: too many wait", body = ProblemDocument),
    )
)]
async fn trigger(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(names): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let words = idempotency_key(request.headers())?;
    let held = Held::read(&state, request, MAX_BODY).await?;
    let body = if held.body.is_empty() {
        TriggerBody::default()
    } else {
        parse_json(&held.body)?
    };
    // Keys of clients and random words differ in their first character.
    let words = match words {
        Some(words) => format!("k{words}"),
        None => format!("r{}", uuid::Uuid::new_v4().simple()),
    };
    let (state, key) = (&state, key(&caller.tenant.id, names));
    let serve = async |_| {
        keeps_schedules(state).await?;
        let schedules = &state.schedules;
        let triggered = schedules.trigger(key.clone(), &words, body.overlap).await?;
        let view = TriggeredView {
            execution: triggered.id,
            at: triggered.at,
            waits: triggered.waits,
        };
        Ok(json(StatusCode::ACCEPTED, &view))
    };
    held.serve(state, serve).await
}

/// Start what a schedule left out in the past
///
/// Each time of the range is started once, one after the other unless a policy says
/// otherwise; what has been started for a time before is not started again.
#[utoipa::path(
    post, path = "/v1/applications/{name}/schedules/{schedule}/backfill", tag = "schedules",
    params(("name" = String, Path, description = "The application's name"),
        ("schedule" = String, Path, description = "The schedule's name")),
    request_body = BackfillBody,
    responses(
        (status = 202, description = "They are started", body = BackfilledView),
        (status = 400, description = "`invalid_request`: the range is none, or ends in the future", body = ProblemDocument),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 429, description = "`limit_reached`: the range has too many times", body = ProblemDocument),
    )
)]
async fn backfill(
    State(state): State<ApiState>,
    caller: Caller<Operator>,
    Path(names): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let held = Held::read(&state, request, MAX_BODY).await?;
    let body: BackfillBody = parse_json(&held.body)?;
    let (state, key) = (&state, key(&caller.tenant.id, names));
    let range = (body.from, body.until);
    let serve = async |_| {
        keeps_schedules(state).await?;
        let schedules = &state.schedules;
        let times = schedules.backfill(key.clone(), range, body.overlap).await?;
        Ok(json(StatusCode::ACCEPTED, &BackfilledView { times }))
    };
    held.serve(state, serve).await
}

fn key(tenant: &TenantId, (application, name): (String, String)) -> Key {
    Key {
        tenant: tenant.clone(),
        application: application.into(),
        name: name.into(),
    }
}

async fn shown(state: &Api, key: &Key, next: u32) -> Result<Response, Problem> {
    let shown = state.schedules.show(key);
    let shown = shown.ok_or_else(|| Problem::not_found("schedule"))?;
    let view = view(state, &shown, next, usize::MAX).await?;
    Ok(json(StatusCode::OK, &view))
}

async fn view(
    state: &Api,
    shown: &Shown,
    next: u32,
    recent: usize,
) -> Result<ScheduleView, store::Error> {
    let Shown {
        key,
        schedule,
        state: far,
    } = shown;
    let mut runs = Vec::new();
    for record in far.recent.iter().rev().take(recent) {
        runs.push(run(state, &key.tenant, record).await?);
    }
    let paused = far.paused.as_ref().map(|paused| PausedView {
        at: paused.at.0,
        reason: paused.reason.clone(),
    });
    let from = far.position.max(state.clock.now());
    let next = if paused.is_some() { 0 } else { next };
    Ok(ScheduleView {
        application: key.application.to_string(),
        name: key.name.to_string(),
        workflow: schedule.workflow.to_string(),
        timing: schedule.timing.to_string(),
        overlap: schedule.overlap,
        catch_up: schedule.catch_up.to_string(),
        next: next_times(schedule, from, next),
        open: far.open.iter().map(OpenView::of).collect(),
        waiting: far.waiting.len() + far.starting.len(),
        recent: runs,
        paused,
    })
}

impl OpenView {
    fn of(open: &Opened) -> Self {
        Self {
            execution: open.id,
            at: open.at,
        }
    }
}

fn next_times(schedule: &Schedule, from: Timestamp, count: u32) -> Vec<NextView> {
    let first = schedule.timing.next(from);
    let times = std::iter::successors(first, |at| schedule.timing.next(*at));
    let show = |at: Timestamp| NextView {
        at,
        local: match &schedule.timing.when {
            When::Cron { zone, .. } => zone.show(at),
            When::Interval { .. } => at.to_string(),
        },
    };
    times.take(count as usize).map(show).collect()
}

async fn run(state: &Api, tenant: &TenantId, record: &Record) -> Result<RunView, store::Error> {
    let mut view = RunView {
        at: record.at,
        cause: record.cause,
        outcome: "started",
        execution: None,
        status: None,
        started_at: None,
        code: None,
        reason: None,
        until: record.at,
        count: 1,
        more: false,
    };
    match &record.outcome {
        Outcome::Started { id, on } => {
            let summary = state.store.summary(tenant, *id).await?;
            view.execution = Some(*id);
            view.status = summary.map(|summary| summary.status);
            view.started_at = Some(*on);
        }
        Outcome::Refused {
            code,
            reason,
            until,
            count,
        } => {
            view.outcome = "refused";
            view.code = Some(code.clone());
            view.reason = Some(reason.clone());
            (view.until, view.count) = (*until, *count);
        }
        Outcome::Skipped {
            why,
            until,
            count,
            more,
        } => {
            view.outcome = "skipped";
            view.code = Some(skip(*why).to_owned());
            (view.until, view.count, view.more) = (*until, *count, *more);
        }
    }
    Ok(view)
}

fn skip(why: Skip) -> &'static str {
    match why {
        Skip::Late => "late",
        Skip::Overlap => "overlap",
        Skip::Full => "full",
        Skip::Superseded => "superseded",
        Skip::Paused => "paused",
    }
}
