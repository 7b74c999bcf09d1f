//! One tenant's activities and applications, as executions need them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cascade_cdl::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ApplicationEntry, Manifest};
use crate::sandbox::{Capability, Grants, Limits, ModuleInfo, is_pure};
use crate::store::{ActivityVersion, PausedWorkflow};
use crate::tenancy::Tenant;

/// One version of an activity, with what it may do for its tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    pub name: Arc<str>,
    pub version: Arc<str>,
    /// Position among the versions; the highest is the newest.
    pub number: u32,
    /// SHA-256 of the module, in hexadecimal.
    pub digest: Arc<str>,
    /// What the module is and can do.
    pub info: Arc<ModuleInfo>,
    /// What its author asks for.
    pub manifest: Arc<Manifest>,
    /// What it may reach: policy, manifest and imports all name it.
    pub grants: Arc<Grants>,
    /// Whether the same input gives the same output and no effect.
    pub pure: bool,
    /// What an attempt may use: the tenant's limits, lowered by the manifest.
    pub limits: Limits,
    pub created_at: Timestamp,
}

impl Activity {
    /// Powers that the module imports and does not get.
    pub fn denied(&self) -> Vec<Capability> {
        let granted = &self.grants.capabilities;
        self.info.powers.difference(granted).copied().collect()
    }
}

/// What an upload can do more, and less, than the version before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PowerDiff {
    /// The version before it.
    pub predecessor: Arc<str>,
    /// Whether it is another module.
    pub module_changed: bool,
    pub powers_added: Vec<Capability>,
    pub powers_removed: Vec<Capability>,
    pub imports_added: Vec<String>,
    pub imports_removed: Vec<String>,
    pub exports_added: Vec<String>,
    pub exports_removed: Vec<String>,
    /// Hosts that the manifest newly names.
    pub hosts_added: Vec<String>,
    /// Hosts that the manifest no longer names.
    pub hosts_removed: Vec<String>,
}

impl PowerDiff {
    /// What `new` has and `old` has not, and the other way round.
    pub fn between(old: &Activity, new: &Activity) -> Self {
        let (powers_added, powers_removed) = changes(&old.info.powers, &new.info.powers);
        let (imports_added, imports_removed) = changes(&old.info.imports, &new.info.imports);
        let (exports_added, exports_removed) = changes(&old.info.exports, &new.info.exports);
        let (hosts_added, hosts_removed) = changes(&hosts(old), &hosts(new));
        Self {
            predecessor: Arc::clone(&old.version),
            module_changed: old.digest != new.digest,
            powers_added,
            powers_removed,
            imports_added,
            imports_removed,
            exports_added,
            exports_removed,
            hosts_added,
            hosts_removed,
        }
    }
}

/// What is stored of a version beside its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) manifest: Manifest,
    pub(super) info: ModuleInfo,
}

impl Description {
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain values with text keys")
    }

    /// Whether `activity` is this upload.
    pub(super) fn is_of(&self, activity: &Activity) -> bool {
        self.info.digest == *activity.digest && self.manifest == *activity.manifest
    }
}

/// One tenant's.
#[derive(Debug, Clone)]
pub(super) struct Stock {
    /// As it was when the grants and limits below were worked out.
    pub(super) tenant: Arc<Tenant>,
    /// Versions by name, oldest first; never empty. Shared with the stock that
    /// this one came from, as far as they agree: a copy is cheap.
    pub(super) activities: BTreeMap<Arc<str>, Arc<Vec<Arc<Activity>>>>,
    /// The newest versions, by name.
    pub(super) applications: BTreeMap<Arc<str>, Arc<ApplicationEntry>>,
    /// Workflows of which nothing new is started, by application and name.
    pub(super) paused: BTreeMap<(String, String), Arc<PausedWorkflow>>,
    /// What the store keeps of it, in bytes, of all versions.
    pub(super) bytes: u64,
}

