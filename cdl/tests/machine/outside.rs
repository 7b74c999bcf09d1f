//! `EventTask` and `HumanTask` states.

use cascade_cdl::limits::{ANSWERED_TASKS, MAX_INBOX_BYTES, MAX_SIGNALS, SEEN_SIGNALS};
use cascade_cdl::{AnswerRefused, EventKind, SignalRefused, Status};
use serde_json::json;

use crate::compile::compile;
use crate::transcript::{Run, check, json as text, signal};

const PAID: &str = r"
    states:
      - name: Paid
        type: EventTask
        event: paid
        timeout: 1h
        on_timeout: Remind
        result: $.payment
        next: Done
      - { name: Remind, type: Task, parameters: 1, next: Paid }
      - { name: Done, type: Succeed }
";

#[test]
fn a_signal_ends_the_wait_for_it_and_its_payload_is_the_output() {
    check(
        PAID,
        r#"
        start null
          enter Paid
          wait timeout at 3600000
        signal paid {"by":"card"}
          signal paid
          exit Paid {"by":"card"}
          enter Done
          exit Done null
          completed {"payment":{"by":"card"}}
        signal paid 2
          ignored: the execution has ended, or is about to
        at 3600000
        "#,
    );
}

#[test]
fn a_wait_that_takes_too_long_goes_where_on_timeout_leads() {
    check(
        PAID,
        r#"
        start null
          enter Paid
          wait timeout at 3600000
        at 3600000
          caught Paid TimeoutError, on to Remind
          enter Remind
          schedule Remind#1 1
        signal paid 1
          signal paid waits
        complete Remind#1 null
          exit Remind null
          enter Paid
          exit Paid 1
          enter Done
          exit Done null
          completed {"payment":1}
        "#,
    );
}

#[test]
fn without_on_timeout_it_is_an_error_that_a_catch_handles() {
    let file = r"
        states:
          - { name: A, type: EventTask, event: a, timeout: 1s, catch: [{ error: TimeoutError, next: B }], next: B }
          - { name: B, type: EventTask, event: b, timeout: 1s }
        ";
    check(
        file,
        r"
        start null
          enter A
          wait timeout at 1000
        at 1000
          caught A TimeoutError, on to B
          enter B
          wait timeout at 2000
        at 2000
          failed TimeoutError at B: no signal within the state's timeout of 1000 ms
        retry
          goes on
          enter B
          wait timeout at 3000
        signal b 1
          signal b
          exit B 1
          completed {}
        ",
    );
}

/// Two wait for one name, and one signal is too many.
#[test]
fn each_signal_is_taken_once_by_who_has_waited_longest() {
    check(
        r"
        states:
          - name: P
            type: Parallel
            branches:
              - { name: x, type: EventTask, event: go }
              - { name: y, type: EventTask, event: go }
            result: $.p
            next: Last
          - { name: Last, type: EventTask, event: stop, result: $.stop, next: Again }
          - { name: Again, type: EventTask, event: go, result: $.go }
        ",
        r#"
        start null
          enter P
          enter P/x/x
          enter P/y/y
        signal go 1
          signal go
          exit P/x/x 1
          branch P/x done, 1 open
        signal go 2
          signal go
          exit P/y/y 2
          branch P/y done, 0 open
          exit P {"x":1,"y":2}
          enter Last
        signal go 3
          signal go waits
        signal go 4
          signal go waits
        signal stop null
          signal stop
          exit Last null
          enter Again
          exit Again 3
          completed {"go":3,"p":{"x":1,"y":2},"stop":null}
        "#,
    );
}

#[test]
fn a_wait_is_dropped_with_its_branch_and_its_signal_kept_for_another() {
    check(
        r"
        states:
          - name: P
            type: Parallel
            completion_strategy: ANY
            branches:
              - { name: waits, type: EventTask, event: a, timeout: 1h }
              - { name: works, type: Task, parameters: 1 }
            next: Then
          - { name: Then, type: EventTask, event: a, result: $.a }
        ",
        r#"
        start null
          enter P
          enter P/waits/waits
          wait timeout at 3600000
          enter P/works/works
          schedule P/works/works#1 1
        complete works#1 1
          exit P/works/works 1
          branch P/works done, 1 open
          exit P {"works":1}
          enter Then
        signal a 5
          signal a
          exit Then 5
          completed {"a":5}
        "#,
    );
}

fn waiting() -> Run {
    let mut run = Run::new(compile(
        r"
        states:
          - { name: First, type: EventTask, event: first, next: Second }
          - { name: Second, type: EventTask, event: second, result: $.second }
        ",
    ));
    run.start(text("null"));
    run
}

/// What would become of a signal, asked as whoever records it has to.
fn asked(run: &Run, name: &str, payload: &str, id: Option<&str>) -> Result<(), SignalRefused> {
    let payload = text(payload);
    (run.execution).accepts_signal(&run.program, name, &payload, id)
}

