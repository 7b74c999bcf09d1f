//! What servers are run from: rendered objects, the unit of systemd, the Compose file.
//!
//! There is no cluster and no container engine here. So the files are checked against their
//! schemas, and what they start is started as they say, on this machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cascade_cdl::schema::Schema;
use cascade_tests::postgres::Postgres;
use cascade_tests::{Run, binary, root};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Between what a server takes to stop by itself, and the moment when it is killed.
const LAST: u64 = 10;

const PASSWORD: &str = "an-example's-password";
const OPS_KEY: &str = "ck_ops_0123456789abcdef0123456789abcdef";

/// A server that is killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server and waits until it says where it is.
    fn start(command: &mut Command) -> Self {
        let command = command.env("RUST_LOG", "warn").stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut server = Self {
            child,
            url: String::new(),
        };
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        read.expect("the server says where it is");
        let said: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the server said `{line}`: {error}"));
        said["url"]
            .as_str()
            .expect("a URL")
            .clone_into(&mut server.url);
        server
    }

    fn port(&self) -> &str {
        self.url.rsplit(':').next().expect("a port")
    }
}

/// The binary, which nobody has told anything about a server or a configuration.
fn cascade(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args);
    for name in ["URL", "API_KEY", "CONFIG", "DATABASE", "ADVERTISE"] {
        command.env_remove(format!("CASCADE_{name}"));
    }
    command
}

fn run(args: &[&str]) -> Run {
    Run::of(args, cascade(args).output().expect("the binary runs"))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// A packaged file as text.
fn packaged(name: &str) -> String {
    fs::read_to_string(root().join("packaging").join(name)).expect("it is packaged")
}

/// How long a server takes to stop by itself, in seconds, by default.
fn shutdown_grace() -> u64 {
    let config = run(&["server", "--check", "--output", "json"])
        .succeeds()
        .json();
    seconds(
        config["server"]["shutdown_grace"]
            .as_str()
            .expect("a duration"),
    )
}

fn seconds(text: &str) -> u64 {
    let number = text.strip_suffix('s').expect("seconds");
    number.parse().expect("a number")
}

#[test]
fn a_folder_holds_what_is_rendered_and_nothing_of_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cascade.yaml");
    let objects = folder.path().join("objects");
    let render = |server: &str| {
        let text = format!(
            "database: {{primary: 'postgres://c@db/c'}}\ndeployments: {{image: i, server: {{{server}}}}}\n"
        );
        fs::write(&file, text).expect("a file");
        let args = [
            "render",
            "kubernetes",
            "--config",
            path(&file),
            "--to",
            path(&objects),
        ];
        run(&[&args[..], &["--output", "json"]].concat())
    };
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&objects).expect("a folder");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    };
    let written = render("replicas: 3").succeeds().json();
    assert_eq!(written["removed"], serde_json::json!([]));
    assert_eq!(
        names(),
        [
            "configmap-cascade-config.yaml",
            "poddisruptionbudget-cascade.yaml",
            "service-cascade-nodes.yaml",
            "service-cascade.yaml",
            "serviceaccount-cascade.yaml",
            "statefulset-cascade.yaml",
        ]
    );

    // Somebody's own file stays, and what is not rendered any more goes.
    fs::write(objects.join("namespace.yaml"), "kind: Namespace\n").expect("a file");
    let written = render("replicas: 1").succeeds().json();
    let gone = objects.join("poddisruptionbudget-cascade.yaml");
    assert_eq!(written["removed"], serde_json::json!([gone]));
    assert!(
        names().contains(&"namespace.yaml".to_owned()),
        "{:?}",
        names()
    );
    assert_eq!(names().len(), 6);

    // A file of that name which is somebody's own is not written over, nor is any other.
    let budget = "kind: PodDisruptionBudget\n";
    fs::write(&gone, budget).expect("a file");
    let before = fs::read(objects.join("statefulset-cascade.yaml")).expect("it is there");
    let refused = render("replicas: 5").exits(2);
    assert!(
        refused.stderr.contains("was not made by this command"),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(&gone).expect("it is there"), budget);
    let after = fs::read(objects.join("statefulset-cascade.yaml")).expect("it is there");
    assert_eq!(before, after);
}

