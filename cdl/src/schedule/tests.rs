//! Times from data, and properties over random schedules and moments.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::due::count;
use super::*;
use crate::{Parsed, Source};

fn at(text: &str) -> Timestamp {
    let parsed: jiff::Timestamp = text.parse().expect("RFC 3339");
    Timestamp(u64::try_from(parsed.as_millisecond()).expect("after 1970"))
}

fn parse(schedule: &str) -> Parsed {
    let text = format!(
        "workflows: {{w: {{states: [{{name: A, type: Pass, end: true}}]}}}}\n\
         schedules: [{{name: s, workflow: w, {schedule}}}]"
    );
    crate::parse(&Source {
        name: "app.yaml",
        bytes: text.as_bytes(),
    })
}

fn schedule(text: &str) -> Schedule {
    let parsed = parse(text);
    let application = parsed.application;
    let application = application.unwrap_or_else(|| panic!("{text}: {:?}", parsed.diagnostics));
    Schedule::clone(&application.schedules["s"])
}

fn key() -> Key {
    Key {
        tenant: "acme".parse().expect("valid"),
        application: "app".into(),
        name: "s".into(),
    }
}

/// The next times after a moment, as UTC without seconds.
#[track_caller]
fn next(text: &str, after: &str, expected: &[&str]) {
    let timing = schedule(text).timing;
    let mut found = Vec::new();
    let mut from = at(after);
    while found.len() < expected.len() {
        let Some(time) = timing.next(from) else { break };
        found.push(time.to_string().replace(":00.000Z", "Z"));
        from = time;
    }
    assert_eq!(found, expected, "{text} after {after}");
}

#[test]
fn the_next_times_are_those_of_the_calendar() {
    next(
        "cron: '0 9 * * MON-FRI'",
        "2026-11-27T08:59:59.999Z",
        &[
            "2026-11-27T09:00Z",
            "2026-11-30T09:00Z",
            "2026-12-01T09:00Z",
        ],
    );
    // Of day and weekday either will do, as in a crontab.
    next(
        "cron: '0 0 13 * FRI'",
        "2026-11-01T00:00:00Z",
        &[
            "2026-11-06T00:00Z",
            "2026-11-13T00:00Z",
            "2026-11-20T00:00Z",
        ],
    );
    next(
        "cron: ['@daily', '30 12 L * *']",
        "2026-11-30T00:00:00Z",
        &["2026-11-30T12:30Z", "2026-12-01T00:00Z"],
    );
    next(
        "cron: '0 0 29 2 *'",
        "2026-01-01T00:00:00Z",
        &["2028-02-29T00:00Z", "2032-02-29T00:00Z"],
    );
    next(
        "interval: 15m",
        "2026-11-27T08:59:59Z",
        &["2026-11-27T09:00Z", "2026-11-27T09:15Z"],
    );
    next(
        "interval: 1d, offset: 6h",
        "2026-11-27T06:00:00Z",
        &["2026-11-28T06:00Z"],
    );
}

#[test]
fn a_schedule_has_a_first_and_a_last_time() {
    next(
        "interval: 1h, start_at: 2026-11-27T09:00:00Z, end_at: '2026-11-27T11:00:00Z'",
        "2020-01-01T00:00:00Z",
        &[
            "2026-11-27T09:00Z",
            "2026-11-27T10:00Z",
            "2026-11-27T11:00Z",
        ],
    );
    let timing = schedule("interval: 1h, end_at: '2026-11-27T11:00:00Z'").timing;
    assert_eq!(timing.next(at("2026-11-27T11:00:00Z")), None);
}

