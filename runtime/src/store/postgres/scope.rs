//! Whose rows a statement sees: what row-level security goes by.
//!
//! Each transaction says for which tenants it is, in the message that begins it, and ends
//! with it, so that a connection has nothing to leak to whoever uses it next. The commit
//! of the writer, which is a transaction in one statement, says it in itself
//! ([`super::commit`]). What says nothing sees nothing, and writes nothing.
//!
//! **Roles.** Policies do not hold for superusers and roles with `BYPASSRLS`. If the login
//! is such a one, it becomes [`ROLE`] in every session of the store's; only migrations are
//! the login's own.

use std::collections::BTreeSet;

use cascade_cdl::TenantId;
use sqlx::postgres::PgConnection;

use super::super::Error;
use super::super::group::Group;
use super::connect::Failure;
use super::homes;

/// Who the store is if its login stands above policies. It belongs to the server, not to
/// one database: it owns nothing, may not log in, and is granted what each schema has.
const ROLE: &str = "cascade_tenant";

/// Tables that have no rows of tenants. The others are known by their policy.
const SHARED_TABLES: [&str; 6] = [
    "leases",
    "compatibility",
    "change_counter",
    "nodes",
    "shards",
    "cluster_secret",
];

/// What a session that follows the changes of all tenants says: it reads them, and nothing else.
pub(super) const FEED: &str = "SET cascade.scope = 'feed'";

/// Whether the login stands above policies.
const IS_ABOVE: &str = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user";

/// Whether the role is there, and of use. It is not if it stands above policies itself.
const ROLE_STATE: &str = "SELECT rolsuper OR rolbypassrls, pg_has_role(oid, 'MEMBER') \
    FROM pg_roles WHERE rolname = 'cascade_tenant'";

/// Other schemas may be prepared at the same time.
const MAKE_ROLE: &str = "DO $$ BEGIN \
        CREATE ROLE cascade_tenant NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE; \
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";

const JOIN_ROLE: &str = "GRANT cascade_tenant TO CURRENT_USER";

/// Tables of the store's in which the role may not do all that the store does.
const UNGRANTED: &str = "SELECT c.oid::regclass::text FROM pg_class AS c \
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') \
    AND (c.relname = ANY ($1::text[]) OR EXISTS (SELECT 1 FROM pg_policy AS p \
        WHERE p.polrelid = c.oid AND p.polname = 'tenant_scope')) \
    AND NOT (has_table_privilege('cascade_tenant', c.oid, 'SELECT') \
        AND has_table_privilege('cascade_tenant', c.oid, 'INSERT') \
        AND has_table_privilege('cascade_tenant', c.oid, 'UPDATE') \
        AND has_table_privilege('cascade_tenant', c.oid, 'DELETE'))";

const SCHEMA: &str = "SELECT quote_ident(current_schema()), \
    has_schema_privilege('cascade_tenant', current_schema(), 'USAGE')";

/// Whose rows a transaction sees.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    /// One tenant's: what nearly everything is for.
    Of(&'a TenantId),
    /// Those of some tenants, for what is written together.
    Among(&'a BTreeSet<&'a TenantId>),
    /// Reads executions of everybody that have not ended: what rebuilds shards.
    Recovery,
    /// Reads the list of tenants, and nothing that they have.
    Tenants,
    /// Reads which contents no object has any more.
    Sweep,
    /// Reads the API key with this hash.
    Key(&'a str),
    /// Nobody's: leases, and whether the database answers.
    Nobody,
}

impl Scope<'_> {
    /// What the message that begins a transaction says beside that, `; ...`. `LOCAL`, so that it
    /// ends with the transaction, whatever sits between here and the server.
    pub(super) fn sql(self) -> String {
        match self {
            Self::Of(tenant) => list_sql(tenant.as_str()) + &homes::enter(tenant),
            Self::Among(tenants) => list_sql(&list(tenants)),
            Self::Recovery => "; SET LOCAL cascade.scope = 'recovery'".to_owned(),
            Self::Tenants => "; SET LOCAL cascade.scope = 'tenants'".to_owned(),
            Self::Sweep => "; SET LOCAL cascade.scope = 'sweep'".to_owned(),
            Self::Key(hash) => format!("; SET LOCAL cascade.key = {}", literal(hash)),
            Self::Nobody => String::new(),
        }
    }
}

