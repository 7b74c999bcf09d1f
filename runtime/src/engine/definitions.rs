//! What the engine has to know of what it runs.

use std::sync::Arc;

use async_trait::async_trait;
use cascade_cdl::TenantId;
use cascade_cdl::program::{Program, Resource};

use crate::catalog::Activity;
use crate::store::{self, PausedWorkflow};

/// Who knows what workflows and activities there are. The engine does not mind
/// where from: the catalog of a server, or the one file of `cascade run`.
#[async_trait]
pub trait Definitions: Send + Sync + 'static {
    /// The workflow as a new execution runs it, with its application's version.
    fn workflow(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<(u32, Arc<Program>)>;

    /// Whether others may know what is not known here.
    fn is_shared(&self) -> bool {
        false
    }

    /// Looks for a workflow of an application that is not known here, where others may have
    /// put it; then it may be known.
    async fn look_for_workflow(&self, _: &TenantId, _: &str) -> Result<(), store::Error> {
        Ok(())
    }

    /// The workflow as an old execution runs it.
    async fn workflow_at(
        &self,
        tenant: &TenantId,
        application: &str,
        version: u32,
        workflow: &str,
    ) -> Result<Option<Arc<Program>>, store::Error>;

    /// Since when and why nothing new of a workflow is started, if that is so.
    fn paused(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<Arc<PausedWorkflow>>;

    /// What a resource stands for now.
    fn activity(&self, tenant: &TenantId, resource: &Resource) -> Option<Arc<Activity>>;

    /// Looks for an activity likewise.
    async fn look_for_activity(&self, _: &TenantId, _: &Resource) -> Result<(), store::Error> {
        Ok(())
    }

    /// Limits on what a tenant may start.
    fn admission(&self, tenant: &TenantId) -> Admission;
}

/// Limits on what a tenant may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Largest input of a workflow, in bytes.
    pub input_bytes: u64,
    /// Executions open at a time, sleeping ones included.
    pub open_executions: u64,
    /// Memory for open executions, in bytes.
    pub open_bytes: u64,
}
