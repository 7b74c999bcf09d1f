//! What the tests of the engine stand on: a file of workflows, a clock, a queue.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use cascade_cdl::program::{Application, Resource};
use cascade_cdl::{ActivityFailure, Source};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::*;
use crate::catalog::Activity;
use crate::dispatch::local::{Capacity, LocalQueue, Share};
use crate::dispatch::{HeldTask, QueuedTask, Spent};
use crate::sandbox::Limits;
use crate::store::ModelStore;

const WORKFLOWS: &str = "
workflows:
  one:
    states:
      - {name: A, type: Task, resource: urn:cascade:activity:pure_a, parameters: {n: 1}, result: $.a, end: true}
  ten:
    states:
      - {name: S0, type: Task, resource: urn:cascade:activity:pure_a, parameters: {n: 0}, result: $.s, next: S1}
      - {name: S1, type: Task, resource: urn:cascade:activity:pure_a, parameters: {n: 1}, result: $.s, next: S2}
      - {name: S2, type: Task, resource: urn:cascade:activity:pure_a, parameters: {n: 2}, result: $.s, next: S3}
      - {name: S3, type: Task, resource: urn:cascade:activity:pure_a, parameters: {n: 3}, result: $.s, end: true}
  effect:
    states:
      - {name: Pay, type: Task, resource: urn:cascade:activity:charge, parameters: {n: 7}, result: $.paid, end: true}
  missing:
    states:
      - name: Gone
        type: Task
        resource: urn:cascade:activity:nobody_made_it
        retries: {max_attempts: 1}
        catch: [{error: ActivityNotFound, result: $.error, next: Saved}]
        end: true
      - {name: Saved, type: Pass, end: true}
  loud:
    states:
      - {name: S, type: Task, resource: urn:cascade:activity:pure_a, parameters: {n: 0}, result: $.s, next: P1}
      - {name: P1, type: Pass, parameters: '{{ $.s }}', next: P2}
      - {name: P2, type: Pass, parameters: '{{ $.s }}', next: P3}
      - {name: P3, type: Pass, parameters: '{{ $.s }}', next: P4}
      - {name: P4, type: Pass, parameters: '{{ $.s }}', next: T}
      - {name: T, type: Task, resource: urn:cascade:activity:pure_a, parameters: {n: 1}, result: $.s, next: P5}
      - {name: P5, type: Pass, parameters: '{{ $.s }}', next: P6}
      - {name: P6, type: Pass, parameters: '{{ $.s }}', next: P7}
      - {name: P7, type: Pass, parameters: '{{ $.s }}', next: P8}
      - {name: P8, type: Pass, parameters: '{{ $.s }}', end: true}
  twice:
    states:
      - {name: First, type: Task, resource: urn:cascade:activity:charge, parameters: 1, result: $.first, next: Second}
      - {name: Second, type: Task, resource: urn:cascade:activity:charge, parameters: 2, result: $.second, end: true}
  doomed:
    states:
      - {name: Never, type: Fail, error: Doomed}
  nap:
    states:
      - {name: Sleep, type: Wait, duration: 1h, next: Rise}
      - {name: Rise, type: Pass, parameters: up, result: $.state, end: true}
  sides:
    states:
      - name: Both
        type: Parallel
        branches:
          - {name: Left, type: Task, resource: urn:cascade:activity:charge}
          - {name: Right, type: Task, resource: urn:cascade:activity:pure_a}
        result: $.both
        end: true
  paid:
    states:
      - {name: Paid, type: EventTask, event: paid, result: $.payment, next: Ship}
      - {name: Ship, type: Task, resource: urn:cascade:activity:charge, parameters: '{{ $.payment }}', result: $.shipped, end: true}
  paid_later:
    states:
      - {name: Ship, type: Task, resource: urn:cascade:activity:charge, parameters: 1, result: $.shipped, next: Paid}
      - {name: Paid, type: EventTask, event: paid, result: $.payment, end: true}
  paid_twice:
    states:
      - {name: First, type: EventTask, event: paid, result: $.first, next: Second}
      - {name: Second, type: EventTask, event: paid, result: $.second, end: true}
  parent:
    states:
      - {name: Child, type: SubWorkflow, workflow: effect, parameters: {x: 1}, result: $.child, end: true}
  idle_child:
    states:
      - {name: Child, type: SubWorkflow, workflow: paid, parameters: {x: 1}, result: $.child, end: true}
  loose:
    states:
      - {name: Child, type: SubWorkflow, workflow: effect, wait: false, parameters: {x: 1}, result: $.child, end: true}
  endless:
    states:
      - {name: Again, type: SubWorkflow, workflow: endless, parameters: {x: 1}, end: true}
  written:
    states:
      - name: Double
        type: Map
        items: {object: in/numbers, format: ndjson}
        max_concurrency: 32
        iterator: {states: [{name: One, type: Task, resource: urn:cascade:activity:pure_a, parameters: '{{ map.item }}', end: true}]}
        results: {object: out/doubled}
        result: $.run
        end: true
  tolerant:
    states:
      - name: Double
        type: Map
        items: {object: in/numbers, format: ndjson}
        max_concurrency: 16
        tolerated_failure_count: 2
        iterator: {states: [{name: One, type: Task, resource: urn:cascade:activity:pure_a, parameters: '{{ map.item }}', end: true}]}
        results: {object: out/doubled/}
        result: $.run
        end: true
  listed:
    states:
      - name: Double
        type: Map
        items: {object: in/numbers, format: ndjson}
        max_concurrency: 64
        iterator: {states: [{name: One, type: Task, resource: urn:cascade:activity:pure_a, parameters: '{{ map.item }}', end: true}]}
        result: $.all
        end: true
  one_by_one:
    states:
      - name: Double
        type: Map
        items: {object: in/numbers, format: ndjson}
        max_concurrency: 1
        iterator: {states: [{name: One, type: Task, resource: urn:cascade:activity:pure_a, parameters: '{{ map.item }}', end: true}]}
        result: $.all
        end: true
  undone:
    states:
      - name: Book
        type: Task
        resource: urn:cascade:activity:charge
        compensate: {resource: urn:cascade:activity:charge, parameters: undo}
        next: Pay
      - {name: Pay, type: Task, resource: urn:cascade:activity:charge, retries: {max_attempts: 1}, end: true}
  strict:
    input: {schema: {type: object, required: [x], properties: {x: {type: integer}}}}
    states:
      - {name: Pay, type: Task, resource: urn:cascade:activity:charge, result: $.paid, end: true}
  careless:
    states:
      - {name: Child, type: SubWorkflow, workflow: strict, parameters: {x: one}, retries: {max_attempts: 3}, end: true}
  lost:
    states:
      - {name: Child, type: SubWorkflow, workflow: other/nothing, parameters: {x: 1}, retries: {max_attempts: 3}, end: true}
  unlucky:
    states:
      - {name: Child, type: SubWorkflow, workflow: cursed/any, parameters: {x: 1}, retries: {max_attempts: 1}, end: true}
  keyed:
    shard_key: '{{ $.workflow.input.customer }}'
    states:
      - {name: Paid, type: EventTask, event: paid, result: $.payment, next: Ship}
      - {name: Ship, type: Task, resource: urn:cascade:activity:charge, parameters: {key: '{{ workflow.shard_key }}'}, result: $.shipped, end: true}
  keyed_parent:
    states:
      - {name: Child, type: SubWorkflow, workflow: keyed, parameters: '{{ workflow.input }}', result: $.child, end: true}
  paced:
    start_rate_limit: {rate: 2/s, burst: 2}
    states:
      - {name: Pay, type: Task, resource: urn:cascade:activity:charge, result: $.paid, end: true}
  paced_parent:
    states:
      - {name: Child, type: SubWorkflow, workflow: paced, parameters: {x: 1}, result: $.child, end: true}
  slow:
    states:
      - {name: Pay, type: Task, resource: urn:cascade:activity:charge, rate_limit: 1/h, result: $.paid, end: true}
  review:
    states:
      - name: Review
        type: Parallel
        branches:
          - name: legal
            states:
              - {name: Legal, type: HumanTask, assignee: lea, timeout: 3h, on_timeout: Late, end: true}
              - {name: Late, type: Pass, end: true}
          - {name: Money, type: HumanTask, assignee: mo, escalate: [{after: 1h, assignee: boss}]}
        end: true
  approve:
    states:
      - name: Ask
        type: HumanTask
        assignee: bob
        ui: {schema: {properties: {ok: {type: boolean}}}}
        timeout: 1h
        result: $.decision
        end: true
