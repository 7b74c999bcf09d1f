//! Replays histories for those who look at them.
//!
//! A single event may take the machine as long as its limits allow, and there
//! may be many. So this is done beside the threads that serve requests, in
//! short turns, of which a tenant has only so many at a time.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cascade_cdl::schema::{Schema, Unfit};
use cascade_cdl::{Event, Execution, ExecutionId, Json, Record, TenantId};

use super::live::{self, Restoring};
use super::moves::{self, Versions};
use super::{Context, Engine, View};
use crate::places::Places;
use crate::store::{self, PAGE_BYTES, Reader, Stored, Summary};

/// Who waits for a turn waits so long for each before it, or for one event.
const TURN: Duration = Duration::from_millis(50);

/// The fewest turns at a time: with one or two, two tenants could take all.
const FEWEST_TURNS: usize = 4;

/// Events that one read of the store fetches.
const READ_EVENTS: u32 = 1_000;

/// What a record takes beside its payload, in bytes, roughly.
const RECORD_OVERHEAD: usize = 200;

/// An event, and what followed from it.
#[derive(Debug, Clone)]
pub struct Traced {
    pub event: Event,
    /// In order, as many as [`PAGE_BYTES`] hold.
    pub records: Vec<Record>,
    /// How many more there were.
    pub omitted: usize,
}

/// The turns at replaying, of all tenants.
pub(super) fn turns() -> Places {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Places::new(cores.max(FEWEST_TURNS))
}

impl Engine {
    /// An execution as it was committed last.
    pub async fn show(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
    ) -> Result<Option<View>, store::Error> {
        let stored = self.inner.context.store.load(tenant, id).await?;
        match stored {
            Some(stored) => self.show_stored(stored).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same of one that has been read already.
    pub async fn show_stored(&self, stored: Stored) -> Result<View, store::Error> {
        let context = &self.inner.context;
        let tenant = stored.summary.tenant.clone();
        let restoring = live::begin_restore(context, stored).await?;
        let restored = in_turns(context, &tenant, restoring, Restoring::go_on).await?;
        restored.end()
    }

    /// A page of a history with what followed from each event: those after
    /// `after`, at most `limit`, and about as many as [`PAGE_BYTES`] hold. `reader` reads it.
    ///
    /// What the machine needs is all that happened before, so the history is
    /// read from its start.
    pub async fn trace(
        &self,
        reader: &dyn Reader,
        summary: &Summary,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Traced>, store::Error> {
        let context = &self.inner.context;
        let (tenant, id) = (&summary.tenant, summary.id);
        let Some(stored) = reader.load(tenant, id).await? else {
            return Ok(Vec::new());
        };
        let first = moves::version_at_start(&stored);
        drop(stored);
        let mut tracing = Tracing {
            versions: Versions::begin(context, summary, first).await?,
            execution: Some(Execution::new(id, tenant.clone())),
            events: Vec::new().into_iter(),
            after,
            limit: limit as usize,
            page: Vec::new(),
            bytes: 0,
        };
        while !tracing.is_full() {
            let version = tracing.version();
            let events = reader
                .history(tenant, id, version, READ_EVENTS, PAGE_BYTES)
                .await?;
            if events.is_empty() {
                break;
            }
            tracing.versions.fetch(context, summary, &events).await?;
            tracing.events = events.into_iter();
            tracing = in_turns(context, tenant, tracing, Tracing::go_on).await?;
        }
        Ok(tracing.page)
    }
}

impl Engine {
    /// Whether an answer fits a schema. Some ten milliseconds at most, so that it
    /// is done beside the shard, in one turn.
    pub(super) async fn fit(
        &self,
        tenant: &TenantId,
        schema: Arc<Schema>,
        value: Json,
    ) -> Result<Result<(), Unfit>, store::Error> {
        let fitting = Fitting {
            schema,
            value,
            fits: Ok(()),
        };
        let check = |fitting: &mut Fitting, _| {
            fitting.fits = fitting.schema.check(&fitting.value.to_value());
            Ok(true)
        };
        let fitting = in_turns(&self.inner.context, tenant, fitting, check).await?;
        Ok(fitting.fits)
    }
}

/// A value that is held against a schema.
struct Fitting {
    schema: Arc<Schema>,
    value: Json,
    fits: Result<(), Unfit>,
}

/// Works until it is done, a turn at a time. `go_on` works until then, or a
/// little longer, and says whether it is done.
pub(super) async fn in_turns<W: Send + 'static>(
    context: &Context,
    tenant: &TenantId,
    mut work: W,
    go_on: fn(&mut W, Instant) -> Result<bool, store::Error>,
) -> Result<W, store::Error> {
    loop {
        let place = context.turns.take(tenant).await;
        let turn = tokio::task::spawn_blocking(move || {
            let done = go_on(&mut work, Instant::now() + TURN);
            drop(place); // it is held even if nobody waits any more
            (done, work)
        });
        let (done, back) = match turn.await {
            Ok(turn) => turn,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => return Err(store::Error::Closed), // the process ends
            },
        };
        work = back;
        if done? {
            return Ok(work);
        }
    }
}

/// A history that is being replayed for a page of it.
struct Tracing {
    versions: Versions,
    /// `None` only while an event is applied.
    execution: Option<Execution>,
    /// Read, and not yet applied.
    events: std::vec::IntoIter<Event>,
    after: u64,
    limit: usize,
    page: Vec<Traced>,
    /// What the page holds.
    bytes: usize,
}

impl Tracing {
    fn version(&self) -> u64 {
        self.execution
            .as_ref()
            .map_or(0, |execution| execution.version)
    }

