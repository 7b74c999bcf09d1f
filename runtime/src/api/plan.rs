//! `/v1/applications/{name}/plan` and `/migrate`: what a new version would change for
//! the executions that are open, and the moves of those for which it is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use cascade_cdl::ExecutionId;
use cascade_cdl::plan::{Change, Plan, Verdict, paths};
use cascade_cdl::program::{Application, Program};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::applications::file_name;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Author, Caller, Path, Query, Viewer, parse_json, read_body};
use super::{ApiState, json, list};
use crate::engine::{Judged, MAPPING_BYTES, Mapping, Moved, Outcome, Target, open_of};
use crate::store::{self, ListCursor};

/// Most states or reasons that are told of one execution: who has mended those sees
/// the others.
const MAX_REASONS: usize = 20;

/// Longest body of a mapping: each name may be escaped, and stands in quotes.
const MAPPING_BODY: u64 = 4 * MAPPING_BYTES as u64;

/// Longest body of a plan: a text in JSON takes at most twice what it takes as a
/// file, unless it is full of control characters.
const PLAN_BODY: u64 = 2 * cascade_cdl::MAX_FILE_BYTES as u64 + MAPPING_BODY;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(plan))
        .routes(routes!(migrate))
}

/// A file that might be applied.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PlanBody {
    /// The CDL file.
    source: String,
    /// The new paths of states that were renamed, by the old ones, by workflow.
    #[serde(default)]
    mapping: BTreeMap<String, BTreeMap<String, String>>,
}

