//! What a guest finds when it calls out: the host side of `cascade:activity`.
//!
//! Host calls take the store, not just its data, since each is paid for in
//! fuel before its work is done: a guest cannot spend the host for free.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cascade_cdl::TenantId;
use wasmtime::component::{Linker, WasmList, WasmStr};
use wasmtime::{Engine, ResourceLimiter, StoreContextMut};

use self::bindings::cascade::activity::{http as wit_http, key_value, log};
use super::engine::TABLE_ELEMENTS;
use super::failure::Stop;
use super::http;
use super::limits::{Capability, Grants, Limits};
use super::services::{KeyValueError, LogLevel, LogSink, Services};
use super::wasi::{self, Wasi};

/// The typed face of `sdk/wit/activity.wit`.
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../sdk/wit",
        world: "activity",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// Price of a host call. One costs about 100 ns with its string, and a unit of
/// fuel is about a nanosecond of guest code, often less.
pub(super) const CALL: u64 = 200;
/// Price of a byte that goes through a host call: checked and copied.
pub(super) const BYTE: u64 = 1;
/// Price of a line of the log: it is made an event and written out.
const LOG_LINE: u64 = 5_000;
/// What a line takes of the log's limit beside its text: the time, the level and
/// the ids that are written with it.
const LINE_BYTES: usize = 200;
/// Price of reading a key: it reaches a store.
const KEY_VALUE_READ: u64 = 20_000;
/// Price of writing or removing one: a transaction, which is synced.
const KEY_VALUE_WRITE: u64 = 200_000;
/// Price of an HTTP request, and of each redirect of it: sockets, TLS, headers.
pub(super) const HTTP_CALL: u64 = 200_000;

/// Longest key, in bytes: keys are looked up in indexes.
const MAX_KEY: usize = 512;
/// Longest value, in bytes: the key-value store is for cursors and small
/// results, not for files.
const MAX_VALUE: usize = 256 << 10;
/// Most random bytes of one call; more gives these many, as the WIT says.
const MAX_RANDOM: u32 = 64 << 10;

/// The state of one attempt's store.
pub(super) struct HostState {
    pub(super) tenant: TenantId,
    pub(super) limits: Limits,
    pub(super) grants: Arc<Grants>,
    pub(super) idempotency_key: String,
    pub(super) services: Arc<Services>,
    pub(super) memory: MemoryMeter,
    pub(super) log: LogMeter,
    pub(super) beats: Option<Arc<Beats>>,
    pub(super) on_beat: Option<Arc<dyn Fn() + Send + Sync>>,
    pub(super) wasi: Wasi,
}

/// Takes `CALL + bytes` from the attempt's fuel.
pub(super) fn charge(
    store: &mut StoreContextMut<'_, HostState>,
    bytes: usize,
) -> wasmtime::Result<()> {
    charge_price(
        store,
        CALL.saturating_add((bytes as u64).saturating_mul(BYTE)),
    )
}

/// Takes `price` from the attempt's fuel.
pub(super) fn charge_price(
    store: &mut StoreContextMut<'_, HostState>,
    price: u64,
) -> wasmtime::Result<()> {
    if let Some(left) = store.get_fuel()?.checked_sub(price) {
        return store.set_fuel(left);
    }
    store.set_fuel(0)?;
    Err(Stop::Fuel.into())
}

/// Counts linear memory, tables and element segments against the attempt's limit.
#[derive(Debug)]
pub(super) struct MemoryMeter {
    limit: u64,
    used: u64,
    pub(super) peak: u64,
}

impl MemoryMeter {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            peak: 0,
        }
    }

    /// Counts what the host takes itself, for the attempt's instances.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), Stop> {
        let asked = self.used.saturating_add(bytes);
        if asked > self.limit {
            return Err(Stop::Memory { asked });
        }
        self.used = asked;
        self.peak = self.peak.max(asked);
        Ok(())
    }

    fn grow(&mut self, by: usize) -> Result<(), Stop> {
        self.reserve(by as u64)
    }
}

/// Growth past the limit ends the attempt, rather than failing in the guest:
/// what a guest makes of failed growth is seldom a message that helps.
impl ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // the module's own limit
        }
        self.grow(desired.saturating_sub(current))?;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            return Err(Stop::Table {
                asked: desired as u64,
            }
            .into());
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let elements = desired.saturating_sub(current);
        self.grow(elements.saturating_mul(size_of::<usize>()))?;
        Ok(true)
    }
}

/// Writes an attempt's log, up to its limit.
pub(super) struct LogMeter {
    sink: Arc<dyn LogSink>,
    left: usize,
    pub(super) bytes: u64,
    pub(super) truncated: bool,
}