    fn is_full(&self) -> bool {
        self.page.len() >= self.limit || self.bytes >= PAGE_BYTES
    }

    fn go_on(&mut self, until: Instant) -> Result<bool, store::Error> {
        while !self.is_full() {
            let Some(event) = self.events.next() else {
                return Ok(true);
            };
            self.apply(event)?;
            if Instant::now() >= until {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn apply(&mut self, event: Event) -> Result<(), store::Error> {
        let execution = self.execution.take().expect("put back, or it is the end");
        let id = execution.id;
        let applied = if event.seq > self.after {
            let (mut records, mut omitted, mut bytes) = (Vec::new(), 0, 0);
            // One event may run through thousands of states, each with an output.
            let observe = &mut |record| {
                if bytes < PAGE_BYTES {
                    bytes += record_len(&record);
                    records.push(record);
                } else {
                    omitted += 1;
                }
            };
            let applied = self.versions.apply(execution, &event, Some(observe));
            self.bytes += live::event_len(&event) + bytes;
            self.page.push(Traced {
                event,
                records,
                omitted,
            });
            applied
        } else {
            self.versions.apply(execution, &event, None)
        };
        let damaged = |error| store::Error::Damaged(format!("history of execution {id}: {error}"));
        self.execution = Some(applied.map_err(damaged)?.execution);
        Ok(())
    }
}

/// Size of a record, in bytes, roughly.
fn record_len(record: &Record) -> usize {
    let payload = match record {
        Record::StateExited { output, .. }
        | Record::StepCompensated { output, .. }
        | Record::ExecutionCompleted { output } => output.len(),
        Record::CompensationFailed { message, .. } => message.len(),
        Record::ActivityScheduled { input, .. } => input.len(),
        Record::ExecutionFailed { failure } => {
            failure.message.len() + failure.details.as_ref().map_or(0, Json::len)
        }
        Record::ExecutionCancelled { reason } | Record::ExecutionPaused { reason } => reason.len(),
        Record::StateEntered { .. }
        | Record::ActivityCancelled { .. }
        | Record::RetryScheduled { .. }
        | Record::Caught { .. }
        | Record::SignalReceived { .. }
        | Record::PersonAsked { .. }
        | Record::PersonAnswered { .. }
        | Record::TimerSet { .. }
        | Record::BranchEnded { .. }
        | Record::BranchFailed { .. }
        | Record::CompensationStarted { .. }
        | Record::EventIgnored { .. }
        | Record::ExecutionRetried {}
        | Record::ExecutionResumed {}
        | Record::CallbackAwaited { .. }
        | Record::CallbackTaken { .. }
        | Record::ExecutionMigrated { .. }
        | Record::ExecutionTimedOut { .. } => 0,
    };
    payload + RECORD_OVERHEAD
}
