//! Shows what is wrong with a CDL file: to people at a terminal, to editors and
//! CI as JSON, to code review as SARIF.
//!
//! Nothing here decides anything; the diagnostics come from `cascade_cdl`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use cascade_cdl::{Code, Diagnostic, Severity};
use serde_json::{Value, json};

/// The version of the SARIF format, and its schema.
const SARIF_VERSION: &str = "2.1.0";
const SARIF_SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Lines longer than this are shown in part, in bytes: a terminal folds them anyway, and a
/// file in one line would fill the screen.
const MAX_LINE_BYTES: usize = 400;

/// The diagnostics of one file for a terminal, each with its line and a caret, and
/// at the end how many there are. `source` is the file's text; what is not
/// UTF-8 in it may have been replaced.
pub fn render(diagnostics: &[Diagnostic], source: &str, colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&render_one(&renderer, diagnostic, source));
        text.push_str("\n\n");
    }
    if let Some(summary) = summary(diagnostics) {
        text.push_str(&summary);
        text.push('\n');
    }
    text
}

fn render_one(renderer: &Renderer, diagnostic: &Diagnostic, source: &str) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level
        .primary_title(visible(&diagnostic.message))
        .id(diagnostic.code.to_string())
        .id_url(diagnostic.url.as_str());
    let (line, span) = excerpt(diagnostic, source);
    let label = visible(&diagnostic.label);
    let mut annotation = AnnotationKind::Primary.span(span);
    if !label.is_empty() {
        annotation = annotation.label(label);
    }
    let snippet = Snippet::source(line)
        .path(visible(&diagnostic.file))
        .line_start(diagnostic.line)
        .annotation(annotation);
    let mut group = title.element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(visible(help)));
    }
    renderer.render(&[group])
}

/// The line of a diagnostic, and which of its bytes are concerned. Falls back to
/// what the diagnostic carries if the line is long or `source` is not its file.
fn excerpt(diagnostic: &Diagnostic, source: &str) -> (String, Range<usize>) {
    if let Some(found) = excerpt_of_source(diagnostic, source) {
        return found;
    }
    let shown = visible(&diagnostic.source_line);
    let (start, end) = (diagnostic.span.start, diagnostic.span.end);
    let concerned = source.get(start..end).unwrap_or("");
    let place = shown.find(concerned).unwrap_or(0);
    let len = if shown[place..].starts_with(concerned) {
        concerned.len()
    } else {
        0
    };
    (shown, place..place + len)
}

fn excerpt_of_source(diagnostic: &Diagnostic, source: &str) -> Option<(String, Range<usize>)> {
    let (start, end) = (diagnostic.span.start, diagnostic.span.end);
    let line_start = source
        .get(..start)?
        .rfind(['\n', '\r'])
        .map_or(0, |at| at + 1);
    let rest = &source[line_start..];
    let line = &rest[..rest.find(['\n', '\r']).unwrap_or(rest.len())];
    // The byte order mark is no part of the first line for people.
    let shown = line.strip_prefix('\u{feff}').unwrap_or(line);
    let first = line_start + line.len() - shown.len();
    let place = start.checked_sub(first)?..end.checked_sub(first)?;
    shown.get(place.clone())?;
    // Control characters are replaced byte for byte, so that the caret stays.
    let clean = shown.replace(|c: char| c.is_ascii_control() && c != '\t', " ");
    let fits =
        clean.len() <= MAX_LINE_BYTES && !clean.contains(|c: char| c.is_control() && c != '\t');
    fits.then_some((clean, place))
}

