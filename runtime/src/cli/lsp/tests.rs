use std::sync::mpsc::sync_channel;

use super::*;

/// Serves a conversation that is there from the beginning; gives what was said and how it
/// ended.
fn talk(messages: &[Value]) -> (Vec<Value>, End) {
    let (sender, receiver) = sync_channel(messages.len() + 1);
    for message in messages {
        let frame = match serde_json::from_value(message.clone()) {
            Ok(message) => Frame::Message(message),
            Err(error) => Frame::Malformed(error.to_string()),
        };
        sender.send(Ok(Some(frame))).expect("there is room");
    }
    drop(sender);
    let mut output = Vec::new();
    let mut server = Server::new(Bindings::default());
    let end = server
        .serve(&receiver, &mut output)
        .expect("memory can be written");
    let text = String::from_utf8(output).expect("UTF-8");
    let said = text.split("Content-Length: ").skip(1).map(|framed| {
        let (_, body) = framed.split_once("\r\n\r\n").expect("a header");
        serde_json::from_str(body).expect("JSON")
    });
    (said.collect(), end)
}

fn request(id: i32, method: &str, params: impl Into<Value>) -> Value {
    let params = params.into();
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn note(method: &str, params: impl Into<Value>) -> Value {
    let params = params.into();
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

fn initialize() -> Value {
    request(0, "initialize", json!({ "capabilities": {} }))
}

fn open(uri: &str, text: &str) -> Value {
    let document = json!({ "uri": uri, "languageId": "yaml", "version": 1, "text": text });
    note("textDocument/didOpen", json!({ "textDocument": document }))
}

#[test]
fn the_editor_leaves_well_only_if_it_says_so_before() {
    let shutdown = request(1, "shutdown", Value::Null);
    let exit = note("exit", Value::Null);
    for (messages, expected) in [
        (
            vec![initialize(), shutdown.clone(), exit.clone()],
            End::AsAgreed,
        ),
        (vec![initialize(), shutdown.clone()], End::AsAgreed),
        (vec![initialize(), exit.clone()], End::Abrupt),
        (vec![exit.clone()], End::Abrupt),
        (vec![shutdown, exit], End::Abrupt),
        (vec![], End::Abrupt),
    ] {
        assert_eq!(talk(&messages).1, expected, "{messages:?}");
    }
}

#[test]
fn what_cannot_be_answered_is_refused_and_the_next_is_answered() {
    let shutdown = |id| request(id, "shutdown", Value::Null);
    let hover = json!({ "textDocument": { "uri": "file:///x.yaml" }, "position": { "line": 0, "character": 0 } });
    for (messages, codes) in [
        // -32002 not initialized, -32600 invalid request, -32601 no such method, -32602
        // invalid parameters, -32700 no message.
        (
            vec![
                request(1, "textDocument/hover", hover.clone()),
                initialize(),
            ],
            vec![-32002, 0],
        ),
        (
            vec![initialize(), initialize(), shutdown(1)],
            vec![0, -32600, 0],
        ),
        (
            vec![initialize(), shutdown(1), shutdown(2)],
            vec![0, 0, -32600],
        ),
        (
            vec![
                initialize(),
                request(1, "no/such", Value::Null),
                shutdown(2),
            ],
            vec![0, -32601, 0],
        ),
        (
            vec![
                initialize(),
                request(1, "textDocument/hover", json!([1])),
                shutdown(2),
            ],
            vec![0, -32602, 0],
        ),
        (
            vec![
                initialize(),
                request(1, "textDocument/hover", hover),
                shutdown(2),
            ],
            vec![0, -32602, 0],
        ),
        (
            vec![initialize(), json!({ "id": 1.5 }), json!([]), shutdown(2)],
            vec![0, -32700, -32700, 0],
        ),
    ] {
        let (said, _) = talk(&messages);
        let given: Vec<i64> = said
            .iter()
            .map(|one| one["error"]["code"].as_i64().unwrap_or(0))
            .collect();
        assert_eq!(given, codes, "{messages:?}: {said:?}");
    }
}

#[test]
fn what_was_cancelled_is_not_worked_on_and_nonsense_is_passed_over() {
    let none = json!({ "uri": "file:///none", "version": 2 });
    let (said, _) = talk(&[
        initialize(),
        request(1, "textDocument/hover", Value::Null),
        note("$/cancelRequest", json!({ "id": 1 })),
        note("$/cancelRequest", json!(null)),
        note("textDocument/didOpen", json!({ "textDocument": 1 })),
        note(
            "textDocument/didChange",
            json!({ "textDocument": none, "contentChanges": [] }),
        ),
        note("textDocument/didSave", Value::Null),
        note("$/unknown", Value::Null),
        request(2, "shutdown", Value::Null),
    ]);
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said[1]["error"]["code"], -32800);
    assert_eq!(said[2]["result"], Value::Null);
}

#[test]
fn files_of_others_are_left_alone() {
    let ours = "states:\n- name: A\n  type: Pass\n  next: B\n";
    let change = |text: &str| {
        let document = json!({ "uri": "file:///a.yaml", "version": 2 });
        note(
            "textDocument/didChange",
            json!({ "textDocument": document, "contentChanges": [{ "text": text }] }),
        )
    };
    let close = note(
        "textDocument/didClose",
        json!({ "textDocument": { "uri": "file:///a.yaml" } }),
    );
    // How many problems the editor shows in the end, if it was told at all.
    for (messages, expected) in [
        (vec![open("file:///a.yaml", ours)], Some(1)),
        (vec![open("file:///a.yaml", "services: {}")], None),
        (vec![open("file:///a.yaml", "broken: [")], None),
        (vec![open("file:///a.yaml", "")], None),
        (
            vec![open("file:///a.yaml", ours), change("services: {}")],
            None,
        ),
        (
            vec![open("file:///a.yaml", "services: {}"), change(ours)],
            Some(1),
        ),
        (vec![open("file:///a.yaml", ours), close], Some(0)),
        (
            vec![open(
                "file:///a.json",
                "{\"StartAt\": \"A\", \"States\": {}}",
            )],
            Some(1),
        ),
    ] {
        let all: Vec<Value> = std::iter::once(initialize())
            .chain(messages.clone())
            .collect();
        let (said, _) = talk(&all);
        let told = said
            .iter()
            .rfind(|one| one["method"] == "textDocument/publishDiagnostics");
        let shown = told.map(|one| {
            one["params"]["diagnostics"]
                .as_array()
                .expect("a list")
                .len()
        });
        assert_eq!(
            shown.map(|shown| shown.min(1)),
            expected,
            "{messages:?}: {said:?}"
        );
    }
}

#[test]
fn only_so_many_files_are_looked_at() {
    let opened = (0..=MAX_DOCUMENTS).map(|n| open(&format!("file:///{n}.yaml"), "states: []"));
    let all: Vec<Value> = std::iter::once(initialize()).chain(opened).collect();
    let (said, _) = talk(&all);
    let count = |method: &str| said.iter().filter(|one| one["method"] == method).count();
    assert_eq!(count("textDocument/publishDiagnostics"), MAX_DOCUMENTS);
    assert_eq!(count("window/showMessage"), 1);
}

#[test]
fn columns_are_counted_as_was_agreed() {
    let text = "states:\n- { name: \"𝄞\", type: Pass, next: Nowhere }\n";
    for (encodings, start) in [
        (json!(null), 34),
        (json!(["utf-32", "utf-16", "utf-8"]), 34),
        (json!(["utf-8", "utf-16"]), 36),
    ] {
        let capabilities = json!({ "general": { "positionEncodings": encodings } });
        let begin = request(0, "initialize", json!({ "capabilities": capabilities }));
        let (said, _) = talk(&[begin, open("untitled:1", text)]);
        let range = &said[1]["params"]["diagnostics"][0]["range"];
        assert_eq!(
            range["start"],
            json!({ "line": 1, "character": start }),
            "{said:?}"
        );
    }
}

#[test]
fn a_problem_with_two_places_leads_to_both() {
    let uri = "file:///a.yaml";
    for (text, line, character) in [
        (
            "states:\n- { name: Twice, type: Succeed }\n- { name: Twice, type: Succeed }\n",
            1,
            10,
        ),
        ("states:\n- name: A\n  type: Wait\n  type: Succeed\n", 2, 2),
        (
            "{\"StartAt\": \"A\",\n \"States\": {},\n \"States\": {}}",
            1,
            1,
        ),
    ] {
        let (said, _) = talk(&[initialize(), open(uri, text)]);
        let found = said[1]["params"]["diagnostics"].as_array().expect("a list");
        let mut related = found.iter().map(|one| &one["relatedInformation"]);
        let related = related.find(|related| related.is_array());
        let related = related.unwrap_or_else(|| panic!("{said:?}"));
        assert_eq!(related[0]["location"]["uri"], uri, "{said:?}");
        let start = &related[0]["location"]["range"]["start"];
        assert_eq!(
            start,
            &json!({ "line": line, "character": character }),
            "{text}"
        );
    }
}
