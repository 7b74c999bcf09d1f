//! What other servers have changed of tenants and keys in a store that they share with this
//! one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use cascade_cdl::TenantId;

use super::{Settings, Tenancy, Tenant};
use crate::store::{self, Subject, TenantRow};

impl Tenancy {
    /// Takes in what has changed of a tenant, if it is about tenants or keys.
    ///
    /// # Errors
    ///
    /// If the store does not answer, or what it holds does not read.
    pub async fn take_in(&self, id: &TenantId, subject: &Subject) -> Result<(), store::Error> {
        match subject {
            Subject::Tenant => self.take_in_tenant(id).await.map(drop),
            Subject::Keys => {
                self.forget_keys(|of| of == id);
                Ok(())
            }
            Subject::Application(_) | Subject::Activity(_) | Subject::Pauses => Ok(()),
        }
    }

    /// Whether keys are not remembered, since nobody would tell that one is revoked.
    pub fn doubts_keys(&self) -> bool {
        self.remembered().in_doubt
    }

    /// Asks the store at each use of a key from now on, or remembers keys again.
    pub fn doubt_keys(&self, in_doubt: bool) {
        self.remembered().in_doubt = in_doubt;
        self.forget_keys(|_| true);
    }

    /// A tenant, from the store if another server may have made it.
    ///
    /// # Errors
    ///
    /// If the store does not answer, or what it holds does not read.
    pub async fn look_for(&self, id: &TenantId) -> Result<Option<Arc<Tenant>>, store::Error> {
        match self.tenant(id) {
            None if self.0.store.is_shared() => self.take_in_tenant(id).await,
            known => Ok(known),
        }
    }

    async fn take_in_tenant(&self, id: &TenantId) -> Result<Option<Arc<Tenant>>, store::Error> {
        // What is put here meanwhile would be set back.
        let _change = self.0.changes.lock().await;
        let known = self.tenant(id);
        if known.as_ref().is_some_and(|known| known.configured) {
            return Ok(known); // the file wins
        }
        let Some(row) = self.0.store.tenant(id).await? else {
            return Ok(known);
        };
        let tenant = read(row)?;
        if let Some(known) = known.filter(|known| **known == tenant) {
            return Ok(Some(known));
        }
        let tenant = Arc::new(tenant);
        self.swap_in(&tenant);
        Ok(Some(tenant))
    }

    /// Forgets the keys of some tenants, and what is just being asked about keys.
    fn forget_keys(&self, of: impl Fn(&TenantId) -> bool) {
        let mut remembered = self.remembered();
        remembered.generation += 1;
        remembered
            .keys
            .retain(|_, known| !known.principal.tenant().is_some_and(&of));
    }

    pub(super) fn swap_in(&self, tenant: &Arc<Tenant>) {
        let mut tenants = HashMap::clone(&self.snapshot());
        tenants.insert(tenant.id.clone(), Arc::clone(tenant));
        let known = &self.0.tenants;
        *known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tenants);
    }
}

/// The tenant of a row.
pub(super) fn read(row: TenantRow) -> Result<Tenant, store::Error> {
    let settings: Settings = serde_json::from_str(&row.settings).map_err(|error| {
        store::Error::Damaged(format!("settings of tenant {}: {error}", row.id))
    })?;
    Ok(settings.tenant(row.id))
}
