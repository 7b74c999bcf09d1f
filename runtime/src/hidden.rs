//! Secrets that an attempt was given, kept out of what is told of it.
//!
//! A line of its log, and the message and details of its failure: a program that prints
//! its input when it fails must not print its secrets into a history. What it returns is
//! its own affair.

use std::borrow::Cow;
use std::sync::Arc;

use cascade_cdl::{ActivityFailure, Json};
use serde_json::Value;

/// What stands for a secret.
const STANDS_FOR: &str = "***";

/// Shortest text that is hidden: what is shorter is part of most lines.
const SHORTEST: usize = 4;

/// The texts that are hidden.
#[derive(Clone, Default)]
pub(crate) struct Hidden(Vec<Box<str>>);

impl Hidden {
    /// Hides these secrets, and each line of theirs, since logs are cut at lines.
    pub(crate) fn of<'s>(secrets: impl IntoIterator<Item = &'s Arc<str>>) -> Self {
        let mut texts = Vec::new();
        for secret in secrets {
            texts.push(Box::<str>::from(&**secret));
            texts.extend(secret.lines().map(|line| line.trim().into()));
        }
        texts.retain(|text| text.len() >= SHORTEST);
        // One may be the beginning of another.
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        Self(texts)
    }

    /// The text without them.
    pub(crate) fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut shown = Cow::Borrowed(text);
        for secret in &self.0 {
            if shown.contains(&**secret) {
                shown = Cow::Owned(shown.replace(&**secret, STANDS_FOR));
            }
        }
        shown
    }

    /// The failure without them. Its name stays: workflows go by it.
    pub(crate) fn hide_in(&self, failure: &mut ActivityFailure) {
        if self.0.is_empty() {
            return;
        }
        if let Cow::Owned(shown) = self.hide(&failure.message) {
            failure.message = shown;
        }
        if let Some(details) = &mut failure.details {
            let mut value = details.to_value();
            self.hide_in_value(&mut value);
            *details = Json::from_value(&value);
        }
    }

    fn hide_in_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(shown) = self.hide(text) {
                    *text = shown;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_in_value(item)),
            Value::Object(entries) => entries
                .values_mut()
                .for_each(|value| self.hide_in_value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hidden(secrets: &[&str]) -> Hidden {
        let secrets: Vec<Arc<str>> = secrets.iter().map(|&secret| secret.into()).collect();
        Hidden::of(&secrets)
    }

    #[test]
    fn no_line_shows_a_secret_or_a_line_of_one() {
        let hidden = hidden(&[
            "s3cr3t",
            "ab",
            "-----BEGIN-----\nMIIEow\nIBAAKC\n",
            "s3cr3t-2",
        ]);
        for (line, shown) in [
            ("key s3cr3t, again s3cr3t", "key ***, again ***"),
            ("the longer one, s3cr3t-2", "the longer one, ***"),
            ("MIIEow", "***"),
            ("in one line: MIIEow\\nIBAAKC", "in one line: ***\\n***"),
            ("about nothing", "about nothing"),
        ] {
            assert_eq!(hidden.hide(line), shown);
        }
    }

    #[test]
    fn a_failure_tells_no_secret() {
        let mut failure = ActivityFailure {
            error: "Refused".to_owned(),
            message: "the server refused s3cr3t".to_owned(),
            retryable: None,
            details: Some(json!({ "sent": ["Bearer s3cr3t", 7], "status": 401 }).into()),
        };
        hidden(&["s3cr3t"]).hide_in(&mut failure);
        assert_eq!(failure.message, "the server refused ***");
        let details = failure.details.expect("it has some").to_value();
        assert_eq!(details, json!({ "sent": ["Bearer ***", 7], "status": 401 }));
    }
}
