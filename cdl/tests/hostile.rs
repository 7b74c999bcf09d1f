//! Files that want to hurt: each gets a diagnostic, soon and in little memory.

use std::time::{Duration, Instant};

use cascade_cdl::{Code, MAX_FILE_BYTES, Parsed, Source, parse};
use proptest::prelude::*;

/// What is allowed for a file: a second; of a build without optimisation, ten.
const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });

/// Time that this thread has had a processor, so that a busy machine does not count;
/// where the system does not tell, time since `start`.
fn used(start: Instant) -> Duration {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// What `read` gives and the time that it takes.
fn timed(bytes: &[u8]) -> (Parsed, Duration) {
    let start = Instant::now();
    let before = used(start);
    let parsed = read(bytes);
    (parsed, used(start).saturating_sub(before))
}

fn read(bytes: &[u8]) -> Parsed {
    parse(&Source {
        name: "hostile.yaml",
        bytes,
    })
}

/// Reads `bytes`, which must be refused with `code`, in time.
fn refused(what: &str, bytes: &[u8], code: Code) {
    let (parsed, took) = timed(bytes);
    println!("{what}: {took:?}");
    let codes: Vec<_> = parsed.diagnostics.iter().map(|d| d.code).collect();
    assert!(parsed.application.is_none(), "{what} was accepted");
    assert!(codes.contains(&code), "{what}: {codes:?}");
    assert!(took < PATIENCE, "{what} took {took:?}");
}

/// An alias bomb: nine levels of nine aliases each would be 387 million values.
fn billion_laughs() -> String {
    let mut lines = vec!["a0: &a0 [lol]\n".to_owned()];
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        lines.push(format!("a{level}: &a{level} [{aliases}]\n"));
    }
    lines.concat()
}

#[test]
fn what_is_not_text_is_refused() {
    refused("non-UTF-8", b"states:\n  - name: \xff\n", Code::NotUtf8);
    refused("UTF-16", b"\xff\xfes\0t\0a\0", Code::NotUtf8);
    refused("a NUL", b"states: \0", Code::YamlSyntax);
    refused("a BOM and nothing", b"\xef\xbb\xbf", Code::EmptyFile);
    refused(
        "a BOM inside",
        "a: \u{feff}b\n\u{feff}c: d".as_bytes(),
        Code::YamlSyntax,
    );
}

#[test]
fn a_place_that_is_not_utf8_is_named() {
    let parsed = read(b"states:\n  - name: \xff\n");
    let at: Vec<_> = parsed
        .diagnostics
        .iter()
        .map(|d| (d.line, d.column))
        .collect();
    assert_eq!(at, [(2, 11)]);
}

#[test]
fn nesting_is_refused_while_it_is_read() {
    let deep = 100_000;
    let cases = [
        ("lists", "[".repeat(deep)),
        ("lists that close", "[".repeat(deep) + &"]".repeat(deep)),
        ("mappings", "{".repeat(deep)),
        ("mappings with keys", "{a: ".repeat(deep)),
        ("lists in lines", "[\n".repeat(deep)),
        ("lists below a key", format!("states: {}", "[".repeat(deep))),
        ("lists as keys", "[a]: [".repeat(deep)),
        ("block lists", "- ".repeat(deep)),
        ("complex keys", "? ".repeat(deep)),
        ("closed quotes between", "[\"]\", ".repeat(deep)),
        ("closed comments between", "[ # ]\n".repeat(deep)),
        ("closed single quotes between", "['}', ".repeat(deep)),
        ("text between", "[a".repeat(deep)),
    ];
    for (what, text) in cases {
        refused(what, text.as_bytes(), Code::TooDeep);
    }
}

#[test]
fn size_is_refused() {
    let big = MAX_FILE_BYTES;
    let wide = |item: &str| format!("states: [{}", item.repeat(big / item.len() - 10));
    let lines = |item: &str| item.repeat(big / item.len() - 1);
    for (what, text, code) in [
        ("50 MB", "a".repeat(50 * 1024 * 1024), Code::FileTooLarge),
        ("a plain scalar", lines("a"), Code::TooBig),
        (
            "a double-quoted scalar",
            format!("\"{}\"", "a".repeat(big - 10)),
            Code::TooBig,
        ),
        (
            "a single-quoted scalar",
            format!("a: '{}", "a".repeat(big - 10)),
            Code::TooBig,
        ),
        (
            "a block scalar",
            format!("a: |\n{}", "  aaaa\n".repeat(big / 8)),
            Code::TooBig,
        ),
        (
            "a scalar of 513 KiB",
            format!("a: {}", "a".repeat(513 * 1024)),
            Code::TooBig,
        ),
        ("commas", wide(","), Code::YamlSyntax),
        ("values in a line", wide("a,"), Code::TooBig),
        ("pairs", wide("a:,"), Code::TooBig),
        ("empty pairs", wide(":,"), Code::TooBig),
        ("quoted values", wide("\"\","), Code::TooBig),
        ("list items", lines("- a\n"), Code::TooBig),
        ("empty items", lines("-\n"), Code::TooBig),
        (
            "white space",
            format!("a: [{}", " ".repeat(big - 10)),
            Code::TooBig,
        ),
        (
            "a comment",
            format!("a: [ #{}", "#".repeat(big - 10)),
            Code::TooBig,
        ),
        (
            "line breaks",
            format!("a: [{}", "\r".repeat(big - 10)),
            Code::TooBig,
        ),
    ] {
        refused(what, text.as_bytes(), code);
    }
}

