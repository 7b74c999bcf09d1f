//! Distributed Maps at their bounds, and when something goes wrong.

use std::sync::Arc;

use cascade_cdl::limits::{MAX_CONTEXT_BYTES, MAX_ITEMS, MAX_NESTING};
use cascade_cdl::program::Program;
use cascade_cdl::spread::{
    CHUNK_BYTES, CHUNK_ITEMS, Format, Found, MAX_CHUNKS, ReadTask, SHARED_BYTES, Span, Work,
};
use cascade_cdl::{
    ActivityFailure, AslOptions, EventKind, Failure, Json, Spreading, Status, Step, TaskId,
    Timestamp,
};
use serde_json::{Value, json};

use crate::compile::{compile_asl, compile_value};
use crate::spread::{asked, chunk, each, end_chunk, finish, reading, work};
use crate::transcript::{Run, completed, failed};

fn failure(run: &Run) -> &Failure {
    match &run.execution.status {
        Status::Failed { failure } => failure,
        other => panic!("{other:?}"),
    }
}

fn output(run: &Run) -> Value {
    match &run.execution.status {
        Status::Completed { output } => output.to_value(),
        other => panic!("{other:?}"),
    }
}

fn spreading(run: &Run) -> &Spreading {
    let mut steps = run.execution.frames.values().map(|frame| &frame.step);
    let spreading = steps.find_map(|step| match step {
        Step::Spreading(spreading) => Some(spreading),
        _ => None,
    });
    spreading.expect("a Map in chunks")
}

/// Gives the first task that is asked for this answer.
fn give(run: &mut Run, answer: Value) -> Vec<String> {
    let task = run.outstanding.values().next().expect("one").clone();
    run.apply(completed(task.task, task.attempt, answer.into()))
}

/// Has the first task that is asked for fail.
fn break_off(run: &mut Run, error: &str) {
    let task = run.outstanding.values().next().expect("one").clone();
    run.apply(EventKind::ActivityFailed {
        task: task.task,
        attempt: task.attempt,
        failure: ActivityFailure {
            error: error.to_owned(),
            message: "told".to_owned(),
            retryable: Some(false),
            details: Some(json!({"more": 1}).into()),
        },
        receipt: None,
    });
}

/// A distributed Map over the input.
fn over(more: &Value, input: Value) -> Run {
    let mut all = json!({"mode": "distributed"});
    for (key, value) in more.as_object().expect("keys") {
        all[key] = value.clone();
    }
    let mut run = Run::new(compile_value(&each(&all)));
    run.start(input.into());
    run
}

/// A Map over an object, which has not been read.
fn unread(more: &Value) -> Run {
    let mut all = json!({"items": {"object": "in/{{ 'rows' }}", "format": "csv"}});
    for (key, value) in more.as_object().expect("keys") {
        all[key] = value.clone();
    }
    let mut run = Run::new(compile_value(&each(&all)));
    run.start(json!([]).into());
    run
}

/// What is asked of the reader.
fn read_of(run: &Run) -> ReadTask {
    let task = run.only_task();
    assert_eq!(work(&task), Some(Work::Read));
    serde_json::from_str(task.input.as_str()).expect("a task")
}

fn spans(chunks: usize) -> Value {
    json!(Found::Cut {
        digest: "d".to_owned(),
        headers: None,
        chunks: (0..chunks as u64).map(|n| Span(n, 1, 1)).collect(),
    })
}

#[test]
fn a_list_is_cut_into_chunks_of_whole_batches() {
    let sizes = |run: &Run| -> Vec<(u64, u32)> {
        let chunks = asked(run);
        let portions = chunks.iter().map(|chunk| &chunk.portion);
        portions
            .map(|portion| (portion.first, portion.count))
            .collect()
    };
    let items = json!(vec![1; 600]);
    let run = over(&json!({"max_concurrency": 80}), items.clone());
    assert_eq!(sizes(&run), [(0, CHUNK_ITEMS), (250, 250), (500, 100)]);
    let run = over(&json!({"max_concurrency": 80, "batch": {"size": 7}}), items);
    assert_eq!(sizes(&run), [(0, 252), (252, 252), (504, 96)]);
    // Two quotes belong to the text of each.
    let half = usize::try_from(CHUNK_BYTES / 2).expect("it is small");
    for (length, expected) in [
        (half - 2, &[(0, 2), (2, 2), (4, 1)][..]),
        (half - 3, &[(0, 3), (3, 2)]),
    ] {
        let text = "x".repeat(length);
        // What all chunks see has no room for five of them.
        let list = format!("{{{{ [{}] }}}}", ["workflow.input"; 5].join(", "));
        let run = over(&json!({"max_concurrency": 80, "items": list}), json!(text));
        assert_eq!(sizes(&run), expected, "{length}");
    }
}

