//! `cascade.yaml`: what an operator can set, with the defaults and their reasons.
//!
//! One struct per block. Unknown keys are refused, all problems of the file are
//! reported together, and what a later version will know is refused as such.
//! Secrets stand in the file by reference only. `docs/configuration.md` is the
//! page for operators; a test holds its example against this module.

mod database;
pub mod deployments;
pub mod reader;
mod secrets;
pub mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use cascade_cdl::TenantId;
use serde::{Deserialize, Serialize};

use crate::sandbox::{Capability, HostPattern, Limits, PrivateHost};
use crate::store::SchemaName;
use crate::tenancy::{Digest, Role, key};
use database::redact_url;
pub use database::{Database, Place};
use deployments::Deployments;
use reader::{Path, Problem, Problems, Reader};
pub use secrets::{Environment, MAX_SECRETS, SecretRef, TenantSecret};

/// Where the server listens unless told otherwise: this machine only, since a
/// server that the network reaches should be somebody's decision.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);

/// Blocks of later versions, with what they are about.
const LATER: [(&str, &str); 5] = [
    ("autoscaling", "pools that follow the load"),
    ("messaging", "starts from Kafka and NATS topics"),
    ("cache", "a shared cache"),
    ("regions", "workers in other regions"),
    ("alerts", "rules over metrics"),
];

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP interface.
    pub server: Server,
    /// Where everything durable lies, unless `database.url` points elsewhere.
    pub data_dir: PathBuf,
    /// Where executions are stored.
    pub database: Database,
    /// Who may use the server. More can be made over HTTP.
    pub tenants: Vec<TenantConfig>,
    /// What moves executions on.
    pub engine: EngineConfig,
    /// What runs activities.
    pub workers: Workers,
    /// The `shard` filter of expressions.
    pub sharding: Sharding,
    /// This process as one of several on one PostgreSQL.
    pub cluster: ClusterConfig,
    /// How such processes are run by others. The server itself has no use for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Deployments>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            data_dir: PathBuf::from("cascade-data"),
            database: Database::default(),
            tenants: Vec::new(),
            engine: EngineConfig::default(),
            workers: Workers::default(),
            sharding: Sharding::default(),
            cluster: ClusterConfig::default(),
            deployments: None,
        }
    }
}

/// `server`: the HTTP interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Keys that may make tenants and act for any of them.
    pub admin_keys: Vec<KeyConfig>,
    /// Most connections at a time; further ones wait in the listen queue.
    pub max_connections: usize,
    /// Longest that a client may ask to wait for an execution to end.
    #[serde(with = "units::duration")]
    pub max_wait: Duration,
    /// Longest that a client may take to send a request.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// How long requests and attempts in flight may take once the server is told to stop.
    #[serde(with = "units::duration")]
    pub shutdown_grace: Duration,
    /// Largest module that is accepted.
    #[serde(with = "units::bytes")]
    pub module_bytes: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            admin_keys: Vec::new(),
            // Some 10 KB each: 100 MB at most, and below the usual limit of open files.
            max_connections: 10_000,
            // Proxies in between tend to give up after 60 s of silence.
            max_wait: Duration::from_secs(50),
            request_timeout: Duration::from_secs(30),
            // Below the 30 s after which supervisors kill.
            shutdown_grace: Duration::from_secs(25),
            // The largest that people build today, Python components, have 18 MB.
            module_bytes: 64 << 20,
        }
    }
}

/// `tenants[]`: one customer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantConfig {
    /// Its id. Required.
    pub id: Option<TenantId>,
    /// The schema of the database that has its rows alone. Without it they stay where they
    /// are: in the shared tables, unless it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// What it may use.
    pub limits: TenantLimits,
    /// Its share beside the other tenants when all are busy.
    pub weight: Weight,
    /// What its activities may reach.
    pub policy: Policy,
    /// Keys to its executions. More can be made over HTTP.
    pub keys: Vec<KeyConfig>,
    /// What its activities are given where `parameters` say `secrets.NAME`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, TenantSecret>,
}

