//! The store as the sandbox sees it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::TenantId;

use crate::sandbox::{KeyValue, KeyValueError, ModuleSource, SourceError};
use crate::store::{self, Store};

/// Gives the sandbox modules and the key-value capability out of the store.
#[derive(Clone)]
pub(super) struct StoreServices(pub(super) Arc<dyn Store>);

#[async_trait]
impl ModuleSource for StoreServices {
    async fn load(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, SourceError> {
        Ok(self.0.module(tenant, digest).await?)
    }
}

#[async_trait]
impl KeyValue for StoreServices {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        let value = self.0.kv_get(tenant, key).await.map_err(refused)?;
        Ok(value.map(Vec::from))
    }

    async fn set(&self, tenant: &TenantId, key: &str, value: Vec<u8>) -> Result<(), KeyValueError> {
        let set = self.0.kv_set(tenant, key, value.into());
        set.await.map_err(refused)
    }

    async fn compare_and_set(
        &self,
        tenant: &TenantId,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> Result<bool, KeyValueError> {
        let (expected, value) = (expected.map(Bytes::from), Bytes::from(value));
        let set = self.0.kv_compare_and_set(tenant, key, expected, value);
        set.await.map_err(refused)
    }

    async fn delete(&self, tenant: &TenantId, key: &str) -> Result<(), KeyValueError> {
        self.0.kv_delete(tenant, key).await.map_err(refused)
    }
}

fn refused(error: store::Error) -> KeyValueError {
    match error {
        store::Error::TooLarge { .. } => KeyValueError::TooLarge(error.to_string()),
        other => {
            // The guest is not told about the server's database.
            tracing::error!(error = %other, "the key-value store does not answer");
            KeyValueError::Unavailable("the key-value store does not answer".to_owned())
        }
    }
}
