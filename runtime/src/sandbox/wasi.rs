//! WASI 0.2 as a guest sees it: virtual and deterministic.
//!
//! Time starts when the attempt was scheduled and advances with the fuel that
//! is used, one nanosecond a unit; sleeping moves it on at once. Random numbers
//! follow from the execution and the state entry. Environment, arguments and
//! files are empty, sockets are refused, output is the log. So WASI gives no
//! power: the same attempt sees the same world again.
//!
//! `wasmtime-wasi` supplies the interfaces and types, and everything that cannot
//! be reached without a file or socket to begin with. What can be reached is
//! defined again here, with the store at hand: to read the fuel, to charge for
//! the call, and to hold nothing on the host that a guest could pile up.

use std::borrow::Cow;

use cascade_cdl::Timestamp;
use sha2::{Digest as _, Sha256};
use wasmtime::component::{
    ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceTable, ResourceType, WasmList,
};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::p2::bindings::cli::{
    terminal_input::TerminalInput, terminal_output::TerminalOutput,
};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::io::streams::StreamError;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Network};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::failure::Stop;
use super::host::{HostState, charge, log_line};
use super::services::LogLevel;

/// Version of the interfaces that are defined again: wasmtime-wasi's.
const VERSION: &str = "0.2.12";

/// Most pollables that are alive: a sleeping runtime has a handful.
const MAX_POLLABLES: usize = 1_024;
/// The pollable of a stream, which is always ready.
const READY: u32 = u32::MAX;

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Bytes that one write or read may carry.
const CHUNK: u64 = 64 << 10;
/// Random bytes of one call; more traps, as it does in wasmtime-wasi.
const MAX_RANDOM: u64 = 64 << 10;
/// Longest line of stdout or stderr before it is logged without its end.
const MAX_LINE: usize = 8 << 10;
/// How much of stderr is kept for the message of a failed command.
const STDERR_TAIL: usize = 2 << 10;

/// The virtual world of one attempt.
pub(super) struct Wasi {
    scheduled_at: Timestamp,
    /// Nanoseconds slept.
    slept: u64,
    /// What the random numbers follow from.
    seed: Seed,
    random: Option<Random>,
    stdin: Option<String>,
    stdin_read: usize,
    /// What a command wrote to stdout; `None` if stdout is the log.
    stdout: Option<Vec<u8>>,
    out_line: Vec<u8>,
    err_line: Vec<u8>,
    stderr_tail: Vec<u8>,
    /// Times at which pollables become ready, by handle.
    pollables: Vec<Option<u64>>,
    /// For the interfaces that only wasmtime-wasi defines; made when one is used.
    rest: Option<Box<(WasiCtx, ResourceTable)>>,
}

/// What the random numbers of an attempt follow from.
pub(super) struct Seed {
    pub(super) execution: [u8; 16],
    pub(super) idempotency_key: String,
}

impl Wasi {
    pub(super) fn new(scheduled_at: Timestamp, seed: Seed) -> Self {
        Self {
            scheduled_at,
            slept: 0,
            seed,
            random: None,
            stdin: None,
            stdin_read: 0,
            stdout: None,
            out_line: Vec::new(),
            err_line: Vec::new(),
            stderr_tail: Vec::new(),
            pollables: Vec::new(),
            rest: None,
        }
    }

    /// Makes stdin and stdout the input and output of a command.
    pub(super) fn as_command(&mut self, input: String) {
        self.stdin = Some(input);
        self.stdout = Some(Vec::new());
    }

    /// What a command wrote.
    pub(super) fn take_stdout(&mut self) -> Vec<u8> {
        self.stdout.take().unwrap_or_default()
    }

    /// The end of what was written to stderr.
    pub(super) fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.stderr_tail).trim().to_owned()
    }

    /// The line that is being written to a stream, and how it is logged.
    fn line(&mut self, stream: u32) -> (&mut Vec<u8>, LogLevel) {
        if stream == STDERR {
            (&mut self.err_line, LogLevel::Warn)
        } else {
            (&mut self.out_line, LogLevel::Info)
        }
    }

    fn random(&mut self) -> &mut Random {
        self.random.get_or_insert_with(|| Random::new(&self.seed))
    }
}

