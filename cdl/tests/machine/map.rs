//! Map states.

use cascade_cdl::limits::{DEFAULT_CONCURRENCY, MAX_FRAMES, MAX_ITEMS};
use cascade_cdl::{EventKind, Json, Status};
use serde_json::{Value, json};

use crate::compile::{compile, compile_value};
use crate::transcript::{Long, Run, check, completed, failed, json as text};

#[test]
fn iterations_run_a_few_at_a_time_and_give_their_outputs_in_order() {
    check(
        r#"
        states:
          - name: Each
            type: Map
            items: "{{ workflow.input }}"
            max_concurrency: 2
            iterator:
              states:
                - { name: Do, type: Task, parameters: "{{ map.index }}: {{ map.item }}" }
            result: $.all
        "#,
        r#"
        start ["a","b","c"]
          enter Each
          enter Each/0/Do
          schedule Each/0/Do#1 "0: a"
          enter Each/1/Do
          schedule Each/1/Do#1 "1: b"
        complete Do#1 "B"
          exit Each/1/Do "B"
          branch Each/1 done, 2 open
          enter Each/2/Do
          schedule Each/2/Do#1 "2: c"
        complete Do#1 "C"
          exit Each/2/Do "C"
          branch Each/2 done, 1 open
        again
          ignored: the outcome of this attempt is not awaited
        "#,
    );
}

/// Starts a workflow of one state with this input.
fn run(state: &Value, input: &Value) -> Run {
    let mut run = Run::new(compile_value(&json!({"states": [state]})));
    run.start(input.clone().into());
    run
}

fn each(items: &str, states: &Value) -> Value {
    json!({
        "name": "Each", "type": "Map", "items": items, "max_concurrency": 256,
        "iterator": {"states": states}, "result": "$.all",
    })
}

/// The output of an execution that has completed.
#[track_caller]
fn output(run: &Run) -> Value {
    let Status::Completed { output } = &run.execution.status else {
        panic!("not completed: {:?}", run.execution.status);
    };
    run.check_replay();
    output.to_value()
}

#[track_caller]
fn failure(run: &Run) -> (String, String) {
    let Status::Failed { failure } = &run.execution.status else {
        panic!("not failed: {:?}", run.execution.status);
    };
    run.check_replay();
    (failure.error.clone(), failure.message.clone())
}

/// The input of each outstanding task, in the order of their scheduling.
fn inputs(run: &Run) -> Vec<Value> {
    let tasks = run.outstanding.values();
    tasks.map(|task| task.input.to_value()).collect()
}

/// Ends the outstanding task with this input.
#[track_caller]
fn complete(run: &mut Run, input: &Value, output: &Value) -> Vec<String> {
    let task = find(run, input);
    run.apply(completed(task.0, task.1, output.clone().into()))
}

#[track_caller]
fn fail(run: &mut Run, input: &Value, error: &str) -> Vec<String> {
    let task = find(run, input);
    run.apply(failed(task.0, task.1, error, Some(false)))
}

#[track_caller]
fn find(run: &Run, input: &Value) -> (cascade_cdl::TaskId, u32) {
    let mut tasks = run.outstanding.iter();
    let found = tasks.find(|(_, task)| task.input.to_value() == *input);
    *found.unwrap_or_else(|| panic!("no task has {input}")).0
}

#[test]
fn outputs_stand_in_the_order_of_the_items_whichever_ends_first() {
    let mut run = run(
        &each(
            "{{ workflow.input }}",
            &json!([{"name": "Do", "type": "Task"}]),
        ),
        &json!([1, 2, 3]),
    );
    // Without `parameters` a Task in an iteration is given the item.
    assert_eq!(inputs(&run), [json!(1), json!(2), json!(3)]);
    for item in [3, 1, 2] {
        complete(&mut run, &json!(item), &json!(item * 10));
    }
    assert_eq!(output(&run), json!({"all": [10, 20, 30]}));
}

#[test]
fn a_map_over_nothing_gives_an_empty_list() {
    let states = json!([{"name": "Do", "type": "Task"}]);
    let run = run(&each("{{ workflow.input }}", &states), &json!([]));
    assert_eq!(output(&run), json!({"all": []}));
}

#[test]
fn items_that_are_no_list_fail_the_state() {
    let states = json!([{"name": "Do", "type": "Task"}]);
    let run = run(&each("{{ workflow.input }}", &states), &json!({"a": 1}));
    let (error, message) = failure(&run);
    assert_eq!(error, "ExpressionError");
    assert_eq!(message, "`items` is an object, not a list");
}

