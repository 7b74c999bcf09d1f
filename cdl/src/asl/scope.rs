//! What the expressions of a state can see.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::fault::Fault;
use super::path::{Fuel, MAX_VISITS, Miss, Path, Root};
use super::random::Random;
use crate::Timestamp;

/// Longest piece of data that the cause of a fault quotes, in bytes.
const MAX_QUOTED: usize = 1_024;

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, Arc<Value>>;

/// What the expressions of a state can see: its input, the context object, and
/// the variables as they were when it was entered.
pub(crate) struct Scope {
    /// The state's raw input: `$states.input`.
    pub(crate) input: Arc<Value>,
    /// `$$` and `$states.context`; null if no expression of the state uses it.
    pub(crate) context: Value,
    /// `$name`
    pub(crate) variables: Variables,
    /// `$states.result`
    pub(crate) result: Option<Arc<Value>>,
    /// `$states.errorOutput`
    pub(crate) error: Option<Value>,
    /// The time of the event being applied.
    pub(crate) now: Timestamp,
    pub(crate) random: Random,
    /// Shared by all paths of the state.
    pub(super) fuel: RefCell<Fuel>,
}

impl Scope {
    pub(crate) fn new(
        input: Arc<Value>,
        context: Value,
        variables: Variables,
        now: Timestamp,
        random: Random,
    ) -> Self {
        Self {
            input,
            context,
            variables,
            result: None,
            error: None,
            now,
            random,
            fuel: RefCell::new(Fuel(MAX_VISITS)),
        }
    }

    /// Values visited by paths so far.
    pub(crate) fn visits(&self) -> usize {
        MAX_VISITS - self.fuel.borrow().0
    }

    /// The value that a path leads to, `data` being what `$` means.
    pub(crate) fn select<'s>(
        &'s self,
        path: &Path,
        data: &'s Value,
    ) -> Result<Cow<'s, Value>, Miss> {
        let root = match &path.root {
            Root::Input => data,
            Root::Context => &self.context,
            Root::Variable(name) => match self.variables.get(&**name) {
                Some(value) => value,
                None => return Err(Miss::NotFound),
            },
        };
        path.select(root, &mut self.fuel.borrow_mut())
    }

    /// As [`Self::select`], for the value of the field `field`.
    pub(crate) fn resolve<'s>(
        &'s self,
        path: &Path,
        data: &'s Value,
        field: &str,
    ) -> Result<Cow<'s, Value>, Fault> {
        self.select(path, data).map_err(|miss| match miss {
            Miss::NotFound | Miss::BadOperand => Fault::runtime(format!(
                "The JSONPath '{path}' specified for the field '{field}' could not be found in the input '{}'",
                quote(data)
            )),
            Miss::TooMuch => too_much(path),
        })
    }
}

/// A path that visits more values than it may.
pub(crate) fn too_much(path: &Path) -> Fault {
    Fault::runtime(format!(
        "The JSONPath '{path}' visits more than {MAX_VISITS} values"
    ))
}

/// The JSON of `value`, or its start.
pub(crate) fn quote(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > MAX_QUOTED {
        let end = (0..=MAX_QUOTED).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}
