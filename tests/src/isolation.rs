//! Measures how much one tenant's attacks slow another tenant down.
//!
//! The neighbour runs `cascade bench` for some seconds, alone and then beside
//! an attack. Attackers are executions that try the same thing for ever, so the
//! load comes from inside the server and costs no client; uploads, which only a
//! client can make, are sent one after the other. Every attempt of an attack
//! must end with the named error of its attack; how long it went on past its
//! timeout is told as well.
//!
//! Figures, not a test: what a machine that does other things shows is its noise.
//! A virtual machine whose cores are all busy is itself paused by its host, for
//! some milliseconds many times a second, which no server can help. So the
//! neighbour is measured three times: alone; alone while something that stands
//! behind everything else keeps all cores busy; and so with the attack. The last
//! two tell what the attack does. They take turns for some rounds, the attackers
//! paused meanwhile, and of each the median counts: the slowest hundredth of one
//! run of some seconds is what a disk or a host did in a few hundredths of one.
//! Even so the host's pauses are about as frequent as that hundredth, and the second
//! measure alone comes out anywhere between 4 and 16 ms. It is the same for every
//! attack, a server that nobody attacks; so what each attack is held against in the
//! end is the median of all that was measured of it ([`Verdict`]).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cascade_cdl::{Event, EventKind};
use serde_json::{Value, json};

use crate::{ATTACKER_KEY, Answer, KEY, Server, http, root};

/// Executions that attack at the same time.
const ATTACKERS: usize = 64;

/// Longest that an attempt of an attack may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Seconds that the neighbour runs before it is measured.
const WARM_UP: &str = "1";

/// How soon cores must be awake, in microseconds: at once means that they never sleep.
const LATENCY: &str = "/dev/cpu_dma_latency";

/// `nice` of what only keeps cores busy: as far back as there is.
const LAST: i32 = 19;

/// Functions of a module that is to keep the compiler busy: almost as many as it takes.
const FUNCTIONS: usize = 59_000;

/// Tries the same thing for ever.
const CDL: &str = "
workflows:
  - name: attack
    states:
      - name: Strike
        type: Task
        resource: urn:cascade:activity:attack
        parameters: key
        retries: { max_attempts: 1 }
        catch: [{ error: '*', next: Strike }]
        next: Strike
";

/// What attempts do, and the errors that may end them.
const ATTACKS: [(&str, &str, &[&str]); 15] = [
    ("endless loop", "loop", &["TimeoutError", "FuelExhausted"]),
    (
        "loop at the start",
        "start_loop",
        &["TimeoutError", "FuelExhausted"],
    ),
    ("endless recursion", "recursion", &["Trap"]),
    ("memory bomb", "memory_bomb", &["MemoryExceeded"]),
    (
        "memory, all of it written",
        "memory_flood",
        &["TimeoutError", "FuelExhausted"],
    ),
    ("table bomb", "table_bomb", &["MemoryExceeded"]),
    ("log flood", "log_flood", &["TimeoutError", "FuelExhausted"]),
    (
        "heartbeat flood",
        "beat_flood",
        &["TimeoutError", "FuelExhausted"],
    ),
    (
        "key-value flood",
        "key_value_flood",
        &["TimeoutError", "FuelExhausted"],
    ),
    ("huge output", "huge_output", &["OutputTooLarge"]),
    (
        "gigantic output",
        "gigantic_output",
        &["OutputTooLarge", "MemoryExceeded"],
    ),
    ("invalid UTF-8", "invalid_utf8", &["InvalidOutput"]),
    ("invalid JSON", "invalid_json", &["InvalidOutput"]),
    ("trap", "unreachable", &["Trap"]),
    ("endless success", "noop", &["none"]),
];

/// What a measurement takes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The neighbour's clients.
    pub clients: u32,
    /// Seconds of each measurement.
    pub seconds: u32,
    /// How often what is compared is measured.
    pub rounds: u32,
    /// Whether cores are kept busy meanwhile.
    pub busy: bool,
    /// Only attacks with this in their names.
    pub only: String,
}

