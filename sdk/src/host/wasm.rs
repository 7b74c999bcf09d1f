//! The host as the component's imports. What is not called is not imported.

use super::bindings::cascade::activity as host;

use crate::http::{self, Request, Response};
use crate::kv;
use crate::log::Level;

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Trace => host::log::Level::Trace,
        Level::Debug => host::log::Level::Debug,
        Level::Info => host::log::Level::Info,
        Level::Warn => host::log::Level::Warn,
        Level::Error => host::log::Level::Error,
    };
    host::log::write(level, message);
}

pub(crate) fn beat() {
    host::heartbeat::beat();
}

pub(crate) fn now_ms() -> u64 {
    host::clock::now_ms()
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    host::random::bytes(len)
}

pub(crate) fn http_send(request: Request) -> Result<Response, http::Error> {
    let sent = host::http::Request {
        method: request.method,
        url: request.url,
        headers: request.headers,
        body: request.body,
        timeout_ms: request.timeout_ms,
    };
    match host::http::send(&sent) {
        Ok(response) => Ok(Response {
            url: sent.url,
            status: response.status,
            headers: response.headers,
            body: response.body,
        }),
        Err(error) => Err(match error {
            host::http::Error::Denied(why) => http::Error::Denied(why),
            host::http::Error::Invalid(why) => http::Error::Invalid(why),
            host::http::Error::Timeout(why) => http::Error::Timeout(why),
            host::http::Error::Network(why) => http::Error::Network(why),
            host::http::Error::TooLarge(what) => http::Error::TooLarge(what),
        }),
    }
}

pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, kv::Error> {
    host::key_value::get(key).map_err(Into::into)
}

pub(crate) fn kv_set(key: &str, value: &[u8]) -> Result<(), kv::Error> {
    host::key_value::set(key, value).map_err(Into::into)
}

pub(crate) fn kv_compare_and_set(
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
) -> Result<bool, kv::Error> {
    host::key_value::compare_and_set(key, expected, value).map_err(Into::into)
}

pub(crate) fn kv_delete(key: &str) -> Result<(), kv::Error> {
    host::key_value::delete(key).map_err(Into::into)
}

impl From<host::key_value::Error> for kv::Error {
    fn from(error: host::key_value::Error) -> Self {
        match error {
            host::key_value::Error::Denied(why) => Self::Denied(why),
            host::key_value::Error::TooLarge(what) => Self::TooLarge(what),
            host::key_value::Error::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
