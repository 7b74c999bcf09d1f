//! How far schedules are. Many are due at the full hour, so they are written together, by
//! one statement.

use cascade_cdl::TenantId;
use serde_json::json;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use super::super::{Error, ScheduleRow};
use super::{column, unavailable};

/// `WHERE true`, or SQLite would take `ON CONFLICT` for a part of a join.
const PUT: &str = "INSERT INTO schedules (tenant, application, name, state) \
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1) WHERE true \
    ON CONFLICT (tenant, application, name) DO UPDATE SET state = excluded.state";

pub(super) async fn put(sqlite: &mut SqliteConnection, rows: &[ScheduleRow]) -> Result<(), Error> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| json!([row.tenant.as_str(), row.application, row.name, row.state]))
        .collect();
    let rows = serde_json::Value::Array(rows).to_string();
    let done = sqlx::query(PUT).bind(rows).execute(sqlite).await;
    done.map(drop).map_err(|error| unavailable(&error))
}

pub(super) async fn delete(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    application: &str,
    name: &str,
) -> Result<(), Error> {
    let done =
        sqlx::query("DELETE FROM schedules WHERE tenant = ? AND application = ? AND name = ?")
            .bind(tenant.as_str())
            .bind(application)
            .bind(name)
            .execute(sqlite)
            .await;
    done.map(drop).map_err(|error| unavailable(&error))
}

pub(super) async fn of(pool: &SqlitePool, tenant: &TenantId) -> Result<Vec<ScheduleRow>, Error> {
    sqlx::query(
        "SELECT application, name, state FROM schedules WHERE tenant = ? \
         ORDER BY application, name",
    )
    .bind(tenant.as_str())
    .fetch_all(pool)
    .await
    .map_err(|error| unavailable(&error))?
    .iter()
    .map(|row| {
        Ok(ScheduleRow {
            tenant: tenant.clone(),
            application: column(row, 0)?,
            name: column(row, 1)?,
            state: column(row, 2)?,
        })
    })
    .collect()
}
