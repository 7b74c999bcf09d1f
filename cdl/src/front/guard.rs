//! Keeps the YAML scanner from running ahead.
//!
//! Inside of brackets the scanner reads on until it knows whether they are a
//! key, up to their end, before the parser hears of the first. It does work for each
//! open bracket at each token and keeps all tokens, so that 100,000 brackets
//! would take minutes, and a megabyte of commas hundreds of megabytes. [`Guard`] stands
//! between the text and the scanner, counts what the scanner takes, and shows
//! it the end of the text when it took too much.

use std::cell::Cell;

use saphyr_parser::input::SkipTabs;
use saphyr_parser::{Input, StrInput};

/// Most characters that the scanner may take between two events: one scalar,
/// or one value in brackets, with the white space and comments around.
/// A file in JSON style is one value in brackets.
pub(super) const MAX_WINDOW_CHARS: usize = 512 * 1024;

/// Why the scanner was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trip {
    /// More brackets in brackets than allowed.
    Depth,
    /// More than [`MAX_WINDOW_CHARS`] without an event.
    Window,
}

/// What the guard and the one who reads the events share.
pub(super) struct Limits {
    max_depth: usize,
    depth: Cell<usize>,
    taken: Cell<usize>,
    taken_at_event: Cell<usize>,
    trip: Cell<Option<(Trip, usize)>>,
}

impl Limits {
    pub(super) fn new(max_depth: usize) -> Self {
        Self {
            max_depth,
            depth: Cell::new(0),
            taken: Cell::new(0),
            taken_at_event: Cell::new(0),
            trip: Cell::new(None),
        }
    }

    /// To be called at each event.
    pub(super) fn event(&self) {
        self.taken_at_event.set(self.taken.get());
    }

    /// Why and at which character the scanner was stopped, if it was.
    pub(super) fn tripped(&self) -> Option<(Trip, usize)> {
        self.trip.get()
    }
}

/// The text, for the scanner.
pub(super) struct Guard<'t, 'l> {
    inner: StrInput<'t>,
    limits: &'l Limits,
    /// The character skipped last, if it was a bracket.
    bracket: Option<char>,
}

impl<'t, 'l> Guard<'t, 'l> {
    pub(super) fn new(text: &'t str, limits: &'l Limits) -> Self {
        Self {
            inner: StrInput::new(text),
            limits,
            bracket: None,
        }
    }

    fn take(&mut self, chars: usize) {
        let taken = self.limits.taken.get() + chars;
        self.limits.taken.set(taken);
        if taken - self.limits.taken_at_event.get() > MAX_WINDOW_CHARS {
            self.stop(Trip::Window, self.limits.taken_at_event.get());
        }
    }

    fn stop(&mut self, trip: Trip, at: usize) {
        if self.limits.trip.get().is_none() {
            self.limits.trip.set(Some((trip, at)));
        }
        self.inner = StrInput::new("");
    }

    /// After a bracket that is one, and not a character of a scalar or comment, the
    /// scanner looks for the end of the line; after no other does it.
    fn count_bracket(&mut self) {
        let depth = self.limits.depth.get();
        match self.bracket.take() {
            Some('[' | '{') => {
                self.limits.depth.set(depth + 1);
                if depth + 1 > self.limits.max_depth {
                    self.stop(Trip::Depth, self.limits.taken.get().saturating_sub(1));
                }
            }
            Some(_) => self.limits.depth.set(depth.saturating_sub(1)),
            None => {}
        }
    }
}

impl Input for Guard<'_, '_> {
    fn lookahead(&mut self, count: usize) {
        self.inner.lookahead(count);
    }

    fn buflen(&self) -> usize {
        self.inner.buflen()
    }

    fn bufmaxlen(&self) -> usize {
        self.inner.bufmaxlen()
    }

    fn raw_read_ch(&mut self) -> char {
        self.bracket = None;
        let read = self.inner.raw_read_ch();
        self.take(1);
        read
    }

    fn raw_read_non_breakz_ch(&mut self) -> Option<char> {
        self.bracket = None;
        let read = self.inner.raw_read_non_breakz_ch();
        if read.is_some() {
            self.take(1);
        }
        read
    }

    fn skip(&mut self) {
        let skipped = self.inner.peek();
        self.bracket = matches!(skipped, '[' | '{' | ']' | '}').then_some(skipped);
        self.inner.skip();
        self.take(1);
    }

    fn skip_n(&mut self, count: usize) {
        self.bracket = None;
        self.inner.skip_n(count);
        self.take(count);
    }

    fn peek(&self) -> char {
        self.inner.peek()
    }

    fn peek_nth(&self, n: usize) -> char {
        self.inner.peek_nth(n)
    }

    fn peek_opt(&self) -> Option<char> {
        self.inner.peek_opt()
    }

    fn skip_ws_to_eol(&mut self, skip_tabs: SkipTabs) -> (usize, Result<SkipTabs, &'static str>) {
        self.count_bracket();
        let (count, result) = self.inner.skip_ws_to_eol(skip_tabs);
        self.take(count);
        (count, result)
    }

    fn skip_while_non_breakz(&mut self) -> usize {
        self.bracket = None;
        let count = self.inner.skip_while_non_breakz();
        self.take(count);
        count
    }
}
