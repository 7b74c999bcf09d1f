//! The catalog as the engine sees it.

use std::sync::Arc;

use async_trait::async_trait;
use cascade_cdl::TenantId;
use cascade_cdl::program::{Program, Resource};

use super::{Activity, Catalog};
use crate::engine::{Admission, Definitions};
use crate::store::{self, PausedWorkflow, Subject};

#[async_trait]
impl Definitions for Catalog {
    fn workflow(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<(u32, Arc<Program>)> {
        self.program(tenant, application, workflow)
    }

    fn is_shared(&self) -> bool {
        self.0.store.is_shared()
    }

    async fn look_for_workflow(
        &self,
        tenant: &TenantId,
        application: &str,
    ) -> Result<(), store::Error> {
        let subject = Subject::Application(application.to_owned());
        self.look_for(tenant, &subject).await
    }

    async fn workflow_at(
        &self,
        tenant: &TenantId,
        application: &str,
        version: u32,
        workflow: &str,
    ) -> Result<Option<Arc<Program>>, store::Error> {
        self.program_at(tenant, application, version, workflow)
            .await
    }

    fn paused(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<Arc<PausedWorkflow>> {
        Catalog::paused(self, tenant, application, workflow)
    }

    fn activity(&self, tenant: &TenantId, resource: &Resource) -> Option<Arc<Activity>> {
        Catalog::activity(self, tenant, resource)
    }

    async fn look_for_activity(
        &self,
        tenant: &TenantId,
        resource: &Resource,
    ) -> Result<(), store::Error> {
        let subject = Subject::Activity(resource.name.to_string());
        self.look_for(tenant, &subject).await
    }

    fn admission(&self, tenant: &TenantId) -> Admission {
        // A tenant that is gone may start nothing.
        self.0.tenancy.tenant(tenant).map_or(
            Admission {
                input_bytes: 0,
                open_executions: 0,
                open_bytes: 0,
            },
            |tenant| Admission {
                input_bytes: tenant.limits.input_bytes,
                open_executions: tenant.limits.open_executions,
                open_bytes: tenant.limits.open_bytes,
            },
        )
    }
}
