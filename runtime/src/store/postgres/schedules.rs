//! How far schedules are. Many are due at the full hour, so they are written together, by
//! one statement.

use std::collections::BTreeSet;

use cascade_cdl::TenantId;
use sqlx::AssertSqlSafe;

use super::super::{CommitError, Error, Lease, ScheduleRow};
use super::connect::{Failure, Tx};
use super::homes::Homes;
use super::{cluster, column, text};

/// The last of a schedule counts. In one order everywhere, so that nobody waits in a circle.
const PUT: &str = "INSERT INTO schedules (tenant, application, name, state) \
    SELECT DISTINCT ON (tenant, application, name) tenant, application, name, state \
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) WITH ORDINALITY \
        AS given (tenant, application, name, state, number) \
    ORDER BY tenant, application, name, number DESC \
    ON CONFLICT (tenant, application, name) DO UPDATE SET state = excluded.state";

/// What became of a write that is fenced.
type Fenced = (Tx, Result<(), CommitError>);

pub(super) async fn put(
    mut tx: Tx,
    lease: &Lease,
    rows: &[ScheduleRow],
) -> Result<Fenced, Failure> {
    if let Err(lost) = fence(&mut tx, lease).await? {
        return Ok((tx, Err(lost)));
    }
    let tenants: BTreeSet<_> = rows.iter().map(|row| &row.tenant).collect();
    let homes = Homes::among(&mut tx, &tenants).await?;
    for part in homes.split(&tenants) {
        if !part.is_shared() {
            let enter = AssertSqlSafe(format!("SELECT 1{}", part.enter()));
            sqlx::raw_sql(enter).execute(&mut *tx).await?;
        }
        let here: Vec<_> = rows.iter().filter(|row| part.has(&row.tenant)).collect();
        let texts = |of: fn(&ScheduleRow) -> &str| here.iter().map(|row| of(row)).collect();
        let [tenants, applications, names]: [Vec<_>; 3] = [
            texts(|row| row.tenant.as_str()),
            texts(|row| &row.application),
            texts(|row| &row.name),
        ];
        let states: Vec<_> = here.iter().map(|row| row.state.as_bytes()).collect();
        sqlx::query(PUT)
            .bind(tenants)
            .bind(applications)
            .bind(names)
            .bind(states)
            .execute(&mut *tx)
            .await?;
    }
    Ok((tx, Ok(())))
}

pub(super) async fn delete(
    mut tx: Tx,
    lease: &Lease,
    tenant: &TenantId,
    application: &str,
    name: &str,
) -> Result<Fenced, Failure> {
    if let Err(lost) = fence(&mut tx, lease).await? {
        return Ok((tx, Err(lost)));
    }
    sqlx::query("DELETE FROM schedules WHERE tenant = $1 AND application = $2 AND name = $3")
        .bind(tenant.as_str())
        .bind(application)
        .bind(name)
        .execute(&mut *tx)
        .await?;
    Ok((tx, Ok(())))
}

/// Keeps the shard from changing hands before the transaction ends, if it has not before.
async fn fence(tx: &mut Tx, lease: &Lease) -> Result<Result<(), CommitError>, Failure> {
    let held = cluster::held(tx, lease).await?;
    if held == lease.epoch {
        return Ok(Ok(()));
    }
    Ok(Err(CommitError::LeaseLost {
        shard: lease.shard,
        held,
        presented: lease.epoch,
    }))
}

pub(super) async fn of(mut tx: Tx, tenant: &TenantId) -> Result<Vec<ScheduleRow>, Failure> {
    let rows = sqlx::query(
        "SELECT application, name, state FROM schedules WHERE tenant = $1 \
         ORDER BY application, name",
    )
    .bind(tenant.as_str())
    .fetch_all(&mut *tx)
    .await?;
    let schedules = rows.iter().map(|row| {
        Ok(ScheduleRow {
            tenant: tenant.clone(),
            application: column(row, 0)?,
            name: column(row, 1)?,
            state: text(row, 2)?,
        })
    });
    Ok(schedules.collect::<Result<_, Error>>()?)
}
