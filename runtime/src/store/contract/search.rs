//! How executions are found: whatever is asked for, what holds is shown, in order, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::tags::Scalar;
use cascade_cdl::{Tags, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::store::search::SCAN_ROWS;
use crate::store::{CountGroup, Filter, ListCursor, Operator, TagTest};

on_each! {
    tags_are_shown_replaced_and_found,
    attributes_compare_by_their_types,
    lists_are_in_the_order_of_starts_and_then_of_ends,
    every_filter_shows_and_counts_what_holds,
    pages_neither_repeat_nor_skip_what_was_there_throughout,
}

/// Few values of each, so that filters meet some.
const WORKFLOWS: [&str; 3] = ["process", "refund", "audit"];
const VALUES: [&str; 3] = ["a", "b", ""];

/// Random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64: no test needs better ones.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[usize::try_from(self.below(some.len() as u64)).expect("short")]
    }
}

fn tags(labels: &[(&str, &str)], attributes: &[(&str, Value)]) -> Option<Arc<Tags>> {
    let labels = labels.iter();
    let attributes = attributes.iter();
    let tags = Tags {
        labels: labels.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        attributes: attributes.map(|(k, v)| ((*k).into(), v.clone())).collect(),
    };
    Some(Arc::new(tags)).filter(|tags| !tags.is_empty())
}

fn tagged(mut commit: Commit, tags: Option<Arc<Tags>>) -> Commit {
    commit.summary.tags = tags;
    commit.retag = true;
    commit
}