/// What an iteration writes it alone sees; the context stays as it was.
#[test]
fn iterations_do_not_see_what_others_write() {
    let mut run = Run::new(compile(
        r#"
        states:
          - { name: Before, type: Pass, parameters: { kept: 1, count: 0 }, result: $.seen, next: Each }
          - name: Each
            type: Map
            items: "{{ workflow.input }}"
            max_concurrency: 3
            iterator:
              states:
                - { name: Write, type: Pass, parameters: "{{ map.item }}", result: $.seen.count, next: Wait }
                - { name: Wait, type: Wait, duration: 1s, next: Read }
                - name: Read
                  type: Pass
                  parameters: "{{ [$.seen.count, $.seen.kept, ($ | keys), ($.other | default: 'none')] }}"
                  result: $.other
            result: $.all
        "#,
    ));
    run.start(text("[7,8]"));
    run.pass_time(1_000);
    run.fire_due_timers();
    let keys = json!(["seen", "workflow"]);
    assert_eq!(
        output(&run),
        json!({
            "seen": {"kept": 1, "count": 0},
            "all": [[7, 1, keys, "none"], [8, 1, keys, "none"]],
        })
    );
}

#[test]
fn an_iteration_cannot_write_into_what_is_no_object_outside() {
    let mut run = Run::new(compile(
        r"
        states:
          - { name: Before, type: Pass, parameters: 5, result: $.x, next: Each }
          - name: Each
            type: Map
            items: [1]
            max_concurrency: 1
            iterator: { states: [{ name: Write, type: Pass, parameters: 1, result: $.x.y }] }
        ",
    ));
    run.start(text("null"));
    let (error, message) = failure(&run);
    assert_eq!(error, "ExpressionError");
    assert_eq!(message, "cannot set `$.x.y`: `$.x` is a number");
}

#[test]
fn branches_in_an_iteration_share_what_it_writes() {
    let branches = json!([
        {"name": "writes", "type": "Pass", "parameters": "{{ map.item }}", "result": "$.x"},
        {"name": "reads", "type": "Pass", "parameters": "{{ $.x + 1 }}"},
    ]);
    let states = json!([{"name": "P", "type": "Parallel", "branches": branches}]);
    let run = run(&each("{{ workflow.input }}", &states), &json!([1, 2]));
    assert_eq!(
        output(&run),
        json!({"all": [{"reads": 2, "writes": 1}, {"reads": 3, "writes": 2}]})
    );
}

#[test]
fn a_map_in_a_map_sees_its_own_item_and_those_around() {
    let inner = json!({
        "name": "Inner", "type": "ForEach", "items": "{{ map.item.list }}", "max_concurrency": 256,
        "iterator": {"states": [{
            "name": "Do", "type": "Pass",
            "parameters": "{{ [map.item, map.index, map.parent.item.name, map.parent.index, $.outer] }}",
        }]},
    });
    let states = json!([
        {"name": "Write", "type": "Pass", "parameters": "{{ map.item.name | upper }}", "result": "$.outer", "next": "Inner"},
        inner,
    ]);
    let run = run(
        &each("{{ workflow.input }}", &states),
        &json!([{"name": "a", "list": [1, 2]}, {"name": "b", "list": [3]}]),
    );
    assert_eq!(
        output(&run),
        json!({"all": [[[1, 0, "a", 0, "A"], [2, 1, "a", 0, "A"]], [[3, 0, "b", 1, "B"]]]})
    );
}

#[test]
fn batches_are_lists_of_items_and_the_last_has_what_is_left() {
    let mut state = each(
        "{{ workflow.input }}",
        &json!([{"name": "Do", "type": "Task", "parameters": "{{ [map.index, map.item] }}"}]),
    );
    state["batch"] = json!({"size": 2});
    let run = run(&state, &json!([1, 2, 3, 4, 5]));
    assert_eq!(
        inputs(&run),
        [json!([0, [1, 2]]), json!([1, [3, 4]]), json!([2, [5]])]
    );
}

