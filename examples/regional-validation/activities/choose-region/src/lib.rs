//! Chooses the cheapest of the regions that accept a customer. Pure.

use std::collections::BTreeMap;

use cascade_sdk::Error;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    /// What each branch found, by the branch's name.
    regions: BTreeMap<String, Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    accepted: bool,
    cost_cents: u32,
    #[serde(default)]
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Output {
    /// None if no region accepts.
    region: Option<String>,
    accepted: usize,
    reasons: Vec<String>,
}

#[cascade_sdk::activity]
fn handle(input: Input) -> Result<Output, Error> {
    let accepted = || input.regions.iter().filter(|(_, verdict)| verdict.accepted);
    Ok(Output {
        // Names are in order, and the first of equal costs wins: the choice is always the same.
        region: accepted()
            .min_by_key(|(_, verdict)| verdict.cost_cents)
            .map(|(name, _)| name.clone()),
        accepted: accepted().count(),
        reasons: input
            .regions
            .iter()
            .flat_map(|(name, verdict)| {
                verdict
                    .reasons
                    .iter()
                    .map(move |reason| format!("{name}: {reason}"))
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use cascade_sdk::json;
    use cascade_sdk::testing::Harness;

    use super::handle;

    #[test]
    fn the_cheapest_that_accepts_is_chosen() {
        let verdict =
            |accepted, cost_cents| json!({ "accepted": accepted, "cost_cents": cost_cents });
        let regions =
            json!({ "A": verdict(true, 9), "B": verdict(true, 7), "C": verdict(false, 1) });
        let output = Harness::new().run(handle, json!({ "regions": regions }));
        // B: C is cheaper but does not accept.
        assert_eq!(
            output,
            Ok(json!({ "region": "B", "accepted": 2, "reasons": [] }))
        );
    }

    #[test]
    fn without_any_the_reasons_are_told() {
        let regions = json!({ "A": { "accepted": false, "cost_cents": 1, "reasons": ["far"] } });
        let output = Harness::new().run(handle, json!({ "regions": regions }));
        assert_eq!(
            output,
            Ok(json!({ "region": null, "accepted": 0, "reasons": ["A: far"] }))
        );
    }
}
