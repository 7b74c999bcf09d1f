//! Random commits with key-value writes beside them, on the model and on each
//! database, with crashes between them: what one answers and holds, the other must.

use cascade_cdl::Timestamp;
use futures::future::join_all;
use futures::join;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::key_values::{Call, make};
use super::*;
use crate::store::{CommitError, Filter};

/// Few of each, so that random steps meet.
const TENANTS: [&str; 2] = ["acme", "rival"];
const EXECUTIONS: u128 = 3;
const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// Commits of one batch, and key-value writes at the same time.
    Commit {
        stale: bool,
        batch: Vec<Draft>,
        writes: Vec<(&'static str, KvQuota, Call)>,
    },
    /// Somebody takes the shard.
    Acquire,
    Reopen,
    Crash,
}

/// A commit before it is known at which version the execution is.
#[derive(Debug, Clone)]
struct Draft {
    of: usize,
    number: u128,
    events: u64,
    /// Expects this much more than what is there: 0 is right.
    off: u64,
    snapshot: bool,
    status: StatusName,
    wake_at: Option<u64>,
}

fn drafts() -> impl Strategy<Value = Draft> {
    (
        0..TENANTS.len(),
        0..EXECUTIONS,
        1..4_u64,
        prop_oneof![20 => Just(0), 1 => 1..3_u64],
        prop::bool::weighted(0.2),
        prop::sample::select(vec![
            StatusName::Running,
            StatusName::Paused,
            StatusName::Completed,
            StatusName::Failed,
        ]),
        prop::option::of(0..10_u64),
    )
        .prop_map(
            |(of, number, events, off, snapshot, status, wake_at)| Draft {
                of,
                number,
                events,
                off,
                snapshot,
                status,
                wake_at,
            },
        )
}

fn writes() -> impl Strategy<Value = (&'static str, KvQuota, Call)> {
    let length = || 0..6_usize;
    let quotas = vec![
        KvQuota { keys: 2, bytes: 10 },
        KvQuota { keys: 3, bytes: 6 },
        ROOM,
    ];
    let key = || prop::sample::select(&KEYS[..]);
    let call = prop_oneof![
        (key(), length()).prop_map(|(key, new)| Call::Set(key, new)),
        (key(), prop::option::of(length()), length())
            .prop_map(|(key, old, new)| Call::Swap(key, old, new)),
        key().prop_map(Call::Delete),
    ];
    (
        prop::sample::select(&TENANTS[..]),
        prop::sample::select(quotas),
        call,
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = prop::collection::vec(drafts(), 1..5);
    let step = prop_oneof![
        20 => (prop::bool::weighted(0.1), batch, prop::collection::vec(writes(), 0..6))
            .prop_map(|(stale, batch, writes)| Step::Commit { stale, batch, writes }),
        1 => Just(Step::Acquire),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    // Each case opens a database some times; this many take about a second.
    #![proptest_config(Config::with_cases(48))]

    #[test]
    fn sqlite_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            compare(steps, vec![Subject::sqlite().await]).await;
        });
    }
}

proptest! {
    // Each case makes a schema and opens it some times.
    #![proptest_config(Config::with_cases(24))]

    #[test]
    fn all_databases_do_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let databases = vec![Subject::sqlite().await, Subject::postgres().await];
            compare(steps, databases).await;
        });
    }
}

async fn compare(steps: Vec<Step>, mut databases: Vec<Subject>) {
    let model = Subject::model();
    let mut held = lease(model.store()).await;
    for database in &databases {
        assert_eq!(lease(database.store()).await, held);
    }
    for step in steps {
        match step {
            Step::Commit {
                stale,
                batch,
                writes,
            } => {
                let batch = finish(model.store(), &batch).await;
                let mut lease = held.clone();
                lease.epoch.0 -= u64::from(stale);
                let expected = take(model.store(), &lease, batch.clone(), &writes).await;
                for database in &databases {
                    let actual = take(database.store(), &lease, batch.clone(), &writes).await;
                    assert_eq!(actual, expected);
                }
            }
            Step::Acquire => {
                held = lease(model.store()).await;
                for database in &databases {
                    assert_eq!(lease(database.store()).await, held);
                }
            }
            Step::Reopen => {
                let reopened = databases.into_iter().map(Subject::reopen);
                databases = join_all(reopened).await;
            }
            Step::Crash => {
                let crashed = databases.into_iter().map(Subject::crash);
                databases = join_all(crashed).await;
            }
        }
    }
    for database in &databases {
        assert_same(model.store(), database.store()).await;
    }
}

