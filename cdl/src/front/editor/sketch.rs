//! Reads YAML that is being typed.
//!
//! The parser gives nothing for a file with one mistake in its syntax, and a file that
//! somebody is typing into mostly has one. This reader goes by lines and
//! indentation: whatever a line cannot be read as costs that line, a bracket or quote
//! that is not closed ends where the indentation says that it must. What
//! it gives is for looking at, not for running.

use saphyr_parser::ScalarStyle;

use crate::front::scalar::Scalar;
use crate::front::text::Span;
use crate::front::yaml::{Entry, Key, MAX_DEPTH, MAX_NODES, Node, Yaml};

/// A line that says something, or what is left of it.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Where it begins, its indentation left out.
    start: usize,
    end: usize,
    indent: usize,
}

struct Sketch<'a> {
    source: &'a str,
    lines: Vec<Line>,
    /// The line that is read next.
    at: usize,
    nodes: usize,
}

/// Reads `source`, whatever is wrong with it. `None` if there is nothing in it.
pub(super) fn read(source: &str) -> Option<Node> {
    let mut sketch = Sketch {
        source,
        lines: lines(source),
        at: 0,
        nodes: 0,
    };
    sketch.block(0, MAX_DEPTH)
}

/// The lines with something in them.
fn lines(source: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in source.split_inclusive('\n') {
        let mark = if line.starts_with('\u{feff}') { 3 } else { 0 };
        let text = line[mark..].trim_end();
        let indent = text.len() - text.trim_start_matches([' ', '\t']).len();
        let text = &text[indent..];
        let is_mark = indent == 0 && (text == "---" || text == "..." || text.starts_with('%'));
        if !text.is_empty() && !text.starts_with('#') && !is_mark {
            let start = start + mark + indent;
            lines.push(Line {
                start,
                end: start + text.len(),
                indent,
            });
        }
        start += line.len();
    }
    lines
}

fn null(at: usize) -> Node {
    Node {
        span: Span::new(at, at),
        yaml: Yaml::Scalar(Scalar::new("", ScalarStyle::Plain)),
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Where the key of a line ends and its value begins.
fn key_of(text: &str) -> Option<(usize, usize)> {
    let first = text.chars().next()?;
    let from = match first {
        '"' | '\'' => quoted_len(text)?,
        '{' | '[' | '}' | ']' | '#' | ',' | '|' | '>' => return None,
        _ => 0,
    };
    let rest = &text[from..];
    let colon = rest
        .match_indices(':')
        .map(|(at, _)| at)
        .find(|at| rest[at + 1..].is_empty() || rest[at + 1..].starts_with([' ', '\t']))?;
    if rest[..colon].contains(" #") || (from > 0 && !rest[..colon].trim().is_empty()) {
        return None;
    }
    Some((from + rest[..colon].trim_end().len(), from + colon + 1))
}

/// How long the quoted text is that `text` starts with, its quotes counted in, if it ends
/// on its line.
fn quoted_len(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' | '\r' => return None,
            '\\' if quote == '"' => {
                chars.next();
            }
            c if c == quote => {
                let doubled = quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == '\'');
                if !doubled {
                    return Some(at + 1);
                }
                chars.next();
            }
            _ => {}
        }
    }
    None
}

/// A text between quotes, which may be closed.
fn quoted(text: &str, start: usize) -> Node {
    let double = text.starts_with('"');
    let inner = text.get(1..).unwrap_or("");
    let inner = match quoted_len(text) {
        Some(len) => inner.get(..len - 2).unwrap_or(""),
        None => inner,
    };
    let (value, style) = if double {
        let value = inner.replace("\\\"", "\"").replace("\\\\", "\\");
        (value, ScalarStyle::DoubleQuoted)
    } else {
        (inner.replace("''", "'"), ScalarStyle::SingleQuoted)
    };
    Node {
        span: Span::new(start, start + text.len()),
        yaml: Yaml::Scalar(Scalar::new(&value, style)),
    }
}

fn plain(text: &str, start: usize) -> Node {
    let text = text.trim_end();
    Node {
        span: Span::new(start, start + text.len()),
        yaml: Yaml::Scalar(Scalar::new(text, ScalarStyle::Plain)),
    }
}