/// In Berlin 02:00 to 03:00 does not come on 29 March 2026, and comes twice on 25 October.
#[test]
fn what_is_fixed_is_due_once_where_clocks_are_put_forward_and_back() {
    for cron in ["30 2 * * *", "15,30 2 * * *"] {
        let text =
            format!("cron: '{cron}', timezone: Europe/Berlin, start_at: 2026-03-28T12:00:00Z");
        // When the clocks go to 03:00, once for both.
        next(&text, "2026-03-28T12:00:00Z", &["2026-03-29T01:00Z"]);
    }
    next(
        "cron: '30 2,14 * * *', timezone: Europe/Berlin",
        "2026-03-28T12:00:00Z",
        &[
            "2026-03-28T13:30Z",
            "2026-03-29T01:00Z",
            "2026-03-29T12:30Z",
            "2026-03-30T00:30Z",
        ],
    );
    next(
        "cron: '30 2,14 * * *', timezone: Europe/Berlin",
        "2026-10-24T22:00:00Z",
        &[
            "2026-10-25T00:30Z",
            "2026-10-25T13:30Z",
            "2026-10-26T01:30Z",
        ],
    );
    // From within the second 02:15.
    next(
        "cron: '30 2 * * *', timezone: Europe/Berlin",
        "2026-10-25T01:15:00Z",
        &["2026-10-26T01:30Z"],
    );
    next(
        "cron: '0 9 * * *', timezone: America/New_York",
        "2026-03-07T15:00:00Z",
        &["2026-03-08T13:00Z", "2026-03-09T13:00Z"],
    );
    // Half an hour forward, and a whole day that never was.
    next(
        "cron: '15 2 * * *', timezone: Australia/Lord_Howe",
        "2026-10-02T16:00:00Z",
        &["2026-10-03T15:30Z", "2026-10-04T15:15Z"],
    );
    next(
        "cron: '0 12 * * *', timezone: Pacific/Apia",
        "2011-12-29T00:00:00Z",
        &[
            "2011-12-29T22:00Z",
            "2011-12-30T10:00Z",
            "2011-12-30T22:00Z",
        ],
    );
}

#[test]
fn a_rhythm_keeps_to_what_clocks_show() {
    next(
        "cron: '*/30 * * * *', timezone: Europe/Berlin",
        "2026-03-29T00:15:00Z",
        &[
            "2026-03-29T00:30Z",
            "2026-03-29T01:00Z",
            "2026-03-29T01:30Z",
        ],
    );
    next(
        "cron: '30 * * * *', timezone: Europe/Berlin",
        "2026-10-24T23:45:00Z",
        &[
            "2026-10-25T00:30Z",
            "2026-10-25T01:30Z",
            "2026-10-25T02:30Z",
        ],
    );
    next(
        "cron: '*/20 2 * * *', timezone: Europe/Berlin",
        "2026-03-28T12:00:00Z",
        &["2026-03-30T00:00Z", "2026-03-30T00:20Z"],
    );
    next(
        "cron: '*/30 2 * * *', timezone: Europe/Berlin",
        "2026-10-25T00:10:00Z",
        &[
            "2026-10-25T00:30Z",
            "2026-10-25T01:00Z",
            "2026-10-25T01:30Z",
            "2026-10-26T01:00Z",
        ],
    );
    // Far behind many changes of the clocks.
    next(
        "cron: '* 2 29 2 *', timezone: Europe/Berlin",
        "2025-01-01T00:00:00Z",
        &["2028-02-29T01:00Z", "2028-02-29T01:01Z"],
    );
}

#[test]
fn jitter_delays_by_less_than_it_says_and_never_past_the_next_time() {
    let timing = schedule("interval: 1m, jitter: 1h").timing;
    let mut time = at("2026-11-27T00:00:00Z");
    let mut delays = BTreeSet::new();
    for _ in 0..100 {
        let acts = timing.acts_at("s", time);
        assert_eq!(
            acts,
            timing.acts_at("s", time),
            "it is chance, but always the same"
        );
        delays.insert(acts.since(time));
        assert!(acts >= time && acts.since(time) < 60_000);
        time = timing.next(time).expect("goes on");
    }
    assert!(delays.len() > 50, "{delays:?}");
}

#[test]
fn what_was_missed_is_made_up_for_by_the_policy() {
    let position = at("2026-11-27T00:00:00Z");
    let now = at("2026-11-27T10:30:00Z");
    for (catch_up, times, missed) in [
        ("none", &[][..], 10),
        ("last", &["10"], 9),
        ("{policy: last, window: 20m}", &[], 10),
        ("{policy: all, window: 150m}", &["08", "09", "10"], 7),
        ("{window: 150m}", &["08", "09", "10"], 7),
        (
            "{policy: all, window: 365d}",
            &["01", "02", "03", "04", "05", "06", "07", "08", "09", "10"],
            0,
        ),
    ] {
        let schedule = schedule(&format!("interval: 1h, catch_up: {catch_up}"));
        let due = schedule.due("s", position, now);
        let hours: Vec<String> = due
            .times
            .iter()
            .map(|at| at.to_string()[11..13].to_owned())
            .collect();
        assert_eq!(hours, times, "{catch_up}");
        assert_eq!(
            due.missed.map_or(0, |missed| missed.count),
            missed,
            "{catch_up}"
        );
    }
    // A time that comes while the server starts is on time.
    let schedule = schedule("interval: 1h, catch_up: none");
    let due = schedule.due("s", position, at("2026-11-27T10:00:09Z"));
    assert_eq!(due.times, [at("2026-11-27T10:00:00Z")]);
}

