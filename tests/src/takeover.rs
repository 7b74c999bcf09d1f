//! Measures from outside what clients see when a server of several dies, leaves or comes.
//!
//! Servers share a PostgreSQL. Clients start executions in every shard all the time, and
//! others run: each pauses for a moment, does a step, and pauses again. Then a server is
//! killed, or told to stop, or comes back, and for each shard that changes hands is measured
//!
//! - the *silence*: the longest that no start was acknowledged in it, of all its clients,
//! - the *slowest start*, from when it was first sent until some server acknowledged it,
//! - the *latest step* of its running executions: how long after it was due it is in the
//!   history,
//! - when operators saw another node have it (`GET /v1/shards`).
//!
//! All of it hits the pauses of the machine and of the disk as well; what those do by
//! themselves is told beside it, measured likewise while nothing happens. The silence is
//! there too when nothing happens, since clients pause between starts.

mod gaps;
mod load;
mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cascade_cdl::Event;
use serde_json::{Value, json};

use crate::cluster::{self, Shown};
use crate::postgres::Postgres;
use crate::{KEY, Server, http, root};
pub use gaps::Figures;
use gaps::Span;
use load::Field;
pub use report::Report;

const APPLICATION: &str = "takeover";

/// What clients start.
const STARTED: &str = "one";

/// How long a running execution pauses between its steps.
const PAUSE: Duration = Duration::from_millis(20);

const CDL: &str = "
workflows:
  - name: one
    shard_key: '{{ $.workflow.input.customer }}'
    states:
      - { name: Step, type: Task, resource: urn:cascade:activity:echo, parameters: {}, end: true }
  - name: running
    shard_key: '{{ $.workflow.input.customer }}'
    states:
      - { name: Pause, type: Wait, duration: 20ms, next: Step }
      - { name: Step, type: Task, resource: urn:cascade:activity:echo, parameters: {}, next: Pause }
";

/// How often it is looked who has what: what `shown` is exact to.
const LOOK: Duration = Duration::from_millis(10);

/// Longest that anything here takes unless it never will.
const DEADLINE: Duration = Duration::from_mins(1);

/// How long nothing happens, for comparison.
const QUIET: Duration = Duration::from_secs(2);

/// A page of a history, the longest there is.
const PAGE: usize = 1_000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    pub nodes: usize,
    /// Clients of each shard.
    pub clients: usize,
    /// From one start of a client to its next.
    pub every: Duration,
}

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Stopped,
    /// It is started again, and gets its part.
    Came,
}

impl Change {
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Killed, Self::Stopped, Self::Came];
}

/// What a change did to one shard that has another owner since; to each, if nothing happened.
#[derive(Debug, Clone, Copy)]
pub struct Pause {
    pub shard: u64,
    pub silence: Duration,
    pub slowest_start: Duration,
    /// Of its running execution.
    pub latest_step: Duration,
    /// From the change to when another node was shown to have it.
    pub shown: Option<Duration>,
}

/// What came of one change.
#[derive(Debug)]
pub struct Seen {
    pub change: Change,
    pub pauses: Vec<Pause>,
    /// From SIGTERM to the end of the process.
    pub exit: Option<Duration>,
}

/// Measures with a binary; `each` is told of every change.
pub fn run(binary: &Path, plan: Plan, mut each: impl FnMut(usize, &Seen)) -> Report {
    let postgres = Postgres::start();
    let servers: Vec<_> = (0..plan.nodes)
        .map(|number| {
            let server = cluster::join(binary, &postgres, &format!("node-{number}"), "");
            if number == 0 {
                prepare(&server);
            }
            server
        })
        .collect();
    let field = &Field::new(&cluster::shards(&servers[0]).expect("the server answers"));
    let mut measurement = Measurement {
        plan,
        field,
        servers,
    };
    measurement.settle();
    let mut report = Report::new(plan);
    thread::scope(|scope| {
        let _ends = Ends(field);
        for lane in &field.shards {
            for client in 0..plan.clients {
                scope.spawn(move || field.client(lane, client, plan.every));
            }
        }
        for round in 0..plan.rounds {
            measurement.round(round, |seen| {
                each(round, &seen);
                report.seen.push(seen);
            });
        }
    });
    report.count(field);
    report
}

