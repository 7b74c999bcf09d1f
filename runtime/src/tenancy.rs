//! Who may use the server, and what for: tenants, their limits and policy, API
//! keys and roles.
//!
//! Tenants come from `cascade.yaml`, which wins, and from the store, where those
//! made over HTTP are. All of them are in memory; a change swaps the map, so a
//! reader never waits for a writer. Keys of the file are in memory too, those of
//! the store are looked up once, remembered, and asked for again now and then;
//! so who guesses keys, or keeps the store busy, is in the way of new keys at
//! most. A crash loses nothing: what was acknowledged is in the store.
//!
//! Two kinds of administration are kept apart: an `admin` key governs the keys
//! of its own tenant; making tenants, and acting for any of them, takes a key of
//! the server itself (`server.admin_keys`), which nobody can make over HTTP.

pub mod key;
mod others;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cascade_cdl::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::change::to_its_end;
use crate::config::{Config, KeyConfig, Policy, TenantConfig, TenantLimits, Weight};
use crate::store::{self, ApiKey, Home, Moved, Store, TenantRow};
pub use key::Digest;

/// How long a key of the store is taken for valid without asking again. Then
/// it still is, until the answer is here. A key that is revoked is forgotten at once
/// here, and elsewhere as soon as the store tells; while it does not tell, none is
/// remembered ([`Tenancy::doubt_keys`]).
const KEY_LIFETIME: Duration = Duration::from_secs(30);

/// Keys that are remembered: 200 bytes each. Beyond it, the store is asked.
const MAX_REMEMBERED: usize = 20_000;

/// Lookups of unknown keys at a time, so that guessing costs the guesser and
/// not the database.
const MAX_LOOKUPS: usize = 4;

/// How long an unknown key waits for its lookup. One takes a millisecond, so
/// who has a good key gets in even while somebody tries thousands a second.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);

/// Known keys that are asked for again at a time: nobody waits for them, so
/// they need not keep the store's readers busy.
const MAX_REFRESHES: usize = 2;

/// Keys that one tenant may have made over HTTP: enough for one each for its
/// services, few enough to list on a page.
pub const MAX_KEYS: usize = 1_000;

/// Tenants made over HTTP. All are in memory, some hundred bytes each.
pub const MAX_TENANTS: usize = 10_000;

/// Longest label of a key, in bytes: one line.
pub const MAX_LABEL: usize = 200;

/// What a key may do; each role may do what those before it may.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads executions, applications and activities.
    Viewer,
    /// Starts, cancels and retries executions.
    Operator,
    /// Uploads activities and applies applications.
    Author,
    /// Makes and revokes keys of its tenant.
    Admin,
}

impl Role {
    /// The name, as in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Author => "author",
            Self::Admin => "admin",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Author, Self::Admin]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// One customer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// What it may use.
    pub limits: TenantLimits,
    /// What its activities may reach.
    pub policy: Policy,
    /// Its share beside the others.
    pub weight: Weight,
    /// Whether it stands in `cascade.yaml` and can be changed there only.
    pub configured: bool,
}

/// What can be set of a tenant, as it is stored and sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What it may use.
    pub limits: TenantLimits,
    /// Its share beside the others.
    pub weight: Weight,
    /// What its activities may reach.
    pub policy: Policy,
}

/// Whose key a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A tenant's.
    Tenant {
        tenant: TenantId,
        role: Role,
        key: Arc<str>,
    },
    /// The server's own: may make tenants and act for any.
    Server { key: Arc<str> },
}

