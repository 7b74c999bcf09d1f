//! `cascade lsp`, as an editor speaks with it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cascade_tests::binary;
use serde_json::{Value, json};
use tempfile::TempDir;

const ORDERS: &str = "\
apiVersion: cascade.io/v1
kind: Application
metadata: { name: orders }
spec:
  workflows:
    process:
      states:
        - name: Charge
          type: Task
          resource: urn:cascade:activity:charge_card
          timeout: 30s
          next: Don
        - { name: Done, type: Succeed }
";

/// An editor with one folder.
struct Editor {
    server: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    folder: TempDir,
    last_id: i32,
}

impl Editor {
    /// Starts the server in a folder of some files, and says hello.
    fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("a folder");
            fs::write(path, text).expect("written");
        }
        let mut server = Command::new(binary())
            .args(["lsp", "--stdio"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut editor = Self {
            input: server.stdin.take(),
            output: BufReader::new(server.stdout.take().expect("piped")),
            server,
            folder,
            last_id: 0,
        };
        let folders = json!([{ "uri": editor.uri(""), "name": "orders" }]);
        let hello = json!({ "capabilities": {}, "processId": null, "rootUri": null, "workspaceFolders": folders });
        let answer = editor.ask("initialize", &hello);
        assert_eq!(answer["capabilities"]["positionEncoding"], "utf-16");
        editor.tell("initialized", &json!({}));
        editor
    }

    fn uri(&self, file: &str) -> String {
        format!("file://{}", self.folder.path().join(file).display())
    }

    fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("open");
        write!(input, "Content-Length: {}\r\n\r\n{text}", text.len()).expect("taken");
        input.flush().expect("taken");
    }

    fn tell(&mut self, method: &str, params: &Value) {
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        self.write(&message.to_string());
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).expect("a header");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut text = vec![0; length];
        self.output.read_exact(&mut text).expect("a message");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Asks, and gives the result.
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let message =
            json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params });
        self.write(&message.to_string());
        loop {
            let answer = self.receive();
            if answer["id"] == self.last_id {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].clone();
            }
        }
    }

    /// What the server shows of a file once it says something.
    fn diagnostics(&mut self) -> Vec<Value> {
        loop {
            let mut said = self.receive();
            if said["method"] == "textDocument/publishDiagnostics" {
                let found = said["params"]["diagnostics"].take();
                return found.as_array().expect("a list").clone();
            }
        }
    }

    fn open(&mut self, file: &str, text: &str) {
        let document =
            json!({ "uri": self.uri(file), "languageId": "yaml", "version": 1, "text": text });
        self.tell("textDocument/didOpen", &json!({ "textDocument": document }));
    }

    /// Replaces a range of a line.
    fn edit(&mut self, file: &str, line: u32, columns: (u32, u32), text: &str) {
        let document = json!({ "uri": self.uri(file), "version": 2 });
        let place = |column| json!({ "line": line, "character": column });
        let range = json!({ "start": place(columns.0), "end": place(columns.1) });
        let changes = json!([{ "range": range, "text": text }]);
        let params = json!({ "textDocument": document, "contentChanges": changes });
        self.tell("textDocument/didChange", &params);
    }

    /// Asks about a place.
    fn at(&mut self, method: &str, file: &str, line: u32, column: u32) -> Value {
        self.with(method, file, line, column, &json!({}))
    }

    fn with(&mut self, method: &str, file: &str, line: u32, column: u32, more: &Value) -> Value {
        let mut params = json!({
            "textDocument": { "uri": self.uri(file) },
            "position": { "line": line, "character": column },
        });
        for (key, value) in more.as_object().expect("parameters") {
            params[key] = value.clone();
        }
        self.ask(&format!("textDocument/{method}"), &params)
    }

    /// Hangs up; gives the exit code and what was said on stderr.
    fn leave(mut self) -> (Option<i32>, String) {
        drop(self.input.take());
        let mut said = String::new();
        let mut stderr = self.server.stderr.take().expect("piped");
        stderr.read_to_string(&mut said).expect("text");
        (self.server.wait().expect("ends").code(), said)
    }
}

fn labels(completions: &Value) -> Vec<&str> {
    let items = completions.as_array().expect("a list").iter();
    items
        .map(|item| item["label"].as_str().expect("text"))
        .collect()
}

