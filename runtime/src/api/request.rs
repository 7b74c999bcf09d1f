//! What all handlers need of a request: who asks, ids, bodies, queries, waits.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use cascade_cdl::ExecutionId;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use super::{ApiState, position};
use crate::config::units;
use crate::tenancy::{Principal, Role, Tenant};

/// Names the tenant that a key of the server acts for.
pub(super) const TENANT_HEADER: HeaderName = HeaderName::from_static("cascade-tenant");

/// Longest query string that is read.
const MAX_QUERY: usize = 4096;

/// Longest idempotency key, in bytes: a UUID or a URL.
const MAX_KEY: usize = 255;

/// The least role that a route asks for, as a type: a handler without one does
/// not get at the tenant.
pub(super) trait Least: Send + Sync + 'static {
    /// That role.
    const ROLE: Role;
}

macro_rules! least {
    ($($name:ident),*) => {$(
        /// Routes for this role and those above it.
        pub(super) struct $name;

        impl Least for $name {
            const ROLE: Role = Role::$name;
        }
    )*};
}

least!(Viewer, Operator, Author, Admin);

/// Who asks, with at least the role `L`, and for which tenant.
pub(super) struct Caller<L> {
    /// The tenant whose things the request is about.
    pub tenant: Arc<Tenant>,
    /// Id of the key that was sent.
    pub key: Arc<str>,
    least: PhantomData<L>,
}

impl<L: Least> FromRequestParts<ApiState> for Caller<L> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let principal = authenticate(&parts.headers, state).await?;
        let named = parts.headers.get(TENANT_HEADER);
        let named = named.map(|value| value.to_str().unwrap_or_default());
        let (id, key) = match principal {
            Principal::Tenant { tenant, role, key } => {
                if named.is_some_and(|named| named != tenant.as_str()) {
                    let detail = "this key belongs to another tenant than the one named";
                    return Err(Problem::new(Code::Forbidden, detail));
                }
                if role < L::ROLE {
                    let detail = format!(
                        "this takes the role `{}`, and the key has `{}`",
                        L::ROLE.name(),
                        role.name()
                    );
                    return Err(Problem::new(Code::Forbidden, detail));
                }
                (tenant, key)
            }
            Principal::Server { key } => match named.map(str::parse) {
                Some(Ok(id)) => (id, key),
                Some(Err(_)) => return Err(Problem::not_found("tenant")),
                None => {
                    let detail =
                        "a key of the server names the tenant in the header Cascade-Tenant";
                    return Err(Problem::new(Code::InvalidRequest, detail));
                }
            },
        };
        let tenant = state.tenancy.look_for(&id).await?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        position::admit(parts);
        Ok(Self {
            tenant,
            key,
            least: PhantomData,
        })
    }
}

/// A key of the server itself.
pub(super) struct ServerCaller;

impl FromRequestParts<ApiState> for ServerCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        match authenticate(&parts.headers, state).await? {
            Principal::Server { .. } => {
                position::admit(parts);
                Ok(Self)
            }
            Principal::Tenant { .. } => {
                let detail = "this takes a key of the server (server.admin_keys in cascade.yaml)";
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }
}

async fn authenticate(headers: &HeaderMap, state: &ApiState) -> Result<Principal, Problem> {
    let missing = || {
        let detail = "send an API key in the header `Authorization: Bearer ck_...`";
        Problem::new(Code::Unauthenticated, detail)
    };
    let value = headers.get(AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(state.tenancy.authenticate(key.trim()).await?)
}

/// The whole body, if it has at most `limit` bytes and arrives in time.
pub(super) async fn read_body(
    state: &ApiState,
    request: Request,
    limit: u64,
) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::TooLarge,
            format!("the body may have at most {limit} bytes"),
        )
    };
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        return Err(too_large());
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let body = Limited::<Body>::new(request.into_body(), limit).collect();
    match tokio::time::timeout(state.config.server.request_timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(
            Code::InvalidRequest,
            "the body did not arrive",
        )),
        Err(_) => Err(Problem::new(
            Code::RequestTimeout,
            "the body did not arrive in time",
        )),
    }
}

/// A JSON body.
pub(super) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::InvalidRequest, format!("the body: {error}")))
}

/// What stands in the place of the names in a route.
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(Self(path.0)),
            Err(error) => Err(Problem::new(Code::InvalidRequest, error.body_text())),
        }
    }
}

/// What stands behind the `?`.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if query.len() > MAX_QUERY {
            let detail = format!("the query may have at most {MAX_QUERY} bytes");
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(query) => Ok(Self(query.0)),
            Err(error) => Err(Problem::new(Code::InvalidRequest, error.body_text())),
        }
    }
}

/// An execution's id; what is none gets the answer of one that is not there.
pub(super) fn execution_id(text: &str) -> Result<ExecutionId, Problem> {
    text.parse().map_err(|_| Problem::not_found("execution"))
}

/// How long to wait: `?wait=30s`, or the header `Prefer: wait=30` (RFC 7240).
pub(super) fn wait(
    state: &ApiState,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Option<Duration>, Problem> {
    let longest = state.config.server.max_wait;
    if let Some(text) = query {
        let wait = units::parse_duration(text).ok_or_else(|| {
            let detail = "`wait` must be a duration such as `30s`, or a number of seconds";
            Problem::new(Code::InvalidRequest, detail)
        })?;
        return Ok(Some(wait.min(longest)));
    }
    // A preference that cannot be met is ignored, as the RFC has it.
    let preferences = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let wait = preferences
        .flat_map(|value| value.split(','))
        .find_map(|item| item.trim().strip_prefix("wait=")?.parse::<u32>().ok());
    Ok(wait.map(|seconds| Duration::from_secs(seconds.into()).min(longest)))
}

/// What makes a request one of a kind: the header `Idempotency-Key`.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match header(headers, "idempotency-key")? {
        Some(key) if key.is_empty() || key.len() > MAX_KEY => {
            let detail = format!("`Idempotency-Key` must have 1 to {MAX_KEY} characters");
            Err(Problem::new(Code::InvalidRequest, detail))
        }
        key => Ok(key.map(str::to_owned)),
    }
}

/// A header's text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    value.to_str().map(Some).map_err(|_| {
        let detail = format!("the header `{name}` may have visible ASCII characters only");
        Problem::new(Code::InvalidRequest, detail)
    })
}