/// Makes commits of drafts. Those of one execution in one batch follow each other.
async fn finish(model: &dyn Store, batch: &[Draft]) -> Vec<Commit> {
    let mut versions = std::collections::BTreeMap::new();
    let mut commits = Vec::new();
    for draft in batch {
        let of = TENANTS[draft.of];
        let stored = model.summary(&tenant(of), id(draft.number)).await;
        let stored = stored.expect("reads").map_or(0, |row| row.version);
        let version = versions.entry((of, draft.number)).or_insert(stored);
        let expected = *version + draft.off;
        *version = expected + draft.events;
        let mut summary = row(of, draft.number, *version);
        summary.status = draft.status;
        summary.wake_at = draft.wake_at.map(Timestamp);
        let commit = commit(summary, expected);
        commits.push(if draft.snapshot {
            with_snapshot(commit)
        } else {
            commit
        });
    }
    commits
}

/// What comes of a batch and the writes beside it.
async fn take(
    store: &dyn Store,
    lease: &Lease,
    batch: Vec<Commit>,
    writes: &[(&str, KvQuota, Call)],
) -> (String, Vec<String>) {
    let writes = writes
        .iter()
        .map(|(of, quota, call)| make(store, of, *quota, *call));
    let (committed, written) = join!(store.commit(lease, batch), join_all(writes));
    (outcome(&committed), written)
}

fn outcome(result: &Result<(), CommitError>) -> String {
    match result {
        Ok(()) => "written".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn assert_same(model: &dyn Store, other: &dyn Store) {
    for of in TENANTS {
        let of = tenant(of);
        for number in 0..EXECUTIONS {
            let number = id(number);
            let expected = model.load(&of, number).await.expect("loads");
            let actual = other.load(&of, number).await.expect("loads");
            assert_eq!(format!("{actual:?}"), format!("{expected:?}"));
            for (after, limit, bytes) in [(0, 1_000, PAGE_BYTES), (2, 3, PAGE_BYTES), (1, 9, 500)] {
                let expected = model.history(&of, number, after, limit, bytes).await;
                let actual = other.history(&of, number, after, limit, bytes).await;
                assert_eq!(actual.expect("reads"), expected.expect("reads"));
            }
        }
        for key in KEYS {
            let expected = model.kv_get(&of, key).await.expect("reads");
            assert_eq!(other.kv_get(&of, key).await.expect("reads"), expected);
        }
        for (status, open) in [
            (None, false),
            (None, true),
            (Some(StatusName::Completed), false),
            (Some(StatusName::Failed), false),
            (Some(StatusName::Running), false),
            (Some(StatusName::Paused), false),
        ] {
            let filter = Filter {
                status,
                open,
                ..Filter::default()
            };
            let expected = pages(model, &of, &filter).await;
            assert_eq!(pages(other, &of, &filter).await, expected);
        }
    }
    let expected = model.open_executions(0..4096, None, 100).await;
    let actual = other.open_executions(0..4096, None, 100).await;
    assert_eq!(actual.expect("reads").items, expected.expect("reads").items);
}

/// A list page by page. Cursors are each store's own.
async fn pages(store: &dyn Store, of: &TenantId, filter: &Filter) -> Vec<Vec<Summary>> {
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = store.list(of, filter, before, 2).await.expect("lists");
        pages.push(page.items);
        before = page.next;
        if before.is_none() {
            return pages;
        }
    }
}