#[test]
fn what_cannot_be_rendered_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cascade.yaml");
    let render = |text: &str| {
        fs::write(&file, text).expect("a file");
        run(&["render", "kubernetes", "--config", path(&file)])
            .exits(2)
            .stderr
    };
    let told = render("deployments:\n  image: i\n  workers: {replicas: 3}\n");
    assert!(
        told.contains("cascade.yaml:3:3: deployments.workers: not supported by this version yet"),
        "{told}"
    );
    assert!(
        told.contains("cascade.yaml:1:1: deployments.server: `storage` is missing"),
        "{told}"
    );
    let told = render("data_dir: x\n");
    assert!(told.contains("has no `deployments`"), "{told}");
}

/// The value at a path of a packaged YAML file, merge keys resolved.
fn yaml(text: &str) -> Value {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).expect("YAML");
    value.apply_merge().expect("merge keys lead to mappings");
    serde_json::to_value(value).expect("text keys")
}

#[test]
fn the_compose_file_is_one() {
    let compose = yaml(&packaged("compose/compose.yaml"));
    let schema = fs::read_to_string(root().join("tests/schemas/compose.json")).expect("there");
    let schema = serde_json::from_str(&schema).expect("JSON");
    let schema = Schema::new(schema).expect("a schema that is understood");
    assert_eq!(schema.check(&compose), Ok(()));
    let mut wrong = compose.clone();
    wrong["services"]["server-2"]["hostnames"] = "server-2".into();
    assert!(schema.check(&wrong).is_err(), "unknown keys are refused");

    let services = compose["services"].as_object().expect("a mapping");
    let servers: Vec<_> = services
        .iter()
        .filter(|(name, _)| name.starts_with("server-"))
        .collect();
    assert_eq!(servers.len(), 3);
    for (name, server) in servers {
        assert_eq!(server["hostname"], **name, "the others reach it by that");
        for (kind, of_all) in [
            ("secrets", &compose["secrets"]),
            ("depends_on", &compose["services"]),
        ] {
            let names: Vec<&str> = match &server[kind] {
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                Value::Object(names) => names.keys().map(String::as_str).collect(),
                other => panic!("{kind}: {other}"),
            };
            let unknown = names.iter().find(|name| of_all[**name].is_null());
            assert_eq!(unknown, None, "{name}: {kind}");
        }
        let volume = server["volumes"][0]
            .as_str()
            .and_then(|volume| volume.split(':').next());
        let volumes = compose["volumes"].as_object().expect("a mapping");
        assert!(volumes.contains_key(volume.expect("a name")), "{name}");
        let grace = seconds(server["stop_grace_period"].as_str().expect("a duration"));
        assert!(
            grace >= shutdown_grace() + LAST,
            "{name} is killed while it stops"
        );
    }
}

/// The database as the Compose file has it made, and the file of its servers, less containers.
fn prepare(folder: &Path) -> Postgres {
    let at = |name: &str| folder.join(name);
    fs::write(at("database-password"), PASSWORD).expect("a file");
    fs::write(at("ops-key"), OPS_KEY).expect("a file");
    let postgres = Postgres::start();
    let made = Command::new("bash")
        .arg(root().join("packaging/compose/database.sh"))
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", postgres.port().to_string())
        .env("POSTGRES_PASSWORD_FILE", at("database-password"))
        .output()
        .expect("bash runs");
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{told}");

    let config = packaged("compose/cascade.yaml");
    let place = format!("@127.0.0.1:{}/", postgres.port());
    let config = config.replace("@database:5432/", &place);
    let config = config.replace("/run/secrets", path(folder));
    assert!(config.contains(&place), "{config}");
    fs::write(at("cascade.yaml"), config).expect("a file");
    postgres
}

