//! Charges a card, once for each order however often it runs.
//!
//! This is the one step of the example with an effect: it writes to the
//! key-value store, so Cascade starts it only when its cause is durable, and
//! may repeat it after a crash. The charge is stored under the order's id, and
//! only if there is none yet; a repetition finds it and charges nothing.

use cascade_sdk::{Context, Error, info, json, kv};
use serde::{Deserialize, Serialize};

/// What the card of this example has on it, in cents, unless the input says otherwise.
const DEFAULT_LIMIT: u64 = 100_000;

#[derive(Deserialize)]
struct Input {
    order_id: String,
    amount_cents: u64,
    #[serde(default = "default_limit")]
    limit_cents: u64,
}

fn default_limit() -> u64 {
    DEFAULT_LIMIT
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
struct Charge {
    charge_id: String,
    amount_cents: u64,
}

#[cascade_sdk::activity]
fn handle(context: Context, input: Input) -> Result<Charge, Error> {
    if input.amount_cents > input.limit_cents {
        return Err(Error::new(
            "PaymentDeclined",
            format!(
                "{} cents are over the card's limit of {}",
                input.amount_cents, input.limit_cents
            ),
        )
        .retryable(false)
        .details(json!({ "limit_cents": input.limit_cents })));
    }
    let key = format!("charges/{}", input.order_id);
    let charge = Charge {
        charge_id: format!("ch-{}", context.idempotency_key),
        amount_cents: input.amount_cents,
    };
    if kv::compare_and_set(&key, None, &charge)? {
        info!("charged {} cents", charge.amount_cents);
        return Ok(charge);
    }
    let earlier: Charge = kv::get(&key)?
        .ok_or_else(|| Error::new("ChargeGone", "the charge was there a moment ago"))?;
    if earlier.amount_cents == charge.amount_cents {
        info!("charged already: {}", earlier.charge_id);
        Ok(earlier)
    } else {
        let amount = earlier.amount_cents;
        Err(Error::new(
            "AlreadyCharged",
            format!("the order was charged {amount} cents"),
        )
        .retryable(false))
    }
}

#[cfg(test)]
mod tests {
    use cascade_sdk::testing::{Harness, context};
    use cascade_sdk::{json, kv};

    use super::handle;

    #[test]
    fn an_order_is_charged_once() {
        let input = json!({ "order_id": "o-1", "amount_cents": 3_300 });
        let harness = Harness::new();
        let first = harness.run(handle, &input).expect("within the limit");
        assert_eq!(harness.stored("charges/o-1").as_ref(), Some(&first));

        // Another execution for the same order.
        let mut other = context();
        other.idempotency_key = "another".into();
        let harness = harness.context(other);
        assert_eq!(harness.run_attempt(2, handle, &input), Ok(first));
        assert_eq!(harness.messages().len(), 2);

        let more = json!({ "order_id": "o-1", "amount_cents": 3_400 });
        let error = harness.run(handle, more).expect_err("another amount");
        assert_eq!(
            (error.name(), error.is_retryable()),
            ("AlreadyCharged", Some(false))
        );
    }

    #[test]
    fn over_the_limit_it_is_declined_for_good() {
        let harness = Harness::new();
        let input = json!({ "order_id": "o-1", "amount_cents": 51, "limit_cents": 50 });
        let error = harness.run(handle, input).expect_err("over the limit");
        assert_eq!(
            (error.name(), error.is_retryable()),
            ("PaymentDeclined", Some(false))
        );
        assert_eq!(error.get_details(), Some(&json!({ "limit_cents": 50 })));
        assert_eq!(harness.stored("charges/o-1"), None);
    }

    #[test]
    fn a_store_that_is_down_leaves_it_to_a_retry() {
        let harness = Harness::new().failing_store(kv::Error::Unavailable("down".into()));
        let input = json!({ "order_id": "o-1", "amount_cents": 1 });
        let error = harness.run(handle, input).expect_err("no store");
        assert_eq!(
            (error.name(), error.is_retryable()),
            ("ServiceUnavailable", Some(true))
        );
    }
}