impl LogMeter {
    pub(super) fn new(sink: Arc<dyn LogSink>, limit: u64) -> Self {
        let left = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            sink,
            left,
            bytes: 0,
            truncated: false,
        }
    }

    /// Writes a line, or what there is room for.
    pub(super) fn line(&mut self, level: LogLevel, message: &str) {
        if self.truncated {
            return;
        }
        let message = &*one_line(message);
        let cost = message.len() + LINE_BYTES;
        if cost <= self.left {
            self.left -= cost;
            self.bytes += message.len() as u64;
            self.sink.line(level, message);
            return;
        }
        self.truncated = true;
        let kept = &message[..message.floor_char_boundary(self.left)];
        self.left = 0;
        self.bytes += kept.len() as u64;
        self.sink.line(
            level,
            &format!("{kept} [truncated: the attempt's log is full; raise `tenants[].limits.log_bytes` in cascade.yaml]"),
        );
    }
}

/// Writes a line of the log and takes its price, unless the log is full.
pub(super) fn log_line(
    store: &mut StoreContextMut<'_, HostState>,
    level: LogLevel,
    message: &str,
) -> wasmtime::Result<()> {
    if !store.data().log.truncated {
        charge_price(store, LOG_LINE)?;
        store.data_mut().log.line(level, message);
    }
    Ok(())
}

/// `text` without what would end a line of the log or steer a terminal, where
/// the rest could pass for a line of somebody else's.
fn one_line(text: &str) -> Cow<'_, str> {
    let breaks =
        |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push('\t'),
            character if breaks(character) => line.push(char::REPLACEMENT_CHARACTER),
            character => line.push(character),
        }
    }
    Cow::Owned(line)
}

/// When an attempt last said that it is alive.
#[derive(Debug)]
pub(super) struct Beats {
    started: Instant,
    last_ms: AtomicU64,
}

impl Beats {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            last_ms: AtomicU64::new(0),
        }
    }

    fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    /// The last beat, or the start.
    pub(super) fn last(&self) -> Instant {
        self.started + std::time::Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// All that a component may import.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    add_log(&mut linker)?;
    add_heartbeat(&mut linker)?;
    add_http(&mut linker)?;
    add_key_value(&mut linker)?;
    add_clock_and_random(&mut linker)?;
    Ok(linker)
}

fn add_log(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("cascade:activity/log@0.1.0")?;
    instance.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, HostState>, (level, message): (log::Level, WasmStr)| {
            let room = store.data().log.left + 1; // one more, so that the cut shows
            let (len, kept) = {
                let text = message.to_str(&store)?;
                (
                    text.len(),
                    text[..text.floor_char_boundary(room)].to_owned(),
                )
            };
            charge(&mut store, len)?;
            let level = match level {
                log::Level::Trace => LogLevel::Trace,
                log::Level::Debug => LogLevel::Debug,
                log::Level::Info => LogLevel::Info,
                log::Level::Warn => LogLevel::Warn,
                log::Level::Error => LogLevel::Error,
            };
            log_line(&mut store, level, &kept)
        },
    )
}

fn add_heartbeat(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("cascade:activity/heartbeat@0.1.0")?;
    instance.func_wrap(
        "beat",
        |mut store: StoreContextMut<'_, HostState>, (): ()| {
            charge(&mut store, 0)?;
            let state = store.data();
            if let Some(beats) = &state.beats {
                beats.beat();
            }
            if let Some(on_beat) = &state.on_beat {
                on_beat();
            }
            Ok(())
        },
    )
}

fn add_http(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("cascade:activity/http@0.1.0")?;
    instance.func_wrap_async(
        "send",
        |store: StoreContextMut<'_, HostState>, (request,): (wit_http::Request,)| {
            Box::new(async move { Ok((http::send(store, request).await?,)) })
        },
    )
}

type KeyValueResult<T> = wasmtime::Result<(Result<T, key_value::Error>,)>;

