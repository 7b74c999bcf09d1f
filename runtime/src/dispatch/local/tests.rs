//! The queue with the test as engine and worker.

use std::sync::atomic::{AtomicU64, Ordering};

use cascade_cdl::program::Resource;
use cascade_cdl::{ActivityTask, ExecutionId, TaskId, Timestamp};
use serde_json::json;

use super::*;
use crate::catalog::Activity;

const AMPLE: Share = Share {
    weight: 1,
    concurrent_attempts: 1_000,
    fuel_per_second: u64::MAX,
};

/// Workers that no test keeps busy.
const IDLE: Capacity = Capacity {
    places: 10_000,
    crowded_pace: u32::MAX,
};

fn queue(share: impl Fn(&TenantId) -> Share + Send + Sync + 'static) -> LocalQueue {
    LocalQueue::new(IDLE, Arc::new(share))
}

fn task(tenant: &str, number: u64) -> QueuedTask {
    let info = json!({
        "digest": "00", "size": 1, "kind": "handler", "imports": [], "exports": [],
        "powers": [], "componentized": false, "slots": 1,
    });
    QueuedTask {
        tenant: tenant.parse().expect("valid"),
        execution: ExecutionId(uuid::Uuid::nil()),
        application: "app".into(),
        workflow: "w".into(),
        task: ActivityTask {
            task: TaskId(number),
            attempt: 1,
            resource: Resource {
                name: "a".into(),
                version: None,
                region: None,
                child: None,
            },
            state: "S".into(),
            input: json!({}).into(),
            secrets: None,
            scheduled_at: Timestamp(1),
            timeout_ms: None,
            heartbeat_ms: None,
        },
        activity: Arc::new(Activity {
            name: "a".into(),
            version: "v1".into(),
            digest: "00".into(),
            number: 1,
            info: Arc::new(serde_json::from_value(info).expect("as the sandbox describes it")),
            manifest: Arc::default(),
            grants: Arc::default(),
            pure: true,
            limits: crate::sandbox::Limits::default(),
            created_at: Timestamp(0),
        }),
    }
}

/// What an attempt took that gave its output.
fn spent(cost: u64) -> Spent {
    let failed = false;
    Spent { cost, failed }
}

/// Tasks of a tenant, numbered on from `first`.
fn tasks(tenant: &str, first: u64, count: u64) -> Vec<QueuedTask> {
    (first..first + count).map(|n| task(tenant, n)).collect()
}

/// Runs `count` attempts, one after the other, and says how many were whose.
async fn serve(queue: &LocalQueue, count: usize, fuel: impl Fn(&str) -> u64) -> [usize; 2] {
    let mut served = [0; 2];
    for _ in 0..count {
        let held = queue.pull(1).await.pop().expect("open and filled");
        let tenant = held.task.tenant.as_str();
        served[usize::from(tenant != "a")] += 1;
        queue.settle(&held.task.key(), spent(fuel(tenant)));
    }
    served
}

#[tokio::test]
async fn tenants_share_by_fuel_and_not_by_the_number_of_tasks() {
    let queue = queue(|_| AMPLE);
    queue.push(tasks("a", 0, 2_000));
    queue.push(tasks("b", 0, 2_000));
    // Each attempt of `b` burns nine times as much, so `a` gets nine times as many.
    let [a, b] = serve(&queue, 1_000, |t| if t == "a" { 100_000 } else { 900_000 }).await;
    assert!((880..=920).contains(&a), "{a} to {b}");
}

#[tokio::test]
async fn a_weight_of_three_gets_three_times_the_fuel() {
    let queue = queue(|tenant| Share {
        weight: if tenant.as_str() == "a" { 3 } else { 1 },
        ..AMPLE
    });
    queue.push(tasks("a", 0, 2_000));
    queue.push(tasks("b", 0, 2_000));
    let [a, b] = serve(&queue, 1_000, |_| 100_000).await;
    assert!((730..=770).contains(&a), "{a} to {b}");
}

#[tokio::test]
async fn idleness_earns_no_credit() {
    let queue = queue(|_| AMPLE);
    queue.push(tasks("a", 0, 1_000));
    serve(&queue, 500, |_| 1_000_000).await;
    queue.push(tasks("b", 0, 1_000));
    // From here on they alternate: `b` does not catch up on what it never asked for.
    let [a, b] = serve(&queue, 100, |_| 1_000_000).await;
    assert!((45..=55).contains(&b), "{a} to {b}");
}

#[tokio::test]
async fn a_tenant_at_its_concurrency_leaves_the_workers_to_others() {
    let queue = queue(|_| Share {
        concurrent_attempts: 2,
        ..AMPLE
    });
    queue.push(tasks("a", 0, 10));
    queue.push(tasks("b", 0, 1));
    let held = queue.pull(32).await;
    assert_eq!(held.len(), 3, "two of `a`, one of `b`");
    assert_eq!(queue.depth(), 8);
    queue.settle(&held[0].task.key(), spent(1));
    assert_eq!(queue.pull(32).await.len(), 1);
}

