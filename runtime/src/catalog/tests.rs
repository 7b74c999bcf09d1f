use std::path::Path;

use async_trait::async_trait;

use super::*;
use crate::config::{Config, Policy, TenantLimits, Weight};
use crate::sandbox::{KeyValue, KeyValueError, ModuleSource, SandboxConfig, SourceError};
use crate::store::ModelStore;

pub(super) const NOW: Timestamp = Timestamp(1_000);

pub(super) fn id(text: &str) -> TenantId {
    text.parse().expect("valid")
}

pub(super) fn source(name: &str) -> Bytes {
    format!("states: [{{name: {name}, type: Succeed}}]").into()
}

/// A catalog whose sandbox compiles nothing.
pub(super) async fn load(config: &str, store: &Arc<ModelStore>) -> (Catalog, tempfile::TempDir) {
    let config = Config::parse("test.yaml", config, &|_| None).expect("valid");
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    let tenancy = Tenancy::load(&config, Arc::clone(&store)).await;
    let data = tempfile::tempdir().expect("a folder");
    let sandbox = Sandbox::new(SandboxConfig {
        data_dir: data.path().to_owned(),
        compiler: Path::new("/nowhere").to_owned(),
        slots: 10,
        source: Arc::new(Nothing),
        key_value: Arc::new(Nothing),
        now_ms: Arc::new(|| 0),
    });
    let sandbox = sandbox.expect("a folder is all it needs");
    let catalog = Catalog::load(store, sandbox, tenancy.expect("loads")).await;
    (catalog.expect("loads"), data)
}

impl Catalog {
    async fn put(&self, of: &str, state: &str, if_match: &[&str]) -> Result<Applied, Error> {
        let precondition = match if_match {
            [] => Precondition::None,
            etags => Precondition::Matches(etags.iter().map(ToString::to_string).collect()),
        };
        let file = "app.yaml";
        self.apply(&id(of), "app", file, source(state), &precondition, NOW)
            .await
    }
}

#[tokio::test]
async fn an_application_is_in_force_though_its_client_hung_up() {
    let store = Arc::new(ModelStore::new());
    let (catalog, _data) = load("tenants: [{id: a}]", &store).await;
    catalog.put("a", "One", &[]).await.expect("applies");
    store.hold_commits();
    let applying = catalog.clone();
    let apply = tokio::spawn(async move { applying.put("a", "Two", &[]).await });
    store.held(1).await;
    apply.abort();
    assert!(apply.await.is_err(), "it was cut off");
    store.release();
    // As a client does that looks what became of it.
    let second = etag(2, &String::from_utf8_lossy(&source("Two")));
    let third = catalog.put("a", "Three", &[&second]).await;
    assert_eq!(third.expect("applies").version, 3);
}

#[tokio::test]
async fn what_a_tenant_may_have_kept_is_bounded_in_bytes() {
    let store = Arc::new(ModelStore::new());
    let config = "tenants: [{id: a, limits: {uploaded_bytes: 2500}}, {id: b}]";
    let (catalog, _data) = load(config, &store).await;
    catalog.put("a", "One", &[]).await.expect("fits");
    catalog.put("a", "Two", &[]).await.expect("fits");
    let third = catalog.put("a", "Three", &[]).await;
    assert!(
        matches!(third, Err(Error::TooManyBytes { limit: 2_500, .. })),
        "{third:?}"
    );
    catalog.put("a", "Two", &[]).await.expect("is no new one");
    catalog.put("b", "Three", &[]).await.expect("has its own");
    let (catalog, _data) = load(config, &store).await;
    let third = catalog.put("a", "Three", &[]).await;
    assert!(
        matches!(third, Err(Error::TooManyBytes { .. })),
        "it is counted after a restart: {third:?}"
    );
}

