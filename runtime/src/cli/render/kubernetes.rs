//! Objects for a Kubernetes cluster. Pure: the same file gives the same objects.
//!
//! Every server has all roles, so there is one set of pods. It is a `StatefulSet`: pods are replaced
//! one after the other, so that few shards are on their way at a time, and each keeps its volume
//! where there is one. Roles of their own will be further sets of the same shape.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::serve::ADVERTISE_VARIABLE;
use crate::config::Config;
use crate::config::deployments::{Autoscaling, Deployment, Deployments, Metric, Prometheus};
use crate::tenancy::Digest;

/// User and group of the container: that of `packaging/Dockerfile`, and nobody's on a node.
const USER: u32 = 10_001;

/// Seconds between two times: the pod is no longer given out as an address, and the server is told
/// to stop. It accepts no connections from then on, and others hear of the first only so fast.
const FAREWELL_SECONDS: u64 = 5;

/// Beyond `shutdown_grace`: attempts notice that they are cut off, and what is left is committed.
const LAST_SECONDS: u64 = 10;

/// Most of a volume that is gone with its pod: the cache of compiled modules has 8 GiB at most.
const SCRATCH: &str = "12Gi";

/// What a `ConfigMap` holds, less a bit for its name and labels.
const MAX_CONFIG_BYTES: usize = 1_000_000;

/// An object.
pub(super) struct Object {
    pub(super) document: Value,
}

impl Object {
    /// As in `statefulset-cascade.yaml`.
    pub(super) fn file_name(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let kind = text(&self.document["kind"]);
        format!("{kind}-{}.yaml", text(&self.document["metadata"]["name"]))
    }
}

/// The objects of `deployments`, in the order in which they are made best. `text` is the whole file.
///
/// # Errors
///
/// What is wrong with it as a whole.
pub(super) fn objects(
    config: &Config,
    deployments: &Deployments,
    text: &str,
) -> Result<Vec<Object>, String> {
    let file = own_part(text)?;
    let of = Rendering {
        config,
        deployments,
        server: &deployments.server,
    };
    let mut documents = vec![
        of.service_account(),
        of.config_map(&file),
        of.service(),
        of.nodes(),
        of.stateful_set(&file),
    ];
    if of.server.replicas > 1 || of.server.autoscaling.is_some() {
        documents.push(of.disruption_budget());
    }
    if let Some(scaling) = &of.server.autoscaling {
        documents.push(match &scaling.prometheus {
            Some(prometheus) => of.scaled_object(scaling, prometheus),
            None => of.autoscaler(scaling),
        });
    }
    documents.extend(of.ingress());
    let each = documents.into_iter();
    Ok(each.map(|document| Object { document }).collect())
}

/// The file as servers read it: without what is about running them, so that only what concerns
/// them makes them start anew.
fn own_part(text: &str) -> Result<String, String> {
    let unreadable = |error: serde_yaml::Error| error.to_string();
    let mut file: serde_yaml::Mapping = serde_yaml::from_str(text).map_err(unreadable)?;
    file.remove("deployments");
    let text = serde_yaml::to_string(&file).map_err(unreadable)?;
    if text.len() > MAX_CONFIG_BYTES {
        return Err(format!(
            "without `deployments` it has {} bytes, and a ConfigMap holds {MAX_CONFIG_BYTES}",
            text.len()
        ));
    }
    Ok(text)
}

/// What all objects are made of.
struct Rendering<'a> {
    config: &'a Config,
    deployments: &'a Deployments,
    server: &'a Deployment,
}

