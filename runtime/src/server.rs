//! Puts a server together, and takes it apart in good order.
//!
//! Started from the store outwards, stopped from the outside inwards: no new
//! requests, then no new attempts, then the last commits. A kill at any point
//! is a crash, from which the next start recovers.

mod follower;
mod membership;
mod services;

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::position::Tokens;
use crate::api::{self, Api};
use crate::catalog::Catalog;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Place};
use crate::dispatch::TaskQueue;
use crate::dispatch::local::{Capacity, LocalQueue, Share, Shares};
use crate::engine::Engine;
use crate::objects::{self, Objects, Quota};
use crate::sandbox::{self, Sandbox, SandboxConfig};
use crate::schedules::{AllInForce, InForce, Schedules};
use crate::store::{self, PostgresStore, SqliteStore, Store};
use crate::telemetry::Telemetry;
use crate::tenancy::Tenancy;
use crate::worker::{ATTEMPTS_PER_THREAD, ActivityRunner, CROWDED_PACE, SandboxRunner, Workers};
use follower::Follower;
use membership::{Membership, connect, is_clustered, settings};
use services::StoreServices;

/// Between two times that the metrics' memory is tidied.
const UPKEEP: Duration = Duration::from_secs(10);

/// How long attempts may take to notice that they were cancelled at the end:
/// those that compute notice within milliseconds.
const ABANDON_GRACE: Duration = Duration::from_secs(2);

