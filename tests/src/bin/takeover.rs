//! What clients see when a server of several dies, leaves or comes:
//! `cargo run --release -p cascade-tests --bin takeover -- --rounds 20`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cascade_tests::takeover::{self, Plan};

const USAGE: &str = "usage: takeover [--rounds N] [--nodes N] [--clients N] [--every-ms N] \
                     [--output text|json] [--server FILE]";

fn main() -> ExitCode {
    let mut plan = Plan {
        rounds: 10,
        nodes: 3,
        clients: 2,
        every: Duration::from_millis(40),
    };
    let mut is_json = false;
    let mut server: Option<PathBuf> = None;
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        let number = |least: usize| value.parse().ok().filter(|number| *number >= least);
        let read = match name.as_str() {
            "--rounds" => number(1).map(|rounds| plan.rounds = rounds).is_some(),
            "--nodes" => number(2).map(|nodes| plan.nodes = nodes).is_some(),
            "--clients" => number(1).map(|clients| plan.clients = clients).is_some(),
            "--every-ms" => number(1)
                .map(|every| plan.every = Duration::from_millis(every as u64))
                .is_some(),
            "--output" => {
                is_json = value == "json";
                matches!(value.as_str(), "json" | "text")
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
    eprintln!("{plan:?} with {}", server.display());
    let report = takeover::run(&server, plan, |round, seen| eprintln!("{round:>3} {seen}"));
    if is_json {
        println!("{:#}", report.json());
    } else {
        println!("{report}");
    }
    if report.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
