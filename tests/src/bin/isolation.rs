//! Latency of one tenant beside the attacks of another:
//! `cargo run --release -p cascade-tests --bin isolation -- --clients 4 --seconds 5`.

use std::path::PathBuf;
use std::process::ExitCode;

use cascade_tests::isolation::{self, Plan, Verdict};

const USAGE: &str = "usage: isolation [--clients N] [--seconds N] [--rounds N] [--only TEXT] [--idle] [--server FILE]";

fn main() -> ExitCode {
    let mut plan = Plan {
        clients: 4,
        seconds: 5,
        rounds: 3,
        busy: true,
        only: String::new(),
    };
    let mut server: Option<PathBuf> = None;
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        if name == "--idle" {
            plan.busy = false;
            continue;
        }
        let value = args.next().unwrap_or_default();
        let read = match name.as_str() {
            "--clients" => value.parse().map(|clients| plan.clients = clients).is_ok(),
            "--seconds" => value.parse().map(|seconds| plan.seconds = seconds).is_ok(),
            "--rounds" => {
                plan.rounds = value.parse().unwrap_or(0);
                plan.rounds > 0
            }
            "--only" => {
                plan.only.clone_from(&value);
                true
            }
            "--server" => {
                server = std::fs::canonicalize(&value).ok();
                server.is_some()
            }
            _ => false,
        };
        if !read {
            eprintln!("cannot read `{name} {value}`\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    let server = server.unwrap_or_else(|| cascade_tests::binary().to_owned());
    println!(
        "a neighbour of {} clients, alone and beside each attack, {} s and {} rounds each, on {}",
        plan.clients,
        plan.seconds,
        plan.rounds,
        server.display()
    );
    let mut rows = Vec::new();
    isolation::run(&server, &plan, |row| {
        println!("{row}");
        rows.push(row);
    });
    if let Some(verdict) = Verdict::new(&rows) {
        println!("{verdict}");
    }
    if rows.iter().any(|row| !row.wrong.is_empty()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