#[test]
fn three_servers_start_from_the_compose_file_on_one_database() {
    let compose = yaml(&packaged("compose/compose.yaml"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let _postgres = prepare(folder.path());
    let mut servers = Vec::new();
    for name in ["server-1", "server-2", "server-3"] {
        let service = &compose["services"][name];
        let target = service["configs"][0]["target"].as_str().expect("a path");
        let file = at("cascade.yaml");
        let args = service["command"].as_array().expect("a list").iter();
        let args: Vec<&str> = args
            .map(|arg| arg.as_str().expect("text"))
            .map(|arg| if arg == target { path(&file) } else { arg })
            .collect();
        let mut command = cascade(&args);
        command.args(["--output", "json", "--listen", "127.0.0.1:0", "--data"]);
        servers.push(Server::start(command.arg(at(name))));
    }
    let mut nodes = cascade(&["nodes", "--output", "json", "--url", &servers[0].url]);
    let nodes = nodes
        .env("CASCADE_API_KEY", OPS_KEY)
        .output()
        .expect("the binary runs");
    let nodes = Run::of(&["nodes"], nodes).succeeds().json();
    let addresses = nodes["items"].as_array().expect("a list").iter();
    let addresses: Vec<_> = addresses
        .map(|node| node["address"].as_str().expect("text"))
        .collect();
    for server in &servers {
        assert!(addresses.contains(&&*server.url), "{addresses:?}");
    }

    // What Docker asks each server, and what it is told by one that is gone.
    let test = &compose["services"]["server-1"]["healthcheck"]["test"];
    assert_eq!(
        (&test[0], &test[1], &test[2]),
        (&"CMD".into(), &"bash".into(), &"-c".into())
    );
    let test = test[3].as_str().expect("text").replace("$$", "$");
    let healthy = |port: &str| {
        let test = test.replace("7420", port);
        let mut shell = Command::new("bash");
        let shell = shell.args(["-c", &test]).stderr(Stdio::null());
        shell.status().expect("bash runs").success()
    };
    for server in &servers {
        assert!(healthy(server.port()), "{}", server.url);
    }
    let gone = servers.pop().expect("the third");
    let port = gone.port().to_owned();
    drop(gone);
    assert!(!healthy(&port));
}

/// The values of a key of a unit.
fn unit<'u>(text: &'u str, key: &str) -> Vec<&'u str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_unit_starts_a_server_and_lets_it_end() {
    let text = packaged("systemd/cascade.service");
    let grace = seconds(unit(&text, "TimeoutStopSec")[0]);
    assert!(
        grace >= shutdown_grace() + LAST,
        "it is killed while it stops"
    );
    assert_eq!(
        unit(&text, "MemoryDenyWriteExecute"),
        [""; 0],
        "code is compiled and run"
    );
    assert_eq!(
        unit(&text, "OOMPolicy"),
        ["continue"],
        "a compiler that goes takes nobody along"
    );

    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cascade.yaml");
    fs::write(&file, "tenants: [{id: acme}]\n").expect("a file");
    let start = unit(&text, "ExecStart")[0].replace("/etc/cascade/cascade.yaml", path(&file));
    let mut words = start.split(' ');
    assert_eq!(words.next(), Some("/usr/bin/cascade"));
    let args: Vec<&str> = words.chain(["--check"]).collect();
    let shown = run(&args).succeeds().stdout;
    let state = unit(&text, "StateDirectory")[0];
    assert!(
        shown.contains(&format!("data_dir: /var/lib/{state}\n")),
        "{shown}"
    );
    assert!(shown.contains("id: acme"), "{shown}");
}

#[test]
fn systemd_takes_the_unit() {
    let text = packaged("systemd/cascade.service");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cascade.service");
    // It looks whether the program is there.
    fs::write(&file, text.replace("/usr/bin/cascade", path(binary()))).expect("a file");
    for args in [
        &["verify", "--man=no"][..],
        // Of 100: what is open to a service that is not confined at all. A unit without any of it has 96.
        &["security", "--offline=yes", "--no-pager", "--threshold=25"],
    ] {
        let output = Command::new("systemd-analyze")
            .args(args)
            .arg(&file)
            .output();
        let Ok(output) = output else {
            println!("skipped: there is no systemd-analyze on this machine");
            return;
        };
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && told.is_empty(),
            "{args:?}: {told}"
        );
    }
}

#[test]
fn a_service_manager_is_told_when_a_server_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    // Far longer than it takes, so that a server which says nothing fails the test.
    let patience = Some(Duration::from_mins(1));
    socket.set_read_timeout(patience).expect("a time");
    let told = || {
        let mut text = [0; 64];
        let length = socket.recv(&mut text).expect("it is told");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut command = cascade(&[
        "server",
        "--output",
        "json",
        "--listen",
        "127.0.0.1:0",
        "--data",
    ]);
    command
        .arg(folder.path().join("data"))
        .env("NOTIFY_SOCKET", &path);
    let mut server = Server::start(&mut command);
    assert_eq!(told(), "READY=1");
    let id = i32::try_from(server.child.id())
        .ok()
        .and_then(Pid::from_raw);
    kill_process(id.expect("it has an id"), Signal::TERM).expect("it is there");
    assert_eq!(told(), "STOPPING=1");
    assert!(server.child.wait().expect("it ends").success());
}
