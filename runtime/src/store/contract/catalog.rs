//! Modules, activities, applications, tenants and keys.

use bytes::Bytes;
use cascade_cdl::Timestamp;

use super::*;
use crate::store::{
    ActivityVersion, ApiKey, ApplicationVersion, Error, Home, MODULE_BYTES, PausedWorkflow,
    TenantRow, VERSION_BYTES,
};

on_each!(
    a_tenant_lives_in_the_shared_tables_or_where_there_are_schemas,
    modules_are_kept_once_and_apart,
    activities_are_numbered_and_immutable,
    a_counted_version_avoids_names_that_are_taken,
    applications_change_only_from_the_version_expected,
    what_a_tenant_has_uploaded_is_counted_in_bytes,
    workflows_are_paused_once_and_apart_until_resumed,
    tenants_are_replaced,
    keys_are_found_by_hash_until_deleted,
    a_module_that_is_too_large_is_refused,
    the_catalog_outlives_a_crash,
);

async fn modules_are_kept_once_and_apart(subject: Subject) {
    let store = subject.store();
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    let wasm = Bytes::from_static(b"\0asm");
    for _ in 0..2 {
        let put = store.put_module(&acme, "d1", wasm.clone()).await;
        put.expect("the same twice is no error");
    }
    assert_eq!(store.module(&acme, "d1").await.expect("reads"), Some(wasm));
    assert_eq!(store.module(&acme, "d2").await.expect("reads"), None);
    assert_eq!(store.module(&rival, "d1").await.expect("reads"), None);
}

async fn what_a_tenant_has_uploaded_is_counted_in_bytes(subject: Subject) {
    let store = subject.store();
    let acme = tenant("acme");
    let mut expected = 0;
    for digest in ["d1", "d1", "d2"] {
        let wasm = Bytes::from_static(b"a module");
        store.put_module(&acme, digest, wasm).await.expect("puts");
        let version = activity("pay", "", digest);
        expected += version.description.len() as u64 + VERSION_BYTES;
        store.put_activity(&acme, version).await.expect("puts");
    }
    expected += 2 * 8; // the same module twice is kept once
    for source in ["one", "zwölf"] {
        let version = ApplicationVersion {
            name: "app".to_owned(),
            version: 0,
            file: "app.yaml".to_owned(),
            source: source.to_owned(),
            created_at: Timestamp(1),
        };
        expected += source.len() as u64 + VERSION_BYTES;
        let put = store.put_application(&acme, version, None).await;
        put.expect("answers").expect("puts");
    }
    let counted = store.uploaded_bytes(&acme).await.expect("reads");
    assert_eq!(counted, expected);
    let rival = store.uploaded_bytes(&tenant("rival")).await;
    assert_eq!(rival.expect("reads"), 0);
}

async fn activities_are_numbered_and_immutable(subject: Subject) {
    let store = subject.store();
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    // (tenant, name, version asked for, digest) and (version, number, digest) got
    for ((of, name, version, digest), expected) in [
        ((&acme, "pay", "", "a"), ("v1", 1, "a")),
        ((&acme, "pay", "", "b"), ("v2", 2, "b")),
        ((&acme, "pay", "stable", "c"), ("stable", 3, "c")),
        ((&acme, "pay", "stable", "d"), ("stable", 3, "c")), // as it stands
        ((&acme, "pay", "v1", "e"), ("v1", 1, "a")),
        ((&acme, "ship", "", "f"), ("v1", 1, "f")),
        ((&rival, "pay", "", "g"), ("v1", 1, "g")),
        ((&acme, "pay", "", "h"), ("v4", 4, "h")),
    ] {
        let put = store
            .put_activity(of, activity(name, version, digest))
            .await;
        let put = put.expect("puts");
        let got = (put.version.as_str(), put.number, put.digest.as_str());
        assert_eq!(got, expected);
    }
    let listed = store.activities(&acme).await.expect("reads");
    let listed: Vec<_> = listed.iter().map(|it| (&*it.name, it.number)).collect();
    let expected = [("pay", 1), ("pay", 2), ("pay", 3), ("pay", 4), ("ship", 1)];
    assert_eq!(listed, expected, "by name and number");
    assert_eq!(store.activities(&rival).await.expect("reads").len(), 1);
}

