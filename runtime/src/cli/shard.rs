//! `cascade shard`: where executions of a key are.

use std::path::PathBuf;

use cascade_cdl::{BUCKETS, bucket_of, fnv1a32};
use clap::Args;
use serde::Serialize;

use super::Session;
use super::error::Error;
use crate::config::Config;
use crate::engine::shard_of;

/// Say where executions with a shard key are
///
/// Computed here, from the numbers of shards that a server is configured with.
#[derive(Debug, Args)]
pub(crate) struct Shard {
    /// What `shard_key` gives; for an execution without one, its id leads to a bucket in the
    /// same way, but by its 16 bytes
    #[arg(allow_hyphen_values = true)]
    key: String,
    /// The server's configuration; without it everything is as by default
    #[arg(long, short, value_name = "FILE", env = "CASCADE_CONFIG")]
    config: Option<PathBuf>,
}

/// Where a key leads.
#[derive(Debug, Serialize)]
struct Place {
    key: String,
    /// Of all buckets, which are the same for ever.
    bucket: u32,
    buckets: u32,
    /// Of the server's `engine.shards`.
    engine_shard: u32,
    engine_shards: u32,
    /// What the filter `shard` of expressions gives, with the server's `sharding.shards`.
    shard: String,
    shards: u32,
}

impl Shard {
    pub(crate) fn run(self, session: &Session) -> Result<(), Error> {
        let config = match &self.config {
            Some(path) => {
                Config::load(path).map_err(|problems| Error::usage(problems.to_string()))?
            }
            None => Config::default(),
        };
        let place = place(self.key, config.engine.shards, config.sharding.shards);
        session.output.result(&place, || {
            format!(
                "bucket        {} of {}\nengine shard  {} of {}\nshard filter  {} of {}",
                place.bucket,
                place.buckets,
                place.engine_shard,
                place.engine_shards,
                place.shard,
                place.shards
            )
        });
        Ok(())
    }
}

fn place(key: String, engine_shards: u32, shards: u32) -> Place {
    let bucket = bucket_of(key.as_bytes());
    Place {
        bucket,
        buckets: BUCKETS,
        engine_shard: shard_of(bucket, engine_shards),
        engine_shards,
        shard: format!("shard-{}", fnv1a32(key.as_bytes()) % shards),
        shards,
        key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_where_the_language_says() {
        for (key, shard) in [
            ("", "shard-1"),
            ("a", "shard-0"),
            ("customer-123", "shard-8"),
            ("cust-1", "shard-6"),
        ] {
            let place = place(key.to_owned(), 4, 10);
            assert_eq!(place.shard, shard, "{key}");
            assert_eq!(place.bucket, fnv1a32(key.as_bytes()) % 4096, "{key}");
            assert_eq!(place.engine_shard, place.bucket / 1024, "{key}");
        }
    }
}
