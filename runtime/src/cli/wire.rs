//! What commands read from the API.

use std::collections::BTreeSet;

use cascade_cdl::{Event, Failure, Json, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::sandbox::Capability;
use crate::store::StatusName;

/// Name of the server-sent events that carry an event of a history.
pub const HISTORY_EVENT: &str = "history";

/// An execution as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecutionView {
    pub id: String,
    pub tenant: TenantId,
    pub application: String,
    pub application_version: u32,
    pub workflow: String,
    pub status: StatusName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    pub events: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ExecutionPage {
    pub items: Vec<ExecutionView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct HistoryPage {
    pub events: Vec<Event>,
}

/// One version of an application, with its source.
#[derive(Debug, Serialize, Deserialize)]
pub struct ApplicationView {
    pub name: String,
    pub version: u32,
    pub file: String,
    pub source: String,
}

/// An application as it was applied.
#[derive(Debug, Serialize, Deserialize)]
pub struct Applied {
    pub name: String,
    pub version: u32,
    pub created: bool,
    #[serde(default)]
    pub missing_activities: Vec<String>,
}

/// One version of an activity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActivityView {
    pub name: String,
    pub version: String,
    pub digest: String,
    pub size: u64,
    pub pure: bool,
    pub powers: BTreeSet<Capability>,
    pub denied: Vec<Capability>,
    pub created_at: Timestamp,
}