#[test]
fn a_signal_that_comes_again_or_for_nobody_is_refused() {
    let mut run = waiting();
    assert_eq!(asked(&run, "third", "1", None), Err(SignalRefused::Unknown));
    let told = run.apply(signal("third", text("1"), None));
    assert_eq!(
        told,
        ["ignored: the workflow has no EventTask for this signal"]
    );

    run.apply(signal("second", text("1"), Some("a")));
    for (name, payload, refused) in [
        ("second", "1", SignalRefused::Repeated),
        ("second", "2", SignalRefused::Reused),
        ("first", "1", SignalRefused::Reused),
    ] {
        assert_eq!(asked(&run, name, payload, Some("a")), Err(refused));
        let told = run.apply(signal(name, text(payload), Some("a")));
        assert_eq!(told, [format!("ignored: {refused}")]);
    }
    // Without an id it may be meant twice.
    run.apply(signal("second", text("3"), None));
    run.apply(signal("first", text("null"), Some("b")));
    let Status::Completed { output } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    assert_eq!(output.to_value(), json!({"second": 1}));
    assert_eq!(asked(&run, "first", "1", None), Err(SignalRefused::Ended));
    // Who was not told in time still learns what became of it.
    assert_eq!(
        asked(&run, "first", "null", Some("b")),
        Err(SignalRefused::Repeated)
    );
    run.check_replay();
}

#[test]
fn the_inbox_is_bounded_in_number_and_bytes() {
    let mut run = waiting();
    for _ in 0..MAX_SIGNALS {
        assert_eq!(asked(&run, "second", "1", None), Ok(()));
        run.apply(signal("second", text("1"), None));
    }
    assert_eq!(
        asked(&run, "second", "1", None),
        Err(SignalRefused::InboxFull)
    );
    let told = run.apply(signal("second", text("1"), None));
    assert!(told[0].starts_with("ignored: too many signals"), "{told:?}");
    // Who is waited for needs no room.
    assert_eq!(asked(&run, "first", "1", None), Ok(()));

    let mut run = waiting();
    let half = "x".repeat(usize::try_from(MAX_INBOX_BYTES / 2).expect("small"));
    run.apply(signal("second", json!(half).into(), None));
    // Each with two quotes.
    let (more, less) = (json!(half), json!(half[4..]));
    assert_eq!(
        asked(&run, "second", &more.to_string(), None),
        Err(SignalRefused::InboxFull)
    );
    assert_eq!(asked(&run, "second", &less.to_string(), None), Ok(()));
}

#[test]
fn ids_of_signals_are_forgotten_in_the_end() {
    let mut run = Run::new(compile(
        "states: [{ name: A, type: EventTask, event: a, next: A }]",
    ));
    run.start(text("null"));
    for at in 0..=SEEN_SIGNALS {
        run.apply(signal("a", text("1"), Some(&format!("{at}"))));
    }
    assert_eq!(asked(&run, "a", "1", Some("0")), Ok(()));
    assert_eq!(
        asked(&run, "a", "1", Some("1")),
        Err(SignalRefused::Repeated)
    );
}

#[test]
fn what_nobody_took_is_dropped_at_the_end() {
    let mut run = waiting();
    run.apply(signal("second", text("[1,2]"), Some("a")));
    assert_eq!(run.execution.inbox.bytes, 5);
    run.apply(EventKind::CancelRequested {
        reason: String::new(),
    });
    let inbox = &run.execution.inbox;
    assert_eq!((inbox.signals.len(), inbox.bytes), (0, 0));
    // What it was is still known to who sent it.
    assert_eq!(
        asked(&run, "second", "[1,2]", Some("a")),
        Err(SignalRefused::Repeated)
    );
}

/// Answers are remembered, as many as there may be, and not one more.
#[test]
fn answers_are_forgotten_in_the_end() {
    let mut run = Run::new(compile(
        "states: [{ name: A, type: HumanTask, assignee: ann, next: A }]",
    ));
    run.start(text("null"));
    let mut tasks = Vec::new();
    for _ in 0..=ANSWERED_TASKS {
        let (_, asking, _) = (run.execution.asked(&run.program).next()).expect("somebody is asked");
        tasks.push(asking.task);
        run.apply(EventKind::HumanTaskCompleted {
            task: *tasks.last().expect("just put there"),
            output: text("1"),
            by: "ann".to_owned(),
        });
    }
    let again = |task| run.execution.accepts_answer(task, &text("1"), "ann");
    assert_eq!(again(tasks[0]), Err(AnswerRefused::NotAsked));
    for task in &tasks[1..] {
        assert_eq!(again(*task), Err(AnswerRefused::Repeated));
    }
    assert_eq!(run.execution.inbox.answered.len(), ANSWERED_TASKS);
}

const APPROVE: &str = r#"
    states:
      - name: Approve
        type: HumanTask
        assignee: "{{ workflow.input.clerk }}"
        parameters: { amount: "{{ workflow.input.amount }}" }
        ui: { schema: { type: object } }
        timeout: 3d
        escalate:
          - { after: 1d, assignee: boss }
          - { after: 2d, assignee: "{{ workflow.input.chief }}" }
        result: $.decision
