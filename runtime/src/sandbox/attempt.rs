//! One attempt, from its store to its receipt.
//!
//! The store is made for the attempt and dropped after it. Whatever happens in
//! between, a trap, a panic of the host, a deadline, costs this attempt only.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cascade_cdl::{ActivityFailure, ExecutionId, Json, Receipt, TenantId, Timestamp};
use futures::FutureExt as _;
use futures::task::AtomicWaker;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Sleep;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::failure::{ACTIVITY_FAILED, Stop, clip};
use super::host::bindings::cascade::activity::types::{ActivityError, Context as WitContext};
use super::host::{Beats, HostState, LogMeter, MemoryMeter};
use super::http::MAX_BODY;
use super::limits::{Grants, Limits, is_pure};
use super::modules::{Entry, Module};
use super::services::LogSink;
use super::wasi::{self, Seed, Wasi};
use super::{Inner, json};

/// Fuel between two points at which the counter is brought up to date, about a
/// millisecond of guest code. An attempt that is cut off has used no more than
/// this beyond what its receipt says.
const FUEL_SLICE: u64 = 1_000_000;

/// Nanoseconds of a processor that an attempt may take for each unit of its fuel.
/// A unit is about a nanosecond, two or three where code waits for memory;
/// beyond that it is work of the host that fuel does not count, such as refusing
/// over and over that a table grows. In a debug build the host is slower than
/// what fuel was measured by.
const TIME_PER_FUEL: u64 = if cfg!(debug_assertions) { 16 } else { 4 };

/// Processor time that every attempt may take, however little its fuel: making
/// the instances of a large module the first time.
const MIN_TIME: Duration = Duration::from_secs(1);

/// Most handles that a component may hold: they take memory of the host.
const MAX_HANDLES: usize = 10_000;

/// Longest error name that is kept, in bytes.
const MAX_ERROR_NAME: usize = 128;

/// One request to run an activity.
pub struct Invocation {
    /// Whose attempt it is.
    pub tenant: TenantId,
    /// SHA-256 of the module, in hexadecimal.
    pub digest: Arc<str>,
    /// What the activity is told about itself.
    pub context: TaskContext,
    /// Its input.
    pub input: Json,
    /// What it may use.
    pub limits: Limits,
    /// What it may reach.
    pub grants: Arc<Grants>,
    /// Where its log goes.
    pub log: Arc<dyn LogSink>,
    /// Called at each heartbeat, on the thread that runs the attempt.
    pub heartbeat: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Longest silence between two heartbeats.
    pub heartbeat_timeout: Option<Duration>,
    /// When the attempt must have ended, if before its limit.
    pub deadline: Option<Instant>,
    /// Stops the attempt.
    pub cancel: Option<Cancel>,
}

/// What an activity is told about itself: the WIT's `context` less the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskContext {
    /// Name of the application.
    pub application: Arc<str>,
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// The execution.
    pub execution: ExecutionId,
    /// Name of the Task state.
    pub state: Arc<str>,
    /// Which try, from 1.
    pub attempt: u32,
    /// The same for every attempt of one state entry.
    pub idempotency_key: String,
    /// When the attempt was scheduled; the virtual clock starts there.
    pub scheduled_at: Timestamp,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The output, or why there is none.
    pub result: Result<Json, ActivityFailure>,
    /// What ran and what it cost.
    pub receipt: Receipt,
    /// Most memory and tables that it held at once, in bytes.
    pub memory_peak: u64,
    /// Bytes that it logged.
    pub log_bytes: u64,
    /// Whether its log was full.
    pub log_truncated: bool,
    /// Processor time that it took, the host's work for it included, that of
    /// loading its module too. Not in the receipt, which is the same wherever the
    /// attempt runs.
    pub busy: Duration,
}

impl Outcome {
    /// What the attempt cost its tenant, as the queue between tenants counts it:
    /// fuel, or the nanoseconds that it was busy if those are more.
    pub fn cost(&self) -> u64 {
        let busy = u64::try_from(self.busy.as_nanos()).unwrap_or(u64::MAX);
        self.receipt.fuel.max(busy)
    }
}

