//! Identifiers and time as the machine sees them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::TaskId;

/// Number of buckets that executions are spread over, for ever: ranges of
/// buckets form shards, so shards can split and merge without moving keys.
pub const BUCKETS: u32 = 4096;

/// Milliseconds since the Unix epoch, UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus `millis`, saturating.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time, 0 if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339 with milliseconds, as in `2026-01-31T09:30:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// How the ids of children end; of other ids of version 8 one in 65536 does.
const CHILD: [u8; 2] = [0xc4, 0x1d];

/// One run of a workflow. Time-ordered (UUID version 7) unless an idempotency
/// key names it (version 8, a hash of tenant and key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecutionId(pub Uuid);

impl ExecutionId {
    /// The execution that an idempotency key of a tenant names. The same key
    /// always names the same execution, so a repeated start needs no lookup
    /// beyond that of the execution itself.
    pub fn from_key(tenant: &TenantId, key: &str) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(tenant.as_str().as_bytes());
        hash.update([0]); // no tenant contains a NUL, so the pair is unambiguous
        hash.update(key.as_bytes());
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(Uuid::new_v8(bytes))
    }

    /// The execution that an attempt of a Task starts as its child. The same
    /// attempt always names the same one, so that starting it again, after a crash,
    /// starts no second one.
    pub fn of_child(parent: Self, task: TaskId, attempt: u32) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        // No tenant begins so, which keeps it apart from the keys of clients.
        hash.update(b"\0child\0");
        hash.update(parent.0.as_bytes());
        hash.update(task.0.to_be_bytes());
        hash.update(attempt.to_be_bytes());
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[14..].copy_from_slice(&CHILD);
        Self(Uuid::new_v8(bytes))
    }

    /// The execution that a schedule of a tenant's application starts for one reason: a
    /// time, or somebody's wish. Starting it again, after a crash, starts no second one.
    pub(crate) fn of_schedule(
        tenant: &TenantId,
        application: &str,
        schedule: &str,
        reason: &[u8],
    ) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        // As above. No name contains a NUL, so they are kept apart.
        hash.update(b"\0schedule\0");
        for part in [tenant.as_str(), application, schedule] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(reason);
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(Uuid::new_v8(bytes))
    }

    /// Whether it may be a child by its id: each that is one may. So recovery
    /// reads of what sleeps hardly more than the children.
    pub fn may_be_child(self) -> bool {
        self.0.get_version_num() == 8 && self.0.as_bytes().ends_with(&CHILD)
    }

    /// The bucket of an execution without a shard key of its own.
    pub fn bucket(self) -> u32 {
        bucket_of(self.0.as_bytes())
    }
}

/// The bucket of a shard key: FNV-1a, 32 bits, modulo [`BUCKETS`].
pub fn bucket_of(key: &[u8]) -> u32 {
    fnv1a32(key) % BUCKETS
}

/// FNV-1a with 32 bits (the `fnv` crate offers 64 only; parameters from
/// <http://www.isthe.com/chongo/tech/comp/fnv/>).
pub fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ExecutionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::from_str(text).map(Self)
    }
}

/// A customer whose workflows are kept apart from everybody else's.
///
/// 1 to 63 characters of `a-z`, `0-9`, `-` and `_`, starting with a letter or
/// digit, so that it can stand in paths, subjects, cache keys and headers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

/// What is wrong with a tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tenant `{0}` must be 1 to 63 characters of a-z, 0-9, - and _, starting with a letter or digit"
)]
pub struct InvalidTenant(String);

impl TenantId {
    /// Longest id, in bytes: a DNS label, so that it may become part of a host or database name.
    pub const MAX_LEN: usize = 63;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as shared text.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let head = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().next().is_some_and(head)
            && text.bytes().all(|c| head(c) || c == b'-' || c == b'_');
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTenant(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for TenantId {
    type Error = InvalidTenant;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: the design's examples for `shard-{fnv1a32 % 10}`.
    #[test]
    fn fnv_agrees_with_the_published_shards() {
        for (key, shard) in [("", 1), ("a", 0), ("customer-123", 8), ("cust-1", 6)] {
            assert_eq!(fnv1a32(key.as_bytes()) % 10, shard, "{key}");
        }
    }

    #[test]
    fn a_key_names_one_execution_per_tenant() {
        let [a, b]: [TenantId; 2] = ["a", "b"].map(|t| t.parse().expect("valid"));
        assert_eq!(
            ExecutionId::from_key(&a, "k"),
            ExecutionId::from_key(&a, "k")
        );
        assert_ne!(
            ExecutionId::from_key(&a, "k"),
            ExecutionId::from_key(&b, "k")
        );
    }

    #[test]
    fn each_attempt_names_a_child_of_its_own() {
        let [a, b] = [1, 2].map(|id| ExecutionId(Uuid::from_u128(id)));
        let child = ExecutionId::of_child(a, TaskId(3), 1);
        assert_eq!(child, ExecutionId::of_child(a, TaskId(3), 1));
        for other in [
            ExecutionId::of_child(b, TaskId(3), 1),
            ExecutionId::of_child(a, TaskId(4), 1),
            ExecutionId::of_child(a, TaskId(3), 2),
        ] {
            assert_ne!(child, other);
            assert!(other.may_be_child());
        }
        assert!(!a.may_be_child());
    }

    #[test]
    fn tenants_are_short_and_plain() {
        for bad in ["", "-a", "A", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
    }
}
