//! What changes seldom: modules, activities, applications, tenants and keys.
//! Each write is a transaction of its own, in turn with the group commits.

use bytes::Bytes;
use cascade_cdl::TenantId;
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::super::{
    ActivityVersion, ApiKey, ApplicationVersion, Error, PausedWorkflow, TenantRow, VERSION_BYTES,
    codec, next_activity,
};
use super::{column, unavailable};

const ACTIVITIES: &str = "SELECT name, version, number, digest, description, created_at \
    FROM activities WHERE tenant = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY name, number";
/// With an aggregate `max`, SQLite takes the other columns from the row that has it.
const APPLICATIONS: &str = "SELECT name, max(version), file, source, created_at \
    FROM applications WHERE tenant = ? GROUP BY name ORDER BY name";
const APPLICATION: &str = "SELECT name, version, file, source, created_at FROM applications \
    WHERE tenant = ?1 AND name = ?2 AND (?3 IS NULL OR version = ?3) \
    ORDER BY version DESC LIMIT 1";

/// Lengths are in the heads of the rows: what they are of is not read.
const UPLOADED: &str = "SELECT \
    (SELECT ifnull(sum(length(wasm)), 0) FROM modules WHERE tenant = ?1) \
    + (SELECT ifnull(sum(octet_length(description) + ?2), 0) FROM activities WHERE tenant = ?1) \
    + (SELECT ifnull(sum(octet_length(source) + ?2), 0) FROM applications WHERE tenant = ?1)";

