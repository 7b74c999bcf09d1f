//! The HTTP interface, `/v1`.
//!
//! Owns nothing durable: it turns requests into calls of engine, catalog and
//! tenancy, and what they say into JSON. Handlers return a [`Problem`] or an
//! answer; the envelope around all of them gives each request its id, counts
//! it, and turns a panic into an answer that costs only this request.
//!
//! Every route goes through `utoipa_axum`, so the `OpenAPI` document cannot
//! lack one. `docs/http.md` is the page for people.

mod activities;
mod applications;
mod callbacks;
mod cluster;
mod connection;
mod executions;
mod history;
mod list;
mod objects;
mod onward;
mod plan;
pub mod position;
pub mod problem;
mod request;
mod schedules;
mod search;
mod serve;
mod signals;
mod system;
mod tasks;
mod tenants;
mod workflows;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cluster::Link;
use crate::config::Config;
use crate::engine::Engine;
use crate::objects::Objects;
use crate::places::Places;
use crate::schedules::Schedules;
use crate::store::Store;
use crate::telemetry::{self, Telemetry};
use crate::tenancy::Tenancy;
use position::{POSITION, Tokens};
use problem::{Code, Problem};
pub use serve::serve;

/// Names a request in the log and in problem documents. Taken from the client
/// if it is plain, so that a trace can begin there.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over: a trace id with room to spare.
const MAX_REQUEST_ID: usize = 64;

/// Uploads at a time. Each may hold the largest module in memory twice.
const MAX_UPLOADS: usize = 4;

/// Live histories at a time, of all tenants. Each holds a connection.
const MAX_STREAMS: usize = 2_000;

/// Histories that are replayed for a page with records at a time. Each may hold
/// some 20 MB.
const MAX_REPLAYS: usize = 32;

/// Objects that go in or out at a time, of all tenants. Each holds a file and a block.
const MAX_OBJECTS: usize = 64;

/// How long a request waits for one of a few places before it is told to come
/// back: as long as a client would wait without wondering.
const PATIENCE: Duration = Duration::from_secs(5);

/// What handlers work with.
pub struct Api {
    pub engine: Engine,
    pub catalog: Catalog,
    pub schedules: Schedules,
    pub tenancy: Tenancy,
    pub store: Arc<dyn Store>,
    pub objects: Objects,
    pub clock: Arc<dyn Clock>,
    pub config: Arc<Config>,
    pub telemetry: Telemetry,
    /// Cancelled when the server is told to stop: it is no longer ready, and
    /// live histories end.
    pub stopping: CancellationToken,
    /// The way to other nodes, if there may be any.
    pub link: Option<Link>,
    /// What clients are told of how far the database is, if it may have copies.
    pub tokens: Option<Tokens>,
    uploads: Places,
    streams: Places,
    replays: Places,
    transfers: Places,
}

/// Shared by all requests.
pub type ApiState = Arc<Api>;

/// The parts that an [`Api`] is made of.
pub struct Parts {
    pub engine: Engine,
    pub catalog: Catalog,
    pub schedules: Schedules,
    pub tenancy: Tenancy,
    pub store: Arc<dyn Store>,
    pub objects: Objects,
    pub clock: Arc<dyn Clock>,
    pub config: Arc<Config>,
    pub telemetry: Telemetry,
    pub stopping: CancellationToken,
    pub link: Option<Link>,
    pub tokens: Option<Tokens>,
}

impl Api {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> ApiState {
        Arc::new(Self {
            engine: parts.engine,
            catalog: parts.catalog,
            schedules: parts.schedules,
            tenancy: parts.tenancy,
            store: parts.store,
            objects: parts.objects,
            clock: parts.clock,
            config: parts.config,
            telemetry: parts.telemetry,
            stopping: parts.stopping,
            link: parts.link,
            tokens: parts.tokens,
            uploads: Places::new(MAX_UPLOADS),
            streams: Places::new(MAX_STREAMS),
            replays: Places::new(MAX_REPLAYS),
            transfers: Places::new(MAX_OBJECTS),
        })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cascade",
        description = "Durable workflows whose steps are WebAssembly activities. Timestamps are milliseconds since the Unix epoch, UTC.",
    ),
    components(schemas(problem::ProblemDocument<'static>)),
    security(("key" = [])),
    modifiers(&KeyScheme),
)]
struct Document;

struct KeyScheme;

impl utoipa::Modify for KeyScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, `ck_<id>_<secret>`"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// All routes.
pub fn router(state: ApiState) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .route(crate::cluster::link::PATH, axum::routing::post(onward::ask))
        .fallback(|| async { Problem::not_found("path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                Code::MethodNotAllowed,
                "the path is not used with this method",
            )
        })
        .layer(middleware::from_fn_with_state(
            state.clone(),
            position::carry,
        ))
        .layer(middleware::from_fn(envelope))
        .with_state(state)
}

/// The `OpenAPI` document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().split_for_parts().1;
    position::describe(&mut document);
    document
}

fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(executions::routes())
        .merge(search::routes())
        .merge(workflows::routes())
        .merge(schedules::routes())
        .merge(signals::routes())
        .merge(tasks::routes())
        .merge(callbacks::routes())
        .merge(history::routes())
        .merge(applications::routes())
        .merge(plan::routes())
        .merge(activities::routes())
        .merge(objects::routes())
        .merge(tenants::routes())
        .merge(cluster::routes())
        .merge(system::routes())
}

/// Around every handler: an id, a count, and no panic gets further.
async fn envelope(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let request_id = request_id(&request);
    if let Ok(value) = HeaderValue::try_from(&*request_id) {
        // Wherever the request goes from here, it keeps its name.
        request.headers_mut().insert(REQUEST_ID, value);
    }
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        // The hook of the process has logged where it was.
        Problem::new(Code::Internal, "a bug of the server's; its log has more").into_response()
    });
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let position = response.headers_mut().remove(POSITION);
        response = problem.render(&request_id);
        response
            .headers_mut()
            .extend(position.map(|position| (POSITION, position)));
        if let Some(cause) = problem.cause() {
            tracing::error!(
                request.id = request_id, http.method = %method, http.route = route,
                code = problem.code().name(), cause, "a request failed"
            );
        }
    }
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    telemetry::request(&method, route, response.status(), began.elapsed());
    response
}

/// The client's, if it is plain, else a new one.
fn request_id(request: &Request) -> String {
    let given = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok());
    let plain = |id: &&str| {
        (1..=MAX_REQUEST_ID).contains(&id.len())
            && id
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    };
    match given.filter(plain) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::now_v7().simple().to_string(),
    }
}

/// An answer in JSON.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("plain values with text keys");
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}