/// The neighbour's latency, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// What came of one attack.
#[derive(Debug)]
pub struct Row {
    pub attack: &'static str,
    /// On a machine that does nothing else.
    pub alone: Latency,
    /// The same on one whose cores are busy, in each round.
    pub busy: Vec<Latency>,
    /// And with the attack.
    pub beside: Latency,
    /// How attempts ended, and how often, in a sample of them.
    pub ends: BTreeMap<String, usize>,
    /// The longest that an attempt went on past its timeout.
    pub overrun: Duration,
    /// Ends other than those that the attack may have.
    pub wrong: Vec<String>,
}

/// Keeps all cores busy with what gives way to everything else.
enum Busy {
    /// They poll when there is nothing to do, for as long as the file is open:
    /// <https://docs.kernel.org/power/pm_qos_interface.html>.
    Polling { _request: File },
    /// Threads that stand back. The kernel's own threads, whose weight is a thousand times theirs,
    /// sometimes wait some milliseconds behind them all the same.
    Spinning {
        over: Arc<AtomicBool>,
        threads: Vec<JoinHandle<()>>,
    },
}

impl Busy {
    fn start() -> Self {
        let request = File::options().write(true).open(LATENCY);
        let request = request.and_then(|mut file| {
            file.write_all(&0_i32.to_ne_bytes())?;
            Ok(file)
        });
        match request {
            Ok(request) => Self::Polling { _request: request },
            Err(_) => Self::spin(), // not allowed, or nothing that could poll
        }
    }

    fn spin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let spin = |over: Arc<AtomicBool>| {
            // On Linux a thread has a priority of its own.
            rustix::process::setpriority_process(None, LAST).expect("a thread may stand back");
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let threads = (0..cores)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || spin(over))
            })
            .collect();
        Self::Spinning { over, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Self::Spinning { over, threads } = self {
            over.store(true, Ordering::Relaxed);
            for thread in threads.drain(..) {
                thread.join().expect("a spinning thread never panics");
            }
        }
    }
}

/// Measures all attacks against a binary, each on a server of its own.
pub fn run(binary: &Path, plan: &Plan, mut each: impl FnMut(Row)) {
    for (attack, fixture, expected) in ATTACKS {
        if attack.contains(&plan.only) {
            each(attempts(binary, plan, attack, fixture, expected));
        }
    }
    if "uploads".contains(&plan.only) {
        each(uploads(binary, plan));
    }
}

fn attempts(
    binary: &Path,
    plan: &Plan,
    attack: &'static str,
    fixture: &str,
    expected: &[&str],
) -> Row {
    let server = Server::with_binary(binary, "");
    push(&server, fixture);
    let alone = neighbour(binary, &server, plan);
    let busy_cores = plan.busy.then(Busy::start);
    let (mut busy, mut beside) = (Vec::new(), Vec::new());
    let mut ids = Vec::new();
    for round in 0..plan.rounds {
        busy.push(neighbour(binary, &server, plan));
        if round == 0 {
            ids.extend((0..ATTACKERS).map(|_| strike(&server)));
        } else {
            tell_all(&server, &ids, "resume");
        }
        beside.push(neighbour(binary, &server, plan));
        tell_all(&server, &ids, "pause");
        // What had begun goes on up to its timeout, and is not to count as undisturbed.
        thread::sleep(TIMEOUT);
    }
    drop(busy_cores);
    let mut row = Row {
        attack,
        alone,
        busy,
        beside: Latency::median(&beside),
        ends: BTreeMap::new(),
        overrun: Duration::ZERO,
        wrong: Vec::new(),
    };
    for id in &ids {
        for (error, lasted) in ended(&server, id) {
            row.overrun = row.overrun.max(lasted.saturating_sub(TIMEOUT));
            if !expected.contains(&error.as_str()) {
                row.wrong.push(error.clone());
            }
            *row.ends.entry(error).or_default() += 1;
        }
    }
    if row.ends.is_empty() {
        row.wrong.push("no attempt ended".to_owned());
    }
    row
}

