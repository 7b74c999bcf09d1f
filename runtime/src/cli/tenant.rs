//! `cascade tenant` and `cascade key`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::json;

use super::error::Error;
use super::output::{Output, Table, Tone, paint};
use super::{Session, source};

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
    pub(crate) async fn run(self, _session: &Session) -> Result<(), Error> {
        Ok(())
    }
}
impl Key {
    pub(crate) async fn run(self, _session: &Session) -> Result<(), Error> {
        Ok(())
    }
}
