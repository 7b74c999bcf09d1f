//! Requests that reach a node which cannot serve them: passed on to the owner.
//!
//! A handler serves as if everything were here. If the engine says that it is elsewhere, and
//! so did nothing, the request goes to the node that has it, with the client's own key, and
//! that node's answer is the answer. While a bucket changes hands, the request waits, for a
//! while; then the client is told to come again.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Limited};
use tokio::time::{Duration, Instant};

use super::problem::{Code, Problem};
use super::request::read_body;
use super::{Api, ApiState, json};
use crate::cluster::link::{Failure, MOST_BYTES, MOST_HOPS, Onward, is_own};
use crate::cluster::{Hops, Link};
use crate::engine::{Ask, Engine, KEEPER_BUCKET, OWNER_PATIENCE, Peer, Whereabouts};
use crate::telemetry;

/// Pause before a node that takes no connection is tried again, unless another one has what
/// it had: it may be gone, which the others do not know yet.
const AGAIN: Duration = Duration::from_millis(50);

/// Pause before a request is served here once more that has just come to belong here.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A request whose body has been read, as it can be served here or passed on.
pub(super) struct Held {
    /// Absent where everything is here.
    onward: Option<Onward>,
    pub(super) body: Bytes,
}

impl Held {
    /// Reads a request, of at most `limit` bytes.
    pub(super) async fn read(
        state: &ApiState,
        request: Request,
        limit: u64,
    ) -> Result<Self, Problem> {
        let onward = onward(state, request.method(), request.uri(), request.headers());
        let body = read_body(state, request, limit).await?;
        Ok(Self { onward, body })
    }

    /// Of a request whose body nobody reads.
    pub(super) fn bare(state: &ApiState, request: &Request) -> Self {
        Self {
            onward: onward(state, request.method(), request.uri(), request.headers()),
            body: Bytes::new(),
        }
    }

    /// Serves the request here, or has the owner serve it. `serve` may be called again; where
    /// it says that the request belongs elsewhere, it has done nothing.
    pub(super) async fn serve<F>(
        self,
        state: &ApiState,
        serve: impl Fn(Bytes) -> F + Send + Sync,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Response, Problem>> + Send,
    {
        let Self { onward, body } = self;
        let until = Instant::now() + OWNER_PATIENCE;
        loop {
            let problem = match serve(body.clone()).await {
                Err(problem) if problem.elsewhere().is_some() => problem,
                served => return served,
            };
            let (Some(bucket), Some(link), Some(onward)) =
                (problem.elsewhere(), &state.link, &onward)
            else {
                return Err(problem);
            };
            let passed = pass_on(&state.engine, link, onward, &body, bucket, until);
            match passed.await {
                Passed::Answered(response) => return Ok(response),
                Passed::Here if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
                Passed::Here | Passed::Nowhere => return Err(problem),
            }
        }
    }
}

/// What became of a request that was to be passed on.
enum Passed {
    Answered(Response),
    /// It belongs here by now.
    Here,
    Nowhere,
}

fn onward(
    state: &Api,
    method: &Method,
    uri: &axum::http::Uri,
    headers: &HeaderMap,
) -> Option<Onward> {
    if state.link.is_none() || state.engine.is_whole() {
        return None;
    }
    let path_and_query = uri.path_and_query()?.to_string();
    Some(Onward {
        method: method.clone(),
        path_and_query,
        headers: headers.clone(),
    })
}

/// That a request belongs to whoever has this bucket.
pub(super) fn elsewhere(bucket: u32) -> Problem {
    Problem::new(
        Code::Unavailable,
        "this belongs to another node, which does not answer at the moment",
    )
    .at(bucket)
}

/// Checks that a bucket is here.
pub(super) fn here(engine: &Engine, bucket: u32) -> Result<(), Problem> {
    match engine.whereabouts(bucket) {
        Whereabouts::Here => Ok(()),
        Whereabouts::There(_) | Whereabouts::Nobody => Err(elsewhere(bucket)),
    }
}

/// Checks that the schedules are kept here, and waits for a moment if they soon are.
pub(super) async fn keeps_schedules(state: &Api) -> Result<(), Problem> {
    here(&state.engine, KEEPER_BUCKET)?;
    if state.schedules.are_kept(OWNER_PATIENCE).await {
        return Ok(());
    }
    Err(elsewhere(KEEPER_BUCKET))
}

async fn pass_on(
    engine: &Engine,
    link: &Link,
    onward: &Onward,
    body: &Bytes,
    bucket: u32,
    mut until: Instant,
) -> Passed {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let peer = match engine.settled(bucket, left).await {
            Whereabouts::Here => return Passed::Here,
            // Only now: the bucket may be about to come here.
            Whereabouts::There(_) if link.hops(onward) >= Hops(MOST_HOPS) => {
                telemetry::passed_on("circle");
                return Passed::Nowhere;
            }
            Whereabouts::There(peer) if !left.is_zero() => peer,
            Whereabouts::There(_) | Whereabouts::Nobody => {
                telemetry::passed_on("no_owner");
                return Passed::Nowhere;
            }
        };
        let asked = Instant::now();
        let answer = tokio::select! {
            answer = link.pass_on(&peer, onward, body.clone()) => answer,
            () = gone(engine, bucket, &peer) => Err(Failure::Lost("it is the owner no more".to_owned())),
        };
        match answer {
            Ok(answer) => {
                telemetry::passed_on("answered");
                return Passed::Answered(relay(engine.clone(), bucket, peer, answer));
            }
            Err(Failure::Unsent(why)) => {
                tracing::debug!(node = %peer.node, why, "a request is passed on again");
                rest(engine, bucket, &peer).await;
            }
            // Where the same again is the same, it is asked again.
            Err(Failure::Lost(why)) if may_repeat(onward) => {
                tracing::debug!(node = %peer.node, why, "a request is passed on again");
                // It may have waited there for an end, and waits on.
                until += asked.elapsed();
                rest(engine, bucket, &peer).await;
            }
            Err(Failure::Lost(why)) => {
                tracing::warn!(node = %peer.node, why, "a node has not answered");
                telemetry::passed_on("lost");
                return Passed::Nowhere;
            }
        }
    }
}

