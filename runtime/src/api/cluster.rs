//! `/v1/nodes` and `/v1/shards`: who moves which executions on; `/v1/replicas`: what answers
//! reads beside the database. For operators.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use cascade_cdl::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::request::ServerCaller;
use super::{ApiState, json};
use crate::engine::Engine;
use crate::store::{Hold, NodeRow, Replicas, ShardRow, Standing};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(nodes))
        .routes(routes!(shards))
        .routes(routes!(replicas))
}

/// A process that shares the database.
#[derive(Serialize, ToSchema)]
struct NodeView {
    /// Of this process, from its start to its end.
    id: String,
    /// Where the others reach its API.
    address: String,
    version: String,
    /// `live`, `leaving` (it hands over all that it holds) or `gone`.
    status: &'static str,
    /// By the database's clock.
    #[schema(value_type = u64)]
    started_at: Timestamp,
    #[schema(value_type = u64)]
    seen_at: Timestamp,
    /// Shards that it holds.
    shards: usize,
    /// Executions of these that have not ended, as it told last.
    open_executions: u64,
    /// Activity tasks that wait for its workers, as it told last.
    queued: u64,
}

#[derive(Serialize, ToSchema)]
struct NodeList {
    items: Vec<NodeView>,
}

/// A range of buckets.
#[derive(Serialize, ToSchema)]
struct ShardView {
    shard: u32,
    /// The first bucket, and the first that is not in it.
    buckets: [u32; 2],
    /// How often it has changed hands.
    epoch: u64,
    /// The node that holds it; absent if nobody does, or there is one node only.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// When the lease ends unless it is renewed, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    /// What its owner told last.
    #[serde(flatten)]
    load: ShardLoad,
}

#[derive(Serialize, ToSchema)]
struct ShardList {
    items: Vec<ShardView>,
}

/// A replica of the database.
#[derive(Serialize, ToSchema)]
struct ReplicaView {
    /// `HOST:PORT`.
    name: String,
    /// `in_service` or `out`.
    status: &'static str,
    /// Why it answers nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// How long it has lacked something that the primary has, in milliseconds; absent if it
    /// has never been reached. No more than some seven minutes are told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_ms: Option<u64>,
    /// How much it lacks, in bytes of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_bytes: Option<u64>,
    /// Reads that it has answered.
    answered: u64,
    /// Reads for which it had not come far enough: the primary answered them.
    behind: u64,
    /// Reads that it has not answered, or refused: the primary answered them.
    failed: u64,
}

impl From<Standing> for ReplicaView {
    fn from(standing: Standing) -> Self {
        let lag = standing.lag.map(|lag| lag.as_millis());
        Self {
            name: standing.name,
            status: if standing.out.is_none() {
                "in_service"
            } else {
                "out"
            },
            reason: standing.out,
            lag_ms: lag.map(|lag| u64::try_from(lag).unwrap_or(u64::MAX)),
            behind_bytes: standing.behind,
            answered: standing.reads.answered,
            behind: standing.reads.behind,
            failed: standing.reads.failed,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct ReplicaList {
    items: Vec<ReplicaView>,
}

/// What a shard has to do.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
struct ShardLoad {
    /// Executions that have not ended.
    open: u64,
    /// Requests that wait for it.
    waiting: u64,
    /// How long the last commit took, in microseconds.
    commit_micros: u64,
}

/// What a node tells of itself: see `cluster/member.rs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Load {
    queued: u64,
    shards: BTreeMap<String, ShardLoad>,
}

impl Load {
    fn of(row: &NodeRow) -> Self {
        // One of another release may tell otherwise.
        serde_json::from_str(&row.node.load).unwrap_or_default()
    }
}

/// List the nodes that share the database (key of the server)
///
/// Those that have been gone for an hour are not listed. Of a server on a file there are none.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "cluster",
    responses((status = 200, body = NodeList))
)]
async fn nodes(State(state): State<ApiState>, _: ServerCaller) -> Result<Response, Problem> {
    let view = state.store.cluster().await?;
    let items = view.nodes.iter().map(|row| {
        let held = |shard: &&ShardRow| shard.holder() == Some(row.node.id);
        let load = Load::of(row);
        NodeView {
            id: row.node.id.to_string(),
            address: row.node.address.clone(),
            version: row.node.version.clone(),
            status: match (row.is_live, row.node.leaving) {
                (true, false) => "live",
                (true, true) => "leaving",
                (false, _) => "gone",
            },
            started_at: row.started_at,
            seen_at: row.seen_at,
            shards: view.shards.iter().filter(held).count(),
            open_executions: load.shards.values().map(|shard| shard.open).sum(),
            queued: load.queued,
        }
    });
    let items = items.collect();
    Ok(json(StatusCode::OK, &NodeList { items }))
}

/// List the shards, and who has them (key of the server)
#[utoipa::path(
    get, path = "/v1/shards", tag = "cluster",
    responses((status = 200, body = ShardList))
)]
async fn shards(State(state): State<ApiState>, _: ServerCaller) -> Result<Response, Problem> {
    if state.link.is_none() {
        let items = own(&state.engine);
        return Ok(json(StatusCode::OK, &ShardList { items }));
    }
    let view = state.store.cluster().await?;
    let loads: BTreeMap<_, _> = view
        .nodes
        .iter()
        .map(|row| (row.node.id, Load::of(row)))
        .collect();
    let items = view.shards.iter().map(|row| {
        let load = row.holder().and_then(|node| loads.get(&node));
        let load = load.and_then(|load| load.shards.get(&row.shard.0.to_string()));
        ShardView {
            shard: row.shard.0,
            buckets: [row.buckets.start, row.buckets.end],
            epoch: row.epoch.0,
            node: row.holder().map(|node| node.to_string()),
            lease_ms: match row.hold {
                Hold::Held { left, .. } => u64::try_from(left.as_millis()).ok(),
                Hold::Free { .. } => None,
            },
            load: load.copied().unwrap_or_default(),
        }
    });
    let items = items.collect();
    Ok(json(StatusCode::OK, &ShardList { items }))
}

/// List the replicas of the database, as this server sees them (key of the server)
///
/// In the order of `database.replicas`. Of a server that has none the list is empty.
#[utoipa::path(
    get, path = "/v1/replicas", tag = "cluster",
    responses((status = 200, body = ReplicaList))
)]
async fn replicas(State(state): State<ApiState>, _: ServerCaller) -> Result<Response, Problem> {
    let replicas = state.store.replicas();
    let standings = replicas.map(Replicas::standings);
    let items = standings.unwrap_or_default();
    let items = items.into_iter().map(ReplicaView::from).collect();
    Ok(json(StatusCode::OK, &ReplicaList { items }))
}

/// The shards of a process that is the only one.
fn own(engine: &Engine) -> Vec<ShardView> {
    let shards = engine.shards().into_iter().map(|shard| ShardView {
        shard: shard.lease.shard.0,
        buckets: [shard.buckets.start, shard.buckets.end],
        epoch: shard.lease.epoch.0,
        node: None,
        lease_ms: None,
        load: ShardLoad {
            open: shard.open,
            waiting: shard.waiting as u64,
            commit_micros: u64::try_from(shard.commit.as_micros()).unwrap_or(u64::MAX),
        },
    });
    shards.collect()
}
