//! Definitions in the Amazon States Language, event by event. Expected values: the
//! specification, and what `docs/asl.md` says.

use cascade_cdl::asl::{Binding, Bindings, Envelope};
use cascade_cdl::limits::MAX_HELD_BYTES;
use cascade_cdl::program::Resource;
use cascade_cdl::{ActivityFailure, AslOptions, EventKind, Status};
use serde_json::json;

use crate::compile::{compile, compile_asl};
use crate::transcript::{Long, Run, check, check_program, completed, failed, json as text};

/// A task with tries after two and four seconds, and one after a time-out.
const RETRIES: &str = r#"{"StartAt": "A", "States": {
    "A": {"Type": "Task", "Resource": "urn:cascade:activity:a", "TimeoutSeconds": 60,
          "Retry": [{"ErrorEquals": ["X"], "IntervalSeconds": 2, "MaxAttempts": 2},
                    {"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1, "IntervalSeconds": 1}],
          "Catch": [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.e", "Next": "B"}],
          "End": true},
    "B": {"Type": "Succeed"}}}"#;

#[test]
fn a_retrier_waits_longer_each_time_and_then_the_catcher_is_asked() {
    check(
        RETRIES,
        r#"
        start {"n":1}
          enter A
          schedule A#1 {"n":1}
          timeout at 60000
        fail A#1 X
          retry A#2 at 2000 after X
          timer at 2000
        at 2000
          schedule A#2 {"n":1}
          timeout at 62000
        fail A#2 X
          retry A#3 at 6000 after X
          timer at 6000
        at 6000
          schedule A#3 {"n":1}
          timeout at 66000
        fail A#3 X
          caught A X, on to B
          enter B
          exit B {"e":{"Cause":"told","Error":"X"},"n":1}
          completed {"e":{"Cause":"told","Error":"X"},"n":1}
        "#,
    );
}

#[test]
fn a_time_out_has_its_own_entry_and_is_no_failed_task() {
    check(
        RETRIES,
        r"
        start {}
          enter A
          schedule A#1 {}
          timeout at 60000
        at 60000
          cancel A#1
          retry A#2 at 61000 after States.Timeout
          timer at 61000
        at 61000
          schedule A#2 {}
          timeout at 121000
        at 121000
          cancel A#2
          failed States.Timeout at A: 
        ",
    );
}

#[test]
fn a_failed_execution_goes_on_with_fresh_attempts() {
    check(
        r#"{"StartAt": "A", "States": {
            "A": {"Type": "Pass", "Assign": {"v": 1}, "Next": "B"},
            "B": {"Type": "Task", "Resource": "urn:cascade:activity:b",
                  "Parameters": {"v.$": "$v"}, "End": true}}}"#,
        r#"
        start {}
          enter A
          exit A {}
          enter B
          schedule B#1 {"v":1}
        fail B#1 X
          failed X at B: told
        retry
          goes on
          enter B
          schedule B#1 {"v":1}
        complete B#1 7
          exit B 7
          completed 7
        "#,
    );
}

#[test]
fn branches_see_the_variables_around_them_and_keep_their_own() {
    check(
        r#"{"StartAt": "A", "QueryLanguage": "JSONata", "States": {
            "A": {"Type": "Pass", "Assign": {"v": "{% $states.input %}"}, "Next": "P"},
            "P": {"Type": "Parallel", "Arguments": "{% $v + 1 %}", "Next": "Z", "Branches": [
                {"StartAt": "B", "States": {"B": {"Type": "Pass", "Assign": {"w": 5}, "Next": "C"},
                    "C": {"Type": "Pass", "Output": "{% $v + $w + $states.input %}", "End": true}}},
                {"StartAt": "D", "States": {"D": {"Type": "Wait", "Seconds": 3, "End": true}}}]},
            "Z": {"Type": "Pass", "Output": "{% $exists($w) %}", "End": true}}}"#,
        r"
        start 1
          enter A
          exit A 1
          enter P
          enter P/0/B
          exit P/0/B 2
          enter P/0/C
          exit P/0/C 8
          branch P/0 done, 1 open
          enter P/1/D
          timer at 3000
        at 3000
          exit P/1/D 2
          branch P/1 done, 0 open
          exit P [8,2]
          enter Z
          exit Z false
          completed false
        ",
    );
}