#[test]
fn bombs_are_refused() {
    refused("aliases", billion_laughs().as_bytes(), Code::Alias);
    let anchors: Vec<String> = (0..100_000).map(|n| format!("- &a{n} x\n")).collect();
    let anchors = anchors.concat();
    refused("anchors", anchors.as_bytes(), Code::Alias);
    let keys = "a: 1\n".repeat(100_000);
    refused("duplicate keys", keys.as_bytes(), Code::DuplicateKey);
    let tags = "- !t x\n".repeat(100_000);
    refused("tags", tags.as_bytes(), Code::Tag);
    let directives = "%TAG !a! tag:a\n".repeat(100_000);
    refused("directives", directives.as_bytes(), Code::YamlSyntax);
    let documents = "---\na\n".repeat(100_000);
    refused("documents", documents.as_bytes(), Code::SecondDocument);
}

/// Many states with mistakes, and names that are alike.
#[test]
fn a_file_full_of_mistakes_is_reported_in_part_and_in_time() {
    let mut lines = vec!["states:\n".to_owned()];
    lines.extend(
        (0..20_000).map(|n| format!("  - {{name: state{n}, type: Pass, next: sttae{n}x}}\n")),
    );
    let text = lines.concat();
    let (parsed, took) = timed(text.as_bytes());
    println!("mistakes: {took:?}");
    assert_eq!((parsed.diagnostics.len(), parsed.omitted), (100, 19_900));
    assert!(took < PATIENCE, "{took:?}");
}

/// Branches that all write to one place, as often as fits.
#[test]
fn a_file_full_of_collisions_is_reported_in_time() {
    let head = "states:\n  - name: P\n    type: Parallel\n    end: true\n    branches:\n";
    let mut lines = vec![head.to_owned()];
    for branch in 0..250 {
        lines.push(format!("      - name: b{branch}\n        states:\n"));
        lines.extend((0..50).map(|state| {
            format!("          - {{name: s{state}, type: Pass, result: $.a.b{state}, end: true}}\n")
        }));
    }
    let text = lines.concat();
    refused("collisions", text.as_bytes(), Code::BranchesCollide);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn no_yaml_like_text_makes_it_panic(
        pieces in proptest::collection::vec(
            proptest::sample::select(&[
                "states", "workflows", "name", "type", "Task", "Choice", "Parallel", "branches",
                "next", "A", "B", "resource", "urn:cascade:activity:", "{{ $.a }}", "{{", "}}",
                "|", ">-", "'", "\"", "\\", "\n", "\n  ", "\n    - ", ": ", ":", "- ", "? ", "[",
                "]", "{", "}", ",", "#", " ", "\t", "&a", "*a", "!!x", "---", "...", "%", "ä", "\r",
                "\u{feff}", "~", "1h30m", "0x", "1e9", "\u{2028}", "\u{85}", "\0",
            ][..]),
            0..60,
        )
    ) {
        let text = pieces.concat();
        let parsed = read(text.as_bytes());
        for diagnostic in &parsed.diagnostics {
            let span = diagnostic.span;
            prop_assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
            prop_assert!(span.start <= span.end && span.end <= text.len());
        }
        // Whatever is refused says why.
        prop_assert!(parsed.application.is_some() || parsed.errors() > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_definition_in_asl_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "\"StartAt\"", "\"States\"", "\"Type\"", "\"Task\"", "\"Map\"", "\"Choice\"", "\"Next\"",
                "\"Choices\"", "\"And\"", "\"Variable\"", "\"$.a\"", "\"Parameters\"", "\"a.$\"",
                "\"States.Format('{}', $)\"", "\"{% $states.input %}\"", "\"Retry\"", "\"ErrorEquals\"",
                "\"A\"", "\"ItemProcessor\"", "{", "}", "[", "]", ":", ",", "1", "null", "true",
            ]),
            0..40,
        ),
    ) {
        let text = format!("{{\"StartAt\": \"A\", \"States\": {{\"A\": {{{}", words.join(" "));
        for name in ["a.asl.json", "a.yaml"] {
            let parsed = parse(&Source { name, bytes: text.as_bytes() });
            prop_assert!(parsed.application.is_some() || parsed.errors() > 0);
        }
    }
}
