//! What an activity's author asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{TenantLimits, units};
use crate::sandbox::{Capability, HostPattern, Limits};

/// Hosts that one manifest may name: each request is checked against all.
const MAX_HOSTS: usize = 100;

/// Longest description, in bytes: a paragraph.
const MAX_DESCRIPTION: usize = 2_000;

/// An activity's manifest. With the template it stands in `Cargo.toml` under
/// `[package.metadata.cascade]`; an upload carries it as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Powers that it needs; it gets those that the tenant's policy also names.
    pub capabilities: BTreeSet<Capability>,
    /// Where it sends requests.
    pub http: HttpManifest,
    /// Limits below those of the tenant.
    pub limits: LimitsManifest,
}

/// Where an activity sends requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpManifest {
    /// `api.example.com`, `*.example.com`, `*`.
    pub hosts: Vec<HostPattern>,
}

/// Limits that an author sets below those of the tenant; higher ones have no effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsManifest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_per_attempt: Option<u64>,
    #[serde(
        with = "units::optional_bytes",
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_bytes: Option<u64>,
    #[serde(
        with = "units::optional_bytes",
        skip_serializing_if = "Option::is_none"
    )]
    pub input_bytes: Option<u64>,
    #[serde(
        with = "units::optional_bytes",
        skip_serializing_if = "Option::is_none"
    )]
    pub output_bytes: Option<u64>,
    #[serde(
        with = "units::optional_bytes",
        skip_serializing_if = "Option::is_none"
    )]
    pub log_bytes: Option<u64>,
    #[serde(
        with = "units::optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub attempt_timeout: Option<Duration>,
}

impl Manifest {
    /// Whether it can be met at all.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.description.len() > MAX_DESCRIPTION {
            return Err(format!(
                "the manifest's description has more than {MAX_DESCRIPTION} bytes"
            ));
        }
        if self.http.hosts.len() > MAX_HOSTS {
            return Err(format!("the manifest names more than {MAX_HOSTS} hosts"));
        }
        if !self.http.hosts.is_empty() && !self.capabilities.contains(&Capability::Http) {
            return Err("the manifest names hosts, but not the capability `http`".to_owned());
        }
        let limits = &self.limits;
        let zeros = [
            ("fuel_per_attempt", limits.fuel_per_attempt),
            ("memory_bytes", limits.memory_bytes),
            ("input_bytes", limits.input_bytes),
            ("output_bytes", limits.output_bytes),
            (
                "attempt_timeout",
                limits
                    .attempt_timeout
                    .map(|limit| u64::from(!limit.is_zero())),
            ),
        ];
        match zeros.into_iter().find(|(_, limit)| *limit == Some(0)) {
            Some((name, _)) => Err(format!("the manifest's limits.{name} must be more than 0")),
            None => Ok(()),
        }
    }

    /// What an attempt may use: the tenant's limits, lowered by these.
    pub fn lower(&self, tenant: &TenantLimits) -> Limits {
        let own = &self.limits;
        let tenant = tenant.attempt();
        tenant.min(Limits {
            fuel_per_attempt: own.fuel_per_attempt.unwrap_or(u64::MAX),
            memory_bytes: own.memory_bytes.unwrap_or(u64::MAX),
            input_bytes: own.input_bytes.unwrap_or(u64::MAX),
            output_bytes: own.output_bytes.unwrap_or(u64::MAX),
            log_bytes: own.log_bytes.unwrap_or(u64::MAX),
            attempt_timeout_ms: own.attempt_timeout.map_or(u64::MAX, |limit| {
                u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        serde_json::from_str(text).expect("a manifest")
    }

    #[test]
    fn limits_are_only_ever_lowered() {
        let tenant = TenantLimits::default();
        let manifest = manifest(
            r#"{"limits": {"memory_bytes": "1MiB", "fuel_per_attempt": 18446744073709551615}}"#,
        );
        let limits = manifest.lower(&tenant);
        assert_eq!(limits.memory_bytes, 1 << 20, "below the tenant's");
        assert_eq!(
            limits.fuel_per_attempt, tenant.fuel_per_attempt,
            "not above the tenant's"
        );
        assert_eq!(limits.output_bytes, tenant.output_bytes, "not named");
    }

    #[test]
    fn a_manifest_that_cannot_be_met_is_refused() {
        for bad in [
            r#"{"http": {"hosts": ["a.example"]}}"#,
            r#"{"limits": {"memory_bytes": 0}}"#,
            r#"{"limits": {"attempt_timeout": "0s"}}"#,
        ] {
            assert!(manifest(bad).check().is_err(), "{bad}");
        }
        for unreadable in [
            r#"{"capabilities": ["root"]}"#,
            r#"{"limits": {"memory": 1}}"#,
            r#"{"capabilities": ["http"], "http": {"hosts": ["http://a/b"]}}"#,
        ] {
            assert!(
                serde_json::from_str::<Manifest>(unreadable).is_err(),
                "{unreadable}"
            );
        }
    }

    #[test]
    fn a_manifest_reads_back_from_what_is_stored() {
        let full = manifest(
            r#"{"description": "d", "capabilities": ["http", "clock"], "http": {"hosts": ["*.a.example:1"]},
                "limits": {"attempt_timeout": "90s", "log_bytes": 1}}"#,
        );
        let stored = serde_json::to_string(&full).expect("plain values");
        assert_eq!(manifest(&stored), full);
        assert_eq!(manifest("{}"), Manifest::default());
    }
}