#[test]
fn a_parallel_state_is_tried_again_as_a_whole() {
    check(
        r#"{"StartAt": "P", "States": {"P": {"Type": "Parallel", "End": true,
            "Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1}],
            "ResultSelector": {"tries.$": "$$.State.RetryCount", "all.$": "$[*]"},
            "Branches": [
                {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "urn:cascade:activity:a", "End": true}}},
                {"StartAt": "B", "States": {"B": {"Type": "Task", "Resource": "urn:cascade:activity:b", "End": true}}}]}}}"#,
        r#"
        start 1
          enter P
          enter P/0/A
          schedule P/0/A#1 1
          enter P/1/B
          schedule P/1/B#1 1
        fail A#1 X
          cancel B#1
          retry P#2 at 1000 after X
          timer at 1000
        at 1000
          enter P/0/A
          schedule P/0/A#1 1
          enter P/1/B
          schedule P/1/B#1 1
        complete B#1 3
          exit P/1/B 3
          branch P/1 done, 1 open
        complete A#1 2
          exit P/0/A 2
          branch P/0 done, 0 open
          exit P {"all":[2,3],"tries":1}
          completed {"all":[2,3],"tries":1}
        "#,
    );
}

/// A Map with places for what differs.
const MAP: &str = r#"{"StartAt": "V", "States": {
    "V": {"Type": "Pass", "Assign": {"v": "outer"}, "Next": "M"},
    "M": {"Type": "Map", "MaxConcurrency": LIMIT, "ItemsPath": "$.list", "End": true,
        "ItemSelector": {"at.$": "$$.Map.Item.Index", "item.$": "$$.Map.Item.Value"}, TOLERANCE
        "ItemProcessor": {"ProcessorConfig": {MODE}, "StartAt": "T", "States": {
            "T": {"Type": "Task", "Resource": "urn:cascade:activity:t", "End": true}}}}}}"#;

fn map(mode: &str, limit: &str, tolerance: &str) -> String {
    let map = MAP.replace("MODE", mode).replace("LIMIT", limit);
    map.replace("TOLERANCE", tolerance)
}

