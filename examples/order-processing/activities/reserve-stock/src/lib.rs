//! Reserves what an order needs.
//!
//! The warehouse of this example is out of order as often as the input says,
//! so that the workflow's `retries` can be seen at work.

use cascade_sdk::{Context, Error, info};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    order_id: String,
    items: Vec<Item>,
    /// How many attempts fail before one succeeds.
    #[serde(default)]
    outages: u32,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Output {
    reservation_id: String,
    units: u64,
}

#[cascade_sdk::activity]
fn handle(context: Context, input: Input) -> Result<Output, Error> {
    if context.attempt <= input.outages {
        // Tried again, because Cascade knows this name; `retryable(true)` would say it of any.
        return Err(Error::new(
            "ServiceUnavailable",
            format!(
                "the warehouse does not answer (attempt {})",
                context.attempt
            ),
        ));
    }
    for item in &input.items {
        info!("reserved {} of {}", item.quantity, item.sku);
    }
    Ok(Output {
        reservation_id: format!("rsv-{}", input.order_id),
        units: input
            .items
            .iter()
            .map(|item| u64::from(item.quantity))
            .sum(),
    })
}

#[cfg(test)]
mod tests {
    use cascade_sdk::json;
    use cascade_sdk::testing::Harness;

    #[test]
    fn it_fails_as_often_as_there_are_outages() {
        let harness = Harness::new();
        let input = json!({
            "order_id": "o-1",
            "items": [{ "sku": "book", "quantity": 2 }, { "sku": "pen", "quantity": 3 }],
            "outages": 2,
        });
        for attempt in [1, 2] {
            let error = harness.run_attempt(attempt, super::handle, &input);
            assert_eq!(error.expect_err("an outage").name(), "ServiceUnavailable");
        }
        let output = harness.run_attempt(3, super::handle, &input);
        assert_eq!(
            output,
            Ok(json!({ "reservation_id": "rsv-o-1", "units": 5 }))
        );
        assert_eq!(
            harness.messages(),
            ["reserved 2 of book", "reserved 3 of pen"]
        );
    }
}
