//! Writes of the key-value capability: what comes of them, whatever the database.
//!
//! Writes come with the group commits of [`super::group`]. Each sees those before
//! it in its group, as if they were made one after the other; but what is stored
//! is read by one statement for all, and what comes of them is written by one.
//! What a tenant keeps is counted in the same transaction. A crash loses both or
//! neither, and only of what was not answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use cascade_cdl::TenantId;
use tokio::sync::oneshot;

use super::{Error, KvQuota, KvUsage, codec};

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

    /// The value that its key must hold.
    pub(super) fn expected(&self) -> Option<&Bytes> {
        match &self.change {
            Change::Set {
                only_if: OnlyIf::Holds(expected),
                ..
            } => Some(expected),
            _ => None,
        }
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

/// What is stored under the key of a write, and kept for its tenant.
pub(super) struct Stored {
    /// Which write it is.
    pub(super) number: i64,
    /// Size of the value, if there is one.
    length: Option<i64>,
    /// Whether the value is the one that is expected.
    holds: Option<bool>,
    keys: Option<i64>,
    bytes: Option<i64>,
}

/// Which write it is, the size of the value, whether it is the expected one, and
/// keys and bytes that the tenant keeps.
pub(super) type Row = (i64, Option<i64>, Option<bool>, Option<i64>, Option<i64>);

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
pub(super) struct Made<'w> {
    values: HashMap<(&'w TenantId, &'w str), Option<&'w Bytes>>,
    accounts: HashMap<&'w TenantId, Account>,
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

    /// Makes writes in their order; `stored` is what there was, in the same order.
    pub(super) fn make_all(
        &mut self,
        writes: impl IntoIterator<Item = &'w Write>,
        stored: &[Stored],
    ) -> Vec<Outcome> {
        let both = writes.into_iter().zip(stored);
        both.map(|(write, stored)| self.make(write, stored))
            .collect()
    }

    /// What each key holds now; `None` is a key that is deleted.
    pub(super) fn values(
        &self,
    ) -> impl Iterator<Item = (&'w TenantId, &'w str, Option<&'w Bytes>)> {
        let values = self.values.iter();
        values.map(|((tenant, key), value)| (*tenant, *key, *value))
    }

    /// What tenants keep now, where it is not as before.
    pub(super) fn usages(&self) -> impl Iterator<Item = (&'w TenantId, KvUsage)> {
        self.accounts
            .iter()
            .filter_map(|(tenant, account)| match account {
                Account {
                    usage: Ok(kept),
                    changed: true,
                } => Some((*tenant, *kept)),
                _ => None,
            })
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
