//! `Cascade-Position`: what a client knows, so that no replica shows it less.
//!
//! Each answer carries how far the database was, as a token; a client sends the last one with
//! what it reads. A replica answers only if it has come as far, else the primary does. Who
//! sends none might know anything, and reads the primary. Only databases that can have
//! replicas give tokens out; a server on a file ignores them.
//!
//! A token names a position and has a code made with the secret of the database, so that
//! nobody is misled by what somebody has made up. It protects nothing: what may be read is
//! decided by the key.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cascade_cdl::{ExecutionId, TenantId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::{Object, OpenApi, RefOr, Required, Type};

use super::ApiState;
use super::problem::{Code, Problem};
use crate::store::{self, Position, Reader, Since, Stored, Summary, Whole};

/// Where tokens travel, both ways.
pub const POSITION: HeaderName = HeaderName::from_static("cascade-position");

/// In place of a token: whatever a replica in service has will do.
const ANY: &str = "any";

/// Digits of a token: of the timeline, of the position on it, and of the code.
const TIMELINE: usize = 8;
const LSN: usize = 16;
const CODE: usize = 32;

/// What stands for all that there is, in place of a position: only the primary has that. It
/// is given out where the position is not known.
const NOW: Position = Position {
    timeline: u32::MAX,
    lsn: u64::MAX,
};

/// Writes and reads tokens.
pub struct Tokens {
    code: Hmac<Sha256>,
}

impl Tokens {
    /// With the secret that all servers on the database know.
    pub fn new(secret: &[u8]) -> Self {
        let mut code = Hmac::new_from_slice(secret).expect("HMAC takes any key");
        // The secret has other uses, too.
        code.update(b"position ");
        Self { code }
    }

    /// The token of a position, or of all that there is. Tokens have the same length, and of
    /// two the later one is greater as text.
    fn write(&self, position: Option<Position>) -> HeaderValue {
        let Position { timeline, lsn } = position.unwrap_or(NOW);
        let place = format!("{timeline:08x}{lsn:016x}");
        let token = format!("{place}{}", self.code_of(&place));
        HeaderValue::try_from(token).expect("hexadecimal digits")
    }

    /// What whoever sends a token knows; `None` if it is none.
    fn read(&self, token: &str) -> Option<Since> {
        let is_plain = token.len() == TIMELINE + LSN + CODE && token.is_ascii();
        if !is_plain {
            return None;
        }
        let (place, code) = token.split_at(TIMELINE + LSN);
        if !bool::from(self.code_of(place).as_bytes().ct_eq(code.as_bytes())) {
            return None;
        }
        let (timeline, lsn) = place.split_at(TIMELINE);
        let position = Position {
            timeline: u32::from_str_radix(timeline, 16).ok()?,
            lsn: u64::from_str_radix(lsn, 16).ok()?,
        };
        Some(if position == NOW {
            Since::Now
        } else {
            Since::At(position)
        })
    }

    fn code_of(&self, place: &str) -> String {
        use std::fmt::Write as _;
        let mut code = self.code.clone();
        code.update(place.as_bytes());
        let mut text = String::with_capacity(CODE);
        for byte in &code.finalize().into_bytes()[..CODE / 2] {
            write!(text, "{byte:02x}").expect("a text grows");
        }
        text
    }
}

/// What a request says that its client knows, and whether it is worth an answer.
struct Carried {
    since: Since,
    /// Whether it has a key.
    is_known: AtomicBool,
}

/// Around every handler: reads the token of the request, and gives one with the answer.
pub(super) async fn carry(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(tokens) = &state.tokens else {
        return next.run(request).await;
    };
    let since = match since(tokens, request.headers()) {
        Ok(since) => since,
        Err(problem) => return problem.into_response(),
    };
    let carried = Arc::new(Carried {
        since,
        is_known: AtomicBool::new(false),
    });
    request.extensions_mut().insert(Arc::clone(&carried));
    let mut response = next.run(request).await;
    // It has one if all that it says was read of a replica, or if another node answered.
    if carried.is_known.load(Ordering::Relaxed) && !response.headers().contains_key(POSITION) {
        let position = match state.store.replicas() {
            Some(replicas) if is_told(&response) => replicas.position().await,
            _ => None,
        };
        let token = tokens.write(position);
        response.headers_mut().insert(POSITION, token);
    }
    response
}

