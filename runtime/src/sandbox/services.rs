//! What the sandbox needs from the rest of the server, and nothing more.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::TenantId;
use serde::{Deserialize, Serialize};

use super::http::HttpClients;

/// Why a module could not be read.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where uploaded modules are kept.
#[async_trait]
pub trait ModuleSource: Send + Sync {
    /// The bytes that a tenant uploaded under this digest; `None` if it never did.
    async fn load(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, SourceError>;
}

/// A small store of each tenant's own.
#[async_trait]
pub trait KeyValue: Send + Sync {
    /// The value of a key.
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError>;
    /// Sets a key.
    async fn set(&self, tenant: &TenantId, key: &str, value: Vec<u8>) -> Result<(), KeyValueError>;
    /// Sets a key if it holds `expected` (`None`: is absent); says whether it did.
    async fn compare_and_set(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> Result<bool, KeyValueError>;
    /// Removes a key, if it is there.
    async fn delete(&self, tenant: &TenantId, key: &str) -> Result<(), KeyValueError>;
}

/// Why a key-value call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// Beyond a limit of the store.
    #[error("{0}")]
    TooLarge(String),
    /// The store does not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Finest.
    Trace,
    /// For the author.
    Debug,
    /// Normal.
    Info,
    /// Should be looked at.
    Warn,
    /// Went wrong.
    Error,
}

/// Where the lines of an attempt's log go.
pub trait LogSink: Send + Sync {
    /// Takes one line, without its line break. Called on the thread that runs
    /// the attempt, so it must not block.
    fn line(&self, level: LogLevel, message: &str);
}

/// Drops all lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLog;

impl LogSink for NoLog {
    fn line(&self, _: LogLevel, _: &str) {}
}

/// What host calls reach.
pub(super) struct Services {
    pub(super) key_value: Arc<dyn KeyValue>,
    pub(super) now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(super) http: HttpClients,
}
