//! What killers, clients and checkers share: where the servers are, whether the
//! killing is over, and what went wrong.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::http::Ask;
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
    /// How long a client waits for an answer while servers may stand still.
    patience: Duration,
    /// Whose turn it is to be asked first.
    turn: AtomicUsize,
}

struct State {
    servers: Vec<Place>,
    /// Nobody kills any more.
    over: bool,
    broken: u64,
    refused: u64,
    violations: Vec<String>,
}

/// A server.
struct Place {
    /// Where it is; `None` while it is down.
    url: Option<String>,
    /// How often it has come up, or gone on after it stood still.
    life: u32,
}

impl Arena {
    /// Servers that are up.
    pub(super) fn new<'a>(urls: impl IntoIterator<Item = &'a str>, patience: Duration) -> Self {
        let up = |url: &str| Place {
            url: Some(url.to_owned()),
            life: 1,
        };
        Self {
            state: Mutex::new(State {
                servers: urls.into_iter().map(up).collect(),
                over: false,
                broken: 0,
                refused: 0,
                violations: Vec::new(),
            }),
            changed: Condvar::new(),
            patience,
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) fn down(&self, server: usize) {
        self.state().servers[server].url = None;
    }

    /// The port is another one each time: with the old one, a client that
    /// connects while nobody listens might be given that port itself.
    pub(super) fn up(&self, server: usize, url: &str) {
        let mut state = self.state();
        let place = &mut state.servers[server];
        place.url = Some(url.to_owned());
        place.life += 1;
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

    /// Sends a request until it is answered, however often servers die: each time to
    /// another one, if there are several. `None` if none is there although nobody kills it.
    pub(super) fn ask(&self, ask: Ask<'_>) -> Option<Answer> {
        let mut seen = vec![0; self.state().servers.len()];
        let mut failures = 0;
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let (server, life, url) = self.server(turn, &seen);
            let timeout = if self.is_over() {
                http::TIMEOUT
            } else {
                self.patience
            };
            match http::request_within(timeout, &url, KEY, ask) {
                Ok(answer) if matches!(answer.status, 429 | 503) => {
                    self.state().refused += 1;
                    self.pause(BUSY_PAUSE);
                }
                Ok(answer) => return Some(answer),
                Err(error) => {
                    seen[server] = life;
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

    /// A server that is up, in a later life than `seen` unless nobody kills any more.
    fn server(&self, turn: usize, seen: &[u32]) -> (usize, u32, String) {
        let mut state = self.state();
        loop {
            let count = state.servers.len();
            let found = (0..count)
                .map(|next| (turn + next) % count)
                .find_map(|server| {
                    let Place { url, life } = &state.servers[server];
                    let url = url.as_ref()?;
                    (*life > seen[server] || state.over).then(|| (server, *life, url.clone()))
                });
            if let Some(found) = found {
                return found;
            }
            state = self
                .changed
                .wait(state)
                .expect("nobody panics with the lock");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}