/// A problem of a file that is no CDL, with its line and a caret beneath the word
/// at this line and column, both from 1.
pub fn render_problem(
    file: &str,
    source: &str,
    place: Option<(usize, usize)>,
    message: &str,
    colour: bool,
) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let title = Level::ERROR.primary_title(visible(message));
    let line = place.and_then(|(line, column)| {
        let text = source.lines().nth(line.checked_sub(1)?)?;
        Some((line, word_at(text, column)?, text))
    });
    let Some((line, word, text)) = line.filter(|(.., text)| text.len() <= MAX_LINE_BYTES) else {
        let at = place.map(|(line, column)| format!(":{line}:{column}"));
        let origin = format!("{file}{}", at.unwrap_or_default());
        let group = title.element(Origin::path(visible(&origin)));
        return renderer.render(&[group]);
    };
    // Byte for byte, so that the caret stays.
    let text = text.replace(|c: char| c.is_ascii_control() && c != '\t', " ");
    let snippet = Snippet::source(text)
        .path(visible(file))
        .line_start(line)
        .annotation(AnnotationKind::Primary.span(word));
    renderer.render(&[title.element(snippet)])
}

/// The bytes of the word that begins at a column, which counts characters from 1.
fn word_at(line: &str, column: usize) -> Option<Range<usize>> {
    let skipped = column.checked_sub(1)?;
    let start = match line.char_indices().nth(skipped) {
        Some((at, _)) => at,
        None if line.chars().count() == skipped => line.len(),
        None => return None,
    };
    let rest = &line[start..];
    let quoted = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let len = match quoted {
        Some(quote) => rest[1..].find(quote).map_or(rest.len(), |end| end + 2),
        None => rest
            .find(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | '}' | ']'))
            .unwrap_or(rest.len()),
    };
    Some(start..start + len)
}

/// `2 errors and 1 warning`, or nothing to say.
fn summary(diagnostics: &[Diagnostic]) -> Option<String> {
    let count = |severity: Severity| {
        diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    };
    let plural = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        many => Some(format!("{many} {what}s")),
    };
    let parts: Vec<String> = [
        plural(count(Severity::Error), "error"),
        plural(count(Severity::Warning), "warning"),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// Text without control characters: a file may come from anybody, and a
/// terminal obeys escape sequences.
fn visible(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "\u{fffd}")
}

/// The diagnostics for editors and CI: one JSON document with all fields.
pub fn to_json(diagnostics: &[Diagnostic]) -> Value {
    let count = |severity: Severity| {
        diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    };
    json!({
        "diagnostics": diagnostics,
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
    })
}