#[test]
fn fuel_beyond_the_rate_waits_for_the_bucket() {
    let queue = queue(|_| Share {
        fuel_per_second: 1_000_000,
        ..AMPLE
    });
    queue.push(tasks("a", 0, 2));
    let began = Instant::now();
    let take = |after| queue.lanes().take(1, began + after, &queue.shares);
    let first = take(Duration::ZERO).pop().expect("filled");
    // Five seconds' worth at once: one second was in the bucket, four are owed.
    queue.settle(&first.task.key(), spent(5_000_000));
    assert!(take(Duration::from_millis(3_900)).is_empty());
    let ready = queue
        .lanes()
        .next_refill(began + Duration::from_millis(3_900))
        .expect("it waits for fuel");
    assert!(ready > began + Duration::from_millis(3_900));
    assert!(ready < began + Duration::from_millis(4_200));
    assert_eq!(take(Duration::from_millis(4_200)).len(), 1);
}

#[tokio::test]
async fn a_task_that_is_there_is_not_taken_twice() {
    let queue = queue(|_| AMPLE);
    queue.push(vec![task("a", 1), task("a", 1)]);
    assert_eq!(queue.depth(), 1);
    let held = queue.pull(32).await;
    assert_eq!(held.len(), 1);
    queue.push(vec![task("a", 1)]);
    assert_eq!(queue.depth(), 0, "it runs");
    queue.settle(&held[0].task.key(), spent(1));
    queue.push(vec![task("a", 1)]);
    assert_eq!(
        queue.depth(),
        1,
        "once it has ended it may be asked for again"
    );
}

#[tokio::test]
async fn a_cancelled_task_is_stopped_or_never_taken() {
    let queue = queue(|_| AMPLE);
    queue.push(tasks("a", 0, 3));
    let held = queue.pull(1).await.pop().expect("filled");
    queue.cancel(&held.task.key());
    assert!(held.cancelled.is_cancelled());
    queue.cancel(&task("a", 1).key());
    queue.cancel(&task("a", 1).key());
    assert_eq!(queue.depth(), 1);
    let rest = queue.pull(32).await;
    let numbers: Vec<u64> = rest.iter().map(|held| held.task.task.task.0).collect();
    assert_eq!(numbers, [2]);
}

#[tokio::test]
async fn what_no_worker_has_taken_is_taken_back_and_what_runs_is_let_run() {
    let queue = queue(|_| AMPLE);
    queue.push(tasks("a", 0, 2));
    let held = queue.pull(1).await.pop().expect("open and filled");
    assert!(!queue.withdraw(&held.task.key()));
    assert!(!held.cancelled.is_cancelled());
    let waits = task("a", 1);
    assert!(queue.withdraw(&waits.key()));
    assert!(!queue.withdraw(&waits.key()), "there is nothing any more");
    assert_eq!(queue.depth(), 0);
    queue.push(vec![waits.clone()]);
    let again = queue.pull(1).await.pop().expect("open and filled");
    assert_eq!(again.task.key(), waits.key());
}

#[test]
fn a_cancelled_task_leaves_nothing_behind_though_nothing_is_taken() {
    let queue = queue(|_| Share {
        concurrent_attempts: 0,
        ..AMPLE
    });
    let waiting = task("a", 0);
    let activity = waiting.activity.clone();
    queue.push(vec![waiting]);
    for number in 1..10_000 {
        let task = QueuedTask {
            activity: activity.clone(),
            ..task("a", number)
        };
        let key = task.key();
        queue.push(vec![task]);
        queue.cancel(&key);
        assert_eq!(Arc::strong_count(&activity), 2, "a task is kept");
    }
    let lanes = queue.lanes();
    assert_eq!((lanes.known.len(), lanes.waiting), (1, 1));
    let lane = lanes.by_tenant.values().next().expect("there is one");
    assert!(lane.places.len() <= TIDY_FROM, "{}", lane.places.len());
}

#[tokio::test]
async fn a_lane_of_cancelled_tasks_goes_on_with_what_comes_next() {
    let queue = queue(|_| AMPLE);
    queue.push(tasks("a", 0, 1_000));
    for number in 0..1_000 {
        queue.cancel(&task("a", number).key());
    }
    assert_eq!(queue.depth(), 0);
    // The first of them is asked for once more, and comes after the others.
    queue.push(tasks("a", 1_000, 1));
    queue.push(tasks("a", 0, 1));
    let rest = queue.pull(32).await;
    let numbers: Vec<u64> = rest.iter().map(|held| held.task.task.task.0).collect();
    assert_eq!(numbers, [1_000, 0]);
}

#[test]
fn a_change_of_limits_reaches_a_tenant_that_is_busy() {
    let limit = Arc::new(AtomicU64::new(1));
    let told = limit.clone();
    let queue = queue(move |_| Share {
        concurrent_attempts: u32::try_from(told.load(Ordering::Relaxed)).expect("small"),
        ..AMPLE
    });
    queue.push(tasks("a", 0, 10));
    let now = Instant::now();
    assert_eq!(queue.lanes().take(32, now, &queue.shares).len(), 1);
    limit.store(4, Ordering::Relaxed);
    let later = now + 2 * SHARE_LIFETIME;
    assert_eq!(queue.lanes().take(32, later, &queue.shares).len(), 3);
}

