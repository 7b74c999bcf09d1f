//! What is being typed at a place, by the line alone: it works however broken the file is.

/// What may stand at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Key,
    Value,
}

/// The word that is being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) slot: Slot,
    /// Where it begins, a quote left out.
    pub(super) start: usize,
    /// Where it ends, at or after the cursor.
    pub(super) end: usize,
    /// The quote that it begins with.
    pub(super) quote: Option<char>,
    /// Whether that quote is closed behind it.
    pub(super) is_closed: bool,
    /// Whether a space has to come before it, since it touches a colon.
    pub(super) is_glued: bool,
    /// Whether a colon stands behind it.
    pub(super) has_colon: bool,
}

/// The line of a place: where it starts, and where it ends without its break.
fn line_of(text: &str, at: usize) -> (usize, usize) {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find(['\n', '\r']).map_or(text.len(), |n| at + n);
    (start, end)
}

/// The filter that is being typed at a place: where its name begins and ends, if the place is in
/// an expression behind a `|`.
pub(super) fn filter_at(text: &str, at: usize) -> Option<(usize, usize)> {
    let (start, end) = line_of(text, at);
    let before = &text[start..at];
    let open = before.rfind("{{")?;
    let expression = &before[open + 2..];
    if expression.contains("}}") {
        return None;
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let word = expression.len() - expression.trim_end_matches(is_word).len();
    let left = expression[..expression.len() - word].trim_end();
    let is_pipe = left.ends_with('|') && !left.ends_with("||");
    let more = &text[at..end];
    let after = more.find(|c: char| !is_word(c)).unwrap_or(more.len());
    is_pipe.then_some((at - word, at + after))
}

/// Whether a place is in an expression.
pub(super) fn is_in_expression(text: &str, at: usize) -> bool {
    let (start, _) = line_of(text, at);
    let before = &text[start..at];
    let open = before.rfind("{{");
    open.is_some_and(|open| !before[open..].contains("}}"))
}

/// What is being typed at a place; `None` in a comment.
pub(super) fn at(text: &str, at: usize) -> Option<Cursor> {
    let (line, end) = line_of(text, at);
    let mut scan = Scan::new(line);
    for (offset, c) in text[line..at].char_indices() {
        scan.step(&text[line..at], offset, c)?;
    }
    let is_glued = scan.after_colon && scan.start == at && text[line..at].ends_with(':');
    let mut cursor = Cursor {
        slot: if is_glued { Slot::Value } else { scan.slot },
        start: scan.start,
        end: at,
        quote: scan.quote,
        is_closed: false,
        is_glued,
        has_colon: false,
    };
    let rest = &text[at..end];
    let stop = match cursor.quote {
        Some(quote) => rest.find(quote),
        None => unquoted_end(rest, cursor.slot, !scan.open.is_empty()),
    };
    let word = &rest[..stop.unwrap_or(rest.len())];
    cursor.end = at
        + if cursor.quote.is_some() {
            word.len()
        } else {
            word.trim_end().len()
        };
    cursor.is_closed = cursor.quote.is_some() && stop.is_some();
    let behind = text[cursor.end + usize::from(cursor.is_closed)..end].trim_start();
    cursor.has_colon = behind.starts_with(':');
    Some(cursor)
}

/// Where a word without quotes ends in the rest of its line.
fn unquoted_end(rest: &str, slot: Slot, in_flow: bool) -> Option<usize> {
    let comment = rest.find(" #");
    let end = rest.char_indices().find(|(_, c)| match c {
        ',' | '}' | ']' | '{' | '[' => in_flow,
        ':' => slot == Slot::Key,
        _ => false,
    });
    let end = end.map(|(at, _)| at);
    match (comment, end) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Reads a line up to the cursor.
struct Scan {
    line: usize,
    /// Where the word begins that was read last.
    start: usize,
    slot: Slot,
    quote: Option<char>,
    /// Whether the character before was a backslash in double quotes.
    is_escaped: bool,
    /// Brackets that are open.
    open: Vec<char>,
    after_colon: bool,
    /// Whether the line begins with a quote, once that has been asked.
    is_quoted: Option<bool>,
}

impl Scan {
    fn new(line: usize) -> Self {
        Self {
            line,
            start: line,
            slot: Slot::Key,
            quote: None,
            is_escaped: false,
            open: Vec::new(),
            after_colon: false,
            is_quoted: None,
        }
    }

    /// Whether the line may be one of JSON. Lines may be long, so it is looked at once.
    fn is_json(&mut self, line: &str) -> bool {
        *self
            .is_quoted
            .get_or_insert_with(|| line.trim_start().starts_with('"'))
    }

    /// Takes one more character; `None` if a comment begins.
    fn step(&mut self, line: &str, offset: usize, c: char) -> Option<()> {
        let at = self.line + offset;
        let is_first = self.start == at;
        if let Some(quote) = self.quote {
            let ends = c == quote && !self.is_escaped;
            self.is_escaped = c == '\\' && quote == '"' && !self.is_escaped;
            if ends {
                self.quote = None;
            }
            return Some(());
        }
        let next = line[offset + c.len_utf8()..].chars().next();
        let gap = next.is_none_or(char::is_whitespace);
        match c {
            ' ' | '\t' | '\u{feff}' if is_first => self.begin(at + c.len_utf8(), self.slot),
            '#' if is_first => return None,
            '#' if line[..offset].ends_with(' ') => return None,
            '"' | '\'' if is_first => {
                self.quote = Some(c);
                self.start = at + 1;
            }
            '-' if is_first && gap && self.open.is_empty() && self.slot == Slot::Key => {
                self.begin(at + 1, Slot::Key);
            }
            '{' | '[' if is_first => {
                self.open.push(c);
                self.begin(at + 1, if c == '{' { Slot::Key } else { Slot::Value });
            }
            '}' | ']' if !self.open.is_empty() => {
                self.open.pop();
            }
            ',' => match self.open.last().copied() {
                Some('{') => self.begin(at + 1, Slot::Key),
                Some(_) => self.begin(at + 1, Slot::Value),
                // In JSON, brackets are open that began on other lines.
                None if self.is_json(line) => self.begin(at + 1, Slot::Key),
                None => {}
            },
            ':' if gap && self.slot == Slot::Key => {
                self.begin(at + 1, Slot::Value);
                self.after_colon = true;
            }
            _ => {}
        }
        Some(())
    }

    fn begin(&mut self, start: usize, slot: Slot) {
        self.start = start;
        self.slot = slot;
    }
}
