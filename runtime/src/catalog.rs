//! What tenants have uploaded and applied: activities and applications.
//!
//! Both are immutable versions in the store; this module keeps what executions
//! need in memory, compiled, and swaps it when something new arrives. Looking
//! up is a read lock and a few hashes. A crash loses nothing that was
//! acknowledged: the store has it, and [`Catalog::load`] compiles it again.
//!
//! What an activity may do is decided here, once: the tenant's policy, the
//! activity's manifest and the module's imports must all name it.

mod definitions;
mod manifest;
mod names;
mod others;
mod pause;
mod stock;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cascade_cdl::program::{Application, Program, Resource};
use cascade_cdl::{Diagnostic, Parsed, Source, TenantId, Timestamp};

use crate::change::to_its_end;
use crate::places::{Place, Places};
use crate::sandbox::{AdmitError, Sandbox};
use crate::schedules::InForce;
use crate::store::{self, ActivityVersion, ApplicationVersion, Store, Subject, VERSION_BYTES};
use crate::tenancy::{Tenancy, Tenant};
pub use manifest::{HttpManifest, LimitsManifest, Manifest};
pub use names::{NAME_RULE, etag, is_name};
pub use stock::{Activity, PowerDiff};
use stock::{Description, Stock, activity};

/// Applications of one tenant: each is compiled and in memory.
pub const MAX_APPLICATIONS: usize = 1_000;

/// Schedules of one tenant: each is in memory, with what waits for it.
pub const MAX_SCHEDULES: usize = 1_000;

/// Activities of one tenant.
pub const MAX_ACTIVITIES: usize = 1_000;

/// Versions of one activity: more would be hard to tell apart.
pub const MAX_VERSIONS: usize = 1_000;

/// Versions of all activities of a tenant. Each is in memory, with a KB or two
/// of imports and manifest; modules are on disk.
pub const MAX_ALL_VERSIONS: usize = 10_000;

/// Files that are compiled at a time, at least: each takes a core for up to
/// some hundred milliseconds, and with one or two, two tenants could take all.
const FEWEST_COMPILING: usize = 4;

/// How long a file waits to be compiled before its sender is told to come
/// back: it is in memory meanwhile.
const COMPILE_PATIENCE: Duration = Duration::from_secs(5);

/// Old application versions that are kept compiled: executions that still run them
/// come in waves (recovery, a timer's hour), and compiling costs a millisecond.
const MAX_OLD_PROGRAMS: usize = 256;

/// Why something cannot be uploaded, applied or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name.
    #[error("`{0}` is not a name: it must be {NAME_RULE}")]
    Name(String),
    /// A version name that the server gives itself.
    #[error(
        "version names such as `{0}` are given by the server; leave the version out, or choose another"
    )]
    CountedVersion(String),
    /// A version is there, with other content.
    #[error(
        "version `{version}` of `{name}` is there already, with another module or manifest; versions do not change"
    )]
    VersionTaken { name: String, version: String },
    /// The file is not valid CDL.
    #[error("the file has {} problems", diagnostics.len() + omitted)]
    Invalid {
        diagnostics: Vec<Diagnostic>,
        /// How many more there would be.
        omitted: usize,
    },
    /// The file names another application than the request.
    #[error("the file declares application `{declared}`, not `{requested}`")]
    OtherName { declared: String, requested: String },
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("the application has changed: its etag is {}", .0.as_deref().unwrap_or("gone"))]
    Changed(Option<String>),
    /// The module cannot be admitted.
    #[error(transparent)]
    Module(#[from] AdmitError),
    /// A manifest that cannot be met or read.
    #[error("{0}")]
    Manifest(String),
    /// At a bound.
    #[error("there are {count} {what} already, which is the limit")]
    TooMany { what: &'static str, count: usize },
    /// At a bound.
    #[error(
        "{kept} bytes of modules and sources are kept, and {more} more would exceed the limit of {limit} (tenants[].limits.uploaded_bytes)"
    )]
    TooManyBytes { kept: u64, more: u64, limit: u64 },
    /// Too many files are being compiled.
    #[error("too many files are being compiled")]
    Busy,
    /// No workflow of this name is in force, nor paused.
    #[error("there is no workflow `{application}/{workflow}`")]
    NoWorkflow {
        application: String,
        workflow: String,
    },
    /// No such tenant (any more).
    #[error("there is no tenant `{0}`")]
    NoTenant(TenantId),
    /// The store did not answer, or what it holds does not read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What must hold for an application to be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// `If-Match`: one of these etags is the newest version's; empty stands for `*`.
    Matches(Vec<String>),
    /// `If-None-Match: *`: there is none.
    Absent,
}

