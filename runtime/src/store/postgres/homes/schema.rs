//! The schema of a tenant: the tables of tenants as the store's schema has them, with their
//! indexes, policies and settings, made from its catalog, so that a table which a
//! migration adds is there, too.
//!
//! Rows are numbered by the sequences of the store's schema, here as there: numbers stay when
//! a tenant moves, and what is read across schemas is in one order.

use cascade_cdl::TenantId;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::super::super::Error;
use super::super::connect::Failure;
use super::super::schema::{LOCK_FOR_NOW, TABLE as MIGRATIONS};
use super::super::scope::{self, Bound};

/// Tables that say who may use the server and what has changed: of tenants, but not in their
/// schemas.
const STAY: [&str; 4] = ["tenants", "api_keys", "changes", "tenant_homes"];

/// The tables that move, as SQL names them, with their settings.
const TABLES: &str = "SELECT quote_ident(relname), coalesce(array_to_string(reloptions, ', '), '') \
    FROM pg_class AS c WHERE relnamespace = current_schema()::regnamespace \
    AND relkind IN ('r', 'p') AND NOT relname = ANY ($1::text[]) \
    AND EXISTS (SELECT 1 FROM pg_policy AS p \
        WHERE p.polrelid = c.oid AND p.polname = 'tenant_scope') \
    ORDER BY relname";

/// The policies of a table, as statements but for their beginning.
const POLICIES: &str = "SELECT quote_ident(policyname), \
        format('AS %s FOR %s USING (%s)%s', permissive, cmd, coalesce(qual, 'true'), \
            coalesce(' WITH CHECK (' || with_check || ')', '')) \
    FROM pg_policies WHERE schemaname = current_schema() AND quote_ident(tablename) = $1";

/// The columns that are numbered, with their sequences.
const NUMBERED: &str = "SELECT quote_ident(attname), \
        pg_get_serial_sequence(quote_ident(current_schema()) || '.' || $1, attname) \
    FROM pg_attribute WHERE attrelid = (quote_ident(current_schema()) || '.' || $1)::regclass \
    AND attidentity <> ''";

/// What is said of a schema that is there.
const COMMENT: &str = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') \
    FROM pg_namespace WHERE nspname = $1";

/// A table of tenants.
pub(super) struct Table {
    pub(super) name: String,
    settings: String,
}

pub(super) async fn tables(connection: &mut PgConnection) -> Result<Vec<Table>, Failure> {
    let found: Vec<(String, String)> = sqlx::query_as(TABLES)
        .bind(&STAY[..])
        .fetch_all(connection)
        .await?;
    let tables = found.into_iter();
    Ok(tables
        .map(|(name, settings)| Table { name, settings })
        .collect())
}

/// By which a schema is known as made for a tenant of the store in the schema `own`.
fn mark(own: &str, tenant: &TenantId) -> String {
    format!("tenant {tenant} of the Cascade in {own}")
}

/// Makes an empty schema for a tenant, in place of one that was left by a move that did not end.
///
/// # Errors
///
/// [`Error::Refused`] if there is one that is not this tenant's, or the login may make none.
pub(super) async fn make(
    connection: &mut PgConnection,
    own: &str,
    tenant: &TenantId,
    name: &str,
    bound: &Bound,
) -> Result<(), Failure> {
    let mark = mark(own, tenant);
    let mut tx = connection.begin().await?;
    // What is made is as far as the store's schema is.
    let (is_ours,): (bool,) = sqlx::query_as(LOCK_FOR_NOW).fetch_one(&mut *tx).await?;
    if !is_ours {
        let text = "another server is bringing the schema up to date; try again when it has";
        return Err(Error::Refused(text.to_owned()).into());
    }
    let connection = &mut *tx;
    let there: Option<(String,)> = sqlx::query_as(COMMENT)
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?;
    let mut script = Vec::new();
    match there {
        Some((comment,)) if comment == mark => {
            script.push(format!("DROP SCHEMA \"{name}\" CASCADE"));
        }
        Some(_) => {
            let text =
                format!("schema {name} is there already, and not this tenant's; name another");
            return Err(Error::Refused(text).into());
        }
        None => {}
    }
    script.extend([
        format!("CREATE SCHEMA \"{name}\""),
        format!("COMMENT ON SCHEMA \"{name}\" IS {}", scope::literal(&mark)),
        format!("CREATE TABLE \"{name}\".{MIGRATIONS} (LIKE {own}.{MIGRATIONS} INCLUDING ALL)"),
        format!("INSERT INTO \"{name}\".{MIGRATIONS} SELECT * FROM {own}.{MIGRATIONS}"),
    ]);
    for table in tables(connection).await? {
        script.extend(table_script(connection, own, tenant, name, &table).await?);
    }
    script.push(bound.grants(&format!("\"{name}\"")));
    let script = AssertSqlSafe(script.join("; "));
    if let Err(error) = sqlx::raw_sql(script).execute(connection).await {
        let text = format!(
            "schema {name} cannot be made: {error}; the login needs CREATE on the database"
        );
        return Err(Error::Refused(text).into());
    }
    tx.commit().await?;
    Ok(())
}

/// What makes one of the tables.
async fn table_script(
    connection: &mut PgConnection,
    own: &str,
    tenant: &TenantId,
    schema: &str,
    Table { name, settings }: &Table,
) -> Result<Vec<String>, Failure> {
    let made = format!("\"{schema}\".{name}");
    let tenant = scope::literal(tenant.as_str());
    let mut script = vec![
        format!("CREATE TABLE {made} (LIKE {own}.{name} INCLUDING ALL EXCLUDING IDENTITY)"),
        format!("ALTER TABLE {made} ADD CHECK (tenant = {tenant})"),
        format!("ALTER TABLE {made} ENABLE ROW LEVEL SECURITY"),
        format!("ALTER TABLE {made} FORCE ROW LEVEL SECURITY"),
    ];
    if !settings.is_empty() {
        script.push(format!("ALTER TABLE {made} SET ({settings})"));
    }
    let policies: Vec<(String, String)> = sqlx::query_as(POLICIES)
        .bind(name)
        .fetch_all(&mut *connection)
        .await?;
    let policies = policies.into_iter();
    script.extend(
        policies.map(|(policy, terms)| format!("CREATE POLICY {policy} ON {made} {terms}")),
    );
    let numbered: Vec<(String, String)> = sqlx::query_as(NUMBERED)
        .bind(name)
        .fetch_all(connection)
        .await?;
    script.extend(numbered.into_iter().map(|(column, sequence)| {
        let sequence = scope::literal(&sequence);
        format!("ALTER TABLE {made} ALTER {column} SET DEFAULT nextval({sequence}::regclass)")
    }));
    Ok(script)
}

/// Removes the schema of a tenant that lives elsewhere, if it is there and was its own.
pub(super) async fn remove(
    connection: &mut PgConnection,
    own: &str,
    tenant: &TenantId,
    name: &str,
) -> Result<(), Failure> {
    let there: Option<(String,)> = sqlx::query_as(COMMENT)
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?;
    if there.is_some_and(|(comment,)| comment == mark(own, tenant)) {
        let drop = AssertSqlSafe(format!("DROP SCHEMA \"{name}\" CASCADE"));
        sqlx::raw_sql(drop).execute(connection).await?;
    }
    Ok(())
}
