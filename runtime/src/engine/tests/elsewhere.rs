//! What is not known here, and another server has put into the store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cascade_cdl::program::{Program, Resource};

use super::world::{HandClock, OneFile};
use super::*;
use crate::catalog::Activity;
use crate::dispatch::local::{Capacity, LocalQueue, Share};
use crate::store::PausedWorkflow;

/// Knows what was looked for, if it is there.
struct Elsewhere {
    file: OneFile,
    /// Names that others have put where they are found.
    there: Vec<&'static str>,
    known: Mutex<BTreeSet<String>>,
    /// How many lookups fail before one is answered.
    failures: Mutex<u32>,
    /// Whether looking for an activity panics.
    cursed: AtomicBool,
}

impl Elsewhere {
    fn knows(&self, name: &str) -> bool {
        let known = self.known.lock().expect("no test panics with it");
        known.contains(name)
    }

    fn look(&self, name: &str) -> Result<(), store::Error> {
        let mut failures = self.failures.lock().expect("no test panics with it");
        if *failures > 0 {
            *failures -= 1;
            return Err(store::Error::Unavailable("for a test".to_owned()));
        }
        if self.there.contains(&name) {
            let mut known = self.known.lock().expect("no test panics with it");
            known.insert(name.to_owned());
        }
        Ok(())
    }
}

#[async_trait]
impl Definitions for Elsewhere {
    fn workflow(&self, of: &TenantId, app: &str, name: &str) -> Option<(u32, Arc<Program>)> {
        self.knows(app).then_some(())?;
        self.file.workflow(of, app, name)
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn look_for_workflow(&self, _: &TenantId, app: &str) -> Result<(), store::Error> {
        self.look(app)
    }

    async fn workflow_at(
        &self,
        of: &TenantId,
        app: &str,
        version: u32,
        name: &str,
    ) -> Result<Option<Arc<Program>>, store::Error> {
        self.file.workflow_at(of, app, version, name).await
    }

    fn paused(&self, of: &TenantId, app: &str, name: &str) -> Option<Arc<PausedWorkflow>> {
        self.file.paused(of, app, name)
    }

    fn activity(&self, of: &TenantId, resource: &Resource) -> Option<Arc<Activity>> {
        self.knows(&resource.name).then_some(())?;
        self.file.activity(of, resource)
    }

    async fn look_for_activity(
        &self,
        _: &TenantId,
        resource: &Resource,
    ) -> Result<(), store::Error> {
        assert!(!self.cursed.load(Ordering::Relaxed), "for a test");
        self.look(&resource.name)
    }

    fn admission(&self, of: &TenantId) -> Admission {
        self.file.admission(of)
    }
}

/// An engine that knows nothing, and where it looks.
async fn open(there: Vec<&'static str>) -> (Engine, Arc<LocalQueue>, Arc<Elsewhere>) {
    let capacity = Capacity {
        places: 100,
        crowded_pace: u32::MAX,
    };
    let share = |_: &TenantId| Share {
        weight: 1,
        concurrent_attempts: 100,
        fuel_per_second: u64::MAX,
    };
    let queue = Arc::new(LocalQueue::new(capacity, Arc::new(share)));
    let definitions = Arc::new(Elsewhere {
        file: OneFile::new(),
        there,
        known: Mutex::default(),
        failures: Mutex::new(0),
        cursed: AtomicBool::new(false),
    });
    let store = Arc::new(ModelStore::new());
    let folder = tempfile::tempdir().expect("a folder");
    let objects = crate::objects::Objects::open(folder.path(), store.clone(), Arc::new(|_| 0));
    let engine = Engine::open(
        Settings::default(),
        store,
        queue.clone(),
        HandClock::new(),
        definitions.clone(),
        objects.expect("opens"),
    );
    (engine.await.expect("the model opens"), queue, definitions)
}

async fn ended(engine: &Engine, id: ExecutionId) -> Status {
    let mut versions = engine.watch(&tenant(), id);
    loop {
        let view = engine.show(&tenant(), id).await.expect("reads");
        match view.map(|view| view.execution.status) {
            Some(Status::Running) | None => versions.changed().await.expect("engine lives"),
            Some(ended) => return ended,
        }
    }
}

#[tokio::test]
async fn an_application_and_an_activity_are_looked_for_before_they_are_unknown() {
    let (engine, queue, _) = open(vec!["app", "charge"]).await;
    let started = engine.start(start("effect", None)).await;
    let id = started.expect("is found").id;
    let held = queue.pull(1).await.pop().expect("the queue is open");
    assert_eq!(&*held.task.activity.name, "charge");
    let report = Report {
        attempt: held.task.key(),
        result: Ok(json!("paid").into()),
        receipt: None,
    };
    engine.report(vec![report]).await;
    let status = ended(&engine, id).await;
    assert!(matches!(status, Status::Completed { .. }), "{status:?}");
}

#[tokio::test]
async fn what_is_nowhere_is_unknown() {
    let (engine, _, definitions) = open(vec!["app"]).await;
    *definitions.failures.lock().expect("nobody panicked") = 1;
    let refused = engine.start(start("effect", None)).await;
    assert!(matches!(refused, Err(StartError::Store(_))), "{refused:?}");
    let mut other = start("effect", None);
    other.application = "other".into();
    let unknown = engine.start(other).await;
    assert!(
        matches!(unknown, Err(StartError::UnknownWorkflow { .. })),
        "{unknown:?}"
    );
    let started = engine.start(start("missing", None)).await;
    let status = ended(&engine, started.expect("is found").id).await;
    let Status::Completed { output } = &status else {
        panic!("{status:?}");
    };
    let caught = &output.to_value()["error"]["error"];
    assert_eq!(*caught, json!("ActivityNotFound"));
}

#[tokio::test]
async fn a_task_is_told_of_a_panic_of_what_looks_for_its_activity() {
    let (engine, _, definitions) = open(vec!["app"]).await;
    definitions.cursed.store(true, Ordering::Relaxed);
    let started = engine.start(start("missing", None)).await;
    let status = ended(&engine, started.expect("is found").id).await;
    let Status::Failed { failure } = &status else {
        panic!("{status:?}");
    };
    assert_eq!(failure.error, "HostPanic", "{failure:?}");
}