#[test]
fn iterations_run_so_many_at_a_time_and_the_first_failure_is_the_state_s() {
    check(
        &map(r#""Mode": "INLINE""#, "2", ""),
        r#"
        start {"list":["a","b","c"]}
          enter V
          exit V {"list":["a","b","c"]}
          enter M
          enter M/0/T
          schedule M/0/T#1 {"at":0,"item":"a"}
          enter M/1/T
          schedule M/1/T#1 {"at":1,"item":"b"}
        complete T#1 "B"
          exit M/1/T "B"
          branch M/1 done, 2 open
          enter M/2/T
          schedule M/2/T#1 {"at":2,"item":"c"}
        fail T#1 X
          cancel T#1
          failed X at T: told
        "#,
    );
}

#[test]
fn a_distributed_map_bears_as_many_failures_as_it_is_told() {
    let definition = map(
        r#""Mode": "DISTRIBUTED", "ExecutionType": "STANDARD""#,
        "1",
        r#""ToleratedFailureCount": 1,"#,
    );
    let first = r#"
        start {"list":["a","b"]}
          enter V
          exit V {"list":["a","b"]}
          enter M
          enter M/0/T
          schedule M/0/T#1 {"at":0,"item":"a"}
        fail T#1 X
          branch M/0 failed X, 1 open
          enter M/1/T
          schedule M/1/T#1 {"at":1,"item":"b"}"#;
    let borne = r#"
        complete T#1 "B"
          exit M/1/T "B"
          branch M/1 done, 0 open
          exit M ["B"]
          completed ["B"]
        "#;
    check(&definition, &format!("{first}{borne}"));
    let exceeded = r"
        fail T#1 X
          failed States.ExceedToleratedFailureThreshold at M: The specified tolerated failure threshold was exceeded
        ";
    check(&definition, &format!("{first}{exceeded}"));
}

#[test]
fn an_iteration_of_a_distributed_map_sees_no_variables_from_outside() {
    let inner = |mode: &str| {
        format!(
            r#"{{"StartAt": "V", "QueryLanguage": "JSONata", "States": {{
            "V": {{"Type": "Pass", "Assign": {{"v": 1}}, "Next": "M"}},
            "M": {{"Type": "Map", "Items": [0], "End": true, "ItemProcessor": {{
                "ProcessorConfig": {{{mode}}}, "StartAt": "I", "States": {{
                "I": {{"Type": "Pass", "Output": "{{% $exists($v) %}}", "End": true}}}}}}}}}}}}"#
        )
    };
    let expected = |exists: &str| {
        format!(
            r"
        start 0
          enter V
          exit V 0
          enter M
          enter M/0/I
          exit M/0/I {exists}
          branch M/0 done, 0 open
          exit M [{exists}]
          completed [{exists}]
        "
        )
    };
    check(&inner(r#""Mode": "INLINE""#), &expected("true"));
    let distributed = r#""Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS""#;
    check(&inner(distributed), &expected("false"));
}

#[test]
fn a_reader_s_items_are_put_into_batches() {
    check(
        r#"{"StartAt": "M", "States": {"M": {"Type": "Map", "End": true,
            "ItemReader": {"Resource": "urn:cascade:activity:read", "Parameters": {"Key.$": "$.key"},
                "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW", "MaxItems": 3}},
            "ItemBatcher": {"MaxItemsPerBatch": 2, "BatchInput": {"k.$": "$.key"}},
            "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": "I", "States": {"I": {"Type": "Pass", "OutputPath": "$.Items[*].n", "End": true}}}}}}"#,
        r#"
        start {"key":"x"}
          enter M
          schedule M#1 {"Key":"x"}
        complete M#1 "n\n1\n2\n3\n4\n"
          enter M/0/I
          exit M/0/I ["1","2"]
          branch M/0 done, 1 open
          enter M/1/I
          exit M/1/I ["3"]
          branch M/1 done, 0 open
          exit M [["1","2"],["3"]]
          completed [["1","2"],["3"]]
        "#,
    );
}

#[test]
fn a_runtime_error_is_never_caught_and_a_failed_expression_is() {
    let definition = |state: &str| {
        format!(
            r#"{{"StartAt": "P", "States": {{
            "P": {{"Type": "Parallel", "Branches": [{{"StartAt": "A", "States": {{"A": {state}}}}}],
                  "Catch": [{{"ErrorEquals": ["States.ALL"], "Next": "C"}}], "End": true}},
            "C": {{"Type": "Pass", "Parameters": {{"e.$": "$.Error"}}, "End": true}}}}}}"#
        )
    };
    check(
        &definition(r#"{"Type": "Pass", "InputPath": "$.none", "End": true}"#),
        r"
        start {}
          enter P
          enter P/0/A
          failed States.Runtime at A: An error occurred while executing the state 'A' (entered at the event id #1). Invalid path '$.none' : No results for path
        ",
    );
    check(
        &definition(
            r#"{"Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% $none %}", "End": true}"#,
        ),
        r#"
        start {}
          enter P
          enter P/0/A
          caught P States.QueryEvaluationError, on to C
          enter C
          exit C {"e":"States.QueryEvaluationError"}
          completed {"e":"States.QueryEvaluationError"}
        "#,
    );
}

fn activity(name: &str) -> Resource {
    Resource {
        name: name.into(),
        version: None,
        region: None,
        child: None,
    }
}

#[test]
fn a_bound_function_gets_its_payload_and_answers_in_the_envelope() {
    let bindings = Bindings {
        entries: vec![
            Binding {
                pattern: "*:charge".to_owned(),
                activity: activity("charge"),
                envelope: Envelope::LambdaInvoke,
            },
            Binding {
                pattern: "arn:aws:states:::*".to_owned(),
                activity: activity("other"),
                envelope: Envelope::None,
            },
        ],
    };
    let options = AslOptions {
        bindings,
        ..AslOptions::default()
    };
    let program = compile_asl(
        r#"{"StartAt": "A", "States": {
            "A": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "B",
                  "Parameters": {"FunctionName": "arn:aws:lambda:eu-west-1:1:function:charge", "Payload.$": "$.order"}},
            "B": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "OutputPath": "$.id", "End": true}}}"#,
        &options,
    );
    let activities: Vec<_> = program.resources().collect();
    assert_eq!(activities, [&activity("charge"), &activity("other")]);
    check_program(
        program,
        r#"
        start {"order":{"total":7}}
          enter A
          schedule A#1 {"total":7}
        complete A#1 true
          exit A {"ExecutedVersion":"$LATEST","Payload":true,"StatusCode":200}
          enter B
          schedule B#1 {"ExecutedVersion":"$LATEST","Payload":true,"StatusCode":200}
        complete B#1 {"id":"m"}
          exit B "m"
          completed "m"
        "#,
    );
}

