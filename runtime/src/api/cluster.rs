//! `/v1/nodes` and `/v1/shards`: who moves which executions on. For operators.

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
use crate::store::{Hold, NodeRow, ShardRow};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(nodes))
        .routes(routes!(shards))
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
