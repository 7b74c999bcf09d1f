//! `urn:cascade:activity:stand_in` behaves as it is told, in place of a service
//! that is not there. Pure.
//!
//! Its input is `{"behavior": B, "input": I}`, a behaviour and what the service
//! would be given. Behaviours are those of the conformance suites of `cascade
//! conformance`:
//!
//! | behaviour | what it does |
//! | --- | --- |
//! | `{"behavior": "echo", "null_as": V}` | gives its input back, and `V` for null |
//! | `{"behavior": "constant", "output": V}` | gives `V` |
//! | `{"behavior": "format", "prefix": T}` | gives the text `T` and its input as text |
//! | `{"behavior": "repeat", "text": T, "count": N}` | gives `T`, `N` times over |
//! | `{"behavior": "fail", "error": E, "cause": C}` | fails with this error and this message |
//! | `{"behavior": "sleep", "seconds": N, "then": B}` | takes so long, then does that |
//! | `{"behavior": "dispatch", "on": P, "payload": P, "functions": {name: B}, "default": B}` | behaves as the function whose name or ARN is at a pointer, given what is at the other; `"payload_text": "parse"` reads text that is JSON, `"envelope": "lambda_invoke"` wraps the answer as AWS does |
//!
//! It cannot sleep: a pure activity has no time. So it answers at once with
//! `{"after_seconds": N, "output": V}`, or with an error whose details have
//! `after_seconds`, and who asked lets that time pass.

use std::collections::BTreeMap;

use cascade_sdk::{Error, Value, json};
use serde::Deserialize;

/// How deep behaviours may stand in each other; more is a mistake, and would
/// cost stack.
const MAX_NESTING: usize = 16;

/// Longest text that `repeat` makes: more than any runtime takes as an output.
const MAX_TEXT: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    behavior: Behavior,
    #[serde(default)]
    input: Value,
}

#[derive(Clone, Deserialize)]
#[serde(tag = "behavior", rename_all = "snake_case")]
enum Behavior {
    Echo {
        #[serde(default)]
        null_as: Value,
    },
    Constant {
        output: Value,
    },
    Format {
        prefix: String,
    },
    Repeat {
        text: String,
        count: usize,
    },
    Fail {
        error: String,
        cause: String,
    },
    Sleep {
        seconds: u64,
        then: Then,
        /// What `then` needs, if it is a behaviour's name.
        #[serde(flatten)]
        fields: BTreeMap<String, Value>,
    },
    Dispatch {
        on: String,
        payload: String,
        #[serde(default)]
        payload_text: Option<String>,
        #[serde(default)]
        envelope: Option<String>,
        functions: BTreeMap<String, Behavior>,
        #[serde(default)]
        default: Option<Box<Behavior>>,
    },
}

/// What comes after a sleep: a behaviour, or the name of one whose fields stand
/// beside it.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Then {
    Named(String),
    Whole(Box<Behavior>),
}

/// What a service does in the end, and after how long.
struct Reply {
    after_seconds: u64,
    result: Result<Value, (String, String)>,
}

#[cascade_sdk::activity]
fn handle(task: Task) -> Result<Value, Error> {
    let Reply {
        after_seconds,
        result,
    } = reply(&task.behavior, task.input, 0)?;
    match result {
        Ok(output) => Ok(json!({ "after_seconds": after_seconds, "output": output })),
        Err((error, cause)) => {
            Err(Error::new(error, cause).details(json!({ "after_seconds": after_seconds })))
        }
    }
}

