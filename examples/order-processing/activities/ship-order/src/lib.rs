//! Hands an order to the carrier, who delivers on the next working day.

use std::time::{Duration, SystemTime};

use cascade_sdk::{Context, Error};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_hours(24);

#[derive(Deserialize)]
struct Input {
    order_id: String,
    country: String,
}

#[derive(Serialize)]
struct Output {
    tracking_number: String,
    carrier: &'static str,
    /// In milliseconds since the Unix epoch.
    delivery_at_ms: u64,
}

#[cascade_sdk::activity]
fn handle(context: &Context, input: Input) -> Result<Output, Error> {
    let (carrier, days) = match input.country.as_str() {
        "US" => ("Continental", 2),
        "DE" | "FR" | "IT" | "NL" => ("Europost", 3),
        other => {
            let message = format!("no carrier delivers to `{other}`");
            return Err(Error::new("NoCarrier", message).retryable(false));
        }
    };
    // From the time of scheduling, not from the clock: so the activity stays
    // pure, and a repetition gives the same date.
    let delivery = (context.scheduled_at() + DAY * days)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Output {
        tracking_number: format!("{}-{}", &carrier[..2].to_uppercase(), input.order_id),
        carrier,
        delivery_at_ms: u64::try_from(delivery.as_millis()).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use cascade_sdk::json;
    use cascade_sdk::testing::{Harness, NOW_MS};

    use super::handle;

    #[test]
    fn the_carrier_is_that_of_the_country() {
        let input = json!({ "order_id": "o-1", "country": "DE" });
        let expected = json!({
            "tracking_number": "EU-o-1",
            "carrier": "Europost",
            "delivery_at_ms": NOW_MS + 3 * 86_400_000, // three days after scheduling
        });
        assert_eq!(Harness::new().run(handle, input), Ok(expected));
    }

    #[test]
    fn nobody_delivers_to_the_moon() {
        let input = json!({ "order_id": "o-1", "country": "Moon" });
        let error = Harness::new().run(handle, input).expect_err("no carrier");
        assert_eq!(
            (error.name(), error.is_retryable()),
            ("NoCarrier", Some(false))
        );
    }
}
