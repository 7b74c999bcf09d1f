//! What goes to the terminal or the pipe: results on stdout, everything else
//! on stderr, so that a script can read the one and a person the other.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::error::Error;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs: one JSON document, or one a line where results arrive in turn.
    Json,
}

/// What a word says, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    Busy,
    Faint,
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Busy => AnsiColor::Yellow.on_default(),
            Self::Faint => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// `text` in the colour of its tone. `anstream` takes the colour out again
/// where it is not wanted: no terminal, `NO_COLOR`, `TERM=dumb`.
pub(crate) fn paint(tone: Tone, text: impl std::fmt::Display) -> String {
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result: the document for programs, or the text for people.
    pub(crate) fn result(self, document: &impl Serialize, human: impl FnOnce() -> String) {
        if self.is_json() {
            let text = serde_json::to_string_pretty(document)
                .expect("results have string keys and no failing Serialize");
            stdout(&text);
        } else {
            stdout(&human());
        }
    }

    /// Prints one of many results that arrive in turn: JSON on one line each.
    pub(crate) fn item(self, document: &impl Serialize, human: impl FnOnce() -> String) {
        if self.is_json() {
            let text = serde_json::to_string(document)
                .expect("results have string keys and no failing Serialize");
            stdout(&text);
        } else {
            stdout(&human());
        }
    }

    /// Says something to a person; programs do not see it.
    pub(crate) fn note(self, text: impl std::fmt::Display) {
        if !self.is_json() {
            stderr(&text.to_string());
        }
    }

    /// Prints an error.
    pub(crate) fn error(self, error: &Error) {
        if error.is_silent() {
            return;
        }
        if self.is_json() {
            stderr(&error.to_json());
            return;
        }
        stderr(&format!("{} {error}", paint(Tone::Bad, "error:")));
        if let Some(hint) = error.hint_text() {
            stderr(&format!("{} {hint}", paint(Tone::Busy, " help:")));
        }
    }

    /// A spinner for work of unknown length; nothing without a terminal.
    pub(crate) fn spinner(self, what: impl Into<String>) -> ProgressBar {
        if self.is_json() || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner().with_message(what.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// A bar for `total` bytes; nothing without a terminal.
    pub(crate) fn bytes(self, what: impl Into<String>, total: u64) -> ProgressBar {
        if self.is_json() || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(total)
            .with_style(style)
            .with_message(what.into())
    }
}

/// Rows under a heading, in columns as wide as their widest cell. Cells are
/// painted after they are measured.
pub(crate) struct Table {
    rows: Vec<Vec<(String, Tone)>>,
    columns: usize,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        let heading: Vec<_> = heading
            .iter()
            .map(|name| (name.to_uppercase(), Tone::Faint))
            .collect();
        Self {
            columns: heading.len(),
            rows: vec![heading],
        }
    }

    /// Adds a row; it has as many cells as the heading.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Tone); N]) {
        debug_assert_eq!(N, self.columns, "a row has as many cells as the heading");
        self.rows.push(cells.into());
    }

    pub(crate) fn render(&self) -> String {
        let mut widths = vec![0; self.columns];
        for row in &self.rows {
            for (width, (cell, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let lines: Vec<String> = self.rows.iter().map(|row| line(row, &widths)).collect();
        lines.join("\n")
    }
}

fn line(row: &[(String, Tone)], widths: &[usize]) -> String {
    let mut line = String::new();
    // Trailing spaces annoy: nothing after the last cell that says something.
    let last = row.iter().rposition(|(cell, _)| !cell.is_empty());
    let said = &row[..last.map_or(0, |last| last + 1)];
    for (column, ((cell, tone), width)) in said.iter().zip(widths).enumerate() {
        if column > 0 {
            line.push_str("  ");
        }
        line.push_str(&paint(*tone, cell));
        if column + 1 < said.len() {
            let padding = width - cell.chars().count();
            line.extend(std::iter::repeat_n(' ', padding));
        }
    }
    line
}

/// Text of other people on its way to a terminal: control characters could
/// move the cursor or change the title, so they are shown, not sent.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let (shown, hidden) = if c.is_control() && c != '\n' && c != '\t' {
                (None, Some(c.escape_default()))
            } else {
                (Some(c), None)
            };
            shown.into_iter().chain(hidden.into_iter().flatten())
        })
        .collect()
}

/// `text` on one line, at most `limit` characters.
pub(crate) fn brief(text: &str, limit: usize) -> String {
    let text = plain(text).replace(['\n', '\t'], " ");
    if text.chars().count() <= limit {
        return text;
    }
    let head: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{head}…")
}

/// A number of bytes as a person reads it.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

pub(crate) fn stdout(text: &str) {
    let mut out = anstream::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    if let Err(error) = written {
        // The reader has seen enough (`cascade process list | head`): that is
        // no failure. Anything else, as a full disk, is.
        let code = i32::from(error.kind() != io::ErrorKind::BrokenPipe);
        std::process::exit(code);
    }
}

pub(crate) fn stderr(text: &str) {
    // Nobody is left to be told that this cannot be printed.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both columns start at the same place in each row, and no line ends in spaces.
    #[test]
    fn a_table_aligns_its_columns() {
        let mut table = Table::new(&["id", "status"]);
        table.row([
            ("a-long-id".into(), Tone::Plain),
            ("ok".into(), Tone::Plain),
        ]);
        table.row([("b".into(), Tone::Plain), ("failed".into(), Tone::Plain)]);
        table.row([("c".into(), Tone::Plain), (String::new(), Tone::Good)]);
        let text = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(
            text,
            "ID         STATUS\na-long-id  ok\nb          failed\nc"
        );
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\nc");
        assert_eq!(brief("a\nb", 10), "a b");
        assert_eq!(brief("abcdef", 4), "abc…");
    }
}