/// Stops an attempt from elsewhere. Belongs to one attempt.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    cancelled: AtomicBool,
    waker: AtomicWaker,
}

impl Cancel {
    /// Stops the attempt: at once if it waits, within some milliseconds if it
    /// computes.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// Whether somebody cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }
}

/// Runs one attempt.
pub(super) async fn run(inner: &Inner, invocation: Invocation) -> Outcome {
    let started = Instant::now();
    let Invocation { limits, .. } = invocation;
    let mut watch = Watch::over(&invocation, started);
    let mut outcome = Outcome {
        result: Ok(Json::from(serde_json::Value::Null)),
        receipt: Receipt {
            digest: invocation.digest.to_string(),
            pure: false,
            fuel: 0,
            fuel_limit: limits.fuel_per_attempt,
            memory_limit: limits.memory_bytes,
            duration_us: 0,
        },
        memory_peak: 0,
        log_bytes: 0,
        log_truncated: false,
        busy: Duration::ZERO,
    };
    let ended = attempt(inner, invocation, &mut watch, &mut outcome).await;
    let pure = outcome.receipt.pure;
    outcome.result = match ended {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(failure)) => Err(failure),
        Err(stop) => Err(stop.into_failure(&limits, pure)),
    };
    let ended = Instant::now();
    outcome.receipt.duration_us = u64::try_from((ended - started).as_micros()).unwrap_or(u64::MAX);
    outcome.busy += watch.busy(ended);
    outcome
}

/// What the activity itself returned.
type Returned = Result<Json, ActivityFailure>;

async fn attempt(
    inner: &Inner,
    invocation: Invocation,
    watch: &mut Watch,
    outcome: &mut Outcome,
) -> Result<Returned, Stop> {
    let len = invocation.input.len() as u64;
    if len > invocation.limits.input_bytes {
        return Err(Stop::InputTooLarge { len });
    }
    let (tenant, digest) = (&invocation.tenant, &invocation.digest);
    let module = if let Some(module) = inner.modules.peek(tenant, digest) {
        module
    } else {
        let load = inner.modules.load(tenant, digest);
        let (module, work) = watch.supervise(load).await??;
        outcome.busy = work;
        module
    };
    outcome.receipt.pure = is_pure(&module.info, &invocation.grants);
    // The pool answers exhaustion with an error; waiting here, nobody sees one.
    let _slots = match inner.pool.try_acquire_many(module.slots) {
        Ok(permit) => permit,
        Err(_) => watch
            .supervise(inner.pool.acquire_many(module.slots))
            .await?
            .expect("the semaphore is never closed"),
    };
    let _running = inner.ticker.running();
    let fuel = invocation.limits.fuel_per_attempt;
    let (mut store, call) = prepare(inner, invocation, watch)?;
    let memory = &mut store.data_mut().memory;
    memory.reserve(module.info.segment_bytes)?;
    let body = AssertUnwindSafe(call.enter(&mut store, &module)).catch_unwind();
    let ended = watch.supervise(body).await;
    wasi::flush(store.data_mut());
    let left = store.get_fuel().unwrap_or(0);
    let state = store.data();
    outcome.receipt.fuel = fuel.saturating_sub(left);
    outcome.memory_peak = state.memory.peak;
    outcome.log_bytes = state.log.bytes;
    outcome.log_truncated = state.log.truncated;
    match ended? {
        // What a language prints when it panics says more than the trap.
        Ok(Err(Stop::Trap(kind))) => Err(Stop::Trap(with_stderr(
            kind,
            &store.data().wasi.stderr_tail(),
        ))),
        Ok(returned) => returned,
        Err(panic) => Err(Stop::HostPanic(panic_message(&*panic))),
    }
}

