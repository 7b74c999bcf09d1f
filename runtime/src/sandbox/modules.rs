//! Loaded modules: from memory, else from the artifact cache, else compiled.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cascade_cdl::TenantId;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, ResourcesRequired};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::artifact::ArtifactCache;
use super::compile::{self, Compiled};
use super::engine::TABLES_PER_SLOT;
use super::failure::{Stop, clip};
use super::host::HostState;
use super::host::bindings::ActivityPre;
use super::inspect::{self, InvalidModule, ModuleInfo, ModuleKind};
use super::loaded::{Footprint, Key, Loaded};
use super::services::ModuleSource;

/// Compilers at a time where there are few cores.
const MIN_COMPILERS: usize = 2;

/// How long it is remembered that a module was refused: compiling it once more
/// would take as long as it took to find out.
const REFUSED_FOR: Duration = Duration::from_mins(10);
/// Refused modules that are remembered; each takes some KB for its message.
const MAX_REFUSED: usize = 1_000;

/// A module, ready to run.
pub(super) struct Module {
    pub(super) info: ModuleInfo,
    pub(super) entry: Entry,
    /// Slots of the pool that one attempt takes.
    pub(super) slots: u32,
    footprint: Footprint,
}

/// What is called.
pub(super) enum Entry {
    Handler(ActivityPre<HostState>),
    Command(CommandPre<HostState>),
}

/// Why a module was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// It is not one that can run here.
    #[error(transparent)]
    Invalid(#[from] InvalidModule),
    /// The server could not compile or keep it.
    #[error("the module could not be compiled: {0}")]
    Unavailable(String),
}

/// All modules of this server.
pub(super) struct Modules {
    engine: Engine,
    linker: Linker<HostState>,
    artifacts: Arc<ArtifactCache>,
    source: Arc<dyn ModuleSource>,
    compiler: PathBuf,
    /// One compiler a core: more would only take memory. Two at least, so that a
    /// tenant whose module takes long does not hold up the others.
    compiling: Semaphore,
    /// One lock for each tenant that compiles: however much it uploads, it has
    /// one place among those that wait for a core.
    turns: Flights<TenantId>,
    loaded: Loaded<Module>,
    /// One lock for each module being loaded, so that it is loaded once.
    loading: Flights<Key>,
    refused: Mutex<HashMap<Key, (Instant, InvalidModule)>>,
}