/// What sets a list of tenants, for a transaction.
pub(super) fn list_sql(list: &str) -> String {
    format!("; SET LOCAL cascade.tenant = {}", literal(list))
}

/// The tenants of what one transaction of the writer's writes.
pub(super) fn of_group(group: &Group) -> BTreeSet<&TenantId> {
    let rows = group.batches.iter().flat_map(|batch| &batch.rows);
    let rows = rows.map(|row| row.key().0);
    let writes = group.writes.iter().map(|write| &write.tenant);
    rows.chain(writes).collect()
}

/// Ids of tenants have letters, digits, `-` and `_` only.
pub(super) fn list(tenants: &BTreeSet<&TenantId>) -> String {
    let ids: Vec<_> = tenants.iter().map(|tenant| tenant.as_str()).collect();
    ids.join(",")
}

/// A text as SQL, whatever the server's `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// What a session of the store's begins with, so that policies hold for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// What a session says before anything else.
    sql: String,
    /// The store's schema, if policies hold for [`ROLE`], which the login becomes.
    schema: Option<String>,
}

impl Bound {
    /// The schema stays the login's: its search path may go by the name of the role.
    fn as_role(schema: String) -> Self {
        Self {
            sql: format!("SET ROLE {ROLE}; SET search_path = {schema}; "),
            schema: Some(schema),
        }
    }

    /// What a session says before anything else; nothing if policies hold for the login.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// What lets the store use the schema of a tenant, which the login has just made.
    pub(super) fn grants(&self, schema: &str) -> String {
        let Some(own) = &self.schema else {
            return String::new();
        };
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {ROLE}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {ROLE}; \
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA {own} TO {ROLE};"
        )
    }
}

/// Sees to it that policies hold for the store: makes the role, if the login stands above
/// them, and grants it what is in the schema. To be called where nobody else migrates it.
///
/// # Errors
///
/// [`Error::Unavailable`] if the login stands above policies and cannot be bound by them.
pub(super) async fn bind(connection: &mut PgConnection) -> Result<Bound, Error> {
    let (is_above,): (bool,) = sqlx::query_as(IS_ABOVE)
        .fetch_one(&mut *connection)
        .await
        .map_err(Failure::from)?;
    if !is_above {
        return Ok(Bound::default());
    }
    let schema = grant(connection).await.map_err(|error| {
        Error::Unavailable(format!(
            "the database role stands above row-level security, and cannot use {ROLE} instead: \
             {error}; take SUPERUSER and BYPASSRLS from it, or give it CREATEROLE"
        ))
    })?;
    let (role_is_above, _): (bool, bool) = sqlx::query_as(ROLE_STATE)
        .fetch_one(connection)
        .await
        .map_err(Failure::from)?;
    if role_is_above {
        return Err(Error::Unavailable(format!(
            "{ROLE} stands above row-level security: ALTER ROLE {ROLE} NOSUPERUSER NOBYPASSRLS"
        )));
    }
    tracing::info!("the database role stands above row-level security: {ROLE} is used instead");
    Ok(Bound::as_role(schema))
}

/// Gives the role what is in the schema; says which schema that is.
async fn grant(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let found: Option<(bool, bool)> = sqlx::query_as(ROLE_STATE)
        .fetch_optional(&mut *connection)
        .await?;
    if found.is_none() {
        sqlx::raw_sql(MAKE_ROLE).execute(&mut *connection).await?;
    }
    let (_, is_member): (bool, bool) = sqlx::query_as(ROLE_STATE)
        .fetch_one(&mut *connection)
        .await?;
    if !is_member {
        sqlx::raw_sql(JOIN_ROLE).execute(&mut *connection).await?;
    }
    let (schema, may_use): (String, bool) =
        sqlx::query_as(SCHEMA).fetch_one(&mut *connection).await?;
    if !may_use {
        let sql = format!("GRANT USAGE ON SCHEMA {schema} TO {ROLE}");
        run(connection, sql).await?;
    }
    let tables: Vec<(String,)> = sqlx::query_as(UNGRANTED)
        .bind(&SHARED_TABLES[..])
        .fetch_all(&mut *connection)
        .await?;
    for (table,) in tables {
        let sql = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}");
        run(connection, sql).await?;
    }
    Ok(schema)
}

/// Names in it are quoted by the server.
async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    let sql = sqlx::AssertSqlSafe(sql);
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}