pub(super) async fn put_module(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    digest: &str,
    wasm: &Bytes,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO modules (tenant, digest, wasm) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(tenant.as_str())
    .bind(digest)
    .bind(wasm.to_vec())
    .execute(sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    Ok(())
}

pub(super) async fn module(
    pool: &SqlitePool,
    tenant: &TenantId,
    digest: &str,
) -> Result<Option<Bytes>, Error> {
    let found: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT wasm FROM modules WHERE tenant = ? AND digest = ?")
            .bind(tenant.as_str())
            .bind(digest)
            .fetch_optional(pool)
            .await
            .map_err(|error| unavailable(&error))?;
    Ok(found.map(|(wasm,)| wasm.into()))
}

pub(super) async fn put_activity(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    activity: ActivityVersion,
) -> Result<ActivityVersion, Error> {
    // Between the read and the write nobody else writes: the caller holds the connection.
    let versions = sqlx::query(ACTIVITIES)
        .bind(tenant.as_str())
        .bind(&activity.name)
        .fetch_all(&mut *sqlite)
        .await
        .map_err(|error| unavailable(&error))?
        .iter()
        .map(activity_of)
        .collect::<Result<Vec<_>, _>>()?;
    let activity = match next_activity(&versions, activity) {
        Ok(new) => new,
        Err(existing) => return Ok(existing),
    };
    sqlx::query(
        "INSERT INTO activities (tenant, name, number, version, digest, description, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(tenant.as_str())
    .bind(&activity.name)
    .bind(i64::from(activity.number))
    .bind(&activity.version)
    .bind(&activity.digest)
    .bind(&activity.description)
    .bind(codec::to_i64(activity.created_at.0))
    .execute(sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    Ok(activity)
}

/// Those of one name, or all.
pub(super) async fn activities(
    pool: &SqlitePool,
    tenant: &TenantId,
    name: Option<&str>,
) -> Result<Vec<ActivityVersion>, Error> {
    sqlx::query(ACTIVITIES)
        .bind(tenant.as_str())
        .bind(name)
        .fetch_all(pool)
        .await
        .map_err(|error| unavailable(&error))?
        .iter()
        .map(activity_of)
        .collect()
}

pub(super) async fn put_application(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    mut application: ApplicationVersion,
    expected: Option<u32>,
) -> Result<Result<ApplicationVersion, u32>, Error> {
    let (newest,): (i64,) = sqlx::query_as(
        "SELECT ifnull(max(version), 0) FROM applications WHERE tenant = ? AND name = ?",
    )
    .bind(tenant.as_str())
    .bind(&application.name)
    .fetch_one(&mut *sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    let newest = codec::to_u32(newest)?;
    if expected.is_some_and(|expected| expected != newest) {
        return Ok(Err(newest));
    }
    application.version = newest + 1;
    sqlx::query(
        "INSERT INTO applications (tenant, name, version, file, source, created_at) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(tenant.as_str())
    .bind(&application.name)
    .bind(i64::from(application.version))
    .bind(&application.file)
    .bind(&application.source)
    .bind(codec::to_i64(application.created_at.0))
    .execute(sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    Ok(Ok(application))
}

pub(super) async fn applications(
    pool: &SqlitePool,
    tenant: &TenantId,
) -> Result<Vec<ApplicationVersion>, Error> {
    sqlx::query(APPLICATIONS)
        .bind(tenant.as_str())
        .fetch_all(pool)
        .await
        .map_err(|error| unavailable(&error))?
        .iter()
        .map(application_of)
        .collect()
}

pub(super) async fn application(
    pool: &SqlitePool,
    tenant: &TenantId,
    name: &str,
    version: Option<u32>,
) -> Result<Option<ApplicationVersion>, Error> {
    sqlx::query(APPLICATION)
        .bind(tenant.as_str())
        .bind(name)
        .bind(version.map(i64::from))
        .fetch_optional(pool)
        .await
        .map_err(|error| unavailable(&error))?
        .map(|row| application_of(&row))
        .transpose()
}

pub(super) async fn pause_workflow(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    paused: &PausedWorkflow,
) -> Result<(), Error> {
    let done = sqlx::query(
        "INSERT INTO paused_workflows (tenant, application, workflow, reason, paused_at) \
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(tenant.as_str())
    .bind(&paused.application)
    .bind(&paused.workflow)
    .bind(&paused.reason)
    .bind(codec::to_i64(paused.paused_at.0))
    .execute(sqlite)
    .await;
    done.map(drop).map_err(|error| unavailable(&error))
}

pub(super) async fn resume_workflow(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    application: &str,
    workflow: &str,
) -> Result<(), Error> {
    let done = sqlx::query(
        "DELETE FROM paused_workflows WHERE tenant = ? AND application = ? AND workflow = ?",
    )
    .bind(tenant.as_str())
    .bind(application)
    .bind(workflow)
    .execute(sqlite)
    .await;
    done.map(drop).map_err(|error| unavailable(&error))
}

pub(super) async fn paused_workflows(
    pool: &SqlitePool,
    tenant: &TenantId,
) -> Result<Vec<PausedWorkflow>, Error> {
    sqlx::query(
        "SELECT application, workflow, reason, paused_at FROM paused_workflows \
         WHERE tenant = ? ORDER BY application, workflow",
    )
    .bind(tenant.as_str())
    .fetch_all(pool)
    .await
    .map_err(|error| unavailable(&error))?
    .iter()
    .map(|row| {
        Ok(PausedWorkflow {
            application: column(row, 0)?,
            workflow: column(row, 1)?,
            reason: column(row, 2)?,
            paused_at: codec::to_time(column(row, 3)?)?,
        })
    })
    .collect()
}

pub(super) async fn uploaded_bytes(pool: &SqlitePool, tenant: &TenantId) -> Result<u64, Error> {
    let (bytes,): (i64,) = sqlx::query_as(UPLOADED)
        .bind(tenant.as_str())
        .bind(codec::to_i64(VERSION_BYTES))
        .fetch_one(pool)
        .await
        .map_err(|error| unavailable(&error))?;
    codec::to_u64(bytes)
}

pub(super) async fn put_tenant(
    sqlite: &mut SqliteConnection,
    tenant: &TenantRow,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO tenants (id, settings, created_at) VALUES (?, ?, ?) ON CONFLICT (id) \
         DO UPDATE SET settings = excluded.settings, created_at = excluded.created_at",
    )
    .bind(tenant.id.as_str())
    .bind(&tenant.settings)
    .bind(codec::to_i64(tenant.created_at.0))
    .execute(sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    Ok(())
}

pub(super) async fn tenants(pool: &SqlitePool) -> Result<Vec<TenantRow>, Error> {
    sqlx::query("SELECT id, settings, created_at FROM tenants ORDER BY id")
        .fetch_all(pool)
        .await
        .map_err(|error| unavailable(&error))?
        .iter()
        .map(tenant_of)
        .collect()
}

pub(super) async fn tenant(pool: &SqlitePool, id: &TenantId) -> Result<Option<TenantRow>, Error> {
    let row = sqlx::query("SELECT id, settings, created_at FROM tenants WHERE id = ?")
        .bind(id.as_str())
        .fetch_optional(pool)
        .await
        .map_err(|error| unavailable(&error))?;
    row.map(|row| tenant_of(&row)).transpose()
}

pub(super) async fn put_key(sqlite: &mut SqliteConnection, key: &ApiKey) -> Result<(), Error> {
    let done = sqlx::query(
        "INSERT INTO api_keys (id, tenant, hash, role, label, created_at) \
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(&key.id)
    .bind(key.tenant.as_str())
    .bind(&key.hash)
    .bind(&key.role)
    .bind(&key.label)
    .bind(codec::to_i64(key.created_at.0))
    .execute(sqlite)
    .await
    .map_err(|error| unavailable(&error))?;
    if done.rows_affected() == 0 {
        return Err(Error::Exists(format!("key {}", key.id)));
    }
    Ok(())
}

pub(super) async fn keys(pool: &SqlitePool, tenant: &TenantId) -> Result<Vec<ApiKey>, Error> {
    sqlx::query(
        "SELECT id, tenant, hash, role, label, created_at FROM api_keys \
         WHERE tenant = ? ORDER BY id",
    )
    .bind(tenant.as_str())
    .fetch_all(pool)
    .await
    .map_err(|error| unavailable(&error))?
    .iter()
    .map(key_of)
    .collect()
}

pub(super) async fn key_by_hash(pool: &SqlitePool, hash: &str) -> Result<Option<ApiKey>, Error> {
    sqlx::query("SELECT id, tenant, hash, role, label, created_at FROM api_keys WHERE hash = ?")
        .bind(hash)
        .fetch_optional(pool)
        .await
        .map_err(|error| unavailable(&error))?
        .map(|row| key_of(&row))
        .transpose()
}

pub(super) async fn delete_key(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    id: &str,
) -> Result<bool, Error> {
    let done = sqlx::query("DELETE FROM api_keys WHERE tenant = ? AND id = ?")
        .bind(tenant.as_str())
        .bind(id)
        .execute(sqlite)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(done.rows_affected() > 0)
}

fn activity_of(row: &SqliteRow) -> Result<ActivityVersion, Error> {
    Ok(ActivityVersion {
        name: column(row, 0)?,
        version: column(row, 1)?,
        number: codec::to_u32(column(row, 2)?)?,
        digest: column(row, 3)?,
        description: column(row, 4)?,
        created_at: codec::to_time(column(row, 5)?)?,
    })
}

fn application_of(row: &SqliteRow) -> Result<ApplicationVersion, Error> {
    Ok(ApplicationVersion {
        name: column(row, 0)?,
        version: codec::to_u32(column(row, 1)?)?,
        file: column(row, 2)?,
        source: column(row, 3)?,
        created_at: codec::to_time(column(row, 4)?)?,
    })
}

fn tenant_of(row: &SqliteRow) -> Result<TenantRow, Error> {
    Ok(TenantRow {
        id: column::<&str>(row, 0)?.parse().map_err(codec::damaged)?,
        settings: column(row, 1)?,
        created_at: codec::to_time(column(row, 2)?)?,
    })
}

fn key_of(row: &SqliteRow) -> Result<ApiKey, Error> {
    Ok(ApiKey {
        id: column(row, 0)?,
        tenant: column::<&str>(row, 1)?.parse().map_err(codec::damaged)?,
        hash: column(row, 2)?,
        role: column(row, 3)?,
        label: column(row, 4)?,
        created_at: codec::to_time(column(row, 5)?)?,
    })
}
