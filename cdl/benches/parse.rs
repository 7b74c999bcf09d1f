//! Time to read a file of 200 states, as `cascade apply` and recovery do.

use std::fmt::Write as _;
use std::hint::black_box;

use cascade_cdl::{Source, parse};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A chain of Tasks in which every tenth state is a Choice and every
/// twentieth a Parallel of two branches.
fn generated(states: usize) -> String {
    let mut text = String::from(
        "apiVersion: cascade.io/v1\nkind: Application\nmetadata:\n  name: generated\nspec:\n  \
         workflows:\n    main:\n      timeout: 24h\n      states:\n",
    );
    let mut written = 0;
    while written < states {
        let next = written + 1;
        let state = match written {
            n if n % 20 == 19 => format!(
                "        - name: S{n}\n          type: Parallel\n          branches:\n            \
                 - {{name: left, type: Task, resource: \"urn:cascade:activity:a\", result: $.l{n}}}\n            \
                 - {{name: right, type: Pass, parameters: {{x: \"{{{{ $.r{n} }}}}\"}}}}\n          next: S{next}\n"
            ),
            n if n % 10 == 9 => format!(
                "        - name: S{n}\n          type: Choice\n          choices:\n            \
                 - condition: \"{{{{ $.r{n}.total > 100 && $.tier == 'gold' }}}}\"\n              next: S{next}\n          \
                 default: S{next}\n"
            ),
            n => format!(
                "        - name: S{n}\n          type: Task\n          resource: urn:cascade:activity:step_{n}\n          \
                 parameters:\n            order_id: \"{{{{ workflow.input.order_id }}}}\"\n            \
                 strict: true\n          result: $.r{n}\n          timeout: 30s\n          \
                 retries: {{max_attempts: 3, backoff: {{initial_interval: 1s, jitter: full}}}}\n          \
                 catch: [{{error: \"*\", result: $.error, next: End}}]\n          next: S{next}\n"
            ),
        };
        text.push_str(&state);
        written += 1;
    }
    let _ = write!(
        text,
        "        - {{name: S{written}, type: Succeed}}\n        - {{name: End, type: Fail, error: Failed}}\n"
    );
    text
}

fn bench(criterion: &mut Criterion) {
    let text = generated(200);
    let source = Source {
        name: "generated.yaml",
        bytes: text.as_bytes(),
    };
    let parsed = parse(&source);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("200 states", |b| b.iter(|| parse(black_box(&source))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
