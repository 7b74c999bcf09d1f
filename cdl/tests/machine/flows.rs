//! States, data and time, without failures.

use cascade_cdl::Status;

use crate::compile::compile;
use crate::transcript::{Run, check, json};

#[test]
fn a_task_without_parameters_gets_the_context_and_its_result_is_the_output() {
    check(
        "states: [{ name: Greet, type: Task, result: $.greeting }]",
        r#"
        start {"who":"Ada"}
          enter Greet
          schedule Greet#1 {"workflow":{"execution_id":"0190163d-8694-739b-aea5-966c26f8ad91","input":{"who":"Ada"},"started_at":"2026-01-31T09:30:00.000Z","tenant":"acme"}}
        complete Greet#1 "hello Ada"
          exit Greet "hello Ada"
          completed {"greeting":"hello Ada"}
        "#,
    );
}

#[test]
fn results_accumulate_in_the_context_and_outputs_without_a_path_do_not() {
    check(
        r#"
        states:
          - { name: A, type: Task, parameters: { n: "{{ workflow.input.n }}" }, result: $.a.first, next: B }
          - { name: B, type: Task, parameters: "{{ $.a.first }}", next: C }
          - { name: C, type: Task, parameters: { both: "{{ $.a }}" }, result: $.a.second }
        "#,
        r#"
        start {"n":1}
          enter A
          schedule A#1 {"n":1}
        complete A#1 {"x":[1,2]}
          exit A {"x":[1,2]}
          enter B
          schedule B#1 {"x":[1,2]}
        complete B#1 "gone"
          exit B "gone"
          enter C
          schedule C#1 {"both":{"first":{"x":[1,2]}}}
        complete C#1 3
          exit C 3
          completed {"a":{"first":{"x":[1,2]},"second":3}}
        "#,
    );
}

#[test]
fn the_output_is_the_template_unless_a_succeed_state_says_otherwise() {
    let workflow = r#"
        output: { sum: "{{ $.sum }}" }
        states:
          - { name: Add, type: Pass, parameters: "{{ workflow.input.a + 1 }}", result: $.sum, next: Which }
          - { name: Which, type: Choice, choices: [{ condition: "{{ $.sum > 10 }}", next: Big }], default: Small }
          - { name: Big, type: Succeed, output: "{{ 'big' }}" }
          - { name: Small, type: Succeed }
    "#;
    check(
        workflow,
        r#"
        start {"a":10}
          enter Add
          exit Add 11
          enter Which
          exit Which null
          enter Big
          exit Big "big"
          completed "big"
        "#,
    );
    check(
        workflow,
        r#"
        start {"a":1}
          enter Add
          exit Add 2
          enter Which
          exit Which null
          enter Small
          exit Small null
          completed {"sum":2}
        "#,
    );
}

#[test]
fn a_choice_takes_the_first_way_that_holds() {
    check(
        r#"
        states:
          - name: Which
            type: Choice
            choices:
              - { condition: "{{ workflow.input > 100 }}", next: Large }
              - { condition: "{{ workflow.input > 10 }}", next: Medium }
          - { name: Large, type: Succeed }
          - { name: Medium, type: Succeed }
        "#,
        r"
        start 50
          enter Which
          exit Which null
          enter Medium
          exit Medium null
          completed {}
        ",
    );
}

#[test]
fn a_wait_ends_after_its_duration_and_not_before() {
    check(
        r#"
        states:
          - { name: Text, type: Wait, duration: 1m30s, next: Seconds }
          - { name: Seconds, type: Wait, duration: "{{ 0.25 }}", next: Until }
          - { name: Until, type: Wait, until: "2026-01-31T10:31:40+01:00", next: Past }
          - { name: Past, type: Wait, until: "1969-12-31T00:00:00Z" }
        "#,
        r"
        start null
          enter Text
          timer at 90000
        at 89999
        at 90000
          exit Text null
          enter Seconds
          timer at 90250
        again
          ignored: this timer is not set, or not yet due
        at 95000
          exit Seconds null
          enter Until
          timer at 100000
        at 100000
          exit Until null
          enter Past
          exit Past null
          completed {}
        ",
    );
}