async fn a_counted_version_avoids_names_that_are_taken(subject: Subject) {
    let store = subject.store();
    let acme = tenant("acme");
    for (asked, expected) in [("v2", ("v2", 1)), ("", ("v3", 3)), ("", ("v4", 4))] {
        let put = store.put_activity(&acme, activity("pay", asked, "a")).await;
        let put = put.expect("puts");
        assert_eq!((put.version.as_str(), put.number), expected);
    }
}

async fn applications_change_only_from_the_version_expected(subject: Subject) {
    let store = subject.store();
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    for (of, expected, result) in [
        (&acme, Some(1), Err(0)),
        (&acme, Some(0), Ok(1)),
        (&acme, Some(0), Err(1)),
        (&acme, None, Ok(2)),
        (&acme, Some(2), Ok(3)),
        (&rival, Some(0), Ok(1)),
    ] {
        let put = store
            .put_application(of, application("orders"), expected)
            .await;
        let version = put.expect("answers").map(|it| it.version);
        assert_eq!(version, result, "{expected:?}");
    }
    let put = store.put_application(&acme, application("a"), None).await;
    put.expect("answers").expect("puts");

    let newest = store.applications(&acme).await.expect("reads");
    let newest: Vec<_> = newest.iter().map(|it| (&*it.name, it.version)).collect();
    assert_eq!(newest, [("a", 1), ("orders", 3)]);
    for (of, version, expected) in [
        (&acme, None, Some(3)),
        (&acme, Some(1), Some(1)),
        (&acme, Some(4), None),
        (&rival, None, Some(1)),
        (&rival, Some(3), None),
    ] {
        let found = store.application(of, "orders", version).await;
        assert_eq!(found.expect("reads").map(|it| it.version), expected);
    }
    let unknown = store.application(&rival, "a", None).await;
    assert_eq!(unknown.expect("reads"), None);
}

async fn tenants_are_replaced(subject: Subject) {
    let store = subject.store();
    for (name, settings) in [("b", "1"), ("a", "2"), ("b", "3")] {
        let row = TenantRow {
            id: tenant(name),
            settings: settings.to_owned(),
            created_at: Timestamp(1),
        };
        store.put_tenant(row).await.expect("puts");
    }
    let tenants = store.tenants().await.expect("reads");
    let tenants: Vec<_> = tenants
        .iter()
        .map(|it| (it.id.as_str(), &*it.settings))
        .collect();
    assert_eq!(tenants, [("a", "2"), ("b", "3")]);
}

async fn keys_are_found_by_hash_until_deleted(subject: Subject) {
    let store = subject.store();
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    for key in [
        key("acme", "k1", "h1"),
        key("acme", "k2", "h2"),
        key("rival", "k3", "h3"),
    ] {
        store.put_key(key).await.expect("puts");
    }
    for taken in [key("rival", "k1", "h9"), key("rival", "k9", "h1")] {
        let refused = store.put_key(taken).await;
        assert!(matches!(refused, Err(Error::Exists(_))), "{refused:?}");
    }
    let keys = store.keys(&acme).await.expect("reads");
    assert_eq!(keys, [key("acme", "k1", "h1"), key("acme", "k2", "h2")]);
    let found = store.key_by_hash("h3").await.expect("reads");
    assert_eq!(found, Some(key("rival", "k3", "h3")));
    assert_eq!(store.key_by_hash("h9").await.expect("reads"), None);

    let foreign = store.delete_key(&rival, "k1").await.expect("answers");
    assert!(!foreign, "keys of others are not there");
    assert!(store.delete_key(&acme, "k1").await.expect("answers"));
    assert!(!store.delete_key(&acme, "k1").await.expect("answers"));
    assert_eq!(store.key_by_hash("h1").await.expect("reads"), None);
}

async fn a_module_that_is_too_large_is_refused(subject: Subject) {
    let too_large = Bytes::from(vec![0; MODULE_BYTES + 1]);
    let acme = tenant("acme");
    let refused = subject.store().put_module(&acme, "d", too_large).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
}

