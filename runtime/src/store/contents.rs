//! Contents of objects in a database, for stores that many servers share.
//!
//! A content comes block after block under an id of its own, each block durable by itself,
//! since nobody can hold one whole. Then it is given its digest, in the transaction that
//! writes the row of its object; until then nobody finds it. One that no object has any more
//! loses its digest likewise, and its blocks go later: who reads it reads on meanwhile.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::TenantId;
use uuid::Uuid;

use super::{Error, Object, Replaced};

/// What a content is cut into: large enough that a block costs more than the way to it, and
/// small beside what a server has in memory.
pub const BLOCK_BYTES: usize = 256 << 10;

/// How long a content stays that no object has any more: who has begun to read it reads it
/// to its end within this.
pub const READ_GRACE: Duration = Duration::from_mins(10);

/// A content that has got no block for so long is not being written any more.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_hours(1);

/// What names a content while it has no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentId(pub Uuid);

/// A content that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptContent {
    pub id: ContentId,
    /// In bytes.
    pub size: u64,
}

/// The contents of a store.
#[async_trait]
pub trait Contents: Send + Sync {
    /// Begins a content.
    async fn begin_content(&self, tenant: &TenantId, id: ContentId) -> Result<(), Error>;

    /// Adds a block, the first being number 0. All but the last have [`BLOCK_BYTES`].
    async fn add_block(
        &self,
        tenant: &TenantId,
        id: ContentId,
        number: u64,
        bytes: &[u8],
    ) -> Result<(), Error>;

    /// Ends a content, and makes or replaces an object with it, as
    /// [`Store::put_object`](super::Store::put_object) does, or neither.
    async fn put_content(
        &self,
        tenant: &TenantId,
        id: ContentId,
        object: Object,
        quota: u64,
    ) -> Result<Replaced, Error>;

    /// Ends a content that objects have already whose contents are elsewhere; says whether
    /// there are any.
    async fn adopt_content(
        &self,
        tenant: &TenantId,
        id: ContentId,
        digest: &str,
    ) -> Result<bool, Error>;

    /// Gives up a content that is being written.
    async fn drop_content(&self, tenant: &TenantId, id: ContentId) -> Result<(), Error>;

    /// The content with a digest.
    async fn content(&self, tenant: &TenantId, digest: &str) -> Result<Option<KeptContent>, Error>;

    /// A block of a content; `None` if it has none of this number, or has gone.
    async fn block(
        &self,
        tenant: &TenantId,
        id: ContentId,
        number: u64,
    ) -> Result<Option<Bytes>, Error>;

    /// Removes some of what nobody reads or writes any more, whoever's it was; says whether
    /// there may be more.
    async fn sweep_contents(&self) -> Result<bool, Error>;
}