impl Rendering<'_> {
    fn name(&self) -> &str {
        &self.deployments.name
    }

    /// What the pods are found by. It can never change.
    fn selector(&self) -> Value {
        json!({
            "app.kubernetes.io/name": "cascade",
            "app.kubernetes.io/instance": self.name(),
            "app.kubernetes.io/component": "server",
        })
    }

    /// An object with this in it.
    fn object(&self, version: &str, kind: &str, name: &str, content: Value) -> Value {
        let mut metadata = json!({ "name": name, "labels": self.selector() });
        if let Some(namespace) = &self.deployments.namespace {
            metadata["namespace"] = json!(namespace);
        }
        let mut object = content;
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"] = metadata;
        object
    }

    fn config_name(&self) -> String {
        format!("{}-config", self.name())
    }

    fn nodes_name(&self) -> String {
        format!("{}-nodes", self.name())
    }

    fn service_account(&self) -> Value {
        let secrets = &self.deployments.image_pull_secrets;
        let secrets: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
        let mut content = json!({ "automountServiceAccountToken": false });
        if !secrets.is_empty() {
            content["imagePullSecrets"] = json!(secrets);
        }
        self.object("v1", "ServiceAccount", self.name(), content)
    }

    fn config_map(&self, file: &str) -> Value {
        let content = json!({ "data": { "cascade.yaml": file } });
        self.object("v1", "ConfigMap", &self.config_name(), content)
    }

    /// For clients: any server that is ready.
    fn service(&self) -> Value {
        let service = &self.server.service;
        let spec = json!({
            "type": service.kind,
            "selector": self.selector(),
            "ports": [{ "name": "http", "port": service.port, "targetPort": "http", "protocol": "TCP" }],
        });
        let mut object = self.object("v1", "Service", self.name(), json!({ "spec": spec }));
        if !service.annotations.is_empty() {
            object["metadata"]["annotations"] = json!(service.annotations);
        }
        object
    }

    /// For what looks at each server, as Prometheus does. A set of pods has one.
    fn nodes(&self) -> Value {
        let port = self.config.server.listen.port();
        let spec = json!({
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": self.selector(),
            "ports": [{ "name": "http", "port": port, "targetPort": "http", "protocol": "TCP" }],
        });
        self.object("v1", "Service", &self.nodes_name(), json!({ "spec": spec }))
    }

    fn stateful_set(&self, file: &str) -> Value {
        let mut spec = json!({
            "serviceName": self.nodes_name(),
            "podManagementPolicy": "Parallel",
            "updateStrategy": { "type": "RollingUpdate" },
            // A pod that is new takes its shards before the next one goes.
            "minReadySeconds": 5,
            "selector": { "matchLabels": self.selector() },
            "template": {
                "metadata": {
                    "labels": self.selector(),
                    "annotations": {
                        // The server reads its file once: another file is another pod.
                        "cascade.io/config-sha256": Digest::of(file),
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": self.config.server.listen.port().to_string(),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": self.pod(),
            },
        });
        // Where something else sets the number, applying the objects must not set it back.
        if self.server.autoscaling.is_none() {
            spec["replicas"] = json!(self.server.replicas);
        }
        if let Some(storage) = &self.server.storage {
            let mut claim = json!({
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": bytes(storage.size) } },
            });
            if let Some(class) = &storage.class {
                claim["storageClassName"] = json!(class);
            }
            spec["volumeClaimTemplates"] =
                json!([{ "metadata": { "name": "data" }, "spec": claim }]);
        }
        self.object(
            "apps/v1",
            "StatefulSet",
            self.name(),
            json!({ "spec": spec }),
        )
    }

    fn pod(&self) -> Value {
        let grace = seconds(self.config.server.shutdown_grace);
        let spread = |key: &str| {
            json!({
                "topologyKey": key,
                "maxSkew": 1,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": { "matchLabels": self.selector() },
            })
        };
        json!({
            "serviceAccountName": self.name(),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": FAREWELL_SECONDS + grace + LAST_SECONDS,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "topologySpreadConstraints": [
                spread("kubernetes.io/hostname"),
                spread("topology.kubernetes.io/zone"),
            ],
            "containers": [self.container()],
            "volumes": self.volumes(),
        })
    }

    fn container(&self) -> Value {
        let config = format!("{}/cascade.yaml", Deployments::CONFIG_FOLDER);
        let data = format!("{}/data", Deployments::DATA_FOLDER);
        let get = |path: &str| json!({ "path": path, "port": "http" });
        let (requests, limits) = (
            &self.server.resources.requests,
            &self.server.resources.limits,
        );
        let mut most = json!({ "memory": bytes(limits.memory) });
        if let Some(cpu) = limits.cpu {
            most["cpu"] = json!(cpu);
        }
        json!({
            "name": "server",
            "image": self.deployments.image,
            "args": [
                "server", "--config", config, "--data", data, "--listen", self.listen(),
                "--log-format", "json",
            ],
            "env": self.environment(),
            "ports": [{ "name": "http", "containerPort": self.config.server.listen.port(), "protocol": "TCP" }],
            "resources": {
                "requests": { "cpu": requests.cpu, "memory": bytes(requests.memory) },
                "limits": most,
            },
            // It listens once it has brought the schema up to date and opened what was left open.
            "startupProbe": { "httpGet": get("/health"), "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 150 },
            // A server that is only busy must not be killed for it.
            "livenessProbe": { "httpGet": get("/health"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
            "readinessProbe": { "httpGet": get("/ready"), "periodSeconds": 5, "timeoutSeconds": 4, "failureThreshold": 2 },
            "lifecycle": { "preStop": { "sleep": { "seconds": FAREWELL_SECONDS } } },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "volumeMounts": self.mounts(),
        })
    }

    /// All addresses of the pod: those of one family, unless the file says `[::]`.
    fn listen(&self) -> String {
        let mut listen = self.config.server.listen;
        if listen.ip().is_loopback() {
            listen.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
        }
        listen.to_string()
    }

    fn environment(&self) -> Vec<Value> {
        let mut variables = vec![json!({
            "name": ADVERTISE_VARIABLE,
            "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } },
        })];
        for secret in &self.server.secrets {
            for (name, key) in &secret.environment {
                variables.push(json!({
                    "name": name,
                    "valueFrom": { "secretKeyRef": { "name": secret.name, "key": key } },
                }));
            }
        }
        variables
    }

    fn volumes(&self) -> Vec<Value> {
        let mut volumes =
            vec![json!({ "name": "config", "configMap": { "name": self.config_name() } })];
        if self.server.storage.is_none() {
            volumes.push(json!({ "name": "data", "emptyDir": { "sizeLimit": SCRATCH } }));
        }
        for (index, secret) in self.server.secrets.iter().enumerate() {
            if secret.mount.is_some() {
                // Readable by the group, which is the container's.
                let of = json!({ "secretName": secret.name, "defaultMode": 0o440 });
                volumes.push(json!({ "name": format!("secret-{index}"), "secret": of }));
            }
        }
        volumes
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            json!({ "name": "config", "mountPath": Deployments::CONFIG_FOLDER, "readOnly": true }),
            json!({ "name": "data", "mountPath": Deployments::DATA_FOLDER }),
        ];
        for (index, secret) in self.server.secrets.iter().enumerate() {
            if let Some(folder) = &secret.mount {
                let name = format!("secret-{index}");
                mounts.push(json!({ "name": name, "mountPath": folder, "readOnly": true }));
            }
        }
        mounts
    }

    fn disruption_budget(&self) -> Value {
        let spec = json!({
            "maxUnavailable": self.server.max_unavailable,
            "selector": { "matchLabels": self.selector() },
        });
        self.object(
            "policy/v1",
            "PodDisruptionBudget",
            self.name(),
            json!({ "spec": spec }),
        )
    }

    fn target(&self) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": self.name() })
    }

    fn autoscaler(&self, scaling: &Autoscaling) -> Value {
        let metrics: Vec<_> = resources(scaling)
            .map(|(name, percent)| {
                let target = json!({ "type": "Utilization", "averageUtilization": percent });
                json!({ "type": "Resource", "resource": { "name": name, "target": target } })
            })
            .collect();
        let spec = json!({
            "scaleTargetRef": self.target(),
            "minReplicas": self.server.replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": metrics,
            "behavior": behavior(),
        });
        let content = json!({ "spec": spec });
        self.object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            self.name(),
            content,
        )
    }

    /// KEDA makes the autoscaler itself, so all that servers are scaled by is in here.
    fn scaled_object(&self, scaling: &Autoscaling, prometheus: &Prometheus) -> Value {
        let resources = resources(scaling).map(|(name, percent)| {
            json!({
                "type": name,
                "metricType": "Utilization",
                "metadata": { "value": percent.to_string() },
            })
        });
        let metrics = prometheus.metrics.iter().map(|(metric, enough)| {
            json!({
                "type": "prometheus",
                "metricType": "AverageValue",
                "metadata": {
                    "serverAddress": prometheus.address,
                    "query": query(*metric, prometheus.selector.as_deref().unwrap_or_default()),
                    "threshold": enough.to_string(),
                    // A query that finds nothing is a mistake, and not an idle server.
                    "ignoreNullValues": "false",
                },
            })
        });
        let triggers: Vec<_> = resources.chain(metrics).collect();
        let spec = json!({
            "scaleTargetRef": self.target(),
            "pollingInterval": 15,
            "minReplicaCount": self.server.replicas,
            "maxReplicaCount": scaling.max_replicas,
            "advanced": { "horizontalPodAutoscalerConfig": { "behavior": behavior() } },
            "triggers": triggers,
        });
        self.object(
            "keda.sh/v1alpha1",
            "ScaledObject",
            self.name(),
            json!({ "spec": spec }),
        )
    }

    fn ingress(&self) -> Option<Value> {
        let ingress = self.server.ingress.as_ref()?;
        let port = json!({ "name": "http" });
        let backend = json!({ "service": { "name": self.name(), "port": port } });
        // Not what is for other servers, and for who watches them.
        let path = json!({ "path": "/v1", "pathType": "Prefix", "backend": backend });
        let mut spec = json!({ "rules": [{ "host": ingress.host, "http": { "paths": [path] } }] });
        if let Some(class) = &ingress.class {
            spec["ingressClassName"] = json!(class);
        }
        if let Some(secret) = &ingress.tls_secret {
            spec["tls"] = json!([{ "hosts": [ingress.host], "secretName": secret }]);
        }
        let content = json!({ "spec": spec });
        let mut object = self.object("networking.k8s.io/v1", "Ingress", self.name(), content);
        if !ingress.annotations.is_empty() {
            object["metadata"]["annotations"] = json!(ingress.annotations);
        }
        Some(object)
    }
}

