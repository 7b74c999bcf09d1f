//! A sandbox with services in memory, and fixtures to run in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::{ActivityFailure, ExecutionId, Json, TenantId, Timestamp};
use cascade_runtime::sandbox::{
    Grants, Invocation, KeyValue, KeyValueError, Limits, LogLevel, LogSink, ModuleInfo,
    ModuleSource, Outcome, Sandbox, SandboxConfig, SourceError, TaskContext, digest,
};
use uuid::Uuid;

/// When all attempts here are scheduled: 2026-01-31T09:30:00.123Z.
pub(crate) const SCHEDULED_AT_MS: u64 = 1_769_851_800_123;
/// What the real clock says here.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// Few slots: each reserves 6 GiB of addresses, and tests make many sandboxes.
const SLOTS: u32 = 16;

pub(crate) fn tenant() -> TenantId {
    "acme".parse().expect("a valid tenant")
}

/// Modules in memory.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<HashMap<(TenantId, String), Bytes>>);

impl Shelf {
    pub(crate) fn put(&self, tenant: &TenantId, wasm: &Bytes) -> Arc<str> {
        let digest = digest(wasm);
        let mut modules = self.0.lock().expect("no test panics here");
        modules.insert((tenant.clone(), digest.clone()), wasm.clone());
        digest.into()
    }

    /// Puts other bytes under a digest, as a damaged store would.
    pub(crate) fn replace(&self, tenant: &TenantId, digest: &str, wasm: Bytes) {
        let mut modules = self.0.lock().expect("no test panics here");
        modules.insert((tenant.clone(), digest.to_owned()), wasm);
    }
}

#[async_trait]
impl ModuleSource for Shelf {
    async fn load(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, SourceError> {
        let modules = self.0.lock().expect("no test panics here");
        Ok(modules.get(&(tenant.clone(), digest.to_owned())).cloned())
    }
}

/// Keys and values in memory. The key `"panic"` panics, as a bug would.
#[derive(Default)]
struct Map(Mutex<HashMap<(TenantId, String), Vec<u8>>>);

#[async_trait]
impl KeyValue for Map {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        let map = self.0.lock().expect("no test panics here");
        Ok(map.get(&(tenant.clone(), key.to_owned())).cloned())
    }

    async fn set(&self, tenant: &TenantId, key: &str, value: Vec<u8>) -> Result<(), KeyValueError> {
        assert!(key != "\"panic\"", "the store broke");
        let mut map = self.0.lock().expect("no test panics here");
        map.insert((tenant.clone(), key.to_owned()), value);
        Ok(())
    }

    async fn compare_and_set(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> Result<bool, KeyValueError> {
        let mut map = self.0.lock().expect("no test panics here");
        let slot = (tenant.clone(), key.to_owned());
        if map.get(&slot) != expected.as_ref() {
            return Ok(false);
        }
        map.insert(slot, value);
        Ok(true)
    }

    async fn delete(&self, tenant: &TenantId, key: &str) -> Result<(), KeyValueError> {
        let mut map = self.0.lock().expect("no test panics here");
        map.remove(&(tenant.clone(), key.to_owned()));
        Ok(())
    }
}

/// A log in memory.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<(LogLevel, String)>>);

impl Lines {
    pub(crate) fn all(&self) -> Vec<(LogLevel, String)> {
        self.0.lock().expect("no test panics here").clone()
    }
}

impl LogSink for Lines {
    fn line(&self, level: LogLevel, message: &str) {
        self.0
            .lock()
            .expect("no test panics here")
            .push((level, message.to_owned()));
    }
}

/// A sandbox with its folder and what it is given.
pub(crate) struct Bed {
    pub(crate) sandbox: Sandbox,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) folder: PathBuf,
    /// Removed with the bed.
    temporary: Option<tempfile::TempDir>,
}

impl Bed {
    /// A sandbox with a folder of its own.
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let mut bed = Self::at(temporary.path());
        bed.temporary = Some(temporary);
        bed
    }

    /// A sandbox on a folder that another one may have used.
    pub(crate) fn at(folder: &Path) -> Self {
        Self::with_compiler(folder, Path::new(env!("CARGO_BIN_EXE_cascade")))
    }

    /// A sandbox whose compiler is another program, such as a shell script.
    pub(crate) fn with_compiler(folder: &Path, compiler: &Path) -> Self {
        let shelf = Arc::new(Shelf::default());
        let sandbox = Sandbox::new(SandboxConfig {
            data_dir: folder.to_owned(),
            compiler: compiler.into(),
            slots: SLOTS,
            source: Arc::clone(&shelf) as _,
            key_value: Arc::new(Map::default()),
            now_ms: Arc::new(|| NOW_MS),
        })
        .expect("a sandbox");
        Self {
            sandbox,
            shelf,
            folder: folder.to_owned(),
            temporary: None,
        }
    }

    /// The sandbox that all tests share which do not look into its folder.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Bed> = LazyLock::new(Bed::new);
        &SHARED
    }

    pub(crate) async fn admit(&self, wasm: Bytes) -> ModuleInfo {
        self.shelf.put(&tenant(), &wasm);
        self.sandbox
            .admit(&tenant(), wasm)
            .await
            .expect("a valid module")
    }

    /// Admits and runs a fixture.
    pub(crate) async fn run(&self, fixture: &str, input: &str) -> Outcome {
        self.run_with(fixture, input, |_| {}).await
    }

    /// Admits and runs a fixture under other conditions than the usual.
    pub(crate) async fn run_with(
        &self,
        name: &str,
        input: &str,
        change: impl FnOnce(&mut Invocation),
    ) -> Outcome {
        let info = self.admit(fixture(name)).await;
        let mut invocation = invocation(&info.digest, input);
        change(&mut invocation);
        self.sandbox.run(invocation).await
    }
}

