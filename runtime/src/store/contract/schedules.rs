//! How far schedules are.

use super::{Subject, lease, on_each, tenant};
use crate::store::{CommitError, ScheduleRow};

on_each!(
    schedules_are_replaced_and_forgotten_apart,
    a_batch_of_schedules_outlives_a_crash,
    who_has_lost_the_shard_writes_no_schedules,
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
    let lease = lease(store).await;
    // A state is any text, whatever a format makes of it.
    let odd = "{\"why\": \"1\\n'\\u0000 ümlaut\"}";
    let first = [
        row("acme", "orders", "nightly", "1"),
        row("acme", "billing", "nightly", "2"),
        row("rival", "orders", "nightly", "3"),
    ];
    store.put_schedules(&lease, &first).await.expect("puts");
    let second = [
        row("acme", "orders", "nightly", odd),
        row("acme", "orders", "hourly", "5"),
    ];
    store.put_schedules(&lease, &second).await.expect("puts");
    store
        .put_schedules(&lease, &[])
        .await
        .expect("nothing is no error");
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    let expected = [first[1].clone(), second[1].clone(), second[0].clone()];
    assert_eq!(store.schedules(&acme).await.expect("reads"), expected);
    for _ in 0..2 {
        let forgotten = store.delete_schedule(&lease, &acme, "orders", "nightly");
        let forgotten = forgotten.await;
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
    let lease = lease(subject.store()).await;
    let put = subject.store().put_schedules(&lease, &rows).await;
    put.expect("puts");
    let subject = subject.crash().await;
    let read = subject.store().schedules(&tenant("acme")).await;
    assert_eq!(read.expect("reads"), rows);
}

async fn who_has_lost_the_shard_writes_no_schedules(subject: Subject) {
    let store = subject.store();
    let stale = lease(store).await;
    let kept = [row("acme", "orders", "nightly", "1")];
    store.put_schedules(&stale, &kept).await.expect("puts");
    let newer = lease(store).await;
    let late = [row("acme", "orders", "nightly", "2")];
    let put = store.put_schedules(&stale, &late);
    let lost = put.await.expect_err("it is fenced");
    assert!(
        matches!(lost, CommitError::LeaseLost { held, .. } if held == newer.epoch),
        "{lost}"
    );
    let acme = tenant("acme");
    let deleted = store
        .delete_schedule(&stale, &acme, "orders", "nightly")
        .await;
    let lost = deleted.expect_err("it is fenced");
    assert!(matches!(lost, CommitError::LeaseLost { .. }), "{lost}");
    let read = store.schedules(&tenant("acme")).await;
    assert_eq!(read.expect("reads"), kept);
}
