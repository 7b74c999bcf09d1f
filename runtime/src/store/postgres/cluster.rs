//! Nodes and their shards: who is there, and who moves which executions on.
//!
//! A connection of its own tells that this node is there and renews its leases, so that
//! neither commits nor readers can keep it from that; another hears of changes. Shards are
//! taken one by one: one whose former holder's commit is still under way keeps nobody from
//! taking the others.

use std::sync::Arc;
use std::time::Duration;

use cascade_cdl::Timestamp;
use futures::future::{BoxFuture, FutureExt};
use sqlx::postgres::{PgConnection, PgListener, PgRow};
use sqlx::{Connection as _, PgPool};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::cluster::{REMEMBERED, hold, layout, millis};
use super::super::{Epoch, Error, Lease, Node, NodeId, NodeRow, ShardId, ShardRow, View, codec};
use super::connect::{Connector, Failure, Kind, Tx};
use super::{column, commit, text};

/// What the connection sets beside what all set: a lease is renewed in less, or is lost.
const SESSION: &str = "SET statement_timeout = '2s'; SET lock_timeout = '500ms'";

/// How long an answer may take before the connection counts as lost: longer than the server's
/// own timeout, and short, since leases end meanwhile.
const ANSWER: Duration = Duration::from_secs(3);

/// Where changes are told of. Others may share the database: who hears something looks.
const CHANNEL: &str = "cascade_shards";

const ANNOUNCE: &str = "\
WITH node AS ( \
    INSERT INTO nodes (id, address, version, load, leaving, started_at, seen_at, until) \
    VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp(), \
        clock_timestamp() + $6 * interval '1 ms') \
    ON CONFLICT (id) DO UPDATE SET address = excluded.address, version = excluded.version, \
        load = excluded.load, leaving = excluded.leaving, seen_at = excluded.seen_at, \
        until = excluded.until \
), forgotten AS ( \
    DELETE FROM nodes WHERE until < clock_timestamp() - $7 * interval '1 ms' AND id <> $1 \
), mine AS ( \
    SELECT shard FROM shards WHERE holder = $1 AND until > clock_timestamp() \
    ORDER BY shard FOR NO KEY UPDATE \
) \
UPDATE shards SET until = clock_timestamp() + $6 * interval '1 ms' \
FROM mine WHERE shards.shard = mine.shard";

const NODES: &str = "SELECT id, address, version, load, leaving, \
    (extract(epoch FROM started_at) * 1000)::bigint, (extract(epoch FROM seen_at) * 1000)::bigint, \
    until > clock_timestamp() FROM nodes ORDER BY id";

const SHARDS: &str = "SELECT shards.shard, first_bucket, end_bucket, coalesce(epoch, 0), holder, \
    ceil(extract(epoch FROM until - clock_timestamp()) * 1000)::bigint \
    FROM shards LEFT JOIN leases ON leases.shard = shards.shard ORDER BY shards.shard";

/// Raising the epoch waits for commits that hold the lease, as [`commit::ACQUIRE`] does.
const CLAIM: &str = "\
WITH taken AS ( \
    UPDATE shards SET holder = $1, until = clock_timestamp() + $3 * interval '1 ms' \
    WHERE shard = $2 AND (holder IS NULL OR until <= clock_timestamp()) \
    RETURNING shard \
) \
UPDATE leases SET epoch = epoch + 1 FROM taken WHERE leases.shard = taken.shard \
RETURNING epoch, pg_notify('cascade_shards', current_schema())::text";

const RAISE: &str = "UPDATE leases SET epoch = epoch + 1 FROM shards \
    WHERE leases.shard = $2 AND shards.shard = $2 AND holder = $1 \
        AND until > clock_timestamp() \
    RETURNING epoch";

const RELEASE: &str = "UPDATE shards SET holder = NULL, until = clock_timestamp() \
    WHERE holder = $1 AND ($2::integer[] IS NULL OR shard = ANY ($2)) \
    RETURNING pg_notify('cascade_shards', current_schema())::text";

