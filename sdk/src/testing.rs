//! Runs an activity natively, as Cascade would, with a host of the test's making.
//!
//! ```
//! use cascade_sdk::testing::{Harness, answer};
//! use cascade_sdk::{Error, http, info, json, kv};
//!
//! #[derive(serde::Deserialize)]
//! struct Input { sku: String }
//!
//! fn handle(input: Input) -> Result<u64, Error> {
//!     if let Some(price) = kv::get(&input.sku)? {
//!         return Ok(price);
//!     }
//!     let url = format!("https://prices.example.com/{}", input.sku);
//!     let price = http::get(url).send()?.error_for_status()?.json()?;
//!     info!("new price");
//!     kv::set(&input.sku, &price)?;
//!     Ok(price)
//! }
//!
//! let harness = Harness::new()
//!     .http("GET", "https://prices.example.com/A-1", answer(503))
//!     .http("GET", "https://prices.example.com/A-1", answer(200).json(&1_299));
//!
//! let error = harness.run(handle, json!({ "sku": "A-1" })).unwrap_err();
//! assert_eq!(error.name(), "ServiceUnavailable");
//! // The same host, the next attempt: what was stored stays stored.
//! assert_eq!(harness.run_attempt(2, handle, json!({ "sku": "A-1" })), Ok(json!(1_299)));
//! assert_eq!(harness.stored("A-1"), Some(json!(1_299)));
//! assert_eq!(harness.messages(), ["new price"]);
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

use crate::http::{self, Request, Response};
use crate::kv;
use crate::log::Level;
use crate::{Context, Error, Handler};

/// When attempts are scheduled, and what the clock says, unless a test sets
/// it: 2026-01-01T00:00:00Z. A fixed time keeps expected values fixed.
pub const NOW_MS: u64 = 1_767_225_600_000;

/// A context with plain values: tenant `default`, application `test`, attempt 1, scheduled at
/// [`NOW_MS`].
pub fn context() -> Context {
    Context {
        tenant: "default".into(),
        application: "test".into(),
        workflow: "test".into(),
        execution_id: "00000000-0000-7000-8000-000000000001".into(),
        state: "Test".into(),
        attempt: 1,
        idempotency_key: "00000000-0000-7000-8000-000000000001/1".into(),
        scheduled_at_ms: NOW_MS,
    }
}

/// A host for the activity under test. Grants every capability.
#[derive(Debug, Default)]
pub struct Harness {
    host: Rc<RefCell<Host>>,
    context: Option<Context>,
}

/// A request that the activity sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// As in `GET`.
    pub method: String,
    /// Where to.
    pub url: String,
    /// In order, those that the host adds not included.
    pub headers: Vec<(String, String)>,
    /// Empty if there was none.
    pub body: Vec<u8>,
    /// What the activity asked for.
    pub timeout_ms: Option<u32>,
}

impl Sent {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Harness {
    /// A host with an empty store, no answers, the clock at [`NOW_MS`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs with this context instead of [`context()`].
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// Answers the next request of that method to that URL; several answers are
    /// given in order, the last one for ever. A request without an answer is
    /// denied, as one to a host that is not allowed.
    #[must_use]
    pub fn http(self, method: &str, url: &str, answer: impl Into<Answer>) -> Self {
        let key = (method.to_ascii_uppercase(), url.to_owned());
        let answer = answer.into();
        self.host
            .borrow_mut()
            .answers
            .entry(key)
            .or_default()
            .push_back(answer);
        self
    }

    /// Puts a value into the key-value store.
    ///
    /// # Panics
    ///
    /// If the value has no JSON form.
    #[must_use]
    pub fn store(self, key: &str, value: impl Serialize) -> Self {
        let bytes = serde_json::to_vec(&value).expect("a value with a JSON form");
        self.host.borrow_mut().kv.insert(key.to_owned(), bytes);
        self
    }

    /// Lets every call of the key-value store fail.
    #[must_use]
    pub fn failing_store(self, error: kv::Error) -> Self {
        self.host.borrow_mut().kv_error = Some(error);
        self
    }

    /// Sets the real clock.
    #[must_use]
    pub fn now_ms(self, now_ms: u64) -> Self {
        self.host.borrow_mut().now_ms = now_ms;
        self
    }

    /// Chooses other random numbers; the same seed gives the same numbers.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.host.borrow_mut().random = seed;
        self
    }

