//! What must hold when the killing is over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cascade_cdl::program::{Application, Program};
use cascade_cdl::{
    Event, EventKind, Execution, ExecutionId, Record, Source, Status, TaskId, TenantId,
    apply_traced, replay,
};
use serde_json::{Value, json};

use super::arena::Arena;
use super::load::Taken;
use super::order::{Order, end_of};
use super::{APPLICATION, CDL, Outcome};
use crate::TENANT;
use crate::http::Ask;

/// Marks that are read: each takes an execution of its own, and a few thousand
/// tell enough.
const MARKS: usize = 3_000;

/// How long an execution may take to end when nobody kills any more: sixty
/// times its longest pause.
const WAIT: &str = "30s";

/// A page of the list, the longest there is.
const PAGE: usize = 1_000;

/// Checks all that was acknowledged, with so many threads.
pub(super) fn all(arena: &Arena, taken: &[Taken], threads: usize, outcome: &mut Outcome) {
    let checker = Checker::new(arena);
    let next = AtomicUsize::new(0);
    let each = || {
        let mut found = Found::default();
        while let Some(taken) = taken.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = checker.execution(taken, &mut found) {
                let (id, key) = (&taken.id, &taken.order.key);
                let workflow = taken.order.kind.workflow();
                arena.violation(format!("{workflow} {id} ({key}): {why}"));
            }
        }
        found
    };
    let (mut marks, mut children) = (Vec::new(), HashMap::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
        for thread in threads {
            let found = thread.join().expect("a checker never panics");
            outcome.histories_replayed += found.histories;
            outcome.events += found.events;
            outcome.slowest_end = outcome.slowest_end.max(found.slowest);
            marks.extend(found.marks);
            children.extend(found.children);
        }
    });
    // Before the marks are read, which takes executions that nobody ordered.
    if let Err(why) = checker.list(taken, &children) {
        arena.violation(why);
    }
    let step = marks.len().div_ceil(MARKS).max(1);
    for mark in marks.into_iter().step_by(step) {
        match checker.mark(&mark) {
            Ok(runs) => {
                outcome.marks += 1;
                outcome.repeated_marks += usize::from(runs > 1);
            }
            Err(why) => arena.violation(format!("mark {}: {why}", mark.key)),
        }
    }
}

/// What a thread saw.
#[derive(Default)]
struct Found {
    histories: usize,
    events: usize,
    slowest: Duration,
    marks: Vec<Mark>,
    /// Ids that children would have, and of whom.
    children: Vec<(String, String)>,
}

/// An effect that an execution says it had.
struct Mark {
    /// The idempotency key that its attempts had.
    key: String,
    /// What each left.
    left: Value,
}

struct Checker<'a> {
    arena: &'a Arena,
    application: Application,
    tenant: TenantId,
}

