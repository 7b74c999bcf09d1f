//! Commits, loads, histories and lists of executions.

use std::collections::BTreeMap;

use cascade_cdl::{BUCKETS, TaskId, Timestamp};
use futures::future::join_all;

use super::*;
use crate::store::{CommitError, Error, Filter, HumanTask, ListCursor, Page, TaskFilter};

on_each!(
    what_was_committed_loads_after_a_crash,
    an_execution_grows_by_commits,
    an_execution_keeps_the_version_that_it_was_moved_to,
    a_snapshot_moves_the_history_out_of_the_row,
    a_new_execution_may_come_with_a_snapshot,
    a_batch_may_hold_an_execution_twice,
    batches_of_many_sizes_are_written_whole,
    a_stale_lease_writes_nothing,
    leases_outlive_a_restart,
    another_version_is_a_conflict_and_writes_nothing,
    a_conflict_leaves_other_batches_alone,
    an_empty_batch_is_only_fenced,
    tenants_do_not_see_each_other,
    a_history_is_read_in_pieces,
    a_page_of_a_history_is_bounded_in_bytes,
    lists_are_newest_first_and_stable_under_writes,
    filters_narrow_a_list,
    a_shard_key_stays_with_its_execution_and_lists_it,
    what_people_are_asked_is_written_with_the_execution,
    a_list_of_tasks_is_narrowed_and_goes_page_by_page,
    open_executions_are_found_by_bucket,
    a_closed_store_says_so,
);

async fn what_was_committed_loads_after_a_crash(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let mut summary = row("acme", 1, 2);
    summary.error = Some("Näme".to_owned());
    summary.status = StatusName::Failed;
    summary.closed_at = Some(Timestamp(2_000));
    let batch = vec![commit(summary.clone(), 0)];
    store.commit(&lease, batch).await.expect("commits");

    let subject = subject.crash().await;
    let stored = subject.store().load(&tenant("acme"), id(1)).await;
    let stored = stored.expect("loads").expect("is there");
    assert_eq!(stored.summary, summary);
    assert_eq!(stored.tail, vec![event(1), event(2)]);
    assert_eq!(stored.snapshot, None);
    assert!(stored.tail_bytes > 100, "{} bytes", stored.tail_bytes);
    let found = subject.store().summary(&tenant("acme"), id(1)).await;
    assert_eq!(found.expect("reads"), Some(summary));
}

async fn an_execution_grows_by_commits(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    commit_all(store, &lease, [commit(row("acme", 1, 1), 0)]).await;
    let mut closed = row("acme", 1, 4);
    closed.status = StatusName::Completed;
    closed.closed_at = Some(Timestamp(5));
    closed.wake_at = None;
    closed.idle = false;
    commit_all(store, &lease, [commit(row("acme", 1, 3), 1)]).await;
    commit_all(store, &lease, [commit(closed.clone(), 3)]).await;

    let subject = subject.reopen().await;
    let stored = subject.store().load(&tenant("acme"), id(1)).await;
    let stored = stored.expect("loads").expect("is there");
    assert_eq!(stored.summary, closed);
    assert_eq!(numbers(&stored.tail), [1, 2, 3, 4]);
}

async fn an_execution_keeps_the_version_that_it_was_moved_to(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let at = |version, events| Summary {
        application_version: version,
        ..row("acme", 1, events)
    };
    commit_all(store, &lease, [commit(at(3, 1), 0)]).await;
    commit_all(store, &lease, [commit(at(4, 2), 1)]).await;
    assert_eq!(load(store, 1).await.summary, at(4, 2));
    // The same where the history moves out of the row.
    let spilled = with_snapshot(commit(at(5, 3), 2));
    commit_all(store, &lease, [spilled]).await;
    let subject = subject.crash().await;
    assert_eq!(load(subject.store(), 1).await.summary, at(5, 3));
}

