//! The commit as one statement: the fence, the versions and the rows, together.
//!
//! Rows come as arrays, so the text is the same for one row and for a thousand, is
//! parsed and planned once, and takes one message to the server and one back.
//! Outside of a transaction it is one, so that the usual commit is a single round trip.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cascade_cdl::{ExecutionId, TenantId};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::super::group::{Batch, Row};
use super::super::{Epoch, ShardId, codec};
use super::connect::{Failure, Kind};
use super::homes::{Homes, Part};

/// Writes a layer of rows, if all leases are held and all rows are at the versions that
/// are expected; divides by zero if not, which undoes it all.
///
/// - `new` says for which tenants the statement is before it gives its first row, so
///   policies are asked with that: rows of others are neither found nor written. It ends
///   with the transaction, as everywhere ([`super::scope`]).
/// - `held` locks the leases. [`ACQUIRE`] waits for such locks, so a lease changes
///   hands before the commit, which then finds another epoch, or after it. That holds
///   even if the lease was changed after the statement had begun: a row that is to be
///   locked is looked at in its newest version.
/// - An update finds its row by the version that is expected, in the newest version, too.
///   A start that is there already is not unique.
/// - A history that moves out is read as it was before the statement, which is how the
///   update found it.
/// - A new row may come with its history moved out already.
/// - It looks whether its tenants live where it writes ([`super::homes`]), in a `CASE` of its
///   own: only after `new` has said whose rows it may see.
/// - `tenant || ''` keeps the planner from the index by tenant, here and wherever a row is
///   found by its id: while the table is empty both look the same to it, and the plan
///   outlives that.
const COMMIT: &str = "\
WITH held AS MATERIALIZED ( \
    SELECT 1 FROM unnest($1::integer[], $2::bigint[]) AS presented (shard, epoch) \
    JOIN leases ON leases.shard = presented.shard AND leases.epoch = presented.epoch \
    FOR SHARE OF leases \
), new AS MATERIALIZED ( \
    SELECT given.* FROM (SELECT set_config('cascade.tenant', $21, true) AS tenants) AS scope, \
    unnest($3::text[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], \
        $8::bigint[], $9::bigint[], $10::bigint[], $11::integer[], $12::smallint[], \
        $13::smallint[], $14::text[], $15::text[], $16::bytea[], $17::bytea[], $18::bytea[], $20::bytea[], \
        $22::bytea[]) \
    AS given (tenant, id, expected, version, started_at, closed_at, wake_at, application_version, \
        bucket, status, idle, application, workflow, error, snapshot, history, shard_key, \
        tags) \
    WHERE scope.tenants IS NOT NULL \
), inserted AS ( \
    INSERT INTO executions (tenant, id, version, started_at, closed_at, wake_at, \
        application_version, bucket, status, idle, application, workflow, error, snapshot, \
        history, tail_first, shard_key, tags) \
    SELECT tenant, id, version, started_at, closed_at, wake_at, application_version, bucket, \
        status, idle, application, workflow, error, snapshot, \
        CASE WHEN snapshot IS NULL THEN history ELSE '' END, \
        CASE WHEN snapshot IS NULL THEN 1 ELSE version + 1 END, shard_key, tags \
    FROM new WHERE expected = 0 \
), updated AS ( \
    UPDATE executions AS old SET application_version = new.application_version, \
        status = new.status, error = new.error, closed_at = new.closed_at, \
        wake_at = new.wake_at, idle = new.idle, version = new.version, \
        history = CASE WHEN new.snapshot IS NULL THEN old.history || new.history ELSE '' END, \
        tail_first = CASE WHEN new.snapshot IS NULL THEN old.tail_first \
            ELSE new.version + 1 END, \
        snapshot = coalesce(new.snapshot, old.snapshot), tags = coalesce(new.tags, old.tags) \
    FROM new WHERE new.expected > 0 AND old.id = new.id AND old.tenant || '' = new.tenant \
        AND old.version = new.expected \
    RETURNING 1 \
), moved_out AS ( \
    INSERT INTO history_chunks (tenant, id, last_seq, events) \
    SELECT tenant, id, version, history FROM new WHERE expected = 0 AND snapshot IS NOT NULL \
    UNION ALL \
    SELECT new.tenant, new.id, new.version, old.history || new.history \
    FROM new JOIN executions AS old ON old.id = new.id AND old.tenant || '' = new.tenant \
        AND old.version = new.expected \
    WHERE new.expected > 0 AND new.snapshot IS NOT NULL \
) \
SELECT 1 / CASE WHEN (SELECT count(*) FROM held) = cardinality($1) \
    AND (SELECT count(*) FROM updated) = $19 THEN \
    CASE WHEN (SELECT count(*) = $23 AND count(*) FILTER (WHERE schema = current_schema()) = $23 \
        FROM tenant_homes WHERE tenant IN (SELECT unnest(string_to_array($21, ',')))) \
    THEN 1 ELSE 0 END ELSE 0 END";