fn reply(behavior: &Behavior, input: Value, nesting: usize) -> Result<Reply, Error> {
    if nesting > MAX_NESTING {
        return Err(Error::invalid_input(format!(
            "behaviours may stand {MAX_NESTING} deep in each other"
        )));
    }
    Ok(match behavior {
        Behavior::Echo { null_as } if input.is_null() => at_once(null_as.clone()),
        Behavior::Echo { .. } => at_once(input),
        Behavior::Constant { output } => at_once(output.clone()),
        Behavior::Format { prefix } => at_once(match input {
            Value::String(text) => json!(format!("{prefix}{text}")),
            other => json!(format!("{prefix}{other}")),
        }),
        Behavior::Repeat { text, count } => {
            if text.len().saturating_mul(*count) > MAX_TEXT {
                return Err(Error::invalid_input(format!(
                    "`repeat` makes at most {MAX_TEXT} bytes"
                )));
            }
            at_once(json!(text.repeat(*count)))
        }
        Behavior::Fail { error, cause } => Reply {
            after_seconds: 0,
            result: Err((error.clone(), cause.clone())),
        },
        Behavior::Sleep {
            seconds,
            then,
            fields,
        } => {
            let then = then.with(fields)?;
            let mut late = reply(&then, input, nesting + 1)?;
            late.after_seconds = late.after_seconds.saturating_add(*seconds);
            late
        }
        Behavior::Dispatch { .. } => dispatch(behavior, &input, nesting)?,
    })
}

fn at_once(output: Value) -> Reply {
    Reply {
        after_seconds: 0,
        result: Ok(output),
    }
}

impl Then {
    fn with(&self, fields: &BTreeMap<String, Value>) -> Result<Behavior, Error> {
        let name = match self {
            Self::Whole(behavior) => return Ok((**behavior).clone()),
            Self::Named(name) => name,
        };
        let mut whole = fields.clone();
        whole.insert("behavior".to_owned(), json!(name));
        Behavior::deserialize(json!(whole))
            .map_err(|error| Error::invalid_input(format!("`then`: {error}")))
    }
}