fn label(name: &str, value: Option<&str>) -> TagTest {
    TagTest::Label {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn attribute(name: &str, is: Option<(Operator, Value)>) -> TagTest {
    let is = is.map(|(operator, value)| (operator, Scalar::of(&value).expect("a scalar")));
    let name = name.to_owned();
    TagTest::Attribute { name, is }
}

fn with(tags: &[TagTest]) -> Filter {
    Filter {
        tags: tags.to_vec(),
        ..Filter::default()
    }
}

/// The executions that a list shows, page by page.
async fn shown(store: &dyn Store, filter: &Filter, limit: u32) -> Vec<u128> {
    let (mut all, mut before) = (Vec::new(), None::<ListCursor>);
    loop {
        let page = store.list(&tenant("acme"), filter, before, limit).await;
        let page = page.expect("lists");
        all.extend(page.items.iter().map(|row| row.id.0.as_u128()));
        before = page.next;
        if before.is_none() {
            return all;
        }
    }
}

async fn tags_are_shown_replaced_and_found(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let first = tags(
        &[("team", "x")],
        &[("amount", json!(5)), ("vip", json!(true))],
    );
    let both = vec![
        tagged(commit(row("acme", 1, 1), 0), first.clone()),
        tagged(commit(row("rival", 1, 1), 0), first.clone()),
        commit(row("acme", 2, 1), 0),
        // Begun and changed in one group.
        tagged(commit(row("acme", 3, 1), 0), first.clone()),
        tagged(commit(row("acme", 3, 2), 1), tags(&[("team", "x")], &[])),
    ];
    store.commit(&lease, both).await.expect("commits");
    // A commit that does not say so changes none, whatever its row has.
    store
        .commit(&lease, vec![commit(row("acme", 1, 2), 1)])
        .await
        .expect("commits");
    let found = store.summary(&tenant("acme"), id(1)).await.expect("reads");
    assert_eq!(found.expect("is there").tags, first);
    let second = tags(&[("team", "x")], &[("amount", json!(7))]);
    let changed = tagged(commit(row("acme", 1, 3), 2), second.clone());
    let changed = with_snapshot(changed);
    store.commit(&lease, vec![changed]).await.expect("commits");

    let subject = subject.crash().await;
    let store = subject.store();
    let page = store
        .list(&tenant("acme"), &Filter::default(), None, 9)
        .await;
    let page = page.expect("lists").items;
    let of: Vec<_> = page.iter().map(|row| row.tags.clone()).collect();
    assert_eq!(of, [tags(&[("team", "x")], &[]), None, second.clone()]);
    let stored = store.load(&tenant("acme"), id(1)).await.expect("reads");
    assert_eq!(stored.expect("is there").summary.tags, second);
    let equal = |number: i64| attribute("amount", Some((Operator::Equal, json!(number))));
    for (tests, expected) in [
        (vec![label("team", Some("x"))], vec![3, 1]),
        (vec![label("team", None)], vec![3, 1]),
        (vec![label("team", Some("y"))], vec![]),
        (vec![label("amount", None)], vec![]),
        (vec![equal(7)], vec![1]),
        (vec![equal(5)], vec![]),
        (vec![attribute("vip", None)], vec![]),
        (vec![attribute("team", None)], vec![]),
        (vec![label("team", Some("x")), equal(7)], vec![1]),
        (
            vec![label("team", Some("x")), attribute("vip", None)],
            vec![],
        ),
    ] {
        assert_eq!(shown(store, &with(&tests), 1).await, expected, "{tests:?}");
    }
}

async fn attributes_compare_by_their_types(subject: Subject) {
    use Operator::{AtLeast, AtMost, Equal, Greater, Less, Unequal};

    let store = subject.store();
    let lease = lease(store).await;
    let values = [
        json!(-1.5),
        json!(0),
        json!(-0.0),
        json!(9_007_199_254_740_993_i64), // no float of 64 bits is this
        json!(9_007_199_254_740_992_i64),
        json!(u64::MAX),
        json!("2026-01-01T00:00:00Z"),
        json!("2026-01-01T01:00:00+01:00"),
        json!("zebra"),
        json!("Zebra"),
        json!("10"),
        json!(false),
        json!(true),
    ];
    let commits = values.iter().zip(1..).map(|(value, number)| {
        let tags = tags(&[], &[("a", value.clone())]);
        tagged(commit(row("acme", number, 1), 0), tags)
    });
    store
        .commit(&lease, commits.collect())
        .await
        .expect("commits");
    for (operator, value, expected) in [
        (Equal, json!(0.0), vec![3, 2]),
        (Less, json!(0), vec![1]),
        (AtMost, json!(0), vec![3, 2, 1]),
        (Greater, json!(0), vec![6, 5, 4]),
        (Greater, json!(9_007_199_254_740_992_i64), vec![6, 4]),
        (AtLeast, json!(9_007_199_254_740_992_i64), vec![6, 5, 4]),
        (Equal, json!(9_007_199_254_740_993_i64), vec![4]),
        (Greater, json!(1e300), vec![]),
        (Less, json!(-1e300), vec![]),
        (Equal, json!("2026-01-01T00:00:00Z"), vec![8, 7]),
        (AtLeast, json!("2025-12-31T23:59:59Z"), vec![8, 7]),
        (Greater, json!("2026-01-01T00:00:00.001Z"), vec![]),
        (Less, json!("a"), vec![11, 10]),
        (Equal, json!("10"), vec![11]),
        (Equal, json!(true), vec![13]),
        (Unequal, json!(true), (1..=12).rev().collect()),
        (Unequal, json!("zebra"), {
            let mut all: Vec<_> = (1..=13).rev().collect();
            all.retain(|number| *number != 9);
            all
        }),
    ] {
        let filter = with(&[attribute("a", Some((operator, value)))]);
        assert_eq!(shown(store, &filter, 100).await, expected, "{filter:?}");
    }
}

async fn lists_are_in_the_order_of_starts_and_then_of_ends(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    // Written in this order; started and ended in others, in seconds.
    let times = [
        (30, Some(90)),
        (10, Some(100)),
        (30, Some(80)),
        (20, None),
        (95, Some(97)),
        (5, Some(110)),
    ];
    let commits = times
        .into_iter()
        .zip(1..)
        .map(|((started, closed), number)| {
            let mut row = row("acme", number, 1);
            row.started_at = Timestamp(started * 1_000);
            row.closed_at = closed.map(|closed| Timestamp(closed * 1_000));
            if closed.is_some() {
                row.status = StatusName::Completed;
            }
            commit(row, 0)
        });
    store
        .commit(&lease, commits.collect())
        .await
        .expect("commits");
    let at = |seconds: u64| Some(Timestamp(seconds * 1_000));
    let all = Filter::default;
    let after = |seconds| Filter {
        closed_after: at(seconds),
        ..all()
    };
    let before = |seconds| Filter {
        closed_before: at(seconds),
        ..all()
    };
    let started = |after, before| Filter {
        started_after: at(after),
        started_before: at(before),
        ..all()
    };
    let of_workflow = |filter| Filter {
        workflow: Some("process".into()),
        ..filter
    };
    for (filter, expected) in [
        (all(), vec![5, 3, 1, 4, 2, 6]),
        (after(0), vec![5, 3, 1, 2, 6]),
        // What was started a minute before that, or earlier, comes last, by its end.
        (after(85), vec![5, 1, 6, 2]),
        (of_workflow(after(85)), vec![5, 1, 6, 2]),
        (after(90), vec![5, 6, 2]),
        (after(100), vec![6]),
        (before(100), vec![5, 3, 1]),
        (of_workflow(before(100)), vec![5, 3, 1]),
        (started(10, 30), vec![4]),
        (started(9, 31), vec![3, 1, 4, 2]),
        (
            Filter {
                closed_after: at(85),
                ..started(9, 31)
            },
            vec![1, 2],
        ),
        (
            Filter {
                closed_after: at(85),
                closed_before: at(110),
                ..all()
            },
            vec![5, 1, 2],
        ),
    ] {
        for limit in [1, 2, 100] {
            assert_eq!(shown(store, &filter, limit).await, expected, "{filter:?}");
        }
    }
}

/// An execution that may be anything.
fn anything(dice: &mut Dice, number: u128, version: u64) -> Summary {
    let mut row = row("acme", number, version);
    row.started_at = Timestamp(dice.below(40) * 4_000);
    row.workflow = dice.of(&WORKFLOWS).into();
    row.application = dice.of(&["orders", "stock"]).into();
    row.shard_key = dice.one_in(3).then(|| dice.of(&VALUES).into());
    stand(dice, &mut row);
    row.tags = if dice.one_in(2) {
        some_tags(dice)
    } else {
        None
    };
    row
}

/// Has it stand anyhow.
fn stand(dice: &mut Dice, row: &mut Summary) {
    row.status = dice.of(&[
        StatusName::Running,
        StatusName::Paused,
        StatusName::Completed,
        StatusName::Completed,
        StatusName::Failed,
    ]);
    let ended = row.started_at.plus(dice.below(40) * 4_000);
    row.closed_at = (!row.status.is_open()).then_some(ended);
}

fn some_tags(dice: &mut Dice) -> Option<Arc<Tags>> {
    let mut labels = Vec::new();
    for name in ["team", "zone"] {
        if dice.one_in(2) {
            labels.push((name, dice.of(&VALUES)));
        }
    }
    let mut attributes = Vec::new();
    for name in ["amount", "tier"] {
        if dice.one_in(2) {
            let number = json!(dice.below(10));
            attributes.push((name, dice.of(&[&number, &json!("x"), &json!(true)]).clone()));
        }
    }
    tags(&labels, &attributes)
}

fn some_test(dice: &mut Dice) -> TagTest {
    if dice.one_in(2) {
        let value = dice.of(&VALUES);
        return label(
            dice.of(&["team", "zone"]),
            dice.one_in(4).then_some(value).or(Some("a")),
        );
    }
    let operator = dice.of(&[
        Operator::Equal,
        Operator::Unequal,
        Operator::Less,
        Operator::AtMost,
        Operator::Greater,
        Operator::AtLeast,
    ]);
    let value = json!(dice.below(10));
    let is = (!dice.one_in(4)).then_some((operator, value));
    attribute(dice.of(&["amount", "tier"]), is)
}

fn some_filter(dice: &mut Dice) -> Filter {
    let some = |dice: &mut Dice| dice.one_in(5);
    let mut filter = Filter::default();
    if some(dice) {
        filter.application = Some("orders".into());
    }
    if some(dice) {
        filter.workflow = Some(dice.of(&WORKFLOWS).into());
    }
    if some(dice) {
        filter.shard_key = Some(dice.of(&VALUES).into());
    }
    if some(dice) {
        filter.status = Some(dice.of(&[
            StatusName::Running,
            StatusName::Paused,
            StatusName::Completed,
            StatusName::Failed,
        ]));
    } else {
        filter.open = some(dice);
    }
    for bound in [
        &mut filter.started_after,
        &mut filter.started_before,
        &mut filter.closed_after,
        &mut filter.closed_before,
    ] {
        if some(dice) {
            *bound = Some(Timestamp(dice.below(60) * 4_000));
        }
    }
    while dice.one_in(2) && filter.tags.len() < 3 {
        filter.tags.push(some_test(dice));
    }
    filter
}

/// What a filter says, written once more.
fn holds(filter: &Filter, row: &Summary) -> bool {
    let none = Tags::default();
    let tags = row.tags.as_deref().unwrap_or(&none);
    let tags_hold = filter.tags.iter().all(|test| match test {
        TagTest::Label { name, value } => match (tags.labels.get(name), value) {
            (found, None) => found.is_some(),
            (found, value) => found == value.as_ref(),
        },
        TagTest::Attribute { name, is } => match (tags.attributes.get(name), is) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(found), Some((operator, Scalar::Number(wanted)))) => {
                let wanted = wanted.as_u64().expect("small");
                match (found.as_u64(), operator) {
                    (None, operator) => *operator == Operator::Unequal,
                    (Some(found), Operator::Equal) => found == wanted,
                    (Some(found), Operator::Unequal) => found != wanted,
                    (Some(found), Operator::Less) => found < wanted,
                    (Some(found), Operator::AtMost) => found <= wanted,
                    (Some(found), Operator::Greater) => found > wanted,
                    (Some(found), Operator::AtLeast) => found >= wanted,
                }
            }
            (Some(_), Some(other)) => panic!("no test asks for {other:?}"),
        },
    });
    let is = |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|is| is == it);
    let ended = |after: Option<Timestamp>, before: Option<Timestamp>| match row.closed_at {
        Some(at) => after.is_none_or(|after| at > after) && before.is_none_or(|it| at < it),
        None => after.is_none() && before.is_none(),
    };
    tags_hold
        && is(&filter.application, &row.application)
        && is(&filter.workflow, &row.workflow)
        && (filter.shard_key.is_none() || filter.shard_key.as_deref() == row.shard_key.as_deref())
        && filter.status.is_none_or(|status| status == row.status)
        && (!filter.open || row.status.is_open())
        && filter.started_after.is_none_or(|at| row.started_at > at)
        && filter.started_before.is_none_or(|at| row.started_at < at)
        && ended(filter.closed_after, filter.closed_before)
}