/// Raises the epoch of a shard.
pub(super) const ACQUIRE: &str = "INSERT INTO leases (shard, epoch) VALUES ($1, 1) \
    ON CONFLICT (shard) DO UPDATE SET epoch = leases.epoch + 1 RETURNING epoch";

const EPOCHS: &str = "SELECT shard, epoch FROM leases WHERE shard = ANY ($1::integer[])";

const VERSIONS: &str = "WITH asked AS MATERIALIZED ( \
        SELECT given.* FROM (SELECT set_config('cascade.tenant', $3, true) AS tenants) AS scope, \
        unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS given (tenant, id, number) \
        WHERE scope.tenants IS NOT NULL \
    ) \
    SELECT asked.number, executions.version FROM asked JOIN executions \
    ON executions.id = asked.id AND executions.tenant || '' = asked.tenant";

/// Writes a layer in one statement, fenced by the leases of `batches`, for tenants that live in
/// one place.
pub(super) async fn write(
    connection: &mut PgConnection,
    batches: &[Batch],
    rows: &[&Row],
    part: &Part<'_, '_>,
) -> Result<(), Failure> {
    let leases: BTreeSet<_> = batches
        .iter()
        .map(|batch| (shard_code(batch.lease.shard), epoch_code(batch.lease.epoch)))
        .collect();
    let (shards, epochs): (Vec<_>, Vec<_>) = leases.into_iter().unzip();
    let updates = rows.iter().filter(|row| !row.is_new()).count();
    sqlx::query(COMMIT)
        .bind(shards)
        .bind(epochs)
        .bind(column(rows, |row| row.summary.tenant.as_str()))
        .bind(column(rows, |row| row.summary.id.0))
        .bind(column(rows, |row| codec::to_i64(row.expected)))
        .bind(column(rows, |row| codec::to_i64(row.summary.version)))
        .bind(column(rows, |row| codec::to_i64(row.summary.started_at.0)))
        .bind(column(rows, |row| {
            row.summary.closed_at.map(|at| codec::to_i64(at.0))
        }))
        .bind(column(rows, |row| {
            row.summary.wake_at.map(|at| codec::to_i64(at.0))
        }))
        .bind(column(rows, |row| {
            i64::from(row.summary.application_version)
        }))
        .bind(column(rows, |row| {
            i32::try_from(row.summary.bucket).unwrap_or(i32::MAX)
        }))
        .bind(column(rows, |row| {
            small(codec::status_code(row.summary.status))
        }))
        .bind(column(rows, |row| {
            small(codec::rest_code(row.summary.status, row.summary.idle))
        }))
        .bind(column(rows, |row| &*row.summary.application))
        .bind(column(rows, |row| &*row.summary.workflow))
        .bind(column(rows, |row| {
            row.summary.error.as_deref().map(str::as_bytes)
        }))
        .bind(column(rows, |row| {
            row.snapshot.as_deref().map(str::as_bytes)
        }))
        .bind(column(rows, |row| row.history.as_bytes()))
        .bind(codec::to_i64(updates as u64))
        .bind(column(rows, |row| {
            row.summary.shard_key.as_deref().map(str::as_bytes)
        }))
        .bind(part.list())
        .bind(column(rows, |row| {
            row.tags.as_ref().map(|tags| tags.whole.as_bytes())
        }))
        .bind(part.homed())
        .execute(connection)
        .await?;
    Ok(())
}

