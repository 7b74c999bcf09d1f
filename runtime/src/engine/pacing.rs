//! How often executions of a workflow may be started.
//!
//! Counted for each workflow of a tenant, over all shards, in memory: after a restart
//! the count begins anew. What counts is an execution that is made; a start of one that
//! is there is answered whatever the rate. A start from outside that comes too fast is
//! refused and told when to come again. A child waits instead, and is not refused: it is
//! given its moment, one after the other, so that nothing asks again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cascade_cdl::TenantId;
use cascade_cdl::program::Rate;

use super::{Context, Start, StartError};
use crate::rate::Meter;
use crate::store;

/// From so many on, what remembers nothing any more is forgotten now and then: workflows
/// come and go.
const TIDY_FROM: usize = 1_024;

/// Tenant, application and workflow.
type Name = (TenantId, Arc<str>, Arc<str>);

/// The meters of all workflows with a rate.
#[derive(Default)]
pub(super) struct Paces {
    meters: Mutex<HashMap<Name, Meter>>,
}

impl Paces {
    /// Counts a start, if it may be now. If not, says after how long.
    fn admit(&self, start: &Start, rate: &Rate, now: Duration) -> Result<(), Duration> {
        self.with(start, now, |meter| {
            meter.keep_to(rate, now);
            let earliest = meter.earliest(rate, rate.burst);
            if earliest > now {
                return Err(earliest.saturating_sub(now));
            }
            meter.count(rate, now);
            Ok(())
        })
    }

    /// Counts a start, and says when it may be.
    fn reserve(&self, start: &Start, rate: &Rate, now: Duration) -> Duration {
        self.with(start, now, |meter| {
            meter.keep_to(rate, now);
            let at = meter.earliest(rate, rate.burst).max(now);
            meter.count(rate, now);
            at
        })
    }

    fn with<T>(&self, start: &Start, now: Duration, count: impl FnOnce(&mut Meter) -> T) -> T {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if meters.len() >= TIDY_FROM {
            meters.retain(|_, meter| !meter.is_idle(now));
        }
        let name = (
            start.tenant.clone(),
            Arc::clone(&start.application),
            Arc::clone(&start.workflow),
        );
        count(meters.entry(name).or_default())
    }
}

impl Context {
    /// Checks that an execution may be made now, as far as its workflow's rate goes.
    pub(super) fn pace(&self, start: &Start, rate: Option<&Rate>) -> Result<(), StartError> {
        let Some(rate) = rate.filter(|_| start.parent.is_none()) else {
            return Ok(()); // a child has been given its moment
        };
        let admitted = self.paces.admit(start, rate, self.clock.passed());
        admitted.map_err(|wait| StartError::TooFast {
            application: Arc::clone(&start.application),
            workflow: Arc::clone(&start.workflow),
            rate: *rate,
            retry_after: whole_seconds(wait),
        })
    }

    /// When a child may be started; `None` if it may at once, or has been.
    pub(super) async fn moment(&self, start: &Start) -> Result<Option<Duration>, store::Error> {
        let definitions = &self.definitions;
        let found = definitions.workflow(&start.tenant, &start.application, &start.workflow);
        let rate = found.and_then(|(_, program)| program.start_rate_limit);
        let (Some(rate), Some(id)) = (rate, start.id) else {
            return Ok(None);
        };
        // After a restart parents ask again for children that are there.
        if self.store.summary(&start.tenant, id).await?.is_some() {
            return Ok(None);
        }
        let now = self.clock.passed();
        let at = self.paces.reserve(start, &rate, now);
        Ok((at > now).then_some(at))
    }
}

/// In whole seconds, rounded up: clients are told no finer.
fn whole_seconds(wait: Duration) -> Duration {
    let more = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(wait.as_secs().saturating_add(more))
}
