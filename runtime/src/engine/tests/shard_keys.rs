//! Executions that a shard key places, not their ids.

use cascade_cdl::fnv1a32;

use super::*;

const SHARDS: u32 = 4;

async fn bench() -> Bench {
    Bench::with_shards(SHARDS, Arc::new(ModelStore::new()), HandClock::new()).await
}

/// A start of `keyed` for a customer.
fn of(customer: &str, key: Option<&str>) -> Start {
    Start {
        input: json!({ "customer": customer }).into(),
        ..start("keyed", key)
    }
}

async fn row(bench: &Bench, id: ExecutionId) -> Summary {
    let row = bench.store.summary(&tenant(), id).await.expect("reads");
    row.expect("is there")
}

/// Customers, each of another shard.
fn customers() -> Vec<String> {
    let on = |customer: &String, shard| shard_of(bucket_of(customer.as_bytes()), SHARDS) == shard;
    (0..SHARDS)
        .map(|shard| {
            let mut names = (0..1_000).map(|number| format!("c-{number}"));
            names.find(|name| on(name, shard)).expect("keys are even")
        })
        .collect()
}

async fn pay(bench: &Bench, id: ExecutionId) {
    let signal = Signal {
        name: "paid".into(),
        payload: json!(1).into(),
        idempotency_key: None,
    };
    let signalled = bench.engine.signal(&tenant(), id, signal).await;
    signalled.expect("it is found by its id");
}

