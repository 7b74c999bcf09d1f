//! What is wrong, or doubtful, in a file, and where.
//!
//! The front end makes these; terminals, editors and code review show them.
//! Every kind of problem has a [`Code`] that never changes its meaning and a
//! section of its own in `docs/diagnostics.md`.

use std::fmt;

use serde::{Serialize, Serializer};

/// Where the sections about the codes are published.
const DOCUMENTATION: &str = concat!(
    env!("CARGO_PKG_REPOSITORY"),
    "/blob/main/docs/diagnostics.md"
);

/// Whether a problem keeps the file from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but hardly as meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $severity:ident, $title:literal;)*) => {
        /// The kind of a problem. Shown as `CDL` and four digits.
        ///
        /// 01xx is about the file and its YAML, 02xx about keys and values,
        /// 03xx about states and transitions, 04xx about the small languages
        /// inside of values, 09xx are lints.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Code {
            $(#[doc = $title] $name = $number,)*
        }

        impl Code {
            /// All codes, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Whether such a problem keeps the file from being used.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What the code stands for, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    FileTooLarge = 101, Error, "file too large";
    NotUtf8 = 102, Error, "not UTF-8";
    YamlSyntax = 103, Error, "invalid YAML";
    TooDeep = 104, Error, "nested too deeply";
    TooBig = 105, Error, "too many or too large values";
    Alias = 106, Error, "anchor or alias";
    Tag = 107, Error, "tag";
    SecondDocument = 108, Error, "more than one document";
    DuplicateKey = 109, Error, "duplicate key";
    EmptyFile = 110, Error, "empty file";
    Tab = 111, Error, "tab as indentation";
    ComplexKey = 112, Error, "key that is not text";

    UnknownKey = 201, Error, "unknown key";
    MissingKey = 202, Error, "missing key";
    WrongType = 203, Error, "value of the wrong type";
    Conflict = 204, Error, "keys that exclude each other";
    InvalidName = 205, Error, "invalid name";
    InvalidValue = 206, Error, "value that is not allowed";
    InvalidDuration = 207, Error, "invalid duration";
    UnknownVersion = 208, Error, "unknown apiVersion or kind";
    NotSupported = 209, Error, "not supported by this version";
    WrongLanguage = 210, Error, "field of the other query language";
    NotForExpress = 211, Error, "not for Express state machines";

    UnknownStateType = 301, Error, "unknown state type";
    UnknownTarget = 302, Error, "transition to an unknown state";
    DuplicateName = 303, Error, "duplicate name";
    NoTransition = 304, Error, "nothing follows";
    TargetOutOfScope = 305, Error, "transition out of its scope";
    NothingToRun = 306, Error, "nothing to run";
    NotReachable = 307, Error, "state that nothing leads to";
    UnknownWorkflow = 308, Error, "unknown workflow";

    InvalidExpression = 401, Error, "invalid expression";
    InvalidResource = 402, Error, "invalid resource";
    InvalidPath = 403, Error, "invalid result path";
    ReservedPath = 404, Error, "reserved result path";
    BranchesCollide = 405, Error, "two branches write one path";
    NotACondition = 406, Error, "condition that is not an expression";
    InvalidTimestamp = 407, Error, "invalid timestamp";
    InvalidQuery = 408, Error, "invalid path, call or JSONata expression";
    InvalidCron = 409, Error, "invalid cron expression";
    UnknownTimeZone = 410, Error, "unknown time zone";
    NeverDue = 411, Error, "schedule that is never due";

    Unreachable = 901, Warning, "unreachable state";
    NoDefault = 902, Warning, "Choice without a default";
    RetriesTooSlow = 903, Warning, "retries that outlast the workflow";
    CatchNeverMatches = 904, Warning, "catch that can never match";
    RegionWithoutTimeout = 905, Warning, "region without a timeout";
    BlockingTask = 906, Warning, "long blocking Task";
    EndlessLoop = 907, Warning, "loop without a way out";
    UnboundedMap = 908, Warning, "Map without a limit";
    Unbound = 909, Warning, "resource without an activity";
}

impl Code {
    /// The section of `docs/diagnostics.md` about this code.
    pub fn anchor(self) -> String {
        format!("cdl{:04}", self as u16)
    }

    /// Where that section is published.
    pub fn url(self) -> String {
        format!("{DOCUMENTATION}#{}", self.anchor())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CDL{:04}", *self as u16)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// Whether it keeps the file from being used.
    pub severity: Severity,
    /// What is wrong, naming the values.
    pub message: String,
    /// The file, as [`crate::Source::name`] has it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Column after the last character concerned, on the same line.
    pub end_column: usize,
    /// The same place in bytes of the file.
    pub span: ByteSpan,
    /// What to say at the place itself; may be empty.
    pub label: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Another place of the file that it is about: where a name that is taken was used first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<ByteSpan>,
    /// The documentation of the code.
    pub url: String,
    /// The line, or the part of a long line around the place.
    pub source_line: String,
}

/// A range of bytes of a file, the end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ByteSpan {
    /// First byte.
    pub start: usize,
    /// After the last byte.
    pub end: usize,
}

/// `file:line:column: error[CDL0103]: message`, as compilers print it.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}[{}]: {}",
            self.file, self.line, self.column, self.severity, self.code, self.message
        )
    }
}