/// A key as it stands in the file.
fn key(text: &str, start: usize) -> Key {
    let node = if text.starts_with(['"', '\'']) {
        quoted(text, start)
    } else {
        plain(text, start)
    };
    let text = match node.yaml {
        Yaml::Scalar(scalar) => scalar.into_text(),
        _ => "".into(),
    };
    Key {
        span: node.span,
        text,
    }
}

/// How much of the rest of a line is before a comment.
fn before_comment(text: &str) -> &str {
    text.split(" #").next().unwrap_or(text).trim_end()
}

impl<'a> Sketch<'a> {
    fn line(&self) -> Option<Line> {
        let line = self.lines.get(self.at).copied();
        line.filter(|_| self.nodes < MAX_NODES)
    }

    fn text(&self, line: Line) -> &'a str {
        self.source.get(line.start..line.end).unwrap_or("")
    }

    /// Goes to the first line from `offset` on.
    fn skip_to(&mut self, offset: usize) {
        while self.line().is_some_and(|line| line.start < offset) {
            self.at += 1;
        }
    }

    /// What is indented by `min` at least, if the next line is.
    fn block(&mut self, min: usize, depth: usize) -> Option<Node> {
        let line = self.line().filter(|line| line.indent >= min)?;
        self.nodes += 1;
        let text = self.text(line);
        if depth == 0 {
            self.at += 1;
            return Some(null(line.start));
        }
        if is_item(text) {
            Some(self.sequence(line, depth - 1))
        } else if key_of(text).is_some() {
            Some(self.mapping(line, depth - 1))
        } else {
            // Nothing that is indented less belongs to it.
            let parent = min.checked_sub(1);
            Some(self.value(line.start, line.end, parent))
        }
    }

    fn sequence(&mut self, first: Line, depth: usize) -> Node {
        let mut items = Vec::new();
        let mut end = first.end;
        while let Some(line) = self.line() {
            let text = self.text(line);
            if line.indent > first.indent {
                // Belongs to nothing that could be read.
                self.at += 1;
                continue;
            }
            if line.indent < first.indent || !is_item(text) {
                break;
            }
            let rest = text[1..].trim_start();
            let offset = text.len() - rest.len();
            let item = if rest.is_empty() || rest.starts_with('#') {
                self.at += 1;
                self.block(first.indent + 1, depth)
            } else {
                self.lines[self.at].start += offset;
                self.lines[self.at].indent += offset;
                self.block(first.indent + 1, depth)
            };
            let item = item.unwrap_or_else(|| null(line.end));
            end = end.max(item.span.end);
            items.push(item);
        }
        Node {
            span: Span::new(first.start, end),
            yaml: Yaml::Sequence(items),
        }
    }

    fn mapping(&mut self, first: Line, depth: usize) -> Node {
        let mut entries = Vec::new();
        let mut end = first.end;
        while let Some(line) = self.line() {
            let text = self.text(line);
            if line.indent < first.indent || (line.indent == first.indent && is_item(text)) {
                break;
            }
            let found = key_of(text).filter(|_| line.indent == first.indent);
            let Some((key_end, rest)) = found else {
                // A key that is being typed, or a line too far to the right.
                self.at += 1;
                continue;
            };
            let key = key(&text[..key_end], line.start);
            let value = self.value_of(line, rest, depth);
            end = end.max(value.span.end).max(key.span.end);
            self.nodes += 1;
            entries.push(Entry { key, value });
        }
        Node {
            span: Span::new(first.start, end),
            yaml: Yaml::Mapping(entries),
        }
    }

    /// The value behind the colon at `rest` of a line, or below it.
    fn value_of(&mut self, line: Line, rest: usize, depth: usize) -> Node {
        let behind = &self.text(line)[rest..];
        let value = behind.trim_start();
        if !value.is_empty() && !value.starts_with('#') {
            return self.value(line.end - value.len(), line.end, Some(line.indent));
        }
        self.at += 1;
        let below = self.line().filter(|below| {
            // A list may stand as far to the left as the key that it belongs to.
            let is_list = below.indent == line.indent && is_item(self.text(*below));
            is_list || below.indent > line.indent
        });
        let value = below.and_then(|below| self.block(below.indent, depth));
        value.unwrap_or_else(|| null((line.start + rest + 1).min(line.end)))
    }

    /// A value that starts within a line and belongs to something indented by `parent`.
    fn value(&mut self, start: usize, end: usize, parent: Option<usize>) -> Node {
        let text = self.source.get(start..end).unwrap_or("");
        let after = self.lines[self.at + 1..].iter();
        let limit = after
            .clone()
            .find(|line| parent.is_some_and(|parent| line.indent <= parent))
            .map_or(self.source.len(), |line| line.start);
        let node = match text.chars().next() {
            Some('{' | '[') => {
                let mut flow = Flow {
                    source: &self.source[..limit],
                    at: start,
                    nodes: &mut self.nodes,
                };
                let node = flow.value(MAX_DEPTH);
                // What follows on the line is nothing.
                let until = flow.at;
                self.at += 1;
                self.skip_to(until);
                return node;
            }
            Some('"' | '\'') => {
                let len = quoted_len(text).unwrap_or(text.len());
                quoted(&text[..len], start)
            }
            Some('|' | '>') => Node {
                span: Span::new(start, self.source[..limit].trim_end().len().max(start)),
                yaml: Yaml::Scalar(Scalar::new("", ScalarStyle::Literal)),
            },
            _ => plain(before_comment(text), start),
        };
        // The lines that a text goes on in.
        self.at += 1;
        self.skip_to(limit);
        node
    }
}