async fn a_snapshot_moves_the_history_out_of_the_row(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let second = with_snapshot(commit(row("acme", 1, 3), 2));
    commit_all(store, &lease, [commit(row("acme", 1, 2), 0)]).await;
    commit_all(store, &lease, [second.clone()]).await;
    let just_after = load(store, 1).await;
    assert!(just_after.tail.is_empty(), "all is in the snapshot");
    assert_eq!(just_after.tail_bytes, 0);
    commit_all(store, &lease, [commit(row("acme", 1, 5), 3)]).await;
    let third = with_snapshot(commit(row("acme", 1, 6), 5));
    commit_all(store, &lease, [third.clone()]).await;
    commit_all(store, &lease, [commit(row("acme", 1, 7), 6)]).await;

    let subject = subject.crash().await;
    let store = subject.store();
    let stored = load(store, 1).await;
    assert_eq!(stored.snapshot, third.snapshot.map(|it| *it));
    assert_eq!(numbers(&stored.tail), [7]);
    let history = store
        .history(&tenant("acme"), id(1), 0, 100, PAGE_BYTES)
        .await;
    let all: Vec<_> = (1..=7).map(event).collect();
    assert_eq!(history.expect("reads"), all, "nothing lost, nothing twice");
}

async fn a_new_execution_may_come_with_a_snapshot(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let first = with_snapshot(commit(row("acme", 1, 2), 0));
    commit_all(store, &lease, [first.clone()]).await;
    let stored = load(store, 1).await;
    assert_eq!(stored.snapshot, first.snapshot.map(|it| *it));
    assert!(stored.tail.is_empty());
    let history = store
        .history(&tenant("acme"), id(1), 0, 100, PAGE_BYTES)
        .await;
    assert_eq!(numbers(&history.expect("reads")), [1, 2]);
}

async fn a_batch_may_hold_an_execution_twice(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let batch = [
        commit(row("acme", 1, 1), 0),
        with_snapshot(commit(row("acme", 1, 2), 1)),
        commit(row("acme", 2, 1), 0),
        commit(row("acme", 1, 3), 2),
    ];
    commit_all(store, &lease, batch).await;
    let stored = load(store, 1).await;
    assert_eq!(
        (stored.summary.version, numbers(&stored.tail)),
        (3, vec![3])
    );
}

/// Sizes at and beside the powers of two that statements come in, and above the largest.
async fn batches_of_many_sizes_are_written_whole(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let mut next = 0;
    for size in [1, 2, 3, 7, 8, 255, 256, 257, 600] {
        let range = next..next + size;
        next += size;
        let new = |expected| {
            let rows = range.clone();
            rows.map(move |number| commit(row("acme", number, expected + 1), expected))
        };
        commit_all(store, &lease, new(0)).await;
        commit_all(store, &lease, new(1)).await;
    }
    for number in 0..next {
        let found = store.summary(&tenant("acme"), id(number)).await;
        assert_eq!(found.expect("reads"), Some(row("acme", number, 2)));
    }
    let counters = store.counters();
    let rows = 2 * u64::try_from(next).expect("few");
    assert_eq!((counters.executions, counters.events), (rows, rows));
}

async fn a_stale_lease_writes_nothing(subject: Subject) {
    let store = subject.store();
    let old = lease(store).await;
    let new = lease(store).await;
    assert_eq!(new.epoch.0, old.epoch.0 + 1);
    let batch = vec![commit(row("acme", 1, 1), 0)];
    let refused = store.commit(&old, batch.clone()).await;
    assert!(
        matches!(refused, Err(CommitError::LeaseLost { held, presented, .. })
            if held == new.epoch && presented == old.epoch),
        "{refused:?}"
    );
    let found = store.summary(&tenant("acme"), id(1)).await;
    assert_eq!(found.expect("reads"), None);
    store.commit(&new, batch).await.expect("the holder may");
}

async fn leases_outlive_a_restart(subject: Subject) {
    let held = lease(subject.store()).await;
    let subject = subject.crash().await;
    let store = subject.store();
    commit_all(store, &held, [commit(row("acme", 1, 1), 0)]).await;
    let taken = lease(store).await;
    assert_eq!(taken.epoch.0, held.epoch.0 + 1, "epochs never repeat");
}

