//! Rows of objects, and which content goes with them. A write holds a lock of its tenant's,
//! so that what is counted is what is there.

use cascade_cdl::{TenantId, Timestamp};

use super::super::contents::ContentId;
use super::super::{OBJECT_BYTES, Object, ObjectKey, Replaced, check_objects, codec};
use super::catalog::lock;
use super::connect::{Failure, Tx};
use super::contents;

/// Adds to what a tenant keeps, in objects and in bytes.
const COUNT: &str = "INSERT INTO object_usage AS kept (tenant, objects, bytes) \
    VALUES ($1, $2, $3) ON CONFLICT (tenant) DO UPDATE \
    SET objects = kept.objects + excluded.objects, bytes = kept.bytes + excluded.bytes";

/// Keys are kept as bytes, and ordered by them.
type Row = (String, Vec<u8>, String, i64, i64);

/// Makes or replaces an object, with a content that was written if there is one.
pub(super) async fn put(
    mut tx: Tx,
    tenant: &TenantId,
    object: &Object,
    content: Option<ContentId>,
    quota: u64,
) -> Result<(Tx, Replaced), Failure> {
    lock(&mut tx, tenant).await?;
    let kept: Option<(i64, i64)> =
        sqlx::query_as("SELECT objects, bytes FROM object_usage WHERE tenant = $1")
            .bind(tenant.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    let (objects, bytes) = kept.unwrap_or_default();
    let before = find(&mut tx, tenant, &object.name).await?;
    let kept = codec::to_u64(bytes)? + codec::to_u64(objects)? * OBJECT_BYTES;
    let replaced = before
        .as_ref()
        .map_or(0, |before| before.size + OBJECT_BYTES);
    check_objects(kept, replaced, object.size, quota)?;
    sqlx::query(
        "INSERT INTO objects (tenant, bucket, key, digest, size, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, bucket, key) DO UPDATE \
         SET digest = excluded.digest, size = excluded.size, created_at = excluded.created_at",
    )
    .bind(tenant.as_str())
    .bind(&object.name.bucket)
    .bind(object.name.key.as_bytes())
    .bind(&object.digest)
    .bind(codec::to_i64(object.size))
    .bind(codec::to_i64(object.created_at.0))
    .execute(&mut *tx)
    .await?;
    if let Some(content) = content {
        contents::keep(&mut tx, tenant, content, &object.digest).await?;
    }
    let added = codec::to_i64(object.size);
    let Some(before) = before else {
        count(&mut tx, tenant, 1, added).await?;
        return Ok((tx, Replaced { orphan: None }));
    };
    count(&mut tx, tenant, 0, added - codec::to_i64(before.size)).await?;
    let orphan = orphan(&mut tx, tenant, before.digest).await?;
    Ok((tx, Replaced { orphan }))
}

pub(super) async fn delete(
    mut tx: Tx,
    tenant: &TenantId,
    name: &ObjectKey,
) -> Result<(Tx, Option<Replaced>), Failure> {
    lock(&mut tx, tenant).await?;
    let Some(before) = find(&mut tx, tenant, name).await? else {
        return Ok((tx, None));
    };
    sqlx::query("DELETE FROM objects WHERE tenant = $1 AND bucket = $2 AND key = $3")
        .bind(tenant.as_str())
        .bind(&name.bucket)
        .bind(name.key.as_bytes())
        .execute(&mut *tx)
        .await?;
    count(&mut tx, tenant, -1, -codec::to_i64(before.size)).await?;
    let orphan = orphan(&mut tx, tenant, before.digest).await?;
    Ok((tx, Some(Replaced { orphan })))
}

/// The object with a name.
pub(super) async fn get(
    mut tx: Tx,
    tenant: &TenantId,
    name: &ObjectKey,
) -> Result<Option<Object>, Failure> {
    find(&mut tx, tenant, name).await
}

/// Objects of a bucket in the order of keys.
pub(super) async fn list(
    mut tx: Tx,
    tenant: &TenantId,
    bucket: &str,
    prefix: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<Object>, Failure> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT bucket, key, digest, size, created_at FROM objects \
         WHERE tenant = $1 AND bucket = $2 AND key >= $3 AND key > $4 ORDER BY key LIMIT $5",
    )
    .bind(tenant.as_str())
    .bind(bucket)
    .bind(prefix.as_bytes())
    .bind(after.as_bytes())
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    // Those with the prefix stand together, at the beginning.
    rows.into_iter()
        .take_while(|(_, key, ..)| key.starts_with(prefix.as_bytes()))
        .map(object_of)
        .collect()
}

async fn find(tx: &mut Tx, tenant: &TenantId, name: &ObjectKey) -> Result<Option<Object>, Failure> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT bucket, key, digest, size, created_at FROM objects \
         WHERE tenant = $1 AND bucket = $2 AND key = $3",
    )
    .bind(tenant.as_str())
    .bind(&name.bucket)
    .bind(name.key.as_bytes())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(object_of).transpose()
}

async fn count(tx: &mut Tx, tenant: &TenantId, objects: i64, bytes: i64) -> Result<(), Failure> {
    sqlx::query(COUNT)
        .bind(tenant.as_str())
        .bind(objects)
        .bind(bytes)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A content, which is let go, if no object has it any more.
async fn orphan(tx: &mut Tx, tenant: &TenantId, digest: String) -> Result<Option<String>, Failure> {
    let held: Option<(i32,)> =
        sqlx::query_as("SELECT 1 FROM objects WHERE tenant = $1 AND digest = $2 LIMIT 1")
            .bind(tenant.as_str())
            .bind(&digest)
            .fetch_optional(&mut **tx)
            .await?;
    if held.is_some() {
        return Ok(None);
    }
    contents::let_go(tx, tenant, &digest).await?;
    Ok(Some(digest))
}

fn object_of((bucket, key, digest, size, created_at): Row) -> Result<Object, Failure> {
    let key = String::from_utf8(key).map_err(codec::damaged)?;
    Ok(Object {
        name: ObjectKey { bucket, key },
        digest,
        size: codec::to_u64(size)?,
        created_at: Timestamp(codec::to_u64(created_at)?),
    })
}