/// Descriptors that are asked for where the system sets no limit: what Linux
/// allows a process by default.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// What a server takes beside its configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The binary that compiles modules; this one if absent.
    pub compiler: Option<PathBuf>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the data folder {}", path.display())]
    DataDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {address} (`server.listen`, --listen)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a worker thread")]
    Worker(#[source] io::Error),
    #[error("cannot find the path of this program")]
    Compiler(#[source] io::Error),
    #[error("cannot say which process this is, in {}", path.display())]
    Presence {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make connections to other nodes: {0}")]
    Link(String),
    #[error(transparent)]
    Objects(objects::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A server that runs.
pub struct Running {
    /// Where it listens, as clients write it.
    pub url: String,
    /// What moves its executions, for whoever shares the process.
    pub engine: Engine,
    /// What is durable, likewise.
    pub store: Arc<dyn Store>,
    /// Absent if this process is the only one to use its store.
    membership: Option<Membership>,
    schedules: Schedules,
    queue: Arc<dyn TaskQueue>,
    workers: Workers,
    stopping: CancellationToken,
    serving: JoinHandle<()>,
    /// What goes on beside requests.
    background: JoinSet<()>,
    grace: Duration,
}

/// Starts a server; it is ready when this returns.
pub async fn start(config: Config, options: Options) -> Result<Running, Error> {
    raise_descriptors();
    let config = Arc::new(config);
    let telemetry = Telemetry::install();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = open_store(&config).await?;
    // Before anything is read: what changes meanwhile is told.
    let feed = store.follow().await?;
    let tenancy = Tenancy::load(&config, store.clone()).await?;
    tenancy.settle().await?;
    let sandbox = open_sandbox(&config, &options, &store, &tenancy, &clock)?;
    let catalog = Catalog::load(store.clone(), sandbox.clone(), tenancy.clone()).await?;
    let objects = open_objects(&config, &store, tenancy.clone())?;
    let contents = objects.clone();
    let threads = config.workers.threads;
    let capacity = Capacity {
        places: threads.saturating_mul(ATTEMPTS_PER_THREAD),
        crowded_pace: threads.saturating_mul(CROWDED_PACE),
    };
    let queue: Arc<dyn TaskQueue> = Arc::new(LocalQueue::new(capacity, shares(tenancy.clone())));
    let engine = Engine::open(
        settings(&config, &store).await?,
        store.clone(),
        queue.clone(),
        clock.clone(),
        Arc::new(catalog.clone()),
        objects.clone(),
    )
    .await?;
    let runner = runner(sandbox, &clock, &tenancy);
    let workers =
        Workers::start(threads as usize, &queue, &runner, &engine).map_err(Error::Worker)?;
    let in_force: AllInForce = {
        let (tenancy, catalog) = (tenancy.clone(), catalog.clone());
        Arc::new(move || schedules_in_force(&tenancy, &catalog))
    };
    let schedules = Schedules::open(engine.clone(), store.clone(), clock.clone(), in_force).await?;
    let address = config.server.listen;
    let listen = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let url = format!("http://{}", listener.local_addr().map_err(listen)?);
    let (link, tokens) = if is_clustered(&config) {
        let tokens = Tokens::new(&store.cluster_secret().await?);
        (Some(connect(&engine, &store).await?), Some(tokens))
    } else {
        (None, None)
    };
    let stopping = CancellationToken::new();
    let router = api::router(Api::new(api::Parts {
        engine: engine.clone(),
        catalog: catalog.clone(),
        schedules: schedules.clone(),
        tenancy: tenancy.clone(),
        store: store.clone(),
        objects,
        clock,
        config: config.clone(),
        telemetry: telemetry.clone(),
        stopping: stopping.clone(),
        link: link.clone(),
        tokens,
    }));
    let serving = {
        let (config, stopping) = (config.clone(), stopping.clone());
        tokio::spawn(async move { api::serve(listener, router, &config.server, stopping).await })
    };
    let follower = feed.map(|feed| Follower {
        feed,
        tenancy: tenancy.clone(),
        catalog,
        schedules: schedules.clone(),
    });
    let background = background(telemetry, contents, &tenancy, follower);
    // Others ask as soon as they know of this node, and so it serves first.
    let membership = match link {
        Some(_) => Some(Membership::join(&config, &url, &engine, &store).await?),
        None => None,
    };
    tracing::info!(url, "serving");
    Ok(Running {
        url,
        engine,
        store,
        membership,
        schedules,
        queue,
        workers,
        stopping,
        serving,
        background,
        grace: config.server.shutdown_grace,
    })
}

impl Running {
    /// Stops: lets requests and attempts end for a while, commits, closes.
    pub async fn shutdown(mut self) {
        self.stopping.cancel();
        if let Some(membership) = &self.membership
            && !membership.cluster.is_alone()
        {
            // First, so that the others go on at once.
            membership.cluster.leave().await;
        }
        self.schedules.shutdown().await;
        // No new attempts; what waits is asked for again after the next start.
        self.queue.close();
        let workers = self.workers;
        let mut ended = tokio::task::spawn_blocking(move || workers.join());
        let drained = async {
            let served = self.serving.await;
            if let Err(error) = served {
                tracing::error!(%error, "serving ended badly");
            }
            (&mut ended).await
        };
        let drained = tokio::time::timeout(self.grace, drained).await.is_ok();
        self.engine.shutdown().await;
        if !drained {
            tracing::warn!("attempts are cut off; the next start runs them again");
            self.queue.abandon();
            // Past that, the process ends with the attempt in it.
            let _ = tokio::time::timeout(ABANDON_GRACE, ended).await;
        }
        if let Some(membership) = self.membership {
            membership.cluster.leave().await;
            membership.cluster.end().await;
        }
        self.background.shutdown().await;
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// What runs attempts.
fn runner(sandbox: Sandbox, clock: &Arc<dyn Clock>, tenancy: &Tenancy) -> Arc<dyn ActivityRunner> {
    let tenancy = tenancy.clone();
    Arc::new(SandboxRunner {
        sandbox,
        clock: clock.clone(),
        secrets: Arc::new(move |tenant, name| tenancy.secret(tenant, name)),
    })
}

/// The schedules of all applications.
fn schedules_in_force(tenancy: &Tenancy, catalog: &Catalog) -> Vec<InForce> {
    let tenants = tenancy.tenants();
    let of_tenant = tenants.iter().flat_map(|tenant| {
        let entries = catalog.applications(&tenant.id);
        entries.into_iter().map(|entry| entry.schedules(&tenant.id))
    });
    of_tenant.collect()
}

/// Allows this process as many descriptors as it may have: each connection takes
/// one, and so does the memory image of each loaded module. The soft limit is
/// low for the sake of programs that use `select`, which this is not.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit
        .maximum
        .map_or(MOST_DESCRIPTORS, |hard| hard.min(MOST_DESCRIPTORS));
    if limit.current.is_none_or(|soft| soft >= most) {
        return;
    }
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
    }
}

pub(crate) async fn open_store(config: &Config) -> Result<Arc<dyn Store>, Error> {
    let path = &config.data_dir;
    // What tenants keep here is nobody else's on this machine.
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| Error::DataDir {
        path: path.clone(),
        source,
    })?;
    if let Place::Postgres(settings) = &config.database.place {
        return Ok(Arc::new(PostgresStore::open(settings).await?));
    }
    Ok(Arc::new(SqliteStore::open(&config.database_path()).await?))
}

/// Objects, held to what each tenant's limits say at the moment.
fn open_objects(
    config: &Config,
    store: &Arc<dyn Store>,
    tenancy: Tenancy,
) -> Result<Objects, Error> {
    let quota: Quota = Arc::new(move |id| {
        let tenant = tenancy.tenant(id);
        // One that is gone may keep nothing new.
        tenant.map_or(0, |tenant| tenant.limits.object_bytes)
    });
    let folder = config.data_dir.join("objects");
    Objects::open(&folder, store.clone(), quota).map_err(Error::Objects)
}

fn open_sandbox(
    config: &Config,
    options: &Options,
    store: &Arc<dyn Store>,
    tenancy: &Tenancy,
    clock: &Arc<dyn Clock>,
) -> Result<Sandbox, Error> {
    let compiler = match &options.compiler {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(Error::Compiler)?,
    };
    let services = StoreServices {
        store: store.clone(),
        tenancy: tenancy.clone(),
    };
    let clock = clock.clone();
    Ok(Sandbox::new(SandboxConfig {
        data_dir: config.data_dir.clone(),
        compiler,
        slots: sandbox::DEFAULT_SLOTS,
        source: Arc::new(services.clone()),
        key_value: Arc::new(services),
        now_ms: Arc::new(move || clock.now().0),
    })?)
}

/// What each tenant may use of the pool, as its limits say at the moment.
fn shares(tenancy: Tenancy) -> Shares {
    Arc::new(move |id| {
        let tenant = tenancy.tenant(id);
        // A tenant that is gone has executions to end, at the smallest share.
        tenant.map_or(
            Share {
                weight: 1,
                concurrent_attempts: 1,
                fuel_per_second: 1_000_000,
            },
            |tenant| Share {
                weight: tenant.weight.0.get(),
                concurrent_attempts: tenant.limits.concurrent_attempts,
                fuel_per_second: tenant.limits.fuel_per_second,
            },
        )
    })
}

/// Begins what goes on beside requests.
fn background(
    telemetry: Telemetry,
    objects: Objects,
    tenancy: &Tenancy,
    follower: Option<Follower>,
) -> JoinSet<()> {
    let mut background = JoinSet::new();
    background.spawn(tidy(telemetry));
    let tenants = tenancy.tenants();
    let tenants: Vec<_> = tenants.iter().map(|tenant| tenant.id.clone()).collect();
    background.spawn(async move { objects.upkeep(&tenants).await });
    if let Some(follower) = follower {
        background.spawn(follower.run());
    }
    background
}

async fn tidy(telemetry: Telemetry) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        telemetry.upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_raised_to_what_the_system_allows() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.current.map_or(512, |soft| soft.min(512));
        let low = Rlimit {
            current: Some(lower),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, low).expect("lowering is allowed");
        raise_descriptors();
        let after = getrlimit(Resource::Nofile);
        let most = before.maximum.unwrap_or(u64::MAX).min(MOST_DESCRIPTORS);
        assert_eq!(after.current, Some(most));
    }
}
