//! Reads that a copy of the database may answer, and how old they may be.
//!
//! A replica shows what the primary had a moment ago. So that nobody is shown less than they
//! know already, whoever reads carries the [`Position`] of what they have written and seen,
//! and a replica answers only if it has come as far. What decides what happens next (commits,
//! recovery, whoever waits for an end) reads the primary, always.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cascade_cdl::{Event, ExecutionId, TenantId};

use super::{
    Counts, Cursor, Error, Filter, HumanTask, ListCursor, Object, Page, Store, Stored, Summary,
    TaskFilter,
};

/// How far a database has come. What is there at a position holds all that was durable then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// How often a replica has become the primary.
    pub timeline: u32,
    /// Bytes of the log.
    pub lsn: u64,
}

impl Position {
    /// Whether all that was there at `other` is there at this one. Where timelines differ, both
    /// have to be past: a later one has lost what its replica had not got.
    pub fn covers(self, other: Self) -> bool {
        self.timeline >= other.timeline && self.lsn >= other.lsn
    }
}

/// What a reader has to be shown at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// What any replica in service has.
    Anything,
    /// All that was there at a position.
    At(Position),
    /// All that there is.
    Now,
}

/// What one client reads, one thing after the other: none is older than what it knew before,
/// or than what was read before.
#[async_trait]
pub trait Reader: Send + Sync {
    /// As [`Store::load`].
    async fn load(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Stored>, Error>;

    /// As [`Store::summary`].
    async fn summary(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Summary>, Error>;

    /// As [`Store::history`].
    async fn history(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: u64,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<Event>, Error>;

    /// As [`Store::list`].
    async fn list(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        before: Option<ListCursor>,
        limit: u32,
    ) -> Result<Page<Summary, ListCursor>, Error>;

    /// As [`Store::count`].
    async fn count(&self, tenant: &TenantId, filter: &Filter) -> Result<Counts, Error>;

    /// As [`Store::human_tasks`].
    async fn human_tasks(
        &self,
        tenant: &TenantId,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<HumanTask>, Error>;

    /// As [`Store::objects`].
    async fn objects(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error>;

    /// Where all that was read so far was, at the latest; `None` if the primary was asked, or
    /// nobody.
    fn seen(&self) -> Option<Position>;

    /// Reads the primary from now on.
    fn leave(&self);
}

/// The replicas of a database.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// For one client, of which it is known what it knows.
    fn reader(&self, since: Since) -> Arc<dyn Reader>;

    /// How far the primary is: what was acknowledged before this call is before it. `None` if it
    /// does not say so within a second.
    async fn position(&self) -> Option<Position>;

    /// How each of them stands, in the order of the settings.
    fn standings(&self) -> Vec<Standing>;
}

/// How a replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `HOST:PORT`.
    pub name: String,
    /// Why it answers nothing, if so.
    pub out: Option<String>,
    /// How long it has lacked something that the primary has, as far as that is remembered:
    /// some seven minutes. `None` if it has not said where it is.
    pub lag: Option<Duration>,
    /// How much it lacks, in bytes of the log.
    pub behind: Option<u64>,
    /// What it was asked for.
    pub reads: Asked,
}

/// How often a replica was asked to read something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// It has answered.
    pub answered: u64,
    /// It had not come as far as its client.
    pub behind: u64,
    /// It did not answer, or refused.
    pub failed: u64,
}

/// Reads a store that has no replicas.
pub struct Whole(pub Arc<dyn Store>);

#[async_trait]
impl Reader for Whole {
    async fn load(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Stored>, Error> {
        self.0.load(tenant, id).await
    }

    async fn summary(&self, tenant: &TenantId, id: ExecutionId) -> Result<Option<Summary>, Error> {
        self.0.summary(tenant, id).await
    }

    async fn history(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: u64,
        limit: u32,
        bytes: usize,
    ) -> Result<Vec<Event>, Error> {
        self.0.history(tenant, id, after, limit, bytes).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        before: Option<ListCursor>,
        limit: u32,
    ) -> Result<Page<Summary, ListCursor>, Error> {
        self.0.list(tenant, filter, before, limit).await
    }

    async fn count(&self, tenant: &TenantId, filter: &Filter) -> Result<Counts, Error> {
        self.0.count(tenant, filter).await
    }

    async fn human_tasks(
        &self,
        tenant: &TenantId,
        filter: &TaskFilter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<HumanTask>, Error> {
        self.0.human_tasks(tenant, filter, after, limit).await
    }

    async fn objects(
        &self,
        tenant: &TenantId,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Object>, Error> {
        self.0.objects(tenant, bucket, prefix, after, limit).await
    }

    fn seen(&self) -> Option<Position> {
        None
    }

    fn leave(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_covers_what_is_before_it_on_every_timeline() {
        let at = |timeline, lsn| Position { timeline, lsn };
        assert!(at(1, 5).covers(at(1, 5)));
        assert!(at(1, 6).covers(at(1, 5)));
        assert!(!at(1, 4).covers(at(1, 5)));
        assert!(at(2, 5).covers(at(1, 5)));
        // What was lost when its replica became the primary, or is not here yet.
        assert!(!at(2, 4).covers(at(1, 5)));
        assert!(!at(1, 9).covers(at(2, 5)));
    }
}
