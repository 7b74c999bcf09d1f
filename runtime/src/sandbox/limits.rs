//! What an attempt may use, and what it may reach.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hosts::{HostPattern, PrivateHost};
use super::inspect::ModuleInfo;

/// What one attempt may use. A tenant has its own, in `tenants[].limits` of
/// `cascade.yaml`; an activity may have lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Fuel: about one unit an instruction, plus the price of host calls.
    pub fuel_per_attempt: u64,
    /// Linear memory and tables together, in bytes.
    pub memory_bytes: u64,
    /// Length of the input's JSON text, in bytes.
    pub input_bytes: u64,
    /// Length of the output's JSON text, in bytes.
    pub output_bytes: u64,
    /// Log lines of one attempt together, in bytes.
    pub log_bytes: u64,
    /// Wall-clock time of one attempt, in milliseconds.
    pub attempt_timeout_ms: u64,
}

/// Enough for ordinary activities in any language, little enough that one
/// tenant with the defaults cannot hold a core for longer than some seconds.
impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel_per_attempt: 10_000_000_000, // some seconds of a core
            memory_bytes: 128 << 20,          // a Python component starts with 40 MiB
            input_bytes: 1 << 20,
            output_bytes: 1 << 20,
            log_bytes: 64 << 10,
            attempt_timeout_ms: 60_000,
        }
    }
}

impl Limits {
    /// The wall-clock limit.
    pub fn attempt_timeout(&self) -> Duration {
        Duration::from_millis(self.attempt_timeout_ms)
    }

    /// The lower of both, field by field: an activity's own limits only ever
    /// lower those of its tenant.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            fuel_per_attempt: self.fuel_per_attempt.min(other.fuel_per_attempt),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            input_bytes: self.input_bytes.min(other.input_bytes),
            output_bytes: self.output_bytes.min(other.output_bytes),
            log_bytes: self.log_bytes.min(other.log_bytes),
            attempt_timeout_ms: self.attempt_timeout_ms.min(other.attempt_timeout_ms),
        }
    }
}

/// A power that goes beyond computing: each is a host interface, denied unless
/// both the tenant's policy and the activity's manifest name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Requests to allowed hosts.
    Http,
    /// The tenant's small store.
    KeyValue,
    /// The real time.
    Clock,
    /// True randomness.
    Random,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::KeyValue, Self::Clock, Self::Random];

    /// The name in policies, manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::KeyValue => "key-value",
            Self::Clock => "clock",
            Self::Random => "random",
        }
    }

    /// The capability that an imported interface stands for, if any:
    /// `cascade:activity/http@0.1.0` is `http`.
    pub fn of_import(import: &str) -> Option<Self> {
        let interface = import.strip_prefix("cascade:activity/")?;
        let interface = interface.split('@').next().unwrap_or(interface);
        interface.parse().ok()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a capability; there are http, key-value, clock and random")]
pub struct UnknownCapability(String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|capability| capability.name() == name)
            .ok_or_else(|| UnknownCapability(name.chars().take(80).collect()))
    }
}

/// What an attempt may reach: what the tenant's policy and the activity's
/// manifest both name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Capabilities that policy and manifest both name.
    pub capabilities: BTreeSet<Capability>,
    /// Hosts that the tenant's policy allows requests to.
    pub policy_hosts: Vec<HostPattern>,
    /// Hosts that the activity's manifest names.
    pub manifest_hosts: Vec<HostPattern>,
    /// Private addresses that the policy allows all the same: for tests,
    /// development, and services beside the server. Empty by default.
    pub allow_private: Vec<PrivateHost>,
}

impl Grants {
    /// Whether this capability is granted.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

/// Whether an activity is pure under these grants: it can reach nothing but
/// its input, so the same input gives the same output and no effect.
pub fn is_pure(info: &ModuleInfo, grants: &Grants) -> bool {
    info.powers.is_disjoint(&grants.capabilities)
}
