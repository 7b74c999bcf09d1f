//! What changes seldom: modules, activities, applications, tenants and keys.
//! Each write is a transaction of its own. Where one goes by what it has read, it holds
//! a lock of the tenant's, since other servers may write the same.

use bytes::Bytes;
use cascade_cdl::TenantId;
use sqlx::postgres::PgRow;

use super::super::feed::Subject;
use super::super::{
    ActivityVersion, ApiKey, ApplicationVersion, Error, PausedWorkflow, TenantRow, VERSION_BYTES,
    codec, next_activity,
};
use super::changes::note;
use super::connect::{Failure, Tx};
use super::{column, text};

const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended(\
    'cascade catalog of ' || current_schema() || ' ' || $1, 0))";

const ACTIVITIES: &str = "SELECT name, version, number, digest, description, created_at \
    FROM activities WHERE tenant = $1 AND ($2::text IS NULL OR name = $2) ORDER BY name, number";
const APPLICATIONS: &str = "SELECT DISTINCT ON (name) name, version, file, source, created_at \
    FROM applications WHERE tenant = $1 ORDER BY name, version DESC";
const APPLICATION: &str = "SELECT name, version, file, source, created_at FROM applications \
    WHERE tenant = $1 AND name = $2 AND ($3::bigint IS NULL OR version = $3) \
    ORDER BY version DESC LIMIT 1";

/// Lengths are known without reading what they are of.
const UPLOADED: &str = "SELECT (\
    (SELECT coalesce(sum(octet_length(wasm)), 0) FROM modules WHERE tenant = $1) \
    + (SELECT coalesce(sum(octet_length(description) + $2), 0) FROM activities WHERE tenant = $1) \
    + (SELECT coalesce(sum(octet_length(source) + $2), 0) FROM applications WHERE tenant = $1)\
    )::bigint";

