//! What commands read from the API. Fields that they do not use are left out,
//! and unknown ones ignored: the server may be newer.

use std::collections::BTreeMap;

use cascade_cdl::program::Priority;
use cascade_cdl::schedule::Scheduled;
use cascade_cdl::{Event, Failure, Json, Paused, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sandbox::{Capability, Limits, ModuleKind};
use crate::store::{Home, StatusName};

/// Name of the server-sent events that carry an event of a history.
pub(crate) const HISTORY_EVENT: &str = "history";

/// Name of the last server-sent event: the execution has ended.
pub(crate) const CLOSED_EVENT: &str = "closed";

/// An execution as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecutionView {
    pub id: String,
    pub application: String,
    pub application_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_version: Option<u32>,
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_key: Option<String>,
    pub status: StatusName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Scheduled>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    pub events: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_states: Option<Vec<OpenState>>,
}

impl ExecutionView {
    /// The application version that it was started with.
    pub(crate) fn first_version(&self) -> u32 {
        self.started_version.unwrap_or(self.application_version)
    }
}

/// A state that an execution is in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenState {
    pub path: String,
    pub state: String,
    pub step: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for_rate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a person is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HumanTask {
    pub task: u64,
    pub path: String,
    pub state: String,
    pub assignee: String,
    pub input: Json,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    pub opened_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalates_at: Option<Timestamp>,
    pub escalated: u32,
}

impl HumanTask {
    /// Where it is, with the states around it: `Orders/3/Approve`.
    pub(crate) fn place(&self) -> String {
        if self.path.is_empty() {
            self.state.clone()
        } else {
            format!("{}/{}", self.path, self.state)
        }
    }
}

/// What a person is asked, of all executions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenTask {
    pub execution: String,
    pub task: u64,
    pub application: String,
    pub workflow: String,
    pub path: String,
    pub state: String,
    pub assignee: String,
    pub opened_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    pub escalated: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenTaskPage {
    pub items: Vec<OpenTask>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecutionPage {
    pub items: Vec<ExecutionView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HistoryPage {
    pub events: Vec<Event>,
    /// `after` of the next page; absent at the end.
    #[serde(default)]
    pub next: Option<u64>,
}

/// An application as it was applied.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub name: String,
    pub version: u32,
    pub created: bool,
    #[serde(default)]
    pub missing_activities: Vec<String>,
    /// Added by `apply --migrate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executions: Option<Tally>,
}

/// What a file would change, with a page of executions.
#[derive(Debug, Deserialize)]
pub(crate) struct PlanPage {
    pub application: String,
    #[serde(default)]
    pub version: Option<u32>,
    pub workflows: Vec<WorkflowPlan>,
    pub executions: Vec<Fate>,
    #[serde(default)]
    pub next: Option<String>,
}

/// What a file would change of a workflow.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkflowPlan {
    pub workflow: String,
    pub change: String,
    pub fields: Vec<String>,
    pub states: Vec<StateChange>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StateChange {
    pub state: String,
    pub change: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// A page of executions that were to be moved.
#[derive(Debug, Deserialize)]
pub(crate) struct MigratePage {
    pub executions: Vec<Fate>,
    #[serde(default)]
    pub next: Option<String>,
}

/// What would become, or became, of an execution.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fate {
    pub id: String,
    pub workflow: String,
    pub application_version: u32,
    #[serde(alias = "outcome")]
    pub verdict: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// The executions of an application by what becomes of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// How many there are of each kind.
    pub counts: BTreeMap<String, u64>,
    /// Some of those that stay, with the reasons.
    pub obstructed: Vec<Fate>,
}

/// One version of an activity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ActivityView {
    pub name: String,
    pub version: String,
    pub resource: String,
    pub digest: String,
    pub size: u64,
    pub kind: ModuleKind,
    pub pure: bool,
    pub powers: Vec<Capability>,
    pub granted: Vec<Capability>,
    pub denied: Vec<Capability>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub manifest: Value,
    pub limits: Limits,
    pub created_at: Timestamp,
}

/// An activity with its versions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ActivityDetail {
    #[serde(flatten)]
    pub newest: ActivityView,
    /// Oldest first.
    #[serde(default)]
    pub versions: Vec<VersionView>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VersionView {
    pub version: String,
    pub digest: String,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<PowerDiff>,
}

/// What became of an upload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Uploaded {
    #[serde(flatten)]
    pub activity: ActivityView,
    pub created: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<PowerDiff>,
}

/// What a version can do more, and less, than the one before it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PowerDiff {
    pub predecessor: String,
    pub module_changed: bool,
    pub powers_added: Vec<Capability>,
    pub powers_removed: Vec<Capability>,
    pub imports_added: Vec<String>,
    pub imports_removed: Vec<String>,
    pub hosts_added: Vec<String>,
    pub hosts_removed: Vec<String>,
}

/// A schedule as the API shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ScheduleView {
    pub application: String,
    pub name: String,
    pub workflow: String,
    pub timing: String,
    pub overlap: String,
    pub catch_up: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    pub next: Vec<NextView>,
    pub open: Vec<Value>,
    pub waiting: usize,
    pub recent: Vec<RunView>,
}

/// A time that is due.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NextView {
    pub at: Timestamp,
    pub local: String,
}

/// What became of times of a schedule.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunView {
    pub at: Timestamp,
    pub cause: String,
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub until: Timestamp,
    pub count: u32,
    pub more: bool,
}

/// What a schedule started by hand.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Triggered {
    pub execution: String,
    pub at: Timestamp,
    pub waits: bool,
}

/// How many times of a schedule were asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Backfilled {
    pub times: usize,
}

/// A list that has no pages.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Items<T> {
    pub items: Vec<T>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeView {
    pub id: String,
    pub address: String,
    pub version: String,
    pub status: String,
    pub started_at: Timestamp,
    pub seen_at: Timestamp,
    pub shards: u64,
    pub open_executions: u64,
    pub queued: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReplicaView {
    pub name: String,
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_bytes: Option<u64>,
    pub answered: u64,
    pub behind: u64,
    pub failed: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShardView {
    pub shard: u32,
    pub buckets: [u32; 2],
    pub epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    pub open: u64,
    pub waiting: u64,
    pub commit_micros: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TenantView {
    pub id: String,
    pub limits: Value,
    pub weight: Value,
    pub policy: Value,
    pub configured: bool,
    /// Where its rows are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Home>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyView {
    pub id: String,
    pub tenant: String,
    pub role: String,
    pub label: String,
    pub created_at: Timestamp,
    /// The key itself, when it has just been made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// An application in force.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ApplicationView {
    pub name: String,
    pub version: u32,
    pub workflows: Vec<WorkflowView>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkflowView {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}

/// Whether a workflow can be started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkflowState {
    pub application: String,
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}
