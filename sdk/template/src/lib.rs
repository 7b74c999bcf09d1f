//! An activity: JSON in, JSON out, in a sandbox.

use cascade_sdk::{Context, Error, info};
use serde::{Deserialize, Serialize};

/// What the Task state passes as `parameters`.
#[derive(Debug, Deserialize)]
struct Input {
    name: String,
}

/// What goes to the Task state's `result`.
#[derive(Debug, Serialize)]
struct Output {
    greeting: String,
}

#[cascade_sdk::activity]
fn handle(context: Context, input: Input) -> Result<Output, Error> {
    let name = input.name.trim();
    if name.is_empty() {
        // `catch` and `retries` match the name. Trying again would not help.
        return Err(Error::new("NameMissing", "nobody to greet").retryable(false));
    }
    info!("greeting {name}, attempt {}", context.attempt);
    Ok(Output {
        greeting: format!("Hello, {name}!"),
    })
}

#[cfg(test)]
mod tests {
    use cascade_sdk::json;
    use cascade_sdk::testing::Harness;

    use super::*;

    #[test]
    fn a_name_is_greeted() {
        let harness = Harness::new();
        let output = harness.run(handle, json!({ "name": " Ada " }));
        assert_eq!(output, Ok(json!({ "greeting": "Hello, Ada!" })));
        assert_eq!(harness.messages(), ["greeting Ada, attempt 1"]);
    }

    #[test]
    fn without_a_name_it_fails_for_good() {
        let error = Harness::new().run(handle, json!({ "name": " " })).unwrap_err();
        assert_eq!(error.name(), "NameMissing");
        assert_eq!(error.is_retryable(), Some(false));
    }
}
