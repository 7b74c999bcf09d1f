//! Several servers on one PostgreSQL, as operators see them over HTTP.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Server;
use crate::postgres::Postgres;

/// Longest that something is waited for: far longer than it takes on a machine that has
/// anything else to do.
const DEADLINE: Duration = Duration::from_mins(2);

/// What a new database gets.
pub const SHARDS: usize = 16;

/// A server on this database, beside those that are there. Its sessions have its name, and
/// `settings` are those of the tenant.
pub fn join(binary: &Path, postgres: &Postgres, name: &str, settings: &str) -> Server {
    let url = postgres.url();
    let database = format!("database: {{ primary: '{url}?application_name={name}' }}");
    Server::with_binary(binary, &format!("{settings}\n{database}"))
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "waited in vain until {what}");
    }
}

/// The items of a list that the server shows to its operator.
pub fn list(server: &Server, path: &str) -> Vec<Value> {
    try_list(server, path).expect("answers")
}

fn try_list(server: &Server, path: &str) -> io::Result<Vec<Value>> {
    let answer = server.admin_request("GET", path)?;
    assert!(
        matches!(answer.status, 200 | 503),
        "{}: {}",
        answer.status,
        answer.text
    );
    match answer.body["items"].as_array() {
        Some(items) => Ok(items.clone()),
        None => Err(io::Error::other(answer.text)),
    }
}

/// A shard as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub shard: u64,
    pub buckets: Range<u32>,
    /// The node that has it, if one does.
    pub node: Option<String>,
}

/// All shards, by number.
pub fn shards(server: &Server) -> io::Result<Vec<Shown>> {
    let items = try_list(server, "/v1/shards")?;
    let shown = items.iter().map(|item| {
        let bucket = |end: usize| {
            let bucket = item["buckets"][end].as_u64();
            u32::try_from(bucket.expect("a bucket")).expect("there are few")
        };
        Shown {
            shard: item["shard"].as_u64().expect("a number"),
            buckets: bucket(0)..bucket(1),
            node: item["node"].as_str().map(str::to_owned),
        }
    });
    Ok(shown.collect())
}

/// The node that a server is, as another one shows it.
pub fn node_of(server: &Server, shown_by: &Server) -> String {
    let nodes = list(shown_by, "/v1/nodes");
    let own = |node: &&Value| node["address"] == server.url() && node["status"] == "live";
    let node = nodes.iter().find(own).expect("it is a member");
    node["id"].as_str().expect("an id").to_owned()
}

/// How many shards each node has that answers for any.
pub fn held(shards: &[Shown]) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for node in shards.iter().filter_map(|shard| shard.node.clone()) {
        *held.entry(node).or_default() += 1;
    }
    held
}

/// Whether so many nodes have all shards in even parts.
pub fn is_balanced(held: &BTreeMap<String, usize>, nodes: usize) -> bool {
    let even = |count: &usize| (SHARDS / nodes..=SHARDS.div_ceil(nodes)).contains(count);
    held.len() == nodes && held.values().sum::<usize>() == SHARDS && held.values().all(even)
}

/// Returns when `nodes` of them have all shards in even parts.
pub fn balanced(server: &Server, nodes: usize) -> BTreeMap<String, usize> {
    until(&format!("{nodes} nodes have even parts"), || {
        let held = held(&shards(server).expect("answers"));
        is_balanced(&held, nodes).then_some(held)
    })
}