async fn every_filter_shows_and_counts_what_holds(subject: Subject) {
    const ROWS: u128 = 150;
    let store = subject.store();
    let lease = lease(store).await;
    let mut dice = Dice::new();
    let mut rows = BTreeMap::new();
    for number in 1..=ROWS {
        let first = anything(&mut dice, number, 1);
        let mut batch = vec![tagged(commit(first.clone(), 0), first.tags.clone())];
        batch.push(commit(row("rival", number, 1), 0));
        rows.insert(number, first);
        store.commit(&lease, batch).await.expect("commits");
    }
    for number in 1..=ROWS {
        if dice.one_in(3) {
            let row = rows.get_mut(&number).expect("is there");
            row.version += 1;
            stand(&mut dice, row);
            row.tags = some_tags(&mut dice);
            let commit = tagged(commit(row.clone(), row.version - 1), row.tags.clone());
            store.commit(&lease, vec![commit]).await.expect("commits");
        }
    }
    let mut found_some = 0;
    for _ in 0..250 {
        let filter = some_filter(&mut dice);
        let limit = u32::try_from(1 + dice.below(20)).expect("small");
        let mut expected: Vec<_> = rows.iter().filter(|(_, row)| holds(&filter, row)).collect();
        // What has ended after some time and took a minute or more may have been started
        // long before.
        let since = filter.closed_after.and_then(|at| at.0.checked_sub(60_000));
        expected.sort_by_key(|(number, row)| {
            let place = match since {
                Some(since) if row.started_at.0 <= since => (0, row.closed_at),
                _ => (1, Some(row.started_at)),
            };
            std::cmp::Reverse((place, **number))
        });
        let numbers: Vec<u128> = expected.iter().map(|(number, _)| **number).collect();
        assert_eq!(shown(store, &filter, limit).await, numbers, "{filter:?}");
        found_some += usize::from(!numbers.is_empty());

        let counts = store.count(&tenant("acme"), &filter).await.expect("counts");
        let mut groups = BTreeMap::<_, u64>::new();
        for (_, row) in &expected {
            let of = (
                row.application.to_string(),
                row.workflow.to_string(),
                row.status,
            );
            *groups.entry(of).or_default() += 1;
        }
        let groups = groups.into_iter();
        let groups = groups.map(|((application, workflow, status), executions)| CountGroup {
            application,
            workflow,
            status,
            executions,
        });
        assert_eq!(counts.groups, groups.collect::<Vec<_>>(), "{filter:?}");
        assert!(!counts.at_least);
    }
    assert!(found_some > 50, "{found_some} filters found any");
}

