//! Executions that go on under another version of their application.
//!
//! A shard must not wait while an execution is judged, which takes as long as its
//! workflow is large. So it is judged as the store has it, beside the threads that
//! serve requests, and moved by its shard if nothing has happened to it since;
//! else it is judged again. Each move is one event and one commit, so a crash
//! leaves an execution in one version or the other, whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use cascade_cdl::plan::{Plan, Verdict};
use cascade_cdl::program::{Application, Program};
use cascade_cdl::{
    ApplyError, Event, EventKind, Execution, ExecutionId, Record, TenantId, Transition, apply,
    apply_traced, limits, migrate,
};
use futures::future;

use super::live;
use super::replay::in_turns;
use super::shard::{Control, Move};
use super::{Ask, Context, ControlError, Engine, Told, View, Whereabouts};
use crate::store::{self, Filter, ListCursor, Page, Stored, Summary};

/// Executions that one request judges or moves. Each may be a history to replay;
/// a hundred usual ones take some tens of milliseconds.
const PAGE: u32 = 100;

/// Moves under way at a time for one request: they share commits, and leave a
/// shard's mailbox to others.
const MOVES: usize = 16;

/// How often an execution that goes on meanwhile is judged again.
const TRIES: usize = 5;

/// Longest mapping, in bytes of names: it stands in the history of each
/// execution that it moves.
pub const MAPPING_BYTES: usize = 64 << 10;

/// The new paths of states that were renamed, by the old ones, by workflow.
pub type Mapping = BTreeMap<String, BTreeMap<String, String>>;

/// What executions are judged against.
#[derive(Debug, Clone)]
pub struct Target {
    pub application: Arc<Application>,
    pub mapping: Mapping,
}

/// An execution, and whether it can go on under the new version.
#[derive(Debug, Clone)]
pub struct Judged {
    pub summary: Summary,
    pub verdict: Verdict,
}

/// An execution, and what became of it.
#[derive(Debug, Clone)]
pub struct Moved {
    pub summary: Summary,
    pub outcome: Outcome,
}

/// What became of an execution that was to be moved.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It runs this version now.
    Moved(u32),
    /// It stays in its version.
    Left(Verdict),
    /// It stays as well, and may be moved another time: why not now.
    Later(String),
}

impl Engine {
    /// Judges a page of a tenant's open executions of an application, the newest first.
    pub async fn judge(
        &self,
        tenant: &TenantId,
        target: &Target,
        before: Option<ListCursor>,
    ) -> Result<Page<Judged, ListCursor>, store::Error> {
        let application = &target.application.name;
        let page = self.open_page(tenant, application, before).await?;
        let mut items = Vec::new();
        for summary in page.items {
            let program = target.application.workflows.get(&*summary.workflow);
            let program = program.cloned();
            let found = self.look(tenant, summary.id, program, &target.mapping);
            if let Some((summary, Judging { verdict, .. })) = found.await? {
                items.push(Judged { summary, verdict });
            }
        }
        let next = page.next;
        Ok(Page { items, next })
    }

    /// Moves a page of a tenant's open executions of an application to the version in
    /// force, the newest first; those that run it already are left out.
    pub async fn migrate(
        &self,
        tenant: &TenantId,
        application: &str,
        mapping: &Mapping,
        before: Option<ListCursor>,
    ) -> Result<Page<Moved, ListCursor>, store::Error> {
        let page = self.open_page(tenant, application, before).await?;
        let mut items = Vec::new();
        for some in page.items.chunks(MOVES) {
            let moves = some
                .iter()
                .map(|summary| self.migrate_one(tenant, summary, mapping));
            for moved in future::join_all(moves).await {
                items.extend(moved?);
            }
        }
        let next = page.next;
        Ok(Page { items, next })
    }

    async fn open_page(
        &self,
        tenant: &TenantId,
        application: &str,
        before: Option<ListCursor>,
    ) -> Result<Page<Summary, ListCursor>, store::Error> {
        let filter = open_of(application);
        let store = &self.inner.context.store;
        store.list(tenant, &filter, before, PAGE).await
    }