    /// Runs the activity from JSON to JSON, as Cascade does.
    ///
    /// # Errors
    ///
    /// What the activity returns, or `InvalidInput` if the input does not fit.
    ///
    /// # Panics
    ///
    /// If `input` has no JSON form, or the activity panics.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "tests pass a function's name"
    )]
    pub fn run<Arguments, H: Handler<Arguments>>(
        &self,
        handler: H,
        input: impl Serialize,
    ) -> Result<Value, Error> {
        let context = self.context.clone().unwrap_or_else(context);
        self.run_with(context, &handler, &input)
    }

    /// [`Harness::run`] as this attempt.
    ///
    /// # Errors
    ///
    /// As [`Harness::run`].
    ///
    /// # Panics
    ///
    /// As [`Harness::run`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "tests pass a function's name"
    )]
    pub fn run_attempt<Arguments, H: Handler<Arguments>>(
        &self,
        attempt: u32,
        handler: H,
        input: impl Serialize,
    ) -> Result<Value, Error> {
        let mut context = self.context.clone().unwrap_or_else(context);
        context.attempt = attempt;
        self.run_with(context, &handler, &input)
    }

    /// Calls `f` with this host, for parts of an activity.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        let _entered = Entered::new(&self.host);
        f()
    }

    /// Everything logged so far.
    pub fn logs(&self) -> Vec<(Level, String)> {
        self.host.borrow().logs.clone()
    }

    /// The messages logged so far, without their levels.
    pub fn messages(&self) -> Vec<String> {
        self.host
            .borrow()
            .logs
            .iter()
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// How many heartbeats there were so far.
    pub fn heartbeats(&self) -> u32 {
        self.host.borrow().heartbeats
    }

    /// The requests sent so far.
    pub fn requests(&self) -> Vec<Sent> {
        self.host.borrow().requests.clone()
    }

    /// What the key-value store holds under a key; text if it is no JSON.
    pub fn stored(&self, key: &str) -> Option<Value> {
        let host = self.host.borrow();
        let bytes = host.kv.get(key)?;
        Some(
            serde_json::from_slice(bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into()),
        )
    }

    fn run_with<Arguments, H: Handler<Arguments>>(
        &self,
        context: Context,
        handler: &H,
        input: &impl Serialize,
    ) -> Result<Value, Error> {
        let input = serde_json::to_string(input).expect("an input with a JSON form");
        let output = self.enter(|| crate::serve::run(handler, context, &input))?;
        Ok(serde_json::from_str(&output).expect("serde_json reads what it wrote"))
    }
}

/// What [`Harness::http`] answers: a response or an error.
#[derive(Debug, Clone)]
pub struct Answer(Result<Response, http::Error>);

/// Begins a response with that status.
pub fn answer(status: u16) -> Answer {
    Answer(Ok(Response {
        url: String::new(), // that of the request is put in when it is answered
        status,
        headers: Vec::new(),
        body: Vec::new(),
    }))
}

impl Answer {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Ok(response) = &mut self.0 {
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        if let Ok(response) = &mut self.0 {
            response.body = body.into();
        }
        self
    }

    /// Sets the body to a value's JSON, and the content type with it.
    ///
    /// # Panics
    ///
    /// If the value has no JSON form.
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> Self {
        self.header("content-type", "application/json")
            .body(serde_json::to_vec(value).expect("a value with a JSON form"))
    }
}

impl From<http::Error> for Answer {
    fn from(error: http::Error) -> Self {
        Self(Err(error))
    }
}

/// The state behind a harness.
#[derive(Debug)]
pub(crate) struct Host {
    logs: Vec<(Level, String)>,
    heartbeats: u32,
    now_ms: u64,
    random: u64,
    answers: BTreeMap<(String, String), VecDeque<Answer>>,
    requests: Vec<Sent>,
    kv: BTreeMap<String, Vec<u8>>,
    kv_error: Option<kv::Error>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            logs: Vec::new(),
            heartbeats: 0,
            now_ms: NOW_MS,
            random: 0,
            answers: BTreeMap::new(),
            requests: Vec::new(),
            kv: BTreeMap::new(),
            kv_error: None,
        }
    }
}

impl Host {
    pub(crate) fn log(&mut self, level: Level, message: &str) {
        self.logs.push((level, message.to_owned()));
    }