#[test]
fn a_list_has_so_many_items_and_no_more() {
    let run = over(&json!({}), json!(vec![1; MAX_ITEMS as usize]));
    assert_eq!(spreading(&run).items, u64::from(MAX_ITEMS));
    let run = over(&json!({}), json!(vec![1; MAX_ITEMS as usize + 1]));
    assert_eq!(failure(&run).error, "ItemLimitExceeded");
    let run = over(&json!({}), json!([]));
    assert_eq!(output(&run)["all"], json!([]));
}

#[test]
fn an_object_has_so_many_chunks_and_no_more() {
    let mut run = unread(&json!({}));
    give(&mut run, spans(MAX_CHUNKS));
    assert_eq!(spreading(&run).items, MAX_CHUNKS as u64);
    let mut run = unread(&json!({}));
    give(&mut run, spans(MAX_CHUNKS + 1));
    assert_eq!(failure(&run).error, "ItemLimitExceeded");
}

#[test]
fn what_goes_with_each_chunk_is_bounded() {
    let most = usize::try_from(SHARED_BYTES).expect("it is small");
    let with = |length: usize| {
        let items = json!({"items": "{{ [1] }}"});
        over(&items, json!("x".repeat(length)))
    };
    let besides = asked(&with(0))[0].shared.len();
    let run = with(most - besides);
    assert_eq!(asked(&run)[0].shared.len(), most);
    let run = with(most - besides + 1);
    assert_eq!(failure(&run).error, "ContextTooLarge");
}

#[test]
fn chunks_nest_only_as_deep_as_executions() {
    for (depth, is_deep) in [(1, false), (MAX_NESTING - 1, false), (MAX_NESTING, true)] {
        let mut run = Run::new(compile_value(&each(&json!({"mode": "distributed"}))));
        run.start_as_child(json!([1]).into(), depth);
        if is_deep {
            assert_eq!(failure(&run).error, "NestingLimitExceeded");
        } else {
            assert_eq!(asked(&run).len(), 1, "{depth}");
        }
    }
}

#[test]
fn an_object_is_named_by_its_bucket_and_its_key() {
    let long = format!("in/{}", "x".repeat(1_021));
    for (name, expected) in [
        (json!("in/a/b"), Some(("in", "a/b"))),
        (json!("in/"), Some(("in", ""))),
        (json!(long), Some(("in", &long[3..]))),
        (json!(format!("{long}x")), None),
        (json!("/a"), None),
        (json!("in"), None),
        (json!(3), None),
    ] {
        let more = json!({"items": {"object": "{{ workflow.input }}", "format": "json"}});
        let mut run = Run::new(compile_value(&each(&more)));
        run.start(name.clone().into());
        let Some((bucket, key)) = expected else {
            assert_eq!(failure(&run).error, "ExpressionError", "{name}");
            continue;
        };
        let read = read_of(&run);
        assert_eq!((&*read.source.bucket, &*read.source.key), (bucket, key));
    }
}

#[test]
fn results_go_below_a_folder_that_no_other_run_has() {
    let mut runs = Vec::new();
    for (name, prefix) in [("out/", ""), ("out/x", "x/"), ("out/x/", "x/")] {
        let run = over(&json!({"results": {"object": name}}), json!([1]));
        let place = asked(&run)[0].place.clone().expect("a place");
        assert_eq!((&*place.bucket, &*place.prefix), ("out", prefix));
        runs.push(place.run.clone());
    }
    assert!(runs.iter().all(|run| run.len() == 36), "{runs:?}");

    let map = |name: &str| {
        json!({
            "name": name, "type": "Map", "mode": "distributed", "items": "{{ [1] }}",
            "results": {"object": "out/x"},
            "iterator": {"states": [{"name": format!("{name}-do"), "type": "Succeed"}]},
        })
    };
    let both = json!({
        "name": "Both", "type": "Parallel",
        "branches": [{"name": "left", "states": [map("L")]}, {"name": "right", "states": [map("R")]}],
    });
    let mut run = Run::new(compile_value(&json!({"states": [both]})));
    run.start(json!(null).into());
    let places = asked(&run).into_iter().filter_map(|chunk| chunk.place);
    let places: Vec<_> = places.map(|place| place.run).collect();
    assert_eq!(places.len(), 2);
    assert_ne!(places[0], places[1]);
}

