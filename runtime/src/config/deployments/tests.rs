use super::*;
use crate::config::Config;

/// A file that is right, whose `deployments.server` has these keys.
fn with_server(server: &str) -> String {
    format!(
        "database: {{primary: 'postgres://cascade@db/cascade'}}\ndeployments:\n  image: i\n  server: {{{server}}}\n"
    )
}

/// Checks that `text` has exactly these problems, each `LINE:COLUMN: PATH: START OF MESSAGE`.
fn check(text: &str, expected: &[&str]) {
    let found = Config::parse_for_elsewhere("f", text).expect_err("the file has problems");
    let found = found.to_string();
    let found: Vec<&str> = found.lines().map(|line| &line["f:".len()..]).collect();
    assert_eq!(found.len(), expected.len(), "{text}{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let fits = found.starts_with(expected);
        assert!(fits, "{found}\nshould start with\n{expected}");
    }
}

fn parse(text: &str) -> Deployments {
    let config = Config::parse_for_elsewhere("f", text).expect("the file is right");
    config.deployments.expect("it has deployments")
}

#[test]
fn what_is_not_said_is_by_default() {
    let found = parse(&with_server(""));
    let expected = Deployments {
        image: Some("i".to_owned()),
        ..Deployments::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn processor_time_reads_as_people_write_it() {
    for (text, millis) in [
        ("2", Some(2000)),
        ("0.5", Some(500)),
        ("1.25", Some(1250)),
        ("500m", Some(500)),
        ("0.0001", None),
        ("-1", None),
        ("m", None),
        ("1.", None),
        (".5", None),
        ("1e3", None),
        ("99999999999999999999", None),
        ("9999999999999999999", None), // beyond 64 bits in thousandths
    ] {
        let found = Cpu::parse(text);
        assert_eq!(found.map(|cpu| cpu.millis), millis, "{text}");
    }
    let found = parse(&with_server(
        "resources: {requests: {cpu: 0.5}, limits: {cpu: 2}}",
    ));
    let resources = found.server.resources;
    assert_eq!(resources.requests.cpu.to_string(), "500m");
    assert_eq!(
        resources.limits.cpu.map(|cpu| cpu.to_string()).as_deref(),
        Some("2")
    );
    assert_eq!(
        resources.requests.memory,
        Requests::default().memory,
        "as by default"
    );
}

#[test]
fn roles_of_their_own_are_refused_by_name() {
    check(
        "deployments:\n  image: i\n  server: {storage: {size: 1GiB}}\n  workers: {replicas: 3}\n  api: {}\n  engine: {}\n  wrokers: {}\n",
        &[
            "4:3: deployments.workers: not supported by this version yet: every server has all roles",
            "5:3: deployments.api: not supported by this version yet",
            "6:3: deployments.engine: not supported by this version yet",
            "7:3: deployments.wrokers: unknown field `wrokers`",
        ],
    );
}

#[test]
fn what_cannot_be_is_reported_with_its_place() {
    for (server, problem) in [
        (
            "replicas: 0",
            "4:12: deployments.server.replicas: must be at least 1",
        ),
        (
            "replicas: 17",
            "4:12: deployments.server.replicas: at most one for each shard, of which there are 16",
        ),
        (
            "replicas: 2, max_unavailable: 2",
            "4:25: deployments.server.max_unavailable: must be at least 1, and less",
        ),
        (
            "resources: {requests: {cpu: many}}",
            "4:35: deployments.server.resources.requests.cpu: invalid value: string \"many\", expected a number of cores",
        ),
        (
            "resources: {requests: {cpu: 3}, limits: {cpu: 2}}",
            "4:35: deployments.server.resources.requests.cpu: must be more than 0",
        ),
        (
            "resources: {requests: {memory: 8GiB}}",
            "4:35: deployments.server.resources.requests.memory: must be more than 0",
        ),
        (
            "storage: {class: fast}",
            "4:12: deployments.server.storage: `size` is missing",
        ),
        (
            "storage: {size: 1GiB, class: Fast}",
            "4:34: deployments.server.storage.class: must be a name",
        ),
        (
            "service: {type: Internal}",
            "4:22: deployments.server.service.type: unknown variant `Internal`",
        ),
        (
            "service: {port: 0}",
            "4:22: deployments.server.service.port: must be from 1",
        ),
    ] {
        check(&with_server(server), &[problem]);
    }
}

#[test]
fn what_cannot_be_around_servers_is_reported_with_its_place() {
    for (server, problem) in [
        (
            "ingress: {}",
            "4:12: deployments.server.ingress: `host` is missing",
        ),
        (
            "ingress: {host: 'a b'}",
            "4:22: deployments.server.ingress.host: must be a name",
        ),
        (
            "autoscaling: {cpu: 70}",
            "4:12: deployments.server.autoscaling: `max_replicas` is missing",
        ),
        (
            "autoscaling: {max_replicas: 1, cpu: 70}",
            "4:26: deployments.server.autoscaling.max_replicas: must be more than `replicas`",
        ),
        (
            "autoscaling: {max_replicas: 40, cpu: 70}",
            "4:26: deployments.server.autoscaling.max_replicas: at most one for each shard",
        ),
        (
            "autoscaling: {max_replicas: 4}",
            "4:12: deployments.server.autoscaling: `cpu` or `memory` or `prometheus` is missing",
        ),
        (
            "autoscaling: {max_replicas: 4, memory: 0}",
            "4:43: deployments.server.autoscaling.memory: must be from 1",
        ),
    ] {
        check(&with_server(server), &[problem]);
    }
    check(
        "deployments: {name: 9lives, namespace: a.b, image: 'a b', image_pull_secrets: [A], server: {storage: {size: 1GiB}}}",
        &[
            "1:15: deployments.name: must be 1 to 40 characters",
            "1:29: deployments.namespace: must be 1 to 63 characters",
            "1:45: deployments.image: must be the name of an image",
            "1:80: deployments.image_pull_secrets[0]: must be a name",
        ],
    );
    check(
        "deployments: {server: {storage: {size: 1GiB}}}",
        &["1:1: deployments: `image` is missing"],
    );
}

#[test]
fn metrics_to_scale_by_are_those_of_servers() {
    let scaling = |prometheus: &str| {
        with_server(&format!(
            "autoscaling: {{max_replicas: 4, prometheus: {{{prometheus}}}}}"
        ))
    };
    let found = parse(&scaling(
        "address: 'http://p:9090', metrics: {cascade_queue_depth: 100}",
    ));
    let prometheus = found
        .server
        .autoscaling
        .and_then(|scaling| scaling.prometheus);
    assert_eq!(
        prometheus.expect("it is there").metrics[&Metric::QueueDepth],
        100
    );
    for (prometheus, problem) in [
        (
            "address: 'p:9090', metrics: {cascade_queue_depth: 1}",
            "4:56: deployments.server.autoscaling.prometheus.address: must be `http://",
        ),
        (
            "metrics: {cascade_queue_depth: 1}",
            "4:43: deployments.server.autoscaling.prometheus: `address` is missing",
        ),
        (
            "address: 'http://p'",
            "4:43: deployments.server.autoscaling.prometheus: `metrics` is missing",
        ),
        (
            "address: 'http://p', metrics: {cascade_queue_depth: 0}",
            "4:77: deployments.server.autoscaling.prometheus.metrics: what is enough",
        ),
        (
            "address: 'http://p', selector: '{a=\"b\"}', metrics: {cascade_queue_depth: 1}",
            "4:77: deployments.server.autoscaling.prometheus.selector: must be what stands between",
        ),
    ] {
        check(&scaling(prometheus), &[problem]);
    }
    let slip = Config::parse_for_elsewhere(
        "f",
        &scaling("address: 'http://p', metrics: {cascade_queue_dept: 1}"),
    );
    let slip = slip.expect_err("there is no such metric").to_string();
    assert!(
        slip.contains("did you mean `cascade_queue_depth`?"),
        "{slip}"
    );
    for metric in [
        Metric::QueueDepth,
        Metric::WorkflowActive,
        Metric::WorkflowBytes,
        Metric::WorkflowStarted,
        Metric::ActivityExecutions,
    ] {
        let name = serde_json::to_value(metric).expect("text");
        assert_eq!(name, metric.name(), "the file names it as servers do");
    }
}

#[test]
fn several_servers_need_a_database_and_one_needs_a_volume() {
    check(
        "deployments:\n  image: i\n  server: {replicas: 3}\n",
        &[
            "3:3: deployments.server: `storage` is missing",
            "3:12: deployments.server.replicas: several servers share a PostgreSQL",
        ],
    );
    parse("deployments:\n  image: i\n  server: {storage: {size: 10GiB}}\n");
    parse(
        "database: {url: '${URL}'}\ndeployments:\n  image: i\n  server: {replicas: 3, secrets: [{name: s, environment: {URL: url}}]}\n",
    );
}

#[test]
fn what_the_file_refers_to_has_to_get_there() {
    let file = "server: {admin_keys: [{id: ops, secret: 'file:/run/keys/ops'}]}\ndatabase: {primary: 'postgres://u@h/d', password: '${PASSWORD}', replicas: ['postgres://u@r/d', '${REPLICA}']}\ntenants: [{id: a, keys: [{id: b, role: admin, secret: '${KEY}'}], secrets: {TOKEN: 'file:/run/other/deep/token'}}]\ndeployments:\n  image: i\n";
    check(
        file,
        &[
            "1:33: server.admin_keys[0].secret: no Secret in `deployments.server.secrets` has the folder of `/run/keys/ops`",
            "2:41: database.password: no Secret in `deployments.server.secrets` gives the variable `PASSWORD`",
            "2:97: database.replicas[1]: no Secret in `deployments.server.secrets` gives the variable `REPLICA`",
            "3:47: tenants[0].keys[0].secret: no Secret in `deployments.server.secrets` gives the variable `KEY`",
            "3:77: tenants[0].secrets.TOKEN: no Secret in `deployments.server.secrets` has the folder of",
        ],
    );
    let given = "  server:\n    secrets:\n    - {name: database, environment: {PASSWORD: password, KEY: key, REPLICA: replica}}\n    - {name: keys, mount: /run/keys/}\n    - {name: deep, mount: /run/other/deep}\n";
    parse(&format!("{file}{given}"));
}

#[test]
fn secrets_that_cannot_work_are_reported() {
    for (secret, problem) in [
        (
            "name: a",
            "4:22: deployments.server.secrets[0]: `environment` or `mount` is missing",
        ),
        (
            "mount: /run/a",
            "4:22: deployments.server.secrets[0]: `name` is missing",
        ),
        (
            "name: a, environment: {CASCADE_DATABASE: url}",
            "4:46: deployments.server.secrets[0].environment.CASCADE_DATABASE: this variable changes",
        ),
        (
            "name: a, environment: {7a: url}",
            "4:46: deployments.server.secrets[0].environment.7a: a variable has",
        ),
        (
            "name: a, environment: {A: 'u/l'}",
            "4:46: deployments.server.secrets[0].environment.A: a key of a Secret has",
        ),
        (
            "name: a, mount: run",
            "4:32: deployments.server.secrets[0].mount: must be an absolute path",
        ),
        (
            "name: a, mount: /run/../x",
            "4:32: deployments.server.secrets[0].mount: must be an absolute path",
        ),
        (
            "name: a, mount: /etc",
            "4:32: deployments.server.secrets[0].mount: must not be, hold or lie in",
        ),
        (
            "name: a, mount: /var/lib/cascade/data",
            "4:32: deployments.server.secrets[0].mount: must not be, hold or lie in",
        ),
        (
            "name: a, mount: /a}, {name: b, mount: /a/b",
            "4:54: deployments.server.secrets[1].mount: must not be, hold or lie in",
        ),
        (
            "name: a, mount: /a}, {name: a, mount: /b",
            "4:45: deployments.server.secrets[1].name: secret `a` is there twice",
        ),
        (
            "name: a, environment: {A: a}}, {name: b, environment: {A: a}",
            "4:78: deployments.server.secrets[1].environment.A: `A` is there twice",
        ),
    ] {
        check(
            &with_server(&format!("secrets: [{{{secret}}}]")),
            &[problem],
        );
    }
}

#[test]
fn pods_share_a_file_and_have_addresses_of_their_own() {
    let rest = "deployments: {image: i, server: {storage: {size: 1GiB}}}\n";
    for (text, problem) in [
        (
            "server: {listen: '10.0.0.7:7420'}",
            "1:10: server.listen: pods have addresses of their own",
        ),
        (
            "server: {listen: '0.0.0.0:0'}",
            "1:10: server.listen: pods have addresses of their own",
        ),
        (
            "cluster: {advertise: 'http://a:7420'}",
            "1:11: cluster.advertise: each pod has an address of its own",
        ),
        (
            "database: {url: 'sqlite:/data/x.db'}",
            "1:12: database.url: the file lies in the volume",
        ),
    ] {
        check(&format!("{text}\n{rest}"), &[problem]);
    }
    for listen in ["127.0.0.1:80", "0.0.0.0:7420", "'[::]:7420'"] {
        parse(&format!("server: {{listen: {listen}}}\n{rest}"));
    }
}

#[test]
fn it_reads_back_as_it_was() {
    let text = with_server(
        "replicas: 3, storage: {size: 20GiB}, ingress: {host: a.example}, autoscaling: {max_replicas: 9, cpu: 70, prometheus: {address: 'http://p', metrics: {cascade_queue_depth: 5}}}, secrets: [{name: s, mount: /run/s, environment: {A: a}}]",
    );
    let config = Config::parse_for_elsewhere("f", &text).expect("the file is right");
    let again = Config::parse_for_elsewhere("f", &config.effective());
    assert_eq!(again.expect("it reads"), config);
}