/// Lists that go by each index, and by each with something else to be asked of each row; where
/// they go on, and the name of the index.
pub(crate) fn planned() -> Vec<(Filter, Option<ListCursor>, &'static str)> {
    let place = Some(ListCursor { at: 9, seq: 9 });
    let mut all = Vec::new();
    for (filter, index) in indexed() {
        // The second part of a list.
        let then = match filter.closed_after {
            Some(_) => "executions_long_by_end",
            None => index,
        };
        all.push((filter.clone(), None, index));
        all.push((filter, place, then));
    }
    all
}

fn indexed() -> Vec<(Filter, &'static str)> {
    let text = |text: &str| Some(text.to_owned());
    let all = Filter::default;
    let times = Filter {
        started_after: Some(Timestamp(1)),
        closed_after: Some(Timestamp(100_000)),
        closed_before: Some(Timestamp(200_000)),
        application: text("orders"),
        ..all()
    };
    let amount = |operator| attribute("amount", Some((operator, json!(5))));
    let one = with(&[label("team", Some("x"))]);
    let range = with(&[amount(Operator::AtLeast)]);
    let status = |status| Filter {
        status: Some(status),
        ..times.clone()
    };
    let key = Filter {
        shard_key: text("c"),
        ..all()
    };
    let workflow = Filter {
        workflow: text("process"),
        ..all()
    };
    vec![
        (all(), "executions_by_start"),
        (status(StatusName::Completed), "executions_by_start"),
        (times.clone(), "executions_by_start"),
        (
            Filter {
                application: text("orders"),
                status: Some(StatusName::Completed),
                ..all()
            },
            "executions_by_start",
        ),
        (status(StatusName::Failed), "executions_by_status_start"),
        (status(StatusName::Paused), "executions_by_status_start"),
        (key.clone(), "executions_by_key"),
        (
            Filter {
                tags: range.tags.clone(),
                ..key
            },
            "executions_by_key",
        ),
        (workflow.clone(), "executions_by_workflow"),
        (
            Filter {
                tags: one.tags.clone(),
                ..workflow.clone()
            },
            "execution_tags_by_value",
        ),
        (one, "execution_tags_by_value"),
        (with(&[amount(Operator::Equal)]), "execution_tags_by_value"),
        (
            with(&[
                amount(Operator::Equal),
                label("team", None),
                amount(Operator::Unequal),
            ]),
            "execution_tags_by_value",
        ),
        (
            Filter {
                tags: range.tags.clone(),
                ..workflow
            },
            "execution_tags_by_name",
        ),
        (range, "execution_tags_by_name"),
        (with(&[label("team", None)]), "execution_tags_by_name"),
    ]
}

