//! `urn:cascade:activity:http_request` sends an HTTP request and gives the answer.
//!
//! ```yaml
//! parameters:
//!   method: POST                      # GET if absent
//!   url: https://api.example.com/orders
//!   headers: { accept: application/json }
//!   json: { order_id: "{{ $.order.order_id }}" } # or `body`, a text
//!   timeout_ms: 5000                  # at most the host's limit
//!   accept_status: [404]              # further statuses that are no errors
//! ```
//!
//! The output is `{status, headers, body}`: header names in lower case, several
//! of one name joined by commas; the body as JSON if its content type says so,
//! else as text. A status that is not 200 to 299 fails with `ServiceUnavailable`, `NotFoundError` and so on,
//! with `{status, headers, body}` as details.
//!
//! The tenant's policy says which hosts may be reached.

use std::collections::BTreeMap;
use std::time::Duration;

use cascade_sdk::{Error, Value, debug, http};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    json: Option<Value>,
    body: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    accept_status: Vec<u16>,
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Serialize)]
struct Output {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[cascade_sdk::activity]
fn handle(input: Input) -> Result<Output, Error> {
    let accepted = input.accept_status.clone();
    let response = request(input)?.send()?;
    debug!(
        "answered {} with {} bytes",
        response.status(),
        response.body().len()
    );
    let output = output(&response)?;
    if accepted.contains(&response.status()) {
        return Ok(output);
    }
    match response.error_for_status() {
        Ok(_) => Ok(output),
        Err(error) => Err(Error::from(error).details(output)),
    }
}

fn request(input: Input) -> Result<http::Request, Error> {
    let mut request = http::Request::new(input.method, input.url);
    for (name, value) in input.headers {
        request = request.header(name, value);
    }
    request = match (input.json, input.body) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid_input(
                "input: `json` and `body` exclude each other",
            ));
        }
        (Some(json), None) => request.json(&json),
        (None, Some(body)) => request.body(body),
        (None, None) => request,
    };
    Ok(match input.timeout_ms {
        Some(timeout) => request.timeout(Duration::from_millis(timeout)),
        None => request,
    })
}

fn output(response: &http::Response) -> Result<Output, Error> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in response.headers() {
        headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    let body = if is_json(headers.get("content-type")) && !response.body().is_empty() {
        response.json()?
    } else {
        response.text().into()
    };
    Ok(Output {
        status: response.status(),
        headers,
        body,
    })
}

/// `application/json`, `application/problem+json; charset=utf-8` and the like.
fn is_json(content_type: Option<&String>) -> bool {
    let essence = content_type.map_or("", |text| text.split(';').next().unwrap_or_default());
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use cascade_sdk::json;
    use cascade_sdk::testing::{Harness, answer};

    use super::handle;

    const URL: &str = "https://api.example.com/orders";

    #[test]
    fn json_goes_and_comes_as_json() {
        let reply = answer(201)
            .json(&json!({ "id": 7 }))
            .header("X-Tag", "a")
            .header("x-tag", "b");
        let harness = Harness::new().http("POST", URL, reply);
        let input = json!({
            "method": "POST", "url": URL, "json": { "n": 1 }, "headers": { "accept": "*/*" }, "timeout_ms": 50,
        });
        let expected = json!({
            "status": 201,
            "headers": { "content-type": "application/json", "x-tag": "a, b" },
            "body": { "id": 7 },
        });
        assert_eq!(harness.run(handle, input), Ok(expected));
        let sent = &harness.requests()[0];
        assert_eq!(
            (sent.json(), sent.timeout_ms),
            (json!({ "n": 1 }), Some(50))
        );
        assert!(sent.headers.contains(&("accept".into(), "*/*".into())));
    }

    #[test]
    fn a_failing_status_is_an_error_with_the_answer_as_details() {
        let harness = Harness::new().http("GET", URL, answer(503).body("busy"));
        let error = harness.run(handle, json!({ "url": URL })).expect_err("503");
        assert_eq!(
            (error.name(), error.is_retryable()),
            ("ServiceUnavailable", Some(true))
        );
        let details = json!({ "status": 503, "headers": {}, "body": "busy" });
        assert_eq!(error.get_details(), Some(&details));
    }

    #[test]
    fn a_status_that_is_accepted_is_no_error() {
        let harness = Harness::new().http("GET", URL, answer(404));
        let output = harness.run(handle, json!({ "url": URL, "accept_status": [404] }));
        assert_eq!(
            output,
            Ok(json!({ "status": 404, "headers": {}, "body": "" }))
        );
    }

    #[test]
    fn what_cannot_be_sent_is_an_invalid_input() {
        for input in [
            json!({}),
            json!({ "url": URL, "json": 1, "body": "1" }),
            json!({ "url": URL, "metod": "PUT" }),
        ] {
            let error = Harness::new().run(handle, &input).expect_err("invalid");
            assert_eq!(error.name(), "InvalidInput", "{input}");
        }
    }

    #[test]
    fn a_body_that_is_not_the_json_it_claims_to_be_is_an_error() {
        let reply = answer(200).header("content-type", "application/problem+json; charset=utf-8");
        let harness = Harness::new().http("GET", URL, reply.body("<html>"));
        let error = harness
            .run(handle, json!({ "url": URL }))
            .expect_err("no JSON");
        assert_eq!(
            (error.name(), error.is_retryable()),
            ("InvalidResponse", Some(false))
        );
    }
}
