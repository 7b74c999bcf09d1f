//! Hot standbys: what clients read goes round among those that are fit, and to the primary if
//! none is, or if one does not answer.
//!
//! [`head`] asks the primary how far it is, [`replica`] watches and asks a replica. That no
//! client is shown less than it knows rests on two things. A position that is given out is at or after
//! all that its client was shown or told was durable. And a replica is asked how
//! far it is right before the snapshot of each read. What is remembered of it only says which
//! one to ask.

mod head;
mod replica;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cascade_cdl::{Event, ExecutionId, TenantId};
use tokio::task::JoinSet;

use self::head::{Head, Known};
use self::replica::{Answer, Replica};
use super::connect::{Connections, Connector, Failure, PostgresSettings, Tx};
use super::scope::{Bound, Scope};
use super::{may_be_found, may_be_names, may_be_text, objects, read, tasks};
use crate::store::{
    Counts, Cursor, Error, Excerpt, Filter, HumanTask, ListCursor, Object, Page, Position, Reader,
    Replicas, Since, Standing, Stored, Summary, TaskFilter, page_size,
};

/// How often the primary and each replica are looked at: one short question each, so that a
/// replica is out of service soon after it is dead, and known to have come far enough soon after it has.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long they may take to say where they are.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// The replicas of a store.
pub(super) struct Pool {
    list: Vec<Arc<Replica>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    head: Head,
    primary: Arc<Connections>,
    /// What looks at them, until it is ended.
    watchers: Mutex<JoinSet<()>>,
}

impl Pool {
    /// Begins to look at the replicas; none need be there yet. `None` if there are none.
    pub(super) fn start(
        settings: &PostgresSettings,
        connector: &Connector,
        bound: &Bound,
        primary: Arc<Connections>,
    ) -> Result<Option<Arc<Self>>, Failure> {
        let of_replicas = settings.of_replicas();
        if of_replicas.is_empty() {
            return Ok(None);
        }
        let known = Known::default();
        let max_lag = settings.replicas.max_lag;
        let list = of_replicas.iter().map(|of| {
            let connector = Connector::new(of)?.bound(bound.clone());
            let replica = Replica::new(connector, of.connections, max_lag, known.clone());
            Ok(Arc::new(replica))
        });
        let list = list.collect::<Result<Vec<_>, Failure>>()?;
        let (head, asking) = Head::new(connector.clone(), known);
        let mut watchers = JoinSet::new();
        watchers.spawn(asking);
        for replica in &list {
            watchers.spawn(Arc::clone(replica).watch());
        }
        Ok(Some(Arc::new(Self {
            list,
            turn: AtomicUsize::new(0),
            head,
            primary,
            watchers: Mutex::new(watchers),
        })))
    }

    pub(super) async fn close(&self) {
        let mut watchers = std::mem::take(&mut *lock(&self.watchers));
        watchers.shutdown().await;
        for replica in &self.list {
            replica.close().await;
        }
    }

    /// The replica to ask for what is at or after `since`.
    fn choose(&self, since: Since) -> Option<Arc<Replica>> {
        let positions: Vec<_> = self
            .list
            .iter()
            .map(|replica| replica.in_service())
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = choose(&positions, turn, since)?;
        self.list.get(index).cloned()
    }
}

#[async_trait]
impl Replicas for Arc<Pool> {
    fn reader(&self, since: Since) -> Arc<dyn Reader> {
        Arc::new(Course {
            pool: Arc::clone(self),
            since,
            state: Mutex::new(State::Unasked),
        })
    }

    async fn position(&self) -> Option<Position> {
        self.head.position().await
    }

    fn standings(&self) -> Vec<Standing> {
        self.list.iter().map(|replica| replica.standing()).collect()
    }
}

