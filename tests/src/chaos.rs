//! Kills the server at random points under load, and checks from outside that
//! nothing was lost, nothing finished twice or differently, and every history
//! replays to its recorded result. So with several servers that share a
//! PostgreSQL, each killed, stopped or stalled when its time comes (`siege`).
//!
//! `load` starts executions of every kind and insists until each is
//! acknowledged; `check` looks at all of them once the killing is over.
//! `arena` is what both sides share, and `witness` what the database saw.
//! A seed decides what is started and when a server dies; what the two meet in
//! differs from run to run, as it must.

mod arena;
mod check;
mod load;
mod order;
mod siege;
mod witness;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Server, http, root};
use arena::Arena;
use load::Taken;
pub use siege::Siege;

/// The application that holds all workflows of a campaign.
const APPLICATION: &str = "chaos";
const CDL: &str = include_str!("chaos/chaos.yaml");

/// What the effects need, as the tenant's policy and as their manifests.
const POLICY: &str = "    policy: { capabilities: [key-value, random] }";
const KEY_VALUE: &str = "capabilities: [key-value]\n";
const RANDOM: &str = "capabilities: [random]\n";

/// Milliseconds from ready to the kill: some die before the first timers are
/// due, some after a few thousand commits.
const LIFE_MS: RangeInclusive<u64> = 50..=600;

/// One kill in so many is followed by another before the server is ready
/// again, in the middle of its recovery.
const EARLY: u32 = 4;

/// Shards may be more or fewer after each start.
const SHARDS: RangeInclusive<u32> = 1..=4;

/// What a campaign does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    /// How often the server is killed, at least.
    pub kills: usize,
    /// Closed loops of requests, each with a thread.
    pub clients: usize,
}

/// What came of a campaign.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    pub kills: usize,
    /// Kills before the server was ready.
    pub early_kills: usize,
    /// What else was done to servers and their database, and how often.
    pub faults: BTreeMap<&'static str, usize>,
    /// Commits of executions that the database saw, one each, and epochs that they were
    /// made in.
    pub writes: usize,
    pub epochs: usize,
    /// Executions that were acknowledged, by workflow.
    pub executions: Vec<(&'static str, usize)>,
    /// Requests whose connection broke, so that they were sent again.
    pub broken: u64,
    /// Requests refused as the server was busy, sent again likewise.
    pub refused: u64,
    /// Ends that a client saw while the killing went on.
    pub ends_seen: usize,
    /// The longest that one still took when the killing was over.
    pub slowest_end: Duration,
    pub histories_replayed: usize,
    pub events: usize,
    /// Marks of effects that were looked at, and how many had run repeatedly.
    pub marks: usize,
    pub repeated_marks: usize,
    /// From launch to ready, sorted.
    pub ready: Vec<Duration>,
    pub under_fire: Duration,
    pub checking: Duration,
    /// Promises that were broken; empty if all is well.
    pub violations: Vec<String>,
}

/// Runs a campaign against a binary.
pub fn run(binary: &Path, plan: Plan) -> Outcome {
    let mut server = Server::with_binary(binary, POLICY);
    prepare(&server);
    let arena = Arena::new([server.url()], http::TIMEOUT);
    let mut outcome = Outcome::default();
    campaign(&arena, plan.seed, plan.clients, &mut outcome, |outcome| {
        torment(&mut server, &arena, plan, outcome);
    });
    outcome.ends_with(&arena)
}

/// Has clients start executions while there is torment, and checks them all afterwards.
fn campaign(
    arena: &Arena,
    seed: u64,
    clients: usize,
    outcome: &mut Outcome,
    torment: impl FnOnce(&mut Outcome),
) {
    let begun = Instant::now();
    outcome.seed = seed;
    let taken: Vec<Taken> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|index| scope.spawn(move || load::client(arena, seed, index)))
            .collect();
        // Also if it panics: nobody waits for clients that go on.
        let ends = Ends(arena);
        torment(outcome);
        drop(ends);
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client never panics"))
            .collect()
    });
    outcome.under_fire = begun.elapsed();
    outcome.executions = load::count(&taken);
    outcome.ends_seen = taken.iter().filter(|taken| taken.end.is_some()).count();
    let begun = Instant::now();
    check::all(arena, &taken, clients, outcome);
    outcome.checking = begun.elapsed();
}

