//! The fields of a state as texts, to be compared.

use std::fmt::Debug;

use crate::asl::program as asl;
use crate::program::{
    Catch, EventTask, HumanTask, Map, Next, Program, State, StateId, StateKind, Task, Timeout,
    Until,
};

/// A state's fields, those of one kind always in the same order.
pub(super) struct Fields {
    pub(super) kind: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
}

/// What names a state that another leads to.
type Target<'t> = &'t dyn Fn(StateId) -> String;

pub(super) fn of(program: &Program, id: StateId, target: Target<'_>) -> Fields {
    let State { kind, .. } = program.state(id);
    let (kind, fields) = match kind {
        StateKind::Task(task) => ("Task", task_fields(task, target)),
        StateKind::Pass {
            parameters,
            result,
            next,
        } => (
            "Pass",
            vec![
                ("parameters", text(parameters)),
                ("result", text(result)),
                ("next", to(*next, target)),
            ],
        ),
        StateKind::Choice { choices, default } => {
            let ways = choices.iter().map(|way| (&way.condition, target(way.next)));
            let ways: Vec<_> = ways.collect();
            let default = default.map(target);
            (
                "Choice",
                vec![("choices", text(&ways)), ("default", text(&default))],
            )
        }
        StateKind::Parallel {
            branches,
            strategy,
            result,
            catch,
            next,
        } => {
            let names = branches.iter().map(|branch| &program.scope(*branch).name);
            let names: Vec<_> = names.collect();
            (
                "Parallel",
                vec![
                    ("branches", text(&names)),
                    ("completion_strategy", text(strategy)),
                    ("result", text(result)),
                    ("catch", catches(catch, target)),
                    ("next", to(*next, target)),
                ],
            )
        }
        StateKind::Map(map) => ("Map", map_fields(map, target)),
        StateKind::Event(kind) => ("EventTask", event_fields(kind, target)),
        StateKind::Human(kind) => ("HumanTask", human_fields(kind, target)),
        StateKind::Wait { until, next } => {
            let (duration, timestamp) = match until {
                Until::Duration(template) => (Some(template), None),
                Until::Timestamp(template) => (None, Some(template)),
            };
            (
                "Wait",
                vec![
                    ("duration", text(&duration)),
                    ("until", text(&timestamp)),
                    ("next", to(*next, target)),
                ],
            )
        }
        StateKind::Succeed { output } => ("Succeed", vec![("output", text(output))]),
        StateKind::Fail { error, message } => (
            "Fail",
            vec![("error", text(error)), ("message", text(message))],
        ),
        StateKind::Asl(state) => asl_fields(program, state, target),
    };
    Fields { kind, fields }
}

fn task_fields(task: &Task, target: Target<'_>) -> Vec<(&'static str, String)> {
    let child = task.resource.child.as_ref();
    vec![
        ("resource", task.resource.to_string()),
        ("wait", text(&child.map(|child| child.waits))),
        (
            "parent_close_policy",
            text(&child.map(|child| child.on_close)),
        ),
        ("parameters", text(&task.parameters)),
        ("result", text(&task.result)),
        ("timeout", text(&task.timeout_ms)),
        ("heartbeat", text(&task.heartbeat_ms)),
        ("priority", text(&task.priority)),
        ("rate_limit", text(&task.rate_limit)),
        ("retries", text(&task.retries)),
        ("catch", catches(&task.catch, target)),
        ("compensate", text(&task.compensate)),
        ("next", to(task.next, target)),
    ]
}

fn event_fields(kind: &EventTask, target: Target<'_>) -> Vec<(&'static str, String)> {
    let (timeout, on_timeout) = timeout(kind.timeout, target);
    vec![
        ("event", text(&kind.event)),
        ("timeout", timeout),
        ("on_timeout", on_timeout),
        ("result", text(&kind.result)),
        ("catch", catches(&kind.catch, target)),
        ("next", to(kind.next, target)),
    ]
}