#[test]
fn a_wait_lasts_ten_years_at_most() {
    for (seconds, status) in [("315360000", None), ("315360001", Some("ExpressionError"))] {
        let mut run = Run::new(compile(&format!(
            "states: [{{ name: W, type: Wait, duration: '{{{{ {seconds} }}}}' }}]"
        )));
        run.start(json("null"));
        let error = match &run.execution.status {
            Status::Failed { failure } => Some(failure.error.as_str()),
            _ => None,
        };
        assert_eq!(error, status, "{seconds}");
    }
}

#[test]
fn a_wait_for_what_is_no_time_fails() {
    for (wait, found) in [
        (
            "duration: \"{{ 'soon' }}\"",
            "`soon`, not a duration as in 1h30m, or a number of seconds",
        ),
        (
            "duration: \"{{ true }}\"",
            "a boolean, not a duration as in 1h30m, or a number of seconds",
        ),
        (
            "duration: \"{{ -1 }}\"",
            "a number, not a duration as in 1h30m, or a number of seconds",
        ),
        (
            "duration: \"{{ 1e300 }}\"",
            "a number, not a duration as in 1h30m, or a number of seconds",
        ),
        (
            "until: \"{{ 'tomorrow' }}\"",
            "`tomorrow`, not an RFC 3339 time as in 2026-01-31T09:30:00Z",
        ),
        (
            "until: \"{{ 5 }}\"",
            "a number, not an RFC 3339 time as in 2026-01-31T09:30:00Z",
        ),
    ] {
        check(
            &format!("states: [{{ name: W, type: Wait, {wait} }}]"),
            &format!("start 1\n  enter W\n  failed ExpressionError at W: the wait is {found}"),
        );
    }
    check(
        "states: [{ name: W, type: Wait, until: \"9999-01-01T00:00:00Z\" }]",
        "start 1\n  enter W\n  failed ExpressionError at W: the wait would last until 9999-01-01T00:00:00.000Z: over ten years",
    );
}

#[test]
fn an_output_that_arrives_twice_or_for_another_attempt_changes_nothing() {
    check(
        r"
        states:
          - { name: A, type: Task, parameters: 1, next: B }
          - { name: B, type: Task, parameters: 2 }
        ",
        r"
        start null
          enter A
          schedule A#1 1
        complete A#2 null
          ignored: the outcome of this attempt is not awaited
        complete A#1 null
          exit A null
          enter B
          schedule B#1 2
        again
          ignored: the outcome of this attempt is not awaited
        fail A#1 Late
          ignored: the outcome of this attempt is not awaited
        complete B#1 null
          exit B null
          completed {}
        again
          ignored: the outcome of this attempt is not awaited
        ",
    );
}

#[test]
fn uuids_differ_between_states_and_attempts_keep_their_input() {
    use crate::compile::compile;
    use crate::transcript::{Run, completed, failed, json};
    let mut run = Run::new(compile(
        r#"
        states:
          - { name: A, type: Task, parameters: "{{ null | uuid }}", next: B }
          - { name: B, type: Task, parameters: "{{ null | uuid }}" }
        "#,
    ));
    run.start(json("null"));
    let first = run.only_task();
    run.apply(failed(first.task, 1, "NetworkError", None));
    run.pass_time(1_000);
    run.fire_due_timers();
    let second = run.only_task();
    assert_eq!((second.attempt, &second.input), (2, &first.input));
    run.apply(completed(second.task, 2, json("null")));
    let other = run.only_task();
    assert_ne!(other.task, first.task);
    assert_ne!(other.input, first.input);
    run.check_replay();
}
