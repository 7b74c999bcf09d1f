//! The host as the harness of the test that is running on this thread.

use crate::http::{self, Request, Response};
use crate::kv;
use crate::log::Level;
use crate::testing::with_host;

/// Without a harness, lines go to standard error.
pub(crate) fn log(level: Level, message: &str) {
    let line = |host: &mut crate::testing::Host| host.log(level, message);
    if with_host(line).is_none() {
        eprintln!("{level:?} {message}");
    }
}

/// Without a harness, nobody listens.
pub(crate) fn beat() {
    let _: Option<()> = with_host(crate::testing::Host::beat);
}

pub(crate) fn now_ms() -> u64 {
    needed(with_host(|host| host.now_ms()))
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    needed(with_host(|host| host.random_bytes(len)))
}

pub(crate) fn http_send(request: Request) -> Result<Response, http::Error> {
    needed(with_host(|host| host.http_send(request)))
}

pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, kv::Error> {
    needed(with_host(|host| host.kv_get(key)))
}

pub(crate) fn kv_set(key: &str, value: &[u8]) -> Result<(), kv::Error> {
    needed(with_host(|host| host.kv_set(key, value)))
}

pub(crate) fn kv_compare_and_set(
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
) -> Result<bool, kv::Error> {
    needed(with_host(|host| {
        host.kv_compare_and_set(key, expected, value)
    }))
}

pub(crate) fn kv_delete(key: &str) -> Result<(), kv::Error> {
    needed(with_host(|host| host.kv_delete(key)))
}

/// A capability outside of a harness is a mistake in the test.
fn needed<T>(answer: Option<T>) -> T {
    answer.expect("a host: run the activity in cascade_sdk::testing::Harness")
}