impl Stock {
    pub(super) fn new(tenant: Arc<Tenant>) -> Self {
        Self {
            tenant,
            activities: BTreeMap::new(),
            applications: BTreeMap::new(),
            paused: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// A copy under the tenant's policy and limits as they are now.
    pub(super) fn of(&self, tenant: &Arc<Tenant>) -> Self {
        let mut copy = self.clone();
        if Arc::ptr_eq(&self.tenant, tenant) {
            return copy;
        }
        copy.tenant = Arc::clone(tenant);
        let lists = copy.activities.values_mut();
        for known in lists.flat_map(|versions| Arc::make_mut(versions).iter_mut()) {
            let mut activity = Activity::clone(known);
            activity.put_under(tenant);
            *known = Arc::new(activity);
        }
        copy
    }

    pub(super) fn add_activity(&mut self, activity: impl Into<Arc<Activity>>) {
        let activity = activity.into();
        let versions = self
            .activities
            .entry(Arc::clone(&activity.name))
            .or_default();
        let versions = Arc::make_mut(versions);
        let position = versions.partition_point(|known| known.number < activity.number);
        match versions.get_mut(position) {
            Some(known) if known.number == activity.number => *known = activity,
            _ => versions.insert(position, activity),
        }
    }

    /// Puts a version in force, unless another server has been here with a newer one.
    pub(super) fn add_application(&mut self, name: &str, entry: impl Into<Arc<ApplicationEntry>>) {
        let entry = entry.into();
        let known = self.applications.get(name);
        if known.is_none_or(|known| known.version <= entry.version) {
            self.applications.insert(name.into(), entry);
        }
    }

    pub(super) fn pause(&mut self, paused: Arc<PausedWorkflow>) {
        let key = (paused.application.clone(), paused.workflow.clone());
        self.paused.entry(key).or_insert(paused);
    }

    pub(super) fn paused(&self, application: &str, workflow: &str) -> Option<&Arc<PausedWorkflow>> {
        // Most tenants have none, and then no key is made to look for.
        if self.paused.is_empty() {
            return None;
        }
        self.paused
            .get(&(application.to_owned(), workflow.to_owned()))
    }

    pub(super) fn versions(&self, name: &str) -> &[Arc<Activity>] {
        self.activities
            .get(name)
            .map_or(&[], |versions| versions.as_slice())
    }

    /// Number of versions of all activities.
    pub(super) fn version_count(&self) -> usize {
        self.activities
            .values()
            .map(|versions| versions.len())
            .sum()
    }

    /// Whether some version has this module.
    pub(super) fn has_module(&self, digest: &str) -> bool {
        let lists = self.activities.values();
        lists
            .flat_map(|versions| versions.iter())
            .any(|known| *known.digest == *digest)
    }

    /// The newest version, or the one of this name.
    pub(super) fn activity(&self, name: &str, version: Option<&str>) -> Option<&Arc<Activity>> {
        let versions = self.versions(name);
        match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|known| *known.version == *version),
        }
    }
}

impl Activity {
    /// Works out what it may do under a tenant's policy and limits.
    fn put_under(&mut self, tenant: &Tenant) {
        let (policy, manifest) = (&tenant.policy, &self.manifest);
        let named = policy.capabilities.intersection(&manifest.capabilities);
        let capabilities = named
            .filter(|power| self.info.powers.contains(power))
            .copied();
        let grants = Grants {
            capabilities: capabilities.collect(),
            policy_hosts: policy.http.hosts.clone(),
            manifest_hosts: manifest.http.hosts.clone(),
            allow_private: policy.http.allow_private.clone(),
        };
        self.pure = is_pure(&self.info, &grants);
        self.limits = manifest.lower(&tenant.limits);
        self.grants = Arc::new(grants);
    }
}

/// The activity that a row of the store stands for.
///
/// # Errors
///
/// If its description does not read.
pub(super) fn activity(tenant: &Tenant, row: &ActivityVersion) -> Result<Activity, String> {
    let description: Description = serde_json::from_str(&row.description)
        .map_err(|error| format!("description of {} {}: {error}", row.name, row.version))?;
    let mut activity = Activity {
        name: row.name.as_str().into(),
        version: row.version.as_str().into(),
        number: row.number,
        digest: row.digest.as_str().into(),
        info: Arc::new(description.info),
        manifest: Arc::new(description.manifest),
        grants: Arc::default(),
        pure: false,
        limits: Limits::default(),
        created_at: row.created_at,
    };
    activity.put_under(tenant);
    Ok(activity)
}

fn hosts(activity: &Activity) -> Vec<String> {
    let hosts = &activity.manifest.http.hosts;
    hosts.iter().map(ToString::to_string).collect()
}