/// A store for the attempt, and what to call in it.
fn prepare(
    inner: &Inner,
    invocation: Invocation,
    watch: &Watch,
) -> Result<(Store<HostState>, Call), Stop> {
    let Invocation {
        tenant,
        context,
        input,
        limits,
        grants,
        log,
        heartbeat,
        ..
    } = invocation;
    let seed = Seed {
        execution: context.execution.0.into_bytes(),
        idempotency_key: context.idempotency_key.clone(),
    };
    let state = HostState {
        tenant: tenant.clone(),
        limits,
        grants,
        idempotency_key: context.idempotency_key.clone(),
        services: Arc::clone(&inner.services),
        memory: MemoryMeter::new(limits.memory_bytes),
        log: LogMeter::new(log, limits.log_bytes),
        beats: watch.beats.as_ref().map(|(beats, _)| Arc::clone(beats)),
        on_beat: heartbeat,
        wasi: Wasi::new(context.scheduled_at, seed),
    };
    let mut store = Store::new(&inner.engine, state);
    store.limiter(|state| &mut state.memory);
    // What one call may pass to the host: an output, an HTTP body, a log line.
    let bytes = limits
        .output_bytes
        .max(MAX_BODY as u64)
        .saturating_add(MAX_BODY as u64 / 4);
    store.set_hostcall_fuel(usize::try_from(bytes).unwrap_or(usize::MAX));
    store.set_max_component_handles(MAX_HANDLES);
    // The second tick from here: the first may come at once, and most attempts
    // end before it would mean anything.
    store.set_epoch_deadline(2);
    store.epoch_deadline_async_yield_and_update(1);
    store
        .set_fuel(limits.fuel_per_attempt)
        .and_then(|()| store.fuel_async_yield_interval(Some(FUEL_SLICE)))
        .map_err(|error| Stop::Unavailable(error.to_string()))?;
    Ok((
        store,
        Call {
            tenant,
            context,
            input,
        },
    ))
}

/// What is passed to an activity.
struct Call {
    tenant: TenantId,
    context: TaskContext,
    input: Json,
}

impl Call {
    async fn enter(self, store: &mut Store<HostState>, module: &Module) -> Result<Returned, Stop> {
        match &module.entry {
            Entry::Handler(pre) => {
                let context = &self.context;
                let execution = context.execution.to_string();
                let context = WitContext {
                    tenant: self.tenant.as_str(),
                    application: &context.application,
                    workflow: &context.workflow,
                    execution_id: &execution,
                    state: &context.state,
                    attempt: context.attempt,
                    idempotency_key: &context.idempotency_key,
                    scheduled_at_ms: context.scheduled_at.0,
                };
                let activity = pre
                    .instantiate_async(&mut *store)
                    .await
                    .map_err(|error| not_instantiated(&error))?;
                let returned = activity
                    .call_handle(&mut *store, context, self.input.as_str())
                    .await;
                match returned.map_err(|error| stop(&error))? {
                    Ok(output) => self::output(output, store).map(Ok),
                    Err(error) => Ok(Err(reported(error, store.data().limits.output_bytes))),
                }
            }
            Entry::Command(pre) => {
                store
                    .data_mut()
                    .wasi
                    .as_command(self.input.as_str().to_owned());
                let command = pre
                    .instantiate_async(&mut *store)
                    .await
                    .map_err(|error| not_instantiated(&error))?;
                let code = match command
                    .wasi_cli_run()
                    .call_run(&mut *store)
                    .await
                    .map_err(|error| stop(&error))
                {
                    Ok(Ok(())) | Err(Stop::Exit(0)) => 0,
                    Ok(Err(())) => 1,
                    Err(Stop::Exit(code)) => code,
                    Err(stop) => return Err(stop),
                };
                let stdout = String::from_utf8(store.data_mut().wasi.take_stdout());
                if code != 0 {
                    let (stdout, state) = (stdout.ok(), store.data());
                    return Ok(Err(command_failure(code, stdout.as_deref(), state)));
                }
                let stdout = stdout.map_err(|_| {
                    Stop::InvalidOutput("what the command wrote to stdout is not UTF-8".into())
                })?;
                self::output(stdout.trim().to_owned(), store).map(Ok)
            }
        }
    }
}

