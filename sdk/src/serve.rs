//! From JSON to the activity's function and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Error};

/// A function that can be an activity: `fn(Context, Input)`, `fn(&Context, Input)` or
/// `fn(Input)`, returning `Result<Output, E>`.
///
/// `Arguments` only tells these forms apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "this function cannot be an activity",
    label = "not `fn(Context, Input) -> Result<Output, Error>`",
    note = "`Input` must implement `serde::Deserialize`, without borrowing",
    note = "`Output` must implement `serde::Serialize`",
    note = "the error must be `cascade_sdk::Error` or implement `std::error::Error`"
)]
pub trait Handler<Arguments> {
    /// What the activity is given.
    type Input: DeserializeOwned;
    /// What it gives.
    type Output: Serialize;

    /// Calls the function.
    ///
    /// # Errors
    ///
    /// What the function returns.
    fn call(&self, context: Context, input: Self::Input) -> Result<Self::Output, Error>;
}

impl<F, I, O, E> Handler<(Context, I)> for F
where
    F: Fn(Context, I) -> Result<O, E>,
    I: DeserializeOwned,
    O: Serialize,
    E: Into<Error>,
{
    type Input = I;
    type Output = O;

    fn call(&self, context: Context, input: I) -> Result<O, Error> {
        self(context, input).map_err(Into::into)
    }
}

impl<F, I, O, E> Handler<(&Context, I)> for F
where
    F: Fn(&Context, I) -> Result<O, E>,
    I: DeserializeOwned,
    O: Serialize,
    E: Into<Error>,
{
    type Input = I;
    type Output = O;

    fn call(&self, context: Context, input: I) -> Result<O, Error> {
        self(&context, input).map_err(Into::into)
    }
}

impl<F, I, O, E> Handler<(I,)> for F
where
    F: Fn(I) -> Result<O, E>,
    I: DeserializeOwned,
    O: Serialize,
    E: Into<Error>,
{
    type Input = I;
    type Output = O;

    fn call(&self, _context: Context, input: I) -> Result<O, Error> {
        self(input).map_err(Into::into)
    }
}

/// Lets the macro report at the function that it is none for an activity.
pub fn assert_activity<Arguments>(_: impl Handler<Arguments>) {}

/// Runs an activity from JSON to JSON.
pub(crate) fn run<Arguments, H: Handler<Arguments>>(
    handler: &H,
    context: Context,
    input: &str,
) -> Result<String, Error> {
    let output = handler.call(context, parse(input)?)?;
    // A failure here is a mistake in the output's type, such as a map whose keys are
    // not text: to try again would not help.
    serde_json::to_string(&output)
        .map_err(|error| Error::new("InvalidOutput", format!("output: {error}")).retryable(false))
}

/// Parses the input; a failure names the path to the field, as in `input.items[2].price`.
fn parse<T: DeserializeOwned>(input: &str) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_str(input);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = match error.path().to_string().as_str() {
            "." => "input".to_owned(),
            path if path.starts_with('[') => format!("input{path}"),
            path => format!("input.{path}"),
        };
        Error::invalid_input(format!("{place}: {}", error.into_inner()))
    })?;
    json.end()
        .map_err(|error| Error::invalid_input(format!("input: {error}")))?;
    Ok(value)
}

/// What the export of a component does.
#[cfg(target_family = "wasm")]
pub fn serve<Arguments>(
    handler: impl Handler<Arguments>,
    context: crate::host::bindings::Context,
    input: &str,
) -> Result<String, crate::host::bindings::ActivityError> {
    let context = Context {
        tenant: context.tenant,
        application: context.application,
        workflow: context.workflow,
        execution_id: context.execution_id,
        state: context.state,
        attempt: context.attempt,
        idempotency_key: context.idempotency_key,
        scheduled_at_ms: context.scheduled_at_ms,
    };
    run(&handler, context, input).map_err(|error| crate::host::bindings::ActivityError {
        name: error.name().to_owned(),
        message: error.message().to_owned(),
        retryable: error.is_retryable(),
        details: error.get_details().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::testing::{Harness, context};

    #[derive(Deserialize)]
    struct Order {
        items: Vec<Item>,
    }

    #[derive(Deserialize)]
    struct Item {
        price: u32,
    }

    #[expect(
        clippy::needless_pass_by_value,
        clippy::unnecessary_wraps,
        reason = "the shape of an activity"
    )]
    fn total(order: Order) -> Result<u32, Error> {
        Ok(order.items.iter().map(|item| item.price).sum())
    }

    #[test]
    fn all_three_forms_of_a_function_are_activities() {
        let owned = |context: Context, input: u32| Ok::<_, Error>(context.attempt + input);
        let borrowed = |context: &Context, input: u32| Ok::<_, Error>(context.attempt + input);
        let alone = |input: u32| Ok::<_, std::fmt::Error>(1 + input);
        let harness = Harness::new();
        // 3 = attempt 1 + input 2
        assert_eq!(harness.run(owned, 2), Ok(json!(3)));
        assert_eq!(harness.run(borrowed, 2), Ok(json!(3)));
        assert_eq!(harness.run(alone, 2), Ok(json!(3)));
    }

    #[test]
    fn an_input_that_does_not_fit_is_named_by_path_and_place() {
        for (input, message) in [
            (
                "{\"items\": [{\"price\": 1},\n {\"price\": \"2\"}]}",
                "input.items[1].price: invalid type: string \"2\", expected u32 at line 2 column 14",
            ),
            ("{}", "input: missing field `items` at line 1 column 2"),
            (
                "{\"items\": []} x",
                "input: trailing characters at line 1 column 15",
            ),
            ("", "input: EOF while parsing a value at line 1 column 0"),
        ] {
            let error = run(&total, context(), input).expect_err(input);
            assert_eq!((error.name(), error.message()), ("InvalidInput", message));
            assert_eq!(error.is_retryable(), Some(false), "it would fail again");
        }
    }

    #[test]
    fn an_output_without_a_json_form_is_an_error_not_a_panic() {
        let odd = |(): ()| Ok::<_, Error>(BTreeMap::from([(vec![1], 1)]));
        let error = run(&odd, context(), "null").expect_err("a list is no key");
        assert_eq!(
            (error.name(), error.is_retryable()),
            ("InvalidOutput", Some(false))
        );
    }
}
