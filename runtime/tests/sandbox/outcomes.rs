//! Every way an attempt can end has its name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_runtime::sandbox::failure::{
    ACTIVITY_FAILED, ACTIVITY_NOT_FOUND, CANCELLED, CPU_TIME_EXCEEDED, FUEL_EXHAUSTED, HOST_PANIC,
    INVALID_INPUT, INVALID_OUTPUT, MEMORY_EXCEEDED, OUTPUT_TOO_LARGE, TIMEOUT, TRAP,
};
use cascade_runtime::sandbox::{Cancel, Capability, Grants};

use super::support::{
    Bed, block_on, failure, fixture, invocation, output, small_limits, tenant, with_elements,
    with_nested,
};

#[test]
fn what_returns_returns() {
    block_on(async {
        let bed = Bed::shared();
        for (fixture, input, expected) in [
            ("noop", "{}", "null"),
            ("echo", r#"{"a": [1, "ü"]}"#, r#"{"a": [1, "ü"]}"#),
            // The id of the attempt's execution, number 7.
            (
                "execution_id",
                "1",
                r#""00000000-0000-0000-0000-000000000007""#,
            ),
            ("command", r#"{"stdin": true}"#, r#"{"stdin": true}"#),
        ] {
            let outcome = bed.run(fixture, input).await;
            assert_eq!(output(&outcome), expected, "{fixture}");
            let receipt = &outcome.receipt;
            assert!(receipt.pure, "{fixture} imports no capability");
            assert!(
                receipt.fuel > 0 && receipt.fuel < 1_000_000,
                "{fixture} used {}",
                receipt.fuel
            );
            assert_eq!(
                receipt.fuel_limit,
                small_limits().fuel_per_attempt,
                "{fixture}"
            );
            assert!(
                outcome.memory_peak >= 65_536,
                "{fixture} has a page of memory at least"
            );
        }
    });
}

#[test]
fn every_limit_and_mistake_has_its_name() {
    block_on(async {
        let bed = Bed::shared();
        // The message names the limit's value and the key that raises it, or the mistake.
        for (fixture, error, says) in [
            (
                "loop",
                FUEL_EXHAUSTED,
                "200000000 fuel; raise `tenants[].limits.fuel_per_attempt`",
            ),
            ("start_loop", FUEL_EXHAUSTED, "fuel_per_attempt"),
            ("beat_flood", FUEL_EXHAUSTED, "fuel_per_attempt"),
            ("log_flood", FUEL_EXHAUSTED, "fuel_per_attempt"),
            ("recursion", TRAP, "endless recursion"),
            (
                "memory_bomb",
                MEMORY_EXCEEDED,
                "its limit is 16777216; raise `tenants[].limits.memory_bytes`",
            ),
            (
                "table_bomb",
                MEMORY_EXCEEDED,
                "the limit is 100000 and fixed",
            ),
            ("unreachable", TRAP, "unreachable"),
            ("divide", TRAP, "divide by zero"),
            ("out_of_bounds", TRAP, "out of bounds"),
            (
                "huge_output",
                OUTPUT_TOO_LARGE,
                "larger than 1048576 bytes; raise `tenants[].limits.output_bytes`",
            ),
            ("gigantic_output", MEMORY_EXCEEDED, "memory_bytes"),
            ("invalid_utf8", INVALID_OUTPUT, "not UTF-8"),
            ("invalid_json", INVALID_OUTPUT, "not JSON"),
            (
                "deep_json",
                INVALID_OUTPUT,
                "1000 levels deep, the limit is 100",
            ),
            ("bad_pointer", TRAP, "out of bounds"),
            ("log_invalid", INVALID_OUTPUT, "not UTF-8"),
            (
                "command_panics",
                TRAP,
                "unreachable` instruction executed; stderr: boom at 1:2!",
            ),
        ] {
            let outcome = bed.run(fixture, "{}").await;
            let failure = failure(&outcome);
            assert_eq!(failure.error, error, "{fixture}: {}", failure.message);
            assert!(
                failure.message.contains(says),
                "{fixture}: {}",
                failure.message
            );
            assert_eq!(
                failure.retryable,
                Some(false),
                "{fixture} is pure and would repeat"
            );
        }
    });
}

#[test]
fn an_output_beyond_what_the_host_copies_is_too_large() {
    block_on(async {
        let raise = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.limits.memory_bytes = 256 << 20; // so that memory is not the limit
        };
        let outcome = Bed::shared().run_with("gigantic_output", "{}", raise).await;
        assert_eq!(failure(&outcome).error, OUTPUT_TOO_LARGE);
    });
}

#[test]
fn an_activity_reports_errors_of_its_own() {
    block_on(async {
        let bed = Bed::shared();
        // The preview-1 adapter makes 1 of every exit code but 0.
        for (fixture, error, message, retryable) in [
            ("declined", "PaymentDeclined", "no credit", Some(true)),
            ("command_reports", "OutOfStock", "none left", Some(false)),
            (
                "command_fails",
                ACTIVITY_FAILED,
                "the command exited with code 1: disk on fire",
                None,
            ),
        ] {
            let outcome = bed.run(fixture, "{}").await;
            let failure = failure(&outcome);
            assert_eq!(failure.error, error, "{fixture}");
            assert_eq!(failure.message, message, "{fixture}");
            assert_eq!(failure.retryable, retryable, "{fixture}");
        }
    });
}

#[test]
fn an_input_beyond_its_limit_does_not_run() {
    block_on(async {
        let shrink = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.limits.input_bytes = 9;
        };
        let outcome = Bed::shared().run_with("echo", "1234567890", shrink).await;
        assert_eq!(failure(&outcome).error, INVALID_INPUT);
        assert_eq!(outcome.receipt.fuel, 0, "nothing ran");
    });
}