/// Executions to move.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MigrateBody {
    /// The new paths of states that were renamed, by the old ones, by workflow.
    #[serde(default)]
    mapping: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PlanQuery {
    /// The file's name, for diagnostics.
    file: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MigrateQuery {
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What a file would change.
#[derive(Serialize, ToSchema)]
struct PlanView {
    application: String,
    /// The version in force, with which the file is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    workflows: Vec<WorkflowPlan>,
    /// A page of the executions that are open, newest first.
    executions: Vec<JudgedView>,
    /// `cursor` of the next page of executions.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What a file would change of one workflow.
#[derive(Serialize, ToSchema)]
struct WorkflowPlan {
    workflow: String,
    /// `added`, `removed`, `changed` or `unchanged`.
    change: &'static str,
    /// What of the workflow itself changes: `start`, `timeout`, `output`, `language`.
    fields: Vec<&'static str>,
    /// What of its states does: `{state, change: added | removed | changed, fields?}`.
    #[schema(value_type = Vec<Object>)]
    states: Vec<Change>,
}

/// Whether an execution can go on under the file.
#[derive(Serialize, ToSchema)]
struct JudgedView {
    #[schema(value_type = String)]
    id: ExecutionId,
    workflow: String,
    /// The version that it runs.
    application_version: u32,
    /// `safe`, `needs_mapping` or `stuck`.
    verdict: &'static str,
    /// States that it stands in, or may have to undo, and that are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    states: Vec<String>,
    /// Why it is stuck, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// What became of executions.
#[derive(Serialize, ToSchema)]
struct MigrateView {
    application: String,
    /// The version in force, to which they are moved.
    version: u32,
    /// A page of those that were open and ran another one, newest first.
    executions: Vec<MovedView>,
    /// `cursor` of the next page; absent when all have been looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What became of one execution.
#[derive(Serialize, ToSchema)]
struct MovedView {
    #[schema(value_type = String)]
    id: ExecutionId,
    workflow: String,
    /// The version that it ran, and runs on unless it was moved.
    application_version: u32,
    /// `moved`, `needs_mapping`, `stuck`, or `later`: another try may move it.
    outcome: &'static str,
    /// The version that it runs now, if it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    states: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// Say what a file would change
///
/// Nothing is applied. The file is compared with the version in force, and each open
/// execution is judged, whatever version it runs: whether it could go on under the
/// file, could if somebody said what has become of its states, or could not. A page has up to a
/// hundred executions; the same body with the `cursor` gives the next.
#[utoipa::path(
    post, path = "/v1/applications/{name}/plan", tag = "applications",
    params(("name" = String, Path, description = "The application's name"), PlanQuery),
    request_body = PlanBody,
    responses(
        (status = 200, body = PlanView),
        (status = 400, description = "`invalid_request`: the mapping names what the file does not have", body = ProblemDocument),
        (status = 422, description = "`invalid_application`, with the diagnostics in `errors`", body = ProblemDocument),
        (status = 429, description = "`busy`: too many files are being compiled", body = ProblemDocument),
    )
)]
async fn plan(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path(name): Path<String>,
    Query(query): Query<PlanQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let file = file_name(query.file, &name)?;
    let body = read_body(&state, request, PLAN_BODY).await?;
    let PlanBody { source, mapping } = parse_json(&body)?;
    let tenant = &caller.tenant.id;
    let filter = open_of(&name);
    let before = query
        .cursor
        .map(|text| list::read_cursor(&text, tenant, &filter))
        .transpose()?;
    let source = Bytes::from(source);
    let compiled = state.catalog.compile(tenant, &name, &file, source).await?;
    let target = Target {
        application: compiled.0,
        mapping,
    };
    let in_force = state.catalog.find_application(tenant, &name).await?;
    let version = in_force.as_ref().map(|entry| entry.version);
    let old = in_force.map(|entry| Arc::clone(&entry.compiled));
    let (target, workflows) = apart(move || {
        check_mapping(&target.mapping, &target.application)?;
        let workflows = compare(old.as_deref(), &target);
        Ok((target, workflows))
    })
    .await?;
    let page = state.engine.judge(tenant, &target, before).await?;
    let next = |cursor: ListCursor| list::write_cursor(cursor, tenant, &filter);
    let view = PlanView {
        application: name,
        version,
        workflows,
        executions: page.items.into_iter().map(judged).collect(),
        next: page.next.map(next),
    };
    Ok(json(StatusCode::OK, &view))
}

/// Move open executions to the version in force
///
/// Those for which it is safe go on under it, each at once and whole, with
/// the move in its history; the others stay in their version. A page has up to a
/// hundred; the same body with the `cursor` goes on. Asking again from
/// the start does no harm.
#[utoipa::path(
    post, path = "/v1/applications/{name}/migrate", tag = "applications",
    params(("name" = String, Path, description = "The application's name"), MigrateQuery),
    request_body = MigrateBody,
    responses(
        (status = 200, body = MigrateView),
        (status = 400, description = "`invalid_request`: the mapping names what the version in force does not have", body = ProblemDocument),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn migrate(
    State(state): State<ApiState>,
    caller: Caller<Author>,
    Path(name): Path<String>,
    Query(query): Query<MigrateQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let body = read_body(&state, request, MAPPING_BODY).await?;
    let MigrateBody { mapping } = if body.is_empty() {
        MigrateBody::default()
    } else {
        parse_json(&body)?
    };
    let tenant = &caller.tenant.id;
    let filter = open_of(&name);
    let before = query
        .cursor
        .map(|text| list::read_cursor(&text, tenant, &filter))
        .transpose()?;
    let in_force = state.catalog.find_application(tenant, &name).await?;
    let in_force = in_force.ok_or_else(|| Problem::not_found("application"))?;
    let application = Arc::clone(&in_force.compiled);
    let mapping = apart(move || {
        check_mapping(&mapping, &application)?;
        Ok(mapping)
    })
    .await?;
    let page = state
        .engine
        .migrate(tenant, &name, &mapping, before)
        .await?;
    let next = |cursor: ListCursor| list::write_cursor(cursor, tenant, &filter);
    let view = MigrateView {
        application: name,
        version: in_force.version,
        executions: page.items.into_iter().map(moved).collect(),
        next: page.next.map(next),
    };
    Ok(json(StatusCode::OK, &view))
}

/// Does what takes as long as a file is large beside the threads that serve requests.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(store::Error::Closed.into()), // the process ends
        },
    }
}

/// A name that is not there would be a mapping that does nothing, silently.
fn check_mapping(mapping: &Mapping, application: &Application) -> Result<(), Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidRequest, detail);
    let names = mapping.values().flatten();
    let bytes: usize = names.map(|(old, new)| old.len() + new.len()).sum();
    if bytes > MAPPING_BYTES {
        let detail = format!("`mapping` may have at most {MAPPING_BYTES} bytes of names");
        return Err(invalid(detail));
    }
    for (workflow, renamed) in mapping {
        let program = application.workflows.get(workflow).ok_or_else(|| {
            let name = &application.name;
            invalid(format!(
                "`mapping`: application `{name}` has no workflow `{workflow}`"
            ))
        })?;
        let paths = paths(program);
        if let Some(path) = renamed.values().find(|path| !paths.contains(*path)) {
            let detail = format!("`mapping`: workflow `{workflow}` has no state `{path}`");
            return Err(invalid(detail));
        }
    }
    Ok(())
}

