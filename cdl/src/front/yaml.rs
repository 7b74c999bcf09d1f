//! A file as a tree of nodes that know their place.
//!
//! Reads the subset of YAML that configuration needs: mappings with text as
//! keys, lists, scalars of the core schema. Anchors, aliases, tags and further
//! documents are refused, duplicate keys too. Every dimension of the tree is
//! bounded, and reading never recurses.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::guard::{Guard, Limits, MAX_WINDOW_CHARS, Trip};
use super::report::{Finding, Reporter, quote};
use super::scalar::{Scalar, end_of_quoted};
use super::text::{Span, Text};
use crate::diagnostic::Code;

/// Deepest nesting of lists and mappings. Each level of Parallel takes four, so
/// this is deeper than anybody can follow, and shallow enough to recurse over.
pub(super) const MAX_DEPTH: usize = 64;

/// Most scalars, lists and mappings: some thousands of states.
pub(super) const MAX_NODES: usize = 200_000;

/// Longest scalar, in bytes: a longer text belongs into an activity or an input.
/// Definitions of the States Language hold texts of 256 KiB, the most that data
/// may have there.
pub(super) const MAX_SCALAR_BYTES: usize = 512 * 1024;

/// A value of the file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) yaml: Yaml,
}

/// The kinds of [`Node`].
#[derive(Debug)]
pub(super) enum Yaml {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// Something that was reported already.
    Invalid,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) value: Node,
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) span: Span,
    pub(super) text: Box<str>,
}

impl Node {
    fn invalid(span: Span) -> Self {
        Self {
            span,
            yaml: Yaml::Invalid,
        }
    }

    /// Where to point at for the value as a whole: itself, or the first thing in it.
    pub(super) fn head(&self) -> Span {
        match &self.yaml {
            Yaml::Mapping(entries) => entries.first().map_or(self.span, |entry| entry.key.span),
            Yaml::Sequence(items) => items.first().map_or(self.span, Self::head),
            _ => self.span,
        }
    }
}

/// Reads `text`. `None` if nothing of it can be used; then the reason was reported.
pub(super) fn read(text: &Text, reporter: &mut Reporter) -> Option<Node> {
    let limits = Limits::new(MAX_DEPTH);
    let mut parser = Parser::new(Guard::new(text.as_str(), &limits));
    let mut tree = Tree {
        text,
        reporter,
        open: Vec::new(),
        root: None,
        nodes: 0,
    };
    loop {
        match parser.next_event() {
            None => break,
            Some(Ok((event, span))) => {
                limits.event();
                let start = text.byte_of_char(span.start.index());
                let end = text.byte_of_char(span.end.index()).max(start);
                let step = tree.take(event, Span::new(start, end));
                if step == Step::Stop {
                    return tree.root.take();
                }
            }
            Some(Err(error)) => {
                let finding = match limits.tripped() {
                    Some((trip, at)) => limit_finding(trip, text.byte_of_char(at)),
                    None => syntax_finding(text, &error),
                };
                tree.reporter.report(finding);
                return None;
            }
        }
        // The scanner may not notice the end that the guard showed it.
        if let Some((trip, at)) = limits.tripped() {
            tree.reporter
                .report(limit_finding(trip, text.byte_of_char(at)));
            return None;
        }
    }
    tree.root
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    On,
    Stop,
}

/// A list or mapping that has not ended.
enum Open {
    Sequence {
        start: Span,
        items: Vec<Node>,
    },
    Mapping {
        start: Span,
        entries: Vec<Entry>,
        /// A key whose value has not come.
        key: Option<Key>,
        /// Where each key stands.
        seen: HashMap<Box<str>, Span>,
        /// Whether a problem was reported that makes the rest meaningless.
        spoiled: bool,
    },
}

struct Tree<'a, 't, 'r> {
    text: &'a Text<'t>,
    reporter: &'r mut Reporter,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

