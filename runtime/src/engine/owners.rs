//! Which buckets are moved on here, and which where.
//!
//! Shards open and close while the engine runs: each is here, or another process has it, or
//! nobody does for a moment. Who asks for something in a bucket that is not here gets
//! [`StartError::Elsewhere`] or [`ControlError::Elsewhere`] with nothing done; what follows
//! from executions themselves (children, schedules) finds its way to the owner by
//! [`Peers`]. Nothing here is durable: the store says who holds what.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cascade_cdl::{BUCKETS, ExecutionId, Json, TenantId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::shard::{Request, Shard};
use super::wire::{Ask, Told};
use super::{Context, Engine, Inner, LAST_COMMIT, REPORT_BYTES, Report, SMALL_REPORT};
use crate::store::{self, Epoch, Lease, NodeId, ShardId};

/// How long something waits for a bucket to have an owner again: as long as it takes until a
/// node that died is taken for dead, with the default settings, and its shards are open.
pub const OWNER_PATIENCE: Duration = Duration::from_secs(4);

/// Another process, as far as one needs to know to ask it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    /// URL of its API.
    pub address: Arc<str>,
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    Here,
    There(Peer),
    /// It changes hands.
    Nobody,
}

/// The seam to other processes. What is asked is asked at least once, and all of it can be.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Has a process do something. An error says that nobody knows whether it did.
    async fn ask(&self, peer: &Peer, ask: &Ask) -> Result<Told, String>;
}

/// A shard that is open here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenShard {
    pub lease: Lease,
    pub buckets: Range<u32>,
    /// Executions that have not ended.
    pub open: u64,
    /// Requests that wait for it.
    pub waiting: usize,
    /// How long the last commit took.
    pub commit: Duration,
}

/// By what right a shard is run, and until when.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) shard: ShardId,
    pub(super) buckets: Range<u32>,
    /// Who holds the lease; absent if this process is the only one.
    pub(super) node: Option<NodeId>,
    /// The shard is to commit what it knows, and to end.
    pub(super) closing: CancellationToken,
    /// It is to end at once: its lease is over.
    pub(super) lost: CancellationToken,
    pub(super) vitals: Arc<Vitals>,
}

/// What others may know of a shard while it runs.
#[derive(Default)]
pub(super) struct Vitals {
    epoch: AtomicU64,
    pub(super) open: AtomicU64,
    commit_micros: AtomicU64,
}

impl Vitals {
    pub(super) fn committed_in(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.commit_micros.store(micros, Ordering::Relaxed);
    }
}

/// A shard that runs, as the engine holds it.
pub(super) struct ShardHandle {
    seat: Seat,
    pub(super) requests: mpsc::Sender<Request>,
    /// Permits for bytes of reports on their way.
    report_bytes: Arc<Semaphore>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// All buckets, as this process knows them.
#[derive(Default)]
struct Table {
    /// By the first bucket.
    here: Vec<Arc<ShardHandle>>,
    /// By the first bucket, too.
    there: Vec<(Range<u32>, Peer)>,
}

/// Who has which buckets, now and after each change.
pub(super) struct Owners {
    table: watch::Sender<Arc<Table>>,
    peers: Mutex<Option<Arc<dyn Peers>>>,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            table: watch::Sender::new(Arc::default()),
            peers: Mutex::new(None),
        }
    }
}

impl Table {
    fn shard(&self, bucket: u32) -> Option<&Arc<ShardHandle>> {
        let after = self
            .here
            .partition_point(|shard| shard.seat.buckets.start <= bucket);
        let shard = self.here.get(after.checked_sub(1)?)?;
        shard.seat.buckets.contains(&bucket).then_some(shard)
    }

    fn peer(&self, bucket: u32) -> Option<&Peer> {
        let after = self
            .there
            .partition_point(|(buckets, _)| buckets.start <= bucket);
        let (buckets, peer) = self.there.get(after.checked_sub(1)?)?;
        buckets.contains(&bucket).then_some(peer)
    }

    fn is_whole(&self) -> bool {
        let ranges = self.here.iter().map(|shard| &shard.seat.buckets);
        ranges.fold(
            0,
            |end, range| if range.start == end { range.end } else { end },
        ) == BUCKETS
    }
}

impl Owners {
    /// The shard that has a bucket, if it is here.
    pub(super) fn shard(&self, bucket: u32) -> Option<Arc<ShardHandle>> {
        self.table.borrow().shard(bucket).cloned()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.table.borrow().is_whole()
    }

    pub(super) fn whereabouts(&self, bucket: u32) -> Whereabouts {
        let table = self.table.borrow();
        match (table.shard(bucket), table.peer(bucket)) {
            (Some(_), _) => Whereabouts::Here,
            (None, Some(peer)) => Whereabouts::There(peer.clone()),
            (None, None) => Whereabouts::Nobody,
        }
    }