fn output(text: String, store: &Store<HostState>) -> Result<Json, Stop> {
    let limit = store.data().limits.output_bytes;
    if text.len() as u64 > limit {
        return Err(Stop::OutputTooLarge {
            what: "the output",
            limit,
        });
    }
    json::check(text).map_err(Stop::InvalidOutput)
}

fn stop(error: &wasmtime::Error) -> Stop {
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Stop::Unavailable("all slots of the sandbox are taken".into());
    }
    Stop::of(error)
}

/// What an error stands for that came before the guest was called. Its own code
/// runs there too, and what goes wrong in it is its own; the rest is the host's,
/// such as that no descriptor or memory is left.
fn not_instantiated(error: &wasmtime::Error) -> Stop {
    let guests = error.downcast_ref::<Stop>().is_some()
        || error.downcast_ref::<Trap>().is_some()
        || error.downcast_ref::<WasmBacktrace>().is_some();
    if guests {
        return stop(error);
    }
    tracing::error!(
        error = format!("{error:#}"),
        "a module could not be instantiated"
    );
    Stop::Unavailable("the server could not make an instance of the module".into())
}

/// The failure that an activity reports itself. Its details are held to the limit
/// of outputs: they are kept in the history just the same.
fn reported(error: ActivityError, output_bytes: u64) -> ActivityFailure {
    let ActivityError {
        name,
        message,
        retryable,
        mut details,
    } = error;
    let mut message = clip(message);
    if let Some(dropped) = details.take_if(|text| text.len() as u64 > output_bytes) {
        let len = dropped.len();
        write!(
            message,
            " [details dropped: they have {len} bytes, more than output_bytes, {output_bytes}]"
        )
        .expect("writing to a String cannot fail");
    }
    // Details that are not JSON are kept as text: they are for people.
    let details = details.map(|text| {
        json::check(text.clone())
            .unwrap_or_else(|_| Json::from(serde_json::Value::String(clip(text))))
    });
    ActivityFailure {
        error: error_name(&name),
        message,
        retryable,
        details,
    }
}

/// A name that `catch` can match.
fn error_name(name: &str) -> String {
    let name = name.trim();
    if name.is_empty() {
        return ACTIVITY_FAILED.to_owned();
    }
    name[..name.floor_char_boundary(MAX_ERROR_NAME)].to_owned()
}

/// The failure of a command: what its stdout says, else the end of its stderr.
fn command_failure(code: u8, stdout: Option<&str>, state: &HostState) -> ActivityFailure {
    #[derive(Deserialize)]
    struct Reply {
        error: Reported,
    }
    #[derive(Deserialize)]
    struct Reported {
        name: String,
        #[serde(default)]
        message: String,
        retryable: Option<bool>,
        details: Option<Box<RawValue>>,
    }
    if let Some(Reply { error }) = stdout.and_then(|stdout| serde_json::from_str(stdout).ok()) {
        let error = ActivityError {
            name: error.name,
            message: error.message,
            retryable: error.retryable,
            details: error.details.map(|raw| raw.get().to_owned()),
        };
        return reported(error, state.limits.output_bytes);
    }
    let stderr = state.wasi.stderr_tail();
    let message = if stderr.is_empty() {
        format!("the command exited with code {code}")
    } else {
        format!("the command exited with code {code}: {stderr}")
    };
    ActivityFailure {
        error: ACTIVITY_FAILED.into(),
        message,
        retryable: None,
        details: None,
    }
}

