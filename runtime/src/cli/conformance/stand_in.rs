//! The activity behind every resource of a suite.
//!
//! It is `activities/stand_in`, compiled and kept here, so that the command needs
//! nothing but the binary. A test sees to it that it was made from the source as
//! it is.

use bytes::Bytes;
use cascade_cdl::{ActivityFailure, ActivityTask, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::error::Error;
use super::super::local::{Caller, Local};
use crate::catalog::Manifest;
use crate::sandbox::Cancel;

/// Made by `scripts/build-guests.sh`, which leaves it in `target/guest`.
const WASM: &[u8] = include_bytes!("stand_in.wasm");

/// Its name among the activities of the command.
const NAME: &str = "stand_in";

/// The activity, ready to run.
pub(super) struct StandIn {
    local: Local,
}

/// What it is given.
#[derive(Serialize)]
struct Task<'a> {
    behavior: &'a Value,
    input: &'a Json,
}

/// What it gives back.
#[derive(Deserialize)]
struct Answer {
    after_seconds: u64,
    output: Box<RawValue>,
}

/// What the service that it stands in for does, and after how long.
pub(super) struct Reply {
    pub(super) after_seconds: u64,
    pub(super) result: Result<Json, ActivityFailure>,
}

impl StandIn {
    pub(super) async fn open() -> Result<Self, Error> {
        let mut local = Local::open(Vec::new()).await?;
        let wasm = Bytes::from_static(WASM);
        local.add(NAME, wasm, &Manifest::default()).await?;
        Ok(Self { local })
    }

    /// Has it behave so in place of an activity.
    pub(super) async fn run(
        &self,
        caller: &Caller<'_>,
        task: &ActivityTask,
        behavior: &Value,
    ) -> Reply {
        let mut task = task.clone();
        task.resource.name = NAME.into();
        let given = Task {
            behavior,
            input: &task.input,
        };
        let given = serde_json::to_string(&given).expect("it has string keys");
        task.input = Json::parse(given).expect("it was just written");
        let outcome = self.local.run(caller, &task, Cancel::default()).await;
        match outcome.result {
            Ok(output) => answered(&output),
            Err(failure) => failed(failure),
        }
    }
}

fn answered(output: &Json) -> Reply {
    match serde_json::from_str::<Answer>(output.as_str()) {
        Ok(answer) => Reply {
            after_seconds: answer.after_seconds,
            result: Ok(Json::parse(answer.output.get().to_owned()).expect("it was just read")),
        },
        Err(error) => Reply {
            after_seconds: 0,
            result: Err(ActivityFailure {
                error: "InvalidOutput".to_owned(),
                message: format!("the stand-in's answer: {error}"),
                retryable: Some(false),
                details: None,
            }),
        },
    }
}

/// The time that passes stands in the details; the service gives none.
fn failed(mut failure: ActivityFailure) -> Reply {
    let details = failure.details.take();
    let after = details.and_then(|details| details.to_value().get("after_seconds")?.as_u64());
    Reply {
        after_seconds: after.unwrap_or(0),
        result: Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use sha2::{Digest, Sha256};

    use super::WASM;

    /// Of `activities/stand_in/src/lib.rs` when `stand_in.wasm` was made from it.
    const MADE_FROM: &str = "7df9a75743abb9705de8fc18f982e7993183f12d89c108e421f0307a3d8a23bd";

    #[test]
    fn the_module_was_made_from_the_source_as_it_is() {
        let source = include_bytes!("../../../../activities/stand_in/src/lib.rs");
        let mut digest = String::new();
        for byte in Sha256::digest(source) {
            write!(digest, "{byte:02x}").expect("writing to a string does not fail");
        }
        assert_eq!(
            digest, MADE_FROM,
            "run scripts/build-guests.sh, copy target/guest/stand_in.wasm to \
             runtime/src/cli/conformance/, and write the new digest here"
        );
    }

    #[test]
    fn the_module_does_not_tell_where_it_was_built() {
        let home = b"/.cargo/registry/";
        assert!(!WASM.windows(home.len()).any(|part| part == home));
    }
}