#[test]
fn years_of_missed_times_take_no_years_to_count() {
    let schedule = schedule("interval: 1s, catch_up: {policy: all, window: 365d}");
    let now = at("2026-11-27T00:00:00Z");
    let due = schedule.due("s", at("2006-11-27T00:00:00Z"), now);
    assert!((MAX_CATCH_UP / 2..=MAX_CATCH_UP).contains(&due.times.len()));
    assert_eq!(due.times.last(), Some(&now));
    let missed = due.missed.expect("most of them");
    assert_eq!((missed.count, missed.more), (MAX_COUNTED, true));
    assert_eq!(missed.until, Timestamp(due.times[0].0 - 1));
}

fn texts() -> impl Strategy<Value = String> {
    let zones = prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/Sao_Paulo",
        "Asia/Kathmandu",
        "Africa/Casablanca",
    ]);
    let minute = prop::sample::select(vec!["*", "0", "*/7", "30", "5,45", "10-20"]);
    let hour = prop::sample::select(vec!["*", "2", "*/5", "1,2,3", "0", "23", "9-17"]);
    let days = prop::sample::select(vec![
        "* * *", "1 * *", "* * SUN", "L * *", "13 * FRI", "* 3,10 *",
    ]);
    let cron = (minute, hour, days, zones).prop_map(|(minute, hour, days, zone)| {
        format!("cron: '{minute} {hour} {days}', timezone: {zone}")
    });
    let interval = (1..100_000_u64, 0..1_000_u64).prop_map(|(every, offset)| {
        let offset = offset % every;
        match offset {
            0 => format!("interval: {every}s"),
            _ => format!("interval: {every}s, offset: {offset}s"),
        }
    });
    let jitter = prop::sample::select(vec!["", ", jitter: 30s", ", jitter: 6h"]);
    let catch_up = prop::sample::select(vec![
        "none",
        "last",
        "{policy: last, window: 2h}",
        "{window: 5m}",
        "{window: 40d}",
    ]);
    (prop_oneof![cron, interval], jitter, catch_up)
        .prop_map(|(when, jitter, catch_up)| format!("{when}{jitter}, catch_up: {catch_up}"))
}