fn with_stderr(kind: String, stderr: &str) -> String {
    if stderr.is_empty() {
        kind
    } else {
        format!("{kind}; stderr: {stderr}")
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    clip(text.unwrap_or("no message").to_owned())
}

/// What ends an attempt from outside.
struct Watch {
    started: Instant,
    deadline: Instant,
    beats: Option<(Arc<Beats>, Duration)>,
    cancel: Option<Cancel>,
    /// Processor time of the polls that are over.
    busy: Duration,
    /// What it may be.
    busy_limit: Duration,
    poll: PollStart,
}

/// When the poll in progress began.
///
/// Wall-clock time is what two readings without a system call give: most
/// attempts end at the first poll, within microseconds. What is polled again is
/// measured by the thread's own clock, or an attempt would be charged, and
/// stopped, for the time that others took its core.
#[derive(Clone, Copy)]
enum PollStart {
    Wall(Instant),
    Thread(Duration),
}

impl PollStart {
    fn now() -> Self {
        Self::Thread(thread_time())
    }

    /// The time since then, which is `now`.
    fn elapsed(self, now: Instant) -> Duration {
        match self {
            Self::Wall(start) => now.saturating_duration_since(start),
            Self::Thread(start) => thread_time().saturating_sub(start),
        }
    }
}

/// Processor time that this thread has had.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Watch {
    fn over(invocation: &Invocation, started: Instant) -> Self {
        let limit = started + invocation.limits.attempt_timeout();
        let beats = invocation.heartbeat_timeout;
        Self {
            started,
            deadline: invocation
                .deadline
                .map_or(limit, |deadline| deadline.min(limit)),
            beats: beats.map(|timeout| (Arc::new(Beats::new(started)), timeout)),
            cancel: invocation.cancel.clone(),
            busy: Duration::ZERO,
            busy_limit: busy_limit(invocation.limits.fuel_per_attempt),
            poll: PollStart::Wall(started),
        }
    }

    /// Processor time until `now`.
    fn busy(&self, now: Instant) -> Duration {
        self.busy + self.poll.elapsed(now)
    }

    /// Runs `body` to its end, or until the deadline, silence or cancellation.
    ///
    /// Timers are set only once the body waits or gives way: most attempts end
    /// at the first poll and never pay for one.
    async fn supervise<F: Future>(&mut self, body: F) -> Result<F::Output, Stop> {
        self.check(self.started)?;
        let mut body = pin!(body);
        let mut timer = None;
        let mut again = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut again, true) {
                self.poll = PollStart::now();
            }
            match body.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending => self.poll_stop(cx, &mut timer).map(Err),
            }
        })
        .await
    }

    fn poll_stop(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Poll<Stop> {
        let now = Instant::now();
        self.busy = self.busy(now);
        self.poll = PollStart::Wall(now);
        if self.busy > self.busy_limit {
            let limit_ms = millis(self.busy_limit);
            return Poll::Ready(Stop::CpuTime { limit_ms });
        }
        if let Some(cancel) = &self.cancel {
            cancel.0.waker.register(cx.waker());
        }
        loop {
            // Looked up each time, not left to the timer: a thread that is kept
            // busy by guests runs its timers late.
            if let Err(stop) = self.check(Instant::now()) {
                return Poll::Ready(stop);
            }
            let next = self.next_check().into();
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn check(&self, now: Instant) -> Result<(), Stop> {
        if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Err(Stop::Cancelled);
        }
        if now >= self.deadline {
            let limit_ms = millis(self.deadline.saturating_duration_since(self.started));
            return Err(Stop::Deadline { limit_ms });
        }
        if let Some((beats, timeout)) = &self.beats
            && now >= beats.last() + *timeout
        {
            return Err(Stop::HeartbeatSilent {
                silence_ms: millis(*timeout),
            });
        }
        Ok(())
    }

    fn next_check(&self) -> Instant {
        match &self.beats {
            Some((beats, timeout)) => self.deadline.min(beats.last() + *timeout),
            None => self.deadline,
        }
    }
}

fn busy_limit(fuel: u64) -> Duration {
    Duration::from_nanos(fuel.saturating_mul(TIME_PER_FUEL)).max(MIN_TIME)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_instance_that_the_host_has_nothing_left_for_is_no_fault_of_the_guests() {
        let full = wasmtime::Error::from(io::Error::from_raw_os_error(24)) // too many open files
            .context("the image of the memory");
        assert!(matches!(not_instantiated(&full), Stop::Unavailable(_)));
        let trap = wasmtime::Error::from(Trap::MemoryOutOfBounds);
        assert!(matches!(not_instantiated(&trap), Stop::Trap(_)));
        let memory = wasmtime::Error::from(Stop::Memory { asked: 1 });
        assert_eq!(not_instantiated(&memory), Stop::Memory { asked: 1 });
    }
}
