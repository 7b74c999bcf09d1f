use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cascade_cdl::schema::Schema;
use clap::Parser as _;

use super::*;
use crate::cli::Cli;

/// One server with a file.
const ALONE: &str = "deployments: {image: 'cascade:1', server: {storage: {size: 10GiB}}}\n";

/// Three that share a database.
const THREE: &str = "database: {primary: 'postgres://cascade@db/cascade'}
deployments: {image: 'cascade:1', server: {replicas: 3}}
";

/// As many as the processor and memory ask for.
const SCALED: &str = "database: {primary: 'postgres://cascade@db/cascade'}
deployments: {image: 'cascade:1', server: {autoscaling: {max_replicas: 8, cpu: 70, memory: 80}}}
";

/// All that can be said.
const ALL: &str = "
server:
  listen: '[::]:8080'
  shutdown_grace: 10500ms
  admin_keys: [{ id: ops, secret: 'file:/run/secrets/cascade/ops-key' }]
database: { primary: 'postgres://cascade@db/cascade', password: '${PASSWORD}' }
tenants: [{ id: acme, secrets: { TOKEN: 'file:/run/secrets/acme/token' } }]
deployments:
  name: flows
  namespace: workflows
  image: registry.example.com/cascade:0.1.0
  image_pull_secrets: [registry]
  server:
    replicas: 3
    max_unavailable: 2
    resources: { requests: { cpu: 1.5, memory: 3GiB }, limits: { cpu: 4, memory: 6GiB } }
    storage: { size: 20GiB, class: fast }
    secrets:
    - { name: database, environment: { PASSWORD: password } }
    - { name: keys, mount: /run/secrets/cascade }
    - { name: acme, mount: /run/secrets/acme }
    service: { type: LoadBalancer, port: 80, annotations: { example.com/internal: 'yes' } }
    ingress: { host: flows.example.com, class: nginx, tls_secret: flows-tls, annotations: { example.com/timeout: '60' } }
    autoscaling:
      max_replicas: 12
      cpu: 75
      prometheus:
        address: http://prometheus.monitoring:9090
        selector: namespace=\"workflows\"
        metrics: { cascade_queue_depth: 200, cascade_workflow_started_total: 500 }
";