/// Moments in order, from one day of 2026 on.
fn moments() -> impl Strategy<Value = Vec<Timestamp>> {
    let steps = prop::collection::vec(
        prop_oneof![1..20_000_u64, 1..10_000_000_u64, 1..900_000_000_u64],
        1..12,
    );
    (0..30_000_000_000_u64, steps).prop_map(|(first, steps)| {
        let start = at("2025-06-01T00:00:00Z").plus(first);
        let mut moments = vec![start];
        for step in steps {
            moments.push(moments[moments.len() - 1].plus(step));
        }
        moments
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 2_000 }))]

    #[test]
    fn times_come_in_order_and_none_lies_in_between(text in texts(), moments in moments()) {
        let timing = schedule(&text).timing;
        let (first, last) = (moments[0], moments[moments.len() - 1]);
        if let Some(next) = timing.next(first) {
            prop_assert!(next > first);
            // From any moment before it, it is the next.
            for part in 0..8 {
                let between = Timestamp(first.0 + (next.0 - first.0 - 1) * part / 7);
                prop_assert_eq!(timing.next(between), Some(next), "{} from {}", text, between);
            }
            prop_assert!(timing.next(last).is_none_or(|later| later > last));
        }
    }

    #[test]
    fn no_time_is_lost_and_none_comes_twice(text in texts(), moments in moments()) {
        let schedule = schedule(&text);
        let start = moments[0];
        let mut position = start;
        let (mut decided, mut passed) = (Vec::new(), 0_u64);
        let mut uncounted = false;
        for now in &moments[1..] {
            let due = schedule.due("s", position, *now);
            prop_assert!(due.position >= position);
            prop_assert!(due.times.len() <= MAX_CATCH_UP);
            for time in &due.times {
                prop_assert!(schedule.timing.acts_at("s", *time) <= *now, "{} is early", time);
                prop_assert!(*time > position, "{} again", time);
            }
            if let Some(missed) = due.missed {
                prop_assert!(missed.first > position && missed.until <= due.position);
                prop_assert!(due.times.iter().all(|time| *time > missed.until));
                passed += u64::from(missed.count);
                uncounted |= missed.more;
            }
            decided.extend(due.times);
            position = due.position;
            // Whatever is after the position is not to be acted upon yet.
            if let Some(next) = schedule.timing.next(position) {
                prop_assert!(schedule.timing.acts_at("s", next) > *now, "{} is late at {}", next, now);
            }
        }
        prop_assert!(decided.windows(2).all(|pair| pair[0] < pair[1]));
        let all = count(&schedule.timing, start, position);
        let all = all.map_or((0, false), |all| (u64::from(all.count), all.more));
        if !uncounted && !all.1 {
            prop_assert_eq!(all.0, decided.len() as u64 + passed);
        }
    }

    #[test]
    fn no_text_makes_reading_a_cron_expression_panic(text in ".{0,40}|[-0-9*/,LW#?+A-Z @]{1,40}") {
        if let Ok(cron) = Cron::parse(&text) {
            cron.comes();
        } else if let Err(error) = Cron::parse(&text) {
            prop_assert!(text.get(error.offset..error.offset + error.len).is_some());
        }
    }

    /// Lets things happen to a state in any order, each start told of or lost in a crash.
    #[test]
    fn a_state_stays_bounded_and_starts_each_time_once(
        overlap in prop::sample::select(Overlap::WORDS.to_vec()),
        steps in prop::collection::vec((0..9_u8, 0..4_u64), 1..120),
    ) {
        let schedule = schedule(&format!("interval: 10s, overlap: {overlap}, catch_up: {{window: 1h}}"));
        let key = key();
        let mut now = at("2026-11-27T00:00:00Z");
        let mut state = State::new(&schedule, now);
        let mut started: BTreeSet<ExecutionId> = BTreeSet::new();
        for (number, (step, size)) in steps.into_iter().enumerate() {
            match step {
                0..=3 => {
                    now = now.plus(3_000 + 40_000 * size * size);
                    state.pass(&key, &schedule, now);
                }
                4 => {
                    let id = key.triggered(&number.to_string());
                    let _ = state.trigger(&key, &schedule, now, id, None);
                }
                5 => {
                    let range = (Timestamp(now.0 - 100_000 * size), now);
                    let _ = state.backfill(&key, &schedule, now, range, None);
                }
                6 => state.pause(now, String::new()),
                7 => state.resume(&schedule, now),
                // A crash: what was to be done is to be done again.
                _ => {
                    let text = serde_json::to_string(&state).expect("plain");
                    let read: State = serde_json::from_str(&text).expect("reads back");
                    prop_assert_eq!(&read, &state);
                    state = read;
                }
            }
            for waiting in state.starting.clone() {
                if size != 1 {
                    let id = waiting.execution(&key);
                    let again = !started.insert(id) && waiting.cause == Cause::Time;
                    prop_assert!(!again, "{} starts twice", waiting.at);
                    state.started(&key, id, now);
                }
            }
            if size == 2 && let Some(open) = state.open.first().copied() {
                state.ended(open.id);
            }
            prop_assert!(state.waiting.len() + state.starting.len() <= MAX_WAITING);
            prop_assert!(state.open.len() <= MAX_OPEN && state.recent.len() <= MAX_RECENT);
            let busy = !state.open.is_empty() || !state.starting.is_empty();
            prop_assert!(busy || state.waiting.is_empty(), "nothing will start what waits");
            let ids: BTreeSet<_> = state.open.iter().map(|open| open.id).collect();
            prop_assert_eq!(ids.len(), state.open.len());
            if overlap != "allow" {
                prop_assert!(state.open.len() + state.starting.len() <= 1);
            }
        }
        prop_assert!(serde_json::to_string(&state).expect("plain").len() < 64 << 10);
    }
}

#[test]
fn each_policy_deals_with_a_time_that_comes_while_another_runs() {
    for (overlap, starts, waits, cancels, skipped) in [
        ("skip", 1, 0, false, 3),
        ("buffer_one", 1, 1, false, 2),
        ("buffer_all", 1, 3, false, 0),
        ("cancel_other", 1, 1, true, 2),
        ("allow", 4, 0, false, 0),
    ] {
        let schedule = schedule(&format!("interval: 10s, overlap: {overlap}"));
        let key = key();
        let mut now = at("2026-11-27T00:00:00Z");
        let mut state = State::new(&schedule, now);
        let mut started = 0;
        let mut start = |state: &mut State, now| {
            for waiting in state.starting.clone() {
                state.started(&key, waiting.execution(&key), now);
                started += 1;
            }
            started
        };
        for _ in 0..4 {
            now = now.plus(10_000);
            state.pass(&key, &schedule, now);
            start(&mut state, now);
        }
        let count = |record: &Record| match &record.outcome {
            Outcome::Skipped { count, .. } => *count,
            _ => 0,
        };
        let passed: u32 = state.recent.iter().map(count).sum();
        let found = (
            start(&mut state, now),
            state.waiting.len(),
            state.cancels(),
            passed,
        );
        assert_eq!(found, (starts, waits, cancels, skipped), "{overlap}");
        // The end of what runs starts what waits.
        while let Some(open) = state.open.first().copied() {
            state.ended(open.id);
            start(&mut state, now);
        }
        let started = start(&mut state, now);
        assert_eq!(
            (started, state.waiting.len()),
            (starts + waits, 0),
            "{overlap}"
        );
    }
}