/// A shell script in `folder`, to be used as a compiler.
pub(crate) fn script(folder: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("compiler");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writable");
    let runnable = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&path, runnable).expect("ours");
    path
}

/// A fixture's WebAssembly. One that is not a whole module gets the prelude.
pub(crate) fn fixture(name: &str) -> Bytes {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |name: &str| {
        let path = folder.join(format!("{name}.wat"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let text = read(name);
    let text = if text
        .lines()
        .next()
        .is_some_and(|line| line.ends_with("Whole."))
    {
        text
    } else {
        format!("(module\n{text}\n{})", read("prelude"))
    };
    wat::parse_str(&text)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .into()
}

/// A module that returns null and has a passive segment of so many elements.
pub(crate) fn with_elements(count: usize) -> Bytes {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a fixture");
    let text = format!(
        "(module (table 1 funcref)\n{}\n{}\n(elem func {}))",
        read("noop.wat"),
        read("prelude.wat"),
        "$grab ".repeat(count)
    );
    wat::parse_str(text).expect("valid text").into()
}

/// The component that a fixture's core module is made into, as Cascade itself makes it.
fn componentize(name: &str) -> Vec<u8> {
    use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
    let mut module = fixture(name).to_vec();
    let mut resolve = wit_parser::Resolve::default();
    let wit = include_str!("../../../sdk/wit/activity.wit");
    let package = resolve.push_source("activity.wit", wit).expect("valid WIT");
    let world = resolve
        .select_world(&[package], Some("activity"))
        .expect("a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let encoder = ComponentEncoder::default()
        .module(&module)
        .expect("a module");
    encoder.validate(true).encode().expect("a component")
}

/// The component of fixture `name`, with the component `nested` in it,
/// instantiated some times before anything is called.
pub(crate) fn with_nested(name: &str, nested: &str, times: usize) -> Bytes {
    const COMPONENT: u8 = 4;
    const INSTANCES: u8 = 5;
    fn number(n: usize, into: &mut Vec<u8>) {
        // LEB128, with as many bytes as it takes.
        let low = u8::try_from(n & 0x7f).expect("seven bits");
        if n < 0x80 {
            into.push(low);
        } else {
            into.push(low | 0x80);
            number(n >> 7, into);
        }
    }
    fn section(id: u8, content: &[u8], into: &mut Vec<u8>) {
        into.push(id);
        number(content.len(), into);
        into.extend_from_slice(content);
    }
    let mut outer = componentize(name);
    let (mut depth, mut components) = (0, 0);
    for payload in wasmparser::Parser::new(0).parse_all(&outer) {
        match payload.expect("a valid component") {
            wasmparser::Payload::ComponentSection { .. } => {
                components += usize::from(depth == 0);
                depth += 1;
            }
            wasmparser::Payload::ModuleSection { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    section(COMPONENT, &fixture(nested), &mut outer);
    let mut instances = Vec::new();
    number(times, &mut instances);
    for _ in 0..times {
        instances.push(0); // instantiate
        number(components, &mut instances);
        number(0, &mut instances); // without arguments
    }
    section(INSTANCES, &instances, &mut outer);
    outer.into()
}

/// Limits that tests hit soon, even in a debug build.
pub(crate) fn small_limits() -> Limits {
    Limits {
        fuel_per_attempt: 200_000_000,
        memory_bytes: 16 << 20,
        output_bytes: 1 << 20,
        log_bytes: 8 << 10,
        attempt_timeout_ms: 60_000,
        ..Limits::default()
    }
}

/// The usual attempt: small limits, nothing granted.
pub(crate) fn invocation(digest: &str, input: &str) -> Invocation {
    Invocation {
        tenant: tenant(),
        digest: digest.into(),
        context: TaskContext {
            application: "shop".into(),
            workflow: "order".into(),
            execution: ExecutionId(Uuid::from_u128(7)),
            state: "Charge".into(),
            attempt: 1,
            idempotency_key: "order-7:Charge".into(),
            scheduled_at: Timestamp(SCHEDULED_AT_MS),
        },
        input: Json::parse(input.to_owned()).expect("the input is JSON"),
        limits: small_limits(),
        grants: Arc::new(Grants::default()),
        log: Arc::new(Lines::default()),
        heartbeat: None,
        heartbeat_timeout: None,
        deadline: None,
        cancel: None,
    }
}

pub(crate) fn output(outcome: &Outcome) -> &str {
    match &outcome.result {
        Ok(output) => output.as_str(),
        Err(failure) => panic!("failed: {failure:?}"),
    }
}

pub(crate) fn failure(outcome: &Outcome) -> &ActivityFailure {
    match &outcome.result {
        Ok(output) => panic!("returned {output:?}"),
        Err(failure) => failure,
    }
}

/// Runs a test body on one thread, and fails it if it hangs.
pub(crate) fn block_on<F: Future>(body: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let limit = Duration::from_mins(5); // far beyond what any test takes
        tokio::time::timeout(limit, body)
            .await
            .expect("the test hangs")
    })
}
