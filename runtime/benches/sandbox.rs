//! The worker's path of one attempt against the bare wasmtime call, with the
//! same engine, in the same run.
//!
//! To be reached: a no-op at most 2 times the bare call, a 1 KB echo at most
//! 1.5 times.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::{ExecutionId, Json, TenantId, Timestamp};
use cascade_runtime::sandbox::{
    Grants, Invocation, KeyValue, KeyValueError, Limits, ModuleSource, NoLog, Sandbox,
    SandboxConfig, SourceError, TaskContext,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use uuid::Uuid;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../sdk/wit",
        world: "activity",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

use bindings::cascade::activity::types::Context;

struct Nothing;

#[async_trait]
impl ModuleSource for Nothing {
    async fn load(&self, _: &TenantId, _: &str) -> Result<Option<Bytes>, SourceError> {
        Ok(None)
    }
}

#[async_trait]
impl KeyValue for Nothing {
    async fn get(&self, _: &TenantId, _: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        Ok(None)
    }
    async fn set(&self, _: &TenantId, _: &str, _: Vec<u8>) -> Result<(), KeyValueError> {
        Ok(())
    }
    async fn compare_and_set(
        &self,
        _: &TenantId,
        _: &str,
        _: Option<Vec<u8>>,
        _: Vec<u8>,
    ) -> Result<bool, KeyValueError> {
        Ok(false)
    }
    async fn delete(&self, _: &TenantId, _: &str) -> Result<(), KeyValueError> {
        Ok(())
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(format!("{name}.wat"))).expect("a fixture")
    };
    let text = format!("(module\n{}\n{})", read(name), read("prelude"));
    wat::parse_str(text).expect("valid text")
}

/// The component that the sandbox makes of a core module.
fn componentize(mut module: Vec<u8>) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let wit = include_str!("../../sdk/wit/activity.wit");
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

/// Instantiate and call, with fuel and epochs and nothing else.
async fn bare(engine: &Engine, pre: &bindings::ActivityPre<()>, input: &str) -> String {
    let mut store = Store::new(engine, ());
    store.set_fuel(1_000_000_000).expect("fuel is on");
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    let context = Context {
        tenant: "acme",
        application: "shop",
        workflow: "order",
        execution_id: "00000000-0000-0000-0000-000000000007",
        state: "Charge",
        attempt: 1,
        idempotency_key: "order-7:Charge",
        scheduled_at_ms: 1_769_851_800_123,
    };
    let activity = pre
        .instantiate_async(&mut store)
        .await
        .expect("an instance");
    let returned = activity.call_handle(&mut store, context, input).await;
    returned.expect("no trap").expect("an output")
}

fn attempt(
    tenant: &TenantId,
    digest: &Arc<str>,
    names: &[Arc<str>; 3],
    grants: &Arc<Grants>,
    input: &Json,
) -> Invocation {
    Invocation {
        tenant: tenant.clone(),
        digest: Arc::clone(digest),
        context: TaskContext {
            application: Arc::clone(&names[0]),
            workflow: Arc::clone(&names[1]),
            execution: ExecutionId(Uuid::from_u128(7)),
            state: Arc::clone(&names[2]),
            attempt: 1,
            idempotency_key: "order-7:Charge".into(),
            scheduled_at: Timestamp(1_769_851_800_123),
        },
        input: input.clone(),
        limits: Limits::default(),
        grants: Arc::clone(grants),
        log: Arc::new(NoLog),
        heartbeat: None,
        heartbeat_timeout: None,
        deadline: None,
        cancel: None,
    }
}

fn attempts(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let sandbox = Sandbox::new(SandboxConfig {
        data_dir: folder.path().to_owned(),
        compiler: env!("CARGO_BIN_EXE_cascade").into(),
        slots: 64,
        source: Arc::new(Nothing),
        key_value: Arc::new(Nothing),
        now_ms: Arc::new(|| 0),
    })
    .expect("a sandbox");
    let tenant: TenantId = "acme".parse().expect("a valid tenant");
    let names: [Arc<str>; 3] = ["shop".into(), "order".into(), "Charge".into()];
    let grants = Arc::new(Grants::default());
    let kilobyte = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000));

    let mut group = criterion.benchmark_group("attempt");
    for (name, input) in [("noop", "{}"), ("echo", kilobyte.as_str())] {
        let module = fixture(name);
        let engine = sandbox.engine().clone();
        let component = Component::new(&engine, componentize(module.clone())).expect("compiles");
        let pre = Linker::new(&engine)
            .instantiate_pre(&component)
            .expect("no imports");
        let pre = bindings::ActivityPre::new(pre).expect("a handle");
        group.bench_function(BenchmarkId::new("bare", name), |bench| {
            bench.iter(|| runtime.block_on(bare(&engine, &pre, input)));
        });
        let info = runtime
            .block_on(sandbox.admit(&tenant, module.into()))
            .expect("admitted");
        let digest: Arc<str> = info.digest.into();
        let input = Json::parse(input.to_owned()).expect("JSON");
        group.bench_function(BenchmarkId::new("sandbox", name), |bench| {
            bench.iter(|| {
                let attempt = attempt(&tenant, &digest, &names, &grants, &input);
                let outcome = runtime.block_on(sandbox.run(attempt));
                outcome.result.expect("an output")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, attempts);
criterion_main!(benches);
