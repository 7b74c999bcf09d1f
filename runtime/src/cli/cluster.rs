//! `cascade nodes`, `cascade shards` and `cascade replicas`.

use clap::Args;

use super::Session;
use super::error::Error;
use super::output::{Table, Tone};
use super::wire::{Items, NodeView, ReplicaView, ShardView};

/// List the nodes that share a database; takes one of the server's own keys
#[derive(Debug, Args)]
pub(crate) struct Nodes {}

/// List the shards, and which node has each; takes one of the server's own keys
///
/// Where executions with a key are is told by `cascade shard KEY`, as a bucket.
#[derive(Debug, Args)]
pub(crate) struct Shards {}

/// List the replicas of the database as the server sees them; takes one of the server's own keys
#[derive(Debug, Args)]
pub(crate) struct Replicas {}

impl Nodes {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.server_client()?;
        let list: Items<NodeView> = client.get(&["v1", "nodes"], &[]).await?;
        session.output.result(&list, || nodes(&list.items));
        if list.items.is_empty() {
            session
                .output
                .note("the server uses a file, which nobody shares");
        }
        Ok(())
    }
}

impl Shards {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.server_client()?;
        let list: Items<ShardView> = client.get(&["v1", "shards"], &[]).await?;
        session.output.result(&list, || shards(&list.items));
        Ok(())
    }
}

impl Replicas {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Error> {
        let client = session.server_client()?;
        let list: Items<ReplicaView> = client.get(&["v1", "replicas"], &[]).await?;
        session.output.result(&list, || replicas(&list.items));
        if list.items.is_empty() {
            session
                .output
                .note("the server has none: see `database.replicas` in cascade.yaml");
        }
        Ok(())
    }
}

fn nodes(nodes: &[NodeView]) -> String {
    let mut table = Table::new(&[
        "node", "status", "address", "version", "shards", "open", "queued", "seen",
    ]);
    for node in nodes {
        let tone = match &*node.status {
            "live" => Tone::Good,
            "gone" => Tone::Bad,
            _ => Tone::Plain,
        };
        table.row([
            (node.id.clone(), Tone::Strong),
            (node.status.clone(), tone),
            (node.address.clone(), Tone::Plain),
            (node.version.clone(), Tone::Faint),
            (node.shards.to_string(), Tone::Plain),
            (node.open_executions.to_string(), Tone::Plain),
            (node.queued.to_string(), Tone::Plain),
            (node.seen_at.to_string(), Tone::Faint),
        ]);
    }
    table.render()
}

fn shards(shards: &[ShardView]) -> String {
    let mut table = Table::new(&[
        "shard", "buckets", "epoch", "node", "lease", "open", "waiting", "commit",
    ]);
    for shard in shards {
        let [first, end] = shard.buckets;
        let lease = shard.lease_ms.map(|left| format!("{left} ms"));
        let micros = shard.commit_micros;
        table.row([
            (shard.shard.to_string(), Tone::Strong),
            (format!("{first}-{}", end.saturating_sub(1)), Tone::Plain),
            (shard.epoch.to_string(), Tone::Faint),
            (shard.node.clone().unwrap_or_default(), Tone::Plain),
            (lease.unwrap_or_default(), Tone::Faint),
            (shard.open.to_string(), Tone::Plain),
            (shard.waiting.to_string(), Tone::Plain),
            (
                format!("{}.{:03} ms", micros / 1_000, micros % 1_000),
                Tone::Faint,
            ),
        ]);
    }
    table.render()
}

fn replicas(replicas: &[ReplicaView]) -> String {
    let mut table = Table::new(&[
        "replica", "status", "lag", "lacks", "answered", "behind", "failed", "reason",
    ]);
    for replica in replicas {
        let tone = if replica.status == "in_service" {
            Tone::Good
        } else {
            Tone::Bad
        };
        let lag = replica.lag_ms.map(|lag| format!("{lag} ms"));
        let lacks = replica.behind_bytes.map(|bytes| format!("{bytes} B"));
        table.row([
            (replica.name.clone(), Tone::Strong),
            (replica.status.clone(), tone),
            (lag.unwrap_or_default(), Tone::Plain),
            (lacks.unwrap_or_default(), Tone::Plain),
            (replica.answered.to_string(), Tone::Plain),
            (replica.behind.to_string(), Tone::Plain),
            (replica.failed.to_string(), Tone::Plain),
            (replica.reason.clone().unwrap_or_default(), Tone::Faint),
        ]);
    }
    table.render()
}