/// Of the processor time and memory that are set aside, with percents.
fn resources(scaling: &Autoscaling) -> impl Iterator<Item = (&'static str, u32)> {
    let both = [("cpu", scaling.cpu), ("memory", scaling.memory)];
    both.into_iter()
        .filter_map(|(name, percent)| percent.map(|percent| (name, percent)))
}

/// How fast the number changes: each change moves shards. Up soon, down after five quiet minutes,
/// and one at a time.
fn behavior() -> Value {
    json!({
        "scaleUp": {
            "stabilizationWindowSeconds": 30,
            "policies": [{ "type": "Pods", "value": 2, "periodSeconds": 60 }],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60 }],
        },
    })
}

/// The sum over all servers, for a counter a second.
fn query(metric: Metric, selector: &str) -> String {
    let name = metric.name();
    let series = if selector.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{selector}}}")
    };
    if metric.is_counter() {
        format!("sum(rate({series}[2m]))")
    } else {
        format!("sum({series})")
    }
}

/// A size as Kubernetes writes it.
fn bytes(size: u64) -> String {
    for (unit, factor) in [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if size > 0 && size.is_multiple_of(factor) {
            return format!("{}{unit}", size / factor);
        }
    }
    size.to_string()
}

/// Whole seconds, none too few.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
