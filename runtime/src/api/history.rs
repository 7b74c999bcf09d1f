//! What happened to an execution: its history, and the history as it grows.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response, sse};
use cascade_cdl::{Event, ExecutionId, Record, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::onward::{self, Held};
use super::position::Reads;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Caller, Path, Query, Viewer, execution_id, header};
use super::{ApiState, PATIENCE, json, list};
use crate::engine::Traced;
use crate::places::Place;
use crate::store::{self, PAGE_BYTES};

/// A page, if the client does not say.
const DEFAULT_PAGE: u32 = 100;

/// The longest page.
const MAX_PAGE: u32 = 1_000;

/// Events that a live history reads at a time, and the bytes that they may
/// have: each of thousands may hold a page that its client does not take.
const LIVE_PAGE: u32 = 100;
const LIVE_BYTES: usize = 256 << 10;

/// A comment at least so often keeps proxies from closing a silent connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Name of the server-sent events that carry an event of the history.
const HISTORY_EVENT: &str = "history";

/// Name of the last server-sent event: the execution has ended.
const CLOSED_EVENT: &str = "closed";

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(history))
        .routes(routes!(events))
}

/// A page of a history.
#[derive(Serialize, ToSchema)]
struct HistoryPage {
    events: Vec<HistoryEvent>,
    /// `after` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// One event: `{seq, at, kind}`, and what followed from it.
#[derive(Serialize, ToSchema)]
struct HistoryEvent {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    event: Event,
    /// States entered and left, attempts scheduled, timers set, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    records: Option<Vec<Record>>,
    /// How many more followed, if they were too much for a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    records_omitted: Option<usize>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Events after this number; 0 if absent.
    #[serde(default)]
    after: u64,
    /// At most so many, up to 1000; 100 if absent. Large events make a page shorter.
    limit: Option<u32>,
    /// Say what followed from each event, too.
    #[serde(default)]
    records: bool,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Begin after this number. The header `Last-Event-ID` wins.
    #[serde(default)]
    after: u64,
}

/// Show an execution's history
///
/// Only causes are recorded: starts, outcomes of attempts, timers, requests.
/// With `records`, the server replays the history and says what followed from each.
#[utoipa::path(
    get, path = "/v1/executions/{id}/history", tag = "executions",
    params(("id" = String, Path, description = "The execution's id"), HistoryQuery),
    responses(
        (status = 200, body = HistoryPage),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 429, description = "`busy`: too many histories are being replayed", body = ProblemDocument),
    )
)]
async fn history(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    reads: Reads,
    Path(id): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let tenant = &caller.tenant.id;
    let limit = list::limit(query.limit, DEFAULT_PAGE, MAX_PAGE)?;
    let summary = reads.summary_if_any(tenant, id).await?;
    let summary = summary.ok_or_else(|| Problem::not_found("execution"))?;
    let events: Vec<HistoryEvent> = if query.records {
        // Before anything is read, since each holds a page or two in memory.
        let place = state.replays.take_within(tenant, PATIENCE).await;
        let _place = place
            .ok_or_else(|| Problem::new(Code::Busy, "too many histories are being replayed"))?;
        let traced = state.engine.trace(&*reads, &summary, query.after, limit);
        traced
            .await?
            .into_iter()
            .map(HistoryEvent::traced)
            .collect()
    } else {
        let read = reads.history(tenant, id, query.after, limit, PAGE_BYTES);
        read.await?.into_iter().map(HistoryEvent::plain).collect()
    };
    let last = events.last().map(|last| last.event.seq);
    let next = last.filter(|last| *last < summary.version);
    Ok(reads.mark(json(StatusCode::OK, &HistoryPage { events, next })))
}

/// Follow an execution's history live
///
/// Server-sent events: `history` with an event of the history, its number as
/// the id, and `closed` at the end. `Last-Event-ID` goes on after a broken connection.
#[utoipa::path(
    get, path = "/v1/executions/{id}/events", tag = "executions",
    params(("id" = String, Path, description = "The execution's id"), EventsQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "The last event that arrived")),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = String),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 429, description = "`busy`: too many live histories", body = ProblemDocument),
    )
)]
async fn events(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let id = execution_id(&id)?;
    let after = match header(request.headers(), "last-event-id")? {
        Some(text) => text.parse().map_err(|_| {
            let detail = "`Last-Event-ID` must be the id of an event of this stream";
            Problem::new(Code::InvalidRequest, detail)
        })?,
        None => query.after,
    };
    let (state, tenant) = (&state, &caller.tenant.id);
    let serve = |_| follow(state.clone(), tenant.clone(), id, after);
    Held::bare(state, &request).serve(state, serve).await
}

