//! Activities in this process, without a server: for `cascade run`, `cascade test`
//! and `cascade activity run`. Modules and the key-value store are in memory; only
//! compiled modules are kept, in the user's cache folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::expression::UnknownSecret;
use cascade_cdl::program::Resource;
use cascade_cdl::{ActivityFailure, ActivityTask, ExecutionId, TenantId};

use super::error::Error;
use super::output::{self, Tone, paint, plain};
use super::source::{self, Found};
use crate::catalog::Manifest;
use crate::clock::{Clock, SystemClock};
use crate::config::TenantLimits;
use crate::hidden::Hidden;
use crate::sandbox::{
    Cancel, Capability, Grants, Invocation, KeyValue, KeyValueError, Limits, LogLevel, LogSink,
    ModuleSource, Outcome, Sandbox, SandboxConfig, SourceError, TaskContext,
};

/// Attempts at a time: one person's workflow has few, and each slot takes
/// address space.
const SLOTS: u32 = 64;

/// The one tenant there is.
pub(crate) fn tenant() -> TenantId {
    "local".parse().expect("it is short and plain")
}

/// A sandbox with the activities of some folders.
pub(crate) struct Local {
    sandbox: Sandbox,
    modules: Modules,
    activities: BTreeMap<String, Arc<LocalActivity>>,
    /// What parameters name as `secrets.NAME`; without it such texts stay as they are.
    secrets: Option<BTreeMap<String, Arc<str>>>,
}

/// One activity, ready to run.
pub(crate) struct LocalActivity {
    digest: Arc<str>,
    grants: Arc<Grants>,
    limits: Limits,
    powers: BTreeSet<Capability>,
}

impl LocalActivity {
    /// What it can do beyond computing: nothing, if it is pure.
    pub(crate) fn powers(&self) -> &BTreeSet<Capability> {
        &self.powers
    }

    /// How long an attempt may take, in milliseconds.
    pub(crate) fn timeout_ms(&self) -> u64 {
        self.limits.attempt_timeout_ms
    }
}

/// What an attempt is told about itself.
pub(crate) struct Caller<'a> {
    pub application: &'a str,
    pub workflow: &'a str,
    pub execution: ExecutionId,
}

impl Local {
    /// Compiles `found` for running here. All that a manifest asks for is
    /// granted: who runs a file on their own machine is its operator.
    pub(crate) async fn open(found: Vec<Found>) -> Result<Self, Error> {
        Self::over(found, Arc::new(Memory::default())).await
    }

    /// The same, over a key-value store of the caller's.
    pub(crate) async fn over(
        found: Vec<Found>,
        key_value: Arc<dyn KeyValue>,
    ) -> Result<Self, Error> {
        let modules = Modules::default();
        let sandbox = Sandbox::new(SandboxConfig {
            data_dir: cache_folder()?,
            compiler: std::env::current_exe()
                .map_err(|source| Error::failed(format!("cannot find this program: {source}")))?,
            slots: SLOTS,
            source: Arc::new(modules.clone()),
            key_value,
            now_ms: Arc::new(|| SystemClock.now().0),
        })
        .map_err(|source| Error::failed(super::chain(&source)))?;
        let mut local = Self {
            sandbox,
            modules,
            activities: BTreeMap::new(),
            secrets: None,
        };
        for found in found {
            let wasm = Bytes::from(source::read_module(&found.wasm)?);
            let path = found.wasm.display();
            let added = local.add(&found.name, wasm, &found.manifest).await;
            added.map_err(|error| Error::failed(format!("{path}: {error}")))?;
        }
        Ok(local)
    }

    /// Has attempts given these secrets, and no others.
    pub(crate) fn give(&mut self, secrets: BTreeMap<String, Arc<str>>) {
        self.secrets = Some(secrets);
    }

    /// Compiles one more.
    pub(crate) async fn add(
        &mut self,
        name: &str,
        wasm: Bytes,
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let info = self
            .sandbox
            .admit(&tenant(), wasm.clone())
            .await
            .map_err(|error| Error::failed(super::chain(&error)))?;
        self.modules.put(&info.digest, wasm);
        let hosts = manifest.http.hosts.clone();
        let granted = info.powers.intersection(&manifest.capabilities);
        let activity = LocalActivity {
            digest: info.digest.as_str().into(),
            powers: granted.copied().collect(),
            grants: Arc::new(Grants {
                capabilities: manifest.capabilities.clone(),
                policy_hosts: hosts.clone(),
                manifest_hosts: hosts,
                allow_private: Vec::new(),
            }),
            limits: manifest.lower(&TenantLimits::default()),
        };
        self.activities.insert(name.to_owned(), Arc::new(activity));
        Ok(())
    }

    /// The activity that a resource names.
    pub(crate) fn activity(&self, resource: &Resource) -> Option<&Arc<LocalActivity>> {
        self.activities.get(&*resource.name)
    }

    /// Whether there is the activity that a resource names.
    pub(crate) fn has(&self, resource: &Resource) -> bool {
        resource.child.is_none() && self.activity(resource).is_some()
    }