#[test]
fn an_editor_is_shown_what_is_wrong_and_helped_to_mend_it() {
    let mut editor = Editor::start(&[]);
    let file = "orders.yaml";
    editor.open(file, ORDERS);
    let found = editor.diagnostics();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["code"], "CDL0302");
    assert_eq!(found[0]["severity"], 1);
    let link = found[0]["codeDescription"]["href"]
        .as_str()
        .expect("a link");
    assert!(link.ends_with("#cdl0302"), "{link}");
    assert_eq!(
        found[0]["range"],
        json!({ "start": { "line": 11, "character": 16 }, "end": { "line": 11, "character": 19 } })
    );

    let offered = editor.at("completion", file, 11, 19);
    assert_eq!(labels(&offered), ["Done", "Charge"]);
    assert_eq!(offered[0]["textEdit"]["newText"], "Done");
    editor.edit(file, 11, (16, 19), "Done");
    assert_eq!(editor.diagnostics(), Vec::<Value>::new());

    let hover = editor.at("hover", file, 12, 20);
    let text = hover["contents"]["value"].as_str().expect("Markdown");
    assert!(
        text.contains("**Done**: Succeed") && text.contains("Charge (`next`)"),
        "{text}"
    );
    let hover = editor.at("hover", file, 10, 12);
    let text = hover["contents"]["value"].as_str().expect("Markdown");
    assert!(text.contains("Limit of one attempt"), "{text}");

    assert_eq!(editor.ask("shutdown", &Value::Null), Value::Null);
    editor.tell("exit", &Value::Null);
    let (code, said) = editor.leave();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn states_are_found_and_renamed() {
    let mut editor = Editor::start(&[]);
    let file = "orders.yaml";
    editor.open(file, &ORDERS.replace("Don\n", "Done\n"));
    let place = editor.at("definition", file, 11, 17);
    assert_eq!(place["uri"], editor.uri(file));
    assert_eq!(
        place["range"]["start"],
        json!({ "line": 12, "character": 18 })
    );
    let references = editor.with(
        "references",
        file,
        12,
        18,
        &json!({ "context": { "includeDeclaration": true } }),
    );
    assert_eq!(references.as_array().map(Vec::len), Some(2));
    let edit = editor.with("rename", file, 12, 18, &json!({ "newName": "All done" }));
    let edits = edit["changes"][editor.uri(file)].as_array().expect("edits");
    let lines: Vec<&Value> = edits
        .iter()
        .map(|edit| &edit["range"]["start"]["line"])
        .collect();
    assert_eq!(lines, [&json!(12), &json!(11)]);
    let symbols = json!({ "textDocument": { "uri": editor.uri(file) } });
    let symbols = editor.ask("textDocument/documentSymbol", &symbols);
    assert_eq!(symbols[0]["name"], "process");
    assert_eq!(symbols[0]["children"][1]["name"], "Done");
}

#[test]
fn the_activities_of_the_folder_are_known() {
    let mut editor = Editor::start(&[
        ("activities/refund.wasm", ""),
        ("activities/refund.manifest.yaml", "description: Pays back."),
        (
            "charge/Cargo.toml",
            "[package]\nname = \"charge-card\"\ndescription = \"Charges a card.\"\n[package.metadata.cascade]\n",
        ),
        ("charge/src/lib.rs", ""),
    ]);
    editor.open("orders.yaml", ORDERS);
    // The line is not finished, and a quote is open.
    editor.edit("orders.yaml", 9, (20, 52), "\"urn:");
    let offered = editor.at("completion", "orders.yaml", 9, 25);
    let urns = [
        "urn:cascade:activity:charge_card",
        "urn:cascade:activity:refund",
    ];
    assert_eq!(labels(&offered)[..2], urns);
    assert_eq!(
        offered[1]["documentation"]["value"]
            .as_str()
            .map(|text| text.starts_with("Pays back.")),
        Some(true)
    );

    editor.edit("orders.yaml", 9, (20, 25), urns[0]);
    let hover = editor.at("hover", "orders.yaml", 9, 30);
    let text = hover["contents"]["value"].as_str().expect("Markdown");
    assert!(text.contains("Charges a card."), "{text}");
    let place = editor.at("definition", "orders.yaml", 9, 30);
    let uri = place["uri"].as_str().expect("a file");
    assert!(Path::new(uri).ends_with("charge/src/lib.rs"), "{uri}");
}

#[test]
fn an_editor_that_talks_nonsense_is_told_so_and_served_on() {
    let mut editor = Editor::start(&[]);
    editor.write("{");
    assert_eq!(editor.receive()["error"]["code"], -32700);
    editor.write(r#"{"jsonrpc":"2.0","id":"x","method":"no/such"}"#);
    assert_eq!(editor.receive()["error"]["code"], -32601);
    editor.open("compose.yaml", "services: {}\n");
    editor.open("orders.yaml", "states: [");
    assert_eq!(editor.diagnostics()[0]["code"], "CDL0103", "only of ours");
    // Without `shutdown` before.
    editor.tell("exit", &Value::Null);
    assert_eq!(editor.leave().0, Some(1));

    let mut editor = Editor::start(&[]);
    let input = editor.input.as_mut().expect("open");
    input
        .write_all(b"Content-Length: many\r\n\r\n{}")
        .expect("taken");
    let (code, said) = editor.leave();
    assert_eq!(code, Some(1));
    assert!(said.contains("Content-Length is not a number"), "{said}");
}
