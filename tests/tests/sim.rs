//! `cascade sim`: the same seed gives the same run, what holds is said to hold, and what
//! does not is found and told shortly.

use std::fs;
use std::path::Path;
use std::process::Command;

use cascade_tests::{Run, binary, guests, root};
use serde_json::Value;

fn sim(file: &Path, options: &[&str]) -> Run {
    let file = file.to_str().expect("a path in UTF-8");
    let mut args = vec!["sim", file];
    args.extend(options);
    let output = Command::new(binary()).args(&args).output();
    Run::of(&args, output.expect("the binary runs"))
}

/// A workflow in a file of its own.
struct Flow {
    _folder: tempfile::TempDir,
    file: std::path::PathBuf,
}

fn flow(cdl: &str) -> Flow {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("flow.yaml");
    fs::write(&file, cdl).expect("a file");
    Flow {
        _folder: folder,
        file,
    }
}

/// Charges under a time-out and tries again, as if that were free.
const PAYS: &str = "states:
  - { name: Reserve, type: Task, resource: urn:cascade:activity:reserve, next: Pay }
  - name: Pay
    type: Task
    resource: urn:cascade:activity:charge_card
    parameters: { amount: 5 }
    result: $.payment
    timeout: 10s
    retries: { max_attempts: 4, backoff: { initial_interval: 1s, jitter: none } }
    next: Ship
  - { name: Ship, type: Task, resource: urn:cascade:activity:ship, end: true }
";

const MOCKS: [&str; 6] = [
    "--mock",
    "reserve={}",
    "--mock",
    r#"charge_card={"paid": "{{ $.amount }}"}"#,
    "--mock",
    "ship={}",
];

#[test]
fn the_example_holds_with_its_real_activities_whatever_fails() {
    let example = root().join("examples/order-processing");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in [
        "validate_order",
        "reserve_stock",
        "charge_card",
        "ship_order",
    ] {
        let wasm = format!("{name}.wasm");
        fs::copy(guests().join(&wasm), folder.path().join(&wasm)).expect("copied");
    }
    let manifest = folder.path().join("charge_card.manifest.yaml");
    fs::write(manifest, "capabilities: [key-value]\n").expect("a file");
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let folder = text(folder.path());
    let input = |name: &str| format!("@{}", text(&example.join("inputs").join(name)));
    let inputs = ["order.json", "declined.json", "invalid.json", "free.json"].map(input);
    let invariants = text(&example.join("invariants.yaml"));
    let mut options = vec!["--activities", &folder, "--invariants", &invariants];
    for input in &inputs {
        options.extend(["--input", input]);
    }
    options.extend(["--output", "json"]);
    let first = sim(&example.join("order.yaml"), &options).succeeds();
    let told = first.json();
    assert_eq!(told["runs"], 1_000);
    assert_eq!(told["failed_runs"], 0);
    assert_eq!(told["states"]["never"], serde_json::json!([]));
    for kind in ["errors", "timeouts", "crashes", "slow", "duplicates"] {
        assert!(told["faults"][kind].as_u64() > Some(0), "{kind}: {told}");
    }
    for invariant in told["invariants"].as_array().expect("a list") {
        assert!(invariant["holds"].as_u64() > Some(0), "{invariant}");
        assert_eq!(invariant["broken"], 0, "{invariant}");
    }
    let second = sim(&example.join("order.yaml"), &options).succeeds();
    assert_eq!(first.stdout, second.stdout, "the same seeds, the same runs");
}

#[test]
fn a_charge_that_is_not_idempotent_is_found_and_shrunk_to_one_fault() {
    let flow = flow(PAYS);
    let invariant = ["--invariant", "$.calls.charge_card <= 1"];
    let options = [&MOCKS[..], &invariant, &["--output", "json"]].concat();
    let run = sim(&flow.file, &options).exits(1);
    let told = run.json();
    let failure = &told["failures"][0];
    assert_eq!(failure["check"]["invariant"], "$.calls.charge_card <= 1");
    let faults = failure["faults"].as_array().expect("a list");
    assert_eq!(faults.len(), 1, "{failure}");
    let story = failure["story"].to_string();
    assert!(story.contains("Pay entered"), "{story}");
    assert!(story.contains("fault"), "{story}");

    // The command that it gives leads there again, and to the same story.
    let seed = failure["seed"].to_string();
    let command = failure["command"].as_str().expect("a text");
    assert!(
        command.ends_with(&format!("--seed {seed} --runs 1")),
        "{command}"
    );
    let again = [&options[..], &["--seed", &seed, "--runs", "1"]].concat();
    let again = sim(&flow.file, &again).exits(1).json();
    assert_eq!(again["failures"][0]["story"], failure["story"]);

    // A service that goes by the idempotency key is charged once.
    let guarded = ["--invariant", "$.effects.charge_card <= 1"];
    sim(&flow.file, &[&MOCKS[..], &guarded].concat()).succeeds();
    // Without faults there is nothing to find.
    let calm = [&options[..], &["--faults", "none"]].concat();
    let calm = sim(&flow.file, &calm).succeeds().json();
    assert_eq!(calm["endings"]["completed"], 1_000);
    assert_eq!(calm["faults"], serde_json::json!({}));
}

#[test]
fn the_same_seed_gives_the_same_story_to_the_byte() {
    let flow = flow(PAYS);
    let broken = ["--invariant", "$.status == 'completed'"];
    let run = || sim(&flow.file, &[&MOCKS[..], &broken].concat()).exits(1);
    let [first, second] = [run(), run()];
    assert_eq!(first.stdout, second.stdout);
    assert!(first.stdout.contains("again: cascade sim"), "{first:?}");
    let other = sim(
        &flow.file,
        &[&MOCKS[..], &broken, &["--seed", "500"]].concat(),
    );
    assert_ne!(first.stdout, other.stdout);
}

