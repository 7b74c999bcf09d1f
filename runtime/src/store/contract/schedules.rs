//! How far schedules are.

use super::{Subject, on_each, tenant};
use crate::store::ScheduleRow;

on_each!(
    schedules_are_replaced_and_forgotten_apart,
    a_batch_of_schedules_outlives_a_crash,
);

fn row(of: &str, application: &str, name: &str, state: &str) -> ScheduleRow {
    ScheduleRow {
        tenant: tenant(of),
        application: application.to_owned(),
        name: name.to_owned(),
        state: state.to_owned(),
    }
}

async fn schedules_are_replaced_and_forgotten_apart(subject: Subject) {
    let store = subject.store();
    // A state is any text, whatever a format makes of it.
    let odd = "{\"why\": \"1\\n'\\u0000 ümlaut\"}";
    let first = [
        row("acme", "orders", "nightly", "1"),
        row("acme", "billing", "nightly", "2"),
        row("rival", "orders", "nightly", "3"),
    ];
    store.put_schedules(&first).await.expect("puts");
    let second = [
        row("acme", "orders", "nightly", odd),
        row("acme", "orders", "hourly", "5"),
    ];
    store.put_schedules(&second).await.expect("puts");
    store.put_schedules(&[]).await.expect("nothing is no error");
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    let expected = [first[1].clone(), second[1].clone(), second[0].clone()];
    assert_eq!(store.schedules(&acme).await.expect("reads"), expected);
    for _ in 0..2 {
        let forgotten = store.delete_schedule(&acme, "orders", "nightly").await;
        forgotten.expect("the same twice is no error");
    }
    let left = store.schedules(&acme).await.expect("reads");
    assert_eq!(left, expected[..2]);
    assert_eq!(store.schedules(&rival).await.expect("reads"), first[2..]);
}

async fn a_batch_of_schedules_outlives_a_crash(subject: Subject) {
    let rows: Vec<ScheduleRow> = (0..500)
        .map(|number| {
            row(
                "acme",
                "orders",
                &format!("s{number:03}"),
                &"x".repeat(number),
            )
        })
        .collect();
    let put = subject.store().put_schedules(&rows).await;
    put.expect("puts");
    let subject = subject.crash().await;
    let read = subject.store().schedules(&tenant("acme")).await;
    assert_eq!(read.expect("reads"), rows);
}
