//! A Map over a hundred thousand items: each once, in bounded history and memory, though
//! the server is killed in the middle.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use cascade_tests::{Run, Server, binary};
use serde_json::{Value, json};

const ITEMS: usize = 100_000;

/// Twenty items an attempt: what is measured is the way through, not the sandbox.
const CDL: &str = "
workflows:
  double:
    states:
      - name: Double
        type: Map
        items: { object: 'orders/all.ndjson', format: ndjson }
        max_concurrency: 64
        batch: { size: 20 }
        iterator:
          states:
            - { name: One, type: Task, resource: urn:cascade:activity:echo, parameters: '{{ map.item }}', end: true }
        results: { object: reports/ }
        result: $.run
        end: true
";

/// What the server took of memory at most, in KiB.
fn peak_kib(server: &Server) -> u64 {
    let pid = server.pid().expect("the server runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

fn view(server: &Server, id: &str) -> Value {
    let answer = server.request("GET", &format!("/v1/executions/{id}"), &[], "");
    answer.expect("the server answers").body
}

/// The content of an object, as it was written.
fn object(server: &Server, name: &str) -> String {
    server.cli(&["object", "get", name]).succeeds().stdout
}

#[test]
fn a_hundred_thousand_items_are_each_run_once_though_the_server_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("all.ndjson");
    let mut content = String::new();
    for n in 0..ITEMS {
        writeln!(
            content,
            "{{\"order\":{n},\"note\":\"{}\"}}",
            "x".repeat(n % 60)
        )
        .expect("fits");
    }
    fs::write(&file, &content).expect("a file");
    let mut server = Server::start();
    server.push("echo", None);
    server.apply("shop", CDL);
    let file = file.to_str().expect("UTF-8");
    server
        .cli(&["object", "put", "orders/all.ndjson", file])
        .succeeds();
    let started = server.start_execution("shop", "double", &json!({}), "once");
    let started = started.expect("the server answers").body;
    let id = started["id"].as_str().expect("an id").to_owned();
    // In the middle: some chunks are done, most are not.
    let before = loop {
        let events = view(&server, &id)["events"].as_u64().expect("a number");
        if events > 40 {
            break peak_kib(&server);
        }
    };
    server.kill();
    server.restart();
    let end = server.wait(&id);
    assert_eq!(end["status"], "completed", "{end}");
    let run = &end["output"]["run"];
    assert_eq!(run["succeeded"], ITEMS, "{run}");
    let events = end["events"].as_u64().expect("a number");
    let peak = before.max(peak_kib(&server));
    println!("{events} events in the parent, {} MiB at most", peak >> 10);
    assert!(events < 600, "{events} events");
    assert!(peak < 1 << 20, "{peak} KiB");
    server.cli(&["replay", &id]).succeeds();

    let manifest = object(&server, run["manifest"].as_str().expect("a name"));
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["ResultFiles"]["FAILED"], json!([]));
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    let mut lines = content.lines().map(parse);
    let files = manifest["ResultFiles"]["SUCCEEDED"].as_array();
    let files = files.expect("a list").clone();
    assert!(files.len() > 100, "{}", files.len());
    // All files at once: a command each would take longer than the Map.
    let mut indices = BTreeSet::new();
    for file in &files {
        let key = file["Key"].as_str().expect("a key");
        let answer = server.request("GET", &format!("/v1/objects/reports/{key}"), &[], "");
        let answer = answer.expect("the server answers");
        assert_eq!(answer.status, 200);
        for line in answer.text.lines() {
            let entry = parse(line);
            let index = entry["index"].as_u64().expect("a number");
            assert!(indices.insert(index), "{index} is there twice");
            let output = entry["output"].as_array().expect("a batch").clone();
            assert_eq!(entry["input"], Value::Array(output.clone()));
            for item in output {
                assert_eq!(Some(item), lines.next());
            }
        }
    }
    assert_eq!(lines.next(), None);
    assert_eq!(indices.len(), ITEMS / 20);
}

#[test]
fn who_is_of_another_tenant_has_no_objects_of_this_one() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("secret");
    fs::write(&file, "[1]").expect("a file");
    let file = file.to_str().expect("UTF-8");
    server.cli(&["object", "put", "in/secret", file]).succeeds();
    let list = ["object", "list", "in", "--output", "json"];
    let items = server.cli(&list).succeeds().json()["items"].clone();
    assert_eq!(items.as_array().map(Vec::len), Some(1), "{items}");
    let digest = items[0]["digest"].as_str().expect("a digest").to_owned();
    for (method, path) in [
        ("GET", "/v1/objects/in/secret".to_owned()),
        ("DELETE", "/v1/objects/in/secret".to_owned()),
        ("GET", format!("/v1/objects/in/{digest}")),
        ("GET", format!("/v1/objects/in/..%2F..%2F{digest}")),
    ] {
        let answer = server.attack(method, &path).expect("the server answers");
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.body);
    }
    let listed = server.attack("GET", "/v1/objects/in").expect("answers");
    assert_eq!(listed.body["items"], json!([]), "{}", listed.body);
    assert_eq!(object(&server, "in/secret"), "[1]");
}

#[test]
fn a_file_stands_for_an_object_where_there_is_no_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cdl = "
states:
  - name: Each
    type: Map
    items: { object: 'in/rows.csv', format: csv, delimiter: ';' }
    max_concurrency: 2
    iterator: { states: [{ name: Say, type: Pass, parameters: '{{ map.index }}{{ map.item.a }}', result: $.said, next: End }, { name: End, type: Succeed, output: '{{ $.said }}' }] }
    results: { object: out/ }
    result: $.all
    end: true
";
    fs::write(folder.path().join("rows.yaml"), cdl).expect("can write");
    fs::write(folder.path().join("rows.csv"), "a;b\nx;1\ny;2\n").expect("can write");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(binary())
            .args(args)
            .current_dir(folder.path())
            .output();
        Run::of(args, output.expect("the binary runs"))
    };
    let given = run(&["run", "rows.yaml", "--object", "in/rows.csv=rows.csv"]).succeeds();
    assert_eq!(given.json(), json!({"all": ["0x", "1y"]}));
    let missing = run(&["run", "rows.yaml"]).exits(1);
    assert!(
        missing.stderr.contains("--object in/rows.csv=FILE"),
        "{missing:?}"
    );
    let sim = ["sim", "rows.yaml", "--runs", "20", "--faults", "crashes"];
    run(&[&sim[..], &["--object", "in/rows.csv=rows.csv"]].concat()).succeeds();
    let test = "tests:\n  - name: rows\n    expect: { output: { all: [0x, 1y] } }\n";
    fs::write(folder.path().join("rows.test.yaml"), test).expect("can write");
    run(&["test", "--object", "in/rows.csv=rows.csv"]).succeeds();
}
