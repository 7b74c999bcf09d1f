//! `cascade nodes` and `cascade shards`.

use clap::Args;

use super::Session;
use super::error::Error;
use super::output::{Table, Tone};
use super::wire::{Items, NodeView, ShardView};

/// List the nodes that share a database; takes one of the server's own keys
#[derive(Debug, Args)]
pub(crate) struct Nodes {}

/// List the shards, and which node has each; takes one of the server's own keys
///
/// Where executions with a key are is told by `cascade shard KEY`, as a bucket.
#[derive(Debug, Args)]
pub(crate) struct Shards {}

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
