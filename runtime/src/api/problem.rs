//! The only place where errors become HTTP: problem documents (RFC 9457).
//!
//! Each kind of problem has a [`Code`] that never changes its meaning and a row
//! in `docs/http.md`. What went wrong inside goes to the log, under the request
//! id that the client gets.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cascade_cdl::InvalidTenant;
use cascade_cdl::schedule::{BackfillError, TriggerError};
use cascade_cdl::schema::Unfit;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::engine::{ControlError, StartError};
use crate::sandbox::AdmitError;
use crate::{catalog, objects, schedules, store, tenancy};

/// What a client that came at a bad time is told to wait, unless somebody knows better.
const RETRY_SOON: Duration = Duration::from_secs(1);

macro_rules! codes {
    ($($name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// The kind of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
        pub enum Code {
            $(#[doc = $title] #[serde(rename = $code)] $name,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as clients see it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What the code stands for, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    InvalidRequest = "invalid_request", BAD_REQUEST, "the request cannot be read";
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "the cursor does not belong to this list";
    InvalidPosition = "invalid_position", BAD_REQUEST, "the position is none that this database gave out";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "no valid API key";
    Forbidden = "forbidden", FORBIDDEN, "the key may not do this";
    NotFound = "not_found", NOT_FOUND, "there is no such thing";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "the path is not used with this method";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "the request took too long to arrive";
    Conflict = "conflict", CONFLICT, "it is there already, with other content";
    KeyReused = "key_reused", CONFLICT, "the idempotency key or id was used for another request";
    AlreadyClosed = "already_closed", CONFLICT, "the execution has ended";
    WorkflowPaused = "workflow_paused", CONFLICT, "nothing new of the workflow is started";
    ScheduleBusy = "schedule_busy", CONFLICT, "an earlier execution of the schedule runs";
    NotRetryable = "not_retryable", CONFLICT, "the execution is not one that can be retried";
    UnknownSignal = "unknown_signal", UNPROCESSABLE_ENTITY, "the workflow waits for no such signal";
    NotAsked = "not_asked", CONFLICT, "nobody is asked for this";
    InvalidInput = "invalid_input", UNPROCESSABLE_ENTITY, "the input is not as the workflow asks";
    InvalidAnswer = "invalid_answer", UNPROCESSABLE_ENTITY, "the answer is not as the state asks";
    InboxFull = "inbox_full", TOO_MANY_REQUESTS, "too many signals wait for the execution";
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, "it has changed meanwhile";
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, "the request is too large";
    UnknownWorkflow = "unknown_workflow", UNPROCESSABLE_ENTITY, "there is no such workflow";
    InvalidApplication = "invalid_application", UNPROCESSABLE_ENTITY, "the application is not valid";
    InvalidModule = "invalid_module", UNPROCESSABLE_ENTITY, "the module cannot be run";
    InvalidSettings = "invalid_settings", UNPROCESSABLE_ENTITY, "the settings cannot be";
    LimitReached = "limit_reached", TOO_MANY_REQUESTS, "a limit of the tenant has been reached";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "the workflow is started too often";
    Busy = "busy", TOO_MANY_REQUESTS, "the server is busy";
    Internal = "internal", INTERNAL_SERVER_ERROR, "something went wrong inside";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "the server cannot answer now";
}

/// Why a request was not done.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    retry_after: Option<Duration>,
    /// Single problems, as JSON.
    errors: Option<Box<RawValue>>,
    /// For the log only.
    cause: Option<String>,
    /// The bucket that the request is about, if another node has it.
    elsewhere: Option<u32>,
}

/// A problem document.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument<'a> {
    /// Where the code is explained.
    #[serde(rename = "type")]
    kind: String,
    /// What the code stands for.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// The kind of the problem.
    code: Code,
    /// What went wrong this time.
    detail: &'a str,
    /// Names the request in the server's log.
    request_id: &'a str,
    /// Single problems, where there are several: diagnostics of an application.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    errors: Option<&'a RawValue>,
}

impl Problem {
    /// A problem of this kind; `detail` is for the client.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let waits = matches!(
            code,
            Code::Busy | Code::InboxFull | Code::LimitReached | Code::Unavailable
        );
        Self {
            code,
            detail: detail.into(),
            retry_after: waits.then_some(RETRY_SOON),
            errors: None,
            cause: None,
            elsewhere: None,
        }
    }

    /// There is none, or it is somebody else's: the answer is the same.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// Its kind.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What is for the log only.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The same, because another node has this bucket. Nothing was done.
    pub(super) fn at(mut self, bucket: u32) -> Self {
        self.elsewhere = Some(bucket);
        self
    }

    /// The bucket that another node has to be asked about.
    pub(super) fn elsewhere(&self) -> Option<u32> {
        self.elsewhere
    }

    /// The answer to the request with this id.
    pub fn render(&self, request_id: &str) -> Response {
        let status = self.code.status();
        let document = ProblemDocument {
            kind: format!(
                "{}/blob/main/docs/http.md#{}",
                env!("CARGO_PKG_REPOSITORY"),
                self.code.name()
            ),
            title: self.code.title(),
            status: status.as_u16(),
            code: self.code,
            detail: &self.detail,
            request_id,
            errors: self.errors.as_deref(),
        };
        let body = serde_json::to_vec(&document).expect("plain values with text keys");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, kind);
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
        }
        if self.code == Code::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(axum::http::header::WWW_AUTHENTICATE, scheme);
        }
        response
    }

    fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    fn errors(mut self, errors: &impl Serialize) -> Self {
        self.errors = serde_json::value::to_raw_value(errors).ok();
        self
    }

    fn unfit(code: Code, detail: String, unfit: &Unfit) -> Self {
        let problem = Self::new(code, detail);
        match unfit {
            Unfit::TooMuch => problem,
            Unfit::Misfits(misfits) => problem.errors(misfits),
        }
    }

    fn internal(code: Code, cause: &impl ToString) -> Self {
        let mut problem = Self::new(code, "the server's log has more under the request id");
        problem.cause = Some(cause.to_string());
        problem
    }
}