pub(super) async fn put_module(
    mut tx: Tx,
    tenant: &TenantId,
    digest: &str,
    wasm: &Bytes,
) -> Result<(Tx, ()), Failure> {
    sqlx::query(
        "INSERT INTO modules (tenant, digest, wasm) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(tenant.as_str())
    .bind(digest)
    .bind(wasm.as_ref())
    .execute(&mut *tx)
    .await?;
    Ok((tx, ()))
}

pub(super) async fn module(
    mut tx: Tx,
    tenant: &TenantId,
    digest: &str,
) -> Result<Option<Bytes>, Failure> {
    let found: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT wasm FROM modules WHERE tenant = $1 AND digest = $2")
            .bind(tenant.as_str())
            .bind(digest)
            .fetch_optional(&mut *tx)
            .await?;
    Ok(found.map(|(wasm,)| wasm.into()))
}

pub(super) async fn put_activity(
    mut tx: Tx,
    tenant: &TenantId,
    activity: ActivityVersion,
) -> Result<(Tx, ActivityVersion), Failure> {
    lock(&mut tx, tenant).await?;
    let versions = sqlx::query(ACTIVITIES)
        .bind(tenant.as_str())
        .bind(&activity.name)
        .fetch_all(&mut *tx)
        .await?
        .iter()
        .map(activity_of)
        .collect::<Result<Vec<_>, _>>()?;
    let activity = match next_activity(&versions, activity) {
        Ok(new) => new,
        Err(existing) => return Ok((tx, existing)),
    };
    sqlx::query(
        "INSERT INTO activities (tenant, name, number, version, digest, description, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tenant.as_str())
    .bind(&activity.name)
    .bind(i64::from(activity.number))
    .bind(&activity.version)
    .bind(&activity.digest)
    .bind(activity.description.as_bytes())
    .bind(codec::to_i64(activity.created_at.0))
    .execute(&mut *tx)
    .await?;
    note(&mut tx, tenant, &Subject::Activity(activity.name.clone())).await?;
    Ok((tx, activity))
}

/// Those of one name, or all.
pub(super) async fn activities(
    mut tx: Tx,
    tenant: &TenantId,
    name: Option<&str>,
) -> Result<Vec<ActivityVersion>, Failure> {
    let rows = sqlx::query(ACTIVITIES)
        .bind(tenant.as_str())
        .bind(name)
        .fetch_all(&mut *tx)
        .await?;
    Ok(rows.iter().map(activity_of).collect::<Result<_, _>>()?)
}

pub(super) async fn put_application(
    mut tx: Tx,
    tenant: &TenantId,
    mut application: ApplicationVersion,
    expected: Option<u32>,
) -> Result<(Tx, Result<ApplicationVersion, u32>), Failure> {
    lock(&mut tx, tenant).await?;
    let (newest,): (i64,) = sqlx::query_as(
        "SELECT coalesce(max(version), 0) FROM applications WHERE tenant = $1 AND name = $2",
    )
    .bind(tenant.as_str())
    .bind(&application.name)
    .fetch_one(&mut *tx)
    .await?;
    let newest = codec::to_u32(newest)?;
    if expected.is_some_and(|expected| expected != newest) {
        return Ok((tx, Err(newest)));
    }
    application.version = newest + 1;
    sqlx::query(
        "INSERT INTO applications (tenant, name, version, file, source, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tenant.as_str())
    .bind(&application.name)
    .bind(i64::from(application.version))
    .bind(application.file.as_bytes())
    .bind(application.source.as_bytes())
    .bind(codec::to_i64(application.created_at.0))
    .execute(&mut *tx)
    .await?;
    let subject = Subject::Application(application.name.clone());
    note(&mut tx, tenant, &subject).await?;
    Ok((tx, Ok(application)))
}

pub(super) async fn applications(
    mut tx: Tx,
    tenant: &TenantId,
) -> Result<Vec<ApplicationVersion>, Failure> {
    let rows = sqlx::query(APPLICATIONS)
        .bind(tenant.as_str())
        .fetch_all(&mut *tx)
        .await?;
    Ok(rows.iter().map(application_of).collect::<Result<_, _>>()?)
}

pub(super) async fn application(
    mut tx: Tx,
    tenant: &TenantId,
    name: &str,
    version: Option<u32>,
) -> Result<Option<ApplicationVersion>, Failure> {
    let row = sqlx::query(APPLICATION)
        .bind(tenant.as_str())
        .bind(name)
        .bind(version.map(i64::from))
        .fetch_optional(&mut *tx)
        .await?;
    Ok(row.map(|row| application_of(&row)).transpose()?)
}

pub(super) async fn pause_workflow(
    mut tx: Tx,
    tenant: &TenantId,
    paused: &PausedWorkflow,
) -> Result<(Tx, ()), Failure> {
    sqlx::query(
        "INSERT INTO paused_workflows (tenant, application, workflow, reason, paused_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(tenant.as_str())
    .bind(&paused.application)
    .bind(&paused.workflow)
    .bind(paused.reason.as_bytes())
    .bind(codec::to_i64(paused.paused_at.0))
    .execute(&mut *tx)
    .await?;
    note(&mut tx, tenant, &Subject::Pauses).await?;
    Ok((tx, ()))
}

pub(super) async fn resume_workflow(
    mut tx: Tx,
    tenant: &TenantId,
    application: &str,
    workflow: &str,
) -> Result<(Tx, ()), Failure> {
    sqlx::query(
        "DELETE FROM paused_workflows WHERE tenant = $1 AND application = $2 AND workflow = $3",
    )
    .bind(tenant.as_str())
    .bind(application)
    .bind(workflow)
    .execute(&mut *tx)
    .await?;
    note(&mut tx, tenant, &Subject::Pauses).await?;
    Ok((tx, ()))
}

pub(super) async fn paused_workflows(
    mut tx: Tx,
    tenant: &TenantId,
) -> Result<Vec<PausedWorkflow>, Failure> {
    let rows = sqlx::query(
        "SELECT application, workflow, reason, paused_at FROM paused_workflows \
         WHERE tenant = $1 ORDER BY application, workflow",
    )
    .bind(tenant.as_str())
    .fetch_all(&mut *tx)
    .await?;
    let paused = rows.iter().map(|row| {
        Ok(PausedWorkflow {
            application: column(row, 0)?,
            workflow: column(row, 1)?,
            reason: text(row, 2)?,
            paused_at: codec::to_time(column(row, 3)?)?,
        })
    });
    Ok(paused.collect::<Result<_, Error>>()?)
}

pub(super) async fn uploaded_bytes(mut tx: Tx, tenant: &TenantId) -> Result<u64, Failure> {
    let (bytes,): (i64,) = sqlx::query_as(UPLOADED)
        .bind(tenant.as_str())
        .bind(codec::to_i64(VERSION_BYTES))
        .fetch_one(&mut *tx)
        .await?;
    Ok(codec::to_u64(bytes)?)
}

pub(super) async fn put_tenant(mut tx: Tx, tenant: &TenantRow) -> Result<(Tx, ()), Failure> {
    sqlx::query(
        "INSERT INTO tenants (tenant, settings, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant) \
         DO UPDATE SET settings = excluded.settings, created_at = excluded.created_at",
    )
    .bind(tenant.id.as_str())
    .bind(tenant.settings.as_bytes())
    .bind(codec::to_i64(tenant.created_at.0))
    .execute(&mut *tx)
    .await?;
    note(&mut tx, &tenant.id, &Subject::Tenant).await?;
    Ok((tx, ()))
}

pub(super) async fn tenant(mut tx: Tx, id: &TenantId) -> Result<Option<TenantRow>, Failure> {
    let row = sqlx::query("SELECT tenant, settings, created_at FROM tenants WHERE tenant = $1")
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    Ok(row.map(|row| tenant_of(&row)).transpose()?)
}

pub(super) async fn tenants(mut tx: Tx) -> Result<Vec<TenantRow>, Failure> {
    let rows = sqlx::query("SELECT tenant, settings, created_at FROM tenants ORDER BY tenant")
        .fetch_all(&mut *tx)
        .await?;
    Ok(rows.iter().map(tenant_of).collect::<Result<_, _>>()?)
}

pub(super) async fn put_key(mut tx: Tx, key: &ApiKey) -> Result<(Tx, ()), Failure> {
    let done = sqlx::query(
        "INSERT INTO api_keys (id, tenant, hash, role, label, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(&key.id)
    .bind(key.tenant.as_str())
    .bind(&key.hash)
    .bind(&key.role)
    .bind(key.label.as_bytes())
    .bind(codec::to_i64(key.created_at.0))
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Err(Error::Exists(format!("key {}", key.id)).into());
    }
    Ok((tx, ()))
}

pub(super) async fn keys(mut tx: Tx, tenant: &TenantId) -> Result<Vec<ApiKey>, Failure> {
    let rows = sqlx::query(
        "SELECT id, tenant, hash, role, label, created_at FROM api_keys \
         WHERE tenant = $1 ORDER BY id",
    )
    .bind(tenant.as_str())
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.iter().map(key_of).collect::<Result<_, _>>()?)
}

/// A request shows its key before anybody knows its tenant: `Scope::Key` lets this one key
/// be seen, whoever's it is.
pub(super) async fn key_by_hash(mut tx: Tx, hash: &str) -> Result<Option<ApiKey>, Failure> {
    let row = sqlx::query(
        "SELECT id, tenant, hash, role, label, created_at FROM api_keys WHERE hash = $1",
    )
    .bind(hash)
    .fetch_optional(&mut *tx)
    .await?;
    Ok(row.map(|row| key_of(&row)).transpose()?)
}

pub(super) async fn delete_key(
    mut tx: Tx,
    tenant: &TenantId,
    id: &str,
) -> Result<(Tx, bool), Failure> {
    let done = sqlx::query("DELETE FROM api_keys WHERE tenant = $1 AND id = $2")
        .bind(tenant.as_str())
        .bind(id)
        .execute(&mut *tx)
        .await?;
    let was_there = done.rows_affected() > 0;
    if was_there {
        note(&mut tx, tenant, &Subject::Keys).await?;
    }
    Ok((tx, was_there))
}

/// Waits until nobody else changes what the tenant has here.
pub(super) async fn lock(tx: &mut Tx, tenant: &TenantId) -> Result<(), Failure> {
    sqlx::query(LOCK)
        .bind(tenant.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn activity_of(row: &PgRow) -> Result<ActivityVersion, Error> {
    Ok(ActivityVersion {
        name: column(row, 0)?,
        version: column(row, 1)?,
        number: codec::to_u32(column(row, 2)?)?,
        digest: column(row, 3)?,
        description: text(row, 4)?,
        created_at: codec::to_time(column(row, 5)?)?,
    })
}

fn application_of(row: &PgRow) -> Result<ApplicationVersion, Error> {
    Ok(ApplicationVersion {
        name: column(row, 0)?,
        version: codec::to_u32(column(row, 1)?)?,
        file: text(row, 2)?,
        source: text(row, 3)?,
        created_at: codec::to_time(column(row, 4)?)?,
    })
}

fn tenant_of(row: &PgRow) -> Result<TenantRow, Error> {
    Ok(TenantRow {
        id: column::<&str>(row, 0)?.parse().map_err(codec::damaged)?,
        settings: text(row, 1)?,
        created_at: codec::to_time(column(row, 2)?)?,
    })
}

fn key_of(row: &PgRow) -> Result<ApiKey, Error> {
    Ok(ApiKey {
        id: column(row, 0)?,
        tenant: column::<&str>(row, 1)?.parse().map_err(codec::damaged)?,
        hash: column(row, 2)?,
        role: column(row, 3)?,
        label: text(row, 4)?,
        created_at: codec::to_time(column(row, 5)?)?,
    })
}