/// The connection that tells of this node.
pub(super) struct Membership {
    connector: Connector,
    connection: Mutex<Option<PgConnection>>,
    changes: Arc<watch::Sender<u64>>,
    /// What hears of changes, once somebody wants to know.
    listener: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Membership {
    pub(super) fn new(connector: &Connector) -> Self {
        Self {
            connector: connector.clone(),
            connection: Mutex::new(None),
            changes: Arc::new(watch::Sender::new(0)),
            listener: std::sync::Mutex::new(None),
        }
    }

    pub(super) async fn heartbeat(&self, node: &Node, ttl: Duration) -> Result<View, Error> {
        let node = Arc::new(node.clone());
        self.ask(move |connection| {
            let node = Arc::clone(&node);
            async move {
                sqlx::query(ANNOUNCE)
                    .bind(node.id.0)
                    .bind(node.address.as_bytes())
                    .bind(node.version.as_bytes())
                    .bind(node.load.as_bytes())
                    .bind(node.leaving)
                    .bind(millis(ttl))
                    .bind(millis(REMEMBERED))
                    .execute(&mut *connection)
                    .await?;
                view(connection).await
            }
            .boxed()
        })
        .await
    }

    pub(super) async fn claim(
        &self,
        node: NodeId,
        shard: ShardId,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error> {
        self.ask(move |connection| {
            async move {
                let epoch: Option<(i64, Option<String>)> = sqlx::query_as(CLAIM)
                    .bind(node.0)
                    .bind(commit::shard_code(shard))
                    .bind(millis(ttl))
                    .fetch_optional(connection)
                    .await?;
                Ok(epoch.map(|(epoch, _)| lease(shard, epoch)))
            }
            .boxed()
        })
        .await
    }

    pub(super) async fn raise(&self, node: NodeId, shard: ShardId) -> Result<Option<Lease>, Error> {
        self.ask(move |connection| {
            async move {
                let epoch: Option<(i64,)> = sqlx::query_as(RAISE)
                    .bind(node.0)
                    .bind(commit::shard_code(shard))
                    .fetch_optional(connection)
                    .await?;
                Ok(epoch.map(|(epoch,)| lease(shard, epoch)))
            }
            .boxed()
        })
        .await
    }

    /// Gives these shards back; all if absent.
    pub(super) async fn give_back(
        &self,
        node: NodeId,
        shards: Option<&[ShardId]>,
    ) -> Result<(), Error> {
        let codes: Option<Vec<i32>> =
            shards.map(|shards| shards.iter().copied().map(commit::shard_code).collect());
        self.ask(move |connection| {
            let release = sqlx::query(RELEASE).bind(node.0).bind(codes.clone());
            async move {
                release.fetch_all(connection).await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    pub(super) async fn leave(&self, node: NodeId) -> Result<(), Error> {
        self.give_back(node, None).await?;
        self.ask(move |connection| {
            let delete = sqlx::query("DELETE FROM nodes WHERE id = $1").bind(node.0);
            async move {
                delete.execute(connection).await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// Hears of changes from now on.
    pub(super) fn changes(&self, pool: &PgPool) -> watch::Receiver<u64> {
        let mut listener = self
            .listener
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if listener.is_none() {
            *listener = Some(tokio::spawn(listen(
                pool.clone(),
                Arc::clone(&self.changes),
            )));
        }
        self.changes.subscribe()
    }

    pub(super) async fn close(&self) {
        let listener = self.listener.lock();
        let listener = listener
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(listener) = listener {
            listener.abort();
        }
        if let Some(connection) = self.connection.lock().await.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "the session of this node was not closed cleanly");
        }
    }

    /// Asks over the connection. What a lost one did not answer is asked once more: all of it
    /// can be done twice, except that a claim whose answer was lost is found to be held, and
    /// is given back by whoever finds that it holds what it does not run.
    async fn ask<T>(
        &self,
        ask: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Failure>> + Send + Sync,
    ) -> Result<T, Error> {
        let mut place = self.connection.lock().await;
        let mut is_fresh = false;
        loop {
            // Taken out: who goes away before the answer leaves no half of one behind.
            let mut connection = if let Some(connection) = place.take() {
                connection
            } else {
                is_fresh = true;
                self.connect().await?
            };
            let answer = timeout(ANSWER, ask(&mut connection)).await;
            let answer = answer.unwrap_or_else(|_| Err(Failure::lost("no answer within 3 s")));
            match answer {
                Err(failure) if failure.kind == Kind::Lost => {
                    if is_fresh {
                        return Err(failure.into());
                    }
                }
                other => {
                    *place = Some(connection);
                    return other.map_err(Error::from);
                }
            }
        }
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        let mut connection = self.connector.writer().await?;
        sqlx::raw_sql(SESSION).execute(&mut connection).await?;
        Ok(connection)
    }
}

/// Tells of changes for as long as anybody may hear of them. While the database is away none
/// is heard of; so a new connection counts as a change.
async fn listen(pool: PgPool, changes: Arc<watch::Sender<u64>>) {
    loop {
        let heard = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            loop {
                changes.send_modify(|count| *count += 1);
                // `None`: the connection was lost and made again.
                listener.try_recv().await?;
            }
        };
        let result: Result<(), sqlx::Error> = heard.await;
        match result {
            Ok(()) | Err(sqlx::Error::PoolClosed) => return,
            Err(error) => tracing::debug!(%error, "changes are not heard of for a while"),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Pause before the database is asked again to tell of changes: nodes look by themselves
/// about as often.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Makes the shards, if there are none.
pub(super) async fn lay_out(mut tx: Tx, count: u32) -> Result<(Tx, ()), Failure> {
    sqlx::raw_sql("LOCK TABLE shards IN EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await?;
    let (there,): (bool,) = sqlx::query_as("SELECT EXISTS (SELECT FROM shards)")
        .fetch_one(&mut *tx)
        .await?;
    if there {
        return Ok((tx, ()));
    }
    let layout = layout(count);
    let code = |number: u32| number.cast_signed();
    let shards: Vec<_> = layout
        .iter()
        .map(|(shard, _)| commit::shard_code(*shard))
        .collect();
    let firsts: Vec<_> = layout
        .iter()
        .map(|(_, buckets)| code(buckets.start))
        .collect();
    let ends: Vec<_> = layout
        .iter()
        .map(|(_, buckets)| code(buckets.end))
        .collect();
    sqlx::query(
        "INSERT INTO shards (shard, first_bucket, end_bucket, until) \
         SELECT shard, first, last, clock_timestamp() \
         FROM unnest($1::integer[], $2::integer[], $3::integer[]) AS given (shard, first, last)",
    )
    .bind(&shards)
    .bind(firsts)
    .bind(ends)
    .execute(&mut *tx)
    .await?;
    for sql in [
        "UPDATE leases SET epoch = epoch + 1",
        "INSERT INTO leases (shard, epoch) SELECT shard, 0 FROM shards ON CONFLICT DO NOTHING",
    ] {
        sqlx::raw_sql(sql).execute(&mut *tx).await?;
    }
    Ok((tx, ()))
}

pub(super) async fn read(mut tx: Tx) -> Result<View, Failure> {
    view(&mut tx).await
}

pub(super) async fn secret(mut tx: Tx) -> Result<Vec<u8>, Failure> {
    let (secret,): (Vec<u8>,) = sqlx::query_as("SELECT secret FROM cluster_secret LIMIT 1")
        .fetch_one(&mut *tx)
        .await?;
    Ok(secret)
}

/// The epoch of a lease, which stays as it is until the transaction ends. A process that
/// stands still meanwhile must not keep others from the shard.
pub(super) async fn held(tx: &mut Tx, lease: &Lease) -> Result<Epoch, Failure> {
    sqlx::raw_sql("SET LOCAL idle_in_transaction_session_timeout = '1s'")
        .execute(&mut **tx)
        .await?;
    let found: Option<(i64,)> =
        sqlx::query_as("SELECT epoch FROM leases WHERE shard = $1 FOR SHARE")
            .bind(commit::shard_code(lease.shard))
            .fetch_optional(&mut **tx)
            .await?;
    Ok(Epoch(found.map_or(0, |(epoch,)| epoch.cast_unsigned())))
}

async fn view(connection: &mut PgConnection) -> Result<View, Failure> {
    let nodes = sqlx::query(NODES).fetch_all(&mut *connection).await?;
    let shards = sqlx::query(SHARDS).fetch_all(connection).await?;
    Ok(View {
        nodes: nodes.iter().map(node).collect::<Result<_, _>>()?,
        shards: shards.iter().map(shard).collect::<Result<_, _>>()?,
    })
}

fn node(row: &PgRow) -> Result<NodeRow, Error> {
    let at = |index| -> Result<Timestamp, Error> { codec::to_time(column(row, index)?) };
    Ok(NodeRow {
        node: Node {
            id: NodeId(column(row, 0)?),
            address: text(row, 1)?,
            version: text(row, 2)?,
            load: text(row, 3)?,
            leaving: column(row, 4)?,
        },
        started_at: at(5)?,
        seen_at: at(6)?,
        is_live: column(row, 7)?,
    })
}

fn shard(row: &PgRow) -> Result<ShardRow, Error> {
    let number = |index| -> Result<u32, Error> { Ok(column::<i32>(row, index)?.cast_unsigned()) };
    let holder: Option<Uuid> = column(row, 4)?;
    Ok(ShardRow {
        shard: ShardId(number(0)?),
        buckets: number(1)?..number(2)?,
        epoch: Epoch(column::<i64>(row, 3)?.cast_unsigned()),
        hold: hold(holder.map(NodeId), column(row, 5)?),
    })
}

fn lease(shard: ShardId, epoch: i64) -> Lease {
    let epoch = Epoch(epoch.cast_unsigned());
    Lease { shard, epoch }
}