#[test]
fn a_paused_schedule_passes_its_times_over_and_takes_orders() {
    let schedule = schedule("interval: 10s, paused: true");
    let (key, now) = (key(), at("2026-11-27T00:00:00Z"));
    let mut state = State::new(&schedule, now);
    assert_eq!(state.wake_at(&key, &schedule), None);
    let now = now.plus(100_000);
    state.pass(&key, &schedule, now);
    assert_eq!(state.starting, []);
    let id = key.triggered("by hand");
    assert_eq!(state.trigger(&key, &schedule, now, id, None), Ok(()));
    assert_eq!(state.starting[0].execution(&key), id);
    state.resume(&schedule, now);
    let record = state.recent.back().expect("a record");
    let Outcome::Skipped {
        why: Skip::Paused,
        count: 10,
        ..
    } = record.outcome
    else {
        panic!("{record:?}");
    };
    assert_eq!(state.wake_at(&key, &schedule), Some(now.plus(10_000)));
    // The file still says that it is paused, which is no news.
    state.replace(&schedule, now);
    assert_eq!(state.paused, None);
}

#[test]
fn another_timing_begins_when_it_is_in_force() {
    let weekly = schedule("interval: 7d");
    let hourly = schedule("interval: 1h, catch_up: {window: 30d}");
    let (key, now) = (key(), at("2026-11-27T00:30:00Z"));
    let mut state = State::new(&weekly, Timestamp(now.0 - 86_400_000));
    state.replace(&hourly, now);
    state.pass(&key, &hourly, now.plus(1_000));
    assert_eq!(state.starting, []);
    assert_eq!(
        state.wake_at(&key, &hourly),
        Some(at("2026-11-27T01:00:00Z"))
    );
}

#[test]
fn a_backfill_has_bounds() {
    let schedule = schedule("interval: 1h");
    let (key, now) = (key(), at("2026-11-27T00:30:00Z"));
    let mut state = State::new(&schedule, now);
    let mut fill = |from: &str, until: &str| {
        let range = (at(from), at(until));
        state.backfill(&key, &schedule, now, range, None)
    };
    assert_eq!(fill("2026-11-26T00:00:00Z", "2026-11-26T10:00:00Z"), Ok(11));
    let backwards = fill("2026-11-26T01:00:00Z", "2026-11-26T00:00:00Z");
    assert_eq!(backwards, Err(BackfillError::Backwards));
    let future = fill("2026-11-26T00:00:00Z", "2026-11-28T00:00:00Z");
    assert_eq!(future, Err(BackfillError::Future));
    let long = fill("2026-01-01T00:00:00Z", "2026-11-26T00:00:00Z");
    assert_eq!(
        long,
        Err(BackfillError::TooMany {
            room: MAX_WAITING - 11
        })
    );
}

#[test]
fn the_input_knows_the_time_that_it_is_about() {
    let schedule = schedule(
        "interval: 1h, input: {day: '{{ schedule.at | date: \"%Y-%m-%d\" }}', by: '{{ schedule.name }}', n: 1}",
    );
    let time = at("2026-11-27T01:00:00Z");
    let input = schedule
        .input(time, key().execution(time))
        .expect("has a value");
    assert_eq!(
        input.to_value(),
        json!({"day": "2026-11-27", "by": "s", "n": 1})
    );
}

#[test]
fn each_time_and_each_order_names_an_execution_of_its_own() {
    let one = key();
    let other = Key {
        name: "t".into(),
        ..one.clone()
    };
    let ids = [
        one.execution(Timestamp(1)),
        one.execution(Timestamp(2)),
        other.execution(Timestamp(1)),
        one.triggered("1"),
        one.triggered(""),
    ];
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(ids[0], key().execution(Timestamp(1)));
}
