//! Writes YAML that means the same to every reader.
//!
//! `kubectl` reads YAML 1.1, where `on` is a boolean and `1:30` a number, and others read 1.2. So
//! text stands without quotes only where nobody can take it for anything else.

use std::fmt::Write;

use serde_json::Value;

/// What some reader takes for no text, in any case.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A mapping, a list or a plain value as a document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text.trim_start_matches(['\n', ' ']).to_owned()
}

/// Writes a value behind its key or dash: on the same line if it has one line, else below.
fn write(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            for (key, value) in entries {
                entry(key, value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push('-');
                match item {
                    Value::Object(entries) if !entries.is_empty() => {
                        // The first entry stands behind the dash.
                        let mut inner = String::new();
                        for (key, value) in entries {
                            entry(key, value, indent + 2, &mut inner);
                        }
                        out.push(' ');
                        out.push_str(inner.trim_start_matches(' '));
                    }
                    item => write(item, indent + 2, out),
                }
            }
        }
        Value::String(text) if is_block(text) => {
            out.push_str(" |");
            if !text.ends_with('\n') {
                out.push('-');
            }
            out.push('\n');
            for line in text.lines() {
                if !line.is_empty() {
                    out.push_str(&" ".repeat(indent));
                    out.push_str(line);
                }
                out.push('\n');
            }
        }
        Value::String(text) => {
            out.push(' ');
            out.push_str(&scalar(text));
            out.push('\n');
        }
        // What is left is written as in JSON: numbers, flags, and what is empty.
        value => {
            out.push(' ');
            out.push_str(&value.to_string());
            out.push('\n');
        }
    }
}

fn entry(key: &str, value: &Value, indent: usize, out: &mut String) {
    out.push_str(&" ".repeat(indent));
    out.push_str(&scalar(key));
    out.push(':');
    write(value, indent + 2, out);
}

/// Whether a text is best read as lines, and nothing in it needs an escape.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with(['\n', ' '])
        && !text.contains(|c: char| c != '\n' && needs_escape(c))
}

fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-@".contains(c);
    let is_word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        && !is_word
    {
        return text.to_owned();
    }
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        if needs_escape(c) {
            // Beyond these, JSON has escaped what YAML escapes, and in the same way.
            write!(quoted, "\\u{:04x}", u32::from(c)).expect("a text takes what it is given");
        } else {
            quoted.push(c);
        }
    }
    quoted
}

/// What YAML takes for the end of a line, or for nothing that can be printed.
fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `kubectl` reads YAML 1.1, where `yes` is no text.
    #[test]
    fn text_stays_text_for_every_reader() {
        let words = "yes No ON off y N ~ null TRUE 1 1.0 0x1 012 1_000 1e3 .5 1:30 2001-01-01 = << - ? .inf .nan + *a &a !a %a a:b a#b {a [a";
        for word in words.split(' ').chain(["", " ", "a b", "a: b", "a #b"]) {
            let text = document(&json!({ "a": word }));
            assert_eq!(text, format!("a: \"{word}\"\n"));
        }
        for word in [
            "server",
            "/health",
            "apps/v1",
            "app.kubernetes.io/name",
            "onward",
            "--a",
        ] {
            let text = document(&json!({ word: word }));
            let quote = if word.starts_with('-') { "\"" } else { "" };
            assert_eq!(
                text,
                format!("{quote}{word}{quote}: {quote}{word}{quote}\n")
            );
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({
            "empty": { "map": {}, "list": [], "text": "" },
            "list": [1, [2, [3, 4]], { "a": 1, "b": { "c": [{ "d": null }] } }, [], {}, "text", true, -1.5],
            "lines": "a: 1\n\n  b: |\n    c\n",
            "lines without an end": "a\nb",
            "escapes": ["\n", "a\n\n", " a\nb", "a\tb", "\u{7f}", "a\u{85}b\n", "\u{2028}x", "\u{feff}", "\"\\\u{1}", "ä 😀\nü"],
            "list of lines": ["a\nb\n", { "x": "c\nd" }],
        });
        for value in [value.clone(), value["list"].clone(), json!(7)] {
            let text = document(&value);
            let read: Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(read, value, "{text}");
        }
    }

    #[test]
    fn it_looks_as_people_write_it() {
        let value = json!({
            "kind": "List",
            "items": [{ "name": "a", "ports": [{ "port": 80 }] }, "b"],
            "text": "one\n  two\n",
        });
        assert_eq!(
            document(&value),
            "items:\n  - name: a\n    ports:\n      - port: 80\n  - b\nkind: List\ntext: |\n  one\n    two\n"
        );
    }
}
