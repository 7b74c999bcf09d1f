use super::*;

const KEY: &str = "ck_ops_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("cascade.yaml", text, &|name| {
        (name == "OPS_KEY").then(|| KEY.to_owned())
    })
}

/// Checks that `text` has exactly these problems, each `LINE:COLUMN: PATH: START OF MESSAGE`.
fn check(text: &str, expected: &[&str]) {
    let found = parse(text).expect_err("the file has problems").to_string();
    let found: Vec<&str> = found
        .lines()
        .map(|line| line.strip_prefix("cascade.yaml:").unwrap_or(line))
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.starts_with(expected),
            "{found}\nshould start with\n{expected}"
        );
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse(""), Ok(Config::default()));
    assert_eq!(
        Config::default().sharding.shards,
        10,
        "the language's default"
    );
    assert!(Config::default().server.listen.ip().is_loopback());
}

#[test]
fn units_and_plain_numbers_mean_the_same() {
    let human = "tenants: [{id: a, limits: {memory_bytes: 64MiB, attempt_timeout: 1m30s, key_value_bytes: 1GiB}}]";
    let plain = "tenants: [{id: a, limits: {memory_bytes: 67108864, attempt_timeout: 90, key_value_bytes: 1073741824}}]";
    let (human, plain) = (parse(human).expect("valid"), parse(plain).expect("valid"));
    assert_eq!(human, plain);
    assert_eq!(human.tenants[0].limits.attempt().attempt_timeout_ms, 90_000);
    assert_eq!(human.tenants[0].limits.memory_bytes, 64 << 20);
    assert_eq!(human.tenants[0].limits.key_value_bytes, 1 << 30);
}

#[test]
fn all_problems_are_reported_together_with_their_places() {
    check(
        "server:\n  lisen: 127.0.0.1:1\ntenants:\n  - id: Ä\n  - limits: {memory_bytes: lots}\n  - id: a\n  - id: a\n    weight: 0\nsharding: {shards: 0}\n",
        &[
            "2:3: server.lisen: unknown field `lisen`",
            "4:5: tenants[0].id: tenant `Ä` must be",
            "5:5: tenants[1]: `id` is missing",
            "5:14: tenants[1].limits.memory_bytes: invalid value: string \"lots\", expected a size",
            "7:5: tenants[3].id: tenant `a` is there twice",
            "8:5: tenants[3].weight: ",
            "9:12: sharding.shards: must be from 1 to 1000000, not 0",
        ],
    );
}

#[test]
fn a_slip_of_the_pen_gets_a_suggestion() {
    let problems = parse("sharding: {shard: 5}").expect_err("no such key");
    assert!(
        problems.list[0].message.ends_with("did you mean `shards`?"),
        "{problems}"
    );
}

#[test]
fn what_a_later_version_will_know_is_refused_as_such() {
    check(
        "cache: {}\nalerts: []\nregions: []\ntenants: [{id: a, database: x}]\nfoo: 1\n",
        &[
            "1:1: cache: not supported by this version yet",
            "2:1: alerts: not supported by this version yet",
            "3:1: regions: not supported by this version yet",
            "4:19: tenants[0].database: not supported by this version yet",
            "5:1: foo: unknown field `foo`",
        ],
    );
}

