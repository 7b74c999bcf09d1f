//! `urn:cascade:activity:echo` gives back its input, whatever it is.
//!
//! For trying things out, and as the smallest activity there is.

use std::convert::Infallible;

use cascade_sdk::RawValue;

#[cascade_sdk::activity]
fn handle(input: Box<RawValue>) -> Result<Box<RawValue>, Infallible> {
    Ok(input)
}

#[cfg(test)]
mod tests {
    use cascade_sdk::json;
    use cascade_sdk::testing::Harness;

    #[test]
    fn any_json_comes_back_as_it_went_in() {
        for input in [
            json!(null),
            json!("text"),
            json!({ "a": [1, 2.5, true], "ä": {} }),
        ] {
            assert_eq!(Harness::new().run(super::handle, &input), Ok(input));
        }
    }
}