fn add_key_value(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("cascade:activity/key-value@0.1.0")?;
    instance.func_wrap_async(
        "get",
        |mut store: StoreContextMut<'_, HostState>, (key,): (String,)| {
            Box::new(async move {
                if let Err(refused) = open_key_value(&mut store, KEY_VALUE_READ, &key, 0)? {
                    return Ok((Err(refused),)) as KeyValueResult<Option<Vec<u8>>>;
                }
                let (kv, tenant) = key_value_of(&store);
                let found = kv.get(&tenant, &key).await;
                if let Ok(Some(value)) = &found {
                    charge(&mut store, value.len())?;
                }
                Ok((found.map_err(into_wit),))
            })
        },
    )?;
    instance.func_wrap_async(
        "set",
        |mut store: StoreContextMut<'_, HostState>, (key, value): (String, WasmList<u8>)| {
            Box::new(async move {
                if let Err(refused) =
                    open_key_value(&mut store, KEY_VALUE_WRITE, &key, value.len())?
                {
                    return Ok((Err(refused),)) as KeyValueResult<()>;
                }
                let value = value.as_le_slice(&store).to_vec();
                let (kv, tenant) = key_value_of(&store);
                Ok((kv.set(&tenant, &key, value).await.map_err(into_wit),))
            })
        },
    )?;
    instance.func_wrap_async(
        "compare-and-set",
        |mut store: StoreContextMut<'_, HostState>,
         (key, expected, value): (String, Option<Vec<u8>>, Vec<u8>)| {
            Box::new(async move {
                let expected_len = expected.as_ref().map_or(0, Vec::len);
                if let Err(refused) = open_key_value(
                    &mut store,
                    KEY_VALUE_WRITE,
                    &key,
                    value.len().max(expected_len),
                )? {
                    return Ok((Err(refused),)) as KeyValueResult<bool>;
                }
                let (kv, tenant) = key_value_of(&store);
                let swapped = kv.compare_and_set(&tenant, &key, expected, value).await;
                Ok((swapped.map_err(into_wit),))
            })
        },
    )?;
    instance.func_wrap_async(
        "delete",
        |mut store: StoreContextMut<'_, HostState>, (key,): (String,)| {
            Box::new(async move {
                if let Err(refused) = open_key_value(&mut store, KEY_VALUE_WRITE, &key, 0)? {
                    return Ok((Err(refused),)) as KeyValueResult<()>;
                }
                let (kv, tenant) = key_value_of(&store);
                Ok((kv.delete(&tenant, &key).await.map_err(into_wit),))
            })
        },
    )
}

fn key_value_of(store: &StoreContextMut<'_, HostState>) -> (Arc<dyn super::KeyValue>, TenantId) {
    let state = store.data();
    (Arc::clone(&state.services.key_value), state.tenant.clone())
}

/// Charges for a key-value call, and says if it may not be made.
fn open_key_value(
    store: &mut StoreContextMut<'_, HostState>,
    price: u64,
    key: &str,
    value_len: usize,
) -> wasmtime::Result<Result<(), key_value::Error>> {
    charge_price(store, price + (key.len() + value_len) as u64 * BYTE)?;
    if !store.data().grants.has(Capability::KeyValue) {
        let why = Stop::CapabilityDenied(Capability::KeyValue).to_string();
        return Ok(Err(key_value::Error::Denied(why)));
    }
    if key.is_empty() || key.len() > MAX_KEY {
        let why = format!(
            "the key has {} bytes, 1 to {MAX_KEY} are allowed",
            key.len()
        );
        return Ok(Err(key_value::Error::TooLarge(why)));
    }
    if value_len > MAX_VALUE {
        let why = format!("the value has {value_len} bytes, the limit is {MAX_VALUE}");
        return Ok(Err(key_value::Error::TooLarge(why)));
    }
    Ok(Ok(()))
}

fn into_wit(error: KeyValueError) -> key_value::Error {
    match error {
        KeyValueError::TooLarge(why) => key_value::Error::TooLarge(why),
        KeyValueError::Unavailable(why) => key_value::Error::Unavailable(why),
    }
}

fn add_clock_and_random(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut clock = linker.instance("cascade:activity/clock@0.1.0")?;
    clock.func_wrap(
        "now-ms",
        |mut store: StoreContextMut<'_, HostState>, (): ()| {
            require(&store, Capability::Clock)?;
            charge(&mut store, 0)?;
            Ok(((store.data().services.now_ms)(),))
        },
    )?;
    let mut random = linker.instance("cascade:activity/random@0.1.0")?;
    random.func_wrap(
        "bytes",
        |mut store: StoreContextMut<'_, HostState>, (len,): (u32,)| {
            require(&store, Capability::Random)?;
            let len = len.min(MAX_RANDOM) as usize;
            charge(&mut store, len)?;
            let mut bytes = vec![0; len];
            fill_random(&mut bytes)?;
            Ok((bytes,))
        },
    )
}

/// Ends the attempt if it uses what it was not granted: these interfaces have
/// no way to say no.
fn require(store: &StoreContextMut<'_, HostState>, capability: Capability) -> wasmtime::Result<()> {
    if store.data().grants.has(capability) {
        Ok(())
    } else {
        Err(Stop::CapabilityDenied(capability).into())
    }
}

/// True randomness, from the system.
pub(super) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
}
