//! How an execution of a shard moves: what is done to it, and what the machine
//! commands in turn.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cascade_cdl::program::{Child, Priority};
use cascade_cdl::{
    ActivityTask, ApplyError, Command, EventKind, ExecutionId, Parent, SEMANTICS, Timestamp,
};

use super::{DEFER_BYTES, Move, Shard, StartRequest, Touch};
use crate::dispatch::{AttemptKey, QueuedTask};
use crate::engine::children::{Ask, ChildStart};
use crate::engine::live::{Effect, Live};
use crate::engine::wanted::{Wanted, not_found};
use crate::engine::{Admission, Report, Start, StartError, bucket};
use crate::store::{StatusName, Summary};
use crate::telemetry;

impl Shard {
    pub(super) fn create(&mut self, request: StartRequest) {
        let StartRequest {
            id,
            start,
            program: (application_version, program),
            refusal,
            shard_key,
            admission,
            place,
            room,
            turn,
            started,
            closed,
        } = request;
        drop((place, room));
        let rate = program.start_rate_limit;
        let admitted = self.admit_start(&start, refusal, &admission);
        let admitted = admitted.and_then(|()| self.context.pace(&start, rate.as_ref()));
        if let Err(refused) = admitted {
            let _ = started.send(Err(refused));
            return;
        }
        // The answer and the event tell the same time, so the clock is read once.
        let now = self.context.clock.now();
        let summary = Summary {
            tenant: start.tenant,
            id,
            bucket: bucket(id, shard_key.as_deref()),
            shard_key: shard_key.clone(),
            application: start.application,
            application_version,
            workflow: start.workflow,
            status: StatusName::Running,
            error: None,
            started_at: now,
            closed_at: None,
            wake_at: None,
            idle: false,
            version: 0,
            tags: None,
        };
        let charge = self.charge(&summary.tenant);
        let mut live = Box::new(Live::new(summary, program, start.input.clone(), charge));
        live.holding().opened();
        self.context.started.fetch_add(1, Ordering::Relaxed);
        // Who waits for the end is told of the start when it comes.
        live.urgent = closed.is_none();
        let reply = live.started(true);
        live.held.push(Effect::Started(started, reply, turn));
        live.closers.extend(closed);
        let kind = EventKind::ExecutionStarted {
            input: start.input,
            shards: self.context.settings.filter_shards,
            machine: SEMANTICS,
            parent: start.parent,
            schedule: start.schedule,
            shard_key,
            priority: start.priority,
            labels: start.labels,
        };
        self.advance_at(now, live, kind);
    }

