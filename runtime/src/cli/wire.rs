//! What commands read from the API.

use cascade_cdl::{Event, Failure, Json, Timestamp};
use serde::{Deserialize, Serialize};

use crate::store::StatusName;

/// An execution as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecutionView {
    pub id: String,
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