#[test]
fn a_database_is_a_file_or_a_server() {
    assert_eq!(parse("").expect("valid").database.place, Place::Own);
    let config = parse("database: {url: 'sqlite:/a/b.db'}").expect("valid");
    assert_eq!(config.database_path(), PathBuf::from("/a/b.db"));
    for text in [
        "database: {url: 'postgres://u@h/d', password: '${OPS_KEY}', connections: 4}",
        "database: {primary: 'postgresql://u@h/d', password: '${OPS_KEY}', connections: 4}",
    ] {
        let config = parse(text).expect("valid");
        let Place::Postgres(settings) = &config.database.place else {
            panic!("{:?}", config.database.place);
        };
        assert_eq!(settings.password.as_deref(), Some(KEY));
        assert_eq!(settings.connections, 4);
        let shown = format!("{config:?}{}", config.effective());
        assert!(!shown.contains(KEY), "the password is nowhere shown");
    }
    let whole = Config::parse("f", "database: {url: '${URL}'}", &|name| {
        (name == "URL").then(|| "postgres://u:hunter2@h/d".to_owned())
    });
    let whole = whole.expect("valid");
    assert!(matches!(whole.database.place, Place::Postgres(_)));
    let shown = format!("{whole:?}{}", whole.effective());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_database_that_cannot_be_is_a_problem_that_keeps_the_password() {
    for (text, problem) in [
        (
            "url: 'mysql://h/d'",
            "1:12: database.url: must be `sqlite:PATH` or",
        ),
        (
            "url: 'postgres://u:hunter2@h/d'",
            "1:12: database.url: a password stands in the file by reference only",
        ),
        (
            "url: 'postgres://h/d?password=hunter2'",
            "1:12: database.url: a password stands in the file by reference only",
        ),
        ("url: 'postgres://h:port/d'", "1:12: database.url: "),
        (
            "url: '${MISSING}'",
            "1:12: database.url: the environment has no variable `MISSING`",
        ),
        (
            "url: 'sqlite:a', password: '${OPS_KEY}'",
            "1:12: database.url: a file has no password",
        ),
        (
            "url: 'sqlite:a', primary: 'sqlite:b'",
            "1:29: database.primary: `url` and `primary` mean the same",
        ),
        (
            "connections: 1",
            "1:12: database.connections: must be from 4",
        ),
    ] {
        let text = format!("database: {{{text}}}");
        check(&text, &[problem]);
        let problems = parse(&text).expect_err("it has one").to_string();
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn a_primary_has_replicas_with_its_password() {
    let text = "database:\n  primary: 'postgres://u@h/d'\n  password: '${OPS_KEY}'\n  max_lag: 3s\n  replicas: ['postgres://u@r1/d', '${REPLICA}']\n  replica_connections: 7\n";
    let config = Config::parse("f", text, &|name| match name {
        "OPS_KEY" => Some(KEY.to_owned()),
        "REPLICA" => Some("postgres://u:hunter2@r2/d".to_owned()),
        _ => None,
    });
    let config = config.expect("valid");
    let Place::Postgres(settings) = &config.database.place else {
        panic!("{:?}", config.database.place);
    };
    let urls = ["postgres://u@r1/d", "postgres://u:hunter2@r2/d"].map(str::to_owned);
    assert_eq!(settings.replicas.urls, urls);
    assert_eq!(settings.replicas.connections, 7);
    assert_eq!(settings.replicas.max_lag, Duration::from_secs(3));
    let shown = format!("{config:?}{}", config.effective());
    assert!(shown.contains("${REPLICA}"), "{shown}");
    assert!(
        !shown.contains("hunter2") && !shown.contains(KEY),
        "{shown}"
    );
    let elsewhere = Config::parse_for_elsewhere("f", text);
    assert_eq!(
        elsewhere
            .expect("nothing is looked up")
            .database
            .replicas
            .len(),
        2
    );
}

#[test]
fn all_that_is_wrong_with_replicas_is_told_together() {
    check(
        "database:\n  url: 'postgres://h/d'\n  primary: 'postgres://h/d'\n  connections: 4\n  max_lag: 1h\n  replica_connections: 1\n  replicas:\n  - 'postgres://u:hunter2@r/d'\n  - 'sqlite:x'\n  - 'mysql://r/d'\n  - '${MISSING}'\n  - 'postgres://r/d'\n  - 'postgres://r/d'\n",
        &[
            "3:3: database.primary: `url` and `primary` mean the same",
            "4:3: database.connections: must be from 5 to 1000, not 4",
            "5:3: database.max_lag: must be from 1s to 5m",
            "6:3: database.replica_connections: must be from 2 to 1000, not 1",
            "8:5: database.replicas[0]: a password stands in the file by reference only",
            "9:5: database.replicas[1]: a file has no replicas",
            "10:5: database.replicas[2]: must be `sqlite:PATH` or",
            "11:5: database.replicas[3]: the environment has no variable `MISSING`",
            "13:5: database.replicas[5]: this replica is there twice",
        ],
    );
    let many = vec!["'postgres://r/d'"; 17].join(", ");
    let problems = parse(&format!(
        "database: {{primary: 'postgres://h/d', replicas: [{many}]}}"
    ));
    let problems = problems.expect_err("too many").to_string();
    assert!(
        problems.contains("database.replicas: at most 16 replicas"),
        "{problems}"
    );
}

#[test]
fn a_file_has_no_replicas() {
    for place in ["", "url: 'sqlite:a', "] {
        let text = format!("database: {{{place}replicas: ['postgres://r/d']}}");
        let problems = parse(&text).expect_err("a file").to_string();
        assert!(
            problems.contains("database.replicas: a SQLite file has no replicas: leave them out"),
            "{problems}"
        );
    }
    parse("database: {replicas: []}").expect("there are none");
}

#[test]
fn a_key_refers_to_its_secret() {
    let config = parse("server: {admin_keys: [{id: ops, secret: '${OPS_KEY}'}]}").expect("valid");
    assert_eq!(config.server.admin_keys[0].digest, Some(Digest::of(KEY)));
    let shown = format!("{config:?}{}", config.effective());
    assert!(
        !shown.contains("0123456789abcdef"),
        "the secret is nowhere shown"
    );
}

#[test]
fn secrets_of_a_tenant_are_found_when_the_file_is_read_and_shown_nowhere() {
    let config = parse("tenants: [{id: a, secrets: {TOKEN: '${OPS_KEY}'}}]").expect("valid");
    let secret = config.tenants[0].secrets["TOKEN"].value();
    assert_eq!(secret.map(|text| &**text), Some(KEY));
    let shown = format!("{config:?}{}", config.effective());
    assert!(shown.contains("${OPS_KEY}"), "{shown}");
    assert!(!shown.contains("0123456789abcdef"), "{shown}");
    check(
        "tenants:\n- id: a\n  secrets:\n    A: hunter2\n    B: '${MISSING}'\n    C: 'file:/nowhere'\n    7d: '${OPS_KEY}'\n    a.b: '${OPS_KEY}'\n    E: 'file:/dev/null'\n",
        &[
            "4:5: tenants[0].secrets.A: a secret is given by reference",
            "5:5: tenants[0].secrets.B: the environment has no variable `MISSING`",
            "6:5: tenants[0].secrets.C: /nowhere cannot be read",
            "7:5: tenants[0].secrets.7d: a secret's name has letters",
            "8:5: tenants[0].secrets.a.b: a secret's name has letters",
            "9:5: tenants[0].secrets.E: what it refers to is empty",
        ],
    );
    let many: Vec<_> = (0..257).map(|n| format!("N{n}: '${{OPS_KEY}}'")).collect();
    let many = many.join(", ");
    let text = format!("tenants: [{{id: a, secrets: {{{many}}}}}]");
    check(&text, &["1:19: tenants[0].secrets: at most 256 secrets"]);
}

#[test]
fn a_key_that_cannot_work_is_a_problem_that_keeps_the_secret() {
    check(
        "server:\n  admin_keys:\n  - {id: a, secret: hunter2}\n  - {id: b, secret: '${MISSING}'}\n  - {id: c, secret: '${OPS_KEY}'}\n  - {id: 'no_t', hash: abc}\n  - {id: d, role: admin}\n",
        &[
            "3:13: server.admin_keys[0].secret: a secret is given by reference",
            "4:13: server.admin_keys[1].secret: the environment has no variable `MISSING`",
            "5:13: server.admin_keys[2].secret: what it refers to is not the key with id `c`",
            "6:6: server.admin_keys[3].id: must be",
            "6:18: server.admin_keys[3].hash: a digest",
            "7:5: server.admin_keys[4]: `hash` or `secret` is missing",
            "7:13: server.admin_keys[4].role: keys of the server have no role",
        ],
    );
    let problems = parse("server: {admin_keys: [{id: a, secret: hunter2}]}").expect_err("literal");
    assert!(!problems.to_string().contains("hunter2"));
}

#[test]
fn the_effective_configuration_reads_back() {
    let text = "tenants: [{id: a, weight: 3, policy: {capabilities: [http], http: {hosts: ['*.example.com']}}}]";
    let config = parse(text).expect("valid");
    assert_eq!(parse(&config.effective()), Ok(config));
}

#[test]
fn a_password_in_a_url_is_not_shown() {
    for (url, shown) in [
        ("sqlite:/a/b", "sqlite:/a/b"),
        ("postgres://u:p@h/d", "postgres://u:***@h/d"),
        ("postgres://u:p@q@h", "postgres://u:***@h"),
        ("postgres://u@h/d", "postgres://u@h/d"),
        ("postgres://h/d?x=a@b", "postgres://h/d?x=a@b"),
        ("postgres://h/d?password=p&x=1", "postgres://h/d?x=1"),
    ] {
        assert_eq!(redact_url(url), shown);
    }
}

#[test]
fn the_documented_example_is_valid() {
    let page = include_str!("../../../docs/configuration.md");
    let start = page.find("```yaml").expect("the page has an example") + "```yaml".len();
    let example = &page[start..];
    let example = &example[..example.find("```").expect("the example ends")];
    parse(example).expect("the example of docs/configuration.md");
}

#[test]
fn a_cluster_has_leases_of_a_sensible_length_and_an_address() {
    let config = parse("cluster: {advertise: 'http://10.0.0.7:7420', lease_ttl: 5s}");
    let cluster = config.expect("valid").cluster;
    assert_eq!(cluster.advertise.as_deref(), Some("http://10.0.0.7:7420"));
    assert_eq!(cluster.lease_ttl, Duration::from_secs(5));
    assert_eq!(cluster.shards, ClusterConfig::default().shards);
    for (text, problem) in [
        (
            "lease_ttl: 100ms",
            "1:11: cluster.lease_ttl: must be from 500ms to 1m",
        ),
        (
            "lease_ttl: 2m",
            "1:11: cluster.lease_ttl: must be from 500ms to 1m",
        ),
        ("shards: 0", "1:11: cluster.shards: must be from 1 to 256"),
        (
            "advertise: 'node:7420'",
            "1:11: cluster.advertise: must be `http://",
        ),
        (
            "advertise: 'http://'",
            "1:11: cluster.advertise: must be `http://",
        ),
        ("heartbeat: 1s", "1:11: cluster.heartbeat: "),
    ] {
        check(&format!("cluster: {{{text}}}"), &[problem]);
    }
}

#[test]
fn a_schema_is_of_one_tenant_and_of_a_server() {
    let config = parse("database: {url: 'postgres://db/x'}\ntenants: [{id: a, schema: acme}]");
    let config = config.expect("valid");
    assert_eq!(config.tenants[0].schema.as_deref(), Some("acme"));
    check(
        "database: {url: 'postgres://db/x'}\ntenants:\n- {id: a, schema: x}\n- {id: b, schema: x}\n\
         - {id: c, schema: public}\n- {id: d, schema: 'a b'}\n",
        &[
            "4:11: tenants[1].schema: schema `x` is another tenant's, too",
            "5:11: tenants[2].schema: this schema is PostgreSQL's own",
            "6:11: tenants[3].schema: a schema is named by letters",
        ],
    );
    check(
        "database: {url: 'sqlite:x.db'}\ntenants: [{id: a, schema: x}]",
        &["2:19: tenants[0].schema: a file has no schemas"],
    );
}