#[test]
fn chunks_that_are_left_are_counted_down() {
    let mut run = reading(&json!({"max_concurrency": 16}), 4);
    for left in (0..4).rev() {
        assert_eq!(spreading(&run).left(), left + 1);
        let told = give(&mut run, json!({"outcomes": [{"succeeded": 1}]}));
        let end = format!("done, {left} open");
        assert!(told.iter().any(|line| line.ends_with(&end)), "{told:?}");
    }
}

#[test]
fn an_answer_is_awaited_of_the_attempt_that_was_asked_for() {
    let task = json!({"name": "Do", "type": "Task"});
    let mut plain = Run::new(compile_value(&json!({"states": [task]})));
    plain.start(json!(1).into());
    for run in [plain, over(&json!({}), json!([1])), unread(&json!({}))] {
        let task = run.only_task();
        let (own, at) = (task.task, task.scheduled_at);
        let other = TaskId(own.0 + 100);
        let later = Timestamp(at.0 + 1);
        for (task, attempt, at, expected) in [
            (own, 1, at, true),
            (other, 1, at, false),
            (own, 2, at, false),
            (own, 1, later, false),
            (other, 2, at, false),
            (other, 1, later, false),
            (own, 2, later, false),
        ] {
            let awaited = run.execution.awaits_since(task, attempt, at);
            assert_eq!(awaited, expected, "{task:?} {attempt} {at:?}");
            let awaited = run.execution.awaits(task, attempt);
            assert_eq!(awaited, (task, attempt) == (own, 1), "{task:?} {attempt}");
        }
    }
}

#[test]
fn what_is_not_awaited_of_a_map_changes_nothing() {
    let mut run = over(&json!({}), json!([1]));
    let task = run.only_task();
    run.apply(completed(task.task, 2, json!({"outcomes": []}).into()));
    run.apply(failed(TaskId(task.task.0 + 100), 1, "Odd", None));
    assert_eq!(run.only_task(), task);
    end_chunk(&mut run);
    assert_eq!(output(&run)["all"], json!([1]));
}

#[test]
fn a_reader_that_fails_is_asked_again_by_a_retry() {
    let mut run = unread(&json!({}));
    break_off(&mut run, "NotThere");
    let told = failure(&run);
    assert_eq!((&*told.error, &*told.message), ("NotThere", "told"));
    assert_eq!(told.details, Some(json!({"more": 1}).into()));
    run.apply(EventKind::RetryRequested {});
    assert_eq!(work(&run.only_task()), Some(Work::Read));
    give(&mut run, spans(1));
    end_chunk(&mut run);
    assert_eq!(output(&run)["all"], json!([1]));
    run.check_replay();
}

#[test]
fn a_manifest_that_is_not_written_fails_the_map_and_a_retry_writes_it() {
    let mut run = over(&json!({"results": {"object": "out/x"}}), json!([1]));
    let written = json!({"written": {"succeeded": 1, "failed": 0, "bytes": [7, 0]}});
    give(&mut run, written);
    assert_eq!(work(&run.only_task()), Some(Work::Write));
    break_off(&mut run, "Full");
    assert_eq!(failure(&run).error, "Full");
    run.apply(EventKind::RetryRequested {});
    assert_eq!(work(&run.only_task()), Some(Work::Write));
    give(&mut run, json!("there"));
    assert_eq!(output(&run)["all"], json!("there"));
    run.check_replay();
}

#[test]
fn a_chunk_whose_answer_cannot_be_read_is_run_again_by_a_retry() {
    let mut run = reading(&json!({"max_concurrency": 8}), 2);
    give(&mut run, json!({"outcomes": 3}));
    assert_eq!(failure(&run).error, "ItemReadFailed");
    run.apply(EventKind::RetryRequested {});
    assert_eq!(asked(&run)[0].number, 0);
    end_chunk(&mut run);
    end_chunk(&mut run);
    assert_eq!(output(&run)["all"], json!([1, 1]));
    run.check_replay();
}

