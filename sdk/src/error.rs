//! The failure that an activity reports.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::{http, kv};

/// A failure that the activity reports.
///
/// The name is what a workflow matches in `catch` and `retries`; the message is
/// for people.
///
/// ```
/// use cascade_sdk::{Error, json};
///
/// let error = Error::new("PaymentDeclined", "the card has expired")
///     .retryable(false)
///     .details(json!({ "card": "**** 4242" }));
/// assert_eq!(error.to_string(), "PaymentDeclined: the card has expired");
/// ```
///
/// # Names that Cascade knows
///
/// | Name | Tried again |
/// |---|---|
/// | `ValidationError`, `AuthorizedError` (or `AuthorizationError`), `NotFoundError`, `InvalidInput` | never |
/// | `ServiceUnavailable`, `TimeoutError`, `NetworkError`, `ConnectionError` | yes |
/// | any other | yes, unless [`Error::retryable`] says no |
///
/// # `?` on other errors
///
/// Any [`std::error::Error`] becomes an `ActivityError` whose message is the
/// error and its causes. If one of these is an [`http::Error`] or
/// [`kv::Error`], its name and retryability are used: a timeout stays a
/// `TimeoutError`, also inside an error type of your own.
///
/// ```
/// fn parse(text: &str) -> Result<u32, cascade_sdk::Error> {
///     Ok(text.parse::<u32>()?)
/// }
/// assert_eq!(parse("x").unwrap_err().name(), "ActivityError");
/// ```
///
/// For that reason this type is not itself a [`std::error::Error`].
#[derive(Clone, PartialEq)]
pub struct Error {
    name: Cow<'static, str>,
    message: String,
    retryable: Option<bool>,
    details: Option<Value>,
}

impl Error {
    /// The name of an error that was given none.
    pub const UNNAMED: &'static str = "ActivityError";

    /// A failure with a name, as in `PaymentDeclined`, and a message for people.
    pub fn new(name: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            message: message.into(),
            retryable: None,
            details: None,
        }
    }

    /// The failure of an input that can never succeed; never tried again.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new("InvalidInput", message).retryable(false)
    }

    /// Says whether trying again may help. Unless this is said, the rules for
    /// the name decide.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }

    /// Adds data for whoever catches the error, as `$.error.details`. Data that
    /// has no JSON form, such as a map whose keys are not text, is left out
    /// and said so in the message.
    #[must_use]
    pub fn details(mut self, details: impl Serialize) -> Self {
        match serde_json::to_value(details) {
            Ok(details) => self.details = Some(details),
            Err(error) => self.message = format!("{} (without details: {error})", self.message),
        }
        self
    }

    /// The name that `catch` and `retries` match.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether trying again may help; `None` leaves it to the rules for the name.
    pub fn is_retryable(&self) -> Option<bool> {
        self.retryable
    }

    /// Data for whoever catches the error.
    pub fn get_details(&self) -> Option<&Value> {
        self.details.as_ref()
    }
}

/// `name: message`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(retryable) = self.retryable {
            write!(f, " (retryable: {retryable})")?;
        }
        if let Some(details) = &self.details {
            write!(f, " {details}")?;
        }
        Ok(())
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let (mut name, mut retryable) = (Self::UNNAMED, None);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        // The first cause, outermost first, that knows its name decides.
        while let Some(current) = cause {
            if name == Self::UNNAMED
                && let Some(known) = classify(current)
            {
                (name, retryable) = (known.0, Some(known.1));
            }
            let text = current.to_string();
            // Many errors print their cause themselves.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = current.source();
        }
        Self {
            name: Cow::Borrowed(name),
            message,
            retryable,
            details: None,
        }
    }
}

/// Name and retryability of the errors that the SDK itself gives.
fn classify(error: &(dyn std::error::Error + 'static)) -> Option<(&'static str, bool)> {
    if let Some(error) = error.downcast_ref::<http::Error>() {
        Some(error.classify())
    } else {
        error.downcast_ref::<kv::Error>().map(kv::Error::classify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Wrapped<E>(E);

    impl<E: std::error::Error + 'static> std::error::Error for Wrapped<E> {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    impl<E> fmt::Display for Wrapped<E> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("loading the price")
        }
    }

    fn check(error: impl Into<Error>, name: &str, message: &str, retryable: Option<bool>) {
        let error = error.into();
        assert_eq!(
            (error.name(), error.message(), error.is_retryable()),
            (name, message, retryable)
        );
    }

    #[test]
    fn the_question_mark_keeps_what_is_known_of_the_cause() {
        let timeout = http::Error::Timeout("5 s".into());
        // Names as in the design's table of errors; a denial does not go away by itself.
        check(
            timeout.clone(),
            "TimeoutError",
            "no answer in time: 5 s",
            Some(true),
        );
        check(
            Wrapped(timeout),
            "TimeoutError",
            "loading the price: no answer in time: 5 s",
            Some(true),
        );
        check(
            kv::Error::Denied("no grant".into()),
            "AuthorizedError",
            "key-value store denied: no grant",
            Some(false),
        );
    }

    #[test]
    fn an_error_that_says_nothing_leaves_retrying_to_the_rules() {
        let error = "x".parse::<u8>().expect_err("not a number");
        check(error, Error::UNNAMED, "invalid digit found in string", None);
    }

    #[test]
    fn details_without_a_json_form_are_named_not_lost() {
        let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = Error::new("Odd", "odd").details(keys);
        assert_eq!(error.get_details(), None);
        assert!(
            error
                .message()
                .starts_with("odd (without details: key must be")
        );
    }
}
