//! What an execution is found by.

use std::collections::BTreeMap;

use cascade_cdl::{EventKind, SEMANTICS};
use serde_json::{Value, json};

use crate::compile::compile;
use crate::transcript::{Run, completed, failed, json};

const ORDER: &str = r#"
attributes:
  total: "{{ $.order.total }}"
  large: "{{ $.order.total > 100 }}"
  customer: "{{ $.workflow.input.customer }}"
  due: "{{ $.order.due }}"
  lines: "{{ $.order.lines }}"
  note: "{{ $.order.note }}"
  kind: order
states:
  - {name: Price, type: Task, result: $.order, next: Ship}
  - {name: Ship, type: Task, result: $.shipped, catch: [{error: Lost, next: Gone}]}
  - {name: Gone, type: Fail, error: Lost}
"#;

impl Run {
    fn order(program: &str, labels: &[(&str, &str)]) -> Self {
        let mut run = Self::new(compile(program));
        let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        run.apply(EventKind::ExecutionStarted {
            input: json(r#"{"customer": "acme"}"#),
            shards: 10,
            machine: SEMANTICS,
            parent: None,
            schedule: None,
            shard_key: None,
            priority: None,
            labels: labels.collect(),
        });
        run
    }

    fn succeed(&mut self, output: &str) {
        let task = self.only_task();
        self.apply(completed(task.task, task.attempt, json(output)));
    }

    fn attributes(&self) -> Value {
        self.check_replay();
        json!(self.execution.tags.attributes)
    }
}

#[test]
fn attributes_follow_the_context_and_stay_when_it_is_gone() {
    let mut run = Run::order(ORDER, &[("team", "x")]);
    let first = json!({ "customer": "acme", "kind": "order" });
    assert_eq!(run.attributes(), first);
    run.succeed(r#"{"total": 120, "due": "2026-01-01T00:00:00Z", "lines": [1]}"#);
    let priced = json!({
        "customer": "acme", "kind": "order", "total": 120, "large": true,
        "due": "2026-01-01T00:00:00Z",
    });
    assert_eq!(run.attributes(), priced);
    run.succeed("{}");
    assert!(run.execution.context.is_null(), "it has ended");
    assert_eq!(run.attributes(), priced);
    let labels = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
    assert_eq!(run.execution.tags.labels, labels);
}

#[test]
fn what_the_last_event_brings_is_found_too() {
    let ends = ORDER.replace("next: Ship}", "end: true}").replace(
        "  - {name: Ship, type: Task, result: $.shipped, catch: [{error: Lost, next: Gone}]}\n  - {name: Gone, type: Fail, error: Lost}\n",
        "",
    );
    let mut run = Run::order(&ends, &[]);
    run.succeed(r#"{"total": 7}"#);
    assert!(run.execution.context.is_null(), "it has ended");
    assert_eq!(run.attributes()["total"], 7);
}

#[test]
fn an_attribute_that_cannot_be_is_not_there_and_fails_nothing() {
    let mut run = Run::order(ORDER, &[]);
    let long = "x".repeat(257);
    run.succeed(&format!(
        r#"{{"total": null, "note": "{long}", "lines": {{}}}}"#
    ));
    let found = json!({ "customer": "acme", "kind": "order" });
    assert_eq!(run.attributes(), found);
    let task = run.only_task();
    run.apply(failed(task.task, task.attempt, "Lost", Some(false)));
    assert_eq!(run.attributes(), found);
}

#[test]
fn attributes_change_nothing_of_how_an_execution_goes() {
    let without = ORDER.split_once("states:").expect("has states").1;
    let without = format!("states:{without}");
    let (mut with, mut without) = (Run::order(ORDER, &[]), Run::order(&without, &[]));
    for output in [r#"{"total": 1, "customer": "{{ 1 | uuid }}"}"#, "{}"] {
        with.succeed(output);
        without.succeed(output);
        let mut same = with.execution.clone();
        same.tags = without.execution.tags.clone();
        assert_eq!(same, without.execution);
    }
}

#[test]
fn a_new_version_says_anew_what_its_executions_are_found_by() {
    let mut run = Run::order(ORDER, &[("team", "x")]);
    run.succeed(r#"{"total": 120}"#);
    let other = ORDER.replace(
        "total: \"{{ $.order.total }}\"",
        "sum: \"{{ $.order.total }}\"",
    );
    run.migrate(compile(&other), BTreeMap::new());
    let found = run.attributes();
    assert_eq!(
        (&found["sum"], &found["total"]),
        (&json!(120), &Value::Null)
    );
    let none = ORDER.split_once("states:").expect("has states").1;
    run.migrate(compile(&format!("states:{none}")), BTreeMap::new());
    assert_eq!(run.attributes(), json!({}));
    assert_eq!(run.execution.tags.labels.len(), 1);
}
