//! What reads input of unknown origin, as functions to be fuzzed.
//!
//! Each target takes any bytes and panics if a promise is broken. The corpus beside
//! this crate holds inputs that lead far into each of them, and what was found
//! once. A short run over it, with seeded mutations, is a test; `scripts/fuzz
//! TARGET --seconds N` goes on from there under libFuzzer, guided by coverage.

mod events;
mod expressions;
mod files;
mod history;

/// A function that takes any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target {
        name: "cdl",
        run: files::cdl,
    },
    Target {
        name: "asl",
        run: files::asl,
    },
    Target {
        name: "expression",
        run: expressions::template,
    },
    Target {
        name: "jsonpath",
        run: expressions::jsonpath,
    },
    Target {
        name: "jsonata",
        run: expressions::jsonata,
    },
    Target {
        name: "events",
        run: events::run,
    },
    Target {
        name: "history",
        run: history::run,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