/// What a tenant may use. All of it can be lowered for one activity by its
/// manifest where it is about attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    /// Fuel of one attempt: about one unit an instruction, plus the price of host calls.
    pub fuel_per_attempt: u64,
    /// Fuel of all attempts together, refilled every second; what is over waits.
    pub fuel_per_second: u64,
    /// Memory and tables of one attempt.
    #[serde(with = "units::bytes")]
    pub memory_bytes: u64,
    /// Attempts that run at a time.
    pub concurrent_attempts: u32,
    /// JSON text of an input: of an execution, and of an attempt.
    #[serde(with = "units::bytes")]
    pub input_bytes: u64,
    /// JSON text of an attempt's output.
    #[serde(with = "units::bytes")]
    pub output_bytes: u64,
    /// Log lines of one attempt.
    #[serde(with = "units::bytes")]
    pub log_bytes: u64,
    /// Wall-clock time of one attempt.
    #[serde(with = "units::duration")]
    pub attempt_timeout: Duration,
    /// Executions that have not ended.
    pub open_executions: u64,
    /// Memory for those that do not sleep.
    #[serde(with = "units::bytes")]
    pub open_bytes: u64,
    /// Keys of the key-value capability.
    pub key_value_keys: u64,
    /// Keys and values of the key-value capability together.
    #[serde(with = "units::bytes")]
    pub key_value_bytes: u64,
    /// Modules and sources that are kept, of all versions.
    #[serde(with = "units::bytes")]
    pub uploaded_bytes: u64,
    /// Objects, the inputs and results of Maps.
    #[serde(with = "units::bytes")]
    pub object_bytes: u64,
}

impl Default for TenantLimits {
    fn default() -> Self {
        let attempt = Limits::default();
        Self {
            fuel_per_attempt: attempt.fuel_per_attempt,
            // What some ten cores burn. Tenants share by weight below it anyway;
            // this is for operators who sell fuel.
            fuel_per_second: 40_000_000_000,
            memory_bytes: attempt.memory_bytes,
            // More than the threads of a large machine; waiting on HTTP counts too.
            concurrent_attempts: 256,
            input_bytes: attempt.input_bytes,
            output_bytes: attempt.output_bytes,
            log_bytes: attempt.log_bytes,
            attempt_timeout: attempt.attempt_timeout(),
            // 1 GB of memory at the 4 KB that a sleeping execution takes.
            open_executions: 250_000,
            // About the same for as many that wait for attempts.
            open_bytes: 1 << 30,
            // Some 10 MB of index: it is for cursors and small results.
            key_value_keys: 100_000,
            // A hundred such tenants fit an ordinary disk, and its backups.
            key_value_bytes: 256 << 20,
            // Some hundred of the largest modules that people build, some
            // thousand of the usual ones; more is for operators to grant.
            uploaded_bytes: 4 << 30,
            // Some tens of millions of small results; a disk has room for many such tenants.
            object_bytes: 10 << 30,
        }
    }
}

