//! Runs activities, each attempt in a sandbox of its own.
//!
//! Owns the wasmtime engine, the loaded modules and the cache of compiled
//! ones. Knows neither store nor engine of workflows: what it needs of the
//! server comes in as [`ModuleSource`], [`KeyValue`] and [`LogSink`]. Nothing
//! here survives a crash but the artifact cache, which is only a cache.

mod artifact;
mod attempt;
mod compile;
mod engine;
pub mod failure;
mod host;
mod hosts;
mod http;
mod inspect;
mod json;
mod limits;
mod loaded;
mod lookup;
mod modules;
mod services;
mod wasi;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cascade_cdl::TenantId;
use tokio::sync::Semaphore;
use wasmtime::Engine;

pub use self::attempt::{Cancel, Invocation, Outcome, TaskContext};
pub use self::compile::{COMPILE_SUBCOMMAND, compile_child_main};
pub use self::hosts::{HostPattern, InvalidHost, InvalidPrivateHost, PrivateHost};
pub use self::inspect::{InvalidModule, MAX_MODULE_BYTES, ModuleInfo, ModuleKind, digest};
pub use self::json::check_json;
pub use self::limits::{Capability, Grants, Limits, UnknownCapability, is_pure};
pub use self::modules::AdmitError;
pub use self::services::{
    KeyValue, KeyValueError, LogLevel, LogSink, ModuleSource, NoLog, SourceError,
};

use self::artifact::ArtifactCache;
use self::engine::{MAX_SLOTS_PER_ATTEMPT, Ticker};
use self::http::HttpClients;
use self::modules::Modules;
use self::services::Services;

/// Slots of the pool by default: attempts that hold memory at the same time.
/// Each takes about five memory maps, of which a process has 65,530.
pub const DEFAULT_SLOTS: u32 = 1_000;

/// What a sandbox is made of.
pub struct SandboxConfig {
    /// Folder for the artifact cache and its key.
    pub data_dir: PathBuf,
    /// The binary that serves [`COMPILE_SUBCOMMAND`]: `std::env::current_exe()`.
    pub compiler: PathBuf,
    /// Attempts that may run at the same time; more wait.
    pub slots: u32,
    /// Where uploaded modules are kept.
    pub source: Arc<dyn ModuleSource>,
    /// The key-value store.
    pub key_value: Arc<dyn KeyValue>,
    /// The real time, in milliseconds since the Unix epoch.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine does not work on this machine.
    #[error("the WebAssembly engine does not start: {0:#}")]
    Engine(wasmtime::Error),
    /// The data folder cannot be used.
    #[error("the artifact cache does not open")]
    Artifacts(#[source] std::io::Error),
    /// No thread to be had.
    #[error("the ticker does not start")]
    Ticker(#[source] std::io::Error),
}

/// Runs activities. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    engine: Engine,
    modules: Modules,
    services: Arc<Services>,
    pool: Semaphore,
    ticker: Ticker,
}

impl Sandbox {
    /// Makes a sandbox. One a process: each reserves its own pool of memory.
    pub fn new(config: SandboxConfig) -> Result<Self, Error> {
        let slots = config.slots.max(MAX_SLOTS_PER_ATTEMPT);
        let engine = engine::runtime_engine(slots).map_err(Error::Engine)?;
        let linker = host::linker(&engine).map_err(Error::Engine)?;
        let artifacts = ArtifactCache::open(&config.data_dir, &engine).map_err(Error::Artifacts)?;
        let ticker = Ticker::start(engine.clone()).map_err(Error::Ticker)?;
        let modules = Modules::new(
            engine.clone(),
            linker,
            artifacts,
            config.source,
            config.compiler,
        );
        let services = Services {
            key_value: config.key_value,
            now_ms: config.now_ms,
            http: HttpClients::default(),
        };
        Ok(Self(Arc::new(Inner {
            engine,
            modules,
            services: Arc::new(services),
            pool: Semaphore::new(slots as usize),
            ticker,
        })))
    }

    /// Validates and compiles an upload, and says what it is and can do. What
    /// was admitted before is answered from the cache. Keeping the bytes is the
    /// caller's part: [`ModuleSource`] must find them under their digest.
    pub async fn admit(&self, tenant: &TenantId, wasm: Bytes) -> Result<ModuleInfo, AdmitError> {
        self.0
            .modules
            .admit(tenant, wasm)
            .await
            .map(|module| module.info.clone())
    }

    /// What a module of a tenant is and can do, if it is loaded: once an
    /// attempt of it has run, or it was admitted, since the start.
    pub fn loaded(&self, tenant: &TenantId, digest: &Arc<str>) -> Option<ModuleInfo> {
        self.0
            .modules
            .peek(tenant, digest)
            .map(|module| module.info.clone())
    }

    /// The engine, for benches and the pool's metrics.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Forgets a module that its tenant removed.
    pub fn forget(&self, tenant: &TenantId, digest: &Arc<str>) -> std::io::Result<()> {
        self.0.modules.forget(tenant, digest)
    }

    /// Runs one attempt to its end, whatever the end is. Dropping the future
    /// stops the attempt.
    pub async fn run(&self, invocation: Invocation) -> Outcome {
        attempt::run(&self.0, invocation).await
    }
}
