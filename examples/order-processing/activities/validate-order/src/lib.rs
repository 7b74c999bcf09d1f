//! Checks an order and computes its total. Pure: the same order, the same answer.

use cascade_sdk::{Error, json};
use serde::{Deserialize, Serialize};

/// More are a mistake or an attack; a person orders less.
const MAX_QUANTITY: u32 = 1_000;

#[derive(Deserialize)]
struct Input {
    order_id: String,
    items: Vec<Item>,
}

#[derive(Deserialize, Serialize)]
struct Item {
    sku: String,
    quantity: u32,
    price_cents: u64,
}

#[derive(Serialize)]
struct Output {
    order_id: String,
    items: Vec<Item>,
    total_cents: u64,
}

#[cascade_sdk::activity]
fn handle(input: Input) -> Result<Output, Error> {
    let problems = problems(&input);
    if !problems.is_empty() {
        // Cascade never tries a `ValidationError` again.
        return Err(Error::new("ValidationError", problems.join("; "))
            .details(json!({ "problems": problems })));
    }
    let total_cents = input
        .items
        .iter()
        .try_fold(0_u64, |total, item| {
            let price = item.price_cents.checked_mul(item.quantity.into())?;
            total.checked_add(price)
        })
        .ok_or_else(|| Error::new("ValidationError", "the total is more than can be counted"))?;
    Ok(Output {
        order_id: input.order_id,
        items: input.items,
        total_cents,
    })
}

/// Everything that is wrong, so that the customer hears of it at once.
fn problems(order: &Input) -> Vec<String> {
    let mut problems = Vec::new();
    if order.order_id.trim().is_empty() {
        problems.push("the order has no id".to_owned());
    }
    if order.items.is_empty() {
        problems.push("the order has no items".to_owned());
    }
    for item in &order.items {
        if !(1..=MAX_QUANTITY).contains(&item.quantity) {
            problems.push(format!(
                "{} of {} is not between 1 and {MAX_QUANTITY}",
                item.quantity, item.sku
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use cascade_sdk::testing::Harness;
    use cascade_sdk::{Error, Value, json};

    fn run(items: &Value) -> Result<Value, Error> {
        Harness::new().run(super::handle, json!({ "order_id": "o-1", "items": items }))
    }

    #[test]
    fn the_total_is_that_of_all_items() {
        let items = json!([
            { "sku": "book", "quantity": 2, "price_cents": 1_500 },
            { "sku": "pen", "quantity": 3, "price_cents": 100 },
        ]);
        let output = run(&items).expect("a good order");
        // 2 × 1,500 + 3 × 100
        assert_eq!(output["total_cents"], 3_300);
        assert_eq!(output["items"], items);
    }

    #[test]
    fn all_problems_are_reported_together() {
        let items = json!([
            { "sku": "book", "quantity": 0, "price_cents": 1 },
            { "sku": "pen", "quantity": 1_001, "price_cents": 1 },
        ]);
        let error = run(&items).expect_err("both quantities are out of range");
        assert_eq!(error.name(), "ValidationError");
        let problems = error.get_details().map(|details| &details["problems"]);
        assert_eq!(problems.and_then(Value::as_array).map(Vec::len), Some(2));
        assert!(run(&json!([])).is_err());
    }

    #[test]
    fn a_total_beyond_all_numbers_is_an_error() {
        let item = json!({ "sku": "moon", "quantity": 2, "price_cents": u64::MAX });
        let error = run(&json!([item])).expect_err("an overflow");
        assert_eq!(error.name(), "ValidationError");
    }
}
