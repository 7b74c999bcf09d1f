use super::super::tests::{NOW, id, load, source};
use super::super::{Error, Precondition};
use cascade_cdl::program::Resource;

use super::*;
use crate::engine::Definitions;
use crate::store::{ActivityVersion, ModelStore, Store};

const TENANTS: &str = "tenants: [{id: a}, {id: b}]";

impl Catalog {
    async fn give(&self, state: &str, precondition: Precondition) -> Result<u32, Error> {
        let (of, source) = (id("a"), source(state));
        let applied = self.apply(&of, "app", "app.yaml", source, &precondition, NOW);
        Ok(applied.await?.version)
    }

    fn version(&self) -> Option<u32> {
        let entry = self.application(&id("a"), "app");
        entry.map(|entry| entry.version)
    }

    async fn hear(&self, subject: Subject) {
        let heard = self.take_in(&id("a"), &subject).await;
        heard.expect("reads");
    }
}

fn app() -> Subject {
    Subject::Application("app".to_owned())
}

async fn upload(store: &ModelStore, version: &str) {
    let description = r#"{"manifest": {}, "info": {"digest": "d", "size": 1, "kind": "handler",
        "imports": [], "exports": [], "powers": [], "componentized": false, "slots": 1}}"#;
    let row = ActivityVersion {
        name: "pay".to_owned(),
        version: version.to_owned(),
        number: 0,
        digest: "d".to_owned(),
        description: description.to_owned(),
        created_at: NOW,
    };
    store.put_activity(&id("a"), row).await.expect("puts");
}

#[tokio::test]
async fn what_another_server_has_applied_is_in_force_once_it_is_told() {
    let store = Arc::new(ModelStore::new());
    let (here, _data) = load(TENANTS, &store).await;
    let (there, _other) = load(TENANTS, &store).await;
    for version in 1..4 {
        let state = format!("S{version}");
        let given = there.give(&state, Precondition::None).await;
        assert_eq!(given.expect("applies"), version);
        assert_eq!(here.version(), (version > 1).then(|| version - 1));
        here.hear(app()).await;
        assert_eq!(here.version(), Some(version));
        here.hear(app()).await; // twice is once
    }
    assert_eq!(
        here.stock(&id("a")).expect("there").bytes,
        there.stock(&id("a")).expect("there").bytes
    );
    let other = here.take_in(&id("b"), &app()).await;
    other.expect("reads");
    assert!(here.application(&id("b"), "app").is_none());
}

#[tokio::test]
async fn what_is_not_known_here_is_looked_for_before_it_is_unknown() {
    let store = Arc::new(ModelStore::new());
    let (here, _data) = load(TENANTS, &store).await;
    let (there, _other) = load(TENANTS, &store).await;
    let a = id("a");
    assert!(
        here.find_application(&a, "app")
            .await
            .expect("reads")
            .is_none()
    );
    there
        .give("One", Precondition::None)
        .await
        .expect("applies");
    here.look_for_workflow(&a, "app").await.expect("reads");
    assert!(here.program(&a, "app", "app").is_some());
    let pay = Resource {
        name: "pay".into(),
        version: None,
        region: None,
        child: None,
    };
    assert!(here.activity(&a, &pay).is_none());
    upload(&store, "").await;
    let found = here.find_versions(&a, "pay", None).await.expect("reads");
    assert_eq!(found.len(), 1);
    upload(&store, "stable").await;
    let found = here.find_versions(&a, "pay", Some("stable")).await;
    assert_eq!(found.expect("reads").len(), 2);
    Definitions::look_for_activity(&here, &a, &pay)
        .await
        .expect("reads");
    let newest = here.activity(&a, &pay).expect("known");
    assert_eq!(*newest.version, *"stable");
}

#[tokio::test]
async fn a_change_goes_by_what_others_have_done_though_nobody_has_told_it() {
    let store = Arc::new(ModelStore::new());
    let (here, _data) = load(TENANTS, &store).await;
    let (there, _other) = load(TENANTS, &store).await;
    let first = there.give("One", Precondition::Absent).await;
    assert_eq!(first.expect("applies"), 1);
    let etag = there
        .application(&id("a"), "app")
        .expect("there")
        .etag
        .clone();
    let absent = here.give("Two", Precondition::Absent).await;
    assert!(matches!(absent, Err(Error::Changed(_))), "{absent:?}");
    let next = here.give("Two", Precondition::Matches(vec![etag])).await;
    assert_eq!(next.expect("is that of the newest"), 2);
    let same = there.give("Two", Precondition::None).await;
    assert_eq!(
        same.expect("is there already"),
        2,
        "the same is no new version"
    );
}

#[tokio::test]
async fn a_pause_holds_on_all_servers_and_so_does_its_end() {
    let store = Arc::new(ModelStore::new());
    let (here, _data) = load(TENANTS, &store).await;
    let (there, _other) = load(TENANTS, &store).await;
    there
        .give("One", Precondition::None)
        .await
        .expect("applies");
    let pause = |reason: &str| store::PausedWorkflow {
        application: "app".to_owned(),
        workflow: "app".to_owned(),
        reason: reason.to_owned(),
        paused_at: NOW,
    };
    there.pause(&id("a"), pause("first")).await.expect("pauses");
    let paused = here.pause(&id("a"), pause("second")).await;
    assert_eq!(paused.expect("is paused").reason, "first");
    there.resume(&id("a"), "app", "app").await.expect("resumes");
    assert!(here.paused(&id("a"), "app", "app").is_some());
    here.hear(Subject::Pauses).await;
    assert!(here.paused(&id("a"), "app", "app").is_none());
    here.pause(&id("a"), pause("third")).await.expect("pauses");
    there.resume(&id("a"), "app", "app").await.expect("resumes");
    let stored = store.paused_workflows(&id("a")).await.expect("reads");
    assert_eq!(stored, [], "it was not known there, and has ended");
}

#[tokio::test]
async fn a_tenant_that_another_server_has_made_comes_with_all_it_has() {
    let store = Arc::new(ModelStore::new());
    let (there, _other) = load(TENANTS, &store).await;
    there
        .give("One", Precondition::None)
        .await
        .expect("applies");
    upload(&store, "").await;
    let (here, _data) = load("", &store).await;
    here.hear(app()).await;
    assert_eq!(here.version(), None, "it is nobody's");
    let put = here
        .0
        .tenancy
        .put(id("a"), crate::tenancy::Settings::default(), NOW);
    put.await.expect("fits");
    here.hear(Subject::Tenant).await;
    assert_eq!(here.version(), Some(1));
    assert_eq!(here.activities(&id("a")).len(), 1);
}

#[tokio::test]
async fn an_older_version_never_comes_back_in_force() {
    let store = Arc::new(ModelStore::new());
    let (here, _data) = load(TENANTS, &store).await;
    let (there, _other) = load(TENANTS, &store).await;
    store.hold_commits();
    let applying = here.clone();
    let apply = tokio::spawn(async move { applying.give("One", Precondition::None).await });
    store.held(1).await; // it is stored, and its answer is on the way
    let later = tokio::spawn(async move { there.give("Two", Precondition::None).await });
    store.held(2).await;
    let hearing = here.clone();
    // It counts what is kept when nothing changes here, and so after the release.
    let hear = tokio::spawn(async move { hearing.hear(app()).await });
    while here.version() != Some(2) {
        tokio::task::yield_now().await;
    }
    store.release();
    hear.await.expect("no panic");
    assert_eq!(apply.await.expect("no panic").expect("applies"), 1);
    assert_eq!(later.await.expect("no panic").expect("applies"), 2);
    assert_eq!(here.version(), Some(2));
}