impl<'a> Checker<'a> {
    fn new(arena: &'a Arena) -> Self {
        let parsed = cascade_cdl::parse(&Source {
            name: "chaos.yaml",
            bytes: CDL.as_bytes(),
        });
        Self {
            arena,
            application: parsed.application.expect("the server has accepted it"),
            tenant: TENANT.parse().expect("a tenant's name"),
        }
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let answer = self.arena.ask(Ask::get(path)).ok_or("no answer")?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(format!("{path} is answered with {status}: {}", answer.body)),
        }
    }

    /// It is there, has ended once, as expected and as was said before, and
    /// its history leads there.
    fn execution(&self, taken: &Taken, found: &mut Found) -> Result<(), String> {
        let path = format!("/v1/executions/{}?wait={WAIT}", taken.id);
        let asked = Instant::now();
        let view = self.get(&path)?;
        found.slowest = found.slowest.max(asked.elapsed());
        let end = end_of(&view);
        let expected = taken.order.end(&end);
        if end != expected {
            return Err(format!("ended with {end}, expected {expected}: {view}"));
        }
        if let Some(seen) = &taken.end
            && *seen != end
        {
            return Err(format!(
                "was said to have ended with {seen}, now with {end}"
            ));
        }
        let events = self.history(&taken.id)?;
        if view["events"] != events.len() {
            return Err(format!(
                "has {} events, its history {}",
                view["events"],
                events.len()
            ));
        }
        well_formed(&events)?;
        let program = &self.application.workflows[taken.order.kind.workflow()];
        let id: ExecutionId = taken.id.parse().map_err(|error| format!("{error}"))?;
        self.replays(program, id, &events, &end)?;
        let marks = self.ended_once(program, id, &events)?;
        if marks.len() != taken.order.kind.marks() {
            return Err(format!("had {} effects", marks.len()));
        }
        if taken.order.kind.children() > 0 {
            let ids = events.iter().filter_map(|event| child_of(id, event));
            let ids = ids.map(|child| (child.to_string(), taken.id.clone()));
            found.children.extend(ids);
        }
        found.histories += 1;
        found.events += events.len();
        found.marks.extend(marks.into_iter().map(|task| Mark {
            key: format!("{id}/{}", task.0),
            left: taken.order.mark(),
        }));
        Ok(())
    }

    fn history(&self, id: &str) -> Result<Vec<Event>, String> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/v1/executions/{id}/history?after={after}&limit={PAGE}");
            let mut page = self.get(&path)?;
            let read: Result<Vec<Event>, _> = serde_json::from_value(page["events"].take());
            events.extend(read.map_err(|error| format!("history: {error}"))?);
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return Ok(events),
            }
        }
    }

    /// The history through the machine gives the recorded end.
    fn replays(
        &self,
        program: &Arc<Program>,
        id: ExecutionId,
        events: &[Event],
        end: &Value,
    ) -> Result<(), String> {
        let (execution, pending) = replay(program, id, self.tenant.clone(), events)
            .map_err(|error| format!("does not replay: {error}"))?;
        let replayed = match &execution.status {
            Status::Running | Status::Compensating { .. } => {
                json!({ "status": "running", "output": null, "error": null })
            }
            Status::Completed { output } => {
                json!({ "status": "completed", "output": output, "error": null })
            }
            Status::Failed { failure } => {
                json!({ "status": "failed", "output": null, "error": failure })
            }
            Status::Cancelled { reason } => json!({
                "status": "cancelled",
                "output": null,
                "error": { "error": "Cancelled", "message": reason },
            }),
            Status::TimedOut { .. } => json!({ "status": "timed_out" }),
        };
        if replayed != *end {
            return Err(format!("replays to {replayed}, recorded is {end}"));
        }
        match pending.len() {
            0 => Ok(()),
            count => Err(format!("has ended, but {count} attempts are awaited")),
        }
    }

    /// No event was recorded in vain or after the end; gives the tasks of effects.
    fn ended_once(
        &self,
        program: &Arc<Program>,
        id: ExecutionId,
        events: &[Event],
    ) -> Result<HashSet<TaskId>, String> {
        let mut execution = Execution::new(id, self.tenant.clone());
        let (mut marks, mut ends, mut ignored) = (HashSet::new(), 0, None);
        for event in events {
            let mut observe = |record| match record {
                Record::ActivityScheduled { place, task, .. } if &*place.state == "Mark" => {
                    marks.insert(task);
                }
                Record::ExecutionCompleted { .. }
                | Record::ExecutionFailed { .. }
                | Record::ExecutionCancelled { .. } => ends += 1,
                Record::EventIgnored { reason } => ignored = Some((event.seq, reason)),
                _ => {}
            };
            execution = apply_traced(program, execution, event, &mut observe)
                .map_err(|error| format!("does not replay: {error}"))?
                .execution;
        }
        match (ends, ignored) {
            (1, None) => Ok(marks),
            (_, Some((seq, reason))) => Err(format!("event {seq} changed nothing: {reason}")),
            (ends, None) => Err(format!("ended {ends} times")),
        }
    }

    /// The list has each execution once, and none that nobody ordered; each parent has its
    /// children. `children` has what would be one, and of whom.
    fn list(&self, taken: &[Taken], children: &HashMap<String, String>) -> Result<(), String> {
        let mut ordered: HashMap<&str, &Order> = HashMap::new();
        for taken in taken {
            if let Some(other) = ordered.insert(&taken.id, &taken.order) {
                return Err(format!(
                    "{} is both {} and {}",
                    taken.id, other.key, taken.order.key
                ));
            }
        }
        let (mut listed, mut families) = (HashSet::new(), HashMap::new());
        for item in self.listed()? {
            let id = item["id"].as_str().ok_or("an item without id")?;
            if !listed.insert(id.to_owned()) {
                return Err(format!("the list has {item} twice"));
            }
            if let Some(parent) = children.get(id) {
                *families.entry(&**parent).or_insert(0) += 1;
                if item["status"] != "completed" {
                    return Err(format!("its parent has ended, but not {item}"));
                }
            } else if !ordered.contains_key(id) {
                return Err(format!("the list has {item}, which nobody ordered"));
            }
        }
        for (id, order) in ordered {
            let key = &order.key;
            if !listed.contains(id) {
                return Err(format!("the list lacks {id} ({key})"));
            }
            let count = families.get(id).copied().unwrap_or(0);
            if count != order.kind.children() {
                return Err(format!("{id} ({key}) has {count} children"));
            }
        }
        Ok(())
    }

    /// All executions, as the list has them.
    fn listed(&self) -> Result<Vec<Value>, String> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/executions?application={APPLICATION}&limit={PAGE}{cursor}");
            let mut page = self.get(&path)?;
            match page["items"].take() {
                Value::Array(some) => items.extend(some),
                _ => return Err("a page without items".to_owned()),
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// What an effect left; gives how often it ran.
    fn mark(&self, mark: &Mark) -> Result<usize, String> {
        let body = json!({
            "application": APPLICATION,
            "workflow": "marks",
            "input": { "key": mark.key },
        });
        let answer = self.arena.ask(Ask {
            method: "POST",
            path: &format!("/v1/executions?wait={WAIT}"),
            headers: &[],
            body: body.to_string().as_bytes(),
        });
        let view = answer.ok_or("no answer")?.body;
        let runs = view["output"]["runs"].as_array();
        match runs {
            Some(runs) if !runs.is_empty() && runs.iter().all(|run| *run == mark.left) => {
                Ok(runs.len())
            }
            _ => Err(format!("expected {}, found {view}", mark.left)),
        }
    }
}

/// The child that an attempt would have started which an event ends.
fn child_of(parent: ExecutionId, event: &Event) -> Option<ExecutionId> {
    match &event.kind {
        EventKind::ActivityCompleted { task, attempt, .. } => {
            Some(ExecutionId::of_child(parent, *task, *attempt))
        }
        _ => None,
    }
}

/// Numbered from 1 without gaps, started once, no attempt ended twice.
fn well_formed(events: &[Event]) -> Result<(), String> {
    let mut ended = HashSet::new();
    for (event, seq) in events.iter().zip(1..) {
        if event.seq != seq {
            return Err(format!("event {} stands at {seq}", event.seq));
        }
        let starts = matches!(event.kind, EventKind::ExecutionStarted { .. });
        if starts != (seq == 1) {
            return Err(format!("event {seq} is {:?}", event.kind));
        }
        if let EventKind::ActivityCompleted { task, attempt, .. }
        | EventKind::ActivityFailed { task, attempt, .. } = &event.kind
            && !ended.insert((*task, *attempt))
        {
            return Err(format!("attempt {attempt} of task {} ended twice", task.0));
        }
    }
    Ok(())
}