/// Which replica to ask, of those in service with where each was last: in turn among those that
/// are known to be far enough, or, since they may have moved on, once among all.
fn choose(positions: &[Option<Position>], turn: usize, since: Since) -> Option<usize> {
    let in_turn = || {
        let count = positions.len();
        let indexes = (0..count).map(move |step| (turn.wrapping_add(step)) % count);
        indexes.filter_map(|index| Some((index, positions[index]?)))
    };
    let first = |fits: &dyn Fn(Position) -> bool| {
        let mut fitting = in_turn().filter(|(_, at)| fits(*at));
        fitting.next().map(|(index, _)| index)
    };
    match since {
        Since::Now => None,
        Since::Anything => first(&|_| true),
        Since::At(position) => first(&|at| at.covers(position))
            // One of an earlier timeline is not far enough, whatever it has received.
            .or_else(|| first(&|at| at.timeline >= position.timeline)),
    }
}

/// What one client reads.
struct Course {
    pool: Arc<Pool>,
    since: Since,
    state: Mutex<State>,
}

/// Where a client reads.
enum State {
    Unasked,
    /// From this replica only, so that nothing goes back in time.
    Replica(Arc<Replica>, Position),
    Primary,
}

impl Course {
    async fn read<T, F>(
        &self,
        scope: Scope<'_>,
        ask: impl Fn(Tx) -> F + Send + Sync,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let chosen = match &*lock(&self.state) {
            State::Unasked => self.pool.choose(self.since),
            State::Replica(replica, _) => Some(Arc::clone(replica)),
            State::Primary => None,
        };
        if let Some(replica) = chosen
            && let Answer::Read(value, position) = replica.read(scope, self.since, &ask).await
        {
            let mut state = lock(&self.state);
            let before = match &*state {
                State::Unasked => Some(position),
                State::Replica(_, before) => Some(position.max(*before)),
                State::Primary => None,
            };
            if let Some(position) = before {
                *state = State::Replica(replica, position);
            }
            return Ok(value);
        }
        *lock(&self.state) = State::Primary;
        self.pool.primary.read(scope, ask).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is there is whole: nothing is done in between that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Reader for Course {
    async fn load(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Stored>, Error> {
        let ask = |tx| read::load(tx, tenant, id);
        self.read(Scope::Of(tenant), ask).await
    }

    async fn summary(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Summary>, Error> {
        let ask = |tx| read::summary(tx, tenant, id);
        self.read(Scope::Of(tenant), ask).await
    }

    async fn history(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: u64,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<Event>, Error> {
        let ask = |tx| read::history(tx, tenant, id, after, Excerpt::new(limit, bytes));
        self.read(Scope::Of(tenant), ask).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        before: Option<ListCursor>,
        limit: u32,
    ) -> Result<Page<Summary, ListCursor>, Error> {
        if !may_be_found(filter) {
            return Ok(Page::default());
        }
        let ask = |tx| read::list(tx, tenant, filter, before, limit);
        self.read(Scope::Of(tenant), ask).await
    }

    async fn count(&self, tenant: &TenantId, filter: &Filter) -> Result<Counts, Error> {
        if !may_be_found(filter) {
            return Ok(Counts::default());
        }
        let ask = |tx| read::count(tx, tenant, filter);
        self.read(Scope::Of(tenant), ask).await
    }

    async fn human_tasks(
        &self,
        tenant: &TenantId,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<HumanTask>, Error> {
        if !may_be_names(&[&filter.application, &filter.workflow]) {
            return Ok(Page::default());
        }
        let ask = |tx| tasks::list(tx, tenant, filter, after, limit);
        self.read(Scope::Of(tenant), ask).await
    }

    async fn objects(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error> {
        if !may_be_text(bucket) {
            return Ok(Vec::new());
        }
        let limit = page_size(limit);
        let ask = |tx| objects::list(tx, tenant, bucket, prefix, after, limit);
        self.read(Scope::Of(tenant), ask).await
    }

    fn seen(&self) -> Option<Position> {
        match &*lock(&self.state) {
            State::Replica(_, position) => Some(*position),
            State::Unasked | State::Primary => None,
        }
    }

    fn leave(&self) {
        *lock(&self.state) = State::Primary;
    }
}