#[test]
fn an_unknown_module_is_not_found() {
    block_on(async {
        let outcome = Bed::shared()
            .sandbox
            .run(invocation(&"0".repeat(64), "{}"))
            .await;
        assert_eq!(failure(&outcome).error, ACTIVITY_NOT_FOUND);
    });
}

#[test]
fn a_deadline_ends_a_loop_and_its_fuel_is_known() {
    block_on(async {
        let started = Instant::now();
        let change = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.limits.fuel_per_attempt = u64::MAX / 2;
            invocation.deadline = Some(Instant::now() + Duration::from_millis(100));
        };
        let outcome = Bed::shared().run_with("loop", "{}", change).await;
        let failure = failure(&outcome);
        assert_eq!(failure.error, TIMEOUT, "{}", failure.message);
        assert_eq!(failure.retryable, None, "another machine may be faster");
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "the loop went on"
        );
        // 100 ms of a core are many slices of a million, however slow the machine.
        assert!(
            outcome.receipt.fuel >= 1_000_000,
            "{} fuel",
            outcome.receipt.fuel
        );
    });
}

#[test]
fn silence_and_cancellation_end_an_attempt() {
    block_on(async {
        let bed = Bed::shared();
        let change = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.limits.fuel_per_attempt = u64::MAX / 2;
            invocation.heartbeat_timeout = Some(Duration::from_millis(50));
        };
        let outcome = bed.run_with("loop", "{}", change).await;
        assert_eq!(failure(&outcome).error, TIMEOUT);
        assert!(failure(&outcome).message.contains("no heartbeat for 50 ms"));

        let cancel = Cancel::default();
        let info = bed.admit(fixture("loop")).await;
        let mut endless = invocation(&info.digest, "{}");
        endless.limits.fuel_per_attempt = u64::MAX / 2;
        endless.cancel = Some(cancel.clone());
        let stop = async {
            tokio::task::yield_now().await; // the loop runs first, and gives way
            cancel.cancel();
        };
        let (outcome, ()) = tokio::join!(bed.sandbox.run(endless), stop);
        assert_eq!(failure(&outcome).error, CANCELLED);
    });
}

#[test]
fn a_heart_that_beats_is_not_silent() {
    block_on(async {
        // Beats until its fuel ends, for longer than the allowed silence.
        let change = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.limits.fuel_per_attempt = 2_000_000_000;
            invocation.heartbeat_timeout = Some(Duration::from_secs(20));
        };
        let outcome = Bed::shared().run_with("beat_flood", "{}", change).await;
        assert_eq!(failure(&outcome).error, FUEL_EXHAUSTED);
    });
}

#[test]
fn a_panic_of_the_host_costs_one_attempt() {
    block_on(async {
        let bed = Bed::shared();
        let grant = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.grants = Grants {
                capabilities: [Capability::KeyValue].into(),
                ..Grants::default()
            }
            .into();
        };
        // More often than there are slots: a slot that was lost would be missed.
        for _ in 0..20 {
            let outcome = bed.run_with("key_value", "\"panic\"", grant).await;
            let failure = failure(&outcome);
            assert_eq!(failure.error, HOST_PANIC);
            assert!(
                failure.message.contains("the store broke"),
                "{}",
                failure.message
            );
        }
        let outcome = bed.run_with("key_value", "\"fine\"", grant).await;
        assert_eq!(output(&outcome), "\"fine\"");
    });
}

