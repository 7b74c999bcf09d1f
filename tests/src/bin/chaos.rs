//! The long chaos campaigns, as a command of its own: of one server,
//! `cargo run -p cascade-tests --bin chaos -- --kills 120 --seed 7 --server target/release/cascade`,
//! and of several on one PostgreSQL, `... --bin chaos -- --nodes 3 --minutes 30`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cascade_tests::chaos::{self, Plan, Siege};

const USAGE: &str = "usage: chaos [--kills N] [--seed N] [--clients N] [--server FILE]\n       \
                     chaos --nodes N [--minutes N] [--seed N] [--clients N] [--server FILE]";

fn main() -> ExitCode {
    let mut plan = Plan {
        seed: fastrand::u64(..1_000_000),
        kills: 120,
        clients: 16,
    };
    let (mut nodes, mut minutes) = (None, 5.0);
    let mut server: Option<PathBuf> = None;
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        let read = match name.as_str() {
            "--kills" => value.parse().map(|kills| plan.kills = kills).is_ok(),
            "--seed" => value.parse().map(|seed| plan.seed = seed).is_ok(),
            "--clients" => value.parse().map(|clients| plan.clients = clients).is_ok(),
            "--nodes" => {
                nodes = value.parse().ok().filter(|nodes| *nodes > 0);
                nodes.is_some()
            }
            "--minutes" => {
                minutes = value.parse().unwrap_or(0.0);
                minutes > 0.0
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
    let outcome = if let Some(nodes) = nodes {
        let siege = Siege {
            seed: plan.seed,
            nodes,
            clients: plan.clients,
            time: Duration::from_secs_f64(minutes * 60.0),
        };
        eprintln!("{siege:?} against {}", server.display());
        siege.run(&server)
    } else {
        eprintln!("{plan:?} against {}", server.display());
        chaos::run(&server, plan)
    };
    println!("{outcome}");
    if outcome.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