/// Says that the killing is over.
struct Ends<'a>(&'a Arena);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Outcome {
    fn ends_with(mut self, arena: &Arena) -> Self {
        self.ready.sort_unstable();
        (self.broken, self.refused) = arena.resent();
        self.violations = arena.violations();
        self
    }
}

fn prepare(server: &Server) {
    let fixtures = root().join("runtime/tests/fixtures");
    let read = |name: &str| {
        let path = fixtures.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let prelude = read("prelude.wat");
    let activities = [
        ("echo", read("echo.wat").as_str(), None),
        ("flaky", include_str!("chaos/activities/flaky.wat"), None),
        (
            "draw",
            include_str!("chaos/activities/draw.wat"),
            Some(RANDOM),
        ),
        (
            "mark",
            include_str!("chaos/activities/mark.wat"),
            Some(KEY_VALUE),
        ),
        (
            "read_mark",
            include_str!("chaos/activities/read_mark.wat"),
            Some(KEY_VALUE),
        ),
    ]
    .map(|(name, wat, manifest)| (name, format!("(module\n{wat}\n{prelude})"), manifest));
    for (name, wat, manifest) in activities {
        server.push_wat(name, &wat, manifest);
    }
    server.apply(APPLICATION, CDL);
}

/// Kills and restarts until the plan is met, or a promise is broken.
fn torment(server: &mut Server, arena: &Arena, plan: Plan, outcome: &mut Outcome) {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut longest = Duration::ZERO;
    while outcome.kills < plan.kills {
        if arena.pause(Duration::from_millis(random.u64(LIFE_MS))) {
            return;
        }
        server.kill();
        arena.down(0);
        outcome.kills += 1;
        if random.u32(0..EARLY) == 0 {
            server.launch();
            arena.pause(longest.mul_f64(random.f64()));
            server.kill();
            outcome.kills += 1;
            outcome.early_kills += 1;
        }
        server.configure(&format!("engine: {{ shards: {} }}", random.u32(SHARDS)));
        let begun = Instant::now();
        server.restart();
        let took = begun.elapsed();
        arena.up(0, server.url());
        longest = longest.max(took);
        outcome.ready.push(took);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: usize = self.executions.iter().map(|(_, count)| count).sum();
        let at = |share: usize| {
            let index = (self.ready.len() * share / 100).min(self.ready.len().saturating_sub(1));
            self.ready.get(index).copied().unwrap_or_default()
        };
        writeln!(f, "seed {}", self.seed)?;
        writeln!(
            f,
            "{} kills, {} of them before the server was ready, in {:.1?}",
            self.kills, self.early_kills, self.under_fire
        )?;
        for (fault, count) in &self.faults {
            writeln!(f, "{count} times: {fault}")?;
        }
        if self.writes > 0 {
            writeln!(
                f,
                "{} commits of executions in {} epochs, as the database saw them",
                self.writes, self.epochs
            )?;
        }
        writeln!(
            f,
            "ready again after {:.0?} (median), {:.0?} (longest)",
            at(50),
            at(100)
        )?;
        write!(f, "{total} executions acknowledged:")?;
        for (workflow, count) in &self.executions {
            write!(f, " {workflow} {count}")?;
        }
        writeln!(
            f,
            "\n{} requests sent again after a broken connection, {} after a refusal; {} ends seen meanwhile",
            self.broken, self.refused, self.ends_seen
        )?;
        writeln!(
            f,
            "{} histories of {} events replayed, {} marks of effects read ({} made more than once), in {:.1?}",
            self.histories_replayed, self.events, self.marks, self.repeated_marks, self.checking
        )?;
        writeln!(
            f,
            "the last execution ended within {:.1?} of being asked for",
            self.slowest_end
        )?;
        if self.violations.is_empty() {
            return write!(f, "no promise broken");
        }
        write!(f, "{} PROMISES BROKEN", self.violations.len())?;
        self.violations
            .iter()
            .try_for_each(|text| write!(f, "\n  {text}"))
    }
}