"#;

#[test]
fn an_answer_ends_a_human_task_with_its_timers() {
    check(
        APPROVE,
        r#"
        start {"clerk":"bob","amount":7,"chief":"eve"}
          enter Approve
          wait timeout at 259200000
          ask bob for Approve
          escalation at 86400000
        answer Approve {"ok":true}
          ann answered Approve
          exit Approve {"ok":true}
          completed {"decision":{"ok":true}}
        answer Approve {"ok":false}
          ignored: nobody is asked for this any more
        at 259200000
        "#,
    );
}

#[test]
fn an_answer_that_comes_again_is_known_and_another_is_late() {
    let mut run = Run::new(compile(APPROVE));
    run.start(text(r#"{"clerk":"bob","amount":7,"chief":"eve"}"#));
    let asked: Vec<_> = (run.execution.asked(&run.program))
        .map(|(_, asking, human)| {
            (
                asking.task,
                asking.assignee.as_str(),
                human.schema.is_some(),
            )
        })
        .collect();
    let [(task, "bob", true)] = asked[..] else {
        panic!("{asked:?}");
    };
    let yes = text(r#"{"ok":true}"#);
    assert_eq!(run.execution.accepts_answer(task, &yes, "ann"), Ok(()));
    run.apply(EventKind::HumanTaskCompleted {
        task,
        output: yes.clone(),
        by: "ann".to_owned(),
    });
    // The execution has ended by it.
    let again = |output: &str, by| run.execution.accepts_answer(task, &text(output), by);
    assert_eq!(again(r#"{"ok":true}"#, "ann"), Err(AnswerRefused::Repeated));
    assert_eq!(again(r#"{"ok":true}"#, "bob"), Err(AnswerRefused::NotAsked));
    assert_eq!(
        again(r#"{"ok":false}"#, "ann"),
        Err(AnswerRefused::NotAsked)
    );
    run.check_replay();
}

#[test]
fn others_are_asked_in_turn_until_the_timeout() {
    check(
        APPROVE,
        r#"
        start {"clerk":"bob","amount":7,"chief":"eve"}
          enter Approve
          wait timeout at 259200000
          ask bob for Approve
          escalation at 86400000
        at 86400000
          ask boss for Approve
          escalation at 172800000
        at 172800000
          ask eve for Approve
        at 259200000
          failed TimeoutError at Approve: no answer within the state's timeout of 259200000 ms
        "#,
    );
}

#[test]
fn who_is_asked_and_what_they_are_shown_is_in_the_frame() {
    let mut run = Run::new(compile(APPROVE));
    run.start(text(r#"{"clerk":"bob","amount":7,"chief":"eve"}"#));
    let frame = run.execution.frames.values().next().expect("one");
    let cascade_cdl::Step::Asking(asking) = &frame.step else {
        panic!("{:?}", frame.step);
    };
    assert_eq!(asking.assignee, "bob");
    assert_eq!(asking.input.to_value(), json!({"amount": 7}));
}

#[test]
fn an_assignee_that_is_nobody_fails_the_state() {
    for input in [r#"{"clerk":" "}"#, "{}"] {
        let mut run = Run::new(compile(
            "states: [{ name: A, type: HumanTask, assignee: '{{ workflow.input.clerk }}' }]",
        ));
        run.start(text(input));
        let Status::Failed { failure } = &run.execution.status else {
            panic!("{:?}", run.execution.status);
        };
        assert_eq!(failure.error, "ExpressionError");
    }
    // So does one who is to be asked later; the timeout goes with it.
    let mut run = Run::new(compile(APPROVE));
    run.start(text(r#"{"clerk":"bob","amount":7}"#));
    run.pass_time(172_800_000);
    run.fire_due_timers();
    assert!(matches!(run.execution.status, Status::Running));
    run.fire_due_timers();
    let Status::Failed { failure } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    assert_eq!(failure.error, "ExpressionError");
    run.check_replay();
}

/// The longest address of an e-mail has 254 bytes.
#[test]
fn a_name_of_somebody_to_ask_is_bounded() {
    for (length, fits) in [(254, true), (255, false)] {
        let mut run = Run::new(compile(
            "states: [{ name: A, type: HumanTask, assignee: '{{ workflow.input }}' }]",
        ));
        run.start(json!("x".repeat(length)).into());
        let runs = run.execution.status == Status::Running;
        assert_eq!(runs, fits, "{length}");
    }
}

#[test]
fn a_task_that_waits_is_the_same_by_another_name() {
    check(
        r"
        states:
          - { name: A, type: Task, resource: 'urn:cascade:waitFor:event', event: go, next: B }
          - { name: B, type: Task, resource: 'urn:cascade:waitFor:human', assignee: ann }
        ",
        r"
        start null
          enter A
        signal go 1
          signal go
          exit A 1
          enter B
          ask ann for B
        cancel enough
          cancelled: enough
        ",
    );
}
