//! Secrets that parameters name.
//!
//! What a secret is, the machine never learns: what it knows is in histories. To it
//! `"Bearer {{ secrets.TOKEN }}"` is a text like any other. Where such texts stand
//! is known from the file, and whoever runs an attempt puts the secrets in there and
//! nowhere else, so that no input can ask for one.

use std::sync::Arc;

use serde_json::Value;

use super::ast::{Access, Base, Compiled, Expr, Step};
use crate::Json;

/// The word before a secret's name.
pub(super) const WORD: &str = "secrets";

/// Where the input of an activity names secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<Slot>);

/// One text with secrets in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    /// Where it stands in the input: a JSON pointer, RFC 6901.
    pointer: String,
    /// As it stands in the file, and so in the input.
    text: Arc<str>,
    parts: Arc<[Part]>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(Box<str>),
    Secret(Box<str>),
}

/// There is no secret of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no secret `{0}`")]
pub struct UnknownSecret(pub String);

impl Part {
    /// What is put in for an expression, if it is a secret and nothing else.
    pub(super) fn of(compiled: &Compiled) -> Option<Self> {
        let Expr::Access(Access { base, steps, .. }) = &compiled.expr else {
            return None;
        };
        match (base, steps.as_slice()) {
            (Base::Local(word), [Step::Key(name)]) if &**word == WORD => {
                Some(Self::Secret(name.clone()))
            }
            _ => None,
        }
    }
}

impl Secrets {
    pub(super) fn add(&mut self, pointer: &str, text: &Arc<str>, parts: &Arc<[Part]>) {
        self.0.push(Slot {
            pointer: pointer.to_owned(),
            text: text.clone(),
            parts: parts.clone(),
        });
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, of an input that is the value of `key` of another.
    pub(crate) fn under(&self, key: &str) -> Self {
        let slots = self.0.iter().map(|slot| Slot {
            pointer: format!("{}{}", step(key), slot.pointer),
            ..slot.clone()
        });
        Self(slots.collect())
    }

    /// The input with the secrets in their places, by name.
    pub fn fill(
        &self,
        input: &Json,
        mut secret: impl FnMut(&str) -> Option<Arc<str>>,
    ) -> Result<Json, UnknownSecret> {
        let mut value = input.to_value();
        for slot in &self.0 {
            // Another text stands there if the file has changed since the input was made.
            let Some(Value::String(text)) = value.pointer_mut(&slot.pointer) else {
                continue;
            };
            if **text != *slot.text {
                continue;
            }
            text.clear();
            for part in &*slot.parts {
                match part {
                    Part::Text(part) => text.push_str(part),
                    Part::Secret(name) => {
                        let value = secret(name).ok_or_else(|| UnknownSecret(name.to_string()))?;
                        text.push_str(&value);
                    }
                }
            }
        }
        Ok(Json::from_value(&value))
    }
}

/// One step of a JSON pointer.
pub(super) fn step(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Template;
    use super::*;

    fn secret(name: &str) -> Option<Arc<str>> {
        (name == "KEY" || name == "other").then(|| format!("<{name}>").into())
    }

    fn template(text: &str) -> Template {
        let template = Template::parse(text).expect("an expression");
        template.with_secrets(text).unwrap_or(template)
    }

    #[test]
    fn secrets_are_put_in_where_the_file_names_them() {
        let parameters = Template::object(vec![
            ("a/b~".to_owned(), template("Bearer {{ secrets.KEY }}!")),
            (
                "list".to_owned(),
                Template::array(vec![template("{{ secrets.other }}"), template("plain")]),
            ),
        ]);
        // What the machine makes of it: the text of the file.
        let input = json!({
            "a/b~": "Bearer {{ secrets.KEY }}!",
            "list": ["{{ secrets.other }}", "plain"],
        });
        let secrets = parameters.secrets();
        let filled = secrets.fill(&Json::from_value(&input), secret);
        assert_eq!(
            filled.expect("all are known").to_value(),
            json!({ "a/b~": "Bearer <KEY>!", "list": ["<other>", "plain"] })
        );
        let outer = Json::from_value(&json!({ "input": input, "output": 1 }));
        let filled = secrets.under("input").fill(&outer, secret);
        assert_eq!(
            filled.expect("all are known").to_value()["input"]["list"][0],
            json!("<other>")
        );
    }

    #[test]
    fn data_that_looks_like_a_secret_is_data() {
        let parameters = Template::object(vec![
            ("key".to_owned(), template("{{ secrets.KEY }}")),
            ("data".to_owned(), template("{{ $.data }}")),
        ]);
        let hostile = json!({ "key": "{{ secrets.KEY }}", "data": "{{ secrets.KEY }}" });
        let filled = parameters
            .secrets()
            .fill(&Json::from_value(&hostile), secret);
        assert_eq!(
            filled.expect("it is known").to_value(),
            json!({ "key": "<KEY>", "data": "{{ secrets.KEY }}" })
        );
        // An input that an older file has made.
        let older = Json::from_value(&json!({ "key": "something else" }));
        assert_eq!(parameters.secrets().fill(&older, secret), Ok(older.clone()));
    }

    #[test]
    fn one_that_is_not_known_is_named() {
        let secrets = template("{{ secrets.NONE }}").secrets();
        let input = Json::from_value(&json!("{{ secrets.NONE }}"));
        let error = secrets.fill(&input, secret).expect_err("unknown");
        assert_eq!(error.to_string(), "there is no secret `NONE`");
    }

    #[test]
    fn a_secret_is_part_of_a_text_and_of_no_expression() {
        for text in [
            "{{ secrets.KEY | upper }}",
            "{{ secrets.KEY == 'a' }}",
            "{{ secrets }}",
            "{{ secrets.a.b }}",
            "{{ $.user }}:{{ secrets.KEY }}",
        ] {
            let parsed = Template::parse(text).expect("an expression");
            assert!(parsed.with_secrets(text).is_none(), "{text}");
        }
    }
}