/// An application as it was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    pub name: String,
    pub version: u32,
    /// Strong: of version and source.
    pub etag: String,
    /// Whether this is a new version; the same source twice is one.
    pub created: bool,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// Activities that its workflows name and nobody has uploaded.
    pub missing_activities: Vec<Resource>,
}

/// An activity as it was uploaded.
#[derive(Debug, Clone)]
pub struct Uploaded {
    pub activity: Arc<Activity>,
    /// Whether this is a new version; the same module and manifest twice is one.
    pub created: bool,
    /// What it can do more and less than the version before it.
    pub diff: Option<PowerDiff>,
}

/// An application in force.
#[derive(Debug, Clone)]
pub struct ApplicationEntry {
    pub version: u32,
    pub etag: String,
    pub file: Arc<str>,
    pub source: Arc<str>,
    pub created_at: Timestamp,
    pub compiled: Arc<Application>,
}

impl ApplicationEntry {
    /// Its schedules.
    pub fn schedules(&self, tenant: &TenantId) -> InForce {
        InForce::of(tenant, &self.compiled, self.version, self.created_at)
    }
}

/// All tenants' activities and applications. Cheap to clone.
#[derive(Clone)]
pub struct Catalog(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    sandbox: Sandbox,
    tenancy: Tenancy,
    /// A writer swaps one in that is made already, so that nobody waits for
    /// more than that: every task that is scheduled looks something up here.
    stocks: RwLock<HashMap<TenantId, Arc<Stock>>>,
    /// Held by who makes a stock out of the one in force.
    swaps: Mutex<()>,
    compiling: Places,
    /// For what is not known here, and may be in the store.
    looking: Places,
    old: Mutex<OldPrograms>,
    /// Makes a change one step: check, store, swap. Compiling is outside of it.
    changes: tokio::sync::Mutex<()>,
}

/// Versions that have been superseded, compiled; the oldest arrival leaves first.
#[derive(Default)]
struct OldPrograms {
    by_version: HashMap<(TenantId, String, u32), Arc<Application>>,
    arrivals: VecDeque<(TenantId, String, u32)>,
}