#[test]
fn more_failures_than_are_borne_fail_the_map_and_a_retry_runs_those_chunks_again() {
    let mut run = over(
        &json!({"max_concurrency": 8, "batch": {"size": 5}, "tolerated_failure_count": 4}),
        json!(vec![1; 500]),
    );
    assert!(asked(&run)[0].bears);
    end_chunk(&mut run);
    let (first, last) = (json!({"error": "A"}), json!({"error": "B"}));
    give(
        &mut run,
        json!({"outcomes": [{"failed": [3, first]}, {"failed": [2, last]}]}),
    );
    let told = failure(&run);
    assert_eq!(told.error, "FailureToleranceExceeded");
    assert!(told.message.starts_with("5 of 500 items"), "{told:?}");
    assert_eq!(told.details, Some(last.into()));
    run.apply(EventKind::RetryRequested {});
    assert_eq!(asked(&run)[0].number, 1);
    // As many as are borne.
    give(
        &mut run,
        json!({"outcomes": [{"failed": [4, first]}, {"succeeded": 2}]}),
    );
    let all = output(&run)["all"].clone();
    assert_eq!((&all[0], &all[2]), (&json!(1), &json!(2)));
    assert_eq!(all[1]["error"], first);
    run.check_replay();
}

#[test]
fn results_of_chunks_may_fill_the_context_and_no_more() {
    let most = usize::try_from(MAX_CONTEXT_BYTES).expect("it is small");
    let answer = |length: usize| json!({"outcomes": [{"succeeded": "x".repeat(length)}]});
    let begin = || reading(&json!({"max_concurrency": 8}), 2);
    let besides = spreading(&begin()).shared.len() + answer(0).to_string().len();
    let mut run = begin();
    give(&mut run, answer(most - besides));
    assert_eq!(spreading(&run).bytes, MAX_CONTEXT_BYTES);
    assert_eq!(run.execution.status, Status::Running);
    let mut run = begin();
    give(&mut run, answer(most - besides + 1));
    assert!(failure(&run).message.contains("`results:"));
}

#[test]
fn what_is_told_of_written_results_does_not_have_to_fit_the_context() {
    let more = json!({"results": {"object": "out/x"}, "tolerated_failure_count": 9});
    let mut run = reading(&more, 2);
    let large = json!({"error": "x".repeat(2 << 20)});
    let written =
        json!({"written": {"succeeded": 0, "failed": 1, "bytes": [0, 7], "error": large}});
    give(&mut run, written.clone());
    give(&mut run, written);
    assert!(spreading(&run).bytes > MAX_CONTEXT_BYTES);
    assert_eq!(work(&run.only_task()), Some(Work::Write));
}

/// A Map in chunks beside a Task that is given `beside`, of which one has to succeed.
fn beside_a_task(beside: Value) -> Run {
    let mut map =
        each(&json!({"mode": "distributed", "items": "{{ [1, 2] }}"}))["states"][1].take();
    map["name"] = json!("Chunks");
    let task = json!({"name": "Other", "type": "Task", "resource": "urn:cascade:activity:other", "parameters": "{{ workflow.input }}", "end": true});
    let branches = json!([{"name": "map", "states": [map]}, {"name": "task", "states": [task]}]);
    let both = json!({"name": "Both", "type": "Parallel", "completion_strategy": "ANY", "branches": branches, "end": true});
    let mut run = Run::new(compile_value(&json!({"states": [both]})));
    run.start(beside.into());
    run
}

#[test]
fn chunks_of_a_branch_that_has_lost_are_given_up() {
    let mut run = beside_a_task(json!(1));
    assert_eq!(run.outstanding.len(), 2);
    let task = run.outstanding.values().find(|task| work(task).is_none());
    let task = task.expect("the Task").clone();
    run.apply(completed(task.task, task.attempt, json!("first").into()));
    assert!(run.outstanding.is_empty(), "{:?}", run.outstanding);
    assert!(matches!(run.execution.status, Status::Completed { .. }));
    run.check_replay();
}

#[test]
fn what_chunks_hold_counts_with_the_rest() {
    // More than goes uncounted, and far from all that there is room for.
    let large = json!("x".repeat(100 << 10));
    let run = beside_a_task(large);
    assert_eq!(run.execution.status, Status::Running);
    assert_eq!(run.outstanding.len(), 2);
}

