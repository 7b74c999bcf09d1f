//! ARCHITECTURE.md says which part sees which. This holds the code to it.

use std::fs;
use std::path::{Path, PathBuf};

/// Parts of the runtime, and what none of their code may name.
const FORBIDDEN: [(&str, &[&str]); 10] = [
    (
        "sandbox",
        &[
            "store", "engine", "api", "worker", "server", "cli", "catalog", "tenancy",
        ],
    ),
    (
        "store",
        &[
            "engine", "api", "worker", "server", "cli", "sandbox", "dispatch", "catalog",
        ],
    ),
    (
        "dispatch",
        &["store", "api", "worker", "server", "cli", "engine"],
    ),
    (
        "engine",
        &["api", "worker", "server", "cli", "tenancy", "cluster"],
    ),
    (
        "cluster",
        &[
            "api", "worker", "server", "cli", "catalog", "tenancy", "sandbox", "dispatch",
        ],
    ),
    (
        "schedules",
        &[
            "api", "worker", "server", "cli", "catalog", "tenancy", "sandbox", "dispatch",
        ],
    ),
    (
        "objects",
        &[
            "api", "worker", "server", "cli", "engine", "dispatch", "catalog", "tenancy", "sandbox",
        ],
    ),
    ("worker", &["api", "server", "cli", "store", "tenancy"]),
    ("api", &["worker", "server", "cli", "dispatch"]),
    ("catalog", &["api", "worker", "server", "cli", "dispatch"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files of a part: `part.rs` and those below `part/`, less tests.
fn files(part: &str) -> Vec<PathBuf> {
    let src = root().join("runtime/src");
    let mut found = vec![src.join(part).with_extension("rs")];
    let mut folders = vec![src.join(part)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Whether a line of code names a module of the crate.
fn names(line: &str, module: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let path = format!("crate::{module}");
    code.match_indices(&path).any(|(at, _)| {
        let next = code[at + path.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn every_part_sees_only_what_the_architecture_lets_it_see() {
    let mut wrong = Vec::new();
    for (part, forbidden) in FORBIDDEN {
        for file in files(part) {
            let text = fs::read_to_string(&file).expect("a file of the part");
            for (number, line) in text.lines().enumerate() {
                for module in forbidden.iter().filter(|module| names(line, module)) {
                    wrong.push(format!(
                        "{}:{}: {part} names {module}",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_has_no_clock_no_randomness_no_io_and_no_async() {
    let manifest = fs::read_to_string(root().join("cdl/Cargo.toml")).expect("there");
    let dependencies = manifest
        .split("[dev-dependencies]")
        .next()
        .expect("a first part");
    for name in [
        "tokio",
        "futures",
        "sqlx",
        "reqwest",
        "rand",
        "getrandom",
        "wasmtime",
        "tracing",
    ] {
        let named = dependencies.lines().any(|line| line.starts_with(name));
        assert!(!named, "cdl depends on {name}");
    }
}

#[test]
fn the_check_finds_what_it_looks_for() {
    assert!(names("use crate::store::Store;", "store"));
    assert!(names("    let x = crate::store::open();", "store"));
    assert!(!names("use crate::storefront::X;", "store"));
    assert!(!names("// use crate::store::Store;", "store"));
}