/// What only the second has, and what only the first.
fn changes<'a, T: Ord + Clone + 'a>(
    old: impl IntoIterator<Item = &'a T>,
    new: impl IntoIterator<Item = &'a T>,
) -> (Vec<T>, Vec<T>) {
    let old: BTreeSet<&T> = old.into_iter().collect();
    let new: BTreeSet<&T> = new.into_iter().collect();
    let only =
        |a: &BTreeSet<&'a T>, b: &BTreeSet<&'a T>| a.difference(b).copied().cloned().collect();
    (only(&new, &old), only(&old, &new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Policy, TenantLimits, Weight};

    fn tenant(capabilities: &[Capability]) -> Tenant {
        Tenant {
            id: "a".parse().expect("valid"),
            limits: TenantLimits::default(),
            policy: Policy {
                capabilities: capabilities.iter().copied().collect(),
                ..Policy::default()
            },
            weight: Weight::default(),
            configured: true,
        }
    }

    /// A version as it is stored, that imports and asks for what is given.
    fn row(number: u32, powers: &str, asks: &str) -> ActivityVersion {
        let description = format!(
            r#"{{"manifest": {{"capabilities": [{asks}]}}, "info": {{"digest": "d{number}", "size": 1,
                "kind": "handler", "imports": [{powers}], "exports": [], "powers": [{powers}],
                "componentized": false, "slots": 1}}}}"#
        );
        ActivityVersion {
            name: "x".to_owned(),
            version: format!("v{number}"),
            number,
            digest: format!("d{number}"),
            description,
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn a_power_is_granted_if_policy_manifest_and_imports_all_name_it() {
        use Capability::{Clock, Http, Random};
        for (policy, asks, imports, granted) in [
            (
                &[Http, Clock][..],
                r#""http", "random""#,
                r#""http", "clock", "random""#,
                &[Http][..],
            ),
            (&[Http], r#""http""#, "", &[]),
            (&[Http], "", r#""http""#, &[]),
            (&[], r#""http""#, r#""http""#, &[]),
            (&[Random], r#""random""#, r#""random""#, &[Random]),
        ] {
            let activity = activity(&tenant(policy), &row(1, imports, asks)).expect("reads");
            let found: Vec<_> = activity.grants.capabilities.iter().copied().collect();
            assert_eq!(found, granted, "{policy:?} {asks} {imports}");
            assert_eq!(
                activity.pure,
                granted.is_empty(),
                "what is granted nothing is pure"
            );
        }
    }

    #[test]
    fn a_new_policy_holds_for_what_is_there() {
        let open = Arc::new(tenant(&[Capability::Http]));
        let mut stock = Stock::new(Arc::clone(&open));
        stock.add_activity(activity(&open, &row(1, r#""http""#, r#""http""#)).expect("reads"));
        assert!(!stock.activity("x", None).expect("there").pure);
        let closed = stock.of(&Arc::new(tenant(&[])));
        assert!(closed.activity("x", None).expect("there").pure);
    }

    #[test]
    fn a_copy_shares_what_does_not_change() {
        let owner = Arc::new(tenant(&[]));
        let mut stock = Stock::new(Arc::clone(&owner));
        for name in ["x", "y"] {
            let mut row = row(1, "", "");
            row.name = name.to_owned();
            stock.add_activity(activity(&owner, &row).expect("reads"));
        }
        let mut copy = stock.of(&owner);
        copy.add_activity(activity(&owner, &row(2, "", "")).expect("reads"));
        let shared = |name| Arc::ptr_eq(&stock.activities[name], &copy.activities[name]);
        assert_eq!((shared("x"), shared("y")), (false, true));
        assert_eq!((stock.version_count(), copy.version_count()), (2, 3));
    }

    #[test]
    fn versions_are_found_by_name_and_the_newest_without() {
        let owner = Arc::new(tenant(&[]));
        let mut stock = Stock::new(Arc::clone(&owner));
        // Rows may arrive in any order.
        for number in [2, 10, 1] {
            stock.add_activity(activity(&owner, &row(number, "", "")).expect("reads"));
        }
        for (version, found) in [(None, Some(10)), (Some("v2"), Some(2)), (Some("v3"), None)] {
            assert_eq!(
                stock.activity("x", version).map(|activity| activity.number),
                found
            );
        }
    }

    #[test]
    fn a_diff_tells_what_was_gained_and_lost() {
        let owner = tenant(&[]);
        let old = activity(&owner, &row(1, r#""http", "clock""#, "")).expect("reads");
        let new = activity(&owner, &row(2, r#""http", "random""#, "")).expect("reads");
        let diff = PowerDiff::between(&old, &new);
        assert_eq!(diff.powers_added, [Capability::Random]);
        assert_eq!(diff.powers_removed, [Capability::Clock]);
        assert!(diff.module_changed && diff.exports_added.is_empty());
        assert_eq!(&*diff.predecessor, "v1");
    }

    #[test]
    fn a_description_that_does_not_read_is_an_error() {
        let mut damaged = row(1, "", "");
        damaged.description.truncate(20);
        assert!(activity(&tenant(&[]), &damaged).is_err());
    }
}