    pub(crate) fn beat(&mut self) {
        self.heartbeats += 1;
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014): small, and good enough for tests.
    pub(crate) fn random_bytes(&mut self, len: u32) -> Vec<u8> {
        std::iter::repeat_with(|| {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)).to_le_bytes()
        })
        .flatten()
        .take(len as usize)
        .collect()
    }

    pub(crate) fn http_send(&mut self, request: Request) -> Result<Response, http::Error> {
        let key = (request.method.to_ascii_uppercase(), request.url.clone());
        let answer = match self.answers.get_mut(&key) {
            Some(answers) if answers.len() > 1 => answers.pop_front(),
            Some(answers) => answers.front().cloned(),
            None => None,
        };
        self.requests.push(Sent {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body.unwrap_or_default(),
            timeout_ms: request.timeout_ms,
        });
        let (method, url) = key;
        match answer {
            Some(Answer(answer)) => answer.map(|response| Response { url, ..response }),
            None => Err(http::Error::Denied(format!(
                "the harness has no answer to {method} {url}"
            ))),
        }
    }

    pub(crate) fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, kv::Error> {
        self.kv_works()?;
        Ok(self.kv.get(key).cloned())
    }

    pub(crate) fn kv_set(&mut self, key: &str, value: &[u8]) -> Result<(), kv::Error> {
        self.kv_works()?;
        self.kv.insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    pub(crate) fn kv_compare_and_set(
        &mut self,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<bool, kv::Error> {
        self.kv_works()?;
        let holds = self.kv.get(key).map(Vec::as_slice) == expected;
        if holds {
            self.kv.insert(key.to_owned(), value.to_vec());
        }
        Ok(holds)
    }

    pub(crate) fn kv_delete(&mut self, key: &str) -> Result<(), kv::Error> {
        self.kv_works()?;
        self.kv.remove(key);
        Ok(())
    }

    fn kv_works(&self) -> Result<(), kv::Error> {
        self.kv_error.clone().map_or(Ok(()), Err)
    }
}

thread_local! {
    /// The host of the harness that this thread is in. Tests run on threads of
    /// their own, so they do not see each other's.
    static HOST: RefCell<Option<Rc<RefCell<Host>>>> = const { RefCell::new(None) };
}

/// Gives the current host, if there is one, to `f`.
pub(crate) fn with_host<T>(f: impl FnOnce(&mut Host) -> T) -> Option<T> {
    let host = HOST.with_borrow(Clone::clone)?;
    let mut host = host.borrow_mut();
    Some(f(&mut host))
}

/// While it lives, a host is the current one; also when a panic ends it.
struct Entered {
    outer: Option<Rc<RefCell<Host>>>,
}

impl Entered {
    fn new(host: &Rc<RefCell<Host>>) -> Self {
        Self {
            outer: HOST.replace(Some(Rc::clone(host))),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        HOST.set(self.outer.take());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{clock, heartbeat, random};

    #[test]
    fn answers_come_in_order_and_the_last_one_stays() {
        let url = "https://example.com/";
        let harness = Harness::new()
            .http("get", url, http::Error::Timeout("1 s".into()))
            .http("GET", url, answer(204).header("X-A", "b"));
        harness.enter(|| {
            let send = || http::get(url).send();
            assert_eq!(send(), Err(http::Error::Timeout("1 s".into())));
            for _ in 0..2 {
                let response = send().expect("answered");
                assert_eq!(
                    (response.status(), response.header("x-a")),
                    (204, Some("b"))
                );
            }
            let other = http::post(url).json(&json!({ "a": 1 })).send();
            assert!(matches!(other, Err(http::Error::Denied(_))), "{other:?}");
        });
        let last = harness.requests().pop().expect("four were sent");
        assert_eq!(
            (last.method.as_str(), last.json()),
            ("POST", json!({ "a": 1 }))
        );
        let content_type = ("content-type".to_owned(), "application/json".to_owned());
        assert_eq!(last.headers, [content_type]);
    }

    #[test]
    fn a_status_becomes_the_error_that_the_rules_know() {
        for (status, name, retryable) in [
            (400, "ValidationError", false),
            (401, "AuthorizedError", false),
            (404, "NotFoundError", false),
            (408, "TimeoutError", true),
            (418, "HttpError", false),
            (429, "ServiceUnavailable", true),
            (503, "ServiceUnavailable", true),
        ] {
            let harness = Harness::new().http("GET", "u", answer(status).body("why"));
            let ask = |(): ()| {
                http::get("u")
                    .send()?
                    .error_for_status()
                    .map(|r| r.status())
            };
            let error = harness.run(ask, ()).expect_err("not a success");
            assert_eq!(
                (error.name(), error.is_retryable()),
                (name, Some(retryable))
            );
            assert_eq!(error.message(), format!("u answered {status}: why"));
        }
    }

    #[test]
    fn the_store_compares_before_it_sets() {
        let harness = Harness::new().store("n", 1);
        harness.enter(|| {
            assert_eq!(kv::compare_and_set("n", None, &2), Ok(false), "it holds 1");
            assert_eq!(kv::compare_and_set("n", Some(&1), &2), Ok(true));
            assert_eq!(kv::get::<u32>("n"), Ok(Some(2)));
            assert!(matches!(kv::get::<String>("n"), Err(kv::Error::Json(_))));
            assert_eq!(kv::delete("n"), Ok(()));
            assert_eq!(kv::get::<u32>("n"), Ok(None));
        });
        let gone = kv::Error::Unavailable("down".into());
        let failing = Harness::new().failing_store(gone.clone());
        assert_eq!(failing.enter(|| kv::set("n", &1)), Err(gone));
    }

    #[test]
    fn time_and_randomness_repeat_with_the_same_seed() {
        let draw = |seed| {
            let harness = Harness::new().seed(seed).now_ms(5);
            harness.enter(|| (clock::now_ms(), random::u64(), random::bytes(70_000).len()))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1).1, draw(2).1);
        // 70,000 bytes are more than the host gives at a time.
        assert_eq!((draw(1).0, draw(1).2), (5, 70_000));
    }

    #[test]
    fn a_harness_sees_its_own_activity_only() {
        let (outer, inner) = (Harness::new(), Harness::new());
        outer.enter(|| {
            inner.enter(|| crate::warn!("inner {}", 1));
            heartbeat::beat();
        });
        assert_eq!(inner.logs(), [(Level::Warn, "inner 1".to_owned())]);
        assert_eq!((inner.heartbeats(), outer.heartbeats()), (0, 1));
        assert_eq!(outer.messages(), [""; 0]);
    }
}