/// So many executions that a plan matters: all of one tenant, few of them tagged.
pub(crate) async fn fill(store: &dyn Store) {
    let lease = lease(store).await;
    let mut dice = Dice::new();
    for batch in 0..20_u128 {
        let numbers = batch * 500..(batch + 1) * 500;
        let commits = numbers.map(|number| {
            let mut row = anything(&mut dice, number, 1);
            row.tags = row.tags.filter(|_| number.is_multiple_of(10));
            tagged(commit(row.clone(), 0), row.tags)
        });
        store
            .commit(&lease, commits.collect())
            .await
            .expect("commits");
    }
}

async fn pages_neither_repeat_nor_skip_what_was_there_throughout(subject: Subject) {
    let store = subject.store();
    let lease = lease(store).await;
    let mut dice = Dice::new();
    let mut rows = BTreeMap::new();
    let mut last = 0;
    for _ in 0..60 {
        last += 1;
        let row = anything(&mut dice, last, 1);
        let first = tagged(commit(row.clone(), 0), row.tags.clone());
        store.commit(&lease, vec![first]).await.expect("commits");
        rows.insert(last, row);
    }
    for _ in 0..40 {
        let filter = some_filter(&mut dice);
        let mut throughout: Vec<u128> = rows
            .iter()
            .filter(|(_, row)| holds(&filter, row))
            .map(|(number, _)| *number)
            .collect();
        let (mut seen, mut before) = (Vec::new(), None::<ListCursor>);
        loop {
            let page = store.list(&tenant("acme"), &filter, before, 3).await;
            let page = page.expect("lists");
            seen.extend(page.items.iter().map(|row| row.id.0.as_u128()));
            before = page.next;
            if before.is_none() {
                break;
            }
            last += 1;
            let new = anything(&mut dice, last, 1);
            let first = tagged(commit(new.clone(), 0), new.tags.clone());
            let number = 1 + u128::from(dice.below(u64::try_from(last - 1).expect("few")));
            let old = rows.get_mut(&number).expect("is there");
            old.version += 1;
            if dice.one_in(2) {
                // Neither how it stands nor its place in any order is kept.
                stand(&mut dice, old);
                old.tags = some_tags(&mut dice);
                throughout.retain(|kept| *kept != number);
            }
            let change = tagged(commit(old.clone(), old.version - 1), old.tags.clone());
            let batch = vec![first, change];
            store.commit(&lease, batch).await.expect("commits");
            rows.insert(last, new);
        }
        for number in throughout {
            let times = seen.iter().filter(|shown| **shown == number).count();
            assert_eq!(times, 1, "{number} in {filter:?}");
        }
    }
}

