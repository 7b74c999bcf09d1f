//! Contents of objects: see [`super::super::contents`].

use bytes::Bytes;
use cascade_cdl::TenantId;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::super::contents::{ContentId, KeptContent, READ_GRACE, WRITE_PATIENCE};
use super::super::{Error, codec};
use super::catalog::lock;
use super::connect::{Failure, Tx};
use super::homes;

/// Blocks that are removed in a transaction: 64 MB, which takes some tens of milliseconds.
const SWEEP: i64 = 256;

const ADD: &str = "WITH open AS (UPDATE contents \
        SET size = size + $5, due_at = now() + make_interval(secs => $6) \
        WHERE tenant = $1 AND content = $2 AND NOT is_done RETURNING content) \
    INSERT INTO content_blocks (tenant, content, number, bytes) SELECT $1, content, $3, $4 FROM open";

/// Whose content is due.
const WHOSE: &str = "SELECT tenant, due_at FROM {table} WHERE digest IS NULL AND due_at < now()";
/// One of a tenant's that is due, and that nobody else is removing.
const DUE: &str = "SELECT content FROM contents \
    WHERE tenant = $1 AND digest IS NULL AND due_at < now() \
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED";
const REMOVE: &str = "DELETE FROM content_blocks WHERE tenant = $1 AND content = $2 \
    AND number IN (SELECT number FROM content_blocks WHERE tenant = $1 AND content = $2 \
        ORDER BY number LIMIT $3)";

pub(super) async fn begin(
    mut tx: Tx,
    tenant: &TenantId,
    ContentId(id): ContentId,
) -> Result<(Tx, ()), Failure> {
    sqlx::query(
        "INSERT INTO contents (tenant, content, due_at) \
         VALUES ($1, $2, now() + make_interval(secs => $3))",
    )
    .bind(tenant.as_str())
    .bind(id)
    .bind(WRITE_PATIENCE.as_secs_f64())
    .execute(&mut *tx)
    .await?;
    Ok((tx, ()))
}

pub(super) async fn add(
    mut tx: Tx,
    tenant: &TenantId,
    ContentId(id): ContentId,
    number: u64,
    bytes: &[u8],
) -> Result<(Tx, ()), Failure> {
    let done = sqlx::query(ADD)
        .bind(tenant.as_str())
        .bind(id)
        .bind(codec::to_i64(number))
        .bind(bytes)
        .bind(codec::to_i64(bytes.len() as u64))
        .bind(WRITE_PATIENCE.as_secs_f64())
        .execute(&mut *tx)
        .await?;
    if done.rows_affected() == 0 {
        return Err(given_up().into());
    }
    Ok((tx, ()))
}

/// Gives a content its digest. Objects must have it, and the tenant's lock be held.
pub(super) async fn keep(
    tx: &mut Tx,
    tenant: &TenantId,
    ContentId(id): ContentId,
    digest: &str,
) -> Result<(), Failure> {
    if find(tx, tenant, digest).await?.is_some() {
        // Somebody has been first, or another object has the same.
        return end(tx, tenant, id, 0.0).await;
    }
    let done = sqlx::query(
        "UPDATE contents SET digest = $3, is_done = true \
         WHERE tenant = $1 AND content = $2 AND NOT is_done",
    )
    .bind(tenant.as_str())
    .bind(id)
    .bind(digest)
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 0 {
        return Err(given_up().into());
    }
    Ok(())
}

/// Lets a content go that no object has any more.
pub(super) async fn let_go(tx: &mut Tx, tenant: &TenantId, digest: &str) -> Result<(), Failure> {
    match find(tx, tenant, digest).await? {
        Some(kept) => end(tx, tenant, kept.id.0, READ_GRACE.as_secs_f64()).await,
        None => Ok(()), // it is a file of an earlier release's
    }
}

pub(super) async fn adopt(
    mut tx: Tx,
    tenant: &TenantId,
    id: ContentId,
    digest: &str,
) -> Result<(Tx, bool), Failure> {
    lock(&mut tx, tenant).await?;
    let held: Option<(i32,)> =
        sqlx::query_as("SELECT 1 FROM objects WHERE tenant = $1 AND digest = $2 LIMIT 1")
            .bind(tenant.as_str())
            .bind(digest)
            .fetch_optional(&mut *tx)
            .await?;
    if held.is_some() {
        keep(&mut tx, tenant, id, digest).await?;
    } else {
        end(&mut tx, tenant, id.0, 0.0).await?;
    }
    Ok((tx, held.is_some()))
}