";

type Versions = Arc<Mutex<Vec<Application>>>;

/// Workflows that are paused.
#[derive(Clone, Default)]
pub(crate) struct Paused {
    pub(crate) names: Arc<Mutex<Vec<String>>>,
    /// How many starts have been refused.
    pub(crate) refused: watch::Sender<u32>,
}

/// The versions of one file, with activities that exist by name only: those
/// that start with `pure` are pure.
pub(crate) struct OneFile {
    /// The last is in force.
    versions: Versions,
    limits: Arc<Mutex<Admission>>,
    paused: Paused,
    /// How often a workflow of a version was looked for: at each start of a chunk.
    by_version: Arc<AtomicUsize>,
}

impl OneFile {
    pub(crate) fn new() -> Self {
        let limits = Admission {
            input_bytes: 100,
            open_executions: 100,
            open_bytes: 1 << 30,
        };
        Self {
            versions: Arc::new(Mutex::new(vec![compile(WORKFLOWS)])),
            limits: Arc::new(Mutex::new(limits)),
            paused: Paused::default(),
            by_version: Arc::default(),
        }
    }
}

#[async_trait]
impl Definitions for OneFile {
    fn workflow(&self, _: &TenantId, app: &str, name: &str) -> Option<(u32, Arc<Program>)> {
        assert_ne!(app, "cursed", "a test wants a panic here");
        (app == "app").then_some(())?;
        let versions = self.versions.lock().expect("no test panics with it");
        let program = versions.last()?.workflows.get(name)?.clone();
        Some((u32::try_from(versions.len()).ok()?, program))
    }