    /// Moves an execution wherever it is; one of a bucket of another process by that one.
    async fn migrate_one(
        &self,
        tenant: &TenantId,
        summary: &Summary,
        mapping: &Mapping,
    ) -> Result<Option<Moved>, store::Error> {
        let outcome = match self.whereabouts(summary.bucket) {
            Whereabouts::Here => self.migrate_row(tenant, summary, mapping).await?,
            Whereabouts::There(_) | Whereabouts::Nobody => {
                let ask = Ask::Migrate {
                    tenant: tenant.clone(),
                    id: summary.id,
                    mapping: mapping.clone(),
                };
                let bucket = summary.bucket;
                if let Some(Told::Moved(outcome)) = self.ask(bucket, &ask).await {
                    outcome.map(Outcome::from)
                } else {
                    let why = ControlError::Elsewhere { bucket };
                    Some(Outcome::Later(why.to_string()))
                }
            }
        };
        let summary = summary.clone();
        Ok(outcome.map(|outcome| Moved { summary, outcome }))
    }

    /// Moves an execution of which only the id is known, as another process asks.
    pub(super) async fn migrate_here(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        mapping: &Mapping,
    ) -> Result<Option<Outcome>, store::Error> {
        match self.inner.context.store.summary(tenant, id).await? {
            Some(summary) => self.migrate_row(tenant, &summary, mapping).await,
            None => Ok(None),
        }
    }

    async fn migrate_row(
        &self,
        tenant: &TenantId,
        summary: &Summary,
        mapping: &Mapping,
    ) -> Result<Option<Outcome>, store::Error> {
        let definitions = &self.inner.context.definitions;
        let target = definitions.workflow(tenant, &summary.application, &summary.workflow);
        let version = target.as_ref().map(|(version, _)| *version);
        if version.is_some_and(|version| summary.application_version >= version) {
            return Ok(None);
        }
        let mut outcome = Outcome::Later(ControlError::MovedOn.to_string());
        for _ in 0..TRIES {
            let program = target.as_ref().map(|(_, program)| Arc::clone(program));
            let found = self.look(tenant, summary.id, program, mapping).await?;
            let Some((
                _,
                Judging {
                    plan,
                    verdict,
                    execution,
                    ..
                },
            )) = found
            else {
                return Ok(None);
            };
            if verdict != Verdict::Safe {
                outcome = Outcome::Left(verdict);
                break;
            }
            let (Some(version), Some(plan)) = (version, plan) else {
                break; // what is safe has both
            };
            let judged = execution.version;
            let control = Control::Migrate(Move {
                version,
                plan,
                judged,
            });
            match self.control(tenant, summary.id, 0, control).await {
                Ok(()) => {
                    outcome = Outcome::Moved(version);
                    break;
                }
                Err(ControlError::MovedOn) => {}
                Err(ControlError::AlreadyClosed | ControlError::NotFound) => return Ok(None),
                Err(ControlError::Store(error)) => return Err(error),
                Err(error) => {
                    outcome = Outcome::Later(error.to_string());
                    break;
                }
            }
        }
        Ok(Some(outcome))
    }

    /// An execution as it was committed last, and whether it can go on under this
    /// program; `None` if it has ended.
    async fn look(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        new: Option<Arc<Program>>,
        mapping: &Mapping,
    ) -> Result<Option<(Summary, Judging)>, store::Error> {
        let Some(view) = self.show(tenant, id).await? else {
            return Ok(None);
        };
        let View {
            summary,
            execution,
            program: old,
            ..
        } = view;
        if execution.is_closed() {
            return Ok(None);
        }
        let renamed = mapping.get(&*summary.workflow).cloned();
        let judging = Judging {
            old,
            new,
            renamed: renamed.unwrap_or_default(),
            execution,
            plan: None,
            verdict: Verdict::Safe,
        };
        let judge = |judging: &mut Judging, _| {
            judging.judge();
            Ok(true)
        };
        let judging = in_turns(&self.inner.context, tenant, judging, judge).await?;
        Ok(Some((summary, judging)))
    }
}