/// Random bytes that follow from a seed: SHA-256 over it and a counter.
struct Random {
    seed: [u8; 32],
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl Random {
    fn new(seed: &Seed) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"cascade virtual randomness 1\0");
        hash.update(seed.execution);
        hash.update(seed.idempotency_key.as_bytes());
        Self {
            seed: hash.finalize().into(),
            counter: 0,
            block: [0; 32],
            used: 32,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.block.len() {
                let mut hash = Sha256::new();
                hash.update(self.seed);
                hash.update(self.counter.to_le_bytes());
                self.block = hash.finalize().into();
                self.counter += 1;
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let rest = self.wasi.rest.get_or_insert_with(|| {
            let mut table = ResourceTable::new();
            table.set_max_capacity(MAX_POLLABLES);
            let ctx = WasiCtx::builder().allow_tcp(false).allow_udp(false).build();
            Box::new((ctx, table))
        });
        WasiCtxView {
            ctx: &mut rest.0,
            table: &mut rest.1,
        }
    }
}

type Ctx<'a> = StoreContextMut<'a, HostState>;

/// Adds the whole of WASI 0.2 but `wasi:http`.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    add_cli(linker)?;
    add_stdio(linker)?;
    add_clocks(linker)?;
    add_poll(linker)?;
    add_input_stream(&mut instance(linker, "wasi:io/streams")?)?;
    add_output_stream(&mut instance(linker, "wasi:io/streams")?)?;
    add_random(linker)?;
    add_files_and_sockets(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn instance<'a>(
    linker: &'a mut Linker<HostState>,
    name: &str,
) -> Result<LinkerInstance<'a, HostState>> {
    linker.instance(&format!("{name}@{VERSION}"))
}

fn add_cli(linker: &mut Linker<HostState>) -> Result<()> {
    let mut environment = instance(linker, "wasi:cli/environment")?;
    constant(
        &mut environment,
        "get-environment",
        Vec::<(String, String)>::new,
    )?;
    constant(&mut environment, "get-arguments", Vec::<String>::new)?;
    constant(&mut environment, "initial-cwd", || None::<String>)?;
    let mut exit = instance(linker, "wasi:cli/exit")?;
    exit.func_wrap(
        "exit",
        |_: Ctx<'_>, (status,): (std::result::Result<(), ()>,)| -> Result<()> {
            Err(Stop::Exit(u8::from(status.is_err())).into())
        },
    )?;
    exit.func_wrap(
        "exit-with-code",
        |_: Ctx<'_>, (code,): (u8,)| -> Result<()> { Err(Stop::Exit(code).into()) },
    )?;
    let mut terminal = instance(linker, "wasi:cli/terminal-stdin")?;
    constant(&mut terminal, "get-terminal-stdin", || {
        None::<Resource<TerminalInput>>
    })?;
    for name in ["stdout", "stderr"] {
        let mut terminal = instance(linker, &format!("wasi:cli/terminal-{name}"))?;
        constant(&mut terminal, &format!("get-terminal-{name}"), || {
            None::<Resource<TerminalOutput>>
        })?;
    }
    Ok(())
}

/// A function without arguments whose answer never changes.
fn constant<T, F>(instance: &mut LinkerInstance<'_, HostState>, name: &str, answer: F) -> Result<()>
where
    T: ComponentType + Lower + 'static,
    F: Fn() -> T + Send + Sync + 'static,
{
    instance.func_wrap(name, move |mut store: Ctx<'_>, (): ()| {
        charge(&mut store, 0)?;
        Ok((answer(),))
    })
}

