//! Distributed Maps: the parent and the executions of its chunks, all in memory.

use std::sync::Arc;

use cascade_cdl::program::Program;
use cascade_cdl::spread::{ChunkTask, Found, ReadTask, SEPARATOR, Span, Work, WriteTask};
use cascade_cdl::{ActivityTask, AslOptions, EventKind, Failure, Json, Status, Step};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::compile::{compile_asl, compile_value};
use crate::transcript::{Run, completed, failed};

pub(crate) fn work(task: &ActivityTask) -> Option<Work> {
    task.resource.child.as_ref().and_then(|child| child.work)
}

/// The execution that runs a chunk.
pub(crate) fn chunk(program: &Program, task: &ActivityTask) -> Run {
    let (_, path) = task.resource.name.split_once(SEPARATOR).expect("a path");
    let program = program.chunk(path).expect("the Map is there");
    assert_eq!(program.name, *task.resource.name);
    let mut run = Run::new(Arc::new(program));
    run.start(task.input.clone());
    run
}

/// What an attempt comes to: activities double numbers, fail for those that `fails` names,
/// and give back anything else.
fn answer(program: &Program, task: &ActivityTask, fails: &[i64]) -> EventKind {
    let (id, attempt) = (task.task, task.attempt);
    match work(task) {
        Some(Work::Chunk) => {
            let mut run = chunk(program, task);
            match finish(&mut run, fails) {
                Status::Completed { output } => completed(id, attempt, output),
                Status::Failed { failure } => failed(id, attempt, &failure.error, None),
                other => panic!("{other:?}"),
            }
        }
        Some(Work::Write) => completed(id, attempt, task.input.clone()),
        Some(Work::Read) => panic!("a test answers that itself: {:?}", task.input),
        None => match task.input.to_value() {
            Value::Number(n) if fails.contains(&n.as_i64().unwrap_or(-1)) => {
                failed(id, attempt, "Odd", Some(false))
            }
            Value::Number(n) => completed(id, attempt, json!(n.as_i64().map(|n| 2 * n)).into()),
            other => completed(id, attempt, other.into()),
        },
    }
}

/// Answers all that is asked for.
pub(crate) fn finish(run: &mut Run, fails: &[i64]) -> Status {
    while let Some(task) = run.outstanding.values().next().cloned() {
        let event = answer(&run.program.clone(), &task, fails);
        run.apply(event);
    }
    run.check_replay();
    run.execution.status.clone()
}

pub(crate) fn each(more: &Value) -> Value {
    let mut state = json!({
        "name": "Each", "type": "Map", "items": "{{ workflow.input }}", "max_concurrency": 20,
        "iterator": {"states": [
            {"name": "Do", "type": "Task", "parameters": "{{ map.item }}", "result": "$.own", "next": "Say"},
            {"name": "Say", "type": "Succeed", "output": [
                "{{ $.own }}", "{{ map.index }}", "{{ $.before }}", "{{ workflow.input | length }}"
            ]},
        ]},
        "result": "$.all",
    });
    for (key, value) in more.as_object().expect("keys") {
        state[key] = value.clone();
    }
    let before = json!({"name": "Before", "type": "Pass", "parameters": "seen", "result": "$.before", "next": "Each"});
    json!({"states": [before, state]})
}