/// Who holds the shards of batches.
pub(super) async fn epochs(
    connection: &mut PgConnection,
    batches: &[Batch],
) -> Result<BTreeMap<ShardId, Epoch>, Failure> {
    let shards: BTreeSet<_> = batches.iter().map(|batch| batch.lease.shard).collect();
    let codes: Vec<_> = shards.iter().map(|shard| shard_code(*shard)).collect();
    let found: Vec<(i32, i64)> = sqlx::query_as(EPOCHS)
        .bind(codes)
        .fetch_all(connection)
        .await?;
    let mut epochs: BTreeMap<_, _> = shards.into_iter().map(|shard| (shard, Epoch(0))).collect();
    for (shard, epoch) in found {
        epochs.insert(ShardId(shard.cast_unsigned()), Epoch(epoch.cast_unsigned()));
    }
    Ok(epochs)
}

/// The versions of those executions of batches that are there.
pub(super) async fn versions(
    connection: &mut PgConnection,
    homes: &Homes,
    batches: &[Batch],
) -> Result<HashMap<(TenantId, ExecutionId), u64>, Failure> {
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    let keys: BTreeSet<_> = rows.map(Row::key).collect();
    let tenants = keys.iter().map(|(tenant, _)| *tenant).collect();
    let mut versions = HashMap::with_capacity(keys.len());
    for part in homes.split(&tenants) {
        if part.is_shared() {
            versions_in(connection, &part, &keys, &mut versions).await?;
            continue;
        }
        let begin = AssertSqlSafe(format!("BEGIN READ ONLY{}", part.enter()));
        let asked = async {
            sqlx::raw_sql(begin).execute(&mut *connection).await?;
            versions_in(connection, &part, &keys, &mut versions).await
        };
        let asked = asked.await;
        // A schema that is gone has nothing; whoever asks looks again where the tenant lives.
        if !matches!(&asked, Err(failure) if failure.kind == Kind::Lost) {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
        }
        asked?;
    }
    Ok(versions)
}

/// Adds those of one place.
async fn versions_in(
    connection: &mut PgConnection,
    part: &Part<'_, '_>,
    keys: &BTreeSet<(&TenantId, ExecutionId)>,
    versions: &mut HashMap<(TenantId, ExecutionId), u64>,
) -> Result<(), Failure> {
    let keys: Vec<_> = keys.iter().filter(|(tenant, _)| part.has(tenant)).collect();
    let (tenants, ids): (Vec<&str>, Vec<Uuid>) = keys
        .iter()
        .map(|(tenant, id)| (tenant.as_str(), id.0))
        .unzip();
    let found: Vec<(i64, i64)> = sqlx::query_as(VERSIONS)
        .bind(tenants)
        .bind(ids)
        .bind(part.list())
        .fetch_all(connection)
        .await?;
    for (number, version) in found {
        let place = usize::try_from(number - 1)
            .ok()
            .and_then(|index| keys.get(index));
        let (tenant, id) = place.ok_or_else(|| codec::damaged("an execution not asked for"))?;
        versions.insert(((*tenant).clone(), *id), codec::to_u64(version)?);
    }
    Ok(())
}

/// One column of rows, as an array.
fn column<'r, T>(rows: &[&'r Row], value: impl Fn(&'r Row) -> T) -> Vec<T> {
    rows.iter().map(|row| value(row)).collect()
}

/// Shards and epochs are kept as the signed numbers with the same bits.
pub(super) fn shard_code(shard: ShardId) -> i32 {
    shard.0.cast_signed()
}

fn epoch_code(epoch: Epoch) -> i64 {
    epoch.0.cast_signed()
}

fn small(code: i64) -> i16 {
    i16::try_from(code).expect("codes are below ten")
}

/// Statements that must find rows by their ids, however large the table is.
#[cfg(test)]
pub(super) const PLANNED: [&str; 2] = [COMMIT, VERSIONS];
