//! Activities in other languages than Rust run to their ends, and fail by name.

use std::hash::Hasher as _;
use std::process::Command;

use cascade_tests::{Server, root};
use serde_json::{Value, json};

/// Runs one activity, of an application named after it; gives the execution.
fn run(server: &Server, activity: &str, input: &Value) -> Value {
    let key = format!("{activity}-{input}");
    let answer = server.start_execution(activity, activity, input, &key);
    let answer = answer.expect("the server answers");
    assert_eq!(answer.status, 202, "{}", answer.body);
    server.wait(answer.body["id"].as_str().expect("an id"))
}

/// Brings an activity and a workflow that calls it with its own input.
fn bring(server: &Server, activity: &str) {
    let wasm = root().join(format!("target/guest/polyglot/{activity}.wasm"));
    let wasm = wasm.to_str().expect("the workspace's path is UTF-8");
    let pushed = server.cli(&["activity", "push", wasm, "--output", "json"]);
    assert_eq!(pushed.succeeds().json()["pure"], true, "{activity}");
    let cdl = format!(
        "workflows:\n  - name: {activity}\n    states:\n      - {{ name: Call, type: Task, \
         resource: 'urn:cascade:activity:{activity}', parameters: '{{{{ workflow.input.value }}}}', \
         timeout: 60s, result: $.answer, end: true }}\n"
    );
    server.apply(activity, &cdl);
}

/// As examples/polyglot/README.md has them. Those whose compilers cannot be had
/// here are skipped, and the script says why.
#[test]
fn activities_in_other_languages_run() {
    let script = Command::new(root().join("scripts/polyglot.sh")).output();
    let script = script.expect("the script runs");
    let said = String::from_utf8(script.stdout).expect("it prints UTF-8");
    println!("{said}");
    assert!(script.status.success(), "{said}");
    let built = |name: &str| {
        let lines = [format!("built {name}"), format!("fresh {name}")];
        let built = said.lines().any(|line| lines.iter().any(|l| l == line));
        assert!(
            built || said.contains(&format!("skipped {name}: ")),
            "{said}"
        );
        built
    };

    let mut hasher = fnv::FnvHasher::default();
    hasher.write(br#"{"a":[1,"x"]}"#);
    let hash = format!("{:016x}", hasher.finish());
    let cases = [
        (
            "fingerprint_c",
            json!({ "a": [1, "x"] }),
            json!({ "fnv1a64": hash, "bytes": 13 }),
            (json!(null), "NothingToHash"),
        ),
        (
            "slug_js",
            json!({ "title": "Hello, World!" }),
            json!({ "slug": "hello-world" }),
            (json!({ "title": 7 }), "InvalidInput"),
        ),
        (
            "statistics_py",
            json!([1, 2, 3, 4]),
            // The deviation is the root of 5/3.
            json!({ "mean": 2.5, "median": 2.5, "deviation": (5.0_f64 / 3.0).sqrt() }),
            (json!([1]), "InvalidInput"),
        ),
    ];
    let server = Server::start();
    for (activity, input, output, (wrong, error)) in cases {
        if !built(activity) {
            continue;
        }
        bring(&server, activity);
        let done = run(&server, activity, &json!({ "value": input }));
        assert_eq!(done["status"], "completed", "{done}");
        assert_eq!(done["output"]["answer"], output, "{done}");
        let failed = run(&server, activity, &json!({ "value": wrong }));
        assert_eq!(failed["error"]["error"], error, "{failed}");
    }
}