pub(crate) fn outcome(workflow: &Value, items: &Value, fails: &[i64]) -> Result<Value, Failure> {
    let mut run = Run::new(compile_value(workflow));
    run.start(items.clone().into());
    match finish(&mut run, fails) {
        Status::Completed { output } => Ok(output.to_value()),
        Status::Failed { failure } => Err(failure),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_distributed_map_gives_what_an_inline_one_does(
        count in 0_i64..900,
        failing in proptest::collection::btree_set(0_i64..900, 0..4),
        tolerance in proptest::option::of(0_u32..5),
        batch in proptest::option::of(1_u32..7),
    ) {
        let items = json!((0..count).collect::<Vec<_>>());
        let fails: Vec<i64> = failing.into_iter().collect();
        // Batches do not fail here: the activity is given a list.
        let mut more = json!({});
        if let Some(count) = tolerance {
            more["tolerated_failure_count"] = count.into();
        }
        if let Some(size) = batch {
            more["batch"] = json!({"size": size});
        }
        let inline = outcome(&each(&more), &items, &fails);
        more["mode"] = "distributed".into();
        let spread = outcome(&each(&more), &items, &fails);
        match (inline, spread) {
            (Ok(inline), Ok(spread)) => prop_assert_eq!(inline, spread),
            (Err(inline), Err(spread)) => prop_assert_eq!(inline.error, spread.error),
            (inline, spread) => prop_assert!(false, "{:?} {:?}", inline, spread),
        }
    }
}

/// A Map over an object, which has been told of chunks of one item each.
pub(crate) fn reading(more: &Value, chunks: u64) -> Run {
    let mut all = json!({"items": {"object": "in/{{ 'rows' }}", "format": "csv"}});
    for (key, value) in more.as_object().expect("keys") {
        all[key] = value.clone();
    }
    let mut run = Run::new(compile_value(&each(&all)));
    run.start(json!([]).into());
    let task = run.only_task();
    assert_eq!(work(&task), Some(Work::Read));
    let read: ReadTask = serde_json::from_str(task.input.as_str()).expect("a task");
    assert_eq!(
        (read.source.bucket.as_str(), read.source.key.as_str()),
        ("in", "rows")
    );
    let found = Found::Cut {
        digest: "d".to_owned(),
        headers: Some(vec!["n".to_owned()]),
        chunks: (0..chunks).map(|n| Span(10 * n, 10, 1)).collect(),
    };
    run.apply(completed(task.task, task.attempt, json!(found).into()));
    run
}

pub(crate) fn asked(run: &Run) -> Vec<ChunkTask> {
    let tasks = run.outstanding.values();
    tasks
        .map(|task| serde_json::from_str(task.input.as_str()).expect("a chunk"))
        .collect()
}

/// Ends the first chunk that is asked for.
pub(crate) fn end_chunk(run: &mut Run) {
    let task = run.outstanding.values().next().expect("a chunk").clone();
    let done = json!({"outcomes": [{"succeeded": 1}]});
    run.apply(completed(task.task, task.attempt, done.into()));
}

#[test]
fn only_so_many_chunks_are_open_and_each_says_what_it_reads() {
    let mut run = reading(&json!({"max_concurrency": 24}), 5);
    let chunks = asked(&run);
    assert_eq!(chunks.len(), 3);
    for (number, chunk) in (0..).zip(&chunks) {
        assert_eq!(chunk.number, number);
        assert_eq!(
            chunk.portion.span,
            Some(Span(10 * u64::from(number), 10, 1))
        );
        assert_eq!(chunk.concurrency, 8);
        let origin = chunk.origin.as_ref().expect("an object");
        assert_eq!(origin.digest, "d");
        assert_eq!(
            json!(origin.source.format),
            json!({"csv": {"headers": ["n"], "delimiter": ","}})
        );
    }
    end_chunk(&mut run);
    assert_eq!(asked(&run).last().map(|chunk| chunk.number), Some(3));
    for _ in 0..4 {
        end_chunk(&mut run);
    }
    let Status::Completed { output } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    assert_eq!(output.to_value()["all"], json!([1, 1, 1, 1, 1]));
    run.check_replay();
}

#[test]
fn a_paused_execution_asks_for_no_further_chunk() {
    let mut run = reading(&json!({"max_concurrency": 8}), 3);
    run.apply(EventKind::ExecutionPaused {
        reason: String::new(),
    });
    end_chunk(&mut run);
    assert!(run.outstanding.is_empty());
    run.apply(EventKind::ExecutionResumed {});
    assert_eq!(asked(&run)[0].number, 1);
    end_chunk(&mut run);
    end_chunk(&mut run);
    assert!(matches!(run.execution.status, Status::Completed { .. }));
    run.check_replay();
}

#[test]
fn a_failure_gives_the_other_chunks_up_and_a_retry_keeps_what_is_done() {
    let mut run = reading(&json!({"max_concurrency": 16}), 4);
    end_chunk(&mut run);
    let task = run.outstanding.values().next().expect("one").clone();
    run.apply(failed(task.task, task.attempt, "Broken", Some(false)));
    assert!(run.outstanding.is_empty(), "{:?}", run.outstanding);
    let Status::Failed { failure } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    assert_eq!(failure.error, "Broken");
    run.apply(EventKind::RetryRequested {});
    let numbers: Vec<_> = asked(&run).iter().map(|chunk| chunk.number).collect();
    assert_eq!(numbers, [1, 2]);
    for _ in 0..3 {
        end_chunk(&mut run);
    }
    assert!(matches!(run.execution.status, Status::Completed { .. }));
    run.check_replay();
}

#[test]
fn what_comes_of_a_map_with_a_place_is_what_was_written() {
    let mut run = reading(&json!({"results": {"object": "out/x"}}), 2);
    while let Some(task) = run.outstanding.values().next().cloned() {
        let answer = match work(&task) {
            Some(Work::Chunk) => {
                let chunk: ChunkTask = serde_json::from_str(task.input.as_str()).expect("a chunk");
                assert_eq!(chunk.place.map(|place| place.prefix), Some("x/".to_owned()));
                json!({"written": {"succeeded": 1, "failed": 0, "bytes": [7, 0]}})
            }
            Some(Work::Write) => {
                let write: WriteTask = serde_json::from_str(task.input.as_str()).expect("a task");
                assert_eq!(write.chunks, [(0, 7, 0), (1, 7, 0)]);
                assert_eq!((write.succeeded, write.failed), (2, 0));
                json!({"manifest": "there"})
            }
            other => panic!("{other:?}"),
        };
        run.apply(completed(task.task, task.attempt, answer.into()));
    }
    let Status::Completed { output } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    assert_eq!(output.to_value()["all"], json!({"manifest": "there"}));
    run.check_replay();
}

#[test]
fn results_that_have_no_room_in_the_context_are_told_where_to_go() {
    let mut run = reading(&json!({"max_concurrency": 8}), 3);
    let large = json!({"outcomes": [{"succeeded": "x".repeat(2 << 20)}]});
    while let Some(task) = run.outstanding.values().next().cloned() {
        run.apply(completed(task.task, task.attempt, large.clone().into()));
    }
    let Status::Failed { failure } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    assert_eq!(failure.error, "ContextTooLarge");
    assert!(failure.message.contains("`results:"), "{failure:?}");
}

#[test]
fn a_map_in_the_chunks_of_another_is_found_from_the_workflow() {
    let inner = json!({
        "name": "In", "type": "Map", "mode": "distributed", "max_concurrency": 4, "items": "{{ map.item }}",
        "iterator": {"states": [{"name": "Do", "type": "Task", "parameters": "{{ map.item }}"}]},
    });
    let outer = json!({
        "name": "Out", "type": "Map", "mode": "distributed", "max_concurrency": 4, "items": "{{ workflow.input }}",
        "iterator": {"states": [inner]}, "result": "$.all",
    });
    let both = json!({
        "name": "Both", "type": "Parallel", "result": "$.both",
        "branches": [{"name": "left", "states": [outer]}],
    });
    let mut run = Run::new(compile_value(&json!({"states": [both]})));
    run.start(json!([[1, 2], [3]]).into());
    let task = run.only_task();
    assert_eq!(&*task.resource.name, "test#Both/left/Out");
    let inside = chunk(&run.program, &task).outstanding;
    let name = inside
        .values()
        .next()
        .map(|task| task.resource.name.clone());
    assert_eq!(name.as_deref(), Some("test#Both/left/Out/In"));
    // As the shell does: from the workflow, whoever asks.
    let program = run.program.clone();
    let in_inner = program.chunk("Both/left/Out/In").expect("it is there");
    assert_eq!(in_inner.name, "test#Both/left/Out/In");
}

const ASL: &str = r#"{"StartAt": "Each", "States": {"Each": {
    "Type": "Map", "QueryLanguage": "JSONPath", "MaxConcurrency": 8,
    "ItemReader": {"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "JSONL"},
                   "Parameters": {"Bucket": "in", "Key.$": "$.key"}},
    "ItemSelector": {"n.$": "$$.Map.Item.Value", "at.$": "$$.Map.Item.Index", "key.$": "$.key"},
    "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "End": true}}},
    "ResultWriter": {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "out", "Prefix": "x"}},
    "End": true}}}"#;