impl Catalog {
    /// Loads what the store has, of all tenants.
    ///
    /// A source or description that does not read (any more) is left out and
    /// logged: one tenant's trouble must not keep the others' server down.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn load(
        store: Arc<dyn Store>,
        sandbox: Sandbox,
        tenancy: Tenancy,
    ) -> Result<Self, store::Error> {
        let mut stocks = HashMap::new();
        for tenant in tenancy.tenants() {
            let stock = read_stock(&*store, &tenant).await?;
            stocks.insert(tenant.id.clone(), Arc::new(stock));
        }
        Ok(Self(Arc::new(Inner {
            store,
            sandbox,
            tenancy,
            stocks: RwLock::new(stocks),
            swaps: Mutex::default(),
            compiling: Places::new(cores().max(FEWEST_COMPILING)),
            looking: Places::new(others::LOOKUPS),
            old: Mutex::default(),
            changes: tokio::sync::Mutex::new(()),
        })))
    }

    /// The newest version of a workflow.
    pub fn program(
        &self,
        tenant: &TenantId,
        application: &str,
        workflow: &str,
    ) -> Option<(u32, Arc<Program>)> {
        let stocks = self.0.stocks.read().unwrap_or_else(PoisonError::into_inner);
        let entry = stocks.get(tenant)?.applications.get(application)?;
        let program = entry.compiled.workflows.get(workflow)?;
        Some((entry.version, Arc::clone(program)))
    }

    /// A workflow as it was in some version.
    ///
    /// # Errors
    ///
    /// If the store does not answer, or the source does not compile any more.
    pub async fn program_at(
        &self,
        tenant: &TenantId,
        application: &str,
        version: u32,
        workflow: &str,
    ) -> Result<Option<Arc<Program>>, store::Error> {
        let compiled = self.application_at(tenant, application, version).await?;
        Ok(compiled.and_then(|compiled| compiled.workflows.get(workflow).cloned()))
    }

    /// What a resource stands for: the newest version, unless it names one.
    pub fn activity(&self, tenant: &TenantId, resource: &Resource) -> Option<Arc<Activity>> {
        let version = resource.version.as_deref();
        self.stock(tenant)?
            .activity(&resource.name, version)
            .cloned()
    }

    /// All versions of an activity, oldest first; empty if there is none.
    pub fn versions(&self, tenant: &TenantId, name: &str) -> Vec<Arc<Activity>> {
        let stock = self.stock(tenant);
        stock.map_or_else(Vec::new, |stock| stock.versions(name).to_vec())
    }

    /// The newest version of each activity, by name.
    pub fn activities(&self, tenant: &TenantId) -> Vec<Arc<Activity>> {
        let stock = self.stock(tenant);
        let newest = |stock: Arc<Stock>| {
            let lists = stock.activities.values();
            lists
                .filter_map(|versions| versions.last().cloned())
                .collect()
        };
        stock.map_or_else(Vec::new, newest)
    }

    /// An application in force.
    pub fn application(&self, tenant: &TenantId, name: &str) -> Option<Arc<ApplicationEntry>> {
        self.stock(tenant)?.applications.get(name).cloned()
    }

    /// All applications in force, by name.
    pub fn applications(&self, tenant: &TenantId) -> Vec<Arc<ApplicationEntry>> {
        let stock = self.stock(tenant);
        stock.map_or_else(Vec::new, |stock| {
            stock.applications.values().cloned().collect()
        })
    }

    /// Activities that an application's workflows name and nobody has uploaded.
    pub fn missing_activities(
        &self,
        tenant: &TenantId,
        application: &Application,
    ) -> Vec<Resource> {
        let stock = self.stock(tenant);
        let there = |resource: &Resource| {
            let version = resource.version.as_deref();
            (stock.as_ref()).is_some_and(|stock| stock.activity(&resource.name, version).is_some())
        };
        let workflows = application.workflows.values();
        let missing: BTreeSet<&Resource> = workflows
            .flat_map(|program| program.resources())
            .filter(|resource| !there(resource))
            .collect();
        missing.into_iter().cloned().collect()
    }

    /// What the front end makes of a source, away from the threads that serve
    /// requests.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`], if the tenant or all together have too many at a time.
    pub async fn parse(
        &self,
        tenant: &TenantId,
        file: &str,
        source: Bytes,
    ) -> Result<Parsed, Error> {
        let place = self.0.compiling.take_within(tenant, COMPILE_PATIENCE).await;
        let place = place.ok_or(Error::Busy)?;
        Ok(parse(file, source, Some(place)).await)
    }

    /// An application of this name, compiled and not put in force, with warnings.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with all problems of the source, and as the variants say.
    pub async fn compile(
        &self,
        tenant: &TenantId,
        name: &str,
        file: &str,
        source: Bytes,
    ) -> Result<(Arc<Application>, Vec<Diagnostic>), Error> {
        let parsed = self.parse(tenant, file, source).await?;
        let (compiled, diagnostics) = valid(parsed)?;
        if compiled.name != name {
            return Err(Error::OtherName {
                declared: compiled.name.clone(),
                requested: name.to_owned(),
            });
        }
        Ok((compiled, diagnostics))
    }

    /// Puts an application in force. Executions that run go on with the version
    /// that they run.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with all problems of the source, and as the variants say.
    pub async fn apply(
        &self,
        tenant: &TenantId,
        name: &str,
        file: &str,
        source: Bytes,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Applied, Error> {
        if !is_name(name) {
            return Err(Error::Name(clip(name)));
        }
        let (compiled, diagnostics) = self.compile(tenant, name, file, source.clone()).await?;
        let row = ApplicationVersion {
            name: name.to_owned(),
            version: 0, // the store counts
            file: file.to_owned(),
            source: String::from_utf8_lossy(&source).into_owned(), // it compiles, so nothing is lost
            created_at: now,
        };
        self.look_for(tenant, &Subject::Application(name.to_owned()))
            .await?;
        let (this, owner) = (self.clone(), tenant.clone());
        let precondition = precondition.clone();
        let (entry, created) = to_its_end(async move {
            let _change = this.0.changes.lock().await;
            this.put_application(&owner, row, compiled, &precondition)
                .await
        })
        .await?;
        Ok(Applied {
            name: name.to_owned(),
            version: entry.version,
            etag: entry.etag.clone(),
            created,
            diagnostics,
            missing_activities: self.missing_activities(tenant, &entry.compiled),
        })
    }

    /// Takes a module in as a version of an activity: `v1`, `v2`, ... unless
    /// the author names it.
    ///
    /// # Errors
    ///
    /// [`Error::Module`] if it cannot be run, and as the variants say.
    pub async fn upload(
        &self,
        tenant: &TenantId,
        name: &str,
        version: Option<&str>,
        manifest: Manifest,
        wasm: Bytes,
        now: Timestamp,
    ) -> Result<Uploaded, Error> {
        for given in [Some(name), version].into_iter().flatten() {
            if !is_name(given) {
                return Err(Error::Name(clip(given)));
            }
        }
        if let Some(version) = version.filter(|version| names::is_counted(version)) {
            return Err(Error::CountedVersion(version.to_owned()));
        }
        manifest.check().map_err(Error::Manifest)?;
        self.tenant(tenant)?;
        self.look_for(tenant, &Subject::Activity(name.to_owned()))
            .await?;
        let info = self.0.sandbox.admit(tenant, wasm.clone()).await?;
        let digest: Arc<str> = info.digest.as_str().into();
        let description = Description { manifest, info };
        let row = ActivityVersion {
            name: name.to_owned(),
            version: version.unwrap_or_default().to_owned(),
            number: 0, // the store counts
            digest: description.info.digest.clone(),
            description: description.to_json(),
            created_at: now,
        };
        let (this, owner) = (self.clone(), tenant.clone());
        to_its_end(async move {
            let _change = this.0.changes.lock().await;
            let uploaded = this.put_activity(&owner, row, &description, wasm).await;
            if uploaded.is_err() && !this.holds(&owner, &digest) {
                this.forget(&owner, digest).await;
            }
            uploaded
        })
        .await
    }

    /// Stores and swaps in what was uploaded, unless it is there.
    async fn put_activity(
        &self,
        tenant: &TenantId,
        row: ActivityVersion,
        description: &Description,
        wasm: Bytes,
    ) -> Result<Uploaded, Error> {
        let owner = self.tenant(tenant)?;
        let name = row.name.clone();
        let versions = self.versions(tenant, &name);
        let before = versions.last();
        // The same upload once more, by name or as the newest, is no new version.
        let same = if row.version.is_empty() {
            before.filter(|newest| description.is_of(newest))
        } else {
            versions.iter().find(|known| *known.version == *row.version)
        };
        if let Some(known) = same {
            if !description.is_of(known) {
                return Err(taken(&name, &known.version));
            }
            let older = versions.iter().rfind(|other| other.number < known.number);
            return Ok(Uploaded {
                activity: Arc::clone(known),
                created: false,
                diff: older.map(|older| PowerDiff::between(older, known)),
            });
        }
        let stock = self.stock(tenant);
        let stock = stock.ok_or_else(|| Error::NoTenant(tenant.clone()))?;
        check_versions(&stock, &name)?;
        let module = if stock.has_module(&row.digest) {
            0
        } else {
            wasm.len() as u64
        };
        let more = module + row.description.len() as u64 + VERSION_BYTES;
        check_bytes(&stock, more)?;
        self.0.store.put_module(tenant, &row.digest, wasm).await?;
        let stored = self.0.store.put_activity(tenant, row).await?;
        let uploaded = activity(&owner, &stored).map_err(store::Error::Damaged)?;
        if !description.is_of(&uploaded) {
            return Err(taken(&name, &uploaded.version)); // another process was first
        }
        let uploaded = Arc::new(uploaded);
        self.change(&owner, |stock| {
            stock.add_activity(Arc::clone(&uploaded));
            stock.bytes += more;
        });
        Ok(Uploaded {
            diff: before.map(|before| PowerDiff::between(before, &uploaded)),
            activity: uploaded,
            created: true,
        })
    }

    /// Whether any version of any activity is this module.
    fn holds(&self, tenant: &TenantId, digest: &str) -> bool {
        self.stock(tenant)
            .is_some_and(|stock| stock.has_module(digest))
    }

    /// Removes what was compiled of a module that became no version.
    async fn forget(&self, tenant: &TenantId, digest: Arc<str>) {
        let (sandbox, owner) = (self.0.sandbox.clone(), tenant.clone());
        let forget = move || sandbox.forget(&owner, &digest);
        let forgotten = tokio::task::spawn_blocking(forget).await;
        if let Ok(Err(error)) = forgotten {
            tracing::warn!(tenant.id = %tenant, %error, "cannot remove the artifact of a refused upload");
        }
    }

    /// Stores and swaps a compiled application, if `precondition` holds.
    async fn put_application(
        &self,
        tenant: &TenantId,
        row: ApplicationVersion,
        compiled: Arc<Application>,
        precondition: &Precondition,
    ) -> Result<(Arc<ApplicationEntry>, bool), Error> {
        let owner = self.tenant(tenant)?;
        let current = self.application(tenant, &row.name);
        let etag = current.as_ref().map(|current| current.etag.clone());
        let holds = match (precondition, &etag) {
            (Precondition::None, _) | (Precondition::Absent, None) => true,
            (Precondition::Matches(etags), Some(etag)) => etags.is_empty() || etags.contains(etag),
            (Precondition::Absent, Some(_)) | (Precondition::Matches(_), None) => false,
        };
        if !holds {
            return Err(Error::Changed(etag));
        }
        if let Some(current) = &current
            && *current.source == *row.source
        {
            return Ok((Arc::clone(current), false));
        }
        let count = self.applications(tenant).len();
        if current.is_none() && count >= MAX_APPLICATIONS {
            return Err(Error::TooMany {
                what: "applications",
                count,
            });
        }
        let others = self.applications(tenant);
        let others = others
            .iter()
            .filter(|other| other.compiled.name != row.name);
        let count: usize = others.map(|other| other.compiled.schedules.len()).sum();
        let more = compiled.schedules.len();
        if more > 0 && count + more > MAX_SCHEDULES {
            let what = "schedules in other applications";
            return Err(Error::TooMany { what, count });
        }
        let more = row.source.len() as u64 + VERSION_BYTES;
        if let Some(stock) = self.stock(tenant) {
            check_bytes(&stock, more)?;
        }
        let expected = current.as_ref().map_or(0, |current| current.version);
        let expected = (*precondition != Precondition::None).then_some(expected);
        let name = row.name.clone();
        let stored = match self.0.store.put_application(tenant, row, expected).await? {
            Ok(stored) => stored,
            Err(newest) => return Err(Error::Changed(Some(format!("that of version {newest}")))),
        };
        let entry = Arc::new(entry(stored, compiled));
        self.change(&owner, |stock| {
            stock.add_application(&name, Arc::clone(&entry));
            stock.bytes += more;
        });
        Ok((entry, true))
    }

    async fn application_at(
        &self,
        tenant: &TenantId,
        name: &str,
        version: u32,
    ) -> Result<Option<Arc<Application>>, store::Error> {
        if let Some(entry) = self.application(tenant, name)
            && entry.version == version
        {
            return Ok(Some(Arc::clone(&entry.compiled)));
        }
        let key = (tenant.clone(), name.to_owned(), version);
        if let Some(compiled) = self.old().by_version.get(&key) {
            return Ok(Some(Arc::clone(compiled)));
        }
        let Some(row) = self
            .0
            .store
            .application(tenant, name, Some(version))
            .await?
        else {
            return Ok(None);
        };
        let entry = compile_row(row).await.map_err(|error| {
            store::Error::Damaged(format!("application {name} version {version}: {error}"))
        })?;
        let mut old = self.old();
        if old
            .by_version
            .insert(key.clone(), Arc::clone(&entry.compiled))
            .is_none()
        {
            old.arrivals.push_back(key);
        }
        if old.arrivals.len() > MAX_OLD_PROGRAMS
            && let Some(oldest) = old.arrivals.pop_front()
        {
            old.by_version.remove(&oldest);
        }
        Ok(Some(entry.compiled))
    }

    fn tenant(&self, id: &TenantId) -> Result<Arc<Tenant>, Error> {
        self.0
            .tenancy
            .tenant(id)
            .ok_or_else(|| Error::NoTenant(id.clone()))
    }

    /// A tenant's stock, made anew if the tenant's policy or limits have changed.
    fn stock(&self, id: &TenantId) -> Option<Arc<Stock>> {
        let tenant = self.0.tenancy.tenant(id)?;
        let stock = {
            let stocks = self.0.stocks.read().unwrap_or_else(PoisonError::into_inner);
            stocks.get(id).cloned()
        };
        match stock {
            Some(stock) if Arc::ptr_eq(&stock.tenant, &tenant) => Some(stock),
            Some(_) => Some(self.change(&tenant, |_| ())),
            None => Some(Arc::new(Stock::new(tenant))),
        }
    }

    /// Swaps a tenant's stock for one with a change.
    fn change(&self, tenant: &Arc<Tenant>, change: impl FnOnce(&mut Stock)) -> Arc<Stock> {
        let swaps = &self.0.swaps;
        let _swap = swaps.lock().unwrap_or_else(PoisonError::into_inner);
        let known = {
            let stocks = self.0.stocks.read().unwrap_or_else(PoisonError::into_inner);
            stocks.get(&tenant.id).cloned()
        };
        let mut stock = match known {
            Some(stock) => stock.of(tenant),
            None => Stock::new(Arc::clone(tenant)),
        };
        change(&mut stock);
        let stock = Arc::new(stock);
        let stocks = &self.0.stocks;
        let mut stocks = stocks.write().unwrap_or_else(PoisonError::into_inner);
        let old = stocks.insert(tenant.id.clone(), Arc::clone(&stock));
        drop(stocks);
        drop(old); // it may be the last of it, and large
        stock
    }

    fn old(&self) -> std::sync::MutexGuard<'_, OldPrograms> {
        self.0.old.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a version of an activity that there is no room for.
fn check_versions(stock: &Stock, name: &str) -> Result<(), Error> {
    let too_many = |what, count| Err(Error::TooMany { what, count });
    let versions = stock.versions(name).len();
    let (activities, all) = (stock.activities.len(), stock.version_count());
    if versions == 0 && activities >= MAX_ACTIVITIES {
        return too_many("activities", activities);
    }
    if versions >= MAX_VERSIONS {
        return too_many("versions", versions);
    }
    if all >= MAX_ALL_VERSIONS {
        return too_many("versions of activities", all);
    }
    Ok(())
}

/// Refuses what the tenant may not have kept.
fn check_bytes(stock: &Stock, more: u64) -> Result<(), Error> {
    let (kept, limit) = (stock.bytes, stock.tenant.limits.uploaded_bytes);
    if kept.saturating_add(more) > limit {
        return Err(Error::TooManyBytes { kept, more, limit });
    }
    Ok(())
}

/// What the store has of a tenant.
async fn read_stock(store: &dyn Store, tenant: &Arc<Tenant>) -> Result<Stock, store::Error> {
    let mut stock = Stock::new(Arc::clone(tenant));
    stock.bytes = store.uploaded_bytes(&tenant.id).await?;
    for row in store.activities(&tenant.id).await? {
        match activity(tenant, &row) {
            Ok(activity) => stock.add_activity(activity),
            Err(error) => tracing::error!(
                tenant.id = %tenant.id, activity.name = row.name, version = row.version, error,
                "an activity cannot be used"
            ),
        }
    }
    for row in store.applications(&tenant.id).await? {
        let (name, version) = (row.name.clone(), row.version);
        match compile_row(row).await {
            Ok(entry) => stock.add_application(&name, entry),
            Err(error) => tracing::error!(
                tenant.id = %tenant.id, application = name, version, %error,
                "an application cannot be used"
            ),
        }
    }
    for paused in store.paused_workflows(&tenant.id).await? {
        stock.pause(Arc::new(paused));
    }
    Ok(stock)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

async fn parse(file: &str, source: Bytes, place: Option<Place>) -> Parsed {
    let file = file.to_owned();
    let parsed = tokio::task::spawn_blocking(move || {
        let _place = place; // it is held even if nobody waits any more
        cascade_cdl::parse(&Source {
            name: &file,
            bytes: &source,
        })
    });
    parsed
        .await
        .expect("the front end does not panic, and the server outlives it")
}

/// The application of a source that is valid, and its warnings.
fn valid(parsed: Parsed) -> Result<(Arc<Application>, Vec<Diagnostic>), Error> {
    match parsed.application {
        Some(application) => Ok((Arc::new(application), parsed.diagnostics)),
        None => Err(Error::Invalid {
            diagnostics: parsed.diagnostics,
            omitted: parsed.omitted,
        }),
    }
}

/// Compiles what is stored.
async fn compile_row(row: ApplicationVersion) -> Result<ApplicationEntry, Error> {
    let source = Bytes::copy_from_slice(row.source.as_bytes());
    let (compiled, _) = valid(parse(&row.file, source, None).await)?;
    Ok(entry(row, compiled))
}

fn entry(row: ApplicationVersion, compiled: Arc<Application>) -> ApplicationEntry {
    ApplicationEntry {
        version: row.version,
        etag: names::etag(row.version, &row.source),
        file: row.file.into(),
        source: row.source.into(),
        created_at: row.created_at,
        compiled,
    }
}

fn taken(name: &str, version: &str) -> Error {
    Error::VersionTaken {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

/// As much of a refused name as a message should repeat.
fn clip(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