#[test]
fn a_quick_attempt_does_not_wait_for_a_loop_on_its_thread() {
    block_on(async {
        let bed = Bed::shared();
        let info = bed.admit(fixture("loop")).await;
        let quick = bed.admit(fixture("echo")).await;
        let cancel = Cancel::default();
        let mut endless = invocation(&info.digest, "{}");
        endless.limits.fuel_per_attempt = u64::MAX / 2;
        endless.cancel = Some(cancel.clone());
        let quick = async {
            let outcome = bed.sandbox.run(invocation(&quick.digest, "1")).await;
            cancel.cancel(); // only this ends the loop
            outcome
        };
        // `join!` polls the loop first, on this one thread.
        let (endless, quick) = tokio::join!(bed.sandbox.run(endless), quick);
        assert_eq!(output(&quick), "1");
        assert_eq!(failure(&endless).error, CANCELLED);
    });
}

#[test]
fn more_attempts_than_slots_wait_for_their_turn() {
    block_on(async {
        let bed = Bed::shared();
        let info = bed.admit(fixture("echo")).await;
        // Three times the slots of the pool, none of which may see it exhausted.
        let attempts = (0..48).map(|n| bed.sandbox.run(invocation(&info.digest, &n.to_string())));
        for (n, outcome) in futures::future::join_all(attempts).await.iter().enumerate() {
            assert_eq!(output(outcome), n.to_string());
        }
    });
}

#[test]
fn another_tenant_does_not_find_a_module() {
    block_on(async {
        let bed = Bed::shared();
        let info = bed.admit(fixture("echo")).await;
        let mut foreign = invocation(&info.digest, "1");
        foreign.tenant = "other".parse().expect("a valid tenant");
        assert_ne!(foreign.tenant, tenant());
        assert_eq!(
            failure(&bed.sandbox.run(foreign).await).error,
            ACTIVITY_NOT_FOUND
        );
    });
}

#[test]
fn attempts_that_together_take_more_than_the_pool_has_wait_for_each_other() {
    block_on(async {
        let bed = Bed::shared();
        // Fifteen memories of the pool's sixteen, all but one in a component
        // that appears once and is instantiated fourteen times.
        let info = bed.admit(with_nested("loop", "nested_memory", 14)).await;
        let small = bed.admit(fixture("loop")).await;
        let digests = [&info.digest, &small.digest, &info.digest, &small.digest];
        let attempts = digests.map(|digest| bed.sandbox.run(invocation(digest, "{}")));
        for outcome in futures::future::join_all(attempts).await {
            let failure = failure(&outcome);
            assert_eq!(failure.error, FUEL_EXHAUSTED, "{}", failure.message);
        }
    });
}

#[test]
fn work_that_takes_much_time_and_little_fuel_is_stopped() {
    block_on(async {
        // Stands for what the host does for a guest and fuel does not show.
        let work = || {
            let began = Instant::now();
            while began.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
        };
        let change = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.heartbeat = Some(Arc::new(work));
        };
        let outcome = Bed::shared().run_with("beat_flood", "{}", change).await;
        let failure = failure(&outcome);
        assert_eq!(failure.error, CPU_TIME_EXCEEDED, "{}", failure.message);
        assert_eq!(failure.retryable, None, "another machine may be faster");
        assert!(
            outcome.cost() > outcome.receipt.fuel,
            "the tenant pays for the time"
        );
    });
}

#[test]
fn passive_element_segments_count_as_memory() {
    block_on(async {
        let bed = Bed::shared();
        let wasm = with_elements(20_000);
        let info = bed.admit(wasm).await;
        let outcome = bed.sandbox.run(invocation(&info.digest, "{}")).await;
        assert_eq!(output(&outcome), "null");
        assert_eq!(
            outcome.memory_peak,
            2 * 65_536 + 8 + 20_000 * 16,
            "two pages, a table of one, and the segment"
        );
        let mut small = invocation(&info.digest, "{}");
        small.limits.memory_bytes = 400_000;
        let outcome = bed.sandbox.run(small).await;
        assert_eq!(failure(&outcome).error, MEMORY_EXCEEDED);
    });
}

#[test]
fn details_of_an_error_are_held_to_the_limit_of_outputs() {
    block_on(async {
        let bed = Bed::shared();
        let outcome = bed.run("details", "{}").await;
        let details = failure(&outcome).details.as_ref().expect("they fit");
        assert_eq!(details.len(), 100_000);
        let shrink = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.limits.output_bytes = 99_999;
        };
        let outcome = bed.run_with("details", "{}", shrink).await;
        let failure = failure(&outcome);
        assert_eq!(failure.error, "Detailed");
        assert_eq!(failure.details, None);
        assert_eq!(
            failure.message,
            "Detailed [details dropped: they have 100000 bytes, more than output_bytes, 99999]"
        );
    });
}
