//! How a command ends when it does not end well.

use std::fmt;

use serde::Serialize;

/// What a script learns from the exit code. `docs/cli.md` lists them; a code
/// never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It was tried, and the answer is no: the execution failed, the file is invalid.
    Failed = 1,
    /// The command line, an input or a local file is not what it must be.
    Usage = 2,
    /// The server did not answer.
    Unreachable = 3,
    /// The server knows no such thing, or this key may not see or do it.
    NotFoundOrDenied = 4,
    /// Somebody else was faster, or the thing is not in a state for it.
    Conflict = 5,
    /// The server has too much to do: try again later.
    Busy = 6,
    /// The server failed.
    Server = 7,
}

/// Why a command did not do what was asked, and what to do next.
#[derive(Debug)]
pub(crate) struct Error {
    exit: Exit,
    message: String,
    /// The server's name for it, if the server said so.
    code: Option<String>,
    hint: Option<String>,
    /// The command has already printed what there is to say.
    silent: bool,
}

/// An [`Error`] as `--output json` prints it.
#[derive(Serialize)]
struct Document<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    exit: u8,
}

impl Error {
    /// An error with its exit code.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            code: None,
            hint: None,
            silent: false,
        }
    }

    /// The answer is no.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The person at the keyboard can put it right.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A local file could not be read or written.
    pub(crate) fn file(what: &str, path: &std::path::Path, source: &std::io::Error) -> Self {
        Self::usage(format!("cannot {what} {}: {source}", path.display()))
    }

    /// The answer is no, and has been printed.
    pub(crate) fn told(exit: Exit) -> Self {
        Self {
            silent: true,
            ..Self::new(exit, "")
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the server's name for it.
    #[must_use]
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Whether the server's name for it is this.
    pub(crate) fn is_coded(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether there is anything left to print.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// What to do next.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The error as one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        let document = Document {
            error: Body {
                message: &self.message,
                code: self.code.as_deref(),
                hint: self.hint.as_deref(),
                exit: self.exit as u8,
            },
        };
        serde_json::to_string(&document).expect("strings and numbers always serialise")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