#[tokio::test]
async fn every_puller_is_let_go_when_the_queue_closes() {
    let queue = Arc::new(queue(|_| AMPLE));
    let pullers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.pull(1).await.len() })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    for puller in pullers {
        assert_eq!(puller.await.expect("no panic"), 0);
    }
}

#[tokio::test]
async fn a_tenant_leaves_half_of_the_free_places_to_others() {
    let few = Capacity { places: 16, ..IDLE };
    let queue = LocalQueue::new(few, Arc::new(|_| AMPLE));
    let mut running = Vec::new();
    for (tenant, places) in [("a", 8), ("b", 4), ("c", 2), ("d", 1), ("e", 1)] {
        queue.push(tasks(tenant, 0, 100));
        let held = queue.pull(100).await;
        assert_eq!(held.len(), places, "{tenant}");
        running.extend(held);
    }
    // A place that is free again goes to the tenant that has least.
    queue.push(tasks("f", 0, 1));
    queue.settle(&running.remove(0).task.key(), spent(10_000));
    let next = queue.pull(100).await;
    let next: Vec<_> = next.iter().map(|held| held.task.tenant.as_str()).collect();
    assert_eq!(next, ["f"]);
}

#[tokio::test]
async fn a_batch_of_heavy_attempts_is_short() {
    let queue = queue(|_| AMPLE);
    queue.push(tasks("a", 0, 100));
    assert_eq!(
        queue.pull(32).await.len(),
        32,
        "nothing is known of them yet"
    );
    let queue = super::LocalQueue::new(IDLE, Arc::new(|_| AMPLE));
    queue.push(tasks("a", 0, 200));
    serve(&queue, 40, |_| 400_000).await;
    // What a lane used lately is close to 400,000 by now.
    assert_eq!(queue.pull(32).await.len(), 3);
}

/// Takes what `a` may begin from `from` on, looking every millisecond; it ends
/// at once.
fn begun(queue: &LocalQueue, from: Instant, millis: u64, failed: bool) -> usize {
    let mut count = 0;
    for at in (0..millis).map(|ms| from + Duration::from_millis(ms)) {
        let mut lanes = queue.lanes();
        loop {
            let taken = lanes.take(1_000, at, &queue.shares);
            if taken.is_empty() {
                break;
            }
            for held in taken {
                count += usize::from(held.task.tenant.as_str() == "a");
                lanes.settle(&held.task.key(), Spent { cost: 1, failed }, at);
            }
        }
    }
    count
}

#[test]
fn a_tenant_keeps_its_pace_only_while_others_are_there() {
    let paced = Capacity {
        crowded_pace: 1_000,
        ..IDLE
    };
    let queue = LocalQueue::new(paced, Arc::new(|_| AMPLE));
    let now = Instant::now();
    let push = |tenant, first, count| {
        for task in tasks(tenant, first, count) {
            queue.lanes().push(task, now, &queue.shares);
        }
    };
    push("a", 0, 500);
    assert_eq!(begun(&queue, now, 1, false), 500, "nobody else is there");
    push("b", 0, 1);
    push("a", 500, 4_000);
    // A thousand a second, and the ten milliseconds that it may run ahead.
    assert_eq!(begun(&queue, now, 100, false), 100 + 10);
    let waits = queue.lanes().next_refill(now + Duration::from_millis(99));
    let waits = waits.expect("it waits for its pace");
    assert!(waits > now + Duration::from_millis(99), "{waits:?}");
    assert!(waits < now + Duration::from_millis(102), "{waits:?}");
    let later = now + THERE + Duration::from_millis(1);
    let rest = 4_000 - 110;
    assert_eq!(begun(&queue, later, 1, false), rest, "the others have gone");
}

#[test]
fn a_tenant_whose_attempts_fail_begins_fewer() {
    let paced = Capacity {
        crowded_pace: 1_000,
        ..IDLE
    };
    let queue = LocalQueue::new(paced, Arc::new(|_| AMPLE));
    let now = Instant::now();
    for task in tasks("a", 0, 4_000).into_iter().chain(tasks("b", 0, 1)) {
        queue.lanes().push(task, now, &queue.shares);
    }
    // All that it may run ahead begin before the first has failed.
    let count = begun(&queue, now, 500, true);
    assert!((110..=140).contains(&count), "{count}");
}

#[test]
fn each_tenant_has_a_pace_of_its_own() {
    let paced = Capacity {
        crowded_pace: 100,
        ..IDLE
    };
    let queue = LocalQueue::new(paced, Arc::new(|_| AMPLE));
    let now = Instant::now();
    for task in tasks("a", 0, 50).into_iter().chain(tasks("b", 0, 1)) {
        queue.lanes().push(task, now, &queue.shares);
    }
    let held = queue.lanes().take(1_000, now, &queue.shares);
    let held: Vec<_> = held.iter().map(|held| held.task.tenant.as_str()).collect();
    assert!(held.contains(&"b"), "{held:?}");
    assert!(held.len() < 10, "{held:?}");
}
