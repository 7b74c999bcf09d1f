//! Definitions in the Amazon States Language, event by event. Expected values: the
//! specification, and what `docs/asl.md` says.

use cascade_cdl::AslOptions;
use cascade_cdl::asl::{Binding, Bindings, Envelope};
use cascade_cdl::program::Resource;

use crate::compile::compile_asl;
use crate::transcript::{check, check_program};

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