impl Modules {
    pub(super) fn new(
        engine: Engine,
        linker: Linker<HostState>,
        artifacts: ArtifactCache,
        source: Arc<dyn ModuleSource>,
        compiler: PathBuf,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            engine,
            linker,
            artifacts: Arc::new(artifacts),
            source,
            compiler,
            compiling: Semaphore::new(cores.max(MIN_COMPILERS)),
            turns: Mutex::default(),
            loaded: Loaded::default(),
            loading: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Validates and compiles an upload.
    pub(super) async fn admit(
        &self,
        tenant: &TenantId,
        wasm: Bytes,
    ) -> Result<Arc<Module>, AdmitError> {
        inspect::sniff(&wasm)?;
        // Of a large one it takes as long as many requests do.
        let bytes = wasm.clone();
        let digest = tokio::task::spawn_blocking(move || inspect::digest(&bytes)).await;
        let digest = digest.map_err(|error| AdmitError::Unavailable(error.to_string()))?;
        let digest: Arc<str> = digest.into();
        self.load_with(tenant, &digest, async || Ok(Some(wasm)))
            .await
            .map(|(module, _)| module)
            .map_err(|error| match error {
                LoadError::Invalid(invalid) => AdmitError::Invalid(invalid),
                LoadError::NotFound => unreachable!("an upload has bytes"),
                LoadError::Unavailable(why) => AdmitError::Unavailable(why),
            })
    }

    /// The module of a tenant with this digest, and the work that it took to load
    /// it, which is that of the attempt it was loaded for.
    pub(super) async fn load(
        &self,
        tenant: &TenantId,
        digest: &Arc<str>,
    ) -> Result<(Arc<Module>, Duration), Stop> {
        let fetch = async || {
            let found = self.source.load(tenant, digest).await;
            let found = found.map_err(|error| {
                LoadError::Unavailable(format!("the module could not be read: {error}"))
            })?;
            if found
                .as_ref()
                .is_some_and(|wasm| inspect::digest(wasm) != **digest)
            {
                return Err(LoadError::Unavailable(
                    "the stored module is damaged: its digest differs".into(),
                ));
            }
            Ok(found)
        };
        self.load_with(tenant, digest, fetch)
            .await
            .map_err(|error| match error {
                LoadError::Invalid(InvalidModule::ExportMissing { found }) => {
                    Stop::ExportMissing(InvalidModule::ExportMissing { found }.to_string())
                }
                LoadError::Invalid(invalid) => Stop::Unavailable(invalid.to_string()),
                LoadError::NotFound => Stop::NotFound(digest.to_string()),
                LoadError::Unavailable(why) => Stop::Unavailable(why),
            })
    }

    /// The description of a module that is loaded.
    pub(super) fn peek(&self, tenant: &TenantId, digest: &Arc<str>) -> Option<Arc<Module>> {
        self.loaded.get(&(tenant.clone(), Arc::clone(digest)))
    }

    /// Forgets a module, in memory and on disk.
    pub(super) fn forget(&self, tenant: &TenantId, digest: &Arc<str>) -> std::io::Result<()> {
        self.loaded.remove(&(tenant.clone(), Arc::clone(digest)));
        self.artifacts.remove(tenant, digest)
    }

    /// The module from memory, else from the cache, else compiled from what
    /// `fetch` gives. However many ask at once, one does the work.
    async fn load_with<F>(
        &self,
        tenant: &TenantId,
        digest: &Arc<str>,
        fetch: F,
    ) -> Result<(Arc<Module>, Duration), LoadError>
    where
        F: AsyncFnOnce() -> Result<Option<Bytes>, LoadError>,
    {
        if let Some(module) = self.peek(tenant, digest) {
            return Ok((module, Duration::ZERO));
        }
        let key = (tenant.clone(), Arc::clone(digest));
        let flight = Flight::join(&self.loading, key.clone());
        let _turn = flight.lock.lock().await;
        if let Some(module) = self.peek(tenant, digest) {
            return Ok((module, Duration::ZERO));
        }
        let (module, compiling) = if let Some(module) = self.load_cached(&key).await {
            (module, Duration::ZERO)
        } else {
            self.recall(&key)?;
            let wasm = fetch().await?.ok_or(LoadError::NotFound)?;
            let compiled = self.compile(&key, &wasm).await;
            compiled.inspect_err(|error| self.remember(&key, error))?
        };
        let footprint = module.footprint;
        let module = Arc::new(module);
        self.loaded.insert(&key, Arc::clone(&module), footprint);
        // Reading, checking the MAC and copying, about a nanosecond a byte.
        Ok((module, compiling + Duration::from_nanos(footprint.bytes)))
    }

    /// Fails if the module was refused not long ago.
    fn recall(&self, key: &Key) -> Result<(), LoadError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused.get(key) {
            Some((at, invalid)) if at.elapsed() < REFUSED_FOR => {
                Err(LoadError::Invalid(invalid.clone()))
            }
            _ => Ok(()),
        }
    }

    fn remember(&self, key: &Key, error: &LoadError) {
        let LoadError::Invalid(invalid) = error else {
            return;
        };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MAX_REFUSED {
            refused.retain(|_, (at, _)| at.elapsed() < REFUSED_FOR);
        }
        if refused.len() >= MAX_REFUSED {
            let oldest = refused.iter().min_by_key(|(_, (at, _))| *at);
            let oldest = oldest.map(|(key, _)| key.clone());
            refused.remove(&oldest.expect("there are MAX_REFUSED"));
        }
        refused.insert(key.clone(), (Instant::now(), invalid.clone()));
    }

    async fn load_cached(&self, key: &Key) -> Option<Module> {
        let (tenant, digest) = key.clone();
        let artifacts = Arc::clone(&self.artifacts);
        let (engine, linker) = (self.engine.clone(), self.linker.clone());
        let load = move || {
            let compiled = artifacts.load(&tenant, &digest)?;
            match instantiate(&engine, &linker, compiled) {
                Ok(module) => Some(module),
                Err(error) => {
                    tracing::warn!(tenant.id = %tenant, module = %digest, %error, "a verified artifact does not load; compiling again");
                    None
                }
            }
        };
        tokio::task::spawn_blocking(load).await.ok().flatten()
    }