#[test]
fn without_tolerance_the_first_failure_is_the_states_own_and_cancels_the_rest() {
    let mut state = each(
        "{{ workflow.input }}",
        &json!([{"name": "Do", "type": "Task", "timeout": "1m"}]),
    );
    state["catch"] = json!([{"error": "Declined", "result": "$.error", "next": "Each2"}]);
    let mut run = Run::new(compile_value(&json!({"states": [
        state, {"name": "Each2", "type": "Pass", "parameters": 1},
    ]})));
    run.start(text("[1,2,3]"));
    complete(&mut run, &json!(1), &json!(null));
    let told = fail(&mut run, &json!(2), "Declined");
    assert_eq!(
        told[..2],
        ["cancel Do#1", "caught Each Declined, on to Each2"]
    );
    let error = json!({"error": "Declined", "message": "told", "state": "Do", "details": null});
    assert_eq!(output(&run), json!({"error": error}));
}

fn tolerant(key: &str, most: Value) -> Value {
    let mut state = each(
        "{{ workflow.input }}",
        &json!([{"name": "Do", "type": "Task"}]),
    );
    state[key] = most;
    state
}

#[test]
fn failures_that_are_tolerated_stand_in_the_list() {
    let mut run = run(
        &tolerant("tolerated_failure_count", json!(1)),
        &json!([1, 2, 3]),
    );
    let told = fail(&mut run, &json!(2), "Declined");
    assert_eq!(told, ["branch Each/1 failed Declined, 2 open"]);
    complete(&mut run, &json!(1), &json!("one"));
    complete(&mut run, &json!(3), &json!("three"));
    let error = json!({"error": "Declined", "message": "told", "state": "Do", "details": null});
    assert_eq!(
        output(&run),
        json!({"all": ["one", {"status": "failed", "error": error}, "three"]})
    );
}

#[test]
fn the_last_iteration_may_fail_if_that_is_tolerated() {
    let mut run = run(
        &tolerant("tolerated_failure_percentage", json!(100)),
        &json!([1]),
    );
    fail(&mut run, &json!(1), "Declined");
    assert_eq!(output(&run)["all"][0]["error"]["error"], "Declined");
}

/// 30 % of ten are three; a batch fails with all its items.
#[test]
fn one_failure_too_many_fails_the_state_by_name_and_cancels_the_rest() {
    let ten: Value = (1..=10).collect();
    let mut one = run(&tolerant("tolerated_failure_percentage", json!(30)), &ten);
    for item in 1..=3 {
        fail(&mut one, &json!(item), "Declined");
        assert_eq!(one.execution.status, Status::Running, "{item}");
    }
    let told = fail(&mut one, &json!(4), "Gone");
    assert_eq!(told.iter().filter(|line| *line == "cancel Do#1").count(), 6);
    assert_eq!(
        failure(&one),
        (
            "FailureToleranceExceeded".to_owned(),
            "4 of 10 items failed, more than are tolerated; the last with Gone: told".to_owned(),
        )
    );
    let Status::Failed { failure: last } = &one.execution.status else {
        unreachable!("it failed");
    };
    let details = last.details.as_ref().map(Json::to_value);
    let details = details.expect("the last of them");
    assert_eq!(
        (&details["error"], &details["state"]),
        (&json!("Gone"), &json!("Do"))
    );

    let mut state = tolerant("tolerated_failure_count", json!(3));
    state["batch"] = json!({"size": 2});
    let mut batches = run(&state, &ten);
    fail(&mut batches, &json!([1, 2]), "Declined");
    assert_eq!(batches.execution.status, Status::Running);
    fail(&mut batches, &json!([9, 10]), "Declined");
    assert_eq!(failure(&batches).0, "FailureToleranceExceeded");
}

/// Outputs that are small each are bounded together.
#[test]
fn small_outputs_add_up_to_what_a_map_holds() {
    let items: Vec<u32> = (0..1_030).collect();
    let task = json!({"name": "Do", "type": "Task", "parameters": 1});
    let mut state = each("{{ $.items }}", &json!([task]));
    state["max_concurrency"] = json!(1);
    let list = json!({
        "name": "List", "type": "Pass", "parameters": items, "result": "$.items", "next": "Each",
    });
    let mut long = Long::new(compile_value(&json!({"states": [list, state]})));
    let output = text(&json!("x".repeat(32_700)).to_string());
    let mut ended = 0;
    while !long.execution.is_closed() {
        long.go_on(|task, attempt| completed(task, attempt, output.clone()));
        ended += 1;
    }
    let Status::Failed { failure } = &long.execution.status else {
        panic!("{:?}", long.execution.status);
    };
    assert_eq!(failure.error, "ContextTooLarge");
    // 1,026 of them fit into 32 MiB.
    assert!((1_020..1_030).contains(&ended), "{ended}");
}