/// Notes that a request has a key that is good for what it asks.
pub(super) fn admit(parts: &Parts) {
    if let Some(carried) = parts.extensions.get::<Arc<Carried>>() {
        carried.is_known.store(true, Ordering::Relaxed);
    }
}

fn since(tokens: &Tokens, headers: &HeaderMap) -> Result<Since, Problem> {
    let mut given = headers.get_all(POSITION).iter();
    let Some(token) = given.next() else {
        return Ok(Since::Now);
    };
    let token = token.to_str().ok().filter(|_| given.next().is_none());
    let since = token.and_then(|token| match token {
        ANY => Some(Since::Anything),
        token => tokens.read(token),
    });
    since.ok_or_else(|| {
        let detail = "`Cascade-Position` must be one that an answer of a server on this database \
                      had, or `any`; without the header, the newest is read";
        Problem::new(Code::InvalidPosition, detail)
    })
}

/// Whether a position of now holds all that an answer tells, and all that was done for it.
fn is_told(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let is_live = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    // What is still to come is told later than now; and whoever could not do what was asked
    // will not be able to say how far it is.
    !is_live && !response.status().is_server_error()
}

/// Reads what the client may be shown by a replica.
pub(super) struct Reads {
    state: ApiState,
    reader: Arc<dyn Reader>,
}

impl FromRequestParts<ApiState> for Reads {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let carried = parts.extensions.get::<Arc<Carried>>();
        let since = carried.map_or(Since::Now, |carried| carried.since);
        let reader = match state.store.replicas() {
            Some(replicas) => replicas.reader(since),
            None => Arc::new(Whole(state.store.clone())),
        };
        let state = state.clone();
        Ok(Self { state, reader })
    }
}

impl Deref for Reads {
    type Target = dyn Reader;

    fn deref(&self) -> &Self::Target {
        &*self.reader
    }
}

impl Reads {
    /// An execution as a replica has it, if it has ended there; else as it is: what has not
    /// ended moves on, and what is not there may be on its way.
    pub(super) async fn load_settled(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
    ) -> Result<Option<Stored>, store::Error> {
        let stored = self.reader.load(tenant, id).await?;
        let is_settled = |stored: &Stored| stored.summary.closed_at.is_some();
        if self.reader.seen().is_none() || stored.as_ref().is_some_and(is_settled) {
            return Ok(stored);
        }
        self.reader.leave();
        self.reader.load(tenant, id).await
    }

    /// The row of an execution, which may be on its way to a replica.
    pub(super) async fn summary_if_any(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
    ) -> Result<Option<Summary>, store::Error> {
        let summary = self.reader.summary(tenant, id).await?;
        if self.reader.seen().is_none() || summary.is_some() {
            return Ok(summary);
        }
        self.reader.leave();
        self.reader.summary(tenant, id).await
    }

    /// An answer that tells only what was read by this, with where that was.
    pub(super) fn mark(&self, mut response: Response) -> Response {
        if let (Some(tokens), Some(position)) = (&self.state.tokens, self.reader.seen()) {
            let token = tokens.write(Some(position));
            response.headers_mut().insert(POSITION, token);
        }
        response
    }
}

