//! Values of the key-value capability, and what each tenant keeps of them.
//!
//! Writes come with the group commits of [`super::writer`]: a group's are made
//! one after the other in its transaction, so the later sees the earlier. What
//! a tenant keeps is counted in the same transaction. A crash loses both or
//! neither, and only of what was not answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use cascade_cdl::TenantId;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::oneshot;

use super::super::{Error, KvQuota, KvUsage, codec};
use super::unavailable;

/// What a write takes in pages beyond its payload: a leaf of the table and one
/// of its index, since keys come in any order.
const PAGES_BYTES: usize = 8 << 10;

/// Size of a value, and whether it is the one that is expected. A large value
/// is read only if one of its size is expected.
const FIND: &str = "SELECT length(value), CASE WHEN length(value) = length(?1) THEN value = ?1 END \
     FROM kv WHERE tenant = ?2 AND key = ?3";
const SET: &str = "INSERT INTO kv (tenant, key, value) VALUES (?, ?, ?) \
     ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM kv WHERE tenant = ? AND key = ?";
const USAGE: &str = "SELECT keys, bytes FROM kv_usage WHERE tenant = ?";
const SET_USAGE: &str = "INSERT INTO kv_usage (tenant, keys, bytes) VALUES (?, ?, ?) \
     ON CONFLICT (tenant) DO UPDATE SET keys = excluded.keys, bytes = excluded.bytes";

/// A write that waits for its commit.
pub(super) struct Write {
    pub(super) tenant: TenantId,
    pub(super) key: String,
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<Outcome>,
}

/// What a write does to its key.
pub(super) enum Change {
    Set {
        only_if: OnlyIf,
        value: Bytes,
        quota: KvQuota,
    },
    Delete,
}

/// What a key must be for a value to be set.
pub(super) enum OnlyIf {
    Anything,
    Absent,
    Holds(Bytes),
}

/// Whether a write has changed anything, or why it was refused.
pub(super) type Outcome = Result<bool, Error>;

impl Write {
    /// What it takes of a transaction.
    pub(super) fn bytes(&self) -> usize {
        let value = match &self.change {
            Change::Set { value, .. } => value.len(),
            Change::Delete => 0,
        };
        PAGES_BYTES + self.key.len() + value
    }

    /// Size of the entry with a value of so many bytes, as quotas count it.
    fn entry_bytes(&self, value: u64) -> u64 {
        self.key.len() as u64 + value
    }
}

/// What a tenant keeps while its writes of a group are made.
struct Account {
    /// What is damaged fails the writes of this tenant, and no other's.
    usage: Result<KvUsage, Error>,
    changed: bool,
}

/// Makes writes within the transaction that the caller has begun. `Err` means
/// that it must be rolled back; a write that is refused is no such error.
pub(super) async fn apply(
    sqlite: &mut SqliteConnection,
    writes: &[Write],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut accounts = HashMap::<&TenantId, Account>::new();
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        let account = match accounts.entry(&write.tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(account(&mut *sqlite, &write.tenant).await?),
        };
        let outcome = match &account.usage {
            Ok(usage) => make(&mut *sqlite, write, *usage).await?,
            Err(damage) => Err(damage.clone()),
        };
        outcomes.push(outcome.map(|after| {
            if let Some(after) = after {
                account.usage = Ok(after);
                account.changed = true;
            }
            after.is_some()
        }));
    }
    for (tenant, account) in accounts {
        if let Account {
            usage: Ok(usage),
            changed: true,
        } = account
        {
            sqlx::query(SET_USAGE)
                .bind(tenant.to_shared())
                .bind(codec::to_i64(usage.keys))
                .bind(codec::to_i64(usage.bytes))
                .execute(&mut *sqlite)
                .await?;
        }
    }
    Ok(outcomes)
}

async fn account(sqlite: &mut SqliteConnection, tenant: &TenantId) -> Result<Account, sqlx::Error> {
    let found: Option<(i64, i64)> = sqlx::query_as(USAGE)
        .bind(tenant.to_shared())
        .fetch_optional(sqlite)
        .await?;
    let (keys, bytes) = found.unwrap_or((0, 0));
    let usage = codec::to_u64(keys).and_then(|keys| {
        let bytes = codec::to_u64(bytes)?;
        Ok(KvUsage { keys, bytes })
    });
    Ok(Account {
        usage,
        changed: false,
    })
}

/// Makes one write, if what it asks for is so and the quota allows it; tells
/// what the tenant keeps after it, or `None` if it changes nothing.
async fn make(
    sqlite: &mut SqliteConnection,
    write: &Write,
    usage: KvUsage,
) -> Result<Result<Option<KvUsage>, Error>, sqlx::Error> {
    let tenant = write.tenant.to_shared();
    let expected = match &write.change {
        Change::Set {
            only_if: OnlyIf::Holds(expected),
            ..
        } => Some(expected.to_vec()),
        _ => None,
    };
    let found: Option<(i64, Option<bool>)> = sqlx::query_as(FIND)
        .bind(expected)
        .bind(tenant.clone())
        .bind(write.key.as_str())
        .fetch_optional(&mut *sqlite)
        .await?;
    let after = match decide(write, found, usage) {
        Ok(Some(after)) => after,
        nothing => return Ok(nothing),
    };
    match &write.change {
        Change::Set { value, .. } => {
            let set = sqlx::query(SET).bind(tenant).bind(write.key.as_str());
            set.bind(value.to_vec()).execute(sqlite).await?
        }
        Change::Delete => {
            let delete = sqlx::query(DELETE).bind(tenant);
            delete.bind(write.key.as_str()).execute(sqlite).await?
        }
    };
    Ok(Ok(Some(after)))
}

/// What a tenant keeps after a write, given what was found under its key; `None`
/// if there is nothing to write.
fn decide(
    write: &Write,
    found: Option<(i64, Option<bool>)>,
    before: KvUsage,
) -> Result<Option<KvUsage>, Error> {
    let mut after = before;
    if let Some((value, _)) = found {
        let entry = write.entry_bytes(codec::to_u64(value)?);
        let (keys, bytes) = (before.keys.checked_sub(1), before.bytes.checked_sub(entry));
        (after.keys, after.bytes) = keys
            .zip(bytes)
            .ok_or_else(|| codec::damaged("a tenant keeps more than its count of it"))?;
    }
    match &write.change {
        Change::Set {
            only_if,
            value,
            quota,
        } => {
            let is_so = match only_if {
                OnlyIf::Anything => true,
                OnlyIf::Absent => found.is_none(),
                OnlyIf::Holds(_) => matches!(found, Some((_, Some(true)))),
            };
            if !is_so {
                return Ok(None);
            }
            after.keys += 1;
            after.bytes += write.entry_bytes(value.len() as u64);
            quota.check(before, after)?;
            Ok(Some(after))
        }
        Change::Delete => Ok(found.map(|_| after)),
    }
}

/// The value of a key. Runs on readers.
pub(super) async fn get(
    pool: &SqlitePool,
    tenant: &TenantId,
    key: &str,
) -> Result<Option<Bytes>, Error> {
    let found: Option<(Vec<u8>,)> =
        sqlx::query_as("SELECT value FROM kv WHERE tenant = ? AND key = ?")
            .bind(tenant.as_str())
            .bind(key)
            .fetch_optional(pool)
            .await
            .map_err(|error| unavailable(&error))?;
    Ok(found.map(|(value,)| value.into()))
}
