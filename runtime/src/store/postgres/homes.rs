//! Where the rows of tenants are: in the store's schema, or in one of the tenant's own.
//!
//! **Who decides.** `tenant_homes` has a row for each tenant with a schema of its own. What
//! is for one tenant looks itself up in the message that begins its transaction
//! ([`enter`]), and goes there by its search path: a schema of a tenant's has the tables of
//! tenants, and what it has not, such as leases and keys, is found in the store's. So there
//! is no copy of this table to grow old, and no way around it.
//!
//! **While a tenant moves.** Whoever has looked keeps the table locked until its transaction ends,
//! as all that read it do; a move locks it against them for as long as the last of the
//! rows take ([`moving`]). What was begun before is written before, what comes later
//! looks later.
//!
//! **The writer** has many tenants in one statement, and goes by what it has read. Its
//! statements check that ([`Part::check`], and the commit in itself); when they are refused,
//! it reads again.

mod moving;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use cascade_cdl::TenantId;
use sqlx::postgres::PgConnection;

use super::super::codec;
use super::super::home::Home;
use super::connect::{Failure, Tx};
use super::scope;

pub(super) use moving::move_to;

/// Where tables of the store's are, for a session: what a tenant's schema comes before.
pub(super) const SESSION: &str =
    "SELECT set_config('cascade.search_path', current_setting('search_path'), false)";

/// The schema that a tenant has for its own.
const OF: &str = "SELECT schema FROM tenant_homes WHERE tenant = $1";

/// All, in one message: the scope ends with the transaction.
const ALL: &str = "BEGIN READ ONLY; SET LOCAL cascade.scope = 'tenants'; \
    SELECT tenant, schema FROM tenant_homes; COMMIT";

/// Those among which a transaction is.
const AMONG: &str = "SELECT tenant, schema FROM tenant_homes WHERE tenant = ANY ($1::text[])";

/// The schemas, for what looks across tenants.
const SCHEMAS: &str = "SELECT quote_ident(schema) FROM tenant_homes ORDER BY schema";

/// What the message that begins a transaction of a tenant's says: goes where its rows are.
pub(super) fn enter(tenant: &TenantId) -> String {
    format!(
        "; SELECT {} FROM tenant_homes WHERE tenant = {}",
        path("schema"),
        scope::literal(tenant.as_str())
    )
}

/// What makes the schema that an expression names the first to be searched, until the transaction
/// ends. If it is not there, nothing else is searched: no table is found.
fn path(schema: &str) -> String {
    format!(
        "set_config('search_path', coalesce(to_regnamespace(quote_ident({schema}))::text || ', ' \
         || current_setting('cascade.search_path'), quote_ident({schema})), true)"
    )
}

/// The tenants that have schemas of their own, as they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Homes(BTreeMap<String, String>);

/// Tenants whose rows are in one place.
#[derive(Debug)]
pub(super) struct Part<'h, 't> {
    schema: Option<&'h str>,
    tenants: BTreeSet<&'t TenantId>,
}

impl Homes {
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, Failure> {
        use sqlx::Row as _;
        let rows = sqlx::raw_sql(ALL).fetch_all(connection).await?;
        let homes = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let homes = homes.collect::<Result<_, sqlx::Error>>();
        Ok(Self(homes.map_err(codec::damaged)?))
    }

    /// Those of some tenants, within a transaction that is for them.
    pub(super) async fn among(tx: &mut Tx, tenants: &BTreeSet<&TenantId>) -> Result<Self, Failure> {
        let tenants: Vec<_> = tenants.iter().map(|tenant| tenant.as_str()).collect();
        let found: Vec<(String, String)> = sqlx::query_as(AMONG)
            .bind(tenants)
            .fetch_all(&mut **tx)
            .await?;
        Ok(Self(found.into_iter().collect()))
    }

    /// Puts tenants together that are in one place. The store's own comes first, and is
    /// there if nothing else is.
    pub(super) fn split<'t>(&self, tenants: &BTreeSet<&'t TenantId>) -> Vec<Part<'_, 't>> {
        if self.0.is_empty() {
            return vec![Part {
                schema: None,
                tenants: tenants.clone(),
            }];
        }
        let mut parts = BTreeMap::<Option<&str>, BTreeSet<&TenantId>>::new();
        for tenant in tenants {
            let schema = self.0.get(tenant.as_str()).map(String::as_str);
            parts.entry(schema).or_default().insert(tenant);
        }
        if parts.is_empty() {
            parts.insert(None, BTreeSet::new());
        }
        let parts = parts.into_iter();
        parts
            .map(|(schema, tenants)| Part { schema, tenants })
            .collect()
    }
}

impl Part<'_, '_> {
    /// Whether it is the store's own schema.
    pub(super) fn is_shared(&self) -> bool {
        self.schema.is_none()
    }

    pub(super) fn has(&self, tenant: &TenantId) -> bool {
        self.tenants.contains(tenant)
    }

    /// As the setting names them ([`super::scope`]).
    pub(super) fn list(&self) -> String {
        scope::list(&self.tenants)
    }

    /// How many of them have a schema of their own: a schema is of one tenant.
    pub(super) fn homed(&self) -> i64 {
        i64::from(self.schema.is_some())
    }

    /// What goes there within a transaction, `; ...`.
    pub(super) fn enter(&self) -> String {
        let list = scope::list_sql(&self.list());
        match self.schema {
            None => list,
            Some(schema) => format!("{list}; SELECT {}", path(&scope::literal(schema))),
        }
    }

    /// What divides by zero after [`Part::enter`] if they are not there, `; ...`.
    pub(super) fn check(&self) -> String {
        let is_there = self.schema.map_or_else(String::new, |schema| {
            let name = scope::literal(schema);
            format!("; SELECT 1 / count(*) FROM pg_namespace WHERE nspname = {name}")
        });
        format!(
            "{is_there}; SELECT 1 / CASE WHEN count(*) = {homed} \
             AND count(*) FILTER (WHERE schema = current_schema()) = {homed} THEN 1 ELSE 0 END \
             FROM tenant_homes WHERE tenant = ANY (string_to_array({list}, ','))",
            homed = self.homed(),
            list = scope::literal(&self.list()),
        )
    }
}

/// Where a tenant's rows are.
pub(super) async fn of(mut tx: Tx, tenant: &TenantId) -> Result<Home, Failure> {
    let found: Option<(String,)> = sqlx::query_as(OF)
        .bind(tenant.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    Ok(match found {
        None => Home::Shared,
        Some((schema,)) => Home::Schema {
            schema: schema.parse().map_err(codec::damaged)?,
        },
    })
}

/// The schemas of tenants, as SQL names them, for what looks across tenants.
pub(super) async fn schemas(tx: &mut Tx) -> Result<Vec<String>, Failure> {
    let found: Vec<(String,)> = sqlx::query_as(SCHEMAS).fetch_all(&mut **tx).await?;
    Ok(found.into_iter().map(|(schema,)| schema).collect())
}

/// A query on a table of the store's and on the same in each of some schemas, together: `query` is
/// written with `{table}` for it, `order` is what comes after it there and for all.
pub(super) fn everywhere(query: &str, order: &str, table: &str, schemas: &[String]) -> String {
    let one = |table: &str| format!("{} {order}", query.replace("{table}", table));
    if schemas.is_empty() {
        return one(table);
    }
    let own = std::iter::once(table.to_owned());
    let others = schemas.iter().map(|schema| format!("{schema}.{table}"));
    let parts: Vec<_> = own
        .chain(others)
        .map(|table| format!("({})", one(&table)))
        .collect();
    format!("{} {order}", parts.join(" UNION ALL "))
}
