//! What expressions cost: the machine evaluates some for every event.

use std::hint::black_box;

use cascade_cdl::expression::{Env, Template};
use cascade_cdl::{ExecutionId, Timestamp};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

/// An order of about 1 KB as JSON.
fn context() -> Value {
    let line = |n: u32| json!({"sku": format!("SKU-{n:04}"), "quantity": n, "price": 19.5});
    let order = json!({
        "order_id": "o-20260131-000017",
        "customer": {"id": "customer-123", "name": "Ada Lovelace", "tier": "gold"},
        "address": {"street": "12 St James's Square", "city": "London", "country": "GB"},
        "lines": (1..=14).map(line).collect::<Vec<_>>(),
    });
    json!({
        "workflow": {"execution_id": "e-1", "input": order},
        "total": 2047.5,
        "payment": {"status": "authorized", "method": "card"},
    })
}

fn expressions(c: &mut Criterion) {
    let context = context();
    let env = Env {
        context: &context,
        overlays: &[],
        locals: &[],
        now: Timestamp(1_769_851_800_000),
        shards: 10,
        id: ExecutionId(uuid::Uuid::nil()),
        seq: 1,
    };
    let path = "{{ workflow.input.customer.tier }}";
    let condition = "{{ $.total > 100 && workflow.input.customer.tier == 'gold' }}";
    for (name, text) in [("path", path), ("condition", condition)] {
        let template = Template::parse(text).expect("compiles");
        c.bench_function(&format!("eval/{name}"), |b| {
            b.iter(|| {
                template
                    .eval_ref(black_box(&env))
                    .expect("a value")
                    .is_null()
            });
        });
        c.bench_function(&format!("parse/{name}"), |b| {
            b.iter(|| Template::parse(black_box(text)).expect("compiles"));
        });
    }
    let parameters = Template::from_value(&json!({
        "order_id": "{{ workflow.input.order_id }}",
        "amount": "{{ $.total | round: 2 }}",
        "shard": "{{ workflow.input.customer.id | shard }}",
        "subject": "Order {{ workflow.input.order_id }} for {{ workflow.input.customer.name }}",
        "lines": "{{ workflow.input.lines }}",
        "strict": true,
    }))
    .expect("compiles");
    c.bench_function("eval/parameters", |b| {
        b.iter(|| parameters.eval(black_box(&env)).expect("a value"));
    });
    c.bench_function("clone/lines, for scale", |b| {
        b.iter(|| black_box(&context)["workflow"]["input"]["lines"].clone());
    });
    let worst = Template::parse("{{ $ | sort | unique | length }}").expect("compiles");
    let numbers: Value = (0..40_000_u32).rev().collect();
    let env = Env {
        context: &numbers,
        ..env
    };
    c.bench_function("eval/near the step bound", |b| {
        b.iter(|| worst.eval(black_box(&env)).expect("within the bound"));
    });
}

criterion_group!(benches, expressions);
criterion_main!(benches);