#[test]
fn each_kind_of_fault_is_injected_alone_if_it_is_asked_for_alone() {
    let flow = flow(PAYS);
    for kind in ["errors", "timeouts", "crashes", "slow", "duplicates"] {
        let options = ["--faults", kind, "--output", "json", "--runs", "200"];
        let told = sim(&flow.file, &[&MOCKS[..], &options].concat())
            .succeeds()
            .json();
        let kinds: Vec<_> = told["faults"].as_object().expect("a map").keys().collect();
        assert_eq!(kinds, [kind]);
    }
}

#[test]
fn a_workflow_that_never_ends_is_told() {
    let waits = flow(
        "states:\n  - { name: Rest, type: Wait, duration: 1h, next: Again }\n  \
         - { name: Again, type: Pass, next: Rest }\n",
    );
    let run = sim(&waits.file, &[]).exits(1);
    assert!(run.stdout.contains("does not end"), "{run:?}");
    assert!(run.stdout.contains("no fault needed"), "{run:?}");
    let spins = flow(
        "states:\n  - { name: A, type: Pass, next: B }\n  - { name: B, type: Pass, next: A }\n",
    );
    let run = sim(&spins.file, &[]).exits(1);
    assert!(run.stdout.contains("does not end"), "{run:?}");
}

#[test]
fn a_workflow_that_waits_for_somebody_is_no_failure_and_is_told() {
    let flow = flow(
        "states:\n  - { name: Paid, type: EventTask, event: paid, result: $.paid, next: Ask }\n  \
         - { name: Ask, type: HumanTask, assignee: ann, result: $.answer, end: true }\n",
    );
    let told = |options: &[&str]| {
        let options = [options, &["--output", "json"]].concat();
        sim(&flow.file, &options).succeeds().json()
    };
    let alone = told(&[]);
    assert_eq!(alone["endings"]["waiting"], 1_000);
    assert!(
        alone["waiting"]["awaited"]
            .to_string()
            .contains("--signal 'paid=JSON'"),
        "{alone}"
    );
    // What was sent and not acknowledged before a crash is sent again.
    let sent = told(&[
        "--signal", "paid=1", "--answer", "Ask=2", "--faults", "crashes",
    ]);
    assert_eq!(sent["endings"]["completed"], 1_000);
    assert!(sent["faults"]["crashes"].as_u64() > Some(100), "{sent}");
}

#[test]
fn what_is_no_condition_or_has_no_activity_is_a_mistake() {
    let flow = flow(PAYS);
    for invariant in ["$.calls.charge_card", "$.nowhere == 1", "$.calls ==", ""] {
        let options = [&MOCKS[..], &["--invariant", invariant]].concat();
        let run = sim(&flow.file, &options).exits(2);
        assert!(run.stderr.contains("invariant"), "{run:?}");
    }
    let run = sim(&flow.file, &MOCKS[..4]).exits(2);
    assert!(run.stderr.contains("urn:cascade:activity:ship"), "{run:?}");
    sim(&flow.file, &["--faults", "none,slow"]).exits(2);
    sim(&flow.file, &["--runs", "0"]).exits(2);
    sim(&flow.file, &["--mock", "ship"]).exits(2);
}

/// A workflow of one activity of the chaos tests, which has a capability.
fn one(activity: &str, capability: &str) -> Flow {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a fixture");
    let prelude = read("runtime/tests/fixtures/prelude.wat");
    let wat = read(&format!("tests/src/chaos/activities/{activity}.wat"));
    let wasm = wat::parse_str(format!("(module\n{wat}\n{prelude})")).expect("a module");
    let flow = flow(&format!(
        "states:\n  - {{ name: A, type: Task, resource: urn:cascade:activity:{activity}, parameters: {{ n: 1 }}, end: true }}\n"
    ));
    let folder = flow.file.parent().expect("a folder");
    let manifest = format!("capabilities: [{capability}]\n");
    fs::write(folder.join(format!("{activity}.wasm")), wasm).expect("a file");
    fs::write(folder.join(format!("{activity}.manifest.yaml")), manifest).expect("a file");
    flow
}

#[test]
fn an_activity_that_reaches_out_is_mocked_or_let() {
    let flow = one("draw", "random");
    let refused = sim(&flow.file, &["--runs", "3"]).exits(2);
    assert!(refused.stderr.contains("random"), "{refused:?}");
    sim(&flow.file, &["--runs", "3", "--mock", "draw=1"]).succeeds();
    let real = sim(&flow.file, &["--runs", "3", "--real", "--output", "json"]).succeeds();
    let told: Value = real.json();
    assert_eq!(told["runs"], 3);
}

/// `mark` appends to what lies under its idempotency key each time that it runs.
#[test]
fn each_run_has_a_key_value_store_of_its_own_that_outlasts_crashes() {
    let flow = one("mark", "key-value");
    let once = "!(($.kv | values | join) | contains: ',')";
    let one_key = "($.kv | keys | length) <= 1";
    let calm = [
        "--faults",
        "none",
        "--invariant",
        once,
        "--invariant",
        one_key,
    ];
    sim(&flow.file, &calm).succeeds();
    let crashes = [
        "--faults",
        "crashes",
        "--invariant",
        one_key,
        "--invariant",
        once,
    ];
    let run = sim(&flow.file, &[&crashes[..], &["--output", "json"]].concat()).exits(1);
    let failure = &run.json()["failures"][0];
    // It has run, the crash took its outcome away, and it ran again.
    assert_eq!(failure["check"]["invariant"], once, "{failure}");
    assert_eq!(
        failure["faults"].as_array().map(Vec::len),
        Some(1),
        "{failure}"
    );
}