/// The Map waits for room, or for the execution to go on, with nothing that runs.
#[test]
fn a_retry_opens_what_waited_while_it_was_paused() {
    check(
        r#"
        states:
          - name: P
            type: Parallel
            branches:
              - name: m
                states:
                  - name: Each
                    type: Map
                    items: "{{ [1, 2] }}"
                    max_concurrency: 1
                    iterator: { states: [{ name: Do, type: Task, parameters: "{{ map.item }}" }] }
              - { name: f, type: Task, parameters: 0 }
        "#,
        r#"
        start null
          enter P
          enter P/m/Each
          enter P/m/Each/0/Do
          schedule P/m/Each/0/Do#1 1
          enter P/f/f
          schedule P/f/f#1 0
        pause wait
          paused: wait
        complete Do#1 10
          exit P/m/Each/0/Do 10
          branch P/m/Each/0 done, 1 open
        fail f#1 Broken final
          failed Broken at f: told
        retry
          goes on
          enter P/m/Each/1/Do
          schedule P/m/Each/1/Do#1 2
          enter P/f/f
          schedule P/f/f#1 0
        complete f#1 0
          exit P/f/f 0
          branch P/f done, 1 open
        complete Do#1 20
          exit P/m/Each/1/Do 20
          branch P/m/Each/1 done, 0 open
          exit P/m/Each [10,20]
          branch P/m done, 0 open
          exit P {"f":0,"m":[10,20]}
          completed {}
        "#,
    );
}

#[test]
fn a_retry_runs_what_failed_and_what_was_cancelled_and_keeps_what_had_ended() {
    let mut state = tolerant("tolerated_failure_count", json!(1));
    state["max_concurrency"] = json!(2);
    let mut run = run(&state, &json!([1, 2, 3, 4]));
    complete(&mut run, &json!(1), &json!("one"));
    fail(&mut run, &json!(2), "Declined");
    fail(&mut run, &json!(3), "Declined");
    assert_eq!(failure(&run).0, "FailureToleranceExceeded");
    run.apply(EventKind::RetryRequested {});
    // The third, which was one too many, and the fourth stopped where they were.
    assert_eq!(inputs(&run).len(), 2);
    complete(&mut run, &json!(3), &json!("three"));
    complete(&mut run, &json!(4), &json!("four"));
    complete(&mut run, &json!(2), &json!("two"));
    assert_eq!(
        output(&run),
        json!({"all": ["one", "two", "three", "four"]})
    );
}

#[test]
fn only_so_many_frames_exist_at_a_time_as_iterations_may_run() {
    let items: Value = (0..200).collect();
    let mut state = each(
        "{{ workflow.input }}",
        &json!([{"name": "Do", "type": "Task"}]),
    );
    state["max_concurrency"] = Value::Null;
    let mut run = run(&state, &items);
    let open = usize::try_from(DEFAULT_CONCURRENCY).expect("small");
    for item in 0..200 {
        assert_eq!(run.outstanding.len(), open.min(200 - item));
        assert_eq!(run.execution.frames.len(), 1 + run.outstanding.len());
        complete(&mut run, &json!(item), &json!(item));
    }
    assert_eq!(output(&run)["all"], items);
}

#[test]
fn items_are_bounded() {
    let state = each(
        "{{ workflow.input }}",
        &json!([{"name": "Do", "type": "Task"}]),
    );
    let most = usize::try_from(MAX_ITEMS).expect("small");
    let fits = run(&state, &json!(vec![0; most]));
    assert_eq!(fits.execution.status, Status::Running);
    let over = run(&state, &json!(vec![0; most + 1]));
    assert_eq!(failure(&over).0, "ItemLimitExceeded");
}

fn wide(name: &str, items: usize) -> Value {
    json!({
        "name": name, "type": "Map", "items": vec![0; items], "max_concurrency": 256,
        "iterator": {"states": [{"name": "Do", "type": "Task", "parameters": 1}]},
    })
}

#[test]
fn maps_leave_frames_to_each_other() {
    // Four branches with 256 iterations each want 1,029 frames with the root's.
    // The first gets them all, the second what is left of half, the others one.
    let branches: Vec<_> = (0..4).map(|n| wide(&format!("m{n}"), 256)).collect();
    let state = json!({"name": "P", "type": "Parallel", "branches": branches});
    let run = run(&state, &Value::Null);
    assert_eq!(run.execution.status, Status::Running);
    assert_eq!(run.execution.frames.len(), MAX_FRAMES / 2 + 2);
}

