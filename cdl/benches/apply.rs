//! What one event costs the machine.
//!
//! Figures are for whole executions from their start to their end, to be
//! divided by the number of events: one step has 2, ten steps have 11, ten
//! branches have 11. The execution that each begins with is made outside of the
//! measurement, programs are compiled once.
//!
//! `order` is the order example of the repository: each of its events by itself.
//! At the median one may take 5 µs.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use cascade_cdl::program::Program;
use cascade_cdl::{
    ActivityFailure, Event, EventKind, Execution, ExecutionId, Json, Receipt, Source, TaskId,
    TenantId, Timestamp, Transition, apply, parse,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

/// About a kilobyte, as inputs go.
fn input() -> Json {
    let item = |n| json!({"sku": format!("sku-{n}"), "quantity": n, "price": 9.99});
    let items: Vec<_> = (0..20).map(item).collect();
    json!({"order_id": "o-1", "customer": "cust-1", "items": items}).into()
}

fn compile(states: &Value) -> Arc<Program> {
    let file = json!({"workflows": {"bench": {"states": states}}}).to_string();
    let parsed = parse(&Source {
        name: "bench.yaml",
        bytes: file.as_bytes(),
    });
    let application = parsed.application.expect("the program compiles");
    application.workflows["bench"].clone()
}

fn task(name: &str) -> Value {
    json!({
        "name": name, "type": "Task", "resource": "urn:cascade:activity:echo", "end": true,
        "parameters": {"order": "{{ workflow.input.order_id }}", "strict": true},
    })
}

fn chain(length: usize) -> Arc<Program> {
    let mut states: Vec<_> = (0..length)
        .map(|at| {
            let mut state = task(&format!("S{at}"));
            state["result"] = json!(format!("$.s{at}"));
            state
        })
        .collect();
    for at in 1..length {
        let previous = states[at - 1].as_object_mut().expect("a state");
        previous.remove("end");
        previous.insert("next".to_owned(), json!(format!("S{at}")));
    }
    compile(&json!(states))
}

fn parallel(width: usize) -> Arc<Program> {
    let branches: Vec<_> = (0..width).map(|at| task(&format!("b{at}"))).collect();
    compile(&json!([{
        "name": "P", "type": "Parallel", "branches": branches, "result": "$.all", "end": true,
    }]))
}

fn new_execution() -> Execution {
    let id: ExecutionId = "0190163d-8694-739b-aea5-966c26f8ad91"
        .parse()
        .expect("a UUID");
    let tenant: TenantId = "acme".parse().expect("a tenant");
    Execution::new(id, tenant)
}

fn step(program: &Program, execution: Execution, kind: EventKind) -> Transition {
    let event = Event {
        seq: execution.version + 1,
        at: Timestamp(1_769_851_800_000),
        kind,
    };
    apply(program, execution, &event).expect("the event can follow")
}

fn start(program: &Program, execution: Execution, input: &Json) -> Execution {
    let started = EventKind::ExecutionStarted {
        input: input.clone(),
        shards: 10,
        machine: cascade_cdl::SEMANTICS,
        parent: None,
        schedule: None,
        shard_key: None,
        priority: None,
        labels: BTreeMap::new(),
    };
    step(program, execution, started).execution
}

fn complete(program: &Program, execution: Execution, output: &Json) -> Execution {
    let mut tasks = execution.pending_tasks(program);
    let task = tasks.pop().expect("an outstanding task");
    step(program, execution, completed(task.task, output)).execution
}

fn completed(task: TaskId, output: &Json) -> EventKind {
    EventKind::ActivityCompleted {
        task,
        attempt: 1,
        output: output.clone(),
        receipt: Receipt::default(),
    }
}

fn run(program: &Program, input: &Json, output: &Json) -> Execution {
    let mut execution = start(program, new_execution(), input);
    while !execution.is_closed() {
        execution = complete(program, execution, output);
    }
    execution
}

fn bench(criterion: &mut Criterion) {
    let (input, output) = (input(), Json::from_value(&json!({"ok": true, "id": "r-1"})));
    let one = chain(1);
    let mut group = criterion.benchmark_group("apply");
    group.bench_function("start of one step", |bencher| {
        bencher.iter_batched(
            new_execution,
            |execution| start(&one, execution, &input),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("completion of one step", |bencher| {
        bencher.iter_batched(
            || start(&one, new_execution(), &input),
            |execution| complete(&one, execution, &output),
            BatchSize::SmallInput,
        );
    });
    for (name, program, events) in [
        ("ten steps", chain(10), 11),
        ("ten branches", parallel(10), 11),
    ] {
        group.throughput(Throughput::Elements(events));
        group.bench_function(name, |bencher| {
            bencher.iter(|| run(&program, black_box(&input), &output));
        });
    }
    group.finish();
}

/// What happens to an order: all goes well, at the second try of the warehouse.
const ORDER: [(&str, &str, &str); 6] = [
    ("start", "", ""),
    (
        "ValidateOrder",
        "completed",
        r#"{"order_id":"o-1","items":[{"sku":"tea","quantity":2,"unit_cents":450,"total_cents":900}],"total_cents":900}"#,
    ),
    ("ReserveStock", "failed", ""),
    (
        "ReserveStock",
        "completed",
        r#"{"reservation_id":"r-1","order_id":"o-1","items":1}"#,
    ),
    (
        "ChargeCard",
        "completed",
        r#"{"payment_id":"p-1","amount_cents":900,"approved":true}"#,
    ),
    ("ShipOrder", "completed", r#"{"tracking_number":"t-1"}"#),
];

const ORDER_INPUT: &str = r#"{"order_id":"o-1","country":"DE","card":{"limit_cents":100000},"items":[{"sku":"tea","quantity":2,"unit_cents":450}]}"#;

/// The events of an order one after another, each with what it comes upon.
fn order(program: &Program) -> Vec<(String, Execution, Event)> {
    let mut execution = new_execution();
    let mut events = Vec::new();
    let mut at = Timestamp(1_769_851_800_000);
    let mut apply_one = |name: &str, execution: Execution, at: Timestamp, kind: EventKind| {
        let event = Event {
            seq: execution.version + 1,
            at,
            kind,
        };
        let name = format!("{} {name}", event.seq);
        let after = apply(program, execution.clone(), &event).expect("the event can follow");
        events.push((name, execution, event));
        after.execution
    };
    for (name, what, output) in ORDER {
        let task = execution.pending_tasks(program).pop();
        let key = task.map(|task| (task.task, task.attempt));
        let (task, attempt) = key.unwrap_or((TaskId(0), 0));
        let kind = match what {
            "completed" => EventKind::ActivityCompleted {
                task,
                attempt,
                output: Json::parse(output.to_owned()).expect("JSON"),
                receipt: Receipt::default(),
            },
            "failed" => EventKind::ActivityFailed {
                task,
                attempt,
                failure: ActivityFailure {
                    error: "ServiceUnavailable".to_owned(),
                    message: "the warehouse is closed".to_owned(),
                    retryable: None,
                    details: None,
                },
                receipt: None,
            },
            _ => EventKind::ExecutionStarted {
                input: Json::parse(ORDER_INPUT.to_owned()).expect("JSON"),
                shards: 10,
                machine: cascade_cdl::SEMANTICS,
                parent: None,
                schedule: None,
                shard_key: None,
                priority: None,
                labels: BTreeMap::new(),
            },
        };
        execution = apply_one(name, execution, at, kind);
        if what == "failed" {
            at = execution.wake_at().expect("another try");
            let timer = execution.due_timers(at)[0];
            execution = apply_one("timer", execution, at, EventKind::TimerFired { timer });
        }
    }
    assert!(execution.is_closed(), "an order that does not end");
    events
}

fn bench_order(criterion: &mut Criterion) {
    let file = include_bytes!("../../examples/order-processing/order.yaml");
    let parsed = parse(&Source {
        name: "order.yaml",
        bytes: file,
    });
    let application = parsed.application.expect("the example compiles");
    let program = application.workflows["process_order"].clone();
    let mut group = criterion.benchmark_group("order");
    for (name, before, event) in order(&program) {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || before.clone(),
                |execution| apply(&program, execution, &event).expect("the event can follow"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench, bench_order);
criterion_main!(benches);