    async fn workflow_at(
        &self,
        _: &TenantId,
        app: &str,
        version: u32,
        name: &str,
    ) -> Result<Option<Arc<Program>>, store::Error> {
        self.by_version.fetch_add(1, Ordering::Relaxed);
        let versions = self.versions.lock().expect("no test panics with it");
        let application = versions.get(version as usize - 1);
        let application = application.filter(|_| app == "app");
        Ok(application.and_then(|found| found.workflows.get(name).cloned()))
    }

    fn paused(&self, _: &TenantId, app: &str, name: &str) -> Option<Arc<PausedWorkflow>> {
        let names = self.paused.names.lock().expect("no test panics with it");
        names.iter().any(|it| it == name).then(|| {
            self.paused.refused.send_modify(|refused| *refused += 1);
            Arc::new(PausedWorkflow {
                application: app.to_owned(),
                workflow: name.to_owned(),
                reason: "for a test".to_owned(),
                paused_at: Timestamp(1),
            })
        })
    }

    fn activity(&self, _: &TenantId, resource: &Resource) -> Option<Arc<Activity>> {
        let name = resource.name.clone();
        (&*name != "nobody_made_it").then_some(())?;
        let info = json!({
            "digest": "00", "size": 1, "kind": "handler", "imports": [], "exports": [],
            "powers": [], "componentized": false, "slots": 1,
        });
        Some(Arc::new(Activity {
            pure: name.starts_with("pure"),
            name,
            version: "v1".into(),
            digest: "00".into(),
            number: 1,
            info: Arc::new(serde_json::from_value(info).expect("as the sandbox describes it")),
            manifest: Arc::default(),
            grants: Arc::default(),
            limits: Limits::default(),
            created_at: Timestamp(0),
        }))
    }

    fn admission(&self, _: &TenantId) -> Admission {
        *self.limits.lock().expect("no test panics with it")
    }
}

/// A clock that stands until the test moves it, or moves by `step_ms` whenever
/// it is read.
pub(crate) struct HandClock {
    pub(crate) now: watch::Sender<Timestamp>,
    pub(crate) passed: watch::Sender<Duration>,
    step_ms: u64,
}

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Self::stepping(0)
    }

    pub(crate) fn stepping(step_ms: u64) -> Arc<Self> {
        let now = watch::Sender::new(Timestamp(1_000_000));
        Arc::new(Self {
            now,
            passed: watch::Sender::new(Duration::ZERO),
            step_ms,
        })
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        let now = *self.now.borrow();
        if self.step_ms > 0 {
            self.now.send_replace(now.plus(self.step_ms));
        }
        now
    }

    async fn sleep_until(&self, at: Timestamp) {
        let mut now = self.now.subscribe();
        // The sender lives as long as the clock.
        let _ = now.wait_for(|now| *now >= at).await;
    }

    fn passed(&self) -> Duration {
        *self.passed.borrow()
    }

    async fn sleep_until_passed(&self, at: Duration) {
        let mut passed = self.passed.subscribe();
        let _ = passed.wait_for(|passed| *passed >= at).await;
    }
}

pub(crate) struct Bench {
    pub(crate) store: Arc<ModelStore>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) queue: Arc<LocalQueue>,
    pub(crate) engine: Engine,
    pub(crate) limits: Arc<Mutex<Admission>>,
    pub(crate) paused: Paused,
    pub(crate) objects: Objects,
    pub(crate) by_version: Arc<AtomicUsize>,
    folder: Arc<tempfile::TempDir>,
    versions: Versions,
}