/// Uploads modules that take long to compile, each another one.
fn uploads(binary: &Path, plan: &Plan) -> Row {
    let server = Server::with_binary(binary, "");
    let alone = neighbour(binary, &server, plan);
    // Made before: it takes a core for longer than the server does.
    let module = many_functions();
    let _busy_cores = plan.busy.then(Busy::start);
    let (mut busy, mut beside) = (Vec::new(), Vec::new());
    let mut ends = BTreeMap::new();
    for _ in 0..plan.rounds {
        busy.push(neighbour(binary, &server, plan));
        beside.push(beside_uploads(binary, &server, plan, &module, &mut ends));
    }
    Row {
        attack: "uploads",
        alone,
        busy,
        beside: Latency::median(&beside),
        ends,
        overrun: Duration::ZERO,
        wrong: Vec::new(),
    }
}

/// The neighbour's latency beside uploads, and how those were answered.
fn beside_uploads(
    binary: &Path,
    server: &Server,
    plan: &Plan,
    module: &[u8],
    ends: &mut BTreeMap<String, usize>,
) -> Latency {
    let over = &AtomicBool::new(false);
    let sent: usize = ends.values().sum();
    let first = u32::try_from(sent).expect("few");
    thread::scope(|scope| {
        let uploader = scope.spawn(move || {
            for number in first.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let answer = upload(server, &numbered(module, number), &[]);
                let status = answer.map_or_else(
                    |error| error.to_string(),
                    |answer| answer.status.to_string(),
                );
                *ends.entry(status).or_default() += 1;
            }
        });
        let latency = neighbour(binary, server, plan);
        over.store(true, Ordering::Relaxed);
        uploader.join().expect("an uploader never panics");
        latency
    })
}

/// A module of nothing but functions.
fn many_functions() -> Vec<u8> {
    let body = "(func (result i32) (i32.add (i32.const 1) (i32.const 2)))".repeat(FUNCTIONS);
    // A command, of which the compiler sees all.
    let text = format!("(module (memory (export \"memory\") 1) (func (export \"_start\")) {body})");
    wat::parse_str(text).expect("it is plain")
}

/// The same module as no other number's: with a custom section.
/// <https://webassembly.github.io/spec/core/binary/modules.html#custom-section>
fn numbered(module: &[u8], number: u32) -> Vec<u8> {
    let section = [&[0, 6, 1, b'n'], &number.to_le_bytes()[..]].concat();
    [module, &section].concat()
}

fn upload(server: &Server, wasm: &[u8], capabilities: &[&str]) -> io::Result<Answer> {
    let path = "/v1/activities/attack/versions";
    // The sandbox's own limit, so that the receipt tells how long it took to stop.
    let manifest = json!({
        "limits": { "attempt_timeout": format!("{}s", TIMEOUT.as_secs()) },
        "capabilities": capabilities,
    })
    .to_string();
    let manifest = [("Cascade-Manifest", manifest.as_str())];
    http::request(server.url(), ATTACKER_KEY, "POST", path, &manifest, wasm)
}

/// A request of the attacker.
fn ask(server: &Server, method: &str, path: &str, body: impl AsRef<[u8]>) -> io::Result<Answer> {
    http::request(server.url(), ATTACKER_KEY, method, path, &[], body)
}

fn push(server: &Server, fixture: &str) {
    let read = |name: &str| {
        let path = root().join("runtime/tests/fixtures").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let wat = format!(
        "(module\n{}\n{})",
        read(&format!("{fixture}.wat")),
        read("prelude.wat")
    );
    let wasm = wat::parse_str(&wat).unwrap_or_else(|error| panic!("{fixture}: {error}"));
    let capabilities: &[&str] = if wat.contains("activity/key-value@") {
        &["key-value"]
    } else {
        &[]
    };
    let pushed = upload(server, &wasm, capabilities).expect("the server answers");
    assert!(pushed.status < 300, "{}", pushed.body);
    let applied = ask(server, "PUT", "/v1/applications/attack", CDL);
    let applied = applied.expect("the server answers");
    assert!(applied.status < 300, "{}", applied.body);
}

/// Starts an execution that attacks for ever.
fn strike(server: &Server) -> String {
    let body = json!({ "application": "attack", "workflow": "attack", "input": {} }).to_string();
    let started = ask(server, "POST", "/v1/executions", body).expect("the server answers");
    assert_eq!(started.status, 202, "{}", started.body);
    started.body["id"].as_str().expect("an id").to_owned()
}

/// Pauses or resumes all attackers.
fn tell_all(server: &Server, ids: &[String], what: &str) {
    for id in ids {
        let path = format!("/v1/executions/{id}/{what}");
        let told = ask(server, "POST", &path, "{}").expect("the server answers");
        assert!(told.status < 300, "{what}: {} {}", told.status, told.body);
    }
}

/// Runs the neighbour and gives its latency.
fn neighbour(binary: &Path, server: &Server, plan: &Plan) -> Latency {
    let (clients, seconds) = (plan.clients.to_string(), plan.seconds.to_string());
    let output = Command::new(binary)
        .args(["bench", "workflow", "--url", server.url(), "--key", KEY])
        .args(["--clients", &clients, "--seconds", &seconds])
        .args(["--warm-up", WARM_UP, "--output", "json"])
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {text}{complaint}")
    });
    let latency = |name: &str| report["latency_ms"][name].as_f64().expect("a latency");
    Latency {
        p50: latency("p50"),
        p99: latency("p99"),
    }
}