/// Travels to the envelope around all handlers, which knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<InvalidTenant> for Problem {
    fn from(error: InvalidTenant) -> Self {
        Self::new(Code::InvalidRequest, error.to_string())
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) | store::Error::Closed | store::Error::InUse { .. } => {
                Self::internal(Code::Unavailable, &error)
            }
            store::Error::Damaged(_) => Self::internal(Code::Internal, &error),
            store::Error::TooLarge { .. } => Self::new(Code::TooLarge, error.to_string()),
            store::Error::OverQuota { .. } | store::Error::ObjectQuota { .. } => {
                Self::new(Code::LimitReached, error.to_string())
            }
            store::Error::Exists(_) | store::Error::Refused(_) => {
                Self::new(Code::Conflict, error.to_string())
            }
        }
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let detail = error.to_string();
        match error {
            StartError::UnknownWorkflow { .. } => Self::new(Code::UnknownWorkflow, detail),
            StartError::Paused(_) => Self::new(Code::WorkflowPaused, detail),
            StartError::InputTooLarge { .. } => Self::new(Code::TooLarge, detail),
            StartError::Unfit(unfit) => Self::unfit(Code::InvalidInput, detail, &unfit),
            StartError::TooFast { retry_after, .. } => {
                Self::new(Code::RateLimited, detail).retry_after(retry_after)
            }
            StartError::NoShardKey(_) | StartError::Invalid(_) => {
                Self::new(Code::InvalidInput, detail)
            }
            StartError::Full(_) => Self::new(Code::LimitReached, detail),
            StartError::KeyReused(_) => Self::new(Code::KeyReused, detail),
            StartError::Busy { retry_after } => {
                Self::new(Code::Busy, detail).retry_after(retry_after)
            }
            StartError::Interrupted => Self::new(Code::Unavailable, detail),
            StartError::Elsewhere { bucket } => Self::new(Code::Unavailable, detail).at(bucket),
            StartError::Store(error) => error.into(),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let detail = error.to_string();
        match error {
            ControlError::NotFound => Self::not_found("execution"),
            ControlError::AlreadyClosed => Self::new(Code::AlreadyClosed, detail),
            ControlError::NotRetryable => Self::new(Code::NotRetryable, detail),
            ControlError::UnknownSignal(_) => Self::new(Code::UnknownSignal, detail),
            ControlError::KeyReused => Self::new(Code::KeyReused, detail),
            ControlError::InboxFull(_) => Self::new(Code::InboxFull, detail),
            ControlError::PayloadTooLarge { .. } => Self::new(Code::TooLarge, detail),
            ControlError::NotAsked | ControlError::NotAwaited => Self::new(Code::NotAsked, detail),
            ControlError::MovedOn => Self::new(Code::Conflict, detail),
            ControlError::Unfit(unfit) => Self::unfit(Code::InvalidAnswer, detail, &unfit),
            ControlError::Full(_) => Self::new(Code::LimitReached, detail),
            ControlError::Busy { retry_after } => {
                Self::new(Code::Busy, detail).retry_after(retry_after)
            }
            ControlError::Interrupted => Self::new(Code::Unavailable, detail),
            ControlError::Elsewhere { bucket } => Self::new(Code::Unavailable, detail).at(bucket),
            ControlError::Store(error) => error.into(),
        }
    }
}

