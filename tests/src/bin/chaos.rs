//! The long chaos campaign, as a command of its own:
//! `cargo run -p cascade-tests --bin chaos -- --kills 120 --seed 7 --server target/release/cascade`.

use std::path::PathBuf;
use std::process::ExitCode;

use cascade_tests::chaos::{self, Plan};

const USAGE: &str = "usage: chaos [--kills N] [--seed N] [--clients N] [--server FILE]";

fn main() -> ExitCode {
    let mut plan = Plan {
        seed: fastrand::u64(..1_000_000),
        kills: 120,
        clients: 16,
    };
    let mut server: Option<PathBuf> = None;
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        let read = match name.as_str() {
            "--kills" => value.parse().map(|kills| plan.kills = kills).is_ok(),
            "--seed" => value.parse().map(|seed| plan.seed = seed).is_ok(),
            "--clients" => value.parse().map(|clients| plan.clients = clients).is_ok(),
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
    eprintln!("{plan:?} against {}", server.display());
    let outcome = chaos::run(&server, plan);
    println!("{outcome}");
    if outcome.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
