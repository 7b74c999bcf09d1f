//! What other servers have changed in a store that they share with this one.
//!
//! The store tells of it ([`crate::store::Feed`]), and what somebody asks for and is not
//! known here is looked for before it is said to be unknown. Versions are only ever added,
//! and the newest is in force whoever comes with it; so what is read may be taken in at any
//! time. Pauses come and go, and are read with changes held up.

use std::sync::{Arc, PoisonError};

use cascade_cdl::TenantId;

use super::stock::activity;
use super::{Activity, ApplicationEntry, Catalog, compile_row, read_stock};
use crate::store::{self, Subject};
use crate::tenancy::Tenant;

/// Lookups at a time of what is not known here: who asks for what there is not is in the way
/// of others who do, and of nobody else.
pub(super) const LOOKUPS: usize = 8;

impl Catalog {
    /// Takes in what has changed of a tenant, if it is the catalog's.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn take_in(&self, tenant: &TenantId, subject: &Subject) -> Result<(), store::Error> {
        let Some(owner) = self.0.tenancy.tenant(tenant) else {
            return Ok(()); // what it has is read when it is heard of
        };
        if !self.has_read(tenant) {
            return self.take_in_all(&owner).await;
        }
        match subject {
            Subject::Application(name) => self.take_in_application(&owner, name).await,
            Subject::Activity(name) => self.take_in_activity(&owner, name).await,
            Subject::Pauses => self.take_in_pauses(&owner).await,
            Subject::Tenant | Subject::Keys => Ok(()),
        }
    }

    /// An application in force, from the store if it is not known here.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn find_application(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<Arc<ApplicationEntry>>, store::Error> {
        if let Some(known) = self.application(tenant, name) {
            return Ok(Some(known));
        }
        self.look_for(tenant, &Subject::Application(name.to_owned()))
            .await?;
        Ok(self.application(tenant, name))
    }

    /// All versions of an activity, oldest first, from the store if there is none here, or
    /// not the one that is wanted.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn find_versions(
        &self,
        tenant: &TenantId,
        name: &str,
        wanted: Option<&str>,
    ) -> Result<Vec<Arc<Activity>>, store::Error> {
        let known = self.versions(tenant, name);
        let mut versions = known.iter();
        if versions.any(|known| wanted.is_none_or(|wanted| *known.version == *wanted)) {
            return Ok(known);
        }
        self.look_for(tenant, &Subject::Activity(name.to_owned()))
            .await?;
        Ok(self.versions(tenant, name))
    }

    /// Looks for what others may have changed, if there are others.
    pub(super) async fn look_for(
        &self,
        tenant: &TenantId,
        subject: &Subject,
    ) -> Result<(), store::Error> {
        if !self.0.store.is_shared() {
            return Ok(());
        }
        let _place = self.0.looking.take(tenant).await;
        self.take_in(tenant, subject).await
    }

    fn has_read(&self, tenant: &TenantId) -> bool {
        let stocks = self.0.stocks.read().unwrap_or_else(PoisonError::into_inner);
        stocks.contains_key(tenant)
    }

    /// Reads what there is of a tenant that others have made.
    async fn take_in_all(&self, owner: &Arc<Tenant>) -> Result<(), store::Error> {
        let _change = self.0.changes.lock().await;
        if self.has_read(&owner.id) {
            return Ok(());
        }
        let read = read_stock(&*self.0.store, owner).await?;
        self.change(owner, |stock| *stock = read);
        Ok(())
    }

    async fn take_in_application(
        &self,
        owner: &Arc<Tenant>,
        name: &str,
    ) -> Result<(), store::Error> {
        let tenant = &owner.id;
        let Some(row) = self.0.store.application(tenant, name, None).await? else {
            return Ok(());
        };
        let version = row.version;
        let known = self.application(tenant, name);
        if known.is_some_and(|known| known.version >= version) {
            return Ok(());
        }
        match compile_row(row).await {
            Ok(entry) => {
                self.change(owner, |stock| stock.add_application(name, entry));
                self.count(owner).await?;
            }
            Err(error) => tracing::error!(
                tenant.id = %tenant, application = name, version, %error,
                "an application that another server has taken cannot be used here"
            ),
        }
        Ok(())
    }

    async fn take_in_activity(&self, owner: &Arc<Tenant>, name: &str) -> Result<(), store::Error> {
        let tenant = &owner.id;
        let known = self.versions(tenant, name);
        let is_known = |number| known.iter().any(|known| known.number == number);
        let mut new = Vec::new();
        for row in self.0.store.activity_versions(tenant, name).await? {
            if is_known(row.number) {
                continue;
            }
            match activity(owner, &row) {
                Ok(activity) => new.push(activity),
                Err(error) => tracing::error!(
                    tenant.id = %tenant, activity.name = name, version = row.version, error,
                    "an activity that another server has taken cannot be used here"
                ),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        self.change(owner, |stock| {
            for activity in new {
                stock.add_activity(activity);
            }
        });
        self.count(owner).await
    }

    async fn take_in_pauses(&self, owner: &Arc<Tenant>) -> Result<(), store::Error> {
        // What is paused here meanwhile would be read, or not, and then be set back.
        let _change = self.0.changes.lock().await;
        let paused = self.0.store.paused_workflows(&owner.id).await?;
        self.change(owner, |stock| {
            stock.paused.clear();
            for paused in paused {
                stock.pause(Arc::new(paused));
            }
        });
        Ok(())
    }

    /// Counts anew what a tenant has uploaded, wherever.
    async fn count(&self, owner: &Arc<Tenant>) -> Result<(), store::Error> {
        // Or what is uploaded here meanwhile would be counted twice, or not at all.
        let _change = self.0.changes.lock().await;
        let bytes = self.0.store.uploaded_bytes(&owner.id).await?;
        self.change(owner, |stock| stock.bytes = bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