impl From<tenancy::Denied> for Problem {
    fn from(error: tenancy::Denied) -> Self {
        match error {
            tenancy::Denied::Unknown => Self::new(Code::Unauthenticated, error.to_string()),
            tenancy::Denied::Busy => Self::new(Code::Busy, error.to_string()),
            tenancy::Denied::Store(error) => error.into(),
        }
    }
}

impl From<tenancy::Error> for Problem {
    fn from(error: tenancy::Error) -> Self {
        let detail = error.to_string();
        match error {
            tenancy::Error::Configured(_) => Self::new(Code::Conflict, detail),
            tenancy::Error::NoTenant(_) => Self::not_found("tenant"),
            tenancy::Error::ZeroLimit(_) | tenancy::Error::Label => {
                Self::new(Code::InvalidSettings, detail)
            }
            tenancy::Error::TooMany(_) => Self::new(Code::LimitReached, detail),
            tenancy::Error::Store(error) => error.into(),
        }
    }
}

impl From<schedules::Error> for Problem {
    fn from(error: schedules::Error) -> Self {
        let detail = error.to_string();
        match error {
            schedules::Error::NotFound => Self::not_found("schedule"),
            schedules::Error::Trigger(TriggerError::Overlap) => {
                Self::new(Code::ScheduleBusy, detail)
            }
            schedules::Error::Trigger(TriggerError::Full)
            | schedules::Error::Backfill(BackfillError::TooMany { .. }) => {
                Self::new(Code::LimitReached, detail)
            }
            schedules::Error::Backfill(BackfillError::Backwards | BackfillError::Future) => {
                Self::new(Code::InvalidRequest, detail)
            }
            schedules::Error::Interrupted => Self::new(Code::Unavailable, detail),
            schedules::Error::Store(error) => error.into(),
        }
    }
}

impl From<objects::Error> for Problem {
    fn from(error: objects::Error) -> Self {
        let detail = error.to_string();
        match error {
            objects::Error::Bucket(_) | objects::Error::Key => {
                Self::new(Code::InvalidRequest, detail)
            }
            objects::Error::TooLarge(_) => Self::new(Code::TooLarge, detail),
            objects::Error::Io(error) => Self::internal(Code::Unavailable, &error),
            objects::Error::Store(error) => error.into(),
        }
    }
}

impl From<catalog::Error> for Problem {
    fn from(error: catalog::Error) -> Self {
        let detail = error.to_string();
        match error {
            catalog::Error::Name(_) | catalog::Error::CountedVersion(_) => {
                Self::new(Code::InvalidRequest, detail)
            }
            catalog::Error::VersionTaken { .. } => Self::new(Code::Conflict, detail),
            catalog::Error::Invalid { diagnostics, .. } => {
                Self::new(Code::InvalidApplication, detail).errors(&diagnostics)
            }
            catalog::Error::OtherName { .. } => Self::new(Code::InvalidApplication, detail),
            catalog::Error::Changed(_) => Self::new(Code::PreconditionFailed, detail),
            catalog::Error::Module(AdmitError::Invalid(_)) => {
                Self::new(Code::InvalidModule, detail)
            }
            catalog::Error::Module(AdmitError::Unavailable(cause)) => {
                Self::internal(Code::Unavailable, &cause)
            }
            catalog::Error::Manifest(_) => Self::new(Code::InvalidSettings, detail),
            catalog::Error::TooMany { .. } | catalog::Error::TooManyBytes { .. } => {
                Self::new(Code::LimitReached, detail)
            }
            catalog::Error::Busy => Self::new(Code::Busy, detail),
            catalog::Error::NoWorkflow { .. } => Self::not_found("workflow"),
            catalog::Error::NoTenant(_) => Self::not_found("tenant"),
            catalog::Error::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented() {
        let page = include_str!("../../../docs/http.md");
        for code in Code::ALL {
            let row = format!("`{}` | {}", code.name(), code.status().as_u16());
            assert!(page.contains(&row), "docs/http.md lacks {row}");
        }
    }

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let problem = Problem::from(store::Error::Damaged("secret path /x".to_owned()));
        assert_eq!(problem.code(), Code::Internal);
        assert!(!problem.detail.contains("secret"));
        assert!(
            problem
                .cause()
                .is_some_and(|cause| cause.contains("secret path"))
        );
    }

    #[test]
    fn back_pressure_says_when_to_come_back() {
        let busy = StartError::Busy {
            retry_after: Duration::from_millis(10),
        };
        let response = Problem::from(busy).render("r");
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        // Whole seconds, and 0 would mean at once.
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}
