//! Values of the key-value capability, and what each tenant keeps of them.
//!
//! Writes come with the group commits of [`super::writer`]. Each sees those before
//! it in its group, as if they were made one after the other; but what the file
//! holds is read by one statement for all, and what comes of them is written by one.
//! What a tenant keeps is counted in the same transaction. A crash loses both or
//! neither, and only of what was not answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use cascade_cdl::TenantId;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqlitePool};
use tokio::sync::oneshot;

use super::super::{Error, KvQuota, KvUsage, codec};
use super::statements::{KeyValues, add};
use super::unavailable;

/// What a write takes in pages beyond its payload: a leaf of the table and one
/// of its index, since keys come in any order.
const PAGES_BYTES: usize = 8 << 10;

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

    /// What it finds if its key holds a value.
    fn finds(&self, value: &Bytes) -> Found {
        Found {
            length: value.len() as u64,
            holds: matches!(
                &self.change,
                Change::Set { only_if: OnlyIf::Holds(expected), .. } if expected == value
            ),
        }
    }

    /// Size of the entry with a value of so many bytes, as quotas count it.
    fn entry_bytes(&self, value: u64) -> u64 {
        self.key.len() as u64 + value
    }
}

/// What the file holds under the key of a write, and keeps for its tenant.
struct Stored {
    /// Which write it is.
    number: i64,
    /// Size of the value, if there is one.
    length: Option<i64>,
    /// Whether the value is the one that is expected.
    holds: Option<bool>,
    keys: Option<i64>,
    bytes: Option<i64>,
}

/// The columns of [`KeyValues::find`], in their order.
type Row = (i64, Option<i64>, Option<bool>, Option<i64>, Option<i64>);

impl From<Row> for Stored {
    fn from((number, length, holds, keys, bytes): Row) -> Self {
        Self {
            number,
            length,
            holds,
            keys,
            bytes,
        }
    }
}

impl Stored {
    fn usage(&self) -> Result<KvUsage, Error> {
        let keys = codec::to_u64(self.keys.unwrap_or(0))?;
        let bytes = codec::to_u64(self.bytes.unwrap_or(0))?;
        Ok(KvUsage { keys, bytes })
    }

    fn value(&self) -> Result<Option<Found>, Error> {
        let Some(length) = self.length else {
            return Ok(None);
        };
        Ok(Some(Found {
            length: codec::to_u64(length)?,
            holds: self.holds.unwrap_or(false),
        }))
    }
}

/// A value that a write finds.
struct Found {
    length: u64,
    /// Whether it is the one that is expected.
    holds: bool,
}

/// What a tenant keeps while its writes of a group are made.
struct Account {
    /// What is damaged fails the writes of this tenant, and no other's.
    usage: Result<KvUsage, Error>,
    changed: bool,
}

/// What comes of the writes of a group; `None` is a key that is deleted.
#[derive(Default)]
struct Made<'w> {
    values: HashMap<(&'w TenantId, &'w str), Option<&'w Bytes>>,
    accounts: HashMap<&'w TenantId, Account>,
}

/// Makes writes within the transaction that the caller has begun, at most
/// [`KeyValues::MOST`]. `Err` means that it must be rolled back; a write that is
/// refused is no such error.
pub(super) async fn apply(
    sqlite: &mut SqliteConnection,
    statements: &KeyValues,
    writes: &[Write],
) -> Result<Vec<Outcome>, sqlx::Error> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sqlx::query_as_with(statements.find(writes.len()), asked(writes))
        .fetch_all(&mut *sqlite)
        .await?;
    let mut stored: Vec<Stored> = rows.into_iter().map(Stored::from).collect();
    stored.sort_unstable_by_key(|row| row.number);
    let mut made = Made::default();
    let outcomes = writes
        .iter()
        .zip(&stored)
        .map(|(write, stored)| made.make(write, stored))
        .collect();
    made.write(sqlite, statements).await?;
    Ok(outcomes)
}

/// Arguments of [`KeyValues::find`].
fn asked(writes: &[Write]) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    for (number, write) in (0_i64..).zip(writes) {
        let expected = match &write.change {
            Change::Set {
                only_if: OnlyIf::Holds(expected),
                ..
            } => Some(expected.to_vec()),
            _ => None,
        };
        add(&mut arguments, number);
        add(&mut arguments, write.tenant.to_shared());
        add(&mut arguments, write.key.clone());
        add(&mut arguments, expected);
    }
    arguments
}

impl<'w> Made<'w> {
    /// Makes one write after those before it, if what it asks for is so and the
    /// quota allows it.
    fn make(&mut self, write: &'w Write, stored: &Stored) -> Outcome {
        let account = match self.accounts.entry(&write.tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Account {
                usage: stored.usage(),
                changed: false,
            }),
        };
        let before = account.usage.clone()?;
        let key = (&write.tenant, write.key.as_str());
        let found = match self.values.get(&key) {
            Some(value) => value.map(|value| write.finds(value)),
            None => stored.value()?,
        };
        let Some(after) = decide(write, found, before)? else {
            return Ok(false);
        };
        account.usage = Ok(after);
        account.changed = true;
        let value = match &write.change {
            Change::Set { value, .. } => Some(value),
            Change::Delete => None,
        };
        self.values.insert(key, value);
        Ok(true)
    }

    async fn write(
        self,
        sqlite: &mut SqliteConnection,
        statements: &KeyValues,
    ) -> Result<(), sqlx::Error> {
        let (mut set, mut sets) = (SqliteArguments::default(), 0);
        let (mut delete, mut deletes) = (SqliteArguments::default(), 0);
        for ((tenant, key), value) in self.values {
            let arguments = match value {
                Some(_) => &mut set,
                None => &mut delete,
            };
            add(arguments, tenant.to_shared());
            add(arguments, key.to_owned());
            if let Some(value) = value {
                add(arguments, value.to_vec());
                sets += 1;
            } else {
                deletes += 1;
            }
        }
        let (mut usage, mut usages) = (SqliteArguments::default(), 0);
        for (tenant, account) in self.accounts {
            if let Account {
                usage: Ok(kept),
                changed: true,
            } = account
            {
                add(&mut usage, tenant.to_shared());
                add(&mut usage, codec::to_i64(kept.keys));
                add(&mut usage, codec::to_i64(kept.bytes));
                usages += 1;
            }
        }
        for (rows, sql, arguments) in [
            (sets, statements.set(sets), set),
            (deletes, statements.delete(deletes), delete),
            (usages, statements.set_usage(usages), usage),
        ] {
            if rows > 0 {
                sqlx::query_with(sql, arguments)
                    .execute(&mut *sqlite)
                    .await?;
            }
        }
        Ok(())
    }
}

/// What a tenant keeps after a write, given what was found under its key; `None`
/// if there is nothing to write.
fn decide(write: &Write, found: Option<Found>, before: KvUsage) -> Result<Option<KvUsage>, Error> {
    let mut after = before;
    if let Some(found) = &found {
        let entry = write.entry_bytes(found.length);
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
                OnlyIf::Holds(_) => found.is_some_and(|found| found.holds),
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