fn human_fields(kind: &HumanTask, target: Target<'_>) -> Vec<(&'static str, String)> {
    let (timeout, on_timeout) = timeout(kind.timeout, target);
    vec![
        ("assignee", text(&kind.assignee)),
        ("parameters", text(&kind.parameters)),
        ("ui", text(&kind.schema)),
        ("timeout", timeout),
        ("on_timeout", on_timeout),
        ("escalate", text(&kind.escalate)),
        ("result", text(&kind.result)),
        ("catch", catches(&kind.catch, target)),
        ("next", to(kind.next, target)),
    ]
}

fn map_fields(map: &Map, target: Target<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("items", text(&map.items)),
        ("max_concurrency", text(&map.max_concurrency)),
        ("batch", text(&map.batch)),
        ("tolerated_failures", text(&map.tolerance)),
        ("mode", text(&map.spread)),
        ("result", text(&map.result)),
        ("catch", catches(&map.catch, target)),
        ("next", to(map.next, target)),
    ]
}

fn asl_fields(
    program: &Program,
    state: &asl::State,
    target: Target<'_>,
) -> (&'static str, Vec<(&'static str, String)>) {
    let catch = state.catch.iter().map(|catcher| {
        let own = (&catcher.errors, &catcher.result, &catcher.output);
        (own, &catcher.assign, target(catcher.next))
    });
    let catch: Vec<_> = catch.collect();
    let next = state.next.map(|next| to(next, target));
    let (kind, own) = match &state.kind {
        asl::Kind::Task(task) => ("Task", ("Resource", text(task))),
        asl::Kind::Pass { result } => ("Pass", ("Result", text(result))),
        asl::Kind::Choice { rules, default } => {
            let rules = rules.iter().map(|rule| {
                let own = (&rule.condition, &rule.assign, &rule.output);
                (own, target(rule.next))
            });
            let ways = (rules.collect::<Vec<_>>(), default.map(target));
            ("Choice", ("Choices", text(&ways)))
        }
        asl::Kind::Wait(until) => ("Wait", ("Seconds", text(until))),
        asl::Kind::Succeed => ("Succeed", ("Type", String::new())),
        asl::Kind::Fail { error, cause } => ("Fail", ("Error", text(&(error, cause)))),
        asl::Kind::Parallel { branches } => {
            let starts = branches.iter().map(|id| target(program.scope(*id).start));
            ("Parallel", ("Branches", text(&starts.collect::<Vec<_>>())))
        }
        asl::Kind::Map(map) => {
            let start = target(program.scope(map.processor).start);
            let items = (&map.items, &map.reader, &map.selector, &map.batcher);
            let bounds = (
                map.distributed,
                &map.concurrency,
                &map.tolerated_count,
                &map.tolerated_percentage,
            );
            ("Map", ("ItemProcessor", text(&(start, items, bounds))))
        }
    };
    let fields = vec![
        own,
        ("QueryLanguage and data flow", text(&state.flow)),
        ("Assign", text(&state.assign)),
        ("Retry", text(&state.retry)),
        ("Catch", text(&catch)),
        ("Next", text(&next)),
    ];
    (kind, fields)
}

fn catches(catches: &[Catch], target: Target<'_>) -> String {
    let handlers = catches.iter();
    let handlers = handlers.map(|catch| (&catch.errors, &catch.result, target(catch.next)));
    text(&handlers.collect::<Vec<_>>())
}

/// How long a state waits, and what follows then.
fn timeout(timeout: Option<Timeout>, target: Target<'_>) -> (String, String) {
    let next = timeout.and_then(|timeout| timeout.next).map(target);
    (text(&timeout.map(|timeout| timeout.ms)), text(&next))
}

fn to(next: Next, target: Target<'_>) -> String {
    match next {
        Next::State(id) => format!("to {}", target(id)),
        Next::End => "the end".to_owned(),
    }
}

/// Values are equal if they are shown alike: compiled templates hold their text.
fn text(value: &(impl Debug + ?Sized)) -> String {
    format!("{value:?}")
}
