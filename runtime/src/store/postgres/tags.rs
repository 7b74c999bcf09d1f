//! What executions are found by: written in the transaction of their execution, if it has
//! changed. Most executions have no tags, and cost nothing here.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::super::group::Row;
use super::super::search::entry;
use super::connect::Failure;

/// What the executions do not have any more.
const REMOVE: &str = "DELETE FROM execution_tags AS old \
    USING unnest($1::text[], $2::uuid[]) AS changed (tenant, id) \
    WHERE old.id = changed.id AND old.tenant || '' = changed.tenant \
    AND NOT EXISTS (SELECT 1 FROM unnest($3::text[], $4::uuid[], $5::text[]) \
        AS kept (tenant, id, name) \
        WHERE kept.tenant = old.tenant AND kept.id = old.id AND kept.name = old.name)";

const PUT: &str = "INSERT INTO execution_tags (tenant, id, name, entry, started_at, seq) \
    SELECT e.tenant, e.id, tag.name, tag.entry, e.started_at, e.seq \
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bytea[]) AS tag (tenant, id, name, entry) \
    JOIN executions AS e ON e.id = tag.id AND e.tenant || '' = tag.tenant \
    ON CONFLICT (id, tenant, name) DO UPDATE SET entry = excluded.entry \
    WHERE execution_tags.entry <> excluded.entry";

/// Writes the tags that come with a layer of rows, in their transaction.
pub(super) async fn write(connection: &mut PgConnection, rows: &[&Row]) -> Result<(), Failure> {
    let tagged = || rows.iter().filter(|row| row.tags.is_some());
    let entries: Vec<_> = tagged()
        .flat_map(|row| {
            let (tenant, id) = row.key();
            let entries = row.tags.iter().flat_map(|tags| &tags.entries);
            entries.map(move |(name, value)| (tenant.as_str(), id.0, &**name, entry(name, value)))
        })
        .collect();
    let tenants: Vec<&str> = entries.iter().map(|entry| entry.0).collect();
    let ids: Vec<Uuid> = entries.iter().map(|entry| entry.1).collect();
    let names: Vec<&str> = entries.iter().map(|entry| entry.2).collect();
    let changed = tagged().filter(|row| !row.is_new()).map(|row| row.key());
    let (of, changed): (Vec<&str>, Vec<Uuid>) =
        changed.map(|(tenant, id)| (tenant.as_str(), id.0)).unzip();
    if !changed.is_empty() {
        sqlx::query(REMOVE)
            .bind(of)
            .bind(changed)
            .bind(&tenants)
            .bind(&ids)
            .bind(&names)
            .execute(&mut *connection)
            .await?;
    }
    if !entries.is_empty() {
        sqlx::query(PUT)
            .bind(tenants)
            .bind(ids)
            .bind(names)
            .bind(entries.into_iter().map(|entry| entry.3).collect::<Vec<_>>())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Statements that must find rows by their ids, however large the table is.
#[cfg(test)]
pub(super) const PLANNED: [&str; 2] = [REMOVE, PUT];
