//! Short campaigns; the long ones are `cargo run -p cascade-tests --bin chaos`.

use std::time::Duration;

use cascade_tests::binary;
use cascade_tests::chaos::{self, Plan, Siege};

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

/// The long one is `cargo run -p cascade-tests --bin chaos -- --nodes 3 --minutes 30`.
#[test]
fn nothing_is_lost_or_done_twice_when_servers_die_stall_and_leave_under_load() {
    let siege = Siege {
        seed: 20_261_127,
        nodes: 3,
        clients: 16,
        time: Duration::from_secs(30),
    };
    let outcome = siege.run(binary());
    println!("{outcome}");
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(outcome.kills > 0, "{outcome}");
    for fault in ["a server stood still", "a server was told to stop"] {
        assert!(
            outcome.faults.contains_key(fault),
            "never: {fault}: {outcome}"
        );
    }
    for (workflow, count) in &outcome.executions {
        assert!(*count > 0, "no {workflow} was tried: {outcome}");
    }
    assert!(outcome.broken > 0, "no request met a fault: {outcome}");
    assert!(outcome.epochs > 16, "no shard moved: {outcome}");
}
