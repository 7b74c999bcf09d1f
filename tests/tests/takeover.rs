//! One round of the measurement; many are `cargo run -p cascade-tests --bin takeover`.

use std::time::Duration;

use cascade_tests::binary;
use cascade_tests::takeover::{self, Change, Pause, Plan};

/// How long leases last. On a machine that does other things only this is sure: a shard of
/// a server that died waits for them, and one that is handed over does not.
const LEASE: Duration = Duration::from_secs(2);

/// What is left of one that is renewed four times before it ends, and somewhat less: the last
/// renewal may have taken a while.
const LEFT: Duration = Duration::from_secs(1);

#[test]
fn shards_of_a_server_that_died_wait_for_their_leases_and_others_do_not() {
    let plan = Plan {
        rounds: 1,
        nodes: 3,
        clients: 1,
        every: Duration::from_millis(50),
    };
    let report = takeover::run(binary(), plan, |_, seen| println!("{seen}"));
    println!("{report}");
    let pauses = |change| report.pauses(change).collect::<Vec<&Pause>>();
    for (change, least) in [
        (Change::Nothing, 16),
        (Change::Killed, 5),
        (Change::Stopped, 5),
        (Change::Came, 10),
    ] {
        assert!(pauses(change).len() >= least, "{change:?}: {report}");
    }
    for pause in pauses(Change::Killed) {
        assert!(pause.silence >= LEFT, "{pause:?}: {report}");
        assert!(pause.latest_step >= LEFT, "{pause:?}: {report}");
    }
    for pause in pauses(Change::Stopped) {
        assert!(pause.silence < LEASE, "{pause:?}: {report}");
        assert!(pause.latest_step < LEASE, "{pause:?}: {report}");
    }
}