    pub(super) fn peers(&self) -> Option<Arc<dyn Peers>> {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn handles(&self) -> Vec<Arc<ShardHandle>> {
        self.table.borrow().here.clone()
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Arc<ShardHandle>>, &mut Vec<(Range<u32>, Peer)>),
    ) {
        self.table.send_modify(|table| {
            let (mut here, mut there) = (table.here.clone(), table.there.clone());
            change(&mut here, &mut there);
            here.sort_by_key(|shard| shard.seat.buckets.start);
            there.sort_by_key(|(buckets, _)| buckets.start);
            *table = Arc::new(Table { here, there });
        });
    }

    /// Lets go of a shard, if it is this one.
    fn forget(&self, handle: &Arc<ShardHandle>) {
        self.change(|here, _| here.retain(|shard| !Arc::ptr_eq(shard, handle)));
    }

    /// A shard has another epoch now.
    pub(super) fn raised(&self, vitals: &Vitals, epoch: Epoch) {
        vitals.epoch.store(epoch.0, Ordering::Release);
        self.table.send_modify(|_| ());
    }
}

impl Seat {
    /// The right to a shard for as long as the engine runs.
    pub(super) fn new(
        context: &Context,
        shard: ShardId,
        buckets: Range<u32>,
        node: Option<NodeId>,
    ) -> Self {
        Self {
            shard,
            buckets,
            node,
            closing: context.stopping.child_token(),
            lost: CancellationToken::new(),
            vitals: Arc::default(),
        }
    }

    /// Takes the shard, or takes it once more so that what an earlier life of it has sent is
    /// fenced off; `None` if somebody else has it by now.
    pub(super) async fn acquire(&self, context: &Context) -> Result<Option<Lease>, store::Error> {
        let lease = match self.node {
            Some(node) => context.store.raise(node, self.shard).await?,
            None => Some(context.store.acquire(self.shard).await?),
        };
        if let Some(lease) = &lease {
            context.owners.raised(&self.vitals, lease.epoch);
        }
        Ok(lease)
    }
}

impl ShardHandle {
    fn lease(&self) -> Lease {
        Lease {
            shard: self.seat.shard,
            epoch: Epoch(self.seat.vitals.epoch.load(Ordering::Acquire)),
        }
    }

    pub(super) fn has(&self, bucket: u32) -> bool {
        self.seat.buckets.contains(&bucket)
    }

    pub(super) async fn report(&self, reports: Vec<Report>) {
        let bytes: usize = reports
            .iter()
            .map(|report| match &report.result {
                Ok(output) => output.len(),
                Err(failure) => failure.details.as_ref().map_or(0, Json::len),
            })
            .sum();
        let permit = if bytes < SMALL_REPORT {
            None
        } else {
            let permits = u32::try_from(bytes.min(REPORT_BYTES)).unwrap_or(u32::MAX);
            let bytes = self.report_bytes.clone();
            // The semaphore is never closed.
            bytes.acquire_many_owned(permits).await.ok().map(Arc::new)
        };
        // A closed shard has stopped caring: recovery runs the task again.
        let _ = self.requests.send(Request::Reports(reports, permit)).await;
    }

    /// Waits until the shard has ended.
    async fn ended(&self) {
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(task) = task else { return };
        match tokio::time::timeout(LAST_COMMIT, task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a shard ended badly"),
            Err(_) => tracing::error!("a shard's last commit takes too long; it is left"),
        }
    }
}

