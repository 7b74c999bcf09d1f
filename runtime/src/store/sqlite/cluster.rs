//! Nodes and their shards. Only one process has the file open; the rows are those that
//! PostgreSQL has, and go by this machine's clock.

use std::time::Duration;

use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use uuid::Uuid;

use super::super::cluster::{REMEMBERED, hold, layout, millis};
use super::super::{Epoch, Error, Node, NodeId, NodeRow, ShardId, ShardRow, View, codec};
use super::{column, unavailable};

/// Now, in milliseconds.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

const ANNOUNCE: &str = concat!(
    "INSERT INTO nodes (id, address, version, load, leaving, started_at, seen_at, until) \
     VALUES (?1, ?2, ?3, ?4, ?5, ",
    now!(),
    ", ",
    now!(),
    ", ",
    now!(),
    " + ?6) \
     ON CONFLICT (id) DO UPDATE SET address = excluded.address, version = excluded.version, \
         load = excluded.load, leaving = excluded.leaving, seen_at = excluded.seen_at, \
         until = excluded.until"
);

const RENEW: &str = concat!(
    "UPDATE shards SET until = ",
    now!(),
    " + ?2 WHERE holder = ?1 AND until > ",
    now!()
);

const FORGET: &str = concat!("DELETE FROM nodes WHERE until < ", now!(), " - ?1");

const NODES: &str = concat!(
    "SELECT id, address, version, load, leaving, started_at, seen_at, until > ",
    now!(),
    " FROM nodes ORDER BY id"
);

const SHARDS: &str = concat!(
    "SELECT shards.shard, first_bucket, end_bucket, coalesce(epoch, 0), holder, until - ",
    now!(),
    " FROM shards LEFT JOIN leases ON leases.shard = shards.shard ORDER BY shards.shard"
);

const CLAIM: &str = concat!(
    "UPDATE shards SET holder = ?1, until = ",
    now!(),
    " + ?3 \
     WHERE shard = ?2 AND (holder IS NULL OR until <= ",
    now!(),
    ")"
);

const HOLDS: &str = concat!(
    "SELECT 1 FROM shards WHERE holder = ?1 AND shard = ?2 AND until > ",
    now!()
);

const RELEASE: &str = concat!(
    "UPDATE shards SET holder = NULL, until = ",
    now!(),
    " WHERE holder = ?1 AND shard = ?2"
);

const RELEASE_ALL: &str = concat!(
    "UPDATE shards SET holder = NULL, until = ",
    now!(),
    " WHERE holder = ?1"
);

/// Makes the shards; says whether there were none before.
pub(super) async fn lay_out(sqlite: &mut SqliteConnection, count: u32) -> Result<bool, Error> {
    let (shards,): (i64,) = sqlx::query_as("SELECT count(*) FROM shards")
        .fetch_one(&mut *sqlite)
        .await
        .map_err(|error| unavailable(&error))?;
    if shards > 0 {
        return Ok(false);
    }
    let rows: Vec<_> = layout(count)
        .into_iter()
        .map(|(shard, buckets)| serde_json::json!([shard.0, buckets.start, buckets.end]))
        .collect();
    let insert = concat!(
        "INSERT INTO shards (shard, first_bucket, end_bucket, until) \
         SELECT value ->> 0, value ->> 1, value ->> 2, ",
        now!(),
        " FROM json_each(?1)"
    );
    // In one statement, so that there are all or none.
    sqlx::query(insert)
        .bind(serde_json::Value::Array(rows).to_string())
        .execute(&mut *sqlite)
        .await
        .map_err(|error| unavailable(&error))?;
    sqlx::query("UPDATE leases SET epoch = epoch + 1")
        .execute(sqlite)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(true)
}