/// A row beyond what one page looks at is on the next page that looks that far.
pub(crate) async fn long_scans_stop_and_go_on(store: &dyn Store) {
    let lease = lease(store).await;
    let mut oldest = row("acme", 0, 1);
    oldest.application = "rare".into();
    let oldest = vec![commit(oldest, 0)];
    store.commit(&lease, oldest).await.expect("commits");
    let scan = u128::try_from(SCAN_ROWS).expect("positive");
    let others = (1..=scan).map(|number| commit(row("acme", number, 1), 0));
    store
        .commit(&lease, others.collect())
        .await
        .expect("commits");
    // Those of a status are not side by side.
    for (status, before_it) in [(None, 1), (Some(StatusName::Running), 5)] {
        let filter = Filter {
            application: Some("rare".to_owned()),
            status,
            ..Filter::default()
        };
        let mut next = None;
        for _ in 0..before_it {
            let page = store.list(&tenant("acme"), &filter, next, 10).await;
            let page = page.expect("lists");
            assert!(page.items.is_empty() && page.next.is_some(), "{status:?}");
            next = page.next;
        }
        let last = store.list(&tenant("acme"), &filter, next, 10).await;
        let last = last.expect("lists");
        let found: Vec<_> = last.items.iter().map(|row| row.id).collect();
        assert_eq!((found, last.next), (vec![id(0)], None), "{status:?}");
        let counts = store.count(&tenant("acme"), &filter).await.expect("counts");
        assert!(counts.at_least, "the count stops before it, too");
    }
}