/// Adds the header to all that the document says of `/v1`.
pub(super) fn describe(document: &mut OpenApi) {
    const SENT: &str = "The header of an earlier answer: nothing older than what that told is \
        read. `any`: whatever a replica has. Absent: the newest";
    const GIVEN: &str = "On PostgreSQL: what is known with this answer, for what is read next";
    let text = || Object::with_type(Type::String);
    let parameter = ParameterBuilder::new()
        .name("Cascade-Position")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(SENT))
        .schema(Some(text()))
        .build();
    let header = HeaderBuilder::new()
        .schema(Some(text()))
        .description(Some(GIVEN))
        .build();
    let paths = document.paths.paths.iter_mut();
    for (_, item) in
        paths.filter(|(path, _)| path.starts_with("/v1/") && *path != "/v1/openapi.json")
    {
        if let Some(read) = &mut item.get {
            let parameters = read.parameters.get_or_insert_default();
            parameters.push(RefOr::T(parameter.clone()));
        }
        for operation in operations(item) {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    let header = RefOr::T(header.clone());
                    response
                        .headers
                        .insert("Cascade-Position".to_owned(), header);
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let operations = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.head,
        &mut item.patch,
    ];
    operations.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tokens: &Tokens, values: &[&str]) -> Result<Since, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(POSITION, value);
        }
        since(tokens, &headers).map_err(|problem| problem.code())
    }

    #[test]
    fn a_token_says_what_its_client_knows() {
        let tokens = Tokens::new(b"secret");
        let position = Position {
            timeline: 3,
            lsn: 0xab_cdef_0123,
        };
        let token = tokens.write(Some(position));
        let token = token.to_str().expect("text");
        assert_eq!(read(&tokens, &[token]), Ok(Since::At(position)));
        let now = tokens.write(None);
        assert_eq!(
            read(&tokens, &[now.to_str().expect("text")]),
            Ok(Since::Now)
        );
        assert_eq!(read(&tokens, &[]), Ok(Since::Now));
        assert_eq!(read(&tokens, &["any"]), Ok(Since::Anything));
    }

    #[test]
    fn what_was_made_up_is_no_token() {
        let tokens = Tokens::new(b"secret");
        let position = Position {
            timeline: 1,
            lsn: 77,
        };
        let good = tokens.write(Some(position));
        let good = good.to_str().expect("text");
        let other = Tokens::new(b"another").write(Some(position));
        let later = good.replacen("4d", "4e", 1);
        let upper = good.to_uppercase();
        for forged in [
            "",
            "ANY",
            "0/16B3748",
            "'; DROP TABLE executions; --",
            &good[1..],
            &format!("{good}0"),
            &later,
            &upper,
            &"0".repeat(good.len()),
            &"f".repeat(good.len()),
            &"ä".repeat(good.len() / 2),
            &"f".repeat(10_000),
            other.to_str().expect("text"),
        ] {
            assert_ne!(forged, good);
            assert_eq!(
                read(&tokens, &[forged]),
                Err(Code::InvalidPosition),
                "{forged}"
            );
        }
        assert_eq!(
            read(&tokens, &[good, good]),
            Err(Code::InvalidPosition),
            "two"
        );
    }

    #[test]
    fn later_tokens_are_greater() {
        let tokens = Tokens::new(b"secret");
        let at = |timeline, lsn| tokens.write(Some(Position { timeline, lsn }));
        let order = [
            at(1, 9),
            at(1, 10),
            at(1, 1 << 40),
            at(2, 0),
            at(16, 0),
            tokens.write(None),
        ];
        assert!(order.is_sorted(), "{order:?}");
        assert!(
            order
                .iter()
                .all(|token| token.len() == TIMELINE + LSN + CODE)
        );
    }

    #[test]
    fn the_document_tells_of_positions() {
        let document = serde_json::to_value(super::super::openapi()).expect("serialises");
        let list = &document["paths"]["/v1/executions"];
        let parameters = list["get"]["parameters"].as_array().expect("has some");
        let named = |name: &str| parameters.iter().any(|of| of["name"] == name);
        assert!(
            named("Cascade-Position") && named("cursor"),
            "{parameters:?}"
        );
        let started = &list["post"]["responses"]["202"]["headers"];
        assert!(started["Cascade-Position"].is_object(), "{started}");
        let health = &document["paths"]["/health"]["get"]["responses"]["200"];
        assert!(health["headers"].is_null(), "{health}");
    }
}