#[tokio::test]
async fn executions_of_one_key_are_in_its_bucket_and_are_found_by_their_ids() {
    let bench = bench().await;
    for customer in customers() {
        let mut ids = Vec::new();
        for key in [
            None,
            Some(format!("{customer}/a")),
            Some(format!("{customer}/b")),
        ] {
            let started = bench.engine.start(of(&customer, key.as_deref())).await;
            ids.push(started.expect("starts").id);
        }
        for id in &ids {
            let row = row(&bench, *id).await;
            assert_eq!(row.shard_key.as_deref(), Some(&*customer));
            assert_eq!(row.bucket, fnv1a32(customer.as_bytes()) % 4_096);
        }
        let filter = Filter {
            shard_key: Some(customer.clone()),
            ..Filter::default()
        };
        let page = bench.store.list(&tenant(), &filter, None, 10).await;
        let listed: Vec<_> = page
            .expect("lists")
            .items
            .iter()
            .map(|row| row.id)
            .collect();
        assert!(listed.iter().eq(ids.iter().rev()), "{listed:?}");
        // A signal, a report and a cancellation reach them.
        pay(&bench, ids[0]).await;
        let held = bench.task().await;
        assert_eq!(held.task.execution, ids[0]);
        assert_eq!(held.task.task.input.to_value(), json!({ "key": customer }));
        bench.complete(&held.task, json!("ok")).await;
        let shipped = json!({ "payment": 1, "shipped": "ok" });
        assert_eq!(bench.output(ids[0]).await, shipped);
        for id in &ids[1..] {
            let cancelled = bench.engine.cancel(&tenant(), *id, "enough".into()).await;
            cancelled.expect("it is found by its id");
        }
    }
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn one_idempotency_key_is_one_execution_whatever_its_shard_key() {
    let bench = bench().await;
    let customers = customers();
    let [first, second, ..] = &customers[..] else {
        panic!("there are shards")
    };
    // The first is on its way to one shard when the second asks for another.
    bench.store.hold_commits();
    let (a, b) = (of(first, Some("k")), of(second, Some("k")));
    let (a, b, ()) = tokio::join!(bench.engine.start(a), bench.engine.start(b), async {
        bench.store.held(1).await;
        bench.store.release();
    });
    let started = a.expect("starts");
    assert!(started.created);
    assert!(
        matches!(b, Err(StartError::KeyReused(id)) if id == started.id),
        "{b:?}"
    );
    assert_eq!(bench.engine.stats().started, 1);
    let again = bench.engine.start(of(first, Some("k"))).await;
    let again = again.expect("is answered");
    assert_eq!((again.id, again.created), (started.id, false));
    assert_eq!(
        row(&bench, started.id).await.shard_key.as_deref(),
        Some(&**first)
    );
}

#[tokio::test]
async fn a_start_is_answered_though_its_workflow_has_another_key_by_now() {
    let bench = bench().await;
    let customers = customers();
    let mut first = Vec::new();
    for customer in &customers {
        let started = bench.engine.start(of(customer, Some(&**customer))).await;
        first.push(started.expect("starts").id);
    }
    let key = "shard_key: '{{ $.workflow.input.customer }}'";
    for (from, to) in [
        (key, "description: by its id"),
        (key, "shard_key: everybody"),
        (key, "shard_key: '{{ $.workflow.input.nothing }}'"),
    ] {
        bench.apply(from, to);
        for (customer, id) in customers.iter().zip(&first) {
            let again = bench.engine.start(of(customer, Some(&**customer))).await;
            let again = again.expect("is answered, whatever becomes of its workflow");
            assert_eq!((again.id, again.created), (*id, false), "{to}");
        }
    }
    let anew = bench.engine.start(of("c", Some("another"))).await;
    assert!(matches!(anew, Err(StartError::NoShardKey(_))), "{anew:?}");
    assert_eq!(bench.engine.stats().started, u64::from(SHARDS));
}

#[tokio::test]
async fn recovery_finds_what_a_key_has_placed() {
    let bench = bench().await;
    let customers = customers();
    let mut ids = Vec::new();
    for customer in &customers {
        let started = bench.engine.start(of(customer, Some(&**customer))).await;
        let id = started.expect("starts").id;
        pay(&bench, id).await;
        ids.push(id);
    }
    let bench = bench.crash().await;
    assert_eq!(bench.engine.stats().open, u64::from(SHARDS));
    for _ in &ids {
        let held = bench.task().await;
        bench.complete(&held.task, json!("ok")).await;
    }
    for (customer, id) in customers.iter().zip(&ids) {
        let shipped = json!({ "payment": 1, "shipped": "ok" });
        assert_eq!(bench.output(*id).await, shipped);
        let again = bench.engine.start(of(customer, Some(&**customer))).await;
        assert!(!again.expect("is answered").created);
    }
}

#[tokio::test]
async fn a_child_goes_where_its_own_key_leads_and_back_to_its_parent() {
    let bench = bench().await;
    for customer in customers() {
        let parent = Start {
            input: json!({ "customer": customer }).into(),
            ..start("keyed_parent", None)
        };
        let parent = bench.engine.start(parent).await.expect("starts").id;
        let child = ExecutionId::of_child(parent, TaskId(2), 1);
        let mut commits = bench.engine.watch(&tenant(), child);
        while bench
            .store
            .summary(&tenant(), child)
            .await
            .expect("reads")
            .is_none()
        {
            commits.changed().await.expect("the engine lives");
        }
        let row = row(&bench, child).await;
        assert_eq!(row.bucket, bucket_of(customer.as_bytes()));
        pay(&bench, child).await;
        let held = bench.task().await;
        bench.complete(&held.task, json!("ok")).await;
        let output = bench.output(parent).await;
        assert_eq!(output["child"]["shipped"], json!("ok"), "{output}");
    }
}

#[tokio::test]
async fn an_input_without_a_key_starts_nothing() {
    let bench = bench().await;
    for customer in [json!(null), json!([]), json!("x".repeat(60).repeat(5))] {
        bench
            .limits
            .lock()
            .expect("no test panics with it")
            .input_bytes = 1_000;
        let input = json!({ "customer": customer }).into();
        for key in [None, Some("k")] {
            let start = Start {
                input: Json::clone(&input),
                ..start("keyed", key)
            };
            let refused = bench.engine.start(start).await;
            assert!(
                matches!(refused, Err(StartError::NoShardKey(_))),
                "{refused:?}"
            );
        }
    }
    let page = bench
        .store
        .list(&tenant(), &Filter::default(), None, 10)
        .await;
    assert!(page.expect("lists").items.is_empty());
    // The key can be used still.
    let started = bench.engine.start(of("c", Some("k"))).await;
    assert!(started.expect("starts").created);
}