#[test]
fn a_task_that_nothing_is_bound_to_fails_when_it_is_entered() {
    check(
        r#"{"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "arn:aws:states:::sns:publish", "End": true}}}"#,
        r"
        start {}
          enter A
          failed States.TaskFailed at A: An error occurred while executing the state 'A' (entered at the event id #1). No activity is bound to the resource arn:aws:states:::sns:publish
        ",
    );
}

#[test]
fn cancelling_a_pause_or_a_map_leaves_nothing() {
    check(
        RETRIES,
        r"
        start {}
          enter A
          schedule A#1 {}
          timeout at 60000
        fail A#1 X
          retry A#2 at 2000 after X
          timer at 2000
        cancel enough
          cancelled: enough
        ",
    );
    check(
        &map(r#""Mode": "INLINE""#, "2", ""),
        r#"
        start {"list":["a"]}
          enter V
          exit V {"list":["a"]}
          enter M
          enter M/0/T
          schedule M/0/T#1 {"at":0,"item":"a"}
        cancel enough
          cancel T#1
          cancelled: enough
        "#,
    );
}

#[test]
fn the_machine_s_own_time_out_ends_the_execution() {
    check(
        r#"{"StartAt": "A", "TimeoutSeconds": 5, "States": {"A": {"Type": "Wait", "Seconds": 9, "End": true}}}"#,
        r"
        start {}
          workflow timeout at 5000
          enter A
          timer at 9000
        at 5000
          timed out after 5000
        ",
    );
}

/// The error that a definition ends by at its first event, if it does.
fn error_of(definition: &str, input: &str) -> Option<String> {
    let mut run = Run::new(compile(definition));
    run.start(text(input));
    match run.execution.status {
        Status::Failed { failure } => Some(failure.error),
        _ => None,
    }
}

/// A text of so many bytes in JSON, with its quotes.
fn of_length(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

const LARGEST: usize = 262_144;

#[test]
fn inputs_and_results_are_bounded_by_256_kib() {
    let waits = r#"{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": true}}}"#;
    assert_eq!(error_of(waits, &of_length(LARGEST)), None);
    let too_large = Some("States.DataLimitExceeded".to_owned());
    assert_eq!(error_of(waits, &of_length(LARGEST + 1)), too_large);

    let tells = |bytes: usize| {
        let mut run = Run::new(compile(
            r#"{"StartAt": "A", "States": {"A": {
                "Type": "Task", "Resource": "urn:cascade:activity:a", "End": true}}}"#,
        ));
        run.start(text("{}"));
        let task = run.only_task().task;
        run.apply(completed(task, 1, text(&of_length(bytes))));
        run.execution.status
    };
    let output = text(&of_length(LARGEST));
    assert_eq!(tells(LARGEST), Status::Completed { output });
    let Status::Failed { failure } = tells(LARGEST + 1) else {
        panic!("it is taken");
    };
    assert_eq!(Some(failure.error), too_large);
}