#[test]
fn a_map_in_a_map_ends_whatever_they_want() {
    let mut outer = each("{{ workflow.input }}", &json!([wide("Inner", 30)]));
    outer["result"] = Value::Null;
    let mut run = run(&outer, &json!(vec![0; 40]));
    while !run.execution.is_closed() {
        assert!(run.execution.frames.len() <= MAX_FRAMES);
        complete(&mut run, &json!(1), &Value::Null);
    }
    assert_eq!(output(&run), json!({}));
}

#[test]
fn a_map_without_a_frame_for_any_iteration_fails() {
    // Four frames for each of 256 branches, and the root's.
    let nested = |depth| {
        (0..depth).fold(json!({"name": "Do", "type": "Task"}), |inner, _| {
            let mut state = wide("M", 1);
            state["iterator"]["states"] = json!([inner]);
            state
        })
    };
    for (depth, fits) in [(2, true), (3, false)] {
        let branches: Vec<_> = (0..256)
            .map(|n| json!({"name": format!("b{n}"), "states": [nested(depth)]}))
            .collect();
        let state = json!({"name": "P", "type": "Parallel", "branches": branches});
        let run = run(&state, &Value::Null);
        if fits {
            assert_eq!(run.execution.status, Status::Running);
        } else {
            assert_eq!(failure(&run).0, "FrameLimitExceeded");
        }
    }
}

/// Held once as they wait, and as they run.
#[test]
fn what_a_map_holds_is_bounded() {
    let bytes = |n: usize| "x".repeat(n);
    let mut state = each(
        "{{ [$.workflow.input, $.workflow.input, $.workflow.input] }}",
        &json!([{"name": "Do", "type": "Task", "parameters": 1}]),
    );
    state["max_concurrency"] = json!(1);
    let mut run = run(&state, &json!(bytes(1 << 20)));
    // Three items of 1 MiB each fit the 32 MiB, and so do two outputs of 12 MiB
    // in the place of two of them, but not a third.
    let large = json!(bytes(12 << 20));
    for _ in 0..2 {
        complete(&mut run, &json!(1), &large);
        assert_eq!(run.execution.status, Status::Running);
    }
    complete(&mut run, &json!(1), &large);
    assert_eq!(failure(&run).0, "ContextTooLarge");
}

/// What iterations have written counts as context until they end.
#[test]
fn what_iterations_write_is_bounded_as_the_context_is() {
    let half = json!("x".repeat(1_500_000));
    let states = json!([
        {"name": "Write", "type": "Pass", "parameters": "{{ $.workflow.input }}", "result": "$.copy", "next": "Do"},
        {"name": "Do", "type": "Task", "parameters": "{{ map.item }}"},
    ]);
    let mut state = each("{{ [1, 2, 3, 4] }}", &states);
    let wide = run(&state, &half);
    assert_eq!(failure(&wide).0, "ContextTooLarge");
    // One after the other they fit.
    state["max_concurrency"] = json!(1);
    let mut narrow = run(&state, &half);
    for item in 1..=4 {
        complete(&mut narrow, &json!(item), &json!(item));
    }
    assert_eq!(output(&narrow)["all"], json!([1, 2, 3, 4]));
}

#[test]
fn an_iteration_that_fails_inside_of_a_nested_map_is_borne_by_the_outer_one() {
    let inner = json!({
        "name": "Inner", "type": "Map", "items": "{{ map.item }}", "max_concurrency": 2,
        "iterator": {"states": [{"name": "Check", "type": "Choice", "default": "Good", "choices": [
            {"condition": "{{ map.item == 0 }}", "next": "Bad"},
        ]}, {"name": "Bad", "type": "Fail", "error": "Zero"}, {"name": "Good", "type": "Succeed", "output": 1}]},
    });
    let mut state = each("{{ workflow.input }}", &json!([inner]));
    state["tolerated_failure_count"] = json!(1);
    let run = run(&state, &json!([[1, 0, 2, 3], [1, 2]]));
    let all = &output(&run)["all"];
    assert_eq!(all[0]["error"]["error"], "Zero");
    assert_eq!(all[1], json!([1, 1]));
}