impl TenantLimits {
    /// What one attempt may use.
    pub fn attempt(&self) -> Limits {
        Limits {
            fuel_per_attempt: self.fuel_per_attempt,
            memory_bytes: self.memory_bytes,
            input_bytes: self.input_bytes,
            output_bytes: self.output_bytes,
            log_bytes: self.log_bytes,
            attempt_timeout_ms: u64::try_from(self.attempt_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The names of limits that are zero, so that nothing could ever run.
    pub fn zeros(&self) -> Vec<&'static str> {
        [
            ("fuel_per_attempt", self.fuel_per_attempt),
            ("fuel_per_second", self.fuel_per_second),
            ("memory_bytes", self.memory_bytes),
            ("concurrent_attempts", self.concurrent_attempts.into()),
            ("input_bytes", self.input_bytes),
            ("output_bytes", self.output_bytes),
            ("attempt_timeout", self.attempt().attempt_timeout_ms),
            ("open_executions", self.open_executions),
            ("open_bytes", self.open_bytes),
            ("uploaded_bytes", self.uploaded_bytes),
        ]
        .into_iter()
        .filter_map(|(name, value)| (value == 0).then_some(name))
        .collect()
    }
}

/// A tenant's share of the workers: one with 2 gets twice the fuel of one with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub NonZeroU32);

impl Default for Weight {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

/// What a tenant's activities may reach, if their manifests name it too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Host interfaces; none by default.
    pub capabilities: BTreeSet<Capability>,
    /// Where requests may go.
    pub http: HttpPolicy,
}

/// Where a tenant's activities may send requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpPolicy {
    /// `api.example.com`, `*.example.com`, `*`; none by default.
    pub hosts: Vec<HostPattern>,
    /// Private addresses that may be reached all the same: `127.0.0.1:8080`.
    pub allow_private: Vec<PrivateHost>,
}

/// An API key: `hash` is what is kept of it, or `secret` says where it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyConfig {
    /// The public part. Required.
    pub id: String,
    /// What the key may do; of no use for `server.admin_keys`.
    pub role: Option<Role>,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// SHA-256 of the key, in hexadecimal, as `cascade key create` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Digest>,
    /// Where the key itself is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// Of `hash` or of what `secret` refers to; set when the file is read.
    #[serde(skip)]
    pub digest: Option<Digest>,
}

/// `engine`: what moves executions on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Shards that this process runs; may change between two starts.
    pub shards: u32,
    /// Requests that wait for one shard; beyond it clients are told to come back.
    pub queue: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            // One actor moves far more executions than SQLite's one writer
            // commits, and its batches are larger than those of two.
            shards: 1,
            // Some 100 ms of work.
            queue: 4096,
        }
    }
}

/// `workers`: what runs activities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// Threads that run activities.
    pub threads: u32,
}

impl Default for Workers {
    fn default() -> Self {
        Self { threads: cores() }
    }
}

/// `sharding`: the `shard` filter of expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sharding {
    /// `shard-0` to `shard-{n - 1}`. Open executions keep what they started with.
    pub shards: u32,
}

impl Default for Sharding {
    fn default() -> Self {
        // The language's own default, so that a file means the same everywhere.
        Self { shards: 10 }
    }
}

/// `cluster`: this process as one of several on one PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// URL where the other nodes reach the API of this one; made of the address that it
    /// listens on if absent, and of the machine's name where that is all addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Shards that a new database gets. Those that it has are kept.
    pub shards: u32,
    /// How long a node may be silent before others take what it held.
    #[serde(with = "units::duration")]
    pub lease_ttl: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            advertise: None,
            // Even parts for one to five nodes, nearly, and few enough to open in no time.
            shards: 16,
            // A node that died is replaced within three seconds, its shards opened included.
            lease_ttl: Duration::from_secs(2),
        }
    }
}

impl ClusterConfig {
    /// Shortest and longest lease: four renewals have to fit in, each a commit of the
    /// database; and nobody waits minutes for a node that is gone.
    const TTL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

    fn check(&self, path: &Path, reader: &mut Reader) {
        let (least, most) = Self::TTL;
        if !(least..=most).contains(&self.lease_ttl) {
            let message = "must be from 500ms to 1m".to_owned();
            reader.problem(&path.join("lease_ttl"), message);
        }
        if self.advertise.as_deref().is_some_and(|url| !is_url(url)) {
            let message = "must be `http://HOST:PORT` or `https://HOST:PORT`".to_owned();
            reader.problem(&path.join("advertise"), message);
        }
    }
}