/// The standard streams are handles with fixed numbers: getting one makes nothing.
fn add_stdio(linker: &mut Linker<HostState>) -> Result<()> {
    let mut stdin = instance(linker, "wasi:cli/stdin")?;
    constant(&mut stdin, "get-stdin", || {
        Resource::<DynInputStream>::new_own(STDIN)
    })?;
    let mut stdout = instance(linker, "wasi:cli/stdout")?;
    constant(&mut stdout, "get-stdout", || {
        Resource::<DynOutputStream>::new_own(STDOUT)
    })?;
    let mut stderr = instance(linker, "wasi:cli/stderr")?;
    constant(&mut stderr, "get-stderr", || {
        Resource::<DynOutputStream>::new_own(STDERR)
    })?;
    let mut streams = instance(linker, "wasi:io/streams")?;
    streams.resource(
        "input-stream",
        ResourceType::host::<DynInputStream>(),
        |_, _| Ok(()),
    )?;
    streams.resource(
        "output-stream",
        ResourceType::host::<DynOutputStream>(),
        |_, _| Ok(()),
    )
}

/// Nanoseconds since the attempt was scheduled.
fn elapsed(store: &Ctx<'_>) -> Result<u64> {
    let state = store.data();
    let used = state
        .limits
        .fuel_per_attempt
        .saturating_sub(store.get_fuel()?);
    Ok(used.saturating_add(state.wasi.slept))
}

fn add_clocks(linker: &mut Linker<HostState>) -> Result<()> {
    let mut monotonic = instance(linker, "wasi:clocks/monotonic-clock")?;
    monotonic.func_wrap("now", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store, 0)?;
        Ok((elapsed(&store)?,))
    })?;
    constant(&mut monotonic, "resolution", || 1_u64)?;
    monotonic.func_wrap(
        "subscribe-instant",
        |mut store: Ctx<'_>, (when,): (u64,)| {
            charge(&mut store, 0)?;
            Ok((pollable(&mut store, when)?,))
        },
    )?;
    monotonic.func_wrap(
        "subscribe-duration",
        |mut store: Ctx<'_>, (duration,): (u64,)| {
            charge(&mut store, 0)?;
            let when = elapsed(&store)?.saturating_add(duration);
            Ok((pollable(&mut store, when)?,))
        },
    )?;
    let mut wall = instance(linker, "wasi:clocks/wall-clock")?;
    wall.func_wrap("now", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store, 0)?;
        let elapsed = elapsed(&store)?;
        let start = store.data().wasi.scheduled_at.0;
        let nanos = u64::from(u32::try_from(start % 1_000).unwrap_or(0)) * 1_000_000
            + elapsed % 1_000_000_000;
        let seconds = start / 1_000 + elapsed / 1_000_000_000 + nanos / 1_000_000_000;
        let nanoseconds = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
        Ok((Datetime {
            seconds,
            nanoseconds,
        },))
    })?;
    constant(&mut wall, "resolution", || Datetime {
        seconds: 0,
        nanoseconds: 1,
    })
}

/// A pollable that is ready at a time.
fn pollable(store: &mut Ctx<'_>, when: u64) -> Result<Resource<DynPollable>> {
    let pollables = &mut store.data_mut().wasi.pollables;
    let at = match pollables.iter().position(Option::is_none) {
        Some(free) => free,
        None if pollables.len() < MAX_POLLABLES => {
            pollables.push(None);
            pollables.len() - 1
        }
        None => return Err(Stop::TooManyHandles(MAX_POLLABLES).into()),
    };
    pollables[at] = Some(when);
    Ok(Resource::new_own(
        u32::try_from(at).expect("there are at most MAX_POLLABLES"),
    ))
}

/// When a pollable is ready.
fn ready_at(store: &Ctx<'_>, pollable: &Resource<DynPollable>) -> u64 {
    if pollable.rep() == READY {
        return 0;
    }
    let pollables = &store.data().wasi.pollables;
    pollables
        .get(pollable.rep() as usize)
        .copied()
        .flatten()
        .unwrap_or(0)
}