pub(super) async fn give_up(
    mut tx: Tx,
    tenant: &TenantId,
    ContentId(id): ContentId,
) -> Result<(Tx, ()), Failure> {
    // One that has a digest was kept after all: the answer was lost.
    sqlx::query(
        "UPDATE contents SET is_done = true, due_at = now() \
         WHERE tenant = $1 AND content = $2 AND digest IS NULL",
    )
    .bind(tenant.as_str())
    .bind(id)
    .execute(&mut *tx)
    .await?;
    Ok((tx, ()))
}

pub(super) async fn content(
    mut tx: Tx,
    tenant: &TenantId,
    digest: &str,
) -> Result<Option<KeptContent>, Failure> {
    find(&mut tx, tenant, digest).await
}

pub(super) async fn block(
    mut tx: Tx,
    tenant: &TenantId,
    ContentId(id): ContentId,
    number: u64,
) -> Result<Option<Bytes>, Failure> {
    let found: Option<(Vec<u8>,)> = sqlx::query_as(
        "SELECT bytes FROM content_blocks WHERE tenant = $1 AND content = $2 AND number = $3",
    )
    .bind(tenant.as_str())
    .bind(id)
    .bind(codec::to_i64(number))
    .fetch_optional(&mut *tx)
    .await?;
    Ok(found.map(|(bytes,)| bytes.into()))
}

/// Whose content is to go next.
pub(super) async fn due(mut tx: Tx) -> Result<Option<TenantId>, Failure> {
    let schemas = homes::schemas(&mut tx).await?;
    let whose = homes::everywhere(WHOSE, "ORDER BY due_at LIMIT 1", "contents", &schemas);
    let whose = AssertSqlSafe(format!("SELECT tenant FROM ({whose}) AS due"));
    let due: Option<(String,)> = sqlx::query_as(whose).fetch_optional(&mut *tx).await?;
    due.map(|(tenant,)| tenant.parse().map_err(codec::damaged))
        .transpose()
        .map_err(Failure::from)
}

/// Removes some of what is to go of a tenant's; says whether there was any.
pub(super) async fn sweep(mut tx: Tx, tenant: &TenantId) -> Result<(Tx, bool), Failure> {
    let due: Option<(Uuid,)> = sqlx::query_as(DUE)
        .bind(tenant.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some((id,)) = due else {
        return Ok((tx, false));
    };
    // Whoever adds to it meanwhile finds that it is done.
    sqlx::query("UPDATE contents SET is_done = true WHERE tenant = $1 AND content = $2")
        .bind(tenant.as_str())
        .bind(id)
        .execute(&mut *tx)
        .await?;
    let removed = sqlx::query(REMOVE)
        .bind(tenant.as_str())
        .bind(id)
        .bind(SWEEP)
        .execute(&mut *tx)
        .await?;
    if removed.rows_affected() < SWEEP.cast_unsigned() {
        sqlx::query("DELETE FROM contents WHERE tenant = $1 AND content = $2")
            .bind(tenant.as_str())
            .bind(id)
            .execute(&mut *tx)
            .await?;
    }
    Ok((tx, true))
}

/// Takes a content its digest, so that it goes after so many seconds.
async fn end(tx: &mut Tx, tenant: &TenantId, id: Uuid, secs: f64) -> Result<(), Failure> {
    sqlx::query(
        "UPDATE contents SET digest = NULL, is_done = true, \
         due_at = now() + make_interval(secs => $3) WHERE tenant = $1 AND content = $2",
    )
    .bind(tenant.as_str())
    .bind(id)
    .bind(secs)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn find(
    tx: &mut Tx,
    tenant: &TenantId,
    digest: &str,
) -> Result<Option<KeptContent>, Failure> {
    let found: Option<(Uuid, i64)> =
        sqlx::query_as("SELECT content, size FROM contents WHERE tenant = $1 AND digest = $2")
            .bind(tenant.as_str())
            .bind(digest)
            .fetch_optional(&mut **tx)
            .await?;
    let Some((id, size)) = found else {
        return Ok(None);
    };
    Ok(Some(KeptContent {
        id: ContentId(id),
        size: codec::to_u64(size)?,
    }))
}

fn given_up() -> Error {
    Error::Unavailable("the content was given up meanwhile; write it again".to_owned())
}