fn config(text: &str) -> Config {
    Config::parse_for_elsewhere("f", text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn render(text: &str) -> Vec<Value> {
    let config = config(text);
    let deployments = config.deployments.as_ref().expect("they are there");
    let objects = objects(&config, deployments, text).expect("it can be rendered");
    objects.into_iter().map(|object| object.document).collect()
}

/// The one object of a kind.
fn one<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there is one {kind}");
    first
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    let each = objects.iter();
    each.map(|object| object["kind"].as_str().expect("text"))
        .collect()
}

/// The schema of a kind, from the packages that `tests/schemas/README.md` names.
fn schema(kind: &str) -> Schema {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/schemas");
    let text = fs::read_to_string(folder.join(format!("{kind}.json")));
    let text = text.unwrap_or_else(|error| panic!("the schema of {kind}: {error}"));
    Schema::new(serde_json::from_str(&text).expect("JSON")).expect("a schema that is understood")
}

#[test]
fn every_object_fits_the_schema_of_its_kind() {
    for text in [ALONE, THREE, SCALED, ALL] {
        for object in render(text) {
            let kind = object["kind"].as_str().expect("text");
            let fits = schema(kind).check(&object);
            assert!(fits.is_ok(), "{fits:#?}\n{object:#}");
        }
    }
}

/// The schemas see what they should: a wrong value or an unknown key anywhere is refused.
#[test]
fn an_object_with_a_mistake_does_not_fit() {
    let objects = render(ALL);
    for (kind, at, wrong) in [
        ("StatefulSet", "/spec/replica", json!(3)),
        (
            "StatefulSet",
            "/spec/template/spec/containers/0/livenessProbe/httpGet/url",
            json!("/"),
        ),
        (
            "StatefulSet",
            "/spec/template/spec/containers/0/lifecycle/preStop/sleep",
            json!(5),
        ),
        (
            "StatefulSet",
            "/spec/volumeClaimTemplates/0/spec/accessModes",
            json!("ReadWriteOnce"),
        ),
        ("Service", "/spec/ports/0/port", json!("http")),
        ("ConfigMap", "/data/cascade.yaml", json!(7)),
        (
            "ServiceAccount",
            "/automountServiceAccountToken",
            json!("no"),
        ),
        ("PodDisruptionBudget", "/spec/maxUnavailable", json!([1])),
        (
            "Ingress",
            "/spec/rules/0/http/paths/0/backend/serviceName",
            json!("flows"),
        ),
        ("ScaledObject", "/spec/triggers/0/metadata/value", json!(75)),
        ("ScaledObject", "/spec/minReplicas", json!(1)),
    ] {
        let mut object = objects
            .iter()
            .find(|object| object["kind"] == kind)
            .expect("it is rendered")
            .clone();
        let (parent, key) = at.rsplit_once('/').expect("a path");
        object.pointer_mut(parent).expect("a place")[key] = wrong;
        assert!(schema(kind).check(&object).is_err(), "{kind} {at}");
    }
    let mut scaled = one(&render(SCALED), "HorizontalPodAutoscaler").clone();
    scaled["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = json!("70%");
    assert!(schema("HorizontalPodAutoscaler").check(&scaled).is_err());
}

#[test]
fn what_is_asked_for_is_rendered_and_nothing_else() {
    let plain = [
        "ServiceAccount",
        "ConfigMap",
        "Service",
        "Service",
        "StatefulSet",
    ];
    let with = |more: &[&'static str]| [&plain[..], more].concat();
    assert_eq!(kinds(&render(ALONE)), plain);
    assert_eq!(kinds(&render(THREE)), with(&["PodDisruptionBudget"]));
    let scaled = with(&["PodDisruptionBudget", "HorizontalPodAutoscaler"]);
    assert_eq!(kinds(&render(SCALED)), scaled);
    // Not both: they would set the same number.
    let all = with(&["PodDisruptionBudget", "ScaledObject", "Ingress"]);
    assert_eq!(kinds(&render(ALL)), all);
}

#[test]
fn objects_find_each_other() {
    for text in [ALONE, THREE, SCALED, ALL] {
        let objects = render(text);
        let set = one(&objects, "StatefulSet");
        let pod = &set["spec"]["template"];
        let labels = &pod["metadata"]["labels"];
        assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
        let container = &pod["spec"]["containers"][0];
        let port = &container["ports"][0];
        let services: Vec<_> = (objects.iter())
            .filter(|object| object["kind"] == "Service")
            .collect();
        for service in &services {
            assert_eq!(&service["spec"]["selector"], labels);
            assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
        }
        let headless = services
            .iter()
            .find(|service| service["spec"]["clusterIP"] == "None");
        assert_eq!(
            headless.expect("one")["metadata"]["name"],
            set["spec"]["serviceName"]
        );
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], port["name"], "{probe}");
        }
        let names = |list: &Value| -> BTreeSet<String> {
            let each = list.as_array().into_iter().flatten();
            each.map(|item| item["name"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let mut volumes = names(&pod["spec"]["volumes"]);
        for claim in set["spec"]["volumeClaimTemplates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            volumes.insert(claim["metadata"]["name"].as_str().expect("text").to_owned());
        }
        assert_eq!(names(&container["volumeMounts"]), volumes);
        let config_map = one(&objects, "ConfigMap");
        assert_eq!(
            pod["spec"]["volumes"][0]["configMap"]["name"],
            config_map["metadata"]["name"]
        );
        let account = one(&objects, "ServiceAccount");
        assert_eq!(
            pod["spec"]["serviceAccountName"],
            account["metadata"]["name"]
        );
    }
}

#[test]
fn objects_lead_to_the_pods_and_are_where_they_are() {
    for text in [ALONE, THREE, SCALED, ALL] {
        let objects = render(text);
        let set = one(&objects, "StatefulSet");
        for object in &objects {
            let target = &object["spec"]["scaleTargetRef"];
            let fits = target.is_null() || target["name"] == set["metadata"]["name"];
            assert!(fits, "{object:#}");
            let namespace = &object["metadata"]["namespace"];
            assert_eq!(namespace, &set["metadata"]["namespace"], "{object:#}");
        }
    }
    let objects = render(ALL);
    let path = &one(&objects, "Ingress")["spec"]["rules"][0]["http"]["paths"][0];
    assert_eq!(
        path["path"], "/v1",
        "what is for other servers is not for clients"
    );
    assert_eq!(
        path["backend"]["service"]["name"],
        objects[2]["metadata"]["name"]
    );
}

#[test]
fn a_server_takes_the_arguments_and_the_file_of_a_pod() {
    for text in [ALONE, THREE, SCALED, ALL] {
        let objects = render(text);
        let container = &one(&objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().expect("a list");
        let args = args.iter().map(|arg| arg.as_str().expect("text"));
        let parsed = Cli::try_parse_from(["cascade"].into_iter().chain(args));
        assert!(parsed.is_ok(), "{parsed:?}");

        let file = one(&objects, "ConfigMap")["data"]["cascade.yaml"].as_str();
        let read = config(file.expect("text"));
        let whole = config(text);
        assert_eq!(read.deployments, None);
        let whole = Config {
            deployments: None,
            ..whole
        };
        assert_eq!(read, whole, "it says what the operator's file says");
    }
    // The port of the file, on all addresses of the pod.
    let listen = |text: &str| {
        let objects = render(text);
        let container = &one(&objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0];
        (
            container["args"][6].clone(),
            container["ports"][0]["containerPort"].clone(),
        )
    };
    assert_eq!(listen(ALONE), (json!("0.0.0.0:7420"), json!(7420)));
    assert_eq!(listen(ALL), (json!("[::]:8080"), json!(8080)));
}

#[test]
fn a_pod_has_time_to_drain() {
    for (text, grace) in [(THREE, 25), (ALL, 11)] {
        let objects = render(text);
        let pod = &one(&objects, "StatefulSet")["spec"]["template"]["spec"];
        let farewell = &pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
        let whole = pod["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("a number");
        let farewell = farewell.as_u64().expect("a number");
        assert_eq!(whole, farewell + grace + LAST_SECONDS);
    }
}

#[test]
fn secrets_are_referred_to_and_nowhere_else() {
    let objects = render(ALL);
    let pod = &one(&objects, "StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        container["env"][1],
        json!({ "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "database", "key": "password" } } })
    );
    let volume =
        json!({ "name": "secret-1", "secret": { "secretName": "keys", "defaultMode": 0o440 } });
    assert!(pod["volumes"].as_array().expect("a list").contains(&volume));
    let mount =
        json!({ "name": "secret-1", "mountPath": "/run/secrets/cascade", "readOnly": true });
    assert!(
        container["volumeMounts"]
            .as_array()
            .expect("a list")
            .contains(&mount)
    );
}

#[test]
fn only_what_concerns_servers_starts_them_anew() {
    let pod = |text: &str| one(&render(text), "StatefulSet")["spec"]["template"].clone();
    let more = THREE.replace("replicas: 3", "replicas: 5");
    assert_eq!(pod(THREE), pod(&more));
    let other = format!("sharding: {{shards: 7}}\n{THREE}");
    assert_ne!(pod(THREE), pod(&other));
    assert_eq!(render(ALL), render(ALL));
}

#[test]
fn who_scales_sets_the_number() {
    let set = |text: &str| one(&render(text), "StatefulSet")["spec"].clone();
    assert_eq!(set(THREE)["replicas"], 3);
    assert_eq!(set(SCALED)["replicas"], Value::Null);
    assert_eq!(set(ALL)["replicas"], Value::Null);
    let objects = render(SCALED);
    let spec = &one(&objects, "HorizontalPodAutoscaler")["spec"];
    assert_eq!(
        (&spec["minReplicas"], &spec["maxReplicas"]),
        (&json!(1), &json!(8))
    );
    let objects = render(ALL);
    let triggers = &one(&objects, "ScaledObject")["spec"]["triggers"];
    let cpu = json!({ "type": "cpu", "metricType": "Utilization", "metadata": { "value": "75" } });
    assert_eq!(triggers[0], cpu);
    let query = |index: usize| triggers[index]["metadata"]["query"].as_str();
    assert_eq!(
        query(1),
        Some("sum(cascade_queue_depth{namespace=\"workflows\"})")
    );
    let rate = "sum(rate(cascade_workflow_started_total{namespace=\"workflows\"}[2m]))";
    assert_eq!(query(2), Some(rate));
}

#[test]
fn sizes_are_written_exactly() {
    for (size, text) in [
        (10 << 30, "10Gi"),
        (1536 << 20, "1536Mi"),
        (3 << 10, "3Ki"),
        (10_000_000, "10000000"),
    ] {
        assert_eq!(bytes(size), text);
    }
}

#[test]
fn a_file_that_no_config_map_holds_is_refused() {
    let label = "x".repeat(MAX_CONFIG_BYTES);
    let text = format!("{ALONE}tenants: [] # {label}");
    let config = config(ALONE);
    let deployments = config.deployments.as_ref().expect("they are there");
    assert!(
        objects(&config, deployments, &text).is_ok(),
        "comments are left out"
    );
    let text = format!("{ALONE}tenants: ['{label}']");
    assert!(objects(&config, deployments, &text).is_err());
}
