//! What executions are found by: written in the transaction of their execution, if it has
//! changed. Most executions have no tags, and cost nothing here.

use std::fmt::Write as _;

use serde_json::json;
use sqlx::SqliteConnection;

use super::super::group::Row;
use super::super::search::TagRow;

/// The whole, which the row shows; a new row comes with it.
const SHOW: &str = "UPDATE executions SET tags = ?3 WHERE tenant = ?1 AND id = ?2";

const REMOVE: &str = "DELETE FROM execution_tags WHERE tenant = ?1 \
     AND seq = (SELECT seq FROM executions WHERE tenant = ?1 AND id = ?2) \
     AND name NOT IN (SELECT value ->> 0 FROM json_each(?3))";

const PUT: &str = "INSERT INTO execution_tags (tenant, seq, name, value, started_at) \
     SELECT e.tenant, e.seq, tag.value ->> 0, unhex(tag.value ->> 1), e.started_at \
     FROM executions AS e CROSS JOIN json_each(?3) AS tag WHERE e.tenant = ?1 AND e.id = ?2 \
     ON CONFLICT (tenant, seq, name) DO UPDATE SET value = excluded.value \
     WHERE value <> excluded.value";

/// Writes the tags of a row whose execution is there.
pub(super) async fn write(
    sqlite: &mut SqliteConnection,
    row: &Row,
    tags: &TagRow,
) -> Result<(), sqlx::Error> {
    let entries = tags.entries.iter();
    let entries: Vec<_> = entries
        .map(|(name, value)| json!([name, hex(value)]))
        .collect();
    let entries = json!(entries).to_string();
    let whole = tags.whole.to_string();
    let old = [(SHOW, &whole), (REMOVE, &entries)];
    let old = old.into_iter().filter(|_| !row.is_new());
    let (tenant, id) = row.key();
    for (statement, text) in old.chain([(PUT, &entries)]) {
        sqlx::query(statement)
            .bind(tenant.to_shared())
            .bind(id.0.as_bytes().to_vec())
            .bind(text.clone())
            .execute(&mut *sqlite)
            .await?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string");
    }
    text
}

/// Statements that must go by the execution's place.
#[cfg(test)]
pub(super) const PLANNED: [&str; 3] = [SHOW, REMOVE, PUT];