impl Engine {
    /// Opens a shard that this process has taken, and moves its executions on from what the
    /// store has. `lease` is that of `node`.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn open_shard(
        &self,
        node: NodeId,
        lease: Lease,
        buckets: Range<u32>,
    ) -> Result<(), store::Error> {
        let context = &self.inner.context;
        let seat = Seat::new(context, lease.shard, buckets, Some(node));
        context.owners.raised(&seat.vitals, lease.epoch);
        let shard = Shard::open(seat.clone(), lease, context.clone()).await?;
        self.serve(seat, shard);
        Ok(())
    }

    pub(super) fn serve(&self, seat: Seat, shard: Shard) {
        let mailbox = self.inner.context.settings.mailbox.max(1);
        let (requests, inbox) = mpsc::channel(mailbox);
        let handle = Arc::new(ShardHandle {
            seat,
            requests,
            report_bytes: Arc::new(Semaphore::new(REPORT_BYTES)),
            task: Mutex::new(None),
        });
        let owners = &self.inner.context.owners;
        owners.change(|here, there| {
            // Who had it before is not asked any more.
            let buckets = &handle.seat.buckets;
            there.retain(|(range, _)| range.end <= buckets.start || range.start >= buckets.end);
            here.push(handle.clone());
        });
        let context = self.inner.context.clone();
        let ends = Arc::downgrade(&handle);
        let task = tokio::spawn(async move {
            shard.run(inbox).await;
            // By itself, mostly because somebody else has it.
            if let Some(handle) = ends.upgrade() {
                context.owners.forget(&handle);
                context.watch.look();
            }
        });
        *handle.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Closes a shard in good order: what it knows is committed, what waits for it is told to
    /// ask its next owner. Returns when nothing more will come of it.
    pub async fn hand_over(&self, shard: ShardId) {
        if let Some(handle) = self.take_out(shard) {
            handle.seat.closing.cancel();
            handle.ended().await;
            self.inner.context.watch.look();
        }
    }

    /// Lets go of a shard at once: its lease is over.
    pub fn abandon(&self, shard: ShardId) {
        if let Some(handle) = self.take_out(shard) {
            handle.seat.lost.cancel();
            self.inner.context.watch.look();
        }
    }

    fn take_out(&self, shard: ShardId) -> Option<Arc<ShardHandle>> {
        let owners = &self.inner.context.owners;
        let mut handles = owners.handles().into_iter();
        let handle = handles.find(|handle| handle.seat.shard == shard)?;
        owners.forget(&handle);
        Some(handle)
    }

    /// The shards that are open here.
    pub fn shards(&self) -> Vec<OpenShard> {
        let handles = self.inner.context.owners.handles();
        let show = |handle: &Arc<ShardHandle>| {
            let Seat {
                buckets, vitals, ..
            } = &handle.seat;
            let requests = &handle.requests;
            OpenShard {
                lease: handle.lease(),
                buckets: buckets.clone(),
                open: vitals.open.load(Ordering::Relaxed),
                waiting: requests.max_capacity() - requests.capacity(),
                commit: Duration::from_micros(vitals.commit_micros.load(Ordering::Relaxed)),
            }
        };
        handles.iter().map(show).collect()
    }

    /// The lease of the shard that has a bucket, if it is here.
    pub fn lease_of(&self, bucket: u32) -> Option<Lease> {
        let owners = &self.inner.context.owners;
        owners.shard(bucket).map(|shard| shard.lease())
    }

    /// Where a bucket is.
    pub fn whereabouts(&self, bucket: u32) -> Whereabouts {
        self.inner.context.owners.whereabouts(bucket)
    }

    /// Whether all buckets are here, so that nobody else needs to be asked.
    pub fn is_whole(&self) -> bool {
        self.inner.context.owners.is_whole()
    }

    /// Tells of changes of who has what.
    pub fn moves(&self) -> watch::Receiver<impl Send + Sync + use<>> {
        self.inner.context.owners.table.subscribe()
    }

    /// Where a bucket is, once it is anywhere; [`Whereabouts::Nobody`] if that takes longer
    /// than `patience`.
    pub async fn settled(&self, bucket: u32, patience: Duration) -> Whereabouts {
        self.inner.context.owners.settled(bucket, patience).await
    }

    /// Which bucket an execution is in; that of its id if it is nowhere.
    pub async fn bucket_of(&self, tenant: &TenantId, id: ExecutionId) -> Result<u32, store::Error> {
        self.inner.context.find(tenant, id).await
    }

    /// Who has the buckets that are not here.
    pub fn set_peers(&self, there: Vec<(Range<u32>, Peer)>) {
        let owners = &self.inner.context.owners;
        let same = owners.table.borrow().there == there;
        if !same {
            owners.change(|_, old| *old = there);
        }
    }

    /// How other processes are reached.
    pub fn connect(&self, peers: Arc<dyn Peers>) {
        let place = &self.inner.context.owners.peers;
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(peers);
    }

    /// Whether a shard may go to another process while this one goes on.
    pub(super) fn may_move(&self) -> bool {
        let context = &self.inner.context;
        context.settings.clustered && !context.stopping.is_cancelled()
    }

    /// Waits for the shards to end, which they were told to.
    pub(super) async fn join_shards(&self) {
        for handle in self.inner.context.owners.handles() {
            handle.ended().await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Shards hold what holds them; when nobody can ask them any more, they end.
        self.context.owners.change(|here, _| here.clear());
    }
}

impl Owners {
    pub(super) async fn settled(&self, bucket: u32, patience: Duration) -> Whereabouts {
        let mut table = self.table.subscribe();
        let settled = async {
            loop {
                table.borrow_and_update();
                let found = self.whereabouts(bucket);
                if found != Whereabouts::Nobody || table.changed().await.is_err() {
                    return found;
                }
            }
        };
        let settled = tokio::time::timeout(patience, settled).await;
        settled.unwrap_or(Whereabouts::Nobody)
    }
}
