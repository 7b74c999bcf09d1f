//! Values of the key-value capability. Writes come with the group commits of
//! [`super::writer`]; other servers may write for the same tenants, so each
//! group holds a lock for each of its tenants until it is committed.

use std::collections::BTreeSet;

use bytes::Bytes;
use cascade_cdl::TenantId;
use sqlx::postgres::PgConnection;

use super::super::codec;
use super::super::key_value::{Made, Outcome, Row, Stored, Write};
use super::connect::{Failure, Tx};

/// Tenants come in one order everywhere, so that nobody waits in a circle.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended(\
        'cascade values of ' || current_schema() || ' ' || tenant, 0)) \
    FROM unnest($1::text[]) AS asked (tenant)";

/// What is stored under the keys of writes. A large value is read only if one of its
/// size is expected.
const FIND: &str = "SELECT asked.number, octet_length(kv.value)::bigint, \
        CASE WHEN octet_length(kv.value) = octet_length(asked.expected) \
            THEN kv.value = asked.expected END, \
        kv_usage.keys, kv_usage.bytes \
    FROM unnest($1::text[], $2::bytea[], $3::bytea[]) WITH ORDINALITY \
        AS asked (tenant, key, expected, number) \
    LEFT JOIN kv ON kv.tenant = asked.tenant AND kv.key = asked.key \
    LEFT JOIN kv_usage ON kv_usage.tenant = asked.tenant \
    ORDER BY asked.number";

/// Sets keys, deletes others and counts, in one statement.
const KEEP: &str = "\
WITH set AS ( \
    INSERT INTO kv (tenant, key, value) \
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[]) \
    ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value \
), deleted AS ( \
    DELETE FROM kv USING unnest($4::text[], $5::bytea[]) AS gone (tenant, key) \
    WHERE kv.tenant = gone.tenant AND kv.key = gone.key \
), counted AS ( \
    INSERT INTO kv_usage (tenant, keys, bytes) \
    SELECT * FROM unnest($6::text[], $7::bigint[], $8::bigint[]) \
    ON CONFLICT (tenant) DO UPDATE SET keys = excluded.keys, bytes = excluded.bytes \
) \
SELECT pg_current_xact_id()::text";

const STATUS: &str = "SELECT pg_xact_status($1::text::xid8)";

/// The number of a transaction, as the server writes it.
pub(super) struct Xid(String);

/// What the server knows of a transaction.
pub(super) enum XidStatus {
    Committed,
    Aborted,
    InProgress,
}

/// Makes writes within the transaction that the caller has begun. `Err` means that
/// it must be rolled back; a write that is refused is no such error. The number of the
/// transaction comes along if it wrote anything.
pub(super) async fn apply(
    connection: &mut PgConnection,
    writes: &[&Write],
) -> Result<(Vec<Outcome>, Option<Xid>), Failure> {
    if writes.is_empty() {
        return Ok((Vec::new(), None));
    }
    let tenants: BTreeSet<_> = writes.iter().map(|write| write.tenant.as_str()).collect();
    let tenants: Vec<_> = tenants.into_iter().collect();
    sqlx::query(LOCK)
        .bind(tenants)
        .execute(&mut *connection)
        .await?;
    let rows: Vec<Row> = sqlx::query_as(FIND)
        .bind(column(writes, |write| write.tenant.as_str()))
        .bind(column(writes, |write| write.key.as_bytes()))
        .bind(column(writes, |write| write.expected().map(Bytes::as_ref)))
        .fetch_all(&mut *connection)
        .await?;
    let stored: Vec<_> = rows.into_iter().map(Stored::from).collect();
    let mut made = Made::default();
    let outcomes = made.make_all(writes.iter().copied(), &stored);
    let xid = keep(connection, &made).await?;
    Ok((outcomes, xid))
}

/// Writes what has become of keys and counts.
async fn keep(connection: &mut PgConnection, made: &Made<'_>) -> Result<Option<Xid>, Failure> {
    let (mut set, mut deleted) = ((vec![], vec![], vec![]), (vec![], vec![]));
    for (tenant, key, value) in made.values() {
        if let Some(value) = value {
            set.0.push(tenant.as_str());
            set.1.push(key.as_bytes());
            set.2.push(value.as_ref());
        } else {
            deleted.0.push(tenant.as_str());
            deleted.1.push(key.as_bytes());
        }
    }
    if set.0.is_empty() && deleted.0.is_empty() {
        return Ok(None);
    }
    let mut counted = (vec![], vec![], vec![]);
    for (tenant, kept) in made.usages() {
        counted.0.push(tenant.as_str());
        counted.1.push(codec::to_i64(kept.keys));
        counted.2.push(codec::to_i64(kept.bytes));
    }
    let (xid,): (String,) = sqlx::query_as(KEEP)
        .bind(set.0)
        .bind(set.1)
        .bind(set.2)
        .bind(deleted.0)
        .bind(deleted.1)
        .bind(counted.0)
        .bind(counted.1)
        .bind(counted.2)
        .fetch_one(connection)
        .await?;
    Ok(Some(Xid(xid)))
}

/// What became of a transaction.
pub(super) async fn status(
    connection: &mut PgConnection,
    Xid(xid): &Xid,
) -> Result<XidStatus, Failure> {
    let (status,): (Option<String>,) = sqlx::query_as(STATUS)
        .bind(xid)
        .fetch_one(connection)
        .await?;
    match status.as_deref() {
        Some("committed") => Ok(XidStatus::Committed),
        Some("in progress") => Ok(XidStatus::InProgress),
        Some("aborted") => Ok(XidStatus::Aborted),
        // So long ago that the server has forgotten; not within a writer's patience.
        other => Err(codec::damaged(format!("a transaction is {other:?}")).into()),
    }
}

/// The value of a key.
pub(super) async fn get(
    mut tx: Tx,
    tenant: &TenantId,
    key: &str,
) -> Result<Option<Bytes>, Failure> {
    let found: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT value FROM kv WHERE tenant = $1 AND key = $2")
            .bind(tenant.as_str())
            .bind(key.as_bytes())
            .fetch_optional(&mut *tx)
            .await?;
    Ok(found.map(|(value,)| value.into()))
}

fn column<'w, T>(writes: &[&'w Write], value: impl Fn(&'w Write) -> T) -> Vec<T> {
    writes.iter().map(|write| value(write)).collect()
}