/// Each branch has the input; together they hold what an execution may, and more.
#[test]
fn what_branches_are_given_is_counted_for_each() {
    let branch = |n: usize| {
        let wait = json!({"Type": "Wait", "Seconds": 1, "End": true});
        json!({"StartAt": format!("W{n}"), "States": {format!("W{n}"): wait}})
    };
    let parallel = |branches: usize| {
        let branches: Vec<_> = (0..branches).map(branch).collect();
        json!({"StartAt": "P", "States": {"P": {
            "Type": "Parallel", "Branches": branches, "End": true}}})
    };
    let most = usize::try_from(MAX_HELD_BYTES).expect("small") / LARGEST;
    let error = |branches| error_of(&parallel(branches).to_string(), &of_length(LARGEST - 1_000));
    assert_eq!(error(most + 1), Some("ContextTooLarge".to_owned()));
    assert_eq!(error(most / 2), None);
}

#[test]
fn a_wait_lasts_ten_years_at_most() {
    let wait = r#"{"StartAt": "W", "States": {
        "W": {"Type": "Wait", "SecondsPath": "$", "End": true}}}"#;
    assert_eq!(error_of(wait, "315360000"), None);
    for seconds in ["315360001", "18446744073709551615"] {
        assert_eq!(
            error_of(wait, seconds),
            Some("States.Runtime".to_owned()),
            "{seconds}"
        );
    }
}

#[test]
fn the_branches_of_a_parallel_state_in_a_branch_are_its_own() {
    let pass = |name: &str, value: u32| json!({"StartAt": name, "States": {name: {"Type": "Pass", "Result": value, "End": true}}});
    let inner = json!({"StartAt": "Q", "States": {"Q": {
        "Type": "Parallel", "Branches": [pass("C", 3)], "End": true}}});
    let definition = json!({"StartAt": "P", "States": {"P": {
        "Type": "Parallel", "Branches": [pass("A", 1), inner], "End": true}}});
    let mut run = Run::new(compile(&definition.to_string()));
    run.start(text("0"));
    let output = text("[1,[3]]");
    assert_eq!(run.execution.status, Status::Completed { output });
}

/// Both come as `TimeoutError`; AWS has a name for each.
#[test]
fn a_missed_heartbeat_is_another_error_than_a_timeout() {
    for (message, error) in [
        ("no heartbeat within 5000 ms", "States.HeartbeatTimeout"),
        ("no outcome within 60000 ms", "States.Timeout"),
    ] {
        let mut run = Run::new(compile(
            r#"{"StartAt": "A", "States": {"A": {"Type": "Task", "TimeoutSeconds": 60,
                "HeartbeatSeconds": 5, "Resource": "urn:cascade:activity:a", "End": true}}}"#,
        ));
        run.start(text("{}"));
        run.apply(EventKind::ActivityFailed {
            task: run.only_task().task,
            attempt: 1,
            failure: ActivityFailure {
                error: "TimeoutError".to_owned(),
                message: message.to_owned(),
                retryable: None,
                details: None,
            },
            receipt: None,
        });
        let Status::Failed { failure } = &run.execution.status else {
            panic!("{:?}", run.execution.status);
        };
        assert_eq!(failure.error, error);
    }
}

/// A Map over what is at `$.l`, with a task for each item.
fn over(mode: &str, keys: &str) -> String {
    format!(
        r#"{{"StartAt": "M", "States": {{"M": {{"Type": "Map", "ItemsPath": "$.l", {keys} "End": true,
        "ItemProcessor": {{"ProcessorConfig": {{{mode}}}, "StartAt": "T", "States": {{
            "T": {{"Type": "Task", "Resource": "urn:cascade:activity:t", "End": true}}}}}}}}}}}}"#
    )
}

const INLINE: &str = r#""Mode": "INLINE""#;
const DISTRIBUTED: &str = r#""Mode": "DISTRIBUTED", "ExecutionType": "STANDARD""#;

