//! Gathers what is wrong, and turns it into diagnostics at the end.

use super::text::{Span, Text};
use crate::diagnostic::{ByteSpan, Code, Diagnostic, Severity};

/// Most diagnostics reported for a file: more than anybody reads at once.
const MAX_REPORTED: usize = 100;

/// Most findings kept while a file is read, so that a hostile file cannot fill
/// the memory. Larger than [`MAX_REPORTED`], because findings come in another
/// order than that of the file.
const MAX_KEPT: usize = 2_000;

/// Longest piece of the file that is quoted in a message, in characters.
const MAX_QUOTED_CHARS: usize = 60;

/// Most and longest names that a misspelling is compared with: generated files
/// have thousands, and a comparison takes a microsecond or more.
const MAX_COMPARED: usize = 1_000;
const MAX_COMPARED_LEN: usize = 100;

/// One problem, before its place is worked out.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    code: Code,
    span: Span,
    message: String,
    label: String,
    help: Option<String>,
    related: Option<Span>,
}

impl Finding {
    pub(super) fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            span,
            message: message.into(),
            label: String::new(),
            help: None,
            related: None,
        }
    }

    /// What to say at the place itself.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Another place that it is about.
    pub(super) fn related(mut self, span: Span) -> Self {
        self.related = Some(span);
        self
    }

    /// What to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What to do about it, if that is known.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

/// The findings of one file.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    findings: Vec<Finding>,
    errors: usize,
    dropped: usize,
}

impl Reporter {
    pub(super) fn report(&mut self, finding: Finding) {
        if finding.code.severity() == Severity::Error {
            self.errors += 1;
        }
        if self.findings.len() < MAX_KEPT {
            self.findings.push(finding);
        } else {
            self.dropped += 1;
        }
    }

    /// Number of errors so far.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether further errors will not be reported, so that their help is not
    /// worth working out.
    pub(super) fn is_full(&self) -> bool {
        self.errors >= MAX_REPORTED
    }

    /// The diagnostics in the order of the file, and how many were left out.
    pub(super) fn finish(self, file: &str, text: &Text, base: usize) -> (Vec<Diagnostic>, usize) {
        let mut findings = self.findings;
        // Errors first when not all can be reported.
        findings.sort_by_key(|f| (f.code.severity(), f.span.start, f.code));
        let omitted = findings.len().saturating_sub(MAX_REPORTED) + self.dropped;
        findings.truncate(MAX_REPORTED);
        findings.sort_by_key(|f| (f.span.start, f.code));
        let diagnostics = findings
            .into_iter()
            .map(|finding| locate(finding, file, text, base))
            .collect();
        (diagnostics, omitted)
    }
}

fn locate(finding: Finding, file: &str, text: &Text, base: usize) -> Diagnostic {
    let span = text.on_one_line(finding.span);
    let start = text.position(span.start);
    let related = finding.related.map(|span| text.on_one_line(span));
    Diagnostic {
        code: finding.code,
        severity: finding.code.severity(),
        message: finding.message,
        file: file.to_owned(),
        line: start.line,
        column: start.column,
        end_column: start.column + text.slice(span).chars().count(),
        span: ByteSpan {
            start: base + span.start,
            end: base + span.end,
        },
        label: finding.label,
        help: finding.help,
        related: related.map(|span| ByteSpan {
            start: base + span.start,
            end: base + span.end,
        }),
        url: finding.code.url(),
        source_line: text.line_around(span.start),
    }
}

/// A piece of the file in backticks, short enough for a message.
pub(super) fn quote(text: &str) -> String {
    let mut quoted: String = text
        .chars()
        .take(MAX_QUOTED_CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        quoted.push('…');
    }
    format!("`{quoted}`")
}

/// The candidate that `text` is most likely a misspelling of.
pub(super) fn similar<'c>(
    text: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // Distances are quadratic in the length; nobody misspells a page.
    if text.len() > MAX_COMPARED_LEN {
        return None;
    }
    let fold = |s: &str| s.to_lowercase().replace(['_', '-', ' '], "");
    let folded = fold(text);
    // A third of the letters may be wrong; of a short word, one.
    let tolerance = (folded.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .take(MAX_COMPARED)
        .filter(|candidate| candidate.len() <= MAX_COMPARED_LEN)
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&folded, &fold(candidate));
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean` for an unknown word, or the words there are.
pub(super) fn suggest(text: &str, what: &str, candidates: &[&str]) -> Option<String> {
    if let Some(candidate) = similar(text, candidates.iter().copied()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    // A long list helps nobody.
    let list: Vec<_> = candidates
        .iter()
        .take(20)
        .map(|c| format!("`{c}`"))
        .collect();
    match candidates.len() {
        0 => None,
        1..=20 => Some(format!("{what}: {}", list.join(", "))),
        more => Some(format!(
            "{what}: {}, and {} more",
            list.join(", "),
            more - 20
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelling_is_recognised_and_a_different_word_is_not() {
        let candidates = ["parameters", "result", "next", "catch"];
        for (word, expected) in [
            ("paramters", Some("parameters")),
            ("Parameters", Some("parameters")),
            ("nxet", Some("next")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(similar(word, candidates), expected, "{word}");
        }
    }

    #[test]
    fn errors_are_kept_when_warnings_have_to_go() {
        let mut reporter = Reporter::default();
        for at in 0..150 {
            let span = Span::new(at, at + 1);
            reporter.report(Finding::new(Code::Unreachable, span, "w"));
        }
        reporter.report(Finding::new(Code::UnknownKey, Span::new(160, 161), "e"));
        let source = "x".repeat(200);
        let (diagnostics, omitted) = reporter.finish("f", &Text::new(&source), 0);
        assert_eq!((diagnostics.len(), omitted), (MAX_REPORTED, 51));
        assert_eq!(diagnostics.last().map(|d| d.code), Some(Code::UnknownKey));
    }
}
