//! The text of a file that an editor has open, and the places in it as the protocol counts
//! them.

use cascade_cdl::MAX_FILE_BYTES;
use cascade_cdl::diagnostic::ByteSpan;
use lsp_types::{Position, Range, TextDocumentContentChangeEvent};

/// Longest text that is kept: beyond what the parser reads, so that a file which is too
/// large for a moment is not lost.
const MAX_KEPT_BYTES: usize = 2 * MAX_FILE_BYTES;

/// In what the columns of a line are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As every editor can.
    Utf16,
    Utf8,
}

impl Encoding {
    fn width(self, c: char) -> usize {
        match self {
            Self::Utf16 => c.len_utf16(),
            Self::Utf8 => c.len_utf8(),
        }
    }
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct Document {
    /// `None` once it was too long.
    text: Option<String>,
    pub(super) version: i32,
    /// Whether the editor was told of problems that it may still show.
    pub(super) is_marked: bool,
}

impl Document {
    pub(super) fn new(text: String, version: i32) -> Self {
        let mut document = Self {
            text: Some(text),
            version,
            is_marked: false,
        };
        document.bound();
        document
    }

    /// What is in it, unless it is too long for that.
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, String::len)
    }

    /// Applies a change: to a range, or of everything.
    pub(super) fn change(&mut self, change: TextDocumentContentChangeEvent, encoding: Encoding) {
        match (change.range, &mut self.text) {
            (None, _) => self.text = Some(change.text),
            (Some(range), Some(text)) => {
                let lines = Lines::new(text, encoding);
                let start = lines.offset(range.start);
                let end = lines.offset(range.end).max(start);
                text.replace_range(start..end, &change.text);
            }
            // It is not known what is changed.
            (Some(_), None) => {}
        }
        self.bound();
    }

    /// Leaves it alone until it is sent as a whole.
    pub(super) fn forget(&mut self) {
        self.text = None;
    }

    fn bound(&mut self) {
        if self.bytes() > MAX_KEPT_BYTES {
            self.forget();
        }
    }
}

/// Bytes between two places whose columns are kept: files of machines have a single line,
/// and a question about each of its states should not count from its start.
const STRIDE: usize = 256;