fn asl() -> Run {
    Run::new(compile_asl(ASL, &AslOptions::default()))
}

#[test]
fn an_asl_map_reads_objects_and_its_chunks_see_the_input_of_its_state() {
    let mut run = asl();
    run.start(json!({"key": "rows"}).into());
    let task = run.only_task();
    let read: ReadTask = serde_json::from_str(task.input.as_str()).expect("a task");
    assert_eq!((read.source.key.as_str(), read.whole), ("rows", false));
    let found = Found::Cut {
        digest: "d".to_owned(),
        headers: None,
        chunks: vec![Span(0, 4, 1), Span(4, 4, 2)],
    };
    run.apply(completed(task.task, task.attempt, json!(found).into()));
    let tasks: Vec<_> = run.outstanding.values().cloned().collect();
    let mut task = tasks[0].clone();
    let mut start: Value = task.input.to_value();
    start["portion"]["items"] = json!(["a"]);
    task.input = Json::from_value(&start);
    let mut child = chunk(&run.program, &task);
    let Status::Completed { output } = finish(&mut child, &[]) else {
        panic!("{:?}", child.execution.status);
    };
    let expected = json!({"outcomes": [{"succeeded": {"n": "a", "at": 0, "key": "rows"}}]});
    assert_eq!(output.to_value(), expected);
}

#[test]
fn an_older_machine_reads_no_objects_for_asl() {
    let mut run = asl();
    run.start_as(json!({"key": "rows"}).into(), 3);
    let Status::Failed { failure } = &run.execution.status else {
        panic!("{:?}", run.execution.status);
    };
    assert!(
        failure.message.contains("No activity is bound"),
        "{failure:?}"
    );
}

#[test]
fn a_chunk_is_not_started_by_what_is_none() {
    let program = compile_value(&each(&json!({"mode": "distributed"})));
    let program = program.chunk("Each").expect("it is there");
    let mut run = Run::new(Arc::new(program));
    run.start(json!({"items": 1}).into());
    assert!(matches!(run.execution.status, Status::Failed { .. }));
    let waits = |step: &Step| matches!(step, Step::Spreading(_));
    assert!(
        !run.execution
            .frames
            .values()
            .any(|frame| waits(&frame.step))
    );
}