/// Whether a text can be the URL of a server, less paths of requests.
pub fn is_url(text: &str) -> bool {
    let host = text
        .strip_prefix("http://")
        .or(text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['?', '#', '@', ' ']))
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn load(path: &FilePath) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let text = read_bounded(path, reader::MAX_FILE_BYTES as u64).map_err(|error| Problems {
            file: name.clone(),
            list: vec![Problem {
                place: None,
                path: Path::default(),
                message: format!("cannot be read: {error}"),
            }],
        })?;
        Self::parse(&name, &text, &|name| std::env::var(name).ok())
    }

    /// Reads a text; `file` is its name in messages, `variables` are those of the environment.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn parse(
        file: &str,
        text: &str,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        Self::read(file, text, Environment::Here(variables))
    }

    /// Reads a text that is for another machine: what it refers to is not looked up.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, as far as can be told here.
    pub fn parse_for_elsewhere(file: &str, text: &str) -> Result<Self, Problems> {
        Self::read(file, text, Environment::Elsewhere)
    }

    fn read(file: &str, text: &str, environment: Environment<'_>) -> Result<Self, Problems> {
        let mut reader = Reader::new(file, text)?;
        refuse_later(&mut reader);
        let config = reader.read::<Self>().map(|mut config| {
            config.check(&mut reader, environment);
            config
        });
        reader.finish()?;
        Ok(config.expect("a file without a problem has been read"))
    }

    /// The configuration in effect, defaults included, as a file that reads
    /// back. Secrets are references, so there is none in it.
    pub fn effective(&self) -> String {
        serde_yaml::to_string(&self.shown()).expect("all keys are text and all values plain")
    }

    /// The same without the password of a URL that was given on the command line.
    #[must_use]
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        for url in [&mut shown.database.url, &mut shown.database.primary] {
            *url = url.as_deref().map(redact_url);
        }
        for url in &mut shown.database.replicas {
            *url = redact_url(url);
        }
        shown
    }

    /// Where the database file is, if it is a file.
    pub fn database_path(&self) -> PathBuf {
        match &self.database.place {
            Place::Sqlite(path) => path.clone(),
            Place::Own | Place::Postgres(_) => self.data_dir.join("cascade.db"),
        }
    }

    fn check(&mut self, reader: &mut Reader, environment: Environment<'_>) {
        let root = Path::default();
        for (block, key, value, most) in [
            // A bucket belongs to one shard, and there are so many buckets.
            ("engine", "shards", self.engine.shards, 256),
            // Far beyond any machine; a slip would exhaust its memory.
            ("workers", "threads", self.workers.threads, 1024),
            ("sharding", "shards", self.sharding.shards, 1_000_000),
            // A bucket belongs to one shard; each is an actor and a row to renew.
            ("cluster", "shards", self.cluster.shards, 256),
        ] {
            if value == 0 || value > most {
                let path = root.join(block).join(key);
                reader.problem(&path, format!("must be from 1 to {most}, not {value}"));
            }
        }
        for (block, key, value) in [
            ("server", "max_connections", self.server.max_connections),
            ("engine", "queue", self.engine.queue),
        ] {
            if value == 0 {
                reader.problem(&root.join(block).join(key), "must be at least 1".to_owned());
            }
        }
        self.cluster.check(&root.join("cluster"), reader);
        let database = root.join("database");
        self.database.check(&database, reader, environment);
        let mut ids = BTreeSet::new();
        let admin = root.join("server").join("admin_keys");
        for (index, key) in self.server.admin_keys.iter_mut().enumerate() {
            key.check(&admin.join(index), true, &mut ids, reader, environment);
        }
        let (mut tenants, mut schemas) = (BTreeSet::new(), BTreeSet::new());
        for (index, tenant) in self.tenants.iter_mut().enumerate() {
            let path = root.join("tenants").join(index);
            match &tenant.id {
                None => reader.missing(&path, &["id"]),
                Some(id) if !tenants.insert(id.clone()) => {
                    reader.problem(&path.join("id"), format!("tenant `{id}` is there twice"));
                }
                Some(_) => {}
            }
            if let Some(schema) = &tenant.schema {
                let path = path.join("schema");
                if let Err(error) = schema.parse::<SchemaName>() {
                    reader.problem(&path, error.to_string());
                } else if !schemas.insert(schema.clone()) {
                    let message = format!("schema `{schema}` is another tenant's, too");
                    reader.problem(&path, message);
                } else if !self.database.may_have_schemas() {
                    let message = "a file has no schemas: use PostgreSQL (`database.url`)";
                    reader.problem(&path, message.to_owned());
                }
            }
            for zero in tenant.limits.zeros() {
                let message = "must be more than 0, or nothing could run".to_owned();
                reader.problem(&path.join("limits").join(zero), message);
            }
            for (key_index, key) in tenant.keys.iter_mut().enumerate() {
                let path = path.join("keys").join(key_index);
                key.check(&path, false, &mut ids, reader, environment);
            }
            let path = path.join("secrets");
            if tenant.secrets.len() > MAX_SECRETS {
                let message = format!("at most {MAX_SECRETS} secrets");
                reader.problem(&path, message);
            }
            for (name, secret) in &mut tenant.secrets {
                secret.check(name, &path.join(name.as_str()), reader, environment);
            }
        }
        if let Some(deployments) = &self.deployments {
            deployments.check(self, reader);
        }
    }
}