fn prepare(server: &Server) {
    let read = |name: &str| {
        let path = root().join("runtime/tests/fixtures").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let wat = format!("(module\n{}\n{})", read("echo.wat"), read("prelude.wat"));
    server.push_wat("echo", &wat, None);
    server.apply(APPLICATION, CDL);
}

/// Ends the clients, also when the measurement panics.
struct Ends<'a>(&'a Field);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Measurement<'a> {
    plan: Plan,
    field: &'a Field,
    servers: Vec<Server>,
}

/// An execution that goes on for ever, and where it is.
struct Running {
    shard: u64,
    id: String,
}

impl Measurement<'_> {
    fn round(&mut self, round: usize, mut each: impl FnMut(Seen)) {
        let victim = |number: usize| number % self.plan.nodes;
        let (dies, leaves) = (victim(round), victim(round + 1));
        each(self.quiet());
        each(self.dies(dies));
        each(self.comes(dies));
        each(self.leaves(leaves));
        each(self.comes(leaves));
    }

    /// Returns when all servers have their parts, and tells clients of them.
    fn settle(&self) {
        self.tell(None);
        let until = self.field.now() + DEADLINE;
        loop {
            let held = cluster::held(&self.shards(0));
            if cluster::is_balanced(&held, self.plan.nodes) {
                return;
            }
            assert!(self.field.now() < until, "no even parts: {held:?}");
            thread::sleep(LOOK);
        }
    }

    /// Tells clients of all servers but one.
    fn tell(&self, gone: Option<usize>) {
        let there = self.servers.iter().enumerate();
        let there = there.filter(|(number, _)| Some(*number) != gone);
        let there = there.map(|(_, server)| server.url().to_owned());
        self.field.serve_at(there.collect());
    }

    fn shards(&self, witness: usize) -> Vec<Shown> {
        cluster::shards(&self.servers[witness]).expect("the server answers")
    }

    fn all(&self) -> Vec<u64> {
        self.field.shards.iter().map(|lane| lane.shard).collect()
    }

    fn quiet(&self) -> Seen {
        let watch = self.watch(0, self.all());
        thread::sleep(QUIET);
        watch.ends(self, Change::Nothing, &BTreeMap::new(), None)
    }

    fn dies(&mut self, victim: usize) -> Seen {
        let witness = (victim + 1) % self.plan.nodes;
        let watch = self.watch(witness, self.of(victim, witness));
        self.servers[victim].kill();
        self.tell(Some(victim));
        let shown = self.until_elsewhere(&watch, witness);
        watch.ends(self, Change::Killed, &shown, None)
    }

    fn leaves(&mut self, victim: usize) -> Seen {
        let witness = (victim + 1) % self.plan.nodes;
        let watch = self.watch(witness, self.of(victim, witness));
        self.servers[victim].terminate();
        let shown = self.until_elsewhere(&watch, witness);
        assert!(self.servers[victim].ended(), "a server ended badly");
        let exit = self.field.since(watch.span.from);
        self.tell(Some(victim));
        watch.ends(self, Change::Stopped, &shown, Some(exit))
    }

    fn comes(&mut self, victim: usize) -> Seen {
        let witness = (victim + 1) % self.plan.nodes;
        let before = self.shards(witness);
        let mut watch = self.watch(witness, self.all());
        self.servers[victim].restart();
        self.settle();
        let now = self.shards(witness);
        let moved = before
            .iter()
            .zip(&now)
            .filter(|(was, is)| was.node != is.node);
        watch.shards = moved.map(|(was, _)| was.shard).collect();
        watch.ends(self, Change::Came, &BTreeMap::new(), None)
    }

    /// The shards of a server.
    fn of(&self, server: usize, witness: usize) -> Vec<u64> {
        let node = cluster::node_of(&self.servers[server], &self.servers[witness]);
        let own = self.shards(witness).into_iter();
        let own = own.filter(|shard| shard.node.as_ref() == Some(&node));
        own.map(|shard| shard.shard).collect()
    }

    /// Begins to watch shards, with an execution that runs in each.
    fn watch(&self, witness: usize, shards: Vec<u64>) -> Watch {
        let running = shards
            .iter()
            .map(|shard| self.start_running(witness, *shard));
        let running: Vec<_> = running.collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("the clock is set").as_millis();
        Watch {
            before: self.shards(witness),
            witness,
            shards,
            running,
            span: Span {
                from: self.field.now(),
                until: Duration::MAX,
            },
            from_ms: u64::try_from(now).unwrap_or(u64::MAX),
        }
    }

    fn start_running(&self, witness: usize, shard: u64) -> Running {
        let lane = self.field.shards.iter().find(|lane| lane.shard == shard);
        let key = &lane.expect("all shards have one").key;
        let body = json!({
            "application": APPLICATION, "workflow": "running", "input": { "customer": key },
        });
        let view = self.ask(witness, "POST", "/v1/executions", &body.to_string());
        let id = view["id"].as_str().expect("an id").to_owned();
        Running { shard, id }
    }

    /// Insists on an answer. What is asked can be asked twice.
    fn ask(&self, witness: usize, method: &str, path: &str, body: &str) -> Value {
        let until = self.field.now() + DEADLINE;
        loop {
            let url = self.servers[witness].url();
            let answer = http::request(url, KEY, method, path, &[], body);
            let answer = answer.expect("a server that nobody stops answers");
            match answer.status {
                200 | 202 => return answer.body,
                429 | 503 if self.field.now() < until => thread::sleep(LOOK),
                status => panic!("{method} {path} is answered with {status}: {}", answer.text),
            }
        }
    }

    /// When each shard was shown to be another node's.
    fn until_elsewhere(&self, watch: &Watch, witness: usize) -> BTreeMap<u64, Duration> {
        let mut shown = BTreeMap::new();
        while shown.len() < watch.shards.len() {
            let passed = self.field.since(watch.span.from);
            assert!(passed < DEADLINE, "shards that nobody takes, but {shown:?}");
            let now = self.shards(witness);
            for (was, is) in watch.before.iter().zip(&now) {
                let moved = is.node.is_some() && was.node != is.node;
                if moved && watch.shards.contains(&is.shard) {
                    let at = self.field.since(watch.span.from);
                    shown.entry(is.shard).or_insert(at);
                }
            }
            thread::sleep(LOOK);
        }
        shown
    }

    fn history(&self, witness: usize, id: &str) -> Vec<Event> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/v1/executions/{id}/history?after={after}&limit={PAGE}");
            let mut page = self.ask(witness, "GET", &path, "");
            let read: Vec<Event> = serde_json::from_value(page["events"].take()).expect("events");
            events.extend(read);
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return events,
            }
        }
    }
}