/// Whether a request does nothing more the second time.
fn may_repeat(onward: &Onward) -> bool {
    let is_named = onward.headers.contains_key("idempotency-key");
    is_named || onward.method == Method::GET || onward.method == Method::PUT
}

/// Returns when a node has not got a bucket any more.
async fn gone(engine: &Engine, bucket: u32, peer: &Peer) {
    let mut moves = engine.moves();
    loop {
        moves.mark_unchanged();
        let there = Whereabouts::There(peer.clone());
        if engine.whereabouts(bucket) != there || moves.changed().await.is_err() {
            return;
        }
    }
}

/// Waits a moment before a node is asked again, or until it has not got a bucket any more.
async fn rest(engine: &Engine, bucket: u32, peer: &Peer) {
    // Whichever it is: who has the bucket is looked up again.
    let _ = tokio::time::timeout(AGAIN, gone(engine, bucket, peer)).await;
}

/// A node's answer, as it comes. A live history ends if the node is the owner no more: the
/// client comes again.
fn relay(engine: Engine, bucket: u32, peer: Peer, answer: reqwest::Response) -> Response {
    let status = answer.status();
    let headers = answer.headers().clone();
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let is_live = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let body = answer.bytes_stream();
    let mut response = Response::new(if is_live {
        let gone = Box::pin(async move { gone(&engine, bucket, &peer).await });
        Body::from_stream(body.take_until(gone))
    } else {
        Body::from_stream(body)
    });
    *response.status_mut() = status;
    for (name, value) in &headers {
        // The body is as long as it was.
        if !is_own(name) || *name == CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

/// What another node's engine asks. Not a part of `/v1`: it is of nodes only.
pub(super) async fn ask(
    State(state): State<ApiState>,
    request: Request,
) -> Result<Response, Problem> {
    let stranger = || Problem::new(Code::Unauthenticated, "this is for nodes of the cluster");
    let link = state.link.as_ref().ok_or_else(stranger)?;
    let headers = request.headers().clone();
    // First, so that strangers do not get to fill memory.
    if !link.is_asked_by_node(&headers, None) {
        return Err(stranger());
    }
    let body = Limited::new(request.into_body(), MOST_BYTES).collect();
    let body = tokio::time::timeout(state.config.server.request_timeout, body).await;
    let unread = || Problem::new(Code::InvalidRequest, "the body did not arrive");
    let body = body
        .map_err(|_| unread())?
        .map_err(|_| unread())?
        .to_bytes();
    if !link.is_asked_by_node(&headers, Some(&body)) {
        return Err(stranger());
    }
    let ask: Ask = super::request::parse_json(&body)?;
    Ok(json(StatusCode::OK, &state.engine.answer_peer(ask).await))
}
