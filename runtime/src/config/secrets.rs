//! `tenants[].secrets`: what a tenant's activities are given by name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::reader::{Path, Reader};
use super::{Environment, SecretRef};

/// Most secrets of one tenant: beyond any workflow, and a file that is generated
/// wrongly is noticed.
pub const MAX_SECRETS: usize = 256;

/// Longest name, in bytes: it stands in expressions and messages.
const MAX_NAME: usize = 64;

/// Longest secret, in bytes: room for a private key with its certificates.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// A secret: where it is and, once the file has been read, what it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SecretRef", into = "SecretRef")]
pub struct TenantSecret {
    at: SecretRef,
    value: Option<Arc<str>>,
}

impl From<SecretRef> for TenantSecret {
    fn from(at: SecretRef) -> Self {
        Self { at, value: None }
    }
}

impl From<TenantSecret> for SecretRef {
    fn from(secret: TenantSecret) -> Self {
        secret.at
    }
}

/// Without what it is.
impl fmt::Debug for TenantSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

impl TenantSecret {
    /// What it is, if it has been found.
    pub fn value(&self) -> Option<&Arc<str>> {
        self.value.as_ref()
    }

    /// Checks its name and finds what it refers to.
    pub(super) fn check(
        &mut self,
        name: &str,
        path: &Path,
        reader: &mut Reader,
        environment: Environment<'_>,
    ) {
        if !is_name(name) {
            let message = format!(
                "a secret's name has letters, digits and _, no digit first, and at most {MAX_NAME} of them: \
                 expressions say `secrets.NAME`"
            );
            return reader.problem(path, message);
        }
        let found = self.at.read(MAX_SECRET_BYTES, environment);
        match found {
            Ok(text) if text.is_empty() => {
                reader.problem(path, "what it refers to is empty".to_owned());
            }
            Ok(text) => self.value = Some(text.into()),
            Err(message) => reader.problem(path, message),
        }
    }
}

fn is_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= MAX_NAME
        && name.bytes().all(word)
        && name.starts_with(|first: char| !first.is_ascii_digit())
}
