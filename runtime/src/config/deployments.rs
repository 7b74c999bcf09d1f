//! `deployments`: how the servers of a cluster are run on Kubernetes.
//!
//! `cascade render kubernetes` makes objects of it; the server itself has no use for it. Every
//! server has all roles. Roles of their own will be blocks beside `server`, each a
//! [`Deployment`], and are refused by name until then.

mod check;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units;
use crate::telemetry;

/// What is rendered, less what each server reads from the rest of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deployments {
    /// Name of the objects.
    pub name: String,
    /// Where they are; what `kubectl` is set to if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The container image, with `cascade` as its entry point. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Secrets that the image is pulled with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Servers: API, engine and workers in one.
    pub server: Deployment,
}

impl Default for Deployments {
    fn default() -> Self {
        Self {
            name: "cascade".to_owned(),
            namespace: None,
            image: None,
            image_pull_secrets: Vec::new(),
            server: Deployment::default(),
        }
    }
}

/// Processes of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deployment {
    /// How many; the fewest where they follow the load.
    pub replicas: u32,
    /// How many may be away when machines are drained.
    pub max_unavailable: u32,
    /// Processor time and memory.
    pub resources: Resources,
    /// A volume for `data_dir`; without it, that is gone with the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// What the file refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretSource>,
    /// The address for clients.
    pub service: Service,
    /// The way in from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// More servers under load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            replicas: 1,
            max_unavailable: 1,
            resources: Resources::default(),
            storage: None,
            secrets: Vec::new(),
            service: Service::default(),
            ingress: None,
            autoscaling: None,
        }
    }
}

/// Processor time and memory of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// What is set aside.
    pub requests: Requests,
    /// What is never exceeded.
    pub limits: ResourceLimits,
}

/// What is set aside for a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requests {
    pub cpu: Cpu,
    #[serde(with = "units::bytes")]
    pub memory: u64,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            cpu: Cpu { millis: 1000 },
            // Open executions of a tenant or two, and the code of some hundred activities.
            memory: 2 << 30,
        }
    }
}

/// What a process never exceeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLimits {
    /// None by default: a server that is held up for some hundred milliseconds answers late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(with = "units::bytes")]
    pub memory: u64,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            cpu: None,
            // Compilers are in it, too: a large component takes one for some seconds.
            memory: 4 << 30,
        }
    }
}

/// A volume for each process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Required.
    #[serde(with = "units::bytes")]
    pub size: u64,
    /// The cluster's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// A Secret of the cluster, and how its keys reach the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretSource {
    /// Of the Secret. Required.
    pub name: String,
    /// Variables, each with the key of the Secret that it takes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// A folder with a file for each key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<PathBuf>,
}

/// The address for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    pub port: u16,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            kind: ServiceKind::ClusterIP,
            port: super::DEFAULT_LISTEN.port(),
            annotations: BTreeMap::new(),
        }
    }
}

/// Who reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// The way in from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingress {
    /// Required.
    pub host: String,
    /// The cluster's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// With the certificate of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// More processes under load, up to a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Autoscaling {
    /// Required.
    pub max_replicas: u32,
    /// Percent of the processor time that is set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Percent of the memory that is set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// Metrics of the servers. KEDA reads them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
}

/// Where metrics of the servers are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prometheus {
    /// `http://HOST:PORT`. Required.
    pub address: String,
    /// Which series are of these servers, as in `namespace="workflows"`; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How much of each is enough for one server.
    pub metrics: BTreeMap<Metric, u64>,
}

/// A metric that grows with the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// Activity tasks that wait for a worker.
    #[serde(rename = "cascade_queue_depth")]
    QueueDepth,
    /// Open executions.
    #[serde(rename = "cascade_workflow_active")]
    WorkflowActive,
    /// Memory of those that do not sleep.
    #[serde(rename = "cascade_workflow_memory_bytes")]
    WorkflowBytes,
    /// Starts, a second.
    #[serde(rename = "cascade_workflow_started_total")]
    WorkflowStarted,
    /// Attempts, a second.
    #[serde(rename = "cascade_activity_executions_total")]
    ActivityExecutions,
}

impl Metric {
    /// As servers tell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueDepth => telemetry::QUEUE_DEPTH,
            Self::WorkflowActive => telemetry::WORKFLOW_ACTIVE,
            Self::WorkflowBytes => telemetry::WORKFLOW_BYTES,
            Self::WorkflowStarted => telemetry::WORKFLOW_STARTED,
            Self::ActivityExecutions => telemetry::ACTIVITY_EXECUTIONS,
        }
    }

    /// Whether it only grows, so that what counts is how fast.
    pub fn is_counter(self) -> bool {
        self.name().ends_with("_total")
    }
}

/// Processor time: `2`, `0.5` or `500m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    /// Thousandths of a core.
    pub millis: u64,
}

impl Cpu {
    fn parse(text: &str) -> Option<Self> {
        if let Some(millis) = text.strip_suffix('m') {
            return Some(Self {
                millis: millis.parse().ok()?,
            });
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
            return None;
        }
        let whole = whole.parse::<u64>().ok()?.checked_mul(1000)?;
        let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
        Some(Self {
            millis: whole.checked_add(fraction)?,
        })
    }
}

/// As Kubernetes writes it.
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis.is_multiple_of(1000) {
            write!(f, "{}", self.millis / 1000)
        } else {
            write!(f, "{}m", self.millis)
        }
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct CpuVisitor;
        impl Visitor<'_> for CpuVisitor {
            type Value = Cpu;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of cores such as `2`, `0.5` or `500m`")
            }

            fn visit_u64<E: Error>(self, cores: u64) -> Result<Cpu, E> {
                self.visit_str(&cores.to_string())
            }

            fn visit_f64<E: Error>(self, cores: f64) -> Result<Cpu, E> {
                self.visit_str(&cores.to_string())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Cpu, E> {
                Cpu::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        input.deserialize_any(CpuVisitor)
    }
}

#[cfg(test)]
mod tests;