    /// Compiles a module, and says how long it took.
    async fn compile(&self, key: &Key, wasm: &[u8]) -> Result<(Module, Duration), LoadError> {
        let own = Flight::join(&self.turns, key.0.clone());
        let own_turn = own.lock.lock().await;
        let turn = self
            .compiling
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let began = Instant::now();
        let compiled =
            compile::compile(&self.compiler, wasm)
                .await
                .map_err(|error| match error {
                    compile::Error::Invalid(invalid) => LoadError::Invalid(invalid),
                    error => LoadError::Unavailable(describe(&error)),
                })?;
        let took = began.elapsed();
        drop((turn, own_turn));
        let tenant = key.0.clone();
        let artifacts = Arc::clone(&self.artifacts);
        let (engine, linker) = (self.engine.clone(), self.linker.clone());
        let finish = move || {
            let digest = compiled.info.digest.clone();
            // A cache that cannot be written makes the next start slower, no more.
            if let Err(error) = artifacts.store(&tenant, &compiled) {
                tracing::warn!(tenant.id = %tenant, module = digest, %error, "cannot keep an artifact");
            }
            let module = instantiate(&engine, &linker, compiled);
            if module.is_err() {
                let _ = artifacts.remove(&tenant, &digest); // it would only fail again
            }
            module
        };
        let module = tokio::task::spawn_blocking(finish)
            .await
            .map_err(|error| LoadError::Unavailable(error.to_string()))??;
        Ok((module, took))
    }
}

/// Why a module could not be loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Invalid(InvalidModule),
    #[error("not found")]
    NotFound,
    #[error("{0}")]
    Unavailable(String),
}

/// Locks by what they are for.
type Flights<K> = Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>;

/// A place in the queue for one lock; the last to leave removes it.
struct Flight<'a, K: Eq + Hash> {
    all: &'a Flights<K>,
    key: K,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl<'a, K: Eq + Hash + Clone> Flight<'a, K> {
    fn join(all: &'a Flights<K>, key: K) -> Self {
        let mut map = all.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = Arc::clone(map.entry(key.clone()).or_default());
        drop(map);
        Self { all, key, lock }
    }
}

impl<K: Eq + Hash> Drop for Flight<'_, K> {
    fn drop(&mut self) {
        let mut map = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own and this one: nobody else waits.
        if Arc::strong_count(&self.lock) == 2 {
            map.remove(&self.key);
        }
    }
}

/// Makes a compiled module ready to run, and checks that what it imports is
/// there and what it exports has the right type.
fn instantiate(
    engine: &Engine,
    linker: &Linker<HostState>,
    compiled: Compiled,
) -> Result<Module, LoadError> {
    let Compiled { info, artifact } = compiled;
    // SAFETY: `deserialize` runs native code on trust. The bytes are either the
    // answer of our own compiler process or were verified under this server's
    // key just before, and are the very bytes that were verified: nothing else
    // can change them in between.
    let component = unsafe { Component::deserialize(engine, &artifact) };
    let component = component.map_err(|error| {
        LoadError::Invalid(InvalidModule::TooComplex {
            message: clip(format!("{error:#}")),
        })
    })?;
    let pre = linker.instantiate_pre(&component).map_err(|error| {
        LoadError::Invalid(InvalidModule::UnknownImport {
            message: clip(format!("{error:#}")),
        })
    })?;
    let needed = component.resources_required().ok_or_else(|| {
        LoadError::Invalid(InvalidModule::TooComplex {
            message: "what it instantiates is not known before it runs".into(),
        })
    })?;
    let wrong_type = |error: wasmtime::Error| {
        LoadError::Invalid(InvalidModule::ExportMissing {
            found: clip(format!("{error:#}")),
        })
    };
    let entry = match info.kind {
        ModuleKind::Handler => Entry::Handler(ActivityPre::new(pre).map_err(wrong_type)?),
        ModuleKind::Command => Entry::Command(CommandPre::new(pre).map_err(wrong_type)?),
    };
    Ok(Module {
        info,
        entry,
        slots: slots(&needed),
        footprint: Footprint {
            bytes: artifact.len() as u64,
            images: needed.num_memories.into(),
        },
    })
}

/// The slots of the pool that hold all memories and tables of one attempt, each
/// as often as it is instantiated. What they may be at most, the pool checked.
fn slots(needed: &ResourcesRequired) -> u32 {
    let tables = needed.num_tables.div_ceil(TABLES_PER_SLOT);
    needed.num_memories.max(tables).max(1)
}

fn describe(error: &compile::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
