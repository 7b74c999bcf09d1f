//! Capability `key-value`: a small store of the tenant's own.
//!
//! All activities of a tenant share it, so a key begins with something of the
//! activity's own, as in `charges/<order>`. Values are JSON here; the functions
//! in `_bytes` take them as they are.
//!
//! An attempt may be repeated after it wrote. What makes that harmless is to
//! write with [`compare_and_set`], under a key made of
//! [`Context::idempotency_key`](crate::Context::idempotency_key) or of the order itself.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host;

/// Why the store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Policy or manifest does not allow it.
    Denied(String),
    /// Key or value is beyond its limit, or the tenant's keys and values are
    /// together: the text says which limit, and how to raise it.
    TooLarge(String),
    /// The store does not answer now.
    Unavailable(String),
    /// The value is not of the type that was asked for, or has no JSON form.
    Json(String),
}

impl std::error::Error for Error {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "key-value store denied: {why}"),
            Self::TooLarge(what) => write!(f, "too large for the key-value store: {what}"),
            Self::Unavailable(why) => write!(f, "key-value store unavailable: {why}"),
            Self::Json(why) => write!(f, "value of the key-value store: {why}"),
        }
    }
}

impl Error {
    /// Name and retryability as an activity's failure.
    pub(crate) fn classify(&self) -> (&'static str, bool) {
        match self {
            Self::Denied(_) => ("AuthorizedError", false),
            Self::TooLarge(_) | Self::Json(_) => ("ValidationError", false),
            Self::Unavailable(_) => ("ServiceUnavailable", true),
        }
    }
}

/// The value of a key.
///
/// # Errors
///
/// Any [`Error`] but [`Error::TooLarge`].
pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get_bytes(key)?
        .map(|bytes| from_json(key, &bytes))
        .transpose()
}

/// Sets a key, whatever it held.
///
/// # Errors
///
/// Any [`Error`].
pub fn set<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    set_bytes(key, &to_json(key, value)?)
}

/// Sets `value` if the key holds `expected`, or nothing if that is `None`.
/// Says whether it did.
///
/// Values are compared as the JSON text that `expected` serializes to, so it should be what
/// [`get`] gave, in the same type. Types whose order varies, such as
/// `HashMap`, should be compared with [`compare_and_set_bytes`].
///
/// # Errors
///
/// Any [`Error`].
pub fn compare_and_set<T: Serialize + ?Sized>(
    key: &str,
    expected: Option<&T>,
    value: &T,
) -> Result<bool, Error> {
    let expected = expected
        .map(|expected| to_json(key, expected))
        .transpose()?;
    compare_and_set_bytes(key, expected.as_deref(), &to_json(key, value)?)
}

/// Removes a key; no error if there is none.
///
/// # Errors
///
/// [`Error::Denied`] and [`Error::Unavailable`].
pub fn delete(key: &str) -> Result<(), Error> {
    host::kv_delete(key)
}

/// The value of a key, as it is.
///
/// # Errors
///
/// [`Error::Denied`] and [`Error::Unavailable`].
pub fn get_bytes(key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::kv_get(key)
}

/// Sets a key to these bytes, whatever it held.
///
/// # Errors
///
/// Any [`Error`] but [`Error::Json`].
pub fn set_bytes(key: &str, value: &[u8]) -> Result<(), Error> {
    host::kv_set(key, value)
}

/// Sets these bytes if the key holds exactly `expected`, or nothing if that is
/// `None`. Says whether it did.
///
/// # Errors
///
/// Any [`Error`] but [`Error::Json`].
pub fn compare_and_set_bytes(
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
) -> Result<bool, Error> {
    host::kv_compare_and_set(key, expected, value)
}

fn from_json<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Json(format!("`{key}`: {error}")))
}

fn to_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Json(format!("`{key}`: {error}")))
}