async fn another_version_is_a_conflict_and_writes_nothing(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    commit_all(store, &lease, [commit(row("acme", 1, 2), 0)]).await;
    // (expected, actual) of a second start, a stale writer, one from the
    // future, and an execution that is not there.
    for (number, expected, actual) in [(1, 0, 2), (1, 1, 2), (1, 3, 2), (9, 4, 0)] {
        let beside = commit(row("acme", 2, 1), 0);
        let wrong = commit(row("acme", number, expected + 1), expected);
        let refused = store.commit(&lease, vec![beside, wrong]).await;
        assert!(
            matches!(refused, Err(CommitError::Conflict { execution, expected: e, actual: a })
                if (execution, e, a) == (id(number), expected, actual)),
            "{refused:?}"
        );
    }
    assert_eq!(load(store, 1).await.summary.version, 2);
    let beside = store.summary(&tenant("acme"), id(2)).await;
    assert_eq!(beside.expect("reads"), None, "a batch is all or nothing");
}

/// The batches arrive together, so on a database they share a transaction.
async fn a_conflict_leaves_other_batches_alone(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let stale = Lease {
        epoch: crate::store::Epoch(99),
        ..lease.clone()
    };
    commit_all(store, &lease, [commit(row("acme", 1, 2), 0)]).await;
    let batches = [
        (&lease, commit(row("acme", 2, 1), 0)),
        (&lease, commit(row("acme", 1, 2), 1)), // conflict
        (&stale, commit(row("acme", 3, 1), 0)), // fenced
        (&lease, commit(row("acme", 2, 2), 1)),
        (&lease, commit(row("acme", 1, 3), 2)),
        (&lease, commit(row("acme", 4, 1), 0)),
    ];
    let results = join_all(batches.map(|(lease, one)| store.commit(lease, vec![one]))).await;
    let passed: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(
        passed,
        [true, false, false, true, true, true],
        "{results:?}"
    );
    assert_eq!(load(store, 2).await.summary.version, 2);
    assert_eq!(load(store, 1).await.summary.version, 3);
    let fenced = store.summary(&tenant("acme"), id(3)).await;
    assert_eq!(fenced.expect("reads"), None);
}

async fn an_empty_batch_is_only_fenced(subject: Subject) {
    let store = subject.store();
    let old = lease(store).await;
    store.commit(&old, vec![]).await.expect("held");
    lease(store).await;
    let refused = store.commit(&old, vec![]).await;
    assert!(matches!(refused, Err(CommitError::LeaseLost { .. })));
    assert_eq!(store.counters().commits, 0, "nothing to sync");
}

async fn tenants_do_not_see_each_other(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let batch = [
        with_snapshot(commit(row("acme", 1, 2), 0)),
        commit(row("rival", 1, 1), 0), // the same id: tenants do not share names
        commit(row("rival", 2, 1), 0),
    ];
    commit_all(store, &lease, batch).await;
    let acme = tenant("acme");
    assert_eq!(load(store, 1).await.summary.tenant, acme);
    assert!(store.load(&acme, id(2)).await.expect("reads").is_none());
    assert_eq!(store.summary(&acme, id(2)).await.expect("reads"), None);
    assert!(
        store
            .history(&acme, id(2), 0, 9, PAGE_BYTES)
            .await
            .expect("reads")
            .is_empty()
    );
    let own = store
        .history(&tenant("rival"), id(1), 0, 9, PAGE_BYTES)
        .await;
    assert_eq!(numbers(&own.expect("reads")), [1]);
    for filter in [Filter::default(), running()] {
        let page = store.list(&acme, &filter, None, 9).await.expect("lists");
        assert_eq!(listed(&page), [1]);
    }
    let nobody = store
        .list(&tenant("nobody"), &Filter::default(), None, 9)
        .await;
    assert_eq!(listed(&nobody.expect("lists")), [0; 0]);
}

