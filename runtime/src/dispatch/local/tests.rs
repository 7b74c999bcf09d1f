//! The queue with the test as engine and worker.

use std::sync::atomic::{AtomicU64, Ordering};

use cascade_cdl::program::{Priority, Rate, Resource};
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
        bucket: 0,
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
            priority: Priority::default(),
            rate_limit: None,
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

fn failed(cost: u64) -> Spent {
    let failed = true;
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
/// at once, having spent this.
fn begun(queue: &LocalQueue, from: Instant, millis: u64, spent: Spent) -> usize {
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
                lanes.settle(&held.task.key(), spent, at);
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
    assert_eq!(begun(&queue, now, 1, spent(1)), 500, "nobody else is there");
    push("b", 0, 1);
    push("a", 500, 4_000);
    // A thousand a second, and the ten milliseconds that it may run ahead.
    assert_eq!(begun(&queue, now, 100, spent(1)), 100 + 10);
    let waits = queue.lanes().next_refill(now + Duration::from_millis(99));
    let waits = waits.expect("it waits for its pace");
    assert!(waits > now + Duration::from_millis(99), "{waits:?}");
    assert!(waits < now + Duration::from_millis(102), "{waits:?}");
    let later = now + THERE + Duration::from_millis(1);
    let rest = 4_000 - 110;
    assert_eq!(
        begun(&queue, later, 1, spent(1)),
        rest,
        "the others have gone"
    );
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
    let count = begun(&queue, now, 500, failed(1));
    assert!((110..=140).contains(&count), "{count}");
}

#[test]
fn a_tenant_whose_attempts_fail_at_some_cost_begins_fewer_still() {
    let paced = Capacity {
        crowded_pace: 1_000_000,
        ..IDLE
    };
    let count = |cost| {
        let queue = LocalQueue::new(paced, Arc::new(|_| AMPLE));
        let now = Instant::now();
        for task in tasks("a", 0, 4_000).into_iter().chain(tasks("b", 0, 1)) {
            queue.lanes().push(task, now, &queue.shares);
        }
        begun(&queue, now, 500, failed(cost))
    };
    // A quarter of a millisecond each: so many begin as there are milliseconds, a batch ahead.
    let few = count(250_000);
    assert!((500..=600).contains(&few), "{few}");
    // However long one took, it holds up the next for four milliseconds.
    let fewest = count(10_000_000_000);
    assert!((110..=200).contains(&fewest), "{fewest}");
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

/// A task of a tenant that is so urgent.
fn urgent(number: u64, priority: u8) -> QueuedTask {
    let mut task = task("a", number);
    task.task.priority = priority.try_into().expect("valid");
    task
}

/// The next `count` tasks, by their numbers.
async fn taken(queue: &LocalQueue, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        for held in queue.pull(1).await {
            numbers.push(held.task.task.task.0);
            queue.settle(&held.task.key(), spent(1));
        }
    }
    numbers
}

#[tokio::test]
async fn the_more_urgent_goes_first_and_then_who_came_first() {
    let queue = queue(|_| AMPLE);
    let waiting = [(1, 5), (2, 3), (3, 1), (4, 3), (5, 1), (6, 2)];
    queue.push(
        waiting
            .map(|(number, priority)| urgent(number, priority))
            .into(),
    );
    assert_eq!(taken(&queue, 6).await, [3, 5, 6, 2, 4, 1]);
}

#[tokio::test]
async fn nothing_starves_however_much_comes_that_is_more_urgent() {
    let queue = queue(|_| AMPLE);
    queue.push((1..=3).map(|number| urgent(number, 5)).collect());
    let mut order = Vec::new();
    for number in 100..140 {
        // Two come for each that is taken.
        queue.push(vec![urgent(2 * number, 1), urgent(2 * number + 1, 1)]);
        order.extend(taken(&queue, 1).await);
    }
    let place = |number| order.iter().position(|taken| *taken == number);
    assert_eq!(
        [1, 2, 3].map(place),
        [Some(9), Some(19), Some(29)],
        "{order:?}"
    );
}

#[tokio::test]
async fn urgency_gets_a_tenant_no_more_of_the_workers() {
    let queue = queue(|_| AMPLE);
    queue.push((0..1_000).map(|number| urgent(number, 1)).collect());
    queue.push(tasks("b", 0, 1_000));
    let [a, b] = serve(&queue, 200, |_| 100_000).await;
    assert!((95..=105).contains(&a), "{a} to {b}");
}

/// A task of a state that begins so many attempts a second.
fn rated(tenant: &str, number: u64, state: &str, count: u32) -> QueuedTask {
    let mut task = task(tenant, number);
    task.task.state = state.into();
    task.task.rate_limit = Some(Rate {
        count,
        per_ms: 1_000,
        burst: 1,
    });
    task
}

/// A queue whose time is what the test says.
struct Timed {
    queue: LocalQueue,
    began: Instant,
}

impl Timed {
    fn new() -> Self {
        let queue = queue(|_| AMPLE);
        let began = queue.lanes().began;
        Self { queue, began }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn push(&self, ms: u64, tasks: impl IntoIterator<Item = QueuedTask>) {
        for task in tasks {
            let at = self.at(ms);
            self.queue.lanes().push(task, at, &self.queue.shares);
        }
    }

    /// What a worker gets then, by the numbers.
    fn take(&self, ms: u64) -> Vec<u64> {
        let mut lanes = self.queue.lanes();
        lanes.open_gates(self.at(ms), &self.queue.shares);
        let held = lanes.take(32, self.at(ms), &self.queue.shares);
        held.iter().map(|held| held.task.task.task.0).collect()
    }

    /// When a worker who found nothing looks again.
    fn looks_again(&self, ms: u64) -> Option<Duration> {
        let next = self.queue.lanes().next_refill(self.at(ms));
        next.map(|at| at - self.began)
    }
}

#[test]
fn a_rate_spaces_attempts_and_holds_up_nobody_else() {
    let timed = Timed::new();
    timed.push(0, (1..=4).map(|n| rated("a", n, "S", 10)));
    timed.push(0, (11..=12).map(|n| rated("a", n, "T", 10)));
    timed.push(0, (21..=22).map(|n| rated("b", n, "S", 10)));
    timed.push(0, tasks("a", 31, 3));
    let mut at_once = timed.take(0);
    at_once.sort_unstable();
    assert_eq!(
        at_once,
        [1, 11, 21, 31, 32, 33],
        "the first of each, and what has no rate"
    );
    assert_eq!(timed.queue.depth(), 0, "the others wait for no worker");
    assert!(timed.queue.waits_for_rate(&rated("a", 2, "S", 10).key()));
    assert!(!timed.queue.waits_for_rate(&rated("a", 1, "S", 10).key()));
    assert_eq!(timed.looks_again(1), Some(Duration::from_millis(100)));
    assert_eq!(timed.take(99), [0; 0]);
    let mut second = timed.take(100);
    second.sort_unstable();
    assert_eq!(second, [2, 12, 22]);
    assert_eq!(timed.take(150), [0; 0]);
    assert_eq!(timed.take(200), [3]);
    assert_eq!(timed.take(250), [0; 0]);
    assert_eq!(timed.take(300), [4]);
}

#[test]
fn a_rate_counts_what_a_worker_takes_and_not_what_is_ready() {
    let timed = Timed::new();
    timed.push(0, (1..=3).map(|n| rated("a", n, "S", 10)));
    // No worker comes for a while: what has become due meanwhile does not come in a heap.
    assert_eq!(timed.take(10_000), [1]);
    assert_eq!(timed.take(10_050), [0; 0]);
    assert_eq!(timed.take(10_100), [2]);
}

#[test]
fn a_burst_goes_at_once_and_a_high_rate_in_batches() {
    let timed = Timed::new();
    let burst = |number| {
        let mut task = rated("a", number, "S", 1);
        task.task.rate_limit.as_mut().expect("it has one").burst = 3;
        task
    };
    timed.push(0, (1..=5).map(burst));
    assert_eq!(timed.take(0), [1, 2, 3]);
    timed.push(0, (100..200).map(|n| rated("a", n, "Fast", 1_000)));
    // What falls into ten milliseconds goes at once: a worker takes no longer to come back.
    assert_eq!(timed.take(0).len(), 10);
    assert_eq!(timed.take(10).len(), 10);
}

#[test]
fn what_is_cancelled_leaves_its_place_at_the_gate_to_the_next() {
    let timed = Timed::new();
    let all: Vec<_> = (1..=200).map(|n| rated("a", n, "S", 10)).collect();
    timed.push(0, all.clone());
    // The first has passed, and no worker has it yet; those behind it wait at the gate.
    for task in &all[..199] {
        assert!(timed.queue.withdraw(&task.key()), "nobody has begun it");
    }
    {
        let lanes = timed.queue.lanes();
        assert_eq!((lanes.waiting, lanes.gated, lanes.known.len()), (1, 0, 1));
    }
    assert_eq!(timed.take(0), [200], "at once: none was taken");
    timed.queue.settle(&all[199].key(), spent(1));
    assert_eq!(timed.take(1_000), [0; 0]);
    let lanes = timed.queue.lanes();
    assert!(lanes.gates.is_empty(), "an idle gate is forgotten");
    assert_eq!(lanes.gated_left, 0);
}

#[test]
fn the_more_urgent_passes_a_gate_first() {
    let timed = Timed::new();
    let with = |number, priority: u8| {
        let mut task = rated("a", number, "S", 10);
        task.task.priority = priority.try_into().expect("valid");
        task
    };
    timed.push(0, [with(1, 3), with(2, 3), with(3, 1)]);
    assert_eq!(
        timed.take(0),
        [1],
        "the first passed before the others came"
    );
    assert_eq!(timed.take(100), [3]);
    assert_eq!(timed.take(200), [2]);
}

#[tokio::test]
async fn a_worker_that_waits_is_woken_when_a_gate_opens() {
    let queue = queue(|_| AMPLE);
    queue.push((1..=2).map(|n| rated("a", n, "S", 50)).collect());
    let began = Instant::now();
    for number in [1, 2] {
        let held = queue.pull(32).await;
        assert_eq!(held[0].task.task.task.0, number);
    }
    assert!(began.elapsed() >= Duration::from_millis(19));
}