impl KeyConfig {
    /// Checks the key at `path` and finds its digest.
    fn check(
        &mut self,
        path: &Path,
        system: bool,
        ids: &mut BTreeSet<String>,
        reader: &mut Reader,
        environment: Environment<'_>,
    ) {
        if self.id.is_empty() {
            reader.missing(path, &["id"]);
        } else if !key::is_id(&self.id) {
            reader.problem(&path.join("id"), format!("must be {}", key::ID_RULE));
        } else if !ids.insert(self.id.clone()) {
            reader.problem(
                &path.join("id"),
                format!("key `{}` is there twice", self.id),
            );
        }
        match (system, self.role) {
            (false, None) => reader.missing(path, &["role"]),
            (true, Some(_)) => reader.problem(
                &path.join("role"),
                "keys of the server have no role: they may do everything".to_owned(),
            ),
            _ => {}
        }
        match (&self.hash, &self.secret) {
            (Some(hash), None) => self.digest = Some(*hash),
            (None, Some(secret)) => match resolve(secret, &self.id, environment) {
                Ok(digest) => self.digest = digest,
                Err(message) => reader.problem(&path.join("secret"), message),
            },
            (None, None) => reader.missing(path, &["hash", "secret"]),
            (Some(_), Some(_)) => {
                reader.problem(path, "`hash` and `secret` exclude each other".to_owned());
            }
        }
    }
}

/// The digest of the key that `secret` refers to, if it is looked up. No message holds its text.
fn resolve(
    secret: &SecretRef,
    id: &str,
    environment: Environment<'_>,
) -> Result<Option<Digest>, String> {
    let Some(text) = secret_text(secret, environment)? else {
        return Ok(None);
    };
    match key::parse(&text) {
        Some(found) if found == id => Ok(Some(Digest::of(&text))),
        Some(_) => Err(format!("what it refers to is not the key with id `{id}`")),
        None => Err(format!(
            "what it refers to is not a key: it must be {}",
            key::RULE
        )),
    }
}

/// What a reference leads to, if it is looked up. No message holds it.
fn secret_text(secret: &SecretRef, environment: Environment<'_>) -> Result<Option<String>, String> {
    // Far longer than any key, and any URL.
    const MAX_SECRET_FILE: u64 = 4096;
    secret.read(MAX_SECRET_FILE, environment)
}

/// Refuses what design and documentation promise for later, by name.
fn refuse_later(reader: &mut Reader) {
    let root = Path::default();
    for (block, about) in LATER {
        let message = format!("not supported by this version yet ({about})");
        reader.refuse(&root.join(block), &message);
    }
    for role in ["api", "engine", "workers"] {
        reader.refuse(
            &root.join("deployments").join(role),
            "not supported by this version yet: every server has all roles, see `deployments.server`",
        );
    }
    let tenants = root.join("tenants");
    for index in 0..reader.list_len(&tenants) {
        reader.refuse(
            &tenants.join(index).join("database"),
            "not supported by this version yet (tenants share a database; see `schema`)",
        );
    }
}

/// A text file of at most `limit` bytes.
fn read_bounded(path: &FilePath, limit: u64) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if file.take(limit + 1).read_to_string(&mut text)? as u64 > limit {
        let message = format!("it has more than {limit} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Cores that this process may use.
fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

#[cfg(test)]
mod tests;
