//! Which key an execution is placed by.
//!
//! All executions of one key are in one bucket, and so on one engine shard. The key
//! is computed once, by whoever starts an execution, before anything is recorded;
//! the first event keeps it, so that a later version of the workflow moves nothing.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::expression::{Env, MAX_VALUE_DEPTH, Root, Template, fits_depth};
use crate::program::Program;
use crate::{ExecutionId, Json, TenantId, Timestamp};

/// Longest shard key, in bytes: it is part of an index, and of every row of a list.
pub const MAX_SHARD_KEY_BYTES: usize = 256;

/// What of `$.workflow` there is before an execution has begun.
pub(crate) const KNOWN_AT_START: [&str; 3] = ["input", "execution_id", "tenant"];

/// Why an input gives no shard key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoShardKey {
    /// The expression fails, mostly because the input lacks something.
    #[error("`shard_key` cannot be evaluated: {0}")]
    Evaluation(String),
    /// It gives something else.
    #[error("`shard_key` gives {0}, and has to give a string or a number")]
    Type(&'static str),
    /// It gives too much.
    #[error("`shard_key` gives {bytes} bytes, and may have at most {MAX_SHARD_KEY_BYTES}")]
    TooLong {
        /// How many.
        bytes: usize,
    },
}

/// An execution that is about to begin.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'b> {
    /// Its id.
    pub id: ExecutionId,
    /// Whose it is.
    pub tenant: &'b TenantId,
    /// Its input.
    pub input: &'b Json,
    /// The time.
    pub now: Timestamp,
    /// Number of shards that the `shard` filter counts modulo.
    pub shards: u32,
}

impl Program {
    /// The key that an execution is placed by; `None` if its id is.
    ///
    /// Some tens of milliseconds at most, as for every evaluation.
    ///
    /// # Errors
    ///
    /// [`NoShardKey`] if the input gives none: nothing may be started then.
    pub fn shard_key_of(&self, of: &Beginning<'_>) -> Result<Option<Arc<str>>, NoShardKey> {
        let Some(template) = &self.shard_key else {
            return Ok(None);
        };
        let text = match template.as_literal() {
            Some(literal) => key_text(literal)?,
            None => key_text(&evaluate(template, of)?)?,
        };
        Ok(Some(text.into()))
    }
}

/// A template of the start, evaluated over what is known then.
pub(crate) fn evaluate(template: &Template, of: &Beginning<'_>) -> Result<Value, NoShardKey> {
    let input: Value = serde_json::from_str(of.input.as_str())
        .map_err(|error| NoShardKey::Evaluation(format!("the input cannot be read: {error}")))?;
    if !fits_depth(&input, MAX_VALUE_DEPTH - 2) {
        let levels = MAX_VALUE_DEPTH - 2;
        let what = format!("the input is nested deeper than {levels} levels");
        return Err(NoShardKey::Evaluation(what));
    }
    let mut context = json!({ "workflow": {
        "execution_id": of.id.to_string(),
        "tenant": of.tenant.as_str(),
    } });
    context["workflow"]["input"] = input;
    let env = Env {
        context: &context,
        overlays: &[],
        locals: &[],
        now: of.now,
        shards: of.shards,
        id: of.id,
        // The machine counts from 1.
        seq: 0,
    };
    let value = template.eval(&env);
    value.map_err(|error| NoShardKey::Evaluation(error.message))
}

/// A key as text.
fn key_text(value: &Value) -> Result<String, NoShardKey> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null => return Err(NoShardKey::Type("null")),
        Value::Bool(_) => return Err(NoShardKey::Type("a boolean")),
        Value::Array(_) => return Err(NoShardKey::Type("a list")),
        Value::Object(_) => return Err(NoShardKey::Type("an object")),
    };
    match text.len() {
        bytes if bytes > MAX_SHARD_KEY_BYTES => Err(NoShardKey::TooLong { bytes }),
        _ => Ok(text),
    }
}

/// Whether a value of a file, which is the same for every input, can be a key.
pub(crate) fn is_key(value: &Value) -> Result<(), NoShardKey> {
    key_text(value).map(drop)
}