#[test]
fn a_reader_may_give_the_items_themselves() {
    let mut run = unread(&json!({"max_concurrency": 8}));
    give(&mut run, json!({"whole": (0..300).collect::<Vec<_>>()}));
    let first = &asked(&run)[0];
    assert_eq!(
        (first.portion.count, first.origin.clone()),
        (CHUNK_ITEMS, None)
    );
    assert_eq!(spreading(&run).items, 300);

    let inline = json!({"mode": "inline", "batch": {"size": 2}});
    for (items, expected) in [
        (json!([]), json!([])),
        (
            json!([5, 6, 7]),
            json!([[[5, 6], 0, "seen", 0], [[7], 1, "seen", 0]]),
        ),
    ] {
        let mut run = unread(&inline);
        let read = read_of(&run);
        assert!(read.whole);
        give(&mut run, json!({"whole": items}));
        assert!(matches!(finish(&mut run, &[]), Status::Completed { .. }));
        assert_eq!(output(&run)["all"], expected);
    }
    // How many may fail goes by how many there are.
    let mut run = unread(&json!({"mode": "inline", "tolerated_failure_percentage": 50}));
    give(&mut run, json!({"whole": [1, 2, 3, 4]}));
    assert!(matches!(
        finish(&mut run, &[1, 4]),
        Status::Completed { .. }
    ));
    for (count, is_borne) in [(MAX_ITEMS, true), (MAX_ITEMS + 1, false)] {
        let mut run = unread(&json!({"mode": "inline"}));
        give(&mut run, json!({"whole": vec![1; count as usize]}));
        if is_borne {
            assert_eq!(run.execution.status, Status::Running);
        } else {
            assert_eq!(failure(&run).error, "ItemLimitExceeded");
        }
    }
}

#[test]
fn a_program_that_runs_alone_has_no_chunks() {
    let alone = |program: Arc<Program>| {
        let mut program = (*program).clone();
        program.whole = true;
        Arc::new(program)
    };
    let more = json!({"items": {"object": "in/x", "format": "json"}, "mode": "distributed"});
    let mut run = Run::new(alone(compile_value(&each(&more))));
    run.start(json!([]).into());
    let read = read_of(&run);
    assert!(read.whole);

    let mut run = Run::new(alone(compile_value(&each(&json!({"mode": "distributed"})))));
    run.start(json!([1, 2]).into());
    assert_eq!(
        run.outstanding.len(),
        2,
        "each item is an iteration of its own"
    );

    let mut run = Run::new(alone(asl(&json!({}))));
    run.start(json!({"bucket": "in", "key": "k"}).into());
    let read = read_of(&run);
    assert!(read.whole);
    give(&mut run, json!({"whole": [1, 2]}));

    let mut run = Run::new(alone(asl(&json!({"ItemReader": null}))));
    run.start(json!([1, 2]).into());
    assert_eq!(output(&run), json!([1, 2]));
}

/// What a chunk's execution is started with.
fn start_of(run: &Run) -> Value {
    run.only_task().input.to_value()
}

/// What an execution that is started with it comes to.
fn run_chunk(parent: &Run, start: &Value) -> Run {
    let mut task = parent.only_task();
    task.input = Json::from_value(start);
    let mut run = chunk(&parent.program, &task);
    finish(&mut run, &[]);
    run
}

#[test]
fn iterations_of_a_chunk_are_numbered_from_its_first() {
    let indices = |run: &Run| -> Vec<Value> {
        let outcomes = output(run)["outcomes"].clone();
        let outcomes = outcomes.as_array().expect("a list").iter();
        outcomes
            .map(|outcome| outcome["succeeded"][1].clone())
            .collect()
    };
    let parent = over(&json!({}), json!([1, 2]));
    let mut start = start_of(&parent);
    start["portion"]["first"] = 40.into();
    assert_eq!(indices(&run_chunk(&parent, &start)), [40, 41]);
    // What has no number is told as the last ones.
    start["portion"]["first"] = (1_u64 << 33).into();
    let last = u32::MAX - MAX_ITEMS;
    assert_eq!(indices(&run_chunk(&parent, &start)), [last, last + 1]);

    let parent = over(&json!({"batch": {"size": 2}}), json!([1, 2, 3]));
    let mut start = start_of(&parent);
    start["portion"]["first"] = 40.into();
    assert_eq!(indices(&run_chunk(&parent, &start)), [20, 21]);
}

