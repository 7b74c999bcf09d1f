//! How far schedules are. Many are due at the full hour, so they are written together, by
//! one statement.

use cascade_cdl::TenantId;

use super::super::{Error, ScheduleRow};
use super::connect::{Failure, Tx};
use super::{column, text};

/// The last of a schedule counts. In one order everywhere, so that nobody waits in a circle.
const PUT: &str = "INSERT INTO schedules (tenant, application, name, state) \
    SELECT DISTINCT ON (tenant, application, name) tenant, application, name, state \
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) WITH ORDINALITY \
        AS given (tenant, application, name, state, number) \
    ORDER BY tenant, application, name, number DESC \
    ON CONFLICT (tenant, application, name) DO UPDATE SET state = excluded.state";

pub(super) async fn put(mut tx: Tx, rows: &[ScheduleRow]) -> Result<(Tx, ()), Failure> {
    let texts = |of: fn(&ScheduleRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
    let states: Vec<_> = rows.iter().map(|row| row.state.as_bytes()).collect();
    sqlx::query(PUT)
        .bind(texts(|row| row.tenant.as_str()))
        .bind(texts(|row| &row.application))
        .bind(texts(|row| &row.name))
        .bind(states)
        .execute(&mut *tx)
        .await?;
    Ok((tx, ()))
}

pub(super) async fn delete(
    mut tx: Tx,
    tenant: &TenantId,
    application: &str,
    name: &str,
) -> Result<(Tx, ()), Failure> {
    sqlx::query("DELETE FROM schedules WHERE tenant = $1 AND application = $2 AND name = $3")
        .bind(tenant.as_str())
        .bind(application)
        .bind(name)
        .execute(&mut *tx)
        .await?;
    Ok((tx, ()))
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