    /// Names of all activities.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.activities.keys().map(String::as_str)
    }

    /// Runs one attempt. Its log goes to stderr.
    pub(crate) async fn run(
        &self,
        caller: &Caller<'_>,
        task: &ActivityTask,
        cancel: Cancel,
    ) -> Outcome {
        let log = Arc::new(Terminal {
            state: task.state.clone(),
        });
        self.run_logging(caller, task, cancel, log).await
    }

    /// Runs one attempt, whose log goes there.
    pub(crate) async fn run_logging(
        &self,
        caller: &Caller<'_>,
        task: &ActivityTask,
        cancel: Cancel,
        log: Arc<dyn LogSink>,
    ) -> Outcome {
        let Some(activity) = self.activity(&task.resource) else {
            return self.unknown(&task.resource);
        };
        let mut given = Vec::new();
        let input = match (&self.secrets, &task.secrets) {
            (Some(known), Some(named)) => named.fill(&task.input, |name| {
                let secret = known.get(name)?;
                given.push(secret.clone());
                Some(secret.clone())
            }),
            _ => Ok(task.input.clone()),
        };
        let hidden = Hidden::of(&given);
        let input = match input {
            Ok(input) => input,
            Err(UnknownSecret(name)) => {
                let message = format!(
                    "there is no secret `{name}` here; `--secret {name}` gives what the environment has under this name"
                );
                return not_run("SecretNotFound", message);
            }
        };
        let idempotency_key = format!("{}/{}", caller.execution, task.task.0);
        let invocation = Invocation {
            tenant: tenant(),
            digest: activity.digest.clone(),
            context: TaskContext {
                application: caller.application.into(),
                workflow: caller.workflow.into(),
                execution: caller.execution,
                state: task.state.clone(),
                attempt: task.attempt,
                idempotency_key,
                scheduled_at: task.scheduled_at,
            },
            input,
            limits: activity.limits,
            grants: activity.grants.clone(),
            log: Arc::new(Discreet {
                log,
                hidden: hidden.clone(),
            }),
            heartbeat: None,
            heartbeat_timeout: task.heartbeat_ms.map(Duration::from_millis),
            deadline: None,
            cancel: Some(cancel),
        };
        let mut outcome = self.sandbox.run(invocation).await;
        if let Err(failure) = &mut outcome.result {
            hidden.hide_in(failure);
        }
        outcome
    }

    fn unknown(&self, resource: &Resource) -> Outcome {
        let known: Vec<&str> = self.names().collect();
        let known = if known.is_empty() {
            "there are none at all (--activities names their folder)".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        let message = format!("there is no activity `{resource}` here; {known}");
        not_run("ActivityNotFound", message)
    }
}

/// The outcome of an attempt that there is no sense in beginning.
fn not_run(error: &str, message: String) -> Outcome {
    Outcome {
        result: Err(ActivityFailure {
            error: error.to_owned(),
            message,
            retryable: Some(false),
            details: None,
        }),
        receipt: cascade_cdl::Receipt::default(),
        memory_peak: 0,
        log_bytes: 0,
        log_truncated: false,
        busy: Duration::ZERO,
    }
}

/// Where compiled modules stay: `$XDG_CACHE_HOME/cascade`, or what stands for it.
fn cache_folder() -> Result<PathBuf, Error> {
    let folder = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("cascade");
    std::fs::create_dir_all(&folder).map_err(|source| Error::file("make", &folder, &source))?;
    Ok(folder)
}

/// Modules by digest.
#[derive(Clone, Default)]
struct Modules(Arc<Mutex<HashMap<String, Bytes>>>);

impl Modules {
    fn put(&self, digest: &str, wasm: Bytes) {
        let mut modules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        modules.insert(digest.to_owned(), wasm);
    }
}

#[async_trait]
impl ModuleSource for Modules {
    async fn load(&self, _: &TenantId, digest: &str) -> Result<Option<Bytes>, SourceError> {
        let modules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(modules.get(digest).cloned())
    }
}

/// The key-value store of one command.
#[derive(Default)]
pub(crate) struct Memory(Mutex<HashMap<String, Vec<u8>>>);

impl Memory {
    /// Forgets what activities have kept.
    pub(crate) fn forget(&self) {
        self.map().clear();
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyValue for Memory {
    async fn get(&self, _: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        Ok(self.map().get(key).cloned())
    }

    async fn set(&self, _: &TenantId, key: &str, value: Vec<u8>) -> Result<(), KeyValueError> {
        self.map().insert(key.to_owned(), value);
        Ok(())
    }

    async fn compare_and_set(
        &self,
        _: &TenantId,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> Result<bool, KeyValueError> {
        let mut map = self.map();
        let holds = map.get(key) == expected.as_ref();
        if holds {
            map.insert(key.to_owned(), value);
        }
        Ok(holds)
    }

    async fn delete(&self, _: &TenantId, key: &str) -> Result<(), KeyValueError> {
        self.map().remove(key);
        Ok(())
    }
}

/// A log without the secrets of its attempt.
struct Discreet {
    log: Arc<dyn LogSink>,
    hidden: Hidden,
}

impl LogSink for Discreet {
    fn line(&self, level: LogLevel, message: &str) {
        self.log.line(level, &self.hidden.hide(message));
    }
}

/// Prints the log of attempts.
struct Terminal {
    state: Arc<str>,
}

impl LogSink for Terminal {
    fn line(&self, level: LogLevel, message: &str) {
        let (tone, name) = match level {
            LogLevel::Trace => (Tone::Faint, "trace"),
            LogLevel::Debug => (Tone::Faint, "debug"),
            LogLevel::Info => (Tone::Plain, "info "),
            LogLevel::Warn => (Tone::Busy, "warn "),
            LogLevel::Error => (Tone::Bad, "error"),
        };
        let name = paint(tone, name);
        output::stderr(&format!("{name} [{}] {}", self.state, plain(message)));
    }
}
