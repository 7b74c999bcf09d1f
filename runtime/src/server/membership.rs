//! What makes a server one of several on a database.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Error;
use crate::cluster::{Cluster, Link, Presence, Settings as Member};
use crate::config::{Config, Place};
use crate::engine::{Engine, Settings};
use crate::store::Store;

/// Memory of all shards of a node, for what sleeps and for what waits for commits: see
/// [`Settings`], which is of one.
const LEAST_BYTES: usize = 16 << 20;

/// This process among the others.
pub(super) struct Membership {
    pub(super) cluster: Cluster,
    /// Says that this process lives.
    _presence: Presence,
}

/// Whether other processes may use the same database.
pub(super) fn is_clustered(config: &Config) -> bool {
    matches!(config.database.place, Place::Postgres(_))
}

/// How the engine is set up. Shards that others may have are kept in the database, and their
/// number is what it is.
pub(super) async fn settings(config: &Config, store: &Arc<dyn Store>) -> Result<Settings, Error> {
    let one = Settings {
        shards: config.engine.shards,
        mailbox: config.engine.queue,
        filter_shards: config.sharding.shards,
        ..Settings::default()
    };
    if !is_clustered(config) {
        return Ok(one);
    }
    store.lay_out(config.cluster.shards).await?;
    let shards = store.cluster().await?.shards.len();
    let part = |bytes: usize| (bytes / shards.max(1)).max(LEAST_BYTES);
    Ok(Settings {
        shards: u32::try_from(shards).unwrap_or(u32::MAX),
        clustered: true,
        frozen_bytes: part(one.frozen_bytes),
        unsettled_bytes: part(usize::try_from(one.unsettled_bytes).unwrap_or(usize::MAX)) as u64,
        ..one
    })
}

/// The way to other nodes.
pub(super) async fn connect(engine: &Engine, store: &Arc<dyn Store>) -> Result<Link, Error> {
    let link = Link::new(store.cluster_secret().await?).map_err(Error::Link)?;
    engine.connect(Arc::new(link.clone()));
    Ok(link)
}

impl Membership {
    pub(super) async fn join(
        config: &Config,
        url: &str,
        engine: &Engine,
        store: &Arc<dyn Store>,
    ) -> Result<Self, Error> {
        let path = &config.data_dir;
        let presence = Presence::take(path).map_err(|source| Error::Presence {
            path: path.clone(),
            source,
        })?;
        if let Some(before) = presence.before {
            // It has ended: nobody has to wait for its leases.
            store.leave(before).await?;
        }
        let address = match &config.cluster.advertise {
            Some(address) => address.clone(),
            None => address(config.server.listen, url),
        };
        let settings = Member {
            address,
            ttl: config.cluster.lease_ttl,
        };
        let cluster = Cluster::join(presence.id, settings, engine.clone(), store.clone()).await?;
        tracing::info!(node = %cluster.id(), "this node is a member");
        Ok(Self {
            cluster,
            _presence: presence,
        })
    }
}

/// Where others reach this machine, as far as it knows.
fn address(listen: SocketAddr, url: &str) -> String {
    if !listen.ip().is_unspecified() {
        return url.to_owned();
    }
    let port = url.rsplit(':').next().unwrap_or_default();
    let name = whoami::hostname().unwrap_or_else(|_| "localhost".to_owned());
    format!("http://{name}:{port}")
}