#[test]
fn versions_are_bounded_of_one_activity_and_of_all() {
    let tenant = Tenant {
        id: id("a"),
        limits: TenantLimits::default(),
        policy: Policy::default(),
        weight: Weight::default(),
        configured: true,
    };
    let tenant = Arc::new(tenant);
    let mut stock = Stock::new(Arc::clone(&tenant));
    let description = r#"{"manifest": {}, "info": {"digest": "d", "size": 1, "kind": "handler",
        "imports": [], "exports": [], "powers": [], "componentized": false, "slots": 1}}"#;
    let mut row = ActivityVersion {
        name: String::new(),
        version: String::new(),
        number: 0,
        digest: "d".to_owned(),
        description: description.to_owned(),
        created_at: NOW,
    };
    let known = activity(&tenant, &row).expect("reads");
    for name in 0..MAX_ALL_VERSIONS / MAX_VERSIONS {
        check_versions(&stock, "new").expect("there is room yet");
        row.name = format!("a{name}");
        for number in 1..=MAX_VERSIONS {
            let mut version = known.clone();
            version.name = row.name.as_str().into();
            version.number = u32::try_from(number).expect("small");
            stock.add_activity(version);
        }
        let full = check_versions(&stock, &row.name);
        assert!(matches!(
            full,
            Err(Error::TooMany {
                what: "versions",
                ..
            })
        ));
    }
    let full = check_versions(&stock, "new");
    assert!(
        matches!(full, Err(Error::TooMany { count, .. }) if count == MAX_ALL_VERSIONS),
        "{full:?}"
    );
}

#[tokio::test]
async fn a_tenant_compiles_only_so_many_files_at_a_time() {
    let store = Arc::new(ModelStore::new());
    let (catalog, _data) = load("tenants: [{id: a}, {id: b}]", &store).await;
    let mut held = Vec::new();
    while let Some(place) = catalog.0.compiling.try_take(&id("a")) {
        held.push(place);
    }
    let a = id("a");
    let mut parsed = std::pin::pin!(catalog.parse(&a, "app.yaml", source("One")));
    assert!(futures::poll!(parsed.as_mut()).is_pending());
    let other = catalog.parse(&id("b"), "app.yaml", source("One")).await;
    assert!(other.expect("is not in its way").application.is_some());
    held.clear();
    assert!(parsed.await.expect("its turn").application.is_some());
}

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

impl Catalog {
    async fn close(&self, of: &str, workflow: &str, reason: &str) -> Result<String, Error> {
        let pause = store::PausedWorkflow {
            application: "app".to_owned(),
            workflow: workflow.to_owned(),
            reason: reason.to_owned(),
            paused_at: NOW,
        };
        let paused = self.pause(&id(of), pause).await?;
        Ok(paused.reason.clone())
    }

    fn reason(&self, of: &str) -> Option<String> {
        let paused = self.paused(&id(of), "app", "app");
        paused.map(|paused| paused.reason.clone())
    }
}

#[tokio::test]
async fn a_workflow_is_paused_for_one_tenant_and_for_versions_to_come() {
    let store = Arc::new(ModelStore::new());
    let config = "tenants: [{id: a}, {id: b}]";
    let (catalog, _data) = load(config, &store).await;
    for tenant in ["a", "b"] {
        catalog.put(tenant, "One", &[]).await.expect("applies");
    }
    let unknown = catalog.close("a", "nothing", "why").await;
    assert!(
        matches!(unknown, Err(Error::NoWorkflow { .. })),
        "{unknown:?}"
    );
    for reason in ["first", "second"] {
        let paused = catalog.close("a", "app", reason).await;
        assert_eq!(paused.expect("pauses"), "first", "it is as it was");
    }
    catalog.put("a", "Two", &[]).await.expect("applies");
    // Another process reads it from the store.
    let (again, _other) = load(config, &store).await;
    for catalog in [&catalog, &again] {
        assert_eq!(catalog.reason("a").as_deref(), Some("first"));
        assert_eq!(catalog.reason("b"), None);
    }
    for _ in 0..2 {
        catalog
            .resume(&id("a"), "app", "app")
            .await
            .expect("resumes");
        assert_eq!(catalog.reason("a"), None);
    }
    let (again, _third) = load(config, &store).await;
    assert_eq!(again.reason("a"), None);
    let unknown = catalog.resume(&id("a"), "app", "nothing").await;
    assert!(
        matches!(unknown, Err(Error::NoWorkflow { .. })),
        "{unknown:?}"
    );
}
