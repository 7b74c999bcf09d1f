//! Capability `http`: requests to the hosts that policy and manifest both allow.
//!
//! ```no_run
//! # #[derive(serde::Deserialize)] struct Quote { price_cents: u64 }
//! # fn quote() -> Result<Quote, cascade_sdk::Error> {
//! use std::time::Duration;
//! use cascade_sdk::{http, json};
//!
//! let quote: Quote = http::post("https://api.example.com/quotes")
//!     .header("accept", "application/json")
//!     .json(&json!({ "sku": "A-1" }))
//!     .timeout(Duration::from_secs(5))
//!     .send()?
//!     .error_for_status()?
//!     .json()?;
//! # Ok(quote)
//! # }
//! ```
//!
//! Every request carries the header `Idempotency-Key`, the same in every attempt of one state entry,
//! so that a service that knows it does nothing twice. Private addresses are refused,
//! after name resolution and on every redirect.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host;

/// How much of an answer goes into an error message: enough to recognise it,
/// little enough for a history.
const EXCERPT: usize = 200;

/// Begins a GET request.
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// Begins a POST request.
pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

/// Begins a PUT request.
pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

/// Begins a PATCH request.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new("PATCH", url)
}

/// Begins a DELETE request.
pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

/// A request that is being put together; [`Request::send`] sends it.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout_ms: Option<u32>,
    /// The first mistake, reported by `send` so that the chain needs one `?` only.
    invalid: Option<String>,
}

impl Request {
    /// Begins a request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout_ms: None,
            invalid: None,
        }
    }

    /// Adds a header; the same name may come more than once.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends these bytes.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends this value as JSON, with the header `content-type` unless one was given.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.body = Some(body),
            Err(error) => {
                self.invalid.get_or_insert(format!("body: {error}"));
            }
        }
        if header(&self.headers, "content-type").is_none() {
            self = self.header("content-type", "application/json");
        }
        self
    }

    /// Waits at most so long; the host's limit holds besides.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        // 49 days are more than any attempt has.
        self.timeout_ms = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Sends the request and waits for the answer, whatever its status.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but [`Error::Status`] and [`Error::Json`].
    pub fn send(self) -> Result<Response, Error> {
        match &self.invalid {
            Some(why) => Err(Error::Invalid(why.clone())),
            None => host::http_send(self),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of that name, upper and lower case being equal.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// All headers, in order.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Json`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Json(error.to_string()))
    }

    /// Makes an error of a status that is not 200 to 299.
    ///
    /// As an activity's failure: 400 and 422 are a `ValidationError`, 401 and 403
    /// an `AuthorizedError`, 404 and 410 a `NotFoundError`, 408 a `TimeoutError`, 429 and everything
    /// from 500 `ServiceUnavailable`; any other is an `HttpError` that is not tried again.
    ///
    /// # Errors
    ///
    /// [`Error::Status`].
    pub fn error_for_status(self) -> Result<Self, Error> {
        if self.is_success() {
            return Ok(self);
        }
        Err(Error::Status {
            status: self.status,
            url: self.url.clone(),
            excerpt: self.text().chars().take(EXCERPT).collect(),
        })
    }
}

/// Why there is no (useful) answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Policy or manifest does not allow it.
    Denied(String),
    /// Not a request that can be sent.
    Invalid(String),
    /// No answer in time.
    Timeout(String),
    /// No connection, or it broke.
    Network(String),
    /// The answer is larger than the limit.
    TooLarge(String),
    /// The answer's status is not 200 to 299.
    Status {
        /// The status code.
        status: u16,
        /// What was asked.
        url: String,
        /// The beginning of the body.
        excerpt: String,
    },
    /// The body is not the JSON that was asked for.
    Json(String),
}

impl std::error::Error for Error {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "request denied: {why}"),
            Self::Invalid(why) => write!(f, "invalid request: {why}"),
            Self::Timeout(why) => write!(f, "no answer in time: {why}"),
            Self::Network(why) => write!(f, "network: {why}"),
            Self::TooLarge(what) => write!(f, "answer too large: {what}"),
            Self::Status {
                status,
                url,
                excerpt,
            } if excerpt.is_empty() => {
                write!(f, "{url} answered {status}")
            }
            Self::Status {
                status,
                url,
                excerpt,
            } => {
                write!(f, "{url} answered {status}: {excerpt}")
            }
            Self::Json(why) => write!(f, "body of the answer: {why}"),
        }
    }
}

impl Error {
    /// Name and retryability as an activity's failure.
    pub(crate) fn classify(&self) -> (&'static str, bool) {
        match self {
            Self::Denied(_) => ("AuthorizedError", false),
            Self::Invalid(_) => ("ValidationError", false),
            Self::Timeout(_) => ("TimeoutError", true),
            Self::Network(_) => ("NetworkError", true),
            Self::TooLarge(_) => ("ResponseTooLarge", false),
            Self::Json(_) => ("InvalidResponse", false),
            Self::Status { status, .. } => match status {
                400 | 422 => ("ValidationError", false),
                401 | 403 => ("AuthorizedError", false),
                404 | 410 => ("NotFoundError", false),
                408 => ("TimeoutError", true),
                429 | 500.. => ("ServiceUnavailable", true),
                _ => ("HttpError", false),
            },
        }
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}