/// What stands in brackets.
struct Flow<'a, 'n> {
    /// Up to where it has to end.
    source: &'a str,
    at: usize,
    nodes: &'n mut usize,
}

impl Flow<'_, '_> {
    fn peek(&self) -> Option<char> {
        let rest = self.source.get(self.at..)?;
        rest.chars().next().filter(|_| *self.nodes < MAX_NODES)
    }

    fn blanks(&mut self, also: &[char]) {
        while let Some(c) = self.peek() {
            if c == '#' && self.source[..self.at].ends_with(char::is_whitespace) {
                let rest = &self.source[self.at..];
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if c.is_whitespace() || also.contains(&c) {
                self.at += c.len_utf8();
            } else {
                break;
            }
        }
    }

    fn value(&mut self, depth: usize) -> Node {
        *self.nodes += 1;
        let start = self.at;
        match self.peek() {
            Some(open @ ('{' | '[')) => {
                self.at += 1;
                let yaml = match depth.checked_sub(1) {
                    None => Yaml::Invalid,
                    Some(depth) if open == '{' => Yaml::Mapping(self.entries(depth)),
                    Some(depth) => Yaml::Sequence(self.items(depth)),
                };
                Node {
                    span: Span::new(start, self.at),
                    yaml,
                }
            }
            Some('"' | '\'') => {
                let rest = &self.source[start..];
                let line_len = || rest.find(['\n', '\r']).unwrap_or(rest.len());
                let len = quoted_len(rest).unwrap_or_else(line_len);
                self.at += len;
                quoted(&rest[..len], start)
            }
            _ => {
                let rest = &self.source[start..];
                let is_end = |(at, c): &(usize, char)| match c {
                    ',' | '{' | '}' | '[' | ']' | '\n' => true,
                    ':' => rest[at + 1..]
                        .chars()
                        .next()
                        .is_none_or(|c| c.is_whitespace() || matches!(c, ',' | '}' | ']')),
                    _ => false,
                };
                let len = rest.char_indices().find(is_end);
                let len = len.map_or(rest.len(), |(at, _)| at);
                self.at += len;
                plain(&rest[..len], start)
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            self.blanks(&[',', ':', ']']);
            match self.peek() {
                None => return entries,
                Some('}') => {
                    self.at += 1;
                    return entries;
                }
                Some(_) => {}
            }
            let start = self.at;
            let found = self.value(depth);
            let text = &self.source[found.span.start..found.span.end];
            let key = match found.yaml {
                Yaml::Scalar(_) => key(text, start),
                // Two braces without quotes: no key, and nothing to look at.
                _ => continue,
            };
            self.inline();
            let value = if self.peek() == Some(':') {
                self.at += 1;
                self.inline();
                match self.peek() {
                    None | Some(',' | '}' | ']' | '\n' | '\r') => null(self.at),
                    Some(_) => self.value(depth),
                }
            } else {
                null(self.at)
            };
            entries.push(Entry { key, value });
        }
    }

    fn items(&mut self, depth: usize) -> Vec<Node> {
        let mut items = Vec::new();
        loop {
            self.blanks(&[',', ':', '}']);
            match self.peek() {
                None => return items,
                Some(']') => {
                    self.at += 1;
                    return items;
                }
                Some(_) => items.push(self.value(depth)),
            }
        }
    }

    /// Steps over blanks that do not end the line.
    fn inline(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree in one line: `{a: 1, b: [x]}`.
    fn show(node: &Node) -> String {
        match &node.yaml {
            Yaml::Scalar(scalar) => scalar.text().to_owned(),
            Yaml::Sequence(items) => {
                let items: Vec<String> = items.iter().map(show).collect();
                format!("[{}]", items.join(", "))
            }
            Yaml::Mapping(entries) => {
                let show = |entry: &Entry| format!("{}: {}", entry.key.text, show(&entry.value));
                let entries: Vec<String> = entries.iter().map(show).collect();
                format!("{{{}}}", entries.join(", "))
            }
            Yaml::Invalid => "!".to_owned(),
        }
    }

    #[test]
    fn what_is_whole_reads_as_yaml_does() {
        for (text, expected) in [
            ("a: 1\nb:\n  c: x y # note\n", "{a: 1, b: {c: x y}}"),
            (
                "a:\n- x\n- y: 1\n  z: 2\nb: 3",
                "{a: [x, {y: 1, z: 2}], b: 3}",
            ),
            ("a:\n  -\n    b: 1\n  - - c", "{a: [{b: 1}, [c]]}"),
            (
                "- { a: 'it''s', b: [x, \"y\"] }\n- c",
                "[{a: it's, b: [x, y]}, c]",
            ),
            ("a: { b: 1,\n  c: 2 }\nd: 3", "{a: {b: 1, c: 2}, d: 3}"),
            ("a: |\n  text: no key\n\n  more\nb: 1", "{a: , b: 1}"),
            ("a: urn:x:y\n'b c': \"d: e\"", "{a: urn:x:y, b c: d: e}"),
            (
                "{\n \"a\": {\"b\": 1},\n \"c\": [true]\n}",
                "{a: {b: 1}, c: [true]}",
            ),
            ("---\n# note\n\na: 1", "{a: 1}"),
            ("\u{feff}a: 1\r\nb: 2\r\n", "{a: 1, b: 2}"),
        ] {
            let node = read(text);
            assert_eq!(node.as_ref().map(show).as_deref(), Some(expected), "{text}");
        }
        assert!(read(" \n# nothing\n").is_none());
    }

    #[test]
    fn what_is_broken_costs_its_line() {
        for (text, expected) in [
            ("a: 1\nbro\nc: 2", "{a: 1, c: 2}"),
            (
                "a:\n  - x: \"open\n  - y: 1\nb: 2",
                "{a: [{x: open}, {y: 1}], b: 2}",
            ),
            ("- { a: 1, b: \n- { a: 2 }", "[{a: 1, b: }, {a: 2}]"),
            ("- [x, y\n- z", "[[x, y], z]"),
            ("a: {{ b }}\nc: 1", "{a: {}, c: 1}"),
            ("a:\n    b: 1\n   c: 2\nd: 3", "{a: {b: 1}, d: 3}"),
            ("a: x\n  b: 1\nc: 2", "{a: x, c: 2}"),
            ("a: ]\nb: }", "{a: ], b: }}"),
            ("{\"a\": ,\n\"b\": \n\"c\": 1", "{a: , b: , c: 1}"),
        ] {
            let node = read(text);
            assert_eq!(node.as_ref().map(show).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn nothing_is_too_deep_or_too_odd() {
        for text in [
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            format!("{{{}", "\"a\": \"b\", ".repeat(100_000)),
            (0..2000).fold(String::new(), |text, n| {
                text + &" ".repeat(n)
                    + "a:
"
            }),
            "\"".to_owned(),
            "'".to_owned(),
            "- '".to_owned(),
            ": :\n-:\n?\n- -\n".to_owned(),
            "é: 'ü\nß: [ö, {ä: ".to_owned(),
        ] {
            let _ = read(&text);
        }
    }
}
