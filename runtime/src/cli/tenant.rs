//! `cascade tenant` and `cascade key`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::error::Error;
use super::output::{Table, Tone, brief, paint};
use super::wire::{Items, KeyView, TenantView};
use super::{Session, input};
use crate::store::{Home, Moved, SchemaName};

/// Tenants of the server; takes one of the server's own keys
#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// List all tenants
    List,
    /// Make a tenant
    Create {
        /// Its id
        id: String,
        /// Its limits and policy, YAML or JSON; the defaults without it
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
    },
    /// Show a tenant with its limits and policy
    Show {
        /// Its id
        id: String,
    },
    /// Move its rows, while it is served, and compare both ends
    #[command(group = clap::ArgGroup::new("home").required(true))]
    Move {
        /// Its id
        id: String,
        /// Into a schema of its own in the database, which is made
        #[arg(long, value_name = "NAME", group = "home")]
        schema: Option<SchemaName>,
        /// Into the tables that tenants share
        #[arg(long, group = "home")]
        shared: bool,
    },
}

/// API keys of your tenant
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key; its text is shown once, and never again
    Create {
        /// What it may do
        #[arg(long, value_enum, default_value = "operator")]
        role: RoleArg,
        /// For people
        #[arg(long, default_value = "")]
        label: String,
    },
    /// List the keys
    List,
    /// Make a key useless, at once
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Reads
    Viewer,
    /// Starts, cancels and retries executions
    Operator,
    /// Uploads activities and applies applications
    Author,
    /// Makes and revokes keys
    Admin,
}

impl Tenant {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.server_client()?;
        let output = session.output;
        match self {
            Self::List => {
                let list: Items<TenantView> = client.get(&["v1", "tenants"], &[]).await?;
                output.result(&list, || tenants(&list.items));
            }
            Self::Create { id, settings } => {
                let settings = match settings {
                    Some(path) => read_settings(&path)?,
                    None => json!({}),
                };
                let request = client.request(Method::PUT, &["v1", "tenants", &id], &[]);
                let tenant: TenantView = client.json(request.json(&settings)).await?;
                output.result(&tenant, || {
                    let id = &tenant.id;
                    format!(
                        "{} tenant {id}\nmake a key for it with: cascade key create --tenant {id} --role admin",
                        paint(Tone::Good, "made")
                    )
                });
            }
            Self::Show { id } => {
                let tenant: TenantView = client.get(&["v1", "tenants", &id], &[]).await?;
                output.result(&tenant, || {
                    serde_yaml::to_string(&tenant).expect("plain values with text keys")
                });
            }
            Self::Move { id, schema, .. } => {
                let home = schema.map_or(Home::Shared, |schema| Home::Schema { schema });
                let client = client.for_moves()?;
                let path = ["v1", "tenants", &id, "home"];
                let request = client.request(Method::PUT, &path, &[]).json(&home);
                let moved: Moved = client.json(request).await?;
                output.result(&moved, || moved_text(&id, &moved));
            }
        }
        Ok(())
    }
}

impl Key {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        // Who names a tenant acts for it with a key of the server.
        let client = if session.given.tenant.is_some() {
            session.server_client()?
        } else {
            session.client()?
        };
        let output = session.output;
        match self {
            Self::List => {
                let list: Items<KeyView> = client.get(&["v1", "keys"], &[]).await?;
                output.result(&list, || keys(&list.items));
            }
            Self::Create { role, label } => {
                let role = role.to_possible_value().expect("no variant is skipped");
                let body = json!({ "role": role.get_name(), "label": label });
                let key: KeyView = client.post(&["v1", "keys"], &body).await?;
                output.result(&key, || key.key.clone().unwrap_or_default());
                output.note("keep it: it is not shown again");
            }
            Self::Revoke { id } => {
                let request = client.request(Method::DELETE, &["v1", "keys", &id], &[]);
                client.send(request).await?;
                output.result(&json!({ "id": id, "revoked": true }), || {
                    format!("{} {id}", paint(Tone::Good, "revoked"))
                });
            }
        }
        Ok(())
    }
}

fn read_settings(path: &Path) -> Result<Value, Error> {
    let text = input::read_file(path)?;
    serde_yaml::from_str(&text)
        .map_err(|error| Error::usage(format!("{}: {error}", path.display())))
}

/// What was moved, and that it is the same.
fn moved_text(id: &str, moved: &Moved) -> String {
    if moved.from == moved.to {
        return format!("tenant {id} is in {} already", moved.to);
    }
    let mut table = Table::new(&["table", "rows", "checksum at both ends"]);
    for of in &moved.tables {
        table.row([
            (of.table.clone(), Tone::Strong),
            (of.rows.to_string(), Tone::Plain),
            (of.checksum.clone(), Tone::Faint),
        ]);
    }
    let done = paint(Tone::Good, "moved");
    let head = format!("{done} tenant {id} from {} to {}", moved.from, moved.to);
    if moved.tables.is_empty() {
        return head; // it has no rows yet
    }
    format!("{head}\n{}", table.render())
}

fn tenants(tenants: &[TenantView]) -> String {
    let mut table = Table::new(&["id", "weight", "from"]);
    for tenant in tenants {
        let from = if tenant.configured {
            "cascade.yaml"
        } else {
            "the API"
        };
        table.row([
            (tenant.id.clone(), Tone::Strong),
            (tenant.weight.to_string(), Tone::Plain),
            (from.to_owned(), Tone::Faint),
        ]);
    }
    table.render()
}

fn keys(keys: &[KeyView]) -> String {
    let mut table = Table::new(&["id", "role", "made", "label"]);
    for key in keys {
        table.row([
            (key.id.clone(), Tone::Strong),
            (key.role.clone(), Tone::Plain),
            (key.created_at.to_string(), Tone::Faint),
            (brief(&key.label, 60), Tone::Plain),
        ]);
    }
    table.render()
}