/// AWS's limit is 40 for one, and 10,000 for the other: ours is 256.
#[test]
fn a_map_that_does_not_say_runs_so_many_iterations_at_a_time() {
    let items = json!({"l": (0..300).collect::<Vec<_>>()}).to_string();
    for (mode, most) in [(INLINE, 40), (DISTRIBUTED, 256)] {
        let mut run = Run::new(compile(&over(mode, "")));
        run.start(text(&items));
        assert_eq!(run.outstanding.len(), most, "{mode}");
    }
}

#[test]
fn only_a_distributed_map_goes_through_an_object() {
    let mut run = Run::new(compile(&over(DISTRIBUTED, "")));
    run.start(text(r#"{"l":{"a":1}}"#));
    assert_eq!(run.only_task().input, text(r#"{"Key":"a","Value":1}"#));

    let mut run = Run::new(compile(&over(INLINE, "")));
    run.start(text(r#"{"l":{"a":1}}"#));
    let Status::Failed { failure } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    let words = r#"Reference path "$.l" must point to array."#;
    assert!(failure.message.ends_with(words), "{}", failure.message);
}

#[test]
fn what_a_map_tolerates_is_nothing_or_a_part_of_its_items() {
    let half = r#""ToleratedFailurePercentage": 50,"#;
    let threshold = "States.ExceedToleratedFailureThreshold";
    for (mode, more, fails, error) in [
        (INLINE, "", 1, Some("X")),
        (DISTRIBUTED, "", 1, Some(threshold)),
        (DISTRIBUTED, half, 1, None),
        (DISTRIBUTED, half, 2, Some(threshold)),
    ] {
        let mut run = Run::new(compile(&over(mode, more)));
        run.start(text(r#"{"l":[1,2]}"#));
        for at in 0..2 {
            let Some(task) = run.outstanding.values().next().map(|task| task.task) else {
                break;
            };
            run.apply(if at < fails {
                failed(task, 1, "X", None)
            } else {
                completed(task, 1, text("1"))
            });
        }
        let told = match &run.execution.status {
            Status::Failed { failure } => Some(failure.error.as_str()),
            _ => None,
        };
        assert_eq!(told, error, "{mode} {more} {fails}");
    }
}

/// `{"Items":[]}` has 12 bytes, and each item 7 with a comma.
#[test]
fn batches_have_so_many_bytes_at_most() {
    for (most, sizes) in [(26, vec![2, 1]), (25, vec![1, 1, 1]), (1, vec![1, 1, 1])] {
        let batcher = format!(r#""ItemBatcher": {{"MaxInputBytesPerBatch": {most}}},"#);
        let mut run = Run::new(compile(&over(DISTRIBUTED, &batcher)));
        run.start(text(r#"{"l":["aaaa","bbbb","cccc"]}"#));
        let count = |task: &cascade_cdl::ActivityTask| {
            task.input.to_value()["Items"]
                .as_array()
                .expect("a list")
                .len()
        };
        let made: Vec<_> = run.outstanding.values().map(count).collect();
        assert_eq!(made, sizes, "{most}");
    }
}

#[test]
fn a_reader_may_give_a_list_as_it_is() {
    let reader = r#""ItemReader": {"Resource": "urn:cascade:activity:read",
        "ReaderConfig": {"InputType": "JSON"}},"#;
    let definition = over(DISTRIBUTED, reader).replace(r#""ItemsPath": "$.l","#, "");
    let mut run = Run::new(compile(&definition));
    run.start(text("{}"));
    let task = run.only_task().task;
    run.apply(completed(task, 1, text("[7]")));
    assert_eq!(run.only_task().input, text("7"));
}

/// Expected values: AWS's words.
#[test]
fn what_is_no_number_is_told_as_it_stands_there() {
    let wait = r#"{"StartAt": "S", "States": {
        "S": {"Type": "Wait", "SecondsPath": "$.s", "End": true}}}"#;
    let map = |query: &str, field: &str| {
        format!(
            r#"{{"StartAt": "S", "QueryLanguage": "{query}", "States": {{"S": {{
            "Type": "Map", "End": true, {field}, "ItemProcessor": {{
                "ProcessorConfig": {{"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}}, "StartAt": "I",
                "States": {{"I": {{"Type": "Pass", "End": true}}}}}}}}}}}}"#
        )
    };
    let path = map(
        "JSONPath",
        r#""ItemsPath": "$.l", "ToleratedFailurePercentagePath": "$.s""#,
    );
    let query = map(
        "JSONata",
        r#""Items": "{% $states.input.l %}", "ToleratedFailurePercentage": "{% $states.input.s %}""#,
    );
    let between = "ToleratedFailurePercentage must be between 0 and 100.";
    for (definition, input, error, cause) in [
        (
            wait,
            r#"{"s":"soon"}"#,
            "States.Runtime",
            "The SecondsPath parameter cannot be parsed as a long value: $.s == soon",
        ),
        (
            wait,
            r#"{"s":[1]}"#,
            "States.Runtime",
            "The SecondsPath parameter cannot be parsed as a long value: $.s == [1]",
        ),
        (
            wait,
            r#"{"s":-1}"#,
            "States.Runtime",
            "The SecondsPath parameter references a negative value: $.s == -1",
        ),
        (
            path.as_str(),
            r#"{"l":[],"s":101}"#,
            "States.Runtime",
            between,
        ),
        (
            query.as_str(),
            r#"{"l":[],"s":101}"#,
            "States.QueryEvaluationError",
            between,
        ),
    ] {
        let mut run = Run::new(compile(definition));
        run.start(text(input));
        let Status::Failed { failure } = &run.execution.status else {
            panic!("{input}: {:?}", run.execution.status);
        };
        assert_eq!(failure.error, error, "{input}");
        let place =
            "An error occurred while executing the state 'S' (entered at the event id #1). ";
        assert_eq!(failure.message, format!("{place}{cause}"));
    }
    // The bounds themselves are percentages.
    for share in ["0", "100"] {
        for definition in [&path, &query] {
            assert_eq!(
                error_of(definition, &format!(r#"{{"l":[],"s":{share}}}"#)),
                None
            );
        }
    }
}

/// What a frame holds is its input and its variables, as texts.
#[test]
fn a_frame_knows_how_much_it_holds() {
    let definition = r#"{"StartAt": "A", "QueryLanguage": "JSONata", "States": {
        "A": {"Type": "Pass", "Assign": {"v": "{% 'four' %}", "w": 12}, "Output": "{% [1,2,3] %}", "Next": "W"},
        "W": {"Type": "Wait", "Seconds": 1, "End": true}}}"#;
    let mut run = Run::new(compile(definition));
    run.start(text("0"));
    let snapshot = serde_json::to_value(&run.execution).expect("JSON");
    // `[1,2,3]`, `"four"` and `12`.
    assert_eq!(snapshot["frames"]["0"]["data"]["bytes"], 7 + 6 + 2);
}

/// AWS's limits: 256 KiB for each variable, 10 MiB for all. Forty of the largest fit.
#[test]
fn variables_are_bounded_all_together() {
    let states: serde_json::Map<_, _> = (0..=40)
        .map(|n| {
            let task = json!({
                "Type": "Task", "Resource": "urn:cascade:activity:a", "ResultPath": null,
                "Assign": {format!("v{n}.$"): "$"}, "Next": format!("S{}", n + 1),
            });
            (format!("S{n}"), task)
        })
        .chain([("S41".to_owned(), json!({"Type": "Succeed"}))])
        .collect();
    let definition = json!({"StartAt": "S0", "States": states});
    let mut long = Long::new(compile(&definition.to_string()));
    let largest = text(&of_length(LARGEST));
    for n in 0..=40 {
        assert_eq!(long.execution.status, Status::Running, "{n} variables");
        long.go_on(|task, attempt| completed(task, attempt, largest.clone()));
    }
    let Status::Failed { failure } = &long.execution.status else {
        panic!("{:?}", long.execution.status);
    };
    assert_eq!(
        (failure.error.as_str(), failure.state.as_deref()),
        ("States.DataLimitExceeded", Some("S40"))
    );
}