/// Where the lines of a text are.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// Columns, each with its byte: of the start of every line, and some on long ones.
    columns: Vec<(usize, usize)>,
    encoding: Encoding,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, encoding: Encoding) -> Self {
        let mut starts = vec![0];
        let mut columns = vec![(0, 0)];
        let mut column = 0;
        let mut last = 0;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = at + c.len_utf8();
            column += encoding.width(c);
            let is_lone = chars.peek().is_none_or(|(_, c)| *c != '\n');
            if c == '\n' || (c == '\r' && is_lone) {
                column = 0;
                starts.push(next);
            } else if next - last < STRIDE {
                continue;
            }
            columns.push((next, column));
            last = next;
        }
        Self {
            text,
            starts,
            columns,
            encoding,
        }
    }

    /// The line of a number, without its break.
    fn line(&self, number: usize) -> &'a str {
        let start = self.starts[number];
        let next = self.starts.get(number + 1);
        let line = &self.text[start..next.copied().unwrap_or(self.text.len())];
        line.trim_end_matches(['\n', '\r'])
    }

    /// The byte that a position stands for; what is beyond a line or the text is its end.
    pub(super) fn offset(&self, position: Position) -> usize {
        let number = position.line as usize;
        let Some(&start) = self.starts.get(number) else {
            return self.text.len();
        };
        let line = self.line(number);
        let column = position.character as usize;
        let mut passed = 0;
        for (at, c) in line.char_indices() {
            // A position in the middle of a character stands for the character.
            passed += self.encoding.width(c);
            if passed > column {
                return start + at;
            }
        }
        start + line.len()
    }

    /// The position of a byte.
    pub(super) fn position(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let number = self.starts.partition_point(|start| *start <= offset) - 1;
        let known = self.columns.partition_point(|(at, _)| *at <= offset) - 1;
        let (from, column) = self.columns[known];
        let since = self.text[from..offset].chars();
        let column = column + since.map(|c| self.encoding.width(c)).sum::<usize>();
        Position {
            line: u32::try_from(number).unwrap_or(u32::MAX),
            character: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn range(&self, span: ByteSpan) -> Range {
        Range {
            start: self.position(span.start),
            end: self.position(span.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the rules: lines end at \n, \r\n and \r; 𝄞 takes two units of UTF-16 and four bytes, ä
    /// one unit and two bytes.
    #[test]
    fn places_are_counted_as_the_editor_counts() {
        let text = "a𝄞b\r\nä c\rx\n";
        for (encoding, places) in [
            (
                Encoding::Utf16,
                &[
                    (0, 0, 0),
                    (0, 1, 1),
                    (0, 3, 5),
                    (0, 4, 6),
                    (1, 0, 8),
                    (1, 1, 10),
                    (2, 1, 14),
                    (3, 0, 15),
                ][..],
            ),
            (
                Encoding::Utf8,
                &[(0, 1, 1), (0, 5, 5), (1, 2, 10), (1, 4, 12), (2, 0, 13)],
            ),
        ] {
            let lines = Lines::new(text, encoding);
            for &(line, character, offset) in places {
                let position = Position::new(line, character);
                assert_eq!(lines.offset(position), offset, "{encoding:?} {position:?}");
                assert_eq!(lines.position(offset), position, "{encoding:?} {offset}");
            }
            // Beyond a line, beyond the text, within a character.
            assert_eq!(lines.offset(Position::new(0, 99)), 6);
            assert_eq!(lines.offset(Position::new(99, 0)), text.len());
            assert_eq!(lines.offset(Position::new(0, 2)), 1);
            assert_eq!(lines.position(3), Position::new(0, 1));
            assert_eq!(lines.position(999), Position::new(3, 0));
        }
    }

    #[test]
    fn a_long_line_is_counted_from_its_start() {
        let text = format!("x\n{}", "𝄞a".repeat(1_000));
        let lines = Lines::new(&text, Encoding::Utf16);
        // Of each pair of characters, two units and one; four bytes and one.
        for pair in [0, 1, 50, 51, 52, 300, 999] {
            let position = Position::new(1, pair * 3 + 2);
            let offset = 2 + pair as usize * 5 + 4;
            assert_eq!(lines.position(offset), position, "{pair}");
            assert_eq!(lines.offset(position), offset, "{pair}");
        }
    }

    #[test]
    fn a_change_is_applied_to_its_range() {
        let change = |range: Option<((u32, u32), (u32, u32))>, text: &str| {
            let position = |(line, character)| Position::new(line, character);
            TextDocumentContentChangeEvent {
                range: range.map(|(start, end)| Range::new(position(start), position(end))),
                range_length: None,
                text: text.to_owned(),
            }
        };
        let mut document = Document::new("a: 𝄞x\nb: 1\n".into(), 1);
        for (range, text, expected) in [
            (Some(((0, 5), (0, 6))), "y", "a: 𝄞y\nb: 1\n"),
            (Some(((0, 6), (1, 0))), "", "a: 𝄞yb: 1\n"),
            (Some(((7, 0), (9, 9))), "c", "a: 𝄞yb: 1\nc"),
            // From back to front.
            (Some(((1, 1), (0, 0))), "d", "a: 𝄞yb: 1\ncd"),
            (None, "new", "new"),
        ] {
            document.change(change(range, text), Encoding::Utf16);
            assert_eq!(document.text(), Some(expected));
        }
        document.change(
            change(None, &"x".repeat(MAX_KEPT_BYTES + 1)),
            Encoding::Utf16,
        );
        assert_eq!(document.text(), None);
        document.change(change(Some(((0, 0), (0, 0))), "x"), Encoding::Utf16);
        assert_eq!(
            document.text(),
            None,
            "what was there is not known any more"
        );
        document.change(change(None, "back"), Encoding::Utf16);
        assert_eq!(document.text(), Some("back"));
    }
}