/// The diagnostics for code review: a SARIF 2.1.0 log with one run.
pub fn to_sarif(diagnostics: &[Diagnostic]) -> Value {
    let codes: BTreeMap<Code, &Diagnostic> = diagnostics.iter().map(|d| (d.code, d)).collect();
    let index: BTreeMap<Code, usize> = codes.keys().copied().zip(0..).collect();
    let rules: Vec<Value> = codes
        .iter()
        .map(|(code, diagnostic)| {
            json!({
                "id": code.to_string(),
                "shortDescription": {"text": code.title()},
                "helpUri": diagnostic.url,
                "defaultConfiguration": {"level": code.severity().to_string()},
            })
        })
        .collect();
    let results: Vec<Value> = diagnostics
        .iter()
        .map(|diagnostic| sarif_result(diagnostic, index[&diagnostic.code]))
        .collect();
    json!({
        "$schema": SARIF_SCHEMA,
        "version": SARIF_VERSION,
        "runs": [{
            "tool": {"driver": {
                "name": "cascade",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn sarif_result(diagnostic: &Diagnostic, rule: usize) -> Value {
    let mut text = diagnostic.message.clone();
    if let Some(help) = &diagnostic.help {
        text.push_str("; ");
        text.push_str(help);
    }
    json!({
        "ruleId": diagnostic.code.to_string(),
        "ruleIndex": rule,
        "level": diagnostic.severity.to_string(),
        "message": {"text": text},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": file_uri(&diagnostic.file)},
            "region": {
                "startLine": diagnostic.line,
                "startColumn": diagnostic.column,
                "endLine": diagnostic.line,
                "endColumn": diagnostic.end_column,
            },
        }}],
    })
}

/// A relative file name as a URI reference.
fn file_uri(file: &str) -> String {
    let mut uri = String::with_capacity(file.len());
    for byte in file.replace('\\', "/").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            write!(uri, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use cascade_cdl::{Source, parse};

    use super::*;

    const FILE: &str = "\
states:
  - name: Ä
    type: Taks
    end: true
  - {name: B, type: Choice, choices: [{condition: \"{{ $.a }}\", next: C}]}
  - {name: C, type: Succeed}
";

    fn diagnostics(source: &str) -> Vec<Diagnostic> {
        let parsed = parse(&Source {
            name: "flows/order flow.yaml",
            bytes: source.as_bytes(),
        });
        parsed.diagnostics
    }

    #[test]
    fn a_terminal_shows_line_caret_and_help() {
        let expected = "\
error[CDL0301]: there is no state type `Taks`
 --> flows/order flow.yaml:3:11
  |
3 |     type: Taks
  |           ^^^^
  |
  = help: did you mean `Task`?

warning[CDL0902]: the Choice `B` has no default
 --> flows/order flow.yaml:5:12
  |
5 |   - {name: B, type: Choice, choices: [{condition: \"{{ $.a }}\", next: C}]}
  |            ^ fails with `NoChoiceMatched` if no condition holds
  |
  = help: add `default:` with the state to go to

1 error and 1 warning
";
        assert_eq!(render(&diagnostics(FILE), FILE, false), expected);
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        let found = diagnostics(FILE);
        assert!(!render(&found, FILE, false).contains('\u{1b}'));
        assert!(render(&found, FILE, true).contains('\u{1b}'));
    }

    #[test]
    fn an_escape_sequence_of_the_file_does_not_reach_the_terminal() {
        let source = "states:\n  - {name: \"a\u{1b}[31m\", tpye: X}\n\u{1b}[2J: 1\n";
        let shown = render(&diagnostics(source), source, false);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn a_problem_of_another_file_has_its_line_and_a_caret() {
        let source = "tests:\n  - nmae: x\n";
        let shown = render_problem("a.test.yaml", source, Some((2, 5)), "no such key", false);
        let expected = "\
error: no such key
 --> a.test.yaml:2:5
  |
2 |   - nmae: x
  |     ^^^^";
        assert_eq!(shown, expected);
        // Places that the text does not have.
        for place in [None, Some((0, 0)), Some((2, 99)), Some((9, 1))] {
            let shown = render_problem("a", source, place, "no such key", false);
            assert!(shown.contains("no such key"), "{shown}");
        }
    }

    /// Hostile lines, other sources than the one that was read, and byte order marks.
    #[test]
    fn whatever_the_source_is_rendering_does_not_panic() {
        let long = format!("states: {}", "[".repeat(5_000));
        let bom = format!("\u{feff}{FILE}");
        let bom_first = "\u{feff}steps: 1";
        for source in [
            "",
            "\t",
            "a: *b",
            &long,
            &bom,
            bom_first,
            "a: \u{85}b\u{7f}: *x",
            "ä: *ö",
        ] {
            let found = diagnostics(source);
            assert!(!found.is_empty(), "{source}");
            for shown in [source, "", "ä", FILE] {
                assert!(!render(&found, shown, false).is_empty());
            }
        }
    }

    #[test]
    fn json_has_the_diagnostics_and_their_number() {
        let json = to_json(&diagnostics(FILE));
        assert_eq!((&json["errors"], &json["warnings"]), (&json!(1), &json!(1)));
        assert_eq!(json["diagnostics"][0]["code"], "CDL0301");
        assert_eq!(json["diagnostics"][1]["line"], 5);
    }

    /// Expected values: chapter 3 of the SARIF 2.1.0 specification.
    #[test]
    fn sarif_has_a_rule_for_each_code_and_a_result_for_each_diagnostic() {
        let sarif = to_sarif(&diagnostics(FILE));
        assert_eq!(sarif["version"], "2.1.0");
        let run = &sarif["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
        let ids: Vec<_> = rules.iter().map(|rule| &rule["id"]).collect();
        assert_eq!(ids, [&json!("CDL0301"), &json!("CDL0902")]);
        let result = &run["results"][1];
        assert_eq!(result["ruleIndex"], 1);
        assert_eq!(result["level"], "warning");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "flows/order%20flow.yaml");
        let region = json!({"startLine": 5, "startColumn": 12, "endLine": 5, "endColumn": 13});
        assert_eq!(place["region"], region);
    }
}
