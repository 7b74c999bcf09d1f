//! Determinism, the log's limit, and inputs of all kinds.

use std::sync::Arc;

use cascade_runtime::sandbox::{Limits, LogLevel};
use proptest::prelude::*;

use super::support::{Bed, Lines, SCHEDULED_AT_MS, block_on, failure, fixture, invocation, output};

#[test]
fn a_pure_activity_repeats_to_the_byte_and_to_the_unit_of_fuel() {
    block_on(async {
        let bed = Bed::shared();
        for (fixture, input) in [
            ("echo", "[1,2]"),
            ("command_clock", "{}"),
            ("loop", "{}"),
            ("log_flood", "{}"),
        ] {
            let first = bed.run(fixture, input).await;
            let second = bed.run(fixture, input).await;
            assert_eq!(first.result, second.result, "{fixture}");
            assert_eq!(first.receipt.fuel, second.receipt.fuel, "{fixture}");
            assert_eq!(first.memory_peak, second.memory_peak, "{fixture}");
        }
    });
}

#[test]
fn wasi_time_is_virtual_and_its_randomness_follows_from_the_task() {
    block_on(async {
        let bed = Bed::shared();
        let read = |text: &str| -> Vec<u64> { serde_json::from_str(text).expect("three numbers") };
        let outcome = bed.run("command_clock", "{}").await;
        let [before, after, random] = read(output(&outcome))[..] else {
            panic!("three numbers");
        };
        let start = SCHEDULED_AT_MS * 1_000_000;
        let (hour, second) = (3_600_000_000_000, 1_000_000_000);
        assert!(
            before >= start && before < start + second,
            "starts when scheduled: {before}"
        );
        assert!(
            after - before >= hour && after - before < hour + second,
            "slept an hour at once: {after}"
        );

        let other = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.context.idempotency_key = "order-7:Refund".into();
        };
        let outcome = bed.run_with("command_clock", "{}", other).await;
        assert_ne!(
            read(output(&outcome))[2],
            random,
            "another task, other numbers"
        );
    });
}

#[test]
fn a_log_is_cut_at_its_limit_with_a_mark() {
    block_on(async {
        let bed = Bed::shared();
        let lines = Arc::new(Lines::default());
        let watch = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.log = Arc::clone(&lines) as _;
        };
        let outcome = bed.run_with("log_some", "{}", watch).await;
        assert_eq!(output(&outcome), "null", "a full log is no failure");
        assert!(outcome.log_truncated);
        assert!(outcome.log_bytes <= 8 << 10, "{}", outcome.log_bytes);
        let lines = lines.all();
        assert_eq!(
            lines.len(),
            7,
            "six lines of 1,024 bytes and 200 each fit into 8 KiB, the seventh is cut"
        );
        let (_, last) = lines.last().expect("seven lines");
        assert!(
            last.contains("[truncated") && last.contains("log_bytes"),
            "{last}"
        );
    });
}

#[test]
fn log_lines_keep_their_level_and_stderr_is_logged() {
    block_on(async {
        let bed = Bed::shared();
        for (fixture, input, expected) in [
            ("log_line", r#""héllo""#, (LogLevel::Warn, r#""héllo""#)),
            ("command", "1", (LogLevel::Warn, "working")),
            ("command_fails", "1", (LogLevel::Warn, "disk on fire")), // no line break at its end
        ] {
            let lines = Arc::new(Lines::default());
            let watch = |invocation: &mut cascade_runtime::sandbox::Invocation| {
                invocation.log = Arc::clone(&lines) as _;
            };
            bed.run_with(fixture, input, watch).await;
            assert_eq!(
                lines.all(),
                [(expected.0, expected.1.to_owned())],
                "{fixture}"
            );
        }
    });
}

#[test]
fn empty_lines_are_paid_for_and_end_with_the_log() {
    block_on(async {
        let lines = Arc::new(Lines::default());
        let watch = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.log = Arc::clone(&lines) as _;
        };
        let outcome = Bed::shared().run_with("log_empty", "{}", watch).await;
        assert_eq!(output(&outcome), "1");
        assert!(outcome.log_truncated);
        let lines = lines.all().len() as u64;
        assert_eq!(lines, 41, "8 KiB at 200 bytes a line, and the mark");
        let fuel = outcome.receipt.fuel;
        assert!(fuel > lines * 5_000, "{fuel} fuel for {lines} lines");
    });
}

#[test]
fn a_line_cannot_pass_for_another_one() {
    block_on(async {
        let lines = Arc::new(Lines::default());
        let watch = |invocation: &mut cascade_runtime::sandbox::Invocation| {
            invocation.log = Arc::clone(&lines) as _;
        };
        let outcome = Bed::shared().run_with("log_breaks", "{}", watch).await;
        assert_eq!(output(&outcome), "null");
        let expected = "one\\r\\ntwo\u{fffd}[2J\t\u{fffd}three";
        assert_eq!(lines.all(), [(LogLevel::Info, expected.to_owned())]);
    });
}

#[test]
fn limits_only_ever_lower() {
    let tenant = Limits {
        fuel_per_attempt: 10,
        memory_bytes: 20,
        ..Limits::default()
    };
    let activity = Limits {
        fuel_per_attempt: 5,
        memory_bytes: 50,
        ..Limits::default()
    };
    let both = tenant.min(activity);
    assert_eq!((both.fuel_per_attempt, both.memory_bytes), (5, 20));
}

proptest! {
    // Each case is one attempt, some hundred microseconds in a debug build.
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the input, it comes back or a named failure does.
    #[test]
    fn any_input_echoes_or_fails_by_name(text in any::<String>(), depth in 0_usize..300) {
        let quoted = serde_json::to_string(&text).expect("a string is JSON");
        let input = format!("{}{quoted}{}", "[".repeat(depth), "]".repeat(depth));
        block_on(async {
            let bed = Bed::shared();
            let info = bed.admit(fixture("echo")).await;
            let outcome = bed.sandbox.run(invocation(&info.digest, &input)).await;
            if depth <= 100 {
                prop_assert_eq!(output(&outcome), input);
            } else {
                prop_assert_eq!(failure(&outcome).error.as_str(), "InvalidOutput");
            }
            Ok(())
        })?;
    }
}
