//! JSON that is carried, not read.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// One JSON text, checked to be well-formed and shared by reference.
///
/// Inputs and outputs travel from HTTP through the history into the sandbox
/// and back; most of those hops never look inside. Cloning is one reference
/// count, storing embeds the text as it is. Enums that hold a `Json` must be
/// externally tagged: serde buffers the other kinds, and raw text cannot be
/// read from a buffer.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Checks `text` and takes it over.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self(raw.into()))
    }

    /// The text of `value`.
    pub fn from_value(value: &Value) -> Self {
        Self::from_entries(value)
    }

    /// The text of what has text for keys and a `Serialize` that cannot fail.
    pub(crate) fn from_entries(value: &(impl Serialize + ?Sized)) -> Self {
        let raw = serde_json::value::to_raw_value(value)
            .expect("a JSON value has string keys and no failing Serialize");
        Self(raw.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Length of the text, in bytes.
    pub fn len(&self) -> usize {
        self.as_str().len()
    }

    /// Never: the shortest JSON text has one character.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The value that the text stands for.
    pub fn to_value(&self) -> Value {
        // The text was checked, but for depth and number range, on the way in.
        serde_json::from_str(self.as_str()).unwrap_or(Value::Null)
    }
}

/// Equal if the texts are equal.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::from_value(&value)
    }
}
