//! Secrets reach the activity that parameters name them to, and nothing else.

use std::fs;
use std::path::Path;

use cascade_tests::{Server, root};
use serde_json::{Value, json};

const SECRET: &str = "correct-horse-battery-staple";

const CDL: &str = r#"
workflows:
  - name: told
    states:
      - name: Call
        type: Task
        resource: urn:cascade:activity:noop
        parameters: { auth: "Bearer {{ secrets.TOKEN }}", data: "{{ workflow.input }}" }
        end: true
  - name: echoed
    states:
      - name: Call
        type: Task
        resource: urn:cascade:activity:echo
        parameters: { auth: "Bearer {{ secrets.TOKEN }}", data: "{{ workflow.input }}" }
        result: $.said
        end: true
  - name: unknown
    states:
      - name: Call
        type: Task
        resource: urn:cascade:activity:echo
        parameters: "{{ secrets.NOBODY }}"
        end: true
"#;

/// Whether a file of the folder has the text in it.
fn holds(folder: &Path, text: &str) -> bool {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry")).any(|entry| {
        if entry.file_type().expect("a type").is_dir() {
            return holds(&entry.path(), text);
        }
        let bytes = fs::read(entry.path()).expect("readable");
        let mut parts = bytes.windows(text.len());
        parts.any(|part| part == text.as_bytes())
    })
}

fn run(server: &Server, workflow: &str, input: &Value) -> Value {
    let input = input.to_string();
    let start = ["process", "start", "--app", "calls", "--workflow", workflow];
    let more = ["--input", &input, "--wait", "--output", "json"];
    server.cli(&[&start[..], &more[..]].concat()).json()
}

#[test]
fn a_secret_reaches_the_activity_and_no_file_of_the_server() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let file = elsewhere.path().join("token");
    fs::write(&file, format!("{SECRET}\n")).expect("a file");
    let secrets = format!("    secrets: {{ TOKEN: 'file:{}' }}", file.display());
    let server = Server::with_tenant(&secrets);
    let fixture = |name: &str| {
        let path = root().join("runtime/tests/fixtures").join(name);
        fs::read_to_string(path).expect("a fixture")
    };
    let noop = format!(
        "(module\n{}\n{})",
        fixture("noop.wat"),
        fixture("prelude.wat")
    );
    server.push_wat("noop", &noop, None);
    server.push("echo", None);
    server.apply("calls", CDL);

    let told = run(&server, "told", &json!("{{ secrets.TOKEN }}"));
    assert_eq!(told["status"], "completed", "{told}");
    assert!(!holds(&server.data(), SECRET), "it is in a file");

    // Data that looks like a secret's name is data.
    let echoed = run(&server, "echoed", &json!("{{ secrets.TOKEN }}"));
    let said = json!({ "auth": format!("Bearer {SECRET}"), "data": "{{ secrets.TOKEN }}" });
    assert_eq!(echoed["output"]["said"], said, "{echoed}");
    // What an activity returns is its own affair: now it is there to be found.
    assert!(holds(&server.data(), SECRET), "the search finds it");

    let unknown = run(&server, "unknown", &json!({}));
    assert_eq!(unknown["status"], "failed", "{unknown}");
    let error = &unknown["error"];
    assert_eq!(error["error"], "SecretNotFound", "{unknown}");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("`NOBODY`"), "{message}");
}
