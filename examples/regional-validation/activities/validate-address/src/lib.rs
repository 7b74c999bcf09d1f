//! Checks an address by the rules of a region. Pure.

use cascade_sdk::{Error, info};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    region: Region,
    address: Address,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Region {
    Us,
    Eu,
    Asia,
}

#[derive(Deserialize)]
struct Address {
    country: String,
    postal_code: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Output {
    accepted: bool,
    /// Why not, for people; empty if accepted.
    reasons: Vec<String>,
    /// What a delivery costs, in cents.
    cost_cents: u32,
}

#[cascade_sdk::activity]
fn handle(input: Input) -> Result<Output, Error> {
    let Address {
        country,
        postal_code,
    } = &input.address;
    let (countries, digits, cost_cents): (&[&str], usize, u32) = match input.region {
        Region::Us => (&["US"], 5, 900),
        Region::Eu => (&["DE", "FR", "IT"], 5, 700),
        Region::Asia => (&["JP", "SG", "CN"], 6, 1_400),
    };
    let mut reasons = Vec::new();
    if !countries.contains(&country.as_str()) {
        reasons.push(format!(
            "`{country}` is not one of {}",
            countries.join(", ")
        ));
    }
    let is_code = postal_code.len() == digits && postal_code.bytes().all(|c| c.is_ascii_digit());
    if !is_code {
        reasons.push(format!("`{postal_code}` is not {digits} digits"));
    }
    info!("{:?}: {} reasons against", input.region, reasons.len());
    Ok(Output {
        accepted: reasons.is_empty(),
        reasons,
        cost_cents,
    })
}

#[cfg(test)]
mod tests {
    use cascade_sdk::json;
    use cascade_sdk::testing::Harness;

    use super::handle;

    /// Accepted or not, and how many reasons there are against it.
    fn check(region: &str, country: &str, postal_code: &str, reasons: usize) {
        let input = json!({
            "region": region,
            "address": { "country": country, "postal_code": postal_code },
        });
        let output = Harness::new().run(handle, input).expect("a known region");
        assert_eq!(output["accepted"], reasons == 0, "{output}");
        assert_eq!(
            output["reasons"].as_array().map(Vec::len),
            Some(reasons),
            "{output}"
        );
    }

    #[test]
    fn each_region_has_its_own_rules() {
        check("us", "US", "94103", 0);
        check("us", "US", "9410", 1); // a digit short
        check("us", "DE", "9410", 2); // and the wrong country
        check("eu", "DE", "10115", 0);
        check("asia", "SG", "018956", 0);
        check("asia", "SG", "١٢٣", 1); // digits, but not ours
    }

    #[test]
    fn an_unknown_region_is_an_invalid_input() {
        let input = json!({
            "region": "mars",
            "address": { "country": "US", "postal_code": "94103" },
        });
        let error = Harness::new()
            .run(handle, input)
            .expect_err("no such region");
        assert_eq!(error.name(), "InvalidInput");
        assert!(
            error
                .message()
                .starts_with("input.region: unknown variant `mars`")
        );
    }
}
