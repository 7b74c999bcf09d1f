//! What the database saw: under which epoch of its shard each execution was written, by
//! whom, and who held the shard.
//!
//! A trigger notes it in the transaction that writes, as superuser, so that neither the
//! servers nor their policies know of it. The epoch cannot change before that transaction
//! ends, since it has the lease locked; so whoever writes is who holds, or was the last to
//! hold, or the epoch has not kept a stale commit out.

use std::collections::{BTreeMap, BTreeSet};

use crate::postgres::Postgres;

/// The database of the servers.
const DATABASE: &str = "workflows";

const INSTALL: &str = "
CREATE SCHEMA witness;
CREATE TABLE witness.writes (writer text, shard integer, epoch bigint, holder uuid);
CREATE FUNCTION witness.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO witness.writes
    SELECT current_setting('application_name'), shard, epoch, holder
    FROM public.shards JOIN public.leases USING (shard)
    WHERE NEW.bucket >= first_bucket AND NEW.bucket < end_bucket;
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER INSERT OR UPDATE ON public.executions
    FOR EACH ROW EXECUTE FUNCTION witness.note();";

/// A write as a server would make it that has lost a shard, and knows it not.
const STALE: &str = "
SET application_name = 'nobody';
UPDATE public.executions SET version = version
WHERE seq = (SELECT max(seq) FROM public.executions);";

/// Begins to watch.
pub(super) fn install(postgres: &Postgres) {
    postgres.sql(DATABASE, INSTALL);
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) writes: usize,
    /// Epochs of shards in which something was written.
    pub(super) epochs: usize,
    pub(super) violations: Vec<String>,
}

/// Looks at all that was written. `nodes` are those that each server has been, by the name
/// of its sessions.
pub(super) fn look(postgres: &Postgres, nodes: &BTreeMap<String, BTreeSet<String>>) -> Seen {
    let seen = judge(&read(postgres), nodes);
    // Whoever sees nothing wrong must be able to.
    postgres.sql(DATABASE, STALE);
    let fooled = judge(&read(postgres), nodes);
    if fooled.violations.len() > seen.violations.len() {
        return seen;
    }
    Seen {
        violations: vec!["the witness has not seen a stale write".to_owned()],
        ..seen
    }
}

/// Writes of one server in one epoch of a shard.
struct Writes {
    writer: String,
    shard: String,
    epoch: String,
    /// Empty if nobody held it: the last holder's are written to their end.
    holder: String,
    count: usize,
}

fn read(postgres: &Postgres) -> Vec<Writes> {
    let rows = postgres.sql(
        DATABASE,
        "SELECT writer, shard, epoch, holder, count(*) FROM witness.writes GROUP BY 1, 2, 3, 4",
    );
    let row = |line: &str| {
        let fields: Vec<_> = line.split('|').map(str::to_owned).collect();
        let [writer, shard, epoch, holder, count] =
            <[String; 5]>::try_from(fields).expect("five columns");
        Writes {
            writer,
            shard,
            epoch,
            holder,
            count: count.parse().expect("a number"),
        }
    };
    rows.lines().map(row).collect()
}

fn judge(rows: &[Writes], nodes: &BTreeMap<String, BTreeSet<String>>) -> Seen {
    let mut seen = Seen::default();
    let mut writers: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for row in rows {
        let Writes {
            writer,
            shard,
            epoch,
            holder,
            count,
        } = row;
        seen.writes += count;
        let own = nodes.get(writer).is_some_and(|own| own.contains(holder));
        if !holder.is_empty() && !own {
            seen.violations.push(format!(
                "{writer} wrote {count} times in epoch {epoch} of shard {shard}, which {holder} held"
            ));
        }
        match writers.insert((shard, epoch), writer) {
            Some(other) if other != writer => seen.violations.push(format!(
                "{writer} and {other} wrote in epoch {epoch} of shard {shard}"
            )),
            _ => {}
        }
    }
    seen.epochs = writers.len();
    seen
}