#[test]
fn a_map_inside_of_a_chunk_gives_its_own_list() {
    let inner = json!({
        "name": "In", "type": "Map", "items": "{{ [map.item, 7] }}",
        "iterator": {"states": [{"name": "Do", "type": "Succeed", "output": "{{ map.item }}"}]},
    });
    let more = json!({"iterator": {"states": [inner]}});
    let mut run = over(&more, json!([1, 2]));
    finish(&mut run, &[]);
    assert_eq!(output(&run)["all"], json!([[1, 7], [2, 7]]));
}

#[test]
fn what_starts_a_chunk_has_room_in_a_context() {
    let most = usize::try_from(MAX_CONTEXT_BYTES).expect("it is small");
    let parent = over(&json!({}), json!([""]));
    let with = |length: usize| {
        let mut start = start_of(&parent);
        start["portion"]["items"] = json!(["x".repeat(length)]);
        start
    };
    let besides = Json::from_value(&with(0)).len();
    let refused = |length: usize| {
        let run = run_chunk(&parent, &with(length));
        matches!(&run.execution.status, Status::Failed { failure } if failure.error == "InvalidInput")
    };
    assert!(!refused(0));
    assert!(!refused(most - besides));
    assert!(refused(most - besides + 1));
}

/// An ASL Map in chunks over an object, with keys of the state changed; `null` drops one.
fn asl(more: &Value) -> Arc<Program> {
    let mut state = json!({
        "Type": "Map", "End": true, "MaxConcurrency": 8,
        "ItemReader": {"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "JSONL"},
                       "Parameters": {"Bucket.$": "$.bucket", "Key.$": "$.key"}},
        "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "End": true}}},
        "ResultWriter": {"Resource": "arn:aws:states:::s3:putObject",
                         "Parameters": {"Bucket": "out", "Prefix": "x"}},
    });
    let state_keys = state.as_object_mut().expect("keys");
    for (key, value) in more.as_object().expect("keys") {
        if value.is_null() {
            state_keys.remove(key);
        } else {
            state_keys.insert(key.clone(), value.clone());
        }
    }
    let definition = json!({"StartAt": "Each", "States": {"Each": state}}).to_string();
    compile_asl(&definition, &AslOptions::default())
}

fn asl_run(more: &Value, input: Value) -> Run {
    let mut run = Run::new(asl(more));
    run.start(input.into());
    run
}

#[test]
fn an_asl_reader_says_which_object_or_which_listing() {
    let reader = |resource: &str, config: Value| {
        let parameters = match resource {
            "getObject" => json!({"Bucket.$": "$.bucket", "Key.$": "$.key"}),
            _ => json!({"Bucket.$": "$.bucket", "Prefix.$": "$.key"}),
        };
        let mut reader = json!({
            "Resource": format!("arn:aws:states:::s3:{resource}"), "Parameters": parameters,
        });
        if !config.is_null() {
            reader["ReaderConfig"] = config;
        }
        json!({"ItemReader": reader})
    };
    let lines = |most: u64| json!({"InputType": "JSONL", "MaxItems": most});
    for (resource, config, bucket, key, expected) in [
        (
            "getObject",
            lines(5),
            "in",
            "k",
            Some((Format::Ndjson, Some(5))),
        ),
        (
            "getObject",
            lines(1),
            "in",
            "k",
            Some((Format::Ndjson, Some(1))),
        ),
        (
            "getObject",
            lines(0),
            "in",
            "k",
            Some((Format::Ndjson, None)),
        ),
        (
            "getObject",
            json!({"InputType": "JSON"}),
            "in",
            "k",
            Some((Format::Json, None)),
        ),
        ("getObject", lines(5), "", "k", None),
        ("getObject", lines(5), "in", "", None),
        (
            "listObjectsV2",
            Value::Null,
            "in",
            "k",
            Some((Format::Listing, None)),
        ),
        (
            "listObjectsV2",
            Value::Null,
            "in",
            "",
            Some((Format::Listing, None)),
        ),
        ("listObjectsV2", Value::Null, "", "k", None),
    ] {
        let input = json!({"bucket": bucket, "key": key});
        let run = asl_run(&reader(resource, config), input);
        let Some((format, most)) = expected else {
            assert_eq!(failure(&run).error, "States.ItemReaderFailed");
            continue;
        };
        let read = read_of(&run);
        assert_eq!((read.source.format, read.source.max_items), (format, most));
        assert_eq!((&*read.source.bucket, &*read.source.key), (bucket, key));
        assert!(!read.whole);
    }
}

