//! Every example runs to the end that its README promises.

use std::fs;

use cascade_tests::{Server, root};
use serde_json::{Value, json};

/// The tenant's policy, as in the example's own `cascade.yaml`.
const POLICY: &str = "    policy: { capabilities: [key-value] }";

fn serve(example: &str, activities: &[(&str, Option<&str>)]) -> Server {
    let server = Server::with_tenant(POLICY);
    for (name, manifest) in activities {
        server.push(name, *manifest);
    }
    let folder = root().join("examples").join(example);
    let folder = folder.to_str().expect("the workspace's path is UTF-8");
    server.cli(&["apply", folder]).succeeds();
    server
}

/// Runs `workflow` with an input of the example; gives the execution.
fn run(server: &Server, example: &str, workflow: &str, input: &str) -> Value {
    let path = root()
        .join("examples")
        .join(example)
        .join("inputs")
        .join(input);
    let text = fs::read_to_string(path).expect("an input");
    let input: Value = serde_json::from_str(&text).expect("JSON");
    let answer = server.start_execution(example, workflow, &input, &input.to_string());
    let answer = answer.expect("the server answers");
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = answer.body["id"].as_str().expect("an id").to_owned();
    let view = server.wait(&id);
    // Whatever the end is, the history must lead to it.
    server.cli(&["replay", &id]).succeeds();
    view
}

/// Outputs and errors as examples/order-processing/README.md has them.
#[test]
fn orders_are_shipped_rejected_and_declined() {
    let manifest = "capabilities: [key-value]\n";
    let activities = [
        ("validate_order", None),
        ("reserve_stock", None),
        ("charge_card", Some(manifest)),
        ("ship_order", None),
    ];
    let server = serve("order-processing", &activities);
    let run = |input| run(&server, "order-processing", "process_order", input);

    let shipped = run("order.json");
    // 2 books at 1,500 and 3 pens at 100.
    assert_eq!(shipped["output"]["total_cents"], 3300, "{shipped}");
    assert_eq!(shipped["output"]["status"], "shipped");

    let free = run("free.json");
    assert_eq!(free["output"]["status"], "shipped", "{free}");

    let rejected = run("invalid.json");
    assert_eq!(rejected["output"]["status"], "rejected", "{rejected}");

    let declined = run("declined.json");
    assert_eq!(declined["status"], "failed", "{declined}");
    assert_eq!(declined["error"]["error"], "OrderDeclined");
}

/// As examples/regional-validation/README.md has them.
#[test]
fn customers_are_checked_in_all_regions_at_once() {
    let activities = [("validate_address", None), ("choose_region", None)];
    let server = serve("regional-validation", &activities);
    let run = |input| run(&server, "regional-validation", "validate_customer", input);

    let accepted = run("accepted.json");
    assert_eq!(
        accepted["output"],
        json!({ "status": "accepted", "region": "ValidateEU" })
    );

    let refused = run("refused.json");
    assert_eq!(refused["error"]["error"], "NoRegionAccepts", "{refused}");

    let unreadable = run("unreadable.json");
    assert_eq!(
        unreadable["error"]["error"], "AddressUnreadable",
        "{unreadable}"
    );
}
