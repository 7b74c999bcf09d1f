//! `.waitForTaskToken`, event by event. Expected values: the documentation of the
//! callback pattern, and what `docs/asl.md` says.

use cascade_cdl::asl::{Binding, Bindings, Envelope};
use cascade_cdl::limits::ANSWERED_TASKS;
use cascade_cdl::program::Resource;
use cascade_cdl::{AslOptions, Callback, CallbackRefused, TaskToken};

use crate::compile::compile_asl;
use crate::transcript::{Run, called_back, check_program, completed, json};

/// A task that is told its outcome within a minute, or goes on every ten seconds.
const CALLED: &str = r#"{"StartAt": "Send", "States": {
    "Send": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
             "Parameters": {"FunctionName": "f", "Payload": {"order.$": "$.order"}},
             "TimeoutSeconds": 60, "HeartbeatSeconds": 10,
             "Retry": [{"ErrorEquals": ["Again"], "IntervalSeconds": 2, "MaxAttempts": 1}],
             "Catch": [{"ErrorEquals": ["States.HeartbeatTimeout"], "Next": "Lost"}],
             "Next": "Sent"},
    "Sent": {"Type": "Succeed"},
    "Lost": {"Type": "Fail", "Error": "Lost"}}}"#;

/// One whose activity is given the token itself.
const TOKEN: &str = r#"{"StartAt": "Send", "States": {"Send": {
    "Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
    "Parameters": {"MessageBody.$": "$$.Task.Token"},
    "Retry": [{"ErrorEquals": ["Again"], "MaxAttempts": 1}], "End": true}}}"#;

fn options() -> AslOptions {
    let binding = |pattern: &str, envelope| Binding {
        pattern: pattern.to_owned(),
        activity: Resource {
            name: "sender".into(),
            version: None,
            region: None,
            child: None,
        },
        envelope,
    };
    AslOptions {
        bindings: Bindings {
            entries: vec![
                binding("f", Envelope::LambdaInvoke),
                binding("arn:aws:states:::sqs:*", Envelope::None),
            ],
        },
        ..AslOptions::default()
    }
}

fn check(transcript: &str) {
    check_program(compile_asl(CALLED, &options()), transcript);
}

#[test]
fn what_is_told_is_the_result_and_not_what_the_activity_gave() {
    check(
        r#"
        start {"order":7}
          enter Send
          schedule Send#1 {"order":7}
          timeout at 60000
        at 4000
        complete Send#1 {"MessageId":"m"}
          heartbeat at 14000
          call Send#1
        succeed Send#1 {"shipped":true}
          told Send#1
          exit Send {"shipped":true}
          enter Sent
          exit Sent {"shipped":true}
          completed {"shipped":true}
        again
          ignored: nobody waits for the outcome of this task any more
        "#,
    );
}

#[test]
fn whoever_gets_the_token_may_be_faster_than_who_gave_it() {
    check(
        r#"
        start {"order":7}
          enter Send
          schedule Send#1 {"order":7}
          timeout at 60000
        beat Send#1
          ignored: the activity still runs, and has a heartbeat of its own
        succeed Send#1 1
          cancel Send#1
          told Send#1
          exit Send 1
          enter Sent
          exit Sent 1
          completed 1
        complete Send#1 {}
          ignored: the outcome of this attempt is not awaited
        "#,
    );
}

#[test]
fn a_failure_that_is_told_goes_through_retry_and_each_try_has_its_own_outcome() {
    check(
        r#"
        start {"order":7}
          enter Send
          schedule Send#1 {"order":7}
          timeout at 60000
        complete Send#1 {}
          heartbeat at 10000
          call Send#1
        refuse Send#1 Again
          told Send#1
          retry Send#2 at 2000 after Again
          timer at 2000
        at 2000
          schedule Send#2 {"order":7}
          timeout at 62000
        complete Send#2 {}
          heartbeat at 12000
          call Send#2
        succeed Send#1 1
          ignored: nobody waits for the outcome of this task any more
        refuse Send#2 Other
          told Send#2
          failed Other at Send: told
        "#,
    );
}

#[test]
fn a_heartbeat_moves_the_end_of_silence_and_not_the_timeout() {
    check(
        r#"
        start {"order":7}
          enter Send
          schedule Send#1 {"order":7}
          timeout at 60000
        complete Send#1 {}
          heartbeat at 10000
          call Send#1
        at 9000
        beat Send#1
          heartbeat at 19000
        at 19000
          caught Send States.HeartbeatTimeout, on to Lost
          enter Lost
          failed Lost at Lost: 
        "#,
    );
}

