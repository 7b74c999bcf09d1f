//! Rows of objects; their contents are files. Each write is one statement, with what
//! the triggers of the schema add to it, in turn with the group commits.

use cascade_cdl::{TenantId, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::super::{Error, OBJECT_BYTES, Object, ObjectKey, Replaced, codec};
use super::unavailable;

type Row = (String, String, String, i64, i64);

pub(super) async fn put(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    object: &Object,
    quota: u64,
) -> Result<Replaced, Error> {
    // Between these reads and the write nobody else writes: the caller holds the connection.
    let (objects, bytes): (i64, i64) = sqlx::query_as(
        "SELECT ifnull(sum(objects), 0), ifnull(sum(bytes), 0) FROM object_usage WHERE tenant = ?",
    )
    .bind(tenant.as_str())
    .fetch_one(&mut *sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    let before = find(&mut *sqlite, tenant, &object.name).await?;
    let kept = codec::to_u64(bytes)? + codec::to_u64(objects)? * OBJECT_BYTES;
    let replaced = before
        .as_ref()
        .map_or(0, |before| before.size + OBJECT_BYTES);
    super::super::check_objects(kept, replaced, object.size, quota)?;
    sqlx::query(
        "INSERT INTO objects (tenant, bucket, key, digest, size, created_at) \
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, bucket, key) DO UPDATE \
         SET digest = excluded.digest, size = excluded.size, created_at = excluded.created_at",
    )
    .bind(tenant.as_str())
    .bind(&object.name.bucket)
    .bind(&object.name.key)
    .bind(&object.digest)
    .bind(codec::to_i64(object.size))
    .bind(codec::to_i64(object.created_at.0))
    .execute(&mut *sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    let orphan = match before {
        Some(before) => orphan(sqlite, tenant, before.digest).await?,
        None => None,
    };
    Ok(Replaced { orphan })
}

pub(super) async fn delete(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    name: &ObjectKey,
) -> Result<Option<Replaced>, Error> {
    let Some(before) = find(&mut *sqlite, tenant, name).await? else {
        return Ok(None);
    };
    sqlx::query("DELETE FROM objects WHERE tenant = ? AND bucket = ? AND key = ?")
        .bind(tenant.as_str())
        .bind(&name.bucket)
        .bind(&name.key)
        .execute(&mut *sqlite)
        .await
        .map_err(|error| unavailable(&error))?;
    let orphan = orphan(sqlite, tenant, before.digest).await?;
    Ok(Some(Replaced { orphan }))
}

/// A content, if no object has it any more.
async fn orphan(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    digest: String,
) -> Result<Option<String>, Error> {
    let held: Option<(i64,)> =
        sqlx::query_as("SELECT 1 FROM objects WHERE tenant = ? AND digest = ? LIMIT 1")
            .bind(tenant.as_str())
            .bind(&digest)
            .fetch_optional(sqlite)
            .await
            .map_err(|error| unavailable(&error))?;
    Ok(held.is_none().then_some(digest))
}

async fn find(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    name: &ObjectKey,
) -> Result<Option<Object>, Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT bucket, key, digest, size, created_at FROM objects \
         WHERE tenant = ? AND bucket = ? AND key = ?",
    )
    .bind(tenant.as_str())
    .bind(&name.bucket)
    .bind(&name.key)
    .fetch_optional(sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    row.map(object_of).transpose()
}

/// The object with a name. Runs on readers.
pub(super) async fn get(
    pool: &SqlitePool,
    tenant: &TenantId,
    name: &ObjectKey,
) -> Result<Option<Object>, Error> {
    let mut connection = pool.acquire().await.map_err(|error| unavailable(&error))?;
    find(&mut connection, tenant, name).await
}

/// Objects of a bucket in the order of keys. Runs on readers.
pub(super) async fn list(
    pool: &SqlitePool,
    tenant: &TenantId,
    bucket: &str,
    prefix: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<Object>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT bucket, key, digest, size, created_at FROM objects \
         WHERE tenant = ? AND bucket = ? AND key >= ? AND key > ? ORDER BY key LIMIT ?",
    )
    .bind(tenant.as_str())
    .bind(bucket)
    .bind(prefix)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(|error| unavailable(&error))?;
    // Those with the prefix stand together, at the beginning.
    rows.into_iter()
        .take_while(|(_, key, ..)| key.starts_with(prefix))
        .map(object_of)
        .collect()
}

fn object_of((bucket, key, digest, size, created_at): Row) -> Result<Object, Error> {
    Ok(Object {
        name: ObjectKey { bucket, key },
        digest,
        size: codec::to_u64(size)?,
        created_at: Timestamp(codec::to_u64(created_at)?),
    })
}