/// The list of an application's open executions.
pub fn open_of(application: &str) -> Filter {
    Filter {
        application: Some(application.to_owned()),
        open: true,
        ..Filter::default()
    }
}

/// An execution that is being judged.
struct Judging {
    old: Arc<Program>,
    /// `None` if there is no such workflow any more.
    new: Option<Arc<Program>>,
    renamed: BTreeMap<String, String>,
    execution: Execution,
    plan: Option<Arc<Plan>>,
    verdict: Verdict,
}

impl Judging {
    fn judge(&mut self) {
        let stuck = |reason: String| Verdict::Stuck {
            reasons: vec![reason],
        };
        let Some(new) = &self.new else {
            let name = &self.old.name;
            self.verdict = stuck(format!("the new version has no workflow `{name}`"));
            return;
        };
        if self.execution.version + 1 >= limits::MAX_EVENTS {
            self.verdict = stuck("its history has no room for one more event".to_owned());
            return;
        }
        let plan = Plan::new(&self.old, new, &self.renamed);
        self.verdict = plan.judge(&self.execution);
        self.plan = Some(Arc::new(plan));
    }
}

/// The programs along a history.
pub(super) struct Versions {
    current: Arc<Program>,
    /// Those that the events at hand move to.
    ahead: BTreeMap<u32, Arc<Program>>,
}

impl Versions {
    pub(super) async fn begin(
        context: &Context,
        summary: &Summary,
        version: u32,
    ) -> Result<Self, store::Error> {
        Ok(Self {
            current: live::program(context, summary, version).await?,
            ahead: BTreeMap::new(),
        })
    }

    /// Gets the programs that these events move to, which come next.
    pub(super) async fn fetch(
        &mut self,
        context: &Context,
        summary: &Summary,
        events: &[Event],
    ) -> Result<(), store::Error> {
        self.ahead.clear();
        for event in events {
            if let EventKind::ExecutionMigrated { to, .. } = &event.kind
                && !self.ahead.contains_key(to)
            {
                let program = live::program(context, summary, *to).await?;
                self.ahead.insert(*to, program);
            }
        }
        Ok(())
    }

    /// Applies the next event, and tells `observe` what follows.
    pub(super) fn apply(
        &mut self,
        execution: Execution,
        event: &Event,
        observe: Option<&mut dyn FnMut(Record)>,
    ) -> Result<Transition, ApplyError> {
        let EventKind::ExecutionMigrated { to, states, .. } = &event.kind else {
            return match observe {
                Some(observe) => apply_traced(&self.current, execution, event, observe),
                None => apply(&self.current, execution, event),
            };
        };
        let new = self.ahead.get(to).ok_or(ApplyError::Move {
            execution: execution.id,
            to: *to,
            seq: event.seq,
        })?;
        let plan = Plan::new(&self.current, new, states);
        self.current = Arc::clone(new);
        match observe {
            Some(observe) => migrate(&plan, execution, event, observe),
            None => migrate(&plan, execution, event, &mut |_| ()),
        }
    }

    /// The program after the last event.
    pub(super) fn current(self) -> Arc<Program> {
        self.current
    }
}

/// The application version before the events that have no snapshot yet.
pub(super) fn version_before(stored: &Stored) -> u32 {
    let first = stored.tail.iter().find_map(|event| match &event.kind {
        EventKind::ExecutionMigrated { from, .. } => Some(*from),
        _ => None,
    });
    first.unwrap_or(stored.summary.application_version)
}

/// The application version that an execution was started with.
pub(super) fn version_at_start(stored: &Stored) -> u32 {
    let snapshot = stored.snapshot.as_ref();
    let moved = snapshot.and_then(|execution| execution.origin);
    moved.unwrap_or_else(|| version_before(stored))
}
