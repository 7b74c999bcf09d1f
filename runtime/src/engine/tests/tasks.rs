//! The list of what people are asked, over all executions.

use super::*;
use crate::store::TaskFilter;

impl Bench {
    /// What is listed, as `state assignee` with the path before the state.
    async fn asked(&self) -> Vec<String> {
        let filter = TaskFilter::default();
        let page = self.store.human_tasks(&tenant(), &filter, None, 100).await;
        let items = page.expect("lists").items.into_iter();
        items
            .map(|task| format!("{}/{} {}", task.path, task.state, task.assignee))
            .collect()
    }

    async fn begun(&self, workflow: &str) -> ExecutionId {
        let started = self.engine.start(start(workflow, None)).await;
        started.expect("starts").id
    }

    /// Returns when the execution has so many events, durably.
    async fn has(&self, id: ExecutionId, events: u64) {
        let mut versions = self.engine.watch(&tenant(), id);
        loop {
            let row = self.store.summary(&tenant(), id).await.expect("reads");
            if row.is_some_and(|row| row.version >= events) {
                return;
            }
            versions.changed().await.expect("the engine lives");
        }
    }

    async fn answers(&self, id: ExecutionId, state: &str) {
        let view = self.engine.show(&tenant(), id).await.expect("reads");
        let view = view.expect("is there");
        let task = view
            .execution
            .asked(&view.program)
            .find_map(|(frame, asking, _)| {
                let frame = &view.execution.frames[&frame];
                (*view.program.state(frame.state).name == *state).then_some(asking.task)
            });
        let answer = Answer {
            task: task.expect("is asked"),
            output: json!({"ok": true}).into(),
            by: "ann".to_owned(),
        };
        let taken = self.engine.answer(&tenant(), id, answer).await;
        taken.expect("is taken");
    }
}

const LEGAL: &str = "Review/legal/Legal lea";

#[tokio::test]
async fn the_list_follows_answers_escalations_timeouts_and_the_end() {
    let bench = Bench::new().await;
    let id = bench.begun("review").await;
    assert_eq!(bench.asked().await, [LEGAL, "Review/Money/Money mo"]);
    bench.advance(3_600_000);
    bench.has(id, 2).await;
    assert_eq!(
        bench.asked().await,
        [LEGAL, "Review/Money/Money boss"],
        "in place"
    );
    bench.advance(2 * 3_600_000);
    bench.has(id, 3).await;
    assert_eq!(
        bench.asked().await,
        ["Review/Money/Money boss"],
        "the other is late"
    );
    bench.answers(id, "Money").await;
    assert_eq!(bench.asked().await, [""; 0]);
    assert_eq!(bench.engine.stats().open, 0);
}

#[tokio::test]
async fn the_list_is_of_all_executions_and_stays_over_pauses_and_crashes() {
    let bench = Bench::new().await;
    let first = bench.begun("approve").await;
    let second = bench.begun("review").await;
    let paused = bench.engine.pause(&tenant(), first, "wait".into()).await;
    paused.expect("pauses");
    let all = ["/Ask bob", LEGAL, "Review/Money/Money mo"];
    assert_eq!(bench.asked().await, all, "a paused execution takes answers");
    let bench = bench.crash().await;
    assert_eq!(bench.asked().await, all);
    bench.answers(second, "Legal").await;
    assert_eq!(bench.asked().await, ["/Ask bob", "Review/Money/Money mo"]);
    for id in [first, second] {
        let cancelled = bench.engine.cancel(&tenant(), id, "enough".into()).await;
        cancelled.expect("cancels");
    }
    assert_eq!(bench.asked().await, [""; 0]);
}

#[tokio::test]
async fn a_state_that_is_called_otherwise_is_listed_so() {
    let bench = Bench::new().await;
    bench.begun("approve").await;
    bench.apply("      - name: Ask\n", "      - name: Decide\n");
    let renamed = std::collections::BTreeMap::from([("Ask".to_owned(), "Decide".to_owned())]);
    let mapping = Mapping::from([("approve".to_owned(), renamed)]);
    let moved = bench.engine.migrate(&tenant(), "app", &mapping, None).await;
    let outcome = &moved.expect("the model answers").items[0].outcome;
    assert!(matches!(outcome, Outcome::Moved(2)), "{outcome:?}");
    assert_eq!(bench.asked().await, ["/Decide bob"]);
}