async fn the_catalog_outlives_a_crash(subject: Subject) {
    let store = subject.store();
    let acme = tenant("acme");
    let wasm = Bytes::from_static(b"wasm");
    store
        .put_module(&acme, "d", wasm.clone())
        .await
        .expect("puts");
    let activity = store
        .put_activity(&acme, activity("pay", "", "d"))
        .await
        .expect("puts");
    let orders = store
        .put_application(&acme, application("orders"), None)
        .await;
    let orders = orders.expect("answers").expect("puts");
    store.put_key(key("acme", "k", "h")).await.expect("puts");
    let pause = store
        .pause_workflow(&acme, paused("orders", "pay", "why"))
        .await;
    pause.expect("pauses");

    let subject = subject.crash().await;
    let store = subject.store();
    assert_eq!(
        store.module(&acme, "d").await.expect("reads"),
        Some(wasm.clone())
    );
    assert_eq!(store.activities(&acme).await.expect("reads"), [activity]);
    assert_eq!(store.applications(&acme).await.expect("reads"), [orders]);
    assert_eq!(
        store.keys(&acme).await.expect("reads"),
        [key("acme", "k", "h")]
    );
    assert_eq!(
        store.paused_workflows(&acme).await.expect("reads"),
        [paused("orders", "pay", "why")]
    );
}

async fn workflows_are_paused_once_and_apart_until_resumed(subject: Subject) {
    let store = subject.store();
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    for (of, application, workflow, reason) in [
        (&acme, "orders", "ship", "first"),
        (&acme, "orders", "pay", "second"),
        (&acme, "orders", "ship", "third"),
        (&acme, "billing", "ship", "fourth"),
        (&rival, "orders", "ship", "fifth"),
    ] {
        let pause = store.pause_workflow(of, paused(application, workflow, reason));
        pause.await.expect("pauses");
    }
    let expected = [
        paused("billing", "ship", "fourth"),
        paused("orders", "pay", "second"),
        paused("orders", "ship", "first"),
    ];
    assert_eq!(
        store.paused_workflows(&acme).await.expect("reads"),
        expected
    );
    for _ in 0..2 {
        let resume = store.resume_workflow(&acme, "orders", "ship").await;
        resume.expect("the same twice is no error");
    }
    let left = store.paused_workflows(&acme).await.expect("reads");
    assert_eq!(left, expected[..2]);
    let others = store.paused_workflows(&rival).await.expect("reads");
    assert_eq!(others, [paused("orders", "ship", "fifth")]);
}

fn paused(application: &str, workflow: &str, reason: &str) -> PausedWorkflow {
    PausedWorkflow {
        application: application.to_owned(),
        workflow: workflow.to_owned(),
        reason: reason.to_owned(),
        paused_at: Timestamp(5),
    }
}

fn activity(name: &str, version: &str, digest: &str) -> ActivityVersion {
    ActivityVersion {
        name: name.to_owned(),
        version: version.to_owned(),
        number: 0, // the store counts
        digest: digest.to_owned(),
        description: "{}".to_owned(),
        created_at: Timestamp(5),
    }
}

fn application(name: &str) -> ApplicationVersion {
    ApplicationVersion {
        name: name.to_owned(),
        version: 0, // the store counts
        file: "orders.yaml".to_owned(),
        source: "workflows: {}".to_owned(),
        created_at: Timestamp(5),
    }
}

fn key(of: &str, id: &str, hash: &str) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        tenant: tenant(of),
        hash: hash.to_owned(),
        role: "admin".to_owned(),
        label: "ü".to_owned(),
        created_at: Timestamp(5),
    }
}

async fn a_tenant_lives_in_the_shared_tables_or_where_there_are_schemas(subject: Subject) {
    let store = subject.store();
    let rival = tenant("rival");
    assert_eq!(store.home(&rival).await.expect("reads"), Home::Shared);
    let moved = store
        .move_home(&rival, &Home::Shared)
        .await
        .expect("is there");
    assert_eq!(
        (moved.from, moved.to, moved.tables),
        (Home::Shared, Home::Shared, Vec::new())
    );
    if matches!(subject, Subject::Postgres { .. }) {
        return; // its own tests move tenants
    }
    let schema = "rival".parse().expect("a name");
    let refused = store.move_home(&rival, &Home::Schema { schema }).await;
    let refused = refused.expect_err("there are no schemas").to_string();
    assert!(refused.contains("only PostgreSQL"), "{refused}");
}
