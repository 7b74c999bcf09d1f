//! Secrets stand in the file by reference; and `tenants[].secrets`, what a tenant's activities
//! are given by name.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::read_bounded;
use super::reader::{Path, Reader};

/// Most secrets of one tenant: beyond any workflow, and a file that is generated
/// wrongly is noticed.
pub const MAX_SECRETS: usize = 256;

/// Longest name, in bytes: it stands in expressions and messages.
const MAX_NAME: usize = 64;

/// Longest secret, in bytes: room for a private key with its certificates.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Where what a file refers to is.
#[derive(Clone, Copy)]
pub enum Environment<'a> {
    /// On this machine, which has these variables.
    Here(&'a dyn Fn(&str) -> Option<String>),
    /// Where the file will be used. Nothing is looked up.
    Elsewhere,
}

/// A secret that stands elsewhere: `${NAME}` in the environment, `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretRef {
    /// A variable of the environment.
    Env(String),
    /// A file, less white space at its end.
    File(PathBuf),
}

impl TryFrom<String> for SecretRef {
    type Error = &'static str;

    /// The text is not repeated in the message: it may be the secret itself.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Some(name) = text
            .strip_prefix("${")
            .and_then(|name| name.strip_suffix('}'))
            && !name.is_empty()
        {
            return Ok(Self::Env(name.to_owned()));
        }
        match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            _ => Err("a secret is given by reference, as `${NAME}` or `file:PATH`"),
        }
    }
}

impl SecretRef {
    /// What it refers to, less white space at the end, if that is looked up. No message holds it.
    pub(super) fn read(
        &self,
        most: u64,
        environment: Environment<'_>,
    ) -> Result<Option<String>, String> {
        let Environment::Here(variables) = environment else {
            return Ok(None);
        };
        let text = match self {
            Self::Env(name) => variables(name)
                .ok_or_else(|| format!("the environment has no variable `{name}`"))?,
            Self::File(path) => read_bounded(path, most)
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))?,
        };
        Ok(Some(text.trim_end().to_owned()))
    }
}

impl From<SecretRef> for String {
    fn from(secret: SecretRef) -> Self {
        match secret {
            SecretRef::Env(name) => format!("${{{name}}}"),
            SecretRef::File(path) => format!("file:{}", path.display()),
        }
    }
}

/// A secret of a tenant: where it is and, once it has been looked up, what it is.
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
    /// Where it is.
    pub fn at(&self) -> &SecretRef {
        &self.at
    }

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
            Ok(Some(text)) if text.is_empty() => {
                reader.problem(path, "what it refers to is empty".to_owned());
            }
            Ok(text) => self.value = text.map(Into::into),
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