/// Whether a template of the start reads what is known then.
pub(crate) fn is_known(root: &Root, segments: &[String]) -> bool {
    match (root, segments) {
        (Root::Local(_), _) => false,
        (Root::Context, [workflow, key, ..]) => {
            workflow == "workflow" && KNOWN_AT_START.contains(&key.as_str())
        }
        // `$` or `$.workflow` as a whole, which have no more than that.
        (Root::Context, []) => true,
        (Root::Context, [key]) => key == "workflow",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Source, bucket_of, parse};

    fn program(key: &str) -> Arc<Program> {
        let file = format!(
            "workflows:\n  w:\n    shard_key: {key}\n    states:\n      - {{name: A, type: Pass, end: true}}\n"
        );
        let parsed = parse(&Source {
            name: "test.yaml",
            bytes: file.as_bytes(),
        });
        let application = parsed
            .application
            .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        application.workflows["w"].clone()
    }

    fn key_of(program: &Program, id: u128, input: &Value) -> Result<Option<Arc<str>>, NoShardKey> {
        program.shard_key_of(&Beginning {
            id: ExecutionId(uuid::Uuid::from_u128(id)),
            tenant: &"acme".parse().expect("valid"),
            input: &Json::from_value(input),
            now: Timestamp(1),
            shards: 10,
        })
    }

    fn check(template: &str, input: &Value, expected: Result<&str, &str>) {
        let found = key_of(&program(template), 7, input);
        match (found, expected) {
            (Ok(Some(key)), Ok(expected)) => assert_eq!(&*key, expected, "{template}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{template}: {error}");
            }
            (found, expected) => panic!("{template}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_key_is_a_string_or_a_number() {
        let customer = "\"{{ $.workflow.input.customer }}\"";
        check(customer, &json!({ "customer": "c-1" }), Ok("c-1"));
        check(customer, &json!({ "customer": 42 }), Ok("42"));
        check(customer, &json!({ "customer": "" }), Ok(""));
        check("all", &json!({}), Ok("all"));
        check(
            "\"{{ workflow.tenant }}/{{ workflow.input.a }}\"",
            &json!({"a": 1}),
            Ok("acme/1"),
        );
        let or_own = "\"{{ $.workflow.input.customer | default: $.workflow.execution_id }}\"";
        check(
            or_own,
            &json!({}),
            Ok("00000000-0000-0000-0000-000000000007"),
        );
        for (customer_is, part) in [
            (json!(null), "gives null"),
            (json!(true), "gives a boolean"),
            (json!([1]), "gives a list"),
            (json!({}), "gives an object"),
            (json!("x".repeat(257)), "gives 257 bytes"),
        ] {
            check(customer, &json!({ "customer": customer_is }), Err(part));
        }
        check(customer, &json!({}), Err("customer"));
        check(customer, &json!([]), Err("cannot be evaluated"));
    }

    #[test]
    fn a_workflow_without_a_key_has_none() {
        let parsed = parse(&Source {
            name: "w.yaml",
            bytes: b"states: [{name: A, type: Pass, end: true}]",
        });
        let application = parsed.application.expect("valid");
        let program = &application.workflows["w"];
        assert_eq!(key_of(program, 1, &json!({})), Ok(None));
    }

    proptest! {
        /// Whatever the executions are: one key, one bucket, and it is that of the key alone.
        #[test]
        fn executions_of_one_key_share_a_bucket(customer in ".{0,40}", a: u128, b: u128, more: i64) {
            let program = program("\"{{ $.workflow.input.customer }}\"");
            let first = key_of(&program, a, &json!({ "customer": customer })).expect("a key");
            let second = key_of(&program, b, &json!({ "customer": customer, "x": more }));
            let second = second.expect("a key").expect("a key");
            let first = first.expect("a key");
            prop_assert_eq!(&*first, &*customer);
            prop_assert_eq!(bucket_of(first.as_bytes()), bucket_of(second.as_bytes()));
            prop_assert!(bucket_of(first.as_bytes()) < crate::BUCKETS);
        }
    }
}