/// Lets virtual time pass until `when`.
fn sleep_until(store: &mut Ctx<'_>, when: u64) -> Result<()> {
    let missing = when.saturating_sub(elapsed(store)?);
    let slept = &mut store.data_mut().wasi.slept;
    *slept = slept.saturating_add(missing);
    Ok(())
}

fn add_poll(linker: &mut Linker<HostState>) -> Result<()> {
    let mut poll = instance(linker, "wasi:io/poll")?;
    poll.resource(
        "pollable",
        ResourceType::host::<DynPollable>(),
        |mut store, rep| {
            let pollables = &mut store.data_mut().wasi.pollables;
            if let Some(pollable) = pollables.get_mut(rep as usize) {
                *pollable = None;
            }
            Ok(())
        },
    )?;
    poll.func_wrap(
        "[method]pollable.ready",
        |mut store: Ctx<'_>, (pollable,): (Resource<DynPollable>,)| {
            charge(&mut store, 0)?;
            Ok((ready_at(&store, &pollable) <= elapsed(&store)?,))
        },
    )?;
    poll.func_wrap(
        "[method]pollable.block",
        |mut store: Ctx<'_>, (pollable,): (Resource<DynPollable>,)| {
            charge(&mut store, 0)?;
            let when = ready_at(&store, &pollable);
            sleep_until(&mut store, when)
        },
    )?;
    poll.func_wrap(
        "poll",
        |mut store: Ctx<'_>, (list,): (Vec<Resource<DynPollable>>,)| {
            charge(&mut store, list.len() * size_of::<u64>())?;
            let times: Vec<u64> = list
                .iter()
                .map(|pollable| ready_at(&store, pollable))
                .collect();
            let Some(first) = times.iter().min() else {
                return Err(Stop::Trap("polled an empty list".into()).into());
            };
            sleep_until(&mut store, *first)?;
            let now = elapsed(&store)?;
            let ready = (0_u32..)
                .zip(times)
                .filter(|(_, when)| *when <= now)
                .map(|(at, _)| at);
            Ok((ready.collect::<Vec<u32>>(),))
        },
    )
}

type StreamResult<T> = std::result::Result<T, StreamError>;

/// The next bytes of stdin, at most `len`.
fn read(store: &mut Ctx<'_>, len: u64) -> Result<StreamResult<Vec<u8>>> {
    let len = usize::try_from(len.min(CHUNK)).expect("a chunk fits");
    let wasi = &mut store.data_mut().wasi;
    let rest = wasi.stdin.as_deref().unwrap_or_default().as_bytes();
    let rest = &rest[wasi.stdin_read.min(rest.len())..];
    if rest.is_empty() {
        charge(store, 0)?;
        return Ok(Err(StreamError::Closed));
    }
    let bytes = rest[..len.min(rest.len())].to_vec();
    wasi.stdin_read += bytes.len();
    charge(store, bytes.len())?;
    Ok(Ok(bytes))
}

fn add_input_stream(streams: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    for name in ["read", "blocking-read"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store: Ctx<'_>, (_, len): (Resource<DynInputStream>, u64)| {
                Ok((read(&mut store, len)?,))
            },
        )?;
    }
    for name in ["skip", "blocking-skip"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store: Ctx<'_>, (_, len): (Resource<DynInputStream>, u64)| {
                Ok((read(&mut store, len)?.map(|bytes| bytes.len() as u64),))
            },
        )?;
    }
    streams.func_wrap(
        "[method]input-stream.subscribe",
        |mut store: Ctx<'_>, (_,): (Resource<DynInputStream>,)| {
            charge(&mut store, 0)?;
            Ok((Resource::<DynPollable>::new_own(READY),))
        },
    )
}

