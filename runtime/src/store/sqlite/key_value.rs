//! Values of the key-value capability in the file. Writes come with the group
//! commits of [`super::writer`].

use bytes::Bytes;
use cascade_cdl::TenantId;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqlitePool};

use super::super::key_value::{Made, Outcome, Row, Stored, Write};
use super::super::{Error, codec};
use super::statements::{KeyValues, add};
use super::unavailable;

/// Makes writes within the transaction that the caller has begun, at most
/// [`KeyValues::MOST`]. `Err` means that it must be rolled back; a write that is
/// refused is no such error.
pub(super) async fn apply(
    sqlite: &mut SqliteConnection,
    statements: &KeyValues,
    writes: &[Write],
) -> Result<Vec<Outcome>, sqlx::Error> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sqlx::query_as_with(statements.find(writes.len()), asked(writes))
        .fetch_all(&mut *sqlite)
        .await?;
    let mut stored: Vec<Stored> = rows.into_iter().map(Stored::from).collect();
    stored.sort_unstable_by_key(|row| row.number);
    let mut made = Made::default();
    let outcomes = made.make_all(writes, &stored);
    keep(&made, sqlite, statements).await?;
    Ok(outcomes)
}

/// Arguments of [`KeyValues::find`].
fn asked(writes: &[Write]) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    for (number, write) in (0_i64..).zip(writes) {
        add(&mut arguments, number);
        add(&mut arguments, write.tenant.to_shared());
        add(&mut arguments, write.key.clone());
        add(&mut arguments, write.expected().map(|value| value.to_vec()));
    }
    arguments
}

/// Writes what has become of keys and counts.
async fn keep(
    made: &Made<'_>,
    sqlite: &mut SqliteConnection,
    statements: &KeyValues,
) -> Result<(), sqlx::Error> {
    let (mut set, mut sets) = (SqliteArguments::default(), 0);
    let (mut delete, mut deletes) = (SqliteArguments::default(), 0);
    for (tenant, key, value) in made.values() {
        let arguments = match value {
            Some(_) => &mut set,
            None => &mut delete,
        };
        add(arguments, tenant.to_shared());
        add(arguments, key.to_owned());
        if let Some(value) = value {
            add(arguments, value.to_vec());
            sets += 1;
        } else {
            deletes += 1;
        }
    }
    let (mut usage, mut usages) = (SqliteArguments::default(), 0);
    for (tenant, kept) in made.usages() {
        add(&mut usage, tenant.to_shared());
        add(&mut usage, codec::to_i64(kept.keys));
        add(&mut usage, codec::to_i64(kept.bytes));
        usages += 1;
    }
    for (rows, sql, arguments) in [
        (sets, statements.set(sets), set),
        (deletes, statements.delete(deletes), delete),
        (usages, statements.set_usage(usages), usage),
    ] {
        if rows > 0 {
            sqlx::query_with(sql, arguments)
                .execute(&mut *sqlite)
                .await?;
        }
    }
    Ok(())
}

/// The value of a key. Runs on readers.
pub(super) async fn get(
    pool: &SqlitePool,
    tenant: &TenantId,
    key: &str,
) -> Result<Option<Bytes>, Error> {
    let found: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT value FROM kv WHERE tenant = ? AND key = ?")
            .bind(tenant.as_str())
            .bind(key)
            .fetch_optional(pool)
            .await
            .map_err(|error| unavailable(&error))?;
    Ok(found.map(|(value,)| value.into()))
}