async fn a_history_is_read_in_pieces(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    commit_all(store, &lease, [commit(row("acme", 1, 3), 0)]).await;
    commit_all(store, &lease, [with_snapshot(commit(row("acme", 1, 4), 3))]).await;
    commit_all(store, &lease, [with_snapshot(commit(row("acme", 1, 6), 4))]).await;
    commit_all(store, &lease, [commit(row("acme", 1, 8), 6)]).await;
    for (after, limit, expected) in [
        (0, 100, vec![1, 2, 3, 4, 5, 6, 7, 8]),
        (0, 2, vec![1, 2]),
        (2, 3, vec![3, 4, 5]),
        (4, 1, vec![5]),
        (6, 100, vec![7, 8]),
        (7, 100, vec![8]),
        (8, 100, vec![]),
        (u64::MAX, 100, vec![]),
        (3, 0, vec![]),
    ] {
        let events = store
            .history(&tenant("acme"), id(1), after, limit, PAGE_BYTES)
            .await;
        assert_eq!(
            numbers(&events.expect("reads")),
            expected,
            "{after} {limit}"
        );
    }
}

/// In chunks of one and of several events, and in the row.
async fn a_page_of_a_history_is_bounded_in_bytes(subject: Subject) {
    const KIB: usize = 1 << 10;
    let store = subject.store();
    let lease = lease(store).await;
    // Each event has a little more than so many KiB.
    let sizes = [1, 100, 100, 1, 1, 1, 300, 1, 1];
    let mut expected = 0;
    for (until, chunk) in [(1, true), (6, true), (7, true), (9, false)] {
        let mut commit = commit(row("acme", 1, until), expected);
        for event in &mut commit.events {
            let index = usize::try_from(event.seq).expect("small") - 1;
            let input = Json::from_value(&json!("x".repeat(sizes[index] * KIB)));
            event.kind = EventKind::ExecutionStarted {
                input,
                shards: 10,
                machine: 1,
                parent: None,
                schedule: None,
                shard_key: None,
                priority: None,
                labels: BTreeMap::new(),
            };
        }
        let commit = if chunk { with_snapshot(commit) } else { commit };
        commit_all(store, &lease, [commit]).await;
        expected = until;
    }
    for (after, limit, kib, pages) in [
        (0, 100, 4 * KIB, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (0, 100, 2, vec![1]),
        (0, 100, 102, vec![1, 2]),
        (0, 100, 203, vec![1, 2, 3, 4]),
        (0, 3, 204, vec![1, 2, 3]),
        (1, 100, 0, vec![2]), // one always comes
        (2, 100, 99, vec![3]),
        (3, 100, 10, vec![4, 5, 6]), // the next chunk does not fit
        (6, 100, 10, vec![7]),
        (7, 100, 1, vec![8]), // out of the row
        (7, 0, 10, vec![]),
        (9, 100, 10, vec![]),
    ] {
        let events = store
            .history(&tenant("acme"), id(1), after, limit, kib * KIB)
            .await;
        let events = numbers(&events.expect("reads"));
        assert_eq!(events, pages, "{after} {limit} {kib}");
    }
}

async fn lists_are_newest_first_and_stable_under_writes(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    for number in 1..=5 {
        commit_all(store, &lease, [commit(row("acme", number, 1), 0)]).await;
    }
    let acme = tenant("acme");
    for filter in [Filter::default(), running()] {
        let first = store.list(&acme, &filter, None, 2).await.expect("lists");
        let next = first.next.expect("more are there");
        assert_eq!(listed(&first), [5, 4]);
        let second = store
            .list(&acme, &filter, Some(next), 2)
            .await
            .expect("lists");
        assert_eq!(listed(&second), [3, 2]);
        let last = store
            .list(&acme, &filter, second.next, 2)
            .await
            .expect("lists");
        assert_eq!((listed(&last), last.next), (vec![1], None));
    }
    let first = store
        .list(&acme, &Filter::default(), None, 2)
        .await
        .expect("lists");
    // A new one and a change to one already shown move nothing.
    commit_all(store, &lease, [commit(row("acme", 6, 1), 0)]).await;
    commit_all(store, &lease, [commit(row("acme", 5, 2), 1)]).await;
    let second = store.list(&acme, &Filter::default(), first.next, 2).await;
    assert_eq!(listed(&second.expect("lists")), [3, 2]);
    let start = store
        .list(
            &acme,
            &Filter::default(),
            Some(ListCursor { at: 0, seq: 0 }),
            2,
        )
        .await;
    assert_eq!(listed(&start.expect("lists")), [0; 0]);
    let end = ListCursor {
        at: u64::MAX,
        seq: u64::MAX,
    };
    let huge = store
        .list(&acme, &Filter::default(), Some(end), u32::MAX)
        .await;
    assert_eq!(huge.expect("lists").items.len(), 6);
}

async fn filters_narrow_a_list(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let statuses = [
        StatusName::Running,
        StatusName::Completed,
        StatusName::Failed,
        StatusName::Cancelled,
        StatusName::TimedOut,
        StatusName::Paused,
    ];
    for (number, status) in (1..).zip(statuses.into_iter().cycle().take(12)) {
        let mut summary = row("acme", number, 1);
        summary.status = status;
        summary.started_at = Timestamp(u64::try_from(number).expect("small") * 100);
        if number > 5 {
            summary.application = "billing".into();
        }
        if number.is_multiple_of(2) {
            summary.workflow = "even".into();
        }
        commit_all(store, &lease, [commit(summary, 0)]).await;
    }
    let only = |status| Filter {
        status: Some(status),
        ..Filter::default()
    };
    let cases = [
        (only(StatusName::Running), vec![7, 1]),
        (only(StatusName::Completed), vec![8, 2]),
        (only(StatusName::Failed), vec![9, 3]),
        (only(StatusName::Cancelled), vec![10, 4]),
        (only(StatusName::TimedOut), vec![11, 5]),
        (only(StatusName::Paused), vec![12, 6]),
        (
            Filter {
                open: true,
                ..Filter::default()
            },
            vec![12, 7, 6, 1],
        ),
        (
            Filter {
                open: true,
                workflow: Some("even".into()),
                ..Filter::default()
            },
            vec![12, 6],
        ),
        (
            Filter {
                application: Some("billing".into()),
                workflow: Some("even".into()),
                ..Filter::default()
            },
            vec![12, 10, 8, 6],
        ),
        (
            Filter {
                started_after: Some(Timestamp(300)), // both ends are outside
                started_before: Some(Timestamp(600)),
                ..Filter::default()
            },
            vec![5, 4],
        ),
        (
            Filter {
                application: Some("nothing' OR 1".into()),
                ..Filter::default()
            },
            vec![],
        ),
        (
            Filter {
                workflow: Some("even".into()),
                ..only(StatusName::Completed)
            },
            vec![8, 2],
        ),
    ];
    for (filter, expected) in cases {
        let page = store.list(&tenant("acme"), &filter, None, 100).await;
        assert_eq!(listed(&page.expect("lists")), expected, "{filter:?}");
    }
}

async fn a_shard_key_stays_with_its_execution_and_lists_it(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let placed = |number: u128, of: &str, key: Option<&str>| Summary {
        shard_key: key.map(Into::into),
        status: if number.is_multiple_of(2) {
            StatusName::Running
        } else {
            StatusName::Failed
        },
        ..row(of, number, 1)
    };
    let keys = [Some("c"), None, Some(""), Some("c"), Some("C"), Some("c")];
    for (number, key) in (1..).zip(keys) {
        commit_all(store, &lease, [commit(placed(number, "acme", key), 0)]).await;
        commit_all(store, &lease, [commit(placed(number, "rival", key), 0)]).await;
    }
    // Neither an update nor a snapshot loses it.
    let mut updated = placed(1, "acme", Some("c"));
    updated.version = 2;
    commit_all(store, &lease, [commit(updated.clone(), 1)]).await;
    updated.version = 3;
    commit_all(store, &lease, [with_snapshot(commit(updated.clone(), 2))]).await;

    let subject = subject.crash().await;
    let store = subject.store();
    assert_eq!(load(store, 1).await.summary, updated);
    let by = |key: &str, status| Filter {
        shard_key: Some(key.to_owned()),
        status,
        ..Filter::default()
    };
    for (filter, expected) in [
        (by("c", None), vec![6, 4, 1]),
        (by("c", Some(StatusName::Running)), vec![6, 4]),
        (by("c", Some(StatusName::Completed)), vec![]),
        (by("", None), vec![3]),
        (by("nobody", None), vec![]),
        (
            Filter {
                workflow: Some("other".into()),
                ..by("c", None)
            },
            vec![],
        ),
    ] {
        let page = store.list(&tenant("acme"), &filter, None, 100).await;
        assert_eq!(listed(&page.expect("lists")), expected, "{filter:?}");
    }
    // Page by page.
    let first = store.list(&tenant("acme"), &by("c", None), None, 2).await;
    let first = first.expect("lists");
    assert_eq!(listed(&first), [6, 4]);
    let rest = store
        .list(&tenant("acme"), &by("c", None), first.next, 2)
        .await;
    assert_eq!(listed(&rest.expect("lists")), [1]);
}

fn asks(of: &str, execution: u128, task: u64, assignee: &str) -> HumanTask {
    HumanTask {
        tenant: tenant(of),
        execution: id(execution),
        task: TaskId(task),
        application: "orders".into(),
        workflow: "process".into(),
        path: "All/'0'".to_owned(),
        state: "Ask".into(),
        assignee: assignee.to_owned(),
        opened_at: Timestamp(5),
        deadline: (task > 1).then_some(Timestamp(9)),
        escalated: 0,
    }
}

fn changing(mut commit: Commit, asked: Vec<HumanTask>, gone: &[u64]) -> Commit {
    let gone = gone.iter().map(|task| TaskId(*task)).collect();
    commit.tasks = TaskChanges { asked, gone };
    commit
}

async fn tasks(store: &dyn Store, of: &str, filter: &TaskFilter) -> Vec<HumanTask> {
    let page = store.human_tasks(&tenant(of), filter, None, 100).await;
    page.expect("lists").items
}

async fn what_people_are_asked_is_written_with_the_execution(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let all = TaskFilter::default();
    let both = vec![asks("acme", 1, 1, "ann"), asks("acme", 1, 2, "bob")];
    let first = changing(commit(row("acme", 1, 1), 0), both.clone(), &[]);
    // A new one that spills at once, and one of another tenant with the same id.
    let second = with_snapshot(commit(row("acme", 2, 2), 0));
    let second = changing(second, vec![asks("acme", 2, 1, "ann")], &[]);
    let foreign = vec![asks("rival", 1, 1, "eve")];
    let third = changing(commit(row("rival", 1, 1), 0), foreign.clone(), &[]);
    commit_all(store, &lease, [first, second, third]).await;
    let listed = [both.clone(), vec![asks("acme", 2, 1, "ann")]].concat();
    assert_eq!(tasks(store, "acme", &all).await, listed);
    assert_eq!(tasks(store, "rival", &all).await, foreign);

    // One is asked of somebody else, in its place; one is gone.
    let mut escalated = asks("acme", 1, 2, "boss");
    escalated.escalated = 1;
    escalated.state = "Ask again".into();
    let change = changing(commit(row("acme", 1, 2), 1), vec![escalated.clone()], &[1]);
    commit_all(store, &lease, [change]).await;
    // What is refused changes nothing.
    let conflict = changing(commit(row("acme", 1, 9), 8), Vec::new(), &[2]);
    let refused = store.commit(&lease, vec![conflict]).await;
    assert!(
        matches!(refused, Err(CommitError::Conflict { .. })),
        "{refused:?}"
    );

    let subject = subject.crash().await;
    let listed = vec![escalated, asks("acme", 2, 1, "ann")];
    assert_eq!(tasks(subject.store(), "acme", &all).await, listed);
    assert_eq!(tasks(subject.store(), "rival", &all).await, foreign);
    let unlisted = subject.store().unlisted(0..BUCKETS).await;
    assert!(unlisted.expect("reads").is_empty());
}

async fn a_list_of_tasks_is_narrowed_and_goes_page_by_page(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let mut all = Vec::new();
    for number in 1..=6_u32 {
        let execution = u128::from(number);
        let mut task = asks("acme", execution, 1, ["ann", "bob"][number as usize % 2]);
        if number > 3 {
            task.application = "billing".into();
            task.workflow = "even".into();
            task.state = "Sign".into();
        }
        let change = changing(
            commit(row("acme", execution, 1), 0),
            vec![task.clone()],
            &[],
        );
        commit_all(store, &lease, [change]).await;
        all.push(task);
    }
    let some = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (TaskFilter::default(), vec![1, 2, 3, 4, 5, 6]),
        (
            TaskFilter {
                assignee: some("ann"),
                ..TaskFilter::default()
            },
            vec![2, 4, 6],
        ),
        (
            TaskFilter {
                assignee: some("nobody"),
                ..TaskFilter::default()
            },
            vec![],
        ),
        (
            TaskFilter {
                application: some("billing"),
                ..TaskFilter::default()
            },
            vec![4, 5, 6],
        ),
        (
            TaskFilter {
                workflow: some("process"),
                ..TaskFilter::default()
            },
            vec![1, 2, 3],
        ),
        (
            TaskFilter {
                state: some("Sign"),
                assignee: some("bob"),
                ..TaskFilter::default()
            },
            vec![5],
        ),
    ] {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|at: usize| all[at - 1].clone())
            .collect();
        assert_eq!(tasks(store, "acme", &filter).await, expected, "{filter:?}");
        assert!(tasks(store, "rival", &filter).await.is_empty());
        // Two at a time.
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store.human_tasks(&tenant("acme"), &filter, after, 2).await;
            let page = page.expect("lists");
            assert!(page.items.len() <= 2);
            paged.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, expected, "{filter:?}");
    }
}