async fn follow(
    state: ApiState,
    tenant: TenantId,
    id: ExecutionId,
    after: u64,
) -> Result<Response, Problem> {
    // Watched before it is read, so that no commit in between is missed.
    let commits = state.engine.watch(&tenant, id);
    let summary = state.store.summary(&tenant, id).await?;
    let summary = summary.ok_or_else(|| Problem::not_found("execution"))?;
    if summary.closed_at.is_none() {
        // Who moves it on tells of its commits.
        onward::here(&state.engine, summary.bucket)?;
    }
    let place = state
        .streams
        .try_take(&tenant)
        .ok_or_else(|| Problem::new(Code::Busy, "too many live histories are being followed"))?;
    let live = Live {
        state,
        tenant,
        id,
        after,
        commits,
        phase: Phase::Reading,
        _place: place,
    };
    let stream = futures::stream::unfold(live, Live::next);
    let stream = futures::StreamExt::flat_map(stream, futures::stream::iter);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(stream).keep_alive(keep_alive).into_response())
}

impl HistoryEvent {
    fn plain(event: Event) -> Self {
        Self {
            event,
            records: None,
            records_omitted: None,
        }
    }

    fn traced(traced: Traced) -> Self {
        Self {
            event: traced.event,
            records: Some(traced.records),
            records_omitted: (traced.omitted > 0).then_some(traced.omitted),
        }
    }
}

/// A history that somebody follows.
struct Live {
    state: ApiState,
    tenant: TenantId,
    id: ExecutionId,
    /// The last event that was sent.
    after: u64,
    commits: tokio::sync::watch::Receiver<u64>,
    phase: Phase,
    _place: Place,
}

/// What a live history does next.
enum Phase {
    /// There may be more in the store.
    Reading,
    /// All has been sent: wait for a commit.
    Waiting,
    /// The end has been told.
    Ended,
}

type Sent = Result<sse::Event, Infallible>;

impl Live {
    /// The next events to send; `None` ends the stream.
    async fn next(mut self) -> Option<(Vec<Sent>, Self)> {
        loop {
            match self.phase {
                Phase::Ended => return None,
                Phase::Reading => {
                    if let Some(sent) = self.read().await? {
                        return Some((sent, self));
                    }
                }
                Phase::Waiting => tokio::select! {
                    changed = self.commits.changed() => {
                        changed.ok()?;
                        self.phase = Phase::Reading;
                    }
                    // The client comes again, to whoever serves then.
                    () = self.state.stopping.cancelled() => return None,
                },
            }
        }
    }

    /// What the store has after the last event sent; `Some(None)` if nothing.
    /// `None` ends the stream: the client comes again and finds out.
    async fn read(&mut self) -> Option<Option<Vec<Sent>>> {
        self.commits.borrow_and_update();
        let store = &self.state.store;
        // Read before the events: who sees it closed then has all of them to come.
        let summary = log(store.summary(&self.tenant, self.id).await)??;
        let read = store
            .history(&self.tenant, self.id, self.after, LIVE_PAGE, LIVE_BYTES)
            .await;
        let events = log(read)?;
        let mut sent: Vec<Sent> = Vec::with_capacity(events.len() + 1);
        for event in events {
            self.after = event.seq;
            let text = serde_json::to_string(&event).expect("plain values with text keys");
            let id = event.seq.to_string();
            sent.push(Ok(sse::Event::default()
                .event(HISTORY_EVENT)
                .id(id)
                .data(text)));
        }
        if self.after >= summary.version {
            self.phase = Phase::Waiting;
            if summary.closed_at.is_none()
                && onward::here(&self.state.engine, summary.bucket).is_err()
            {
                // Another node tells of its commits by now: the client comes again.
                self.phase = Phase::Ended;
            }
            if summary.closed_at.is_some() {
                self.phase = Phase::Ended;
                let status = serde_json::json!({ "status": summary.status });
                let closed = sse::Event::default()
                    .event(CLOSED_EVENT)
                    .data(status.to_string());
                sent.push(Ok(closed));
            }
        }
        Some((!sent.is_empty()).then_some(sent))
    }
}

fn log<T>(read: Result<T, store::Error>) -> Option<T> {
    read.inspect_err(|error| tracing::error!(%error, "a live history cannot be read"))
        .ok()
}
