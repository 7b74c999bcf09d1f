//! A short campaign; the long one is `cargo run -p cascade-tests --bin chaos`.

use cascade_tests::binary;
use cascade_tests::chaos::{self, Plan};

/// Enough to be killed in recovery, too. A failure prints the seed: run the
/// command with it and more kills.
#[test]
fn nothing_is_lost_or_done_twice_when_the_server_is_killed_under_load() {
    let plan = Plan {
        seed: 20_261_122,
        kills: 10,
        clients: 16,
    };
    let outcome = chaos::run(binary(), plan);
    println!("{outcome}");
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(outcome.kills >= plan.kills, "{outcome}");
    for (workflow, count) in &outcome.executions {
        assert!(*count > 0, "no {workflow} was tried: {outcome}");
    }
    assert!(outcome.broken > 0, "no request met a kill: {outcome}");
}
