//! Workflows of which nothing new is started.
//!
//! Executions that run go on. A pause is of the name: a new version of the
//! application does not end it, nor does a version without the workflow.

use std::sync::Arc;

use cascade_cdl::TenantId;

use super::{Catalog, Error};
use crate::change::to_its_end;
use crate::store::{PausedWorkflow, Subject};

/// Paused workflows of one tenant, each with a reason in memory: more are paused
/// one by one by nobody.
const MAX_PAUSED: usize = 1_000;

impl Catalog {
    /// Since when and why nothing new of a workflow is started, if that is so.
    pub fn paused(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<Arc<PausedWorkflow>> {
        let stocks = self.0.stocks.read();
        let stocks = stocks.unwrap_or_else(std::sync::PoisonError::into_inner);
        stocks.get(tenant)?.paused(application, workflow).cloned()
    }

    /// Lets nothing new of a workflow be started; one that is paused stays so, as it
    /// was paused first, and gives that back.
    ///
    /// # Errors
    ///
    /// [`Error::NoWorkflow`], [`Error::TooMany`], or if the store does not answer.
    pub async fn pause(
        &self,
        tenant: &TenantId,
        pause: PausedWorkflow,
    ) -> Result<Arc<PausedWorkflow>, Error> {
        self.look_for(tenant, &Subject::Pauses).await?;
        let of = Subject::Application(pause.application.clone());
        self.look_for(tenant, &of).await?;
        let (this, owner) = (self.clone(), tenant.clone());
        to_its_end(async move {
            let _change = this.0.changes.lock().await;
            let (application, workflow) = (&pause.application, &pause.workflow);
            if let Some(paused) = this.paused(&owner, application, workflow) {
                return Ok(paused);
            }
            if this.program(&owner, application, workflow).is_none() {
                return Err(no_workflow(application, workflow));
            }
            let count = this.stock(&owner).map_or(0, |stock| stock.paused.len());
            if count >= MAX_PAUSED {
                let what = "paused workflows";
                return Err(Error::TooMany { what, count });
            }
            let known = this.tenant(&owner)?;
            this.0.store.pause_workflow(&owner, pause.clone()).await?;
            let paused = Arc::new(pause);
            this.change(&known, |stock| stock.pause(Arc::clone(&paused)));
            Ok(paused)
        })
        .await
    }

    /// Lets a workflow be started again.
    ///
    /// # Errors
    ///
    /// [`Error::NoWorkflow`], or if the store does not answer.
    pub async fn resume(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Result<(), Error> {
        self.look_for(tenant, &Subject::Pauses).await?;
        let of = Subject::Application(application.to_owned());
        self.look_for(tenant, &of).await?;
        let (this, owner) = (self.clone(), tenant.clone());
        let key = (application.to_owned(), workflow.to_owned());
        to_its_end(async move {
            let _change = this.0.changes.lock().await;
            if this.paused(&owner, &key.0, &key.1).is_none() {
                let known = this.program(&owner, &key.0, &key.1).is_some();
                let unknown = || no_workflow(&key.0, &key.1);
                return known.then_some(()).ok_or_else(unknown);
            }
            let known = this.tenant(&owner)?;
            let store = &this.0.store;
            store.resume_workflow(&owner, &key.0, &key.1).await?;
            this.change(&known, |stock| drop(stock.paused.remove(&key)));
            Ok(())
        })
        .await
    }
}

fn no_workflow(application: &str, workflow: &str) -> Error {
    Error::NoWorkflow {
        application: application.to_owned(),
        workflow: workflow.to_owned(),
    }
}
