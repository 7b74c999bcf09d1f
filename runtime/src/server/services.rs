//! The store as the sandbox sees it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::TenantId;

use crate::sandbox::{KeyValue, KeyValueError, ModuleSource, SourceError};
use crate::store::{self, KvQuota, Store};
use crate::tenancy::Tenancy;

/// Gives the sandbox modules and the key-value capability out of the store.
#[derive(Clone)]
pub(super) struct StoreServices {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenancy: Tenancy,
}

impl StoreServices {
    /// What a tenant may keep, as its limits say at the moment.
    fn quota(&self, tenant: &TenantId) -> KvQuota {
        // A tenant that is gone has executions to end; they may keep nothing new.
        self.tenancy
            .tenant(tenant)
            .map_or(KvQuota { keys: 0, bytes: 0 }, |tenant| KvQuota {
                keys: tenant.limits.key_value_keys,
                bytes: tenant.limits.key_value_bytes,
            })
    }
}

#[async_trait]
impl ModuleSource for StoreServices {
    async fn load(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, SourceError> {
        Ok(self.store.module(tenant, digest).await?)
    }
}

#[async_trait]
impl KeyValue for StoreServices {
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        let value = self.store.kv_get(tenant, key).await.map_err(refused)?;
        Ok(value.map(Vec::from))
    }

    async fn set(&self, tenant: &TenantId, key: &str, value: Vec<u8>) -> Result<(), KeyValueError> {
        let quota = self.quota(tenant);
        let set = self.store.kv_set(tenant, key, value.into(), quota);
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
        let quota = self.quota(tenant);
        let set = self
            .store
            .kv_compare_and_set(tenant, key, expected, value, quota);
        set.await.map_err(refused)
    }

    async fn delete(&self, tenant: &TenantId, key: &str) -> Result<(), KeyValueError> {
        self.store.kv_delete(tenant, key).await.map_err(refused)
    }
}

fn refused(error: store::Error) -> KeyValueError {
    match error {
        store::Error::TooLarge { .. } | store::Error::OverQuota { .. } => {
            KeyValueError::TooLarge(error.to_string())
        }
        other => {
            // The guest is not told about the server's database.
            tracing::error!(error = %other, "the key-value store does not answer");
            KeyValueError::Unavailable("the key-value store does not answer".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use cascade_cdl::Timestamp;

    use super::*;
    use crate::config::Config;
    use crate::store::ModelStore;
    use crate::tenancy::Settings;

    async fn services(config: &str) -> StoreServices {
        let store: Arc<dyn Store> = Arc::new(ModelStore::new());
        let config = Config::parse("test.yaml", config, &|_| None).expect("valid");
        let tenancy = Tenancy::load(&config, store.clone()).await.expect("loads");
        StoreServices { store, tenancy }
    }

    fn tenant(id: &str) -> TenantId {
        id.parse().expect("valid")
    }

    #[tokio::test]
    async fn a_guest_is_told_which_limit_was_hit_and_how_to_raise_it() {
        let services =
            services("tenants: [{id: a, limits: {key_value_keys: 1, key_value_bytes: 8}}]");
        let (services, a) = (services.await, tenant("a"));
        services.set(&a, "k", vec![0; 7]).await.expect("fits");
        let second = services.set(&a, "l", vec![]).await;
        let larger = services.compare_and_set(&a, "k", Some(vec![0; 7]), vec![0; 8]);
        for (refused, what) in [
            (
                second,
                [
                    "2 keys, the limit is 1",
                    "`tenants[].limits.key_value_keys`",
                ],
            ),
            (
                larger.await.map(drop),
                [
                    "9 bytes, the limit is 8",
                    "`tenants[].limits.key_value_bytes`",
                ],
            ),
        ] {
            let Err(KeyValueError::TooLarge(why)) = refused else {
                panic!("{refused:?}");
            };
            assert!(what.iter().all(|what| why.contains(what)), "{why}");
        }
    }

    #[tokio::test]
    async fn a_quota_holds_as_it_stands_when_something_is_written() {
        let services = services("").await;
        let a = tenant("a");
        let gone = services.set(&a, "k", vec![]).await;
        assert!(matches!(gone, Err(KeyValueError::TooLarge(_))), "{gone:?}");
        for (keys, fits) in [(1, true), (0, false), (2, true)] {
            let mut settings = Settings::default();
            settings.limits.key_value_keys = keys;
            let put = services.tenancy.put(a.clone(), settings, Timestamp(1));
            put.await.expect("fits");
            let set = services.set(&a, &format!("k{keys}"), vec![]).await;
            assert_eq!(set.is_ok(), fits, "{keys}: {set:?}");
        }
    }
}