/// What is looked at around one change.
struct Watch {
    before: Vec<Shown>,
    /// The server that tells, which stays.
    witness: usize,
    shards: Vec<u64>,
    running: Vec<Running>,
    span: Span,
    /// When that begins, by the clock of histories.
    from_ms: u64,
}

impl Watch {
    /// Waits until everybody is served again, and says what they saw.
    fn ends(
        mut self,
        on: &Measurement<'_>,
        change: Change,
        shown: &BTreeMap<u64, Duration>,
        exit: Option<Duration>,
    ) -> Seen {
        let field = on.field;
        let now = field.now();
        for lane in &field.shards {
            while !lane.serves_since(now, on.plan.clients) {
                assert!(
                    field.now() < now + DEADLINE,
                    "nothing starts in shard {}",
                    lane.shard
                );
                thread::sleep(LOOK);
            }
        }
        self.span.until = field.now();
        let mut pauses = Vec::new();
        for Running { shard, id } in &self.running {
            on.ask(
                self.witness,
                "POST",
                &format!("/v1/executions/{id}/cancel"),
                "",
            );
            if !self.shards.contains(shard) {
                continue;
            }
            let events = on.history(self.witness, id);
            let step = gaps::latest_step(&events, self.from_ms, PAUSE);
            let lane = field.shards.iter().find(|lane| lane.shard == *shard);
            let acks = lane.expect("all shards have one").acks();
            pauses.push(Pause {
                shard: *shard,
                silence: gaps::longest_silence(&acks, self.span),
                slowest_start: gaps::slowest(&acks, self.span),
                latest_step: step.expect("what runs goes on"),
                shown: shown.get(shard).copied(),
            });
        }
        Seen {
            change,
            pauses,
            exit,
        }
    }
}