fn add_output_stream(streams: &mut LinkerInstance<'_, HostState>) -> Result<()> {
    type Stream = Resource<DynOutputStream>;
    let name = |method: &str| format!("[method]output-stream.{method}");
    streams.func_wrap(
        &name("check-write"),
        |mut store: Ctx<'_>, (_,): (Stream,)| {
            charge(&mut store, 0)?;
            Ok((StreamResult::Ok(CHUNK),))
        },
    )?;
    for method in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(
            &name(method),
            |mut store: Ctx<'_>, (stream, bytes): (Stream, WasmList<u8>)| {
                check_chunk(bytes.len() as u64)?;
                charge(&mut store, bytes.len())?;
                let bytes = bytes.as_le_slice(&store).to_vec();
                write(&mut store, stream.rep(), &bytes)?;
                Ok((StreamResult::Ok(()),))
            },
        )?;
    }
    for method in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        streams.func_wrap(
            &name(method),
            |mut store: Ctx<'_>, (stream, len): (Stream, u64)| {
                check_chunk(len)?;
                let len = usize::try_from(len).expect("a chunk fits");
                charge(&mut store, len)?;
                write(&mut store, stream.rep(), &vec![0; len])?;
                Ok((StreamResult::Ok(()),))
            },
        )?;
    }
    for method in ["flush", "blocking-flush"] {
        streams.func_wrap(&name(method), |mut store: Ctx<'_>, (_,): (Stream,)| {
            charge(&mut store, 0)?;
            Ok((StreamResult::Ok(()),))
        })?;
    }
    streams.func_wrap(&name("subscribe"), |mut store: Ctx<'_>, (_,): (Stream,)| {
        charge(&mut store, 0)?;
        Ok((Resource::<DynPollable>::new_own(READY),))
    })?;
    for method in ["splice", "blocking-splice"] {
        streams.func_wrap(
            &name(method),
            |mut store: Ctx<'_>, (stream, _, len): (Stream, Resource<DynInputStream>, u64)| {
                let bytes = match read(&mut store, len)? {
                    Ok(bytes) => bytes,
                    Err(closed) => return Ok((Err(closed),)),
                };
                write(&mut store, stream.rep(), &bytes)?;
                Ok((StreamResult::Ok(bytes.len() as u64),))
            },
        )?;
    }
    Ok(())
}

/// Ends the attempt if it writes more at once than `check-write` permits, as it
/// does in wasmtime-wasi.
fn check_chunk(len: u64) -> Result<()> {
    if len > CHUNK {
        let what = format!("wrote {len} bytes to a stream at once, {CHUNK} are permitted");
        return Err(Stop::Trap(what).into());
    }
    Ok(())
}

/// Takes what a guest writes to stdout or stderr.
fn write(store: &mut Ctx<'_>, stream: u32, bytes: &[u8]) -> Result<()> {
    let state = store.data_mut();
    if stream == STDOUT
        && let Some(stdout) = &mut state.wasi.stdout
    {
        let limit = state.limits.output_bytes;
        // Room for the line break that many programs print after their JSON.
        if (stdout.len() + bytes.len()) as u64 > limit + 2 {
            return Err(Stop::OutputTooLarge {
                what: "what the command wrote to stdout",
                limit,
            }
            .into());
        }
        stdout.extend_from_slice(bytes);
        return Ok(());
    }
    if stream == STDERR {
        let tail = &mut state.wasi.stderr_tail;
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(STDERR_TAIL)..]);
        let excess = tail.len().saturating_sub(STDERR_TAIL);
        tail.drain(..excess);
    }
    log_lines(store, stream, bytes)
}

fn log_lines(store: &mut Ctx<'_>, stream: u32, bytes: &[u8]) -> Result<()> {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        for piece in piece.chunks(MAX_LINE) {
            let state = store.data_mut();
            let (line, level) = state.wasi.line(stream);
            if state.log.truncated {
                line.clear();
                return Ok(());
            }
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") || line.len() >= MAX_LINE {
                let whole = std::mem::take(line);
                log_line(store, level, &text(&whole))?;
            }
        }
    }
    Ok(())
}

/// A line without its end.
fn text(line: &[u8]) -> Cow<'_, str> {
    let end = line.iter().rposition(|byte| !b"\r\n".contains(byte));
    String::from_utf8_lossy(&line[..end.map_or(0, |last| last + 1)])
}