fn compare(old: Option<&Application>, target: &Target) -> Vec<WorkflowPlan> {
    let none = BTreeMap::new();
    let old = old.map_or(&none, |old| &old.workflows);
    let new = &target.application.workflows;
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let whole = |workflow: &str, change| WorkflowPlan {
        workflow: workflow.to_owned(),
        change,
        fields: Vec::new(),
        states: Vec::new(),
    };
    let compare = |name: &String| match (old.get(name), new.get(name)) {
        (Some(old), Some(new)) => difference(name, old, new, &target.mapping),
        (None, _) => whole(name, "added"),
        (Some(_), None) => whole(name, "removed"),
    };
    names.into_iter().map(compare).collect()
}

fn difference(
    name: &str,
    old: &Arc<Program>,
    new: &Arc<Program>,
    mapping: &Mapping,
) -> WorkflowPlan {
    let none = BTreeMap::new();
    let plan = Plan::new(old, new, mapping.get(name).unwrap_or(&none));
    let diff = plan.diff().clone();
    let same = diff.fields.is_empty() && diff.states.is_empty();
    WorkflowPlan {
        workflow: name.to_owned(),
        change: if same { "unchanged" } else { "changed" },
        fields: diff.fields,
        states: diff.states,
    }
}

fn judged(judged: Judged) -> JudgedView {
    let Judged { summary, verdict } = judged;
    let (verdict, states, reasons) = told(verdict);
    JudgedView {
        id: summary.id,
        workflow: summary.workflow.to_string(),
        application_version: summary.application_version,
        verdict,
        states,
        reasons,
    }
}

fn moved(moved: Moved) -> MovedView {
    let Moved { summary, outcome } = moved;
    let (outcome, version, (states, reasons)) = match outcome {
        Outcome::Moved(version) => ("moved", Some(version), (Vec::new(), Vec::new())),
        Outcome::Later(reason) => ("later", None, (Vec::new(), vec![reason])),
        Outcome::Left(verdict) => {
            let (verdict, states, reasons) = told(verdict);
            (verdict, None, (states, reasons))
        }
    };
    MovedView {
        id: summary.id,
        workflow: summary.workflow.to_string(),
        application_version: summary.application_version,
        outcome,
        version,
        states,
        reasons,
    }
}

/// A verdict's name, and what there is to say of it.
fn told(verdict: Verdict) -> (&'static str, Vec<String>, Vec<String>) {
    match verdict {
        Verdict::Safe => ("safe", Vec::new(), Vec::new()),
        Verdict::NeedsMapping { mut states } => {
            states.truncate(MAX_REASONS);
            ("needs_mapping", states, Vec::new())
        }
        Verdict::Stuck { mut reasons } => {
            reasons.truncate(MAX_REASONS);
            ("stuck", Vec::new(), reasons)
        }
    }
}
