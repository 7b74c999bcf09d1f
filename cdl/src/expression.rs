//! The expression language of CDL.

/// Where a result goes: a path of keys from `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Box<str>>);

/// A JSON tree with expressions in it, compiled.
#[derive(Debug, Clone)]
pub struct Template {}