async fn open_executions_are_found_by_bucket(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let mut batch: Vec<_> = (0..20_u32)
        .map(|number| {
            let mut summary = row(["acme", "rival"][number as usize % 2], number.into(), 1);
            summary.bucket = number % 4 * 1_000;
            commit(summary, 0)
        })
        .collect();
    batch[8].summary.status = StatusName::Completed;
    commit_all(store, &lease, batch).await;

    let subject = subject.crash().await;
    let store = subject.store();
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .open_executions(0..2_001, after, 3)
            .await
            .expect("reads");
        found.extend(listed(&page));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected = [0, 4, 12, 16, 1, 5, 9, 13, 17, 2, 6, 10, 14, 18]; // 8 has ended
    assert_eq!(found, expected, "by bucket, then by age");
    let rest = store.open_executions(2_001..BUCKETS, None, 100).await;
    assert_eq!(listed(&rest.expect("reads")), [3, 7, 11, 15, 19]);
}

async fn a_closed_store_says_so(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    store.ping().await.expect("it is open");
    store.close().await;
    store.close().await;
    let refused = store.ping().await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let refused = store
        .commit(&lease, vec![commit(row("acme", 1, 1), 0)])
        .await;
    assert!(
        matches!(refused, Err(CommitError::Store(Error::Closed))),
        "{refused:?}"
    );
    let refused = store.summary(&tenant("acme"), id(1)).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let refused = store.acquire(ShardId(0)).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let refused = store.kv_delete(&tenant("acme"), "k").await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
}

async fn commit_all(store: &dyn Store, lease: &Lease, batch: impl IntoIterator<Item = Commit>) {
    let batch = batch.into_iter().collect();
    store.commit(lease, batch).await.expect("commits");
}

async fn load(store: &dyn Store, number: u128) -> crate::store::Stored {
    let stored = store.load(&tenant("acme"), id(number)).await;
    stored.expect("loads").expect("is there")
}

fn running() -> Filter {
    Filter {
        status: Some(StatusName::Running),
        ..Filter::default()
    }
}

/// The numbers of the executions of a page.
fn listed<C>(page: &Page<Summary, C>) -> Vec<u128> {
    page.items.iter().map(|row| row.id.0.as_u128()).collect()
}
