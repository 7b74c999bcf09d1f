//! Clients: each starts one execution after the other in one shard, and turns to the next
//! server when one does not answer, as a load balancer would have it do.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use cascade_cdl::bucket_of;
use serde_json::json;

use super::gaps::Ack;
use super::{APPLICATION, STARTED};
use crate::cluster::Shown;
use crate::{KEY, http};

/// Pause before a start is sent again that was refused or that nobody took: far less than
/// what is measured.
const AGAIN: Duration = Duration::from_millis(2);

/// Acknowledgements that are kept of a shard: those of a minute or more.
const KEPT: usize = 20_000;

/// What clients and the measurement share.
pub(super) struct Field {
    began: Instant,
    /// Where the servers are that a load balancer would know of.
    servers: Mutex<Vec<String>>,
    over: AtomicBool,
    pub(super) shards: Vec<Lane>,
    /// Starts that got no answer, and those that were refused; all were sent again.
    pub(super) broken: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) started: AtomicU64,
}

/// A shard, and what was acknowledged in it lately.
pub(super) struct Lane {
    pub(super) shard: u64,
    /// A shard key in it.
    pub(super) key: String,
    acks: Mutex<VecDeque<Ack>>,
}

impl Lane {
    fn of(shown: &Shown) -> Self {
        let mut keys = (0_u32..).map(|number| format!("customer-{number}"));
        let key = keys.find(|key| shown.buckets.contains(&bucket_of(key.as_bytes())));
        Self {
            shard: shown.shard,
            key: key.expect("there is no end of keys"),
            acks: Mutex::default(),
        }
    }

    /// What was acknowledged, in order.
    pub(super) fn acks(&self) -> Vec<Ack> {
        let mut acks: Vec<_> = locked(&self.acks).iter().copied().collect();
        acks.sort_by_key(|ack| ack.acked);
        acks
    }

    /// Whether each of its clients has had something acknowledged that it sent after `then`:
    /// nobody waits any more for what was sent before.
    pub(super) fn serves_since(&self, then: Duration, clients: usize) -> bool {
        let acks = locked(&self.acks);
        let served = |client| {
            let late = |ack: &&Ack| ack.client == client && ack.sent > then;
            acks.iter().rev().any(|ack| late(&ack))
        };
        (0..clients).all(served)
    }

    fn note(&self, ack: Ack) {
        let mut acks = locked(&self.acks);
        if acks.len() >= KEPT {
            acks.pop_front();
        }
        acks.push_back(ack);
    }
}

impl Field {
    pub(super) fn new(shards: &[Shown]) -> Self {
        Self {
            began: Instant::now(),
            servers: Mutex::default(),
            over: AtomicBool::new(false),
            shards: shards.iter().map(Lane::of).collect(),
            broken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            started: AtomicU64::new(0),
        }
    }

    /// The time of the measurement.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long ago that was.
    pub(super) fn since(&self, then: Duration) -> Duration {
        self.now().saturating_sub(then)
    }

    /// Whom clients ask from now on.
    pub(super) fn serve_at(&self, servers: Vec<String>) {
        *locked(&self.servers) = servers;
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn server(&self, turn: usize) -> Option<String> {
        let servers = locked(&self.servers);
        servers.get(turn % servers.len().max(1)).cloned()
    }

    /// Starts executions in a shard, each `every` after the last or when that is
    /// acknowledged, until the measurement is over.
    pub(super) fn client(&self, lane: &Lane, client: usize, every: Duration) {
        // Not all at the same server at first.
        let mut turn = client;
        for count in 0_u64.. {
            if self.is_over() {
                return;
            }
            let sent = self.now();
            let name = format!("{}-{client}-{count}", lane.shard);
            if self.start(lane, &name, &mut turn) {
                let acked = self.now();
                lane.note(Ack {
                    client,
                    sent,
                    acked,
                });
                self.started.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep((sent + every).saturating_sub(self.now()));
        }
    }

    /// Insists until the start is acknowledged; says whether it was.
    fn start(&self, lane: &Lane, name: &str, turn: &mut usize) -> bool {
        let body = json!({
            "application": APPLICATION, "workflow": STARTED, "input": { "customer": lane.key },
        })
        .to_string();
        while !self.is_over() {
            *turn += 1;
            let Some(url) = self.server(*turn) else {
                thread::sleep(AGAIN);
                continue;
            };
            let headers = [("Idempotency-Key", name)];
            match http::request(&url, KEY, "POST", "/v1/executions", &headers, &body) {
                Ok(answer) if matches!(answer.status, 200 | 202) => return true,
                Ok(answer) => {
                    assert!(
                        matches!(answer.status, 429 | 503),
                        "a start is answered with {}: {}",
                        answer.status,
                        answer.text
                    );
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(AGAIN);
                }
                Err(_) => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(AGAIN);
                }
            }
        }
        false
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with the lock")
}