#[test]
fn the_timeout_runs_from_the_scheduling_to_the_outcome() {
    let quiet = CALLED.replace(r#", "HeartbeatSeconds": 10"#, "");
    check_program(
        compile_asl(&quiet, &options()),
        r#"
        start {"order":7}
          enter Send
          schedule Send#1 {"order":7}
          timeout at 60000
        at 59000
        complete Send#1 {}
          call Send#1
        beat Send#1
          ignored: the task needs no heartbeat now
        at 60000
          failed States.Timeout at Send: 
        succeed Send#1 1
          ignored: nobody waits for the outcome of this task any more
        "#,
    );
}

#[test]
fn a_token_names_one_try_and_reads_back() {
    let mut run = Run::new(compile_asl(TOKEN, &options()));
    run.start(json("{}"));
    let token = |run: &Run| {
        let input = run.only_task().input.to_value();
        let text = input["MessageBody"].as_str().expect("a token").to_owned();
        text.parse::<TaskToken>().expect("reads back")
    };
    let first = token(&run);
    assert_eq!(first.execution, run.execution.id);
    assert_eq!((first.task, first.attempt), (run.only_task().task, 1));
    run.apply(completed(first.task, 1, json("{}")));
    let failed = |error: &str| Callback::Failed {
        error: error.to_owned(),
        cause: String::new(),
    };
    run.apply(called_back(first.task, 1, failed("Again")));
    run.pass_time(1_000);
    run.fire_due_timers();
    assert_eq!(token(&run).attempt, 2);
    for bad in [
        "",
        "x:1:1",
        "1:2",
        &format!("{first}:1"),
        &format!("{}:x:1", first.execution),
    ] {
        assert!(bad.parse::<TaskToken>().is_err(), "{bad}");
    }
}

#[test]
fn the_same_outcome_again_is_the_same_and_another_comes_too_late() {
    let mut run = Run::new(compile_asl(TOKEN, &options()));
    run.start(json("{}"));
    let task = run.only_task().task;
    run.apply(completed(task, 1, json("{}")));
    let told = |output: &str| Callback::Succeeded {
        output: json(output),
    };
    let accepts = |run: &Run, attempt: u32, callback: &Callback| {
        let (execution, now) = (&run.execution, run.now());
        execution.accepts_callback(&run.program, task, attempt, callback, now)
    };
    assert_eq!(accepts(&run, 1, &told("1")), Ok(()));
    let other_try = accepts(&run, 2, &told("1"));
    assert_eq!(other_try, Err(CallbackRefused::NotAwaited));
    run.apply(called_back(task, 1, told("1")));
    assert_eq!(accepts(&run, 1, &told("1")), Err(CallbackRefused::Repeated));
    assert_eq!(
        accepts(&run, 1, &told("2")),
        Err(CallbackRefused::NotAwaited)
    );
}

#[test]
fn outcomes_are_forgotten_in_the_end() {
    let mut run = Run::new(compile_asl(
        &TOKEN.replace(r#""End": true"#, r#""Next": "Send""#),
        &options(),
    ));
    run.start(json("{}"));
    let told = || Callback::Succeeded { output: json("1") };
    let mut tasks = Vec::new();
    for _ in 0..=ANSWERED_TASKS {
        let task = run.only_task().task;
        tasks.push(task);
        run.apply(completed(task, 1, json("{}")));
        run.apply(called_back(task, 1, told()));
    }
    let again = |task| {
        let (execution, now) = (&run.execution, run.now());
        execution.accepts_callback(&run.program, task, 1, &told(), now)
    };
    assert_eq!(again(tasks[0]), Err(CallbackRefused::NotAwaited));
    for task in &tasks[1..] {
        assert_eq!(again(*task), Err(CallbackRefused::Repeated));
    }
}

#[test]
fn only_heartbeats_that_move_something_are_worth_an_event() {
    let mut run = Run::new(compile_asl(CALLED, &options()));
    run.start(json(r#"{"order":7}"#));
    let task = run.only_task().task;
    run.apply(completed(task, 1, json("{}")));
    let beats = |run: &Run| {
        let beat = Callback::Heartbeat {};
        let (execution, now) = (&run.execution, run.now());
        execution.accepts_callback(&run.program, task, 1, &beat, now)
    };
    assert_eq!(beats(&run), Err(CallbackRefused::Needless));
    run.pass_time(2_400);
    assert_eq!(beats(&run), Err(CallbackRefused::Needless));
    run.pass_time(100);
    assert_eq!(beats(&run), Ok(()), "a quarter of the ten seconds is over");
}

/// Histories of machine 2 hold no callbacks: there the activity's output was the result.
#[test]
fn an_older_machine_took_the_output_of_the_activity() {
    let mut run = Run::new(compile_asl(TOKEN, &options()));
    run.start_as(json("{}"), 2);
    let task = run.only_task();
    let token = task.input.to_value()["MessageBody"].clone();
    let id = run.execution.id;
    assert_eq!(token, format!("{id}:{}", task.task.0));
    run.apply(completed(task.task, 1, json("5")));
    assert!(run.execution.is_closed());
    run.check_replay();
}

/// The first machine that waits for callbacks has tokens that name the try.
#[test]
fn the_third_machine_has_tokens_of_its_own() {
    let mut run = Run::new(compile_asl(TOKEN, &options()));
    run.start_as(json("{}"), 3);
    let task = run.only_task();
    let token = TaskToken {
        execution: run.execution.id,
        task: task.task,
        attempt: 1,
    };
    assert_eq!(task.input.to_value()["MessageBody"], token.to_string());
}