/// Why a key is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// Malformed, unknown, revoked, or its tenant is gone. Which of them is not told.
    #[error("the API key is not valid")]
    Unknown,
    /// Too many unknown keys are being looked up.
    #[error("too many unknown keys are being looked up")]
    Busy,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why a tenant or a key cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It stands in `cascade.yaml`.
    #[error("tenant `{0}` is defined in cascade.yaml; change it there")]
    Configured(TenantId),
    /// Not there.
    #[error("there is no tenant `{0}`")]
    NoTenant(TenantId),
    /// Limits that are zero.
    #[error("`limits.{0}` must be more than 0, or nothing could run")]
    ZeroLimit(&'static str),
    /// A label that is too long or holds control characters.
    #[error("a label has at most {MAX_LABEL} bytes and no control characters")]
    Label,
    /// At a bound.
    #[error("there are {0} already, which is the limit")]
    TooMany(usize),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A key that was just made: the only time that its text is known.
#[derive(Clone)]
pub struct NewKey {
    /// What is kept of it.
    pub key: ApiKey,
    /// The key itself.
    pub text: String,
}

/// All tenants and keys. Cheap to clone.
#[derive(Clone)]
pub struct Tenancy(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    tenants: RwLock<Arc<HashMap<TenantId, Arc<Tenant>>>>,
    /// Keys of the file, by id.
    configured_keys: HashMap<String, (Digest, Principal)>,
    /// Secrets of the file, by tenant and name.
    secrets: HashMap<TenantId, HashMap<String, Arc<str>>>,
    /// Where the file says that tenants live.
    settled: BTreeMap<TenantId, Home>,
    remembered: Mutex<Remembered>,
    lookups: Semaphore,
    refreshes: Semaphore,
    /// Makes a change of tenants or keys one step: check, store, swap.
    changes: tokio::sync::Mutex<()>,
}

/// Keys of the store that were looked up.
#[derive(Default)]
struct Remembered {
    keys: HashMap<String, Known>,
    /// Counts revocations: a lookup that was under way during one is not remembered.
    generation: u64,
    /// Whether nothing is to be remembered.
    in_doubt: bool,
}

/// A key of the store.
struct Known {
    digest: Digest,
    principal: Principal,
    since: Instant,
    /// Whether it is being asked for again.
    refreshing: bool,
}

impl Tenancy {
    /// Takes the tenants and keys of `config` and loads those of `store`.
    ///
    /// # Errors
    ///
    /// If the store does not answer, or what it holds does not read.
    pub async fn load(config: &Config, store: Arc<dyn Store>) -> Result<Self, store::Error> {
        let mut tenants = HashMap::new();
        for row in store.tenants().await? {
            let tenant = others::read(row)?;
            tenants.insert(tenant.id.clone(), Arc::new(tenant));
        }
        let mut configured_keys = HashMap::new();
        let mut secrets = HashMap::new();
        let mut settled = BTreeMap::new();
        for tenant in &config.tenants {
            let Some(id) = &tenant.id else { continue };
            let named = tenant.secrets.iter();
            let named =
                named.filter_map(|(name, secret)| Some((name.clone(), secret.value()?.clone())));
            secrets.insert(id.clone(), named.collect());
            if let Some(Ok(schema)) = tenant.schema.as_ref().map(|name| name.parse()) {
                settled.insert(id.clone(), Home::Schema { schema });
            }
            tenants.insert(id.clone(), Arc::new(configured(id, tenant)));
            for key in &tenant.keys {
                if let (Some(digest), Some(role)) = (key.digest, key.role) {
                    let principal = Principal::Tenant {
                        tenant: id.clone(),
                        role,
                        key: key.id.as_str().into(),
                    };
                    configured_keys.insert(key.id.clone(), (digest, principal));
                }
            }
        }
        for KeyConfig { id, digest, .. } in &config.server.admin_keys {
            if let Some(digest) = digest {
                let principal = Principal::Server {
                    key: id.as_str().into(),
                };
                configured_keys.insert(id.clone(), (*digest, principal));
            }
        }
        Ok(Self(Arc::new(Inner {
            store,
            tenants: RwLock::new(Arc::new(tenants)),
            configured_keys,
            secrets,
            settled,
            remembered: Mutex::default(),
            lookups: Semaphore::new(MAX_LOOKUPS),
            refreshes: Semaphore::new(MAX_REFRESHES),
            changes: tokio::sync::Mutex::new(()),
        })))
    }

    /// One tenant.
    pub fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.snapshot().get(id).cloned()
    }

    /// A secret of a tenant, by its name.
    pub fn secret(&self, tenant: &TenantId, name: &str) -> Option<Arc<str>> {
        self.0.secrets.get(tenant)?.get(name).cloned()
    }

    /// All tenants, by id.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        let mut tenants: Vec<_> = self.snapshot().values().cloned().collect();
        tenants.sort_by(|a, b| a.id.cmp(&b.id));
        tenants
    }

    /// Makes a tenant, or changes one; takes effect at once.
    ///
    /// # Errors
    ///
    /// [`Error`], if the settings cannot be, or the tenant is the file's.
    pub async fn put(
        &self,
        id: TenantId,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Arc<Tenant>, Error> {
        if let Some(zero) = settings.limits.zeros().first() {
            return Err(Error::ZeroLimit(zero));
        }
        let this = self.clone();
        to_its_end(async move { this.put_checked(id, settings, now).await }).await
    }

    async fn put_checked(
        &self,
        id: TenantId,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Arc<Tenant>, Error> {
        let _change = self.0.changes.lock().await;
        let tenants = self.snapshot();
        match tenants.get(&id) {
            Some(tenant) if tenant.configured => return Err(Error::Configured(id)),
            None if tenants.len() >= MAX_TENANTS => return Err(Error::TooMany(tenants.len())),
            _ => {}
        }
        let row = TenantRow {
            id: id.clone(),
            settings: serde_json::to_string(&settings).expect("plain values with text keys"),
            created_at: now,
        };
        self.0.store.put_tenant(row).await?;
        let tenant = Arc::new(settings.tenant(id));
        self.swap_in(&tenant);
        Ok(tenant)
    }

    /// Where the rows of a tenant are.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn home(&self, tenant: &TenantId) -> Result<Home, store::Error> {
        self.0.store.home(tenant).await
    }

    /// Moves the rows of a tenant, while it is served; goes on if nobody waits for it.
    ///
    /// # Errors
    ///
    /// [`Error`], if there is no such tenant, or `cascade.yaml` says where it is to live; and
    /// as [`Store::move_home`].
    pub async fn move_to(&self, id: TenantId, to: Home) -> Result<Moved, Error> {
        if self.look_for(&id).await?.is_none() {
            return Err(Error::NoTenant(id));
        }
        if self.0.settled.get(&id).is_some_and(|home| *home != to) {
            return Err(Error::Configured(id));
        }
        let store = Arc::clone(&self.0.store);
        Ok(to_its_end(async move { store.move_home(&id, &to).await }).await?)
    }

    /// Sees to it that tenants live where `cascade.yaml` says.
    ///
    /// # Errors
    ///
    /// As [`Store::move_home`].
    pub async fn settle(&self) -> Result<(), store::Error> {
        for (tenant, home) in &self.0.settled {
            let moved = self.0.store.move_home(tenant, home).await?;
            if moved.from != moved.to {
                tracing::info!(%tenant, from = %moved.from, to = %moved.to, "tenant was moved");
            }
        }
        Ok(())
    }

    /// Whose key `text` is.
    ///
    /// # Errors
    ///
    /// [`Denied`]; malformed, unknown and revoked keys look the same.
    pub async fn authenticate(&self, text: &str) -> Result<Principal, Denied> {
        let id = key::parse(text).ok_or(Denied::Unknown)?;
        let digest = Digest::of(text);
        if let Some((known, principal)) = self.0.configured_keys.get(id) {
            return digest
                .matches(known)
                .then(|| principal.clone())
                .ok_or(Denied::Unknown);
        }
        let generation = {
            let mut remembered = self.remembered();
            let generation = remembered.generation;
            if let Some(known) = remembered.keys.get_mut(id) {
                if !digest.matches(&known.digest) {
                    return Err(Denied::Unknown);
                }
                if known.since.elapsed() >= KEY_LIFETIME && !known.refreshing {
                    known.refreshing = true;
                    tokio::spawn(self.clone().refresh(id.to_owned(), digest, generation));
                }
                return Ok(known.principal.clone());
            }
            generation
        };
        let lookup = tokio::time::timeout(LOOKUP_PATIENCE, self.0.lookups.acquire()).await;
        let Ok(Ok(_lookup)) = lookup else {
            return Err(Denied::Busy);
        };
        self.look_up(id, digest, generation).await
    }

    /// Makes a key of a tenant.
    ///
    /// # Errors
    ///
    /// [`Error`], if the tenant is not there or has too many keys.
    pub async fn make_key(
        &self,
        tenant: &TenantId,
        role: Role,
        label: String,
        now: Timestamp,
    ) -> Result<NewKey, Error> {
        if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(Error::Label);
        }
        if self.look_for(tenant).await?.is_none() {
            return Err(Error::NoTenant(tenant.clone()));
        }
        let _change = self.0.changes.lock().await;
        let count = self.0.store.keys(tenant).await?.len();
        if count >= MAX_KEYS {
            return Err(Error::TooMany(count));
        }
        let (id, text) = key::generate();
        let key = ApiKey {
            id,
            tenant: tenant.clone(),
            hash: Digest::of(&text).to_string(),
            role: role.name().to_owned(),
            label,
            created_at: now,
        };
        self.0.store.put_key(key.clone()).await?;
        Ok(NewKey { key, text })
    }

    /// Keys of a tenant that were made over HTTP.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn keys(&self, tenant: &TenantId) -> Result<Vec<ApiKey>, store::Error> {
        self.0.store.keys(tenant).await
    }

    /// Revokes a key, at once; says whether it was there.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn revoke(&self, tenant: &TenantId, id: &str) -> Result<bool, store::Error> {
        let (this, tenant, id) = (self.clone(), tenant.clone(), id.to_owned());
        to_its_end(async move {
            let _change = this.0.changes.lock().await;
            let deleted = this.0.store.delete_key(&tenant, &id).await?;
            let mut remembered = this.remembered();
            remembered.generation += 1;
            let owner = remembered.keys.get(&id).map(|known| &known.principal);
            if matches!(owner, Some(Principal::Tenant { tenant: owner, .. }) if *owner == tenant) {
                remembered.keys.remove(&id);
            }
            Ok(deleted)
        })
        .await
    }

    /// Asks again for a key that is remembered.
    async fn refresh(self, id: String, digest: Digest, generation: u64) {
        let Ok(_refresh) = self.0.refreshes.acquire().await else {
            return; // nobody closes it
        };
        match self.look_up(&id, digest, generation).await {
            Ok(_) => {}
            Err(Denied::Unknown) => drop(self.remembered().keys.remove(&id)),
            Err(error) => {
                tracing::warn!(key = id, %error, "a key could not be asked for again");
            }
        }
        if let Some(known) = self.remembered().keys.get_mut(&id) {
            known.refreshing = false;
        }
    }

    async fn look_up(
        &self,
        id: &str,
        digest: Digest,
        generation: u64,
    ) -> Result<Principal, Denied> {
        let found = self.0.store.key_by_hash(&digest.to_string()).await?;
        let key = found.filter(|key| key.id == id).ok_or(Denied::Unknown)?;
        let role = Role::of_name(&key.role)
            .ok_or_else(|| store::Error::Damaged(format!("key {id} has role `{}`", key.role)))?;
        if self.look_for(&key.tenant).await?.is_none() {
            return Err(Denied::Unknown);
        }
        let principal = Principal::Tenant {
            tenant: key.tenant,
            role,
            key: id.into(),
        };
        let mut remembered = self.remembered();
        if remembered.generation == generation && !remembered.in_doubt {
            if remembered.keys.len() >= MAX_REMEMBERED {
                remembered
                    .keys
                    .retain(|known, it| known == id || it.since.elapsed() < KEY_LIFETIME);
            }
            if remembered.keys.len() < MAX_REMEMBERED || remembered.keys.contains_key(id) {
                let known = Known {
                    digest,
                    principal: principal.clone(),
                    since: Instant::now(),
                    refreshing: false,
                };
                remembered.keys.insert(id.to_owned(), known);
            }
        }
        Ok(principal)
    }

    fn snapshot(&self) -> Arc<HashMap<TenantId, Arc<Tenant>>> {
        let tenants = self
            .0
            .tenants
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&tenants)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Principal {
    /// Whose it is; of no tenant if it is the server's.
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant { tenant, .. } => Some(tenant),
            Self::Server { .. } => None,
        }
    }
}

impl Settings {
    fn tenant(self, id: TenantId) -> Tenant {
        Tenant {
            id,
            limits: self.limits,
            policy: self.policy,
            weight: self.weight,
            configured: false,
        }
    }
}

impl Digest {
    /// Equality that takes the same time wherever the difference is.
    fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

fn configured(id: &TenantId, config: &TenantConfig) -> Tenant {
    Tenant {
        id: id.clone(),
        limits: config.limits,
        policy: config.policy.clone(),
        weight: config.weight,
        configured: true,
    }
}

#[cfg(test)]
mod tests;