pub(super) async fn heartbeat(
    sqlite: &mut SqliteConnection,
    node: &Node,
    ttl: Duration,
) -> Result<(), Error> {
    let ttl = millis(ttl);
    let announced = async {
        sqlx::query(ANNOUNCE)
            .bind(node.id.to_string())
            .bind(&node.address)
            .bind(&node.version)
            .bind(&node.load)
            .bind(node.leaving)
            .bind(ttl)
            .execute(&mut *sqlite)
            .await?;
        let renew = sqlx::query(RENEW).bind(node.id.to_string()).bind(ttl);
        renew.execute(&mut *sqlite).await?;
        let forget = sqlx::query(FORGET).bind(millis(REMEMBERED));
        forget.execute(&mut *sqlite).await
    };
    announced
        .await
        .map(drop)
        .map_err(|error| unavailable(&error))
}

pub(super) async fn view(pool: &SqlitePool) -> Result<View, Error> {
    let read = async {
        let nodes = sqlx::query(NODES).fetch_all(pool).await?;
        let shards = sqlx::query(SHARDS).fetch_all(pool).await?;
        Ok((nodes, shards))
    };
    let (nodes, shards) = read.await.map_err(|error| unavailable(&error))?;
    Ok(View {
        nodes: nodes.iter().map(node).collect::<Result<_, _>>()?,
        shards: shards.iter().map(shard).collect::<Result<_, _>>()?,
    })
}

/// Takes a shard; says whether nobody held it.
pub(super) async fn claim(
    sqlite: &mut SqliteConnection,
    node: NodeId,
    shard: ShardId,
    ttl: Duration,
) -> Result<bool, Error> {
    let claim = sqlx::query(CLAIM)
        .bind(node.to_string())
        .bind(i64::from(shard.0))
        .bind(millis(ttl));
    let done = claim.execute(sqlite).await;
    let done = done.map_err(|error| unavailable(&error))?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn holds(
    sqlite: &mut SqliteConnection,
    node: NodeId,
    shard: ShardId,
) -> Result<bool, Error> {
    let holds = sqlx::query(HOLDS)
        .bind(node.to_string())
        .bind(i64::from(shard.0));
    let found = holds.fetch_optional(sqlite).await;
    Ok(found.map_err(|error| unavailable(&error))?.is_some())
}

pub(super) async fn give_back(
    sqlite: &mut SqliteConnection,
    node: NodeId,
    shards: &[ShardId],
) -> Result<(), Error> {
    for shard in shards {
        let release = sqlx::query(RELEASE)
            .bind(node.to_string())
            .bind(i64::from(shard.0));
        let done = release.execute(&mut *sqlite).await;
        done.map_err(|error| unavailable(&error))?;
    }
    Ok(())
}

pub(super) async fn leave(sqlite: &mut SqliteConnection, node: NodeId) -> Result<(), Error> {
    for sql in [RELEASE_ALL, "DELETE FROM nodes WHERE id = ?1"] {
        let done = sqlx::query(sql)
            .bind(node.to_string())
            .execute(&mut *sqlite);
        done.await.map_err(|error| unavailable(&error))?;
    }
    Ok(())
}

pub(super) async fn secret(pool: &SqlitePool) -> Result<Vec<u8>, Error> {
    let found = sqlx::query("SELECT secret FROM cluster_secret").fetch_one(pool);
    column(&found.await.map_err(|error| unavailable(&error))?, 0)
}

fn node(row: &SqliteRow) -> Result<NodeRow, Error> {
    let at = |index| codec::to_time(column(row, index)?);
    Ok(NodeRow {
        node: Node {
            id: id(column::<String>(row, 0)?.as_str())?,
            address: column(row, 1)?,
            version: column(row, 2)?,
            load: column(row, 3)?,
            leaving: column(row, 4)?,
        },
        started_at: at(5)?,
        seen_at: at(6)?,
        is_live: column(row, 7)?,
    })
}

fn shard(row: &SqliteRow) -> Result<ShardRow, Error> {
    let holder: Option<String> = column(row, 4)?;
    Ok(ShardRow {
        shard: ShardId(column(row, 0)?),
        buckets: column(row, 1)?..column(row, 2)?,
        epoch: Epoch(column::<i64>(row, 3)?.cast_unsigned()),
        hold: hold(holder.as_deref().map(id).transpose()?, column(row, 5)?),
    })
}

fn id(text: &str) -> Result<NodeId, Error> {
    Uuid::parse_str(text).map(NodeId).map_err(codec::damaged)
}