    /// Checks that something new may be started. What was started before is answered
    /// whatever becomes of its workflow.
    fn admit_start(
        &mut self,
        start: &Start,
        refusal: Option<StartError>,
        admission: &Admission,
    ) -> Result<(), StartError> {
        let definitions = &self.context.definitions;
        let paused = definitions.paused(&start.tenant, &start.application, &start.workflow);
        if let Some(paused) = paused {
            return Err(StartError::Paused(paused));
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        Ok(self.admit(&start.tenant, admission)?)
    }

    pub(super) fn handle(&mut self, mut live: Box<Live>, touch: Touch) {
        match touch {
            Touch::Start(request) => self.start_again(live, *request),
            Touch::Report(report, permit) => {
                drop(permit);
                if live.hears(&report.attempt) {
                    self.advance(live, ended(report));
                } else {
                    self.settle(live, false);
                }
            }
            Touch::Control(request) => self.control(live, *request),
            Touch::Wake => self.wake(live),
            Touch::Resume => self.resume(live),
        }
    }

    /// A start of an execution that exists.
    pub(super) fn start_again(&mut self, mut live: Box<Live>, request: StartRequest) {
        let StartRequest {
            id,
            start,
            turn,
            started,
            closed,
            ..
        } = request;
        let same = live.summary.application == start.application
            && live.summary.workflow == start.workflow
            && live.has_input(&start.input);
        if !same {
            live.tell(move || drop(started.send(Err(StartError::KeyReused(id)))));
            return self.settle(live, false);
        }
        let reply = live.started(false);
        if live.summary.version > 0 && live.is_durable() {
            let _ = started.send(Ok(reply));
        } else {
            live.urgent |= live.is_dirty();
            live.held.push(Effect::Started(started, reply, turn));
        }
        // Who asked before may have given up.
        live.closers.retain(|closer| !closer.is_closed());
        live.closers.extend(closed);
        self.settle(live, false);
    }

    pub(super) fn wake(&mut self, mut live: Box<Live>) {
        let now = self.context.clock.now();
        // Set again by `settle`: further timers that are due wake it at once.
        self.drop_timer(&mut live);
        match live.execution().due_timers(now).first() {
            Some(timer) => {
                let timer = *timer;
                self.advance(live, EventKind::TimerFired { timer });
            }
            None => self.settle(live, false),
        }
    }

    /// Applies an event of this moment, and does or holds back what the machine
    /// commands.
    pub(super) fn advance(&mut self, live: Box<Live>, kind: EventKind) {
        self.advance_at(self.context.clock.now(), live, kind);
    }

    fn advance_at(&mut self, at: Timestamp, live: Box<Live>, kind: EventKind) {
        self.advance_by(live, |live| live.apply(at, kind));
    }

    /// Moves an execution to another version of its application.
    pub(super) fn migrate(&mut self, live: Box<Live>, to: &Move) {
        let at = self.context.clock.now();
        self.advance_by(live, |live| live.migrate(at, to.version, &to.plan));
    }

    fn advance_by(
        &mut self,
        mut live: Box<Live>,
        step: impl FnOnce(&mut Live) -> Result<Vec<Command>, ApplyError>,
    ) {
        let was_open = live.summary.version > 0 && live.summary.closed_at.is_none();
        let was_new = live.summary.version == 0;
        let was_paused = live.is_paused();
        let commands = match step(&mut live) {
            Ok(commands) => commands,
            Err(error) => {
                // A bug or damage, never a failing workflow. What was
                // committed stays; a restart of the process tries again.
                tracing::error!(
                    tenant.id = %live.summary.tenant,
                    execution.id = %live.summary.id,
                    %error,
                    "an event does not apply; the execution is set aside"
                );
                return self.set_aside(live);
            }
        };
        // What it asks for then waits, so that what accumulates has a bound.
        let full = self.is_full(&live);
        for command in commands {
            match command {
                Command::ScheduleActivity(_) if full => self.park(&mut live),
                Command::ScheduleActivity(task) => self.schedule(&mut live, task),
                Command::CancelActivity { task, attempt } => live.take_back(task, attempt),
            }
        }
        match (was_paused, live.is_paused()) {
            (false, true) => self.withdraw(&mut live),
            (true, false) => self.ask_again(&mut live, full),
            _ => {}
        }
        let counted = was_open || was_new;
        match live.summary.closed_at {
            Some(closed_at) => {
                if counted {
                    live.holding().closed();
                }
                if std::mem::take(&mut live.parked) {
                    self.unpark(&live.summary.tenant, live.summary.id);
                }
                self.context.closed.fetch_add(1, Ordering::Relaxed);
                let lasted = Duration::from_millis(closed_at.since(live.summary.started_at));
                telemetry::workflow_closed(live.summary.status, lasted);
            }
            None if !counted => live.holding().opened(),
            None => {}
        }
        self.settle(live, false);
    }

    /// Takes back the attempts of an execution that no worker has begun. A crash
    /// before the pause is durable is followed by asking for all of them again.
    fn withdraw(&mut self, live: &mut Live) {
        let Self { ready, context, .. } = self;
        live.withdraw(|attempt| {
            let waits = ready.iter().position(|task| task.key() == *attempt);
            match waits {
                Some(at) => {
                    ready.remove(at);
                    true
                }
                None => context.queue.withdraw(attempt),
            }
        });
    }

    /// Asks for the attempts that were not asked for while an execution was paused.
    fn ask_again(&mut self, live: &mut Live, full: bool) {
        for task in live.unasked() {
            if full {
                return self.park(live);
            }
            self.schedule(live, task);
        }
    }

    fn set_aside(&mut self, mut live: Box<Live>) {
        self.drop_timer(&mut live);
        self.unpark(&live.summary.tenant, live.summary.id);
        self.unsettled -= live.unsettled;
    }

    /// Sends a pure activity on its way, holds another until its cause is
    /// durable, and fails one that nobody has uploaded.
    pub(super) fn schedule(&mut self, live: &mut Live, task: ActivityTask) {
        if let Some(child) = task.resource.child.clone() {
            return start_child(live, task, &child);
        }
        let tenant = &live.summary.tenant;
        let attempt = AttemptKey {
            tenant: tenant.clone(),
            execution: live.summary.id,
            bucket: live.summary.bucket,
            task: task.task,
            attempt: task.attempt,
            scheduled_at: task.scheduled_at,
        };
        let definitions = &self.context.definitions;
        let Some(activity) = definitions.activity(tenant, &task.resource) else {
            if definitions.is_shared() {
                return self.look_for_activity(live, task, attempt);
            }
            self.follow_ups.push_back(Report {
                attempt: attempt.clone(),
                result: Err(not_found(&task)),
                receipt: None,
            });
            return live.ask(attempt);
        };
        // One that follows from much that is not durable waits like any other.
        let at_once = activity.pure && live.uncommitted_bytes() < DEFER_BYTES;
        let queued = QueuedTask {
            tenant: tenant.clone(),
            execution: live.summary.id,
            bucket: live.summary.bucket,
            application: live.summary.application.clone(),
            workflow: live.summary.workflow.clone(),
            task,
            activity,
        };
        live.ask(attempt);
        if at_once {
            self.ready.push(queued);
        } else {
            live.urgent = true;
            live.held.push(Effect::Dispatch(Box::new(queued)));
        }
    }

    /// Has the activity of a task looked for, once the task is durable.
    fn look_for_activity(&self, live: &mut Live, task: ActivityTask, attempt: AttemptKey) {
        let wanted = Box::new(Wanted {
            attempt: attempt.clone(),
            task,
            summary: live.summary.clone(),
        });
        let children = self.context.children.clone();
        live.ask(attempt);
        live.urgent = true;
        // Nobody takes it when the engine stops; recovery asks again.
        let look = move || drop(children.send(Ask::Look(wanted)));
        live.held.push(Effect::Tell(Box::new(look)));
    }
}

/// Has a child started once its cause is durable.
fn start_child(live: &mut Live, task: ActivityTask, child: &Child) {
    let summary = &live.summary;
    let above = live.execution().parent.map_or(0, |parent| parent.depth);
    let application = child.application.as_ref().unwrap_or(&summary.application);
    let start = Start {
        tenant: summary.tenant.clone(),
        application: application.clone(),
        workflow: task.resource.name.clone(),
        // Chunks run what their Map does, whatever is in force by now.
        version: child.work.map(|_| summary.application_version),
        input: task.input,
        id: Some(ExecutionId::of_child(summary.id, task.task, task.attempt)),
        idempotency_key: None,
        parent: Some(Parent {
            execution: summary.id,
            task: task.task,
            attempt: task.attempt,
            depth: above + 1,
            on_close: child.on_close,
        }),
        schedule: None,
        // What nobody has said of the parent is not said of the child.
        priority: (task.priority != Priority::default()).then_some(task.priority),
        // They say what somebody looks for, and that is the parent.
        labels: BTreeMap::new(),
    };
    let attempt = AttemptKey {
        tenant: summary.tenant.clone(),
        execution: summary.id,
        bucket: summary.bucket,
        task: task.task,
        attempt: task.attempt,
        scheduled_at: task.scheduled_at,
    };
    live.ask(attempt.clone());
    live.urgent = true;
    live.held.push(Effect::Child(Box::new(ChildStart {
        attempt,
        start,
        waits: child.waits,
        on_close: child.on_close,
        work: child.work,
    })));
}

fn ended(report: Report) -> EventKind {
    let AttemptKey { task, attempt, .. } = report.attempt;
    match report.result {
        Ok(output) => EventKind::ActivityCompleted {
            task,
            attempt,
            output,
            receipt: report.receipt.unwrap_or_default(),
        },
        Err(failure) => EventKind::ActivityFailed {
            task,
            attempt,
            failure,
            receipt: report.receipt,
        },
    }
}