#[test]
fn an_asl_map_names_its_failures_as_aws_does() {
    let input = json!({"bucket": "in", "key": "k"});
    let mut run = asl_run(&json!({}), input.clone());
    break_off(&mut run, "NotThere");
    assert_eq!(failure(&run).error, "States.ItemReaderFailed");

    let mut run = asl_run(&json!({}), input.clone());
    give(&mut run, spans(1));
    give(
        &mut run,
        json!({"written": {"succeeded": 1, "failed": 0, "bytes": [7, 0]}}),
    );
    break_off(&mut run, "Full");
    assert_eq!(failure(&run).error, "States.ResultWriterFailed");

    let mut run = asl_run(&json!({}), input.clone());
    give(&mut run, spans(1));
    break_off(&mut run, "Odd");
    assert_eq!(failure(&run).error, "Odd");

    let last = json!({"error": "B"});
    let mut run = asl_run(&json!({"ResultWriter": null}), input);
    give(&mut run, spans(1));
    give(&mut run, json!({"outcomes": [{"failed": [1, last]}]}));
    let told = failure(&run);
    assert_eq!(told.error, "States.ExceedToleratedFailureThreshold");
    assert_eq!(told.details, Some(last.into()));
}

#[test]
fn an_asl_map_leaves_out_the_results_of_what_failed() {
    let more = json!({"ResultWriter": null, "ToleratedFailureCount": 1});
    let mut run = asl_run(&more, json!({"bucket": "in", "key": "k"}));
    give(&mut run, spans(2));
    give(
        &mut run,
        json!({"outcomes": [{"failed": [1, {"error": "B"}]}]}),
    );
    give(&mut run, json!({"outcomes": [{"succeeded": 2}]}));
    assert_eq!(output(&run), json!([2]));
}

#[test]
fn an_asl_map_is_in_chunks_only_if_it_is_distributed_and_writes_its_results() {
    let inline = json!({"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Pass",
        "States": {"Pass": {"Type": "Pass", "End": true}}});
    for (more, is_cut) in [
        (json!({"ItemReader": null}), true),
        (json!({"ItemReader": null, "ResultWriter": null}), false),
        (
            json!({"ItemReader": null, "ResultWriter": null, "ItemProcessor": inline}),
            false,
        ),
    ] {
        let run = asl_run(&more, json!([1, 2]));
        if is_cut {
            let place = asked(&run)[0].place.clone().expect("a place");
            assert_eq!((&*place.bucket, &*place.prefix), ("out", "x/"));
        } else {
            assert_eq!(output(&run), json!([1, 2]), "{more}");
        }
    }

    // Of an object it reads all, and runs them itself.
    let mut run = asl_run(
        &json!({"ItemProcessor": inline}),
        json!({"bucket": "in", "key": "k"}),
    );
    let read = read_of(&run);
    assert!(read.whole);
    assert_eq!(spreading(&run).place, None);
    give(&mut run, json!({"whole": [1, 2]}));
    assert_eq!(output(&run), json!([1, 2]));
}

#[test]
fn an_asl_batch_has_no_limit_if_it_asks_for_none() {
    let batcher = json!({"MaxItemsPerBatchPath": "$.most", "MaxInputBytesPerBatch": 26});
    let more = json!({"ItemReader": null, "ItemsPath": "$.items", "ItemBatcher": batcher});
    for (most, expected) in [(0, None), (1, Some(1)), (2, Some(2))] {
        let run = asl_run(&more, json!({"most": most, "items": [1, 2]}));
        let made = asked(&run)[0].batches.clone().expect("batches");
        assert_eq!((made.items, made.bytes), (expected, Some(26)));
    }
}

#[test]
fn an_asl_chunk_has_room_for_the_input_and_the_variables_of_its_state() {
    let more = json!({"ItemReader": null, "ItemsPath": "$.items"});
    let parent = asl_run(&more, json!({"items": [1]}));
    let mut start = start_of(&parent);
    // More than is held without being counted.
    let item = json!("x".repeat(40_000));
    start["portion"]["items"] = json!([item]);
    start["shared"]["state"] = json!({
        "input": "x".repeat(60_000), "variables": {"v": "x".repeat(2_000)},
    });
    let run = run_chunk(&parent, &start);
    assert_eq!(output(&run), json!({"outcomes": [{"succeeded": item}]}));
}