/// Errors and durations of an execution's first attempts.
fn ended(server: &Server, id: &str) -> Vec<(String, Duration)> {
    let path = format!("/v1/executions/{id}/history?limit=1000");
    let mut answer = ask(server, "GET", &path, "").expect("the server answers");
    let events: Vec<Event> =
        serde_json::from_value(answer.body["events"].take()).expect("events of a history");
    let ended = events.into_iter().filter_map(|event| match event.kind {
        EventKind::ActivityFailed {
            failure, receipt, ..
        } => {
            let lasted = receipt.map_or(0, |receipt| receipt.duration_us);
            Some((failure.error, Duration::from_micros(lasted)))
        }
        EventKind::ActivityCompleted { receipt, .. } => Some((
            "none".to_owned(),
            Duration::from_micros(receipt.duration_us),
        )),
        _ => None,
    });
    ended.collect()
}

impl Latency {
    /// Of each figure the median.
    fn median(of: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = of.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            p50: middle(|latency| latency.p50),
            p99: middle(|latency| latency.p99),
        }
    }
}

/// All attacks held against what a server does that nobody attacks: on a machine that does
/// nothing else, and on one whose cores never sleep.
#[derive(Debug)]
pub struct Verdict<'a> {
    rows: &'a [Row],
    alone: Latency,
    busy: Latency,
}

impl<'a> Verdict<'a> {
    /// `None` if nothing was measured.
    pub fn new(rows: &'a [Row]) -> Option<Self> {
        let alone: Vec<Latency> = rows.iter().map(|row| row.alone).collect();
        let busy: Vec<Latency> = rows.iter().flat_map(|row| row.busy.clone()).collect();
        (!busy.is_empty()).then(|| Self {
            rows,
            alone: Latency::median(&alone),
            busy: Latency::median(&busy),
        })
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (alone, busy) = (self.alone.p99, self.busy.p99);
        write!(
            f,
            "p99 without an attack, median of all: alone {alone:.2} ms, busy {busy:.2} ms; beside one"
        )?;
        for row in self.rows {
            let p99 = row.beside.p99;
            write!(
                f,
                "\n{:<26} {p99:>5.2} ms, {:.1}× alone, {:.1}× busy",
                row.attack,
                p99 / alone,
                p99 / busy
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { alone, beside, .. } = self;
        let busy = Latency::median(&self.busy);
        write!(
            f,
            "{:<26} p50 {:>5.2}, busy {:>5.2} → {:>5.2} ms, p99 {:>5.2}, busy {:>5.2} → {:>5.2} ms ({:.1}×), {:>4.0} ms past the timeout;",
            self.attack,
            alone.p50,
            busy.p50,
            beside.p50,
            alone.p99,
            busy.p99,
            beside.p99,
            beside.p99 / busy.p99,
            self.overrun.as_secs_f64() * 1000.0,
        )?;
        for (end, count) in &self.ends {
            write!(f, " {end} {count}")?;
        }
        if !self.wrong.is_empty() {
            write!(f, " WRONG: {:?}", &self.wrong[..self.wrong.len().min(5)])?;
        }
        Ok(())
    }
}
