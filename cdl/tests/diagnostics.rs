//! Every diagnostic against tables written by hand from the rules of the language.
//!
//! A case of `diagnostics/*.yaml` has a name, a source, and all diagnostics
//! that it must give, in order: `CODE LINE:COLUMN FRAGMENT`. The fragment stands in
//! the message, the label or the help.

use std::collections::BTreeSet;
use std::path::Path;

use cascade_cdl::{Code, Diagnostic, Severity, Source, parse};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Name of the file; `test.yaml` if not given.
    file: Option<String>,
    source: String,
    expect: Vec<String>,
}

fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of tables is in the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable table");
        let table: Vec<Case> =
            serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let name = file.file_stem().expect("a file has a name");
        let name = name.to_string_lossy().into_owned();
        cases.extend(table.into_iter().map(|case| (name.clone(), case)));
    }
    cases
}

fn matches(expected: &str, actual: &Diagnostic) -> bool {
    let mut parts = expected.splitn(3, ' ');
    let mut part = || parts.next().unwrap_or_default();
    let (code, place, fragment) = (part(), part(), part());
    let help = actual.help.as_deref().unwrap_or_default();
    let texts = [actual.message.as_str(), actual.label.as_str(), help];
    code == actual.code.to_string()
        && place == format!("{}:{}", actual.line, actual.column)
        && !fragment.is_empty()
        && texts.iter().any(|text| text.contains(fragment))
}

#[test]
fn each_problem_is_reported_once_at_its_place_with_its_reason() {
    let mut wrong = Vec::new();
    for (table, case) in cases() {
        let file = case.file.as_deref().unwrap_or("test.yaml");
        let bytes = case.source.as_bytes();
        let parsed = parse(&Source { name: file, bytes });
        let same = parsed.diagnostics.len() == case.expect.len()
            && case
                .expect
                .iter()
                .zip(&parsed.diagnostics)
                .all(|(e, a)| matches(e, a));
        let errors = parsed
            .diagnostics
            .iter()
            .any(|d| d.severity == Severity::Error);
        if !same || errors == parsed.application.is_some() {
            let actual: Vec<_> = parsed
                .diagnostics
                .iter()
                .map(|d| {
                    let help = d.help.as_deref().unwrap_or_default();
                    let (line, column) = (d.line, d.column);
                    format!(
                        "  {} {line}:{column} {} | {} | {help}",
                        d.code, d.message, d.label
                    )
                })
                .collect();
            wrong.push(format!(
                "{table}: {}\n expected {:#?}\n got\n{}",
                case.name,
                case.expect,
                actual.join("\n")
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

/// Codes whose sources are not text, and are covered by `hostile.rs`.
const NOT_TEXT: [Code; 3] = [Code::FileTooLarge, Code::NotUtf8, Code::TooBig];

/// The code that asks for an option: the conformance suite has its cases.
const WITH_OPTIONS: [Code; 1] = [Code::NotForExpress];

#[test]
fn each_code_has_a_case_and_a_section_of_the_documentation() {
    let covered: BTreeSet<String> = cases()
        .iter()
        .flat_map(|(_, case)| &case.expect)
        .filter_map(|line| line.split(' ').next())
        .map(ToOwned::to_owned)
        .collect();
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diagnostics.md");
    let documentation = std::fs::read_to_string(documentation).expect("the documentation");
    for code in Code::ALL {
        let tested = covered.contains(&code.to_string())
            || NOT_TEXT.contains(code)
            || WITH_OPTIONS.contains(code);
        assert!(tested, "{code} ({}) has no case", code.title());
        // The heading makes the anchor that the diagnostic links to.
        let anchor = format!("<a id=\"{}\"></a>", code.anchor());
        let heading = format!("## {code}: {}", code.title());
        assert!(documentation.contains(&anchor), "{code} has no anchor");
        assert!(documentation.contains(&heading), "no heading `{heading}`");
    }
}

#[test]
fn a_diagnostic_carries_all_that_a_tool_needs() {
    let bytes = "\u{feff}states:\n  - {name: Ä, type: Taks, end: true}\n".as_bytes();
    let parsed = parse(&Source {
        name: "flows/x.yaml",
        bytes,
    });
    let json = serde_json::to_value(&parsed.diagnostics).expect("diagnostics serialise");
    // Bytes count the byte order mark and the two bytes of `Ä`; columns count neither.
    let expected = serde_json::json!([{
        "code": "CDL0301",
        "severity": "error",
        "message": "there is no state type `Taks`",
        "file": "flows/x.yaml",
        "line": 2,
        "column": 21,
        "end_column": 25,
        "span": {"start": 3 + 8 + 21, "end": 3 + 8 + 25},
        "label": "",
        "help": "did you mean `Task`?",
        "url": "https://github.com/cascade-workflows/cascade/blob/main/docs/diagnostics.md#cdl0301",
        "source_line": "  - {name: Ä, type: Taks, end: true}",
    }]);
    assert_eq!(json, expected);
}