impl Tree<'_, '_, '_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Step {
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                self.refuse_properties(anchor, tag.as_deref().map(ToString::to_string), span);
                self.scalar(&value, style, span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.as_deref().map(ToString::to_string), span);
                self.start(span, false)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.as_deref().map(ToString::to_string), span);
                self.start(span, true)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.end(span);
                Step::On
            }
            Event::Alias(_) => {
                self.reporter.report(alias_finding(span));
                self.deliver(Node::invalid(span));
                Step::On
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                self.reporter.report(
                    Finding::new(Code::SecondDocument, span, "a second document starts here")
                        .help("one file holds one application; move the rest into another file"),
                );
                Step::Stop
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Step::On,
        }
    }

    fn refuse_properties(&mut self, anchor: usize, tag: Option<String>, span: Span) {
        if let Some(tag) = tag {
            self.reporter.report(
                Finding::new(
                    Code::Tag,
                    span,
                    format!("the tag {} is not supported", quote(&tag)),
                )
                .help("leave it out; quote a value to make it text"),
            );
        }
        if anchor != 0 {
            self.reporter.report(alias_finding(span));
        }
    }

    fn scalar(&mut self, value: &str, style: ScalarStyle, span: Span) -> Step {
        if value.len() > MAX_SCALAR_BYTES {
            self.reporter.report(
                Finding::new(
                    Code::TooBig,
                    span,
                    format!("a value of {} bytes is too long", value.len()),
                )
                .help(format!("a single value may have {MAX_SCALAR_BYTES} bytes")),
            );
            self.deliver(Node::invalid(span));
            return self.count(span);
        }
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let span = if quoted {
            // The parser counts white space and a comment behind it in.
            Span::new(span.start, end_of_quoted(self.text.as_str(), span))
        } else {
            span
        };
        self.deliver(Node {
            span,
            yaml: Yaml::Scalar(Scalar::new(value, style)),
        });
        self.count(span)
    }

    fn start(&mut self, span: Span, mapping: bool) -> Step {
        if self.open.len() >= MAX_DEPTH {
            self.reporter.report(limit_finding(Trip::Depth, span.start));
            return Step::Stop;
        }
        self.open.push(if mapping {
            Open::Mapping {
                start: span,
                entries: Vec::new(),
                key: None,
                seen: HashMap::new(),
                spoiled: false,
            }
        } else {
            Open::Sequence {
                start: span,
                items: Vec::new(),
            }
        });
        self.count(span)
    }

    fn end(&mut self, span: Span) {
        let node = match self.open.pop() {
            Some(Open::Sequence { start, items }) => Node {
                span: Span::new(start.start, span.end.max(start.end)),
                yaml: Yaml::Sequence(items),
            },
            Some(Open::Mapping {
                start,
                entries,
                spoiled,
                ..
            }) => Node {
                span: Span::new(start.start, span.end.max(start.end)),
                yaml: if spoiled {
                    Yaml::Invalid
                } else {
                    Yaml::Mapping(entries)
                },
            },
            // The parser balances its events.
            None => return,
        };
        self.deliver(node);
    }

    fn count(&mut self, span: Span) -> Step {
        self.nodes += 1;
        if self.nodes <= MAX_NODES {
            return Step::On;
        }
        self.reporter.report(
            Finding::new(Code::TooBig, span, "the file has too many values")
                .help(format!("a file may have {MAX_NODES} values; split it")),
        );
        self.root = None;
        Step::Stop
    }

    /// Hands a finished node to what it is in.
    fn deliver(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, key, .. }) => match key.take() {
                Some(key) => entries.push(Entry { key, value: node }),
                None => self.key(node),
            },
        }
    }

    fn key(&mut self, node: Node) {
        let Some(Open::Mapping {
            start,
            key,
            seen,
            spoiled,
            ..
        }) = self.open.last_mut()
        else {
            return;
        };
        let span = node.span;
        let text: Box<str> = if let Yaml::Scalar(scalar) = node.yaml {
            scalar.into_text()
        } else {
            if !*spoiled {
                *spoiled = true;
                self.reporter
                    .report(complex_key_finding(self.text, *start, span));
            }
            "".into()
        };
        if let Some(first) = seen.get(&text)
            && !*spoiled
        {
            let line = self.text.position(first.start).line;
            self.reporter.report(
                Finding::new(
                    Code::DuplicateKey,
                    span,
                    format!("{} is given twice", quote(&text)),
                )
                .label(format!("first given in line {line}"))
                .related(*first)
                .help("remove one of the two"),
            );
        } else {
            seen.insert(text.clone(), span);
        }
        *key = Some(Key { span, text });
    }
}

fn alias_finding(span: Span) -> Finding {
    Finding::new(Code::Alias, span, "anchors and aliases are not supported")
        .help("write the value out where it is used")
}

fn complex_key_finding(text: &Text, start: Span, key: Span) -> Finding {
    let at = Span::new(start.start, key.end);
    let finding = Finding::new(Code::ComplexKey, at, "a key has to be text");
    if text.as_str()[start.start..].starts_with("{{") {
        finding
            .label("YAML reads this as a mapping in a mapping")
            .help("quote an expression: \"{{ ... }}\"")
    } else {
        finding.help("lists and mappings cannot be keys")
    }
}

fn limit_finding(trip: Trip, at: usize) -> Finding {
    let span = Span::new(at, at + 1);
    match trip {
        Trip::Depth => Finding::new(Code::TooDeep, span, "the file is nested too deeply")
            .label(format!("more than {MAX_DEPTH} levels"))
            .help("flatten it; nested branches can become a workflow of their own"),
        Trip::Window => Finding::new(Code::TooBig, span, "a value is too long")
            .label("this value does not end soon enough")
            .help(format!(
                "a value in brackets or quotes may take {MAX_WINDOW_CHARS} characters of the \
                 file; write lists and mappings as indented blocks"
            )),
    }
}

fn syntax_finding(text: &Text, error: &ScanError) -> Finding {
    let at = place(text, error.marker());
    let span = Span::new(at, at + 1);
    let line = text.line_around(at);
    let info = error.info();
    if info.contains("anchor") {
        return alias_finding(span);
    }
    if let Some(tab) = text.tab_in_indentation(at) {
        let span = Span::new(tab, tab + 1);
        return Finding::new(Code::Tab, span, "a tab is used where YAML wants spaces")
            .label(info)
            .help("indent with spaces only");
    }
    let finding = Finding::new(Code::YamlSyntax, span, format!("invalid YAML: {info}"));
    if line.contains(": {{") || line.contains("- {{") {
        finding.help("quote an expression: \"{{ ... }}\"")
    } else if info.contains("mapping values are not allowed") {
        finding.help("quote a text that contains `: `, and check the indentation")
    } else if info.contains("quoted scalar") && info.contains("end of stream") {
        finding.help("the quote that starts here is not closed")
    } else if info.contains("unprintable") || info.contains("unexpected character") {
        finding.help("quote a text that contains special characters")
    } else {
        finding.help("check the indentation, the quotes and the brackets around this place")
    }
}

/// The byte that a marker stands for. At the end of the file the parser puts it
/// on a line that does not exist.
fn place(text: &Text, marker: &Marker) -> usize {
    text.byte_of_char(marker.index())
}