/// Logs what was written without a line break at the end.
pub(super) fn flush(state: &mut HostState) {
    for stream in [STDOUT, STDERR] {
        let (line, level) = state.wasi.line(stream);
        if !line.is_empty() {
            let line = std::mem::take(line);
            state.log.line(level, &text(&line));
        }
    }
}

fn add_random(linker: &mut Linker<HostState>) -> Result<()> {
    for (interface, bytes, number) in [
        ("wasi:random/random", "get-random-bytes", "get-random-u64"),
        (
            "wasi:random/insecure",
            "get-insecure-random-bytes",
            "get-insecure-random-u64",
        ),
    ] {
        let mut random = instance(linker, interface)?;
        random.func_wrap(bytes, |mut store: Ctx<'_>, (len,): (u64,)| {
            if len > MAX_RANDOM {
                return Err(Stop::Trap(format!(
                    "asked for {len} random bytes, the limit is {MAX_RANDOM}"
                ))
                .into());
            }
            let len = usize::try_from(len).expect("below MAX_RANDOM");
            charge(&mut store, len * 4)?; // a hash for every 32 bytes
            let mut bytes = vec![0; len];
            store.data_mut().wasi.random().fill(&mut bytes);
            Ok((bytes,))
        })?;
        random.func_wrap(number, |mut store: Ctx<'_>, (): ()| {
            charge(&mut store, 32)?;
            Ok((store.data_mut().wasi.random().next_u64(),))
        })?;
    }
    let mut seed = instance(linker, "wasi:random/insecure-seed")?;
    seed.func_wrap("insecure-seed", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store, 64)?;
        let random = store.data_mut().wasi.random();
        Ok(((random.next_u64(), random.next_u64()),))
    })
}

/// No files, and sockets and names that are refused.
fn add_files_and_sockets(linker: &mut Linker<HostState>) -> Result<()> {
    use wasmtime_wasi::p2::bindings::filesystem::types::Descriptor;
    use wasmtime_wasi::p2::bindings::sockets::{
        ip_name_lookup::ResolveAddressStream, tcp::TcpSocket, udp::UdpSocket,
    };
    type Refused<T> = std::result::Result<Resource<T>, ErrorCode>;

    let mut preopens = instance(linker, "wasi:filesystem/preopens")?;
    constant(
        &mut preopens,
        "get-directories",
        Vec::<(Resource<Descriptor>, String)>::new,
    )?;
    let mut network = instance(linker, "wasi:sockets/instance-network")?;
    constant(&mut network, "instance-network", || {
        Resource::<Network>::new_own(0)
    })?;
    let mut network = instance(linker, "wasi:sockets/network")?;
    network.resource("network", ResourceType::host::<Network>(), |_, _| Ok(()))?;
    let mut tcp = instance(linker, "wasi:sockets/tcp-create-socket")?;
    tcp.func_wrap(
        "create-tcp-socket",
        |mut store: Ctx<'_>, (_,): (IpAddressFamily,)| {
            charge(&mut store, 0)?;
            Ok((Refused::<TcpSocket>::Err(ErrorCode::AccessDenied),))
        },
    )?;
    let mut udp = instance(linker, "wasi:sockets/udp-create-socket")?;
    udp.func_wrap(
        "create-udp-socket",
        |mut store: Ctx<'_>, (_,): (IpAddressFamily,)| {
            charge(&mut store, 0)?;
            Ok((Refused::<UdpSocket>::Err(ErrorCode::AccessDenied),))
        },
    )?;
    let mut names = instance(linker, "wasi:sockets/ip-name-lookup")?;
    names.func_wrap(
        "resolve-addresses",
        |mut store: Ctx<'_>, (_, name): (Resource<Network>, wasmtime::component::WasmStr)| {
            let len = name.to_str(&store)?.len();
            charge(&mut store, len)?;
            Ok((Refused::<ResolveAddressStream>::Err(
                ErrorCode::AccessDenied,
            ),))
        },
    )
}
