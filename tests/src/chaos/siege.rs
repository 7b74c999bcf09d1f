//! Several servers on one PostgreSQL, each tormented for itself: killed, in its recovery
//! too, told to stop, or stopped where it is for longer than its leases last. Meanwhile
//! sessions with the database are cut, and it crashes. So all of it overlaps as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::arena::Arena;
use super::{EARLY, Outcome, POLICY, campaign, prepare, witness};
use crate::postgres::Postgres;
use crate::{Server, cluster};

/// What a siege does.
#[derive(Debug, Clone, Copy)]
pub struct Siege {
    pub seed: u64,
    pub nodes: usize,
    /// Closed loops of requests, each with a thread.
    pub clients: usize,
    /// How long servers are tormented.
    pub time: Duration,
}

/// How long a client waits for an answer: longer than one that waits for an end, or for a
/// shard to have an owner, and shorter than most servers stand still.
const PATIENCE: Duration = Duration::from_secs(5);

/// Milliseconds from ready to what comes next.
const LIFE_MS: RangeInclusive<u64> = 300..=6_000;

/// How long a server is away, at most: some come back before their leases have ended.
const AWAY_MS: RangeInclusive<u64> = 0..=4_000;

/// How long one stands still: leases last two seconds.
const STILL_MS: RangeInclusive<u64> = 2_100..=6_000;

/// Between two faults of the database.
const DATABASE_MS: RangeInclusive<u64> = 1_000..=8_000;

/// How long a server may fail to start, since its database is away.
const STARTS: Duration = Duration::from_mins(1);

/// Pause before it is started again.
const START_AGAIN: Duration = Duration::from_millis(200);

impl Siege {
    /// Runs it against a binary.
    pub fn run(self, binary: &Path) -> Outcome {
        let postgres = Postgres::start();
        let mut servers: Vec<_> = (0..self.nodes)
            .map(|number| cluster::join(binary, &postgres, &name(number), POLICY))
            .collect();
        prepare(&servers[0]);
        witness::install(&postgres);
        cluster::balanced(&servers[0], self.nodes);
        let arena = Arena::new(servers.iter().map(Server::url), PATIENCE);
        let mut outcome = Outcome::default();
        let mut nodes = BTreeMap::new();
        campaign(&arena, self.seed, self.clients, &mut outcome, |outcome| {
            nodes = self.torment(&mut servers, &postgres, &arena, outcome);
        });
        let seen = witness::look(&postgres, &nodes);
        (outcome.writes, outcome.epochs) = (seen.writes, seen.epochs);
        for violation in seen.violations {
            arena.violation(violation);
        }
        outcome.ends_with(&arena)
    }

    /// Gives the nodes that each server has been.
    fn torment(
        self,
        servers: &mut [Server],
        postgres: &Postgres,
        arena: &Arena,
        outcome: &mut Outcome,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let until = Instant::now() + self.time;
        let noted = Mutex::new(outcome);
        std::thread::scope(|scope| {
            let tormentors: Vec<_> = servers
                .iter_mut()
                .enumerate()
                .map(|(number, server)| {
                    let mut tormentor = Tormentor {
                        number,
                        server,
                        arena,
                        random: self.random(number),
                        until,
                        outcome: &noted,
                        nodes: BTreeSet::new(),
                    };
                    scope.spawn(move || {
                        tormentor.run();
                        (name(number), tormentor.nodes)
                    })
                })
                .collect();
            self.torment_database(postgres, arena, until, &noted);
            tormentors
                .into_iter()
                .map(|tormentor| tormentor.join().expect("a tormentor never panics"))
                .collect()
        })
    }

    fn torment_database(
        self,
        postgres: &Postgres,
        arena: &Arena,
        until: Instant,
        outcome: &Mutex<&mut Outcome>,
    ) {
        let mut random = self.random(self.nodes);
        while !rest(arena, random.u64(DATABASE_MS), until) {
            let fault = match random.u32(..6) {
                0 => {
                    postgres.crash();
                    postgres.restart();
                    "the database crashed"
                }
                1 => {
                    postgres.end_sessions();
                    "all sessions were cut"
                }
                _ => {
                    postgres.end_sessions_of(&name(random.usize(..self.nodes)));
                    "the sessions of a server were cut"
                }
            };
            note(outcome, fault);
        }
    }

    fn random(self, number: usize) -> fastrand::Rng {
        // Far apart, as those of clients, and not the same as theirs.
        fastrand::Rng::with_seed(self.seed.rotate_left(32) ^ (number as u64 + 1_000))
    }
}

/// How the sessions of a server are called.
fn name(number: usize) -> String {
    format!("node-{number}")
}

/// Lets time pass; says whether it was cut short, or is over.
fn rest(arena: &Arena, millis: u64, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    arena.pause(Duration::from_millis(millis).min(left)) || Instant::now() >= until
}

fn note(outcome: &Mutex<&mut Outcome>, fault: &'static str) {
    let mut outcome = outcome.lock().expect("nobody panics with the lock");
    *outcome.faults.entry(fault).or_default() += 1;
}

/// What torments one server.
struct Tormentor<'a, 'o> {
    number: usize,
    server: &'a mut Server,
    arena: &'a Arena,
    random: fastrand::Rng,
    until: Instant,
    outcome: &'a Mutex<&'o mut Outcome>,
    /// Which it has been.
    nodes: BTreeSet<String>,
}

impl Tormentor<'_, '_> {
    /// Leaves a server that runs.
    fn run(&mut self) {
        self.nodes.extend(self.server.node());
        while !rest(self.arena, self.random.u64(LIFE_MS), self.until) {
            match self.random.u32(..4) {
                0 | 1 => self.kill(),
                2 => self.stall(),
                _ => self.stop(),
            }
        }
    }

    fn kill(&mut self) {
        self.server.kill();
        self.arena.down(self.number);
        self.count(|outcome| outcome.kills += 1);
        if self.random.u32(..EARLY) == 0 {
            self.server.launch();
            let _ = rest(self.arena, self.random.u64(..1_000), self.until);
            self.server.kill();
            self.nodes.extend(self.server.node());
            self.count(|outcome| {
                outcome.kills += 1;
                outcome.early_kills += 1;
            });
        }
        self.come_back();
    }

    fn stop(&mut self) {
        note(self.outcome, "a server was told to stop");
        let ended_well = self.server.stop();
        self.arena.down(self.number);
        if !ended_well {
            self.arena
                .violation(format!("server {} ended badly", self.number));
        }
        self.come_back();
    }

    fn stall(&mut self) {
        note(self.outcome, "a server stood still");
        self.server.freeze();
        let _ = rest(self.arena, self.random.u64(STILL_MS), self.until);
        self.server.thaw();
        // Who had no answer may ask it again.
        self.arena.up(self.number, self.server.url());
    }

    fn come_back(&mut self) {
        let _ = rest(self.arena, self.random.u64(AWAY_MS), self.until);
        let begun = Instant::now();
        while let Err(said) = self.server.try_restart() {
            note(self.outcome, "a server did not start");
            if begun.elapsed() > STARTS {
                let number = self.number;
                self.arena
                    .violation(format!("server {number} does not start: `{said}`"));
                return;
            }
            std::thread::sleep(START_AGAIN);
        }
        self.nodes.extend(self.server.node());
        self.arena.up(self.number, self.server.url());
        self.count(|outcome| outcome.ready.push(begun.elapsed()));
    }

    fn count(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome.lock().expect("nobody panics with the lock"));
    }
}