fn compile(file: &str) -> Application {
    let parsed = cascade_cdl::parse(&Source {
        name: "app.yaml",
        bytes: file.as_bytes(),
    });
    parsed
        .application
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(ModelStore::new()), HandClock::new()).await
    }

    pub(crate) async fn on(store: Arc<ModelStore>, clock: Arc<HandClock>) -> Self {
        Self::with_shards(2, store, clock).await
    }

    pub(crate) async fn with_shards(
        shards: u32,
        store: Arc<ModelStore>,
        clock: Arc<HandClock>,
    ) -> Self {
        let settings = Settings {
            shards,
            ..Settings::default()
        };
        let limits = Admission {
            input_bytes: 100,
            open_executions: 3_000,
            open_bytes: 1 << 30,
        };
        Self::open(settings, Arc::new(Mutex::new(limits)), store, clock).await
    }

    pub(crate) async fn open(
        settings: Settings,
        limits: Arc<Mutex<Admission>>,
        store: Arc<ModelStore>,
        clock: Arc<HandClock>,
    ) -> Self {
        let versions = Arc::new(Mutex::new(vec![compile(WORKFLOWS)]));
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::serve(settings, limits, store, clock, versions, folder).await
    }

    async fn serve(
        settings: Settings,
        limits: Arc<Mutex<Admission>>,
        store: Arc<ModelStore>,
        clock: Arc<HandClock>,
        versions: Versions,
        folder: Arc<tempfile::TempDir>,
    ) -> Self {
        let quota: crate::objects::Quota = Arc::new(|_| 1 << 30);
        let objects = Objects::open(folder.path(), store.clone(), quota).expect("opens");
        let capacity = Capacity {
            places: 10_000,
            crowded_pace: u32::MAX,
        };
        let queue = Arc::new(LocalQueue::new(
            capacity,
            Arc::new(|_| Share {
                weight: 1,
                concurrent_attempts: 1_000,
                fuel_per_second: u64::MAX,
            }),
        ));
        let paused = Paused::default();
        let by_version = Arc::<AtomicUsize>::default();
        let engine = Engine::open(
            settings,
            store.clone(),
            queue.clone(),
            clock.clone(),
            Arc::new(OneFile {
                versions: versions.clone(),
                limits: limits.clone(),
                paused: paused.clone(),
                by_version: by_version.clone(),
            }),
            objects.clone(),
        )
        .await
        .expect("the model opens");
        Self {
            store,
            clock,
            queue,
            engine,
            limits,
            paused,
            objects,
            by_version,
            folder,
            versions,
        }
    }

    /// Puts the file in force with a text replaced, as its next version.
    pub(crate) fn apply(&self, from: &str, to: &str) -> Arc<Application> {
        assert!(WORKFLOWS.contains(from), "{from}");
        let new = compile(&WORKFLOWS.replace(from, to));
        let mut versions = self.versions.lock().expect("no test panics with it");
        versions.push(new.clone());
        Arc::new(new)
    }

    /// The process dies here, and another one takes over.
    pub(crate) async fn crash(self) -> Self {
        let settings = self.engine.inner.context.settings.clone();
        let Self {
            limits,
            store,
            clock,
            versions,
            folder,
            ..
        } = self;
        Self::serve(settings, limits, store, clock, versions, folder).await
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.clock.now.send_modify(|now| *now = now.plus(millis));
        let passed = Duration::from_millis(millis);
        self.clock.passed.send_modify(|before| *before += passed);
    }

    pub(crate) async fn task(&self) -> HeldTask {
        let mut tasks = self.queue.pull(1).await;
        tasks.pop().expect("the queue is open")
    }

    pub(crate) async fn complete(&self, task: &QueuedTask, output: Value) {
        self.report(task, Ok(output.into())).await;
    }

    pub(crate) async fn report(&self, task: &QueuedTask, result: Result<Json, ActivityFailure>) {
        // As a worker does, or its place would never be free again.
        let failed = result.is_err();
        self.queue.settle(&task.key(), Spent { cost: 0, failed });
        self.engine
            .report(vec![Report {
                attempt: task.key(),
                result,
                receipt: Some(Receipt::default()),
            }])
            .await;
    }

    pub(crate) async fn output(&self, id: ExecutionId) -> Value {
        let mut versions = self.engine.watch(&tenant(), id);
        loop {
            let view = self.engine.show(&tenant(), id).await.expect("reads");
            match view.map(|view| view.execution.status) {
                Some(Status::Completed { output }) => return output.to_value(),
                Some(Status::Running) | None => versions.changed().await.expect("engine lives"),
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}

pub(crate) fn tenant() -> TenantId {
    "acme".parse().expect("valid")
}

pub(crate) fn start(workflow: &str, key: Option<&str>) -> Start {
    Start {
        tenant: tenant(),
        application: "app".into(),
        workflow: workflow.into(),
        input: json!({"x": 1}).into(),
        id: None,
        idempotency_key: key.map(str::to_owned),
        parent: None,
        schedule: None,
        priority: None,
        labels: BTreeMap::new(),
        version: None,
    }
}
