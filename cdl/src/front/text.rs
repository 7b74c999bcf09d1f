//! The text of a file, and how places in it are named.

/// Longest part of a line that a diagnostic carries, in characters: a
/// terminal's width and some.
const MAX_LINE_CHARS: usize = 240;

/// Characters between two entries of the index from characters to bytes: the
/// index stays small, and a lookup walks little.
const STRIDE: usize = 128;

/// A range of bytes of the text, the end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// A place as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
}

/// A file's text, without its byte order mark.
pub(super) struct Text<'a> {
    source: &'a str,
    /// Where each line starts, in bytes.
    lines: Vec<usize>,
    /// Byte offset of every [`STRIDE`]th character; `None` if all are ASCII.
    chars: Option<Vec<usize>>,
}

impl<'a> Text<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        let bytes = source.as_bytes();
        let mut lines = vec![0];
        for (at, &byte) in bytes.iter().enumerate() {
            // YAML ends a line at \n, \r\n and a lone \r.
            let ends = byte == b'\n' || (byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
            if ends {
                lines.push(at + 1);
            }
        }
        let chars = (!source.is_ascii()).then(|| {
            source
                .char_indices()
                .step_by(STRIDE)
                .map(|(at, _)| at)
                .collect()
        });
        Self {
            source,
            lines,
            chars,
        }
    }

    pub(super) fn as_str(&self) -> &'a str {
        self.source
    }

    /// The text of `span`.
    pub(super) fn slice(&self, span: Span) -> &'a str {
        self.source.get(span.start..span.end).unwrap_or("")
    }

    /// The byte at which the character with this index starts.
    pub(super) fn byte_of_char(&self, index: usize) -> usize {
        let Some(chars) = &self.chars else {
            return index.min(self.source.len());
        };
        let Some(&start) = chars.get(index / STRIDE) else {
            return self.source.len();
        };
        let rest = &self.source[start..];
        rest.char_indices()
            .nth(index % STRIDE)
            .map_or(self.source.len(), |(at, _)| start + at)
    }

    /// Line and column of a byte.
    pub(super) fn position(&self, at: usize) -> Position {
        let at = self.floor(at);
        let line = self.lines.partition_point(|&start| start <= at);
        let start = self.lines[line - 1];
        Position {
            line,
            column: self.source[start..at].chars().count() + 1,
        }
    }

    /// `span`, cut to the line that it starts on and to whole characters, and
    /// at least one character long unless the line ends there.
    pub(super) fn on_one_line(&self, span: Span) -> Span {
        let start = self.floor(span.start);
        let line = &self.source[start..self.line_of(start).end];
        let first = line.chars().next().map_or(0, char::len_utf8);
        let end = self
            .floor(span.end)
            .clamp(start + first, start + line.len());
        Span { start, end }
    }

    /// The line of a byte; of a long line, the part around it.
    pub(super) fn line_around(&self, at: usize) -> String {
        let at = self.floor(at);
        let span = self.line_of(at);
        let line = self.slice(span);
        let column = self.source[span.start..at].chars().count();
        let from = column.saturating_sub(MAX_LINE_CHARS / 2);
        let skip = if line.len() <= MAX_LINE_CHARS {
            0
        } else {
            from
        };
        line.chars().skip(skip).take(MAX_LINE_CHARS).collect()
    }

    /// The first tab in the indentation of the line of a byte.
    pub(super) fn tab_in_indentation(&self, at: usize) -> Option<usize> {
        let span = self.line_of(at);
        let line = self.slice(span);
        let indentation = &line[..line.find(|c| !matches!(c, ' ' | '\t'))?];
        indentation.find('\t').map(|tab| span.start + tab)
    }

    /// The line of a byte, without its end; at the end of a line, that line.
    fn line_of(&self, at: usize) -> Span {
        let number = self.lines.partition_point(|&start| start <= at);
        let start = self.lines[number - 1];
        let next = self.lines.get(number).copied().unwrap_or(self.source.len());
        let line = &self.source[start..next];
        let end = start + line.trim_end_matches(['\n', '\r']).len();
        // Between the characters of a line's end.
        Span::new(start, end.max(at.min(next)))
    }

    /// The nearest start of a character at or before `at`.
    fn floor(&self, at: usize) -> usize {
        let mut at = at.min(self.source.len());
        while !self.source.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values by the rule: lines end at \n, \r\n and \r, columns count characters.
    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = Text::new("a\r\nbä c\rd\n");
        for (at, line, column) in [
            (0, 1, 1),
            (3, 2, 1),
            (6, 2, 3),
            (7, 2, 4),
            (9, 3, 1),
            (99, 4, 1),
        ] {
            assert_eq!(text.position(at), Position { line, column }, "byte {at}");
        }
    }

    #[test]
    fn characters_are_found_past_the_stride() {
        let source = "ä".repeat(1000);
        let text = Text::new(&source);
        for index in [0, 1, 127, 128, 129, 999, 1000, 5000] {
            assert_eq!(text.byte_of_char(index), (2 * index).min(2000), "{index}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let source = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let line = Text::new(&source).line_around(5000);
        assert_eq!(line.chars().count(), MAX_LINE_CHARS);
        assert!(line.contains("aXb"), "{line}");
    }
}