/// `behavior` is a dispatch.
fn dispatch(behavior: &Behavior, input: &Value, nesting: usize) -> Result<Reply, Error> {
    let Behavior::Dispatch {
        on,
        payload,
        payload_text,
        envelope,
        functions,
        default,
    } = behavior
    else {
        return Err(Error::invalid_input("not a dispatch"));
    };
    let asked = input.pointer(on).and_then(Value::as_str).unwrap_or("");
    // An ARN ends in the function's name, and a version or alias perhaps.
    let name = asked
        .rsplit_once(":function:")
        .map_or(asked, |(_, name)| name);
    let bare = name.split(':').next().unwrap_or(name);
    let function = [asked, name, bare]
        .into_iter()
        .find_map(|name| functions.get(name))
        .or(default.as_deref())
        .ok_or_else(|| Error::invalid_input(format!("there is no function `{asked}`")))?;
    let mut given = input.pointer(payload).cloned().unwrap_or_default();
    if payload_text.as_deref() == Some("parse")
        && let Value::String(text) = &given
        && let Ok(parsed) = text.parse()
    {
        given = parsed;
    }
    let mut reply = reply(function, given, nesting + 1)?;
    if envelope.as_deref() == Some("lambda_invoke") {
        reply.result = reply.result.map(
            |output| json!({ "ExecutedVersion": "$LATEST", "Payload": output, "StatusCode": 200 }),
        );
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use cascade_sdk::testing::Harness;

    use super::*;

    fn run(behavior: &Value, input: &Value) -> Result<Value, Error> {
        let task = json!({ "behavior": behavior, "input": input });
        Harness::new().run(handle, &task)
    }

    #[track_caller]
    fn check(behavior: &Value, input: &Value, after_seconds: u64, output: &Value) {
        let expected = json!({ "after_seconds": after_seconds, "output": output });
        assert_eq!(run(behavior, input).expect("answers"), expected);
    }

    #[test]
    fn each_behaviour_does_what_its_name_says() {
        let one = json!({ "a": 1 });
        check(&json!({ "behavior": "echo" }), &one, 0, &one);
        let empty = json!({ "behavior": "echo", "null_as": {} });
        check(&empty, &json!(null), 0, &json!({}));
        check(&empty, &json!(1), 0, &json!(1));
        check(
            &json!({ "behavior": "echo" }),
            &json!(null),
            0,
            &json!(null),
        );
        check(
            &json!({ "behavior": "constant", "output": 7 }),
            &one,
            0,
            &json!(7),
        );
        let format = json!({ "behavior": "format", "prefix": "got " });
        check(&format, &json!("x"), 0, &json!("got x"));
        check(&format, &one, 0, &json!("got {\"a\":1}"));
        let repeat = json!({ "behavior": "repeat", "text": "ab", "count": 3 });
        check(&repeat, &one, 0, &json!("ababab"));
    }

    #[test]
    fn a_failure_has_its_words() {
        let fail = json!({ "behavior": "fail", "error": "Oops", "cause": "it fell" });
        let error = run(&fail, &json!(null)).expect_err("fails");
        assert_eq!((error.name(), error.message()), ("Oops", "it fell"));
        assert_eq!(error.get_details(), Some(&json!({ "after_seconds": 0 })));
    }

    #[test]
    fn what_sleeps_says_for_how_long() {
        let sleep = json!({ "behavior": "sleep", "seconds": 5, "then": "constant", "output": 1 });
        check(&sleep, &json!(null), 5, &json!(1));
        let twice = json!({ "behavior": "sleep", "seconds": 2, "then": sleep });
        check(&twice, &json!(null), 7, &json!(1));
        let fails = json!({
            "behavior": "sleep", "seconds": 3, "then": "fail", "error": "E", "cause": "C",
        });
        let error = run(&fails, &json!(null)).expect_err("fails");
        assert_eq!(error.get_details(), Some(&json!({ "after_seconds": 3 })));
        let unknown = json!({ "behavior": "sleep", "seconds": 1, "then": "dance" });
        let error = run(&unknown, &json!(null)).expect_err("there is no such behaviour");
        assert_eq!(error.name(), "InvalidInput");
    }

    #[test]
    fn a_function_is_found_by_its_name_or_its_arn() {
        let dispatch = json!({
            "behavior": "dispatch", "on": "/FunctionName", "payload": "/Payload",
            "payload_text": "parse", "envelope": "lambda_invoke",
            "functions": { "f": { "behavior": "echo" } },
            "default": { "behavior": "constant", "output": "other" },
        });
        let wrapped =
            |output| json!({ "ExecutedVersion": "$LATEST", "Payload": output, "StatusCode": 200 });
        for (name, payload, output) in [
            ("f", json!({ "a": 1 }), json!({ "a": 1 })),
            (
                "arn:aws:lambda:us-east-1:1:function:f",
                json!("[1]"),
                json!([1]),
            ),
            (
                "arn:aws:lambda:us-east-1:1:function:f:$LATEST",
                json!("no JSON"),
                json!("no JSON"),
            ),
            ("g", json!(1), json!("other")),
        ] {
            let input = json!({ "FunctionName": name, "Payload": payload });
            check(&dispatch, &input, 0, &wrapped(output));
        }
    }

    #[test]
    fn what_cannot_be_done_is_invalid_input() {
        let mut deep = json!({ "behavior": "echo" });
        for _ in 0..20 {
            deep = json!({ "behavior": "sleep", "seconds": 1, "then": deep });
        }
        let lost = json!({
            "behavior": "dispatch", "on": "/name", "payload": "/x", "functions": {},
        });
        let huge = json!({ "behavior": "repeat", "text": "abcd", "count": 1 << 30 });
        for (behavior, part) in [
            (deep, "16 deep"),
            (lost, "no function `f`"),
            (huge, "at most 4194304 bytes"),
        ] {
            let error = run(&behavior, &json!({ "name": "f" })).expect_err("refused");
            assert_eq!(error.name(), "InvalidInput");
            assert!(error.message().contains(part), "{error}");
        }
    }
}
