//! Where the rows of a tenant are kept, within the database of a store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest name of a schema, in bytes: PostgreSQL cuts what is longer.
/// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>
pub const SCHEMA_BYTES: usize = 63;

/// Where the rows of a tenant are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
pub enum Home {
    /// In tables with those of others, kept apart by row-level security.
    #[default]
    Shared,
    /// In a schema of its own.
    Schema {
        #[schema(value_type = String)]
        schema: SchemaName,
    },
}

/// Name of a schema that may be a tenant's: letters `a` to `z`, digits and `_`, no digit first,
/// at most [`SCHEMA_BYTES`]; and none that PostgreSQL has itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchemaName(String);

/// Why a name cannot be that of a tenant's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSchemaName {
    /// Something else than letters, digits and `_`, or a digit first, or nothing.
    #[error("a schema is named by letters a to z, digits and `_`, and begins with no digit")]
    Characters,
    /// Too long.
    #[error("the name of a schema has at most {SCHEMA_BYTES} bytes")]
    Length,
    /// One of PostgreSQL's own.
    #[error("this schema is PostgreSQL's own; name another")]
    Taken,
}

/// What a move has brought to a tenant's new home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// Where the rows were.
    pub from: Home,
    /// Where they are.
    pub to: Home,
    /// The tables with rows of the tenant, by name. None if it was there already.
    pub tables: Vec<MovedTable>,
}

/// One table of a move. What was counted and summed was the same at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MovedTable {
    pub table: String,
    pub rows: u64,
    /// Sum of the hashes of all rows, decimal.
    pub checksum: String,
}

impl SchemaName {
    /// The name. It needs no quotes in SQL, but may be a keyword there.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SchemaName {
    type Err = BadSchemaName;

    fn from_str(text: &str) -> Result<Self, BadSchemaName> {
        let is_fit = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
        };
        if text.is_empty() || !text.chars().all(is_fit) || text.starts_with(char::is_numeric) {
            return Err(BadSchemaName::Characters);
        }
        if text.len() > SCHEMA_BYTES {
            return Err(BadSchemaName::Length);
        }
        if text.starts_with("pg_") || matches!(text, "public" | "information_schema") {
            return Err(BadSchemaName::Taken);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SchemaName {
    type Error = BadSchemaName;

    fn try_from(text: String) -> Result<Self, BadSchemaName> {
        text.parse()
    }
}

impl From<SchemaName> for String {
    fn from(SchemaName(name): SchemaName) -> Self {
        name
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("the shared tables"),
            Self::Schema { schema } => write!(f, "schema {schema}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_schemas_are_plain_and_not_those_of_the_server() {
        let long = "a".repeat(SCHEMA_BYTES + 1);
        for (name, expected) in [
            ("acme", Ok(())),
            ("_acme_2", Ok(())),
            (&long[1..], Ok(())),
            ("", Err(BadSchemaName::Characters)),
            ("2acme", Err(BadSchemaName::Characters)),
            ("Acme", Err(BadSchemaName::Characters)),
            ("a\"; DROP SCHEMA x", Err(BadSchemaName::Characters)),
            ("ümlaut", Err(BadSchemaName::Characters)),
            (&long, Err(BadSchemaName::Length)),
            ("public", Err(BadSchemaName::Taken)),
            ("pg_catalog", Err(BadSchemaName::Taken)),
            ("information_schema", Err(BadSchemaName::Taken)),
        ] {
            assert_eq!(name.parse::<SchemaName>().map(drop), expected, "{name}");
        }
    }

    #[test]
    fn a_home_is_read_as_it_is_written() {
        let schema = "acme".parse().expect("a name");
        for (home, text) in [
            (Home::Shared, r#"{"mode":"shared"}"#),
            (
                Home::Schema { schema },
                r#"{"mode":"schema","schema":"acme"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&home).expect("plain"), text);
            assert_eq!(serde_json::from_str::<Home>(text).expect("reads"), home);
        }
        let bad = serde_json::from_str::<Home>(r#"{"mode":"schema","schema":"public"}"#);
        assert!(bad.expect_err("PostgreSQL's").to_string().contains("own"));
    }
}
