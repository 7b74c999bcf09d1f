//! What killer, clients and checkers share: where the server is, whether the
//! killing is over, and what went wrong.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::{Answer, KEY, http};

/// Violations that are kept: one cause tends to break many promises.
const MAX_VIOLATIONS: usize = 50;

/// Pause before a refused request is sent again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Requests of one kind that may fail on a server that nobody kills.
const PATIENCE: u32 = 3;

pub(super) struct Arena {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Where the server is; `None` while it is down.
    url: Option<String>,
    /// How often it has come up.
    life: u32,
    /// Nobody kills any more.
    over: bool,
    broken: u64,
    refused: u64,
    violations: Vec<String>,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) method: &'static str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a str,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            headers: &[],
            body: "",
        }
    }
}

impl Arena {
    pub(super) fn new(url: &str) -> Self {
        Self {
            state: Mutex::new(State {
                url: Some(url.to_owned()),
                life: 1,
                over: false,
                broken: 0,
                refused: 0,
                violations: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn down(&self) {
        self.state().url = None;
    }

    /// The port is another one each time: with the old one, a client that
    /// connects while nobody listens might be given that port itself.
    pub(super) fn up(&self, url: &str) {
        let mut state = self.state();
        state.url = Some(url.to_owned());
        state.life += 1;
        self.changed.notify_all();
    }

    pub(super) fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Lets time pass; says whether it was cut short, as a promise is broken.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        while state.violations.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.expect("nobody panics with the lock").0;
        }
        true
    }

    pub(super) fn violation(&self, text: String) {
        let mut state = self.state();
        if state.violations.len() < MAX_VIOLATIONS {
            state.violations.push(text);
        }
        self.changed.notify_all();
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// How many requests were sent again, after a broken connection and after a refusal.
    pub(super) fn resent(&self) -> (u64, u64) {
        let state = self.state();
        (state.broken, state.refused)
    }

    /// Sends a request until it is answered, however often the server dies.
    /// `None` if it is not there although nobody kills it.
    pub(super) fn ask(&self, ask: Ask<'_>) -> Option<Answer> {
        let (mut seen, mut failures) = (0, 0);
        loop {
            let (life, url) = self.server(seen);
            match http::request(&url, KEY, ask.method, ask.path, ask.headers, ask.body) {
                Ok(answer) if matches!(answer.status, 429 | 503) => {
                    self.state().refused += 1;
                    self.pause(BUSY_PAUSE);
                }
                Ok(answer) => return Some(answer),
                Err(error) => {
                    seen = life;
                    failures += u32::from(self.broken());
                    if failures > PATIENCE {
                        self.unanswered(ask, &error);
                        return None;
                    }
                }
            }
        }
    }

    /// Notes that a connection broke; says whether nobody can have killed the server.
    fn broken(&self) -> bool {
        let mut state = self.state();
        state.broken += 1;
        state.over
    }

    fn unanswered(&self, ask: Ask<'_>, error: &io::Error) {
        self.violation(format!(
            "{} {} is not answered: {error}",
            ask.method, ask.path
        ));
    }

    /// Where the server is, in a later life than `seen` unless nobody kills any more.
    fn server(&self, seen: u32) -> (u32, String) {
        let mut state = self.state();
        loop {
            match &state.url {
                Some(url) if state.life > seen || state.over => return (state.life, url.clone()),
                _ => {
                    state = self
                        .changed
                        .wait(state)
                        .expect("nobody panics with the lock");
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}
